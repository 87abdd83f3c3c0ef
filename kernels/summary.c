/* SPDX-License-Identifier: Apache-2.0 */
/* summary.c - see summary.h. Elements go through lanes that do not depend on each other, so that the compiler makes vectors
 * of them; blocks keep sums of few numbers apart from those of many. */
#include "summary.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define LANES 16
#define BLOCK 4096 /* elements, a multiple of LANES */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define FOR_EACH_CPU __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512")))
#else
#define FOR_EACH_CPU
#endif

void kn_summary_begin(kn_summary *s, double origin)
{
    *s = (kn_summary){.min_int = INT64_MAX,
                      .max_int = INT64_MIN,
                      .min_uint = UINT64_MAX,
                      .min = HUGE_VAL,
                      .max = -HUGE_VAL,
                      .origin = origin};
}

static float half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff, bits;
    float f;
    if (rest >= 0x7c00) {
        bits = sign | 0x7f800000 | (rest & 0x3ff) << 13;
    } else {
        bits = rest << 13;
        memcpy(&f, &bits, 4);
        f *= 0x1p112f; /* the exponents' bases differ; what is small is made whole by this, too */
        memcpy(&bits, &f, 4);
        bits |= sign;
    }
    memcpy(&f, &bits, 4);
    return f;
}

/* A block of floats: `value` of the element p[i]. NaN adds nothing. */
#define FLOAT_BLOCK(NAME, TYPE, VALUE, COMPUTE)                                                                        \
    FOR_EACH_CPU static void NAME(kn_summary *s, const void *data, size_t count)                                       \
    {                                                                                                                  \
        double sum[LANES] = {0}, squares[LANES] = {0};                                                                 \
        COMPUTE min[LANES], max[LANES];                                                                                \
        uint32_t nans[LANES] = {0}, zeros[LANES] = {0};                                                                \
        const COMPUTE origin = (COMPUTE)s->origin;                                                                     \
        for (size_t k = 0; k < LANES; k++) {                                                                           \
            min[k] = (COMPUTE)HUGE_VAL;                                                                                \
            max[k] = (COMPUTE)-HUGE_VAL;                                                                               \
        }                                                                                                              \
        for (size_t i = 0; i < count; i += LANES) {                                                                    \
            TYPE e[LANES];                                                                                             \
            size_t n = count - i < LANES ? count - i : LANES;                                                          \
            memcpy(e, (const TYPE *)data + i, n == LANES ? sizeof(e) : n * sizeof(TYPE));                              \
            if (n == LANES) {                                                                                          \
                for (size_t k = 0; k < LANES; k++)                                                                     \
                    FLOAT_STEP(VALUE(e[k]), COMPUTE)                                                                   \
            } else {                                                                                                   \
                for (size_t k = 0; k < n; k++)                                                                         \
                    FLOAT_STEP(VALUE(e[k]), COMPUTE)                                                                   \
            }                                                                                                          \
        }                                                                                                              \
        for (size_t k = 0; k < LANES; k++) {                                                                           \
            s->sum += sum[k];                                                                                          \
            s->squares += squares[k];                                                                                  \
            s->nans += nans[k];                                                                                        \
            s->zeros += zeros[k];                                                                                      \
            s->min = min[k] < s->min ? (double)min[k] : s->min;                                                        \
            s->max = max[k] > s->max ? (double)max[k] : s->max;                                                        \
        }                                                                                                              \
        s->count += count;                                                                                             \
    }
#define FLOAT_STEP(V, COMPUTE)                                                                                         \
    {                                                                                                                  \
        COMPUTE v = (V);                                                                                               \
        nans[k] += v != v;                                                                                             \
        zeros[k] += v == 0;                                                                                            \
        min[k] = v < min[k] ? v : min[k];                                                                              \
        max[k] = v > max[k] ? v : max[k];                                                                              \
        double d = (double)(v == v ? v : origin) - (double)origin;                                                     \
        sum[k] += d;                                                                                                   \
        squares[k] += d * d;                                                                                           \
    }
#define SAME(e) (e)
FLOAT_BLOCK(block_f16, uint16_t, half, float)
FLOAT_BLOCK(block_f32, float, SAME, float)
FLOAT_BLOCK(block_f64, double, SAME, double)

/* A block of integers. */
#define INT_BLOCK(NAME, TYPE, WIDE, MIN, MAX, LEAST, MOST)                                                             \
    FOR_EACH_CPU static void NAME(kn_summary *s, const void *data, size_t count)                                       \
    {                                                                                                                  \
        double sum = 0, squares = 0;                                                                                   \
        TYPE low = MOST, high = LEAST;                                                                                 \
        uint64_t zeros = 0;                                                                                            \
        for (size_t i = 0; i < count; i++) {                                                                           \
            TYPE v;                                                                                                    \
            memcpy(&v, (const char *)data + i * sizeof(v), sizeof(v));                                                 \
            zeros += v == 0;                                                                                           \
            low = v < low ? v : low;                                                                                   \
            high = v > high ? v : high;                                                                                \
        }                                                                                                              \
        double part[LANES] = {0}, square[LANES] = {0};                                                                 \
        for (size_t i = 0; i < count; i += LANES)                                                                      \
            for (size_t k = 0; k < LANES && i + k < count; k++) {                                                      \
                TYPE v;                                                                                                \
                memcpy(&v, (const char *)data + (i + k) * sizeof(v), sizeof(v));                                       \
                double d = (double)v - s->origin;                                                                      \
                part[k] += d;                                                                                          \
                square[k] += d * d;                                                                                    \
            }                                                                                                          \
        for (size_t k = 0; k < LANES; k++) {                                                                           \
            sum += part[k];                                                                                            \
            squares += square[k];                                                                                      \
        }                                                                                                              \
        s->sum += sum;                                                                                                 \
        s->squares += squares;                                                                                         \
        s->zeros += zeros;                                                                                             \
        s->count += count;                                                                                             \
        if (count > 0) {                                                                                               \
            s->MIN = (WIDE)low < s->MIN ? (WIDE)low : s->MIN;                                                          \
            s->MAX = (WIDE)high > s->MAX ? (WIDE)high : s->MAX;                                                        \
        }                                                                                                              \
    }
