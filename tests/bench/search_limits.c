/* SPDX-License-Identifier: Apache-2.0 */
/*
 * search_limits.c - what the machine can do, for search_bench.py, which compiles this with -O3 -march=native: reading
 * memory, and multiply-adds on registers, by a number of threads at once. Each function gives seconds.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#if defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

typedef float vector __attribute__((vector_size(64)));
typedef int64_t words __attribute__((vector_size(64), aligned(1), may_alias));

typedef struct job {
    const uint8_t *data;
    size_t bytes;
    double rounds;
    int fd;
    uint8_t *buffer;
    size_t offset;
    volatile int64_t sink;
} job;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double run(void *(*work)(void *), job *jobs, int threads)
{
    pthread_t ids[64];
    double begin = now();
    for (int i = 1; i < threads; i++)
        pthread_create(&ids[i], NULL, work, &jobs[i]);
    work(&jobs[0]);
    for (int i = 1; i < threads; i++)
        pthread_join(ids[i], NULL);
    return now() - begin;
}

static void *read_all(void *ctx)
{
    job *j = ctx;
    words a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i + 256 <= j->bytes; i += 256) {
        a ^= *(const words *)(j->data + i);
        b ^= *(const words *)(j->data + i + 64);
        c ^= *(const words *)(j->data + i + 128);
        d ^= *(const words *)(j->data + i + 192);
    }
    a ^= b ^ c ^ d;
    j->sink = a[0];
    return NULL;
}

/* Each thread reads its part of memory from the begin to the end. */
double limit_read(const uint8_t *data, size_t bytes, int threads)
{
    job jobs[64];
    for (int i = 0; i < threads; i++)
        jobs[i] = (job){.data = data + bytes / (size_t)threads * (size_t)i, .bytes = bytes / (size_t)threads};
    return run(read_all, jobs, threads);
}

static void *read_calls(void *ctx)
{
    job *j = ctx;
    for (size_t done = 0; done < j->bytes;) {
        ssize_t n =
            pread(j->fd, j->buffer, j->bytes - done < 1 << 20 ? j->bytes - done : 1 << 20, (off_t)(j->offset + done));
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return NULL;
}

/* The same by system calls of 1 MiB into a buffer of each thread's own (threads * 1 MiB at `buffers`). */
double limit_pread(int fd, size_t bytes, uint8_t *buffers, int threads)
{
    job jobs[64];
    for (int i = 0; i < threads; i++)
        jobs[i] = (job){.fd = fd,
                        .offset = bytes / (size_t)threads * (size_t)i,
                        .bytes = bytes / (size_t)threads,
                        .buffer = buffers + ((size_t)i << 20)};
    return run(read_calls, jobs, threads);
}

static void *multiply_add(void *ctx)
{
    job *j = ctx;
    vector sum[12], factor = (vector){0} + 0.99f, add = (vector){0} + 1e-3f;
    for (int i = 0; i < 12; i++)
        sum[i] = add;
    for (double r = 0; r < j->rounds; r++)
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++)
            sum[i] = sum[i] * factor + add;
    for (int i = 1; i < 12; i++)
        sum[0] += sum[i];
    j->sink = (int64_t)sum[0][0];
    return NULL;
}

/* Floating-point operations per second of all threads: 32 in each of 12 chains per round. */
double limit_fma(double rounds, int threads)
{
    job jobs[64];
    for (int i = 0; i < threads; i++)
        jobs[i] = (job){.rounds = rounds};
    return rounds * 12 * 32 * threads / run(multiply_add, jobs, threads);
}

static void *multiply_bytes(void *ctx)
{
    job *j = ctx;
#if defined(__AVX512VNNI__)
    __m512i sum[12], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
    for (int i = 0; i < 12; i++)
        sum[i] = _mm512_set1_epi32(i);
    for (double r = 0; r < j->rounds; r++)
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++)
            sum[i] = _mm512_dpbusd_epi32(sum[i], a, b);
    for (int i = 1; i < 12; i++)
        sum[0] = _mm512_add_epi32(sum[0], sum[i]);
    j->sink = _mm512_reduce_add_epi32(sum[0]);
#else
    j->sink = 0;
#endif
    return NULL;
}

/* The same of int8; 0 without the instruction. */
double limit_vnni(double rounds, int threads)
{
    job jobs[64];
    for (int i = 0; i < threads; i++)
        jobs[i] = (job){.rounds = rounds};
#if defined(__AVX512VNNI__)
    return rounds * 12 * 128 * threads / run(multiply_bytes, jobs, threads);
#else
    (void)multiply_bytes;
    return 0;
#endif
}
