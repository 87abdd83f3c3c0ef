/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_reshape.c - `npk reshape`: the same elements in another shape, or fewer or more rows. */
#include "args.h"
#include "mounted.h"
#include "output.h"
#include "say.h"
#include "shape_arg.h"
#include "typed_path.h"

static int through_mount(const cli_target *t, const int64_t *shape, uint32_t ndim)
{
    cli_text line = {0};
    for (uint32_t i = 0; i < ndim; i++)
        cli_text_addf(&line, "%s%lld", i > 0 ? "," : "", (long long)shape[i]);
    int status = cli_mounted_control(t, "shape", cli_text_string(&line));
    cli_text_clear(&line);
    return status;
}

static int show(const cli_args *args, const cli_target *t)
{
    static const cli_column columns[] = {{"name", "name", false}, {"shape", "shape", false}};
    npk_info info;
    int status = cli_target_stat(t, false, &info);
    if (status != CLI_OK)
        return status;
    cli_table *record = cli_record_new(args, columns, 2);
    cli_table_string(record, t->name);
    cli_table_shape(record, info.header.shape, info.header.ndim);
    npk_info_clear(&info);
    return cli_table_end(record);
}

int cli_reshape(const cli_args *args)
{
    int64_t shape[NPK_MAX_DIMS];
    uint32_t ndim;
    cli_why why;
    if (cli_shape_parse(args->words[1], shape, &ndim, &why) != 0)
        return cli_usage(NULL, "%s", why.text);
    cli_target t;
    int status = cli_target_open(args->words[0], CLI_TARGET_ARRAY | CLI_TARGET_WRITE, &t);
    if (status != CLI_OK)
        return status;
    if (t.mounted) {
        status = through_mount(&t, shape, ndim);
    } else {
        int err = npk_reshape(t.store, t.name, shape, ndim);
        if (err != 0)
            status = cli_fail_engine(t.typed, err);
    }
    if (status == CLI_OK && args->format_given)
        status = show(args, &t);
    cli_target_close(&t);
    return status;
}
