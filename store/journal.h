/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal.h - changes of several arrays that happen all or none: `.npkfs/journal` at the root of the store (P17).
 *
 * Who changes several arrays holds the journal's lock, then the locks of all of them, writes down what he will do, does
 * it, and clears the journal. A journal that is not empty while nobody holds its lock was left by a dead process, and
 * whoever comes first finishes it: forwards (the steps of a batch, whose data is on the disk already) or backwards
 * (appends, which are cut off again). Each step names the file before and after, so that doing it twice changes nothing
 * and a file that is neither is not touched.
 */
#ifndef NPK_JOURNAL_H
#define NPK_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dirty.h"
#include "lock.h"
#include "npk.h"

#define NPK__JOURNAL_FILE "journal"
#define NPK__BATCH_DIR    "batch"
#define NPK__BATCH_ID     64 /* bytes of a batch's name at most */

typedef enum npk_step_type {
    NPK_STEP_CUT = 1, /* appended rows are taken back: only while the journal says so */
    NPK_STEP_SWAP,    /* a staged file takes the name */
    NPK_STEP_REMOVE,
    NPK_STEP_WRITE, /* pieces of the batch's data file are written into the array, which may grow */
} npk_step_type;

typedef struct npk_piece { /* bytes of the data file that go to an offset of the array's file */
    uint64_t offset, bytes, source;
} npk_piece;

typedef struct npk_step {
    npk_step_type type;
    const char *path;          /* of the array, with its suffix */
    uint32_t staged;           /* SWAP: number of the staged file */
    npk_file_id before, after; /* inode 0: no file. WRITE, CUT: the same file before and after */
    uint64_t size, size_after; /* bytes of the file before and after; SWAP: of the staged file */
    uint64_t rows, rows_after; /* CUT, WRITE */
    uint64_t data_offset, row_bytes;
    const npk_piece *pieces; /* WRITE */
    uint64_t piece_count;
} npk_step;

typedef int npk_step_visit(void *ctx, const npk_step *step);

typedef enum npk_journal_kind { NPK_JOURNAL_BACK = 1, NPK_JOURNAL_FORTH = 2 } npk_journal_kind;

typedef struct npk_journal {
    npk_store *store;
    npk_lock lock;
    int fd;
    npk_journal_kind kind;
    char batch[NPK__BATCH_ID + 1]; /* FORTH: where the staged files are */
    uint8_t *body;
    size_t bytes, capacity, steps;
    bool failed; /* out of memory in npk__journal_add */
} npk_journal;

#define NPK_JOURNAL_NONE ((npk_journal){.fd = -1, .lock = {.fd = -1}})

/* Take the journal's lock (before those of arrays, P11) and finish what a dead process left. To be ended in any case.
 */
int npk__journal_begin(npk_store *s, npk_journal_kind kind, const char *batch, npk_journal *out);
void npk__journal_add(npk_journal *j, const npk_step *step);
/* Write it down; the locks of all its arrays are held. sync: it is on the disk afterwards. */
int npk__journal_write(npk_journal *j, bool sync);
/* Do the steps, in order, and sync what they changed if the journal goes forth. On failure the journal stays as it is,
 * so that the next change of one of its arrays goes on with it. */
int npk__journal_run(npk_journal *j);
/* Visit the steps in memory. */
int npk__journal_each(const npk_journal *j, npk_step_visit *visit, void *ctx);
/* All is done (or, backwards: nothing is to be taken back any more). */
int npk__journal_clear(npk_journal *j);
void npk__journal_end(npk_journal *j); /* fine on NPK_JOURNAL_NONE and twice */

enum npk_journal_wait {
    NPK_JOURNAL_TRY = 1,  /* -EAGAIN instead of waiting for a change under way */
    NPK_JOURNAL_LOOK = 2, /* change nothing: -EUCLEAN where something is to be finished */
};
/* Before the file of an array is opened (path NULL: any array): wait for a change of several arrays that names it, and
 * finish one whose process has died. No lock may be held. Two system calls where there is none. -EUCLEAN: it would have
 * to be finished, and the store cannot be written. */
int npk__journal_wait(npk_store *s, const char *path, unsigned flags);
/* Finish what a dead process left, and clear what says nothing. */
int npk__journal_finish(npk_store *s);
/* With the array's lock in hand: 0, or -EAGAIN if a dead process's journal names it (unlock, npk__journal_wait, again).
 */
int npk__journal_blocks(npk_store *s, const char *path);

/* Decode a journal's bytes (header and body): pure. visit gets each step, its paths pointing into a buffer of the
 * call's; its non-zero result ends the walk and is returned. -EINVAL: torn, or not a journal of this version;
 * kind and batch may be NULL. */
int npk__journal_decode(const void *bytes, size_t size, npk_journal_kind *kind, char batch[NPK__BATCH_ID + 1],
                        npk_step_visit *visit, void *ctx);

/* Is it a name that a batch may have: 1 to 64 letters, digits, '.', '_', '-', not beginning with '.'? */
bool npk__batch_id_is_valid(const char *id);
/* O_PATH descriptor of a batch's folder, -ENOENT; no sentence. And the name of its staged file. */
int npk__batch_folder(int root_fd, const char *id);
void npk__staged_name(uint32_t staged, char out[16]);

#endif
