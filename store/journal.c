/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "journal.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "path.h"
#include "step.h"
#include "store.h"
#include "sum.h"

#define MOST_BYTES (UINT64_C(1) << 30) /* of a journal */

static const char journal_magic[8] = {'N', 'P', 'K', 'J', 'R', 'N', 'L', '1'};

struct journal_header {
    char magic[8];
    uint32_t kind, zero;
    uint64_t body_bytes, steps;
    uint8_t boot[16];
    char batch[64]; /* padded with zeros */
    uint64_t body_sum;
    uint64_t sum; /* of the bytes before it */
};

struct step_header {
    uint32_t type, staged;
    uint64_t bytes; /* of the step, all of it */
    uint64_t inode, birth_ns, inode_after, birth_ns_after;
    uint64_t size, size_after, rows, rows_after, data_offset, row_bytes;
    uint64_t path_bytes, piece_count;
};
_Static_assert(sizeof(struct journal_header) == 128 && sizeof(struct step_header) == 112 && sizeof(npk_piece) == 24,
               "FORMAT");

/* ---- encoding -------------------------------------------------------------------------------------------------- */

static size_t padded(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

static uint8_t *room(npk_journal *j, size_t bytes)
{
    if (j->capacity - j->bytes < bytes) {
        size_t capacity = 2 * j->capacity + bytes + 1024;
        uint8_t *body = j->failed ? NULL : realloc(j->body, capacity);
        if (!body) {
            j->failed = true;
            return NULL;
        }
        j->body = body;
        j->capacity = capacity;
    }
    uint8_t *at = j->body + j->bytes;
    memset(at, 0, bytes);
    j->bytes += bytes;
    return at;
}

void npk__journal_add(npk_journal *j, const npk_step *s)
{
    size_t path = strlen(s->path), all = sizeof(struct step_header) + padded(path) + s->piece_count * sizeof(npk_piece);
    uint8_t *at = room(j, all);
    if (!at)
        return;
    struct step_header h = {.type = htole32(s->type),
                            .staged = htole32(s->staged),
                            .bytes = htole64(all),
                            .inode = htole64(s->before.inode),
                            .birth_ns = htole64(s->before.birth_ns),
                            .inode_after = htole64(s->after.inode),
                            .birth_ns_after = htole64(s->after.birth_ns),
                            .size = htole64(s->size),
                            .size_after = htole64(s->size_after),
                            .rows = htole64(s->rows),
                            .rows_after = htole64(s->rows_after),
                            .data_offset = htole64(s->data_offset),
                            .row_bytes = htole64(s->row_bytes),
                            .path_bytes = htole64(path),
                            .piece_count = htole64(s->piece_count)};
    memcpy(at, &h, sizeof(h));
    memcpy(at + sizeof(h), s->path, path);
    npk_piece *pieces = (npk_piece *)(void *)(at + sizeof(h) + padded(path));
    for (uint64_t i = 0; i < s->piece_count; i++)
        pieces[i] =
            (npk_piece){htole64(s->pieces[i].offset), htole64(s->pieces[i].bytes), htole64(s->pieces[i].source)};
    j->steps++;
}

/* ---- decoding -------------------------------------------------------------------------------------------------- */

static bool fits_type(const npk_step *s)
{
    uint64_t end, end_after;
    if (__builtin_mul_overflow(s->rows, s->row_bytes, &end) || __builtin_add_overflow(end, s->data_offset, &end) ||
        __builtin_mul_overflow(s->rows_after, s->row_bytes, &end_after) ||
        __builtin_add_overflow(end_after, s->data_offset, &end_after) || end > INT64_MAX || end_after > INT64_MAX)
        return false;
    switch (s->type) {
    case NPK_STEP_CUT:
        return s->row_bytes > 0 && end <= s->size && s->size <= s->size_after && s->size_after <= INT64_MAX &&
               s->piece_count == 0;
    case NPK_STEP_SWAP:
        return s->after.inode != 0 && s->piece_count == 0;
    case NPK_STEP_REMOVE:
        return s->before.inode != 0 && s->piece_count == 0;
    case NPK_STEP_WRITE:
        return s->row_bytes > 0 && s->rows <= s->rows_after && end == s->size && end_after == s->size_after;
    }
    return false;
}

/* Every piece inside the rows that the array will have. */
static bool pieces_fit(const npk_step *s)
{
    for (uint64_t i = 0; i < s->piece_count; i++) {
        const npk_piece *p = &s->pieces[i];
        if (p->offset < s->data_offset || p->offset > s->size_after || p->bytes > s->size_after - p->offset ||
            p->source > INT64_MAX - p->bytes)
            return false;
    }
    return true;
}

/* One step at bytes[0..size): its length, or 0. path and *pieces (malloc()ed) receive what it names. */
static size_t decode_step(const uint8_t *bytes, size_t size, npk_step *s, char path[NPK__PATH_BYTES],
                          npk_piece **pieces)
{
    struct step_header h;
    if (size < sizeof(h))
        return 0;
    memcpy(&h, bytes, sizeof(h));
    uint64_t all = le64toh(h.bytes), path_bytes = le64toh(h.path_bytes), count = le64toh(h.piece_count);
    if (all > size || all % 8 != 0 || path_bytes == 0 || path_bytes >= NPK__PATH_BYTES ||
        count > size / sizeof(npk_piece) || all != sizeof(h) + padded(path_bytes) + count * sizeof(npk_piece))
        return 0;
    memcpy(path, bytes + sizeof(h), path_bytes);
    path[path_bytes] = '\0';
    char name[NPK__PATH_BYTES];
    if (strlen(path) != path_bytes || npk__path_check(path) != 0 || npk__path_to_name(path, name, sizeof(name)) != 0)
        return 0;
    npk_piece *p = malloc(count * sizeof(*p) + 1);
    if (!p)
        return 0;
    memcpy(p, bytes + sizeof(h) + padded(path_bytes), count * sizeof(*p));
    for (uint64_t i = 0; i < count; i++)
        p[i] = (npk_piece){le64toh(p[i].offset), le64toh(p[i].bytes), le64toh(p[i].source)};
    *pieces = p;
    *s = (npk_step){.type = (npk_step_type)le32toh(h.type),
                    .staged = le32toh(h.staged),
                    .path = path,
                    .before = {le64toh(h.inode), le64toh(h.birth_ns)},
                    .after = {le64toh(h.inode_after), le64toh(h.birth_ns_after)},
                    .size = le64toh(h.size),
                    .size_after = le64toh(h.size_after),
                    .rows = le64toh(h.rows),
                    .rows_after = le64toh(h.rows_after),
                    .data_offset = le64toh(h.data_offset),
                    .row_bytes = le64toh(h.row_bytes),
                    .pieces = p,
                    .piece_count = count};
    return fits_type(s) && pieces_fit(s) ? (size_t)all : 0;
}

static int decode_header(const void *bytes, size_t size, struct journal_header *h)
{
    if (size < sizeof(*h))
        return -EINVAL;
    memcpy(h, bytes, sizeof(*h));
    uint32_t kind = le32toh(h->kind);
    if (memcmp(h->magic, journal_magic, sizeof(journal_magic)) != 0 ||
        le64toh(h->sum) != npk__sum(h, offsetof(struct journal_header, sum), 0) ||
        (kind != NPK_JOURNAL_BACK && kind != NPK_JOURNAL_FORTH) || le64toh(h->body_bytes) != size - sizeof(*h) ||
        le64toh(h->body_sum) != npk__sum_long((const uint8_t *)bytes + sizeof(*h), size - sizeof(*h)))
        return -EINVAL;
    char batch[NPK__BATCH_ID + 1] = "";
    memcpy(batch, h->batch, NPK__BATCH_ID);
    return kind == NPK_JOURNAL_FORTH && !npk__batch_id_is_valid(batch) ? -EINVAL : 0;
}

/* All steps are looked at before the first is shown. */
static int walk_steps(const uint8_t *body, size_t size, uint64_t steps, npk_journal_kind kind, npk_step_visit *visit,
                      void *ctx)
{
    char path[NPK__PATH_BYTES];
    size_t at = 0;
    for (uint64_t i = 0; i < steps; i++) {
        npk_step s;
        npk_piece *pieces = NULL;
        size_t n = decode_step(body + at, size - at, &s, path, &pieces);
        int err = n == 0 || (kind == NPK_JOURNAL_BACK) != (s.type == NPK_STEP_CUT) ? -EINVAL
                  : visit                                                          ? visit(ctx, &s)
                                                                                   : 0;
        free(pieces);
        if (err)
            return err;
        at += n;
    }
    return at == size ? 0 : -EINVAL;
}

int npk__journal_decode(const void *bytes, size_t size, npk_journal_kind *kind, char batch[NPK__BATCH_ID + 1],
                        npk_step_visit *visit, void *ctx)
{
    struct journal_header h;
    int err = decode_header(bytes, size, &h);
    if (err)
        return err;
    npk_journal_kind k = (npk_journal_kind)le32toh(h.kind);
    const uint8_t *body = (const uint8_t *)bytes + sizeof(h);
    err = walk_steps(body, size - sizeof(h), le64toh(h.steps), k, NULL, NULL);
    if (err)
        return err;
    if (kind)
        *kind = k;
    if (batch) {
        memcpy(batch, h.batch, NPK__BATCH_ID);
        batch[NPK__BATCH_ID] = '\0';
    }
    return visit ? walk_steps(body, size - sizeof(h), le64toh(h.steps), k, visit, ctx) : 0;
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

/* The journal's bytes, malloc()ed; *bytes NULL: there is none, or it is void (torn: nothing was done yet; backwards and
 * of another boot: what it would take back was never synced). */
static int read_journal(int fd, uint8_t **bytes, size_t *size)
{
    struct stat st;
    uint8_t boot[16];
    *bytes = NULL;
    int err = npk__fstat(fd, &st);
    if (err || st.st_size == 0 || (uint64_t)st.st_size > MOST_BYTES)
        return err;
    uint8_t *b = malloc((size_t)st.st_size);
    if (!b)
        return -ENOMEM;
    ssize_t n = npk__pread_full(fd, b, (size_t)st.st_size, 0);
    npk_journal_kind kind;
    if (n == (ssize_t)st.st_size && npk__journal_decode(b, (size_t)n, &kind, NULL, NULL, NULL) == 0) {
        npk__boot_id(boot);
        if (kind == NPK_JOURNAL_FORTH || memcmp(boot, b + offsetof(struct journal_header, boot), sizeof(boot)) == 0) {
            *bytes = b;
            *size = (size_t)n;
            return 0;
        }
    }
    free(b);
    return n < 0 ? (int)n : 0;
}

int npk__journal_write(npk_journal *j, bool sync)
{
    if (j->failed)
        return npk__fail(-ENOMEM, "out of memory");
    struct journal_header h = {.kind = htole32(j->kind),
                               .body_bytes = htole64(j->bytes),
                               .steps = htole64(j->steps),
                               .body_sum = htole64(npk__sum_long(j->body, j->bytes))};
    memcpy(h.magic, journal_magic, sizeof(journal_magic));
    memcpy(h.batch, j->batch, strlen(j->batch));
    npk__boot_id(h.boot);
    h.sum = htole64(npk__sum(&h, offsetof(struct journal_header, sum), 0));
    int err = npk__pwrite_full(j->fd, j->body, j->bytes, sizeof(h));
    if (!err)
        err = npk__pwrite_full(j->fd, &h, sizeof(h), 0);
    if (!err && sync)
        err = npk__fdatasync(j->fd);
    return err ? npk__fail_errno(err, NPK__SIDECAR "/" NPK__JOURNAL_FILE) : 0;
}

int npk__journal_clear(npk_journal *j)
{
    int err = npk__ftruncate(j->fd, 0);
    if (!err && j->kind == NPK_JOURNAL_FORTH) /* else it might come back and undo what is written in place later */
        err = npk__fdatasync(j->fd);
    return err ? npk__fail_errno(err, NPK__SIDECAR "/" NPK__JOURNAL_FILE) : 0;
}

void npk__journal_end(npk_journal *j)
{
    npk__close(&j->fd);
    npk__unlock(&j->lock);
    free(j->body);
    *j = NPK_JOURNAL_NONE;
}

static int run_step(void *ctx, const npk_step *step)
{
    return npk__step_run(ctx, step);
}

/* ---- doing it -------------------------------------------------------------------------------------------------- */

int npk__journal_each(const npk_journal *j, npk_step_visit *visit, void *ctx)
{
    return walk_steps(j->body, j->bytes, j->steps, j->kind, visit, ctx);
}

int npk__journal_run(npk_journal *j)
{
    npk_stepping w;
    int err = npk__stepping_begin(j->store, j->batch, &w);
    if (!err)
        err = walk_steps(j->body, j->bytes, j->steps, j->kind, run_step, &w);
    if (!err && j->kind == NPK_JOURNAL_FORTH)
        err = npk__stepping_sync(&w);
    npk__stepping_end(&w);
    return err;
}

/* The lock is held. Who held it before is dead. */
static int finish(npk_journal *j)
{
    uint8_t *bytes;
    size_t size = 0;
    int err = read_journal(j->fd, &bytes, &size);
    if (err || !bytes) {
        struct stat st;
        if (!err && (err = npk__fstat(j->fd, &st)) == 0 && st.st_size > 0)
            err = npk__ftruncate(j->fd, 0); /* void */
        return err ? npk__fail_errno(err, NPK__SIDECAR "/" NPK__JOURNAL_FILE) : 0;
    }
    npk_journal old = *j;
    err = npk__journal_decode(bytes, size, &old.kind, old.batch, NULL, NULL);
    if (!err) {
        struct journal_header h;
        memcpy(&h, bytes, sizeof(h));
        old.body = bytes + sizeof(h);
        old.bytes = size - sizeof(h);
        old.steps = (size_t)le64toh(h.steps);
        err = npk__steps_lock(&old);
    }
    if (!err)
        err = npk__journal_clear(&old);
    if (!err && old.kind == NPK_JOURNAL_FORTH)
        npk__batch_folder_remove(j->store->root_fd, old.batch);
    free(bytes);
    return err;
}

static int begin(npk_store *s, unsigned how, npk_journal *out)
{
    int err = npk__lock_slot(s->root_fd, NPK_SLOT_JOURNAL, NPK_LOCK_EXCLUSIVE | how, &out->lock);
    if (!err) {
        out->fd = npk__sidecar_file(s->root_fd, NPK__JOURNAL_FILE, O_RDWR | O_CREAT);
        err = out->fd < 0 ? out->fd : finish(out);
    }
    return err;
}

int npk__journal_begin(npk_store *s, npk_journal_kind kind, const char *batch, npk_journal *out)
{
    *out = NPK_JOURNAL_NONE;
    out->store = s;
    int err = begin(s, 0, out);
    out->kind = kind;
    snprintf(out->batch, sizeof(out->batch), "%s", batch ? batch : "");
    return err;
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

static int stop_at_path(void *ctx, const npk_step *step)
{
    return !ctx || strcmp(ctx, step->path) == 0;
}

/* 1: the journal of the store whose root is root_fd names the path. */
static int names_in(int root_fd, const char *path)
{
    struct stat st;
    if (npk__fstatat(root_fd, NPK__SIDECAR "/" NPK__JOURNAL_FILE, &st) != 0 || st.st_size == 0)
        return 0;
    int fd = npk__sidecar_file(root_fd, NPK__JOURNAL_FILE, O_RDONLY);
    if (fd < 0)
        return fd == -ENOENT || fd == -EACCES ? 0 : fd;
    uint8_t *bytes;
    size_t size = 0;
    int err = read_journal(fd, &bytes, &size);
    if (!err && bytes)
        err = npk__journal_decode(bytes, size, NULL, NULL, stop_at_path, (void *)(uintptr_t)path);
    npk__close(&fd);
    free(bytes);
    return err;
}

/* The same for a store that holds this one as a group. */
static int names_above(const struct npk_above *above, const char *path)
{
    char full[2 * NPK__PATH_BYTES];
    if (path)
        snprintf(full, sizeof(full), "%s/%s", above->path, path);
    return names_in(above->fd, path ? full : NULL);
}

static int names(npk_store *s, const char *path)
{
    int named = names_in(s->root_fd, path);
    for (unsigned i = 0; i < s->above_count && named == 0; i++)
        named = names_above(&s->above[i], path);
    return named;
}

int npk__journal_blocks(npk_store *s, const char *path)
{
    int named = names(s, path);
    return named > 0 ? -EAGAIN : named;
}

/* Whoever cannot finish it can only see whether somebody is at it. */
static int wait_without_writing(npk_store *s, const char *path, unsigned flags)
{
    for (unsigned waited = 0;; waited++) {
        npk_lock lock;
        int named = names_in(s->root_fd, path);
        if (named <= 0)
            return named;
        int err = npk__lock_slot(s->root_fd, NPK_SLOT_JOURNAL, NPK_LOCK_TRY, &lock);
        if (!err) {
            npk__unlock(&lock);
            if (names_in(s->root_fd, path) <= 0)
                return 0;
            return npk__fail(
                -EUCLEAN,
                "\"%s\": a change of several arrays was interrupted; open the store for writing once, or run "
                "npk check --repair",
                path ? path : s->label);
        }
        if (err != -EAGAIN || (flags & NPK_JOURNAL_TRY) || waited >= npk__lock_wait_ms)
            return err;
        struct timespec ms = {.tv_nsec = 1000000};
        nanosleep(&ms, NULL);
    }
}

static int wait_here(npk_store *s, const char *path, unsigned flags)
{
    npk_journal j = NPK_JOURNAL_NONE;
    j.store = s;
    int err = s->flags & NPK_READ_ONLY || flags & NPK_JOURNAL_LOOK
                  ? -EROFS
                  : begin(s, flags & NPK_JOURNAL_TRY ? NPK_LOCK_TRY : 0, &j);
    npk__journal_end(&j);
    if (err == -EROFS || err == -EACCES || err == -EPERM)
        return wait_without_writing(s, path, flags);
    return err;
}

static int wait_above(npk_store *s, const struct npk_above *above, unsigned flags)
{
    npk_store *up = NULL;
    int err = npk_store_open_fd(above->fd, (s->flags & NPK_READ_ONLY) | NPK_NO_REDIRECT, &up);
    if (!err)
        err = npk__journal_wait(up, NULL, flags);
    npk_store_close(&up);
    return err;
}

int npk__journal_wait(npk_store *s, const char *path, unsigned flags)
{
    int named = names_in(s->root_fd, path);
    int err = named > 0 ? wait_here(s, path, flags) : named;
    for (unsigned i = 0; i < s->above_count && !err; i++) {
        named = names_above(&s->above[i], path);
        err = named > 0 ? wait_above(s, &s->above[i], flags) : named;
    }
    return err;
}

int npk__journal_finish(npk_store *s)
{
    npk_journal j = NPK_JOURNAL_NONE;
    j.store = s;
    int err = begin(s, 0, &j);
    npk__journal_end(&j);
    return err;
}
