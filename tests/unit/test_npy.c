/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of .npy files: what is read from good ones, and the errno and reason of each bad one. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "npk.h"
#include "npy.h"

/* A header of this version around a text, as a file has it. malloc()ed. */
static uint8_t *wrap(uint8_t major, const void *text, size_t text_bytes, size_t *bytes)
{
    size_t prefix = major == 1 ? 10 : 12;
    uint8_t *b = calloc(1, prefix + text_bytes + 1);
    memcpy(b, NPK__NPY_MAGIC, 6);
    b[6] = major;
    for (size_t i = 8; i < prefix; i++)
        b[i] = (uint8_t)(text_bytes >> (8 * (i - 8)));
    memcpy(b + prefix, text, text_bytes);
    *bytes = prefix + text_bytes;
    return b;
}

/* Parse a text as a header. The copy is exact, so that a sanitizer sees a read beyond it. */
static int parse(uint8_t major, const char *text, size_t text_bytes, npk_header *h, char *why, size_t why_bytes)
{
    size_t bytes;
    uint8_t *wrapped = wrap(major, text, text_bytes, &bytes), *b = malloc(bytes);
    memcpy(b, wrapped, bytes);
    free(wrapped);
    int err = npk_header_parse(b, bytes, h, why, why_bytes);
    free(b);
    return err;
}

typedef struct good {
    uint8_t major;
    const char *text;
    const char *name;
    uint64_t itemsize;
    uint32_t ndim;
    uint64_t shape[4];
    bool fortran;
    const char *descr;  /* the text that descr_offset points to */
    const char *digits; /* the text that digits_offset points to */
} good;

#define D(descr, shape) "{'descr': " descr ", 'fortran_order': False, 'shape': " shape ", }"

