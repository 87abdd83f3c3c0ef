/* SPDX-License-Identifier: Apache-2.0 */
/*
 * batch_ops.c - the operations below `.npk/batch`. fs_batch_route() puts them before those of ops.h: what is no node of a
 * batch is handed on.
 */
#include "batch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loop.h"
#include "ops.h"
#include "sys.h"

static struct fuse_lowlevel_ops next; /* what comes after batches */

static bool is_batch(const fs_node *n)
{
    return n->kind >= NODE_BATCHES;
}

/* Where in which batch a node is. */
typedef struct place {
    char id[256];
    char path[PATH_MAX]; /* below the batch; "" */
    char name[PATH_MAX]; /* the same of an array, without ".npy"; "" for all else */
} place;

static bool is_array_name(const char *leaf)
{
    size_t n = strlen(leaf);
    return n > 4 && strcmp(leaf + n - 4, ".npy") == 0;
}

static void set_name(place *p)
{
    const char *slash = strrchr(p->path, '/');
    *p->name = '\0';
    if (is_array_name(slash ? slash + 1 : p->path)) {
        size_t n = strlen(p->path) - strlen(".npy");
        memcpy(p->name, p->path, n);
        p->name[n] = '\0';
    }
}

/* node: any of a batch but NODE_BATCHES. */
static int find_place(fs_state *fs, fs_node *node, place *p)
{
    char leaf[256];
    size_t at = sizeof p->path - 1;
    p->path[at] = '\0';
    node_pin(fs, node);
    for (;;) {
        fs_node *parent;
        int err = node_place(fs, node, &parent, leaf);
        node_unpin(fs, node);
        if (err)
            return -ENOENT;
        node = parent;
        if (node->kind == NODE_BATCHES)
            break;
        size_t n = strlen(leaf);
        if (n + 1 > at) {
            node_unpin(fs, node);
            return -ENAMETOOLONG;
        }
        at -= n;
        memcpy(p->path + at, leaf, n);
        p->path[--at] = '/';
    }
    node_unpin(fs, node);
    strcpy(p->id, leaf);
    if (p->path[at] == '/')
        at++;
    memmove(p->path, p->path + at, strlen(p->path + at) + 1);
    set_name(p);
    return 0;
}

int fs_batch_place(fs_state *fs, fs_node *n, char id[256], char path[4096])
{
    place p;
    int err = find_place(fs, n, &p);
    if (!err) {
        strcpy(id, p.id);
        strcpy(path, p.path);
    }
    return err;
}

static int child_place(fs_state *fs, fs_node *parent, const char *leaf, place *p)
{
    int err = find_place(fs, parent, p);
    size_t n = strlen(p->path);
    if (!err && n + strlen(leaf) + 2 > sizeof p->path)
        err = -ENAMETOOLONG;
    if (err)
        return err;
    if (n)
        p->path[n++] = '/';
    strcpy(p->path + n, leaf);
    set_name(p);
    return 0;
}

/* ---- attributes ---------------------------------------------------------------------------------------------------- */

static int stat_place(fs_state *fs, const place *p, struct stat *st, fs_node_kind *kind)
{
    fs_batch *b;
    npk_info info;
    int err = fs_batch_get(fs, p->id, &b);
    if (err)
        return err;
    err = *p->name ? npk_batch_stat(b->batch, p->name, &info) : -ENOENT;
    if (!err) {
        *kind = NODE_BATCH_FILE;
        st->st_size = (off_t)info.file_bytes;
        st->st_blocks = (blkcnt_t)((info.file_bytes + 511) / 512);
        st->st_mtim.tv_sec = info.mtime_us / 1000000;
        st->st_mtim.tv_nsec = info.mtime_us % 1000000 * 1000;
        npk_info_clear(&info);
    } else if ((err == -ENOENT || err == -EISDIR) && fs_batch_has_dir(fs, b, p->path)) {
        *kind = NODE_BATCH_DIR;
        err = 0;
    }
    fs_batch_put(fs, b);
    return err;
}

