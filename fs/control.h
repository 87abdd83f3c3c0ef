/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - the files under `.npk`: a table of controls, one entry each (name, render, apply), and the protocol by
 * which text written to one becomes whole lines (PROTOCOLS P15).
 *
 * Who is asked about: `path` is an array's file relative to the store ("train/x.npy") for controls of an array, and ""
 * for facts of the mount. No function here knows a node or a request; ops_control.c joins the two.
 */
#ifndef FS_CONTROL_H
#define FS_CONTROL_H

#include "state.h"

typedef enum fs_control_scope { FS_CONTROL_ARRAY, FS_CONTROL_MOUNT } fs_control_scope;

/* A growing text; data is malloc()ed. */
typedef struct fs_text { char *data; size_t bytes, capacity; bool failed; } fs_text;
void fs_text_addf(fs_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void fs_text_clear(fs_text *t);

/* Of a control whose lines are rows as they were numbered when it was opened, also after the first of them had their
 * effect (P15). Text is given in whole lines, each ended by a NUL; a .npy file whole. */
typedef struct fs_numbered {
    int (*see)(fs_state *fs, const char *path, void **seen);
    void (*forget)(void *seen);
    /* Check everything, then do it. 0 or -errno; on failure *why gets one sentence. */
    int (*lines)(fs_state *fs, const char *path, void *seen, const char *lines, size_t bytes, fs_text *why);
    int (*npy)(fs_state *fs, const char *path, void *seen, const void *file, size_t bytes, fs_text *why);
} fs_numbered;

typedef struct fs_control fs_control;
struct fs_control {
    const char *name;
    const char *help;           /* one sentence, for the manual's table */
    bool cheap;                 /* O(1): its size may be told by stat (P33) */
    bool xattr;                 /* also user.npk.<name> */
    /* Append the text to out. 0 or -errno. */
    int (*render)(fs_state *fs, const char *path, fs_text *out);
    /* NULL: read-only. Check one line (no newline, NUL-terminated, len bytes) without changing anything, then do it.
     * 0 or -errno; on failure *why gets one sentence. */
    int (*check)(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);
    int (*apply)(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);
    const fs_numbered *numbered; /* instead of the two (apply is not NULL then): what is written means rows */
};

/* NULL: no such control. */
const fs_control *fs_control_find(fs_control_scope scope, const char *name);
/* index 0.. ; NULL past the last. */
const fs_control *fs_control_at(fs_control_scope scope, size_t index);

/* One open of a control for writing. Ignore offsets; whole lines act inside write; the rest at the flush of the writer. */
typedef struct fs_control_write fs_control_write;
fs_control_write *fs_control_write_open(fs_state *fs, const fs_control *c, const char *path);
/* bytes taken (all) or -errno. lock_owner: the writer's, as FUSE gives it. May block: call it off the request loop. */
int fs_control_write_data(fs_control_write *w, const char *data, size_t bytes, uint64_t lock_owner);
/* At FLUSH: applies the unfinished last line if lock_owner is the writes'. 0 or -errno. */
int fs_control_write_flush(fs_control_write *w, uint64_t lock_owner);
/* At RELEASE: what is still unfinished is applied (nobody hears its errno but last_error does). Frees. */
void fs_control_write_close(fs_control_write *w);

/* Sentences of the last failures, per array (bounded, the oldest go) and of the mount. */
int fs_controls_new(fs_state *fs);
void fs_controls_free(fs_state *fs);
void fs_note_failure(fs_state *fs, const char *path /* "" or an array's */, const char *sentence);
/* Events that `health` tells (recoveries, tails not adopted, sidecars set aside): key, sentence; the latest 64. */
void fs_note_health(fs_state *fs, const char *path, const char *sentence);

/* user.npk.NAME attributes of an array's file; name without the prefix. -ENODATA: no such property. */
int fs_control_xattr_get(fs_state *fs, const char *path, const char *name, fs_text *out);
int fs_control_xattr_set(fs_state *fs, const char *path, const char *name, const char *value, size_t bytes);

#endif
