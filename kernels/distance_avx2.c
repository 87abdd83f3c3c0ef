/* SPDX-License-Identifier: Apache-2.0 */
/* distance_avx2.c - AVX2 with FMA and F16C. Compiled for them; called where the processor has them. */
#include <immintrin.h>

#define VEC      32
#define TILE_ONE 8
#define TILE_TWO 6
#include "distance_body.h"

#include "distance_parts.h"

static void widen_f16(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++, out += b->dim) {
        const uint8_t *row = row_at(b, i);
        size_t k = 0;
        for (; k + 8 <= b->dim; k += 8)
            _mm256_storeu_ps(out + k, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(row + 2 * k))));
        for (; k < b->dim; k++) {
            uint16_t h;
            memcpy(&h, row + 2 * k, sizeof(h));
            out[k] = _cvtsh_ss(h);
        }
    }
}

static void dot_squares_f16(const kn_block *b, const void *query, float *out, float *squares)
{
    const float *q = query;
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *row = row_at(b, i);
        __m256 dot[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()},
               square[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        size_t k = 0;
        ask_chosen(b, i);
        for (; k + 16 <= b->dim; k += 16)
            for (size_t c = 0; c < 2; c++) {
                __m256 x = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(row + 2 * k + 16 * c)));
                dot[c] = _mm256_fmadd_ps(x, _mm256_loadu_ps(q + k + 8 * c), dot[c]);
                square[c] = _mm256_fmadd_ps(x, x, square[c]);
            }
        float rest = 0, rest_square = 0;
        for (; k < b->dim; k++) {
            uint16_t h;
            memcpy(&h, row + 2 * k, sizeof(h));
            float x = _cvtsh_ss(h);
            rest += x * q[k];
            rest_square += x * x;
        }
        out[i] = sum_f32((vf)_mm256_add_ps(dot[0], dot[1])) + rest;
        squares[i] = sum_f32((vf)_mm256_add_ps(square[0], square[1])) + rest_square;
    }
}

/* ---- int8 ------------------------------------------------------------------------------------------------------ */

/* 16 elements each, widened: a product of two pairs fits 32 bits. */
INLINE __m256i add_products(__m256i sum, const int8_t *q, const int8_t *x)
{
    __m256i a = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)q));
    __m256i c = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)x));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, c));
}

INLINE int32_t sum_i32(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

INLINE int32_t dot_i8(const int8_t *q, const int8_t *x, size_t dim)
{
    __m256i even = _mm256_setzero_si256(), odd = even;
    size_t k = 0;
    for (; k + 32 <= dim; k += 32) {
        even = add_products(even, q + k, x + k);
        odd = add_products(odd, q + k + 16, x + k + 16);
    }
    if (k + 16 <= dim) {
        even = add_products(even, q + k, x + k);
        k += 16;
    }
    int32_t sum = sum_i32(_mm256_add_epi32(even, odd));
    for (; k < dim; k++)
        sum += q[k] * x[k];
    return sum;
}

void kn_few_dot_i8_avx2(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        for (unsigned j = 0; j < nq; j++)
            out[j * KN_BLOCK_ROWS + i] =
                (float)dot_i8((const int8_t *)queries + j * b->dim, (const int8_t *)row_at(b, i), b->dim);
}

void kn_squares_i8_avx2(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        out[i] = (float)dot_i8((const int8_t *)row_at(b, i), (const int8_t *)row_at(b, i), b->dim);
}

/* ---- bits ------------------------------------------------------------------------------------------------------ */

/* Bits set in each half byte by a table of 16, then summed in groups of 8 bytes. */
INLINE __m256i count_words(__m256i v)
{
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                           2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    __m256i count = _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(v, low)),
                                    _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), low)));
    return _mm256_sad_epu8(count, _mm256_setzero_si256());
}

INLINE uint64_t word_at(const uint8_t *p, size_t bytes)
{
    uint64_t word = 0;
    memcpy(&word, p, bytes < 8 ? bytes : 8);
    return word;
}

/* q NULL: bits set in x. */
INLINE uint64_t bits(const uint8_t *q, const uint8_t *x, size_t dim, bool both)
{
    __m256i sum = _mm256_setzero_si256();
    size_t k = 0;
    for (; k + 32 <= dim; k += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(x + k));
        if (q != NULL) {
            __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(q + k));
            v = both ? _mm256_and_si256(v, a) : _mm256_xor_si256(v, a);
        }
        sum = _mm256_add_epi64(sum, count_words(v));
    }
    uint64_t words[4], all = 0;
    memcpy(words, &sum, sizeof(words));
    for (; k < dim; k += 8) {
        uint64_t v = word_at(x + k, dim - k);
        if (q != NULL)
            v = both ? v & word_at(q + k, dim - k) : v ^ word_at(q + k, dim - k);
        all += (uint64_t)__builtin_popcountll(v);
    }
    return all + words[0] + words[1] + words[2] + words[3];
}

void kn_few_and_bits_avx2(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        for (unsigned j = 0; j < nq; j++)
            out[j * KN_BLOCK_ROWS + i] = (float)bits((const uint8_t *)queries + j * b->dim, row_at(b, i), b->dim, true);
}

void kn_few_xor_bits_avx2(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        for (unsigned j = 0; j < nq; j++)
            out[j * KN_BLOCK_ROWS + i] =
                (float)bits((const uint8_t *)queries + j * b->dim, row_at(b, i), b->dim, false);
}

void kn_count_bits_avx2(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        out[i] = (float)bits(NULL, row_at(b, i), b->dim, false);
}

const kn_distance kn_distance_avx2 = {
    .isa = KN_AVX2,
#include "distance_table.h"
    .few_dot_i8 = kn_few_dot_i8_avx2,
    .few_and_bits = kn_few_and_bits_avx2,
    .few_xor_bits = kn_few_xor_bits_avx2,
    .squares_i8 = kn_squares_i8_avx2,
    .count_bits = kn_count_bits_avx2,
    .widen_f16 = widen_f16,
    .dot_squares_f16 = dot_squares_f16,
};
