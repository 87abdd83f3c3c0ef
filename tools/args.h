/* SPDX-License-Identifier: Apache-2.0 */
/* args.h - reads the words behind a verb. */
#ifndef TOOLS_ARGS_H
#define TOOLS_ARGS_H

#include "command.h"

/* The options that every verb takes. */
extern const cli_option cli_common_options[];

/* Read argv[0..argc) (behind the verb). `-1` and `-5:` are words, not options, since an index may begin so; `--` ends
 * the options. 0; or CLI_USAGE after a sentence. out->words is malloc()ed: cli_args_clear. */
int cli_args_read(const cli_command *command, int argc, char **argv, cli_args *out);
void cli_args_clear(cli_args *args);

/* "-" before a letter, "--" before a word. */
const char *cli_option_dashes(const char *name);
/* The value of an option of the verb's own table: NULL when it was not given, "" for a switch. */
const char *cli_args_value(const cli_args *args, const char *name);
/* All values of an option that may be given several times, ended by NULL; free() the list. NULL without memory. */
const char **cli_args_all(const cli_args *args, const char *name);
bool cli_args_has(const cli_args *args, const char *name);
/* A whole number from min to max; 0 or CLI_USAGE after a sentence. Untouched when the option was not given. */
int cli_args_number(const cli_args *args, const char *name, unsigned long min, unsigned long max, unsigned long *out);

#endif
