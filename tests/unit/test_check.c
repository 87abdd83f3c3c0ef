/* SPDX-License-Identifier: Apache-2.0 */
/* Each rule of store/FORMAT.md: broken, found by its number, repaired where that is possible, and found no more. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <signal.h>

#include "arrays.h"
#include "dirty.h"
#include "settle.h"
#include "unit.h"

static void expect(const place *p, unsigned flags, const char *rules, int worst)
{
    arrays_findings all = arrays_check(p, NULL, flags);
    CHECK_STR(all.rules, rules);
    CHECK_EQ(all.worst, worst);
}

static void write_file(const place *p, const char *path, const void *bytes, size_t n)
{
    int fd = openat(p->dir, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    NEED(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
}

static void begin_session(const place *p, const char *path)
{
    bool entered = false;
    int fd = openat(p->dir, path, O_RDONLY);
    NEED(npk_session_begin(p->store, path, fd, &entered) == 0 && entered);
    close(fd);
}

static void test_nothing(void)
{
    place p = place_begin();
    arrays_make(&p, "g/x", 5);
    write_file(&p, "notes.txt", "text", 4);
    expect(&p, 0, "", -1);
    expect(&p, NPK_CHECK_REPAIR | NPK_CHECK_ADOPT, "", -1);
    arrays_findings one = arrays_check(&p, "g/x", 0);
    CHECK_STR(one.rules, "");
    CHECK_EQ(npk_check(p.store, "absent", 0, arrays_found, &one), -ENOENT);
    CHECK_EQ(npk_check(p.store, NULL, 64, arrays_found, &one), -EINVAL);
    place_end(&p);
}

static int stop_at_once(void *ctx, const npk_finding *f)
{
    (*(int *)ctx)++;
    CHECK_STR(f->path, "a.npy");
    return 42;
}

static void test_plain(void) /* F1, F2 */
{
    place p = place_begin();
    int calls = 0;
    write_file(&p, "a.npy", "nonsense", 8);
    expect(&p, NPK_CHECK_REPAIR, "F2 ", NPK_WARNING);
    CHECK_EQ(npk_check(p.store, NULL, 0, stop_at_once, &calls), 42);
    CHECK_EQ(calls, 1);
    CHECK_STR(arrays_check(&p, "a", 0).rules, "F2 ");
    NEED(unlinkat(p.dir, "a.npy", 0) == 0 && symlinkat("x", p.dir, "b.npy") == 0);
    expect(&p, 0, "F1 ", NPK_NOTE);
    place_end(&p);
}

static void test_unfinished(void) /* F3 */
{
    place p = place_begin();
    close(place_array(&p, "x.npy", 9, 4, 20));
    expect(&p, 0, "F3 ", NPK_DAMAGE);
    expect(&p, NPK_CHECK_ADOPT, "F3 ", NPK_DAMAGE);
    CHECK_EQ(place_rows_of(&p, "x.npy"), 9);
    int fd = openat(p.dir, "x.npy", O_WRONLY);
    expect(&p, NPK_CHECK_REPAIR, "F3 ", NPK_DAMAGE); /* its writer lives */
    close(fd);
    uint64_t bytes = arrays_file_bytes(&p, "x.npy");
    expect(&p, NPK_CHECK_REPAIR, "F3+ ", NPK_DAMAGE);
    CHECK(!place_exists(&p, "x.npy"));
    CHECK_EQ(arrays_file_bytes(&p, "x.npy.unfinished"), bytes);
    expect(&p, 0, "", -1);
    /* In a session the header is cut to the whole rows: power was lost. */
    close(place_array(&p, "x.npy", 9, 9, 20));
    begin_session(&p, "x.npy");
    fd = openat(p.dir, "x.npy", O_WRONLY);
    NEED(ftruncate(fd, (off_t)arrays_file_bytes(&p, "x.npy") - 3 * PLACE_ROW - 5) == 0);
    expect(&p, NPK_CHECK_REPAIR, "F3 ", NPK_DAMAGE);
    close(fd);
    expect(&p, 0, "F3 F10 ", NPK_DAMAGE);
    CHECK_EQ(place_rows_of(&p, "x.npy"), 9);
    expect(&p, NPK_CHECK_REPAIR, "F3+ F10+ ", NPK_DAMAGE);
    CHECK_EQ(place_rows_of(&p, "x.npy"), 5);
    expect(&p, NPK_CHECK_REPAIR, "F7+ ", NPK_WARNING); /* what is left of the sixth */
    expect(&p, 0, "", -1);
    place_end(&p);
}

