/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops_file.c - open, create, flush, release, fsync: who has a file open, and when its header must agree with its data.
 *
 * An OPEN goes through these steps, each a function below:
 *   1. find_file   the name still is this node's file (else ESTALE once: the kernel looks again), its descriptors exist
 *   2. begin_writing  an existing array gets its entry before the first write of a session (PROTOCOLS P4)
 *   3. empty_file  O_TRUNC: in place, or a new file takes the name because others read the old one (P29)
 *   4. settle      a session is under way: rows appended so far are counted before anybody reads the header
 *   5. choose_service  handed to the kernel, or served by the daemon
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "compacter.h"
#include "creds.h"
#include "keeper.h"
#include "log.h"
#include "loop.h"
#include "node_table.h"
#include "notice.h"
#include "ops.h"
#include "save.h"
#include "sys.h"
#include "upper.h"
#include "view.h"
#include "view_ahead.h"
#include "wire.h"

#define COUNT(counter) atomic_fetch_add_explicit(&fs->stats.counter, 1, memory_order_relaxed)

static bool wants_write(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY;
}

/* Are set-id bits at stake? The kernel strips them on writes that it passes through only from its own copy of the
 * attributes, so such files are served here. */
static bool has_setid(mode_t mode)
{
    return mode & (S_ISUID | S_ISGID);
}

/* ---- 1 ---- */

/* o->lock is held: descriptors for an open with these flags. */
static int open_descriptors(fs_state *fs, fs_open *o, int dir, const char *leaf, int flags)
{
    /* An array's is kept in either mode until the last writer is gone: while it is open no lease can be had, so nobody
     * ends the session between the look for its entry and the kernel's own open. */
    bool keep_writable = wants_write(flags) && (fs->mode == FS_MODE_DAEMON || o->array_name);
    int extra = O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    if (o->rfd < 0) {
        int fd = sys_openat(dir, leaf, O_RDONLY | extra, 0);
        if (fd < 0 && (fd != -EACCES || !wants_write(flags)))
            return fd;
        if (fd >= 0)
            o->rfd = fd;
    }
    if (keep_writable && o->wfd < 0) {
        int fd = o->rfd >= 0 ? sys_reopen(o->rfd, O_RDWR) : sys_openat(dir, leaf, O_RDWR | extra, 0);
        if (fd == -EACCES)
            fd = o->rfd >= 0 ? sys_reopen(o->rfd, O_WRONLY) : sys_openat(dir, leaf, O_WRONLY | extra, 0);
        if (fd < 0)
            return fd;
        o->wfd = fd;
    }
    return o->rfd < 0 && o->wfd < 0 ? -EACCES : 0;
}

static bool is_node_file(const fs_node *n, const struct statx *stx)
{
    return stx->stx_ino == n->ino && S_ISREG(stx->stx_mode) && node_birth_ns(stx) == n->birth_ns;
}

/* o->lock is held. 0, or -ESTALE: the name is another file, or none, and the caller may be told. */
static int find_file(fs_state *fs, fs_open *o, int flags, pid_t pid, struct statx *stx, bool *stated)
{
    fs_node *n = o->node;
    fs_dir_fd *dir;
    char leaf[256];
    *stated = false;
    int err = node_leaf(fs, n, &dir, leaf);
    if (!err) {
        bool known = o->rfd >= 0 || o->wfd >= 0;
        if (known) {
            err = store_statx(fs, dir_fd_number(dir), leaf, stx);
            if (!err && !is_node_file(n, stx))
                err = -ESTALE;
        }
        int writable = o->wfd;
        if (!err)
            err = open_descriptors(fs, o, dir_fd_number(dir), leaf, flags);
        /* An open for writing waits for whoever is making a new file of the name (P1). From here on none can be made. */
        struct statx now;
        if (!err && writable < 0 && o->wfd >= 0 &&
            (store_statx(fs, dir_fd_number(dir), leaf, &now) != 0 || !is_node_file(n, &now))) {
            close(o->wfd);
            o->wfd = -1;
            if (!known && o->rfd >= 0) {
                close(o->rfd);
                o->rfd = -1;
            }
            err = -ESTALE;
        }
        if (!err && !known) {
            err = store_statx(fs, o->rfd >= 0 ? o->rfd : o->wfd, "", stx);
            if (!err && !is_node_file(n, stx)) {
                if (o->rfd >= 0)
                    close(o->rfd);
                if (o->wfd >= 0)
                    close(o->wfd);
                o->rfd = o->wfd = -1;
                err = -ESTALE;
            }
        }
        *stated = !err && npk_state_there(dir_fd_number(dir), leaf, n->ino);
        dir_fd_put(fs, dir);
    }
    if (err != -ESTALE && err != -ENOENT && err != -ENOTDIR && err != -ELOOP)
        return err;
    /* Found for this very open, and another file took the name since: it was the array then, for who reads it. */
    bool found = !wants_write(flags) && node_found_again(fs, n, pid);
    if (!found && node_may_tell_stale(fs, n, pid))
        return -ESTALE;
    /* Told once already: opened through a descriptor or a bind mount. What the node is, it is served with. */
    int fd = o->rfd >= 0 ? o->rfd : o->wfd;
    if (fd < 0 && found && (fd = node_fd(fs, n, O_RDONLY)) >= 0)
        o->rfd = fd;
    if (fd < 0) /* an open of this process that met two new files in a row has failed before: this one looks again */
        return found || err == -ESTALE ? -ESTALE : -ENOENT;
    if (wants_write(flags) && fs->mode == FS_MODE_DAEMON && o->wfd < 0) {
        o->wfd = sys_reopen(fd, O_RDWR);
        if (o->wfd < 0)
            return o->wfd;
    }
    return store_statx(fs, fd, "", stx);
}

