/* SPDX-License-Identifier: Apache-2.0 */
/* Batches: what is seen inside and outside, who wins, what is left of one that ends in another way. */
#include <pthread.h>
#include <stdlib.h>

#include "arrays.h"
#include "batch.h"
#include "step.h"

static int save_in(npk_batch *b, const char *name, uint64_t rows)
{
    const uint64_t shape[2] = {rows, ROW_FLOATS};
    const npk_array_in in = {.name = name, .dtype = "float32", .shape = shape, .ndim = 2, .data = arrays_rows(0, rows)};
    return npk_batch_save(b, &in, 1);
}

/* The first value of a row in the batch; -1: it cannot be read. */
static float row_in(npk_batch *b, const char *name, int64_t index)
{
    float row[ROW_FLOATS];
    return npk_batch_read_rows(b, name, &index, 1, row) == 0 ? row[0] : -1;
}

static int64_t rows_in(npk_batch *b, const char *name)
{
    npk_info info;
    int err = npk_batch_stat(b, name, &info);
    if (err)
        return err;
    int64_t rows = (int64_t)info.rows;
    npk_info_clear(&info);
    return rows;
}

static float row_of(const place *p, const char *name, int64_t index)
{
    npk_array *a = NULL;
    float row[ROW_FLOATS] = {-1};
    if (npk_array_open(p->store, name, &a) == 0)
        (void)npk_read_rows(a, &index, 1, row);
    npk_array_close(&a);
    return row[0];
}

static npk_batch *begin(const place *p, const char *id, unsigned flags)
{
    npk_batch *b = NULL;
    NEED(npk_batch_begin(p->store, id, flags, &b) == 0);
    return b;
}

static void test_inside_and_outside(void)
{
    place p = place_begin();
    uint64_t first = 0;
    const int64_t picked[3] = {-1, 4, 4};
    float rows[3 * ROW_FLOATS];
    arrays_make(&p, "x", 100);
    arrays_make(&p, "y", 9);
    npk_batch *b = begin(&p, "one", 0);
    CHECK_STR(npk_batch_id(b), "one");
    for (unsigned i = 0; i < 3; i++)
        memcpy(rows + i * ROW_FLOATS, arrays_rows(1000 + i, 1), ROW_BYTES);
    CHECK_EQ(npk_batch_replace_rows(b, "x", picked, 3, rows), 0);
    CHECK_EQ(npk_batch_append(b, "x", arrays_rows(100, 5), 5, &first), 0);
    CHECK_EQ(first, 100);
    CHECK_EQ(npk_batch_replace_range(b, "x", 98, 4, arrays_rows(2000, 4)), 0);
    CHECK_EQ(save_in(b, "new/z", 7), 0);
    CHECK_EQ(npk_batch_append(b, "new/z", arrays_rows(7, 2), 2, &first), 0);
    CHECK_EQ(first, 7);
    CHECK_EQ(npk_batch_remove(b, "y"), 0);

    CHECK_EQ(rows_in(b, "x"), 105);
    CHECK_EQ(row_in(b, "x", 4), 1002);   /* the last of duplicates */
    CHECK_EQ(row_in(b, "x", 99), 2001);  /* replaced twice */
    CHECK_EQ(row_in(b, "x", 101), 2003); /* appended, then replaced */
    CHECK_EQ(row_in(b, "x", -1), 104);   /* indices mean the batch's state */
    CHECK_EQ(row_in(b, "x", 5), 5);
    CHECK_EQ(row_in(b, "new/z", 8), 8);
    CHECK_EQ(rows_in(b, "y"), -ENOENT);
    CHECK_EQ(npk_batch_read_range(b, "x", 100, 6, rows), -ERANGE);

    CHECK_EQ(arrays_whole(&p, "x"), 100);
    CHECK_EQ(arrays_whole(&p, "y"), 9);
    CHECK_EQ(row_of(&p, "new/z", 0), -1);

    CHECK_EQ(npk_batch_commit(&b), 0);
    CHECK(b == NULL);
    CHECK_EQ(row_of(&p, "x", 4), 1002);
    CHECK_EQ(row_of(&p, "x", 101), 2003);
    CHECK_EQ(row_of(&p, "x", -1), 104);
    CHECK_EQ(place_rows_of(&p, "x.npy"), 105);
    CHECK_EQ(arrays_whole(&p, "new/z"), 9);
    CHECK_EQ(row_of(&p, "y", 0), -1);
    CHECK(!place_exists(&p, ".npkfs/batch"));
    CHECK_EQ(arrays_file_bytes(&p, ".npkfs/journal"), 0);
    place_end(&p);
}

