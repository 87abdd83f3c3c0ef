/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_summary.c - `npk summary`: count, minimum, maximum, mean and more of the values of arrays. */
#include <inttypes.h>
#include <stdio.h>

#include "args.h"
#include "output.h"
#include "progress.h"
#include "say.h"
#include "typed_path.h"

static const cli_column columns[] = {
    {"name", "name", false}, {"dtype", "dtype", false}, {"count", "count", true}, {"min", "min", true},
    {"max", "max", true},    {"mean", "mean", true},    {"std", "std", true},     {"nans", "NaNs", true},
    {"zeros", "zeros", true},
};

/* Integers with all their digits: a double has 53 bits of them. */
static void put_extreme(cli_table *table, const npk_summary *s, bool greatest)
{
    char text[32];
    if (s->count == s->nans || s->min != s->min) {
        cli_table_none(table);
    } else if (s->exact && s->dtype.kind == NPK_KIND_INT) {
        snprintf(text, sizeof text, "%" PRId64, greatest ? s->max_int : s->min_int);
        cli_table_string(table, text);
    } else if (s->exact) {
        cli_table_count(table, greatest ? s->max_uint : s->min_uint);
    } else {
        cli_table_real(table, greatest ? s->max : s->min);
    }
}

static void put_moment(cli_table *table, const npk_summary *s, double value)
{
    if (s->count == s->nans)
        cli_table_none(table);
    else
        cli_table_real(table, value);
}

static int summarize(const cli_target *t, npk_summary *out)
{
    cli_meter m = {.what = "summary"};
    int err = npk_summarize(t->store, t->name, out, cli_meter_advance, &m);
    cli_meter_end(&m);
    return err != 0 ? cli_fail_engine(t->typed, err) : CLI_OK;
}

static void put_summary(cli_table *table, const cli_target *t, const npk_summary *summary)
{
    npk_summary s = *summary;
    cli_table_string(table, t->name);
    cli_table_string(table, s.dtype.name);
    cli_table_count(table, s.count);
    put_extreme(table, &s, false);
    put_extreme(table, &s, true);
    put_moment(table, &s, s.mean);
    put_moment(table, &s, s.std);
    cli_table_count(table, s.nans);
    cli_table_count(table, s.zeros);
}

int cli_summary(const cli_args *args)
{
    int status = CLI_OK;
    size_t count = sizeof columns / sizeof *columns;
    cli_table *table = args->word_count > 1 ? cli_table_new(args, columns, count) : NULL;
    for (size_t i = 0; i < args->word_count; i++) {
        cli_target t;
        int one = cli_target_open(args->words[i], CLI_TARGET_ARRAY, &t);
        if (one == CLI_OK) {
            npk_summary s;
            one = summarize(&t, &s);
            cli_table *into = one != CLI_OK ? NULL : table != NULL ? table : cli_record_new(args, columns, count);
            if (into != NULL) {
                put_summary(into, &t, &s);
                if (table == NULL)
                    one = cli_table_end(into);
            } else if (one == CLI_OK) {
                one = CLI_FAILED;
            }
            cli_target_close(&t);
        }
        if (one != CLI_OK)
            status = one;
    }
    int ended = table != NULL ? cli_table_end(table) : CLI_OK;
    return status != CLI_OK ? status : ended;
}
