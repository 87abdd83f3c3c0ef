/* SPDX-License-Identifier: Apache-2.0 */
/* Clones: kinds of arrays, deleted rows, what is refused, a full disk, writers meanwhile. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "arrays.h"

static void put(const place *p, const char *leaf, const char *descr, bool fortran, const uint64_t *shape, uint32_t ndim,
                const void *data, size_t bytes)
{
    char head[512];
    size_t n;
    NEED(npk_header_format(descr, fortran, shape, ndim, head, sizeof(head), &n) == 0);
    int fd = openat(p->dir, leaf, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    NEED(fd >= 0 && write(fd, head, n) == (ssize_t)n && write(fd, data, bytes) == (ssize_t)bytes);
    close(fd);
}

static bool same_files(const place *p, const char *a, const char *b)
{
    char one[4096], two[4096];
    int fa = openat(p->dir, a, O_RDONLY | O_CLOEXEC), fb = openat(p->dir, b, O_RDONLY | O_CLOEXEC);
    NEED(fa >= 0);
    ssize_t na = read(fa, one, sizeof(one)), nb = fb < 0 ? -1 : read(fb, two, sizeof(two));
    close(fa);
    if (fb >= 0)
        close(fb);
    return na == nb && memcmp(one, two, (size_t)na) == 0;
}

static void test_whole(void)
{
    place p = place_begin();
    const uint64_t shape[2] = {3, 2};
    const double data[6] = {0, 1, 2, 3, 4, 5};
    put(&p, "c.npy", "'>f8'", false, shape, 2, data, sizeof(data));
    put(&p, "f.npy", "'<f8'", true, shape, 2, data, sizeof(data));
    put(&p, "s.npy", "'<f8'", false, NULL, 0, data, sizeof(double));
    put(&p, "u.npy", "'<U4'", false, shape, 1, data, 48);
    put(&p, "e.npy", "'<f8'", false, (uint64_t[]){0, 2}, 2, data, 0);
    static const char *const names[] = {"c", "f", "s", "u", "e"};
    for (unsigned i = 0; i < 5; i++) {
        char to[32], leaf[32], to_leaf[64];
        snprintf(to, sizeof(to), "group/deep/%s", names[i]);
        snprintf(leaf, sizeof(leaf), "%s.npy", names[i]);
        snprintf(to_leaf, sizeof(to_leaf), "%s.npy", to);
        CHECK_EQ(npk_clone(p.store, names[i], to), 0);
        CHECK(same_files(&p, leaf, to_leaf));
    }
    place_end(&p);
}

static void test_live_rows(void)
{
    place p = place_begin();
    arrays_make(&p, "x", 1000);
    npk_rows rows = {0};
    NEED(npk_rows_parse("0,500:600,999", 13, 1000, &rows) == 0);
    NEED(npk_drop_rows(p.store, "x", &rows, NPK_ANY_GENERATION, NULL) == 0);
    npk_rows_clear(&rows);
    CHECK_EQ(npk_clone(p.store, "x", "y"), 0);
    float first[ROW_FLOATS];
    npk_array *a;
    NEED(npk_array_open(p.store, "y", &a) == 0);
    CHECK_EQ(npk_array_info(a)->rows, 898);
    CHECK_EQ(npk_array_info(a)->physical_rows, 898);
    NEED(npk_read_range(a, 499, 1, first) == 0);
    CHECK(memcmp(first, arrays_rows(600, 1), ROW_BYTES) == 0);
    npk_array_close(&a);
    CHECK_EQ(npk_append(p.store, "y", arrays_rows(7, 1), 1, NULL), 0);
    npk_info info;
    NEED(npk_stat(p.store, "x", &info) == 0);
    CHECK_EQ(info.rows, 898);
    CHECK_EQ(info.deleted, 102);
    npk_info_clear(&info);
    place_end(&p);
}

static void test_refused(void)
{
    place p = place_begin();
    bool there = true;
    arrays_make(&p, "x", 10);
    arrays_make(&p, "y", 20);
    CHECK_EQ(npk_clone(p.store, "x", "y"), -EEXIST);
    CHECK_EQ(npk_clone(p.store, "x", "x"), -EEXIST);
    CHECK_EQ(npk_clone(p.store, "none", "z"), -ENOENT);
    CHECK_EQ(npk_clone(p.store, "x", "../z"), -EINVAL);
    put(&p, "o.npy", "'|O'", false, (uint64_t[]){1}, 1, "pickle", 6);
    CHECK_EQ(npk_clone(p.store, "o", "new/o"), -ENOTSUP);
    put(&p, "short.npy", "'<f8'", true, (uint64_t[]){4, 4}, 2, "12345678", 8);
    CHECK_EQ(npk_clone(p.store, "short", "s"), -EINVAL);
    CHECK_EQ(npk_exists(p.store, "s", &there), 0);
    CHECK(!there);
    CHECK_EQ(arrays_whole(&p, "y"), 20);
    npk_store *read_only;
    NEED(npk_store_open(p.path, NPK_READ_ONLY, &read_only) == 0);
    CHECK_EQ(npk_clone(read_only, "x", "z"), -EROFS);
    npk_store_close(&read_only);
    place_end(&p);
}

static int clone_x(npk_store *s, void *ctx)
{
    return npk_clone(s, "x", ctx);
}

/* A full disk at any call leaves the array that was, no new name, and no temporary file that stays in the way. */
static void test_disk_full(void)
{
    place p = place_begin();
    arrays_make(&p, "x", 1000);
    unsigned failed = 0;
    for (unsigned call = 1; call < 60; call++) {
        char plan[48], to[16];
        bool there = true;
        snprintf(plan, sizeof(plan), "fail:%u+:ENOSPC", call);
        snprintf(to, sizeof(to), "y%u", call);
        int err = arrays_in_child(&p, plan, clone_x, to);
        NEED(npk_exists(p.store, to, &there) == 0);
        CHECK(err == 0 ? there : !there);
        if (there)
            CHECK_EQ(arrays_whole(&p, to), 1000);
        failed += err == ENOSPC;
        CHECK_EQ(arrays_whole(&p, "x"), 1000);
    }
    CHECK(failed > 2);
    place_end(&p);
}

