/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "settle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "digits.h"
#include "fail.h"
#include "io.h"
#include "lease.h"
#include "lock.h"
#include "lower.h"
#include "marks.h"
#include "npy.h"
#include "path.h"
#include "store.h"

/* Enough for any header that numpy makes for a plain dtype, so that one read does. */
#define FIRST_READ 4096

/* ---- facts ----------------------------------------------------------------------------------------------------- */

void npk_info_clear(npk_info *i)
{
    free(i->reason);
    i->reason = NULL;
}

static int make_plain(npk_info *info, const char *why)
{
    memset(&info->header, 0, sizeof(info->header));
    info->rows = info->live = info->deleted = info->physical_rows = info->tail_bytes = 0;
    info->reason = strdup(why);
    return info->reason ? 0 : -ENOMEM;
}

/* Parse the header of fd. `first` holds its first n bytes. */
static int read_header(int fd, uint8_t *first, size_t n, npk_info *info)
{
    char why[256] = "";
    uint8_t *longer = NULL;
    int err = npk_header_parse(first, n, &info->header, why, sizeof(why));
    uint64_t need = info->header.data_offset;
    if (err == -EAGAIN && n == FIRST_READ && need > n && need <= NPK_MAX_HEADER + 64) {
        longer = malloc((size_t)need);
        if (!longer)
            return -ENOMEM;
        ssize_t got = npk__pread_full(fd, longer, (size_t)need, 0);
        err = got < 0 ? (int)got : npk_header_parse(longer, (size_t)got, &info->header, why, sizeof(why));
        free(longer);
        if (got < 0)
            return err;
    }
    if (err == -ENOMEM)
        return err;
    if (err)
        return make_plain(info, *why ? why : err == -EAGAIN ? "the header is cut short" : "no npy header");
    return 0;
}

static uint64_t data_end(const npk_info *info)
{
    return info->header.data_offset + info->header.data_bytes;
}

/* What one look at a file tells. */
struct look {
    npk_info info;
    npk_file_id id;
    npk_stamp stamp;
    dev_t dev;
    size_t head_bytes;
    uint8_t head[FIRST_READ]; /* the file's first bytes */
};

static npk_stamp stamp_of(const struct statx *st)
{
    return (npk_stamp){.dev = makedev(st->stx_dev_major, st->stx_dev_minor),
                       .id = npk__file_id_of(st),
                       .size = st->stx_size,
                       .mtime_ns = st->stx_mtime.tv_sec * INT64_C(1000000000) + st->stx_mtime.tv_nsec,
                       .links = st->stx_nlink};
}

int npk__fd_stamp(int fd, npk_stamp *out)
{
    struct statx st;
    int err = npk__statx_fd(fd, &st);
    if (!err)
        *out = stamp_of(&st);
    return err;
}

static int look_once(int fd, struct look *l)
{
    struct statx st;
    npk_info *out = &l->info;
    memset(out, 0, sizeof(*out));
    int err = npk__statx_fd(fd, &st);
    if (err)
        return err;
    out->file_bytes = st.stx_size;
    out->inode = st.stx_ino;
    out->mtime_us = st.stx_mtime.tv_sec * 1000000 + st.stx_mtime.tv_nsec / 1000;
    l->stamp = stamp_of(&st);
    l->id = l->stamp.id;
    l->dev = makedev(st.stx_dev_major, st.stx_dev_minor);
    l->head_bytes = 0;
    if (!S_ISREG(st.stx_mode))
        return make_plain(out, "not a regular file");
    ssize_t n = npk__pread_full(fd, l->head, st.stx_size < FIRST_READ ? (size_t)st.stx_size : FIRST_READ, 0);
    if (n < 0)
        return (int)n;
    l->head_bytes = (size_t)n;
    npk__placeholder lower;
    int packed = npk__placeholder_parse(l->head, l->head_bytes, st.stx_size, &lower);
    if (packed < 0)
        return make_plain(out, "a damaged placeholder of a file in a package");
    if (packed > 0) {
        out->packed = true;
        memmove(l->head, lower.head, NPK__PLACEHOLDER_HEAD);
        l->head_bytes = NPK__PLACEHOLDER_HEAD;
    }
    err = read_header(fd, l->head, l->head_bytes, out);
    if (err || out->reason)
        return err;
    out->rows = out->live = out->physical_rows = out->header.ndim > 0 ? out->header.shape[0] : 0;
    if (npk_header_is_array(&out->header) && out->file_bytes > data_end(out))
        out->tail_bytes = out->file_bytes - data_end(out);
    return 0;
}

