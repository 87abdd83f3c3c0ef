/* SPDX-License-Identifier: Apache-2.0 */
/* distance_parts.h - the tables of single instruction sets, and what they share. For kernels/distance*.c alone. */
#ifndef KN_DISTANCE_PARTS_H
#define KN_DISTANCE_PARTS_H

#include "distance.h"

extern const kn_distance kn_distance_scalar;
#if defined(__x86_64__)
extern const kn_distance kn_distance_avx2, kn_distance_avx512, kn_distance_avx512vnni;
kn_few kn_few_dot_i8_avx2, kn_few_and_bits_avx2, kn_few_xor_bits_avx2;
kn_per_row kn_squares_i8_avx2, kn_count_bits_avx2;
#elif defined(__aarch64__)
extern const kn_distance kn_distance_neon, kn_distance_sve;
#endif
kn_few kn_few_dot_i8_scalar, kn_few_and_bits_scalar, kn_few_xor_bits_scalar;
kn_per_row kn_squares_i8_scalar, kn_count_bits_scalar;

#endif
