/* SPDX-License-Identifier: Apache-2.0 */
/* Threads and processes at one array at once: rows carry who wrote them and the how-manieth, so that each is accounted
 * for. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "arrays.h"
#include "lock.h"
#include "unit.h"

enum {
    THREADS = 4,
    PROCESSES = 3,
    APPENDS = 120,
    MOST_AT_ONCE = 7,
    PLAIN_ROWS = 1500,
    WRITERS = THREADS + PROCESSES + 1
};

struct row {
    int64_t writer, number;
};

static void make_log(const place *p)
{
    const uint64_t shape[2] = {0, 2};
    const npk_array_in in = {.name = "log", .dtype = "int64", .shape = shape, .ndim = 2};
    NEED(npk_save(p->store, &in, 1) == 0);
}

/* Append numbered rows, some at a time. The index that comes back must be where they are. */
static int append_numbered(npk_store *s, int64_t writer, int64_t *rows)
{
    struct row buffer[MOST_AT_ONCE], back[MOST_AT_ONCE];
    *rows = 0;
    for (int i = 0; i < APPENDS; i++) {
        uint64_t n = 1 + (uint64_t)(i + writer) % MOST_AT_ONCE, first;
        for (uint64_t j = 0; j < n; j++)
            buffer[j] = (struct row){writer, *rows + (int64_t)j};
        int err = npk_append(s, "log", buffer, n, &first);
        if (err)
            return err;
        *rows += (int64_t)n;
        npk_array *a = NULL;
        err = i % 8 ? 0 : npk_array_open(s, "log", &a);
        if (err)
            return err;
        if (i % 8 == 0) {
            err = npk_read_range(a, first, n, back);
            npk_array_close(&a);
            if (err || memcmp(buffer, back, n * sizeof(struct row)) != 0)
                return err ? err : -EILSEQ;
        }
    }
    return 0;
}

struct thread {
    pthread_t id;
    npk_store *store;
    int64_t writer, rows;
    int err;
    char sentence[256];
};

static void *thread_append(void *ctx)
{
    struct thread *t = ctx;
    t->err = append_numbered(t->store, t->writer, &t->rows);
    snprintf(t->sentence, sizeof(t->sentence), "%s", t->err ? npk_error() : "");
    return NULL;
}

/* A program that knows nothing of us, as through passthrough: whole rows by O_APPEND, no lock. */
static int append_plainly(const place *p, int64_t writer)
{
    int fd = openat(p->dir, "log.npy", O_WRONLY | O_APPEND | O_CLOEXEC);
    for (int64_t i = 0; i < PLAIN_ROWS && fd >= 0; i++) {
        const struct row row = {writer, i};
        if (write(fd, &row, sizeof(row)) != sizeof(row))
            return 1;
        if (i % 50 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
    return fd < 0 || close(fd) != 0;
}

/* Every writer's rows are there, each once and in order, and nothing else. */
static void account(const place *p, const int64_t expected[WRITERS])
{
    npk_array *a = NULL;
    int64_t next[WRITERS] = {0};
    NEED(npk_array_open(p->store, "log", &a) == 0);
    uint64_t rows = npk_array_info(a)->rows, strange = 0;
    struct row *log = malloc((rows + 1) * sizeof(*log));
    NEED(log && npk_read_all(a, log) == 0);
    for (uint64_t i = 0; i < rows; i++) {
        if (log[i].writer < 0 || log[i].writer >= WRITERS || log[i].number != next[log[i].writer])
            strange++;
        else
            next[log[i].writer]++;
    }
    CHECK_EQ(strange, 0);
    for (int w = 0; w < WRITERS; w++) {
        unit_note("writer %d", w);
        CHECK_EQ(next[w], expected[w]);
    }
    CHECK_EQ(npk_array_info(a)->tail_bytes, 0);
    free(log);
    npk_array_close(&a);
}

static int64_t rows_of_writer(int64_t writer)
{
    int64_t rows = 0;
    for (int i = 0; i < APPENDS; i++)
        rows += 1 + (i + writer) % MOST_AT_ONCE;
    return rows;
}

static atomic_bool stop;

/* Whoever reads without a lock never finds more rows counted than there are, and never fewer than before. */
static void *watch(void *ctx)
{
    const place *p = ctx;
    uint64_t last = 0, *bad = calloc(1, sizeof(*bad));
    while (!atomic_load(&stop) && bad) {
        npk_info info;
        int fd = openat(p->dir, "log.npy", O_RDONLY | O_CLOEXEC);
        struct stat st;
        if (fd >= 0 && npk_fd_stat(fd, &info) == 0 && fstat(fd, &st) == 0) {
            /* Text that moves for the first growth of the digits may be refused, never misread. */
            if (!info.reason && (uint64_t)st.st_size < info.header.data_offset + info.header.data_bytes)
                (*bad)++;
            if (!info.reason && info.rows > last)
                last = info.rows;
            npk_info_clear(&info);
        }
        close(fd);
    }
    return bad;
}

static void start_threads(struct thread *threads, npk_store *s)
{
    for (int i = 0; i < THREADS; i++) {
        threads[i] = (struct thread){.store = s, .writer = i};
        NEED(pthread_create(&threads[i].id, NULL, thread_append, &threads[i]) == 0);
    }
}

static void test_appenders(void)
{
    place p = place_begin();
    pid_t children[PROCESSES + 1];
    struct thread threads[THREADS];
    int64_t expected[WRITERS];
    make_log(&p);
    NEED(npk_append(p.store, "log", NULL, 0, NULL) == 0); /* the session begins: growth is rows from now on */
    fflush(stdout);
    for (int i = 0; i <= PROCESSES; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            int64_t rows;
            int writer = THREADS + i, err;
            /* A handle that crosses a fork works in the child. */
            err = i < PROCESSES ? append_numbered(p.store, writer, &rows) : append_plainly(&p, writer);
            if (err)
                fprintf(stderr, "writer %d: %s\n", writer, npk_error());
            _exit(err ? 1 : 0);
        }
    }
    pthread_t watcher;
    atomic_store(&stop, false);
    NEED(pthread_create(&watcher, NULL, watch, &p) == 0);
    start_threads(threads, p.store);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i].id, NULL);
        unit_note("%s", threads[i].sentence);
        CHECK_EQ(threads[i].err, 0);
    }
    unit_note("%s", "");
    for (int i = 0; i <= PROCESSES; i++)
        CHECK_EQ(place_wait(children[i]), 0);
    atomic_store(&stop, true);
    void *bad;
    pthread_join(watcher, &bad);
    CHECK_EQ(*(uint64_t *)bad, 0);
    free(bad);
    for (int w = 0; w < WRITERS; w++)
        expected[w] = w < WRITERS - 1 ? rows_of_writer(w) : PLAIN_ROWS;
    account(&p, expected);
    CHECK_EQ(arrays_check(&p, NULL, NPK_CHECK_REPAIR).worst, NPK_NOTE); /* the session, ended now */
    CHECK_EQ(arrays_check(&p, NULL, 0).worst, -1);
    place_end(&p);
}

