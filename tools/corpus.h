/* SPDX-License-Identifier: Apache-2.0 */
/* corpus.h - what is searched: one or several arrays, whole or some of their rows. */
#ifndef TOOLS_CORPUS_H
#define TOOLS_CORPUS_H

#include <stddef.h>
#include <stdint.h>

#include "npk.h"
#include "typed_path.h"

typedef struct cli_member {
    cli_target target;
    char *label; /* the path, as typed, without its rows */
    npk_array *array;
    uint64_t *exclude; /* what its part refers to, or NULL */
} cli_member;

typedef struct cli_corpus {
    cli_member *members;
    npk_part *parts;
    size_t count;
    uint64_t rows;  /* to be looked at, over all parts */
    uint64_t bytes; /* of them and of what lies between */
} cli_corpus;

/* Open `X` or `X.npy@INDEX` words (INDEX: a name of rows, or what cli_index_load takes). CLI_OK, or another exit status
 * after a sentence; cli_corpus_clear in any case. */
int cli_corpus_open(const char *const *words, size_t count, cli_corpus *out);
/* Of the only array's rows, look at these only; or leave these out. Both may be given, each once. */
int cli_corpus_choose(cli_corpus *corpus, const char *index);
int cli_corpus_leave_out(cli_corpus *corpus, const char *index);
void cli_corpus_clear(cli_corpus *corpus);

#endif
