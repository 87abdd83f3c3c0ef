/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.c - the node table. One mutex protects the two hashes, every node's links and counts; nothing is opened, read or
 * answered while it is held. See node.h for the identities.
 */
#include "node.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "dirfd.h"
#include "node_table.h"
#include "open.h"

struct fs_name {
    fs_node *node, *parent;
    fs_name *hash_next;  /* names by (parent, text) */
    fs_name *next;       /* other names of the node */
    uint32_t hash;
    char text[];
};

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ (x >> 33);
}

static uint32_t name_hash(const fs_node *parent, const char *text)
{
    uint64_t h = 0xcbf29ce484222325ull ^ (uintptr_t)parent;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        h = (h ^ *p) * 0x100000001b3ull;
    return (uint32_t)mix(h);
}

static size_t node_slot(const struct fs_nodes *t, uint64_t ino)
{
    return mix(ino) & (t->node_slots - 1);
}

int nodes_new(fs_state *fs)
{
    struct fs_nodes *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    pthread_mutex_init(&t->lock, NULL);
    t->node_slots = t->name_slots = 1024;
    t->nodes = calloc(t->node_slots, sizeof *t->nodes);
    t->names = calloc(t->name_slots, sizeof *t->names);
    t->root = calloc(1, sizeof *t->root);
    if (!t->nodes || !t->names || !t->root) {
        free(t->nodes);
        free(t->names);
        free(t->root);
        free(t);
        return -ENOMEM;
    }
    t->root->kind = NODE_STORE;
    t->root->type = S_IFDIR;
    t->root->lookups = 1; /* the kernel never forgets the root */
    struct statx stx;
    if (statx(fs->root_fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &stx) == 0) {
        t->root->ino = stx.stx_ino;
        t->root->birth_ns = node_birth_ns(&stx);
        t->dev_major = stx.stx_dev_major;
        t->dev_minor = stx.stx_dev_minor;
    }
    dir_fds_init(&t->dirs);
    fs->nodes = t;
    return 0;
}

void nodes_free(fs_state *fs)
{
    struct fs_nodes *t = fs->nodes;
    if (!t)
        return;
    dir_fds_clear(&t->dirs);
    for (size_t i = 0; i < t->name_slots; i++)
        for (fs_name *n = t->names[i], *after; n; n = after) {
            after = n->hash_next;
            if (n->node->kind != NODE_STORE) {
                /* Nodes outside the identity hash are reached by their names only; free at the last one. */
                n->node->names = NULL;
                if (n->node != t->root && n->node->pins != UINT32_MAX) {
                    n->node->pins = UINT32_MAX;
                    n->node->next = t->strays;
                    t->strays = n->node;
                }
            }
            free(n);
        }
    for (size_t i = 0; i < t->node_slots; i++)
        for (fs_node *n = t->nodes[i], *after; n; n = after) {
            after = n->next;
            free(n);
        }
    for (fs_node *n = t->dead, *after; n; n = after) {
        after = n->next;
        free(n);
    }
    for (fs_node *n = t->strays, *after; n; n = after) {
        after = n->next;
        free(n);
    }
    free(t->root);
    free(t->nodes);
    free(t->names);
    free(t);
    fs->nodes = NULL;
}

fs_node *node_of(fs_state *fs, fuse_ino_t id)
{
    return id == FUSE_ROOT_ID ? fs->nodes->root : (fs_node *)(uintptr_t)id;
}

fuse_ino_t node_id(fs_state *fs, const fs_node *n)
{
    return n == fs->nodes->root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)n;
}

uint64_t node_birth_ns(const struct statx *stx)
{
    if (!(stx->stx_mask & STATX_BTIME))
        return 0;
    return (uint64_t)stx->stx_btime.tv_sec * 1000000000u + stx->stx_btime.tv_nsec;
}

