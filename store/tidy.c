/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tidy.c - removing sidecar folders that hold nothing any more. The functions are in npk.h.
 *
 * A sidecar goes while all of its lock file is locked through a description of its own, so nobody, in this process or
 * another, holds or gets a lock of the directory; who waits for one finds the file unlinked and makes a new one (P11).
 */
#define _GNU_SOURCE 1

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dirty.h"
#include "fail.h"
#include "io.h"
#include "journal.h"
#include "lock.h"
#include "npk.h"
#include "path.h"
#include "redo.h"
#include "store.h"
#include "swap.h"
#include "walk.h"

/* ---- what is in there ------------------------------------------------------------------------------------------ */

static bool is_ours(const char *name)
{
    return strcmp(name, "lock") == 0 || strcmp(name, "dirty") == 0;
}

/* A journal that says nothing. All locks are held, so nobody writes one. */
static void sweep_journal(int side)
{
    struct stat st;
    if (npk__fstatat(side, NPK__JOURNAL_FILE, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
        (void)npk__unlinkat(side, NPK__JOURNAL_FILE, 0);
}

static int stop_at_foreign(void *ctx, const char *name, unsigned char type)
{
    (void)ctx;
    (void)type;
    return is_ours(name) ? 0 : -ENOTEMPTY;
}

static int stop_at_visible(void *ctx, const char *name, unsigned char type)
{
    (void)ctx;
    (void)type;
    return strcmp(name, NPK__SIDECAR) == 0 ? 0 : -ENOTEMPTY;
}

/* The files that have an entry in a dirty table. */
struct ids {
    npk_file_id *list;
    size_t count, cap;
};

static int add_id(void *ctx, const npk_dirty *e)
{
    struct ids *in = ctx;
    if (in->count == in->cap) {
        size_t cap = in->cap ? in->cap * 2 : 64;
        npk_file_id *more = realloc(in->list, cap * sizeof(*more));
        if (!more)
            return -ENOMEM;
        in->list = more;
        in->cap = cap;
    }
    in->list[in->count++] = e->id;
    return 0;
}

static int by_number(const void *a, const void *b)
{
    const npk_file_id *x = a, *y = b;
    return (x->inode > y->inode) - (x->inode < y->inode);
}

/* -ENOTEMPTY if the name is a file with an entry: numbers are used again, so the birth must agree, too. */
static int has_entry(const struct ids *in, int dir_fd, const struct dirent *e)
{
    npk_file_id id = {.inode = e->d_ino};
    const npk_file_id *same = bsearch(&id, in->list, in->count, sizeof(id), by_number);
    if (!same)
        return 0;
    int fd = npk__openat(dir_fd, e->d_name, O_PATH | O_NOFOLLOW, 0);
    int err = fd < 0 ? fd : npk__file_id(fd, &id);
    npk__close(&fd);
    return !err && id.birth_ns != same->birth_ns ? 0 : -ENOTEMPTY;
}

/* 0 if no entry's file is in the directory any more; -ENOTEMPTY: recovery needs the table. */
static int entries_are_stale(int dir_fd)
{
    struct ids in = {0};
    int err = npk__dirty_each(dir_fd, add_id, &in), fd = -1;
    if (!err && in.count > 0) {
        qsort(in.list, in.count, sizeof(*in.list), by_number);
        fd = npk__openat(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0);
        DIR *d = fd < 0 ? NULL : fdopendir(fd);
        err = d ? 0 : fd < 0 ? fd : -ENOMEM;
        for (struct dirent *e; !err && (e = readdir(d)) != NULL;)
            err = has_entry(&in, dir_fd, e);
        if (d)
            closedir(d);
        else
            npk__close(&fd);
    }
    free(in.list);
    return err;
}

/* Records of replaced rows that say nothing any more. All locks of the directory are held. */
static int sweep_redo(void *ctx, const char *name, unsigned char type)
{
    const int *side = ctx;
    (void)type;
    if (strncmp(name, NPK__REDO_PREFIX, strlen(NPK__REDO_PREFIX)) == 0 && !npk__redo_is_whole(*side, name))
        (void)npk__unlinkat(*side, name, 0);
    return 0;
}

/* ---- removing -------------------------------------------------------------------------------------------------- */

/* All locks of the directory. -1 in *out: there is no lock file. */
static int lock_all(int dir_fd, int *out)
{
    int fd = npk__sidecar_file(dir_fd, "lock", O_RDWR);
    *out = -1;
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    struct stat st;
    int err = npk__ofd_lock(fd, F_WRLCK, 0, 0);
    if (!err && (npk__fstat(fd, &st) != 0 || st.st_nlink == 0))
        err = -EAGAIN;
    if (err)
        npk__close(&fd);
    *out = fd;
    return err;
}

static void unlock_all(int fd)
{
    if (fd >= 0)
        (void)npk__ofd_lock(fd, F_UNLCK, 0, 0);
    npk__close(&fd);
}

/* The lock file last: while it has its name nobody can begin anything here. */
static int unlink_files(int dir_fd, int side)
{
    int err = npk__unlinkat(side, "dirty", 0);
    if (err && err != -ENOENT)
        return err;
    err = npk__unlinkat(side, "lock", 0);
    if (err && err != -ENOENT)
        return err;
    return npk__unlinkat(dir_fd, NPK__SIDECAR, AT_REMOVEDIR);
}

static int tidy_dir(int dir_fd)
{
    int side = npk__sidecar_open(dir_fd, false), lock = -1;
    if (side < 0)
        return side == -ENOENT ? 0 : side;
    int err = lock_all(dir_fd, &lock);
    if (!err) {
        (void)npk__swap_sweep(side);
        (void)npk__each_name(side, sweep_redo, &side);
        sweep_journal(side);
        err = npk__each_name(side, stop_at_foreign, NULL);
        if (!err)
            err = entries_are_stale(dir_fd);
        if (!err)
            err = unlink_files(dir_fd, side);
        unlock_all(lock);
    }
    npk__close(&side);
    return err;
}

static int tidy_on_leave(void *ctx, int dir_fd, const char *path)
{
    (void)ctx;
    (void)path;
    (void)tidy_dir(dir_fd);
    return 0;
}

static int go_on(void *ctx, const char *path, int err)
{
    (void)ctx;
    (void)path;
    (void)err;
    return 0;
}

void npk_dir_tidy(npk_store *s, const char *dir_path)
{
    static const npk_walk_ops ops = {.leave = tidy_on_leave, .failed = go_on};
    if (npk__dir_path_check(dir_path) != 0 || npk__store_writable(s, dir_path) != 0)
        return;
    (void)npk__walk(s->root_fd, strcmp(dir_path, ".") == 0 ? "" : dir_path, false, &ops, NULL);
    npk__locks_drop_idle();
}

/* ---- a directory that goes ------------------------------------------------------------------------------------- */

struct moving {
    int from, to;
    const char *dir;
};

/* "Nothing is ever silently dropped": what has been set aside in the sidecar goes to the root's, with the path of the
 * directory before its name. */
static int move_aside(void *ctx, const char *name, unsigned char type)
{
    const struct moving *m = ctx;
    char to[256];
    (void)type;
    if (is_ours(name))
        return 0;
    for (unsigned i = 0; i < 1000; i++) {
        int n = snprintf(to, sizeof(to), "aside.%.100s.%.100s.%u", m->dir, name, i);
        for (char *c = to; n > 0 && *c; c++)
            if (*c == '/')
                *c = '_';
        struct stat st;
        int err = npk__fstatat(m->to, to, &st);
        if (err == -ENOENT)
            return npk__renameat2(m->from, name, m->to, to, 0);
        if (err)
            return err;
    }
    return -EEXIST;
}

static int clear_locked(npk_store *s, int dir_fd, const char *dir_path, int side)
{
    (void)npk__swap_sweep(side);
    (void)npk__each_name(side, sweep_redo, &side);
    sweep_journal(side);
    int err = npk__each_name(side, stop_at_foreign, NULL);
    if (err == -ENOTEMPTY) {
        struct moving m = {.from = side, .to = npk__sidecar_open(s->root_fd, true), .dir = dir_path};
        err = m.to < 0 ? m.to : npk__each_name(side, move_aside, &m);
        npk__close(&m.to);
    }
    return err ? err : unlink_files(dir_fd, side);
}

static int clear_dir(npk_store *s, int dir_fd, const char *dir_path)
{
    int err = npk__each_name(dir_fd, stop_at_visible, NULL);
    if (err)
        return err;
    int side = npk__sidecar_open(dir_fd, false), lock = -1;
    if (side < 0)
        return side == -ENOENT ? 0 : side;
    err = lock_all(dir_fd, &lock);
    if (!err) {
        err = clear_locked(s, dir_fd, dir_path, side);
        unlock_all(lock);
    }
    npk__close(&side);
    return err;
}

npk_err npk_dir_clear(npk_store *s, const char *dir_path)
{
    int err = npk__path_check(dir_path); /* the root does not go */
    if (!err)
        err = npk__store_writable(s, dir_path);
    if (err)
        return err;
    int dir_fd = npk__open_beneath(s->root_fd, dir_path, O_RDONLY | O_DIRECTORY, 0);
    if (dir_fd < 0)
        return dir_fd;
    err = clear_dir(s, dir_fd, dir_path);
    npk__close(&dir_fd);
    npk__locks_drop_idle();
    if (err == -ENOTEMPTY)
        return npk__fail(err, "\"%s\": not empty; only an empty directory can be removed", dir_path);
    if (err == -EAGAIN)
        return npk__fail(-EBUSY, "\"%s\": an array in it is being changed; try again when that is done", dir_path);
    return err ? npk__fail_errno(err, dir_path) : 0;
}
