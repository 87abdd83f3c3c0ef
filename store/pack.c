/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing. The calling thread opens files and hands out pieces of them in the order of the package; workers read and
 * encode; the calling thread writes the results in the same order. So the bytes depend on the input alone, and memory is
 * that of a ring of pieces.
 */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "fail.h"
#include "io.h"
#include "npk.h"
#include "pack_file.h"
#include "pack_out.h"
#include "pkg_format.h"
#include "pkg_frame.h"
#include "store.h"

#define PIECE       (UINT64_C(1) << 20) /* bytes that a worker takes at once, if frames are smaller */
#define FRAME       (UINT64_C(128) << 10)
#define MAX_THREADS 64

typedef struct piece {
    npk__packing_file *file; /* freed with its last piece */
    uint64_t first, count;   /* frames */
    bool begins, ends;       /* the file's first, its last */
    bool done;
    int err;
    char *sentence; /* of err */
    uint8_t *out;   /* the frames, each with what comes before it; contiguous: the bytes */
    size_t out_bytes, out_capacity;
    uint32_t *sizes; /* of each payload */
    uint64_t *sums;
    uint64_t numbers_capacity;
} piece;

typedef struct packing {
    npk_store *s;
    const npk_pack_options *o;
    uint64_t frame_target;
    npk__scan scan;
    npk__pack_out out;
    /* the ring: written <= taken <= filled, of slots [n % slots] */
    piece *ring;
    size_t slots;
    uint64_t written, taken, filled;
    bool stop;
    pthread_mutex_t mutex;
    pthread_cond_t work, progress;
    /* the file that is being handed out */
    size_t next_found;
    npk__packing_file *current;
    uint64_t next_frame;
    uint64_t done_bytes;
} packing;

/* ---- workers ----------------------------------------------------------------------------------------------------- */

static int grow(void **at, uint64_t bytes)
{
    void *larger = realloc(*at, bytes);
    if (!larger)
        return npk__fail(-ENOMEM, "out of memory");
    *at = larger;
    return 0;
}

/* One of the workers chooses, the others of this file wait. */
static int chosen(packing *p, npk__packing_file *f, npk__codec *codec)
{
    int err = 0;
    pthread_mutex_lock(&p->mutex);
    if (f->choice == NPK__UNCHOSEN) {
        f->choice = NPK__CHOOSING;
        pthread_mutex_unlock(&p->mutex);
        err = npk__packing_choose(f, codec);
        uint8_t *record = err ? NULL : malloc(npk__pkg_record_size(&f->record));
        if (record)
            npk__pkg_record_put(record, &f->record); /* for its hash, with which frames are summed */
        else if (!err)
            err = npk__fail(-ENOMEM, "out of memory");
        free(record);
        pthread_mutex_lock(&p->mutex);
        f->choice = NPK__CHOSEN; /* after a failure too: the whole packing fails */
        pthread_cond_broadcast(&p->work);
    }
    while (f->choice != NPK__CHOSEN)
        pthread_cond_wait(&p->work, &p->mutex);
    pthread_mutex_unlock(&p->mutex);
    return err;
}

static int encode_frame(piece *w, uint64_t i, npk__codec *codec, const uint8_t *data, size_t bytes)
{
    npk__packing_file *f = w->file;
    uint8_t *prefix = w->out + w->out_bytes, *payload = prefix + NPK__PKG_FRAME_BYTES;
    size_t stored;
    int err = npk__frame_encode(codec, &f->record, f->level, data, bytes, payload, &stored);
    if (err)
        return npk__fail(err, "\"%s\": cannot be compressed: %s", f->found->path, strerror(-err));
    uint32_t n = (uint32_t)stored;
    w->sizes[i] = n;
    if (n == 0)
        return 0;
    uint64_t hash = npk__frame_hash(&f->record, w->first + i, payload, stored);
    memcpy(prefix, &n, 4);
    memcpy(prefix + 4, &hash, 8);
    w->out_bytes += NPK__PKG_FRAME_BYTES + stored;
    return 0;
}

