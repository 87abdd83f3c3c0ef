/* SPDX-License-Identifier: Apache-2.0 */
/*
 * search_folder.c - the folder `search/` of an array: queries are written to it, answers are read from it.
 *
 * A query is any .npy file, kept in memory until it is removed. An answer is a name (search_answer.h) whose query is there; it
 * is computed when it is first opened, by one search at a time (each uses all cores), and kept while the query and the
 * array stay as they are and there is room: the answers not asked for longest go first. Nothing of it is on a disk.
 */
#include "search_answer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control.h"
#include "folder.h"

#define QUERY_BYTES_MAX  ((size_t)64 << 20)  /* of one query */
#define MEMORY_BYTES_MAX ((size_t)256 << 20) /* of all queries, and again of all answers that are kept */
#define QUERIES_MAX      4096

/* Bytes that may be in use while their name goes. The count is protected by the lock of the folder. */
typedef struct blob {
    char *data;
    size_t bytes, capacity;
    unsigned users;
} blob;

/* The array as it was: another state, another answer. */
typedef struct state {
    uint64_t inode, bytes, generation;
    int64_t mtime_us;
} state;

typedef struct entry {
    struct entry *next;
    char *path, *name; /* the array's file; the file here */
    blob *blob;
    uint64_t version;  /* of a query: moves with every change; of an answer: its query's */
    state of;          /* answers */
    bool is_answer;
    uint64_t used;     /* answers: when it was last asked for */
} entry;

struct fs_searches {
    pthread_mutex_t lock;    /* protects all below; a leaf */
    entry *entries;
    size_t query_bytes, answer_bytes, query_count;
    uint64_t clock;
    pthread_mutex_t compute; /* held while a search runs */
};

typedef struct file {
    blob *blob; /* of a writer: NULL, it finds the query by its name each time */
    char *path, *name;
    struct fs_searches *all;
    bool writable;
} file;

int fs_searches_new(fs_state *fs)
{
    struct fs_searches *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->compute, NULL);
    fs->searches = s;
    return 0;
}

/* The lock is held. */
static void put_blob(blob *b)
{
    if (b && --b->users == 0) {
        free(b->data);
        free(b);
    }
}

static void free_entry(entry *e)
{
    put_blob(e->blob);
    free(e->path);
    free(e->name);
    free(e);
}

void fs_searches_free(fs_state *fs)
{
    struct fs_searches *s = fs->searches;
    if (!s)
        return;
    while (s->entries) {
        entry *e = s->entries;
        s->entries = e->next;
        free_entry(e);
    }
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->compute);
    free(s);
    fs->searches = NULL;
}

/* ---- entries; the lock is held ------------------------------------------------------------------------------------ */

static entry *find_entry(struct fs_searches *s, const char *path, const char *name, bool answers)
{
    for (entry *e = s->entries; e; e = e->next)
        if (e->is_answer == answers && strcmp(e->name, name) == 0 && strcmp(e->path, path) == 0)
            return e;
    return NULL;
}

static void drop_entry(struct fs_searches *s, entry *gone)
{
    entry **at = &s->entries;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    if (gone->is_answer) {
        s->answer_bytes -= gone->blob->bytes;
    } else {
        s->query_bytes -= gone->blob->bytes;
        s->query_count--;
    }
    free_entry(gone);
}

/* Takes the blob over. NULL: no memory. */
static entry *add_entry(struct fs_searches *s, const char *path, const char *name, blob *b, bool is_answer)
{
    entry *e = calloc(1, sizeof *e);
    char *path_copy = strdup(path), *name_copy = strdup(name);
    if (!e || !path_copy || !name_copy) {
        free(e);
        free(path_copy);
        free(name_copy);
        return NULL;
    }
    *e = (entry){.next = s->entries, .path = path_copy, .name = name_copy, .blob = b, .is_answer = is_answer};
    e->version = e->used = ++s->clock;
    s->entries = e;
    if (is_answer)
        s->answer_bytes += b->bytes;
    else
        s->query_count++;
    return e;
}

static blob *new_blob(char *data, size_t bytes)
{
    blob *b = calloc(1, sizeof *b);
    if (b)
        *b = (blob){.data = data, .bytes = bytes, .capacity = bytes, .users = 1};
    return b;
}

