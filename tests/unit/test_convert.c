/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays cast to other dtypes: kinds of arrays, deleted rows and names, writers and readers, sessions, what is refused.
 */
#include <sys/mman.h>

#include "arrays.h"

static int cast(const place *p, const char *name, const char *dtype)
{
    return npk_cast(p->store, name, dtype, 0, NULL, NULL);
}

static ino_t inode_of(const place *p, const char *leaf)
{
    struct stat st;
    NEED(fstatat(p->dir, leaf, &st, 0) == 0);
    return st.st_ino;
}

/* The array's shape and dtype, and all of its data as doubles: read with the dtype float64. */
static void check_doubles(const place *p, const char *name, uint32_t ndim, uint64_t rows, const double *want,
                          size_t count)
{
    npk_array *a = NULL;
    double *data = malloc(count * sizeof(*data) + 1);
    NEED(data && npk_array_open(p->store, name, &a) == 0);
    const npk_info *info = npk_array_info(a);
    CHECK_STR(info->header.dtype.name, "float64");
    CHECK_EQ(info->header.ndim, ndim);
    CHECK_EQ(info->header.data_bytes, count * sizeof(*data));
    CHECK_EQ(info->deleted, 0);
    if (ndim > 0)
        CHECK_EQ(info->header.shape[0], rows);
    if (info->header.data_bytes == count * sizeof(*data)) {
        CHECK_EQ(npk_read_all(a, data), 0);
        CHECK(memcmp(data, want, count * sizeof(*data)) == 0);
    }
    npk_array_close(&a);
    free(data);
}

/* Rows of arrays.h from `first` on, as doubles. */
static void fill(double *out, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count * ROW_FLOATS; i++)
        out[i] = (double)arrays_rows(first + i / ROW_FLOATS, 1)[i % ROW_FLOATS];
}

static int see_name(void *ctx, const char *name, uint64_t start, uint64_t stop)
{
    uint64_t *range = ctx;
    CHECK_STR(name, "some");
    range[0] = start;
    range[1] = stop;
    return 0;
}

static void test_kinds(void)
{
    place p = place_begin();
    double want[9 * ROW_FLOATS];
    const int16_t numbers[] = {-3, 7};
    const uint8_t swapped[] = {0xff, 0xfd, 0, 7};
    const uint64_t two = 2, none[2] = {0, 3};
    const npk_array_in in[] = {
        {"scalar", "int16", NULL, 0, numbers}, {"big", ">i2", &two, 1, swapped}, {"none", "int16", none, 2, NULL}};
    NEED(npk_save(p.store, in, 3) == 0);
    arrays_make(&p, "x", 9);
    fill(want, 0, 9);
    CHECK_EQ(cast(&p, "x", "f8"), 0);
    check_doubles(&p, "x", 2, 9, want, 9 * ROW_FLOATS);
    CHECK_EQ(cast(&p, "scalar", "float64"), 0);
    check_doubles(&p, "scalar", 0, 0, (double[]){-3}, 1);
    CHECK_EQ(cast(&p, "big", "float64"), 0);
    check_doubles(&p, "big", 1, 2, (double[]){-3, 7}, 2);
    CHECK_EQ(cast(&p, "none", "float64"), 0);
    check_doubles(&p, "none", 2, 0, (double[]){0}, 0);
    /* Nothing to do leaves the file as it is. */
    ino_t before = inode_of(&p, "x.npy");
    CHECK_EQ(cast(&p, "x", "<f8"), 0);
    CHECK_EQ(inode_of(&p, "x.npy"), before);
    CHECK_EQ(npk_cast(p.store, "x", "int8", NPK_CAST_CHECK, NULL, NULL), 0);
    CHECK_EQ(inode_of(&p, "x.npy"), before);
    CHECK_EQ(arrays_check(&p, NULL, 0).worst, -1);
    place_end(&p);
}

