/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "batch.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "path.h"
#include "step.h"
#include "store.h"
#include "sum.h"
#include "walk.h"

#define VERSION     1u
#define FLAG_KEPT   1u
#define MOST_RECORD (UINT64_C(1) << 32)

enum { OPERATION_BYTE = 0, OPENER_BYTE = 1 };

static const char log_magic[8] = {'N', 'P', 'K', 'B', 'A', 'T', 'C', 'H'};

struct log_header {
    char magic[8];
    uint32_t version, flags;
    uint64_t created_us;
    uint64_t zero[4];
    uint64_t sum; /* of the bytes before it */
};

struct record_header {
    uint32_t type, entry;
    uint64_t bytes; /* of the record, all of it */
    uint64_t sum;   /* of the body, from the seed offset + type + entry * 2^32 + bytes */
};
_Static_assert(sizeof(struct log_header) == 64 && sizeof(struct record_header) == 24, "FORMAT");

static uint64_t record_seed(uint64_t offset, uint32_t type, uint32_t entry, uint64_t bytes)
{
    return offset + type + ((uint64_t)entry << 32) + bytes;
}

/* ---- the log --------------------------------------------------------------------------------------------------- */

/* -EAGAIN: torn, or nothing more. */
static int read_record(npk_batch *b, uint64_t size)
{
    struct record_header h;
    if (size - b->log_bytes < sizeof(h) || npk__pread_full(b->log_fd, &h, sizeof(h), b->log_bytes) != sizeof(h))
        return -EAGAIN;
    uint64_t bytes = le64toh(h.bytes), body = bytes - sizeof(h);
    uint32_t type = le32toh(h.type), entry = le32toh(h.entry);
    if (bytes < sizeof(h) || bytes > MOST_RECORD || bytes % 8 != 0 || bytes > size - b->log_bytes)
        return -EAGAIN;
    uint8_t *at = malloc(body + 1);
    if (!at)
        return npk__fail(-ENOMEM, "out of memory");
    int err = -EAGAIN;
    if (npk__pread_full(b->log_fd, at, body, b->log_bytes + sizeof(h)) == (ssize_t)body &&
        le64toh(h.sum) == npk__sum(at, body, record_seed(b->log_bytes, type, entry, bytes))) {
        err = npk__stage_apply(b, (npk_batch_record)type, entry, at, body);
        if (err == -EINVAL)
            err = npk__fail(-EIO, "batch \"%s\": its log is damaged at byte %llu; abort it", b->id,
                            (unsigned long long)b->log_bytes);
        b->log_bytes += err ? 0 : bytes;
    }
    free(at);
    return err;
}

static int catch_up(npk_batch *b)
{
    struct stat st;
    int err = npk__fstat(b->log_fd, &st);
    if (!err && st.st_nlink == 0)
        return npk__fail(-ENOENT, "batch \"%s\": committed or aborted meanwhile", b->id);
    while (!err && b->log_bytes < (uint64_t)st.st_size)
        err = read_record(b, (uint64_t)st.st_size);
    if (err == -EAGAIN) /* what a killed process began; the lock is ours, so nobody is writing it */
        err = npk__ftruncate(b->log_fd, b->log_bytes);
    if (!err && npk__fstat(b->data_fd, &st) == 0)
        b->data_bytes = (uint64_t)st.st_size;
    return err;
}

int npk__batch_log(npk_batch *b, npk_batch_record type, uint32_t entry, const void *body, size_t body_bytes,
                   const void *more, size_t more_bytes)
{
    size_t all = sizeof(struct record_header) + body_bytes + more_bytes;
    uint8_t *at = malloc(all);
    if (!at)
        return npk__fail(-ENOMEM, "out of memory");
    if (body_bytes)
        memcpy(at + sizeof(struct record_header), body, body_bytes);
    if (more_bytes)
        memcpy(at + sizeof(struct record_header) + body_bytes, more, more_bytes);
    struct record_header h = {.type = htole32(type), .entry = htole32(entry), .bytes = htole64(all)};
    h.sum = htole64(npk__sum(at + sizeof(h), all - sizeof(h), record_seed(b->log_bytes, type, entry, all)));
    memcpy(at, &h, sizeof(h));
    int err = npk__pwrite_full(b->log_fd, at, all, b->log_bytes);
    if (err) {
        (void)npk__ftruncate(b->log_fd, b->log_bytes);
        err = npk__fail_errno(err, b->id);
    } else {
        err = npk__stage_apply(b, type, entry, at + sizeof(h), all - sizeof(h));
        if (!err)
            b->log_bytes += all;
        else
            (void)npk__ftruncate(b->log_fd, b->log_bytes);
    }
    free(at);
    return err;
}

