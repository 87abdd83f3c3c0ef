/* SPDX-License-Identifier: Apache-2.0 */
/* sys.c - see sys.h. */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "npk.h"

/* Gate, call, errno: the same three steps for every call here. */
#define GATED(type, what, bytes, call)                 \
    do {                                               \
        int refused_ = npk_io_gate(what, bytes);       \
        if (refused_)                                  \
            return refused_;                           \
        type result_;                                  \
        do                                             \
            result_ = (call);                          \
        while (result_ < 0 && errno == EINTR);         \
        return result_ < 0 ? (type)-errno : result_;   \
    } while (0)

static void proc_path(char out[48], int fd)
{
    snprintf(out, 48, "/proc/self/fd/%d", fd);
}

int sys_mkdirat(int dir, const char *name, mode_t mode)
{
    GATED(int, "mkdirat", 0, mkdirat(dir, name, mode));
}

int sys_mknodat(int dir, const char *name, mode_t mode, dev_t rdev)
{
    GATED(int, "mknodat", 0, mknodat(dir, name, mode, rdev));
}

int sys_symlinkat(const char *target, int dir, const char *name)
{
    GATED(int, "symlinkat", 0, symlinkat(target, dir, name));
}

int sys_linkat(int from, const char *name, int to, const char *new_name, int flags)
{
    GATED(int, "linkat", 0, linkat(from, name, to, new_name, flags));
}

int sys_unlinkat(int dir, const char *name, int flags)
{
    GATED(int, "unlinkat", 0, unlinkat(dir, name, flags));
}

int sys_renameat2(int from, const char *name, int to, const char *new_name, unsigned flags)
{
    GATED(int, "renameat2", 0, (int)syscall(SYS_renameat2, from, name, to, new_name, flags));
}

int sys_openat(int dir, const char *name, int flags, mode_t mode)
{
    if (!(flags & (O_CREAT | O_TRUNC))) {
        int fd = openat(dir, name, flags | O_CLOEXEC, mode);
        return fd < 0 ? -errno : fd;
    }
    GATED(int, "openat", 0, openat(dir, name, flags | O_CLOEXEC, mode));
}

int sys_fchownat(int dir, const char *name, uid_t uid, gid_t gid)
{
    GATED(int, "fchownat", 0, fchownat(dir, name, uid, gid, AT_SYMLINK_NOFOLLOW));
}

int sys_fchown(int fd, uid_t uid, gid_t gid)
{
    GATED(int, "fchown", 0, fchown(fd, uid, gid));
}

int sys_chmod_fd(int fd, mode_t mode)
{
    char path[48];
    proc_path(path, fd);
    GATED(int, "chmod", 0, chmod(path, mode));
}

int sys_utimensat(int dir, const char *name, const struct timespec ts[2])
{
    GATED(int, "utimensat", 0, utimensat(dir, name, ts, AT_SYMLINK_NOFOLLOW));
}

int sys_futimens(int fd, const struct timespec ts[2])
{
    GATED(int, "futimens", 0, futimens(fd, ts));
}

int sys_ftruncate(int fd, off_t size)
{
    GATED(int, "ftruncate", 0, ftruncate(fd, size));
}

int sys_fallocate(int fd, int mode, off_t offset, off_t length)
{
    GATED(int, "fallocate", 0, fallocate(fd, mode, offset, length));
}

int sys_fsync(int fd, int data_only)
{
    GATED(int, "fsync", 0, data_only ? fdatasync(fd) : fsync(fd));
}

ssize_t sys_pwrite(int fd, const void *buf, size_t bytes, off_t offset)
{
    GATED(ssize_t, "pwrite", bytes, pwrite(fd, buf, bytes, offset));
}

ssize_t sys_append(int fd, const void *buf, size_t bytes)
{
    struct iovec iov = {.iov_base = (void *)buf, .iov_len = bytes};
    GATED(ssize_t, "append", bytes, pwritev2(fd, &iov, 1, 0, RWF_APPEND));
}

ssize_t sys_copy_range(int in, off_t in_at, int out, off_t out_at, size_t bytes, unsigned flags)
{
    off_t from = in_at, to = out_at;
    GATED(ssize_t, "copy_file_range", bytes, copy_file_range(in, &from, out, &to, bytes, flags));
}

int sys_setxattr_fd(int fd, const char *name, const void *value, size_t bytes, int flags)
{
    char path[48];
    proc_path(path, fd);
    GATED(int, "setxattr", bytes, setxattr(path, name, value, bytes, flags));
}

int sys_removexattr_fd(int fd, const char *name)
{
    char path[48];
    proc_path(path, fd);
    GATED(int, "removexattr", 0, removexattr(path, name));
}

int sys_reopen(int fd, int flags)
{
    char path[48];
    proc_path(path, fd);
    int again = open(path, flags | O_CLOEXEC);
    return again < 0 ? -errno : again;
}