static void test_deleted_and_named(void)
{
    place p = place_begin();
    static double want[3000 * ROW_FLOATS];
    uint64_t range[2] = {0, 0};
    npk_rows odd = {0};
    arrays_make(&p, "x", 3000);
    NEED(npk_rows_parse("1::2", 4, 3000, &odd) == 0 &&
         npk_drop_rows(p.store, "x", &odd, NPK_ANY_GENERATION, NULL) == 0);
    npk_rows_clear(&odd);
    NEED(npk_name_set(p.store, "x", "some", 100, 200) == 0);
    for (uint64_t i = 0; i < 1500; i++)
        fill(want + i * ROW_FLOATS, 2 * i, 1);
    CHECK_EQ(cast(&p, "x", "float64"), 0);
    check_doubles(&p, "x", 2, 1500, want, 1500 * ROW_FLOATS);
    CHECK_EQ(npk_names(p.store, "x", see_name, range), 0);
    CHECK_EQ(range[0], 100);
    CHECK_EQ(range[1], 200);
    /* And with names alone. */
    CHECK_EQ(cast(&p, "x", "float32"), 0);
    CHECK_EQ(cast(&p, "x", "float64"), 0);
    check_doubles(&p, "x", 2, 1500, want, 1500 * ROW_FLOATS);
    range[0] = range[1] = 0;
    CHECK_EQ(npk_names(p.store, "x", see_name, range), 0);
    CHECK_EQ(range[0], 100);
    CHECK_EQ(range[1], 200);
    CHECK_EQ(arrays_check(&p, NULL, 0).worst, -1);
    place_end(&p);
}

/* More than one piece for each thread. */
static void test_large(void)
{
    enum { ROWS = 1500000 };
    place p = place_begin();
    npk_array *a = NULL;
    npk_rows third = {0};
    uint64_t wrong = 0;
    const uint64_t shape[2] = {ROWS, ROW_FLOATS};
    float *data = malloc(ROWS * ROW_BYTES);
    double *got = malloc(ROWS * ROW_FLOATS * sizeof(*got));
    NEED(data && got);
    for (size_t i = 0; i < ROWS * ROW_FLOATS; i++)
        data[i] = (float)i / 8;
    const npk_array_in in = {.name = "x", .dtype = "float32", .shape = shape, .ndim = 2, .data = data};
    NEED(npk_save(p.store, &in, 1) == 0 && npk_rows_parse("::3", 3, ROWS, &third) == 0);
    for (int dropped = 0; dropped < 2; dropped++) {
        if (dropped)
            NEED(npk_drop_rows(p.store, "x", &third, NPK_ANY_GENERATION, NULL) == 0);
        CHECK_EQ(cast(&p, "x", dropped ? "float32" : "float64"), 0);
        CHECK_EQ(cast(&p, "x", "float64"), 0);
        NEED(npk_array_open(p.store, "x", &a) == 0);
        uint64_t rows = npk_array_info(a)->rows;
        CHECK_EQ(rows, dropped ? ROWS / 3 * 2 : ROWS);
        CHECK_EQ(npk_read_all(a, got), 0);
        npk_array_close(&a);
        for (size_t i = 0; i < rows * ROW_FLOATS; i++) {
            size_t row = i / ROW_FLOATS;
            wrong += got[i] != (double)data[(dropped ? row / 2 * 3 + 1 + row % 2 : row) * ROW_FLOATS + i % ROW_FLOATS];
        }
    }
    CHECK_EQ(wrong, 0);
    npk_rows_clear(&third);
    free(data);
    free(got);
    place_end(&p);
}

