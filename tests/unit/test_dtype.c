/* SPDX-License-Identifier: Apache-2.0 */
/* Item types: names and codes as people write them, and the sizes of structured ones. */
#include "unit.h"

#include <errno.h>

#include "dtype.h"
#include "npk.h"

typedef struct known {
    const char *text;
    npk_kind kind;
    uint64_t itemsize;
    bool big;
    bool native14;
    const char *name;
    const char *descr;
} known;

static const known table[] = {
    {"bool", NPK_KIND_BOOL, 1, false, true, "bool", "'|b1'"},
    {"?", NPK_KIND_BOOL, 1, false, true, "bool", "'|b1'"},
    {"int8", NPK_KIND_INT, 1, false, true, "int8", "'|i1'"},
    {"int16", NPK_KIND_INT, 2, false, true, "int16", "'<i2'"},
    {"int32", NPK_KIND_INT, 4, false, true, "int32", "'<i4'"},
    {"int64", NPK_KIND_INT, 8, false, true, "int64", "'<i8'"},
    {"uint8", NPK_KIND_UINT, 1, false, true, "uint8", "'|u1'"},
    {"uint16", NPK_KIND_UINT, 2, false, true, "uint16", "'<u2'"},
    {"uint32", NPK_KIND_UINT, 4, false, true, "uint32", "'<u4'"},
    {"uint64", NPK_KIND_UINT, 8, false, true, "uint64", "'<u8'"},
    {"float16", NPK_KIND_FLOAT, 2, false, true, "float16", "'<f2'"},
    {"float32", NPK_KIND_FLOAT, 4, false, true, "float32", "'<f4'"},
    {"float64", NPK_KIND_FLOAT, 8, false, true, "float64", "'<f8'"},
    {"complex64", NPK_KIND_COMPLEX, 8, false, true, "complex64", "'<c8'"},
    {"complex128", NPK_KIND_COMPLEX, 16, false, true, "complex128", "'<c16'"},
    /* beyond the 14 */
    {"float128", NPK_KIND_FLOAT, 16, false, false, "float128", "'<f16'"},
    {"complex256", NPK_KIND_COMPLEX, 32, false, false, "complex256", "'<c32'"},
    {">f4", NPK_KIND_FLOAT, 4, true, false, ">f4", "'>f4'"},
    {">i8", NPK_KIND_INT, 8, true, false, ">i8", "'>i8'"},
    {">c16", NPK_KIND_COMPLEX, 16, true, false, ">c16", "'>c16'"},
    {">u1", NPK_KIND_UINT, 1, false, true, "uint8", "'|u1'"},
    {"U10", NPK_KIND_UNICODE, 40, false, false, "U10", "'<U10'"},
    {">U10", NPK_KIND_UNICODE, 40, true, false, ">U10", "'>U10'"},
    {"S10", NPK_KIND_BYTES, 10, false, false, "S10", "'|S10'"},
    {"a10", NPK_KIND_BYTES, 10, false, false, "S10", "'|S10'"},
    {">S10", NPK_KIND_BYTES, 10, false, false, "S10", "'|S10'"},
    {"V8", NPK_KIND_VOID, 8, false, false, "V8", "'|V8'"},
    {"c", NPK_KIND_BYTES, 1, false, false, "S1", "'|S1'"},
    {"M8[ns]", NPK_KIND_DATETIME, 8, false, false, "datetime64[ns]", "'<M8[ns]'"},
    {"datetime64[ns]", NPK_KIND_DATETIME, 8, false, false, "datetime64[ns]", "'<M8[ns]'"},
    {"datetime64", NPK_KIND_DATETIME, 8, false, false, "datetime64", "'<M8'"},
    {"datetime64[generic]", NPK_KIND_DATETIME, 8, false, false, "datetime64", "'<M8'"},
    {"timedelta64[25s]", NPK_KIND_DATETIME, 8, false, false, "timedelta64[25s]", "'<m8[25s]'"},
    {"<m8[2147483647ms]", NPK_KIND_DATETIME, 8, false, false, "timedelta64[2147483647ms]", "'<m8[2147483647ms]'"},
    {"M8[\xce\xbcs]", NPK_KIND_DATETIME, 8, false, false, "datetime64[us]", "'<M8[us]'"},
    {"M8[1D]", NPK_KIND_DATETIME, 8, false, false, "datetime64[D]", "'<M8[D]'"},
    {"M8[00000000000000000000000000000007s]", NPK_KIND_DATETIME, 8, false, false, "datetime64[7s]", "'<M8[7s]'"},
    {">M8[D]", NPK_KIND_DATETIME, 8, true, false, ">M8[D]", "'>M8[D]'"},
    {"M", NPK_KIND_DATETIME, 8, false, false, "datetime64", "'<M8'"},
    /* other spellings */
    {"f4", NPK_KIND_FLOAT, 4, false, true, "float32", "'<f4'"},
    {"=f4", NPK_KIND_FLOAT, 4, false, true, "float32", "'<f4'"},
    {"|f4", NPK_KIND_FLOAT, 4, false, true, "float32", "'<f4'"},
    {"f04", NPK_KIND_FLOAT, 4, false, true, "float32", "'<f4'"},
    {"<f", NPK_KIND_FLOAT, 4, false, true, "float32", "'<f4'"},
    {"half", NPK_KIND_FLOAT, 2, false, true, "float16", "'<f2'"},
    {"double", NPK_KIND_FLOAT, 8, false, true, "float64", "'<f8'"},
    {"int", NPK_KIND_INT, 8, false, true, "int64", "'<i8'"},
    {"uintp", NPK_KIND_UINT, 8, false, true, "uint64", "'<u8'"},
    {"byte", NPK_KIND_INT, 1, false, true, "int8", "'|i1'"},
    {"bool_", NPK_KIND_BOOL, 1, false, true, "bool", "'|b1'"},
    {"complex", NPK_KIND_COMPLEX, 16, false, true, "complex128", "'<c16'"},
};

