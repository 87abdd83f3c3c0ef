/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch.c - see watch.h. One inotify descriptor, one thread. A directory is watched once one of its names was given to the
 * kernel, up to WATCH_MAX of them. An event about a name that the kernel does not know is nothing to tell; one about a
 * file that is open here, or that looks as the kernel was told, is our own.
 */
#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "node_table.h"
#include "notice.h"
#include "ops.h"

#define WATCH_MAX 1024 /* directories; the rest are seen at open and by the attribute timeout */
#define BUNCH_MS 5
#define WATCH_EVENTS (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE | IN_ONLYDIR | IN_EXCL_UNLINK)

struct watched {
    int wd;
    uint64_t ino;
    fs_node *node;     /* pinned; NULL: the slot is free */
};

struct fs_watch {
    int fd, stop_fd;
    pthread_t thread;
    pthread_mutex_t lock;               /* protects all below */
    size_t count;
    struct watched dirs[WATCH_MAX];     /* open addressing by ino, half full at most */
    _Atomic uint64_t last_ino;          /* the directory asked for last: listings ask for one again and again */
};

static struct watched *slot_of(struct fs_watch *w, uint64_t ino)
{
    for (size_t i = ino * 0x9e3779b97f4a7c15ull >> 54, n = 0; n < WATCH_MAX; n++, i++) {
        struct watched *d = &w->dirs[i % WATCH_MAX];
        if (!d->node || d->ino == ino)
            return d;
    }
    return NULL;
}

void watch_directory(fs_state *fs, fs_node *dir)
{
    struct fs_watch *w = fs->watch;
    if (!w || atomic_load_explicit(&w->last_ino, memory_order_relaxed) == dir->ino)
        return;
    pthread_mutex_lock(&w->lock);
    struct watched *d = slot_of(w, dir->ino);
    if (d && !d->node && w->count < WATCH_MAX / 2) {
        fs_dir_fd *fd;
        if (dir_fd_get(fs, dir, &fd) == 0) {
            char path[48];
            snprintf(path, sizeof path, "/proc/self/fd/%d", dir_fd_number(fd));
            int wd = inotify_add_watch(w->fd, path, WATCH_EVENTS);
            if (wd >= 0) {
                node_pin(fs, dir);
                *d = (struct watched){.wd = wd, .ino = dir->ino, .node = dir};
                w->count++;
            }
            dir_fd_put(fs, fd);
        }
    }
    pthread_mutex_unlock(&w->lock);
    atomic_store_explicit(&w->last_ino, dir->ino, memory_order_relaxed);
}

/* The directory of an event, pinned for the caller, or NULL. IN_IGNORED ends a watch. */
static fs_node *dir_of_event(fs_state *fs, const struct inotify_event *e)
{
    struct fs_watch *w = fs->watch;
    fs_node *dir = NULL;
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < WATCH_MAX; i++) {
        struct watched *d = &w->dirs[i];
        if (!d->node || d->wd != e->wd)
            continue;
        dir = d->node;
        if (e->mask & IN_IGNORED) {
            d->wd = -1; /* the slot stays taken: emptying it would cut a probe chain; a moved number finds it again */
            dir = NULL;
        } else {
            node_pin(fs, dir);
        }
        break;
    }
    pthread_mutex_unlock(&w->lock);
    return dir;
}

typedef enum verdict { STILL_TRUE, OTHER_ATTRIBUTES, OTHER_FILE } verdict;

/* What the kernel was told of the child under this name: is it still so? */
static verdict look(fs_state *fs, fs_node *dir, const char *name, fs_node *child, uint32_t mask, struct statx *stx)
{
    pthread_mutex_lock(&fs->nodes->lock);
    bool open = child->open != NULL; /* ours: the kernel keeps its attributes itself */
    pthread_mutex_unlock(&fs->nodes->lock);
    fs_dir_fd *fd;
    if (open && mask & IN_CLOSE_WRITE)
        return STILL_TRUE;
    if (dir_fd_get(fs, dir, &fd))
        return OTHER_FILE;
    int err = store_statx(fs, dir_fd_number(fd), name, stx);
    dir_fd_put(fs, fd);
    if (err || stx->stx_ino != child->ino)
        return OTHER_FILE;
    if (open || !(mask & IN_CLOSE_WRITE))
        return STILL_TRUE; /* a name that came leads where the kernel knows it to lead: we made it ourselves */
    return node_shows(fs, child, stx) ? STILL_TRUE : OTHER_ATTRIBUTES;
}

static void handle_event(fs_state *fs, const struct inotify_event *e)
{
    if (!e->len || strcmp(e->name, ".npkfs") == 0)
        return;
    fs_node *dir = dir_of_event(fs, e);
    if (!dir)
        return;
    fs_node *child = node_find(fs, dir, e->name);
    if (child) {
        struct statx stx;
        verdict v = look(fs, dir, e->name, child, e->mask, &stx);
        if (v == OTHER_ATTRIBUTES)
            notice_newer(fs, child, &stx);
        if (v == OTHER_FILE) {
            notice_entry_now(fs, dir, e->name);
            open_drop_idle(fs, child); /* a kept registration would hold the space of a file that is gone */
        }
        node_unpin(fs, child);
    }
    node_unpin(fs, dir);
}

static void *watch_thread(void *arg)
{
    fs_state *fs = arg;
    struct fs_watch *w = fs->watch;
    char buf[16 << 10] __attribute__((aligned(__alignof__(struct inotify_event))));
    struct pollfd fds[2] = {{.fd = w->fd, .events = POLLIN}, {.fd = w->stop_fd, .events = POLLIN}};
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return NULL;
        if (fds[1].revents)
            return NULL;
        ssize_t n = read(w->fd, buf, sizeof buf);
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *e = (const struct inotify_event *)(buf + at);
            handle_event(fs, e);
            at += (ssize_t)(sizeof *e + e->len);
        }
        /* Events of a program that opens and closes in a loop come one by one: take them in bunches. */
        if (poll(fds + 1, 1, BUNCH_MS) > 0)
            return NULL;
    }
}

int watch_start(fs_state *fs)
{
    if (!fs->options->inotify)
        return 0;
    struct fs_watch *w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    w->stop_fd = eventfd(0, EFD_CLOEXEC);
    pthread_mutex_init(&w->lock, NULL);
    fs->watch = w;
    if (w->fd < 0 || w->stop_fd < 0 || pthread_create(&w->thread, NULL, watch_thread, fs) != 0) {
        if (w->fd >= 0)
            close(w->fd);
        if (w->stop_fd >= 0)
            close(w->stop_fd);
        free(w);
        fs->watch = NULL; /* without it changes are seen a little later */
    }
    return 0;
}

void watch_stop(fs_state *fs)
{
    struct fs_watch *w = fs->watch;
    if (!w)
        return;
    uint64_t one = 1;
    (void)!write(w->stop_fd, &one, sizeof one);
    pthread_join(w->thread, NULL);
    close(w->fd);
    close(w->stop_fd);
    fs->watch = NULL;
    free(w);
}
