/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.c - see options.h. One table says which -o options there are; parsing, --help and the sentence about an unknown
 * option all read it.
 */
#include "options.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define USAGE "npkfs SOURCE MOUNTPOINT [-o OPTION[,OPTION...]] [-f] [-d]"

#define THREADS_MAX 256
#define TIMEOUT_S_MAX 86400
#define CACHE_MIN (UINT64_C(1) << 20)
#define CACHE_MAX (UINT64_C(1) << 40)

typedef enum option_effect {
    EFFECT_TRUE,    /* the bool at `field` */
    EFFECT_FALSE,
    EFFECT_SWITCH,  /* the bool at `field` becomes the index of the value among `values` */
    EFFECT_CHOICE,  /* the fs_passthrough_choice at `field` does */
    EFFECT_SECONDS, /* the double at `field` */
    EFFECT_COUNT,   /* the unsigned at `field` */
    EFFECT_BYTES,   /* the uint64_t at `field` */
    EFFECT_TEXT,    /* the char * at `field`: a path, in which a backslash stands before a comma */
    EFFECT_KERNEL,  /* goes on to the kernel as it is */
    EFFECT_NONE,    /* for mount(8) and for who reads fstab; nothing to do */
} option_effect;

typedef struct option_row {
    const char *name;
    const char *values; /* what stands after "=": alternatives, or a capital letter for a number; NULL: nothing does */
    option_effect effect;
    size_t field;
    const char *help;   /* NULL: one of the options of mount(8), which manuals list in one place */
} option_row;

#define FIELD(name) offsetof(fs_options, name)

static const option_row option_table[] = {
    {"ro", NULL, EFFECT_TRUE, FIELD(read_only), "refuse every change; the store is not written to at all"},
    {"rw", NULL, EFFECT_FALSE, FIELD(read_only), "allow changes (default)"},
    {"allow_other", NULL, EFFECT_TRUE, FIELD(allow_other),
     "let other users in, as far as the files' modes allow (default for root; others need user_allow_other in "
     "/etc/fuse.conf)"},
    {"noallow_other", NULL, EFFECT_FALSE, FIELD(allow_other), "keep other users out (default for all but root)"},
    {"controls", "hidden|visible", EFFECT_SWITCH, FIELD(controls_visible),
     "whether listings of directories show .npk (default hidden; reachable by name either way)"},
    {"passthrough", "auto|off|on", EFFECT_CHOICE, FIELD(passthrough),
     "whether the kernel reads and writes the files itself: where it can, never, or else do not start (default auto)"},
    {"attr_timeout", "S", EFFECT_SECONDS, FIELD(attr_timeout_s),
     "for how many seconds the kernel may believe names and attributes, 0 to 86400 (default 1)"},
    {"threads", "N", EFFECT_COUNT, FIELD(threads_max), "how many requests are served at once, 1 to 256 (default 16)"},
    {"cache", "BYTES", EFFECT_BYTES, FIELD(cache_bytes),
     "how much decoded data of a package is kept for its readers, such as 256M, 1M to 1T (default 64M)"},
    {"upper", "DIR", EFFECT_TEXT, FIELD(upper),
     "make a package writable: DIR, new or empty at first, keeps what is changed, and the package is never touched"},
    {"inotify", "off|on", EFFECT_SWITCH, FIELD(inotify),
     "whether changes made behind the mount are looked out for with inotify (default on)"},
    {"atomic_save", NULL, EFFECT_TRUE, FIELD(atomic_save),
     "a save over an array is seen when it is closed, and only if it is complete; else it is set aside as "
     "NAME.npy.unfinished and the old array stays"},
    {"nosuid", NULL, EFFECT_KERNEL, 0, NULL},
    {"suid", NULL, EFFECT_KERNEL, 0, NULL},
    {"nodev", NULL, EFFECT_KERNEL, 0, NULL},
    {"dev", NULL, EFFECT_KERNEL, 0, NULL},
    {"noexec", NULL, EFFECT_KERNEL, 0, NULL},
    {"exec", NULL, EFFECT_KERNEL, 0, NULL},
    {"noatime", NULL, EFFECT_KERNEL, 0, NULL},
    {"nodiratime", NULL, EFFECT_KERNEL, 0, NULL},
    {"sync", NULL, EFFECT_KERNEL, 0, NULL},
    {"async", NULL, EFFECT_KERNEL, 0, NULL},
    {"dirsync", NULL, EFFECT_KERNEL, 0, NULL},
    {"atime", NULL, EFFECT_NONE, 0, NULL},
    {"diratime", NULL, EFFECT_NONE, 0, NULL},
    {"relatime", NULL, EFFECT_NONE, 0, NULL},
    {"norelatime", NULL, EFFECT_NONE, 0, NULL},
    {"strictatime", NULL, EFFECT_NONE, 0, NULL},
    {"lazytime", NULL, EFFECT_NONE, 0, NULL},
    {"defaults", NULL, EFFECT_NONE, 0, NULL},
    {"auto", NULL, EFFECT_NONE, 0, NULL},
    {"noauto", NULL, EFFECT_NONE, 0, NULL},
    {"user", NULL, EFFECT_NONE, 0, NULL},
    {"users", NULL, EFFECT_NONE, 0, NULL},
    {"nouser", NULL, EFFECT_NONE, 0, NULL},
    {"owner", NULL, EFFECT_NONE, 0, NULL},
    {"group", NULL, EFFECT_NONE, 0, NULL},
    {"nofail", NULL, EFFECT_NONE, 0, NULL},
    {"_netdev", NULL, EFFECT_NONE, 0, NULL},
};
#define OPTION_COUNT (sizeof option_table / sizeof *option_table)

