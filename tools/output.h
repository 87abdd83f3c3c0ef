/* SPDX-License-Identifier: Apache-2.0 */
/*
 * output.h - facts as a table: aligned text, tab-separated values or JSON.
 *
 * A table has columns and is filled cell by cell, row by row. As TSV and JSON each row is printed when it is full; as
 * text the rows wait for the end, since their widths decide the layout. A record is a table of one row that is shown as
 * `key: value` lines (TSV: key TAB value; JSON: one object).
 */
#ifndef TOOLS_OUTPUT_H
#define TOOLS_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command.h"

typedef struct cli_column {
    const char *key;   /* in JSON and in the title line of TSV */
    const char *title; /* in text */
    bool right;        /* aligned to the right */
} cli_column;

typedef struct cli_table cli_table;

/* columns and args are borrowed. NULL after a sentence when memory is short; every function below takes NULL. */
cli_table *cli_table_new(const cli_args *args, const cli_column *columns, size_t column_count);
cli_table *cli_record_new(const cli_args *args, const cli_column *columns, size_t column_count);

/* Fill the next cell. */
void cli_table_string(cli_table *t, const char *string);
void cli_table_count(cli_table *t, uint64_t count);
void cli_table_bytes(cli_table *t, uint64_t bytes); /* "1.5 MiB" in text, the number else */
void cli_table_time(cli_table *t, int64_t us);      /* local time in text, microseconds since the epoch else */
void cli_table_shape(cli_table *t, const uint64_t *shape, uint32_t ndim); /* "1050,128"; a list in JSON */
void cli_table_number(cli_table *t, double number, int decimals);
/* Seven digits in text, else the fewest digits that give the number back; in JSON NaN and infinities are strings. */
void cli_table_real(cli_table *t, double value);
void cli_table_bool(cli_table *t, bool value);
void cli_table_none(cli_table *t); /* "-" in text, nothing in TSV, null in JSON */

/* Print what is left and free. CLI_OK, or CLI_FAILED after a sentence. */
int cli_table_end(cli_table *t);

/* "1.5 MiB" */
void cli_format_bytes(uint64_t bytes, char *out, size_t capacity);
/* Columns of the terminal on stdout; 80 when it is none and COLUMNS does not say. */
size_t cli_terminal_columns(void);
/* Flush stdout. CLI_OK, or CLI_FAILED after a sentence. */
int cli_output_flush(void);

#endif
