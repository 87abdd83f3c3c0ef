/* SPDX-License-Identifier: Apache-2.0 */
/*
 * distance_sve.c - 64-bit ARM with the Scalable Vector Extension: registers of 128 to 2048 bits, whatever the processor
 * has. Their types have no size, so that there are no arrays of them: tiles are written out. A panel has 16 or 32
 * queries on every processor, and is gone through in registers of what width there is. What gains nothing from wider
 * registers comes from distance_body.h, as for NEON.
 */
#include <arm_neon.h>
#include <arm_sve.h>

#define VEC      16
#define TILE_ONE 8
#define TILE_TWO 8
/* Some of its functions are written anew below. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include "distance_body.h"
#pragma GCC diagnostic pop

#include "distance_parts.h"

#define SVE_LANES 16

/* ---- a few queries ---------------------------------------------------------------------------------------------- */

/* Two chains, the second for the odd registers. */
INLINE float sve_along(const float *q, const float *x, size_t dim, bool l2sq)
{
    svfloat32_t even = svdup_f32(0), odd = svdup_f32(0);
    const size_t lanes = svcntw();
    for (size_t k = 0; k < dim; k += 2 * lanes) {
        svbool_t p0 = svwhilelt_b32_u64(k, dim), p1 = svwhilelt_b32_u64(k + lanes, dim);
        svfloat32_t a0 = svld1_f32(p0, q + k), b0 = svld1_f32(p0, x + k);
        svfloat32_t a1 = svld1_f32(p1, q + k + lanes), b1 = svld1_f32(p1, x + k + lanes);
        if (l2sq) {
            a0 = b0 = svsub_f32_x(p0, a0, b0);
            a1 = b1 = svsub_f32_x(p1, a1, b1);
        }
        even = svmla_f32_m(p0, even, a0, b0);
        odd = svmla_f32_m(p1, odd, a1, b1);
    }
    return svaddv_f32(svptrue_b32(), svadd_f32_x(svptrue_b32(), even, odd));
}

INLINE void sve_few(const kn_block *b, const void *queries, unsigned nq, bool l2sq, float *out)
{
    for (size_t i = 0; i < b->count; i++) {
        const float *x = (const float *)(const void *)row_at(b, i);
        ask_ahead(b, i, 1);
        ask_chosen(b, i);
        for (unsigned j = 0; j < nq; j++)
            out[j * KN_BLOCK_ROWS + i] = sve_along((const float *)queries + j * b->dim, x, b->dim, l2sq);
    }
}

static void sve_few_dot_f32(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    sve_few(b, queries, nq, false, out);
}

static void sve_few_l2sq_f32(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    sve_few(b, queries, nq, true, out);
}

static void sve_squares_f32(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++) {
        const float *x = (const float *)(const void *)row_at(b, i);
        out[i] = sve_along(x, x, b->dim, false);
    }
}

static void sve_dot_squares_f32(const kn_block *b, const void *query, float *out, float *squares)
{
    const float *q = query;
    for (size_t i = 0; i < b->count; i++) {
        const float *x = (const float *)(const void *)row_at(b, i);
        svfloat32_t dot = svdup_f32(0), square = svdup_f32(0);
        ask_ahead(b, i, 1);
        ask_chosen(b, i);
        for (size_t k = 0; k < b->dim; k += svcntw()) {
            svbool_t p = svwhilelt_b32_u64(k, b->dim);
            svfloat32_t e = svld1_f32(p, x + k);
            dot = svmla_f32_m(p, dot, e, svld1_f32(p, q + k));
            square = svmla_f32_m(p, square, e, e);
        }
        out[i] = svaddv_f32(svptrue_b32(), dot);
        squares[i] = svaddv_f32(svptrue_b32(), square);
    }
}

/* ---- many queries: tiles ---------------------------------------------------------------------------------------- */

INLINE svfloat32_t tile_term(svbool_t p, svfloat32_t sum, svfloat32_t q, const uint8_t *x, bool l2sq)
{
    float e = *(const float_at *)x;
    if (!l2sq)
        return svmla_n_f32_x(p, sum, q, e);
    svfloat32_t t = svsub_n_f32_x(p, q, e);
    return svmla_f32_x(p, sum, t, t);
}

