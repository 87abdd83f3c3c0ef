/* SPDX-License-Identifier: Apache-2.0 */
/* The commit of a batch (P16, P17): everything is on the disk before the first step, and one journal makes it one. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "batch.h"
#include "fail.h"
#include "io.h"
#include "lease.h"
#include "path.h"
#include "settle.h"
#include "step.h"
#include "store.h"
#include "swap.h"
#include "target.h"

struct committing {
    npk_batch *b;
    npk_journal journal;
    npk_target *targets; /* of every array that the batch has touched */
    char **names;
    struct hold *holds;
};

/* A file that the batch found, while the commit replaces it: nobody opens it for writing without our seeing it. */
struct hold {
    int fd;           /* O_RDONLY; -1: none */
    bool leased;      /* false: leases prove nothing here */
    int64_t mtime_ns; /* of the last change that is known to us */
};

static int stale(const npk_staged *e, const char *what)
{
    return npk__fail(-ESTALE,
                     "\"%s\": %s since the batch first read it; nothing was changed, abort the batch and begin again",
                     e->path, what);
}

/* ---- what was staged ------------------------------------------------------------------------------------------- */

/* fN is a finished array? Else numpy would refuse it for everybody. */
static int check_file(const npk_staged *e, int fd)
{
    npk_info info = {0};
    int err = npk__fd_facts(fd, &info, NULL);
    if (err)
        return npk__fail_errno(err, e->path);
    if (info.reason)
        err = npk__fail(-EINVAL, "\"%s\": not an array (%s); save it again in the batch", e->path, info.reason);
    else if (info.file_bytes < info.header.data_offset + info.header.data_bytes)
        err = npk__fail(-EINVAL, "\"%s\": unfinished; save it again in the batch", e->path);
    npk_info_clear(&info);
    return err;
}

