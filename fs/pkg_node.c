/* SPDX-License-Identifier: Apache-2.0 */
/* pkg_node.c - see pkg.h: what inode numbers mean, names, attributes. */
#include "pkg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The kind is in the highest bits, a control's place in its table below, the entry in the rest. 1 is the root. */
#define KIND_SHIFT    60
#define CONTROL_SHIFT 48
#define ENTRY_MASK    ((UINT64_C(1) << CONTROL_SHIFT) - 1)
#define CONTROL_MASK  0xfffu

static size_t control_number(const pkg_node *n)
{
    fs_control_scope scope = n->kind == PKG_FACT ? FS_CONTROL_MOUNT : FS_CONTROL_ARRAY;
    size_t i = 0;
    while (n->control && fs_control_at(scope, i) != n->control)
        i++;
    return i;
}

fuse_ino_t pkg_ino(const pkg_node *n)
{
    if (n->kind == PKG_FOLDER_FILE)
        return (uint64_t)n->kind << KIND_SHIFT | (uintptr_t)n->named;
    uint64_t control = n->kind == PKG_CONTROL || n->kind == PKG_FACT ? control_number(n) : 0;
    while (n->kind == PKG_FOLDER && fs_folder_at(control) != n->folder)
        control++;
    return (uint64_t)n->kind << KIND_SHIFT | control << CONTROL_SHIFT | (n->entry + FUSE_ROOT_ID);
}

bool pkg_node_of(fs_state *fs, fuse_ino_t ino, pkg_node *out)
{
    uint64_t entry = (ino & ENTRY_MASK) - FUSE_ROOT_ID;
    *out = (pkg_node){.kind = (pkg_kind)(ino >> KIND_SHIFT), .entry = entry};
    if (out->kind == PKG_FOLDER_FILE) { /* the kernel names none but those that it was told and has not forgotten */
        out->named = (pkg_named *)(uintptr_t)(ino & ~(UINT64_MAX << KIND_SHIFT));
        (void)pkg_named_of(out->named, &out->entry, &out->folder);
        return true;
    }
    if (out->kind > PKG_FOLDER || entry > npk_package_count(fs->pkg->package))
        return false;
    size_t control = ino >> CONTROL_SHIFT & CONTROL_MASK;
    if (out->kind == PKG_CONTROL)
        out->control = fs_control_at(FS_CONTROL_ARRAY, control);
    else if (out->kind == PKG_FACT)
        out->control = fs_control_at(FS_CONTROL_MOUNT, control);
    else if (out->kind == PKG_FOLDER)
        return (out->folder = fs_folder_at(control)) != NULL;
    return (out->kind != PKG_CONTROL && out->kind != PKG_FACT) || out->control;
}

void pkg_entry(fs_state *fs, const pkg_node *n, npk_entry *out)
{
    if (n->entry == 0)
        npk_package_root(fs->pkg->package, out);
    else
        npk_package_entry(fs->pkg->package, n->entry - 1, out);
}

char *pkg_path(fs_state *fs, const pkg_node *n)
{
    npk_entry e;
    pkg_entry(fs, n, &e);
    return strndup(e.path, e.path_bytes);
}

bool pkg_is_array(fs_state *fs, uint64_t entry)
{
    npk_package_file *f = NULL;
    npk_info info = {0};
    npk_entry e;
    npk_package_entry(fs->pkg->package, entry - 1, &e);
    if (e.kind != NPK_ENTRY_FILE || e.path_bytes < 5 || memcmp(e.path + e.path_bytes - 4, ".npy", 4) != 0)
        return false;
    bool is = npk_package_file_open(fs->pkg->package, entry - 1, &f) == 0 && npk_package_file_stat(f, &info) == 0 &&
              !info.reason;
    npk_info_clear(&info);
    npk_package_file_close(&f);
    return is;
}

