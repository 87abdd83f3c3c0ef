/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "rewrite.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "digits.h"
#include "fail.h"
#include "io.h"
#include "lease.h"
#include "lower.h"
#include "settle.h"
#include "store.h"
#include "swap.h"
#include "view.h"

/* Data is copied in pieces of this much: while the lease is held an opener waits in the kernel, and gives the operation
 * notice by it. */
#define PIECE (UINT64_C(32) << 20)
/* So much is given to the disk at once, and so much is waited for: a sync at the end would keep openers for as long as
 * the disk takes for everything. */
#define BEHIND (UINT64_C(8) << 20)
#define SYNCED (UINT64_C(512) << 20)
/* A run of live rows this long is copied by a call of its own; shorter ones are gathered into pieces of the other size.
 */
#define LONG_RUN (UINT64_C(256) << 10)
#define GATHERED ((size_t)1 << 20)
#define MOST_THREADS 7 /* beside the caller's */
/* Filesystems that let files share blocks do so with whole blocks of this size (or not at all). */
#define BLOCK 4096u

static int lease_lost(const npk_target *t)
{
    return npk__fail(-EBUSY, "\"%s\": a program has just opened it for writing; try again when it is closed", t->name);
}

/* 1: the lease is held; 0: it proves nothing here and the caller vouches. */
static int take_lease(const npk_target *t, int ro_fd, unsigned how)
{
    const char *why = "";
    if (!npk_leases_prove(t->store, &why)) {
        if (how & NPK_REWRITE_FORCE)
            return 0;
        return npk__fail(-EBUSY, "\"%s\": needs a new file, and nothing proves here that nobody writes to it (%s); who knows that "
                         "nobody does can force it",
                         t->name, why);
    }
    int err = npk__lease_take(ro_fd);
    if (err == -EAGAIN)
        return npk__fail(-EBUSY, "\"%s\": open or mapped for writing by a program; try again when it is closed",
                         t->name);
    if (err && !(how & NPK_REWRITE_FORCE))
        return npk__fail(-EBUSY, "\"%s\": only its owner or root can be told that nobody writes to it", t->name);
    return err == 0;
}

/* A copy under way. */
struct copy {
    const npk_target *t;
    const npk_rewriting *r;
    int from, to;
    bool leased;
    npk_package_file *packed; /* where the old file's data is, for a placeholder; live rows alone are copied then */
    uint64_t done, behind, synced; /* bytes of data written, given to the disk, and on the disk */
};

/* Between two pieces: is the lease ours, does the caller go on? */
static int pause_copy(struct copy *c)
{
    if (c->leased && !npk__lease_holds(c->from))
        return lease_lost(c->t);
    if (c->r->progress && c->r->progress(c->r->ctx, c->done, c->r->data_bytes) != 0)
        return npk__fail(-ECANCELED, "\"%s\": stopped; nothing has changed", c->t->name);
    if (c->done - c->behind >= BEHIND) { /* the disk works while the next piece is copied, and the last sync is short */
        npk__writeback(c->to);
        c->behind = c->done;
    }
    if (c->done - c->synced < SYNCED)
        return 0;
    c->synced = c->done;
    int err = npk__fdatasync(c->to);
    return err ? npk__fail_errno(err, c->t->name) : 0;
}

/* How much of `left` bytes to copy in one call. Where blocks lie alike in both files, whole blocks apart from the rest. */
static uint64_t next_bytes(uint64_t from, uint64_t to, uint64_t left)
{
    uint64_t n = left < PIECE ? left : PIECE, skip = (BLOCK - from % BLOCK) % BLOCK;
    if (from % BLOCK != to % BLOCK || n < 4 * BLOCK)
        return n;
    return skip > 0 ? skip : n - n % BLOCK;
}

static int copy_stretch(struct copy *c, uint64_t from, uint64_t bytes)
{
    int err = 0;
    for (uint64_t done = 0, n; done < bytes && !err; done += n) {
        n = next_bytes(from + done, c->r->header_bytes + c->done, bytes - done);
        err = npk__copy_full(c->from, from + done, c->to, c->r->header_bytes + c->done, n);
        if (err)
            return npk__fail_errno(err, c->t->name);
        c->done += n;
        err = pause_copy(c);
    }
    return err;
}

/* A piece of the shown data that is in many short runs, through memory. */
static int copy_gathered(struct copy *c, const npk__shown *shown, uint8_t *buffer)
{
    uint64_t left = c->r->data_bytes - c->done;
    size_t n = left < GATHERED ? (size_t)left : GATHERED;
    ssize_t got = npk__shown_read(shown, c->from, c->done, buffer, n);
    int err = got < 0           ? (int)got
              : (size_t)got < n ? -EIO
                                : npk__pwrite_full(c->to, buffer, n, c->r->header_bytes + c->done);
    if (err)
        return npk__fail_errno(err, c->t->name);
    c->done += n;
    return pause_copy(c);
}

