/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rows_folder.c - `.npk/x.npy/slices/` (`rows` is the property): choices of an array's rows as .npy files. A name is an index expression
 * (`0:1000.npy`, `::10.npy`, `5,9,-1.npy`) or a named range; rows are read from the array as it was when the file was
 * opened. A new name is made by writing a .npy file to it: its rows are appended, and named, when it is complete.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "control_table.h"
#include "folder.h"
#include "loop.h"
#include "notice.h"

#define WRITTEN_MAX ((uint64_t)4 << 30) /* bytes of rows that are appended by one file */

typedef struct rows_file {
    fs_state *fs;
    /* Reading: */
    npk_array *array;
    npk_rows rows;
    uint64_t *before; /* rows before each run */
    uint8_t header[4096];
    size_t header_bytes;
    /* Writing: */
    char *path, *range_name;
    uint8_t *data;
    uint64_t bytes, capacity;
    bool done;
    struct rows_file *next; /* in the list of those being written */
} rows_file;

/* Files that are being made: they are there, though nothing is named so yet. */
static pthread_mutex_t making_lock = PTHREAD_MUTEX_INITIALIZER;
static rows_file *making;

static bool is_being_made(const char *path, const char *stem)
{
    pthread_mutex_lock(&making_lock);
    const rows_file *f = making;
    while (f && (strcmp(f->path, path) != 0 || strcmp(f->range_name, stem) != 0))
        f = f->next;
    pthread_mutex_unlock(&making_lock);
    return f != NULL;
}

static void is_made(rows_file *gone)
{
    pthread_mutex_lock(&making_lock);
    rows_file **at = &making;
    while (*at && *at != gone)
        at = &(*at)->next;
    if (*at)
        *at = gone->next;
    pthread_mutex_unlock(&making_lock);
}

/* The name without its suffix in stem[256]; false: it has none. */
static bool stem_of(const char *name, char stem[256])
{
    size_t len = strlen(name);
    if (len < 5 || len > 255 || strcmp(name + len - 4, ".npy") != 0)
        return false;
    memcpy(stem, name, len - 4);
    stem[len - 4] = '\0';
    return true;
}

typedef struct wanted {
    const char *name;
    npk_run run;
    bool found;
} wanted;

static int match(void *ctx, const char *range_name, uint64_t start, uint64_t stop)
{
    wanted *w = ctx;
    if (strcmp(range_name, w->name) != 0)
        return 0;
    w->found = true;
    w->run = (npk_run){.start = start, .count = stop - start, .step = 1};
    return 1;
}

/* Which rows a name means: -ENOENT where it means none. */
static int choose(fs_state *fs, const char *array, const char *stem, uint64_t rows, npk_rows *out)
{
    int err = npk_rows_parse(stem, strlen(stem), rows, out);
    if (err != -EINVAL)
        return err == -ERANGE ? -ENOENT : err;
    wanted w = {.name = stem};
    err = npk_names(fs->store, array, match, &w);
    if (err < 0)
        return err;
    if (!w.found)
        return -ENOENT;
    if (w.run.count == 0)
        return 0;
    out->runs = malloc(sizeof *out->runs);
    if (!out->runs)
        return -ENOMEM;
    out->runs[0] = w.run;
    out->run_count = out->run_capacity = 1;
    out->row_count = w.run.count;
    return 0;
}

static int make_header(fs_state *fs, const char *array, const npk_info *info, uint64_t rows, rows_file *f)
{
    char *descr = NULL;
    uint64_t shape[NPK_MAX_DIMS];
    int err = npk_descr(fs->store, array, &info->header, &descr);
    memcpy(shape, info->header.shape, sizeof shape);
    shape[0] = rows;
    if (!err)
        err = npk_header_format(descr, false, shape, info->header.ndim, f->header, sizeof f->header, &f->header_bytes);
    free(descr);
    return err;
}