/* Rows that are dropped in a batch, and arrays from which rows were deleted before. */
static void test_dropped_rows(void)
{
    place p = place_begin();
    npk_rows rows = {0};
    uint64_t dropped = 0;
    const int64_t first[3] = {0, 1, 0}, last[1] = {9};
    arrays_make(&p, "x", 10);
    arrays_make(&p, "seen", 10);
    NEED(npk_rows_from_indices(first, 3, 10, &rows) == 0);
    NEED(npk_drop_rows(p.store, "seen", &rows, NPK_ANY_GENERATION, NULL) == 0);

    npk_batch *b = begin(&p, NULL, 0);
    CHECK_EQ(npk_batch_replace_range(b, "x", 2, 1, arrays_rows(50, 1)), 0);
    CHECK_EQ(npk_batch_drop_rows(b, "x", &rows, &dropped), 0);
    CHECK_EQ(dropped, 2);
    CHECK_EQ(rows_in(b, "x"), 8);
    CHECK_EQ(row_in(b, "x", 0), 50);
    CHECK_EQ(npk_batch_append(b, "x", arrays_rows(60, 1), 1, NULL), 0);
    CHECK_EQ(row_in(b, "x", -1), 60);
    npk_rows_clear(&rows);
    NEED(npk_rows_from_indices(last, 1, 10, &rows) == 0);
    CHECK_EQ(npk_batch_drop_rows(b, "x", &rows, NULL), -ERANGE);

    CHECK_EQ(rows_in(b, "seen"), 8);
    CHECK_EQ(row_in(b, "seen", 0), 2);
    CHECK_EQ(npk_batch_append(b, "seen", arrays_rows(10, 1), 1, NULL), 0);
    CHECK_EQ(row_in(b, "seen", 8), 10);
    CHECK_EQ(row_of(&p, "seen", 0), 2);
    CHECK_EQ(arrays_whole(&p, "x"), 10);
    CHECK_EQ(npk_batch_commit(&b), 0);
    CHECK_EQ(row_of(&p, "x", 0), 50);
    CHECK_EQ(row_of(&p, "x", 8), 60);
    CHECK_EQ(row_of(&p, "x", 9), -1);
    CHECK_EQ(row_of(&p, "seen", 0), 2);
    CHECK_EQ(row_of(&p, "seen", 8), 10);
    CHECK(arrays_check(&p, NULL, 0).worst <= NPK_NOTE);

    b = begin(&p, NULL, 0); /* a drop outside makes the batch too late */
    NEED(row_in(b, "seen", 0) == 2);
    npk_rows_clear(&rows);
    NEED(npk_rows_from_indices(first, 1, 9, &rows) == 0);
    NEED(npk_drop_rows(p.store, "seen", &rows, NPK_ANY_GENERATION, NULL) == 0);
    NEED(save_in(b, "new", 2) == 0);
    CHECK_EQ(npk_batch_commit(&b), -ESTALE);
    CHECK_HAS(npk_error(), "deleted");
    npk_batch_close(&b);
    npk_rows_clear(&rows);
    place_end(&p);
}

/* The file's bytes inside are those that the commit makes of it. */
static void test_file_inside(void)
{
    place p = place_begin();
    uint8_t inside[8192], after[8192];
    arrays_make(&p, "x", 99);
    npk_batch *b = begin(&p, NULL, 0);
    NEED(npk_batch_append(b, "x", arrays_rows(99, 3), 3, NULL) == 0);
    ssize_t n = npk_batch_read_file(b, "x", 0, inside, sizeof(inside));
    CHECK_EQ(npk_batch_read_file(b, "x", 100, after, 60), 60);
    CHECK_EQ(memcmp(inside + 100, after, 60), 0);
    NEED(npk_batch_commit(&b) == 0);
    int fd = openat(p.dir, "x.npy", O_RDONLY);
    CHECK_EQ(read(fd, after, sizeof(after)), n);
    CHECK_EQ(memcmp(inside, after, (size_t)n), 0);
    close(fd);
    place_end(&p);
}

