/* SPDX-License-Identifier: Apache-2.0 */
/* Proving the rules of FORMAT.md on a package: every checksum, every frame, records and index alike. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "npk.h"
#include "package.h"
#include "path.h"

#define PIECE       32 /* frames that a worker takes at once */
#define MAX_THREADS 64

typedef struct found {
    struct found *next;
    char *path;
    const char *rule;
    char *sentence;
} found;

typedef struct checking {
    npk_package *p;
    pthread_mutex_t mutex;
    uint64_t next_entry, next_frame;
    npk_package_file *file; /* whose frames are handed out */
    uint64_t chain, done, all;
    found *found, **last;
    bool no_memory, stop;
} checking;

/* The mutex is held. */
static void add(checking *c, const npk__pkg_record *r, const char *rule, const char *sentence)
{
    found *f = calloc(1, sizeof(*f));
    if (f) {
        f->path = r ? strndup(r->path, r->path_bytes) : strdup("");
        f->rule = rule;
        f->sentence = strdup(sentence);
    }
    if (!f || !f->path || !f->sentence) {
        c->no_memory = true;
        free(f);
        return;
    }
    *c->last = f;
    c->last = &f->next;
}

/* K4, K6: the record in front of an entry is the index's, and nothing is between. */
static void check_record(checking *c, uint64_t i)
{
    const npk_package *p = c->p;
    npk__pkg_record r = npk__package_record(p, i);
    c->chain = npk__pkg_chain(c->chain, r.hash);
    uint8_t *here = malloc(r.bytes);
    if (!here) {
        c->no_memory = true;
        return;
    }
    int err = p->source.read(&p->source, here, r.bytes, p->begin[i]);
    if (err || memcmp(here, "NPKR", 4) != 0 || memcmp(here + 4, p->index + p->entry[i], r.bytes - 4) != 0)
        add(c, &r, "K4", "its record is not what the index says");
    free(here);
    if (r.layout != NPK__PKG_CONTIGUOUS)
        return;
    uint64_t from = p->begin[i] + r.bytes, to = npk__package_contiguous(p, i);
    uint8_t gap[NPK__PKG_ALIGN], *head = malloc(2 * (size_t)r.head + 1);
    bool bad = !head || p->source.read(&p->source, gap, to - from, from) != 0;
    for (uint64_t k = 0; k < to - from && !bad; k++)
        bad = gap[k] != 0;
    if (!bad && r.head > 0) {
        npk__pkg_head(&r, head + r.head);
        bad = p->source.read(&p->source, head, r.head, to) != 0 || memcmp(head, head + r.head, r.head) != 0;
    }
    free(head);
    if (bad)
        add(c, &r, "K6", "the bytes before its data are not what its record says");
}

/* The next file with frames; the mutex is held. false: there is none. */
static bool next_file(checking *c)
{
    while (!c->file) {
        if (c->next_entry == c->p->count)
            return false;
        uint64_t i = c->next_entry++;
        check_record(c, i);
        npk__pkg_record r = npk__package_record(c->p, i);
        if (r.kind != NPK__PKG_FILE || r.data == 0)
            continue;
        if (npk_package_file_open(c->p, i, &c->file) != 0) {
            add(c, &r, "K7", npk_error());
            c->file = NULL;
        }
        c->next_frame = 0;
    }
    return true;
}

static void check_frames(checking *c, npk_package_file *f, uint64_t first, uint64_t count, npk__reader *reader,
                         uint8_t *buffer)
{
    for (uint64_t i = first; i < first + count; i++) {
        int err = npk__package_frame(f, reader, i, buffer);
        pthread_mutex_lock(&c->mutex);
        if (err == -ENOMEM)
            c->no_memory = true;
        else if (err)
            add(c, &f->record, "K8", npk_error());
        c->done += npk__pkg_frame_bytes(&f->record, i);
        pthread_mutex_unlock(&c->mutex);
    }
}

