/* SPDX-License-Identifier: Apache-2.0 */
/* Saving: many at once, in place of others, and cut at any system call. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#include "arrays.h"
#include "dirty.h"
#include "unit.h"

static npk_array_in array_of(const char *name, const uint64_t *shape, uint64_t first)
{
    return (npk_array_in){
        .name = name, .dtype = "float32", .shape = shape, .ndim = 2, .data = arrays_rows(first, shape[0])};
}

static void test_save_and_create(void)
{
    place p = place_begin();
    const uint64_t shape[2] = {7, ROW_FLOATS};
    npk_array_in in = array_of("g/h/x", shape, 0);
    CHECK_EQ(npk_create(p.store, &in), 0);
    CHECK_EQ(arrays_whole(&p, "g/h/x"), 7);
    CHECK_EQ(npk_create(p.store, &in), -EEXIST);
    CHECK_HAS(npk_error(), "g/h/x");
    CHECK_EQ(npk_save(p.store, &in, 1), 0);
    in.data = NULL;
    in.name = "zeros";
    CHECK_EQ(npk_save(p.store, &in, 1), 0);
    npk_array *a = NULL;
    float row[ROW_FLOATS] = {1};
    NEED(npk_array_open(p.store, "zeros", &a) == 0 && npk_read_range(a, 6, 1, row) == 0);
    CHECK(row[0] == 0);
    npk_array_close(&a);
    CHECK_EQ(npk_save(p.store, NULL, 0), 0);
    place_end(&p);
}

/* Everything is looked at before the first byte: then nothing has changed, not even a group was made. */
static void test_refused(void)
{
    place p = place_begin();
    const uint64_t shape[2] = {7, ROW_FLOATS}, huge[3] = {UINT64_C(1) << 40, UINT64_C(1) << 40, 0}, deep[65] = {0};
    NEED(mkdirat(p.dir, "dir.npy", 0755) == 0 && mkfifoat(p.dir, "pipe.npy", 0644) == 0);
    NEED(symlinkat("x.npy", p.dir, "link.npy") == 0);
    struct {
        npk_array_in in;
        int err;
    } bad[] = {
        {array_of("../x", shape, 0), -EINVAL},
        {array_of("", shape, 0), -EINVAL},
        {array_of("a//b", shape, 0), -EINVAL},
        {array_of(".npkfs/x", shape, 0), -EINVAL},
        {array_of("dir", shape, 0), -EISDIR},
        {array_of("pipe", shape, 0), -EINVAL},
        {array_of("link", shape, 0), -ELOOP},
        {array_of("good", shape, 0), -EINVAL}, /* twice */
        {{.name = "x", .dtype = "float33", .shape = shape, .ndim = 2}, -EINVAL},
        {{.name = "x", .dtype = "O", .shape = shape, .ndim = 2}, -EINVAL},
        {{.name = "x", .dtype = "f4", .shape = huge, .ndim = 2}, -EOVERFLOW},
        {{.name = "x", .dtype = "f4", .shape = huge, .ndim = 3}, -EOVERFLOW},
        {{.name = "x", .dtype = "f4", .shape = deep, .ndim = 65}, -EINVAL},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const npk_array_in both[2] = {array_of("good", shape, 0), bad[i].in};
        const npk_array_in third[2] = {array_of("new/group/y", shape, 0), bad[i].in};
        unit_note("%s %s", bad[i].in.name, bad[i].in.dtype);
        CHECK_EQ(npk_save(p.store, both, 2), bad[i].err);
        CHECK(*npk_error());
        CHECK(!place_exists(&p, "good.npy"));
        if (strcmp(bad[i].in.name, "good") != 0)
            CHECK_EQ(npk_save(p.store, third, 2), bad[i].err);
        CHECK(!place_exists(&p, "new"));
    }
    place_end(&p);
}