static int make_room(piece *w, uint64_t bytes)
{
    npk__pkg_record most = w->file->record;
    if (most.planes == NPK__PKG_WHOLE)
        most.item = 1;
    uint64_t room = bytes + w->count * (NPK__PKG_FRAME_BYTES + npk__frame_bound(&most, 0));
    int err = 0;
    if (w->out_capacity < room) {
        err = grow((void **)&w->out, room);
        w->out_capacity = err ? w->out_capacity : room;
    }
    if (!err && w->numbers_capacity < w->count) {
        err = grow((void **)&w->sizes, w->count * sizeof(*w->sizes));
        if (!err)
            err = grow((void **)&w->sums, w->count * sizeof(*w->sums));
        w->numbers_capacity = err ? 0 : w->count;
    }
    return err;
}

static int work_on(packing *p, piece *w, npk__codec *codec, uint8_t **buffer, size_t *capacity)
{
    npk__packing_file *f = w->file;
    const npk__pkg_record *r = &f->record;
    int err = chosen(p, f, codec);
    if (err || w->count == 0)
        return err;
    uint64_t begin = w->first * r->frame, end = (w->first + w->count) * r->frame;
    uint64_t bytes = (end < r->data ? end : r->data) - begin;
    bool contiguous = r->layout == NPK__PKG_CONTIGUOUS;
    err = make_room(w, bytes);
    if (!err && !contiguous && *capacity < bytes) {
        err = grow((void **)buffer, bytes);
        *capacity = err ? *capacity : bytes;
    }
    uint8_t *data = contiguous ? w->out : *buffer;
    w->out_bytes = contiguous ? bytes : 0;
    if (!err)
        err = npk__packing_read(f, begin, data, bytes);
    for (uint64_t i = 0; i < w->count && !err; i++) {
        size_t n = npk__pkg_frame_bytes(r, w->first + i);
        if (contiguous)
            w->sums[i] = npk__frame_hash(r, w->first + i, data + i * r->frame, n);
        else
            err = encode_frame(w, i, codec, data + i * r->frame, n);
    }
    return err;
}

static void *worker(void *arg)
{
    packing *p = arg;
    npk__codec *codec = npk__codec_new();
    uint8_t *buffer = NULL;
    size_t capacity = 0;
    pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (!p->stop && p->taken == p->filled)
            pthread_cond_wait(&p->work, &p->mutex);
        if (p->stop)
            break;
        piece *w = &p->ring[p->taken++ % p->slots];
        if (w->done)
            continue;
        pthread_mutex_unlock(&p->mutex);
        int err = codec ? work_on(p, w, codec, &buffer, &capacity) : npk__fail(-ENOMEM, "out of memory");
        char *sentence = err ? strdup(npk_error()) : NULL;
        pthread_mutex_lock(&p->mutex);
        w->err = err;
        w->sentence = sentence;
        w->done = true;
        pthread_cond_broadcast(&p->progress);
    }
    pthread_mutex_unlock(&p->mutex);
    npk__codec_free(codec);
    free(buffer);
    return NULL;
}

/* ---- the calling thread ------------------------------------------------------------------------------------------ */

/* The next piece, in the order of the package. 1: there is none any more. */
static int next_piece(packing *p, piece *w)
{
    w->done = w->begins = w->ends = false;
    w->err = 0;
    w->out_bytes = 0;
    w->first = w->count = 0;
    if (!p->current) {
        if (p->next_found == p->scan.count)
            return 1;
        p->current = malloc(sizeof(*p->current));
        if (!p->current)
            return npk__fail(-ENOMEM, "out of memory");
        int err = npk__packing_open(p->s, &p->scan.found[p->next_found++], p->frame_target, p->o, p->current);
        if (err)
            return err;
        p->next_frame = 0;
        w->begins = true;
    }
    npk__packing_file *f = p->current;
    uint64_t left = f->frames - p->next_frame;
    uint64_t many = f->frame > 0 && PIECE > f->frame ? PIECE / f->frame : 1;
    w->file = f;
    w->first = p->next_frame;
    w->count = left < many ? left : many;
    p->next_frame += w->count;
    w->ends = p->next_frame == f->frames;
    if (w->ends)
        p->current = NULL;
    return 0;
}