static void test_uncounted(void) /* F4 */
{
    place p = place_begin();
    arrays_make(&p, "x", 5);
    begin_session(&p, "x.npy");
    place_append(&p, "x.npy", arrays_rows(5, 3), 3 * ROW_BYTES);
    expect(&p, 0, "F4 F10 ", NPK_WARNING);
    CHECK_EQ(place_rows_of(&p, "x.npy"), 5);
    expect(&p, NPK_CHECK_REPAIR, "F4+ F10+ ", NPK_WARNING);
    CHECK_EQ(arrays_whole(&p, "x"), 8);
    expect(&p, 0, "", -1);
    /* F8: no room in the header to count them in place. */
    arrays_make_tight(&p, "y.npy", 9, 0);
    begin_session(&p, "y.npy");
    place_append(&p, "y.npy", arrays_rows(9, 3), 3 * ROW_BYTES);
    expect(&p, 0, "F4 F10 ", NPK_WARNING);
    expect(&p, NPK_CHECK_REPAIR, "F4+ F10+ ", NPK_WARNING);
    CHECK_EQ(arrays_whole(&p, "y"), 12);
    expect(&p, 0, "", -1);
    place_end(&p);
}

static void test_foreign(void) /* F5, F6 */
{
    place p = place_begin();
    arrays_make(&p, "x", 5);
    place_append(&p, "x.npy", arrays_rows(5, 3), 2 * ROW_BYTES);
    expect(&p, 0, "F5 ", NPK_WARNING);
    expect(&p, NPK_CHECK_REPAIR, "F5 ", NPK_WARNING);
    CHECK_EQ(place_rows_of(&p, "x.npy"), 5);
    arrays_findings one = arrays_check(&p, "x", NPK_CHECK_ADOPT);
    CHECK_STR(one.rules, "F5+ ");
    CHECK_EQ(arrays_whole(&p, "x"), 7);
    expect(&p, 0, "", -1);
    /* Another array behind it is none of its rows, whatever is asked for. */
    char second[1024] = "";
    size_t n = place_header(second, 40, 0);
    NEED(n + 40 * PLACE_ROW <= sizeof(second));
    place_append(&p, "x.npy", second, n + 40 * PLACE_ROW);
    expect(&p, NPK_CHECK_REPAIR | NPK_CHECK_ADOPT, "F6 ", NPK_NOTE);
    CHECK_EQ(arrays_whole(&p, "x"), 7);
    place_end(&p);
}

static void test_part_row(void) /* F7 */
{
    place p = place_begin();
    arrays_make(&p, "x", 5);
    place_append(&p, "x.npy", "abcde", 5);
    int fd = openat(p.dir, "x.npy", O_WRONLY);
    expect(&p, NPK_CHECK_REPAIR, "F7 ", NPK_NOTE);
    close(fd);
    expect(&p, 0, "F7 ", NPK_WARNING);
    expect(&p, NPK_CHECK_REPAIR, "F7+ ", NPK_WARNING);
    CHECK_EQ(arrays_file_bytes(&p, "x.npy.tail"), 5);
    CHECK_EQ(arrays_whole(&p, "x"), 5);
    place_append(&p, "x.npy", "abc", 3);
    expect(&p, NPK_CHECK_REPAIR, "F7+ ", NPK_WARNING);
    CHECK_EQ(arrays_file_bytes(&p, "x.npy.tail.1"), 3);
    expect(&p, 0, "", -1);
    place_end(&p);
}

