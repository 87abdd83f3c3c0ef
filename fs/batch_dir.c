/* SPDX-License-Identifier: Apache-2.0 */
/* batch_dir.c - listings below `.npk/batch`: what the store has, what the batch has added, less what it has removed. */
#include "batch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loop.h"
#include "ops.h"

static struct fuse_lowlevel_ops next;

/* A snapshot, taken at opendir. The offset of an entry is its number, plus one. */
typedef struct listing {
    fs_handle head;
    char **names; /* the first character is the type: 'd' or 'f' */
    size_t count, capacity;
    bool failed;
    const char *below; /* while it is made: the directory's path */
} listing;

static char **find(const listing *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->names[i] + 1, name) == 0)
            return &l->names[i];
    return NULL;
}

static void add(listing *l, char type, const char *name, size_t bytes)
{
    if (l->count == l->capacity) {
        size_t capacity = l->capacity * 2 + 32;
        char **names = realloc(l->names, capacity * sizeof *names);
        if (!names) {
            l->failed = true;
            return;
        }
        l->names = names;
        l->capacity = capacity;
    }
    char *entry = malloc(bytes + 2);
    if (!entry) {
        l->failed = true;
        return;
    }
    entry[0] = type;
    memcpy(entry + 1, name, bytes);
    entry[bytes + 1] = '\0';
    l->names[l->count++] = entry;
}

static void free_listing(listing *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->names[i]);
    free(l->names);
    free(l);
}

/* What a batch did to an array below this directory. */
static int apply_change(void *ctx, const char *name, npk_batch_change change)
{
    listing *l = ctx;
    size_t n = strlen(l->below);
    char leaf[264];
    if (n && (strncmp(name, l->below, n) != 0 || name[n] != '/'))
        return 0;
    const char *rest = name + n + (n > 0), *slash = strchr(rest, '/');
    size_t bytes = slash ? (size_t)(slash - rest) : strlen(rest);
    if (change == NPK_BATCH_READ || bytes > 250)
        return 0;
    memcpy(leaf, rest, bytes);
    strcpy(leaf + bytes, slash ? "" : ".npy");
    char **there = find(l, leaf);
    if (change == NPK_BATCH_REMOVED && !slash && there) {
        free(*there);
        *there = l->names[--l->count];
    } else if (change != NPK_BATCH_REMOVED && !there) {
        add(l, slash ? 'd' : 'f', leaf, strlen(leaf));
    }
    return 0;
}

static bool is_shown(const struct dirent *e, int dir, char *type)
{
    struct stat st;
    size_t n = strlen(e->d_name);
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || is_reserved_name(e->d_name) ||
        fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return false;
    *type = S_ISDIR(st.st_mode) ? 'd' : 'f';
    return S_ISDIR(st.st_mode) || (S_ISREG(st.st_mode) && n > 4 && strcmp(e->d_name + n - 4, ".npy") == 0);
}

static void list_store(fs_state *fs, const char *path, listing *l)
{
    char type;
    int fd = npk_open_beneath(fs->store, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    for (struct dirent *e; d && (e = readdir(d));)
        if (is_shown(e, fd, &type))
            add(l, type, e->d_name, strlen(e->d_name));
    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
}

static int list_dir(fs_state *fs, const char *id, const char *path, listing *l)
{
    fs_batch *b;
    int err = fs_batch_get(fs, id, &b);
    if (err)
        return err;
    list_store(fs, path, l);
    l->below = path;
    err = npk_batch_each(b->batch, apply_change, l);
    size_t n = strlen(path);
    for (size_t i = 0; i < b->dir_count && !err; i++) {
        const char *dir = b->dirs[i], *slash = strrchr(dir, '/'), *leaf = slash ? slash + 1 : dir;
        size_t above = slash ? (size_t)(slash - dir) : 0;
        if (above == n && strncmp(dir, path, n) == 0 && !find(l, leaf))
            add(l, 'd', leaf, strlen(leaf));
    }
    fs_batch_put(fs, b);
    return err;
}

static int list_one_batch(void *ctx, const npk_batch_info *info)
{
    if (!info->damaged && !info->expired)
        add(ctx, 'd', info->id, strlen(info->id));
    return 0;
}

static int make_listing(fs_state *fs, fs_node *n, listing *l)
{
    char id[256], path[4096];
    add(l, 'd', ".", 1);
    add(l, 'd', "..", 2);
    int err = 0;
    if (n->kind == NODE_BATCHES)
        err = npk_batch_list(fs->store, list_one_batch, l);
    else if (n->kind == NODE_BATCH_CONTROL)
        add(l, 'f', "state", 5);
    else if (n->kind == NODE_BATCH_DIR && (err = fs_batch_place(fs, n, id, path)) == 0)
        err = list_dir(fs, id, path, l);
    return err ? err : l->failed ? -ENOMEM : 0;
}

static void route_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    if (n->kind < NODE_BATCHES) {
        next.opendir(req, ino, fi);
        return;
    }
    loop_yield(fs);
    listing *l = calloc(1, sizeof *l);
    int err = l ? make_listing(fs, n, l) : -ENOMEM;
    fi->fh = (uint64_t)(uintptr_t)l;
    if (err)
        fuse_reply_err(req, -err);
    if ((err || fuse_reply_open(req, fi) != 0) && l)
        free_listing(l);
}

static void reply_entries(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi, bool plus)
{
    const listing *l = (listing *)handle_of(fi);
    char *out = malloc(size);
    size_t used = 0;
    for (size_t i = offset < 0 ? l->count : (size_t)offset; out && i < l->count; i++) {
        struct stat st = {.st_ino = 1, .st_mode = l->names[i][0] == 'd' ? S_IFDIR : S_IFREG};
        struct fuse_entry_param e = {.attr = st}; /* node id 0: nothing was looked up */
        size_t n = plus ? fuse_add_direntry_plus(req, out + used, size - used, l->names[i] + 1, &e, (off_t)i + 1)
                        : fuse_add_direntry(req, out + used, size - used, l->names[i] + 1, &st, (off_t)i + 1);
        if (n > size - used)
            break;
        used += n;
    }
    if (out)
        fuse_reply_buf(req, out, used);
    else
        fuse_reply_err(req, ENOMEM);
    free(out);
}

static void route_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    if (node_of(fs_of(req), ino)->kind < NODE_BATCHES)
        next.readdir(req, ino, size, offset, fi);
    else
        reply_entries(req, size, offset, fi, false);
}

static void route_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    if (node_of(fs_of(req), ino)->kind < NODE_BATCHES)
        next.readdirplus(req, ino, size, offset, fi);
    else
        reply_entries(req, size, offset, fi, true);
}

static void route_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (node_of(fs_of(req), ino)->kind < NODE_BATCHES) {
        next.releasedir(req, ino, fi);
        return;
    }
    free_listing((listing *)handle_of(fi));
    fuse_reply_err(req, 0);
}

void fs_batch_route_dirs(struct fuse_lowlevel_ops *ops)
{
    next = *ops;
    ops->opendir = route_opendir;
    ops->readdir = route_readdir;
    ops->readdirplus = route_readdirplus;
    ops->releasedir = route_releasedir;
}
