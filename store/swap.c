/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "swap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "digits.h"
#include "dirty.h"
#include "fail.h"
#include "io.h"
#include "lease.h"
#include "lock.h"
#include "marks.h"
#include "path.h"
#include "settle.h"
#include "store.h"

/* ---- what a new file takes over from the old one --------------------------------------------------------------- */

static bool xattr_is_carried(const char *name)
{
    return strncmp(name, "user.", 5) == 0 || strcmp(name, "system.posix_acl_access") == 0 ||
           (strncmp(name, "trusted.", 8) == 0 && geteuid() == 0);
}

static int copy_xattr(int from, int to, const char *name)
{
    char small[256], *value = small;
    ssize_t n = npk__fgetxattr(from, name, small, sizeof(small));
    if (n == -ERANGE) {
        if (!(value = malloc(65536))) /* XATTR_SIZE_MAX */
            return -ENOMEM;
        n = npk__fgetxattr(from, name, value, 65536);
    }
    int err = n < 0 ? (int)n : npk__fsetxattr(to, name, value, (size_t)n);
    if (value != small)
        free(value);
    return err == -ENODATA ? 0 : err; /* removed meanwhile */
}

static int copy_xattrs(int from, int to)
{
    char small[1024], *list = small;
    ssize_t n = npk__flistxattr(from, small, sizeof(small));
    if (n == -EOPNOTSUPP)
        return 0;
    if (n == -ERANGE) {
        if (!(list = malloc(65536))) /* XATTR_LIST_MAX */
            return -ENOMEM;
        n = npk__flistxattr(from, list, 65536);
    }
    int err = n < 0 ? (int)n : 0;
    for (ssize_t at = 0; at < n && !err; at += (ssize_t)strlen(list + at) + 1)
        if (xattr_is_carried(list + at))
            err = copy_xattr(from, to, list + at);
    if (list != small)
        free(list);
    return err;
}

/* Inode flags (chattr) and the project of a quota. Filesystems without them answer the question with an error. */
static int copy_flags(int from, int to)
{
    const int carried = FS_FL_USER_MODIFIABLE | FS_NOCOW_FL;
    int want = 0, have = 0;
    if (npk__ioctl(from, FS_IOC_GETFLAGS, &want, false) == 0 && npk__ioctl(to, FS_IOC_GETFLAGS, &have, false) == 0 &&
        (want & carried) != (have & carried)) {
        if (want & (FS_IMMUTABLE_FL | FS_APPEND_FL))
            return -ENOTSUP;
        have = (have & ~carried) | (want & carried);
        if (npk__ioctl(to, FS_IOC_SETFLAGS, &have, true) != 0)
            return -ENOTSUP;
    }
    struct fsxattr old, new;
    if (npk__ioctl(from, FS_IOC_FSGETXATTR, &old, false) == 0 && npk__ioctl(to, FS_IOC_FSGETXATTR, &new, false) == 0 &&
        old.fsx_projid != new.fsx_projid) {
        new.fsx_projid = old.fsx_projid;
        if (npk__ioctl(to, FS_IOC_FSSETXATTR, &new, true) != 0)
            return -ENOTSUP;
    }
    return 0;
}

int npk__carry_over(int from, int to, const char *leaf)
{
    struct stat old, new;
    int err = npk__fstat(from, &old);
    if (!err)
        err = npk__fstat(to, &new);
    if (err)
        return npk__fail_errno(err, leaf);
    if (old.st_nlink > 1)
        return npk__fail(-EMLINK,
                         "\"%s\": the file has %lu names (hard links); an operation that makes a new file would "
                         "part them, so only one name is accepted",
                         leaf, (unsigned long)old.st_nlink);
    if ((old.st_uid != new.st_uid || old.st_gid != new.st_gid) && npk__fchown(to, old.st_uid, old.st_gid) != 0)
        return npk__fail(-ENOTSUP,
                         "\"%s\": a new file cannot be given its owner; this needs the owner's own process, or "
                         "root's",
                         leaf);
    err = npk__fchmod(to, old.st_mode & 07777); /* after the owner: a change of owner clears bits */
    if (!err)
        err = copy_xattrs(from, to);
    if (err == -ENOSPC || err == -EDQUOT || err == -EIO || err == -ENOMEM)
        return npk__fail_errno(err, leaf);
    if (!err)
        err = copy_flags(from, to);
    if (err)
        return npk__fail(-ENOTSUP, "\"%s\": a new file cannot be given all of its extended attributes and flags", leaf);
    return 0;
}

