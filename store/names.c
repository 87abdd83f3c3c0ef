/* SPDX-License-Identifier: Apache-2.0 */
/* Named ranges of rows (P18). */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "identity.h"
#include "io.h"
#include "marks.h"
#include "npk.h"
#include "path.h"
#include "pkg_store.h"
#include "rows.h"
#include "store.h"
#include "target.h"

/* ---- asking ---------------------------------------------------------------------------------------------------- */

/* Which rows a name means now. */
static npk_range shown_range(const npk_named *n, const npk_known *k)
{
    uint64_t start = n->start < k->rows ? n->start : k->rows, stop = n->stop < k->rows ? n->stop : k->rows;
    if (k->deleted)
        return (npk_range){npk__live_rank(k->live, start), npk__live_rank(k->live, stop)};
    return (npk_range){start, stop};
}

static int visit_names(const npk_state *s, const npk_known *k, npk_name_visit *visit, void *ctx)
{
    int err = 0;
    for (size_t i = 0; i < s->name_count && !err; i++) {
        const npk_named *n = &s->names[i];
        if (n->stop > k->rows && n->start >= k->rows)
            continue; /* its rows are being appended, or never were */
        npk_range r = shown_range(n, k);
        err = visit(ctx, n->name, r.start, r.stop);
    }
    return err;
}

