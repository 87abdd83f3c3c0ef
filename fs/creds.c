/* SPDX-License-Identifier: Apache-2.0 */
/* creds.c - see creds.h. */
#include "creds.h"

#include <errno.h>
#include <grp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys.h"

#define GROUPS_MAX 256

fs_creds creds_become(fuse_req_t req)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    if (geteuid() != 0 || (ctx->uid == 0 && ctx->gid == 0))
        return (fs_creds){.changed = false};
    if (ctx->uid != 0) {
        /* Without its groups the caller could not create in a directory that one of them may write. */
        gid_t groups[GROUPS_MAX];
        int n = fuse_req_getgroups(req, GROUPS_MAX, groups);
        if (n < 0)
            n = 0;
        if (n > GROUPS_MAX)
            n = GROUPS_MAX;
        syscall(SYS_setgroups, (size_t)n, groups);
    }
    syscall(SYS_setfsgid, ctx->gid);
    if (ctx->uid != 0)
        syscall(SYS_setfsuid, ctx->uid);
    return (fs_creds){.changed = true};
}

void creds_restore(fs_creds c)
{
    if (!c.changed)
        return;
    int saved = errno;
    syscall(SYS_setfsuid, 0);
    syscall(SYS_setfsgid, 0);
    syscall(SYS_setgroups, (size_t)0, NULL);
    errno = saved;
}

static bool caller_in_group(fuse_req_t req, gid_t gid)
{
    gid_t groups[GROUPS_MAX];
    if (fuse_req_ctx(req)->gid == gid)
        return true;
    int n = fuse_req_getgroups(req, GROUPS_MAX, groups);
    for (int i = 0; i < n && i < GROUPS_MAX; i++)
        if (groups[i] == gid)
            return true;
    return false;
}

void creds_strip_setid(fuse_req_t req, int fd)
{
    struct stat st;
    if (fuse_req_ctx(req)->uid == 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !(st.st_mode & (S_ISUID | S_ISGID)))
        return;
    mode_t mode = st.st_mode & 07777 & ~(mode_t)S_ISUID;
    if ((mode & S_ISGID) && ((mode & S_IXGRP) || !caller_in_group(req, st.st_gid)))
        mode &= ~(mode_t)S_ISGID;
    if (mode != (st.st_mode & 07777))
        sys_chmod_fd(fd, mode);
}
