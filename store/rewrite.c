/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "rewrite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "digits.h"
#include "fail.h"
#include "io.h"
#include "lease.h"
#include "settle.h"
#include "store.h"
#include "swap.h"

/* Data is copied in pieces of this much, each synced: while the lease is held an opener waits in the kernel, and gives
 * the operation notice by it. */
#define PIECE (UINT64_C(32) << 20)

static int lease_lost(const npk_target *t)
{
    return npk__fail(-EBUSY, "\"%s\": a program has just opened it for writing; try again when it is closed", t->name);
}

static int take_lease(const npk_target *t, int ro_fd)
{
    const char *why = "";
    if (!npk_leases_prove(t->store, &why))
        return npk__fail(-EBUSY, "\"%s\": needs a new header, and nothing proves here that nobody writes to it (%s)",
                         t->name, why);
    int err = npk__lease_take(ro_fd);
    if (err == -EAGAIN)
        return npk__fail(-EBUSY, "\"%s\": open or mapped for writing by a program; try again when it is closed",
                         t->name);
    if (err)
        return npk__fail(-EBUSY, "\"%s\": only its owner or root can be told that nobody writes to it", t->name);
    return 0;
}

static int copy_data(const npk_target *t, int ro_fd, uint64_t from, const npk_swap *w, uint64_t to, uint64_t bytes)
{
    int err = 0;
    for (uint64_t done = 0; done < bytes && !err; done += PIECE) {
        uint64_t n = bytes - done < PIECE ? bytes - done : PIECE;
        err = npk__copy_full(ro_fd, from + done, w->fd, to + done, n);
        if (!err && bytes > PIECE)
            err = npk__fdatasync(w->fd);
        if (!err && !npk__lease_holds(ro_fd))
            return lease_lost(t);
    }
    return err ? npk__fail_errno(err, t->name) : 0;
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

static int swap(npk_target *t, int ro_fd, const uint8_t *header, size_t bytes, uint64_t data_bytes)
{
    npk_swap w;
    npk_dirty entry;
    uint64_t from = t->info.header.data_offset;
    int there = npk__dirty_find(t->dir.fd, &t->id, &entry);
    int err = there < 0 ? there : npk__swap_begin(t->dir.fd, t->leaf, ro_fd, &w);
    if (err)
        return err;
    err = npk__pwrite_full(w.fd, header, bytes, 0);
    err = err ? npk__fail_errno(err, t->name) : copy_data(t, ro_fd, from, &w, bytes, data_bytes);
    if (!err && there)
        err = enter(t, &w, &entry);
    if (!err) {
        err = npk__swap_commit(&w, NPK_SWAP_LEASE | NPK_SWAP_SYNC);
        if (there) /* the entry of the file that has no name now */
            (void)npk__dirty_remove(t->dir.fd, err ? &entry.id : &t->id, false);
    }
    npk__swap_abort(&w);
    return err;
}

int npk__rewrite(npk_target *t, const uint8_t *header, size_t bytes, uint64_t data_bytes)
{
    npk__close(&t->fd); /* a writer of our own would refuse the lease */
    int ro_fd = npk__openat(t->dir.fd, t->leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    int err = ro_fd < 0 ? npk__name_failed(ro_fd, t->name) : take_lease(t, ro_fd);
    if (!err) {
        npk_info now = {0};
        npk_file_id id;
        err = npk__fd_facts(ro_fd, &now, &id); /* again, now that nobody can write */
        if (err)
            err = npk__fail_errno(err, t->name);
        else if (id.inode != t->id.inode || now.file_bytes != t->info.file_bytes ||
                 now.header.data_offset != t->info.header.data_offset)
            err = npk__fail(-EBUSY, "\"%s\": changed by a program just now; try again when it is closed", t->name);
        else
            err = swap(t, ro_fd, header, bytes, data_bytes);
        npk_info_clear(&now);
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
        err = err ? npk__fail_errno(err, t->name) : npk__rewrite(t, new, bytes, data_bytes);
    }
    free(old);
    free(new);
    return err;
}
