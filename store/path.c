/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "path.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "npk.h"
#include "store.h"

/* ---- names ----------------------------------------------------------------------------------------------------- */

static bool is_component(const char *at, size_t n, const char *word)
{
    return n == strlen(word) && memcmp(at, word, n) == 0;
}

static int component_check(const char *path, const char *at, size_t n)
{
    if (n == 0)
        return npk__fail(-EINVAL, "\"%s\": empty component; a path is relative with single slashes, like train/x.npy",
                         path);
    if (is_component(at, n, ".") || is_component(at, n, ".."))
        return npk__fail(-EINVAL, "\"%s\": \".\" and \"..\" are not allowed; a path leads down from the store's root",
                         path);
    if (is_component(at, n, NPK__SIDECAR) || is_component(at, n, NPK__CONTROLS))
        return npk__fail(-EINVAL, "\"%s\": the name \"%.*s\" is reserved; choose another", path, (int)n, at);
    if (n > 255)
        return npk__fail(-ENAMETOOLONG, "\"%.64s...\": a component has %zu bytes; at most 255", path, n);
    return 0;
}

int npk__path_check(const char *path)
{
    if (*path == '\0')
        return npk__fail(-EINVAL, "\"\": empty name; a path is relative, like train/x.npy");
    size_t bytes = strlen(path);
    if (bytes >= NPK__PATH_BYTES)
        return npk__fail(-ENAMETOOLONG, "\"%.64s...\": %zu bytes; at most %d", path, bytes, NPK__PATH_BYTES - 1);
    for (const char *at = path;;) {
        const char *slash = strchrnul(at, '/');
        int err = component_check(path, at, (size_t)(slash - at));
        if (err)
            return err;
        if (*slash == '\0')
            return 0;
        at = slash + 1;
    }
}

static bool is_root(const char *path)
{
    return *path == '\0' || strcmp(path, ".") == 0;
}

int npk__dir_path_check(const char *path)
{
    return is_root(path) ? 0 : npk__path_check(path);
}

int npk__name_to_path(const char *name, char *out, size_t cap)
{
    int err = npk__path_check(name);
    if (err)
        return err;
    size_t n = strlen(name), suffix = strlen(NPK__SUFFIX);
    const char *slash = strrchr(name, '/');
    if (strlen(slash ? slash + 1 : name) + suffix > 255 || n + suffix >= cap)
        return npk__fail(-ENAMETOOLONG, "\"%.64s...\": too long with \".npy\"; a file name has at most 255 bytes",
                         name);
    memcpy(out, name, n);
    memcpy(out + n, NPK__SUFFIX, suffix + 1);
    return 0;
}

int npk__path_to_name(const char *path, char *out, size_t cap)
{
    size_t n = strlen(path), suffix = strlen(NPK__SUFFIX);
    if (n <= suffix || strcmp(path + n - suffix, NPK__SUFFIX) != 0 || path[n - suffix - 1] == '/')
        return -EINVAL;
    n -= suffix;
    if (n >= cap)
        return -ENAMETOOLONG;
    memmove(out, path, n);
    out[n] = '\0';
    return 0;
}

/* ---- resolution ------------------------------------------------------------------------------------------------ */

static int open_failed(int err, const char *path)
{
    switch (err) {
    case -ENOENT:
        return npk__fail(err, "\"%s\": no such file in the store", path);
    case -ELOOP:
        return npk__fail(err, "\"%s\": a symbolic link; name the file that it leads to", path);
    case -EXDEV:
        return npk__fail(err, "\"%s\": leads out of the store or across a mount; a store is one filesystem", path);
    default:
        return npk__fail_errno(err, path);
    }
}

/* Set once openat2 has said ENOSYS (Linux before 5.6, some sandboxes). */
static atomic_bool no_openat2;

