/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - sessions of writing: from an array's entry in the dirty table until a lease proves that nobody writes any
 * more (P4). The functions are in npk.h and settle.h.
 */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "ahead.h"
#include "dirty.h"
#include "fail.h"
#include "io.h"
#include "lease.h"
#include "lock.h"
#include "marks.h"
#include "npk.h"
#include "npy.h"
#include "path.h"
#include "redo.h"
#include "settle.h"
#include "store.h"

/* ---- begin ----------------------------------------------------------------------------------------------------- */

/* Growth is rows only if the file ends now where its rows end, or inside one that is being appended. What is beyond may
 * be anything; it must never be counted together with what comes. */
static bool may_adopt(int fd, const npk_info *info)
{
    uint8_t tail[NPK__NPY_MAGIC_BYTES];
    uint64_t end = info->header.data_offset + info->header.data_bytes;
    if (info->tail_bytes >= info->header.row_bytes)
        return false;
    return info->tail_bytes < sizeof(tail) || npk__pread_full(fd, tail, sizeof(tail), end) != (ssize_t)sizeof(tail) ||
           memcmp(tail, NPK__NPY_MAGIC, sizeof(tail)) != 0;
}

/* Is the file a finished row array, and has it an entry that fits its header? */
static bool is_finished(const npk_info *info)
{
    npk_settle_state state = npk__settle_state(info);
    return state == NPK_SETTLED || state == NPK_PART_ROW || state == NPK_TAIL;
}

static bool fits(const npk_dirty *e, const npk_info *info)
{
    return e->data_offset == info->header.data_offset && e->row_bytes == info->header.row_bytes;
}

/* An entry helps a file that is no finished array only to be recovered. */
static int there_for(int there, const npk_dirty *e, const npk_info *info)
{
    return there > 0 && !fits(e, info) ? 0 : there;
}

static void fill_entry(npk_dirty *e, const char *leaf, int fd, const npk_info *info, const npk_file_id *id)
{
    *e = (npk_dirty){.id = *id,
                     .rows_known = info->rows,
                     .data_offset = info->header.data_offset,
                     .row_bytes = info->header.row_bytes,
                     .may_adopt = may_adopt(fd, info)};
    memcpy(e->name, leaf, strnlen(leaf, sizeof(e->name) - 1));
}

int npk__session_entry(int dir_fd, const char *leaf, int fd, npk_dirty *out)
{
    npk_info info;
    npk_file_id id;
    npk_dirty there;
    int err = npk__fd_facts(fd, &info, &id);
    if (err)
        return err;
    bool wanted = is_finished(&info) && npk__dirty_find(dir_fd, &id, &there) == 0;
    if (wanted)
        fill_entry(out, leaf, fd, &info, &id);
    npk_info_clear(&info);
    return wanted;
}

static int make_entry(int dir_fd, const char *leaf, int fd, const npk_info *info, const npk_file_id *id, npk_dirty *out)
{
    npk_dirty e;
    fill_entry(&e, leaf, fd, info, id);
    int err = npk__dirty_add(dir_fd, &e);
    if (err)
        return err;
    int there = npk__dirty_find(dir_fd, id, out); /* where it is in the table */
    return there == 0 ? npk__fail(-EIO, "\"%s\": its entry in .npkfs/dirty is gone again", leaf) : there;
}

int npk__session_begin_at(int dir_fd, const char *leaf, int fd, npk_dirty *out)
{
    npk_info info;
    npk_file_id id;
    int err = npk__fd_facts(fd, &info, &id);
    if (err)
        return npk__fail_errno(err, leaf);
    bool finished = is_finished(&info);
    int there = npk__dirty_find(dir_fd, &id, out);
    /* An entry of what the file was before somebody wrote it anew is replaced. */
    if (finished && (there == 0 || (there > 0 && !fits(out, &info))))
        there = make_entry(dir_fd, leaf, fd, &info, &id, out);
    there = there_for(there, out, &info);
    npk_info_clear(&info);
    return there;
}

