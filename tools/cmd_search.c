/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_search.c - `npk search`: the rows of one or several arrays that are nearest to a query, or the scores of all. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "corpus.h"
#include "index.h"
#include "output.h"
#include "progress.h"
#include "rows_in.h"
#include "rows_out.h"
#include "say.h"

#define K_DEFAULT 10
#define K_MOST    100000000ul
#define ROWS_MOST 1000000u /* queries by @INDEX */
#define ALL_BYTES ((uint64_t)64 << 20) /* of scores that are made at once */

const cli_option cli_search_options[] = {
    {"k", "K", "how many rows (10)"},
    {"m", "METRIC", "what near means (cosine; hamming for uint8)"},
    {"rows", "INDEX", "look at these rows only"},
    {"exclude", "INDEX", "leave these rows out"},
    {"all", NULL, "the scores of all rows, in the rows' order"},
    {"epsilon", "E", "added to each element by kl and js (0; NumPack: 1e-7)"},
    {"threads", "N", "threads (the cores of the machine)"},
    {"o", "FILE", "write a .npy file instead; - is standard output"},
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
    if (cli_args_has(args, "all") && cli_args_has(args, "k"))
        return cli_usage(NULL, "-k and --all exclude each other; one of them is accepted");
    o->k = k;
    o->threads = (unsigned)threads;
    return CLI_OK;
}

/* ---- the result ----------------------------------------------------------------------------------------------- */

/* A table with the columns that are needed: query, array, row, score. */
static cli_table *new_table(const cli_args *args, const wanted *w, const cli_corpus *c)
{
#define QUERY {"query", "QUERY", true}
#define ARRAY {"array", "ARRAY", false}
#define HIT   {"row", "ROW", true}, {"score", "SCORE", false}
    static const cli_column columns[2][2][4] = {{{QUERY, HIT}, {QUERY, ARRAY, HIT}}, {{HIT}, {ARRAY, HIT}}};
    bool several = c->count > 1;
    return cli_table_new(args, columns[w->single][several], 2u + !w->single + several);
}

static void add_line(cli_table *table, const wanted *w, const cli_corpus *c, uint64_t query, const npk_hit *hit)
{
    if (!w->single)
        cli_table_count(table, query);
    if (c->count > 1)
        cli_table_string(table, c->members[hit->part].label);
    cli_table_count(table, hit->row);
    cli_table_real(table, hit->score);
}

static int show(const cli_args *args, const wanted *w, const cli_corpus *c, const npk_hit *hits, uint64_t found)
{
    cli_table *table = new_table(args, w, c);
    for (uint64_t i = 0; i < w->queries.count * found; i++)
        add_line(table, w, c, i / found, &hits[i]);
    return cli_table_end(table);
}

/* A .npy file of `rows` rows of `row_bytes` bytes each; `elements` is the second dimension, 0 for none. */
static cli_rows_out *new_file(const char *file, npk_header *header, cli_type *type, const char *descr, uint64_t rows)
{
    *type = (cli_type){.kind = header->dtype.kind, .itemsize = header->dtype.itemsize};
    header->row_bytes = header->dtype.itemsize * (header->ndim > 1 ? header->shape[1] : 1);
    const cli_rows_plan plan = {
        .kind = CLI_ROWS_NPY, .header = header, .type = type, .descr = descr, .file = file, .row_count = rows};
    return cli_rows_out_new(&plan);
}

static int end_file(cli_rows_out *out, int status)
{
    return out != NULL && cli_rows_out_end(out, status == CLI_OK) != CLI_OK ? CLI_FAILED : status;
}

static int write_file(const char *file, const wanted *w, const cli_corpus *c, const npk_hit *hits, uint64_t found)
{
    bool parts = c->count > 1;
    uint64_t total = w->queries.count * found, rows = w->single ? found : w->queries.count;
    npk_header header = {.ndim = w->single ? 1 : 2, .dtype = {.kind = NPK_KIND_STRUCT, .itemsize = parts ? 20 : 16}};
    cli_type type;
    uint8_t *records = malloc((size_t)(total * header.dtype.itemsize + 1)), *at = records;
    int64_t *numbers = calloc((size_t)rows + 1, sizeof *numbers);
    int status = records == NULL || numbers == NULL ? cli_fail(NULL, "%s", strerror(ENOMEM)) : CLI_OK;
    for (uint64_t i = 0; i < total && status == CLI_OK; i++) {
        int32_t part = (int32_t)hits[i].part;
        int64_t row = (int64_t)hits[i].row;
        if (parts)
            at = mempcpy(at, &part, sizeof part);
        at = mempcpy(at, &row, sizeof row);
        at = mempcpy(at, &hits[i].score, sizeof hits[i].score);
    }
    header.shape[1] = found;
    cli_rows_out *out = NULL;
    if (status == CLI_OK) {
        out = new_file(file, &header, &type,
                       parts ? "[('array', '<i4'), ('index', '<i8'), ('score', '<f8')]"
                             : "[('index', '<i8'), ('score', '<f8')]",
                       rows);
        status = out == NULL ? CLI_FAILED : cli_rows_out_put(out, numbers, records, rows);
        status = end_file(out, status);
    }
    free(records);
    free(numbers);
    return status;
}

/* ---- the search ------------------------------------------------------------------------------------------------ */

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

