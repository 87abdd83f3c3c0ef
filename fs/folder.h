/* SPDX-License-Identifier: Apache-2.0 */
/*
 * folder.h - folders among the controls of an array (`.npk/x.npy/search/`): their files are made, read and removed by
 * name, and what they hold is the folder's business. ops_folder.c joins them with nodes and requests.
 *
 * `path` is the array's file relative to the store. Every function may wait and take long: it is called off the request
 * loop. Results are 0 or a positive number, or -errno.
 */
#ifndef FS_FOLDER_H
#define FS_FOLDER_H

#include "state.h"

typedef struct fs_folder_entry {
    uint64_t bytes; /* 0 while nobody knows */
    bool writable;
} fs_folder_entry;

typedef void fs_folder_add(void *ctx, const char *name);

typedef struct fs_folder {
    const char *name;
    const char *help; /* one sentence, for the manual */
    /* Is there such a file? -ENOENT. Cheap: nothing is computed. */
    int (*find)(fs_state *fs, const char *path, const char *name, fs_folder_entry *out);
    void (*list)(fs_state *fs, const char *path, fs_folder_add *add, void *ctx);
    /* flags: of open(2), with O_CREAT where the file is to be made. req: to see whether the caller gave up. */
    int (*open)(fs_state *fs, const char *path, const char *name, int flags, fuse_req_t req, void **file);
    ssize_t (*read)(void *file, uint64_t offset, char *out, size_t bytes);
    ssize_t (*write)(void *file, uint64_t offset, const char *data, size_t bytes);
    int (*resize)(fs_state *fs, const char *path, const char *name, uint64_t bytes);
    void (*close)(fs_state *fs, void *file);
    int (*remove)(fs_state *fs, const char *path, const char *name);
} fs_folder;

/* By name; by position, NULL past the last. */
const fs_folder *fs_folder_find(const char *name);
const fs_folder *fs_folder_at(size_t index);

/* Rows by index expression or by name (rows_folder.c). */
extern const fs_folder fs_rows_folder;
/* Nearest-neighbour search (search_folder.c). */
extern const fs_folder fs_search_folder;
int fs_searches_new(fs_state *fs);
void fs_searches_free(fs_state *fs);

#endif
