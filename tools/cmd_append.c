/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_append.c - `npk append` and `npk replace`: rows from files or standard input go into an array. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "in_batch.h"
#include "index.h"
#include "mounted.h"
#include "output.h"
#include "progress.h"
#include "rows_in.h"
#include "say.h"
#include "typed_path.h"

#define BAR_BYTES (64u << 20) /* below this a change is over before a bar would show */

const cli_option cli_append_options[] = {
    {"raw", NULL, "take the rows as bytes, also where they look like .npy"},
    {"batch", "ID", "inside this batch; nobody else sees it before it is committed"},
    {NULL, NULL, NULL},
};

const cli_option cli_replace_options[] = {
    {"raw", NULL, "take the rows as bytes, also where they look like .npy"},
    {"batch", "ID", "inside this batch; nobody else sees it before it is committed"},
    {NULL, NULL, NULL},
};

/* The array that changes: open, with what its rows must be. */
typedef struct change {
    cli_target t;
    npk_batch *batch; /* NULL: not in one */
    npk_info info;
    cli_type *type;
} change;

static int open_in_batch(const cli_args *args, change *c)
{
    int status = cli_in_batch_open(args, args->words[0], &c->t, &c->batch);
    if (status != CLI_OK)
        return status;
    status = cli_in_batch_look(&c->t, c->batch, &c->info, &c->type);
    if (status != CLI_OK) {
        npk_batch_close(&c->batch);
        cli_target_close(&c->t);
    }
    return status;
}

static int open_change(const cli_args *args, change *c)
{
    const char *path = args->words[0];
    *c = (change){0};
    if (cli_args_has(args, "batch"))
        return open_in_batch(args, c);
    int status = cli_target_open(path, CLI_TARGET_ARRAY | CLI_TARGET_WRITE, &c->t);
    if (status != CLI_OK)
        return status;
    status = cli_target_stat(&c->t, true, &c->info);
    if (status == CLI_OK) {
        status = cli_target_type(&c->t, &c->info.header, &c->type);
        if (status == CLI_OK)
            return CLI_OK;
        npk_info_clear(&c->info);
    }
    cli_target_close(&c->t);
    return status;
}

static void close_change(change *c)
{
    cli_type_free(c->type);
    npk_info_clear(&c->info);
    npk_batch_close(&c->batch);
    cli_target_close(&c->t);
}

static int open_rows(const cli_args *args, const char *word, const change *c, cli_rows *rows, uint64_t *count)
{
    cli_why why;
    if (cli_rows_open(word, cli_args_has(args, "raw"), npk_store_fd(c->t.store), rows, &why) != 0)
        return cli_fail(NULL, "%s", why.text);
    if (cli_rows_fit(rows, &c->info.header, c->type, count, &why) == 0)
        return CLI_OK;
    cli_rows_clear(rows);
    return cli_fail(NULL, "%s", why.text);
}

/* A bar that watches the array's file grow, for appends that are long enough. */
static cli_progress *watch_growth(const change *c, uint64_t bytes, int *fd)
{
    char *path = bytes >= BAR_BYTES ? cli_target_file(&c->t) : NULL;
    *fd = path != NULL ? open(path, O_PATH | O_CLOEXEC) : -1;
    free(path);
    return *fd >= 0 ? cli_progress_start("append", bytes, *fd) : NULL;
}

static int append_one(const change *c, const cli_rows *rows, uint64_t count, uint64_t *first)
{
    if (c->t.mounted)
        return cli_mounted_append(&c->t, rows->blob.label, rows->data, rows->bytes);
    int fd;
    cli_progress *progress = watch_growth(c, rows->bytes, &fd);
    int err = c->batch != NULL ? npk_batch_append(c->batch, c->t.name, rows->data, count, first)
                               : npk_append(c->t.store, c->t.name, rows->data, count, first);
    cli_progress_end(progress);
    if (fd >= 0)
        close(fd);
    if (err == -EFAULT)
        return cli_fail(rows->blob.label, "became shorter while it was read; nothing of it was appended");
    return err != 0 ? cli_fail_engine(c->t.typed, err) : CLI_OK;
}