/* The entry of this name below a directory of the store. */
static int find_entry(fs_state *fs, const pkg_node *dir, const char *name, uint64_t *out)
{
    npk_entry e;
    char path[4096];
    pkg_entry(fs, dir, &e);
    if (e.kind != NPK_ENTRY_DIRECTORY)
        return -ENOTDIR;
    int n = snprintf(path, sizeof path, "%.*s%s%s", (int)e.path_bytes, e.path, e.path_bytes ? "/" : "", name);
    uint64_t i;
    if (n < 0 || (size_t)n >= sizeof path)
        return -ENAMETOOLONG;
    if (npk_package_find(fs->pkg->package, path, (size_t)n, &i) != 0)
        return -ENOENT;
    *out = i + 1;
    return 0;
}

int pkg_child(fs_state *fs, const pkg_node *dir, const char *name, pkg_node *out)
{
    *out = (pkg_node){.kind = PKG_ENTRY};
    switch (dir->kind) {
    case PKG_ENTRY:
        if (strcmp(name, ".npk") != 0)
            return find_entry(fs, dir, name, &out->entry);
        *out = (pkg_node){.kind = PKG_CONTROLS, .entry = dir->entry};
        npk_entry e;
        pkg_entry(fs, dir, &e);
        return e.kind == NPK_ENTRY_DIRECTORY ? 0 : -ENOTDIR;
    case PKG_CONTROLS:
        if (dir->entry == 0 && (out->control = fs_control_find(FS_CONTROL_MOUNT, name))) {
            out->kind = PKG_FACT;
            return 0;
        }
        out->kind = PKG_ARRAY;
        int err = find_entry(fs, dir, name, &out->entry);
        return err ? err : pkg_is_array(fs, out->entry) ? 0 : -ENOENT;
    case PKG_ARRAY:
        *out = (pkg_node){.kind = PKG_CONTROL, .entry = dir->entry, .control = fs_control_find(FS_CONTROL_ARRAY, name)};
        if (!out->control && (out->folder = fs_folder_find(name)))
            out->kind = PKG_FOLDER;
        return out->control || out->folder ? 0 : -ENOENT;
    case PKG_FOLDER:
        return pkg_folder_child(fs, dir, name, out);
    default:
        return -ENOTDIR;
    }
}

static uint64_t text_bytes(fs_state *fs, const pkg_node *n)
{
    fs_text text = {0};
    char *path = n->control->cheap ? pkg_path(fs, n) : NULL;
    if (path)
        (void)n->control->render(fs, n->kind == PKG_FACT ? "" : path, &text);
    uint64_t bytes = text.bytes;
    fs_text_clear(&text);
    free(path);
    return bytes;
}

int pkg_stat(fs_state *fs, const pkg_node *n, struct stat *st)
{
    npk_entry e;
    pkg_entry(fs, n, &e);
    int64_t seconds = e.mtime_ns / 1000000000, rest = e.mtime_ns % 1000000000;
    *st = (struct stat){.st_ino = pkg_ino(n), .st_nlink = 1, .st_uid = fs->pkg->uid, .st_gid = fs->pkg->gid};
    st->st_mtim.tv_sec = seconds - (rest < 0);
    st->st_mtim.tv_nsec = rest + (rest < 0 ? 1000000000 : 0);
    st->st_atim = st->st_ctim = st->st_mtim;
    st->st_blksize = 4096;
    mode_t mode = e.mode;
    if (n->kind == PKG_ENTRY) {
        static const mode_t types[] = {
            [NPK_ENTRY_DIRECTORY] = S_IFDIR, [NPK_ENTRY_FILE] = S_IFREG, [NPK_ENTRY_LINK] = S_IFLNK};
        st->st_mode = types[e.kind] | mode;
        st->st_size = (off_t)(e.kind == NPK_ENTRY_LINK ? e.target_bytes : e.bytes);
        st->st_blocks = (blkcnt_t)((e.bytes + 511) / 512);
    } else if (n->folder) {
        st->st_mode = mode;
        int err = pkg_folder_stat(fs, n, st);
        if (err)
            return err;
    } else if (n->control) {
        st->st_mode = S_IFREG | (mode & 0444);
        st->st_size = (off_t)text_bytes(fs, n);
    } else { /* a directory can be entered by who may read what it is about */
        st->st_mode = S_IFDIR | (mode & 0444) | (mode & 0444) >> 2;
    }
    if (S_ISDIR(st->st_mode))
        st->st_nlink = 2;
    return 0;
}
