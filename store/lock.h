/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock.h - locks between threads and processes (P11, P12): bytes of `.npkfs/lock` in the array's own directory.
 *
 *     byte 0            namespace of the store (the root's file)
 *     byte 1            journal (the root's file)
 *     byte 2            dirty table of the directory: a leaf, nothing is locked after it
 *     2^32 + (hash of the file name mod 2^40)   an array
 *
 * Order: namespace, journal, arrays by (directory inode, slot) ascending, dirty table. Two names with one hash share a
 * slot: an operation that locks several arrays skips a slot that it has.
 *
 * Threads of a process wait for each other at a gate keyed by (lock file, slot), processes by an open file description
 * lock. Descriptions are kept per directory for reuse: that is sound because the gate lets one user (or only readers)
 * to a slot at a time, and because a forked child closes what it inherited before it can do anything else, so neither
 * is it granted its parent's lock nor does it keep it beyond the parent's death.
 */
#ifndef NPK_LOCK_H
#define NPK_LOCK_H

#include <stdbool.h>
#include <stdint.h>

typedef struct npk_lock {
    int fd; /* the lock file's, owned by the lock module; -1: nothing is locked */
    void *gate;
    uint64_t slot;
} npk_lock;

#define NPK_LOCK_NONE ((npk_lock){.fd = -1})

enum npk_lock_how {
    NPK_LOCK_EXCLUSIVE = 1, /* else shared with other shared holders */
    NPK_LOCK_TRY = 2,       /* -EAGAIN at once instead of waiting up to 30 s (then -EBUSY) */
    NPK_LOCK_EXISTING = 4,  /* never make the lock file: -ENOENT without a sentence instead */
};

enum npk_lock_slot { NPK_SLOT_NAMESPACE = 0, NPK_SLOT_JOURNAL = 1, NPK_SLOT_DIRTY = 2 };

/* Lock the array `leaf` (a file name with its suffix, existing or not) of the directory. An exclusive lock makes the
 * lock file if need be: -EACCES, -EPERM, -EROFS with a sentence where that is impossible. A shared lock never makes it:
 * where it is absent nobody holds the slot and 0 is returned with out->fd -1.
 * Not recursive: a thread that locks a slot it holds waits for itself until the limit. */
int npk__lock_array(int dir_fd, const char *leaf, unsigned how, npk_lock *out);
int npk__lock_slot(int dir_fd, uint64_t slot, unsigned how, npk_lock *out);
/* The slot of an array's name, to put several in order. */
uint64_t npk__lock_slot_of(const char *leaf);
/* Fine on NPK_LOCK_NONE and twice. In a forked child it only forgets: the lock is the parent's. */
void npk__unlock(npk_lock *l);

/* The dirty table's open description is kept with the lock file's, since most operations need both. It is valid as long
 * as the lock file has its name, that is, at least while a lock of the directory is held. */
typedef struct npk_kept {
    void *file;
    int fd; /* the kept description, borrowed; -1: none yet */
} npk_kept;
#define NPK_KEPT_NONE ((npk_kept){.fd = -1})
/* By the directory; without anything kept for it both members say so. Then npk__kept_return(). */
void npk__kept_borrow(int dir_fd, npk_kept *out);
void npk__kept_return(npk_kept *k);
/* The same for a lock that is held; nothing to return. */
npk_kept npk__kept_of(const npk_lock *l);
/* Hand over a description to be kept; k->fd is the one to use from now on. False: nowhere to keep it, still yours. */
bool npk__kept_give(npk_kept *k, int fd);
/* What is kept turned out to be useless (k->fd): the next user shall open anew. */
void npk__kept_disown(npk_kept *k);

/* Close the descriptions kept for reuse (npk_store_close, before a directory goes). Never disturbs held locks. */
void npk__locks_drop_idle(void);
/* For tests: how long a lock waits, in ms. */
extern unsigned npk__lock_wait_ms;

#endif
