/* SPDX-License-Identifier: Apache-2.0 */
/* Names of arrays: is there one, what is it, rename, remove. */
#define _GNU_SOURCE 1

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dirty.h"
#include "fail.h"
#include "io.h"
#include "known.h"
#include "marks.h"
#include "npk.h"
#include "path.h"
#include "pkg_store.h"
#include "redo.h"
#include "settle.h"
#include "store.h"
#include "swap.h"
#include "target.h"
#include "walk.h"

/* ---- asking ---------------------------------------------------------------------------------------------------- */

/* Facts as they are shown, or of the file itself: the latter can be told whatever its sidecar says. */
static int stat_once(npk_store *s, const char *name, bool shown, npk_info *out)
{
    char path[NPK__PATH_BYTES];
    npk_dir dir;
    const char *leaf;
    int err = npk__name_to_path(name, path, sizeof(path));
    if (!err)
        err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err == -ENOENT || err == -ENOTDIR ? npk__name_failed(err, name) : err;
    struct stat st;
    npk_info info = {0};
    int fd = npk__openat(dir.fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    err = fd < 0 ? fd : npk__fstat(fd, &st);
    if (!err && S_ISDIR(st.st_mode))
        err = -EISDIR;
    if (err)
        npk__name_failed(err, name);
    else if (shown)
        err = npk__shown_facts(dir.fd, leaf, fd, &info, NULL);
    else if ((err = npk__fd_facts(fd, &info, NULL)) != 0)
        npk__fail_errno(err, name);
    npk__close(&fd);
    npk__dir_release(&dir);
    if (!err)
        *out = info;
    return err;
}

static int stat_array(npk_store *s, const char *name, bool shown, npk_info *out)
{
    int err = -ESTALE;
    if (s->package)
        return npk__package_stat(s->package, name, out);
    for (unsigned tries = 0; err == -ESTALE && tries < 100; tries++) /* P6: another file may just take the name */
        err = stat_once(s, name, shown, out);
    return err;
}

npk_err npk_stat(npk_store *s, const char *name, npk_info *out)
{
    return stat_array(s, name, true, out);
}

int npk__stat_file(npk_store *s, const char *name, npk_info *out)
{
    return stat_array(s, name, false, out);
}

npk_err npk_exists(npk_store *s, const char *name, bool *out)
{
    npk_info info;
    int err = npk__stat_file(s, name, &info);
    if (err == -ENOENT || err == -ENOTDIR || err == -EISDIR || err == -ELOOP) {
        *out = false;
        return 0;
    }
    if (err)
        return err;
    *out = info.reason == NULL;
    npk_info_clear(&info);
    return 0;
}

/* ---- rename ---------------------------------------------------------------------------------------------------- */

/* Where the filesystem cannot refuse an existing name by itself: both names are locked, so only a program that takes no
 * lock could come in between. */
static int rename_by_hand(const npk_target *from, const npk_target *to)
{
    struct stat st;
    int err = npk__fstatat(to->dir.fd, to->leaf, &st);
    if (err != -ENOENT)
        return err ? err : -EEXIST;
    return npk__renameat2(from->dir.fd, from->leaf, to->dir.fd, to->leaf, 0);
}

/* What is known of deleted rows goes ahead, too. Where the new name has the same stem there is nothing to copy. */
static int copy_marks(const npk_target *from, const npk_target *to)
{
    struct stat st;
    if (npk__fstatat(to->dir.fd, to->leaf, &st) == 0)
        return npk__fail(-EEXIST, "\"%s\": there is an array or a file of this name; remove it or choose another",
                         to->name);
    int fd = npk__openat(from->dir.fd, from->leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    int err = fd < 0 ? npk__name_failed(fd, from->name)
                     : npk__marks_copy(from->dir.fd, from->leaf, fd, to->dir.fd, to->leaf);
    npk__close(&fd);
    return err;
}

static int move(npk_target *from, const npk_target *to)
{
    struct stat st, from_dir, to_dir;
    npk_file_id id;
    int err = npk__redo_finish(from->dir.fd, from->leaf); /* the record is found by the name */
    if (err)
        return err;
    int fd = npk__openat(from->dir.fd, from->leaf, O_PATH | O_NOFOLLOW, 0);
    err = fd < 0 ? fd : npk__fstat(fd, &st);
    if (!err && !S_ISREG(st.st_mode))
        err = S_ISLNK(st.st_mode) ? -ELOOP : S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
    if (!err)
        err = npk__file_id(fd, &id);
    if (!err)
        err = npk__fstat(from->dir.fd, &from_dir);
    if (!err)
        err = npk__fstat(to->dir.fd, &to_dir);
    bool elsewhere = !err && from_dir.st_ino != to_dir.st_ino;
    if (!err && elsewhere) /* P4: its entry goes ahead of it, so that no moment is without one */
        err = npk__dirty_copy(from->dir.fd, to->dir.fd, fd, to->leaf);
    npk_stamp stamp;
    if (!err)
        err = npk__fd_stamp(fd, &stamp);
    npk__close(&fd);
    if (err)
        return npk__name_failed(err, from->name);
    bool stated = npk__state_there(from->dir.fd, from->leaf, id.inode);
    if (stated && (err = copy_marks(from, to)) != 0)
        return err;
    err = npk__renameat2(from->dir.fd, from->leaf, to->dir.fd, to->leaf, RENAME_NOREPLACE);
    if (err == -EINVAL || err == -ENOSYS)
        err = rename_by_hand(from, to);
    if (!err)
        npk__redo_drop(from->dir.fd, from->leaf);
    if (stated)
        npk__marks_drop_at(err ? to->dir.fd : from->dir.fd, err ? to->leaf : from->leaf, &stamp);
    if (elsewhere) /* the entry that is too many: the new one's if it stayed here */
        (void)npk__dirty_remove(err ? to->dir.fd : from->dir.fd, &id, false);
    if (err == -EEXIST)
        return npk__fail(err, "\"%s\": there is an array or a file of this name; remove it or choose another",
                         to->name);
    return err ? npk__name_failed(err, from->name) : 0;
}

npk_err npk_rename(npk_store *s, const char *from, const char *to)
{
    char path[NPK__PATH_BYTES];
    npk_info info;
    int err = npk__store_writable(s, from);
    if (!err)
        err = npk__name_to_path(to, path, sizeof(path));
    if (!err)
        err = npk__stat_file(s, from, &info); /* before groups are made for nothing */
    if (err)
        return err;
    npk_info_clear(&info);
    err = npk__make_parents(s->root_fd, path);
    if (err)
        return err;
    npk_target targets[2];
    const char *const names[2] = {from, to};
    err = npk__targets_lock(s, names, 2, targets);
    if (!err)
        err = move(&targets[0], &targets[1]);
    npk__target_release(&targets[1]);
    npk__target_release(&targets[0]);
    return err;
}

/* ---- remove ---------------------------------------------------------------------------------------------------- */

/* The array's lock is held. */
static int leave_marks(int dir_fd, const char *leaf, npk_stamp *stamp)
{
    int fd = npk__openat(dir_fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    int err = fd < 0 ? fd : npk__fd_stamp(fd, stamp);
    if (!err)
        err = npk__marks_leave(dir_fd, leaf, fd);
    npk__close(&fd);
    return err == -EACCES ? 0 : err; /* not ours to read: a later file is told from it by what is in it */
}

static int remove_leaf(int dir_fd, const char *leaf)
{
    struct stat st;
    npk_file_id id;
    npk_stamp stamp;
    int fd = npk__openat(dir_fd, leaf, O_PATH | O_NOFOLLOW, 0);
    int err = fd < 0 ? fd : npk__fstat(fd, &st);
    if (!err && !S_ISREG(st.st_mode))
        err = S_ISLNK(st.st_mode) ? -ELOOP : S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
    if (!err)
        err = npk__file_id(fd, &id);
    if (!err)
        err = npk__fd_stamp(fd, &stamp);
    npk__close(&fd);
    if (err)
        return err;
    int stated = npk__state_there(dir_fd, leaf, id.inode) ? leave_marks(dir_fd, leaf, &stamp) : 0;
    if (stated < 0)
        return stated;
    err = npk__unlinkat(dir_fd, leaf, 0);
    if (!err)
        npk__redo_drop(dir_fd, leaf);
    if (!err && stated)
        npk__marks_ended(dir_fd, leaf, &stamp);
    if (!err && st.st_nlink <= 1)
        (void)npk__dirty_remove(dir_fd, &id, false); /* an entry of a file that is gone does no harm */
    return err;
}

npk_err npk_remove(npk_store *s, const char *name)
{
    npk_target t;
    npk_info info;
    int err = npk__store_writable(s, name);
    if (!err)
        err = npk__stat_file(s, name, &info); /* an unknown name makes no sidecar */
    if (err)
        return err;
    npk_info_clear(&info);
    err = npk__target_lock(s, name, &t);
    if (!err) {
        err = remove_leaf(t.dir.fd, t.leaf);
        if (err)
            err = npk__name_failed(err, name);
    }
    npk__target_release(&t);
    return err;
}

static int reset_file(void *ctx, int dir_fd, const char *path, const char *leaf, unsigned char type)
{
    char name[NPK__PATH_BYTES];
    (void)ctx;
    if (type != DT_REG || npk__path_to_name(path, name, sizeof(name)) != 0)
        return 0;
    npk_lock lock;
    int err = npk__lock_array(dir_fd, leaf, NPK_LOCK_EXCLUSIVE, &lock);
    if (err)
        return err;
    int fd = npk__openat(dir_fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    npk_info info = {0};
    err = fd < 0 ? fd : npk__fd_facts(fd, &info, NULL);
    npk__close(&fd);
    if (!err && !info.reason)
        err = remove_leaf(dir_fd, leaf);
    npk_info_clear(&info);
    npk__unlock(&lock);
    if (err == -ENOENT)
        return 0; /* somebody else was faster */
    return err ? npk__name_failed(err, name) : 0;
}

/* A directory that shows nothing any more goes, with its sidecar; the root and what holds plain files stays. */
static int reset_leave(void *ctx, int dir_fd, const char *path)
{
    npk_store *s = ctx;
    int side = npk__sidecar_open(dir_fd, false);
    if (side >= 0) {
        (void)npk__swap_sweep(side);
        npk__close(&side);
    }
    if (*path == '\0') {
        npk_dir_tidy(s, path);
        return 0;
    }
    int err = npk_dir_clear(s, path);
    if (err) {
        npk_dir_tidy(s, path);
        return err == -ENOTEMPTY || err == -ENOENT ? 0 : err;
    }
    npk_dir above;
    const char *leaf;
    err = npk__dir_of(s->root_fd, path, &above, &leaf);
    if (err)
        return err;
    err = npk__unlinkat(above.fd, leaf, AT_REMOVEDIR);
    npk__dir_release(&above);
    return err && err != -ENOTEMPTY && err != -EEXIST && err != -ENOENT ? npk__fail_errno(err, path) : 0;
}

npk_err npk_reset(npk_store *s)
{
    static const npk_walk_ops ops = {.entry = reset_file, .leave = reset_leave};
    int err = npk__store_writable(s, s->label);
    return err ? err : npk__walk(s->root_fd, "", false, &ops, s);
}