static void rows_close(fs_state *fs, void *file)
{
    rows_file *f = file;
    is_made(f);
    if (f->path && !f->done && f->bytes > 0)
        fs_note_failure(fs, f->path, "slices: a .npy file was begun and not finished; nothing was appended");
    npk_rows_clear(&f->rows);
    npk_array_close(&f->array);
    free(f->before);
    free(f->path);
    free(f->range_name);
    free(f->data);
    free(f);
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

static int open_reading(fs_state *fs, const char *path, const char *stem, rows_file *f)
{
    char *array = fs_array_name(path);
    int err = array ? npk_array_open(fs->store, array, &f->array) : -ENOMEM;
    const npk_info *info = err ? NULL : npk_array_info(f->array);
    if (!err && !npk_header_is_row_array(&info->header))
        err = -ENOTSUP;
    if (!err)
        err = choose(fs, array, stem, info->rows, &f->rows);
    if (!err)
        err = make_header(fs, array, info, f->rows.row_count, f);
    free(array);
    f->before = err ? NULL : calloc(f->rows.run_count + 1, sizeof *f->before);
    if (!err && !f->before)
        err = -ENOMEM;
    for (size_t i = 0; !err && i < f->rows.run_count; i++)
        f->before[i + 1] = f->before[i] + f->rows.runs[i].count;
    return err;
}

/* Rows [first, first + count) of the choice. */
static int read_rows(const rows_file *f, uint64_t first, uint64_t count, uint8_t *out)
{
    uint64_t row_bytes = npk_array_info(f->array)->header.row_bytes;
    size_t low = 0, high = f->rows.run_count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (f->before[middle] <= first)
            low = middle;
        else
            high = middle;
    }
    npk_rows_cursor cursor = {.run = low, .done = first - f->before[low]};
    int64_t numbers[512];
    int err = 0;
    while (count > 0 && !err) {
        const npk_run *run = &f->rows.runs[cursor.run];
        uint64_t n, start;
        if (run->step == 1) {
            n = npk_rows_take_range(&f->rows, &cursor, count, &start);
            err = npk_read_range(f->array, start, n, out);
        } else {
            n = npk_rows_take(&f->rows, &cursor, numbers, count < 512 ? (size_t)count : 512);
            err = npk_read_rows(f->array, numbers, (size_t)n, out);
        }
        out += n * row_bytes;
        count -= n;
    }
    return err;
}

static ssize_t rows_read(void *file, uint64_t offset, char *out, size_t bytes)
{
    const rows_file *f = file;
    if (!f->array)
        return -EBADF;
    loop_yield_if_asked(f->fs);
    uint64_t row_bytes = npk_array_info(f->array)->header.row_bytes;
    uint64_t end = f->header_bytes + f->rows.row_count * row_bytes;
    size_t done = 0;
    if (offset >= end)
        return 0;
    if (bytes > end - offset)
        bytes = (size_t)(end - offset);
    if (offset < f->header_bytes) {
        done = f->header_bytes - offset < bytes ? (size_t)(f->header_bytes - offset) : bytes;
        memcpy(out, f->header + offset, done);
    }
    if (done == bytes)
        return (ssize_t)done;
    uint64_t from = offset + done - f->header_bytes, first = from / row_bytes, skip = from % row_bytes;
    uint64_t count = (skip + (bytes - done) + row_bytes - 1) / row_bytes;
    bool whole = skip == 0 && (bytes - done) % row_bytes == 0;
    uint8_t *rows = whole ? (uint8_t *)out + done : malloc(count * row_bytes);
    int err = rows ? read_rows(f, first, count, rows) : -ENOMEM;
    if (!err && !whole)
        memcpy(out + done, rows + skip, bytes - done);
    if (!whole)
        free(rows);
    return err ? err : (ssize_t)bytes;
}

/* ---- names --------------------------------------------------------------------------------------------------------- */

static int rows_find(fs_state *fs, const char *path, const char *name, fs_folder_entry *out)
{
    char stem[256];
    if (!stem_of(name, stem))
        return -ENOENT;
    if (is_being_made(path, stem)) {
        *out = (fs_folder_entry){.writable = true};
        return 0;
    }
    rows_file *f = calloc(1, sizeof *f);
    int err = f ? open_reading(fs, path, stem, f) : -ENOMEM;
    if (!err)
        *out = (fs_folder_entry){
            .bytes = f->header_bytes + f->rows.row_count * npk_array_info(f->array)->header.row_bytes};
    if (f)
        rows_close(fs, f);
    return err;
}

typedef struct listing {
    fs_folder_add *add;
    void *ctx;
} listing;

static int add_name(void *ctx, const char *range_name, uint64_t start, uint64_t stop)
{
    const listing *l = ctx;
    char name[264];
    (void)start, (void)stop;
    if (strlen(range_name) < 252) {
        strcpy(name, range_name);
        strcat(name, ".npy");
        l->add(l->ctx, name);
    }
    return 0;
}

