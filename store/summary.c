/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of an array in one pass. Its shown data is taken in chunks of whole blocks (kernels/summary.h) by as many
 * threads as there are cores; the chunks' summaries are added in the order of the data, so the result has the same bits
 * for any number of threads, and for an array with deleted rows as for its compacted copy.
 *
 * Data is read by calls into a buffer that stays in the second cache: twice as fast from the page cache as through a
 * mapping, whose pages have to be entered and taken out again, and safe from files that are cut.
 */
#define _GNU_SOURCE 1

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "array.h"
#include "convert.h"
#include "fail.h"
#include "isa.h"
#include "npk.h"
#include "summary.h"

#define MAX_THREADS  8
#define BUFFER       ((size_t)256 << 10) /* a multiple of every block's bytes */
#define PAGE         4096u
#define CHUNK_BLOCKS 64u
#define MOST_CHUNKS  65536u /* what is kept until the end */

struct summing {
    const npk_array *array;
    kn_summary_block *block;
    uint64_t elements, element_bytes, chunk_elements, chunks;
    kn_summary *of; /* each chunk */
    double base;
    size_t skew;                 /* where in a page the file's data begins */
    _Atomic uint64_t next, done; /* chunks, elements */
    atomic_int err;
    npk_progress *progress;
    void *ctx;
    pthread_mutex_t lock; /* held in calls of progress */
};

/* A failure's sentence belongs to the thread that it happened on: what is told at the end is said there. */
static int sum_chunk(struct summing *w, uint64_t chunk, uint8_t *buffer)
{
    uint64_t first = chunk * w->chunk_elements, left = w->elements - first, fit = BUFFER / w->element_bytes;
    if (left > w->chunk_elements)
        left = w->chunk_elements;
    kn_summary sum = kn_summary_none();
    int err = 0;
    for (uint64_t n; left > 0 && !err; first += n, left -= n) {
        n = left < fit ? left : fit;
        err = npk__array_read_shown(w->array, first * w->element_bytes, n * w->element_bytes, buffer);
        for (uint64_t i = 0; i < n && !err; i += KN_SUMMARY_BLOCK) {
            size_t count = n - i < KN_SUMMARY_BLOCK ? (size_t)(n - i) : KN_SUMMARY_BLOCK;
            kn_summary one = w->block(buffer + i * w->element_bytes, count, w->base);
            kn_summary_add(&sum, &one);
        }
    }
    w->of[chunk] = sum;
    return err;
}

static int tell_progress(struct summing *w, uint64_t chunk)
{
    uint64_t n = chunk + 1 < w->chunks ? w->chunk_elements : w->elements - chunk * w->chunk_elements;
    uint64_t done = atomic_fetch_add(&w->done, n) + n;
    if (!w->progress)
        return 0;
    pthread_mutex_lock(&w->lock);
    int stop = w->progress(w->ctx, done * w->element_bytes, w->elements * w->element_bytes);
    pthread_mutex_unlock(&w->lock);
    return stop ? -ECANCELED : 0;
}

static void *work(void *arg)
{
    struct summing *w = arg;
    int err = 0, none = 0;
    /* Whole pages are copied at once if they begin in the buffer where they do in the file. */
    uint8_t *pages = aligned_alloc(PAGE, BUFFER + PAGE), *buffer = pages + w->skew;
    if (!pages)
        err = -ENOMEM;
    while (!err && atomic_load(&w->err) == 0) {
        uint64_t chunk = atomic_fetch_add(&w->next, 1);
        if (chunk >= w->chunks)
            break;
        err = sum_chunk(w, chunk, buffer);
        if (!err)
            err = tell_progress(w, chunk);
    }
    if (err)
        (void)atomic_compare_exchange_strong(&w->err, &none, err);
    free(pages);
    return NULL;
}

