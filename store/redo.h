/* SPDX-License-Identifier: Apache-2.0 */
/*
 * redo.h - rows that are replaced in place, all or none of them under kill -9 (P5).
 *
 * Rows that take more than one page are first written to `.npkfs/redo.<slot>` beside the array, then to the array. The
 * record is not synced: it is a protection against the death of the process, and void in another boot of the system.
 * It lies in the array's own directory, not in the store's journal, so that arrays do not wait for each other and a
 * group may be opened alone; the array's exclusive lock is the record's. Whoever gets that lock and finds a whole
 * record writes its rows again (they are the same bytes) and clears it.
 *
 * The file stays, cleared, for the next operation on the array, since making it costs more than all the rest, and goes
 * with the array's session.
 */
#ifndef NPK_REDO_H
#define NPK_REDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "target.h"

#define NPK__REDO_PREFIX "redo."

/* Physical rows of an array. */
typedef struct npk_extent {
    uint64_t row, rows;
} npk_extent;

/* Overwrite the extents, in order, with the rows that follow each other at `rows`. The target is locked and open; every
 * extent is inside its t->info.rows. -EIO and others after which the record stays, so that the next change of the array
 * completes it: the sentence says so. Where the record could not be written nothing was changed. */
int npk__redo_replace(npk_target *t, const npk_extent *extents, size_t count, const void *rows);

/* Finish what a dead process left for the array. Its lock is held exclusively. 0 also without a record. A record that
 * is not of this array's file is set aside as `.npkfs/aside.redo...`; one that is torn or of another boot is void. */
int npk__redo_finish(int dir_fd, const char *leaf);
/* The same for a reader, who holds no lock: 0 if there is nothing to be done or its owner lives; -EUCLEAN with a
 * sentence where the store is read-only. */
int npk__redo_for_reading(npk_store *s, const char *path);
/* Remove the record's file: the array is replaced or goes, or its session ends. The lock is held; call finish first
 * where the array's bytes stay. */
void npk__redo_drop(int dir_fd, const char *leaf);

/* The name of an array's record in the sidecar folder. */
void npk__redo_file(const char *leaf, char out[64]);
/* Is there something in the file of this name in the sidecar folder `side_fd` that waits to be redone? For the check.
 */
bool npk__redo_is_whole(int side_fd, const char *file);

#endif
