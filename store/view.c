/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "view.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "io.h"
#include "known.h"
#include "lock.h"
#include "lower.h"
#include "marks.h"
#include "path.h"
#include "settle.h"
#include "store.h"
#include "target.h"

/* Rows that are close together are read with what lies between them, in pieces of this size on the stack. */
#define WINDOW (64u << 10)
/* A run this long is worth a call of its own. */
#define LONG_RUN (16u << 10)

struct npk_view {
    npk_live *live; /* NULL: the file behind a placeholder, nothing of it deleted */
    npk__shown shown;
    uint64_t rows; /* of the file; 0 without live */
    uint64_t tail_bytes, generation;
    uint8_t header[]; /* as shown */
};

/* ---- pure ------------------------------------------------------------------------------------------------------ */

void npk__view_header(uint8_t *header, const npk_header *h, uint64_t rows)
{
    uint8_t *at = header + h->digits_offset;
    for (uint32_t i = h->digits_width; i-- > 0; rows /= 10)
        at[i] = rows > 0 || i + 1 == h->digits_width ? (uint8_t)('0' + rows % 10) : ' ';
}

uint64_t npk__view_run(const npk_live *live, uint64_t logical, uint64_t most, uint64_t *physical)
{
    uint64_t first = npk__live_select(live, logical), start, stop;
    *physical = first;
    return npk__live_next_deleted(live, first, &start, &stop) && start - first < most ? start - first : most;
}

