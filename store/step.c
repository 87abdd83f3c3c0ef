/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "step.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "known.h"
#include "marks.h"
#include "path.h"
#include "redo.h"
#include "settle.h"
#include "store.h"
#include "target.h"
#include "walk.h"

#define BATCHES NPK__SIDECAR "/" NPK__BATCH_DIR
#define PIECE   (UINT64_C(1) << 20)

/* ---- a batch's folder ------------------------------------------------------------------------------------------ */

bool npk__batch_id_is_valid(const char *id)
{
    size_t n = strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return n > 0 && n <= NPK__BATCH_ID && id[n] == '\0' && id[0] != '.';
}

/* Never through a symbolic link: a batch is made by the engine, below the store's own sidecar. */
int npk__batch_folder(int root_fd, const char *id)
{
    int side = npk__openat(root_fd, NPK__SIDECAR, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
    int all = side < 0 ? side : npk__openat(side, NPK__BATCH_DIR, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
    int fd = all < 0 ? all : npk__openat(all, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    npk__close(&all);
    npk__close(&side);
    return fd;
}

void npk__staged_name(uint32_t staged, char out[16])
{
    snprintf(out, 16, "f%u", staged);
}

static int remove_one(void *ctx, const char *name, unsigned char type)
{
    const int *folder = ctx;
    (void)type;
    (void)npk__unlinkat(*folder, name, 0);
    return 0;
}

void npk__batch_folder_remove(int root_fd, const char *id)
{
    int folder = npk__batch_folder(root_fd, id);
    if (folder < 0)
        return;
    (void)npk__each_name(folder, remove_one, &folder);
    int all = npk__openat(folder, "..", O_PATH | O_DIRECTORY, 0);
    npk__close(&folder);
    if (all >= 0)
        (void)npk__unlinkat(all, id, AT_REMOVEDIR);
    npk__close(&all);
    (void)npk__unlinkat(root_fd, BATCHES, AT_REMOVEDIR);
}

/* ---- begin and end --------------------------------------------------------------------------------------------- */

int npk__stepping_begin(npk_store *s, const char *batch, npk_stepping *out)
{
    *out = (npk_stepping){.store = s, .folder_fd = -1, .data_fd = -1};
    if (!*batch)
        return 0;
    snprintf(out->batch, sizeof(out->batch), "%s", batch);
    out->folder_fd = npk__batch_folder(s->root_fd, batch);
    if (out->folder_fd < 0)
        return out->folder_fd == -ENOENT ? 0 : npk__fail_errno(out->folder_fd, batch); /* gone: all was done before */
    out->data_fd = npk__openat(out->folder_fd, "data", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    return out->data_fd < 0 && out->data_fd != -ENOENT ? npk__fail_errno(out->data_fd, batch) : 0;
}

int npk__stepping_sync(npk_stepping *w)
{
    int err = 0;
    for (size_t i = 0; i < w->dir_count && !err; i++)
        err = npk__fsync(w->dirs[i]);
    return err ? npk__fail_errno(err, w->store->label) : 0;
}

void npk__stepping_end(npk_stepping *w)
{
    for (size_t i = 0; i < w->dir_count; i++)
        npk__close(&w->dirs[i]);
    free(w->dirs);
    npk__close(&w->data_fd);
    npk__close(&w->folder_fd);
    *w = (npk_stepping){.folder_fd = -1, .data_fd = -1};
}

/* Names in this directory change: it is synced at the end, once. */
static int remember_dir(npk_stepping *w, int dir_fd)
{
    struct stat st, have;
    int err = npk__fstat(dir_fd, &st);
    for (size_t i = 0; i < w->dir_count && !err; i++)
        if (npk__fstat(w->dirs[i], &have) == 0 && have.st_ino == st.st_ino && have.st_dev == st.st_dev)
            return 0;
    if (!err && w->dir_count == w->dir_capacity) {
        size_t capacity = 2 * w->dir_capacity + 8;
        int *dirs = realloc(w->dirs, capacity * sizeof(*dirs));
        if (!dirs)
            return -ENOMEM;
        w->dirs = dirs;
        w->dir_capacity = capacity;
    }
    int fd = err ? err : npk__openat(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    w->dirs[w->dir_count++] = fd;
    return 0;
}

/* ---- one step -------------------------------------------------------------------------------------------------- */

struct place { /* where the step's array is now */
    npk_dir dir;
    const char *leaf;
    int fd; /* O_RDONLY; -1: no file */
    npk_file_id id;
    bool other; /* something that is no regular file has the name */
};

static int find_place(npk_stepping *w, const npk_step *step, struct place *p)
{
    struct stat st;
    *p = (struct place){.dir = {.fd = -1, .opened = -1}, .fd = -1};
    int err = step->type == NPK_STEP_SWAP ? npk__make_parents(w->store->root_fd, step->path) : 0;
    if (!err)
        err = npk__dir_of(w->store->root_fd, step->path, &p->dir, &p->leaf);
    if (err)
        return err;
    p->fd = npk__openat(p->dir.fd, p->leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (p->fd == -ENOENT) {
        p->fd = -1;
        return 0;
    }
    p->other = p->fd == -ELOOP;
    if (p->fd < 0)
        return p->other ? 0 : p->fd;
    err = npk__fstat(p->fd, &st);
    p->other = !err && !S_ISREG(st.st_mode);
    return err ? err : npk__file_id(p->fd, &p->id);
}

static void leave_place(struct place *p)
{
    npk__close(&p->fd);
    npk__dir_release(&p->dir);
}

static bool same(const npk_file_id *a, const npk_file_id *b)
{
    return a->inode == b->inode && a->birth_ns == b->birth_ns;
}

static bool is_before(const struct place *p, const npk_step *step)
{
    if (step->before.inode == 0)
        return p->fd < 0 && !p->other;
    return p->fd >= 0 && !p->other && same(&p->id, &step->before);
}

/* Rename a file of the batch to `.npkfs/aside.ID.NAME`, where it waits for somebody to look at it. */
static int set_aside(const npk_stepping *w, const char *name)
{
    char aside[200];
    struct stat st;
    int side = npk__sidecar_open(w->store->root_fd, true), err = side < 0 ? side : -EEXIST;
    for (unsigned i = 0; err == -EEXIST && i < 1000; i++) {
        snprintf(aside, sizeof(aside), "aside.%s.%s.%u", w->batch, name, i);
        err = npk__fstatat(side, aside, &st);
        err = err == -ENOENT ? npk__renameat2(w->folder_fd, name, side, aside, 0) : err ? err : -EEXIST;
    }
    npk__close(&side);
    return err;
}

/* What is known of deleted rows of the file that goes, and goes with it. 1: there is something, to be ended after. */
static int leave_state(const struct place *p, npk_stamp *old)
{
    if (p->fd < 0 || !npk__state_there(p->dir.fd, p->leaf, p->id.inode))
        return 0;
    int err = npk__fd_stamp(p->fd, old);
    return err ? err : npk__marks_leave(p->dir.fd, p->leaf, p->fd);
}

static int run_swap(npk_stepping *w, const npk_step *step, const struct place *p)
{
    char name[16];
    npk_file_id id = {0};
    npk__staged_name(step->staged, name);
    if (p->fd >= 0 && same(&p->id, &step->after))
        return remember_dir(w, p->dir.fd);
    int fd = w->folder_fd < 0 ? -ENOENT : npk__openat(w->folder_fd, name, O_PATH | O_NOFOLLOW, 0);
    if (fd == -ENOENT)
        return 0; /* it had the name, and something newer has it now */
    int err = fd < 0 ? fd : npk__file_id(fd, &id);
    npk__close(&fd);
    if (err)
        return err;
    if (!same(&id, &step->after) || !is_before(p, step))
        return set_aside(w, name);
    npk_stamp old;
    int stated = leave_state(p, &old);
    err = stated < 0 ? stated : npk__renameat2(w->folder_fd, name, p->dir.fd, p->leaf, 0);
    if (!err && stated)
        npk__marks_ended(p->dir.fd, p->leaf, &old);
    if (!err && step->before.inode)
        (void)npk__dirty_remove(p->dir.fd, &step->before, false);
    if (!err)
        npk__redo_drop(p->dir.fd, p->leaf);
    return err ? err : remember_dir(w, p->dir.fd);
}

static int run_remove(npk_stepping *w, const npk_step *step, const struct place *p)
{
    if (!is_before(p, step))
        return 0; /* done before, or another file has the name since */
    npk_stamp old;
    int stated = leave_state(p, &old);
    int err = stated < 0 ? stated : npk__unlinkat(p->dir.fd, p->leaf, 0);
    if (err)
        return err;
    if (stated)
        npk__marks_ended(p->dir.fd, p->leaf, &old);
    (void)npk__dirty_remove(p->dir.fd, &step->before, false);
    npk__redo_drop(p->dir.fd, p->leaf);
    return remember_dir(w, p->dir.fd);
}

/* The header that the step means, in a file that is at least as long as it says. */
static int find_header(int fd, const npk_step *step, npk_header *h, uint64_t *file_bytes)
{
    npk_info info = {0};
    int err = npk__fd_facts(fd, &info, NULL);
    if (!err && (info.reason || !npk_header_is_row_array(&info.header) ||
                 info.header.data_offset != step->data_offset || info.header.row_bytes != step->row_bytes))
        err = -ESTALE;
    *h = info.header;
    *file_bytes = info.file_bytes;
    npk_info_clear(&info);
    return err;
}

static int copy_piece(int data_fd, const npk_piece *piece, int fd, uint8_t *buffer)
{
    int err = 0;
    for (uint64_t done = 0; done < piece->bytes && !err;) {
        uint64_t n = piece->bytes - done < PIECE ? piece->bytes - done : PIECE;
        ssize_t got = npk__pread_full(data_fd, buffer, n, piece->source + done);
        err = got < 0 ? (int)got : (uint64_t)got < n ? -EIO : npk__pwrite_full(fd, buffer, n, piece->offset + done);
        done += n;
    }
    return err;
}

static int write_pieces(const npk_stepping *w, const npk_step *step, int fd, npk_header *h)
{
    uint8_t *buffer = malloc(PIECE);
    int err = buffer ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < step->piece_count && !err; i++) {
        npk_piece all = step->pieces[i];
        while (i + 1 < step->piece_count && step->pieces[i + 1].offset == all.offset + all.bytes &&
               step->pieces[i + 1].source == all.source + all.bytes)
            all.bytes += step->pieces[++i].bytes;
        err = copy_piece(w->data_fd, &all, fd, buffer);
    }
    free(buffer);
    if (!err)
        err = npk__write_rows(fd, h, step->rows_after); /* 1 is impossible: the commit has made room */
    return err < 0 ? err : err ? -EIO : npk__fdatasync(fd);
}

static int run_write(npk_stepping *w, const npk_step *step, const struct place *p)
{
    npk_header h;
    uint64_t file_bytes = 0;
    int err = is_before(p, step) ? find_header(p->fd, step, &h, &file_bytes) : -ESTALE;
    if (!err && (file_bytes < step->size || h.shape[0] < step->rows || h.shape[0] > step->rows_after))
        err = -ESTALE;
    if (err == -ESTALE)
        return w->data_fd < 0 ? 0 : set_aside(w, "data");
    if (!err && w->data_fd < 0)
        return 0; /* gone: all was done before */
    int fd = err ? err : npk__open_for_change(p->dir.fd, p->leaf, step->path);
    if (fd < 0)
        return fd;
    err = write_pieces(w, step, fd, &h);
    npk__close(&fd);
    return err;
}

/* Rows that were appended, all or some of them, go; the digits before the data (P3). Bytes of somebody else's behind
 * them cannot be told apart from ours any more: then all stay. */
static int run_cut(const npk_step *step, const struct place *p)
{
    npk_header h;
    uint64_t file_bytes = 0;
    if (!is_before(p, step))
        return 0;
    int err = npk__settle_mark_locked(p->dir.fd, p->leaf, p->fd);
    if (!err)
        err = find_header(p->fd, step, &h, &file_bytes);
    if (err == -ESTALE || (!err && (file_bytes <= step->size || file_bytes > step->size_after)))
        return 0;
    int fd = err ? err : npk__open_for_change(p->dir.fd, p->leaf, step->path);
    if (fd < 0)
        return fd;
    err = h.shape[0] > step->rows ? npk__write_rows(fd, &h, step->rows) : 0;
    if (!err)
        err = npk__ftruncate(fd, step->size);
    npk__close(&fd);
    return err > 0 ? -EIO : err;
}

int npk__step_run(npk_stepping *w, const npk_step *step)
{
    struct place p;
    int err = find_place(w, step, &p);
    if (!err) {
        switch (step->type) {
        case NPK_STEP_CUT:
            err = run_cut(step, &p);
            break;
        case NPK_STEP_SWAP:
            err = run_swap(w, step, &p);
            break;
        case NPK_STEP_REMOVE:
            err = run_remove(w, step, &p);
            break;
        case NPK_STEP_WRITE:
            err = run_write(w, step, &p);
            break;
        }
    }
    leave_place(&p);
    if (err == -ENOENT || err == -ENOTDIR)
        return 0; /* its group is gone */
    return err ? npk__fail(err, "\"%s\": %s while a change of several arrays was made; the next change goes on with it",
                           step->path, strerrorname_np(-err))
               : 0;
}

/* ---- all steps of a journal that was read ---------------------------------------------------------------------- */

struct names {
    char **list;
    size_t count;
};

static int add_name(void *ctx, const npk_step *step)
{
    struct names *all = ctx;
    char name[NPK__PATH_BYTES];
    char **list = realloc(all->list, (all->count + 1) * sizeof(*list));
    if (!list)
        return -ENOMEM;
    all->list = list;
    int err = npk__path_to_name(step->path, name, sizeof(name));
    if (!err && !(list[all->count++] = strdup(name)))
        err = -ENOMEM;
    return err;
}

int npk__steps_lock(npk_journal *j)
{
    struct names all = {0};
    int err = npk__journal_each(j, add_name, &all);
    npk_target *targets = calloc(all.count + 1, sizeof(*targets));
    if (!err && !targets)
        err = npk__fail(-ENOMEM, "out of memory");
    if (!err) {
        /* A group that is gone has no lock, and its step nothing to do. */
        err = npk__targets_lock_raw(j->store, (const char *const *)all.list, all.count, targets, true);
        if (!err)
            err = npk__journal_run(j);
        for (size_t i = all.count; i-- > 0;)
            npk__target_release(&targets[i]);
    }
    for (size_t i = 0; i < all.count; i++)
        free(all.list[i]);
    free(all.list);
    free(targets);
    return err;
}
