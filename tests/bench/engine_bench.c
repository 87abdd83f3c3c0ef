/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_bench.c - what rows cost in the library: gather, replace, append, drop, compact, clean and after deletions.
 *
 *     cc -O2 -Istore tests/bench/engine_bench.c build/lib/libnpk.a -lcjson -lzstd -lxxhash -lpthread -lm -o engine_bench
 *     engine_bench DIR        (a directory with 3 GiB of room; what it makes there is removed)
 *
 * Prints TSV: what, median microseconds, and the ratio to what it is compared with (in the next column) or "-".
 */
#define _GNU_SOURCE 1

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "npk.h"

#define COLUMNS 10u
#define ROW     (COLUMNS * 4u)
#define REPEATS 41

static npk_store *store;
static char dir[4000];

static void must(int err, const char *what)
{
    if (err == 0)
        return;
    fprintf(stderr, "%s: %s\n", what, npk_error());
    exit(1);
}
#define MUST(call) must(call, #call)

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *times, int n)
{
    qsort(times, (size_t)n, sizeof(*times), compare);
    return times[n / 2];
}

static uint64_t random_below(uint64_t n)
{
    static uint64_t seed = 0x9E3779B97F4A7C15u;
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % n;
}

static void print(const char *what, double us, double against, const char *peer)
{
    if (against > 0)
        printf("%s\t%.2f\t%.3f\t%s\n", what, us, us / against, peer);
    else
        printf("%s\t%.2f\t-\t%s\n", what, us, peer);
    fflush(stdout);
}

static void make(const char *name, uint64_t rows, uint64_t columns, const char *dtype)
{
    uint64_t shape[2] = {rows, columns};
    npk_array_in in = {.name = name, .dtype = dtype, .shape = shape, .ndim = columns ? 2 : 1};
    MUST(npk_save(store, &in, 1));
}

/* Real pages, not holes. */
static void fill(const char *name, uint64_t row_bytes, uint64_t rows)
{
    const uint64_t step = 65536;
    uint8_t *buffer = malloc(step * row_bytes);
    for (uint64_t i = 0; i < step * row_bytes; i++)
        buffer[i] = (uint8_t)(i * 7 + i / 251);
    for (uint64_t at = 0; at < rows; at += step)
        MUST(npk_replace_range(store, name, at, rows - at < step ? rows - at : step, buffer));
    free(buffer);
}

static void drop_random(const char *name, uint64_t count)
{
    npk_info info;
    npk_run *runs = malloc(count * sizeof(*runs));
    npk_rows rows = {.runs = runs, .run_count = count, .row_count = count};
    MUST(npk_stat(store, name, &info));
    for (uint64_t i = 0; i < count; i++)
        runs[i] = (npk_run){random_below(info.rows), 1, 1};
    MUST(npk_drop_rows(store, name, &rows, NPK_ANY_GENERATION, NULL));
    free(runs);
}

/* ---- gather ---------------------------------------------------------------------------------------------------- */

static double gather(npk_array *a, size_t count)
{
    static int64_t indices[10000];
    static uint8_t out[10000 * ROW];
    double times[REPEATS];
    uint64_t rows = npk_array_info(a)->rows;
    for (int r = 0; r < REPEATS; r++) {
        for (size_t i = 0; i < count; i++)
            indices[i] = (int64_t)random_below(rows);
        double begin = now_us();
        MUST(npk_read_rows(a, indices, count, out));
        times[r] = now_us() - begin;
    }
    return median(times, REPEATS);
}

/* The same rows by nothing but memcpy from a mapping: no call can be faster. */
static double gather_by_hand(const uint8_t *data, uint64_t rows, size_t count)
{
    static int64_t indices[10000];
    static uint8_t out[10000 * ROW];
    double times[REPEATS];
    for (int r = 0; r < REPEATS; r++) {
        for (size_t i = 0; i < count; i++)
            indices[i] = (int64_t)random_below(rows);
        double begin = now_us();
        for (size_t i = 0; i < count; i++)
            memcpy(out + i * ROW, data + (uint64_t)indices[i] * ROW, ROW);
        times[r] = now_us() - begin;
    }
    return median(times, REPEATS);
}

