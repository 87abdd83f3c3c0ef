/* SPDX-License-Identifier: Apache-2.0 */
/*
 * settle.h - making an array's header agree with its data (P3, P4, the rule of growth).
 *
 * Whole rows beyond the header are counted if and only if the file has an entry in the dirty table that allows it and
 * the tail does not begin with the npy magic. Digits are written by npk__digits_plan(), one pwrite a step.
 */
#ifndef NPK_SETTLE_H
#define NPK_SETTLE_H

#include <stdbool.h>
#include <stdint.h>

#include "dirty.h"
#include "npk.h"

/* What settling would find, from a header and a size alone. *tail (may be NULL): bytes beyond the counted rows. */
npk_settle_state npk__settle_state(const npk_info *info);

/* As npk_settle with the array's lock held exclusively. fd: any readable descriptor of the file. An append that died
 * (its mark is set) is taken back first. state and info may be NULL; *info must be cleared by the caller. */
/* Finish a library append that died (its mark is set): take it back, or find that it is whole or was never begun. The
 * array's lock is held exclusively, so whoever set the mark is dead. */
int npk__settle_mark_locked(int dir_fd, const char *leaf, int fd);
int npk__settle_locked(npk_store *s, int dir_fd, const char *leaf, int fd, unsigned flags, npk_settle_state *state,
                       npk_info *info);

/* Bring the digits of shape[0] to `rows` through an O_RDWR descriptor of the array. h is what the file's header says
 * now, and is brought up to date. The data for rows must be there already when it grows, still there when it shrinks.
 * 1: no room, nothing written. -ESTALE: the header is not h any more. The array's lock is held. */
int npk__write_rows(int rw_fd, npk_header *h, uint64_t rows);

/* The dirty entry of an array under its lock, made if need be (npk_session_begin without the path).
 * 1: *out is the entry; 0: no finished row array, none made. */
/* The entry that a session of this file would begin with. 1: it is to be made; 0: it is there, or the file is no finished array. */
int npk__session_entry(int dir_fd, const char *leaf, int fd, npk_dirty *out);
int npk__session_begin_at(int dir_fd, const char *leaf, int fd, npk_dirty *out);

/* A descriptor opened with flags (O_RDWR, ...) of the file that fd is: by the name dir/leaf if it still has it, through
 * /proc elsewhere. Never waits for a lease holder: -EAGAIN. No sentence. */
int npk__open_same(int dir_fd, const char *leaf, int fd, int flags);
/* The same O_RDWR, waiting while somebody holds a lease (they give up at once); -EAGAIN only with NPK_SETTLE_TRY in
 * flags, else -EBUSY. With a sentence. */
int npk__open_writable(int dir_fd, const char *leaf, int fd, unsigned flags);

/* Facts as npk_fd_stat, with the file's identity in the same breath (id may be NULL). */
int npk__fd_facts(int fd, npk_info *out, npk_file_id *id);
/* What tells a file, and this state of it, from others. */
typedef struct npk_stamp {
    uint64_t dev;
    npk_file_id id;
    uint64_t size;
    int64_t mtime_ns;
    uint32_t links;
} npk_stamp;
/* The facts with the file's stamp. */
int npk__fd_look(int fd, npk_info *out, npk_stamp *stamp);
int npk__fd_stamp(int fd, npk_stamp *out);

#endif
