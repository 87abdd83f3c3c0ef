/* SPDX-License-Identifier: Apache-2.0 */
/* save.c - see save.h. */
#include "save.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "keeper.h"
#include "log.h"
#include "loop.h"
#include "node_table.h"
#include "notice.h"
#include "ops.h"
#include "sys.h"

/* The kernel asks again at once; a caller that was killed in between never does. */
#define WAIT_MS 30000
/* An OPEN that was told to look again comes back sooner than this. */
#define AGAIN_MS 1000
/* How long a save waits for another one of the same name to be closed, which has the name already. */
#define CLOSE_MS 5000
/* And for somebody unknown, who may be the kernel: it lets go of a file that was handed to it some time after its RELEASE. */
#define GRACE_MS 500

struct fs_save {
    pid_t caller;       /* the thread that opens, as FUSE names it; 0: of another pid namespace */
    fs_node *parent;    /* pinned; NULL: whatever array the thread looks up next */
    char leaf[256];
    int64_t since_ms;
    bool busy;          /* being begun by a LOOKUP */
    bool ending;        /* taking the name, by which others may find its node */
    int err;            /* why it cannot be: for the OPEN to tell */
    bool refused;       /* no array has the name: opened as without the option */
    npk_save_file *file; /* NULL: wanted only */
    fs_open *open;      /* of its node, one of whose users is this; NULL: wanted only */
    /* Protected by open->lock. */
    bool opened, durable, failed;
    fs_save *next;
};

struct fs_saves {
    pthread_mutex_t lock;    /* protects the list and all that comes before `opened` */
    fs_save *list;
    _Atomic unsigned waiting; /* not opened yet: a LOOKUP need not look while there is none */
};

int saves_new(fs_state *fs)
{
    if (!fs->options->atomic_save || fs->read_only)
        return 0;
    fs->saves = calloc(1, sizeof *fs->saves);
    if (!fs->saves)
        return -ENOMEM;
    pthread_mutex_init(&fs->saves->lock, NULL);
    return 0;
}

/* ---- the list ---- */

/* The list's lock is held. */
static void unlist(struct fs_saves *all, fs_save *s)
{
    for (fs_save **p = &all->list; *p; p = &(*p)->next)
        if (*p == s) {
            *p = s->next;
            break;
        }
    if (!s->opened)
        all->waiting--;
}

/* The list's lock is held: what this thread is about to open, by a name if one is given. */
static fs_save *find(struct fs_saves *all, pid_t caller, const fs_node *parent, const char *leaf)
{
    for (fs_save *s = all->list; s; s = s->next)
        if (!s->opened && s->caller == caller &&
            (!s->parent || !parent || (s->parent == parent && strcmp(s->leaf, leaf) == 0)))
            return s;
    return NULL;
}

static char *path_of(fs_state *fs, fs_node *parent, const char *leaf)
{
    char *above = node_path(fs, parent), *path = above ? malloc(strlen(above) + strlen(leaf) + 2) : NULL;
    if (path)
        sprintf(path, "%s%s%s", above, *above ? "/" : "", leaf);
    free(above);
    return path;
}

static void note_aside(fs_state *fs, const fs_save *s, const char *aside, const char *why)
{
    char sentence[1024];
    if (*aside)
        snprintf(sentence, sizeof sentence,
                 "\"%s\": a save over it ended %s; what was written is \"%s\", the old array is as it was", s->leaf, why,
                 aside);
    else
        snprintf(sentence, sizeof sentence,
                 "\"%s\": a save over it ended before a byte was written; the old array is as it was", s->leaf);
    char *path = path_of(fs, s->parent, s->leaf);
    if (path) {
        fs_note_failure(fs, path, sentence);
        if (*aside)
            fs_note_health(fs, path, sentence);
    }
    if (*aside)
        fs_log(FS_LOG_WARNING, "%s", sentence);
    free(path);
}

/* It is off the list, and off its open state. */
static void free_save(fs_state *fs, fs_save *s)
{
    if (s->open)
        open_release(fs, s->open);
    if (s->parent)
        node_unpin(fs, s->parent);
    free(s);
}

