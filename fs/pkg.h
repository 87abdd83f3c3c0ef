/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pkg.h - the mount of a package: read-only, its own operations, nodes without a table.
 *
 * A package never changes, so an inode number says all: which entry of the index, or which control of which entry. The
 * kernel may keep names, attributes and pages for as long as it likes, and forgetting costs nothing. Only the files of
 * `slices/` and `search/` have names of their own, kept while the kernel knows them (pkg_folder.c).
 */
#ifndef FS_PKG_H
#define FS_PKG_H

#include "control.h"
#include "folder.h"

/* What an inode number means. */
typedef enum pkg_kind {
    PKG_ENTRY,        /* of the store: the root, a group, a file, a link */
    PKG_CONTROLS,     /* `.npk` of a directory */
    PKG_ARRAY,        /* `.npk/x.npy` */
    PKG_CONTROL,      /* `.npk/x.npy/shape` */
    PKG_FACT,         /* `.npk/version` of the root */
    PKG_FOLDER,       /* `.npk/x.npy/search` */
    PKG_FOLDER_FILE,  /* `.npk/x.npy/search/q.npy` */
} pkg_kind;

typedef struct pkg_named pkg_named;

typedef struct pkg_node {
    pkg_kind kind;
    uint64_t entry;            /* of the index + 1; 0: the root */
    const fs_control *control; /* of a control or a fact */
    const fs_folder *folder;   /* of the last two */
    pkg_named *named;          /* of the last */
} pkg_node;

struct fs_pkg {
    npk_package *package;
    uid_t uid; /* the package's owner owns all that is in it */
    gid_t gid;
    _Atomic uint64_t *opened; /* a bit for each entry that was opened before */
    uint64_t ahead_bytes;     /* how far before a reader frames are decoded */
    struct pkg_names *names;  /* files of folders that the kernel knows */
    struct pkg_ahead *ahead;  /* the threads that decode ahead of readers */
};

extern const struct fuse_lowlevel_ops pkg_operations;

/* fs->pkg for the package that fs->store is. 0 or -errno. */
int pkg_new(fs_state *fs);
void pkg_free(fs_state *fs);

/* pkg_node.c */
fuse_ino_t pkg_ino(const pkg_node *n);
bool pkg_node_of(fs_state *fs, fuse_ino_t ino, pkg_node *out); /* false: no such number */
void pkg_entry(fs_state *fs, const pkg_node *n, npk_entry *out); /* the entry that it is or is about */
char *pkg_path(fs_state *fs, const pkg_node *n); /* of that entry; malloc()ed */
/* The node of this name in a directory. 0, -ENOENT, -ENOTDIR. */
int pkg_child(fs_state *fs, const pkg_node *dir, const char *name, pkg_node *out);
bool pkg_is_array(fs_state *fs, uint64_t entry);
int pkg_stat(fs_state *fs, const pkg_node *n, struct stat *st);

/* pkg_folder.c: what a node of a folder is answered with; results as in folder.h. */
int pkg_names_new(struct fs_pkg *p);
void pkg_names_free(struct fs_pkg *p);
const char *pkg_named_of(const pkg_named *named, uint64_t *entry, const fs_folder **folder);
int pkg_folder_child(fs_state *fs, const pkg_node *dir, const char *name, pkg_node *out); /* counts a lookup */
void pkg_folder_forget(fs_state *fs, fuse_ino_t ino, uint64_t count);
int pkg_folder_stat(fs_state *fs, const pkg_node *n, struct stat *st); /* st holds what is so of the array */
void pkg_folder_list(fs_state *fs, const pkg_node *dir, fs_folder_add *add, void *ctx);
void pkg_folder_open(fuse_req_t req, const pkg_node *n, struct fuse_file_info *fi);
void pkg_folder_read(fuse_req_t req, const pkg_node *n, size_t size, off_t offset, struct fuse_file_info *fi);
void pkg_folder_release(fuse_req_t req, const pkg_node *n, struct fuse_file_info *fi);
void pkg_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void pkg_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi);
void pkg_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void pkg_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);

/* pkg_data.c */
void pkg_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void pkg_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void pkg_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

/* pkg_ahead.c */
int pkg_ahead_start(fs_state *fs);
void pkg_ahead_stop(fs_state *fs);
/* Decode the frames of [offset, offset + bytes) of the entry's file, some time soon, on other threads. */
void pkg_ahead_ask(fs_state *fs, uint64_t entry, uint64_t frame_bytes, uint64_t offset, uint64_t bytes);

#endif
