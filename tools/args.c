/* SPDX-License-Identifier: Apache-2.0 */
/* args.c - see args.h. */
#include "args.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "say.h"

const cli_option cli_common_options[] = {
    {"text", NULL, "aligned text for people (the default on a terminal)"},
    {"tsv", NULL, "tab-separated values (the default elsewhere)"},
    {"json", NULL, "JSON"},
    {"header", NULL, "begin TSV with a line of titles"},
    {"help", NULL, "show this help"},
    {NULL, NULL, NULL},
};

const cli_option cli_no_options[] = {{NULL, NULL, NULL}};

const char *cli_option_dashes(const char *name)
{
    return name[1] == '\0' ? "-" : "--";
}

static int find(const cli_option *options, const char *name, size_t length)
{
    for (int i = 0; options[i].name != NULL; i++)
        if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0)
            return i;
    return -1;
}

static void apply_common(cli_args *args, const char *name)
{
    if (strcmp(name, "header") == 0)
        args->header = true;
    else if (strcmp(name, "help") == 0)
        args->help = true;
    else {
        args->format = strcmp(name, "json") == 0 ? CLI_JSON : strcmp(name, "tsv") == 0 ? CLI_TSV : CLI_TEXT;
        args->format_given = true;
    }
}

/* 0, or a status after a sentence: it was given before, and once is enough. */
static int take_value(cli_args *args, int own, const char *value)
{
    const cli_option *option = &args->command->options[own];
    size_t length = strlen(option->value);
    bool several = length > 3 && strcmp(option->value + length - 3, "...") == 0;
    if (args->values[own] != NULL && !several)
        return cli_usage(NULL, "%s%s was given twice; once is accepted", cli_option_dashes(option->name), option->name);
    args->values[own] = value;
    if (several) {
        args->repeated_of[args->repeated_count] = own;
        args->repeated[args->repeated_count++] = value;
    }
    return 0;
}

/* One `--name`, `--name=value` or `--name value`; *i moves over a value that is a word of its own. */
static int read_option(cli_args *args, int argc, char **argv, int *i)
{
    const char *word = argv[*i] + 2;
    const char *equals = strchr(word, '=');
    size_t length = equals != NULL ? (size_t)(equals - word) : strlen(word);
    int common = find(cli_common_options, word, length);
    int own = length > 1 ? find(args->command->options, word, length) : -1;
    if (common < 0 && own < 0)
        return cli_usage(argv[*i], "is no option of %s", args->command->name);
    if (common >= 0 || args->command->options[own].value == NULL) {
        if (equals != NULL)
            return cli_usage(argv[*i], "takes no value; --%.*s alone is accepted", (int)length, word);
        if (common >= 0)
            apply_common(args, cli_common_options[common].name);
        else
            args->values[own] = "";
        return 0;
    }
    const char *value = equals != NULL ? equals + 1 : *i + 1 < argc ? argv[++*i] : NULL;
    if (value == NULL)
        return cli_usage(argv[*i], "needs a value; --%.*s %s is accepted", (int)length, word,
                         args->command->options[own].value);
    return take_value(args, own, value);
}

/* `-k VALUE` or `-kVALUE`, for options whose name is a letter; *i moves over a value that is a word of its own. */
static int read_letter(cli_args *args, int argc, char **argv, int *i)
{
    const char *word = argv[*i];
    int own = find(args->command->options, word + 1, 1);
    if (own < 0)
        return cli_usage(word, "is no option of %s", args->command->name);
    const char *value = word[2] != '\0' ? word + 2 : *i + 1 < argc ? argv[++*i] : NULL;
    if (value == NULL)
        return cli_usage(word, "needs a value; -%c %s is accepted", word[1], args->command->options[own].value);
    return take_value(args, own, value);
}

/* Is it an option, in contrast to a word such as "x", "-", "-1" or "-5:"? */
static bool is_option(const char *word)
{
    return word[0] == '-' && word[1] != '\0' && !(word[1] >= '0' && word[1] <= '9');
}

int cli_args_read(const cli_command *command, int argc, char **argv, cli_args *out)
{
    *out = (cli_args){.command = command, .format = isatty(STDOUT_FILENO) ? CLI_TEXT : CLI_TSV};
    out->words = calloc((size_t)argc + 1, sizeof *out->words);
    out->repeated = calloc((size_t)argc + 1, sizeof *out->repeated);
    out->repeated_of = calloc((size_t)argc + 1, sizeof *out->repeated_of);
    if (out->words == NULL || out->repeated == NULL || out->repeated_of == NULL)
        return cli_fail(NULL, "%s", strerror(ENOMEM));
    bool options_end = false;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (options_end || !is_option(word)) {
            out->words[out->word_count++] = word;
        } else if (strcmp(word, "--") == 0) {
            options_end = true;
        } else if (strcmp(word, "-h") == 0) {
            out->help = true;
        } else {
            int status = word[1] != '-' ? read_letter(out, argc, argv, &i) : read_option(out, argc, argv, &i);
            if (status != 0)
                return status;
        }
    }
    if (out->help)
        return 0;
    if (out->word_count < command->words_min)
        return cli_usage(NULL, "too few words; npk %s %s is accepted", command->name, command->synopsis);
    if (out->word_count > command->words_max)
        return cli_usage(out->words[command->words_max], "is one word too many; npk %s %s is accepted", command->name,
                         command->synopsis);
    return 0;
}

void cli_args_clear(cli_args *args)
{
    free(args->words);
    free(args->repeated);
    free(args->repeated_of);
    args->words = args->repeated = NULL;
    args->repeated_of = NULL;
}

const char *cli_args_value(const cli_args *args, const char *name)
{
    int i = find(args->command->options, name, strlen(name));
    assert(i >= 0);
    return args->values[i];
}

const char **cli_args_all(const cli_args *args, const char *name)
{
    int own = find(args->command->options, name, strlen(name));
    const char **all = calloc(args->repeated_count + 1, sizeof *all);
    assert(own >= 0);
    for (size_t i = 0, n = 0; all != NULL && i < args->repeated_count; i++)
        if (args->repeated_of[i] == own)
            all[n++] = args->repeated[i];
    return all;
}

bool cli_args_has(const cli_args *args, const char *name)
{
    return cli_args_value(args, name) != NULL;
}

int cli_args_number(const cli_args *args, const char *name, unsigned long min, unsigned long max, unsigned long *out)
{
    const char *text = cli_args_value(args, name);
    if (text == NULL)
        return 0;
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value < min || value > max)
        return cli_usage(text, "is no value for %s%s; %lu to %lu is accepted", cli_option_dashes(name), name, min, max);
    *out = value;
    return 0;
}
