/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ahead.h"
#include "fail.h"
#include "io.h"
#include "lock.h"
#include "path.h"
#include "pkg_store.h"

#define KNOWN_FLAGS (NPK_READ_ONLY | NPK_CREATE | NPK_NO_REDIRECT)

int npk__store_writable(const npk_store *s, const char *name)
{
    if (!(s->flags & NPK_READ_ONLY))
        return 0;
    if (s->package)
        return npk__fail(-EROFS, "\"%s\": \"%s\" is a package, which is read-only; npk unpack it, or mount it with "
                                 "npkfs -o upper=DIR, to change it", name, s->label);
    return npk__fail(-EROFS, "\"%s\": the store \"%s\" was opened read-only; open it for writing to change it", name,
                     s->label);
}

/* ---- stores above ---------------------------------------------------------------------------------------------- */

#define MOST_ABOVE 16

static void forget_above(npk_store *s)
{
    for (unsigned i = 0; i < s->above_count; i++) {
        npk__close(&s->above[i].fd);
        free(s->above[i].path);
    }
    free(s->above);
    s->above = NULL;
    s->above_count = 0;
}

/* A directory that somebody else could have put there is not one whose journal we follow. */
static bool is_trusted(const struct stat *st, const struct stat *root)
{
    return st->st_dev == root->st_dev && st->st_uid == root->st_uid && !(st->st_mode & S_IWOTH);
}

/* The directories above the root that have a sidecar folder: a change of several arrays, or a batch, of a store that
 * holds this one as a group is noted there. Best effort: what cannot be seen is not above. */
static void look_above(npk_store *s)
{
    char link[40], path[NPK__PATH_BYTES];
    struct stat root, st, side;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", s->root_fd);
    ssize_t n = readlink(link, path, sizeof(path) - 1);
    if (n <= 1 || npk__fstat(s->root_fd, &root) != 0)
        return;
    path[n] = '\0';
    int at = s->root_fd;
    const char *below = path + n;
    for (unsigned level = 0; level < MOST_ABOVE && below > path + 1; level++) {
        int up = npk__openat(at, "..", O_PATH | O_DIRECTORY, 0);
        if (at != s->root_fd && (s->above_count == 0 || s->above[s->above_count - 1].fd != at))
            npk__close(&at);
        at = up;
        do
            below--;
        while (below > path && below[-1] != '/');
        if (up < 0 || npk__fstat(up, &st) != 0 || !is_trusted(&st, &root))
            break;
        if (npk__fstatat(up, NPK__SIDECAR, &side) != 0 || !S_ISDIR(side.st_mode) || side.st_uid != root.st_uid)
            continue;
        struct npk_above *list = realloc(s->above, (s->above_count + 1) * sizeof(*list));
        if (!list)
            break;
        s->above = list;
        list[s->above_count] = (struct npk_above){up, strdup(below)};
        if (!list[s->above_count].path)
            break;
        s->above_count++;
    }
    if (at >= 0 && at != s->root_fd && (s->above_count == 0 || s->above[s->above_count - 1].fd != at))
        npk__close(&at);
}

/* Takes dir_fd (O_PATH), also on failure. */
static int open_dir(int dir_fd, const char *label, unsigned flags, npk_store **out)
{
    int source = -1, err = 0;
    if (!(flags & NPK_NO_REDIRECT)) {
        int inside = npk__mount_source(dir_fd, label, &source);
        if (inside > 0) {
            npk__close(&dir_fd);
            dir_fd = source;
        } else {
            err = inside;
        }
    }
    npk_store *s = err ? NULL : calloc(1, sizeof(*s));
    char *copy = s ? strdup(label) : NULL;
    if (!copy) {
        free(s);
        npk__close(&dir_fd);
        return err ? err : npk__fail(-ENOMEM, "out of memory");
    }
    s->root_fd = dir_fd;
    s->flags = flags;
    s->label = copy;
    look_above(s);
    *out = s;
    return 0;
}

static int check_flags(unsigned flags)
{
    if (flags & ~(unsigned)KNOWN_FLAGS)
        return npk__fail(-EINVAL, "open flags 0x%x: unknown; the known ones are 0x%x", flags, (unsigned)KNOWN_FLAGS);
    if ((flags & NPK_READ_ONLY) && (flags & NPK_CREATE))
        return npk__fail(-EINVAL, "open flags: NPK_READ_ONLY and NPK_CREATE exclude each other");
    return 0;
}

static int open_failed(int err, const char *path)
{
    if (err == -ENOENT)
        return npk__fail(err, "\"%s\": no such directory; a store is a directory of .npy files", path);
    if (err == -ENOTDIR)
        return npk__fail(err, "\"%s\": neither a directory nor a package; a store is a directory of .npy files, or one file "
                              "that npk pack made", path);
    if (err == -ENOTCONN)
        return npk__fail(err, "\"%s\": a mount whose server has died; unmount it with fusermount3 -u", path);
    return npk__fail_errno(err, path);
}

static bool is_package(const char *path, size_t bytes)
{
    uint8_t first[16];
    struct stat st;
    char *copy = strndup(path, bytes);
    int fd = copy ? npk__openat(AT_FDCWD, copy, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0) : -1;
    free(copy);
    bool is = fd >= 0 && npk__fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
              npk__pread_full(fd, first, sizeof(first), 0) == sizeof(first) && npk_package_magic(first, sizeof(first));
    npk__close(&fd);
    return is;
}

