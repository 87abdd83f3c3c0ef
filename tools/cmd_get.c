/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_get.c - `npk get`: rows of an array, as text, TSV, JSON, bytes or .npy. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "index.h"
#include "output.h"
#include "progress.h"
#include "rows_out.h"
#include "say.h"
#include "typed_path.h"
#include "value.h"

#define BATCH_BYTES (4u << 20)
#define BATCH_ROWS  65536u
#define RANGE_ROWS  64u /* runs of so many rows without gaps are read as a range */

const cli_option cli_get_options[] = {
    {"npy", "FILE", "write a .npy file; - is standard output"},
    {"raw", NULL, "write the rows' bytes to standard output"},
    {"index", NULL, "tell each row's number (text does anyway)"},
    {NULL, NULL, NULL},
};

typedef struct job {
    const cli_args *args;
    npk_array *array;
    const npk_header *header;
    npk_rows index;
    cli_rows_out *out;
    int64_t *numbers;
    unsigned char *rows;
    size_t batch;
} job;

/* Read the next rows: many in sequence as a range, others by their numbers. -ERANGE and what the engine says. */
static int read_batch(job *j, npk_rows_cursor *cursor, size_t *count)
{
    const npk_run *run = cursor->run < j->index.run_count ? &j->index.runs[cursor->run] : NULL;
    *count = 0;
    if (run == NULL)
        return 0;
    if (run->step == 1 && run->count - cursor->done >= RANGE_ROWS) {
        uint64_t first = 0;
        *count = (size_t)npk_rows_take_range(&j->index, cursor, j->batch, &first);
        for (size_t i = 0; i < *count; i++)
            j->numbers[i] = (int64_t)(first + i);
        return npk_read_range(j->array, first, *count, j->rows);
    }
    *count = npk_rows_take(&j->index, cursor, j->numbers, j->batch);
    return npk_read_rows(j->array, j->numbers, *count, j->rows);
}

static int copy_rows(job *j, cli_progress *progress)
{
    npk_rows_cursor cursor = {0};
    for (;;) {
        size_t count;
        int err = read_batch(j, &cursor, &count);
        if (err != 0)
            return cli_fail_engine(j->args->words[0], err);
        if (count == 0)
            return CLI_OK;
        int status = cli_rows_out_put(j->out, j->numbers, j->rows, count);
        if (status != CLI_OK)
            return status;
        cli_progress_add(progress, count * j->header->row_bytes);
    }
}

static int run_job(job *j)
{
    uint64_t row_bytes = j->header->row_bytes;
    uint64_t fit = BATCH_BYTES / row_bytes;
    j->batch = fit < 1 ? 1 : fit > BATCH_ROWS ? BATCH_ROWS : (size_t)fit;
    if (j->batch > j->index.row_count)
        j->batch = j->index.row_count > 0 ? (size_t)j->index.row_count : 1;
    j->numbers = calloc(j->batch, sizeof *j->numbers);
    j->rows = malloc(j->batch * row_bytes);
    int status;
    if (j->numbers == NULL || j->rows == NULL) {
        status = cli_fail(NULL, "%s", strerror(ENOMEM));
    } else {
        cli_progress *progress = NULL;
        if (!isatty(STDOUT_FILENO))
            progress = cli_progress_start("get", j->index.row_count * row_bytes, -1);
        status = copy_rows(j, progress);
        cli_progress_end(progress);
    }
    free(j->numbers);
    free(j->rows);
    return status;
}

static cli_rows_kind kind_of(const cli_args *args)
{
    if (cli_args_has(args, "npy"))
        return CLI_ROWS_NPY;
    if (cli_args_has(args, "raw"))
        return CLI_ROWS_RAW;
    return args->format == CLI_JSON ? CLI_ROWS_JSON : args->format == CLI_TSV ? CLI_ROWS_TSV : CLI_ROWS_TEXT;
}

