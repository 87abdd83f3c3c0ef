/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "marks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fail.h"
#include "identity.h"
#include "io.h"
#include "lock.h"
#include "path.h"
#include "view.h"
#include "walk.h"

/* ---- states ---------------------------------------------------------------------------------------------------- */

/* The first generation of an array is the time in microseconds, so that one that had a state before, and lost it, does
 * not have the same generations again. */
static uint64_t first_generation(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void unlink_log(int dir_fd, const char *stem, uint64_t epoch)
{
    char name[NPK__DELLOG_NAME], path[NPK__DELLOG_NAME + 16];
    npk__dellog_name(stem, epoch, name);
    snprintf(path, sizeof(path), NPK__SIDECAR "/%s", name);
    (void)npk__unlinkat(dir_fd, path, 0);
}

/* Of the two states of a swap that died, the one of the file that has the name. */
static void keep_one(npk_marks *m, npk_states *s)
{
    unsigned at = npk__state_pick(s, &m->stamp);
    if (s->count == 2) {
        npk_state *other = &s->state[1 - at];
        if (other->epoch && other->epoch != s->state[at].epoch)
            unlink_log(m->dir_fd, m->known.stem, other->epoch);
        if (other->id.inode != m->stamp.id.inode)
            npk__state_unlink_inode(m->dir_fd, other->id.inode, m->known.stem);
        npk__state_clear(other);
        npk_state keep = s->state[at];
        s->state[1] = (npk_state){0};
        s->state[0] = keep;
    }
    s->count = 1;
}

int npk__marks_states(npk_marks *m, npk_states *out)
{
    memset(out, 0, sizeof(*out));
    int there = m->known.stated ? npk__state_load(m->dir_fd, m->known.stem, out) : 0;
    if (there < 0)
        return there;
    snprintf(out->leaf, sizeof(out->leaf), "%s", m->leaf);
    if (there > 0) {
        keep_one(m, out);
        return 0;
    }
    out->count = 1;
    out->state[0].generation = first_generation();
    int err = npk__identity_bind(m->fd, m->info, &m->stamp, &out->state[0]);
    return err ? npk__fail_errno(err, m->leaf) : 0;
}

int npk__marks_save(npk_marks *m, npk_states *s, bool rebind)
{
    int err = rebind ? npk__identity_bind(m->fd, m->info, &m->stamp, &s->state[0]) : 0;
    if (err)
        return npk__fail_errno(err, m->leaf);
    err = npk__state_save(m->dir_fd, s, true);
    m->known.print.inode = 0;
    if (err)
        return err;
    m->known.stated = true;
    npk__state_stem(s->leaf, m->known.stem);
    m->known.epoch = s->state[0].epoch;
    if (!s->state[0].epoch)
        m->known.generation = s->state[0].generation;
    return 0;
}

/* What is deleted, as a log of its own: the old one is removed after the state speaks of the new. */
static int write_log(npk_marks *m, npk_states *s)
{
    char name[NPK__DELLOG_NAME], stem[NPK__STEM_BYTES];
    npk_dellog_replay r = {.live = NULL};
    npk_known *k = &m->known;
    uint64_t epoch = k->epoch ? k->generation : s->state[0].generation;
    npk__state_stem(m->leaf, stem);
    npk__dellog_name(stem, epoch, name);
    int side = npk__sidecar_open(m->dir_fd, true);
    int err = side < 0 ? side
                       : npk__dellog_create(side, name, epoch, m->info->header.row_bytes, k->live,
                                            m->info->physical_rows, &r);
    npk__close(&side);
    if (err)
        return err;
    s->state[0].epoch = epoch;
    err = npk__marks_save(m, s, false);
    npk__known_forget(&m->stamp);
    if (err) {
        npk_states now = {.count = 0}; /* it may have got its name and failed after that */
        if (npk__state_load(m->dir_fd, stem, &now) == 0 || (now.count && now.state[now.count - 1].epoch != epoch))
            unlink_log(m->dir_fd, stem, epoch);
        npk__states_clear(&now);
        return err;
    }
    k->generation = epoch;
    k->log_end = k->log_size = r.end;
    k->log_changes = 0;
    if (k->live) {
        int own = npk__live_own(&k->live);
        if (own || npk__live_cut(k->live, m->info->physical_rows) != 0)
            return npk__fail(-ENOMEM, "out of memory");
        npk__known_clip(k, m->info->physical_rows);
    }
    return 0;
}

/* Names of rows that are not there. Did anything change? */
static bool clip_names(npk_state *s, uint64_t rows)
{
    size_t kept = 0;
    bool changed = false;
    for (size_t i = 0; i < s->name_count; i++) {
        npk_named n = s->names[i];
        changed |= n.stop > rows;
        if (n.stop > rows && n.start >= rows) {
            free(n.name);
            continue;
        }
        n.stop = n.stop > rows ? rows : n.stop;
        s->names[kept++] = n;
    }
    s->name_count = kept;
    return changed;
}

int npk__marks_single_name(const npk_marks *m)
{
    if (m->stamp.links <= 1)
        return 0;
    return npk__fail(-EMLINK,
                     "\"%s\": the file has %u names (hard links), and what is done to its rows under one would not be "
                     "seen under the others; only one name is accepted",
                     m->leaf, m->stamp.links);
}

int npk__marks_keep(npk_marks *m, npk_states *s)
{
    if (!npk__states_vacuous(s))
        return npk__marks_save(m, s, false);
    npk__known_forget(&m->stamp);
    return npk__state_remove(m->dir_fd, m->known.stem, s);
}

/* Rows that an append wrote and nobody has counted yet are there, too. */
static int cut_names(npk_marks *m)
{
    const npk_header *h = &m->info->header;
    npk_states s;
    npk_stamp now;
    int err = npk__fd_stamp(m->fd, &now);
    err = err ? npk__fail_errno(err, m->leaf) : npk__marks_states(m, &s);
    if (err)
        return err;
    if (clip_names(&s.state[0], npk__whole_rows(h, now.size)))
        err = npk__marks_save(m, &s, false);
    npk__states_clear(&s);
    m->known.names_beyond = err != 0;
    return err;
}

int npk__marks_shrink(npk_marks *m, uint64_t rows)
{
    npk_states s;
    if (!m->known.stated)
        return 0;
    int err = npk__marks_states(m, &s);
    if (err)
        return err;
    for (size_t i = 0; i < s.state[0].name_count; i++) /* they go after the rows, by npk__marks_cut() */
        m->known.names_beyond |= s.state[0].names[i].stop > rows;
    if (s.state[0].rows > rows) {
        npk_info fewer = *m->info;
        fewer.physical_rows = rows;
        fewer.header.data_bytes = rows * fewer.header.row_bytes;
        err = npk__identity_bind(m->fd, &fewer, &m->stamp, &s.state[0]);
        err = err ? npk__fail_errno(err, m->leaf) : npk__marks_save(m, &s, false);
    }
    npk__states_clear(&s);
    return err;
}

/* ---- the state's place ----------------------------------------------------------------------------------------- */

struct owner {
    int dir_fd;
    const npk_states *s;
    char leaf[256];
};

static int is_owner(void *ctx, const char *name, unsigned char type)
{
    struct owner *o = ctx;
    struct stat st;
    if (type == DT_DIR || npk__fstatat(o->dir_fd, name, &st) != 0 || !S_ISREG(st.st_mode))
        return 0;
    for (unsigned i = 0; i < o->s->count; i++) {
        const npk_state *s = &o->s->state[i];
        npk_file_id id = {0};
        if (s->id.inode != st.st_ino || s->strict)
            continue;
        int fd = npk__openat(o->dir_fd, name, O_PATH | O_NOFOLLOW, 0);
        bool same = fd >= 0 && npk__file_id(fd, &id) == 0 && id.inode == s->id.inode && id.birth_ns == s->id.birth_ns;
        npk__close(&fd);
        if (same) {
            snprintf(o->leaf, sizeof(o->leaf), "%s", name);
            return 1;
        }
    }
    return 0;
}

bool npk__marks_owner(int dir_fd, const npk_states *s, char leaf[256])
{
    struct owner o = {.dir_fd = dir_fd, .s = s};
    bool found = npk__each_name(dir_fd, is_owner, &o) > 0;
    if (found)
        memcpy(leaf, o.leaf, sizeof(o.leaf));
    return found;
}

/* The state under the array's name is that of one that somebody renamed: it makes way, and stays that one's. Both locks
 * are needed; the second one is not waited for, since whoever has it may wait for ours. */
static int make_way(npk_marks *m, const char *stem, const char *owner)
{
    npk_states s = {.count = 0};
    npk_lock lock = NPK_LOCK_NONE;
    int err = npk__lock_array(m->dir_fd, owner, NPK_LOCK_EXCLUSIVE | NPK_LOCK_TRY, &lock);
    if (err == -EAGAIN)
        return npk__fail(-EBUSY, "\"%s\": what is known under its name belongs to \"%s\", which is being changed; try again",
                         m->leaf, owner);
    int there = err ? err : npk__state_load(m->dir_fd, stem, &s);
    if (there > 0)
        there = npk__state_make_way(m->dir_fd, stem, &s);
    npk__states_clear(&s);
    npk__unlock(&lock);
    return there;
}

/* A state under the array's name that is another array's. One that says nothing just goes. */
static int give_way(npk_marks *m)
{
    npk_states s = {.count = 0};
    char stem[NPK__STEM_BYTES], owner[256];
    npk__state_stem(m->leaf, stem);
    int there = npk__state_load(m->dir_fd, stem, &s);
    if (there > 0) {
        if (npk__states_vacuous(&s) || s.state[0].strict)
            there = npk__state_remove(m->dir_fd, stem, &s);
        else if (npk__marks_owner(m->dir_fd, &s, owner) && strcmp(owner, m->leaf) != 0)
            there = make_way(m, stem, owner);
        else
            there = npk__state_set_aside(m->dir_fd, stem, &s, NULL);
    }
    npk__states_clear(&s);
    return there < 0 ? there : 0;
}

/* The array was renamed by somebody else: its state follows it. What the name had before is not this array's. */
static int follow(npk_marks *m)
{
    int gone = give_way(m);
    if (gone)
        return gone;
    char old[NPK__STEM_BYTES];
    npk_states s;
    memcpy(old, m->known.stem, sizeof(old));
    uint64_t old_epoch = m->known.epoch;
    int err = npk__marks_states(m, &s);
    if (!err && old_epoch)
        err = write_log(m, &s);
    else if (!err)
        err = npk__marks_save(m, &s, false);
    npk__states_clear(&s);
    if (err)
        return err;
    char file[256], path[300];
    npk__state_file(old, file);
    snprintf(path, sizeof(path), NPK__SIDECAR "/%s", file);
    (void)npk__unlinkat(m->dir_fd, path, 0);
    if (old_epoch)
        unlink_log(m->dir_fd, old, old_epoch);
    return 0;
}

int npk__marks_look(int dir_fd, const char *leaf, int fd, const npk_info *info, const npk_stamp *stamp, npk_marks *out)
{
    *out = (npk_marks){.dir_fd = dir_fd, .fd = fd, .leaf = leaf, .info = info, .stamp = *stamp};
    char stem[NPK__STEM_BYTES];
    int err = npk__known(dir_fd, leaf, fd, info, stamp, &out->known);
    if (err)
        return err;
    npk__state_stem(leaf, stem);
    if (out->known.alien)
        err = give_way(out);
    if (out->known.stated && strcmp(stem, out->known.stem) != 0)
        err = follow(out);
    out->known.alien = false;
    if (err)
        npk__marks_release(out);
    return err;
}

void npk__marks_release(npk_marks *m)
{
    npk__known_release(&m->known);
}

/* ---- records --------------------------------------------------------------------------------------------------- */

/* State and log at the first deletion. */
static int make_log(npk_marks *m)
{
    npk_states s;
    int err = npk__marks_single_name(m);
    if (!err)
        err = npk__marks_states(m, &s);
    if (err)
        return err;
    if (s.state[0].generation < m->known.generation)
        s.state[0].generation = m->known.generation;
    err = write_log(m, &s);
    npk__states_clear(&s);
    return err;
}

static int rewrite_log(npk_marks *m)
{
    npk_states s;
    uint64_t old_epoch = m->known.epoch;
    char old[NPK__STEM_BYTES];
    memcpy(old, m->known.stem, sizeof(old));
    int err = npk__marks_states(m, &s);
    if (err)
        return err;
    err = write_log(m, &s);
    npk__states_clear(&s);
    if (!err && m->known.epoch != old_epoch)
        unlink_log(m->dir_fd, old, old_epoch);
    return err;
}

static int apply(npk_live *live, npk_delrec kind, const npk_range *ranges, size_t count, uint64_t rows)
{
    if (kind == NPK_DELREC_CUT)
        return npk__live_cut(live, rows);
    int err = 0;
    for (size_t i = 0; i < count && !err; i++)
        err = npk__live_mark(live, ranges[i].start, ranges[i].stop - ranges[i].start, kind == NPK_DELREC_DROP, NULL);
    return err;
}

static int append_record(npk_marks *m, npk_delrec kind, const npk_range *ranges, size_t count, bool sync)
{
    npk_known *k = &m->known;
    char name[NPK__DELLOG_NAME];
    uint8_t *record = NULL;
    size_t bytes = 0;
    npk__dellog_name(k->stem, k->epoch, name);
    int fd = npk__sidecar_file(m->dir_fd, name, O_RDWR);
    if (fd < 0)
        return fd == -ENOENT ? npk__fail(-EIO, "\"%s\": the deletion log has gone", name) : fd;
    npk_dellog_replay r = {.end = k->log_end};
    int err =
        npk__dellog_record_make(kind, ranges, count, m->info->physical_rows, k->epoch, k->log_end, &record, &bytes);
    if (!err)
        err = npk__dellog_append(fd, k->log_size, &r, record, bytes);
    if (!err && sync)
        err = npk__dellog_sync(fd, k->log_end + bytes);
    free(record);
    npk__close(&fd);
    if (err)
        return npk__fail_errno(err, m->leaf);
    k->log_end += bytes;
    k->log_size = k->log_end;
    k->log_changes++;
    k->generation++;
    return 0;
}

static bool outgrown(const npk_marks *m)
{
    uint64_t bitmap = m->info->physical_rows / 8, most = 2 * bitmap;
    return m->known.log_end > (most > NPK__DELLOG_REWRITE ? most : NPK__DELLOG_REWRITE);
}

static int record(npk_marks *m, npk_delrec kind, const npk_range *ranges, size_t count, bool sync)
{
    npk_known *k = &m->known;
    int err = k->epoch ? 0 : make_log(m);
    if (!err && !k->live && !(k->live = npk__live_new()))
        err = npk__fail(-ENOMEM, "out of memory");
    if (!err)
        err = append_record(m, kind, ranges, count, sync);
    if (err)
        return err;
    /* Ours alone, unless somebody looks at it: what is kept for the next look is this very bitmap. */
    npk__known_forget(&m->stamp);
    if (npk__live_own(&k->live) != 0 || apply(k->live, kind, ranges, count, m->info->physical_rows) != 0) {
        npk__live_unref(&k->live); /* the record counts all the same; who looks next reads it */
        return 0;
    }
    npk__known_clip(k, m->info->physical_rows);
    npk__known_logged(k, &m->stamp, k->live, k->log_end, k->log_changes);
    if (outgrown(m))
        (void)rewrite_log(m); /* a log that stays long does no harm */
    return 0;
}

int npk__marks_record(npk_marks *m, npk_delrec kind, const npk_range *ranges, size_t count)
{
    return record(m, kind, ranges, count, false);
}

int npk__marks_cut(npk_marks *m)
{
    int err = m->known.names_beyond ? cut_names(m) : 0;
    if (err || !m->known.beyond)
        return err;
    err = npk__fdatasync(m->fd); /* or the rows could come back without their marks */
    return err ? npk__fail_errno(err, m->leaf) : record(m, NPK_DELREC_CUT, NULL, 0, true);
}

int npk__marks_bury(int dir_fd, const char *leaf, int fd)
{
    npk_info info = {0};
    npk_stamp stamp;
    npk_marks m;
    int err = npk__fd_look(fd, &info, &stamp);
    if (err)
        return npk__fail_errno(err, leaf);
    if (npk__state_there(dir_fd, leaf, stamp.id.inode)) {
        err = npk__marks_look(dir_fd, leaf, fd, &info, &stamp, &m);
        if (!err && m.known.stated)
            err = cut_names(&m);
        npk__marks_release(&m);
    }
    npk_info_clear(&info);
    return err;
}

/* ---- a new data file ------------------------------------------------------------------------------------------- */

/* Rows of the old file as rows of one that has the live ones alone. */
static void move_names(npk_state *s, const npk_known *k)
{
    for (size_t i = 0; k->live && i < s->name_count; i++) {
        npk_named *n = &s->names[i];
        n->start = npk__live_rank(k->live, n->start < k->rows ? n->start : k->rows);
        n->stop = npk__live_rank(k->live, n->stop < k->rows ? n->stop : k->rows);
    }
}

int npk__marks_swap_begin(npk_marks *m, int new_fd, unsigned how, npk_marks_swap *out)
{
    npk_info info = {0};
    npk_stamp stamp;
    bool live = how & NPK_MARKS_LIVE;
    *out = (npk_marks_swap){.live = live};
    if (!m->known.stated)
        return 0;
    npk_states *both = &out->both;
    int err = npk__marks_states(m, both);
    /* The state of a copied file is found by what is in it as long as it is the only one; beside another it must be the one
     * of this inode, since that tells which of the two files has the name. */
    const npk_file_id *bound = &both->state[0].id;
    if (!err && (bound->inode != m->stamp.id.inode || bound->birth_ns != m->stamp.id.birth_ns) &&
        (err = npk__identity_bind(m->fd, m->info, &m->stamp, &both->state[0])) != 0)
        npk__fail_errno(err, m->leaf);
    if (!err && npk__state_copy(&both->state[0], &both->state[1]) != 0)
        err = npk__fail(-ENOMEM, "out of memory");
    if (!err && (err = npk__fd_look(new_fd, &info, &stamp)) != 0)
        npk__fail_errno(err, m->leaf);
    if (!err) { /* the old file is in the page cache; of the new one perhaps nothing, where the two share blocks */
        const npk__shown old = {.live = m->known.live,
                                .rows = m->known.rows - m->known.deleted,
                                .row_bytes = m->info->header.row_bytes,
                                .data_offset = m->info->header.data_offset};
        bool same = how & NPK_MARKS_SAME_BYTES && m->known.deleted > 0 && info.header.data_bytes <= old.rows * old.row_bytes;
        err = same ? npk__identity_bind_copy(&old, m->fd, &info, &stamp, &both->state[1])
                   : npk__identity_bind(new_fd, &info, &stamp, &both->state[1]);
        if (err)
            npk__fail_errno(err, m->leaf);
    }
    npk_info_clear(&info);
    if (!err) {
        both->count = 2;
        if (live) {
            both->state[1].epoch = 0;
            both->state[1].generation = m->known.generation + 1;
            move_names(&both->state[1], &m->known);
        }
        err = npk__state_save(m->dir_fd, both, true);
    }
    if (err)
        npk__states_clear(both);
    return err;
}

int npk__marks_swap_end(npk_marks *m, npk_marks_swap *swap)
{
    npk_states *both = &swap->both;
    if (both->count == 0)
        return 0;
    struct stat st; /* a rename may have been done and its sync have failed: what has the name decides */
    bool taken = npk__fstatat(m->dir_fd, m->leaf, &st) == 0 && st.st_ino == both->state[1].id.inode;
    npk_state gone = both->state[!taken];
    both->state[0] = both->state[taken];
    both->state[1] = (npk_state){0};
    both->count = 1;
    int err = npk__state_save(m->dir_fd, both, true);
    if (!err) { /* with two states everything is still told from each other, and the next change tidies up */
        npk__state_unlink_inode(m->dir_fd, gone.id.inode, m->known.stem);
        if (gone.epoch && gone.epoch != both->state[0].epoch)
            unlink_log(m->dir_fd, m->known.stem, gone.epoch);
    }
    npk__known_forget(&m->stamp);
    npk__state_clear(&gone);
    npk__states_clear(both);
    return err;
}

/* ---- the end of a data file ------------------------------------------------------------------------------------ */

static int look_physically(int fd, const char *leaf, npk_info *info, npk_stamp *stamp)
{
    int err = npk__fd_look(fd, info, stamp);
    return err ? npk__fail_errno(err, leaf) : 0;
}

/* The state that is bound to this very inode, under whatever name: 1, 0 or an error. */
static int bound_state(int dir_fd, const char *leaf, const npk_stamp *stamp, npk_states *s, char stem[NPK__STEM_BYTES])
{
    memset(s, 0, sizeof(*s));
    npk__state_stem(leaf, stem);
    for (unsigned tries = 0; tries < 2; tries++) {
        int there = npk__state_load(dir_fd, stem, s);
        for (unsigned i = 0; there > 0 && i < s->count; i++)
            if (s->state[i].id.inode == stamp->id.inode && s->state[i].id.birth_ns == stamp->id.birth_ns)
                return 1;
        if (there > 0)
            npk__states_clear(s);
        if (tries > 0 || npk__state_stem_of(dir_fd, stamp->id.inode, stem) <= 0)
            return 0;
    }
    return 0;
}

int npk__marks_leave(int dir_fd, const char *leaf, int fd)
{
    npk_info info = {0};
    npk_stamp stamp;
    npk_states s;
    char stem[NPK__STEM_BYTES];
    unsigned at;
    int how, err = look_physically(fd, leaf, &info, &stamp);
    if (err)
        return err;
    memset(&s, 0, sizeof(s));
    int there = npk__state_find(dir_fd, leaf, fd, &info, &stamp, &s, stem, &at, &how);
    npk_info_clear(&info);
    if (there == -EUCLEAN || (there > 0 && how == NPK_ID_DOUBT))
        there = 0; /* not ours to end: whoever is asked about it decides */
    if (there > 0 && stamp.links <= 1) {
        s.state[at].strict = true;
        s.state[at].id = stamp.id;
        snprintf(s.leaf, sizeof(s.leaf), "%s", leaf);
        char now[NPK__STEM_BYTES];
        npk__state_stem(leaf, now);
        if (strcmp(now, stem) == 0)
            there = npk__state_save(dir_fd, &s, true);
        there = there < 0 ? there : 1;
    }
    npk__states_clear(&s);
    return there;
}

/* The data file that the stamp is of has no name any more: what is known of it goes. A file that takes its name may have
 * its state here already. */
static void end_state(int dir_fd, const char *leaf, const char *stem, npk_states *s, const npk_stamp *stamp)
{
    unsigned at = s->count == 2 && s->state[1].id.inode == stamp->id.inode;
    if (s->count < 2 || s->state[1 - at].id.inode == stamp->id.inode) {
        (void)npk__state_remove(dir_fd, stem, s);
        return;
    }
    npk_state gone = s->state[at];
    s->state[0] = s->state[1 - at];
    s->state[1] = (npk_state){0};
    s->count = 1;
    snprintf(s->leaf, sizeof(s->leaf), "%s", leaf);
    if (npk__state_save(dir_fd, s, true) == 0) {
        npk__state_unlink_inode(dir_fd, gone.id.inode, stem);
        if (gone.epoch && gone.epoch != s->state[0].epoch)
            unlink_log(dir_fd, stem, gone.epoch);
    }
    npk__state_clear(&gone);
}

void npk__marks_ended(int dir_fd, const char *leaf, const npk_stamp *stamp)
{
    npk_states s;
    char stem[NPK__STEM_BYTES];
    npk__known_forget(stamp);
    if (bound_state(dir_fd, leaf, stamp, &s, stem) <= 0)
        return;
    end_state(dir_fd, leaf, stem, &s, stamp);
    npk__states_clear(&s);
}

/* The file that has the name until it is taken keeps its state, if it has one: the first of two. */
static int put_second(int to_dir, const char *stem, npk_states *s)
{
    npk_states old = {.count = 0};
    struct stat st;
    int there = npk__state_load(to_dir, stem, &old);
    if (there > 0 && npk__fstatat(to_dir, s->leaf, &st) == 0)
        for (unsigned i = 0; i < old.count && s->count == 1; i++)
            if (old.state[i].id.inode == st.st_ino && st.st_ino != s->state[0].id.inode) {
                s->state[1] = s->state[0];
                s->state[0] = old.state[i];
                old.state[i] = (npk_state){0};
                s->count = 2;
            }
    npk__states_clear(&old);
    return there < 0 && there != -EUCLEAN ? there : 0;
}

static int copy_states(npk_marks *m, int to_dir, const char *to_leaf)
{
    char name[NPK__DELLOG_NAME], stem[NPK__STEM_BYTES];
    npk_states s;
    int err = npk__marks_states(m, &s), side = -1;
    snprintf(s.leaf, sizeof(s.leaf), "%s", to_leaf);
    npk__state_stem(to_leaf, stem);
    /* As the file is now: what told that it is still the array may not be known in the other directory. */
    if (!err && (err = npk__identity_bind(m->fd, m->info, &m->stamp, &s.state[0])) != 0)
        npk__fail_errno(err, m->leaf);
    if (!err && m->known.epoch) {
        s.state[0].epoch = m->known.generation;
        npk__dellog_name(stem, s.state[0].epoch, name);
        side = npk__sidecar_open(to_dir, true);
        err = side < 0 ? side
                       : npk__dellog_create(side, name, s.state[0].epoch, m->info->header.row_bytes, m->known.live,
                                            m->info->physical_rows, NULL);
    }
    if (!err)
        err = put_second(to_dir, stem, &s);
    if (!err)
        err = npk__state_save(to_dir, &s, true);
    npk__close(&side);
    npk__states_clear(&s);
    return err;
}

int npk__marks_copy(int dir_fd, const char *leaf, int fd, int to_dir, const char *to_leaf)
{
    npk_info info = {0};
    npk_stamp stamp;
    npk_marks m;
    int err = npk__fd_stamp(fd, &stamp);
    if (err)
        return npk__fail_errno(err, leaf);
    if (!npk__state_there(dir_fd, leaf, stamp.id.inode))
        return 0;
    err = look_physically(fd, leaf, &info, &stamp);
    if (err)
        return err;
    err = npk__marks_look(dir_fd, leaf, fd, &info, &stamp, &m);
    if (!err) {
        if (m.known.stated)
            err = copy_states(&m, to_dir, to_leaf);
        npk__marks_release(&m);
    }
    npk_info_clear(&info);
    return err;
}

void npk__marks_drop_at(int dir_fd, const char *leaf, const npk_stamp *stamp)
{
    npk_states s = {.count = 0};
    char stem[NPK__STEM_BYTES];
    npk__state_stem(leaf, stem);
    npk__known_forget(stamp);
    int there = npk__state_load(dir_fd, stem, &s);
    bool ours = false;
    for (unsigned i = 0; there > 0 && i < s.count; i++)
        ours |= s.state[i].id.inode == stamp->id.inode && s.state[i].id.birth_ns == stamp->id.birth_ns;
    if (ours)
        end_state(dir_fd, leaf, stem, &s, stamp);
    npk__states_clear(&s);
}

int npk__marks_rebind(int dir_fd, const char *leaf, int fd)
{
    npk_info info = {0};
    npk_stamp stamp;
    npk_states s;
    char stem[NPK__STEM_BYTES];
    unsigned at;
    int how, err = npk__fd_stamp(fd, &stamp);
    if (err)
        return npk__fail_errno(err, leaf);
    if (!npk__state_there(dir_fd, leaf, stamp.id.inode))
        return 0;
    err = look_physically(fd, leaf, &info, &stamp);
    if (err)
        return err;
    int there = npk__state_find(dir_fd, leaf, fd, &info, &stamp, &s, stem, &at, &how);
    if (there > 0 && how == NPK_ID_SAME) {
        npk_marks m;
        err = npk__marks_look(dir_fd, leaf, fd, &info, &stamp, &m);
        npk_states now;
        if (!err && (err = npk__marks_states(&m, &now)) == 0) {
            err = npk__marks_save(&m, &now, true);
            npk__states_clear(&now);
        }
        npk__marks_release(&m);
        if (err)
            there = err;
    }
    npk__states_clear(&s);
    npk_info_clear(&info);
    return there < 0 && there != -EUCLEAN ? there : 0;
}

int npk__marks_sync(int dir_fd, const char *leaf, int fd)
{
    npk_info info = {0};
    npk_stamp stamp;
    npk_known k;
    char name[NPK__DELLOG_NAME];
    int err = look_physically(fd, leaf, &info, &stamp);
    if (!err)
        err = npk__known(dir_fd, leaf, fd, &info, &stamp, &k);
    npk_info_clear(&info);
    if (err)
        return err;
    if (k.epoch) {
        npk__dellog_name(k.stem, k.epoch, name);
        int log = npk__sidecar_file(dir_fd, name, O_RDWR);
        err = log < 0 ? log : npk__dellog_sync(log, k.log_end);
        npk__close(&log);
        if (err == -ENOENT)
            err = 0; /* rewritten meanwhile, and synced with that */
        else if (err)
            npk__fail_errno(err, name);
        if (!err)
            err = npk__sidecar_sync(dir_fd);
    } else if (k.stated) {
        err = npk__sidecar_sync(dir_fd);
    }
    npk__known_release(&k);
    return err;
}
