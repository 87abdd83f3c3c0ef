/* SPDX-License-Identifier: Apache-2.0 */
/* summary_avx2.c - AVX2 and F16C. Compiled for them; called where the processor has them. */
#include <immintrin.h>

#include "summary.h"

#define SUMMARY_TABLE kn_summary_avx2

typedef struct f16x {
    __m256 a, b;
} f16x;
typedef struct d16x {
    __m256d a, b, c, d;
} d16x;

static inline f16x f16x_load(const void *from)
{
    const char *at = from;
    return (f16x){_mm256_loadu_ps((const float *)at), _mm256_loadu_ps((const float *)(at + 32))};
}

static inline f16x f16x_half(const void *from)
{
    const char *at = from;
    return (f16x){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at)),
                  _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(at + 16)))};
}

static inline d16x d16x_load(const void *from)
{
    const char *at = from;
    return (d16x){_mm256_loadu_pd((const double *)at), _mm256_loadu_pd((const double *)(at + 32)),
                  _mm256_loadu_pd((const double *)(at + 64)), _mm256_loadu_pd((const double *)(at + 96))};
}

static inline __m128i four(const void *from, unsigned which)
{
    return _mm_loadu_si128((const __m128i *)((const char *)from + 16 * which));
}

static inline d16x d16x_i32(const void *from)
{
    return (d16x){_mm256_cvtepi32_pd(four(from, 0)), _mm256_cvtepi32_pd(four(from, 1)),
                  _mm256_cvtepi32_pd(four(from, 2)), _mm256_cvtepi32_pd(four(from, 3))};
}

/* With the highest bit turned it is a signed integer, 2^31 less. */
static inline __m256d unsigned_four(const void *from, unsigned which)
{
    __m128i turned = _mm_xor_si128(four(from, which), _mm_set1_epi32(INT32_MIN));
    return _mm256_add_pd(_mm256_cvtepi32_pd(turned), _mm256_set1_pd(0x1p31));
}

static inline d16x d16x_u32(const void *from)
{
    return (d16x){unsigned_four(from, 0), unsigned_four(from, 1), unsigned_four(from, 2), unsigned_four(from, 3)};
}

static inline d16x d16x_of(f16x v)
{
    return (d16x){_mm256_cvtps_pd(_mm256_castps256_ps128(v.a)), _mm256_cvtps_pd(_mm256_extractf128_ps(v.a, 1)),
                  _mm256_cvtps_pd(_mm256_castps256_ps128(v.b)), _mm256_cvtps_pd(_mm256_extractf128_ps(v.b, 1))};
}

static inline void d16x_store(double *to, d16x v)
{
    _mm256_storeu_pd(to, v.a);
    _mm256_storeu_pd(to + 4, v.b);
    _mm256_storeu_pd(to + 8, v.c);
    _mm256_storeu_pd(to + 12, v.d);
}

static inline f16x f16x_set(float value)
{
    return (f16x){_mm256_set1_ps(value), _mm256_set1_ps(value)};
}

static inline d16x d16x_set(double value)
{
    __m256d v = _mm256_set1_pd(value);
    return (d16x){v, v, v, v};
}

static inline unsigned f16x_bits(__m256 a, __m256 b)
{
    return (unsigned)_mm256_movemask_ps(a) | (unsigned)_mm256_movemask_ps(b) << 8;
}

static inline unsigned d16x_bits(d16x v)
{
    return (unsigned)_mm256_movemask_pd(v.a) | (unsigned)_mm256_movemask_pd(v.b) << 4 |
           (unsigned)_mm256_movemask_pd(v.c) << 8 | (unsigned)_mm256_movemask_pd(v.d) << 12;
}

static inline unsigned f16x_nans(f16x v)
{
    return f16x_bits(_mm256_cmp_ps(v.a, v.a, _CMP_UNORD_Q), _mm256_cmp_ps(v.b, v.b, _CMP_UNORD_Q));
}

static inline unsigned f16x_zeros(f16x v)
{
    __m256 zero = _mm256_setzero_ps();
    return f16x_bits(_mm256_cmp_ps(v.a, zero, _CMP_EQ_OQ), _mm256_cmp_ps(v.b, zero, _CMP_EQ_OQ));
}

static inline f16x f16x_or_else(f16x v, f16x other)
{
    return (f16x){_mm256_blendv_ps(v.a, other.a, _mm256_cmp_ps(v.a, v.a, _CMP_UNORD_Q)),
                  _mm256_blendv_ps(v.b, other.b, _mm256_cmp_ps(v.b, v.b, _CMP_UNORD_Q))};
}

static inline f16x f16x_min(f16x v, f16x found)
{
    return (f16x){_mm256_min_ps(v.a, found.a), _mm256_min_ps(v.b, found.b)};
}

static inline f16x f16x_max(f16x v, f16x found)
{
    return (f16x){_mm256_max_ps(v.a, found.a), _mm256_max_ps(v.b, found.b)};
}

#define EACH(F, v, w) ((d16x){F((v).a, (w).a), F((v).b, (w).b), F((v).c, (w).c), F((v).d, (w).d)})
#define UNORDERED(v, w)    _mm256_cmp_pd(v, w, _CMP_UNORD_Q)
#define EQUAL(v, w)        _mm256_cmp_pd(v, w, _CMP_EQ_OQ)
#define OR_ELSE(v, w)      _mm256_blendv_pd(v, w, UNORDERED(v, v))

static inline unsigned d16x_nans(d16x v)
{
    return d16x_bits(EACH(UNORDERED, v, v));
}

static inline unsigned d16x_zeros(d16x v)
{
    d16x zero = d16x_set(0);
    return d16x_bits(EACH(EQUAL, v, zero));
}

static inline d16x d16x_or_else(d16x v, d16x other)
{
    return EACH(OR_ELSE, v, other);
}

static inline d16x d16x_min(d16x v, d16x found)
{
    return EACH(_mm256_min_pd, v, found);
}

static inline d16x d16x_max(d16x v, d16x found)
{
    return EACH(_mm256_max_pd, v, found);
}

static inline d16x d16x_sub(d16x v, d16x w)
{
    return EACH(_mm256_sub_pd, v, w);
}

static inline d16x d16x_add(d16x v, d16x w)
{
    return EACH(_mm256_add_pd, v, w);
}

static inline d16x d16x_mul(d16x v, d16x w)
{
    return EACH(_mm256_mul_pd, v, w);
}

#include "summary_body.h"
