/* SPDX-License-Identifier: Apache-2.0 */
/*
 * summary_body.h - the blocks of summary.h, compiled once for each instruction set. Whoever includes it defines
 *   SUMMARY_TABLE                 the name of the table
 *   f16x, d16x                    16 floats, 16 doubles
 *   f16x_load, f16x_half, d16x_load, d16x_i32, d16x_u32   from memory, from halves, from integers
 *   d16x_of, d16x_store           floats as doubles; into an array
 *   f16x_set, d16x_set            one value in all lanes
 *   f16x_nans, f16x_zeros, d16x_nans, d16x_zeros          which lanes are, as the bits of a number
 *   f16x_or_else, d16x_or_else    where the first is a NaN, the second
 *   f16x_min, f16x_max, d16x_min, d16x_max                of a value and what was found, which stays beside a NaN
 *   d16x_sub, d16x_add, d16x_mul
 * Nothing is fused: all of them give the same bits.
 */
#include <math.h>

#include "summary_parts.h"

#define ANYWHERE __attribute__((aligned(1), may_alias))
typedef int8_t ANYWHERE any_i8;
typedef int16_t ANYWHERE any_i16;
typedef int32_t ANYWHERE any_i32;
typedef int64_t ANYWHERE any_i64;
typedef uint8_t ANYWHERE any_u8;
typedef uint16_t ANYWHERE any_u16;
typedef uint32_t ANYWHERE any_u32;
typedef uint64_t ANYWHERE any_u64;
typedef float ANYWHERE any_f32;
typedef double ANYWHERE any_f64;

#define LANES KN_SUMMARY_LANES

/* ---- floats ------------------------------------------------------------------------------------------------------ */

/* The part of a block that does not fill all lanes. */
static inline void add_one(kn_summary *s, kn_summary_lanes *l, unsigned lane, double v, double origin)
{
    double off = v != v ? 0 : v - origin, square = off * off;
    s->nans += v != v;
    s->zeros += v == 0;
    l->min[lane] = v < l->min[lane] ? v : l->min[lane];
    l->max[lane] = v > l->max[lane] ? v : l->max[lane];
    l->sum[lane] += off;
    l->squares[lane] += square;
}

