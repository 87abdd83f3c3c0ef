/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save_file.c - a save whose bytes come through a descriptor, and which nobody sees before it is complete (P30). The
 * functions are in npk.h.
 *
 * The file is a swap's temporary file for as long as the save takes: whoever finds it unlocked knows that its maker is
 * dead. Nothing but the file is kept between the calls, so the name may be renamed, removed or saved over meanwhile:
 * what has the name when the save ends is what is replaced.
 */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dirty.h"
#include "fail.h"
#include "io.h"
#include "journal.h"
#include "lease.h"
#include "lock.h"
#include "npk.h"
#include "path.h"
#include "redo.h"
#include "store.h"
#include "swap.h"

struct npk_save_file {
    npk_swap swap;
    int dir_fd; /* owned: the directory may be renamed meanwhile */
};

static void free_file(npk_save_file **f)
{
    npk__swap_abort(&(*f)->swap);
    npk__close(&(*f)->dir_fd);
    free(*f);
    *f = NULL;
}

npk_err npk_save_file_begin(npk_store *s, const char *path, int fd, npk_save_file **out)
{
    npk_dir dir;
    const char *leaf;
    int err = npk__path_check(path);
    if (!err)
        err = npk__store_writable(s, path);
    if (!err)
        err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    npk_save_file *f = calloc(1, sizeof(*f));
    int own = f ? fcntl(dir.fd, F_DUPFD_CLOEXEC, 3) : -1;
    npk__dir_release(&dir);
    if (own < 0) {
        free(f);
        return npk__fail(f ? -EMFILE : -ENOMEM, "\"%s\": %s", path, f ? "too many open files" : "out of memory");
    }
    f->dir_fd = own;
    f->swap = NPK_SWAP_NONE;
    err = npk__swap_begin(own, leaf, fd, &f->swap);
    if (err) {
        free_file(&f);
        return err;
    }
    f->swap.old_fd = -1; /* the caller's, and perhaps another file's by the end */
    *out = f;
    return 0;
}

int npk_save_file_fd(const npk_save_file *f)
{
    return f->swap.fd;
}

/* How long pickled objects are only who unpickles them learns; but they end with its STOP. */
static bool ends_like_a_pickle(int fd, const npk_info *info)
{
    char last = 0;
    return info->file_bytes > info->header.data_offset &&
           npk__pread_full(fd, &last, 1, info->file_bytes - 1) == 1 && last == '.';
}

