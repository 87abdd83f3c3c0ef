/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_help.c - `npk help`: everything that it says comes from the table of verbs. */
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "say.h"

const cli_option cli_help_options[] = {
    {"table", NULL, "verbs and options for completion in shells"},
    {NULL, NULL, NULL},
};

static void show_options(const char *title, const cli_option *options)
{
    if (options[0].name == NULL)
        return;
    printf("\n%s:\n", title);
    for (const cli_option *o = options; o->name != NULL; o++) {
        char left[64];
        snprintf(left, sizeof left, "%s%s%s%s", cli_option_dashes(o->name), o->name, o->value != NULL ? " " : "", o->value != NULL ? o->value : "");
        printf("  %-16s %s\n", left, o->help);
    }
}

static void show_verb(const cli_command *c)
{
    printf("npk %s%s%s\n\n%c%s.\n\n%s", c->name, c->synopsis[0] != '\0' ? " " : "", c->synopsis,
           c->summary[0] - 'a' + 'A', c->summary + 1, c->text);
    show_options("Options", c->options);
    show_options("Every verb", cli_common_options);
}

static void show_all(void)
{
    puts("npk VERB ... - work on a store: a directory of .npy files\n");
    for (const cli_command *c = cli_commands; c->name != NULL; c++)
        printf("  %-8s %s\n", c->name, c->summary);
    puts("\nA path is an array's file, a store's directory, or either of them inside an npkfs mount.\n"
         "Text on a terminal, tab-separated values elsewhere; --text, --tsv and --json say otherwise.\n"
         "Exit status: 0 done, 1 failed, 2 the command line makes no sense.\n"
         "`npk help VERB' and npk(1) tell more; `npk --version' tells the version.");
}

static void show_table(void)
{
    for (const cli_command *c = cli_commands; c->name != NULL; c++) {
        printf("%s\t", c->name);
        for (const cli_option *o = c->options; o->name != NULL; o++)
            printf("%s%s%s ", cli_option_dashes(o->name), o->name, o->value != NULL ? "=" : "");
        for (const cli_option *o = cli_common_options; o->name != NULL; o++)
            printf("--%s%s", o->name, o[1].name != NULL ? " " : "\n");
    }
}

int cli_help(const cli_args *args)
{
    if (args->values[0] != NULL) {
        show_table();
    } else if (args->word_count == 0) {
        show_all();
    } else {
        const cli_command *c = cli_command_find(args->words[0]);
        if (c == NULL)
            return cli_usage(args->words[0], "is no verb");
        show_verb(c);
    }
    return CLI_OK;
}