static const good good_table[] = {
    {1, D("'<f4'", "(3, 4)") "          \n", "float32", 4, 2, {3, 4}, false, "'<f4'", "3"},
    {2, D("'<f4'", "(3,)") "\n", "float32", 4, 1, {3}, false, "'<f4'", "3"},
    {3, D("'<f4'", "(3,)") "\n", "float32", 4, 1, {3}, false, "'<f4'", "3"},
    /* quotes, order of keys, commas, blanks, newlines */
    {1, "{\"descr\":\"|u1\",\"fortran_order\":True,\"shape\":(2,3)}", "uint8", 1, 2, {2, 3}, true, "\"|u1\"", "2"},
    {1, "{'shape': (7,), 'fortran_order': False, 'descr': '<i8'}", "int64", 8, 1, {7}, false, "'<i8'", "7"},
    {1, "{'fortran_order': False, 'descr': '<i8', 'shape': (7,),}\n\n\n", "int64", 8, 1, {7}, false, "'<i8'", "7"},
    {1,
     "\n{\n 'descr'\t:\r\n '<i8' ,\f 'fortran_order' : False , 'shape' : ( \n 7 , )\n}\n",
     "int64",
     8,
     1,
     {7},
     false,
     "'<i8'",
     " 7"},
    {1, "  {'descr': '<i8', 'fortran_order': False, 'shape': (7,)}", "int64", 8, 1, {7}, false, "'<i8'", "7"},
    {1,
     "{'descr': '<i8', # note\n 'fortran_order': False, 'shape': (7,)} # }{",
     "int64",
     8,
     1,
     {7},
     false,
     "'<i8'",
     "7"},
    {1, D("u'<i8'", "(7,)"), "int64", 8, 1, {7}, false, "u'<i8'", "7"},
    /* shapes */
    {1, D("'<f8'", "()"), "float64", 8, 0, {0}, false, "'<f8'", ""},
    {1, D("'<f8'", "( )"), "float64", 8, 0, {0}, false, "'<f8'", ""},
    {1, D("'<f8'", "(0,)"), "float64", 8, 1, {0}, false, "'<f8'", "0"},
    {1, D("'<f8'", "(000,)"), "float64", 8, 1, {0}, false, "'<f8'", "000"},
    {1, D("'<f8'", "(3, 0, 5,)"), "float64", 8, 3, {3, 0, 5}, false, "'<f8'", "3"},
    {1, D("'<f8'", "(3L, 4L)"), "float64", 8, 2, {3, 4}, false, "'<f8'", "3"},
    {2, D("'<f8'", "(3 L,)"), "float64", 8, 1, {3}, false, "'<f8'", "3"},
    {1, D("'<f8'", "(        12, 4)"), "float64", 8, 2, {12, 4}, false, "'<f8'", "        12"},
    {1, D("'<f8'", "( \t  12, 4)"), "float64", 8, 2, {12, 4}, false, "'<f8'", "  12"},
    {1, D("'<f8'", "((  12, 4))"), "float64", 8, 2, {12, 4}, false, "'<f8'", "  12"},
    {1,
     D("'|b1'", "(9223372036854775000,)"),
     "bool",
     1,
     1,
     {9223372036854775000u},
     false,
     "'|b1'",
     "9223372036854775000"},
    /* dtypes */
    {1, D("'>f4'", "(3,)"), ">f4", 4, 1, {3}, false, "'>f4'", "3"},
    {1, D("'|S0'", "(3,)"), "S0", 0, 1, {3}, false, "'|S0'", "3"},
    {1, D("'<M8[25s]'", "(3,)"), "datetime64[25s]", 8, 1, {3}, false, "'<M8[25s]'", "3"},
    {1, D("'|O'", "(3,)"), "object", 0, 1, {3}, false, "'|O'", "3"},
    {1,
     D("[('a', '<f4'), ('b', '>i2', (2, 3))]", "(3,)"),
     "[('a', '<f4'), ('b', '>i2', ...",
     16,
     1,
     {3},
     false,
     "[('a', '<f4'), ('b', '>i2', (2, 3))]",
     "3"},
    {3,
     D("[('\xc3\xa9', '<f4')]", "(3,)"),
     "[('?"
     "?', '<f4')]",
     4,
     1,
     {3},
     false,
     "[('\xc3\xa9', '<f4')]",
     "3"},
    {1, D("[('\xe9', '<f4')]", "(3,)"), "[('?', '<f4')]", 4, 1, {3}, false, "[('\xe9', '<f4')]", "3"},
};

static void test_good(void)
{
    for (size_t i = 0; i < sizeof(good_table) / sizeof(*good_table); i++) {
        const good *g = &good_table[i];
        char why[256] = "";
        npk_header h;
        size_t bytes;
        uint8_t *b = wrap(g->major, g->text, strlen(g->text), &bytes);
        unit_note("good %zu: %s", i, g->text);
        if (CHECK_EQ(npk_header_parse(b, bytes, &h, why, sizeof(why)), 0)) {
            CHECK_EQ(h.major, g->major);
            CHECK_EQ(h.minor, 0);
            CHECK_STR(h.dtype.name, g->name);
            CHECK_EQ(h.dtype.itemsize, g->itemsize);
            CHECK_EQ(h.fortran, g->fortran);
            CHECK_EQ(h.data_offset, bytes);
            CHECK_EQ(h.ndim, g->ndim);
            uint64_t rows = 1, row = g->itemsize;
            for (uint32_t d = 0; d < h.ndim; d++) {
                CHECK_EQ(h.shape[d], g->shape[d]);
                *(d == 0 ? &rows : &row) *= g->shape[d];
            }
            CHECK_EQ(h.row_bytes, g->ndim > 0 ? row : 0);
            CHECK_EQ(h.data_bytes, rows * row);
            CHECK_EQ(h.descr_bytes, strlen(g->descr));
            CHECK(memcmp(b + h.descr_offset, g->descr, strlen(g->descr)) == 0);
            CHECK_EQ(h.digits_width, strlen(g->digits));
            CHECK(memcmp(b + h.digits_offset, g->digits, strlen(g->digits)) == 0);
        } else {
            unit_note("good %zu: %s", i, why);
            CHECK(false);
        }
        free(b);
    }
}

