/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rows_in.h - rows that somebody gives: a .npy file or raw bytes, from a file or from standard input.
 *
 * A regular file is mapped. What cannot be mapped (a pipe) is kept in memory up to a limit and beyond it in an unnamed
 * file, so that an append is whole or absent at any size while memory stays bounded.
 */
#ifndef TOOLS_ROWS_IN_H
#define TOOLS_ROWS_IN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "npk.h"
#include "say.h"
#include "type.h"

/* The whole content of a file or a pipe. */
typedef struct cli_blob {
    char *label; /* as typed; "standard input" for "-" */
    const void *data;
    size_t bytes;
    void *map;  /* what to unmap, or NULL */
    void *heap; /* what to free, or NULL */
} cli_blob;

/* Open argument ("-": standard input). spool_fd: a directory on a disk with room for what a pipe holds, any mode; -1:
 * $TMPDIR. -ENOENT and what else open and read say; -ENOMEM; -EISDIR. */
int cli_blob_open(const char *argument, int spool_fd, cli_blob *out, cli_why *why);
void cli_blob_clear(cli_blob *blob);
/* Does it begin as a .npy file does? */
bool cli_blob_is_npy(const cli_blob *blob);

/* Rows: a blob and, for .npy, what its header says. */
typedef struct cli_rows {
    cli_blob blob;
    bool npy;
    npk_header header; /* for npy */
    cli_type *type;    /* for npy */
    const void *data;  /* the first element */
    uint64_t bytes;    /* of elements */
} cli_rows;

/* Open rows. raw: take a .npy header for data, too. A .npy file must be complete, in C order, with nothing behind its
 * data: -EINVAL and a sentence. */
int cli_rows_open(const char *argument, bool raw, int spool_fd, cli_rows *out, cli_why *why);
void cli_rows_clear(cli_rows *rows);

/* How many rows of the array (its header and its type) these are. A .npy must have the array's dtype and the dimensions
 * behind the first, or be one such row; raw bytes must be whole rows. -EINVAL: the sentence names both. */
int cli_rows_fit(const cli_rows *rows, const npk_header *array, const cli_type *type, uint64_t *count, cli_why *why);

#endif
