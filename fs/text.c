/* SPDX-License-Identifier: Apache-2.0 */
/* text.c - the growing text of control.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "control.h"

/* Once memory ran out `failed` stays set and what is added is lost, so only the end of a chain of additions looks. */
void fs_text_addf(fs_text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = t->failed ? -1 : vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) {
        t->failed = true;
        return;
    }
    size_t wanted = t->bytes + (size_t)n + 1; /* the text is a string too, its NUL not counted in bytes */
    if (wanted > t->capacity) {
        size_t capacity = t->capacity < 64 ? 64 : t->capacity;
        while (capacity < wanted)
            capacity *= 2;
        char *data = realloc(t->data, capacity);
        if (!data) {
            t->failed = true;
            return;
        }
        t->data = data;
        t->capacity = capacity;
    }
    va_start(args, fmt);
    vsnprintf(t->data + t->bytes, (size_t)n + 1, fmt, args);
    va_end(args);
    t->bytes += (size_t)n;
}

void fs_text_clear(fs_text *t)
{
    free(t->data);
    *t = (fs_text){0};
}