static void test_many(void)
{
    place p = place_begin();
    enum { COUNT = 300 };
    static char names[COUNT][32];
    static npk_array_in in[COUNT];
    const uint64_t shape[2] = {1000, ROW_FLOATS};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < COUNT; i++) {
            snprintf(names[i], sizeof(names[i]), "g%d/x%d", i % 7, i);
            in[i] = array_of(names[i], shape, 0);
        }
        CHECK_EQ(npk_save(p.store, in, COUNT), 0);
        for (int i = 0; i < COUNT; i++)
            CHECK_EQ(arrays_whole(&p, names[i]), 1000);
    }
    CHECK_EQ(arrays_check(&p, NULL, 0).worst, -1); /* no temporary file is left */
    /* One fails after others were begun: the sentence of its thread comes to the caller. */
    NEED(npk__io_plan_set("fail:500+:ENOSPC") == 0);
    int err = npk_save(p.store, in, COUNT);
    npk__io_plan_set(NULL);
    CHECK_EQ(err, -ENOSPC);
    CHECK_HAS(npk_error(), "x");
    for (int i = 0; i < COUNT; i++)
        CHECK_EQ(arrays_whole(&p, names[i]), 1000);
    place_end(&p);
}

/* A replaced array keeps what belongs to the file; its old rows stay with who reads them. */
static void test_replace_keeps(void)
{
    place p = place_begin();
    struct stat old, new;
    char value[16] = "";
    npk_array *a = NULL;
    float rows[5 * ROW_FLOATS];
    arrays_make(&p, "x", 5);
    int fd = openat(p.dir, "x.npy", O_RDONLY);
    bool owned = fchown(fd, 12345, 54321) == 0, xattr = fsetxattr(fd, "user.npk.test", "kept", 4, 0) == 0;
    NEED(fchmod(fd, 0640) == 0 && fstat(fd, &old) == 0);
    close(fd);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(5, 1), 1, NULL), 0);
    NEED(npk_array_open(p.store, "x", &a) == 0);
    const uint64_t shape[2] = {3, ROW_FLOATS};
    const npk_array_in in = array_of("x", shape, 0);
    CHECK_EQ(npk_save(p.store, &in, 1), 0);
    fd = openat(p.dir, "x.npy", O_RDONLY);
    NEED(fstat(fd, &new) == 0);
    CHECK(new.st_ino != old.st_ino);
    CHECK_EQ(new.st_mode, old.st_mode);
    if (owned) {
        CHECK_EQ(new.st_uid, 12345);
        CHECK_EQ(new.st_gid, 54321);
    }
    if (xattr) {
        CHECK_EQ(fgetxattr(fd, "user.npk.test", value, sizeof(value)), 4);
        CHECK_STR(value, "kept");
    }
    close(fd);
    CHECK_EQ(arrays_whole(&p, "x"), 3);
    CHECK_EQ(npk_array_info(a)->rows, 6);
    CHECK_EQ(npk_read_range(a, 0, 5, rows), 0);
    CHECK(memcmp(rows, arrays_rows(0, 5), sizeof(rows)) == 0);
    npk_array_close(&a);
    npk_file_id id = {.inode = old.st_ino};
    npk_dirty e;
    CHECK_EQ(npk__dirty_find(p.dir, &id, &e), 0); /* the old file's session is over */
    place_end(&p);
}

static void test_busy(void)
{
    place p = place_begin();
    const uint64_t shape[2] = {3, ROW_FLOATS};
    const npk_array_in in[2] = {array_of("y", shape, 0), array_of("x", shape, 0)};
    arrays_make(&p, "x", 5);
    arrays_make(&p, "y", 5);
    int fd = openat(p.dir, "x.npy", O_RDWR | O_CLOEXEC);
    void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    CHECK_EQ(npk_save(p.store, in, 2), -EBUSY);
    CHECK_HAS(npk_error(), "\"x\"");
    CHECK_EQ(arrays_whole(&p, "x"), 5);
    CHECK_EQ(arrays_whole(&p, "y"), 5);
    munmap(map, 4096);
    CHECK_EQ(npk_save(p.store, in, 2), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 3);
    NEED(linkat(p.dir, "y.npy", p.dir, "z.npy", 0) == 0);
    CHECK_EQ(npk_save(p.store, in, 1), -EMLINK);
    place_end(&p);
}

