/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops_control.c - the operations for nodes under `.npk`. What the files say and do is control.h's; here they become
 * directories, nodes, opens and replies. Texts are rendered at open and served with direct I/O at their true size.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "folder.h"
#include "loop.h"
#include "node_table.h"
#include "notice.h"
#include "ops.h"

typedef struct control_handle {
    fs_handle head;
    fs_text text;               /* what a reader sees: rendered once, at open */
    fs_control_write *write;    /* NULL: not open for writing */
} control_handle;

bool is_control_name(const char *name)
{
    return strcmp(name, ".npk") == 0;
}

bool is_reserved_name(const char *name)
{
    return is_control_name(name) || strcmp(name, ".npkfs") == 0;
}

/* ---- lookup and attributes ---- */

static bool is_array_file(fs_state *fs, const char *path)
{
    size_t len = strlen(path);
    if (len < 5 || strcmp(path + len - 4, ".npy") != 0)
        return false;
    int fd = npk_open_beneath(fs->store, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    npk_info info;
    int err = npk_fd_stat(fd, &info);
    bool yes = !err && !info.reason;
    if (!err)
        npk_info_clear(&info);
    close(fd);
    return yes;
}

/* The store's file or directory that a control is about. */
static int subject_statx(fs_state *fs, fs_node *n, struct statx *stx)
{
    char *path = node_path(fs, n);
    if (!path)
        return -ENOENT;
    int fd = npk_open_beneath(fs->store, path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
    free(path);
    if (fd < 0)
        return fd;
    int err = store_statx(fs, fd, "", stx);
    close(fd);
    return err;
}

/* Under which name does what live below this control directory? NULL control for directories. */
static int find_child(fs_state *fs, fs_node *parent, const char *name, fs_node_kind *kind, const fs_control **control,
                      const fs_folder **folder)
{
    *control = NULL;
    *folder = parent->folder;
    if (parent->kind == NODE_STORE) {
        *kind = NODE_CONTROL_ROOT;
        return parent->type == S_IFDIR ? 0 : -ENOTDIR;
    }
    if (parent->kind == NODE_CONTROL_ARRAY) {
        *kind = NODE_CONTROL_FILE;
        *control = fs_control_find(FS_CONTROL_ARRAY, name);
        if (!*control && (*folder = fs_folder_find(name)))
            *kind = NODE_FOLDER;
        return *control || *folder ? 0 : -ENOENT;
    }
    if (parent->kind == NODE_FOLDER) {
        *kind = NODE_FOLDER_FILE;
        return 0; /* whether it is there shows when it is asked for its attributes */
    }
    if (parent->kind != NODE_CONTROL_ROOT)
        return -ENOTDIR;
    char *dir = node_path(fs, parent);
    if (!dir)
        return -ENOENT;
    int err = -ENOENT;
    if (!*dir && (*control = fs_control_find(FS_CONTROL_MOUNT, name))) {
        *kind = NODE_CONTROL_FILE;
        err = 0;
    } else {
        char *path = malloc(strlen(dir) + strlen(name) + 2);
        if (path) {
            strcpy(path, dir);
            if (*dir)
                strcat(path, "/");
            strcat(path, name);
            *kind = NODE_CONTROL_ARRAY;
            err = is_array_file(fs, path) ? 0 : -ENOENT;
        }
        free(path);
    }
    free(dir);
    return err;
}

void control_lookup(fuse_req_t req, fs_node *parent, const char *name)
{
    fs_state *fs = fs_of(req);
    fs_node_kind kind;
    const fs_control *control;
    const fs_folder *folder;
    loop_yield(fs);
    int err = find_child(fs, parent, name, &kind, &control, &folder);
    fs_node *n = err      ? NULL
                 : folder ? node_bind_folder(fs, parent, name, kind, folder)
                          : node_bind_control(fs, parent, name, kind, control);
    struct fuse_entry_param e = {0}; /* no timeouts: what is under .npk is looked at each time (P33) */
    if (!err && !n)
        err = -ENOMEM;
    if (!err) {
        e.ino = node_id(fs, n);
        err = control_stat(fs, n, &e.attr);
        if (err)
            node_forget(fs, n, 1);
    }
    if (err)
        fuse_reply_err(req, -err);
    else if (fuse_reply_entry(req, &e) != 0)
        node_forget(fs, n, 1);
}

int control_stat(fs_state *fs, fs_node *n, struct stat *st)
{
    struct statx stx;
    int err = subject_statx(fs, n, &stx);
    if (err)
        return err;
    stat_from_statx(st, &stx);
    mode_t rwx = st->st_mode & 0777;
    st->st_ino = n->ino;
    st->st_nlink = n->type == S_IFDIR ? 2 : 1;
    st->st_blocks = 0;
    st->st_size = 0;
    st->st_blksize = 4096;
    if (n->folder)
        return folder_stat(fs, n, rwx & 0444, st);
    if (n->type == S_IFDIR) {
        /* Who may read the array may look into its controls. */
        st->st_mode = S_IFDIR | (rwx & 0444) | ((rwx & 0444) >> 2);
        return 0;
    }
    st->st_mode = S_IFREG | (rwx & 0444) | (n->control->apply && !fs->read_only ? rwx & 0222 : 0);
    if (!n->control->cheap)
        return 0;
    char *path = node_path(fs, n);
    fs_text text = {0};
    if (path && n->control->render(fs, path, &text) == 0)
        st->st_size = (off_t)text.bytes;
    fs_text_clear(&text);
    free(path);
    return 0;
}

int control_setattr(fs_state *fs, fs_node *n, int to_set, off_t size)
{
    if (to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
        return -EPERM; /* a control has the owner and mode of its array */
    if (n->kind == NODE_FOLDER_FILE)
        return to_set & FUSE_SET_ATTR_SIZE ? folder_resize(fs, n, (uint64_t)size) : 0;
    if (to_set & FUSE_SET_ATTR_SIZE && (n->kind != NODE_CONTROL_FILE || !n->control->apply))
        return -EACCES;
    return 0; /* shells truncate before they write: nothing to do; times are the array's */
}

/* ---- files ---- */

void control_open(fuse_req_t req, fs_node *n, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    bool write = (fi->flags & O_ACCMODE) != O_RDONLY;
    if (n->kind == NODE_FOLDER_FILE) {
        folder_open(req, n, fi);
        return;
    }
    loop_yield(fs);
    if (n->kind != NODE_CONTROL_FILE || (write && (!n->control->apply || fs->read_only))) {
        fuse_reply_err(req, n->kind != NODE_CONTROL_FILE ? EISDIR : fs->read_only ? EROFS : EACCES);
        return;
    }
    char *path = node_path(fs, n);
    control_handle *h = calloc(1, sizeof *h);
    int err = !h ? -ENOMEM : !path ? -ENOENT : 0;
    if (!err) {
        h->head = (fs_handle){.node = n, .flags = fi->flags, .writer = write};
        if ((fi->flags & O_ACCMODE) != O_WRONLY) {
            atomic_fetch_add_explicit(&fs->stats.control_reads, 1, memory_order_relaxed);
            err = n->control->render(fs, path, &h->text);
            if (!err && h->text.failed)
                err = -ENOMEM;
        }
        if (!err && write && !(h->write = fs_control_write_open(fs, n->control, path)))
            err = -ENOMEM;
    }
    free(path);
    fi->direct_io = 1;
    fi->fh = (uint64_t)(uintptr_t)h;
    if (err)
        fuse_reply_err(req, -err);
    if (err || fuse_reply_open(req, fi) != 0) {
        if (h) {
            if (h->write)
                fs_control_write_close(h->write);
            fs_text_clear(&h->text);
        }
        free(h);
    }
}

void control_read(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi)
{
    if (handle_of(fi)->node->kind == NODE_FOLDER_FILE) {
        folder_read(req, size, offset, fi);
        return;
    }
    const fs_text *t = &((control_handle *)handle_of(fi))->text;
    if (offset < 0 || (uint64_t)offset >= t->bytes) {
        fuse_reply_buf(req, NULL, 0);
        return;
    }
    size_t left = t->bytes - (size_t)offset;
    fuse_reply_buf(req, t->data + offset, size < left ? size : left);
}

/* A line may have been applied: what the kernel believes of the array is outdated. */
static void tell_changed(fs_state *fs, fs_node *control)
{
    fs_node *dir;
    char leaf[256];
    if (node_array_of(fs, control, &dir, leaf)) {
        notice_array_changed(fs, dir, leaf);
        node_unpin(fs, dir);
    }
}

void control_write(fuse_req_t req, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
    if (handle_of(fi)->node->kind == NODE_FOLDER_FILE) {
        folder_write(req, buf, size, offset, fi);
        return;
    }
    fs_state *fs = fs_of(req);
    control_handle *h = (control_handle *)handle_of(fi);
    atomic_fetch_add_explicit(&fs->stats.control_writes, 1, memory_order_relaxed);
    loop_yield(fs);
    int n = fs_control_write_data(h->write, buf, size, fi->lock_owner);
    tell_changed(fs, h->head.node);
    if (n < 0)
        fuse_reply_err(req, -n);
    else
        fuse_reply_write(req, (size_t)n);
}

void control_flush(fuse_req_t req, struct fuse_file_info *fi)
{
    if (handle_of(fi)->node->kind == NODE_FOLDER_FILE) {
        fuse_reply_err(req, 0);
        return;
    }
    fs_state *fs = fs_of(req);
    control_handle *h = (control_handle *)handle_of(fi);
    int err = 0;
    if (h->write) {
        loop_yield(fs);
        err = fs_control_write_flush(h->write, fi->lock_owner);
        tell_changed(fs, h->head.node);
    }
    fuse_reply_err(req, -err);
}

void control_release(fuse_req_t req, struct fuse_file_info *fi)
{
    if (handle_of(fi)->node->kind == NODE_FOLDER_FILE) {
        folder_release(req, fi);
        return;
    }
    fs_state *fs = fs_of(req);
    control_handle *h = (control_handle *)handle_of(fi);
    if (h->write) {
        loop_yield(fs);
        fs_control_write_close(h->write);
        tell_changed(fs, h->head.node);
    }
    fs_text_clear(&h->text);
    free(h);
    fuse_reply_err(req, 0);
}

/* ---- directories ---- */

/* A listing is a snapshot, taken at opendir: names one after the other, each with its NUL; a leading 'd' or 'f'. */
typedef struct control_dir {
    fs_handle head;
    char *names;
    size_t bytes, capacity;
    bool failed;
} control_dir;

static void list_add(control_dir *d, char type, const char *name)
{
    size_t len = strlen(name) + 2;
    if (d->bytes + len > d->capacity) {
        size_t capacity = d->capacity ? d->capacity * 2 : 1024;
        while (capacity < d->bytes + len)
            capacity *= 2;
        char *names = realloc(d->names, capacity);
        if (!names) {
            d->failed = true;
            return;
        }
        d->names = names;
        d->capacity = capacity;
    }
    d->names[d->bytes] = type;
    memcpy(d->names + d->bytes + 1, name, len - 1);
    d->bytes += len;
}

static int list_array(void *ctx, const char *name, const npk_info *info)
{
    (void)info;
    const char *leaf = strrchr(name, '/');
    char file[264];
    snprintf(file, sizeof file, "%s.npy", leaf ? leaf + 1 : name);
    list_add(ctx, 'd', file);
    return 0;
}

static void list_file(void *ctx, const char *name)
{
    list_add(ctx, 'f', name);
}

void control_opendir(fuse_req_t req, fs_node *n, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    loop_yield(fs);
    control_dir *d = calloc(1, sizeof *d);
    char *path = node_path(fs, n);
    int err = !d ? -ENOMEM : !path ? -ENOENT : n->type != S_IFDIR ? -ENOTDIR : 0;
    if (!err) {
        d->head = (fs_handle){.node = n};
        list_add(d, 'd', ".");
        list_add(d, 'd', "..");
        bool array = n->kind == NODE_CONTROL_ARRAY;
        if (n->folder)
            n->folder->list(fs, path, list_file, d);
        for (size_t i = 0; array && fs_folder_at(i); i++)
            list_add(d, 'd', fs_folder_at(i)->name);
        if (array || (!*path && !n->folder)) {
            const fs_control *c;
            for (size_t i = 0; (c = fs_control_at(array ? FS_CONTROL_ARRAY : FS_CONTROL_MOUNT, i)); i++)
                list_add(d, 'f', c->name);
        }
        if (!array && !*path && !n->folder)
            list_add(d, 'd', "batch"); /* batch_ops.c */
        if (!array && !n->folder)
            err = npk_list(fs->store, path, NPK_LIST_FLAT, list_array, d);
        if (!err && d->failed)
            err = -ENOMEM;
    }
    free(path);
    fi->fh = (uint64_t)(uintptr_t)d;
    if (err)
        fuse_reply_err(req, -err);
    if (err || fuse_reply_open(req, fi) != 0) {
        if (d)
            free(d->names);
        free(d);
    }
}

/* The offset of an entry is the position after it in the snapshot. */
void control_readdir(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi, bool plus)
{
    const control_dir *d = (control_dir *)handle_of(fi);
    char *out = malloc(size);
    size_t used = 0;
    size_t at = offset < 0 || (size_t)offset > d->bytes ? d->bytes : (size_t)offset;
    while (out && at < d->bytes) {
        const char *name = d->names + at + 1;
        struct stat st = {.st_ino = 1, .st_mode = d->names[at] == 'd' ? S_IFDIR : S_IFREG};
        at += strlen(name) + 2;
        struct fuse_entry_param e = {.attr = st}; /* node id 0: nothing was looked up */
        size_t n = plus ? fuse_add_direntry_plus(req, out + used, size - used, name, &e, (off_t)at)
                        : fuse_add_direntry(req, out + used, size - used, name, &st, (off_t)at);
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

void control_releasedir(fuse_req_t req, struct fuse_file_info *fi)
{
    control_dir *d = (control_dir *)handle_of(fi);
    free(d->names);
    free(d);
    fuse_reply_err(req, 0);
}