static void leave_list(fs_state *fs, fs_save *s)
{
    pthread_mutex_lock(&fs->saves->lock);
    unlist(fs->saves, s);
    pthread_mutex_unlock(&fs->saves->lock);
}

/* Off the list, and never opened: nothing was written. */
static void give_up(fs_state *fs, fs_save *s)
{
    char aside[256];
    if (s->open) {
        pthread_mutex_lock(&s->open->lock);
        s->open->save = NULL;
        pthread_mutex_unlock(&s->open->lock);
    }
    if (s->file)
        npk_save_file_set_aside(&s->file, aside);
    free_save(fs, s);
}

size_t saves_expire(fs_state *fs)
{
    struct fs_saves *all = fs->saves;
    size_t left = 0;
    for (bool again = all != NULL; again;) {
        fs_save *old = NULL;
        left = 0;
        pthread_mutex_lock(&all->lock);
        for (fs_save *s = all->list; s && !old; s = s->next) {
            if (s->opened)
                continue;
            left++;
            if (!s->busy && fs_now_ms() - s->since_ms >= WAIT_MS)
                old = s;
        }
        if (old)
            unlist(all, old);
        pthread_mutex_unlock(&all->lock);
        if (old)
            give_up(fs, old);
        again = old != NULL;
    }
    return left;
}

void saves_free(fs_state *fs)
{
    struct fs_saves *all = fs->saves;
    if (!all)
        return;
    while (all->list) {
        fs_save *s = all->list;
        char aside[256];
        all->list = s->next;
        if (s->open)
            s->open->save = NULL;
        if (s->file) {
            npk_save_file_set_aside(&s->file, aside);
            if (*aside)
                note_aside(fs, s, aside, "with the mount");
        }
        free_save(fs, s);
    }
    pthread_mutex_destroy(&all->lock);
    free(all);
    fs->saves = NULL;
}

/* ---- the way to it ---- */

/* parent is pinned for it, or NULL. */
static bool want(fuse_req_t req, fs_node *parent, const char *leaf)
{
    fs_state *fs = fs_of(req);
    struct fs_saves *all = fs->saves;
    fs_save *s = calloc(1, sizeof *s);
    if (!s) {
        if (parent)
            node_unpin(fs, parent);
        fuse_reply_err(req, ENOMEM);
        return true;
    }
    s->caller = fuse_req_ctx(req)->pid;
    s->parent = parent;
    if (parent)
        strcpy(s->leaf, leaf);
    s->since_ms = fs_now_ms();
    pthread_mutex_lock(&all->lock);
    s->next = all->list;
    all->list = s;
    all->waiting++;
    pthread_mutex_unlock(&all->lock);
    keeper_wake(fs);
    atomic_fetch_add_explicit(&fs->stats.stale_answers, 1, memory_order_relaxed);
    fuse_reply_err(req, ESTALE);
    return true;
}

static bool is_array_name(const char *leaf)
{
    size_t n = strlen(leaf);
    return n > 4 && strcmp(leaf + n - 4, ".npy") == 0;
}

bool save_wanted(fuse_req_t req, fs_node *n)
{
    fs_state *fs = fs_of(req);
    struct fs_saves *all = fs->saves;
    pid_t caller = fuse_req_ctx(req)->pid;
    if (!all)
        return false;
    fs_node *parent = NULL;
    char leaf[256];
    bool named = node_place(fs, n, &parent, leaf) == 0;
    int err;
    pthread_mutex_lock(&all->lock);
    fs_save *s = find(all, caller, parent, leaf);
    bool own = s && s->open && s->open->node == n, left = s && !own && !s->busy;
    bool soon = left && fs_now_ms() - s->since_ms < AGAIN_MS, plain = soon && s->refused;
    err = soon ? -s->err : 0;
    for (fs_save *other = all->list; other && !own; other = other->next)
        own = other->open && other->open->node == n && !other->ending; /* opened once more, through /proc */
    if (left)
        unlist(all, s);
    pthread_mutex_unlock(&all->lock);
    if (left)
        give_up(fs, s);
    if (err) {
        if (named)
            node_unpin(fs, parent);
        fuse_reply_err(req, err);
        return true;
    }
    if (own || plain || (named ? !is_array_name(leaf) : caller == 0)) {
        if (named)
            node_unpin(fs, parent);
        return false;
    }
    if (named && caller) { /* a file may have several names: the LOOKUP tells which one is meant */
        node_unpin(fs, parent);
        named = false;
    }
    return want(req, named ? parent : NULL, leaf);
}

