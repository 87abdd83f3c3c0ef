/* SPDX-License-Identifier: Apache-2.0 */
/*
 * notice.h - telling the kernel that what it believes is outdated. The kernel takes locks for it that a request under way
 * may hold, so the request loop never does it (PROTOCOLS P27): from there, ask for it to be done by the notice thread.
 */
#ifndef FS_NOTICE_H
#define FS_NOTICE_H

#include "node.h"

int notices_start(fs_state *fs);
void notices_stop(fs_state *fs);
/* Any thread; returns at once. Attributes of a node, and its cached bytes [0, bytes) if not 0. */
#define NOTICE_ALL_BYTES SIZE_MAX
void notice_attributes(fs_state *fs, fs_node *n, size_t bytes);
/* The same of the attributes, unless the kernel has heard of this state when it is done: for news of changes behind the mount. */
void notice_newer(fs_state *fs, fs_node *n, const struct statx *stx);
/* If the file has another size or time by now than the kernel was told last, it is told to ask again before this returns: it
 * would cut reads and mappings at the old end until the attribute timeout. Any thread, also the request loop: of all
 * notices this one alone takes no lock that a request may hold. */
void notice_if_outdated(fs_state *fs, fs_node *n, const struct statx *stx);
/* Not on the leading thread: a control changed the array at `path`. Its bytes, and its name if another file has it now. */
void notice_array_changed(fs_state *fs, fs_node *dir, const char *leaf);
/* The same by the path of the array's file. */
void notice_path_changed(fs_state *fs, const char *path);
/* Not on the leading thread (loop_yield first): the name was forgotten by the kernel when this returns. */
void notice_entry_now(fs_state *fs, fs_node *parent, const char *name);

#endif
