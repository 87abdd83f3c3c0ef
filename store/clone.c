/* SPDX-License-Identifier: Apache-2.0 */
/* A new array with the shown rows of another. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "array.h"
#include "fail.h"
#include "io.h"
#include "npk.h"
#include "path.h"
#include "store.h"
#include "swap.h"
#include "target.h"
#include "view.h"

#define PIECE ((uint64_t)4 << 20)

/* The rows of a view, through memory. */
static int copy_rows(npk_array *a, int to, uint64_t offset)
{
    const npk_header *h = &npk_array_info(a)->header;
    uint64_t rows = npk_array_info(a)->rows, fit = PIECE / h->row_bytes ? PIECE / h->row_bytes : 1;
    if (fit > rows)
        fit = rows;
    uint8_t *buffer = malloc((size_t)(fit * h->row_bytes) + 1);
    int err = buffer ? 0 : npk__fail(-ENOMEM, "out of memory");
    for (uint64_t row = 0, n; row < rows && !err; row += n) {
        n = rows - row < fit ? rows - row : fit;
        err = npk_read_range(a, row, n, buffer);
        if (!err && (err = npk__pwrite_full(to, buffer, (size_t)(n * h->row_bytes), offset + row * h->row_bytes)) != 0)
            npk__fail_errno(err, npk__array_name(a));
    }
    free(buffer);
    return err;
}

/* Header and data into an empty file; a clean array's data is shared where the filesystem can. */
static int copy_array(npk_array *a, int to)
{
    const npk_info *info = npk_array_info(a);
    const npk_header *h = &info->header;
    int fd = npk__array_fd(a);
    uint8_t *header = malloc((size_t)h->data_offset);
    if (!header)
        return npk__fail(-ENOMEM, "out of memory");
    ssize_t n = fd >= 0 ? npk__pread_full(fd, header, (size_t)h->data_offset, 0) : (ssize_t)h->data_offset;
    int err = fd < 0 ? npk__array_read_packed(a, 0, h->data_offset, header)
              : n < 0 ? (int)n : (uint64_t)n < h->data_offset ? -EIO : 0;
    if (!err && npk_header_is_row_array(h))
        npk__view_header(header, h, info->rows);
    if (!err)
        err = npk__pwrite_full(to, header, (size_t)h->data_offset, 0);
    free(header);
    if (!err && (info->deleted || (fd < 0 && npk_header_is_row_array(h))))
        return copy_rows(a, to, h->data_offset);
    if (!err && h->data_bytes > 0)
        err = npk__copy_full(fd, h->data_offset, to, h->data_offset, h->data_bytes);
    return err ? npk__fail_errno(err, npk__array_name(a)) : 0;
}

static int clone_locked(npk_array *a, const char *name, const npk_target *t)
{
    npk_swap swap;
    int there = npk__openat(t->dir.fd, t->leaf, O_PATH | O_NOFOLLOW, 0);
    if (there >= 0) {
        npk__close(&there);
        return npk__fail(-EEXIST, "\"%s\": exists already; a new name is accepted", name);
    }
    int err = npk__swap_begin(t->dir.fd, t->leaf, -1, &swap);
    if (err)
        return err;
    err = copy_array(a, swap.fd);
    if (!err && (err = npk__swap_commit(&swap, NPK_SWAP_NOREPLACE)) == -EEXIST)
        npk__fail(err, "\"%s\": exists already; a new name is accepted", name);
    npk__swap_abort(&swap);
    return err;
}

npk_err npk_clone(npk_store *s, const char *from, const char *to)
{
    char path[NPK__PATH_BYTES];
    npk_array *a = NULL;
    npk_target t = NPK_TARGET_NONE;
    int err = npk__store_writable(s, to);
    if (!err)
        err = npk__name_to_path(to, path, sizeof(path));
    if (!err)
        err = npk_array_open(s, from, &a);
    if (err)
        return err;
    err = npk__make_parents(s->root_fd, path);
    if (!err)
        err = npk__target_resolve(s, to, &t);
    if (!err)
        err = npk__lock_array(t.dir.fd, t.leaf, NPK_LOCK_EXCLUSIVE, &t.lock);
    if (!err)
        err = clone_locked(a, to, &t);
    npk__target_release(&t);
    npk_array_close(&a);
    return err;
}