static void test_known(void)
{
    unsigned natives = 0;
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        const known *k = &table[i];
        npk_dtype t;
        char descr[64];
        unit_note("dtype %s", k->text);
        if (!CHECK_EQ(npk_dtype_parse(k->text, &t, descr), 0))
            continue;
        CHECK_EQ(t.kind, k->kind);
        CHECK_EQ(t.itemsize, k->itemsize);
        CHECK_EQ(t.big_endian, k->big);
        CHECK_EQ(t.native14, k->native14);
        CHECK_STR(t.name, k->name);
        CHECK_STR(descr, k->descr);
        /* What comes out means the same when it goes in again: the name, and the descr without its quotes. */
        npk_dtype again;
        char other[64];
        CHECK_EQ(npk_dtype_parse(t.name, &again, other), 0);
        CHECK_STR(other, descr);
        CHECK_EQ(npk__typestr_parse(descr + 1, strlen(descr) - 2, &again, other), 0);
        CHECK_EQ(again.itemsize, t.itemsize);
        CHECK_EQ(again.kind, t.kind);
        natives += i < 15 && strcmp(k->text, "?") != 0 ? t.native14 : 0;
    }
    CHECK_EQ(natives, 14);
}

static void test_unknown(void)
{
    static const char *const unknown[] = {
        "",
        " ",
        "<",
        ">",
        "<<f4",
        "f3",
        "f1",
        "f32",
        "i3",
        "i16",
        "u0",
        "b8",
        "?1",
        "c4",
        "float33",
        "Float32",
        "FLOAT32",
        "float32 ",
        " float32",
        "f4,f4",
        "3f4",
        "(2,)f4",
        "S-1",
        "S+5",
        "S1x",
        "S2147483648",
        "U536870912",
        "S99999999999999999999999",
        "M8[",
        "M8[]",
        "M8[5]",
        "M8[xs]",
        "M8[ns",
        "M8ns]",
        "M[ns]",
        ">m[ns]",
        "M08[ns]",
        "M8[ns]]",
        "M4",
        "f4[ns]",
        "M8[99999999999s]",
        "T",
        "T16",
        "<float32",
        "int32_t",
        "x",
        "V2147483648",
        "float32\n",
    };
    static const char *const lengthless[] = {"S", "U", "V", "S0", "U0", "|V0", "str", "bytes", "void"};
    npk_dtype t;
    char descr[64];
    for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++) {
        unit_note("dtype %s", unknown[i]);
        strcpy(descr, "kept");
        CHECK_EQ(npk_dtype_parse(unknown[i], &t, descr), -EINVAL);
        CHECK_STR(descr, "kept");
        CHECK_HAS(npk_error(), "no such dtype; known are bool, int8");
        if (strlen(unknown[i]) < 20 && strchr(unknown[i], '\n') == NULL)
            CHECK_HAS(npk_error(), unknown[i]);
    }
    for (size_t i = 0; i < sizeof(lengthless) / sizeof(*lengthless); i++) {
        unit_note("dtype %s", lengthless[i]);
        CHECK_EQ(npk_dtype_parse(lengthless[i], &t, descr), -EINVAL);
        CHECK_HAS(npk_error(), "has no length");
    }
    CHECK_EQ(npk_dtype_parse("object", &t, descr), -EINVAL);
    CHECK_HAS(npk_error(), "objects have no fixed size");
    CHECK_EQ(npk_dtype_parse("|O", &t, descr), -EINVAL);
}

