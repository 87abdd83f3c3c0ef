/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - what the parts of one mount share. */
#ifndef FS_STATE_H
#define FS_STATE_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "npk.h"
#include "options.h"
#include "session.h"

typedef enum fs_mode {
    FS_MODE_PASSTHROUGH, /* the kernel reads and writes the files itself */
    FS_MODE_DAEMON,      /* this process serves every byte */
} fs_mode;

/* Counters for `.npk/stats`; relaxed atomics, each only ever grows unless it is a level. */
typedef struct fs_stats {
    _Atomic uint64_t lookups, getattrs, opens, creates, reads, writes, read_bytes, written_bytes, flushes, renames, unlinks,
        rows_adopted, swaps, stale_answers, interrupts, invalidations, control_reads, control_writes;
    _Atomic uint64_t nodes_known, nodes_open, backing_ids, threads, locks_waiting; /* levels */
} fs_stats;

struct fs_state {
    const fs_options *options;
    npk_store *store;
    int root_fd;                /* O_PATH, owned by the store */
    struct fuse_session *session;
    fs_mode mode;               /* fixed after INIT */
    char mode_reason[160];      /* why this mode; fixed after INIT */
    bool read_only;
    bool upper;                 /* the store lies over a package (upper.h) */
    bool direct_mmap;           /* the kernel allows shared mappings of direct-I/O files */
    unsigned stack_depth;       /* max_stack_depth offered */
    const char *lease_reason;   /* phrase; leases_prove says whether a lease is proof here */
    bool leases_prove;
    char *source_path;          /* realpath of the source at mount time */
    char *mountpoint;
    time_t mounted_at;
    fs_stats stats;
    struct fs_searches *searches; /* queries and answers of `search/` (search_folder.c) */
    struct fs_controls *controls; /* sentences of the last failures (control.c) */
    struct fs_nodes *nodes;       /* node table (node.c) */
    struct fs_loop *loop;         /* request threads (loop.c) */
    struct fs_watch *watch;       /* inotify (watch.c), NULL when off */
    struct fs_notices *notices;   /* kernel invalidations in the making (notice.c) */
    _Atomic uint64_t names_moved; /* files that took a name without the kernel's knowing: a LOOKUP may have seen the old one */
    _Atomic unsigned names_moving; /* such changes under way: what a LOOKUP finds may lose its name at once */
    struct fs_saves *saves;       /* saves that are not seen yet (save.c), NULL without -o atomic_save */
    struct fs_keeper *keeper;     /* housekeeping (keeper.c) */
    struct fs_pkg *pkg;           /* the source is a package (pkg.h); NULL: a directory */
    _Atomic(struct fs_batches *) batches; /* batches known here (batch.c); NULL: none yet */
    struct fs_locks *locks;       /* flock and fcntl locks (lock ops) */
    struct fs_aheads *aheads;     /* views read in sequence (view_ahead.c) */
    _Atomic uint64_t changes;     /* of bytes that views may show: what was gathered before is outdated */
};

static inline void fs_changed(struct fs_state *fs)
{
    atomic_fetch_add_explicit(&fs->changes, 1, memory_order_release);
}

#endif
