/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delta.h - items replaced by what distinguishes them: the difference to an earlier one, or their bits turned.
 *
 * Pure functions on memory, for any thread; no alignment is needed. Items are little-endian unsigned integers of 1, 2, 4
 * or 8 bytes, arithmetic is modulo 2^bits, so every function has an exact inverse.
 */
#ifndef KN_DELTA_H
#define KN_DELTA_H

#include <stddef.h>
#include <stdint.h>

/* out[i] = in[i] - in[i - distance]; the first `distance` items stay. `out` never overlaps `in`. */
void kn_delta(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t item_bytes, size_t distance);
/* The inverse, in place. */
void kn_undelta(uint8_t *data, size_t items, size_t item_bytes, size_t distance);

/* Each item turned left by one bit: a float's sign goes to the end, and its exponent begins at a byte's first bit.
 * `out` may be `in`. */
void kn_turn(uint8_t *out, const uint8_t *in, size_t items, size_t item_bytes);
/* The inverse. */
void kn_unturn(uint8_t *out, const uint8_t *in, size_t items, size_t item_bytes);

#endif
