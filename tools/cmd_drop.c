/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_drop.c - `npk drop` and `npk restore`: rows are marked as deleted, and shown again. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "in_batch.h"
#include "index.h"
#include "mounted.h"
#include "output.h"
#include "say.h"
#include "typed_path.h"

/* Somebody else may drop rows between the look at an array and the change; then the rows are looked up again. */
#define TRIES 20

/* ---- drop ------------------------------------------------------------------------------------------------------ */

/* The generation of the numbering that is shown now. */
static int generation_of(const cli_target *t, uint64_t *out)
{
    char *path = NULL;
    uint64_t bytes;
    if (asprintf(&path, "%s.npy", t->name) < 0)
        return -ENOMEM;
    int fd = npk_open_beneath(t->store, path, O_RDONLY | O_CLOEXEC, 0);
    int err = fd < 0 ? fd : npk_view_shows(t->store, path, fd, &bytes, out);
    if (fd >= 0)
        close(fd);
    free(path);
    return err;
}

/* The rows that the second word means now. CLI_OK or another status after a sentence. */
static int load_index(const cli_args *args, const cli_target *t, npk_rows *index)
{
    npk_info info;
    cli_why why;
    int status = cli_target_stat(t, true, &info);
    if (status != CLI_OK)
        return status;
    int err = cli_index_load(args->words[1], info.rows, index, &why);
    npk_info_clear(&info);
    if (err == -EINVAL && strcmp(args->words[1], "-") != 0 && !cli_is_npy_path(args->words[1]))
        return cli_usage(NULL, "%s", why.text);
    return err != 0 ? cli_fail(args->words[0], "%s", why.text) : CLI_OK;
}

/* The control takes the same rows as text, one run a line. */
static int drop_through_mount(const cli_target *t, const npk_rows *index)
{
    cli_text lines = {0};
    for (size_t i = 0; i < index->run_count; i++) {
        const npk_run *run = &index->runs[i];
        if (run->step == 1) {
            cli_text_addf(&lines, "%s%llu:%llu", i > 0 ? "\n" : "", (unsigned long long)run->start,
                          (unsigned long long)(run->start + run->count));
            continue;
        }
        for (uint64_t k = 0; k < run->count; k++)
            cli_text_addf(&lines, "%s%llu", i + k > 0 ? "\n" : "",
                          (unsigned long long)(run->start + k * (uint64_t)run->step));
    }
    int status = index->row_count > 0 ? cli_mounted_control(t, "drop", cli_text_string(&lines)) : CLI_OK;
    cli_text_clear(&lines);
    return status;
}

static int show_dropped(const cli_args *args, const cli_target *t, uint64_t dropped)
{
    static const cli_column columns[] = {{"name", "name", false}, {"dropped", "dropped", true}, {"rows", "rows", true}};
    npk_info info;
    int status = cli_target_stat(t, false, &info);
    if (status != CLI_OK)
        return status;
    cli_table *record = cli_record_new(args, columns, 3);
    cli_table_string(record, t->name);
    cli_table_count(record, dropped);
    cli_table_count(record, info.rows);
    npk_info_clear(&info);
    return cli_table_end(record);
}

static int drop_rows(const cli_args *args, const cli_target *t)
{
    uint64_t dropped = 0;
    int err = -ESTALE, status = CLI_OK;
    for (int i = 0; i < TRIES && err == -ESTALE; i++) {
        npk_rows index = {0};
        uint64_t generation = NPK_ANY_GENERATION;
        err = t->mounted ? 0 : generation_of(t, &generation);
        status = err != 0 ? cli_fail_engine(t->typed, err) : load_index(args, t, &index);
        if (status == CLI_OK && t->mounted) {
            dropped = index.row_count;
            status = drop_through_mount(t, &index);
        } else if (status == CLI_OK) {
            err = npk_drop_rows(t->store, t->name, &index, generation, &dropped);
        }
        npk_rows_clear(&index);
        if (status != CLI_OK)
            return status;
        if (err == -ESTALE && strcmp(args->words[1], "-") == 0)
            break; /* what was read is gone */
    }
    if (err != 0)
        return cli_fail_engine(t->typed, err);
    cli_mounted_refresh(t);
    return args->format_given ? show_dropped(args, t, dropped) : CLI_OK;
}

static int drop_array(const cli_target *t)
{
    if (!t->mounted) {
        int err = npk_remove(t->store, t->name);
        return err != 0 ? cli_fail_engine(t->typed, err) : CLI_OK;
    }
    char *path = cli_target_file(t);
    int err = path == NULL ? ENOMEM : unlink(path) != 0 ? errno : 0;
    free(path);
    return err != 0 ? cli_fail(t->typed, "%s", strerror(err)) : CLI_OK;
}

const cli_option cli_drop_options[] = {
    {"batch", "ID", "inside this batch; nobody else sees it before it is committed"},
    {NULL, NULL, NULL},
};

