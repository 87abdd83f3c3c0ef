/* SPDX-License-Identifier: Apache-2.0 */
/* Appending and replacing rows, also when it goes wrong at any of its system calls. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

#include "arrays.h"
#include "dirty.h"
#include "target.h"
#include "unit.h"

/* ---- append ---------------------------------------------------------------------------------------------------- */

static void test_append(void)
{
    place p = place_begin();
    uint64_t first = 99;
    arrays_make(&p, "g/x", 0);
    CHECK_EQ(npk_append(p.store, "g/x", arrays_rows(0, 1), 1, &first), 0);
    CHECK_EQ(first, 0);
    CHECK_EQ(npk_append(p.store, "g/x", arrays_rows(1, 20), 20, &first), 0);
    CHECK_EQ(first, 1);
    CHECK_EQ(npk_append(p.store, "g/x", NULL, 0, &first), 0);
    CHECK_EQ(first, 21);
    CHECK_EQ(npk_append(p.store, "g/x", arrays_rows(21, 4), 4, NULL), 0);
    CHECK_EQ(arrays_whole(&p, "g/x"), 25);
    CHECK_EQ(npk_append(p.store, "absent", arrays_rows(0, 1), 1, NULL), -ENOENT);
    CHECK_EQ(npk_append(p.store, "absent/x", arrays_rows(0, 1), 1, NULL), -ENOENT);
    CHECK_EQ(npk_append(p.store, "g", arrays_rows(0, 1), 1, NULL), -ENOENT);
    CHECK_EQ(npk_append(p.store, "../x", arrays_rows(0, 1), 1, NULL), -EINVAL);
    first = 7;
    CHECK_EQ(npk_append(p.store, "g/x", arrays_rows(0, 1), UINT64_MAX / 4, &first), -EFBIG);
    CHECK_EQ(first, 7);
    CHECK_EQ(arrays_whole(&p, "g/x"), 25);
    NEED(mkdirat(p.dir, "empty", 0755) == 0);
    CHECK_EQ(npk_append(p.store, "empty/x", arrays_rows(0, 1), 1, NULL), -ENOENT);
    CHECK(!place_exists(&p, "empty/.npkfs")); /* a wrong name changes nothing */
    place_end(&p);
}

/* The digits grow in a header of any layout: with blanks before the number (ours), behind the dict (numpy's), none. */
static void test_append_digits(void)
{
    place p = place_begin();
    const unsigned pads[] = {0, 1, 2, 60};
    for (size_t i = 0; i < 4; i++) {
        unit_note("%u blanks behind the dict", pads[i]);
        arrays_make_tight(&p, "tight.npy", 8, pads[i]);
        for (uint64_t rows = 8; rows < 12; rows++)
            CHECK_EQ(npk_append(p.store, "tight", arrays_rows(rows, 1), 1, NULL), 0);
        CHECK_EQ(arrays_whole(&p, "tight"), 12);
        CHECK_EQ(npk_append(p.store, "tight", arrays_rows(12, 87), 87, NULL), 0);
        CHECK_EQ(npk_append(p.store, "tight", arrays_rows(99, 1), 1, NULL), 0);
        CHECK_EQ(npk_append(p.store, "tight", arrays_rows(100, 1000), 1000, NULL), 0);
        CHECK_EQ(arrays_whole(&p, "tight"), 1100);
    }
    unit_note("%s", "");
    arrays_make(&p, "ours", 9);
    for (uint64_t rows = 9; rows < 120; rows++)
        CHECK_EQ(npk_append(p.store, "ours", arrays_rows(rows, 1), 1, NULL), 0);
    CHECK_EQ(arrays_whole(&p, "ours"), 120);
    place_end(&p);
}

/* A header without room is another file when it is longer: not while somebody writes. */
static void test_append_no_room(void)
{
    place p = place_begin();
    arrays_make_tight(&p, "x.npy", 9, 0);
    uint64_t bytes = arrays_file_bytes(&p, "x.npy");
    int writer = openat(p.dir, "x.npy", O_WRONLY | O_APPEND | O_CLOEXEC);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(9, 1), 1, NULL), -EBUSY);
    CHECK_EQ(arrays_file_bytes(&p, "x.npy"), bytes);
    CHECK_EQ(place_rows_of(&p, "x.npy"), 9);
    close(writer);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(9, 1), 1, NULL), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 10);
    /* With two names it cannot be swapped. */
    arrays_make_tight(&p, "y.npy", 9, 0);
    NEED(linkat(p.dir, "y.npy", p.dir, "z.npy", 0) == 0);
    CHECK_EQ(npk_append(p.store, "y", arrays_rows(9, 1), 1, NULL), -EMLINK);
    CHECK_EQ(arrays_whole(&p, "y"), 9);
    place_end(&p);
}

