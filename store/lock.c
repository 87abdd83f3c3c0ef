/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "path.h"

#define LOCK_FILE    "lock"
#define IDLE_FILES   32 /* descriptions kept for reuse: one per directory in use, more would eat the process's limit */
#define GATE_BUCKETS 64

unsigned npk__lock_wait_ms = 30000;

/* An open description of one directory's lock file. */
struct lock_file {
    struct lock_file *next;
    dev_t dir_dev;
    ino_t dir_ino;
    dev_t dev;
    ino_t ino;
    int fd;
    atomic_int table_fd; /* the dirty table beside it, -1: not open */
    bool writable;
    bool stale; /* the name is another file by now */
    unsigned users;
};

/* Who in this process has a slot. The gate owns the kernel's lock: it is taken by the first and given back by the last
 * holder, on one description. */
struct gate {
    struct gate *next;
    dev_t dev;
    ino_t ino;
    uint64_t slot;
    int holders; /* -1: one exclusively, or being acquired; > 0: so many shared; 0: free */
    unsigned waiters;
    unsigned era;
    struct lock_file *file;
    pthread_cond_t freed;
};

static struct {
    pthread_mutex_t mutex;   /* guards everything here; never held over a call that may wait */
    struct lock_file *files; /* most recently used first */
    unsigned idle;
    struct gate *gates[GATE_BUCKETS];
    unsigned era;     /* counts the forks that led here */
    atomic_int *here; /* 1; a page that the kernel empties in a forked child */
} table = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* ---- fork ------------------------------------------------------------------------------------------------------ */

static void fork_prepare(void)
{
    pthread_mutex_lock(&table.mutex);
}

static void fork_parent(void)
{
    pthread_mutex_unlock(&table.mutex);
}

/* P12: a child is granted its parent's lock, being on the same description, and keeps it held beyond the parent's
 * death. So it closes every inherited description and begins with an empty table. Gates are leaked, since an npk_lock
 * of the forking thread may point to one; npk__unlock() sees by the era that it is the parent's. */
static void forget_parent(void)
{
    for (struct lock_file *f = table.files, *next; f; f = next) {
        next = f->next;
        npk__close(&f->fd);
        int fd = atomic_exchange(&f->table_fd, -1);
        npk__close(&fd);
    }
    table.files = NULL;
    table.idle = 0;
    memset(table.gates, 0, sizeof(table.gates));
    table.era++;
    if (table.here)
        atomic_store(table.here, 1);
}

static void fork_child(void)
{
    forget_parent();
    pthread_mutex_unlock(&table.mutex); /* this thread took it before the fork */
}

/* A child made by a bare clone() runs no handlers, but finds the page empty. Without the page (Linux before 4.14) such
 * a child must not use the library. */
__attribute__((constructor)) static void lock_init(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *at = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at != MAP_FAILED && madvise(at, page, MADV_WIPEONFORK) == 0) {
        table.here = at;
        atomic_store(table.here, 1);
    } else if (at != MAP_FAILED) {
        munmap(at, page);
    }
    pthread_atfork(fork_prepare, fork_parent, fork_child);
}

static inline void notice_fork(void)
{
    if (__builtin_expect(table.here && atomic_load_explicit(table.here, memory_order_relaxed) == 0, 0) &&
        atomic_exchange(table.here, 1) == 0) {
        pthread_mutex_init(&table.mutex, NULL); /* who held it is not here */
        forget_parent();
    }
}

/* ---- lock files ------------------------------------------------------------------------------------------------ */

static void file_free(struct lock_file *f)
{
    int table_fd = atomic_load(&f->table_fd);
    npk__close(&table_fd);
    npk__close(&f->fd);
    free(f);
}

/* Close idle descriptions beyond the first `keep`. The mutex is held. */
static void files_trim(unsigned keep)
{
    for (struct lock_file **at = &table.files, *f; (f = *at) != NULL;) {
        if (f->users > 0 || (!f->stale && keep > 0)) {
            keep -= f->users == 0;
            at = &f->next;
            continue;
        }
        *at = f->next;
        table.idle--;
        file_free(f);
    }
}

static void file_put(struct lock_file *f, bool stale)
{
    pthread_mutex_lock(&table.mutex);
    f->stale |= stale;
    if (--f->users == 0) {
        table.idle++;
        if (f->stale || table.idle > IDLE_FILES)
            files_trim(IDLE_FILES);
    }
    pthread_mutex_unlock(&table.mutex);
}