static int write_frames(packing *p, const piece *w)
{
    npk__pack_out *o = &p->out;
    if (w->file->record.layout == NPK__PKG_CONTIGUOUS)
        return npk__pack_out_bytes(o, w->out, w->out_bytes, w->sums, w->count);
    const uint8_t *at = w->out;
    int err = 0;
    for (uint64_t i = 0; i < w->count && !err; i++) {
        size_t n = w->sizes[i] > 0 ? NPK__PKG_FRAME_BYTES + w->sizes[i] : 0;
        err = npk__pack_out_frame(o, at, n);
        at += n;
    }
    return err;
}

static int write_piece(packing *p, piece *w)
{
    npk__packing_file *f = w->file;
    int err = w->err ? npk__fail(w->err, "%s", w->sentence ? w->sentence : "out of memory") : 0;
    if (!err && w->begins)
        err = npk__pack_out_begin(&p->out, &f->record, f->head, f->frames);
    if (!err && w->count > 0)
        err = write_frames(p, w);
    if (!err && w->ends)
        err = npk__packing_same(p->s, f);
    if (!err && w->ends)
        err = npk__pack_out_end(&p->out);
    if (!err && w->count > 0) {
        uint64_t end = (w->first + w->count) * f->record.frame;
        p->done_bytes += (end < f->record.data ? end : f->record.data) - w->first * f->record.frame;
        if (p->o->progress && p->o->progress(p->o->ctx, p->done_bytes, p->scan.bytes) != 0)
            err = npk__fail(-ECANCELED, "packing was interrupted; nothing is left of it");
    }
    return err;
}

static void retire(piece *w)
{
    if (w->ends) {
        npk__packing_close(w->file);
        free(w->file);
    }
    w->file = NULL;
    free(w->sentence);
    w->sentence = NULL;
}

static int run(packing *p)
{
    int err = 0;
    bool more = true;
    while (!err) {
        while (more && p->filled - p->written < p->slots && !err) {
            piece *w = &p->ring[p->filled % p->slots];
            int got = next_piece(p, w);
            more = got != 1;
            err = got < 0 ? got : 0;
            if (got == 0) {
                pthread_mutex_lock(&p->mutex);
                p->filled++;
                pthread_cond_broadcast(&p->work);
                pthread_mutex_unlock(&p->mutex);
            }
        }
        if (err || p->written == p->filled)
            break;
        piece *w = &p->ring[p->written % p->slots];
        pthread_mutex_lock(&p->mutex);
        while (!w->done)
            pthread_cond_wait(&p->progress, &p->mutex);
        pthread_mutex_unlock(&p->mutex);
        err = write_piece(p, w);
        if (err)
            break;
        retire(w);
        p->written++;
    }
    return err;
}

/* What is still in the ring after a failure. The workers have ended. */
static void abandon(packing *p)
{
    npk__packing_file *last = p->current;
    for (; p->written < p->filled; p->written++) {
        piece *w = &p->ring[p->written % p->slots];
        if (last && w->file == last)
            w->ends = false;
        retire(w);
    }
    if (last) {
        npk__packing_close(last);
        free(last);
    }
    for (size_t i = 0; i < p->slots; i++) {
        free(p->ring[i].out);
        free(p->ring[i].sizes);
        free(p->ring[i].sums);
    }
    free(p->ring);
}

static unsigned thread_count(unsigned wanted)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned n = wanted > 0 ? wanted : cores > 0 ? (unsigned)cores : 1;
    return n < MAX_THREADS ? n : MAX_THREADS;
}

static int run_with_workers(packing *p)
{
    unsigned wanted = thread_count(p->o->threads), started = 0;
    pthread_t threads[MAX_THREADS];
    p->slots = 2 * wanted + 2;
    p->ring = calloc(p->slots, sizeof(*p->ring));
    if (!p->ring)
        return npk__fail(-ENOMEM, "out of memory");
    while (started < wanted && pthread_create(&threads[started], NULL, worker, p) == 0)
        started++;
    int err = started > 0 ? run(p) : npk__fail(-EAGAIN, "no thread can be started");
    char *sentence = err ? strdup(npk_error()) : NULL;
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    while (started > 0)
        pthread_join(threads[--started], NULL);
    abandon(p);
    if (err && sentence)
        (void)npk__fail(err, "%s", sentence);
    free(sentence);
    return err;
}

