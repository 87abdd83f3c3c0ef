/* SPDX-License-Identifier: Apache-2.0 */
/* Truncate, extend, reshape. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "io.h"
#include "lease.h"
#include "npk.h"
#include "npy.h"
#include "path.h"
#include "rewrite.h"
#include "settle.h"
#include "store.h"
#include "target.h"

/* A header of one page is replaced in place by one write that no crash of a process can cut. */
#define PAGE 4096u

/* ---- rows ------------------------------------------------------------------------------------------------------ */

/* Rows of the file. Deleted ones before the last row that stays keep their place. */
static int truncate_rows(npk_target *t, uint64_t rows)
{
    npk_header *h = &t->info.header;
    uint64_t end = npk__rows_end(h, rows);
    int err = rows < t->info.rows ? npk__marks_shrink(&t->marks, rows) : 0;
    if (err)
        return err;
    err = rows < t->info.rows ? npk__write_rows(t->fd, h, rows) : 0; /* P3: digits first */
    if (err > 0)
        err = -EIO; /* fewer digits always have room */
    if (!err && end < t->info.file_bytes)
        err = npk__ftruncate(t->fd, end);
    if (err)
        return npk__fail_errno(err, t->name);
    t->info.rows = t->info.live = t->info.physical_rows = rows;
    npk__target_wrote(t);
    npk__known_clip(&t->marks.known, rows);
    return npk__marks_cut(&t->marks);
}

npk_err npk_truncate(npk_store *s, const char *name, uint64_t rows)
{
    npk_target t;
    int err = npk__target_lock(s, name, &t);
    if (!err)
        err = npk__target_open(&t, NPK_TARGET_ALONE | NPK_TARGET_TAIL);
    if (!err && rows > npk__target_rows(&t))
        err = npk__fail(-ERANGE, "\"%s\": %" PRIu64 " rows to be kept, and there are %" PRIu64 "; extend makes more",
                        name, rows, npk__target_rows(&t));
    if (!err)
        err = truncate_rows(&t, npk__target_row(&t, rows));
    npk__target_release(&t);
    return err;
}

/* Bytes beyond the rows are taken as rows, since that was asked for; a part of a row among them is set aside, or the
 * new rows would begin inside it. */
static int clear_way(const npk_target *t, uint64_t rows)
{
    const npk_header *h = &t->info.header;
    uint64_t whole = (t->info.file_bytes - h->data_offset) / h->row_bytes, end = npk__rows_end(h, whole);
    char aside[256];
    if (npk__tail_is_npy(t->fd, &t->info))
        return npk__fail(-EBUSY, "\"%s\": another array was saved behind it in the same file; rows cannot follow",
                         t->name);
    if (end == t->info.file_bytes || rows <= whole)
        return 0;
    return npk__set_tail_aside(t->dir.fd, t->leaf, t->fd, end, aside);
}

static int extend(npk_target *t, uint64_t rows)
{
    npk_header *h = &t->info.header;
    if (rows < npk__target_rows(t))
        return npk__fail(-ERANGE, "\"%s\": %" PRIu64 " rows, and there are %" PRIu64 "; truncate makes fewer", t->name,
                         rows, npk__target_rows(t));
    rows = npk__target_row(t, rows);
    if (rows == t->info.rows)
        return 0;
    int err = clear_way(t, rows);
    if (err)
        return err;
    if (npk__rows_end(h, rows) > t->info.file_bytes)
        err = npk__ftruncate(t->fd, npk__rows_end(h, rows));
    if (!err)
        err = npk__write_rows(t->fd, h, rows);
    if (err > 0)
        err = -EBUSY; /* there was room a moment ago */
    npk__target_wrote(t);
    return err ? npk__fail_errno(err, t->name) : 0;
}

npk_err npk_extend(npk_store *s, const char *name, uint64_t rows)
{
    npk_target t;
    int err = npk__target_lock(s, name, &t);
    if (!err)
        err = npk__target_open_with_room(&t, NPK_TARGET_ALONE | NPK_TARGET_TAIL, rows);
    if (!err)
        err = extend(&t, rows);
    npk__target_release(&t);
    return err;
}

/* ---- shape ----------------------------------------------------------------------------------------------------- */

static int bad_shape(const char *name, const int64_t *shape, uint32_t ndim, const char *why)
{
    char text[256] = "";
    size_t at = 0;
    for (uint32_t i = 0; i < ndim && at + 24 < sizeof(text); i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%" PRId64, i ? "," : "", shape[i]);
    return npk__fail(-EINVAL, "\"%s\": shape (%s): %s", name, text, why);
}

static uint64_t elements(const npk_header *h)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < h->ndim; i++)
        n *= h->shape[i]; /* the parse has checked that it fits */
    return n;
}

