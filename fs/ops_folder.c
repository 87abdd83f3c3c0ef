/* SPDX-License-Identifier: Apache-2.0 */
/* ops_folder.c - the operations for the files of folders among the controls (folder.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "folder.h"
#include "loop.h"
#include "ops.h"

typedef struct folder_handle {
    fs_handle head;
    const fs_folder *folder;
    void *file;
} folder_handle;

static const fs_folder *const folders[] = {&fs_rows_folder, &fs_search_folder};

const fs_folder *fs_folder_at(size_t index)
{
    return index < sizeof folders / sizeof *folders ? folders[index] : NULL;
}

const fs_folder *fs_folder_find(const char *name)
{
    const fs_folder *f;
    for (size_t i = 0; (f = fs_folder_at(i)); i++)
        if (strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

/* The array's path and the file's own name. */
static int place_of(fs_state *fs, fs_node *n, char **path, char name[256])
{
    fs_node *parent;
    int err = node_place(fs, n, &parent, name);
    if (err)
        return -ENOENT;
    node_unpin(fs, parent);
    *path = node_path(fs, n);
    return *path ? 0 : -ENOENT;
}

int folder_stat(fs_state *fs, fs_node *n, mode_t readable, struct stat *st)
{
    char *path, name[256];
    if (n->kind == NODE_FOLDER) {
        /* Who may read the array may ask: what is written here is a question. */
        st->st_mode = S_IFDIR | readable | readable >> 1 | readable >> 2;
        return 0;
    }
    int err = place_of(fs, n, &path, name);
    if (err)
        return err;
    fs_folder_entry e;
    err = n->folder->find(fs, path, name, &e);
    free(path);
    if (err)
        return err;
    st->st_mode = S_IFREG | readable | (e.writable ? readable >> 1 : 0);
    st->st_size = (off_t)e.bytes;
    return 0;
}

static folder_handle *open_file(fs_state *fs, fuse_req_t req, fs_node *n, const fs_folder *folder, const char *path,
                                const char *name, int flags, int *err)
{
    folder_handle *h = calloc(1, sizeof *h);
    *err = h ? folder->open(fs, path, name, flags, req, &h->file) : -ENOMEM;
    if (*err) {
        free(h);
        return NULL;
    }
    h->head = (fs_handle){.node = n, .flags = flags, .writer = (flags & O_ACCMODE) != O_RDONLY};
    h->folder = folder;
    return h;
}

static void close_file(fs_state *fs, folder_handle *h)
{
    h->folder->close(fs, h->file);
    free(h);
}

void folder_open(fuse_req_t req, fs_node *n, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    char *path = NULL, name[256];
    loop_yield(fs);
    int err = place_of(fs, n, &path, name);
    folder_handle *h = err ? NULL : open_file(fs, req, n, n->folder, path, name, fi->flags & ~O_CREAT, &err);
    free(path);
    fi->direct_io = 1;
    fi->fh = (uint64_t)(uintptr_t)h;
    if (!h)
        fuse_reply_err(req, -err);
    else if (fuse_reply_open(req, fi) != 0)
        close_file(fs, h);
}

void folder_create(fuse_req_t req, fs_node *parent, const char *name, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    loop_yield(fs);
    char *path = node_path(fs, parent);
    int err = path ? 0 : -ENOENT;
    folder_handle *h = err ? NULL : open_file(fs, req, NULL, parent->folder, path, name, fi->flags | O_CREAT, &err);
    free(path);
    fs_node *n = h ? node_bind_folder(fs, parent, name, NODE_FOLDER_FILE, parent->folder) : NULL;
    struct fuse_entry_param e = {0};
    if (h && !n)
        err = -ENOMEM;
    if (n) {
        h->head.node = n;
        e.ino = node_id(fs, n);
        err = control_stat(fs, n, &e.attr);
    }
    fi->direct_io = 1;
    fi->fh = (uint64_t)(uintptr_t)h;
    if (err)
        fuse_reply_err(req, -err);
    if (err || fuse_reply_create(req, &e, fi) != 0) {
        if (h)
            close_file(fs, h);
        if (n)
            node_forget(fs, n, 1);
    }
}

void folder_read(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi)
{
    folder_handle *h = (folder_handle *)handle_of(fi);
    char *out = malloc(size);
    ssize_t n = out ? h->folder->read(h->file, (uint64_t)offset, out, size) : -ENOMEM;
    if (n < 0)
        fuse_reply_err(req, (int)-n);
    else
        fuse_reply_buf(req, out, (size_t)n);
    free(out);
}

void folder_write(fuse_req_t req, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
    folder_handle *h = (folder_handle *)handle_of(fi);
    ssize_t n = h->folder->write(h->file, (uint64_t)offset, buf, size);
    if (n < 0)
        fuse_reply_err(req, (int)-n);
    else
        fuse_reply_write(req, (size_t)n);
}

int folder_resize(fs_state *fs, fs_node *n, uint64_t bytes)
{
    char *path, name[256];
    int err = place_of(fs, n, &path, name);
    if (err)
        return err;
    err = n->folder->resize(fs, path, name, bytes);
    free(path);
    return err;
}

void folder_release(fuse_req_t req, struct fuse_file_info *fi)
{
    close_file(fs_of(req), (folder_handle *)handle_of(fi));
    fuse_reply_err(req, 0);
}

void folder_unlink(fuse_req_t req, fs_node *parent, const char *name)
{
    fs_state *fs = fs_of(req);
    loop_yield(fs);
    char *path = node_path(fs, parent);
    int err = path ? parent->folder->remove(fs, path, name) : -ENOENT;
    free(path);
    if (!err)
        node_unname(fs, parent, name);
    fuse_reply_err(req, -err);
}
