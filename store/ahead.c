/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "ahead.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dirty.h"
#include "fail.h"
#include "io.h"
#include "path.h"
#include "settle.h"
#include "store.h"

/* So many entries in one directory, none later than this after the one before, and the next ones are made ahead. */
#define STREAK 4
#define STREAK_MS 1000
/* Entries made ahead in one sync. */
#define GROUP 256

struct begun {
    struct begun *next;
    int64_t at_ms;
    char path[];
};

struct npk__ahead {
    uint64_t dir_inode; /* where the last entry was made */
    int64_t last_ms;
    unsigned streak;
    struct begun *first, **last; /* oldest first */
};

/* Of every handle's state: it is looked at once for each entry that is made, which takes a sync anyway. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Counts the entry. Is it one of a row of them? */
static bool is_in_sequence(npk_store *s, int dir_fd)
{
    struct stat st;
    if (npk__fstat(dir_fd, &st) != 0)
        return false;
    int64_t now = now_ms();
    pthread_mutex_lock(&gate);
    struct npk__ahead *a = s->ahead;
    if (!a && (a = s->ahead = calloc(1, sizeof(*a))))
        a->last = &a->first;
    bool follows = a && a->dir_inode == st.st_ino && now - a->last_ms <= STREAK_MS;
    if (a) {
        a->streak = follows ? a->streak + 1 : 1;
        a->dir_inode = st.st_ino;
        a->last_ms = now;
    }
    bool yes = a && a->streak >= STREAK;
    pthread_mutex_unlock(&gate);
    return yes;
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_array_name(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, NPK__SUFFIX) == 0;
}

/* The array files behind `leaf` in the order of names, malloc()ed each; how many. */
static size_t names_behind(int dir_fd, const char *leaf, char ***out)
{
    size_t count = 0, room = 0;
    char **names = NULL;
    int fd = npk__openat(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        npk__close(&fd);
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        if (!is_array_name(e->d_name) || strcmp(e->d_name, leaf) <= 0)
            continue;
        if (count == room) {
            room = room ? room * 2 : 64;
            char **more = realloc(names, room * sizeof(*more));
            if (!more)
                break;
            names = more;
        }
        if (!(names[count] = strdup(e->d_name)))
            break;
        count++;
    }
    if (dir)
        closedir(dir);
    if (count > 1)
        qsort(names, count, sizeof(*names), by_text);
    *out = names;
    return count;
}

/* ---- entries --------------------------------------------------------------------------------------------------- */

/* Remember that the array beside `path` was begun. The gate is held. */
static void remember(npk_store *s, const char *path, size_t dir_bytes, const char *name, int64_t now)
{
    struct begun *b = malloc(sizeof(*b) + dir_bytes + strlen(name) + 1);
    if (!b)
        return; /* its entry goes when the array is written, or by the check */
    b->next = NULL;
    b->at_ms = now;
    memcpy(b->path, path, dir_bytes);
    strcpy(b->path + dir_bytes, name);
    *s->ahead->last = b;
    s->ahead->last = &b->next;
}

void npk__ahead_note(npk_store *s, const char *path, const char *leaf, int dir_fd)
{
    if (!is_in_sequence(s, dir_fd))
        return;
    char **names;
    size_t count = names_behind(dir_fd, leaf, &names), made = 0;
    npk_dirty *entries = calloc(GROUP, sizeof(*entries));
    const char *begun[GROUP];
    for (size_t i = 0; entries && i < count && made < GROUP; i++) {
        int fd = npk__openat(dir_fd, names[i], O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
        if (fd >= 0 && npk__session_entry(dir_fd, names[i], fd, &entries[made]) > 0)
            begun[made++] = names[i];
        npk__close(&fd);
    }
    if (made && npk__dirty_add_many(dir_fd, entries, made) == 0) {
        int64_t now = now_ms();
        pthread_mutex_lock(&gate);
        for (size_t i = 0; i < made; i++)
            remember(s, path, (size_t)(leaf - path), begun[i], now);
        pthread_mutex_unlock(&gate);
    }
    free(entries);
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

size_t npk_sessions_end_ahead(npk_store *s, int64_t quiet_ms)
{
    size_t left = 0;
    for (;;) {
        pthread_mutex_lock(&gate);
        struct begun *b = s->ahead ? s->ahead->first : NULL;
        bool due = b && now_ms() - b->at_ms >= quiet_ms;
        if (due && !(s->ahead->first = b->next))
            s->ahead->last = &s->ahead->first;
        for (const struct begun *at = due ? NULL : b; at; at = at->next)
            left++;
        pthread_mutex_unlock(&gate);
        if (!due)
            return left;
        int fd = npk_open_beneath(s, b->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
        if (fd >= 0)
            npk_session_end(s, b->path, fd); /* -EBUSY: who writes it now has a session of his own */
        npk__close(&fd);
        free(b);
    }
}

void npk__ahead_free(npk_store *s)
{
    for (struct begun *b = s->ahead ? s->ahead->first : NULL, *after; b; b = after) {
        after = b->next;
        free(b);
    }
    free(s->ahead);
}
