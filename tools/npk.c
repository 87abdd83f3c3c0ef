/* SPDX-License-Identifier: Apache-2.0 */
/* npk.c - the command line of npkfs: from the first word to a verb. */
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "npk.h"
#include "output.h"
#include "say.h"

static int run_command(const cli_command *command, int argc, char **argv)
{
    cli_args args;
    cli_say_verb(command->name);
    int status = cli_args_read(command, argc, argv, &args);
    if (status == CLI_OK && args.help) {
        /* `npk VERB --help` is `npk help VERB`. */
        const char *word = command->name;
        cli_args help = {.command = cli_command_find("help"), .words = &word, .word_count = 1};
        status = cli_help(&help);
    } else if (status == CLI_OK) {
        status = command->run(&args);
    }
    cli_args_clear(&args);
    int flushed = cli_output_flush();
    return status != CLI_OK ? status : flushed;
}

int main(int argc, char **argv)
{
    /* Only the width of characters follows the user's language: numbers are always written the same way. */
    setlocale(LC_CTYPE, "");
    if (argc < 2) {
        cli_usage(NULL, "a verb is missing");
        return CLI_USAGE;
    }
    const char *verb = argv[1];
    if (strcmp(verb, "--version") == 0 && argc == 2) {
        printf("npk %s\n", NPK_VERSION);
        return cli_output_flush();
    }
    if (strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0)
        verb = "help";
    const cli_command *command = cli_command_find(verb);
    if (command == NULL)
        return cli_usage(verb, "is no verb");
    return run_command(command, argc - 2, argv + 2);
}
