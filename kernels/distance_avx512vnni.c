/* SPDX-License-Identifier: Apache-2.0 */
/* distance_avx512vnni.c - AVX-512 with VNNI and VPOPCNTDQ. Compiled for them; called where the processor has them. */
#include "distance_avx512.h"

#define LANES_I8   16
#define LANES_BITS 8

INLINE __m512i load_bytes(const uint8_t *p, size_t left)
{
    if (left >= 64)
        return _mm512_loadu_si512(p);
    return _mm512_maskz_loadu_epi8(((__mmask64)1 << left) - 1, p);
}

/* ---- int8 ------------------------------------------------------------------------------------------------------ */

/* The instruction multiplies unsigned by signed bytes: rows get 128 added (their highest bit flipped), and the sums
 * begin at -128 times the sum of the query. */
INLINE void dots_i8(const int8_t *q, const uint8_t *x, size_t dim, unsigned nq, const int32_t *start, float *out)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    __m512i even[KN_FEW], odd[KN_FEW];
    for (unsigned j = 0; j < nq; j++)
        even[j] = odd[j] = _mm512_setzero_si512();
    size_t k = 0;
    for (; k + 128 <= dim; k += 128) {
        __m512i x0 = _mm512_xor_si512(_mm512_loadu_si512(x + k), flip);
        __m512i x1 = _mm512_xor_si512(_mm512_loadu_si512(x + k + 64), flip);
        for (unsigned j = 0; j < nq; j++) {
            even[j] = _mm512_dpbusd_epi32(even[j], x0, _mm512_loadu_si512(q + j * dim + k));
            odd[j] = _mm512_dpbusd_epi32(odd[j], x1, _mm512_loadu_si512(q + j * dim + k + 64));
        }
    }
    for (; k < dim; k += 64) {
        __m512i x0 = _mm512_xor_si512(load_bytes(x + k, dim - k), flip);
        for (unsigned j = 0; j < nq; j++)
            even[j] = _mm512_dpbusd_epi32(even[j], x0, load_bytes((const uint8_t *)q + j * dim + k, dim - k));
    }
    for (unsigned j = 0; j < nq; j++)
        out[j * KN_BLOCK_ROWS] = (float)(start[j] + _mm512_reduce_add_epi32(_mm512_add_epi32(even[j], odd[j])));
}

/* One query: a row leaves one register of sums, and the sums of four rows are made together. */
INLINE __m128i sums_i32(const __m512i r[4])
{
    __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(r[0], r[1]), _mm512_unpackhi_epi32(r[0], r[1]));
    __m512i c = _mm512_add_epi32(_mm512_unpacklo_epi32(r[2], r[3]), _mm512_unpackhi_epi32(r[2], r[3]));
    a = _mm512_add_epi32(_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c));
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* q.x + 128 times the sum of q; and the square of x, of which x (x + 128) less 128 times the sum of x is left. */
INLINE void row_i8(const uint8_t *q, const uint8_t *x, size_t dim, bool dot, bool square, __m512i *dots, __m512i *squares)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80), one = _mm512_set1_epi8(1);
    __m512i d[2], s[2], sum[2];
    d[0] = d[1] = s[0] = s[1] = sum[0] = sum[1] = _mm512_setzero_si512();
    size_t k = 0;
    for (; k + 128 <= dim; k += 128)
#pragma GCC unroll 2
        for (unsigned c = 0; c < 2; c++) {
            __m512i v = _mm512_loadu_si512(x + k + 64 * c), u = _mm512_xor_si512(v, flip);
            if (dot)
                d[c] = _mm512_dpbusd_epi32(d[c], u, _mm512_loadu_si512(q + k + 64 * c));
            if (square) {
                s[c] = _mm512_dpbusd_epi32(s[c], u, v);
                sum[c] = _mm512_dpbusd_epi32(sum[c], one, v);
            }
        }
#pragma GCC unroll 2
    for (; k < dim; k += 64) {
        __m512i v = load_bytes(x + k, dim - k), u = _mm512_xor_si512(v, flip);
        if (dot)
            d[0] = _mm512_dpbusd_epi32(d[0], u, load_bytes(q + k, dim - k));
        if (square) {
            s[0] = _mm512_dpbusd_epi32(s[0], u, v);
            sum[0] = _mm512_dpbusd_epi32(sum[0], one, v);
        }
    }
    *dots = _mm512_add_epi32(d[0], d[1]);
    *squares = _mm512_sub_epi32(_mm512_add_epi32(s[0], s[1]), _mm512_slli_epi32(_mm512_add_epi32(sum[0], sum[1]), 7));
}

INLINE int32_t minus_128_sums(const int8_t *q, size_t dim)
{
    int32_t sum = 0;
    for (size_t k = 0; k < dim; k++)
        sum -= 128 * q[k];
    return sum;
}

