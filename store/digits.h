/* SPDX-License-Identifier: Apache-2.0 */
/*
 * digits.h - how to change shape[0] in a header that others may be reading (P3).
 *
 * Readers take no lock, and a read may see any mixture of the bytes before and after a write. So the digits change in
 * steps, and every mixture of two consecutive states is a header that parses and counts no more rows than the larger of
 * old and new. States in between may count fewer.
 *
 * When the digits run out but blanks follow the dict, the text behind them moves right: no order of writes keeps every
 * mixture readable then. Such a plan has `moves` set. It puts a second pair of parentheses around the shape in the
 * first write and takes it away in the second, so that a read cut between old and new bytes finds them unbalanced and
 * is refused, instead of finding another shape; both states parse.
 *
 * Pure: no I/O, no allocation.
 */
#ifndef NPK_DIGITS_H
#define NPK_DIGITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "npk.h"

#define NPK__DIGITS_STEPS 32
#define NPK__DIGITS_POOL  4096
/* Blanks that are left before the number when its field is widened: room for so many more digits. */
#define NPK__DIGITS_SPARE 12
/* The widest field that is ever made; 2^63 - 1 has 19 digits. */
#define NPK__DIGITS_MAX 20

typedef struct npk__digits_step {
    uint32_t offset; /* bytes from the file's start */
    uint32_t bytes;
    const uint8_t *data; /* inside the plan's own pool: a plan is not to be copied */
} npk__digits_step;

typedef struct npk__digits_plan {
    uint32_t count;                            /* 0: the header says so already */
    npk__digits_step steps[NPK__DIGITS_STEPS]; /* each one pwrite, in this order */
    bool moves;                                /* text moves right: a read during it may be refused, see above */
    uint32_t digits_offset, digits_width;      /* as in npk_header, when all is done */
    uint32_t pool_used;
    uint8_t pool[NPK__DIGITS_POOL];
} npk__digits_plan_t;

/* Plan the steps from the header in header[0..header_bytes), whose parse is h, to new_rows. header_bytes >=
 * h->data_offset. -ENOSPC: there is no room, the file needs a longer header (npk__header_relayout and a swap);
 * -EINVAL: ndim 0, or h is not this header's; -EOVERFLOW: more than 2^63 - 1 bytes of file. */
int npk__digits_plan(const uint8_t *header, size_t header_bytes, const npk_header *h, uint64_t new_rows,
                     npk__digits_plan_t *out);

/* Carry a plan's first `steps` steps out on a copy of the header, for callers that hold it in memory. */
void npk__digits_apply(const npk__digits_plan_t *plan, uint32_t steps, uint8_t *header);

/* The same header with new_rows, in the same order, with the same text of the descr, and with room for the digits of
 * any number of rows: blanks before the number. Aligned to 64 bytes; of the same version unless it is too long for 1.
 * *bytes: its length. At most header_bytes + 192 are needed. -E2BIG: beyond capacity or NPK_MAX_HEADER; -EINVAL and
 * -EOVERFLOW as above. */
int npk__header_relayout(const uint8_t *header, size_t header_bytes, const npk_header *h, uint64_t new_rows,
                         uint8_t *out, size_t capacity, size_t *bytes);

#endif
