/* SPDX-License-Identifier: Apache-2.0 */
/* search_answer.c - see search_answer.h: from a name and a query to the bytes of the answer. */
#include "search_answer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control_table.h"

#define WHY_BYTES 512

/* ---- names ----------------------------------------------------------------------------------------------------- */

static bool ends(const char *name, const char *suffix, size_t *left)
{
    size_t n = strlen(name), s = strlen(suffix);
    if (n <= s || strcmp(name + n - s, suffix) != 0)
        return false;
    *left = n - s;
    return true;
}

bool fs_question_parse(const char *name, fs_question *out)
{
    size_t left;
    if (ends(name, ".rows.npy", &left))
        out->kind = FS_ANSWER_ROWS;
    else if (ends(name, ".npy", &left))
        out->kind = FS_ANSWER_HITS;
    else if (ends(name, ".tsv", &left))
        out->kind = FS_ANSWER_TEXT;
    else
        return false;
    char text[256], *end;
    if (left >= sizeof text)
        return false;
    memcpy(text, name, left);
    text[left] = '\0';
    char *k = strrchr(text, '.');
    if (!k || k == text || k[1] < '0' || k[1] > '9')
        return false;
    *k++ = '\0';
    errno = 0;
    out->k = strtoull(k, &end, 10);
    char *metric = strrchr(text, '.');
    if (*end || errno || !metric || metric == text)
        return false;
    *metric++ = '\0';
    if (npk_metric_parse(metric, &out->metric) != 0)
        return false;
    return snprintf(out->query, sizeof out->query, "%s.npy", text) < (int)sizeof out->query;
}

/* ---- the search -------------------------------------------------------------------------------------------------- */

typedef struct answer {
    fs_state *fs;
    const fs_question *question;
    npk_array *array;
    npk_header header; /* the query's */
    npk_queries queries;
    bool single; /* one query that is no row of a matrix */
    npk_hit *hits;
    uint64_t found;
    size_t most;
    char *why;
} answer;

static int said(answer *a, int err)
{
    snprintf(a->why, WHY_BYTES, "%s", npk_error());
    return err;
}

static int read_query(answer *a, const void *query, size_t bytes)
{
    char reason[160] = "";
    const npk_info *info = npk_array_info(a->array);
    int err = npk_header_parse(query, bytes, &a->header, reason, sizeof reason);
    if (!err && a->header.data_offset + a->header.data_bytes != bytes)
        err = -EAGAIN;
    if (err) {
        snprintf(a->why, WHY_BYTES, "\"%s\": not a whole .npy file%s%s; write one with np.save or cp", a->question->query,
                 reason[0] ? ": " : "", reason);
        return -EINVAL;
    }
    const npk_header *h = &a->header, *x = &info->header;
    if (!npk_header_is_array(h) || (h->fortran && h->ndim > 1) || x->ndim == 0) {
        snprintf(a->why, WHY_BYTES, "\"%s\": queries are numbers in C order, and the array has rows", a->question->query);
        return -EINVAL;
    }
    uint64_t dim = x->row_bytes / x->dtype.itemsize, elements = h->data_bytes / h->dtype.itemsize;
    uint64_t row = h->ndim > 0 ? h->row_bytes / h->dtype.itemsize : 1;
    a->single = elements == dim && (h->ndim <= 1 || h->ndim + 1 == x->ndim);
    if (!a->single && (h->ndim < 2 || row != dim)) {
        snprintf(a->why, WHY_BYTES, "\"%s\": queries of %" PRIu64 " elements; the array's rows have %" PRIu64, a->question->query,
                 h->ndim < 2 ? elements : row, dim);
        return -EINVAL;
    }
    a->queries = (npk_queries){.data = (const char *)query + h->data_offset,
                               .count = a->single ? 1 : h->shape[0],
                               .dtype = h->dtype};
    return 0;
}

struct patience {
    bool (*gave_up)(void *ctx);
    void *ctx;
};

static int still_wanted(void *ctx, uint64_t done, uint64_t all)
{
    const struct patience *p = ctx;
    (void)done;
    (void)all;
    return p->gave_up(p->ctx);
}

static int too_large(answer *a)
{
    snprintf(a->why, WHY_BYTES, "%" PRIu64 " queries with %" PRIu64 " rows each: an answer beyond %zu MiB; npk search -o "
                                "writes any",
             a->queries.count, a->question->k, a->most >> 20);
    return -EFBIG;
}

static int search(answer *a, struct patience *patience)
{
    const npk_info *info = npk_array_info(a->array);
    uint64_t k = a->question->k < info->rows ? a->question->k : info->rows;
    uint64_t each = a->question->kind == FS_ANSWER_ROWS ? info->header.row_bytes : 40;
    if (a->queries.count > 0 && k > a->most / (each > 24 ? each : 24) / a->queries.count)
        return too_large(a);
    a->hits = malloc((size_t)(a->queries.count * k + 1) * sizeof *a->hits);
    if (!a->hits)
        return -ENOMEM;
    npk_part part = {.array = a->array, .count = UINT64_MAX};
    npk_search_options o = {
        .metric = a->question->metric, .k = k, .progress = still_wanted, .progress_ctx = patience};
    int err = npk_search(&part, 1, &a->queries, &o, a->hits, &a->found);
    return err == -ECANCELED ? -EINTR : err ? said(a, err) : 0;
}

