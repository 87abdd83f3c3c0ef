/* SPDX-License-Identifier: Apache-2.0 */
/* Unpacking a package from a pipe: one pass, front to back; what the index says at the end must be what came before. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "fail.h"
#include "io.h"
#include "npk.h"
#include "pkg_format.h"
#include "pkg_frame.h"
#include "unpack_dir.h"

typedef struct stream {
    int fd;
    uint64_t at; /* bytes of the package so far */
    const char *label;
    npk__codec *codec;
    uint8_t *record; /* and its capacity: the largest there can be */
    uint8_t *payload, *data;
    size_t payload_capacity, data_capacity;
    uint8_t *table; /* what the table must say */
    size_t table_bytes, table_capacity;
    uint64_t chain, count, done_bytes;
    XXH64_state_t *index; /* what the index must say */
    uint64_t index_bytes;
    const npk_unpack_options *o;
    npk__unpack_dir dir;
    char *last; /* path of the record before, for the order */
    size_t last_bytes;
} stream;

static int cut_short(const stream *s)
{
    return npk__fail(-EINVAL, "\"%s\": the package is cut short at %" PRIu64 " bytes; copy it again", s->label, s->at);
}

static int damaged(const stream *s, const char *what)
{
    return npk__fail(-EIO, "\"%s\": the package is damaged: %s at byte %" PRIu64, s->label, what, s->at);
}

