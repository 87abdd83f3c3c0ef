/* SPDX-License-Identifier: Apache-2.0 */
/* pack_out.h - a package as it is written: records, frames, tables, the index, front to back without seeking. */
#ifndef NPK_PACK_OUT_H
#define NPK_PACK_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pkg_format.h"
#include "pkg_frame.h"

typedef struct npk__pack_out {
    int fd; /* borrowed */
    const char *label; /* of the package, for sentences; borrowed */
    uint64_t at;
    uint8_t *buffer;
    size_t buffered;
    npk__codec *codec;
    /* of the record that is under way */
    npk__pkg_record record;
    uint64_t begin;
    uint32_t zeros; /* frames of zeros that were not written yet */
    uint8_t *table;
    size_t table_bytes, table_capacity;
    uint64_t frames;
    /* of the package */
    uint8_t *index;
    size_t index_bytes, index_capacity;
    uint64_t count, chain;
} npk__pack_out;

/* *o is to be closed in any case. */
int npk__pack_out_open(npk__pack_out *o, int fd, const char *label, const npk__pkg_header *h);
void npk__pack_out_close(npk__pack_out *o);
/* A record; head: the bytes before the data, which a contiguous file repeats. */
int npk__pack_out_begin(npk__pack_out *o, const npk__pkg_record *r, const uint8_t *head, uint64_t frames);
/* A frame with what comes before it; no bytes: zeros. */
int npk__pack_out_frame(npk__pack_out *o, const uint8_t *data, size_t bytes);
/* Bytes of a contiguous file, and the sums of the frames in them. */
int npk__pack_out_bytes(npk__pack_out *o, const uint8_t *data, size_t bytes, const uint64_t *sums, uint64_t count);
int npk__pack_out_end(npk__pack_out *o);
/* End, index and footer. */
int npk__pack_out_finish(npk__pack_out *o);

/* A file that gets its name when it is complete. */
typedef struct npk__newfile {
    int fd, dir_fd;
    const char *leaf;
    bool replace;
    char tmp[64]; /* its name until then; "": it has none */
} npk__newfile;
/* path must outlive it. -EEXIST with a sentence. */
int npk__newfile_open(const char *path, bool replace, npk__newfile *out);
/* Durable, and with its name. */
int npk__newfile_publish(npk__newfile *f, const char *path);
void npk__newfile_close(npk__newfile *f); /* removes what was not published */

#endif