static int search(const cli_args *args, const cli_corpus *c, const wanted *w, npk_search_options *o)
{
    uint64_t most = o->k < c->rows ? o->k : c->rows, found = 0;
    npk_hit *hits = w->queries.count > SIZE_MAX / sizeof *hits / (most + 1)
                        ? NULL
                        : malloc((size_t)(w->queries.count * most + 1) * sizeof *hits);
    if (hits == NULL)
        return cli_fail(NULL, "%s", strerror(ENOMEM));
    struct bar bar = {.progress = cli_progress_start("search", c->bytes, -1)};
    o->progress = tell;
    o->progress_ctx = &bar;
    int err = npk_search(c->parts, c->count, &w->queries, o, hits, &found);
    cli_progress_end(bar.progress);
    int status = err != 0                            ? cli_fail_engine(args->words[0], err)
                 : cli_args_value(args, "o") != NULL ? write_file(cli_args_value(args, "o"), w, c, hits, found)
                                                     : show(args, w, c, hits, found);
    free(hits);
    return status;
}

/* Scores on their way out: to a table, or as rows of a file. */
struct scores {
    const cli_args *args;
    const cli_corpus *corpus;
    const wanted *wanted;
    cli_table *table;  /* or */
    cli_rows_out *out; /* its rows: queries, or (single) scores */
    double *at;        /* of `queries` queries from `query` on */
    int64_t *numbers;
};

static int put_scores(struct scores *s, uint64_t query, uint64_t queries)
{
    const cli_corpus *c = s->corpus;
    const double *at = s->at;
    if (s->out != NULL)
        return cli_rows_out_put(s->out, s->numbers, at, s->wanted->single ? c->rows : queries);
    for (uint64_t i = 0; i < queries; i++)
        for (uint32_t part = 0; part < c->count; part++) {
            const npk_part *p = &c->parts[part];
            uint64_t rows = p->count == UINT64_MAX ? npk_array_info(p->array)->rows - p->first : p->count;
            for (uint64_t row = 0; row < rows; row++)
                add_line(s->table, s->wanted, c, query + i,
                         &(npk_hit){.score = *at++, .row = p->first + row, .part = part});
        }
    return CLI_OK;
}

/* As many queries at once as keep the scores within ALL_BYTES, at least one. */
static int all_scores(struct scores *s, npk_search_options *o)
{
    const cli_corpus *c = s->corpus;
    npk_queries q = s->wanted->queries;
    uint64_t query_bytes = c->rows * sizeof(double), all = q.count, dim_bytes;
    uint64_t step = query_bytes == 0 || ALL_BYTES / query_bytes == 0 ? 1 : ALL_BYTES / query_bytes;
    struct bar bar = {.progress = cli_progress_start("search", c->bytes * all, -1)};
    int status = CLI_OK;
    dim_bytes = row_elements(&npk_array_info(c->parts[0].array)->header) * q.dtype.itemsize;
    step = step < all ? step : all;
    s->at = malloc((size_t)(step * query_bytes + 1));
    s->numbers = calloc((size_t)(s->wanted->single ? c->rows : step) + 1, sizeof *s->numbers);
    if (s->at == NULL || s->numbers == NULL)
        status = cli_fail(NULL, "%s", strerror(ENOMEM));
    o->progress = tell;
    o->progress_ctx = &bar;
    for (uint64_t at = 0; at < all && status == CLI_OK; at += step) {
        q.count = all - at < step ? all - at : step;
        bar.told = 0;
        int err = npk_pairs(c->parts, c->count, &q, o, s->at);
        status = err != 0 ? cli_fail_engine(s->args->words[0], err) : put_scores(s, at, q.count);
        q.data = (const char *)q.data + q.count * dim_bytes;
    }
    cli_progress_end(bar.progress);
    free(s->at);
    free(s->numbers);
    return status;
}

static int show_all(const cli_args *args, const cli_corpus *c, const wanted *w, npk_search_options *o)
{
    const char *file = cli_args_value(args, "o");
    struct scores s = {.args = args, .corpus = c, .wanted = w};
    npk_header header = {.ndim = w->single ? 1 : 2, .shape = {0, c->rows}, .dtype = {.kind = NPK_KIND_FLOAT, .itemsize = 8}};
    cli_type type;
    if (file == NULL)
        s.table = new_table(args, w, c);
    else if ((s.out = new_file(file, &header, &type, "'<f8'", w->single ? c->rows : w->queries.count)) == NULL)
        return CLI_FAILED;
    int status = all_scores(&s, o);
    if (file != NULL)
        return end_file(s.out, status);
    int ended = cli_table_end(s.table);
    return status != CLI_OK ? status : ended;
}

static int search_in(const cli_args *args, cli_corpus *c)
{
    npk_search_options o = {0};
    npk_array *first = c->members[0].array;
    const char *rows = cli_args_value(args, "rows"), *exclude = cli_args_value(args, "exclude");
    int status = read_options(args, &npk_array_info(first)->header, &o);
    if (status == CLI_OK && rows != NULL)
        status = cli_corpus_choose(c, rows);
    if (status == CLI_OK && exclude != NULL)
        status = cli_corpus_leave_out(c, exclude);
    if (status != CLI_OK)
        return status;
    wanted w = {0};
    status = read_query(args->words[args->word_count - 1], first, &w);
    if (status == CLI_OK)
        status = cli_args_has(args, "all") ? show_all(args, c, &w, &o) : search(args, c, &w, &o);
    clear_query(&w);
    return status;
}

int cli_search(const cli_args *args)
{
    if (cli_args_has(args, "o") && args->format_given)
        return cli_usage(NULL, "-o, --json, --tsv and --text exclude each other; one of them is accepted");
    cli_corpus corpus;
    int status = cli_corpus_open(args->words, args->word_count - 1, &corpus);
    if (status == CLI_OK)
        status = search_in(args, &corpus);
    cli_corpus_clear(&corpus);
    return status;
}
