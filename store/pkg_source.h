/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pkg_source.h - where a package's bytes come from: a file, memory, or later another machine.
 *
 * All that a reader needs is the length and reads at an offset; a file behind byte ranges of a network has both.
 */
#ifndef NPK_PKG_SOURCE_H
#define NPK_PKG_SOURCE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct npk__source {
    /* Exactly `bytes` bytes at `offset`, or a negative errno: -EIO where they end early. Any number of threads. */
    int (*read)(const struct npk__source *s, void *out, size_t bytes, uint64_t offset);
    void (*close)(struct npk__source *s); /* may be NULL */
    uint64_t bytes;
    int fd;             /* a file's; else -1 */
    const uint8_t *map; /* memory's; else NULL */
} npk__source;

/* A regular file (-EINVAL with a sentence for others); takes the descriptor, also on failure. */
int npk__source_file(int fd, const char *what, npk__source *out);
/* Borrowed memory. */
npk__source npk__source_memory(const void *data, size_t bytes);

#endif
