/* SPDX-License-Identifier: Apache-2.0 */
/* cast_avx512.c - AVX-512 F, BW, DQ and VL. Compiled for them; called where the processor has them. */
#define CAST_LOOPS kn_cast_avx512
#include "cast_body.h"