/* Rows i to i + 7, or row i eight times. */
INLINE void tile_sve(const kn_block *b, const float *panel, size_t i, bool one, unsigned width, bool l2sq, float *out)
{
    const uint8_t *x[8];
    for (unsigned r = 0; r < 8; r++)
        x[r] = row_at(b, one ? i : i + r);
    for (size_t lane = 0; lane < width; lane += svcntw()) {
        svbool_t p = svwhilelt_b32_u64(lane, width);
        svfloat32_t s0 = svdup_f32(0), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
        for (size_t k = 0; k < b->dim; k++) {
            svfloat32_t q = svld1_f32(p, panel + k * width + lane);
            size_t at = k * sizeof(float);
            s0 = tile_term(p, s0, q, x[0] + at, l2sq);
            if (one)
                continue;
            s1 = tile_term(p, s1, q, x[1] + at, l2sq);
            s2 = tile_term(p, s2, q, x[2] + at, l2sq);
            s3 = tile_term(p, s3, q, x[3] + at, l2sq);
            s4 = tile_term(p, s4, q, x[4] + at, l2sq);
            s5 = tile_term(p, s5, q, x[5] + at, l2sq);
            s6 = tile_term(p, s6, q, x[6] + at, l2sq);
            s7 = tile_term(p, s7, q, x[7] + at, l2sq);
        }
        float *to = out + i * width + lane;
        svst1_f32(p, to, s0);
        if (one)
            continue;
        svst1_f32(p, to + width, s1);
        svst1_f32(p, to + 2 * width, s2);
        svst1_f32(p, to + 3 * width, s3);
        svst1_f32(p, to + 4 * width, s4);
        svst1_f32(p, to + 5 * width, s5);
        svst1_f32(p, to + 6 * width, s6);
        svst1_f32(p, to + 7 * width, s7);
    }
}

INLINE void panel_sve(const kn_block *b, const void *panel, unsigned width, bool l2sq, float *out)
{
    size_t i = 0;
    for (; i + 8 <= b->count; i += 8) {
        ask_ahead(b, i, 8);
        tile_sve(b, panel, i, false, width, l2sq, out);
    }
    for (; i < b->count; i++)
        tile_sve(b, panel, i, true, width, l2sq, out);
}

static void sve_panel_dot_f32(const kn_block *b, const void *panel, unsigned width, float *out)
{
    panel_sve(b, panel, width, false, out);
}

static void sve_panel_l2sq_f32(const kn_block *b, const void *panel, unsigned width, float *out)
{
    panel_sve(b, panel, width, true, out);
}

/* ---- half precision --------------------------------------------------------------------------------------------- */

/* As many elements as there are lanes for floats. */
INLINE svfloat32_t halves_at(svbool_t p, const uint8_t *at)
{
    return svcvt_f32_f16_x(p, svreinterpret_f16_u32(svld1uh_u32(p, (const uint16_t *)(const void *)at)));
}

static void widen_f16(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++, out += b->dim) {
        const uint8_t *row = row_at(b, i);
        ask_ahead(b, i, 1);
        for (size_t k = 0; k < b->dim; k += svcntw()) {
            svbool_t p = svwhilelt_b32_u64(k, b->dim);
            svst1_f32(p, out + k, halves_at(p, row + 2 * k));
        }
    }
}

static void dot_squares_f16(const kn_block *b, const void *query, float *out, float *squares)
{
    const float *q = query;
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *row = row_at(b, i);
        svfloat32_t dot = svdup_f32(0), square = svdup_f32(0);
        ask_chosen(b, i);
        for (size_t k = 0; k < b->dim; k += svcntw()) {
            svbool_t p = svwhilelt_b32_u64(k, b->dim);
            svfloat32_t x = halves_at(p, row + 2 * k);
            dot = svmla_f32_m(p, dot, x, svld1_f32(p, q + k));
            square = svmla_f32_m(p, square, x, x);
        }
        out[i] = svaddv_f32(svptrue_b32(), dot);
        squares[i] = svaddv_f32(svptrue_b32(), square);
    }
}

