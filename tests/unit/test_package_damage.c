/* SPDX-License-Identifier: Apache-2.0 */
/* Packages that were cut, damaged, or made to do harm. */
#include <xxhash.h>

#include "packages.h"
#include "pkg_frame.h"

static blob whole, contents;

static void set_up(void)
{
    place p = place_begin();
    char path[300];
    snprintf(path, sizeof(path), "%s.npkg", p.path);
    packages_fill(&p);
    npk_pack_options o = {.frame_bytes = 4096};
    NEED(npk_pack(p.store, path, &o) == 0);
    whole = blob_read(path);
    NEED(packages_read(whole.data, whole.bytes, &contents) == 0);
    unlink(path);
    place_end(&p);
}

static npk__pkg_footer footer_of(const blob *b)
{
    npk__pkg_footer f;
    NEED(npk__pkg_footer_get(b->data + b->bytes - NPK__PKG_FOOTER_BYTES, b->bytes, "test", &f) == 0);
    return f;
}

static void cut_anywhere(void)
{
    size_t opened = 0;
    for (size_t n = 0; n < whole.bytes; n++) {
        blob got;
        uint8_t *copy = malloc(n + 1); /* its exact size, for a sanitizer */
        NEED(copy);
        memcpy(copy, whole.data, n);
        opened += packages_read(copy, n, &got) == 0;
        free(got.data);
        free(copy);
    }
    CHECK_EQ(opened, 0);
    blob longer = {malloc(whole.bytes + 1), whole.bytes + 1}, got;
    NEED(longer.data);
    memcpy(longer.data, whole.data, whole.bytes);
    longer.data[whole.bytes] = 0;
    CHECK(packages_read(longer.data, longer.bytes, &got) != 0);
    free(got.data);
    free(longer.data);
}

static void flip(size_t bit)
{
    whole.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
}

/* Every bit of header, end, index and footer. Those of the end are not read by whoever has the index. */
static void bits_of_the_index(void)
{
    npk__pkg_footer f = footer_of(&whole);
    size_t opened = 0;
    for (size_t bit = 0; bit < 8 * whole.bytes; bit++) {
        if (bit == 8 * NPK__PKG_HEADER_BYTES)
            bit = 8 * f.index;
        blob got;
        flip(bit);
        opened += packages_read(whole.data, whole.bytes, &got) == 0;
        flip(bit);
        free(got.data);
    }
    CHECK_EQ(opened, 0);
}

/* Some bits of everything else: what can be read is right, and the check finds each one. */
static int found(void *ctx, const npk_finding *f)
{
    (void)f;
    ++*(int *)ctx;
    return 0;
}

static void bits_elsewhere(void)
{
    npk__pkg_footer f = footer_of(&whole);
    size_t wrong = 0, missed = 0, refused = 0;
    char path[] = "/tmp/npk-unit-damage-XXXXXX";
    int fd = mkstemp(path);
    NEED(fd >= 0);
    for (size_t bit = 8 * NPK__PKG_HEADER_BYTES; bit < 8 * f.index; bit += 8 * 97 + 3) {
        blob got;
        flip(bit);
        int err = packages_read(whole.data, whole.bytes, &got);
        refused += err != 0;
        wrong += err == 0 && !blob_same(&got, &contents);
        free(got.data);
        if (bit % 5 == 0) {
            int n = 0;
            NEED(pwrite(fd, whole.data, whole.bytes, 0) == (ssize_t)whole.bytes);
            missed += npk_package_check(path, 1, found, &n, NULL, NULL) != 0 || n == 0;
        }
        flip(bit);
    }
    close(fd);
    unlink(path);
    CHECK_EQ(wrong, 0);
    CHECK_EQ(missed, 0);
    CHECK(refused > 100);
}

