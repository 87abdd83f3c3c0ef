/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops_xattr.c - extended attributes: user.npk.* are the array's properties, other user.* and trusted.* are the file's own.
 * security.* and system.* answer EOPNOTSUPP: programs that list directories ask for them once per file otherwise
 * (PROTOCOLS P33), and POSIX ACLs would promise checks that the mount does not make.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "loop.h"
#include "notice.h"
#include "ops.h"
#include "sys.h"

#define PROPERTY "user.npk."

static bool is_property(const char *name)
{
    return strncmp(name, PROPERTY, sizeof PROPERTY - 1) == 0;
}

static bool is_supported(const char *name)
{
    return strncmp(name, "user.", 5) == 0 || strncmp(name, "trusted.", 8) == 0;
}

/* "/proc/self/fd/N" of the node; the descriptor is the caller's to close. */
static int node_proc(fs_state *fs, fs_node *n, char path[48])
{
    int fd = node_fd(fs, n, O_PATH);
    if (fd >= 0)
        snprintf(path, 48, "/proc/self/fd/%d", fd);
    return fd;
}

static void reply_value(fuse_req_t req, const char *value, size_t bytes, size_t room)
{
    if (room == 0)
        fuse_reply_xattr(req, bytes);
    else if (bytes > room)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, value, bytes);
}

static void get_property(fuse_req_t req, fs_node *n, const char *name, size_t size)
{
    fs_state *fs = fs_of(req);
    loop_yield(fs);
    char *path = n->type == S_IFREG ? node_path(fs, n) : NULL;
    fs_text text = {0};
    int err = path ? fs_control_xattr_get(fs, path, name + sizeof PROPERTY - 1, &text) : -ENODATA;
    if (!err && text.failed)
        err = -ENOMEM;
    if (err)
        fuse_reply_err(req, -err);
    else
        reply_value(req, text.data, text.bytes, size);
    fs_text_clear(&text);
    free(path);
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    if (!is_supported(name)) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    if (n->kind != NODE_STORE) {
        fuse_reply_err(req, ENODATA);
        return;
    }
    if (is_property(name)) {
        get_property(req, n, name, size);
        return;
    }
    char path[48];
    int fd = node_proc(fs, n, path);
    char *value = fd >= 0 ? malloc(size ? size : 1) : NULL;
    ssize_t got = value ? getxattr(path, name, value, size) : -1;
    int err = fd < 0 ? -fd : !value ? ENOMEM : errno;
    if (fd >= 0)
        close(fd);
    if (got < 0)
        fuse_reply_err(req, err);
    else if (size == 0)
        fuse_reply_xattr(req, (size_t)got);
    else
        fuse_reply_buf(req, value, (size_t)got);
    free(value);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    int err = !is_supported(name) ? -EOPNOTSUPP : n->kind != NODE_STORE ? -EPERM : fs->read_only ? -EROFS : 0;
    if (!err && is_property(name)) {
        loop_yield(fs);
        char *path = n->type == S_IFREG ? node_path(fs, n) : NULL;
        err = path ? fs_control_xattr_set(fs, path, name + sizeof PROPERTY - 1, value, size) : -ENODATA;
        free(path);
        fs_node *dir;
        char leaf[256];
        if (!err && node_place(fs, n, &dir, leaf) == 0) {
            notice_array_changed(fs, dir, leaf);
            node_unpin(fs, dir);
        }
    } else if (!err) {
        int fd = node_fd(fs, n, O_PATH);
        err = fd < 0 ? fd : sys_setxattr_fd(fd, name, value, size, flags);
        if (fd >= 0)
            close(fd);
    }
    fuse_reply_err(req, -err);
}

/* Drop what getxattr would refuse; in place. Returns the bytes left. */
static size_t keep_supported(char *list, size_t bytes)
{
    size_t left = 0;
    for (size_t at = 0; at < bytes;) {
        size_t len = strnlen(list + at, bytes - at) + 1;
        if (at + len > bytes)
            break;
        if (is_supported(list + at)) {
            memmove(list + left, list + at, len);
            left += len;
        }
        at += len;
    }
    return left;
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    if (n->kind != NODE_STORE) {
        reply_value(req, "", 0, size);
        return;
    }
    char path[48];
    int fd = node_proc(fs, n, path);
    if (fd < 0) {
        fuse_reply_err(req, -fd);
        return;
    }
    size_t room = 64 << 10; /* XATTR_LIST_MAX */
    char *list = malloc(room);
    ssize_t got = list ? listxattr(path, list, room) : -1;
    int err = list ? errno : ENOMEM;
    close(fd);
    if (got < 0)
        fuse_reply_err(req, err);
    else
        reply_value(req, list, keep_supported(list, (size_t)got), size);
    free(list);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    int err = !is_supported(name) ? -EOPNOTSUPP : n->kind != NODE_STORE || is_property(name) ? -EPERM
              : fs->read_only   ? -EROFS
                                : 0;
    if (!err) {
        int fd = node_fd(fs, n, O_PATH);
        err = fd < 0 ? fd : sys_removexattr_fd(fd, name);
        if (fd >= 0)
            close(fd);
    }
    fuse_reply_err(req, -err);
}
