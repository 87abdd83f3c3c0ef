/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - what the two halves of npk_check share: check.c proves the rules of arrays (F1 to F10 of FORMAT.md),
 * check_sidecar.c those of the folders beside them (F11 to F17).
 */
#ifndef NPK_CHECK_H
#define NPK_CHECK_H

#include <stdbool.h>

#include "npk.h"

typedef struct npk_checking {
    npk_store *s;
    unsigned flags; /* npk_check_flags */
    bool upper;     /* a package lies beneath the store, and it can be read */
    npk_check_visit *visit;
    void *ctx;
} npk_checking;

/* Tell the visitor; what he returns. */
int npk__finding(const npk_checking *c, npk_severity severity, const char *path, const char *rule, bool repaired,
                 const char *fmt, ...) __attribute__((format(printf, 6, 7)));

/* What a killed process left of a replace of the array's rows (J1). */
int npk__check_redo(const npk_checking *c, int dir_fd, const char *path, const char *leaf);
/* The journal of the store, before its arrays, since the next change of one finishes it (J3, J4); one of a group. */
int npk__check_journal(const npk_checking *c);
int npk__check_group_journal(const npk_checking *c, int side_fd, const char *path);
/* The batches of the store (J5, J6). */
int npk__check_batches(const npk_checking *c);
/* A file "redo.*" of the folder: is it an array's (J2)? */
int npk__check_redo_file(const npk_checking *c, int dir_fd, int side_fd, const char *file, const char *path);

/* What is known of the array's deleted rows (D1 to D7). */
int npk__check_marks(const npk_checking *c, int dir_fd, const char *path, const char *leaf);
/* A file of the folder: does a state, a log or a link belong to an array (D8)? 1: it is none of these. */
int npk__check_marks_file(const npk_checking *c, int dir_fd, int side_fd, const char *name, const char *path);

/* The sidecar folder of the directory `path` ("" is the root). */
int npk__check_sidecar(const npk_checking *c, int dir_fd, const char *path);

#endif
