/* SPDX-License-Identifier: Apache-2.0 */
/* control_rows.c - the controls that delete rows, show them again, give their space back, and name ranges of them. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compacter.h"
#include "control_table.h"
#include "pkg.h"

int fs_refuse(int err, fs_text *why, const char *line, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fs_text_addf(why, "\"%.60s%s\": %s", line, strlen(line) > 60 ? "..." : "", text);
    return err;
}

/* What the engine said, behind the line. */
static int refuse_said(int err, fs_text *why, const char *line)
{
    return fs_refuse(err, why, line, "%s", *npk_error() ? npk_error() : strerror(-err));
}

/* `gen=N` before the rows. 0: *line is behind it. */
static int take_generation(const char **line, bool *given, uint64_t *generation)
{
    const char *at = *line + strspn(*line, " \t");
    char *end;
    *given = strncmp(at, "gen=", 4) == 0;
    if (!*given)
        return 0;
    errno = 0;
    *generation = strtoull(at + 4, &end, 10);
    if (end == at + 4 || errno || (*end && *end != ' ' && *end != '\t' && *end != ','))
        return -EINVAL;
    *line = end + strspn(end, " \t,");
    return 0;
}

/* ---- drop -------------------------------------------------------------------------------------------------------- */

/* An array as it was numbered when its control was opened. */
typedef struct numbering {
    npk_view *view; /* NULL: nothing was deleted */
    uint64_t rows, inode, generation;
} numbering;

static void forget_rows(void *seen)
{
    numbering *n = seen;
    npk_view_close(&n->view);
    free(n);
}

static int see_rows(fs_state *fs, const char *path, void **seen)
{
    npk_info info;
    int fd = fs_array_open(fs, path, &info); /* rows of a session under way are counted */
    if (fd < 0)
        return fd;
    numbering *n = calloc(1, sizeof *n);
    uint64_t bytes;
    struct stat st;
    int err = n ? fstat(fd, &st) != 0 ? -errno : 0 : -ENOMEM;
    if (!err)
        err = npk_view_open(fs->store, path, fd, &n->view);
    if (!err)
        err = npk_view_shows(fs->store, path, fd, &bytes, &n->generation);
    if (!err) {
        n->inode = st.st_ino;
        n->rows = n->view ? npk_view_rows(n->view) : info.rows;
        if (n->view)
            n->generation = npk_view_generation(n->view);
        *seen = n;
    } else if (n) {
        forget_rows(n);
    }
    npk_info_clear(&info);
    close(fd);
    return err;
}

static int drop_rows(fs_state *fs, const char *path, const numbering *n, const npk_rows *rows)
{
    char *name = fs_array_name(path);
    int err = name ? npk_drop_seen_rows(fs->store, name, rows, n->view, n->inode, NULL) : -ENOMEM;
    free(name);
    if (!err)
        compacter_consider(fs, path);
    return err;
}

static int drop_lines(fs_state *fs, const char *path, void *seen, const char *lines, size_t bytes, fs_text *why)
{
    const numbering *n = seen;
    npk_rows rows = {0};
    int err = 0;
    for (size_t at = 0; at < bytes && !err; at += strlen(lines + at) + 1) {
        const char *line = lines + at;
        bool given;
        uint64_t generation;
        if (line[strspn(line, " \t\r")] == '\0')
            continue;
        err = take_generation(&line, &given, &generation);
        if (err)
            fs_refuse(err, why, line, "is no generation; gen=%" PRIu64 " is what it is now", n->generation);
        else if (given && generation != n->generation)
            err = fs_refuse(-ESTALE, why, line, "generation %" PRIu64 ", and it is %" PRIu64 " by now: rows may be others",
                            generation, n->generation);
        else if (*line && (err = npk_rows_parse(line, strlen(line), n->rows, &rows)) != 0)
            refuse_said(err, why, line);
    }
    if (!err && rows.row_count > 0 && (err = drop_rows(fs, path, n, &rows)) != 0)
        refuse_said(err, why, lines);
    npk_rows_clear(&rows);
    return err;
}

static int drop_npy(fs_state *fs, const char *path, void *seen, const void *file, size_t bytes, fs_text *why)
{
    const numbering *n = seen;
    npk_rows rows = {0};
    int err = npk_rows_parse_npy(file, bytes, n->rows, &rows);
    if (!err)
        err = drop_rows(fs, path, n, &rows);
    if (err)
        fs_text_addf(why, "the .npy file that was written: %s", *npk_error() ? npk_error() : strerror(-err));
    npk_rows_clear(&rows);
    return err;
}

