/* SPDX-License-Identifier: Apache-2.0 */
/* rows_out.h - rows of an array on their way out: a text table, TSV, JSON, raw bytes or a .npy file. */
#ifndef TOOLS_ROWS_OUT_H
#define TOOLS_ROWS_OUT_H

#include "command.h"
#include "type.h"

typedef enum cli_rows_kind { CLI_ROWS_TEXT, CLI_ROWS_TSV, CLI_ROWS_JSON, CLI_ROWS_RAW, CLI_ROWS_NPY } cli_rows_kind;

/* What is to be written; everything is borrowed until the end. */
typedef struct cli_rows_plan {
    cli_rows_kind kind;
    const npk_header *header; /* the array's */
    const cli_type *type;
    const char *descr;  /* for NPY: the descr's Python text */
    const char *file;   /* for NPY; NULL or "-": standard output */
    uint64_t row_count; /* that will come */
    bool numbers;       /* TSV and JSON tell each row's number */
    bool titles;        /* TSV begins with a line of titles */
} cli_rows_plan;

typedef struct cli_rows_out cli_rows_out;

/* NULL after a sentence. */
cli_rows_out *cli_rows_out_new(const cli_rows_plan *plan);
/* Rows and their numbers. CLI_OK, or CLI_FAILED after a sentence. */
int cli_rows_out_put(cli_rows_out *out, const int64_t *numbers, const void *rows, size_t count);
/* Finish and free. A file takes its name only when `complete`; else it is removed. */
int cli_rows_out_end(cli_rows_out *out, bool complete);

#endif
