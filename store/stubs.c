/* SPDX-License-Identifier: Apache-2.0 */
/* Functions of npk.h that are declared and not written yet. Each goes when its own file has it. */
#define _GNU_SOURCE 1

#include <errno.h>

#include "fail.h"
#include "npk.h"

static int not_yet(const char *what)
{
    return npk__fail(-ENOSYS, "\"%s\": this version of the engine cannot do that yet", what);
}

#define STUB(name, ...)                                                                                                \
    npk_err name(__VA_ARGS__)                                                                                          \
    {                                                                                                                  \
        return not_yet(#name);                                                                                         \
    }
#define U __attribute__((unused))

/* Which rows. */
STUB(npk_rows_parse, U const char *text, U size_t bytes, U uint64_t rows, U npk_rows *out)
STUB(npk_rows_parse_npy, U const void *file, U size_t bytes, U uint64_t rows, U npk_rows *out)
STUB(npk_rows_from_indices, U const int64_t *indices, U size_t count, U uint64_t rows, U npk_rows *out)

void npk_rows_clear(U npk_rows *r) {}

size_t npk_rows_take(U const npk_rows *r, U npk_rows_cursor *cursor, U int64_t *out, U size_t max)
{
    return 0;
}

uint64_t npk_rows_take_range(U const npk_rows *r, U npk_rows_cursor *cursor, U uint64_t max, U uint64_t *first)
{
    return 0;
}

/* Whole arrays. */
STUB(npk_clone, U npk_store *s, U const char *from, U const char *to)
STUB(npk_cast, U npk_store *s, U const char *name, U const char *dtype)
STUB(npk_summarize, U npk_store *s, U const char *name, U npk_summary *out, U npk_progress *progress, U void *ctx)
