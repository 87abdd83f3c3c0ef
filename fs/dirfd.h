/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirfd.h - O_PATH descriptors of the directories used last, so that a name is one system call and not a walk from the
 * root. A fixed, small number: a directory that is merely known holds none. They stay right when a directory is moved,
 * since they name the inode and not the path. Protected by the node table's lock.
 */
#ifndef FS_DIRFD_H
#define FS_DIRFD_H

#include "node.h"

#define DIR_FDS_KEPT 32

struct fs_dir_fd {
    int fd;
    uint32_t users;     /* dir_fd_get minus dir_fd_put, plus one while kept */
    uint64_t used;      /* clock of the last use */
    fs_node *node;      /* while kept */
};

typedef struct fs_dir_fds {
    uint64_t clock;
    struct fs_dir_fd *kept[DIR_FDS_KEPT];
} fs_dir_fds;

void dir_fds_init(fs_dir_fds *d);
void dir_fds_clear(fs_dir_fds *d);
/* The node goes: let go of its descriptor. The lock is held. */
void dir_fds_forget(fs_dir_fds *d, fs_node *n);

#endif
