/* SPDX-License-Identifier: Apache-2.0 */
/* The values of an array in another dtype: a new file takes its name. */
#define _GNU_SOURCE 1

#include "convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "isa.h"
#include "path.h"
#include "rewrite.h"
#include "store.h"
#include "target.h"

#define ACCEPTED                                                                                                       \
    "bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, float32, float64, complex64 and "        \
    "complex128"

bool npk__number_of(const npk_dtype *d, kn_number *out)
{
    if (d->itemsize == 0 || d->itemsize > 16)
        return false;
    unsigned at = (unsigned)__builtin_ctzll(d->itemsize);
    switch (d->kind) {
    case NPK_KIND_BOOL:
        *out = KN_NUMBER_BOOL;
        return true;
    case NPK_KIND_INT:
        *out = KN_NUMBER_I8 + at;
        return true;
    case NPK_KIND_UINT:
        *out = KN_NUMBER_U8 + at;
        return true;
    case NPK_KIND_FLOAT: /* there are some of 16 bytes */
        *out = KN_NUMBER_F16 + (at - 1);
        return d->itemsize <= 8;
    case NPK_KIND_COMPLEX:
        *out = KN_NUMBER_C64 + (at - 3);
        return true;
    default:
        return false;
    }
}

void npk__convert(const npk_conversion *v, void *out, void *in, size_t count)
{
    if (v->swap_bytes)
        kn_swap_bytes(in, v->swap_bytes, count * v->swap_per_element);
    kn_cast(&v->casting, out, in, count);
}

static int conversion(const npk_dtype *from, const npk_dtype *to, npk_conversion *out)
{
    kn_number a, b;
    kn_isa isa;
    int err = npk__isa_choose(NULL, &isa);
    if (err)
        return err;
    if (!npk__number_of(from, &a) || !npk__number_of(to, &b))
        return npk__fail(-ENOTSUP, "%s to %s: no numbers", from->name, to->name);
    *out = (npk_conversion){.casting = kn_casting_of(isa, a, b)};
    if (from->big_endian) {
        out->swap_per_element = from->kind == NPK_KIND_COMPLEX ? 2 : 1;
        out->swap_bytes = (size_t)from->itemsize / out->swap_per_element;
    }
    return 0;
}

/* Before anything is locked or written. `same`: nothing is to be done. */
static int check(const char *name, const npk_info *info, const npk_dtype *to, bool *same)
{
    const npk_header *h = &info->header;
    kn_number from, wanted;
    if (info->reason)
        return npk__rows_possible(name, info);
    if (!npk_header_is_array(h) || !npk__number_of(&h->dtype, &from))
        return npk__fail(-ENOTSUP, "\"%s\": dtype %s does not become another; arrays of " ACCEPTED " do", name,
                         h->dtype.name);
    *same = npk__number_of(to, &wanted) && wanted == from && !h->dtype.big_endian;
    return 0;
}

static int check_whole(const npk_target *t)
{
    const npk_header *h = &t->info.header;
    uint64_t end = h->data_offset + h->data_bytes;
    if (t->info.file_bytes < end)
        return npk__fail(-EINVAL, "\"%s\": the file has less data than its header promises; save it again", t->name);
    if (t->info.file_bytes > end)
        return npk__fail(-EBUSY, "\"%s\": %" PRIu64 " bytes beyond its data; npk check tells about them", t->name,
                         t->info.file_bytes - end);
    return 0;
}

/* What a cast is asked for. */
struct wish {
    npk_dtype dtype;
    char descr[64];
    unsigned flags;
    npk_progress *progress;
    void *ctx;
};

static int cast(npk_target *t, const struct wish *w)
{
    npk_header h = t->info.header;
    npk_conversion convert;
    bool same = false;
    uint64_t bytes;
    int err = check(t->name, &t->info, &w->dtype, &same); /* again, now that it is ours */
    if (!err)
        err = check_whole(t);
    if (!err)
        err = conversion(&h.dtype, &w->dtype, &convert);
    if (err || same)
        return err;
    uint64_t elements = h.data_bytes / h.dtype.itemsize;
    if (t->marks.known.deleted > 0) { /* deleted rows do not come along */
        h.shape[0] = npk__target_rows(t);
        elements = h.shape[0] * (h.row_bytes / h.dtype.itemsize);
    }
    size_t cap = 64 * 24 + 512, header_bytes;
    if (__builtin_mul_overflow(elements, w->dtype.itemsize, &bytes) || bytes > (uint64_t)INT64_MAX - NPK_MAX_HEADER)
        return npk__fail(-EFBIG, "\"%s\": %" PRIu64 " elements of %s are more than a file can hold", t->name, elements,
                         w->dtype.name);
    uint8_t *header = malloc(cap);
    if (!header)
        return npk__fail(-ENOMEM, "out of memory");
    err = npk_header_format(w->descr, h.fortran, h.shape, h.ndim, header, cap, &header_bytes);
    if (!err)
        err = npk__rewrite(t, &(npk_rewriting){.header = header,
                                               .header_bytes = header_bytes,
                                               .data_bytes = bytes,
                                               .how = NPK_REWRITE_LIVE |
                                                      (w->flags & NPK_CAST_FORCE ? NPK_REWRITE_FORCE : 0),
                                               .convert = &convert,
                                               .progress = w->progress,
                                               .ctx = w->ctx});
    free(header);
    return err;
}

static int parse_wish(const char *name, const char *dtype, unsigned flags, struct wish *out)
{
    kn_number number;
    if (flags & ~(unsigned)(NPK_CAST_FORCE | NPK_CAST_CHECK))
        return npk__fail(-EINVAL, "\"%s\": cast flags 0x%x: unknown; NPK_CAST_FORCE and NPK_CAST_CHECK are known", name,
                         flags);
    out->flags = flags;
    if (npk_dtype_parse(dtype, &out->dtype, out->descr) != 0)
        return npk__fail(-EINVAL, "\"%.40s\": no dtype to cast to; " ACCEPTED " are accepted", dtype);
    if (!npk__number_of(&out->dtype, &number) || out->dtype.big_endian)
        return npk__fail(-ENOTSUP, "\"%.40s\": not a dtype to cast to; " ACCEPTED " are accepted", dtype);
    return 0;
}

npk_err npk_cast(npk_store *s, const char *name, const char *dtype, unsigned flags, npk_progress *progress, void *ctx)
{
    struct wish w = {.progress = progress, .ctx = ctx};
    npk_target t;
    npk_info info;
    bool same = false;
    int err = parse_wish(name, dtype, flags, &w);
    if (!err)
        err = npk__store_writable(s, name);
    if (!err)
        err = npk_stat(s, name, &info); /* nothing to do leaves no trace */
    if (err)
        return err;
    err = check(name, &info, &w.dtype, &same);
    npk_info_clear(&info);
    if (err || same || (flags & NPK_CAST_CHECK))
        return err;
    err = npk__target_lock(s, name, &t);
    if (!err)
        err = npk__target_open(&t, NPK_TARGET_READ | NPK_TARGET_ANY | (flags & NPK_CAST_FORCE ? 0 : NPK_TARGET_ALONE));
    if (!err)
        err = cast(&t, &w);
    npk__target_release(&t);
    return err;
}
