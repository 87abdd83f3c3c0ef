/* SPDX-License-Identifier: Apache-2.0 */
/* ops_name.c - lookup, and everything that makes, moves and removes names. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "creds.h"
#include "keeper.h"
#include "loop.h"
#include "node_table.h"
#include "ops.h"
#include "save.h"
#include "sys.h"
#include "upper.h"
#include "view.h"
#include "watch.h"

#define COUNT(counter) atomic_fetch_add_explicit(&fs->stats.counter, 1, memory_order_relaxed)

int store_statx(fs_state *fs, int dir, const char *name, struct statx *stx)
{
    int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH);
    if (statx(dir, name, flags, STATX_BASIC_STATS | STATX_BTIME, stx) < 0)
        return -errno;
    if (stx->stx_dev_minor != fs->nodes->dev_minor || stx->stx_dev_major != fs->nodes->dev_major)
        return -EXDEV;
    return 0;
}

static bool is_same_file(const fs_node *n, const struct statx *stx)
{
    return stx->stx_ino == n->ino && (stx->stx_mode & S_IFMT) == n->type && node_birth_ns(stx) == n->birth_ns;
}

int node_leaf(fs_state *fs, fs_node *n, fs_dir_fd **dir, char leaf[256])
{
    struct statx stx;
    for (unsigned left = 8;; left--) {
        fs_node *parent;
        int err = node_place(fs, n, &parent, leaf);
        if (err)
            return err;
        err = dir_fd_get(fs, parent, dir);
        node_unpin(fs, parent);
        /* Of several names some may have gone behind the mount, and the kernel may still hold one that has not. */
        if (left == 0 || !node_has_names(fs, n) ||
            (!err && store_statx(fs, dir_fd_number(*dir), leaf, &stx) == 0 && is_same_file(n, &stx)))
            return err;
        if (!err)
            dir_fd_put(fs, *dir);
        node_turn_names(fs, n);
    }
}

static int file_statx(fs_state *fs, fs_node *n, struct statx *stx)
{
    fs_open *o = n->type == S_IFREG ? open_borrow(fs, n) : NULL;
    if (o) {
        int fd = o->rfd >= 0 ? o->rfd : o->wfd;
        int err = fd >= 0 ? store_statx(fs, fd, "", stx) : -EBADF;
        open_release(fs, o);
        if (!err)
            return 0;
    }
    fs_dir_fd *dir;
    int err;
    if (n->type == S_IFDIR) {
        err = dir_fd_get(fs, n, &dir);
        if (!err) {
            err = store_statx(fs, dir_fd_number(dir), "", stx);
            dir_fd_put(fs, dir);
        }
        return err;
    }
    char leaf[256];
    err = node_leaf(fs, n, &dir, leaf);
    if (err == -ESTALE && (dir = dir_fd_kept(fs, n))) {
        err = store_statx(fs, dir_fd_number(dir), "", stx); /* unlinked, and held by an O_PATH descriptor */
        dir_fd_put(fs, dir);
        return err;
    }
    if (err)
        return err;
    err = store_statx(fs, dir_fd_number(dir), leaf, stx);
    dir_fd_put(fs, dir);
    if (!err && !is_same_file(n, stx))
        err = -ESTALE;
    if (err == -ESTALE && (dir = dir_fd_kept(fs, n))) { /* another file is about to have its name here, too */
        err = store_statx(fs, dir_fd_number(dir), "", stx);
        dir_fd_put(fs, dir);
    }
    return err;
}

int node_statx(fs_state *fs, fs_node *n, struct statx *stx)
{
    int err = file_statx(fs, n, stx);
    if (!err)
        view_size(fs, n, stx);
    return err;
}

