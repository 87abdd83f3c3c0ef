/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "digits.h"
#include "fail.h"
#include "io.h"
#include "journal.h"
#include "lease.h"
#include "lower.h"
#include "npy.h"
#include "redo.h"
#include "rewrite.h"
#include "settle.h"
#include "store.h"

unsigned npk__tail_wait_ms = 2000;

static void sleep_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}

/* ---- sentences ------------------------------------------------------------------------------------------------- */

int npk__name_failed(int err, const char *name)
{
    switch (err) {
    case -ENOENT:
        return npk__fail(err, "\"%s\": no such array; npk ls lists the names", name);
    case -EISDIR:
        return npk__fail(err, "\"%s\": \"%s.npy\" is a directory, not an array", name, name);
    case -ELOOP:
        return npk__fail(err, "\"%s\": \"%s.npy\" is a symbolic link; name the file that it leads to", name, name);
    default:
        return npk__fail_errno(err, name);
    }
}

int npk__rows_possible(const char *name, const npk_info *info)
{
    const npk_header *h = &info->header;
    if (info->reason)
        return npk__fail(-ENOTSUP, "\"%s\": not an array (%s); rows are those of a .npy file of fixed-size items", name,
                         info->reason);
    if (npk_header_is_row_array(h))
        return 0;
    if (!npk_header_is_array(h))
        return npk__fail(-ENOTSUP, "\"%s\": dtype %s has no fixed item size; row operations need one", name,
                         h->dtype.name);
    if (h->ndim == 0)
        return npk__fail(-ENOTSUP, "\"%s\": has no dimension, so it has no rows; reshape it to (1,) first", name);
    if (h->fortran)
        return npk__fail(-ENOTSUP,
                         "\"%s\": stored in Fortran order, so its rows are not contiguous; row operations need C order",
                         name);
    return npk__fail(-ENOTSUP,
                     "\"%s\": a row has 0 bytes; row operations need a shape without zeros after the first dimension",
                     name);
}

/* ---- locking --------------------------------------------------------------------------------------------------- */

int npk__target_resolve(npk_store *s, const char *name, npk_target *out)
{
    char path[NPK__PATH_BYTES];
    *out = NPK_TARGET_NONE;
    out->store = s;
    out->name = name;
    int err = npk__name_to_path(name, path, sizeof(path));
    if (err)
        return err;
    out->path = strdup(path);
    if (!out->path)
        return npk__fail(-ENOMEM, "out of memory");
    return npk__dir_of(s->root_fd, out->path, &out->dir, &out->leaf);
}

static int lock_once(npk_store *s, const char *name, npk_target *out)
{
    int err = npk__target_resolve(s, name, out);
    if (err)
        return err;
    err = npk__lock_array(out->dir.fd, out->leaf, NPK_LOCK_EXCLUSIVE | NPK_LOCK_EXISTING, &out->lock);
    if (err != -ENOENT)
        return err;
    /* The first change in this directory. A name that is none leaves no sidecar behind. */
    struct stat st;
    err = npk__fstatat(out->dir.fd, out->leaf, &st);
    if (err)
        return npk__name_failed(err, name);
    return npk__lock_array(out->dir.fd, out->leaf, NPK_LOCK_EXCLUSIVE, &out->lock);
}

int npk__target_lock(npk_store *s, const char *name, npk_target *out)
{
    *out = NPK_TARGET_NONE;
    int err = npk__store_writable(s, name);
    while (!err) {
        err = lock_once(s, name, out);
        int blocked = err ? 0 : npk__journal_blocks(s, out->path);
        if (blocked != -EAGAIN)
            return err ? err : blocked;
        npk__target_release(out); /* the journal's lock comes first (P11) */
        err = npk__journal_wait(s, NULL, 0);
    }
    return err;
}

struct place { /* where a lock comes in the order */
    ino_t dir;
    uint64_t slot;
    npk_target *target;
};

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->dir != y->dir)
        return x->dir < y->dir ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* Names often come group by group: neighbours in one directory share its descriptor. */
