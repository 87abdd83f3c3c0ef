/* SPDX-License-Identifier: Apache-2.0 */
/* npkfs(8) and npkfs(5) say of each option and control what the tables in the code say, word for word, and of no others. */
#include <ctype.h>
#include <stdlib.h>
#include <unistd.h>

#include "control.h"
#include "folder.h"
#include "options.h"
#include "unit.h"

#define TEXT_MAX 65536

/* ---- texts -------------------------------------------------------------------------------------------------------- */

/* Blanks and line ends become one blank each. In place. */
static void collapse(char *text)
{
    char *to = text;
    for (char *from = text; *from; from++)
        if (!isspace((unsigned char)*from))
            *to++ = *from;
        else if (to > text && to[-1] != ' ')
            *to++ = ' ';
    *to = '\0';
}

static void read_file(const char *path, char out[TEXT_MAX])
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(out, 1, TEXT_MAX - 1, f) : 0;
    out[n] = '\0';
    if (f)
        fclose(f);
}

/* A manual without its markup: "@" for each .TP, so that entries can be told from prose, and "#" for each section. */
static void read_manual(const char *name, char out[TEXT_MAX])
{
    static char raw[TEXT_MAX];
    char path[4096], *rest = raw, *line;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s", MANUALS, name);
    read_file(path, raw);
    while ((line = strsep(&rest, "\n"))) {
        const char *at = line;
        bool macro = *line == '.';
        if (strncmp(line, ".\\\"", 3) == 0)
            continue;
        if (strcmp(line, ".TP") == 0)
            at = "@";
        else if (strncmp(line, ".SH", 3) == 0)
            at = "#";
        else if (macro)
            at += strcspn(line, " ");
        for (; *at && n < TEXT_MAX - 2; at++) {
            if (at[0] == '\\' && at[1] == 'f')
                at += 2;
            else if (at[0] == '\\' && at[1] == '-')
                continue; /* the hyphen comes next */
            else if (!(macro && *at == '"'))
                out[n++] = *at;
        }
        out[n++] = '\n';
    }
    out[n] = '\0';
    collapse(out);
}

/* The text of one section, by what its first entry or words are: from the "#" before `from` to the next "#". */
static unsigned count_entries(const char *manual, const char *from)
{
    unsigned n = 0;
    const char *at = strstr(manual, from);
    for (; at && *at && *at != '#'; at++)
        n += *at == '@';
    return n;
}

/* ---- options -------------------------------------------------------------------------------------------------------- */

static void read_help(char out[TEXT_MAX])
{
    FILE *capture = tmpfile();
    int old = dup(STDOUT_FILENO);
    fflush(stdout);
    dup2(fileno(capture), STDOUT_FILENO);
    fs_options_help();
    fflush(stdout);
    dup2(old, STDOUT_FILENO);
    close(old);
    rewind(capture);
    out[fread(out, 1, TEXT_MAX - 1, capture)] = '\0';
    fclose(capture);
}

/* Is the next line of the help more of the same row? */
static bool goes_on(const char *line)
{
    return line && line[0] == ' ' && line[1] == ' ' && line[2] == ' ';
}

static void test_options(void)
{
    static char manual[TEXT_MAX], help[TEXT_MAX];
    read_manual("npkfs.8", manual);
    read_help(help);
    unsigned rows = 0;
    char *rest = help, *line;
    while ((line = strsep(&rest, "\n"))) {
        if (line[0] != ' ' || line[1] != ' ' || line[2] == ' ')
            continue;
        char row[2048];
        snprintf(row, sizeof row, "@%s", line + 1);
        while (goes_on(rest)) {
            const char *more = strsep(&rest, "\n");
            strncat(row, more, sizeof row - strlen(row) - 1);
        }
        collapse(row);
        rows++;
        unit_note("npkfs --help: %s", row);
        CHECK(strstr(manual, row) != NULL);
    }
    unit_note("entries under OPTIONS");
    CHECK(rows > 10);
    CHECK_EQ(count_entries(manual, "@ -o OPTION"), rows);
}

/* What mount(8) understands stands in the help as one list, and in the manual as two. */
static void test_generic(void)
{
    static char manual[TEXT_MAX], help[TEXT_MAX];
    read_manual("npkfs.8", manual);
    read_help(help);
    collapse(help);
    char *list = strstr(help, "understood too:"), *section = strstr(manual, "Understood and handed to the kernel");
    if (!CHECK(list != NULL && section != NULL))
        return;
    list += strlen("understood too:");
    *strstr(list, ", and x-NAME") = '\0';
    *strstr(section, "Any other option") = '\0';
    unsigned words = 0;
    for (char *word; (word = strsep(&list, " "));) {
        if (!*word)
            continue;
        unit_note("%s", word);
        words++;
        bool found = false;
        for (const char *end = " ,."; *end && !found; end++) {
            char in_manual[64];
            snprintf(in_manual, sizeof in_manual, " %s%c", word, *end);
            found = strstr(section, in_manual) != NULL;
        }
        CHECK(found);
    }
    CHECK(words > 20);
}

/* ---- controls ------------------------------------------------------------------------------------------------------- */

static void test_controls(void)
{
    static char manual[TEXT_MAX];
    static const char *const first[] = {"@ shape", "@ version"};
    read_manual("npkfs.5", manual);
    for (int scope = FS_CONTROL_ARRAY; scope <= FS_CONTROL_MOUNT; scope++) {
        const fs_control *c;
        unsigned count = 0;
        for (; (c = fs_control_at((fs_control_scope)scope, count)); count++) {
            char entry[1024];
            snprintf(entry, sizeof entry, "@ %s %s", c->name, c->help);
            unit_note("%s", entry);
            CHECK(strstr(manual, entry) != NULL);
            snprintf(entry, sizeof entry, "user.npk.%s", c->name);
            if (scope == FS_CONTROL_ARRAY)
                CHECK_EQ(strstr(manual, entry) != NULL, c->xattr);
        }
        unit_note("entries from %s", first[scope]);
        CHECK_EQ(count_entries(manual, first[scope]), count);
    }
}

static void test_folders(void)
{
    static char manual[TEXT_MAX];
    const fs_folder *f;
    read_manual("npkfs.5", manual);
    for (size_t i = 0; (f = fs_folder_at(i)); i++) {
        char entry[1024];
        snprintf(entry, sizeof entry, "@ %s/ %s", f->name, f->help);
        unit_note("%s", entry);
        CHECK(strstr(manual, entry) != NULL);
        CHECK(fs_folder_find(f->name) == f);
    }
}

int main(void)
{
    RUN(test_options);
    RUN(test_generic);
    RUN(test_controls);
    RUN(test_folders);
    return UNIT_RESULT();
}
