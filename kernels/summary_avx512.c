/* SPDX-License-Identifier: Apache-2.0 */
/* summary_avx512.c - AVX-512 F, BW, DQ and VL. Compiled for them; called where the processor has them. */
#include <immintrin.h>

#include "summary.h"

#define SUMMARY_TABLE kn_summary_avx512

typedef __m512 f16x;
typedef struct d16x {
    __m512d a, b;
} d16x;

static inline f16x f16x_load(const void *from)
{
    return _mm512_loadu_ps(from);
}

static inline f16x f16x_half(const void *from)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(from));
}

static inline d16x d16x_load(const void *from)
{
    return (d16x){_mm512_loadu_pd(from), _mm512_loadu_pd((const char *)from + 64)};
}

static inline d16x d16x_i32(const void *from)
{
    return (d16x){_mm512_cvtepi32_pd(_mm256_loadu_si256(from)),
                  _mm512_cvtepi32_pd(_mm256_loadu_si256((const __m256i *)((const char *)from + 32)))};
}

static inline d16x d16x_u32(const void *from)
{
    return (d16x){_mm512_cvtepu32_pd(_mm256_loadu_si256(from)),
                  _mm512_cvtepu32_pd(_mm256_loadu_si256((const __m256i *)((const char *)from + 32)))};
}

static inline d16x d16x_of(f16x v)
{
    return (d16x){_mm512_cvtps_pd(_mm512_castps512_ps256(v)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1))};
}

static inline void d16x_store(double *to, d16x v)
{
    _mm512_storeu_pd(to, v.a);
    _mm512_storeu_pd(to + 8, v.b);
}

static inline f16x f16x_set(float value)
{
    return _mm512_set1_ps(value);
}

static inline d16x d16x_set(double value)
{
    return (d16x){_mm512_set1_pd(value), _mm512_set1_pd(value)};
}

static inline unsigned f16x_nans(f16x v)
{
    return _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
}

static inline unsigned f16x_zeros(f16x v)
{
    return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_EQ_OQ);
}

static inline f16x f16x_or_else(f16x v, f16x other)
{
    return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), other);
}

static inline f16x f16x_min(f16x v, f16x found)
{
    return _mm512_min_ps(v, found);
}

static inline f16x f16x_max(f16x v, f16x found)
{
    return _mm512_max_ps(v, found);
}

static inline unsigned d16x_nans(d16x v)
{
    unsigned low = _mm512_cmp_pd_mask(v.a, v.a, _CMP_UNORD_Q), high = _mm512_cmp_pd_mask(v.b, v.b, _CMP_UNORD_Q);
    return low | high << 8;
}

static inline unsigned d16x_zeros(d16x v)
{
    __m512d zero = _mm512_setzero_pd();
    unsigned low = _mm512_cmp_pd_mask(v.a, zero, _CMP_EQ_OQ), high = _mm512_cmp_pd_mask(v.b, zero, _CMP_EQ_OQ);
    return low | high << 8;
}

static inline d16x d16x_or_else(d16x v, d16x other)
{
    return (d16x){_mm512_mask_mov_pd(v.a, _mm512_cmp_pd_mask(v.a, v.a, _CMP_UNORD_Q), other.a),
                  _mm512_mask_mov_pd(v.b, _mm512_cmp_pd_mask(v.b, v.b, _CMP_UNORD_Q), other.b)};
}

static inline d16x d16x_min(d16x v, d16x found)
{
    return (d16x){_mm512_min_pd(v.a, found.a), _mm512_min_pd(v.b, found.b)};
}

static inline d16x d16x_max(d16x v, d16x found)
{
    return (d16x){_mm512_max_pd(v.a, found.a), _mm512_max_pd(v.b, found.b)};
}

static inline d16x d16x_sub(d16x v, d16x w)
{
    return (d16x){_mm512_sub_pd(v.a, w.a), _mm512_sub_pd(v.b, w.b)};
}

static inline d16x d16x_add(d16x v, d16x w)
{
    return (d16x){_mm512_add_pd(v.a, w.a), _mm512_add_pd(v.b, w.b)};
}

static inline d16x d16x_mul(d16x v, d16x w)
{
    return (d16x){_mm512_mul_pd(v.a, w.a), _mm512_mul_pd(v.b, w.b)};
}

#include "summary_body.h"
