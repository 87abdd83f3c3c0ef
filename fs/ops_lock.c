/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops_lock.c - flock and fcntl locks, forwarded to the store's file, so that they exclude programs on another mount and on
 * the directory itself (PROTOCOLS P32).
 *
 * A POSIX owner is one open file description of the file here, locked with OFD locks: they conflict with other processes'
 * POSIX locks and with each other exactly as the owners do. A flock belongs to a handle, which has a description of its
 * own for it. A request that must wait goes on a list; one thread tries the waiting ones again whenever a lock is dropped
 * here and every few milliseconds, so no thread ever sleeps in a lock, and an interrupted request leaves the list.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "ops.h"
#include "sys.h"

#define RETRY_MS_MIN 1
#define RETRY_MS_MAX 20

typedef struct lock_owner {
    fs_node *node;            /* pinned */
    uint64_t owner;           /* the kernel's lock owner; unused for a flock */
    fs_handle *handle;        /* the handle that locked last; the flock's own */
    bool is_flock;
    int fd;                   /* the description that holds the locks */
    pid_t pid;                /* of the process that locked last, for F_GETLK to name */
    struct lock_owner *next;
} lock_owner;

typedef struct lock_waiter {
    fuse_req_t req;
    fs_node *node;
    fs_handle *handle;
    uint64_t owner;
    bool is_flock;
    struct flock lock;
    int op;
    struct lock_waiter *next;
} lock_waiter;

struct fs_locks {
    pthread_mutex_t lock;     /* protects all below */
    pthread_cond_t cond;
    lock_owner *owners;
    lock_waiter *waiters;
    pthread_t thread;
    bool running, stop, dropped;
};

/* ---- owners; the lock is held ---- */

static lock_owner *find_owner(struct fs_locks *l, fs_node *n, uint64_t owner, fs_handle *flock_of)
{
    for (lock_owner *o = l->owners; o; o = o->next)
        if (o->node == n && o->is_flock == (flock_of != NULL) && (flock_of ? o->handle == flock_of : o->owner == owner))
            return o;
    return NULL;
}

static int new_description(fs_handle *h)
{
    fs_open *o = h->open;
    int base = o->rfd >= 0 ? o->rfd : o->wfd;
    int fd = sys_reopen(base, h->writer ? O_RDWR : O_RDONLY);
    if (fd == -EACCES)
        fd = sys_reopen(base, h->writer ? O_WRONLY : O_RDONLY);
    return fd;
}

