/* SPDX-License-Identifier: Apache-2.0 */
/* view_ahead.c - see view_ahead.h. */
#include "view_ahead.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"
#include "ops.h"

#define PIECE_BYTES (1u << 20) /* the largest READ */
#define PIECES      3          /* of one reader: one is being sent, one gathered, one ready */
#define STREAMS     16         /* readers that are served ahead at once */
#define MAX_THREADS 4
#define WORTH_BYTES (64u << 10) /* smaller reads do not begin a sequence */
#define BEGIN_BYTES (1u << 20)  /* a read of an array from its start begins no later than here */
#define STALE_NS    50000000ll
#define WAIT_NS     200000 /* how long a request waits for a piece without leaving the lead to another thread */
#define SPIN_NS     50000 /* how long a thread looks for the next piece before it sleeps */

enum piece_state { PIECE_FREE, PIECE_WANTED, PIECE_BUSY, PIECE_READY };

typedef struct ahead_piece {
    enum piece_state state;
    bool dropped;   /* while busy: nobody wants it any more */
    unsigned users; /* replies that are being made from it */
    uint64_t offset, changes;
    int64_t made_ns;
    size_t bytes;
    uint8_t *data;
} ahead_piece;

struct fs_ahead {
    fs_open *open;
    unsigned refs; /* the handle, the queue or a thread, replies */
    uint64_t next; /* where the last read ended */
    bool read_before, queued, going;
    ahead_piece piece[PIECES];
    fs_ahead *queue_next;
};

struct fs_aheads {
    pthread_mutex_t lock; /* protects all of this, and every fs_ahead */
    pthread_cond_t asked, done;
    fs_ahead *first, **last; /* readers with pieces that are wanted */
    unsigned streams, thread_count;
    bool stop, started;
    _Atomic unsigned wanted; /* for threads that look before they sleep */
    pthread_t threads[MAX_THREADS];
};

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static uint64_t changes_now(fs_state *fs)
{
    return atomic_load_explicit(&fs->changes, memory_order_acquire);
}

/* ---- under the lock -------------------------------------------------------------------------------------------- */

/* True: that was the last reference; free it outside the lock. */
static bool unref(struct fs_aheads *all, fs_ahead *a)
{
    if (--a->refs > 0)
        return false;
    all->streams--;
    return true;
}

static void ahead_free(fs_ahead *a)
{
    for (unsigned i = 0; i < PIECES; i++)
        free(a->piece[i].data);
    free(a);
}

static void drop_pieces(fs_ahead *a)
{
    for (unsigned i = 0; i < PIECES; i++) {
        if (a->piece[i].state == PIECE_BUSY)
            a->piece[i].dropped = true;
        else if (a->piece[i].users == 0)
            a->piece[i].state = PIECE_FREE;
        else
            a->piece[i].dropped = true;
    }
}

/* Let free pieces follow the last one; `from`: where to begin if there is none. */
static void ask(fs_state *fs, fs_ahead *a, uint64_t from, uint64_t end)
{
    struct fs_aheads *all = fs->aheads;
    bool any = false;
    for (unsigned i = 0; i < PIECES; i++)
        if (a->piece[i].state != PIECE_FREE && !a->piece[i].dropped && a->piece[i].offset + PIECE_BYTES > from)
            from = a->piece[i].offset + PIECE_BYTES;
    for (unsigned i = 0; i < PIECES && from < end && !a->going; i++) {
        ahead_piece *p = &a->piece[i];
        if (p->state != PIECE_FREE || (!p->data && !(p->data = malloc(PIECE_BYTES))))
            continue;
        p->state = PIECE_WANTED;
        p->dropped = false;
        p->offset = from;
        from += PIECE_BYTES;
        any = true;
    }
    if (!any || a->queued)
        return;
    a->queued = true;
    a->refs++;
    a->queue_next = NULL;
    *all->last = a;
    all->last = &a->queue_next;
    open_borrow(fs, a->open->node); /* the thread reads its file, and the handle may go meanwhile */
    atomic_fetch_add_explicit(&all->wanted, 1, memory_order_release);
    pthread_cond_signal(&all->asked);
}

/* The piece that has the byte at offset, whatever its state. */
static ahead_piece *find(fs_ahead *a, uint64_t offset)
{
    for (unsigned i = 0; i < PIECES; i++) {
        ahead_piece *p = &a->piece[i];
        if (p->state != PIECE_FREE && !p->dropped && offset >= p->offset && offset - p->offset < PIECE_BYTES)
            return p;
    }
    return NULL;
}

static bool is_fresh(fs_state *fs, const ahead_piece *p)
{
    return p->changes == changes_now(fs) && now_ns() - p->made_ns < STALE_NS;
}

/* ---- threads --------------------------------------------------------------------------------------------------- */