/* ---- as bytes ---------------------------------------------------------------------------------------------------- */

static int with_header(answer *a, const char *descr, const uint64_t *shape, uint32_t ndim, size_t data_bytes, char **out,
                       size_t *bytes)
{
    char header[4096];
    size_t n;
    int err = npk_header_format(descr, false, shape, ndim, header, sizeof header, &n);
    if (err)
        return said(a, err);
    *out = malloc(n + data_bytes + 1);
    if (!*out)
        return -ENOMEM;
    memcpy(*out, header, n);
    *bytes = n;
    return 0;
}

static int answer_hits(answer *a, char **out, size_t *bytes)
{
    uint64_t shape[2] = {a->queries.count, a->found}, total = a->queries.count * a->found;
    struct record {
        int64_t index;
        double score;
    } record;
    int err = with_header(a, "[('index', '<i8'), ('score', '<f8')]", a->single ? shape + 1 : shape, a->single ? 1 : 2,
                          (size_t)total * sizeof record, out, bytes);
    for (uint64_t i = 0; i < total && !err; i++, *bytes += sizeof record) {
        record = (struct record){(int64_t)a->hits[i].row, a->hits[i].score};
        memcpy(*out + *bytes, &record, sizeof record);
    }
    return err;
}

/* The fewest digits that give the number back. */
static void add_number(fs_text *out, double value)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    fs_text_addf(out, "%s\n", value != value ? "nan" : text);
}

static int answer_text(answer *a, char **out, size_t *bytes)
{
    fs_text text = {0};
    fs_text_addf(&text, "%s", "");
    for (uint64_t i = 0; i < a->queries.count * a->found; i++) {
        if (!a->single)
            fs_text_addf(&text, "%" PRIu64 "\t", i / a->found);
        fs_text_addf(&text, "%" PRIu64 "\t", a->hits[i].row);
        add_number(&text, a->hits[i].score);
    }
    if (text.failed) {
        fs_text_clear(&text);
        return -ENOMEM;
    }
    *out = text.data;
    *bytes = text.bytes;
    return 0;
}

/* The array's dtype as its own header has it. */
static int read_descr(answer *a, const char *path, char *descr, size_t capacity)
{
    const npk_header *h = &npk_array_info(a->array)->header;
    if (h->descr_bytes >= capacity)
        return -E2BIG;
    char *name = fs_array_name(path), *text = NULL;
    int err = name ? npk_descr(a->fs->store, name, h, &text) : -ENOMEM;
    if (!err)
        strcpy(descr, text);
    free(text);
    free(name);
    return err;
}

static int answer_rows(answer *a, const char *path, char **out, size_t *bytes)
{
    const npk_header *h = &npk_array_info(a->array)->header;
    uint64_t shape[NPK_MAX_DIMS + 1] = {a->queries.count, a->found}, total = a->queries.count * a->found;
    char descr[2048];
    int err = read_descr(a, path, descr, sizeof descr);
    if (err)
        return err;
    for (uint32_t i = 1; i < h->ndim; i++)
        shape[i + 1] = h->shape[i];
    err = with_header(a, descr, a->single ? shape + 1 : shape, a->single ? h->ndim : h->ndim + 1, (size_t)(total * h->row_bytes),
                      out, bytes);
    int64_t *rows = err ? NULL : malloc((size_t)(total + 1) * sizeof *rows);
    if (!err && !rows)
        err = -ENOMEM;
    for (uint64_t i = 0; i < total && !err; i++)
        rows[i] = (int64_t)a->hits[i].row;
    if (!err && total > 0 && (err = npk_read_rows(a->array, rows, (size_t)total, *out + *bytes)) != 0)
        err = said(a, err);
    *bytes += (size_t)(total * h->row_bytes);
    free(rows);
    return err;
}

int fs_question_answer(fs_state *fs, const char *path, const fs_question *question, const void *query, size_t bytes, size_t most,
                       bool (*gave_up)(void *ctx), void *ctx, char **out, size_t *out_bytes, char *why)
{
    answer a = {.fs = fs, .question = question, .most = most, .why = why};
    struct patience patience = {gave_up, ctx};
    size_t length = strlen(path);
    char *name = strdup(path);
    *why = '\0';
    *out = NULL;
    if (!name || length < 5)
        return free(name), -ENOMEM;
    name[length - 4] = '\0';
    int err = npk_array_open(fs->store, name, &a.array);
    if (err)
        said(&a, err);
    if (!err)
        err = read_query(&a, query, bytes);
    if (!err)
        err = search(&a, &patience);
    if (!err)
        err = question->kind == FS_ANSWER_HITS   ? answer_hits(&a, out, out_bytes)
              : question->kind == FS_ANSWER_TEXT ? answer_text(&a, out, out_bytes)
                                                 : answer_rows(&a, path, out, out_bytes);
    if (err) {
        free(*out);
        *out = NULL;
    }
    npk_array_close(&a.array);
    free(a.hits);
    free(name);
    return err;
}
