/* SPDX-License-Identifier: Apache-2.0 */
/* The values of an array in one pass: its mapped rows go through the kernels, in two or more threads. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fail.h"
#include "guard.h"
#include "npk.h"
#include "summary.h"

#define MAX_THREADS 8
#define PIECE       ((uint64_t)4 << 20) /* bytes of data that a thread takes at once */

struct summing {
    npk_array *array;
    kn_summary_type type;
    uint64_t rows, rows_per_piece, row_elements, row_bytes;
    double origin;
    _Atomic uint64_t next, done; /* rows */
    atomic_int err;
    npk_progress *progress;
    void *ctx;
    pthread_mutex_t lock; /* protects total, and is held in calls of progress */
    kn_summary total;
};

/* A run of rows that lie together, for the guarded part. */
struct run {
    const struct summing *w;
    kn_summary *into;
    const void *rows;
    uint64_t count;
};

static int add_elements(void *ctx)
{
    struct run *r = ctx;
    kn_summary_part(r->into, r->w->type, r->rows, (size_t)(r->count * r->w->row_elements));
    return 0;
}

static int add_run(void *ctx, uint64_t first_row, uint64_t row_count, const void *rows)
{
    struct run *r = ctx;
    (void)first_row;
    r->rows = rows;
    r->count = row_count;
    uintptr_t from = (uintptr_t)rows & ~(uintptr_t)4095;
    (void)madvise((void *)from, (uintptr_t)rows + row_count * r->w->row_bytes - from, 22 /* MADV_POPULATE_READ */);
    kn_summary before = *r->into;
    int err = npk__guarded(rows, row_count * r->w->row_bytes, add_elements, r);
    if (err == -ENOSYS)
        return add_elements(r);
    if (err)
        *r->into = before;
    return err;
}

static void *work(void *arg)
{
    struct summing *w = arg;
    kn_summary sum;
    kn_summary_begin(&sum, w->origin);
    while (atomic_load(&w->err) == 0) {
        uint64_t first = atomic_fetch_add(&w->next, w->rows_per_piece);
        if (first >= w->rows)
            break;
        uint64_t n = w->rows - first < w->rows_per_piece ? w->rows - first : w->rows_per_piece;
        struct run r = {.w = w, .into = &sum};
        int err = npk_array_runs(w->array, first, n, 0, add_run, &r), none = 0;
        uint64_t done = atomic_fetch_add(&w->done, n) + n;
        if (!err && w->progress) {
            pthread_mutex_lock(&w->lock);
            if (w->progress(w->ctx, done * w->row_bytes, w->rows * w->row_bytes) != 0)
                err = -ECANCELED;
            pthread_mutex_unlock(&w->lock);
        }
        if (err)
            (void)atomic_compare_exchange_strong(&w->err, &none, err);
    }
    pthread_mutex_lock(&w->lock);
    kn_summary_add(&w->total, &sum);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void work_in_threads(struct summing *w)
{
    pthread_t threads[MAX_THREADS];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t pieces = w->rows / w->rows_per_piece + 1;
    unsigned started = 0, wanted = cores < 1 ? 1 : cores > MAX_THREADS ? MAX_THREADS : (unsigned)cores;
    if (wanted > pieces)
        wanted = (unsigned)pieces;
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, work, w) == 0)
        started++;
    work(w);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

static kn_summary_type type_of(const npk_dtype *d)
{
    unsigned at = (unsigned)__builtin_ctzll(d->itemsize);
    switch (d->kind) {
    case NPK_KIND_INT:
        return KN_SUMMARY_I8 + at;
    case NPK_KIND_UINT:
        return KN_SUMMARY_U8 + at;
    case NPK_KIND_FLOAT:
        return KN_SUMMARY_F16 + (at - 1);
    case NPK_KIND_COMPLEX:
        return KN_SUMMARY_C64 + (at - 3);
    default:
        return KN_SUMMARY_BOOL;
    }
}