static void make_room(struct fs_searches *s, size_t bytes)
{
    while (s->answer_bytes + bytes > MEMORY_BYTES_MAX) {
        entry *oldest = NULL;
        for (entry *e = s->entries; e; e = e->next)
            if (e->is_answer && (!oldest || e->used < oldest->used))
                oldest = e;
        if (!oldest)
            return;
        drop_entry(s, oldest);
    }
}

/* ---- answers ------------------------------------------------------------------------------------------------------ */

static int state_of(fs_state *fs, const char *path, state *out)
{
    npk_info info;
    *out = (state){0};
    if (fs->pkg) /* it is as it ever was */
        return 0;
    int fd = npk_open_beneath(fs->store, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    int err = npk_fd_stat(fd, &info);
    if (!err) {
        *out = (state){.inode = info.inode, .bytes = info.file_bytes, .mtime_us = info.mtime_us};
        npk_info_clear(&info);
        uint64_t shown;
        err = npk_view_shows(fs->store, path, fd, &shown, &out->generation);
    }
    close(fd);
    return err;
}

static bool same_state(const state *a, const state *b)
{
    return a->inode == b->inode && a->bytes == b->bytes && a->generation == b->generation && a->mtime_us == b->mtime_us;
}

/* The kept answer if it is still right, counted once more. */
static blob *kept_answer(struct fs_searches *s, const char *path, const char *name, uint64_t version, const state *now)
{
    blob *b = NULL;
    pthread_mutex_lock(&s->lock);
    entry *e = find_entry(s, path, name, true);
    if (e && e->version == version && same_state(&e->of, now)) {
        b = e->blob;
        b->users++;
        e->used = ++s->clock;
    }
    pthread_mutex_unlock(&s->lock);
    return b;
}

static void keep_answer(struct fs_searches *s, const char *path, const char *name, blob *b, uint64_t version, const state *of)
{
    pthread_mutex_lock(&s->lock);
    entry *old = find_entry(s, path, name, true);
    if (old)
        drop_entry(s, old);
    make_room(s, b->bytes);
    b->users++;
    entry *e = add_entry(s, path, name, b, true);
    if (e) {
        e->version = version;
        e->of = *of;
    } else {
        b->users--;
    }
    pthread_mutex_unlock(&s->lock);
}

static bool gave_up(void *ctx)
{
    return fuse_req_interrupted(ctx);
}

/* Wait for the turn to search, but not longer than the caller does. */
static int wait_turn(struct fs_searches *s, fuse_req_t req)
{
    for (;;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 20000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        if (pthread_mutex_timedlock(&s->compute, &until) == 0)
            return 0;
        if (gave_up(req))
            return -EINTR;
    }
}

static int compute(fs_state *fs, const char *path, const char *name, const fs_question *question, const blob *query,
                   uint64_t version, const state *of, fuse_req_t req, blob **out)
{
    char why[512], *data;
    size_t bytes;
    int err = fs_question_answer(fs, path, question, query->data ? query->data : "", query->bytes, MEMORY_BYTES_MAX / 4, gave_up,
                                 req, &data, &bytes, why);
    if (err) {
        fs_text sentence = {0};
        fs_text_addf(&sentence, "search/%s: %s", name, *why ? why : strerror(-err));
        if (err != -EINTR)
            fs_note_failure(fs, path, sentence.failed ? strerror(-err) : sentence.data);
        fs_text_clear(&sentence);
        return err;
    }
    *out = new_blob(data, bytes);
    if (!*out) {
        free(data);
        return -ENOMEM;
    }
    keep_answer(fs->searches, path, name, *out, version, of);
    return 0;
}

static int open_answer(fs_state *fs, const char *path, const char *name, fuse_req_t req, blob **out)
{
    struct fs_searches *s = fs->searches;
    fs_question question;
    state now;
    if (!fs_question_parse(name, &question))
        return -ENOENT;
    int err = wait_turn(s, req);
    if (err)
        return err;
    pthread_mutex_lock(&s->lock);
    entry *q = find_entry(s, path, question.query, false);
    blob *query = q ? q->blob : NULL;
    uint64_t version = q ? q->version : 0;
    if (query)
        query->users++;
    pthread_mutex_unlock(&s->lock);
    err = query ? state_of(fs, path, &now) : -ENOENT;
    if (!err && !(*out = kept_answer(s, path, name, version, &now)))
        err = compute(fs, path, name, &question, query, version, &now, req, out);
    pthread_mutex_lock(&s->lock);
    put_blob(query);
    pthread_mutex_unlock(&s->lock);
    pthread_mutex_unlock(&s->compute);
    return err;
}

/* ---- queries ------------------------------------------------------------------------------------------------------- */

static bool is_query_name(const char *name)
{
    fs_question question;
    size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, ".npy") == 0 && !fs_question_parse(name, &question);
}