static void bench_gather(void)
{
    static const size_t counts[] = {100, 10000};
    static const uint64_t drops[] = {0, 2, 100000};
    double clean[2] = {0};
    make("gather", 1000000, COLUMNS, "float32");
    fill("gather", ROW, 1000000);
    for (size_t d = 0; d < 3; d++) {
        npk_array *a;
        const void *data;
        uint64_t rows;
        if (drops[d])
            drop_random("gather", drops[d]);
        MUST(npk_array_open(store, "gather", &a));
        MUST(npk_array_physical_map(a, &data, &rows));
        gather(a, 10000); /* the pages are mapped */
        for (size_t c = 0; c < 2; c++) {
            char what[100];
            double us = gather(a, counts[c]);
            if (d == 0)
                print("gather by hand", gather_by_hand(data, rows, counts[c]), 0, "-");
            snprintf(what, sizeof(what), "gather %zu of 1M, %" PRIu64 " deleted", counts[c], drops[d]);
            print(what, us, clean[c], d ? "clean" : "-");
            if (d == 0)
                clean[c] = us;
        }
        npk_array_close(&a);
    }
}

/* ---- replace, append ------------------------------------------------------------------------------------------- */

static void bench_replace(const char *name, const char *state)
{
    static const size_t counts[] = {1, 100, 10000};
    static int64_t indices[10000];
    static uint8_t rows[10000 * ROW];
    npk_info info;
    char what[100];
    MUST(npk_stat(store, name, &info));
    for (size_t c = 0; c < 3; c++) {
        double range[REPEATS], list[REPEATS];
        for (int r = 0; r < REPEATS; r++) {
            double begin = now_us();
            MUST(npk_replace_range(store, name, random_below(info.rows - counts[c]), counts[c], rows));
            range[r] = now_us() - begin;
            for (size_t i = 0; i < counts[c]; i++)
                indices[i] = (int64_t)random_below(info.rows);
            begin = now_us();
            MUST(npk_replace_rows(store, name, indices, counts[c], rows));
            list[r] = now_us() - begin;
        }
        snprintf(what, sizeof(what), "replace %zu contiguous, %s", counts[c], state);
        print(what, median(range, REPEATS), 0, "-");
        snprintf(what, sizeof(what), "replace %zu scattered, %s", counts[c], state);
        print(what, median(list, REPEATS), 0, "-");
    }
}

static void bench_append(const char *name, const char *state)
{
    static const size_t counts[] = {1, 100, 1000};
    static uint8_t rows[1000 * ROW];
    char what[100];
    for (size_t c = 0; c < 3; c++) {
        double times[REPEATS];
        for (int r = 0; r < REPEATS; r++) {
            double begin = now_us();
            MUST(npk_append(store, name, rows, counts[c], NULL));
            times[r] = now_us() - begin;
        }
        snprintf(what, sizeof(what), "append %zu, %s", counts[c], state);
        print(what, median(times, REPEATS), 0, "-");
    }
}

/* ---- drop ------------------------------------------------------------------------------------------------------ */

static double drop_median(const char *name, size_t count, double *first)
{
    static npk_run runs[10000];
    double times[REPEATS];
    npk_rows rows = {.runs = runs, .run_count = count, .row_count = count};
    for (int r = 0; r < REPEATS; r++) {
        npk_info info;
        MUST(npk_stat(store, name, &info));
        for (size_t i = 0; i < count; i++)
            runs[i] = (npk_run){random_below(info.rows), 1, 1};
        double begin = now_us();
        MUST(npk_drop_rows(store, name, &rows, NPK_ANY_GENERATION, NULL));
        times[r] = now_us() - begin;
    }
    *first = times[0];
    return median(times, REPEATS);
}