static int drop_in_batch(const cli_args *args)
{
    cli_target t;
    npk_batch *batch = NULL;
    npk_info info = {0};
    npk_rows index = {0};
    cli_why why;
    int err = 0, status = cli_in_batch_open(args, args->words[0], &t, &batch);
    if (status != CLI_OK)
        return status;
    if (args->word_count == 1) {
        err = npk_batch_remove(batch, t.name);
    } else {
        err = npk_batch_stat(batch, t.name, &info);
        if (err == 0)
            status = cli_target_has_rows(&t, &info);
        if (err == 0 && status == CLI_OK && cli_index_load(args->words[1], info.rows, &index, &why) != 0)
            status = cli_fail(args->words[0], "%s", why.text);
        if (err == 0 && status == CLI_OK)
            err = npk_batch_drop_rows(batch, t.name, &index, NULL);
    }
    if (err != 0)
        status = cli_fail_engine(t.typed, err);
    npk_rows_clear(&index);
    npk_info_clear(&info);
    npk_batch_close(&batch);
    cli_target_close(&t);
    return status;
}

int cli_drop(const cli_args *args)
{
    cli_target t;
    if (cli_args_has(args, "batch"))
        return drop_in_batch(args);
    int status = cli_target_open(args->words[0], CLI_TARGET_ARRAY | CLI_TARGET_WRITE, &t);
    if (status != CLI_OK)
        return status;
    status = args->word_count > 1 ? drop_rows(args, &t) : drop_array(&t);
    cli_target_close(&t);
    return status;
}

/* ---- restore --------------------------------------------------------------------------------------------------- */

static int add_range(void *ctx, uint64_t start, uint64_t stop)
{
    cli_table *table = ctx;
    cli_table_count(table, start);
    cli_table_count(table, stop);
    return 0;
}

static int list_deleted(const cli_args *args, const cli_target *t)
{
    static const cli_column columns[] = {{"start", "start", true}, {"stop", "stop", true}};
    cli_table *table = cli_table_new(args, columns, 2);
    int err = npk_deleted_ranges(t->store, t->name, add_range, table);
    int status = cli_table_end(table);
    return err != 0 ? cli_fail_engine(t->typed, err) : status;
}

/* Rows of the file as ranges; malloc()ed. */
static int ranges_of(const cli_args *args, const cli_target *t, npk_range **out, size_t *count)
{
    npk_info info;
    npk_rows index = {0};
    cli_why why;
    int status = cli_target_stat(t, true, &info);
    if (status != CLI_OK)
        return status;
    int err = cli_index_load(args->words[1], info.physical_rows, &index, &why);
    npk_info_clear(&info);
    npk_range *ranges = NULL;
    if (err != 0)
        status = err == -EINVAL ? cli_usage(NULL, "%s; so is \"all\"", why.text) : cli_fail(t->typed, "%s", why.text);
    else if ((ranges = calloc(index.row_count + 1, sizeof *ranges)) == NULL)
        status = cli_fail(NULL, "%s", strerror(ENOMEM));
    npk_rows_cursor cursor = {0};
    uint64_t first, rows;
    for (*count = 0; status == CLI_OK && (rows = npk_rows_take_range(&index, &cursor, UINT64_MAX, &first)) > 0;)
        ranges[(*count)++] = (npk_range){.start = first, .stop = first + rows};
    npk_rows_clear(&index);
    *out = ranges;
    return status;
}

static int restore_rows(const cli_args *args, const cli_target *t)
{
    npk_range *ranges = NULL;
    size_t count = 0;
    uint64_t restored = 0;
    bool all = strcmp(args->words[1], "all") == 0;
    if (t->mounted)
        return cli_mounted_control(t, "restore", args->words[1]);
    int status = all ? CLI_OK : ranges_of(args, t, &ranges, &count);
    if (status == CLI_OK) {
        int err = npk_restore_rows(t->store, t->name, ranges, count, NPK_ANY_GENERATION, &restored);
        if (err != 0)
            status = cli_fail_engine(t->typed, err);
        cli_mounted_refresh(t);
    }
    free(ranges);
    if (status == CLI_OK && args->format_given) {
        static const cli_column columns[] = {{"name", "name", false}, {"restored", "restored", true}};
        cli_table *record = cli_record_new(args, columns, 2);
        cli_table_string(record, t->name);
        cli_table_count(record, restored);
        status = cli_table_end(record);
    }
    return status;
}

int cli_restore(const cli_args *args)
{
    cli_target t;
    bool list = args->word_count < 2;
    int status = cli_target_open(args->words[0], CLI_TARGET_ARRAY | (list ? 0 : CLI_TARGET_WRITE), &t);
    if (status != CLI_OK)
        return status;
    status = list ? list_deleted(args, &t) : restore_rows(args, &t);
    cli_target_close(&t);
    return status;
}