/* ---- the temporary file ---------------------------------------------------------------------------------------- */

static int random_name(char *out, size_t cap)
{
    uint64_t r;
    ssize_t n;
    do
        n = getrandom(&r, sizeof(r), 0);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(r))
        return -EIO;
    snprintf(out, cap, NPK__TMP_PREFIX "%016llx", (unsigned long long)r);
    return 0;
}

/* A file that is locked by us and still has its name: a sweeper may have come between the two. */
int npk__tmp_make(int sidecar_fd, mode_t mode, char name[32])
{
    for (unsigned tries = 0; tries < 100; tries++) {
        int err = random_name(name, 32);
        if (err)
            return err;
        int fd = npk__openat(sidecar_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
        if (fd == -EEXIST)
            continue;
        if (fd < 0)
            return fd;
        struct stat st;
        err = npk__ofd_lock(fd, F_WRLCK, 0, 0);
        if (!err && npk__fstat(fd, &st) == 0 && st.st_nlink > 0)
            return fd;
        npk__close(&fd);
        if (err && err != -EAGAIN) {
            (void)npk__unlinkat(sidecar_fd, name, 0);
            return err;
        }
    }
    return -EEXIST;
}

int npk__swap_begin(int dir_fd, const char *leaf, int old_fd, npk_swap *out)
{
    npk_swap w = NPK_SWAP_NONE;
    if (strlen(leaf) >= sizeof(w.leaf))
        return npk__fail(-ENAMETOOLONG, "\"%s\": at most 255 bytes", leaf);
    memcpy(w.leaf, leaf, strlen(leaf) + 1);
    w.dir_fd = dir_fd;
    w.old_fd = old_fd;
    w.sidecar_fd = npk__sidecar_open(dir_fd, true);
    if (w.sidecar_fd < 0)
        return w.sidecar_fd;
    w.fd = npk__tmp_make(w.sidecar_fd, old_fd >= 0 ? 0600 : 0666, w.tmp);
    if (w.fd < 0) {
        npk__close(&w.sidecar_fd);
        return npk__fail_errno(w.fd, leaf);
    }
    int err = old_fd >= 0 ? npk__carry_over(old_fd, w.fd, leaf) : 0;
    if (err)
        npk__swap_abort(&w);
    else
        *out = w;
    return err;
}

static void let_go(npk_swap *w)
{
    if (w->fd >= 0)
        (void)npk__ofd_lock(w->fd, F_UNLCK, 0, 0); /* a forked child may have the description, too */
    npk__close(&w->fd);
    npk__close(&w->sidecar_fd);
    *w = NPK_SWAP_NONE;
}

void npk__swap_abort(npk_swap *w)
{
    if (w->sidecar_fd >= 0)
        (void)npk__unlinkat(w->sidecar_fd, w->tmp, 0);
    let_go(w);
}

static int still_old(const npk_swap *w)
{
    struct stat old, named;
    int err = npk__fstat(w->old_fd, &old);
    if (err)
        return err;
    err = npk__fstatat(w->dir_fd, w->leaf, &named);
    if (err && err != -ENOENT)
        return err;
    if (err || named.st_ino != old.st_ino || named.st_dev != old.st_dev)
        return npk__fail(-ESTALE, "\"%s\": another file has the name by now", w->leaf);
    return old.st_nlink > 1 ? npk__fail(-EMLINK, "\"%s\": the file has got a second name (hard link)", w->leaf) : 0;
}

static int take_name(npk_swap *w, bool noreplace)
{
    int err = npk__renameat2(w->sidecar_fd, w->tmp, w->dir_fd, w->leaf, noreplace ? RENAME_NOREPLACE : 0);
    if (!noreplace || (err != -EINVAL && err != -ENOSYS))
        return err;
    /* The filesystem cannot rename so: a link never replaces. */
    err = npk__linkat(w->sidecar_fd, w->tmp, w->dir_fd, w->leaf, 0);
    return err ? err : npk__unlinkat(w->sidecar_fd, w->tmp, 0);
}

static int sync_dir(int dir_fd)
{
    int fd = npk__openat(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0); /* dir_fd may be O_PATH */
    if (fd < 0)
        return fd;
    int err = npk__fsync(fd);
    npk__close(&fd);
    return err;
}

/* The old file's rows go, and what was deleted of them. 1: there is a state, which speaks of the old inode alone now. */
static int end_state(const npk_swap *w, npk_stamp *old)
{
    int err = npk__fd_stamp(w->old_fd, old);
    if (err)
        return npk__fail_errno(err, w->leaf);
    return npk__state_there(w->dir_fd, w->leaf, old->id.inode) ? npk__marks_leave(w->dir_fd, w->leaf, w->old_fd) : 0;
}

int npk__swap_commit(npk_swap *w, unsigned flags)
{
    int err = flags & NPK_SWAP_SYNC ? npk__fsync(w->fd) : 0;
    if (err)
        return npk__fail_errno(err, w->leaf);
    if (w->old_fd >= 0 && (err = still_old(w)) != 0)
        return err;
    if ((flags & NPK_SWAP_LEASE) && !npk__lease_holds(w->old_fd))
        return npk__fail(-EBUSY, "\"%s\": a program has just opened it for writing; try again when it is done",
                         w->leaf);
    npk_stamp old = {.dev = 0};
    int stated = w->old_fd >= 0 && !(flags & NPK_SWAP_STATE) ? end_state(w, &old) : 0;
    if (stated < 0)
        return stated;
    err = take_name(w, flags & NPK_SWAP_NOREPLACE);
    if (!err && stated)
        npk__marks_ended(w->dir_fd, w->leaf, &old);
    if (err == -EEXIST)
        return npk__fail(err, "\"%s\": exists already", w->leaf);
    if (!err && (flags & NPK_SWAP_SYNC))
        err = sync_dir(w->dir_fd);
    if (err)
        return npk__fail_errno(err, w->leaf);
    let_go(w);
    return 0;
}

void npk__unfinished_name(const char *leaf, unsigned i, char out[256])
{
    char number[16] = "";
    if (i > 0)
        snprintf(number, sizeof(number), ".%u", i);
    snprintf(out, 256, "%.220s.unfinished%s", leaf, number);
}

int npk__swap_sweep(int sidecar_fd)
{
    int fd = npk__openat(sidecar_fd, ".", O_RDONLY | O_DIRECTORY, 0), removed = 0;
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        npk__close(&fd);
        return fd < 0 ? fd : -ENOMEM;
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strncmp(e->d_name, NPK__TMP_PREFIX, strlen(NPK__TMP_PREFIX)) != 0)
            continue;
        int tmp = npk__openat(sidecar_fd, e->d_name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
        if (tmp >= 0 && npk__ofd_lock(tmp, F_WRLCK, 0, 0) == 0 && npk__unlinkat(sidecar_fd, e->d_name, 0) == 0)
            removed++;
        npk__close(&tmp);
    }
    closedir(d);
    return removed;
}

