/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every change that has to do with deleted rows, stopped before each of its changing calls in turn, inside each, and
 * with each failing: what is found then is what was before or what was wanted, and nothing else; and the array goes on.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "arrays.h"
#include "io.h"
#include "known.h"
#include "npk.h"
#include "place.h"
#include "unit.h"

#define ROWS 300u
#define MOST 700u

/* What an array shows: the first number of each row, and its names. */
struct shown {
    bool there;
    uint32_t rows, value[MOST];
    unsigned names;
    uint64_t name_sum;
};

static int sum_name(void *ctx, const char *name, uint64_t start, uint64_t stop)
{
    struct shown *s = ctx;
    s->names++;
    s->name_sum = s->name_sum * 31 + (uint64_t)name[0] * 1000003 + start * 1009 + stop;
    return 0;
}

static bool look(place *p, const char *name, struct shown *out)
{
    static uint32_t rows[MOST][4];
    npk_array *a = NULL;
    memset(out, 0, sizeof(*out));
    int err = npk_array_open(p->store, name, &a);
    if (err == -ENOENT)
        return true;
    if (!CHECK_EQ(err, 0))
        return false;
    out->there = true;
    out->rows = (uint32_t)npk_array_info(a)->rows;
    bool fine = CHECK(out->rows <= MOST) && CHECK_EQ(npk_read_all(a, rows), 0);
    for (uint32_t i = 0; i < out->rows && fine; i++)
        out->value[i] = rows[i][0];
    npk_array_close(&a);
    return fine && CHECK_EQ(npk_names(p->store, name, sum_name, out), 0);
}

static bool same(const struct shown *a, const struct shown *b)
{
    return a->there == b->there && a->rows == b->rows && a->names == b->names && a->name_sum == b->name_sum &&
           memcmp(a->value, b->value, a->rows * sizeof(a->value[0])) == 0;
}

/* ---- the changes ----------------------------------------------------------------------------------------------- */

static int drop_runs(npk_store *s, uint64_t start, uint64_t count, int64_t step)
{
    npk_run run = {.start = start, .count = count, .step = step};
    npk_rows rows = {.runs = &run, .run_count = 1, .row_count = count};
    return npk_drop_rows(s, "x", &rows, NPK_ANY_GENERATION, NULL);
}

static uint32_t more[200][4];

static int nothing(npk_store *s)
{
    (void)s;
    return 0;
}

static int drop_some(npk_store *s)
{
    return drop_runs(s, 3, 40, 5);
}

static int drop_other(npk_store *s)
{
    return drop_runs(s, 100, 50, 1);
}

static int drop_and_name(npk_store *s)
{
    int err = drop_some(s);
    return err ? err : npk_name_set(s, "x", "some", 10, 60);
}

/* So many records that the next one has the log written anew. */
static int drop_often(npk_store *s)
{
    int err = 0;
    npk_range all = {0, 1};
    for (unsigned i = 0; i < 655 && !err; i++) {
        err = drop_runs(s, 0, 1, 1);
        if (!err)
            err = npk_restore_rows(s, "x", &all, 1, NPK_ANY_GENERATION, NULL);
    }
    return err;
}

static int drop_beyond_rewrite(npk_store *s)
{
    int err = drop_runs(s, 7, 30, 2);
    for (unsigned i = 0; i < 60 && !err; i++) {
        npk_range one = {7, 8};
        err = npk_restore_rows(s, "x", &one, 1, NPK_ANY_GENERATION, NULL);
        if (!err)
            err = drop_runs(s, 7, 1, 1);
    }
    return err;
}

static int restore_all(npk_store *s)
{
    return npk_restore_rows(s, "x", NULL, 0, NPK_ANY_GENERATION, NULL);
}

static int compact(npk_store *s)
{
    return npk_compact(s, "x", 0, NULL, NULL);
}

static int append(npk_store *s)
{
    return npk_append(s, "x", more, 120, NULL);
}

static int truncate_view(npk_store *s)
{
    return npk_truncate(s, "x", 20);
}

static int name_set(npk_store *s)
{
    return npk_name_set(s, "x", "other", 5, 17);
}

static int name_remove(npk_store *s)
{
    return npk_name_remove(s, "x", "some");
}

static int append_named(npk_store *s)
{
    return npk_append_named(s, "x", "new", more, 120, NULL);
}

static int rename_array(npk_store *s)
{
    return npk_rename(s, "x", "y");
}