const npk__shown *npk__view_shown(const npk_view *v)
{
    return &v->shown;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

/* 1: *k is known of the file, whose facts are *info; 0: it is no view. */
static int look(npk_store *s, const char *path, int fd, npk_info *info, npk_known *k)
{
    npk_dir dir;
    npk_stamp stamp;
    const char *leaf;
    *k = NPK_KNOWN_NONE;
    *info = (npk_info){.file_bytes = 0};
    int err = npk__path_check(path);
    if (!err)
        err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    err = npk__fd_stamp(fd, &stamp);
    int there = err ? npk__fail_errno(err, path) : npk__state_there(dir.fd, leaf, stamp.id.inode);
    info->file_bytes = err ? 0 : stamp.size;
    if (there > 0) {
        err = npk__fd_look(fd, info, &stamp);
        if (err)
            npk__fail_errno(err, path);
        else
            err = npk__known(dir.fd, leaf, fd, info, &stamp, k);
        there = err ? err : k->stated;
    }
    npk__dir_release(&dir);
    return there;
}

/* Bytes of the data file, wherever they are. */
static ssize_t read_file(npk_package_file *packed, int fd, void *out, size_t bytes, uint64_t offset)
{
    return packed ? npk_package_file_read(packed, offset, out, bytes) : npk__pread_full(fd, out, bytes, offset);
}

/* All of a file whose data is in a package; its bytes are those of a part-row behind no rows. */
static npk_view *whole_view(npk_package_file *packed, uint64_t bytes)
{
    npk_view *v = malloc(sizeof(*v));
    if (v)
        *v = (npk_view){.shown = {.packed = packed, .row_bytes = 1}, .tail_bytes = bytes};
    return v;
}

npk_err npk_view_open_whole(npk_store *s, int fd, npk_view **out)
{
    npk_package_file *packed = NULL;
    npk_stamp stamp;
    int err = npk__placeholder_open(s, fd, &packed);
    npk_view *v = NULL;
    if (!err && packed && (err = npk__fd_stamp(fd, &stamp)) == 0 && !(v = whole_view(packed, stamp.size)))
        err = -ENOMEM;
    if (err && packed)
        npk__fail_errno(err, "a placeholder");
    if (err)
        npk_package_file_close(&packed);
    else
        *out = v;
    return err;
}

npk_err npk_view_open(npk_store *s, const char *path, int fd, npk_view **out)
{
    npk_info info;
    npk_known k;
    npk_view *v = NULL;
    npk_package_file *packed = NULL;
    int err = npk__placeholder_open(s, fd, &packed);
    if (err)
        return err;
    int there = look(s, path, fd, &info, &k);
    if (there > 0 && k.deleted > 0) {
        const npk_header *h = &info.header;
        v = malloc(sizeof(*v) + (size_t)h->data_offset);
        ssize_t n = v ? read_file(packed, fd, v->header, (size_t)h->data_offset, 0) : -ENOMEM;
        if (n != (ssize_t)h->data_offset) {
            there = npk__fail_errno(n < 0 ? (int)n : -EIO, path);
            free(v);
            v = NULL;
        } else {
            *v = (npk_view){.live = npk__live_ref(k.live),
                            .shown = {.live = k.live,
                                      .rows = k.rows - k.deleted,
                                      .row_bytes = h->row_bytes,
                                      .data_offset = h->data_offset,
                                      .packed = packed},
                            .rows = k.rows,
                            .tail_bytes = info.tail_bytes,
                            .generation = k.generation};
            npk__view_header(v->header, h, k.rows - k.deleted);
            packed = NULL;
        }
    }
    npk__known_release(&k);
    npk_info_clear(&info);
    npk_package_file_close(&packed);
    if (there < 0)
        return there;
    *out = v;
    return 0;
}

void npk_view_close(npk_view **view)
{
    if (!view || !*view)
        return;
    npk__live_unref(&(*view)->live);
    npk_package_file_close(&(*view)->shown.packed);
    free(*view);
    *view = NULL;
}

static uint64_t shown_end(const npk_view *v) /* of the rows */
{
    return v->shown.data_offset + v->shown.rows * v->shown.row_bytes;
}

uint64_t npk_view_bytes(const npk_view *v)
{
    return shown_end(v) + v->tail_bytes;
}

uint64_t npk_view_generation(const npk_view *v)
{
    return v->generation;
}

uint64_t npk_view_rows(const npk_view *v)
{
    return v->shown.rows;
}

npk_err npk_view_shows(npk_store *s, const char *path, int fd, uint64_t *bytes, uint64_t *generation)
{
    npk_info info;
    npk_known k;
    int there = look(s, path, fd, &info, &k);
    if (there >= 0) {
        *bytes = info.file_bytes - k.deleted * info.header.row_bytes;
        *generation = k.generation;
    }
    npk__known_release(&k);
    npk_info_clear(&info);
    return there < 0 ? there : 0;
}

npk_err npk_shown_stat(npk_store *s, const char *path, int fd, npk_info *out)
{
    npk_dir dir;
    const char *leaf;
    int err = npk__path_check(path);
    if (!err)
        err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    err = npk__shown_facts(dir.fd, leaf, fd, out, NULL);
    npk__dir_release(&dir);
    return err;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* A piece of shown data bytes: from `offset` (of the shown data) on, `bytes` of them. */
struct piece {
    uint64_t offset;
    size_t bytes;
};

/* Bytes of a run that begins inside row `logical`, `skip` bytes into it: where in the file, and how many at most. */
static uint64_t run_bytes(const npk__shown *v, uint64_t offset, size_t most, uint64_t *at)
{
    uint64_t logical = offset / v->row_bytes, skip = offset % v->row_bytes, physical;
    uint64_t rows = npk__view_run(v->live, logical, (skip + most + v->row_bytes - 1) / v->row_bytes, &physical);
    uint64_t bytes = rows * v->row_bytes - skip;
    *at = v->data_offset + physical * v->row_bytes + skip;
    return bytes < most ? bytes : most;
}

/* Many short runs by one call: the file from the first on, as much as the window takes, then the live rows out of it.
 * Returns how many shown bytes were read. */
static ssize_t read_window(const npk__shown *v, int fd, uint64_t offset, uint8_t *out, size_t bytes)
{
    uint8_t window[WINDOW];
    uint64_t shown_left = v->rows * v->row_bytes - offset, start, stop;
    if (bytes > shown_left)
        bytes = (size_t)shown_left;
    uint64_t physical = npk__live_select(v->live, offset / v->row_bytes);
    uint64_t from = v->data_offset + physical * v->row_bytes + offset % v->row_bytes;
    /* The last byte that is wanted, or the window's end, whichever comes first. */
    uint64_t last = offset + bytes - 1, to = from + sizeof(window);
    if (bytes < sizeof(window))
        to = v->data_offset + npk__live_select(v->live, last / v->row_bytes) * v->row_bytes + last % v->row_bytes + 1;
    size_t span = to - from < sizeof(window) ? (size_t)(to - from) : sizeof(window);
    ssize_t got = read_file(v->packed, fd, window, span, from);
    if (got <= 0)
        return got;
    uint64_t at = from, end = from + (uint64_t)got, done = 0;
    while (at < end && done < bytes) {
        bool more = npk__live_next_deleted(v->live, physical, &start, &stop);
        uint64_t run_end = more ? v->data_offset + start * v->row_bytes : end;
        uint64_t n = (run_end < end ? run_end : end) - at;
        if (n > bytes - done)
            n = bytes - done;
        memcpy(out + done, window + (at - from), n);
        done += n;
        if (!more)
            break;
        physical = stop;
        at = v->data_offset + stop * v->row_bytes;
    }
    return (ssize_t)done;
}

ssize_t npk__shown_read(const npk__shown *v, int fd, uint64_t offset, void *to, size_t bytes)
{
    uint8_t *out = to;
    size_t done = 0;
    while (done < bytes) {
        uint64_t at;
        size_t n = (size_t)run_bytes(v, offset + done, bytes - done, &at);
        ssize_t got = n >= LONG_RUN || n == bytes - done || v->row_bytes >= WINDOW
                          ? read_file(v->packed, fd, out + done, n, at)
                          : read_window(v, fd, offset + done, out + done, bytes - done);
        if (got < 0)
            return got;
        if (got == 0)
            break; /* cut by somebody else */
        done += (size_t)got;
    }
    return (ssize_t)done;
}

ssize_t npk_view_read(const npk_view *v, int fd, uint64_t offset, void *out, size_t bytes)
{
    uint8_t *to = out;
    uint64_t rows_end = shown_end(v), end = rows_end + v->tail_bytes;
    size_t done = 0;
    if (offset >= end)
        return 0;
    if (bytes > end - offset)
        bytes = (size_t)(end - offset);
    if (offset < v->shown.data_offset) {
        done = v->shown.data_offset - offset < bytes ? (size_t)(v->shown.data_offset - offset) : bytes;
        memcpy(to, v->header + offset, done);
    }
    if (done < bytes && offset + done < rows_end) {
        uint64_t from = offset + done, left = rows_end - from;
        size_t n = left < bytes - done ? (size_t)left : bytes - done;
        ssize_t got = npk__shown_read(&v->shown, fd, from - v->shown.data_offset, to + done, n);
        if (got < 0)
            return done ? (ssize_t)done : npk__fail_errno((int)got, "view");
        done += (size_t)got;
        if ((size_t)got < n)
            return (ssize_t)done;
    }
    if (done < bytes) { /* the part-row */
        uint64_t at = v->shown.data_offset + v->rows * v->shown.row_bytes + (offset + done - rows_end);
        ssize_t got = read_file(v->shown.packed, fd, to + done, bytes - done, at);
        if (got < 0)
            return done ? (ssize_t)done : npk__fail_errno((int)got, "view");
        done += (size_t)got;
    }
    return (ssize_t)done;
}

size_t npk_view_extents(const npk_view *v, uint64_t offset, size_t bytes, npk_view_piece *out, size_t most, size_t *covered)
{
    size_t count = 0, done = 0;
    uint64_t end = shown_end(v);
    if (offset < v->shown.data_offset || offset >= end || v->shown.packed)
        bytes = 0; /* or nowhere in the data file */
    else if (bytes > end - offset)
        bytes = (size_t)(end - offset);
    while (done < bytes && count < most) {
        out[count].bytes = run_bytes(&v->shown, offset + done - v->shown.data_offset, bytes - done, &out[count].offset);
        done += (size_t)out[count++].bytes;
    }
    *covered = done;
    return count;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

ssize_t npk_view_write(const npk_view *v, int fd, uint64_t offset, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    uint64_t rows_end = shown_end(v);
    size_t done = 0;
    if (offset >= rows_end)
        return 0;
    if (count > rows_end - offset)
        count = (size_t)(rows_end - offset);
    if (offset <
        v->shown.data_offset) /* a mapping's page that holds the header comes back with it: never the old digits */
        done = v->shown.data_offset - offset < count ? (size_t)(v->shown.data_offset - offset) : count;
    while (done < count) {
        uint64_t at;
        size_t n = (size_t)run_bytes(&v->shown, offset + done - v->shown.data_offset, count - done, &at);
        int err = npk__pwrite_full(fd, from + done, n, at);
        if (err)
            return done ? (ssize_t)done : npk__fail_errno(err, "view");
        done += n;
    }
    return (ssize_t)done;
}

/* ---- size ------------------------------------------------------------------------------------------------------ */

/* The size of the data file that shows `shown` bytes: everything behind the row that is the first not to be shown whole
 * goes, and the rows before it stay, deleted ones among them. */
static uint64_t physical_size(const npk_view *v, uint64_t shown)
{
    if (shown >= shown_end(v))
        return v->shown.data_offset + v->rows * v->shown.row_bytes + (shown - shown_end(v));
    if (shown < v->shown.data_offset)
        return shown;
    uint64_t row = (shown - v->shown.data_offset) / v->shown.row_bytes,
             part = (shown - v->shown.data_offset) % v->shown.row_bytes;
    return v->shown.data_offset + npk__live_select(v->live, row) * v->shown.row_bytes + part;
}

npk_err npk_view_set_size(npk_store *s, const char *path, int fd, const npk_view *v, uint64_t shown_bytes)
{
    if (shown_bytes > INT64_MAX - v->rows * v->shown.row_bytes)
        return npk__fail(-EFBIG, "\"%s\": %" PRIu64 " bytes; at most 2^63 - 1 with the deleted rows", path,
                         shown_bytes);
    return npk_set_size(s, path, fd, physical_size(v, shown_bytes));
}
