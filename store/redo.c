/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "redo.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "guard.h"
#include "io.h"
#include "settle.h"
#include "store.h"
#include "sum.h"

/* A record beyond this is not kept for the next one: its blocks are given back. */
#define KEPT_BYTES (UINT64_C(256) << 10)
/* So few extents are written by a call each; more of them through a mapping, which costs a fault per page instead of a
 * call per extent. */
#define FEW_EXTENTS 48
#define PAGE        4096u

static const char redo_magic[8] = {'N', 'P', 'K', 'R', 'E', 'D', 'O', '1'};

struct redo_header {
    char magic[8]; /* zeros: nothing to be redone */
    uint8_t boot[16];
    uint64_t inode, birth_ns;
    uint64_t data_offset, row_bytes;
    uint64_t rows; /* counted then */
    uint64_t extents;
    uint64_t extents_sum, rows_sum;
    uint64_t zero[4];
    uint64_t sum; /* of the bytes before it */
};
_Static_assert(sizeof(struct redo_header) == 128 && sizeof(npk_extent) == 16, "FORMAT");

struct redo { /* a record that was read */
    struct redo_header h;
    npk_extent *extents;
    uint8_t *rows;
    uint64_t row_count;
};

void npk__redo_file(const char *leaf, char out[64])
{
    snprintf(out, 64, NPK__REDO_PREFIX "%010" PRIx64, npk__lock_slot_of(leaf) & ((UINT64_C(1) << 40) - 1));
}

static int open_redo(int dir_fd, const char *leaf, int flags)
{
    char name[64];
    npk__redo_file(leaf, name);
    return npk__sidecar_file(dir_fd, name, flags);
}

/* ---- writing the rows ------------------------------------------------------------------------------------------ */

struct storing {
    uint8_t *data;
    const npk_extent *extents;
    size_t count;
    const uint8_t *rows;
    uint64_t row_bytes;
};

static int store_mapped(void *ctx)
{
    const struct storing *w = ctx;
    const uint8_t *from = w->rows;
    for (size_t i = 0; i < w->count; i++) {
        size_t n = (size_t)(w->extents[i].rows * w->row_bytes);
        memcpy(w->data + w->extents[i].row * w->row_bytes, from, n);
        from += n;
    }
    return 0;
}

