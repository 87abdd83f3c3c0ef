/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations as lists of steps, each of which happens wholly or not at all. What the store shows after each of them is
 * found out by a run without faults: afterwards it must show what it did after the steps that had returned, or after one
 * more.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash.h"
#include "place.h"

#define FLOATS     4u
#define MOST_STEPS 12u
#define MOST_TEXT  (64u << 10)

typedef int step(npk_store *s);

static const struct list *current; /* chosen by the setup */
struct list {
    void (*setup)(npk_store *s);
    step *steps[MOST_STEPS];
};

/* ---- what a store shows ---------------------------------------------------------------------------------------- */

struct text {
    char *at;
    size_t bytes;
    npk_store *store;
};

__attribute__((format(printf, 2, 3))) static void say(struct text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(t->at + t->bytes, MOST_TEXT - t->bytes, format, args);
    va_end(args);
    NEED(n >= 0 && t->bytes + (size_t)n < MOST_TEXT);
    t->bytes += (size_t)n;
}

static int say_name(void *ctx, const char *name, uint64_t start, uint64_t stop)
{
    say(ctx, " %s=%" PRIu64 ":%" PRIu64, name, start, stop);
    return 0;
}

static int say_deleted(void *ctx, uint64_t start, uint64_t stop)
{
    say(ctx, " -%" PRIu64 ":%" PRIu64, start, stop);
    return 0;
}

static uint64_t hash_of(const uint8_t *data, uint64_t bytes)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (uint64_t i = 0; i < bytes; i++)
        h = (h ^ data[i]) * UINT64_C(0x100000001b3);
    return h;
}

static void say_array(struct text *t, const char *name)
{
    npk_array *a = NULL;
    unsigned percent = 0;
    int err = npk_array_open(t->store, name, &a);
    if (err) {
        say(t, "%s: %d", name, err);
        return;
    }
    const npk_info *i = npk_array_info(a);
    uint8_t *data = malloc(i->header.data_bytes + 1);
    NEED(data != NULL);
    err = npk_read_all(a, data);
    say(t, "%s %s", name, i->header.dtype.name);
    for (uint32_t d = 0; d < i->header.ndim; d++)
        say(t, "%s%" PRIu64, d ? "," : " ", i->header.shape[d]);
    say(t, " %d %016" PRIx64, err, err ? 0 : hash_of(data, i->header.data_bytes));
    free(data);
    npk_array_close(&a);
    (void)npk_names(t->store, name, say_name, t);
    (void)npk_deleted_ranges(t->store, name, say_deleted, t);
    if (npk_compact_policy(t->store, name, &percent) == 0 && percent)
        say(t, " auto %u", percent);
    say(t, "\n");
}

static const char *const known[] = {"x", "y", "w", "group/z", "group/new"};

static char *shown(npk_store *s)
{
    struct text t = {.at = calloc(1, MOST_TEXT), .store = s};
    NEED(t.at != NULL);
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        bool there = false;
        if (npk_exists(s, known[i], &there) != 0 || there)
            say_array(&t, known[i]);
    }
    return t.at;
}

/* ---- running and comparing ------------------------------------------------------------------------------------- */

static int run_steps(npk_store *s, crash_ack *ack)
{
    for (unsigned i = 0; i < MOST_STEPS && current->steps[i]; i++) {
        int err = current->steps[i](s);
        if (err)
            return err;
        ack();
    }
    return 0;
}

/* What is shown after each number of steps, for the list that it was made for. */
static const struct list *expected_for;
static char *expected[MOST_STEPS + 2];

static void expect_states(void)
{
    if (expected_for == current)
        return;
    place p = place_begin();
    unsigned i = 0;
    current->setup(p.store);
    expected[0] = shown(p.store);
    for (; i < MOST_STEPS && current->steps[i]; i++) {
        if (current->steps[i](p.store) != 0) {
            fprintf(stderr, "step %u fails without a fault: %s\n", i + 1, npk_error());
            exit(2);
        }
        expected[i + 1] = shown(p.store);
        NEED(strcmp(expected[i], expected[i + 1]) != 0);
    }
    expected_for = current;
    place_end(&p);
}

static const char *check_steps(npk_store *s, unsigned acked, bool power)
{
    static char why[1024];
    char *now = shown(s);
    (void)power;
    bool fits = strcmp(now, expected[acked]) == 0 || (expected[acked + 1] && strcmp(now, expected[acked + 1]) == 0);
    if (!fits)
        snprintf(why, sizeof(why), "after %u steps: %.300s instead of %.300s", acked, now, expected[acked]);
    free(now);
    return fits ? NULL : why;
}

/* ---- making arrays --------------------------------------------------------------------------------------------- */

static float *rows_of(uint64_t count, unsigned generation)
{
    static float rows[4000 * FLOATS];
    for (uint64_t i = 0; i < count * FLOATS; i++)
        rows[i] = (float)(generation * 100000 + i);
    return rows;
}

static int save(npk_store *s, const char *name, uint64_t count, unsigned generation)
{
    const uint64_t shape[2] = {count, FLOATS};
    const npk_array_in in = {
        .name = name, .dtype = "float32", .shape = shape, .ndim = 2, .data = rows_of(count, generation)};
    return npk_save(s, &in, 1);
}

static int drop(npk_store *s, const char *name, const char *text)
{
    npk_info info;
    npk_rows rows = {0};
    int err = npk_stat(s, name, &info);
    if (err)
        return err;
    err = npk_rows_parse(text, strlen(text), info.rows, &rows);
    npk_info_clear(&info);
    if (!err)
        err = npk_drop_rows(s, name, &rows, NPK_ANY_GENERATION, NULL);
    npk_rows_clear(&rows);
    return err;
}

