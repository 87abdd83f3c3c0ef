/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk.h - visiting the entries of a directory tree in bounded memory.
 *
 * Children are visited before their directory is left. ".npk" and ".npkfs" are left out, symbolic links are not
 * followed, mounts are not crossed. A directory costs one buffer while the walk is inside it; descriptors of the
 * directories far above are closed meanwhile, so that depth does not eat the process's limit.
 */
#ifndef NPK_WALK_H
#define NPK_WALK_H

#include <stdbool.h>

typedef struct npk_walk_ops {
    /* An entry that is no directory: path beneath the root, leaf its last component, type DT_REG, DT_LNK, ... (never
     * DT_UNKNOWN). dir_fd is readable. Non-zero ends the walk. May be NULL. */
    int (*entry)(void *ctx, int dir_fd, const char *path, const char *leaf, unsigned char type);
    /* All of a directory has been visited (path "" for the root). May be NULL. */
    int (*leave)(void *ctx, int dir_fd, const char *path);
    /* A directory below cannot be opened or read; the sentence is set. 0 goes on without it. NULL: the walk ends. */
    int (*failed)(void *ctx, const char *path, int err);
} npk_walk_ops;

/* Walk the directory `group` ("" is the root) beneath root_fd. What a callback returned, or a negative errno. */
int npk__walk(int root_fd, const char *group, bool flat, const npk_walk_ops *ops, void *ctx);

/* Visit the names in one readable directory other than "." and ".."; type may be DT_UNKNOWN. */
typedef int npk_leaf_visit(void *ctx, const char *name, unsigned char type);
int npk__each_name(int dir_fd, npk_leaf_visit *visit, void *ctx);

#endif