/* A file that was packed long ago may have changed since: then the package would mix two states of the store. */
static int prove_same(const packing *p)
{
    for (size_t i = 0; i < p->scan.count; i++) {
        const npk__found *f = &p->scan.found[i];
        struct stat st;
        if (f->kind == NPK__PKG_DIRECTORY)
            continue;
        int err = npk__fstatat(p->s->root_fd, f->path, &st);
        if (err || !npk__found_same(f, &st))
            return npk__fail(-ESTALE, "\"%s\": changed while the store was packed; pack again when nobody writes to it",
                             f->path);
    }
    return 0;
}

static int check_options(const npk_pack_options *o)
{
    if (o->level < -7 || o->level > 19)
        return npk__fail(-EINVAL, "level %d: outside; -7 to 19, or 0 to have it chosen", o->level);
    if (o->frame_bytes != 0 && (o->frame_bytes < 4096 || o->frame_bytes > NPK__PKG_MAX_FRAME))
        return npk__fail(-EINVAL, "frames of %llu bytes: outside; 4096 to %llu", (unsigned long long)o->frame_bytes,
                         (unsigned long long)NPK__PKG_MAX_FRAME);
    return 0;
}

static int pack_to(npk_store *s, int fd, const char *label, const npk_pack_options *o, const struct stat *skip, size_t skip_count)
{
    packing p = {.s = s, .o = o, .frame_target = o->frame_bytes ? o->frame_bytes : FRAME};
    pthread_mutex_init(&p.mutex, NULL);
    pthread_cond_init(&p.work, NULL);
    pthread_cond_init(&p.progress, NULL);
    int err = npk__scan_store(s, o->exclude, skip, skip_count, &p.scan);
    if (!err) {
        const struct stat *root = &p.scan.root;
        npk__pkg_header h = {.zstd = ZSTD_versionNumber(),
                             .mode = root->st_mode & 07777,
                             .mtime_ns = npk__mtime_ns(root)};
        err = npk__pack_out_open(&p.out, fd, label, &h);
    }
    if (!err)
        err = run_with_workers(&p);
    if (!err)
        err = prove_same(&p);
    if (!err)
        err = npk__pack_out_finish(&p.out);
    npk__pack_out_close(&p.out);
    npk__scan_clear(&p.scan);
    pthread_cond_destroy(&p.progress);
    pthread_cond_destroy(&p.work);
    pthread_mutex_destroy(&p.mutex);
    return err;
}

static int check_store(const npk_store *s)
{
    return s->package ? npk__fail(-ENOTSUP, "\"%s\": a package already; a directory is packed", s->label) : 0;
}

npk_err npk_pack_fd(npk_store *s, int fd, const npk_pack_options *options)
{
    static const npk_pack_options none;
    const npk_pack_options *o = options ? options : &none;
    struct stat st;
    int err = check_store(s);
    if (!err)
        err = check_options(o);
    return err ? err : pack_to(s, fd, "-", o, &st, npk__fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? 1 : 0);
}

/* ---- to a name --------------------------------------------------------------------------------------------------- */

npk_err npk_pack(npk_store *s, const char *path, const npk_pack_options *options)
{
    static const npk_pack_options none;
    const npk_pack_options *o = options ? options : &none;
    struct stat skip[2];
    npk__newfile file;
    int err = check_store(s);
    if (!err)
        err = check_options(o);
    if (!err)
        err = npk__newfile_open(path, o->replace, &file);
    if (err)
        return err;
    size_t skips = npk__fstat(file.fd, &skip[0]) == 0;
    if (npk__fstatat(file.dir_fd, file.leaf, &skip[skips]) == 0) /* the one that is replaced */
        skips++;
    err = pack_to(s, file.fd, path, o, skip, skips);
    if (!err)
        err = npk__newfile_publish(&file, path);
    npk__newfile_close(&file);
    return err;
}
