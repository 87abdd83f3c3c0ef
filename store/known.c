/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "known.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "identity.h"
#include "io.h"
#include "path.h"

/* ---- what is kept ---------------------------------------------------------------------------------------------- */

/* Files whose logs a process keeps in memory. A set-associative table: a file has WAYS places, and the one that was not
 * asked for longest is given up. */
#define SETS 64u
#define WAYS 8u

struct kept {
    uint64_t dev;
    npk_file_id id; /* inode 0: the place is free */
    uint64_t size;  /* of the data file when it was judged */
    int64_t mtime_ns;
    uint64_t used;
    char stem[NPK__STEM_BYTES];
    npk_state_print print; /* a log that nothing speaks of any more may still be there */
    uint64_t names_stop;
    uint64_t epoch, log_size;
    npk_dellog_replay replay;
};

static struct kept table[SETS][WAYS];
static uint64_t clock_now;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

/* A child has the memory, and no other thread of the parent to give the gate back. */
static void lock_gate(void)
{
    pthread_mutex_lock(&gate);
}

static void unlock_gate(void)
{
    pthread_mutex_unlock(&gate);
}

__attribute__((constructor)) static void mind_forks(void)
{
    pthread_atfork(lock_gate, unlock_gate, unlock_gate);
}

static struct kept *find_kept(const npk_stamp *stamp)
{
    struct kept *set = table[(stamp->id.inode * UINT64_C(0x9E3779B97F4A7C15) >> 32) % SETS];
    for (unsigned i = 0; i < WAYS; i++)
        if (set[i].id.inode == stamp->id.inode && set[i].id.birth_ns == stamp->id.birth_ns && set[i].dev == stamp->dev)
            return &set[i];
    return NULL;
}

static void free_kept(struct kept *k)
{
    npk__live_unref(&k->replay.live);
    memset(k, 0, sizeof(*k));
}

/* A copy, with a reference of its own to the bitmap. */
static bool get_kept(const npk_stamp *stamp, struct kept *out)
{
    lock_gate();
    struct kept *k = find_kept(stamp);
    if (k) {
        k->used = ++clock_now;
        *out = *k;
        npk__live_ref(out->replay.live);
    }
    unlock_gate();
    return k != NULL;
}

/* Keep it; a log that was read further by another thread meanwhile stays. */
static void put_kept(const struct kept *in)
{
    npk_stamp key = {.dev = in->dev, .id = in->id};
    lock_gate();
    struct kept *k = find_kept(&key);
    if (!k) {
        k = table[(key.id.inode * UINT64_C(0x9E3779B97F4A7C15) >> 32) % SETS];
        for (struct kept *i = k, *end = k + WAYS; i < end; i++)
            if (i->used < k->used)
                k = i;
        free_kept(k);
    }
    if (k->id.inode == 0 || k->epoch != in->epoch || k->replay.end <= in->replay.end) {
        npk_live *old = k->replay.live;
        *k = *in;
        npk__live_ref(k->replay.live);
        npk__live_unref(&old);
    } else {
        k->size = in->size;
        k->mtime_ns = in->mtime_ns;
        k->print = in->print;
    }
    k->used = ++clock_now;
    unlock_gate();
}

void npk__known_forget(const npk_stamp *stamp)
{
    lock_gate();
    struct kept *k = find_kept(stamp);
    if (k)
        free_kept(k);
    unlock_gate();
}

void npk__known_drop_all(void)
{
    lock_gate();
    for (unsigned i = 0; i < SETS * WAYS; i++)
        free_kept(&table[i / WAYS][i % WAYS]);
    unlock_gate();
}

/* ---- the state's file ------------------------------------------------------------------------------------------ */

int npk__in_doubt(const char *leaf)
{
    return npk__fail(-EUCLEAN,
                     "\"%s\": has been changed from outside, so which of its rows are deleted is in doubt; npk check "
                     "--keep takes the deletions as they are, --set-aside shows all rows",
                     leaf);
}