/* The same resolution by hand. Stricter: it follows no symbolic link at all. */
static int walk_beneath(int root_fd, const char *path, int flags, mode_t mode)
{
    struct stat root, st;
    int err = npk__fstat(root_fd, &root);
    int dir = err ? err : npk__openat(root_fd, ".", O_PATH | O_DIRECTORY, 0);
    const char *at = path;
    for (const char *slash; dir >= 0 && (slash = strchr(at, '/')); at = slash + 1) {
        char part[256];
        size_t n = (size_t)(slash - at);
        if (n == 0 || n >= sizeof(part) || is_component(at, n, "..")) {
            npk__close(&dir);
            return -EXDEV;
        }
        memcpy(part, at, n);
        part[n] = '\0';
        int next = npk__openat(dir, part, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
        npk__close(&dir);
        dir = next;
        if (dir >= 0 && (npk__fstat(dir, &st) != 0 || st.st_dev != root.st_dev)) {
            npk__close(&dir);
            return -EXDEV;
        }
    }
    if (dir < 0)
        return dir;
    int fd = strcmp(at, "..") == 0 ? -EXDEV : npk__openat(dir, at, flags | O_NOFOLLOW, mode);
    npk__close(&dir);
    if (fd >= 0 && (npk__fstat(fd, &st) != 0 || st.st_dev != root.st_dev)) {
        npk__close(&fd);
        return -EXDEV;
    }
    return fd;
}

static int resolve(int dir_fd, const char *path, int flags, mode_t mode, uint64_t how)
{
    if (is_root(path))
        path = ".";
    if (!atomic_load_explicit(&no_openat2, memory_order_relaxed)) {
        int fd;
        /* EAGAIN: something was renamed on the way while the kernel followed a link with "..". */
        for (int tries = 0; tries < 16; tries++) {
            fd = npk__openat2(dir_fd, path, flags | O_NOFOLLOW, mode,
                              how | RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV);
            if (fd != -EAGAIN || (flags & O_NONBLOCK))
                break;
        }
        if (fd != -ENOSYS)
            return fd;
        atomic_store_explicit(&no_openat2, true, memory_order_relaxed);
    }
    return walk_beneath(dir_fd, path, flags, mode);
}

int npk__open_beneath(int root_fd, const char *path, int flags, mode_t mode)
{
    int fd = resolve(root_fd, path, flags, mode, 0);
    return fd < 0 ? open_failed(fd, path) : fd;
}

int npk_open_beneath(npk_store *s, const char *path, int flags, mode_t mode)
{
    int err = npk__dir_path_check(path);
    if (!err && s->package)
        err = npk__fail(-ENOTSUP, "\"%s\": a file of a package, which has no descriptor; npk_package_file_open opens it",
                        path);
    if (err)
        return err;
    int fd = resolve(s->root_fd, path, flags, mode, RESOLVE_NO_SYMLINKS);
    return fd < 0 ? open_failed(fd, path) : fd;
}

int npk__dir_of(int root_fd, const char *path, npk_dir *out, const char **leaf)
{
    const char *slash = strrchr(path, '/');
    if (!slash) {
        *leaf = path;
        *out = (npk_dir){.fd = root_fd, .opened = -1};
        return 0;
    }
    char dir[NPK__PATH_BYTES];
    size_t n = (size_t)(slash - path);
    if (n >= sizeof(dir))
        return npk__fail(-ENAMETOOLONG, "\"%.64s...\": at most %d bytes", path, NPK__PATH_BYTES - 1);
    memcpy(dir, path, n);
    dir[n] = '\0';
    /* The last component of the directory may be a link, too: "link/" makes it one on the way. */
    memcpy(dir + n, "/.", n + 2 < sizeof(dir) ? 3 : 0);
    int fd = npk__open_beneath(root_fd, dir, O_PATH | O_DIRECTORY, 0);
    if (fd == -ENOENT || fd == -ENOTDIR) {
        dir[n] = '\0';
        return npk__fail(fd, "\"%s\": there is no group \"%s\"", path, dir);
    }
    if (fd < 0)
        return fd;
    *leaf = slash + 1;
    *out = (npk_dir){.fd = fd, .opened = fd};
    return 0;
}

void npk__dir_release(npk_dir *d)
{
    npk__close(&d->opened);
    d->fd = -1;
}

int npk__open_dir_of(int root_fd, const char *path, const char **leaf)
{
    npk_dir d;
    int err = npk__dir_of(root_fd, path, &d, leaf);
    if (err)
        return err;
    return d.opened >= 0 ? d.opened : npk__dup(d.fd);
}

int npk__make_parents(int root_fd, const char *path)
{
    char part[NPK__PATH_BYTES];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t n = (size_t)(slash - path);
        if (n >= sizeof(part))
            return npk__fail(-ENAMETOOLONG, "\"%.64s...\": at most %d bytes", path, NPK__PATH_BYTES - 1);
        memcpy(part, path, n);
        part[n] = '\0';
        npk_dir above;
        const char *leaf;
        int err = npk__dir_of(root_fd, part, &above, &leaf);
        if (err)
            return err;
        err = npk__mkdirat(above.fd, leaf, 0777);
        npk__dir_release(&above);
        if (err && err != -EEXIST)
            return npk__fail_errno(err, part);
    }
    return 0;
}

