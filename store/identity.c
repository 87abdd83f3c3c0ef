/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "identity.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io.h"
#include "sum.h"
#include "view.h"

/* ---- the fingerprint ------------------------------------------------------------------------------------------- */

static uint64_t stride_of(uint64_t data_bytes)
{
    const uint64_t least = 64; /* blocks, so that an edit of a small array does not touch them all */
    uint64_t stride = (data_bytes + NPK__BLOCKS - 1) / NPK__BLOCKS;
    stride = (stride + 4095) & ~UINT64_C(4095);
    if (stride < NPK__BLOCK_STRIDE)
        stride = NPK__BLOCK_STRIDE;
    uint64_t dense = (data_bytes / least + NPK__BLOCK_BYTES) / NPK__BLOCK_BYTES * NPK__BLOCK_BYTES;
    return dense < stride ? dense : stride;
}

/* The sum of a block; the lowest bit tells that all its bytes are one, so that it proves little. */
static uint32_t block_of(const uint8_t *bytes, size_t n)
{
    bool constant = n < 2 || memcmp(bytes, bytes + 1, n - 1) == 0;
    return ((uint32_t)npk__sum(bytes, n, n) & ~UINT32_C(1)) | constant;
}

/* The block at `offset` of the data, which has `limit` bytes: of fd, or of what is shown of it. 1: read; 0: it is not there. */
static int read_block(int fd, const npk__shown *shown, uint64_t data_offset, uint64_t offset, uint64_t limit, uint32_t *out)
{
    uint8_t bytes[NPK__BLOCK_BYTES];
    size_t n = limit - offset < sizeof(bytes) ? (size_t)(limit - offset) : sizeof(bytes);
    ssize_t got = shown ? npk__shown_read(shown, fd, offset, bytes, n) : npk__pread_full(fd, bytes, n, data_offset + offset);
    if (got < 0)
        return (int)got;
    if ((size_t)got < n)
        return 0;
    *out = block_of(bytes, n);
    return 1;
}

static int bind(int fd, const npk__shown *shown, const npk_info *info, const npk_stamp *stamp, npk_state *out)
{
    const npk_header *h = &info->header;
    uint64_t bytes = h->data_bytes, stride = stride_of(bytes);
    size_t count = (size_t)((bytes + stride - 1) / stride);
    uint32_t *blocks = malloc((count ? count : 1) * sizeof(*blocks));
    if (!blocks)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        int got = read_block(fd, shown, h->data_offset, i * stride, bytes, &blocks[i]);
        if (got <= 0) {
            free(blocks);
            return got < 0 ? got : -EIO;
        }
    }
    free(out->blocks);
    out->blocks = blocks;
    out->block_count = count;
    out->stride = stride;
    out->id = stamp->id;
    out->size = stamp->size;
    out->mtime_ns = stamp->mtime_ns;
    out->rows = info->physical_rows;
    out->row_bytes = h->row_bytes;
    out->data_offset = h->data_offset;
    memcpy(out->dtype, h->dtype.name, sizeof(out->dtype));
    return 0;
}

int npk__identity_bind(int fd, const npk_info *info, const npk_stamp *stamp, npk_state *out)
{
    return bind(fd, NULL, info, stamp, out);
}

int npk__identity_bind_copy(const npk__shown *shown, int from, const npk_info *info, const npk_stamp *stamp, npk_state *out)
{
    return bind(from, shown, info, stamp, out);
}

/* ---- the judgement --------------------------------------------------------------------------------------------- */

struct tally {
    size_t fit, unfit;               /* of all blocks */
    size_t varied_fit, varied_unfit; /* of those that are not constant */
};

/* Compare blocks. With `enough` a hundred of them that speak one language decide: they are taken in an order that goes
 * over the whole file several times. */
static int compare(int fd, const npk_info *info, const npk_state *s, bool enough, struct tally *t)
{
    uint64_t limit = s->rows * s->row_bytes;
    size_t steps = s->block_count > 256 ? 64 : 1;
    for (size_t phase = 0; phase < steps; phase++) {
        for (size_t i = phase; i < s->block_count; i += steps) {
            uint32_t now = 0;
            int got = i * s->stride >= limit ? 0 : read_block(fd, NULL, info->header.data_offset, i * s->stride, limit, &now);
            if (got < 0)
                return got;
            bool fits = got && now == s->blocks[i], constant = s->blocks[i] & 1;
            t->fit += fits;
            t->unfit += !fits;
            t->varied_fit += fits && !constant;
            t->varied_unfit += !fits && !constant;
        }
        size_t seen = t->varied_fit + t->varied_unfit;
        if (enough && seen >= 64 && t->varied_unfit * 10 <= seen)
            return 0;
    }
    return 0;
}

static bool half(const struct tally *t)
{
    return t->varied_fit >= t->varied_unfit;
}

int npk__identity_judge(int fd, const npk_info *info, const npk_stamp *stamp, const npk_state *s, bool entered,
                        npk_identity *out)
{
    const npk_header *h = &info->header;
    struct tally t = {0};
    bool same_inode = stamp->id.inode == s->id.inode && stamp->id.birth_ns == s->id.birth_ns;
    *out = NPK_ID_REPLACED;
    if (info->reason || !npk_header_is_row_array(h) || h->row_bytes != s->row_bytes ||
        strcmp(h->dtype.name, s->dtype) != 0)
        return 0;
    if (s->strict && !same_inode)
        return 0;
    if (same_inode && stamp->size == s->size && stamp->mtime_ns == s->mtime_ns) {
        *out = NPK_ID_EXACT;
        return 0;
    }
    bool may_be_half = same_inode && (entered || info->physical_rows == s->rows);
    int err = compare(fd, info, s, may_be_half, &t);
    if (err)
        return err;
    bool all = t.unfit == 0, none = t.fit == 0 && s->block_count > 0;
    /* In a session whatever happened to the rows happened through us, all of them may be others by now; only rows that
     * are missing would have been cut by somebody else. */
    bool in_session = same_inode && entered && h->data_offset == s->data_offset && info->physical_rows >= s->rows;
    if (all || in_session || (may_be_half && half(&t) && !none))
        *out = NPK_ID_SAME;
    else if (!none)
        *out = NPK_ID_DOUBT;
    return 0;
}