/* Beside a program that appends through its own descriptor. */
static void test_append_beside_writer(void)
{
    place p = place_begin();
    arrays_make(&p, "x", 5);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(5, 1), 1, NULL), 0); /* the session begins */
    int writer = openat(p.dir, "x.npy", O_WRONLY | O_APPEND | O_CLOEXEC);
    NEED(write(writer, arrays_rows(6, 2), 2 * ROW_BYTES) == 2 * ROW_BYTES);
    uint64_t first = 0;
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(8, 1), 1, &first), 0);
    CHECK_EQ(first, 8);
    CHECK_EQ(arrays_whole(&p, "x"), 9);
    close(writer);
    place_end(&p);
}

static void test_part_row(void)
{
    place p = place_begin();
    npk__tail_wait_ms = 100;
    arrays_make(&p, "x", 5);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(5, 1), 1, NULL), 0);
    int writer = openat(p.dir, "x.npy", O_WRONLY | O_APPEND | O_CLOEXEC);
    NEED(write(writer, arrays_rows(6, 1), 5) == 5);
    uint64_t bytes = arrays_file_bytes(&p, "x.npy");
    /* Its writer lives: we wait, then refuse. */
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(6, 1), 1, NULL), -EBUSY);
    CHECK_HAS(npk_error(), "5 bytes of an unfinished row");
    CHECK_EQ(arrays_file_bytes(&p, "x.npy"), bytes);
    CHECK_EQ(npk_replace_range(p.store, "x", 0, 1, arrays_rows(0, 1)), 0); /* has nothing to do with the end */
    /* He completes it. */
    NEED(write(writer, (const char *)arrays_rows(6, 1) + 5, ROW_BYTES - 5) == ROW_BYTES - 5);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(7, 1), 1, NULL), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 8);
    /* He dies in the middle of the next: the part is set aside. */
    NEED(write(writer, arrays_rows(8, 1), 3) == 3);
    close(writer);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(8, 1), 1, NULL), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 9);
    CHECK_EQ(arrays_file_bytes(&p, "x.npy.tail"), 3);
    npk__tail_wait_ms = 2000;
    place_end(&p);
}

/* Bytes that nobody of us saw are neither counted nor buried. */
static void test_foreign_tail(void)
{
    place p = place_begin();
    arrays_make(&p, "x", 5);
    place_append(&p, "x.npy", arrays_rows(5, 2), 2 * ROW_BYTES);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(7, 1), 1, NULL), -EBUSY);
    CHECK_HAS(npk_error(), "--adopt");
    CHECK_EQ(arrays_whole(&p, "x"), 5);
    CHECK_EQ(npk_replace_range(p.store, "x", 1, 1, arrays_rows(1, 1)), 0);
    arrays_make(&p, "y", 5);
    place_append(&p, "y.npy", "abc", 3);
    npk__tail_wait_ms = 10;
    CHECK_EQ(npk_append(p.store, "y", arrays_rows(5, 1), 1, NULL), -EBUSY);
    npk__tail_wait_ms = 2000;
    CHECK_EQ(arrays_check(&p, "x", NPK_CHECK_ADOPT).worst, NPK_WARNING);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(7, 1), 1, NULL), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 8);
    place_end(&p);
}

static void test_kinds_refused(void)
{
    place p = place_begin();
    static const char fortran[] = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 4), }\n";
    char file[256] = "\x93NUMPY\x01";
    file[8] = (char)(sizeof(fortran) - 1);
    memcpy(file + 10, fortran, sizeof(fortran) - 1);
    int fd = openat(p.dir, "f.npy", O_WRONLY | O_CREAT, 0644);
    NEED(write(fd, file, 10 + sizeof(fortran) - 1 + 32) > 0);
    close(fd);
    CHECK_EQ(npk_append(p.store, "f", arrays_rows(0, 1), 1, NULL), -ENOTSUP);
    CHECK_HAS(npk_error(), "Fortran");
    CHECK_EQ(npk_replace_range(p.store, "f", 0, 1, arrays_rows(0, 1)), -ENOTSUP);
    fd = openat(p.dir, "p.npy", O_WRONLY | O_CREAT, 0644);
    NEED(write(fd, "plain", 5) == 5);
    close(fd);
    CHECK_EQ(npk_append(p.store, "p", arrays_rows(0, 1), 1, NULL), -ENOTSUP);
    close(place_array(&p, "short.npy", 9, 4, 0));
    CHECK_EQ(npk_append(p.store, "short", arrays_rows(0, 1), 1, NULL), -EINVAL);
    CHECK_HAS(npk_error(), "unfinished");
    place_end(&p);
}

