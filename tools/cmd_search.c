/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_search.c - `npk search`: the rows nearest to a query. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "index.h"
#include "output.h"
#include "progress.h"
#include "rows_in.h"
#include "rows_out.h"
#include "say.h"
#include "typed_path.h"

#define K_DEFAULT 10
#define K_MOST    100000000ul
#define ROWS_MOST 1000000u /* queries by @INDEX */

const cli_option cli_search_options[] = {
    {"k", "K", "how many rows (10)"},
    {"m", "METRIC", "what near means (cosine; hamming for uint8)"},
    {"rows", "LO:HI", "look at these rows only"},
    {"epsilon", "E", "added to each element by kl and js (0; NumPack: 1e-7)"},
    {"threads", "N", "threads (the cores of the machine)"},
    {"o", "FILE", "write a .npy file of index and score; - is standard output"},
    {NULL, NULL, NULL},
};

/* What is looked for. */
typedef struct wanted {
    npk_queries queries;
    bool single; /* one query that is no row of a matrix */
    void *owned; /* what the data lies in, or NULL */
    cli_rows rows;
    bool rows_open;
} wanted;

typedef struct hit_record {
    int64_t index;
    double score;
} hit_record;

static uint64_t row_elements(const npk_header *h)
{
    return h->row_bytes / h->dtype.itemsize;
}

/* ---- the query ------------------------------------------------------------------------------------------------ */

static int query_file(const char *word, const npk_header *x, wanted *out)
{
    cli_why why;
    if (cli_rows_open(word, false, -1, &out->rows, &why) != 0)
        return cli_fail(NULL, "%s", why.text);
    out->rows_open = true;
    const npk_header *h = &out->rows.header;
    if (!out->rows.npy)
        return cli_fail(word, "is no .npy file; a .npy file with one query, or one per row, is accepted");
    uint64_t dim = row_elements(x), elements = h->dtype.itemsize > 0 ? h->data_bytes / h->dtype.itemsize : 0;
    bool whole = elements == dim && (h->ndim <= 1 || h->ndim + 1 == x->ndim);
    if (!whole && (h->ndim < 2 || row_elements(h) != dim))
        return cli_fail(word, "has queries of %llu elements; %llu are accepted, as the array's rows have",
                        (unsigned long long)(h->ndim < 2 ? elements : row_elements(h)), (unsigned long long)dim);
    out->queries = (npk_queries){.data = out->rows.data, .count = whole ? 1 : h->shape[0], .dtype = h->dtype};
    out->single = whole;
    return CLI_OK;
}

/* Rows of the array itself. */
static int query_rows(const char *word, npk_array *array, wanted *out)
{
    const npk_info *info = npk_array_info(array);
    npk_rows index = {0};
    npk_rows_cursor cursor = {0};
    cli_why why;
    if (cli_index_load(word + 1, info->rows, &index, &why) != 0) {
        npk_rows_clear(&index);
        return cli_usage(word, "%s", why.text);
    }
    int status = CLI_OK;
    size_t count = index.row_count > ROWS_MOST ? 0 : (size_t)index.row_count;
    int64_t *numbers = calloc(count + 1, sizeof *numbers);
    out->owned = malloc(count * info->header.row_bytes + 1);
    if (index.row_count > ROWS_MOST)
        status = cli_fail(word, "means more than %u rows; so many queries at most are accepted", ROWS_MOST);
    else if (numbers == NULL || out->owned == NULL)
        status = cli_fail(NULL, "%s", strerror(ENOMEM));
    size_t taken = status == CLI_OK ? npk_rows_take(&index, &cursor, numbers, count) : 0;
    int err = taken > 0 ? npk_read_rows(array, numbers, taken, out->owned) : 0;
    if (err != 0)
        status = cli_fail_engine(word, err);
    out->queries = (npk_queries){.data = out->owned, .count = taken, .dtype = info->header.dtype};
    out->single = taken == 1 && strpbrk(word, ":,") == NULL && strcmp(word, "@-") != 0;
    free(numbers);
    npk_rows_clear(&index);
    return status;
}