/* A descr value on its own. */
static int parse_descr(const char *text, npk_dtype *t, char *why, size_t why_bytes)
{
    npk__literal l = {.base = (const uint8_t *)text, .at = (const uint8_t *)text, .why = why, .why_bytes = why_bytes};
    l.end = l.base + strlen(text);
    l.long_suffix = true;
    int err = npk__descr_parse(&l, t);
    return err == 0 && l.at != l.end ? -ENOMSG : err;
}

/* Sizes as numpy 2.4 has them for the same text. */
static void test_structured(void)
{
    static const struct {
        const char *text;
        uint64_t itemsize;
        npk_kind kind;
    } cases[] = {
        {"[]", 0, NPK_KIND_STRUCT},
        {"[('a', '<f4')]", 4, NPK_KIND_STRUCT},
        {"[('a', '<f4'),]", 4, NPK_KIND_STRUCT},
        {"[('a', '<f4',),]", 4, NPK_KIND_STRUCT},
        {"[('a', '|u1'), ('b', '<f8')]", 9, NPK_KIND_STRUCT},
        {"[('a', '|u1'), ('', '|V7'), ('b', '<f8')]", 16, NPK_KIND_STRUCT},
        {"[('', '|V3'), ('a', '|u1'), ('', '|V3')]", 7, NPK_KIND_STRUCT},
        {"[('', '<f4', (2,)), ('', '<f4', (2,))]", 16, NPK_KIND_STRUCT},
        {"[('', '<f4')]", 4, NPK_KIND_STRUCT},
        {"[('', [('a', '<f4')])]", 4, NPK_KIND_STRUCT},
        {"[('a', '<f4', 3)]", 12, NPK_KIND_STRUCT},
        {"[('a', '<f4', 3L), ('b', '<f4', 1)]", 16, NPK_KIND_STRUCT},
        {"[('a', '<f4', (2, 3))]", 24, NPK_KIND_STRUCT},
        {"[('a', '<f4', (1L, 2L,),)]", 8, NPK_KIND_STRUCT},
        {"[('a', '<f4', ())]", 4, NPK_KIND_STRUCT},
        {"[('a', '<f4', (2, 0))]", 0, NPK_KIND_STRUCT},
        {"[('a', ('<f4', (3,)))]", 12, NPK_KIND_STRUCT},
        {"[('a', (('<f4', 2), (3,)), 5)]", 120, NPK_KIND_STRUCT},
        {"[(('title', 'a'), '<f4'), ((None, 'b'), '<f4'), ((7, 'c'), '<f4')]", 12, NPK_KIND_STRUCT},
        {"[((u'title', u'a'), u'<f4')]", 4, NPK_KIND_STRUCT},
        {"[('a', [('x', '<U3'), ('y', '|S5', (2,))]), ('b', '>M8[us]')]", 30, NPK_KIND_STRUCT},
        {"[('a', [('x', '<f4')]), ('x', '<f4')]", 8, NPK_KIND_STRUCT}, /* the same name on another level */
        {"[('\\x00\\u00e9\\'\\q', '<f4')]", 4, NPK_KIND_STRUCT},
        {"[('a', '|S2147483647')]", 2147483647, NPK_KIND_STRUCT},
        {"[('a', '|O')]", 0, NPK_KIND_OBJECT},
        {"[('a', '<f4'), ('b', [('c', '|u1'), ('d', 'O', (2,))])]", 0, NPK_KIND_OBJECT},
        {"'|O'", 0, NPK_KIND_OBJECT},
        {"'O8'", 0, NPK_KIND_OBJECT},
        {"'<f4'", 4, NPK_KIND_FLOAT},
        {"'|S0'", 0, NPK_KIND_BYTES},
        {"'V'", 0, NPK_KIND_VOID},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        npk_dtype t;
        char why[256] = "";
        unit_note("descr %s", cases[i].text);
        if (!CHECK_EQ(parse_descr(cases[i].text, &t, why, sizeof(why)), 0)) {
            CHECK_STR(why, "");
            continue;
        }
        CHECK_EQ(t.itemsize, cases[i].itemsize);
        CHECK_EQ(t.kind, cases[i].kind);
        CHECK(!t.native14 || t.kind == NPK_KIND_FLOAT);
        if (t.kind == NPK_KIND_STRUCT && strlen(cases[i].text) < sizeof(t.name))
            CHECK_STR(t.name, cases[i].text);
    }
}

