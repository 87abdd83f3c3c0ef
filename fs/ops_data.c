/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops_data.c - bytes that the daemon moves itself: all reads and writes in the daemon-served mode; in passthrough mode only
 * what the kernel does not pass through (fallocate, lseek for holes, copy_file_range, readahead hints).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "creds.h"
#include "loop.h"
#include "notice.h"
#include "ops.h"
#include "sys.h"
#include "view.h"
#include "view_ahead.h"

#define COUNT_ADD(counter, n) atomic_fetch_add_explicit(&fs->stats.counter, n, memory_order_relaxed)

/* Requests from this size on are left to a worker, so that several programs move data at once. */
#define LARGE_BYTES (64u << 10)
/* Files up to this size are read from a mapping: one copy instead of two. Beyond it too; the cap is address space. */
#define MAP_MAX_BYTES ((uint64_t)1 << 42)

/* o->lock is held: a mapping that covers [0, end), or NULL. */
static const uint8_t *mapping(fs_open *o, uint64_t end)
{
    if (o->map && o->map_bytes >= end)
        return o->map;
    struct stat st;
    if (o->rfd < 0 || fstat(o->rfd, &st) < 0 || (uint64_t)st.st_size < end || (uint64_t)st.st_size > MAP_MAX_BYTES)
        return NULL;
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, o->rfd, 0);
    if (map == MAP_FAILED)
        return NULL;
    /* The old mapping may be in use by a reply under way: it goes with the open state. */
    if (o->map && o->reading == 0)
        munmap(o->map, o->map_bytes);
    else if (o->map)
        open_retire_map(o);
    o->map = map;
    o->map_bytes = (size_t)st.st_size;
    o->map_touched = 0;
    return map;
}

static void read_by_copy(fuse_req_t req, int fd, size_t size, off_t offset)
{
    char *buf = malloc(size ? size : 1);
    ssize_t n = buf ? pread(fd, buf, size, offset) : -1;
    int err = buf ? errno : ENOMEM;
    if (n < 0)
        fuse_reply_err(req, err);
    else
        fuse_reply_buf(req, buf, (size_t)n);
    free(buf);
}

/* Rows that a reply takes from a mapping of the file, in this many pieces at most and this large on average: the kernel
 * looks up the pages of each piece, and smaller ones are gathered for less. */
#define PIECES_MAX  64
#define PIECE_BYTES (16u << 10)

static void read_view_by_copy(fuse_req_t req, fs_open *o, const fs_view *v, size_t size, off_t offset)
{
    char *buf = malloc(size ? size : 1);
    ssize_t n = buf ? view_read(v, o->rfd >= 0 ? o->rfd : o->wfd, (uint64_t)offset, buf, size) : -ENOMEM;
    if (n < 0)
        fuse_reply_err(req, (int)-n);
    else
        fuse_reply_buf(req, buf, (size_t)n);
    free(buf);
}

/* The reply comes from a mapping that covers [first byte, end) of the file. The caller is a user of the mapping until
 * leave_mapping; NULL: there is none to be had. */
static const uint8_t *enter_mapping(fs_state *fs, fs_open *o, uint64_t from, uint64_t end)
{
    open_lock(fs, o);
    const uint8_t *map = mapping(o, end);
    bool touched = end <= o->map_touched;
    if (map) {
        o->reading++;
        open_borrow(fs, o->node); /* once the reply is out the handle may be released at any time */
        if (!touched && from <= o->map_touched)
            o->map_touched = end;
    }
    pthread_mutex_unlock(&o->lock);
    /* The kernel copies out of the mapping: a page that a foreign truncate took is EFAULT there, never SIGBUS here, and
     * the request ends with EIO (PROTOCOLS P14). Touching new pages in one call is cheaper than one fault each. */
    if (map && !touched) {
        uintptr_t page = (uintptr_t)(map + from) & ~(uintptr_t)4095;
        madvise((void *)page, (uintptr_t)(map + end) - page, 22 /* MADV_POPULATE_READ */);
    }
    return map;
}

static void leave_mapping(fs_state *fs, fs_open *o)
{
    open_lock(fs, o);
    o->reading--;
    pthread_mutex_unlock(&o->lock);
    open_release(fs, o);
}

