/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "unpack_rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "digits.h"
#include "fail.h"
#include "io.h"
#include "package.h"
#include "path.h"
#include "unpack_dir.h"

#define BATCH (UINT64_C(4) << 20)

/* Rows in runs, straight from the frames that have them. */
static int copy_rows(npk_package_file *f, const npk_header *h, const npk_rows *rows, int fd, uint64_t at)
{
    uint64_t most = BATCH / h->row_bytes > 0 ? BATCH / h->row_bytes : 1, first, count;
    uint8_t *buffer = malloc(most * h->row_bytes);
    npk_rows_cursor cursor = {0};
    int err = buffer ? 0 : npk__fail(-ENOMEM, "out of memory");
    while (!err && (count = npk_rows_take_range(rows, &cursor, most, &first)) > 0) {
        err = npk__package_data(f, first * h->row_bytes, buffer, count * h->row_bytes);
        if (!err)
            err = npk__pwrite_full(fd, buffer, count * h->row_bytes, at);
        at += count * h->row_bytes;
    }
    free(buffer);
    return err;
}

/* The same header with another number of rows. */
static int header_for(npk_package_file *f, const npk_header *h, uint64_t rows, uint8_t **out, size_t *bytes)
{
    size_t capacity = f->record.head + 256;
    uint8_t *head = malloc(f->record.head), *longer = malloc(capacity);
    int err = head && longer ? 0 : npk__fail(-ENOMEM, "out of memory");
    if (!err) {
        npk__pkg_head(&f->record, head);
        err = npk__header_relayout(head, f->record.head, h, rows, longer, capacity, bytes);
        if (err)
            err = npk__fail(err, "the header has no place for %llu rows", (unsigned long long)rows);
    }
    free(head);
    if (err)
        free(longer);
    else
        *out = longer;
    return err;
}

static int unpack_array(npk__unpack_dir *d, npk_package_file *f, npk_entry *e, const npk_header *h, const char *text)
{
    npk_rows rows = {0};
    uint8_t *head = NULL;
    size_t head_bytes = 0;
    int fd = -1;
    int err = npk_rows_parse(text, strlen(text), h->shape[0], &rows);
    if (!err)
        err = header_for(f, h, rows.row_count, &head, &head_bytes);
    if (!err) {
        e->bytes = head_bytes + rows.row_count * h->row_bytes;
        err = npk__unpack_file(d, e, &fd);
    }
    if (!err)
        err = npk__pwrite_full(fd, head, head_bytes, 0);
    if (!err)
        err = copy_rows(f, h, &rows, fd, head_bytes);
    if (!err)
        err = npk__unpack_finish(d, fd, e);
    npk__close(&fd);
    free(head);
    npk_rows_clear(&rows);
    return err;
}

/* The groups above an array, unless they are there. */
static int make_groups(const npk_package *p, npk__unpack_dir *d, const npk_entry *e, bool *made)
{
    int err = 0;
    for (uint32_t n = 1; n < e->path_bytes && !err; n++) {
        uint64_t i;
        npk_entry group;
        if (e->path[n] != '/' || npk_package_find(p, e->path, n, &i) != 0 || made[i])
            continue;
        made[i] = true;
        npk_package_entry(p, i, &group);
        err = npk__unpack_other(d, &group);
    }
    return err;
}

static int unpack_name(npk_package *p, npk__unpack_dir *d, const char *name, const char *rows, bool *made)
{
    char path[NPK__PATH_BYTES];
    uint64_t i;
    npk_info info;
    npk_entry e;
    npk_package_file *f = NULL;
    int err = npk__name_to_path(name, path, sizeof(path));
    if (err)
        return err;
    err = npk_package_find(p, path, strlen(path), &i);
    if (err)
        return npk__fail(err, "\"%s\": no such array in \"%s\"; npk ls shows the arrays", name, p->label);
    if (made[i])
        return 0; /* it was named twice */
    made[i] = true;
    npk_package_entry(p, i, &e);
    e.names_bytes = 0; /* they would mean other rows */
    err = npk_package_file_open(p, i, &f);
    if (!err)
        err = npk_package_file_stat(f, &info);
    if (err) {
        npk_package_file_close(&f);
        return err;
    }
    if (info.reason || !npk_header_is_row_array(&info.header) || info.header.row_bytes == 0 ||
        f->record.head != info.header.data_offset)
        err = npk__fail(-ENOTSUP, "\"%s\": has no rows to choose from; unpack it whole", name);
    if (!err)
        err = make_groups(p, d, &e, made);
    if (!err)
        err = unpack_array(d, f, &e, &info.header, rows);
    npk_info_clear(&info);
    npk_package_file_close(&f);
    return err;
}

int npk__unpack_rows(const char *path, const char *dir, const npk_unpack_options *o)
{
    npk_package *p = NULL;
    npk__unpack_dir d;
    npk_entry root;
    if (!o->names || !*o->names)
        return npk__fail(-EINVAL, "rows \"%s\": of which arrays? Name them", o->rows);
    int err = npk_package_open(path, &p);
    if (err)
        return err;
    bool *made = calloc(p->count + 1, sizeof(*made));
    npk_package_root(p, &root);
    err = made ? npk__unpack_begin(dir, &d) : npk__fail(-ENOMEM, "out of memory");
    if (!err) {
        for (const char *const *name = o->names; *name && !err; name++)
            err = unpack_name(p, &d, *name, o->rows, made);
        err = npk__unpack_end(&d, &root, err);
    }
    free(made);
    npk_package_close(&p);
    return err;
}