/* o->lock is held. find_file, and the file's path where anything below will ask for it. A change of several arrays that
 * began before the file was open for writing has not seen this writer, and its journal tells of it now (P17): it is waited
 * for with the file closed, and then the name may be another file. One that begins later sees the writer. */
static int find_and_await(fs_state *fs, fs_open *o, int flags, pid_t pid, struct statx *stx, bool *stated, char **path)
{
    for (;;) {
        bool was_writable = o->wfd >= 0;
        int err = find_file(fs, o, flags, pid, stx, stated);
        if (!err && !*path && (o->array_name || *stated || o->node->generation || fs->upper))
            *path = node_path(fs, o->node);
        if (err || was_writable || o->wfd < 0 || o->rfd < 0 || !*path ||
            npk_await(fs->store, *path, NPK_SETTLE_TRY) != -EAGAIN)
            return err;
        close(o->wfd);
        o->wfd = -1;
        loop_yield(fs);
        err = npk_await(fs->store, *path, 0);
        if (err)
            return err;
    }
}

/* o->lock is held. Is the numbering of rows still the one that this node stands for? -ESTALE: the kernel shall look again,
 * and finds another node. */
static int find_numbering(fs_state *fs, fs_open *o, const char *path, bool stated, pid_t pid, struct statx *stx, int flags,
                          bool *is_view)
{
    fs_node *n = o->node;
    struct statx now = *stx;
    int fd = o->rfd >= 0 ? o->rfd : o->wfd;
    uint64_t generation = stated && path ? view_look_fd(fs, path, fd, &now) : 0;
    *is_view = generation != 0;
    if (flags & O_TRUNC) /* no row of either numbering will be left */
        return 0;
    if (generation == VIEW_IN_DOUBT)
        return -EUCLEAN;
    int err = generation == n->generation ? 0 : -ESTALE;
    if (!err && generation) {
        err = view_refresh(fs, o, path);
        *stx = now;
    }
    if (err == -ESTALE && !node_may_tell_stale(fs, n, pid))
        err = n->generation && !o->view ? view_refresh(fs, o, path) : 0; /* told once: served with what the node is */
    return err;
}

/* ---- 2 ---- */

static int begin_writing(fs_state *fs, fs_open *o, const char *path)
{
    if (!o->array_name || !path || o->swapped || (o->node->session && o->writers))
        return 0;
    bool entered = false;
    int fd = o->rfd >= 0 ? o->rfd : o->wfd;
    if (o->node->session && npk_session_ready(fs->store, path, fd, &entered) == 0 && entered)
        return 0; /* with no writer here, another process may have ended it meanwhile: only looking tells */
    o->node->session = false;
    loop_yield(fs);
    int err = npk_session_begin(fs->store, path, fd, &entered);
    if (err == -EACCES || err == -EPERM || err == -EROFS) {
        /* No sidecar can be made here: the file is written as on any filesystem, its growth is not counted. */
        fs_note_health(fs, path, npk_error());
        return 0;
    }
    if (!err && entered) {
        o->node->session = true;
        keeper_watch_session(fs, o->node);
    }
    return err;
}

