/* SPDX-License-Identifier: Apache-2.0 */
/* Whose rows are deleted: files that are copied, renamed, replaced, edited, cut, linked; and what is refused. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <time.h>

#include "arrays.h"
#include "known.h"
#include "npk.h"
#include "place.h"
#include "unit.h"
#include "walk.h"

#define ROWS 20000u

static uint32_t data[ROWS][4];

static void make(place *p, const char *name, uint64_t rows, uint32_t from)
{
    uint64_t shape[2] = {rows, 4};
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < 4; c++)
            data[i][c] = (from + i) * 4 + c;
    npk_array_in in = {.name = name, .dtype = "uint32", .shape = shape, .ndim = 2, .data = data};
    NEED(npk_save(p->store, &in, 1) == 0);
}

static int drop(place *p, const char *name, uint64_t start, uint64_t count)
{
    npk_run run = {.start = start, .count = count, .step = 1};
    npk_rows rows = {.runs = &run, .run_count = 1, .row_count = count};
    return npk_drop_rows(p->store, name, &rows, NPK_ANY_GENERATION, NULL);
}

/* Rows as shown, or minus the error. */
static int64_t rows_of(place *p, const char *name)
{
    npk_info info;
    int err = npk_stat(p->store, name, &info);
    if (err)
        return err;
    npk_info_clear(&info);
    return (int64_t)info.rows;
}

static uint32_t value_at(place *p, const char *name, uint64_t row)
{
    npk_array *a;
    uint32_t out[4] = {0};
    if (npk_array_open(p->store, name, &a) != 0)
        return UINT32_MAX;
    int err = npk_read_range(a, row, 1, out);
    npk_array_close(&a);
    return err ? UINT32_MAX : out[0] / 4;
}

/* As another process, which has looked at nothing yet. */
static void forget(void)
{
    npk__known_drop_all();
}

/* Another time of change, whatever the clock's resolution. */
static void touch(place *p, const char *leaf)
{
    struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    NEED(utimensat(p->dir, leaf, times, 0) == 0);
}

