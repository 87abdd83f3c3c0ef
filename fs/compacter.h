/* SPDX-License-Identifier: Apache-2.0 */
/* compacter.h - compactions under way, and the thread that does those which a policy asks for, with low priority. */
#ifndef FS_COMPACTER_H
#define FS_COMPACTER_H

#include "control.h"

/* Compact an array now; progress can be read meanwhile. 0, or -errno with its sentence in *why, valid until the thread's
 * next call of the engine. `force`: the caller knows that no program writes to it, where leases cannot tell; programs that
 * write through this mount are still EBUSY. */
int compacter_run(fs_state *fs, const char *path, bool force, const char **why);
/* Is one by force under way? What is opened for writing meanwhile would write to the file that goes. */
bool compacter_forces(const char *path);
/* How far has one of this array come? False: none is under way. */
bool compacter_progress(const char *path, uint64_t *done, uint64_t *all);
/* Its rows or its policy have changed: if it is due, it is compacted in the background as soon as nobody writes it. */
void compacter_consider(fs_state *fs, const char *path);
/* The same for rows that somebody else may have deleted: returns at once, the thread looks. */
void compacter_noticed(fs_state *fs, const char *path);
/* Ends the thread; what it was at is given up, and nothing has changed. */
void compacter_stop(void);

#endif