/* A library user's append is under way or died: wait for its lock, and finish what a dead one left before others write. */
static int finish_marked(npk_store *s, const char *path, int fd)
{
    npk_dir dir;
    npk_lock lock;
    const char *leaf;
    int err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    err = npk__lock_array(dir.fd, leaf, NPK_LOCK_EXCLUSIVE, &lock);
    if (!err) {
        err = npk__settle_mark_locked(dir.fd, leaf, fd);
        npk__unlock(&lock);
    }
    npk__dir_release(&dir);
    return err ? err : 1;
}

/* P7: does the deletion log know rows that the file does not have? They are cut off it before any is written there: 1
 * if that is to be done, 0 if there are none (any more). Two calls for an array from which nothing was ever deleted. */
static int marks_beyond(npk_store *s, const char *path, int fd, bool cut)
{
    npk_dir dir;
    npk_stamp stamp;
    npk_info info = {0};
    const char *leaf;
    int err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    err = npk__fd_stamp(fd, &stamp);
    if (err)
        npk__fail_errno(err, path);
    int beyond = !err && npk__state_there(dir.fd, leaf, stamp.id.inode);
    npk_lock lock = NPK_LOCK_NONE;
    if (beyond && cut)
        err = npk__lock_array(dir.fd, leaf, NPK_LOCK_EXCLUSIVE, &lock);
    if (beyond && !err) {
        npk_marks m = {.known = NPK_KNOWN_NONE};
        err = npk__fd_look(fd, &info, &stamp);
        if (err)
            npk__fail_errno(err, path);
        else if (cut)
            err = npk__marks_look(dir.fd, leaf, fd, &info, &stamp, &m);
        else
            err = npk__known(dir.fd, leaf, fd, &info, &stamp, &m.known);
        beyond = m.known.beyond;
        if (!err && cut)
            err = npk__marks_cut(&m);
        npk__marks_release(&m);
        npk_info_clear(&info);
    }
    npk__unlock(&lock);
    npk__dir_release(&dir);
    return err ? err : beyond;
}

npk_err npk_session_begin(npk_store *s, const char *path, int fd, bool *entered)
{
    npk_info info;
    npk_file_id id;
    npk_dirty e;
    int err = npk__path_check(path);
    if (!err)
        err = npk__store_writable(s, path);
    if (err)
        return err;
    err = npk__fd_facts(fd, &info, &id);
    if (err)
        return npk__fail_errno(err, path);
    bool finished = is_finished(&info);
    int there = npk__dirty_find_at(s->root_fd, path, &id, &e);
    if (finished && (there == 0 || (there > 0 && !fits(&e, &info)))) {
        npk_dir dir;
        const char *leaf;
        there = npk__dir_of(s->root_fd, path, &dir, &leaf);
        if (there == 0) {
            there = make_entry(dir.fd, leaf, fd, &info, &id, &e);
            if (there > 0)
                npk__ahead_note(s, path, leaf, dir.fd);
            npk__dir_release(&dir);
        }
    }
    there = there_for(there, &e, &info);
    npk_info_clear(&info);
    if (there > 0 && e.marked)
        there = finish_marked(s, path, fd);
    if (there > 0 && (err = marks_beyond(s, path, fd, true)) < 0)
        there = err;
    if (there < 0)
        return there;
    *entered = there > 0;
    return 0;
}

/* ---- find and forget ------------------------------------------------------------------------------------------- */

static int find(npk_store *s, const char *path, int fd, npk_file_id *id, npk_dirty *e)
{
    int err = npk__path_check(path);
    if (err)
        return err;
    err = npk__file_id(fd, id);
    return err ? npk__fail_errno(err, path) : npk__dirty_find_at(s->root_fd, path, id, e);
}

npk_err npk_session_find(npk_store *s, const char *path, int fd, bool *entered)
{
    npk_file_id id;
    npk_dirty e;
    int there = find(s, path, fd, &id, &e);
    if (there < 0)
        return there;
    *entered = there > 0;
    return 0;
}

npk_err npk_session_ready(npk_store *s, const char *path, int fd, bool *ready)
{
    npk_file_id id;
    npk_dirty e;
    int there = find(s, path, fd, &id, &e);
    if (there < 0)
        return there;
    int beyond = there > 0 && !e.marked ? marks_beyond(s, path, fd, false) : 0;
    if (beyond < 0 && beyond != -EUCLEAN)
        return beyond;
    *ready = there > 0 && !e.marked && beyond == 0;
    return 0;
}

