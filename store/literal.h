/* SPDX-License-Identifier: Apache-2.0 */
/*
 * literal.h - a reader of Python literals, as far as headers of .npy files need them.
 *
 * A header is the text of a Python dict. What numpy, and every library that writes the format, puts there is read:
 * strings in either quote, whole numbers in decimal, True, False, None, blanks, newlines and comments between them.
 * What Python reads besides and nobody writes there is refused: joined strings, triple quotes, 0x10, 1_000, +1.
 *
 * Pure: no I/O, no allocation. Reasons go to the buffer that the reader was made with.
 */
#ifndef NPK_LITERAL_H
#define NPK_LITERAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct npk__literal {
    const uint8_t *base; /* the file's first byte, from which offsets in reasons are counted */
    const uint8_t *at;   /* the next character */
    const uint8_t *end;
    bool long_suffix; /* "3L", as Python 2 wrote it, is a number (format versions 1 and 2) */
    char *why;        /* may be NULL */
    size_t why_bytes;
} npk__literal;

/* A piece of the text: a string without its quotes, the digits of a number. */
typedef struct npk__span {
    const uint8_t *text;
    size_t bytes;
} npk__span;

/* A piece of text made fit for a sentence: at most 40 characters, the unprintable ones as "\x00". */
typedef struct npk__shown {
    char text[48];
} npk__shown;
npk__shown npk__span_shown(npk__span s);

bool npk__span_is(npk__span s, const char *text);

/* Write the reason (unless there is no buffer) and return err. */
int npk__literal_fail(const npk__literal *l, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4), cold));
/* The same for "expected <what> at byte N, found <the text there>": -EINVAL. */
int npk__literal_expected(const npk__literal *l, const char *what) __attribute__((cold));

/* Skip blanks, newlines and comments. */
void npk__literal_blank(npk__literal *l);
/* Skip what is blank, then say whether the next character is c, and take it if so. */
bool npk__literal_take(npk__literal *l, char c);
/* Skip what is blank, then the next character without taking it; 0 at the end. */
char npk__literal_peek(npk__literal *l);
/* A word (True, False, None), if it stands here as a word of its own. */
bool npk__literal_word(npk__literal *l, const char *word);

/* A string in either quote, with an optional u before it. Escapes are checked and stay as they are in *out. */
int npk__literal_string(npk__literal *l, npk__span *out);
/* A whole number >= 0 in decimal. Leading zeros only if all digits are (as in Python 3). -EOVERFLOW: above 2^63 - 1.
 * *digits (may be NULL) is the number's text without the L. */
int npk__literal_whole(npk__literal *l, uint64_t *out, npk__span *digits);

#endif