void stat_from_statx(struct stat *st, const struct statx *stx)
{
    *st = (struct stat){
        .st_dev = makedev(stx->stx_dev_major, stx->stx_dev_minor),
        .st_ino = stx->stx_ino,
        .st_mode = stx->stx_mode,
        .st_nlink = stx->stx_nlink,
        .st_uid = stx->stx_uid,
        .st_gid = stx->stx_gid,
        .st_rdev = makedev(stx->stx_rdev_major, stx->stx_rdev_minor),
        .st_size = (off_t)stx->stx_size,
        .st_blocks = (blkcnt_t)stx->stx_blocks,
        .st_blksize = (blksize_t)stx->stx_blksize,
        .st_atim = {stx->stx_atime.tv_sec, stx->stx_atime.tv_nsec},
        .st_mtim = {stx->stx_mtime.tv_sec, stx->stx_mtime.tv_nsec},
        .st_ctim = {stx->stx_ctime.tv_sec, stx->stx_ctime.tv_nsec},
    };
}

/* ---- the hashes; all under the lock ---- */

static void resize_nodes(struct fs_nodes *t, size_t slots)
{
    fs_node **nodes = calloc(slots, sizeof *nodes);
    if (!nodes)
        return; /* longer chains, nothing worse */
    size_t old = t->node_slots;
    t->node_slots = slots;
    for (size_t i = 0; i < old; i++)
        for (fs_node *n = t->nodes[i], *after; n; n = after) {
            after = n->next;
            size_t s = node_slot(t, n->ino);
            n->next = nodes[s];
            nodes[s] = n;
        }
    free(t->nodes);
    t->nodes = nodes;
}

static void resize_names(struct fs_nodes *t, size_t slots)
{
    fs_name **names = calloc(slots, sizeof *names);
    if (!names)
        return;
    for (size_t i = 0; i < t->name_slots; i++)
        for (fs_name *n = t->names[i], *after; n; n = after) {
            after = n->hash_next;
            size_t s = n->hash & (slots - 1);
            n->hash_next = names[s];
            names[s] = n;
        }
    free(t->names);
    t->names = names;
    t->name_slots = slots;
}

void nodes_shrink(fs_state *fs)
{
    struct fs_nodes *t = fs->nodes;
    pthread_mutex_lock(&t->lock);
    size_t slots = 1024;
    while (slots < t->node_count)
        slots *= 2;
    if (slots < t->node_slots / 2)
        resize_nodes(t, slots);
    slots = 1024;
    while (slots < t->name_count)
        slots *= 2;
    if (slots < t->name_slots / 2)
        resize_names(t, slots);
    pthread_mutex_unlock(&t->lock);
}

static fs_name *find_name(struct fs_nodes *t, fs_node *parent, const char *text)
{
    uint32_t h = name_hash(parent, text);
    for (fs_name *n = t->names[h & (t->name_slots - 1)]; n; n = n->hash_next)
        if (n->hash == h && n->parent == parent && strcmp(n->text, text) == 0)
            return n;
    return NULL;
}

static void unhash_node(struct fs_nodes *t, fs_node *n)
{
    for (fs_node **p = &t->nodes[node_slot(t, n->ino)]; *p; p = &(*p)->next)
        if (*p == n) {
            *p = n->next;
            n->next = NULL;
            t->node_count--;
            return;
        }
}

static void drop_from_identity(struct fs_nodes *t, fs_node *n)
{
    if (n->dead)
        return;
    unhash_node(t, n);
    n->dead = true;
    n->next = t->dead;
    if (n->next)
        n->next->prev = n;
    t->dead = n;
}

static void unlist_dead(struct fs_nodes *t, fs_node *n)
{
    if (n->prev)
        n->prev->next = n->next;
    else
        t->dead = n->next;
    if (n->next)
        n->next->prev = n->prev;
}