int node_fd(fs_state *fs, fs_node *n, int flags)
{
    fs_dir_fd *dir;
    int fd;
    if (n->type == S_IFDIR) {
        fd = dir_fd_get(fs, n, &dir);
        if (fd)
            return fd;
        /* Not by ".", which would ask for search permission that the open itself does not take. */
        fd = flags & O_PATH ? fcntl(dir_fd_number(dir), F_DUPFD_CLOEXEC, 3) : sys_reopen(dir_fd_number(dir), flags);
        fd = fd == -1 ? -errno : fd;
        dir_fd_put(fs, dir);
        return fd;
    }
    fs_open *o = open_borrow(fs, n);
    if (o && o->rfd >= 0) {
        fd = flags & O_PATH ? fcntl(o->rfd, F_DUPFD_CLOEXEC, 3) : sys_reopen(o->rfd, flags & ~O_NOFOLLOW);
        fd = fd == -1 ? -errno : fd;
        open_release(fs, o);
        return fd;
    }
    if (o)
        open_release(fs, o);
    char leaf[256];
    fd = node_leaf(fs, n, &dir, leaf);
    if (fd == -ESTALE && (dir = dir_fd_kept(fs, n))) {
        fd = flags & O_PATH ? fcntl(dir_fd_number(dir), F_DUPFD_CLOEXEC, 3) : sys_reopen(dir_fd_number(dir), flags);
        fd = fd == -1 ? -errno : fd;
        dir_fd_put(fs, dir);
        return fd;
    }
    if (fd)
        return fd;
    fd = openat(dir_fd_number(dir), leaf, flags | O_NOFOLLOW | O_CLOEXEC);
    fd = fd < 0 ? -errno : fd;
    dir_fd_put(fs, dir);
    struct statx stx;
    if (fd >= 0 && (store_statx(fs, fd, "", &stx) || !is_same_file(n, &stx))) {
        close(fd);
        fd = -ESTALE;
        if ((dir = dir_fd_kept(fs, n))) { /* another file is about to have its name here, too */
            fd = flags & O_PATH ? fcntl(dir_fd_number(dir), F_DUPFD_CLOEXEC, 3) : sys_reopen(dir_fd_number(dir), flags);
            fd = fd == -1 ? -errno : fd;
            dir_fd_put(fs, dir);
        }
    }
    return fd;
}

void fill_entry(fs_state *fs, struct fuse_entry_param *e, fs_node *n, const struct statx *stx)
{
    *e = (struct fuse_entry_param){
        .ino = node_id(fs, n),
        .attr_timeout = fs->options->attr_timeout_s,
        .entry_timeout = fs->options->attr_timeout_s,
    };
    stat_from_statx(&e->attr, stx);
}

/* With a node that was bound for it. */
static void reply_bound(fuse_req_t req, fs_node *n, const struct statx *stx)
{
    fs_state *fs = fs_of(req);
    if (!n) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    struct fuse_entry_param e;
    fill_entry(fs, &e, n, stx);
    if (fuse_reply_entry(req, &e) != 0)
        node_forget(fs, n, 1); /* the request was interrupted: the kernel does not know the node */
}

void reply_entry(fuse_req_t req, fs_node *parent, const char *name, const struct statx *stx, uint64_t generation)
{
    reply_bound(req, node_bind(fs_of(req), parent, name, stx, generation), stx);
}

int may_change(fs_state *fs, fs_node *parent, const char *name)
{
    if (parent->kind != NODE_STORE)
        return EPERM;
    if (is_reserved_name(name)) {
        fs_note_failure(fs, "", strcmp(name, ".npk") == 0
                                    ? "\".npk\" is the name of the controls; an entry of the store takes any other name"
                                    : "\".npkfs\" is the name of the sidecar folder; an entry of the store takes any "
                                      "other name");
        return EPERM;
    }
    return fs->read_only ? EROFS : 0;
}