static int create_slowly(npk_store *s, void *ctx)
{
    const uint64_t shape[2] = {7, ROW_FLOATS};
    const npk_array_in in = array_of("x", shape, 0);
    return *(bool *)ctx ? npk_create(s, &in) : npk_save(s, &in, 1);
}

/* A program makes the file just before the new one gets the name: npk_create does not replace it, npk_save does. */
static void test_name_taken(void)
{
    for (int create = 0; create < 2; create++) {
        place p = place_begin();
        bool by_create = create;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0)
            _exit(arrays_in_child(&p, "delay:renameat2:400", create_slowly, &by_create) & 127);
        bool begun = false;
        for (int i = 0; i < 3000 && !begun; i++) {
            usleep(1000);
            begun = place_exists(&p, ".npkfs");
        }
        usleep(100000); /* it has looked, and waits before the rename */
        arrays_make_tight(&p, "x.npy", 2, 0);
        int status = place_wait(child);
        CHECK(begun);
        CHECK_EQ(status, create ? EEXIST : 0);
        CHECK_EQ(arrays_whole(&p, "x"), create ? 2 : 7);
        place_end(&p);
    }
}

/* ---- faults ---------------------------------------------------------------------------------------------------- */

static int save_two(npk_store *s, void *ctx)
{
    static float other[7 * ROW_FLOATS];
    const uint64_t three[2] = {3, ROW_FLOATS}, seven[2] = {7, ROW_FLOATS};
    (void)ctx;
    memcpy(other, arrays_rows(0, 7), sizeof(other));
    npk_array_in in[2] = {array_of("x", three, 0), array_of("g/new", seven, 0)};
    in[1].data = other;
    return npk_save(s, in, 2);
}

/* Old or new, never a mix, and nothing is left lying around that the check does not know and remove. */
static void saved_under(const char *kind, const char *end)
{
    bool done = false;
    unsigned n = 1;
    for (; !done && n < 100; n++) {
        place p = place_begin();
        char plan[64];
        arrays_make(&p, "x", 5);
        snprintf(plan, sizeof(plan), "%s:%u%s", kind, n, end);
        unit_note("%s", plan);
        int status = arrays_in_child(&p, plan, save_two, NULL);
        CHECK(status == 0 || status == (*end ? ENOSPC : -SIGKILL));
        done = status == 0;
        int64_t x = arrays_whole(&p, "x");
        CHECK(x == 3 || (x == 5 && !done));
        if (place_exists(&p, "g/new.npy") || done)
            CHECK_EQ(arrays_whole(&p, "g/new"), 7);
        arrays_findings left = arrays_check(&p, NULL, NPK_CHECK_REPAIR);
        CHECK(left.worst <= NPK_NOTE);
        if (*end)
            CHECK_STR(left.rules, "");
        CHECK_EQ(arrays_check(&p, NULL, 0).worst, -1);
        place_end(&p);
    }
    CHECK(done);
    CHECK(n > 10);
}

/* ---- through a descriptor (npk_save_file) ---- */

static int named_fd(const place *p)
{
    int fd = openat(p->dir, "x.npy", O_RDONLY | O_CLOEXEC);
    NEED(fd >= 0);
    return fd;
}

static npk_save_file *begun(const place *p)
{
    npk_save_file *f = NULL;
    int fd = named_fd(p);
    NEED(npk_save_file_begin(p->store, "x.npy", fd, &f) == 0);
    close(fd);
    return f;
}

