/* SPDX-License-Identifier: Apache-2.0 */
/* pkg_ops.c - the operations of a package's mount that need no data: names, attributes, listings. See pkg.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "loop.h"
#include "pkg.h"
#include "wire.h"

#define FOREVER_S 86400.0
#define AHEAD     (UINT64_C(4) << 20)
#define COUNT_ADD(counter, n) atomic_fetch_add_explicit(&fs->stats.counter, n, memory_order_relaxed)

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    wire_init(userdata, conn);
    /* Nobody else's locks are here: the kernel keeps those of this machine by itself. */
    conn->want &= ~(unsigned)(FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS);
}

/* What is under `.npk` is looked at each time; the rest never changes. */
static double timeout_of(const pkg_node *n)
{
    return n->kind == PKG_ENTRY ? FOREVER_S : 0;
}

static int fill_entry_param(fs_state *fs, const pkg_node *n, struct fuse_entry_param *e)
{
    *e = (struct fuse_entry_param){.ino = pkg_ino(n), .attr_timeout = timeout_of(n), .entry_timeout = timeout_of(n)};
    return pkg_stat(fs, n, &e->attr);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_node dir, n;
    struct fuse_entry_param e = {0};
    COUNT_ADD(lookups, 1);
    int err = pkg_node_of(fs, parent, &dir) ? pkg_child(fs, &dir, name, &n) : -ENOENT;
    if (!err)
        err = fill_entry_param(fs, &n, &e);
    if (err == -ENOENT && dir.kind == PKG_ENTRY) {
        e = (struct fuse_entry_param){.entry_timeout = FOREVER_S}; /* nor does an absent name ever come */
        err = 0;
    }
    if (err)
        fuse_reply_err(req, -err);
    if (err || fuse_reply_entry(req, &e) != 0)
        pkg_folder_forget(fs, e.ino, 1);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    pkg_folder_forget(fuse_req_userdata(req), ino, count);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        pkg_folder_forget(fuse_req_userdata(req), forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_node n;
    struct stat st;
    (void)fi;
    COUNT_ADD(getattrs, 1);
    int err = pkg_node_of(fs, ino, &n) ? pkg_stat(fs, &n, &st) : -ENOENT;
    if (err)
        fuse_reply_err(req, -err);
    else
        fuse_reply_attr(req, &st, timeout_of(&n));
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_node n;
    npk_entry e = {0};
    if (pkg_node_of(fs, ino, &n) && n.kind == PKG_ENTRY)
        pkg_entry(fs, &n, &e);
    char *target = e.target ? strndup(e.target, e.target_bytes) : NULL;
    if (target)
        fuse_reply_readlink(req, target);
    else
        fuse_reply_err(req, e.target ? ENOMEM : EINVAL);
    free(target);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    fs_state *fs = fuse_req_userdata(req);
    (void)ino;
    struct statvfs st = {
        .f_bsize = 4096,
        .f_frsize = 4096,
        .f_blocks = (npk_package_bytes(fs->pkg->package) + 4095) / 4096,
        .f_files = npk_package_count(fs->pkg->package) + 1,
        .f_namemax = 255,
    };
    fuse_reply_statfs(req, &st);
}

/* ---- listings ---------------------------------------------------------------------------------------------------- */

/* Where a listing is: 0 ".", 1 "..", then what the directory's kind has. Of entries: FIRST + the next one's number. */
#define FIRST         1024
#define CONTROLS_MOST 1000 /* of a directory, before its entries */

typedef struct listing {
    fuse_req_t req;
    char *buf;
    size_t size, used;
    bool plus, full;
} listing;

static void list_add(fs_state *fs, listing *l, const char *name, const pkg_node *n, off_t next)
{
    struct fuse_entry_param e = {0};
    bool dot = name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
    e.ino = n->kind == PKG_FOLDER_FILE ? 0 : pkg_ino(n);
    if (l->plus && !dot && n->kind != PKG_FOLDER_FILE) {
        (void)fill_entry_param(fs, n, &e);
    } else {
        npk_entry entry;
        pkg_entry(fs, n, &entry);
        bool dir = dot || (n->kind == PKG_ENTRY ? entry.kind == NPK_ENTRY_DIRECTORY : !n->control);
        if (n->kind == PKG_FOLDER_FILE) {
            dir = false;
            e.ino = 1; /* who looks it up will be told its number */
        }
        e.attr.st_mode = dir ? S_IFDIR : n->kind == PKG_ENTRY && entry.kind == NPK_ENTRY_LINK ? S_IFLNK : S_IFREG;
        e.attr.st_ino = e.ino;
        if (l->plus)
            e.ino = 0; /* no lookup is counted for these */
    }
    size_t n_bytes = l->plus ? fuse_add_direntry_plus(l->req, l->buf + l->used, l->size - l->used, name, &e, next)
                             : fuse_add_direntry(l->req, l->buf + l->used, l->size - l->used, name, &e.attr, next);
    l->full = n_bytes > l->size - l->used;
    if (!l->full)
        l->used += n_bytes;
}

/* Entries of a directory of the store, or the folders of its arrays. */
static void list_entries(fs_state *fs, listing *l, const pkg_node *dir, uint64_t offset)
{
    const npk_package *p = fs->pkg->package;
    uint64_t first = dir->entry, end = dir->entry == 0 ? npk_package_count(p) : npk_package_next(p, dir->entry - 1);
    npk_entry above;
    pkg_entry(fs, dir, &above);
    size_t skip = above.path_bytes ? above.path_bytes + 1 : 0;
    for (uint64_t i = offset > FIRST + first ? offset - FIRST : first; i < end && !l->full;) {
        pkg_node n = {.kind = dir->kind == PKG_ENTRY ? PKG_ENTRY : PKG_ARRAY, .entry = i + 1};
        uint64_t next = npk_package_next(p, i);
        if (n.kind == PKG_ENTRY || pkg_is_array(fs, n.entry)) {
            npk_entry e;
            char name[256];
            npk_package_entry(p, i, &e);
            size_t bytes = e.path_bytes - skip;
            memcpy(name, e.path + skip, bytes < sizeof name ? bytes : sizeof name - 1);
            name[bytes < sizeof name ? bytes : sizeof name - 1] = '\0';
            list_add(fs, l, name, &n, (off_t)(FIRST + next));
        }
        i = next;
    }
}

static void list_controls(fs_state *fs, listing *l, const pkg_node *dir, fs_control_scope scope, uint64_t offset)
{
    const fs_control *c;
    for (size_t i = offset > 2 ? (size_t)offset - 2 : 0; !l->full && (c = fs_control_at(scope, i)); i++) {
        pkg_node n = {.kind = scope == FS_CONTROL_MOUNT ? PKG_FACT : PKG_CONTROL, .entry = dir->entry, .control = c};
        list_add(fs, l, c->name, &n, (off_t)(3 + i));
    }
}

static void list_folders(fs_state *fs, listing *l, const pkg_node *dir, uint64_t offset)
{
    pkg_node n = {.kind = PKG_FOLDER, .entry = dir->entry};
    for (size_t i = offset > FIRST ? (size_t)(offset - FIRST) : 0; !l->full && (n.folder = fs_folder_at(i)); i++)
        list_add(fs, l, n.folder->name, &n, (off_t)(FIRST + i + 1));
}

/* The files of a folder, from the one on that the listing has come to. */
typedef struct folder_listing {
    fs_state *fs;
    listing *l;
    const pkg_node *dir;
    uint64_t next, offset;
} folder_listing;

static void list_folder_file(void *ctx, const char *name)
{
    folder_listing *f = ctx;
    pkg_node n = {.kind = PKG_FOLDER_FILE, .entry = f->dir->entry, .folder = f->dir->folder};
    f->next++;
    if (!f->l->full && f->next + 1 > f->offset)
        list_add(f->fs, f->l, name, &n, (off_t)(f->next + 2));
}

static void list_directory(fs_state *fs, listing *l, const pkg_node *dir, uint64_t offset)
{
    pkg_node controls = {.kind = PKG_CONTROLS, .entry = dir->entry};
    if (offset == 0)
        list_add(fs, l, ".", dir, 1);
    if (offset <= 1 && !l->full)
        list_add(fs, l, "..", dir, 2);
    if (l->full)
        return;
    folder_listing files = {.fs = fs, .l = l, .dir = dir, .offset = offset};
    if (dir->kind == PKG_FOLDER) {
        pkg_folder_list(fs, dir, list_folder_file, &files);
        return;
    }
    if (dir->kind == PKG_ARRAY && offset < FIRST)
        list_controls(fs, l, dir, FS_CONTROL_ARRAY, offset);
    if (dir->kind == PKG_ARRAY)
        list_folders(fs, l, dir, offset);
    else if (dir->kind == PKG_CONTROLS && dir->entry == 0 && offset < 2 + CONTROLS_MOST)
        list_controls(fs, l, dir, FS_CONTROL_MOUNT, offset);
    else if (dir->kind == PKG_ENTRY && offset <= 2 && fs->options->controls_visible)
        list_add(fs, l, ".npk", &controls, FIRST);
    if (dir->kind != PKG_ARRAY && !l->full)
        list_entries(fs, l, dir, offset);
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_node dir;
    listing l = {.req = req, .size = size, .plus = plus};
    loop_yield_if_asked(fs);
    if (!pkg_node_of(fs, ino, &dir)) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    l.buf = malloc(size);
    if (!l.buf) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    list_directory(fs, &l, &dir, (uint64_t)offset);
    fuse_reply_buf(req, l.buf, l.used);
    free(l.buf);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_node n;
    struct stat st;
    if (!pkg_node_of(fs, ino, &n) || pkg_stat(fs, &n, &st) != 0 || !S_ISDIR(st.st_mode)) {
        fuse_reply_err(req, ENOTDIR);
        return;
    }
    fi->cache_readdir = n.kind == PKG_ENTRY;
    fi->keep_cache = n.kind == PKG_ENTRY;
    fuse_reply_open(req, fi);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, size, offset, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, size, offset, true);
}

