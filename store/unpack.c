/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unpacking a package that can be read at any offset: workers take pieces of files in order, decode them and write them
 * where they belong. All of it goes to a hidden directory that takes the name at the end.
 */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "lower.h"
#include "npk.h"
#include "package.h"
#include "path.h"
#include "unpack_dir.h"
#include "unpack_rows.h"

#define PIECE       (UINT64_C(512) << 10) /* what is decoded before it is written: it stays in the cache of a processor */
#define MAX_THREADS 64

/* A file that is being written by one or more workers. */
typedef struct target {
    npk_package_file *file;
    npk_entry entry;
    int fd;
    uint64_t next;  /* frame to hand out */
    uint64_t todo;  /* frames that are not written yet */
    unsigned users; /* workers at it */
    int state;      /* 0: being made, 1: ready */
} target;

typedef struct unpacking {
    npk_package *p;
    const npk_unpack_options *o;
    npk__unpack_dir dir;
    bool *wanted; /* entries; NULL: all */
    bool placeholders; /* large files get no data (lower.h) */
    uint64_t next, all_bytes, done_bytes;
    target *current;
    pthread_mutex_t mutex;
    pthread_cond_t made;
    int err;
    char *sentence;
} unpacking;

static void remember(unpacking *u, int err)
{
    if (u->err == 0) {
        u->err = err;
        u->sentence = strdup(npk_error());
    }
}

/* ---- a piece ----------------------------------------------------------------------------------------------------- */

static int write_head(const target *t)
{
    const npk__pkg_record *r = &t->file->record;
    if (r->head == 0)
        return 0;
    uint8_t *head = malloc(r->head);
    if (!head)
        return npk__fail(-ENOMEM, "out of memory");
    npk__pkg_head(r, head);
    int err = npk__pwrite_full(t->fd, head, r->head, 0);
    free(head);
    return err;
}

static bool is_zero_frame(const npk_package_file *f, uint64_t frame)
{
    return f->record.layout == NPK__PKG_FRAMES && (f->size ? f->size[frame] : f->one_size) == 0;
}

static int write_frames(target *t, uint64_t first, uint64_t count, uint8_t *buffer, npk__reader *reader)
{
    npk_package_file *f = t->file;
    const npk__pkg_record *r = &f->record;
    uint64_t filled = 0, begin = first;
    int err = 0;
    for (uint64_t i = first; i < first + count && !err; i++) {
        size_t bytes = npk__pkg_frame_bytes(r, i);
        bool hole = is_zero_frame(f, i); /* the file is that long already */
        if (!hole)
            err = npk__package_frame(f, reader, i, buffer + filled);
        filled += hole ? 0 : bytes;
        bool last = i + 1 == first + count || hole || filled + r->frame > PIECE;
        if (!err && last && filled > 0)
            err = npk__pwrite_full(t->fd, buffer, filled, r->head + begin * r->frame);
        if (last) {
            filled = 0;
            begin = i + 1;
        }
    }
    return err;
}

static int finish(unpacking *u, target *t)
{
    int err = npk__unpack_finish(&u->dir, t->fd, &t->entry);
    npk__close(&t->fd);
    npk_package_file_close(&t->file);
    free(t);
    return err;
}

/* Make the file of an entry. Directories and links are made here too. *out: NULL when there is nothing to fill. */
static int make_entry(unpacking *u, uint64_t i, target **out)
{
    npk_entry e;
    npk_package_entry(u->p, i, &e);
    *out = NULL;
    if (e.kind != NPK_ENTRY_FILE)
        return npk__unpack_other(&u->dir, &e);
    target *t = calloc(1, sizeof(*t));
    if (!t)
        return npk__fail(-ENOMEM, "out of memory");
    t->entry = e;
    t->fd = -1;
    int err = npk_package_file_open(u->p, i, &t->file);
    if (!err)
        err = npk__unpack_file(&u->dir, &e, &t->fd);
    int placed = !err && u->placeholders ? npk__placeholder_write(t->fd, t->file) : 0;
    if (!err)
        err = placed < 0 ? placed : placed ? 0 : write_head(t);
    if (err) {
        npk__close(&t->fd);
        npk_package_file_close(&t->file);
        free(t);
        return err;
    }
    t->todo = t->file->frames;
    if (t->todo == 0 || placed)
        return finish(u, t);
    *out = t;
    return 0;
}

