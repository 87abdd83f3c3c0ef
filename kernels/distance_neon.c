/* SPDX-License-Identifier: Apache-2.0 */
/* distance_neon.c - 64-bit ARM: NEON is always there. */
#define VEC      16
#define TILE_ONE 8
#define TILE_TWO 8
#include "distance_body.h"

#include "distance_parts.h"

static void widen_f16(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++, out += b->dim) {
        const uint8_t *row = row_at(b, i);
        for (size_t k = 0; k < b->dim; k++) {
            __fp16 h;
            memcpy(&h, row + 2 * k, sizeof(h));
            out[k] = (float)h;
        }
    }
}

const kn_distance kn_distance_neon = {
    .isa = KN_NEON,
#include "distance_table.h"
    .few_dot_i8 = kn_few_dot_i8_scalar,
    .few_and_bits = kn_few_and_bits_scalar,
    .few_xor_bits = kn_few_xor_bits_scalar,
    .squares_i8 = kn_squares_i8_scalar,
    .count_bits = kn_count_bits_scalar,
    .widen_f16 = widen_f16,
};