static void test_append_many(void)
{
    place p = place_begin();
    arrays_make(&p, "a", 5);
    arrays_make(&p, "g/b", 0);
    arrays_make_tight(&p, "c.npy", 9, 0);
    const npk_rows_in good[] = {{"a", arrays_rows(5, 1), 1}, {"c", arrays_rows(5, 1), 0}, {"a", arrays_rows(5, 1), 1}};
    CHECK_EQ(npk_append_many(p.store, good, 3), 0);
    CHECK_EQ(place_rows_of(&p, "a.npy"), 7);
    NEED(npk_truncate(p.store, "a", 5) == 0);
    static float b[3 * ROW_FLOATS], c[ROW_FLOATS];
    memcpy(b, arrays_rows(0, 3), sizeof(b));
    memcpy(c, arrays_rows(9, 1), sizeof(c));
    static float a[2 * ROW_FLOATS];
    memcpy(a, arrays_rows(5, 2), sizeof(a));
    const npk_rows_in all[] = {{"g/b", b, 3}, {"a", a, 1}, {"c", c, 1}, {"a", a + ROW_FLOATS, 1}};
    CHECK_EQ(npk_append_many(p.store, all, 4), 0);
    CHECK_EQ(arrays_whole(&p, "g/b"), 3);
    CHECK_EQ(arrays_whole(&p, "a"), 7);
    CHECK_EQ(arrays_whole(&p, "c"), 10);
    /* One that cannot be: none is made. */
    const npk_rows_in bad[] = {{"g/b", b, 3}, {"absent", b, 1}};
    CHECK_EQ(npk_append_many(p.store, bad, 2), -ENOENT);
    CHECK_HAS(npk_error(), "absent");
    CHECK_EQ(arrays_whole(&p, "g/b"), 3);
    CHECK_EQ(npk_append_many(p.store, NULL, 0), 0);
    place_end(&p);
}

/* ---- replace --------------------------------------------------------------------------------------------------- */

static void test_replace(void)
{
    place p = place_begin();
    arrays_make(&p, "x", 10);
    uint64_t bytes = arrays_file_bytes(&p, "x.npy");
    float rows[10 * ROW_FLOATS];
    npk_array *a = NULL;
    CHECK_EQ(npk_replace_range(p.store, "x", 8, 2, arrays_rows(100, 2)), 0);
    CHECK_EQ(npk_replace_range(p.store, "x", 10, 0, NULL), 0);
    CHECK_EQ(npk_replace_range(p.store, "x", 9, 2, arrays_rows(0, 2)), -ERANGE);
    CHECK_EQ(npk_replace_range(p.store, "x", UINT64_MAX, 2, arrays_rows(0, 2)), -ERANGE);
    CHECK_HAS(npk_error(), "there are 10 rows");
    const int64_t list[] = {0, 1, -9, 5, 5, -5};
    CHECK_EQ(npk_replace_rows(p.store, "x", list, 6, arrays_rows(200, 6)), 0);
    const int64_t bad[] = {3, -11};
    CHECK_EQ(npk_replace_rows(p.store, "x", bad, 2, arrays_rows(0, 2)), -ERANGE);
    CHECK_HAS(npk_error(), "-11");
    CHECK_EQ(npk_replace_rows(p.store, "x", NULL, 0, NULL), 0);
    const uint64_t now[] = {200, 202, 2, 3, 4, 205, 6, 7, 100, 101};
    NEED(npk_array_open(p.store, "x", &a) == 0 && npk_read_all(a, rows) == 0);
    for (size_t i = 0; i < 10; i++)
        CHECK(memcmp(rows + i * ROW_FLOATS, arrays_rows(now[i], 1), ROW_BYTES) == 0);
    npk_array_close(&a);
    CHECK_EQ(arrays_file_bytes(&p, "x.npy"), bytes);
    place_end(&p);
}

/* ---- faults ---------------------------------------------------------------------------------------------------- */

