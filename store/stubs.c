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

/* Whole arrays. */
STUB(npk_cast, U npk_store *s, U const char *name, U const char *dtype)
