/* SPDX-License-Identifier: Apache-2.0 */
/* Dropping rows, restoring them, telling which ones are deleted. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "io.h"
#include "marks.h"
#include "npk.h"
#include "path.h"
#include "settle.h"
#include "store.h"
#include "target.h"
#include "view.h"

/* ---- ranges ---------------------------------------------------------------------------------------------------- */

/* An array of ranges that grows. */
struct ranges {
    npk_range *at;
    size_t count, capacity;
    bool sorted; /* by their start, so far */
};

static int add_range(struct ranges *r, uint64_t start, uint64_t stop)
{
    if (r->count == r->capacity) {
        size_t capacity = r->capacity ? 2 * r->capacity : 64;
        npk_range *at = realloc(r->at, capacity * sizeof(*at));
        if (!at)
            return npk__fail(-ENOMEM, "out of memory");
        r->at = at;
        r->capacity = capacity;
    }
    if (r->count == 0)
        r->sorted = true;
    else if (start < r->at[r->count - 1].start)
        r->sorted = false;
    r->at[r->count++] = (npk_range){start, stop};
    return 0;
}

#define DIGIT_BITS 11
#define DIGITS     (1u << DIGIT_BITS)

/* By the start, digit after digit from the lowest on; `spare` has as much room. The result may be in either. */
static npk_range *sort_digits(npk_range *from, npk_range *spare, size_t count, uint64_t greatest)
{
    size_t places[DIGITS]; /* not thread-local: a large block of those keeps programs from loading the library later */
    for (unsigned shift = 0; shift < 64 && greatest >> shift; shift += DIGIT_BITS) {
        memset(places, 0, sizeof(places));
        for (size_t i = 0; i < count; i++)
            places[from[i].start >> shift & (DIGITS - 1)]++;
        for (size_t i = 0, sum = 0, n; i < DIGITS; i++, sum += n) {
            n = places[i];
            places[i] = sum;
        }
        for (size_t i = 0; i < count; i++)
            spare[places[from[i].start >> shift & (DIGITS - 1)]++] = from[i];
        npk_range *other = from;
        from = spare;
        spare = other;
    }
    return from;
}

