/* SPDX-License-Identifier: Apache-2.0 */
/*
 * batch.h - a batch: changes of several arrays that nobody sees before they are committed (P16, P17).
 *
 * `.npkfs/batch/ID/` at the root of the store holds
 *     log   what the batch touched and changed, in order; each record bears a sum, so a torn one was never made
 *     data  bytes of rows that were replaced or appended, in the order of the changes
 *     fN    whole files
 * An array in the batch is its base (the file of the store, or fN, or nothing) with pieces of `data` laid over it. A
 * change appends to data, then one record to the log: it is whole or was not made, and any number of processes may
 * work in one batch, each record being read by the others before their next operation. Nothing is synced before the
 * commit.
 *
 * The holder of a lock on byte 1 of the log is the batch's opener. A batch that was not begun to be kept and whose
 * opener is gone has expired: it goes when the next one is begun.
 */
#ifndef NPK_BATCH_H
#define NPK_BATCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "journal.h"
#include "npk.h"
#include "path.h"

typedef struct npk_staged { /* an array that the batch has touched */
    char *path;
    npk_file_id before; /* inode 0: there was none */
    uint64_t before_size;
    int64_t before_mtime_ns;
    uint64_t before_generation;
    bool changed, gone;
    uint32_t file;     /* N of the base fN; 0: the file of the store */
    npk_piece *pieces; /* over the base, ascending, apart from each other */
    size_t piece_count;
    bool resized;  /* rows is not what the base's header says */
    uint64_t rows; /* then: the rows that it has in the batch */
} npk_staged;

struct npk_batch {
    npk_store *store; /* at whose root it is */
    bool own_store;
    char prefix[NPK__PATH_BYTES]; /* put before the caller's names, "" or ending in "/" */
    char id[NPK__BATCH_ID + 1];
    bool kept, opener;
    bool decided; /* the journal has it: it can only be finished */
    int64_t created_us;
    int folder_fd, log_fd, data_fd;
    pthread_mutex_t mutex; /* guards all below, and the lock on the log */
    uint64_t log_bytes;    /* read so far */
    uint64_t data_bytes;
    npk_staged *list;
    size_t count, capacity;
    uint32_t last_file;
};

/* ---- batch.c */

/* Lock the log against other threads and processes and read what they did. */
int npk__batch_enter(npk_batch *b);
void npk__batch_leave(npk_batch *b);
/* A record that others will read; the batch is entered. body_bytes is a multiple of 8. */
typedef enum npk_batch_record {
    NPK_BATCH_TOUCH = 1,
    NPK_BATCH_FILE,
    NPK_BATCH_PIECES,
    NPK_BATCH_GONE,
} npk_batch_record;
int npk__batch_log(npk_batch *b, npk_batch_record type, uint32_t entry, const void *body, size_t body_bytes,
                   const void *more, size_t more_bytes);

/* ---- batch_rows.c */

/* Enter the batch and touch the array of this name; npk__batch_leave afterwards. */
int npk__batch_touch(npk_batch *b, const char *name, size_t *entry);
/* The same, and what it is; then npk__batch_unlook. */
int npk__batch_look(npk_batch *b, const char *name, size_t *entry, npk_info *info, int *base);
void npk__batch_unlook(npk_batch *b, npk_info *info, int *base);

/* ---- stage.c: arrays in a batch that was entered */

/* The entry of a path, touched now if it was not before: *out is its index. -ENOTSUP: rows of it are deleted. */
int npk__stage_touch(npk_batch *b, const char *path, size_t *out);
/* The entry if there is one; else NULL. */
npk_staged *npk__stage_find(npk_batch *b, const char *path);
/* The base, opened for reading: -ENOENT (gone, or never there), -ESTALE (it is another file by now). */
int npk__stage_open_base(npk_batch *b, const npk_staged *e, int *out);
/* What the array is in the batch: facts of its base with the batch's rows. *base: opened as above. */
int npk__stage_look(npk_batch *b, const npk_staged *e, npk_info *info, int *base);
/* Bytes of the file as the batch has it; short at its end. info and base: of npk__stage_look. */
ssize_t npk__stage_read(npk_batch *b, const npk_staged *e, const npk_info *info, int base, uint64_t offset, void *out,
                        size_t bytes);
/* Lay `count` pieces over the entry, whose bytes follow each other at `bytes`; offsets are those of the file, `source`
 * is filled. rows: what the array has afterwards. */
int npk__stage_write(npk_batch *b, size_t entry, npk_piece *pieces, size_t count, const void *bytes, uint64_t rows);
/* A new empty file fN for the entry, open for writing; not yet its base: npk__stage_adopt makes it so. */
int npk__stage_file(npk_batch *b, const npk_staged *e, uint32_t *file, int *fd);
int npk__stage_adopt(npk_batch *b, size_t entry, uint32_t file);
/* The same for the file that it has: its pieces were written into it. */
int npk__stage_adopt_again(npk_batch *b, size_t entry);
int npk__stage_remove(npk_batch *b, size_t entry);
/* Make a whole file of the entry, of the rows whose bit is not set in `gone` (NULL: all), `rows` in number: a copy. For
 * what pieces cannot do: rows that go, more digits than the header has room for, a file of which rows are deleted. info
 * and base: of npk__stage_look. */
int npk__stage_whole(npk_batch *b, size_t entry, const npk_info *info, int base, const uint64_t *gone, uint64_t rows);
/* Apply a record that was read from the log. Pure but for memory: -EINVAL, -ENOMEM. */
int npk__stage_apply(npk_batch *b, npk_batch_record type, uint32_t entry, const uint8_t *body, size_t bytes);
/* Write the pieces of an entry whose base is fN into it, so that it is the array. */
int npk__stage_settle(npk_batch *b, const npk_staged *e);

#endif
