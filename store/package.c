/* SPDX-License-Identifier: Apache-2.0 */
/* A package: opening it, its index, its entries. */
#define _GNU_SOURCE 1

#include "package.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "fail.h"
#include "io.h"
#include "path.h"
#include "pkg_filter.h"

#define FIRST_READ  (UINT64_C(64) << 10) /* from the end: the footer, and most indices whole */
#define FIRST_CACHE (UINT64_C(64) << 20)

/* ---- the index --------------------------------------------------------------------------------------------------- */

/* The last bytes of the package, enough for the footer and perhaps the index. */
struct tail {
    uint8_t *data;
    uint64_t offset, bytes;
};

static int read_at(const npk_package *p, void *out, uint64_t bytes, uint64_t offset)
{
    int err = p->source.read(&p->source, out, bytes, offset);
    return err ? npk__fail(err, "\"%s\": %" PRIu64 " bytes at %" PRIu64 " of the package cannot be read: %s", p->label,
                           bytes, offset, strerror(-err))
               : 0;
}

static int read_tail(npk_package *p, struct tail *t)
{
    uint64_t all = p->source.bytes;
    uint8_t header[NPK__PKG_HEADER_BYTES];
    uint64_t least = NPK__PKG_HEADER_BYTES + NPK__PKG_END_BYTES + NPK__PKG_FOOTER_BYTES;
    int err = read_at(p, header, all < sizeof(header) ? all : sizeof(header), 0);
    if (!err)
        err = npk__pkg_header_get(header, all < sizeof(header) ? all : sizeof(header), p->label, &p->header);
    if (!err && all < least)
        err = npk__fail(-EINVAL, "\"%s\": the package is cut short at %" PRIu64 " bytes; copy it again", p->label, all);
    if (err)
        return err;
    t->bytes = all < FIRST_READ ? all : FIRST_READ;
    t->offset = all - t->bytes;
    t->data = malloc(t->bytes);
    if (!t->data)
        return npk__fail(-ENOMEM, "out of memory");
    err = read_at(p, t->data, t->bytes, t->offset);
    return err ? err
               : npk__pkg_footer_get(t->data + t->bytes - NPK__PKG_FOOTER_BYTES, all, p->label, &p->footer);
}

static int damaged_index(const npk_package *p)
{
    return npk__fail(-EINVAL, "\"%s\": the package's index is damaged; its checksum does not fit", p->label);
}

