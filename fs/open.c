/* SPDX-License-Identifier: Apache-2.0 */
/* open.c - see open.h. */
#include "open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "keeper.h"
#include "loop.h"
#include "node_table.h"
#include "view.h"
#include "view_ahead.h"
#include "wire.h"

/* Idle states kept at most; each is one descriptor and one registration with the kernel. */
#define IDLE_MAX 64

static fs_open idle_list = {.idle_next = &idle_list, .idle_prev = &idle_list}; /* oldest first; under the table's lock */
static size_t idle_count;
static fs_open all_opens = {.all_next = &all_opens, .all_prev = &all_opens}; /* under the table's lock */

int64_t fs_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void unlist(fs_open *o)
{
    if (!o->idle_listed)
        return;
    o->idle_prev->idle_next = o->idle_next;
    o->idle_next->idle_prev = o->idle_prev;
    o->idle_listed = false;
    idle_count--;
}

fs_open *open_acquire(fs_state *fs, fs_node *n)
{
    pthread_mutex_lock(&fs->nodes->lock);
    fs_open *o = n->open;
    if (!o && (o = calloc(1, sizeof *o))) {
        pthread_mutex_init(&o->lock, NULL);
        o->node = n;
        o->rfd = o->wfd = -1;
        n->open = o;
        o->all_prev = all_opens.all_prev;
        o->all_next = &all_opens;
        o->all_prev->all_next = o->all_next->all_prev = o;
        atomic_fetch_add_explicit(&fs->stats.nodes_open, 1, memory_order_relaxed);
    }
    if (o) {
        unlist(o);
        o->users++;
    }
    pthread_mutex_unlock(&fs->nodes->lock);
    return o;
}

fs_open *open_borrow(fs_state *fs, fs_node *n)
{
    pthread_mutex_lock(&fs->nodes->lock);
    fs_open *o = n->open;
    if (o) {
        unlist(o);
        o->users++;
    }
    pthread_mutex_unlock(&fs->nodes->lock);
    return o;
}

bool open_is_written(fs_state *fs, uint64_t st_ino)
{
    fs_open *found[16]; /* one for each generation that is open; more than these are not told apart any more */
    size_t count = 0;
    pthread_mutex_lock(&fs->nodes->lock);
    for (fs_open *o = all_opens.all_next; o != &all_opens && count < 16; o = o->all_next) {
        if (o->node->ino != st_ino)
            continue;
        unlist(o);
        o->users++;
        found[count++] = o;
    }
    pthread_mutex_unlock(&fs->nodes->lock);
    bool written = count == 16;
    for (size_t i = 0; i < count; i++) {
        open_lock(fs, found[i]);
        written |= found[i]->writers > 0;
        pthread_mutex_unlock(&found[i]->lock);
        open_release(fs, found[i]);
    }
    return written;
}

fs_open *open_detach_if_idle(fs_state *fs, fs_node *n)
{
    fs_open *o = n->open;
    if (!o || o->users)
        return NULL;
    unlist(o);
    o->all_prev->all_next = o->all_next;
    o->all_next->all_prev = o->all_prev;
    n->open = NULL;
    atomic_fetch_sub_explicit(&fs->stats.nodes_open, 1, memory_order_relaxed);
    return o;
}

void open_dispose(fs_state *fs, fs_open *o)
{
    if (o->map)
        munmap(o->map, o->map_bytes);
    while (o->retired) {
        struct fs_map *m = o->retired;
        o->retired = m->next;
        munmap(m->at, m->bytes);
        free(m);
    }
    if (o->backing_id)
        wire_backing_close(fs, o->backing_id);
    view_return(o->view);
    if (o->rfd >= 0)
        close(o->rfd);
    if (o->wfd >= 0)
        close(o->wfd);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

void open_free_all(fs_state *fs)
{
    while (all_opens.all_next != &all_opens) {
        fs_open *o = all_opens.all_next;
        o->users = 0;
        open_detach_if_idle(fs, o->node);
        while (o->handles) {
            fs_handle *h = o->handles;
            o->handles = h->next;
            view_ahead_forget(fs, h);
            free(h);
        }
        open_dispose(fs, o);
    }
}

void open_release(fs_state *fs, fs_open *o)
{
    fs_open *gone = NULL;
    fs_node *n = o->node;
    pthread_mutex_lock(&fs->nodes->lock);
    if (--o->users == 0) {
        bool keep = o->rfd >= 0 && n->lookups && n->names && !n->dead && !o->swapped;
        if (keep) {
            o->idle_since_ms = fs_now_ms();
            o->idle_prev = idle_list.idle_prev;
            o->idle_next = &idle_list;
            idle_list.idle_prev->idle_next = o;
            idle_list.idle_prev = o;
            o->idle_listed = true;
            if (++idle_count > IDLE_MAX)
                gone = open_detach_if_idle(fs, idle_list.idle_next->node);
        } else {
            gone = open_detach_if_idle(fs, n);
            node_release_if_unused(fs, n); /* the kernel may have forgotten it while this was at work */
        }
    }
    pthread_mutex_unlock(&fs->nodes->lock);
    if (gone)
        open_dispose(fs, gone);
    else
        keeper_wake(fs);
}

void open_drop_idle(fs_state *fs, fs_node *n)
{
    pthread_mutex_lock(&fs->nodes->lock);
    fs_open *o = open_detach_if_idle(fs, n);
    pthread_mutex_unlock(&fs->nodes->lock);
    if (o)
        open_dispose(fs, o);
}

size_t open_drop_idle_older(fs_state *fs, int64_t min_ms)
{
    int64_t now = fs_now_ms();
    for (;;) {
        pthread_mutex_lock(&fs->nodes->lock);
        fs_open *o = idle_list.idle_next;
        size_t left = idle_count;
        if (o == &idle_list || now - o->idle_since_ms < min_ms) {
            pthread_mutex_unlock(&fs->nodes->lock);
            return left;
        }
        o = open_detach_if_idle(fs, o->node);
        pthread_mutex_unlock(&fs->nodes->lock);
        if (o)
            open_dispose(fs, o);
    }
}

int open_writable(fs_open *o, bool *close_it)
{
    *close_it = false;
    if (o->wfd >= 0)
        return o->wfd;
    char path[48];
    snprintf(path, sizeof path, "/proc/self/fd/%d", o->rfd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    *close_it = true;
    return fd;
}

void open_lock(fs_state *fs, fs_open *o)
{
    if (pthread_mutex_trylock(&o->lock) == 0)
        return;
    loop_yield(fs);
    pthread_mutex_lock(&o->lock);
}

void open_retire_map(fs_open *o)
{
    struct fs_map *m = malloc(sizeof *m);
    if (!m)
        return; /* leaked address space, no memory */
    *m = (struct fs_map){.at = o->map, .bytes = o->map_bytes, .next = o->retired};
    o->retired = m;
}