/* ELEMENT is one value at its place. EXTREMES: of the lanes' type, kept as V (f16x or d16x). */
#define FLOAT_BLOCK(NAME, T, ELEMENT, V, LOAD, DOUBLES)                                                                \
    static kn_summary NAME(const void *data, size_t count, double base)                                                \
    {                                                                                                                  \
        const T *at = data;                                                                                            \
        kn_summary s = kn_summary_none();                                                                              \
        kn_summary_lanes l;                                                                                            \
        size_t i = 0, first = 0;                                                                                       \
        while (first < count && !KN_SUMMARY_IS_ORIGIN(ELEMENT(at[first])))                                             \
            first++;                                                                                                   \
        const double origin = first < count ? (double)ELEMENT(at[first]) : 0;                                          \
        const V origins = V##_set(ELEMENT##_back(origin));                                                             \
        const d16x around = d16x_set(origin);                                                                          \
        V min = V##_set(ELEMENT##_back(HUGE_VAL)), max = V##_set(ELEMENT##_back(-HUGE_VAL));                           \
        d16x sum = d16x_set(0), squares = d16x_set(0);                                                                 \
        uint64_t nans = 0, zeros = 0;                                                                                  \
        for (; i + LANES <= count; i += LANES) {                                                                       \
            V v = LOAD(at + i);                                                                                        \
            unsigned bad = V##_nans(v);                                                                                \
            zeros += (unsigned)__builtin_popcount(V##_zeros(v));                                                       \
            min = V##_min(v, min);                                                                                     \
            max = V##_max(v, max);                                                                                     \
            if (__builtin_expect(bad != 0, 0)) {                                                                       \
                nans += (unsigned)__builtin_popcount(bad);                                                             \
                v = V##_or_else(v, origins);                                                                           \
            }                                                                                                          \
            d16x off = d16x_sub(DOUBLES(v), around);                                                                   \
            sum = d16x_add(sum, off);                                                                                  \
            squares = d16x_add(squares, d16x_mul(off, off));                                                           \
        }                                                                                                              \
        d16x_store(l.sum, sum);                                                                                        \
        d16x_store(l.squares, squares);                                                                                \
        d16x_store(l.min, DOUBLES(min));                                                                               \
        d16x_store(l.max, DOUBLES(max));                                                                               \
        s.nans = nans;                                                                                                 \
        s.zeros = zeros;                                                                                               \
        for (unsigned lane = 0; i < count; i++, lane++)                                                                \
            add_one(&s, &l, lane, (double)ELEMENT(at[i]), origin);                                                     \
        s.count = count;                                                                                               \
        kn_summary_reduce(&s, &l, origin, base);                                                                       \
        return s;                                                                                                      \
    }
#define itself(e)      (e)
#define itself_back(v) (v)
#define as_float(e)      (e)
#define as_float_back(v) ((float)(v))
#define half(e)      kn_float_of_half(e)
#define half_back(v) ((float)(v))
FLOAT_BLOCK(block_f16, any_u16, half, f16x, f16x_half, d16x_of)
FLOAT_BLOCK(block_f32, any_f32, as_float, f16x, f16x_load, d16x_of)
FLOAT_BLOCK(block_f64, any_f64, itself, d16x, d16x_load, itself)

/* ---- integers ---------------------------------------------------------------------------------------------------- */

/* Of 8 and 16 bits: exact sums, in any order. PART and SQUARES hold those of a block. */
#define SMALL_BLOCK(NAME, T, PART, SQUARES, MIN, MAX, WIDE)                                                            \
    static kn_summary NAME(const void *data, size_t count, double base)                                                \
    {                                                                                                                  \
        const T *at = data;                                                                                            \
        kn_summary s = kn_summary_none();                                                                              \
        T low = count > 0 ? at[0] : 0, high = low;                                                                     \
        PART sum = 0;                                                                                                  \
        SQUARES squares = 0;                                                                                           \
        uint32_t zeros = 0;                                                                                            \
        for (size_t i = 0; i < count; i++) {                                                                           \
            T v = at[i];                                                                                               \
            low = v < low ? v : low;                                                                                   \
            high = v > high ? v : high;                                                                                \
            zeros += v == 0;                                                                                           \
            sum += v;                                                                                                  \
            squares += (SQUARES)((PART)v * (PART)v);                                                                   \
        }                                                                                                              \
        s.count = count;                                                                                               \
        s.zeros = zeros;                                                                                               \
        if (count > 0) {                                                                                               \
            s.MIN = (WIDE)low;                                                                                         \
            s.MAX = (WIDE)high;                                                                                        \
        }                                                                                                              \
        kn_summary_exact(&s, (int64_t)sum, (uint64_t)squares, base);                                                   \
        return s;                                                                                                      \
    }
SMALL_BLOCK(block_i8, any_i8, int32_t, uint32_t, min_int, max_int, int64_t)
SMALL_BLOCK(block_u8, any_u8, uint32_t, uint32_t, min_uint, max_uint, uint64_t)
SMALL_BLOCK(block_i16, any_i16, int32_t, uint64_t, min_int, max_int, int64_t)
SMALL_BLOCK(block_u16, any_u16, uint32_t, uint64_t, min_uint, max_uint, uint64_t)

/* Any byte but 0 is true. */
static kn_summary block_bool(const void *data, size_t count, double base)
{
    const any_u8 *at = data;
    kn_summary s = kn_summary_none();
    uint32_t zeros = 0;
    for (size_t i = 0; i < count; i++)
        zeros += at[i] == 0;
    s.count = count;
    s.zeros = zeros;
    if (count > 0) {
        s.min_uint = zeros == 0;
        s.max_uint = zeros < count;
    }
    kn_summary_exact(&s, (int64_t)(count - zeros), count - zeros, base);
    return s;
}

/* Of 32 bits: extremes as integers, sums as doubles, which hold them. */
#define MIDDLE_BLOCK(NAME, T, PLAIN, LOAD, MIN, MAX, WIDE)                                                             \
    static kn_summary NAME(const void *data, size_t count, double base)                                                \
    {                                                                                                                  \
        const T *at = data;                                                                                            \
        kn_summary s = kn_summary_none(), unused = s;                                                                  \
        kn_summary_lanes l;                                                                                            \
        size_t whole = count - count % LANES;                                                                          \
        const double origin = count > 0 ? (double)at[0] : 0;                                                           \
        const d16x around = d16x_set(origin);                                                                          \
        d16x sum = d16x_set(0), squares = d16x_set(0);                                                                 \
        PLAIN low = count > 0 ? at[0] : 0, high = low;                                                                 \
        uint32_t zeros = 0;                                                                                            \
        for (size_t from = 0; from < count; from += 1024) { /* twice over what is in the nearest cache */              \
            size_t to = count - from < 1024 ? count : from + 1024;                                                     \
            for (size_t i = from; i < to; i++) {                                                                       \
                PLAIN v = at[i];                                                                                       \
                low = v < low ? v : low;                                                                               \
                high = v > high ? v : high;                                                                            \
                zeros += v == 0;                                                                                       \
            }                                                                                                          \
            for (size_t i = from; i < to && i < whole; i += LANES) {                                                   \
                d16x off = d16x_sub(LOAD(at + i), around);                                                             \
                sum = d16x_add(sum, off);                                                                              \
                squares = d16x_add(squares, d16x_mul(off, off));                                                       \
            }                                                                                                          \
        }                                                                                                              \
        d16x_store(l.sum, sum);                                                                                        \
        d16x_store(l.squares, squares);                                                                                \
        d16x_store(l.min, d16x_set(HUGE_VAL));                                                                         \
        d16x_store(l.max, d16x_set(-HUGE_VAL));                                                                        \
        s.count = count;                                                                                               \
        s.zeros = zeros;                                                                                               \
        if (count > 0) {                                                                                               \
            s.MIN = (WIDE)low;                                                                                         \
            s.MAX = (WIDE)high;                                                                                        \
        }                                                                                                              \
        for (unsigned lane = 0; whole + lane < count; lane++)                                                          \
            add_one(&unused, &l, lane, (double)at[whole + lane], origin);                                              \
        kn_summary_reduce(&s, &l, origin, base);                                                                       \
        s.min = HUGE_VAL;                                                                                              \
        s.max = -HUGE_VAL;                                                                                             \
        return s;                                                                                                      \
    }
MIDDLE_BLOCK(block_i32, any_i32, int32_t, d16x_i32, min_int, max_int, int64_t)
MIDDLE_BLOCK(block_u32, any_u32, uint32_t, d16x_u32, min_uint, max_uint, uint64_t)

/* Of 64 bits: differences from the first, as far as doubles hold them. */
#define WIDE_BLOCK(NAME, T, PLAIN, MIN, MAX)                                                                           \
    static kn_summary NAME(const void *data, size_t count, double base)                                                \
    {                                                                                                                  \
        const T *at = data;                                                                                            \
        kn_summary s = kn_summary_none();                                                                              \
        kn_summary_lanes l;                                                                                            \
        const double origin = count > 0 ? (double)at[0] : 0;                                                           \
        double sum[LANES] = {0}, squares[LANES] = {0};                                                                 \
        PLAIN low = count > 0 ? at[0] : 0, high = low;                                                                 \
        uint64_t zeros = 0;                                                                                            \
        for (size_t i = 0; i < count; i += LANES) {                                                                    \
            size_t n = count - i < LANES ? count - i : LANES;                                                          \
            for (size_t k = 0; k < n; k++) {                                                                           \
                PLAIN v = at[i + k];                                                                                   \
                low = v < low ? v : low;                                                                               \
                high = v > high ? v : high;                                                                            \
                zeros += v == 0;                                                                                       \
                double off = (double)v - origin, square = off * off;                                                   \
                sum[k] += off;                                                                                         \
                squares[k] += square;                                                                                  \
            }                                                                                                          \
        }                                                                                                              \
        s.count = count;                                                                                               \
        s.zeros = zeros;                                                                                               \
        if (count > 0) {                                                                                               \
            s.MIN = low;                                                                                               \
            s.MAX = high;                                                                                              \
        }                                                                                                              \
        for (unsigned k = 0; k < LANES; k++) {                                                                         \
            l.sum[k] = sum[k];                                                                                         \
            l.squares[k] = squares[k];                                                                                 \
            l.min[k] = HUGE_VAL;                                                                                       \
            l.max[k] = -HUGE_VAL;                                                                                      \
        }                                                                                                              \
        kn_summary_reduce(&s, &l, origin, base);                                                                       \
        return s;                                                                                                      \
    }
WIDE_BLOCK(block_i64, any_i64, int64_t, min_int, max_int)
WIDE_BLOCK(block_u64, any_u64, uint64_t, min_uint, max_uint)

/* ---- complex ----------------------------------------------------------------------------------------------------- */

/* NaN is one with a part that is NaN, 0 one with both 0. */
#define COMPLEX_BLOCK(NAME, T)                                                                                         \
    static kn_summary NAME(const void *data, size_t count, double base)                                                \
    {                                                                                                                  \
        const T *at = data;                                                                                            \
        kn_summary s = kn_summary_none();                                                                              \
        kn_summary_lanes l;                                                                                            \
        size_t first = 0;                                                                                              \
        while (first < count && !KN_SUMMARY_IS_ORIGIN(at[2 * first]))                                                  \
            first++;                                                                                                   \
        const double origin = first < count ? (double)at[2 * first] : 0;                                               \
        for (unsigned k = 0; k < LANES; k++) {                                                                         \
            l.sum[k] = l.squares[k] = 0;                                                                               \
            l.min[k] = HUGE_VAL;                                                                                       \
            l.max[k] = -HUGE_VAL;                                                                                      \
        }                                                                                                              \
        for (size_t i = 0; i < count; i++) {                                                                           \
            double real = (double)at[2 * i], imaginary = (double)at[2 * i + 1];                                        \
            add_one(&s, &l, (unsigned)(i % LANES), imaginary != imaginary ? imaginary : real, origin);                 \
            s.zeros -= real == 0 && imaginary != 0 && imaginary == imaginary;                                          \
        }                                                                                                              \
        s.count = count;                                                                                               \
        kn_summary_reduce(&s, &l, origin, base);                                                                       \
        return s;                                                                                                      \
    }
COMPLEX_BLOCK(block_c64, any_f32)
COMPLEX_BLOCK(block_c128, any_f64)

kn_summary_block *const SUMMARY_TABLE[KN_NUMBER_COUNT] = {
    block_bool, block_i8,  block_i16, block_i32, block_i64, block_u8,  block_u16,
    block_u32,  block_u64, block_f16, block_f32, block_f64, block_c64, block_c128,
};
