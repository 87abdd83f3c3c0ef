/* SPDX-License-Identifier: Apache-2.0 */
/* What is done inside a batch: whole arrays, rows, reading. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "batch.h"
#include "digits.h"
#include "fail.h"
#include "gather.h"
#include "io.h"
#include "path.h"
#include "save.h"
#include "settle.h"
#include "store.h"
#include "target.h"

/* ---- names ----------------------------------------------------------------------------------------------------- */

/* The path, from the batch's root, of an array as the caller names it. */
static int path_of(const npk_batch *b, const char *name, char out[NPK__PATH_BYTES])
{
    char path[NPK__PATH_BYTES];
    int err = npk__name_to_path(name, path, sizeof(path));
    if (!err && (size_t)snprintf(out, NPK__PATH_BYTES, "%s%s", b->prefix, path) >= NPK__PATH_BYTES)
        err = npk__fail(-ENAMETOOLONG, "\"%.64s...\": at most %d bytes", path, NPK__PATH_BYTES - 1);
    return err;
}

/* Enter the batch and touch the array. */
int npk__batch_touch(npk_batch *b, const char *name, size_t *entry)
{
    char path[NPK__PATH_BYTES];
    int err = path_of(b, name, path);
    if (!err)
        err = npk__batch_enter(b);
    if (err)
        return err;
    err = npk__stage_touch(b, path, entry);
    if (err)
        npk__batch_leave(b);
    return err;
}

/* The same, and what the array is. npk__batch_leave, close base and clear info afterwards. */
int npk__batch_look(npk_batch *b, const char *name, size_t *entry, npk_info *info, int *base)
{
    int err = npk__batch_touch(b, name, entry);
    if (err)
        return err;
    err = npk__stage_look(b, &b->list[*entry], info, base);
    if (err == -ENOENT)
        err = npk__name_failed(err, name);
    if (err)
        npk__batch_leave(b);
    return err;
}

void npk__batch_unlook(npk_batch *b, npk_info *info, int *base)
{
    npk__close(base);
    npk_info_clear(info);
    npk__batch_leave(b);
}

/* ---- whole arrays ---------------------------------------------------------------------------------------------- */

static int save_one(npk_batch *b, const npk_array_in *in, const npk_save_plan *plan)
{
    size_t entry;
    uint32_t file;
    int fd;
    int err = npk__batch_touch(b, in->name, &entry);
    if (err)
        return err;
    err = npk__stage_file(b, &b->list[entry], &file, &fd);
    if (!err) {
        err = npk__save_write(in, plan, fd);
        if (err)
            err = npk__fail_errno(err, in->name);
        else
            npk__writeback(fd); /* the commit waits for it: begin now */
        npk__close(&fd);
        if (!err)
            err = npk__stage_adopt(b, entry, file);
    }
    npk__batch_leave(b);
    return err;
}

npk_err npk_batch_save(npk_batch *b, const npk_array_in *arrays, size_t count)
{
    char path[NPK__PATH_BYTES];
    npk_save_plan *plans = calloc(count + 1, sizeof(*plans));
    int err = plans ? 0 : npk__fail(-ENOMEM, "out of memory");
    for (size_t i = 0; i < count && !err; i++) {
        err = path_of(b, arrays[i].name, path);
        if (!err)
            err = npk__save_plan(&arrays[i], &plans[i]);
    }
    for (size_t i = 0; i < count && !err; i++)
        err = save_one(b, &arrays[i], &plans[i]);
    free(plans);
    return err;
}

