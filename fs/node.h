/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.h - what the kernel knows of the store: one node per inode, under the names by which it was looked up.
 *
 * Identities, and what follows from what
 *   node id      the node's address; the kernel's handle from LOOKUP until FORGET brought the lookup count to zero.
 *   st_ino       the inode number in the store. Stable until the data file is swapped for another.
 *   (st_ino, birth time)  is the node's identity: an inode number that was given to a new file finds no old node.
 *   (parent, name)  leads to at most one node; a node has as many names as hard links were looked up, and none once it
 *                was unlinked or something took its name. Paths are made of names, walking up; they may be outdated by
 *                changes behind the mount, so whatever is opened by path is compared with the identity (ESTALE if another).
 * A node costs some 150 bytes and no descriptor. It lives while the kernel knows it (lookup count), something in the
 * daemon holds it (pins), or a child's name refers to it.
 */
#ifndef FS_NODE_H
#define FS_NODE_H

#include <sys/stat.h>

#include "control.h"
#include "state.h"

typedef enum fs_node_kind {
    NODE_STORE,          /* a file or directory of the store */
    NODE_CONTROL_ROOT,   /* `.npk` of a directory */
    NODE_CONTROL_ARRAY,  /* `.npk/x.npy` */
    NODE_CONTROL_FILE,   /* `.npk/x.npy/shape`, `.npk/version` */
    NODE_FOLDER,         /* `.npk/x.npy/search` */
    NODE_FOLDER_FILE,    /* `.npk/x.npy/search/q.npy` */
    NODE_BATCHES,        /* `.npk/batch` of the root; this and the following are batch_ops.c's */
    NODE_BATCH_DIR,      /* `.npk/batch/ID` and directories below it */
    NODE_BATCH_FILE,     /* `.npk/batch/ID/train/x.npy` */
    NODE_BATCH_CONTROL,  /* `.npk/batch/ID/.npk` */
    NODE_BATCH_STATE,    /* `.npk/batch/ID/.npk/state` */
} fs_node_kind;

typedef struct fs_node fs_node;
typedef struct fs_name fs_name;

struct fs_node {
    fs_node_kind kind;
    mode_t type;               /* S_IFMT bits; immutable */
    uint64_t ino, birth_ns;    /* immutable; birth_ns 0 where the filesystem has none */
    uint64_t generation;       /* immutable; of the numbering of an array with deleted rows, else 0 (view.h) */
    const fs_control *control; /* NODE_CONTROL_FILE */
    const struct fs_folder *folder; /* NODE_FOLDER, NODE_FOLDER_FILE */
    /* The rest is protected by the table's lock. */
    uint64_t lookups;
    uint32_t pins;
    bool dead;                 /* out of the identity hash: its inode number may be another file's by now */
    bool estale_told;          /* one ESTALE was answered to estale_pid and not followed by another open (P28) */
    pid_t estale_pid;
    fs_name *names;            /* newest first */
    fs_node *heir;             /* without names: the node of the same file that has them now, pinned */
    fs_node *next;             /* in the identity hash; of a dead node: in the list of the dead */
    fs_node *prev;             /* there */
    struct fs_open *open;      /* while open, or lately closed; its fields have their own lock */
    struct fs_dir_fd *dir_fd;  /* a kept O_PATH descriptor: of a directory used lately, of a file that lost its last name */
    _Atomic bool considered;   /* whether a policy asks to compact this numbering has been looked at */
    _Atomic bool session;      /* the store has an entry for it (npk_session_begin); outlives its open state */
    int64_t shown_mtime_ns;    /* what the kernel was last told, for the watch to compare */
    uint64_t shown_size;
    int64_t told_mtime_ns;     /* the state after which the kernel was last told to ask again */
    uint64_t told_size;
    /* Protected by the open state's lock: the file as it was when its pages were last let into the kernel's cache. */
    int64_t cached_mtime_ns, cached_ctime_ns; /* mtime 0: unknown */
    uint64_t cached_size;
};

int nodes_new(fs_state *fs);
void nodes_free(fs_state *fs);

/* Smaller hashes after many nodes were forgotten. */
void nodes_shrink(fs_state *fs);

fs_node *node_of(fs_state *fs, fuse_ino_t id);
fuse_ino_t node_id(fs_state *fs, const fs_node *n);

