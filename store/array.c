/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays opened for reading. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "array.h"
#include "fail.h"
#include "gather.h"
#include "guard.h"
#include "io.h"
#include "journal.h"
#include "npk.h"
#include "path.h"
#include "redo.h"
#include "settle.h"
#include "store.h"
#include "target.h"

/* Rows so large are read by a system call each: it costs little then, and no page faults. */
#define LARGE_ROW (64u << 10)
/* So few rows are not worth a mapping. */
#define FEW_ROWS 4
/* A stream's buffer; a batch that would need more comes in several. */
#define STREAM_BUFFER (UINT64_C(256) << 20)

struct npk_array {
    int fd;
    char *name;
    npk_info info;
    _Atomic(unsigned) searches; /* made over it so far */
    _Atomic(uint8_t *) map; /* the file from its start to the end of the rows; NULL: not mapped yet */
};

/* ---- opening --------------------------------------------------------------------------------------------------- */

/* What a session left (rows appended by a program that was killed, a header ahead of the data after power loss) is
 * brought to agree, if nobody is at it. Reading goes on with things as they are where that is not possible. */
static int settle_for_reading(npk_store *s, const char *path, int fd, npk_info *info)
{
    npk_settle_state state = npk__settle_state(info);
    if ((s->flags & NPK_READ_ONLY) || (state != NPK_TAIL && state != NPK_UNFINISHED))
        return 0;
    npk_info settled = {0};
    unsigned flags = NPK_SETTLE_TRY | (state == NPK_UNFINISHED ? NPK_SETTLE_CUT : 0);
    if (npk_settle(s, path, fd, flags, NULL, &settled) != 0)
        return 0;
    npk_info_clear(info);
    *info = settled;
    return 0;
}

static int check_readable(const char *name, const npk_info *info)
{
    const npk_header *h = &info->header;
    if (info->reason)
        return npk__fail(-EINVAL, "\"%s\": not an array (%s); a .npy file of fixed-size items is", name, info->reason);
    if (!npk_header_is_array(h))
        return npk__fail(-EINVAL, "\"%s\": dtype %s is not of a fixed size and is never decoded; read the file itself",
                         name, h->dtype.name);
    if (info->file_bytes < h->data_offset + h->data_bytes)
        return npk__fail(-EINVAL,
                         "\"%s\": its header promises %" PRIu64 " bytes and the file has %" PRIu64
                         ", so it is unfinished; save it again",
                         name, h->data_offset + h->data_bytes, info->file_bytes);
    return 0;
}

