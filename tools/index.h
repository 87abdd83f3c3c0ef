/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.h - which rows somebody means: Python's index expressions, resolved against the rows that there are.
 *
 *   5  -1             one row, negative ones from the end; outside is an error (-ERANGE)
 *   10:20  ::10  ::-1 slices; what lies outside is left out, as in Python
 *   0,3,-1  0:5,9     several of these, in the order given; duplicates stay
 *
 * The parsers are pure: no I/O, nothing global. cli_index_load alone reads files.
 */
#ifndef TOOLS_INDEX_H
#define TOOLS_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "say.h"

/* Rows start, start + step, ...; count of them, all of them between 0 and the array's rows. */
typedef struct cli_run {
    int64_t start;
    uint64_t count;
    int64_t step;
} cli_run;

/* Zero-initialised is empty. */
typedef struct cli_index {
    cli_run *runs;
    size_t run_count, run_capacity;
    uint64_t row_count; /* rows meant, over all runs */
} cli_index;

/* Where a walk over an index stands; zero-initialised is its begin. */
typedef struct cli_cursor {
    size_t run;
    uint64_t done; /* of that run */
} cli_cursor;

/* Add what text[0..bytes) means for an array of `rows` rows. -EINVAL (no expression), -ERANGE, -ENOMEM; `out` then
 * holds what came before and is only good for cli_index_clear. */
int cli_index_parse(const char *text, size_t bytes, uint64_t rows, cli_index *out, cli_why *why);
/* The same for one expression per line; blank lines are skipped. */
int cli_index_parse_lines(const char *text, size_t bytes, uint64_t rows, cli_index *out, cli_why *why);
/* The same for the bytes of a .npy file: integers of any size, or a bool mask with one element per row. */
int cli_index_parse_npy(const void *file, size_t bytes, uint64_t rows, cli_index *out, cli_why *why);
/* The same for what stands on the command line: "-" is standard input (lines or .npy), NAME.npy a file, else an
 * expression. `why` quotes it. */
int cli_index_load(const char *argument, uint64_t rows, cli_index *out, cli_why *why);
void cli_index_clear(cli_index *index);

/* The next rows of the walk, at most max of them. Returns how many; 0 at the end. */
size_t cli_index_take(const cli_index *index, cli_cursor *cursor, int64_t *out, size_t max);
/* The next rows of the walk that follow each other without a gap, at most max: their first row and how many; 0 at the
 * end. A run of another step is given row by row. */
uint64_t cli_index_take_range(const cli_index *index, cli_cursor *cursor, uint64_t max, uint64_t *first);

#endif