/* Owner and mode are those of the store's directory: who may write there may change arrays together. */
static int stat_node(fs_state *fs, fs_node *n, struct stat *st)
{
    struct stat root;
    place p;
    fs_node_kind kind = n->kind;
    if (fstat(fs->root_fd, &root) < 0)
        return -errno;
    *st = (struct stat){.st_ino = n->ino, .st_uid = root.st_uid, .st_gid = root.st_gid, .st_blksize = 4096,
                        .st_mtim = root.st_mtim};
    int err = kind == NODE_BATCHES ? 0 : find_place(fs, n, &p);
    if (!err && (kind == NODE_BATCH_FILE || kind == NODE_BATCH_DIR))
        err = stat_place(fs, &p, st, &kind);
    if (!err && kind != n->kind)
        err = -ENOENT; /* a directory and an array have changed places */
    bool file = kind == NODE_BATCH_FILE || kind == NODE_BATCH_STATE;
    st->st_mode = file ? S_IFREG | (root.st_mode & 0666) : S_IFDIR | (root.st_mode & 0777);
    st->st_nlink = file ? 1 : 2;
    return err;
}

static void route_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    struct stat st;
    if (!is_batch(node_of(fs, ino))) {
        next.getattr(req, ino, fi);
        return;
    }
    loop_yield(fs);
    int err = stat_node(fs, node_of(fs, ino), &st);
    if (err)
        fuse_reply_err(req, -err);
    else
        fuse_reply_attr(req, &st, 0);
}

/* ---- names --------------------------------------------------------------------------------------------------------- */

static void reply_node(fuse_req_t req, fs_node *parent, const char *name, fs_node_kind kind)
{
    fs_state *fs = fs_of(req);
    struct fuse_entry_param e = {0}; /* no timeouts: others may work in the batch, too */
    fs_node *n = node_bind_control(fs, parent, name, kind, kind == NODE_BATCH_STATE ? &fs_batch_state : NULL);
    int err = n ? stat_node(fs, n, &e.attr) : -ENOMEM;
    if (n)
        e.ino = node_id(fs, n);
    if (err)
        fuse_reply_err(req, -err);
    if ((err && n) || (!err && fuse_reply_entry(req, &e) != 0))
        node_forget(fs, n, 1);
}

static int child_kind(fs_state *fs, fs_node *parent, const char *name, fs_node_kind *kind)
{
    place p;
    struct stat st;
    if (parent->kind == NODE_BATCHES) {
        fs_batch *b;
        fs_batch_expire(fs, name);
        int err = fs_batch_get(fs, name, &b);
        *kind = NODE_BATCH_DIR;
        if (!err)
            fs_batch_put(fs, b);
        return err;
    }
    if (parent->kind == NODE_BATCH_CONTROL) {
        *kind = NODE_BATCH_STATE;
        return strcmp(name, "state") == 0 ? 0 : -ENOENT;
    }
    if (parent->kind != NODE_BATCH_DIR)
        return -ENOTDIR;
    int err = child_place(fs, parent, name, &p);
    if (!err && is_reserved_name(name)) {
        *kind = NODE_BATCH_CONTROL;
        return strcmp(p.path, ".npk") == 0 ? 0 : -ENOENT;
    }
    return err ? err : stat_place(fs, &p, &st, kind);
}

static bool is_root_control(fs_state *fs, fs_node *n)
{
    char *path = n->kind == NODE_CONTROL_ROOT ? node_path(fs, n) : NULL;
    bool yes = path && !*path;
    free(path);
    return yes;
}

static void route_lookup(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, ino);
    fs_node_kind kind = NODE_BATCHES;
    int err = 0;
    if (!is_batch(parent)) {
        if (strcmp(name, "batch") == 0 && is_root_control(fs, parent))
            reply_node(req, parent, name, NODE_BATCHES);
        else
            next.lookup(req, ino, name);
        return;
    }
    loop_yield(fs);
    err = child_kind(fs, parent, name, &kind);
    if (err)
        fuse_reply_err(req, -err);
    else
        reply_node(req, parent, name, kind);
}

static void route_mkdir(fuse_req_t req, fuse_ino_t ino, const char *name, mode_t mode)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, ino);
    place p;
    if (!is_batch(parent)) {
        next.mkdir(req, ino, name, mode);
        return;
    }
    loop_yield(fs);
    int err = fs->read_only ? -EROFS : 0;
    if (!err && parent->kind == NODE_BATCHES) {
        err = fs_batch_begin(fs, name);
    } else if (!err) {
        err = parent->kind != NODE_BATCH_DIR || is_reserved_name(name) ? -EPERM : child_place(fs, parent, name, &p);
        if (!err)
            err = fs_batch_make_dir(fs, p.id, p.path);
    }
    if (err)
        fuse_reply_err(req, -err);
    else
        reply_node(req, parent, name, NODE_BATCH_DIR);
}

