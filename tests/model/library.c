/* SPDX-License-Identifier: Apache-2.0 */
/*
 * npk-library STORE: the library as a process of its own, told what to do on its standard input, so that a driver in
 * another language can use it, kill it, and run it under a sanitizer.
 *
 * A request is a line of words with tabs between, the last of which is the number of bytes that follow. The answer is a line
 * of the result (0 or a negative errno), the number of bytes that follow, and the sentence.
 */
#define _GNU_SOURCE 1

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "npk.h"

#define MOST_WORDS   64
#define MOST_BATCHES 8

static npk_store *store;
static npk_batch *batches[MOST_BATCHES];

/* The request at hand, and the answer. */
static char *word[MOST_WORDS];
static unsigned words;
static uint8_t *given;
static uint64_t given_bytes;
static char *answer;
static size_t answer_bytes, answer_room;

static void *room_for(size_t bytes)
{
    if (answer_bytes + bytes + 1 > answer_room) {
        answer_room = (answer_bytes + bytes + 1) * 2;
        answer = realloc(answer, answer_room);
        if (!answer)
            abort();
    }
    return answer + answer_bytes;
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    va_list args;
    char text[1024];
    va_start(args, format);
    int n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    size_t bytes = n < (int)sizeof(text) ? (size_t)n : sizeof(text) - 1;
    memcpy(room_for(bytes), text, bytes);
    answer_bytes += bytes;
}

static uint64_t number(unsigned i)
{
    return i < words ? strtoull(word[i], NULL, 10) : 0;
}

static const char *text(unsigned i)
{
    return i < words ? word[i] : "";
}

static uint32_t shape_of(const char *list, uint64_t *shape)
{
    uint32_t n = 0;
    for (char *end; *list && n < NPK_MAX_DIMS; list = *end == ',' ? end + 1 : end) {
        shape[n++] = (uint64_t)strtoll(list, &end, 10);
        if (end == list)
            break;
    }
    return n;
}

/* The batch that a word names, in the table of those that this process has; a new place for an unknown one. */
static npk_batch **batch_of(const char *id)
{
    npk_batch **empty = NULL;
    for (unsigned i = 0; i < MOST_BATCHES; i++)
        if (!batches[i])
            empty = &batches[i];
        else if (strcmp(npk_batch_id(batches[i]), id) == 0)
            return &batches[i];
    return empty;
}

static npk_batch **batch_open(const char *id, int *err)
{
    npk_batch **b = batch_of(id);
    *err = !b ? -ENOMEM : *b ? 0 : npk_batch_open(store, id, b);
    return b;
}

/* ---- changes --------------------------------------------------------------------------------------------------- */

/* save NAME DTYPE SHAPE [create] */
static int do_save(void)
{
    uint64_t shape[NPK_MAX_DIMS];
    npk_array_in in = {.name = text(1), .dtype = text(2), .shape = shape, .data = given};
    in.ndim = shape_of(text(3), shape);
    return strcmp(text(4), "create") == 0 ? npk_create(store, &in) : npk_save(store, &in, 1);
}

/* save_many (NAME DTYPE SHAPE BYTES)...: their data one after the other */
static int do_save_many(void)
{
    static uint64_t shapes[16][NPK_MAX_DIMS];
    npk_array_in in[16];
    size_t count = 0;
    uint64_t at = 0;
    for (unsigned i = 1; i + 3 < words && count < 16; i += 4, count++) {
        in[count] = (npk_array_in){
            .name = word[i], .dtype = word[i + 1], .shape = shapes[count], .data = given + at};
        in[count].ndim = shape_of(word[i + 2], shapes[count]);
        at += number(i + 3);
    }
    return npk_save(store, in, count);
}

/* append NAME COUNT */
static int do_append(void)
{
    uint64_t first = 0;
    int err = npk_append(store, text(1), given, number(2), &first);
    if (!err)
        say("%" PRIu64, first);
    return err;
}

/* append_many (NAME COUNT BYTES)... */
static int do_append_many(void)
{
    npk_rows_in in[16];
    size_t count = 0;
    uint64_t at = 0;
    for (unsigned i = 1; i + 2 < words && count < 16; i += 3, count++) {
        in[count] = (npk_rows_in){.name = word[i], .count = number(i + 1), .rows = given + at};
        at += number(i + 2);
    }
    return npk_append_many(store, in, count);
}

