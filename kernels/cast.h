/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cast.h - numbers of one type turned into those of another.
 *
 * What comes out is what numpy's astype gives, wherever that is the same on all machines:
 *   integers to integers   modulo 2^bits
 *   anything to bool       is it not 0 (NaN is not 0)
 *   to float types         the nearest, ties to even, in one rounding (float64 to float16, too); beyond the greatest: inf
 *   floats to integers     without the fraction. What does not fit, where C and numpy leave it to the processor: the
 *                          least or the greatest integer of the type, and 0 for NaN
 *   complex to real        the real part
 *   real to complex        the imaginary part is 0
 * The results have the same bits on every instruction set. Memory needs no alignment; out and in do not overlap. Pure;
 * any thread. The floating-point environment is the default one.
 */
#ifndef KN_CAST_H
#define KN_CAST_H

#include "cpu.h"
#include "number.h"

typedef void kn_cast_loop(void *restrict out, const void *restrict in, size_t count);

/* How one type becomes another: the loops that elements go through, each for `per_element` of its items. */
typedef struct kn_casting {
    kn_cast_loop *steps[3];
    unsigned step_count; /* 0: the bytes stay as they are */
    unsigned per_element;
    size_t from_bytes, to_bytes; /* of an element */
} kn_casting;

/* isa: one that this processor can use. */
kn_casting kn_casting_of(kn_isa isa, kn_number from, kn_number to);
void kn_cast(const kn_casting *c, void *out, const void *in, size_t count);

/* The bytes of each of count items in the other order, in place. item_bytes: 1, 2, 4 or 8. */
void kn_swap_bytes(void *items, size_t item_bytes, size_t count);

#endif
