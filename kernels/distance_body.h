/* SPDX-License-Identifier: Apache-2.0 */
/*
 * distance_body.h - the floating-point functions of distance.h, written once for vectors of any width.
 *
 * Included by one source file per instruction set, which is compiled for that set and defines before:
 *     VEC        bytes of a vector register: 16, 32 or 64
 *     TILE_ONE   rows of a tile with one vector of queries; TILE_TWO: with two
 * and after it fills its table. A tile keeps TILE rows x 1 or 2 vectors of queries in registers: each step loads the
 * queries' elements k, and multiplies them by element k of each row, broadcast. Nothing is added across a register.
 * One or a few queries instead go along the row: rows are read one after the other, in the order of their addresses,
 * since several streams at once defeat the processor's own prefetching.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "distance.h"

#define LANES_F32 (VEC / 4)
#define LANES_F64 (VEC / 8)
#define INLINE    static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(VEC)));
typedef double vd __attribute__((vector_size(VEC)));
typedef int32_t vi __attribute__((vector_size(VEC)));
typedef uint32_t vu __attribute__((vector_size(VEC)));
typedef int64_t vl __attribute__((vector_size(VEC)));
/* The same in memory, at any address. */
typedef float vf_at __attribute__((vector_size(VEC), aligned(1), may_alias));
typedef double vd_at __attribute__((vector_size(VEC), aligned(1), may_alias));
typedef float float_at __attribute__((aligned(1), may_alias));
typedef double double_at __attribute__((aligned(1), may_alias));

INLINE size_t row_number(const kn_block *b, size_t i)
{
    return b->which != NULL ? b->which[i] : i;
}

INLINE const uint8_t *row_at(const kn_block *b, size_t i)
{
    return (const uint8_t *)b->rows + row_number(b, i) * b->row_bytes;
}

/* Ask for the next block piece by piece while this one is computed, so that memory and arithmetic overlap. */
INLINE void ask_ahead(const kn_block *b, size_t i, size_t step)
{
    if (b->next == NULL)
        return;
    size_t from = b->next_bytes * i / b->count, to = b->next_bytes * (i + step) / b->count;
    from = (from + 63) & ~(size_t)63;
    for (; from < to && from < b->next_bytes; from += 64)
        __builtin_prefetch((const uint8_t *)b->next + from, 0, 2);
}

/* Rows that are left out make holes in the stream of addresses, and the processor's prefetching stops at them: ask for
 * the row some places ahead. It sees to the rest of a long row. */
INLINE void ask_chosen(const kn_block *b, size_t i)
{
    if (b->which == NULL || i + 8 >= b->count)
        return;
    const uint8_t *row = row_at(b, i + 8);
    for (size_t at = 0; at < b->row_bytes && at < 1024; at += 64)
        __builtin_prefetch(row + at, 0, 3);
}

