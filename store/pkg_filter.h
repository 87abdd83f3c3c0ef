/* SPDX-License-Identifier: Apache-2.0 */
/* pkg_filter.h - which filter pays for a file of a package. */
#ifndef NPK_PKG_FILTER_H
#define NPK_PKG_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "npk.h"
#include "pkg_format.h"
#include "pkg_frame.h"

/* "none", "bytes", "delta+bytes", "turn+bits", "raw", ...; static. */
const char *npk__filter_name(const npk__pkg_record *r);

/* Pieces of a file that stand for all of it. */
typedef struct npk__sample {
    const uint8_t *data[3];
    size_t bytes[3];
    unsigned count;
} npk__sample;

/* Choose filter and level for a file by trying them on the sample; r->data and r->frame are set, the filter's members
 * are filled in. h: its header if it is an array, else NULL. level: the user's, or 0 to have it chosen as well.
 * *raw: no filter makes it smaller by 3 %. The choice depends on nothing else. -ENOMEM. */
int npk__filter_choose(npk__codec *c, const npk_header *h, const npk__sample *sample, npk__pkg_record *r, int *level,
                       bool *raw);

#endif
