/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_pack.c - `npk pack` and `npk unpack`: a store as one file, and back. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "npk.h"
#include "output.h"
#include "progress.h"
#include "say.h"
#include "typed_path.h"

const cli_option cli_pack_options[] = {
    {"level", "N", "of zstd, -7 to 19; without it, chosen for each array"},
    {"frame", "BYTES", "the most that a frame has, such as 64K or 1M (128K)"},
    {"raw", "PATTERN...", "keep these files as they are, so that they are read as fast as plain ones; once for each"},
    {"exclude", "PATTERN...", "leave these files and directories out; once for each"},
    {"force", NULL, "replace P if it exists"},
    {"threads", "N", "workers; without it, as many as there are cores"},
    {NULL, NULL, NULL},
};

const cli_option cli_unpack_options[] = {
    {"rows", "EXPR", "only these rows of the named arrays, such as 0:1000 or ::10"},
    {"threads", "N", "workers; without it, as many as there are cores"},
    {NULL, NULL, NULL},
};

/* ---- being interrupted ------------------------------------------------------------------------------------------ */

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

/* What is half done is taken away before the program ends. */
static void heed_signals(void)
{
    const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a pipe that nobody reads is an error like another */
}

typedef struct watch {
    const char *what;
    cli_progress *bar;
    bool begun;
    uint64_t told;
} watch;

static int show_progress(void *ctx, uint64_t done, uint64_t all)
{
    watch *w = ctx;
    if (!w->begun)
        w->bar = cli_progress_start(w->what, all, -1);
    w->begun = true;
    cli_progress_add(w->bar, done - w->told);
    w->told = done;
    return interrupted != 0;
}

/* ---- options ---------------------------------------------------------------------------------------------------- */

static int read_level(const cli_args *args, int *level)
{
    const char *text = cli_args_value(args, "level");
    char *end;
    if (text == NULL)
        return CLI_OK;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || errno != 0 || n < -7 || n > 19 || n == 0)
        return cli_usage(text, "is no level; -7 to -1 and 1 to 19 are accepted");
    *level = (int)n;
    return CLI_OK;
}

static int read_frame(const cli_args *args, uint64_t *bytes)
{
    const char *text = cli_args_value(args, "frame");
    char *end;
    if (text == NULL)
        return CLI_OK;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    unsigned shift = *end == 'K' ? 10 : *end == 'M' ? 20 : 0;
    end += shift > 0;
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || n > (64u << 20) || (n << shift) > (64u << 20) ||
        (n << shift) < 4096)
        return cli_usage(text, "is no size of a frame; 4K to 64M is accepted");
    *bytes = (uint64_t)n << shift;
    return CLI_OK;
}

static int read_threads(const cli_args *args, unsigned *threads)
{
    unsigned long n = 0;
    int status = cli_args_number(args, "threads", 1, 64, &n);
    *threads = (unsigned)n;
    return status;
}

/* ---- pack ------------------------------------------------------------------------------------------------------- */

static bool is_stream(const char *word)
{
    return strcmp(word, "-") == 0;
}

static int pack(const cli_args *args, const char *const *raw, const char *const *exclude)
{
    watch w = {.what = "pack"};
    npk_pack_options o = {
        .replace = cli_args_has(args, "force"), .raw = raw, .exclude = exclude, .progress = show_progress, .ctx = &w};
    const char *to = args->words[1];
    int status = read_level(args, &o.level);
    if (status == CLI_OK)
        status = read_frame(args, &o.frame_bytes);
    if (status == CLI_OK)
        status = read_threads(args, &o.threads);
    if (status == CLI_OK && is_stream(to) && isatty(STDOUT_FILENO))
        status = cli_fail(NULL, "a package is not for a terminal; a pipe or a file is accepted");
    cli_target t;
    if (status == CLI_OK)
        status = cli_target_open(args->words[0], CLI_TARGET_DIRECTORY, &t);
    if (status != CLI_OK)
        return status;
    heed_signals();
    int err = is_stream(to) ? npk_pack_fd(t.store, STDOUT_FILENO, &o) : npk_pack(t.store, to, &o);
    cli_progress_end(w.bar);
    if (err != 0)
        status = cli_fail_engine(to, err);
    cli_target_close(&t);
    return status;
}

int cli_pack(const cli_args *args)
{
    const char **raw = cli_args_all(args, "raw"), **exclude = cli_args_all(args, "exclude");
    int status = raw != NULL && exclude != NULL ? pack(args, raw, exclude) : cli_fail(NULL, "%s", strerror(ENOMEM));
    free(raw);
    free(exclude);
    return status;
}

/* ---- unpack ----------------------------------------------------------------------------------------------------- */

int cli_unpack(const cli_args *args)
{
    watch w = {.what = "unpack"};
    npk_unpack_options o = {.rows = cli_args_value(args, "rows"), .progress = show_progress, .ctx = &w};
    const char *from = args->words[0], *to = args->words[1];
    const char **names = NULL;
    int status = read_threads(args, &o.threads);
    if (status != CLI_OK)
        return status;
    if (o.rows != NULL && args->word_count < 3)
        return cli_usage(NULL, "--rows says which rows of the arrays that are named; name some");
    if (is_stream(from) && args->word_count > 2)
        return cli_usage(NULL, "from a pipe a package is unpacked whole; a file is accepted with names");
    if (args->word_count > 2) {
        names = calloc(args->word_count - 1, sizeof *names);
        if (names == NULL)
            return cli_fail(NULL, "%s", strerror(ENOMEM));
        for (size_t i = 2; i < args->word_count; i++)
            names[i - 2] = args->words[i];
        o.names = names;
    }
    heed_signals();
    int err = is_stream(from) ? npk_unpack_fd(STDIN_FILENO, to, &o) : npk_unpack(from, to, &o);
    cli_progress_end(w.bar);
    if (err != 0)
        status = cli_fail_engine(to, err);
    free(names);
    return status;
}