const fs_numbered fs_drop_rows = {see_rows, forget_rows, drop_lines, drop_npy};

/* ---- restore ----------------------------------------------------------------------------------------------------- */

static int put_range(void *ctx, uint64_t start, uint64_t stop)
{
    fs_text_addf(ctx, "%" PRIu64 ":%" PRIu64 "\n", start, stop);
    return 0;
}

int fs_render_restore(fs_state *fs, const char *path, fs_text *out)
{
    char *name = fs_array_name(path);
    int err = name ? npk_deleted_ranges(fs->store, name, put_range, out) : -ENOMEM;
    free(name);
    return err;
}

/* The ranges of a line; *all: every deleted row. `rows`: of the file. */
static int parse_ranges(const char *line, uint64_t rows, bool *all, npk_range **ranges, size_t *count, fs_text *why)
{
    size_t from = strspn(line, " \t\r");
    *ranges = NULL;
    *all = strncmp(line + from, "all", 3) == 0 && line[from + 3 + strspn(line + from + 3, " \t\r")] == '\0';
    if (*all)
        return 0;
    npk_rows chosen = {0};
    npk_rows_cursor cursor = {0};
    uint64_t first, n;
    int err = npk_rows_parse(line, strlen(line), rows, &chosen);
    if (err)
        refuse_said(err, why, line);
    else if (!(*ranges = calloc(chosen.row_count + 1, sizeof **ranges)))
        err = -ENOMEM;
    for (*count = 0; !err && (n = npk_rows_take_range(&chosen, &cursor, UINT64_MAX, &first)) > 0;)
        (*ranges)[(*count)++] = (npk_range){first, first + n};
    npk_rows_clear(&chosen);
    return err;
}

static int restore(fs_state *fs, const char *path, const char *line, bool doing, fs_text *why)
{
    npk_info info;
    npk_range *ranges = NULL;
    size_t count = 0;
    bool all = false, given;
    uint64_t generation = NPK_ANY_GENERATION;
    if (line[strspn(line, " \t\r")] == '\0')
        return 0;
    if (take_generation(&line, &given, &generation))
        return fs_refuse(-EINVAL, why, line, "is no generation; gen= and a number is accepted");
    int fd = fs_array_open(fs, path, &info);
    if (fd < 0)
        return fs_refuse(fd, why, line, "%s", strerror(-fd));
    close(fd);
    int err = parse_ranges(line, info.physical_rows, &all, &ranges, &count, why);
    npk_info_clear(&info);
    char *name = fs_array_name(path);
    if (!err && doing && name && (all || count > 0)) {
        err = npk_restore_rows(fs->store, name, all ? NULL : ranges, count, generation, NULL);
        if (err)
            refuse_said(err, why, line);
    }
    free(name);
    free(ranges);
    return err;
}

int fs_check_restore(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    (void)len;
    return restore(fs, path, line, false, why);
}

int fs_apply_restore(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    (void)len;
    return restore(fs, path, line, true, why);
}

/* ---- compact ----------------------------------------------------------------------------------------------------- */

int fs_render_compact(fs_state *fs, const char *path, fs_text *out)
{
    npk_info info;
    uint64_t done = 0, all = 0, bytes, generation = 0;
    unsigned percent = 0;
    int fd = fs_array_open(fs, path, &info);
    if (fd < 0)
        return fd;
    char *name = fs_array_name(path);
    int err = !name ? -ENOMEM : npk_compact_policy(fs->store, name, &percent);
    if (!err && !fs->pkg)
        err = npk_view_shows(fs->store, path, fd, &bytes, &generation);
    if (!err) {
        bool running = compacter_progress(path, &done, &all);
        fs_text_addf(out, "state\t%s\n", running ? "running" : info.deleted ? "idle" : "clean");
        fs_text_addf(out, "rows\t%" PRIu64 "\ndeleted\t%" PRIu64 "\n", info.rows, info.deleted);
        fs_text_addf(out, "reclaimable\t%" PRIu64 "\n", info.deleted * info.header.row_bytes);
        fs_text_addf(out, "auto\t%u%%\ngeneration\t%" PRIu64 "\n", percent, generation);
        if (running)
            fs_text_addf(out, "done\t%" PRIu64 "\nall\t%" PRIu64 "\n", done, all);
    }
    free(name);
    npk_info_clear(&info);
    close(fd);
    return err;
}

