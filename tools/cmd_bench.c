/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_bench.c - `npk bench`: the store against plain file calls that do the same to a plain file beside it.
 *
 * Everything is warm and interleaved (store, plain, store, plain, ...), so that both see the same machine; the median
 * of the repeats counts. Scratch files live in a directory of their own, which goes at the end, also after an
 * interrupt.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "args.h"
#include "output.h"
#include "say.h"
#include "typed_path.h"

#define ROW_BYTES   512u /* 128 float32 */
#define GATHER_ROWS 10000u
#define APPEND_ROWS 100u
#define APPENDS     200u
#define REPEATS_MAX 99u

const cli_option cli_bench_options[] = {
    {"size", "MIB", "size of the scratch array (64)"},
    {"repeats", "N", "times that each measure is taken (5)"},
    {"search", NULL, "searches, against reading the same bytes with as many threads"},
    {NULL, NULL, NULL},
};

typedef struct bench {
    npk_store *store; /* the scratch directory */
    int plain;        /* the plain file */
    uint64_t rows;
    unsigned long repeats;
    unsigned char *buffer; /* rows * ROW_BYTES */
    int64_t *gather;
    npk_array *vectors; /* float32, 128 a row; searches */
    void *map;          /* the plain file; searches */
    int threads;
} bench;

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the measures: each returns 0 or a negative errno ---------------------------------------------------------- */

static int store_read(bench *b)
{
    npk_array *array = NULL;
    int err = npk_array_open(b->store, "array", &array);
    if (err == 0)
        err = npk_read_all(array, b->buffer);
    npk_array_close(&array);
    return err;
}

static int plain_read(bench *b)
{
    uint64_t bytes = b->rows * ROW_BYTES;
    for (uint64_t done = 0; done < bytes;) {
        ssize_t n = pread(b->plain, b->buffer + done, bytes - done, (off_t)done);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (uint64_t)n;
    }
    return 0;
}

static int store_gather(bench *b)
{
    npk_array *array = NULL;
    int err = npk_array_open(b->store, "array", &array);
    if (err == 0)
        err = npk_read_rows(array, b->gather, GATHER_ROWS, b->buffer);
    npk_array_close(&array);
    return err;
}

static int plain_gather(bench *b)
{
    for (size_t i = 0; i < GATHER_ROWS; i++)
        if (pread(b->plain, b->buffer + i * ROW_BYTES, ROW_BYTES, (off_t)b->gather[i] * ROW_BYTES) != ROW_BYTES)
            return -EIO;
    return 0;
}

static int store_append(bench *b)
{
    for (unsigned i = 0; i < APPENDS; i++) {
        int err = npk_append(b->store, "grows", b->buffer, APPEND_ROWS, NULL);
        if (err != 0)
            return err;
    }
    return 0;
}

/* What a program without the store would do: open, append, close. */
static int plain_append(bench *b)
{
    for (unsigned i = 0; i < APPENDS; i++) {
        int fd = openat(npk_store_fd(b->store), "grows.bin", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0)
            return -errno;
        ssize_t n = write(fd, b->buffer, APPEND_ROWS * ROW_BYTES);
        close(fd);
        if (n != APPEND_ROWS * ROW_BYTES)
            return -EIO;
    }
    return 0;
}

static int store_replace(bench *b)
{
    for (size_t i = 0; i + APPEND_ROWS <= GATHER_ROWS; i += APPEND_ROWS) {
        int err = npk_replace_rows(b->store, "array", b->gather + i, APPEND_ROWS, b->buffer);
        if (err != 0)
            return err;
    }
    return 0;
}

static int plain_replace(bench *b)
{
    for (size_t i = 0; i < GATHER_ROWS; i++)
        if (pwrite(b->plain, b->buffer, ROW_BYTES, (off_t)b->gather[i] * ROW_BYTES) != ROW_BYTES)
            return -EIO;
    return 0;
}

/* ---- searches -------------------------------------------------------------------------------------------------- */

#define QUERIES_MOST 100u
#define THREADS_MOST 64

static int search(bench *b, npk_metric metric, uint64_t queries)
{
    npk_hit hits[QUERIES_MOST * 10];
    uint64_t found;
    npk_part part = {.array = b->vectors, .count = UINT64_MAX};
    npk_queries q = {.data = b->buffer, .count = queries, .dtype = npk_array_info(b->vectors)->header.dtype};
    npk_search_options o = {.metric = metric, .k = 10, .flags = NPK_SEARCH_MAP, .threads = (unsigned)b->threads};
    return npk_search(&part, 1, &q, &o, hits, &found);
}

static int search_dot(bench *b)
{
    return search(b, NPK_DOT, 1);
}

static int search_l2(bench *b)
{
    return search(b, NPK_L2, 1);
}

static int search_dot_10(bench *b)
{
    return search(b, NPK_DOT, 10);
}

static int search_dot_100(bench *b)
{
    return search(b, NPK_DOT, 100);
}

