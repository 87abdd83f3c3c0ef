/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dtype.h - item types: numpy's type strings, names and descr values.
 *
 * npk_dtype_parse (npk.h) takes what people write, npk__descr_parse what stands in a header.
 */
#ifndef NPK_DTYPE_H
#define NPK_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#include "literal.h"
#include "npk.h"

/* numpy keeps item sizes in a C int. */
#define NPK__MAX_ITEM_BYTES ((uint64_t)INT32_MAX)

/* A type string or name ("<f4", "float32", ">M8[ns]", "|S0") of `bytes` characters. str (>= 32 bytes, may be NULL)
 * receives numpy's own spelling ("<f4"). Pure. -EINVAL: none of those; *out and str are then untouched. */
int npk__typestr_parse(const char *text, size_t bytes, npk_dtype *out, char *str);

/* The value of 'descr' at the reader's place: a string, or a list of fields with titles, subarrays and nested lists.
 * Pure; lists nest at most 16 deep. -EINVAL with the reader's reason. */
int npk__descr_parse(npk__literal *l, npk_dtype *out);

#endif
