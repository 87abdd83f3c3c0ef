/* SPDX-License-Identifier: Apache-2.0 */
/*
 * creds.h - making things in the store as the caller: a new file belongs to whoever made it, and setgid directories and
 * quotas see the right identity. Per thread, by raw system calls (the C library's wrappers would change every thread).
 */
#ifndef FS_CREDS_H
#define FS_CREDS_H

#include "state.h"

typedef struct fs_creds { bool changed; } fs_creds;

/* Become the caller of req until creds_restore. A daemon that is not root stays itself. */
fs_creds creds_become(fuse_req_t req);
void creds_restore(fs_creds c); /* keeps errno */

/* The caller changed the content of a regular file: the set-id bits go, as natively (set-gid stays without group
 * execution for a member of the group). fd may be O_PATH. Root keeps them. */
void creds_strip_setid(fuse_req_t req, int fd);

#endif
