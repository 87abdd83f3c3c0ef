/* SPDX-License-Identifier: Apache-2.0 */
/* say.c - see say.h. */
#include "say.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli_text.h"
#include "npk.h"

static const char *the_verb;

void cli_say_verb(const char *verb)
{
    the_verb = verb;
}

int cli_why_set(cli_why *why, int err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(why->text, sizeof why->text, fmt, args);
    va_end(args);
    return err;
}

/* One fprintf per sentence, so that lines of several processes do not mix. */
static void say(const char *object, const char *sentence)
{
    cli_text line = {0};
    cli_text_adds(&line, "npk");
    if (the_verb != NULL)
        cli_text_addf(&line, " %s", the_verb);
    cli_text_adds(&line, ": ");
    if (object != NULL) {
        cli_text_addc(&line, '"');
        cli_text_add_cell(&line, object, strlen(object));
        cli_text_adds(&line, "\": ");
    }
    /* A sentence may quote raw input: controls in it must not reach a terminal. Its own quotes stay as they are. */
    for (const char *p = sentence; *p != '\0';) {
        size_t plain = strcspn(p, "\"\\");
        cli_text_add_cell(&line, p, plain);
        p += plain;
        if (*p != '\0')
            cli_text_addc(&line, *p++);
    }
    fflush(stdout);
    fprintf(stderr, "%s\n", cli_text_string(&line));
    cli_text_clear(&line);
}

static void say_list(const char *object, const char *fmt, va_list args)
{
    char sentence[1024];
    vsnprintf(sentence, sizeof sentence, fmt, args);
    say(object, sentence);
}

int cli_fail(const char *object, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say_list(object, fmt, args);
    va_end(args);
    return CLI_FAILED;
}

int cli_usage(const char *object, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say_list(object, fmt, args);
    va_end(args);
    if (the_verb != NULL)
        fprintf(stderr, "Try `npk help %s'.\n", the_verb);
    else
        fprintf(stderr, "Try `npk help'.\n");
    return CLI_USAGE;
}

int cli_fail_engine(const char *object, int err)
{
    const char *sentence = npk_error();
    if (sentence[0] != '\0')
        say(NULL, sentence);
    else
        say(object, strerror(-err));
    return CLI_FAILED;
}

void cli_note(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say_list(NULL, fmt, args);
    va_end(args);
}