npk_err npk_array_open(npk_store *s, const char *name, npk_array **out)
{
    char path[NPK__PATH_BYTES];
    int err = npk__name_to_path(name, path, sizeof(path));
    if (err)
        return err;
    npk_array *a = calloc(1, sizeof(*a));
    if (!a || !(a->name = strdup(name))) {
        free(a);
        return npk__fail(-ENOMEM, "out of memory");
    }
    err = npk__journal_wait(s, path, 0);
    if (!err)
        err = npk__redo_for_reading(s, path);
    a->fd = err ? -1 : npk__open_beneath(s->root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (!err && a->fd < 0)
        err = npk__name_failed(a->fd, name);
    if (!err) {
        err = npk__fd_facts(a->fd, &a->info, NULL);
        if (err)
            err = npk__fail_errno(err, name);
    }
    if (!err)
        err = settle_for_reading(s, path, a->fd, &a->info);
    if (!err)
        err = check_readable(name, &a->info);
    if (err)
        npk_array_close(&a);
    else
        *out = a;
    return err;
}

static uint64_t map_bytes(const npk_array *a)
{
    return a->info.header.data_offset + a->info.header.data_bytes;
}

void npk_array_close(npk_array **array)
{
    if (!array || !*array)
        return;
    npk_array *a = *array;
    if (a->map)
        munmap(a->map, map_bytes(a));
    npk__close(&a->fd);
    npk_info_clear(&a->info);
    free(a->name);
    free(a);
    *array = NULL;
}

const npk_info *npk_array_info(const npk_array *a)
{
    return &a->info;
}

int npk__array_fd(const npk_array *a)
{
    return a->fd;
}

const char *npk__array_name(const npk_array *a)
{
    return a->name;
}

bool npk__array_is_mapped(const npk_array *a)
{
    return atomic_load_explicit(&a->map, memory_order_acquire) != NULL;
}

unsigned npk__array_searched(npk_array *a)
{
    return atomic_fetch_add_explicit(&a->searches, 1, memory_order_relaxed);
}

/* The mapping, made by whichever thread needs it first. */
static int map_data(npk_array *a, uint8_t **out)
{
    uint8_t *map = atomic_load_explicit(&a->map, memory_order_acquire);
    if (!map) {
        void *at;
        int err = npk__mmap(&at, map_bytes(a), PROT_READ, MAP_SHARED, a->fd, 0);
        if (err)
            return npk__fail_errno(err, a->name);
        if (atomic_compare_exchange_strong(&a->map, &map, at))
            map = at;
        else
            munmap(at, map_bytes(a));
    }
    *out = map + a->info.header.data_offset;
    return 0;
}

npk_err npk_array_map(npk_array *a, const void **data, uint64_t *bytes)
{
    uint8_t *at = NULL;
    int err = a->info.header.data_bytes > 0 ? map_data(a, &at) : 0;
    if (err)
        return err;
    *data = at;
    *bytes = a->info.header.data_bytes;
    return 0;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static int cut_meanwhile(const npk_array *a)
{
    return npk__fail(-EIO, "\"%s\": the file was cut while it was read; open it again", a->name);
}

static int read_at(const npk_array *a, uint64_t offset, uint64_t bytes, void *out)
{
    ssize_t n = npk__pread_full(a->fd, out, bytes, offset);
    if (n < 0)
        return npk__fail_errno((int)n, a->name);
    return (uint64_t)n < bytes ? cut_meanwhile(a) : 0;
}

/* Rows of 0 bytes are fine for reading. */
static int check_rows(const npk_array *a)
{
    const npk_header *h = &a->info.header;
    if (h->ndim > 0 && (!h->fortran || h->ndim == 1))
        return 0;
    return npk__rows_possible(a->name, &a->info);
}

npk_err npk_read_range(npk_array *a, uint64_t start, uint64_t count, void *out)
{
    const npk_header *h = &a->info.header;
    int err = check_rows(a);
    if (err)
        return err;
    if (start > a->info.rows || count > a->info.rows - start)
        return npk__fail(-ERANGE,
                         "\"%s\": %" PRIu64 " rows from row %" PRIu64 " on are outside; there are %" PRIu64 " rows",
                         a->name, count, start, a->info.rows);
    return read_at(a, npk__rows_end(h, start), count * h->row_bytes, out);
}

npk_err npk_read_all(npk_array *a, void *out)
{
    return read_at(a, a->info.header.data_offset, a->info.header.data_bytes, out);
}

struct gathering {
    void *out;
    const uint8_t *data;
    uint64_t row_bytes, rows;
    const int64_t *indices;
    size_t count;
};

static int gather(void *ctx)
{
    const struct gathering *g = ctx;
    kn_gather_rows(g->out, g->data, g->row_bytes, g->rows, g->indices, g->count);
    return 0;
}

static int gather_by_calls(const npk_array *a, const int64_t *indices, size_t count, uint8_t *out)
{
    const npk_header *h = &a->info.header;
    int err = 0;
    for (size_t i = 0; i < count && !err; i++, out += h->row_bytes) {
        uint64_t row = (uint64_t)indices[i] + (indices[i] < 0 ? a->info.rows : 0);
        err = read_at(a, npk__rows_end(h, row), h->row_bytes, out);
    }
    return err;
}

static int gather_by_map(npk_array *a, const int64_t *indices, size_t count, void *out)
{
    uint8_t *data = NULL;
    struct stat st;
    int err = map_data(a, &data);
    if (err)
        return err;
    struct gathering g = {out, data, a->info.header.row_bytes, a->info.rows, indices, count};
    err = npk__guarded(data, a->info.header.data_bytes, gather, &g);
    if (err == -ENOSYS)
        return gather_by_calls(a, indices, count, out);
    /* The rest of a page behind the end of a cut file reads as zeros, without a signal. */
    if (!err && (npk__fstat(a->fd, &st) != 0 || (uint64_t)st.st_size < map_bytes(a)))
        err = -EIO;
    return err ? cut_meanwhile(a) : 0;
}

npk_err npk_read_rows(npk_array *a, const int64_t *indices, size_t count, void *out)
{
    const npk_header *h = &a->info.header;
    int err = check_rows(a);
    if (err)
        return err;
    size_t bad = kn_first_outside(indices, count, a->info.rows);
    if (bad < count)
        return npk__fail(-ERANGE, "\"%s\": index %" PRId64 " is outside; there are %" PRIu64 " rows", a->name,
                         indices[bad], a->info.rows);
    if (count == 0 || h->row_bytes == 0)
        return 0;
    if (h->row_bytes >= LARGE_ROW || (count <= FEW_ROWS && !a->map))
        return gather_by_calls(a, indices, count, out);
    return gather_by_map(a, indices, count, out);
}

npk_err npk_stream(npk_array *a, uint64_t batch_rows, npk_batch_visit *visit, void *ctx)
{
    uint64_t row_bytes = a->info.header.row_bytes, rows = a->info.rows;
    int err = check_rows(a);
    if (err)
        return err;
    if (batch_rows == 0)
        return npk__fail(-EINVAL, "\"%s\": batches of 0 rows; give at least 1", a->name);
    if (batch_rows > rows)
        batch_rows = rows;
    if (row_bytes > 0 && batch_rows > STREAM_BUFFER / row_bytes)
        batch_rows = STREAM_BUFFER > row_bytes ? STREAM_BUFFER / row_bytes : 1;
    void *buffer = malloc(batch_rows * row_bytes + 1);
    if (!buffer)
        return npk__fail(-ENOMEM, "out of memory");
    for (uint64_t first = 0; first < rows && !err; first += batch_rows) {
        uint64_t n = rows - first < batch_rows ? rows - first : batch_rows;
        err = npk_read_range(a, first, n, buffer);
        if (!err)
            err = visit(ctx, first, n, buffer);
    }
    free(buffer);
    return err;
}

/* ---- the mapping, for kernels ---------------------------------------------------------------------------------- */

static int map_rows(npk_array *a, const uint8_t **out)
{
    uint8_t *at = NULL;
    int err = check_rows(a);
    if (!err && a->info.header.data_bytes > 0)
        err = map_data(a, &at);
    *out = at;
    return err;
}

npk_err npk_array_runs(npk_array *a, uint64_t first, uint64_t count, uint64_t max_rows_per_visit, npk_run_visit *visit,
                       void *ctx)
{
    const uint8_t *data;
    int err = map_rows(a, &data);
    if (err)
        return err;
    if (first > a->info.rows || count > a->info.rows - first)
        return npk__fail(-ERANGE,
                         "\"%s\": %" PRIu64 " rows from row %" PRIu64 " on are outside; there are %" PRIu64 " rows",
                         a->name, count, first, a->info.rows);
    for (uint64_t done = 0, n; done < count && !err; done += n) {
        n = max_rows_per_visit && count - done > max_rows_per_visit ? max_rows_per_visit : count - done;
        err = visit(ctx, first + done, n, data ? data + (first + done) * a->info.header.row_bytes : NULL);
    }
    return err;
}

npk_err npk_array_physical_map(npk_array *a, const void **data, uint64_t *rows)
{
    const uint8_t *at;
    int err = map_rows(a, &at);
    if (err)
        return err;
    *data = at;
    *rows = a->info.physical_rows;
    return 0;
}

const uint64_t *npk_array_live_words(npk_array *a, uint64_t first_physical, uint64_t *rows_covered)
{
    (void)a;
    (void)first_physical;
    *rows_covered = 0;
    return NULL;
}

uint64_t npk_array_logical(npk_array *a, uint64_t physical)
{
    return physical < a->info.physical_rows ? physical : UINT64_MAX;
}

uint64_t npk_array_physical(npk_array *a, uint64_t logical)
{
    return logical < a->info.rows ? logical : UINT64_MAX;
}
