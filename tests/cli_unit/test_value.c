/* SPDX-License-Identifier: Apache-2.0 */
/* test_value.c - elements are shown as Python and numpy show them, and dtypes are read down to their fields. */
#include "value.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

static void expect_as(const char *descr, const void *element, cli_style style, const char *wanted)
{
    cli_type *type = NULL;
    cli_why why = {""};
    unit_note("%s", descr);
    if (!CHECK_EQ(cli_type_parse(descr, strlen(descr), &type, &why), 0)) {
        fprintf(stderr, "%s\n", why.text);
        return;
    }
    cli_text text = {0};
    cli_value_add(&text, type, element, style);
    CHECK_STR(cli_text_string(&text), wanted);
    cli_text_clear(&text);
    cli_type_free(type);
}

static void expect(const char *descr, const void *element, const char *plain, const char *json)
{
    expect_as(descr, element, CLI_PLAIN, plain);
    expect_as(descr, element, CLI_VALUE_JSON, json);
}

static void test_bool(void)
{
    expect("'|b1'", "\x00", "False", "false");
    expect("'|b1'", "\x01", "True", "true");
    expect("'?'", "\x07", "True", "true");
}

static void test_integers(void)
{
    expect("'|i1'", "\x80", "-128", "-128");
    expect("'|u1'", "\xff", "255", "255");
    expect("'<i2'", "\x00\x80", "-32768", "-32768");
    expect("'>i2'", "\x80\x00", "-32768", "-32768");
    expect("'<u2'", "\xff\xff", "65535", "65535");
    expect("'<i4'", "\xff\xff\xff\xff", "-1", "-1");
    expect("'>u4'", "\x00\x00\x01\x00", "256", "256");
    expect("'<i8'", "\x00\x00\x00\x00\x00\x00\x00\x80", "-9223372036854775808", "\"-9223372036854775808\"");
    expect("'<u8'", "\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615", "\"18446744073709551615\"");
    expect("'<i8'", "\x00\x00\x00\x00\x00\x00\x20\x00", "9007199254740992", "9007199254740992");
    expect("'<i8'", "\x01\x00\x00\x00\x00\x00\x20\x00", "9007199254740993", "\"9007199254740993\"");
}

static void expect_double(double value, const char *wanted)
{
    expect_as("'<f8'", &value, CLI_PLAIN, wanted);
}

static void test_doubles(void)
{
    expect_double(0.0, "0.0");
    expect_double(-0.0, "-0.0");
    expect_double(1, "1.0");
    expect_double(-1.5, "-1.5");
    expect_double(0.1, "0.1");
    expect_double(1.0 / 3, "0.3333333333333333");
    expect_double(2.0 / 3, "0.6666666666666666");
    expect_double(0.1 + 0.2, "0.30000000000000004");
    expect_double(100, "100.0");
    expect_double(1e15, "1000000000000000.0");
    expect_double(1e16, "1e+16");
    expect_double(123456789012345678.0, "1.2345678901234568e+17");
    expect_double(0.0001, "0.0001");
    expect_double(0.00001, "1e-05");
    expect_double(1.5e-7, "1.5e-07");
    expect_double(5e-324, "5e-324");
    expect_double(DBL_MIN, "2.2250738585072014e-308");
    expect_double(DBL_MAX, "1.7976931348623157e+308");
    expect_double(1e100, "1e+100");
    expect_double(INFINITY, "inf");
    expect_double(-INFINITY, "-inf");
    expect_double(NAN, "nan");
    double infinite = -INFINITY, none = NAN, whole = 3;
    expect_as("'<f8'", &infinite, CLI_VALUE_JSON, "\"-Infinity\"");
    expect_as("'<f8'", &none, CLI_VALUE_JSON, "\"NaN\"");
    expect_as("'<f8'", &whole, CLI_VALUE_JSON, "3.0");
    expect_as("'>f8'", "\x3f\xf8\x00\x00\x00\x00\x00\x00", CLI_PLAIN, "1.5");
}

