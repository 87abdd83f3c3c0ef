/* SPDX-License-Identifier: Apache-2.0 */
/* compacter.c - see compacter.h. One list of jobs for the process, which has one mount. */
#include "compacter.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control_table.h"
#include "notice.h"
#include "open.h"

#define RETRY_S 2    /* an array that somebody writes is tried again after this */
#define NICENESS 15

typedef struct job {
    struct job *next;
    char *path;
    bool running, force;
    uint64_t done, all;
} job;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* protects all below; a leaf */
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static job *jobs;
static pthread_t thread;
static bool started, stopping;

static job *find(const char *path, bool running)
{
    for (job *j = jobs; j; j = j->next)
        if (j->running == running && strcmp(j->path, path) == 0)
            return j;
    return NULL;
}

/* The lock is held. NULL: no memory. */
static job *add(const char *path, bool running)
{
    job *j = calloc(1, sizeof *j);
    char *copy = strdup(path);
    if (!j || !copy) {
        free(j);
        free(copy);
        return NULL;
    }
    *j = (job){.next = jobs, .path = copy, .running = running};
    return jobs = j;
}

static void drop(job *gone)
{
    job **at = &jobs;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    free(gone->path);
    free(gone);
}

static int advance(void *ctx, uint64_t done, uint64_t all)
{
    job *j = ctx;
    pthread_mutex_lock(&lock);
    j->done = done;
    j->all = all;
    bool stop = stopping;
    pthread_mutex_unlock(&lock);
    return stop;
}

/* Does a program have the array open for writing through this mount? */
static bool is_written_here(fs_state *fs, const char *path)
{
    struct stat st;
    int fd = npk_open_beneath(fs->store, path, O_PATH | O_CLOEXEC, 0);
    if (fd < 0)
        return false; /* the engine says why */
    bool written = fstat(fd, &st) == 0 && open_is_written(fs, st.st_ino);
    close(fd);
    return written;
}

int compacter_run(fs_state *fs, const char *path, bool force, const char **why)
{
    pthread_mutex_lock(&lock);
    job *j = add(path, true);
    if (j)
        j->force = force;
    pthread_mutex_unlock(&lock);
    char *name = j ? fs_array_name(path) : NULL;
    int err = name ? 0 : -ENOMEM;
    *why = "out of memory";
    if (!err && force && is_written_here(fs, path)) {
        err = -EBUSY;
        *why = "open for writing by a program; try again when it is closed";
    }
    if (!err && (err = npk_compact(fs->store, name, force ? NPK_COMPACT_FORCE : 0, advance, j)) != 0)
        *why = npk_error();
    free(name);
    pthread_mutex_lock(&lock);
    if (j)
        drop(j);
    pthread_mutex_unlock(&lock);
    return err;
}

bool compacter_progress(const char *path, uint64_t *done, uint64_t *all)
{
    pthread_mutex_lock(&lock);
    const job *j = find(path, true);
    if (j) {
        *done = j->done;
        *all = j->all;
    }
    pthread_mutex_unlock(&lock);
    return j != NULL;
}

bool compacter_forces(const char *path)
{
    pthread_mutex_lock(&lock);
    const job *j = find(path, true);
    bool forces = j && j->force;
    pthread_mutex_unlock(&lock);
    return forces;
}

/* Is the share of deleted rows what the policy asks for? */
static bool is_due(fs_state *fs, const char *path)
{
    unsigned percent = 0;
    npk_info info;
    char *name = fs_array_name(path);
    bool due = name && npk_compact_policy(fs->store, name, &percent) == 0 && percent > 0 &&
               npk_stat(fs->store, name, &info) == 0;
    if (due) {
        due = info.deleted > 0 && (double)info.deleted * 100 >= (double)info.physical_rows * percent;
        npk_info_clear(&info);
    }
    free(name);
    return due;
}

static void *work(void *arg)
{
    fs_state *fs = arg;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICENESS);
    pthread_mutex_lock(&lock);
    while (!stopping) {
        job *j = jobs;
        while (j && j->running)
            j = j->next;
        if (!j) {
            pthread_cond_wait(&cond, &lock);
            continue;
        }
        char *path = strdup(j->path);
        drop(j);
        pthread_mutex_unlock(&lock);
        const char *why = "";
        int err = path && is_due(fs, path) ? compacter_run(fs, path, false, &why) : -ENOENT;
        if (err == 0)
            notice_path_changed(fs, path);
        else if (err != -EBUSY && err != -ECANCELED && err != -ENOENT)
            fs_note_failure(fs, path ? path : "", why);
        pthread_mutex_lock(&lock);
        if (err == -EBUSY && !stopping) { /* somebody writes it, or has it mapped for that */
            struct timespec until;
            if (!find(path, false))
                add(path, false);
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_sec += RETRY_S;
            while (!stopping && pthread_cond_timedwait(&cond, &lock, &until) != ETIMEDOUT)
                continue;
        }
        free(path);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void hand_over(fs_state *fs, const char *path)
{
    pthread_mutex_lock(&lock);
    if (!find(path, false))
        add(path, false);
    if (!started && !stopping)
        started = pthread_create(&thread, NULL, work, fs) == 0;
    pthread_cond_signal(&cond);
    pthread_mutex_unlock(&lock);
}

void compacter_consider(fs_state *fs, const char *path)
{
    if (fs->read_only || !is_due(fs, path))
        return;
    if (!fs->leases_prove) {
        fs_note_health(fs, path, "is due to be compacted, and nothing proves here that no program writes to it: when you know "
                                 "that none does, write force to its control compact");
        return;
    }
    hand_over(fs, path);
}

void compacter_noticed(fs_state *fs, const char *path)
{
    if (!fs->read_only && fs->leases_prove)
        hand_over(fs, path);
}

void compacter_stop(void)
{
    pthread_mutex_lock(&lock);
    stopping = true;
    bool join = started;
    started = false;
    pthread_cond_broadcast(&cond);
    pthread_mutex_unlock(&lock);
    if (join)
        pthread_join(thread, NULL);
    pthread_mutex_lock(&lock);
    for (job *j = jobs, *after; j; j = after) {
        after = j->next;
        if (!j->running)
            drop(j);
    }
    pthread_mutex_unlock(&lock);
}