/* The one element of an array without dimensions. */
static int get_scalar(const cli_args *args, npk_array *array, cli_rows_plan *plan, npk_header *header)
{
    if (args->word_count > 1)
        return cli_fail(args->words[0], "has no dimensions to index; the array alone is accepted");
    unsigned char *element = malloc((size_t)header->data_bytes + 1);
    if (element == NULL)
        return cli_fail(NULL, "%s", strerror(ENOMEM));
    int err = npk_read_all(array, element), status = CLI_OK;
    if (err != 0) {
        status = cli_fail_engine(args->words[0], err);
    } else if (plan->kind >= CLI_ROWS_RAW) {
        int64_t number = 0;
        header->row_bytes = header->data_bytes;
        cli_rows_out *out = cli_rows_out_new(plan);
        status = out == NULL ? CLI_FAILED : cli_rows_out_put(out, &number, element, 1);
        if (out != NULL && cli_rows_out_end(out, status == CLI_OK) != CLI_OK)
            status = CLI_FAILED;
    } else {
        cli_text text = {0};
        cli_value_add(&text, plan->type, element, plan->kind == CLI_ROWS_JSON ? CLI_VALUE_JSON : CLI_PLAIN);
        printf("%s\n", cli_text_string(&text));
        cli_text_clear(&text);
    }
    free(element);
    return status;
}

static int get_rows(const cli_args *args, npk_array *array, cli_rows_plan *plan)
{
    const char *expression = args->word_count > 1 ? args->words[1] : ":";
    job j = {.args = args, .array = array, .header = plan->header};
    cli_why why;
    int err = cli_index_load(expression, npk_array_info(array)->rows, &j.index, &why);
    int status = CLI_OK;
    if (err == -EINVAL && strcmp(expression, "-") != 0 && !cli_is_npy_path(expression))
        status = cli_usage(NULL, "%s", why.text);
    else if (err != 0)
        status = cli_fail(args->words[0], "%s", why.text);
    if (status == CLI_OK) {
        plan->row_count = j.index.row_count;
        j.out = cli_rows_out_new(plan);
        status = j.out == NULL ? CLI_FAILED : run_job(&j);
        if (j.out != NULL && cli_rows_out_end(j.out, status == CLI_OK) != CLI_OK)
            status = CLI_FAILED;
    }
    npk_rows_clear(&j.index);
    return status;
}

static int get_from(const cli_args *args, const cli_target *t, npk_array *array)
{
    npk_info info;
    int status = cli_target_stat(t, npk_array_info(array)->header.ndim > 0, &info);
    if (status != CLI_OK)
        return status;
    npk_info_clear(&info);
    npk_header header = npk_array_info(array)->header;
    cli_type *type = NULL;
    status = cli_target_type(t, &header, &type);
    if (status != CLI_OK)
        return status;
    cli_text descr = {0};
    status = cli_target_descr(t, &header, &descr);
    cli_rows_plan plan = {
        .kind = kind_of(args),
        .header = &header,
        .type = type,
        .descr = cli_text_string(&descr),
        .file = cli_args_value(args, "npy"),
        .numbers = cli_args_has(args, "index"),
        .titles = args->header,
    };
    if (status == CLI_OK)
        status = header.ndim == 0 ? get_scalar(args, array, &plan, &header) : get_rows(args, array, &plan);
    cli_text_clear(&descr);
    cli_type_free(type);
    return status;
}

int cli_get(const cli_args *args)
{
    if (cli_args_has(args, "npy") + cli_args_has(args, "raw") + args->format_given > 1)
        return cli_usage(NULL, "--npy, --raw, --json, --tsv and --text exclude each other; one of them is accepted");
    cli_target t;
    int status = cli_target_open(args->words[0], CLI_TARGET_ARRAY, &t);
    if (status != CLI_OK)
        return status;
    npk_array *array = NULL;
    int err = npk_array_open(t.store, t.name, &array);
    if (err != 0)
        status = cli_fail_engine(args->words[0], err);
    else
        status = get_from(args, &t, array);
    npk_array_close(&array);
    cli_target_close(&t);
    return status;
}
