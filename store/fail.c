/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "npk.h"

static _Thread_local char sentence[NPK__SENTENCE_BYTES];

const char *npk_error(void)
{
    return sentence;
}

int npk__fail(int err, const char *fmt, ...)
{
    char text[NPK__SENTENCE_BYTES]; /* the arguments may point into the old sentence */
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (n < 0)
        return err;
    if ((size_t)n >= sizeof(text))
        memcpy(text + sizeof(text) - 4, "...", 4);
    memcpy(sentence, text, sizeof(sentence) <= (size_t)n ? sizeof(sentence) : (size_t)n + 1);
    return err;
}

int npk__fail_errno(int err, const char *what)
{
    char text[128];
    /* The GNU strerror_r returns the text, which need not be in the buffer. */
    return npk__fail(err, "\"%s\": %s", what, strerror_r(-err, text, sizeof(text)));
}
