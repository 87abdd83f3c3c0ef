/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_compact.c - `npk compact`: the space of deleted rows is given back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "mounted.h"
#include "output.h"
#include "progress.h"
#include "say.h"
#include "typed_path.h"

const cli_option cli_compact_options[] = {
    {"force", NULL, "where nothing proves that no program writes: you know that none does"},
    {"auto", "PERCENT", "do not compact now; a mount does when so many rows are deleted (0: never)"},
    {NULL, NULL, NULL},
};

/* Arrays to compact; names malloc()ed. */
typedef struct names {
    char **at;
    size_t count, capacity;
} names;

static int add_name(void *ctx, const char *name, const npk_info *info)
{
    names *n = ctx;
    if (info != NULL && info->deleted == 0)
        return 0;
    if (n->count == n->capacity) {
        size_t capacity = n->capacity > 0 ? n->capacity * 2 : 16;
        char **at = reallocarray(n->at, capacity, sizeof *at);
        if (at == NULL)
            return -ENOMEM;
        n->at = at;
        n->capacity = capacity;
    }
    n->at[n->count] = strdup(name);
    return n->at[n->count++] == NULL ? -ENOMEM : 0;
}

static int compact_one(const cli_args *args, const cli_target *t, const char *name, cli_table *table)
{
    npk_info before, after;
    cli_meter m = {.what = "compact"};
    int err = npk_stat(t->store, name, &before);
    if (err != 0)
        return cli_fail_engine(t->typed, err);
    err = npk_compact(t->store, name, cli_args_has(args, "force") ? NPK_COMPACT_FORCE : 0, cli_meter_advance, &m);
    cli_meter_end(&m);
    if (t->name[0] != '\0')
        cli_mounted_refresh(t);
    if (err == 0)
        err = npk_stat(t->store, name, &after);
    if (err != 0) {
        npk_info_clear(&before);
        return cli_fail_engine(t->typed, err);
    }
    cli_table_string(table, name);
    cli_table_count(table, after.rows);
    cli_table_count(table, before.deleted);
    cli_table_bytes(table, before.file_bytes > after.file_bytes ? before.file_bytes - after.file_bytes : 0);
    npk_info_clear(&before);
    npk_info_clear(&after);
    return CLI_OK;
}

static int set_policy(const cli_target *t, unsigned percent)
{
    char line[32];
    snprintf(line, sizeof line, "auto:%u%%", percent);
    if (t->mounted)
        return cli_mounted_control(t, "compact", line);
    int err = npk_compact_policy_set(t->store, t->name, percent);
    return err != 0 ? cli_fail_engine(t->typed, err) : CLI_OK;
}

static int compact_target(const cli_args *args, const cli_target *t, cli_table *table)
{
    unsigned long percent = 0;
    int status = CLI_OK;
    if (cli_args_has(args, "auto")) {
        status = cli_args_number(args, "auto", 0, 100, &percent);
        if (status != CLI_OK)
            return status;
        if (t->name[0] == '\0')
            return cli_usage(t->typed, "is a directory; --auto is for one array each");
        return set_policy(t, (unsigned)percent);
    }
    if (t->mounted && t->name[0] != '\0')
        return cli_mounted_control(t, "compact", "1");
    if (t->mounted)
        return cli_fail(t->typed, "the store behind this mount is not for you to open; its arrays one by one are accepted");
    names n = {0};
    int err = t->name[0] != '\0' ? add_name(&n, t->name, NULL) : npk_list(t->store, "", 0, add_name, &n);
    if (err != 0)
        status = cli_fail_engine(t->typed, err);
    for (size_t i = 0; i < n.count; i++) {
        if (n.at[i] != NULL && compact_one(args, t, n.at[i], table) != CLI_OK)
            status = CLI_FAILED;
        free(n.at[i]);
    }
    free(n.at);
    return status;
}

int cli_compact(const cli_args *args)
{
    static const cli_column columns[] = {
        {"name", "name", false}, {"rows", "rows", true}, {"removed", "removed", true}, {"bytes", "given back", true}};
    int status = CLI_OK;
    cli_table *table = cli_args_has(args, "auto") ? NULL : cli_table_new(args, columns, 4);
    for (size_t i = 0; i < args->word_count; i++) {
        cli_target t;
        int one = cli_target_open(args->words[i], CLI_TARGET_WRITE, &t);
        if (one == CLI_OK) {
            one = compact_target(args, &t, table);
            cli_target_close(&t);
        }
        if (one != CLI_OK)
            status = one;
    }
    int ended = table != NULL ? cli_table_end(table) : CLI_OK;
    return status != CLI_OK ? status : ended;
}