static void work_in_threads(struct summing *w)
{
    pthread_t threads[MAX_THREADS];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned started = 0, wanted = cores < 1 ? 1 : cores > MAX_THREADS ? MAX_THREADS : (unsigned)cores;
    if (wanted > w->chunks)
        wanted = (unsigned)w->chunks;
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, work, w) == 0)
        started++;
    work(w);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

/* Of the first elements. */
static int choose_base(struct summing *w, kn_number number)
{
    uint64_t n = w->elements < KN_SUMMARY_BLOCK ? w->elements : KN_SUMMARY_BLOCK;
    void *first = malloc(n * w->element_bytes);
    if (!first)
        return npk__fail(-ENOMEM, "out of memory");
    int err = npk__array_read_shown(w->array, 0, n * w->element_bytes, first);
    if (!err)
        w->base = kn_summary_base(number, first, n);
    free(first);
    return err;
}

static int sum_elements(struct summing *w, kn_number number, kn_summary *total)
{
    const uint64_t least = (uint64_t)CHUNK_BLOCKS * KN_SUMMARY_BLOCK;
    *total = kn_summary_none();
    if (w->elements == 0)
        return 0;
    int err = choose_base(w, number);
    if (err)
        return err;
    w->chunk_elements = least * (w->elements / (least * MOST_CHUNKS) + 1);
    w->chunks = (w->elements - 1) / w->chunk_elements + 1;
    w->of = malloc(w->chunks * sizeof(*w->of));
    if (!w->of)
        return npk__fail(-ENOMEM, "out of memory");
    work_in_threads(w);
    err = atomic_load(&w->err);
    for (uint64_t i = 0; i < w->chunks && !err; i++)
        kn_summary_add(total, &w->of[i]);
    free(w->of);
    if (err == -ECANCELED)
        return npk__fail(err, "\"%s\": stopped", npk__array_name(w->array));
    if (err == -EIO)
        return npk__fail(err, "\"%s\": the disk has failed, or the file was cut while it was read",
                         npk__array_name(w->array));
    return err ? npk__fail_errno(err, npk__array_name(w->array)) : 0;
}

static void tell(const kn_summary *s, double base, npk_summary *out)
{
    bool is_signed = out->dtype.kind == NPK_KIND_INT, is_float = out->dtype.kind == NPK_KIND_FLOAT;
    out->count = s->count;
    out->nans = s->nans;
    out->zeros = s->zeros;
    out->exact = !is_float && out->dtype.kind != NPK_KIND_COMPLEX;
    out->min = out->max = NAN;
    out->mean = kn_summary_mean(s, base);
    out->std = kn_summary_std(s);
    if (s->count == s->nans)
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
}

npk_err npk_summarize(npk_store *s, const char *name, npk_summary *out, npk_progress *progress, void *ctx)
{
    struct summing w = {.progress = progress, .ctx = ctx, .lock = PTHREAD_MUTEX_INITIALIZER};
    npk_array *a = NULL;
    kn_number number;
    kn_summary total;
    kn_isa isa;
    int err = npk__isa_choose(NULL, &isa);
    if (!err)
        err = npk_array_open(s, name, &a);
    if (err)
        return err;
    const npk_header *h = &npk_array_info(a)->header;
    npk_summary result = {.dtype = h->dtype};
    if (h->dtype.big_endian || !npk__number_of(&h->dtype, &number)) {
        err = npk__fail(-ENOTSUP, "\"%s\": dtype %s has no summary; the 14 dtypes from bool to complex128 have", name,
                        h->dtype.name);
    } else {
        w.array = a;
        w.block = kn_summary_of(isa, number);
        w.element_bytes = h->dtype.itemsize;
        w.elements = h->data_bytes / w.element_bytes;
        w.skew = (size_t)(h->data_offset % PAGE);
        err = sum_elements(&w, number, &total);
    }
    if (!err) {
        tell(&total, w.base, &result);
        *out = result;
    }
    npk_array_close(&a);
    return err;
}
