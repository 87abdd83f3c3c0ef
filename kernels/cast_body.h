/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cast_body.h - the loops of cast.h, compiled once for each instruction set: they are plain enough for compilers to make
 * vectors of. Whoever includes it defines CAST_LOOPS, the name of the table.
 */
#include <stdbool.h>

#include "cast_parts.h"
#if defined(__F16C__)
#include <immintrin.h>
#endif

/* Numbers at any address. */
#define ANYWHERE __attribute__((aligned(1), may_alias))
typedef int8_t ANYWHERE i8;
typedef int16_t ANYWHERE i16;
typedef int32_t ANYWHERE i32;
typedef int64_t ANYWHERE i64;
typedef uint8_t ANYWHERE u8;
typedef uint16_t ANYWHERE u16;
typedef uint32_t ANYWHERE u32;
typedef uint64_t ANYWHERE u64;
typedef float ANYWHERE f32;
typedef double ANYWHERE f64;

#define LOOP(NAME, F, T, EXPRESSION)                                                                                   \
    static inline void NAME(void *restrict out, const void *restrict in, size_t count)                                 \
    {                                                                                                                  \
        const F *a = in;                                                                                               \
        T *b = out;                                                                                                    \
        for (size_t i = 0; i < count; i++)                                                                             \
            b[i] = EXPRESSION;                                                                                         \
    }

