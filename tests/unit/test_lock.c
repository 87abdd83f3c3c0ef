/* SPDX-License-Identifier: Apache-2.0 */
/* Locks between threads, processes and forked children; a lock file that is replaced under a waiter. */
#define _GNU_SOURCE 1

#include "lock.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

#include "place.h"

static place p;

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static int lock(unsigned how, npk_lock *l)
{
    return npk__lock_array(p.dir, "a.npy", how, l);
}

/* ---- one thread ------------------------------------------------------------------------------------------------ */

static void test_shared_makes_nothing(void)
{
    npk_lock l;
    CHECK_EQ(lock(0, &l), 0);
    CHECK_EQ(l.fd, -1);
    npk__unlock(&l);
    npk__unlock(&l);
    CHECK(!place_exists(&p, ".npkfs"));
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_EXISTING, &l), -ENOENT);
    CHECK(!place_exists(&p, ".npkfs"));
}

static void test_rules_in_a_process(void)
{
    npk_lock a, b, c;
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE, &a), 0);
    CHECK(place_exists(&p, ".npkfs/lock"));
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &b), -EAGAIN);
    CHECK_EQ(lock(NPK_LOCK_TRY, &b), -EAGAIN);
    CHECK_HAS(npk_error(), "a.npy");
    CHECK_EQ(npk__lock_array(p.dir, "b.npy", NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &b), 0); /* another array */
    npk__unlock(&b);
    npk__unlock(&a);
    CHECK_EQ(lock(0, &a), 0);
    CHECK_EQ(lock(NPK_LOCK_TRY, &b), 0);
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &c), -EAGAIN);
    npk__unlock(&a);
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &c), -EAGAIN); /* one reader is left */
    npk__unlock(&b);
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &c), 0);
    npk__unlock(&c);
}

static void test_slots(void)
{
    uint64_t a = npk__lock_slot_of("a.npy"), b = npk__lock_slot_of("b.npy");
    CHECK(a != b);
    CHECK(a >= UINT64_C(1) << 32 && a < (UINT64_C(1) << 32) + (UINT64_C(1) << 40));
    CHECK_EQ(npk__lock_slot_of("a.npy"), a);
    CHECK_EQ(npk__lock_slot_of(""), (UINT64_C(1) << 32) + (0xcbf29ce484222325u & ((UINT64_C(1) << 40) - 1)));
}

static void test_waits_until_the_limit(void)
{
    npk_lock a, b;
    npk__lock_wait_ms = 60;
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE, &a), 0);
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE, &b), -EBUSY);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    long ms = (t1.tv_sec - t0.tv_sec) * 1000 + (t1.tv_nsec - t0.tv_nsec) / 1000000;
    CHECK(ms >= 59 && ms < 5000);
    npk__unlock(&a);
    npk__lock_wait_ms = 30000;
}

/* ---- threads --------------------------------------------------------------------------------------------------- */

enum { THREADS = 6, ROUNDS = 800 };
static atomic_int inside_writers, inside_readers, collisions, entered;
static int64_t unguarded; /* only the lock keeps this right */

static void *hammer(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < ROUNDS; i++) {
        npk_lock l;
        bool reader = rand_r(&seed) % 4 == 0;
        if (lock(reader ? 0 : NPK_LOCK_EXCLUSIVE, &l) != 0) {
            collisions += 1000;
            return NULL;
        }
        if (reader) {
            inside_readers++;
            collisions += inside_writers != 0;
            if (i % 16 == 0)
                sched_yield();
            inside_readers--;
        } else {
            collisions += inside_writers++ != 0 || inside_readers != 0;
            int64_t seen = unguarded;
            if (i % 16 == 0)
                sched_yield();
            unguarded = seen + 1;
            inside_writers--;
            entered++;
        }
        npk__unlock(&l);
        if (i % 50 == 0)
            npk__locks_drop_idle();
    }
    return NULL;
}

