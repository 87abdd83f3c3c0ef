/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sys.h - system calls of the mount that change the store, each behind the engine's seam (npk_io_gate) so that tests can
 * fail it or kill the daemon at it. Results are 0 (or a count) or -errno; EINTR is retried.
 */
#ifndef FS_SYS_H
#define FS_SYS_H

#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

int sys_mkdirat(int dir, const char *name, mode_t mode);
int sys_mknodat(int dir, const char *name, mode_t mode, dev_t rdev);
int sys_symlinkat(const char *target, int dir, const char *name);
int sys_linkat(int from, const char *name, int to, const char *new_name, int flags);
int sys_unlinkat(int dir, const char *name, int flags);
int sys_renameat2(int from, const char *name, int to, const char *new_name, unsigned flags);
/* With O_CREAT or O_TRUNC a change, else a plain open. A descriptor or -errno. */
int sys_openat(int dir, const char *name, int flags, mode_t mode);
int sys_fchownat(int dir, const char *name, uid_t uid, gid_t gid);
int sys_fchown(int fd, uid_t uid, gid_t gid);
int sys_chmod_fd(int fd, mode_t mode);      /* fd may be O_PATH */
int sys_utimensat(int dir, const char *name, const struct timespec ts[2]);
int sys_futimens(int fd, const struct timespec ts[2]);
int sys_ftruncate(int fd, off_t size);
int sys_fallocate(int fd, int mode, off_t offset, off_t length);
int sys_fsync(int fd, int data_only);
ssize_t sys_pwrite(int fd, const void *buf, size_t bytes, off_t offset);
ssize_t sys_append(int fd, const void *buf, size_t bytes); /* placed by the kernel at the end (RWF_APPEND) */
ssize_t sys_copy_range(int in, off_t in_at, int out, off_t out_at, size_t bytes, unsigned flags);
int sys_setxattr_fd(int fd, const char *name, const void *value, size_t bytes, int flags); /* fd may be O_PATH */
int sys_removexattr_fd(int fd, const char *name);
/* Another descriptor of the same open file's inode. */
int sys_reopen(int fd, int flags);

#endif
