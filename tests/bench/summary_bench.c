/* SPDX-License-Identifier: Apache-2.0 */
/*
 * summary_bench - npk_summarize against reading the same file by as many threads, in one run and in turns.
 *
 * Usage: summary_bench DIR [MIB] [REPEATS]     DIR is a directory for a scratch store; the default is 1024 MiB, 7
 * times. TSV: dtype, summary in s, reading in s (medians), reading / summary: the share of the bandwidth that is
 * reached. Reading is pread of 256 KiB at a time into one buffer per thread, whatever happens to the bytes; of the
 * sizes from 64 KiB to 1 MiB none is faster. The file is in the page cache.
 *
 *   cc -O2 -Istore -Ikernels tests/bench/summary_bench.c build/lib/libnpk.a $(pkg-config --libs libcjson libzstd
 * libxxhash) -lpthread -lm
 */
#define _GNU_SOURCE 1

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "npk.h"

#define THREADS_MOST 8
#define BUFFER       ((size_t)256 << 10)
#define PIECE        (UINT64_C(4) << 20)
#define REPEATS_MOST 99

static int fd;
static uint64_t size;
static _Atomic uint64_t next_piece;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *read_pieces(void *unused)
{
    char *buffer = malloc(BUFFER);
    (void)unused;
    for (uint64_t at; buffer && (at = atomic_fetch_add(&next_piece, PIECE)) < size;)
        for (uint64_t done = 0; done < PIECE; done += BUFFER)
            if (pread(fd, buffer, BUFFER, (off_t)(at + done)) <= 0)
                break;
    free(buffer);
    return NULL;
}

static double read_file(void)
{
    pthread_t threads[THREADS_MOST];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned count = cores > THREADS_MOST ? THREADS_MOST : (unsigned)cores, i;
    double start = now();
    next_piece = 0;
    for (i = 0; i + 1 < count && pthread_create(&threads[i], NULL, read_pieces, NULL) == 0; i++)
        continue;
    read_pieces(NULL);
    while (i-- > 0)
        pthread_join(threads[i], NULL);
    return now() - start;
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof(*values), ascending);
    return values[count / 2];
}

/* Numbers of moderate size in every dtype. */
static void fill(void *data, uint64_t bytes, const char *dtype)
{
    uint64_t state = 88172645463325252u;
    for (uint64_t i = 0; i < bytes / 8; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        uint64_t bits = state;
        if (strcmp(dtype, "float64") == 0)
            bits = (bits & UINT64_C(0x800fffffffffffff)) | UINT64_C(0x3ff0000000000000);
        else if (strcmp(dtype, "float32") == 0)
            bits = (bits & UINT64_C(0x807fffff807fffff)) | UINT64_C(0x3f8000003f800000);
        else if (strcmp(dtype, "float16") == 0)
            bits = (bits & UINT64_C(0x83ff83ff83ff83ff)) | UINT64_C(0x3c003c003c003c00);
        memcpy((char *)data + i * 8, &bits, 8);
    }
}

static int measure(npk_store *s, const char *dir, const char *dtype, uint64_t bytes, unsigned repeats, void *data)
{
    double ours[REPEATS_MOST], native[REPEATS_MOST];
    npk_dtype d;
    char descr[64], path[4096];
    npk_summary sum;
    if (npk_dtype_parse(dtype, &d, descr) != 0)
        return 1;
    const uint64_t shape[2] = {bytes / 512, 512 / d.itemsize};
    const npk_array_in in = {.name = "summary-bench", .dtype = dtype, .shape = shape, .ndim = 2, .data = data};
    fill(data, bytes, dtype);
    if (npk_save(s, &in, 1) != 0)
        return 1;
    snprintf(path, sizeof(path), "%s/summary-bench.npy", dir);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    size = bytes + 128;
    read_file();
    for (unsigned i = 0; i < repeats && fd >= 0; i++) {
        native[i] = read_file();
        double start = now();
        if (npk_summarize(s, "summary-bench", &sum, NULL, NULL) != 0)
            return 1;
        ours[i] = now() - start;
    }
    close(fd);
    double a = median(ours, repeats), b = median(native, repeats);
    printf("%s\t%.4f\t%.4f\t%.2f\n", dtype, a, b, b / a);
    fflush(stdout);
    return npk_remove(s, "summary-bench") != 0;
}

int main(int argc, char **argv)
{
    static const char *const dtypes[] = {"float32", "float64", "float16", "int8",   "uint8", "int16",    "uint16",
                                         "int32",   "uint32",  "int64",   "uint64", "bool",  "complex64"};
    uint64_t bytes = (argc > 2 ? strtoull(argv[2], NULL, 10) : 1024) << 20;
    unsigned repeats = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 7;
    npk_store *s = NULL;
    void *data = malloc(bytes);
    if (argc < 2 || !data || repeats == 0 || repeats > REPEATS_MOST || npk_store_open(argv[1], NPK_CREATE, &s) != 0) {
        fprintf(stderr, "usage: summary_bench DIR [MIB] [REPEATS]; %s\n", npk_error());
        return 2;
    }
    printf("dtype\tsummary_s\tread_s\tshare\n");
    int failed = 0;
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(*dtypes) && !failed; i++)
        failed = measure(s, argv[1], dtypes[i], bytes, repeats, data);
    if (failed)
        fprintf(stderr, "%s\n", npk_error());
    npk_store_close(&s);
    free(data);
    return failed;
}
