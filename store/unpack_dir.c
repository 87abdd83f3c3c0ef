/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "unpack_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "path.h"
#include "pkg_store.h"
#include "walk.h"

struct npk__later {
    struct npk__later *next;
    npk_entry_kind kind; /* a file: its names of rows */
    uint32_t mode;
    int64_t mtime_ns;
    char *target; /* in the same allocation */
    char path[];
};

static void times_of(int64_t mtime_ns, struct timespec out[2])
{
    int64_t seconds = mtime_ns / 1000000000, rest = mtime_ns % 1000000000;
    if (rest < 0) {
        seconds--;
        rest += 1000000000;
    }
    out[0] = out[1] = (struct timespec){.tv_sec = seconds, .tv_nsec = rest};
}

/* ---- removing ---------------------------------------------------------------------------------------------------- */

static int remove_below(int dir_fd, const char *name);

static int remove_entry(void *ctx, const char *name, unsigned char type)
{
    int dir_fd = *(const int *)ctx;
    int err = type == DT_DIR ? -EISDIR : npk__unlinkat(dir_fd, name, 0);
    return err == -EISDIR || err == -EPERM ? remove_below(dir_fd, name) : err;
}

/* Depth is that of a path, so the recursion is bounded. */
static int remove_below(int dir_fd, const char *name)
{
    int fd = npk__openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    (void)npk__fchmod(fd, 0700);
    int err = npk__each_name(fd, remove_entry, &fd);
    npk__close(&fd);
    return err ? err : npk__unlinkat(dir_fd, name, AT_REMOVEDIR);
}

/* Left by processes that died: nobody holds their lock. */
struct sweep {
    int dir_fd;
    const char *prefix;
};

static int sweep_entry(void *ctx, const char *name, unsigned char type)
{
    const struct sweep *s = ctx;
    if ((type != DT_DIR && type != DT_UNKNOWN) || strncmp(name, s->prefix, strlen(s->prefix)) != 0)
        return 0;
    int fd = npk__openat(s->dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        (void)remove_below(s->dir_fd, name);
    npk__close(&fd);
    return 0;
}

/* ---- begin ------------------------------------------------------------------------------------------------------- */

static int is_empty(void *ctx, const char *name, unsigned char type)
{
    (void)ctx;
    (void)name;
    (void)type;
    return 1;
}

static int check_free(const npk__unpack_dir *d)
{
    int fd = npk__openat(d->parent_fd, d->leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd == -ENOENT)
        return 0;
    int some = fd < 0 ? fd : npk__each_name(fd, is_empty, NULL);
    npk__close(&fd);
    if (some == 0)
        return 0;
    return npk__fail(-EEXIST, "\"%s\": exists; a name that is free, or an empty directory, is accepted", d->path);
}

static int split(const char *path, npk__unpack_dir *d)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t cut = n;
    while (cut > 0 && path[cut - 1] != '/')
        cut--;
    d->path = strdup(path);
    d->leaf = strndup(path + cut, n - cut);
    char *parent = cut == 0 ? strdup(".") : strndup(path, cut);
    int err = d->path && d->leaf && parent ? 0 : -ENOMEM;
    if (!err && (*d->leaf == '\0' || strcmp(d->leaf, ".") == 0 || strcmp(d->leaf, "..") == 0)) {
        free(parent);
        return npk__fail(-EINVAL, "\"%s\": the name of a new directory is accepted", path);
    }
    if (!err)
        d->parent_fd = npk__openat(AT_FDCWD, parent, O_RDONLY | O_DIRECTORY, 0);
    free(parent);
    return err ? npk__fail(err, "out of memory") : d->parent_fd < 0 ? npk__fail_errno(d->parent_fd, path) : 0;
}

