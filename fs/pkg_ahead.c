/* SPDX-License-Identifier: Apache-2.0 */
/* pkg_ahead.c - threads that decode frames ahead of who reads them in sequence. See pkg.h. */
#define _GNU_SOURCE 1 /* SCHED_BATCH */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "pkg.h"

#define JOBS        64 /* a power of two; when more are asked for, the oldest are forgotten */
#define MAX_THREADS 16

typedef struct job {
    uint64_t entry, offset;
} job;

struct pkg_ahead {
    pthread_mutex_t lock; /* protects all below */
    pthread_cond_t asked;
    job jobs[JOBS]; /* a ring */
    uint64_t first, next;
    bool stop;
    pthread_t threads[MAX_THREADS];
    unsigned thread_count;
};

static void *ahead_thread(void *arg)
{
    fs_state *fs = arg;
    struct pkg_ahead *a = fs->pkg->ahead;
    /* Such a thread, when it is woken, does not take the processor from the one that woke it, nor from readers. */
    const struct sched_param none = {0};
    (void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
    pthread_mutex_lock(&a->lock);
    for (;;) {
        while (!a->stop && a->first == a->next)
            pthread_cond_wait(&a->asked, &a->lock);
        if (a->stop)
            break;
        job j = a->jobs[a->first++ % JOBS];
        pthread_mutex_unlock(&a->lock);
        npk_package_file *f = NULL;
        /* Whoever reads a damaged frame will hear of it. */
        if (npk_package_file_open(fs->pkg->package, j.entry, &f) == 0)
            (void)npk_package_file_prefetch(f, j.offset);
        npk_package_file_close(&f);
        pthread_mutex_lock(&a->lock);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

int pkg_ahead_start(fs_state *fs)
{
    struct pkg_ahead *a = calloc(1, sizeof *a);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (!a)
        return -ENOMEM;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->asked, NULL);
    fs->pkg->ahead = a;
    while (a->thread_count < MAX_THREADS && (long)a->thread_count < cores &&
           pthread_create(&a->threads[a->thread_count], NULL, ahead_thread, fs) == 0)
        a->thread_count++;
    return 0; /* without a thread nothing is decoded ahead, and everything works */
}

void pkg_ahead_stop(fs_state *fs)
{
    struct pkg_ahead *a = fs->pkg ? fs->pkg->ahead : NULL;
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_broadcast(&a->asked);
    pthread_mutex_unlock(&a->lock);
    for (unsigned i = 0; i < a->thread_count; i++)
        pthread_join(a->threads[i], NULL);
    pthread_cond_destroy(&a->asked);
    pthread_mutex_destroy(&a->lock);
    free(a);
    fs->pkg->ahead = NULL;
}

void pkg_ahead_ask(fs_state *fs, uint64_t entry, uint64_t frame_bytes, uint64_t offset, uint64_t bytes)
{
    struct pkg_ahead *a = fs->pkg->ahead;
    if (a->thread_count == 0 || frame_bytes == 0)
        return;
    pthread_mutex_lock(&a->lock);
    for (uint64_t at = offset; at < offset + bytes; at += frame_bytes) {
        a->jobs[a->next++ % JOBS] = (job){entry, at};
        if (a->next - a->first > JOBS)
            a->first = a->next - JOBS;
    }
    if (bytes > frame_bytes)
        pthread_cond_broadcast(&a->asked);
    else
        pthread_cond_signal(&a->asked);
    pthread_mutex_unlock(&a->lock);
}