/* The state of this inode; without one, the last: that of the file which has the name. */
unsigned npk__state_pick(const npk_states *s, const npk_stamp *stamp)
{
    for (unsigned i = 0; i < s->count; i++)
        if (s->state[i].id.inode == stamp->id.inode && s->state[i].id.birth_ns == stamp->id.birth_ns)
            return i;
    return s->count - 1;
}

static bool bound_by_inode(const npk_states *s, const npk_stamp *stamp)
{
    const npk_state *state = &s->state[npk__state_pick(s, stamp)];
    return state->id.inode == stamp->id.inode && state->id.birth_ns == stamp->id.birth_ns;
}

bool npk__state_there(int dir_fd, const char *leaf, uint64_t inode)
{
    char stem[NPK__STEM_BYTES], file[256], path[300];
    struct stat st;
    npk__state_stem(leaf, stem);
    npk__state_file(stem, file);
    snprintf(path, sizeof(path), NPK__SIDECAR "/%s", file);
    return npk__fstatat(dir_fd, path, &st) == 0 || npk__state_stem_of(dir_fd, inode, stem) > 0;
}

bool npk_state_there(int dir_fd, const char *leaf, uint64_t inode)
{
    return npk__state_there(dir_fd, leaf, inode);
}

/* No state is bound to the file. Was it bound to one until just now, when another file took its name? */
static int still_named(const char *leaf, int fd)
{
    struct stat st;
    int err = npk__fstat(fd, &st);
    if (!err && st.st_nlink == 0)
        return npk__fail(-ESTALE, "\"%s\": another file has taken its name; open it again", leaf);
    return err ? npk__fail_errno(err, leaf) : 0;
}

/* The inode decides before the name does: a state that is bound to the name's former file says nothing of this one
 * while another is bound to it. */
static int load_state(int dir_fd, const char *leaf, const npk_stamp *stamp, npk_states *states,
                      char stem[NPK__STEM_BYTES])
{
    char other[NPK__STEM_BYTES];
    npk_states linked = {.count = 0};
    npk__state_stem(leaf, stem);
    int there = npk__state_load(dir_fd, stem, states);
    if (there < 0 || (there > 0 && bound_by_inode(states, stamp)))
        return there;
    int err = npk__state_stem_of(dir_fd, stamp->id.inode, other);
    if (err > 0 && strcmp(other, stem) != 0)
        err = npk__state_load(dir_fd, other, &linked);
    else
        err = 0;
    if (err > 0 && bound_by_inode(&linked, stamp)) {
        npk__states_clear(states);
        *states = linked;
        memcpy(stem, other, sizeof(other));
        return 1;
    }
    npk__states_clear(&linked);
    return there;
}

int npk__state_find(int dir_fd, const char *leaf, int fd, const npk_info *info, const npk_stamp *stamp,
                    npk_states *states, char stem[NPK__STEM_BYTES], unsigned *at, int *how)
{
    npk_identity identity;
    npk_dirty entry;
    memset(states, 0, sizeof(*states));
    int there = load_state(dir_fd, leaf, stamp, states, stem);
    if (there == 0 || (there > 0 && !bound_by_inode(states, stamp))) {
        int err = still_named(leaf, fd);
        if (err)
            return err;
    }
    if (there <= 0)
        return there;
    *at = npk__state_pick(states, stamp);
    const npk_state *s = &states->state[*at];
    bool exact = bound_by_inode(states, stamp) && stamp->size == s->size && stamp->mtime_ns == s->mtime_ns;
    bool entered = !exact && npk__dirty_find(dir_fd, &stamp->id, &entry) > 0;
    int err = npk__identity_judge(fd, info, stamp, s, entered, &identity);
    if (err)
        return npk__fail_errno(err, leaf);
    *how = (int)identity;
    return identity != NPK_ID_REPLACED;
}

/* ---- looking --------------------------------------------------------------------------------------------------- */