static int copy_live(struct copy *c)
{
    const npk_header *h = &c->t->info.header;
    const npk_known *k = &c->t->marks.known;
    const npk__shown shown = {
        .live = k->live, .rows = npk__target_rows(c->t), .row_bytes = h->row_bytes, .data_offset = h->data_offset, .packed = c->packed};
    uint8_t *buffer = malloc(GATHERED);
    int err = buffer ? 0 : npk__fail(-ENOMEM, "out of memory");
    while (!err && c->done < c->r->data_bytes) {
        uint64_t row = c->done / h->row_bytes, skip = c->done % h->row_bytes, physical;
        uint64_t bytes = npk__view_run(k->live, row, shown.rows - row, &physical) * h->row_bytes - skip;
        /* Long runs may be shared with the old file, and need no memory in any case. */
        err = bytes >= LONG_RUN && !c->packed ? copy_stretch(c, npk__rows_end(h, physical) + skip, bytes)
                                : copy_gathered(c, &shown, buffer);
    }
    free(buffer);
    return err;
}

/* ---- elements in another type ---------------------------------------------------------------------------------- */

/* Pieces of the shown data go through the memory of as many threads as there are cores. */
struct converting {
    const struct copy *c;
    npk__shown shown;
    uint64_t elements;
    size_t piece; /* elements */
    _Atomic uint64_t next, done; /* elements */
    atomic_int err;
};

/* No sentence: it would be another thread's. */
static int convert_piece(const struct converting *w, uint64_t at, size_t n, uint8_t *in, uint8_t *out)
{
    const struct copy *c = w->c;
    const npk_conversion *v = c->r->convert;
    size_t from = v->casting.from_bytes, to = v->casting.to_bytes;
    ssize_t got = c->t->marks.known.deleted > 0
                      ? npk__shown_read(&w->shown, c->from, at * from, in, n * from)
                      : npk__pread_full(c->from, in, n * from, w->shown.data_offset + at * from);
    if (got < 0 || (size_t)got < n * from)
        return got < 0 ? (int)got : -EIO;
    npk__convert(v, out, in, n);
    return npk__pwrite_full(c->to, out, n * to, c->r->header_bytes + at * to);
}

/* between, after each piece: that of the thread that may stop the others; NULL in these. */
static int convert_pieces(struct converting *w, struct copy *between)
{
    uint8_t *in = malloc(2 * GATHERED);
    int err = in ? 0 : -ENOMEM;
    while (!err && atomic_load(&w->err) == 0) {
        uint64_t at = atomic_fetch_add(&w->next, w->piece);
        if (at >= w->elements)
            break;
        size_t n = w->elements - at < w->piece ? (size_t)(w->elements - at) : w->piece;
        err = convert_piece(w, at, n, in, in + GATHERED);
        uint64_t done = err ? 0 : atomic_fetch_add(&w->done, n) + n;
        if (err && between)
            npk__fail_errno(err, between->t->name);
        if (!err && between) {
            between->done = done * between->r->convert->casting.to_bytes;
            err = pause_copy(between);
        }
    }
    if (err)
        atomic_store(&w->err, err);
    free(in);
    return err;
}

static void *convert_beside(void *arg)
{
    (void)convert_pieces(arg, NULL);
    return NULL;
}

static int copy_converted(struct copy *c)
{
    const npk_header *h = &c->t->info.header;
    const kn_casting *v = &c->r->convert->casting;
    struct converting w = {.c = c,
                           .shown = {.live = c->t->marks.known.live,
                                     .rows = npk__target_rows(c->t),
                                     .row_bytes = h->row_bytes,
                                     .data_offset = h->data_offset},
                           .elements = c->r->data_bytes / v->to_bytes,
                           .piece = GATHERED / (v->from_bytes > v->to_bytes ? v->from_bytes : v->to_bytes)};
    pthread_t threads[MOST_THREADS];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned count = 0, most = cores < 2 ? 0 : cores > MOST_THREADS ? MOST_THREADS : (unsigned)cores - 1;
    if (w.elements / w.piece < 2 * (uint64_t)most) /* not worth a thread */
        most = 0;
    while (count < most && pthread_create(&threads[count], NULL, convert_beside, &w) == 0)
        count++;
    int err = convert_pieces(&w, c);
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    if (!err && (err = atomic_load(&w.err)) != 0)
        npk__fail_errno(err, c->t->name);
    c->done = c->r->data_bytes;
    return err;
}

static int copy_data(struct copy *c)
{
    if (c->r->convert)
        return copy_converted(c);
    if ((c->r->how & NPK_REWRITE_LIVE) && c->t->marks.known.deleted > 0)
        return copy_live(c);
    return copy_stretch(c, c->t->info.header.data_offset, c->r->data_bytes);
}

