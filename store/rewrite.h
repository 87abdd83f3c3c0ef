/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rewrite.h - the same data under another header, or its values in another type: a new file takes the array's name (P1, P6).
 *
 * Readers keep the old file. A writer would keep it, too, and what he writes would be lost: so a lease must prove that
 * there is none, or nothing is done.
 */
#ifndef NPK_REWRITE_H
#define NPK_REWRITE_H

#include <stddef.h>
#include <stdint.h>

#include "convert.h"
#include "target.h"

enum npk_rewrite_how {
    NPK_REWRITE_LIVE = 1,  /* only the rows that are shown */
    NPK_REWRITE_FORCE = 2, /* where leases prove nothing: the caller knows that nobody writes */
};
typedef struct npk_rewriting {
    const uint8_t *header; /* the new one */
    size_t header_bytes;
    uint64_t data_bytes; /* of the new file; without NPK_REWRITE_LIVE those of the old one, from its data's begin on */
    unsigned how;
    const npk_conversion *convert; /* of its elements; NULL: the bytes stay as they are */
    npk_progress *progress;        /* or NULL */
    void *ctx;
} npk_rewriting;

/* Give the locked array a new header and its data again. The target's file is shut before; open it again after. Durable
 * when it returns. What is known of deleted rows and names goes along. -EBUSY: somebody writes, or nothing proves that
 * nobody does; -EMLINK, -ENOTSUP: the file cannot be swapped; -ECANCELED. */
int npk__rewrite(npk_target *t, const npk_rewriting *r);
/* The same header with room for the digits of any number of rows, counting all whole rows that may be counted. */
int npk__rewrite_roomier(npk_target *t);

#endif
