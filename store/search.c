/* SPDX-License-Identifier: Apache-2.0 */
/* search.c - exact search: what is checked, threads, and the merging of what they found (P20). */
#define _GNU_SOURCE 1

#include "search.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "array.h"
#include "fail.h"
#include "io.h"
#include "isa.h"

#define THREADS_MOST 256
/* What candidates may take, over all threads; more queries than fit go in passes. */
#define CANDIDATE_BYTES (UINT64_C(256) << 20)
/* Rows that a thread takes at once: large enough that taking costs nothing, small enough that all end together. */
#define TASK_MAPPED (UINT64_C(4) << 20)
#define TASK_READ   (UINT64_C(1) << 20)
#define TASK_ROWS   65536
/* A block of rows, as the kernels see them, that stays in the second-level cache with the queries. */
#define BLOCK_BYTES (UINT64_C(128) << 10)
/* Below this many bytes of rows for each thread (times queries) another thread costs more than it brings. */
#define THREAD_BYTES (UINT64_C(512) << 10)

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static uint64_t row_elements(const npk_header *h)
{
    uint64_t n = 1;
    for (uint32_t i = 1; i < h->ndim; i++)
        n *= h->shape[i];
    return n;
}

static int check_options(const npk_search_options *o, const npk_queries *q)
{
    if ((unsigned)o->metric >= NPK_METRIC_COUNT)
        return npk__fail(-EINVAL, "metric %d: unknown; 0 to %d are known", (int)o->metric, NPK_METRIC_COUNT - 1);
    if (o->flags & ~(unsigned)(NPK_SEARCH_READ | NPK_SEARCH_MAP))
        return npk__fail(-EINVAL, "flags %#x: unknown; NPK_SEARCH_READ and NPK_SEARCH_MAP are known", o->flags);
    if (!(o->epsilon >= 0 && o->epsilon < 1e30))
        return npk__fail(-EINVAL, "epsilon %g: 0 or a positive number is accepted", o->epsilon);
    if (o->threads > THREADS_MOST)
        return npk__fail(-EINVAL, "%u threads; 0 (all cores) to %d are accepted", o->threads, THREADS_MOST);
    if (q->count > UINT32_MAX)
        return npk__fail(-EINVAL, "%" PRIu64 " queries at once; at most %" PRIu32 " are accepted", q->count,
                         UINT32_MAX);
    return 0;
}

static int check_part(const npk_part *p, const npk_part *first)
{
    const npk_info *info = npk_array_info(p->array);
    const npk_header *h = &info->header, *h0 = &npk_array_info(first->array)->header;
    const char *name = npk__array_name(p->array);
    if (h->ndim == 0)
        return npk__fail(-ENOTSUP, "\"%s\": a single value has no rows; an array of one dimension or more has", name);
    if (h->fortran && h->ndim > 1)
        return npk__fail(-ENOTSUP, "\"%s\": Fortran order has no rows; save it in C order", name);
    if (row_elements(h) != row_elements(h0))
        return npk__fail(-EINVAL,
                         "\"%s\": rows of %" PRIu64 " elements beside rows of %" PRIu64 "; equal ones are accepted",
                         name, row_elements(h), row_elements(h0));
    if (h->dtype.kind != h0->dtype.kind || h->dtype.itemsize != h0->dtype.itemsize ||
        h->dtype.big_endian != h0->dtype.big_endian)
        return npk__fail(-EINVAL, "\"%s\": dtype %s beside %s; parts of one dtype are accepted", name, h->dtype.name,
                         h0->dtype.name);
    if (p->first > info->rows || (p->count != UINT64_MAX && p->count > info->rows - p->first))
        return npk__fail(
            -ERANGE, "\"%s\": rows from %" PRIu64 " on, %" PRIu64 " of them, are outside; there are %" PRIu64 " rows",
            name, p->first, p->count, info->rows);
    return 0;
}

/* Excluded among logical rows [first, first + count). */
static uint64_t excluded(const uint64_t *words, uint64_t first, uint64_t count)
{
    uint64_t n = 0;
    for (uint64_t i = first; i < first + count;) {
        uint64_t bit = i % 64, here = 64 - bit < first + count - i ? 64 - bit : first + count - i;
        uint64_t word = words[i / 64] >> bit;
        if (here < 64)
            word &= (UINT64_C(1) << here) - 1;
        n += (uint64_t)__builtin_popcountll(word);
        i += here;
    }
    return n;
}