static struct lock_file *file_cached(const struct stat *dir, bool writable)
{
    for (struct lock_file **at = &table.files, *f; (f = *at) != NULL; at = &f->next) {
        if (f->dir_ino != dir->st_ino || f->dir_dev != dir->st_dev || f->stale || (writable && !f->writable))
            continue;
        *at = f->next; /* to the front */
        f->next = table.files;
        table.files = f;
        table.idle -= f->users++ == 0;
        return f;
    }
    return NULL;
}

static int file_open(int dir_fd, const struct stat *dir, unsigned how, struct lock_file **out)
{
    bool writable = true, exclusive = how & NPK_LOCK_EXCLUSIVE;
    int fd = npk__sidecar_file(dir_fd, LOCK_FILE, O_RDWR | (exclusive && !(how & NPK_LOCK_EXISTING) ? O_CREAT : 0));
    if (!exclusive && (fd == -EACCES || fd == -EPERM || fd == -EROFS)) {
        writable = false;
        fd = npk__sidecar_file(dir_fd, LOCK_FILE, O_RDONLY);
    }
    if (fd < 0)
        return fd;
    struct stat st;
    struct lock_file *f = NULL;
    int err = npk__fstat(fd, &st);
    if (!err && !S_ISREG(st.st_mode))
        err = npk__fail(-EINVAL, "\"" NPK__SIDECAR "/" LOCK_FILE "\": not a regular file; remove it");
    if (!err && !(f = malloc(sizeof(*f))))
        err = -ENOMEM;
    if (err) {
        close(fd);
        return err;
    }
    *f = (struct lock_file){.dir_dev = dir->st_dev,
                            .dir_ino = dir->st_ino,
                            .dev = st.st_dev,
                            .ino = st.st_ino,
                            .fd = fd,
                            .table_fd = -1,
                            .writable = writable,
                            .users = 1};
    pthread_mutex_lock(&table.mutex);
    f->next = table.files;
    table.files = f;
    pthread_mutex_unlock(&table.mutex);
    *out = f;
    return 0;
}

static int file_get(int dir_fd, unsigned how, struct lock_file **out)
{
    struct stat dir;
    int err = npk__fstat(dir_fd, &dir);
    if (err)
        return npk__fail_errno(err, NPK__SIDECAR "/" LOCK_FILE);
    pthread_mutex_lock(&table.mutex);
    *out = file_cached(&dir, how & NPK_LOCK_EXCLUSIVE);
    pthread_mutex_unlock(&table.mutex);
    return *out ? 0 : file_open(dir_fd, &dir, how, out);
}

void npk__locks_drop_idle(void)
{
    notice_fork();
    pthread_mutex_lock(&table.mutex);
    files_trim(0);
    pthread_mutex_unlock(&table.mutex);
}

/* ---- what is kept with them ------------------------------------------------------------------------------------ */

void npk__kept_borrow(int dir_fd, npk_kept *out)
{
    struct stat dir;
    *out = NPK_KEPT_NONE;
    notice_fork();
    if (npk__fstat(dir_fd, &dir) != 0)
        return;
    pthread_mutex_lock(&table.mutex);
    struct lock_file *f = file_cached(&dir, true);
    pthread_mutex_unlock(&table.mutex);
    if (f)
        *out = (npk_kept){.file = f, .fd = atomic_load(&f->table_fd)};
}

void npk__kept_return(npk_kept *k)
{
    if (k->file)
        file_put(k->file, false);
    *k = NPK_KEPT_NONE;
}

bool npk__kept_give(npk_kept *k, int fd)
{
    struct lock_file *f = k->file;
    int none = -1;
    if (!f)
        return false;
    if (!atomic_compare_exchange_strong(&f->table_fd, &none, fd)) {
        close(fd); /* another thread was first; none is its descriptor now */
        fd = none;
    }
    k->fd = fd;
    return true;
}

/* Another thread may be reading from it, so it is closed with the lock file's, which nobody shall find any more. */
void npk__kept_disown(npk_kept *k)
{
    struct lock_file *f = k->file;
    pthread_mutex_lock(&table.mutex);
    f->stale = true;
    pthread_mutex_unlock(&table.mutex);
}