static void unlink_name(fs_state *fs, fs_name *gone)
{
    struct fs_nodes *t = fs->nodes;
    for (fs_name **p = &t->names[gone->hash & (t->name_slots - 1)]; *p; p = &(*p)->hash_next)
        if (*p == gone) {
            *p = gone->hash_next;
            break;
        }
    for (fs_name **p = &gone->node->names; *p; p = &(*p)->next)
        if (*p == gone) {
            *p = gone->next;
            break;
        }
    t->name_count--;
    fs_node *parent = gone->parent;
    free(gone);
    parent->pins--;
    node_release_if_unused(fs, parent);
}

static void leave_heir(fs_state *fs, fs_node *n);

void node_release_if_unused(fs_state *fs, fs_node *n)
{
    struct fs_nodes *t = fs->nodes;
    if (n->lookups || n->pins || n == t->root || n->open)
        return;
    if (n->dead)
        unlist_dead(t, n);
    else if (n->kind == NODE_STORE)
        unhash_node(t, n);
    n->pins = 1; /* so that losing its names does not come back here */
    while (n->names)
        unlink_name(fs, n->names);
    if (n->dir_fd)
        dir_fds_forget(&t->dirs, n);
    leave_heir(fs, n);
    free(n);
    atomic_fetch_sub_explicit(&fs->stats.nodes_known, 1, memory_order_relaxed);
    t->freed++;
}

/* A node with names needs none, and one that is freed lets go of it. */
static void leave_heir(fs_state *fs, fs_node *n)
{
    fs_node *heir = n->heir;
    n->heir = NULL;
    if (heir) {
        heir->pins--;
        node_release_if_unused(fs, heir);
    }
}

/* The node that has the names of this one's file, or this one. */
static fs_node *named(fs_node *n)
{
    while (!n->names && n->heir)
        n = n->heir;
    return n;
}

static bool add_name(fs_state *fs, fs_node *node, fs_node *parent, const char *text)
{
    struct fs_nodes *t = fs->nodes;
    fs_name *old = find_name(t, parent, text);
    if (old && old->node == node) { /* the name seen last is the first to be tried: others may be gone behind the mount */
        fs_name **at = &node->names;
        while (*at != old)
            at = &(*at)->next;
        *at = old->next;
        old->next = node->names;
        node->names = old;
        return true;
    }
    size_t bytes = strlen(text) + 1;
    fs_name *n = malloc(sizeof *n + bytes);
    if (!n)
        return false;
    parent->pins++; /* before the old name goes, which may hold the parent's last pin */
    if (old) {
        fs_node *was = old->node;
        was->pins++;
        unlink_name(fs, old);
        if (!was->names && !was->heir && was->ino == node->ino && was->birth_ns == node->birth_ns && was->type == node->type) {
            was->heir = node; /* the same file in another numbering of its rows */
            node->pins++;
        }
        was->pins--;
        node_release_if_unused(fs, was);
    }
    leave_heir(fs, node);
    *n = (fs_name){.node = node, .parent = parent, .next = node->names, .hash = name_hash(parent, text)};
    memcpy(n->text, text, bytes);
    node->names = n;
    if (t->name_count++ > t->name_slots)
        resize_names(t, t->name_slots * 2);
    size_t s = n->hash & (t->name_slots - 1);
    n->hash_next = t->names[s];
    t->names[s] = n;
    return true;
}

static fs_node *new_node(fs_state *fs, fs_node_kind kind, mode_t type, uint64_t ino, uint64_t birth_ns)
{
    fs_node *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->kind = kind;
    n->type = type;
    n->ino = ino;
    n->birth_ns = birth_ns;
    atomic_fetch_add_explicit(&fs->stats.nodes_known, 1, memory_order_relaxed);
    return n;
}

static fs_node *find_identity(struct fs_nodes *t, const struct statx *stx, uint64_t generation)
{
    uint64_t birth = node_birth_ns(stx);
    for (fs_node *n = t->nodes[node_slot(t, stx->stx_ino)]; n; n = n->next) {
        if (n->ino != stx->stx_ino)
            continue;
        if (n->type != (stx->stx_mode & S_IFMT) || n->birth_ns != birth) {
            drop_from_identity(t, n); /* the number was given to another file */
            return find_identity(t, stx, generation);
        }
        if (n->generation == generation)
            return n;
    }
    return NULL;
}