typedef struct bad {
    const char *name;
    uint8_t major;
    const char *text;
    int err;
    const char *reason; /* a part of it, with the quoted input */
} bad;

static const bad bad_table[] = {
    {"should-fail-empty", 1, "", -EINVAL, "a dict"},
    {"should-fail-blank", 1, "   \n", -EINVAL, "a dict"},
    {"should-fail-list", 1, "['descr']", -EINVAL, "\"['descr']\" stands"},
    {"should-fail-empty-dict", 1, "{}", -EINVAL, "no key 'descr'"},
    {"should-fail-no-shape", 1, "{'descr': '<f4', 'fortran_order': False}", -EINVAL, "no key 'shape'"},
    {"should-fail-no-order", 1, "{'descr': '<f4', 'shape': (3,)}", -EINVAL, "no key 'fortran_order'"},
    {"should-fail-unknown-key", 1, "{'descr': '<f4', 'color': 1}", -EINVAL, "unknown key 'color'"},
    {"should-fail-double-key", 1, "{'shape': (3,), 'shape': (4,)}", -EINVAL, "'shape' twice"},
    {"should-fail-bytes-key", 1, "{b'descr': '<f4'}", -EINVAL, "\"b'descr': '<"},
    {"should-fail-comma-first", 1, "{,'descr': '<f4'}", -EINVAL, "a string is expected"},
    {"should-fail-no-comma", 1, "{'descr': '<f4' 'shape': (3,)}", -EINVAL, "\",\" or \"}\""},
    {"should-fail-no-colon", 1, "{'descr' '<f4'}", -EINVAL, "\":\" behind a key"},
    {"should-fail-no-brace", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), ", -EINVAL,
     "missing at the end"},
    {"should-fail-rubbish-behind", 1, D("'<f4'", "(3,)") " x", -EINVAL, "\"x\" stands"},
    {"should-fail-second-dict", 1, D("'<f4'", "(3,)") "\n{}", -EINVAL, "nothing more"},
    {"should-fail-indented", 1, "\n " D("'<f4'", "(3,)"), -EINVAL, "indented"},
    {"should-fail-vertical-tab", 1, D("'<f4'", "(3,)") "\v", -EINVAL, "\\x0b"},
    {"should-fail-comment-to-end", 1, "{'descr': # '<f4', 'shape': (3,)}", -EINVAL, "missing at the end"},
    /* fortran_order */
    {"should-fail-order-number", 1, "{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}", -EINVAL, "True or False"},
    {"should-fail-order-word", 1, "{'descr': '<f4', 'fortran_order': Falsely, 'shape': (3,)}", -EINVAL, "Falsely"},
    {"should-fail-order-none", 1, "{'fortran_order': None}", -EINVAL, "None"},
    /* shape */
    {"should-fail-shape-number", 1, D("'<f4'", "(3)"), -EINVAL, "the number 3 instead of the tuple (3,)"},
    {"should-fail-shape-list", 1, D("'<f4'", "[3]"), -EINVAL, "a tuple"},
    {"should-fail-shape-comma", 1, D("'<f4'", "(,)"), -EINVAL, "whole number"},
    {"should-fail-shape-commas", 1, D("'<f4'", "(3,,)"), -EINVAL, "whole number"},
    {"should-fail-shape-blank", 1, D("'<f4'", "(3 4)"), -EINVAL, "\"4), }\" stands"},
    {"should-fail-shape-negative", 1, D("'<f4'", "(-3,)"), -EINVAL, "negative"},
    {"should-fail-shape-second-negative", 1, D("'<f4'", "(3, -1)"), -EINVAL, "negative"},
    {"should-fail-shape-float", 1, D("'<f4'", "(3.0,)"), -EINVAL, "3.0"},
    {"should-fail-shape-exponent", 1, D("'<f4'", "(3e2,)"), -EINVAL, "3e2"},
    {"should-fail-shape-hex", 1, D("'<f4'", "(0x10,)"), -EINVAL, "0x10"},
    {"should-fail-shape-underscore", 1, D("'<f4'", "(1_000,)"), -EINVAL, "1_000"},
    {"should-fail-shape-bool", 1, D("'<f4'", "(True,)"), -EINVAL, "True"},
    {"should-fail-shape-string", 1, D("'<f4'", "('3',)"), -EINVAL, "'3'"},
    {"should-fail-shape-leading-zero", 1, D("'<f4'", "(007,)"), -EINVAL, "007"},
    {"should-fail-shape-small-l", 1, D("'<f4'", "(3l,)"), -EINVAL, "3l"},
    {"should-fail-shape-long-in-v3", 3, D("'<f4'", "(3L,)"), -EINVAL, "3L"},
    {"should-fail-shape-word-behind", 1, D("'<f4'", "(3Lx,)"), -EINVAL, "3Lx"},
    {"should-fail-shape-unbalanced", 1, D("'<f4'", "((3, 4)"), -EINVAL, "\")\" behind the shape"},
    {"should-fail-shape-tuple-in-tuple", 1, D("'<f4'", "((3, 4),)"), -EINVAL, "\")\" behind the shape"},
    {"should-fail-shape-parentheses", 1, D("'<f4'", "((((((((((3,))))))))))"), -EINVAL, "more than 8"},
    {"should-fail-shape-2-to-63", 1, D("'|u1'", "(9223372036854775808,)"), -EOVERFLOW, "9223372036854775808"},
    {"should-fail-shape-2-to-64", 1, D("'|u1'", "(18446744073709551617,)"), -EOVERFLOW, "18446744073709551617"},
    {"should-fail-shape-with-header", 1, D("'|u1'", "(9223372036854775807,)"), -EOVERFLOW, "2^63 - 1"},
    {"should-fail-shape-times-item", 1, D("'<f8'", "(1152921504606846976,)"), -EOVERFLOW, "1152921504606846976"},
    {"should-fail-shape-product", 1, D("'|u1'", "(4294967296, 4294967296)"), -EOVERFLOW, "axis 1"},
    {"should-fail-shape-behind-zero", 1, D("'|u1'", "(0, 4294967296, 4294967296)"), -EOVERFLOW, "axis 2"},
    {"should-fail-shape-no-item", 1, D("'|S0'", "(4294967296, 4294967296)"), -EOVERFLOW, "axis 1"},
    /* strings */
    {"should-fail-string-open", 1, "{'descr", -EINVAL, "\"descr\" at byte 11 does not end"},
    {"should-fail-string-quotes", 1, "{'descr\": '<f4'}", -EINVAL, "unknown key 'descr\": '"},
    {"should-fail-string-newline", 1, "{'de\nscr': '<f4'}", -EINVAL, "\"de\" at byte 11 does not end"},
    {"should-fail-string-escape", 1, "{'de\\xzz': '<f4'}", -EINVAL, "\\xzz"},
    {"should-fail-string-escape-cut", 1, "{'de\\x1", -EINVAL, "no escape"},
    {"should-fail-string-escape-end", 1, "{'de\\", -EINVAL, "no escape"},
    {"should-fail-string-escape-large", 1, "{'de\\U00110000': 1}", -EINVAL, "no escape"},
    {"should-fail-not-utf8", 3, D("[('\xe9', '<f4')]", "(3,)"), -EINVAL, "\\xe9"},
    {"should-fail-utf8-overlong", 3, D("[('\xc0\x80', '<f4')]", "(3,)"), -EINVAL, "\\xc0"},
    {"should-fail-utf8-surrogate", 3, D("[('\xed\xa0\x80', '<f4')]", "(3,)"), -EINVAL, "\\xed"},
    {"should-fail-utf8-cut", 3, D("'<f4'", "(3,)") "\xe2\x82", -EINVAL, "\\xe2"},
    /* descr */
    {"should-fail-descr-unknown", 1, D("'<f3'", "(3,)"), -EINVAL, "'<f3' is no dtype"},
    {"should-fail-descr-empty", 1, D("''", "(3,)"), -EINVAL, "'' is no dtype"},
    {"should-fail-descr-number", 1, D("4", "(3,)"), -EINVAL, "a string is expected"},
    {"should-fail-descr-bytes", 1, D("b'<f4'", "(3,)"), -EINVAL, "b'<f4'"},
    {"should-fail-descr-none", 1, D("None", "(3,)"), -EINVAL, "None"},
    {"should-fail-descr-dict", 1, D("{'names': ['a']}", "(3,)"), -EINVAL, "{'names'"},
    {"should-fail-descr-tuple", 1, D("('<f4', (3,))", "(3,)"), -EINVAL, "a descr"},
    {"should-fail-field-double", 1, D("[('ab', '<f4'), ('ab', '<f4')]", "(3,)"), -EINVAL, "'ab' is used twice"},
    {"should-fail-field-title-double", 1, D("[(('ab', 'ab'), '<f4')]", "(3,)"), -EINVAL, "'ab' is used twice"},
    {"should-fail-field-empty-twice", 1, D("[('', '<f4'), ('', '<f4')]", "(3,)"), -EINVAL, "'' is used twice"},
    {"should-fail-field-number", 1, D("[(5, '<f4')]", "(3,)"), -EINVAL, "a string"},
    {"should-fail-field-alone", 1, D("[('a',)]", "(3,)"), -EINVAL, "a string"},
    {"should-fail-field-bare", 1, D("['<f4']", "(3,)"), -EINVAL, "a field such as"},
    {"should-fail-field-open", 1, D("[('a', '<f4'", "(3,)"), -EINVAL, "a whole number"},
    {"should-fail-field-unclosed", 1, D("[('a', '<f4']", "(3,)"), -EINVAL, "end of a field"},
    {"should-fail-field-negative", 1, D("[('a', '<f4', (-1,))]", "(3,)"), -EINVAL, "whole number"},
    {"should-fail-field-large", 1, D("[('a', '|S65536', (65536,))]", "(3,)"), -EINVAL, "numpy's limit"},
    {"should-fail-field-sum", 1, D("[('a', '|S2000000000'), ('b', '|S2000000000')]", "(3,)"), -EINVAL, "numpy's limit"},
    {"should-fail-item-large", 1, D("'|S2147483648'", "(3,)"), -EINVAL, "'|S2147483648'"},
    {"should-fail-item-wraps", 1, D("'|S18446744073709551617'", "(3,)"), -EINVAL, "'|S18446744073709551617'"},
};

