/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper.h - the daemon's housekeeping thread: lets idle descriptors go, ends the write sessions of arrays that nobody
 * writes any more (PROTOCOLS P4), gives freed memory back. It sleeps while there is nothing to do.
 */
#ifndef FS_KEEPER_H
#define FS_KEEPER_H

#include "node.h"

int keeper_start(fs_state *fs);
/* Ends the thread and every session that can be ended. */
void keeper_stop(fs_state *fs);
void keeper_wake(fs_state *fs);
/* The node's array has an entry: end its session when it has been quiet for a while. Pins the node until then. */
void keeper_watch_session(fs_state *fs, fs_node *n);

#endif
