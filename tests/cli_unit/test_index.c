/* SPDX-License-Identifier: Apache-2.0 */
/* test_index.c - index expressions mean what Python means by them. */
#include "index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "npk.h"
#include "unit.h"

/* The rows of an index as "3,1,4"; "" for none. */
static const char *rows_of(const npk_rows *index, size_t batch)
{
    static char text[4096];
    int64_t rows[64];
    npk_rows_cursor cursor = {0};
    size_t count, at = 0;
    text[0] = '\0';
    while ((count = npk_rows_take(index, &cursor, rows, batch)) > 0)
        for (size_t i = 0; i < count; i++)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%lld", at > 0 ? "," : "", (long long)rows[i]);
    return text;
}

static void expect(const char *expression, uint64_t rows, const char *wanted)
{
    npk_rows index = {0};
    cli_why why = {""};
    unit_note("%s of %llu", expression, (unsigned long long)rows);
    CHECK_EQ(cli_index_parse(expression, strlen(expression), rows, &index, &why), 0);
    CHECK_STR(why.text, "");
    CHECK_STR(rows_of(&index, 64), wanted);
    CHECK_STR(rows_of(&index, 1), wanted);
    npk_rows_clear(&index);
}

static void refuse(const char *expression, uint64_t rows, int err, const char *part)
{
    npk_rows index = {0};
    cli_why why = {""};
    unit_note("%s of %llu", expression, (unsigned long long)rows);
    CHECK_EQ(cli_index_parse(expression, strlen(expression), rows, &index, &why), err);
    CHECK_HAS(why.text, part);
    npk_rows_clear(&index);
}

static void test_rows(void)
{
    expect("0", 10, "0");
    expect("9", 10, "9");
    expect("-1", 10, "9");
    expect("-10", 10, "0");
    expect("+3", 10, "3");
    expect(" 3 ", 10, "3");
    expect("0,3,-1", 10, "0,3,9");
    expect("5,5,5", 10, "5,5,5");
    expect("9,7,5,3", 10, "9,7,5,3");
    expect("1,2,3,7,8,1", 10, "1,2,3,7,8,1");
    expect("0 , 1", 10, "0,1");
}

static void test_slices(void)
{
    expect(":", 4, "0,1,2,3");
    expect("::", 4, "0,1,2,3");
    expect("1:3", 10, "1,2");
    expect("3:1", 10, "");
    expect("2:", 4, "2,3");
    expect(":2", 4, "0,1");
    expect("-2:", 4, "2,3");
    expect(":-2", 4, "0,1");
    expect("::3", 10, "0,3,6,9");
    expect("1:9:3", 10, "1,4,7");
    expect("::-1", 4, "3,2,1,0");
    expect("::-3", 10, "9,6,3,0");
    expect("5:1:-2", 10, "5,3");
    expect("1:5:-2", 10, "");
    expect("-100:100", 3, "0,1,2");
    expect("100:", 3, "");
    expect("100::-1", 3, "2,1,0");
    expect(":-100:-1", 3, "2,1,0");
    expect("0:99999999999999999999999", 3, "0,1,2");
    expect("-99999999999999999999999:1", 3, "0");
    expect("::99999999999999999999", 3, "0");
    expect("::-99999999999999999999", 3, "2");
    expect(":", 0, "");
    expect("::-1", 0, "");
    expect("5:9", 0, "");
    expect("0:2,9,-3:", 10, "0,1,9,7,8,9");
}

/* Python's own rule, written another way: walk the indices. */
static void test_slices_exhaustively(void)
{
    for (int rows = 0; rows <= 4; rows++)
        for (int low = -6; low <= 6; low++)
            for (int high = -6; high <= 6; high++)
                for (int step = -3; step <= 3; step++) {
                    if (step == 0)
                        continue;
                    char expression[64], wanted[256] = "";
                    int begin = low < 0 ? low + rows : low, end = high < 0 ? high + rows : high;
                    int floor = step > 0 ? 0 : -1, ceiling = step > 0 ? rows : rows - 1;
                    begin = begin < floor ? floor : begin > ceiling ? ceiling : begin;
                    end = end < floor ? floor : end > ceiling ? ceiling : end;
                    for (int i = begin; step > 0 ? i < end : i > end; i += step)
                        sprintf(wanted + strlen(wanted), "%s%d", wanted[0] != '\0' ? "," : "", i);
                    sprintf(expression, "%d:%d:%d", low, high, step);
                    expect(expression, (uint64_t)rows, wanted);
                }
}

