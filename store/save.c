/* SPDX-License-Identifier: Apache-2.0 */
/* Saving whole arrays, many at once: each is written beside its place and renamed into it. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dirty.h"
#include "fail.h"
#include "io.h"
#include "lease.h"
#include "lock.h"
#include "npk.h"
#include "path.h"
#include "redo.h"
#include "save.h"
#include "store.h"
#include "swap.h"
#include "target.h"

#define MAX_THREADS 8
/* Less data than this in all is saved sooner by one thread than others are started. */
#define PARALLEL_BYTES (UINT64_C(1) << 20)
#define HEADER_BYTES   4096 /* 64 dimensions of 20 digits and the descr fit */

struct job {
    const npk_array_in *in;
    npk_save_plan plan;
    char *path;
};

struct saving {
    npk_store *s;
    struct job *jobs;
    size_t count;
    bool create; /* -EEXIST instead of replacing */
    atomic_size_t next;
    atomic_int err;        /* of the first job that failed */
    pthread_mutex_t mutex; /* guards the sentence */
    char sentence[NPK__SENTENCE_BYTES];
};

/* ---- before the first byte ------------------------------------------------------------------------------------- */

int npk__save_plan(const npk_array_in *in, npk_save_plan *j)
{
    npk_dtype dtype;
    int err = npk_dtype_parse(in->dtype, &dtype, j->descr);
    if (err)
        return npk__fail(err, "\"%s\": %s", in->name, npk_error());
    if (in->ndim > NPK_MAX_DIMS)
        return npk__fail(-EINVAL, "\"%s\": %u dimensions; at most %d", in->name, in->ndim, NPK_MAX_DIMS);
    if (dtype.kind == NPK_KIND_OBJECT)
        return npk__fail(-EINVAL, "\"%s\": dtype object has no fixed size; give another", in->name);
    j->bytes = dtype.itemsize;
    bool empty = false;
    for (uint32_t i = 0; i < in->ndim; i++) {
        empty |= in->shape[i] == 0; /* as numpy, refuse what would be too much without the zero */
        if (__builtin_mul_overflow(j->bytes, in->shape[i] ? in->shape[i] : 1, &j->bytes) ||
            j->bytes > INT64_MAX - HEADER_BYTES)
            return npk__fail(-EOVERFLOW, "\"%s\": its shape has more elements than a file can hold", in->name);
    }
    if (empty)
        j->bytes = 0;
    return 0;
}

/* Does a program write to it? An operation of the engine's own that is under way holds the lock: wait for that. */
static int check_writer(const struct saving *w, const struct job *j, int fd)
{
    npk_target t;
    if (npk__lease_probe(fd) != -EBUSY)
        return 0;
    int err = npk__target_lock(w->s, j->in->name, &t);
    if (!err && npk__lease_probe(fd) == -EBUSY)
        err = npk__fail(-EBUSY, "\"%s\": open or mapped for writing by a program; try again when it is closed",
                        j->in->name);
    npk__target_release(&t);
    return err;
}

