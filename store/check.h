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
    npk_check_visit *visit;
    void *ctx;
} npk_checking;

/* Tell the visitor; what he returns. */
int npk__finding(const npk_checking *c, npk_severity severity, const char *path, const char *rule, bool repaired,
                 const char *fmt, ...) __attribute__((format(printf, 6, 7)));

/* The sidecar folder of the directory `path` ("" is the root). */
int npk__check_sidecar(const npk_checking *c, int dir_fd, const char *path);

#endif
