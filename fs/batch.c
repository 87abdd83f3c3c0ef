/* SPDX-License-Identifier: Apache-2.0 */
/* batch.c - see batch.h: the batches that the mount knows, and their end. */
#include "batch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "notice.h"

struct fs_batches {
    pthread_mutex_t lock; /* protects the list and its counts */
    fs_batch *first;
};

static struct fs_batches *batches(fs_state *fs)
{
    struct fs_batches *made, *none = NULL, *all = atomic_load(&fs->batches);
    if (all || !(made = calloc(1, sizeof *made)))
        return all;
    pthread_mutex_init(&made->lock, NULL);
    if (atomic_compare_exchange_strong(&fs->batches, &none, made))
        return made;
    free(made);
    return none;
}

static void free_batch(fs_batch *b)
{
    npk_batch_close(&b->batch);
    for (size_t i = 0; i < b->dir_count; i++)
        free(b->dirs[i]);
    free(b->dirs);
    pthread_rwlock_destroy(&b->lock);
    free(b);
}

/* Take ownership of an open batch; counted once for the caller, once for the list. */
static fs_batch *add_batch(struct fs_batches *all, npk_batch *batch)
{
    fs_batch *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    strncpy(b->id, npk_batch_id(batch), sizeof b->id - 1);
    b->batch = batch;
    b->users = 2;
    pthread_rwlock_init(&b->lock, NULL);
    b->next = all->first;
    all->first = b;
    return b;
}

/* The lock of all is held. */
static fs_batch *find_batch(struct fs_batches *all, const char *id)
{
    fs_batch *b = all->first;
    while (b && strcmp(b->id, id) != 0)
        b = b->next;
    if (b)
        b->users++;
    return b;
}

static void put_locked(fs_batch *b)
{
    if (--b->users == 0)
        free_batch(b);
}

static void put(fs_state *fs, fs_batch *b)
{
    struct fs_batches *all = batches(fs);
    pthread_mutex_lock(&all->lock);
    put_locked(b);
    pthread_mutex_unlock(&all->lock);
}

/* Counted, not locked. */
static int find_or_open(fs_state *fs, const char *id, fs_batch **out)
{
    struct fs_batches *all = batches(fs);
    if (!all)
        return -ENOMEM;
    pthread_mutex_lock(&all->lock);
    *out = find_batch(all, id);
    int err = 0;
    if (!*out) {
        npk_batch *batch = NULL;
        err = npk_batch_open(fs->store, id, &batch);
        if (!err && !(*out = add_batch(all, batch))) {
            npk_batch_close(&batch);
            err = -ENOMEM;
        }
    }
    pthread_mutex_unlock(&all->lock);
    return err;
}

/* Off the list: committed or aborted, here or by others. */
static void forget(fs_state *fs, fs_batch *b)
{
    struct fs_batches *all = batches(fs);
    pthread_mutex_lock(&all->lock);
    fs_batch **at = &all->first;
    while (*at && *at != b)
        at = &(*at)->next;
    if (*at) {
        *at = b->next;
        put_locked(b);
    }
    pthread_mutex_unlock(&all->lock);
}

static int ignore(void *ctx, const char *name, npk_batch_change change)
{
    (void)ctx;
    (void)name;
    (void)change;
    return 0;
}

/* Counted and locked for reading. One that was ended elsewhere is forgotten: its name may be another one's by now. */
static int get_once(fs_state *fs, const char *id, fs_batch **out)
{
    int err = find_or_open(fs, id, out);
    if (err)
        return err == -EINVAL ? -ENOENT : err;
    pthread_rwlock_rdlock(&(*out)->lock);
    if ((*out)->batch && npk_batch_each((*out)->batch, ignore, NULL) != -ENOENT)
        return 0;
    pthread_rwlock_unlock(&(*out)->lock);
    forget(fs, *out);
    put(fs, *out);
    return -ESTALE;
}

int fs_batch_get(fs_state *fs, const char *id, fs_batch **out)
{
    int err = -ESTALE;
    for (unsigned tries = 0; err == -ESTALE && tries < 3; tries++)
        err = get_once(fs, id, out);
    return err == -ESTALE ? -ENOENT : err;
}