/* The flags, for --help. */
typedef struct flag_row {
    const char *show; /* as --help shows it */
    const char *help;
} flag_row;

static const flag_row flag_table[] = {
    {"-o OPTION[,OPTION...]", "options, listed below; may be given more than once, the last of two that disagree counts"},
    {"-f, --foreground", "stay in the foreground; messages go to stderr instead of syslog"},
    {"-d, --debug", "show every request on stderr; implies -f"},
    {"-h, --help", "show this and exit"},
    {"-V, --version", "show the version and exit"},
};
#define FLAG_COUNT (sizeof flag_table / sizeof *flag_table)

/* ---- help ---------------------------------------------------------------------------------------------------- */

#define HELP_COLUMN 24
#define HELP_WIDTH 100

/* Print words from the column at which the cursor stands, folding at HELP_WIDTH and going on at `indent`. */
static void print_folded(const char *text, size_t column, size_t indent)
{
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column + word > HELP_WIDTH && column > indent) {
            printf("\n%*s", (int)indent, "");
            column = indent;
        }
        printf("%.*s", (int)word, text);
        column += word;
        text += word;
        if (*text == ' ') {
            text++;
            if (column + 1 + strcspn(text, " ") <= HELP_WIDTH)
                putchar(' ');
            column++;
        }
    }
    putchar('\n');
}

static void print_row(const char *what, const char *help)
{
    int n = printf("  %s", what);
    if (n + 2 > HELP_COLUMN)
        printf("\n%*s", HELP_COLUMN, "");
    else
        printf("%*s", HELP_COLUMN - n, "");
    print_folded(help, HELP_COLUMN, HELP_COLUMN);
}

static void option_name(const option_row *row, char out[64])
{
    snprintf(out, 64, "%s%s%s", row->name, row->values ? "=" : "", row->values ? row->values : "");
}

void fs_options_help(void)
{
    printf("usage: %s\n\n", USAGE);
    print_folded("Shows SOURCE, a directory of .npy files, at MOUNTPOINT as a filesystem whose headers follow what is "
                 "appended. npkfs(8) is the manual; umount MOUNTPOINT or fusermount3 -u MOUNTPOINT ends it.",
                 0, 0);
    printf("\n");
    for (size_t i = 0; i < FLAG_COUNT; i++)
        print_row(flag_table[i].show, flag_table[i].help);
    printf("\nOptions for -o:\n");
    char generic[1024] = "Those of mount(8) are understood too:";
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char name[64];
        option_name(&option_table[i], name);
        if (option_table[i].help) {
            print_row(name, option_table[i].help);
        } else {
            size_t n = strlen(generic);
            snprintf(generic + n, sizeof generic - n, " %s", name);
        }
    }
    printf("\n");
    size_t n = strlen(generic);
    snprintf(generic + n, sizeof generic - n, ", and x-NAME. Called as mount.npkfs or mount.fuse.npkfs, the program "
                                              "takes the flags -f -n -s -v -t as mount(8) means them.");
    print_folded(generic, 0, 0);
}