static void setup_clean(npk_store *s)
{
    NEED(save(s, "x", 95, 0) == 0 && save(s, "y", 2000, 1) == 0 && save(s, "group/z", 9, 2) == 0 && npk_sync(s, NULL) == 0);
}

static void setup_views(npk_store *s)
{
    setup_clean(s);
    NEED(drop(s, "x", "3:40") == 0 && drop(s, "y", "::7") == 0 && npk_name_set(s, "x", "first", 0, 5) == 0);
    NEED(npk_name_set(s, "y", "last", 1000, 1700) == 0 && npk_sync(s, NULL) == 0);
}

/* ---- the steps ------------------------------------------------------------------------------------------------- */

#define STEP(name, call)                                                                                               \
    static int name(npk_store *s)                                                                                      \
    {                                                                                                                  \
        return call;                                                                                                   \
    }

STEP(append_one, npk_append(s, "x", rows_of(1, 3), 1, NULL))
STEP(append_digits, npk_append(s, "x", rows_of(10, 4), 10, NULL))
STEP(append_page, npk_append(s, "y", rows_of(900, 5), 900, NULL))
STEP(append_named, npk_append_named(s, "x", "more", rows_of(30, 6), 30, NULL))
STEP(drop_first, drop(s, "x", "0,5,-1"))
STEP(drop_more, drop(s, "x", "10:30"))
STEP(drop_even, drop(s, "y", "::2"))
STEP(restore_some, npk_restore_rows(s, "x", &(npk_range){3, 9}, 1, NPK_ANY_GENERATION, NULL))
STEP(restore_all, npk_restore_rows(s, "y", NULL, 0, NPK_ANY_GENERATION, NULL))
STEP(compact_x, npk_compact(s, "x", 0, NULL, NULL))
STEP(compact_y, npk_compact(s, "y", 0, NULL, NULL))
STEP(name_new, npk_name_set(s, "group/z", "some", 2, 7))
STEP(name_moved, npk_name_set(s, "x", "first", 4, 20))
STEP(name_gone, npk_name_remove(s, "x", "first"))
STEP(policy, npk_compact_policy_set(s, "x", 20))
STEP(truncate_x, npk_truncate(s, "x", 20))
STEP(extend_x, npk_extend(s, "x", 1100))
STEP(truncate_y, npk_truncate(s, "y", 900))
STEP(reshape_z, npk_reshape(s, "group/z", (const int64_t[]){4, 9}, 2))
STEP(reshape_y, npk_reshape(s, "y", (const int64_t[]){-1, 2, 2, 1}, 4))
STEP(rename_here, npk_rename(s, "x", "w"))
STEP(rename_away, npk_rename(s, "w", "group/new"))
STEP(rename_y, npk_rename(s, "y", "x"))
STEP(remove_x, npk_remove(s, "x"))
STEP(remove_z, npk_remove(s, "group/z"))
STEP(reset_all, npk_reset(s))
STEP(save_over, save(s, "x", 50, 7))
STEP(save_new, save(s, "group/new", 30, 8))
STEP(save_same, save(s, "y", 2000, 9))
STEP(replace_x, npk_replace_range(s, "x", 1, 40, rows_of(40, 10)))
STEP(replace_y, npk_replace_rows(s, "y", (const int64_t[]){5, -1, 900, 0, 5}, 5, rows_of(5, 11)))
STEP(append_view, npk_append(s, "y", rows_of(33, 12), 33, NULL))

static const struct list lists[] = {
    {setup_clean, {append_one, append_digits, append_page, append_named, drop_first, append_one}},
    {setup_clean, {drop_first, drop_more, drop_even, name_new, drop_more}},
    {setup_views, {restore_some, drop_more, restore_all, append_view, drop_even}},
    {setup_views, {compact_x, name_moved, compact_y, drop_even, append_view, compact_y}},
    {setup_clean, {name_new, policy, drop_first, append_named, name_moved, name_gone}},
    {setup_clean, {truncate_x, extend_x, reshape_z, truncate_y, reshape_y}},
    {setup_views, {truncate_x, truncate_y, extend_x, reshape_y, reshape_z}},
    {setup_views, {rename_here, rename_away, rename_y}},
    {setup_views, {remove_x, rename_y, remove_z, reset_all}},
    {setup_views, {save_over, save_new, drop_first, save_same, append_view}},
    {setup_views, {replace_x, replace_y, append_view, replace_y}},
};

#define SETUP(name, i)                                                                                                 \
    static void setup_##name(npk_store *s)                                                                             \
    {                                                                                                                  \
        current = &lists[i];                                                                                           \
        expect_states();                                                                                               \
        current->setup(s);                                                                                             \
    }
SETUP(append, 0)
SETUP(drop, 1)
SETUP(restore, 2)
SETUP(compact, 3)
SETUP(names, 4)
SETUP(shape, 5)
SETUP(shape_views, 6)
SETUP(rename, 7)
SETUP(remove, 8)
SETUP(save, 9)
SETUP(replace_views, 10)

const crash_op crash_steps[] = {
    {"append", setup_append, run_steps, check_steps},
    {"drop", setup_drop, run_steps, check_steps},
    {"restore", setup_restore, run_steps, check_steps},
    {"compact", setup_compact, run_steps, check_steps},
    {"names", setup_names, run_steps, check_steps},
    {"shape", setup_shape, run_steps, check_steps},
    {"shape_views", setup_shape_views, run_steps, check_steps},
    {"rename", setup_rename, run_steps, check_steps},
    {"remove", setup_remove, run_steps, check_steps},
    {"save", setup_save, run_steps, check_steps},
    {"replace_views", setup_replace_views, run_steps, check_steps},
    {NULL, NULL, NULL, NULL},
};