static void tell(const kn_summary *s, npk_summary *out)
{
    uint64_t numbers = s->count - s->nans;
    bool is_signed = out->dtype.kind == NPK_KIND_INT, is_float = out->dtype.kind == NPK_KIND_FLOAT;
    out->count = s->count;
    out->nans = s->nans;
    out->zeros = s->zeros;
    out->exact = !is_float && out->dtype.kind != NPK_KIND_COMPLEX;
    out->min = out->max = out->mean = out->std = NAN;
    if (numbers == 0)
        return;
    if (is_signed) {
        out->min_int = s->min_int;
        out->max_int = s->max_int;
    } else if (out->exact) {
        out->min_uint = s->min_uint;
        out->max_uint = s->max_uint;
    }
    if (out->dtype.kind != NPK_KIND_COMPLEX) {
        out->min = is_float ? s->min : is_signed ? (double)s->min_int : (double)s->min_uint;
        out->max = is_float ? s->max : is_signed ? (double)s->max_int : (double)s->max_uint;
    }
    double off = s->sum / (double)numbers, variance = s->squares / (double)numbers - off * off;
    out->mean = s->origin + off;
    out->std = variance > 0 ? sqrt(variance) : variance == variance ? 0 : NAN;
}

/* An array that has no rows to speak of (one element, Fortran order): all of its data at once. */
static int sum_all(struct summing *w, uint64_t elements, uint64_t bytes)
{
    const void *data;
    uint64_t mapped;
    int err = npk_array_map(w->array, &data, &mapped);
    if (err || elements == 0)
        return err;
    w->origin = kn_summary_origin(w->type, data, 1);
    kn_summary_begin(&w->total, w->origin);
    w->row_elements = elements;
    w->row_bytes = bytes;
    struct run r = {.w = w, .into = &w->total};
    return add_run(&r, 0, 1, data);
}

static int sum_rows(struct summing *w, const npk_info *info)
{
    uint8_t *row = malloc((size_t)info->header.row_bytes);
    int err = row ? npk_read_range(w->array, 0, 1, row) : npk__fail(-ENOMEM, "out of memory");
    if (!err) {
        w->origin = kn_summary_origin(w->type, row, 1);
        kn_summary_begin(&w->total, w->origin);
        work_in_threads(w);
        err = atomic_load(&w->err);
        if (err == -ECANCELED)
            npk__fail(err, "stopped");
        else if (err == -EIO)
            npk__fail(err, "its file was cut while it was read");
    }
    free(row);
    return err;
}

npk_err npk_summarize(npk_store *s, const char *name, npk_summary *out, npk_progress *progress, void *ctx)
{
    struct summing w = {.progress = progress, .ctx = ctx, .lock = PTHREAD_MUTEX_INITIALIZER};
    int err = npk_array_open(s, name, &w.array);
    if (err)
        return err;
    const npk_info *info = npk_array_info(w.array);
    const npk_header *h = &info->header;
    npk_summary result = {.dtype = h->dtype};
    if (!h->dtype.native14 || h->dtype.big_endian) {
        err = npk__fail(-ENOTSUP, "\"%s\": dtype %s has no summary; the 14 dtypes from bool to complex128 have", name,
                        h->dtype.name);
    } else {
        w.type = type_of(&h->dtype);
        kn_summary_begin(&w.total, 0);
        if (!npk_header_is_row_array(h)) {
            err = sum_all(&w, h->data_bytes / h->dtype.itemsize, h->data_bytes);
        } else if (info->rows > 0) {
            w.rows = info->rows;
            w.row_bytes = h->row_bytes;
            w.row_elements = h->row_bytes / h->dtype.itemsize;
            w.rows_per_piece = PIECE / h->row_bytes ? PIECE / h->row_bytes : 1;
            err = sum_rows(&w, info);
        }
    }
    if (!err) {
        tell(&w.total, &result);
        *out = result;
    }
    npk_array_close(&w.array);
    return err;
}