static void test_threads(void)
{
    pthread_t t[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        NEED(pthread_create(&t[i], NULL, hammer, (void *)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    CHECK_EQ(collisions, 0);
    CHECK(entered > ROUNDS);
    CHECK_EQ(unguarded, entered);
}

/* ---- processes ------------------------------------------------------------------------------------------------- */

/* A counter in a file, raised by read, pause, write: only right if the lock works between processes and threads. */
static void *raise_counter(void *arg)
{
    (void)arg;
    int fd = openat(p.dir, "counter", O_RDWR | O_CREAT, 0644);
    for (int i = 0; i < 150; i++) {
        npk_lock l;
        uint64_t n = 0;
        if (fd < 0 || lock(NPK_LOCK_EXCLUSIVE, &l) != 0)
            return (void *)1;
        if (pread(fd, &n, 8, 0) < 0)
            n = 0;
        if (i % 8 == 0)
            sched_yield();
        n++;
        if (pwrite(fd, &n, 8, 0) != 8)
            n = 0;
        npk__unlock(&l);
    }
    close(fd);
    return NULL;
}

static void test_processes(void)
{
    pid_t child[3];
    for (int i = 0; i < 3; i++) {
        child[i] = fork();
        NEED(child[i] >= 0);
        if (child[i] == 0) {
            pthread_t other;
            void *bad = NULL;
            if (pthread_create(&other, NULL, raise_counter, NULL) != 0 || raise_counter(NULL) ||
                pthread_join(other, &bad) != 0)
                _exit(1);
            _exit(bad != NULL);
        }
    }
    for (int i = 0; i < 3; i++)
        CHECK_EQ(place_wait(child[i]), 0);
    uint64_t n = 0;
    int fd = openat(p.dir, "counter", O_RDONLY);
    CHECK_EQ(pread(fd, &n, 8, 0), 8);
    CHECK_EQ(n, 3 * 2 * 150);
    close(fd);
}

/* P12: a child must not be granted what its parent holds, though it came with the parent's descriptors. */
static void test_forked_child_is_not_the_holder(void)
{
    npk_lock l, mine;
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE, &l), 0);
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        if (lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &mine) != -EAGAIN)
            _exit(1);
        npk__unlock(&l); /* forgets only */
        if (l.fd != -1 || lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &mine) != -EAGAIN)
            _exit(2);
        if (npk__lock_array(p.dir, "b.npy", NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &mine) != 0)
            _exit(3);
        npk__unlock(&mine);
        _exit(0);
    }
    CHECK_EQ(place_wait(child), 0);
    pid_t other = fork();
    NEED(other >= 0);
    if (other == 0)
        _exit(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &mine) == -EAGAIN ? 0 : 1); /* the parent still has it */
    CHECK_EQ(place_wait(other), 0);
    npk__unlock(&l);
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &mine), 0);
    npk__unlock(&mine);
}

/* P12: nor must it keep it held when the parent is killed. */
static void test_forked_child_does_not_keep_it(void)
{
    int pipe_fd[2];
    NEED(pipe(pipe_fd) == 0);
    pid_t parent = fork();
    NEED(parent >= 0);
    if (parent == 0) {
        npk_lock l;
        if (lock(NPK_LOCK_EXCLUSIVE, &l) != 0)
            _exit(1);
        pid_t worker = fork(); /* while it is held */
        if (worker == 0) {
            pid_t self = getpid(); /* here all that happens at a fork has happened */
            if (write(pipe_fd[1], &self, sizeof(self)) != sizeof(self))
                _exit(1);
            sleep_ms(3000);
            _exit(0);
        }
        for (;;)
            pause();
    }
    pid_t worker;
    CHECK_EQ(read(pipe_fd[0], &worker, sizeof(worker)), sizeof(worker));
    npk_lock l;
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &l), -EAGAIN);
    kill(parent, SIGKILL);
    CHECK_EQ(place_wait(parent), -SIGKILL);
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &l), 0);
    npk__unlock(&l);
    CHECK_EQ(kill(worker, 0), 0); /* it was there all the time, or this showed nothing */
    kill(worker, SIGKILL);
    close(pipe_fd[0]);
    close(pipe_fd[1]);
}

/* A child of a bare clone() runs no fork handlers. */
static void test_clone_without_handlers(void)
{
    npk_lock l, mine;
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE, &l), 0);
    long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    NEED(child >= 0);
    if (child == 0)
        _exit(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &mine) == -EAGAIN ? 0 : 1);
    CHECK_EQ(place_wait((pid_t)child), 0);
    npk__unlock(&l);
}

/* ---- the file is replaced -------------------------------------------------------------------------------------- */

struct waiter {
    npk_lock l;
    int err;
    atomic_bool done;
};

static void *wait_for_lock(void *arg)
{
    struct waiter *w = arg;
    w->err = lock(NPK_LOCK_EXCLUSIVE, &w->l);
    w->done = true;
    return NULL;
}