/* A file is about to take a name, perhaps this one: the node that was found must do without it then. -EAGAIN: it has. */
static int hold_found(fs_state *fs, fs_node *parent, const char *name, fs_node *n)
{
    fs_dir_fd *dir;
    struct statx stx;
    int err = dir_fd_get(fs, parent, &dir);
    int fd = err ? err : openat(dir_fd_number(dir), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (!err)
        dir_fd_put(fs, dir);
    err = fd < 0 || store_statx(fs, fd, "", &stx) != 0 || !is_same_file(n, &stx) ? -EAGAIN : 0;
    if (!err && n->type == S_IFREG)
        dir_fd_adopt(fs, n, fd);
    else if (fd >= 0)
        close(fd);
    if (err)
        node_forget(fs, n, 1);
    return err;
}

/* What has the name, and its node, counted for the kernel (NULL: no memory). */
static int look(fs_state *fs, fs_node *parent, const char *name, struct statx *stx, fs_node **n)
{
    fs_dir_fd *dir;
    uint64_t generation = 0;
    int err = dir_fd_get(fs, parent, &dir);
    if (err)
        return err;
    err = store_statx(fs, dir_fd_number(dir), name, stx);
    if (!err)
        generation = view_look(fs, parent, dir_fd_number(dir), name, stx);
    dir_fd_put(fs, dir);
    if (err == -ENOENT)
        node_unname(fs, parent, name);
    if (!err)
        *n = node_bind(fs, parent, name, stx, generation);
    if (!err && *n && fs->names_moving)
        err = hold_found(fs, parent, name, *n);
    return err;
}

void op_lookup(fuse_req_t req, fuse_ino_t parent_id, const char *name)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, parent_id);
    COUNT(lookups);
    if (parent->kind != NODE_STORE || is_control_name(name)) {
        control_lookup(req, parent, name);
        return;
    }
    if (strcmp(name, ".npkfs") == 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    if (fs->saves && save_lookup(req, parent, name))
        return;
    struct statx stx;
    fs_node *n;
    int err;
    for (;;) { /* until no file took a name in between: the name would lead to the one that lost it */
        uint64_t moved = fs->names_moved;
        err = look(fs, parent, name, &stx, &n);
        if (moved == fs->names_moved && err != -EAGAIN)
            break;
        if (!err && n)
            node_forget(fs, n, 1);
    }
    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    if (n)
        node_found(fs, n, fuse_req_ctx(req)->pid);
    watch_directory(fs, parent);
    reply_bound(req, n, &stx);
}

/* A hold on a file without a name is about to go, and with the last one its blocks. For a large file that takes long: the
 * caller keeps the result over it and gives it back by let_blocks_go, so that no lock is held and no request waits. */
#define LONG_TO_FREE (UINT64_C(16) << 20)

fs_dir_fd *hold_blocks(fs_state *fs, fs_node *n)
{
    pthread_mutex_lock(&fs->nodes->lock);
    bool dead = n->dead;
    pthread_mutex_unlock(&fs->nodes->lock);
    fs_dir_fd *kept = dead && S_ISREG(n->type) ? dir_fd_kept(fs, n) : NULL;
    struct statx stx;
    if (kept && store_statx(fs, dir_fd_number(kept), "", &stx) == 0 && stx.stx_size >= LONG_TO_FREE)
        loop_yield(fs);
    return kept;
}

void let_blocks_go(fs_state *fs, fs_dir_fd *kept)
{
    if (kept)
        dir_fd_put(fs, kept);
}

static void forget(fs_state *fs, fs_node *n, uint64_t count)
{
    fs_dir_fd *kept = hold_blocks(fs, n);
    node_forget(fs, n, count);
    let_blocks_go(fs, kept);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    fs_state *fs = fs_of(req);
    forget(fs, node_of(fs, ino), count);
    fuse_reply_none(req);
    keeper_wake(fs);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    fs_state *fs = fs_of(req);
    for (size_t i = 0; i < count; i++)
        forget(fs, node_of(fs, forgets[i].ino), forgets[i].nlookup);
    fuse_reply_none(req);
    keeper_wake(fs);
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    fs_state *fs = fs_of(req);
    char target[PATH_MAX + 1];
    int fd = node_fd(fs, node_of(fs, ino), O_PATH);
    if (fd < 0) {
        fuse_reply_err(req, -fd);
        return;
    }
    ssize_t n = readlinkat(fd, "", target, PATH_MAX);
    int err = errno;
    close(fd);
    if (n < 0) {
        fuse_reply_err(req, err);
        return;
    }
    target[n] = '\0';
    fuse_reply_readlink(req, target);
}

