/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "pkg_cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "fail.h"

#define BUCKETS 4096

struct npk__cached {
    uint64_t file, frame;
    size_t bytes;
    unsigned holders;
    enum { FILLING, READY, FAILED } state;
    int err;                    /* of a fill that failed */
    npk__cached *chain;         /* of the bucket */
    npk__cached *newer, *older; /* among those that nobody holds */
    uint8_t *data;
};

struct npk__cache {
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    uint64_t cap, bytes, hits, misses;
    npk__cached *newest, *oldest;
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
    *(h->newer ? &h->newer->older : &c->newest) = h->older;
    *(h->older ? &h->older->newer : &c->oldest) = h->newer;
    h->newer = h->older = NULL;
}

static void destroy(npk__cached *h)
{
    free(h->data);
    free(h);
}

static void shrink(npk__cache *c)
{
    while (c->bytes > c->cap && c->oldest) {
        npk__cached *h = c->oldest;
        unlist(c, h);
        unchain(c, h);
        c->bytes -= h->bytes;
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
    h->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = h;
    c->newest = h;
    shrink(c);
}

void npk__cache_put(npk__cache *c, npk__cached *h)
{
    pthread_mutex_lock(&c->mutex);
    let_go(c, h);
    pthread_mutex_unlock(&c->mutex);
}

/* Somebody else is at it, or was: wait until it is decided. The mutex is held. */
static int join(npk__cache *c, npk__cached *h, npk__cached **out)
{
    if (h->holders++ == 0)
        unlist(c, h);
    while (h->state == FILLING)
        pthread_cond_wait(&c->filled, &c->mutex);
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
    pthread_cond_broadcast(&c->filled);
    if (!err) {
        *out = h;
        return 0;
    }
    unchain(c, h);
    c->bytes -= h->bytes;
    let_go(c, h);
    return err;
}

/* A frame without content. Where another one has to go for it, its memory is taken as it is: fresh memory costs a page
 * fault for each page, which is as much as decoding. */
static npk__cached *make_room(npk__cache *c, size_t bytes)
{
    npk__cached *h = c->oldest;
    if (h && h->bytes == bytes && c->bytes + bytes > c->cap) {
        unlist(c, h);
        unchain(c, h);
        c->bytes -= bytes;
        *h = (npk__cached){.data = h->data};
        return h;
    }
    h = calloc(1, sizeof(*h));
    if (h && !(h->data = malloc(bytes > 0 ? bytes : 1))) {
        free(h);
        h = NULL;
    }
    return h;
}

int npk__cache_get(npk__cache *c, uint64_t file, uint64_t frame, size_t bytes, npk__cache_fill *fill, void *ctx,
                   npk__cached **out)
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
    h->holders = 1;
    h->chain = *bucket_of(c, file, frame);
    *bucket_of(c, file, frame) = h;
    c->bytes += bytes;
    c->misses++;
    shrink(c);
    err = fill_new(c, h, fill, ctx, out);
    pthread_mutex_unlock(&c->mutex);
    return err;
}