/* ---- gates ----------------------------------------------------------------------------------------------------- */

static struct gate **gate_bucket(ino_t ino, uint64_t slot)
{
    uint64_t h = ((uint64_t)ino ^ slot * 0x9E3779B97F4A7C15u) * 0xD6E8FEB86659FD93u;
    return &table.gates[h >> 58];
}

static struct gate *gate_find(const struct lock_file *f, uint64_t slot)
{
    struct gate **bucket = gate_bucket(f->ino, slot);
    for (struct gate *g = *bucket; g; g = g->next)
        if (g->slot == slot && g->ino == f->ino && g->dev == f->dev)
            return g;
    struct gate *g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    *g = (struct gate){.next = *bucket, .dev = f->dev, .ino = f->ino, .slot = slot, .era = table.era};
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&g->freed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *bucket = g;
    return g;
}

/* The mutex is held. */
static void gate_drop_unused(struct gate *g)
{
    if (g->holders != 0 || g->waiters != 0)
        return;
    struct gate **at = gate_bucket(g->ino, g->slot);
    while (*at != g)
        at = &(*at)->next;
    *at = g->next;
    pthread_cond_destroy(&g->freed);
    free(g);
}

/* 0: *first says whether the kernel's lock is still to be taken; the gate counts as held exclusively until then. */
static int gate_enter(struct lock_file *f, uint64_t slot, unsigned how, const struct timespec *deadline,
                      struct gate **out, bool *first)
{
    bool exclusive = how & NPK_LOCK_EXCLUSIVE;
    int err = 0;
    pthread_mutex_lock(&table.mutex);
    struct gate *g = gate_find(f, slot);
    if (!g) {
        pthread_mutex_unlock(&table.mutex);
        return -ENOMEM;
    }
    g->waiters++;
    while (g->holders != 0 && (exclusive || g->holders < 0) && !err) {
        if (how & NPK_LOCK_TRY)
            err = -EAGAIN;
        else if (pthread_cond_timedwait(&g->freed, &table.mutex, deadline) == ETIMEDOUT)
            err = -EBUSY;
    }
    g->waiters--;
    if (!err) {
        *first = g->holders == 0;
        g->holders = *first ? -1 : g->holders + 1;
        if (*first)
            g->file = f;
        *out = g;
    } else {
        gate_drop_unused(g);
    }
    pthread_mutex_unlock(&table.mutex);
    return err;
}

/* The kernel's lock is ours: let other readers in. */
static void gate_acquired(struct gate *g, unsigned how)
{
    if (how & NPK_LOCK_EXCLUSIVE)
        return;
    pthread_mutex_lock(&table.mutex);
    g->holders = 1;
    pthread_cond_broadcast(&g->freed);
    pthread_mutex_unlock(&table.mutex);
}

/* Give the kernel's lock back if this was the last holder. The kernel's first: who enters next must not find our lock
 * to be released under him. */
static void gate_leave(struct gate *g, bool stale)
{
    struct lock_file *f = NULL;
    pthread_mutex_lock(&table.mutex);
    if (g->holders > 1) {
        g->holders--;
    } else {
        g->holders = -1;
        f = g->file;
    }
    pthread_mutex_unlock(&table.mutex);
    if (!f)
        return;
    (void)npk__ofd_lock(f->fd, F_UNLCK, g->slot, 1);
    pthread_mutex_lock(&table.mutex);
    g->holders = 0;
    g->file = NULL;
    if (g->waiters > 0)
        pthread_cond_broadcast(&g->freed);
    gate_drop_unused(g);
    pthread_mutex_unlock(&table.mutex);
    file_put(f, stale);
}

/* ---- locking --------------------------------------------------------------------------------------------------- */

static struct timespec deadline_in(unsigned ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

static bool is_over(const struct timespec *deadline)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > deadline->tv_sec || (now.tv_sec == deadline->tv_sec && now.tv_nsec >= deadline->tv_nsec);
}

/* F_OFD_SETLKW has no limit, and a signal handler to stop it is not a library's to install: so ask again, soon at
 * first, since most locks are held for microseconds. */