/* ---- 3 ---- */

/* o->lock is held. Does anybody read the array whom truncation would harm, while nobody writes it? */
static bool must_swap(fs_open *o, const struct statx *stx)
{
    if (!o->array_name || stx->stx_size == 0 || stx->stx_nlink != 1 || o->writers || o->rfd < 0 || o->swapped)
        return false;
    if (o->wfd >= 0) {
        close(o->wfd); /* opened for this very request; a lease would take it for a writer */
        o->wfd = -1;
    }
    if (o->map) {
        munmap(o->map, o->map_bytes);
        o->map = NULL;
    }
    npk_users users = NPK_USERS_NONE;
    int err = npk_users_of(o->rfd, &users);
    if (err == 0 && users == NPK_USERS_WRITERS)
        return false;
    return o->readers > 0 || (err == 0 && users == NPK_USERS_READERS);
}

/* The kernel begins an open again but once. Where it has, since another program had just made a new file of the name, that
 * file cannot give way to yet another one: nothing is lost then, and the program may try again. */
static int refuse_second(fs_state *fs, const char *path)
{
    fs_note_failure(fs, path, "another program replaced the array at this very moment; try again");
    return -EBUSY;
}

/* O_TRUNC over a view: whoever has it open keeps its rows, so a new file takes the name if that can be; else the file is
 * emptied. What was known of its rows goes, and the kernel finds the new node. */
static int empty_view(fuse_req_t req, fs_open *o, const char *path)
{
    fs_state *fs = fs_of(req);
    fs_node *parent;
    char leaf[256];
    int fd = o->rfd >= 0 ? o->rfd : o->wfd;
    if (node_told_another(fs, o->node, fuse_req_ctx(req)->pid))
        return refuse_second(fs, path);
    int err = node_place(fs, o->node, &parent, leaf);
    if (err)
        return err;
    if (o->wfd >= 0 && o->rfd >= 0 && !o->writers) {
        close(o->wfd);
        o->wfd = -1;
    }
    if (o->node->session)
        npk_session_forget(fs->store, path, fd);
    npk_sidecar_leave(fs->store, path, fd);
    err = o->writers ? -EBUSY : npk_replace_empty(fs->store, path, fd);
    if (!err) {
        o->swapped = true;
        COUNT(swaps);
    } else {
        bool close_it;
        int w = open_writable(o, &close_it);
        err = w < 0 ? w : sys_ftruncate(w, 0);
        if (w >= 0 && close_it)
            close(w);
    }
    if (!err) {
        npk_sidecar_drop(fs->store, path, fd);
        o->node->session = false;
        node_unname(fs, parent, leaf);
        node_may_tell_stale(fs, o->node, fuse_req_ctx(req)->pid);
        notice_entry_now(fs, parent, leaf);
        err = -ESTALE;
    }
    node_unpin(fs, parent);
    return err;
}

/* O_TRUNC. 0: the file is empty now. -ESTALE: a new file has the name, the kernel shall look again. What is known of its
 * rows (names) goes with them. */
static int empty_clean(fuse_req_t req, fs_open *o, const char *path, int flags, const struct statx *stx)
{
    fs_state *fs = fs_of(req);
    if (path && must_swap(o, stx)) {
        if (node_told_another(fs, o->node, fuse_req_ctx(req)->pid))
            return refuse_second(fs, path);
        fs_node *parent;
        char leaf[256];
        int err = node_place(fs, o->node, &parent, leaf);
        if (!err) {
            if (o->node->session)
                npk_session_forget(fs->store, path, o->rfd);
            err = npk_replace_empty(fs->store, path, o->rfd);
            if (!err) {
                o->swapped = true;
                o->node->session = false;
                node_unname(fs, parent, leaf);
                node_may_tell_stale(fs, o->node, fuse_req_ctx(req)->pid);
                COUNT(swaps);
                notice_entry_now(fs, parent, leaf);
                err = -ESTALE;
            }
            node_unpin(fs, parent);
        }
        if (err == -ESTALE)
            return err;
        /* It cannot be carried over: truncated in place, as natively. */
    }
    if (o->node->session && path) {
        int err = npk_session_forget(fs->store, path, o->rfd >= 0 ? o->rfd : o->wfd);
        if (err && err != -ENOENT)
            return err;
        o->node->session = false;
    }
    if (fs->mode == FS_MODE_DAEMON && o->wfd < 0 && wants_write(flags)) {
        o->wfd = sys_reopen(o->rfd, O_RDWR);
        if (o->wfd < 0)
            return o->wfd;
    }
    bool close_it;
    int fd = open_writable(o, &close_it);
    if (fd < 0)
        return fd;
    int err = sys_ftruncate(fd, 0);
    if (!err)
        creds_strip_setid(req, fd);
    if (close_it)
        close(fd);
    return err;
}