static void route_rmdir(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, ino);
    place p;
    if (!is_batch(parent)) {
        next.rmdir(req, ino, name);
        return;
    }
    loop_yield(fs);
    int err = parent->kind == NODE_BATCHES ? fs_batch_end(fs, name, false)
              : parent->kind != NODE_BATCH_DIR ? -EPERM : child_place(fs, parent, name, &p);
    if (!err && parent->kind == NODE_BATCH_DIR)
        err = fs_batch_remove_dir(fs, p.id, p.path);
    fuse_reply_err(req, -err);
}

/* A change of several arrays that names the file is waited for, and one that a killed process left is finished, as is a
 * replace of its rows, before anybody reads or moves it (P17). path is freed. 0, or the error to answer. */
static int await_path(fs_state *fs, char *path)
{
    int err = path ? npk_await(fs->store, path, NPK_SETTLE_TRY) : 0;
    if (err == -EAGAIN) {
        loop_yield(fs);
        err = npk_await(fs->store, path, 0);
    }
    if (err)
        fs_note_failure(fs, path, npk_error());
    free(path);
    return err;
}

static int await(fs_state *fs, fs_node *n)
{
    if (n->kind != NODE_STORE || n->type != S_IFREG || !node_is_named_like_array(fs, n))
        return 0;
    return await_path(fs, node_path(fs, n));
}

/* The same before a name is moved, removed or covered: what is to be redone is found by it. */
static int await_name(fs_state *fs, fs_node *parent, const char *name)
{
    if (parent->kind != NODE_STORE || !is_array_name(name) || fs->read_only)
        return 0;
    char *above = node_path(fs, parent), *path = NULL;
    if (above && asprintf(&path, "%s%s%s", above, *above ? "/" : "", name) < 0)
        path = NULL;
    free(above);
    return await_path(fs, path);
}

static void route_unlink(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, ino);
    fs_batch *b;
    place p;
    int err;
    if (!is_batch(parent)) {
        err = await_name(fs, parent, name);
        if (err)
            fuse_reply_err(req, -err);
        else
            next.unlink(req, ino, name);
        return;
    }
    loop_yield(fs);
    err = parent->kind != NODE_BATCH_DIR ? -EPERM : child_place(fs, parent, name, &p);
    if (!err && !*p.name)
        err = -ENOENT;
    if (!err)
        err = fs_batch_get(fs, p.id, &b);
    if (!err) {
        err = npk_batch_remove(b->batch, p.name);
        if (err && err != -ENOENT)
            fs_note_failure(fs, "", npk_error());
        fs_batch_put(fs, b);
    }
    fuse_reply_err(req, -err);
}

static void route_rename(fuse_req_t req, fuse_ino_t ino, const char *name, fuse_ino_t to, const char *new_name,
                         unsigned flags)
{
    fs_state *fs = fs_of(req);
    if (is_batch(node_of(fs, ino)) || is_batch(node_of(fs, to))) {
        fuse_reply_err(req, EXDEV); /* mv copies then: an array in a batch has the name that it will have */
        return;
    }
    int err = await_name(fs, node_of(fs, ino), name);
    if (!err)
        err = await_name(fs, node_of(fs, to), new_name);
    if (err)
        fuse_reply_err(req, -err);
    else
        next.rename(req, ino, name, to, new_name, flags);
}

/* ---- files --------------------------------------------------------------------------------------------------------- */

typedef struct batch_handle {
    fs_handle head;
    char id[256];
    char *name;             /* of the array; NULL: the state */
    int fd;                 /* a file of the batch; -1: the store's with rows over it */
    pthread_mutex_t lock;   /* protects the following: rows that are not whole yet, at the end of the file */
    bool counted;           /* among the batch's writers: from the open or a write until the next flush, since RELEASE
                             * comes some time after close(2) and the commit may follow at once */
    char *part;
    size_t part_bytes;
    uint64_t row_bytes;
    fs_text text;           /* the state, as it was at the open */
    fs_control_write *write;
} batch_handle;

static void free_handle(fs_state *fs, batch_handle *h)
{
    fs_batch *b;
    if (h->write)
        fs_control_write_close(h->write);
    if (h->counted && fs_batch_get(fs, h->id, &b) == 0) {
        atomic_fetch_sub(&b->writers, 1);
        fs_batch_put(fs, b);
    }
    if (h->fd >= 0)
        close(h->fd);
    pthread_mutex_destroy(&h->lock);
    fs_text_clear(&h->text);
    free(h->part);
    free(h->name);
    free(h);
}

