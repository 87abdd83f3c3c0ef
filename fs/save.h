/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save.h - `-o atomic_save`: a save over an array is seen when it is closed, and only if it is complete (PROTOCOLS P30).
 *
 * Who opens an existing array with O_TRUNC gets a node of his own, which has no name yet and whose file is the engine's
 * (npk_save_file). The kernel is brought there as to any file that took a name: OPEN is answered ESTALE, the kernel looks
 * the name up again in the same thread, and that LOOKUP alone is answered with the new node, for this one time.
 * Everybody else finds the array as it was. At the first FLUSH at which the file is complete it takes the name.
 *
 *   OPEN(O_TRUNC) of the array -> wanted --LOOKUP by this thread--> waiting --OPEN of the new node--> open
 *   open --FLUSH, complete--> it has the name      open --last RELEASE, not complete--> set aside as NAME.npy.unfinished
 */
#ifndef FS_SAVE_H
#define FS_SAVE_H

#include "open.h"

typedef struct fs_save fs_save;

/* Nothing below does anything unless the option was given. */
int saves_new(fs_state *fs);
/* At the end of the mount: saves that were not closed are set aside. */
void saves_free(fs_state *fs);

/* An OPEN of n for writing with O_TRUNC, or a CREATE of (parent, name) that found a file there. True: it was answered. */
bool save_wanted(fuse_req_t req, fs_node *n);
bool save_wanted_at(fuse_req_t req, fs_node *parent, const char *name);
/* A LOOKUP. True: it was answered, with the node of the caller's save. */
bool save_lookup(fuse_req_t req, fs_node *parent, const char *name);
/* o->lock is held: a handle of o was made. Nothing for what is no save. */
void save_opened(fs_state *fs, fs_open *o, int flags);
/* o->lock is not held. A FLUSH of a writing handle; 0 or the errno for close. */
int save_flush(fuse_req_t req, fs_handle *h);
/* A RELEASE, before the handle goes. */
void save_release(fs_state *fs, fs_handle *h);
/* FSYNC: the name is to be durable, too. */
void save_synced(fs_state *fs, fs_handle *h);
/* Give up those whose OPEN never came. Returns how many still wait. */
size_t saves_expire(fs_state *fs);

#endif
