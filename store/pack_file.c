/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "pack_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "npy.h"
#include "path.h"
#include "pkg_filter.h"
#include "store.h"

#define LARGE_ROW   (UINT64_C(4) << 20)   /* larger ones are cut into several frames */
#define SAMPLE      (UINT64_C(128) << 10) /* bytes of each of three pieces */
#define MANY_FRAMES (UINT64_C(1) << 20)   /* more of them become larger */
#define FIRST_READ  4096

static int changed(const npk__found *found)
{
    return npk__fail(-ESTALE, "\"%s\": changed while it was packed; pack again when nobody writes to it", found->path);
}

static ssize_t read_shown(const npk__packing_file *f, uint64_t offset, void *out, size_t bytes)
{
    if (!f->view)
        return npk__pread_full(f->fd, out, bytes, offset);
    uint8_t *to = out;
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = npk_view_read(f->view, f->fd, offset + done, to + done, bytes - done);
        if (n < 0)
            return n;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int npk__packing_read(const npk__packing_file *f, uint64_t offset, uint8_t *out, size_t bytes)
{
    ssize_t n = read_shown(f, f->record.head + offset, out, bytes);
    if (n < 0)
        return npk__fail_errno((int)n, f->found->path);
    return (size_t)n < bytes ? changed(f->found) : 0;
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

/* The header, when it is an array's: then f->head has it. */
static int read_head(npk__packing_file *f)
{
    size_t want = FIRST_READ;
    for (;;) {
        uint8_t *head = realloc(f->head, want);
        if (!head)
            return npk__fail(-ENOMEM, "out of memory");
        f->head = head;
        ssize_t n = read_shown(f, 0, head, want);
        if (n < 0)
            return npk__fail_errno((int)n, f->found->path);
        int err = npk_header_parse(head, (size_t)n, &f->header, NULL, 0);
        if (err == -EAGAIN && f->header.data_offset > want && f->header.data_offset <= f->shown) {
            want = f->header.data_offset;
            continue;
        }
        f->is_array = err == 0 && npk_header_is_array(&f->header) && f->header.data_offset <= f->shown;
        return 0;
    }
}

static uint64_t frame_of(const npk__packing_file *f, uint64_t target)
{
    const npk_header *h = &f->header;
    uint64_t data = f->record.data, unit = 1;
    if (!f->is_array)
        target *= 4;
    while (data / target >= MANY_FRAMES && target < NPK__PKG_MAX_FRAME)
        target *= 2;
    if (target > NPK__PKG_MAX_FRAME)
        target = NPK__PKG_MAX_FRAME;
    if (f->is_array) {
        unit = h->dtype.itemsize;
        if (npk_header_is_row_array(h) && h->row_bytes <= (target > LARGE_ROW ? target : LARGE_ROW))
            unit = h->row_bytes;
        if (unit == 0 || unit > NPK__PKG_MAX_FRAME)
            unit = 1;
    }
    return unit >= target ? unit : target / unit * unit;
}

static int open_link(npk_store *s, npk__packing_file *f)
{
    npk_dir dir;
    const char *leaf;
    int err = npk__dir_of(s->root_fd, f->found->path, &dir, &leaf);
    if (err)
        return err;
    f->head = malloc(4096);
    ssize_t n = f->head ? readlinkat(dir.fd, leaf, (char *)f->head, 4096) : -1;
    err = n < 0 ? (f->head ? -errno : -ENOMEM) : 0;
    npk__dir_release(&dir);
    if (err)
        return npk__fail_errno(err, f->found->path);
    f->record.head = f->record.text = (uint32_t)n;
    if (!npk__pkg_link_stays(f->found->path, strlen(f->found->path), (char *)f->head, (size_t)n))
        return npk__fail(-EINVAL, "\"%s\": a link that leads outside the store, to \"%.*s\"; leave it out with an "
                                  "exclude pattern", f->found->path, (int)n, (char *)f->head);
    return 0;
}

static int add_name(void *ctx, const char *range_name, uint64_t start, uint64_t stop)
{
    npk__packing_file *f = ctx;
    char *line;
    int n = asprintf(&line, "%s\t%llu\t%llu\n", range_name, (unsigned long long)start, (unsigned long long)stop);
    if (n < 0)
        return npk__fail(-ENOMEM, "out of memory");
    uint32_t before = f->record.names_bytes;
    char *names = before + (uint32_t)n > NPK__PKG_MAX_NAMES ? NULL : realloc(f->names, before + (size_t)n);
    if (names) {
        memcpy(names + before, line, (size_t)n);
        f->names = names;
        f->record.names_bytes = before + (uint32_t)n;
    }
    free(line);
    return names ? 0
                 : npk__fail(-E2BIG, "\"%s\": its names of rows have more than %u bytes; at most so many go into a package",
                             f->found->path, NPK__PKG_MAX_NAMES);
}

static int read_names(npk_store *s, npk__packing_file *f)
{
    char name[NPK__PATH_BYTES];
    if (!f->is_array || !npk_header_is_row_array(&f->header) ||
        npk__path_to_name(f->found->path, name, sizeof(name)) != 0)
        return 0;
    return npk_names(s, name, add_name, f);
}

static int open_file(npk_store *s, npk__packing_file *f, uint64_t frame_target, const npk_pack_options *o)
{
    struct stat st;
    const char *path = f->found->path;
    f->fd = npk__open_beneath(s->root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (f->fd < 0)
        return f->fd == -ENOENT || f->fd == -ELOOP ? changed(f->found) : f->fd;
    int err = npk__fstat(f->fd, &st);
    if (err)
        return npk__fail_errno(err, path);
    if (!npk__found_same(f->found, &st))
        return changed(f->found);
    err = npk_view_shows(s, path, f->fd, &f->shown, &f->generation);
    if (!err && f->generation != 0)
        err = npk_view_open(s, path, f->fd, &f->view);
    if (!err && !f->view)
        err = npk_view_open_whole(s, f->fd, &f->view);
    else if (!err && npk_view_generation(f->view) != f->generation)
        err = changed(f->found);
    if (!err && f->shown > 0)
        err = read_head(f);
    if (!err)
        err = read_names(s, f);
    if (err)
        return err;
    npk__pkg_record *r = &f->record;
    r->head = f->is_array ? (uint32_t)f->header.data_offset : 0;
    r->text = npk__pkg_head_text(f->head, r->head);
    r->data = f->shown - r->head;
    if (r->data == 0)
        return 0;
    r->frame = f->frame = frame_of(f, frame_target);
    f->frames = npk__pkg_frames(r);
    f->forced_raw = npk__pattern_match(o->raw, path);
    r->layout = f->forced_raw ? NPK__PKG_CONTIGUOUS : NPK__PKG_FRAMES;
    f->level = o->level;
    if (f->frames > NPK__PKG_MAX_FRAMES)
        return npk__fail(-EFBIG, "\"%s\": too large for a package, whose files have at most %llu frames", path,
                         (unsigned long long)NPK__PKG_MAX_FRAMES);
    return 0;
}

int npk__packing_open(npk_store *s, const npk__found *found, uint64_t frame_target, const npk_pack_options *o,
                      npk__packing_file *out)
{
    *out = (npk__packing_file){.found = found, .fd = -1};
    npk__pkg_record *r = &out->record;
    r->kind = found->kind;
    r->mode = found->mode;
    r->mtime_ns = (int64_t)found->mtime.tv_sec * 1000000000 + found->mtime.tv_nsec;
    r->path = found->path;
    r->path_bytes = (uint32_t)strlen(found->path);
    int err = found->kind == NPK__PKG_LINK   ? open_link(s, out)
              : found->kind == NPK__PKG_FILE ? open_file(s, out, frame_target, o)
                                             : 0;
    r->stored = (const char *)out->head;
    r->names = out->names;
    return err;
}

void npk__packing_close(npk__packing_file *f)
{
    npk_view_close(&f->view);
    npk__close(&f->fd);
    free(f->head);
    free(f->names);
    f->head = NULL;
    f->names = NULL;
}

int npk__packing_same(npk_store *s, const npk__packing_file *f)
{
    struct stat st;
    uint64_t shown, generation;
    if (f->fd < 0)
        return 0;
    int err = npk__fstat(f->fd, &st);
    if (err)
        return npk__fail_errno(err, f->found->path);
    if (!npk__found_same(f->found, &st))
        return changed(f->found);
    err = npk_view_shows(s, f->found->path, f->fd, &shown, &generation);
    if (err)
        return err;
    return shown != f->shown || generation != f->generation ? changed(f->found) : 0;
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

int npk__packing_choose(npk__packing_file *f, npk__codec *c)
{
    npk__pkg_record *r = &f->record;
    npk__sample sample = {0};
    bool raw = false;
    int err = 0;
    if (f->forced_raw || f->frames == 0)
        return 0;
    uint64_t item = f->is_array && f->header.dtype.itemsize > 0 ? f->header.dtype.itemsize : 1;
    uint64_t most = r->frame < SAMPLE ? r->frame : SAMPLE / item > 0 ? SAMPLE / item * item : r->frame;
    sample.count = f->frames < 3 ? (unsigned)f->frames : 3;
    uint8_t *data = malloc(sample.count * most);
    if (!data)
        return npk__fail(-ENOMEM, "out of memory");
    for (unsigned i = 0; i < sample.count && !err; i++) {
        uint64_t frame = sample.count < 3 ? i : (uint64_t)i * (f->frames - 1) / 2;
        uint64_t bytes = npk__pkg_frame_bytes(r, frame);
        sample.bytes[i] = (size_t)(bytes < most ? bytes : most);
        sample.data[i] = data + i * most;
        err = npk__packing_read(f, frame * r->frame, data + i * most, sample.bytes[i]);
    }
    if (!err) {
        err = npk__filter_choose(c, f->is_array ? &f->header : NULL, &sample, r, &f->level, &raw);
        if (err)
            err = npk__fail(err, "\"%s\": cannot be compressed: %s", f->found->path, strerror(-err));
    }
    free(data);
    /* Small ones stay in frames: an alignment would cost more than it gives. */
    if (!err && raw && r->data >= 16 * NPK__PKG_ALIGN) {
        r->layout = NPK__PKG_CONTIGUOUS;
        r->change = r->planes = 0;
        r->item = r->distance = 0;
    }
    return err;
}
