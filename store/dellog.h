/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dellog.h - the deletion log, `.npkfs/<leaf>.<epoch>.del` (P7, P8, P9): FORMAT.md, "The deletion log".
 *
 * A log is a header and records that are only ever appended. Each record is whole or not there: it carries its length
 * and a checksum, and the first one that does not fit ends the log. What is read is a bitmap of shown rows and where
 * the next record goes. A reader that has read it once reads on from there.
 *
 * Everything up to npk__dellog_name() is pure: memory to memory, any thread.
 */
#ifndef NPK_DELLOG_H
#define NPK_DELLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "live.h"
#include "npk.h"

#define NPK__DELLOG_HEADER 128u
/* The log is rewritten beyond this, or twice the bitmap, whichever is more. */
#define NPK__DELLOG_REWRITE (64u << 10)

typedef enum npk_delrec {
    NPK_DELREC_DROP = 1,
    NPK_DELREC_RESTORE = 2,
    NPK_DELREC_CUT = 3,   /* rows from the record's count on are live: they were cut off */
    NPK_DELREC_BITMAP = 4 /* exactly these rows are deleted */
} npk_delrec;

typedef struct npk_dellog_head {
    uint64_t epoch; /* the generation that the log begins with */
    uint64_t row_bytes;
    uint64_t synced; /* bytes of the file that are known to be durable */
} npk_dellog_head;

/* What reading a log has found so far. Zero but for `live` and `end` (NPK__DELLOG_HEADER) it is a log without records.
 */
typedef struct npk_dellog_replay {
    npk_live *live;   /* ours alone */
    uint64_t end;     /* behind the last record that fits: where the next one goes */
    uint64_t changes; /* records other than bitmaps */
} npk_dellog_replay;

void npk__dellog_header_make(const npk_dellog_head *h, uint8_t out[NPK__DELLOG_HEADER]);
/* -EINVAL: no such header; -ENOTSUP: another version. */
int npk__dellog_header_parse(const uint8_t *bytes, size_t n, npk_dellog_head *out);

/* A record of physical rows: ascending ranges that neither touch nor overlap. `rows` is the array's row count, `at` the
 * offset of the file where it will stand. *out is malloc()ed. -ENOMEM. */
int npk__dellog_record_make(npk_delrec kind, const npk_range *ranges, size_t count, uint64_t rows, uint64_t epoch,
                            uint64_t at, uint8_t **out, size_t *bytes);
/* The same with the deleted rows below `rows` of a bitmap, as NPK_DELREC_BITMAP. */
int npk__dellog_bitmap_make(const npk_live *live, uint64_t rows, uint64_t epoch, uint64_t at, uint8_t **out,
                            size_t *bytes);
/* Read on: bytes[0..n) stand at r->end of the file. Stops at the first record that does not fit, with r brought up to
 * there. -ENOMEM: r is of no use any more. */
int npk__dellog_replay_bytes(const uint8_t *bytes, size_t n, uint64_t epoch, npk_dellog_replay *r);

/* ---- files ----------------------------------------------------------------------------------------------------- */

#define NPK__DELLOG_NAME 256
/* "<stem>.<epoch>.del" */
void npk__dellog_name(const char *stem, uint64_t epoch, char out[NPK__DELLOG_NAME]);

/* Read what is new in an open log: *size receives its length. -EIO with a sentence: a record that was synced does not
 * fit; -EINVAL, -ENOTSUP with a sentence: the header is not that of epoch. */
int npk__dellog_read(int fd, const char *name, uint64_t epoch, npk_dellog_replay *r, uint64_t *size);
/* Append a record that was made for r->end, in one write; what is behind r->end (a torn record, or one of this process
 * that failed) is cut off first. `size` is the file's length. The array's lock is held. On failure the log is what it
 * was. No sync. */
int npk__dellog_append(int fd, uint64_t size, const npk_dellog_replay *r, const uint8_t *record, size_t bytes);
/* Make what is in the log durable and note its length. */
int npk__dellog_sync(int fd, uint64_t end);
/* Make a new log in the sidecar folder: header and one bitmap record (none if nothing below `rows` is deleted), synced
 * (not the folder). A file of that name that a dead process left is replaced. r (may be NULL) is what reading it gives,
 * without `live`. */
int npk__dellog_create(int side_fd, const char *name, uint64_t epoch, uint64_t row_bytes, const npk_live *live,
                       uint64_t rows, npk_dellog_replay *r);

#endif
