/* SPDX-License-Identifier: Apache-2.0 */
/*
 * in_batch.h - verbs with `--batch ID`: the array as the batch has it.
 */
#ifndef TOOLS_IN_BATCH_H
#define TOOLS_IN_BATCH_H

#include "args.h"
#include "typed_path.h"

/* The array at `path`, which need not exist outside the batch, and the batch that --batch names. CLI_OK, or another
 * exit status after a sentence. Close both afterwards. */
int cli_in_batch_open(const cli_args *args, const char *path, cli_target *t, npk_batch **out);
/* Facts of the array in the batch, which must have rows, and its dtype down to its fields. */
int cli_in_batch_look(const cli_target *t, npk_batch *b, npk_info *info, cli_type **type);

#endif
