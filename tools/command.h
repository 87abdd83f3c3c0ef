/* SPDX-License-Identifier: Apache-2.0 */
/* command.h - what a verb is, and every verb there is: one table drives dispatch, help and completion. */
#ifndef TOOLS_COMMAND_H
#define TOOLS_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#define CLI_MAX_OPTIONS 12 /* per verb */
#define CLI_ANY_WORDS   ((size_t)-1)

/* `--name` or `--name VALUE`; `-n VALUE` where the name is a letter. A table of them ends with a NULL name. */
typedef struct cli_option {
    const char *name;
    const char *value; /* what its value is called; NULL: a switch; with "..." behind it: may be given several times */
    const char *help;
} cli_option;

typedef enum cli_format {
    CLI_TEXT, /* aligned, for people */
    CLI_TSV,  /* one line per thing, no title unless asked for */
    CLI_JSON,
} cli_format;

struct cli_command;

/* A command line that has been read; words and values point into argv. */
typedef struct cli_args {
    const struct cli_command *command;
    const char *values[CLI_MAX_OPTIONS]; /* as command->options; a switch that was given has "" */
    const char **words;                  /* what is no option */
    size_t word_count;
    const char **repeated; /* values of options that may be given several times, in order */
    int *repeated_of;      /* and which option each is of */
    size_t repeated_count;
    cli_format format;
    bool format_given;
    bool header; /* TSV begins with a line of titles */
    bool help;
} cli_args;

typedef struct cli_command {
    const char *name;
    const char *synopsis; /* without "npk NAME" */
    const char *summary;  /* one line, for the list of verbs */
    const char *text;     /* paragraphs, for its own help */
    const cli_option *options;
    size_t words_min, words_max;
    int (*run)(const cli_args *args); /* the program's exit status */
} cli_command;

/* The verbs, ended by a NULL name. */
extern const cli_command cli_commands[];
const cli_command *cli_command_find(const char *name);

extern const cli_option cli_ls_options[], cli_info_options[], cli_get_options[], cli_create_options[],
    cli_append_options[], cli_drop_options[], cli_replace_options[], cli_mv_options[], cli_check_options[], cli_reset_options[],
    cli_bench_options[], cli_search_options[], cli_help_options[], cli_pack_options[], cli_unpack_options[],
    cli_compact_options[], cli_cast_options[], cli_no_options[];

int cli_ls(const cli_args *args);
int cli_info(const cli_args *args);
int cli_get(const cli_args *args);
int cli_create(const cli_args *args);
int cli_append(const cli_args *args);
int cli_batch(const cli_args *args);
int cli_replace(const cli_args *args);
int cli_reshape(const cli_args *args);
int cli_cast(const cli_args *args);
int cli_mv(const cli_args *args);
int cli_drop(const cli_args *args);
int cli_restore(const cli_args *args);
int cli_compact(const cli_args *args);
int cli_names(const cli_args *args);
int cli_clone(const cli_args *args);
int cli_summary(const cli_args *args);
int cli_check(const cli_args *args);
int cli_sync(const cli_args *args);
int cli_reset(const cli_args *args);
int cli_search(const cli_args *args);
int cli_bench(const cli_args *args);
int cli_pack(const cli_args *args);
int cli_unpack(const cli_args *args);
int cli_help(const cli_args *args);

#endif