static int get(stream *s, void *out, size_t bytes)
{
    uint8_t *to = out;
    while (bytes > 0) {
        ssize_t n = read(s->fd, to, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return npk__fail_errno(-errno, s->label);
        if (n == 0)
            return cut_short(s);
        to += n;
        s->at += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int reserve(uint8_t **at, size_t *capacity, size_t bytes)
{
    if (bytes <= *capacity)
        return 0;
    uint8_t *now = realloc(*at, bytes + bytes / 2);
    if (!now)
        return npk__fail(-ENOMEM, "out of memory");
    *at = now;
    *capacity = bytes + bytes / 2;
    return 0;
}

static int note(stream *s, const void *number, size_t bytes)
{
    int err = reserve(&s->table, &s->table_capacity, s->table_bytes + bytes);
    if (!err)
        memcpy(s->table + s->table_bytes, number, bytes);
    s->table_bytes += bytes;
    return err;
}

/* ---- what belongs to a file --------------------------------------------------------------------------------------- */

static int progress(stream *s, uint64_t bytes)
{
    s->done_bytes += bytes;
    if (s->o->progress && s->o->progress(s->o->ctx, s->done_bytes, 0) != 0)
        return npk__fail(-ECANCELED, "unpacking was interrupted; nothing is left of it");
    return 0;
}

/* One frame that is not zeros; n: its payload's bytes. */
static int read_frame(stream *s, const npk__pkg_record *r, uint64_t frame, uint32_t n, int fd)
{
    size_t bytes = npk__pkg_frame_bytes(r, frame);
    uint64_t hash;
    if (n == 0 || n > npk__frame_bound(r, bytes))
        return damaged(s, "a frame of a size that cannot be");
    int err = reserve(&s->payload, &s->payload_capacity, n);
    if (!err)
        err = reserve(&s->data, &s->data_capacity, r->frame);
    if (!err)
        err = get(s, &hash, 8);
    if (!err)
        err = get(s, s->payload, n);
    if (!err && hash != npk__frame_hash(r, frame, s->payload, n))
        err = damaged(s, "a frame's checksum does not fit");
    if (!err && npk__frame_decode(s->codec, r, s->payload, n, s->data, bytes) != 0)
        err = damaged(s, "a frame that cannot be decoded");
    if (!err) {
        err = npk__pwrite_full(fd, s->data, bytes, r->head + frame * r->frame);
        if (err)
            err = npk__fail_errno(err, s->label);
    }
    return err;
}

static int read_frames(stream *s, const npk__pkg_record *r, int fd)
{
    uint64_t frames = npk__pkg_frames(r), i = 0;
    int err = 0;
    bool zeros = false;
    while (i < frames && !err) {
        uint32_t n = 0, none = 0;
        err = get(s, &n, 4);
        if (!err && (n & NPK__PKG_ZEROS)) {
            uint64_t run = n & ~NPK__PKG_ZEROS;
            if (run == 0 || run > frames - i || zeros)
                return damaged(s, "a run of zeros that cannot be");
            for (uint64_t k = 0; k < run && !err; k++)
                err = note(s, &none, 4);
            i += run;
            zeros = true;
        } else if (!err) {
            err = read_frame(s, r, i, n, fd);
            if (!err)
                err = note(s, &n, 4);
            i++;
            zeros = false;
        }
        if (!err)
            err = progress(s, r->frame);
    }
    return err;
}

static int read_contiguous(stream *s, const npk__pkg_record *r, int fd)
{
    uint8_t pad[NPK__PKG_ALIGN];
    size_t gap = (NPK__PKG_ALIGN - s->at % NPK__PKG_ALIGN) % NPK__PKG_ALIGN;
    int err = get(s, pad, gap);
    for (size_t i = 0; i < gap && !err; i++)
        if (pad[i] != 0)
            err = damaged(s, "something between a record and its bytes");
    if (!err)
        err = reserve(&s->data, &s->data_capacity, r->frame > r->head ? r->frame : r->head);
    if (!err)
        err = reserve(&s->payload, &s->payload_capacity, (size_t)r->head + 1);
    if (!err)
        err = get(s, s->data, r->head);
    if (err)
        return err;
    npk__pkg_head(r, s->payload);
    if (r->head > 0 && memcmp(s->payload, s->data, r->head) != 0)
        return damaged(s, "a header that is not that of its record");
    for (uint64_t i = 0, frames = npk__pkg_frames(r); i < frames && !err; i++) {
        size_t bytes = npk__pkg_frame_bytes(r, i);
        err = get(s, s->data, bytes);
        uint64_t hash = npk__frame_hash(r, i, s->data, bytes);
        if (!err)
            err = note(s, &hash, 8);
        if (!err && npk__pwrite_full(fd, s->data, bytes, r->head + i * r->frame) != 0)
            err = npk__fail(-EIO, "\"%s\": cannot be written", s->label);
        if (!err)
            err = progress(s, bytes);
    }
    return err;
}

/* The table must be what was read. */
static int read_table(stream *s, const npk__pkg_record *r)
{
    uint8_t tail[NPK__PKG_TABLE_BYTES - 4];
    uint32_t n = 0, again, zero;
    uint64_t hash;
    int err = get(s, &n, 4);
    if (!err && n > s->table_bytes)
        return damaged(s, "a table of a size that cannot be");
    if (!err)
        err = reserve(&s->payload, &s->payload_capacity, n);
    if (!err)
        err = reserve(&s->data, &s->data_capacity, s->table_bytes);
    if (!err)
        err = get(s, s->payload, n);
    if (!err)
        err = get(s, tail, sizeof(tail));
    if (err)
        return err;
    memcpy(&hash, tail, 8);
    memcpy(&again, tail + 8, 4);
    memcpy(&zero, tail + 12, 4);
    if (again != n || zero != 0 || XXH64(s->payload, n, r->hash) != hash ||
        npk__block_decode(s->codec, s->payload, n, s->data, s->table_bytes) != 0 ||
        memcmp(s->data, s->table, s->table_bytes) != 0)
        return damaged(s, "a table that does not speak of its frames");
    return 0;
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

static npk_entry entry_of(const npk__pkg_record *r)
{
    npk_entry e = {.kind = (npk_entry_kind)r->kind,
                   .mode = r->mode,
                   .mtime_ns = r->mtime_ns,
                   .path = r->path,
                   .path_bytes = r->path_bytes};
    if (r->kind == NPK__PKG_LINK) {
        e.target = r->stored;
        e.target_bytes = r->text;
    } else {
        e.bytes = r->head + r->data;
        e.names = r->names;
        e.names_bytes = r->names_bytes;
    }
    return e;
}

static int read_file(stream *s, const npk__pkg_record *r)
{
    npk_entry e = entry_of(r);
    int fd = -1;
    s->table_bytes = 0;
    int err = npk__unpack_file(&s->dir, &e, &fd);
    if (!err && r->head > 0) {
        err = reserve(&s->payload, &s->payload_capacity, r->head);
        if (!err) {
            npk__pkg_head(r, s->payload);
            err = npk__pwrite_full(fd, s->payload, r->head, 0);
            if (err)
                err = npk__fail_errno(err, s->label);
        }
    }
    if (!err && r->layout == NPK__PKG_FRAMES)
        err = read_frames(s, r, fd);
    else if (!err && r->layout == NPK__PKG_CONTIGUOUS)
        err = read_contiguous(s, r, fd);
    if (!err && (r->layout == NPK__PKG_CONTIGUOUS || npk__pkg_frames(r) > 1))
        err = read_table(s, r);
    if (!err)
        err = npk__unpack_finish(&s->dir, fd, &e);
    npk__close(&fd);
    return err;
}

static int check_order(stream *s, const npk__pkg_record *r)
{
    if (s->last && npk__pkg_order(s->last, s->last_bytes, r->path, r->path_bytes) >= 0)
        return npk__fail(-EINVAL, "\"%s\": refused since its entry \"%.*s\" comes twice or out of order", s->label,
                         (int)(r->path_bytes < 256 ? r->path_bytes : 256), r->path);
    char *last = realloc(s->last, r->path_bytes);
    if (!last)
        return npk__fail(-ENOMEM, "out of memory");
    memcpy(last, r->path, r->path_bytes);
    s->last = last;
    s->last_bytes = r->path_bytes;
    return 0;
}

/* 1: that was the end. */
static int read_record(stream *s)
{
    uint32_t size;
    uint64_t begin = s->at;
    npk__pkg_record r;
    int err = get(s, s->record, 8);
    if (err)
        return err;
    memcpy(&size, s->record + 4, 4);
    if (npk__pkg_is_end(s->record)) {
        uint64_t chain;
        err = size == NPK__PKG_END_BYTES ? get(s, &chain, 8) : damaged(s, "an end of a size that cannot be");
        if (!err && chain != s->chain)
            err = damaged(s, "the sum of all records does not fit");
        return err ? err : 1;
    }
    if (size < NPK__PKG_RECORD_BYTES || size > NPK__PKG_MAX_RECORD)
        return damaged(s, "a record of a size that cannot be");
    err = get(s, s->record + 8, size - 8);
    if (!err)
        err = npk__pkg_record_get(s->record, size, s->label, &r);
    if (!err)
        err = check_order(s, &r);
    if (err)
        return err;
    npk_entry e = entry_of(&r);
    err = r.kind == NPK__PKG_FILE ? read_file(s, &r) : npk__unpack_other(&s->dir, &e);
    uint64_t stored = s->at - begin;
    XXH64_update(s->index, &stored, 8);
    XXH64_update(s->index, s->record + 4, size - 4);
    s->index_bytes += 8 + size - 4;
    s->chain = npk__pkg_chain(s->chain, r.hash);
    s->count++;
    return err;
}

/* The rest: index and footer, to the end of the stream. */
static int read_index(stream *s)
{
    uint64_t index_at = s->at;
    size_t capacity = 0, have = 0;
    uint8_t *rest = NULL;
    int err = 0;
    for (;;) {
        err = reserve(&rest, &capacity, have + (64u << 10));
        ssize_t n = err ? 0 : read(s->fd, rest + have, 64u << 10);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            err = npk__fail_errno(-errno, s->label);
        if (n <= 0)
            break;
        have += (size_t)n;
        s->at += (uint64_t)n;
        if (have > s->index_bytes + NPK__PKG_FOOTER_BYTES) {
            err = damaged(s, "more than the index follows the files");
            break;
        }
    }
    npk__pkg_footer f;
    if (!err && have < NPK__PKG_FOOTER_BYTES)
        err = cut_short(s);
    if (!err)
        err = npk__pkg_footer_get(rest + have - NPK__PKG_FOOTER_BYTES, s->at, s->label, &f);
    if (!err && (f.index != index_at || f.count != s->count || f.raw != s->index_bytes))
        err = damaged(s, "the index does not speak of what came before it");
    uint8_t *raw = err ? NULL : malloc(f.raw + 1);
    if (!err && !raw)
        err = npk__fail(-ENOMEM, "out of memory");
    if (!err && (XXH64(rest, f.stored, 0) != f.hash || npk__block_decode(s->codec, rest, f.stored, raw, f.raw) != 0 ||
                 XXH64(raw, f.raw, 0) != XXH64_digest(s->index)))
        err = damaged(s, "the index does not speak of what came before it");
    free(raw);
    free(rest);
    return err;
}

static int read_all(stream *s, npk__pkg_header *h)
{
    uint8_t bytes[NPK__PKG_HEADER_BYTES];
    int err = get(s, bytes, sizeof(bytes));
    if (!err)
        err = npk__pkg_header_get(bytes, sizeof(bytes), s->label, h);
    while (!err)
        err = read_record(s);
    return err == 1 ? read_index(s) : err;
}

npk_err npk_unpack_fd(int fd, const char *dir, const npk_unpack_options *options)
{
    static const npk_unpack_options none;
    stream s = {.fd = fd, .label = "-", .o = options ? options : &none};
    npk__pkg_header h = {0};
    if (s.o->names || s.o->rows)
        return npk__fail(-ENOTSUP, "from a pipe a package is unpacked whole; give a file to choose from it");
    int err = npk__unpack_begin(dir, &s.dir);
    if (err)
        return err;
    s.codec = npk__codec_new();
    s.record = malloc(NPK__PKG_MAX_RECORD);
    s.index = XXH64_createState();
    if (!s.codec || !s.record || !s.index) {
        err = npk__fail(-ENOMEM, "out of memory");
    } else {
        XXH64_reset(s.index, 0);
        err = read_all(&s, &h);
    }
    npk_entry root = {.kind = NPK_ENTRY_DIRECTORY, .mode = h.mode, .mtime_ns = h.mtime_ns};
    err = npk__unpack_end(&s.dir, &root, err);
    npk__codec_free(s.codec);
    XXH64_freeState(s.index);
    free(s.record);
    free(s.payload);
    free(s.data);
    free(s.table);
    free(s.last);
    return err;
}