npk_err npk_batch_remove(npk_batch *b, const char *name)
{
    size_t entry;
    int base = -1;
    int err = npk__batch_touch(b, name, &entry);
    if (err)
        return err;
    err = npk__stage_open_base(b, &b->list[entry], &base);
    npk__close(&base);
    if (err == -ENOENT)
        err = npk__name_failed(err, name);
    if (!err)
        err = npk__stage_remove(b, entry);
    npk__batch_leave(b);
    return err;
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static int check_rows(const char *name, const npk_info *info, const npk_staged *e)
{
    int err = npk__rows_possible(name, info);
    if (!err && info->tail_bytes && !e->resized)
        err = npk__fail(-EBUSY,
                        "\"%s\": %" PRIu64 " bytes beyond its rows; the writer must complete them, or npk check "
                        "--repair or --adopt settle them",
                        name, info->tail_bytes);
    if (!err && info->file_bytes < info->header.data_offset + info->header.data_bytes)
        err = npk__fail(-EINVAL, "\"%s\": unfinished; save it again", name);
    return err;
}

/* Has the header of the base room for the digits? 1 yes, 0 no. */
static int has_room(const npk_info *info, int base, uint64_t rows)
{
    size_t bytes = (size_t)info->header.data_offset;
    npk_header now;
    npk__digits_plan_t *plan = malloc(sizeof(*plan));
    uint8_t *h = malloc(bytes + 1);
    ssize_t n = h && plan ? npk__pread_full(base, h, bytes, 0) : -ENOMEM;
    int err = n < 0 ? (int)n : (size_t)n < bytes ? -EIO : npk_header_parse(h, bytes, &now, NULL, 0);
    if (!err)
        err = npk__digits_plan(h, bytes, &now, rows, plan);
    free(h);
    free(plan);
    return err == -ENOSPC ? 0 : err < 0 ? err : 1;
}

/* A whole file of the batch's instead of what it is now, and that looked at. */
static int make_whole(npk_batch *b, size_t entry, npk_info *info, int *base)
{
    int err = npk__stage_whole(b, entry, info, *base, NULL, info->rows);
    npk__close(base);
    npk_info_clear(info);
    *info = (npk_info){0};
    return err ? err : npk__stage_look(b, &b->list[entry], info, base);
}

/* Pieces can be laid over its rows: those of a file from which some were deleted are elsewhere in it. */
static int prepare_rows(npk_batch *b, size_t entry, const char *name, npk_info *info, int *base)
{
    int err = check_rows(name, info, &b->list[entry]);
    return err || !info->deleted ? err : make_whole(b, entry, info, base);
}

static int append_entered(npk_batch *b, size_t entry, const char *name, npk_info *info, int *base, const void *rows,
                          uint64_t count)
{
    uint64_t all, bytes;
    int err = prepare_rows(b, entry, name, info, base);
    if (err)
        return err;
    if (__builtin_add_overflow(info->rows, count, &all) ||
        __builtin_mul_overflow(all, info->header.row_bytes, &bytes) || bytes > (uint64_t)INT64_MAX - NPK_MAX_HEADER)
        return npk__fail(-EFBIG, "\"%s\": %" PRIu64 " rows and %" PRIu64 " more are more than a file can hold", name,
                         info->rows, count);
    if (count == 0)
        return 0;
    int room = has_room(info, *base, all);
    if (room < 0)
        return npk__fail_errno(room, name);
    if (!room && (err = make_whole(b, entry, info, base)) != 0)
        return err;
    npk_piece piece = {npk__rows_end(&info->header, info->rows), count * info->header.row_bytes, 0};
    return npk__stage_write(b, entry, &piece, 1, rows, all);
}

npk_err npk_batch_append(npk_batch *b, const char *name, const void *rows, uint64_t count, uint64_t *first)
{
    npk_info info = {0};
    size_t entry;
    int base = -1;
    int err = npk__batch_look(b, name, &entry, &info, &base);
    if (err)
        return err;
    uint64_t before = info.rows;
    err = append_entered(b, entry, name, &info, &base, rows, count);
    if (!err && first)
        *first = before;
    npk__batch_unlook(b, &info, &base);
    return err;
}

npk_err npk_batch_replace_range(npk_batch *b, const char *name, uint64_t start, uint64_t count, const void *rows)
{
    npk_info info;
    size_t entry;
    int base;
    int err = npk__batch_look(b, name, &entry, &info, &base);
    if (err)
        return err;
    err = prepare_rows(b, entry, name, &info, &base);
    if (!err && (start > info.rows || count > info.rows - start))
        err = npk__fail(-ERANGE,
                        "\"%s\": %" PRIu64 " rows from row %" PRIu64 " on are outside; there are %" PRIu64 " rows",
                        name, count, start, info.rows);
    if (!err && count > 0) {
        npk_piece piece = {npk__rows_end(&info.header, start), count * info.header.row_bytes, 0};
        err = npk__stage_write(b, entry, &piece, 1, rows, info.rows);
    }
    npk__batch_unlook(b, &info, &base);
    return err;
}

static int index_outside(const char *name, int64_t index, uint64_t rows)
{
    return npk__fail(-ERANGE, "\"%s\": index %" PRId64 " is outside; there are %" PRIu64 " rows", name, index, rows);
}

npk_err npk_batch_replace_rows(npk_batch *b, const char *name, const int64_t *indices, size_t count, const void *rows)
{
    npk_info info;
    size_t entry;
    int base;
    int err = npk__batch_look(b, name, &entry, &info, &base);
    if (err)
        return err;
    err = prepare_rows(b, entry, name, &info, &base);
    size_t bad = err ? count : kn_first_outside(indices, count, info.rows);
    if (bad < count)
        err = index_outside(name, indices[bad], info.rows);
    npk_piece *pieces = err || count == 0 ? NULL : malloc(count * sizeof(*pieces));
    if (!err && count > 0 && !pieces)
        err = npk__fail(-ENOMEM, "out of memory");
    if (pieces) {
        for (size_t i = 0; i < count; i++) {
            uint64_t row = (uint64_t)indices[i] + (indices[i] < 0 ? info.rows : 0);
            pieces[i] = (npk_piece){npk__rows_end(&info.header, row), info.header.row_bytes, 0};
        }
        err = npk__stage_write(b, entry, pieces, count, rows, info.rows);
    }
    free(pieces);
    npk__batch_unlook(b, &info, &base);
    return err;
}

npk_err npk_batch_drop_rows(npk_batch *b, const char *name, const npk_rows *rows, uint64_t *dropped)
{
    npk_info info;
    size_t entry;
    int base;
    int err = npk__batch_look(b, name, &entry, &info, &base);
    if (err)
        return err;
    err = check_rows(name, &info, &b->list[entry]);
    uint64_t *gone = err ? NULL : calloc(info.rows / 64 + 1, sizeof(*gone)), count = 0, first, n;
    if (!err && !gone)
        err = npk__fail(-ENOMEM, "out of memory");
    npk_rows_cursor cursor = {0};
    while (!err && (n = npk_rows_take_range(rows, &cursor, UINT64_MAX, &first)) > 0) {
        if (first >= info.rows || n > info.rows - first)
            err = npk__fail(-ERANGE, "\"%s\": row %" PRIu64 " is outside; there are %" PRIu64 " rows", name,
                            first >= info.rows ? first : info.rows, info.rows);
        for (uint64_t i = first; i < first + n && !err; i++) {
            count += !(gone[i / 64] >> i % 64 & 1);
            gone[i / 64] |= UINT64_C(1) << i % 64;
        }
    }
    if (!err && count > 0)
        err = npk__stage_whole(b, entry, &info, base, gone, info.rows - count);
    if (!err && dropped)
        *dropped = count;
    free(gone);
    npk__batch_unlook(b, &info, &base);
    return err;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* The array as the store has it, which the batch has not touched. */
static int stat_untouched(npk_batch *b, const char *path, const char *name, npk_info *out)
{
    npk_staged e = {.path = (char *)(uintptr_t)path};
    int base = npk__open_beneath(b->store->root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    struct stat st = {0};
    int err = base < 0 ? base : npk__file_id(base, &e.before);
    if (!err)
        err = npk__fstat(base, &st);
    e.before_size = (uint64_t)st.st_size;
    e.before_mtime_ns = npk__mtime_ns(&st);
    npk__close(&base);
    if (!err)
        err = npk__stage_look(b, &e, out, &base);
    npk__close(&base);
    return err == -ENOENT || err == -ENOTDIR ? npk__name_failed(-ENOENT, name) : err;
}

npk_err npk_batch_stat(npk_batch *b, const char *name, npk_info *out)
{
    char path[NPK__PATH_BYTES];
    int base = -1;
    npk_info info = {0};
    int err = path_of(b, name, path);
    if (!err)
        err = npk__batch_enter(b);
    if (err)
        return err;
    const npk_staged *e = npk__stage_find(b, path);
    err = e ? npk__stage_look(b, e, &info, &base) : stat_untouched(b, path, name, &info);
    npk__close(&base);
    npk__batch_leave(b);
    if (err == -ENOENT)
        return npk__name_failed(err, name);
    if (!err)
        *out = info;
    return err;
}

static int read_row(npk_batch *b, size_t entry, const npk_info *info, int base, uint64_t first, uint64_t count,
                    void *out)
{
    uint64_t bytes = count * info->header.row_bytes;
    ssize_t n = npk__stage_read(b, &b->list[entry], info, base, npk__rows_end(&info->header, first), out, bytes);
    return n < 0                 ? (int)n
           : (uint64_t)n < bytes ? npk__fail(-EIO, "\"%s\": shorter than its header says", b->list[entry].path)
                                 : 0;
}

npk_err npk_batch_read_range(npk_batch *b, const char *name, uint64_t start, uint64_t count, void *out)
{
    npk_info info;
    size_t entry;
    int base;
    int err = npk__batch_look(b, name, &entry, &info, &base);
    if (err)
        return err;
    err = npk__rows_possible(name, &info);
    if (!err && (start > info.rows || count > info.rows - start))
        err = npk__fail(-ERANGE,
                        "\"%s\": %" PRIu64 " rows from row %" PRIu64 " on are outside; there are %" PRIu64 " rows",
                        name, count, start, info.rows);
    if (!err)
        err = read_row(b, entry, &info, base, start, count, out);
    npk__batch_unlook(b, &info, &base);
    return err;
}

npk_err npk_batch_read_rows(npk_batch *b, const char *name, const int64_t *indices, size_t count, void *out)
{
    npk_info info;
    size_t entry;
    int base;
    int err = npk__batch_look(b, name, &entry, &info, &base);
    if (err)
        return err;
    err = npk__rows_possible(name, &info);
    size_t bad = err ? count : kn_first_outside(indices, count, info.rows);
    if (bad < count)
        err = index_outside(name, indices[bad], info.rows);
    for (size_t i = 0; i < count && !err; i++) {
        uint64_t row = (uint64_t)indices[i] + (indices[i] < 0 ? info.rows : 0);
        err = read_row(b, entry, &info, base, row, 1, (uint8_t *)out + i * info.header.row_bytes);
    }
    npk__batch_unlook(b, &info, &base);
    return err;
}