/* ---- int8 and bits ---------------------------------------------------------------------------------------------- */

INLINE float dot_i8(const int8_t *q, const int8_t *x, size_t dim)
{
    svint32_t sum = svdup_s32(0);
    for (size_t k = 0; k < dim; k += svcntb()) {
        svbool_t p = svwhilelt_b8_u64(k, dim);
        sum = svdot_s32(sum, svld1_s8(p, q + k), svld1_s8(p, x + k));
    }
    return (float)(int32_t)svaddv_s32(svptrue_b32(), sum);
}

static void few_dot_i8(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    for (size_t i = 0; i < b->count; i++) {
        ask_ahead(b, i, 1);
        ask_chosen(b, i);
        for (unsigned j = 0; j < nq; j++)
            out[j * KN_BLOCK_ROWS + i] =
                dot_i8((const int8_t *)queries + j * b->dim, (const int8_t *)row_at(b, i), b->dim);
    }
}

static void squares_i8(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        out[i] = dot_i8((const int8_t *)row_at(b, i), (const int8_t *)row_at(b, i), b->dim);
}

enum bits_of { BOTH, DIFFER, ROW };

INLINE float bits(const uint8_t *q, const uint8_t *x, size_t dim, enum bits_of what)
{
    svuint32_t sum = svdup_u32(0);
    const svuint8_t ones = svdup_u8(1);
    for (size_t k = 0; k < dim; k += svcntb()) {
        svbool_t p = svwhilelt_b8_u64(k, dim);
        svuint8_t e = svld1_u8(p, x + k); /* lanes behind the row are zeros */
        if (what == BOTH)
            e = svand_u8_z(p, e, svld1_u8(p, q + k));
        else if (what == DIFFER)
            e = sveor_u8_z(p, e, svld1_u8(p, q + k));
        sum = svdot_u32(sum, svcnt_u8_x(svptrue_b8(), e), ones);
    }
    return (float)svaddv_u32(svptrue_b32(), sum);
}

static void few_and_bits(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        for (unsigned j = 0; j < nq; j++)
            out[j * KN_BLOCK_ROWS + i] = bits((const uint8_t *)queries + j * b->dim, row_at(b, i), b->dim, BOTH);
}

static void few_xor_bits(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        for (unsigned j = 0; j < nq; j++)
            out[j * KN_BLOCK_ROWS + i] = bits((const uint8_t *)queries + j * b->dim, row_at(b, i), b->dim, DIFFER);
}

static void count_bits(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        out[i] = bits(NULL, row_at(b, i), b->dim, ROW);
}

const kn_distance kn_distance_sve = {
    .isa = KN_SVE,
    .lanes_f32 = SVE_LANES,
    .lanes_f64 = LANES_F64,
    .few_dot_f32 = sve_few_dot_f32,
    .few_l2sq_f32 = sve_few_l2sq_f32,
    .few_dot_f64 = few_dot_f64,
    .few_l2sq_f64 = few_l2sq_f64,
    .few_mean_log_f32 = few_mean_log_f32,
    .panel_dot_f32 = sve_panel_dot_f32,
    .panel_l2sq_f32 = sve_panel_l2sq_f32,
    .panel_dot_f64 = panel_dot_f64,
    .panel_l2sq_f64 = panel_l2sq_f64,
    .dot_squares_f32 = sve_dot_squares_f32,
    .dot_squares_f64 = dot_squares_f64,
    .squares_f32 = sve_squares_f32,
    .squares_f64 = squares_f64,
    .select_panel = select_panel,
    .select_rows = select_rows,
    .log_rows = log_rows,
    .entropy = entropy,
    .few_dot_i8 = few_dot_i8,
    .few_and_bits = few_and_bits,
    .few_xor_bits = few_xor_bits,
    .squares_i8 = squares_i8,
    .count_bits = count_bits,
    .widen_f16 = widen_f16,
    .dot_squares_f16 = dot_squares_f16,
};
