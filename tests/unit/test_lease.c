/* SPDX-License-Identifier: Apache-2.0 */
/* Leases find the writers that no lock can see (P1). */
#define _GNU_SOURCE 1

#include "lease.h"

#include <signal.h>
#include <sys/mman.h>
#include <time.h>

#include "place.h"

static place p;

static int reader(void)
{
    int fd = openat(p.dir, "a.npy", O_RDONLY | O_CLOEXEC);
    NEED(fd >= 0);
    return fd;
}

static int writer(void)
{
    int fd = openat(p.dir, "a.npy", O_RDWR | O_CLOEXEC);
    NEED(fd >= 0);
    return fd;
}

static void test_open_writer_is_found(void)
{
    int ro = reader(), rw = writer();
    CHECK_EQ(npk__lease_take(ro), -EAGAIN);
    CHECK_EQ(npk__lease_probe(ro), -EBUSY);
    close(rw);
    CHECK_EQ(npk__lease_take(ro), 0);
    CHECK(npk__lease_holds(ro));
    npk__lease_drop(ro);
    CHECK(!npk__lease_holds(ro));
    CHECK_EQ(npk__lease_probe(ro), 0);
    close(ro);
}

static void test_mapped_writer_without_descriptor_is_found(void)
{
    int ro = reader(), rw = writer();
    void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, rw, 0);
    NEED(at != MAP_FAILED);
    close(rw);
    CHECK_EQ(npk__lease_take(ro), -EAGAIN);
    npk_users users = NPK_USERS_NONE;
    CHECK_EQ(npk_users_of(ro, &users), 0);
    CHECK_EQ(users, NPK_USERS_WRITERS);
    munmap(at, 4096);
    CHECK_EQ(npk__lease_take(ro), 0);
    npk__lease_drop(ro);
    close(ro);
}

static void test_readers_are_told_from_nobody(void)
{
    npk_users users = NPK_USERS_WRITERS;
    int ro = reader();
    CHECK_EQ(npk_users_of(ro, &users), 0);
    CHECK_EQ(users, NPK_USERS_NONE);
    int other = reader();
    CHECK_EQ(npk_users_of(ro, &users), 0);
    CHECK_EQ(users, NPK_USERS_READERS);
    void *at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, other, 0);
    NEED(at != MAP_FAILED);
    close(other);
    CHECK_EQ(npk_users_of(ro, &users), 0);
    CHECK_EQ(users, NPK_USERS_READERS); /* a mapping whose descriptor is closed */
    munmap(at, 4096);
    CHECK_EQ(npk_users_of(ro, &users), 0);
    CHECK_EQ(users, NPK_USERS_NONE);
    CHECK(!npk__lease_holds(ro)); /* nothing stays behind */
    close(ro);
}

/* The default signal of a broken lease kills; a user of the library must never get one. */
static void test_breaking_sends_no_signal(void)
{
    int ro = reader();
    CHECK_EQ(npk__lease_take(ro), 0);
    int rw = openat(p.dir, "a.npy", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    CHECK_EQ(rw, -1);
    CHECK_EQ(errno, EWOULDBLOCK);
    CHECK(!npk__lease_holds(ro)); /* being broken counts as lost */
    sigset_t pending;
    sigpending(&pending);
    CHECK(!sigismember(&pending, SIGIO) && !sigismember(&pending, SIGURG));
    npk__lease_drop(ro);
    rw = writer();
    close(rw);
    close(ro);
}

static volatile sig_atomic_t signals;

static void count_signal(int n)
{
    (void)n;
    signals++;
}

static void test_a_handler_of_the_program_is_not_called(void)
{
    struct sigaction sa = {.sa_handler = count_signal}, old_io, old_urg;
    sigaction(SIGIO, &sa, &old_io);
    sigaction(SIGURG, &sa, &old_urg);
    int ro = reader();
    CHECK_EQ(npk__lease_take(ro), 0);
    int rw = openat(p.dir, "a.npy", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK_EQ(rw, -1);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    CHECK_EQ(signals, 0);
    npk__lease_drop(ro);
    close(ro);
    sigaction(SIGIO, &old_io, NULL);
    sigaction(SIGURG, &old_urg, NULL);
}

static void test_the_store_knows(void)
{
    const char *why = NULL;
    CHECK(npk_leases_prove(p.store, &why));
    CHECK_HAS(why, "found");
    CHECK_EQ(npk__lease_experiment(p.dir), 1);
    npk_store *s;
    CHECK_EQ(npk_store_open(p.path, NPK_READ_ONLY, &s), 0);
    CHECK(npk_leases_prove(s, &why)); /* by the type alone: it may not write */
    CHECK_HAS(why, "type");
    npk_store_close(&s);
    int proc = open("/proc/self", O_RDONLY | O_DIRECTORY);
    CHECK(!npk__lease_fs_proves(proc));
    close(proc);
}

static void test_who_is_not_the_owner_gets_no_word(void)
{
    if (geteuid() != 0) {
        CHECK(true);
        puts("     (only as root: ownership)");
        return;
    }
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        int ro = reader();
        npk_users users;
        if (setresuid(65534, 65534, 65534) != 0)
            _exit(2);
        _exit(npk__lease_take(ro) == -ENOTSUP && npk_users_of(ro, &users) == -ENOTSUP ? 0 : 1);
    }
    CHECK_EQ(place_wait(child), 0);
}

int main(void)
{
    p = place_begin();
    if (!npk__lease_fs_proves(p.dir)) {
        place_end(&p);
        setenv("NPK_TEST_DIR", "/dev/shm", 1); /* often a tmpfs where /tmp is an overlay */
        p = place_begin();
    }
    if (!npk__lease_fs_proves(p.dir)) {
        printf("skipped: %s is on a filesystem that grants leases although a writer lives\n", p.path);
        place_end(&p);
        return 77;
    }
    close(place_array(&p, "a.npy", 300, 300, 30));
    RUN(test_open_writer_is_found);
    RUN(test_mapped_writer_without_descriptor_is_found);
    RUN(test_readers_are_told_from_nobody);
    RUN(test_breaking_sends_no_signal);
    RUN(test_a_handler_of_the_program_is_not_called);
    RUN(test_the_store_knows);
    RUN(test_who_is_not_the_owner_gets_no_word);
    place_end(&p);
    return UNIT_RESULT();
}