static int kernel_lock(const struct lock_file *f, uint64_t slot, unsigned how, const struct timespec *deadline)
{
    int type = how & NPK_LOCK_EXCLUSIVE ? F_WRLCK : F_RDLCK;
    for (long pause_ns = 20000;; pause_ns = pause_ns < 5000000 ? pause_ns * 2 : pause_ns) {
        int err = npk__ofd_lock(f->fd, type, slot, 1);
        if (err != -EAGAIN || (how & NPK_LOCK_TRY))
            return err;
        if (is_over(deadline))
            return -EBUSY;
        struct timespec t = {.tv_nsec = pause_ns};
        nanosleep(&t, NULL);
    }
}

/* P11: the file may have been removed, and made anew, between its open and the lock. */
static bool is_named(int dir_fd, const struct lock_file *f)
{
    struct stat st;
    return npk__fstatat(dir_fd, NPK__SIDECAR "/" LOCK_FILE, &st) == 0 && st.st_ino == f->ino && st.st_dev == f->dev;
}

static int lock_once(int dir_fd, uint64_t slot, unsigned how, const struct timespec *deadline, npk_lock *out)
{
    struct lock_file *f = NULL;
    struct gate *g = NULL;
    bool first = false;
    int err = file_get(dir_fd, how, &f);
    if (err)
        return err;
    err = gate_enter(f, slot, how, deadline, &g, &first);
    if (err || !first)
        file_put(f, false); /* the gate has the first holder's */
    if (err)
        return err;
    if (first) {
        err = kernel_lock(f, slot, how, deadline);
        if (err) {
            gate_leave(g, false);
            return err;
        }
        gate_acquired(g, how);
    }
    if (!is_named(dir_fd, g->file)) {
        gate_leave(g, true);
        return -ESTALE;
    }
    *out = (npk_lock){.fd = g->file->fd, .gate = g, .slot = slot};
    return 0;
}

static int lock_named(int dir_fd, uint64_t slot, unsigned how, const char *what, npk_lock *out)
{
    struct timespec deadline = {0};
    *out = NPK_LOCK_NONE;
    notice_fork();
    if (!(how & NPK_LOCK_TRY))
        deadline = deadline_in(npk__lock_wait_ms);
    for (unsigned tries = 0;; tries++) {
        int err = lock_once(dir_fd, slot, how, &deadline, out);
        if (err == -ESTALE && (how & NPK_LOCK_TRY ? tries < 8 : !is_over(&deadline)))
            continue;
        if (err == -ENOENT && !(how & NPK_LOCK_EXCLUSIVE))
            return 0; /* no lock file: nobody holds anything */
        if (err == -ESTALE)
            err = how & NPK_LOCK_TRY ? -EAGAIN : -EBUSY;
        if (err == -EBUSY || err == -EAGAIN)
            return npk__fail(err, "\"%s\": locked by another operation%s; try again when it is done", what,
                             err == -EBUSY ? " all the time that was waited" : "");
        if (err == -ENOLCK || err == -EOPNOTSUPP)
            return npk__fail(err, "\"%s\": cannot be locked; the filesystem must support open file description locks",
                             what);
        return err;
    }
}

npk_kept npk__kept_of(const npk_lock *l)
{
    const struct gate *g = l->gate;
    return g && g->file ? (npk_kept){.file = g->file, .fd = atomic_load(&g->file->table_fd)} : NPK_KEPT_NONE;
}

uint64_t npk__lock_slot_of(const char *leaf)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (const unsigned char *c = (const unsigned char *)leaf; *c; c++)
        h = (h ^ *c) * 0x100000001b3u;
    return (UINT64_C(1) << 32) + (h & ((UINT64_C(1) << 40) - 1));
}

int npk__lock_array(int dir_fd, const char *leaf, unsigned how, npk_lock *out)
{
    return lock_named(dir_fd, npk__lock_slot_of(leaf), how, leaf, out);
}

int npk__lock_slot(int dir_fd, uint64_t slot, unsigned how, npk_lock *out)
{
    static const char *const names[] = {"namespace of the store", "journal", "table of arrays being written"};
    return lock_named(dir_fd, slot, how, slot < 3 ? names[slot] : "array", out);
}

void npk__unlock(npk_lock *l)
{
    struct gate *g = l->gate;
    *l = NPK_LOCK_NONE;
    if (!g)
        return;
    notice_fork();
    if (g->era == table.era)
        gate_leave(g, false);
}
