/* SPDX-License-Identifier: Apache-2.0 */
/* cast_parts.h - the loops of single instruction sets. For kernels/cast*.c alone. */
#ifndef KN_CAST_PARTS_H
#define KN_CAST_PARTS_H

#include "cast.h"

/* The types that loops convert between directly; the others go through float or by their parts. */
#define KN_CAST_PLAIN 11 /* bool, the integers, float, double: kn_number without half precision and complex */

typedef struct kn_cast_loops {
    kn_cast_loop *plain[KN_CAST_PLAIN][KN_CAST_PLAIN]; /* [from][to]; NULL: a copy */
    kn_cast_loop *half_to_float, *float_to_half;
    kn_cast_loop *double_to_odd; /* to float, rounded so that another rounding does not show it */
    kn_cast_loop *real_c64, *real_c128;           /* the real parts */
    kn_cast_loop *complex_of_float, *complex_of_double; /* with imaginary parts of 0 */
    kn_cast_loop *bool_of_c64, *bool_of_c128;
} kn_cast_loops;

extern const kn_cast_loops kn_cast_scalar;
#if defined(__x86_64__)
extern const kn_cast_loops kn_cast_avx2, kn_cast_avx512;
#endif

#endif