void fs_batch_put(fs_state *fs, fs_batch *b)
{
    pthread_rwlock_unlock(&b->lock);
    put(fs, b);
}

void fs_batch_expire(fs_state *fs, const char *id)
{
    struct fs_batches *all = batches(fs);
    if (!all || fs->read_only)
        return;
    pthread_mutex_lock(&all->lock);
    fs_batch *b = find_batch(all, id);
    bool ours = b && b->begun_here;
    if (b)
        put_locked(b);
    pthread_mutex_unlock(&all->lock);
    if (!ours)
        (void)npk_batch_sweep(fs->store, NULL);
}

int fs_batch_begin(fs_state *fs, const char *id)
{
    struct fs_batches *all = batches(fs);
    npk_batch *batch = NULL;
    if (!all)
        return -ENOMEM;
    pthread_mutex_lock(&all->lock);
    int err = npk_batch_begin(fs->store, id, 0, &batch);
    if (err) {
        fs_note_failure(fs, "", npk_error());
    } else {
        fs_batch *b = add_batch(all, batch);
        if (b) {
            b->users--;
            b->begun_here = true;
        } else {
            npk_batch_close(&batch);
        }
        err = b ? 0 : -ENOMEM;
    }
    pthread_mutex_unlock(&all->lock);
    return err;
}

/* ---- the end ------------------------------------------------------------------------------------------------------ */

struct changed { /* names that another file has after the commit */
    char **names;
    size_t count;
};

static int note_changed(void *ctx, const char *name, npk_batch_change change)
{
    struct changed *c = ctx;
    if (change == NPK_BATCH_READ)
        return 0;
    char **names = realloc(c->names, (c->count + 1) * sizeof *names);
    if (!names)
        return -ENOMEM;
    c->names = names;
    names[c->count] = malloc(strlen(name) + 5);
    if (!names[c->count])
        return -ENOMEM;
    stpcpy(stpcpy(names[c->count++], name), ".npy");
    return 0;
}

/* The kernel forgets what it knew of a changed array: of its directory's node, if it knows that. */
static void tell(fs_state *fs, const char *path)
{
    fs_node *dir = node_of(fs, FUSE_ROOT_ID);
    node_pin(fs, dir);
    char part[256];
    for (const char *at = path, *slash; dir; at = slash + 1) {
        slash = strchr(at, '/');
        size_t n = slash ? (size_t)(slash - at) : 0;
        if (!slash || n >= sizeof part) {
            if (!slash)
                notice_array_changed(fs, dir, at);
            node_unpin(fs, dir);
            return;
        }
        memcpy(part, at, n);
        part[n] = '\0';
        fs_node *next = node_find(fs, dir, part);
        node_unpin(fs, dir);
        dir = next;
    }
}

int fs_batch_end(fs_state *fs, const char *id, bool commit)
{
    fs_batch *b;
    struct changed changed = {0};
    int err = fs_batch_get(fs, id, &b); /* the one that has the name now */
    if (err)
        return err;
    pthread_rwlock_unlock(&b->lock);
    pthread_rwlock_wrlock(&b->lock);
    if (!b->batch)
        err = -ENOENT;
    else if (commit && atomic_load(&b->writers) > 0) {
        fs_note_failure(fs, "", "a program writes a file of the batch; close it before the commit");
        err = -EBUSY;
    } else if (commit) {
        err = npk_batch_each(b->batch, note_changed, &changed);
        if (!err)
            err = npk_batch_commit(&b->batch);
    } else {
        err = npk_batch_abort(&b->batch);
    }
    bool ended = !b->batch;
    pthread_rwlock_unlock(&b->lock);
    for (size_t i = 0; i < changed.count; i++) {
        if (!err)
            tell(fs, changed.names[i]);
        free(changed.names[i]);
    }
    free(changed.names);
    if (ended)
        forget(fs, b);
    put(fs, b);
    return err;
}

void fs_batches_free(fs_state *fs)
{
    struct fs_batches *all = atomic_load(&fs->batches);
    if (!all)
        return;
    for (fs_batch *b = all->first, *next; b; b = next) {
        next = b->next;
        free_batch(b);
    }
    pthread_mutex_destroy(&all->lock);
    free(all);
    atomic_store(&fs->batches, NULL);
}

