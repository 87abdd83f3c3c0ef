/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pkg_cache.h - decoded frames, shared by all readers of a package, up to a number of bytes.
 *
 * A frame that several threads want at once is decoded by one of them. Frames in use are never taken away, so the cap
 * may be passed by what is in use at one moment.
 */
#ifndef NPK_PKG_CACHE_H
#define NPK_PKG_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct npk__cache npk__cache;
typedef struct npk__cached npk__cached; /* a frame that is held */

npk__cache *npk__cache_new(uint64_t cap_bytes); /* NULL without memory */
void npk__cache_free(npk__cache *c);            /* nothing may be held */
void npk__cache_set_cap(npk__cache *c, uint64_t cap_bytes);
/* Bytes that are kept at this moment, and how often a frame was there and was not. */
void npk__cache_facts(npk__cache *c, uint64_t *bytes, uint64_t *hits, uint64_t *misses);

/* Fill out[0..bytes) with the frame; a negative errno. */
typedef int npk__cache_fill(void *ctx, uint8_t *out);
/* Hold the frame (file, frame) of `bytes` bytes, decoding it by fill if it is not there; its memory then begins so many
 * bytes into a page. What fill returned, -ENOMEM. */
int npk__cache_get(npk__cache *c, uint64_t file, uint64_t frame, size_t bytes, size_t in_page, npk__cache_fill *fill,
                   void *ctx, npk__cached **out);
const uint8_t *npk__cached_data(const npk__cached *h);
/* spent: nobody is expected to want it soon, so its memory is the first to be used again. */
void npk__cache_put(npk__cache *c, npk__cached *h, bool spent);
/* Is it there already, or being decoded? */
bool npk__cache_has(npk__cache *c, uint64_t file, uint64_t frame);

#endif
