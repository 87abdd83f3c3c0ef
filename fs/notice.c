/* SPDX-License-Identifier: Apache-2.0 */
/* notice.c - see notice.h. */
#include "notice.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "node_table.h"
#include "ops.h"
#include "view.h"

struct notice {
    fs_node *node;        /* pinned */
    size_t bytes;
    bool newer;           /* only if the kernel does not know of this state yet */
    uint64_t size;
    int64_t mtime_ns;
    struct notice *next;
};

struct fs_notices {
    pthread_t thread;
    pthread_mutex_t lock; /* protects all below */
    pthread_cond_t cond;
    struct notice *first, **last;
    bool stop, running;
};

static void queue(fs_state *fs, struct notice what)
{
    struct fs_notices *q = fs->notices;
    struct notice *item = malloc(sizeof *item);
    if (!item)
        return; /* the attribute timeout will do */
    node_pin(fs, what.node);
    *item = what;
    pthread_mutex_lock(&q->lock);
    *q->last = item;
    q->last = &item->next;
    pthread_cond_signal(&q->cond);
    pthread_mutex_unlock(&q->lock);
}

void notice_attributes(fs_state *fs, fs_node *n, size_t bytes)
{
    queue(fs, (struct notice){.node = n, .bytes = bytes});
}

/* While the kernel is being told, it drops the answers of requests under way, and a program that goes by such an answer
 * meets the old size: so it is told once of each state, and not at all when it has asked meanwhile. */
void notice_newer(fs_state *fs, fs_node *n, const struct statx *stx)
{
    queue(fs, (struct notice){.node = n, .newer = true, .size = stx->stx_size, .mtime_ns = statx_ns(&stx->stx_mtime)});
}

void notice_if_outdated(fs_state *fs, fs_node *n, const struct statx *stx)
{
    if (node_shows(fs, n, stx))
        return;
    (void)node_knows(fs, n, stx->stx_size, statx_ns(&stx->stx_mtime));
    fuse_lowlevel_notify_inval_inode(fs->session, node_id(fs, n), -1, 0);
    atomic_fetch_add_explicit(&fs->stats.invalidations, 1, memory_order_relaxed);
}

void notice_entry_now(fs_state *fs, fs_node *parent, const char *name)
{
    fs->names_moved++;
    fuse_lowlevel_notify_inval_entry(fs->session, node_id(fs, parent), name, strlen(name));
    atomic_fetch_add_explicit(&fs->stats.invalidations, 1, memory_order_relaxed);
}

void notice_array_changed(fs_state *fs, fs_node *dir, const char *leaf)
{
    fs_node *n = node_find(fs, dir, leaf);
    if (!n)
        return; /* the kernel does not know it */
    notice_attributes(fs, n, NOTICE_ALL_BYTES);
    fs_dir_fd *at;
    struct statx stx;
    if (dir_fd_get(fs, dir, &at) == 0) {
        if (store_statx(fs, dir_fd_number(at), leaf, &stx) != 0 || stx.stx_ino != n->ino ||
            view_look(fs, dir, dir_fd_number(at), leaf, &stx) != n->generation) {
            open_drop_idle(fs, n);
            notice_entry_now(fs, dir, leaf);
        }
        dir_fd_put(fs, at);
    }
    node_unpin(fs, n);
}

void notice_path_changed(fs_state *fs, const char *path)
{
    const char *slash = strrchr(path, '/');
    fs_node *dir = fs->nodes->root;
    if (slash) {
        char *work = strndup(path, (size_t)(slash - path)), *rest = work, *part;
        node_pin(fs, dir);
        while (dir && (part = strsep(&rest, "/"))) {
            fs_node *below = node_find(fs, dir, part);
            node_unpin(fs, dir);
            dir = below;
        }
        free(work);
    } else {
        node_pin(fs, dir);
    }
    if (dir) {
        notice_array_changed(fs, dir, slash ? slash + 1 : path);
        node_unpin(fs, dir);
    }
}

static void *notice_thread(void *arg)
{
    fs_state *fs = arg;
    struct fs_notices *q = fs->notices;
    for (;;) {
        pthread_mutex_lock(&q->lock);
        while (!q->first && !q->stop)
            pthread_cond_wait(&q->cond, &q->lock);
        struct notice *item = q->first;
        if (!item) {
            pthread_mutex_unlock(&q->lock);
            return NULL;
        }
        q->first = item->next;
        if (!q->first)
            q->last = &q->first;
        bool quiet = q->stop;
        pthread_mutex_unlock(&q->lock);
        if (!quiet && (!item->newer || !node_knows(fs, item->node, item->size, item->mtime_ns))) {
            fuse_ino_t id = node_id(fs, item->node);
            /* A negative offset invalidates attributes alone; a length of 0 would mean "to the end". */
            off_t length = item->bytes == NOTICE_ALL_BYTES ? 0 : (off_t)item->bytes;
            fuse_lowlevel_notify_inval_inode(fs->session, id, item->bytes ? 0 : -1, length);
            atomic_fetch_add_explicit(&fs->stats.invalidations, 1, memory_order_relaxed);
        }
        node_unpin(fs, item->node);
        free(item);
    }
}

int notices_start(fs_state *fs)
{
    struct fs_notices *q = calloc(1, sizeof *q);
    if (!q)
        return -ENOMEM;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->cond, NULL);
    q->last = &q->first;
    fs->notices = q;
    int err = -pthread_create(&q->thread, NULL, notice_thread, fs);
    q->running = err == 0;
    return err;
}

void notices_stop(fs_state *fs)
{
    struct fs_notices *q = fs->notices;
    if (!q)
        return;
    if (q->running) {
        pthread_mutex_lock(&q->lock);
        q->stop = true;
        pthread_cond_signal(&q->cond);
        pthread_mutex_unlock(&q->lock);
        pthread_join(q->thread, NULL);
    }
    free(q);
    fs->notices = NULL;
}