/* ---- workers ----------------------------------------------------------------------------------------------------- */

/* The next piece: 1, 0 at the end, or an error. The mutex is held, also across the making of a file: that is short. */
static int take(unpacking *u, target **out, uint64_t *first, uint64_t *count)
{
    while (!u->current) {
        if (u->next == u->p->count)
            return 0;
        uint64_t i = u->next++;
        if (u->wanted && !u->wanted[i])
            continue;
        int err = make_entry(u, i, &u->current);
        if (err)
            return err;
    }
    target *t = u->current;
    uint64_t frame = t->file->record.frame, many = PIECE > frame ? PIECE / frame : 1;
    uint64_t left = t->file->frames - t->next;
    *out = t;
    *first = t->next;
    *count = left < many ? left : many;
    t->next += *count;
    t->users++;
    if (t->next == t->file->frames)
        u->current = NULL;
    return 1;
}

static int give_back(unpacking *u, target *t, uint64_t first, uint64_t count)
{
    const npk__pkg_record *r = &t->file->record;
    uint64_t end = (first + count) * r->frame;
    u->done_bytes += (end < r->data ? end : r->data) - first * r->frame;
    t->todo -= count;
    t->users--;
    if (u->o->progress && u->err == 0 && u->o->progress(u->o->ctx, u->done_bytes, u->all_bytes) != 0)
        remember(u, npk__fail(-ECANCELED, "unpacking was interrupted; nothing is left of it"));
    return t->todo == 0 && t->users == 0;
}

static void *worker(void *arg)
{
    unpacking *u = arg;
    npk__reader *reader = npk__reader_take(u->p);
    uint8_t *buffer = NULL;
    size_t capacity = 0;
    int err = reader ? 0 : npk__fail(-ENOMEM, "out of memory");
    pthread_mutex_lock(&u->mutex);
    while (!err && u->err == 0) {
        target *t = NULL;
        uint64_t first = 0, count = 0;
        int got = take(u, &t, &first, &count);
        err = got < 0 ? got : 0;
        if (got <= 0)
            break;
        pthread_mutex_unlock(&u->mutex);
        size_t need = t->file->record.frame > PIECE ? t->file->record.frame : PIECE;
        if (capacity < need) {
            free(buffer);
            buffer = malloc(need);
            capacity = buffer ? need : 0;
        }
        err = buffer ? write_frames(t, first, count, buffer, reader) : npk__fail(-ENOMEM, "out of memory");
        pthread_mutex_lock(&u->mutex);
        bool last = give_back(u, t, first, count);
        if (last && !err) {
            pthread_mutex_unlock(&u->mutex);
            err = finish(u, t);
            pthread_mutex_lock(&u->mutex);
        } else if (last) {
            (void)finish(u, t);
        }
    }
    if (err)
        remember(u, err);
    pthread_mutex_unlock(&u->mutex);
    if (reader)
        npk__reader_give(u->p, reader);
    free(buffer);
    return NULL;
}

static int run(unpacking *u)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned wanted = u->o->threads > 0 ? u->o->threads : cores > 0 ? (unsigned)cores : 1, started = 0;
    pthread_t threads[MAX_THREADS];
    if (wanted > MAX_THREADS)
        wanted = MAX_THREADS;
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, worker, u) == 0)
        started++;
    worker(u); /* this thread is one of them */
    while (started > 0)
        pthread_join(threads[--started], NULL);
    if (u->current) { /* after a failure: nobody is at it any more */
        npk__close(&u->current->fd);
        npk_package_file_close(&u->current->file);
        free(u->current);
    }
    int err = u->err;
    if (err)
        (void)npk__fail(err, "%s", u->sentence ? u->sentence : "out of memory");
    free(u->sentence);
    return err;
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