static fs_node *bind(fs_state *fs, fs_node *parent, const char *name, const struct statx *stx, uint64_t generation)
{
    struct fs_nodes *t = fs->nodes;
    pthread_mutex_lock(&t->lock);
    fs_node *n = find_identity(t, stx, generation);
    if (!n) {
        n = new_node(fs, NODE_STORE, stx->stx_mode & S_IFMT, stx->stx_ino, node_birth_ns(stx));
        if (n) {
            n->generation = generation;
            if (t->node_count++ > t->node_slots)
                resize_nodes(t, t->node_slots * 2);
            size_t s = node_slot(t, n->ino);
            n->next = t->nodes[s];
            t->nodes[s] = n;
        }
    }
    if (n) {
        n->lookups++;
        n->estale_told = false; /* a name leads here again: opens that follow may be told anew */
        n->shown_size = stx->stx_size;
        n->shown_mtime_ns = statx_ns(&stx->stx_mtime);
        if (parent && !add_name(fs, n, parent, name)) {
            n->lookups--;
            node_release_if_unused(fs, n);
            n = NULL;
        }
    }
    pthread_mutex_unlock(&t->lock);
    return n;
}

bool node_shows(fs_state *fs, const fs_node *n, const struct statx *stx)
{
    pthread_mutex_lock(&fs->nodes->lock);
    bool same = n->shown_size == stx->stx_size &&
                n->shown_mtime_ns == statx_ns(&stx->stx_mtime);
    pthread_mutex_unlock(&fs->nodes->lock);
    return same;
}

static bool is_no_older(int64_t mtime_ns, uint64_t size, int64_t than_ns, uint64_t than_size)
{
    return mtime_ns > than_ns || (mtime_ns == than_ns && size == than_size);
}

bool node_knows(fs_state *fs, fs_node *n, uint64_t size, int64_t mtime_ns)
{
    pthread_mutex_lock(&fs->nodes->lock);
    bool known = is_no_older(n->shown_mtime_ns, n->shown_size, mtime_ns, size) ||
                 is_no_older(n->told_mtime_ns, n->told_size, mtime_ns, size);
    if (!known) {
        n->told_mtime_ns = mtime_ns;
        n->told_size = size;
    }
    pthread_mutex_unlock(&fs->nodes->lock);
    return known;
}

fs_node *node_bind(fs_state *fs, fs_node *parent, const char *name, const struct statx *stx, uint64_t generation)
{
    return bind(fs, parent, name, stx, generation);
}

fs_node *node_bind_unnamed(fs_state *fs, const struct statx *stx)
{
    return bind(fs, NULL, NULL, stx, 0);
}

static fs_node *bind_special(fs_state *fs, fs_node *parent, const char *name, fs_node_kind kind, const fs_control *control,
                             const struct fs_folder *folder)
{
    struct fs_nodes *t = fs->nodes;
    pthread_mutex_lock(&t->lock);
    fs_name *known = find_name(t, parent, name);
    fs_node *n = known && known->node->kind == kind ? known->node : NULL;
    if (!n) {
        bool file = kind == NODE_CONTROL_FILE || kind == NODE_BATCH_FILE || kind == NODE_BATCH_STATE ||
                    kind == NODE_FOLDER_FILE;
        mode_t type = file ? S_IFREG : S_IFDIR;
        uint64_t ino = (1ull << 63) | (mix(parent->ino * 31 + name_hash(t->root, name)) >> 1);
        n = new_node(fs, kind, type, ino, 0);
        if (n) {
            n->control = control;
            n->folder = folder;
            if (!add_name(fs, n, parent, name)) {
                free(n);
                n = NULL;
            }
        }
    }
    if (n)
        n->lookups++;
    pthread_mutex_unlock(&t->lock);
    return n;
}