static void rows_list(fs_state *fs, const char *path, fs_folder_add *add, void *ctx)
{
    listing l = {add, ctx};
    char *array = fs_array_name(path);
    if (array)
        (void)npk_names(fs->store, array, add_name, &l);
    free(array);
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

static int open_writing(fs_state *fs, const char *path, const char *stem, rows_file *f)
{
    npk_rows rows = {0};
    if (fs->read_only)
        return -EROFS;
    int err = npk_rows_parse(stem, strlen(stem), 0, &rows);
    npk_rows_clear(&rows);
    if (err != -EINVAL) { /* an expression can be read, not made */
        fs_note_failure(fs, path, "slices: a name that is an expression means rows that there are; any other name is accepted");
        return -EINVAL;
    }
    f->path = strdup(path);
    f->range_name = strdup(stem);
    if (!f->path || !f->range_name)
        return -ENOMEM;
    pthread_mutex_lock(&making_lock);
    f->next = making;
    making = f;
    pthread_mutex_unlock(&making_lock);
    return 0;
}

static int rows_open(fs_state *fs, const char *path, const char *name, int flags, fuse_req_t req, void **file)
{
    char stem[256];
    (void)req;
    if (!stem_of(name, stem)) {
        fs_note_failure(fs, path, "slices: only names that end in .npy are accepted");
        return flags & O_CREAT ? -EINVAL : -ENOENT;
    }
    if ((flags & O_ACCMODE) != O_RDONLY && !(flags & O_CREAT))
        return -EACCES; /* rows that there are: replace them in the array */
    rows_file *f = calloc(1, sizeof *f);
    int err = !f ? -ENOMEM : flags & O_CREAT ? open_writing(fs, path, stem, f) : open_reading(fs, path, stem, f);
    if (err) {
        if (f)
            rows_close(fs, f);
        return err;
    }
    f->fs = fs;
    *file = f;
    return 0;
}

static int refuse(rows_file *f, int err, const char *sentence)
{
    fs_text text = {0};
    fs_text_addf(&text, "slices/%s.npy: %s", f->range_name, sentence);
    fs_note_failure(f->fs, f->path, text.failed ? sentence : text.data);
    fs_text_clear(&text);
    f->bytes = 0;
    return err;
}

/* The file is complete: it must hold rows of the array. */
static int append(rows_file *f, const npk_header *h)
{
    npk_info info;
    uint64_t first;
    char *array = fs_array_name(f->path);
    int err = array ? npk_stat(f->fs->store, array, &info) : -ENOMEM;
    if (!err) {
        const npk_header *to = &info.header;
        bool fits = npk_header_is_row_array(to) && npk_header_is_row_array(h) && h->ndim == to->ndim &&
                    strcmp(h->dtype.name, to->dtype.name) == 0 && h->dtype.big_endian == to->dtype.big_endian &&
                    h->row_bytes == to->row_bytes &&
                    memcmp(h->shape + 1, to->shape + 1, (h->ndim - 1) * sizeof *h->shape) == 0;
        npk_info_clear(&info);
        if (!fits)
            err = refuse(f, -EINVAL, "its dtype or its dimensions behind the first are not the array's");
        else if ((err = npk_append_named(f->fs->store, array, f->range_name, f->data + h->data_offset, h->shape[0],
                                         &first)) != 0)
            refuse(f, err, npk_error());
        else
            notice_path_changed(f->fs, f->path);
    }
    free(array);
    return err;
}

static ssize_t rows_write(void *file, uint64_t offset, const char *data, size_t bytes)
{
    rows_file *f = file;
    npk_header h;
    char reason[128];
    if (!f->path || f->done)
        return -EBADF;
    if (offset != f->bytes)
        return refuse(f, -EINVAL, "it is written from its begin to its end");
    if (offset + bytes > WRITTEN_MAX)
        return refuse(f, -EFBIG, "more than 4 GiB; append them in several pieces");
    loop_yield(f->fs);
    if (f->bytes + bytes > f->capacity) {
        uint64_t capacity = 2 * (f->bytes + bytes);
        uint8_t *more = realloc(f->data, capacity);
        if (!more)
            return -ENOMEM;
        f->data = more;
        f->capacity = capacity;
    }
    memcpy(f->data + f->bytes, data, bytes);
    f->bytes += bytes;
    int err = npk_header_parse(f->data, f->bytes, &h, reason, sizeof reason);
    if (err == -EAGAIN)
        return (ssize_t)bytes;
    if (err)
        return refuse(f, err, reason);
    if (f->bytes < h.data_offset + h.data_bytes)
        return (ssize_t)bytes;
    if (f->bytes > h.data_offset + h.data_bytes)
        return refuse(f, -EINVAL, "bytes behind its data; one whole .npy file is accepted");
    err = append(f, &h);
    f->done = err == 0;
    return err ? err : (ssize_t)bytes;
}

static int rows_resize(fs_state *fs, const char *path, const char *name, uint64_t bytes)
{
    (void)fs, (void)path, (void)name;
    return bytes == 0 ? 0 : -EACCES;
}

/* The name goes; its rows stay. */
static int rows_remove(fs_state *fs, const char *path, const char *name)
{
    char stem[256], *array = fs_array_name(path);
    int err = !array ? -ENOMEM : fs->read_only ? -EROFS : !stem_of(name, stem) ? -ENOENT : 0;
    if (!err && (err = npk_name_remove(fs->store, array, stem)) == -EINVAL)
        err = -EPERM; /* an expression */
    free(array);
    return err;
}

const fs_folder fs_rows_folder = {
    .name = "slices",
    .help = "Rows as .npy files: 0:1000.npy, ::10.npy, 5,9,-1.npy, NAME.npy; a new NAME.npy appends its rows and names them.",
    .find = rows_find,
    .list = rows_list,
    .open = rows_open,
    .read = rows_read,
    .write = rows_write,
    .resize = rows_resize,
    .close = rows_close,
    .remove = rows_remove,
};
