/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops.h - the operations, by file: names, attributes, files, data, directories, xattrs, locks, controls. Each checks its
 * arguments, makes its calls, and replies exactly once.
 */
#ifndef FS_OPS_H
#define FS_OPS_H

#include "node.h"
#include "open.h"

static inline fs_state *fs_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static inline fs_handle *handle_of(const struct fuse_file_info *fi)
{
    return fi ? (fs_handle *)(uintptr_t)fi->fh : NULL;
}

/* ops_name.c */
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void op_readlink(fuse_req_t req, fuse_ino_t ino);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *new_name, unsigned flags);

/* ops_attr.c */
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void op_statfs(fuse_req_t req, fuse_ino_t ino);

/* ops_file.c */
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);

/* O_TMPFILE in a directory: a file without a name, open. 0 and what a CREATE reply holds, or -errno. */
int file_make_unnamed(fs_state *fs, fuse_ino_t dir, mode_t mode, uid_t uid, gid_t gid, struct fuse_file_info *fi,
                      struct fuse_entry_param *e, unsigned *open_flags, int *id);

/* ops_data.c */
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t in_at, struct fuse_file_info *in_fi, fuse_ino_t out,
                        off_t out_at, struct fuse_file_info *out_fi, size_t len, int flags);

/* ops_dir.c */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);

/* ops_xattr.c */
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* ops_lock.c */
void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock);
void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep);
void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);
int locks_start(fs_state *fs);
void locks_stop(fs_state *fs);
/* Has any process a POSIX lock on the node? Then every close must be told, since it drops its process's locks. */
bool locks_posix_held(fs_state *fs, const fs_node *n);
/* POSIX locks of an owner on a node end with any close of its; those of a handle, and its flock, with its release. */
void locks_drop_owner(fs_state *fs, fs_node *n, uint64_t owner);
void locks_drop_handle(fs_state *fs, fs_handle *h);

/* ops_control.c: the same operations for nodes under `.npk`; the files above hand over what is not NODE_STORE. */
bool is_control_name(const char *name);   /* ".npk" */
bool is_reserved_name(const char *name);  /* ".npk" or ".npkfs": refused for entries of the store */
void control_lookup(fuse_req_t req, fs_node *parent, const char *name);
int control_stat(fs_state *fs, fs_node *n, struct stat *st);
int control_setattr(fs_state *fs, fs_node *n, int to_set, off_t size);
void control_open(fuse_req_t req, fs_node *n, struct fuse_file_info *fi);
void control_read(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi);
void control_write(fuse_req_t req, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi);
void control_flush(fuse_req_t req, struct fuse_file_info *fi);
void control_release(fuse_req_t req, struct fuse_file_info *fi);
void control_opendir(fuse_req_t req, fs_node *n, struct fuse_file_info *fi);
void control_readdir(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi, bool plus);
void control_releasedir(fuse_req_t req, struct fuse_file_info *fi);

/* ops_folder.c: files of folders among the controls (folder.h). folder_stat fills in mode and size; `readable`: the read
 * bits of the array's mode. */
int folder_stat(fs_state *fs, fs_node *n, mode_t readable, struct stat *st);
int folder_resize(fs_state *fs, fs_node *n, uint64_t bytes);
void folder_open(fuse_req_t req, fs_node *n, struct fuse_file_info *fi);
void folder_create(fuse_req_t req, fs_node *parent, const char *name, struct fuse_file_info *fi);
void folder_read(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi);
void folder_write(fuse_req_t req, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi);
void folder_release(fuse_req_t req, struct fuse_file_info *fi);
void folder_unlink(fuse_req_t req, fs_node *parent, const char *name);

/* Shared by the above. */

/* statx of a name beneath an O_PATH directory, or of a descriptor with name "". -EXDEV: a mount point of another
 * filesystem, which is not crossed (PROTOCOLS P32). */
int store_statx(fs_state *fs, int dir, const char *name, struct statx *stx);
/* statx of a node: its open descriptor, else its name. -ESTALE: the name is another file now. */
int node_statx(fs_state *fs, fs_node *n, struct statx *stx);
/* A descriptor of a node for one operation, opened with flags (O_PATH for what may be a symlink or a directory). */
int node_fd(fs_state *fs, fs_node *n, int flags);
/* The directory of a store node and the leaf below it; dir_fd_put after use. */
int node_leaf(fs_state *fs, fs_node *n, fs_dir_fd **dir, char leaf[256]);
/* Reply to a lookup-like request with the node found under (parent, name). */
void reply_entry(fuse_req_t req, fs_node *parent, const char *name, const struct statx *stx, uint64_t generation);
void fill_entry(fs_state *fs, struct fuse_entry_param *e, fs_node *n, const struct statx *stx);
/* 0: a request may change the store below `parent` under `name`; else the errno to reply (EROFS, EPERM for reserved). */
int may_change(fs_state *fs, fs_node *parent, const char *name);

/* Before a name goes: what programs hold by it alone must go on. After: the node that had it, if any, which is unpinned,
 * and what is kept for it. */
void name_hold(fs_state *fs, fs_node *victim, int dir, const char *name);
void name_lost(fs_state *fs, fs_node *victim);
/* Make an array's header agree with its data (npk_settle); waits off the request loop. o->lock is not held. */
void settle(fs_state *fs, fs_open *o, unsigned flags);
/* Around letting go of an unlinked file (which may free the blocks of a large one): no lock is held and no request waits. */
fs_dir_fd *hold_blocks(fs_state *fs, fs_node *n);
void let_blocks_go(fs_state *fs, fs_dir_fd *kept);

#endif