/* An entry and what is above it, or below it. */
static void want(unpacking *u, uint64_t i)
{
    npk_entry e;
    npk_package_entry(u->p, i, &e);
    for (uint64_t end = npk_package_next(u->p, i), at = i; at < end; at++)
        u->wanted[at] = true;
    for (size_t n = e.path_bytes; n > 0; n--)
        if (e.path[n - 1] == '/' && npk_package_find(u->p, e.path, n - 1, &i) == 0)
            u->wanted[i] = true;
}

static int find_name(const npk_package *p, const char *name, uint64_t *i)
{
    char path[NPK__PATH_BYTES];
    size_t n = strlen(name);
    while (n > 1 && name[n - 1] == '/')
        n--;
    if (n + 4 < sizeof(path)) {
        memcpy(path, name, n);
        memcpy(path + n, NPK__SUFFIX, 4);
        if (npk_package_find(p, path, n + 4, i) == 0)
            return 0;
    }
    if (npk_package_find(p, name, n, i) == 0)
        return 0;
    return npk__fail(-ENOENT, "\"%s\": no such array, file or group in \"%s\"; npk ls shows the arrays", name, p->label);
}

static int choose(unpacking *u)
{
    int err = 0;
    if (u->o->names) {
        u->wanted = calloc(u->p->count + 1, sizeof(*u->wanted));
        err = u->wanted ? 0 : npk__fail(-ENOMEM, "out of memory");
        for (const char *const *name = u->o->names; *name && !err; name++) {
            uint64_t i;
            err = find_name(u->p, *name, &i);
            if (!err)
                want(u, i);
        }
    }
    for (uint64_t i = 0; i < u->p->count && !err; i++) {
        npk_entry e;
        if (u->wanted && !u->wanted[i])
            continue;
        npk_package_entry(u->p, i, &e);
        u->all_bytes += e.bytes;
    }
    return err;
}

static int unpack(const char *path, const char *dir, const npk_unpack_options *options, bool placeholders)
{
    static const npk_unpack_options none;
    unpacking u = {.o = options ? options : &none, .placeholders = placeholders};
    if (u.o->rows)
        return npk__unpack_rows(path, dir, u.o);
    int err = npk_package_open(path, &u.p);
    if (err)
        return err;
    pthread_mutex_init(&u.mutex, NULL);
    pthread_cond_init(&u.made, NULL);
    err = choose(&u);
    npk_entry root;
    npk_package_root(u.p, &root);
    if (!err)
        err = npk__unpack_begin(dir, &u.dir);
    if (!err) {
        err = run(&u);
        if (!err && placeholders)
            err = npk__lower_note(u.dir.fd, u.p);
        err = npk__unpack_end(&u.dir, &root, err);
    }
    pthread_cond_destroy(&u.made);
    pthread_mutex_destroy(&u.mutex);
    free(u.wanted);
    npk_package_close(&u.p);
    return err;
}

npk_err npk_unpack(const char *path, const char *dir, const npk_unpack_options *options)
{
    return unpack(path, dir, options, false);
}

int npk__unpack_lower(const char *path, const char *dir)
{
    return unpack(path, dir, NULL, true);
}

int npk__unpack_fill(npk_package_file *f, int fd)
{
    target t = {.file = f, .fd = fd};
    uint64_t frame = f->record.frame, many = frame && PIECE > frame ? PIECE / frame : 1;
    npk__reader *reader = npk__reader_take(f->package);
    uint8_t *buffer = malloc(frame > PIECE ? frame : PIECE);
    int err = reader && buffer ? write_head(&t) : npk__fail(-ENOMEM, "out of memory");
    for (uint64_t i = 0, n; i < f->frames && !err; i += n) {
        n = f->frames - i < many ? f->frames - i : many;
        err = write_frames(&t, i, n, buffer, reader);
        npk__writeback(fd); /* the disk works meanwhile, and the sync at the end is short */
    }
    if (reader)
        npk__reader_give(f->package, reader);
    free(buffer);
    return err;
}
