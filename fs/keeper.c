/* SPDX-License-Identifier: Apache-2.0 */
/* keeper.c - see keeper.h. */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node_table.h"
#include "notice.h"
#include "open.h"
#include "save.h"
#include "sys.h"

#define IDLE_MS 1500           /* a closed file is let go after this */
#define QUIET_MS 3000          /* an array counts as no longer written after this */
#define TRIM_NODES 4096        /* nodes freed before memory is given back */

struct session {
    fs_node *node;             /* pinned */
    int64_t since_ms;          /* began, or was last found busy */
    struct session *next;
};

struct fs_keeper {
    pthread_t thread;
    pthread_mutex_t lock;      /* protects all below */
    pthread_cond_t cond;
    bool stop, awake, running;
    struct session *sessions;
    uint64_t trimmed;          /* nodes freed at the last trim; the thread's own, as is the next */
    unsigned looks;            /* at a few freed nodes since then */
};

void keeper_wake(fs_state *fs)
{
    struct fs_keeper *k = fs->keeper;
    if (!k)
        return;
    pthread_mutex_lock(&k->lock);
    if (!k->awake) {
        k->awake = true;
        pthread_cond_signal(&k->cond);
    }
    pthread_mutex_unlock(&k->lock);
}

void keeper_watch_session(fs_state *fs, fs_node *n)
{
    struct fs_keeper *k = fs->keeper;
    struct session *s = malloc(sizeof *s);
    if (!s)
        return; /* the entry stays until another session ends it */
    node_pin(fs, n);
    *s = (struct session){.node = n, .since_ms = fs_now_ms()};
    pthread_mutex_lock(&k->lock);
    s->next = k->sessions;
    k->sessions = s;
    pthread_mutex_unlock(&k->lock);
    keeper_wake(fs);
}

/* End one session if nobody writes the array. True: it is over (or cannot be followed any more). */
static bool end_session(fs_state *fs, fs_node *n)
{
    char *path = node_path(fs, n);
    fs_open *o = open_acquire(fs, n);
    if (!path || !o) {
        free(path);
        if (o)
            open_release(fs, o);
        return true; /* it lost its name: the entry is of no file any more */
    }
    /* The bulk goes to disk while opens still go on; what is left for the locked part is little. */
    int early = o->node->session ? npk_open_beneath(fs->store, path, O_RDONLY | O_CLOEXEC, 0) : -1;
    if (early >= 0) {
        sys_fsync(early, 1);
        close(early);
    }
    pthread_mutex_lock(&o->lock);
    bool over = !o->node->session;
    if (o->node->session && o->writers == 0) {
        int fd = o->rfd >= 0 ? o->rfd : npk_open_beneath(fs->store, path, O_RDONLY | O_CLOEXEC, 0);
        int err = fd < 0 ? fd : npk_session_end(fs->store, path, fd);
        over = err == 0 || err == -ENOENT || err == -ESTALE;
        if (over)
            o->node->session = false;
        if (fd >= 0 && fd != o->rfd)
            close(fd);
    }
    pthread_mutex_unlock(&o->lock);
    open_release(fs, o);
    free(path);
    return over;
}

static size_t end_sessions(fs_state *fs, int64_t quiet_ms)
{
    struct fs_keeper *k = fs->keeper;
    pthread_mutex_lock(&k->lock);
    struct session *list = k->sessions;
    k->sessions = NULL;
    pthread_mutex_unlock(&k->lock);
    size_t left = 0;
    while (list) {
        struct session *s = list;
        list = s->next;
        bool due = fs_now_ms() - s->since_ms >= quiet_ms;
        if (due && end_session(fs, s->node)) {
            node_unpin(fs, s->node);
            free(s);
            continue;
        }
        if (due)
            s->since_ms = fs_now_ms();
        left++;
        pthread_mutex_lock(&k->lock);
        s->next = k->sessions;
        k->sessions = s;
        pthread_mutex_unlock(&k->lock);
    }
    return left;
}

/* After many nodes were freed, and once more a look later: a last few that lie scattered would keep all of it. True: look
 * again. */
static bool give_memory_back(fs_state *fs)
{
    struct fs_keeper *k = fs->keeper;
    pthread_mutex_lock(&fs->nodes->lock);
    uint64_t freed = fs->nodes->freed;
    pthread_mutex_unlock(&fs->nodes->lock);
    if (freed == k->trimmed)
        return false;
    if (freed - k->trimmed < TRIM_NODES && ++k->looks < 2)
        return true;
    k->looks = 0;
    k->trimmed = freed;
    nodes_shrink(fs);
    malloc_trim(0);
    return false;
}

static void *keeper_thread(void *arg)
{
    fs_state *fs = arg;
    struct fs_keeper *k = fs->keeper;
    size_t busy = 0;
    for (;;) {
        pthread_mutex_lock(&k->lock);
        while (!k->stop && !k->awake && !busy)
            pthread_cond_wait(&k->cond, &k->lock);
        bool stop = k->stop;
        k->awake = false;
        if (!stop) { /* one look a second is enough, however often it is woken */
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_sec++;
            while (!k->stop && pthread_cond_timedwait(&k->cond, &k->lock, &until) != ETIMEDOUT)
                continue;
            stop = k->stop;
        }
        pthread_mutex_unlock(&k->lock);
        if (stop)
            return NULL;
        busy = end_sessions(fs, QUIET_MS);
        busy += npk_sessions_end_ahead(fs->store, QUIET_MS);
        busy += open_drop_idle_older(fs, IDLE_MS);
        busy += saves_expire(fs);
        busy += give_memory_back(fs);
    }
}

int keeper_start(fs_state *fs)
{
    struct fs_keeper *k = calloc(1, sizeof *k);
    if (!k)
        return -ENOMEM;
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->cond, NULL);
    fs->keeper = k;
    int err = -pthread_create(&k->thread, NULL, keeper_thread, fs);
    k->running = err == 0;
    return err;
}

void keeper_stop(fs_state *fs)
{
    struct fs_keeper *k = fs->keeper;
    if (!k)
        return;
    if (k->running) {
        pthread_mutex_lock(&k->lock);
        k->stop = true;
        pthread_cond_signal(&k->cond);
        pthread_mutex_unlock(&k->lock);
        pthread_join(k->thread, NULL);
    }
    open_drop_idle_older(fs, 0);
    end_sessions(fs, 0);
    npk_sessions_end_ahead(fs->store, 0);
    open_drop_idle_older(fs, 0);
    while (k->sessions) {
        struct session *s = k->sessions;
        k->sessions = s->next;
        node_unpin(fs, s->node);
        free(s);
    }
    fs->keeper = NULL;
    free(k);
}
