/* SPDX-License-Identifier: Apache-2.0 */
/* The seam's fault plan: what crash tests rely on. */
#define _GNU_SOURCE 1

#include "io.h"

#include <signal.h>
#include <time.h>

#include "place.h"

static place p;

static int scratch(void)
{
    int fd = npk__openat(p.dir, "scratch", O_RDWR | O_CREAT | O_TRUNC, 0644);
    NEED(fd >= 0);
    return fd;
}

static uint64_t size_of(int fd)
{
    struct stat st;
    NEED(npk__fstat(fd, &st) == 0);
    return (uint64_t)st.st_size;
}

static void test_plans_are_checked(void)
{
    static const char *const bad[] = {"kill",
                                      "kill:",
                                      "kill:x",
                                      "kill:0",
                                      "kill:-1",
                                      "kill:1x",
                                      "fail:3:NOPE",
                                      "explode:3",
                                      "kill:1,oops:2",
                                      "delay:pwrite:x",
                                      "delay:pwrite",
                                      "short:1+",
                                      "count:/no/such/dir/x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        unit_note("%s", bad[i]);
        CHECK(npk__io_plan_set(bad[i]) < 0);
    }
    static const char *const good[] = {"kill:1000", "fail:1000:ENOSPC",          "fail:1000+:EIO",
                                       "fail:1000", "short:1000,kill-torn:2000", "delay:pwrite:1"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        unit_note("%s", good[i]);
        CHECK_EQ(npk__io_plan_set(good[i]), 0);
    }
    CHECK_EQ(npk__io_plan_set(NULL), 0);
}

static void test_fail_once(void)
{
    int fd = scratch();
    CHECK_EQ(npk__io_plan_set("fail:2:ENOSPC"), 0);
    CHECK_EQ(npk__pwrite_full(fd, "abc", 3, 0), 0);
    CHECK_EQ(npk__pwrite_full(fd, "def", 3, 3), -ENOSPC);
    CHECK_EQ(npk__pwrite_full(fd, "ghi", 3, 3), 0);
    CHECK_EQ(npk__io_plan_count(), 3);
    CHECK_EQ(size_of(fd), 6);
    npk__io_plan_set(NULL);
    close(fd);
}

static void test_fail_from_then_on(void)
{
    int fd = scratch();
    CHECK_EQ(npk__io_plan_set("fail:2+:EIO"), 0);
    CHECK_EQ(npk__ftruncate(fd, 10), 0);
    CHECK_EQ(npk__fsync(fd), -EIO);
    CHECK_EQ(npk__ftruncate(fd, 20), -EIO);
    CHECK_EQ(npk__unlinkat(p.dir, "scratch", 0), -EIO);
    char buf[4];
    CHECK_EQ(npk__pread(fd, buf, 4, 0), 4); /* reading changes nothing and is never counted */
    CHECK_EQ(npk_io_gate("pwrite", 7), -EIO);
    CHECK_EQ(npk__io_plan_count(), 5);
    npk__io_plan_set(NULL);
    CHECK_EQ(npk_io_gate("pwrite", 7), 0);
    CHECK_EQ(size_of(fd), 10);
    close(fd);
}

static void test_short_writes_go_on(void)
{
    int fd = scratch();
    CHECK_EQ(npk__io_plan_set("short:1"), 0);
    CHECK_EQ(npk__pwrite(fd, "0123456789", 10, 0), 5);
    npk__io_plan_set("short:1");
    CHECK_EQ(npk__pwrite_full(fd, "abcdefghij", 10, 0), 0);
    CHECK_EQ(npk__io_plan_count(), 2);
    npk__io_plan_set("short:1,fail:2:ENOSPC");
    size_t done = 99;
    NEED(lseek(fd, 0, SEEK_SET) == 0);
    CHECK_EQ(npk__write_full(fd, "ABCDEFGHIJ", 10, &done), -ENOSPC);
    CHECK_EQ(done, 5);
    npk__io_plan_set(NULL);
    char got[11] = {0};
    CHECK_EQ(npk__pread_full(fd, got, 20, 0), 10);
    CHECK_STR(got, "ABCDEfghij");
    close(fd);
}