static void test_others(void)
{
    place p = place_begin();
    npk_array *a = NULL;
    float row[ROW_FLOATS];
    double want[10 * ROW_FLOATS];
    arrays_make(&p, "x", 9);
    ino_t before = inode_of(&p, "x.npy");
    /* A writer, also one that has only a mapping left. */
    int fd = openat(p.dir, "x.npy", O_RDWR | O_CLOEXEC);
    NEED(fd >= 0);
    CHECK_EQ(cast(&p, "x", "float64"), -EBUSY);
    CHECK_HAS(npk_error(), "open or mapped for writing");
    void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    NEED(map != MAP_FAILED);
    close(fd);
    CHECK_EQ(cast(&p, "x", "float64"), -EBUSY);
    munmap(map, 4096);
    NEED(linkat(p.dir, "x.npy", p.dir, "second.npy", 0) == 0);
    CHECK_EQ(cast(&p, "x", "float64"), -EMLINK);
    NEED(unlinkat(p.dir, "second.npy", 0) == 0);
    CHECK_EQ(inode_of(&p, "x.npy"), before);
    /* A reader keeps what he has; a program of a session goes on appending, rows of the new dtype. */
    NEED(npk_array_open(p.store, "x", &a) == 0);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(9, 1), 1, NULL), 0);
    CHECK_EQ(cast(&p, "x", "float64"), 0);
    CHECK_EQ(npk_read_range(a, 8, 1, row), 0);
    CHECK(memcmp(row, arrays_rows(8, 1), sizeof(row)) == 0);
    npk_array_close(&a);
    fill(want, 0, 10);
    check_doubles(&p, "x", 2, 10, want, 10 * ROW_FLOATS);
    place_append(&p, "x.npy", want, ROW_FLOATS * sizeof(double));
    NEED(npk_array_open(p.store, "x", &a) == 0);
    CHECK_EQ(npk_array_info(a)->rows, 11);
    npk_array_close(&a);
    place_end(&p);
}

static int stop_at_once(void *ctx, uint64_t done, uint64_t all)
{
    *(uint64_t *)ctx = all;
    return done > 0;
}

static void test_refused(void)
{
    place p = place_begin();
    uint64_t all = 0;
    const uint64_t three = 3, many[1] = {UINT64_C(1) << 61};
    const npk_array_in text = {.name = "s", .dtype = "S4", .shape = &three, .ndim = 1};
    NEED(npk_save(p.store, &text, 1) == 0);
    arrays_make(&p, "x", 9);
    ino_t before = inode_of(&p, "x.npy");
    CHECK_EQ(cast(&p, "x", "floaty"), -EINVAL);
    CHECK_HAS(npk_error(), "\"floaty\"");
    CHECK_HAS(npk_error(), "complex128 are accepted");
    CHECK_EQ(cast(&p, "x", ""), -EINVAL);
    CHECK_EQ(cast(&p, "x", "U3"), -ENOTSUP);
    CHECK_EQ(cast(&p, "x", ">f8"), -ENOTSUP);
    CHECK_EQ(cast(&p, "x", "f16"), -ENOTSUP);
    CHECK_EQ(cast(&p, "s", "float32"), -ENOTSUP);
    CHECK_HAS(npk_error(), "dtype S4");
    CHECK_EQ(npk_cast(p.store, "s", "float32", NPK_CAST_CHECK, NULL, NULL), -ENOTSUP);
    CHECK_EQ(npk_cast(p.store, "x", "float64", 8, NULL, NULL), -EINVAL);
    CHECK_EQ(cast(&p, "absent", "float64"), -ENOENT);
    CHECK_EQ(npk_cast(p.store, "x", "float64", 0, stop_at_once, &all), -ECANCELED);
    CHECK_EQ(all, 9 * ROW_FLOATS * sizeof(double));
    place_append(&p, "x.npy", "abc", 3);
    CHECK_EQ(cast(&p, "x", "float64"), -EBUSY);
    CHECK_HAS(npk_error(), "3 bytes");
    CHECK_EQ(inode_of(&p, "x.npy"), before);
    /* Bytes that no file could hold: a sparse one that is as large as its header says. */
    const npk_array_in huge = {.name = "huge", .dtype = "u1", .shape = many, .ndim = 1};
    if (npk_save(p.store, &huge, 1) == 0)
        CHECK_EQ(cast(&p, "huge", "complex128"), -EFBIG);
    place_end(&p);
}

int main(void)
{
    int skipped = arrays_find_place();
    if (skipped)
        return skipped;
    RUN(test_kinds);
    RUN(test_deleted_and_named);
    RUN(test_large);
    RUN(test_others);
    RUN(test_refused);
    return UNIT_RESULT();
}