static void copy_file(place *p, const char *from, const char *to)
{
    struct stat st;
    int in = openat(p->dir, from, O_RDONLY), out = openat(p->dir, to, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    NEED(in >= 0 && out >= 0 && fstat(in, &st) == 0);
    for (off_t left = st.st_size; left > 0;) {
        ssize_t n = sendfile(out, in, NULL, (size_t)left);
        NEED(n > 0);
        left -= n;
    }
    close(in);
    close(out);
}

static void write_at(place *p, const char *leaf, uint64_t offset, const void *bytes, size_t n)
{
    int fd = openat(p->dir, leaf, O_WRONLY);
    NEED(fd >= 0 && pwrite(fd, bytes, n, (off_t)offset) == (ssize_t)n);
    close(fd);
}

/* ---- identity (P10) -------------------------------------------------------------------------------------------- */

static void test_renamed_outside(void)
{
    place p = place_begin();
    make(&p, "x", ROWS, 0);
    CHECK_EQ(drop(&p, "x", 100, 50), 0);
    forget();
    CHECK_EQ(renameat(p.dir, "x.npy", p.dir, "y.npy"), 0);
    CHECK_EQ(rows_of(&p, "y"), ROWS - 50);
    make(&p, "x", 500, 7); /* another array under the old name is clean */
    CHECK_EQ(rows_of(&p, "x"), 500);
    CHECK_EQ(drop(&p, "y", 0, 1), 0);
    CHECK_EQ(drop(&p, "x", 0, 2), 0);
    forget();
    CHECK_EQ(rows_of(&p, "y"), ROWS - 51);
    CHECK_EQ(rows_of(&p, "x"), 498);
    CHECK_EQ(value_at(&p, "y", 99), 150);
    /* Deletions belong to the file, not to its suffix. */
    CHECK_EQ(renameat(p.dir, "y.npy", p.dir, "y.npy.bak"), 0);
    npk_view *v = NULL;
    int fd = openat(p.dir, "y.npy.bak", O_RDONLY);
    CHECK_EQ(npk_view_open(p.store, "y.npy.bak", fd, &v), 0);
    CHECK(v && npk_view_rows(v) == ROWS - 51);
    npk_view_close(&v);
    close(fd);
    place_end(&p);
}

static void test_copied(void)
{
    place p = place_begin(), q = place_begin();
    char command[1200];
    make(&p, "x", ROWS, 0);
    CHECK_EQ(drop(&p, "x", 100, 50), 0);
    snprintf(command, sizeof(command), "cp -a %s/. %s/", p.path, q.path);
    NEED(system(command) == 0);
    CHECK_EQ(rows_of(&q, "x"), ROWS - 50);
    CHECK_EQ(drop(&q, "x", 0, 1), 0);
    CHECK_EQ(rows_of(&q, "x"), ROWS - 51);
    CHECK_EQ(rows_of(&p, "x"), ROWS - 50);
    place_end(&q);
    place_end(&p);
}

static int count_name(void *ctx, const char *name, uint64_t start, uint64_t stop)
{
    (void)name;
    *(uint64_t *)ctx += stop - start;
    return 0;
}

/* The fingerprint of a compacted file is taken of the old one's rows: it must be that of the new one. */
static void test_copied_after_compaction(void)
{
    place p = place_begin();
    uint64_t named = 0;
    make(&p, "x", ROWS, 0);
    CHECK_EQ(npk_name_set(p.store, "x", "part", 50, 250), 0);
    for (uint64_t row = 1; row < ROWS / 2; row += 9)
        NEED(drop(&p, "x", row, 2) == 0);
    int64_t left = rows_of(&p, "x");
    CHECK_EQ(npk_compact(p.store, "x", 0, NULL, NULL), 0);
    copy_file(&p, "x.npy", "y.tmp");
    CHECK_EQ(renameat(p.dir, "y.tmp", p.dir, "x.npy"), 0);
    forget();
    CHECK_EQ(rows_of(&p, "x"), left);
    CHECK_EQ(npk_names(p.store, "x", count_name, &named), 0);
    CHECK(named > 100 && named < 200);
    CHECK(arrays_check(&p, NULL, 0).worst <= NPK_NOTE);
    place_end(&p);
}

/* Another array took the name, by a program that knows nothing of the sidecar. */
static void test_replaced(void)
{
    for (int in_place = 0; in_place < 2; in_place++) {
        place p = place_begin();
        unit_note("in place %d", in_place);
        make(&p, "y", ROWS, 1000000);
        make(&p, "x", ROWS, 0);
        CHECK_EQ(drop(&p, "x", 100, 50), 0);
        CHECK_EQ(npk_sync(p.store, "x"), 0);
        CHECK_EQ(npk_name_set(p.store, "x", "some", 0, 10), 0);
        forget();
        if (in_place)
            copy_file(&p, "y.npy", "x.npy");
        else
            CHECK_EQ(renameat(p.dir, "y.npy", p.dir, "x.npy"), 0);
        touch(&p, "x.npy");
        CHECK_EQ(rows_of(&p, "x"), ROWS);
        CHECK_EQ(value_at(&p, "x", 120), 1000120);
        CHECK_HAS(arrays_check(&p, NULL, 0).rules, "D2");
        CHECK_EQ(drop(&p, "x", 5, 1), 0); /* sets aside what was known */
        CHECK_EQ(rows_of(&p, "x"), ROWS - 1);
        arrays_findings after = arrays_check(&p, NULL, 0);
        CHECK_HAS(after.rules, "F16");
        CHECK(strstr(after.rules, "D2") == NULL);
        place_end(&p);
    }
}

static void test_edited_in_place(void)
{
    place p = place_begin();
    make(&p, "x", ROWS, 0);
    CHECK_EQ(drop(&p, "x", 100, 50), 0);
    CHECK_EQ(npk_sync(p.store, "x"), 0);
    forget();
    uint32_t zero[4000] = {0};
    write_at(&p, "x.npy", 128 + 1000 * 16, zero, sizeof(zero));
    touch(&p, "x.npy");
    CHECK_EQ(rows_of(&p, "x"), ROWS - 50);
    CHECK_EQ(value_at(&p, "x", 100), 150);
    place_end(&p);
}

/* All rows are others, by somebody who has the array open through the engine: it is the array still. */
static void test_all_rows_written_in_a_session(void)
{
    place p = place_begin();
    make(&p, "x", ROWS, 0);
    CHECK_EQ(drop(&p, "x", 100, 50), 0);
    bool entered;
    int fd = openat(p.dir, "x.npy", O_RDONLY);
    CHECK_EQ(npk_session_begin(p.store, "x.npy", fd, &entered), 0);
    CHECK(entered);
    close(fd);
    for (uint32_t i = 0; i < ROWS; i++)
        data[i][0] = data[i][1] = ~i;
    write_at(&p, "x.npy", 128, data, sizeof(data));
    forget();
    CHECK_EQ(rows_of(&p, "x"), ROWS - 50);
    CHECK_EQ(npk_sync(p.store, "x"), 0); /* ends the session */
    forget();
    CHECK_EQ(rows_of(&p, "x"), ROWS - 50);
    place_end(&p);
}

/* Rows moved behind our back: neither filtered nor unfiltered by guess. */
static void test_in_doubt(void)
{
    for (int keep = 0; keep < 2; keep++) {
        place p = place_begin();
        unit_note("keep %d", keep);
        make(&p, "x", ROWS, 0);
        CHECK_EQ(drop(&p, "x", 100, 50), 0);
        CHECK_EQ(npk_sync(p.store, "x"), 0);
        forget();
        copy_file(&p, "x.npy", "z.npy");
        write_at(&p, "z.npy", 128 + 8000 * 16, (const uint8_t *)data + 8500 * 16,
                 11500 * 16); /* rows 8000 to 8499 are gone */
        CHECK_EQ(renameat(p.dir, "z.npy", p.dir, "x.npy"), 0);
        npk_array *a;
        npk_view *v;
        int fd = openat(p.dir, "x.npy", O_RDONLY);
        CHECK_EQ(npk_array_open(p.store, "x", &a), -EUCLEAN);
        CHECK_HAS(npk_error(), "--set-aside");
        CHECK_EQ(npk_view_open(p.store, "x.npy", fd, &v), -EUCLEAN);
        CHECK_EQ(drop(&p, "x", 0, 1), -EUCLEAN);
        CHECK_EQ(npk_append(p.store, "x", data, 1, NULL), -EUCLEAN);
        close(fd);
        arrays_findings found = arrays_check(&p, NULL, NPK_CHECK_REPAIR);
        CHECK_HAS(found.rules, "D2 ");
        CHECK_EQ(found.worst, NPK_DAMAGE);
        CHECK_HAS(arrays_check(&p, "x", keep ? NPK_CHECK_KEEP : NPK_CHECK_SET_ASIDE).rules, "D2+");
        CHECK_EQ(rows_of(&p, "x"), keep ? ROWS - 50 : ROWS);
        CHECK(arrays_check(&p, NULL, 0).worst <= NPK_NOTE);
        CHECK_EQ(drop(&p, "x", 0, 1), 0);
        place_end(&p);
    }
}

/* ---- logs and states that are damaged -------------------------------------------------------------------------- */

struct files {
    char log[300], json[300];
};

static int find_file(void *ctx, const char *name, unsigned char type)
{
    struct files *f = ctx;
    (void)type;
    if (strstr(name, ".del"))
        snprintf(f->log, sizeof(f->log), ".npkfs/%s", name);
    return 0;
}

static struct files files_of(place *p)
{
    struct files f = {.json = ".npkfs/x.npy.json"};
    int side = openat(p->dir, ".npkfs", O_RDONLY | O_DIRECTORY);
    NEED(side >= 0 && npk__each_name(side, find_file, &f) == 0);
    close(side);
    return f;
}

static void test_damage(void)
{
    for (int what = 0; what < 4; what++) {
        place p = place_begin();
        make(&p, "x", ROWS, 0);
        CHECK_EQ(drop(&p, "x", 100, 50), 0);
        CHECK_EQ(npk_sync(p.store, "x"), 0);
        struct files f = files_of(&p);
        unit_note("damage %d", what);
        forget();
        if (what == 0)
            write_at(&p, f.json, 0, "nonsense", 8);
        else if (what == 1)
            NEED(unlinkat(p.dir, f.log, 0) == 0);
        else
            write_at(&p, f.log, what == 2 ? 10 : 140, "\xff\xff", 2);
        CHECK_EQ(rows_of(&p, "x"), what == 3 ? -EIO : what == 2 ? -ENOTSUP : -EUCLEAN);
        CHECK_EQ(drop(&p, "x", 0, 1) == 0, false);
        CHECK_EQ(arrays_check(&p, NULL, 0).worst, NPK_DAMAGE);
        CHECK_HAS(arrays_check(&p, "x", NPK_CHECK_SET_ASIDE).rules, what == 0 ? "D1+" : "D3+");
        CHECK_EQ(rows_of(&p, "x"), ROWS);
        CHECK_EQ(drop(&p, "x", 0, 1), 0);
        CHECK_EQ(rows_of(&p, "x"), ROWS - 1);
        place_end(&p);
    }
}

/* The state's file cut at every byte: an error, or the whole file, never other rows. */
static void test_state_cut_at_every_byte(void)
{
    place p = place_begin();
    struct stat st;
    make(&p, "x", 50, 0);
    CHECK_EQ(drop(&p, "x", 10, 5), 0);
    struct files f = files_of(&p);
    NEED(fstatat(p.dir, f.json, &st, 0) == 0);
    copy_file(&p, f.json, "whole");
    for (off_t n = 0; n < st.st_size; n++) {
        int fd = openat(p.dir, f.json, O_WRONLY);
        NEED(fd >= 0 && ftruncate(fd, n) == 0);
        close(fd);
        forget();
        unit_note("%d bytes", (int)n);
        CHECK_EQ(rows_of(&p, "x"), -EUCLEAN);
        copy_file(&p, "whole", f.json);
    }
    forget();
    CHECK_EQ(rows_of(&p, "x"), 45);
    place_end(&p);
}

/* Whoever was removing an array died when its name was gone: an array that is the same by its bytes is another. */
static void test_removed_and_made_again(void)
{
    place p = place_begin();
    make(&p, "x", ROWS, 0);
    CHECK_EQ(drop(&p, "x", 100, 50), 0);
    int fd = openat(p.dir, "x.npy", O_RDONLY);
    CHECK_EQ(npk_sidecar_leave(p.store, "x.npy", fd), 0);
    CHECK_EQ(rows_of(&p, "x"), ROWS - 50);
    NEED(unlinkat(p.dir, "x.npy", 0) == 0);
    make(&p, "x", ROWS, 0);
    close(fd);
    forget();
    CHECK_EQ(rows_of(&p, "x"), ROWS);
    CHECK_EQ(drop(&p, "x", 0, 1), 0);
    CHECK_EQ(rows_of(&p, "x"), ROWS - 1);
    place_end(&p);
}

/* The log was written anew by a process that died before it removed the old one: whoever has the old one in memory
 * must not go on with it. */
static void test_a_log_that_was_replaced(void)
{
    place p = place_begin();
    make(&p, "x", 1000, 0);
    CHECK_EQ(drop(&p, "x", 100, 50), 0);
    struct files before = files_of(&p);
    NEED(linkat(p.dir, before.log, p.dir, "old", 0) == 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        npk_range first = {0, 1};
        int err = 0;
        for (unsigned i = 0; i < 800 && !err; i++) {
            err = drop(&p, "x", 0, 1);
            if (!err)
                err = npk_restore_rows(p.store, "x", &first, 1, NPK_ANY_GENERATION, NULL);
        }
        _exit(err || drop(&p, "x", 500, 5) ? 1 : 0);
    }
    CHECK_EQ(place_wait(child), 0);
    CHECK(strcmp(files_of(&p).log, before.log) != 0);
    NEED(linkat(p.dir, "old", p.dir, before.log, 0) == 0);
    CHECK_EQ(drop(&p, "x", 0, 7), 0);
    CHECK_EQ(rows_of(&p, "x"), 938);
    forget();
    CHECK_EQ(rows_of(&p, "x"), 938);
    CHECK_HAS(arrays_check(&p, NULL, NPK_CHECK_REPAIR).rules, "D8+");
    CHECK_EQ(rows_of(&p, "x"), 938);
    place_end(&p);
}

/* ---- power loss (P7) ------------------------------------------------------------------------------------------- */

/* The log knows rows that the data lost: rows that are appended later are not born deleted. */
static void test_rows_lost_with_power(void)
{
    place p = place_begin();
    make(&p, "x", 1000, 0);
    CHECK_EQ(npk_append(p.store, "x", data, 200, NULL), 0);
    CHECK_EQ(drop(&p, "x", 1100, 50), 0);
    CHECK_EQ(drop(&p, "x", 10, 5), 0);
    struct stat st;
    NEED(fstatat(p.dir, "x.npy", &st, 0) == 0);
    int fd = openat(p.dir, "x.npy", O_RDWR);
    NEED(ftruncate(fd, st.st_size - 200 * 16) == 0);
    close(fd);
    forget();
    CHECK_EQ(npk_append(p.store, "x", data, 200, NULL), 0);
    CHECK_EQ(rows_of(&p, "x"), 1195);
    forget();
    CHECK_EQ(rows_of(&p, "x"), 1195);
    CHECK(arrays_check(&p, NULL, 0).worst <= NPK_NOTE);
    place_end(&p);
}

/* ---- refusals -------------------------------------------------------------------------------------------------- */

static void test_refused(void)
{
    place p = place_begin();
    npk_run runs[2] = {{5, 1, 1}, {200, 1, 1}};
    npk_rows rows = {.runs = runs, .run_count = 2, .row_count = 2},
             one = {.runs = runs, .run_count = 1, .row_count = 1};
    npk_range range = {50, 101};
    uint64_t bytes, generation;
    make(&p, "x", 100, 0);
    CHECK_EQ(npk_drop_rows(p.store, "x", &rows, NPK_ANY_GENERATION, NULL), -ERANGE);
    CHECK_HAS(npk_error(), "row 200 is outside; there are 100 rows");
    CHECK_EQ(rows_of(&p, "x"), 100);
    CHECK_EQ(npk_drop_rows(p.store, "nothing", &one, NPK_ANY_GENERATION, NULL), -ENOENT);
    CHECK_EQ(npk_restore_rows(p.store, "x", &range, 1, NPK_ANY_GENERATION, NULL), -ERANGE);
    CHECK_EQ(npk_compact(p.store, "x", 8, NULL, NULL), -EINVAL);
    CHECK_EQ(npk_compact_policy_set(p.store, "x", 101), -EINVAL);
    CHECK_EQ(npk_name_set(p.store, "x", "a", 5, 101), -ERANGE);
    CHECK_EQ(npk_name_set(p.store, "x", "a", 6, 5), -ERANGE);
    static const char *const bad[] = {"", ".a", "a/b", "a\nb", "5", "0:10", "-1", "::2"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        unit_note("name \"%s\"", bad[i]);
        CHECK_EQ(npk_name_set(p.store, "x", bad[i], 0, 1), -EINVAL);
    }
    CHECK_EQ(npk_name_remove(p.store, "x", "a"), -ENOENT);
    CHECK(!place_exists(&p, ".npkfs/x.npy.json"));
    int fd = openat(p.dir, "x.npy", O_RDONLY);
    CHECK_EQ(npk_drop_rows(p.store, "x", &one, 0, NULL), 0); /* a clean array's generation is 0 */
    CHECK_EQ(npk_view_shows(p.store, "x.npy", fd, &bytes, &generation), 0);
    CHECK_EQ(npk_drop_rows(p.store, "x", &one, generation - 1, NULL), -ESTALE);
    CHECK_EQ(npk_drop_rows(p.store, "x", &one, generation, NULL), 0);
    CHECK_EQ(npk_restore_rows(p.store, "x", NULL, 0, generation, NULL), -ESTALE);
    close(fd);
    npk_store *ro;
    NEED(npk_store_open(p.path, NPK_READ_ONLY, &ro) == 0);
    CHECK_EQ(npk_drop_rows(ro, "x", &one, NPK_ANY_GENERATION, NULL), -EROFS);
    CHECK_EQ(npk_compact(ro, "x", 0, NULL, NULL), -EROFS);
    npk_store_close(&ro);
    /* P24 */
    NEED(linkat(p.dir, "x.npy", p.dir, "z.npy", 0) == 0);
    CHECK_EQ(npk_compact(p.store, "x", 0, NULL, NULL), -EMLINK);
    CHECK_EQ(npk_name_set(p.store, "x", "a", 0, 1), -EMLINK);
    make(&p, "y", 100, 0);
    NEED(linkat(p.dir, "y.npy", p.dir, "w.npy", 0) == 0);
    CHECK_EQ(drop(&p, "y", 0, 1), -EMLINK);
    CHECK_EQ(rows_of(&p, "y"), 100);
    /* Kinds without rows. */
    uint64_t shape[2] = {10, 10};
    npk_array_in scalar = {.name = "scalar", .dtype = "float32", .shape = shape, .ndim = 0};
    NEED(npk_save(p.store, &scalar, 1) == 0);
    CHECK_EQ(drop(&p, "scalar", 0, 1), -ENOTSUP);
    place_end(&p);
}

static void test_busy(void)
{
    place p = place_begin();
    make(&p, "x", 100, 0);
    CHECK_EQ(drop(&p, "x", 5, 5), 0);
    int fd = openat(p.dir, "x.npy", O_RDWR);
    int err = npk_compact(p.store, "x", 0, NULL, NULL);
    const char *why;
    CHECK(npk_leases_prove(p.store, &why) ? err == -EBUSY : err == -EBUSY || err == 0);
    CHECK_EQ(drop(&p, "x", 5, 5), 0); /* which rows are shown may change while others write */
    close(fd);
    place_end(&p);
}

static int cancel(void *ctx, uint64_t done, uint64_t all)
{
    uint64_t *most = ctx;
    CHECK(done <= all);
    *most = all;
    return 1;
}

static void test_cancelled(void)
{
    place p = place_begin();
    uint64_t all = 0;
    make(&p, "x", ROWS, 0);
    CHECK_EQ(drop(&p, "x", 5, 5), 0);
    CHECK_EQ(npk_compact(p.store, "x", 0, cancel, &all), -ECANCELED);
    CHECK_EQ(all, (ROWS - 5) * 16);
    CHECK_EQ(rows_of(&p, "x"), ROWS - 5);
    npk_info info;
    CHECK_EQ(npk_stat(p.store, "x", &info), 0);
    CHECK_EQ(info.physical_rows, ROWS);
    CHECK_EQ(npk_compact(p.store, "x", 0, NULL, NULL), 0);
    CHECK_EQ(npk_stat(p.store, "x", &info), 0);
    CHECK_EQ(info.physical_rows, ROWS - 5);
    CHECK_EQ(npk_compact_policy_set(p.store, "x", 30), 0);
    unsigned percent = 0;
    CHECK_EQ(npk_compact_policy(p.store, "x", &percent), 0);
    CHECK_EQ(percent, 30);
    CHECK_EQ(npk_compact_policy_set(p.store, "x", 0), 0);
    CHECK_EQ(npk_compact_policy(p.store, "x", &percent), 0);
    CHECK_EQ(percent, 0);
    place_end(&p);
}

/* ---- numbering (P22) ------------------------------------------------------------------------------------------- */

static void test_a_view_keeps_its_numbering(void)
{
    place p = place_begin();
    npk_view *v;
    uint32_t row[4];
    make(&p, "x", 1000, 0);
    CHECK_EQ(drop(&p, "x", 0, 10), 0);
    int fd = openat(p.dir, "x.npy", O_RDWR);
    CHECK_EQ(npk_view_open(p.store, "x.npy", fd, &v), 0);
    uint64_t bytes = npk_view_bytes(v);
    CHECK_EQ(drop(&p, "x", 0, 100), 0);
    CHECK_EQ(npk_append(p.store, "x", data, 5, NULL), 0);
    CHECK_EQ(npk_view_bytes(v), bytes);
    CHECK_EQ(npk_view_read(v, fd, 128 + 7 * 16, row, 16), 16);
    CHECK_EQ(row[0] / 4, 17);
    row[0] = 99 * 4;
    CHECK_EQ(npk_view_write(v, fd, 128 + 500 * 16, row, 16), 16);
    close(fd);
    npk_view_close(&v);
    CHECK_EQ(value_at(&p, "x", 400), 99);
    place_end(&p);
}

/* ---- the original's defects ------------------------------------------------------------------------------------ */

/* numpack: an append after a drop resurrects deleted rows. */
static void test_numpack_append_after_drop(void)
{
    place p = place_begin();
    make(&p, "x", 70, 0);
    CHECK_EQ(drop(&p, "x", 60, 5), 0);
    uint64_t first = 0;
    CHECK_EQ(npk_append(p.store, "x", data, 3, &first), 0);
    CHECK_EQ(first, 65);
    CHECK_EQ(rows_of(&p, "x"), 68);
    CHECK_EQ(value_at(&p, "x", 60), 65);
    CHECK_EQ(value_at(&p, "x", 65), 0);
    place_end(&p);
}

/* ---- many at once (P6) ----------------------------------------------------------------------------------------- */

static atomic_bool stop;
static atomic_ulong looks, wrong;

/* Row numbers ascend in every state that there ever is, and the sums of rows are those of one moment. */
static void *reader(void *ctx)
{
    place *p = ctx;
    static _Thread_local uint32_t rows[3000][4];
    while (!atomic_load(&stop)) {
        npk_array *a;
        int err = npk_array_open(p->store, "x", &a);
        if (err) {
            atomic_fetch_add(&wrong, 1);
            break;
        }
        uint64_t n = npk_array_info(a)->rows;
        if (n > 3000 || npk_read_range(a, 0, n, rows) != 0)
            atomic_fetch_add(&wrong, 1);
        for (uint64_t i = 1; i < n; i++)
            if (rows[i][0] <= rows[i - 1][0]) {
                atomic_fetch_add(&wrong, 1);
                break;
            }
        npk_array_close(&a);
        atomic_fetch_add(&looks, 1);
    }
    return NULL;
}

static void test_readers_beside_compaction(void)
{
    place p = place_begin();
    pthread_t threads[3];
    uint32_t next = 1000;
    make(&p, "x", 1000, 0);
    atomic_store(&stop, false);
    for (int i = 0; i < 3; i++)
        NEED(pthread_create(&threads[i], NULL, reader, &p) == 0);
    for (unsigned i = 0; i < 150; i++) {
        uint32_t rows[10][4];
        for (uint32_t r = 0; r < 10; r++, next++)
            rows[r][0] = next * 4;
        CHECK_EQ(drop(&p, "x", (i * 37) % 900, 10), 0);
        CHECK_EQ(npk_append(p.store, "x", rows, 10, NULL), 0);
        int err = npk_compact(p.store, "x", 0, NULL, NULL);
        CHECK(err == 0 || err == -EBUSY);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ(atomic_load(&wrong), 0);
    CHECK(atomic_load(&looks) > 0);
    CHECK_EQ(rows_of(&p, "x"), 1000);
    place_end(&p);
}

int main(void)
{
    RUN(test_renamed_outside);
    RUN(test_copied);
    RUN(test_copied_after_compaction);
    RUN(test_replaced);
    RUN(test_edited_in_place);
    RUN(test_all_rows_written_in_a_session);
    RUN(test_in_doubt);
    RUN(test_damage);
    RUN(test_state_cut_at_every_byte);
    RUN(test_removed_and_made_again);
    RUN(test_a_log_that_was_replaced);
    RUN(test_rows_lost_with_power);
    RUN(test_refused);
    RUN(test_busy);
    RUN(test_cancelled);
    RUN(test_a_view_keeps_its_numbering);
    RUN(test_numpack_append_after_drop);
    RUN(test_readers_beside_compaction);
    return UNIT_RESULT();
}
