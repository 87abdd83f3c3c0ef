/* SPDX-License-Identifier: Apache-2.0 */
/*
 * distance_scalar.c - the reference: one plain loop per function, for any processor. The others are tested against it.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "distance_parts.h"

#define LANES 8

static const uint8_t *row_at(const kn_block *b, size_t i)
{
    return (const uint8_t *)b->rows + (b->which != NULL ? b->which[i] : i) * b->row_bytes;
}

static float f32_at(const void *at, size_t k)
{
    float value;
    memcpy(&value, (const char *)at + k * sizeof(value), sizeof(value));
    return value;
}

static double f64_at(const void *at, size_t k)
{
    double value;
    memcpy(&value, (const char *)at + k * sizeof(value), sizeof(value));
    return value;
}

static uint64_t word_at(const uint8_t *row, size_t dim, size_t k)
{
    uint64_t word = 0;
    memcpy(&word, row + k, dim - k < 8 ? dim - k : 8);
    return word;
}

/* ---- a few queries --------------------------------------------------------------------------------------------- */

#define FEW(NAME, TYPE, AT, TERM)                                                                                      \
    static void NAME(const kn_block *b, const void *queries, unsigned nq, float *out)                                  \
    {                                                                                                                  \
        for (size_t i = 0; i < b->count; i++)                                                                          \
            for (unsigned j = 0; j < nq; j++) {                                                                        \
                TYPE sum = 0;                                                                                          \
                for (size_t k = 0; k < b->dim; k++) {                                                                  \
                    TYPE q = AT(queries, j * b->dim + k), x = AT(row_at(b, i), k);                                     \
                    sum += (TERM);                                                                                     \
                }                                                                                                      \
                out[j * KN_BLOCK_ROWS + i] = (float)sum;                                                               \
            }                                                                                                          \
    }

FEW(few_dot_f32, float, f32_at, q *x)
FEW(few_l2sq_f32, float, f32_at, (q - x) * (q - x))
FEW(few_dot_f64, double, f64_at, q *x)
FEW(few_l2sq_f64, double, f64_at, (q - x) * (q - x))
FEW(few_mean_log_f32, float, f32_at, q + x == 0 ? 0 : q < 0 || x < 0 ? NAN : (q + x) * logf((q + x) / 2))

void kn_few_dot_i8_scalar(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        for (unsigned j = 0; j < nq; j++) {
            const int8_t *q = (const int8_t *)queries + j * b->dim, *x = (const int8_t *)row_at(b, i);
            int32_t sum = 0;
            for (size_t k = 0; k < b->dim; k++)
                sum += q[k] * x[k];
            out[j * KN_BLOCK_ROWS + i] = (float)sum;
        }
}

static void few_bits(const kn_block *b, const void *queries, unsigned nq, bool both, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        for (unsigned j = 0; j < nq; j++) {
            uint64_t sum = 0;
            for (size_t k = 0; k < b->dim; k += 8) {
                uint64_t q = word_at((const uint8_t *)queries + j * b->dim, b->dim, k),
                         x = word_at(row_at(b, i), b->dim, k);
                sum += (uint64_t)__builtin_popcountll(both ? q & x : q ^ x);
            }
            out[j * KN_BLOCK_ROWS + i] = (float)sum;
        }
}

void kn_few_and_bits_scalar(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    few_bits(b, queries, nq, true, out);
}

void kn_few_xor_bits_scalar(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    few_bits(b, queries, nq, false, out);
}

/* ---- one number per row ---------------------------------------------------------------------------------------- */

static void squares_f32(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++) {
        float sum = 0;
        for (size_t k = 0; k < b->dim; k++)
            sum += f32_at(row_at(b, i), k) * f32_at(row_at(b, i), k);
        out[i] = sum;
    }
}

static void squares_f64(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++) {
        double sum = 0;
        for (size_t k = 0; k < b->dim; k++)
            sum += f64_at(row_at(b, i), k) * f64_at(row_at(b, i), k);
        out[i] = (float)sum;
    }
}

static void dot_squares_f32(const kn_block *b, const void *query, float *out, float *squares)
{
    few_dot_f32(b, query, 1, out);
    squares_f32(b, squares);
}

static void dot_squares_f64(const kn_block *b, const void *query, float *out, float *squares)
{
    few_dot_f64(b, query, 1, out);
    squares_f64(b, squares);
}

void kn_squares_i8_scalar(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++) {
        const int8_t *x = (const int8_t *)row_at(b, i);
        int32_t sum = 0;
        for (size_t k = 0; k < b->dim; k++)
            sum += x[k] * x[k];
        out[i] = (float)sum;
    }
}

void kn_count_bits_scalar(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++) {
        uint64_t sum = 0;
        for (size_t k = 0; k < b->dim; k += 8)
            sum += (uint64_t)__builtin_popcountll(word_at(row_at(b, i), b->dim, k));
        out[i] = (float)sum;
    }
}

/* ---- many queries ---------------------------------------------------------------------------------------------- */

#define PANEL(NAME, TYPE, AT, TERM)                                                                                    \
    static void NAME(const kn_block *b, const void *panel, unsigned width, float *out)                                 \
    {                                                                                                                  \
        for (size_t i = 0; i < b->count; i++)                                                                          \
            for (unsigned j = 0; j < width; j++) {                                                                     \
                TYPE sum = 0;                                                                                          \
                for (size_t k = 0; k < b->dim; k++) {                                                                  \
                    TYPE q = AT(panel, k * width + j), x = AT(row_at(b, i), k);                                        \
                    sum += (TERM);                                                                                     \
                }                                                                                                      \
                out[i * width + j] = (float)sum;                                                                       \
            }                                                                                                          \
    }