/* ---- writers meanwhile ------------------------------------------------------------------------------------------- */

#define MANY 60000u /* rows */

static float generation[MANY * ROW_FLOATS];
static atomic_int written; /* rounds of the writer that have begun */
static atomic_bool stop;

static void fill_generation(float value)
{
    for (size_t i = 0; i < MANY * ROW_FLOATS; i++)
        generation[i] = value;
}

static void make_many(const place *p)
{
    const uint64_t shape[2] = {MANY, ROW_FLOATS};
    const npk_array_in in = {.name = "x", .dtype = "float32", .shape = shape, .ndim = 2, .data = generation};
    fill_generation(0);
    NEED(npk_save(p->store, &in, 1) == 0);
}

/* All rows at once become of the next generation. */
static void *replace_all(void *arg)
{
    for (int g = 1; !stop; g++) {
        fill_generation((float)g);
        written = g;
        if (npk_replace_range(arg, "x", 0, MANY, generation) != 0)
            return (void *)1;
    }
    return NULL;
}

static float *load(const place *p, const char *name, uint64_t *rows)
{
    npk_array *a = NULL;
    NEED(npk_array_open(p->store, name, &a) == 0);
    *rows = npk_array_info(a)->rows;
    float *data = malloc(*rows * ROW_BYTES + 1);
    NEED(data && npk_read_all(a, data) == 0);
    npk_array_close(&a);
    return data;
}

static void test_library_writes(void)
{
    place p = place_begin();
    pthread_t thread;
    void *failed;
    unsigned mixed = 0;
    make_many(&p);
    written = 0;
    stop = false;
    NEED(pthread_create(&thread, NULL, replace_all, p.store) == 0);
    for (int i = 0; i < 30; i++) {
        char name[16];
        uint64_t rows;
        snprintf(name, sizeof(name), "y%d", i);
        CHECK_EQ(npk_clone(p.store, "x", name), 0);
        float *data = load(&p, name, &rows);
        CHECK_EQ(rows, MANY);
        for (size_t k = 0; k < rows * ROW_FLOATS; k++)
            mixed += data[k] != data[0];
        free(data);
        NEED(npk_remove(p.store, name) == 0);
    }
    stop = true;
    pthread_join(thread, &failed);
    CHECK(failed == NULL);
    CHECK(written > 1);
    CHECK_EQ(mixed, 0);
    place_end(&p);
}