/* ---- extended attributes ----------------------------------------------------------------------------------------- */

#define PROPERTY "user.npk."

static void reply_value(fuse_req_t req, const fs_text *text, size_t room)
{
    if (room == 0)
        fuse_reply_xattr(req, text->bytes);
    else if (text->bytes > room)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, text->data, text->bytes);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_node n;
    fs_text text = {0};
    if (strncmp(name, "user.", 5) != 0 && strncmp(name, "trusted.", 8) != 0) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    bool property = strncmp(name, PROPERTY, sizeof PROPERTY - 1) == 0;
    bool array = property && pkg_node_of(fs, ino, &n) && n.kind == PKG_ENTRY && n.entry > 0 && pkg_is_array(fs, n.entry);
    char *path = array ? pkg_path(fs, &n) : NULL;
    int err = path ? fs_control_xattr_get(fs, path, name + sizeof PROPERTY - 1, &text) : -ENODATA;
    if (!err && text.failed)
        err = -ENOMEM;
    if (err)
        fuse_reply_err(req, -err);
    else
        reply_value(req, &text, size);
    fs_text_clear(&text);
    free(path);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_node n;
    fs_text names = {0};
    const fs_control *c;
    bool array = pkg_node_of(fs, ino, &n) && n.kind == PKG_ENTRY && n.entry > 0 && pkg_is_array(fs, n.entry);
    for (size_t i = 0; array && (c = fs_control_at(FS_CONTROL_ARRAY, i)); i++)
        if (c->xattr)
            fs_text_addf(&names, PROPERTY "%s%c", c->name, '\0');
    if (names.failed)
        fuse_reply_err(req, ENOMEM);
    else
        reply_value(req, &names, size);
    fs_text_clear(&names);
}

