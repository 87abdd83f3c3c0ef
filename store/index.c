/* SPDX-License-Identifier: Apache-2.0 */
/* Which rows somebody means: Python's index expressions, index lists and masks, resolved against the rows that there are. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "npk.h"

/* ---- runs ----------------------------------------------------------------------------------------------------- */

static int push_run(npk_rows *index, npk_run run)
{
    if (run.count == 0)
        return 0;
    if (__builtin_add_overflow(index->row_count, run.count, &index->row_count))
        return -EOVERFLOW;
    if (index->run_count == index->run_capacity) {
        size_t capacity = index->run_capacity == 0 ? 16 : index->run_capacity * 2;
        npk_run *runs = reallocarray(index->runs, capacity, sizeof *runs);
        if (runs == NULL)
            return -ENOMEM;
        index->runs = runs;
        index->run_capacity = capacity;
    }
    index->runs[index->run_count++] = run;
    return 0;
}

/* Add one row; it joins the last run when it continues it, so that masks and sorted lists stay small. */
static int push_row(npk_rows *index, int64_t row)
{
    if (index->run_count > 0) {
        npk_run *last = &index->runs[index->run_count - 1];
        if (last->count == 1 && row != (int64_t)last->start) {
            last->step = row - (int64_t)last->start;
            last->count = 2;
            index->row_count++;
            return 0;
        }
        int64_t next;
        if (!__builtin_mul_overflow((int64_t)last->count, last->step, &next) &&
            !__builtin_add_overflow(next, (int64_t)last->start, &next) && row == next) {
            last->count++;
            index->row_count++;
            return 0;
        }
    }
    return push_run(index, (npk_run){.start = (uint64_t)row, .count = 1, .step = 1});
}

/* What a choice was, so that one that cannot be read adds nothing. */
typedef struct before {
    size_t run_count;
    uint64_t row_count;
    npk_run last;
} before;

static before remember(const npk_rows *index)
{
    before b = {.run_count = index->run_count, .row_count = index->row_count};
    if (b.run_count > 0)
        b.last = index->runs[b.run_count - 1];
    return b;
}

static int undo_on(int err, npk_rows *index, const before *b)
{
    if (err == 0)
        return 0;
    index->run_count = b->run_count;
    index->row_count = b->row_count;
    if (b->run_count > 0)
        index->runs[b->run_count - 1] = b->last;
    return err;
}

void npk_rows_clear(npk_rows *index)
{
    free(index->runs);
    *index = (npk_rows){0};
}

size_t npk_rows_take(const npk_rows *index, npk_rows_cursor *cursor, int64_t *out, size_t max)
{
    size_t taken = 0;
    while (taken < max && cursor->run < index->run_count) {
        const npk_run *run = &index->runs[cursor->run];
        while (taken < max && cursor->done < run->count) {
            out[taken++] = (int64_t)run->start + (int64_t)cursor->done * run->step;
            cursor->done++;
        }
        if (cursor->done == run->count)
            *cursor = (npk_rows_cursor){.run = cursor->run + 1};
    }
    return taken;
}

