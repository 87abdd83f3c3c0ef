/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pkg_format.h - the parts of a package as bytes: header, records, end, footer (FORMAT.md, "Packages").
 *
 * Pure functions on memory. What is read here may come from anybody: every size is checked before it is used.
 */
#ifndef NPK_PKG_FORMAT_H
#define NPK_PKG_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NPK__PKG_HEADER_BYTES 40
#define NPK__PKG_FOOTER_BYTES 56
#define NPK__PKG_END_BYTES    16
#define NPK__PKG_RECORD_BYTES 72 /* without path, text and names */
#define NPK__PKG_MAX_NAMES    (1u << 20)
#define NPK__PKG_MAX_RECORD   (NPK__PKG_RECORD_BYTES + 4096 + (1u << 20) + NPK__PKG_MAX_NAMES)
#define NPK__PKG_TABLE_BYTES  20 /* before and behind a table */
#define NPK__PKG_FRAME_BYTES  12 /* before a frame */
#define NPK__PKG_ALIGN        4096
#define NPK__PKG_VERSION      1

#define NPK__PKG_MAX_FRAME  (UINT64_C(64) << 20)  /* bytes of a frame */
#define NPK__PKG_MAX_FRAMES (UINT64_C(1) << 21)   /* of one file */
#define NPK__PKG_MAX_ITEM   64                    /* bytes of an item that is split into planes */
#define NPK__PKG_MAX_INDEX  (UINT64_C(512) << 20) /* bytes of the index */
#define NPK__PKG_ZEROS      0x80000000u           /* in a frame's size: a run of frames of zeros; in a stream's: raw */

enum npk__pkg_kind { NPK__PKG_DIRECTORY = 1, NPK__PKG_FILE = 2, NPK__PKG_LINK = 3 };
enum npk__pkg_layout { NPK__PKG_EMPTY = 0, NPK__PKG_FRAMES = 1, NPK__PKG_CONTIGUOUS = 2 };
enum npk__pkg_change { NPK__PKG_SAME = 0, NPK__PKG_DELTA = 1, NPK__PKG_TURN = 2 };
enum npk__pkg_planes { NPK__PKG_WHOLE = 0, NPK__PKG_BYTES = 1, NPK__PKG_BITS = 2 };

/* A record. path, text and names point into what was read; they are not terminated. */
typedef struct npk__pkg_record {
    uint8_t kind, layout, change, planes;
    uint32_t mode;     /* permission bits, 07777 */
    int64_t mtime_ns;  /* since the epoch */
    uint32_t head;     /* bytes of the file before its data: a .npy header */
    uint32_t text;     /* stored bytes of the head: the rest is blanks and a newline. A link: of its target */
    uint32_t item;     /* bytes of an item, for the filter */
    uint32_t distance; /* in items, for NPK__PKG_DELTA */
    uint64_t data;     /* bytes behind the head */
    uint64_t frame;    /* of the data in each frame but the last */
    uint32_t path_bytes;
    const char *path;
    const char *stored; /* the text */
    uint32_t names_bytes;
    const char *names;  /* named ranges of rows: lines of a name, a tab, the first row, a tab, the row behind the last */
    uint64_t hash;      /* of the record */
    uint32_t bytes;     /* of the record */
} npk__pkg_record;

typedef struct npk__pkg_header {
    uint32_t zstd; /* the version that compressed */
    uint32_t mode; /* of the root */
    int64_t mtime_ns;
} npk__pkg_header;

typedef struct npk__pkg_footer {
    uint64_t index, stored, raw; /* where the index begins, its bytes in the package and as they mean */
    uint64_t count;              /* entries in it */
    uint64_t hash;               /* of the stored index */
} npk__pkg_footer;

/* Each of these is -EINVAL with a sentence (of `what`, the package's name) for bytes that are no such thing, and
 * -ENOTSUP for a version or a feature that this reader does not know. */
void npk__pkg_header_put(uint8_t out[NPK__PKG_HEADER_BYTES], const npk__pkg_header *h);
int npk__pkg_header_get(const uint8_t *in, size_t bytes, const char *what, npk__pkg_header *out);
void npk__pkg_footer_put(uint8_t out[NPK__PKG_FOOTER_BYTES], const npk__pkg_footer *f);
/* package_bytes: the length of the package, which the footer must agree with. */
int npk__pkg_footer_get(const uint8_t *in, uint64_t package_bytes, const char *what, npk__pkg_footer *out);
/* `chain` is the hash of all records' hashes. */
void npk__pkg_end_put(uint8_t out[NPK__PKG_END_BYTES], uint64_t chain);

bool npk__pkg_is_end(const uint8_t *in); /* of a record's first 4 bytes */
uint64_t npk__pkg_chain(uint64_t chain, uint64_t record_hash);

/* Write the record; out has npk__pkg_record_size() bytes. Sets r->bytes and r->hash. */
size_t npk__pkg_record_size(const npk__pkg_record *r);
void npk__pkg_record_put(uint8_t *out, npk__pkg_record *r);
/* Read the record at in[0..bytes), which may be followed by others; out->bytes tells its length. */
int npk__pkg_record_get(const uint8_t *in, size_t bytes, const char *what, npk__pkg_record *out);
/* The same behind its first 4 bytes, as the index has it. */
int npk__pkg_entry_get(const uint8_t *in, size_t bytes, const char *what, npk__pkg_record *out);

static inline uint64_t npk__pkg_frames(const npk__pkg_record *r)
{
    return r->frame == 0 ? 0 : r->data / r->frame + (r->data % r->frame != 0);
}

static inline uint64_t npk__pkg_frame_bytes(const npk__pkg_record *r, uint64_t frame)
{
    uint64_t begin = frame * r->frame;
    return r->data - begin < r->frame ? r->data - begin : r->frame;
}

/* The head as the file has it: r->head bytes. */
void npk__pkg_head(const npk__pkg_record *r, uint8_t *out);
/* How many of a head's bytes have to be stored. */
uint32_t npk__pkg_head_text(const uint8_t *head, uint32_t bytes);

/* The order of the index: as memcmp, with '/' before every other byte, so that what is in a directory follows it. */
int npk__pkg_order(const char *a, size_t a_bytes, const char *b, size_t b_bytes);
/* May a link at `path` lead to `target`: relative, ".." only at its begin, and not above the root. Without a sentence. */
bool npk__pkg_link_stays(const char *path, size_t path_bytes, const char *target, size_t target_bytes);

#endif