/* ---- directories --------------------------------------------------------------------------------------------------- */

struct below {
    const char *path;
    bool found;
};

static int is_below(void *ctx, const char *name, npk_batch_change change)
{
    struct below *w = ctx;
    size_t n = strlen(w->path);
    w->found |= (change == NPK_BATCH_SAVED || change == NPK_BATCH_ROWS) && strncmp(name, w->path, n) == 0 && name[n] == '/';
    return 0;
}

bool fs_batch_has_dir(fs_state *fs, fs_batch *b, const char *path)
{
    struct below w = {.path = path};
    if (!*path)
        return true;
    for (size_t i = 0; i < b->dir_count; i++)
        if (strcmp(b->dirs[i], path) == 0)
            return true;
    int fd = npk_open_beneath(fs->store, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd >= 0)
        close(fd);
    return fd >= 0 || (npk_batch_each(b->batch, is_below, &w) == 0 && w.found);
}

int fs_batch_make_dir(fs_state *fs, const char *id, const char *path)
{
    fs_batch *b;
    int err = find_or_open(fs, id, &b);
    if (err)
        return err;
    pthread_rwlock_wrlock(&b->lock);
    if (!b->batch)
        err = -ENOENT;
    else if (fs_batch_has_dir(fs, b, path))
        err = -EEXIST;
    char **dirs = err ? NULL : realloc(b->dirs, (b->dir_count + 1) * sizeof *dirs);
    if (dirs) {
        b->dirs = dirs;
        dirs[b->dir_count] = strdup(path);
        err = dirs[b->dir_count] ? 0 : -ENOMEM;
        b->dir_count += !err;
    } else if (!err) {
        err = -ENOMEM;
    }
    pthread_rwlock_unlock(&b->lock);
    put(fs, b);
    return err;
}

int fs_batch_remove_dir(fs_state *fs, const char *id, const char *path)
{
    fs_batch *b;
    int err = find_or_open(fs, id, &b);
    if (err)
        return err;
    pthread_rwlock_wrlock(&b->lock);
    struct below w = {.path = path};
    size_t i = 0;
    while (i < b->dir_count && strcmp(b->dirs[i], path) != 0)
        i++;
    if (!b->batch || i == b->dir_count)
        err = b->batch ? -EPERM : -ENOENT; /* directories of the store stay: a batch changes arrays */
    else if (npk_batch_each(b->batch, is_below, &w) == 0 && w.found)
        err = -ENOTEMPTY;
    if (!err) {
        free(b->dirs[i]);
        b->dirs[i] = b->dirs[--b->dir_count];
    }
    pthread_rwlock_unlock(&b->lock);
    put(fs, b);
    return err;
}

/* ---- state --------------------------------------------------------------------------------------------------------- */

static int render_change(void *ctx, const char *name, npk_batch_change change)
{
    static const char *const words[] = {"read", "saved", "rows", "removed"};
    fs_text_addf(ctx, "%s\t%s\n", words[change], name);
    return 0;
}

static int render_state(fs_state *fs, const char *id, fs_text *out)
{
    fs_batch *b;
    int err = fs_batch_get(fs, id, &b);
    if (err)
        return err;
    fs_text_addf(out, "open\n");
    err = npk_batch_each(b->batch, render_change, out);
    fs_batch_put(fs, b);
    return err;
}

static int check_state(fs_state *fs, const char *id, const char *line, size_t len, fs_text *why)
{
    (void)fs;
    (void)id;
    (void)len;
    if (strcmp(line, "commit") == 0 || strcmp(line, "abort") == 0)
        return 0;
    fs_text_addf(why, "\"%.60s\": nothing that a batch can do; commit and abort are accepted", line);
    return -EINVAL;
}

static int apply_state(fs_state *fs, const char *id, const char *line, size_t len, fs_text *why)
{
    (void)len;
    int err = fs_batch_end(fs, id, line[0] == 'c');
    if (err == -EBUSY)
        fs_text_addf(why, "a program writes a file of the batch; close it before the commit");
    else if (err)
        fs_text_addf(why, "%s", npk_error());
    return err;
}

const fs_control fs_batch_state = {"state", "", false, false, render_state, check_state, apply_state, NULL};
