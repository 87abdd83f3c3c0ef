/* SPDX-License-Identifier: Apache-2.0 */
#include "planes.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#endif

/* ---- the definition ---------------------------------------------------------------------------------------------- */

/* Items of one tile: what a plane gets from a tile is a few cache lines, so that the lines that are written are whole
 * and the items that are read stay in the first cache while the planes pass over them. */
#define TILE_BYTES 8192

static inline void split_from(uint8_t *restrict out, const uint8_t *restrict in, size_t first, size_t items,
                              size_t item_bytes)
{
    size_t tile = TILE_BYTES / item_bytes > 0 ? TILE_BYTES / item_bytes : 1;
    for (size_t begin = first; begin < items; begin += tile) {
        size_t end = items - begin < tile ? items : begin + tile;
        for (size_t p = 0; p < item_bytes; p++) {
            uint8_t *to = out + p * items;
            const uint8_t *from = in + p;
            for (size_t i = begin; i < end; i++)
                to[i] = from[i * item_bytes];
        }
    }
}

static inline void join_from(uint8_t *restrict out, const uint8_t *restrict in, size_t first, size_t items,
                             size_t item_bytes)
{
    size_t tile = TILE_BYTES / item_bytes > 0 ? TILE_BYTES / item_bytes : 1;
    for (size_t begin = first; begin < items; begin += tile) {
        size_t end = items - begin < tile ? items : begin + tile;
        for (size_t p = 0; p < item_bytes; p++) {
            const uint8_t *from = in + p * items;
            uint8_t *to = out + p;
            for (size_t i = begin; i < end; i++)
                to[i * item_bytes] = from[i];
        }
    }
}

void kn_planes_split_plain(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t item_bytes)
{
    split_from(out, in, 0, items, item_bytes);
}

void kn_planes_join_plain(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t item_bytes)
{
    join_from(out, in, 0, items, item_bytes);
}

/* An 8 x 8 matrix of bits, row r in byte r, lowest bit first: rows become columns. */
static inline uint64_t transpose(uint64_t x)
{
    uint64_t t = (x ^ (x >> 7)) & UINT64_C(0x00AA00AA00AA00AA);
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & UINT64_C(0x0000CCCC0000CCCC);
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & UINT64_C(0x00000000F0F0F0F0);
    return x ^ t ^ (t << 28);
}

static inline void bits_split_from(uint8_t *restrict out, const uint8_t *restrict in, size_t first, size_t bytes)
{
    size_t groups = bytes / 8;
    for (size_t g = first; g < groups; g++) {
        uint64_t x = 0;
        for (unsigned r = 0; r < 8; r++)
            x |= (uint64_t)in[8 * g + r] << (8 * r);
        x = transpose(x);
        for (unsigned b = 0; b < 8; b++)
            out[b * groups + g] = (uint8_t)(x >> (8 * b));
    }
    memcpy(out + 8 * groups, in + 8 * groups, bytes % 8);
}

static inline void bits_join_from(uint8_t *restrict out, const uint8_t *restrict in, size_t first, size_t bytes)
{
    size_t groups = bytes / 8;
    for (size_t g = first; g < groups; g++) {
        uint64_t x = 0;
        for (unsigned b = 0; b < 8; b++)
            x |= (uint64_t)in[b * groups + g] << (8 * b);
        x = transpose(x);
        for (unsigned r = 0; r < 8; r++)
            out[8 * g + r] = (uint8_t)(x >> (8 * r));
    }
    memcpy(out + 8 * groups, in + 8 * groups, bytes % 8);
}

void kn_bits_split_plain(uint8_t *restrict out, const uint8_t *restrict in, size_t bytes)
{
    bits_split_from(out, in, 0, bytes);
}

void kn_bits_join_plain(uint8_t *restrict out, const uint8_t *restrict in, size_t bytes)
{
    bits_join_from(out, in, 0, bytes);
}

/* ---- AVX2 -------------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)

static inline AVX2 __m256i load(const uint8_t *from)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)from);
}

static inline AVX2 void store(uint8_t *to, __m256i x)
{
    _mm256_storeu_si256((__m256i *)(void *)to, x);
}

/* Items of 2 bytes, 32 at a time. Returns how many are done. */
static AVX2 size_t split2(uint8_t *out, const uint8_t *in, size_t items)
{
    const __m256i low = _mm256_set1_epi16(0xff);
    size_t i = 0;
    for (; i + 32 <= items; i += 32) {
        __m256i a = load(in + 2 * i), b = load(in + 2 * i + 32);
        __m256i even = _mm256_packus_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low));
        __m256i odd = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
        store(out + i, _mm256_permute4x64_epi64(even, 0xd8));
        store(out + items + i, _mm256_permute4x64_epi64(odd, 0xd8));
    }
    return i;
}