static int append_five(npk_store *s, void *ctx)
{
    (void)ctx;
    return npk_append(s, "x", arrays_rows(5, 5), 5, NULL);
}

static void dead_append(const char *kind, unsigned *marked, unsigned *torn)
{
    unsigned whole = 0;
    for (unsigned n = 1; n < 30; n++) {
        place p = place_begin();
        char plan[32];
        /* The table is there, and blanks before the number: see test_rows.c. */
        arrays_make(&p, "x", 9);
        NEED(npk_append(p.store, "x", arrays_rows(9, 1), 1, NULL) == 0 && npk_truncate(p.store, "x", 5) == 0);
        NEED(npk_sync(p.store, "x") == 0);
        snprintf(plan, sizeof(plan), "%s:%u", kind, n);
        if (arrays_in_child(&p, plan, append_five, NULL) == 0)
            n = 30;
        arrays_findings before = arrays_check(&p, NULL, 0);
        *marked += strstr(before.rules, "F9 ") != NULL;
        *torn += strstr(before.rules, "F7 ") != NULL || strstr(before.rules, "F4 ") != NULL;
        unit_note("%s: %s", plan, before.rules);
        (void)arrays_check(&p, NULL, NPK_CHECK_REPAIR);
        int64_t rows = arrays_whole(&p, "x");
        whole += rows == 10;
        CHECK(rows == 5 || rows == 10);
        CHECK(arrays_check(&p, NULL, NPK_CHECK_REPAIR).worst <= NPK_NOTE);
        expect(&p, 0, "", -1);
        CHECK(!place_exists(&p, "x.npy.tail"));
        place_end(&p);
    }
    CHECK(whole > 0);
}

static void test_dead_append(void) /* F9 */
{
    unsigned marked = 0, torn = 0;
    dead_append("kill", &marked, &torn);
    dead_append("kill-torn", &marked, &torn);
    CHECK(marked > 0);
    CHECK(torn > 0);
}

/* ---- the sidecar ----------------------------------------------------------------------------------------------- */

static void test_session(void) /* F10 */
{
    place p = place_begin();
    arrays_make(&p, "x", 5);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(5, 1), 1, NULL), 0);
    expect(&p, 0, "F10 ", NPK_NOTE);
    int fd = openat(p.dir, "x.npy", O_WRONLY);
    expect(&p, NPK_CHECK_REPAIR, "", -1); /* somebody is at it: as it should be */
    close(fd);
    CHECK_EQ(npk_sync(p.store, "x"), 0);
    expect(&p, 0, "", -1);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(6, 1), 1, NULL), 0);
    CHECK_EQ(npk_sync(p.store, NULL), 0);
    expect(&p, 0, "", -1);
    place_end(&p);
}

static void test_folder(void) /* F11, F16, F17 */
{
    place p = place_begin();
    arrays_make(&p, "x", 5);
    NEED(mkdirat(p.dir, ".npk", 0755) == 0);
    expect(&p, 0, "F17 ", NPK_WARNING);
    NEED(unlinkat(p.dir, ".npk", AT_REMOVEDIR) == 0);
    write_file(&p, ".npkfs/what", "", 0);
    expect(&p, NPK_CHECK_REPAIR, "F16 ", NPK_NOTE);
    NEED(unlinkat(p.dir, ".npkfs/what", 0) == 0);
    NEED(unlinkat(p.dir, ".npkfs/lock", 0) == 0 && mkdirat(p.dir, ".npkfs/lock", 0755) == 0);
    expect(&p, 0, "F11 ", NPK_DAMAGE);
    NEED(unlinkat(p.dir, ".npkfs/lock", AT_REMOVEDIR) == 0);
    NEED(unlinkat(p.dir, ".npkfs", AT_REMOVEDIR) == 0 && symlinkat("/tmp", p.dir, ".npkfs") == 0);
    expect(&p, 0, "F11 ", NPK_DAMAGE);
    NEED(unlinkat(p.dir, ".npkfs", 0) == 0);
    expect(&p, 0, "", -1);
    place_end(&p);
}