/* The file gets the owner, mode and attributes of the one that it replaces. */
static int take_over(npk_batch *b, const npk_staged *e, int fd)
{
    if (!e->before.inode)
        return 0;
    int old = npk__open_beneath(b->store->root_fd, e->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (old < 0)
        return old == -ENOENT ? stale(e, "it was removed") : old;
    int err = npk__carry_over(old, fd, e->path);
    npk__close(&old);
    return err;
}

static int open_staged(const npk_batch *b, const npk_staged *e)
{
    char name[16];
    npk__staged_name(e->file, name);
    int fd = npk__openat(b->folder_fd, name, O_RDWR | O_NOFOLLOW, 0);
    return fd < 0 ? npk__fail_errno(fd, e->path) : fd;
}

/* Everything is begun to be written before the first wait, so that the disk has it all at once. */
static int prepare_files(npk_batch *b)
{
    int err = 0;
    for (size_t i = 0; i < b->count && !err; i++) {
        const npk_staged *e = &b->list[i];
        if (!e->changed || !e->file)
            continue;
        err = npk__stage_settle(b, e);
        int fd = err ? err : open_staged(b, e);
        if (fd < 0)
            return fd;
        err = check_file(e, fd);
        if (!err)
            err = take_over(b, e, fd);
        npk__writeback(fd);
        npk__close(&fd);
    }
    return err;
}

static int sync_files(npk_batch *b)
{
    int err = b->data_bytes ? npk__fdatasync(b->data_fd) : 0;
    for (size_t i = 0; i < b->count && !err; i++) {
        const npk_staged *e = &b->list[i];
        if (!e->changed || !e->file)
            continue;
        int fd = open_staged(b, e);
        if (fd < 0)
            return fd;
        err = npk__fsync(fd);
        npk__close(&fd);
    }
    if (!err)
        err = npk__fsync(b->folder_fd);
    return err ? npk__fail_errno(err, b->id) : 0;
}

/* The journal, and the way to the staged files, must be found after power loss. */
static int sync_folders(const npk_batch *b)
{
    static const char *const way[] = {NPK__SIDECAR "/" NPK__BATCH_DIR, NPK__SIDECAR, "."};
    int err = 0;
    for (size_t i = 0; i < sizeof(way) / sizeof(way[0]) && !err; i++) {
        int fd = npk__openat(b->store->root_fd, way[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        err = fd < 0 ? fd : npk__fsync(fd);
        npk__close(&fd);
    }
    return err ? npk__fail_errno(err, b->store->label) : 0;
}

/* ---- is everything as the batch found it? ---------------------------------------------------------------------- */

/* The array's lock is held. */
static int check_unchanged(const npk_batch *b, const npk_staged *e, const npk_target *t)
{
    struct stat st;
    npk_file_id id = {0};
    uint64_t shown, generation = 0;
    int fd =
        t->dir.fd < 0 ? -ENOENT : npk__openat(t->dir.fd, t->leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (fd == -ENOENT)
        return e->before.inode ? stale(e, "it was removed") : 0;
    if (fd < 0)
        return npk__fail_errno(fd, e->path);
    int err = npk__fstat(fd, &st);
    if (!err)
        err = npk__file_id(fd, &id);
    if (err)
        npk__fail_errno(err, e->path);
    else if (!e->before.inode)
        err = stale(e, "it was made by somebody else");
    else if (id.inode != e->before.inode || id.birth_ns != e->before.birth_ns)
        err = stale(e, "it was replaced by another file");
    else if ((uint64_t)st.st_size != e->before_size ||
             npk__mtime_ns(&st) != e->before_mtime_ns)
        err = stale(e, "it was changed");
    else if (e->changed && st.st_nlink > 1)
        err = npk__fail(-EMLINK, "\"%s\": the file has %lu names (hard links); only one is accepted", e->path,
                        (unsigned long)st.st_nlink);
    if (!err)
        err = npk_view_shows(b->store, e->path, fd, &shown, &generation);
    if (!err && generation != e->before_generation)
        err = stale(e, "rows of it were deleted or restored");
    if (!err && npk__lease_probe(fd) == -EBUSY)
        err =
            npk__fail(-ESTALE,
                      "\"%s\": a program has it open or mapped for writing; nothing was changed, commit again when it "
                      "is closed, or abort",
                      e->path);
    npk__close(&fd);
    return err;
}

static int check_all_unchanged(const struct committing *c)
{
    int err = 0;
    for (size_t i = 0; i < c->b->count && !err; i++)
        err = check_unchanged(c->b, &c->b->list[i], &c->targets[i]);
    return err;
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

static int add_swap(struct committing *c, const npk_staged *e)
{
    struct stat st;
    npk_step step = {.type = NPK_STEP_SWAP, .path = e->path, .staged = e->file, .before = e->before};
    int fd = open_staged(c->b, e);
    if (fd < 0)
        return fd;
    int err = npk__file_id(fd, &step.after);
    if (!err)
        err = npk__fstat(fd, &st);
    npk__close(&fd);
    if (err)
        return npk__fail_errno(err, e->path);
    step.size = e->before_size;
    step.size_after = (uint64_t)st.st_size;
    npk__journal_add(&c->journal, &step);
    return 0;
}

/* Opening makes its entry in the table of arrays being written, and room for the digits; *mtime_ns: its time after that. */
static int add_write(struct committing *c, const npk_staged *e, npk_target *t, int64_t *mtime_ns)
{
    struct stat st;
    int err = npk__target_open(t, 0);
    uint64_t rows = err ? 0 : t->info.rows;
    if (!err && e->rows < rows)
        err = stale(e, "it was changed");
    if (!err && e->rows > rows) {
        npk__target_shut(t);
        err = npk__target_open_with_room(t, 0, e->rows - rows);
    }
    if (!err && (t->id.inode != e->before.inode || t->id.birth_ns != e->before.birth_ns))
        err = stale(e, "it got a longer header");
    if (err)
        return err;
    const npk_header *h = &t->info.header;
    npk_step step = {.type = NPK_STEP_WRITE,
                     .path = e->path,
                     .before = t->id,
                     .after = t->id,
                     .size = npk__rows_end(h, rows),
                     .size_after = npk__rows_end(h, e->rows),
                     .rows = rows,
                     .rows_after = e->rows,
                     .data_offset = h->data_offset,
                     .row_bytes = h->row_bytes,
                     .pieces = e->pieces,
                     .piece_count = e->piece_count};
    npk__journal_add(&c->journal, &step);
    npk__target_shut(t);
    err = npk__fstatat(t->dir.fd, t->leaf, &st);
    if (err)
        return npk__fail_errno(err, e->path);
    *mtime_ns = npk__mtime_ns(&st);
    return 0;
}

static int add_steps(struct committing *c)
{
    int err = 0;
    for (size_t i = 0; i < c->b->count && !err; i++) {
        const npk_staged *e = &c->b->list[i];
        npk_step gone = {.type = NPK_STEP_REMOVE, .path = e->path, .before = e->before, .size = e->before_size};
        if (!e->changed)
            continue;
        if (e->file)
            err = add_swap(c, e);
        else if (!e->gone)
            err = add_write(c, e, &c->targets[i], &c->holds[i].mtime_ns);
        else if (e->before.inode)
            npk__journal_add(&c->journal, &gone);
    }
    return err;
}

/* ---- the commit ------------------------------------------------------------------------------------------------ */

static int lock_arrays(struct committing *c)
{
    npk_batch *b = c->b;
    char name[NPK__PATH_BYTES];
    c->names = calloc(b->count + 1, sizeof(*c->names));
    c->targets = calloc(b->count + 1, sizeof(*c->targets));
    c->holds = calloc(b->count + 1, sizeof(*c->holds));
    if (!c->names || !c->targets || !c->holds)
        return npk__fail(-ENOMEM, "out of memory");
    for (size_t i = 0; i < b->count; i++) {
        c->targets[i] = NPK_TARGET_NONE;
        c->holds[i] = (struct hold){.fd = -1, .mtime_ns = b->list[i].before_mtime_ns};
    }
    for (size_t i = 0; i < b->count; i++) {
        const npk_staged *e = &b->list[i];
        int err = e->changed && e->file ? npk__make_parents(b->store->root_fd, e->path) : 0;
        if (!err)
            err = npk__path_to_name(e->path, name, sizeof(name));
        if (err)
            return err;
        if (!(c->names[i] = strdup(name)))
            return npk__fail(-ENOMEM, "out of memory");
    }
    return npk__targets_lock_raw(b->store, (const char *const *)c->names, b->count, c->targets, true);
}

static void unlock_arrays(struct committing *c)
{
    for (size_t i = c->targets ? c->b->count : 0; i-- > 0;)
        npk__target_release(&c->targets[i]);
    for (size_t i = 0; c->names && i < c->b->count; i++)
        free(c->names[i]);
    free(c->targets);
    free(c->names);
    free(c->holds);
}

/* ---- holds ----------------------------------------------------------------------------------------------------- */

static void let_go(struct hold *h)
{
    if (h->leased)
        npk__lease_drop(h->fd);
    h->leased = false;
    npk__close(&h->fd);
}

static void let_all_go(struct committing *c)
{
    for (size_t i = 0; c->holds && i < c->b->count; i++)
        let_go(&c->holds[i]);
}

static int opened(const npk_staged *e)
{
    return npk__fail(-ESTALE, "\"%s\": a program has just opened it for writing; nothing was changed, commit again when it is "
                     "closed, or abort", e->path);
}

/* Who opened the file before the journal named it is found by the lease, and what he wrote and closed by the file. */
static int hold(const npk_staged *e, const npk_target *t, struct hold *h)
{
    struct stat st;
    npk_file_id id = {0};
    h->fd = npk__openat(t->dir.fd, t->leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (h->fd < 0)
        return h->fd == -ENOENT ? stale(e, "it was removed") : npk__fail_errno(h->fd, e->path);
    int err = npk__lease_fs_proves(h->fd) ? npk__lease_take(h->fd) : -ENOTSUP;
    if (err == -EAGAIN)
        return opened(e);
    h->leased = err == 0;
    err = npk__fstat(h->fd, &st);
    if (!err)
        err = npk__file_id(h->fd, &id);
    if (err)
        return npk__fail_errno(err, e->path);
    if (id.inode != e->before.inode || id.birth_ns != e->before.birth_ns || (uint64_t)st.st_size != e->before_size ||
        npk__mtime_ns(&st) != h->mtime_ns)
        return stale(e, "it was changed");
    return 0;
}

/* The last look before the first step: has somebody come in between? Steps that write into a file open it for that, which
 * a lease of ours would stand in the way of; mounts look for the journal once more when they have such a file open. */
static int check_holds(struct committing *c)
{
    for (size_t i = 0; i < c->b->count; i++)
        if (c->holds[i].leased && !npk__lease_holds(c->holds[i].fd))
            return opened(&c->b->list[i]);
    for (size_t i = 0; i < c->b->count; i++)
        if (!c->b->list[i].file && !c->b->list[i].gone)
            let_go(&c->holds[i]);
    return 0;
}

static int commit_locked(struct committing *c)
{
    int err = check_all_unchanged(c);
    if (!err)
        err = add_steps(c);
    if (err || c->journal.steps == 0)
        return err;
    err = sync_folders(c->b); /* before the journal says anything: a batch that is not found counts as done */
    if (!err)
        err = npk__journal_write(&c->journal, true);
    /* Mounts let nobody open an array for writing from here on. */
    for (size_t i = 0; i < c->b->count && !err; i++)
        if (c->b->list[i].before.inode)
            err = hold(&c->b->list[i], &c->targets[i], &c->holds[i]);
    if (!err)
        err = check_holds(c);
    if (err) {
        char sentence[NPK__SENTENCE_BYTES];
        memcpy(sentence, npk_error(), strlen(npk_error()) + 1);
        (void)npk__journal_clear(&c->journal);
        let_all_go(c);
        return npk__fail(err, "%s", sentence);
    }
    c->b->decided = true;
    err = npk__journal_run(&c->journal);
    let_all_go(c); /* who waits for one finds another file under its name */
    return err ? err : npk__journal_clear(&c->journal);
}

static int commit_entered(npk_batch *b)
{
    struct committing c = {.b = b, .journal = NPK_JOURNAL_NONE};
    int err = prepare_files(b);
    if (!err)
        err = sync_files(b);
    if (!err)
        err = npk__journal_begin(b->store, NPK_JOURNAL_FORTH, b->id, &c.journal);
    if (!err)
        err = lock_arrays(&c);
    if (!err)
        err = commit_locked(&c);
    unlock_arrays(&c);
    if (!err)
        npk__batch_folder_remove(b->store->root_fd, b->id);
    npk__journal_end(&c.journal);
    return err;
}

npk_err npk_batch_commit(npk_batch **batch)
{
    npk_batch *b = *batch;
    int err = npk__batch_enter(b);
    if (err)
        return err;
    err = commit_entered(b);
    npk__batch_leave(b);
    if (err)
        return err;
    b->opener = false;
    npk_batch_close(batch);
    return 0;
}