/* Find or make the node of what statx found under (parent, name), bind the name, and count one lookup. NULL: no memory. */
fs_node *node_bind(fs_state *fs, fs_node *parent, const char *name, const struct statx *stx, uint64_t generation);
/* The same for a file without a name (O_TMPFILE). */
fs_node *node_bind_unnamed(fs_state *fs, const struct statx *stx);
/* The same for something under `.npk`. */
fs_node *node_bind_control(fs_state *fs, fs_node *parent, const char *name, fs_node_kind kind, const fs_control *control);
/* The same for a folder of controls or a file in one. */
fs_node *node_bind_folder(fs_state *fs, fs_node *parent, const char *name, fs_node_kind kind, const struct fs_folder *folder);
/* The node under a name, pinned, or NULL. */
fs_node *node_find(fs_state *fs, fs_node *parent, const char *name);
void node_pin(fs_state *fs, fs_node *n);
void node_unpin(fs_state *fs, fs_node *n);
void node_forget(fs_state *fs, fs_node *n, uint64_t count);

/* Names follow the store: after unlink/rmdir, rename (exchange: both ways), and when a name was found to be another file. */
void node_unname(fs_state *fs, fs_node *parent, const char *name);
void node_rename(fs_state *fs, fs_node *from, const char *name, fs_node *to, const char *new_name, bool exchange);
/* The inode is gone: its number may come back as another file. */
void node_mark_dead(fs_state *fs, fs_node *n);

/* The path relative to the store, malloc()ed ("" for the root); NULL: the node has no name (or no memory). Of a control:
 * the path of the array or directory that it is about. */
char *node_path(fs_state *fs, fs_node *n);
/* Has it more than one; the first goes behind the others. */
bool node_has_names(fs_state *fs, fs_node *n);
void node_turn_names(fs_state *fs, fs_node *n);
/* A name of the node: its parent, pinned, and the text in name[256]. -ESTALE: it has none. */
int node_place(fs_state *fs, fs_node *n, fs_node **parent, char name[256]);
/* The directory of the store and the array's leaf that a control is about; the directory is pinned. False: none. */
bool node_array_of(fs_state *fs, fs_node *control, fs_node **dir, char leaf[256]);
bool node_is_named_like_array(fs_state *fs, fs_node *n); /* some name ends in .npy, or it did when opened */

/* P28: may this OPEN be answered ESTALE? At most once per open of a process. */
bool node_may_tell_stale(fs_state *fs, fs_node *n, pid_t pid);
/* Was this process answered ESTALE for another node, and has opened nothing since? It is the same open(2) then, which the
 * kernel begins again but once. */
bool node_told_another(fs_state *fs, const fs_node *n, pid_t pid);
/* May an open of this process that leads to no node yet be answered ESTALE, so that the kernel begins it again? */
bool node_may_begin_again(fs_state *fs, pid_t pid);
/* A LOOKUP of this process found the node: if it follows an ESTALE, the OPEN that comes next must not be told another one. */
void node_found(fs_state *fs, const fs_node *n, pid_t pid);
bool node_found_again(fs_state *fs, const fs_node *n, pid_t pid);
/* The process has opened something. */
void node_open_done(fs_state *fs, pid_t pid);

/* An O_PATH descriptor of a directory node, valid until released. Negative: -errno (-ESTALE: it is not there any more). */
typedef struct fs_dir_fd fs_dir_fd;
int dir_fd_get(fs_state *fs, fs_node *dir, fs_dir_fd **out);
int dir_fd_number(const fs_dir_fd *d);
void dir_fd_put(fs_state *fs, fs_dir_fd *d);
/* The node is about to lose its last name, but programs may still stand in it or hold it by O_PATH: keep this descriptor
 * (taken over) for it until the kernel forgets it. */
void dir_fd_adopt(fs_state *fs, fs_node *n, int fd);
/* The kept descriptor of a node, counted, or NULL. */
fs_dir_fd *dir_fd_kept(fs_state *fs, fs_node *n);

/* Is what the kernel was last told of the file's size and time still so? */
bool node_shows(fs_state *fs, const fs_node *n, const struct statx *stx);
/* Was it told of this state or a later one, or to ask again since? If not, the caller tells it now. */
bool node_knows(fs_state *fs, fs_node *n, uint64_t size, int64_t mtime_ns);

uint64_t node_birth_ns(const struct statx *stx);
static inline int64_t statx_ns(const struct statx_timestamp *t)
{
    return t->tv_sec * 1000000000ll + t->tv_nsec;
}
void stat_from_statx(struct stat *st, const struct statx *stx);

#endif
