/* SPDX-License-Identifier: Apache-2.0 */
/* A new array with the shown rows of another, as they were at one moment. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "fail.h"
#include "io.h"
#include "lease.h"
#include "npk.h"
#include "path.h"
#include "redo.h"
#include "settle.h"
#include "store.h"
#include "swap.h"
#include "target.h"
#include "view.h"

/* What is copied at once: an opener waits meanwhile if a lease is held. */
#define PIECE (UINT64_C(32) << 20)
/* Rows that follow each other for so long are copied by a call of their own, and shared where the filesystem can. */
#define LONG_RUN (UINT64_C(256) << 10)
#define BUFFER   (UINT64_C(1) << 20)
/* So often is everything read again while programs go on writing. */
#define PASSES 4

/* A copy under way. */
struct copy {
    npk_array *from;
    const npk_header *header; /* of what is shown */
    int to;
    bool leased; /* a lease says that nobody has written since it began */
    bool packed; /* its data is in a package, and so it never changes */
    uint8_t *buffer, *other; /* BUFFER bytes each */
};

/* A writer waits in the kernel until the lease is given back. */
static void look_at_lease(struct copy *c)
{
    if (c->leased && !npk__lease_holds(npk__array_fd(c->from))) {
        npk__lease_drop(npk__array_fd(c->from));
        c->leased = false;
    }
}

static int failed(const struct copy *c, int err)
{
    return err ? npk__fail_errno(err, npk__array_name(c->from)) : 0;
}

/* Shown data [at, at + bytes), which lies together at `physical` in the file. */
static int copy_stretch(struct copy *c, uint64_t physical, uint64_t at, uint64_t bytes)
{
    int err = 0;
    for (uint64_t done = 0, n; done < bytes && !err; done += n) {
        n = bytes - done < PIECE ? bytes - done : PIECE;
        err = npk__copy_full(npk__array_fd(c->from), physical + done, c->to, c->header->data_offset + at + done, n);
        look_at_lease(c);
    }
    return failed(c, err);
}

static int copy_buffer(struct copy *c, uint64_t at, uint64_t bytes)
{
    int err = npk__array_read_shown(c->from, at, bytes, c->buffer);
    if (!err)
        err = failed(c, npk__pwrite_full(c->to, c->buffer, bytes, c->header->data_offset + at));
    look_at_lease(c);
    return err;
}

/* How many bytes from shown byte `at` on lie together in the file: from byte *skip of row *physical on. */
static uint64_t run_at(const struct copy *c, uint64_t at, uint64_t *physical, uint64_t *skip)
{
    const npk_header *h = c->header;
    uint64_t row = at / h->row_bytes;
    *skip = at % h->row_bytes;
    return npk__array_run(c->from, row, h->shape[0] - row, physical) * h->row_bytes - *skip;
}

static int copy_data(struct copy *c)
{
    const npk_header *h = c->header;
    int err = 0;
    if (!npk_array_info(c->from)->deleted && !c->packed)
        return copy_stretch(c, h->data_offset, 0, h->data_bytes);
    for (uint64_t at = 0, n; at < h->data_bytes && !err; at += n) {
        uint64_t skip = 0, physical = 0;
        n = c->packed ? 0 : run_at(c, at, &physical, &skip);
        if (n >= LONG_RUN) {
            err = copy_stretch(c, npk__rows_end(h, physical) + skip, at, n);
        } else {
            n = h->data_bytes - at < BUFFER ? h->data_bytes - at : BUFFER;
            err = copy_buffer(c, at, n);
        }
    }
    return err;
}

/* Everything once more: data that was the same before and after this began is that of the moment when it began. What has
 * changed is copied, and then it is not yet the last time. */
static int compare_data(struct copy *c, bool *changed)
{
    const npk_header *h = c->header;
    int err = 0;
    *changed = false;
    for (uint64_t at = 0, n; at < h->data_bytes && !err; at += n) {
        n = h->data_bytes - at < BUFFER ? h->data_bytes - at : BUFFER;
        err = npk__array_read_shown(c->from, at, n, c->buffer);
        ssize_t got = err ? 0 : npk__pread_full(c->to, c->other, n, h->data_offset + at);
        if (!err && (got < 0 || (uint64_t)got < n))
            err = failed(c, got < 0 ? (int)got : -EIO);
        if (!err && memcmp(c->buffer, c->other, n) != 0) {
            *changed = true;
            err = failed(c, npk__pwrite_full(c->to, c->buffer, n, h->data_offset + at));
        }
    }
    return err;
}

static int copy_header(const struct copy *c)
{
    const npk_header *h = c->header;
    size_t bytes = (size_t)h->data_offset;
    uint8_t *header = malloc(bytes);
    if (!header)
        return npk__fail(-ENOMEM, "out of memory");
    ssize_t n = c->packed ? npk__array_read_packed(c->from, 0, bytes, header)
                          : npk__pread_full(npk__array_fd(c->from), header, bytes, 0);
    int err = n < 0 ? (int)n : !c->packed && (size_t)n < bytes ? -EIO : 0;
    if (!err && npk_header_is_row_array(h))
        npk__view_header(header, h, h->shape[0]);
    if (!err)
        err = npk__pwrite_full(c->to, header, bytes, 0);
    free(header);
    return failed(c, err);
}

