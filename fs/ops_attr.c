/* SPDX-License-Identifier: Apache-2.0 */
/* ops_attr.c - attributes of nodes, and of the filesystem. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "creds.h"
#include "keeper.h"
#include "loop.h"
#include "node_table.h"
#include "notice.h"
#include "ops.h"
#include "sys.h"
#include "upper.h"
#include "view.h"

static void reply_statx(fuse_req_t req, fs_node *n, const struct statx *stx)
{
    fs_state *fs = fs_of(req);
    struct stat st;
    stat_from_statx(&st, stx);
    pthread_mutex_lock(&fs->nodes->lock);
    n->shown_size = stx->stx_size;
    n->shown_mtime_ns = statx_ns(&stx->stx_mtime);
    pthread_mutex_unlock(&fs->nodes->lock);
    fuse_reply_attr(req, &st, fs->options->attr_timeout_s);
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)fi;
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    atomic_fetch_add_explicit(&fs->stats.getattrs, 1, memory_order_relaxed);
    if (n->kind != NODE_STORE) {
        struct stat st;
        int err = control_stat(fs, n, &st);
        if (err)
            fuse_reply_err(req, -err);
        else
            fuse_reply_attr(req, &st, 0);
        return;
    }
    struct statx stx;
    int err = node_statx(fs, n, &stx);
    if (err)
        fuse_reply_err(req, -err);
    else
        reply_statx(req, n, &stx);
}

/* ---- setattr ---- */

static int set_size_of(fuse_req_t req, fs_node *n, off_t size, fs_handle *h)
{
    fs_state *fs = fs_of(req);
    loop_yield(fs);
    int up = h ? 0 : upper_copy_up_node(req, n);
    if (up)
        return up;
    fs_open *o = open_acquire(fs, n);
    if (!o)
        return -ENOMEM;
    char *path = node_path(fs, n);
    open_lock(fs, o);
    int fd = o->wfd >= 0 ? o->wfd : o->rfd, own = -1;
    if (fd < 0)
        fd = own = node_fd(fs, n, O_RDWR);
    if (fd == -EACCES)
        fd = own = node_fd(fs, n, O_WRONLY);
    int err = fd < 0 ? fd : 0;
    bool rewriting = o->creators > 0;
    struct statx stx;
    if (!err && !h && path && store_statx(fs, fd, "", &stx) == 0 && view_look_fd(fs, path, fd, &stx) != n->generation &&
        node_may_tell_stale(fs, n, fuse_req_ctx(req)->pid))
        err = -ESTALE; /* rows were deleted since the kernel looked the name up: it shall look again */
    if (!err && !rewriting && path && node_is_named_like_array(fs, n)) {
        if (!h && !o->node->session) {
            bool entered = false; /* truncate(2): a change of the array like any writing open */
            err = npk_session_begin(fs->store, path, fd, &entered);
            if (!err && entered) {
                o->node->session = true;
                keeper_watch_session(fs, n);
            }
            if (err == -EACCES || err == -EPERM || err == -EROFS)
                err = 0;
        }
        if (!err && n->generation)
            err = view_resize(fs, o, path, fd, (uint64_t)size);
        else if (!err)
            err = npk_set_size(fs->store, path, fd, (uint64_t)size);
    } else if (!err) {
        bool close_it = false;
        int w = own >= 0 ? own : open_writable(o, &close_it);
        err = w < 0 ? w : sys_ftruncate(w, size);
        if (close_it)
            close(w);
    }
    if (!err)
        creds_strip_setid(req, fd);
    if (!err && h && size == 0 && !h->creator) {
        h->creator = true; /* from here on it is written anew: its growth is its own */
        o->creators++;
    }
    pthread_mutex_unlock(&o->lock);
    if (own >= 0)
        close(own);
    if (!err && !h && !rewriting && o->node->session)
        settle(fs, o, 0); /* no close will follow a truncate(2) */
    open_release(fs, o);
    free(path);
    return err;
}

static int set_times_of(fs_state *fs, fs_node *n, const struct stat *attr, int to_set)
{
    struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
    if (to_set & FUSE_SET_ATTR_ATIME_NOW)
        ts[0].tv_nsec = UTIME_NOW;
    else if (to_set & FUSE_SET_ATTR_ATIME)
        ts[0] = attr->st_atim;
    if (to_set & FUSE_SET_ATTR_MTIME_NOW)
        ts[1].tv_nsec = UTIME_NOW;
    else if (to_set & FUSE_SET_ATTR_MTIME)
        ts[1] = attr->st_mtim;
    fs_dir_fd *dir;
    char leaf[256];
    int err = n == fs->nodes->root ? -ESTALE : node_leaf(fs, n, &dir, leaf);
    if (err == 0) {
        err = sys_utimensat(dir_fd_number(dir), leaf, ts);
        dir_fd_put(fs, dir);
        return err;
    }
    int fd = node_fd(fs, n, O_RDONLY);
    if (fd < 0)
        return fd;
    err = sys_futimens(fd, ts);
    close(fd);
    return err;
}

static int set_mode_of(fs_state *fs, fs_node *n, mode_t mode)
{
    int fd = node_fd(fs, n, O_PATH);
    if (fd < 0)
        return fd;
    int err = n->type == S_IFLNK ? -EOPNOTSUPP : sys_chmod_fd(fd, mode);
    close(fd);
    return err;
}

static int set_owner_of(fs_state *fs, fs_node *n, uid_t uid, gid_t gid)
{
    fs_dir_fd *dir;
    char leaf[256];
    int err = n == fs->nodes->root ? -ESTALE : node_leaf(fs, n, &dir, leaf);
    if (err == 0) {
        err = sys_fchownat(dir_fd_number(dir), leaf, uid, gid);
        dir_fd_put(fs, dir);
        return err;
    }
    int fd = node_fd(fs, n, O_RDONLY);
    if (fd < 0)
        return fd;
    err = sys_fchown(fd, uid, gid);
    close(fd);
    return err;
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    if (n->kind != NODE_STORE) {
        struct stat st;
        int err = control_setattr(fs, n, to_set, attr->st_size);
        if (!err)
            err = control_stat(fs, n, &st);
        if (err)
            fuse_reply_err(req, -err);
        else
            fuse_reply_attr(req, &st, 0);
        return;
    }
    int err = fs->read_only ? -EROFS : 0;
    if (!err && to_set & FUSE_SET_ATTR_MODE)
        err = set_mode_of(fs, n, attr->st_mode & 07777);
    if (!err && to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
        err = set_owner_of(fs, n, to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1,
                           to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1);
    if (!err && to_set & FUSE_SET_ATTR_SIZE)
        err = set_size_of(req, n, attr->st_size, handle_of(fi));
    if (!err && to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW))
        err = set_times_of(fs, n, attr, to_set);
    struct statx stx;
    if (!err)
        err = node_statx(fs, n, &stx);
    if (err)
        fuse_reply_err(req, -err);
    else
        reply_statx(req, n, &stx);
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    (void)ino;
    struct statvfs sv;
    if (fstatvfs(fs_of(req)->root_fd, &sv) < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_statfs(req, &sv);
}