static int append_all(const cli_args *args, const change *c, const cli_rows *rows, const uint64_t *counts, size_t n)
{
    static const cli_column columns[] = {
        {"rows_from", "ROWS FROM", false}, {"first", "FIRST", true}, {"rows", "ROWS", true}};
    cli_table *table = cli_table_new(args, columns, 3);
    int status = CLI_OK;
    for (size_t i = 0; i < n && status == CLI_OK; i++) {
        uint64_t first = 0;
        status = append_one(c, &rows[i], counts[i], &first);
        if (status != CLI_OK)
            break;
        cli_table_string(table, rows[i].blob.label);
        if (c->t.mounted)
            cli_table_none(table);
        else
            cli_table_count(table, first);
        cli_table_count(table, counts[i]);
    }
    int end = cli_table_end(table);
    return status != CLI_OK ? status : end;
}

int cli_append(const cli_args *args)
{
    change c;
    int status = open_change(args, &c);
    if (status != CLI_OK)
        return status;
    size_t n = args->word_count - 1, opened = 0;
    cli_rows *rows = calloc(n, sizeof *rows);
    uint64_t *counts = calloc(n, sizeof *counts);
    if (rows == NULL || counts == NULL)
        status = cli_fail(NULL, "%s", strerror(ENOMEM));
    /* All are checked before the first is appended. */
    for (; opened < n && status == CLI_OK; opened++) {
        status = open_rows(args, args->words[opened + 1], &c, &rows[opened], &counts[opened]);
        if (status != CLI_OK)
            break;
    }
    if (status == CLI_OK)
        status = append_all(args, &c, rows, counts, n);
    for (size_t i = 0; i < opened; i++)
        cli_rows_clear(&rows[i]);
    free(rows);
    free(counts);
    close_change(&c);
    return status;
}

/* ---- replace -------------------------------------------------------------------------------------------------- */

static int replace_rows(const change *c, const npk_rows *index, const cli_rows *rows)
{
    if (c->t.mounted)
        return cli_mounted_replace(&c->t, &c->info.header, index, rows->data);
    int err;
    if (index->run_count == 1 && index->runs[0].step == 1) {
        const npk_run *run = &index->runs[0];
        err = c->batch != NULL
                  ? npk_batch_replace_range(c->batch, c->t.name, (uint64_t)run->start, run->count, rows->data)
                  : npk_replace_range(c->t.store, c->t.name, (uint64_t)run->start, run->count, rows->data);
    } else {
        npk_rows_cursor cursor = {0};
        int64_t *numbers = calloc((size_t)index->row_count + 1, sizeof *numbers);
        if (numbers == NULL)
            return cli_fail(NULL, "%s", strerror(ENOMEM));
        size_t count = npk_rows_take(index, &cursor, numbers, (size_t)index->row_count);
        err = c->batch != NULL ? npk_batch_replace_rows(c->batch, c->t.name, numbers, count, rows->data)
                               : npk_replace_rows(c->t.store, c->t.name, numbers, count, rows->data);
        free(numbers);
    }
    if (err == -EFAULT)
        return cli_fail(rows->blob.label, "became shorter while it was read");
    return err != 0 ? cli_fail_engine(c->t.typed, err) : CLI_OK;
}

static int replace_at(const cli_args *args, const change *c, const npk_rows *index)
{
    cli_rows rows;
    uint64_t count;
    int status = open_rows(args, args->words[2], c, &rows, &count);
    if (status != CLI_OK)
        return status;
    if (count != index->row_count)
        status = cli_fail(rows.blob.label, "has %llu rows for an index of %llu; as many are accepted",
                          (unsigned long long)count, (unsigned long long)index->row_count);
    else if (count > 0)
        status = replace_rows(c, index, &rows);
    cli_rows_clear(&rows);
    if (status != CLI_OK || !args->format_given)
        return status;
    static const cli_column columns[] = {{"name", "NAME", false}, {"rows", "ROWS", true}};
    cli_table *table = cli_table_new(args, columns, 2);
    cli_table_string(table, c->t.name);
    cli_table_count(table, count);
    return cli_table_end(table);
}

int cli_replace(const cli_args *args)
{
    if (strcmp(args->words[1], "-") == 0 && strcmp(args->words[2], "-") == 0)
        return cli_usage("-", "cannot be both the index and the rows; one of them may be standard input");
    change c;
    int status = open_change(args, &c);
    if (status != CLI_OK)
        return status;
    npk_rows index = {0};
    cli_why why;
    int err = cli_index_load(args->words[1], c.info.rows, &index, &why);
    if (err == -EINVAL && strcmp(args->words[1], "-") != 0 && !cli_is_npy_path(args->words[1]))
        status = cli_usage(NULL, "%s", why.text);
    else if (err != 0)
        status = cli_fail(args->words[0], "%s", why.text);
    else
        status = replace_at(args, &c, &index);
    npk_rows_clear(&index);
    close_change(&c);
    return status;
}