static void test_header_without_room(void)
{
    place p = place_begin();
    arrays_make_tight(&p, "x.npy", 9, 0);
    npk_batch *b = begin(&p, NULL, 0);
    CHECK_EQ(npk_batch_append(b, "x", arrays_rows(9, 2), 2, NULL), 0);
    CHECK_EQ(rows_in(b, "x"), 11);
    CHECK_EQ(row_in(b, "x", 10), 10);
    CHECK_EQ(row_in(b, "x", 3), 3);
    CHECK_EQ(npk_batch_commit(&b), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 11);
    place_end(&p);
}

static void test_refused(void)
{
    place p = place_begin();
    npk_batch *b = NULL;
    CHECK_EQ(npk_batch_begin(p.store, "../x", 0, &b), -EINVAL);
    CHECK_EQ(npk_batch_begin(p.store, ".x", 0, &b), -EINVAL);
    CHECK_EQ(npk_batch_begin(p.store, "x/y", 0, &b), -EINVAL);
    CHECK_EQ(npk_batch_begin(p.store, "x", 64, &b), -EINVAL);
    CHECK_EQ(npk_batch_open(p.store, "none", &b), -ENOENT);
    arrays_make(&p, "x", 9);
    b = begin(&p, "b", 0);
    npk_batch *again = NULL;
    CHECK_EQ(npk_batch_begin(p.store, "b", 0, &again), -EEXIST);
    CHECK_EQ(npk_batch_append(b, "none", arrays_rows(0, 1), 1, NULL), -ENOENT);
    CHECK_EQ(npk_batch_remove(b, "none"), -ENOENT);
    CHECK_EQ(npk_batch_append(b, "../x", arrays_rows(0, 1), 1, NULL), -EINVAL);
    CHECK_EQ(npk_batch_replace_range(b, "x", 8, 2, arrays_rows(0, 2)), -ERANGE);
    const int64_t outside = -10;
    CHECK_EQ(npk_batch_replace_rows(b, "x", &outside, 1, arrays_rows(0, 1)), -ERANGE);
    CHECK_EQ(npk_batch_commit(&b), 0); /* nothing was changed in it */
    CHECK_EQ(arrays_whole(&p, "x"), 9);
    npk_store *ro = NULL;
    NEED(npk_store_open(p.path, NPK_READ_ONLY, &ro) == 0);
    CHECK_EQ(npk_batch_begin(ro, "b", 0, &b), -EROFS);
    npk_store_close(&ro);
    place_end(&p);
}

/* ---- first commit wins ----------------------------------------------------------------------------------------- */

static int foreign_fd = -1;

static void meddle(const place *p, int how)
{
    npk_batch *other = NULL;
    switch (how) {
    case 0:
        NEED(npk_append(p->store, "x", arrays_rows(50, 1), 1, NULL) == 0);
        break;
    case 1:
        NEED(npk_replace_range(p->store, "x", 0, 1, arrays_rows(7, 1)) == 0);
        break;
    case 2:
        arrays_make(p, "x", 50);
        break;
    case 3:
        NEED(npk_remove(p->store, "x") == 0);
        break;
    case 4:
        arrays_make(p, "new", 3);
        break;
    case 5:
        NEED(npk_batch_begin(p->store, NULL, 0, &other) == 0);
        NEED(npk_batch_append(other, "x", arrays_rows(50, 1), 1, NULL) == 0 && npk_batch_commit(&other) == 0);
        break;
    case 6: /* only read in the batch */
        NEED(npk_append(p->store, "read", arrays_rows(5, 1), 1, NULL) == 0);
        break;
    default:
        foreign_fd = openat(p->dir, "x.npy", O_RDWR | O_CLOEXEC);
        NEED(foreign_fd >= 0);
    }
}