static int empty_file(fuse_req_t req, fs_open *o, const char *path, int flags, const struct statx *stx, bool stated,
                      bool is_view)
{
    fs_state *fs = fs_of(req);
    if (stx->stx_size > 0)
        loop_yield(fs);
    bool entered = false; /* by another mount or a library, maybe: an entry does not fit what will be written */
    if (path && !o->node->session &&
        npk_session_find(fs->store, path, o->rfd >= 0 ? o->rfd : o->wfd, &entered) == 0)
        o->node->session = entered;
    if (is_view && path)
        return empty_view(req, o, path);
    int known = stated && path ? sys_reopen(o->rfd >= 0 ? o->rfd : o->wfd, O_RDONLY) : -1;
    if (known >= 0)
        npk_sidecar_leave(fs->store, path, known);
    int err = empty_clean(req, o, path, flags, stx);
    if (known >= 0) {
        if (!err || err == -ESTALE)
            npk_sidecar_drop(fs->store, path, known);
        close(known);
    }
    return err;
}

/* ---- 4 ---- */

/* o->lock is held. Neither size nor time has moved since header and data were found to agree. */
static bool is_settled(const fs_open *o, const struct statx *now)
{
    return o->settled_mtime_us > 0 && now->stx_size == o->settled_bytes &&
           statx_ns(&now->stx_mtime) / 1000 == o->settled_mtime_us;
}

void settle(fs_state *fs, fs_open *o, unsigned flags)
{
    char *path = node_path(fs, o->node);
    if (!path)
        return; /* unlinked: nobody will read its header by name, and who has it open wrote it */
    open_lock(fs, o);
    int fd = o->rfd >= 0 ? o->rfd : o->wfd;
    npk_settle_state state = NPK_SETTLED;
    npk_info info = {0};
    int err = 0;
    bool served = fs->mode == FS_MODE_DAEMON || o->view, ours = fd >= 0 && o->node->session && o->creators == 0 && !o->swapped;
    struct statx was, stx;
    bool seen = ours && (served || o->settled_mtime_us > 0) && store_statx(fs, fd, "", &was) == 0;
    if (ours && !(seen && is_settled(o, &was))) {
        err = npk_settle(fs->store, path, fd, flags | NPK_SETTLE_TRY, &state, &info);
        if (err == -EAGAIN) { /* a library holds the array's lock: wait for it, but not in the request loop */
            loop_yield(fs);
            err = npk_settle(fs->store, path, fd, flags, &state, &info);
        }
        if (err) {
            fs_note_failure(fs, path, npk_error());
        } else {
            o->no_room = state == NPK_NO_ROOM;
            bool looked = store_statx(fs, fd, "", &stx) == 0; /* counting the rows has moved the time */
            bool agree = (state == NPK_SETTLED || state == NPK_PART_ROW) && looked && stx.stx_size == info.file_bytes;
            o->settled_bytes = info.file_bytes;
            o->settled_mtime_us = agree ? statx_ns(&stx.stx_mtime) / 1000 : -1;
            if (o->view)
                view_refresh(fs, o, path);
            /* Telling the kernel what it knows would make it drop the answer to the fstat that follows an open. */
            if (served && seen && (!looked || stx.stx_size != was.stx_size || statx_ns(&stx.stx_mtime) != statx_ns(&was.stx_mtime)))
                notice_attributes(fs, o->node, info.header.data_offset);
        }
        npk_info_clear(&info);
    }
    pthread_mutex_unlock(&o->lock);
    free(path);
}

