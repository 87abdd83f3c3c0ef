/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_batch.c - `npk batch`: changes of several arrays that happen together. */
#include <errno.h>
#include <string.h>

#include "args.h"
#include "in_batch.h"
#include "output.h"
#include "say.h"
#include "typed_path.h"

static int begin(const cli_args *args, const cli_target *t, const char *id)
{
    static const cli_column columns[] = {{"id", "ID", false}};
    npk_batch *b = NULL;
    int err = npk_batch_begin(t->store, id, NPK_BATCH_KEEP, &b);
    if (err != 0)
        return cli_fail_engine(t->typed, err);
    cli_table *table = cli_table_new(args, columns, 1);
    cli_table_string(table, npk_batch_id(b));
    npk_batch_close(&b);
    return cli_table_end(table);
}

static int end(const cli_target *t, const char *id, npk_err (*how)(npk_batch **b))
{
    npk_batch *b = NULL;
    int err = npk_batch_open(t->store, id, &b);
    if (err == 0)
        err = how(&b);
    npk_batch_close(&b);
    return err != 0 ? cli_fail_engine(t->typed, err) : CLI_OK;
}

static int show_one(void *ctx, const npk_batch_info *info)
{
    cli_table *table = ctx;
    cli_table_string(table, info->id);
    cli_table_count(table, info->arrays);
    cli_table_time(table, info->created_us);
    cli_table_string(table, info->damaged ? "damaged" : info->expired ? "expired" : info->kept ? "kept" : "open");
    return 0;
}

static int list(const cli_args *args, const cli_target *t)
{
    static const cli_column columns[] = {
        {"id", "ID", false}, {"arrays", "ARRAYS", true}, {"created_us", "BEGUN", false}, {"state", "STATE", false}};
    cli_table *table = cli_table_new(args, columns, 4);
    int err = npk_batch_list(t->store, show_one, table);
    int status = cli_table_end(table);
    return err != 0 ? cli_fail_engine(t->typed, err) : status;
}

int cli_batch(const cli_args *args)
{
    static const char *const verbs[] = {"begin", "commit", "abort", "list"};
    const char *verb = args->words[0], *id = args->word_count > 2 ? args->words[2] : NULL;
    size_t which = 0;
    while (which < 4 && strcmp(verb, verbs[which]) != 0)
        which++;
    if (which == 4)
        return cli_usage(verb, "is nothing that can be done with a batch; begin, commit, abort and list are accepted");
    if (which == 3 && id != NULL)
        return cli_usage(id, "is one word too many; npk batch list DIR is accepted");
    if ((which == 1 || which == 2) && id == NULL)
        return cli_usage(NULL, "the batch is missing; npk batch %s DIR ID is accepted", verb);
    cli_target t;
    int status = cli_target_open(args->words[1], CLI_TARGET_DIRECTORY | (which < 3 ? CLI_TARGET_WRITE : 0), &t);
    if (status != CLI_OK)
        return status;
    if (t.mounted)
        status = cli_fail(t.typed, "the store behind this mount is not for you; use its .npk/batch/");
    else if (which == 0)
        status = begin(args, &t, id);
    else if (which == 3)
        status = list(args, &t);
    else
        status = end(&t, id, which == 1 ? npk_batch_commit : npk_batch_abort);
    cli_target_close(&t);
    return status;
}