/* ---- locks ----------------------------------------------------------------------------------------------------- */

static int lock_log(const npk_batch *b)
{
    for (unsigned waited = 0;; waited++) {
        int err = npk__ofd_lock(b->log_fd, F_WRLCK, OPERATION_BYTE, 1);
        if (err != -EAGAIN)
            return err;
        if (waited >= npk__lock_wait_ms)
            return npk__fail(-EBUSY, "batch \"%s\": used by another process all the time that was waited", b->id);
        struct timespec ms = {.tv_nsec = 1000000};
        nanosleep(&ms, NULL);
    }
}

int npk__batch_enter(npk_batch *b)
{
    pthread_mutex_lock(&b->mutex);
    int err = lock_log(b);
    if (!err) {
        err = catch_up(b);
        if (err)
            (void)npk__ofd_lock(b->log_fd, F_UNLCK, OPERATION_BYTE, 1);
    }
    if (err)
        pthread_mutex_unlock(&b->mutex);
    return err;
}

void npk__batch_leave(npk_batch *b)
{
    (void)npk__ofd_lock(b->log_fd, F_UNLCK, OPERATION_BYTE, 1);
    pthread_mutex_unlock(&b->mutex);
}

/* ---- open and close -------------------------------------------------------------------------------------------- */

static int bad_id(const char *id)
{
    return npk__fail(-EINVAL,
                     "\"%s\": not the name of a batch; 1 to %d letters, digits, '.', '_' and '-' are, not beginning "
                     "with '.'",
                     id, NPK__BATCH_ID);
}

static void free_batch(npk_batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        free(b->list[i].path);
        free(b->list[i].pieces);
    }
    free(b->list);
    npk__close(&b->data_fd);
    npk__close(&b->log_fd);
    npk__close(&b->folder_fd);
    if (b->own_store)
        npk_store_close(&b->store);
    pthread_mutex_destroy(&b->mutex);
    free(b);
}

static npk_batch *new_batch(npk_store *s, const char *id)
{
    npk_batch *b = calloc(1, sizeof(*b));
    if (!b)
        return NULL;
    b->store = s;
    b->folder_fd = b->log_fd = b->data_fd = -1;
    pthread_mutex_init(&b->mutex, NULL);
    snprintf(b->id, sizeof(b->id), "%s", id);
    return b;
}

