/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_cast.c - `npk cast`: the values of an array in another dtype. */
#include "args.h"
#include "mounted.h"
#include "output.h"
#include "progress.h"
#include "say.h"
#include "typed_path.h"

const cli_option cli_cast_options[] = {
    {"force", NULL, "where nothing proves that no program writes: you know that none does"},
    {NULL, NULL, NULL},
};

static int show(const cli_args *args, const cli_target *t)
{
    static const cli_column columns[] = {{"name", "name", false}, {"dtype", "dtype", false}};
    npk_info info;
    int status = cli_target_stat(t, false, &info);
    if (status != CLI_OK)
        return status;
    cli_table *record = cli_record_new(args, columns, 2);
    cli_table_string(record, t->name);
    cli_table_string(record, info.header.dtype.name);
    npk_info_clear(&info);
    return cli_table_end(record);
}

static int cast_in_store(const cli_args *args, const cli_target *t)
{
    cli_meter m = {.what = "cast"};
    unsigned flags = cli_args_has(args, "force") ? NPK_CAST_FORCE : 0;
    int err = npk_cast(t->store, t->name, args->words[1], flags, cli_meter_advance, &m);
    cli_meter_end(&m);
    cli_mounted_refresh(t);
    return err != 0 ? cli_fail_engine(t->typed, err) : CLI_OK;
}

int cli_cast(const cli_args *args)
{
    cli_target t;
    int status = cli_target_open(args->words[0], CLI_TARGET_ARRAY | CLI_TARGET_WRITE, &t);
    if (status != CLI_OK)
        return status;
    status = t.mounted ? cli_mounted_control(&t, "dtype", args->words[1]) : cast_in_store(args, &t);
    if (status == CLI_OK && args->format_given)
        status = show(args, &t);
    cli_target_close(&t);
    return status;
}
