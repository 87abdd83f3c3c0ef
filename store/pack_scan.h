/* SPDX-License-Identifier: Apache-2.0 */
/* pack_scan.h - what a store holds, in the order of a package. */
#ifndef NPK_PACK_SCAN_H
#define NPK_PACK_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "npk.h"

typedef struct npk__found {
    char *path; /* owned */
    uint8_t kind; /* npk__pkg_kind */
    uint64_t inode, bytes;
    uint32_t mode;
    struct timespec mtime, ctime;
} npk__found;

typedef struct npk__scan {
    npk__found *found; /* sorted */
    size_t count, capacity;
    uint64_t bytes; /* of all files */
    struct stat root;
} npk__scan;

/* Is a path, or a directory above it, meant by one of the patterns (ended by NULL; NULL: none)? */
int npk__pattern_match(const char *const *patterns, const char *path);

/* `skip`: files that are left out by device and inode (the package itself). *out is to be cleared in any case.
 * -ENOTSUP: something that is no file, directory or link; -EINVAL: a link that leads outside. */
int npk__scan_store(npk_store *s, const char *const *exclude, const struct stat *skip, size_t skip_count,
                    npk__scan *out);
void npk__scan_clear(npk__scan *scan);
/* Is the file still what was found? st: its attributes now. */
int npk__found_same(const npk__found *f, const struct stat *st);

#endif