/* One damaged frame: its rows fail, every other row reads right. */
static void one_frame(void)
{
    npk_package *p = NULL;
    npk_package_file *f = NULL;
    uint64_t i;
    npk__source source = npk__source_memory(whole.data, whole.bytes);
    NEED(npk__package_open_source(&source, "test", &p) == 0);
    NEED(npk_package_find(p, "floats.npy", 10, &i) == 0 && npk_package_file_open(p, i, &f) == 0);
    CHECK(f->frames >= 4);
    uint64_t at = f->at[2] + 5;
    static uint8_t a[5000], b[5000];
    CHECK_EQ(npk_package_file_read(f, 128, a, 4096), 4096);
    whole.data[at] ^= 1;
    CHECK_EQ(npk_package_file_read(f, 128 + 2 * 4096 + 100, b, 10), -EIO);
    CHECK_HAS(npk_error(), "rows 256 to 383");
    CHECK_EQ(npk_package_file_read(f, 128 + 2 * 4096 + 100, b, 10), -EIO);
    CHECK_EQ(npk_package_file_read(f, 128 + 3 * 4096, b, 1000), 1000);
    CHECK_EQ(npk_package_file_read(f, 128, b, 4096), 4096);
    CHECK(memcmp(a, b, 4096) == 0);
    whole.data[at] ^= 1;
    CHECK_EQ(npk_package_file_read(f, 128 + 2 * 4096 + 100, b, 10), 10); /* a failure is not kept */
    npk_package_file_close(&f);
    npk_package_close(&p);
}

/* ---- made to do harm: every checksum fits ------------------------------------------------------------------------- */

typedef struct forged {
    uint8_t index[65536];
    size_t bytes;
    uint64_t count, body;
} forged;

/* Add an entry that claims `stored` bytes. */
static void forge(forged *f, npk__pkg_record r, const char *path, const char *text, uint64_t stored)
{
    uint8_t record[8192];
    r.path = path;
    if (r.path_bytes == 0)
        r.path_bytes = (uint32_t)strlen(path);
    r.stored = text ? text : "";
    r.text = text && r.text == 0 ? (uint32_t)strlen(text) : r.text;
    if (r.kind == NPK__PKG_LINK)
        r.head = r.text;
    npk__pkg_record_put(record, &r);
    memcpy(f->index + f->bytes, &stored, 8);
    memcpy(f->index + f->bytes + 8, record + 4, r.bytes - 4);
    f->bytes += 8 + r.bytes - 4;
    f->body += stored;
    f->count++;
}

static int open_forged(const forged *f)
{
    size_t body = NPK__PKG_HEADER_BYTES + f->body + NPK__PKG_END_BYTES;
    size_t all = body + f->bytes + NPK__PKG_FOOTER_BYTES;
    uint8_t *data = calloc(1, all);
    NEED(data);
    npk__pkg_header h = {.mode = 0755};
    npk__pkg_header_put(data, &h);
    memcpy(data + body, f->index, f->bytes);
    npk__pkg_footer foot = {body, f->bytes, f->bytes, f->count, XXH64(f->index, f->bytes, 0)};
    npk__pkg_footer_put(data + body + f->bytes, &foot);
    npk_package *p = NULL;
    npk__source source = npk__source_memory(data, all);
    int err = npk__package_open_source(&source, "forged", &p);
    npk_package_close(&p);
    free(data);
    return err;
}

static const npk__pkg_record a_dir = {.kind = NPK__PKG_DIRECTORY, .mode = 0755};
static const npk__pkg_record a_link = {.kind = NPK__PKG_LINK, .mode = 0777};
static const npk__pkg_record a_file = {.kind = NPK__PKG_FILE, .mode = 0644};

static int with_path(const char *path, size_t bytes)
{
    forged f = {0};
    npk__pkg_record r = a_file;
    r.path_bytes = (uint32_t)bytes;
    forge(&f, r, path, NULL, NPK__PKG_RECORD_BYTES + bytes);
    return open_forged(&f);
}