/* dot and square are constants where this is inlined. */
INLINE void rows_i8(const kn_block *b, const int8_t *q, bool dot, bool square, float *out, float *squares)
{
    const int32_t start = dot ? minus_128_sums(q, b->dim) : 0;
    size_t i = 0;
    __m512i dots[4], squared[4];
    for (; i + 4 <= b->count; i += 4) {
#pragma GCC unroll 4
        for (unsigned r = 0; r < 4; r++) {
            ask_chosen(b, i + r);
            row_i8((const uint8_t *)q, row_at(b, i + r), b->dim, dot, square, &dots[r], &squared[r]);
        }
        if (dot)
            _mm_storeu_ps(out + i, _mm_cvtepi32_ps(_mm_add_epi32(sums_i32(dots), _mm_set1_epi32(start))));
        if (square)
            _mm_storeu_ps(squares + i, _mm_cvtepi32_ps(sums_i32(squared)));
    }
    for (; i < b->count; i++) {
        row_i8((const uint8_t *)q, row_at(b, i), b->dim, dot, square, &dots[0], &squared[0]);
        if (dot)
            out[i] = (float)(start + _mm512_reduce_add_epi32(dots[0]));
        if (square)
            squares[i] = (float)_mm512_reduce_add_epi32(squared[0]);
    }
}

static void few_dot_i8(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    const int8_t *q = queries;
    int32_t start[KN_FEW] = {0};
    if (nq == 1) {
        rows_i8(b, q, true, false, out, NULL);
        return;
    }
    for (unsigned j = 0; j < nq; j++)
        start[j] = minus_128_sums(q + j * b->dim, b->dim);
    for (size_t i = 0; i < b->count; i++) {
        ask_ahead(b, i, 1);
        ask_chosen(b, i);
        if (nq == 2)
            dots_i8(q, row_at(b, i), b->dim, 2, start, out + i);
        else if (nq == 3)
            dots_i8(q, row_at(b, i), b->dim, 3, start, out + i);
        else
            dots_i8(q, row_at(b, i), b->dim, 4, start, out + i);
    }
}

static void squares_i8(const kn_block *b, float *out)
{
    rows_i8(b, NULL, false, true, NULL, out);
}

static void dot_squares_i8(const kn_block *b, const void *query, float *out, float *squares)
{
    rows_i8(b, query, true, true, out, squares);
}

INLINE int32_t four_at(const uint8_t *x, size_t left)
{
    int32_t four = 0;
    memcpy(&four, x, left < 4 ? left : 4);
    return four;
}

/* The intrinsic, where sixteen sums at once leave no register: gcc 12 then copies each sum before and after. */
INLINE __m512i add_dots(__m512i sum, __m512i unsigned_bytes, __m512i signed_bytes)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
    return sum;
}

/* One step of a tile: four elements of each row, broadcast from memory, with those of all queries. */
INLINE void step_i8(const int8_t *panel, const uint8_t *const *x, size_t k, size_t left, int rows, int vectors,
                    __m512i (*sum)[2])
{
    __m512i q[2];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++)
        q[v] = _mm512_loadu_si512(panel + 64 * v);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        __m512i e = left >= 4 ? _mm512_castps_si512(_mm512_set1_ps(*(const float_at *)(x[r] + k)))
                              : _mm512_set1_epi32(four_at(x[r] + k, left));
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sum[r][v] = add_dots(sum[r][v], e, q[v]);
    }
}

INLINE void tile_i8(const kn_block *b, const int8_t *panel, const int32_t *start, size_t i, int rows, int vectors,
                    float *out)
{
    const uint8_t *x[8];
    __m512i sum[8][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        x[r] = row_at(b, i + (size_t)r);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sum[r][v] = _mm512_loadu_si512(start + v * LANES_I8);
    }
    size_t k = 0;
    for (; k + 4 <= b->dim; k += 4, panel += 64 * vectors)
        step_i8(panel, x, k, 4, rows, vectors, sum);
    if (k < b->dim)
        step_i8(panel, x, k, b->dim - k, rows, vectors, sum);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            _mm512_storeu_ps(out + ((i + (size_t)r) * (size_t)vectors + (size_t)v) * LANES_I8,
                             _mm512_cvtepi32_ps(sum[r][v]));
}

INLINE void panel_i8(const kn_block *b, const void *panel, int vectors, float *out)
{
    const int32_t *start = panel;
    const int8_t *q = (const int8_t *)(start + LANES_I8 * vectors);
    size_t i = 0;
    for (; i + 8 <= b->count; i += 8) {
        ask_ahead(b, i, 8);
        tile_i8(b, q, start, i, 8, vectors, out);
    }
    for (; i < b->count; i++)
        tile_i8(b, q, start, i, 1, vectors, out);
}

