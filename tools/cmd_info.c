/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_info.c - `npk info`: the facts of one array, plain file or store. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "output.h"
#include "package.h"
#include "say.h"
#include "typed_path.h"

const cli_option cli_info_options[] = {
    {"cpu", NULL, "show the instruction sets that a search chooses from"},
    {NULL, NULL, NULL},
};

static const cli_column array_columns[] = {
    {"name", "name", false},
    {"dtype", "dtype", false},
    {"shape", "shape", false},
    {"order", "order", false},
    {"rows", "rows", false},
    {"live", "live rows", false},
    {"deleted", "deleted rows", false},
    {"row_bytes", "row size", false},
    {"data_bytes", "data size", false},
    {"file_bytes", "file size", false},
    {"tail_bytes", "bytes beyond the rows", false},
    {"format", ".npy version", false},
    {"data_offset", "data begins at", false},
    {"mtime_us", "changed", false},
    {"inode", "inode", false},
};

static const cli_column plain_columns[] = {
    {"name", "name", false},
    {"reason", "no array, because", false},
    {"file_bytes", "file size", false},
    {"mtime_us", "changed", false},
    {"inode", "inode", false},
};

static const cli_column store_columns[] = {
    {"store", "store", false},
    {"arrays", "arrays", false},
    {"plain", ".npy files that are none", false},
    {"rows", "rows", false},
    {"file_bytes", "size", false},
    {"tail_bytes", "bytes beyond the rows", false},
    {"writable", "writable", false},
    {"through_mount", "reached through a mount", false},
    {"leases", "writers can be proved absent", false},
    {"leases_why", "since", false},
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

static int show_array(const cli_args *args, const cli_target *t, const npk_info *info)
{
    const npk_header *h = &info->header;
    char word[64];
    cli_table *r = cli_record_new(args, array_columns, COUNT(array_columns));
    cli_table_string(r, t->name);
    cli_dtype_text(&h->dtype, word, sizeof word);
    cli_type *type = NULL;
    cli_text name = {0};
    if (h->dtype.kind == NPK_KIND_STRUCT && cli_target_type(t, h, &type) == CLI_OK)
        cli_type_name(type, &name);
    cli_table_string(r, name.bytes > 0 ? cli_text_string(&name) : word);
    cli_text_clear(&name);
    cli_type_free(type);
    cli_table_shape(r, h->shape, h->ndim);
    cli_table_string(r, h->fortran && h->ndim > 1 ? "F" : "C");
    cli_table_count(r, info->rows);
    cli_table_count(r, info->live);
    cli_table_count(r, info->deleted);
    cli_table_bytes(r, h->row_bytes);
    cli_table_bytes(r, h->data_bytes);
    cli_table_bytes(r, info->file_bytes);
    cli_table_bytes(r, info->tail_bytes);
    snprintf(word, sizeof word, "%u.%u", h->major, h->minor);
    cli_table_string(r, word);
    cli_table_count(r, h->data_offset);
    cli_table_time(r, info->mtime_us);
    cli_table_count(r, info->inode);
    return cli_table_end(r);
}

static int show_plain(const cli_args *args, const cli_target *t, const npk_info *info)
{
    cli_table *r = cli_record_new(args, plain_columns, COUNT(plain_columns));
    cli_table_string(r, t->name);
    cli_table_string(r, info->reason);
    cli_table_bytes(r, info->file_bytes);
    cli_table_time(r, info->mtime_us);
    cli_table_count(r, info->inode);
    return cli_table_end(r);
}

typedef struct sums {
    uint64_t arrays, plain, rows, file_bytes, tail_bytes;
} sums;

static int add_up(void *ctx, const char *name, const npk_info *info)
{
    sums *s = ctx;
    (void)name;
    if (info->reason != NULL) {
        s->plain++;
        return 0;
    }
    s->arrays++;
    s->rows += info->rows;
    s->file_bytes += info->file_bytes;
    s->tail_bytes += info->tail_bytes;
    return 0;
}

static int show_store(const cli_args *args, const cli_target *t)
{
    sums s = {0};
    int err = npk_list(t->store, "", NPK_LIST_PLAIN, add_up, &s);
    if (err != 0)
        return cli_fail_engine(t->typed, err);
    const char *why = "";
    bool leases = npk_leases_prove(t->store, &why);
    cli_table *r = cli_record_new(args, store_columns, COUNT(store_columns));
    cli_table_string(r, t->dir);
    cli_table_count(r, s.arrays);
    cli_table_count(r, s.plain);
    cli_table_count(r, s.rows);
    cli_table_bytes(r, s.file_bytes);
    cli_table_bytes(r, s.tail_bytes);
    /* The handle is for reading; what counts is what the caller may do. */
    cli_table_bool(r, faccessat(npk_store_fd(t->store), ".", W_OK, AT_EACCESS) == 0);
    cli_table_bool(r, t->mounted);
    cli_table_bool(r, leases);
    cli_table_string(r, why != NULL ? why : "");
    return cli_table_end(r);
}

static int show_cpu(const cli_args *args)
{
    static const cli_column columns[] = {
        {"name", "NAME", false}, {"can", "CAN", false}, {"should", "SHOULD", false}, {"used", "USED", false}};
    bool can, should, used;
    cli_table *table = cli_table_new(args, columns, COUNT(columns));
    for (unsigned i = 0;; i++) {
        const char *name = npk_cpu(i, &can, &should, &used);
        if (name == NULL)
            return cli_table_end(table);
        cli_table_string(table, name);
        cli_table_bool(table, can);
        cli_table_bool(table, should);
        cli_table_bool(table, used);
    }
}

int cli_info(const cli_args *args)
{
    if (cli_args_has(args, "cpu"))
        return args->word_count > 0 ? cli_usage(args->words[0], "--cpu takes no path") : show_cpu(args);
    cli_target t;
    int status = cli_target_open(args->word_count > 0 ? args->words[0] : ".", 0, &t);
    if (status != CLI_OK)
        return status;
    npk_package *package = npk_store_package(t.store);
    if (t.name[0] == '\0' && package != NULL) {
        status = cli_package_info(args, package);
    } else if (t.name[0] == '\0') {
        status = show_store(args, &t);
    } else {
        npk_info info;
        int err = npk_stat(t.store, t.name, &info);
        if (err != 0)
            status = cli_fail_engine(t.typed, err);
        else {
            status = info.reason != NULL ? show_plain(args, &t, &info) : show_array(args, &t, &info);
            npk_info_clear(&info);
        }
    }
    cli_target_close(&t);
    return status;
}
