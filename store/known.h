/* SPDX-License-Identifier: Apache-2.0 */
/*
 * known.h - which rows of an open data file are deleted: state, identity and log brought together, and kept.
 *
 * A process keeps what it has read of a log, by the data file's inode, so that another look costs one call that says
 * whether the log has grown (P9). What is handed out is a reference to a bitmap that never changes.
 */
#ifndef NPK_KNOWN_H
#define NPK_KNOWN_H

#include <stdbool.h>
#include <stdint.h>

#include "dellog.h"
#include "live.h"
#include "npk.h"
#include "settle.h"
#include "state.h"

/* What is known of one data file with a certain number of rows; NPK_KNOWN_NONE is what nothing is known of. */
typedef struct npk_known {
    npk_live *live;      /* a reference; NULL: no row is deleted */
    uint64_t rows;       /* physical, those that were clipped to */
    uint64_t deleted;    /* of them */
    uint64_t generation; /* 0: there is no state */
    bool beyond;         /* rows behind the last one are marked: a cut record comes before they may be written (P7) */
    bool alien;          /* there is a state's file under the array's name, and it is another array's */
    bool names_beyond;   /* a named range ends behind the last row: the same for the state's file */
    uint64_t names_stop; /* the greatest end of a named range */
    /* Where the state's files are, for whoever changes them: */
    bool stated;
    char stem[NPK__STEM_BYTES];
    uint64_t epoch;        /* 0: no log */
    npk_state_print print; /* of the state's file that says so; zero: written since */
    uint64_t log_end, log_size, log_changes;
} npk_known;

#define NPK_KNOWN_NONE ((npk_known){.live = NULL})

/* Of an open data file of the directory, whose facts are info and stamp. Takes no lock and writes nothing. -EUCLEAN: in
 * doubt; -EIO: its log is damaged; -ESTALE: the file has lost its name while we looked, open it by its name again (P6);
 * all with a sentence. A state of another array is as none. The result is released. */
int npk__known(int dir_fd, const char *leaf, int fd, const npk_info *info, const npk_stamp *stamp, npk_known *out);
void npk__known_release(npk_known *k);
/* Facts of an open file of the directory as they are shown (known may be NULL; else it is the caller's to release). */
int npk__shown_facts(int dir_fd, const char *leaf, int fd, npk_info *info, npk_known *known);
/* Rows that a file of this size has, counted or not. */
static inline uint64_t npk__whole_rows(const npk_header *h, uint64_t file_bytes)
{
    return file_bytes > h->data_offset ? (file_bytes - h->data_offset) / h->row_bytes : 0;
}
/* Clip to another number of rows. */
void npk__known_clip(npk_known *k, uint64_t rows);
/* Turn facts about the file into facts about what is shown. */
void npk__known_apply(const npk_known *k, npk_info *info);

/* The state file itself, by the array's name or its inode's link, and which of its states is this file's (P6).
 * 1: *at is its number and *how how sure that is; 0: there is none, or it is another array's (then states->count is not
 * 0, and *stem names it); negative: with a sentence. The caller clears states. */
int npk__state_find(int dir_fd, const char *leaf, int fd, const npk_info *info, const npk_stamp *stamp,
                    npk_states *states, char stem[NPK__STEM_BYTES], unsigned *at, int *how);
/* The state of this inode; without one, the last: that of the file which has the name. */
unsigned npk__state_pick(const npk_states *s, const npk_stamp *stamp);
/* Is there anything beside the file that may speak of it? Two calls that fail for a clean array. */
bool npk__state_there(int dir_fd, const char *leaf, uint64_t inode);
/* -EUCLEAN with the sentence that tells what to do. */
int npk__in_doubt(const char *leaf);

/* With the array's lock held: what has been changed just now is as good as known, so that the next look need not judge
 * the file again (it has been appended to, or written, by the engine), nor read the log. */
void npk__known_wrote(const npk_known *k, const npk_stamp *before, int fd);
void npk__known_logged(const npk_known *k, const npk_stamp *stamp, npk_live *live, uint64_t end, uint64_t changes);
/* Forget what is kept of a file. */
void npk__known_forget(const npk_stamp *stamp);
/* For tests, and before the process ends: forget everything. */
void npk__known_drop_all(void);

#endif