bool save_wanted_at(fuse_req_t req, fs_node *parent, const char *name)
{
    fs_state *fs = fs_of(req);
    if (!fs->saves || !is_array_name(name))
        return false;
    node_pin(fs, parent);
    return want(req, parent, name);
}

/* The file for what has the name, and a node for it. 1: no array has it; 2: nor does any file. */
static int begin(fs_state *fs, fs_save *s, fs_node *parent, const char *leaf)
{
    fs_dir_fd *dir;
    struct statx stx;
    npk_info info = {0};
    int err = dir_fd_get(fs, parent, &dir);
    if (err)
        return err;
    int fd = sys_openat(dir_fd_number(dir), leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    dir_fd_put(fs, dir);
    if (fd < 0)
        return 1; /* none, or a link, or one that only its owner reads: the usual way tells */
    err = store_statx(fs, fd, "", &stx);
    if (!err)
        err = !S_ISREG(stx.stx_mode) ? 2 : stx.stx_size == 0 ? 1 : npk_fd_stat(fd, &info);
    if (!err && info.reason)
        err = 1;
    npk_info_clear(&info);
    char *path = err ? NULL : path_of(fs, parent, leaf);
    if (!err)
        err = path ? npk_save_file_begin(fs->store, path, fd, &s->file) : -ESTALE;
    if (err < 0 && path)
        fs_note_failure(fs, path, npk_error());
    close(fd);
    free(path);
    if (err)
        return err;
    err = store_statx(fs, npk_save_file_fd(s->file), "", &stx);
    fs_node *n = err ? NULL : node_bind_unnamed(fs, &stx);
    fs_open *o = n ? open_acquire(fs, n) : NULL;
    if (o) {
        pthread_mutex_lock(&o->lock);
        o->rfd = sys_reopen(npk_save_file_fd(s->file), O_RDONLY);
        o->array_name = true;
        o->save = s;
        pthread_mutex_unlock(&o->lock);
        s->open = o;
    }
    if (n)
        node_forget(fs, n, 1);
    return err ? err : o ? 0 : -ENOMEM;
}

/* The node of a save that was begun, counted for the kernel. */
static int bind_entry(fs_state *fs, const fs_save *s, fs_node **n, struct fuse_entry_param *e)
{
    struct statx stx;
    int err = store_statx(fs, npk_save_file_fd(s->file), "", &stx);
    if (err)
        return err;
    *n = node_bind_unnamed(fs, &stx);
    if (!*n)
        return -ENOMEM;
    fill_entry(fs, e, *n, &stx);
    e->entry_timeout = 0; /* whoever comes next under this name is to ask, and finds the array */
    return 0;
}

bool save_lookup(fuse_req_t req, fs_node *parent, const char *name)
{
    fs_state *fs = fs_of(req);
    struct fs_saves *all = fs->saves;
    if (all->waiting == 0 || !is_array_name(name))
        return false;
    pthread_mutex_lock(&all->lock);
    fs_save *s = find(all, fuse_req_ctx(req)->pid, parent, name);
    if (s && (s->busy || s->refused || s->err))
        s = NULL;
    if (s)
        s->busy = true;
    pthread_mutex_unlock(&all->lock);
    if (!s)
        return false;
    int err = 0;
    if (!s->file) {
        loop_yield(fs);
        err = begin(fs, s, parent, name);
        if (!s->parent && err == 0) {
            node_pin(fs, parent);
            pthread_mutex_lock(&all->lock);
            s->parent = parent;
            strcpy(s->leaf, name);
            pthread_mutex_unlock(&all->lock);
        }
    }
    fs_node *n = NULL;
    struct fuse_entry_param e;
    if (!err)
        err = bind_entry(fs, s, &n, &e);
    pthread_mutex_lock(&all->lock);
    s->busy = false;
    s->refused = err == 1;
    s->err = err < 0 ? err : 0;
    s->since_ms = fs_now_ms();
    pthread_mutex_unlock(&all->lock);
    /* The kernel's next request may come before this thread goes on: nothing of the save is looked at any more. */
    if (!err && fuse_reply_entry(req, &e) != 0)
        node_forget(fs, n, 1);
    return !err;
}

void save_opened(fs_state *fs, fs_open *o, int flags)
{
    fs_save *s = o->save;
    if (!s)
        return;
    if (flags & O_DSYNC)
        s->durable = true;
    if (s->opened)
        return;
    pthread_mutex_lock(&fs->saves->lock);
    s->opened = true;
    fs->saves->waiting--;
    pthread_mutex_unlock(&fs->saves->lock);
}

/* ---- the end of it ---- */

/* A line of /proc/PID/FILE from `key` on. */
static bool proc_text(pid_t pid, const char *file, char *out, size_t room)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, room - 1);
    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* The kernel closes what a dying process has open. */
