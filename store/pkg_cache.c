/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "pkg_cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "fail.h"

#define BUCKETS 4096
#define PAGE    4096
#define SPENT_BYTES (UINT64_C(4) << 20) /* kept of spent frames, for readers close behind: as much as stays near the processor */

/* Frames that nobody holds: by their last use, and those that are not expected to be used again. */
enum { USED, SPENT, LISTS };

struct npk__cached {
    uint64_t file, frame;
    size_t bytes, capacity; /* of the frame; of its memory, less a page for where it begins */
    unsigned holders;
    bool spent;                 /* which list it goes to */
    enum { FILLING, READY, FAILED } state;
    int err;                    /* of a fill that failed */
    npk__cached *chain;         /* of the bucket */
    npk__cached *newer, *older; /* in its list */
    uint8_t *memory, *data;     /* pages; the frame in them */
};

struct npk__cache {
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    unsigned waiting; /* for one to be filled */
    uint64_t cap, bytes, hits, misses;
    struct {
        npk__cached *newest, *oldest;
        uint64_t bytes;
    } list[LISTS];
    npk__cached *buckets[BUCKETS];
};

npk__cache *npk__cache_new(uint64_t cap_bytes)
{
    npk__cache *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->filled, NULL);
    c->cap = cap_bytes;
    return c;
}

static npk__cached **bucket_of(npk__cache *c, uint64_t file, uint64_t frame)
{
    uint64_t h = (file * UINT64_C(0x9E3779B97F4A7C15)) ^ (frame * UINT64_C(0xBF58476D1CE4E5B9));
    return &c->buckets[(h >> 40) % BUCKETS];
}

static npk__cached *find(npk__cache *c, uint64_t file, uint64_t frame)
{
    npk__cached *h = *bucket_of(c, file, frame);
    while (h && (h->file != file || h->frame != frame))
        h = h->chain;
    return h;
}

static void unchain(npk__cache *c, npk__cached *h)
{
    npk__cached **at = bucket_of(c, h->file, h->frame);
    while (*at != h)
        at = &(*at)->chain;
    *at = h->chain;
}

static void unlist(npk__cache *c, npk__cached *h)
{
    *(h->newer ? &h->newer->older : &c->list[h->spent].newest) = h->older;
    *(h->older ? &h->older->newer : &c->list[h->spent].oldest) = h->newer;
    h->newer = h->older = NULL;
    c->list[h->spent].bytes -= h->capacity;
}

/* Out of the lists and the table; its memory stays. */
static void take_out(npk__cache *c, npk__cached *h)
{
    unlist(c, h);
    unchain(c, h);
    c->bytes -= h->capacity;
}

static void destroy(npk__cached *h)
{
    free(h->memory);
    free(h);
}

static void shrink(npk__cache *c)
{
    npk__cached *h;
    while (c->bytes > c->cap && (h = c->list[SPENT].oldest ? c->list[SPENT].oldest : c->list[USED].oldest)) {
        take_out(c, h);
        destroy(h);
    }
}

void npk__cache_free(npk__cache *c)
{
    if (!c)
        return;
    c->cap = 0;
    shrink(c);
    pthread_cond_destroy(&c->filled);
    pthread_mutex_destroy(&c->mutex);
    free(c);
}

void npk__cache_set_cap(npk__cache *c, uint64_t cap_bytes)
{
    pthread_mutex_lock(&c->mutex);
    c->cap = cap_bytes;
    shrink(c);
    pthread_mutex_unlock(&c->mutex);
}

void npk__cache_facts(npk__cache *c, uint64_t *bytes, uint64_t *hits, uint64_t *misses)
{
    pthread_mutex_lock(&c->mutex);
    *bytes = c->bytes;
    *hits = c->hits;
    *misses = c->misses;
    pthread_mutex_unlock(&c->mutex);
}

bool npk__cache_has(npk__cache *c, uint64_t file, uint64_t frame)
{
    pthread_mutex_lock(&c->mutex);
    bool has = find(c, file, frame) != NULL;
    pthread_mutex_unlock(&c->mutex);
    return has;
}