static int read_index(npk_package *p, const struct tail *t)
{
    const npk__pkg_footer *f = &p->footer;
    uint8_t *stored = NULL;
    const uint8_t *from = t->data + (f->index - t->offset);
    int err = 0;
    if (f->index < t->offset) {
        stored = malloc(f->stored);
        if (!stored)
            return npk__fail(-ENOMEM, "out of memory: the index of \"%s\" has %" PRIu64 " bytes", p->label, f->stored);
        err = read_at(p, stored, f->stored, f->index);
        from = stored;
    }
    if (!err && XXH64(from, f->stored, 0) != f->hash)
        err = damaged_index(p);
    npk__codec *codec = err ? NULL : npk__codec_new();
    p->index = err ? NULL : malloc(f->raw + 1);
    if (!err && (!codec || !p->index))
        err = npk__fail(-ENOMEM, "out of memory: the index of \"%s\" has %" PRIu64 " bytes", p->label, f->raw);
    if (!err && npk__block_decode(codec, from, f->stored, p->index, f->raw) != 0)
        err = damaged_index(p);
    npk__codec_free(codec);
    free(stored);
    return err;
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

static uint64_t aligned(uint64_t offset)
{
    return (offset + NPK__PKG_ALIGN - 1) / NPK__PKG_ALIGN * NPK__PKG_ALIGN;
}

/* Can a record with this content, at this place, take `stored` bytes? */
static bool fits(const npk__pkg_record *r, uint64_t begin, uint64_t stored)
{
    if (r->layout == NPK__PKG_EMPTY)
        return stored == r->bytes;
    if (r->layout == NPK__PKG_CONTIGUOUS) {
        uint64_t at = aligned(begin + r->bytes);
        return stored >= at - begin + r->head + r->data + NPK__PKG_TABLE_BYTES + 1;
    }
    return stored >= (uint64_t)r->bytes + 4 + (npk__pkg_frames(r) > 1 ? NPK__PKG_TABLE_BYTES + 1 : 0);
}

static bool is_below(const npk__pkg_record *r, const npk__pkg_record *dir)
{
    return r->path_bytes > dir->path_bytes && r->path[dir->path_bytes] == '/' &&
           memcmp(r->path, dir->path, dir->path_bytes) == 0;
}

/* The directory that holds r must be the deepest one that is open: entries follow their directory. */
static bool has_parent(npk__pkg_record *open, size_t *depth, const npk__pkg_record *r)
{
    while (*depth > 0 && !is_below(r, &open[*depth - 1]))
        (*depth)--;
    size_t above = *depth > 0 ? open[*depth - 1].path_bytes + 1 : 0;
    return memchr(r->path + above, '/', r->path_bytes - above) == NULL;
}

static int wrong_entry(const npk_package *p, const npk__pkg_record *r, const char *why)
{
    return npk__fail(-EINVAL, "\"%s\": refused since its entry \"%.*s\" %s", p->label,
                     (int)(r->path_bytes < 256 ? r->path_bytes : 256), r->path, why);
}

static int check_order(const npk_package *p, const npk__pkg_record *before, const npk__pkg_record *r)
{
    if (!before->path)
        return 0;
    int order = npk__pkg_order(before->path, before->path_bytes, r->path, r->path_bytes);
    return order == 0 ? wrong_entry(p, r, "comes twice") : order > 0 ? wrong_entry(p, r, "is out of order") : 0;
}

static int take_entry(npk_package *p, uint64_t i, uint64_t *at, npk__pkg_record *out)
{
    uint64_t stored, left = p->footer.raw - *at;
    if (left < 8)
        return npk__fail(-EINVAL, "\"%s\": the package's index ends within an entry", p->label);
    memcpy(&stored, p->index + *at, 8);
    p->entry[i] = (uint32_t)(*at + 8);
    int err = npk__pkg_entry_get(p->index + *at + 8, left - 8, p->label, out);
    if (err)
        return err;
    *at += 8 + out->bytes - 4;
    uint64_t end = p->footer.index - NPK__PKG_END_BYTES;
    if (stored > end - p->begin[i] || !fits(out, p->begin[i], stored))
        return wrong_entry(p, out, "has a place in the package that cannot be");
    p->begin[i + 1] = p->begin[i] + stored;
    return 0;
}

static int parse_index(npk_package *p)
{
    uint64_t count = p->footer.count, at = 0;
    p->entry = malloc((count + 1) * sizeof(*p->entry));
    p->begin = malloc((count + 1) * sizeof(*p->begin));
    npk__pkg_record *open = malloc(NPK__PATH_BYTES / 2 * sizeof(*open)); /* so deep can a path be */
    int err = p->entry && p->begin && open ? 0 : npk__fail(-ENOMEM, "out of memory");
    npk__pkg_record r = {0}, before;
    size_t depth = 0;
    if (!err)
        p->begin[0] = NPK__PKG_HEADER_BYTES;
    for (uint64_t i = 0; i < count && !err; i++) {
        before = r;
        err = take_entry(p, i, &at, &r);
        if (!err)
            err = check_order(p, &before, &r);
        if (!err && !has_parent(open, &depth, &r))
            err = wrong_entry(p, &r, "lies in a directory that the package does not have");
        if (!err && r.kind == NPK__PKG_DIRECTORY)
            open[depth++] = r;
    }
    free(open);
    if (!err && (at != p->footer.raw || p->begin[count] != p->footer.index - NPK__PKG_END_BYTES))
        err = npk__fail(-EINVAL, "\"%s\": the package's index does not speak of all of its bytes", p->label);
    p->count = err ? 0 : count;
    return err;
}

npk__pkg_record npk__package_record(const npk_package *p, uint64_t i)
{
    /* It was proved when the package was opened; only its parts are taken out again. */
    npk__pkg_record r = {0};
    (void)npk__pkg_entry_get(p->index + p->entry[i], p->footer.raw - p->entry[i], p->label, &r);
    return r;
}

uint64_t npk__package_contiguous(const npk_package *p, uint64_t i)
{
    npk__pkg_record r = npk__package_record(p, i);
    return aligned(p->begin[i] + r.bytes);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

bool npk_package_magic(const void *bytes, size_t count)
{
    return count >= 8 && memcmp(bytes, "\x93NPKPKG\n", 8) == 0;
}

int npk__package_open_source(npk__source *source, const char *label, npk_package **out)
{
    npk_package *p = calloc(1, sizeof(*p));
    struct tail tail = {0};
    int err = 0;
    if (!p || !(p->label = strdup(label)) || !(p->cache = npk__cache_new(FIRST_CACHE)))
        err = npk__fail(-ENOMEM, "out of memory");
    if (p) {
        pthread_mutex_init(&p->mutex, NULL);
        p->source = *source;
    } else if (source->close) {
        source->close(source);
    }
    if (!err)
        err = read_tail(p, &tail);
    if (!err)
        err = read_index(p, &tail);
    if (!err)
        err = parse_index(p);
    free(tail.data);
    if (err)
        npk_package_close(&p);
    else
        *out = p;
    return err;
}

npk_err npk_package_open(const char *path, npk_package **out)
{
    npk__source source;
    int fd = npk__openat(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return npk__fail_errno(fd, path);
    int err = npk__source_file(fd, path, &source);
    return err ? err : npk__package_open_source(&source, path, out);
}

npk_err npk_package_open_fd(int fd, npk_package **out)
{
    npk__source source;
    int copy = npk__dup(fd);
    if (copy < 0)
        return npk__fail_errno(copy, "package");
    int err = npk__source_file(copy, "package", &source);
    return err ? err : npk__package_open_source(&source, "package", out);
}

void npk_package_close(npk_package **package)
{
    if (!package || !*package)
        return;
    npk_package *p = *package;
    for (npk__reader *r = p->readers, *next; r; r = next) {
        next = r->next;
        npk__codec_free(r->codec);
        free(r->payload);
        free(r);
    }
    npk__cache_free(p->cache);
    for (size_t i = 0; i < sizeof(p->proofs) / sizeof(p->proofs[0]); i++) {
        for (npk__proof *proof = p->proofs[i], *next; proof; proof = next) {
            next = proof->next;
            free(proof);
        }
    }
    if (p->map)
        munmap((void *)(uintptr_t)p->map, p->source.bytes);
    if (p->source.close)
        p->source.close(&p->source);
    pthread_mutex_destroy(&p->mutex);
    free(p->index);
    free(p->entry);
    free(p->begin);
    free(p->label);
    free(p);
    *package = NULL;
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

uint64_t npk_package_count(const npk_package *p)
{
    return p->count;
}

uint64_t npk_package_bytes(const npk_package *p)
{
    return p->source.bytes;
}

int npk_package_fd(const npk_package *p)
{
    return p->source.fd;
}

unsigned npk_package_zstd(const npk_package *p)
{
    return p->header.zstd;
}

void npk_package_root(const npk_package *p, npk_entry *out)
{
    *out = (npk_entry){.kind = NPK_ENTRY_DIRECTORY, .mode = p->header.mode, .mtime_ns = p->header.mtime_ns, .path = ""};
}

void npk_package_entry(const npk_package *p, uint64_t i, npk_entry *out)
{
    npk__pkg_record r = npk__package_record(p, i);
    *out = (npk_entry){
        .kind = (npk_entry_kind)r.kind,
        .mode = r.mode,
        .mtime_ns = r.mtime_ns,
        .path = r.path,
        .path_bytes = r.path_bytes,
        .stored_bytes = p->begin[i + 1] - p->begin[i],
        .filter = npk__filter_name(&r),
    };
    if (r.kind == NPK__PKG_LINK) {
        out->target = r.stored;
        out->target_bytes = r.text;
    } else if (r.kind == NPK__PKG_FILE) {
        out->bytes = r.head + r.data;
        out->names = r.names;
        out->names_bytes = r.names_bytes;
        out->frame_bytes = r.frame;
        out->frames = npk__pkg_frames(&r);
        out->contiguous = r.layout == NPK__PKG_CONTIGUOUS;
        if (out->contiguous)
            out->contiguous_at = aligned(p->begin[i] + r.bytes);
    }
}

/* The path of an entry alone: what a search compares. */
static const char *path_of(const npk_package *p, uint64_t i, uint32_t *bytes)
{
    const uint8_t *e = p->index + p->entry[i];
    memcpy(bytes, e + 28, 4);
    return (const char *)e + 68;
}

/* The first entry that is not before the path. */
static uint64_t lower_bound(const npk_package *p, const char *path, size_t path_bytes)
{
    uint64_t low = 0, high = p->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        uint32_t bytes;
        const char *at = path_of(p, middle, &bytes);
        if (npk__pkg_order(at, bytes, path, path_bytes) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

npk_err npk_package_find(const npk_package *p, const char *path, size_t path_bytes, uint64_t *i)
{
    uint64_t at = lower_bound(p, path, path_bytes);
    uint32_t bytes;
    if (at == p->count)
        return -ENOENT;
    const char *found = path_of(p, at, &bytes);
    if (bytes != path_bytes || memcmp(found, path, bytes) != 0)
        return -ENOENT;
    *i = at;
    return 0;
}

uint64_t npk_package_next(const npk_package *p, uint64_t i)
{
    uint32_t bytes, other;
    const char *path = path_of(p, i, &bytes);
    uint64_t low = i + 1, high = p->count;
    if (p->index[p->entry[i] + 12] != NPK__PKG_DIRECTORY)
        return low;
    /* Most directories are small: look near by first. */
    for (uint64_t step = 8; low + step < high; step *= 2) {
        const char *at = path_of(p, low + step, &other);
        if (other <= bytes || memcmp(at, path, bytes) != 0 || at[bytes] != '/') {
            high = low + step;
            break;
        }
    }
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        const char *at = path_of(p, middle, &other);
        if (other > bytes && at[bytes] == '/' && memcmp(at, path, bytes) == 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void npk_package_set_cache(npk_package *p, uint64_t bytes)
{
    npk__cache_set_cap(p->cache, bytes);
}

void npk_package_cache(npk_package *p, uint64_t *bytes, uint64_t *hits, uint64_t *misses)
{
    npk__cache_facts(p->cache, bytes, hits, misses);
}
