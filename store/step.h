/* SPDX-License-Identifier: Apache-2.0 */
/*
 * step.h - one step of a journal, done forwards by whoever commits and by whoever finishes for a dead process.
 */
#ifndef NPK_STEP_H
#define NPK_STEP_H

#include "journal.h"

typedef struct npk_stepping {
    npk_store *store;
    char batch[NPK__BATCH_ID + 1];
    int folder_fd, data_fd; /* of the batch; -1 */
    int *dirs;              /* descriptors of directories to be synced */
    size_t dir_count, dir_capacity;
} npk_stepping;

int npk__stepping_begin(npk_store *s, const char *batch, npk_stepping *out); /* batch "": none */
/* The array's lock is held. 0 also where the step was done before, or the file is neither what the step names before
 * nor after: then nothing is touched, and what was staged for it is set aside as `.npkfs/aside.*`. */
int npk__step_run(npk_stepping *w, const npk_step *step);
int npk__stepping_sync(npk_stepping *w); /* the directories in which names changed */
void npk__stepping_end(npk_stepping *w);

/* For a journal that was read: lock all its arrays (P11), run its steps, sync, unlock. */
int npk__steps_lock(npk_journal *j);
/* Remove a batch's folder and what is in it. Best effort: what stays is told by the check. */
void npk__batch_folder_remove(int root_fd, const char *id);

#endif