/* A program that knows of no lock writes the first row, then the last, then the first with the next number. */
static void *write_ends(void *arg)
{
    char *map = arg;
    for (int g = 1; !stop; g++) {
        float value = (float)g;
        atomic_thread_fence(memory_order_seq_cst);
        memcpy(map + 128, &value, sizeof(value));
        atomic_thread_fence(memory_order_seq_cst);
        memcpy(map + 128 + (MANY - 1) * ROW_BYTES, &value, sizeof(value));
        written = g;
        for (unsigned i = 0; i < 1u << g % 20 && !stop; i++) /* of all speeds */
            atomic_thread_fence(memory_order_seq_cst);
    }
    return NULL;
}

static void test_program_writes(void)
{
    place p = place_begin();
    pthread_t thread;
    unsigned cloned = 0;
    make_many(&p);
    int fd = openat(p.dir, "x.npy", O_RDWR | O_CLOEXEC);
    NEED(fd >= 0 && arrays_file_bytes(&p, "x.npy") == 128 + MANY * ROW_BYTES);
    char *map = mmap(NULL, 128 + MANY * ROW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    NEED(map != MAP_FAILED);
    close(fd);
    /* One that does nothing is no obstacle. */
    CHECK_EQ(npk_clone(p.store, "x", "quiet"), 0);
    written = 0;
    stop = false;
    NEED(pthread_create(&thread, NULL, write_ends, map) == 0);
    for (int i = 0; i < 30; i++) {
        char name[16];
        uint64_t rows;
        snprintf(name, sizeof(name), "y%d", i);
        int err = npk_clone(p.store, "x", name);
        CHECK(err == 0 || err == -EBUSY);
        if (err) {
            CHECK_HAS(npk_error(), "programs write to it");
            continue;
        }
        float *data = load(&p, name, &rows);
        float first = data[0], last = data[(MANY - 1) * ROW_FLOATS];
        CHECK(first == last || first == last + 1);
        free(data);
        cloned++;
        NEED(npk_remove(p.store, name) == 0);
    }
    stop = true;
    pthread_join(thread, NULL);
    munmap(map, 128 + MANY * ROW_BYTES);
    CHECK(written > 1);
    printf("     %u of 30 clones of an array that is written all the time\n", cloned);
    place_end(&p);
}

/* Rows that are larger than the memory that there is: one of 64 MiB, in a process that may have little more. */
static int __attribute__((unused)) clone_in_little_memory(npk_store *s, void *ctx)
{
    const struct rlimit few = {*(rlim_t *)ctx, *(rlim_t *)ctx};
    if (setrlimit(RLIMIT_AS, &few) != 0)
        return -201;
    return npk_clone(s, "x", "y");
}

static void test_large_rows(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* which take address space without end */
    place p = place_begin();
    npk_info info;
    char line[256];
    rlim_t limit = 0;
    const uint64_t shape[2] = {4, UINT64_C(64) << 20};
    const npk_array_in in = {.name = "x", .dtype = "u1", .shape = shape, .ndim = 2};
    npk_rows one = {0};
    NEED(npk_save(p.store, &in, 1) == 0 && npk_rows_parse("1", 1, 4, &one) == 0);
    NEED(npk_drop_rows(p.store, "x", &one, NPK_ANY_GENERATION, NULL) == 0);
    npk_rows_clear(&one);
    FILE *f = fopen("/proc/self/status", "r");
    NEED(f != NULL);
    while (fgets(line, sizeof(line), f))
        if (strncmp(line, "VmSize:", 7) == 0)
            limit = (rlim_t)strtoull(line + 7, NULL, 10) * 1024 + (UINT64_C(48) << 20);
    fclose(f);
    NEED(limit > 0);
    CHECK_EQ(arrays_in_child(&p, NULL, clone_in_little_memory, &limit), 0);
    NEED(npk_stat(p.store, "y", &info) == 0);
    CHECK_EQ(info.rows, 3);
    npk_info_clear(&info);
    place_end(&p);
#else
    CHECK(true);
#endif
}

int main(void)
{
    RUN(test_library_writes);
    RUN(test_program_writes);
    RUN(test_large_rows);
    RUN(test_whole);
    RUN(test_live_rows);
    RUN(test_refused);
    RUN(test_disk_full);
    return UNIT_RESULT();
}
