/* SPDX-License-Identifier: Apache-2.0 */
/* node_table.h - the table's inside, shared by node.c, dirfd.c and open.c only. */
#ifndef FS_NODE_TABLE_H
#define FS_NODE_TABLE_H

#include <pthread.h>

#include "dirfd.h"
#include "node.h"

struct fs_nodes {
    pthread_mutex_t lock;       /* protects all below, and the marked fields of every node */
    fs_node *root;
    fs_node **nodes;            /* by identity; chains through fs_node.next */
    fs_name **names;            /* by (parent, text) */
    size_t node_slots, node_count, name_slots, name_count; /* slots: powers of two */
    uint64_t freed;             /* nodes freed since memory was last given back */
    uint32_t dev_major, dev_minor; /* the store's device; immutable */
    fs_node *dead;              /* out of the identity hash, but the kernel has not forgotten them yet */
    struct {
        pid_t pid;
        const fs_node *node;
        const fs_node *found;   /* by the LOOKUP that followed */
        int64_t at_s;           /* monotonic */
    } told[32];                 /* who was answered ESTALE and has not opened anything since; pid 0: a free place */
    unsigned told_next;
    _Atomic bool told_any;
    fs_node *strays;            /* only while the table is freed */
    fs_dir_fds dirs;
};

/* The lock is held: free the node if neither the kernel nor the daemon holds it any more. */
void node_release_if_unused(fs_state *fs, fs_node *n);

#endif
