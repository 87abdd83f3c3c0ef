/* SPDX-License-Identifier: Apache-2.0 */
#include "literal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(uint8_t c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Characters that make a longer word of the one before them; bytes above 127 may be letters of an identifier. */
static bool is_word(uint8_t c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

npk__shown npk__span_shown(npk__span s)
{
    npk__shown out;
    size_t n = 0;
    for (size_t i = 0; i < s.bytes; i++) {
        uint8_t c = s.text[i];
        bool printable = c >= 0x20 && c < 0x7f;
        /* 40 characters and "..." fit; one that does not leaves room for the dots. */
        if (n + (printable ? 1 : 4) > 40) {
            memcpy(out.text + n, "...", 3);
            n += 3;
            break;
        }
        if (printable)
            out.text[n++] = (char)c;
        else
            n += (size_t)snprintf(out.text + n, 5, "\\x%02x", c);
    }
    out.text[n] = '\0';
    return out;
}

bool npk__span_is(npk__span s, const char *text)
{
    size_t n = strlen(text);
    return s.bytes == n && memcmp(s.text, text, n) == 0;
}

int npk__literal_fail(const npk__literal *l, int err, const char *fmt, ...)
{
    if (l->why != NULL && l->why_bytes > 0) {
        va_list args;
        va_start(args, fmt);
        (void)vsnprintf(l->why, l->why_bytes, fmt, args);
        va_end(args);
    }
    return err;
}

int npk__literal_expected(const npk__literal *l, const char *what)
{
    size_t offset = (size_t)(l->at - l->base);
    if (l->at == l->end)
        return npk__literal_fail(l, -EINVAL, "%s is missing at the end of the header (byte %zu)", what, offset);
    size_t rest = (size_t)(l->end - l->at);
    npk__span found = {l->at, rest < 12 ? rest : 12};
    return npk__literal_fail(l, -EINVAL, "%s is expected at byte %zu, where \"%s\" stands", what, offset,
                             npk__span_shown(found).text);
}

void npk__literal_blank(npk__literal *l)
{
    for (; l->at < l->end; l->at++) {
        uint8_t c = *l->at;
        if (c == '#') {
            while (l->at + 1 < l->end && l->at[1] != '\n' && l->at[1] != '\r')
                l->at++;
        } else if (c != ' ' && c != '\t' && c != '\n' && c != '\r' && c != '\f') {
            return;
        }
    }
}

char npk__literal_peek(npk__literal *l)
{
    npk__literal_blank(l);
    return l->at < l->end ? (char)*l->at : '\0';
}

bool npk__literal_take(npk__literal *l, char c)
{
    npk__literal_blank(l);
    if (l->at == l->end || *l->at != (uint8_t)c)
        return false;
    l->at++;
    return true;
}

bool npk__literal_word(npk__literal *l, const char *word)
{
    npk__literal_blank(l);
    size_t n = strlen(word), rest = (size_t)(l->end - l->at);
    if (rest < n || memcmp(l->at, word, n) != 0 || (rest > n && is_word(l->at[n])))
        return false;
    l->at += n;
    return true;
}

/* How many characters the escape at `at` (a backslash) takes; 0 if Python would refuse it. */
static size_t escape_bytes(const uint8_t *at, const uint8_t *end)
{
    if (end - at < 2)
        return 0;
    size_t hex = at[1] == 'x' ? 2 : at[1] == 'u' ? 4 : at[1] == 'U' ? 8 : 0;
    /* \N{...} needs the table of Unicode names to be told right from wrong. */
    if (at[1] == 'N' || (size_t)(end - at) < 2 + hex)
        return 0;
    uint32_t code = 0;
    for (size_t i = 0; i < hex; i++) {
        uint8_t c = at[2 + i];
        if (!is_hex(c))
            return 0;
        code = code * 16 + (is_digit(c) ? (uint32_t)(c - '0') : (uint32_t)((c | 0x20) - 'a' + 10));
    }
    if (code > 0x10ffff)
        return 0;
    /* A backslash before "\r\n" continues the line after both. */
    if (at[1] == '\r' && end - at > 2 && at[2] == '\n')
        return 3;
    return 2 + hex;
}

int npk__literal_string(npk__literal *l, npk__span *out)
{
    npk__literal_blank(l);
    const uint8_t *at = l->at;
    if (l->end - at > 1 && (*at == 'u' || *at == 'U'))
        at++;
    if (at == l->end || (*at != '\'' && *at != '"'))
        return npk__literal_expected(l, "a string");
    uint8_t quote = *at++;
    const uint8_t *start = at;
    while (at < l->end && *at != quote) {
        if (*at == '\n' || *at == '\r')
            break;
        if (*at == '\\') {
            size_t n = escape_bytes(at, l->end);
            if (n == 0) {
                size_t rest = (size_t)(l->end - at);
                return npk__literal_fail(l, -EINVAL, "\"%s\" at byte %zu is no escape of a Python string",
                                         npk__span_shown((npk__span){at, rest < 10 ? rest : 10}).text,
                                         (size_t)(at - l->base));
            }
            at += n;
        } else {
            at++;
        }
    }
    if (at == l->end || *at != quote)
        return npk__literal_fail(l, -EINVAL, "the string \"%s\" at byte %zu does not end",
                                 npk__span_shown((npk__span){start, (size_t)(at - start)}).text,
                                 (size_t)(l->at - l->base));
    out->text = start;
    out->bytes = (size_t)(at - start);
    l->at = at + 1;
    return 0;
}

/* Take the L of a Python 2 number; numpy drops it also when blanks stand before it. */
static void take_long_suffix(npk__literal *l)
{
    const uint8_t *at = l->at;
    while (at < l->end && (*at == ' ' || *at == '\t' || *at == '\f'))
        at++;
    if (at < l->end && *at == 'L' && (at + 1 == l->end || !is_word(at[1])))
        l->at = at + 1;
}

int npk__literal_whole(npk__literal *l, uint64_t *out, npk__span *digits)
{
    npk__literal_blank(l);
    const uint8_t *start = l->at, *at = start;
    uint64_t value = 0;
    bool overflow = false;
    for (; at < l->end && is_digit(*at); at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > ((uint64_t)INT64_MAX - digit) / 10)
            overflow = true;
        else
            value = value * 10 + digit;
    }
    npk__span text = {start, (size_t)(at - start)};
    if (text.bytes == 0)
        return npk__literal_expected(l, "a whole number");
    if (overflow)
        return npk__literal_fail(l, -EOVERFLOW, "the number %s at byte %zu is beyond 2^63 - 1",
                                 npk__span_shown(text).text, (size_t)(start - l->base));
    if (*start == '0' && value != 0)
        return npk__literal_fail(l, -EINVAL, "the number %s at byte %zu has a leading zero", npk__span_shown(text).text,
                                 (size_t)(start - l->base));
    l->at = at;
    if (l->long_suffix)
        take_long_suffix(l);
    if (l->at < l->end && (is_word(*l->at) || *l->at == '.')) {
        l->at = start;
        return npk__literal_expected(l, "a whole number in plain decimal digits");
    }
    if (digits != NULL)
        *digits = text;
    *out = value;
    return 0;
}
