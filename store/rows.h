/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rows.h - appending to an array that is locked and open.
 */
#ifndef NPK_ROWS_H
#define NPK_ROWS_H

#include <stdint.h>

#include "target.h"

/* As npk_append; the target was opened with room for `count` rows (npk__target_open_with_room). */
int npk__append_open(npk_target *t, const void *rows, uint64_t count, uint64_t *first);

#endif
