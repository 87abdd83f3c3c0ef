/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pkg_folder.c - folders among the controls of an array in a package (`slices/`, `search/`; folder.h). See pkg.h.
 *
 * Their files have names that no index knows, so these are the only nodes that are kept: from the lookup that found one to
 * the forget that ends it. What is written is questions, in memory; the package is read-only.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "folder.h"
#include "loop.h"
#include "pkg.h"

#define BUCKETS 256

struct pkg_named {
    pkg_named *next; /* of the bucket */
    uint64_t entry, lookups;
    const fs_folder *folder;
    char name[];
};

struct pkg_names {
    pthread_mutex_t lock; /* protects all below; a leaf */
    pkg_named *buckets[BUCKETS];
};

int pkg_names_new(struct fs_pkg *p)
{
    p->names = calloc(1, sizeof *p->names);
    if (!p->names)
        return -ENOMEM;
    pthread_mutex_init(&p->names->lock, NULL);
    return 0;
}

void pkg_names_free(struct fs_pkg *p)
{
    if (!p->names)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        for (pkg_named *n = p->names->buckets[i], *after; n; n = after) {
            after = n->next;
            free(n);
        }
    pthread_mutex_destroy(&p->names->lock);
    free(p->names);
    p->names = NULL;
}

static pkg_named **bucket_of(struct pkg_names *t, uint64_t entry, const fs_folder *folder, const char *name)
{
    uint64_t h = 0xcbf29ce484222325ull ^ entry ^ (uintptr_t)folder;
    for (const unsigned char *p = (const unsigned char *)name; *p; p++)
        h = (h ^ *p) * 0x100000001b3ull;
    return &t->buckets[(h ^ h >> 32) % BUCKETS];
}

/* The node of this name, looked up once more. NULL: no memory. */
static pkg_named *look_up(fs_state *fs, uint64_t entry, const fs_folder *folder, const char *name)
{
    struct pkg_names *t = fs->pkg->names;
    pthread_mutex_lock(&t->lock);
    pkg_named **bucket = bucket_of(t, entry, folder, name), *n = *bucket;
    while (n && (n->entry != entry || n->folder != folder || strcmp(n->name, name) != 0))
        n = n->next;
    if (!n && (n = malloc(sizeof *n + strlen(name) + 1))) {
        *n = (pkg_named){.next = *bucket, .entry = entry, .folder = folder};
        strcpy(n->name, name);
        *bucket = n;
    }
    if (n)
        n->lookups++;
    pthread_mutex_unlock(&t->lock);
    return n;
}

void pkg_folder_forget(fs_state *fs, fuse_ino_t ino, uint64_t count)
{
    struct pkg_names *t = fs->pkg->names;
    pkg_node n;
    if (!pkg_node_of(fs, ino, &n) || n.kind != PKG_FOLDER_FILE)
        return;
    pthread_mutex_lock(&t->lock);
    n.named->lookups -= count < n.named->lookups ? count : n.named->lookups;
    if (n.named->lookups == 0) {
        pkg_named **at = bucket_of(t, n.named->entry, n.named->folder, n.named->name);
        while (*at != n.named)
            at = &(*at)->next;
        *at = n.named->next;
        free(n.named);
    }
    pthread_mutex_unlock(&t->lock);
}

const char *pkg_named_of(const pkg_named *named, uint64_t *entry, const fs_folder **folder)
{
    *entry = named->entry;
    *folder = named->folder;
    return named->name;
}

/* ---- names --------------------------------------------------------------------------------------------------------- */

static int stat_named(fs_state *fs, const pkg_node *n, const char *name, struct stat *st)
{
    fs_folder_entry e;
    char *path = pkg_path(fs, n);
    int err = path ? n->folder->find(fs, path, name, &e) : -ENOMEM;
    free(path);
    if (err)
        return err;
    mode_t readable = st->st_mode & 0444;
    st->st_mode = S_IFREG | readable | (e.writable ? readable >> 1 : 0);
    st->st_size = (off_t)e.bytes;
    st->st_blocks = 0;
    return 0;
}

int pkg_folder_stat(fs_state *fs, const pkg_node *n, struct stat *st)
{
    mode_t readable = st->st_mode & 0444;
    if (n->kind == PKG_FOLDER_FILE)
        return stat_named(fs, n, n->named->name, st);
    st->st_mode = S_IFDIR | readable | readable >> 1 | readable >> 2; /* who may read may ask */
    return 0;
}

int pkg_folder_child(fs_state *fs, const pkg_node *dir, const char *name, pkg_node *out)
{
    struct stat st = {0};
    loop_yield_if_asked(fs);
    int err = strlen(name) > 255 ? -ENAMETOOLONG : stat_named(fs, dir, name, &st);
    if (err)
        return err;
    *out = (pkg_node){.kind = PKG_FOLDER_FILE, .entry = dir->entry, .folder = dir->folder};
    out->named = look_up(fs, dir->entry, dir->folder, name);
    return out->named ? 0 : -ENOMEM;
}