static batch_handle *new_handle(fs_node *n, const place *p, int flags)
{
    batch_handle *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->head = (fs_handle){.node = n, .flags = flags, .writer = (flags & O_ACCMODE) != O_RDONLY, .append = flags & O_APPEND};
    h->fd = -1;
    strcpy(h->id, p->id);
    pthread_mutex_init(&h->lock, NULL);
    return h;
}

static int open_state(fs_state *fs, fs_node *n, batch_handle *h)
{
    int err = 0;
    if ((h->head.flags & O_ACCMODE) != O_WRONLY)
        err = fs_batch_state.render(fs, h->id, &h->text);
    if (!err && h->head.writer && !(h->write = fs_control_write_open(fs, n->control, h->id)))
        err = -ENOMEM;
    return err;
}

/* A finished array is written as rows are, also one that was saved in the batch: its header counts what is appended. While
 * it is not (its writer makes it in steps), its file is written as it comes. */
static int choose_file(fs_batch *b, batch_handle *h)
{
    npk_info info;
    int err = npk_batch_stat(b->batch, h->name, &info);
    if (err)
        return err;
    const npk_header *head = &info.header;
    bool finished = !info.reason && npk_header_is_row_array(head) && info.file_bytes == head->data_offset + head->data_bytes;
    h->row_bytes = info.reason ? 0 : head->row_bytes;
    if (finished && h->fd >= 0) {
        close(h->fd);
        h->fd = -1;
    }
    npk_info_clear(&info);
    return 0;
}

/* The batch is locked. */
static int open_array(fs_batch *b, const place *p, bool create, batch_handle *h)
{
    int err = 0;
    if (!(h->name = strdup(p->name)))
        return -ENOMEM;
    if (create || h->head.flags & O_TRUNC)
        err = npk_batch_create_file(b->batch, h->name, &h->fd);
    else if (h->head.writer)
        err = npk_batch_open_file(b->batch, h->name, &h->fd);
    if (!err && h->head.writer && !create && !(h->head.flags & O_TRUNC))
        err = choose_file(b, h);
    h->counted = !err && h->head.writer;
    if (h->counted)
        atomic_fetch_add(&b->writers, 1);
    return err;
}

static int open_node(fs_state *fs, fs_node *n, const place *p, bool create, struct fuse_file_info *fi)
{
    fs_batch *b;
    if ((fi->flags & O_ACCMODE) != O_RDONLY && fs->read_only)
        return -EROFS;
    batch_handle *h = new_handle(n, p, fi->flags);
    if (!h)
        return -ENOMEM;
    int err = n && n->kind == NODE_BATCH_STATE ? open_state(fs, n, h) : fs_batch_get(fs, p->id, &b);
    if (!err && !(n && n->kind == NODE_BATCH_STATE)) {
        err = open_array(b, p, create, h);
        if (err && err != -ENOENT)
            fs_note_failure(fs, "", npk_error());
        fs_batch_put(fs, b);
    }
    if (err) {
        free_handle(fs, h);
        return err;
    }
    fi->fh = (uint64_t)(uintptr_t)h;
    fi->direct_io = 1;
    return 0;
}

static void route_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    place p;
    int err;
    if (!is_batch(n)) {
        err = await(fs, n);
        if (err)
            fuse_reply_err(req, -err);
        else
            next.open(req, ino, fi);
        return;
    }
    loop_yield(fs);
    bool file = n->kind == NODE_BATCH_FILE || n->kind == NODE_BATCH_STATE;
    err = !file ? -EISDIR : find_place(fs, n, &p);
    if (!err)
        err = open_node(fs, n, &p, false, fi);
    if (err)
        fuse_reply_err(req, -err);
    else if (fuse_reply_open(req, fi) != 0)
        free_handle(fs, (batch_handle *)handle_of(fi));
}