/* Rows were appended beyond the room of the header, and the last writer is gone. 0: a longer header took the name. */
static int make_room(fs_state *fs, fs_open *o)
{
    fs_node *parent;
    char leaf[256];
    char *path = node_path(fs, o->node);
    int err = path ? node_place(fs, o->node, &parent, leaf) : -ESTALE;
    if (!err) {
        loop_yield(fs);
        open_lock(fs, o);
        if (o->wfd >= 0 && o->rfd >= 0 && o->writers == 0) { /* our own descriptor would pass for a writer */
            close(o->wfd);
            o->wfd = -1;
        }
        err = npk_make_room(fs->store, path);
        if (!err) {
            o->no_room = false;
            o->swapped = true;
            o->node->session = false;
        }
        pthread_mutex_unlock(&o->lock);
        if (!err) {
            node_unname(fs, parent, leaf);
            COUNT(swaps);
            notice_entry_now(fs, parent, leaf);
        } else if (err != -EBUSY) {
            fs_note_failure(fs, path, npk_error());
        }
        node_unpin(fs, parent);
    }
    free(path);
    return err;
}

/* ---- 5 ---- */

/* o->lock is held. The id to hand over, or 0: the daemon serves it. */
static int backing_id(fs_state *fs, fs_open *o, mode_t mode)
{
    if (fs->mode != FS_MODE_PASSTHROUGH || o->no_backing || o->rfd < 0 || o->node->generation || o->view)
        return 0;
    if (has_setid(mode) && o->passthrough == 0)
        return 0;
    if (o->backing_id)
        return o->backing_id;
    int id = wire_backing_open(fs, o->rfd);
    if (id < 0) {
        o->no_backing = true;
        if (id != -ELOOP)
            fs_log(FS_LOG_WARNING, "a file could not be handed to the kernel (%s): the daemon serves it", strerror(-id));
        return 0;
    }
    o->backing_id = id;
    return id;
}

/* The open is settled: count the handle and answer. o->lock is held and released here. */
static fs_handle *add_handle(fs_open *o, int flags, bool creator)
{
    fs_handle *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    *h = (fs_handle){
        .node = o->node,
        .open = o,
        .flags = flags,
        .writer = wants_write(flags),
        .reader = (flags & O_ACCMODE) != O_WRONLY,
        .append = flags & O_APPEND,
        .creator = creator,
    };
    h->next = o->handles;
    if (h->next)
        h->next->prev = h;
    o->handles = h;
    o->writers += h->writer;
    o->readers += h->reader;
    o->creators += h->creator;
    return h;
}

/* Drop what add_handle counted. */
static void remove_handle(fs_state *fs, fs_handle *h)
{
    fs_open *o = h->open;
    bool quiet;
    view_ahead_forget(fs, h);
    open_lock(fs, o);
    if (h->prev)
        h->prev->next = h->next;
    else
        o->handles = h->next;
    if (h->next)
        h->next->prev = h->prev;
    o->writers -= h->writer;
    o->readers -= h->reader;
    o->creators -= h->creator;
    o->passthrough -= h->passthrough;
    quiet = o->writers == 0;
    if (quiet && o->wfd >= 0 && o->rfd >= 0) {
        close(o->wfd);
        o->wfd = -1;
    }
    bool longer = quiet && o->no_room && h->writer;
    pthread_mutex_unlock(&o->lock);
    if (longer)
        make_room(fs, o);
    open_release(fs, o);
    free(h);
}

/* Timestamps younger than this may not tell two changes apart. */
#define STAMP_RACY_NS 100000000ll

/* A daemon-served reader goes through the kernel's page cache, which is native speed from the second look on. May it
 * keep the pages of earlier opens? Only if the file is provably as it was then; any doubt and they are dropped, so an
 * open always sees the file. */
static bool may_keep_pages(fs_node *n, const struct statx *stx, bool changed_here)
{
    int64_t mtime = statx_ns(&stx->stx_mtime), ctime = statx_ns(&stx->stx_ctime);
    bool same = !changed_here && n->cached_mtime_ns && n->cached_mtime_ns == mtime && n->cached_ctime_ns == ctime &&
                n->cached_size == stx->stx_size;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t now_ns = now.tv_sec * 1000000000ll + now.tv_nsec;
    bool settled = !changed_here && now_ns - mtime > STAMP_RACY_NS && now_ns - ctime > STAMP_RACY_NS;
    n->cached_mtime_ns = settled ? mtime : 0;
    n->cached_ctime_ns = ctime;
    n->cached_size = stx->stx_size;
    return same;
}

/* Programs that map an array look at its header first, in an open of its own. No more than this is read for that, by the
 * kernel's readahead. */
#define HEAD_BYTES (512u << 10)