const uint8_t *npk__cached_data(const npk__cached *h)
{
    return h->data;
}

/* The mutex is held; h is held by the caller. */
static void let_go(npk__cache *c, npk__cached *h)
{
    if (--h->holders > 0)
        return;
    if (h->state == FAILED) {
        destroy(h); /* it left the table when it failed */
        return;
    }
    h->older = c->list[h->spent].newest;
    *(h->older ? &h->older->newer : &c->list[h->spent].oldest) = h;
    c->list[h->spent].newest = h;
    c->list[h->spent].bytes += h->capacity;
    shrink(c);
}

void npk__cache_put(npk__cache *c, npk__cached *h, bool spent)
{
    pthread_mutex_lock(&c->mutex);
    h->spent = spent;
    let_go(c, h);
    pthread_mutex_unlock(&c->mutex);
}

/* Somebody else is at it, or was: wait until it is decided. The mutex is held. */
static int join(npk__cache *c, npk__cached *h, npk__cached **out)
{
    if (h->holders++ == 0)
        unlist(c, h);
    c->waiting++;
    while (h->state == FILLING)
        pthread_cond_wait(&c->filled, &c->mutex);
    c->waiting--;
    if (h->state == READY) {
        c->hits++;
        *out = h;
        return 0;
    }
    int err = h->err;
    let_go(c, h);
    return err;
}

static int fill_new(npk__cache *c, npk__cached *h, npk__cache_fill *fill, void *ctx, npk__cached **out)
{
    pthread_mutex_unlock(&c->mutex);
    int err = fill(ctx, h->data);
    pthread_mutex_lock(&c->mutex);
    h->state = err ? FAILED : READY;
    h->err = err;
    if (c->waiting > 0)
        pthread_cond_broadcast(&c->filled);
    if (!err) {
        *out = h;
        return 0;
    }
    unchain(c, h);
    c->bytes -= h->capacity;
    let_go(c, h);
    return err;
}

/* A frame without content. Memory of another one is taken as it is where that one is spent or has to go: fresh memory
 * costs a page fault for each page, which is as much as decoding. */
static npk__cached *make_room(npk__cache *c, size_t bytes)
{
    bool full = c->bytes + bytes > c->cap;
    npk__cached *h = full || c->list[SPENT].bytes > SPENT_BYTES ? c->list[SPENT].oldest : NULL;
    if (!h && full)
        h = c->list[USED].oldest;
    if (h && bytes <= h->capacity && bytes >= h->capacity / 2) {
        take_out(c, h);
        *h = (npk__cached){.memory = h->memory, .capacity = h->capacity};
        return h;
    }
    h = calloc(1, sizeof(*h));
    if (h && !(h->memory = aligned_alloc(PAGE, (bytes + 2 * PAGE - 1) / PAGE * PAGE))) {
        free(h);
        return NULL;
    }
    if (h)
        h->capacity = bytes;
    return h;
}

int npk__cache_get(npk__cache *c, uint64_t file, uint64_t frame, size_t bytes, size_t in_page, npk__cache_fill *fill,
                   void *ctx, npk__cached **out)
{
    pthread_mutex_lock(&c->mutex);
    npk__cached *h = find(c, file, frame);
    int err;
    if (h) {
        err = join(c, h, out);
        pthread_mutex_unlock(&c->mutex);
        /* Who decoded it has the sentence; this thread needs one of its own. */
        return err ? npk__fail(err, "frame %llu: could not be read", (unsigned long long)frame) : 0;
    }
    h = make_room(c, bytes);
    if (!h) {
        pthread_mutex_unlock(&c->mutex);
        return npk__fail(-ENOMEM, "out of memory");
    }
    h->file = file;
    h->frame = frame;
    h->bytes = bytes;
    h->data = h->memory + in_page % PAGE;
    h->holders = 1;
    h->chain = *bucket_of(c, file, frame);
    *bucket_of(c, file, frame) = h;
    c->bytes += h->capacity;
    c->misses++;
    shrink(c);
    err = fill_new(c, h, fill, ctx, out);
    pthread_mutex_unlock(&c->mutex);
    return err;
}
