/* SPDX-License-Identifier: Apache-2.0 */
/* grid.h - rows as an aligned table for a terminal: the middle of wide rows is left out. */
#ifndef TOOLS_GRID_H
#define TOOLS_GRID_H

#include "type.h"

#define CLI_GRID_EDGE   64 /* elements considered at each end of a row */
#define CLI_GRID_SAMPLE 64 /* rows that decide the widths */

typedef struct cli_grid cli_grid;

/* NULL without memory. header and type are borrowed; columns: of the terminal. */
cli_grid *cli_grid_new(const npk_header *header, const cli_type *type, size_t columns);
/* 0 or -ENOMEM. */
int cli_grid_put(cli_grid *g, const int64_t *numbers, const void *rows, size_t count);
int cli_grid_end(cli_grid *g);

/* The place of element i in a row as "3" or "0,3", as people index it; "" for a row of one element without dimensions.
 */
void cli_element_label(const npk_header *header, uint64_t i, cli_text *out);

#endif
