/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lower.h - a package beneath a store: the store (the upper) shows all that is in the package (the lower), and keeps what
 * is changed.
 *
 * The upper has a file for every file of the package from the start, and a large one is a placeholder: a page that says
 * where in the package its data is, and holes. So names, modes, times, attributes, deleted rows and named ranges are
 * those of ordinary files, changed by ordinary means and as safe as these: a removal removes the placeholder, a rename
 * moves it. Only what reads data asks here; what writes data has the placeholder replaced by the whole file first, as
 * any new file takes a name (swap.h).
 */
#ifndef NPK_LOWER_H
#define NPK_LOWER_H

#include <stddef.h>
#include <stdint.h>

#include "npk.h"

#define NPK__LOWER_FILE "lower" /* of the root's sidecar folder: which package it is */

#define NPK__PLACEHOLDER_BYTES 4096 /* the page; a file must be larger than two of them */
#define NPK__PLACEHOLDER_HEAD  3960 /* bytes of the file that are repeated in it, so that its header can be read */

typedef struct npk__placeholder {
    uint64_t package_bytes, package_sum; /* of which package */
    uint64_t entry, record_sum;          /* which of its files */
    const uint8_t *head;                 /* the first NPK__PLACEHOLDER_HEAD bytes of the file; in the page */
} npk__placeholder;

/* Are these, the first `bytes` bytes of a file of file_bytes, a placeholder? 1, 0, or -EIO: one that is damaged. */
int npk__placeholder_parse(const uint8_t *page, size_t bytes, uint64_t file_bytes, npk__placeholder *out);
/* 1: the empty file that fd is, of its full size already, is a placeholder now; 0: it is to have the data itself, since it
 * is small, or its header is long, or it has bytes behind its rows. */
int npk__placeholder_write(int fd, npk_package_file *f);
/* The data behind an open file of the store. *out is NULL for a file that is no placeholder. -EREMOTE: the package cannot
 * be had. With a sentence. */
int npk__placeholder_open(npk_store *s, int fd, npk_package_file **out);

/* Give the file its data, if it is a placeholder: whole and durable, or not at all. The array's lock is held. Owner, mode,
 * attributes, times and what is known of its rows stay; the inode is another one. */
int npk__lower_copy_up(npk_store *s, int dir_fd, const char *leaf);

/* The file that names the package, in the sidecar folder of a directory that is being made an upper. */
int npk__lower_note(int dir_fd, npk_package *p);
/* 1: there is one, and it is of this package or of another; 0: none; or an error with a sentence. */
int npk__lower_noted(int dir_fd, char **path, uint64_t *bytes, uint64_t *sum);
/* The package beneath the store, opened if need be; the store's. -EREMOTE with a sentence. */
int npk__lower_package(npk_store *s, npk_package **out);
/* Tells a package from others. */
uint64_t npk__package_sum(const npk_package *p);

/* unpack.c: a directory with a placeholder for each large file of the package. */
int npk__unpack_lower(const char *path, const char *dir);
/* The file whole into fd, which has its size and holes only. */
int npk__unpack_fill(npk_package_file *f, int fd);

#endif
