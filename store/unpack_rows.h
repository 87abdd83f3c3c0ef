/* SPDX-License-Identifier: Apache-2.0 */
/* unpack_rows.h - some rows of some arrays of a package, as a new directory. */
#ifndef NPK_UNPACK_ROWS_H
#define NPK_UNPACK_ROWS_H

#include "npk.h"

/* o->names and o->rows are set. */
int npk__unpack_rows(const char *path, const char *dir, const npk_unpack_options *o);

#endif
