/* SPDX-License-Identifier: Apache-2.0 */
/*
 * distance.h - fast scores of rows against queries, in single precision, one table of functions per instruction set.
 *
 * They pick candidates; exact.h gives the scores that are told. So each states how far it may be off (below), and
 * nothing depends on the order in which it adds. Rows and queries need no alignment, nothing outside them is read, and
 * rows may hold anything: NaN and infinities come out as NaN or infinity. Any thread; no state.
 *
 * Errors. u = 2^-24, d = dim. Denormals are kept (the caller sees to the default floating-point environment).
 *   dot       |out - q.x| <= (d + 16) u |q| |x| + d 2^-149
 *   l2sq      |out - |q-x|^2| <= (d + 16) u |q-x|^2 + d 2^-148
 *   squares   |out - |x|^2| <= (d + 16) u |x|^2 + d 2^-149
 *   _f64      the same with u = 2^-24 and d = 0 while d <= 2^24: sums are double, the result is rounded to float
 *   _i8, _bits  the exact integer, rounded to float (so exact below 2^24); dim <= 2^17 for _i8
 *   log       each element within 4 u relative and 4 u absolute
 * A result that overflows is an infinity or NaN.
 */
#ifndef KN_DISTANCE_H
#define KN_DISTANCE_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

#define KN_FEW        4   /* most queries of a `few` function */
#define KN_BLOCK_ROWS 512 /* most rows of a call: `few` puts the scores of query j at out[j * KN_BLOCK_ROWS] */
#define KN_PANEL_MOST 64  /* most queries of a panel */
#define KN_I8_DIM     (1u << 17)

/* The rows of a call. */
typedef struct kn_block {
    const void *rows;      /* the first one */
    size_t row_bytes;      /* from one row to the next */
    const uint32_t *which; /* numbers of the rows wanted, ascending; NULL: 0 to count - 1. Others are not looked at */
    size_t count;          /* of rows wanted */
    size_t dim;            /* elements of a row; for _bits: bytes */
    const void *next;      /* memory that will be wanted soon, or NULL: asked for while this is computed */
    size_t next_bytes;
} kn_block;

/* Scores of nq <= KN_FEW queries, one behind the other at `queries`: out[j * KN_BLOCK_ROWS + i] of query j, row i. */
typedef void kn_few(const kn_block *b, const void *queries, unsigned nq, float *out);
/* Scores of `width` queries (lanes or 2 * lanes of them) in a panel made by kn_pack_*: out[i * width + j]. */
typedef void kn_panel(const kn_block *b, const void *panel, unsigned width, float *out);
/* Scores of one query, out[i], and the rows' squares, in one pass. */
typedef void kn_dot_squares(const kn_block *b, const void *query, float *out, float *squares);
/* One number per row. */
typedef void kn_per_row(const kn_block *b, float *out);

/* A score that is as good as the threshold or better, or not a number. */
typedef struct kn_hit {
    uint32_t row;  /* position among the rows of the block */
    uint32_t lane; /* query of the panel */
    float value;
} kn_hit;

/* value = score * scale[i] + slack[j] * add[i], a hit unless it is below threshold[j]. hits has room for all. */
typedef size_t kn_select_panel(const float *scores, size_t count, unsigned width, const float *scale, const float *add,
                               const float *slack, const float *threshold, kn_hit *hits);
/* The same for the scores of one query; hits get lane 0. */
typedef size_t kn_select_rows(const float *scores, size_t count, const float *scale, const float *add, float slack,
                              float threshold, kn_hit *hits);

/* Rows of half precision as floats: out[i * dim + k]. */
typedef void kn_widen(const kn_block *b, float *out);

/* For kl: out[i * dim + k] = ln(max(x + epsilon, 2^-126)), NaN for x < 0; rows are float. norm[i] = the norm of that
 * row, floor[i] = 1 if an element was below 2^-126, else 0. */
typedef void kn_log_rows(const kn_block *b, float epsilon, float *out, float *norm, float *floor);
/* For js: xlogx[i] = sum of x ln x, weight[i] = 2 sum |x ln x| + sum |x|; NaN for x < 0. Rows are float. */
typedef void kn_entropy(const kn_block *b, float *xlogx, float *weight);
/* few_mean_log_f32 gives the sum of (q + x) ln((q + x) / 2), and anything where one is negative. panel_dot_i8 takes rows
 * with every byte's highest bit flipped. A panel function that is NULL is none: use `few`. */
typedef struct kn_distance {
    kn_isa isa;
    unsigned lanes_f32, lanes_f64, lanes_i8, lanes_bits;
    kn_few *few_dot_f32, *few_l2sq_f32, *few_dot_f64, *few_l2sq_f64, *few_dot_i8, *few_and_bits, *few_xor_bits;
    kn_few *few_mean_log_f32;
    kn_panel *panel_dot_f32, *panel_l2sq_f32, *panel_dot_f64, *panel_l2sq_f64, *panel_dot_i8, *panel_and_bits,
        *panel_xor_bits;
    kn_dot_squares *dot_squares_f32, *dot_squares_f64;
    kn_dot_squares *dot_squares_f16; /* rows of half precision, the query float; NULL: widen them first */
    kn_dot_squares *dot_squares_i8;  /* NULL: few and squares */
    kn_dot_squares *and_count_bits;  /* few_and_bits and count_bits in one pass; NULL: one after the other */
    kn_per_row *squares_f32, *squares_f64, *squares_i8, *count_bits;
    kn_select_panel *select_panel;
    kn_select_rows *select_rows;
    kn_widen *widen_f16;
    kn_log_rows *log_rows;
    kn_entropy *entropy;
} kn_distance;

/* The table of an instruction set that this processor can use; the scalar one for a set of another family. */
const kn_distance *kn_distance_of(kn_isa isa);

/* Panels: `count` queries of dim elements, the first at `from`; count <= width, the other lanes are zeros. */
void kn_pack_f32(const void *from, size_t count, size_t dim, unsigned width, float *panel);  /* dim * width floats */
void kn_pack_f64(const void *from, size_t count, size_t dim, unsigned width, double *panel); /* dim * width doubles */
/* width int32_t, then four elements of each query side by side: 4 * width * (1 + (dim + 3) / 4) bytes. */
void kn_pack_i8(const void *from, size_t count, size_t dim, unsigned width, void *panel);
/* dim bytes as 64-bit words: width * ((dim + 7) / 8) of them. */
void kn_pack_bits(const void *from, size_t count, size_t dim, unsigned width, uint64_t *panel);

/* Numbers of the set bits among bits [first, first + count) of words, counted from `first`, into `which`; how many. */
size_t kn_live_rows(const uint64_t *words, uint64_t first, size_t count, uint32_t *which);

#endif
