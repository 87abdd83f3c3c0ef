/* SPDX-License-Identifier: Apache-2.0 */
/* Truncate, extend, reshape. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "arrays.h"
#include "unit.h"

static void test_truncate(void)
{
    place p = place_begin();
    arrays_make(&p, "x", 100);
    CHECK_EQ(npk_truncate(p.store, "x", 101), -ERANGE);
    CHECK_HAS(npk_error(), "there are 100");
    CHECK_EQ(npk_truncate(p.store, "x", 99), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 99);
    CHECK_EQ(npk_truncate(p.store, "x", 9), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 9);
    CHECK_EQ(arrays_file_bytes(&p, "x.npy"), 128 + 9 * ROW_BYTES);
    CHECK_EQ(npk_truncate(p.store, "x", 0), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 0);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(0, 3), 3, NULL), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 3);
    CHECK_EQ(npk_truncate(p.store, "absent", 0), -ENOENT);
    place_end(&p);
}

/* A mapping through a descriptor that is closed counts as a writer. */
static void test_writer_refuses(void)
{
    place p = place_begin();
    const int64_t shape[] = {-1};
    arrays_make(&p, "x", 10);
    int fd = openat(p.dir, "x.npy", O_RDWR | O_CLOEXEC);
    void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    NEED(map != MAP_FAILED);
    close(fd);
    CHECK_EQ(npk_truncate(p.store, "x", 5), -EBUSY);
    CHECK_HAS(npk_error(), "mapped for writing");
    CHECK_EQ(npk_extend(p.store, "x", 20), -EBUSY);
    CHECK_EQ(npk_reshape(p.store, "x", shape, 1), -EBUSY);
    CHECK_EQ(arrays_whole(&p, "x"), 10);
    munmap(map, 4096);
    CHECK_EQ(npk_truncate(p.store, "x", 5), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 5);
    place_end(&p);
}

/* The new rows are zero and take no blocks. */
static void check_extended(const place *p, const char *name, uint64_t old, uint64_t rows)
{
    npk_array *a = NULL;
    float row[ROW_FLOATS], zero[ROW_FLOATS] = {0};
    NEED(npk_array_open(p->store, name, &a) == 0);
    CHECK_EQ(npk_array_info(a)->rows, rows);
    for (uint64_t i = 0; i < rows; i += i + 1 < old ? 1 : rows / 64 + 1) {
        CHECK_EQ(npk_read_range(a, i, 1, row), 0);
        CHECK(memcmp(row, i < old ? arrays_rows(i, 1) : zero, sizeof(row)) == 0);
    }
    npk_array_close(&a);
}

static void test_extend(void)
{
    place p = place_begin();
    struct stat st;
    arrays_make(&p, "x", 9);
    CHECK_EQ(npk_extend(p.store, "x", 8), -ERANGE);
    CHECK_EQ(npk_extend(p.store, "x", 9), 0);
    CHECK_EQ(npk_extend(p.store, "x", 10), 0);
    check_extended(&p, "x", 9, 10);
    CHECK_EQ(npk_extend(p.store, "x", 10000000), 0);
    check_extended(&p, "x", 9, 10000000);
    NEED(fstatat(p.dir, "x.npy", &st, 0) == 0);
    CHECK(st.st_blocks < 200);
    CHECK_EQ(npk_extend(p.store, "x", UINT64_MAX), -EFBIG);
    CHECK_EQ(npk_extend(p.store, "x", UINT64_C(1) << 61), -EFBIG);
    arrays_make_tight(&p, "t.npy", 9, 0);
    CHECK_EQ(npk_extend(p.store, "t", 100), 0);
    check_extended(&p, "t", 9, 100);
    /* Bytes beyond the rows are rows if that is asked for; a part of one is set aside. */
    arrays_make(&p, "y", 5);
    place_append(&p, "y.npy", arrays_rows(5, 3), 2 * ROW_BYTES + 5);
    CHECK_EQ(npk_extend(p.store, "y", 6), 0);
    CHECK_EQ(arrays_whole(&p, "y"), 6);
    CHECK_EQ(npk_extend(p.store, "y", 9), 0);
    check_extended(&p, "y", 7, 9);
    CHECK_EQ(arrays_file_bytes(&p, "y.npy.tail"), 5);
    place_end(&p);
}

