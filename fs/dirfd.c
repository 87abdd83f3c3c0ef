/* SPDX-License-Identifier: Apache-2.0 */
/* dirfd.c - see dirfd.h. */
#include "dirfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node_table.h"

/* openat2 takes paths up to PATH_MAX; deeper directories are reached in pieces of at most this many bytes. */
#define PIECE_BYTES 3500

void dir_fds_init(fs_dir_fds *d)
{
    memset(d, 0, sizeof *d);
}

static void unuse(struct fs_dir_fd *d)
{
    if (--d->users == 0) {
        close(d->fd);
        free(d);
    }
}

void dir_fds_forget(fs_dir_fds *all, fs_node *n)
{
    struct fs_dir_fd *d = n->dir_fd;
    if (!d)
        return;
    n->dir_fd = NULL;
    d->node = NULL;
    for (size_t i = 0; i < DIR_FDS_KEPT; i++)
        if (all->kept[i] == d)
            all->kept[i] = NULL;
    unuse(d);
}

void dir_fds_clear(fs_dir_fds *all)
{
    for (size_t i = 0; i < DIR_FDS_KEPT; i++)
        if (all->kept[i])
            dir_fds_forget(all, all->kept[i]->node);
}

static int open_relative(int at, const char *path, npk_store *store)
{
    if (at < 0)
        return npk_open_beneath(store, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    npk_store *below;
    int err = npk_store_open_fd(at, NPK_READ_ONLY | NPK_NO_REDIRECT, &below);
    if (err)
        return err;
    int fd = npk_open_beneath(below, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    npk_store_close(&below);
    return fd;
}

/* Open a directory by its path from the root, in pieces when it is too long for one call. Changes `path`. */
static int open_path(fs_state *fs, char *path)
{
    int at = -1;
    for (;;) {
        size_t len = strlen(path);
        char *cut = NULL;
        if (len > PIECE_BYTES) {
            cut = path + PIECE_BYTES;
            while (cut > path && *cut != '/')
                cut--;
            *cut = '\0';
        }
        int fd = open_relative(at, path, fs->store);
        if (at >= 0)
            close(at);
        if (fd < 0 || !cut)
            return fd;
        at = fd;
        path = cut + 1;
    }
}

static int open_dir(fs_state *fs, fs_node *dir)
{
    char *path = node_path(fs, dir);
    if (!path)
        return -ESTALE;
    int fd = open_path(fs, path);
    free(path);
    if (fd < 0)
        return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP ? -ESTALE : fd;
    struct statx stx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &stx) < 0 || stx.stx_ino != dir->ino) {
        close(fd);
        return -ESTALE;
    }
    return fd;
}

/* The lock is held: keep `d` for the node, in place of the one unused for longest. */
static void keep(fs_dir_fds *all, fs_node *n, struct fs_dir_fd *d)
{
    size_t victim = 0;
    for (size_t i = 0; i < DIR_FDS_KEPT; i++) {
        if (!all->kept[i]) {
            victim = i;
            break;
        }
        if (all->kept[i]->used < all->kept[victim]->used)
            victim = i;
    }
    if (all->kept[victim])
        dir_fds_forget(all, all->kept[victim]->node);
    all->kept[victim] = d;
    d->node = n;
    d->users++;
    n->dir_fd = d;
}

void dir_fd_adopt(fs_state *fs, fs_node *n, int fd)
{
    struct fs_dir_fd *d = malloc(sizeof *d);
    if (!d) {
        close(fd);
        return;
    }
    pthread_mutex_lock(&fs->nodes->lock);
    *d = (struct fs_dir_fd){.fd = fd, .used = ++fs->nodes->dirs.clock};
    if (!n->dir_fd)
        keep(&fs->nodes->dirs, n, d);
    bool kept = d->users > 0;
    pthread_mutex_unlock(&fs->nodes->lock);
    if (!kept) {
        close(fd);
        free(d);
    }
}

fs_dir_fd *dir_fd_kept(fs_state *fs, fs_node *n)
{
    pthread_mutex_lock(&fs->nodes->lock);
    struct fs_dir_fd *d = n->dir_fd;
    if (d)
        d->users++;
    pthread_mutex_unlock(&fs->nodes->lock);
    return d;
}

int dir_fd_get(fs_state *fs, fs_node *dir, fs_dir_fd **out)
{
    struct fs_nodes *t = fs->nodes;
    pthread_mutex_lock(&t->lock);
    if (dir->dir_fd) {
        dir->dir_fd->users++;
        dir->dir_fd->used = ++t->dirs.clock;
        *out = dir->dir_fd;
        pthread_mutex_unlock(&t->lock);
        return 0;
    }
    pthread_mutex_unlock(&t->lock);

    int fd = dir == t->root ? fcntl(fs->root_fd, F_DUPFD_CLOEXEC, 3) : open_dir(fs, dir);
    if (fd < 0)
        return dir == t->root ? -errno : fd;
    struct fs_dir_fd *d = malloc(sizeof *d);
    if (!d) {
        close(fd);
        return -ENOMEM;
    }
    pthread_mutex_lock(&t->lock);
    *d = (struct fs_dir_fd){.fd = fd, .users = 1, .used = ++t->dirs.clock};
    if (!dir->dir_fd)
        keep(&t->dirs, dir, d);
    pthread_mutex_unlock(&t->lock);
    *out = d;
    return 0;
}

int dir_fd_number(const fs_dir_fd *d)
{
    return d->fd;
}

void dir_fd_put(fs_state *fs, fs_dir_fd *d)
{
    pthread_mutex_lock(&fs->nodes->lock);
    bool last = --d->users == 0;
    pthread_mutex_unlock(&fs->nodes->lock);
    if (last) { /* outside the lock: it may be the last hold on a large file, whose blocks go now */
        close(d->fd);
        free(d);
    }
}