static bool same_dir(const npk_target *a, const npk_target *b)
{
    size_t n = (size_t)(a->leaf - a->path);
    return n == (size_t)(b->leaf - b->path) && memcmp(a->path, b->path, n) == 0;
}

static int resolve_all(npk_store *s, const char *const *names, size_t count, npk_target *targets, struct place *places,
                       bool missing)
{
    for (size_t i = 0; i < count; i++) {
        int err = npk__store_writable(s, names[i]);
        if (!err)
            err = npk__target_resolve(s, names[i], &targets[i]);
        if (missing && (err == -ENOENT || err == -ENOTDIR))
            continue;
        if (err)
            return err;
        if (i > 0 && targets[i - 1].dir.fd >= 0 && same_dir(&targets[i], &targets[i - 1])) {
            npk__dir_release(&targets[i].dir);
            targets[i].dir.fd = targets[i - 1].dir.fd;
        }
        struct stat st;
        err = npk__fstat(targets[i].dir.fd, &st);
        if (err)
            return npk__fail_errno(err, names[i]);
        places[i] = (struct place){st.st_ino, npk__lock_slot_of(targets[i].leaf), &targets[i]};
    }
    return 0;
}

int npk__targets_lock_raw(npk_store *s, const char *const *names, size_t count, npk_target *targets, bool missing)
{
    for (size_t i = 0; i < count; i++)
        targets[i] = NPK_TARGET_NONE;
    struct place *places = calloc(count ? count : 1, sizeof(*places));
    if (!places)
        return npk__fail(-ENOMEM, "out of memory");
    int err = resolve_all(s, names, count, targets, places, missing);
    if (!err)
        qsort(places, count, sizeof(*places), compare_places);
    for (size_t i = 0; i < count && !err; i++) {
        npk_target *t = places[i].target;
        if (t && (i == 0 || compare_places(&places[i - 1], &places[i]) != 0))
            err = npk__lock_array(t->dir.fd, t->leaf, NPK_LOCK_EXCLUSIVE, &t->lock);
    }
    free(places);
    return err;
}

int npk__targets_lock(npk_store *s, const char *const *names, size_t count, npk_target *targets)
{
    for (;;) {
        int err = npk__targets_lock_raw(s, names, count, targets, false);
        int blocked = err ? 0 : npk__journal_blocks(s, NULL);
        if (blocked != -EAGAIN)
            return err ? err : blocked;
        for (size_t i = count; i-- > 0;)
            npk__target_release(&targets[i]);
        err = npk__journal_wait(s, NULL, 0);
        if (err)
            return err;
    }
}

void npk__target_wrote(npk_target *t)
{
    if (!t->marks.known.stated)
        return;
    npk__known_wrote(&t->marks.known, &t->stamp, t->fd);
    (void)npk__fd_stamp(t->fd, &t->stamp);
    t->marks.stamp = t->stamp;
}

void npk__target_shut(npk_target *t)
{
    npk__marks_release(&t->marks);
    npk__close(&t->fd);
    npk_info_clear(&t->info);
}

