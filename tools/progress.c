/* SPDX-License-Identifier: Apache-2.0 */
/* progress.c - see progress.h. A thread draws, so that one long call into the engine can be watched as well. */
#include "progress.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "output.h"

#define BAR_COLUMNS 30

struct cli_progress {
    const char *what;
    uint64_t total;
    int watch_fd;
    off_t watch_begin;
    _Atomic uint64_t done;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool end; /* protected by mutex */
};

static uint64_t done_bytes(cli_progress *p)
{
    struct stat st;
    if (p->watch_fd >= 0 && fstat(p->watch_fd, &st) == 0 && st.st_size > p->watch_begin)
        return (uint64_t)(st.st_size - p->watch_begin);
    return atomic_load(&p->done);
}

static void draw(cli_progress *p, double seconds)
{
    uint64_t done = done_bytes(p);
    char amount[32], speed[32];
    cli_format_bytes(done, amount, sizeof amount);
    cli_format_bytes((uint64_t)((double)done / seconds), speed, sizeof speed);
    if (p->total == 0) {
        fprintf(stderr, "\r\033[K%s %s, %s/s", p->what, amount, speed);
        return;
    }
    double part = done >= p->total ? 1 : (double)done / (double)p->total;
    char bar[BAR_COLUMNS + 1];
    for (int i = 0; i < BAR_COLUMNS; i++)
        bar[i] = i < (int)(part * BAR_COLUMNS) ? '#' : '.';
    bar[BAR_COLUMNS] = '\0';
    fprintf(stderr, "\r\033[K%s [%s] %3d%% %s, %s/s", p->what, bar, (int)(part * 100), amount, speed);
}

static void *run(void *arg)
{
    cli_progress *p = arg;
    struct timespec begin, next;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    next = begin;
    next.tv_sec++;
    bool drawn = false;
    pthread_mutex_lock(&p->mutex);
    while (!p->end) {
        if (pthread_cond_timedwait(&p->ended, &p->mutex, &next) == 0 || p->end)
            continue;
        draw(p, (double)(next.tv_sec - begin.tv_sec) + (double)(next.tv_nsec - begin.tv_nsec) / 1e9);
        drawn = true;
        next.tv_nsec += 200 * 1000000;
        if (next.tv_nsec >= 1000000000) {
            next.tv_nsec -= 1000000000;
            next.tv_sec++;
        }
    }
    pthread_mutex_unlock(&p->mutex);
    if (drawn)
        fprintf(stderr, "\r\033[K");
    return NULL;
}

cli_progress *cli_progress_start(const char *what, uint64_t total, int watch_fd)
{
    if (!isatty(STDERR_FILENO))
        return NULL;
    cli_progress *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    p->what = what;
    p->total = total;
    p->watch_fd = watch_fd;
    struct stat st;
    if (watch_fd >= 0 && fstat(watch_fd, &st) == 0)
        p->watch_begin = st.st_size;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&p->ended, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&p->mutex, NULL);
    if (pthread_create(&p->thread, NULL, run, p) == 0)
        return p;
    pthread_cond_destroy(&p->ended);
    pthread_mutex_destroy(&p->mutex);
    free(p);
    return NULL;
}

void cli_progress_add(cli_progress *p, uint64_t bytes)
{
    if (p != NULL)
        atomic_fetch_add_explicit(&p->done, bytes, memory_order_relaxed);
}

void cli_progress_end(cli_progress *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->mutex);
    p->end = true;
    pthread_cond_signal(&p->ended);
    pthread_mutex_unlock(&p->mutex);
    pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->ended);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

int cli_meter_advance(void *meter, uint64_t done_bytes, uint64_t all_bytes)
{
    cli_meter *m = meter;
    if (m->progress == NULL)
        m->progress = cli_progress_start(m->what, all_bytes, -1);
    if (done_bytes > m->done) {
        cli_progress_add(m->progress, done_bytes - m->done);
        m->done = done_bytes;
    }
    return 0;
}

void cli_meter_end(cli_meter *m)
{
    cli_progress_end(m->progress);
    m->progress = NULL;
}