fs_node *node_bind_control(fs_state *fs, fs_node *parent, const char *name, fs_node_kind kind, const fs_control *control)
{
    return bind_special(fs, parent, name, kind, control, NULL);
}

fs_node *node_bind_folder(fs_state *fs, fs_node *parent, const char *name, fs_node_kind kind, const struct fs_folder *folder)
{
    return bind_special(fs, parent, name, kind, NULL, folder);
}

fs_node *node_find(fs_state *fs, fs_node *parent, const char *name)
{
    struct fs_nodes *t = fs->nodes;
    pthread_mutex_lock(&t->lock);
    fs_name *n = find_name(t, parent, name);
    fs_node *node = n ? n->node : NULL;
    if (node)
        node->pins++;
    pthread_mutex_unlock(&t->lock);
    return node;
}

void node_pin(fs_state *fs, fs_node *n)
{
    pthread_mutex_lock(&fs->nodes->lock);
    n->pins++;
    pthread_mutex_unlock(&fs->nodes->lock);
}

void node_unpin(fs_state *fs, fs_node *n)
{
    pthread_mutex_lock(&fs->nodes->lock);
    n->pins--;
    node_release_if_unused(fs, n);
    pthread_mutex_unlock(&fs->nodes->lock);
}

void node_forget(fs_state *fs, fs_node *n, uint64_t count)
{
    if (n == fs->nodes->root)
        return;
    struct fs_open *idle = NULL;
    pthread_mutex_lock(&fs->nodes->lock);
    n->lookups = n->lookups > count ? n->lookups - count : 0;
    if (n->lookups == 0 && n->open)
        idle = open_detach_if_idle(fs, n);
    node_release_if_unused(fs, n);
    pthread_mutex_unlock(&fs->nodes->lock);
    if (idle)
        open_dispose(fs, idle);
}

void node_unname(fs_state *fs, fs_node *parent, const char *name)
{
    pthread_mutex_lock(&fs->nodes->lock);
    fs_name *n = find_name(fs->nodes, parent, name);
    if (n) {
        fs_node *node = n->node;
        node->pins++;
        unlink_name(fs, n);
        node->pins--;
        node_release_if_unused(fs, node);
    }
    pthread_mutex_unlock(&fs->nodes->lock);
}

void node_rename(fs_state *fs, fs_node *from, const char *name, fs_node *to, const char *new_name, bool exchange)
{
    struct fs_nodes *t = fs->nodes;
    pthread_mutex_lock(&t->lock);
    fs_name *a = find_name(t, from, name), *b = find_name(t, to, new_name);
    fs_node *moved = a ? a->node : NULL, *other = exchange && b ? b->node : NULL;
    from->pins++;
    to->pins++;
    if (moved)
        moved->pins++;
    if (other)
        other->pins++;
    if (a)
        unlink_name(fs, a);
    b = find_name(t, to, new_name);
    if (b) {
        fs_node *covered = b->node;
        covered->pins++;
        unlink_name(fs, b);
        covered->pins--;
        node_release_if_unused(fs, covered);
    }
    if (moved)
        add_name(fs, moved, to, new_name);
    if (other)
        add_name(fs, other, from, name);
    fs_node *held[] = {moved, other, from, to};
    for (size_t i = 0; i < 4; i++)
        if (held[i]) {
            held[i]->pins--;
            node_release_if_unused(fs, held[i]);
        }
    pthread_mutex_unlock(&t->lock);
}

void node_mark_dead(fs_state *fs, fs_node *n)
{
    pthread_mutex_lock(&fs->nodes->lock);
    if (n->kind == NODE_STORE && n != fs->nodes->root)
        drop_from_identity(fs->nodes, n);
    pthread_mutex_unlock(&fs->nodes->lock);
}