void npk__target_release(npk_target *t)
{
    npk__target_shut(t);
    npk__unlock(&t->lock);
    if (t->dir.opened >= 0)
        npk__dir_release(&t->dir);
    t->dir.fd = -1;
    free(t->path);
    t->path = NULL;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static int open_leaf(int dir_fd, const char *leaf, int flags)
{
    return npk__openat(dir_fd, leaf, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
}

/* O_NONBLOCK: where somebody holds a lease the open tells him to go and says EAGAIN instead of waiting for long. */
int npk__open_for_change(int dir_fd, const char *leaf, const char *name)
{
    for (unsigned waited = 0;; waited++) {
        int fd = open_leaf(dir_fd, leaf, O_RDWR);
        if (fd >= 0)
            return fd;
        if (fd != -EAGAIN)
            return npk__name_failed(fd, name);
        if (waited >= npk__tail_wait_ms)
            return npk__fail(-EBUSY, "\"%s\": being moved by another operation; try again when it is done", name);
        sleep_ms(1);
    }
}

bool npk__tail_is_npy(int fd, const npk_info *info)
{
    char first[NPK__NPY_MAGIC_BYTES];
    uint64_t end = info->header.data_offset + info->header.data_bytes;
    return info->tail_bytes >= sizeof(first) && npk__pread_full(fd, first, sizeof(first), end) == sizeof(first) &&
           memcmp(first, NPK__NPY_MAGIC, sizeof(first)) == 0;
}

int npk__set_tail_aside(int dir_fd, const char *leaf, int rw_fd, uint64_t offset, char out[256])
{
    struct stat st;
    int err = npk__fstat(rw_fd, &st), fd = -EEXIST;
    if (err)
        return npk__fail_errno(err, leaf);
    for (unsigned i = 0; fd == -EEXIST && i < 1000; i++) {
        char number[16] = "";
        if (i > 0)
            snprintf(number, sizeof(number), ".%u", i);
        /* A name of the greatest length is cut: what matters is that the bytes are kept. */
        snprintf(out, 256, "%.230s.tail%s", leaf, number);
        fd = npk__openat(dir_fd, out, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, st.st_mode & 0666);
    }
    if (fd < 0)
        return npk__fail_errno(fd, out);
    err = npk__copy_full(rw_fd, offset, fd, 0, (uint64_t)st.st_size - offset);
    if (!err)
        err = npk__fsync(fd); /* it must be safe before its only other copy goes */
    npk__close(&fd);
    if (err)
        (void)npk__unlinkat(dir_fd, out, 0);
    else
        err = npk__ftruncate(rw_fd, offset);
    return err ? npk__fail_errno(err, leaf) : 0;
}

/* Is the tail still what it was, and does nobody write? 0 then. The lease needs that we are no writer ourselves. */
static int probe_writer(npk_target *t)
{
    int ro = open_leaf(t->dir.fd, t->leaf, O_RDONLY);
    if (ro < 0)
        return npk__name_failed(ro, t->name);
    int err = npk__lease_probe(ro);
    npk__close(&ro);
    return err;
}

static int look(npk_target *t)
{
    npk_info_clear(&t->info);
    int err = npk__fd_look(t->fd, &t->info, &t->stamp);
    if (err)
        return npk__fail_errno(err, t->name);
    t->id = t->stamp.id;
    t->state = npk__settle_state(&t->info);
    return 0;
}

static int settle_once(npk_target *t, npk_settle_state *found)
{
    npk__close(&t->fd);
    t->fd = open_leaf(t->dir.fd, t->leaf, O_RDONLY);
    if (t->fd < 0)
        return npk__name_failed(t->fd, t->name);
    int err = npk__settle_locked(t->store, t->dir.fd, t->leaf, t->fd, NPK_SETTLE_CUT, found, NULL);
    npk__close(&t->fd);
    if (err)
        return err;
    t->fd = npk__open_for_change(t->dir.fd, t->leaf, t->name);
    return t->fd < 0 ? t->fd : look(t);
}

/* The slow way to an agreeing header: through a descriptor that does not write, so that a lease can tell whether
 * anybody else does. A program of the session may go on appending meanwhile: its whole rows may be counted at any time,
 * so they are no obstacle. */
static int settle(npk_target *t)
{
    for (unsigned tries = 0; tries < 16; tries++) {
        npk_settle_state found = NPK_SETTLED;
        int err = settle_once(t, &found);
        if (err)
            return err;
        bool grown = t->state == NPK_TAIL && (found == NPK_SETTLED || found == NPK_PART_ROW);
        if (grown && t->info.tail_bytes % t->info.header.row_bytes != 0)
            continue;
        if (grown)
            t->state = NPK_SETTLED;
        else if (found == NPK_NO_ROOM && t->state == NPK_TAIL)
            t->state = found;
        else if (found == NPK_TAIL && t->state == NPK_PART_ROW)
            t->state = found; /* it begins like another array */
        return 0;
    }
    return npk__fail(-EBUSY, "\"%s\": programs append parts of rows to it all the time; try again later", t->name);
}

static int part_row_busy(const npk_target *t)
{
    return npk__fail(-EBUSY,
                     "\"%s\": %" PRIu64 " bytes of an unfinished row at its end (a row has %" PRIu64
                     "); the writer must complete it, or npk check --repair set it aside",
                     t->name, t->info.tail_bytes, t->info.header.row_bytes);
}

/* A part-row at the tail: whoever writes it gets time to complete it; one that a dead writer of a session left is set
 * aside. */
static int wait_for_part_row(npk_target *t)
{
    for (unsigned waited = 0; t->state == NPK_PART_ROW; waited++) {
        npk__close(&t->fd);
        int writer = probe_writer(t);
        if (writer != 0 && writer != -EBUSY && writer != -ENOTSUP)
            return writer;
        t->fd = npk__open_for_change(t->dir.fd, t->leaf, t->name);
        uint64_t tail = t->info.tail_bytes;
        int err = t->fd < 0 ? t->fd : look(t);
        if (err)
            return err;
        if (t->state != NPK_PART_ROW)
            break;
        if (writer == 0 && tail == t->info.tail_bytes) {
            char aside[256];
            if (!t->was_entered)
                return part_row_busy(t); /* nobody saw it being written: it may be anything */
            err = npk__set_tail_aside(t->dir.fd, t->leaf, t->fd, t->info.file_bytes - tail, aside);
            if (err)
                return err;
        } else if (waited >= npk__tail_wait_ms) {
            return part_row_busy(t);
        } else {
            sleep_ms(1);
        }
        err = look(t);
        if (err)
            return err;
    }
    return t->state == NPK_SETTLED ? 0 : settle(t);
}

static int refuse_state(const npk_target *t)
{
    const npk_header *h = &t->info.header;
    switch (t->state) {
    case NPK_SETTLED:
        return 0;
    case NPK_PART_ROW:
        return part_row_busy(t);
    case NPK_TAIL:
        return npk__fail(-EBUSY,
                         "\"%s\": %" PRIu64 " bytes beyond its rows that nobody saw being appended; npk check --adopt "
                         "counts whole rows among them",
                         t->name, t->info.tail_bytes);
    case NPK_UNFINISHED:
        return npk__fail(-EINVAL,
                         "\"%s\": its header promises %" PRIu64 " bytes and the file has %" PRIu64
                         ", so it is unfinished; save it again",
                         t->name, h->data_offset + h->data_bytes, t->info.file_bytes);
    default:
        return npk__rows_possible(t->name, &t->info);
    }
}

/* Whether this file has an entry, and what is in it, before the operation makes one. The lock is ours, so a mark is
 * that of an append that died: settling looks into it where there is something beyond the rows; elsewhere it is void.
 */
static int find_entry(npk_target *t)
{
    int there = npk__dirty_find_locked(&t->lock, t->dir.fd, &t->id, &t->entry);
    t->was_entered = there > 0;
    if (there > 0 && t->entry.marked && t->state == NPK_SETTLED) {
        there = npk__marks_bury(t->dir.fd, t->leaf, t->fd);
        if (!there)
            there = npk__dirty_unmark(t->dir.fd, &t->entry);
    }
    return there < 0 ? there : 0;
}

static int make_entry(npk_target *t)
{
    const npk_header *h = &t->info.header;
    bool fits = t->was_entered && t->entry.data_offset == h->data_offset && t->entry.row_bytes == h->row_bytes;
    if (fits && t->entry.may_adopt)
        return 0;
    if (fits && t->state == NPK_SETTLED) { /* the foreign tail that forbade it is gone or counted */
        t->entry.may_adopt = true;
        return npk__dirty_update(t->dir.fd, &t->entry);
    }
    int made = npk__session_begin_at(t->dir.fd, t->leaf, t->fd, &t->entry);
    if (made < 0)
        return made;
    if (made == 0)
        return npk__fail(-EINVAL, "\"%s\": not a finished array; save it again", t->name);
    return 0;
}

/* A header without room is the caller's to replace (npk__target_open_with_room), where he needs more rows at all. */
static bool accepts(npk_settle_state state, unsigned how)
{
    if (state == NPK_SETTLED || state == NPK_NO_ROOM)
        return true;
    return (state == NPK_PART_ROW || state == NPK_TAIL) && (how & (NPK_TARGET_TAIL | NPK_TARGET_ANY));
}

/* Which of its rows are deleted. What a log knows of rows that the file does not have is cut off before any can be
 * written there (P7). */
static int look_at_marks(npk_target *t)
{
    int err = npk__marks_look(t->dir.fd, t->leaf, t->fd, &t->info, &t->stamp, &t->marks);
    return err ? err : npk__marks_cut(&t->marks);
}

int npk__target_open(npk_target *t, unsigned how)
{
    int done = npk__redo_finish(t->dir.fd, t->leaf);
    if (!done && !(how & NPK_TARGET_PACKED))
        done = npk__lower_copy_up(t->store, t->dir.fd, t->leaf);
    if (done)
        return done;
    if (how & NPK_TARGET_ALONE) {
        int writer = probe_writer(t);
        if (writer == -EBUSY)
            return npk__fail(-EBUSY, "\"%s\": open or mapped for writing by a program; try again when it is closed",
                             t->name);
        if (writer != 0 && writer != -ENOTSUP)
            return writer;
    }
    t->fd = npk__open_for_change(t->dir.fd, t->leaf, t->name);
    int err = t->fd < 0 ? t->fd : look(t);
    if (!err && !(how & NPK_TARGET_ANY))
        err = npk__rows_possible(t->name, &t->info);
    if (!err && t->info.reason)
        err = npk__rows_possible(t->name, &t->info);
    if (err || (how & NPK_TARGET_ANY && !npk_header_is_row_array(&t->info.header)))
        return err;
    err = find_entry(t);
    if (!err && t->state != NPK_SETTLED) {
        err = settle(t);
        if (!err && t->was_entered)
            err = find_entry(t);
    }
    if (!err && t->state == NPK_PART_ROW && !(how & NPK_TARGET_TAIL))
        err = wait_for_part_row(t);
    if (!err && !accepts(t->state, how))
        err = refuse_state(t);
    if (!err && !(how & NPK_TARGET_READ))
        err = make_entry(t);
    return err ? err : look_at_marks(t);
}

/* ---- room for digits ------------------------------------------------------------------------------------------- */

static unsigned digits_of(uint64_t n)
{
    unsigned digits = 1;
    for (; n >= 10; n /= 10)
        digits++;
    return digits;
}

/* 1: the digits of `rows` fit into the header; 0: they do not. */
static int has_room(const npk_target *t, uint64_t rows)
{
    const npk_header *h = &t->info.header;
    if (digits_of(rows) <= h->digits_width)
        return 1;
    uint8_t *header = malloc((size_t)h->data_offset);
    npk__digits_plan_t *plan = malloc(sizeof(*plan));
    int room = -ENOMEM;
    if (header && plan) {
        ssize_t n = npk__pread_full(t->fd, header, (size_t)h->data_offset, 0);
        room = n < 0 ? (int)n : (uint64_t)n < h->data_offset ? -EIO : 0;
        if (room == 0)
            room = npk__digits_plan(header, (size_t)n, h, rows, plan);
        if (room == 0 || room == -ENOSPC)
            room = room == 0;
    }
    free(header);
    free(plan);
    return room < 0 ? npk__fail_errno(room, t->name) : room;
}

int npk__target_open_with_room(npk_target *t, unsigned how, uint64_t more)
{
    uint64_t rows, bytes;
    int err = npk__target_open(t, how);
    if (err)
        return err;
    if (__builtin_add_overflow(t->info.rows, more, &rows) ||
        __builtin_mul_overflow(rows, t->info.header.row_bytes, &bytes) || bytes > (uint64_t)INT64_MAX - NPK_MAX_HEADER)
        return npk__fail(
            -EFBIG, "\"%s\": %" PRIu64 " rows and %" PRIu64 " more of %" PRIu64 " bytes are more than a file can hold",
            t->name, t->info.rows, more, t->info.header.row_bytes);
    int room = t->state == NPK_NO_ROOM ? 0 : has_room(t, rows);
    if (room != 0)
        return room < 0 ? room : 0;
    err = npk__rewrite_roomier(t);
    return err ? err : npk__target_open(t, how);
}