static void forged_names(void)
{
    static char many[5000];
    memset(many, 'x', sizeof(many));
    CHECK_EQ(with_path("good", 4), 0); /* the forger's tools work */
    CHECK_EQ(with_path("..", 2), -EINVAL);
    CHECK_EQ(with_path("/etc", 4), -EINVAL);
    CHECK_EQ(with_path("a/", 2), -EINVAL);
    CHECK_EQ(with_path("a/../../b", 9), -EINVAL);
    CHECK_EQ(with_path("a\0b", 3), -EINVAL);
    CHECK_EQ(with_path(".npkfs", 6), -EINVAL);
    CHECK_EQ(with_path(".npk", 4), -EINVAL);
    CHECK_EQ(with_path(many, 256), -EINVAL);
    CHECK_EQ(with_path(many, 4096), -EINVAL);
    CHECK_EQ(with_path("a/b", 3), -EINVAL); /* without its directory */
    forged twice = {0};
    forge(&twice, a_file, "a", NULL, 73);
    forge(&twice, a_file, "a", NULL, 73);
    CHECK_EQ(open_forged(&twice), -EINVAL);
    CHECK_HAS(npk_error(), "twice");
    forged order = {0};
    forge(&order, a_file, "b", NULL, 73);
    forge(&order, a_file, "a", NULL, 73);
    CHECK_EQ(open_forged(&order), -EINVAL);
    forged below_file = {0};
    forge(&below_file, a_file, "a", NULL, 73);
    forge(&below_file, a_file, "a/b", NULL, 75);
    CHECK_EQ(open_forged(&below_file), -EINVAL);
    forged below_dir = {0};
    forge(&below_dir, a_dir, "a", NULL, 73);
    forge(&below_dir, a_file, "a/b", NULL, 75);
    forge(&below_dir, a_file, "a.b", NULL, 75);
    CHECK_EQ(open_forged(&below_dir), 0);
}

static int with_link(const char *target)
{
    forged f = {0};
    forge(&f, a_dir, "d", NULL, 73);
    forge(&f, a_link, "d/l", target, NPK__PKG_RECORD_BYTES + 3 + strlen(target));
    return open_forged(&f);
}

static void forged_links(void)
{
    CHECK_EQ(with_link("x"), 0);
    CHECK_EQ(with_link("../x"), 0);
    CHECK_EQ(with_link("./x/y"), 0);
    CHECK_EQ(with_link("../../x"), -EINVAL);
    CHECK_EQ(with_link("/etc/passwd"), -EINVAL);
    CHECK_EQ(with_link("x/../../.."), -EINVAL);
    CHECK_EQ(with_link("x/.."), -EINVAL);
    CHECK_EQ(with_link(""), -EINVAL);
}

static int with_file(uint32_t head, uint64_t data, uint64_t frame, uint8_t layout, uint64_t stored)
{
    forged f = {0};
    npk__pkg_record r = a_file;
    r.head = head;
    r.data = data;
    r.frame = frame;
    r.layout = layout;
    char *text = calloc(1, head + 1);
    NEED(text);
    memset(text, 'h', head);
    r.text = head;
    forge(&f, r, "x", text, stored + NPK__PKG_RECORD_BYTES + 1 + head);
    free(text);
    return open_forged(&f);
}

