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