static int copy_consistently(struct copy *c)
{
    int err = copy_header(c);
    if (!err)
        err = copy_data(c);
    bool changed = !c->leased && !c->packed; /* that is, perhaps */
    for (unsigned pass = 0; !err && changed && pass < PASSES; pass++)
        err = compare_data(c, &changed);
    if (!err && changed)
        err = npk__fail(-EBUSY, "\"%s\": programs write to it all the time; try again when they are done",
                        npk__array_name(c->from));
    return err;
}

/* Header and data into an empty file. */
static int copy_array(npk_store *s, npk_array *from, int to)
{
    int fd = npk__array_fd(from);
    struct copy c = {.from = from, .header = &npk_array_info(from)->header, .to = to, .packed = fd < 0};
    c.buffer = malloc(2 * BUFFER);
    if (!c.buffer)
        return npk__fail(-ENOMEM, "out of memory");
    c.other = c.buffer + BUFFER;
    c.leased = !c.packed && npk_leases_prove(s, NULL) && npk__lease_take(fd) == 0;
    int err = copy_consistently(&c);
    if (c.leased)
        npk__lease_drop(fd);
    free(c.buffer);
    return err;
}

static int exists_already(const char *name)
{
    return npk__fail(-EEXIST, "\"%s\": exists already; a new name is accepted", name);
}

static int clone_locked(npk_store *s, npk_array *from, const npk_target *to)
{
    npk_swap swap;
    struct stat st;
    if (npk__fstatat(to->dir.fd, to->leaf, &st) == 0)
        return exists_already(to->name);
    int err = npk__swap_begin(to->dir.fd, to->leaf, -1, &swap);
    if (err)
        return err;
    err = copy_array(s, from, swap.fd);
    if (!err && (err = npk__fsync(swap.fd)) != 0) /* a name that survives loss of power is never one of less than all */
        npk__fail_errno(err, to->name);
    if (!err && (err = npk__swap_commit(&swap, NPK_SWAP_NOREPLACE)) == -EEXIST)
        exists_already(to->name);
    npk__swap_abort(&swap);
    return err;
}

/* What was left of the source by who is dead is seen to while it is locked: opening it would find the lock taken. */
static int settle_source(const npk_target *t)
{
    int err = npk__redo_finish(t->dir.fd, t->leaf);
    int fd = err ? err : npk__openat(t->dir.fd, t->leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return err ? err : npk__name_failed(fd, t->name);
    npk_settle_state state;
    (void)npk__settle_locked(t->store, t->dir.fd, t->leaf, fd, NPK_SETTLE_CUT, &state, NULL);
    npk__close(&fd);
    return 0;
}

/* Both names. Where the source's may only be read nobody like us can change it either, and others are found as programs
 * are. */
static int lock_both(npk_store *s, const char *from, const char *to, npk_target t[2])
{
    const char *const names[2] = {from, to};
    int err = npk__targets_lock(s, names, 2, t);
    if (err != -EACCES && err != -EPERM && err != -EROFS)
        return err ? err : settle_source(&t[0]);
    npk__target_release(&t[1]);
    npk__target_release(&t[0]);
    err = npk__target_resolve(s, to, &t[1]);
    return err ? err : npk__lock_array(t[1].dir.fd, t[1].leaf, NPK_LOCK_EXCLUSIVE, &t[1].lock);
}

/* Before a group is made or anything locked. */
static int check(npk_store *s, const char *from, const char *to)
{
    npk_info info;
    bool there = false;
    int err = npk__store_writable(s, to);
    if (!err)
        err = npk_exists(s, to, &there);
    if (!err && there)
        err = exists_already(to);
    if (!err)
        err = npk_stat(s, from, &info);
    if (err)
        return err;
    if (info.reason || !npk_header_is_array(&info.header))
        err = npk__rows_possible(from, &info);
    npk_info_clear(&info);
    return err;
}

npk_err npk_clone(npk_store *s, const char *from, const char *to)
{
    char path[NPK__PATH_BYTES];
    npk_array *a = NULL;
    npk_target t[2] = {NPK_TARGET_NONE, NPK_TARGET_NONE};
    int err = check(s, from, to);
    if (!err)
        err = npk__name_to_path(to, path, sizeof(path));
    if (!err)
        err = npk__make_parents(s->root_fd, path);
    if (!err)
        err = lock_both(s, from, to, t);
    if (!err)
        err = npk_array_open(s, from, &a);
    if (!err)
        err = clone_locked(s, a, &t[1]);
    npk_array_close(&a);
    npk__target_release(&t[1]);
    npk__target_release(&t[0]);
    return err;
}
