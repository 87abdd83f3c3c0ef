/* SPDX-License-Identifier: Apache-2.0 */
/* array.h - what the engine's own files need of an open array beyond npk.h. */
#ifndef NPK_ARRAY_H
#define NPK_ARRAY_H

#include <stdbool.h>

#include "npk.h"

/* The descriptor of its data file; the array's. */
int npk__array_fd(const npk_array *a);
/* Bytes of the file of an array in a package, whose descriptor is -1. -EIO with a sentence. */
int npk__array_read_packed(const npk_array *a, uint64_t offset, uint64_t bytes, void *out);
/* Bytes of its data as it is shown, any order or ndim; all inside. -EIO with a sentence: the file was cut. */
int npk__array_read_shown(const npk_array *a, uint64_t offset, uint64_t bytes, void *out);
/* Of at most `most` rows from a shown row on, those that follow each other in the file: how many, *physical the first. */
uint64_t npk__array_run(const npk_array *a, uint64_t row, uint64_t most, uint64_t *physical);
/* Its name, for sentences. */
const char *npk__array_name(const npk_array *a);
/* Is its data mapped by now? */
bool npk__array_is_mapped(const npk_array *a);
/* Count a search over the array; how many there were before. */
unsigned npk__array_searched(npk_array *a);

#endif