/* 1: the log was read up to its end; 0: there is no such log (any more). */
static int read_log(int dir_fd, struct kept *k, bool known)
{
    char name[NPK__DELLOG_NAME], path[NPK__DELLOG_NAME + 16];
    npk__dellog_name(k->stem, k->epoch, name);
    if (known) {
        struct stat st;
        snprintf(path, sizeof(path), NPK__SIDECAR "/%s", name);
        int err = npk__fstatat(dir_fd, path, &st);
        if (err)
            return err == -ENOENT || err == -ENOTDIR ? 0 : npk__fail_errno(err, name);
        if ((uint64_t)st.st_size == k->log_size && k->replay.end == k->log_size)
            return 1;
    }
    int fd = npk__sidecar_file(dir_fd, name, O_RDONLY);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    int err = npk__live_own(&k->replay.live);
    if (err)
        npk__fail(err, "out of memory");
    else
        err = npk__dellog_read(fd, name, k->epoch, &k->replay, &k->log_size);
    npk__close(&fd);
    return err ? err : 1;
}

static bool same_print(int dir_fd, const struct kept *k)
{
    npk_state_print now = npk__state_print_now(dir_fd, k->stem);
    return now.inode && now.inode == k->print.inode && now.size == k->print.size && now.mtime_ns == k->print.mtime_ns &&
           now.ctime_ns == k->print.ctime_ns;
}

static bool judged(const struct kept *k, const npk_stamp *stamp)
{
    return k->size == stamp->size && k->mtime_ns == stamp->mtime_ns;
}

static void hand_out(struct kept *k, const npk_info *info, npk_known *out)
{
    uint64_t rows = info->physical_rows;
    out->names_stop = k->names_stop;
    out->names_beyond = k->names_stop > npk__whole_rows(&info->header, info->file_bytes);
    out->stated = true;
    memcpy(out->stem, k->stem, sizeof(out->stem));
    out->epoch = k->epoch;
    out->print = k->print;
    out->generation = k->epoch + k->replay.changes;
    out->log_end = k->replay.end;
    out->log_size = k->log_size;
    out->log_changes = k->replay.changes;
    out->live = k->replay.live;
    k->replay.live = NULL;
    npk__known_clip(out, rows);
}

/* What is kept, if it is still so: 1. */
static int look_quickly(int dir_fd, const npk_info *info, const npk_stamp *stamp, npk_known *out)
{
    struct kept k;
    if (!get_kept(stamp, &k))
        return 0;
    uint64_t end = k.replay.end;
    int there = judged(&k, stamp) && same_print(dir_fd, &k) ? read_log(dir_fd, &k, true) : 0;
    if (there > 0) {
        if (k.replay.end != end)
            put_kept(&k);
        hand_out(&k, info, out);
    }
    npk__live_unref(&k.replay.live);
    return there;
}

/* 1: looked; 0: the log went while we did: look again. */
static int look_at_all(int dir_fd, const char *leaf, int fd, const npk_info *info, const npk_stamp *stamp,
                       npk_known *out)
{
    npk_states states = {.count = 0};
    struct kept k = {.dev = stamp->dev, .id = stamp->id, .size = stamp->size, .mtime_ns = stamp->mtime_ns};
    unsigned at = 0;
    int how = 0, there = npk__state_find(dir_fd, leaf, fd, info, stamp, &states, k.stem, &at, &how);
    if (there <= 0) {
        out->alien = states.count > 0;
        npk__states_clear(&states);
        return there < 0 ? there : 1;
    }
    npk_state *s = &states.state[at];
    out->stated = true;
    out->generation = s->generation;
    memcpy(out->stem, k.stem, sizeof(out->stem));
    out->rows = info->physical_rows;
    for (size_t i = 0; i < s->name_count; i++)
        if (s->names[i].stop > k.names_stop)
            k.names_stop = s->names[i].stop;
    out->names_stop = k.names_stop;
    out->names_beyond = k.names_stop > npk__whole_rows(&info->header, info->file_bytes);
    if (s->epoch && how == NPK_ID_DOUBT) {
        there = npk__in_doubt(leaf);
    } else if (s->epoch) {
        k.epoch = s->epoch;
        k.print = states.print;
        k.replay.end = NPK__DELLOG_HEADER;
        k.replay.live = npk__live_new();
        struct kept before = {.dev = 0};
        if (get_kept(stamp, &before) && before.epoch == k.epoch && strcmp(before.stem, k.stem) == 0) {
            npk__live_unref(&k.replay.live);
            k.replay = before.replay; /* only the file was to be judged again */
        } else {
            npk__live_unref(&before.replay.live);
        }
        there = k.replay.live ? read_log(dir_fd, &k, false) : npk__fail(-ENOMEM, "out of memory");
        if (there > 0) {
            put_kept(&k);
            hand_out(&k, info, out);
        }
        npk__live_unref(&k.replay.live);
    }
    npk__states_clear(&states);
    return there;
}

