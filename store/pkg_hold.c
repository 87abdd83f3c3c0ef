/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a package's file where they are: decoded frames that are kept, and contiguous data in a mapping. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fail.h"
#include "io.h"
#include "package.h"

const uint8_t *npk__package_mapping(npk_package *p)
{
    pthread_mutex_lock(&p->mutex);
    if (!p->map && p->source.fd >= 0) {
        void *at;
        if (npk__mmap(&at, p->source.bytes, PROT_READ, MAP_SHARED, p->source.fd, 0) == 0)
            p->map = at;
    }
    const uint8_t *map = p->map;
    pthread_mutex_unlock(&p->mutex);
    return map;
}

static int hold_head(npk_package_file *f, uint64_t offset, size_t bytes, npk_held *out)
{
    const npk__pkg_record *r = &f->record;
    uint8_t *head = malloc(r->head);
    if (!head)
        return npk__fail(-ENOMEM, "out of memory");
    npk__pkg_head(r, head);
    size_t n = r->head - offset < bytes ? (size_t)(r->head - offset) : bytes;
    *out = (npk_held){.data = head + offset, .bytes = n, .memory = head};
    return 0;
}

/* Frames that were not proved yet are read once for that; then the mapping is as good as a copy. */
static int hold_in_place(npk_package_file *f, uint64_t offset, size_t bytes, npk_held *out)
{
    const uint8_t *map = npk__package_mapping(f->package);
    uint64_t first = offset / f->record.frame, last = (offset + bytes - 1) / f->record.frame;
    if (!map)
        return -ENOTSUP;
    for (uint64_t frame = first; frame <= last; frame++) {
        int err = npk__package_prove(f, frame);
        if (err)
            return err;
    }
    *out = (npk_held){.data = map + f->one_at + f->record.head + offset, .bytes = bytes};
    return 0;
}

static int hold_copy(npk_package_file *f, uint64_t offset, size_t bytes, npk_held *out)
{
    uint8_t *copy = malloc(bytes);
    int err = copy ? npk__package_data(f, offset, copy, bytes) : npk__fail(-ENOMEM, "out of memory");
    if (err)
        free(copy);
    else
        *out = (npk_held){.data = copy, .bytes = bytes, .memory = copy};
    return err;
}

static int hold_data(npk_package_file *f, uint64_t offset, size_t bytes, npk_held *out)
{
    const npk__pkg_record *r = &f->record;
    if (r->layout == NPK__PKG_CONTIGUOUS) {
        int err = hold_in_place(f, offset, bytes, out);
        return err == -ENOTSUP ? hold_copy(f, offset, bytes, out) : err;
    }
    uint64_t frame = offset / r->frame, skip = offset % r->frame, left = npk__pkg_frame_bytes(r, frame) - skip;
    npk__cached *held;
    int err = npk__package_hold(f, frame, &held);
    if (err)
        return err;
    *out = (npk_held){
        .data = npk__cached_data(held) + skip, .bytes = left < bytes ? (size_t)left : bytes, .frame = held,
        .ends_frame = left <= bytes};
    return 0;
}

npk_err npk_package_file_hold(npk_package_file *f, uint64_t offset, size_t bytes, npk_held *out, size_t max,
                              size_t *count)
{
    uint64_t all = f->record.head + f->record.data;
    int err = 0;
    *count = 0;
    if (offset >= all)
        return 0;
    if (bytes > all - offset)
        bytes = (size_t)(all - offset);
    while (bytes > 0 && *count < max && !err) {
        npk_held *piece = &out[*count];
        err = offset < f->record.head ? hold_head(f, offset, bytes, piece)
                                      : hold_data(f, offset - f->record.head, bytes, piece);
        if (err)
            break;
        ++*count;
        offset += piece->bytes;
        bytes -= piece->bytes;
    }
    if (err) {
        npk_package_release(f->package, out, *count, false);
        *count = 0;
    }
    return err;
}

void npk_package_release(npk_package *p, npk_held *pieces, size_t count, bool passed)
{
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].frame)
            npk__cache_put(p->cache, pieces[i].frame, passed && pieces[i].ends_frame);
        free(pieces[i].memory);
    }
}
