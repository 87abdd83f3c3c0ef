/* SPDX-License-Identifier: Apache-2.0 */
/* index.c - see index.h. */
#include "index.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_text.h"
#include "npk.h"
#include "rows_in.h"

/* ---- runs ----------------------------------------------------------------------------------------------------- */

static int push_run(cli_index *index, cli_run run)
{
    if (run.count == 0)
        return 0;
    if (__builtin_add_overflow(index->row_count, run.count, &index->row_count))
        return -EOVERFLOW;
    if (index->run_count == index->run_capacity) {
        size_t capacity = index->run_capacity == 0 ? 16 : index->run_capacity * 2;
        cli_run *runs = reallocarray(index->runs, capacity, sizeof *runs);
        if (runs == NULL)
            return -ENOMEM;
        index->runs = runs;
        index->run_capacity = capacity;
    }
    index->runs[index->run_count++] = run;
    return 0;
}

/* Add one row; it joins the last run when it continues it, so that masks and sorted lists stay small. */
static int push_row(cli_index *index, int64_t row)
{
    if (index->run_count > 0) {
        cli_run *last = &index->runs[index->run_count - 1];
        if (last->count == 1) {
            last->step = row - last->start;
            last->count = 2;
            index->row_count++;
            return 0;
        }
        int64_t next;
        if (!__builtin_mul_overflow((int64_t)last->count, last->step, &next) &&
            !__builtin_add_overflow(next, last->start, &next) && row == next) {
            last->count++;
            index->row_count++;
            return 0;
        }
    }
    return push_run(index, (cli_run){.start = row, .count = 1, .step = 1});
}

void cli_index_clear(cli_index *index)
{
    free(index->runs);
    *index = (cli_index){0};
}

size_t cli_index_take(const cli_index *index, cli_cursor *cursor, int64_t *out, size_t max)
{
    size_t taken = 0;
    while (taken < max && cursor->run < index->run_count) {
        const cli_run *run = &index->runs[cursor->run];
        while (taken < max && cursor->done < run->count) {
            out[taken++] = run->start + (int64_t)cursor->done * run->step;
            cursor->done++;
        }
        if (cursor->done == run->count)
            *cursor = (cli_cursor){.run = cursor->run + 1};
    }
    return taken;
}

uint64_t cli_index_take_range(const cli_index *index, cli_cursor *cursor, uint64_t max, uint64_t *first)
{
    if (cursor->run >= index->run_count || max == 0)
        return 0;
    const cli_run *run = &index->runs[cursor->run];
    uint64_t left = run->count - cursor->done;
    uint64_t count = run->step != 1 ? 1 : left < max ? left : max;
    *first = (uint64_t)(run->start + (int64_t)cursor->done * run->step);
    cursor->done += count;
    if (cursor->done == run->count)
        *cursor = (cli_cursor){.run = cursor->run + 1};
    return count;
}

/* ---- expressions ---------------------------------------------------------------------------------------------- */

/* Where the parser stands in one expression. */
typedef struct scan {
    const char *at, *end;
    const char *text; /* the whole expression, for sentences */
    int text_bytes;
    uint64_t rows;
} scan;

static void skip_blanks(scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\r'))
        s->at++;
}

/* Read a decimal number, if there is one; numbers too large for 64 bits stand for the largest, since no array has so
 * many rows. -EINVAL: a sign without digits. */
static int scan_number(scan *s, bool *found, int64_t *out)
{
    skip_blanks(s);
    bool negative = false, sign = false;
    if (s->at < s->end && (*s->at == '-' || *s->at == '+')) {
        negative = *s->at++ == '-';
        sign = true;
    }
    *found = false;
    int64_t value = 0;
    for (; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++) {
        int digit = *s->at - '0';
        *found = true;
        if (__builtin_mul_overflow(value, (int64_t)10, &value) || __builtin_add_overflow(value, (int64_t)digit, &value))
            value = INT64_MAX;
    }
    if (sign && !*found)
        return -EINVAL;
    *out = negative ? -value : value;
    skip_blanks(s);
    return 0;
}