static void check_shape(const place *p, const char *name, uint32_t ndim, uint64_t a, uint64_t b)
{
    npk_info info;
    NEED(npk_stat(p->store, name, &info) == 0);
    CHECK(info.reason == NULL);
    CHECK_EQ(info.header.ndim, ndim);
    CHECK_EQ(info.header.shape[0], a);
    if (ndim > 1)
        CHECK_EQ(info.header.shape[1], b);
    CHECK_EQ(info.tail_bytes, 0);
    npk_info_clear(&info);
}

static void check_data(const place *p, const char *name, uint64_t rows)
{
    npk_array *a = NULL;
    float *data = malloc(rows * ROW_BYTES);
    NEED(data && npk_array_open(p->store, name, &a) == 0);
    CHECK_EQ(npk_array_info(a)->header.data_bytes, rows * ROW_BYTES);
    CHECK_EQ(npk_read_all(a, data), 0);
    CHECK(memcmp(data, arrays_rows(0, rows), rows * ROW_BYTES) == 0);
    npk_array_close(&a);
    free(data);
}

static void test_reshape(void)
{
    place p = place_begin();
    arrays_make(&p, "x", 30);
    const int64_t flat[] = {-1}, wide[] = {3, -1}, back[] = {30, 4}, fewer[] = {20, 4}, more[] = {40, 4},
                  same[] = {-1, 4}, deep[] = {2, 3, 4, 5};
    CHECK_EQ(npk_reshape(p.store, "x", flat, 1), 0);
    check_shape(&p, "x", 1, 120, 0);
    CHECK_EQ(npk_reshape(p.store, "x", wide, 2), 0);
    check_shape(&p, "x", 2, 3, 40);
    check_data(&p, "x", 30);
    CHECK_EQ(npk_reshape(p.store, "x", deep, 4), 0);
    check_shape(&p, "x", 4, 2, 3);
    CHECK_EQ(npk_reshape(p.store, "x", back, 2), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 30);
    CHECK_EQ(npk_reshape(p.store, "x", same, 2), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 30);
    CHECK_EQ(npk_reshape(p.store, "x", fewer, 2), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 20);
    CHECK_EQ(npk_reshape(p.store, "x", more, 2), 0);
    check_extended(&p, "x", 20, 40);
    /* Rows of another size go on being appended and counted. */
    CHECK_EQ(npk_reshape(p.store, "x", flat, 1), 0);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(40, 1), 4, NULL), 0);
    check_shape(&p, "x", 1, 164, 0);
    CHECK_EQ(npk_reshape(p.store, "x", same, 2), 0);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(41, 1), 1, NULL), 0);
    check_shape(&p, "x", 2, 42, 4);
    place_end(&p);
}

static void test_reshape_refused(void)
{
    place p = place_begin();
    arrays_make(&p, "x", 30);
    const int64_t two[] = {-1, -1}, less[] = {7, 17}, negative[] = {-2, 4}, none[] = {7, -1}, zero[] = {0, -1},
                  huge[] = {INT64_MAX, INT64_MAX};
    CHECK_EQ(npk_reshape(p.store, "x", two, 2), -EINVAL);
    CHECK_EQ(npk_reshape(p.store, "x", less, 2), -EINVAL);
    CHECK_HAS(npk_error(), "119 elements, and there are 120");
    CHECK_EQ(npk_reshape(p.store, "x", negative, 2), -EINVAL);
    CHECK_EQ(npk_reshape(p.store, "x", none, 2), -EINVAL);
    CHECK_EQ(npk_reshape(p.store, "x", zero, 2), -EINVAL);
    CHECK_EQ(npk_reshape(p.store, "x", huge, 2), -EINVAL);
    CHECK_EQ(npk_reshape(p.store, "x", NULL, 0), -EINVAL);
    CHECK_EQ(npk_reshape(p.store, "x", huge, 65), -EINVAL);
    CHECK_EQ(npk_reshape(p.store, "absent", less, 2), -ENOENT);
    CHECK_EQ(arrays_whole(&p, "x"), 30);
    place_end(&p);
}