npk_settle_state npk__settle_state(const npk_info *info)
{
    if (info->reason || !npk_header_is_row_array(&info->header))
        return NPK_PLAIN;
    if (info->file_bytes < data_end(info))
        return NPK_UNFINISHED;
    if (info->tail_bytes == 0)
        return NPK_SETTLED;
    return info->tail_bytes < info->header.row_bytes ? NPK_PART_ROW : NPK_TAIL;
}

/* Size and header are read one after the other. An array that grew between them looks unfinished: look at the size
 * again, which cannot be older than the header then. One that was cut meanwhile: look at both again. */
static int look_at(int fd, struct look *l)
{
    for (int tries = 0;; tries++) {
        struct stat st;
        int err = look_once(fd, l);
        if (err || npk__settle_state(&l->info) != NPK_UNFINISHED)
            return err;
        err = npk__fstat(fd, &st);
        if (err)
            return err;
        if (l->info.file_bytes == (uint64_t)st.st_size && tries > 0)
            return 0; /* it is */
        l->info.file_bytes = (uint64_t)st.st_size;
        if (l->info.file_bytes >= data_end(&l->info)) {
            l->info.tail_bytes = l->info.file_bytes - data_end(&l->info);
            return 0;
        }
        if (tries == 3)
            return 0;
    }
}

int npk__fd_look(int fd, npk_info *out, npk_stamp *stamp)
{
    struct look l;
    int err = look_at(fd, &l);
    *out = l.info;
    *stamp = l.stamp;
    return err;
}

int npk__fd_facts(int fd, npk_info *out, npk_file_id *id)
{
    struct look l;
    int err = look_at(fd, &l);
    *out = l.info;
    if (id)
        *id = l.id;
    return err;
}

npk_err npk_fd_stat(int fd, npk_info *out)
{
    npk_info info;
    int err = npk__fd_facts(fd, &info, NULL);
    if (err)
        return npk__fail_errno(err, "file");
    *out = info;
    return 0;
}

/* ---- descriptors ----------------------------------------------------------------------------------------------- */

/* The file that fd is has this inode; *st are the attributes of what was opened. */
static int open_inode(int dir_fd, const char *leaf, int fd, ino_t ino, dev_t dev, int flags, struct stat *st)
{
    /* O_NONBLOCK: a lease on the file is answered with EAGAIN instead of up to 45 s of waiting. */
    flags |= O_NONBLOCK | O_NOCTTY;
    int same = npk__openat(dir_fd, leaf, flags | O_NOFOLLOW, 0);
    if (same >= 0) {
        if (npk__fstat(same, st) == 0 && st->st_ino == ino && st->st_dev == dev)
            return same;
        npk__close(&same);
    } else if (same == -EAGAIN) {
        return same;
    }
    same = npk__reopen(fd, flags);
    int err = same < 0 ? same : npk__fstat(same, st);
    if (err)
        npk__close(&same);
    return err ? err : same;
}

int npk__open_same(int dir_fd, const char *leaf, int fd, int flags)
{
    struct stat want, got;
    int err = npk__fstat(fd, &want);
    return err ? err : open_inode(dir_fd, leaf, fd, want.st_ino, want.st_dev, flags, &got);
}

