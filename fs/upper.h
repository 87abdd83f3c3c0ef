/* SPDX-License-Identifier: Apache-2.0 */
/*
 * upper.h - the store over a package (`-o upper=DIR`): files whose data is still in the package are placeholders.
 *
 * The daemon serves them through a view (view.h) of the package's bytes, and names, attributes and deleted rows need
 * nothing of this. The first open for writing gives the file its data; it is another file then, which the kernel finds by
 * looking the name up again, so who has the old one open goes on reading what is in the package.
 */
#ifndef FS_UPPER_H
#define FS_UPPER_H

#include "options.h"
#include "open.h"

/* Open the store that the options ask for: upper over source. 0 or -errno with a sentence in why. */
int upper_open(const fs_options *o, npk_store **out, char *why, unsigned why_bytes);

/* Is the node's open file a placeholder? False for mounts without an upper, at no cost. o->lock is held. */
bool upper_is_placeholder(fs_state *fs, const fs_open *o);
/* It is about to be written: its data is copied. -ESTALE: done, the kernel shall look again. o->lock is held. */
int upper_copy_up(fuse_req_t req, fs_open *o, const char *path);
/* The same for a node that is not open: 0 for what is no placeholder. */
int upper_copy_up_node(fuse_req_t req, fs_node *n);

#endif