/* Sums over a register by halves: in registers where the compiler's generic form would go through memory. */
INLINE float sum_f32(vf v)
{
#if VEC == 64 && defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#elif VEC == 32 && defined(__AVX2__)
    __m128 s = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
#else
    float lanes[LANES_F32];
    memcpy(lanes, &v, VEC);
    for (int n = LANES_F32 / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            lanes[i] += lanes[i + n];
    return lanes[0];
#endif
}

INLINE double sum_f64(vd v)
{
#if VEC == 64 && defined(__AVX512F__)
    return _mm512_reduce_add_pd((__m512d)v);
#else
    double lanes[LANES_F64];
    memcpy(lanes, &v, VEC);
    for (int n = LANES_F64 / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            lanes[i] += lanes[i + n];
    return lanes[0];
#endif
}

/* All bits set in the last `count` lanes: what a load that ends at a row's end has not seen before. */
INLINE vi last_lanes_f32(size_t count)
{
    vi number;
    for (int i = 0; i < LANES_F32; i++)
        number[i] = i;
    return number >= (int32_t)(LANES_F32 - count);
}

INLINE vl last_lanes_f64(size_t count)
{
    vl number;
    for (int i = 0; i < LANES_F64; i++)
        number[i] = i;
    return number >= (int64_t)(LANES_F64 - count);
}

/* Functions for float and double differ in their types alone. */
#define T_NAME(name) name##_f32
#define T_SCALAR     float
#define T_SCALAR_AT  float_at
#define T_VECTOR     vf
#define T_VECTOR_AT  vf_at
#define T_BITS       vi
#define T_LANES      LANES_F32
#include "distance_typed.h"
#undef T_NAME
#undef T_SCALAR
#undef T_SCALAR_AT
#undef T_VECTOR
#undef T_VECTOR_AT
#undef T_BITS
#undef T_LANES

#define T_NAME(name) name##_f64
#define T_SCALAR     double
#define T_SCALAR_AT  double_at
#define T_VECTOR     vd
#define T_VECTOR_AT  vd_at
#define T_BITS       vl
#define T_LANES      LANES_F64
#include "distance_typed.h"

/* ---- selection ------------------------------------------------------------------------------------------------- */

INLINE bool any_lane(vi mask)
{
#if VEC == 64 && defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif VEC == 32 && defined(__AVX2__)
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
    int64_t words[VEC / 8], all = 0;
    memcpy(words, &mask, VEC);
    for (int i = 0; i < VEC / 8; i++)
        all |= words[i];
    return all != 0;
#endif
}

/* Not "value >= threshold": what is not a number is a hit, too. */
INLINE vi not_below(vf value, vf threshold)
{
    return ~(value < threshold);
}

#if VEC == 64 && defined(__AVX512F__)

/* The lanes of a mask, in order. */
INLINE size_t take_hits(kn_hit *hits, size_t found, uint32_t mask, __m512 value, uint32_t row, uint32_t lane, bool rows)
{
    float values[16];
    _mm512_storeu_ps(values, value);
    for (; mask != 0; mask &= mask - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(mask);
        hits[found++] = (kn_hit){.row = rows ? row + l : row, .lane = rows ? 0 : lane + l, .value = values[l]};
    }
    return found;
}

/* A panel's slack and threshold stay in two registers each while the rows go by. */
static size_t select_panel(const float *scores, size_t count, unsigned width, const float *scale, const float *add,
                           const float *slack, const float *threshold, kn_hit *hits)
{
    size_t found = 0; /* no panel of ours is wider than 32 */
    const __mmask16 low = (__mmask16)(width >= 16 ? 0xffff : (1u << width) - 1);
    const __mmask16 high = (__mmask16)(width <= 16 ? 0 : width >= 32 ? 0xffff : (1u << (width - 16)) - 1);
    const __m512 slack0 = _mm512_maskz_loadu_ps(low, slack), slack1 = _mm512_maskz_loadu_ps(high, slack + 16);
    const __m512 limit0 = _mm512_maskz_loadu_ps(low, threshold), limit1 = _mm512_maskz_loadu_ps(high, threshold + 16);
    for (size_t i = 0; i < count; i++, scores += width) {
        const __m512 factor = _mm512_set1_ps(scale[i]), more = _mm512_set1_ps(add[i]);
        const __m512 v0 = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(low, scores), factor, _mm512_mul_ps(slack0, more));
        const __m512 v1 = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(high, scores + 16), factor, _mm512_mul_ps(slack1, more));
        uint32_t hit0 = _mm512_mask_cmp_ps_mask(low, v0, limit0, _CMP_NLT_UQ);
        uint32_t hit1 = _mm512_mask_cmp_ps_mask(high, v1, limit1, _CMP_NLT_UQ);
        if (__builtin_expect((hit0 | hit1) != 0, 0)) {
            found = take_hits(hits, found, hit0, v0, (uint32_t)i, 0, false);
            found = take_hits(hits, found, hit1, v1, (uint32_t)i, 16, false);
        }
    }
    return found;
}

static size_t select_rows(const float *scores, size_t count, const float *scale, const float *add, float slack,
                          float threshold, kn_hit *hits)
{
    size_t found = 0;
    const __m512 limit = _mm512_set1_ps(threshold), by = _mm512_set1_ps(slack);
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 all = (__mmask16)(count - i >= 16 ? 0xffff : (1u << (count - i)) - 1);
        __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(all, scores + i), _mm512_maskz_loadu_ps(all, scale + i));
        value = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(all, add + i), by, value);
        uint32_t hit = _mm512_mask_cmp_ps_mask(all, value, limit, _CMP_NLT_UQ);
        if (__builtin_expect(hit != 0, 0))
            found = take_hits(hits, found, hit, value, (uint32_t)i, 0, true);
    }
    return found;
}