static lock_owner *get_owner(fs_state *fs, fs_node *n, uint64_t owner, fs_handle *h, bool is_flock, int *err)
{
    struct fs_locks *l = fs->locks;
    lock_owner *o = find_owner(l, n, owner, is_flock ? h : NULL);
    if (o) {
        /* A write lock needs a writable description: make the owner's first one better if this handle can. */
        if (!is_flock && h->writer && (fcntl(o->fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
            goto another;
        return o;
    }
another:
    o = calloc(1, sizeof *o);
    int fd = o ? new_description(h) : -ENOMEM;
    if (fd < 0) {
        free(o);
        *err = fd;
        return NULL;
    }
    node_pin(fs, n);
    *o = (lock_owner){.node = n, .owner = owner, .handle = h, .is_flock = is_flock, .fd = fd, .next = l->owners};
    l->owners = o;
    return o;
}

/* Close the descriptions that match; true if any did. */
static bool drop(fs_state *fs, fs_node *n, uint64_t owner, fs_handle *h)
{
    struct fs_locks *l = fs->locks;
    bool any = false;
    for (lock_owner **p = &l->owners; *p;) {
        lock_owner *o = *p;
        bool match = h ? o->handle == h : o->node == n && !o->is_flock && o->owner == owner;
        if (!match) {
            p = &o->next;
            continue;
        }
        *p = o->next;
        close(o->fd);
        fs_node *node = o->node;
        free(o);
        any = true;
        node_unpin(fs, node);
    }
    return any;
}

static void tell_waiters(struct fs_locks *l)
{
    l->dropped = true;
    pthread_cond_signal(&l->cond);
}

/* ---- one attempt; the lock is held. 0, -EAGAIN: somebody holds it, or another errno. ---- */

static int try_posix(fs_state *fs, fs_node *n, fs_handle *h, uint64_t owner, const struct flock *want)
{
    int err = 0;
    struct flock lock = *want;
    lock.l_pid = 0;
    if (want->l_type == F_UNLCK) {
        /* Every description of this owner: there are two if it locked through a reader before a writer. */
        for (lock_owner *o = fs->locks->owners; o; o = o->next)
            if (o->node == n && !o->is_flock && o->owner == owner)
                fcntl(o->fd, F_OFD_SETLK, &lock);
        return 0;
    }
    lock_owner *o = get_owner(fs, n, owner, h, false, &err);
    if (!o)
        return err;
    if (fcntl(o->fd, F_OFD_SETLK, &lock) < 0)
        return errno == EACCES ? -EAGAIN : -errno;
    o->handle = h;
    o->pid = want->l_pid;
    return 0;
}

static int try_flock(fs_state *fs, fs_node *n, fs_handle *h, int op)
{
    int err = 0;
    if ((op & ~LOCK_NB) == LOCK_UN) {
        lock_owner *o = find_owner(fs->locks, n, 0, h);
        if (o)
            flock(o->fd, LOCK_UN);
        return 0;
    }
    lock_owner *o = get_owner(fs, n, 0, h, true, &err);
    if (!o)
        return err;
    if (flock(o->fd, op | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    h->has_flock = true;
    return 0;
}

static int try_waiter(fs_state *fs, lock_waiter *w)
{
    return w->is_flock ? try_flock(fs, w->node, w->handle, w->op)
                       : try_posix(fs, w->node, w->handle, w->owner, &w->lock);
}

static void attempt(fs_state *fs, lock_waiter *w, bool sleep)
{
    struct fs_locks *l = fs->locks;
    pthread_mutex_lock(&l->lock);
    int err = try_waiter(fs, w);
    bool unlock = w->is_flock ? (w->op & ~LOCK_NB) == LOCK_UN : w->lock.l_type == F_UNLCK;
    if (unlock)
        tell_waiters(l);
    if (err == -EAGAIN && sleep) {
        lock_waiter *kept = malloc(sizeof *kept);
        if (kept) {
            *kept = *w;
            kept->next = l->waiters;
            l->waiters = kept;
            atomic_fetch_add_explicit(&fs->stats.locks_waiting, 1, memory_order_relaxed);
            pthread_cond_signal(&l->cond);
            pthread_mutex_unlock(&l->lock);
            return; /* the lock thread replies */
        }
        err = -ENOLCK;
    }
    pthread_mutex_unlock(&l->lock);
    fuse_reply_err(w->req, -err);
}

/* ---- operations ---- */

void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    if (n->kind != NODE_STORE) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    pthread_mutex_lock(&fs->locks->lock);
    int err = 0;
    struct flock probe = *lock;
    probe.l_pid = 0;
    lock_owner *o = get_owner(fs, n, fi->lock_owner, handle_of(fi), false, &err);
    if (o && fcntl(o->fd, F_OFD_GETLK, &probe) < 0)
        err = -errno;
    /* The locks here are OFD locks, which have no process to name; the other owner of this node is the one in the way,
     * unless the lock is from outside the mount. */
    if (probe.l_type != F_UNLCK && probe.l_pid < 0) {
        probe.l_pid = 0;
        for (const lock_owner *other = fs->locks->owners; other; other = other->next)
            if (other->node == n && !other->is_flock && other != o && other->pid)
                probe.l_pid = other->pid;
    }
    pthread_mutex_unlock(&fs->locks->lock);
    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    fuse_reply_lock(req, &probe);
}

void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    if (n->kind != NODE_STORE) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    lock_waiter w = {.req = req, .node = n, .handle = handle_of(fi), .owner = fi->lock_owner, .lock = *lock};
    attempt(fs, &w, sleep);
}

void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    if (n->kind != NODE_STORE) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    lock_waiter w = {.req = req, .node = n, .handle = handle_of(fi), .is_flock = true, .op = op};
    attempt(fs, &w, !(op & LOCK_NB));
}

bool locks_posix_held(fs_state *fs, const fs_node *n)
{
    struct fs_locks *l = fs->locks;
    bool held = false;
    pthread_mutex_lock(&l->lock);
    for (const lock_owner *o = l->owners; o && !held; o = o->next)
        held = o->node == n && !o->is_flock;
    pthread_mutex_unlock(&l->lock);
    return held;
}

void locks_drop_owner(fs_state *fs, fs_node *n, uint64_t owner)
{
    struct fs_locks *l = fs->locks;
    pthread_mutex_lock(&l->lock);
    if (l->owners && drop(fs, n, owner, NULL))
        tell_waiters(l);
    pthread_mutex_unlock(&l->lock);
}

void locks_drop_handle(fs_state *fs, fs_handle *h)
{
    struct fs_locks *l = fs->locks;
    pthread_mutex_lock(&l->lock);
    if (l->owners && drop(fs, h->node, 0, h))
        tell_waiters(l);
    pthread_mutex_unlock(&l->lock);
}

/* ---- the waiting ones ---- */

/* The lock is held: try each once, oldest last in the list; replies are collected in *done with their errno in op. */
static void try_all(fs_state *fs, lock_waiter **done)
{
    struct fs_locks *l = fs->locks;
    for (lock_waiter **p = &l->waiters; *p;) {
        lock_waiter *w = *p;
        int err = fuse_req_interrupted(w->req) ? -EINTR : l->stop ? -EINTR : try_waiter(fs, w);
        if (err == -EAGAIN) {
            p = &w->next;
            continue;
        }
        if (err == -EINTR)
            atomic_fetch_add_explicit(&fs->stats.interrupts, 1, memory_order_relaxed);
        *p = w->next;
        w->op = -err;
        w->next = *done;
        *done = w;
        atomic_fetch_sub_explicit(&fs->stats.locks_waiting, 1, memory_order_relaxed);
    }
}

static void *lock_thread(void *arg)
{
    fs_state *fs = arg;
    struct fs_locks *l = fs->locks;
    unsigned pause_ms = RETRY_MS_MIN;
    pthread_mutex_lock(&l->lock);
    while (!l->stop || l->waiters) {
        if (!l->waiters) {
            pthread_cond_wait(&l->cond, &l->lock);
            pause_ms = RETRY_MS_MIN;
        } else if (!l->dropped && !l->stop) {
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_nsec += (long)pause_ms * 1000000;
            until.tv_sec += until.tv_nsec / 1000000000;
            until.tv_nsec %= 1000000000;
            pthread_cond_timedwait(&l->cond, &l->lock, &until);
            pause_ms = pause_ms * 2 > RETRY_MS_MAX ? RETRY_MS_MAX : pause_ms * 2;
        }
        if (l->dropped)
            pause_ms = RETRY_MS_MIN;
        l->dropped = false;
        lock_waiter *done = NULL;
        try_all(fs, &done);
        pthread_mutex_unlock(&l->lock);
        while (done) {
            lock_waiter *w = done;
            done = w->next;
            fuse_reply_err(w->req, w->op);
            free(w);
        }
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

int locks_start(fs_state *fs)
{
    struct fs_locks *l = calloc(1, sizeof *l);
    if (!l)
        return -ENOMEM;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->cond, NULL);
    fs->locks = l;
    int err = -pthread_create(&l->thread, NULL, lock_thread, fs);
    l->running = err == 0;
    return err;
}

void locks_stop(fs_state *fs)
{
    struct fs_locks *l = fs->locks;
    if (!l)
        return;
    if (l->running) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_signal(&l->cond);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    while (l->owners) {
        lock_owner *o = l->owners;
        l->owners = o->next;
        close(o->fd);
        free(o);
    }
    free(l);
    fs->locks = NULL;
}
