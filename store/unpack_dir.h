/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unpack_dir.h - a directory that appears when it is complete.
 *
 * Until then it is `.NAME.unpack.RANDOM` beside its place, locked (flock) by who makes it: one that nobody has locked was left
 * by a dead process and is removed by the next who unpacks to the same name. Nothing is ever written outside: files are
 * made by name beneath it, new, without following a link; links come last.
 */
#ifndef NPK_UNPACK_DIR_H
#define NPK_UNPACK_DIR_H

#include <pthread.h>

#include "npk.h"

struct npk__later;

typedef struct npk__unpack_dir {
    int fd;        /* the directory, readable and locked */
    int parent_fd; /* that holds it */
    char *path;    /* as the caller gave it */
    char *leaf;
    char *tmp;
    struct npk__later *later; /* links, names of rows, and attributes of directories, which come at the end */
    pthread_mutex_t mutex;    /* guards `later` */
} npk__unpack_dir;

/* -EEXIST with a sentence unless the directory is absent or empty. */
int npk__unpack_begin(const char *path, npk__unpack_dir *out);
/* A directory or a link. */
int npk__unpack_other(npk__unpack_dir *d, const npk_entry *e);
/* A new file of e->bytes bytes, all holes; its mode and time come with npk__unpack_finish, which does not close it. */
int npk__unpack_file(npk__unpack_dir *d, const npk_entry *e, int *fd);
int npk__unpack_finish(npk__unpack_dir *d, int fd, const npk_entry *e);
/* Complete it and give it its name, or, after err, remove it. Returns err, or what failed now; the sentence is kept. */
int npk__unpack_end(npk__unpack_dir *d, const npk_entry *root, int err);

#endif
