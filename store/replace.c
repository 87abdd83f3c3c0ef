/* SPDX-License-Identifier: Apache-2.0 */
/* Replacing rows, all or none (P5). */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fail.h"
#include "gather.h"
#include "io.h"
#include "npk.h"
#include "redo.h"
#include "target.h"
#include "view.h"

static int open_for_replace(npk_store *s, const char *name, npk_target *t)
{
    int err = npk__target_lock(s, name, t);
    return err ? err : npk__target_open(t, NPK_TARGET_TAIL);
}

/* Rows that lie in holes get their blocks first, so that a full disk is found before the first row is written. */
static int reserve(const npk_target *t, const npk_extent *extents, size_t count)
{
    const npk_header *h = &t->info.header;
    struct stat st;
    int err = npk__fstat(t->fd, &st);
    if (err || (uint64_t)st.st_blocks * 512 >= (uint64_t)st.st_size)
        return err ? npk__fail_errno(err, t->name) : 0;
    for (size_t i = 0; i < count && !err; i++)
        err = npk__fallocate(t->fd, FALLOC_FL_KEEP_SIZE, npk__rows_end(h, extents[i].row),
                             extents[i].rows * h->row_bytes);
    if (err == -EOPNOTSUPP || err == -ENOSYS || err == -EINVAL)
        return 0; /* the filesystem cannot say beforehand */
    return err ? npk__fail_errno(err, t->name) : 0;
}

static int replace(npk_target *t, const npk_extent *extents, size_t count, const void *rows)
{
    int err = reserve(t, extents, count);
    return err ? err : npk__redo_replace(t, extents, count, rows);
}

/* Extents of rows that are shown: each stretch of them that is one in the file becomes an extent of its own. */
static int replace_shown(npk_target *t, const npk_extent *extents, size_t count, const void *rows)
{
    const npk_live *live = t->marks.known.live;
    size_t n = 0, capacity = count + 64;
    if (t->marks.known.deleted == 0)
        return replace(t, extents, count, rows);
    npk_extent *physical = malloc(capacity * sizeof(*physical));
    bool enough = physical != NULL;
    for (size_t i = 0; i < count && enough; i++) {
        for (uint64_t done = 0; done < extents[i].rows && enough;) {
            npk_extent *more = n < capacity ? physical : realloc(physical, 2 * capacity * sizeof(*physical));
            enough = more != NULL;
            if (!enough)
                break;
            capacity = n < capacity ? capacity : 2 * capacity;
            physical = more;
            physical[n].rows = npk__view_run(live, extents[i].row + done, extents[i].rows - done, &physical[n].row);
            done += physical[n++].rows;
        }
    }
    int err = enough ? replace(t, physical, n, rows) : npk__fail(-ENOMEM, "out of memory");
    free(physical);
    return err;
}

npk_err npk_replace_range(npk_store *s, const char *name, uint64_t start, uint64_t count, const void *rows)
{
    npk_target t;
    int err = open_for_replace(s, name, &t);
    uint64_t shown = err ? 0 : npk__target_rows(&t);
    if (!err && (start > shown || count > shown - start))
        err = npk__fail(-ERANGE,
                        "\"%s\": %" PRIu64 " rows from row %" PRIu64 " on are outside; there are %" PRIu64 " rows",
                        name, count, start, shown);
    if (!err && count > 0) {
        err = replace_shown(&t, &(npk_extent){start, count}, 1, rows);
        npk__target_wrote(&t);
    }
    npk__target_release(&t);
    return err;
}

/* Neighbours in the list that are neighbours in the file make one extent. The number of extents. */
static size_t make_extents(const int64_t *indices, size_t count, uint64_t total, npk_extent *out)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t row = (uint64_t)indices[i] + (indices[i] < 0 ? total : 0);
        if (n > 0 && out[n - 1].row + out[n - 1].rows == row)
            out[n - 1].rows++;
        else
            out[n++] = (npk_extent){row, 1};
    }
    return n;
}

npk_err npk_replace_rows(npk_store *s, const char *name, const int64_t *indices, size_t count, const void *rows)
{
    npk_target t;
    npk_extent few[64], *extents = few;
    int err = open_for_replace(s, name, &t);
    if (!err) {
        size_t bad = kn_first_outside(indices, count, npk__target_rows(&t));
        if (bad < count)
            err = npk__fail(-ERANGE, "\"%s\": index %" PRId64 " is outside; there are %" PRIu64 " rows", name,
                            indices[bad], npk__target_rows(&t));
    }
    if (!err && count > sizeof(few) / sizeof(few[0]) && !(extents = malloc(count * sizeof(*extents))))
        err = npk__fail(-ENOMEM, "out of memory");
    if (!err && count > 0) {
        err = replace_shown(&t, extents, make_extents(indices, count, npk__target_rows(&t), extents), rows);
        npk__target_wrote(&t);
    }
    npk__target_release(&t);
    if (extents != few)
        free(extents);
    return err;
}
