/* SPDX-License-Identifier: Apache-2.0 */
/* session.h - one mount from its making to its end. */
#ifndef FS_SESSION_H
#define FS_SESSION_H

#include "npk.h"
#include "options.h"

typedef struct fs_state fs_state;

/* Make the FUSE session and mount it. The store's handle stays the caller's. 0 or -errno, with a sentence in
 * why[0..why_bytes). */
int fs_session_mount(const fs_options *o, npk_store *store, fs_state **out, char *why, unsigned why_bytes);
/* Serve until the mount goes away or fs_session_stop. 0 or -errno. */
int fs_session_run(fs_state *fs);
/* Ask the loop to end; async-signal-safe. */
void fs_session_stop(fs_state *fs);
/* Unmount if still mounted, end all threads, end the write sessions of the store, free. */
void fs_session_end(fs_state *fs);

#endif
