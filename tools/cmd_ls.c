/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_ls.c - `npk ls`: the arrays of stores, sorted by name. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "output.h"
#include "say.h"
#include "typed_path.h"

const cli_option cli_ls_options[] = {
    {"all", NULL, "also .npy files that are no arrays, with the reason"},
    {"flat", NULL, "only the directory itself, not its groups"},
    {NULL, NULL, NULL},
};

static const cli_column columns[] = {
    {"name", "NAME", false}, {"dtype", "DTYPE", false},      {"shape", "SHAPE", false},
    {"bytes", "SIZE", true}, {"mtime_us", "CHANGED", false}, {"note", "NOTE", false},
};

/* What a line shows, and no more: a store may hold a hundred thousand arrays. */
typedef struct entry {
    char *name;
    char *reason;
    char *dtype;
    uint32_t ndim;
    uint64_t *shape;
    uint64_t bytes;
    int64_t mtime_us;
} entry;

typedef struct listing {
    const cli_target *t;
    const char *prefix; /* before each name, "" when one path is listed */
    entry *entries;
    size_t count, capacity;
} listing;

/* A dtype in full: what the engine tells of a structure is cut. malloc()ed. */
static char *dtype_of(const cli_target *t, const char *name, const npk_header *header)
{
    char word[64];
    cli_dtype_text(&header->dtype, word, sizeof word);
    if (header->dtype.kind != NPK_KIND_STRUCT)
        return strdup(word);
    cli_target one = *t;
    cli_type *type = NULL;
    cli_text text = {0};
    one.name = one.typed = (char *)name;
    if (cli_target_type(&one, header, &type) == CLI_OK)
        cli_type_name(type, &text);
    cli_type_free(type);
    char *full = strdup(text.bytes > 0 ? cli_text_string(&text) : word);
    cli_text_clear(&text);
    return full;
}

static int add_entry(void *ctx, const char *name, const npk_info *info)
{
    listing *l = ctx;
    if (l->count == l->capacity) {
        size_t capacity = l->capacity == 0 ? 64 : l->capacity * 2;
        entry *entries = reallocarray(l->entries, capacity, sizeof *entries);
        if (entries == NULL)
            return -ENOMEM;
        l->entries = entries;
        l->capacity = capacity;
    }
    entry *e = &l->entries[l->count];
    *e = (entry){.ndim = info->header.ndim, .bytes = info->file_bytes, .mtime_us = info->mtime_us};
    if (asprintf(&e->name, "%s%s", l->prefix, name) < 0)
        return -ENOMEM;
    l->count++;
    if (info->reason != NULL) {
        e->reason = strdup(info->reason);
        return e->reason == NULL ? -ENOMEM : 0;
    }
    e->dtype = dtype_of(l->t, name, &info->header);
    e->shape = calloc((size_t)e->ndim + 1, sizeof *e->shape);
    if (e->shape == NULL || e->dtype == NULL)
        return -ENOMEM;
    memcpy(e->shape, info->header.shape, e->ndim * sizeof *e->shape);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static void clear(listing *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->entries[i].name);
        free(l->entries[i].reason);
        free(l->entries[i].dtype);
        free(l->entries[i].shape);
    }
    free(l->entries);
    *l = (listing){0};
}

static int list_target(const cli_args *args, const cli_target *t, listing *l)
{
    unsigned flags =
        (cli_args_has(args, "all") ? NPK_LIST_PLAIN : 0) | (cli_args_has(args, "flat") ? NPK_LIST_FLAT : 0);
    int err;
    if (t->name[0] == '\0') {
        err = npk_list(t->store, "", flags, add_entry, l);
    } else {
        npk_info info;
        err = npk_stat(t->store, t->name, &info);
        if (err == 0) {
            int added = info.reason == NULL || cli_args_has(args, "all") ? add_entry(l, t->name, &info) : 0;
            int status = added != 0 ? cli_fail(NULL, "%s", strerror(-added)) : CLI_OK;
            if (info.reason != NULL && !cli_args_has(args, "all"))
                status = cli_fail(t->typed, "is no array: %s", info.reason);
            npk_info_clear(&info);
            return status;
        }
    }
    return err != 0 ? cli_fail_engine(t->typed, err) : CLI_OK;
}

static void show(cli_table *table, const entry *e, bool notes)
{
    cli_table_string(table, e->name);
    if (e->reason != NULL) {
        cli_table_none(table);
        cli_table_none(table);
    } else {
        cli_table_string(table, e->dtype);
        cli_table_shape(table, e->shape, e->ndim);
    }
    cli_table_bytes(table, e->bytes);
    cli_table_time(table, e->mtime_us);
    if (!notes)
        return;
    if (e->reason != NULL)
        cli_table_string(table, e->reason);
    else
        cli_table_none(table);
}

/* List one path; several are told apart by the directory before each name. */
static int list_path(const cli_args *args, const char *path, bool several, cli_table *table)
{
    cli_target t;
    int status = cli_target_open(path, 0, &t);
    if (status != CLI_OK)
        return status;
    char *prefix = NULL;
    if (several && asprintf(&prefix, "%s/", t.dir) < 0)
        prefix = NULL;
    listing l = {.t = &t, .prefix = prefix != NULL ? prefix : ""};
    status = list_target(args, &t, &l);
    if (l.count > 0)
        qsort(l.entries, l.count, sizeof *l.entries, by_name);
    for (size_t i = 0; i < l.count; i++)
        show(table, &l.entries[i], cli_args_has(args, "all"));
    clear(&l);
    free(prefix);
    cli_target_close(&t);
    return status;
}

int cli_ls(const cli_args *args)
{
    size_t column_count = sizeof columns / sizeof *columns - (cli_args_has(args, "all") ? 0 : 1);
    cli_table *table = cli_table_new(args, columns, column_count);
    int status = CLI_OK;
    size_t count = args->word_count > 0 ? args->word_count : 1;
    for (size_t i = 0; i < count; i++) {
        int one = list_path(args, args->word_count > 0 ? args->words[i] : ".", count > 1, table);
        if (one > status)
            status = one;
    }
    int end = cli_table_end(table);
    return status != CLI_OK ? status : end;
}
