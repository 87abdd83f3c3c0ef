/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "pkg_format.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

#include "fail.h"
#include "npk.h"
#include "path.h"

static const char header_magic[8] = "\x93NPKPKG\n";
static const char footer_magic[8] = "\x93NPKEND\n";
static const char record_magic[4] = "NPKR";
static const char end_magic[4] = "NPKE";

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packages are read and written on little-endian machines"
#endif

static void put32(uint8_t *at, uint32_t x)
{
    memcpy(at, &x, sizeof(x));
}

static void put64(uint8_t *at, uint64_t x)
{
    memcpy(at, &x, sizeof(x));
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t x;
    memcpy(&x, at, sizeof(x));
    return x;
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t x;
    memcpy(&x, at, sizeof(x));
    return x;
}

/* ---- header, end, footer ----------------------------------------------------------------------------------------- */

void npk__pkg_header_put(uint8_t out[NPK__PKG_HEADER_BYTES], const npk__pkg_header *h)
{
    memcpy(out, header_magic, 8);
    put32(out + 8, NPK__PKG_VERSION);
    put32(out + 12, h->zstd);
    put32(out + 16, h->mode);
    put32(out + 20, 0);
    put64(out + 24, (uint64_t)h->mtime_ns);
    put64(out + 32, XXH64(out, 32, 0));
}

int npk__pkg_header_get(const uint8_t *in, size_t bytes, const char *what, npk__pkg_header *out)
{
    if (bytes >= 4 && memcmp(in, "NPKG", 4) == 0)
        return npk__fail(-EINVAL, "\"%s\": a package of NumPack, which has another format; one that npk pack made is "
                                  "accepted", what);
    if (bytes < NPK__PKG_HEADER_BYTES || memcmp(in, header_magic, 8) != 0)
        return npk__fail(-EINVAL, "\"%s\": not a package; one that npk pack made is accepted", what);
    uint32_t version = get32(in + 8);
    if (version != NPK__PKG_VERSION)
        return npk__fail(-ENOTSUP, "\"%s\": a package of version %" PRIu32 "; this program knows version %d", what,
                         version, NPK__PKG_VERSION);
    if (get64(in + 32) != XXH64(in, 32, 0))
        return npk__fail(-EINVAL, "\"%s\": the package's header is damaged; its checksum does not fit", what);
    if (get32(in + 20) != 0)
        return npk__fail(-ENOTSUP, "\"%s\": the package has features (0x%" PRIx32 ") that this program does not know",
                         what, get32(in + 20));
    *out = (npk__pkg_header){.zstd = get32(in + 12), .mode = get32(in + 16), .mtime_ns = (int64_t)get64(in + 24)};
    if (out->mode > 07777)
        return npk__fail(-EINVAL, "\"%s\": the package's header is damaged; its root has no such mode", what);
    return 0;
}

void npk__pkg_end_put(uint8_t out[NPK__PKG_END_BYTES], uint64_t chain)
{
    memcpy(out, end_magic, 4);
    put32(out + 4, NPK__PKG_END_BYTES);
    put64(out + 8, chain);
}

bool npk__pkg_is_end(const uint8_t *in)
{
    return memcmp(in, end_magic, 4) == 0;
}

uint64_t npk__pkg_chain(uint64_t chain, uint64_t record_hash)
{
    return XXH64(&record_hash, sizeof(record_hash), chain);
}

void npk__pkg_footer_put(uint8_t out[NPK__PKG_FOOTER_BYTES], const npk__pkg_footer *f)
{
    memcpy(out, footer_magic, 8);
    put64(out + 8, f->index);
    put64(out + 16, f->stored);
    put64(out + 24, f->raw);
    put64(out + 32, f->count);
    put64(out + 40, f->hash);
    put64(out + 48, XXH64(out, 48, 0));
}

