/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops_dir.c - reading directories. Offsets are the store's own directory cookies (d_off), so seekdir and telldir work and
 * a listing survives entries that come and go, exactly as far as they do on the filesystem below.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "loop.h"
#include "ops.h"
#include "sys.h"
#include "view.h"
#include "watch.h"

/* The cookie after `.npk`, which comes last when it is listed. ext4 uses cookies up to 2^63 - 1 (its end of directory),
 * of which this one would take a hash collision to be an entry's. */
#define AFTER_CONTROLS 0x7ffffffffffffffell

struct linux_dirent64 {
    uint64_t d_ino;
    int64_t d_off;
    unsigned short d_reclen;
    unsigned char d_type;
    char d_name[];
};

typedef struct dir_handle {
    fs_handle head;           /* handle_of works for directories too */
    int fd;
    pthread_mutex_t lock;     /* protects all below: one reader at a time, as on any open directory */
    off_t at;                 /* cookie at which the next getdents64 continues */
    size_t have, next;        /* bytes in buf, and of these consumed */
    char buf[32 << 10];
} dir_handle;

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    if (n->kind != NODE_STORE) {
        control_opendir(req, n, fi);
        return;
    }
    int fd = node_fd(fs, n, O_RDONLY | O_DIRECTORY);
    dir_handle *d = fd >= 0 ? malloc(sizeof *d) : NULL;
    if (!d) {
        if (fd >= 0)
            close(fd);
        fuse_reply_err(req, fd < 0 ? -fd : ENOMEM);
        return;
    }
    d->head = (fs_handle){.node = n};
    d->fd = fd;
    d->at = 0;
    d->have = d->next = 0;
    pthread_mutex_init(&d->lock, NULL);
    watch_directory(fs, n);
    fi->fh = (uint64_t)(uintptr_t)d;
    if (fuse_reply_open(req, fi) != 0) {
        close(fd);
        free(d);
    }
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    if (node_of(fs, ino)->kind != NODE_STORE) {
        control_releasedir(req, fi);
        return;
    }
    dir_handle *d = (dir_handle *)handle_of(fi);
    close(d->fd);
    pthread_mutex_destroy(&d->lock);
    free(d);
    fuse_reply_err(req, 0);
}

/* d->lock is held. The next entry, without consuming it; NULL at the end, *err set on failure. */
static const struct linux_dirent64 *peek(dir_handle *d, int *err)
{
    if (d->next >= d->have) {
        long n = syscall(SYS_getdents64, d->fd, d->buf, sizeof d->buf);
        if (n < 0)
            *err = errno;
        if (n <= 0)
            return NULL;
        d->have = (size_t)n;
        d->next = 0;
    }
    return (const struct linux_dirent64 *)(d->buf + d->next);
}

static void consume(dir_handle *d, const struct linux_dirent64 *e)
{
    d->at = e->d_off;
    d->next += e->d_reclen;
}

static void seek_to(dir_handle *d, off_t offset)
{
    if (offset == d->at)
        return;
    lseek(d->fd, offset, SEEK_SET);
    d->at = offset;
    d->have = d->next = 0;
}

/* Add one entry to the reply. False: it does not fit. */
static bool add(fuse_req_t req, fs_node *dir, int fd, bool plus, const char *name, uint64_t ino, mode_t type, off_t off,
                char *out, size_t room, size_t *used)
{
    fs_state *fs = fs_of(req);
    if (!plus) {
        struct stat st = {.st_ino = ino, .st_mode = type};
        size_t n = fuse_add_direntry(req, out, room, name, &st, off);
        *used = n;
        return n <= room;
    }
    struct fuse_entry_param e = {.attr = {.st_ino = ino, .st_mode = type}};
    fs_node *child = NULL;
    struct statx stx;
    size_t needed = fuse_add_direntry_plus(req, NULL, 0, name, &e, off);
    if (needed > room) {
        *used = needed;
        return false;
    }
    bool dots = name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
    if (!dots && !is_control_name(name) && store_statx(fs, fd, name, &stx) == 0 &&
        (child = node_bind(fs, dir, name, &stx, view_look(fs, dir, fd, name, &stx))))
        fill_entry(fs, &e, child, &stx);
    *used = fuse_add_direntry_plus(req, out, room, name, &e, off);
    return true;
}

static void read_entries(fuse_req_t req, fs_node *dir, size_t size, off_t offset, dir_handle *d, bool plus)
{
    fs_state *fs = fs_of(req);
    char *out = malloc(size);
    size_t used = 0, n = 0;
    int err = out ? 0 : ENOMEM;
    bool full = false;
    pthread_mutex_lock(&d->lock);
    if (out && offset != AFTER_CONTROLS) {
        seek_to(d, offset);
        const struct linux_dirent64 *e;
        while (!full && (e = peek(d, &err))) {
            if (!is_reserved_name(e->d_name)) {
                mode_t type = (mode_t)e->d_type << 12;
                if (!add(req, dir, d->fd, plus, e->d_name, e->d_ino, type, e->d_off, out + used, size - used, &n)) {
                    full = true;
                    break;
                }
                used += n;
            }
            consume(d, e);
        }
        if (!full && !err && fs->options->controls_visible &&
            add(req, dir, d->fd, plus, ".npk", 1, S_IFDIR, AFTER_CONTROLS, out + used, size - used, &n)) {
            used += n;
        }
    }
    pthread_mutex_unlock(&d->lock);
    if (err && used == 0)
        fuse_reply_err(req, err);
    else
        fuse_reply_buf(req, out, used);
    free(out);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    fs_node *n = node_of(fs_of(req), ino);
    if (n->kind != NODE_STORE)
        control_readdir(req, size, offset, fi, false);
    else
        read_entries(req, n, size, offset, (dir_handle *)handle_of(fi), false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    fs_node *n = node_of(fs_of(req), ino);
    if (n->kind != NODE_STORE)
        control_readdir(req, size, offset, fi, true);
    else
        read_entries(req, n, size, offset, (dir_handle *)handle_of(fi), true);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    if (node_of(fs, ino)->kind != NODE_STORE) {
        fuse_reply_err(req, 0);
        return;
    }
    loop_yield(fs);
    fuse_reply_err(req, -sys_fsync(((dir_handle *)handle_of(fi))->fd, data_only));
}