/* o->lock is held. A view is read fastest with direct I/O, in requests of up to 1 MiB that are copied to where the reader
 * wants them. Mappings live in the page cache, which each mapping of a direct open begins anew; so an open that comes after
 * nothing but a look at the header has the cache. */
static bool wants_direct_io(fs_state *fs, fs_open *o, const fs_handle *h)
{
    if (!fs->direct_mmap)
        return false;
    if (h->writer)
        return true;
    if (!h->node->generation)
        return false;
    uint64_t read = atomic_exchange_explicit(&o->view_read, 0, memory_order_relaxed);
    o->view_cached = read <= HEAD_BYTES && (read > 0 || o->view_cached);
    return !o->view_cached;
}

static unsigned reply_flags(fs_state *fs, const fs_handle *h, int id)
{
    unsigned flags = 0;
    if (!h->writer && !locks_posix_held(fs, h->node))
        flags |= 1u << 5; /* FOPEN_NOFLUSH: closing a reader needs no answer from here */
    if (!id && h->direct_io)
        flags |= 1u << 0; /* FOPEN_DIRECT_IO: one copy, and each write arrives as it was made */
    if (!id && (h->keep_pages || (h->direct_io && !h->writer))) /* who reads past the cache has no say about it */
        flags |= 1u << 1; /* FOPEN_KEEP_CACHE */
    return flags;
}

/* Steps 2 to 5 for a file that was found. */
static int prepare_open(fuse_req_t req, fs_open *o, int flags, struct statx *stx, const char *path, bool stated,
                        bool is_view)
{
    fs_state *fs = fs_of(req);
    int err = 0;
    bool trunc = flags & O_TRUNC;
    if (wants_write(flags) && path && compacter_forces(path))
        return -EBUSY; /* it would write to the file that is about to go, and no lease would tell */
    if (wants_write(flags) && !trunc)
        err = begin_writing(fs, o, path);
    if (!err && trunc)
        err = empty_file(req, o, path, flags, stx, stated, is_view);
    return err;
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    COUNT(opens);
    if (n->kind != NODE_STORE) {
        control_open(req, n, fi);
        return;
    }
    if (fs->read_only && (wants_write(fi->flags) || fi->flags & O_TRUNC)) {
        fuse_reply_err(req, EROFS);
        return;
    }
    if (fs->saves && wants_write(fi->flags) && fi->flags & O_TRUNC && save_wanted(req, n))
        return;
    fs_open *o = open_acquire(fs, n);
    char *path = NULL;
    struct statx stx;
    int err = o ? 0 : -ENOMEM;
    fs_handle *h = NULL;
    int id = 0;
    if (!err) {
        open_lock(fs, o);
        bool fresh = o->rfd < 0 && o->wfd < 0;
        if (!o->array_name) /* asked again each time: a rename can make an array of it */
            o->array_name = node_is_named_like_array(fs, n);
        bool stated = false, is_view = false;
        err = o->save ? store_statx(fs, o->rfd, "", &stx) /* it has no name to be looked for */
                      : find_and_await(fs, o, fi->flags, fuse_req_ctx(req)->pid, &stx, &stated, &path);
        if (!err && o->save && o->array_name)
            path = node_path(fs, n);
        bool placeholder = !err && upper_is_placeholder(fs, o);
        if (placeholder && wants_write(fi->flags) && !(fi->flags & O_TRUNC))
            err = upper_copy_up(req, o, path);
        if (!err && (stated || n->generation))
            err = find_numbering(fs, o, path, stated, fuse_req_ctx(req)->pid, &stx, fi->flags, &is_view);
        if (!err && placeholder && path && !(fi->flags & O_TRUNC))
            err = view_whole(fs, o, path);
        is_view |= placeholder;
        if (!err && fresh && path && !fs->read_only) {
            bool entered = false; /* of a session that ended by a crash, or of another mount */
            if (npk_session_find(fs->store, path, o->rfd >= 0 ? o->rfd : o->wfd, &entered) == 0 && entered &&
                !o->node->session) {
                o->node->session = true;
                keeper_watch_session(fs, n);
            }
        }
        if (!err)
            err = prepare_open(req, o, fi->flags, &stx, path, stated, is_view);
        bool lagging = !err && o->no_room && o->writers == 0 && path;
        bool pending = !err && o->node->session && !(fi->flags & O_TRUNC);
        if (lagging || pending) {
            unsigned recover = o->writers ? 0 : NPK_SETTLE_CUT;
            pthread_mutex_unlock(&o->lock);
            if (pending)
                settle(fs, o, recover);
            open_lock(fs, o);
            bool longer = o->no_room && o->writers == 0;
            pthread_mutex_unlock(&o->lock);
            if (longer && make_room(fs, o) == 0) {
                node_may_tell_stale(fs, n, fuse_req_ctx(req)->pid);
                err = -ESTALE;
            }
            open_lock(fs, o);
        }
        if (!err && !(h = add_handle(o, fi->flags, fi->flags & O_TRUNC)))
            err = -ENOMEM;
        if (!err) {
            id = backing_id(fs, o, stx.stx_mode);
            h->passthrough = id != 0;
            o->passthrough += h->passthrough;
            h->direct_io = !id && wants_direct_io(fs, o, h);
            h->keep_pages = !id && !h->writer && !h->direct_io && may_keep_pages(n, &stx, pending);
            if (!(fi->flags & O_TRUNC))
                notice_if_outdated(fs, n, &stx);
            if (!id && wants_write(fi->flags) && o->wfd < 0)
                o->wfd = sys_reopen(o->rfd, O_RDWR);
            save_opened(fs, o, fi->flags);
        }
        pthread_mutex_unlock(&o->lock);
    }
    free(path);
    if (err) {
        if (o)
            open_release(fs, o);
        if (err != -ESTALE)
            node_open_done(fs, fuse_req_ctx(req)->pid);
        fuse_reply_err(req, -err);
        return;
    }
    fi->fh = (uint64_t)(uintptr_t)h;
    node_open_done(fs, fuse_req_ctx(req)->pid);
    if (wire_reply_open(req, fi, reply_flags(fs, h, id), id) != 0)
        remove_handle(fs, h);
}