static int names_once(npk_store *s, const char *name, npk_name_visit *visit, void *ctx)
{
    npk_target t;
    npk_known k = NPK_KNOWN_NONE;
    npk_states states = {.count = 0};
    char stem[NPK__STEM_BYTES];
    unsigned at = 0;
    int how = 0, err = npk__target_resolve(s, name, &t);
    if (!err) {
        t.fd = npk__openat(t.dir.fd, t.leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
        err = t.fd < 0 ? npk__name_failed(t.fd, name) : 0;
    }
    if (!err && (err = npk__fd_look(t.fd, &t.info, &t.stamp)) != 0)
        npk__fail_errno(err, name);
    if (!err)
        err = npk__rows_possible(name, &t.info);
    if (!err)
        err = npk__known(t.dir.fd, t.leaf, t.fd, &t.info, &t.stamp, &k);
    if (!err && k.stated) {
        int there = npk__state_find(t.dir.fd, t.leaf, t.fd, &t.info, &t.stamp, &states, stem, &at, &how);
        if (there > 0 && how == NPK_ID_DOUBT && states.state[at].name_count)
            there = npk__in_doubt(t.leaf);
        err = there > 0 ? visit_names(&states.state[at], &k, visit, ctx) : there;
        npk__states_clear(&states);
    }
    npk__known_release(&k);
    npk__target_release(&t);
    return err;
}

npk_err npk_names(npk_store *s, const char *name, npk_name_visit *visit, void *ctx)
{
    int err = -ESTALE;
    if (s->package)
        return npk__package_names(s->package, name, visit, ctx);
    for (unsigned tries = 0; err == -ESTALE && tries < 100; tries++) /* P6: another file may just take the name */
        err = names_once(s, name, visit, ctx);
    return err;
}

/* ---- changing -------------------------------------------------------------------------------------------------- */

static int check_name(const char *name, const char *range_name)
{
    size_t n = strlen(range_name);
    bool bad = n == 0 || n > NPK__NAME_BYTES || range_name[0] == '.';
    for (size_t i = 0; i < n && !bad; i++)
        bad = (unsigned char)range_name[i] < ' ' || range_name[i] == 0x7f || range_name[i] == '/';
    if (bad)
        return npk__fail(-EINVAL,
                         "\"%s\": \"%.64s\": a name has 1 to %u bytes, no '/' or control character, and does not begin "
                         "with a dot",
                         name, range_name, NPK__NAME_BYTES);
    if (strspn(range_name, "0123456789:,+- ") == n)
        return npk__fail(-EINVAL, "\"%s\": \"%s\" would be rows by their numbers; a name has something else in it",
                         name, range_name);
    return 0;
}

/* Where the name is, or where it belongs: names are in order. */
static size_t place_of(const npk_state *s, const char *range_name, bool *there)
{
    size_t low = 0, high = s->name_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(s->names[middle].name, range_name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *there = low < s->name_count && strcmp(s->names[low].name, range_name) == 0;
    return low;
}

/* Rows of the file. */
static int put_name(const npk_target *t, npk_state *s, const char *range_name, uint64_t start, uint64_t stop)
{
    bool there;
    size_t at = place_of(s, range_name, &there);
    if (!there) {
        if (s->name_count >= NPK__STATE_NAMES)
            return npk__fail(-ENOSPC, "\"%s\": has %u named ranges already; remove some", t->name, NPK__STATE_NAMES);
        npk_named *names = realloc(s->names, (s->name_count + 1) * sizeof(*names));
        char *copy = names ? strdup(range_name) : NULL;
        if (names)
            s->names = names;
        if (!copy)
            return npk__fail(-ENOMEM, "out of memory");
        memmove(names + at + 1, names + at, (s->name_count - at) * sizeof(*names));
        names[at].name = copy;
        s->name_count++;
    }
    s->names[at].start = start;
    s->names[at].stop = stop;
    return 0;
}

static int open_for_names(npk_store *s, const char *name, unsigned how, npk_target *t)
{
    int err = npk__target_lock(s, name, t);
    if (!err)
        err = npk__target_open(t, how);
    return err ? err : npk__marks_single_name(&t->marks);
}

static int save_name(npk_target *t, const char *range_name, uint64_t start, uint64_t stop, bool fresh)
{
    npk_states states;
    bool there = false;
    int err = npk__marks_states(&t->marks, &states);
    if (err)
        return err;
    (void)place_of(&states.state[0], range_name, &there);
    if (fresh && there)
        err = npk__fail(-EEXIST, "\"%s\": \"%s\" names other rows already; choose another name", t->name, range_name);
    if (!err)
        err = put_name(t, &states.state[0], range_name, start, stop);
    if (!err)
        err = npk__marks_keep(&t->marks, &states);
    npk__states_clear(&states);
    return err;
}

npk_err npk_name_set(npk_store *s, const char *name, const char *range_name, uint64_t start, uint64_t stop)
{
    npk_target t = NPK_TARGET_NONE;
    int err = check_name(name, range_name);
    if (err)
        return err;
    err = open_for_names(s, name, NPK_TARGET_READ | NPK_TARGET_PACKED | NPK_TARGET_TAIL, &t);
    uint64_t rows = err ? 0 : npk__target_rows(&t);
    if (!err && (start > stop || stop > rows))
        err = npk__fail(-ERANGE, "\"%s\": rows %" PRIu64 ":%" PRIu64 " are outside; there are %" PRIu64 " rows", name,
                        start, stop, rows);
    if (!err) {
        uint64_t first = npk__target_row(&t, start);
        err = save_name(&t, range_name, first, stop > start ? npk__target_row(&t, stop - 1) + 1 : first, false);
    }
    npk__target_release(&t);
    return err;
}

npk_err npk_name_remove(npk_store *s, const char *name, const char *range_name)
{
    npk_target t = NPK_TARGET_NONE;
    npk_states states;
    bool there = false;
    int err = open_for_names(s, name, NPK_TARGET_READ | NPK_TARGET_PACKED | NPK_TARGET_TAIL, &t);
    if (!err && t.marks.known.stated) {
        err = npk__marks_states(&t.marks, &states);
        if (!err) {
            npk_state *state = &states.state[0];
            size_t at = place_of(state, range_name, &there);
            if (there) {
                free(state->names[at].name);
                memmove(state->names + at, state->names + at + 1, (--state->name_count - at) * sizeof(*state->names));
                err = npk__marks_keep(&t.marks, &states);
            }
            npk__states_clear(&states);
        }
    }
    if (!err && !there)
        err = npk__fail(-ENOENT, "\"%s\": no rows are named \"%s\"", name, range_name);
    npk__target_release(&t);
    return err;
}

/* Another program's rows may have come first, and the append have begun again. */
static int keep_name(npk_target *t, const char *range_name, uint64_t meant, uint64_t landed, uint64_t count)
{
    npk_states states;
    bool there = false;
    if (meant == landed) {
        int err = npk__marks_states(&t->marks, &states);
        if (err)
            return err;
        (void)place_of(&states.state[0], range_name, &there);
        npk__states_clear(&states);
    }
    return there ? 0 : save_name(t, range_name, landed, landed + count, false);
}

static int is_named(void *ctx, const char *range_name, uint64_t start, uint64_t stop)
{
    (void)start;
    (void)stop;
    return strcmp(range_name, ctx) == 0;
}

/* Before anything is done for the append, such as setting a part of a row aside. */
static int refuse_name_there(npk_store *s, const char *name, const char *range_name)
{
    char copy[NPK__NAME_BYTES + 1];
    snprintf(copy, sizeof(copy), "%s", range_name);
    int there = npk_names(s, name, is_named, copy);
    return there > 0 ? npk__fail(-EEXIST, "\"%s\": \"%s\" names other rows already; choose another name", name, range_name)
                     : there;
}

/* The append's mark comes first: whoever finds it removes the name again unless the rows are there. */
npk_err npk_append_named(npk_store *s, const char *name, const char *range_name, const void *rows, uint64_t count,
                         uint64_t *first)
{
    npk_target t = NPK_TARGET_NONE;
    int err = check_name(name, range_name);
    if (!err)
        err = refuse_name_there(s, name, range_name);
    if (err)
        return err;
    err = npk__target_lock(s, name, &t);
    if (!err)
        err = npk__target_open_with_room(&t, 0, count);
    if (!err)
        err = npk__marks_single_name(&t.marks);
    if (!err && count > 0)
        err = npk__dirty_mark(t.dir.fd, &t.entry, t.info.file_bytes, count * t.info.header.row_bytes, rows);
    if (!err) {
        uint64_t at = t.info.rows, landed = 0;
        err = save_name(&t, range_name, at, at + count, true);
        if (!err) {
            err = npk__append_open(&t, rows, count, &landed);
            if (!err)
                err = keep_name(&t, range_name, at, landed + t.marks.known.deleted, count);
            else
                (void)npk__marks_bury(t.dir.fd, t.leaf, t.fd);
        } else if (count > 0 && npk__marks_bury(t.dir.fd, t.leaf, t.fd) == 0) {
            /* The sentence of the failure stays: a failed save may have been made all the same. */
            (void)npk__dirty_unmark(t.dir.fd, &t.entry);
        }
        if (!err && first)
            *first = landed;
    }
    npk__target_release(&t);
    return err;
}