/* ---- sentences ------------------------------------------------------------------------------------------------ */

static int refuse_unknown(const char *text, size_t bytes)
{
    char accepted[1024] = "";
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char name[64];
        option_name(&option_table[i], name);
        size_t n = strlen(accepted);
        snprintf(accepted + n, sizeof accepted - n, "%s%s", i ? ", " : "", name);
    }
    fprintf(stderr, "npkfs: option \"%.*s\": there is none of this name; accepted are %s, x-NAME\n", (int)bytes, text,
            accepted);
    return -EINVAL;
}

static int refuse_value(const char *text, size_t bytes, const char *accepted)
{
    fprintf(stderr, "npkfs: option \"%.*s\": not a value that it takes; accepted: %s\n", (int)bytes, text, accepted);
    return -EINVAL;
}

static int refuse_usage(const char *what, const char *object)
{
    if (object)
        fprintf(stderr, "npkfs: \"%s\": %s; usage: %s (npkfs --help lists the options)\n", object, what, USAGE);
    else
        fprintf(stderr, "npkfs: %s; usage: %s (npkfs --help lists the options)\n", what, USAGE);
    return -EINVAL;
}

/* ---- values --------------------------------------------------------------------------------------------------- */

/* Which of "a|b|c" is value; -1: none. */
static int index_of_value(const char *values, const char *value, size_t bytes)
{
    for (int i = 0; *values; i++) {
        size_t n = strcspn(values, "|");
        if (n == bytes && memcmp(values, value, n) == 0)
            return i;
        values += n + (values[n] == '|');
    }
    return -1;
}

/* Decimal digits only: no sign, blanks or exponent, whatever the locale. */
static bool parse_count(const char *text, size_t bytes, unsigned *out)
{
    unsigned value = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9' || value > THREADS_MAX)
            return false;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    *out = value;
    return bytes > 0 && value >= 1 && value <= THREADS_MAX;
}

/* Digits and perhaps K, M, G or T. */
static bool parse_bytes(const char *text, size_t bytes, uint64_t *out)
{
    static const char units[] = "KMGT";
    uint64_t value = 0;
    const char *unit = bytes > 1 ? memchr(units, text[bytes - 1], sizeof units - 1) : NULL;
    bytes -= unit != NULL;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9' || value >> 40)
            return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    for (const char *at = units; unit && at <= unit && value >> 40 == 0; at++)
        value <<= 10;
    *out = value;
    return bytes > 0 && value >= CACHE_MIN && value <= CACHE_MAX;
}

static bool parse_seconds(const char *text, size_t bytes, double *out)
{
    double value = 0, unit = 1;
    size_t digits = 0;
    bool point = false;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '.' && !point) {
            point = true;
        } else if (text[i] >= '0' && text[i] <= '9') {
            digits++;
            if (point)
                value += (unit /= 10) * (text[i] - '0');
            else
                value = value * 10 + (text[i] - '0');
        } else {
            return false;
        }
    }
    *out = value;
    return digits > 0 && value <= TIMEOUT_S_MAX;
}

static int add_kernel_option(fs_options *o, const char *name)
{
    size_t before = o->kernel_options ? strlen(o->kernel_options) + 1 : 0;
    char *all = realloc(o->kernel_options, before + strlen(name) + 1);
    if (!all)
        return -ENOMEM;
    if (before)
        all[before - 1] = ',';
    strcpy(all + before, name);
    o->kernel_options = all;
    return 0;
}

static int take_text(char **field, const char *value, size_t bytes)
{
    char *out = malloc(bytes + 1);
    size_t n = 0;
    if (!out)
        return -ENOMEM;
    for (size_t i = 0; i < bytes; i++) {
        if (value[i] == '\\' && i + 1 < bytes && (value[i + 1] == ',' || value[i + 1] == '\\'))
            i++;
        out[n++] = value[i];
    }
    out[n] = '\0';
    free(*field);
    *field = out;
    return 0;
}

