/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints what the engine reads from headers, for comparison with numpy (tests/oracle/npy_headers.py).
 *
 * Reads requests on stdin, each a line "<what> <bytes> <argument>\n" and so many bytes, and answers each with one line:
 *   parse N x        the bytes as a file: "ok descr=... item=... fortran=... shape=... offset=..." or "errno <reason>"
 *   dtype N x        the bytes as the name of a dtype: "ok <descr> <itemsize>" or "errno"
 *   format N F:3,4   the bytes as a descr, with F or C order and a shape: "ok <hex of the header>" or "errno"
 *   plan N ROWS      the bytes as a file whose rows change: "ok <moves> <offset>:<hex> ..." or "errno"
 *   relayout N ROWS  the bytes as a file: "ok <hex of the longer header>" or "errno"
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digits.h"
#include "npk.h"
#include "npy.h"

static void print_hex(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf("%02x", bytes[i]);
}

/* An error: its number, and the reason without characters that would end the line. */
static void print_error(int err, const char *why)
{
    printf("%d %s\n", err, why);
}

static void answer_parse(const uint8_t *bytes, size_t size)
{
    npk_header h;
    char why[512] = "";
    int err = npk_header_parse(bytes, size, &h, why, sizeof(why));
    if (err != 0) {
        print_error(err, why);
        return;
    }
    printf("ok descr=%" PRIu32 "+%" PRIu32 " item=%" PRIu64 " kind=%d fortran=%d version=%u offset=%" PRIu64
           " row=%" PRIu64 " data=%" PRIu64 " shape=",
           h.descr_offset, h.descr_bytes, h.dtype.itemsize, (int)h.dtype.kind, h.fortran, h.major, h.data_offset,
           h.row_bytes, h.data_bytes);
    for (uint32_t i = 0; i < h.ndim; i++)
        printf(i > 0 ? ",%" PRIu64 : "%" PRIu64, h.shape[i]);
    printf("\n");
}

static void answer_dtype(const uint8_t *bytes, size_t size)
{
    npk_dtype t;
    char descr[64], *text = strndup((const char *)bytes, size);
    int err = npk_dtype_parse(text, &t, descr);
    if (err != 0)
        print_error(err, "");
    else
        printf("ok %s %" PRIu64 " %s\n", descr, t.itemsize, t.name);
    free(text);
}

static void answer_format(const uint8_t *bytes, size_t size, const char *argument)
{
    uint64_t shape[NPK_MAX_DIMS];
    uint32_t ndim = 0;
    char *descr = strndup((const char *)bytes, size), *at = strdup(argument), *rest = at + 2;
    for (char *next; *rest != '\0' && ndim < NPK_MAX_DIMS; rest = *next == ',' ? next + 1 : next)
        shape[ndim++] = strtoull(rest, &next, 10);
    size_t capacity = size + 4096, length;
    uint8_t *out = malloc(capacity);
    int err = npk_header_format(descr, argument[0] == 'F', shape, ndim, out, capacity, &length);
    if (err != 0) {
        print_error(err, npk_error());
    } else {
        printf("ok ");
        print_hex(out, length);
        printf("\n");
    }
    free(out);
    free(at);
    free(descr);
}

static void answer_rows(const char *what, const uint8_t *bytes, size_t size, uint64_t rows)
{
    static npk__digits_plan_t plan;
    npk_header h;
    size_t capacity = size + 192, length;
    uint8_t *out = malloc(capacity);
    int err = npk_header_parse(bytes, size, &h, NULL, 0);
    if (err == 0 && strcmp(what, "plan") == 0)
        err = npk__digits_plan(bytes, size, &h, rows, &plan);
    else if (err == 0)
        err = npk__header_relayout(bytes, size, &h, rows, out, capacity, &length);
    if (err != 0) {
        print_error(err, "");
    } else if (strcmp(what, "plan") == 0) {
        printf("ok %d", plan.moves);
        for (uint32_t i = 0; i < plan.count; i++) {
            printf(" %" PRIu32 ":", plan.steps[i].offset);
            print_hex(plan.steps[i].data, plan.steps[i].bytes);
        }
        printf("\n");
    } else {
        printf("ok ");
        print_hex(out, length);
        printf("\n");
    }
    free(out);
}

int main(void)
{
    char what[16], argument[1024], line[2048];
    size_t size;
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (sscanf(line, "%15s %zu %1023s", what, &size, argument) != 3)
            return 1;
        uint8_t *bytes = malloc(size > 0 ? size : 1);
        if (bytes == NULL || fread(bytes, 1, size, stdin) != size)
            return 1;
        if (strcmp(what, "parse") == 0)
            answer_parse(bytes, size);
        else if (strcmp(what, "dtype") == 0)
            answer_dtype(bytes, size);
        else if (strcmp(what, "format") == 0)
            answer_format(bytes, size, argument);
        else
            answer_rows(what, bytes, size, strtoull(argument, NULL, 10));
        free(bytes);
        fflush(stdout);
    }
    return 0;
}
