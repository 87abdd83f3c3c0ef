/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire.h - the few things of the FUSE protocol that differ between libfuse 3.14 and 3.17: how passthrough is negotiated
 * at INIT, and how an open is answered with a backing id. Nothing else in fs/ asks for the library's version.
 */
#ifndef FS_WIRE_H
#define FS_WIRE_H

#include "state.h"

/* Between fuse_session_mount and the loop. 0 or -errno. */
int wire_attach(fs_state *fs);
/* In the init operation: ask for the capabilities that this filesystem uses. */
void wire_init(fs_state *fs, struct fuse_conn_info *conn);
/* After INIT was answered: what the kernel agreed to. Decides fs->mode, fs->mode_reason, fs->direct_mmap. */
void wire_decide_mode(fs_state *fs);

/* Requests that the library may not know (libfuse 3.14 lacks FUSE_TMPFILE): handled here from their bytes. True: done. */
bool wire_intercept(fs_state *fs, const struct fuse_buf *buf);

/* Hand an open file (read-only descriptor) to the kernel. The id (> 0), or -errno: -EPERM without CAP_SYS_ADMIN, -ELOOP
 * when the file's own filesystem is stacked too deep. The descriptor may be closed afterwards. */
int wire_backing_open(fs_state *fs, int fd);
void wire_backing_close(fs_state *fs, int id);

/* Exactly one reply each. backing_id 0: the daemon serves this open. */
int wire_reply_open(fuse_req_t req, struct fuse_file_info *fi, unsigned open_flags, int backing_id);
int wire_reply_create(fuse_req_t req, const struct fuse_entry_param *e, struct fuse_file_info *fi, unsigned open_flags,
                      int backing_id);

#endif