npk_save_state npk_save_file_state(const npk_save_file *f)
{
    npk_info info;
    if (npk_fd_stat(f->swap.fd, &info) != 0)
        return NPK_SAVE_PART;
    npk_save_state state = NPK_SAVE_PART;
    const npk_header *h = &info.header;
    if (info.file_bytes == 0)
        state = NPK_SAVE_EMPTY;
    else if (info.reason)
        state = NPK_SAVE_PART;
    else if (h->dtype.kind == NPK_KIND_OBJECT)
        state = ends_like_a_pickle(f->swap.fd, &info) ? NPK_SAVE_WHOLE : NPK_SAVE_PART;
    else if (info.file_bytes - h->data_offset >= h->data_bytes)
        state = NPK_SAVE_WHOLE;
    else if (info.file_bytes == h->data_offset)
        state = NPK_SAVE_HEADER;
    npk_info_clear(&info);
    return state;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

/* What has the name now, or -ENOENT. */
static int open_named(const npk_save_file *f)
{
    struct stat st;
    int fd = npk__openat(f->dir_fd, f->swap.leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    int err = fd < 0 ? fd : npk__fstat(fd, &st);
    if (err == -ENOENT)
        return err;
    if (!err && !S_ISREG(st.st_mode))
        err = npk__fail(S_ISDIR(st.st_mode) ? -EISDIR : -EEXIST, "\"%s\": something else than a file has the name by now",
                        f->swap.leaf);
    else if (err)
        err = npk__fail_errno(err, f->swap.leaf);
    if (err)
        npk__close(&fd);
    return err ? err : fd;
}

static int take_place_of(npk_save_file *f, int old_fd, unsigned flags)
{
    npk_file_id id;
    int err = old_fd >= 0 ? npk__file_id(old_fd, &id) : 0;
    if (err)
        return npk__fail_errno(err, f->swap.leaf);
    int lease = old_fd < 0 ? -ENOTSUP : npk__lease_take(old_fd);
    if (lease == -EAGAIN)
        return npk__fail(-EBUSY,
                         "\"%s\": not saved, since a program has the old array open or mapped for writing; save it "
                         "again when it is closed",
                         f->swap.leaf);
    char leaf[256];
    memcpy(leaf, f->swap.leaf, sizeof(leaf));
    f->swap.old_fd = old_fd;
    err = npk__swap_commit(&f->swap, flags | (lease == 0 ? NPK_SWAP_LEASE : 0) |
                                         (old_fd < 0 ? NPK_SWAP_NOREPLACE : 0));
    f->swap.old_fd = -1;
    if (lease == 0)
        npk__lease_drop(old_fd);
    if (!err && old_fd >= 0) {
        (void)npk__dirty_remove(f->dir_fd, &id, false); /* an entry of an inode without a name harms nobody */
        npk__redo_drop(f->dir_fd, leaf);                /* what was to be redone was the old file's */
    }
    return err;
}

static int publish_locked(npk_save_file *f, unsigned flags)
{
    for (unsigned tries = 0;; tries++) { /* programs that take no lock may move names meanwhile */
        int old_fd = open_named(f);
        if (old_fd < 0 && old_fd != -ENOENT)
            return old_fd;
        int err = take_place_of(f, old_fd, flags);
        npk__close(&old_fd);
        if ((err != -ESTALE && err != -EEXIST) || tries >= 8)
            return err;
    }
}

npk_err npk_save_file_publish(npk_store *s, npk_save_file **file, const char *path, unsigned flags)
{
    npk_save_file *f = *file;
    npk_lock lock;
    int err = npk__path_check(path);
    if (!err)
        err = npk__store_writable(s, path);
    /* Before the lock, since it may take long: after power loss there is the one or the other, never an empty file. */
    if (!err && (err = npk__fdatasync(f->swap.fd)) != 0)
        npk__fail_errno(err, path);
    while (!err) {
        err = npk__lock_array(f->dir_fd, f->swap.leaf, NPK_LOCK_EXCLUSIVE, &lock);
        if (err)
            break;
        int blocked = npk__journal_blocks(s, path);
        if (blocked == 0)
            err = publish_locked(f, flags & NPK_SAVE_DURABLE ? NPK_SWAP_SYNC : 0);
        npk__unlock(&lock);
        if (blocked == 0)
            break;
        err = blocked == -EAGAIN ? npk__journal_wait(s, NULL, 0) : blocked; /* the journal's lock comes first (P11) */
    }
    if (!err)
        free_file(file);
    return err;
}

static int rename_aside(npk_save_file *f, const char *aside)
{
    int err = npk__renameat2(f->swap.sidecar_fd, f->swap.tmp, f->dir_fd, aside, RENAME_NOREPLACE);
    if (err != -EINVAL && err != -ENOSYS)
        return err;
    err = npk__linkat(f->swap.sidecar_fd, f->swap.tmp, f->dir_fd, aside, 0); /* a link never replaces */
    return err ? err : npk__unlinkat(f->swap.sidecar_fd, f->swap.tmp, 0);
}

npk_err npk_save_file_set_aside(npk_save_file **file, char aside[256])
{
    npk_save_file *f = *file;
    int err = -EEXIST;
    *aside = '\0';
    if (npk_save_file_state(f) == NPK_SAVE_EMPTY) {
        free_file(file);
        return 0;
    }
    for (unsigned i = 0; err == -EEXIST && i < 1000; i++) {
        npk__unfinished_name(f->swap.leaf, i, aside);
        err = rename_aside(f, aside);
    }
    if (err)
        err = npk__fail_errno(err, f->swap.leaf);
    free_file(file); /* a file that could not be renamed goes: its directory is gone, or its disk fails */
    return err;
}