static AVX2 size_t join2(uint8_t *out, const uint8_t *in, size_t items)
{
    size_t i = 0;
    for (; i + 32 <= items; i += 32) {
        __m256i a = _mm256_permute4x64_epi64(load(in + i), 0xd8);
        __m256i b = _mm256_permute4x64_epi64(load(in + items + i), 0xd8);
        store(out + 2 * i, _mm256_unpacklo_epi8(a, b));
        store(out + 2 * i + 32, _mm256_unpackhi_epi8(a, b));
    }
    return i;
}

/* Four registers of 4 x 4 words of 32 bits per lane: rows become columns. */
static inline AVX2 void transpose4(__m256i r[4])
{
    __m256i ab_low = _mm256_unpacklo_epi32(r[0], r[1]), ab_high = _mm256_unpackhi_epi32(r[0], r[1]);
    __m256i cd_low = _mm256_unpacklo_epi32(r[2], r[3]), cd_high = _mm256_unpackhi_epi32(r[2], r[3]);
    r[0] = _mm256_unpacklo_epi64(ab_low, cd_low);
    r[1] = _mm256_unpackhi_epi64(ab_low, cd_low);
    r[2] = _mm256_unpacklo_epi64(ab_high, cd_high);
    r[3] = _mm256_unpackhi_epi64(ab_high, cd_high);
}

static AVX2 size_t split4(uint8_t *out, const uint8_t *in, size_t items)
{
    const __m256i by_plane = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5,
                                              9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    size_t i = 0;
    for (; i + 32 <= items; i += 32) {
        __m256i r[4];
        for (unsigned k = 0; k < 4; k++)
            r[k] = _mm256_shuffle_epi8(load(in + 4 * i + 32 * k), by_plane);
        transpose4(r);
        for (unsigned p = 0; p < 4; p++)
            store(out + p * items + i, _mm256_permutevar8x32_epi32(r[p], in_order));
    }
    return i;
}

static AVX2 size_t join4(uint8_t *out, const uint8_t *in, size_t items)
{
    const __m256i by_item = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5,
                                             9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m256i by_lane = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    size_t i = 0;
    for (; i + 32 <= items; i += 32) {
        __m256i r[4];
        for (unsigned p = 0; p < 4; p++)
            r[p] = _mm256_permutevar8x32_epi32(load(in + p * items + i), by_lane);
        transpose4(r);
        for (unsigned k = 0; k < 4; k++)
            store(out + 4 * i + 32 * k, _mm256_shuffle_epi8(r[k], by_item));
    }
    return i;
}

/* Eight registers of 8 x 8 words of 16 bits per lane: rows become columns. */
static inline AVX2 void transpose8(__m256i r[8])
{
    __m256i t[8], u[8];
    for (unsigned k = 0; k < 4; k++) {
        t[2 * k] = _mm256_unpacklo_epi16(r[2 * k], r[2 * k + 1]);
        t[2 * k + 1] = _mm256_unpackhi_epi16(r[2 * k], r[2 * k + 1]);
    }
    for (unsigned half = 0; half < 2; half++)
        for (unsigned k = 0; k < 2; k++) {
            u[4 * half + 2 * k] = _mm256_unpacklo_epi32(t[4 * half + k], t[4 * half + 2 + k]);
            u[4 * half + 2 * k + 1] = _mm256_unpackhi_epi32(t[4 * half + k], t[4 * half + 2 + k]);
        }
    for (unsigned k = 0; k < 4; k++) {
        r[2 * k] = _mm256_unpacklo_epi64(u[k], u[4 + k]);
        r[2 * k + 1] = _mm256_unpackhi_epi64(u[k], u[4 + k]);
    }
}

/* Items of 8 bytes, 32 at a time: eight registers of 4 items, of which each lane has 2. */
static AVX2 size_t split8(uint8_t *out, const uint8_t *in, size_t items)
{
    const __m256i pairs = _mm256_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15, 0, 8, 1, 9, 2, 10, 3,
                                           11, 4, 12, 5, 13, 6, 14, 7, 15);
    /* Of a plane, the low lane has items 0 1, 4 5, 8 9, ... and the high lane 2 3, 6 7, ... */
    size_t i = 0;
    for (; i + 32 <= items; i += 32) {
        __m256i r[8];
        for (unsigned k = 0; k < 8; k++)
            r[k] = _mm256_shuffle_epi8(load(in + 8 * i + 32 * k), pairs);
        transpose8(r);
        for (unsigned p = 0; p < 8; p++) {
            __m128i low = _mm256_castsi256_si128(r[p]), high = _mm256_extracti128_si256(r[p], 1);
            uint8_t *to = out + p * items + i;
            _mm_storeu_si128((__m128i *)(void *)to, _mm_unpacklo_epi16(low, high));
            _mm_storeu_si128((__m128i *)(void *)(to + 16), _mm_unpackhi_epi16(low, high));
        }
    }
    return i;
}