/* One option of a list; value NULL: there is no "=". */
static int take_option(fs_options *o, const option_row *row, const char *text, size_t bytes, const char *value)
{
    char *field = (char *)o + row->field;
    size_t value_bytes = value ? bytes - (size_t)(value - text) : 0;
    int index;
    if (!value != !row->values)
        return refuse_value(text, bytes, row->values ? row->values : "no value at all");
    switch (row->effect) {
    case EFFECT_TRUE:
    case EFFECT_FALSE:
        *(bool *)(void *)field = row->effect == EFFECT_TRUE;
        return 0;
    case EFFECT_SWITCH:
    case EFFECT_CHOICE:
        index = index_of_value(row->values, value, value_bytes);
        if (index < 0)
            return refuse_value(text, bytes, row->values);
        if (row->effect == EFFECT_SWITCH)
            *(bool *)(void *)field = index != 0;
        else
            *(fs_passthrough_choice *)(void *)field = (fs_passthrough_choice)index;
        return 0;
    case EFFECT_SECONDS:
        if (!parse_seconds(value, value_bytes, (double *)(void *)field))
            return refuse_value(text, bytes, "seconds from 0 to 86400, such as 1 or 0.5");
        return 0;
    case EFFECT_COUNT:
        if (!parse_count(value, value_bytes, (unsigned *)(void *)field))
            return refuse_value(text, bytes, "a whole number from 1 to 256");
        return 0;
    case EFFECT_BYTES:
        if (!parse_bytes(value, value_bytes, (uint64_t *)(void *)field))
            return refuse_value(text, bytes, "1M to 1T");
        return 0;
    case EFFECT_TEXT:
        if (value_bytes == 0)
            return refuse_value(text, bytes, "a directory");
        return take_text((char **)(void *)field, value, value_bytes);
    case EFFECT_KERNEL:
        return add_kernel_option(o, row->name);
    case EFFECT_NONE:
        return 0;
    }
    return -EINVAL;
}

/* The bytes up to the comma that ends an option; one inside double quotes or behind a backslash ends none. */
static size_t option_bytes(const char *text)
{
    bool quoted = false;
    size_t n = 0;
    for (; text[n]; n++) {
        if (text[n] == '\\' && text[n + 1])
            n++;
        else if (text[n] == '"')
            quoted = !quoted;
        else if (text[n] == ',' && !quoted)
            break;
    }
    return n;
}

static int take_list(fs_options *o, const char *list, bool sloppy)
{
    for (;;) {
        size_t bytes = option_bytes(list);
        size_t name_bytes = 0;
        while (name_bytes < bytes && list[name_bytes] != '=')
            name_bytes++;
        const option_row *row = NULL;
        for (size_t i = 0; i < OPTION_COUNT && !row; i++)
            if (strlen(option_table[i].name) == name_bytes && memcmp(option_table[i].name, list, name_bytes) == 0)
                row = &option_table[i];
        bool ours = bytes > 0 && !(bytes > 2 && (memcmp(list, "x-", 2) == 0 || memcmp(list, "X-", 2) == 0));
        int err = 0;
        if (ours && row)
            err = take_option(o, row, list, bytes, name_bytes < bytes ? list + name_bytes + 1 : NULL);
        else if (ours && !sloppy)
            err = refuse_unknown(list, bytes);
        if (err || !list[bytes])
            return err;
        list += bytes + 1;
    }
}

/* ---- the command line ------------------------------------------------------------------------------------------ */

/* What is left of argv while it is parsed. */
typedef struct arguments {
    int argc, next;
    char **argv;
    bool helper;          /* called by mount(8), whose flags mean something else */
    const char *lists[64]; /* the -o lists, taken after all flags: -s says how to take them */
    size_t list_count;
    bool sloppy;
} arguments;

static bool called_as_helper(const char *argv0)
{
    const char *slash = argv0 ? strrchr(argv0, '/') : NULL;
    const char *name = slash ? slash + 1 : argv0 ? argv0 : "";
    return strncmp(name, "mount.", 6) == 0;
}

/* The value of a flag: the rest of its word, or the next word. */
static const char *flag_value(arguments *a, const char *rest)
{
    if (*rest)
        return rest;
    return a->next < a->argc ? a->argv[a->next++] : NULL;
}

