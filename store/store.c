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

#include "fail.h"
#include "io.h"
#include "lock.h"
#include "path.h"

#define KNOWN_FLAGS (NPK_READ_ONLY | NPK_CREATE | NPK_NO_REDIRECT)

int npk__store_writable(const npk_store *s, const char *name)
{
    if (!(s->flags & NPK_READ_ONLY))
        return 0;
    return npk__fail(-EROFS, "\"%s\": the store \"%s\" was opened read-only; open it for writing to change it", name,
                     s->label);
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
        return npk__fail(err, "\"%s\": not a directory; a store is a directory of .npy files", path);
    if (err == -ENOTCONN)
        return npk__fail(err, "\"%s\": a mount whose server has died; unmount it with fusermount3 -u", path);
    return npk__fail_errno(err, path);
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

npk_err npk_locate(const char *path, char **store_dir, char **name)
{
    struct stat st;
    size_t bytes = strlen(path);
    bool there = stat(path, &st) == 0;
    int err = there ? 0 : -errno;
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