static bool take(checking *c, npk_package_file **f, uint64_t *first, uint64_t *count)
{
    if (c->stop || c->no_memory || !next_file(c))
        return false;
    uint64_t left = c->file->frames - c->next_frame;
    *first = c->next_frame;
    *count = left < PIECE ? left : PIECE;
    c->next_frame += *count;
    *f = NULL;
    bool last = c->next_frame == c->file->frames;
    if (npk_package_file_open(c->p, c->file->entry, f) != 0)
        c->no_memory = true;
    if (last)
        npk_package_file_close(&c->file);
    return *f != NULL;
}

struct job {
    checking *c;
    npk_progress *progress; /* of the calling thread alone */
    void *ctx;
};

static void *worker(void *arg)
{
    struct job *j = arg;
    checking *c = j->c;
    npk__reader *reader = npk__reader_take(c->p);
    npk_package_file *f;
    uint64_t first, count;
    pthread_mutex_lock(&c->mutex);
    while (reader && take(c, &f, &first, &count)) {
        uint64_t done = c->done;
        pthread_mutex_unlock(&c->mutex);
        uint8_t *buffer = malloc(f->record.frame);
        if (buffer)
            check_frames(c, f, first, count, reader, buffer);
        free(buffer);
        npk_package_file_close(&f);
        bool stop = j->progress && j->progress(j->ctx, done, c->all) != 0;
        pthread_mutex_lock(&c->mutex);
        c->stop |= stop;
        c->no_memory |= !buffer;
    }
    c->no_memory |= !reader;
    pthread_mutex_unlock(&c->mutex);
    if (reader)
        npk__reader_give(c->p, reader);
    return NULL;
}

static void check_end(checking *c)
{
    const npk_package *p = c->p;
    uint8_t is[NPK__PKG_END_BYTES], want[NPK__PKG_END_BYTES];
    npk__pkg_end_put(want, c->chain);
    if (p->source.read(&p->source, is, sizeof(is), p->footer.index - sizeof(is)) != 0 ||
        memcmp(is, want, sizeof(is)) != 0)
        add(c, NULL, "K5", "the end of the records is damaged; the index is whole, so every file can be read");
}

static int tell(checking *c, npk_check_visit *visit, void *ctx)
{
    int err = 0;
    while (c->found) {
        found *f = c->found;
        npk_finding finding = {NPK_DAMAGE, f->path, f->rule, f->sentence, false};
        if (!err)
            err = visit(ctx, &finding);
        c->found = f->next;
        free(f->path);
        free(f->sentence);
        free(f);
    }
    return err;
}

static void run(checking *c, unsigned threads, npk_progress *progress, void *ctx)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned wanted = threads > 0 ? threads : cores > 0 ? (unsigned)cores : 1, started = 0;
    pthread_t others[MAX_THREADS];
    struct job quiet = {c, NULL, NULL}, loud = {c, progress, ctx};
    while (started + 1 < wanted && started < MAX_THREADS && pthread_create(&others[started], NULL, worker, &quiet) == 0)
        started++;
    worker(&loud);
    while (started > 0)
        pthread_join(others[--started], NULL);
}

npk_err npk_package_check(const char *path, unsigned threads, npk_check_visit *visit, void *ctx,
                          npk_progress *progress, void *progress_ctx)
{
    checking c = {0};
    c.last = &c.found;
    int err = npk_package_open(path, &c.p);
    if (err == -EINVAL || err == -ENOTSUP) {
        char *sentence = strdup(npk_error());
        npk_finding finding = {NPK_DAMAGE, "", err == -ENOTSUP ? "K1" : "K3", sentence ? sentence : "", false};
        err = visit(ctx, &finding);
        free(sentence);
        return err;
    }
    if (err)
        return err;
    for (uint64_t i = 0; i < c.p->count; i++)
        c.all += npk__package_record(c.p, i).data;
    pthread_mutex_init(&c.mutex, NULL);
    run(&c, threads, progress, progress_ctx);
    if (!c.stop && !c.no_memory)
        check_end(&c);
    pthread_mutex_destroy(&c.mutex);
    npk_package_file_close(&c.file);
    npk_package_close(&c.p);
    err = tell(&c, visit, ctx);
    if (!err && c.stop)
        err = npk__fail(-ECANCELED, "the check was interrupted");
    return !err && c.no_memory ? npk__fail(-ENOMEM, "out of memory") : err;
}