/* Processes that are killed while they append beside others: what they were told is written is there, and nobody else
 * loses a row. */
static void test_killed_appenders(void)
{
    place p = place_begin();
    int64_t told[2] = {0}, rows;
    make_log(&p);
    NEED(npk_append(p.store, "log", NULL, 0, NULL) == 0);
    fflush(stdout);
    int pipes[2];
    NEED(pipe2(pipes, O_CLOEXEC) == 0);
    for (int round = 0; round < 6; round++) {
        pid_t victim = fork();
        if (victim == 0) {
            for (int64_t i = told[1];; i++) {
                const struct row row = {1, i};
                if (npk_append(p.store, "log", &row, 1, NULL) != 0 || write(pipes[1], "1", 1) != 1)
                    _exit(1);
            }
        }
        int64_t before = told[0];
        struct timespec pause = {.tv_nsec = 1000000 + 700000 * round};
        for (int i = 0; i < 20; i++) {
            const struct row row = {0, told[0]};
            CHECK_EQ(npk_append(p.store, "log", &row, 1, NULL), 0);
            told[0]++;
        }
        nanosleep(&pause, NULL);
        kill(victim, SIGKILL);
        CHECK_EQ(place_wait(victim), -SIGKILL);
        CHECK_EQ(told[0], before + 20);
        char acknowledged[65536];
        NEED(fcntl(pipes[0], F_SETFL, O_NONBLOCK) == 0);
        ssize_t n = read(pipes[0], acknowledged, sizeof(acknowledged));
        told[1] += n > 0 ? n : 0;
        /* The last one may be there without having been acknowledged: count on from what is there. */
        CHECK_EQ(npk_append(p.store, "log", NULL, 0, NULL), 0);
        npk_array *a = NULL;
        NEED(npk_array_open(p.store, "log", &a) == 0);
        rows = (int64_t)npk_array_info(a)->rows;
        struct row *log = malloc((size_t)(rows + 1) * sizeof(*log));
        NEED(log && npk_read_all(a, log) == 0);
        int64_t seen[2] = {0};
        for (int64_t i = 0; i < rows; i++)
            if (CHECK(log[i].writer == 0 || log[i].writer == 1))
                CHECK_EQ(log[i].number, seen[log[i].writer]++);
        CHECK_EQ(seen[0], told[0]);
        CHECK(seen[1] == told[1] || seen[1] == told[1] + 1);
        told[1] = seen[1];
        free(log);
        npk_array_close(&a);
    }
    CHECK(told[1] > 6);
    close(pipes[0]);
    close(pipes[1]);
    place_end(&p);
}