static bool is_dying(pid_t pid)
{
    char text[1024];
    unsigned flags = 0;
    const unsigned exiting = 4; /* PF_EXITING */
    if (pid == 0 || !proc_text(pid, "stat", text, sizeof text))
        return false;
    const char *end = strrchr(text, ')');
    return end && sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && flags & exiting;
}

static pid_t process_of(pid_t thread)
{
    char text[1024];
    int pid = 0;
    const char *line = proc_text(thread, "status", text, sizeof text) ? strstr(text, "\nTgid:") : NULL;
    return line && sscanf(line, "\nTgid: %d", &pid) == 1 ? (pid_t)pid : thread;
}

/* Exactly a header is what np.lib.format.open_memmap closes before it opens the array by its name, and also what a save
 * leaves that was killed, or a child that was forked from one. */
static bool means_it(const fs_save *s, pid_t closer)
{
    if (closer == 0 || s->caller == 0)
        return true; /* of another pid namespace: nothing can be told */
    return !is_dying(closer) && (closer == s->caller || process_of(closer) == process_of(s->caller));
}

/* Somebody has the array open for writing. If all that have are saves of other programs, which have the name since their
 * FLUSH, then their RELEASE is about to come. *here: there are such. */
static bool is_being_closed(fs_state *fs, fs_save *s, bool *here)
{
    fs_node *n = node_find(fs, s->parent, s->leaf);
    fs_open *o = n ? open_borrow(fs, n) : NULL;
    bool closing = true;
    *here = false;
    if (o) {
        if (pthread_mutex_trylock(&o->lock) == 0) {
            closing = o->creators == o->writers;
            *here = o->creators > 0;
            pthread_mutex_unlock(&o->lock);
        }
        open_release(fs, o);
    }
    if (n)
        node_unpin(fs, n);
    return closing;
}

/* Of the file that loses its name: what asks for its node is to find it, before the rename and after. old: O_PATH. */
static void hold_old(fs_state *fs, fs_save *s, int old, bool lost)
{
    struct statx stx;
    fs_node *victim = old >= 0 ? node_find(fs, s->parent, s->leaf) : NULL;
    bool same = victim && store_statx(fs, old, "", &stx) == 0 && stx.stx_ino == victim->ino &&
                node_birth_ns(&stx) == victim->birth_ns;
    int own = same ? fcntl(old, F_DUPFD_CLOEXEC, 3) : -1;
    if (own >= 0)
        dir_fd_adopt(fs, victim, own);
    if (same && lost)
        name_lost(fs, victim);
    else if (victim)
        node_unpin(fs, victim);
}