/* Integers of either sign: what is cut off, or filled up, depends on the sign of the source alone. */
#define FROM_INTEGER(F)                                                                                                \
    LOOP(F##_bool, F, u8, a[i] != 0)                                                                                   \
    LOOP(F##_i8, F, u8, (uint8_t)a[i])                                                                                 \
    LOOP(F##_i16, F, u16, (uint16_t)a[i])                                                                              \
    LOOP(F##_i32, F, u32, (uint32_t)a[i])                                                                              \
    LOOP(F##_i64, F, u64, (uint64_t)a[i])                                                                              \
    LOOP(F##_f32, F, f32, (float)a[i])                                                                                 \
    LOOP(F##_f64, F, f64, (double)a[i])
FROM_INTEGER(i8)
FROM_INTEGER(i16)
FROM_INTEGER(i32)
FROM_INTEGER(i64)
FROM_INTEGER(u8)
FROM_INTEGER(u16)
FROM_INTEGER(u32)
FROM_INTEGER(u64)

LOOP(bool_bool, u8, u8, a[i] != 0)
LOOP(bool_i16, u8, u16, a[i] != 0)
LOOP(bool_i32, u8, u32, a[i] != 0)
LOOP(bool_i64, u8, u64, a[i] != 0)
LOOP(bool_f32, u8, f32, (float)(a[i] != 0))
LOOP(bool_f64, u8, f64, (double)(a[i] != 0))

/* A float without its fraction, within what the type holds. VIA is a type that holds all of it and that processors
 * convert to; BEYOND is the first number above. */
#define TO_INTEGER(NAME, F, T, VIA, LEAST, MOST, BEYOND)                                                               \
    static inline T NAME##_one(F v)                                                                                    \
    {                                                                                                                  \
        F in = v > (F)LEAST ? v : (F)LEAST; /* and NaN */                                                              \
        in = in < (F)BEYOND ? in : 0;                                                                                  \
        T fits = (T)(VIA)in;                                                                                           \
        fits = v >= (F)BEYOND ? (T)MOST : fits;                                                                        \
        return v == v ? fits : 0;                                                                                      \
    }                                                                                                                  \
    LOOP(NAME, F, T, NAME##_one(a[i]))
#define FROM_FLOAT(F)                                                                                                  \
    LOOP(F##_bool, F, u8, a[i] != 0)                                                                                   \
    TO_INTEGER(F##_i8, F, i8, int32_t, INT8_MIN, INT8_MAX, 0x1p7)                                                      \
    TO_INTEGER(F##_i16, F, i16, int32_t, INT16_MIN, INT16_MAX, 0x1p15)                                                 \
    TO_INTEGER(F##_i32, F, i32, int32_t, INT32_MIN, INT32_MAX, 0x1p31)                                                 \
    TO_INTEGER(F##_i64, F, i64, int64_t, INT64_MIN, INT64_MAX, 0x1p63)                                                 \
    TO_INTEGER(F##_u8, F, u8, int32_t, 0, UINT8_MAX, 0x1p8)                                                            \
    TO_INTEGER(F##_u16, F, u16, int32_t, 0, UINT16_MAX, 0x1p16)                                                        \
    TO_INTEGER(F##_u32, F, u32, int64_t, 0, UINT32_MAX, 0x1p32)                                                        \
    TO_INTEGER(F##_u64, F, u64, uint64_t, 0, UINT64_MAX, 0x1p64)
FROM_FLOAT(f32)
FROM_FLOAT(f64)
LOOP(f32_f64, f32, f64, (double)a[i])
LOOP(f64_f32, f64, f32, (float)a[i])

/* ---- half precision ---------------------------------------------------------------------------------------------- */

#if defined(__F16C__)
#define EIGHT 8
static void half_to_float(void *restrict out, const void *restrict in, size_t count)
{
    size_t i = 0;
    for (; i + EIGHT <= count; i += EIGHT) {
        __m128i half = _mm_loadu_si128((const __m128i *)((const char *)in + 2 * i));
        _mm256_storeu_ps((float *)((char *)out + 4 * i), _mm256_cvtph_ps(half));
    }
    for (; i < count; i++)
        ((f32 *)out)[i] = kn_float_of_half(((const u16 *)in)[i]);
}

static void float_to_half(void *restrict out, const void *restrict in, size_t count)
{
    size_t i = 0;
    for (; i + EIGHT <= count; i += EIGHT) {
        __m256 floats = _mm256_loadu_ps((const float *)((const char *)in + 4 * i));
        _mm_storeu_si128((__m128i *)((char *)out + 2 * i), _mm256_cvtps_ph(floats, _MM_FROUND_TO_NEAREST_INT));
    }
    for (; i < count; i++)
        ((u16 *)out)[i] = kn_half_of_float(((const f32 *)in)[i]);
}
#else
LOOP(half_to_float, u16, f32, kn_float_of_half(a[i]))
LOOP(float_to_half, f32, u16, kn_half_of_float(a[i]))
#endif

/* Rounding twice may go wrong, but not if the first time leaves a trace: digits that were cut off make the last one that
 * stays odd. A float has 13 digits more than a half. */
static inline float odd_of(uint64_t bits)
{
    const uint64_t cut = (UINT64_C(1) << 29) - 1;
    double d;
    bits = (bits & ~cut) | ((bits & cut) != 0 ? cut + 1 : 0);
    memcpy(&d, &bits, sizeof(d));
    return (float)d;
}
LOOP(double_to_odd, u64, f32, odd_of(a[i]))

/* ---- complex ------------------------------------------------------------------------------------------------------- */

LOOP(real_c64, f32, f32, a[2 * i])
LOOP(real_c128, f64, f64, a[2 * i])
LOOP(bool_of_c64, f32, u8, (a[2 * i] != 0) | (a[2 * i + 1] != 0))
LOOP(bool_of_c128, f64, u8, (a[2 * i] != 0) | (a[2 * i + 1] != 0))

#define WITH_ZEROS(NAME, F)                                                                                            \
    static void NAME(void *restrict out, const void *restrict in, size_t count)                                        \
    {                                                                                                                  \
        const F *a = in;                                                                                               \
        F *b = out;                                                                                                    \
        for (size_t i = 0; i < count; i++) {                                                                           \
            b[2 * i] = a[i];                                                                                           \
            b[2 * i + 1] = 0;                                                                                          \
        }                                                                                                              \
    }
WITH_ZEROS(complex_of_float, f32)
WITH_ZEROS(complex_of_double, f64)

/* ---- the table ------------------------------------------------------------------------------------------------------- */

/* To the types in the order of kn_number. A copy, where the bytes stay, has no loop. */
#define INTEGER_ROW(F, TO8, TO16, TO32, TO64)                                                                          \
    {                                                                                                                  \
        F##_bool, TO8, TO16, TO32, TO64, TO8, TO16, TO32, TO64, F##_f32, F##_f64                                       \
    }
#define FLOAT_ROW(F, TO32, TO64)                                                                                       \
    {                                                                                                                  \
        F##_bool, F##_i8, F##_i16, F##_i32, F##_i64, F##_u8, F##_u16, F##_u32, F##_u64, TO32, TO64                     \
    }

const kn_cast_loops CAST_LOOPS = {
    .plain =
        {
            INTEGER_ROW(bool, bool_bool, bool_i16, bool_i32, bool_i64),
            INTEGER_ROW(i8, NULL, i8_i16, i8_i32, i8_i64),
            INTEGER_ROW(i16, i16_i8, NULL, i16_i32, i16_i64),
            INTEGER_ROW(i32, i32_i8, i32_i16, NULL, i32_i64),
            INTEGER_ROW(i64, i64_i8, i64_i16, i64_i32, NULL),
            INTEGER_ROW(u8, NULL, u8_i16, u8_i32, u8_i64),
            INTEGER_ROW(u16, u16_i8, NULL, u16_i32, u16_i64),
            INTEGER_ROW(u32, u32_i8, u32_i16, NULL, u32_i64),
            INTEGER_ROW(u64, u64_i8, u64_i16, u64_i32, NULL),
            FLOAT_ROW(f32, NULL, f32_f64),
            FLOAT_ROW(f64, f64_f32, NULL),
        },
    .half_to_float = half_to_float,
    .float_to_half = float_to_half,
    .double_to_odd = double_to_odd,
    .real_c64 = real_c64,
    .real_c128 = real_c128,
    .complex_of_float = complex_of_float,
    .complex_of_double = complex_of_double,
    .bool_of_c64 = bool_of_c64,
    .bool_of_c128 = bool_of_c128,
};
