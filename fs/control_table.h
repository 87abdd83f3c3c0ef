/* SPDX-License-Identifier: Apache-2.0 */
/* control_table.h - the tables of controls, for control.c that looks things up and for the files that fill them. */
#ifndef FS_CONTROL_TABLE_H
#define FS_CONTROL_TABLE_H

#include "control.h"

extern const fs_control fs_array_controls[];
extern const size_t fs_array_control_count;
extern const fs_control fs_mount_controls[];
extern const size_t fs_mount_control_count;

/* The last sentence about an array ("" path: about anything of the mount) with its newline; nothing if there is none. */
void fs_last_error(fs_state *fs, const char *path, fs_text *out);

/* One thing that `health` tells. */
typedef struct fs_health_note {
    time_t at;
    char *path, *sentence; /* path "": the mount */
} fs_health_note;

/* The notes kept, oldest first; called with each one while they are locked. Returns how many there were in all, those that
 * went for newer ones included. */
uint64_t fs_health_visit(fs_state *fs, void (*visit)(void *ctx, const fs_health_note *note), void *ctx);

#endif
