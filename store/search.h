/* SPDX-License-Identifier: Apache-2.0 */
/*
 * search.h - exact search, inside: what its files share (P20).
 *
 *   search.c         the public functions: checks, threads, merging
 *   search_query.c   dtypes, queries, how they are packed
 *   search_form.c    what a metric is to the kernels: thresholds, and bounds of a score from what a kernel gave
 *   search_best.c    the best k of a stream of candidates
 *   search_scan.c    rows: where they are, which are live, block by block through the kernels
 *
 * A fast kernel gives each row a value that bounds its score from above, by the kernel's stated error. Rows whose bound
 * reaches the k-th best score known are candidates; exact.h scores them, and those scores decide. So the answer does
 * not depend on the kernel, on the blocks or on which thread saw a row. "Better" is a greater `key`: the score, or
 * minus the score where small is good. Keys are compared as integers in the order of the doubles, NaN below all of
 * them.
 */
#ifndef NPK_SEARCH_H
#define NPK_SEARCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "distance.h"
#include "exact.h"
#include "npk.h"

/* ---- order ----------------------------------------------------------------------------------------------------- */

#define NPK__WORST INT64_MIN /* what NaN is */

int64_t npk__key_order(double key);
double npk__key_value(int64_t order); /* NaN for NPK__WORST */

/* ---- the best k ------------------------------------------------------------------------------------------------ */

/* Rows are numbered over all parts, by physical rows; ascending with (part, logical row). */
#define NPK__EXACT (UINT64_C(1) << 63)

typedef struct npk__candidate {
    int64_t low, high; /* bounds of its key; equal once it is exact */
    uint64_t row;      /* | NPK__EXACT */
} npk__candidate;

typedef struct npk__best {
    npk__candidate *at;
    size_t count, capacity, k;
    size_t pending;    /* of count: not exact */
    int64_t threshold; /* a key below it cannot be among the best */
    bool strict;       /* nor can one that equals it, for a row behind all that were seen */
} npk__best;

/* Exact key of a row; ctx is the caller's. */
typedef int64_t npk__rescore(void *ctx, uint64_t row);

/* Room for one more is made when it is full. True: the threshold has changed. */
bool npk__best_add(npk__best *b, int64_t low, int64_t high, uint64_t row, npk__rescore *rescore, void *ctx);
/* Everything exact, at most k left. */
void npk__best_settle(npk__best *b, npk__rescore *rescore, void *ctx);
/* Forget all candidates; what k of them reach stays as the threshold. */
void npk__best_forget(npk__best *b);
/* Sort by key, then row, and keep the best k. All must be exact. Returns how many. */
size_t npk__best_sort(npk__candidate *at, size_t count, size_t k);
/* A good capacity for k. */
size_t npk__best_capacity(size_t k, size_t queries);

/* ---- forms ----------------------------------------------------------------------------------------------------- */

/* What the kernels compute. */
typedef enum npk__class {
    NPK__F32,  /* rows are float, or made so */
    NPK__F64,  /* rows are double, or made so */
    NPK__I8,   /* int8 rows and queries */
    NPK__BITS, /* bytes */
    NPK__NONE, /* no kernel: every row is a candidate */
} npk__class;

/* A query as the scan sees it. What the selecting kernel calls value bounds the key (l2: minus the square of the score,
 * js: minus twice the square) from above, after / unit + shift. */
typedef struct npk__query {
    kn_exact_query exact;
    double shift;
    double unit;            /* value / unit + shift is that bound */
    float slack;            /* NaN: no bound can be given, every row is a candidate */
    double err, err_by_row; /* high - low = err + err_by_row * row_err[i] */
    double squares;         /* I8: sum q^2; BITS: bits set */
} npk__query;

/* Queries that go through a kernel together. */
typedef struct npk__group {
    size_t first;
    unsigned count, width; /* width 0: `few` */
    void *packed;          /* owned unless `few` */
} npk__group;

