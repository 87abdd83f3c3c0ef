/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h - the handle of a store.
 *
 * A handle is a directory descriptor and what is known for good about it. It keeps nothing about arrays, so that any
 * number of handles, threads and processes see the same store.
 */
#ifndef NPK_STORE_H
#define NPK_STORE_H

#include <stdbool.h>

#include "npk.h"

struct npk_store {
    int root_fd;     /* O_PATH | O_DIRECTORY */
    unsigned flags;  /* npk_open_flags */
    char *label;     /* the path as the caller gave it, for sentences */
    struct npk_above {
        int fd;     /* O_PATH */
        char *path; /* of the root, from there */
    } * above;      /* the directories above the root that may hold it as a group, nearest first */
    unsigned above_count;
    npk_package *package; /* NULL for a directory; else root_fd is -1 and the handle is for reading */
    npk_package *lower;   /* lower.h: the package beneath it, once somebody asked; guarded by a lock of lower.c */
    struct npk__ahead *ahead; /* ahead.h; NULL: nothing yet */
    int lease_proof; /* npk_leases_prove(): what it found, 0 before; accessed atomically */
};

/* 0, or -EROFS with a sentence for a handle that was opened read-only. `name`: what the caller wanted to change. */
int npk__store_writable(const npk_store *s, const char *name);

/* The directory behind dir_fd when that lies inside a live npkfs mount (P19).
 * 1: *out is a new O_PATH descriptor of it; 0: not inside such a mount; -EBUSY with a sentence: the store behind it
 * cannot be reached. label: the path as the caller gave it. */
int npk__mount_source(int dir_fd, const char *label, int *out);

#endif
