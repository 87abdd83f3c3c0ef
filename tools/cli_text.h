/* SPDX-License-Identifier: Apache-2.0 */
/* cli_text.h - a growing text, and the escapes by which bytes from a store become safe to show. */
#ifndef TOOLS_CLI_TEXT_H
#define TOOLS_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-initialised is empty. data is NUL-terminated once anything was added. When memory runs out `failed` stays set
 * and what is added is lost, so that only the end of a long chain needs a check. */
typedef struct cli_text {
    char *data;
    size_t bytes, capacity;
    bool failed;
} cli_text;

void cli_text_add(cli_text *t, const void *bytes, size_t count);
void cli_text_adds(cli_text *t, const char *string);
void cli_text_addc(cli_text *t, char c);
void cli_text_addf(cli_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Forget the content, keep the memory. */
void cli_text_reset(cli_text *t);
/* Forget both. */
void cli_text_clear(cli_text *t);
/* The content as a string; "" when nothing was added. Valid until the text changes. */
const char *cli_text_string(const cli_text *t);

/* Length of the UTF-8 character at bytes[0..count), 0 if it is none (overlong, surrogate, cut, beyond U+10FFFF). */
size_t cli_utf8_length(const unsigned char *bytes, size_t count, uint32_t *code_point);
/* Add a code point as UTF-8. Surrogates and what is beyond Unicode are added as \uXXXX and \UXXXXXXXX. */
void cli_text_add_code_point(cli_text *t, uint32_t code_point);

/* Add bytes so that they are one valid, printable UTF-8 cell of a TSV line: backslash, tab, newline and return as \\ \t
 * \n \r, quotes (which spreadsheets take for their own), other controls (C1 as well) and bytes that are not UTF-8 as
 * \xNN. `printf %b` of bash undoes it. */
void cli_text_add_cell(cli_text *t, const void *bytes, size_t count);
/* The same for people: quotes stay as they are. */
void cli_text_add_shown(cli_text *t, const void *bytes, size_t count);
/* Add bytes as a JSON string with its quotes. A byte that is not UTF-8 becomes the lone surrogate \udcNN, as Python's
 * surrogateescape has it, so that os.fsencode() gives the name back. */
void cli_text_add_json(cli_text *t, const void *bytes, size_t count);
/* Columns that a valid UTF-8 string takes on a terminal. */
size_t cli_text_columns(const char *string);

#endif