static bool wants_map(const npk_search_options *o, npk_array *a)
{
    if (npk__array_fd(a) < 0)
        return false; /* in a package: each thread decodes what it looks at */
    if (o->flags & (NPK_SEARCH_READ | NPK_SEARCH_MAP))
        return !(o->flags & NPK_SEARCH_READ);
    return npk__array_searched(a) > 0 || npk__array_is_mapped(a);
}

static int take_part(npk__search *s, const npk_part *from, const npk_search_options *o, uint64_t base)
{
    npk__part *p = &s->parts[s->part_count++];
    const npk_info *info = npk_array_info(from->array);
    uint64_t count = from->count == UINT64_MAX ? info->rows - from->first : from->count;
    *p = (npk__part){
        .array = from->array, .base = base, .logical = from->first, .rows = count, .exclude = from->exclude};
    if (count > 0) {
        p->first = npk_array_physical(from->array, from->first);
        p->count = npk_array_physical(from->array, from->first + count - 1) + 1 - p->first;
    }
    p->masked = p->count != count || p->exclude;
    if (p->exclude)
        p->rows -= excluded(p->exclude, from->first, count);
    s->rows += p->rows;
    s->bytes += p->count * s->row_bytes;
    if (p->count > 0 && s->row_bytes > 0 && wants_map(o, from->array)) {
        const void *map = NULL;
        uint64_t rows;
        int err = npk_array_physical_map(from->array, &map, &rows);
        if (err)
            return err;
        p->map = map;
    }
    return 0;
}

