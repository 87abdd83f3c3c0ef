/* SPDX-License-Identifier: Apache-2.0 */
/* Appending and replacing rows (P2, P4, P11). */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "gather.h"
#include "io.h"
#include "journal.h"
#include "npk.h"
#include "rewrite.h"
#include "rows.h"
#include "settle.h"
#include "store.h"
#include "target.h"
#include "view.h"

/* The kernel writes at most 2^31 - 4096 bytes in one call; whole rows of about this much are handed to it at once. */
#define PIECE (UINT64_C(1) << 30)

/* ---- append ---------------------------------------------------------------------------------------------------- */

struct written {
    uint64_t begin, end; /* the file's bytes from the first to behind the last one written */
    uint64_t bytes;      /* of them ours: less than end - begin if another appender got in between */
};

/* The descriptor is ours and was opened O_RDWR | O_NONBLOCK (npk__open_for_change). */
static int set_append(int fd, bool on)
{
    return fcntl(fd, F_SETFL, O_NONBLOCK | (on ? O_APPEND : 0)) == 0 ? 0 : -errno;
}

/* Let the kernel place the rows at the end of the file (P2). One call for whole rows: it holds the inode meanwhile. */
static int write_at_end(int fd, const uint8_t *rows, uint64_t bytes, uint64_t row_bytes, struct written *out)
{
    uint64_t piece = PIECE > row_bytes ? PIECE - PIECE % row_bytes : row_bytes;
    *out = (struct written){0};
    while (out->bytes < bytes) {
        uint64_t left = bytes - out->bytes;
        ssize_t n = npk__write(fd, rows + out->bytes, left < piece ? left : piece);
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        off_t at = lseek(fd, 0, SEEK_CUR); /* an append leaves the position behind its last byte */
        if (at < n)
            return at < 0 ? -errno : -EIO;
        uint64_t begin = (uint64_t)at - (uint64_t)n;
        if (out->bytes == 0)
            out->begin = begin;
        else if (begin != out->end && out->bytes % row_bytes != 0)
            return -EIO; /* somebody else's bytes came into the middle of a row that the disk had cut */
        out->bytes += (uint64_t)n;
        out->end = (uint64_t)at;
    }
    return 0;
}

/* Cut our bytes off again, if nothing of anybody else's is among or behind them: 0; else -EBUSY. */
static int take_back(int fd, const struct written *w)
{
    struct stat st;
    if (w->bytes == 0)
        return 0;
    int err = npk__fstat(fd, &st);
    if (err)
        return err;
    if (w->end - w->begin != w->bytes || (uint64_t)st.st_size != w->end)
        return -EBUSY;
    return npk__ftruncate(fd, w->begin);
}

static int append_failed(npk_target *t, int err, const struct written *w)
{
    int back = take_back(t->fd, w);
    if (back == 0 || back == -EBUSY)
        (void)npk__dirty_unmark(t->dir.fd, &t->entry);
    if (back == 0)
        return npk__fail_errno(err, t->name);
    return npk__fail(err,
                     "\"%s\": %s; %" PRIu64 " bytes of the rows were written and could not be taken back, since "
                     "another program appended behind them",
                     t->name, strerrorname_np(-err), w->bytes);
}

/* Digits last. Rows that other writers of the session appended meanwhile are whole rows, too, and count. */
static int count_rows(npk_target *t, const struct written *w)
{
    npk_header *h = &t->info.header;
    struct stat st;
    int err = npk__fstat(t->fd, &st);
    if (err)
        return err;
    uint64_t size = (uint64_t)st.st_size;
    uint64_t rows = (size - h->data_offset) / h->row_bytes;
    if (size < w->end)
        return -EIO; /* cut by somebody else */
    return npk__write_rows(t->fd, h, rows);
}

static int append_once(npk_target *t, const void *rows, uint64_t bytes, struct written *w)
{
    const npk_header *h = &t->info.header;
    int err = npk__dirty_mark(t->dir.fd, &t->entry, t->info.file_bytes, bytes, rows);
    if (err)
        return err;
    err = set_append(t->fd, true);
    if (!err)
        err = write_at_end(t->fd, rows, bytes, h->row_bytes, w);
    int err2 = set_append(t->fd, false);
    if (!err)
        err = err2;
    if (err)
        return append_failed(t, err, w);
    if ((w->begin - h->data_offset) % h->row_bytes == 0)
        return 0;
    /* Between our look and our write somebody wrote a part of a row: ours must not complete it. */
    err = take_back(t->fd, w);
    if (err)
        return append_failed(t, -EIO, w);
    err = npk__dirty_unmark(t->dir.fd, &t->entry);
    return err ? err : -EAGAIN;
}

