/* SPDX-License-Identifier: Apache-2.0 */
/*
 * say.h - how the command line says what went wrong: `npk VERB: "object": what is wrong; what is accepted`, on stderr.
 * Functions that parse or read fill a cli_why and return a negative errno; only the verbs print.
 */
#ifndef TOOLS_SAY_H
#define TOOLS_SAY_H

/* The exit statuses of the program. */
enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* One sentence that says why; cut when it does not fit. */
typedef struct cli_why {
    char text[768];
} cli_why;

/* Set the sentence and return err. */
int cli_why_set(cli_why *why, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4), cold));

/* The verb that sentences begin with; a static string. NULL: none yet. */
void cli_say_verb(const char *verb);

/* Print a sentence. object is quoted and escaped; NULL leaves it out. Returns CLI_FAILED. */
int cli_fail(const char *object, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));
/* The same for a command line that makes no sense: adds where help is. Returns CLI_USAGE. */
int cli_usage(const char *object, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));
/* Print what the engine said about its last failure; err stands in when it said nothing. Returns CLI_FAILED. */
int cli_fail_engine(const char *object, int err) __attribute__((cold));
/* Print something that is no failure. */
void cli_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