static void panel_dot_i8(const kn_block *b, const void *panel, unsigned width, float *out)
{
    if (width == LANES_I8)
        panel_i8(b, panel, 1, out);
    else
        panel_i8(b, panel, 2, out);
}

/* ---- bits ------------------------------------------------------------------------------------------------------ */

/* Bytes k to k + 63 of a row and of nq queries; nq is a constant where this is inlined. */
INLINE void step_few_bits(const uint8_t *q, const uint8_t *x, size_t dim, size_t k, size_t left, unsigned nq, bool both,
                          __m512i *sum)
{
    __m512i v = load_bytes(x + k, left);
#pragma GCC unroll 4
    for (unsigned j = 0; j < nq; j++) {
        __m512i a = load_bytes(q + j * dim + k, left);
        a = both ? _mm512_and_si512(v, a) : _mm512_xor_si512(v, a);
        sum[j] = _mm512_add_epi64(sum[j], _mm512_popcnt_epi64(a));
    }
}

INLINE void few_bits(const kn_block *b, const uint8_t *q, unsigned nq, bool both, float *out)
{
    const size_t dim = b->dim;
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *x = row_at(b, i);
        __m512i sum[KN_FEW];
        size_t k = 0;
        ask_ahead(b, i, 1);
        ask_chosen(b, i);
#pragma GCC unroll 4
        for (unsigned j = 0; j < nq; j++)
            sum[j] = _mm512_setzero_si512();
        for (; k + 64 <= dim; k += 64)
            step_few_bits(q, x, dim, k, 64, nq, both, sum);
        if (k < dim)
            step_few_bits(q, x, dim, k, dim - k, nq, both, sum);
#pragma GCC unroll 4
        for (unsigned j = 0; j < nq; j++)
            out[j * KN_BLOCK_ROWS + i] = (float)_mm512_reduce_add_epi64(sum[j]);
    }
}

INLINE void few_bits_any(const kn_block *b, const uint8_t *q, unsigned nq, bool both, float *out)
{
    if (nq == 2)
        few_bits(b, q, 2, both, out);
    else if (nq == 3)
        few_bits(b, q, 3, both, out);
    else
        few_bits(b, q, 4, both, out);
}

/* The sums of four registers of int64, as floats. */
INLINE __m128 sums_i64(const __m512i r[4])
{
    __m512i a = _mm512_add_epi64(_mm512_unpacklo_epi64(r[0], r[1]), _mm512_unpackhi_epi64(r[0], r[1]));
    __m512i c = _mm512_add_epi64(_mm512_unpacklo_epi64(r[2], r[3]), _mm512_unpackhi_epi64(r[2], r[3]));
    __m256i a2 = _mm256_add_epi64(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    __m256i c2 = _mm256_add_epi64(_mm512_castsi512_si256(c), _mm512_extracti64x4_epi64(c, 1));
    __m256i low = _mm256_permute2x128_si256(a2, c2, 0x20), high = _mm256_permute2x128_si256(a2, c2, 0x31);
    return _mm256_cvtepi64_ps(_mm256_add_epi64(low, high));
}

enum bits_of { BOTH, DIFFER, NEITHER };

/* Up to 64 bytes of a row and a query (of NEITHER: none), and those of the row where `count`. */
INLINE void step_bits_row(const uint8_t *q, const uint8_t *x, size_t left, enum bits_of what, bool count, __m512i *sum,
                          __m512i *all)
{
    __m512i v = load_bytes(x, left);
    if (what != NEITHER) {
        __m512i a = load_bytes(q, left);
        a = what == BOTH ? _mm512_and_si512(v, a) : _mm512_xor_si512(v, a);
        *sum = _mm512_add_epi64(*sum, _mm512_popcnt_epi64(a));
    }
    if (count)
        *all = _mm512_add_epi64(*all, _mm512_popcnt_epi64(v));
}

INLINE void row_bits(const uint8_t *q, const uint8_t *x, size_t dim, enum bits_of what, bool count, __m512i *sums,
                     __m512i *counts)
{
    __m512i sum = _mm512_setzero_si512(), all = sum;
    size_t k = 0;
    for (; k + 64 <= dim; k += 64)
        step_bits_row(q + k, x + k, 64, what, count, &sum, &all);
    if (k < dim)
        step_bits_row(q + k, x + k, dim - k, what, count, &sum, &all);
    *sums = sum;
    *counts = all;
}

/* what and count are constants where this is inlined. */
INLINE void rows_bits(const kn_block *b, const uint8_t *q, enum bits_of what, bool count, float *out, float *counts)
{
    size_t i = 0;
    __m512i sums[4], all[4];
    for (; i + 4 <= b->count; i += 4) {
#pragma GCC unroll 4
        for (unsigned r = 0; r < 4; r++) {
            ask_chosen(b, i + r);
            row_bits(q, row_at(b, i + r), b->dim, what, count, &sums[r], &all[r]);
        }
        if (what != NEITHER)
            _mm_storeu_ps(out + i, sums_i64(sums));
        if (count)
            _mm_storeu_ps(counts + i, sums_i64(all));
    }
    for (; i < b->count; i++) {
        row_bits(q, row_at(b, i), b->dim, what, count, &sums[0], &all[0]);
        if (what != NEITHER)
            out[i] = (float)_mm512_reduce_add_epi64(sums[0]);
        if (count)
            counts[i] = (float)_mm512_reduce_add_epi64(all[0]);
    }
}

static void few_and_bits(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    if (nq == 1)
        rows_bits(b, queries, BOTH, false, out, NULL);
    else
        few_bits_any(b, queries, nq, true, out);
}

static void few_xor_bits(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    if (nq == 1)
        rows_bits(b, queries, DIFFER, false, out, NULL);
    else
        few_bits_any(b, queries, nq, false, out);
}

static void count_bits(const kn_block *b, float *out)
{
    rows_bits(b, b->rows, NEITHER, true, NULL, out);
}

static void and_count_bits(const kn_block *b, const void *query, float *out, float *counts)
{
    rows_bits(b, query, BOTH, true, out, counts);
}

INLINE int64_t eight_at(const uint8_t *x, size_t left)
{
    int64_t eight = 0;
    memcpy(&eight, x, left < 8 ? left : 8);
    return eight;
}

/* One step of a tile: 64 bits of each row, broadcast from memory. */
INLINE void step_bits(const uint64_t *panel, const uint8_t *const *x, size_t k, size_t left, int rows, int vectors,
                      bool both, __m512i (*sum)[2])
{
    __m512i q[2];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++)
        q[v] = _mm512_loadu_si512(panel + LANES_BITS * v);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        __m512i e = left >= 8 ? _mm512_castpd_si512(_mm512_set1_pd(*(const double_at *)(x[r] + k)))
                              : _mm512_set1_epi64(eight_at(x[r] + k, left));
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            __m512i a = both ? _mm512_and_si512(q[v], e) : _mm512_xor_si512(q[v], e);
            sum[r][v] = _mm512_add_epi64(sum[r][v], _mm512_popcnt_epi64(a));
        }
    }
}