static int make(npk__unpack_dir *d)
{
    uint64_t random = 0;
    char prefix[300];
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return -EIO;
    snprintf(prefix, sizeof(prefix), ".%.200s.unpack.", d->leaf);
    struct sweep s = {d->parent_fd, prefix};
    (void)npk__each_name(d->parent_fd, sweep_entry, &s);
    if (asprintf(&d->tmp, "%s%016llx", prefix, (unsigned long long)random) < 0) {
        d->tmp = NULL;
        return -ENOMEM;
    }
    int err = npk__mkdirat(d->parent_fd, d->tmp, 0700);
    if (err) {
        free(d->tmp);
        d->tmp = NULL;
        return err;
    }
    d->fd = npk__openat(d->parent_fd, d->tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    return d->fd < 0 ? d->fd : flock(d->fd, LOCK_EX | LOCK_NB) != 0 ? -errno : 0;
}

static void forget(npk__unpack_dir *d)
{
    while (d->later) {
        struct npk__later *next = d->later->next;
        free(d->later);
        d->later = next;
    }
    npk__close(&d->fd);
    npk__close(&d->parent_fd);
    free(d->path);
    free(d->leaf);
    free(d->tmp);
    pthread_mutex_destroy(&d->mutex);
}

int npk__unpack_begin(const char *path, npk__unpack_dir *d)
{
    *d = (npk__unpack_dir){.fd = -1, .parent_fd = -1};
    pthread_mutex_init(&d->mutex, NULL);
    int err = split(path, d);
    if (!err)
        err = check_free(d);
    if (!err) {
        err = make(d);
        if (err)
            err = npk__fail_errno(err, path);
    }
    if (err) {
        if (d->tmp)
            (void)remove_below(d->parent_fd, d->tmp);
        forget(d);
    }
    return err;
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

static int put_off(npk__unpack_dir *d, const npk_entry *e)
{
    bool file = e->kind == NPK_ENTRY_FILE;
    const char *text = file ? e->names : e->target;
    size_t path = e->path_bytes, target = file ? e->names_bytes : e->target_bytes;
    struct npk__later *l = malloc(sizeof(*l) + path + target + 2);
    if (!l)
        return npk__fail(-ENOMEM, "out of memory");
    l->kind = e->kind;
    l->mode = e->mode;
    l->mtime_ns = e->mtime_ns;
    memcpy(l->path, e->path, path);
    l->path[path] = '\0';
    l->target = l->path + path + 1;
    if (target > 0)
        memcpy(l->target, text, target);
    l->target[target] = '\0';
    pthread_mutex_lock(&d->mutex);
    l->next = d->later;
    d->later = l;
    pthread_mutex_unlock(&d->mutex);
    return 0;
}

static int copy_path(const npk_entry *e, char path[NPK__PATH_BYTES])
{
    if (e->path_bytes >= NPK__PATH_BYTES)
        return npk__fail(-ENAMETOOLONG, "\"%.64s...\": too long", e->path);
    memcpy(path, e->path, e->path_bytes);
    path[e->path_bytes] = '\0';
    return 0;
}

int npk__unpack_other(npk__unpack_dir *d, const npk_entry *e)
{
    char path[NPK__PATH_BYTES];
    npk_dir dir;
    const char *leaf;
    int err = copy_path(e, path);
    if (err || e->kind == NPK_ENTRY_LINK)
        return err ? err : put_off(d, e);
    err = npk__dir_of(d->fd, path, &dir, &leaf);
    if (err)
        return err;
    err = npk__mkdirat(dir.fd, leaf, 0700);
    npk__dir_release(&dir);
    return err ? npk__fail_errno(err, path) : put_off(d, e);
}

int npk__unpack_file(npk__unpack_dir *d, const npk_entry *e, int *fd)
{
    char path[NPK__PATH_BYTES];
    int err = copy_path(e, path);
    if (err)
        return err;
    *fd = npk__open_beneath(d->fd, path, O_RDWR | O_CREAT | O_EXCL | O_NOCTTY, 0600);
    if (*fd < 0)
        return *fd;
    err = npk__ftruncate(*fd, e->bytes);
    return err ? npk__fail_errno(err, path) : 0;
}

int npk__unpack_finish(npk__unpack_dir *d, int fd, const npk_entry *e)
{
    struct timespec times[2];
    times_of(e->mtime_ns, times);
    int err = e->names_bytes > 0 ? put_off(d, e) : 0;
    if (err)
        return err;
    err = npk__fchmod(fd, e->mode);
    if (!err)
        err = npk__futimens(fd, times);
    return err ? npk__fail(err, "\"%.*s\": %s", (int)e->path_bytes, e->path, strerror(-err)) : 0;
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

static int complete(npk__unpack_dir *d, const struct npk__later *l)
{
    npk_dir dir;
    const char *leaf;
    struct timespec times[2];
    times_of(l->mtime_ns, times);
    int err = npk__dir_of(d->fd, l->path, &dir, &leaf);
    if (err)
        return err;
    if (l->kind == NPK_ENTRY_LINK) {
        err = symlinkat(l->target, dir.fd, leaf) != 0 ? -errno : 0;
        if (!err && utimensat(dir.fd, leaf, times, AT_SYMLINK_NOFOLLOW) != 0)
            err = -errno;
    } else {
        int fd = npk__openat(dir.fd, leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        err = fd < 0 ? fd : npk__futimens(fd, times);
        if (!err)
            err = npk__fchmod(fd, l->mode);
        npk__close(&fd);
    }
    npk__dir_release(&dir);
    return err ? npk__fail_errno(err, l->path) : 0;
}

struct naming {
    npk_store *store;
    const char *array;
};

static int set_name(void *ctx, const char *range_name, uint64_t start, uint64_t stop)
{
    const struct naming *n = ctx;
    return npk_name_set(n->store, n->array, range_name, start, stop);
}

/* The names of rows, which the sidecars of the new directory hold. */
static int set_names(npk__unpack_dir *d)
{
    struct naming n = {0};
    int err = 0;
    for (const struct npk__later *l = d->later; l && !err; l = l->next) {
        char name[NPK__PATH_BYTES];
        if (l->kind != NPK_ENTRY_FILE || npk__path_to_name(l->path, name, sizeof(name)) != 0)
            continue;
        if (!n.store)
            err = npk_store_open_fd(d->fd, NPK_NO_REDIRECT, &n.store);
        n.array = name;
        if (!err)
            err = npk__package_each_name(l->target, strlen(l->target), set_name, &n);
    }
    npk_store_close(&n.store);
    return err;
}

static int publish(npk__unpack_dir *d, const npk_entry *root)
{
    struct timespec times[2];
    int err = set_names(d);
    /* Sidecars and links first, since they change the times of their directories; then directories, the deepest ones
     * first: the list is in the reverse order of the package. */
    for (int links = 1; links >= 0; links--)
        for (const struct npk__later *l = d->later; l && !err; l = l->next)
            if (l->kind == (links ? NPK_ENTRY_LINK : NPK_ENTRY_DIRECTORY))
                err = complete(d, l);
    if (err)
        return err;
    times_of(root->mtime_ns, times);
    err = npk__futimens(d->fd, times);
    if (!err)
        err = npk__fchmod(d->fd, root->mode);
    if (!err)
        err = npk__syncfs(d->fd);
    if (!err)
        err = npk__renameat2(d->parent_fd, d->tmp, d->parent_fd, d->leaf, 0);
    if (!err)
        err = npk__fsync(d->parent_fd);
    if (err == -ENOTEMPTY || err == -EEXIST || err == -ENOTDIR)
        return npk__fail(-EEXIST, "\"%s\": exists; a name that is free, or an empty directory, is accepted", d->path);
    return err ? npk__fail_errno(err, d->path) : 0;
}

int npk__unpack_end(npk__unpack_dir *d, const npk_entry *root, int err)
{
    if (!err)
        err = publish(d, root);
    if (err) {
        char *sentence = strdup(npk_error());
        (void)remove_below(d->parent_fd, d->tmp);
        if (sentence)
            (void)npk__fail(err, "%s", sentence);
        free(sentence);
    }
    forget(d);
    return err;
}
