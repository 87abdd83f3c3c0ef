/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_check.c - `npk check`, `npk sync` and `npk reset`: a store as a whole. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "mounted.h"
#include "output.h"
#include "package.h"
#include "say.h"
#include "typed_path.h"

const cli_option cli_check_options[] = {
    {"repair", NULL, "finish what a dead writer left; what is beyond repair is set aside by name, never deleted"},
    {"adopt", NULL, "count whole rows beyond the header that nobody saw being appended"},
    {"keep", NULL, "where it is in doubt which rows are deleted: the same ones as before"},
    {"set-aside", NULL, "where it is in doubt: none; what is known of deleted rows is set aside by name"},
    {NULL, NULL, NULL},
};

const cli_option cli_reset_options[] = {
    {"yes", NULL, "do not ask"},
    {NULL, NULL, NULL},
};

/* ---- check ---------------------------------------------------------------------------------------------------- */

static const cli_column check_columns[] = {
    {"severity", "SEVERITY", false}, {"rule", "RULE", false},        {"path", "PATH", false},
    {"repaired", "REPAIRED", false}, {"sentence", "FINDING", false},
};

typedef struct findings {
    cli_table *table;
    uint64_t count, damage; /* damage: not repaired */
} findings;

static int add_finding(void *ctx, const npk_finding *f)
{
    static const char *const severities[] = {[NPK_NOTE] = "note", [NPK_WARNING] = "warning", [NPK_DAMAGE] = "damage"};
    findings *all = ctx;
    all->count++;
    if (f->severity == NPK_DAMAGE && !f->repaired)
        all->damage++;
    cli_table_string(all->table, severities[f->severity]);
    cli_table_string(all->table, f->rule != NULL ? f->rule : "");
    cli_table_string(all->table, f->path != NULL ? f->path : "");
    cli_table_bool(all->table, f->repaired);
    cli_table_string(all->table, f->sentence != NULL ? f->sentence : "");
    return 0;
}

static int check_package(const cli_args *args, const char *path)
{
    findings all = {.table = cli_table_new(args, check_columns, sizeof check_columns / sizeof *check_columns)};
    int err = npk_package_check(path, 0, add_finding, &all, NULL, NULL);
    int status = cli_table_end(all.table);
    if (err != 0)
        status = cli_fail_engine(path, err);
    else if (all.count == 0 && args->format == CLI_TEXT)
        puts("nothing found");
    return status == CLI_OK && all.damage > 0 ? CLI_FAILED : status;
}

static unsigned check_flags(const cli_args *args)
{
    return (cli_args_has(args, "repair") ? NPK_CHECK_REPAIR : 0) | (cli_args_has(args, "adopt") ? NPK_CHECK_ADOPT : 0) |
           (cli_args_has(args, "keep") ? NPK_CHECK_KEEP : 0) |
           (cli_args_has(args, "set-aside") ? NPK_CHECK_SET_ASIDE : 0);
}

int cli_check(const cli_args *args)
{
    unsigned flags = check_flags(args);
    if (args->word_count > 0 && cli_is_package(args->words[0])) {
        if (flags != 0)
            return cli_fail(args->words[0], "is a package, which is never changed; a check without options is accepted");
        return check_package(args, args->words[0]);
    }
    cli_target t;
    int status = cli_target_open(args->word_count > 0 ? args->words[0] : ".", flags != 0 ? CLI_TARGET_WRITE : 0, &t);
    if (status != CLI_OK)
        return status;
    if (t.mounted) {
        status = cli_fail(t.typed,
                          "is in a mount whose store is not yours to open; the store's own directory, or the user who "
                          "mounted it, is accepted");
        cli_target_close(&t);
        return status;
    }
    findings all = {.table = cli_table_new(args, check_columns, sizeof check_columns / sizeof *check_columns)};
    int err = npk_check(t.store, t.name[0] != '\0' ? t.name : NULL, flags, add_finding, &all);
    status = cli_table_end(all.table);
    if (err != 0)
        status = cli_fail_engine(t.typed, err);
    else if (all.count == 0 && args->format == CLI_TEXT)
        puts("nothing found");
    cli_target_close(&t);
    return status == CLI_OK && all.damage > 0 ? CLI_FAILED : status;
}

/* ---- sync ----------------------------------------------------------------------------------------------------- */

int cli_sync(const cli_args *args)
{
    cli_target t;
    int status = cli_target_open(args->words[0], 0, &t);
    if (status != CLI_OK)
        return status;
    if (t.mounted) {
        status = cli_mounted_sync(&t);
    } else {
        int err = npk_sync(t.store, t.name[0] != '\0' ? t.name : NULL);
        if (err != 0)
            status = cli_fail_engine(t.typed, err);
    }
    if (status == CLI_OK && args->format_given) {
        static const cli_column columns[] = {{"synced", "synced", false}};
        cli_table *record = cli_record_new(args, columns, 1);
        cli_table_string(record, t.typed);
        status = cli_table_end(record);
    }
    cli_target_close(&t);
    return status;
}

/* ---- reset ---------------------------------------------------------------------------------------------------- */

typedef struct sums {
    uint64_t arrays, bytes;
} sums;

static int add_up(void *ctx, const char *name, const npk_info *info)
{
    sums *s = ctx;
    (void)name;
    s->arrays++;
    s->bytes += info->file_bytes;
    return 0;
}

/* Ask on the terminal; anything but a yes is a no. */
static bool agrees(const cli_target *t, const sums *s)
{
    char size[32], *line = NULL;
    size_t capacity = 0;
    cli_format_bytes(s->bytes, size, sizeof size);
    cli_text dir = {0};
    cli_text_add_cell(&dir, t->dir, strlen(t->dir));
    fprintf(stderr, "Remove %llu arrays (%s) from \"%s\"? [y/N] ", (unsigned long long)s->arrays, size,
            cli_text_string(&dir));
    cli_text_clear(&dir);
    ssize_t got = getline(&line, &capacity, stdin);
    bool yes = got > 0 && (strcmp(line, "y\n") == 0 || strcmp(line, "yes\n") == 0);
    free(line);
    return yes;
}

static int reset_store(const cli_args *args, const cli_target *t)
{
    sums s = {0};
    int err = npk_list(t->store, "", 0, add_up, &s);
    if (err != 0)
        return cli_fail_engine(t->typed, err);
    if (!cli_args_has(args, "yes") && !agrees(t, &s))
        return cli_fail(t->typed, "nothing was removed");
    if (t->mounted) {
        int status = cli_mounted_reset(t);
        if (status != CLI_OK)
            return status;
    } else {
        err = npk_reset(t->store);
        if (err != 0)
            return cli_fail_engine(t->typed, err);
    }
    if (!args->format_given)
        return CLI_OK;
    static const cli_column columns[] = {{"arrays", "arrays removed", false}, {"bytes", "size", false}};
    cli_table *record = cli_record_new(args, columns, 2);
    cli_table_count(record, s.arrays);
    cli_table_bytes(record, s.bytes);
    return cli_table_end(record);
}

int cli_reset(const cli_args *args)
{
    if (!cli_args_has(args, "yes") && !isatty(STDIN_FILENO))
        return cli_usage(args->words[0],
                         "every array would be removed and there is no terminal to ask on; --yes is accepted");
    cli_target t;
    int status = cli_target_open(args->words[0], CLI_TARGET_DIRECTORY | CLI_TARGET_WRITE, &t);
    if (status != CLI_OK)
        return status;
    status = reset_store(args, &t);
    cli_target_close(&t);
    return status;
}