/* A handle of a file that was just made, with its descriptor (taken over, writable). NULL: no memory. */
static fs_handle *handle_of_new(fs_state *fs, fs_node *n, int fd, mode_t mode, int flags, bool creator, int *id)
{
    fs_open *o = open_acquire(fs, n);
    if (!o) {
        close(fd);
        return NULL;
    }
    open_lock(fs, o);
    o->array_name = node_is_named_like_array(fs, n);
    if (o->rfd < 0)
        o->rfd = sys_reopen(fd, O_RDONLY); /* negative: a mode without read permission, and a daemon that is not root */
    fs_handle *h = add_handle(o, flags, creator);
    if (h) {
        *id = backing_id(fs, o, mode);
        h->passthrough = *id != 0;
        h->direct_io = !*id && wants_direct_io(fs, o, h);
        o->passthrough += h->passthrough;
        if (o->wfd < 0 && (!*id || o->rfd < 0)) {
            o->wfd = fd;
            fd = -1;
        }
    }
    pthread_mutex_unlock(&o->lock);
    if (fd >= 0)
        close(fd);
    if (!h)
        open_release(fs, o);
    return h;
}

void op_create(fuse_req_t req, fuse_ino_t parent_id, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, parent_id);
    COUNT(creates);
    if (parent->kind == NODE_FOLDER) {
        folder_create(req, parent, name, fi);
        return;
    }
    int err = may_change(fs, parent, name);
    fs_dir_fd *dir = NULL;
    if (!err)
        err = -dir_fd_get(fs, parent, &dir);
    if (err) {
        fuse_reply_err(req, err);
        return;
    }
    fs_creds c = creds_become(req);
    int fd = sys_openat(dir_fd_number(dir), name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    bool existed = fd == -EEXIST && !(fi->flags & O_EXCL); /* made behind the mount a moment ago */
    if (existed && fi->flags & O_TRUNC && save_wanted_at(req, parent, name)) {
        creds_restore(c);
        dir_fd_put(fs, dir);
        return;
    }
    if (existed && node_may_begin_again(fs, fuse_req_ctx(req)->pid))
        fd = -ESTALE; /* the kernel finds it now, and opens it as one that was there */
    else if (existed)
        fd = sys_openat(dir_fd_number(dir), name, O_RDWR | O_NOFOLLOW | O_NONBLOCK, 0);
    creds_restore(c);
    struct statx stx;
    err = fd < 0 ? fd : store_statx(fs, fd, "", &stx);
    if (!err && existed && fi->flags & O_TRUNC)
        err = sys_ftruncate(fd, 0);
    fs_node *n = err ? NULL : node_bind(fs, parent, name, &stx, 0);
    int id = 0;
    fs_handle *h = n ? handle_of_new(fs, n, fd, stx.stx_mode, fi->flags, !existed || fi->flags & O_TRUNC, &id) : NULL;
    if (!n && fd >= 0)
        close(fd);
    dir_fd_put(fs, dir);
    if (!h) {
        if (n)
            node_forget(fs, n, 1);
        fuse_reply_err(req, err ? -err : ENOMEM);
        return;
    }
    struct fuse_entry_param e;
    fill_entry(fs, &e, n, &stx);
    node_open_done(fs, fuse_req_ctx(req)->pid);
    fi->fh = (uint64_t)(uintptr_t)h;
    if (wire_reply_create(req, &e, fi, reply_flags(fs, h, id), id) != 0) {
        remove_handle(fs, h);
        node_forget(fs, n, 1);
    }
}

