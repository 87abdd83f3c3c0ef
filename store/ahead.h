/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead.h - sessions begun ahead: a program that writes to one array of a directory after the other would wait for a sync
 * of the dirty table at each. From the fourth in a row on, the next arrays by name get their entries in the same sync.
 */
#ifndef NPK_AHEAD_H
#define NPK_AHEAD_H

#include "npk.h"

/* An entry for `path` (its leaf in the directory dir_fd) was just made. Best effort, no sentence. */
void npk__ahead_note(npk_store *s, const char *path, const char *leaf, int dir_fd);
/* The handle is closed: forget what was begun ahead (the entries stay, as after a crash). */
void npk__ahead_free(npk_store *s);

#endif
