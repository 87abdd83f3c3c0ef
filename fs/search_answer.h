/* SPDX-License-Identifier: Apache-2.0 */
/* search_answer.h - what `search/` computes: a file's name, a query's bytes, and the bytes of the answer. */
#ifndef FS_SEARCH_ANSWER_H
#define FS_SEARCH_ANSWER_H

#include "state.h"

typedef enum fs_answer_kind {
    FS_ANSWER_HITS, /* q.cosine.10.npy: structured, index and score */
    FS_ANSWER_TEXT, /* q.cosine.10.tsv: lines of row TAB score, with the query's number before where there are several */
    FS_ANSWER_ROWS, /* q.cosine.10.rows.npy: the rows themselves */
} fs_answer_kind;

/* What a name asks for. */
typedef struct fs_question {
    char query[256]; /* the name of the query's file, "q.npy" */
    npk_metric metric;
    uint64_t k;
    fs_answer_kind kind;
} fs_question;

/* False: no name of an answer. */
bool fs_question_parse(const char *name, fs_question *out);

/* Search the array for the queries in query[0..bytes), a .npy file. *out is malloc()ed. gave_up(ctx) is asked now and
 * then. 0; -EINTR; what the engine says; -EFBIG: an answer of more than most bytes. `why` (>= 512 bytes) gets one sentence. */
int fs_question_answer(fs_state *fs, const char *path, const fs_question *question, const void *query, size_t bytes, size_t most,
                       bool (*gave_up)(void *ctx), void *ctx, char **out, size_t *out_bytes, char *why);

#endif