static void test_first_commit_wins(void)
{
    for (int how = 0; how < 8; how++) {
        place p = place_begin();
        unit_note("how %d", how);
        arrays_make(&p, "x", 50);
        arrays_make(&p, "read", 5);
        arrays_make(&p, "other", 5);
        npk_batch *b = begin(&p, NULL, 0);
        NEED(npk_batch_replace_range(b, "x", 0, 1, arrays_rows(40, 1)) == 0 && save_in(b, "new", 2) == 0);
        NEED(npk_batch_append(b, "other", arrays_rows(5, 1), 1, NULL) == 0 && row_in(b, "read", 0) == 0);
        meddle(&p, how);
        CHECK_EQ(npk_batch_commit(&b), -ESTALE);
        CHECK_HAS(npk_error(), how == 4 ? "\"new.npy\"" : how == 6 ? "\"read.npy\"" : "\"x.npy\"");
        CHECK_EQ(arrays_whole(&p, "other"), 5);
        CHECK(how == 3 || row_of(&p, "x", 0) != 40);
        if (how == 7) { /* it is closed: the same batch can be committed now */
            close(foreign_fd);
            CHECK_EQ(npk_batch_commit(&b), 0);
            CHECK_EQ(row_of(&p, "x", 0), 40);
        } else {
            CHECK_EQ(npk_batch_abort(&b), 0);
        }
        CHECK(b == NULL && !place_exists(&p, ".npkfs/batch"));
        place_end(&p);
    }
}

/* ---- other processes ------------------------------------------------------------------------------------------- */

static int work_in_kept(npk_store *s, void *ctx)
{
    npk_batch *b = NULL;
    int err = npk_batch_open(s, "kept", &b);
    if (!err)
        err = npk_batch_append(b, "x", arrays_rows(*(const unsigned *)ctx, 1), 1, NULL);
    npk_batch_close(&b);
    return err;
}

static void test_many_processes(void)
{
    place p = place_begin();
    arrays_make(&p, "x", 9);
    npk_batch *b = begin(&p, "kept", NPK_BATCH_KEEP);
    npk_batch_close(&b);
    for (unsigned i = 9; i < 12; i++)
        CHECK_EQ(arrays_in_child(&p, NULL, work_in_kept, &i), 0);
    NEED(npk_batch_open(p.store, "kept", &b) == 0);
    CHECK_EQ(rows_in(b, "x"), 12);
    unsigned row = 12;
    CHECK_EQ(arrays_in_child(&p, NULL, work_in_kept, &row), 0);
    CHECK_EQ(rows_in(b, "x"), 13); /* seen by a handle that was open before */
    CHECK_EQ(npk_batch_commit(&b), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 13);
    CHECK_EQ(arrays_in_child(&p, NULL, work_in_kept, &row), ENOENT);
    place_end(&p);
}

/* Killed at every call of an operation inside: the batch is as before it or after it. */
static void test_killed_inside(void)
{
    unsigned killed = 0;
    for (unsigned n = 1; n < 40; n++) {
        char plan[32];
        unsigned row = 9;
        place p = place_begin();
        npk_batch *b = begin(&p, "kept", NPK_BATCH_KEEP);
        NEED(save_in(b, "x", 9) == 0);
        snprintf(plan, sizeof(plan), "%s:%u", n % 2 ? "kill-torn" : "kill", n / 2 + 1);
        int end = arrays_in_child(&p, plan, work_in_kept, &row);
        killed += end == -SIGKILL;
        unit_note("%s: %d", plan, end);
        int64_t rows = rows_in(b, "x");
        CHECK(rows == 10 || (rows == 9 && end == -SIGKILL));
        CHECK_EQ(npk_batch_append(b, "x", arrays_rows((uint64_t)rows, 1), 1, NULL), 0);
        CHECK_EQ(npk_batch_commit(&b), 0);
        CHECK_EQ(arrays_whole(&p, "x"), rows + 1);
        place_end(&p);
    }
    CHECK(killed > 2);
}

static int begin_and_die(npk_store *s, void *ctx)
{
    npk_batch *b = NULL;
    (void)ctx;
    if (npk_batch_begin(s, "mine", 0, &b) != 0 || save_in(b, "x", 9) != 0)
        return -1;
    raise(SIGKILL);
    return 0;
}

static int note_batch(void *ctx, const npk_batch_info *info)
{
    char *text = ctx;
    size_t at = strlen(text);
    snprintf(text + at, 200 - at, "%s:%d%d%d:%u ", info->id, info->kept, info->expired, info->damaged,
             (unsigned)info->arrays);
    return 0;
}