struct reader {
    const uint64_t *from;
    uint64_t words;
    volatile uint64_t sum;
};

static void *read_part(void *ctx)
{
    struct reader *r = ctx;
    uint64_t sum[8] = {0};
    for (uint64_t i = 0; i + 8 <= r->words; i += 8)
        for (int j = 0; j < 8; j++)
            sum[j] ^= r->from[i + (unsigned)j];
    r->sum = sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
    return NULL;
}

/* Every byte of the mapped plain file, by as many threads as the search has. */
static int plain_map(bench *b)
{
    struct reader readers[THREADS_MOST];
    pthread_t ids[THREADS_MOST];
    uint64_t words = b->rows * ROW_BYTES / 8 / (unsigned)b->threads;
    int started = 1;
    for (int i = 0; i < b->threads; i++)
        readers[i] = (struct reader){(const uint64_t *)b->map + words * (unsigned)i, words, 0};
    while (started < b->threads && pthread_create(&ids[started], NULL, read_part, &readers[started]) == 0)
        started++;
    read_part(&readers[0]);
    for (int i = 1; i < started; i++)
        pthread_join(ids[i], NULL);
    return started == b->threads ? 0 : -EAGAIN;
}

static const struct measure {
    const char *name;
    int (*store)(bench *b);
    int (*plain)(bench *b);
    double per; /* times are shown for one of so many */
} searches[] =
    {
        {"search, 1 query, dot", search_dot, plain_map, 1},
        {"search, 1 query, l2", search_l2, plain_map, 1},
        {"search, 10 queries, dot", search_dot_10, plain_map, 1},
        {"search, 100 queries, dot", search_dot_100, plain_map, 1},
},
  measures[] = {
      {"read the array", store_read, plain_read, 1},
      {"gather 10000 random rows", store_gather, plain_gather, 1},
      {"append 100 rows", store_append, plain_append, APPENDS},
      {"replace 100 random rows", store_replace, plain_replace, GATHER_ROWS / APPEND_ROWS},
};

/* ---- running them --------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int take(bench *b, int (*run)(bench *b), double *seconds)
{
    double begin = now();
    int err = run(b);
    *seconds = now() - begin;
    return err;
}

static int measure(bench *b, const struct measure *m, double *store_s, double *plain_s)
{
    double store[REPEATS_MAX], plain[REPEATS_MAX], warm;
    int err = take(b, m->store, &warm);
    if (err == 0)
        err = take(b, m->plain, &warm);
    for (unsigned long i = 0; i < b->repeats && err == 0; i++) {
        if (interrupted)
            return -EINTR;
        err = take(b, m->store, &store[i]);
        if (err == 0)
            err = take(b, m->plain, &plain[i]);
    }
    if (err != 0)
        return err;
    qsort(store, b->repeats, sizeof *store, by_value);
    qsort(plain, b->repeats, sizeof *plain, by_value);
    *store_s = store[b->repeats / 2] / m->per;
    *plain_s = plain[b->repeats / 2] / m->per;
    return 0;
}

static int measure_all(const cli_args *args, bench *b)
{
    static const cli_column columns[] = {{"work", "WORK", false},
                                         {"store_us", "STORE us", true},
                                         {"plain_us", "PLAIN us", true},
                                         {"ratio", "RATIO", true}};
    cli_table *table = cli_table_new(args, columns, sizeof columns / sizeof *columns);
    int status = CLI_OK;
    bool vectors = b->vectors != NULL;
    const struct measure *all = vectors ? searches : measures;
    size_t count = vectors ? sizeof searches / sizeof *searches : sizeof measures / sizeof *measures;
    for (size_t i = 0; i < count && status == CLI_OK; i++) {
        double store_s = 0, plain_s = 0;
        int err = measure(b, &all[i], &store_s, &plain_s);
        if (err == -EINTR && interrupted)
            status = cli_fail(NULL, "interrupted");
        else if (err != 0)
            status = cli_fail_engine(all[i].name, err);
        if (status != CLI_OK)
            break;
        cli_table_string(table, all[i].name);
        cli_table_number(table, store_s * 1e6, 1);
        cli_table_number(table, plain_s * 1e6, 1);
        cli_table_number(table, plain_s > 0 ? store_s / plain_s : 0, 3);
    }
    int end = cli_table_end(table);
    return status != CLI_OK ? status : end;
}

static int write_plain(bench *b)
{
    uint64_t bytes = b->rows * ROW_BYTES;
    for (uint64_t done = 0; done < bytes;) {
        ssize_t n = pwrite(b->plain, b->buffer + done, bytes - done, (off_t)done);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (uint64_t)n;
    }
    return 0;
}

static int prepare(bench *b)
{
    b->buffer = malloc(b->rows * ROW_BYTES);
    b->gather = calloc(GATHER_ROWS, sizeof *b->gather);
    if (b->buffer == NULL || b->gather == NULL)
        return -ENOMEM;
    uint64_t random = 0x9e3779b97f4a7c15u; /* the same rows every time: figures of two runs compare */
    for (uint64_t i = 0; i < b->rows * ROW_BYTES / 8; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        memcpy(b->buffer + 8 * i, &random, 8);
        if (i < GATHER_ROWS)
            b->gather[i] = (int64_t)(random % b->rows);
    }
    uint64_t shape[] = {b->rows, ROW_BYTES / 4}, empty[] = {0, ROW_BYTES / 4};
    npk_array_in arrays[] = {
        {.name = "array", .dtype = "uint32", .shape = shape, .ndim = 2, .data = b->buffer},
        {.name = "grows", .dtype = "uint32", .shape = empty, .ndim = 2},
    };
    int err = npk_save(b->store, arrays, 2);
    return err != 0 ? err : write_plain(b);
}