#else

static size_t select_panel(const float *scores, size_t count, unsigned width, const float *scale, const float *add,
                           const float *slack, const float *threshold, kn_hit *hits)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++, scores += width) {
        unsigned j = 0;
        for (; j + LANES_F32 <= width; j += LANES_F32) {
            vf value = *(const vf_at *)(scores + j) * scale[i] + *(const vf_at *)(slack + j) * add[i];
            vi hit = not_below(value, *(const vf_at *)(threshold + j));
            if (__builtin_expect(any_lane(hit), 0))
                for (unsigned l = 0; l < LANES_F32; l++)
                    if (hit[l])
                        hits[found++] = (kn_hit){.row = (uint32_t)i, .lane = j + l, .value = value[l]};
        }
        /* Panels of double or of bits may be narrower than a register of floats. */
        for (; j < width; j++) {
            float value = scores[j] * scale[i] + slack[j] * add[i];
            if (!(value < threshold[j]))
                hits[found++] = (kn_hit){.row = (uint32_t)i, .lane = j, .value = value};
        }
    }
    return found;
}

static size_t select_rows(const float *scores, size_t count, const float *scale, const float *add, float slack,
                          float threshold, kn_hit *hits)
{
    size_t found = 0, i = 0;
    vf limit = (vf){0} + threshold;
    for (; i + LANES_F32 <= count; i += LANES_F32) {
        vf value = *(const vf_at *)(scores + i) * *(const vf_at *)(scale + i) + *(const vf_at *)(add + i) * slack;
        vi hit = not_below(value, limit);
        if (__builtin_expect(any_lane(hit), 0))
            for (unsigned l = 0; l < LANES_F32; l++)
                if (hit[l])
                    hits[found++] = (kn_hit){.row = (uint32_t)(i + l), .value = value[l]};
    }
    for (; i < count; i++) {
        float value = scores[i] * scale[i] + slack * add[i];
        if (!(value < threshold))
            hits[found++] = (kn_hit){.row = (uint32_t)i, .value = value};
    }
    return found;
}

#endif

/* ---- logarithms ------------------------------------------------------------------------------------------------ */

/* ln of normal positive numbers; of infinity and NaN something finite.
 * x = 2^e m with m in [sqrt(1/2), sqrt(2)), f = m - 1 is exact, and ln m = f - f^2 / 2 + f^3 p(f): p is the polynomial of
 * degree 7 whose largest error, relative to ln m, is least (0.1 u; with the rounding of each step 1.4 u). */
INLINE vf log_of_normal(vf x)
{
    vu bits = (vu)x;
    vi e = (vi)(bits - 0x3f3504f3u) >> 23; /* 0x3f3504f3: sqrt(1/2) */
    vf f = (vf)(bits - ((vu)e << 23)) - 1.0f, z = f * f;
    vf p = (vf){0} - 7.634583116e-2f;
    p = p * f + 1.276159883e-1f;
    p = p * f - 1.316015720e-1f;
    p = p * f + 1.420175284e-1f;
    p = p * f - 1.662335992e-1f;
    p = p * f + 2.000122666e-1f;
    p = p * f - 2.500081956e-1f;
    p = p * f + 3.333333135e-1f;
    vf n = __builtin_convertvector(e, vf);
    return n * 0.693359375f + (f + (z * (p * f - 0.5f) - n * 2.12194440e-4f));
}

/* The same; NaN for negative numbers, infinity and NaN. */
INLINE vf log_f32(vf x)
{
    vi bad = ~((x >= 0.0f) & (x <= 0x1.fffffep127f));
    return (vf)((vi)log_of_normal(x) | bad); /* all bits set: a NaN */
}

#define TINY 0x1p-126f

