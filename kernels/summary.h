/* SPDX-License-Identifier: Apache-2.0 */
/*
 * summary.h - count, extremes, mean and deviation of the elements of an array, in one pass.
 *
 * An array is taken in blocks of KN_SUMMARY_BLOCK elements, counted from its begin; each gives a summary, and
 * kn_summary_add puts two together. Who adds them in a fixed order has the same bits for any number of threads, and on
 * every instruction set: within a block element i belongs to lane i mod 16, lanes are added in their order, and nothing
 * is fused. Sums are made in double precision around a value of the block, and means are told from a value of the
 * array, its base, so that the deviation of values far from 0 keeps its digits; for integers of 8 and 16 bits sums are
 * exact. Complex numbers have no order: their sums are those of the real parts. Pure; any thread.
 */
#ifndef KN_SUMMARY_H
#define KN_SUMMARY_H

#include "cpu.h"
#include "number.h"

#define KN_SUMMARY_BLOCK 16384u

typedef struct kn_summary {
    uint64_t count, nans, zeros; /* elements */
    int64_t min_int, max_int;    /* of signed integers: INT64_MAX, INT64_MIN before the first */
    uint64_t min_uint, max_uint; /* of unsigned ones and bool: UINT64_MAX, 0 */
    double min, max;             /* of floats, also the real parts of complex numbers: +inf, -inf */
    double mean, squares;        /* of what is no NaN: the mean less the base, and the sum of squares around the mean */
} kn_summary;

/* Of no element. */
kn_summary kn_summary_none(void);
/* Of a block: count <= KN_SUMMARY_BLOCK elements, at any address. isa: one that this processor can use. */
typedef kn_summary kn_summary_block(const void *data, size_t count, double base);
kn_summary_block *kn_summary_of(kn_isa isa, kn_number type);
/* A base for an array that begins with these elements: one of them; 0 if none will do. */
double kn_summary_base(kn_number type, const void *data, size_t count);
/* Of both, told from one base: b's elements come after a's. */
void kn_summary_add(kn_summary *a, const kn_summary *b);
/* sqrt(squares / n) and the mean as numpy tells them, infinities among the elements included; NaN without any. */
double kn_summary_mean(const kn_summary *s, double base);
double kn_summary_std(const kn_summary *s);

#endif