/* ---- swaps that the mount asks for ----------------------------------------------------------------------------- */

static int replace_empty_locked(npk_dir *dir, const char *leaf, int fd)
{
    npk_swap w;
    npk_file_id id;
    int err = npk__file_id(fd, &id);
    if (err)
        return npk__fail_errno(err, leaf);
    err = npk__swap_begin(dir->fd, leaf, fd, &w);
    if (err)
        return err;
    err = npk__swap_commit(&w, 0);
    npk__swap_abort(&w);
    if (!err)
        (void)npk__dirty_remove(dir->fd, &id, false); /* an entry of an inode without a name harms nobody */
    return err;
}

npk_err npk_replace_empty(npk_store *s, const char *path, int fd)
{
    npk_dir dir;
    npk_lock lock;
    const char *leaf;
    int err = npk__path_check(path);
    if (!err)
        err = npk__store_writable(s, path);
    if (!err)
        err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    err = npk__lock_array(dir.fd, leaf, NPK_LOCK_EXCLUSIVE, &lock);
    if (!err) {
        err = replace_empty_locked(&dir, leaf, fd);
        npk__unlock(&lock);
    }
    npk__dir_release(&dir);
    return err;
}

/* Copy the data in steps, looking at the lease after each: an opener waits in the kernel meanwhile. Each step is
 * synced, so that the last sync is short, too. */
