/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pkg_frame.h - one frame of a package: the filter, zstd, the checksum.
 *
 * A codec holds what encoding and decoding need between calls. One thread at a time uses it.
 */
#ifndef NPK_PKG_FRAME_H
#define NPK_PKG_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "pkg_format.h"

typedef struct npk__codec npk__codec;

/* NULL without memory. */
npk__codec *npk__codec_new(void);
void npk__codec_free(npk__codec *c); /* NULL is fine */

/* The most bytes that a frame's payload can have. */
size_t npk__frame_bound(const npk__pkg_record *r, size_t bytes);
/* Encode data[0..bytes) into out, which has npk__frame_bound() bytes; *stored: how many it takes, 0 for zeros alone.
 * -ENOMEM, -EIO (zstd failed, which has no reason of its own). */
int npk__frame_encode(npk__codec *c, const npk__pkg_record *r, int level, const uint8_t *data, size_t bytes,
                      uint8_t *out, size_t *stored);
/* Decode payload in[0..stored) to exactly `bytes` bytes. -EIO, without a sentence: it is not such a payload. Never reads
 * or writes beyond the two, whatever the payload says. */
int npk__frame_decode(npk__codec *c, const npk__pkg_record *r, const uint8_t *in, size_t stored, uint8_t *out,
                      size_t bytes);
/* The checksum of a payload: that of another frame or another file does not fit. */
uint64_t npk__frame_hash(const npk__pkg_record *r, uint64_t frame, const uint8_t *payload, size_t stored);

/* zstd for anything else of a package (tables, the index). *stored = bytes when it is kept as it is. */
int npk__block_encode(npk__codec *c, const uint8_t *data, size_t bytes, uint8_t *out, size_t *stored);
int npk__block_decode(npk__codec *c, const uint8_t *in, size_t stored, uint8_t *out, size_t bytes);

#endif
