/* SPDX-License-Identifier: Apache-2.0 */
/*
 * open.h - the state of a node that is open: its descriptors, the kernel's backing id, who reads and who writes.
 *
 * One per open node, shared by all its handles. After the last close it is kept for a moment (idle), so that a program
 * that opens and closes in a loop does not pay for registration each time; the keeper lets it go, as do unlink, a swap
 * and FORGET.
 *
 *   closed --open_acquire--> open --open_release, last handle--> idle --open_acquire--> open
 *                                                               idle --open_dispose--> closed
 *
 * Descriptors: `rfd` (read-only) always where the file may be read; `wfd` (writable) only while a program has the file open
 * for writing and the daemon serves its writes. Nothing writable is held for a file that no program holds open for
 * writing, or it would stand in the way of every lease (PROTOCOLS P1).
 */
#ifndef FS_OPEN_H
#define FS_OPEN_H

#include <pthread.h>

#include "node.h"

typedef struct fs_open {
    pthread_mutex_t lock;     /* protects all below but `node` and `idle_*` */
    fs_node *node;
    int rfd, wfd;             /* -1: none */
    int backing_id;           /* 0: none */
    bool no_backing;          /* the kernel refused this file once (ELOOP): the daemon serves it */
    bool array_name;          /* some name ended in .npy when it was opened */
    uint32_t readers, writers, creators, passthrough; /* handles: reading, writing, that made or emptied the file, handed over */
    uint64_t settled_bytes;   /* the file's size and time when its header was last found to agree; time <= 0: unknown */
    int64_t settled_mtime_us;
    bool no_room;             /* the header must be made longer once nobody writes */
    _Atomic uint64_t view_read; /* bytes of a view that were asked for since its last open by a reader */
    bool view_cached;         /* and whether that open had the page cache */
    struct fs_view *view;     /* what a node of a generation shows (view.h); NULL: none yet */
    struct fs_save *save;     /* a save that has not got its name yet (save.h); NULL: none */
    bool swapped;             /* another file has taken its name: this one lives on for those who have it */
    uint8_t *map;             /* daemon-served reads: the file, read-only; NULL: none */
    size_t map_bytes, map_touched; /* touched: pages from the start that were read once */
    uint32_t reading;         /* replies under way from a mapping: none is unmapped meanwhile */
    struct fs_map { uint8_t *at; size_t bytes; struct fs_map *next; } *retired; /* outgrown mappings, freed at the end */
    /* protected by the node table's lock */
    uint32_t users;           /* handles and operations at work */
    int64_t idle_since_ms;    /* when users fell to 0 */
    struct fs_open *idle_next, *idle_prev;
    bool idle_listed;
    struct fs_open *all_next, *all_prev; /* every open state of the mount */
    struct fs_handle *handles; /* protected by `lock` */
} fs_open;

typedef struct fs_handle {
    fs_node *node;
    fs_open *open;            /* NULL: control or directory */
    int flags;                /* of the open */
    bool reader, writer, creator, append, passthrough;
    bool has_flock, keep_pages, direct_io;
    struct fs_ahead *ahead;   /* a view that is read in sequence (view_ahead.h); NULL: not so far */
    struct fs_handle *next, *prev; /* of the same open state */
} fs_handle;

/* The node's open state, made if absent; the caller is one of its users. NULL: no memory. */
fs_open *open_acquire(fs_state *fs, fs_node *n);
/* Does a handle of any node of this file write? */
bool open_is_written(fs_state *fs, uint64_t st_ino);
/* The state if there is one with descriptors; the caller is one of its users. NULL: none. */
fs_open *open_borrow(fs_state *fs, fs_node *n);
void open_release(fs_state *fs, fs_open *o);
/* With the table's lock held: take an idle state off its node, for open_dispose outside the lock; NULL if it is in use. */
fs_open *open_detach_if_idle(fs_state *fs, fs_node *n);
void open_dispose(fs_state *fs, fs_open *o);
/* Let go of idle states: of one node, or all that have been idle for at least min_ms. Returns how many are still idle. */
void open_drop_idle(fs_state *fs, fs_node *n);
size_t open_drop_idle_older(fs_state *fs, int64_t min_ms);

/* At the end of the mount: free what programs that outlive it never closed (a lazy unmount leaves such). */
void open_free_all(fs_state *fs);

/* o->lock is held: a descriptor for changing the file, for one operation; *close_it tells whether the caller must close
 * it. -errno. */
int open_writable(fs_open *o, bool *close_it);

/* Lock o->lock from a request handler: without a wait if it is free, else off the request loop. */
void open_lock(fs_state *fs, fs_open *o);
/* o->lock is held: the mapping was outgrown while a reply reads it. */
void open_retire_map(fs_open *o);

int64_t fs_now_ms(void);

#endif