int npk__known(int dir_fd, const char *leaf, int fd, const npk_info *info, const npk_stamp *stamp, npk_known *out)
{
    *out = NPK_KNOWN_NONE;
    if (info->reason || !npk_header_is_row_array(&info->header) ||
        info->file_bytes < info->header.data_offset + info->header.data_bytes)
        return 0;
    out->rows = info->physical_rows;
    int there = look_quickly(dir_fd, info, stamp, out);
    for (unsigned tries = 0; there == 0 && tries < 16; tries++) {
        *out = NPK_KNOWN_NONE;
        out->rows = info->physical_rows;
        there = look_at_all(dir_fd, leaf, fd, info, stamp, out);
    }
    if (there == 0)
        there =
            npk__fail(-EUCLEAN,
                      "\"%s\": its deletion log is missing, so which of its rows are deleted is not known; npk check "
                      "--set-aside shows all rows",
                      leaf);
    if (there < 0)
        npk__known_release(out);
    return there < 0 ? there : 0;
}

void npk__known_clip(npk_known *k, uint64_t rows)
{
    k->rows = rows;
    k->deleted = k->live ? rows - npk__live_rank(k->live, rows) : 0;
    k->beyond = k->live && npk__live_deleted(k->live) > k->deleted;
}

void npk__known_release(npk_known *k)
{
    npk__live_unref(&k->live);
    *k = NPK_KNOWN_NONE;
}

void npk__known_apply(const npk_known *k, npk_info *info)
{
    if (k->deleted == 0)
        return;
    info->rows = info->live = info->physical_rows - k->deleted;
    info->deleted = k->deleted;
    info->header.shape[0] = info->rows;
    info->header.data_bytes = info->rows * info->header.row_bytes;
}

int npk__shown_facts(int dir_fd, const char *leaf, int fd, npk_info *info, npk_known *known)
{
    npk_stamp stamp;
    npk_known k = NPK_KNOWN_NONE;
    int err = npk__fd_look(fd, info, &stamp);
    if (err)
        return npk__fail_errno(err, leaf);
    err = npk__known(dir_fd, leaf, fd, info, &stamp, &k);
    if (err) {
        npk_info_clear(info);
        return err;
    }
    npk__known_apply(&k, info);
    if (known)
        *known = k;
    else
        npk__known_release(&k);
    return 0;
}

/* ---- what we did ourselves ------------------------------------------------------------------------------------- */

void npk__known_wrote(const npk_known *k, const npk_stamp *before, int fd)
{
    npk_stamp now;
    if (!k->epoch || npk__fd_stamp(fd, &now) != 0)
        return;
    lock_gate();
    struct kept *kept = find_kept(before);
    if (kept && judged(kept, before)) {
        kept->size = now.size;
        kept->mtime_ns = now.mtime_ns;
    }
    unlock_gate();
}

void npk__known_logged(const npk_known *k, const npk_stamp *stamp, npk_live *live, uint64_t end, uint64_t changes)
{
    struct kept in = {.dev = stamp->dev,
                      .id = stamp->id,
                      .size = stamp->size,
                      .mtime_ns = stamp->mtime_ns,
                      .epoch = k->epoch,
                      .print = k->print,
                      .names_stop = k->names_stop,
                      .log_size = end,
                      .replay = {.live = live, .end = end, .changes = changes}};
    memcpy(in.stem, k->stem, sizeof(in.stem));
    put_kept(&in);
}