static int copy_data(int from, uint64_t offset, const npk_swap *w, uint64_t to_offset, uint64_t bytes)
{
    const uint64_t step = 32u << 20;
    for (uint64_t done = 0; done < bytes; done += step) {
        uint64_t n = bytes - done < step ? bytes - done : step;
        int err = npk__copy_full(from, offset + done, w->fd, to_offset + done, n);
        if (!err && bytes > step)
            err = npk__fdatasync(w->fd);
        if (err)
            return npk__fail_errno(err, w->leaf);
        if (!npk__lease_holds(from))
            return npk__fail(-EBUSY, "\"%s\": a program has just opened it for writing; try again when it is done",
                             w->leaf);
    }
    return 0;
}

/* The longer header, counting `rows`, and the data behind it. */
static int write_roomier(int from, const npk_info *info, uint64_t rows, const npk_swap *w)
{
    const npk_header *h = &info->header;
    size_t cap = (size_t)h->data_offset + 256, bytes = 0;
    uint8_t *old = malloc(2 * cap), *new = old + cap;
    if (!old)
        return npk__fail(-ENOMEM, "\"%s\": out of memory", w->leaf);
    ssize_t n = npk__pread_full(from, old, (size_t)h->data_offset, 0);
    int err = n < 0 ? (int)n : (uint64_t)n < h->data_offset ? -EIO : 0;
    if (!err)
        err = npk__header_relayout(old, (size_t)n, h, rows, new, cap, &bytes);
    if (!err)
        err = npk__pwrite_full(w->fd, new, bytes, 0);
    free(old);
    if (err)
        return npk__fail_errno(err, w->leaf);
    return copy_data(from, h->data_offset, w, bytes, info->file_bytes - h->data_offset);
}

/* The same rows in another file: what is deleted of them stays so. */
static int commit_with_state(npk_swap *w, int ro_fd, const npk_info *info)
{
    npk_marks m;
    npk_marks_swap both;
    npk_stamp stamp;
    int dir_fd = w->dir_fd, err = npk__fd_stamp(ro_fd, &stamp);
    if (err)
        return npk__fail_errno(err, w->leaf);
    err = npk__marks_look(dir_fd, w->leaf, ro_fd, info, &stamp, &m);
    if (err)
        return err;
    char leaf[256];
    memcpy(leaf, w->leaf, sizeof(leaf));
    m.leaf = leaf; /* the commit clears the other */
    err = npk__fsync(w->fd);
    err = err ? npk__fail_errno(err, leaf) : npk__marks_swap_begin(&m, w->fd, 0, &both);
    if (!err) {
        err = npk__swap_commit(w, NPK_SWAP_LEASE | NPK_SWAP_SYNC | NPK_SWAP_STATE);
        int ended = npk__marks_swap_end(&m, &both);
        err = err ? err : ended;
    }
    npk__marks_release(&m);
    return err;
}

