/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "pkg_filter.h"

#include <errno.h>
#include <stdlib.h>

const char *npk__filter_name(const npk__pkg_record *r)
{
    static const char *const names[3][3] = {
        {"none", "bytes", "bits"}, {"delta", "delta+bytes", "delta+bits"}, {"turn", "turn+bytes", "turn+bits"}};
    if (r->layout == NPK__PKG_CONTIGUOUS)
        return "raw";
    return r->layout == NPK__PKG_EMPTY ? "" : names[r->change % 3][r->planes % 3];
}

struct candidate {
    uint8_t change, planes;
    int8_t level;
    bool by_row; /* the delta is to the row before, not to the item before */
};

/* From cheap to dear: a later one has to be better by 1 % to be taken. Level 1 is as good as 3 on planes, and faster;
 * where bytes repeat as they are, 3 finds more of it. */
static const struct candidate candidates[] = {
    {NPK__PKG_SAME, NPK__PKG_WHOLE, 1, false},  {NPK__PKG_SAME, NPK__PKG_BYTES, 1, false},
    {NPK__PKG_SAME, NPK__PKG_BITS, 1, false},   {NPK__PKG_TURN, NPK__PKG_BYTES, 1, false},
    {NPK__PKG_DELTA, NPK__PKG_BYTES, 1, true},  {NPK__PKG_DELTA, NPK__PKG_BYTES, 1, false},
    {NPK__PKG_DELTA, NPK__PKG_BITS, 1, false},  {NPK__PKG_DELTA, NPK__PKG_WHOLE, 1, true},
    {NPK__PKG_DELTA, NPK__PKG_WHOLE, 1, false}, {NPK__PKG_SAME, NPK__PKG_WHOLE, 3, false},
    {NPK__PKG_DELTA, NPK__PKG_WHOLE, 3, true},  {NPK__PKG_SAME, NPK__PKG_BYTES, 3, false},
};

/* What the items of an array are for a filter: parts of complex numbers are numbers of their own. */
static uint32_t item_of(const npk_header *h)
{
    if (!h || h->dtype.itemsize == 0)
        return 1;
    if (h->dtype.kind == NPK_KIND_COMPLEX)
        return (uint32_t)h->dtype.itemsize / 2;
    if (h->dtype.kind == NPK_KIND_UNICODE)
        return 4;
    if (h->dtype.kind == NPK_KIND_BYTES || h->dtype.itemsize > NPK__PKG_MAX_ITEM)
        return 1;
    return (uint32_t)h->dtype.itemsize;
}

static bool is_number(uint32_t item)
{
    return item == 1 || item == 2 || item == 4 || item == 8;
}

/* Items from one to the one above it: the last dimension, or two numbers of a complex. 0: none within a frame. */
static uint32_t row_distance(const npk_header *h, uint64_t frame, uint32_t item)
{
    if (!h || h->ndim == 0 || h->dtype.itemsize == 0)
        return 0;
    uint64_t last = h->ndim > 1 ? h->shape[h->fortran ? 0 : h->ndim - 1] : 1;
    uint64_t distance = last * (h->dtype.itemsize / item);
    return distance > 1 && distance * item * 2 <= frame ? (uint32_t)distance : 0;
}

static bool set_up(const struct candidate *k, const npk_header *h, npk__pkg_record *r)
{
    uint32_t item = item_of(h);
    r->change = k->change;
    r->planes = k->planes;
    r->distance = 0;
    if (k->change != NPK__PKG_SAME && (!h || !is_number(item) || h->dtype.big_endian))
        return false;
    if (k->change == NPK__PKG_TURN &&
        (item == 1 || (h->dtype.kind != NPK_KIND_FLOAT && h->dtype.kind != NPK_KIND_COMPLEX)))
        return false;
    if (k->planes == NPK__PKG_BYTES && item == 1)
        return false;
    if (k->change == NPK__PKG_DELTA) {
        r->distance = k->by_row ? row_distance(h, r->frame, item) : 1;
        if (r->distance == 0)
            return false;
    }
    r->item = k->change == NPK__PKG_SAME && k->planes == NPK__PKG_WHOLE ? 0 : item;
    return true;
}

/* Bytes of the sample under a filter. */
static int measure(npk__codec *c, const npk__pkg_record *r, int level, const npk__sample *s, uint64_t *out)
{
    *out = 0;
    for (unsigned i = 0; i < s->count; i++) {
        uint8_t *room = malloc(npk__frame_bound(r, s->bytes[i]));
        size_t stored = 0;
        int err = room ? npk__frame_encode(c, r, level, s->data[i], s->bytes[i], room, &stored) : -ENOMEM;
        free(room);
        if (err)
            return err;
        *out += stored;
    }
    return 0;
}

int npk__filter_choose(npk__codec *c, const npk_header *h, const npk__sample *sample, npk__pkg_record *r, int *level,
                       bool *raw)
{
    uint64_t all = 0, best = UINT64_MAX;
    npk__pkg_record chosen = *r;
    int chosen_level = *level ? *level : 1;
    for (unsigned i = 0; i < sample->count; i++)
        all += sample->bytes[i];
    set_up(&candidates[0], h, &chosen);
    for (size_t i = 0; i < sizeof(candidates) / sizeof(*candidates); i++) {
        npk__pkg_record with = *r;
        uint64_t bytes;
        int with_level = *level ? *level : candidates[i].level;
        if (!set_up(&candidates[i], h, &with) || (*level && candidates[i].level != 1))
            continue;
        int err = measure(c, &with, with_level, sample, &bytes);
        if (err)
            return err;
        if (best == UINT64_MAX || bytes < best - best / 100) {
            best = bytes;
            chosen = with;
            chosen_level = with_level;
        }
        if (bytes == 0)
            break; /* zeros are zeros under any filter */
    }
    *r = chosen;
    *level = chosen_level;
    *raw = best > all - all / 32;
    return 0;
}