static void test_refusals(void)
{
    static const char *const bad[] = {"",    "x",   "1,",   ",1",  "1,,2", "1:2:3:4", "1 2", "--1", "-",  "+",
                                      "0x1", "1.5", "1:-:", "1e3", "\xff", "[1]",     "1;2", ":,",  "a:b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuse(bad[i], 10, -EINVAL, "is no index; a row (5, -1)");
    refuse("::0", 10, -EINVAL, "step 0");
    refuse("10", 10, -ERANGE, "row 10 is outside; -10 to 9 is accepted");
    refuse("-11", 10, -ERANGE, "row -11 is outside");
    refuse("0,3,12", 10, -ERANGE, "row 12 is outside");
    refuse("99999999999999999999", 10, -ERANGE, "row 99999999999999999999 is outside");
    refuse("0, +12 ,3", 10, -ERANGE, "row +12 is outside");
    refuse("0", 0, -ERANGE, "there are no rows");
}

static void test_large_arrays(void)
{
    npk_rows index = {0};
    cli_why why;
    uint64_t rows = INT64_MAX, first;
    CHECK_EQ(cli_index_parse("::9223372036854775807", 21, rows, &index, &why), 0);
    CHECK_EQ(index.row_count, 1);
    CHECK_EQ(cli_index_parse("-1", 2, rows, &index, &why), 0);
    CHECK_EQ(cli_index_parse("-1", 2, rows, &index, &why), 0);
    CHECK_EQ(index.row_count, 3);
    npk_rows_clear(&index);
    CHECK_EQ(cli_index_parse(":", 1, rows, &index, &why), 0);
    CHECK_EQ(index.row_count, INT64_MAX);
    CHECK_EQ(cli_index_parse(":", 1, rows, &index, &why), 0);
    CHECK_EQ(cli_index_parse(":", 1, rows, &index, &why), -EOVERFLOW);
    npk_rows_cursor cursor = {0};
    CHECK_EQ(npk_rows_take_range(&index, &cursor, 1000, &first), 1000);
    CHECK_EQ(first, 0);
    CHECK_EQ(npk_rows_take_range(&index, &cursor, 5, &first), 5);
    CHECK_EQ(first, 1000);
    npk_rows_clear(&index);
    CHECK_EQ(cli_index_parse(":", 1, (uint64_t)INT64_MAX + 1, &index, &why), -EOVERFLOW);
    npk_rows_clear(&index);
}

static void test_ranges(void)
{
    npk_rows index = {0};
    cli_why why;
    uint64_t first = 0;
    CHECK_EQ(cli_index_parse("2:5,8,::-4", 10, 10, &index, &why), 0);
    npk_rows_cursor cursor = {0};
    CHECK_EQ(npk_rows_take_range(&index, &cursor, 2, &first), 2);
    CHECK_EQ(first, 2);
    CHECK_EQ(npk_rows_take_range(&index, &cursor, 2, &first), 1);
    CHECK_EQ(first, 4);
    uint64_t wanted[] = {8, 9, 5, 1};
    for (size_t i = 0; i < 4; i++) {
        CHECK_EQ(npk_rows_take_range(&index, &cursor, 100, &first), 1);
        CHECK_EQ(first, wanted[i]);
    }
    CHECK_EQ(npk_rows_take_range(&index, &cursor, 100, &first), 0);
    npk_rows_clear(&index);
}

/* What cannot be read adds nothing, and a row twice is no run with step 0. */
static void test_refused_whole(void)
{
    npk_rows index = {0};
    cli_why why;
    int64_t wrong[] = {3, 4, 10}, right[] = {-1, 9, 9};
    CHECK_EQ(cli_index_parse("1:3,4", 5, 10, &index, &why), 0);
    CHECK_EQ(cli_index_parse("5,6,7,10", 8, 10, &index, &why), -ERANGE);
    CHECK_STR(rows_of(&index, 64), "1,2,4");
    CHECK_EQ(npk_rows_from_indices(wrong, 3, 10, &index), -ERANGE);
    CHECK_HAS(npk_error(), "row 10 is outside");
    CHECK_STR(rows_of(&index, 64), "1,2,4");
    CHECK_EQ(npk_rows_from_indices(right, 3, 10, &index), 0);
    CHECK_STR(rows_of(&index, 64), "1,2,4,9,9,9");
    for (size_t i = 0; i < index.run_count; i++)
        CHECK(index.runs[i].step != 0);
    npk_rows_clear(&index);
}

static void test_lines(void)
{
    static const char text[] = "5\n\n -1 \r\n2:4\n0,1";
    npk_rows index = {0};
    cli_why why = {""};
    CHECK_EQ(cli_index_parse_lines(text, sizeof text - 1, 10, &index, &why), 0);
    CHECK_STR(rows_of(&index, 64), "5,9,2,3,0,1");
    npk_rows_clear(&index);
    CHECK_EQ(cli_index_parse_lines("1\n2\nx\n", 6, 10, &index, &why), -EINVAL);
    CHECK_HAS(why.text, "line 3: \"x\" is no index");
    npk_rows_clear(&index);
    CHECK_EQ(cli_index_parse_lines("1\n10\n", 5, 10, &index, &why), -ERANGE);
    CHECK_HAS(why.text, "line 2: row 10 is outside");
    npk_rows_clear(&index);
    CHECK_EQ(cli_index_parse_lines("", 0, 10, &index, &why), 0);
    CHECK_EQ(index.row_count, 0);
    npk_rows_clear(&index);
}

/* A .npy image with the given data; shape is one dimension of `count`. */
static size_t make_npy(char *out, size_t capacity, const char *descr, uint64_t count, const void *data, size_t bytes)
{
    size_t header_bytes = 0;
    CHECK_EQ(npk_header_format(descr, false, &count, 1, out, capacity, &header_bytes), 0);
    memcpy(out + header_bytes, data, bytes);
    return header_bytes + bytes;
}

static void expect_npy(const char *descr, uint64_t count, const void *data, size_t bytes, int err, const char *wanted)
{
    char file[4096];
    npk_rows index = {0};
    cli_why why = {""};
    unit_note("%s", descr);
    size_t size = make_npy(file, sizeof file, descr, count, data, bytes);
    CHECK_EQ(cli_index_parse_npy(file, size, 10, &index, &why), err);
    if (err == 0)
        CHECK_STR(rows_of(&index, 64), wanted);
    else
        CHECK_HAS(why.text, wanted);
    npk_rows_clear(&index);
}

static void test_npy(void)
{
    expect_npy("'|i1'", 3, "\x00\xff\x05", 3, 0, "0,9,5");
    expect_npy("'|u1'", 2, "\x09\x00", 2, 0, "9,0");
    expect_npy("'<i2'", 2, "\x03\x00\xfe\xff", 4, 0, "3,8");
    expect_npy("'>i2'", 2, "\x00\x03\xff\xfe", 4, 0, "3,8");
    expect_npy("'<i4'", 1, "\xf6\xff\xff\xff", 4, 0, "0");
    expect_npy("'<i8'", 1, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, 0, "9");
    expect_npy("'<u8'", 1, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, -ERANGE, "is outside");
    expect_npy("'>u8'", 1, "\x00\x00\x00\x00\x00\x00\x00\x07", 8, 0, "7");
    expect_npy("'|u1'", 1, "\xff", 1, -ERANGE, "row 255 is outside");
    expect_npy("'|b1'", 10, "\x01\x01\x01\x00\x00\x01\x00\x00\x00\x02", 10, 0, "0,1,2,5,9");
    expect_npy("'|b1'", 3, "\x01\x01\x01", 3, -EINVAL, "a mask of 3 elements does not fit 10 rows");
    expect_npy("'<f4'", 1, "\x00\x00\x00\x00", 4, -EINVAL, "holds float32");
    expect_npy("'<i8'", 2, "\x00\x00\x00\x00\x00\x00\x00\x00", 8, -EINVAL, "promises 16 bytes of data and holds 8");
    npk_rows index = {0};
    cli_why why = {""};
    CHECK_EQ(cli_index_parse_npy("hello", 5, 10, &index, &why), -EINVAL);
    CHECK_HAS(why.text, "is no .npy file");
    CHECK_EQ(cli_index_parse_npy("\x93NUMPY", 6, 10, &index, &why), -EINVAL);
    npk_rows_clear(&index);
}

int main(void)
{
    RUN(test_rows);
    RUN(test_slices);
    RUN(test_slices_exhaustively);
    RUN(test_refusals);
    RUN(test_large_arrays);
    RUN(test_ranges);
    RUN(test_refused_whole);
    RUN(test_lines);
    RUN(test_npy);
    return UNIT_RESULT();
}
