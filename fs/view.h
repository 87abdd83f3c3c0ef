/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view.h - arrays with deleted rows, which are shown as what is left of them.
 *
 * Such an array is a view: the daemon serves its bytes, since they are not the file's. The numbering of rows is part of a
 * node's identity (its generation), so a program that has the array open or mapped keeps the rows that it opened, while
 * opens that follow find another node (PROTOCOLS P22, P28). Generation 0 is the file as it is.
 *
 * A view itself never changes; what is appended to the file behind it follows it, byte by byte.
 */
#ifndef FS_VIEW_H
#define FS_VIEW_H

#include <sys/stat.h>

#include "open.h"

/* The generation of a file whose deleted rows are in doubt: it is shown by stat as it is, and opens fail with EUCLEAN. */
#define VIEW_IN_DOUBT UINT64_MAX

typedef struct fs_view fs_view;

/* What the name in the directory shows. The size in *stx, which is of the file, becomes that of the view. */
uint64_t view_look(fs_state *fs, fs_node *dir, int dir_fd, const char *name, struct statx *stx);
/* The same for an open file at `path`. */
uint64_t view_look_fd(fs_state *fs, const char *path, int fd, struct statx *stx);

/* The file's size as this node shows it, in *stx, which is of the file. Nothing for a node of generation 0. */
void view_size(fs_state *fs, fs_node *n, struct statx *stx);

/* o->lock is held; o->rfd is open. Have a view that shows all rows of the file counted by now. -ESTALE: the numbering is
 * not this node's any more (the old view stays); -EUCLEAN. */
int view_refresh(fs_state *fs, fs_open *o, const char *path);
/* The same for a placeholder of which nothing is deleted (upper.h); nothing to do for another file. */
int view_whole(fs_state *fs, fs_open *o, const char *path);
/* The open state's view, counted; NULL: none. Takes o->lock. */
fs_view *view_borrow(fs_state *fs, fs_open *o);
void view_return(fs_view *v); /* NULL is fine */

uint64_t view_shown(const fs_view *v); /* bytes, without what was appended since */
/* fd: the data file. Bytes done or -errno. */
ssize_t view_read(const fs_view *v, int fd, uint64_t offset, void *out, size_t bytes);
/* Where these bytes are in the data file; 0 unless all of them are rows in no more than `most` extents. */
size_t view_extents(const fs_view *v, uint64_t offset, size_t bytes, npk_view_piece *out, size_t most);
ssize_t view_write(const fs_view *v, int fd, uint64_t offset, const void *bytes, size_t count);
/* Pages that come back from a mapping: nothing of the header, nothing behind the last row (P22). 0 or -errno. */
int view_write_back(const fs_view *v, int fd, uint64_t offset, const void *bytes, size_t count);

/* A size change of the view. o->lock is held. */
int view_resize(fs_state *fs, fs_open *o, const char *path, int fd, uint64_t bytes);

#endif
