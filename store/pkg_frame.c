/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "pkg_frame.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "delta.h"
#include "fail.h"
#include "planes.h"

struct npk__codec {
    ZSTD_CCtx *compress;
    ZSTD_DCtx *expand;
    int level; /* that `compress` is set to */
    uint8_t *work[2];
    size_t work_bytes[2];
};

#define TABLE_LEVEL 3

npk__codec *npk__codec_new(void)
{
    npk__codec *c = calloc(1, sizeof(*c));
    if (c)
        c->level = INT32_MIN;
    return c;
}

void npk__codec_free(npk__codec *c)
{
    if (!c)
        return;
    ZSTD_freeCCtx(c->compress);
    ZSTD_freeDCtx(c->expand);
    free(c->work[0]);
    free(c->work[1]);
    free(c);
}

static uint8_t *work(npk__codec *c, unsigned which, size_t bytes)
{
    if (c->work_bytes[which] < bytes) {
        free(c->work[which]);
        c->work[which] = malloc(bytes);
        c->work_bytes[which] = c->work[which] ? bytes : 0;
    }
    return c->work[which];
}

static int set_level(npk__codec *c, int level)
{
    if (!c->compress && !(c->compress = ZSTD_createCCtx()))
        return -ENOMEM;
    if (c->level == level)
        return 0;
    /* A compression that found no room has left its session open. */
    ZSTD_CCtx_reset(c->compress, ZSTD_reset_session_only);
    if (ZSTD_isError(ZSTD_CCtx_setParameter(c->compress, ZSTD_c_compressionLevel, level)))
        return -EIO;
    c->level = level;
    return 0;
}

/* 0: it became smaller by enough; 1: it stays as it is. */
static int squeeze(npk__codec *c, int level, const uint8_t *data, size_t bytes, uint8_t *out, size_t *stored)
{
    /* Less than 3 % is not worth the time of expanding it. With no more room than that zstd gives up early. */
    size_t room = bytes < 256 ? (bytes > 0 ? bytes - 1 : 0) : bytes - bytes / 32;
    int err = set_level(c, level);
    if (err)
        return err;
    size_t n = room > 0 ? ZSTD_compress2(c->compress, out, room, data, bytes) : 0;
    if (n == 0 || ZSTD_isError(n))
        return 1;
    *stored = n;
    return 0;
}

