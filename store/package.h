/* SPDX-License-Identifier: Apache-2.0 */
/*
 * package.h - an open package: its index, its files, its decoded frames.
 *
 * Immutable once open, so any number of threads read at once. The public part is in npk.h.
 */
#ifndef NPK_PACKAGE_H
#define NPK_PACKAGE_H

#include <pthread.h>
#include <stdbool.h>

#include "npk.h"
#include "pkg_cache.h"
#include "pkg_format.h"
#include "pkg_frame.h"
#include "pkg_source.h"

/* What a thread needs to read a frame; taken from the package and given back. */
typedef struct npk__reader {
    npk__codec *codec;
    uint8_t *payload;
    size_t capacity;
    struct npk__reader *next;
} npk__reader;

/* Which frames of a contiguous file had the right checksum: known for as long as the package is open. */
typedef struct npk__proof {
    struct npk__proof *next;
    uint64_t entry;
    _Atomic uint64_t bits[];
} npk__proof;

struct npk_package {
    npk__source source;
    char *label; /* for sentences */
    npk__pkg_header header;
    npk__pkg_footer footer;
    uint8_t *index;
    uint32_t *entry; /* where each entry begins in the index, behind its first 8 bytes */
    uint64_t *begin; /* where each record begins in the package; one more for their end */
    uint64_t count;
    npk__cache *cache;
    pthread_mutex_t mutex;
    npk__reader *readers;
    const uint8_t *map; /* all of it, once somebody wanted contiguous bytes; else NULL */
    npk_package_file *files; /* open ones, at most one an entry */
    npk__proof *proofs[256]; /* by entry */
};

struct npk_package_file {
    npk_package *package;
    uint64_t entry;
    npk__pkg_record record;
    uint64_t frames;
    uint64_t *at;    /* where each frame's payload begins; NULL while there is one frame or none */
    uint32_t *size;  /* of each payload, 0 for zeros */
    uint64_t *sum;   /* contiguous: the checksum of each frame */
    uint64_t one_at; /* the same for a single frame */
    uint32_t one_size;
    _Atomic uint64_t page; /* an offset in the file that is to begin a page of memory where frames are decoded */
    npk__proof *proof; /* contiguous: the package's */
    unsigned references;
    npk_package_file *next;
};

int npk__package_open_source(npk__source *source, const char *label, npk_package **out); /* takes the source */
/* The record of entry i. */
npk__pkg_record npk__package_record(const npk_package *p, uint64_t i);
/* Where the file's bytes begin in the package, for contiguous ones. */
uint64_t npk__package_contiguous(const npk_package *p, uint64_t i);

/* Read the table of an entry without caching the file. */
int npk__package_table(npk_package *p, npk_package_file *f, npk__codec *codec);
void npk__package_file_clear(npk_package_file *f);

npk__reader *npk__reader_take(npk_package *p); /* NULL without memory */
void npk__reader_give(npk_package *p, npk__reader *r);
/* Decode a whole frame to out. -EIO with a sentence that names the file and the frame's rows or bytes. */
int npk__package_frame(npk_package_file *f, npk__reader *r, uint64_t frame, uint8_t *out);
/* Hold the decoded frame; npk__cache_put gives it back. */
int npk__package_hold(npk_package_file *f, uint64_t frame, npk__cached **out);
/* The package from its begin to its end, mapped once. NULL: it cannot be. */
const uint8_t *npk__package_mapping(npk_package *p);
/* Contiguous: was the frame's checksum found right? Find it so, once. */
bool npk__package_is_proved(const npk_package_file *f, uint64_t frame);
int npk__package_prove(npk_package_file *f, uint64_t frame);
/* Exactly `bytes` bytes of the data behind the head. */
int npk__package_data(npk_package_file *f, uint64_t offset, void *out, size_t bytes);

#endif