static void log_rows(const kn_block *b, float epsilon, float *out, float *norm, float *tiny)
{
    for (size_t i = 0; i < b->count; i++, out += b->dim) {
        const uint8_t *row = row_at(b, i);
        vf sum = {0};
        vi small = {0};
        size_t k = 0;
        float rest = 0;
        for (; k + LANES_F32 <= b->dim; k += LANES_F32) {
            vf x = *(const vf_at *)(row + k * 4);
            vi negative = x < 0.0f;
            x += epsilon;
            vi below = x < TINY;
            small |= below;
            vf y = log_f32((vf)(((vi)x & ~below) | ((vi)((vf){0} + TINY) & below)));
            y = (vf)((vi)y | negative);
            *(vf_at *)(out + k) = y;
            sum += y * y;
        }
        bool some = any_lane(small);
        for (; k < b->dim; k++) {
            float x = *(const float_at *)(row + k * 4);
            bool negative = x < 0.0f;
            x += epsilon;
            some |= x < TINY;
            vf y = log_f32((vf){0} + (x < TINY ? TINY : x));
            out[k] = negative ? __builtin_nanf("") : y[0];
            rest += out[k] * out[k];
        }
        norm[i] = __builtin_sqrtf(sum_f32(sum) + rest);
        tiny[i] = some ? 1.0f : 0.0f;
    }
}

/* x ln x, 0 at 0 (numbers below TINY count as 0: they change a sum by less than 1e-35). */
INLINE vf x_log_x(vf x)
{
    vi normal = ~(x < TINY) | (x < 0.0f);
    vf y = x * log_f32(x);
    return (vf)((vi)y & normal);
}

INLINE vf absolute(vf x)
{
    return (vf)((vi)x & 0x7fffffff);
}

static void entropy(const kn_block *b, float *xlogx, float *weight)
{
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *row = row_at(b, i);
        vf sum = {0}, heavy = {0};
        float rest = 0, rest_heavy = 0;
        size_t k = 0;
        for (; k + LANES_F32 <= b->dim; k += LANES_F32) {
            vf x = *(const vf_at *)(row + k * 4), y = x_log_x(x);
            sum += y;
            heavy += 2.0f * absolute(y) + absolute(x);
        }
        for (; k < b->dim; k++) {
            vf x = (vf){0} + *(const float_at *)(row + k * 4), y = x_log_x(x);
            rest += y[0];
            rest_heavy += 2.0f * absolute(y)[0] + absolute(x)[0];
        }
        xlogx[i] = sum_f32(sum) + rest;
        weight[i] = sum_f32(heavy) + rest_heavy;
    }
}

/* (q + x) ln((q + x) / 2). A sum that is not a number stays none; where one of both is negative the row's entropy tells. */
INLINE vf mean_log(vf q, vf x)
{
    vf s = q + x;
#if VEC == 64 && defined(__AVX512F__)
    const __m512 tiny = _mm512_set1_ps(TINY), half = _mm512_set1_ps(0.5f);
    __mmask16 normal = _mm512_cmp_ps_mask((__m512)s, _mm512_set1_ps(2 * TINY), _CMP_GE_OQ);
    return s * log_of_normal((vf)_mm512_mask_mul_ps(tiny, normal, (__m512)s, half));
#else
    return s * log_of_normal((vf)(((vi)(s * 0.5f) & (s >= 2 * TINY)) | ((vi)((vf){0} + TINY) & ~(s >= 2 * TINY))));
#endif
}

INLINE void few_mean_log(const kn_block *b, const uint8_t *queries, unsigned nq, float *out)
{
    size_t query_bytes = b->dim * 4;
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *row = row_at(b, i);
        vf sum[KN_FEW] = {0};
        float rest[KN_FEW] = {0};
        size_t k = 0;
        for (; k + LANES_F32 <= b->dim; k += LANES_F32) {
            vf x = *(const vf_at *)(row + k * 4);
            for (unsigned j = 0; j < nq; j++)
                sum[j] += mean_log(*(const vf_at *)(queries + j * query_bytes + k * 4), x);
        }
        for (; k < b->dim; k++) {
            vf x = (vf){0} + *(const float_at *)(row + k * 4);
            for (unsigned j = 0; j < nq; j++)
                rest[j] += mean_log((vf){0} + *(const float_at *)(queries + j * query_bytes + k * 4), x)[0];
        }
        for (unsigned j = 0; j < nq; j++)
            out[j * KN_BLOCK_ROWS + i] = sum_f32(sum[j]) + rest[j];
    }
}

static void few_mean_log_f32(const kn_block *b, const void *queries, unsigned nq, float *out)
{
    if (nq == 1)
        few_mean_log(b, queries, 1, out);
    else if (nq == 2)
        few_mean_log(b, queries, 2, out);
    else if (nq == 3)
        few_mean_log(b, queries, 3, out);
    else
        few_mean_log(b, queries, 4, out);
}