struct appending {
    uint64_t at, rows;
    int acknowledged; /* where the child tells that an append returned */
};

static int append_twice(npk_store *s, void *ctx)
{
    struct appending *a = ctx;
    for (uint64_t i = 0; i < 2; i++) {
        int err = npk_append(s, "x", arrays_rows(a->at + i * a->rows, a->rows), a->rows, NULL);
        if (err)
            return err;
        if (write(a->acknowledged, "1", 1) != 1)
            return -EPIPE;
    }
    return 0;
}

static int64_t count_acknowledged(int fd)
{
    char c[8];
    ssize_t n = read(fd, c, sizeof(c));
    return n < 0 ? 0 : n;
}

/* An array with blanks before its number, which the first growth of the digits leaves. From then on every step of the
 * digits may be cut at any byte; that first step moves text and is one write inside a page, which no kill can cut. */
static void make_roomy(const place *p, uint64_t rows)
{
    arrays_make(p, "x", 9);
    NEED(npk_append(p->store, "x", arrays_rows(9, 1), 1, NULL) == 0 && npk_truncate(p->store, "x", 0) == 0);
    NEED(npk_append(p->store, "x", arrays_rows(0, rows), rows, NULL) == 0);
}

/* Cut two appends at every call that changes something. What was acknowledged is there, the other is whole or absent,
 * and the array goes on. The digits grow from 9 to 10 and to 100 on the way. */
enum layout { NUMPYS, TIGHT, ROOMY };

static void append_under(const char *kind, uint64_t begin, uint64_t rows, enum layout layout)
{
    unsigned ends = 0, cut = 0;
    for (unsigned n = 1; ends == 0 && n < 400; n++) {
        place p = place_begin();
        int pipes[2];
        char plan[64];
        NEED(pipe2(pipes, O_CLOEXEC | O_NONBLOCK) == 0);
        if (layout == TIGHT)
            arrays_make_tight(&p, "x.npy", begin, 40);
        else if (layout == NUMPYS)
            arrays_make(&p, "x", begin);
        else
            make_roomy(&p, begin);
        struct appending a = {.at = begin, .rows = rows, .acknowledged = pipes[1]};
        snprintf(plan, sizeof(plan), "%s:%u", kind, n);
        unit_note("%s, %" PRIu64 " + 2 * %" PRIu64 " rows", plan, begin, rows);
        int status = arrays_in_child(&p, plan, append_twice, &a);
        int64_t acknowledged = count_acknowledged(pipes[0]);
        ends += status == 0;
        cut += status != 0;
        CHECK(status == 0 || status == -SIGKILL);
        CHECK_EQ(npk_append(p.store, "x", NULL, 0, NULL), 0); /* anybody's next operation on it */
        int64_t whole = arrays_whole(&p, "x");
        CHECK(whole >= (int64_t)(begin + rows * (uint64_t)acknowledged));
        CHECK((whole - (int64_t)begin) % (int64_t)rows == 0);
        CHECK(whole <= (int64_t)(begin + rows * (uint64_t)acknowledged + rows));
        CHECK_EQ(npk_append(p.store, "x", arrays_rows((uint64_t)whole, 3), 3, NULL), 0);
        CHECK_EQ(arrays_whole(&p, "x"), whole + 3);
        close(pipes[0]);
        close(pipes[1]);
        place_end(&p);
    }
    CHECK_EQ(ends, 1);
    CHECK(cut > 6);
}

static void test_append_killed(void)
{
    append_under("kill", 9, 1, NUMPYS);
    append_under("kill", 5, 95, NUMPYS);
    append_under("kill", 9, 1, TIGHT);
    append_under("kill", 8, 92, ROOMY);
}

static void test_append_torn(void)
{
    append_under("kill-torn", 9, 1, ROOMY);
    append_under("kill-torn", 8, 92, ROOMY);
    append_under("kill-torn", 198, 1, ROOMY);
}