void pkg_folder_list(fs_state *fs, const pkg_node *dir, fs_folder_add *add, void *ctx)
{
    char *path = pkg_path(fs, dir);
    if (path)
        dir->folder->list(fs, path, add, ctx);
    free(path);
}

void pkg_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_node dir;
    int err = -EROFS;
    if (pkg_node_of(fs, parent, &dir) && dir.kind == PKG_FOLDER) {
        loop_yield(fs);
        char *path = pkg_path(fs, &dir);
        err = path ? dir.folder->remove(fs, path, name) : -ENOMEM;
        free(path);
    }
    fuse_reply_err(req, -err);
}

void pkg_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_node n;
    struct stat st;
    (void)fi;
    int err = -EROFS;
    if (pkg_node_of(fs, ino, &n) && n.kind == PKG_FOLDER_FILE && to_set & FUSE_SET_ATTR_SIZE) {
        char *path = pkg_path(fs, &n);
        err = path ? n.folder->resize(fs, path, n.named->name, (uint64_t)attr->st_size) : -ENOMEM;
        free(path);
        if (!err)
            err = pkg_stat(fs, &n, &st);
    }
    if (err)
        fuse_reply_err(req, -err);
    else
        fuse_reply_attr(req, &st, 0);
}

/* ---- files --------------------------------------------------------------------------------------------------------- */

static int open_named(fuse_req_t req, const pkg_node *n, const char *name, int flags, struct fuse_file_info *fi)
{
    fs_state *fs = fuse_req_userdata(req);
    void *file = NULL;
    char *path = pkg_path(fs, n);
    int err = path ? n->folder->open(fs, path, name, flags, req, &file) : -ENOMEM;
    free(path);
    fi->fh = (uint64_t)(uintptr_t)file;
    fi->direct_io = 1;
    return err;
}

static void close_named(fs_state *fs, const pkg_node *n, const struct fuse_file_info *fi)
{
    n->folder->close(fs, (void *)(uintptr_t)fi->fh);
}

void pkg_folder_open(fuse_req_t req, const pkg_node *n, struct fuse_file_info *fi)
{
    fs_state *fs = fuse_req_userdata(req);
    loop_yield(fs);
    int err = open_named(req, n, n->named->name, fi->flags & ~O_CREAT, fi);
    if (err)
        fuse_reply_err(req, -err);
    else if (fuse_reply_open(req, fi) != 0)
        close_named(fs, n, fi);
}

void pkg_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_node dir, n;
    struct fuse_entry_param e = {0};
    (void)mode;
    if (!pkg_node_of(fs, parent, &dir) || dir.kind != PKG_FOLDER) {
        fuse_reply_err(req, EROFS);
        return;
    }
    loop_yield(fs);
    int err = open_named(req, &dir, name, fi->flags | O_CREAT, fi);
    if (!err && (err = pkg_folder_child(fs, &dir, name, &n)) != 0)
        close_named(fs, &dir, fi);
    if (!err && (err = pkg_stat(fs, &n, &e.attr)) != 0) {
        close_named(fs, &dir, fi);
        pkg_folder_forget(fs, pkg_ino(&n), 1);
    }
    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    e.ino = pkg_ino(&n);
    if (fuse_reply_create(req, &e, fi) != 0) {
        close_named(fs, &dir, fi);
        pkg_folder_forget(fs, e.ino, 1);
    }
}

void pkg_folder_read(fuse_req_t req, const pkg_node *n, size_t size, off_t offset, struct fuse_file_info *fi)
{
    char *out = malloc(size);
    ssize_t got = out ? n->folder->read((void *)(uintptr_t)fi->fh, (uint64_t)offset, out, size) : -ENOMEM;
    if (got < 0)
        fuse_reply_err(req, (int)-got);
    else
        fuse_reply_buf(req, out, (size_t)got);
    free(out);
}

void pkg_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_node n;
    ssize_t done = -EROFS;
    if (pkg_node_of(fs, ino, &n) && n.kind == PKG_FOLDER_FILE)
        done = n.folder->write((void *)(uintptr_t)fi->fh, (uint64_t)offset, buf, size);
    if (done < 0)
        fuse_reply_err(req, (int)-done);
    else
        fuse_reply_write(req, (size_t)done);
}

void pkg_folder_release(fuse_req_t req, const pkg_node *n, struct fuse_file_info *fi)
{
    close_named(fuse_req_userdata(req), n, fi);
    fuse_reply_err(req, 0);
}
