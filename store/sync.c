/* SPDX-License-Identifier: Apache-2.0 */
/* What returned before is durable after: data, table, directories, in this order (P5). */
#define _GNU_SOURCE 1

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dirty.h"
#include "fail.h"
#include "io.h"
#include "marks.h"
#include "npk.h"
#include "path.h"
#include "store.h"
#include "target.h"
#include "walk.h"

static int sync_dir(int root_fd, const char *path)
{
    int fd = npk__open_beneath(root_fd, *path ? path : ".", O_RDONLY | O_DIRECTORY, 0);
    int err = fd < 0 ? fd : npk__fsync(fd);
    npk__close(&fd);
    return err ? npk__fail_errno(err, *path ? path : ".") : 0;
}

/* The directory of a path and all above it: a group may be new, too. */
static int sync_dirs_of(int root_fd, const char *path)
{
    char dir[NPK__PATH_BYTES];
    memcpy(dir, path, strlen(path) + 1);
    for (;;) {
        char *slash = strrchr(dir, '/');
        if (slash)
            *slash = '\0';
        else
            dir[0] = '\0';
        int err = sync_dir(root_fd, dir);
        if (err || dir[0] == '\0')
            return err;
    }
}

/* Without a writer the array needs its entry no longer. With one, or where nothing proves that there is none, it stays,
 * durable already. */
static int end_session(npk_store *s, const char *path, int fd)
{
    bool entered;
    if (s->flags & NPK_READ_ONLY)
        return 0;
    int err = npk_session_find(s, path, fd, &entered);
    if (err || !entered)
        return err;
    err = npk_session_end(s, path, fd);
    return err == -EBUSY || err == -ENOTSUP || err == -EACCES || err == -EPERM || err == -EROFS ? 0 : err;
}

/* What is known of its rows, after the rows. */
static int sync_marks(npk_store *s, const char *path, int fd)
{
    npk_dir dir;
    npk_stamp stamp;
    const char *leaf;
    int err = npk__fd_stamp(fd, &stamp);
    if (err)
        return npk__fail_errno(err, path);
    err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    if (!(s->flags & NPK_READ_ONLY) && npk__state_there(dir.fd, leaf, stamp.id.inode))
        err = npk__marks_sync(dir.fd, leaf, fd);
    npk__dir_release(&dir);
    return err == -EUCLEAN || err == -ESTALE ? 0 : err;
}

static int sync_array(npk_store *s, const char *name)
{
    char path[NPK__PATH_BYTES];
    int err = npk__name_to_path(name, path, sizeof(path));
    if (err)
        return err;
    int fd = npk__open_beneath(s->root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return npk__name_failed(fd, name);
    err = npk__fsync(fd);
    err = err ? npk__fail_errno(err, name) : end_session(s, path, fd);
    if (!err)
        err = sync_marks(s, path, fd);
    npk__close(&fd);
    return err ? err : sync_dirs_of(s->root_fd, path);
}

/* ---- the whole store ------------------------------------------------------------------------------------------- */

struct entered { /* arrays of one directory that have an entry */
    npk_store *s;
    const char *dir;
    char (*names)[256];
    size_t count, capacity;
};

static int collect(void *ctx, const npk_dirty *e)
{
    struct entered *w = ctx;
    if (w->count == w->capacity) {
        size_t capacity = w->capacity ? 2 * w->capacity : 16;
        char(*names)[256] = realloc(w->names, capacity * sizeof(*names));
        if (!names)
            return npk__fail(-ENOMEM, "out of memory");
        w->names = names;
        w->capacity = capacity;
    }
    memcpy(w->names[w->count++], e->name, sizeof(e->name));
    return 0;
}

/* The name is that of the time when the entry was made: a file that has moved since is found at the next change. */
static int end_one(struct entered *w, const char *leaf)
{
    char path[NPK__PATH_BYTES];
    int n = snprintf(path, sizeof(path), "%s%s%s", w->dir, *w->dir ? "/" : "", leaf);
    if (n < 0 || (size_t)n >= sizeof(path) || npk__path_check(path) != 0)
        return 0;
    int fd = npk__open_beneath(w->s->root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return fd == -ENOENT || fd == -ELOOP || fd == -EACCES ? 0 : fd;
    int err = end_session(w->s, path, fd);
    npk__close(&fd);
    return err;
}

static int leave_dir(void *ctx, int dir_fd, const char *path)
{
    struct entered w = {.s = ctx, .dir = path};
    int err = npk__dirty_each(dir_fd, collect, &w);
    for (size_t i = 0; i < w.count && !err; i++)
        err = end_one(&w, w.names[i]);
    free(w.names);
    return err;
}

static int skip_unreadable(void *ctx, const char *path, int err)
{
    (void)ctx;
    return *path && err == -EACCES ? 0 : err; /* its data is synced by syncfs all the same */
}

npk_err npk_sync(npk_store *s, const char *name)
{
    if (s->package)
        return 0; /* it never changes */
    static const npk_walk_ops ops = {.leave = leave_dir, .failed = skip_unreadable};
    if (name)
        return sync_array(s, name);
    /* One call for all files and directories; a call for each of 100 000 arrays would take minutes. */
    int fd = npk__openat(s->root_fd, ".", O_RDONLY | O_DIRECTORY, 0);
    int err = fd < 0 ? fd : npk__syncfs(fd);
    npk__close(&fd);
    if (err)
        return npk__fail_errno(err, s->label);
    return s->flags & NPK_READ_ONLY ? 0 : npk__walk(s->root_fd, "", false, &ops, s);
}