/* The store node that a control node is about: itself, or the first one above. */
static fs_node *subject(fs_node *n, const char **array)
{
    *array = NULL;
    while (n && n->kind != NODE_STORE) {
        if (!n->names)
            return NULL;
        if (n->kind == NODE_CONTROL_ARRAY)
            *array = n->names->text;
        n = n->names->parent;
    }
    return n;
}

char *node_path(fs_state *fs, fs_node *n)
{
    struct fs_nodes *t = fs->nodes;
    pthread_mutex_lock(&t->lock);
    const char *array;
    fs_node *start = subject(named(n), &array);
    size_t bytes = array ? strlen(array) + 1 : 0;
    bool rooted = start == t->root;
    for (fs_node *p = start; p && p != t->root; p = p->names->parent) {
        if (!p->names) {
            rooted = false;
            break;
        }
        bytes += strlen(p->names->text) + 1;
        rooted = p->names->parent == t->root;
        if (rooted)
            break;
    }
    char *path = rooted ? malloc(bytes + 1) : NULL;
    if (path) {
        char *end = path + (bytes ? bytes - 1 : 0);
        *end = '\0';
        if (array) {
            end -= strlen(array);
            memcpy(end, array, strlen(array));
            if (start != t->root)
                *--end = '/';
        }
        for (fs_node *p = start; p != t->root; p = p->names->parent) {
            size_t len = strlen(p->names->text);
            end -= len;
            memcpy(end, p->names->text, len);
            if (p->names->parent != t->root)
                *--end = '/';
        }
    }
    pthread_mutex_unlock(&t->lock);
    return path;
}

int node_place(fs_state *fs, fs_node *n, fs_node **parent, char name[256])
{
    pthread_mutex_lock(&fs->nodes->lock);
    int err = -ESTALE;
    n = named(n);
    if (n->names) {
        *parent = n->names->parent;
        (*parent)->pins++;
        strcpy(name, n->names->text); /* the kernel sends no longer names than NAME_MAX */
        err = 0;
    }
    pthread_mutex_unlock(&fs->nodes->lock);
    return err;
}

bool node_has_names(fs_state *fs, fs_node *n)
{
    pthread_mutex_lock(&fs->nodes->lock);
    n = named(n);
    bool several = n->names && n->names->next;
    pthread_mutex_unlock(&fs->nodes->lock);
    return several;
}

void node_turn_names(fs_state *fs, fs_node *n)
{
    pthread_mutex_lock(&fs->nodes->lock);
    n = named(n);
    fs_name *first = n->names, **end = &n->names;
    if (first && first->next) {
        n->names = first->next;
        while (*end)
            end = &(*end)->next;
        *end = first;
        first->next = NULL;
    }
    pthread_mutex_unlock(&fs->nodes->lock);
}

bool node_array_of(fs_state *fs, fs_node *control, fs_node **dir, char leaf[256])
{
    pthread_mutex_lock(&fs->nodes->lock);
    const char *array;
    *dir = subject(control, &array);
    bool found = *dir && array;
    if (found) {
        (*dir)->pins++;
        strcpy(leaf, array);
    }
    pthread_mutex_unlock(&fs->nodes->lock);
    return found;
}

bool node_is_named_like_array(fs_state *fs, fs_node *n)
{
    bool yes = false;
    pthread_mutex_lock(&fs->nodes->lock);
    for (const fs_name *m = named(n)->names; m && !yes; m = m->next) {
        size_t len = strlen(m->text);
        yes = len > 4 && strcmp(m->text + len - 4, ".npy") == 0;
    }
    pthread_mutex_unlock(&fs->nodes->lock);
    return yes;
}

#define TOLD_MAX (sizeof(((struct fs_nodes *)0)->told) / sizeof(((struct fs_nodes *)0)->told[0]))
#define TOLD_S   10 /* an open that was answered ESTALE has begun again by then, or failed otherwise */

