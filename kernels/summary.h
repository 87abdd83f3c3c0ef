/* SPDX-License-Identifier: Apache-2.0 */
/*
 * summary.h - count, extremes and sums of the elements of an array, in one pass.
 *
 * Pure functions on memory, for any thread; parts are added up by kn_summary_add. Sums of floats are made in double
 * precision around `origin`, a value of the data, so that the variance of values far from 0 keeps its digits; sums of
 * integers likewise. Complex numbers have no order: their sums are those of the real parts.
 */
#ifndef KN_SUMMARY_H
#define KN_SUMMARY_H

#include <stddef.h>
#include <stdint.h>

typedef enum kn_summary_type {
    KN_SUMMARY_BOOL,
    KN_SUMMARY_I8,
    KN_SUMMARY_I16,
    KN_SUMMARY_I32,
    KN_SUMMARY_I64,
    KN_SUMMARY_U8,
    KN_SUMMARY_U16,
    KN_SUMMARY_U32,
    KN_SUMMARY_U64,
    KN_SUMMARY_F16,
    KN_SUMMARY_F32,
    KN_SUMMARY_F64,
    KN_SUMMARY_C64,
    KN_SUMMARY_C128,
} kn_summary_type;

typedef struct kn_summary {
    uint64_t count, nans, zeros; /* elements */
    int64_t min_int, max_int;    /* of signed integers */
    uint64_t min_uint, max_uint; /* of unsigned ones and bool */
    double min, max;             /* of floats: +inf, -inf before the first */
    double origin, sum, squares; /* of value - origin */
} kn_summary;

/* Before the first part. */
void kn_summary_begin(kn_summary *s, double origin);
/* A value near the data, for origin: its first element, 0 if that is no number or there is none. */
double kn_summary_origin(kn_summary_type type, const void *data, size_t count);
/* Add count elements; no alignment is asked for. */
void kn_summary_part(kn_summary *s, kn_summary_type type, const void *data, size_t count);
/* Add what another has; both have the same origin. */
void kn_summary_add(kn_summary *s, const kn_summary *other);

#endif
