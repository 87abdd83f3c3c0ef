/* SPDX-License-Identifier: Apache-2.0 */
/* corpus.c - see corpus.h. */
#include "corpus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "index.h"
#include "say.h"

#define SUFFIX ".npy@"

/* ---- which rows ------------------------------------------------------------------------------------------------ */

struct range {
    const char *name;
    uint64_t first, count;
    bool found;
};

static int find_range(void *ctx, const char *range_name, uint64_t start, uint64_t stop)
{
    struct range *r = ctx;
    if (strcmp(r->name, range_name) == 0) {
        r->first = start;
        r->count = stop - start;
        r->found = true;
    }
    return 0;
}

/* The bitmap of a part; made with nothing left out. NULL without memory. */
static uint64_t *bitmap_of(cli_member *m, npk_part *part)
{
    uint64_t words = npk_array_info(m->array)->rows / 64 + 1;
    if (m->exclude == NULL)
        m->exclude = calloc(words, sizeof *m->exclude);
    part->exclude = m->exclude;
    return m->exclude;
}

/* Set (leave_out) or take away the bits of rows. */
static void mark(uint64_t *bits, const npk_rows *rows, bool leave_out)
{
    npk_rows_cursor cursor = {0};
    uint64_t first, count;
    while ((count = npk_rows_take_range(rows, &cursor, UINT64_MAX, &first)) > 0)
        for (uint64_t row = first; row < first + count; row++) {
            uint64_t bit = UINT64_C(1) << row % 64;
            bits[row / 64] = leave_out ? bits[row / 64] | bit : bits[row / 64] & ~bit;
        }
}

static int load_index(const cli_member *m, const char *index, npk_rows *out)
{
    cli_why why;
    int err = cli_index_load(index, npk_array_info(m->array)->rows, out, &why);
    return err == 0 ? CLI_OK : cli_usage(NULL, "%s", why.text);
}

/* One range becomes the part's range, anything else a bitmap of the others. */
static int choose(cli_member *m, npk_part *part, const char *index)
{
    struct range named = {.name = index};
    npk_rows rows = {0};
    npk_rows_cursor cursor = {0};
    if (npk_names(m->target.store, m->target.name, find_range, &named) == 0 && named.found) {
        part->first = named.first;
        part->count = named.count;
        return CLI_OK;
    }
    int status = load_index(m, index, &rows);
    uint64_t first = 0, count = status == CLI_OK ? npk_rows_take_range(&rows, &cursor, UINT64_MAX, &first) : 0;
    if (status == CLI_OK && count == rows.row_count) {
        part->first = first;
        part->count = count;
    } else if (status == CLI_OK) {
        uint64_t *bits = bitmap_of(m, part);
        if (bits != NULL) {
            memset(bits, 0xff, (npk_array_info(m->array)->rows / 64 + 1) * sizeof *bits);
            mark(bits, &rows, false);
        } else {
            status = cli_fail(NULL, "%s", strerror(ENOMEM));
        }
    }
    npk_rows_clear(&rows);
    return status;
}

static void count_rows(cli_corpus *c)
{
    c->rows = c->bytes = 0;
    for (size_t i = 0; i < c->count; i++) {
        const npk_info *info = npk_array_info(c->members[i].array);
        const npk_part *p = &c->parts[i];
        uint64_t end = p->count == UINT64_MAX ? info->rows : p->first + p->count;
        c->rows += end - p->first;
        c->bytes += (end - p->first) * info->header.row_bytes;
        for (uint64_t row = p->first; p->exclude != NULL && row < end; row++)
            c->rows -= p->exclude[row / 64] >> row % 64 & 1;
    }
}

/* ---- arrays ---------------------------------------------------------------------------------------------------- */

/* Where "@INDEX" begins in "X.npy@INDEX"; NULL when the word is a path. */
static const char *index_of(const char *word)
{
    const char *at = strstr(word, SUFFIX);
    return at != NULL && access(word, F_OK) != 0 ? at + strlen(SUFFIX) - 1 : NULL;
}

static int open_member(const char *word, cli_member *m, npk_part *part)
{
    const char *index = index_of(word);
    npk_info info;
    m->label = index != NULL ? strndup(word, (size_t)(index - word)) : strdup(word);
    if (m->label == NULL)
        return cli_fail(NULL, "%s", strerror(ENOMEM));
    int status = cli_target_open(m->label, CLI_TARGET_ARRAY, &m->target);
    if (status != CLI_OK)
        return status;
    int err = npk_array_open(m->target.store, m->target.name, &m->array);
    if (err != 0)
        return cli_fail_engine(m->label, err);
    status = cli_target_stat(&m->target, true, &info);
    if (status != CLI_OK)
        return status;
    npk_info_clear(&info);
    *part = (npk_part){.array = m->array, .count = UINT64_MAX};
    return index != NULL ? choose(m, part, index + 1) : CLI_OK;
}

int cli_corpus_open(const char *const *words, size_t count, cli_corpus *out)
{
    *out = (cli_corpus){.members = calloc(count, sizeof *out->members), .parts = calloc(count, sizeof *out->parts)};
    if (out->members == NULL || out->parts == NULL)
        return cli_fail(NULL, "%s", strerror(ENOMEM));
    int status = CLI_OK;
    for (size_t i = 0; i < count && status == CLI_OK; i++)
        status = open_member(words[i], &out->members[out->count++], &out->parts[i]);
    if (status == CLI_OK)
        count_rows(out);
    return status;
}

static int only_one(const cli_corpus *c, const char *option)
{
    if (c->count == 1)
        return CLI_OK;
    return cli_usage(NULL, "%s is for one array; with several, rows stand behind a name: x.npy@0:1000", option);
}

int cli_corpus_choose(cli_corpus *corpus, const char *index)
{
    int status = only_one(corpus, "--rows");
    const npk_part *part = corpus->parts;
    if (status == CLI_OK && (part->first != 0 || part->count != UINT64_MAX || part->exclude != NULL))
        status = cli_usage(index, "as --rows beside rows behind the array's name; one of them is accepted");
    if (status == CLI_OK)
        status = choose(&corpus->members[0], &corpus->parts[0], index);
    if (status == CLI_OK)
        count_rows(corpus);
    return status;
}

int cli_corpus_leave_out(cli_corpus *corpus, const char *index)
{
    npk_rows rows = {0};
    int status = only_one(corpus, "--exclude");
    if (status == CLI_OK)
        status = load_index(&corpus->members[0], index, &rows);
    if (status == CLI_OK) {
        uint64_t *bits = bitmap_of(&corpus->members[0], &corpus->parts[0]);
        if (bits != NULL)
            mark(bits, &rows, true);
        else
            status = cli_fail(NULL, "%s", strerror(ENOMEM));
    }
    npk_rows_clear(&rows);
    if (status == CLI_OK)
        count_rows(corpus);
    return status;
}

void cli_corpus_clear(cli_corpus *corpus)
{
    for (size_t i = 0; i < corpus->count; i++) {
        cli_member *m = &corpus->members[i];
        npk_array_close(&m->array);
        cli_target_close(&m->target);
        free(m->exclude);
        free(m->label);
    }
    free(corpus->members);
    free(corpus->parts);
    *corpus = (cli_corpus){0};
}
