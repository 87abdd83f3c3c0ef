/* SPDX-License-Identifier: Apache-2.0 */
/*
 * marks.h - changing which rows of an array are deleted: records, states, and their place beside the array.
 *
 * Everything here is called with the array's lock held exclusively, for an open data file of it.
 */
#ifndef NPK_MARKS_H
#define NPK_MARKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "known.h"

typedef struct npk_marks {
    int dir_fd, fd; /* borrowed; fd reads */
    const char *leaf;
    const npk_info *info; /* of the file itself, settled; borrowed */
    npk_stamp stamp;
    npk_known known;
} npk_marks;

/* What is known, for somebody about to change it: a state of another array is set aside, one of this array that was
 * found under another name moves to this one. -EUCLEAN: in doubt. Released by npk__marks_release(). */
int npk__marks_look(int dir_fd, const char *leaf, int fd, const npk_info *info, const npk_stamp *stamp, npk_marks *out);
void npk__marks_release(npk_marks *m);

/* Append a record of physical rows (ascending ranges apart from each other), making state and log at the first one.
 * m->known is brought up to date. Rewrites the log once it has outgrown the bitmap. No sync. */
int npk__marks_record(npk_marks *m, npk_delrec kind, const npk_range *ranges, size_t count);
/* P7: rows behind the last one that are marked or named: cut them off the log and the names, durably, before rows may
 * be written there. */
int npk__marks_cut(npk_marks *m);
/* Before rows from `rows` on are cut off the file: the state goes on with those that stay. Durable. */
int npk__marks_shrink(npk_marks *m, uint64_t rows);
/* An append that died may have left a name for its rows: it goes unless they are there. */
int npk__marks_bury(int dir_fd, const char *leaf, int fd);
/* The state's file, to be changed and saved: loaded, or made with what there is. The caller clears it. */
int npk__marks_states(npk_marks *m, npk_states *out);
/* P24: -EMLINK if the file has several names. */
int npk__marks_single_name(const npk_marks *m);
/* Save the states' file, or remove it if it has nothing to say any more. */
int npk__marks_keep(npk_marks *m, npk_states *s);
/* Save it for this file alone, with the fingerprint as it is now if `rebind`. Durable. */
int npk__marks_save(npk_marks *m, npk_states *s, bool rebind);

/* A new data file takes the place of the old one (P6). `begin`, once the new file is written: the state's file speaks
 * of both. `end`, after the rename or its failure: of the one that has the name. With NPK_MARKS_LIVE the new file has the live
 * rows alone: it has no log, and names mean the same rows in it; with NPK_MARKS_SAME_BYTES, too, their bytes are those that
 * m->fd shows. Durable. Nothing happens where there is no state. */
enum { NPK_MARKS_LIVE = 1, NPK_MARKS_SAME_BYTES = 2 };
typedef struct npk_marks_swap {
    npk_states both; /* count 0: there is no state */
    bool live;
} npk_marks_swap;
int npk__marks_swap_begin(npk_marks *m, int new_fd, unsigned how, npk_marks_swap *out);
int npk__marks_swap_end(npk_marks *m, npk_marks_swap *swap);

/* Has an array that is bound by one of these states another name in the directory than the file of the state? Looks through
 * the whole directory. */
bool npk__marks_owner(int dir_fd, const npk_states *s, char leaf[256]);

/* Before the data file loses its name for good (a new file takes it, or it is removed): from now on the state speaks of
 * this inode alone, so that no later file of the name is taken for it. 1: there is a state, to be ended after. */
int npk__marks_leave(int dir_fd, const char *leaf, int fd);
/* After: remove the state that was bound to this inode. */
void npk__marks_ended(int dir_fd, const char *leaf, const npk_stamp *stamp);
/* The array gets another name, perhaps in another directory: before, its state is made under that name, too; after, the
 * one under the name that it has not (any more) goes. */
int npk__marks_copy(int dir_fd, const char *leaf, int fd, int to_dir, const char *to_leaf);
void npk__marks_drop_at(int dir_fd, const char *leaf, const npk_stamp *stamp);
/* The data was synced and nobody writes: bind the state to the file as it is now. */
int npk__marks_rebind(int dir_fd, const char *leaf, int fd);
/* Make the log durable. */
int npk__marks_sync(int dir_fd, const char *leaf, int fd);

#endif