static void test_bad(void)
{
    for (size_t i = 0; i < sizeof(bad_table) / sizeof(*bad_table); i++) {
        const bad *b = &bad_table[i];
        char why[256] = "";
        npk_header h, before;
        memset(&h, 0x5a, sizeof(h));
        memcpy(&before, &h, sizeof(h));
        unit_note("%s: %s", b->name, b->text);
        CHECK_EQ(parse(b->major, b->text, strlen(b->text), &h, why, sizeof(why)), b->err);
        CHECK_HAS(why, b->reason);
        CHECK(memcmp(&h, &before, sizeof(h)) == 0);
        /* The same without a buffer for the reason, and with one that is too short for it. */
        CHECK_EQ(parse(b->major, b->text, strlen(b->text), &h, NULL, 0), b->err);
        memset(why, 'x', sizeof(why) - 1);
        CHECK_EQ(parse(b->major, b->text, strlen(b->text), &h, why, 8), b->err);
        CHECK(strlen(why) < 8 && why[8] == 'x');
    }
}

static void test_zero_byte(void)
{
    static const char text[] = D("'<f4'", "(3,)") "\0\n";
    char why[256];
    npk_header h;
    CHECK_EQ(parse(1, text, sizeof(text) - 1, &h, why, sizeof(why)), -EINVAL);
    CHECK_HAS(why, "zero byte at");
}