static void test_expiry(void)
{
    place p = place_begin();
    char text[200] = "";
    unsigned removed = 0;
    npk_batch *b = begin(&p, "kept", NPK_BATCH_KEEP);
    npk_batch_close(&b);
    CHECK_EQ(arrays_in_child(&p, NULL, begin_and_die, NULL), -SIGKILL);
    CHECK_EQ(npk_batch_list(p.store, note_batch, text), 0);
    CHECK_HAS(text, "kept:100:0 ");
    CHECK_HAS(text, "mine:010:1 ");
    CHECK_HAS(arrays_check(&p, NULL, 0).rules, "J5 ");
    b = begin(&p, "alive", 0); /* removes what has expired */
    CHECK(!place_exists(&p, ".npkfs/batch/mine"));
    CHECK(place_exists(&p, ".npkfs/batch/kept"));
    CHECK_EQ(npk_batch_sweep(p.store, &removed), 0);
    CHECK_EQ(removed, 0);
    CHECK(place_exists(&p, ".npkfs/batch/alive"));
    npk_batch_close(&b); /* its opener's: aborts it */
    CHECK(!place_exists(&p, ".npkfs/batch/alive"));
    place_end(&p);
}

/* ---- groups ---------------------------------------------------------------------------------------------------- */

static void test_from_a_group(void)
{
    place p = place_begin();
    char path[300];
    npk_store *group = NULL;
    npk_batch *b = NULL, *outer;
    arrays_make(&p, "train/x", 9);
    outer = begin(&p, "b", 0);
    snprintf(path, sizeof(path), "%s/train", p.path);
    NEED(npk_store_open(path, 0, &group) == 0);
    CHECK_EQ(npk_batch_open(group, "b", &b), 0);
    CHECK_EQ(npk_batch_append(b, "x", arrays_rows(9, 1), 1, NULL), 0);
    CHECK_EQ(rows_in(outer, "train/x"), 10);
    npk_batch_close(&b);
    CHECK_EQ(npk_batch_commit(&outer), 0);
    CHECK_EQ(arrays_whole(&p, "train/x"), 10);
    npk_store_close(&group);
    place_end(&p);
}

static int commit_two(npk_store *s, void *ctx)
{
    npk_batch *b = NULL;
    (void)ctx;
    if (npk_batch_begin(s, "b", 0, &b) != 0 || npk_batch_append(b, "a/x", arrays_rows(9, 1), 1, NULL) != 0 ||
        npk_batch_append(b, "b/x", arrays_rows(9, 1), 1, NULL) != 0)
        return -1;
    return npk_batch_commit(&b);
}

/* A commit that died is finished by who opens only a group of the store. */
static void test_journal_above(void)
{
    unsigned halves = 0;
    for (unsigned n = 1; n < 60; n++) {
        char plan[32], path[300];
        place p = place_begin();
        npk_store *group = NULL;
        npk_array *x = NULL;
        arrays_make(&p, "a/x", 9);
        arrays_make(&p, "b/x", 9);
        snprintf(plan, sizeof(plan), "kill:%u", n);
        int end = arrays_in_child(&p, plan, commit_two, NULL);
        bool half = place_rows_of(&p, "a/x.npy") != place_rows_of(&p, "b/x.npy");
        halves += half;
        unit_note("%s", plan);
        snprintf(path, sizeof(path), "%s/b", p.path);
        NEED(npk_store_open(path, 0, &group) == 0);
        CHECK_EQ(npk_array_open(group, "x", &x), 0);
        if (half)
            CHECK_EQ(npk_array_info(x)->rows, 10);
        npk_array_close(&x);
        npk_store_close(&group);
        CHECK_EQ(place_rows_of(&p, "a/x.npy"), place_rows_of(&p, "b/x.npy"));
        place_end(&p);
        if (end == 0)
            break;
    }
    CHECK(halves > 0);
}

/* ---- threads --------------------------------------------------------------------------------------------------- */

#define THREADS 4
#define COMMITS 12

struct worker {
    const place *p;
    npk_batch *shared;
    unsigned number, committed, late;
};

/* Batches that all append to "s", and one handle that all threads use: whoever is late begins again. */
static void *commit_often(void *ctx)
{
    struct worker *w = ctx;
    char name[16];
    float row[ROW_FLOATS] = {(float)w->number};
    snprintf(name, sizeof(name), "own%u", w->number);
    while (w->committed < COMMITS) {
        npk_batch *b = NULL;
        int err = npk_batch_begin(w->p->store, NULL, 0, &b);
        if (!err)
            err = npk_batch_append(b, "s", row, 1, NULL);
        if (!err)
            err = npk_batch_append(b, name, row, 1, NULL);
        if (!err)
            err = npk_batch_commit(&b);
        npk_batch_close(&b);
        w->committed += err == 0;
        w->late += err == -ESTALE;
        if (!err || err == -ESTALE)
            err = npk_batch_append(w->shared, "t", row, 1, NULL);
        if (err) {
            fprintf(stderr, "thread %u: %d %s\n", w->number, err, npk_error());
            break;
        }
    }
    return NULL;
}

