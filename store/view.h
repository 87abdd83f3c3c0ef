/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view.h - the shown rows of a data file as a file of its own: header, live rows, part-row.
 */
#ifndef NPK_VIEW_H
#define NPK_VIEW_H

#include <stdint.h>

#include "live.h"
#include "npk.h"

/* The bytes of a header that counts `rows`, no more than the header h at header[] does. */
void npk__view_header(uint8_t *header, const npk_header *h, uint64_t rows);

/* The shown data of a file, without header and part-row. */
typedef struct npk__shown {
    const npk_live *live;     /* NULL: the file itself, from its first byte on, is what is shown */
    uint64_t rows; /* shown */
    uint64_t row_bytes, data_offset;
    npk_package_file *packed; /* where the file's bytes are, for a placeholder; NULL: in the file */
} npk__shown;
/* Bytes of it, which are all inside: short if the file was cut. No sentence. */
ssize_t npk__shown_read(const npk__shown *v, int fd, uint64_t offset, void *out, size_t bytes);

/* What is shown by an open view. */
const npk__shown *npk__view_shown(const npk_view *v);

/* Runs of live rows: from logical row *logical on, at most `most` rows that follow each other in the file. Returns how
 * many, *physical the first. */
uint64_t npk__view_run(const npk_live *live, uint64_t logical, uint64_t most, uint64_t *physical);

#endif