int npk__append_open(npk_target *t, const void *rows, uint64_t count, uint64_t *first)
{
    npk_header *h = &t->info.header;
    uint64_t bytes = count * h->row_bytes; /* fits: the opening has looked */
    struct written w;
    if (bytes == 0) {
        if (first)
            *first = npk__target_rows(t);
        return 0;
    }
    int err = append_once(t, rows, bytes, &w);
    for (unsigned tries = 0; err == -EAGAIN && tries < 16; tries++) {
        npk__target_shut(t);
        err = npk__target_open_with_room(t, 0, count);
        if (!err)
            err = append_once(t, rows, bytes, &w);
    }
    if (err == -EAGAIN)
        return npk__fail(-EBUSY, "\"%s\": another program keeps appending parts of rows; try again when it is done",
                         t->name);
    if (err)
        return err;
    err = count_rows(t, &w);
    if (err < 0)
        return append_failed(t, err, &w);
    /* 1: others appended so much meanwhile that the digits do not fit. The rows are in the file and in the session, so
     * they are counted as soon as the header can be made longer: now, or by whoever settles when no writer is left. */
    bool no_room = err == 1;
    /* The rows count: a mark that stays does no harm, as it speaks of bytes that the header counts. */
    (void)npk__dirty_unmark(t->dir.fd, &t->entry);
    if (first)
        *first = (w.begin - h->data_offset) / h->row_bytes - t->marks.known.deleted;
    npk__target_wrote(t);
    if (no_room)
        (void)npk__rewrite_roomier(t);
    return 0;
}

npk_err npk_append(npk_store *s, const char *name, const void *rows, uint64_t count, uint64_t *first)
{
    npk_target t;
    int err = npk__target_lock(s, name, &t);
    if (!err)
        err = npk__target_open_with_room(&t, 0, count);
    if (!err)
        err = npk__append_open(&t, rows, count, first);
    npk__target_release(&t);
    return err;
}

/* Rows for targets[i], and for the same array earlier in the list. Only a target that shares its lock can have one. */
static uint64_t rows_wanted(const npk_target *targets, const npk_rows_in *appends, size_t i)
{
    uint64_t rows = appends[i].count;
    for (size_t j = 0; j < i; j++)
        if (strcmp(targets[j].path, targets[i].path) == 0 && __builtin_add_overflow(rows, appends[j].count, &rows))
            return UINT64_MAX;
    return rows;
}

/* What is taken back if this process dies, or one of the appends fails: an array that comes twice is cut to its first
 * size. */
static void add_cut(npk_journal *j, const npk_target *t, uint64_t more)
{
    const npk_header *h = &t->info.header;
    npk_step step = {.type = NPK_STEP_CUT,
                     .path = t->path,
                     .before = t->id,
                     .after = t->id,
                     .size = t->info.file_bytes,
                     .size_after = t->info.file_bytes + more * h->row_bytes,
                     .rows = t->info.rows,
                     .rows_after = t->info.rows + more,
                     .data_offset = h->data_offset,
                     .row_bytes = h->row_bytes};
    npk__journal_add(j, &step);
}

/* Everything that can be known before the first byte: kinds, tails, room. */
static int check_all(npk_target *targets, const npk_rows_in *appends, size_t count, npk_journal *j)
{
    int err = 0;
    for (size_t i = 0; i < count && !err; i++) {
        npk_target *t = &targets[i];
        uint64_t more = t->lock.gate ? appends[i].count : rows_wanted(targets, appends, i);
        err = npk__target_open_with_room(t, 0, more);
        if (!err)
            add_cut(j, t, more);
        npk__target_shut(t);
    }
    return err;
}

static int append_all(npk_target *targets, const npk_rows_in *appends, size_t count)
{
    int err = 0;
    for (size_t i = 0; i < count && !err; i++) {
        npk_target *t = &targets[i];
        err = npk__target_open_with_room(t, 0, appends[i].count);
        if (!err)
            err = npk__append_open(t, appends[i].rows, appends[i].count, NULL);
        npk__target_shut(t);
    }
    return err;
}

static int append_journaled(npk_journal *j, npk_target *targets, const npk_rows_in *appends, size_t count)
{
    int err = npk__journal_write(j, false);
    if (!err)
        err = append_all(targets, appends, count);
    if (!err)
        return npk__journal_clear(j);
    char sentence[NPK__SENTENCE_BYTES];
    memcpy(sentence, npk_error(), strlen(npk_error()) + 1);
    if (npk__journal_run(j) != 0 || npk__journal_clear(j) != 0)
        return npk__fail(err, "%s; what was appended to the arrays before it is taken back by the next change",
                         sentence);
    return npk__fail(err, "%s", sentence);
}

static int append_many(npk_store *s, const npk_rows_in *appends, size_t count, const char **names, npk_target *targets,
                       npk_journal *j)
{
    for (size_t i = 0; i < count; i++)
        names[i] = appends[i].name;
    int err = npk__store_writable(s, names[0]);
    if (!err)
        err = npk__journal_begin(s, NPK_JOURNAL_BACK, NULL, j);
    if (!err)
        err = npk__targets_lock_raw(s, names, count, targets, false);
    if (!err)
        err = check_all(targets, appends, count, j);
    return err ? err : append_journaled(j, targets, appends, count);
}

npk_err npk_append_many(npk_store *s, const npk_rows_in *appends, size_t count)
{
    npk_journal j = NPK_JOURNAL_NONE;
    if (count <= 1)
        return count ? npk_append(s, appends[0].name, appends[0].rows, appends[0].count, NULL) : 0;
    const char **names = calloc(count, sizeof(*names));
    npk_target *targets = calloc(count, sizeof(*targets));
    for (size_t i = 0; targets && i < count; i++)
        targets[i] = NPK_TARGET_NONE;
    int err =
        names && targets ? append_many(s, appends, count, names, targets, &j) : npk__fail(-ENOMEM, "out of memory");
    for (size_t i = targets ? count : 0; i-- > 0;)
        npk__target_release(&targets[i]);
    npk__journal_end(&j);
    free(targets);
    free(names);
    return err;
}