npk_err npk_session_forget(npk_store *s, const char *path, int fd)
{
    npk_file_id id;
    npk_dirty e;
    npk_dir dir;
    npk_lock lock;
    const char *leaf;
    npk_stamp stamp;
    int there = find(s, path, fd, &id, &e);
    if (there < 0)
        return there;
    int err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    bool stated = npk__state_there(dir.fd, leaf, id.inode);
    if (there == 0 && !stated) {
        npk__dir_release(&dir);
        return 0;
    }
    err = npk__store_writable(s, path);
    if (!err)
        err = npk__lock_array(dir.fd, leaf, NPK_LOCK_EXCLUSIVE, &lock);
    if (!err) {
        if (stated && npk__fd_stamp(fd, &stamp) == 0) /* what is written next is no longer what rows were deleted of */
            npk__marks_ended(dir.fd, leaf, &stamp);
        err = npk__dirty_remove(dir.fd, &id, true);
        npk__unlock(&lock);
    }
    npk__dir_release(&dir);
    return err < 0 ? err : 0;
}

/* ---- end ------------------------------------------------------------------------------------------------------- */

/* Nobody can open the file for writing while the lease is held, so what is synced now is all. */
static int end_without_writers(int dir_fd, const char *leaf, int ro_fd, const npk_file_id *id, bool leased)
{
    int err = npk__fdatasync(ro_fd);
    if (err)
        return npk__fail_errno(err, leaf);
    if (leased && !npk__lease_holds(ro_fd))
        return npk__fail(-EBUSY, "\"%s\": a program has just opened it for writing", leaf);
    err = npk__marks_rebind(dir_fd, leaf, ro_fd);
    if (err)
        return err;
    /* No sync: an entry that comes back after power loss finds header and data in agreement. */
    err = npk__dirty_remove(dir_fd, id, false);
    return err < 0 ? err : 0;
}

static int end_locked(npk_store *s, int dir_fd, const char *leaf, int ro_fd, const npk_file_id *id)
{
    npk_settle_state state;
    npk_dirty e;
    int err = npk__redo_finish(dir_fd, leaf);
    if (!err)
        err = npk__settle_locked(s, dir_fd, leaf, ro_fd, 0, &state, NULL);
    if (err)
        return err;
    int there = npk__dirty_find(dir_fd, id, &e);
    if (there <= 0)
        return there;
    if (state == NPK_NO_ROOM)
        return npk__fail(-EBUSY, "\"%s\": has rows that its header has no room to count yet", leaf);
    if (state == NPK_UNFINISHED || e.marked)
        return 0; /* recovery needs the entry */
    bool leased = false;
    if (npk__lease_fs_proves(ro_fd)) {
        err = npk__lease_take(ro_fd);
        if (err == -EAGAIN)
            return npk__fail(-EBUSY, "\"%s\": a program has it open or mapped for writing", leaf);
        leased = err == 0;
    }
    err = end_without_writers(dir_fd, leaf, ro_fd, id, leased);
    if (leased)
        npk__lease_drop(ro_fd);
    if (!err)
        npk__redo_drop(dir_fd, leaf); /* cleared: the next session makes another */
    return err;
}

npk_err npk_session_end(npk_store *s, const char *path, int fd)
{
    npk_file_id id;
    npk_dirty e;
    npk_dir dir;
    npk_lock lock;
    const char *leaf;
    int there = find(s, path, fd, &id, &e);
    if (there <= 0)
        return there;
    int err = npk__store_writable(s, path);
    if (!err)
        err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    int ro_fd = npk__open_same(dir.fd, leaf, fd, O_RDONLY);
    err =
        ro_fd < 0 ? ro_fd : npk__fdatasync(ro_fd); /* most of it before the lock and the lease: both make others wait */
    if (err)
        npk__fail_errno(err, path);
    else if (!(err = npk__lock_array(dir.fd, leaf, NPK_LOCK_EXCLUSIVE, &lock))) {
        err = end_locked(s, dir.fd, leaf, ro_fd, &id);
        npk__unlock(&lock);
    }
    npk__close(&ro_fd);
    npk__dir_release(&dir);
    return err;
}