static int refuse(fs_state *fs, const char *path, const char *name, int err, const char *sentence)
{
    fs_text text = {0};
    fs_text_addf(&text, "search/%s: %s", name, sentence);
    fs_note_failure(fs, path, text.failed ? sentence : text.data);
    fs_text_clear(&text);
    return err;
}

/* Bytes of a query that somebody may be searching for are never changed: a change makes a copy. The lock is held. */
static int own_bytes(struct fs_searches *s, entry *q, size_t bytes)
{
    blob *b = q->blob;
    if (bytes > QUERY_BYTES_MAX || (bytes > b->bytes && s->query_bytes + (bytes - b->bytes) > MEMORY_BYTES_MAX))
        return -ENOSPC;
    size_t capacity = b->capacity < 4096 ? 4096 : b->capacity;
    while (capacity < bytes)
        capacity *= 2;
    if (b->users > 1 || capacity > b->capacity) {
        char *data = malloc(capacity);
        blob *fresh = data ? new_blob(data, b->bytes) : NULL;
        if (!fresh) {
            free(data);
            return -ENOMEM;
        }
        if (b->bytes > 0)
            memcpy(data, b->data, b->bytes);
        fresh->capacity = capacity;
        put_blob(b);
        q->blob = b = fresh;
    }
    if (bytes > b->bytes)
        memset(b->data + b->bytes, 0, bytes - b->bytes);
    return 0;
}

/* The lock is held. */
static int set_bytes(struct fs_searches *s, entry *q, size_t bytes)
{
    int err = own_bytes(s, q, bytes);
    if (err)
        return err;
    s->query_bytes = s->query_bytes - q->blob->bytes + bytes;
    q->blob->bytes = bytes;
    q->version = ++s->clock;
    return 0;
}

static int open_query(fs_state *fs, const char *path, const char *name, int flags, blob **out)
{
    struct fs_searches *s = fs->searches;
    int err = 0;
    pthread_mutex_lock(&s->lock);
    entry *q = find_entry(s, path, name, false);
    if (q && (flags & O_CREAT) && (flags & O_EXCL))
        err = -EEXIST;
    if (!q && s->query_count >= QUERIES_MAX)
        err = -ENOSPC;
    if (!q && !err) {
        blob *b = new_blob(NULL, 0);
        q = b ? add_entry(s, path, name, b, false) : NULL;
        if (!q) {
            free(b);
            err = -ENOMEM;
        }
    }
    if (!err && (flags & O_TRUNC))
        err = set_bytes(s, q, 0);
    if (!err) {
        *out = q->blob;
        q->blob->users += (flags & O_ACCMODE) == O_RDONLY; /* a writer finds the query by its name */
    }
    pthread_mutex_unlock(&s->lock);
    return err;
}

/* ---- the folder ---------------------------------------------------------------------------------------------------- */

static int search_find(fs_state *fs, const char *path, const char *name, fs_folder_entry *out)
{
    struct fs_searches *s = fs->searches;
    fs_question question;
    int err = 0;
    *out = (fs_folder_entry){0};
    pthread_mutex_lock(&s->lock);
    entry *e = find_entry(s, path, name, false);
    if (e) {
        *out = (fs_folder_entry){.bytes = e->blob->bytes, .writable = true};
    } else if (fs_question_parse(name, &question) && find_entry(s, path, question.query, false)) {
        e = find_entry(s, path, name, true);
        if (e && e->version == find_entry(s, path, question.query, false)->version)
            out->bytes = e->blob->bytes;
    } else {
        err = -ENOENT;
    }
    pthread_mutex_unlock(&s->lock);
    return err;
}

static void search_list(fs_state *fs, const char *path, fs_folder_add *add, void *ctx)
{
    struct fs_searches *s = fs->searches;
    pthread_mutex_lock(&s->lock);
    for (entry *e = s->entries; e; e = e->next)
        if (strcmp(e->path, path) == 0)
            add(ctx, e->name);
    pthread_mutex_unlock(&s->lock);
}