/* What has the name now? -ENOENT is fine, and no sentence is needed for it. */
static int check_place(const struct saving *w, const struct job *j)
{
    int fd = npk__open_beneath(w->s->root_fd, j->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    struct stat st;
    if (fd == -ENOENT)
        return 0;
    int err = fd < 0 ? fd : npk__fstat(fd, &st);
    if (err) {
        npk__close(&fd);
        return npk__name_failed(err, j->in->name);
    }
    if (S_ISDIR(st.st_mode))
        err = npk__name_failed(-EISDIR, j->in->name);
    else if (!S_ISREG(st.st_mode))
        err = npk__fail(-EINVAL, "\"%s\": \"%s\" is not a regular file; remove it first", j->in->name, j->path);
    else if (w->create)
        err = npk__fail(-EEXIST, "\"%s\": exists already; npk_save replaces", j->in->name);
    else
        err = check_writer(w, j, fd);
    npk__close(&fd);
    return err;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int check_twice(const struct saving *w)
{
    char **paths = malloc(w->count * sizeof(*paths));
    if (!paths)
        return npk__fail(-ENOMEM, "out of memory");
    for (size_t i = 0; i < w->count; i++)
        paths[i] = w->jobs[i].path;
    qsort(paths, w->count, sizeof(*paths), compare_paths);
    int err = 0;
    for (size_t i = 1; i < w->count && !err; i++)
        if (strcmp(paths[i - 1], paths[i]) == 0)
            err = npk__fail(-EINVAL, "\"%s\": twice in one call; give each array once", paths[i]);
    free(paths);
    return err;
}

static int check_all(struct saving *w, const npk_array_in *arrays)
{
    char path[NPK__PATH_BYTES];
    for (size_t i = 0; i < w->count; i++) {
        struct job *j = &w->jobs[i];
        j->in = &arrays[i];
        int err = npk__name_to_path(j->in->name, path, sizeof(path));
        if (!err)
            err = npk__save_plan(j->in, &j->plan);
        if (!err && !(j->path = strdup(path)))
            err = npk__fail(-ENOMEM, "out of memory");
        if (!err)
            err = check_place(w, j);
        if (err)
            return err;
    }
    return check_twice(w);
}

/* ---- one array ------------------------------------------------------------------------------------------------- */

int npk__save_write(const npk_array_in *in, const npk_save_plan *j, int fd)
{
    uint8_t header[HEADER_BYTES];
    size_t bytes;
    int err = npk_header_format(j->descr, false, in->shape, in->ndim, header, sizeof(header), &bytes);
    if (err)
        return err;
    err = npk__pwrite_full(fd, header, bytes, 0);
    if (err || j->bytes == 0)
        return err;
    return in->data ? npk__pwrite_full(fd, in->data, j->bytes, bytes) : npk__ftruncate(fd, bytes + j->bytes);
}

/* The new data is on the disk before the old file goes: what npk_sync() said of the old array must hold, so after power
 * loss there is the one or the other, not an empty file under the name. A new name needs no such wait. */
static int replace(const struct saving *w, const struct job *j, int dir_fd, const char *leaf, int old_fd)
{
    npk_swap swap;
    npk_file_id id;
    int err = old_fd >= 0 ? npk__file_id(old_fd, &id) : 0;
    if (err)
        return npk__fail_errno(err, j->in->name);
    err = npk__swap_begin(dir_fd, leaf, old_fd, &swap);
    if (err)
        return err;
    if (j == w->jobs)
        (void)npk__swap_sweep(swap.sidecar_fd); /* what killed savers left, once a call */
    err = npk__save_write(j->in, &j->plan, swap.fd);
    if (!err && old_fd >= 0)
        err = npk__fdatasync(swap.fd);
    if (err)
        err = npk__fail_errno(err, j->in->name);
    int lease = err || old_fd < 0 ? -ENOTSUP : npk__lease_take(old_fd);
    if (lease == -EAGAIN)
        err = npk__fail(-EBUSY, "\"%s\": open or mapped for writing by a program; try again when it is closed",
                        j->in->name);
    if (!err)
        err = npk__swap_commit(&swap,
                               (lease == 0 ? NPK_SWAP_LEASE : 0) | (w->create || old_fd < 0 ? NPK_SWAP_NOREPLACE : 0));
    if (lease == 0)
        npk__lease_drop(old_fd);
    npk__swap_abort(&swap);
    if (!err && old_fd >= 0) {
        (void)npk__dirty_remove(dir_fd, &id, false); /* an entry of an inode without a name harms nobody */
        npk__redo_drop(dir_fd, leaf);                /* what was to be redone was the old file's */
    }
    return err;
}

static int save_locked(const struct saving *w, const struct job *j, int dir_fd, const char *leaf)
{
    /* A program that takes no lock may make or replace the file meanwhile: look again then. */
    for (unsigned tries = 0;; tries++) {
        int old_fd = npk__openat(dir_fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
        if (old_fd < 0 && old_fd != -ENOENT)
            return npk__name_failed(old_fd, j->in->name);
        int err = w->create && old_fd >= 0
                      ? npk__fail(-EEXIST, "\"%s\": exists already; npk_save replaces", j->in->name)
                      : replace(w, j, dir_fd, leaf, old_fd);
        npk__close(&old_fd);
        if ((err != -ESTALE && (err != -EEXIST || w->create)) || tries >= 8)
            return err;
    }
}

static int save_one(const struct saving *w, const struct job *j)
{
    npk_target t;
    int err = npk__target_resolve(w->s, j->in->name, &t);
    if (!err)
        err = npk__lock_array(t.dir.fd, t.leaf, NPK_LOCK_EXCLUSIVE, &t.lock);
    if (!err)
        err = save_locked(w, j, t.dir.fd, t.leaf);
    npk__target_release(&t);
    return err;
}

/* ---- all of them ----------------------------------------------------------------------------------------------- */

static void *work(void *ctx)
{
    struct saving *w = ctx;
    while (atomic_load(&w->err) == 0) {
        size_t i = atomic_fetch_add(&w->next, 1);
        if (i >= w->count)
            break;
        int err = save_one(w, &w->jobs[i]), none = 0;
        if (err && atomic_compare_exchange_strong(&w->err, &none, err)) {
            pthread_mutex_lock(&w->mutex);
            memcpy(w->sentence, npk_error(), strlen(npk_error()) + 1);
            pthread_mutex_unlock(&w->mutex);
        }
    }
    return NULL;
}

static unsigned threads_for(const struct saving *w)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < w->count; i++)
        if (__builtin_add_overflow(bytes, w->jobs[i].plan.bytes, &bytes))
            bytes = UINT64_MAX;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (bytes < PARALLEL_BYTES || cores < 2)
        return 1;
    unsigned n = cores < MAX_THREADS ? (unsigned)cores : MAX_THREADS;
    return w->count < n ? (unsigned)w->count : n;
}

/* The caller's thread works, too; if no other can be started it does all. */
static int save_all(struct saving *w)
{
    pthread_t threads[MAX_THREADS];
    unsigned started = 0, wanted = threads_for(w);
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, work, w) == 0)
        started++;
    work(w);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    int err = atomic_load(&w->err);
    return err ? npk__fail(err, "%s", w->sentence) : 0;
}

static int save(npk_store *s, const npk_array_in *arrays, size_t count, bool create)
{
    if (count == 0)
        return 0;
    int err = npk__store_writable(s, arrays[0].name);
    if (err)
        return err;
    struct saving w = {.s = s, .count = count, .create = create, .jobs = calloc(count, sizeof(struct job))};
    if (!w.jobs)
        return npk__fail(-ENOMEM, "out of memory");
    pthread_mutex_init(&w.mutex, NULL);
    err = check_all(&w, arrays);
    for (size_t i = 0; i < count && !err; i++)
        err = npk__make_parents(s->root_fd, w.jobs[i].path);
    if (!err)
        err = save_all(&w);
    for (size_t i = 0; i < count; i++)
        free(w.jobs[i].path);
    free(w.jobs);
    pthread_mutex_destroy(&w.mutex);
    return err;
}

npk_err npk_save(npk_store *s, const npk_array_in *arrays, size_t count)
{
    return save(s, arrays, count, false);
}

npk_err npk_create(npk_store *s, const npk_array_in *array)
{
    return save(s, array, 1, true);
}