int npk__pkg_footer_get(const uint8_t *in, uint64_t package_bytes, const char *what, npk__pkg_footer *out)
{
    if (memcmp(in, footer_magic, 8) != 0)
        return npk__fail(-EINVAL, "\"%s\": the package is cut short or goes on behind its end; copy it again", what);
    if (get64(in + 48) != XXH64(in, 48, 0))
        return npk__fail(-EINVAL, "\"%s\": the package's last bytes are damaged; their checksum does not fit", what);
    npk__pkg_footer f = {get64(in + 8), get64(in + 16), get64(in + 24), get64(in + 32), get64(in + 40)};
    uint64_t body = package_bytes - NPK__PKG_FOOTER_BYTES; /* the caller knows that it is not less */
    if (f.index < NPK__PKG_HEADER_BYTES + NPK__PKG_END_BYTES || f.index > body || f.stored != body - f.index)
        return npk__fail(-EINVAL, "\"%s\": the package has %" PRIu64 " bytes and was made with another number of them; "
                                  "copy it again", what, package_bytes);
    /* An entry has at least 8 bytes that do not repeat (its hash), so no honest index becomes so much larger. */
    if (f.raw > NPK__PKG_MAX_INDEX || f.raw < f.stored || f.raw / 256 > f.stored || f.count > f.raw / 76)
        return npk__fail(-EINVAL, "\"%s\": the package's index claims %" PRIu64 " entries in %" PRIu64 " bytes, which "
                                  "cannot be", what, f.count, f.raw);
    *out = f;
    return 0;
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

size_t npk__pkg_record_size(const npk__pkg_record *r)
{
    return (size_t)NPK__PKG_RECORD_BYTES + r->path_bytes + r->text + r->names_bytes;
}

void npk__pkg_record_put(uint8_t *out, npk__pkg_record *r)
{
    r->bytes = (uint32_t)npk__pkg_record_size(r);
    memcpy(out, record_magic, 4);
    put32(out + 4, r->bytes);
    out[16] = r->kind;
    out[17] = r->layout;
    out[18] = r->change;
    out[19] = r->planes;
    put32(out + 20, r->mode);
    put64(out + 24, (uint64_t)r->mtime_ns);
    put32(out + 32, r->path_bytes);
    put32(out + 36, r->head);
    put32(out + 40, r->text);
    put32(out + 44, r->item);
    put64(out + 48, r->data);
    put64(out + 56, r->frame);
    put32(out + 64, r->distance);
    put32(out + 68, r->names_bytes);
    memcpy(out + NPK__PKG_RECORD_BYTES, r->path, r->path_bytes);
    if (r->text > 0)
        memcpy(out + NPK__PKG_RECORD_BYTES + r->path_bytes, r->stored, r->text);
    if (r->names_bytes > 0)
        memcpy(out + NPK__PKG_RECORD_BYTES + r->path_bytes + r->text, r->names, r->names_bytes);
    r->hash = XXH64(out + 16, r->bytes - 16, 0);
    put64(out + 8, r->hash);
}

static bool is_filter(const npk__pkg_record *r)
{
    bool number = r->item == 1 || r->item == 2 || r->item == 4 || r->item == 8;
    if (r->change > NPK__PKG_TURN || r->planes > NPK__PKG_BITS)
        return false;
    if ((r->change != NPK__PKG_SAME && !number) || (r->change == NPK__PKG_DELTA) != (r->distance != 0))
        return false;
    return r->planes == NPK__PKG_WHOLE ? r->change != NPK__PKG_SAME || r->item == 0
                                       : r->item >= 1 && r->item <= NPK__PKG_MAX_ITEM;
}

static bool is_file(const npk__pkg_record *r)
{
    if (r->text > r->head || r->head > (1u << 20) || r->data > (uint64_t)INT64_MAX - r->head)
        return false;
    if (r->text < r->head && (r->text == 0 || r->head - r->text < 1))
        return false;
    if (r->layout == NPK__PKG_EMPTY)
        return r->data == 0 && r->frame == 0 && r->change == 0 && r->planes == 0 && r->item == 0 && r->distance == 0;
    if (r->data == 0 || r->frame == 0 || r->frame > NPK__PKG_MAX_FRAME || npk__pkg_frames(r) > NPK__PKG_MAX_FRAMES)
        return false;
    if (r->layout == NPK__PKG_CONTIGUOUS)
        return r->change == 0 && r->planes == 0 && r->item == 0 && r->distance == 0;
    return r->layout == NPK__PKG_FRAMES && is_filter(r);
}

static bool is_consistent(const npk__pkg_record *r)
{
    if (r->names_bytes > (r->kind == NPK__PKG_FILE && r->head > 0 ? NPK__PKG_MAX_NAMES : 0))
        return false;
    if (r->kind == NPK__PKG_FILE)
        return is_file(r);
    if (r->layout || r->change || r->planes || r->item || r->distance || r->data || r->frame)
        return false;
    if (r->kind == NPK__PKG_DIRECTORY)
        return r->head == 0 && r->text == 0;
    return r->kind == NPK__PKG_LINK && r->head == r->text && r->text > 0 && r->text < 4096;
}

static int check_path(const npk__pkg_record *r, const char *what)
{
    char path[NPK__PATH_BYTES];
    if (r->path_bytes == 0 || r->path_bytes >= sizeof(path) || memchr(r->path, '\0', r->path_bytes))
        return npk__fail(-EINVAL, "\"%s\": the package has a name of %" PRIu32 " bytes, or with a NUL, which no file "
                                  "can have", what, r->path_bytes);
    memcpy(path, r->path, r->path_bytes);
    path[r->path_bytes] = '\0';
    if (npk__path_check(path) != 0)
        return npk__fail(-EINVAL, "\"%s\": refused since it holds %s", what, npk_error());
    if (r->kind == NPK__PKG_LINK && !npk__pkg_link_stays(r->path, r->path_bytes, r->stored, r->text))
        return npk__fail(-EINVAL, "\"%s\": refused since its link \"%s\" leads outside the package", what, path);
    return 0;
}

int npk__pkg_entry_get(const uint8_t *in, size_t bytes, const char *what, npk__pkg_record *out)
{
    /* `in` begins behind the magic: offsets are those of the record less 4. */
    uint32_t size = bytes >= 4 ? get32(in) : 0;
    if (size < NPK__PKG_RECORD_BYTES || size > NPK__PKG_MAX_RECORD || size - 4 > bytes)
        return npk__fail(-EINVAL, "\"%s\": the package has a record of %" PRIu32 " bytes where %zu are left", what,
                         size, bytes);
    npk__pkg_record r = {
        .bytes = size,
        .hash = get64(in + 4),
        .kind = in[12],
        .layout = in[13],
        .change = in[14],
        .planes = in[15],
        .mode = get32(in + 16),
        .mtime_ns = (int64_t)get64(in + 20),
        .path_bytes = get32(in + 28),
        .head = get32(in + 32),
        .text = get32(in + 36),
        .item = get32(in + 40),
        .data = get64(in + 44),
        .frame = get64(in + 52),
        .distance = get32(in + 60),
        .names_bytes = get32(in + 64),
    };
    if (r.hash != XXH64(in + 12, size - 16, 0))
        return npk__fail(-EINVAL, "\"%s\": a record of the package is damaged; its checksum does not fit", what);
    if ((uint64_t)NPK__PKG_RECORD_BYTES + r.path_bytes + r.text + r.names_bytes != size || r.mode > 07777)
        return npk__fail(-EINVAL, "\"%s\": a record of the package contradicts itself", what);
    r.path = (const char *)in + 68;
    r.stored = r.path + r.path_bytes;
    r.names = r.stored + r.text;
    if (!is_consistent(&r))
        return npk__fail(-EINVAL, "\"%s\": the package's record of \"%.*s\" contradicts itself", what,
                         (int)(r.path_bytes < 256 ? r.path_bytes : 256), r.path);
    int err = check_path(&r, what);
    if (!err)
        *out = r;
    return err;
}

int npk__pkg_record_get(const uint8_t *in, size_t bytes, const char *what, npk__pkg_record *out)
{
    if (bytes < NPK__PKG_RECORD_BYTES || memcmp(in, record_magic, 4) != 0)
        return npk__fail(-EINVAL, "\"%s\": the package is damaged: no record where one should begin", what);
    return npk__pkg_entry_get(in + 4, bytes - 4, what, out);
}

/* ---- heads ------------------------------------------------------------------------------------------------------- */

void npk__pkg_head(const npk__pkg_record *r, uint8_t *out)
{
    memcpy(out, r->stored, r->text);
    if (r->text == r->head)
        return;
    memset(out + r->text, ' ', r->head - r->text);
    out[r->head - 1] = '\n';
}

uint32_t npk__pkg_head_text(const uint8_t *head, uint32_t bytes)
{
    uint32_t text = bytes;
    if (bytes == 0 || head[bytes - 1] != '\n')
        return bytes;
    text--;
    while (text > 1 && head[text - 1] == ' ')
        text--;
    return text;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

int npk__pkg_order(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    size_t common = a_bytes < b_bytes ? a_bytes : b_bytes, i = 0;
    while (i < common && a[i] == b[i])
        i++;
    if (i == common)
        return a_bytes < b_bytes ? -1 : a_bytes > b_bytes;
    if (a[i] == '/' || b[i] == '/')
        return a[i] == '/' ? -1 : 1;
    return (unsigned char)a[i] < (unsigned char)b[i] ? -1 : 1;
}

bool npk__pkg_link_stays(const char *path, size_t path_bytes, const char *target, size_t target_bytes)
{
    size_t depth = 0;
    for (size_t i = 0; i < path_bytes; i++)
        depth += path[i] == '/';
    if (target_bytes == 0 || target_bytes >= 4096 || target[0] == '/' || memchr(target, '\0', target_bytes))
        return false;
    bool down = false;
    for (size_t at = 0; at < target_bytes;) {
        const char *slash = memchr(target + at, '/', target_bytes - at);
        size_t n = slash ? (size_t)(slash - target) - at : target_bytes - at;
        if (n == 2 && memcmp(target + at, "..", 2) == 0) {
            if (down || depth == 0)
                return false;
            depth--;
        } else if (n > 1 || (n == 1 && target[at] != '.')) {
            down = true;
        }
        at += n + 1;
    }
    return true;
}