uint64_t npk_rows_take_range(const npk_rows *index, npk_rows_cursor *cursor, uint64_t max, uint64_t *first)
{
    if (cursor->run >= index->run_count || max == 0)
        return 0;
    const npk_run *run = &index->runs[cursor->run];
    uint64_t left = run->count - cursor->done;
    uint64_t count = run->step != 1 ? 1 : left < max ? left : max;
    *first = run->start + cursor->done * (uint64_t)run->step;
    cursor->done += count;
    if (cursor->done == run->count)
        *cursor = (npk_rows_cursor){.run = cursor->run + 1};
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

static int not_an_index(const scan *s)
{
    return npk__fail(-EINVAL,
                     "\"%.*s\" is no index; a row (5, -1), a list (0,3,9), a slice (10:20, ::10) or a .npy of indices or "
                     "a mask is accepted",
                     s->text_bytes, s->text);
}

/* `typed` is how the row was written; NULL: as the number is. */
static int outside(int64_t row, const char *typed, int typed_bytes, uint64_t rows)
{
    char number[32];
    if (typed == NULL) {
        typed_bytes = snprintf(number, sizeof number, "%lld", (long long)row);
        typed = number;
    }
    if (rows == 0)
        return npk__fail(-ERANGE, "row %.*s: there are no rows", typed_bytes, typed);
    return npk__fail(-ERANGE, "row %.*s is outside; -%llu to %llu is accepted", typed_bytes, typed,
                       (unsigned long long)rows, (unsigned long long)(rows - 1));
}

static int add_row(npk_rows *out, int64_t row, const char *typed, int typed_bytes, uint64_t rows)
{
    int64_t count = (int64_t)rows;
    if (row >= count || row < -count)
        return outside(row, typed, typed_bytes, rows);
    int err = push_row(out, row < 0 ? row + count : row);
    return err != 0 ? npk__fail(err, "%s", strerror(-err)) : 0;
}

/* A bound of a slice as Python clips it: into 0..rows, or -1..rows-1 when the step is negative. */
static int64_t clip(int64_t bound, int64_t rows, bool down)
{
    int64_t low = down ? -1 : 0, high = down ? rows - 1 : rows;
    if (bound < 0)
        bound += rows;
    return bound < low ? low : bound > high ? high : bound;
}

static int add_slice(npk_rows *out, const int64_t bound[3], const bool given[3], uint64_t row_count)
{
    int64_t rows = (int64_t)row_count, step = given[2] ? bound[2] : 1;
    if (step == 0)
        return npk__fail(-EINVAL, "a slice with step 0 has no rows; any other step is accepted");
    bool down = step < 0;
    int64_t low = given[0] ? clip(bound[0], rows, down) : down ? rows - 1 : 0;
    int64_t high = given[1] ? clip(bound[1], rows, down) : down ? -1 : rows;
    uint64_t gap = down ? 0 - (uint64_t)step : (uint64_t)step;
    uint64_t span = down ? (low > high ? (uint64_t)(low - high) : 0) : (high > low ? (uint64_t)(high - low) : 0);
    npk_run run = {.start = (uint64_t)low, .count = span == 0 ? 0 : (span - 1) / gap + 1, .step = step};
    if (run.count <= 1)
        run.step = 1;
    int err = push_run(out, run);
    return err != 0 ? npk__fail(err, "%s", strerror(-err)) : 0;
}

/* Length of a number's text for a sentence: without the blanks behind it, and not endless. */
static int number_bytes(const char *text, const char *end)
{
    while (end > text && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
        end--;
    return end - text > 60 ? 60 : (int)(end - text);
}

/* One item between commas. */
static int parse_item(scan *s, npk_rows *out)
{
    int64_t bound[3] = {0};
    bool given[3] = {false};
    int part = 0;
    skip_blanks(s);
    const char *item = s->at;
    if (scan_number(s, &given[0], &bound[0]) != 0)
        return not_an_index(s);
    while (part < 2 && scan_take(s, ':')) {
        part++;
        if (scan_number(s, &given[part], &bound[part]) != 0)
            return not_an_index(s);
    }
    if (s->at < s->end && *s->at != ',')
        return not_an_index(s);
    if (part > 0)
        return add_slice(out, bound, given, s->rows);
    if (!given[0])
        return not_an_index(s);
    return add_row(out, bound[0], item, number_bytes(item, s->at), s->rows);
}

static int parse_items(scan *s, npk_rows *out)
{
    do {
        int err = parse_item(s, out);
        if (err != 0)
            return err;
    } while (scan_take(s, ','));
    return s->at == s->end ? 0 : not_an_index(s);
}

static int too_many(uint64_t rows)
{
    return npk__fail(-EOVERFLOW, "%llu rows are too many", (unsigned long long)rows);
}

npk_err npk_rows_parse(const char *text, size_t bytes, uint64_t rows, npk_rows *out)
{
    scan s = {.at = text, .end = text + bytes, .text = text, .text_bytes = bytes > 60 ? 60 : (int)bytes, .rows = rows};
    if (rows > INT64_MAX)
        return too_many(rows);
    before b = remember(out);
    return undo_on(parse_items(&s, out), out, &b);
}

npk_err npk_rows_from_indices(const int64_t *indices, size_t count, uint64_t rows, npk_rows *out)
{
    if (rows > INT64_MAX)
        return too_many(rows);
    before b = remember(out);
    int err = 0;
    for (size_t i = 0; i < count && err == 0; i++)
        err = add_row(out, indices[i], NULL, 0, rows);
    return undo_on(err, out, &b);
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

static int add_mask(const unsigned char *data, uint64_t count, uint64_t rows, npk_rows *out)
{
    if (count != rows)
        return npk__fail(-EINVAL, "a mask of %llu elements does not fit %llu rows; one bool per row is accepted",
                           (unsigned long long)count, (unsigned long long)rows);
    for (uint64_t i = 0; i < count; i++) {
        if (data[i] == 0)
            continue;
        int err = add_row(out, (int64_t)i, NULL, 0, rows);
        if (err != 0)
            return err;
    }
    return 0;
}

npk_err npk_rows_parse_npy(const void *file, size_t bytes, uint64_t rows, npk_rows *out)
{
    npk_header h;
    char reason[256] = "";
    if (npk_header_parse(file, bytes, &h, reason, sizeof reason) != 0)
        return npk__fail(-EINVAL, "is no .npy file: %s", reason);
    const npk_dtype *dtype = &h.dtype;
    bool integer = (dtype->kind == NPK_KIND_INT || dtype->kind == NPK_KIND_UINT) && dtype->itemsize <= 8;
    if (!integer && dtype->kind != NPK_KIND_BOOL)
        return npk__fail(-EINVAL, "holds %s; integers or a bool mask are accepted", dtype->name);
    if (h.ndim > 1)
        return npk__fail(-EINVAL, "has %u dimensions; one is accepted", h.ndim);
    if (h.data_offset > bytes || h.data_bytes > bytes - h.data_offset)
        return npk__fail(-EINVAL, "promises %llu bytes of data and holds %llu; a complete file is accepted",
                           (unsigned long long)h.data_bytes,
                           (unsigned long long)(h.data_offset > bytes ? 0 : bytes - h.data_offset));
    if (rows > INT64_MAX)
        return too_many(rows);
    const unsigned char *data = (const unsigned char *)file + h.data_offset;
    uint64_t count = h.data_bytes / dtype->itemsize;
    before b = remember(out);
    int err = 0;
    if (dtype->kind == NPK_KIND_BOOL)
        return undo_on(add_mask(data, count, rows, out), out, &b);
    for (uint64_t i = 0; i < count && err == 0; i++)
        err = add_row(out, integer_at(data, i, dtype), NULL, 0, rows);
    return undo_on(err, out, &b);
}