/* Somebody who reads it keeps what he has; a header that fits nowhere is a longer one. */
static void test_reshape_with_reader(void)
{
    place p = place_begin();
    npk_array *a = NULL;
    float rows[30 * ROW_FLOATS];
    arrays_make(&p, "x", 30);
    NEED(npk_array_open(p.store, "x", &a) == 0);
    const int64_t flat[] = {-1};
    CHECK_EQ(npk_reshape(p.store, "x", flat, 1), 0);
    check_shape(&p, "x", 1, 120, 0);
    CHECK_EQ(npk_read_all(a, rows), 0);
    CHECK(memcmp(rows, arrays_rows(0, 30), sizeof(rows)) == 0);
    CHECK_EQ(npk_array_info(a)->header.ndim, 2);
    npk_array_close(&a);
    int64_t deep[60];
    for (int i = 0; i < 60; i++)
        deep[i] = 1;
    deep[59] = 120;
    CHECK_EQ(npk_reshape(p.store, "x", deep, 60), 0);
    check_shape(&p, "x", 60, 1, 1);
    check_data(&p, "x", 30);
    const int64_t back[] = {30, 4};
    CHECK_EQ(npk_reshape(p.store, "x", back, 2), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 30);
    /* A single number has no rows until it is given a shape. */
    const float one = 1;
    const npk_array_in scalar = {.name = "s", .dtype = "f4", .ndim = 0, .data = &one};
    const int64_t first[] = {1};
    CHECK_EQ(npk_save(p.store, &scalar, 1), 0);
    CHECK_EQ(npk_reshape(p.store, "s", first, 1), 0);
    CHECK_EQ(npk_append(p.store, "s", &one, 1, NULL), 0);
    check_shape(&p, "s", 1, 2, 0);
    place_end(&p);
}

/* Without a reader the header is replaced in place, with one by a new file; a session goes on in both. */
static void test_reshape_in_session(void)
{
    for (int reader = 0; reader < 2; reader++) {
        place p = place_begin();
        npk_array *a = NULL;
        struct stat old, new;
        const int64_t flat[] = {-1};
        unit_note("reader %d", reader);
        arrays_make(&p, "x", 30);
        CHECK_EQ(npk_append(p.store, "x", arrays_rows(30, 1), 1, NULL), 0);
        if (reader)
            NEED(npk_array_open(p.store, "x", &a) == 0);
        NEED(fstatat(p.dir, "x.npy", &old, 0) == 0);
        CHECK_EQ(npk_reshape(p.store, "x", flat, 1), 0);
        NEED(fstatat(p.dir, "x.npy", &new, 0) == 0);
        CHECK_EQ(new.st_ino != old.st_ino, reader);
        npk_array_close(&a);
        place_append(&p, "x.npy", arrays_rows(31, 1), sizeof(float)); /* a row is a number now */
        arrays_findings all = arrays_check(&p, "x", 0);
        CHECK_STR(all.rules, "F4 F10 ");
        NEED(npk_array_open(p.store, "x", &a) == 0);
        CHECK_EQ(npk_array_info(a)->rows, 125);
        npk_array_close(&a);
        place_end(&p);
    }
}

/* ---- killed ---------------------------------------------------------------------------------------------------- */

static int do_truncate(npk_store *s, void *ctx)
{
    return npk_truncate(s, "x", *(uint64_t *)ctx);
}

