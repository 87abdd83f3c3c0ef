/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.h - which rows somebody means on the command line: the engine's index expressions (npk_rows_parse), in lines, in
 * files, on standard input.
 */
#ifndef TOOLS_INDEX_H
#define TOOLS_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "npk.h"
#include "say.h"


/* Add what text[0..bytes) means for an array of `rows` rows. -EINVAL (no expression), -ERANGE, -ENOMEM. */
int cli_index_parse(const char *text, size_t bytes, uint64_t rows, npk_rows *out, cli_why *why);
/* The same for one expression per line; blank lines are skipped. */
int cli_index_parse_lines(const char *text, size_t bytes, uint64_t rows, npk_rows *out, cli_why *why);
/* The same for the bytes of a .npy file: integers of any size, or a bool mask with one element per row. */
int cli_index_parse_npy(const void *file, size_t bytes, uint64_t rows, npk_rows *out, cli_why *why);
/* The same for what stands on the command line: "-" is standard input (lines or .npy), NAME.npy a file, else an
 * expression. `why` quotes it. */
int cli_index_load(const char *argument, uint64_t rows, npk_rows *out, cli_why *why);

#endif