int file_make_unnamed(fs_state *fs, fuse_ino_t dir_id, mode_t mode, uid_t uid, gid_t gid, struct fuse_file_info *fi,
                      struct fuse_entry_param *e, unsigned *open_flags, int *id)
{
    if (fs->pkg)
        return -EROFS;
    fs_node *dir = node_of(fs, dir_id);
    if (dir->kind != NODE_STORE)
        return -EPERM;
    if (fs->read_only)
        return -EROFS;
    fs_dir_fd *at;
    int err = dir_fd_get(fs, dir, &at);
    if (err)
        return err;
    struct statx above, stx;
    /* The kernel has checked that the caller may write here; it lacks only the ownership that making it oneself gives. */
    int fd = sys_openat(dir_fd_number(at), ".", O_TMPFILE | O_RDWR | (fi->flags & O_EXCL), mode & 07777);
    err = fd < 0 ? fd : store_statx(fs, dir_fd_number(at), "", &above);
    if (!err && geteuid() == 0 && (uid || gid))
        err = sys_fchown(fd, uid, above.stx_mode & S_ISGID ? above.stx_gid : gid);
    if (!err)
        err = store_statx(fs, fd, "", &stx);
    dir_fd_put(fs, at);
    fs_node *n = err ? NULL : node_bind_unnamed(fs, &stx);
    fs_handle *h = n ? handle_of_new(fs, n, fd, stx.stx_mode, fi->flags, true, id) : NULL;
    if (!n && fd >= 0)
        close(fd);
    if (!h) {
        if (n)
            node_forget(fs, n, 1);
        return err ? err : -ENOMEM;
    }
    fill_entry(fs, e, n, &stx);
    fi->fh = (uint64_t)(uintptr_t)h;
    *open_flags = reply_flags(fs, h, *id);
    return 0;
}

void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_handle *h = handle_of(fi);
    fs_node *n = node_of(fs, ino);
    if (n->kind != NODE_STORE) {
        control_flush(req, fi);
        return;
    }
    COUNT(flushes);
    locks_drop_owner(fs, n, fi->lock_owner);
    if (h->writer && h->node->session)
        settle(fs, h->open, 0);
    fuse_reply_err(req, h->writer ? -save_flush(req, h) : 0);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    if (n->kind != NODE_STORE) {
        control_release(req, fi);
        return;
    }
    fs_handle *h = handle_of(fi);
    locks_drop_handle(fs, h);
    if (h->writer && h->node->session)
        settle(fs, h->open, 0);
    save_release(fs, h);
    fs_dir_fd *kept = hold_blocks(fs, n);
    remove_handle(fs, h);
    fuse_reply_err(req, 0);
    let_blocks_go(fs, kept);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_handle *h = handle_of(fi);
    if (node_of(fs, ino)->kind != NODE_STORE || !h) {
        fuse_reply_err(req, 0);
        return;
    }
    loop_yield(fs);
    save_synced(fs, h);
    if (h->node->session)
        settle(fs, h->open, 0);
    int fd = h->open->wfd >= 0 ? h->open->wfd : h->open->rfd;
    int err = sys_fsync(fd, data_only);
    if (!err && h->creator) { /* a file that took a name by a swap is durable only with the name */
        fs_node *parent;
        char leaf[256];
        if (node_place(fs, h->node, &parent, leaf) == 0) {
            int dir = node_fd(fs, parent, O_RDONLY | O_DIRECTORY);
            if (dir >= 0) {
                sys_fsync(dir, 0);
                close(dir);
            }
            node_unpin(fs, parent);
        }
    }
    fuse_reply_err(req, -err);
}