static int compare_starts(const void *a, const void *b)
{
    const npk_range *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static int sort_ranges(struct ranges *r)
{
    if (r->sorted || r->count < 2)
        return 0;
    if (r->count < 512) {
        qsort(r->at, r->count, sizeof(*r->at), compare_starts);
        return 0;
    }
    uint64_t greatest = 0;
    for (size_t i = 0; i < r->count; i++)
        if (r->at[i].start > greatest)
            greatest = r->at[i].start;
    npk_range *spare = malloc(r->capacity * sizeof(*spare));
    if (!spare)
        return npk__fail(-ENOMEM, "out of memory");
    npk_range *sorted = sort_digits(r->at, spare, r->count, greatest);
    free(sorted == spare ? r->at : spare);
    r->at = sorted;
    return 0;
}

/* Sorted ranges that overlap or touch become one; the rows in all of them. */
static uint64_t merge_ranges(struct ranges *r)
{
    uint64_t rows = 0;
    size_t kept = 0;
    for (size_t i = 0; i < r->count; i++) {
        npk_range *last = kept ? &r->at[kept - 1] : NULL;
        if (last && r->at[i].start <= last->stop) {
            if (r->at[i].stop > last->stop)
                last->stop = r->at[i].stop;
        } else if (r->at[i].start < r->at[i].stop) {
            r->at[kept++] = r->at[i];
        }
    }
    r->count = kept;
    for (size_t i = 0; i < kept; i++)
        rows += r->at[i].stop - r->at[i].start;
    return rows;
}

/* A choice of rows as ranges; all of them must be below `rows`. */
static int collect(const char *name, const npk_rows *choice, uint64_t rows, struct ranges *out)
{
    int err = 0;
    for (size_t i = 0; i < choice->run_count && !err; i++) {
        const npk_run *run = &choice->runs[i];
        uint64_t last = run->start + (run->count - 1) * (uint64_t)run->step;
        if (run->count == 0)
            continue;
        if (run->start >= rows || last >= rows)
            return npk__fail(-ERANGE, "\"%s\": row %" PRIu64 " is outside; there are %" PRIu64 " rows", name,
                             run->start >= rows ? run->start : last, rows);
        if (run->step == 1 || run->count == 1)
            err = add_range(out, run->start, run->start + run->count);
        else if (run->step == -1)
            err = add_range(out, last, run->start + 1);
        else
            for (uint64_t j = 0, row = run->start; j < run->count && !err; j++, row += (uint64_t)run->step)
                err = add_range(out, row, row + 1);
    }
    return err;
}

/* Logical ranges to physical ones. Rows between the first and the last of a range that are deleted already come along:
 * dropping them again changes nothing. */
static void to_physical(struct ranges *r, const npk_live *live)
{
    const size_t few = 32;
    for (size_t i = 0; live && i < r->count; i++)
        r->at[i].stop--; /* the last row of each */
    if (live && r->count > few) {
        npk__live_select_ascending(live, &r->at[0].start, 2 * r->count, 1);
    } else {
        for (size_t i = 0; live && i < r->count; i++) {
            r->at[i].start = npk__live_select(live, r->at[i].start);
            r->at[i].stop = npk__live_select(live, r->at[i].stop);
        }
    }
    for (size_t i = 0; live && i < r->count; i++)
        r->at[i].stop++;
}

/* ---- the array ------------------------------------------------------------------------------------------------- */

struct opened {
    npk_target target; /* its descriptor reads */
    npk_marks marks;
};

static int look(npk_target *t, npk_stamp *stamp)
{
    npk_info_clear(&t->info);
    int err = npk__fd_look(t->fd, &t->info, stamp);
    if (err)
        return npk__fail_errno(err, t->name);
    t->state = npk__settle_state(&t->info);
    return 0;
}

static int check_kind(const npk_target *t)
{
    const npk_header *h = &t->info.header;
    int err = npk__rows_possible(t->name, &t->info);
    if (!err && t->state == NPK_UNFINISHED)
        err = npk__fail(-EINVAL,
                        "\"%s\": its header promises %" PRIu64 " bytes and the file has %" PRIu64
                        ", so it is unfinished; save it again",
                        t->name, h->data_offset + h->data_bytes, t->info.file_bytes);
    return err;
}

/* Lock, open, look. What is deleted may be changed while programs read and write the rows. */
static int open_marks(npk_store *s, const char *name, uint64_t generation, struct opened *o)
{
    npk_stamp stamp;
    npk_target *t = &o->target;
    o->marks = (npk_marks){.fd = -1};
    int err = npk__target_lock(s, name, t);
    if (err)
        return err;
    t->fd = npk__openat(t->dir.fd, t->leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    err = t->fd < 0 ? npk__name_failed(t->fd, name) : look(t, &stamp);
    if (!err && (t->state == NPK_TAIL || t->state == NPK_UNFINISHED)) { /* rows of a session are to be counted first */
        err = npk__settle_locked(s, t->dir.fd, t->leaf, t->fd, NPK_SETTLE_CUT, NULL, NULL);
        if (!err)
            err = look(t, &stamp);
    }
    if (!err)
        err = check_kind(t);
    if (!err)
        err = npk__marks_look(t->dir.fd, t->leaf, t->fd, &t->info, &stamp, &o->marks);
    if (!err && generation != NPK_ANY_GENERATION && generation != o->marks.known.generation)
        err = npk__fail(
            -ESTALE, "\"%s\": generation %" PRIu64 ", and it is %" PRIu64 " by now: the rows may be others; look again",
            name, generation, o->marks.known.generation);
    return err;
}

static void close_marks(struct opened *o)
{
    npk__marks_release(&o->marks);
    npk__target_release(&o->target);
}

/* For calls that change nothing: the array is there and has rows, and no lock file is made for it. */
static int only_look(npk_store *s, const char *name, npk_info *info)
{
    int err = npk_stat(s, name, info);
    if (!err) {
        err = npk__rows_possible(name, info);
        npk_info_clear(info);
    }
    return err;
}

/* ---- the public functions -------------------------------------------------------------------------------------- */

npk_err npk_drop_rows(npk_store *s, const char *name, const npk_rows *rows, uint64_t generation, uint64_t *dropped)
{
    struct opened o = {.target = NPK_TARGET_NONE};
    struct ranges r = {0};
    npk_info info;
    uint64_t count = 0;
    if (rows->row_count == 0) { /* nothing to do leaves no trace */
        int none = npk__store_writable(s, name);
        if (!none)
            none = only_look(s, name, &info);
        if (!none && dropped)
            *dropped = 0;
        return none;
    }
    int err = open_marks(s, name, generation, &o);
    const npk_known *k = &o.marks.known;
    if (!err)
        err = collect(name, rows, k->rows - k->deleted, &r);
    if (!err)
        err = sort_ranges(&r);
    if (!err) {
        count = merge_ranges(&r);
        to_physical(&r, k->live);
        (void)merge_ranges(&r);
        if (r.count > 0)
            err = npk__marks_record(&o.marks, NPK_DELREC_DROP, r.at, r.count);
    }
    free(r.at);
    close_marks(&o);
    if (!err && dropped)
        *dropped = count;
    return err;
}

/* How many rows of the ranges are deleted; those that are not need no record. */
static uint64_t count_deleted(const npk_known *k, const struct ranges *r)
{
    uint64_t n = 0;
    for (size_t i = 0; k->live && i < r->count; i++) {
        uint64_t start = r->at[i].start, stop = r->at[i].stop;
        n += stop - start - (npk__live_rank(k->live, stop) - npk__live_rank(k->live, start));
    }
    return n;
}

/* The rows of a file behind ranges of an older numbering, exactly: what was deleted then and between them stays as it is
 * now. */
static int seen_to_physical(const char *name, const struct ranges *from, const npk__shown *seen, uint64_t rows,
                            struct ranges *out)
{
    int err = 0;
    for (size_t i = 0; i < from->count && !err; i++)
        for (uint64_t row = from->at[i].start, n, first; row < from->at[i].stop && !err; row += n) {
            n = npk__view_run(seen->live, row, from->at[i].stop - row, &first);
            err = first + n <= rows ? add_range(out, first, first + n)
                                    : npk__fail(-ERANGE, "\"%s\": row %" PRIu64 " was cut off meanwhile", name, row);
        }
    return err;
}

npk_err npk_drop_seen_rows(npk_store *s, const char *name, const npk_rows *rows, const npk_view *seen, uint64_t inode,
                           uint64_t *dropped)
{
    struct opened o = {.target = NPK_TARGET_NONE};
    struct ranges r = {0}, physical = {0};
    struct stat st;
    uint64_t count = 0;
    if (rows->row_count == 0)
        return npk_drop_rows(s, name, rows, NPK_ANY_GENERATION, dropped);
    const npk__shown *shown = seen ? npk__view_shown(seen) : NULL;
    int err = open_marks(s, name, NPK_ANY_GENERATION, &o);
    const npk_known *k = &o.marks.known;
    if (!err && (npk__fstat(o.target.fd, &st) != 0 || st.st_ino != inode))
        err = npk__fail(-ESTALE, "\"%s\": another file has the name by now, whose rows may be others; look again", name);
    if (!err)
        err = collect(name, rows, shown ? shown->rows : k->rows, &r);
    if (!err)
        err = sort_ranges(&r);
    if (!err) {
        count = merge_ranges(&r);
        if (shown) {
            err = seen_to_physical(name, &r, shown, k->rows, &physical);
            free(r.at);
            r = physical;
        }
        if (!err)
            count -= count_deleted(k, &r);
        if (!err && count > 0)
            err = npk__marks_record(&o.marks, NPK_DELREC_DROP, r.at, r.count);
    }
    free(r.at);
    close_marks(&o);
    if (!err && dropped)
        *dropped = count;
    return err;
}

static int collect_physical(const char *name, const npk_range *physical, size_t count, uint64_t rows,
                            struct ranges *out)
{
    if (!physical)
        return add_range(out, 0, rows);
    int err = 0;
    for (size_t i = 0; i < count && !err; i++) {
        if (physical[i].start > physical[i].stop || physical[i].stop > rows)
            return npk__fail(-ERANGE,
                             "\"%s\": rows %" PRIu64 ":%" PRIu64 " are outside; the file has %" PRIu64
                             " rows, deleted ones among them",
                             name, physical[i].start, physical[i].stop, rows);
        err = add_range(out, physical[i].start, physical[i].stop);
    }
    return err;
}

npk_err npk_restore_rows(npk_store *s, const char *name, const npk_range *physical, size_t count, uint64_t generation,
                         uint64_t *restored)
{
    struct opened o = {.target = NPK_TARGET_NONE};
    struct ranges r = {0};
    uint64_t back = 0;
    int err = open_marks(s, name, generation, &o);
    const npk_known *k = &o.marks.known;
    if (!err)
        err = collect_physical(name, physical, count, k->rows, &r);
    if (!err)
        err = sort_ranges(&r);
    if (!err) {
        (void)merge_ranges(&r);
        back = count_deleted(k, &r);
        if (back > 0)
            err = npk__marks_record(&o.marks, NPK_DELREC_RESTORE, r.at, r.count);
    }
    free(r.at);
    close_marks(&o);
    if (!err && restored)
        *restored = back;
    return err;
}

static int visit_deleted(npk_store *s, const char *name, npk_range_visit *visit, void *ctx)
{
    npk_target t;
    npk_stamp stamp;
    npk_known k = NPK_KNOWN_NONE;
    int err = npk__target_resolve(s, name, &t);
    if (!err) {
        t.fd = npk__openat(t.dir.fd, t.leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
        err = t.fd < 0 ? npk__name_failed(t.fd, name) : look(&t, &stamp);
    }
    if (!err)
        err = npk__rows_possible(name, &t.info);
    if (!err)
        err = npk__known(t.dir.fd, t.leaf, t.fd, &t.info, &stamp, &k);
    uint64_t start, stop = 0;
    while (!err && k.deleted > 0 && npk__live_next_deleted(k.live, stop, &start, &stop) && start < k.rows)
        err = visit(ctx, start, stop < k.rows ? stop : k.rows);
    npk__known_release(&k);
    npk__target_release(&t);
    return err;
}

npk_err npk_deleted_ranges(npk_store *s, const char *name, npk_range_visit *visit, void *ctx)
{
    int err = -ESTALE;
    npk_info info;
    if (s->package) /* which has no deleted rows */
        return only_look(s, name, &info);
    for (unsigned tries = 0; err == -ESTALE && tries < 100; tries++) /* P6: another file may just take the name */
        err = visit_deleted(s, name, visit, ctx);
    return err;
}
