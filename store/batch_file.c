/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays of a batch as files, for whoever serves them: the mount. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "batch.h"
#include "fail.h"
#include "io.h"
#include "path.h"
#include "redo.h"
#include "target.h"

npk_err npk_await(npk_store *s, const char *path, unsigned flags)
{
    int err = npk__path_check(path);
    if (!err)
        err = npk__journal_wait(s, path, flags & NPK_SETTLE_TRY ? NPK_JOURNAL_TRY : 0);
    return err ? err : npk__redo_for_reading(s, path);
}

ssize_t npk_batch_read_file(npk_batch *b, const char *name, uint64_t offset, void *out, size_t bytes)
{
    npk_info info;
    size_t entry;
    int base;
    int err = npk__batch_look(b, name, &entry, &info, &base);
    if (err)
        return err;
    ssize_t n = npk__stage_read(b, &b->list[entry], &info, base, offset, out, bytes);
    npk__batch_unlook(b, &info, &base);
    return n;
}

/* Where the bytes go: behind the header, inside the rows, or at their end. */
static int write_looked(npk_batch *b, size_t entry, const char *name, const npk_info *info, int base, uint64_t offset,
                        const uint8_t *bytes, size_t count)
{
    const npk_header *h = &info->header;
    uint64_t end = h->data_offset + h->data_bytes;
    int err = npk__rows_possible(name, info);
    if (!err && info->deleted) /* its rows are elsewhere in the file: the batch takes a copy of what is shown */
        err = npk__stage_whole(b, entry, info, base, NULL, info->rows);
    if (!err && info->deleted)
        return -EAGAIN;
    if (err)
        return err;
    if (offset < h->data_offset) {
        size_t skip = h->data_offset - offset < count ? (size_t)(h->data_offset - offset) : count;
        offset += skip;
        bytes += skip;
        count -= skip;
    }
    uint64_t beyond = offset + count > end ? offset + count - (offset > end ? offset : end) : 0;
    if (beyond && (offset > end || beyond % h->row_bytes != 0))
        return npk__fail(
            -EINVAL, "\"%s\": bytes behind its end that are no whole rows of %llu bytes; append whole rows in a batch",
            name, (unsigned long long)h->row_bytes);
    if (count == 0)
        return 0;
    npk_piece piece = {offset, count, 0};
    return npk__stage_write(b, entry, &piece, 1, bytes, info->rows + beyond / h->row_bytes);
}

ssize_t npk_batch_write_file(npk_batch *b, const char *name, uint64_t offset, const void *bytes, size_t count)
{
    npk_info info;
    size_t entry;
    int base;
    int err = npk__batch_look(b, name, &entry, &info, &base);
    if (err)
        return err;
    if (offset >= info.header.data_offset + info.header.data_bytes && !info.reason) {
        /* An append may need a longer header. */
        uint64_t rows = info.header.row_bytes ? count / info.header.row_bytes : 0;
        bool whole = info.header.row_bytes && rows * info.header.row_bytes == count &&
                     offset == info.header.data_offset + info.header.data_bytes;
        npk__batch_unlook(b, &info, &base);
        if (whole)
            err = npk_batch_append(b, name, bytes, rows, NULL);
        else
            err = npk__fail(-EINVAL,
                            "\"%s\": bytes behind its end that are no whole rows; append whole rows in a batch", name);
        return err ? err : (ssize_t)count;
    }
    err = write_looked(b, entry, name, &info, base, offset, bytes, count);
    uint64_t head = info.header.data_offset;
    npk__batch_unlook(b, &info, &base);
    if (err == -EAGAIN) { /* the copy's header may be of another length */
        err = npk__batch_look(b, name, &entry, &info, &base);
        if (err)
            return err;
        uint64_t skip = offset < head ? head - offset : 0;
        if (skip < count)
            err = write_looked(b, entry, name, &info, base, offset + skip - head + info.header.data_offset,
                               (const uint8_t *)bytes + skip, count - skip);
        npk__batch_unlook(b, &info, &base);
    }
    return err ? err : (ssize_t)count;
}

npk_err npk_batch_create_file(npk_batch *b, const char *name, int *fd)
{
    size_t entry;
    uint32_t file;
    int made = -1;
    int err = npk__batch_touch(b, name, &entry);
    if (err)
        return err;
    err = npk__stage_file(b, &b->list[entry], &file, &made);
    if (!err)
        err = npk__stage_adopt(b, entry, file);
    npk__batch_leave(b);
    if (err)
        npk__close(&made);
    else
        *fd = made;
    return err;
}

npk_err npk_batch_open_file(npk_batch *b, const char *name, int *fd)
{
    size_t entry;
    char staged[16];
    int err = npk__batch_touch(b, name, &entry);
    if (err)
        return err;
    const npk_staged *e = &b->list[entry];
    *fd = -1;
    if (e->file) {
        err = npk__stage_settle(b, e); /* its pieces become the file's own bytes */
        if (!err && e->resized)
            err = npk__stage_adopt_again(b, entry);
        npk__staged_name(b->list[entry].file, staged);
        int opened = err ? err : npk__openat(b->folder_fd, staged, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
        if (!err && opened < 0)
            err = npk__fail_errno(opened, name);
        if (!err)
            *fd = opened;
    }
    npk__batch_leave(b);
    return err;
}

npk_err npk_batch_each(npk_batch *b, npk_batch_each_visit *visit, void *ctx)
{
    char name[NPK__PATH_BYTES];
    int err = npk__batch_enter(b);
    if (err)
        return err;
    for (size_t i = 0; i < b->count && !err; i++) {
        const npk_staged *e = &b->list[i];
        if (npk__path_to_name(e->path, name, sizeof(name)) != 0)
            continue;
        err = visit(ctx, name,
                    !e->changed ? NPK_BATCH_READ
                    : e->gone   ? NPK_BATCH_REMOVED
                    : e->file   ? NPK_BATCH_SAVED
                                : NPK_BATCH_ROWS);
    }
    npk__batch_leave(b);
    return err;
}