/* ---- changes: there are none ------------------------------------------------------------------------------------ */

/* The mount is no read-only one for the kernel, since questions are written to `search/`. */
static void refuse(fuse_req_t req)
{
    fuse_reply_err(req, EROFS);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    (void)parent, (void)name, (void)mode, (void)rdev;
    refuse(req);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    (void)parent, (void)name, (void)mode;
    refuse(req);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    (void)parent, (void)name;
    refuse(req);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    (void)target, (void)parent, (void)name;
    refuse(req);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *new_name, unsigned flags)
{
    (void)parent, (void)name, (void)to, (void)new_name, (void)flags;
    refuse(req);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    (void)ino, (void)parent, (void)name;
    refuse(req);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
    (void)ino, (void)name, (void)value, (void)size, (void)flags;
    refuse(req);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    (void)ino, (void)name;
    refuse(req);
}

/* ---- the package ------------------------------------------------------------------------------------------------- */

int pkg_new(fs_state *fs)
{
    struct stat st;
    fs->pkg = calloc(1, sizeof *fs->pkg);
    if (!fs->pkg)
        return -ENOMEM;
    fs->pkg->package = npk_store_package(fs->store);
    if (pkg_names_new(fs->pkg))
        return -ENOMEM;
    fs->pkg->opened = calloc(npk_package_count(fs->pkg->package) / 64 + 1, sizeof *fs->pkg->opened);
    if (!fs->pkg->opened)
        return -ENOMEM;
    npk_package_set_cache(fs->pkg->package, fs->options->cache_bytes);
    /* What is decoded ahead must not push itself out. */
    fs->pkg->ahead_bytes = fs->options->cache_bytes / 4 < AHEAD ? fs->options->cache_bytes / 4 : AHEAD;
    if (fstat(npk_package_fd(fs->pkg->package), &st) == 0) {
        fs->pkg->uid = st.st_uid;
        fs->pkg->gid = st.st_gid;
    }
    return 0;
}

void pkg_free(fs_state *fs)
{
    if (fs->pkg) {
        free((void *)fs->pkg->opened);
        pkg_names_free(fs->pkg);
    }
    free(fs->pkg);
    fs->pkg = NULL;
}

const struct fuse_lowlevel_ops pkg_operations = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .readlink = op_readlink,
    .open = pkg_op_open,
    .read = pkg_op_read,
    .release = pkg_op_release,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .statfs = op_statfs,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .create = pkg_op_create,
    .write = pkg_op_write,
    .setattr = pkg_op_setattr,
    .unlink = pkg_op_unlink,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .setxattr = op_setxattr,
    .removexattr = op_removexattr,
};
