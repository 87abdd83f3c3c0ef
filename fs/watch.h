/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch.h - changes made behind the mount, seen at once where inotify works. Nothing depends on it: every open looks at
 * the store, and attributes expire by themselves; on network filesystems inotify never fires.
 */
#ifndef FS_WATCH_H
#define FS_WATCH_H

#include "node.h"

int watch_start(fs_state *fs);   /* fs->watch stays NULL where inotify is off or cannot be had */
void watch_stop(fs_state *fs);
/* A name of this directory was given to the kernel: watch the directory. Cheap when it is watched already. */
void watch_directory(fs_state *fs, fs_node *dir);

#endif