INT_BLOCK(block_i8, int8_t, int64_t, min_int, max_int, INT8_MIN, INT8_MAX)
INT_BLOCK(block_u8, uint8_t, uint64_t, min_uint, max_uint, 0, UINT8_MAX)
INT_BLOCK(block_i16, int16_t, int64_t, min_int, max_int, INT16_MIN, INT16_MAX)
INT_BLOCK(block_u16, uint16_t, uint64_t, min_uint, max_uint, 0, UINT16_MAX)
INT_BLOCK(block_i32, int32_t, int64_t, min_int, max_int, INT32_MIN, INT32_MAX)
INT_BLOCK(block_u32, uint32_t, uint64_t, min_uint, max_uint, 0, UINT32_MAX)
INT_BLOCK(block_i64, int64_t, int64_t, min_int, max_int, INT64_MIN, INT64_MAX)
INT_BLOCK(block_u64, uint64_t, uint64_t, min_uint, max_uint, 0, UINT64_MAX)

/* Complex numbers: their real parts are summed; NaN is one with a part that is NaN, 0 one with both 0. */
#define COMPLEX_BLOCK(NAME, TYPE)                                                                                      \
    static void NAME(kn_summary *s, const void *data, size_t count)                                                    \
    {                                                                                                                  \
        for (size_t i = 0; i < count; i++) {                                                                           \
            TYPE e[2];                                                                                                 \
            memcpy(e, (const char *)data + i * sizeof(e), sizeof(e));                                                  \
            bool nan = e[0] != e[0] || e[1] != e[1];                                                                   \
            double d = nan ? 0 : (double)e[0] - s->origin;                                                             \
            s->nans += nan;                                                                                            \
            s->zeros += e[0] == 0 && e[1] == 0;                                                                        \
            s->sum += d;                                                                                               \
            s->squares += d * d;                                                                                       \
        }                                                                                                              \
        s->count += count;                                                                                             \
    }
COMPLEX_BLOCK(block_c64, float)
COMPLEX_BLOCK(block_c128, double)

static const struct {
    void (*block)(kn_summary *s, const void *data, size_t count);
    size_t bytes;
} kinds[] = {
    [KN_SUMMARY_BOOL] = {block_u8, 1}, [KN_SUMMARY_I8] = {block_i8, 1},    [KN_SUMMARY_I16] = {block_i16, 2},
    [KN_SUMMARY_I32] = {block_i32, 4}, [KN_SUMMARY_I64] = {block_i64, 8},  [KN_SUMMARY_U8] = {block_u8, 1},
    [KN_SUMMARY_U16] = {block_u16, 2}, [KN_SUMMARY_U32] = {block_u32, 4},  [KN_SUMMARY_U64] = {block_u64, 8},
    [KN_SUMMARY_F16] = {block_f16, 2}, [KN_SUMMARY_F32] = {block_f32, 4},  [KN_SUMMARY_F64] = {block_f64, 8},
    [KN_SUMMARY_C64] = {block_c64, 8}, [KN_SUMMARY_C128] = {block_c128, 16},
};

void kn_summary_part(kn_summary *s, kn_summary_type type, const void *data, size_t count)
{
    const char *at = data;
    while (count > 0) {
        size_t n = count < BLOCK ? count : BLOCK;
        kinds[type].block(s, at, n);
        at += n * kinds[type].bytes;
        count -= n;
    }
}

double kn_summary_origin(kn_summary_type type, const void *data, size_t count)
{
    kn_summary first;
    kn_summary_begin(&first, 0);
    kn_summary_part(&first, type, data, count > 0);
    float f = (float)first.sum; /* as a float, so that differences of floats from it are exact more often */
    return isfinite(f) ? (double)f : 0;
}

void kn_summary_add(kn_summary *s, const kn_summary *o)
{
    s->count += o->count;
    s->nans += o->nans;
    s->zeros += o->zeros;
    s->sum += o->sum;
    s->squares += o->squares;
    s->min_int = o->min_int < s->min_int ? o->min_int : s->min_int;
    s->max_int = o->max_int > s->max_int ? o->max_int : s->max_int;
    s->min_uint = o->min_uint < s->min_uint ? o->min_uint : s->min_uint;
    s->max_uint = o->max_uint > s->max_uint ? o->max_uint : s->max_uint;
    s->min = o->min < s->min ? o->min : s->min;
    s->max = o->max > s->max ? o->max : s->max;
}