/* The new file is in a session if the old one was, and from before it has the name, so that growth is adopted. */
static int enter(npk_target *t, const npk_swap *w, npk_dirty *out)
{
    npk_info now = {0};
    int err = npk__fd_facts(w->fd, &now, &out->id);
    if (!err) {
        out->data_offset = now.header.data_offset;
        out->row_bytes = now.header.row_bytes;
        out->rows_known = now.rows;
        out->marked = false;
        if (now.reason || npk__settle_state(&now) == NPK_UNFINISHED)
            err = npk__fail(-EIO, "\"%s\": its new header is not what was meant", t->name);
        else if (npk_header_is_row_array(&now.header))
            err = npk__dirty_add(t->dir.fd, out);
    }
    npk_info_clear(&now);
    return err;
}

/* The state speaks of both files while the new one takes the name (P6). */
static int commit(npk_target *t, npk_swap *w, bool leased, unsigned marks)
{
    npk_marks_swap both;
    int err = npk__fsync(w->fd);
    if (err)
        return npk__fail_errno(err, t->name);
    err = npk__marks_swap_begin(&t->marks, w->fd, marks, &both);
    if (err)
        return err;
    err = npk__swap_commit(w, (leased ? NPK_SWAP_LEASE : 0) | NPK_SWAP_SYNC | NPK_SWAP_STATE);
    int ended = npk__marks_swap_end(&t->marks, &both);
    return err ? err : ended;
}

static int swap(npk_target *t, int ro_fd, bool leased, const npk_rewriting *r)
{
    npk_swap w;
    npk_dirty entry;
    int there = npk__dirty_find(t->dir.fd, &t->id, &entry);
    int err = there < 0 ? there : npk__swap_begin(t->dir.fd, t->leaf, ro_fd, &w);
    if (err)
        return err;
    struct copy c = {.t = t, .r = r, .from = ro_fd, .to = w.fd, .leased = leased};
    err = npk__placeholder_open(t->store, ro_fd, &c.packed);
    if (!err && (err = npk__pwrite_full(w.fd, r->header, r->header_bytes, 0)) != 0)
        npk__fail_errno(err, t->name);
    if (!err)
        err = copy_data(&c);
    unsigned marks = r->how & NPK_REWRITE_LIVE ? NPK_MARKS_LIVE : 0;
    if (marks && !r->convert && !c.packed)
        marks |= NPK_MARKS_SAME_BYTES;
    npk_package_file_close(&c.packed);
    if (!err && there)
        err = enter(t, &w, &entry);
    if (!err) {
        err = commit(t, &w, leased, marks);
        if (there) /* the entry of the file that has no name now */
            (void)npk__dirty_remove(t->dir.fd, err ? &entry.id : &t->id, false);
    }
    npk__swap_abort(&w);
    return err;
}

int npk__rewrite(npk_target *t, const npk_rewriting *r)
{
    npk__close(&t->fd); /* a writer of our own would refuse the lease */
    int ro_fd = npk__openat(t->dir.fd, t->leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    int leased = ro_fd < 0 ? npk__name_failed(ro_fd, t->name) : take_lease(t, ro_fd, r->how), err = leased;
    if (leased >= 0) {
        npk_info now = {0};
        npk_file_id id;
        t->marks.fd = ro_fd;
        err = npk__fd_facts(ro_fd, &now, &id); /* again, now that nobody can write */
        if (err)
            err = npk__fail_errno(err, t->name);
        else if (id.inode != t->id.inode || now.file_bytes != t->info.file_bytes ||
                 now.header.data_offset != t->info.header.data_offset)
            err = npk__fail(-EBUSY, "\"%s\": changed by a program just now; try again when it is closed", t->name);
        else
            err = swap(t, ro_fd, leased, r);
        npk_info_clear(&now);
        if (leased)
            npk__lease_drop(ro_fd);
    }
    npk__close(&ro_fd);
    npk__target_shut(t);
    return err;
}

int npk__rewrite_roomier(npk_target *t)
{
    const npk_header *h = &t->info.header;
    npk_info now = {0};
    int err = npk__fd_facts(t->fd, &now, &t->id); /* rows that could not be counted yet are to be counted now */
    if (err)
        return npk__fail_errno(err, t->name);
    npk_info_clear(&t->info);
    t->info = now;
    uint64_t data_bytes = t->info.file_bytes - h->data_offset, rows = h->shape[0];
    if (t->entry.may_adopt)
        rows = data_bytes / h->row_bytes;
    size_t cap = (size_t)h->data_offset + 256, bytes = 0;
    uint8_t *old = malloc(cap), *new = malloc(cap);
    if (!old || !new) {
        err = npk__fail(-ENOMEM, "out of memory");
    } else {
        ssize_t n = npk__pread_full(t->fd, old, (size_t)h->data_offset, 0);
        err = n < 0 ? (int)n : (uint64_t)n < h->data_offset ? -EIO : 0;
        if (!err)
            err = npk__header_relayout(old, (size_t)n, h, rows, new, cap, &bytes);
        err = err ? npk__fail_errno(err, t->name)
                  : npk__rewrite(t, &(npk_rewriting){.header = new, .header_bytes = bytes, .data_bytes = data_bytes});
    }
    free(old);
    free(new);
    return err;
}
