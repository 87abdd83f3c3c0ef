/* SPDX-License-Identifier: Apache-2.0 */
/*
 * planes.h - arrays of items turned into planes of bytes or bits, and back.
 *
 * Numbers of one array resemble each other byte by byte: all exponents, all low mantissa bytes. Laid side by side they
 * compress better and faster than interleaved. Pure functions on memory, for any thread; `out` never overlaps `in`.
 * The result is the same on every instruction set: the functions whose name ends in _plain are the definition, the
 * others use what the processor has.
 */
#ifndef KN_PLANES_H
#define KN_PLANES_H

#include <stddef.h>
#include <stdint.h>

/* Bytes: out[p * items + i] = in[i * item_bytes + p]. item_bytes >= 1. */
void kn_planes_split(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t item_bytes);
void kn_planes_split_plain(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t item_bytes);
/* The inverse. */
void kn_planes_join(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t item_bytes);
void kn_planes_join_plain(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t item_bytes);

/* Bits of one plane of `bytes` bytes, in groups of 8 bytes (g = bytes / 8): bit i % 8 of out[b * g + i / 8] is bit b of
 * in[i], for i < 8 * g. The last bytes % 8 bytes stay as they are. */
void kn_bits_split(uint8_t *restrict out, const uint8_t *restrict in, size_t bytes);
void kn_bits_split_plain(uint8_t *restrict out, const uint8_t *restrict in, size_t bytes);
/* The inverse. */
void kn_bits_join(uint8_t *restrict out, const uint8_t *restrict in, size_t bytes);
void kn_bits_join_plain(uint8_t *restrict out, const uint8_t *restrict in, size_t bytes);

#endif