npk_err npk_store_open(const char *path, unsigned flags, npk_store **out)
{
    int err = check_flags(flags);
    if (err)
        return err;
    int fd = npk__openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
    if (fd == -ENOENT && (flags & NPK_CREATE)) {
        err = npk__mkdirat(AT_FDCWD, path, 0777);
        if (err && err != -EEXIST)
            return err == -ENOENT ? npk__fail(err, "\"%s\": the directory above it does not exist", path)
                                  : open_failed(err, path);
        fd = npk__openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
    }
    if (fd == -ENOTDIR && !(flags & NPK_CREATE) && is_package(path, strlen(path))) {
        fd = npk__openat(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
        return fd < 0 ? open_failed(fd, path) : npk__package_store(fd, path, flags, out);
    }
    return fd < 0 ? open_failed(fd, path) : open_dir(fd, path, flags, out);
}

npk_err npk_store_open_fd(int dir_fd, unsigned flags, npk_store **out)
{
    int err = check_flags(flags);
    if (err)
        return err;
    char label[NPK__PATH_BYTES], link[40];
    int fd = npk__openat(dir_fd, ".", O_PATH | O_DIRECTORY, 0);
    if (fd < 0)
        return npk__fail(fd, "descriptor %d: not a directory that can be entered; give one of a store", dir_fd);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, label, sizeof(label) - 1);
    label[n < 0 ? 0 : n] = '\0';
    return open_dir(fd, label, flags, out);
}

void npk_store_close(npk_store **s)
{
    if (!s || !*s)
        return;
    npk__locks_drop_idle();
    forget_above(*s);
    npk__ahead_free(*s);
    npk_package_close(&(*s)->package);
    npk_package_close(&(*s)->lower);
    npk__close(&(*s)->root_fd);
    free((*s)->label);
    free(*s);
    *s = NULL;
}

bool npk_store_read_only(const npk_store *s)
{
    return s->flags & NPK_READ_ONLY;
}

int npk_store_fd(const npk_store *s)
{
    return s->root_fd;
}

/* ---- what a user typed ----------------------------------------------------------------------------------------- */

static int located(const char *dir, size_t dir_bytes, const char *name, size_t name_bytes, char **store_dir,
                   char **out_name)
{
    char *d = strndup(dir, dir_bytes), *n = strndup(name, name_bytes);
    if (!d || !n) {
        free(d);
        free(n);
        return npk__fail(-ENOMEM, "out of memory");
    }
    *store_dir = d;
    *out_name = n;
    return 0;
}

/* "x.npkg/train/x.npy": the part of the path that is a package. 0: none is. */
static size_t package_part(const char *path)
{
    for (const char *slash = strchr(path + (*path == '/'), '/'); slash; slash = strchr(slash + 1, '/'))
        if (slash[1] != '\0' && is_package(path, (size_t)(slash - path)))
            return (size_t)(slash - path);
    return 0;
}

npk_err npk_locate(const char *path, char **store_dir, char **name)
{
    struct stat st;
    size_t bytes = strlen(path);
    bool there = stat(path, &st) == 0;
    int err = there ? 0 : -errno;
    if (there && S_ISREG(st.st_mode) && is_package(path, bytes))
        return located(path, bytes, "", 0, store_dir, name);
    size_t package = err == -ENOTDIR ? package_part(path) : 0;
    if (package > 0) {
        const char *rest = path + package + strspn(path + package, "/");
        size_t n = strlen(rest), last = strlen(NPK__SUFFIX);
        return located(path, package, rest,
                       n > last && strcmp(rest + n - last, NPK__SUFFIX) == 0 ? n - last : n, store_dir, name);
    }
    if (there && S_ISDIR(st.st_mode))
        return located(path, bytes, "", 0, store_dir, name);
    if (bytes == 0)
        return npk__fail(-ENOENT, "\"\": empty path; give an array's file or a store's directory");
    if (!there && err != -ENOENT)
        return npk__fail_errno(err, path);

    const char *slash = strrchr(path, '/'), *leaf = slash ? slash + 1 : path;
    size_t leaf_bytes = strlen(leaf), suffix = strlen(NPK__SUFFIX);
    bool suffixed = leaf_bytes > suffix && strcmp(leaf + leaf_bytes - suffix, NPK__SUFFIX) == 0;
    if (leaf_bytes == 0)
        return npk__fail(-ENOENT, "\"%s\": no such directory", path);
    if (there && !suffixed)
        return npk__fail(-EINVAL, "\"%s\": not an array's file; those are named like x.npy", path);
    const char *dir = slash ? path : ".";
    size_t dir_bytes = !slash ? 1 : slash == path ? 1 : (size_t)(slash - path);
    char *above = strndup(dir, dir_bytes);
    if (!above)
        return npk__fail(-ENOMEM, "out of memory");
    bool is_dir = stat(above, &st) == 0 && S_ISDIR(st.st_mode);
    free(above);
    if (!is_dir)
        return npk__fail(-ENOENT, "\"%s\": no such file, and no directory to hold it", path);
    return located(dir, dir_bytes, leaf, suffixed ? leaf_bytes - suffix : leaf_bytes, store_dir, name);
}
