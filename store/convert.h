/* SPDX-License-Identifier: Apache-2.0 */
/* convert.h - the values of an array in another dtype. */
#ifndef NPK_CONVERT_H
#define NPK_CONVERT_H

#include <stdbool.h>
#include <stddef.h>

#include "cast.h"
#include "npk.h"

/* How elements become those of another dtype. */
typedef struct npk_conversion {
    kn_casting casting;
    size_t swap_bytes;       /* of an item that is in the other byte order; 0: none is */
    size_t swap_per_element; /* such items of an element */
} npk_conversion;

/* The number that a dtype is; false: it is none of the 14, in either byte order. */
bool npk__number_of(const npk_dtype *d, kn_number *out);
/* Convert `count` elements; those at `in` are changed, too. */
void npk__convert(const npk_conversion *v, void *out, void *in, size_t count);

#endif
