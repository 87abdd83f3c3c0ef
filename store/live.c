/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "live.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_SHIFT 16
#define CHUNK_MASK  (NPK__CHUNK_ROWS - 1)
#define CHUNK_WORDS (NPK__CHUNK_ROWS / 64)
#define BLOCK_ROWS  256u
#define BLOCK_WORDS (BLOCK_ROWS / 64)
#define BLOCKS      (NPK__CHUNK_ROWS / BLOCK_ROWS)

struct chunk {
    atomic_uint refs;
    uint32_t deleted;
    uint16_t before[BLOCKS]; /* deleted rows of the chunk before each block */
    uint64_t bits[CHUNK_WORDS];
};

struct npk_live {
    atomic_uint refs;
    uint64_t deleted;
    size_t count;         /* chunks that the table has room for: a power of two, or 0 */
    struct chunk **chunk; /* NULL: no deleted row in it */
    uint64_t *tree;       /* Fenwick tree of deleted rows, tree[1] to tree[count] */
};

/* What a missing chunk looks like to whoever asks for its words. */
static const uint64_t all_live[CHUNK_WORDS] = {[0 ... CHUNK_WORDS - 1] = UINT64_MAX};

/* ---- words ----------------------------------------------------------------------------------------------------- */

static inline unsigned ones(uint64_t w)
{
#ifdef __POPCNT__
    return (unsigned)__builtin_popcountll(w);
#else
    w -= (w >> 1) & 0x5555555555555555u;
    w = (w & 0x3333333333333333u) + ((w >> 2) & 0x3333333333333333u);
    return (unsigned)((((w + (w >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u) >> 56);
#endif
}

/* The position of the n-th set bit (from 0) of a word that has more than n. */
static inline unsigned select_bit(uint64_t w, unsigned n)
{
    /* Sums of the bytes up to each one, then the byte in which the count passes n, then its bits one by one. */
    uint64_t s = w - ((w >> 1) & 0x5555555555555555u);
    s = (s & 0x3333333333333333u) + ((s >> 2) & 0x3333333333333333u);
    s = ((s + (s >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u;
    uint64_t at_most = ((n | 0x80u) * 0x0101010101010101u - s) & 0x8080808080808080u; /* 0x80: sum <= n */
    unsigned at = ones(at_most) * 8;
    n -= at ? (unsigned)((s >> (at - 8)) & 0xff) : 0;
    unsigned byte = (unsigned)(w >> at) & 0xff;
    for (; n > 0; n--)
        byte &= byte - 1;
    return at + (unsigned)__builtin_ctz(byte);
}

/* Bits [from, to) of a word; from < 64, to <= 64. */
static inline uint64_t span(unsigned from, unsigned to)
{
    return (UINT64_MAX << from) & (UINT64_MAX >> (64 - to));
}

/* A chunk all of whose rows are deleted is this one. It has one reference more than there are, so that nobody takes it
 * for his alone. */
static struct chunk all_dead = {.refs = 2, .deleted = NPK__CHUNK_ROWS};

__attribute__((constructor)) static void make_all_dead(void)
{
    for (unsigned i = 0; i < BLOCKS; i++)
        all_dead.before[i] = (uint16_t)(i * BLOCK_ROWS);
}

/* ---- references ------------------------------------------------------------------------------------------------ */

static void chunk_unref(struct chunk *c)
{
    if (c && atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1)
        free(c);
}

npk_live *npk__live_new(void)
{
    npk_live *l = calloc(1, sizeof(*l));
    if (l)
        atomic_init(&l->refs, 1);
    return l;
}

npk_live *npk__live_ref(npk_live *l)
{
    if (l)
        atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
    return l;
}

void npk__live_unref(npk_live **live)
{
    npk_live *l = *live;
    *live = NULL;
    if (!l || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < l->count; i++)
        chunk_unref(l->chunk[i]);
    free(l->chunk);
    free(l->tree);
    free(l);
}

static int make_table(npk_live *l, size_t count)
{
    l->chunk = calloc(count, sizeof(struct chunk *));
    l->tree = calloc(count + 1, sizeof(*l->tree));
    if (!l->chunk || !l->tree) {
        free(l->chunk);
        free(l->tree);
        l->chunk = NULL;
        l->tree = NULL;
        return -ENOMEM;
    }
    l->count = count;
    return 0;
}

int npk__live_own(npk_live **live)
{
    npk_live *l = *live;
    if (atomic_load_explicit(&l->refs, memory_order_acquire) == 1)
        return 0;
    npk_live *own = npk__live_new();
    if (!own)
        return -ENOMEM;
    if (l->count && make_table(own, l->count) != 0) {
        free(own);
        return -ENOMEM;
    }
    for (size_t i = 0; i < l->count; i++) {
        own->chunk[i] = l->chunk[i];
        if (own->chunk[i])
            atomic_fetch_add_explicit(&own->chunk[i]->refs, 1, memory_order_relaxed);
    }
    if (l->count)
        memcpy(own->tree, l->tree, (l->count + 1) * sizeof(*l->tree));
    own->deleted = l->deleted;
    npk__live_unref(live);
    *live = own;
    return 0;
}

/* ---- changes --------------------------------------------------------------------------------------------------- */

static void tree_add(npk_live *l, size_t chunk, int64_t n)
{
    for (size_t i = chunk + 1; i <= l->count; i += i & -i)
        l->tree[i] += (uint64_t)n;
}

/* Room for chunk number `chunk`. The tree of twice the size has the same nodes, and one more that sums them all. */
static int make_room(npk_live *l, size_t chunk)
{
    if (chunk < l->count)
        return 0;
    size_t count = l->count ? l->count : 1;
    while (count <= chunk)
        count *= 2;
    struct chunk **chunks = realloc(l->chunk, count * sizeof(struct chunk *));
    if (!chunks)
        return -ENOMEM;
    l->chunk = chunks;
    uint64_t *tree = realloc(l->tree, (count + 1) * sizeof(*tree));
    if (!tree)
        return -ENOMEM;
    l->tree = tree;
    memset(chunks + l->count, 0, (count - l->count) * sizeof(struct chunk *));
    memset(tree + l->count + 1, 0, (count - l->count) * sizeof(*tree));
    tree[0] = 0;
    for (size_t i = (l->count ? l->count : 1) * 2; i <= count && l->count; i *= 2)
        tree[i] = l->deleted;
    l->count = count;
    return 0;
}

/* The chunk, ours alone, to be changed. */
static struct chunk *own_chunk(npk_live *l, size_t at)
{
    struct chunk *old = l->chunk[at];
    if (old && atomic_load_explicit(&old->refs, memory_order_acquire) == 1)
        return old;
    struct chunk *c = malloc(sizeof(*c));
    if (!c)
        return NULL;
    if (old) {
        c->deleted = old->deleted;
        memcpy(c->before, old->before, sizeof(c->before));
        memcpy(c->bits, old->bits, sizeof(c->bits));
        chunk_unref(old);
    } else {
        c->deleted = 0;
        memset(c->before, 0, sizeof(c->before));
        memset(c->bits, 0xff, sizeof(c->bits));
    }
    atomic_init(&c->refs, 1);
    l->chunk[at] = c;
    return c;
}

/* Rows [from, to) of a chunk, to > from; how many of them changed. */
static unsigned mark_bits(struct chunk *c, unsigned from, unsigned to, bool deleted)
{
    unsigned changed = 0, first = from / 64, last = (to - 1) / 64;
    for (unsigned w = first; w <= last;) {
        unsigned block = w / BLOCK_WORDS, n = 0;
        for (; w <= last && w / BLOCK_WORDS == block; w++) {
            uint64_t mask = span(w == first ? from % 64 : 0, w == last ? (to - 1) % 64 + 1 : 64);
            uint64_t hit = mask & (deleted ? c->bits[w] : ~c->bits[w]);
            c->bits[w] ^= hit;
            n += ones(hit);
        }
        if (n == 0)
            continue;
        changed += n;
        uint16_t by = (uint16_t)(deleted ? n : 0u - n);
        for (unsigned later = block + 1; later < BLOCKS; later++)
            c->before[later] = (uint16_t)(c->before[later] + by);
    }
    return changed;
}

static int mark_in_chunk(npk_live *l, size_t at, unsigned from, unsigned to, bool deleted, uint64_t *changed)
{
    if (!deleted && (at >= l->count || !l->chunk[at]))
        return 0;
    int err = make_room(l, at);
    if (err)
        return err;
    unsigned was = l->chunk[at] ? l->chunk[at]->deleted : 0, now = deleted ? NPK__CHUNK_ROWS : 0;
    if (was == now)
        return 0;
    if (to - from < NPK__CHUNK_ROWS) {
        struct chunk *c = own_chunk(l, at);
        if (!c)
            return -ENOMEM;
        unsigned n = mark_bits(c, from, to, deleted);
        now = was + (deleted ? n : 0u - n);
        c->deleted = now;
    }
    if (now == 0 || now == NPK__CHUNK_ROWS) {
        chunk_unref(l->chunk[at]);
        l->chunk[at] = now ? &all_dead : NULL;
        if (now)
            atomic_fetch_add_explicit(&all_dead.refs, 1, memory_order_relaxed);
    }
    l->deleted += (uint64_t)now - was;
    tree_add(l, at, (int64_t)now - (int64_t)was);
    *changed += now > was ? now - was : was - now;
    return 0;
}

int npk__live_mark(npk_live *l, uint64_t start, uint64_t count, bool deleted, uint64_t *changed)
{
    uint64_t n = 0;
    int err = 0;
    if (start > NPK__LIVE_ROWS || count > NPK__LIVE_ROWS - start)
        return -ERANGE;
    for (uint64_t row = start, end = start + count; row < end && !err;) {
        unsigned from = (unsigned)(row & CHUNK_MASK);
        uint64_t rest = end - row, room = NPK__CHUNK_ROWS - from;
        unsigned to = from + (unsigned)(rest < room ? rest : room);
        err = mark_in_chunk(l, (size_t)(row >> CHUNK_SHIFT), from, to, deleted, &n);
        row += to - from;
    }
    if (changed)
        *changed += n;
    return err;
}

int npk__live_cut(npk_live *l, uint64_t rows)
{
    uint64_t end = (uint64_t)l->count << CHUNK_SHIFT;
    return rows < end ? npk__live_mark(l, rows, end - rows, false, NULL) : 0;
}

/* ---- questions ------------------------------------------------------------------------------------------------- */

static inline const struct chunk *chunk_of(const npk_live *l, uint64_t row)
{
    uint64_t at = row >> CHUNK_SHIFT;
    return at < l->count ? l->chunk[at] : NULL;
}

bool npk__live_is_deleted(const npk_live *l, uint64_t row)
{
    const struct chunk *c = chunk_of(l, row);
    return c && !(c->bits[(row & CHUNK_MASK) / 64] >> (row % 64) & 1);
}

uint64_t npk__live_deleted(const npk_live *l)
{
    return l->deleted;
}

uint64_t npk__live_end(const npk_live *l)
{
    for (size_t i = l->count; i-- > 0;) {
        const struct chunk *c = l->chunk[i];
        for (size_t w = c ? CHUNK_WORDS : 0; w-- > 0;)
            if (~c->bits[w])
                return ((uint64_t)i << CHUNK_SHIFT) + w * 64 + 64 - (unsigned)__builtin_clzll(~c->bits[w]);
    }
    return 0;
}

uint64_t npk__live_rank(const npk_live *l, uint64_t physical)
{
    uint64_t at = physical >> CHUNK_SHIFT, deleted = 0;
    if (at >= l->count)
        return physical - l->deleted;
    for (size_t i = (size_t)at; i > 0; i &= i - 1)
        deleted += l->tree[i];
    const struct chunk *c = l->chunk[at];
    if (c) {
        unsigned row = (unsigned)(physical & CHUNK_MASK), block = row / BLOCK_ROWS;
        deleted += c->before[block];
        for (unsigned w = block * BLOCK_WORDS; w < row / 64; w++)
            deleted += 64 - ones(c->bits[w]);
        if (row % 64)
            deleted += ones(~c->bits[row / 64] & span(0, row % 64));
    }
    return physical - deleted;
}

/* The n-th live row of a chunk that has more than n. */
static inline unsigned select_in_chunk(const struct chunk *c, unsigned n)
{
    unsigned block = 0;
    for (unsigned step = BLOCKS / 2; step > 0; step /= 2) {
        unsigned next = block + step;
        block = next * BLOCK_ROWS - c->before[next] <= n ? next : block;
    }
    n -= block * BLOCK_ROWS - c->before[block];
    unsigned w = block * BLOCK_WORDS;
    for (unsigned live = ones(c->bits[w]); live <= n; live = ones(c->bits[++w]))
        n -= live;
    return w * 64 + select_bit(c->bits[w], n);
}

uint64_t npk__live_select(const npk_live *l, uint64_t logical)
{
    size_t at = 0;
    uint64_t n = logical;
    for (size_t step = l->count; step > 0; step /= 2) {
        size_t next = at + step;
        if (next > l->count)
            continue;
        uint64_t live = ((uint64_t)step << CHUNK_SHIFT) - l->tree[next];
        if (live <= n) {
            n -= live;
            at = next;
        }
    }
    const struct chunk *c = at < l->count ? l->chunk[at] : NULL;
    return ((uint64_t)at << CHUNK_SHIFT) + (c ? select_in_chunk(c, (unsigned)n) : n);
}

void npk__live_select_ascending(const npk_live *l, uint64_t *rows, size_t count, size_t stride)
{
    uint64_t before = 0; /* live rows before the chunk */
    size_t at = 0;
    for (size_t i = 0; i < count; i++, rows += stride) {
        for (; at < l->count; at++) {
            uint64_t live = NPK__CHUNK_ROWS - (l->chunk[at] ? l->chunk[at]->deleted : 0);
            if (*rows < before + live)
                break;
            before += live;
        }
        const struct chunk *c = at < l->count ? l->chunk[at] : NULL;
        uint64_t n = *rows - before;
        *rows = ((uint64_t)at << CHUNK_SHIFT) + (c ? select_in_chunk(c, (unsigned)n) : n);
    }
}

/* ---- many rows in any order ------------------------------------------------------------------------------------ */

#define HINT_SHIFT 12

struct npk_live_index {
    const npk_live *live;
    size_t hints;
    uint64_t *before; /* live rows before each chunk, and before the end of the table */
    float *per_row;   /* blocks of a chunk for each of its live rows: where to look first */
    uint32_t *hint;   /* the chunk of every 4096th live row */
};

void npk__live_index_free(npk_live_index *x)
{
    if (!x)
        return;
    free(x->before);
    free(x->per_row);
    free(x->hint);
    free(x);
}

npk_live_index *npk__live_index_make(const npk_live *l)
{
    npk_live_index *x = calloc(1, sizeof(*x));
    if (!x)
        return NULL;
    uint64_t all = ((uint64_t)l->count << CHUNK_SHIFT) - l->deleted;
    x->live = l;
    x->hints = (size_t)(all >> HINT_SHIFT) + 1;
    x->before = malloc((l->count + 1) * sizeof(*x->before));
    x->per_row = malloc((l->count + 1) * sizeof(*x->per_row));
    x->hint = malloc((x->hints + 1) * sizeof(*x->hint));
    if (!x->before || !x->per_row || !x->hint) {
        npk__live_index_free(x);
        return NULL;
    }
    size_t next = 0;
    uint64_t sum = 0;
    for (size_t i = 0; i < l->count; i++) {
        unsigned live = NPK__CHUNK_ROWS - (l->chunk[i] ? l->chunk[i]->deleted : 0);
        x->before[i] = sum;
        x->per_row[i] = live ? (float)BLOCKS / (float)live : 0;
        sum += live;
        for (; next < x->hints && (uint64_t)next << HINT_SHIFT < sum; next++)
            x->hint[next] = (uint32_t)i;
    }
    x->before[l->count] = sum;
    for (; next <= x->hints; next++)
        x->hint[next] = (uint32_t)l->count;
    return x;
}

/* Bits that the processor counts itself. */
#if defined(__x86_64__)
#define FAST __attribute__((target("popcnt,bmi,bmi2")))
static inline __attribute__((always_inline)) unsigned nth_bit(uint64_t w, unsigned n, bool fast)
{
    if (!fast)
        return select_bit(w, n);
    uint64_t only;
    __asm__("pdepq %2, %1, %0" : "=r"(only) : "r"(UINT64_C(1) << n), "r"(w));
    return (unsigned)__builtin_ctzll(only);
}

static bool is_fast(void)
{
    static atomic_int known; /* 1 yes, 2 no */
    int is = atomic_load_explicit(&known, memory_order_relaxed);
    if (is == 0) { /* the first two generations of AMD's Zen take hundreds of cycles for a pdep */
        __builtin_cpu_init();
        is = __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi2") && !__builtin_cpu_is("znver1") &&
                     !__builtin_cpu_is("znver2")
                 ? 1
                 : 2;
        atomic_store_explicit(&known, is, memory_order_relaxed);
    }
    return is == 1;
}
#else
#define FAST
static inline __attribute__((always_inline)) unsigned nth_bit(uint64_t w, unsigned n, bool fast)
{
    (void)fast;
    return select_bit(w, n);
}

static bool is_fast(void)
{
    return false;
}
#endif

static inline __attribute__((always_inline)) unsigned count_ones(uint64_t w, bool fast)
{
    return fast ? (unsigned)__builtin_popcountll(w) : ones(w);
}

static inline unsigned live_before(const struct chunk *c, unsigned block)
{
    return block * BLOCK_ROWS - c->before[block];
}

/* The block of the n-th live row: where rows are deleted evenly the first guess or its neighbour. */
static inline __attribute__((always_inline)) unsigned find_block(const struct chunk *c, unsigned n, float per_row)
{
    unsigned block = (unsigned)((float)n * per_row), low = 0;
    if (block >= BLOCKS)
        block = BLOCKS - 1;
    block -= (block > 0) & (live_before(c, block) > n); /* by arithmetic: half of the guesses are off by one */
    unsigned more = block + 1 < BLOCKS;
    block += more & (live_before(c, block + more) <= n);
    if (__builtin_expect(live_before(c, block) <= n && (block + 1 == BLOCKS || live_before(c, block + 1) > n), 1))
        return block;
    for (unsigned step = BLOCKS / 2; step > 0; step /= 2)
        low = live_before(c, low + step) <= n ? low + step : low;
    return low;
}

static inline __attribute__((always_inline)) unsigned find_in_chunk(const struct chunk *c, unsigned n, float per_row,
                                                                    bool fast)
{
    unsigned block = find_block(c, n, per_row), sum = 0, word = 0, skipped = 0;
    const uint64_t *bits = c->bits + block * BLOCK_WORDS;
    n -= live_before(c, block);
    for (unsigned i = 0; i < BLOCK_WORDS - 1; i++) { /* without a branch: which word it is cannot be foreseen */
        sum += count_ones(bits[i], fast);
        bool behind = sum <= n;
        word += behind;
        skipped = behind ? sum : skipped;
    }
    return (block * BLOCK_WORDS + word) * 64 + nth_bit(bits[word], n - skipped, fast);
}

static inline __attribute__((always_inline)) void select_list(const npk_live_index *x, const int64_t *logical,
                                                              size_t count, uint64_t rows_shown, const uint8_t *data,
                                                              size_t row_bytes, int64_t *out, bool fast)
{
    const npk_live *l = x->live;
    for (size_t i = 0; i < count; i++) {
        uint64_t row = (uint64_t)logical[i] + (logical[i] < 0 ? rows_shown : 0);
        size_t hint = (size_t)(row >> HINT_SHIFT), at = x->hint[hint < x->hints ? hint : x->hints];
        while (at < l->count && x->before[at + 1] <= row)
            at++;
        const struct chunk *c = at < l->count ? l->chunk[at] : NULL;
        uint64_t n = row - x->before[at];
        row = ((uint64_t)at << CHUNK_SHIFT) + (c ? find_in_chunk(c, (unsigned)n, x->per_row[at], fast) : n);
        out[i] = (int64_t)row;
        if (data) {
            __builtin_prefetch(data + row * row_bytes, 0, 3);
            __builtin_prefetch(data + row * row_bytes + row_bytes - 1, 0, 3);
        }
    }
}

FAST static void select_fast(const npk_live_index *x, const int64_t *logical, size_t count, uint64_t rows_shown,
                             const uint8_t *data, size_t row_bytes, int64_t *out)
{
    select_list(x, logical, count, rows_shown, data, row_bytes, out, true);
}

void npk__live_select_many(const npk_live_index *x, const int64_t *logical, size_t count, uint64_t rows_shown,
                           const void *data, size_t row_bytes, int64_t *out)
{
    if (is_fast())
        select_fast(x, logical, count, rows_shown, data, row_bytes, out);
    else
        select_list(x, logical, count, rows_shown, data, row_bytes, out, false);
}

/* From row on, the first one whose bit is `live`; the end of the table if there is none. */
static uint64_t next_row(const npk_live *l, uint64_t row, bool live)
{
    uint64_t end = (uint64_t)l->count << CHUNK_SHIFT;
    while (row < end) {
        const struct chunk *c = l->chunk[row >> CHUNK_SHIFT];
        if (!c) {
            if (live)
                return row;
            row = (row | CHUNK_MASK) + 1;
            continue;
        }
        for (unsigned w = (unsigned)(row & CHUNK_MASK) / 64; w < CHUNK_WORDS; w++, row = (row | 63) + 1) {
            uint64_t bits = (live ? c->bits[w] : ~c->bits[w]) & (UINT64_MAX << row % 64);
            if (bits)
                return (row & ~UINT64_C(63)) + (unsigned)__builtin_ctzll(bits);
        }
    }
    return end;
}

bool npk__live_next_deleted(const npk_live *l, uint64_t from, uint64_t *start, uint64_t *stop)
{
    uint64_t end = (uint64_t)l->count << CHUNK_SHIFT, first = next_row(l, from, false);
    if (first >= end)
        return false;
    *start = first;
    *stop = next_row(l, first, true);
    return true;
}

const uint64_t *npk__live_words(const npk_live *l, uint64_t row, uint64_t *rows)
{
    const struct chunk *c = chunk_of(l, row);
    *rows = NPK__CHUNK_ROWS - (row & CHUNK_MASK);
    return (c ? c->bits : all_live) + (row & CHUNK_MASK) / 64;
}

void npk__live_memory(const npk_live *l, size_t *bits, size_t *index)
{
    *bits = 0;
    *index = sizeof(*l) + l->count * (sizeof(struct chunk *) + sizeof(uint64_t)) + sizeof(uint64_t);
    for (size_t i = 0; i < l->count; i++) {
        if (!l->chunk[i] || l->chunk[i] == &all_dead)
            continue;
        *bits += sizeof(l->chunk[i]->bits);
        *index += sizeof(*l->chunk[i]) - sizeof(l->chunk[i]->bits);
    }
}