static void test_table(void) /* F12, F13, F14 */
{
    place p = place_begin();
    arrays_make(&p, "x", 5);
    begin_session(&p, "x.npy");
    expect(&p, 0, "F10 ", NPK_NOTE);
    npk_file_id id;
    npk_dirty e;
    int fd = openat(p.dir, "x.npy", O_RDONLY), table = openat(p.dir, ".npkfs/dirty", O_RDWR);
    NEED(npk__file_id(fd, &id) == 0 && npk__dirty_find(p.dir, &id, &e) == 1);
    close(fd);
    /* One bit of the slot: it counts as free, and is named. */
    char byte;
    NEED(pread(table, &byte, 1, (off_t)e.slot_offset + 60) == 1);
    byte ^= 4;
    NEED(pwrite(table, &byte, 1, (off_t)e.slot_offset + 60) == 1);
    expect(&p, 0, "F13 ", NPK_DAMAGE);
    byte ^= 4;
    NEED(pwrite(table, &byte, 1, (off_t)e.slot_offset + 60) == 1);
    expect(&p, NPK_CHECK_REPAIR, "F10+ ", NPK_NOTE);
    byte ^= 4;
    NEED(pwrite(table, "nonsense", 8, 2 * 4096 + 512) == 8);
    expect(&p, NPK_CHECK_REPAIR, "F13+ ", NPK_DAMAGE);
    expect(&p, 0, "", -1);
    begin_session(&p, "x.npy");
    /* Its array is renamed, then gone. */
    NEED(renameat(p.dir, "x.npy", p.dir, "y.npy") == 0);
    expect(&p, 0, "F10 ", NPK_NOTE);
    NEED(unlinkat(p.dir, "y.npy", 0) == 0);
    expect(&p, 0, "F14 ", NPK_NOTE);
    expect(&p, NPK_CHECK_REPAIR, "F14+ ", NPK_NOTE);
    expect(&p, 0, "", -1);
    NEED(pwrite(table, "NPKDIRTX", 8, 0) == 8);
    expect(&p, NPK_CHECK_REPAIR, "F12 ", NPK_DAMAGE);
    close(table);
    npk__locks_drop_idle(); /* as a process that begins now */
    /* The next change sets it aside and begins a new one. */
    arrays_make(&p, "x", 5);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(5, 1), 1, NULL), 0);
    unit_note("%s", npk_error());
    arrays_findings all = arrays_check(&p, NULL, 0);
    CHECK_HAS(all.rules, "F16 ");
    CHECK_HAS(all.rules, "F10 ");
    CHECK_EQ(all.worst, NPK_NOTE);
    place_end(&p);
}

static void test_temporary(void) /* F15 */
{
    place p = place_begin();
    arrays_make(&p, "g/x", 5);
    write_file(&p, "g/.npkfs/tmp.0123456789abcdef", "rest", 4);
    expect(&p, 0, "F15 ", NPK_NOTE);
    int fd = openat(p.dir, "g/.npkfs/tmp.0123456789abcdef", O_RDWR | O_CLOEXEC);
    NEED(npk__ofd_lock(fd, F_WRLCK, 0, 0) == 0);
    expect(&p, NPK_CHECK_REPAIR, "", -1); /* its maker is at work */
    close(fd);
    expect(&p, NPK_CHECK_REPAIR, "F15+ ", NPK_NOTE);
    CHECK(!place_exists(&p, "g/.npkfs/tmp.0123456789abcdef"));
    expect(&p, 0, "", -1);
    place_end(&p);
}

int main(void)
{
    int skip = arrays_find_place();
    if (skip)
        return skip;
    RUN(test_nothing);
    RUN(test_plain);
    RUN(test_unfinished);
    RUN(test_uncounted);
    RUN(test_foreign);
    RUN(test_part_row);
    RUN(test_dead_append);
    RUN(test_session);
    RUN(test_folder);
    RUN(test_table);
    RUN(test_temporary);
    return UNIT_RESULT();
}
