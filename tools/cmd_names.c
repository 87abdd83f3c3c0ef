/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_names.c - `npk names`: named ranges of rows. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "index.h"
#include "mounted.h"
#include "output.h"
#include "say.h"
#include "typed_path.h"

static int add_range(void *ctx, const char *range_name, uint64_t start, uint64_t stop)
{
    cli_table *table = ctx;
    cli_table_string(table, range_name);
    cli_table_count(table, start);
    cli_table_count(table, stop);
    return 0;
}

static int list_names(const cli_args *args, const cli_target *t)
{
    static const cli_column columns[] = {{"name", "name", false}, {"start", "start", true}, {"stop", "stop", true}};
    cli_table *table = cli_table_new(args, columns, 3);
    int err = npk_names(t->store, t->name, add_range, table);
    int status = cli_table_end(table);
    return err != 0 ? cli_fail_engine(t->typed, err) : status;
}

/* One "NAME=LO:HI", or "NAME=" to forget it. */
static int set_name(const cli_target *t, const char *word, uint64_t rows)
{
    const char *equals = strrchr(word, '=');
    if (equals == NULL || equals == word)
        return cli_usage(word, "is no NAME=LO:HI; NAME= removes a name");
    char *name = strndup(word, (size_t)(equals - word));
    npk_rows index = {0};
    int err = name == NULL ? -ENOMEM : 0, status = CLI_OK;
    bool remove = equals[1] == '\0';
    if (err == 0 && !remove)
        err = npk_rows_parse(equals + 1, strlen(equals + 1), rows, &index);
    if (err == 0 && !remove && (index.run_count != 1 || index.runs[0].step != 1)) {
        status = cli_usage(word, "is no range of rows that follow each other; NAME=LO:HI is accepted");
    } else if (err == 0 && t->mounted) {
        cli_text line = {0};
        cli_text_addf(&line, "%s\t", name);
        if (!remove)
            cli_text_addf(&line, "%llu\t%llu", (unsigned long long)index.runs[0].start,
                          (unsigned long long)(index.runs[0].start + index.runs[0].count));
        status = cli_mounted_control(t, "names", cli_text_string(&line));
        cli_text_clear(&line);
    } else if (err == 0) {
        err = remove ? npk_name_remove(t->store, t->name, name)
                     : npk_name_set(t->store, t->name, name, index.runs[0].start,
                                    index.runs[0].start + index.runs[0].count);
    }
    if (err != 0)
        status = cli_fail_engine(t->typed, err);
    npk_rows_clear(&index);
    free(name);
    return status;
}

int cli_names(const cli_args *args)
{
    cli_target t;
    bool change = args->word_count > 1;
    npk_info info;
    int status = cli_target_open(args->words[0], CLI_TARGET_ARRAY | (change ? CLI_TARGET_WRITE : 0), &t);
    if (status != CLI_OK)
        return status;
    if (!change) {
        status = list_names(args, &t);
    } else if ((status = cli_target_stat(&t, true, &info)) == CLI_OK) {
        for (size_t i = 1; i < args->word_count && status == CLI_OK; i++)
            status = set_name(&t, args->words[i], info.rows);
        npk_info_clear(&info);
    }
    cli_target_close(&t);
    return status;
}
