/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gather.h - rows picked by an index list.
 *
 * Pure functions on memory, for any thread. Negative indices count from the end, as in Python.
 */
#ifndef KN_GATHER_H
#define KN_GATHER_H

#include <stddef.h>
#include <stdint.h>

/* Position in `indices` of the first one that is outside [-rows, rows), or `count` if all are inside. rows < 2^63. */
size_t kn_first_outside(const int64_t *indices, size_t count, uint64_t rows);

/* out[i] = base[indices[i]] for rows of row_bytes bytes. Every index must be inside [-rows, rows), and `out` must not
 * overlap `base`. Neither needs any alignment. */
void kn_gather_rows(void *restrict out, const void *restrict base, size_t row_bytes, uint64_t rows,
                    const int64_t *restrict indices, size_t count);

#endif
