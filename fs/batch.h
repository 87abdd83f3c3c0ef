/* SPDX-License-Identifier: Apache-2.0 */
/*
 * batch.h - batches as directories: `.npk/batch/ID/` is the store as the batch has it.
 *
 * mkdir begins a batch, which lives as long as the mount does; one that was begun by others is found by its name. Arrays
 * and directories below show what the batch has made of them; files that are no arrays are not shown. `.npk/state` in it
 * tells what the batch has changed and takes `commit` and `abort`; rmdir of ID aborts, too.
 *
 * Files here are served by the daemon with direct I/O: a new one is a file of the batch, an existing one is the store's
 * with the batch's rows over it (PROTOCOLS P31).
 */
#ifndef FS_BATCH_H
#define FS_BATCH_H

#include <pthread.h>

#include "node.h"

typedef struct fs_batch {
    struct fs_batch *next;
    char id[256];
    uint32_t users;         /* protected by the lock of all batches, as is next */
    pthread_rwlock_t lock;  /* operations share it; the end takes it alone */
    npk_batch *batch;       /* NULL: committed or aborted */
    bool begun_here;
    _Atomic uint32_t writers; /* handles that write in it */
    char **dirs;            /* made in it; protected by `lock` taken alone */
    size_t dir_count;
} fs_batch;

/* The batch of this name, shared-locked and counted: 0, -ENOENT. fs_batch_put afterwards. */
int fs_batch_get(fs_state *fs, const char *id, fs_batch **out);
void fs_batch_put(fs_state *fs, fs_batch *b);
/* Before the name is looked up: a batch whose process has died is none any more. */
void fs_batch_expire(fs_state *fs, const char *id);
int fs_batch_begin(fs_state *fs, const char *id);
/* commit or abort; the kernel is told what changed outside. Not on the leading thread. */
int fs_batch_end(fs_state *fs, const char *id, bool commit);
/* Is there a directory of this path in the batch? It is locked. */
bool fs_batch_has_dir(fs_state *fs, fs_batch *b, const char *path);
int fs_batch_make_dir(fs_state *fs, const char *id, const char *path);
int fs_batch_remove_dir(fs_state *fs, const char *id, const char *path);
/* At the end of the mount: batches that were begun here are aborted. */
void fs_batches_free(fs_state *fs);
/* `.npk/batch/ID/.npk/state`; its path is the batch's name. */
extern const fs_control fs_batch_state;

/* ---- batch_ops.c, batch_dir.c: operations */

/* Put those of batches before the ones in ops, to which everything goes that is no node of a batch. Once. */
void fs_batch_route(struct fuse_lowlevel_ops *ops);
void fs_batch_route_dirs(struct fuse_lowlevel_ops *ops);
/* The batch that a node below `.npk/batch/ID` is in, and its path there. */
int fs_batch_place(fs_state *fs, fs_node *n, char id[256], char path[4096]);

#endif