static ahead_piece *next_wanted(fs_ahead *a)
{
    ahead_piece *best = NULL;
    for (unsigned i = 0; i < PIECES; i++)
        if (a->piece[i].state == PIECE_WANTED && (!best || a->piece[i].offset < best->offset))
            best = &a->piece[i];
    return best;
}

/* all->lock is held; the reader is off the queue and the caller holds its reference. */
static void serve(fs_state *fs, fs_ahead *a)
{
    struct fs_aheads *all = fs->aheads;
    fs_open *o = a->open;
    for (ahead_piece *p; !all->stop && !a->going && (p = next_wanted(a));) {
        p->state = PIECE_BUSY;
        pthread_mutex_unlock(&all->lock);
        uint64_t changes = changes_now(fs);
        int64_t begun = now_ns();
        fs_view *v = view_borrow(fs, o);
        ssize_t n = v ? view_read(v, o->rfd, p->offset, p->data, PIECE_BYTES) : -1;
        view_return(v);
        pthread_mutex_lock(&all->lock);
        p->state = n > 0 && !p->dropped ? PIECE_READY : PIECE_FREE; /* whoever reads there hears of the error */
        p->dropped = false;
        p->bytes = n > 0 ? (size_t)n : 0;
        p->changes = changes;
        p->made_ns = begun;
        pthread_cond_broadcast(&all->done);
    }
}

/* Waking a thread costs about as much as gathering some of a piece, and the next one is asked for soon. */
static void spin(struct fs_aheads *all)
{
    int64_t until = now_ns() + SPIN_NS;
    pthread_mutex_unlock(&all->lock);
    while (atomic_load_explicit(&all->wanted, memory_order_acquire) == 0 && now_ns() < until)
        sched_yield();
    pthread_mutex_lock(&all->lock);
}

static void *ahead_thread(void *arg)
{
    fs_state *fs = arg;
    struct fs_aheads *all = fs->aheads;
    bool served = false;
    pthread_mutex_lock(&all->lock);
    while (!all->stop) {
        if (!all->first && served)
            spin(all);
        served = false;
        while (!all->stop && !all->first)
            pthread_cond_wait(&all->asked, &all->lock);
        if (all->stop)
            break;
        fs_ahead *a = all->first;
        fs_open *o = a->open;
        all->first = a->queue_next;
        if (!all->first)
            all->last = &all->first;
        atomic_fetch_sub_explicit(&all->wanted, 1, memory_order_relaxed);
        a->queued = false; /* another thread may take pieces that are asked for meanwhile */
        serve(fs, a);
        served = true;
        bool gone = unref(all, a);
        pthread_mutex_unlock(&all->lock);
        if (gone)
            ahead_free(a);
        open_release(fs, o);
        pthread_mutex_lock(&all->lock);
    }
    pthread_mutex_unlock(&all->lock);
    return NULL;
}

int view_ahead_start(fs_state *fs)
{
    struct fs_aheads *all = calloc(1, sizeof *all);
    if (!all)
        return -ENOMEM;
    pthread_mutex_init(&all->lock, NULL);
    pthread_cond_init(&all->asked, NULL);
    pthread_cond_init(&all->done, NULL);
    all->last = &all->first;
    fs->aheads = all;
    return 0;
}

/* With the first reader: most mounts never have one. Without a thread nothing is gathered ahead, and everything works. */
static void start_threads(fs_state *fs)
{
    struct fs_aheads *all = fs->aheads;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    all->started = true;
    while (all->thread_count < MAX_THREADS && (long)all->thread_count * 2 < cores &&
           pthread_create(&all->threads[all->thread_count], NULL, ahead_thread, fs) == 0)
        all->thread_count++;
}

void view_ahead_stop(fs_state *fs)
{
    struct fs_aheads *all = fs->aheads;
    if (!all)
        return;
    pthread_mutex_lock(&all->lock);
    all->stop = true;
    pthread_cond_broadcast(&all->asked);
    pthread_mutex_unlock(&all->lock);
    for (unsigned i = 0; i < all->thread_count; i++)
        pthread_join(all->threads[i], NULL);
    while (all->first) {
        fs_ahead *a = all->first;
        fs_open *o = a->open;
        all->first = a->queue_next;
        if (unref(all, a))
            ahead_free(a);
        open_release(fs, o);
    }
    all->last = &all->first;
}

void view_ahead_free(fs_state *fs)
{
    if (!fs->aheads)
        return;
    pthread_cond_destroy(&fs->aheads->done);
    pthread_cond_destroy(&fs->aheads->asked);
    pthread_mutex_destroy(&fs->aheads->lock);
    free(fs->aheads);
    fs->aheads = NULL;
}

/* ---- readers --------------------------------------------------------------------------------------------------- */

