/* SPDX-License-Identifier: Apache-2.0 */
/* summary_parts.h - what the instruction sets share: lanes, how they become a summary. For kernels/summary*.c alone. */
#ifndef KN_SUMMARY_PARTS_H
#define KN_SUMMARY_PARTS_H

#include "summary.h"

#define KN_SUMMARY_LANES 16u

/* Sums of a block, lane by lane: of value - origin, and of its square. */
typedef struct kn_summary_lanes {
    double sum[KN_SUMMARY_LANES], squares[KN_SUMMARY_LANES], min[KN_SUMMARY_LANES], max[KN_SUMMARY_LANES];
} kn_summary_lanes;

/* Lanes added in their order, into a summary whose counts are there. */
void kn_summary_reduce(kn_summary *s, const kn_summary_lanes *lanes, double origin, double base);
/* Exact sums of integers. */
void kn_summary_exact(kn_summary *s, int64_t sum, uint64_t squares, double base);

/* An origin is near the values, so that their differences from it are small; but not so great that one overflows. */
#define KN_SUMMARY_IS_ORIGIN(v) ((v) - (v) == 0 && fabs((double)(v)) < 0x1p1000)

extern kn_summary_block *const kn_summary_scalar[KN_NUMBER_COUNT];
#if defined(__x86_64__)
extern kn_summary_block *const kn_summary_avx2[KN_NUMBER_COUNT], *const kn_summary_avx512[KN_NUMBER_COUNT];
#endif

#endif
