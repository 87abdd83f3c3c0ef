/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "pack_scan.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "io.h"
#include "path.h"
#include "pkg_format.h"
#include "store.h"
#include "walk.h"

static bool matches(const char *const *patterns, const char *path)
{
    const char *slash = strrchr(path, '/');
    for (; *patterns; patterns++)
        if (fnmatch(*patterns, path, 0) == 0 || (slash && fnmatch(*patterns, slash + 1, 0) == 0))
            return true;
    return false;
}

int npk__pattern_match(const char *const *patterns, const char *path)
{
    char part[NPK__PATH_BYTES];
    if (!patterns || !*patterns)
        return 0;
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        memcpy(part, path, (size_t)(slash - path));
        part[slash - path] = '\0';
        if (matches(patterns, part))
            return 1;
    }
    return matches(patterns, path);
}

int npk__found_same(const npk__found *f, const struct stat *st)
{
    return f->inode == st->st_ino && f->bytes == (uint64_t)st->st_size && f->mtime.tv_sec == st->st_mtim.tv_sec &&
           f->mtime.tv_nsec == st->st_mtim.tv_nsec && f->ctime.tv_sec == st->st_ctim.tv_sec &&
           f->ctime.tv_nsec == st->st_ctim.tv_nsec;
}

struct scanning {
    npk__scan *scan;
    const char *const *exclude;
    const struct stat *skip;
    size_t skip_count;
};

static int add(struct scanning *w, const char *path, uint8_t kind, const struct stat *st)
{
    npk__scan *s = w->scan;
    if (npk__path_check(path) != 0) /* the walk gives none of these; a package must not have one */
        return -EINVAL;
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 64;
        npk__found *found = realloc(s->found, capacity * sizeof(*found));
        if (!found)
            return npk__fail(-ENOMEM, "out of memory");
        s->found = found;
        s->capacity = capacity;
    }
    char *copy = strdup(path);
    if (!copy)
        return npk__fail(-ENOMEM, "out of memory");
    s->found[s->count++] = (npk__found){.path = copy,
                                        .kind = kind,
                                        .inode = st->st_ino,
                                        .bytes = (uint64_t)st->st_size,
                                        .mode = st->st_mode & 07777,
                                        .mtime = st->st_mtim,
                                        .ctime = st->st_ctim};
    if (kind == NPK__PKG_FILE)
        s->bytes += (uint64_t)st->st_size;
    return 0;
}

static int scan_entry(void *ctx, int dir_fd, const char *path, const char *leaf, unsigned char type)
{
    struct scanning *w = ctx;
    struct stat st;
    (void)type;
    int err = npk__fstatat(dir_fd, leaf, &st);
    if (err == -ENOENT)
        return 0; /* gone since its name was read */
    if (err)
        return npk__fail_errno(err, path);
    for (size_t i = 0; i < w->skip_count; i++)
        if (w->skip[i].st_ino == st.st_ino && w->skip[i].st_dev == st.st_dev)
            return 0;
    if (npk__pattern_match(w->exclude, path))
        return 0;
    if (S_ISREG(st.st_mode))
        return add(w, path, NPK__PKG_FILE, &st);
    if (S_ISLNK(st.st_mode))
        return add(w, path, NPK__PKG_LINK, &st);
    return npk__fail(-ENOTSUP, "\"%s\": neither a file nor a directory nor a link, so it cannot be packed; leave it out "
                               "with an exclude pattern", path);
}

static int scan_leave(void *ctx, int dir_fd, const char *path)
{
    struct scanning *w = ctx;
    struct stat st;
    int err = npk__fstat(dir_fd, &st);
    if (err)
        return npk__fail_errno(err, path);
    if (*path == '\0') {
        w->scan->root = st;
        return 0;
    }
    return npk__pattern_match(w->exclude, path) ? 0 : add(w, path, NPK__PKG_DIRECTORY, &st);
}

static int compare(const void *a, const void *b)
{
    const npk__found *x = a, *y = b;
    return npk__pkg_order(x->path, strlen(x->path), y->path, strlen(y->path));
}

int npk__scan_store(npk_store *s, const char *const *exclude, const struct stat *skip, size_t skip_count,
                    npk__scan *out)
{
    static const npk_walk_ops ops = {.entry = scan_entry, .leave = scan_leave};
    struct scanning w = {out, exclude, skip, skip_count};
    *out = (npk__scan){0};
    int err = npk__walk(s->root_fd, "", false, &ops, &w);
    if (!err && out->count > 0)
        qsort(out->found, out->count, sizeof(*out->found), compare);
    return err;
}

void npk__scan_clear(npk__scan *scan)
{
    for (size_t i = 0; i < scan->count; i++)
        free(scan->found[i].path);
    free(scan->found);
    *scan = (npk__scan){0};
}