static pid_t in_child(const char *plan)
{
    pid_t child = fork();
    NEED(child >= 0);
    if (child > 0)
        return child;
    int fd = scratch();
    if (npk__io_plan_set(plan) != 0)
        _exit(3);
    for (int i = 0; i < 4; i++)
        npk__pwrite_full(fd, "0123456789", 10, (uint64_t)i * 10);
    _exit(0);
}

static uint64_t left_behind(void)
{
    struct stat st;
    NEED(fstatat(p.dir, "scratch", &st, 0) == 0);
    return (uint64_t)st.st_size;
}

static void test_kill_before(void)
{
    CHECK_EQ(place_wait(in_child("kill:3")), -SIGKILL);
    CHECK_EQ(left_behind(), 20);
    CHECK_EQ(place_wait(in_child("kill:5")), 0);
    CHECK_EQ(left_behind(), 40);
}

static void test_kill_inside(void)
{
    CHECK_EQ(place_wait(in_child("kill-torn:3")), -SIGKILL);
    CHECK_EQ(left_behind(), 25);
}

static void test_count_and_delay(void)
{
    char path[300], plan[400], line[100] = "";
    snprintf(path, sizeof(path), "%s/log", p.path);
    snprintf(plan, sizeof(plan), "count:%s,delay:ftruncate:30", path);
    int fd = scratch();
    CHECK_EQ(npk__io_plan_set(plan), 0);
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    CHECK_EQ(npk__ftruncate(fd, 5), 0);
    clock_gettime(CLOCK_MONOTONIC, &b);
    CHECK((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec >= 30000000);
    CHECK_EQ(npk__pwrite_full(fd, "abc", 3, 0), 0);
    npk__io_plan_set(NULL);
    FILE *log = fopen(path, "r");
    NEED(log != NULL);
    CHECK(fgets(line, sizeof(line), log) != NULL);
    CHECK_STR(line, "1 ftruncate 0\n");
    CHECK(fgets(line, sizeof(line), log) != NULL);
    CHECK_STR(line, "2 pwrite 3\n");
    CHECK(fgets(line, sizeof(line), log) == NULL);
    fclose(log);
    close(fd);
}

static void test_copy_full(void)
{
    enum { N = 700000 };
    static char data[N], got[N + 1];
    for (int i = 0; i < N; i++)
        data[i] = (char)(i * 31 + i / 257);
    int in = scratch(), out = npk__openat(p.dir, "copy", O_RDWR | O_CREAT | O_TRUNC, 0644);
    NEED(out >= 0 && npk__pwrite_full(in, data, N, 0) == 0);
    CHECK_EQ(npk__copy_full(in, 1000, out, 10, N - 1000), 0);
    CHECK_EQ(npk__pread_full(out, got, N, 10), N - 1000);
    CHECK(memcmp(got, data + 1000, N - 1000) == 0);
    npk__io_plan_set("fail:1:EXDEV"); /* the kernel cannot: by a buffer */
    CHECK_EQ(npk__copy_full(in, 5, out, 0, N - 5), 0);
    npk__io_plan_set(NULL);
    CHECK_EQ(npk__pread_full(out, got, N, 0), N - 5);
    CHECK(memcmp(got, data + 5, N - 5) == 0);
    CHECK_EQ(npk__copy_full(in, N - 10, out, 0, 11), -EIO); /* the source ends early */
    close(in);
    close(out);
}

int main(void)
{
    p = place_begin();
    RUN(test_plans_are_checked);
    RUN(test_fail_once);
    RUN(test_fail_from_then_on);
    RUN(test_short_writes_go_on);
    RUN(test_kill_before);
    RUN(test_kill_inside);
    RUN(test_count_and_delay);
    RUN(test_copy_full);
    place_end(&p);
    return UNIT_RESULT();
}
