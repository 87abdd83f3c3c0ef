/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "path.h"

#define BUFFER      16384 /* names of one directory read at a time */
#define OPEN_LEVELS 32    /* descriptors held by one walk */

struct entry { /* struct linux_dirent64 of the kernel's interface */
    uint64_t ino;
    int64_t next;
    uint16_t bytes;
    unsigned char type;
    char name[];
};

struct names {    /* where a walk is in one directory */
    int fd;       /* -1: closed while the walk is far below */
    int64_t next; /* the kernel's cookie of the position to read from */
    size_t at, filled;
    char buffer[BUFFER] __attribute__((aligned(8)));
};

/* The read side of the seam for directories: read-only, hence never planned to fail. */
static ssize_t read_names(int fd, void *buffer, size_t bytes)
{
    long n;
    do
        n = syscall(SYS_getdents64, fd, buffer, bytes);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* The next entry other than "." and "..": 1, 0 at the end, or a negative errno. */
static int next_name(struct names *n, struct entry **out)
{
    for (;;) {
        if (n->at >= n->filled) {
            ssize_t got = read_names(n->fd, n->buffer, sizeof(n->buffer));
            if (got <= 0)
                return (int)got;
            n->at = 0;
            n->filled = (size_t)got;
        }
        struct entry *e = (struct entry *)(void *)(n->buffer + n->at);
        n->at += e->bytes;
        n->next = e->next;
        if (strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0)
            continue;
        *out = e;
        return 1;
    }
}

int npk__each_name(int dir_fd, npk_leaf_visit *visit, void *ctx)
{
    struct names *n = malloc(sizeof(*n));
    if (!n)
        return npk__fail(-ENOMEM, "out of memory");
    /* A description of its own: the position of the caller's is the caller's. */
    n->fd = npk__openat(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0);
    n->at = n->filled = 0;
    int err = n->fd < 0 ? npk__fail_errno(n->fd, "directory") : 0;
    struct entry *e;
    while (!err) {
        int got = next_name(n, &e);
        if (got <= 0) {
            err = got < 0 ? npk__fail_errno(got, "directory") : 0;
            break;
        }
        err = visit(ctx, e->name, e->type);
    }
    npk__close(&n->fd);
    free(n);
    return err;
}

/* ---- the tree -------------------------------------------------------------------------------------------------- */

struct walk {
    int root_fd;
    bool flat;
    const npk_walk_ops *ops;
    void *ctx;
    struct level {
        struct names *names;
        size_t path_bytes; /* of the directory's own path */
    } * levels;
    size_t depth, capacity;
    char path[NPK__PATH_BYTES];
};

static const char *shown(const char *path)
{
    return *path ? path : ".";
}

/* O_NOFOLLOW is added by the resolution: a link in the place of a directory is refused. */
static int open_level(struct walk *w)
{
    return npk__open_beneath(w->root_fd, shown(w->path), O_RDONLY | O_DIRECTORY, 0);
}

static int push(struct walk *w)
{
    int fd = open_level(w);
    if (fd < 0)
        return fd;
    if (w->depth == w->capacity) {
        size_t capacity = w->capacity ? 2 * w->capacity : 8;
        struct level *levels = realloc(w->levels, capacity * sizeof(*levels));
        if (!levels) {
            npk__close(&fd);
            return npk__fail(-ENOMEM, "out of memory");
        }
        w->levels = levels;
        w->capacity = capacity;
    }
    struct names *n = malloc(sizeof(*n));
    if (!n) {
        npk__close(&fd);
        return npk__fail(-ENOMEM, "out of memory");
    }
    n->fd = fd;
    n->at = n->filled = 0;
    n->next = 0;
    if (w->depth >= OPEN_LEVELS) {
        struct names *far = w->levels[w->depth - OPEN_LEVELS].names;
        npk__close(&far->fd);
    }
    w->levels[w->depth++] = (struct level){.names = n, .path_bytes = strlen(w->path)};
    return 0;
}

static void pop(struct walk *w)
{
    struct names *n = w->levels[--w->depth].names;
    npk__close(&n->fd);
    free(n);
}

/* Back in a directory whose descriptor was closed: the names in its buffer were read, the rest begins at the cookie of
 * the last of them. */
static int reopen_level(struct walk *w, struct names *n)
{
    if (n->fd >= 0)
        return 0;
    n->fd = open_level(w);
    if (n->fd < 0)
        return n->fd;
    int64_t next = n->next;
    for (size_t at = n->at; at < n->filled;) {
        const struct entry *e = (const struct entry *)(const void *)(n->buffer + at);
        next = e->next;
        at += e->bytes;
    }
    return lseek(n->fd, next, SEEK_SET) < 0 ? npk__fail_errno(-errno, shown(w->path)) : 0;
}

static unsigned char type_of(int dir_fd, const struct entry *e)
{
    struct stat st;
    if (e->type != DT_UNKNOWN)
        return e->type;
    return npk__fstatat(dir_fd, e->name, &st) == 0 ? (unsigned char)IFTODT(st.st_mode) : DT_UNKNOWN;
}

/* Gone since its name was read, or a link or a mount by now: there is nothing to walk. */
static bool is_no_directory_here(int err)
{
    return err == -ENOENT || err == -ENOTDIR || err == -ELOOP || err == -EXDEV;
}

static int failed(struct walk *w, int err)
{
    if (!w->ops->failed || err == -EMFILE || err == -ENFILE || err == -ENOMEM)
        return err;
    return w->ops->failed(w->ctx, w->path, err);
}

static int visit_entry(struct walk *w, struct names *n, const struct entry *e)
{
    struct level *level = &w->levels[w->depth - 1];
    size_t above = level->path_bytes, name = strlen(e->name);
    if (strcmp(e->name, NPK__SIDECAR) == 0 || strcmp(e->name, NPK__CONTROLS) == 0)
        return 0;
    if (above + 1 + name >= sizeof(w->path)) {
        int err = npk__fail(-ENAMETOOLONG, "\"%.64s...\": longer than %d bytes", w->path, NPK__PATH_BYTES - 1);
        return failed(w, err);
    }
    if (above)
        w->path[above++] = '/';
    memcpy(w->path + above, e->name, name + 1);
    unsigned char type = type_of(n->fd, e);
    if (type == DT_DIR) {
        int err = w->flat ? 0 : push(w);
        if (err)
            return is_no_directory_here(err) ? 0 : failed(w, err);
        return 0;
    }
    if (type == DT_UNKNOWN || !w->ops->entry)
        return 0;
    return w->ops->entry(w->ctx, n->fd, w->path, w->path + above, type);
}

static int step(struct walk *w)
{
    struct level *level = &w->levels[w->depth - 1];
    struct names *n = level->names;
    struct entry *e;
    w->path[level->path_bytes] = '\0';
    int got = reopen_level(w, n);
    if (got == 0)
        got = next_name(n, &e);
    if (got > 0)
        return visit_entry(w, n, e);
    int err = 0;
    if (got < 0)
        err = is_no_directory_here(got) ? 0 : failed(w, npk__fail_errno(got, shown(w->path)));
    else if (w->ops->leave)
        err = w->ops->leave(w->ctx, n->fd, w->path);
    pop(w);
    return err;
}

int npk__walk(int root_fd, const char *group, bool flat, const npk_walk_ops *ops, void *ctx)
{
    if (strcmp(group, ".") == 0)
        group = "";
    int err = npk__dir_path_check(group);
    if (err)
        return err;
    struct walk *w = calloc(1, sizeof(*w));
    if (!w)
        return npk__fail(-ENOMEM, "out of memory");
    w->root_fd = root_fd;
    w->flat = flat;
    w->ops = ops;
    w->ctx = ctx;
    memcpy(w->path, group, strlen(group) + 1);
    err = push(w);
    while (!err && w->depth > 0)
        err = step(w);
    while (w->depth > 0)
        pop(w);
    free(w->levels);
    free(w);
    return err;
}
