/* SPDX-License-Identifier: Apache-2.0 */
/*
 * npy.h - the header of a .npy file: the parts that npk.h does not show.
 *
 * The public functions npk_header_parse, npk_header_format and npk_header_is_* are here too.
 */
#ifndef NPK_NPY_H
#define NPK_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "npk.h"

#define NPK__NPY_MAGIC       "\x93NUMPY"
#define NPK__NPY_MAGIC_BYTES 6
#define NPK__NPY_ALIGN       64 /* data begins at a multiple of this in headers that we write */
#define NPK__NPY_MIN_BYTES   10 /* magic, version and length of a version 1 header */

/* Where the parts of a header's text are, in bytes from the file's start. */
typedef struct npk__npy_layout {
    uint32_t text_offset;   /* the text begins: 10 or 12 */
    uint32_t shape_offset;  /* the outermost '(' of the shape */
    uint32_t shape_end;     /* behind the ')' that belongs to it */
    uint32_t tuple_offset;  /* the innermost '(': another one than the outermost in "((3, 4))" only */
    uint32_t number_offset; /* the first digit of shape[0]; 0 for ndim 0 */
    uint32_t number_bytes;  /* its digits; 0 for ndim 0 */
    uint32_t dict_end;      /* behind the '}' */
} npk__npy_layout;

/* npk_header_parse that also says where things are. layout may be NULL. */
int npk__header_layout(const void *bytes, size_t size, npk_header *out, npk__npy_layout *layout, char *why,
                       size_t why_bytes);

/* Write magic, version and length before a text of text_bytes at out + 10 or + 12 (as npk__prefix_bytes says) and pad
 * it with blanks and a newline, so that the data is aligned. The version is at least min_major. *bytes: the header's
 * length. -E2BIG: beyond the capacity or NPK_MAX_HEADER; nothing is written then. */
int npk__header_seal(uint8_t *out, size_t capacity, uint8_t min_major, size_t text_bytes, size_t *bytes);
/* The bytes before the text of a header with this version and text: 10 or 12. */
size_t npk__prefix_bytes(uint8_t min_major, size_t text_bytes);

#endif