static int search_open(fs_state *fs, const char *path, const char *name, int flags, fuse_req_t req, void **out)
{
    file *f = calloc(1, sizeof *f);
    bool write = (flags & O_ACCMODE) != O_RDONLY, query = is_query_name(name);
    int err = !f || !(f->path = strdup(path)) || !(f->name = strdup(name)) ? -ENOMEM : 0;
    if (!err && (write || (flags & O_CREAT)) && !query)
        err = refuse(fs, path, name, -EACCES,
                     "answers are read, and queries are written as NAME.npy; NAME.METRIC.K.npy, .tsv or .rows.npy is an answer");
    if (!err) {
        fs_folder_entry found;
        int there = search_find(fs, path, name, &found);
        err = query && (!there || (flags & O_CREAT)) ? open_query(fs, path, name, flags, &f->blob)
              : query                                ? there
                                                     : open_answer(fs, path, name, req, &f->blob);
    }
    if (err) {
        if (f) {
            free(f->path);
            free(f->name);
        }
        free(f);
        return err;
    }
    f->writable = write;
    f->all = fs->searches;
    *out = f;
    return 0;
}

static ssize_t search_read(void *handle, uint64_t offset, char *out, size_t bytes)
{
    file *f = handle;
    ssize_t n = 0;
    pthread_mutex_lock(&f->all->lock);
    entry *q = f->writable ? find_entry(f->all, f->path, f->name, false) : NULL;
    const blob *b = f->writable ? (q ? q->blob : NULL) : f->blob;
    if (b && offset < b->bytes) {
        n = (ssize_t)(bytes < b->bytes - offset ? bytes : b->bytes - offset);
        memcpy(out, b->data + offset, (size_t)n);
    }
    pthread_mutex_unlock(&f->all->lock);
    return n;
}

static ssize_t search_write(void *handle, uint64_t offset, const char *data, size_t bytes)
{
    file *f = handle;
    struct fs_searches *s = f->all;
    if (!f->writable)
        return -EBADF;
    if (offset > QUERY_BYTES_MAX || bytes > QUERY_BYTES_MAX - offset)
        return -EFBIG;
    pthread_mutex_lock(&s->lock);
    entry *q = find_entry(s, f->path, f->name, false);
    int err = q ? 0 : -ENOENT;
    if (q) {
        size_t end = (size_t)offset + bytes;
        err = set_bytes(s, q, end > q->blob->bytes ? end : q->blob->bytes);
        if (!err)
            memcpy(q->blob->data + offset, data, bytes);
    }
    pthread_mutex_unlock(&s->lock);
    return err ? err : (ssize_t)bytes;
}

static int search_resize(fs_state *fs, const char *path, const char *name, uint64_t bytes)
{
    struct fs_searches *s = fs->searches;
    pthread_mutex_lock(&s->lock);
    entry *q = find_entry(s, path, name, false);
    int err = !q ? -EACCES : bytes > QUERY_BYTES_MAX ? -EFBIG : set_bytes(s, q, (size_t)bytes);
    pthread_mutex_unlock(&s->lock);
    return err;
}

static void search_close(fs_state *fs, void *handle)
{
    file *f = handle;
    pthread_mutex_lock(&fs->searches->lock);
    if (!f->writable)
        put_blob(f->blob);
    pthread_mutex_unlock(&fs->searches->lock);
    free(f->path);
    free(f->name);
    free(f);
}

/* With a query go its answers. */
static int search_remove(fs_state *fs, const char *path, const char *name)
{
    struct fs_searches *s = fs->searches;
    fs_question question;
    pthread_mutex_lock(&s->lock);
    entry *e = find_entry(s, path, name, false);
    bool query = e != NULL;
    if (!e)
        e = find_entry(s, path, name, true);
    if (e)
        drop_entry(s, e);
    for (entry *a = s->entries, *after; query && a; a = after) {
        after = a->next;
        if (a->is_answer && strcmp(a->path, path) == 0 && fs_question_parse(a->name, &question) &&
            strcmp(question.query, name) == 0)
            drop_entry(s, a);
    }
    pthread_mutex_unlock(&s->lock);
    return e ? 0 : -ENOENT;
}

const fs_folder fs_search_folder = {
    .name = "search",
    .help = "Write a query as q.npy; read q.METRIC.K.npy, .tsv or .rows.npy: the K nearest rows.",
    .find = search_find,
    .list = search_list,
    .open = search_open,
    .read = search_read,
    .write = search_write,
    .resize = search_resize,
    .close = search_close,
    .remove = search_remove,
};
