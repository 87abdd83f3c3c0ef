/* SPDX-License-Identifier: Apache-2.0 */
/* index.c - see index.h. */
#include "index.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "rows_in.h"

/* The engine's sentence becomes the caller's. */
static int said(int err, cli_why *why)
{
    return err != 0 ? cli_why_set(why, err, "%s", npk_error()) : 0;
}

int cli_index_parse(const char *text, size_t bytes, uint64_t rows, npk_rows *out, cli_why *why)
{
    return said(npk_rows_parse(text, bytes, rows, out), why);
}

int cli_index_parse_npy(const void *file, size_t bytes, uint64_t rows, npk_rows *out, cli_why *why)
{
    return said(npk_rows_parse_npy(file, bytes, rows, out), why);
}

int cli_index_parse_lines(const char *text, size_t bytes, uint64_t rows, npk_rows *out, cli_why *why)
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

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

int cli_index_load(const char *argument, uint64_t rows, npk_rows *out, cli_why *why)
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