typedef struct npk__part {
    npk_array *array;
    uint64_t first, count;   /* physical rows that are looked at: those of the range that are live */
    uint64_t base;           /* number of physical row 0 among all parts */
    uint64_t logical, rows;  /* the range in logical rows */
    const uint64_t *exclude; /* the caller's, one bit per logical row, or NULL */
    const uint8_t *map;      /* physical row 0, or NULL: read */
    bool masked;             /* some rows between are not wanted */
} npk__part;

typedef struct npk__search {
    const kn_distance *kernel;
    npk_metric metric;
    kn_metric exact_metric;
    npk__class class;
    bool descends;  /* a great score is good */
    bool integral;  /* kernel values are the exact scores */
    bool converted; /* rows go through a scratch block as float or double */
    kn_type type;
    bool swap; /* rows have the other byte order */
    size_t dim, row_bytes, k;
    double error; /* relative error of the kernel (distance.h) */

    npk__query *queries;
    size_t query_count;
    double *values;   /* query_count * dim, or NULL */
    uint8_t *same;    /* queries in the type of the rows, or NULL */
    void *packed_few; /* queries as `few` takes them */
    npk__group *groups;
    size_t group_count;

    npk__part *parts;
    size_t part_count;
    uint64_t rows, bytes; /* to be looked at */
    size_t task_rows, block_rows;

    _Atomic(uint64_t) next_task;
    _Atomic(uint64_t) done_bytes;
    _Atomic(int) error_code; /* the first failure; others stop */
    npk_progress *progress;
    void *progress_ctx;
} npk__search;

/* The public name of a metric; what it asks of dtypes is checked by npk__query_prepare. */
kn_metric npk__metric_exact(npk_metric metric);

/* Everything about rows' dtype and queries; allocates. 0 or a negative errno after a sentence. */
int npk__query_prepare(npk__search *s, const npk_header *rows, const char *name, const npk_queries *q, double epsilon);
void npk__query_clear(npk__search *s);

/* Per-row terms of a block, KN_BLOCK_ROWS each. */
typedef struct npk__terms {
    float scale[KN_BLOCK_ROWS], add[KN_BLOCK_ROWS];
    float squares[KN_BLOCK_ROWS];
    float row_err[KN_BLOCK_ROWS]; /* infinity: the value bounds from above alone */
} npk__terms;

/* Fill in what depends on the query alone. */
void npk__form_query(const npk__search *s, npk__query *q);
/* Are the scores of a block made together with its terms: one query, whose rows need their squares? */
bool npk__form_scores_too(const npk__search *s);
/* And from rows of half precision, without converting them? */
bool npk__form_takes_half(const npk__search *s);
/* Terms of the rows of a block, after conversion; those of kl come with its logarithms. scores: NULL, or where the
 * query's go, too. */
void npk__form_rows(const npk__search *s, const kn_block *b, npk__terms *terms, float *scores);
/* slack and threshold for the kernel, from the best keys known. */
void npk__form_threshold(const npk__search *s, const npk__query *q, const npk__best *best, float *slack,
                         float *threshold);
/* Bounds of the key from a value that is a number. */
void npk__form_bounds(const npk__search *s, const npk__query *q, const npk__terms *t, const kn_hit *hit, float slack,
                      int64_t *low, int64_t *high);

/* ---- the scan -------------------------------------------------------------------------------------------------- */

typedef struct npk__worker npk__worker;
/* The worker of one thread; best[query_count] is what it found. NULL without memory. */
npk__worker *npk__worker_new(npk__search *s);
void npk__worker_free(npk__worker *w);
npk__best *npk__worker_best(npk__worker *w);
/* Before the workers run: look at some rows that are spread over the largest part, so that all workers know from the
 * beginning what k rows reach. Then few rows have to be looked at twice, whatever order they are in. */
void npk__worker_sample(npk__worker *const *workers, unsigned count);
/* Take tasks until there is none. `lead`: this is the caller's thread, which tells the progress. Sets s->error_code. */
void npk__worker_run(npk__worker *w, bool lead);
/* All scores instead: out[query * s->rows + position among the rows of all parts]. Arrays must have no deleted or
 * excluded row between. */
void npk__worker_pairs(npk__worker *w, bool lead, double *out);

#endif