/* The folder, log and data of a batch that exists. */
static int open_files(npk_batch *b)
{
    struct log_header h;
    b->folder_fd = npk__batch_folder(b->store->root_fd, b->id);
    if (b->folder_fd < 0)
        return b->folder_fd;
    b->log_fd = npk__openat(b->folder_fd, "log", O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (b->log_fd < 0)
        return b->log_fd;
    b->data_fd = npk__openat(b->folder_fd, "data", O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (b->data_fd < 0)
        return b->data_fd;
    if (npk__pread_full(b->log_fd, &h, sizeof(h), 0) != sizeof(h) || memcmp(h.magic, log_magic, sizeof(h.magic)) != 0 ||
        le32toh(h.version) != VERSION || le64toh(h.sum) != npk__sum(&h, offsetof(struct log_header, sum), 0))
        return npk__fail(-EIO, "batch \"%s\": its log is none of version %u; npk check names what it holds", b->id,
                         VERSION);
    b->kept = le32toh(h.flags) & FLAG_KEPT;
    b->created_us = (int64_t)le64toh(h.created_us);
    b->log_bytes = sizeof(h);
    return 0;
}

static int write_header(int log_fd, bool kept)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct log_header h = {.version = htole32(VERSION),
                           .flags = htole32(kept ? FLAG_KEPT : 0),
                           .created_us = htole64((uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000)};
    memcpy(h.magic, log_magic, sizeof(h.magic));
    h.sum = htole64(npk__sum(&h, offsetof(struct log_header, sum), 0));
    return npk__pwrite_full(log_fd, &h, sizeof(h), 0);
}

/* The folder is made complete under a hidden name, so that no batch is ever seen half made, nor, if it is not to be
 * kept, without its opener: *log_out is a descriptor of the log that holds the opener's lock, else -1. */
static int make_files(int all_fd, const char *id, bool kept, int *log_out)
{
    char hidden[NPK__BATCH_ID + 32];
    uint64_t number;
    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        return -EIO;
    snprintf(hidden, sizeof(hidden), ".new.%016llx", (unsigned long long)number);
    int err = npk__mkdirat(all_fd, hidden, 0700);
    if (err)
        return err;
    int folder = npk__openat(all_fd, hidden, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
    int log = folder < 0 ? folder : npk__openat(folder, "log", O_RDWR | O_CREAT | O_EXCL, 0600);
    int data = log < 0 ? log : npk__openat(folder, "data", O_RDWR | O_CREAT | O_EXCL, 0600);
    err = data < 0 ? data : write_header(log, kept);
    if (!err && !kept)
        err = npk__ofd_lock(log, F_WRLCK, OPENER_BYTE, 1);
    if (!err)
        err = npk__renameat2(all_fd, hidden, all_fd, id, RENAME_NOREPLACE);
    if (err && folder >= 0) {
        (void)npk__unlinkat(folder, "log", 0);
        (void)npk__unlinkat(folder, "data", 0);
        (void)npk__unlinkat(all_fd, hidden, AT_REMOVEDIR);
    }
    *log_out = -1;
    if (!err && !kept) {
        *log_out = log;
        log = -1;
    }
    npk__close(&data);
    npk__close(&log);
    npk__close(&folder);
    return err;
}

static int make_batch(npk_store *s, const char *id, bool kept, int *log_out)
{
    int side = npk__sidecar_open(s->root_fd, true);
    if (side < 0)
        return side;
    int err = npk__mkdirat(side, NPK__BATCH_DIR, 0700);
    int all = err && err != -EEXIST ? err : npk__openat(side, NPK__BATCH_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    err = all < 0 ? all : make_files(all, id, kept, log_out);
    npk__close(&all);
    npk__close(&side);
    if (err == -EEXIST || err == -ENOTEMPTY)
        return npk__fail(-EEXIST, "\"%s\": there is a batch of this name; npk batch list names them", id);
    return err ? npk__fail_errno(err, id) : 0;
}

npk_err npk_batch_begin(npk_store *s, const char *id, unsigned flags, npk_batch **out)
{
    char made[32];
    if (flags & ~(unsigned)NPK_BATCH_KEEP)
        return npk__fail(-EINVAL, "batch flags 0x%x: unknown; NPK_BATCH_KEEP is known", flags);
    if (!id) {
        uint64_t number;
        if (getrandom(&number, sizeof(number), 0) != sizeof(number))
            return npk__fail(-EIO, "no random numbers");
        snprintf(made, sizeof(made), "%016llx", (unsigned long long)number);
        id = made;
    }
    if (!npk__batch_id_is_valid(id))
        return bad_id(id);
    int err = npk__store_writable(s, id);
    if (!err)
        (void)npk_batch_sweep(s, NULL);
    int log = -1;
    /* Who removes the last batch removes the folder of all of them, too: make it again then. */
    for (unsigned tries = 0; !err && tries < 100; tries++) {
        err = make_batch(s, id, flags & NPK_BATCH_KEEP, &log);
        if (err != -ENOENT)
            break;
        err = tries < 99 ? 0 : err;
    }
    if (err)
        return err;
    npk_batch *b = new_batch(s, id);
    err = b ? open_files(b) : npk__fail(-ENOMEM, "out of memory");
    if (err) {
        if (b)
            free_batch(b);
        npk__close(&log);
        npk__batch_folder_remove(s->root_fd, id);
        return npk__fail_errno(err, id);
    }
    b->opener = log >= 0;
    if (b->opener) {
        npk__close(&b->log_fd);
        b->log_fd = log;
    }
    *out = b;
    return 0;
}

/* In the store of the handle, or in one above it: an array's own directory is what a command line opens. */
static int find_batch(npk_store *s, const char *id, npk_batch **out)
{
    npk_batch *b = new_batch(s, id);
    if (!b)
        return npk__fail(-ENOMEM, "out of memory");
    int err = open_files(b);
    for (unsigned i = 0; err == -ENOENT && i < s->above_count; i++) {
        npk_store *above = NULL;
        npk__close(&b->folder_fd);
        b->folder_fd = -1;
        if (npk_store_open_fd(s->above[i].fd, (s->flags & NPK_READ_ONLY) | NPK_NO_REDIRECT, &above) != 0)
            continue;
        b->store = above;
        b->own_store = true;
        snprintf(b->prefix, sizeof(b->prefix), "%s/", s->above[i].path);
        err = open_files(b);
        if (err == -ENOENT) {
            npk_store_close(&b->store);
            b->own_store = false;
            b->store = s;
            *b->prefix = '\0';
        }
    }
    if (err) {
        free_batch(b);
        return err;
    }
    *out = b;
    return 0;
}

npk_err npk_batch_open(npk_store *s, const char *id, npk_batch **out)
{
    if (!npk__batch_id_is_valid(id))
        return bad_id(id);
    int err = npk__store_writable(s, id);
    if (!err)
        err = npk__journal_wait(s, NULL, 0);
    if (!err)
        err = find_batch(s, id, out);
    if (err == -ENOENT)
        return npk__fail(err, "\"%s\": no such batch; npk batch list names them", id);
    return err;
}

const char *npk_batch_id(const npk_batch *b)
{
    return b->id;
}

/* The name may be another batch's by now: this one was committed or aborted through another handle. */
static bool has_its_name(const npk_batch *b)
{
    struct stat mine, named;
    int fd = npk__batch_folder(b->store->root_fd, b->id);
    bool same = fd >= 0 && npk__fstat(fd, &named) == 0 && npk__fstat(b->folder_fd, &mine) == 0 &&
                mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
    npk__close(&fd);
    return same;
}

void npk_batch_close(npk_batch **batch)
{
    if (!batch || !*batch)
        return;
    if ((*batch)->opener && !(*batch)->decided && has_its_name(*batch))
        npk__batch_folder_remove((*batch)->store->root_fd, (*batch)->id);
    free_batch(*batch);
    *batch = NULL;
}

npk_err npk_batch_abort(npk_batch **batch)
{
    npk_batch *b = *batch;
    if (b->decided)
        return npk__fail(-EBUSY, "batch \"%s\": its commit was interrupted by an error; the next change finishes it",
                         b->id);
    int err = npk__batch_enter(b);
    if (err && err != -EIO) /* a damaged one can be aborted, too */
        return err;
    npk__batch_folder_remove(b->store->root_fd, b->id);
    if (!err)
        npk__batch_leave(b);
    free_batch(b);
    *batch = NULL;
    return 0;
}

/* ---- all batches of a store ------------------------------------------------------------------------------------ */

struct listing {
    npk_store *s;
    npk_batch_list_visit *visit;
    void *ctx;
};

static bool has_expired(const npk_batch *b)
{
    if (b->kept)
        return false;
    if (npk__ofd_lock(b->log_fd, F_WRLCK, OPENER_BYTE, 1) != 0)
        return false;
    (void)npk__ofd_lock(b->log_fd, F_UNLCK, OPENER_BYTE, 1);
    return true;
}

static int list_one(void *ctx, const char *name, unsigned char type)
{
    struct listing *w = ctx;
    (void)type;
    if (!npk__batch_id_is_valid(name))
        return 0;
    npk_batch *b = new_batch(w->s, name);
    if (!b)
        return npk__fail(-ENOMEM, "out of memory");
    npk_batch_info info = {.id = name};
    int err = open_files(b);
    if (!err)
        err = npk__batch_enter(b);
    if (!err) {
        info.kept = b->kept;
        info.created_us = b->created_us;
        info.expired = has_expired(b);
        for (size_t i = 0; i < b->count; i++)
            info.arrays += b->list[i].changed;
        npk__batch_leave(b);
    } else {
        info.damaged = err != -ENOENT;
    }
    free_batch(b);
    return err == -ENOENT ? 0 : w->visit(w->ctx, &info);
}

npk_err npk_batch_list(npk_store *s, npk_batch_list_visit *visit, void *ctx)
{
    struct listing w = {s, visit, ctx};
    int all = npk__openat(s->root_fd, NPK__SIDECAR "/" NPK__BATCH_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (all < 0)
        return all == -ENOENT ? 0 : npk__fail_errno(all, NPK__BATCH_DIR);
    int err = npk__each_name(all, list_one, &w);
    npk__close(&all);
    return err;
}

struct sweeping {
    npk_store *s;
    unsigned removed;
};

static int sweep_one(void *ctx, const npk_batch_info *info)
{
    struct sweeping *w = ctx;
    if (!info->expired || npk__journal_wait(w->s, NULL, NPK_JOURNAL_TRY) != 0)
        return 0;
    npk__batch_folder_remove(w->s->root_fd, info->id);
    w->removed++;
    return 0;
}

npk_err npk_batch_sweep(npk_store *s, unsigned *removed)
{
    struct sweeping w = {.s = s};
    int err = npk__store_writable(s, s->label);
    if (!err)
        err = npk_batch_list(s, sweep_one, &w);
    if (!err && removed)
        *removed = w.removed;
    return err;
}