INLINE void tile_bits(const kn_block *b, const uint64_t *panel, size_t i, int rows, int vectors, bool both, float *out)
{
    const uint8_t *x[8];
    __m512i sum[8][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        x[r] = row_at(b, i + (size_t)r);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sum[r][v] = _mm512_setzero_si512();
    }
    size_t k = 0;
    for (; k + 8 <= b->dim; k += 8, panel += LANES_BITS * vectors)
        step_bits(panel, x, k, 8, rows, vectors, both, sum);
    if (k < b->dim)
        step_bits(panel, x, k, b->dim - k, rows, vectors, both, sum);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            _mm256_storeu_ps(out + ((i + (size_t)r) * (size_t)vectors + (size_t)v) * LANES_BITS,
                             _mm512_cvtepi64_ps(sum[r][v]));
}

INLINE void panel_bits(const kn_block *b, const uint64_t *panel, int vectors, bool both, float *out)
{
    size_t i = 0;
    for (; i + 8 <= b->count; i += 8) {
        ask_ahead(b, i, 8);
        tile_bits(b, panel, i, 8, vectors, both, out);
    }
    for (; i < b->count; i++)
        tile_bits(b, panel, i, 1, vectors, both, out);
}

static void panel_and_bits(const kn_block *b, const void *panel, unsigned width, float *out)
{
    if (width == LANES_BITS)
        panel_bits(b, panel, 1, true, out);
    else
        panel_bits(b, panel, 2, true, out);
}

static void panel_xor_bits(const kn_block *b, const void *panel, unsigned width, float *out)
{
    if (width == LANES_BITS)
        panel_bits(b, panel, 1, false, out);
    else
        panel_bits(b, panel, 2, false, out);
}

const kn_distance kn_distance_avx512vnni = {
    .isa = KN_AVX512VNNI,
#include "distance_table.h"
    .lanes_i8 = LANES_I8,
    .lanes_bits = LANES_BITS,
    .few_dot_i8 = few_dot_i8,
    .few_and_bits = few_and_bits,
    .few_xor_bits = few_xor_bits,
    .panel_dot_i8 = panel_dot_i8,
    .panel_and_bits = panel_and_bits,
    .panel_xor_bits = panel_xor_bits,
    .squares_i8 = squares_i8,
    .count_bits = count_bits,
    .widen_f16 = widen_f16,
    .dot_squares_f16 = dot_squares_f16,
    .dot_squares_i8 = dot_squares_i8,
    .and_count_bits = and_count_bits,
};