static void test_singles(void)
{
    static const struct {
        float value;
        const char *wanted;
    } cases[] = {{0.1f, "0.1"},
                 {16777216.0f, "16777216.0"},
                 {1e-45f, "1e-45"},
                 {FLT_MAX, "3.4028235e+38"},
                 {1.0f / 3, "0.33333334"},
                 {FLT_MIN, "1.1754944e-38"},
                 {1e10f, "10000000000.0"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_as("'<f4'", &cases[i].value, CLI_PLAIN, cases[i].wanted);
}

static void test_halves(void)
{
    expect("'<f2'", "\x00\x3c", "1.0", "1.0");
    expect("'>f2'", "\x3c\x00", "1.0", "1.0");
    expect("'<f2'", "\x66\x2e", "0.1", "0.1");
    expect("'<f2'", "\xff\x7b", "65500.0", "65500.0");
    expect("'<f2'", "\x01\x00", "6e-08", "6e-08");
    expect("'<f2'", "\x00\x04", "6.104e-05", "6.104e-05");
    /* Below 2^-6 the next half is nearer than above it: of four digits 0.01562 is another half and 0.01563 is this one. */
    expect("'<f2'", "\x00\x24", "0.01563", "0.01563");
    expect("'<f2'", "\x00\x7c", "inf", "\"Infinity\"");
    expect("'<f2'", "\x00\xfc", "-inf", "\"-Infinity\"");
    expect("'<f2'", "\x01\x7e", "nan", "\"NaN\"");
    expect("'<f2'", "\x00\x80", "-0.0", "-0.0");
}

static void test_complex(void)
{
    static const struct {
        float value[2];
        const char *plain, *json;
    } cases[] = {
        {{1, 2}, "(1+2j)", "[1.0,2.0]"},
        {{1.5f, -0.5f}, "(1.5-0.5j)", "[1.5,-0.5]"},
        {{0, 2}, "2j", "[0.0,2.0]"},
        {{-0.0f, 2}, "(-0+2j)", "[-0.0,2.0]"},
        {{1, -0.0f}, "(1-0j)", "[1.0,-0.0]"},
        {{NAN, INFINITY}, "(nan+infj)", "[\"NaN\",\"Infinity\"]"},
        {{1, -INFINITY}, "(1-infj)", "[1.0,\"-Infinity\"]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect("'<c8'", cases[i].value, cases[i].plain, cases[i].json);
    double wide[2] = {0.1, 1e300};
    expect("'<c16'", wide, "(0.1+1e+300j)", "[0.1,1e+300]");
}

static void expect_time(const char *descr, int64_t value, const char *wanted)
{
    expect_as(descr, &value, CLI_PLAIN, wanted);
}

static void test_times(void)
{
    expect_time("'<M8[D]'", 0, "1970-01-01");
    expect_time("'<M8[D]'", -1, "1969-12-31");
    expect_time("'<M8[D]'", 19782, "2024-02-29");
    expect_time("'<M8[D]'", -719528, "0000-01-01");
    expect_time("'<M8[Y]'", 54, "2024");
    expect_time("'<M8[M]'", -1, "1969-12");
    expect_time("'<M8[W]'", 1, "1970-01-08");
    expect_time("'<M8[h]'", 25, "1970-01-02T01");
    expect_time("'<M8[m]'", -1, "1969-12-31T23:59");
    expect_time("'<M8[s]'", 1700000000, "2023-11-14T22:13:20");
    expect_time("'<M8[25s]'", 2, "1970-01-01T00:00:50");
    expect_time("'<M8[ms]'", -1, "1969-12-31T23:59:59.999");
    expect_time("'<M8[us]'", 1, "1970-01-01T00:00:00.000001");
    expect_time("'<M8[ns]'", 1700000000123456789, "2023-11-14T22:13:20.123456789");
    expect_time("'<M8[ns]'", INT64_MIN, "NaT");
    expect_time("'<M8[as]'", INT64_MAX, "1970-01-01T00:00:09.223372036854775807");
    expect_time("'<M8[ns]'", INT64_MAX, "2262-04-11T23:47:16.854775807");
    expect_time("'<m8[s]'", -5, "-5 seconds");
    expect_time("'<m8[25ms]'", 2, "50 milliseconds");
    expect_time("'<m8'", 7, "7");
    expect_time("'<m8[ns]'", INT64_MIN, "NaT");
    int64_t nothing = INT64_MIN, day = 0;
    expect_as("'<M8[D]'", &nothing, CLI_VALUE_JSON, "null");
    expect_as("'<M8[D]'", &day, CLI_VALUE_JSON, "\"1970-01-01\"");
}

static void test_text(void)
{
    expect("'|S6'", "ab\0\0\0\0", "ab", "\"ab\"");
    expect("'|S6'", "a\0b\0\0\0", "a\\x00b", "\"a\\u0000b\"");
    expect("'|S6'", "\"\t\n\\\xff\x7f", "\\x22\\t\\n\\\\\\xff\\x7f", "\"\\\"\\t\\n\\\\\\udcff\\u007f\"");
    expect("'|S6'", "\xc3\xa9\xe2\x82\xac\xc2", "\xc3\xa9\xe2\x82\xac\\xc2", "\"\xc3\xa9\xe2\x82\xac\\udcc2\"");
    expect_as("'|S6'", "a'\0\xff\n\0", CLI_QUOTED, "b'a\\'\\x00\\xff\\n'");
    expect("'<U3'", "\xe9\0\0\0\xac\x20\0\0\0\0\0\0", "\xc3\xa9\xe2\x82\xac", "\"\xc3\xa9\xe2\x82\xac\"");
    expect("'>U2'", "\0\0\0A\0\x01\xf6\x00", "A\xf0\x9f\x98\x80", "\"A\xf0\x9f\x98\x80\"");
    expect("'<U1'", "\x00\xd8\0\0", "\\ud800", "\"\\ud800\"");
    expect("'<U1'", "\x00\x00\x11\0", "\\U00110000", "\"\xef\xbf\xbd\"");
    expect_as("'<U2'", "'\0\0\0\n\0\0\0", CLI_QUOTED, "'\\'\\n'");
    expect("'|V3'", "a\0\xff", "b'\\\\x61\\\\x00\\\\xff'", "\"6100ff\"");
}

static void test_structures(void)
{
    static const char packed[] = "\x01\x02\x00\x03\x00x\x00";
    expect("[('a', '|u1'), ('b', '<i2', (2,)), ('c', '|S2')]", packed, "(1, [2, 3], b'x')",
           "{\"a\":1,\"b\":[2,3],\"c\":\"x\"}");
    expect("[('a', '|u1')]", "\x05", "(5,)", "{\"a\":5}");
    expect("[('a', '|u1'), ('', '|V1'), ('b', '|i1')]", "\x01\x09\xff", "(1, -1)", "{\"a\":1,\"b\":-1}");
    expect("[('p', [('x', '|u1'), ('y', '|u1')]), ('m', '|u1', (2, 2))]", "\x01\x02\x03\x04\x05\x06",
           "((1, 2), [[3, 4], [5, 6]])", "{\"p\":{\"x\":1,\"y\":2},\"m\":[[3,4],[5,6]]}");
    expect("[((\"title\", 'na\\'me'), '|b1')]", "\x01", "(True,)", "{\"na'me\":true}");
    expect("[('\\u00e9', '|b1')]", "\x00", "(False,)", "{\"\xc3\xa9\":false}");
    expect("[('n', '|u1', 3)]", "\x01\x02\x03", "([1, 2, 3],)", "{\"n\":[1,2,3]}");
}

static void refuse_type(const char *descr, int err, const char *part)
{
    cli_type *type = NULL;
    cli_why why = {""};
    unit_note("%s", descr);
    CHECK_EQ(cli_type_parse(descr, strlen(descr), &type, &why), err);
    CHECK_HAS(why.text, part);
    CHECK(type == NULL);
}

static void test_bad_types(void)
{
    static const char *const bad[] = {
        "",
        "<f4",
        "'<f4",
        "'<f4' x",
        "'f'",
        "'<f3'",
        "'<x4'",
        "'<M8[q]'",
        "'<M8[ns'",
        "'<M8[0s]'",
        "'<i16'",
        "[('a')]",
        "[('a','<f4'",
        "[('a','<f4',(2,]",
        "[(1,'<f4')]",
        "'\\x4'",
        "[('a' '<f4')]",
        "'<M8[ns]x'",
        "'<M4[ns]'",
        "'|b2'",
        "''",
        "'<f4' , '<f4'",
        "[('a','<f4',())",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuse_type(bad[i], -EINVAL, "");
    refuse_type("'|O'", -ENOTSUP, "pickled Python objects");
    refuse_type("[('a', '|O')]", -ENOTSUP, "pickled Python objects");
    refuse_type("'|S99999999999999999999'", -EOVERFLOW, "too large");
    refuse_type("'<U9223372036854775807'", -EOVERFLOW, "too large");
    refuse_type("[('a','<f8',(9223372036854775807,9223372036854775807))]", -EOVERFLOW, "too large");
    refuse_type("[('a','|V0',(1000000000,))]", -ENOTSUP, "elements without bytes");
    char deep[4096] = "";
    for (int i = 0; i < 100; i++)
        strcat(deep, "[('a',");
    refuse_type(deep, -EINVAL, "nested too deeply");
}

static void test_names(void)
{
    static const struct {
        const char *descr, *name;
    } cases[] = {{"'<f4'", "float32"},
                 {"'>f4'", ">f4"},
                 {"'|b1'", "bool"},
                 {"'|u1'", "uint8"},
                 {"'<c16'", "complex128"},
                 {"'|S10'", "S10"},
                 {"'<U10'", "U10"},
                 {"'<M8[ns]'", "datetime64[ns]"},
                 {"'<m8[25s]'", "timedelta64[25s]"},
                 {"'>M8[us]'", ">M8[us]"},
                 {"'|V7'", "V7"},
                 {"[('a','<f4'),('b','>i2',(2,)),('c','|S3')]", "[('a', '<f4'), ('b', '>i2', (2,)), ('c', '|S3')]"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cli_type *type = NULL;
        cli_why why;
        unit_note("%s", cases[i].descr);
        if (!CHECK_EQ(cli_type_parse(cases[i].descr, strlen(cases[i].descr), &type, &why), 0))
            continue;
        cli_text name = {0};
        cli_type_name(type, &name);
        CHECK_STR(cli_text_string(&name), cases[i].name);
        cli_text_clear(&name);
        cli_type_free(type);
    }
}

static bool same_types(const char *a, const char *b)
{
    cli_type *one = NULL, *two = NULL;
    cli_why why;
    bool same = cli_type_parse(a, strlen(a), &one, &why) == 0 && cli_type_parse(b, strlen(b), &two, &why) == 0 &&
                cli_type_equal(one, two);
    cli_type_free(one);
    cli_type_free(two);
    return same;
}

static void test_equal_types(void)
{
    CHECK(same_types("'<f4'", "\"<f4\""));
    CHECK(same_types("'|u1'", "'<u1'"));
    CHECK(same_types("[('a','<f4')]", "[ ( 'a' , '<f4', ) ]"));
    CHECK(!same_types("'<f4'", "'>f4'"));
    CHECK(!same_types("'<f4'", "'<i4'"));
    CHECK(!same_types("'<f4'", "'<f8'"));
    CHECK(!same_types("'<M8[ns]'", "'<M8[us]'"));
    CHECK(!same_types("'<M8[ns]'", "'<m8[ns]'"));
    CHECK(!same_types("'<M8[2s]'", "'<M8[s]'"));
    CHECK(!same_types("[('a','<f4')]", "[('b','<f4')]"));
    CHECK(!same_types("[('a','<f4',(2,3))]", "[('a','<f4',(3,2))]"));
    CHECK(!same_types("[('a','<f4')]", "[('a','<f4'),('b','|V0')]"));
}

static void test_escapes(void)
{
    cli_text text = {0};
    cli_text_add_cell(&text, "a\tb\x1b[1m\xc2\x85\xed\xa0\x80\xf8", 13);
    CHECK_STR(cli_text_string(&text), "a\\tb\\x1b[1m\\xc2\\x85\\xed\\xa0\\x80\\xf8");
    cli_text_reset(&text);
    cli_text_add_json(&text, "\x01\xc0\x80", 3);
    CHECK_STR(cli_text_string(&text), "\"\\u0001\\udcc0\\udc80\"");
    cli_text_reset(&text);
    cli_text_add_json(&text, "\xf4\x90\x80\x80", 4);
    CHECK_STR(cli_text_string(&text), "\"\\udcf4\\udc90\\udc80\\udc80\"");
    cli_text_clear(&text);
}

int main(void)
{
    RUN(test_bool);
    RUN(test_integers);
    RUN(test_doubles);
    RUN(test_singles);
    RUN(test_halves);
    RUN(test_complex);
    RUN(test_times);
    RUN(test_text);
    RUN(test_structures);
    RUN(test_bad_types);
    RUN(test_names);
    RUN(test_equal_types);
    RUN(test_escapes);
    return UNIT_RESULT();
}