/* After something was made under (parent, name): reply with it, or undo nothing and tell the errno. */
static void reply_made(fuse_req_t req, fs_node *parent, fs_dir_fd *dir, const char *name, int err)
{
    fs_state *fs = fs_of(req);
    struct statx stx;
    if (!err)
        err = store_statx(fs, dir_fd_number(dir), name, &stx);
    if (!err)
        reply_entry(req, parent, name, &stx, 0);
    else
        fuse_reply_err(req, -err);
    dir_fd_put(fs, dir);
}

/* The directory to make `name` in, or a reply was sent. */
static bool begin_change(fuse_req_t req, fs_node *parent, const char *name, fs_dir_fd **dir)
{
    fs_state *fs = fs_of(req);
    int err = may_change(fs, parent, name);
    if (!err)
        err = -dir_fd_get(fs, parent, dir);
    if (err)
        fuse_reply_err(req, err);
    return !err;
}

void op_mknod(fuse_req_t req, fuse_ino_t parent_id, const char *name, mode_t mode, dev_t rdev)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, parent_id);
    fs_dir_fd *dir;
    if (!begin_change(req, parent, name, &dir))
        return;
    fs_creds c = creds_become(req);
    int err = sys_mknodat(dir_fd_number(dir), name, mode, rdev);
    creds_restore(c);
    if (err == -EPERM && c.changed && (S_ISCHR(mode) || S_ISBLK(mode)))
        err = sys_mknodat(dir_fd_number(dir), name, mode, rdev); /* the kernel has checked CAP_MKNOD */
    reply_made(req, parent, dir, name, err);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent_id, const char *name, mode_t mode)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, parent_id);
    fs_dir_fd *dir;
    if (!begin_change(req, parent, name, &dir))
        return;
    fs_creds c = creds_become(req);
    int err = sys_mkdirat(dir_fd_number(dir), name, mode);
    creds_restore(c);
    reply_made(req, parent, dir, name, err);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent_id, const char *name)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, parent_id);
    fs_dir_fd *dir;
    if (!begin_change(req, parent, name, &dir))
        return;
    fs_creds c = creds_become(req);
    int err = sys_symlinkat(target, dir_fd_number(dir), name);
    creds_restore(c);
    reply_made(req, parent, dir, name, err);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent_id, const char *name)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, parent_id), *n = node_of(fs, ino);
    fs_dir_fd *dir, *from;
    char leaf[256];
    if (n->kind != NODE_STORE) {
        fuse_reply_err(req, EPERM);
        return;
    }
    int up = upper_copy_up_node(req, n); /* a placeholder has one name, since its data comes to one */
    if (up) {
        fuse_reply_err(req, -up);
        return;
    }
    if (!begin_change(req, parent, name, &dir))
        return;
    int err = node_leaf(fs, n, &from, leaf);
    if (!err && npk_state_there(dir_fd_number(from), leaf, n->ino)) {
        fs_note_failure(fs, "", "the array has deleted rows or named ones, which a second name would not know; copy it, or "
                                "compact it and remove its names");
        dir_fd_put(fs, from);
        err = -EPERM;
    } else if (!err) {
        err = sys_linkat(dir_fd_number(from), leaf, dir_fd_number(dir), name, 0);
        dir_fd_put(fs, from);
    } else {
        /* No name: a file made by O_TMPFILE, or unlinked; its descriptor can be given a name where it never had one. */
        int fd = node_fd(fs, n, O_RDONLY);
        if (fd >= 0) {
            char path[48];
            snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
            err = sys_linkat(AT_FDCWD, path, dir_fd_number(dir), name, AT_SYMLINK_FOLLOW);
            close(fd);
        } else {
            err = -ENOENT;
        }
    }
    reply_made(req, parent, dir, name, err);
}

