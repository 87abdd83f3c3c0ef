/* SPDX-License-Identifier: Apache-2.0 */
/* Giving the space of deleted rows back. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>

#include "fail.h"
#include "io.h"
#include "lower.h"
#include "marks.h"
#include "npk.h"
#include "path.h"
#include "rewrite.h"
#include "store.h"
#include "target.h"
#include "view.h"

/* ---- compact --------------------------------------------------------------------------------------------------- */

/* The header as it is, counting the rows that are shown: fewer digits always have room. */
static int compact(npk_target *t, unsigned flags, npk_progress *progress, void *ctx)
{
    const npk_header *h = &t->info.header;
    uint64_t rows = npk__target_rows(t);
    uint8_t *header = malloc((size_t)h->data_offset);
    if (!header)
        return npk__fail(-ENOMEM, "out of memory");
    npk_package_file *packed = NULL;
    int err = npk__placeholder_open(t->store, t->fd, &packed);
    ssize_t n = err ? 0
                : packed ? npk_package_file_read(packed, 0, header, (size_t)h->data_offset)
                         : npk__pread_full(t->fd, header, (size_t)h->data_offset, 0);
    npk_package_file_close(&packed);
    if (!err && n != (ssize_t)h->data_offset)
        err = npk__fail_errno(n < 0 ? (int)n : -EIO, t->name);
    if (!err) {
        npk__view_header(header, h, rows);
        npk_rewriting r = {.header = header,
                           .header_bytes = (size_t)h->data_offset,
                           .data_bytes = rows * h->row_bytes,
                           .how = NPK_REWRITE_LIVE | (flags & NPK_COMPACT_FORCE ? NPK_REWRITE_FORCE : 0),
                           .progress = progress,
                           .ctx = ctx};
        err = npk__rewrite(t, &r);
    }
    free(header);
    return err;
}

npk_err npk_compact(npk_store *s, const char *name, unsigned flags, npk_progress *progress, void *ctx)
{
    npk_target t;
    npk_info info;
    if (flags & ~(unsigned)NPK_COMPACT_FORCE)
        return npk__fail(-EINVAL, "\"%s\": compact flags 0x%x: unknown; NPK_COMPACT_FORCE is known", name, flags);
    int err = npk__store_writable(s, name);
    if (!err)
        err = npk_stat(s, name, &info); /* nothing to do leaves no trace */
    if (err)
        return err;
    bool nothing = info.deleted == 0;
    err = npk__rows_possible(name, &info);
    npk_info_clear(&info);
    if (err || nothing)
        return err;
    err = npk__target_lock(s, name, &t);
    if (!err)
        err = npk__target_open(&t, NPK_TARGET_READ | NPK_TARGET_PACKED | (flags & NPK_COMPACT_FORCE ? 0 : NPK_TARGET_ALONE));
    if (!err && t.marks.known.deleted > 0)
        err = compact(&t, flags, progress, ctx);
    npk__target_release(&t);
    return err;
}

/* ---- policy ---------------------------------------------------------------------------------------------------- */

npk_err npk_compact_policy(npk_store *s, const char *name, unsigned *percent)
{
    npk_target t;
    npk_states states = {.count = 0};
    char stem[NPK__STEM_BYTES];
    unsigned at, policy = 0;
    npk_info info;
    if (s->package) {
        int none = npk_stat(s, name, &info);
        if (!none) {
            none = npk__rows_possible(name, &info);
            npk_info_clear(&info);
        }
        if (!none)
            *percent = 0;
        return none;
    }
    int how, err = npk__target_resolve(s, name, &t);
    if (!err) {
        t.fd = npk__openat(t.dir.fd, t.leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
        err = t.fd < 0 ? npk__name_failed(t.fd, name) : npk__fd_look(t.fd, &t.info, &t.stamp);
    }
    if (!err)
        err = npk__rows_possible(name, &t.info);
    if (!err) {
        int there = npk__state_find(t.dir.fd, t.leaf, t.fd, &t.info, &t.stamp, &states, stem, &at, &how);
        policy = there > 0 ? states.policy : 0;
        err = there < 0 ? there : 0;
        npk__states_clear(&states);
    }
    npk__target_release(&t);
    if (!err)
        *percent = policy;
    return err;
}

npk_err npk_compact_policy_set(npk_store *s, const char *name, unsigned percent)
{
    npk_target t;
    npk_states states;
    if (percent > 100)
        return npk__fail(-EINVAL, "\"%s\": %u percent; 1 to 100, or 0 for never", name, percent);
    int err = npk__target_lock(s, name, &t);
    if (!err)
        err = npk__target_open(&t, NPK_TARGET_READ | NPK_TARGET_PACKED | NPK_TARGET_TAIL);
    if (!err && (percent > 0 || t.marks.known.stated)) {
        err = npk__marks_single_name(&t.marks);
        if (!err)
            err = npk__marks_states(&t.marks, &states);
        if (!err) {
            states.policy = percent;
            err = npk__marks_keep(&t.marks, &states);
            npk__states_clear(&states);
        }
    }
    npk__target_release(&t);
    return err;
}