/* Names beyond the table of compared ones are read, doubles among the first are found. */
static void test_many_fields(void)
{
    static char text[200000];
    for (int twice = 0; twice < 2; twice++) {
        size_t n = (size_t)snprintf(text, sizeof(text), "[");
        for (int i = 0; i < 5000; i++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "('f%d', '<f4'), ", i);
        (void)snprintf(text + n, sizeof(text) - n, "%s]", twice ? "('f500', '<f4')" : "");
        npk_dtype t;
        char why[256];
        CHECK_EQ(parse_descr(text, &t, why, sizeof(why)), twice ? -EINVAL : 0);
        if (!twice)
            CHECK_EQ(t.itemsize, 20000);
        else
            CHECK_HAS(why, "'f500' is used twice");
    }
}

static void test_subarray_limits(void)
{
    char text[1000], why[256];
    for (int dims = 60; dims <= 70; dims++) {
        size_t n = (size_t)snprintf(text, sizeof(text), "[('a', '<f4', (");
        for (int i = 0; i < dims; i++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "1, ");
        (void)snprintf(text + n, sizeof(text) - n, "))]");
        npk_dtype t;
        unit_note("%d dimensions", dims);
        CHECK_EQ(parse_descr(text, &t, why, sizeof(why)), dims <= 64 ? 0 : -EINVAL);
    }
    npk_dtype t;
    CHECK_EQ(parse_descr("[('a', '|u1', (2147483648, 0))]", &t, why, sizeof(why)), -EINVAL);
    CHECK_EQ(parse_descr("[('a', '|u1', (99999999999999999999,))]", &t, why, sizeof(why)), -EINVAL);
    CHECK_HAS(why, "99999999999999999999");
    /* Items without a size: numpy takes a number behind one for its size, and a tuple for nothing at all. */
    static const char *const sizeless[] = {"[('b', '|S0', (2,))]", "[('b', '|S', 1)]", "[('b', '|V', ())]",
                                           "[('b', ('<f4', (0,)), (2,))]"};
    for (size_t i = 0; i < 4; i++) {
        unit_note("%s", sizeless[i]);
        CHECK_EQ(parse_descr(sizeless[i], &t, why, sizeof(why)), -EINVAL);
        CHECK_HAS(why, "have no size");
    }
    CHECK_EQ(parse_descr("[('b', [], (2,))]", &t, why, sizeof(why)), 0);
    CHECK_EQ(parse_descr("[('b', [('x', '|S0')], 2)]", &t, why, sizeof(why)), 0);
}

int main(void)
{
    RUN(test_known);
    RUN(test_unknown);
    RUN(test_structured);
    RUN(test_many_fields);
    RUN(test_subarray_limits);
    return UNIT_RESULT();
}