static int add_list(arguments *a, const char *list)
{
    if (!list)
        return refuse_usage("-o is followed by no option", NULL);
    if (a->list_count == sizeof a->lists / sizeof *a->lists)
        return refuse_usage("-o is given more often than 64 times", NULL);
    a->lists[a->list_count++] = list;
    return 0;
}

/* The letters of one word such as "-fd". */
static int take_letters(fs_options *o, arguments *a, const char *word)
{
    for (const char *at = word + 1; *at; at++) {
        switch (*at) {
        case 'o':
            return add_list(a, flag_value(a, at + 1));
        case 'f':
            *(a->helper ? &o->fake : &o->foreground) = true;
            continue;
        case 'd':
            o->debug = o->foreground = true;
            continue;
        case 'h':
            o->help = true;
            continue;
        case 'V':
            o->version = true;
            continue;
        default:
            break;
        }
        if (a->helper && (*at == 'n' || *at == 'v'))
            continue; /* no /etc/mtab is written and little is said anyway */
        if (a->helper && *at == 's') {
            a->sloppy = true;
            continue;
        }
        if (a->helper && *at == 't')
            return flag_value(a, at + 1) ? 0 : refuse_usage("-t is followed by no type", NULL);
        return refuse_usage("there is no such flag", word);
    }
    return 0;
}

static int take_word(fs_options *o, const char *word)
{
    static const char *const words[] = {"--foreground", "--debug", "--help", "--version"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(word, words[i]) != 0)
            continue;
        if (i <= 1)
            o->foreground = true;
        *(i == 0 ? &o->foreground : i == 1 ? &o->debug : i == 2 ? &o->help : &o->version) = true;
        return 0;
    }
    return refuse_usage("there is no such flag", word);
}

/* The daemon leaves the current directory, so the path is made absolute now. It is not resolved: what lies there may be
 * a dead mount, which nothing can be asked about. */
static char *absolute_path(const char *path)
{
    char *out = NULL;
    if (path[0] == '/')
        return strdup(path);
    char *here = getcwd(NULL, 0);
    if (!here || asprintf(&out, "%s/%s", strcmp(here, "/") == 0 ? "" : here, path) < 0)
        out = NULL;
    free(here);
    return out;
}

static int take_place(fs_options *o, const char *word)
{
    if (!*word)
        return refuse_usage(o->source ? "MOUNTPOINT is empty" : "SOURCE is empty", NULL);
    char **place = !o->source ? &o->source : !o->mountpoint ? &o->mountpoint : NULL;
    if (!place)
        return refuse_usage("one argument too many", word);
    *place = place == &o->source ? strdup(word) : absolute_path(word);
    return *place ? 0 : -ENOMEM;
}

static int take_arguments(fs_options *o, arguments *a)
{
    int err = 0;
    bool only_places = false;
    while (!err && a->next < a->argc) {
        const char *word = a->argv[a->next++];
        if (only_places || word[0] != '-' || !word[1])
            err = take_place(o, word);
        else if (strcmp(word, "--") == 0)
            only_places = true;
        else
            err = word[1] == '-' ? take_word(o, word) : take_letters(o, a, word);
    }
    for (size_t i = 0; !err && i < a->list_count; i++)
        err = take_list(o, a->lists[i], a->sloppy);
    if (!err && !o->help && !o->version && !o->mountpoint)
        err = refuse_usage(o->source ? "MOUNTPOINT is missing" : "SOURCE and MOUNTPOINT are missing", NULL);
    return err;
}

int fs_options_parse(int argc, char **argv, fs_options *out)
{
    *out = (fs_options){
        .allow_other = geteuid() == 0,
        .attr_timeout_s = 1.0,
        .threads_max = 16,
        .cache_bytes = UINT64_C(64) << 20,
        .inotify = true,
    };
    arguments a = {.argc = argc, .next = 1, .argv = argv, .helper = called_as_helper(argc > 0 ? argv[0] : NULL)};
    int err = take_arguments(out, &a);
    if (err == -ENOMEM)
        fprintf(stderr, "npkfs: out of memory\n");
    if (err)
        fs_options_clear(out);
    return err ? -EINVAL : 0;
}

void fs_options_clear(fs_options *o)
{
    free(o->source);
    free(o->mountpoint);
    free(o->kernel_options);
    free(o->upper);
    *o = (fs_options){0};
}