static void route_create(fuse_req_t req, fuse_ino_t ino, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_node *parent = node_of(fs, ino), *n = NULL;
    place p;
    if (!is_batch(parent)) {
        next.create(req, ino, name, mode, fi);
        return;
    }
    loop_yield(fs);
    int err = parent->kind != NODE_BATCH_DIR || is_reserved_name(name) ? -EPERM : child_place(fs, parent, name, &p);
    if (!err && !*p.name) {
        fs_note_failure(fs, "", "a batch holds arrays only; a name that ends in .npy is accepted");
        err = -EPERM;
    }
    if (!err)
        err = open_node(fs, NULL, &p, true, fi);
    batch_handle *h = err ? NULL : (batch_handle *)handle_of(fi);
    struct fuse_entry_param e = {0};
    if (!err && !(n = node_bind_control(fs, parent, name, NODE_BATCH_FILE, NULL)))
        err = -ENOMEM;
    if (!err) {
        h->head.node = n;
        e.ino = node_id(fs, n);
        err = stat_node(fs, n, &e.attr);
    }
    if (err)
        fuse_reply_err(req, -err);
    if (err || fuse_reply_create(req, &e, fi) != 0) {
        if (h)
            free_handle(fs, h);
        if (n)
            node_forget(fs, n, 1);
    }
}

static ssize_t read_bytes(fs_state *fs, const batch_handle *h, char *buf, size_t size, off_t offset)
{
    fs_batch *b;
    if (h->fd >= 0) {
        ssize_t n = pread(h->fd, buf, size, offset);
        return n < 0 ? -errno : n;
    }
    int err = fs_batch_get(fs, h->id, &b);
    if (err)
        return err;
    ssize_t n = npk_batch_read_file(b->batch, h->name, (uint64_t)offset, buf, size);
    if (n < 0)
        fs_note_failure(fs, "", npk_error());
    fs_batch_put(fs, b);
    return n;
}

static void route_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    if (!is_batch(node_of(fs, ino))) {
        next.read(req, ino, size, offset, fi);
        return;
    }
    const batch_handle *h = (batch_handle *)handle_of(fi);
    if (!h->name) {
        size_t at = offset < 0 || (uint64_t)offset > h->text.bytes ? h->text.bytes : (size_t)offset;
        size_t left = h->text.bytes - at;
        fuse_reply_buf(req, h->text.data ? h->text.data + at : NULL, size < left ? size : left);
        return;
    }
    loop_yield(fs);
    char *buf = malloc(size + 1);
    ssize_t n = buf ? read_bytes(fs, h, buf, size, offset) : -ENOMEM;
    if (n < 0)
        fuse_reply_err(req, (int)-n);
    else
        fuse_reply_buf(req, buf, (size_t)n);
    free(buf);
}

/* At the end of the store's array: whole rows go to the batch, what is left waits for the next write. */
static int append_rows(fs_batch *b, batch_handle *h, const char *buf, size_t size)
{
    if (!h->row_bytes)
        return -ENOTSUP;
    char *part = realloc(h->part, h->part_bytes + size);
    if (!part)
        return -ENOMEM;
    h->part = part;
    memcpy(part + h->part_bytes, buf, size);
    size_t all = h->part_bytes + size, rows = all / h->row_bytes, whole = rows * h->row_bytes;
    int err = rows ? npk_batch_append(b->batch, h->name, part, rows, NULL) : 0;
    if (err)
        return err; /* nothing of this write is taken */
    memmove(part, part + whole, all - whole);
    h->part_bytes = all - whole;
    return 0;
}

static int write_rows(fs_batch *b, batch_handle *h, const char *buf, size_t size, off_t offset, bool write_back)
{
    npk_info info;
    int err = npk_batch_stat(b->batch, h->name, &info);
    if (err)
        return err;
    uint64_t end = info.file_bytes;
    npk_info_clear(&info);
    if (write_back) { /* a page of a mapping: it covers what is beyond the end, too (P22) */
        if ((uint64_t)offset >= end)
            return 0;
        size = size < end - (uint64_t)offset ? size : (size_t)(end - (uint64_t)offset);
    } else if (h->head.append || (uint64_t)offset >= end) {
        if (!h->head.append && (uint64_t)offset != end + h->part_bytes)
            return -EINVAL; /* a hole would be rows that nobody wrote */
        return append_rows(b, h, buf, size);
    }
    ssize_t n = npk_batch_write_file(b->batch, h->name, (uint64_t)offset, buf, size);
    return n < 0 ? (int)n : 0;
}

static int write_fd(const batch_handle *h, const char *buf, size_t size, off_t offset)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = h->head.append ? sys_append(h->fd, buf + done, size - done)
                                   : sys_pwrite(h->fd, buf + done, size - done, offset + (off_t)done);
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        done += (size_t)n;
    }
    return 0;
}

