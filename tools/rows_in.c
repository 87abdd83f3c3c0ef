/* SPDX-License-Identifier: Apache-2.0 */
/* rows_in.c - see rows_in.h. */
#include "rows_in.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "progress.h"

/* What a pipe may hold in memory before it goes to an unnamed file. */
#define IN_MEMORY_BYTES ((size_t)32 << 20)

/* ---- blobs ---------------------------------------------------------------------------------------------------- */

static int map_blob(int fd, size_t bytes, cli_blob *out)
{
    out->bytes = bytes;
    out->data = "";
    if (bytes == 0)
        return 0;
    void *map = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    madvise(map, bytes, MADV_SEQUENTIAL);
    out->data = out->map = map;
    return 0;
}

static int read_some(int fd, void *buffer, size_t bytes, size_t *got)
{
    for (;;) {
        ssize_t n = read(fd, buffer, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        *got = (size_t)n;
        return 0;
    }
}

static int write_whole(int fd, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t n = write(fd, at, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* An unnamed file on the disk of spool_fd, where the rows go anyway; else where temporary files live. */
static int open_spool(int spool_fd)
{
    int fd = spool_fd >= 0 ? openat(spool_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : -1;
    if (fd >= 0)
        return fd;
    const char *dir = getenv("TMPDIR");
    if (dir == NULL || dir[0] != '/')
        dir = "/var/tmp";
    fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    char path[4096];
    if (snprintf(path, sizeof path, "%s/npk.XXXXXX", dir) >= (int)sizeof path)
        return -ENAMETOOLONG;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    unlink(path);
    return fd;
}

/* Move what was read and the rest of `fd` to an unnamed file. */
static int spool(int fd, int spool_fd, cli_blob *out, cli_progress *progress)
{
    int spooled = open_spool(spool_fd);
    if (spooled < 0)
        return spooled;
    size_t held = out->bytes, total = held;
    int err = write_whole(spooled, out->heap, held);
    while (err == 0) {
        size_t got = 0;
        err = read_some(fd, out->heap, IN_MEMORY_BYTES, &got);
        if (err != 0 || got == 0)
            break;
        err = write_whole(spooled, out->heap, got);
        total += got;
        cli_progress_add(progress, got);
    }
    free(out->heap);
    out->heap = NULL;
    if (err == 0)
        err = map_blob(spooled, total, out);
    close(spooled);
    return err;
}

static int read_pipe(int fd, int spool_fd, cli_blob *out)
{
    cli_progress *progress = cli_progress_start("reading", 0, -1);
    size_t capacity = 64 << 10, got = 1;
    int err = 0;
    out->heap = malloc(capacity);
    if (out->heap == NULL)
        err = -ENOMEM;
    while (err == 0 && got > 0 && out->bytes < IN_MEMORY_BYTES) {
        if (out->bytes == capacity) {
            void *more = realloc(out->heap, capacity * 2);
            if (more == NULL) {
                err = -ENOMEM;
                break;
            }
            out->heap = more;
            capacity *= 2;
        }
        err = read_some(fd, (char *)out->heap + out->bytes, capacity - out->bytes, &got);
        if (err == 0)
            out->bytes += got;
        cli_progress_add(progress, got);
    }
    out->data = out->heap;
    if (err == 0 && got > 0)
        err = spool(fd, spool_fd, out, progress);
    cli_progress_end(progress);
    return err;
}

int cli_blob_open(const char *argument, int spool_fd, cli_blob *out, cli_why *why)
{
    bool standard_input = strcmp(argument, "-") == 0;
    *out = (cli_blob){.label = strdup(standard_input ? "standard input" : argument), .data = ""};
    if (out->label == NULL)
        return cli_why_set(why, -ENOMEM, "%s", strerror(ENOMEM));
    int fd = standard_input ? STDIN_FILENO : open(argument, O_RDONLY | O_CLOEXEC);
    int err = fd < 0 ? -errno : 0;
    struct stat st;
    if (err == 0 && fstat(fd, &st) != 0)
        err = -errno;
    if (err == 0 && S_ISDIR(st.st_mode))
        err = -EISDIR;
    if (err == 0) {
        bool whole = S_ISREG(st.st_mode) && (!standard_input || lseek(fd, 0, SEEK_CUR) == 0);
        if (whole && (uint64_t)st.st_size > SIZE_MAX)
            err = -EFBIG;
        else
            err = whole ? map_blob(fd, (size_t)st.st_size, out) : -ENODEV;
        /* Files that cannot be mapped (proc, some FUSE) are read as a pipe is. */
        if (err == -ENODEV || (err == 0 && whole && st.st_size == 0))
            err = read_pipe(fd, spool_fd, out);
    }
    if (fd >= 0 && !standard_input)
        close(fd);
    if (err == 0)
        return 0;
    cli_why_set(why, err, "\"%.500s\": %s", out->label, strerror(-err));
    cli_blob_clear(out);
    return err;
}

void cli_blob_clear(cli_blob *blob)
{
    if (blob->map != NULL)
        munmap(blob->map, blob->bytes);
    free(blob->heap);
    free(blob->label);
    *blob = (cli_blob){0};
}

bool cli_blob_is_npy(const cli_blob *blob)
{
    return blob->bytes >= 6 && memcmp(blob->data, "\x93NUMPY", 6) == 0;
}

/* ---- rows ----------------------------------------------------------------------------------------------------- */

static bool is_fortran(const npk_header *h)
{
    unsigned long_dims = 0;
    for (uint32_t i = 0; i < h->ndim; i++)
        long_dims += h->shape[i] != 1;
    return h->fortran && long_dims > 1;
}

static int read_header(cli_rows *rows, cli_why *why)
{
    const cli_blob *blob = &rows->blob;
    char reason[256] = "";
    int err = npk_header_parse(blob->data, blob->bytes, &rows->header, reason, sizeof reason);
    if (err == -EAGAIN)
        return cli_why_set(why, -EINVAL, "\"%.300s\": is cut short inside its header", blob->label);
    if (err != 0)
        return cli_why_set(why, err, "\"%.300s\": is no .npy file: %s", blob->label, reason);
    const npk_header *h = &rows->header;
    cli_why inner;
    err = cli_type_parse((const char *)blob->data + h->descr_offset, h->descr_bytes, &rows->type, &inner);
    if (err != 0)
        return cli_why_set(why, err, "\"%.300s\": %.400s", blob->label, inner.text);
    if (is_fortran(h))
        return cli_why_set(why, -EINVAL,
                           "\"%.300s\": is in Fortran order; C order is accepted (numpy.ascontiguousarray)",
                           blob->label);
    uint64_t held = blob->bytes - h->data_offset;
    if (held < h->data_bytes)
        return cli_why_set(why, -EINVAL,
                           "\"%.300s\": promises %llu bytes of data and holds %llu; a complete file is accepted",
                           blob->label, (unsigned long long)h->data_bytes, (unsigned long long)held);
    if (held > h->data_bytes)
        return cli_why_set(why, -EINVAL,
                           "\"%.300s\": has %llu bytes behind its data; one array without anything behind it is "
                           "accepted",
                           blob->label, (unsigned long long)(held - h->data_bytes));
    rows->data = (const char *)blob->data + h->data_offset;
    rows->bytes = h->data_bytes;
    return 0;
}

int cli_rows_open(const char *argument, bool raw, int spool_fd, cli_rows *out, cli_why *why)
{
    *out = (cli_rows){0};
    int err = cli_blob_open(argument, spool_fd, &out->blob, why);
    if (err != 0)
        return err;
    out->data = out->blob.data;
    out->bytes = out->blob.bytes;
    out->npy = !raw && cli_blob_is_npy(&out->blob);
    if (out->npy)
        err = read_header(out, why);
    if (err != 0)
        cli_rows_clear(out);
    return err;
}

void cli_rows_clear(cli_rows *rows)
{
    cli_type_free(rows->type);
    cli_blob_clear(&rows->blob);
    *rows = (cli_rows){0};
}

/* "(3, 4)" as Python writes a shape; `open` has "N" for the first dimension. */
static void add_shape(cli_text *out, const uint64_t *shape, uint32_t ndim, bool open)
{
    cli_text_addc(out, '(');
    for (uint32_t i = 0; i < ndim; i++) {
        if (i > 0)
            cli_text_adds(out, ", ");
        if (i == 0 && open)
            cli_text_addc(out, 'N');
        else
            cli_text_addf(out, "%llu", (unsigned long long)shape[i]);
    }
    cli_text_adds(out, ndim == 1 ? ",)" : ")");
}

static int other_dtype(const cli_rows *rows, const cli_type *type, cli_why *why)
{
    cli_text given = {0}, wanted = {0};
    cli_type_name(rows->type, &given);
    cli_type_name(type, &wanted);
    cli_why_set(why, -EINVAL, "\"%.300s\": holds %.180s rows; the array's dtype %.180s is accepted", rows->blob.label,
                cli_text_string(&given), cli_text_string(&wanted));
    cli_text_clear(&given);
    cli_text_clear(&wanted);
    return -EINVAL;
}

static int other_shape(const cli_rows *rows, const npk_header *array, cli_why *why)
{
    cli_text given = {0}, block = {0}, row = {0};
    add_shape(&given, rows->header.shape, rows->header.ndim, false);
    add_shape(&block, array->shape, array->ndim, true);
    add_shape(&row, array->shape + 1, array->ndim - 1, false);
    cli_why_set(why, -EINVAL, "\"%.300s\": has the shape %.120s; %.120s or one row %.120s is accepted",
                rows->blob.label, cli_text_string(&given), cli_text_string(&block), cli_text_string(&row));
    cli_text_clear(&given);
    cli_text_clear(&block);
    cli_text_clear(&row);
    return -EINVAL;
}

int cli_rows_fit(const cli_rows *rows, const npk_header *array, const cli_type *type, uint64_t *count, cli_why *why)
{
    if (!rows->npy) {
        uint64_t rest = rows->bytes % array->row_bytes;
        if (rest != 0)
            return cli_why_set(why, -EINVAL,
                               "\"%.300s\": %llu bytes are no whole rows; a multiple of %llu bytes is accepted",
                               rows->blob.label, (unsigned long long)rows->bytes, (unsigned long long)array->row_bytes);
        *count = rows->bytes / array->row_bytes;
        return 0;
    }
    if (!cli_type_equal(rows->type, type))
        return other_dtype(rows, type, why);
    const npk_header *given = &rows->header;
    uint32_t behind = array->ndim - 1;
    size_t bytes = behind * sizeof array->shape[0];
    if (given->ndim == array->ndim && memcmp(given->shape + 1, array->shape + 1, bytes) == 0)
        *count = given->shape[0];
    else if (given->ndim == behind && memcmp(given->shape, array->shape + 1, bytes) == 0)
        *count = 1;
    else
        return other_shape(rows, array, why);
    return 0;
}
