/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mounted.h - verbs through the files of a mount, for callers who may use the mount but not the store behind it:
 * control files where there is one, plain file calls where they mean the same. Each returns CLI_OK, or CLI_FAILED after
 * a sentence.
 */
#ifndef TOOLS_MOUNTED_H
#define TOOLS_MOUNTED_H

#include "index.h"
#include "typed_path.h"

/* Append bytes by O_APPEND. */
int cli_mounted_append(const cli_target *t, const char *label, const void *data, uint64_t bytes);
/* Overwrite rows in place; `rows` has index->row_count of them. */
int cli_mounted_replace(const cli_target *t, const npk_header *header, const npk_rows *index, const void *rows);
/* A new array: a hidden file beside it, then its name. data NULL: zeros. */
int cli_mounted_create(const cli_target *t, const char *descr, const uint64_t *shape, uint32_t ndim, const void *data,
                       uint64_t bytes);
/* Write one line to a control of the array, e.g. "shape". */
int cli_mounted_control(const cli_target *t, const char *control, const char *line);
/* The array was changed in the store: if it was reached through a mount, its kernel looks again. */
void cli_mounted_refresh(const cli_target *t);
/* Give the array at `from` another name. */
int cli_mounted_rename(const char *from, const char *to);
/* fsync the array, or every array of the directory. */
int cli_mounted_sync(const cli_target *t);
/* Unlink every array of the directory. */
int cli_mounted_reset(const cli_target *t);

#endif