/* Put the number for a -1 in. total: the elements that there are. */
static int resolve_shape(const char *name, const int64_t *shape, uint32_t ndim, uint64_t total, uint64_t *out)
{
    uint64_t known = 1;
    uint32_t open_at = ndim;
    for (uint32_t i = 0; i < ndim; i++) {
        if (shape[i] == -1 && open_at < ndim)
            return bad_shape(name, shape, ndim, "only one dimension may be -1");
        if (shape[i] < -1)
            return bad_shape(name, shape, ndim, "a dimension is 0 or more, or -1 for what remains");
        if (shape[i] == -1)
            open_at = i;
        else if (__builtin_mul_overflow(known, (uint64_t)shape[i], &known))
            return bad_shape(name, shape, ndim, "more elements than a file can hold");
        out[i] = (uint64_t)shape[i];
    }
    if (open_at < ndim) {
        if (known == 0 || total % known != 0)
            return bad_shape(name, shape, ndim, "no number fits for the -1");
        out[open_at] = total / known;
        known = total;
    }
    if (known == total)
        return 0;
    char why[96];
    snprintf(why, sizeof(why), "%" PRIu64 " elements, and there are %" PRIu64, known, total);
    return bad_shape(name, shape, ndim, why);
}

/* The header for another shape, with the old one's descr, padded to data_offset bytes if it fits into them, else as
 * long as it needs to be. */
static int make_header(const npk_target *t, const uint64_t *shape, uint32_t ndim, uint8_t **out, size_t *bytes)
{
    const npk_header *h = &t->info.header;
    size_t cap = (size_t)h->data_offset + 64 * 24 + 512;
    uint8_t *old = malloc(cap), *made = calloc(1, cap);
    char *descr = malloc(h->descr_bytes + 1u);
    int err = old && made && descr ? 0 : -ENOMEM;
    ssize_t n = err ? 0 : npk__pread_full(t->fd, old, (size_t)h->data_offset, 0);
    if (n < 0)
        err = (int)n;
    else if (!err && (uint64_t)n < h->data_offset)
        err = -EIO;
    if (!err) {
        memcpy(descr, old + h->descr_offset, h->descr_bytes);
        descr[h->descr_bytes] = '\0';
        err = npk_header_format(descr, false, shape, ndim, old, cap, bytes);
    }
    if (!err) { /* the dict ends with the last '}' of the text */
        size_t from = old[6] == 1 ? 10 : 12, end = *bytes;
        while (end > from && old[end - 1] != '}')
            end--;
        size_t text = end - from, prefix = npk__prefix_bytes(h->major, text);
        memcpy(made + prefix, old + from, text);
        err = npk__header_seal(made, cap, h->major, text, bytes);
        if (!err && *bytes < h->data_offset && prefix + text < h->data_offset &&
            (made[6] > 1 || h->data_offset - 10 <= UINT16_MAX)) {
            size_t length = (size_t)h->data_offset - prefix;
            memset(made + prefix + text, ' ', length - text - 1);
            made[h->data_offset - 1] = '\n';
            for (size_t i = 8; i < prefix; i++)
                made[i] = (uint8_t)(length >> 8 * (i - 8));
            *bytes = (size_t)h->data_offset;
        }
    }
    free(old);
    free(descr);
    if (err) {
        free(made);
        return npk__fail_errno(err, t->name);
    }
    *out = made;
    return 0;
}

/* The entry goes on with the new size of a row. */
static int update_entry(npk_target *t, const npk_header *h)
{
    if (!npk_header_is_row_array(h)) {
        int gone = npk__dirty_remove(t->dir.fd, &t->id, false);
        return gone < 0 ? gone : 0;
    }
    int there = npk__dirty_find(t->dir.fd, &t->id, &t->entry);
    if (there <= 0)
        return there;
    t->entry.data_offset = h->data_offset;
    t->entry.row_bytes = h->row_bytes;
    t->entry.rows_known = h->shape[0];
    return npk__dirty_update(t->dir.fd, &t->entry);
}

/* One write, while a lease keeps everybody else from opening the file, so that no reader sees a mixture.
 * 1: somebody has it open, or leases prove nothing. */
static int reshape_in_place(npk_target *t, const uint8_t *header, size_t bytes)
{
    npk_header h;
    if (t->marks.known.stated || bytes != t->info.header.data_offset || bytes > PAGE ||
        !npk_leases_prove(t->store, NULL) || npk__lease_take_exclusive(t->fd) != 0)
        return 1;
    int err = npk_header_parse(header, bytes, &h, NULL, 0);
    if (!err)
        err = npk__pwrite_full(t->fd, header, bytes, 0);
    npk__lease_drop(t->fd);
    return err ? npk__fail_errno(err, t->name) : update_entry(t, &h);
}