/* The lock is held. NULL: too many readers, or no memory. */
static fs_ahead *stream_of(fs_state *fs, fs_handle *h)
{
    struct fs_aheads *all = fs->aheads;
    if (h->ahead || all->streams == STREAMS)
        return h->ahead;
    if (!all->started)
        start_threads(fs);
    if (all->thread_count > 0 && (h->ahead = calloc(1, sizeof *h->ahead))) {
        h->ahead->open = h->open;
        h->ahead->refs = 1;
        all->streams++;
    }
    return h->ahead;
}

/* The lock is held. The piece with the byte at offset, which the caller then uses; waits for one that is being made. */
static ahead_piece *take(fs_state *fs, fs_ahead *a, uint64_t offset)
{
    struct fs_aheads *all = fs->aheads;
    ahead_piece *p = find(a, offset);
    int64_t until = p && p->state == PIECE_BUSY ? now_ns() + WAIT_NS : 0;
    while (p && p->state == PIECE_BUSY) {
        bool soon = now_ns() < until;
        pthread_mutex_unlock(&all->lock);
        if (soon)
            sched_yield();
        else
            loop_yield(fs); /* its file is on a slow disk */
        pthread_mutex_lock(&all->lock);
        if (!soon && p->state == PIECE_BUSY)
            pthread_cond_wait(&all->done, &all->lock);
        p = find(a, offset);
    }
    if (!p || p->state != PIECE_READY || p->bytes <= offset - p->offset || !is_fresh(fs, p))
        return NULL;
    p->users++;
    return p;
}

/* Bytes up to `end` will not be asked for again. */
static void give_back(ahead_piece *p, uint64_t end)
{
    if (!p || --p->users > 0)
        return;
    if (p->dropped || end >= p->offset + p->bytes) {
        p->state = PIECE_FREE;
        p->dropped = false;
    }
}

/* The lock is held. The one or two pieces that all of these bytes are in, or none. */
static bool take_all(fs_state *fs, fs_ahead *a, uint64_t offset, size_t size, ahead_piece *p[2], struct iovec iov[2])
{
    p[1] = NULL;
    p[0] = take(fs, a, offset);
    if (!p[0])
        return false;
    size_t skip = (size_t)(offset - p[0]->offset), n = p[0]->bytes - skip < size ? p[0]->bytes - skip : size;
    iov[0] = (struct iovec){.iov_base = p[0]->data + skip, .iov_len = n};
    if (n == size)
        return true;
    p[1] = take(fs, a, offset + n);
    if (p[1] && p[1]->offset == offset + n && p[1]->bytes >= size - n) {
        iov[1] = (struct iovec){.iov_base = p[1]->data, .iov_len = size - n};
        return true;
    }
    give_back(p[0], 0);
    give_back(p[1], 0);
    return false;
}

bool view_ahead_reply(fuse_req_t req, fs_handle *h, const fs_view *v, size_t size, uint64_t offset)
{
    fs_state *fs = fs_of(req);
    struct fs_aheads *all = fs->aheads;
    fs_open *o = h->open;
    if ((size < WORTH_BYTES && !h->ahead) || size > PIECE_BYTES || o->rfd < 0)
        return false;
    uint64_t view_end = view_shown(v), end = offset + size;
    pthread_mutex_lock(&all->lock);
    fs_ahead *a = stream_of(fs, h);
    if (!a) {
        pthread_mutex_unlock(&all->lock);
        return false;
    }
    a->refs++;
    ahead_piece *p[2];
    struct iovec iov[2];
    bool hit = take_all(fs, a, offset, size, p, iov);
    if (!hit) {
        bool follows = a->read_before ? offset == a->next : offset < BEGIN_BYTES;
        ahead_piece *here = find(a, offset);
        if (here && here->state == PIECE_WANTED) /* it was not begun: the caller is the faster one */
            here->state = PIECE_FREE;
        else if (here || !follows) /* what was made is of no use any more; a jump */
            drop_pieces(a);
        if (follows || here)
            ask(fs, a, end, view_end);
    }
    a->read_before = true;
    if (!hit || end > a->next) /* requests of the kernel's readahead overtake each other */
        a->next = end;
    pthread_mutex_unlock(&all->lock);
    if (hit)
        fuse_reply_iov(req, iov, p[1] ? 2 : 1);
    /* The handle may be gone from here on, and with it the open state unless a thread reads it. */
    pthread_mutex_lock(&all->lock);
    if (hit) {
        give_back(p[0], end);
        give_back(p[1], end);
        if (!a->going)
            ask(fs, a, end, view_end);
    }
    bool gone = unref(all, a);
    pthread_mutex_unlock(&all->lock);
    if (gone)
        ahead_free(a);
    return hit;
}

void view_ahead_forget(fs_state *fs, fs_handle *h)
{
    fs_ahead *a = h->ahead;
    if (!a)
        return;
    h->ahead = NULL;
    pthread_mutex_lock(&fs->aheads->lock);
    a->going = true;
    drop_pieces(a);
    bool gone = unref(fs->aheads, a);
    pthread_mutex_unlock(&fs->aheads->lock);
    if (gone)
        ahead_free(a);
}
