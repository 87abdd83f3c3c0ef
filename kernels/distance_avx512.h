/* SPDX-License-Identifier: Apache-2.0 */
/* distance_avx512.h - what the two tables for AVX-512 have in common; a part of distance_avx512.c and ..vnni.c. */
#include <immintrin.h>

#define VEC      64
#define TILE_ONE 8
#define TILE_TWO 8
#include "distance_body.h"

#include "distance_parts.h"

static void widen_f16(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++, out += b->dim) {
        const uint8_t *row = row_at(b, i);
        ask_ahead(b, i, 1);
        size_t k = 0;
        for (; k + 16 <= b->dim; k += 16)
            _mm512_storeu_ps(out + k,
                             _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(row + 2 * k))));
        if (k < b->dim) {
            __mmask16 rest = (__mmask16)((1u << (b->dim - k)) - 1);
            _mm512_mask_storeu_ps(out + k, rest, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(rest, row + 2 * k)));
        }
    }
}

static void dot_squares_f16(const kn_block *b, const void *query, float *out, float *squares)
{
    const float *q = query;
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *row = row_at(b, i);
        __m512 dot[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()},
               square[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        size_t k = 0;
        ask_chosen(b, i);
        for (; k + 32 <= b->dim; k += 32)
            for (size_t c = 0; c < 2; c++) {
                __m512 x = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(row + 2 * k + 32 * c)));
                dot[c] = _mm512_fmadd_ps(x, _mm512_loadu_ps(q + k + 16 * c), dot[c]);
                square[c] = _mm512_fmadd_ps(x, x, square[c]);
            }
        for (; k < b->dim; k += 16) {
            __mmask16 rest = (__mmask16)(b->dim - k >= 16 ? 0xffff : (1u << (b->dim - k)) - 1);
            __m512 x = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(rest, row + 2 * k));
            dot[0] = _mm512_fmadd_ps(x, _mm512_maskz_loadu_ps(rest, q + k), dot[0]);
            square[0] = _mm512_fmadd_ps(x, x, square[0]);
        }
        out[i] = sum_f32((vf)_mm512_add_ps(dot[0], dot[1]));
        squares[i] = sum_f32((vf)_mm512_add_ps(square[0], square[1]));
    }
}
