/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirty.h - the table of arrays being written, `.npkfs/dirty` (P4).
 *
 * An entry says: this inode was a finished array when a session of writing began, so growth is rows and a header that
 * promises more than there is may be cut. It is found by inode and birth time, whatever the file is called by now.
 *
 * The file is an open-addressed hash table that only grows by whole levels, so that an entry never moves and can be
 * read without a lock: page 0 is the header, then level k holds 8^k buckets of one page, each 8 slots of 512 bytes. An
 * inode has one bucket per level; a new entry takes the first free slot from level 0 on. Every slot carries a checksum,
 * so a torn or foreign one counts as free and never as an entry.
 *
 * The same slot holds the append mark of npk_append: the size before and the bytes of an append under way, with a
 * checksum of its own. It is written by the holder of the array's exclusive lock, without the table's lock; whoever
 * removes an entry holds both.
 */
#ifndef NPK_DIRTY_H
#define NPK_DIRTY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lock.h"

typedef struct npk_file_id { /* what makes a file the same file (P10) */
    uint64_t inode;
    uint64_t birth_ns; /* 0 where the filesystem has none */
} npk_file_id;

#define NPK__MARK_HEAD 64

typedef struct npk_dirty {
    npk_file_id id;
    uint64_t rows_known; /* rows counted when the entry was made */
    uint64_t data_offset, row_bytes;
    bool may_adopt;      /* whole rows beyond the header are the session's */
    char name[256];      /* file name of that time, for messages and recovery */
    bool marked;         /* an append by the library is or was under way: */
    uint64_t mark_size;  /*   the file's size before it */
    uint64_t mark_bytes; /*   bytes to be appended */
    uint32_t mark_head_bytes;
    uint8_t mark_head[NPK__MARK_HEAD]; /* the first of them, to tell them from another writer's */
    uint64_t slot_offset;              /* where the entry is in the table */
} npk_dirty;

int npk__file_id(int fd, npk_file_id *out);
struct statx;
npk_file_id npk__file_id_of(const struct statx *st);

/* 1: found, *out filled; 0: no entry (also without a table, or an unreadable one); negative errno. Never waits. */
int npk__dirty_find(int dir_fd, const npk_file_id *id, npk_dirty *out);
/* The same with a lock of the directory in hand: cheaper. */
int npk__dirty_find_locked(const npk_lock *l, int dir_fd, const npk_file_id *id, npk_dirty *out);
/* The same by the path of the file beneath root_fd: at most one open. */
int npk__dirty_find_at(int root_fd, const char *path, const npk_file_id *id, npk_dirty *out);
/* Make e->id's entry, or replace it, durably (fdatasync; the folder as well when the table is new). */
int npk__dirty_add(int dir_fd, const npk_dirty *e);
/* Several at once for the price of one sync. */
int npk__dirty_add_many(int dir_fd, const npk_dirty *entries, size_t count);
/* Rewrite an entry that was found (may_adopt, rows_known), no sync. The array's lock is held. */
int npk__dirty_update(int dir_fd, const npk_dirty *e);
/* Remove; 1: it was there, 0: not. durable: fdatasync the removal. The array's lock is held, or its file is gone. */
int npk__dirty_remove(int dir_fd, const npk_file_id *id, bool durable);
/* Visit the entries (a copy each). visit's non-zero result ends the walk and is returned. */
typedef int npk_dirty_visit(void *ctx, const npk_dirty *e);
int npk__dirty_each(int dir_fd, npk_dirty_visit *visit, void *ctx);

/* Append mark: set before the write, cleared after the digits. The array's lock is held; e was found under it.
 * head: the first bytes of the rows. On success e is brought up to date. No sync. */
int npk__dirty_mark(int dir_fd, npk_dirty *e, uint64_t size, uint64_t bytes, const void *head);
int npk__dirty_unmark(int dir_fd, npk_dirty *e);

/* An array moves to another directory: its entry is made in the new one, durably, before the rename; remove the old
 * one after it. Nothing happens without an entry. */
int npk__dirty_copy(int from_dir, int to_dir, int fd, const char *new_leaf);
/* fdatasync the table if there is one. */
int npk__dirty_sync(int dir_fd);

#endif
