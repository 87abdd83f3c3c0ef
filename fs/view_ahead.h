/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view_ahead.h - rows of a view that are gathered before a reader in sequence asks for them.
 *
 * Reading a view costs two copies: the live rows together, and those to the reader. One request at a time comes from a
 * program that reads, so a thread makes the first copy for the next requests while the second one is made for this.
 *
 * What was gathered is not shown for ever: it is used only while nothing was written through this mount since, and only
 * for a moment (STALE_NS), for changes that the daemon does not hear of.
 */
#ifndef FS_VIEW_AHEAD_H
#define FS_VIEW_AHEAD_H

#include <sys/types.h>

#include "open.h"
#include "view.h"

typedef struct fs_ahead fs_ahead;

int view_ahead_start(fs_state *fs);
void view_ahead_stop(fs_state *fs); /* no request is under way any more */
void view_ahead_free(fs_state *fs); /* no handle is left */

/* A READ of the handle's view. True: it was answered from what is at hand. False: the caller answers it; if reads follow
 * each other, what comes behind is being gathered meanwhile. */
bool view_ahead_reply(fuse_req_t req, fs_handle *h, const fs_view *v, size_t size, uint64_t offset);
/* The handle is going. */
void view_ahead_forget(fs_state *fs, fs_handle *h);

#endif
