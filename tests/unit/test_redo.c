/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that are replaced and changes of several arrays, all or none; records and journals that were not written by us.
 */
#include <stdlib.h>

#include "arrays.h"
#include "journal.h"
#include "lock.h"
#include "redo.h"

#define ROWS 1000

/* Replace every third row by the row of the next number; killed at the plan's call. */
static int replace_thirds(npk_store *s, void *ctx)
{
    int64_t indices[ROWS / 3];
    static float rows[ROWS / 3 * ROW_FLOATS];
    (void)ctx;
    for (unsigned i = 0; i < ROWS / 3; i++) {
        indices[i] = 3 * (int64_t)i;
        memcpy(rows + i * ROW_FLOATS, arrays_rows(3 * i + 1, 1), ROW_BYTES);
    }
    return npk_replace_rows(s, "x", indices, ROWS / 3, rows);
}

/* How many of the thirds are replaced, as the file says, without the engine. */
static int replaced(const place *p)
{
    float row[ROW_FLOATS];
    int n = 0, fd = openat(p->dir, "x.npy", O_RDONLY | O_CLOEXEC);
    NEED(fd >= 0);
    for (unsigned i = 0; i < ROWS / 3; i++) {
        NEED(pread(fd, row, sizeof(row), (off_t)(128 + 3 * i * ROW_BYTES)) == (ssize_t)sizeof(row));
        n += row[0] == (float)(3 * i + 1);
    }
    close(fd);
    return n;
}

static void record_path(char out[96])
{
    char name[64];
    npk__redo_file("x.npy", name);
    snprintf(out, 96, ".npkfs/%s", name);
}

/* A store whose replace was killed in the middle. */
static place interrupted(void)
{
    place p = place_begin();
    arrays_make(&p, "x", ROWS);
    NEED(arrays_in_child(&p, "kill:40", replace_thirds, NULL) == -SIGKILL);
    CHECK(replaced(&p) > 0 && replaced(&p) < ROWS / 3);
    return p;
}

static void test_replace_is_completed(void)
{
    for (int by = 0; by < 4; by++) {
        place p = interrupted();
        npk_array *a = NULL;
        unit_note("by %d", by);
        if (by == 0) {
            CHECK_EQ(npk_array_open(p.store, "x", &a), 0);
            npk_array_close(&a);
        } else if (by == 1) {
            CHECK_EQ(npk_append(p.store, "x", arrays_rows(ROWS, 1), 1, NULL), 0);
        } else if (by == 2) {
            CHECK_EQ(npk_rename(p.store, "x", "y"), 0);
            CHECK_EQ(npk_rename(p.store, "y", "x"), 0);
        } else {
            arrays_findings found = arrays_check(&p, NULL, 0);
            CHECK_HAS(found.rules, "J1 ");
            found = arrays_check(&p, NULL, NPK_CHECK_REPAIR);
            CHECK_HAS(found.rules, "J1+ ");
            CHECK(strstr(arrays_check(&p, NULL, 0).rules, "J1") == NULL);
        }
        CHECK_EQ(replaced(&p), ROWS / 3);
        place_end(&p);
    }
}

static void test_read_only(void)
{
    place p = interrupted();
    npk_store *s = NULL;
    npk_array *a = NULL;
    int before = replaced(&p);
    NEED(npk_store_open(p.path, NPK_READ_ONLY, &s) == 0);
    CHECK_EQ(npk_array_open(s, "x", &a), -EUCLEAN);
    CHECK_HAS(npk_error(), "interrupted");
    CHECK_EQ(replaced(&p), before);
    npk_store_close(&s);
    place_end(&p);
}