/* ---- several arrays at once ------------------------------------------------------------------------------------ */

struct pair {
    pthread_t id;
    npk_store *store;
    const char *first, *second;
    int err;
};

static void *append_pairs(void *ctx)
{
    struct pair *w = ctx;
    static const struct row row;
    const npk_rows_in both[2] = {{w->first, &row, 1}, {w->second, &row, 1}};
    for (int i = 0; i < 150 && w->err == 0; i++)
        w->err = npk_append_many(w->store, both, 2);
    return NULL;
}

/* In whatever order the names are given, nobody waits for who waits for him. */
static void test_lock_order(void)
{
    place p = place_begin();
    const uint64_t shape[2] = {0, 2};
    const npk_array_in in[2] = {{.name = "a", .dtype = "i8", .shape = shape, .ndim = 2},
                                {.name = "g/b", .dtype = "i8", .shape = shape, .ndim = 2}};
    NEED(npk_save(p.store, in, 2) == 0);
    struct pair pairs[THREADS];
    npk__lock_wait_ms = 2000;
    for (int i = 0; i < THREADS; i++) {
        pairs[i] = (struct pair){.store = p.store, .first = i % 2 ? "a" : "g/b", .second = i % 2 ? "g/b" : "a"};
        NEED(pthread_create(&pairs[i].id, NULL, append_pairs, &pairs[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(pairs[i].id, NULL);
        CHECK_EQ(pairs[i].err, 0);
    }
    npk__lock_wait_ms = 30000;
    CHECK_EQ(place_rows_of(&p, "a.npy"), THREADS * 150);
    CHECK_EQ(place_rows_of(&p, "g/b.npy"), THREADS * 150);
    place_end(&p);
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

struct storm {
    pthread_t id;
    npk_store *store;
    unsigned seed;
    unsigned long done;
    int err;
    char sentence[256];
};

static bool is_expected(int err)
{
    return err == 0 || err == -ENOENT || err == -EEXIST;
}

static int ignore(void *ctx, const char *name, const npk_info *info)
{
    (void)ctx;
    (void)name;
    return info->rows > 1000;
}

static void *storm(void *ctx)
{
    struct storm *w = ctx;
    char a[32], b[32];
    static const float data[64 * ROW_FLOATS];
    for (int i = 0; i < 250 && w->err == 0; i++) {
        unsigned r = (w->seed = w->seed * 1103515245u + 12345u) >> 8;
        snprintf(a, sizeof(a), "g%u/x%u", r % 2, r / 2 % 4);
        snprintf(b, sizeof(b), "g%u/x%u", r / 8 % 2, r / 16 % 4);
        const uint64_t shape[2] = {r / 64 % 60, ROW_FLOATS};
        const npk_array_in in = {.name = a, .dtype = "f4", .shape = shape, .ndim = 2, .data = data};
        const npk_rows_in both[2] = {{a, data, 2}, {b, data, 1}};
        bool exists;
        switch (r / 4096 % 8) {
        case 0:
            w->err = npk_save(w->store, &in, 1);
            break;
        case 1:
            w->err = npk_rename(w->store, a, b);
            break;
        case 2:
            w->err = npk_remove(w->store, a);
            break;
        case 3:
            w->err = npk_append(w->store, a, data, 3, NULL);
            break;
        case 4:
            w->err = npk_append_many(w->store, both, 2);
            break;
        case 5:
            w->err = npk_list(w->store, "", NPK_LIST_PLAIN, ignore, NULL);
            break;
        case 6:
            w->err = npk_exists(w->store, a, &exists);
            break;
        default:
            w->err = npk_create(w->store, &in);
            break;
        }
        if (is_expected(w->err)) {
            w->done += w->err == 0;
            w->err = 0;
        }
    }
    snprintf(w->sentence, sizeof(w->sentence), "%s", w->err ? npk_error() : "");
    return NULL;
}

static void test_names(void)
{
    place p = place_begin();
    struct storm threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = (struct storm){.store = p.store, .seed = i + 1};
        NEED(pthread_create(&threads[i].id, NULL, storm, &threads[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i].id, NULL);
        unit_note("%s", threads[i].sentence);
        CHECK_EQ(threads[i].err, 0);
        CHECK(threads[i].done > 50);
    }
    arrays_findings left = arrays_check(&p, NULL, NPK_CHECK_REPAIR);
    unit_note("%s: %s", left.rules, left.last);
    CHECK(left.worst <= NPK_NOTE);
    CHECK_EQ(arrays_check(&p, NULL, 0).worst, -1);
    place_end(&p);
}

int main(void)
{
    RUN(test_appenders);
    RUN(test_killed_appenders);
    RUN(test_lock_order);
    RUN(test_names);
    return UNIT_RESULT();
}