/* append_named NAME RANGE COUNT */
static int do_append_named(void)
{
    uint64_t first = 0;
    int err = npk_append_named(store, text(1), text(2), given, number(3), &first);
    if (!err)
        say("%" PRIu64, first);
    return err;
}

/* replace_range NAME START COUNT */
static int do_replace_range(void)
{
    return npk_replace_range(store, text(1), number(2), number(3), given);
}

/* replace_rows NAME COUNT: indices, then rows */
static int do_replace_rows(void)
{
    size_t count = number(2);
    return npk_replace_rows(store, text(1), (const int64_t *)(void *)given, count, given + 8 * count);
}

/* drop NAME ROWS COUNT: indices of an array of ROWS rows */
static int do_drop(void)
{
    npk_rows rows = {0};
    uint64_t dropped = 0;
    int err = npk_rows_from_indices((const int64_t *)(void *)given, number(3), number(2), &rows);
    if (!err)
        err = npk_drop_rows(store, text(1), &rows, NPK_ANY_GENERATION, &dropped);
    if (!err)
        say("%" PRIu64, dropped);
    npk_rows_clear(&rows);
    return err;
}

/* restore NAME COUNT: ranges of two numbers; no count: all */
static int do_restore(void)
{
    uint64_t restored = 0;
    size_t count = words > 3 ? number(2) : 0;
    int err = npk_restore_rows(store, text(1), words > 3 ? (const npk_range *)(void *)given : NULL, count,
                               NPK_ANY_GENERATION, &restored);
    if (!err)
        say("%" PRIu64, restored);
    return err;
}

static int do_compact(void)
{
    return npk_compact(store, text(1), 0, NULL, NULL);
}

static int do_policy(void)
{
    return npk_compact_policy_set(store, text(1), (unsigned)number(2));
}

static int do_truncate(void)
{
    return npk_truncate(store, text(1), number(2));
}

static int do_extend(void)
{
    return npk_extend(store, text(1), number(2));
}

static int do_reshape(void)
{
    uint64_t shape[NPK_MAX_DIMS];
    uint32_t ndim = shape_of(text(2), shape);
    return npk_reshape(store, text(1), (const int64_t *)shape, ndim);
}

static int do_rename(void)
{
    return npk_rename(store, text(1), text(2));
}

static int do_remove(void)
{
    return npk_remove(store, text(1));
}

static int do_clone(void)
{
    return npk_clone(store, text(1), text(2));
}

static int do_cast(void)
{
    return npk_cast(store, text(1), text(2), 0, NULL, NULL);
}

static int do_name_set(void)
{
    return npk_name_set(store, text(1), text(2), number(3), number(4));
}

static int do_name_remove(void)
{
    return npk_name_remove(store, text(1), text(2));
}

static int do_reset(void)
{
    return npk_reset(store);
}

static int do_sync(void)
{
    return npk_sync(store, words > 2 ? text(1) : NULL);
}

/* ---- batches --------------------------------------------------------------------------------------------------- */

static int do_batch_begin(void)
{
    npk_batch **b = batch_of(text(1));
    return b && !*b ? npk_batch_begin(store, text(1), strcmp(text(2), "keep") == 0 ? NPK_BATCH_KEEP : 0, b) : -EEXIST;
}

static int do_batch_close(void)
{
    npk_batch **b = batch_of(text(1));
    if (b && *b)
        npk_batch_close(b);
    return 0;
}

static int do_batch_commit(void)
{
    int err;
    npk_batch **b = batch_open(text(1), &err);
    return err ? err : npk_batch_commit(b);
}

static int do_batch_abort(void)
{
    int err;
    npk_batch **b = batch_open(text(1), &err);
    return err ? err : npk_batch_abort(b);
}

/* batch_save ID NAME DTYPE SHAPE */
static int do_batch_save(void)
{
    int err;
    npk_batch **b = batch_open(text(1), &err);
    uint64_t shape[NPK_MAX_DIMS];
    npk_array_in in = {.name = text(2), .dtype = text(3), .shape = shape, .data = given};
    in.ndim = shape_of(text(4), shape);
    return err ? err : npk_batch_save(*b, &in, 1);
}

static int do_batch_append(void)
{
    int err;
    npk_batch **b = batch_open(text(1), &err);
    return err ? err : npk_batch_append(*b, text(2), given, number(3), NULL);
}