static void test_void_records(void)
{
    char path[96];
    record_path(path);
    for (int what = 0; what < 4; what++) {
        place p = interrupted();
        npk_array *a = NULL;
        int before = replaced(&p);
        unit_note("what %d", what);
        if (what == 0) { /* another boot */
            NEED(npk__io_plan_set("boot:5") == 0);
        } else {
            const unsigned char bad = 0xa5;
            const off_t at[3] = {70, 130, 9000}; /* in the header, the extents, the rows */
            int fd = openat(p.dir, path, O_WRONLY);
            NEED(fd >= 0 && pwrite(fd, &bad, 1, at[what - 1]) == 1);
            close(fd);
        }
        CHECK_EQ(npk_array_open(p.store, "x", &a), 0);
        npk__io_plan_set(NULL);
        npk_array_close(&a);
        CHECK_EQ(replaced(&p), before);
        place_end(&p);
    }
}

/* The array was replaced behind our back: its rows are not touched, and what was to be written is kept. */
static void test_another_file(void)
{
    place p = interrupted();
    npk_array *a = NULL;
    char path[96], aside[160];
    record_path(path);
    NEED(renameat(p.dir, "x.npy", p.dir, "old") == 0);
    place q = place_begin();
    arrays_make(&q, "x", ROWS);
    char from[600];
    snprintf(from, sizeof(from), "cp %s/x.npy %s/x.npy", q.path, p.path);
    NEED(system(from) == 0);
    place_end(&q);
    CHECK_EQ(npk_array_open(p.store, "x", &a), 0);
    npk_array_close(&a);
    CHECK_EQ(arrays_whole(&p, "x"), ROWS);
    snprintf(aside, sizeof(aside), ".npkfs/aside.%s.0", path + 7);
    CHECK(place_exists(&p, aside));
    CHECK(!place_exists(&p, path));
    CHECK_HAS(arrays_check(&p, NULL, 0).rules, "F16 ");
    place_end(&p);
}

/* ---- the journal ----------------------------------------------------------------------------------------------- */

static int append_two(npk_store *s, void *ctx)
{
    static float more[8 * ROW_FLOATS];
    (void)ctx;
    memcpy(more, arrays_rows(9, 8), sizeof(more));
    const npk_rows_in in[2] = {{"x", more, 8}, {"y", more, 8}};
    return npk_append_many(s, in, 2);
}

/* Killed when x has its rows and y has not: the number of the call is looked for. */
static place half_appended(void)
{
    for (unsigned n = 1; n < 60; n++) {
        char plan[32];
        place p = place_begin();
        arrays_make(&p, "x", 9);
        arrays_make(&p, "y", 9);
        snprintf(plan, sizeof(plan), "kill:%u", n);
        NEED(arrays_in_child(&p, plan, append_two, NULL) == -SIGKILL);
        if (place_rows_of(&p, "x.npy") == 17 && place_rows_of(&p, "y.npy") == 9)
            return p;
        place_end(&p);
    }
    NEED(!"a call between the two");
    return (place){0};
}

static void test_append_many_goes_back(void)
{
    for (int by = 0; by < 3; by++) {
        place p = half_appended();
        npk_info info;
        unit_note("by %d", by);
        CHECK_HAS(arrays_check(&p, NULL, 0).rules, "J3 ");
        if (by == 0)
            CHECK_EQ(arrays_whole(&p, "y"), 9);
        else if (by == 1)
            CHECK_EQ(npk_replace_range(p.store, "y", 0, 1, arrays_rows(0, 1)), 0);
        else
            CHECK_HAS(arrays_check(&p, NULL, NPK_CHECK_REPAIR).rules, "J3+ ");
        CHECK_EQ(place_rows_of(&p, "x.npy"), 9);
        NEED(npk_stat(p.store, "x", &info) == 0);
        CHECK_EQ(info.tail_bytes, 0);
        npk_info_clear(&info);
        CHECK_EQ(arrays_whole(&p, "x"), 9);
        place_end(&p);
    }
}

static void test_journal_read_only(void)
{
    place p = half_appended();
    npk_store *s = NULL;
    npk_array *a = NULL;
    NEED(npk_store_open(p.path, NPK_READ_ONLY, &s) == 0);
    CHECK_EQ(npk_array_open(s, "x", &a), -EUCLEAN);
    CHECK_HAS(npk_error(), "interrupted");
    npk_store_close(&s);
    CHECK_EQ(place_rows_of(&p, "x.npy"), 17);
    place_end(&p);
}