static int do_extend(npk_store *s, void *ctx)
{
    return npk_extend(s, "x", *(uint64_t *)ctx);
}

/* Killed at each call: the old number of rows or the new one, once somebody has looked. */
static void killed(arrays_work *work, uint64_t from, uint64_t to, unsigned pad)
{
    bool done = false;
    for (unsigned n = 1; !done && n < 100; n++) {
        place p = place_begin();
        char plan[32];
        if (pad)
            arrays_make_tight(&p, "x.npy", from, pad);
        else
            arrays_make(&p, "x", from);
        snprintf(plan, sizeof(plan), "kill:%u", n);
        unit_note("%s, %" PRIu64 " -> %" PRIu64, plan, from, to);
        int status = arrays_in_child(&p, plan, work, &to);
        CHECK(status == 0 || status == -SIGKILL);
        done = status == 0;
        npk_info info; /* as a program sees it that knows nothing of us */
        CHECK_EQ(npk_stat(p.store, "x", &info), 0);
        CHECK(info.rows <= (from > to ? from : to));
        CHECK(info.header.data_offset + info.header.data_bytes <= info.file_bytes);
        npk_info_clear(&info);
        CHECK_EQ(npk_append(p.store, "x", NULL, 0, NULL), 0);
        uint64_t rows = place_rows_of(&p, "x.npy");
        CHECK(rows == from || rows == to);
        CHECK(!done || rows == to);
        if (rows == from || to < from)
            CHECK_EQ(arrays_whole(&p, "x"), rows);
        else
            check_extended(&p, "x", from, to);
        place_end(&p);
    }
    CHECK(done);
}

static void test_killed(void)
{
    killed(do_truncate, 1000, 99, 0);
    killed(do_truncate, 1000, 999, 1);
    killed(do_extend, 99, 1000, 0);
    killed(do_extend, 9, 10, 1);
}

static int do_reshape(npk_store *s, void *ctx)
{
    const int64_t shape[] = {-1};
    (void)ctx;
    return npk_reshape(s, "x", shape, 1);
}

static void test_reshape_killed(void)
{
    for (int reader = 0; reader < 2; reader++) {
        bool done = false;
        for (unsigned n = 1; !done && n < 100; n++) {
            place p = place_begin();
            char plan[32];
            arrays_make(&p, "x", 30);
            npk_array *a = NULL;
            if (reader) /* then by a new file */
                NEED(npk_array_open(p.store, "x", &a) == 0);
            snprintf(plan, sizeof(plan), "kill:%u", n);
            unit_note("%s, reader %d", plan, reader);
            int status = arrays_in_child(&p, plan, do_reshape, NULL);
            CHECK(status == 0 || status == -SIGKILL);
            done = status == 0;
            npk_array_close(&a);
            npk_info info;
            CHECK_EQ(npk_stat(p.store, "x", &info), 0);
            uint32_t ndim = info.header.ndim;
            check_shape(&p, "x", ndim, ndim == 1 ? 120 : 30, 4);
            CHECK(ndim == 1 || !done);
            check_data(&p, "x", 30);
            CHECK_EQ(npk_append(p.store, "x", arrays_rows(30, 1), ndim == 1 ? 4 : 1, NULL), 0);
            check_data(&p, "x", 31);
            CHECK(arrays_check(&p, NULL, NPK_CHECK_REPAIR).worst <= NPK_NOTE);
            CHECK_EQ(arrays_check(&p, NULL, 0).worst, -1);
            place_end(&p);
        }
        CHECK(done);
    }
}

int main(void)
{
    int skip = arrays_find_place();
    if (skip)
        return skip;
    RUN(test_truncate);
    RUN(test_writer_refuses);
    RUN(test_extend);
    RUN(test_reshape);
    RUN(test_reshape_refused);
    RUN(test_reshape_with_reader);
    RUN(test_reshape_in_session);
    RUN(test_killed);
    RUN(test_reshape_killed);
    return UNIT_RESULT();
}
