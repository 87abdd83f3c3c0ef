/* SPDX-License-Identifier: Apache-2.0 */
/* search_best.c - the best k of a stream of candidates whose keys are known within bounds. */
#include <string.h>

#include "search.h"

int64_t npk__key_order(double key)
{
    int64_t bits;
    if (key != key)
        return NPK__WORST;
    key += 0.0; /* one zero */
    memcpy(&bits, &key, sizeof(bits));
    return bits >= 0 ? bits : bits ^ INT64_MAX;
}

double npk__key_value(int64_t order)
{
    double key;
    int64_t bits = order >= 0 ? order : order ^ INT64_MAX;
    if (order == NPK__WORST)
        return __builtin_nan("");
    memcpy(&key, &bits, sizeof(key));
    return key;
}

size_t npk__best_capacity(size_t k, size_t queries)
{
    /* With room for more than a block's hits, rows in ascending order do not cost a selection each few rows. For many
     * queries the caches matter more. */
    size_t room = queries <= 4 ? 1024 : 64;
    return k + (k > room ? k : room);
}

/* By the lower bound, descending; among exact ones with equal keys the smaller row first. Total, since a row is seen
 * once. */
static bool before(const npk__candidate *a, const npk__candidate *b)
{
    return a->low != b->low ? a->low > b->low : (a->row & ~NPK__EXACT) < (b->row & ~NPK__EXACT);
}

static void swap(npk__candidate *a, npk__candidate *b)
{
    npk__candidate t = *a;
    *a = *b;
    *b = t;
}

/* Move the k first ones (by `before`) to the front, in any order, the k-th of them to k - 1. Quickselect with the
 * median of three: sorted input does not make it slow, nor do equal keys, since rows differ. */
static void select_first(npk__candidate *at, size_t count, size_t k)
{
    size_t from = 0, to = count;
    while (to - from > 1) {
        size_t middle = from + (to - from) / 2, last = to - 1;
        if (before(&at[middle], &at[from]))
            swap(&at[middle], &at[from]);
        if (before(&at[last], &at[from]))
            swap(&at[last], &at[from]);
        if (before(&at[last], &at[middle]))
            swap(&at[last], &at[middle]);
        if (to - from <= 3)
            return;
        npk__candidate pivot = at[middle];
        size_t i = from, j = last;
        for (;;) {
            while (before(&at[i], &pivot))
                i++;
            while (before(&pivot, &at[j]))
                j--;
            if (i >= j)
                break;
            swap(&at[i++], &at[j--]);
        }
        /* Everything before i comes before what is behind j; i == j is the pivot in its place. */
        if (k - 1 < i)
            to = i;
        else if (i > j)
            from = i;
        else if (k - 1 > i)
            from = i + 1;
        else
            return;
    }
}

static void rescore_all(npk__best *b, npk__rescore *rescore, void *ctx)
{
    for (size_t i = 0; i < b->count && b->pending > 0; i++)
        if (!(b->at[i].row & NPK__EXACT)) {
            b->at[i].low = b->at[i].high = rescore(ctx, b->at[i].row);
            b->at[i].row |= NPK__EXACT;
            b->pending--;
        }
}

/* Drop what cannot be among the best. */
static void prune(npk__best *b)
{
    if (b->count < b->k)
        return;
    select_first(b->at, b->count, b->k);
    int64_t threshold = b->at[b->k - 1].low;
    /* The k that reach it have smaller rows than any that comes. A higher threshold is not theirs (npk__best_forget). */
    if (threshold >= b->threshold) {
        b->threshold = threshold;
        b->strict = true;
    }
    if (b->pending == 0) {
        b->count = b->k;
        return;
    }
    size_t kept = 0;
    b->pending = 0;
    for (size_t i = 0; i < b->count; i++)
        if (b->at[i].high >= b->threshold) {
            b->pending += !(b->at[i].row & NPK__EXACT);
            b->at[kept++] = b->at[i];
        }
    b->count = kept;
}

static void make_room(npk__best *b, npk__rescore *rescore, void *ctx)
{
    prune(b);
    /* Too many that the bounds cannot tell apart: near or equal scores. */
    if (b->count > b->k + (b->capacity - b->k) / 2) {
        rescore_all(b, rescore, ctx);
        prune(b);
    }
}

bool npk__best_add(npk__best *b, int64_t low, int64_t high, uint64_t row, npk__rescore *rescore, void *ctx)
{
    if (high < b->threshold || (b->strict && high == b->threshold))
        return false;
    b->at[b->count++] = (npk__candidate){low, high, row | (low == high ? NPK__EXACT : 0)};
    b->pending += low != high;
    if (b->count < b->capacity)
        return false;
    int64_t old = b->threshold;
    bool old_strict = b->strict;
    make_room(b, rescore, ctx);
    return b->threshold != old || b->strict != old_strict;
}

void npk__best_settle(npk__best *b, npk__rescore *rescore, void *ctx)
{
    prune(b);
    if (b->pending > 0) {
        rescore_all(b, rescore, ctx);
        prune(b);
    }
}

void npk__best_forget(npk__best *b)
{
    prune(b);
    b->count = b->pending = 0;
    b->strict = false;
}

static void sift_down(npk__candidate *at, size_t i, size_t count)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= count)
            return;
        if (child + 1 < count && before(&at[child], &at[child + 1]))
            child++;
        if (!before(&at[i], &at[child]))
            return;
        swap(&at[i], &at[child]);
        i = child;
    }
}

size_t npk__best_sort(npk__candidate *at, size_t count, size_t k)
{
    if (count > k) {
        select_first(at, count, k);
        count = k;
    }
    for (size_t i = count / 2; i-- > 0;)
        sift_down(at, i, count);
    for (size_t n = count; n > 1; n--) {
        swap(&at[0], &at[n - 1]);
        sift_down(at, 0, n - 1);
    }
    return count;
}
