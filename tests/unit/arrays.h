/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arrays.h - arrays for the unit tests of the engine's operations: rows of four float32 whose first value is their
 * number, and what is in a file now.
 */
#ifndef ARRAYS_H
#define ARRAYS_H

#include "io.h"
#include "place.h"

#define ROW_FLOATS 4
#define ROW_BYTES  (ROW_FLOATS * sizeof(float))
#define MOST_ROWS  4096

/* Most of these tests are about writers that a lease finds. Where leases prove nothing (overlayfs, as in a container)
 * use memory, or skip: the exit status then, else 0. */
static inline int arrays_find_place(void)
{
    for (int i = 0; i < 2; i++) {
        place p = place_begin();
        const char *why;
        bool proven = npk_leases_prove(p.store, &why);
        place_end(&p);
        if (proven)
            return 0;
        if (i > 0 || getenv("NPK_TEST_DIR") || setenv("NPK_TEST_DIR", "/dev/shm", 1) != 0) {
            printf("skipped: leases prove nothing here (%s); set NPK_TEST_DIR to a directory on ext4, xfs, btrfs or "
                   "tmpfs\n",
                   why);
            return 77;
        }
    }
    return 77;
}

/* Rows numbered from `first` on. The buffer is shared by all callers that ask for more than one; a single row stays for
 * a few more calls. */
static inline const float *arrays_rows(uint64_t first, uint64_t count)
{
    static float many[MOST_ROWS * ROW_FLOATS], single[8][ROW_FLOATS];
    static unsigned next;
    NEED(count <= MOST_ROWS);
    float *rows = count == 1 ? single[next++ % 8] : many;
    for (uint64_t i = 0; i < count; i++)
        for (unsigned j = 0; j < ROW_FLOATS; j++)
            rows[i * ROW_FLOATS + j] = (float)(first + i) + (float)j / 8;
    return rows;
}

/* Save an array of rows numbered from 0. */
static inline void arrays_make(const place *p, const char *name, uint64_t rows)
{
    const uint64_t shape[2] = {rows, ROW_FLOATS};
    const npk_array_in in = {.name = name, .dtype = "float32", .shape = shape, .ndim = 2, .data = arrays_rows(0, rows)};
    NEED(npk_save(p->store, &in, 1) == 0);
}

/* An array that says `rows` in a header with `pad` blanks behind the dict and none before the number. */
static inline void arrays_make_tight(const place *p, const char *leaf, uint64_t rows, unsigned pad)
{
    char head[512];
    size_t n = place_header(head, rows, pad);
    int fd = openat(p->dir, leaf, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    NEED(fd >= 0 && write(fd, head, n) == (ssize_t)n);
    NEED(write(fd, arrays_rows(0, rows), rows * ROW_BYTES) == (ssize_t)(rows * ROW_BYTES));
    close(fd);
}

/* Are the array's rows, as its header counts them, numbered from 0 on, and how many are they? -1: not so. */
static inline int64_t arrays_whole(const place *p, const char *name)
{
    npk_array *a = NULL;
    if (npk_array_open(p->store, name, &a) != 0)
        return -1;
    const npk_info *info = npk_array_info(a);
    uint64_t rows = info->rows;
    float *data = malloc(rows * ROW_BYTES + 1);
    int64_t whole = data && info->header.row_bytes == ROW_BYTES && npk_read_all(a, data) == 0 ? (int64_t)rows : -1;
    for (uint64_t i = 0; i < rows && whole >= 0; i++)
        if (memcmp(data + i * ROW_FLOATS, arrays_rows(i, 1), ROW_BYTES) != 0)
            whole = -1;
    free(data);
    npk_array_close(&a);
    return whole;
}

static inline uint64_t arrays_file_bytes(const place *p, const char *leaf)
{
    struct stat st;
    NEED(fstatat(p->dir, leaf, &st, 0) == 0);
    return (uint64_t)st.st_size;
}

/* Run work(ctx) in a child under a plan. Its exit status (the result's negative errno, as a positive number; 0), or
 * minus the signal. */
typedef int arrays_work(npk_store *s, void *ctx);
static inline int arrays_in_child(const place *p, const char *plan, arrays_work *work, void *ctx)
{
    fflush(stdout);
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        npk_store *s;
        if (npk_store_open(p->path, 0, &s) != 0 || npk__io_plan_set(plan) != 0)
            _exit(200);
        int err = work(s, ctx);
        npk__io_plan_set(NULL);
        _exit(-err);
    }
    return place_wait(child);
}

/* What the check says: the rules that were found, in order, as "F3 F10 ", those repaired with a "+". */
typedef struct arrays_findings {
    char rules[256];
    char last[1024];
    int worst;
} arrays_findings;

static inline int arrays_found(void *ctx, const npk_finding *f)
{
    arrays_findings *all = ctx;
    size_t at = strlen(all->rules);
    snprintf(all->rules + at, sizeof(all->rules) - at, "%s%s ", f->rule, f->repaired ? "+" : "");
    snprintf(all->last, sizeof(all->last), "%s", f->sentence);
    if ((int)f->severity > all->worst)
        all->worst = (int)f->severity;
    return 0;
}

static inline arrays_findings arrays_check(const place *p, const char *name, unsigned flags)
{
    arrays_findings all = {.worst = -1};
    CHECK_EQ(npk_check(p->store, name, flags, arrays_found, &all), 0);
    return all;
}

#endif
