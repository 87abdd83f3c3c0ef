/* SPDX-License-Identifier: Apache-2.0 */
/*
 * target.h - an array that is locked and open for a change.
 *
 * Lock, open, look (inside the lock), change, close, unlock: the shape of every change to an array. No descriptor that
 * can write outlives the operation, since it would refuse everybody's lease (P1).
 */
#ifndef NPK_TARGET_H
#define NPK_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dirty.h"
#include "lock.h"
#include "marks.h"
#include "npk.h"
#include "path.h"

typedef struct npk_target {
    npk_store *store;
    const char *name; /* the caller's, for sentences */
    char *path;       /* with the suffix; owned */
    const char *leaf; /* in path */
    npk_dir dir;
    npk_lock lock;
    int fd; /* O_RDWR; -1: not open */
    npk_info info;
    npk_settle_state state;
    npk_file_id id;
    npk_stamp stamp;
    npk_dirty entry;  /* in the dirty table, made before the first change */
    bool was_entered; /* the entry was there before this operation */
    npk_marks marks;  /* which of its rows are deleted; info speaks of all rows of the file */
} npk_target;

#define NPK_TARGET_NONE ((npk_target){.dir = {.fd = -1, .opened = -1}, .lock = {.fd = -1}, .fd = -1})

/* Resolve the name of an array and lock it exclusively. The target is to be released in any case. -EROFS, -ENOENT (its
 * group; the array itself only if nothing in its directory was ever changed). */
int npk__target_lock(npk_store *s, const char *name, npk_target *out);
/* The same for several, in the order that keeps two callers from waiting for each other (P11). targets[i] is for
 * names[i]; a name may come twice. */
int npk__targets_lock(npk_store *s, const char *const *names, size_t count, npk_target *targets);
/* The same without a look at the store's journal, for whoever has its lock. missing: a name whose group does not exist
 * is left out (its target has no directory). */
int npk__targets_lock_raw(npk_store *s, const char *const *names, size_t count, npk_target *targets, bool missing);
/* Resolve without locking. */
int npk__target_resolve(npk_store *s, const char *name, npk_target *out);

enum npk_target_open {
    NPK_TARGET_ALONE = 1, /* -EBUSY while a lease finds a writer */
    NPK_TARGET_TAIL = 2,  /* accept bytes beyond the rows (a part-row, foreign rows); else -EBUSY */
    NPK_TARGET_ANY = 4,   /* any fixed-size array, whole or not: only that it is one */
    NPK_TARGET_READ = 8,  /* its rows stay as they are: no entry is made for it */
    NPK_TARGET_PACKED = 16, /* its data may stay in the package (lower.h): the descriptor is not read for it */
};
/* Open the locked array for writing, bring header and data to agree, and make its entry in the dirty table. What a dead
 * append left is taken back, a part-row of a dead writer set aside. -ENOENT, -ENOTSUP (no row array), -EINVAL
 * (unfinished), -EBUSY. */
int npk__target_open(npk_target *t, unsigned how);
/* The operation has written to the file: what is known of its rows goes on being known. */
void npk__target_wrote(npk_target *t);
/* Close the file, keep the lock. */
void npk__target_shut(npk_target *t);
/* Close and unlock everything; fine on NPK_TARGET_NONE and twice. */
void npk__target_release(npk_target *t);

/* Open and make sure that the header has room for the digits of (rows now + more); a longer header is made if need be
 * (npk__rewrite), which needs that nobody else writes. */
int npk__target_open_with_room(npk_target *t, unsigned how, uint64_t more);

/* A descriptor of the array for writing; waits a little for a lease holder. */
int npk__open_for_change(int dir_fd, const char *leaf, const char *name);
/* Copy the file's bytes from `offset` on to a new plain file NAME.npy.tail (or .tail.1, ...), whose leaf is written to
 * out, and cut them off. rw_fd may write. */
int npk__set_tail_aside(int dir_fd, const char *leaf, int rw_fd, uint64_t offset, char out[256]);

/* Do the bytes beyond the rows begin like another array (several np.save into one file)? */
bool npk__tail_is_npy(int fd, const npk_info *info);

/* npk_stat of the data file itself, whatever its sidecar says. */
int npk__stat_file(npk_store *s, const char *name, npk_info *out);
/* Why row operations are not possible, as a sentence and -ENOTSUP; 0 if they are. */
int npk__rows_possible(const char *name, const npk_info *info);
/* -ENOENT with a sentence that tells how to find the names; other errors with their text. */
int npk__name_failed(int err, const char *name);

/* For tests: how long to wait for a part-row to be completed, and for a lease holder, in ms. */
extern unsigned npk__tail_wait_ms;

/* Rows that are shown. */
static inline uint64_t npk__target_rows(const npk_target *t)
{
    return t->info.rows - t->marks.known.deleted;
}

/* The row of the file behind a row that is shown; behind the last one: where the next will be. */
static inline uint64_t npk__target_row(const npk_target *t, uint64_t logical)
{
    const npk_known *k = &t->marks.known;
    return k->deleted
               ? (logical < t->info.rows - k->deleted ? npk__live_select(k->live, logical) : logical + k->deleted)
               : logical;
}

static inline uint64_t npk__rows_end(const npk_header *h, uint64_t rows)
{
    return h->data_offset + rows * h->row_bytes;
}

#endif