typedef struct compact_order {
    bool now, force, policy;
    unsigned percent;
} compact_order;

/* The line is this word and blanks. */
static bool is_word(const char *line, const char *word)
{
    size_t len = strlen(word);
    return strncmp(line, word, len) == 0 && line[len + strspn(line + len, " \t\r")] == '\0';
}

/* "1", "force", "auto:20%", or nothing. */
static int parse_compact(const char *line, compact_order *o, fs_text *why)
{
    char end = '\0', sign = '\0';
    const char *at = line + strspn(line, " \t\r");
    *o = (compact_order){.force = is_word(at, "force")};
    o->now = o->force || is_word(at, "1");
    o->policy = !o->now && *at;
    if (!o->policy)
        return 0;
    int n = sscanf(at, "auto:%3u%c %c", &o->percent, &sign, &end);
    if (n >= 1 && o->percent <= 100 && (n == 1 || (n == 2 && (sign == '%' || sign == '\r'))))
        return 0;
    return fs_refuse(-EINVAL, why, line, "1 (now), force (now, and you know that no program writes to it) or auto:20%% (as "
                                         "soon as so many rows are deleted) is accepted");
}

int fs_check_compact(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    compact_order o;
    (void)fs, (void)path, (void)len;
    return parse_compact(line, &o, why);
}

int fs_apply_compact(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    compact_order o;
    (void)len;
    int err = parse_compact(line, &o, why);
    char *name = fs_array_name(path);
    if (!err && !name)
        err = -ENOMEM;
    const char *reason;
    if (!err && o.now && (err = compacter_run(fs, path, o.force, &reason)) != 0)
        fs_refuse(err, why, line, "%s", reason);
    if (!err && o.policy && (err = npk_compact_policy_set(fs->store, name, o.percent)) != 0)
        refuse_said(err, why, line);
    if (!err && o.policy)
        compacter_consider(fs, path);
    free(name);
    return err;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static int put_name(void *ctx, const char *range_name, uint64_t start, uint64_t stop)
{
    fs_text_addf(ctx, "%s\t%" PRIu64 "\t%" PRIu64 "\n", range_name, start, stop);
    return 0;
}

int fs_render_names(fs_state *fs, const char *path, fs_text *out)
{
    char *name = fs_array_name(path);
    int err = name ? npk_names(fs->store, name, put_name, out) : -ENOMEM;
    free(name);
    return err;
}

/* A line: the name, which is cut off it at the tab, and its rows; or the name alone, to be removed. */
static int parse_name(fs_state *fs, const char *path, const char *line, char *range, bool *remove, npk_range *rows, fs_text *why)
{
    char more = '\0', *tab = strchr(range, '\t');
    *remove = !tab || !tab[1];
    if (tab)
        *tab = '\0';
    if (*remove)
        return 0;
    if (sscanf(tab + 1, "%" SCNu64 "\t%" SCNu64 " %c", &rows->start, &rows->stop, &more) != 2 || strchr(tab + 1, '-'))
        return fs_refuse(-EINVAL, why, line,
                         "a name, its first row and the row behind its last with tabs between are accepted");
    npk_info info;
    int fd = fs_array_open(fs, path, &info);
    if (fd < 0)
        return fs_refuse(fd, why, line, "%s", strerror(-fd));
    close(fd);
    uint64_t count = info.rows;
    npk_info_clear(&info);
    if (rows->start <= rows->stop && rows->stop <= count)
        return 0;
    return fs_refuse(-ERANGE, why, line, "these rows are outside; 0 to %" PRIu64 " is accepted", count);
}

static int name_rows(fs_state *fs, const char *path, const char *line, bool doing, fs_text *why)
{
    if (line[strspn(line, " \t\r")] == '\0')
        return 0;
    char *name = fs_array_name(path), *range = strdup(line);
    npk_range rows = {0};
    bool remove;
    int err = name && range ? parse_name(fs, path, line, range, &remove, &rows, why) : -ENOMEM;
    if (!err && doing) {
        err = remove ? npk_name_remove(fs->store, name, range) : npk_name_set(fs->store, name, range, rows.start, rows.stop);
        if (err)
            refuse_said(err, why, line);
    }
    free(range);
    free(name);
    return err;
}

int fs_check_names(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    (void)len;
    return name_rows(fs, path, line, false, why);
}

int fs_apply_names(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    (void)len;
    return name_rows(fs, path, line, true, why);
}