/* Every version that numpy does not know. */
static void test_versions(void)
{
    static const char text[] = D("'<f4'", "(3,)");
    for (unsigned major = 0; major < 256; major++)
        for (unsigned minor = 0; minor < 3; minor++) {
            size_t bytes;
            uint8_t *b = wrap(major == 1 ? 1 : 2, text, sizeof(text) - 1, &bytes);
            char why[256] = "", shown[16];
            npk_header h;
            bool known = major >= 1 && major <= 3 && minor == 0;
            b[6] = (uint8_t)major;
            b[7] = (uint8_t)minor;
            (void)snprintf(shown, sizeof(shown), "%u.%u", major, minor);
            unit_note("version %s", shown);
            CHECK_EQ(npk_header_parse(b, bytes, &h, why, sizeof(why)), known ? 0 : -EINVAL);
            if (!known)
                CHECK_HAS(why, shown);
            free(b);
        }
}

/* Every prefix of a header either says how much more is needed or is refused; following it leads to the parse. */
static void test_more_bytes(void)
{
    for (uint8_t major = 1; major <= 3; major++) {
        static const char text[] = D("'<f4'", "(3, 4)") "   \n";
        size_t bytes, steps = 0, have = 0;
        uint8_t *b = wrap(major, text, sizeof(text) - 1, &bytes);
        npk_header h;
        char why[256];
        for (size_t size = 0; size < bytes; size++) {
            uint8_t *exact = malloc(size > 0 ? size : 1);
            memcpy(exact, b, size);
            unit_note("version %d, %zu of %zu bytes", major, size, bytes);
            memset(&h, 0, sizeof(h));
            CHECK_EQ(npk_header_parse(exact, size, &h, why, sizeof(why)), -EAGAIN);
            CHECK(h.data_offset > size && h.data_offset <= bytes);
            if (size >= 12)
                CHECK_EQ(h.data_offset, bytes);
            free(exact);
        }
        int err;
        while ((err = npk_header_parse(b, have, &h, why, sizeof(why))) == -EAGAIN && steps++ < 5)
            have = h.data_offset;
        CHECK_EQ(err, 0);
        CHECK(steps <= 3);
        b[0] ^= 1;
        for (size_t size = 1; size < bytes; size++)
            CHECK_EQ(npk_header_parse(b, size, &h, why, sizeof(why)), -EINVAL);
        CHECK_HAS(why, "\\x92NUMPY");
        free(b);
    }
}