PANEL(panel_dot_f32, float, f32_at, q *x)
PANEL(panel_l2sq_f32, float, f32_at, (q - x) * (q - x))
PANEL(panel_dot_f64, double, f64_at, q *x)
PANEL(panel_l2sq_f64, double, f64_at, (q - x) * (q - x))

static void panel_dot_i8(const kn_block *b, const void *panel, unsigned width, float *out)
{
    const int32_t *start = panel;
    const int8_t *q = (const int8_t *)(start + width);
    for (size_t i = 0; i < b->count; i++)
        for (unsigned j = 0; j < width; j++) {
            int32_t sum = start[j];
            for (size_t k = 0; k < b->dim; k++)
                sum += row_at(b, i)[k] * q[(k / 4 * width + j) * 4 + k % 4];
            out[i * width + j] = (float)sum;
        }
}

static void panel_bits(const kn_block *b, const uint64_t *panel, unsigned width, bool both, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        for (unsigned j = 0; j < width; j++) {
            uint64_t sum = 0;
            for (size_t k = 0; k < b->dim; k += 8) {
                uint64_t q = panel[k / 8 * width + j], x = word_at(row_at(b, i), b->dim, k);
                sum += (uint64_t)__builtin_popcountll(both ? q & x : q ^ x);
            }
            out[i * width + j] = (float)sum;
        }
}

static void panel_and_bits(const kn_block *b, const void *panel, unsigned width, float *out)
{
    panel_bits(b, panel, width, true, out);
}

static void panel_xor_bits(const kn_block *b, const void *panel, unsigned width, float *out)
{
    panel_bits(b, panel, width, false, out);
}

/* ---- selection ------------------------------------------------------------------------------------------------- */

static size_t select_panel(const float *scores, size_t count, unsigned width, const float *scale, const float *add,
                           const float *slack, const float *threshold, kn_hit *hits)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        for (unsigned j = 0; j < width; j++) {
            float value = scores[i * width + j] * scale[i] + slack[j] * add[i];
            if (!(value < threshold[j]))
                hits[found++] = (kn_hit){.row = (uint32_t)i, .lane = j, .value = value};
        }
    return found;
}

static size_t select_rows(const float *scores, size_t count, const float *scale, const float *add, float slack,
                          float threshold, kn_hit *hits)
{
    return select_panel(scores, count, 1, scale, add, &slack, &threshold, hits);
}

/* ---- other rows ------------------------------------------------------------------------------------------------ */

static float half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff, bits;
    if (exponent == 0)
        return (sign ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f;
    bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static void widen_f16(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        for (size_t k = 0; k < b->dim; k++) {
            uint16_t h;
            memcpy(&h, row_at(b, i) + 2 * k, sizeof(h));
            *out++ = half(h);
        }
}

static void log_rows(const kn_block *b, float epsilon, float *out, float *norm, float *tiny)
{
    for (size_t i = 0; i < b->count; i++) {
        float sum = 0;
        tiny[i] = 0;
        for (size_t k = 0; k < b->dim; k++, out++) {
            float x = f32_at(row_at(b, i), k), moved = x + epsilon;
            if (moved < 0x1p-126f) {
                moved = 0x1p-126f;
                tiny[i] = 1;
            }
            *out = x < 0 || !(moved < INFINITY) ? NAN : logf(moved);
            sum += *out * *out;
        }
        norm[i] = sqrtf(sum);
    }
}

static void entropy(const kn_block *b, float *xlogx, float *weight)
{
    for (size_t i = 0; i < b->count; i++) {
        xlogx[i] = weight[i] = 0;
        for (size_t k = 0; k < b->dim; k++) {
            float x = f32_at(row_at(b, i), k), y = x < 0x1p-126f && x >= 0    ? 0
                                                   : x < 0 || !(x < INFINITY) ? NAN
                                                                              : x * logf(x);
            xlogx[i] += y;
            weight[i] += 2 * fabsf(y) + fabsf(x);
        }
    }
}

const kn_distance kn_distance_scalar = {
    .isa = KN_SCALAR,
    .lanes_f32 = LANES,
    .lanes_f64 = LANES,
    .lanes_i8 = LANES,
    .lanes_bits = LANES,
    .few_dot_f32 = few_dot_f32,
    .few_l2sq_f32 = few_l2sq_f32,
    .few_dot_f64 = few_dot_f64,
    .few_l2sq_f64 = few_l2sq_f64,
    .few_dot_i8 = kn_few_dot_i8_scalar,
    .few_and_bits = kn_few_and_bits_scalar,
    .few_xor_bits = kn_few_xor_bits_scalar,
    .few_mean_log_f32 = few_mean_log_f32,
    .panel_dot_f32 = panel_dot_f32,
    .panel_l2sq_f32 = panel_l2sq_f32,
    .panel_dot_f64 = panel_dot_f64,
    .panel_l2sq_f64 = panel_l2sq_f64,
    .panel_dot_i8 = panel_dot_i8,
    .panel_and_bits = panel_and_bits,
    .panel_xor_bits = panel_xor_bits,
    .dot_squares_f32 = dot_squares_f32,
    .dot_squares_f64 = dot_squares_f64,
    .squares_f32 = squares_f32,
    .squares_f64 = squares_f64,
    .squares_i8 = kn_squares_i8_scalar,
    .count_bits = kn_count_bits_scalar,
    .select_panel = select_panel,
    .select_rows = select_rows,
    .widen_f16 = widen_f16,
    .log_rows = log_rows,
    .entropy = entropy,
};