/* Numbers, as the array's dtype where that is float32. */
static int query_numbers(const char *word, const npk_header *x, wanted *out)
{
    uint64_t dim = row_elements(x), count = 0;
    const char *at = word;
    double *values = calloc(dim + 1, sizeof *values);
    out->owned = values;
    if (values == NULL)
        return cli_fail(NULL, "%s", strerror(ENOMEM));
    for (;; at++) {
        char *end;
        double value = strtod(at, &end);
        if (end == at || (*end != ',' && *end != '\0'))
            return cli_usage(word, "is no query; FILE.npy, -, @INDEX and numbers (0.5,0,1) are accepted");
        if (count < dim)
            values[count] = x->dtype.kind == NPK_KIND_FLOAT && x->dtype.itemsize == 4 ? (double)(float)value : value;
        count++;
        at = end;
        if (*at == '\0')
            break;
    }
    if (count != dim)
        return cli_fail(word, "has %llu elements; %llu are accepted, as the array's rows have",
                        (unsigned long long)count, (unsigned long long)dim);
    char descr[64];
    npk_dtype dtype;
    bool bits = x->dtype.kind == NPK_KIND_UINT && x->dtype.itemsize == 1;
    for (uint64_t i = 0; i < dim && bits; i++)
        bits = values[i] >= 0 && values[i] <= 255 && values[i] == rint(values[i]);
    if (npk_dtype_parse(bits ? "uint8" : "float64", &dtype, descr) != 0)
        return cli_fail_engine(NULL, -EINVAL);
    for (uint64_t i = 0; i < dim && bits; i++)
        ((unsigned char *)out->owned)[i] = (unsigned char)values[i];
    out->queries = (npk_queries){.data = out->owned, .count = 1, .dtype = dtype};
    out->single = true;
    return CLI_OK;
}

static int read_query(const char *word, npk_array *array, wanted *out)
{
    const npk_header *x = &npk_array_info(array)->header;
    if (word[0] == '@')
        return query_rows(word, array, out);
    if (strcmp(word, "-") == 0 || cli_is_npy_path(word))
        return query_file(word, x, out);
    return query_numbers(word, x, out);
}

static void clear_query(wanted *w)
{
    if (w->rows_open)
        cli_rows_clear(&w->rows);
    free(w->owned);
}

/* ---- options -------------------------------------------------------------------------------------------------- */

static int read_range(const cli_args *args, uint64_t rows, npk_part *part)
{
    const char *text = cli_args_value(args, "rows");
    npk_rows index = {0};
    cli_why why;
    if (text == NULL)
        return CLI_OK;
    int err = cli_index_parse(text, strlen(text), rows, &index, &why);
    npk_rows_cursor cursor = {0};
    uint64_t first = 0, count = err == 0 ? npk_rows_take_range(&index, &cursor, UINT64_MAX, &first) : 0;
    bool one = err == 0 && count == index.row_count;
    npk_rows_clear(&index);
    if (err != 0)
        return cli_usage(NULL, "%s", why.text);
    if (!one)
        return cli_usage(text, "is no range of rows; LO:HI is accepted");
    part->first = first;
    part->count = count;
    return CLI_OK;
}

static int read_options(const cli_args *args, const npk_header *x, npk_search_options *o)
{
    unsigned long k = K_DEFAULT, threads = 0;
    bool bytes = x->dtype.kind == NPK_KIND_UINT && x->dtype.itemsize == 1;
    const char *epsilon = cli_args_value(args, "epsilon"), *metric = cli_args_value(args, "m");
    int status = cli_args_number(args, "k", 0, K_MOST, &k);
    if (status == CLI_OK)
        status = cli_args_number(args, "threads", 1, 256, &threads);
    if (status != CLI_OK)
        return status;
    if (npk_metric_parse(metric != NULL ? metric : bytes ? "hamming" : "cosine", &o->metric) != 0)
        return cli_usage(NULL, "%s", npk_error());
    if (epsilon != NULL) {
        char *end;
        o->epsilon = strtod(epsilon, &end);
        if (end == epsilon || *end != '\0' || !(o->epsilon >= 0))
            return cli_usage(epsilon, "is no value for --epsilon; 0 or a positive number is accepted");
    }
    o->k = k;
    o->threads = (unsigned)threads;
    return CLI_OK;
}

/* ---- the result ----------------------------------------------------------------------------------------------- */

static int show(const cli_args *args, const wanted *w, const npk_hit *hits, uint64_t found)
{
    static const cli_column columns[] = {{"query", "QUERY", true}, {"row", "ROW", true}, {"score", "SCORE", false}};
    cli_table *table = cli_table_new(args, w->single ? columns + 1 : columns, w->single ? 2 : 3);
    for (uint64_t i = 0; i < w->queries.count * found; i++) {
        if (!w->single)
            cli_table_count(table, i / found);
        cli_table_count(table, hits[i].row);
        cli_table_real(table, hits[i].score);
    }
    return cli_table_end(table);
}