/* A header of `bytes` bytes in all: blanks behind the dict. */
static int parse_long(uint64_t bytes, npk_header *h, char *why, size_t why_bytes)
{
    static const char text[] = D("'<f4'", "(3,)");
    size_t total, text_bytes = bytes - 12;
    char *padded = malloc(text_bytes);
    memset(padded, ' ', text_bytes);
    memcpy(padded, text, sizeof(text) - 1);
    uint8_t *b = wrap(2, padded, text_bytes, &total);
    int err = npk_header_parse(b, total, h, why, why_bytes);
    free(b);
    free(padded);
    return err;
}

static void test_long(void)
{
    npk_header h;
    char why[256];
    CHECK_EQ(parse_long(NPK_MAX_HEADER, &h, why, sizeof(why)), 0);
    CHECK_EQ(h.data_offset, NPK_MAX_HEADER);
    CHECK_EQ(parse_long(NPK_MAX_HEADER + 1, &h, why, sizeof(why)), -E2BIG);
    CHECK_HAS(why, "1048577");
    /* The length alone decides; nothing of such a header is asked for. */
    static const uint8_t huge[] = "\x93NUMPY\x02\x00\xff\xff\xff\xff";
    CHECK_EQ(npk_header_parse(huge, 12, &h, why, sizeof(why)), -E2BIG);
}