/* ro_fd holds the lease. The new file gets its entry before it gets the name: growth after a crash must be adopted. */
static int swap_roomier(int dir_fd, const char *leaf, int ro_fd, const npk_info *info, const npk_dirty *old)
{
    npk_swap w;
    int err = npk__swap_begin(dir_fd, leaf, ro_fd, &w);
    if (err)
        return err;
    uint64_t rows = info->rows + info->tail_bytes / info->header.row_bytes;
    npk_dirty entry = *old;
    npk_info now;
    err = write_roomier(ro_fd, info, rows, &w);
    if (!err)
        err = npk__fd_facts(w.fd, &now, &entry.id);
    if (!err) {
        entry.data_offset = now.header.data_offset;
        entry.rows_known = rows;
        entry.marked = false;
        err = npk__settle_state(&now) == NPK_SETTLED || npk__settle_state(&now) == NPK_PART_ROW ? 0 : -EIO;
        npk_info_clear(&now);
        if (err)
            npk__fail_errno(err, leaf);
    }
    if (!err)
        err = npk__dirty_add(dir_fd, &entry);
    if (!err) {
        err = commit_with_state(&w, ro_fd, info);
        (void)npk__dirty_remove(dir_fd, err ? &entry.id : &old->id, false);
    }
    npk__swap_abort(&w);
    return err;
}

static int lease_for_swap(npk_store *s, int ro_fd, const char *leaf)
{
    const char *why;
    if (!npk_leases_prove(s, &why))
        return npk__fail(-EBUSY,
                         "\"%s\": the header has no room and nothing proves here that nobody writes (%s); copy the "
                         "array with np.save while nobody does",
                         leaf, why);
    int err = npk__lease_take(ro_fd);
    if (err == -EAGAIN)
        return npk__fail(-EBUSY, "\"%s\": a program has it open or mapped for writing; try again when it is done",
                         leaf);
    if (err)
        return npk__fail(-EBUSY, "\"%s\": only its owner (or root) can be told that nobody writes to it", leaf);
    return 0;
}

static int make_room_locked(npk_store *s, int dir_fd, const char *leaf, int ro_fd)
{
    npk_settle_state state;
    npk_info info = {0};
    int err = npk__settle_locked(s, dir_fd, leaf, ro_fd, 0, &state, &info);
    if (err)
        return err;
    npk_info_clear(&info);
    if (state != NPK_NO_ROOM)
        return 0;
    err = lease_for_swap(s, ro_fd, leaf);
    if (err)
        return err;
    npk_file_id id;
    npk_dirty entry;
    err = npk__fd_facts(ro_fd, &info, &id); /* again, now that nobody writes */
    if (err)
        npk__fail_errno(err, leaf);
    else if (npk__settle_state(&info) == NPK_TAIL && (err = npk__dirty_find(dir_fd, &id, &entry)) > 0)
        err = swap_roomier(dir_fd, leaf, ro_fd, &info, &entry);
    npk_info_clear(&info);
    npk__lease_drop(ro_fd);
    return err;
}

npk_err npk_make_room(npk_store *s, const char *path)
{
    npk_dir dir;
    npk_lock lock;
    const char *leaf;
    int err = npk__path_check(path);
    if (!err)
        err = npk__store_writable(s, path);
    if (!err)
        err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    err = npk__lock_array(dir.fd, leaf, NPK_LOCK_EXCLUSIVE, &lock);
    if (!err) {
        int ro_fd = npk__open_beneath(dir.fd, leaf, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
        err = ro_fd < 0 ? ro_fd : make_room_locked(s, dir.fd, leaf, ro_fd);
        npk__close(&ro_fd);
        npk__unlock(&lock);
    }
    npk__dir_release(&dir);
    return err;
}