static void test_save_file_states(void)
{
    place p = place_begin();
    uint8_t bytes[4096];
    char aside[256] = "?";
    arrays_make(&p, "x", 7);
    arrays_make(&p, "y", 20);
    int fd = openat(p.dir, "y.npy", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));
    NEED(size == (ssize_t)(128 + 20 * ROW_FLOATS * sizeof(float)));
    close(fd);

    npk_save_file *f = begun(&p);
    int w = npk_save_file_fd(f);
    CHECK_EQ(npk_save_file_state(f), NPK_SAVE_EMPTY);
    for (ssize_t n = 1; n <= size; n++) {
        NEED(pwrite(w, bytes + n - 1, 1, n - 1) == 1);
        CHECK_EQ(npk_save_file_state(f), n == size ? NPK_SAVE_WHOLE : n == 128 ? NPK_SAVE_HEADER : NPK_SAVE_PART);
    }
    CHECK_EQ(arrays_whole(&p, "x"), 7);
    /* A program that has the old array open for writing: nothing is changed, and it can be tried again. */
    int writer = openat(p.dir, "x.npy", O_RDWR | O_CLOEXEC);
    CHECK_EQ(npk_save_file_publish(p.store, &f, "x.npy", 0), -EBUSY);
    CHECK_HAS(npk_error(), "x.npy");
    CHECK(f != NULL);
    close(writer);
    CHECK_EQ(npk_save_file_publish(p.store, &f, "x.npy", 0), 0);
    CHECK(f == NULL);
    CHECK_EQ(arrays_whole(&p, "x"), 20);

    f = begun(&p); /* nothing was written: nothing is kept */
    CHECK_EQ(npk_save_file_set_aside(&f, aside), 0);
    CHECK_STR(aside, "");
    for (unsigned i = 0; i < 2; i++) {
        f = begun(&p);
        NEED(pwrite(npk_save_file_fd(f), bytes, 200, 0) == 200);
        CHECK_EQ(npk_save_file_set_aside(&f, aside), 0);
        CHECK_STR(aside, i ? "x.npy.unfinished.1" : "x.npy.unfinished");
        CHECK(faccessat(p.dir, aside, F_OK, 0) == 0);
    }
    CHECK_EQ(arrays_whole(&p, "x"), 20);

    f = begun(&p); /* the name is another's by then, or nobody's */
    NEED(pwrite(npk_save_file_fd(f), bytes, (size_t)size, 0) == size && unlinkat(p.dir, "x.npy", 0) == 0);
    CHECK_EQ(npk_save_file_publish(p.store, &f, "x.npy", NPK_SAVE_DURABLE), 0);
    CHECK_EQ(arrays_whole(&p, "x"), 20);
    f = begun(&p);
    NEED(pwrite(npk_save_file_fd(f), bytes, (size_t)size, 0) == size && unlinkat(p.dir, "x.npy", 0) == 0 &&
         mkdirat(p.dir, "x.npy", 0755) == 0);
    CHECK_EQ(npk_save_file_publish(p.store, &f, "x.npy", 0), -EISDIR);
    CHECK_EQ(npk_save_file_set_aside(&f, aside), 0);
    CHECK_STR(aside, "x.npy.unfinished.2");
    place_end(&p);
}

static void test_save_file_refused(void)
{
    place p = place_begin();
    npk_save_file *f = NULL;
    arrays_make(&p, "x", 7);
    NEED(linkat(p.dir, "x.npy", p.dir, "z.npy", 0) == 0);
    int fd = named_fd(&p);
    CHECK_EQ(npk_save_file_begin(p.store, "x.npy", fd, &f), -EMLINK);
    CHECK_EQ(npk_save_file_begin(p.store, "../x.npy", fd, &f), -EINVAL);
    CHECK_EQ(npk_save_file_begin(p.store, "none/x.npy", fd, &f), -ENOENT);
    npk_store *ro = NULL;
    NEED(npk_store_open(p.path, NPK_READ_ONLY, &ro) == 0);
    CHECK_EQ(npk_save_file_begin(ro, "x.npy", fd, &f), -EROFS);
    npk_store_close(&ro);
    CHECK(f == NULL);
    close(fd);
    place_end(&p);
}

static void test_killed(void)
{
    saved_under("kill", "");
    saved_under("kill-torn", "");
}

static void test_disk_full(void)
{
    saved_under("fail", ":ENOSPC");
}

int main(void)
{
    int skip = arrays_find_place();
    if (skip)
        return skip;
    RUN(test_save_and_create);
    RUN(test_refused);
    RUN(test_many);
    RUN(test_replace_keeps);
    RUN(test_busy);
    RUN(test_name_taken);
    RUN(test_save_file_states);
    RUN(test_save_file_refused);
    RUN(test_killed);
    RUN(test_disk_full);
    return UNIT_RESULT();
}
