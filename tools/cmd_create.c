/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_create.c - `npk create`: a new array, of zeros or of given data. */
#include <errno.h>
#include <string.h>

#include "args.h"
#include "in_batch.h"
#include "mounted.h"
#include "output.h"
#include "rows_in.h"
#include "say.h"
#include "shape_arg.h"
#include "typed_path.h"

const cli_option cli_create_options[] = {
    {"shape", "SHAPE", "numbers such as 1000,128; one may be -1 with --from"},
    {"dtype", "DTYPE", "numpy's name or code: float32, <f4, >i8, S10, datetime64[ns]"},
    {"from", "FILE", "take the data from a .npy file or raw bytes; - is standard input"},
    {"raw", NULL, "take --from as bytes, also where it looks like .npy"},
    {"batch", "ID", "inside this batch; nobody else sees it before it is committed"},
    {NULL, NULL, NULL},
};

/* What is to be made. */
typedef struct plan {
    uint64_t shape[NPK_MAX_DIMS];
    uint32_t ndim;
    cli_text dtype; /* as npk_dtype_parse takes it */
    npk_dtype parsed;
    char descr[64];
    const void *data;
    uint64_t bytes;
} plan;

static int plan_dtype(const cli_args *args, const cli_rows *rows, plan *p)
{
    const char *typed = cli_args_value(args, "dtype");
    if (typed != NULL) {
        cli_text_adds(&p->dtype, typed);
    } else if (rows != NULL && rows->npy) {
        /* The descr without its quotes is a code that every dtype but structures can be typed as. */
        const char *descr = (const char *)rows->blob.data + rows->header.descr_offset;
        if (rows->type->kind == NPK_KIND_STRUCT)
            return cli_fail(rows->blob.label, "holds structures; `cp` makes the same array");
        cli_text_add(&p->dtype, descr + 1, rows->header.descr_bytes - 2);
    } else {
        return cli_usage(NULL, "--dtype is missing; numpy's name of a dtype is accepted, e.g. --dtype float32");
    }
    int err = npk_dtype_parse(cli_text_string(&p->dtype), &p->parsed, p->descr);
    if (err != 0) {
        cli_fail_engine(typed, err);
        return CLI_USAGE;
    }
    if (p->parsed.itemsize == 0)
        return cli_usage(typed, "has elements without bytes; a dtype with bytes is accepted");
    if (rows == NULL || !rows->npy)
        return CLI_OK;
    cli_type *type = NULL;
    cli_why why;
    err = cli_type_parse(p->descr, strlen(p->descr), &type, &why);
    bool same = err == 0 && cli_type_equal(type, rows->type);
    cli_type_free(type);
    cli_text given = {0};
    cli_type_name(rows->type, &given);
    int status = same ? CLI_OK
                      : cli_fail(rows->blob.label, "holds %s; --dtype %s is not what it holds, and nothing is cast",
                                 cli_text_string(&given), cli_text_string(&p->dtype));
    cli_text_clear(&given);
    return status;
}

static int plan_shape(const cli_args *args, const cli_rows *rows, plan *p)
{
    const char *typed = cli_args_value(args, "shape");
    cli_why why;
    if (typed == NULL && rows != NULL && rows->npy) {
        p->ndim = rows->header.ndim;
        memcpy(p->shape, rows->header.shape, sizeof p->shape);
        return CLI_OK;
    }
    if (typed == NULL)
        return cli_usage(NULL, "--shape is missing; numbers are accepted, e.g. --shape 1000,128");
    int64_t shape[NPK_MAX_DIMS];
    if (cli_shape_parse(typed, shape, &p->ndim, &why) != 0)
        return cli_usage(NULL, "%s", why.text);
    uint64_t elements = UINT64_MAX;
    if (rows != NULL) {
        if (rows->bytes % p->parsed.itemsize != 0)
            return cli_fail(rows->blob.label, "%llu bytes are no whole elements; a multiple of %llu bytes is accepted",
                            (unsigned long long)rows->bytes, (unsigned long long)p->parsed.itemsize);
        elements = rows->bytes / p->parsed.itemsize;
    }
    if (cli_shape_resolve(shape, p->ndim, elements, p->shape, &why) == 0)
        return CLI_OK;
    return rows != NULL ? cli_fail(rows->blob.label, "%s", why.text) : cli_usage(typed, "%s", why.text);
}

