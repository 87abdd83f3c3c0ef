/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state.h - what the engine knows of one array beside its data: `.npkfs/<stem>.json` (P6, P10).
 *
 * The file holds one state, or two while a new data file is taking the name. Each is bound to one data file; a reader
 * opens the data first and takes the state that is bound to what it has opened. `.npkfs/i.<inode>` is a symbolic link
 * to the file, by which it is found after the array was renamed by somebody else (P26).
 *
 * Parsing and printing are pure. Files are changed with the array's lock held exclusively.
 */
#ifndef NPK_STATE_H
#define NPK_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dirty.h"

#define NPK__STATE_MAX   (16u << 20) /* bytes of a state file */
#define NPK__STATE_NAMES 65536u      /* named ranges of an array */
#define NPK__BLOCKS      4096u       /* fingerprint blocks of a data file */
#define NPK__NAME_BYTES  255u        /* of a range's name */

typedef struct npk_named { /* a named range of physical rows */
    char *name;            /* owned */
    uint64_t start, stop;
} npk_named;

typedef struct npk_state {
    uint64_t generation; /* without a log; with one it is what reading the log gives */
    uint64_t epoch;      /* of the log; 0: there is none, nothing is deleted */
    /* The data file that it is bound to. */
    npk_file_id id;
    uint64_t size;
    int64_t mtime_ns;
    uint64_t rows, row_bytes, data_offset;
    char dtype[32];
    uint32_t *blocks; /* fingerprint (identity.h); owned */
    size_t block_count;
    uint64_t stride;  /* bytes of data from one block to the next */
    bool strict;      /* the file is about to go: no other file may be taken for it */
    npk_named *names; /* ascending by name; owned */
    size_t name_count;
} npk_state;

/* Tells one writing of a state's file from another. */
typedef struct npk_state_print {
    uint64_t inode, size;
    int64_t mtime_ns, ctime_ns;
} npk_state_print;

typedef struct npk_states {
    npk_state_print print; /* of the file that it was read from */
    char leaf[256];        /* the array's file name when this was written */
    unsigned policy;       /* percent of deleted rows at which it is compacted; 0: never */
    unsigned count;        /* 1 or 2 */
    npk_state state[2];
} npk_states;

void npk__state_clear(npk_state *s);
void npk__states_clear(npk_states *s);
/* A copy of everything. -ENOMEM. */
int npk__state_copy(const npk_state *from, npk_state *to);
/* Does it say nothing that anybody would miss: no log, no names, no policy? */
bool npk__states_vacuous(const npk_states *s);

/* -EINVAL: not such a file (why receives the reason); -ENOTSUP: another version; -ENOMEM. */
int npk__states_parse(const char *text, size_t n, npk_states *out, char why[128]);
int npk__states_print(const npk_states *s, char **out); /* malloc()ed; -ENOMEM */

/* ---- files ----------------------------------------------------------------------------------------------------- */

#define NPK__STEM_BYTES 224
/* The stem of the sidecar's files for an array: its file name, or a part of it and a hash where that is very long. */
void npk__state_stem(const char *leaf, char out[NPK__STEM_BYTES]);
void npk__state_file(const char *stem, char out[256]);

/* Load by the array's name: 1: found; 0: none; -EINVAL, -ENOTSUP, -EIO with a sentence. */
int npk__state_load(int dir_fd, const char *stem, npk_states *out);
/* The print of the file that is there now; all zero: there is none. */
npk_state_print npk__state_print_now(int dir_fd, const char *stem);
/* The stem that an inode's link names, if there is one: 1, 0, or a negative errno. */
int npk__state_stem_of(int dir_fd, uint64_t inode, char stem[NPK__STEM_BYTES]);
/* Write the file durably (the folder only with sync_dir), under the stem of s->leaf, and the links of its inodes. */
int npk__state_save(int dir_fd, const npk_states *s, bool sync_dir);
/* Remove the file, its log(s) and links. */
int npk__state_remove(int dir_fd, const char *stem, const npk_states *s);
/* The file is that of an array that was renamed by somebody else, and another one needs the place: from now on it is
 * `moved.<inode>`, and found by the inode's link. With the lock of its array, too. */
int npk__state_make_way(int dir_fd, const char *stem, const npk_states *s);
/* Rename the file and its logs to `aside.*`, remove the links. out (may be NULL) receives the new name of the file. */
int npk__state_set_aside(int dir_fd, const char *stem, const npk_states *s, char out[256]);
/* Remove the link of an inode that is bound no longer, if it leads to this stem's file. */
void npk__state_unlink_inode(int dir_fd, uint64_t inode, const char *stem);
/* fsync the sidecar folder. */
int npk__sidecar_sync(int dir_fd);

#endif
