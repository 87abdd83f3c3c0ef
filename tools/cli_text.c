/* SPDX-License-Identifier: Apache-2.0 */
/* cli_text.c - see cli_text.h. */
#include "cli_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

static bool reserve(cli_text *t, size_t more)
{
    if (t->failed)
        return false;
    size_t need;
    if (__builtin_add_overflow(t->bytes, more, &need) || __builtin_add_overflow(need, (size_t)1, &need)) {
        t->failed = true;
        return false;
    }
    if (need <= t->capacity)
        return true;
    size_t capacity = t->capacity < 64 ? 64 : t->capacity;
    while (capacity < need)
        capacity = capacity > SIZE_MAX / 2 ? need : capacity * 2;
    char *data = realloc(t->data, capacity);
    if (data == NULL) {
        t->failed = true;
        return false;
    }
    t->data = data;
    t->capacity = capacity;
    return true;
}

void cli_text_add(cli_text *t, const void *bytes, size_t count)
{
    if (!reserve(t, count))
        return;
    if (count > 0)
        memcpy(t->data + t->bytes, bytes, count);
    t->bytes += count;
    t->data[t->bytes] = '\0';
}

void cli_text_adds(cli_text *t, const char *string)
{
    cli_text_add(t, string, strlen(string));
}

void cli_text_addc(cli_text *t, char c)
{
    cli_text_add(t, &c, 1);
}

void cli_text_addf(cli_text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, fmt, args);
    if (length < 0) {
        t->failed = true;
    } else if (reserve(t, (size_t)length)) {
        vsnprintf(t->data + t->bytes, (size_t)length + 1, fmt, again);
        t->bytes += (size_t)length;
    }
    va_end(again);
    va_end(args);
}

void cli_text_reset(cli_text *t)
{
    t->bytes = 0;
    if (t->data != NULL)
        t->data[0] = '\0';
}

void cli_text_clear(cli_text *t)
{
    free(t->data);
    *t = (cli_text){0};
}

const char *cli_text_string(const cli_text *t)
{
    return t->data != NULL ? t->data : "";
}

size_t cli_utf8_length(const unsigned char *bytes, size_t count, uint32_t *code_point)
{
    if (count == 0)
        return 0;
    unsigned char first = bytes[0];
    size_t length = first < 0x80             ? 1
                    : (first & 0xe0) == 0xc0 ? 2
                    : (first & 0xf0) == 0xe0 ? 3
                    : (first & 0xf8) == 0xf0 ? 4
                                             : 0;
    if (length == 0 || length > count)
        return 0;
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t value = length == 1 ? first : first & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (bytes[i] & 0x3f);
    }
    if (value < smallest[length] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *code_point = value;
    return length;
}

void cli_text_add_code_point(cli_text *t, uint32_t c)
{
    unsigned char out[4];
    size_t length;
    if (c > 0x10ffff) {
        cli_text_addf(t, "\\U%08x", c);
        return;
    }
    if (c >= 0xd800 && c <= 0xdfff) {
        cli_text_addf(t, "\\u%04x", c);
        return;
    }
    if (c < 0x80) {
        out[0] = (unsigned char)c;
        length = 1;
    } else if (c < 0x800) {
        out[0] = (unsigned char)(0xc0 | c >> 6);
        length = 2;
    } else if (c < 0x10000) {
        out[0] = (unsigned char)(0xe0 | c >> 12);
        length = 3;
    } else {
        out[0] = (unsigned char)(0xf0 | c >> 18);
        length = 4;
    }
    for (size_t i = 1; i < length; i++)
        out[i] = (unsigned char)(0x80 | (c >> 6 * (length - 1 - i) & 0x3f));
    cli_text_add(t, out, length);
}

/* What a character is called after a backslash, 0 when it has no such name. */
static char short_escape(unsigned char c)
{
    switch (c) {
    case '\\':
        return '\\';
    case '"':
        return '"';
    case '\t':
        return 't';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    default:
        return 0;
    }
}

static void add_escaped(cli_text *t, const void *bytes, size_t count, bool quotes)
{
    const unsigned char *p = bytes;
    while (count > 0) {
        uint32_t c = 0;
        size_t length = cli_utf8_length(p, count, &c);
        bool shown = length > 0 && c >= 0x20 && !(c >= 0x7f && c < 0xa0) && !(quotes && c == '"');
        if (length == 1 && c != '"' && short_escape(*p) != 0) {
            cli_text_addf(t, "\\%c", short_escape(*p));
        } else if (shown) {
            cli_text_add(t, p, length);
        } else {
            if (length == 0)
                length = 1;
            for (size_t i = 0; i < length; i++)
                cli_text_addf(t, "\\x%02x", p[i]);
        }
        p += length;
        count -= length;
    }
}

void cli_text_add_cell(cli_text *t, const void *bytes, size_t count)
{
    add_escaped(t, bytes, count, true);
}

void cli_text_add_shown(cli_text *t, const void *bytes, size_t count)
{
    add_escaped(t, bytes, count, false);
}

void cli_text_add_json(cli_text *t, const void *bytes, size_t count)
{
    const unsigned char *p = bytes;
    cli_text_addc(t, '"');
    while (count > 0) {
        uint32_t c = 0;
        size_t length = cli_utf8_length(p, count, &c);
        if (length == 0) {
            cli_text_addf(t, "\\udc%02x", *p);
            length = 1;
        } else if (length == 1 && short_escape(*p) != 0) {
            cli_text_addf(t, "\\%c", short_escape(*p));
        } else if (c < 0x20 || c == 0x7f) {
            cli_text_addf(t, "\\u%04x", c);
        } else {
            cli_text_add(t, p, length);
        }
        p += length;
        count -= length;
    }
    cli_text_addc(t, '"');
}

size_t cli_text_columns(const char *string)
{
    const unsigned char *p = (const unsigned char *)string;
    size_t count = strlen(string), columns = 0;
    while (count > 0) {
        uint32_t c = 0;
        size_t length = cli_utf8_length(p, count, &c);
        if (length == 0)
            length = 1;
        int width = wcwidth((wchar_t)c);
        columns += width < 0 ? 1 : (size_t)width;
        p += length;
        count -= length;
    }
    return columns;
}