/* An append that fails takes those before it back. */
static void test_append_many_fails(void)
{
    unsigned failed = 0;
    for (unsigned n = 1; n < 60; n++) {
        char plan[32];
        place p = place_begin();
        arrays_make(&p, "x", 9);
        arrays_make(&p, "y", 9);
        snprintf(plan, sizeof(plan), "fail:%u:ENOSPC", n);
        int err = arrays_in_child(&p, plan, append_two, NULL);
        unit_note("%s: %d", plan, err);
        int64_t want = err == 0 ? 17 : 9;
        CHECK_EQ(arrays_whole(&p, "x"), want);
        CHECK_EQ(arrays_whole(&p, "y"), want);
        failed += err != 0;
        place_end(&p);
    }
    CHECK(failed > 10);
}

/* Each bit of a journal flipped, and each length: refused or as it was; nothing outside the arrays is touched. */
static int count_step(void *ctx, const npk_step *step)
{
    unsigned *steps = ctx;
    CHECK(strstr(step->path, "..") == NULL && step->path[0] != '/');
    ++*steps;
    return 0;
}

static void test_damaged_journals(void)
{
    place p = half_appended();
    uint8_t bytes[2048];
    int fd = openat(p.dir, ".npkfs/journal", O_RDONLY);
    ssize_t n = read(fd, bytes, sizeof(bytes));
    NEED(n > 128 && n < (ssize_t)sizeof(bytes));
    close(fd);
    unsigned steps = 0, bad = 0;
    CHECK_EQ(npk__journal_decode(bytes, (size_t)n, NULL, NULL, count_step, &steps), 0);
    CHECK_EQ(steps, 2);
    for (ssize_t i = 0; i < n * 8; i++) {
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
        bad += npk__journal_decode(bytes, (size_t)n, NULL, NULL, NULL, NULL) == -EINVAL;
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    CHECK_EQ(bad, n * 8);
    for (ssize_t i = 0; i < n; i++)
        CHECK_EQ(npk__journal_decode(bytes, (size_t)i, NULL, NULL, NULL, NULL), -EINVAL);
    place_end(&p);
}

static void test_paths_that_leave(void)
{
    static const char *const bad[] = {
        "../x.npy", "/etc/x.npy", "a/../../x.npy", ".npkfs/lock", "x", "a//b.npy", ".npk/x.npy", ".npkfs/x.npy", ""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        place p = place_begin();
        arrays_make(&p, "x", 9);
        npk_journal j;
        NEED(npk__journal_begin(p.store, NPK_JOURNAL_FORTH, "b", &j) == 0);
        npk_step step = {.type = NPK_STEP_REMOVE, .path = bad[i], .before = {1, 1}};
        npk__journal_add(&j, &step);
        CHECK_EQ(npk__journal_write(&j, false), 0);
        unsigned steps = 0;
        unit_note("%s", bad[i]);
        CHECK_EQ(npk__journal_each(&j, count_step, &steps), -EINVAL);
        CHECK_EQ(steps, 0);
        npk__journal_end(&j);
        CHECK_EQ(npk__journal_finish(p.store), 0);
        CHECK_EQ(arrays_file_bytes(&p, ".npkfs/journal"), 0);
        CHECK_EQ(arrays_whole(&p, "x"), 9);
        place_end(&p);
    }
}

int main(void)
{
    int skip = arrays_find_place();
    if (skip)
        return skip;
    RUN(test_replace_is_completed);
    RUN(test_read_only);
    RUN(test_void_records);
    RUN(test_another_file);
    RUN(test_append_many_goes_back);
    RUN(test_journal_read_only);
    RUN(test_append_many_fails);
    RUN(test_damaged_journals);
    RUN(test_paths_that_leave);
    return UNIT_RESULT();
}
