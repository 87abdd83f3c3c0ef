/* SPDX-License-Identifier: Apache-2.0 */
/*
 * number.h - the 14 types of numbers that arrays are made of, in the order of the machine, and half precision without
 * instructions for it. Pure; any thread.
 */
#ifndef KN_NUMBER_H
#define KN_NUMBER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum kn_number {
    KN_NUMBER_BOOL, /* a byte; anything but 0 is true */
    KN_NUMBER_I8,
    KN_NUMBER_I16,
    KN_NUMBER_I32,
    KN_NUMBER_I64,
    KN_NUMBER_U8,
    KN_NUMBER_U16,
    KN_NUMBER_U32,
    KN_NUMBER_U64,
    KN_NUMBER_F16,
    KN_NUMBER_F32,
    KN_NUMBER_F64,
    KN_NUMBER_C64,
    KN_NUMBER_C128,
    KN_NUMBER_COUNT,
} kn_number;

static inline size_t kn_number_bytes(kn_number n)
{
    static const uint8_t bytes[KN_NUMBER_COUNT] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 8, 16};
    return bytes[n];
}

/* Exact; a NaN comes out quiet, as processors do it. */
static inline float kn_float_of_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff, bits;
    float f;
    if (rest >= 0x7c00) {
        bits = sign | 0x7f800000 | (rest & 0x3ff) << 13 | (rest > 0x7c00 ? 0x400000u : 0);
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

/* To the nearest, ties to even. */
static inline uint16_t kn_half_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x3ff));
    if (bits >= 0x477ff000) /* 65520, half a step above the greatest */
        return (uint16_t)(sign | 0x7c00);
    if (bits < 0x38800000) { /* 2^-14: below it steps are 2^-24, those of floats from 1/2 on */
        memcpy(&f, &bits, 4);
        f += 0.5f;
        memcpy(&bits, &f, 4);
        return (uint16_t)(sign | (bits - 0x3f000000));
    }
    bits += 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | (bits - 0x38000000) >> 13);
}

#endif