static int take_parts(npk__search *s, const npk_part *parts, size_t count, const npk_search_options *o)
{
    uint64_t base = 0;
    const npk_header *h = &npk_array_info(parts[0].array)->header;
    s->dim = row_elements(h);
    s->row_bytes = h->row_bytes;
    s->parts = calloc(count, sizeof(*s->parts));
    int err = s->parts ? 0 : npk__fail(-ENOMEM, "out of memory");
    for (size_t i = 0; i < count && !err; i++)
        err = check_part(&parts[i], &parts[0]);
    for (size_t i = 0; i < count && !err; i++) {
        err = take_part(s, &parts[i], o, base);
        base += npk_array_info(parts[i].array)->physical_rows;
    }
    return err;
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

static void choose_sizes(npk__search *s, const npk_search_options *o)
{
    uint64_t row = s->row_bytes > 0 ? s->row_bytes : 1, task = o->task_bytes;
    bool mapped = s->part_count > 0 && s->parts[0].map;
    if (task == 0)
        task = mapped ? TASK_MAPPED : TASK_READ;
    uint64_t rows = task / row < TASK_ROWS ? task / row : TASK_ROWS;
    s->task_rows = (rows + 63) & ~UINT64_C(63);
    if (s->task_rows == 0)
        s->task_rows = 64;
    uint64_t wide = s->dim * (s->class == NPK__F64 ? 8 : s->class == NPK__F32 ? 4 : 1);
    /* For few queries the converted rows are read as soon as they are written: from the first-level cache. */
    uint64_t bytes = s->converted && s->query_count <= KN_FEW ? BLOCK_BYTES / 4 : BLOCK_BYTES;
    uint64_t block = bytes / (wide > 0 ? wide : 1);
    s->block_rows = block > KN_BLOCK_ROWS ? KN_BLOCK_ROWS : block < 8 ? 8 : block & ~UINT64_C(7);
}

static unsigned choose_threads(const npk__search *s, const npk_search_options *o)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t threads = o->threads != 0 ? o->threads : cores > 0 ? (uint64_t)cores : 1;
    uint64_t tasks = 0, useful;
    for (size_t i = 0; i < s->part_count; i++)
        tasks += s->parts[i].count / s->task_rows + 1;
    if (o->threads == 0) {
        useful = s->bytes / THREAD_BYTES * s->query_count + 1;
        if (threads > useful)
            threads = useful;
    }
    if (threads > tasks)
        threads = tasks;
    return threads > THREADS_MOST ? THREADS_MOST : threads < 1 ? 1 : (unsigned)threads;
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

struct thread {
    npk__worker *worker;
    double *pairs; /* NULL: search */
    pthread_t id;
    bool started;
};

static void *run_thread(void *ctx)
{
    struct thread *t = ctx;
    if (t->pairs)
        npk__worker_pairs(t->worker, false, t->pairs);
    else
        npk__worker_run(t->worker, false);
    return NULL;
}

static int check_whole(const npk__search *s)
{
    for (size_t i = 0; i < s->part_count; i++) {
        const npk__part *p = &s->parts[i];
        struct stat st;
        uint64_t end = npk_array_info(p->array)->header.data_offset + (p->first + p->count) * s->row_bytes;
        if (npk__array_fd(p->array) < 0)
            continue;
        if (p->count > 0 && (npk__fstat(npk__array_fd(p->array), &st) != 0 || (uint64_t)st.st_size < end))
            return npk__fail(-EIO, "\"%s\": the file was cut while it was searched; open it again",
                             npk__array_name(p->array));
    }
    return 0;
}

static int failed(const npk__search *s, int err)
{
    if (err == -ECANCELED)
        return npk__fail(err, "the search was cancelled");
    if (err == -EIO) {
        int cut = check_whole(s);
        return cut ? cut : npk__fail(err, "\"%s\": input/output error", npk__array_name(s->parts[0].array));
    }
    if (err == -ENOMEM)
        return npk__fail(err, "out of memory for a search");
    return npk__fail_errno(err, npk__array_name(s->parts[0].array));
}

/* All workers, the first one on this thread. A thread that cannot be started is done without. */
static int run_all(npk__search *s, struct thread *threads, unsigned count)
{
    for (unsigned i = 1; i < count; i++)
        threads[i].started = pthread_create(&threads[i].id, NULL, run_thread, &threads[i]) == 0;
    if (threads[0].pairs)
        npk__worker_pairs(threads[0].worker, true, threads[0].pairs);
    else
        npk__worker_run(threads[0].worker, true);
    for (unsigned i = 1; i < count; i++)
        if (threads[i].started)
            pthread_join(threads[i].id, NULL);
    int err = atomic_load(&s->error_code);
    return err ? failed(s, err) : check_whole(s);
}

/* ---- merging ----------------------------------------------------------------------------------------------------- */

static npk_hit hit_of(const npk__search *s, const npk__candidate *c)
{
    uint64_t row = c->row & ~NPK__EXACT;
    size_t i = s->part_count - 1;
    while (s->parts[i].base > row)
        i--;
    double key = npk__key_value(c->low);
    if (!s->descends && key == key)
        key = key == 0 ? 0 : -key;
    return (npk_hit){
        .score = key, .row = npk_array_logical(s->parts[i].array, row - s->parts[i].base), .part = (uint32_t)i};
}

/* False: fewer than k reach what the first look saw, since somebody writes to the rows. (With k or more it cannot have
 * cost a row.) */
static bool merge(const npk__search *s, const struct thread *threads, unsigned count, npk__candidate *all, npk_hit *hits,
                  size_t k)
{
    for (size_t j = 0; j < s->query_count; j++) {
        size_t found = 0;
        for (unsigned i = 0; i < count; i++) {
            const npk__best *b = &npk__worker_best(threads[i].worker)[j];
            memcpy(all + found, b->at, b->count * sizeof(*all));
            found += b->count;
        }
        found = npk__best_sort(all, found, s->k);
        if (found < s->k)
            return false;
        for (size_t i = 0; i < found; i++)
            hits[j * k + i] = hit_of(s, &all[i]);
    }
    return true;
}

static void free_threads(struct thread *threads, unsigned count)
{
    for (unsigned i = 0; i < count && threads; i++)
        npk__worker_free(threads[i].worker);
    free(threads);
}

static int new_workers(npk__search *s, struct thread *threads, unsigned count, double *pairs, bool sample)
{
    npk__worker *workers[THREADS_MOST];
    for (unsigned i = 0; i < count; i++) {
        threads[i].pairs = pairs;
        workers[i] = threads[i].worker = npk__worker_new(s);
        if (!workers[i])
            return -ENOMEM;
    }
    if (sample)
        npk__worker_sample(workers, count);
    return 0;
}

/* -EAGAIN: once more, without a sample. */
static int search_once(npk__search *s, const npk_search_options *o, npk_hit *hits, double *pairs, size_t k, bool sample)
{
    unsigned count = choose_threads(s, o);
    struct thread *threads = calloc(count, sizeof(*threads));
    npk__candidate *all = pairs ? NULL : malloc(count * npk__best_capacity(s->k, s->query_count) * sizeof(*all));
    int err = threads && (pairs || all) ? 0 : -ENOMEM;
    atomic_store(&s->next_task, 0);
    atomic_store(&s->done_bytes, 0);
    if (!err)
        err = new_workers(s, threads, count, pairs, sample && !pairs);
    err = err ? failed(s, err) : run_all(s, threads, count);
    if (!err && !pairs && !merge(s, threads, count, all, hits, k))
        err = -EAGAIN;
    free_threads(threads, count);
    free(all);
    return err;
}

static int run_search(npk__search *s, const npk_search_options *o, npk_hit *hits, double *pairs, size_t k)
{
    int err = search_once(s, o, hits, pairs, k, true);
    return err == -EAGAIN ? search_once(s, o, hits, pairs, k, false) : err;
}

/* ---- the public functions -------------------------------------------------------------------------------------------
 */

static void clear(npk__search *s)
{
    npk__query_clear(s);
    free(s->parts);
}

static int begin(npk__search *s, const npk_part *parts, size_t part_count, const npk_queries *q,
                 const npk_search_options *o)
{
    kn_isa isa = KN_SCALAR;
    if (part_count == 0 || part_count > UINT32_MAX)
        return npk__fail(-EINVAL, "%zu parts; one or more are accepted", part_count);
    int err = check_options(o, q);
    if (!err)
        err = npk__isa_choose(o->cpu, &isa);
    if (err)
        return err;
    s->kernel = kn_distance_of(isa);
    s->metric = o->metric;
    s->progress = o->progress;
    s->progress_ctx = o->progress_ctx;
    return take_parts(s, parts, part_count, o);
}

/* Queries [first, first + count) of the caller's. */
static int prepare(npk__search *s, const npk_queries *q, uint64_t first, uint64_t count, const npk_search_options *o)
{
    npk_array *a = s->parts[0].array;
    npk_queries some = *q;
    some.data = (const char *)q->data + first * s->dim * q->dtype.itemsize;
    s->query_count = some.count = count;
    int err = npk__query_prepare(s, &npk_array_info(a)->header, npk__array_name(a), &some, o->epsilon);
    if (!err)
        choose_sizes(s, o);
    return err;
}

/* Forget the queries, keep the parts. */
static void next_pass(npk__search *s)
{
    npk__query_clear(s);
    s->groups = NULL;
    s->group_count = 0;
    s->packed_few = NULL;
    s->queries = NULL;
    s->values = NULL;
    s->same = NULL;
}

npk_err npk_search(const npk_part *parts, size_t part_count, const npk_queries *q, const npk_search_options *o,
                   npk_hit *hits, uint64_t *found)
{
    npk__search s = {0};
    int err = begin(&s, parts, part_count, q, o);
    uint64_t k = o->k < s.rows ? o->k : s.rows;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t threads = o->threads != 0 ? o->threads : cores > 0 ? (uint64_t)cores : 1;
    s.k = k;
    /* One query is always prepared, so that what is refused does not depend on how many rows or hits there are. */
    uint64_t pass = CANDIDATE_BYTES / (threads * npk__best_capacity(k, 5) * sizeof(npk__candidate));
    pass = pass < 1 ? 1 : pass > 4096 ? 4096 : pass;
    for (uint64_t at = 0; at < q->count && !err; at += pass) {
        uint64_t count = q->count - at < pass ? q->count - at : pass;
        err = prepare(&s, q, at, count, o);
        if (!err && k > 0)
            err = run_search(&s, o, hits + at * k, NULL, k);
        next_pass(&s);
    }
    clear(&s);
    if (!err)
        *found = k;
    return err;
}

npk_err npk_pairs(const npk_part *parts, size_t part_count, const npk_queries *q, const npk_search_options *o,
                  double *scores)
{
    npk__search s = {.k = 1};
    int err = begin(&s, parts, part_count, q, o);
    for (size_t i = 0; i < part_count && !err; i++)
        if (parts[i].exclude)
            err = npk__fail(-EINVAL, "\"%s\": rows cannot be left out of all scores; parts that are ranges of rows are accepted",
                            npk__array_name(parts[i].array));
    if (!err && q->count > 0) {
        err = prepare(&s, q, 0, q->count, o);
        if (!err && s.rows > 0)
            err = run_search(&s, o, NULL, scores, 0);
    }
    clear(&s);
    return err;
}
