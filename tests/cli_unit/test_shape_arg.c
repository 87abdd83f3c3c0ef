/* SPDX-License-Identifier: Apache-2.0 */
/* test_shape_arg.c - shapes as people type them. */
#include "shape_arg.h"

#include <errno.h>
#include <string.h>

#include "unit.h"

static void expect(const char *text, const char *wanted)
{
    int64_t shape[NPK_MAX_DIMS];
    uint32_t ndim = 99;
    cli_why why = {""};
    char shown[2048] = "";
    unit_note("%s", text);
    CHECK_EQ(cli_shape_parse(text, shape, &ndim, &why), 0);
    for (uint32_t i = 0; i < ndim && ndim <= NPK_MAX_DIMS; i++)
        sprintf(shown + strlen(shown), "%lld;", (long long)shape[i]);
    CHECK_STR(shown, wanted);
}

static void test_shapes(void)
{
    expect("5", "5;");
    expect("1000,128", "1000;128;");
    expect("(1000, 128)", "1000;128;");
    expect("(5,)", "5;");
    expect("5,", "5;");
    expect("[2, 3 ,4]", "2;3;4;");
    expect("()", "");
    expect("( )", "");
    expect("-1,128", "-1;128;");
    expect("(3, -1)", "3;-1;");
    expect("0,3", "0;3;");
}

static void test_refusals(void)
{
    static const char *const bad[] = {"",      "x",    "1,,2", "(1,2", "1,2)",    "-2",
                                      "-1,-1", "1;2",  "1.5",  "1 2",  "(1,2) 3", "[1)",
                                      ",",     "1,2,", "0x10", "+5",   "-10",     "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t shape[NPK_MAX_DIMS];
        uint32_t ndim;
        cli_why why = {""};
        unit_note("%s", bad[i]);
        CHECK_EQ(cli_shape_parse(bad[i], shape, &ndim, &why), -EINVAL);
        CHECK_HAS(why.text, "is no shape");
    }
    char many[512] = "1";
    for (int i = 0; i < NPK_MAX_DIMS; i++)
        strcat(many, ",1");
    int64_t shape[NPK_MAX_DIMS];
    uint32_t ndim;
    cli_why why = {""};
    CHECK_EQ(cli_shape_parse(many, shape, &ndim, &why), -EINVAL);
    CHECK_HAS(why.text, "64 dimensions");
}

static void test_resolve(void)
{
    uint64_t out[NPK_MAX_DIMS];
    cli_why why;
    CHECK_EQ(cli_shape_resolve((int64_t[]){-1, 4}, 2, 12, out, &why), 0);
    CHECK_EQ(out[0], 3);
    CHECK_EQ(cli_shape_resolve((int64_t[]){3, 4}, 2, 12, out, &why), 0);
    CHECK_EQ(cli_shape_resolve((int64_t[]){3, 4}, 2, 13, out, &why), -EINVAL);
    CHECK_EQ(cli_shape_resolve((int64_t[]){-1, 5}, 2, 12, out, &why), -EINVAL);
    CHECK_EQ(cli_shape_resolve((int64_t[]){-1, 0}, 2, 12, out, &why), -EINVAL);
    CHECK_EQ(cli_shape_resolve((int64_t[]){-1, 0}, 2, 0, out, &why), 0);
    CHECK_EQ(out[0], 0);
    CHECK_EQ(cli_shape_resolve(NULL, 0, 1, out, &why), 0);
    CHECK_EQ(cli_shape_resolve((int64_t[]){3, 4}, 2, UINT64_MAX, out, &why), 0);
    CHECK_EQ(cli_shape_resolve((int64_t[]){-1, 4}, 2, UINT64_MAX, out, &why), -EINVAL);
    CHECK_EQ(cli_shape_resolve((int64_t[]){INT64_MAX, 2}, 2, UINT64_MAX, out, &why), -EOVERFLOW);
}

int main(void)
{
    RUN(test_shapes);
    RUN(test_refusals);
    RUN(test_resolve);
    return UNIT_RESULT();
}