/* Lists in lists, parentheses in parentheses and braces by the ten thousand: refused, without a deep stack. */
static void test_bombs(void)
{
    static const char *const starts[] = {
        "{'descr': ",   "{'shape': ",         "{'descr': [('a', ",        "",
        "{'descr': [(", "{'fortran_order': ", "{'descr': [('a', '<f4', ",
    };
    static const char *const units[] = {"[", "(", "{", "[('a', ", "('t', ", "[(('t', 'a'), ", "((", "'", "-", "#\n"};
    for (size_t s = 0; s < sizeof(starts) / sizeof(*starts); s++)
        for (size_t u = 0; u < sizeof(units) / sizeof(*units); u++) {
            size_t n = strlen(starts[s]), unit = strlen(units[u]), times = 500000 / unit;
            char *text = malloc(n + unit * times), why[256] = "";
            memcpy(text, starts[s], n);
            for (size_t i = 0; i < times; i++, n += unit)
                memcpy(text + n, units[u], unit);
            npk_header h;
            unit_note("bomb of \"%s\" behind \"%s\"", units[u], starts[s]);
            CHECK_EQ(parse(2, text, n, &h, why, sizeof(why)), -EINVAL);
            CHECK(why[0] != '\0');
            free(text);
        }
}

/* Nesting up to the limit is read, and one more is not. */
static void test_depth(void)
{
    for (unsigned depth = 1; depth <= 20; depth++) {
        char text[2048], why[256];
        size_t n = (size_t)snprintf(text, sizeof(text), "{'descr': ");
        for (unsigned i = 0; i < depth; i++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "[('a', ");
        n += (size_t)snprintf(text + n, sizeof(text) - n, "'<f4'");
        for (unsigned i = 0; i < depth; i++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, ")]");
        n += (size_t)snprintf(text + n, sizeof(text) - n, ", 'fortran_order': False, 'shape': (3,)}");
        npk_header h;
        unit_note("depth %u", depth);
        if (CHECK_EQ(parse(1, text, n, &h, why, sizeof(why)), depth <= 16 ? 0 : -EINVAL) && depth <= 16)
            CHECK_EQ(h.dtype.itemsize, 4);
    }
}

/* More dimensions than numpy has are refused, as many as it has are read. */
static void test_dimensions(void)
{
    for (int ndim = 60; ndim <= 70; ndim++) {
        char text[1024], why[256];
        size_t n = (size_t)snprintf(text, sizeof(text), "{'descr': '<f4', 'fortran_order': False, 'shape': (");
        for (int i = 0; i < ndim; i++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "1, ");
        n += (size_t)snprintf(text + n, sizeof(text) - n, ")}");
        npk_header h;
        unit_note("%d dimensions", ndim);
        if (CHECK_EQ(parse(1, text, n, &h, why, sizeof(why)), ndim <= 64 ? 0 : -EINVAL) && ndim <= 64)
            CHECK_EQ(h.ndim, ndim);
    }
}

static void test_predicates(void)
{
    static const struct {
        const char *text;
        bool array, rows;
    } cases[] = {
        {D("'<f4'", "(3, 4)"), true, true},
        {D("'<f4'", "(0, 4)"), true, true},
        {D("'<f4'", "(3, 0)"), true, false},
        {D("'<f4'", "()"), true, false},
        {D("'|S0'", "(3,)"), true, false},
        {D("'|O'", "(3,)"), false, false},
        {D("[('a', '<f4'), ('b', [('c', '|O')])]", "(3,)"), false, false},
        {D("[('a', '<f4')]", "(3,)"), true, true},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (3, 4)}", true, false},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (3,)}", true, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        npk_header h;
        unit_note("%s", cases[i].text);
        CHECK_EQ(parse(1, cases[i].text, strlen(cases[i].text), &h, NULL, 0), 0);
        CHECK_EQ(npk_header_is_array(&h), cases[i].array);
        CHECK_EQ(npk_header_is_row_array(&h), cases[i].rows);
    }
}

