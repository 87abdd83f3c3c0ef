/* SPDX-License-Identifier: Apache-2.0 */
/* distance_neon.c - 64-bit ARM: NEON is always there. What later versions of it added (dot products of bytes) is not. */
#include <arm_neon.h>

#define VEC      16
#define TILE_ONE 8
#define TILE_TWO 8
#include "distance_body.h"

#include "distance_parts.h"

/* ---- half precision --------------------------------------------------------------------------------------------- */

INLINE float half_at(const uint8_t *at)
{
    __fp16 h;
    memcpy(&h, at, sizeof(h));
    return (float)h;
}

/* Four elements. */
INLINE float32x4_t halves_at(const uint8_t *at)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(at)));
}

static void widen_f16(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++, out += b->dim) {
        const uint8_t *row = row_at(b, i);
        size_t k = 0;
        ask_ahead(b, i, 1);
        for (; k + 4 <= b->dim; k += 4)
            vst1q_f32(out + k, halves_at(row + 2 * k));
        for (; k < b->dim; k++)
            out[k] = half_at(row + 2 * k);
    }
}

static void dot_squares_f16(const kn_block *b, const void *query, float *out, float *squares)
{
    const float *q = query;
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *row = row_at(b, i);
        float32x4_t dot[2] = {{0}, {0}}, square[2] = {{0}, {0}};
        float rest = 0, rest_square = 0;
        size_t k = 0;
        ask_chosen(b, i);
        for (; k + 8 <= b->dim; k += 8)
            for (size_t c = 0; c < 2; c++) {
                float32x4_t x = halves_at(row + 2 * k + 8 * c);
                dot[c] = vfmaq_f32(dot[c], x, vld1q_f32(q + k + 4 * c));
                square[c] = vfmaq_f32(square[c], x, x);
            }
        for (; k < b->dim; k++) {
            float x = half_at(row + 2 * k);
            rest += x * q[k];
            rest_square += x * x;
        }
        out[i] = vaddvq_f32(vaddq_f32(dot[0], dot[1])) + rest;
        squares[i] = vaddvq_f32(vaddq_f32(square[0], square[1])) + rest_square;
    }
}

/* ---- int8 ------------------------------------------------------------------------------------------------------ */

/* 16 bytes of which `left` are there; the others are zeros. */
INLINE uint8x16_t load_bytes(const uint8_t *at, size_t left)
{
    uint8_t bytes[16] = {0};
    if (left >= 16)
        return vld1q_u8(at);
    memcpy(bytes, at, left);
    return vld1q_u8(bytes);
}

/* Products have 16 bits and are added in pairs to sums of 32. */
INLINE int32x4_t add_products(int32x4_t sum, int8x16_t q, int8x16_t x)
{
    sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(q), vget_low_s8(x)));
    return vpadalq_s16(sum, vmull_high_s8(q, x));
}

/* nq is a constant where this is inlined. */
INLINE void dots_i8(const uint8_t *q, const uint8_t *x, size_t dim, unsigned nq, float *out)
{
    int32x4_t sum[KN_FEW][2] = {{{0}}};
    size_t k = 0;
    for (; k + 32 <= dim; k += 32)
        for (unsigned c = 0; c < 2; c++) {
            int8x16_t e = vreinterpretq_s8_u8(vld1q_u8(x + k + 16 * c));
            for (unsigned j = 0; j < nq; j++)
                sum[j][c] = add_products(sum[j][c], vreinterpretq_s8_u8(vld1q_u8(q + j * dim + k + 16 * c)), e);
        }
    for (; k < dim; k += 16) {
        int8x16_t e = vreinterpretq_s8_u8(load_bytes(x + k, dim - k));
        for (unsigned j = 0; j < nq; j++)
            sum[j][0] = add_products(sum[j][0], vreinterpretq_s8_u8(load_bytes(q + j * dim + k, dim - k)), e);
    }
    for (unsigned j = 0; j < nq; j++)
        out[j * KN_BLOCK_ROWS] = (float)vaddvq_s32(vaddq_s32(sum[j][0], sum[j][1]));
}

static void few_dot_i8(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    for (size_t i = 0; i < b->count; i++) {
        ask_ahead(b, i, 1);
        ask_chosen(b, i);
        if (nq == 1)
            dots_i8(queries, row_at(b, i), b->dim, 1, out + i);
        else if (nq == 4)
            dots_i8(queries, row_at(b, i), b->dim, 4, out + i);
        else
            dots_i8(queries, row_at(b, i), b->dim, nq, out + i);
    }
}

static void squares_i8(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        dots_i8(row_at(b, i), row_at(b, i), b->dim, 1, out + i);
}

/* ---- bits ------------------------------------------------------------------------------------------------------ */

/* Bits set in each byte, added up to four sums. */
INLINE uint32x4_t add_bits(uint32x4_t sum, uint8x16_t v)
{
    return vpadalq_u16(sum, vpaddlq_u8(vcntq_u8(v)));
}

enum bits_of { BOTH, DIFFER, ROW };

/* nq and what are constants where this is inlined. */
INLINE void count_of(const uint8_t *q, const uint8_t *x, size_t dim, unsigned nq, enum bits_of what, float *out)
{
    uint32x4_t sum[KN_FEW] = {{0}};
    for (size_t k = 0; k < dim; k += 16) {
        uint8x16_t e = load_bytes(x + k, dim - k);
        for (unsigned j = 0; j < nq; j++) {
            uint8x16_t a = what == ROW ? e : load_bytes(q + j * dim + k, dim - k);
            sum[j] = add_bits(sum[j], what == ROW ? e : what == BOTH ? vandq_u8(a, e) : veorq_u8(a, e));
        }
    }
    for (unsigned j = 0; j < nq; j++)
        out[j * KN_BLOCK_ROWS] = (float)vaddlvq_u32(sum[j]);
}

static void few_and_bits(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        if (nq == 1)
            count_of(queries, row_at(b, i), b->dim, 1, BOTH, out + i);
        else
            count_of(queries, row_at(b, i), b->dim, nq, BOTH, out + i);
}

static void few_xor_bits(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        if (nq == 1)
            count_of(queries, row_at(b, i), b->dim, 1, DIFFER, out + i);
        else
            count_of(queries, row_at(b, i), b->dim, nq, DIFFER, out + i);
}

static void count_bits(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        count_of(NULL, row_at(b, i), b->dim, 1, ROW, out + i);
}

const kn_distance kn_distance_neon = {
    .isa = KN_NEON,
#include "distance_table.h"
    .few_dot_i8 = few_dot_i8,
    .few_and_bits = few_and_bits,
    .few_xor_bits = few_xor_bits,
    .squares_i8 = squares_i8,
    .count_bits = count_bits,
    .widen_f16 = widen_f16,
    .dot_squares_f16 = dot_squares_f16,
};