static void bench_drop(void)
{
    static const size_t counts[] = {1, 100, 10000};
    for (size_t c = 0; c < 3; c++) {
        double small = 0, first;
        char what[100];
        for (uint64_t rows = 1000000; rows <= 100000000; rows *= 10) {
            make("drop", rows, 0, "float32");
            fill("drop", 4, rows < 10000000 ? rows : 10000000);
            double us = drop_median("drop", counts[c], &first);
            snprintf(what, sizeof(what), "drop %zu of %" PRIu64 "M (first %.0f)", counts[c], rows / 1000000, first);
            print(what, us, small, small > 0 ? "1M" : "-");
            if (small == 0)
                small = us;
            MUST(npk_remove(store, "drop"));
        }
    }
}

/* ---- compact --------------------------------------------------------------------------------------------------- */

static double copy_plainly(const char *from, const char *to)
{
    char command[13000];
    snprintf(command, sizeof(command), "cp --reflink=never '%s' '%s' && sync '%s'", from, to, to);
    double begin = now_us();
    if (system(command) != 0)
        exit(1);
    return now_us() - begin;
}

/* Every tenth row on average, or the first tenth of them. */
static void bench_compact(uint64_t row_bytes, bool first_ones)
{
    double ours[3], theirs[3];
    char a[4200], b[4200], what[100];
    uint64_t rows = (UINT64_C(1) << 30) / row_bytes;
    for (int r = 0; r < 3; r++) {
        make("compact", rows, row_bytes / 4, "float32");
        fill("compact", row_bytes, rows);
        if (first_ones) {
            npk_run run = {0, rows / 10, 1};
            npk_rows gone = {.runs = &run, .run_count = 1, .row_count = rows / 10};
            MUST(npk_drop_rows(store, "compact", &gone, NPK_ANY_GENERATION, NULL));
        } else {
            drop_random("compact", rows / 10);
        }
        MUST(npk_sync(store, NULL));
        double begin = now_us();
        MUST(npk_compact(store, "compact", 0, NULL, NULL));
        ours[r] = now_us() - begin;
        snprintf(a, sizeof(a), "%s/compact.npy", dir);
        snprintf(b, sizeof(b), "%s/copy.npy", dir);
        theirs[r] = copy_plainly(a, b);
        unlink(b);
        MUST(npk_remove(store, "compact"));
    }
    snprintf(what, sizeof(what), "compact 1 GiB, %s 10 %% of %" PRIu64 "-byte rows deleted", first_ones ? "the first" : "any",
             row_bytes);
    print(what, median(ours, 3), median(theirs, 3), "cp + sync");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "engine_bench DIR [gather|replace|append|drop|compact]\n");
        return 2;
    }
    const char *only = argc > 2 ? argv[2] : NULL;
    snprintf(dir, sizeof(dir), "%s/engine_bench.%d", argv[1], (int)getpid());
    MUST(npk_store_open(dir, NPK_CREATE, &store));
    printf("what\tus\tratio\tagainst\n");
    if (!only || strcmp(only, "gather") == 0)
        bench_gather();
    if (!only || strcmp(only, "replace") == 0 || strcmp(only, "append") == 0) {
        make("rows", 1000000, COLUMNS, "float32");
        fill("rows", ROW, 1000000);
        bench_replace("rows", "clean");
        bench_append("rows", "clean");
        drop_random("rows", 100000);
        bench_replace("rows", "100K deleted");
        bench_append("rows", "100K deleted");
    }
    if (!only || strcmp(only, "drop") == 0)
        bench_drop();
    if (!only || strcmp(only, "compact") == 0) {
        bench_compact(512, false);
        bench_compact(4096, false);
        bench_compact(4096, true);
    }
    MUST(npk_reset(store));
    npk_store_close(&store);
    rmdir(dir);
    return 0;
}
