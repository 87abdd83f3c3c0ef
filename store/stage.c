/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays in a batch: batch.h. */
#define _GNU_SOURCE 1

#include <endian.h>
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
#include "io.h"
#include "path.h"
#include "settle.h"
#include "store.h"
#include "target.h"

struct touch_record {
    uint64_t inode, birth_ns, size, mtime_ns, generation, path_bytes;
};
struct pieces_record {
    uint64_t rows, count;
};
_Static_assert(sizeof(struct touch_record) == 48 && sizeof(struct pieces_record) == 16, "FORMAT");

/* ---- records --------------------------------------------------------------------------------------------------- */

static int apply_touch(npk_batch *b, uint32_t entry, const uint8_t *body, size_t bytes)
{
    struct touch_record t;
    if (entry != b->count || bytes < sizeof(t))
        return -EINVAL;
    memcpy(&t, body, sizeof(t));
    uint64_t path = le64toh(t.path_bytes);
    if (path == 0 || path >= NPK__PATH_BYTES || sizeof(t) + ((path + 7) & ~UINT64_C(7)) != bytes)
        return -EINVAL;
    char *copy = strndup((const char *)body + sizeof(t), path), name[NPK__PATH_BYTES];
    if (copy &&
        (strlen(copy) != path || npk__path_check(copy) != 0 || npk__path_to_name(copy, name, sizeof(name)) != 0)) {
        free(copy);
        return -EINVAL;
    }
    if (b->count == b->capacity) {
        size_t capacity = 2 * b->capacity + 16;
        npk_staged *list = copy ? realloc(b->list, capacity * sizeof(*list)) : NULL;
        if (list) {
            b->list = list;
            b->capacity = capacity;
        }
    }
    if (!copy || b->count == b->capacity) {
        free(copy);
        return npk__fail(-ENOMEM, "out of memory");
    }
    b->list[b->count++] = (npk_staged){.path = copy,
                                       .before = {le64toh(t.inode), le64toh(t.birth_ns)},
                                       .before_size = le64toh(t.size),
                                       .before_mtime_ns = (int64_t)le64toh(t.mtime_ns),
                                       .before_generation = le64toh(t.generation)};
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const npk_piece *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static int by_source(const void *a, const void *b)
{
    const npk_piece *x = a, *y = b;
    return (x->source > y->source) - (x->source < y->source);
}

/* Ascending offsets are laid over the list without long moves. Where two overlap the later one, whose bytes are later
 * in data, must come last. */
static void put_in_order(npk_piece *new, size_t n)
{
    bool overlap = false;
    qsort(new, n, sizeof(*new), by_offset);
    for (size_t i = 1; i < n && !overlap; i++)
        overlap = new[i - 1].offset + new[i - 1].bytes > new[i].offset;
    if (overlap)
        qsort(new, n, sizeof(*new), by_source);
}

/* Put a piece over those in the list, which stay apart and in order. */
static void lay_over(npk_piece *list, size_t *count, const npk_piece *p)
{
    size_t from = 0, to;
    uint64_t end = p->offset + p->bytes;
    npk_piece left = {0}, right = {0};
    for (size_t low = 0, high = *count; low < high;) { /* the first that ends behind its begin */
        size_t mid = (low + high) / 2;
        if (list[mid].offset + list[mid].bytes <= p->offset)
            from = low = mid + 1;
        else
            from = high = mid;
    }
    for (to = from; to < *count && list[to].offset < end; to++) {
        const npk_piece *q = &list[to];
        if (q->offset < p->offset)
            left = (npk_piece){q->offset, p->offset - q->offset, q->source};
        if (q->offset + q->bytes > end)
            right = (npk_piece){end, q->offset + q->bytes - end, q->source + (end - q->offset)};
    }
    npk_piece new[3];
    size_t n = 0;
    if (left.bytes)
        new[n++] = left;
    new[n++] = *p;
    if (right.bytes)
        new[n++] = right;
    memmove(list + from + n, list + to, (*count - to) * sizeof(*list));
    memcpy(list + from, new, n * sizeof(*new));
    *count = *count - (to - from) + n;
}

/* Neighbours in the file that are neighbours in data are one piece. */
static void join(npk_piece *list, size_t *count)
{
    size_t n = 0;
    for (size_t i = 0; i < *count; i++) {
        npk_piece *last = n ? &list[n - 1] : NULL;
        if (last && last->offset + last->bytes == list[i].offset && last->source + last->bytes == list[i].source)
            last->bytes += list[i].bytes;
        else
            list[n++] = list[i];
    }
    *count = n;
}

static int apply_pieces(npk_batch *b, npk_staged *e, const uint8_t *body, size_t bytes)
{
    struct pieces_record r;
    if (bytes < sizeof(r))
        return -EINVAL;
    memcpy(&r, body, sizeof(r));
    uint64_t n = le64toh(r.count);
    if (n > bytes / sizeof(npk_piece) || sizeof(r) + n * sizeof(npk_piece) != bytes)
        return -EINVAL;
    npk_piece *list = malloc((e->piece_count + 2 * n + 2) * sizeof(*list)), *new = malloc((n + 1) * sizeof(*new));
    if (!list || !new) {
        free(list);
        free(new);
        return npk__fail(-ENOMEM, "out of memory");
    }
    size_t count = e->piece_count;
    int err = 0;
    if (count)
        memcpy(list, e->pieces, count * sizeof(*list));
    for (uint64_t i = 0; i < n && !err; i++) {
        npk_piece p;
        memcpy(&p, body + sizeof(r) + i * sizeof(p), sizeof(p));
        new[i] = (npk_piece){le64toh(p.offset), le64toh(p.bytes), le64toh(p.source)};
        if (new[i].bytes == 0 || new[i].offset > INT64_MAX - new[i].bytes || new[i].source > INT64_MAX - new[i].bytes)
            err = -EINVAL;
    }
    if (!err)
        put_in_order(new, n);
    for (uint64_t i = 0; i < n && !err; i++)
        lay_over(list, &count, &new[i]);
    free(new);
    if (err) {
        free(list);
        return err;
    }
    join(list, &count);
    free(e->pieces);
    e->pieces = list;
    e->piece_count = count;
    e->rows = le64toh(r.rows);
    e->resized = e->changed = true;
    e->gone = false;
    (void)b;
    return 0;
}

int npk__stage_apply(npk_batch *b, npk_batch_record type, uint32_t entry, const uint8_t *body, size_t bytes)
{
    if (type == NPK_BATCH_TOUCH)
        return apply_touch(b, entry, body, bytes);
    if (entry >= b->count)
        return -EINVAL;
    npk_staged *e = &b->list[entry];
    switch (type) {
    case NPK_BATCH_FILE: {
        uint64_t file;
        if (bytes != sizeof(file))
            return -EINVAL;
        memcpy(&file, body, sizeof(file));
        e->file = (uint32_t)le64toh(file);
        if (e->file > b->last_file)
            b->last_file = e->file;
        break;
    }
    case NPK_BATCH_PIECES:
        return apply_pieces(b, e, body, bytes);
    case NPK_BATCH_GONE:
        e->file = 0;
        break;
    default:
        return -EINVAL;
    }
    e->gone = type == NPK_BATCH_GONE;
    e->changed = true;
    e->resized = false;
    e->piece_count = 0;
    return 0;
}

/* ---- touching -------------------------------------------------------------------------------------------------- */

npk_staged *npk__stage_find(npk_batch *b, const char *path)
{
    for (size_t i = 0; i < b->count; i++)
        if (strcmp(b->list[i].path, path) == 0)
            return &b->list[i];
    return NULL;
}

/* The array's lock, shared, with no change of several arrays under way: what is noted of it now is no state in between.
 * Nothing is locked where there is no such directory. */
static int lock_quiet(npk_batch *b, const char *path, npk_lock *lock)
{
    for (;;) {
        npk_dir dir;
        const char *leaf;
        *lock = NPK_LOCK_NONE;
        int err = npk__dir_of(b->store->root_fd, path, &dir, &leaf);
        if (err)
            return err == -ENOENT || err == -ENOTDIR ? 0 : err;
        err = npk__lock_array(dir.fd, leaf, 0, lock);
        npk__dir_release(&dir);
        int blocked = err ? 0 : npk__journal_blocks(b->store, path);
        if (blocked != -EAGAIN)
            return err ? err : blocked;
        npk__unlock(lock);
        err = npk__journal_wait(b->store, NULL, 0);
        if (err)
            return err;
    }
}

static int touch_locked(npk_batch *b, const char *path, size_t *out);

int npk__stage_touch(npk_batch *b, const char *path, size_t *out)
{
    npk_lock lock = NPK_LOCK_NONE;
    const npk_staged *e = npk__stage_find(b, path);
    if (e) {
        *out = (size_t)(e - b->list);
        return 0;
    }
    int err = npk_copy_up(b->store, path); /* what a batch is laid over is a file with its data */
    if (!err || err == -ENOENT || err == -ENOTDIR)
        err = lock_quiet(b, path, &lock);
    if (!err)
        err = touch_locked(b, path, out);
    npk__unlock(&lock);
    return err;
}

static int touch_locked(npk_batch *b, const char *path, size_t *out)
{
    struct touch_record t = {.path_bytes = htole64(strlen(path))};
    struct stat st;
    npk_file_id id = {0};
    uint64_t shown, generation = 0;
    int fd = npk__open_beneath(b->store->root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd >= 0) {
        int err = npk__fstat(fd, &st);
        if (!err)
            err = npk__file_id(fd, &id);
        if (err)
            npk__fail_errno(err, path);
        if (!err && !S_ISREG(st.st_mode))
            err = npk__fail(-EISDIR, "\"%s\": not a regular file", path);
        if (!err)
            err = npk_view_shows(b->store, path, fd, &shown, &generation);
        npk__close(&fd);
        if (err)
            return err;
        t.inode = htole64(id.inode);
        t.birth_ns = htole64(id.birth_ns);
        t.size = htole64((uint64_t)st.st_size);
        t.mtime_ns = htole64((uint64_t)npk__mtime_ns(&st));
        t.generation = htole64(generation);
    } else if (fd != -ENOENT && fd != -ENOTDIR) {
        return fd;
    }
    size_t bytes = (strlen(path) + 7) & ~(size_t)7;
    char padded[NPK__PATH_BYTES + 8] = "";
    memcpy(padded, path, strlen(path));
    int err = npk__batch_log(b, NPK_BATCH_TOUCH, (uint32_t)b->count, &t, sizeof(t), padded, bytes);
    if (!err)
        *out = b->count - 1;
    return err;
}

/* ---- looking --------------------------------------------------------------------------------------------------- */

int npk__stage_open_base(npk_batch *b, const npk_staged *e, int *out)
{
    npk_file_id id;
    int fd;
    if (e->gone || (e->file == 0 && e->before.inode == 0))
        return npk__fail(-ENOENT, "\"%s\": no such array in the batch", e->path);
    if (e->file) {
        char name[16];
        npk__staged_name(e->file, name);
        fd = npk__openat(b->folder_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
        if (fd < 0)
            return npk__fail_errno(fd, e->path);
        *out = fd;
        return 0;
    }
    fd = npk__open_beneath(b->store->root_fd, e->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0 && fd != -ENOENT && fd != -ENOTDIR)
        return fd;
    int err = fd < 0 ? -ESTALE : npk__file_id(fd, &id);
    struct stat st;
    if (!err)
        err = npk__fstat(fd, &st);
    if (!err && (id.inode != e->before.inode || id.birth_ns != e->before.birth_ns ||
                 (uint64_t)st.st_size != e->before_size || npk__mtime_ns(&st) != e->before_mtime_ns))
        err = -ESTALE; /* its commit would fail */
    if (!err) {
        *out = fd;
        return 0;
    }
    npk__close(&fd);
    return err == -ESTALE
               ? npk__fail(err, "\"%s\": it was changed since the batch first read it; abort the batch and begin again",
                           e->path)
               : npk__fail_errno(err, e->path);
}

/* Rows of the store's file are deleted: what is shown of it can be read, and not be changed, since pieces are laid over
 * the file and not over what is shown. */
static int look_at_view(npk_batch *b, const npk_staged *e, int base, npk_info *info)
{
    npk_view *view = NULL;
    int err = npk_view_open(b->store, e->path, base, &view);
    if (err || !view)
        return err;
    npk_header *h = &info->header;
    info->deleted = h->shape[0] - npk_view_rows(view);
    info->rows = info->live = h->shape[0] = npk_view_rows(view);
    h->data_bytes = info->rows * h->row_bytes;
    info->file_bytes = npk_view_bytes(view);
    info->tail_bytes = info->file_bytes - h->data_offset - h->data_bytes;
    npk_view_close(&view);
    return 0;
}

static ssize_t read_view(npk_batch *b, const npk_staged *e, int base, uint64_t offset, void *out, size_t bytes)
{
    npk_view *view = NULL;
    int err = npk_view_open(b->store, e->path, base, &view);
    if (err)
        return err;
    if (!view)
        return npk__fail(-ESTALE, "\"%s\": its deleted rows have come back; abort the batch", e->path);
    ssize_t n = npk_view_read(view, base, offset, out, bytes);
    npk_view_close(&view);
    return n;
}

int npk__stage_look(npk_batch *b, const npk_staged *e, npk_info *info, int *base)
{
    int err = npk__stage_open_base(b, e, base);
    if (err)
        return err;
    *info = (npk_info){0};
    err = npk__fd_facts(*base, info, NULL);
    if (err)
        npk__fail_errno(err, e->path);
    else if (!e->file)
        err = look_at_view(b, e, *base, info);
    if (err) {
        npk__close(base);
        npk_info_clear(info);
        return err;
    }
    npk_header *h = &info->header;
    if (!info->reason && e->resized && npk_header_is_row_array(h)) {
        info->rows = info->live = h->shape[0] = e->rows;
        h->data_bytes = e->rows * h->row_bytes;
        info->file_bytes = h->data_offset + h->data_bytes;
        info->tail_bytes = 0;
    }
    return 0;
}

/* The header of a resized array: its base's with other digits. */
static int shown_header(const npk_info *info, int base, uint8_t **out)
{
    size_t bytes = (size_t)info->header.data_offset;
    npk_header now;
    npk__digits_plan_t *plan = malloc(sizeof(*plan));
    uint8_t *h = malloc(bytes + 1);
    ssize_t n = h && plan ? npk__pread_full(base, h, bytes, 0) : -ENOMEM;
    int err = n < 0 ? (int)n : (size_t)n < bytes ? -EIO : npk_header_parse(h, bytes, &now, NULL, 0);
    if (!err)
        err = npk__digits_plan(h, bytes, &now, info->rows, plan);
    if (!err)
        npk__digits_apply(plan, plan->count, h);
    free(plan);
    if (err) {
        free(h);
        return err;
    }
    *out = h;
    return 0;
}

/* The index of the first piece that ends behind the offset. */
static size_t first_piece(const npk_staged *e, uint64_t offset)
{
    size_t low = 0, high = e->piece_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (e->pieces[mid].offset + e->pieces[mid].bytes <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* [offset, offset + bytes) is inside the file and behind its header. */
static int read_data(const npk_batch *b, const npk_staged *e, int base, uint64_t offset, uint8_t *out, uint64_t bytes)
{
    for (size_t i = first_piece(e, offset); bytes > 0;) {
        const npk_piece *p = i < e->piece_count ? &e->pieces[i] : NULL;
        bool inside = p && p->offset <= offset;
        uint64_t n = inside ? p->offset + p->bytes - offset : p ? p->offset - offset : bytes;
        n = n < bytes ? n : bytes;
        ssize_t got = inside ? npk__pread_full(b->data_fd, out, n, p->source + (offset - p->offset))
                             : npk__pread_full(base, out, n, offset);
        if (got < 0 || (uint64_t)got < n)
            return got < 0 ? (int)got : -EIO;
        i += inside;
        offset += n;
        out += n;
        bytes -= n;
    }
    return 0;
}

ssize_t npk__stage_read(npk_batch *b, const npk_staged *e, const npk_info *info, int base, uint64_t offset, void *out,
                        size_t bytes)
{
    uint64_t size = info->file_bytes, head = e->resized ? info->header.data_offset : 0;
    uint8_t *to = out;
    size_t done = 0;
    int err = 0;
    if (info->deleted)
        return read_view(b, e, base, offset, out, bytes);
    if (offset >= size)
        return 0;
    if (bytes > size - offset)
        bytes = (size_t)(size - offset);
    if (offset < head) {
        uint8_t *header;
        done = bytes < head - offset ? bytes : (size_t)(head - offset);
        err = shown_header(info, base, &header);
        if (!err) {
            memcpy(to, header + offset, done);
            free(header);
        }
    }
    if (!err && done < bytes)
        err = read_data(b, e, base, offset + done, to + done, bytes - done);
    return err ? npk__fail_errno(err, e->path) : (ssize_t)bytes;
}

/* ---- changing -------------------------------------------------------------------------------------------------- */

int npk__stage_write(npk_batch *b, size_t entry, npk_piece *pieces, size_t count, const void *bytes, uint64_t rows)
{
    uint64_t all = 0;
    for (size_t i = 0; i < count; i++) {
        pieces[i].source = b->data_bytes + all;
        all += pieces[i].bytes;
    }
    int err = npk__pwrite_full(b->data_fd, bytes, all, b->data_bytes);
    if (err) {
        (void)npk__ftruncate(b->data_fd, b->data_bytes);
        return npk__fail_errno(err, b->list[entry].path);
    }
    struct pieces_record r = {htole64(rows), htole64(count)};
    for (size_t i = 0; i < count; i++)
        pieces[i] = (npk_piece){htole64(pieces[i].offset), htole64(pieces[i].bytes), htole64(pieces[i].source)};
    err = npk__batch_log(b, NPK_BATCH_PIECES, (uint32_t)entry, &r, sizeof(r), pieces, count * sizeof(*pieces));
    if (!err)
        b->data_bytes += all;
    return err;
}

int npk__stage_file(npk_batch *b, const npk_staged *e, uint32_t *file, int *fd)
{
    char name[16];
    for (unsigned tries = 0; tries < 1000; tries++) {
        *file = ++b->last_file;
        npk__staged_name(*file, name);
        *fd = npk__openat(b->folder_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
        if (*fd != -EEXIST) /* left by a process that was killed before it was adopted */
            return *fd < 0 ? npk__fail_errno(*fd, e->path) : 0;
    }
    return npk__fail(-EEXIST, "batch \"%s\": full of files that nobody adopted; abort it", b->id);
}

int npk__stage_adopt(npk_batch *b, size_t entry, uint32_t file)
{
    uint64_t body = htole64(file);
    uint32_t old = b->list[entry].file;
    char name[16];
    int err = npk__batch_log(b, NPK_BATCH_FILE, (uint32_t)entry, &body, sizeof(body), NULL, 0);
    npk__staged_name(old, name);
    if (!err && old)
        (void)npk__unlinkat(b->folder_fd, name, 0);
    return err;
}

int npk__stage_adopt_again(npk_batch *b, size_t entry)
{
    uint64_t body = htole64(b->list[entry].file);
    return npk__batch_log(b, NPK_BATCH_FILE, (uint32_t)entry, &body, sizeof(body), NULL, 0);
}

int npk__stage_remove(npk_batch *b, size_t entry)
{
    char name[16];
    npk__staged_name(b->list[entry].file, name);
    bool file = b->list[entry].file != 0;
    int err = npk__batch_log(b, NPK_BATCH_GONE, (uint32_t)entry, NULL, 0, NULL, 0);
    if (!err && file)
        (void)npk__unlinkat(b->folder_fd, name, 0);
    return err;
}

/* A new header that counts `rows`, with room for any number. */
static int write_header(int base, const npk_header *h, uint64_t rows, int fd, uint64_t *bytes)
{
    size_t capacity = (size_t)h->data_offset + 256, n = 0;
    uint8_t *old = malloc(capacity), *new = malloc(capacity);
    npk_header was;
    ssize_t got = old && new ? npk__pread_full(base, old, (size_t)h->data_offset, 0) : -ENOMEM;
    int err = got < 0                          ? (int)got
              : (uint64_t)got < h->data_offset ? -EIO
                                               : npk_header_parse(old, (size_t)got, &was, NULL, 0);
    if (!err)
        err = npk__header_relayout(old, (size_t)got, &was, rows, new, capacity, &n);
    if (!err)
        err = npk__pwrite_full(fd, new, n, 0);
    free(old);
    free(new);
    *bytes = n;
    return err;
}

/* The rows that are not in `gone` (a bit each; NULL: none is), one after the other. */
static int copy_rows(npk_batch *b, const npk_staged *e, const npk_info *info, int base, const uint64_t *gone, int fd,
                     uint64_t to)
{
    const npk_header *h = &info->header;
    const uint64_t most = (UINT64_C(1) << 20) / h->row_bytes + 1;
    uint8_t *buffer = malloc(most * h->row_bytes);
    int err = buffer ? 0 : -ENOMEM;
    for (uint64_t row = 0, n; row < info->rows && !err; row += n) {
        bool left_out = gone && gone[row / 64] >> row % 64 & 1;
        for (n = 1; row + n < info->rows && n < most; n++)
            if (gone && (gone[(row + n) / 64] >> (row + n) % 64 & 1) != left_out)
                break;
        if (left_out)
            continue;
        uint64_t bytes = n * h->row_bytes;
        ssize_t got = npk__stage_read(b, e, info, base, npk__rows_end(h, row), buffer, bytes);
        err = got < 0 ? (int)got : (uint64_t)got < bytes ? -EIO : npk__pwrite_full(fd, buffer, bytes, to);
        to += bytes;
    }
    free(buffer);
    return err;
}

int npk__stage_whole(npk_batch *b, size_t entry, const npk_info *info, int base, const uint64_t *gone, uint64_t rows)
{
    uint32_t file;
    uint64_t head = 0;
    int fd;
    int err = npk__stage_file(b, &b->list[entry], &file, &fd);
    if (err)
        return err;
    err = write_header(base, &info->header, rows, fd, &head);
    if (!err)
        err = copy_rows(b, &b->list[entry], info, base, gone, fd, head);
    npk__writeback(fd);
    npk__close(&fd);
    return err ? npk__fail_errno(err, b->list[entry].path) : npk__stage_adopt(b, entry, file);
}

int npk__stage_settle(npk_batch *b, const npk_staged *e)
{
    char name[16];
    const size_t step = 1u << 20;
    if (!e->file || !e->resized)
        return 0;
    npk__staged_name(e->file, name);
    uint8_t *buffer = malloc(step);
    int fd = npk__openat(b->folder_fd, name, O_RDWR | O_NOFOLLOW, 0);
    int err = fd < 0 ? fd : buffer ? 0 : -ENOMEM;
    for (size_t i = 0; i < e->piece_count && !err; i++) {
        npk_piece p = e->pieces[i];
        for (uint64_t at = 0; at < p.bytes && !err; at += step) {
            size_t n = p.bytes - at < step ? (size_t)(p.bytes - at) : step;
            ssize_t got = npk__pread_full(b->data_fd, buffer, n, p.source + at);
            err = got < 0 ? (int)got : (size_t)got < n ? -EIO : npk__pwrite_full(fd, buffer, n, p.offset + at);
        }
    }
    npk_info info = {0};
    if (!err)
        err = npk__fd_facts(fd, &info, NULL);
    if (!err && !info.reason && npk_header_is_row_array(&info.header) && info.header.shape[0] != e->rows)
        err = npk__write_rows(fd, &info.header, e->rows);
    npk_info_clear(&info);
    npk__close(&fd);
    free(buffer);
    return err ? npk__fail_errno(err > 0 ? -EIO : err, e->path) : 0;
}