static int expand(npk__codec *c, const uint8_t *in, size_t stored, uint8_t *out, size_t bytes)
{
    if (!c->expand && !(c->expand = ZSTD_createDCtx()))
        return -ENOMEM;
    size_t n = ZSTD_decompressDCtx(c->expand, out, bytes, in, stored);
    return ZSTD_isError(n) || n != bytes ? -EIO : 0;
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

static size_t stream_count(const npk__pkg_record *r)
{
    return r->planes == NPK__PKG_WHOLE ? 1 : r->item;
}

size_t npk__frame_bound(const npk__pkg_record *r, size_t bytes)
{
    return bytes + 4 * stream_count(r);
}

static bool all_zeros(const uint8_t *data, size_t bytes)
{
    return data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0;
}

/* The filter: *out points to the result, which is the data itself where there is nothing to do. Whole items only. */
static int apply(npk__codec *c, const npk__pkg_record *r, const uint8_t *data, size_t items, const uint8_t **out)
{
    size_t bytes = items * r->item;
    unsigned next = 0;
    *out = data;
    if ((r->change == NPK__PKG_SAME && r->planes == NPK__PKG_WHOLE) || bytes == 0)
        return 0;
    if (!work(c, 0, bytes) || !work(c, 1, bytes))
        return -ENOMEM;
    if (r->change == NPK__PKG_DELTA)
        kn_delta(c->work[next], data, items, r->item, r->distance);
    else if (r->change == NPK__PKG_TURN)
        kn_turn(c->work[next], data, items, r->item);
    if (r->change != NPK__PKG_SAME)
        *out = c->work[next++];
    if (r->planes == NPK__PKG_WHOLE)
        return 0;
    if (r->item > 1) {
        kn_planes_split(c->work[next & 1], *out, items, r->item);
        *out = c->work[next++ & 1];
    }
    if (r->planes == NPK__PKG_BITS) {
        uint8_t *to = c->work[next & 1];
        for (size_t p = 0; p < r->item; p++)
            kn_bits_split(to + p * items, *out + p * items, items);
        *out = to;
    }
    return 0;
}

int npk__frame_encode(npk__codec *c, const npk__pkg_record *r, int level, const uint8_t *data, size_t bytes,
                      uint8_t *out, size_t *stored)
{
    if (all_zeros(data, bytes)) {
        *stored = 0;
        return 0;
    }
    size_t streams = stream_count(r), item = r->item > 0 ? r->item : 1, items = bytes / item;
    size_t length = streams == 1 ? items * item : items, at = 4 * streams;
    const uint8_t *from;
    int err = apply(c, r, data, items, &from);
    for (size_t s = 0; s < streams && !err; s++, from += length) {
        size_t n = 0;
        err = squeeze(c, level, from, length, out + at, &n);
        uint32_t size = (uint32_t)n;
        if (err == 1) {
            memcpy(out + at, from, length);
            n = length;
            size = (uint32_t)length | NPK__PKG_ZEROS;
            err = 0;
        }
        memcpy(out + 4 * s, &size, 4);
        at += n;
    }
    if (err)
        return err;
    /* A part of an item at the end of a file that is not whole. */
    memcpy(out + at, data + items * item, bytes - items * item);
    *stored = at + bytes - items * item;
    return 0;
}

/* The streams to `to`, one after another, `length` bytes each. */
static int expand_streams(npk__codec *c, size_t streams, size_t length, const uint8_t *in, size_t stored, uint8_t *to,
                          size_t *used)
{
    if (stored < 4 * streams)
        return -EIO;
    size_t at = 4 * streams;
    for (size_t s = 0; s < streams; s++, to += length) {
        uint32_t size;
        memcpy(&size, in + 4 * s, 4);
        bool raw = size & NPK__PKG_ZEROS;
        size &= ~NPK__PKG_ZEROS;
        if (size > stored - at || (raw && size != length))
            return -EIO;
        if (raw) {
            memcpy(to, in + at, length);
        } else {
            int err = expand(c, in + at, size, to, length);
            if (err)
                return err;
        }
        at += size;
    }
    *used = at;
    return 0;
}

/* The planes in work[0] back to items in out. */
static void join(npk__codec *c, const npk__pkg_record *r, uint8_t *out, size_t items)
{
    const uint8_t *from = c->work[0];
    if (r->planes == NPK__PKG_BITS) {
        uint8_t *to = r->item > 1 ? c->work[1] : out;
        for (size_t p = 0; p < r->item; p++)
            kn_bits_join(to + p * items, from + p * items, items);
        from = to;
    }
    if (from != out)
        kn_planes_join(out, from, items, r->item);
}

int npk__frame_decode(npk__codec *c, const npk__pkg_record *r, const uint8_t *in, size_t stored, uint8_t *out,
                      size_t bytes)
{
    if (stored == 0) {
        memset(out, 0, bytes);
        return 0;
    }
    size_t streams = stream_count(r), item = r->item > 0 ? r->item : 1, items = bytes / item, whole = items * item;
    size_t length = streams == 1 ? whole : items, used = 0;
    bool direct = r->planes == NPK__PKG_WHOLE;
    if (!direct && (!work(c, 0, whole + 1) || !work(c, 1, whole + 1)))
        return -ENOMEM;
    int err = expand_streams(c, streams, length, in, stored, direct ? out : c->work[0], &used);
    if (err)
        return err;
    if (stored - used != bytes - whole)
        return -EIO;
    memcpy(out + whole, in + used, bytes - whole);
    if (!direct)
        join(c, r, out, items);
    if (r->change == NPK__PKG_DELTA)
        kn_undelta(out, items, r->item, r->distance);
    else if (r->change == NPK__PKG_TURN)
        kn_unturn(out, out, items, r->item);
    return 0;
}

uint64_t npk__frame_hash(const npk__pkg_record *r, uint64_t frame, const uint8_t *payload, size_t stored)
{
    return XXH64(payload, stored, r->hash + frame);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

int npk__block_encode(npk__codec *c, const uint8_t *data, size_t bytes, uint8_t *out, size_t *stored)
{
    int err = squeeze(c, TABLE_LEVEL, data, bytes, out, stored);
    if (err == 1) {
        memcpy(out, data, bytes);
        *stored = bytes;
        err = 0;
    }
    return err;
}

int npk__block_decode(npk__codec *c, const uint8_t *in, size_t stored, uint8_t *out, size_t bytes)
{
    if (stored > bytes)
        return -EIO;
    if (stored == bytes) {
        memcpy(out, in, bytes);
        return 0;
    }
    return expand(c, in, stored, out, bytes);
}