int npk__open_writable(int dir_fd, const char *leaf, int fd, unsigned flags)
{
    for (unsigned waited_ms = 0;; waited_ms++) {
        int rw_fd = npk__open_same(dir_fd, leaf, fd, O_RDWR);
        if (rw_fd >= 0)
            return rw_fd;
        if (rw_fd != -EAGAIN)
            return npk__fail_errno(rw_fd, leaf);
        if (flags & NPK_SETTLE_TRY)
            return npk__fail(rw_fd, "\"%s\": another operation proves that nobody writes to it; try again", leaf);
        if (waited_ms >= 5000)
            return npk__fail(-EBUSY, "\"%s\": somebody holds a lease on it; try again when it is dropped", leaf);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* 0: no writer; -EBUSY: one lives; -ENOTSUP: leases prove nothing. */
static int writer_probe(int dir_fd, const char *leaf, int fd)
{
    int ro_fd = npk__open_same(dir_fd, leaf, fd, O_RDONLY);
    if (ro_fd < 0)
        return -ENOTSUP;
    int err = npk__lease_probe(ro_fd);
    npk__close(&ro_fd);
    return err;
}

/* ---- digits ---------------------------------------------------------------------------------------------------- */

static int run_plan(int rw_fd, const npk__digits_plan_t *plan)
{
    for (uint32_t i = 0; i < plan->count; i++) {
        int err = npk__pwrite_full(rw_fd, plan->steps[i].data, plan->steps[i].bytes, plan->steps[i].offset);
        if (err)
            return err; /* every state between two steps is a header that counts no row too many */
    }
    return 0;
}

/* h as it is after a plan that moves nothing. */
static void set_rows(npk_header *h, uint64_t rows, const npk__digits_plan_t *plan)
{
    h->shape[0] = rows;
    h->data_bytes = rows * h->row_bytes;
    h->digits_offset = plan->digits_offset;
    h->digits_width = plan->digits_width;
}

static int write_rows(int rw_fd, uint8_t *header, npk_header *h, uint64_t rows)
{
    ssize_t n = npk__pread_full(rw_fd, header, (size_t)h->data_offset, 0);
    if (n < 0)
        return (int)n;
    if ((uint64_t)n < h->data_offset)
        return -ESTALE;
    npk__digits_plan_t plan;
    int err = npk__digits_plan(header, (size_t)n, h, rows, &plan);
    if (err == -ENOSPC)
        return 1;
    if (err)
        return err == -EINVAL ? -ESTALE : err;
    err = run_plan(rw_fd, &plan);
    if (err)
        return err;
    if (plan.moves) {
        npk__digits_apply(&plan, plan.count, header);
        return npk_header_parse(header, (size_t)n, h, NULL, 0);
    }
    set_rows(h, rows, &plan);
    return 0;
}

int npk__write_rows(int rw_fd, npk_header *h, uint64_t rows)
{
    uint8_t small[FIRST_READ], *header = small;
    if (h->data_offset > sizeof(small) && !(header = malloc((size_t)h->data_offset)))
        return -ENOMEM;
    int err = write_rows(rw_fd, header, h, rows);
    if (header != small)
        free(header);
    return err;
}

/* ---- settling -------------------------------------------------------------------------------------------------- */

struct settling {
    int dir_fd, fd;
    const char *leaf;
    unsigned flags;
    npk_info info;
    npk_dirty entry;
    npk_settle_state state;
    const struct look *seen; /* what a look before the lock told, if there was one */
    const npk_lock *lock;    /* or NULL: the caller has it */
};

static int fail(const struct settling *w, int err)
{
    return npk__fail_errno(err, w->leaf);
}

/* Is the array that the entry was made for still the one that the header describes? */
static bool entry_fits(const struct settling *w)
{
    return w->entry.data_offset == w->info.header.data_offset && w->entry.row_bytes == w->info.header.row_bytes;
}

static bool file_has(int fd, uint64_t offset, const void *bytes, size_t n)
{
    uint8_t there[NPK__MARK_HEAD];
    return n <= sizeof(there) && npk__pread_full(fd, there, n, offset) == (ssize_t)n && memcmp(there, bytes, n) == 0;
}

/* Did the append whose mark is set write a part of its rows and die? The bytes tell it from another writer's rows at
 * the same place: a mount's writers take no lock, and what they were told is written must stay. */
static bool append_is_torn(const struct settling *w)
{
    const npk_dirty *e = &w->entry;
    uint64_t size = w->info.file_bytes, there = size - e->mark_size;
    if (size <= e->mark_size || there >= e->mark_bytes || data_end(&w->info) > e->mark_size)
        return false;
    return file_has(w->fd, e->mark_size, e->mark_head, there < e->mark_head_bytes ? (size_t)there : e->mark_head_bytes);
}

/* The array's lock is ours, so whoever set the mark is dead: take the append back, or find that it is whole. */
static int finish_append(struct settling *w)
{
    if (append_is_torn(w)) {
        if (writer_probe(w->dir_fd, w->leaf, w->fd) == -EBUSY)
            return 0; /* somebody writes: nothing is cut now; the mark stays */
        int rw_fd = npk__open_writable(w->dir_fd, w->leaf, w->fd, w->flags);
        if (rw_fd < 0)
            return rw_fd;
        int err = npk__ftruncate(rw_fd, w->entry.mark_size);
        npk__close(&rw_fd);
        if (err)
            return fail(w, err);
        w->info.file_bytes = w->entry.mark_size;
        w->info.tail_bytes = w->entry.mark_size - data_end(&w->info);
        w->state = npk__settle_state(&w->info);
    }
    int err = npk__marks_bury(w->dir_fd, w->leaf, w->fd);
    return err ? err : npk__dirty_unmark(w->dir_fd, &w->entry);
}

static int change_rows(struct settling *w, uint64_t rows)
{
    int rw_fd = npk__open_writable(w->dir_fd, w->leaf, w->fd, w->flags);
    if (rw_fd < 0)
        return rw_fd;
    int err = npk__write_rows(rw_fd, &w->info.header, rows);
    npk__close(&rw_fd);
    if (err < 0)
        return fail(w, err);
    if (err > 0) {
        w->state = NPK_NO_ROOM;
        return 0;
    }
    w->info.rows = w->info.live = w->info.physical_rows = rows;
    w->info.tail_bytes = w->info.file_bytes - data_end(&w->info);
    w->state = npk__settle_state(&w->info);
    return 0;
}

/* The tail's first bytes are the npy magic: another array was written behind this one. */
static bool tail_is_npy(const struct settling *w)
{
    return w->info.tail_bytes >= NPK__NPY_MAGIC_BYTES &&
           file_has(w->fd, data_end(&w->info), NPK__NPY_MAGIC, NPK__NPY_MAGIC_BYTES);
}

static int settle_with_entry(struct settling *w)
{
    int err = w->entry.marked ? finish_append(w) : 0;
    if (err || !entry_fits(w))
        return err;
    uint64_t row_bytes = w->info.header.row_bytes;
    if (w->state == NPK_UNFINISHED && (w->flags & NPK_SETTLE_CUT)) {
        if (writer_probe(w->dir_fd, w->leaf, w->fd) == -EBUSY)
            return 0;
        return change_rows(w, (w->info.file_bytes - w->info.header.data_offset) / row_bytes);
    }
    if (w->state == NPK_TAIL && w->entry.may_adopt && !w->entry.marked && !tail_is_npy(w))
        return change_rows(w, w->info.rows + w->info.tail_bytes / row_bytes);
    return 0;
}

static bool is_done(npk_settle_state state, unsigned flags)
{
    return state == NPK_SETTLED || state == NPK_PLAIN || (state == NPK_UNFINISHED && !(flags & NPK_SETTLE_CUT));
}

static int find_entry(struct settling *w, const npk_file_id *id)
{
    return w->lock ? npk__dirty_find_locked(w->lock, w->dir_fd, id, &w->entry)
                   : npk__dirty_find(w->dir_fd, id, &w->entry);
}

/* Count the new rows of a header that was seen before the lock: the usual end of an append, in as few calls as it can
 * be done. 1: done. 0: something is unusual, look at everything again; the file is as it was. */
static int adopt_quickly(struct settling *w, int rw_fd, uint64_t size)
{
    npk_header *h = &w->info.header;
    uint8_t now[FIRST_READ];
    npk__digits_plan_t plan;
    if (npk__pread_full(rw_fd, now, (size_t)h->data_offset, 0) != (ssize_t)h->data_offset ||
        memcmp(now, w->seen->head, (size_t)h->data_offset) != 0 || size < data_end(&w->info) + h->row_bytes)
        return 0;
    w->info.file_bytes = size;
    w->info.tail_bytes = size - data_end(&w->info);
    uint64_t rows = w->info.rows + w->info.tail_bytes / h->row_bytes;
    if (tail_is_npy(w) || npk__digits_plan(now, (size_t)h->data_offset, h, rows, &plan) != 0 || plan.moves)
        return 0;
    int err = run_plan(rw_fd, &plan);
    if (err)
        return fail(w, err);
    set_rows(h, rows, &plan);
    w->info.rows = w->info.live = w->info.physical_rows = rows;
    w->info.tail_bytes = size - data_end(&w->info);
    w->state = npk__settle_state(&w->info);
    return 1;
}

static int try_quickly(struct settling *w)
{
    const struct look *seen = w->seen;
    struct stat st;
    if (!seen || w->state != NPK_TAIL || w->info.header.data_offset > seen->head_bytes ||
        find_entry(w, &seen->id) <= 0 || !w->entry.may_adopt || w->entry.marked || !entry_fits(w))
        return 0;
    int rw_fd = open_inode(w->dir_fd, w->leaf, w->fd, seen->id.inode, seen->dev, O_RDWR, &st);
    if (rw_fd < 0)
        return 0;
    int done = adopt_quickly(w, rw_fd, (uint64_t)st.st_size);
    npk__close(&rw_fd);
    return done;
}

static int settle_locked(struct settling *w)
{
    npk_file_id id;
    int err = try_quickly(w);
    if (err)
        return err < 0 ? err : 0;
    npk_info_clear(&w->info);
    err = npk__fd_facts(w->fd, &w->info, &id);
    if (err)
        return fail(w, err);
    w->state = npk__settle_state(&w->info);
    if (is_done(w->state, w->flags))
        return 0;
    int there = find_entry(w, &id);
    err = there > 0 ? settle_with_entry(w) : there;
    if (!err && w->state == NPK_PART_ROW && tail_is_npy(w))
        w->state = NPK_TAIL;
    return err;
}

int npk__settle_mark_locked(int dir_fd, const char *leaf, int fd)
{
    struct settling w = {.dir_fd = dir_fd, .leaf = leaf, .fd = fd};
    npk_file_id id;
    int err = npk__fd_facts(fd, &w.info, &id);
    if (err)
        return fail(&w, err);
    w.state = npk__settle_state(&w.info);
    int there = find_entry(&w, &id);
    err = there > 0 && w.entry.marked ? finish_append(&w) : there < 0 ? there : 0;
    npk_info_clear(&w.info);
    return err;
}

static void hand_over(struct settling *w, int err, npk_settle_state *state, npk_info *info)
{
    if (!err && state)
        *state = w->state;
    if (!err && info)
        *info = w->info;
    else
        npk_info_clear(&w->info);
}

int npk__settle_locked(npk_store *s, int dir_fd, const char *leaf, int fd, unsigned flags, npk_settle_state *state,
                       npk_info *info)
{
    (void)s;
    struct settling w = {.dir_fd = dir_fd, .leaf = leaf, .fd = fd, .flags = flags};
    int err = settle_locked(&w);
    hand_over(&w, err, state, info);
    return err;
}

/* A first look without a lock has found something to do. Without a lock file there is no entry, so nothing may be done
 * after all; then none is made. */
static int settle_under_lock(npk_store *s, const char *path, struct settling *w)
{
    npk_dir dir;
    npk_lock lock;
    int err = npk__dir_of(s->root_fd, path, &dir, &w->leaf);
    if (err)
        return err;
    w->dir_fd = dir.fd;
    unsigned how = NPK_LOCK_EXCLUSIVE | NPK_LOCK_EXISTING | (w->flags & NPK_SETTLE_TRY ? NPK_LOCK_TRY : 0);
    err = npk__lock_array(dir.fd, w->leaf, how, &lock);
    if (!err) {
        w->lock = &lock;
        err = settle_locked(w);
        npk__unlock(&lock);
    } else if (err == -ENOENT) {
        err = 0;
        if (w->state == NPK_PART_ROW && tail_is_npy(w))
            w->state = NPK_TAIL;
    }
    npk__dir_release(&dir);
    return err;
}

npk_err npk_settle(npk_store *s, const char *path, int fd, unsigned flags, npk_settle_state *state, npk_info *info)
{
    struct settling w = {.dir_fd = -1, .leaf = path, .fd = fd, .flags = flags};
    if (flags & ~(unsigned)(NPK_SETTLE_TRY | NPK_SETTLE_CUT))
        return npk__fail(-EINVAL, "\"%s\": unknown flag in 0x%x; 0, NPK_SETTLE_TRY and NPK_SETTLE_CUT are known", path,
                         flags);
    struct look seen;
    int err = npk__path_check(path);
    if (!err) {
        err = look_at(fd, &seen);
        w.info = seen.info;
        w.seen = &seen;
        if (err)
            fail(&w, err);
    }
    if (!err) {
        w.state = npk__settle_state(&w.info);
        if (!is_done(w.state, flags) && !(s->flags & NPK_READ_ONLY))
            err = settle_under_lock(s, path, &w);
    }
    /* Who may not write here sees things as they are. */
    if (w.state != NPK_SETTLED && (err == -EACCES || err == -EPERM || err == -EROFS))
        err = 0;
    hand_over(&w, err, state, info);
    return err;
}

/* ---- set_size -------------------------------------------------------------------------------------------------- */

/* An entry that forbids adoption because of a foreign tail is good again once that tail is gone. */
static int allow_again(struct settling *w, const npk_file_id *id)
{
    int there = npk__dirty_find(w->dir_fd, id, &w->entry);
    if (there <= 0 || w->entry.may_adopt)
        return there < 0 ? there : 0;
    w->entry.may_adopt = true;
    return npk__dirty_update(w->dir_fd, &w->entry);
}

/* Before the data of a finished array goes. Rows that are not counted yet are counted first (they may stay whole), and
 * an entry is made, so that after power loss a header that is older than the cut can be told from damage. */
static int take_digits_down(struct settling *w, int rw_fd, uint64_t size)
{
    npk_dirty entry;
    int err = npk__session_begin_at(w->dir_fd, w->leaf, w->fd, &entry);
    if (err < 0)
        return err;
    err = npk__write_rows(rw_fd, &w->info.header, (size - w->info.header.data_offset) / w->info.header.row_bytes);
    return err > 0 ? -EIO : err; /* fewer digits always have room */
}

static bool is_finished(const npk_info *info)
{
    npk_settle_state state = npk__settle_state(info);
    return state != NPK_PLAIN && state != NPK_UNFINISHED;
}

static bool cuts_rows(const npk_info *info, uint64_t size)
{
    return is_finished(info) && size < data_end(info);
}

static int set_size_natively(struct settling *w, uint64_t size)
{
    int rw_fd = npk__open_writable(w->dir_fd, w->leaf, w->fd, 0);
    if (rw_fd < 0)
        return rw_fd;
    int err = npk__ftruncate(rw_fd, size);
    npk__close(&rw_fd);
    return err ? fail(w, err) : 0;
}

/* Everything but the marks. finished, cut: of the array before and of what is done to it. */
static int cut_data(struct settling *w, uint64_t size, const npk_file_id *id, bool finished, bool cut)
{
    int rw_fd = npk__open_writable(w->dir_fd, w->leaf, w->fd, 0), err = 0;
    if (rw_fd < 0)
        return rw_fd;
    if (cut)
        err = take_digits_down(w, rw_fd, size);
    else if (size < w->info.file_bytes && (w->state == NPK_PLAIN || size < w->info.header.data_offset))
        err = npk__dirty_remove(w->dir_fd, id, true); /* what comes next is not this array */
    if (err >= 0)
        err = npk__ftruncate(rw_fd, size);
    if (!err && finished && size < w->info.file_bytes && size >= w->info.header.data_offset)
        err = allow_again(w, id);
    npk__close(&rw_fd);
    return err ? fail(w, err) : 0;
}

/* Rows go: the state is told before, and what was deleted among them is forgotten after. */
static int cut_with_marks(struct settling *w, uint64_t size, const npk_stamp *stamp)
{
    npk_info before = w->info;
    npk_marks m;
    uint64_t rows = (size - before.header.data_offset) / before.header.row_bytes;
    int err = npk__marks_look(w->dir_fd, w->leaf, w->fd, &before, stamp, &m);
    if (err)
        return err;
    err = npk__marks_shrink(&m, rows);
    if (!err)
        err = cut_data(w, size, &stamp->id, true, true);
    if (!err) {
        npk__known_wrote(&m.known, stamp, w->fd);
        (void)npk__fd_stamp(w->fd, &m.stamp);
        before.rows = before.live = before.physical_rows = rows;
        npk__known_clip(&m.known, rows);
        err = npk__marks_cut(&m);
    }
    npk__marks_release(&m);
    return err;
}

static int set_size_locked(struct settling *w, uint64_t size)
{
    npk_stamp stamp;
    int err = settle_locked(w); /* an append that died is taken back, not cut in the middle */
    if (!err && (err = npk__fd_stamp(w->fd, &stamp)) != 0)
        fail(w, err);
    if (err)
        return err;
    bool cut = cuts_rows(&w->info, size) && size >= w->info.header.data_offset;
    if (size < w->info.file_bytes && npk__state_there(w->dir_fd, w->leaf, stamp.id.inode)) {
        if (cut)
            return cut_with_marks(w, size, &stamp);
        if (size < w->info.header.data_offset)
            npk__marks_ended(w->dir_fd, w->leaf, &stamp);
    }
    return cut_data(w, size, &stamp.id, is_finished(&w->info), cut);
}

npk_err npk_set_size(npk_store *s, const char *path, int fd, uint64_t size)
{
    struct settling w = {.leaf = path, .fd = fd};
    npk_dir dir;
    npk_lock lock;
    int err = npk__path_check(path);
    if (!err)
        err = npk__store_writable(s, path);
    if (!err && size > INT64_MAX)
        err = npk__fail(-EFBIG, "\"%s\": %llu bytes; at most 2^63 - 1", path, (unsigned long long)size);
    if (!err)
        err = npk__dir_of(s->root_fd, path, &dir, &w.leaf);
    if (err)
        return err;
    w.dir_fd = dir.fd;
    /* A lock file is made only where rows are cut: plain files and growth leave no trace. */
    err = npk__fd_facts(fd, &w.info, NULL);
    unsigned how = NPK_LOCK_EXCLUSIVE | (!err && cuts_rows(&w.info, size) ? 0 : NPK_LOCK_EXISTING);
    err = err ? fail(&w, err) : npk__lock_array(dir.fd, w.leaf, how, &lock);
    if (!err) {
        err = set_size_locked(&w, size);
        npk__unlock(&lock);
    } else if (err == -ENOENT) {
        err = set_size_natively(&w, size);
    }
    npk_info_clear(&w.info);
    npk__dir_release(&dir);
    return err;
}