/* Takes over the view. */
static void read_view(fuse_req_t req, fs_handle *h, fs_view *v, size_t size, off_t offset)
{
    fs_state *fs = fs_of(req);
    fs_open *o = h->open;
    npk_view_piece at[PIECES_MAX];
    struct iovec pieces[PIECES_MAX];
    size_t most = size / PIECE_BYTES;
    size_t count = most && o->rfd >= 0 ? view_extents(v, (uint64_t)offset, size, at, most < PIECES_MAX ? most : PIECES_MAX) : 0;
    uint64_t end = count ? at[count - 1].offset + at[count - 1].bytes : 0;
    const uint8_t *map = count ? enter_mapping(fs, o, at[0].offset, end) : NULL;
    if (!map) {
        if (!view_ahead_reply(req, h, v, size, (uint64_t)offset))
            read_view_by_copy(req, o, v, size, offset);
    } else {
        for (size_t i = 0; i < count; i++)
            pieces[i] = (struct iovec){.iov_base = (void *)(uintptr_t)(map + at[i].offset), .iov_len = (size_t)at[i].bytes};
        fuse_reply_iov(req, pieces, (int)count);
        leave_mapping(fs, o);
    }
    view_return(v);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    if (n->kind != NODE_STORE) {
        control_read(req, size, offset, fi);
        return;
    }
    fs_open *o = handle_of(fi)->open;
    COUNT_ADD(reads, 1);
    COUNT_ADD(read_bytes, size);
    if (size >= LARGE_BYTES)
        loop_yield_if_asked(fs);
    fs_view *v = n->generation || fs->upper ? view_borrow(fs, o) : NULL; /* none is left of what was cut to nothing */
    if (v) {
        atomic_fetch_add_explicit(&o->view_read, size, memory_order_relaxed);
        read_view(req, handle_of(fi), v, size, offset);
        return;
    }
    int fd = o->rfd >= 0 ? o->rfd : o->wfd;
    struct stat st;
    struct statx stx;
    if (offset == 0 && store_statx(fs, fd, "", &stx) == 0) /* a header must not count rows that the kernel cuts off */
        notice_if_outdated(fs, n, &stx);
    if (size < 8192 || fstat(fd, &st) < 0 || offset >= st.st_size) {
        read_by_copy(req, fd, size, offset);
        return;
    }
    if ((uint64_t)offset + size > (uint64_t)st.st_size)
        size = (size_t)(st.st_size - offset);
    const uint8_t *map = enter_mapping(fs, o, (uint64_t)offset, (uint64_t)offset + size);
    if (!map) {
        read_by_copy(req, fd, size, offset);
        return;
    }
    fuse_reply_buf(req, (const char *)map + offset, size);
    leave_mapping(fs, o);
}

/* A page written back from a mapping covers more than what was stored: keep it off the header and within the rows that
 * the file has (PROTOCOLS P22). False: nothing is left to write. */
static bool clip_write_back(fs_open *o, int fd, const char **buf, size_t *size, off_t *offset)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return true;
    if (*offset >= st.st_size)
        return false;
    if (*offset + (off_t)*size > st.st_size)
        *size = (size_t)(st.st_size - *offset);
    if (!o->array_name || *offset > (off_t)(1 << 20))
        return true;
    npk_info info;
    if (npk_fd_stat(o->rfd >= 0 ? o->rfd : fd, &info))
        return true;
    off_t data = info.reason ? 0 : (off_t)info.header.data_offset;
    npk_info_clear(&info);
    if (*offset < data) {
        size_t skip = (size_t)(data - *offset);
        if (skip >= *size)
            return false;
        *buf += skip;
        *size -= skip;
        *offset = data;
    }
    return true;
}