/* P11: whoever gets the lock of a file that lost its name has locked nothing. */
static void test_unlinked_under_a_waiter(void)
{
    int ready[2], go[2];
    NEED(pipe(ready) == 0 && pipe(go) == 0);
    pid_t holder = fork();
    NEED(holder >= 0);
    char c = 0;
    if (holder == 0) {
        npk_lock l;
        if (lock(NPK_LOCK_EXCLUSIVE, &l) != 0 || write(ready[1], &c, 1) != 1 || read(go[0], &c, 1) != 1)
            _exit(1);
        _exit(0);
    }
    CHECK_EQ(read(ready[0], &c, 1), 1);
    struct waiter w = {.err = 1};
    pthread_t t;
    NEED(pthread_create(&t, NULL, wait_for_lock, &w) == 0);
    sleep_ms(30); /* it has opened the old file by now, or opens the new one: both must end well */
    CHECK(!w.done);
    CHECK_EQ(unlinkat(p.dir, ".npkfs/lock", 0), 0);
    int fresh = openat(p.dir, ".npkfs/lock", O_RDWR | O_CREAT | O_EXCL, 0644);
    struct flock all = {.l_type = F_WRLCK};
    CHECK_EQ(fcntl(fresh, F_OFD_SETLK, &all), 0); /* somebody else has the new one */
    CHECK_EQ(write(go[1], &c, 1), 1);
    CHECK_EQ(place_wait(holder), 0);
    sleep_ms(50);
    CHECK(!w.done); /* the old file's lock is free, and is worth nothing */
    close(fresh);
    pthread_join(t, NULL);
    CHECK_EQ(w.err, 0);
    npk_lock other;
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &other), -EAGAIN);
    npk__unlock(&w.l);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(go[i]);
    }
}

static void test_sidecar_removed_while_kept(void)
{
    npk_lock l;
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE, &l), 0);
    npk__unlock(&l); /* its description is kept */
    CHECK_EQ(unlinkat(p.dir, ".npkfs/lock", 0), 0);
    CHECK_EQ(unlinkat(p.dir, ".npkfs", AT_REMOVEDIR), 0);
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &l), 0);
    CHECK(place_exists(&p, ".npkfs/lock"));
    npk__unlock(&l);
}

static int open_descriptors(void)
{
    int n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_descriptors_are_bounded(void)
{
    int before = open_descriptors();
    for (int i = 0; i < 100; i++) {
        char name[32];
        snprintf(name, sizeof(name), "dir%d", i);
        NEED(mkdirat(p.dir, name, 0755) == 0);
        int dir = openat(p.dir, name, O_PATH | O_DIRECTORY);
        npk_lock l;
        CHECK_EQ(npk__lock_array(dir, "x.npy", NPK_LOCK_EXCLUSIVE, &l), 0);
        npk__unlock(&l);
        close(dir);
    }
    CHECK(open_descriptors() <= before + 33);
    npk__locks_drop_idle();
    CHECK(open_descriptors() <= before);
}

static void test_strange_lock_files(void)
{
    npk_lock l;
    npk__locks_drop_idle();
    NEED(unlinkat(p.dir, ".npkfs/lock", 0) == 0);
    NEED(mkfifoat(p.dir, ".npkfs/lock", 0644) == 0);
    CHECK(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &l) < 0);
    NEED(unlinkat(p.dir, ".npkfs/lock", 0) == 0);
    NEED(symlinkat("/etc/passwd", p.dir, ".npkfs/lock") == 0);
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &l), -ELOOP);
    NEED(unlinkat(p.dir, ".npkfs/lock", 0) == 0);
    NEED(unlinkat(p.dir, ".npkfs", AT_REMOVEDIR) == 0);
    NEED(symlinkat("dir1", p.dir, ".npkfs") == 0);
    CHECK_EQ(lock(NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &l), -ELOOP);
    NEED(unlinkat(p.dir, ".npkfs", 0) == 0);
}

int main(void)
{
    p = place_begin();
    RUN(test_shared_makes_nothing);
    RUN(test_rules_in_a_process);
    RUN(test_slots);
    RUN(test_waits_until_the_limit);
    RUN(test_threads);
    RUN(test_processes);
    RUN(test_forked_child_is_not_the_holder);
    RUN(test_forked_child_does_not_keep_it);
    RUN(test_clone_without_handlers);
    RUN(test_unlinked_under_a_waiter);
    RUN(test_sidecar_removed_while_kept);
    RUN(test_descriptors_are_bounded);
    RUN(test_strange_lock_files);
    place_end(&p);
    return UNIT_RESULT();
}