static void route_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
                        struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    if (!is_batch(node_of(fs, ino))) {
        next.write(req, ino, buf, size, offset, fi);
        return;
    }
    batch_handle *h = (batch_handle *)handle_of(fi);
    fs_batch *b;
    loop_yield(fs);
    if (!h->name) {
        int n = fs_control_write_data(h->write, buf, size, fi->lock_owner);
        if (n < 0)
            fuse_reply_err(req, -n);
        else
            fuse_reply_write(req, (size_t)n);
        return;
    }
    int err = fs_batch_get(fs, h->id, &b);
    if (!err) {
        pthread_mutex_lock(&h->lock);
        if (!h->counted)
            atomic_fetch_add(&b->writers, 1);
        h->counted = true;
        err = h->fd >= 0 ? write_fd(h, buf, size, offset) : write_rows(b, h, buf, size, offset, fi->writepage);
        pthread_mutex_unlock(&h->lock);
        if (err)
            fs_note_failure(fs, "", npk_error());
        fs_batch_put(fs, b);
    }
    if (err)
        fuse_reply_err(req, -err);
    else
        fuse_reply_write(req, size);
}

static void route_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    if (!is_batch(node_of(fs, ino))) {
        next.flush(req, ino, fi);
        return;
    }
    batch_handle *h = (batch_handle *)handle_of(fi);
    int err = 0;
    loop_yield(fs);
    if (h->write) {
        err = fs_control_write_flush(h->write, fi->lock_owner);
    } else if (h->name && h->head.writer) {
        fs_batch *b;
        if (fs_batch_get(fs, h->id, &b) == 0) {
            pthread_mutex_lock(&h->lock);
            if (h->counted)
                atomic_fetch_sub(&b->writers, 1);
            h->counted = false;
            pthread_mutex_unlock(&h->lock);
            fs_batch_put(fs, b);
        }
    }
    if (h->part_bytes) {
        fs_note_failure(fs, "", "what was appended in a batch ends inside a row; the unfinished row is not kept");
        err = -EINVAL;
    }
    fuse_reply_err(req, -err);
}

static void route_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    if (!is_batch(node_of(fs, ino))) {
        next.release(req, ino, fi);
        return;
    }
    loop_yield(fs);
    free_handle(fs, (batch_handle *)handle_of(fi));
    fuse_reply_err(req, 0);
}

/* O_TRUNC comes as a size of 0; other sizes of files of the batch as they are. */
static int set_size(fs_state *fs, fs_node *n, off_t size, batch_handle *h)
{
    place p;
    fs_batch *b;
    int fd = -1, err = find_place(fs, n, &p);
    if (!err)
        err = fs_batch_get(fs, p.id, &b);
    if (err)
        return err;
    err = h && h->fd >= 0 ? 0 : npk_batch_open_file(b->batch, p.name, &fd);
    if (!err && !(h && h->fd >= 0) && fd < 0 && size == 0)
        err = npk_batch_create_file(b->batch, p.name, &fd);
    int to = h && h->fd >= 0 ? h->fd : fd;
    if (!err && to < 0) {
        fs_note_failure(fs, "", "an array of the store keeps its size in a batch, or grows by whole rows that are appended");
        err = -ENOTSUP;
    }
    if (!err)
        err = sys_ftruncate(to, size);
    if (fd >= 0)
        close(fd);
    fs_batch_put(fs, b);
    return err;
}

static void route_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    fs_state *fs = fs_of(req);
    fs_node *n = node_of(fs, ino);
    struct stat st;
    if (!is_batch(n)) {
        next.setattr(req, ino, attr, to_set, fi);
        return;
    }
    loop_yield(fs);
    int err = 0;
    if (to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
        err = -EPERM; /* a commit keeps the owner and mode of the array that it replaces */
    else if (to_set & FUSE_SET_ATTR_SIZE && n->kind == NODE_BATCH_FILE)
        err = set_size(fs, n, attr->st_size, (batch_handle *)handle_of(fi));
    if (!err)
        err = stat_node(fs, n, &st);
    if (err)
        fuse_reply_err(req, -err);
    else
        fuse_reply_attr(req, &st, 0);
}

void fs_batch_route(struct fuse_lowlevel_ops *ops)
{
    next = *ops;
    ops->lookup = route_lookup;
    ops->getattr = route_getattr;
    ops->setattr = route_setattr;
    ops->mkdir = route_mkdir;
    ops->rmdir = route_rmdir;
    ops->unlink = route_unlink;
    ops->rename = route_rename;
    ops->open = route_open;
    ops->create = route_create;
    ops->read = route_read;
    ops->write = route_write;
    ops->flush = route_flush;
    ops->release = route_release;
    fs_batch_route_dirs(ops);
}