/* -ENOSYS: not possible here, use calls. */
static int apply_by_map(int fd, const npk_header *h, uint64_t rows, const npk_extent *extents, size_t count,
                        const void *from)
{
    void *at;
    uint64_t bytes = h->data_offset + rows * h->row_bytes;
    if (npk__io_planned() || npk__mmap(&at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != 0)
        return -ENOSYS; /* under a plan each store is a call, so that it can be stopped there */
    struct storing w = {(uint8_t *)at + h->data_offset, extents, count, from, h->row_bytes};
    int err = npk__guarded(at, bytes, store_mapped, &w);
    munmap(at, bytes);
    return err ? -ENOSYS : 0; /* a full disk shows as SIGBUS: a call tells what it really is */
}

static int apply(int fd, const npk_header *h, uint64_t rows, const npk_extent *extents, size_t count, const void *from)
{
    if (count > FEW_EXTENTS && apply_by_map(fd, h, rows, extents, count, from) == 0)
        return 0;
    const uint8_t *at = from;
    for (size_t i = 0; i < count; i++) {
        uint64_t n = extents[i].rows * h->row_bytes;
        int err = npk__pwrite_full(fd, at, n, npk__rows_end(h, extents[i].row));
        if (err)
            return err;
        at += n;
    }
    return 0;
}

/* One call within one page: nothing can come in between. */
static bool is_atomic(const npk_header *h, const npk_extent *extents, size_t count)
{
    if (count != 1)
        return count == 0;
    uint64_t from = npk__rows_end(h, extents[0].row), bytes = extents[0].rows * h->row_bytes;
    return bytes == 0 || from / PAGE == (from + bytes - 1) / PAGE;
}

/* ---- the record ------------------------------------------------------------------------------------------------ */

static int write_record(int fd, const npk_target *t, const npk_extent *extents, size_t count, const void *rows,
                        uint64_t bytes)
{
    const npk_header *h = &t->info.header;
    size_t table = count * sizeof(*extents);
    npk_extent few[16], *le = count <= 16 ? few : malloc(table);
    if (!le)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        le[i] = (npk_extent){htole64(extents[i].row), htole64(extents[i].rows)};
    struct redo_header head = {.inode = htole64(t->id.inode),
                               .birth_ns = htole64(t->id.birth_ns),
                               .data_offset = htole64(h->data_offset),
                               .row_bytes = htole64(h->row_bytes),
                               .rows = htole64(t->info.rows),
                               .extents = htole64(count),
                               .extents_sum = htole64(npk__sum_long(le, table)),
                               .rows_sum = htole64(npk__sum_long(rows, bytes))};
    memcpy(head.magic, redo_magic, sizeof(redo_magic));
    npk__boot_id(head.boot);
    head.sum = htole64(npk__sum(&head, offsetof(struct redo_header, sum), 0));
    int err = npk__pwrite_full(fd, rows, bytes, sizeof(head) + table);
    if (!err)
        err = npk__pwrite_full(fd, le, table, sizeof(head));
    if (!err) /* last: with it the operation is decided */
        err = npk__pwrite_full(fd, &head, sizeof(head), 0);
    if (le != few)
        free(le);
    return err;
}

static int clear_record(int fd)
{
    static const char none[8];
    return npk__pwrite_full(fd, none, sizeof(none), 0);
}

/* 0: *out is a whole record; -ENODATA: there is none, or it is void (torn, of another boot). */
static int read_record(int fd, struct redo *out)
{
    struct stat st;
    uint8_t boot[16];
    *out = (struct redo){0};
    ssize_t n = npk__pread_full(fd, &out->h, sizeof(out->h), 0);
    if (n < 0)
        return (int)n;
    struct redo_header *h = &out->h;
    if ((size_t)n < sizeof(*h) || memcmp(h->magic, redo_magic, sizeof(redo_magic)) != 0 ||
        le64toh(h->sum) != npk__sum(h, offsetof(struct redo_header, sum), 0))
        return -ENODATA;
    npk__boot_id(boot);
    if (memcmp(boot, h->boot, sizeof(boot)) != 0)
        return -ENODATA;
    int err = npk__fstat(fd, &st);
    if (err)
        return err;
    uint64_t count = le64toh(h->extents), row_bytes = le64toh(h->row_bytes), rows = le64toh(h->rows), table, bytes = 0;
    if (__builtin_mul_overflow(count, sizeof(npk_extent), &table) || table > (uint64_t)st.st_size)
        return -ENODATA;
    out->extents = malloc(table + 1);
    if (!out->extents)
        return -ENOMEM;
    if (npk__pread_full(fd, out->extents, table, sizeof(*h)) != (ssize_t)table ||
        npk__sum_long(out->extents, table) != le64toh(h->extents_sum))
        return -ENODATA;
    for (uint64_t i = 0; i < count; i++) {
        npk_extent *e = &out->extents[i];
        *e = (npk_extent){le64toh(e->row), le64toh(e->rows)};
        if (e->row > rows || e->rows > rows - e->row ||
            __builtin_add_overflow(out->row_count, e->rows, &out->row_count))
            return -ENODATA;
    }
    if (__builtin_mul_overflow(out->row_count, row_bytes, &bytes) || bytes > (uint64_t)st.st_size)
        return -ENODATA;
    out->rows = malloc(bytes + 1);
    if (!out->rows)
        return -ENOMEM;
    if (npk__pread_full(fd, out->rows, bytes, sizeof(*h) + table) != (ssize_t)bytes ||
        npk__sum_long(out->rows, bytes) != le64toh(h->rows_sum))
        return -ENODATA;
    return 0;
}

static void free_record(struct redo *r)
{
    free(r->extents);
    free(r->rows);
}

/* ---- replacing ------------------------------------------------------------------------------------------------- */

int npk__redo_replace(npk_target *t, const npk_extent *extents, size_t count, const void *rows)
{
    const npk_header *h = &t->info.header;
    if (is_atomic(h, extents, count)) {
        int err = apply(t->fd, h, t->info.rows, extents, count, rows);
        return err ? npk__fail_errno(err, t->name) : 0;
    }
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += extents[i].rows * h->row_bytes;
    int fd = open_redo(t->dir.fd, t->leaf, O_RDWR | O_CREAT);
    if (fd < 0)
        return fd;
    int err = write_record(fd, t, extents, count, rows, bytes);
    if (err) {
        npk__close(&fd);
        npk__redo_drop(t->dir.fd, t->leaf);
        return npk__fail_errno(err, t->name);
    }
    err = apply(t->fd, h, t->info.rows, extents, count, rows);
    if (err) {
        npk__close(&fd);
        return npk__fail(err,
                         "\"%s\": %s while its rows were written; they are kept, and the next change completes them",
                         t->name, strerrorname_np(-err));
    }
    err = bytes > KEPT_BYTES ? 0 : clear_record(fd);
    npk__close(&fd);
    if (bytes > KEPT_BYTES)
        npk__redo_drop(t->dir.fd, t->leaf);
    return err ? npk__fail_errno(err, t->name) : 0;
}

/* ---- finishing ------------------------------------------------------------------------------------------------- */

/* 0: the file is the one of the record; -ESTALE: it is not. */
static int fits(const struct redo *r, int fd)
{
    npk_info info = {0};
    npk_file_id id;
    int err = npk__fd_facts(fd, &info, &id);
    if (!err && (id.inode != le64toh(r->h.inode) || id.birth_ns != le64toh(r->h.birth_ns) || info.reason ||
                 !npk_header_is_row_array(&info.header) || info.header.data_offset != le64toh(r->h.data_offset) ||
                 info.header.row_bytes != le64toh(r->h.row_bytes)))
        err = -ESTALE;
    uint64_t rows = le64toh(r->h.rows);
    if (!err && (info.rows < rows || info.file_bytes < npk__rows_end(&info.header, rows)))
        err = -ESTALE; /* cut meanwhile: the rows that it names need not be there */
    npk_info_clear(&info);
    return err;
}

static int set_aside(int dir_fd, const char *leaf)
{
    char name[64], aside[96];
    struct stat st;
    int side = npk__sidecar_open(dir_fd, false), err = side < 0 ? side : -EEXIST;
    npk__redo_file(leaf, name);
    for (unsigned i = 0; err == -EEXIST && i < 1000; i++) {
        snprintf(aside, sizeof(aside), "aside.%s.%u", name, i);
        err = npk__fstatat(side, aside, &st);
        err = err == -ENOENT ? npk__renameat2(side, name, side, aside, 0) : err ? err : -EEXIST;
    }
    npk__close(&side);
    return err;
}

static int finish_open(int dir_fd, const char *leaf, int redo_fd)
{
    struct redo r;
    int err = read_record(redo_fd, &r);
    if (err == 0) {
        int fd = npk__open_for_change(dir_fd, leaf, leaf);
        err = fd == -ENOENT || fd == -ELOOP ? -ESTALE : fd < 0 ? fd : fits(&r, fd);
        if (!err) {
            npk_header h = {.data_offset = le64toh(r.h.data_offset), .row_bytes = le64toh(r.h.row_bytes)};
            err = apply(fd, &h, le64toh(r.h.rows), r.extents, (size_t)le64toh(r.h.extents), r.rows);
        }
        npk__close(&fd);
        if (err == -ESTALE)
            err = set_aside(dir_fd, leaf);
        else if (!err)
            err = clear_record(redo_fd);
    } else if (err == -ENODATA) {
        err = 0;
    }
    free_record(&r);
    return err ? npk__fail_errno(err, leaf) : 0;
}

/* Cleared, as most are? One read. */
static bool is_cleared(int fd)
{
    char magic[8] = {0};
    return npk__pread_full(fd, magic, sizeof(magic), 0) < (ssize_t)sizeof(magic) ||
           memcmp(magic, redo_magic, sizeof(magic)) != 0;
}

int npk__redo_finish(int dir_fd, const char *leaf)
{
    int fd = open_redo(dir_fd, leaf, O_RDWR);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    int err = is_cleared(fd) ? 0 : finish_open(dir_fd, leaf, fd);
    npk__close(&fd);
    return err;
}

/* With the lock in hand. */
static int finish_or_tell(int dir_fd, const char *leaf, const char *path, int redo_fd, bool may_write)
{
    struct redo r;
    if (may_write)
        return npk__redo_finish(dir_fd, leaf);
    int err = read_record(redo_fd, &r);
    free_record(&r);
    if (err)
        return 0;
    return npk__fail(-EUCLEAN,
                     "\"%s\": a replace of its rows was interrupted; open the store for writing once, or run npk check "
                     "--repair",
                     path);
}

int npk__redo_for_reading(npk_store *s, const char *path)
{
    char name[64];
    npk_dir dir;
    npk_lock lock;
    const char *leaf = strrchr(path, '/');
    npk__redo_file(leaf ? leaf + 1 : path, name);
    int fd = npk__sidecar_file_of(s->root_fd, path, name, O_RDONLY);
    if (fd < 0)
        return 0; /* nothing there, or nothing that may be seen: the array is what it is */
    bool may_write = !(s->flags & NPK_READ_ONLY);
    int err = is_cleared(fd) ? -EAGAIN : npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (!err) {
        err = may_write ? npk__lock_array(dir.fd, leaf, NPK_LOCK_TRY | NPK_LOCK_EXCLUSIVE, &lock) : -EROFS;
        if (err == -EROFS || err == -EACCES || err == -EPERM) {
            may_write = false;
            err = npk__lock_array(dir.fd, leaf, NPK_LOCK_TRY, &lock);
        }
        if (!err) {
            err = finish_or_tell(dir.fd, leaf, path, fd, may_write);
            npk__unlock(&lock);
        }
        npk__dir_release(&dir);
    }
    npk__close(&fd);
    return err == -EAGAIN ? 0 : err; /* its owner lives: rows that are being replaced are read as they come */
}

void npk__redo_drop(int dir_fd, const char *leaf)
{
    char path[sizeof(NPK__SIDECAR) + 64], name[64];
    npk__redo_file(leaf, name);
    snprintf(path, sizeof(path), NPK__SIDECAR "/%s", name);
    struct stat st;
    if (npk__fstatat(dir_fd, path, &st) == 0) /* most arrays have none */
        (void)npk__unlinkat(dir_fd, path, 0);
}

bool npk__redo_is_whole(int side_fd, const char *file)
{
    struct redo r;
    int fd = npk__openat(side_fd, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return false;
    bool whole = read_record(fd, &r) == 0;
    free_record(&r);
    npk__close(&fd);
    return whole;
}
