/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a package: their frames, whole and in part. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "fail.h"
#include "guard.h"
#include "package.h"
#include "path.h"

/* ---- readers ----------------------------------------------------------------------------------------------------- */

npk__reader *npk__reader_take(npk_package *p)
{
    pthread_mutex_lock(&p->mutex);
    npk__reader *r = p->readers;
    if (r)
        p->readers = r->next;
    pthread_mutex_unlock(&p->mutex);
    if (r)
        return r;
    r = calloc(1, sizeof(*r));
    if (r && !(r->codec = npk__codec_new())) {
        free(r);
        r = NULL;
    }
    return r;
}

void npk__reader_give(npk_package *p, npk__reader *r)
{
    pthread_mutex_lock(&p->mutex);
    r->next = p->readers;
    p->readers = r;
    pthread_mutex_unlock(&p->mutex);
}

static uint8_t *payload_buffer(npk__reader *r, size_t bytes)
{
    if (r->capacity < bytes) {
        free(r->payload);
        r->payload = malloc(bytes);
        r->capacity = r->payload ? bytes : 0;
    }
    return r->payload;
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static int damaged(const npk_package_file *f, const char *what)
{
    const npk__pkg_record *r = &f->record;
    return npk__fail(-EIO, "\"%s\": %s of \"%.*s\" is damaged; the rest of the package can be read", f->package->label,
                     what, (int)(r->path_bytes < 256 ? r->path_bytes : 256), r->path);
}

static int damaged_frame(const npk_package_file *f, uint64_t frame)
{
    const npk__pkg_record *r = &f->record;
    uint64_t begin = frame * r->frame, end = begin + npk__pkg_frame_bytes(r, frame);
    npk_header h;
    uint8_t *head = r->head > 0 ? malloc(r->head) : NULL;
    char where[96];
    snprintf(where, sizeof(where), "bytes %" PRIu64 " to %" PRIu64, begin, end);
    if (head) {
        npk__pkg_head(r, head);
        if (npk_header_parse(head, r->head, &h, NULL, 0) == 0 && npk_header_is_row_array(&h))
            snprintf(where, sizeof(where), "rows %" PRIu64 " to %" PRIu64, begin / h.row_bytes, (end - 1) / h.row_bytes);
    }
    free(head);
    return damaged(f, where);
}

/* The table's raw bytes, malloc()ed; *at: where it begins in the package. */
static int read_table(const npk_package *p, const npk_package_file *f, npk__codec *codec, uint64_t raw, uint8_t **out,
                      uint64_t *at)
{
    uint64_t begin = p->begin[f->entry], end = p->begin[f->entry + 1];
    uint8_t tail[NPK__PKG_TABLE_BYTES - 4];
    uint32_t stored, zero, again;
    uint64_t hash;
    if (p->source.read(&p->source, tail, sizeof(tail), end - sizeof(tail)) != 0)
        return damaged(f, "the table of frames");
    memcpy(&hash, tail, 8);
    memcpy(&stored, tail + 8, 4);
    memcpy(&zero, tail + 12, 4);
    if (zero != 0 || stored > raw || stored > end - begin - f->record.bytes - NPK__PKG_TABLE_BYTES)
        return damaged(f, "the table of frames");
    uint8_t *packed = malloc((size_t)stored + 4), *table = malloc(raw);
    int err = packed && table ? 0 : npk__fail(-ENOMEM, "out of memory");
    *at = end - NPK__PKG_TABLE_BYTES - stored;
    if (!err && p->source.read(&p->source, packed, (size_t)stored + 4, *at) != 0)
        err = damaged(f, "the table of frames");
    if (!err) {
        memcpy(&again, packed, 4);
        if (again != stored || XXH64(packed + 4, stored, f->record.hash) != hash ||
            npk__block_decode(codec, packed + 4, stored, table, raw) != 0)
            err = damaged(f, "the table of frames");
    }
    free(packed);
    if (err)
        free(table);
    else
        *out = table;
    return err;
}

/* Where each payload is, and that all of them fill the place up to the table. */
static int place_frames(const npk_package *p, npk_package_file *f, uint64_t table_at)
{
    uint64_t at = p->begin[f->entry] + f->record.bytes;
    bool zeros = false;
    for (uint64_t i = 0; i < f->frames; i++) {
        uint32_t n = f->size[i];
        if (n == 0) {
            at += zeros ? 0 : 4;
        } else {
            if (n > npk__frame_bound(&f->record, npk__pkg_frame_bytes(&f->record, i)) || at > table_at)
                return damaged(f, "the table of frames");
            f->at[i] = at + NPK__PKG_FRAME_BYTES;
            at += NPK__PKG_FRAME_BYTES + n;
        }
        zeros = n == 0;
    }
    return at == table_at ? 0 : damaged(f, "the table of frames");
}

static int single_frame(const npk_package *p, npk_package_file *f)
{
    uint64_t stored = p->begin[f->entry + 1] - p->begin[f->entry] - f->record.bytes;
    if (stored == 4)
        return 0;
    if (stored <= NPK__PKG_FRAME_BYTES || stored - NPK__PKG_FRAME_BYTES > npk__frame_bound(&f->record, f->record.data))
        return damaged(f, "the place");
    f->one_size = (uint32_t)(stored - NPK__PKG_FRAME_BYTES);
    f->one_at = p->begin[f->entry] + f->record.bytes + NPK__PKG_FRAME_BYTES;
    return 0;
}

/* NULL without memory. */
static npk__proof *proof_of(npk_package *p, uint64_t entry, uint64_t frames)
{
    npk__proof **at = &p->proofs[entry % (sizeof(p->proofs) / sizeof(p->proofs[0]))];
    pthread_mutex_lock(&p->mutex);
    npk__proof *proof = *at;
    while (proof && proof->entry != entry)
        proof = proof->next;
    if (!proof && (proof = calloc(1, sizeof(*proof) + (frames / 64 + 1) * sizeof(proof->bits[0])))) {
        proof->entry = entry;
        proof->next = *at;
        *at = proof;
    }
    pthread_mutex_unlock(&p->mutex);
    return proof;
}

int npk__package_table(npk_package *p, npk_package_file *f, npk__codec *codec)
{
    const npk__pkg_record *r = &f->record;
    f->frames = npk__pkg_frames(r);
    if (r->layout == NPK__PKG_EMPTY)
        return 0;
    if (r->layout == NPK__PKG_FRAMES && f->frames == 1)
        return single_frame(p, f);
    bool contiguous = r->layout == NPK__PKG_CONTIGUOUS;
    uint8_t *table = NULL;
    uint64_t table_at = 0;
    int err = read_table(p, f, codec, f->frames * (contiguous ? 8 : 4), &table, &table_at);
    if (err)
        return err;
    if (contiguous) {
        f->sum = (uint64_t *)(void *)table;
        f->one_at = npk__package_contiguous(p, f->entry);
        f->proof = proof_of(p, f->entry, f->frames);
        if (table_at != f->one_at + r->head + r->data)
            return damaged(f, "the table of frames");
        return f->proof ? 0 : npk__fail(-ENOMEM, "out of memory");
    }
    f->size = (uint32_t *)(void *)table;
    f->at = calloc(f->frames, sizeof(*f->at));
    return f->at ? place_frames(p, f, table_at) : npk__fail(-ENOMEM, "out of memory");
}

void npk__package_file_clear(npk_package_file *f)
{
    free(f->at);
    free(f->size);
    free(f->sum);
    f->at = NULL;
    f->size = NULL;
    f->sum = NULL;
    f->proof = NULL;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static npk_package_file *find_open(npk_package *p, uint64_t i)
{
    npk_package_file *f = p->files;
    while (f && f->entry != i)
        f = f->next;
    if (f)
        f->references++;
    return f;
}

/* Another thread may have been faster; then its file is taken and this one goes. */
static npk_package_file *enter(npk_package *p, npk_package_file *f)
{
    pthread_mutex_lock(&p->mutex);
    npk_package_file *other = find_open(p, f->entry);
    if (!other) {
        f->references = 1;
        f->next = p->files;
        p->files = f;
    }
    pthread_mutex_unlock(&p->mutex);
    if (!other)
        return f;
    npk__package_file_clear(f);
    free(f);
    return other;
}

npk_err npk_package_file_open(npk_package *p, uint64_t i, npk_package_file **out)
{
    pthread_mutex_lock(&p->mutex);
    npk_package_file *f = find_open(p, i);
    pthread_mutex_unlock(&p->mutex);
    if (f) {
        *out = f;
        return 0;
    }
    npk__pkg_record r = npk__package_record(p, i);
    if (r.kind != NPK__PKG_FILE)
        return npk__fail(r.kind == NPK__PKG_LINK ? -ELOOP : -EISDIR, "\"%.*s\": %s; a file is accepted",
                         (int)(r.path_bytes < 256 ? r.path_bytes : 256), r.path,
                         r.kind == NPK__PKG_LINK ? "a symbolic link" : "a directory");
    f = calloc(1, sizeof(*f));
    npk__reader *reader = f ? npk__reader_take(p) : NULL;
    if (!reader) {
        free(f);
        return npk__fail(-ENOMEM, "out of memory");
    }
    f->package = p;
    f->entry = i;
    f->record = r;
    int err = npk__package_table(p, f, reader->codec);
    npk__reader_give(p, reader);
    if (err) {
        npk__package_file_clear(f);
        free(f);
        return err;
    }
    *out = enter(p, f);
    return 0;
}

void npk_package_file_close(npk_package_file **file)
{
    if (!file || !*file)
        return;
    npk_package_file *f = *file;
    npk_package *p = f->package;
    pthread_mutex_lock(&p->mutex);
    bool last = --f->references == 0;
    for (npk_package_file **at = &p->files; last && *at; at = &(*at)->next)
        if (*at == f) {
            *at = f->next;
            break;
        }
    pthread_mutex_unlock(&p->mutex);
    if (last) {
        npk__package_file_clear(f);
        free(f);
    }
    *file = NULL;
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

bool npk__package_is_proved(const npk_package_file *f, uint64_t frame)
{
    return f->proof && atomic_load_explicit(&f->proof->bits[frame / 64], memory_order_acquire) >> (frame % 64) & 1;
}

static void note_proved(npk_package_file *f, uint64_t frame)
{
    atomic_fetch_or_explicit(&f->proof->bits[frame / 64], UINT64_C(1) << (frame % 64), memory_order_release);
}

int npk__package_frame(npk_package_file *f, npk__reader *reader, uint64_t frame, uint8_t *out)
{
    const npk__pkg_record *r = &f->record;
    const npk__source *source = &f->package->source;
    size_t bytes = npk__pkg_frame_bytes(r, frame);
    if (r->layout == NPK__PKG_CONTIGUOUS) {
        int err = source->read(source, out, bytes, f->one_at + r->head + frame * r->frame);
        if (err || npk__frame_hash(r, frame, out, bytes) != f->sum[frame])
            return damaged_frame(f, frame);
        note_proved(f, frame);
        return 0;
    }
    uint32_t stored = f->size ? f->size[frame] : f->one_size, said;
    uint64_t at = f->size ? f->at[frame] : f->one_at, hash;
    if (stored == 0) {
        memset(out, 0, bytes);
        return 0;
    }
    uint8_t *payload = payload_buffer(reader, stored + NPK__PKG_FRAME_BYTES);
    if (!payload)
        return npk__fail(-ENOMEM, "out of memory");
    if (source->read(source, payload, stored + NPK__PKG_FRAME_BYTES, at - NPK__PKG_FRAME_BYTES) != 0)
        return damaged_frame(f, frame);
    memcpy(&said, payload, 4);
    memcpy(&hash, payload + 4, 8);
    payload += NPK__PKG_FRAME_BYTES;
    if (said != stored || hash != npk__frame_hash(r, frame, payload, stored))
        return damaged_frame(f, frame);
    int err = npk__frame_decode(reader->codec, r, payload, stored, out, bytes);
    return err == -ENOMEM ? npk__fail(err, "out of memory") : err ? damaged_frame(f, frame) : 0;
}

struct wanted {
    npk_package_file *file;
    uint64_t frame;
};

static int fill(void *ctx, uint8_t *out)
{
    const struct wanted *w = ctx;
    npk__reader *reader = npk__reader_take(w->file->package);
    if (!reader)
        return npk__fail(-ENOMEM, "out of memory");
    int err = npk__package_frame(w->file, reader, w->frame, out);
    npk__reader_give(w->file->package, reader);
    return err;
}

int npk__package_hold(npk_package_file *f, uint64_t frame, npk__cached **out)
{
    struct wanted w = {f, frame};
    size_t in_page = f->record.head + frame * f->record.frame - atomic_load_explicit(&f->page, memory_order_relaxed);
    int err = npk__cache_get(f->package->cache, f->entry, frame, npk__pkg_frame_bytes(&f->record, frame), in_page, fill, &w,
                             out);
    return err == -EIO ? damaged_frame(f, frame) : err;
}

static int part_of_frame(npk_package_file *f, uint64_t frame, size_t skip, uint8_t *out, size_t bytes)
{
    npk__cached *held;
    int err = npk__package_hold(f, frame, &held);
    if (err)
        return err;
    memcpy(out, npk__cached_data(held) + skip, bytes);
    npk__cache_put(f->package->cache, held, false);
    return 0;
}

struct mapped_frame {
    const npk_package_file *file;
    uint64_t frame;
    const uint8_t *at;
    bool fits;
};

static int hash_mapped(void *ctx)
{
    struct mapped_frame *m = ctx;
    const npk__pkg_record *r = &m->file->record;
    m->fits = npk__frame_hash(r, m->frame, m->at, npk__pkg_frame_bytes(r, m->frame)) == m->file->sum[m->frame];
    return 0;
}

int npk__package_prove(npk_package_file *f, uint64_t frame)
{
    if (npk__package_is_proved(f, frame))
        return 0;
    const uint8_t *map = npk__package_mapping(f->package);
    uint64_t bytes = npk__pkg_frame_bytes(&f->record, frame);
    struct mapped_frame m = {.file = f, .frame = frame};
    m.at = map ? map + f->one_at + f->record.head + frame * f->record.frame : NULL;
    int err = map ? npk__guarded(m.at, bytes, hash_mapped, &m) : -ENOSYS;
    if (!err && m.fits) {
        note_proved(f, frame);
        return 0;
    }
    if (err != -ENOSYS)
        return damaged_frame(f, frame);
    npk__reader *reader = npk__reader_take(f->package);
    uint8_t *whole = reader ? payload_buffer(reader, bytes) : NULL;
    err = whole ? npk__package_frame(f, reader, frame, whole) : npk__fail(-ENOMEM, "out of memory");
    if (reader)
        npk__reader_give(f->package, reader);
    return err;
}

/* Bytes that lie in the package as they are: read in place, each frame proved when it is first touched. */
static int part_in_place(npk_package_file *f, uint64_t frame, size_t skip, uint8_t *out, size_t bytes)
{
    const npk__source *source = &f->package->source;
    int err = npk__package_prove(f, frame);
    if (err)
        return err;
    err = source->read(source, out, bytes, f->one_at + f->record.head + frame * f->record.frame + skip);
    return err ? damaged_frame(f, frame) : 0;
}

static int whole_frame(npk_package_file *f, uint64_t frame, uint8_t *out)
{
    struct wanted w = {f, frame};
    return fill(&w, out);
}

int npk__package_data(npk_package_file *f, uint64_t offset, void *out, size_t bytes)
{
    uint8_t *to = out;
    int err = 0;
    while (bytes > 0 && !err) {
        uint64_t frame = offset / f->record.frame, all = npk__pkg_frame_bytes(&f->record, frame);
        size_t skip = (size_t)(offset % f->record.frame), n = all - skip < bytes ? (size_t)(all - skip) : bytes;
        if (f->record.layout == NPK__PKG_CONTIGUOUS)
            err = part_in_place(f, frame, skip, to, n);
        else if (n == all && !npk__cache_has(f->package->cache, f->entry, frame))
            err = whole_frame(f, frame, to); /* straight to where it is wanted */
        else
            err = part_of_frame(f, frame, skip, to, n);
        to += n;
        offset += n;
        bytes -= n;
    }
    return err;
}

ssize_t npk_package_file_read(npk_package_file *f, uint64_t offset, void *out, size_t bytes)
{
    const npk__pkg_record *r = &f->record;
    uint64_t all = r->head + r->data;
    uint8_t *to = out;
    size_t done = 0;
    if (offset >= all)
        return 0;
    if (bytes > all - offset)
        bytes = (size_t)(all - offset);
    if (offset < r->head) {
        uint8_t *head = malloc(r->head);
        if (!head)
            return npk__fail(-ENOMEM, "out of memory");
        npk__pkg_head(r, head);
        done = r->head - offset < bytes ? (size_t)(r->head - offset) : bytes;
        memcpy(to, head + offset, done);
        free(head);
    }
    int err = done < bytes ? npk__package_data(f, offset + done - r->head, to + done, bytes - done) : 0;
    return err ? err : (ssize_t)bytes;
}

void npk_package_file_page(npk_package_file *f, uint64_t offset)
{
    atomic_store_explicit(&f->page, offset, memory_order_relaxed);
}

npk_err npk_package_file_prefetch(npk_package_file *f, uint64_t offset)
{
    const npk__pkg_record *r = &f->record;
    if (r->layout == NPK__PKG_EMPTY || offset >= r->head + r->data)
        return 0;
    uint64_t frame = offset < r->head ? 0 : (offset - r->head) / r->frame;
    if (r->layout == NPK__PKG_CONTIGUOUS)
        return npk__package_prove(f, frame);
    if (npk__cache_has(f->package->cache, f->entry, frame))
        return 0;
    npk__cached *held;
    int err = npk__package_hold(f, frame, &held);
    if (!err)
        npk__cache_put(f->package->cache, held, false);
    return err;
}