static int rename_elsewhere(npk_store *s)
{
    return npk_rename(s, "x", "group/y");
}

static int remove_array(npk_store *s)
{
    return npk_remove(s, "x");
}

static int save_over(npk_store *s)
{
    uint64_t shape[2] = {120, 4};
    npk_array_in in = {.name = "x", .dtype = "uint32", .shape = shape, .ndim = 2, .data = more};
    return npk_save(s, &in, 1);
}

static int reshape(npk_store *s)
{
    int64_t shape[3] = {-1, 4, 1};
    return npk_reshape(s, "x", shape, 3);
}

static const struct change {
    const char *name;
    int (*before)(npk_store *s); /* what was done to the array before */
    int (*work)(npk_store *s);
    const char *to; /* the name that the array may have after */
    bool steps;     /* several calls: what is between them is fine, too */
} changes[] = {
    {"first drop", nothing, drop_some, NULL, false},
    {"next drop", drop_some, drop_other, NULL, false},
    {"rewriting the log", drop_often, drop_beyond_rewrite, NULL, true},
    {"restore", drop_some, restore_all, NULL, false},
    {"compact", drop_some, compact, NULL, false},
    {"compact with names", drop_and_name, compact, NULL, false},
    {"append", drop_and_name, append, NULL, false},
    {"truncate", drop_and_name, truncate_view, NULL, false},
    {"first name", nothing, name_set, NULL, false},
    {"name", drop_and_name, name_set, NULL, false},
    {"remove a name", drop_and_name, name_remove, NULL, false},
    {"append with a name", drop_and_name, append_named, NULL, false},
    {"rename", drop_and_name, rename_array, "y", false},
    {"rename to a group", drop_and_name, rename_elsewhere, "group/y", false},
    {"remove", drop_and_name, remove_array, NULL, false},
    {"save over", drop_and_name, save_over, NULL, false},
    {"reshape", drop_some, reshape, NULL, false},
};

/* ---- one try --------------------------------------------------------------------------------------------------- */

static uint32_t first[ROWS][4];

static place prepare(const struct change *c)
{
    place p = place_begin();
    uint64_t shape[2] = {ROWS, 4};
    npk_array_in in = {.name = "x", .dtype = "uint32", .shape = shape, .ndim = 2, .data = first};
    NEED(npk_save(p.store, &in, 1) == 0);
    NEED(mkdirat(p.dir, "group", 0755) == 0);
    NEED(c->before(p.store) == 0);
    return p;
}

/* How the work ended in a child with this plan: 0, 1 (it failed), or minus the signal. Calls it made: *calls. */
static int try_with(place *p, const struct change *c, const char *plan, uint64_t *calls)
{
    char count[300];
    int pipes[2];
    NEED(pipe(pipes) == 0);
    fflush(stdout);
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        snprintf(count, sizeof(count), "%s%s", plan, getenv("SHOW_CALLS") ? ",count:/tmp/engine.calls" : "");
        npk__io_plan_set(count);
        int err = c->work(p->store);
        uint64_t n = npk__io_plan_count();
        ssize_t sent = write(pipes[1], &n, sizeof(n));
        _exit(err || sent != sizeof(n) ? 1 : 0);
    }
    close(pipes[1]);
    ssize_t got = read(pipes[0], calls, sizeof(*calls));
    close(pipes[0]);
    (void)got;
    return place_wait(child);
}

/* Under whichever name it is: one of the two, and never both. */
static bool look_anywhere(place *p, const struct change *c, struct shown *out)
{
    struct shown moved;
    if (!look(p, "x", out))
        return false;
    if (!c->to)
        return true;
    if (!look(p, c->to, &moved))
        return false;
    if (!CHECK(out->there != moved.there))
        return false;
    if (moved.there)
        *out = moved;
    return true;
}

