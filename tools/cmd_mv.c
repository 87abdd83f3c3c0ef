/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_mv.c - `npk mv`: another name for an array of the same store; `npk clone`: a copy of it under another name.
 *
 * Any directory is a store, so two paths alone do not say which store they share. It is the directory of one of them
 * when that holds the other, a directory above both that has been used as a store (it has a sidecar folder), or what
 * --store says; the deepest common directory is not taken on trust, since a lock would be made in it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "args.h"
#include "mounted.h"
#include "output.h"
#include "package.h"
#include "say.h"
#include "typed_path.h"

const cli_option cli_mv_options[] = {
    {"store", "DIR", "the store that holds both, where the paths do not tell"},
    {NULL, NULL, NULL},
};

/* Both ends as absolute paths without symlinks: directory and what is below it. */
typedef struct ends {
    char *from, *to; /* "/S/train/x.npy" */
    char *root;      /* "/S" */
} ends;

/* The real path of a file that need not exist, in a directory that need not exist either. */
static char *real_path(const char *dir, const char *name)
{
    char *real = realpath(dir, NULL), *path = NULL;
    if (real != NULL && asprintf(&path, "%s/%s.npy", strcmp(real, "/") == 0 ? "" : real, name) < 0)
        path = NULL;
    free(real);
    return path;
}

/* Is `path` below the directory? */
static bool is_below(const char *path, const char *dir)
{
    size_t length = strlen(dir);
    return strncmp(path, dir, length) == 0 && path[length] == '/';
}

static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? strndup(path, (size_t)(slash - path)) : NULL;
}

static bool has_sidecar(const char *dir)
{
    char *path;
    struct stat st;
    if (asprintf(&path, "%s/.npkfs", dir) < 0)
        return false;
    bool found = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    free(path);
    return found;
}

/* Find the store that both are in; NULL when nothing says which. */
static char *common_store(const char *from, const char *to)
{
    char *dir = parent_of(from);
    for (bool first = true; dir != NULL && dir[0] != '\0'; first = false) {
        char *to_dir = parent_of(to);
        bool holds = is_below(to, dir);
        bool own = holds && (first || (to_dir != NULL && strcmp(to_dir, dir) == 0) || has_sidecar(dir));
        free(to_dir);
        if (own)
            return dir;
        char *up = parent_of(dir);
        free(dir);
        dir = up;
    }
    free(dir);
    return NULL;
}

static int find_ends(const cli_args *args, const cli_target *from, ends *e)
{
    const char *typed = args->words[1];
    struct stat st;
    cli_target to = {0};
    e->from = real_path(from->dir, from->name);
    if (stat(typed, &st) == 0 && S_ISDIR(st.st_mode)) {
        const char *leaf = strrchr(from->name, '/');
        e->to = real_path(typed, leaf != NULL ? leaf + 1 : from->name);
    } else {
        int status = cli_target_open_new(typed, &to);
        if (status != CLI_OK)
            return status;
        e->to = real_path(to.dir, to.name);
        cli_target_close(&to);
    }
    const char *store = cli_args_value(args, "store");
    if (e->from == NULL || e->to == NULL)
        return cli_fail(typed, "%s", strerror(errno));
    e->root = store != NULL ? realpath(store, NULL) : common_store(e->from, e->to);
    if (store != NULL && e->root == NULL)
        return cli_fail(store, "%s", strerror(errno));
    if (e->root == NULL)
        return cli_fail(typed,
                        "is not in the directory of \"%s\" nor in a group of it, and no directory above both is known "
                        "as a store; --store DIR says which one is meant",
                        args->words[0]);
    if (is_below(e->from, e->root) && is_below(e->to, e->root))
        return CLI_OK;
    return cli_fail(store, "does not hold both; the directory of a store above both is accepted");
}

/* "/S/train/x.npy" in the store "/S" is the array "train/x". */
static char *name_in(const char *path, const char *root)
{
    const char *rest = path + strlen(root) + 1;
    return strndup(rest, strlen(rest) - strlen(".npy"));
}

typedef npk_err two_names(npk_store *s, const char *from, const char *to);

static int act_in_store(const cli_args *args, const ends *e, two_names *act)
{
    npk_store *store = NULL;
    char *from = name_in(e->from, e->root), *to = name_in(e->to, e->root);
    int err = from == NULL || to == NULL ? -ENOMEM : npk_store_open(e->root, 0, &store);
    int status = CLI_OK;
    if (err == 0)
        err = act(store, from, to);
    if (err == -EEXIST)
        status = cli_fail(e->to, "exists already; a new name is accepted");
    else if (err != 0)
        status = cli_fail_engine(args->words[0], err);
    if (status == CLI_OK && args->format_given) {
        static const cli_column columns[] = {{"store", "store", false}, {"from", "from", false}, {"to", "to", false}};
        cli_table *record = cli_record_new(args, columns, 3);
        cli_table_string(record, e->root);
        cli_table_string(record, from);
        cli_table_string(record, to);
        status = cli_table_end(record);
    }
    npk_store_close(&store);
    free(from);
    free(to);
    return status;
}

static int on_two_names(const cli_args *args, bool clone)
{
    cli_target from;
    int status = cli_target_open(args->words[0], CLI_TARGET_ARRAY | (clone ? 0 : CLI_TARGET_WRITE), &from);
    if (status != CLI_OK)
        return status;
    if (cli_is_package(from.dir)) { /* a copy, since else it is refused by now */
        cli_target_close(&from);
        return cli_fail(args->words[0], "is in a package, and a clone is of an array in the same store; npk unpack, or npk get "
                                        "--npy FILE, takes it out");
    }
    ends e = {0};
    status = find_ends(args, &from, &e);
    if (status == CLI_OK && from.mounted && clone)
        status = cli_fail(args->words[0], "the store behind this mount is not for you to open; cp makes a copy there");
    else if (status == CLI_OK)
        status = from.mounted ? cli_mounted_rename(e.from, e.to)
                              : act_in_store(args, &e, clone ? npk_clone : npk_rename);
    free(e.from);
    free(e.to);
    free(e.root);
    cli_target_close(&from);
    return status;
}

int cli_mv(const cli_args *args)
{
    return on_two_names(args, false);
}

int cli_clone(const cli_args *args)
{
    return on_two_names(args, true);
}
