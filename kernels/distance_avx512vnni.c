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

static void few_dot_i8(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    const int8_t *q = queries;
    int32_t start[KN_FEW] = {0};
    for (unsigned j = 0; j < nq; j++)
        for (size_t k = 0; k < b->dim; k++)
            start[j] -= 128 * q[j * b->dim + k];
    for (size_t i = 0; i < b->count; i++) {
        ask_ahead(b, i, 1);
        if (nq == 1)
            dots_i8(q, row_at(b, i), b->dim, 1, start, out + i);
        else if (nq == 2)
            dots_i8(q, row_at(b, i), b->dim, 2, start, out + i);
        else if (nq == 3)
            dots_i8(q, row_at(b, i), b->dim, 3, start, out + i);
        else
            dots_i8(q, row_at(b, i), b->dim, 4, start, out + i);
    }
}

static void squares_i8(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *x = row_at(b, i);
        __m512i sum = _mm512_setzero_si512();
        for (size_t k = 0; k < b->dim; k += 64) {
            __m512i v = load_bytes(x + k, b->dim - k);
            __m512i low = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(v));
            __m512i high = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(v, 1));
            sum = _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(sum, low, low), high, high);
        }
        out[i] = (float)_mm512_reduce_add_epi32(sum);
    }
}

INLINE int32_t four_at(const uint8_t *x, size_t left)
{
    int32_t four = 0;
    memcpy(&four, x, left < 4 ? left : 4);
    return four;
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
            sum[r][v] = _mm512_dpbusd_epi32(sum[r][v], e, q[v]);
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

INLINE void few_bits(const kn_block *b, const uint8_t *q, unsigned nq, bool both, float *out)
{
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *x = row_at(b, i);
        __m512i sum[KN_FEW];
        for (unsigned j = 0; j < nq; j++)
            sum[j] = _mm512_setzero_si512();
        for (size_t k = 0; k < b->dim; k += 64) {
            __m512i v = load_bytes(x + k, b->dim - k);
            for (unsigned j = 0; j < nq; j++) {
                __m512i a = load_bytes(q + j * b->dim + k, b->dim - k);
                a = both ? _mm512_and_si512(v, a) : _mm512_xor_si512(v, a);
                sum[j] = _mm512_add_epi64(sum[j], _mm512_popcnt_epi64(a));
            }
        }
        for (unsigned j = 0; j < nq; j++)
            out[j * KN_BLOCK_ROWS + i] = (float)_mm512_reduce_add_epi64(sum[j]);
    }
}

static void few_and_bits(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    if (nq == 1)
        few_bits(b, queries, 1, true, out);
    else
        few_bits(b, queries, nq, true, out);
}

static void few_xor_bits(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    if (nq == 1)
        few_bits(b, queries, 1, false, out);
    else
        few_bits(b, queries, nq, false, out);
}

static void count_bits(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *x = row_at(b, i);
        __m512i sum = _mm512_setzero_si512();
        for (size_t k = 0; k < b->dim; k += 64)
            sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(load_bytes(x + k, b->dim - k)));
        out[i] = (float)_mm512_reduce_add_epi64(sum);
    }
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
};