/* Vectors instead of numbers, and the plain file mapped. */
static int prepare_search(bench *b)
{
    float *vectors = (float *)(void *)b->buffer;
    for (uint64_t i = 0; i < b->rows * ROW_BYTES / 4; i++) {
        uint32_t bits;
        memcpy(&bits, &vectors[i], 4);
        vectors[i] = (float)bits / 0x1p31f - 1;
    }
    uint64_t shape[] = {b->rows, ROW_BYTES / 4};
    npk_array_in in = {.name = "vectors", .dtype = "float32", .shape = shape, .ndim = 2, .data = b->buffer};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    b->threads = cores < 1 ? 1 : cores > THREADS_MOST ? THREADS_MOST : (int)cores;
    int err = npk_save(b->store, &in, 1);
    if (err == 0)
        err = write_plain(b);
    if (err == 0)
        err = npk_array_open(b->store, "vectors", &b->vectors);
    if (err != 0)
        return err;
    b->map = mmap(NULL, b->rows * ROW_BYTES, PROT_READ, MAP_SHARED, b->plain, 0);
    if (b->map == MAP_FAILED) {
        b->map = NULL;
        return -errno;
    }
    return 0;
}

/* Remove the scratch files and their directory. */
static void clean_up(bench *b, const char *dir)
{
    if (b->store != NULL) {
        npk_reset(b->store);
        unlinkat(npk_store_fd(b->store), "plain.bin", 0);
        unlinkat(npk_store_fd(b->store), "grows.bin", 0);
        npk_dir_clear(b->store, "");
    }
    npk_store_close(&b->store);
    if (rmdir(dir) != 0)
        cli_note("\"%s\": could not be removed: %s", dir, strerror(errno));
}

static int bench_in(const cli_args *args, const char *dir, unsigned long size_mib, unsigned long repeats)
{
    bench b = {.plain = -1, .rows = (uint64_t)size_mib * (1u << 20) / ROW_BYTES, .repeats = repeats};
    int err = npk_store_open(dir, 0, &b.store);
    int status = err != 0 ? cli_fail_engine(dir, err) : CLI_OK;
    if (status == CLI_OK) {
        b.plain = openat(npk_store_fd(b.store), "plain.bin", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        err = b.plain < 0 ? -errno : prepare(&b);
        if (err == 0 && cli_args_has(args, "search"))
            err = prepare_search(&b);
        status = err != 0 ? cli_fail_engine(dir, err) : measure_all(args, &b);
    }
    npk_array_close(&b.vectors);
    if (b.map != NULL)
        munmap(b.map, b.rows * ROW_BYTES);
    if (b.plain >= 0)
        close(b.plain);
    free(b.buffer);
    free(b.gather);
    clean_up(&b, dir);
    return status;
}

int cli_bench(const cli_args *args)
{
    unsigned long size_mib = 64, repeats = 5;
    int status = cli_args_number(args, "size", 8, 65536, &size_mib);
    if (status == CLI_OK)
        status = cli_args_number(args, "repeats", 1, REPEATS_MAX, &repeats);
    if (status != CLI_OK)
        return status;
    cli_target t;
    status = cli_target_open(args->words[0], CLI_TARGET_DIRECTORY | CLI_TARGET_WRITE, &t);
    if (status != CLI_OK)
        return status;
    char *dir = NULL;
    if (t.mounted)
        status = cli_fail(t.typed, "is in a mount whose store is not yours to open; the store itself is accepted");
    else if (asprintf(&dir, "%s/npk-bench.XXXXXX", t.dir) < 0)
        status = cli_fail(NULL, "%s", strerror(ENOMEM));
    else if (mkdtemp(dir) == NULL)
        status = cli_fail(t.typed, "%s", strerror(errno));
    if (status == CLI_OK) {
        struct sigaction action = {.sa_handler = on_signal};
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
        sigaction(SIGHUP, &action, NULL);
        status = bench_in(args, dir, size_mib, repeats);
    }
    free(dir);
    cli_target_close(&t);
    return status;
}
