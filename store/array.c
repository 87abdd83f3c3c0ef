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
#include "known.h"
#include "lower.h"
#include "npk.h"
#include "path.h"
#include "pkg_store.h"
#include "redo.h"
#include "settle.h"
#include "store.h"
#include "target.h"
#include "view.h"

/* Rows so large are read by a system call each: it costs little then, and no page faults. */
#define LARGE_ROW (64u << 10)
/* So few rows are not worth a mapping. */
#define FEW_ROWS 4
/* Rows whose places are looked up, and their data asked for, before the first is copied: they fit into the first cache.
 */
#define BATCH 256
/* Live rows that are decoded at once. */
#define PACKED_RUN (UINT64_C(4) << 20)
/* A stream's buffer; a batch that would need more comes in several. */
#define STREAM_BUFFER (UINT64_C(256) << 20)

struct npk_array {
    int fd;                   /* -1 for one whose data is in a package */
    npk_package_file *packed; /* where it is then; else NULL */
    char *name;
    npk_info info;              /* as shown */
    uint64_t file_data;         /* bytes of data in the file, deleted rows among them */
    npk_known known;            /* which of its rows are deleted; live is NULL if none is */
    uint64_t *last_words;       /* npk_array_live_words(): the last chunk's, with zeros behind the last row */
    npk_live_index *index;      /* for lists of rows; NULL if none is deleted */
    _Atomic(uint8_t *) map;     /* the file from its start to the end of the rows; NULL: not mapped yet */
    _Atomic(uint8_t *) copy;    /* the shown rows of a view, once somebody wanted them in one piece */
    _Atomic(unsigned) searches; /* made over it so far */
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

/* The words of the last chunk say live behind the last row: a copy that does not. */
static int copy_last_words(npk_array *a)
{
    uint64_t rows = a->info.physical_rows, begin = rows - rows % NPK__CHUNK_ROWS, n, covered;
    n = (rows - begin + 63) / 64;
    if (n == 0)
        return 0;
    a->last_words = malloc(n * sizeof(*a->last_words));
    if (!a->last_words)
        return npk__fail(-ENOMEM, "out of memory");
    memcpy(a->last_words, npk__live_words(a->known.live, begin, &covered), n * sizeof(*a->last_words));
    if (rows % 64)
        a->last_words[n - 1] &= (UINT64_C(1) << rows % 64) - 1;
    return 0;
}

/* Which of its rows are deleted, and the facts as they are shown. */
static int look_at_marks(npk_array *a, npk_store *s, const char *path)
{
    npk_dir dir;
    npk_stamp stamp;
    const char *leaf;
    a->file_data = a->info.header.data_bytes;
    if (!npk_header_is_row_array(&a->info.header))
        return 0;
    int err = npk__fd_stamp(a->fd, &stamp);
    if (err)
        return npk__fail_errno(err, a->name);
    err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    err = npk__known(dir.fd, leaf, a->fd, &a->info, &stamp, &a->known);
    npk__dir_release(&dir);
    if (!err && a->known.deleted == 0)
        npk__known_release(&a->known);
    if (!err && a->known.deleted > 0)
        err = copy_last_words(a);
    if (!err && a->known.deleted > 0 && !(a->index = npk__live_index_make(a->known.live)))
        err = npk__fail(-ENOMEM, "out of memory");
    if (!err)
        npk__known_apply(&a->known, &a->info);
    return err;
}

static int open_once(npk_store *s, const char *name, const char *path, npk_array **out)
{
    npk_array *a = calloc(1, sizeof(*a));
    if (!a || !(a->name = strdup(name))) {
        free(a);
        return npk__fail(-ENOMEM, "out of memory");
    }
    int err = npk__journal_wait(s, path, 0);
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
    if (!err)
        err = look_at_marks(a, s, path);
    if (!err && a->info.packed) {
        err = npk__placeholder_open(s, a->fd, &a->packed);
        npk__close(&a->fd);
        if (!err && !a->packed)
            err = npk__fail(-ESTALE, "\"%s\": it was written to just now; open it again", name);
    }
    if (err)
        npk_array_close(&a);
    else
        *out = a;
    return err;
}

static int open_packed(npk_store *s, const char *name, npk_array **out)
{
    npk_array *a = calloc(1, sizeof(*a));
    if (!a || !(a->name = strdup(name))) {
        free(a);
        return npk__fail(-ENOMEM, "out of memory");
    }
    a->fd = -1;
    int err = npk__package_open_array(s->package, name, &a->packed, &a->info);
    if (!err)
        err = check_readable(name, &a->info);
    a->file_data = a->info.header.data_bytes;
    if (err)
        npk_array_close(&a);
    else
        *out = a;
    return err;
}

npk_err npk_array_open(npk_store *s, const char *name, npk_array **out)
{
    char path[NPK__PATH_BYTES];
    int err = npk__name_to_path(name, path, sizeof(path));
    if (err)
        return err;
    if (s->package)
        return open_packed(s, name, out);
    for (unsigned tries = 0; tries < 100; tries++) { /* P6: another file may take the name between two calls */
        err = open_once(s, name, path, out);
        if (err != -ESTALE)
            break;
    }
    return err;
}

static uint64_t map_bytes(const npk_array *a)
{
    return a->info.header.data_offset + a->file_data;
}

void npk_array_close(npk_array **array)
{
    if (!array || !*array)
        return;
    npk_array *a = *array;
    if (a->map)
        munmap(a->map, map_bytes(a));
    if (a->copy)
        munmap(a->copy, a->info.header.data_bytes);
    free(a->last_words);
    npk__live_index_free(a->index);
    npk__known_release(&a->known);
    npk__close(&a->fd);
    npk_package_file_close(&a->packed);
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

int npk__array_read_packed(const npk_array *a, uint64_t offset, uint64_t bytes, void *out)
{
    return npk__package_read_at(a->packed, offset, bytes, out);
}

uint64_t npk__array_run(const npk_array *a, uint64_t row, uint64_t most, uint64_t *physical)
{
    *physical = row;
    return a->known.deleted ? npk__view_run(a->known.live, row, most, physical) : most;
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
        int err = a->packed ? npk__package_map(a->packed, map_bytes(a), &at)
                            : npk__mmap(&at, map_bytes(a), PROT_READ, MAP_SHARED, a->fd, 0);
        if (err)
            return a->packed ? err : npk__fail_errno(err, a->name);
        if (atomic_compare_exchange_strong(&a->map, &map, at))
            map = at;
        else
            munmap(at, map_bytes(a));
    }
    *out = map + a->info.header.data_offset;
    return 0;
}

/* The shown rows of a view in one piece: memory of their size, given back when the array is closed. */
static int copy_shown(npk_array *a, uint8_t **out)
{
    uint8_t *copy = atomic_load_explicit(&a->copy, memory_order_acquire);
    if (!copy) {
        void *at;
        uint64_t bytes = a->info.header.data_bytes;
        int err = npk__mmap(&at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (err)
            return npk__fail_errno(err, a->name);
        err = npk_read_range(a, 0, a->info.rows, at);
        if (err) {
            munmap(at, bytes);
            return err;
        }
        (void)mprotect(at, bytes, PROT_READ);
        if (atomic_compare_exchange_strong(&a->copy, &copy, at))
            copy = at;
        else
            munmap(at, bytes);
    }
    *out = copy;
    return 0;
}

npk_err npk_array_map(npk_array *a, const void **data, uint64_t *bytes)
{
    uint8_t *at = NULL;
    int err = 0;
    if (a->info.header.data_bytes > 0)
        err = a->known.deleted ? copy_shown(a, &at) : map_data(a, &at);
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
    if (a->packed)
        return npk__package_read_at(a->packed, offset, bytes, out);
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

/* Bytes of the shown data. */
static int read_shown(const npk_array *a, uint64_t offset, uint64_t bytes, void *out)
{
    const npk_header *h = &a->info.header;
    npk__shown shown = {
        .live = a->known.live, .rows = a->info.rows, .row_bytes = h->row_bytes, .data_offset = h->data_offset, .packed = a->packed};
    ssize_t n = npk__shown_read(&shown, a->fd, offset, out, bytes);
    if (n < 0)
        return npk__fail_errno((int)n, a->name);
    return (uint64_t)n < bytes ? cut_meanwhile(a) : 0;
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
    if (a->known.deleted)
        return read_shown(a, start * h->row_bytes, count * h->row_bytes, out);
    return read_at(a, npk__rows_end(h, start), count * h->row_bytes, out);
}

int npk__array_read_shown(const npk_array *a, uint64_t offset, uint64_t bytes, void *out)
{
    if (a->known.deleted)
        return read_shown(a, offset, bytes, out);
    return read_at(a, a->info.header.data_offset + offset, bytes, out);
}

npk_err npk_read_all(npk_array *a, void *out)
{
    return npk__array_read_shown(a, 0, a->info.header.data_bytes, out);
}

struct gathering {
    void *out;
    const uint8_t *data;
    uint64_t row_bytes, rows;
    const int64_t *indices;
    size_t count;
    const npk_live_index *index; /* NULL: indices are those of the file's rows */
    uint64_t shown;              /* rows that are shown */
};

static int gather(void *ctx)
{
    const struct gathering *g = ctx;
    int64_t physical[BATCH];
    if (!g->index) {
        kn_gather_rows(g->out, g->data, g->row_bytes, g->rows, g->indices, g->count);
        return 0;
    }
    for (size_t i = 0, n; i < g->count; i += n) {
        n = g->count - i < BATCH ? g->count - i : BATCH;
        npk__live_select_many(g->index, g->indices + i, n, g->shown, g->data, g->row_bytes, physical);
        kn_gather_rows((uint8_t *)g->out + i * g->row_bytes, g->data, g->row_bytes, g->rows, physical, n);
    }
    return 0;
}

static int gather_by_calls(const npk_array *a, const int64_t *indices, size_t count, uint8_t *out)
{
    const npk_header *h = &a->info.header;
    int err = 0;
    for (size_t i = 0; i < count && !err; i++, out += h->row_bytes) {
        uint64_t row = (uint64_t)indices[i] + (indices[i] < 0 ? a->info.rows : 0);
        if (a->known.deleted)
            row = npk__live_select(a->known.live, row);
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
    struct gathering g = {.out = out,
                          .data = data,
                          .row_bytes = a->info.header.row_bytes,
                          .rows = a->info.physical_rows,
                          .indices = indices,
                          .count = count,
                          .index = a->index,
                          .shown = a->info.rows};
    err = npk__guarded(data, a->file_data, gather, &g);
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
    if (a->packed && !a->known.deleted)
        return npk__package_gather(a->packed, &a->info, indices, count, out);
    if (a->packed || h->row_bytes >= LARGE_ROW || (count <= FEW_ROWS && !a->map))
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
    if (!err && a->file_data > 0)
        err = map_data(a, &at);
    *out = at;
    return err;
}

/* The live rows of an array in a package, piece by piece through memory. */
static int packed_runs(npk_array *a, uint64_t first, uint64_t count, uint64_t most, npk_run_visit *visit, void *ctx)
{
    uint64_t row_bytes = a->info.header.row_bytes, fit = row_bytes && row_bytes < PACKED_RUN ? PACKED_RUN / row_bytes : 1;
    if (most && fit > most)
        fit = most;
    uint8_t *buffer = malloc(fit * row_bytes + 1);
    int err = buffer ? 0 : npk__fail(-ENOMEM, "out of memory");
    for (uint64_t done = 0, n; done < count && !err; done += n) {
        n = count - done < fit ? count - done : fit;
        err = npk_read_range(a, first + done, n, buffer);
        if (!err)
            err = visit(ctx, first + done, n, buffer);
    }
    free(buffer);
    return err;
}

npk_err npk_array_runs(npk_array *a, uint64_t first, uint64_t count, uint64_t max_rows_per_visit, npk_run_visit *visit,
                       void *ctx)
{
    const uint8_t *data = NULL;
    int err = a->packed ? check_rows(a) : map_rows(a, &data);
    if (err)
        return err;
    if (first > a->info.rows || count > a->info.rows - first)
        return npk__fail(-ERANGE,
                         "\"%s\": %" PRIu64 " rows from row %" PRIu64 " on are outside; there are %" PRIu64 " rows",
                         a->name, count, first, a->info.rows);
    if (a->packed && a->known.deleted)
        return packed_runs(a, first, count, max_rows_per_visit, visit, ctx);
    if (a->packed)
        return npk__package_runs(a->packed, &a->info, first, count, max_rows_per_visit, visit, ctx);
    for (uint64_t done = 0, n; done < count && !err; done += n) {
        uint64_t row = first + done;
        n = max_rows_per_visit && count - done > max_rows_per_visit ? max_rows_per_visit : count - done;
        if (a->known.deleted)
            n = npk__view_run(a->known.live, first + done, n, &row);
        err = visit(ctx, first + done, n, data ? data + row * a->info.header.row_bytes : NULL);
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
    const npk_known *k = &a->known;
    uint64_t rows = a->info.physical_rows;
    *rows_covered = 0;
    if (!k->deleted || first_physical >= rows || first_physical % 64 != 0)
        return NULL;
    const uint64_t *words = npk__live_words(k->live, first_physical, rows_covered);
    if (*rows_covered <= rows - first_physical)
        return words;
    *rows_covered = rows - first_physical;
    return a->last_words + first_physical % NPK__CHUNK_ROWS / 64;
}

uint64_t npk_array_logical(npk_array *a, uint64_t physical)
{
    if (physical >= a->info.physical_rows)
        return UINT64_MAX;
    if (!a->known.deleted)
        return physical;
    return npk__live_is_deleted(a->known.live, physical) ? UINT64_MAX : npk__live_rank(a->known.live, physical);
}

uint64_t npk_array_physical(npk_array *a, uint64_t logical)
{
    if (logical >= a->info.rows)
        return UINT64_MAX;
    return a->known.deleted ? npk__live_select(a->known.live, logical) : logical;
}