/* Each call fails in turn: the errno comes back, and what was there is still there. */
static void test_append_fails(void)
{
    static const char *const errors[] = {"ENOSPC", "EIO"};
    for (size_t i = 0; i < 2; i++) {
        bool done = false;
        for (unsigned n = 1; !done && n < 400; n++) {
            place p = place_begin();
            char plan[64];
            arrays_make(&p, "x", 9);
            int sink = open("/dev/null", O_WRONLY | O_CLOEXEC);
            struct appending a = {.at = 9, .rows = 2, .acknowledged = sink};
            snprintf(plan, sizeof(plan), "fail:%u:%s", n, errors[i]);
            unit_note("%s", plan);
            int status = arrays_in_child(&p, plan, append_twice, &a);
            close(sink);
            done = status == 0 && n > 20;
            CHECK(status == 0 || status == ENOSPC || status == EIO);
            CHECK_EQ(npk_append(p.store, "x", NULL, 0, NULL), 0);
            int64_t whole = arrays_whole(&p, "x");
            if (status == 0)
                CHECK_EQ(whole, 13);
            else
                CHECK(whole == 9 || whole == 11);
            CHECK_EQ(npk_append(p.store, "x", arrays_rows((uint64_t)whole, 1), 1, NULL), 0);
            CHECK_EQ(arrays_whole(&p, "x"), whole + 1);
            place_end(&p);
        }
        CHECK(done);
    }
}

static int append_once(npk_store *s, void *ctx)
{
    const struct appending *a = ctx;
    return npk_append(s, "x", arrays_rows(a->at, a->rows), a->rows, NULL);
}

/* The disk takes half of the rows and then says ENOSPC: they are cut off again. Only half at first: it goes on. */
static void test_append_short(void)
{
    bool seen = false;
    for (unsigned n = 1; n < 40; n++) {
        place p = place_begin();
        char plan[64];
        make_roomy(&p, 9);
        struct appending a = {.at = 9, .rows = 10};
        uint64_t before = arrays_file_bytes(&p, "x.npy");
        snprintf(plan, sizeof(plan), "short:%u,fail:%u+:ENOSPC", n, n + 1);
        unit_note("%s", plan);
        int status = arrays_in_child(&p, plan, append_once, &a);
        uint64_t after = arrays_file_bytes(&p, "x.npy");
        /* Where the cut fails, too, the next holder of the lock does it; if all rows were written by then, they count.
         */
        bool part = status == ENOSPC && after > before && after < before + 10 * ROW_BYTES;
        seen |= part;
        CHECK_EQ(npk_append(p.store, "x", NULL, 0, NULL), 0);
        bool whole = arrays_file_bytes(&p, "x.npy") == before + 10 * ROW_BYTES;
        CHECK(status == ENOSPC || whole);
        CHECK(!part || !whole);
        CHECK_EQ(arrays_whole(&p, "x"), whole ? 19 : 9);
        CHECK_EQ(arrays_file_bytes(&p, "x.npy"), whole ? before + 10 * ROW_BYTES : before);
        place_end(&p);
        p = place_begin();
        make_roomy(&p, 9);
        snprintf(plan, sizeof(plan), "short:%u", n);
        CHECK_EQ(arrays_in_child(&p, plan, append_once, &a), 0);
        CHECK_EQ(arrays_whole(&p, "x"), 19);
        place_end(&p);
    }
    CHECK(seen);
}

/* A file that may grow no further, as on a full disk: the kernel writes a part and refuses the rest. */
static void test_append_to_limit(void)
{
    place p = place_begin();
    arrays_make(&p, "x", 9);
    uint64_t bytes = arrays_file_bytes(&p, "x.npy");
    char *big = calloc(1, 1 << 20);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        const struct rlimit limit = {bytes + 100000, bytes + 100000};
        signal(SIGXFSZ, SIG_IGN);
        npk_store *s;
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0 || npk_store_open(p.path, 0, &s) != 0)
            _exit(200);
        _exit(-npk_append(s, "x", big, (1 << 20) / ROW_BYTES, NULL));
    }
    CHECK_EQ(place_wait(child), EFBIG);
    CHECK_EQ(arrays_file_bytes(&p, "x.npy"), bytes); /* cut at once, without anybody's help */
    CHECK_EQ(arrays_whole(&p, "x"), 9);
    free(big);
    place_end(&p);
}

int main(void)
{
    int skip = arrays_find_place();
    if (skip)
        return skip;
    RUN(test_append);
    RUN(test_append_digits);
    RUN(test_append_no_room);
    RUN(test_append_beside_writer);
    RUN(test_part_row);
    RUN(test_foreign_tail);
    RUN(test_kinds_refused);
    RUN(test_append_many);
    RUN(test_replace);
    RUN(test_append_killed);
    RUN(test_append_torn);
    RUN(test_append_fails);
    RUN(test_append_short);
    RUN(test_append_to_limit);
    return UNIT_RESULT();
}