static int count_bytes(const cli_target *t, plan *p)
{
    p->bytes = p->parsed.itemsize;
    for (uint32_t i = 0; i < p->ndim; i++)
        if (__builtin_mul_overflow(p->bytes, p->shape[i], &p->bytes) || p->bytes > INT64_MAX / 2)
            return cli_fail(t->typed, "would be larger than a file may be; a smaller --shape is accepted");
    return CLI_OK;
}

static int make_in_batch(const cli_target *t, npk_batch *batch, const npk_array_in *array)
{
    npk_info info;
    int err = npk_batch_stat(batch, t->name, &info);
    if (err == 0) {
        npk_info_clear(&info);
        return cli_fail(t->typed, "exists already in the batch; a new name is accepted");
    }
    if (err == -ENOENT)
        err = npk_batch_save(batch, array, 1);
    return err != 0 ? cli_fail_engine(t->typed, err) : CLI_OK;
}

static int make(const cli_target *t, npk_batch *batch, const plan *p)
{
    if (t->mounted)
        return cli_mounted_create(t, p->descr, p->shape, p->ndim, p->data, p->bytes);
    npk_array_in array = {
        .name = t->name,
        .dtype = p->dtype.data,
        .shape = p->shape,
        .ndim = p->ndim,
        .data = p->data,
    };
    if (batch != NULL)
        return make_in_batch(t, batch, &array);
    int err = npk_create(t->store, &array);
    if (err == -EEXIST)
        return cli_fail(t->typed, "exists already; a new name is accepted");
    return err != 0 ? cli_fail_engine(t->typed, err) : CLI_OK;
}

static int create_at(const cli_args *args, const cli_target *t, npk_batch *batch, const cli_rows *rows)
{
    plan p = {.data = rows != NULL ? rows->data : NULL};
    int status = plan_dtype(args, rows, &p);
    if (status == CLI_OK)
        status = plan_shape(args, rows, &p);
    if (status == CLI_OK)
        status = count_bytes(t, &p);
    if (status == CLI_OK)
        status = make(t, batch, &p);
    if (status == CLI_OK && args->format_given) {
        static const cli_column columns[] = {
            {"name", "name", false}, {"dtype", "dtype", false}, {"shape", "shape", false}};
        char dtype[64];
        cli_table *record = cli_record_new(args, columns, 3);
        cli_dtype_text(&p.parsed, dtype, sizeof dtype);
        cli_table_string(record, t->name);
        cli_table_string(record, dtype);
        cli_table_shape(record, p.shape, p.ndim);
        status = cli_table_end(record);
    }
    cli_text_clear(&p.dtype);
    return status;
}

int cli_create(const cli_args *args)
{
    const char *from = cli_args_value(args, "from");
    if (from == NULL && cli_args_has(args, "raw"))
        return cli_usage("--raw", "says how --from is read, which is missing");
    cli_target t;
    npk_batch *batch = NULL;
    int status = cli_args_has(args, "batch") ? cli_in_batch_open(args, args->words[0], &t, &batch)
                                             : cli_target_open_new(args->words[0], &t);
    if (status != CLI_OK)
        return status;
    cli_rows rows;
    cli_why why;
    if (from == NULL)
        status = create_at(args, &t, batch, NULL);
    else if (cli_rows_open(from, cli_args_has(args, "raw"), npk_store_fd(t.store), &rows, &why) != 0)
        status = cli_fail(NULL, "%s", why.text);
    else {
        status = create_at(args, &t, batch, &rows);
        cli_rows_clear(&rows);
    }
    npk_batch_close(&batch);
    cli_target_close(&t);
    return status;
}
