/* SPDX-License-Identifier: Apache-2.0 */
/* cast_avx2.c - AVX2 and F16C. Compiled for them; called where the processor has them. */
#define CAST_LOOPS kn_cast_avx2
#include "cast_body.h"