static int take_name(fs_state *fs, fs_open *o, fs_save *s, int dir, const char *path)
{
    struct statx stx;
    int err = store_statx(fs, o->rfd, "", &stx);
    if (!err)
        err = sys_fsync(o->rfd, 1); /* the long part, so that little happens between here and the rename */
    fs->names_moving++;
    int old = openat(dir, s->leaf, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    hold_old(fs, s, old, false);
    if (!err)
        err = npk_save_file_publish(fs->store, &s->file, path, s->durable ? NPK_SAVE_DURABLE : 0);
    if (err) {
        if (old >= 0)
            close(old);
        fs->names_moving--;
        return err;
    }
    atomic_fetch_add_explicit(&fs->stats.swaps, 1, memory_order_relaxed);
    fs->names_moved++; /* before the name is bound: a LOOKUP that saw the old file is not to have the last word */
    hold_old(fs, s, old, true);
    if (old >= 0)
        close(old);
    fs_node *n = node_bind(fs, s->parent, s->leaf, &stx, 0);
    if (n)
        node_forget(fs, n, 1);
    fs->names_moving--;
    notice_entry_now(fs, s->parent, s->leaf);
    return 0;
}

static void set_ending(fs_state *fs, fs_save *s, bool ending)
{
    pthread_mutex_lock(&fs->saves->lock);
    s->ending = ending;
    pthread_mutex_unlock(&fs->saves->lock);
}

/* o->lock is held. */
static int publish(fs_state *fs, fs_open *o, fs_save *s)
{
    fs_dir_fd *dir = NULL;
    char *path = path_of(fs, s->parent, s->leaf);
    int err = path ? dir_fd_get(fs, s->parent, &dir) : -ESTALE;
    bool again = !err, here;
    set_ending(fs, s, true);
    for (int64_t began = fs_now_ms(); again;) {
        err = take_name(fs, o, s, dir_fd_number(dir), path);
        again = err == -EBUSY && is_being_closed(fs, s, &here) && fs_now_ms() - began < (here ? CLOSE_MS : GRACE_MS);
        if (again)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    if (err)
        set_ending(fs, s, false);
    if (err && path)
        fs_note_failure(fs, path, dir ? npk_error() : strerror(-err));
    if (dir)
        dir_fd_put(fs, dir);
    free(path);
    return err;
}

int save_flush(fuse_req_t req, fs_handle *h)
{
    fs_state *fs = fs_of(req);
    fs_open *o = h->open;
    int err = 0;
    if (!fs->saves)
        return 0;
    open_lock(fs, o);
    fs_save *s = o->save;
    npk_save_state state = s ? npk_save_file_state(s->file) : NPK_SAVE_EMPTY;
    bool ended = state == NPK_SAVE_WHOLE || (state == NPK_SAVE_HEADER && means_it(s, fuse_req_ctx(req)->pid));
    if (ended) {
        loop_yield(fs);
        err = publish(fs, o, s);
        s->failed = err != 0;
        if (!err)
            o->save = NULL;
    }
    pthread_mutex_unlock(&o->lock);
    if (ended && !err) {
        leave_list(fs, s);
        free_save(fs, s);
    }
    return err;
}

void save_release(fs_state *fs, fs_handle *h)
{
    fs_open *o = h->open;
    if (!fs->saves || !h->writer)
        return;
    open_lock(fs, o);
    fs_save *s = o->writers == 1 ? o->save : NULL;
    char aside[256] = "", why[512] = "before it was complete";
    if (s) {
        loop_yield(fs);
        o->save = NULL;
        bool whole = npk_save_file_state(s->file) == NPK_SAVE_WHOLE; /* completed through a mapping */
        if (whole && (s->failed || publish(fs, o, s) != 0))
            snprintf(why, sizeof why, "with an error that its close told");
        if (s->file) {
            if (npk_save_file_set_aside(&s->file, aside) != 0)
                fs_log(FS_LOG_ERROR, "a save could not be set aside: %s", npk_error());
            note_aside(fs, s, aside, why);
        }
    }
    pthread_mutex_unlock(&o->lock);
    if (s) {
        leave_list(fs, s);
        free_save(fs, s);
    }
}

void save_synced(fs_state *fs, fs_handle *h)
{
    if (!fs->saves)
        return;
    open_lock(fs, h->open);
    if (h->open->save)
        h->open->save->durable = true;
    pthread_mutex_unlock(&h->open->lock);
}