static int check_reshape(const npk_target *t)
{
    const npk_header *h = &t->info.header;
    if (!npk_header_is_array(h) || (h->fortran && h->ndim > 1))
        return npk__rows_possible(t->name, &t->info);
    if (t->info.file_bytes < h->data_offset + h->data_bytes)
        return npk__fail(-EINVAL, "\"%s\": the file has less data than its header promises; save it again", t->name);
    if (t->info.file_bytes > h->data_offset + h->data_bytes)
        return npk__fail(-EBUSY, "\"%s\": %" PRIu64 " bytes beyond its data; npk check tells about them", t->name,
                         t->info.tail_bytes);
    return 0;
}

static int count_name(void *ctx, const char *range_name, uint64_t start, uint64_t stop)
{
    (void)range_name;
    (void)start;
    (void)stop;
    ++*(size_t *)ctx;
    return 0;
}

static int names_in_the_way(const char *name, size_t names)
{
    return npk__fail(-ENOTSUP,
                     "\"%s\": %zu ranges of its rows have names, which another shape has no place for; remove the names "
                     "first",
                     name, names);
}

/* Named ranges are of rows, and rows are others in another shape. */
static int refuse_names(npk_target *t)
{
    npk_states s;
    int err = npk__marks_states(&t->marks, &s);
    if (err)
        return err;
    size_t names = s.state[0].name_count;
    npk__states_clear(&s);
    return names ? names_in_the_way(t->name, names) : 0;
}

static int reshape(npk_target *t, const int64_t *shape, uint32_t ndim)
{
    uint64_t wanted[NPK_MAX_DIMS];
    uint8_t *header = NULL;
    size_t bytes;
    npk_header h = t->info.header;
    int err = check_reshape(t);
    if (!err && t->marks.known.deleted) /* deleted rows do not come along */
        h.shape[0] = npk__target_rows(t);
    if (!err)
        err = resolve_shape(t->name, shape, ndim, elements(&h), wanted);
    if (!err && t->marks.known.stated)
        err = refuse_names(t);
    if (!err)
        err = make_header(t, wanted, ndim, &header, &bytes);
    if (err)
        return err;
    err = reshape_in_place(t, header, bytes);
    if (err > 0)
        err = npk__rewrite(t, &(npk_rewriting){.header = header,
                                               .header_bytes = bytes,
                                               .data_bytes = t->marks.known.deleted
                                                                 ? npk__target_rows(t) * t->info.header.row_bytes
                                                                 : t->info.header.data_bytes,
                                               .how = NPK_REWRITE_LIVE});
    free(header);
    return err;
}

/* Only the number of rows differs: 1, and *rows is it. */
static bool only_rows_differ(const npk_header *h, const int64_t *shape, uint32_t ndim, int64_t *rows)
{
    if (!npk_header_is_row_array(h) || ndim != h->ndim)
        return false;
    for (uint32_t i = 1; i < ndim; i++)
        if (shape[i] < 0 || (uint64_t)shape[i] != h->shape[i])
            return false;
    *rows = shape[0];
    return shape[0] >= 0;
}

npk_err npk_reshape(npk_store *s, const char *name, const int64_t *shape, uint32_t ndim)
{
    npk_info info;
    int64_t rows;
    if (ndim > NPK_MAX_DIMS)
        return npk__fail(-EINVAL, "\"%s\": %u dimensions; at most %d", name, ndim, NPK_MAX_DIMS);
    int err = npk__store_writable(s, name);
    if (!err)
        err = npk_stat(s, name, &info);
    if (err)
        return err;
    size_t names = 0;
    bool by_rows = !info.reason && only_rows_differ(&info.header, shape, ndim, &rows);
    npk_info_clear(&info);
    if (by_rows)
        return (uint64_t)rows < info.rows ? npk_truncate(s, name, (uint64_t)rows) : npk_extend(s, name, (uint64_t)rows);
    /* Before a part of a row is set aside for nothing; what is no row array has none. */
    if (npk_names(s, name, count_name, &names) == 0 && names)
        return names_in_the_way(name, names);
    npk_target t;
    err = npk__target_lock(s, name, &t);
    if (!err)
        err = npk__target_open(&t, NPK_TARGET_ALONE | NPK_TARGET_ANY);
    if (!err)
        err = reshape(&t, shape, ndim);
    npk__target_release(&t);
    return err;
}