/* All of it, as write(2) on a regular file does; a short count only with an error behind it. */
static ssize_t write_all(int fd, const char *buf, size_t size, off_t offset)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = sys_pwrite(fd, buf + done, size - done, offset + (off_t)done);
        if (n <= 0)
            return done ? (ssize_t)done : n;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    if (n->kind != NODE_STORE) {
        control_write(req, buf, size, offset, fi);
        return;
    }
    fs_handle *h = handle_of(fi);
    fs_open *o = h->open;
    COUNT_ADD(writes, 1);
    COUNT_ADD(written_bytes, size);
    if (size >= LARGE_BYTES)
        loop_yield_if_asked(fs);
    bool close_it = false;
    open_lock(fs, o);
    int fd = open_writable(o, &close_it);
    pthread_mutex_unlock(&o->lock);
    if (fd < 0) {
        fuse_reply_err(req, -fd);
        return;
    }
    const size_t asked = size;
    ssize_t n_written;
    fs_view *v = n->generation || fs->upper ? view_borrow(fs, o) : NULL;
    if (v && fi->writepage) {
        int err = view_write_back(v, fd, (uint64_t)offset, buf, size);
        n_written = err ? err : (ssize_t)asked;
    } else if (v && !h->append) {
        n_written = view_write(v, fd, (uint64_t)offset, buf, size);
    } else if (fi->writepage) {
        n_written = clip_write_back(o, fd, &buf, &size, &offset) ? write_all(fd, buf, size, offset) : 0;
        if (n_written >= 0)
            n_written = (ssize_t)asked;
    } else if (h->append) {
        /* The offset is the kernel's cached size and may be foreign rows by now (PROTOCOLS P23). */
        n_written = sys_append(fd, buf, size);
        struct stat st;
        if (n_written > 0 && (v || (fstat(fd, &st) == 0 && st.st_size != offset + n_written)))
            notice_attributes(fs, n, 0);
    } else {
        n_written = write_all(fd, buf, size, offset);
    }
    view_return(v);
    fs_changed(fs);
    if (n_written > 0)
        creds_strip_setid(req, fd);
    if (close_it)
        close(fd);
    if (n_written < 0)
        fuse_reply_err(req, (int)-n_written);
    else
        fuse_reply_write(req, (size_t)n_written);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    if (node_of(fs, ino)->kind != NODE_STORE) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    fs_open *o = handle_of(fi)->open;
    loop_yield(fs);
    if (node_of(fs, ino)->generation) {
        /* Space can be had by writing; holes and shifts would be of rows that lie elsewhere. */
        fuse_reply_err(req, mode == FALLOC_FL_KEEP_SIZE ? 0 : EOPNOTSUPP);
        return;
    }
    bool close_it = false;
    open_lock(fs, o);
    int fd = open_writable(o, &close_it);
    pthread_mutex_unlock(&o->lock);
    int err = fd < 0 ? fd : sys_fallocate(fd, mode, offset, length);
    if (!err)
        creds_strip_setid(req, fd);
    if (fd >= 0 && close_it)
        close(fd);
    fuse_reply_err(req, -err);
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    if (node_of(fs, ino)->kind != NODE_STORE) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    fs_open *o = handle_of(fi)->open;
    int fd = o->rfd >= 0 ? o->rfd : o->wfd;
    struct statx stx;
    if (node_of(fs, ino)->generation || o->view) { /* a view is data up to its end */
        int err = node_statx(fs, node_of(fs, ino), &stx);
        if (err || offset < 0 || (uint64_t)offset >= stx.stx_size)
            fuse_reply_err(req, err ? -err : ENXIO);
        else
            fuse_reply_lseek(req, whence == SEEK_DATA ? offset : (off_t)stx.stx_size);
        return;
    }
    off_t at = lseek(fd, offset, whence); /* SEEK_DATA and SEEK_HOLE take no notice of the descriptor's position */
    if (at < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_lseek(req, at);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t in_at, struct fuse_file_info *in_fi, fuse_ino_t out,
                        off_t out_at, struct fuse_file_info *out_fi, size_t len, int flags)
{
    fs_state *fs = fs_of(req);
    if (node_of(fs, in)->kind != NODE_STORE || node_of(fs, out)->kind != NODE_STORE) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    if (node_of(fs, in)->generation || node_of(fs, out)->generation || handle_of(in_fi)->open->view) {
        fuse_reply_err(req, EXDEV); /* rows lie elsewhere: the kernel reads and writes instead */
        return;
    }
    fs_open *from = handle_of(in_fi)->open, *to = handle_of(out_fi)->open;
    loop_yield(fs);
    bool close_it = false;
    open_lock(fs, to);
    int fd = open_writable(to, &close_it);
    pthread_mutex_unlock(&to->lock);
    ssize_t n = fd;
    if (fd >= 0) {
        if (len > 1u << 30)
            len = 1u << 30; /* one request must end in a time that a signal can wait for */
        n = sys_copy_range(from->rfd >= 0 ? from->rfd : from->wfd, in_at, fd, out_at, len, (unsigned)flags);
        if (n > 0)
            creds_strip_setid(req, fd);
        if (close_it)
            close(fd);
    }
    if (n < 0) {
        fuse_reply_err(req, (int)-n);
        return;
    }
    notice_attributes(fs, node_of(fs, out), 0);
    fuse_reply_write(req, (size_t)n);
}