static int do_batch_replace(void)
{
    int err;
    size_t count = number(3);
    npk_batch **b = batch_open(text(1), &err);
    return err ? err : npk_batch_replace_rows(*b, text(2), (const int64_t *)(void *)given, count, given + 8 * count);
}

/* batch_drop ID NAME ROWS COUNT */
static int do_batch_drop(void)
{
    int err;
    npk_rows rows = {0};
    npk_batch **b = batch_open(text(1), &err);
    if (!err)
        err = npk_rows_from_indices((const int64_t *)(void *)given, number(4), number(3), &rows);
    if (!err)
        err = npk_batch_drop_rows(*b, text(2), &rows, NULL);
    npk_rows_clear(&rows);
    return err;
}

static int do_batch_remove(void)
{
    int err;
    npk_batch **b = batch_open(text(1), &err);
    return err ? err : npk_batch_remove(*b, text(2));
}

static void say_stat(const npk_info *i)
{
    if (i->reason) {
        say("plain\t%s", i->reason);
        return;
    }
    say("%s\t", i->header.dtype.name);
    for (uint32_t d = 0; d < i->header.ndim; d++)
        say("%s%" PRIu64, d ? "," : "", i->header.shape[d]);
    say("\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64, i->rows, i->deleted, i->physical_rows, i->tail_bytes);
}

static int do_batch_stat(void)
{
    int err;
    npk_info i;
    npk_batch **b = batch_open(text(1), &err);
    if (!err)
        err = npk_batch_stat(*b, text(2), &i);
    if (err)
        return err;
    say_stat(&i);
    npk_info_clear(&i);
    return 0;
}

/* batch_read ID NAME: all rows */
static int do_batch_read(void)
{
    int err;
    npk_info i;
    npk_batch **b = batch_open(text(1), &err);
    if (!err)
        err = npk_batch_stat(*b, text(2), &i);
    if (err)
        return err;
    uint64_t bytes = i.rows * i.header.row_bytes, rows = i.rows;
    npk_info_clear(&i);
    err = npk_batch_read_range(*b, text(2), 0, rows, room_for(bytes));
    if (!err)
        answer_bytes += bytes;
    return err;
}

/* ---- questions ------------------------------------------------------------------------------------------------- */

static int do_stat(void)
{
    npk_info i;
    int err = npk_stat(store, text(1), &i);
    if (err)
        return err;
    say_stat(&i);
    npk_info_clear(&i);
    return 0;
}

static int copy_rows(void *ctx, uint64_t first, uint64_t count, const void *rows)
{
    size_t bytes = count * *(const uint64_t *)ctx;
    (void)first;
    memcpy(room_for(bytes), rows, bytes);
    answer_bytes += bytes;
    return 0;
}

/* read NAME all|range|rows|stream|map [START COUNT | COUNT]: row indices follow a COUNT */
static int do_read(void)
{
    npk_array *a = NULL;
    int err = npk_array_open(store, text(1), &a);
    if (err)
        return err;
    const npk_info *i = npk_array_info(a);
    uint64_t row = i->header.row_bytes, bytes = i->header.data_bytes;
    const char *how = text(2);
    const void *data = NULL;
    if (strcmp(how, "range") == 0) {
        bytes = number(4) * row;
        err = npk_read_range(a, number(3), number(4), room_for(bytes));
        answer_bytes += err ? 0 : bytes;
    } else if (strcmp(how, "rows") == 0) {
        bytes = number(3) * row;
        err = npk_read_rows(a, (const int64_t *)(void *)given, number(3), room_for(bytes));
        answer_bytes += err ? 0 : bytes;
    } else if (strcmp(how, "stream") == 0) {
        err = npk_stream(a, number(3), copy_rows, &row);
    } else if (strcmp(how, "runs") == 0) {
        err = npk_array_runs(a, 0, i->rows, number(3), copy_rows, &row);
    } else if (strcmp(how, "map") == 0) {
        err = npk_array_map(a, &data, &bytes);
        if (!err && bytes) {
            memcpy(room_for(bytes), data, bytes);
            answer_bytes += bytes;
        }
    } else {
        err = npk_read_all(a, room_for(bytes));
        answer_bytes += err ? 0 : bytes;
    }
    npk_array_close(&a);
    return err;
}

static int say_range(void *ctx, uint64_t start, uint64_t stop)
{
    (void)ctx;
    say("%" PRIu64 "\t%" PRIu64 "\n", start, stop);
    return 0;
}

static int do_deleted(void)
{
    return npk_deleted_ranges(store, text(1), say_range, NULL);
}

static int say_name(void *ctx, const char *name, uint64_t start, uint64_t stop)
{
    (void)ctx;
    say("%s\t%" PRIu64 "\t%" PRIu64 "\n", name, start, stop);
    return 0;
}

static int do_names(void)
{
    return npk_names(store, text(1), say_name, NULL);
}

static int say_array(void *ctx, const char *name, const npk_info *info)
{
    (void)ctx;
    (void)info;
    say("%s\n", name);
    return 0;
}

static int do_list(void)
{
    return npk_list(store, "", 0, say_array, NULL);
}

static int say_finding(void *ctx, const npk_finding *f)
{
    static const char *const names[] = {"note", "warning", "damage"};
    (void)ctx;
    say("%s\t%s\t%s\t%s\n", names[f->severity], f->rule, f->path, f->sentence);
    return 0;
}

static int do_check(void)
{
    return npk_check(store, NULL, (unsigned)number(1), say_finding, NULL);
}

static int do_summary(void)
{
    npk_summary s;
    int err = npk_summarize(store, text(1), &s, NULL, NULL);
    if (!err)
        say("%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%.17g\t%.17g\t%.17g", s.count, s.nans, s.zeros, s.min, s.max,
            s.mean);
    return err;
}

/* ---- the loop -------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int (*run)(void);
} verbs[] = {
    {"save", do_save},
    {"save_many", do_save_many},
    {"append", do_append},
    {"append_many", do_append_many},
    {"append_named", do_append_named},
    {"replace_range", do_replace_range},
    {"replace_rows", do_replace_rows},
    {"drop", do_drop},
    {"restore", do_restore},
    {"compact", do_compact},
    {"policy", do_policy},
    {"truncate", do_truncate},
    {"extend", do_extend},
    {"reshape", do_reshape},
    {"rename", do_rename},
    {"remove", do_remove},
    {"clone", do_clone},
    {"cast", do_cast},
    {"name_set", do_name_set},
    {"name_remove", do_name_remove},
    {"reset", do_reset},
    {"sync", do_sync},
    {"batch_begin", do_batch_begin},
    {"batch_close", do_batch_close},
    {"batch_commit", do_batch_commit},
    {"batch_abort", do_batch_abort},
    {"batch_save", do_batch_save},
    {"batch_append", do_batch_append},
    {"batch_replace", do_batch_replace},
    {"batch_drop", do_batch_drop},
    {"batch_remove", do_batch_remove},
    {"batch_stat", do_batch_stat},
    {"batch_read", do_batch_read},
    {"stat", do_stat},
    {"read", do_read},
    {"deleted", do_deleted},
    {"names", do_names},
    {"list", do_list},
    {"check", do_check},
    {"summary", do_summary},
};

static int run(void)
{
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strcmp(verbs[i].name, text(0)) == 0)
            return verbs[i].run();
    return -ENOSYS;
}

/* The words of a line; what follows it. false: the driver has gone, or makes no sense. */
static bool take(char *line)
{
    words = 0;
    line[strcspn(line, "\n")] = '\0';
    for (char *at = line, *next; at && words < MOST_WORDS; at = next) {
        next = strchr(at, '\t');
        if (next)
            *next++ = '\0';
        word[words++] = at;
    }
    given_bytes = number(words - 1);
    free(given);
    given = malloc(given_bytes + 16); /* data that is none is not NULL, which would mean zeros */
    return given && fread(given, 1, given_bytes, stdin) == given_bytes;
}

int main(int argc, char **argv)
{
    char *line = NULL;
    size_t room = 0;
    if (argc != 2 || npk_store_open(argv[1], 0, &store) != 0) {
        fprintf(stderr, "usage: npk-library STORE (%s)\n", npk_error());
        return 2;
    }
    while (getline(&line, &room, stdin) > 0 && take(line)) {
        answer_bytes = 0;
        int result = run();
        if (result)
            answer_bytes = 0;
        printf("%d\t%zu\t%s\n", result, answer_bytes, result ? npk_error() : "");
        if (answer_bytes > 0)
            fwrite(answer, 1, answer_bytes, stdout);
        fflush(stdout);
    }
    for (unsigned i = 0; i < MOST_BATCHES; i++)
        npk_batch_close(&batches[i]);
    npk_store_close(&store);
    free(given);
    free(answer);
    free(line);
    return 0;
}
