/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a package. The first byte says as what: 0, the package itself; 1, its index, for which header, footer and
 * every checksum are made to fit, so that what is behind them is reached; 2, a frame's payload under a filter that the
 * bytes behind the first choose. Whatever it is, nothing is read or written outside, and what is listed is consistent.
 */
#include "fuzz.h"

#include <string.h>
#include <xxhash.h>

#include "package.h"
#include "pkg_store.h"

static int one_name(void *ctx, const char *name, uint64_t start, uint64_t stop)
{
    (void)ctx;
    (void)start;
    (void)stop;
    MUST(strlen(name) < 256);
    return 0;
}

static void use(npk_package *p)
{
    static uint8_t out[70000];
    uint64_t count = npk_package_count(p);
    for (uint64_t i = 0; i < count; i++) {
        npk_entry e;
        npk_package_file *f = NULL;
        uint64_t at;
        npk_package_entry(p, i, &e);
        MUST(npk_package_find(p, e.path, e.path_bytes, &at) == 0 && at == i);
        MUST(npk_package_next(p, i) > i && npk_package_next(p, i) <= count);
        MUST(e.path_bytes > 0 && e.path[0] != '/' && memchr(e.path, 0, e.path_bytes) == NULL);
        (void)npk__package_each_name(e.names, e.names_bytes, one_name, NULL);
        if (e.kind != NPK_ENTRY_FILE || e.frames > 4096 || npk_package_file_open(p, i, &f) != 0)
            continue;
        for (uint64_t from = 0; from < 3; from++) {
            ssize_t n = npk_package_file_read(f, e.bytes / 3 * from, out, sizeof(out));
            MUST(n <= (ssize_t)sizeof(out));
        }
        npk_package_file_close(&f);
    }
}

static void open_bytes(const uint8_t *data, size_t size)
{
    npk_package *p = NULL;
    npk__source source = npk__source_memory(data, size);
    if (npk__package_open_source(&source, "fuzz", &p) != 0)
        return;
    use(p);
    npk_package_close(&p);
}

/* Give each record of an index the sum that fits; the sum of all `stored` numbers. */
static uint64_t fix_index(uint8_t *index, size_t bytes, uint64_t *count)
{
    uint64_t body = 0, stored;
    for (size_t at = 0; at + 76 <= bytes; (*count)++) {
        uint32_t n;
        memcpy(&stored, index + at, 8);
        memcpy(&n, index + at + 8, 4);
        if (n < 72 || n - 4 > bytes - at - 8 || stored > 65536)
            break;
        uint64_t sum = XXH64(index + at + 20, n - 16, 0);
        memcpy(index + at + 12, &sum, 8);
        body += stored;
        at += 8 + n - 4;
    }
    return body;
}

static void open_index(const uint8_t *data, size_t size)
{
    uint8_t *index = malloc(size + 1);
    uint64_t count = 0;
    MUST(index);
    memcpy(index, data, size);
    uint64_t body = fix_index(index, size, &count);
    if (body < 1u << 20) {
        size_t at = NPK__PKG_HEADER_BYTES + (size_t)body + NPK__PKG_END_BYTES, all = at + size + NPK__PKG_FOOTER_BYTES;
        uint8_t *package = calloc(1, all);
        MUST(package);
        npk__pkg_header h = {.mode = 0755};
        npk__pkg_header_put(package, &h);
        memcpy(package + at, index, size);
        npk__pkg_footer f = {at, size, size, count, XXH64(index, size, 0)};
        npk__pkg_footer_put(package + at + size, &f);
        open_bytes(package, all);
        free(package);
    }
    free(index);
}

static void decode(const uint8_t *data, size_t size)
{
    static const uint8_t items[] = {1, 2, 4, 8};
    if (size < 6)
        return;
    npk__pkg_record r = {.change = data[0] % 3, .planes = data[1] % 3, .item = items[data[2] % 4]};
    size_t bytes = data[3] | (size_t)data[4] << 8;
    r.distance = r.change == NPK__PKG_DELTA ? 1 + data[5] : 0;
    if (r.change == NPK__PKG_SAME && r.planes != NPK__PKG_WHOLE)
        r.item = 1 + data[2] % NPK__PKG_MAX_ITEM;
    r.data = r.frame = bytes;
    uint8_t *out = malloc(bytes + 1), *again = malloc(npk__frame_bound(&r, bytes) + 1), *payload = malloc(size - 6 + 1);
    npk__codec *c = npk__codec_new();
    size_t stored;
    MUST(out && again && payload && c);
    memcpy(payload, data + 6, size - 6);
    if (bytes > 0 && npk__frame_decode(c, &r, payload, size - 6, out, bytes) == 0) {
        MUST(npk__frame_encode(c, &r, 1, out, bytes, again, &stored) == 0);
        uint8_t *back = malloc(bytes);
        MUST(back && npk__frame_decode(c, &r, again, stored, back, bytes) == 0);
        MUST(memcmp(back, out, bytes) == 0);
        free(back);
    }
    npk__codec_free(c);
    free(out);
    free(again);
    free(payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] % 3 == 0)
        open_bytes(data + 1, size - 1);
    else if (data[0] % 3 == 1)
        open_index(data + 1, size - 1);
    else
        decode(data + 1, size - 1);
    return 0;
}