static int write_file(const char *file, const wanted *w, const npk_hit *hits, uint64_t found)
{
    hit_record *records = calloc(w->queries.count * found + 1, sizeof *records);
    int64_t *numbers = calloc(w->queries.count * found + 1, sizeof *numbers);
    if (records == NULL || numbers == NULL) {
        free(records);
        free(numbers);
        return cli_fail(NULL, "%s", strerror(ENOMEM));
    }
    for (uint64_t i = 0; i < w->queries.count * found; i++)
        records[i] = (hit_record){(int64_t)hits[i].row, hits[i].score};
    npk_header header = {.ndim = w->single ? 1 : 2, .row_bytes = (w->single ? 1 : found) * sizeof *records};
    header.shape[1] = found;
    header.dtype = (npk_dtype){.kind = NPK_KIND_STRUCT, .itemsize = sizeof *records};
    uint64_t rows = w->single ? found : w->queries.count;
    const cli_type type = {.kind = NPK_KIND_STRUCT, .itemsize = sizeof *records};
    cli_rows_plan plan = {.kind = CLI_ROWS_NPY,
                          .header = &header,
                          .type = &type,
                          .descr = "[('index', '<i8'), ('score', '<f8')]",
                          .file = file,
                          .row_count = rows};
    cli_rows_out *out = cli_rows_out_new(&plan);
    int status = out == NULL ? CLI_FAILED : cli_rows_out_put(out, numbers, records, rows);
    if (out != NULL && cli_rows_out_end(out, status == CLI_OK) != CLI_OK)
        status = CLI_FAILED;
    free(records);
    free(numbers);
    return status;
}

struct bar {
    cli_progress *progress;
    uint64_t told;
};

static int tell(void *ctx, uint64_t done, uint64_t all)
{
    struct bar *b = ctx;
    (void)all;
    if (done > b->told) {
        cli_progress_add(b->progress, done - b->told);
        b->told = done;
    }
    return 0;
}

static int search(const cli_args *args, npk_array *array, const wanted *w, npk_part *part, npk_search_options *o)
{
    const npk_info *info = npk_array_info(array);
    uint64_t rows = part->count == UINT64_MAX ? info->rows : part->count, most = o->k < rows ? o->k : rows, found = 0;
    npk_hit *hits = w->queries.count > SIZE_MAX / sizeof *hits / (most + 1)
                        ? NULL
                        : malloc((size_t)(w->queries.count * most + 1) * sizeof *hits);
    if (hits == NULL)
        return cli_fail(NULL, "%s", strerror(ENOMEM));
    struct bar bar = {.progress = cli_progress_start("search", rows * info->header.row_bytes, -1)};
    o->progress = tell;
    o->progress_ctx = &bar;
    int err = npk_search(part, 1, &w->queries, o, hits, &found);
    cli_progress_end(bar.progress);
    int status = err != 0                            ? cli_fail_engine(args->words[0], err)
                 : cli_args_value(args, "o") != NULL ? write_file(cli_args_value(args, "o"), w, hits, found)
                                                     : show(args, w, hits, found);
    free(hits);
    return status;
}

static int search_in(const cli_args *args, const cli_target *t, npk_array *array)
{
    npk_search_options o = {0};
    npk_part part = {.array = array, .count = UINT64_MAX};
    npk_info info;
    int status = cli_target_stat(t, true, &info);
    if (status != CLI_OK)
        return status;
    npk_info_clear(&info);
    status = read_options(args, &npk_array_info(array)->header, &o);
    if (status == CLI_OK)
        status = read_range(args, npk_array_info(array)->rows, &part);
    if (status != CLI_OK)
        return status;
    wanted w = {0};
    status = read_query(args->words[1], array, &w);
    if (status == CLI_OK)
        status = search(args, array, &w, &part, &o);
    clear_query(&w);
    return status;
}

int cli_search(const cli_args *args)
{
    if (cli_args_has(args, "o") && args->format_given)
        return cli_usage(NULL, "-o, --json, --tsv and --text exclude each other; one of them is accepted");
    cli_target t;
    int status = cli_target_open(args->words[0], CLI_TARGET_ARRAY, &t);
    if (status != CLI_OK)
        return status;
    npk_array *array = NULL;
    int err = npk_array_open(t.store, t.name, &array);
    if (err != 0)
        status = cli_fail_engine(args->words[0], err);
    else
        status = search_in(args, &t, array);
    npk_array_close(&array);
    cli_target_close(&t);
    return status;
}
