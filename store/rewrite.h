/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rewrite.h - the same data under another header: a new file takes the array's name (P1, P6).
 *
 * Readers keep the old file. A writer would keep it, too, and what he writes would be lost: so a lease must prove that
 * there is none, or nothing is done.
 */
#ifndef NPK_REWRITE_H
#define NPK_REWRITE_H

#include <stddef.h>
#include <stdint.h>

#include "target.h"

/* Give the locked array a new header of `bytes` bytes and the first data_bytes bytes of its data. The target's file is
 * shut before; open it again after. Durable when it returns. -EBUSY: somebody writes, or nothing proves that nobody
 * does; -EMLINK, -ENOTSUP: the file cannot be swapped. */
int npk__rewrite(npk_target *t, const uint8_t *header, size_t bytes, uint64_t data_bytes);
/* The same header with room for the digits of any number of rows, counting all whole rows that may be counted. */
int npk__rewrite_roomier(npk_target *t);

#endif
