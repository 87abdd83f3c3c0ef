/* SPDX-License-Identifier: Apache-2.0 */
/* distance_avx512.c - AVX-512 F, BW, DQ and VL. Compiled for them; called where the processor has them. */
#include "distance_avx512.h"

const kn_distance kn_distance_avx512 = {
    .isa = KN_AVX512,
#include "distance_table.h"
    .few_dot_i8 = kn_few_dot_i8_avx2,
    .few_and_bits = kn_few_and_bits_avx2,
    .few_xor_bits = kn_few_xor_bits_avx2,
    .squares_i8 = kn_squares_i8_avx2,
    .count_bits = kn_count_bits_avx2,
    .widen_f16 = widen_f16,
    .dot_squares_f16 = dot_squares_f16,
};
