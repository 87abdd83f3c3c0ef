/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exact.h - the scores that are told: one row against one query, in double precision and in one fixed order of
 * operations, so that every processor gives the same bits.
 *
 * Sums run in 16 partial sums: element k goes to sum k mod 16, and these are added in pairs (i and i + 8, then i + 4,
 * i + 2, i + 1). No product is fused with a sum. Logarithms are this file's own. Whatever is not a number comes out as
 * the one quiet NaN with sign 0. The default floating-point environment is assumed. No alignment is asked for. Any
 * thread; no state.
 */
#ifndef KN_EXACT_H
#define KN_EXACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

typedef enum kn_type {
    KN_F16,
    KN_F32,
    KN_F64,
    KN_I8,
    KN_U8,
    KN_I16,
    KN_U16,
    KN_I32,
    KN_U32,
    KN_I64,
    KN_U64,
} kn_type;

size_t kn_type_bytes(kn_type type);

typedef enum kn_metric {
    KN_DOT,      /* sum q x */
    KN_COSINE,   /* q.x / (|q| |x|), 0 if either is the zero vector, within [-1, 1] */
    KN_L2,       /* sqrt of the next */
    KN_L2SQ,     /* sum (q - x)^2 */
    KN_HAMMING,  /* bits that differ; rows are bytes */
    KN_JACCARD,  /* 1 - bits in both / bits in either, 0 if there is none; rows are bytes */
    KN_KL,       /* sum q ln((q + e) / (x + e)), terms of q = 0 left out; NaN for negative elements */
    KN_JS,       /* sqrt of half of sum q ln((q + e) / (m + e)) + x ln((x + e) / (m + e)), m = (q + x) / 2 */
    KN_ELEMENTS, /* elements that differ; NaN differs from everything */
} kn_metric;

/* dim elements as doubles: exact for all but 64-bit integers beyond 2^53, which are rounded. */
void kn_to_f64(kn_type type, const void *from, size_t dim, double *out);
/* The same as floats, rounded to nearest. */
void kn_to_f32(kn_type type, const void *from, size_t dim, float *out);

/* What is known of a query before the rows come. */
typedef struct kn_exact_query {
    const double *values; /* its elements; for hamming and jaccard: NULL */
    const void *same;     /* its elements in the type of the rows, or NULL when they are not of it */
    double norm;          /* kn_exact_norm(values) */
    double epsilon;       /* of kl and js */
} kn_exact_query;

/* sqrt(sum x^2), scaled where the squares would overflow or vanish. */
double kn_exact_norm(const double *values, size_t dim);

/* The score of a row of `dim` elements of `type` (hamming, jaccard: bytes). With query->same, integers of 32 and 64
 * bits are summed exactly, and the sum is rounded once: dot, l2sq (and l2, its root). scratch: dim doubles, whatever
 * the type; it is written. */
double kn_exact(kn_metric metric, kn_type type, const kn_exact_query *query, const void *row, size_t dim,
                double *scratch);

/* ln in double precision, within 3 units of the last place; ln 0 = -infinity, NaN for negative numbers. */
double kn_exact_log(double x);

#endif