static int64_t monotonic_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return now.tv_sec;
}

/* The table's lock is held, here and below. */
static void note_told(struct fs_nodes *t, const fs_node *n, pid_t pid)
{
    t->told[t->told_next].node = n;
    t->told[t->told_next].found = NULL;
    t->told[t->told_next].pid = pid;
    t->told[t->told_next].at_s = monotonic_s();
    t->told_next = (t->told_next + 1) % TOLD_MAX;
    t->told_any = true;
}

static bool told_another(const struct fs_nodes *t, const fs_node *n, pid_t pid)
{
    int64_t now = monotonic_s();
    for (unsigned i = 0; i < TOLD_MAX; i++)
        if (t->told[i].pid == pid && t->told[i].node != n && now - t->told[i].at_s < TOLD_S)
            return true;
    return false;
}

static void forget_told(struct fs_nodes *t, pid_t pid)
{
    bool any = false;
    for (unsigned i = 0; i < TOLD_MAX; i++) {
        if (t->told[i].pid == pid)
            t->told[i].pid = 0;
        any |= t->told[i].pid != 0;
    }
    t->told_any = any;
}

bool node_told_another(fs_state *fs, const fs_node *n, pid_t pid)
{
    pthread_mutex_lock(&fs->nodes->lock);
    bool told = told_another(fs->nodes, n, pid);
    pthread_mutex_unlock(&fs->nodes->lock);
    return told;
}

bool node_may_begin_again(fs_state *fs, pid_t pid)
{
    const fs_node *nobody = fs->nodes->root; /* is never answered ESTALE */
    pthread_mutex_lock(&fs->nodes->lock);
    bool may = !told_another(fs->nodes, NULL, pid);
    if (may)
        note_told(fs->nodes, nobody, pid);
    pthread_mutex_unlock(&fs->nodes->lock);
    return may;
}

void node_found(fs_state *fs, const fs_node *n, pid_t pid)
{
    struct fs_nodes *t = fs->nodes;
    if (!t->told_any)
        return;
    pthread_mutex_lock(&t->lock);
    for (unsigned i = 0; i < TOLD_MAX; i++)
        if (t->told[i].pid == pid)
            t->told[i].found = n;
    pthread_mutex_unlock(&t->lock);
}

bool node_found_again(fs_state *fs, const fs_node *n, pid_t pid)
{
    const struct fs_nodes *t = fs->nodes;
    int64_t now = monotonic_s();
    bool found = false;
    pthread_mutex_lock(&fs->nodes->lock);
    for (unsigned i = 0; pid && i < TOLD_MAX; i++)
        found |= t->told[i].pid == pid && t->told[i].found == n && now - t->told[i].at_s <= 1;
    pthread_mutex_unlock(&fs->nodes->lock);
    return found;
}

void node_open_done(fs_state *fs, pid_t pid)
{
    if (!fs->nodes->told_any)
        return;
    pthread_mutex_lock(&fs->nodes->lock);
    forget_told(fs->nodes, pid);
    pthread_mutex_unlock(&fs->nodes->lock);
}

bool node_may_tell_stale(fs_state *fs, fs_node *n, pid_t pid)
{
    pthread_mutex_lock(&fs->nodes->lock);
    bool may = !(n->estale_told && n->estale_pid == pid);
    n->estale_told = may;
    n->estale_pid = pid;
    if (may && told_another(fs->nodes, n, pid)) {
        /* The second new file in one open: the kernel gives up, and the next open of this node is another one. It must not
         * be taken for this one begun again, and be served with a file that has no name any more. */
        n->estale_told = false;
        forget_told(fs->nodes, pid);
    } else if (may) {
        note_told(fs->nodes, n, pid);
    }
    pthread_mutex_unlock(&fs->nodes->lock);
    if (may)
        atomic_fetch_add_explicit(&fs->stats.stale_answers, 1, memory_order_relaxed);
    return may;
}