static void forged_sizes(void)
{
    CHECK_EQ(with_file(0, 100, 100, NPK__PKG_FRAMES, 20), 0);
    CHECK_EQ(with_file(0, 100, 0, NPK__PKG_FRAMES, 20), -EINVAL);
    CHECK_EQ(with_file(0, UINT64_MAX, 100, NPK__PKG_FRAMES, 20), -EINVAL);
    CHECK_EQ(with_file(0, INT64_MAX, 1 << 20, NPK__PKG_FRAMES, 20), -EINVAL); /* too many frames */
    CHECK_EQ(with_file(0, 100, UINT64_C(1) << 40, NPK__PKG_FRAMES, 20), -EINVAL);
    CHECK_EQ(with_file(0, 100, 100, NPK__PKG_FRAMES, 3), -EINVAL);
    CHECK_EQ(with_file(0, 0, 0, NPK__PKG_EMPTY, 0), 0);
    CHECK_EQ(with_file(0, 0, 0, NPK__PKG_EMPTY, 1), -EINVAL);
    CHECK_EQ(with_file(0, 5, 0, NPK__PKG_EMPTY, 0), -EINVAL);
    CHECK_EQ(with_file(0, 100, 100, NPK__PKG_CONTIGUOUS, 50), -EINVAL);
    CHECK_EQ(with_file(0, 100, 100, 3, 20), -EINVAL);
    forged overlapping = {0};
    npk__pkg_record r = a_file;
    forge(&overlapping, r, "a", NULL, UINT64_MAX - 10);
    overlapping.body = 200;
    CHECK_EQ(open_forged(&overlapping), -EINVAL);
    forged counted = {0};
    forge(&counted, a_file, "a", NULL, 73);
    counted.count = 1u << 30;
    CHECK_EQ(open_forged(&counted), -EINVAL);
    counted.count = 0;
    CHECK_EQ(open_forged(&counted), -EINVAL);
}

/* A payload that lies about its streams never writes beyond its frame. */
static void forged_payloads(void)
{
    npk__codec *c = npk__codec_new();
    npk__pkg_record r = {.planes = NPK__PKG_BYTES, .item = 4, .data = 4000, .frame = 4000};
    static uint8_t data[4000], payload[4100], out[4000];
    size_t stored = 0, accepted = 0;
    NEED(c);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * i >> 3);
    NEED(npk__frame_encode(c, &r, 1, data, sizeof(data), payload, &stored) == 0);
    CHECK_EQ(npk__frame_decode(c, &r, payload, stored, out, sizeof(out)), 0);
    CHECK(memcmp(data, out, sizeof(out)) == 0);
    for (size_t n = 1; n < stored; n++)
        accepted += npk__frame_decode(c, &r, payload, n, out, sizeof(out)) == 0;
    for (size_t bit = 0; bit < 8 * 16; bit++) {
        payload[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        accepted += npk__frame_decode(c, &r, payload, stored, out, sizeof(out)) == 0;
        payload[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    CHECK_EQ(accepted, 0);
    CHECK_EQ(npk__frame_decode(c, &r, payload, stored, out, 3996), -EIO);
    npk__codec_free(c);
}

/* Cut and damaged packages from a pipe leave nothing behind. */
static void damaged_streams(void)
{
    place p = place_begin();
    char dir[300], path[300];
    snprintf(dir, sizeof(dir), "%s/out", p.path);
    snprintf(path, sizeof(path), "%s/x.npkg", p.path);
    size_t accepted = 0, left = 0, tried = 0;
    for (size_t k = 0; k < 60; k++) {
        size_t at = k * (whole.bytes - 1) / 59;
        for (int cut = 0; cut < 2; cut++) {
            whole.data[at] ^= cut ? 0 : 0x10;
            blob_write(path, whole.data, cut ? at : whole.bytes);
            whole.data[at] ^= cut ? 0 : 0x10;
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            accepted += npk_unpack_fd(fd, dir, NULL) == 0;
            left += access(dir, F_OK) == 0;
            close(fd);
            tried++;
        }
    }
    CHECK_EQ(tried, 120);
    CHECK_EQ(accepted, 0);
    CHECK_EQ(left, 0);
    place_end(&p);
}

int main(void)
{
    set_up();
    RUN(cut_anywhere);
    RUN(bits_of_the_index);
    RUN(bits_elsewhere);
    RUN(one_frame);
    RUN(forged_names);
    RUN(forged_links);
    RUN(forged_sizes);
    RUN(forged_payloads);
    RUN(damaged_streams);
    free(whole.data);
    free(contents.data);
    return UNIT_RESULT();
}
