/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live.h - which rows of a data file are shown: one bit a physical row, with rank and select.
 *
 * Rows are kept in chunks of 65 536. A chunk without deleted rows is not there at all, all those without live ones are
 * the same; one between has its bits (8 KiB,
 * 1 = live) and a count per 256 rows (512 bytes), and a Fenwick tree over the chunks counts deleted rows, so that both
 * directions of logical <-> physical cost O(log chunks). Rows are unbounded: what was never marked is live, and whoever
 * knows the number of rows clips.
 *
 * Chunks are shared between copies and copied when one of the copies changes them (P9, P22). An npk_live may be read by
 * any number of threads; it is changed only by an owner who holds the only reference to it (npk__live_own()).
 */
#ifndef NPK_LIVE_H
#define NPK_LIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NPK__CHUNK_ROWS 65536u
/* Rows beyond this one cannot be marked: a table of their chunks would take 256 MiB. */
#define NPK__LIVE_ROWS (UINT64_C(1) << 40)

typedef struct npk_live npk_live;

npk_live *npk__live_new(void); /* all rows live; NULL: out of memory */
npk_live *npk__live_ref(npk_live *l);
void npk__live_unref(npk_live **l); /* NULL is fine */
/* Make *l the caller's alone, by a copy that shares all chunks if there are other references. -ENOMEM. */
int npk__live_own(npk_live **l);

/* Mark rows [start, start + count) as deleted, or as live again. *changed (may be NULL) grows by the rows that were
 * not so before. -ENOMEM: some of the rows may be marked. -ERANGE: beyond NPK__LIVE_ROWS. */
int npk__live_mark(npk_live *l, uint64_t start, uint64_t count, bool deleted, uint64_t *changed);
/* All rows from `rows` on are live. -ENOMEM as above. */
int npk__live_cut(npk_live *l, uint64_t rows);

bool npk__live_is_deleted(const npk_live *l, uint64_t row);
uint64_t npk__live_deleted(const npk_live *l); /* in all */
uint64_t npk__live_end(const npk_live *l);     /* behind the last deleted row; 0: none is deleted */
/* Live rows among the first `physical` rows: the logical number of that row if it is live. */
uint64_t npk__live_rank(const npk_live *l, uint64_t physical);
/* The physical row that is shown as `logical`. */
uint64_t npk__live_select(const npk_live *l, uint64_t logical);
/* The same for ascending rows, each in place: what one costs is spread over all. */
void npk__live_select_ascending(const npk_live *l, uint64_t *rows, size_t count, size_t stride);

/* For many rows in any order: where each 4 096th live row is. 1 / 64 of the bitmap; the bitmap must not change
 * meanwhile. */
typedef struct npk_live_index npk_live_index;
npk_live_index *npk__live_index_make(const npk_live *l); /* NULL: out of memory */
void npk__live_index_free(npk_live_index *x);
/* The physical rows of a list of logical ones. Negative indices count from the end of rows_shown rows; all are inside.
 * With `data` the processor is asked to fetch the row at data + physical * row_bytes already. */
void npk__live_select_many(const npk_live_index *x, const int64_t *logical, size_t count, uint64_t rows_shown,
                           const void *data, size_t row_bytes, int64_t *out);
/* The first deleted range that ends behind `from`: [*start, *stop), *start >= from. False: there is none. */
bool npk__live_next_deleted(const npk_live *l, uint64_t from, uint64_t *start, uint64_t *stop);

/* The words that say which rows are live, from the chunk of `row` on (row is a multiple of 64): *rows receives how many
 * rows they speak of. The last chunk's words go on beyond the array's last row and say live there. */
const uint64_t *npk__live_words(const npk_live *l, uint64_t row, uint64_t *rows);

/* For tests: bytes in memory of bits, and of everything else. */
void npk__live_memory(const npk_live *l, size_t *bits, size_t *index);

#endif