static bool goes_on(place *p, const struct change *c, const struct shown *found)
{
    struct shown now;
    const char *name = c->to && !place_exists(p, "x.npy") ? c->to : "x";
    if (!found->there)
        return true;
    npk_run run = {.start = 0, .count = 1, .step = 1};
    npk_rows rows = {.runs = &run, .run_count = 1, .row_count = 1};
    uint64_t at = 0;
    return CHECK_EQ(npk_append(p->store, name, more[150], 1, &at), 0) && CHECK_EQ(at, found->rows) &&
           CHECK_EQ(npk_drop_rows(p->store, name, &rows, NPK_ANY_GENERATION, NULL), 0) && look(p, name, &now) &&
           CHECK_EQ(now.rows, found->rows) && CHECK_EQ(now.names, found->names) &&
           CHECK(memcmp(now.value, found->value + 1, (found->rows - 1) * sizeof(now.value[0])) == 0) &&
           CHECK_EQ(now.value[found->rows - 1], more[150][0]) &&
           CHECK(strlen(arrays_check(p, NULL, NPK_CHECK_REPAIR).rules) < 200) &&
           CHECK(arrays_check(p, NULL, 0).worst <= NPK_NOTE);
}

static unsigned long tries, acknowledged;

static bool describe(const struct shown *found, const struct shown *before, const struct shown *after)
{
    const struct shown *all[] = {found, before, after};
    for (int i = 0; i < 3; i++)
        fprintf(stderr, "  %s: %s, %" PRIu32 " rows, first %" PRIu32 ", %u names (%" PRIx64 ")\n",
                i == 0   ? "found"
                : i == 1 ? "before"
                         : "after",
                all[i]->there ? "there" : "absent", all[i]->rows, all[i]->value[0], all[i]->names, all[i]->name_sum);
    return false;
}

static bool try_plan(const struct change *c, const char *kind, uint64_t n, const struct shown *before,
                     const struct shown *after, bool *ended)
{
    char plan[64];
    uint64_t calls = 0;
    struct shown found;
    snprintf(plan, sizeof(plan), kind, n);
    unit_note("%s with %s", c->name, plan);
    place p = prepare(c);
    int status = try_with(&p, c, plan, &calls);
    *ended = status == 0;
    tries++;
    acknowledged += status == 0;
    if (n % 2)
        npk__known_drop_all(); /* another process looks; else one that has looked before */
    bool fine = look_anywhere(&p, c, &found);
    bool k_torn = strstr(kind, "torn") != NULL;
    bool is_before = same(&found, before), is_after = same(&found, after);
    if (fine && status == 0)
        fine = CHECK(is_after);
    else if (fine && !c->steps)
        fine = CHECK(is_before || is_after) || describe(&found, before, after);
    else if (fine)
        fine = CHECK(found.there);
    if (fine) /* a torn entry of the dirty table is damage that a repair removes */
        fine = CHECK(arrays_check(&p, NULL, 0).worst <= (k_torn ? NPK_DAMAGE : NPK_WARNING)) && goes_on(&p, c, &found);
    place_end(&p);
    npk__known_drop_all();
    return fine;
}

static void test_crashes(void)
{
    static const char *const kinds[] = {"kill:%" PRIu64, "kill-torn:%" PRIu64, "fail:%" PRIu64 ":EIO",
                                        "fail:%" PRIu64 "+:ENOSPC", "short:%" PRIu64};
    for (uint32_t i = 0; i < ROWS; i++)
        first[i][0] = i + 1;
    for (uint32_t i = 0; i < 200; i++)
        more[i][0] = 10000 + i;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        const struct change *c = &changes[i];
        struct shown before, after;
        uint64_t calls = 0;
        place p = prepare(c);
        unit_note("%s", c->name);
        CHECK(look(&p, "x", &before));
        CHECK_EQ(try_with(&p, c, "delay:nothing:1", &calls), 0);
        npk__known_drop_all();
        CHECK(look_anywhere(&p, c, &after));
        CHECK(c->steps || c->work == restore_all || !same(&before, &after) || strstr(c->name, "compact") || c->to ||
              strcmp(c->name, "reshape") == 0);
        CHECK(calls > 0);
        place_end(&p);
        printf("%s: %" PRIu64 " calls\n", c->name, calls);
        for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
            for (uint64_t n = 1; n <= calls; n += c->steps && n > 40 && n + 20 < calls ? 7 : 1) {
                bool ended;
                if (!try_plan(c, kinds[k], n, &before, &after, &ended))
                    return;
            }
    }
    printf("%lu tries, %lu of them ended well\n", tries, acknowledged);
    CHECK(acknowledged > 0);
}

int main(void)
{
    /* Thousands of stores are made, each with several syncs: on memory, where there is a place for it. */
    if (access("/dev/shm", W_OK) == 0)
        setenv("NPK_TEST_DIR", "/dev/shm", 0);
    RUN(test_crashes);
    return UNIT_RESULT();
}