/* After a name was taken away: the node that had it, and what the daemon keeps for it. */
void name_lost(fs_state *fs, fs_node *victim)
{
    if (!victim)
        return;
    /* A kept registration would hold the space of a file that nobody can reach (P33). */
    open_drop_idle(fs, victim);
    struct statx stx;
    bool gone = true;
    fs_open *o = open_borrow(fs, victim);
    if (o) {
        int fd = o->rfd >= 0 ? o->rfd : o->wfd;
        gone = fd < 0 || store_statx(fs, fd, "", &stx) != 0 || stx.stx_nlink == 0;
        open_release(fs, o);
    } else if (node_statx(fs, victim, &stx) == 0) {
        gone = stx.stx_nlink == 0;
    }
    if (gone)
        node_mark_dead(fs, victim);
    node_unpin(fs, victim);
}

/* The name is about to go: what programs hold by it (a working directory, an O_PATH descriptor) must go on. */
void name_hold(fs_state *fs, fs_node *victim, int dir, const char *name)
{
    if (!victim)
        return;
    int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0)
        dir_fd_adopt(fs, victim, fd);
}

/* What is known of deleted rows goes with the file when its name is removed, or taken by another file: it speaks of this
 * inode alone from before to after. fd -1: nothing is known. */
typedef struct leaving { char *path; int fd; } leaving;

static char *path_below(fs_state *fs, fs_node *parent, const char *name);

static leaving leave_begin(fs_state *fs, fs_node *parent, int dir, const char *name)
{
    leaving l = {.fd = -1};
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode) || !npk_state_there(dir, name, st.st_ino))
        return l;
    loop_yield(fs);
    l.path = path_below(fs, parent, name);
    l.fd = l.path ? sys_openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0) : -1;
    if (l.fd >= 0)
        npk_sidecar_leave(fs->store, l.path, l.fd);
    return l;
}

static void leave_end(fs_state *fs, leaving *l, bool gone)
{
    if (l->fd >= 0) {
        if (gone)
            npk_sidecar_drop(fs->store, l->path, l->fd);
        close(l->fd);
    }
    free(l->path);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent_id, const char *name)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, parent_id);
    fs_dir_fd *dir;
    COUNT(unlinks);
    if (parent->kind == NODE_FOLDER) {
        folder_unlink(req, parent, name);
        return;
    }
    if (!begin_change(req, parent, name, &dir))
        return;
    fs_node *victim = node_find(fs, parent, name);
    name_hold(fs, victim, dir_fd_number(dir), name);
    leaving l = leave_begin(fs, parent, dir_fd_number(dir), name);
    int err = sys_unlinkat(dir_fd_number(dir), name, 0);
    leave_end(fs, &l, err == 0);
    dir_fd_put(fs, dir);
    if (!err)
        node_unname(fs, parent, name);
    if (!err)
        name_lost(fs, victim);
    else if (victim)
        node_unpin(fs, victim);
    fuse_reply_err(req, -err);
}

static char *path_below(fs_state *fs, fs_node *parent, const char *name)
{
    char *above = node_path(fs, parent), *path = NULL;
    if (above && (path = malloc(strlen(above) + strlen(name) + 2))) {
        strcpy(path, above);
        if (*above)
            strcat(path, "/");
        strcat(path, name);
    }
    free(above);
    return path;
}

/* A directory that shows nothing is empty: its sidecar folder goes with it (P32). 0: it can be removed now. */
static int clear_sidecar(fs_state *fs, fs_node *parent, const char *name)
{
    char *path = path_below(fs, parent, name);
    int err = path ? npk_dir_clear(fs->store, path) : -ENOMEM;
    free(path);
    return err;
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent_id, const char *name)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, parent_id);
    fs_dir_fd *dir;
    if (!begin_change(req, parent, name, &dir))
        return;
    fs_node *victim = node_find(fs, parent, name);
    name_hold(fs, victim, dir_fd_number(dir), name);
    int err = sys_unlinkat(dir_fd_number(dir), name, AT_REMOVEDIR);
    if (err == -ENOTEMPTY) {
        loop_yield(fs);
        if (clear_sidecar(fs, parent, name) == 0)
            err = sys_unlinkat(dir_fd_number(dir), name, AT_REMOVEDIR);
    }
    dir_fd_put(fs, dir);
    if (!err) {
        node_unname(fs, parent, name);
        name_lost(fs, victim);
    } else if (victim) {
        node_unpin(fs, victim);
    }
    fuse_reply_err(req, -err);
}

