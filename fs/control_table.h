/* SPDX-License-Identifier: Apache-2.0 */
/* control_table.h - the tables of controls, for control.c that looks things up and for the files that fill them. */
#ifndef FS_CONTROL_TABLE_H
#define FS_CONTROL_TABLE_H

#include "control.h"

extern const fs_control fs_array_controls[];
extern const size_t fs_array_control_count;
extern const fs_control fs_mount_controls[];
extern const size_t fs_mount_control_count;

/* The facts of an array as they are shown now, and a descriptor to read more from (the caller's to close). The usual case
 * takes no lock; npk_info_clear after use. Negative: -errno. */
int fs_array_open(fs_state *fs, const char *path, npk_info *info);
/* The engine's name of the array: without the suffix. malloc()ed, or NULL. */
char *fs_array_name(const char *path);
/* Fill *why with the line as it was written, and the sentence; returns err. */
int fs_refuse(int err, fs_text *why, const char *line, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* control_rows.c: controls of deleted rows and named ranges. */
extern const fs_numbered fs_drop_rows;
int fs_render_restore(fs_state *fs, const char *path, fs_text *out);
int fs_check_restore(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);
int fs_apply_restore(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);
int fs_render_compact(fs_state *fs, const char *path, fs_text *out);
int fs_check_compact(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);
int fs_apply_compact(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);
int fs_render_names(fs_state *fs, const char *path, fs_text *out);
int fs_check_names(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);
int fs_apply_names(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);

/* control_whole.c: controls that read the whole array. */
int fs_render_clone(fs_state *fs, const char *path, fs_text *out);
int fs_check_clone(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);
int fs_apply_clone(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);
int fs_check_cast(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);
int fs_apply_cast(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);
int fs_render_summary(fs_state *fs, const char *path, fs_text *out);

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