static void test_threads(void)
{
    place p = place_begin();
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    arrays_make(&p, "s", 0);
    arrays_make(&p, "t", 0);
    for (unsigned i = 0; i < THREADS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "own%u", i);
        arrays_make(&p, name, 0);
    }
    npk_batch *shared = begin(&p, "shared", 0);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.p = &p, .shared = shared, .number = i};
        NEED(pthread_create(&threads[i], NULL, commit_often, &workers[i]) == 0);
    }
    unsigned committed = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        char name[16];
        NEED(pthread_join(threads[i], NULL) == 0);
        CHECK_EQ(workers[i].committed, COMMITS);
        committed += workers[i].committed;
        snprintf(name, sizeof(name), "own%u.npy", i);
        CHECK_EQ(place_rows_of(&p, name), COMMITS);
    }
    CHECK_EQ(place_rows_of(&p, "s.npy"), committed);
    unsigned late = 0;
    for (unsigned i = 0; i < THREADS; i++)
        late += workers[i].late;
    CHECK_EQ(npk_batch_commit(&shared), 0); /* one append for each try */
    CHECK_EQ(place_rows_of(&p, "t.npy"), committed + late);
    place_end(&p);
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

static void test_damaged_log(void)
{
    place p = place_begin();
    npk_batch *b = begin(&p, "b", NPK_BATCH_KEEP);
    NEED(save_in(b, "x", 9) == 0 && npk_batch_append(b, "x", arrays_rows(9, 1), 1, NULL) == 0);
    npk_batch_close(&b);
    int fd = openat(p.dir, ".npkfs/batch/b/log", O_RDWR);
    uint8_t bytes[1024], bad[1024];
    ssize_t n = read(fd, bytes, sizeof(bytes));
    NEED(n > 64 && n < 1024);
    for (ssize_t i = 0; i < 2 * n; i++) { /* each byte changed, each length */
        memcpy(bad, bytes, (size_t)n);
        bad[i % n] ^= 0x41;
        NEED(pwrite(fd, bad, (size_t)n, 0) == n && ftruncate(fd, i < n ? n : i - n) == 0);
        int64_t rows = -1;
        if (npk_batch_open(p.store, "b", &b) == 0)
            rows = rows_in(b, "x");
        npk_batch_close(&b);
        unit_note("%d", (int)i);
        CHECK(rows < 0 || rows == 9 || rows == 10);
    }
    close(fd);
    place_end(&p);
}

static void test_foreign_names(void)
{
    static const char *const bad[] = {"../x.npy", "/tmp/x.npy", "x", ".npkfs/x.npy", "a/../../b.npy"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        place p = place_begin();
        uint64_t touch[6] = {0, 0, 0, 0, 0, strlen(bad[i])};
        char name[32] = "";
        npk_batch *b = begin(&p, "b", 0);
        memcpy(name, bad[i], strlen(bad[i]));
        NEED(npk__batch_enter(b) == 0);
        unit_note("%s", bad[i]);
        CHECK_EQ(npk__batch_log(b, NPK_BATCH_TOUCH, 0, touch, sizeof(touch), name, (strlen(name) + 7) / 8 * 8),
                 -EINVAL);
        npk__batch_leave(b);
        CHECK_EQ(npk_batch_commit(&b), 0); /* the record is not there */
        place_end(&p);
    }
}

int main(void)
{
    int skip = arrays_find_place();
    if (skip)
        return skip;
    RUN(test_inside_and_outside);
    RUN(test_dropped_rows);
    RUN(test_file_inside);
    RUN(test_header_without_room);
    RUN(test_refused);
    RUN(test_first_commit_wins);
    RUN(test_many_processes);
    RUN(test_killed_inside);
    RUN(test_expiry);
    RUN(test_from_a_group);
    RUN(test_journal_above);
    RUN(test_threads);
    RUN(test_damaged_log);
    RUN(test_foreign_names);
    return UNIT_RESULT();
}
