/* SPDX-License-Identifier: Apache-2.0 */
/* control_whole.c - the controls that read a whole array: a copy of it, another dtype for it, and what its values are. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control_table.h"

/* ---- clone --------------------------------------------------------------------------------------------------------- */

int fs_render_clone(fs_state *fs, const char *path, fs_text *out)
{
    (void)fs, (void)path, (void)out;
    return 0;
}

/* The name in a line, without blanks around it and without the suffix; malloc()ed, "" for an empty line. */
static char *name_in(const char *line)
{
    line += strspn(line, " \t");
    size_t bytes = strlen(line);
    while (bytes > 0 && strchr(" \t\r", line[bytes - 1]))
        bytes--;
    char *text = strndup(line, bytes), *name = text ? fs_array_name(text) : NULL;
    free(text);
    return name;
}

int fs_check_clone(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    (void)path, (void)len;
    char *name = name_in(line);
    bool there = false;
    int err = !name ? -ENOMEM : !*name ? 0 : npk_exists(fs->store, name, &there);
    if (err && name)
        fs_refuse(err, why, line, "%s", npk_error());
    else if (there)
        err = fs_refuse(-EEXIST, why, line, "exists already; a new name is accepted");
    free(name);
    return err;
}

int fs_apply_clone(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    (void)len;
    char *from = fs_array_name(path), *to = name_in(line);
    int err = !from || !to ? -ENOMEM : !*to ? 0 : npk_clone(fs->store, from, to);
    if (err)
        fs_refuse(err, why, line, "%s", *npk_error() ? npk_error() : strerror(-err));
    free(from);
    free(to);
    return err;
}

/* ---- cast ---------------------------------------------------------------------------------------------------------- */

static int cast(fs_state *fs, const char *path, const char *line, unsigned flags, fs_text *why)
{
    line += strspn(line, " \t\r");
    char *name = fs_array_name(path), *dtype = strndup(line, strcspn(line, " \t\r"));
    int err = !name || !dtype ? -ENOMEM : 0;
    if (!err && line[strlen(dtype) + strspn(line + strlen(dtype), " \t\r")])
        err = fs_refuse(-EINVAL, why, line, "one dtype is accepted, such as float32");
    else if (!err && *dtype && (err = npk_cast(fs->store, name, dtype, flags, NULL, NULL)) != 0)
        fs_refuse(err, why, line, "%s", *npk_error() ? npk_error() : strerror(-err));
    free(dtype);
    free(name);
    return err;
}

int fs_check_cast(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    (void)len;
    return cast(fs, path, line, NPK_CAST_CHECK, why);
}

int fs_apply_cast(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    (void)len;
    return cast(fs, path, line, 0, why);
}

/* ---- summary --------------------------------------------------------------------------------------------------------- */

static void add_real(fs_text *out, const char *key, double value)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) { /* the fewest that give the number back */
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value || value != value)
            break;
    }
    fs_text_addf(out, "%s\t%s\n", key, value != value ? "nan" : text);
}

int fs_render_summary(fs_state *fs, const char *path, fs_text *out)
{
    npk_summary s;
    char *name = fs_array_name(path);
    int err = name ? npk_summarize(fs->store, name, &s, NULL, NULL) : -ENOMEM;
    free(name);
    if (err) {
        fs_note_failure(fs, path, npk_error());
        return err;
    }
    fs_text_addf(out, "count\t%" PRIu64 "\n", s.count);
    if (s.exact && s.count > 0 && s.dtype.kind == NPK_KIND_INT) {
        fs_text_addf(out, "min\t%" PRId64 "\nmax\t%" PRId64 "\n", s.min_int, s.max_int);
    } else if (s.exact && s.count > 0) {
        fs_text_addf(out, "min\t%" PRIu64 "\nmax\t%" PRIu64 "\n", s.min_uint, s.max_uint);
    } else {
        add_real(out, "min", s.min);
        add_real(out, "max", s.max);
    }
    add_real(out, "mean", s.mean);
    add_real(out, "std", s.std);
    fs_text_addf(out, "nans\t%" PRIu64 "\nzeros\t%" PRIu64 "\n", s.nans, s.zeros);
    return 0;
}