/* ---- the sidecar folder ---------------------------------------------------------------------------------------- */

/* Give a new file of the sidecar to whoever may change the directory: as root in a user's directory a sidecar of
 * root's would lock the user out. Best effort: without it the owner of the file still works. */
static void adopt_mode(int fd, const struct stat *dir, mode_t mode)
{
    struct stat st;
    if (npk__fstat(fd, &st) != 0)
        return;
    if ((geteuid() == 0 && st.st_uid != dir->st_uid) || st.st_gid != dir->st_gid)
        if (npk__fchown(fd, geteuid() == 0 ? dir->st_uid : (uid_t)-1, dir->st_gid) != 0)
            mode &= ~(mode_t)(S_ISGID | S_IWGRP); /* not the group that was meant */
    if ((st.st_mode & 07777) != mode)
        (void)npk__fchmod(fd, mode);
}

static int sidecar_make(int dir_fd)
{
    struct stat dir;
    int err = npk__fstat(dir_fd, &dir);
    if (err)
        return npk__fail_errno(err, NPK__SIDECAR);
    mode_t mode = (dir.st_mode & (S_ISGID | S_ISVTX | 0777)) | 0700;
    err = npk__mkdirat(dir_fd, NPK__SIDECAR, mode);
    errno = -err; /* for %m */
    if (err && err != -EEXIST)
        return npk__fail(err, "\"%s\": cannot be made beside the arrays (%m); changes need a writable directory",
                         NPK__SIDECAR);
    int fd = resolve(dir_fd, NPK__SIDECAR, O_RDONLY | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);
    if (fd < 0)
        return open_failed(fd, NPK__SIDECAR);
    if (!err)
        adopt_mode(fd, &dir, mode);
    return fd;
}

int npk__sidecar_open(int dir_fd, bool create)
{
    int fd = resolve(dir_fd, NPK__SIDECAR, O_RDONLY | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);
    if (fd == -ENOENT)
        return create ? sidecar_make(dir_fd) : fd;
    return fd < 0 ? open_failed(fd, NPK__SIDECAR) : fd;
}

int npk__sidecar_file_of(int root_fd, const char *path, const char *file, int flags)
{
    char full[NPK__PATH_BYTES + sizeof(NPK__SIDECAR) + 256];
    const char *slash = strrchr(path, '/');
    size_t above = slash ? (size_t)(slash - path) + 1 : 0;
    if (above >= NPK__PATH_BYTES || strlen(file) > 255)
        return -ENAMETOOLONG;
    memcpy(full, path, above);
    stpcpy(stpcpy(stpcpy(full + above, NPK__SIDECAR), "/"), file);
    int fd = resolve(root_fd, full, flags | O_NONBLOCK | O_NOCTTY, 0, RESOLVE_NO_SYMLINKS);
    if (fd != -ELOOP)
        return fd;
    npk_dir dir; /* a directory on the way is a link: that is allowed, a linked sidecar is not */
    const char *leaf;
    int err = npk__dir_of(root_fd, path, &dir, &leaf);
    if (err)
        return err;
    fd = npk__sidecar_file(dir.fd, file, flags & ~O_CREAT);
    npk__dir_release(&dir);
    return fd;
}

int npk__sidecar_file(int dir_fd, const char *file, int flags)
{
    char path[sizeof(NPK__SIDECAR) + 256];
    if (strlen(file) > 255)
        return -ENAMETOOLONG;
    stpcpy(stpcpy(stpcpy(path, NPK__SIDECAR), "/"), file);
    /* O_NONBLOCK: a FIFO that somebody put there must not stop us. */
    int fd = resolve(dir_fd, path, (flags & ~O_CREAT) | O_NONBLOCK | O_NOCTTY, 0, RESOLVE_NO_SYMLINKS);
    if (fd != -ENOENT || !(flags & O_CREAT))
        return fd < 0 && fd != -ENOENT ? open_failed(fd, path) : fd;
    int side = npk__sidecar_open(dir_fd, true);
    if (side < 0)
        return side;
    struct stat dir;
    fd = npk__fstat(dir_fd, &dir);
    if (fd == 0)
        fd = npk__openat(side, file, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
    if (fd >= 0)
        adopt_mode(fd, &dir, (dir.st_mode & 0666) | 0600);
    npk__close(&side);
    return fd < 0 ? open_failed(fd, path) : fd;
}