static void test_format(void)
{
    uint8_t out[512];
    size_t bytes = 0;
    npk_header h;
    static const uint64_t shape[] = {1000, 128};
    CHECK_EQ(npk_header_format("'<f4'", false, shape, 2, out, sizeof(out), &bytes), 0);
    CHECK_EQ(bytes, 128);
    CHECK_EQ(out[127], '\n');
    CHECK(memcmp(out, "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1000, 128), }",
                 72) == 0);
    CHECK_EQ(npk_header_parse(out, bytes, &h, NULL, 0), 0);
    CHECK_EQ(h.data_bytes, 1000 * 128 * 4);
    /* The exact room is enough, a byte less is not. */
    CHECK_EQ(npk_header_format("'<f4'", false, shape, 2, out, 128, &bytes), 0);
    memset(out, 'x', sizeof(out));
    CHECK_EQ(npk_header_format("'<f4'", false, shape, 2, out, 127, &bytes), -E2BIG);
    CHECK_EQ(npk_header_format("'<f4'", false, shape, 2, out, 3, &bytes), -E2BIG);
    CHECK_HAS(npk_error(), "room for 3");
    /* What would be no header is not written as one. */
    CHECK_EQ(npk_header_format("'<f3'", false, shape, 2, out, sizeof(out), &bytes), -EINVAL);
    CHECK_HAS(npk_error(), "'<f3'");
    CHECK_EQ(npk_header_format("'<f4', 'x': 1", false, shape, 2, out, sizeof(out), &bytes), -EINVAL);
    CHECK_EQ(npk_header_format("'<f4'", false, (uint64_t[]){UINT64_MAX}, 1, out, sizeof(out), &bytes), -EOVERFLOW);
    CHECK_EQ(npk_header_format("'<f4'", false, shape, 65, out, sizeof(out), &bytes), -EINVAL);
    CHECK_EQ(npk_header_format("'<f4'", true, shape, 0, out, sizeof(out), &bytes), 0);
    CHECK_EQ(npk_header_parse(out, bytes, &h, NULL, 0), 0);
    CHECK_EQ(h.ndim, 0);
    CHECK_EQ(h.fortran, true);
}

/* A descr that is too long for version 1 makes version 2, one with letters beyond ASCII version 3. */
static void test_format_versions(void)
{
    size_t n = 0, bytes, capacity = 300000;
    char *descr = malloc(capacity);
    uint8_t *out = malloc(capacity);
    npk_header h;
    static const uint64_t shape[] = {5};
    descr[n++] = '[';
    for (int i = 0; i < 8000; i++)
        n += (size_t)snprintf(descr + n, capacity - n, "('x%d', '<f4'), ", i);
    (void)snprintf(descr + n, capacity - n, "]");
    if (CHECK_EQ(npk_header_format(descr, false, shape, 1, out, capacity, &bytes), 0)) {
        CHECK_EQ(npk_header_parse(out, bytes, &h, NULL, 0), 0);
        CHECK_EQ(h.major, 2);
        CHECK_EQ(h.dtype.itemsize, 32000);
        CHECK_EQ(h.data_offset % 64, 0);
    }
    CHECK_EQ(npk_header_format("[('\xc3\xa9', '<f4')]", false, shape, 1, out, capacity, &bytes), 0);
    CHECK_EQ(npk_header_parse(out, bytes, &h, NULL, 0), 0);
    CHECK_EQ(h.major, 3);
    CHECK_EQ(h.data_offset % 64, 0);
    free(descr);
    free(out);
}

int main(void)
{
    RUN(test_good);
    RUN(test_bad);
    RUN(test_zero_byte);
    RUN(test_versions);
    RUN(test_more_bytes);
    RUN(test_long);
    RUN(test_bombs);
    RUN(test_depth);
    RUN(test_dimensions);
    RUN(test_predicates);
    RUN(test_format);
    RUN(test_format_versions);
    return UNIT_RESULT();
}