/* A rename as the sidecars see it: the state of what is moved follows it, that of what is covered goes (PROTOCOLS P26).
 * Where two names of a directory are exchanged the states stay, and are found by the inodes. */
typedef struct moving { leaving covered; char *from, *to; int fd; } moving;

static int move_begin(fs_state *fs, fs_node *parent, int dir, const char *name, fs_node *to, int to_dir,
                      const char *new_name, unsigned flags, moving *out)
{
    *out = (moving){.covered = {.fd = -1}, .fd = -1};
    struct stat st;
    if (!(flags & (1 /* RENAME_NOREPLACE */ | 2)))
        out->covered = leave_begin(fs, to, to_dir, new_name);
    if ((parent == to && (flags & 2 || strcmp(name, new_name) == 0)) ||
        fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
        return 0;
    struct stat other;
    bool beyond = flags & 2 && fstatat(to_dir, new_name, &other, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(other.st_mode) &&
                  npk_state_there(to_dir, new_name, other.st_ino);
    if (!npk_state_there(dir, name, st.st_ino) && !beyond)
        return 0;
    if (flags & 2)
        return -EXDEV; /* two states would have to change places; mv and rsync know what to do */
    loop_yield(fs);
    out->from = path_below(fs, parent, name);
    out->to = path_below(fs, to, new_name);
    out->fd = out->from && out->to ? sys_openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0) : -ENOMEM;
    int err = out->fd < 0 ? out->fd : npk_sidecar_copy(fs->store, out->from, out->to, out->fd);
    if (err)
        fs_note_failure(fs, out->from ? out->from : "", npk_error());
    return err;
}

static void move_end(fs_state *fs, moving *m, bool done)
{
    leave_end(fs, &m->covered, done);
    if (m->fd >= 0) {
        npk_sidecar_drop(fs->store, done ? m->from : m->to, m->fd);
        close(m->fd);
    }
    free(m->from);
    free(m->to);
}

void op_rename(fuse_req_t req, fuse_ino_t parent_id, const char *name, fuse_ino_t to_id, const char *new_name,
               unsigned flags)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, parent_id), *to = node_of(fs, to_id);
    fs_dir_fd *from_dir, *to_dir;
    COUNT(renames);
    int err = may_change(fs, parent, name);
    if (!err)
        err = may_change(fs, to, new_name);
    if (!err)
        err = -dir_fd_get(fs, parent, &from_dir);
    if (err) {
        fuse_reply_err(req, err);
        return;
    }
    err = dir_fd_get(fs, to, &to_dir);
    if (!err) {
        bool exchange = flags & 2 /* RENAME_EXCHANGE */;
        fs_node *victim = exchange ? NULL : node_find(fs, to, new_name);
        name_hold(fs, victim, dir_fd_number(to_dir), new_name);
        moving m;
        err = move_begin(fs, parent, dir_fd_number(from_dir), name, to, dir_fd_number(to_dir), new_name, flags, &m);
        if (!err)
            err = sys_renameat2(dir_fd_number(from_dir), name, dir_fd_number(to_dir), new_name, flags);
        if (err == -ENOTEMPTY && !exchange) {
            loop_yield(fs);
            if (clear_sidecar(fs, to, new_name) == 0)
                err = sys_renameat2(dir_fd_number(from_dir), name, dir_fd_number(to_dir), new_name, flags);
        }
        move_end(fs, &m, err == 0);
        bool moved = false;
        if (!err) {
            struct statx stx; /* renaming one hard link over another changes nothing */
            fs_node *old = node_find(fs, parent, name);
            moved = exchange || store_statx(fs, dir_fd_number(from_dir), name, &stx) == -ENOENT || old == NULL;
            if (old)
                node_unpin(fs, old);
        }
        if (moved)
            node_rename(fs, parent, name, to, new_name, exchange);
        if (victim && moved)
            name_lost(fs, victim);
        else if (victim)
            node_unpin(fs, victim);
        dir_fd_put(fs, to_dir);
    }
    dir_fd_put(fs, from_dir);
    fuse_reply_err(req, -err);
}
