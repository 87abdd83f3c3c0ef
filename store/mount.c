/* SPDX-License-Identifier: Apache-2.0 */
/* From a path inside a live npkfs mount to the store behind it (P19). */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "path.h"
#include "store.h"

#define FUSE_MAGIC 0x65735546
#define LEVELS     4096

static bool is_fuse(int fd)
{
    struct statfs st;
    int err;
    do
        err = fstatfs(fd, &st);
    while (err != 0 && errno == EINTR);
    return err == 0 && (unsigned long)st.f_type == FUSE_MAGIC;
}

/* The mount's topmost directory: the last one on the way up that has the same device. */
static int mount_root(int dir_fd, int *out)
{
    struct stat here, above;
    int at = npk__openat(dir_fd, ".", O_PATH | O_DIRECTORY, 0);
    int err = at < 0 ? at : npk__fstat(at, &here);
    for (unsigned i = 0; !err && i < LEVELS; i++) {
        int up = npk__openat(at, "..", O_PATH | O_DIRECTORY, 0);
        err = up < 0 ? up : npk__fstat(up, &above);
        if (err || above.st_dev != here.st_dev || above.st_ino == here.st_ino) {
            npk__close(&up);
            break;
        }
        npk__close(&at);
        at = up;
        here = above;
    }
    if (err && at >= 0 && err != -EACCES)
        npk__close(&at);
    if (at < 0)
        return err;
    *out = at;
    return 0;
}

static ssize_t path_of(int fd, char out[NPK__PATH_BYTES])
{
    char link[40];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, NPK__PATH_BYTES - 1);
    if (n < 0)
        return -errno;
    out[n] = '\0';
    return n;
}

/* The path of dir_fd below the mount's root, "" for the root itself. */
static int path_below(int root_fd, int dir_fd, char out[NPK__PATH_BYTES])
{
    char root[NPK__PATH_BYTES];
    ssize_t r = path_of(root_fd, root), d = path_of(dir_fd, out);
    if (r < 0 || d < 0)
        return r < 0 ? (int)r : (int)d;
    if (r == 1)
        r = 0; /* mounted at "/" */
    if (d < r || memcmp(root, out, (size_t)r) != 0 || (out[r] != '/' && out[r] != '\0'))
        return -ENOENT;
    size_t skip = (size_t)r + (out[r] == '/');
    memmove(out, out + skip, strlen(out + skip) + 1);
    return 0;
}

/* The value of a key in a keyed list ("key\tvalue" lines), cut out of text in place; NULL: no such key. */
static char *value_of(char *text, const char *key)
{
    size_t n = strlen(key);
    for (char *line = text; line && *line;) {
        char *end = strchr(line, '\n');
        if (strncmp(line, key, n) == 0 && line[n] == '\t') {
            if (end)
                *end = '\0';
            return line + n + 1;
        }
        line = end ? end + 1 : NULL;
    }
    return NULL;
}

/* Open a directory that is not of the mount's own device: going through the mount again would lead here again. */
static int open_outside(const char *path, dev_t mount)
{
    struct stat st;
    int fd = npk__openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    int err = npk__fstat(fd, &st);
    if (!err && st.st_dev == mount)
        err = -ELOOP;
    if (err)
        npk__close(&fd);
    return err ? err : fd;
}

/* The store's root, by what the daemon says of it. */
static int open_source(int root_fd, const char *label)
{
    char text[2 * NPK__PATH_BYTES], again[sizeof(text)];
    struct stat st;
    int err = npk__fstat(root_fd, &st);
    int list = err ? err : npk__openat(root_fd, NPK__CONTROLS "/store", O_RDONLY | O_NOCTTY | O_NONBLOCK, 0);
    if (list < 0)
        return npk__fail(-EBUSY,
                         "\"%s\": inside an npkfs mount whose .npk/store cannot be read (%s); use the store's own path",
                         label, strerrorname_np(-list));
    ssize_t n = npk__pread_full(list, text, sizeof(text) - 1, 0);
    npk__close(&list);
    text[n < 0 ? 0 : n] = '\0';
    memcpy(again, text, sizeof(text));

    const char *by_fd = value_of(text, "fd"), *by_path = value_of(again, "path");
    int source = by_fd ? open_outside(by_fd, st.st_dev) : -ENOENT, why = source;
    if (source < 0 && by_path)
        source = open_outside(by_path, st.st_dev);
    if (source >= 0)
        return source;
    if (source != -ELOOP) /* mounted over itself only the descriptor could help: tell of that */
        why = source;
    return npk__fail(-EBUSY,
                     "\"%s\": inside an npkfs mount whose store \"%s\" cannot be reached from here (%s); run as the "
                     "user of the mount, or use the controls in .npk",
                     label, by_path ? by_path : "?", strerrorname_np(-why));
}

int npk__mount_source(int dir_fd, const char *label, int *out)
{
    struct stat st;
    if (!is_fuse(dir_fd))
        return 0;
    int root = -1;
    int err = mount_root(dir_fd, &root);
    if (err)
        return npk__fail(-EBUSY, "\"%s\": the root of its mount cannot be found (%s)", label, strerrorname_np(-err));
    err = npk__fstatat(root, NPK__CONTROLS "/version", &st);
    if (err || !S_ISREG(st.st_mode)) {
        bool bound = npk__fstatat(root, NPK__CONTROLS, &st) == 0 && S_ISDIR(st.st_mode);
        npk__close(&root);
        if (bound)
            return npk__fail(-EBUSY, "\"%s\": a part of an npkfs mount that is bound here; use its path in the mount",
                             label);
        return 0; /* another FUSE filesystem */
    }
    char below[NPK__PATH_BYTES];
    err = path_below(root, dir_fd, below);
    int source = err ? npk__fail(-EBUSY, "\"%s\": its place in the npkfs mount cannot be found", label)
                     : open_source(root, label);
    npk__close(&root);
    if (source < 0 || *below == '\0') {
        *out = source;
        return source < 0 ? source : 1;
    }
    int fd = npk__open_beneath(source, below, O_PATH | O_DIRECTORY, 0);
    npk__close(&source);
    if (fd < 0)
        return npk__fail(-EBUSY, "\"%s\": not in the store behind this mount (%s)", label, strerrorname_np(-fd));
    *out = fd;
    return 1;
}