static bool scan_take(scan *s, char c)
{
    if (s->at >= s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static int not_an_index(const scan *s, cli_why *why)
{
    return cli_why_set(
        why, -EINVAL,
        "\"%.*s\" is no index; a row (5, -1), a list (0,3,9), a slice (10:20, ::10), FILE.npy with indices "
        "or a mask, or - for standard input is accepted",
        s->text_bytes, s->text);
}

/* `typed` is how the row was written; NULL: as the number is. */
static int outside(int64_t row, const char *typed, int typed_bytes, uint64_t rows, cli_why *why)
{
    char number[32];
    if (typed == NULL) {
        typed_bytes = snprintf(number, sizeof number, "%lld", (long long)row);
        typed = number;
    }
    if (rows == 0)
        return cli_why_set(why, -ERANGE, "row %.*s: there are no rows", typed_bytes, typed);
    return cli_why_set(why, -ERANGE, "row %.*s is outside; -%llu to %llu is accepted", typed_bytes, typed,
                       (unsigned long long)rows, (unsigned long long)(rows - 1));
}

static int add_row(cli_index *out, int64_t row, const char *typed, int typed_bytes, uint64_t rows, cli_why *why)
{
    int64_t count = (int64_t)rows;
    if (row >= count || row < -count)
        return outside(row, typed, typed_bytes, rows, why);
    int err = push_row(out, row < 0 ? row + count : row);
    return err != 0 ? cli_why_set(why, err, "%s", strerror(-err)) : 0;
}

/* A bound of a slice as Python clips it: into 0..rows, or -1..rows-1 when the step is negative. */
static int64_t clip(int64_t bound, int64_t rows, bool down)
{
    int64_t low = down ? -1 : 0, high = down ? rows - 1 : rows;
    if (bound < 0)
        bound += rows;
    return bound < low ? low : bound > high ? high : bound;
}

static int add_slice(cli_index *out, const int64_t bound[3], const bool given[3], uint64_t row_count, cli_why *why)
{
    int64_t rows = (int64_t)row_count, step = given[2] ? bound[2] : 1;
    if (step == 0)
        return cli_why_set(why, -EINVAL, "a slice with step 0 has no rows; any other step is accepted");
    bool down = step < 0;
    int64_t low = given[0] ? clip(bound[0], rows, down) : down ? rows - 1 : 0;
    int64_t high = given[1] ? clip(bound[1], rows, down) : down ? -1 : rows;
    uint64_t gap = down ? 0 - (uint64_t)step : (uint64_t)step;
    uint64_t span = down ? (low > high ? (uint64_t)(low - high) : 0) : (high > low ? (uint64_t)(high - low) : 0);
    cli_run run = {.start = low, .count = span == 0 ? 0 : (span - 1) / gap + 1, .step = step};
    if (run.count <= 1)
        run.step = 1;
    int err = push_run(out, run);
    return err != 0 ? cli_why_set(why, err, "%s", strerror(-err)) : 0;
}

/* Length of a number's text for a sentence: without the blanks behind it, and not endless. */
static int number_bytes(const char *text, const char *end)
{
    while (end > text && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
        end--;
    return end - text > 60 ? 60 : (int)(end - text);
}

/* One item between commas. */
static int parse_item(scan *s, cli_index *out, cli_why *why)
{
    int64_t bound[3] = {0};
    bool given[3] = {false};
    int part = 0;
    skip_blanks(s);
    const char *item = s->at;
    if (scan_number(s, &given[0], &bound[0]) != 0)
        return not_an_index(s, why);
    while (part < 2 && scan_take(s, ':')) {
        part++;
        if (scan_number(s, &given[part], &bound[part]) != 0)
            return not_an_index(s, why);
    }
    if (s->at < s->end && *s->at != ',')
        return not_an_index(s, why);
    if (part > 0)
        return add_slice(out, bound, given, s->rows, why);
    if (!given[0])
        return not_an_index(s, why);
    return add_row(out, bound[0], item, number_bytes(item, s->at), s->rows, why);
}

int cli_index_parse(const char *text, size_t bytes, uint64_t rows, cli_index *out, cli_why *why)
{
    scan s = {.at = text, .end = text + bytes, .text = text, .text_bytes = bytes > 60 ? 60 : (int)bytes, .rows = rows};
    if (rows > INT64_MAX)
        return cli_why_set(why, -EOVERFLOW, "%llu rows are too many", (unsigned long long)rows);
    do {
        int err = parse_item(&s, out, why);
        if (err != 0)
            return err;
    } while (scan_take(&s, ','));
    return s.at == s.end ? 0 : not_an_index(&s, why);
}

int cli_index_parse_lines(const char *text, size_t bytes, uint64_t rows, cli_index *out, cli_why *why)
{
    const char *end = text + bytes;
    for (unsigned long line = 1; text < end; line++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *stop = newline != NULL ? newline : end;
        const char *first = text;
        while (first < stop && (*first == ' ' || *first == '\t' || *first == '\r'))
            first++;
        if (first < stop) {
            cli_why inner;
            int err = cli_index_parse(first, (size_t)(stop - first), rows, out, &inner);
            if (err != 0)
                return cli_why_set(why, err, "line %lu: %.700s", line, inner.text);
        }
        text = newline != NULL ? newline + 1 : end;
    }
    return 0;
}

/* ---- .npy ----------------------------------------------------------------------------------------------------- */

/* Element i of integers of any size and byte order. Unsigned ones beyond 2^63 stand for the largest. */
static int64_t integer_at(const unsigned char *data, uint64_t i, const npk_dtype *dtype)
{
    size_t size = (size_t)dtype->itemsize;
    uint64_t bits = 0;
    for (size_t b = 0; b < size; b++) {
        size_t from = dtype->big_endian ? b : size - 1 - b;
        bits = bits << 8 | data[i * size + from];
    }
    if (dtype->kind == NPK_KIND_UINT)
        return bits > INT64_MAX ? INT64_MAX : (int64_t)bits;
    unsigned unused = 64 - 8 * (unsigned)size;
    return (int64_t)(bits << unused) >> unused;
}

static int add_mask(const unsigned char *data, uint64_t count, uint64_t rows, cli_index *out, cli_why *why)
{
    if (count != rows)
        return cli_why_set(why, -EINVAL, "a mask of %llu elements does not fit %llu rows; one bool per row is accepted",
                           (unsigned long long)count, (unsigned long long)rows);
    for (uint64_t i = 0; i < count; i++) {
        if (data[i] == 0)
            continue;
        int err = add_row(out, (int64_t)i, NULL, 0, rows, why);
        if (err != 0)
            return err;
    }
    return 0;
}

int cli_index_parse_npy(const void *file, size_t bytes, uint64_t rows, cli_index *out, cli_why *why)
{
    npk_header h;
    char reason[256] = "";
    if (npk_header_parse(file, bytes, &h, reason, sizeof reason) != 0)
        return cli_why_set(why, -EINVAL, "is no .npy file: %s", reason);
    const npk_dtype *dtype = &h.dtype;
    bool integer = (dtype->kind == NPK_KIND_INT || dtype->kind == NPK_KIND_UINT) && dtype->itemsize <= 8;
    if (!integer && dtype->kind != NPK_KIND_BOOL)
        return cli_why_set(why, -EINVAL, "holds %s; integers or a bool mask are accepted", dtype->name);
    if (h.ndim > 1)
        return cli_why_set(why, -EINVAL, "has %u dimensions; one is accepted", h.ndim);
    if (h.data_offset > bytes || h.data_bytes > bytes - h.data_offset)
        return cli_why_set(why, -EINVAL, "promises %llu bytes of data and holds %llu; a complete file is accepted",
                           (unsigned long long)h.data_bytes,
                           (unsigned long long)(h.data_offset > bytes ? 0 : bytes - h.data_offset));
    if (rows > INT64_MAX)
        return cli_why_set(why, -EOVERFLOW, "%llu rows are too many", (unsigned long long)rows);
    const unsigned char *data = (const unsigned char *)file + h.data_offset;
    uint64_t count = h.data_bytes / dtype->itemsize;
    if (dtype->kind == NPK_KIND_BOOL)
        return add_mask(data, count, rows, out, why);
    for (uint64_t i = 0; i < count; i++) {
        int err = add_row(out, integer_at(data, i, dtype), NULL, 0, rows, why);
        if (err != 0)
            return err;
    }
    return 0;
}

/* ---- the command line ----------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

int cli_index_load(const char *argument, uint64_t rows, cli_index *out, cli_why *why)
{
    bool standard_input = strcmp(argument, "-") == 0;
    cli_why inner;
    if (!standard_input && !ends_with(argument, ".npy")) {
        int err = cli_index_parse(argument, strlen(argument), rows, out, &inner);
        return err != 0 ? cli_why_set(why, err, "%s", inner.text) : 0;
    }
    cli_blob blob;
    int err = cli_blob_open(argument, -1, &blob, why);
    if (err != 0)
        return err;
    if (cli_blob_is_npy(&blob))
        err = cli_index_parse_npy(blob.data, blob.bytes, rows, out, &inner);
    else if (standard_input)
        err = cli_index_parse_lines(blob.data, blob.bytes, rows, out, &inner);
    else
        err = cli_why_set(&inner, -EINVAL, "is no .npy file");
    if (err != 0)
        cli_why_set(why, err, "\"%.200s\": %.500s", blob.label, inner.text);
    cli_blob_clear(&blob);
    return err;
}