static AVX2 size_t join8(uint8_t *out, const uint8_t *in, size_t items)
{
    const __m256i halves = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12,
                                            13, 2, 3, 6, 7, 10, 11, 14, 15);
    const __m256i by_item = _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10,
                                             12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    size_t i = 0;
    for (; i + 32 <= items; i += 32) {
        __m256i r[8];
        for (unsigned p = 0; p < 8; p++) /* items 0 1 4 5 ... to the low lane, 2 3 6 7 ... to the high one */
            r[p] = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(load(in + p * items + i), halves), 0xd8);
        transpose8(r);
        for (unsigned k = 0; k < 8; k++)
            store(out + 8 * i + 32 * k, _mm256_shuffle_epi8(r[k], by_item));
    }
    return i;
}

/* 32 bytes at a time: the sign bits of all bytes are one word of a plane. */
static AVX2 size_t bits_split_avx2(uint8_t *out, const uint8_t *in, size_t bytes)
{
    size_t groups = bytes / 8, g = 0;
    for (; g + 4 <= groups; g += 4) {
        __m256i x = load(in + 8 * g);
        for (unsigned b = 8; b-- > 0;) {
            uint32_t word = (uint32_t)_mm256_movemask_epi8(x);
            memcpy(out + b * groups + g, &word, sizeof(word));
            x = _mm256_add_epi8(x, x);
        }
    }
    return g;
}

static AVX2 size_t bits_join_avx2(uint8_t *out, const uint8_t *in, size_t bytes)
{
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3,
                                            3, 3, 3, 3, 3, 3);
    const __m256i own = _mm256_set1_epi64x((long long)UINT64_C(0x8040201008040201));
    size_t groups = bytes / 8, g = 0;
    for (; g + 4 <= groups; g += 4) {
        __m256i x = _mm256_setzero_si256();
        for (unsigned b = 0; b < 8; b++) {
            int32_t word;
            memcpy(&word, in + b * groups + g, sizeof(word));
            __m256i here = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(word), spread), own);
            __m256i set = _mm256_cmpeq_epi8(here, own);
            x = _mm256_or_si256(x, _mm256_and_si256(set, _mm256_set1_epi8((char)(1u << b))));
        }
        store(out + 8 * g, x);
    }
    return g;
}

#define USE_AVX2 __builtin_cpu_supports("avx2")
#else
#define USE_AVX2 0
#endif

/* ---- what is called ---------------------------------------------------------------------------------------------- */

void kn_planes_split(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t item_bytes)
{
    size_t done = 0;
    if (item_bytes == 1) {
        memcpy(out, in, items);
        return;
    }
#if defined(__x86_64__)
    if (USE_AVX2)
        done = item_bytes == 2   ? split2(out, in, items)
               : item_bytes == 4 ? split4(out, in, items)
               : item_bytes == 8 ? split8(out, in, items)
                                 : 0;
#endif
    split_from(out, in, done, items, item_bytes);
}

void kn_planes_join(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t item_bytes)
{
    size_t done = 0;
    if (item_bytes == 1) {
        memcpy(out, in, items);
        return;
    }
#if defined(__x86_64__)
    if (USE_AVX2)
        done = item_bytes == 2   ? join2(out, in, items)
               : item_bytes == 4 ? join4(out, in, items)
               : item_bytes == 8 ? join8(out, in, items)
                                 : 0;
#endif
    join_from(out, in, done, items, item_bytes);
}

void kn_bits_split(uint8_t *restrict out, const uint8_t *restrict in, size_t bytes)
{
    size_t done = 0;
#if defined(__x86_64__)
    if (USE_AVX2)
        done = bits_split_avx2(out, in, bytes);
#endif
    bits_split_from(out, in, done, bytes);
}

void kn_bits_join(uint8_t *restrict out, const uint8_t *restrict in, size_t bytes)
{
    size_t done = 0;
#if defined(__x86_64__)
    if (USE_AVX2)
        done = bits_join_avx2(out, in, bytes);
#endif
    bits_join_from(out, in, done, bytes);
}
