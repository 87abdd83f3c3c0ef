/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io.h - the seam: every system call on a file of a store goes through here.
 *
 * Each function returns the call's value or a negative errno, and starts again after EINTR. Calls that change
 * something ("mutating", marked M) are numbered from 1 in the order in which the process makes them, so that a fault
 * plan in the environment variable NPK_IO_PLAN can stop the process before, inside or instead of any of them:
 *
 *     kill:17            SIGKILL before the 17th mutating call
 *     kill-torn:17       the 17th does half of its bytes (if it has bytes), then SIGKILL
 *     kill-sector:17     as kill-torn, but a pwrite is cut where a sector (512 bytes) of the file ends, if one does inside
 *     fail:17:ENOSPC     the 17th fails; "fail:17+:ENOSPC": it and all after it
 *     short:17           the 17th does half of its bytes and reports so
 *     delay:pwrite:20    every pwrite waits 20 ms first
 *     count:/path        append a line "number name bytes" per mutating call to the file
 *     record:/path       write down what each of them changes (io_record.h)
 *     identity:/path     files pass for those that were recorded
 *     boot:3             npk__boot_id() is another one: as after power loss
 *
 * Several items are separated by commas. Without a plan the seam costs one predicted branch.
 */
#ifndef NPK_IO_H
#define NPK_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct statx; /* <sys/stat.h> with _GNU_SOURCE */

/* ---- opening --------------------------------------------------------------------------------------------------- */
int npk__openat(int dir_fd, const char *path, int flags, mode_t mode); /* O_CLOEXEC is added; M with O_CREAT, O_TRUNC */
int npk__openat2(int dir_fd, const char *path, int flags, mode_t mode, uint64_t resolve); /* -ENOSYS: no such call */
/* A new description of the file that fd is, through /proc/self/fd: other flags, no name needed. */
int npk__reopen(int fd, int flags);
int npk__dup(int fd);     /* close-on-exec */
void npk__close(int *fd); /* closes unless -1, sets -1; errno is kept */

/* ---- data ------------------------------------------------------------------------------------------------------ */
ssize_t npk__pread(int fd, void *buf, size_t bytes, uint64_t offset);
/* Reads until `bytes` are there or the file ends; the number of bytes read. */
ssize_t npk__pread_full(int fd, void *buf, size_t bytes, uint64_t offset);
ssize_t npk__pwrite(int fd, const void *buf, size_t bytes, uint64_t offset);  /* M */
int npk__pwrite_full(int fd, const void *buf, size_t bytes, uint64_t offset); /* M; 0 or error; short writes go on */
ssize_t npk__write(int fd, const void *buf, size_t bytes);                    /* M; for O_APPEND descriptors */
/* Writes all of it; *done (may be NULL) tells how much was written also on failure. */
int npk__write_full(int fd, const void *buf, size_t bytes, size_t *done);                             /* M */
ssize_t npk__copy_file_range(int in, uint64_t in_offset, int out, uint64_t out_offset, size_t bytes); /* M */
/* Copies `bytes`, by copy_file_range where it works and by a buffer elsewhere. -EIO: the source ended early. */
int npk__copy_full(int in, uint64_t in_offset, int out, uint64_t out_offset, uint64_t bytes); /* M */
int npk__ftruncate(int fd, uint64_t bytes);                                                   /* M */
int npk__fallocate(int fd, int mode, uint64_t offset, uint64_t bytes);                        /* M */
/* Begin to write the file to the disk, without waiting and without a promise. */
void npk__writeback(int fd);
int npk__fsync(int fd);                                                                       /* M */
int npk__fdatasync(int fd);                                                                   /* M */
int npk__syncfs(int fd);                                                                      /* M */
int npk__msync(void *at, size_t bytes, int flags);                                            /* M */
int npk__mmap(void **out, size_t bytes, int prot, int flags, int fd, uint64_t offset);

/* ---- names ----------------------------------------------------------------------------------------------------- */
int npk__fstat(int fd, struct stat *out);
int npk__fstatat(int dir_fd, const char *path, struct stat *out); /* does not follow a symbolic link */
/* The time of the last change, in ns since the epoch. */
static inline int64_t npk__mtime_ns(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}
/* Inode, birth time (ns since the epoch, 0 where the filesystem has none) and the rest of a descriptor's attributes. */
int npk__statx_fd(int fd, struct statx *out);
int npk__mkdirat(int dir_fd, const char *path, mode_t mode);                                              /* M */
int npk__unlinkat(int dir_fd, const char *path, int flags);                                               /* M */
int npk__renameat2(int old_dir, const char *old_path, int new_dir, const char *new_path, unsigned flags); /* M */
int npk__symlinkat(const char *target, int dir_fd, const char *path);                                     /* M */
ssize_t npk__readlinkat(int dir_fd, const char *path, char *out, size_t bytes);
int npk__linkat(int old_dir, const char *old_path, int new_dir, const char *new_path, int flags);         /* M */

/* ---- attributes ------------------------------------------------------------------------------------------------ */
int npk__fchmod(int fd, mode_t mode);                      /* M */
int npk__fchown(int fd, uid_t uid, gid_t gid);             /* M */
int npk__futimens(int fd, const struct timespec times[2]); /* M */
ssize_t npk__flistxattr(int fd, char *list, size_t bytes);
ssize_t npk__fgetxattr(int fd, const char *name, void *value, size_t bytes);
int npk__fsetxattr(int fd, const char *name, const void *value, size_t bytes); /* M */

/* changes: does the request change the file (M)? */
int npk__ioctl(int fd, unsigned long request, void *arg, bool changes);

/* ---- locks ----------------------------------------------------------------------------------------------------- */
/* F_OFD_SETLK of [start, start + bytes) (0: to the end): type is F_RDLCK, F_WRLCK or F_UNLCK. -EAGAIN: held. */
int npk__ofd_lock(int fd, int type, uint64_t start, uint64_t bytes);

/* For tests: replace the plan (NULL: none) and start counting again. -EINVAL: not a plan. Not while calls are made. */
int npk__io_plan_set(const char *plan);
/* Mutating calls counted so far; 0 without a plan. */
uint64_t npk__io_plan_count(void);
/* Is there a plan? Who stores through a mapping makes calls instead then, so that they can be stopped. */
bool npk__io_planned(void);

/* Tells this boot of the system from every other one; zeros where the system does not say. */
void npk__boot_id(uint8_t out[16]);

#endif
