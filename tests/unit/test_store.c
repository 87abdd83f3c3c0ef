/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include <errno.h>
#include <sys/mman.h>

#include "arrays.h"
#include "dirty.h"
#include "unit.h"

/* ---- the handle ------------------------------------------------------------------------------------------------ */

static void test_open(void)
{
    place p = place_begin();
    npk_store *s = NULL;
    char path[512];
    CHECK_EQ(npk_store_open("/no/such/dir", 0, &s), -ENOENT);
    CHECK_HAS(npk_error(), "/no/such/dir");
    CHECK_EQ(npk_store_open("/no/such/dir", NPK_CREATE, &s), -ENOENT);
    CHECK_EQ(npk_store_open(p.path, 1u << 20, &s), -EINVAL);
    CHECK_EQ(npk_store_open(p.path, NPK_READ_ONLY | NPK_CREATE, &s), -EINVAL);
    CHECK(s == NULL);
    snprintf(path, sizeof(path), "%s/new", p.path);
    CHECK_EQ(npk_store_open(path, NPK_CREATE, &s), 0);
    CHECK(!npk_store_read_only(s));
    npk_store_close(&s);
    CHECK(s == NULL);
    npk_store_close(&s);
    snprintf(path, sizeof(path), "%s/file", p.path);
    close(open(path, O_CREAT | O_WRONLY, 0644));
    CHECK_EQ(npk_store_open(path, 0, &s), -ENOTDIR);
    CHECK_EQ(npk_store_open_fd(p.dir, NPK_READ_ONLY, &s), 0);
    CHECK(npk_store_read_only(s));
    CHECK(npk_store_fd(s) >= 0);
    npk_store_close(&s);
    CHECK_EQ(npk_store_open_fd(-1, 0, &s), -EBADF);
    place_end(&p);
}

static void test_read_only(void)
{
    place p = place_begin();
    npk_store *s;
    arrays_make(&p, "x", 3);
    NEED(npk_store_open(p.path, NPK_READ_ONLY, &s) == 0);
    const uint64_t one = 1;
    const npk_array_in in = {.name = "y", .dtype = "u1", .shape = &one, .ndim = 1};
    const int64_t shape = 1, zero = 0;
    CHECK_EQ(npk_append(s, "x", arrays_rows(3, 1), 1, NULL), -EROFS);
    CHECK_HAS(npk_error(), "read-only");
    CHECK_EQ(npk_save(s, &in, 1), -EROFS);
    CHECK_EQ(npk_create(s, &in), -EROFS);
    CHECK_EQ(npk_replace_range(s, "x", 0, 1, arrays_rows(0, 1)), -EROFS);
    CHECK_EQ(npk_replace_rows(s, "x", &zero, 1, arrays_rows(0, 1)), -EROFS);
    CHECK_EQ(npk_truncate(s, "x", 1), -EROFS);
    CHECK_EQ(npk_extend(s, "x", 9), -EROFS);
    CHECK_EQ(npk_reshape(s, "x", &shape, 1), -EROFS);
    CHECK_EQ(npk_cast(s, "x", "f8", 0, NULL, NULL), -EROFS);
    CHECK_EQ(npk_clone(s, "x", "y"), -EROFS);
    CHECK_EQ(npk_rename(s, "x", "y"), -EROFS);
    CHECK_EQ(npk_remove(s, "x"), -EROFS);
    CHECK_EQ(npk_reset(s), -EROFS);
    CHECK_EQ(npk_check(s, NULL, NPK_CHECK_REPAIR, arrays_found, &(arrays_findings){0}), -EROFS);
    CHECK_EQ(npk_check(s, NULL, 0, arrays_found, &(arrays_findings){0}), 0);
    CHECK_EQ(npk_sync(s, "x"), 0);
    npk_store_close(&s);
    CHECK_EQ(arrays_whole(&p, "x"), 3);
    place_end(&p);
}

static void locate(const char *path, int err, const char *dir, const char *name)
{
    char *d = NULL, *n = NULL;
    unit_note("%s", path);
    CHECK_EQ(npk_locate(path, &d, &n), err);
    if (err == 0) {
        CHECK_STR(d, dir);
        CHECK_STR(n, name);
    } else {
        CHECK(d == NULL && n == NULL);
    }
    free(d);
    free(n);
}

static void test_locate(void)
{
    place p = place_begin();
    char cwd[512];
    arrays_make(&p, "g/x", 1);
    arrays_make(&p, "dir.npy/y", 1);
    NEED(getcwd(cwd, sizeof(cwd)) && chdir(p.path) == 0);
    close(open("notes.txt", O_CREAT | O_WRONLY, 0644));
    locate("g/x.npy", 0, "g", "x");
    locate("g/x", 0, "g", "x");
    locate("g/new.npy", 0, "g", "new");
    locate("top.npy", 0, ".", "top");
    locate("g", 0, "g", "");
    locate("g/", 0, "g/", "");
    locate(".", 0, ".", "");
    locate("dir.npy", 0, "dir.npy", "");
    locate("/new.npy", 0, "/", "new");
    locate("absent/x.npy", -ENOENT, "", "");
    locate("notes.txt", -EINVAL, "", "");
    locate("notes.txt/x.npy", -ENOTDIR, "", "");
    locate("absent/", -ENOENT, "", "");
    locate("", -ENOENT, "", "");
    NEED(chdir(cwd) == 0);
    place_end(&p);
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

struct seen {
    char names[2048];
    unsigned count, plain;
    const char *stop_at;
};

static int see(void *ctx, const char *name, const npk_info *info)
{
    struct seen *s = ctx;
    size_t at = strlen(s->names);
    s->count++;
    s->plain += info->reason != NULL;
    if (at + strlen(name) + 2 < sizeof(s->names))
        snprintf(s->names + at, sizeof(s->names) - at, "%s ", name);
    return s->stop_at && strcmp(name, s->stop_at) == 0 ? 7 : 0;
}

static void test_list(void)
{
    place p = place_begin();
    struct seen s = {0};
    arrays_make(&p, "a", 1);
    arrays_make(&p, "g/b", 1);
    arrays_make(&p, "g/h/c", 1);
    int fd = openat(p.dir, "bad.npy", O_CREAT | O_WRONLY, 0644);
    NEED(fd >= 0 && write(fd, "nonsense", 8) == 8);
    close(fd);
    close(openat(p.dir, "notes.txt", O_CREAT | O_WRONLY, 0644));
    NEED(symlinkat("a.npy", p.dir, "link.npy") == 0 && mkfifoat(p.dir, "pipe.npy", 0644) == 0);
    NEED(symlinkat(".", p.dir, "loop") == 0);
    CHECK_EQ(npk_list(p.store, "", 0, see, &s), 0);
    CHECK_EQ(s.count, 3);
    CHECK_HAS(s.names, "g/h/c ");
    s = (struct seen){0};
    CHECK_EQ(npk_list(p.store, "", NPK_LIST_PLAIN, see, &s), 0);
    CHECK_EQ(s.count, 4);
    CHECK_EQ(s.plain, 1);
    s = (struct seen){0};
    CHECK_EQ(npk_list(p.store, "g", 0, see, &s), 0);
    CHECK_EQ(s.count, 2);
    s = (struct seen){0};
    CHECK_EQ(npk_list(p.store, "g", NPK_LIST_FLAT, see, &s), 0);
    CHECK_STR(s.names, "g/b ");
    s = (struct seen){.stop_at = "g/b"};
    CHECK_EQ(npk_list(p.store, "g", NPK_LIST_FLAT, see, &s), 7);
    CHECK_EQ(npk_list(p.store, "absent", 0, see, &s), -ENOENT);
    CHECK_EQ(npk_list(p.store, "../x", 0, see, &s), -EINVAL);
    CHECK_EQ(npk_list(p.store, "", 64, see, &s), -EINVAL);
    place_end(&p);
}

/* Deeper than the walk keeps descriptors, and more names in a directory than one read of it gives. */
static void test_list_deep_and_wide(void)
{
    place p = place_begin();
    struct seen s = {0};
    char name[600] = "";
    for (int depth = 0; depth < 60; depth++) {
        size_t at = strlen(name);
        snprintf(name + at, sizeof(name) - at, "%sd%d", depth ? "/" : "", depth);
        char array[700];
        snprintf(array, sizeof(array), "%s/x", name);
        arrays_make(&p, array, 1);
        for (int i = 0; depth < 3 && i < 700; i++) {
            char file[700];
            snprintf(file, sizeof(file), "%s/a-file-with-a-longer-name-%d", name, i);
            close(openat(p.dir, file, O_CREAT | O_WRONLY, 0644));
        }
    }
    CHECK_EQ(npk_list(p.store, "", 0, see, &s), 0);
    CHECK_EQ(s.count, 60);
    CHECK_EQ(npk_reset(p.store), 0);
    s = (struct seen){0};
    CHECK_EQ(npk_list(p.store, "", 0, see, &s), 0);
    CHECK_EQ(s.count, 0);
    CHECK(!place_exists(&p, "d0/d1/d2/d3")); /* held nothing else */
    CHECK(place_exists(&p, "d0/d1/d2/a-file-with-a-longer-name-5"));
    place_end(&p);
}

static void test_exists_and_stat(void)
{
    place p = place_begin();
    bool is = true;
    npk_info info;
    arrays_make(&p, "g/x", 5);
    close(openat(p.dir, "empty.npy", O_CREAT | O_WRONLY, 0644));
    NEED(mkdirat(p.dir, "dir.npy", 0755) == 0 && symlinkat("g/x.npy", p.dir, "link.npy") == 0);
    CHECK_EQ(npk_exists(p.store, "g/x", &is), 0);
    CHECK(is);
    const char *const none[] = {"x", "g", "dir", "link", "empty", "absent/x", "g/x.npy/y"};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        is = true;
        unit_note("%s", none[i]);
        CHECK_EQ(npk_exists(p.store, none[i], &is), 0);
        CHECK(!is);
    }
    CHECK_EQ(npk_exists(p.store, "../x", &is), -EINVAL);
    CHECK_EQ(npk_exists(p.store, "/etc/x", &is), -EINVAL);
    CHECK_EQ(npk_exists(p.store, ".npkfs/x", &is), -EINVAL);
    CHECK_EQ(npk_stat(p.store, "g/x", &info), 0);
    CHECK_EQ(info.rows, 5);
    CHECK_EQ(info.live, 5);
    CHECK_EQ(info.deleted, 0);
    CHECK_EQ(info.header.row_bytes, ROW_BYTES);
    CHECK_EQ(info.file_bytes, arrays_file_bytes(&p, "g/x.npy"));
    CHECK(info.reason == NULL);
    npk_info_clear(&info);
    CHECK_EQ(npk_stat(p.store, "empty", &info), 0);
    CHECK(info.reason != NULL);
    npk_info_clear(&info);
    CHECK_EQ(npk_stat(p.store, "absent", &info), -ENOENT);
    CHECK_HAS(npk_error(), "\"absent\"");
    CHECK_EQ(npk_stat(p.store, "dir", &info), -EISDIR);
    CHECK_EQ(npk_stat(p.store, "link", &info), -ELOOP);
    place_end(&p);
}

static void test_rename(void)
{
    place p = place_begin();
    bool entered;
    arrays_make(&p, "a", 3);
    arrays_make(&p, "b", 4);
    CHECK_EQ(npk_rename(p.store, "a", "b"), -EEXIST);
    CHECK_EQ(npk_rename(p.store, "a", "a"), -EEXIST);
    CHECK_EQ(npk_rename(p.store, "absent", "c"), -ENOENT);
    CHECK_EQ(npk_rename(p.store, "absent", "new/group/c"), -ENOENT);
    CHECK(!place_exists(&p, "new"));
    CHECK_EQ(npk_rename(p.store, "a", "../c"), -EINVAL);
    CHECK_EQ(npk_append(p.store, "a", arrays_rows(3, 1), 1, NULL), 0);
    CHECK_EQ(npk_rename(p.store, "a", "new/group/c"), 0);
    CHECK_EQ(arrays_whole(&p, "new/group/c"), 4);
    CHECK(!place_exists(&p, "a.npy"));
    /* Its session goes with it: growth is still adopted. */
    int fd = openat(p.dir, "new/group/c.npy", O_RDONLY);
    CHECK_EQ(npk_session_find(p.store, "new/group/c.npy", fd, &entered), 0);
    CHECK(entered);
    npk_file_id id;
    npk_dirty e;
    CHECK_EQ(npk__file_id(fd, &id), 0);
    CHECK_EQ(npk__dirty_find(p.dir, &id, &e), 0);
    close(fd);
    place_append(&p, "new/group/c.npy", arrays_rows(4, 2), 2 * ROW_BYTES);
    CHECK_EQ(arrays_whole(&p, "new/group/c"), 6);
    CHECK_EQ(arrays_whole(&p, "b"), 4);
    place_end(&p);
}

static void test_remove(void)
{
    place p = place_begin();
    arrays_make(&p, "a", 3);
    NEED(mkdirat(p.dir, "dir.npy", 0755) == 0 && symlinkat("a.npy", p.dir, "link.npy") == 0);
    CHECK_EQ(npk_remove(p.store, "absent"), -ENOENT);
    CHECK_EQ(npk_remove(p.store, "dir"), -EISDIR);
    CHECK_EQ(npk_remove(p.store, "link"), -ELOOP);
    CHECK_EQ(npk_append(p.store, "a", arrays_rows(3, 1), 1, NULL), 0);
    CHECK_EQ(npk_remove(p.store, "a"), 0);
    CHECK(!place_exists(&p, "a.npy"));
    CHECK(place_exists(&p, "dir.npy"));
    CHECK_STR(arrays_check(&p, NULL, 0).rules, "F1 "); /* the link; no entry of the array is left */
    place_end(&p);
}

static void test_reset(void)
{
    place p = place_begin();
    arrays_make(&p, "a", 3);
    arrays_make(&p, "only/arrays", 3);
    arrays_make(&p, "mixed/b", 3);
    close(openat(p.dir, "mixed/notes.txt", O_CREAT | O_WRONLY, 0644));
    close(openat(p.dir, "mixed/broken.npy", O_CREAT | O_WRONLY, 0644));
    CHECK_EQ(npk_append(p.store, "a", arrays_rows(3, 1), 1, NULL), 0);
    CHECK_EQ(npk_reset(p.store), 0);
    CHECK(!place_exists(&p, "a.npy"));
    CHECK(!place_exists(&p, "only"));
    CHECK(!place_exists(&p, "mixed/b.npy"));
    CHECK(place_exists(&p, "mixed/notes.txt"));
    CHECK(place_exists(&p, "mixed/broken.npy"));
    CHECK(!place_exists(&p, ".npkfs"));
    CHECK(!place_exists(&p, "mixed/.npkfs"));
    arrays_make(&p, "a", 2);
    CHECK_EQ(arrays_whole(&p, "a"), 2);
    place_end(&p);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void test_open_for_reading(void)
{
    place p = place_begin();
    npk_array *a = NULL;
    arrays_make(&p, "x", 3);
    CHECK_EQ(npk_array_open(p.store, "absent", &a), -ENOENT);
    close(openat(p.dir, "empty.npy", O_CREAT | O_WRONLY, 0644));
    CHECK_EQ(npk_array_open(p.store, "empty", &a), -EINVAL);
    close(place_array(&p, "short.npy", 9, 4, 0));
    CHECK_EQ(npk_array_open(p.store, "short", &a), -EINVAL);
    CHECK_HAS(npk_error(), "unfinished");
    CHECK(a == NULL);
    CHECK_EQ(npk_array_open(p.store, "x", &a), 0);
    CHECK_EQ(npk_append(p.store, "x", arrays_rows(3, 1), 1, NULL), 0);
    CHECK_EQ(npk_array_info(a)->rows, 3); /* of the moment when it was opened */
    CHECK_EQ(npk_remove(p.store, "x"), 0);
    float rows[3 * ROW_FLOATS];
    CHECK_EQ(npk_read_all(a, rows), 0);
    CHECK(memcmp(rows, arrays_rows(0, 3), sizeof(rows)) == 0);
    npk_array_close(&a);
    CHECK(a == NULL);
    npk_array_close(&a);
    place_end(&p);
}

static void test_read_rows(void)
{
    place p = place_begin();
    npk_array *a = NULL;
    float out[8 * ROW_FLOATS];
    arrays_make(&p, "x", 1000);
    NEED(npk_array_open(p.store, "x", &a) == 0);
    const int64_t few[] = {0, -1, 500}, many[] = {999, 0, -1000, -1, 3, 3, 998, 17};
    const uint64_t few_rows[] = {0, 999, 500}, many_rows[] = {999, 0, 0, 999, 3, 3, 998, 17};
    CHECK_EQ(npk_read_rows(a, few, 3, out), 0);
    for (size_t i = 0; i < 3; i++)
        CHECK(memcmp(out + i * ROW_FLOATS, arrays_rows(few_rows[i], 1), ROW_BYTES) == 0);
    CHECK_EQ(npk_read_rows(a, many, 8, out), 0);
    for (size_t i = 0; i < 8; i++)
        CHECK(memcmp(out + i * ROW_FLOATS, arrays_rows(many_rows[i], 1), ROW_BYTES) == 0);
    const int64_t outside[][2] = {{0, 1000}, {0, -1001}, {INT64_MAX, 0}, {INT64_MIN, 0}};
    for (size_t i = 0; i < 4; i++) {
        memset(out, 0x5a, sizeof(out));
        CHECK_EQ(npk_read_rows(a, outside[i], 2, out), -ERANGE);
        CHECK_HAS(npk_error(), "1000 rows");
        for (size_t j = 0; j < sizeof(out); j++)
            if (((unsigned char *)out)[j] != 0x5a)
                CHECK(!"nothing is written");
    }
    CHECK_EQ(npk_read_rows(a, NULL, 0, out), 0);
    CHECK_EQ(npk_read_range(a, 998, 2, out), 0);
    CHECK(memcmp(out, arrays_rows(998, 2), 2 * ROW_BYTES) == 0);
    CHECK_EQ(npk_read_range(a, 1000, 0, out), 0);
    CHECK_EQ(npk_read_range(a, 999, 2, out), -ERANGE);
    CHECK_EQ(npk_read_range(a, UINT64_MAX, 2, out), -ERANGE);
    const void *data;
    uint64_t bytes;
    CHECK_EQ(npk_array_map(a, &data, &bytes), 0);
    CHECK_EQ(bytes, 1000 * ROW_BYTES);
    CHECK(memcmp(data, arrays_rows(0, 1000), bytes) == 0);
    npk_array_close(&a);
    place_end(&p);
}

/* Every size of a row goes through its own loop of the gather. */
static void test_gather_sizes(void)
{
    place p = place_begin();
    uint8_t data[4096 * 3], out[4096 * 7];
    const int64_t indices[] = {2, 0, -1, 1, -3, 2, 0};
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
    for (uint64_t size = 1; size <= 4096; size += size < 70 ? 1 : 503) {
        const uint64_t shape[2] = {3, size};
        const npk_array_in in = {.name = "x", .dtype = "u1", .shape = shape, .ndim = 2, .data = data};
        npk_array *a = NULL;
        unit_note("rows of %" PRIu64 " bytes", size);
        NEED(npk_save(p.store, &in, 1) == 0 && npk_array_open(p.store, "x", &a) == 0);
        memset(out, 0, sizeof(out));
        CHECK_EQ(npk_read_rows(a, indices, 7, out), 0);
        for (size_t i = 0; i < 7; i++)
            CHECK(memcmp(out + i * size, data + (uint64_t)(indices[i] + (indices[i] < 0 ? 3 : 0)) * size, size) == 0);
        npk_array_close(&a);
    }
    place_end(&p);
}

struct streamed {
    uint64_t next, most;
    int stop_after;
};

static int take_batch(void *ctx, uint64_t first, uint64_t count, const void *rows)
{
    struct streamed *t = ctx;
    CHECK_EQ(first, t->next);
    CHECK(memcmp(rows, arrays_rows(first, count), count * ROW_BYTES) == 0);
    t->next += count;
    t->most = count > t->most ? count : t->most;
    return t->stop_after && --t->stop_after == 0 ? 5 : 0;
}

static void test_stream(void)
{
    place p = place_begin();
    npk_array *a = NULL;
    arrays_make(&p, "x", 100);
    NEED(npk_array_open(p.store, "x", &a) == 0);
    struct streamed t = {0};
    CHECK_EQ(npk_stream(a, 7, take_batch, &t), 0);
    CHECK_EQ(t.next, 100);
    CHECK_EQ(t.most, 7);
    t = (struct streamed){0};
    CHECK_EQ(npk_stream(a, UINT64_MAX, take_batch, &t), 0);
    CHECK_EQ(t.most, 100);
    t = (struct streamed){.stop_after = 2};
    CHECK_EQ(npk_stream(a, 10, take_batch, &t), 5);
    CHECK_EQ(t.next, 20);
    CHECK_EQ(npk_stream(a, 0, take_batch, &t), -EINVAL);
    npk_array_close(&a);
    place_end(&p);
}

/* P14: a file that is cut under a mapping gives an error, not a dead process. */
static void test_cut_file(void)
{
    place p = place_begin();
    npk_array *a = NULL;
    int64_t indices[64];
    float out[64 * ROW_FLOATS];
    arrays_make(&p, "x", 4096);
    NEED(npk_array_open(p.store, "x", &a) == 0);
    for (int64_t i = 0; i < 64; i++)
        indices[i] = 4095 - i * 60;
    CHECK_EQ(npk_read_rows(a, indices, 64, out), 0);
    int fd = openat(p.dir, "x.npy", O_WRONLY);
    NEED(fd >= 0 && ftruncate(fd, 5000) == 0);
    close(fd);
    CHECK_EQ(npk_read_rows(a, indices, 64, out), -EIO);
    CHECK_HAS(npk_error(), "cut");
    CHECK_EQ(npk_read_rows(a, indices, 64, out), -EIO);
    CHECK_EQ(npk_read_range(a, 4000, 10, out), -EIO);
    const int64_t inside[8] = {0};
    CHECK_EQ(npk_read_rows(a, inside, 8, out), -EIO); /* rows that are there, of a file that is not what it was */
    npk_array_close(&a);
    place_end(&p);
}

static void test_other_kinds(void)
{
    place p = place_begin();
    npk_array *a = NULL;
    double value = 0;
    const double pi = 3.14159;
    const npk_array_in scalar = {.name = "s", .dtype = "f8", .ndim = 0, .data = &pi};
    const uint64_t empty_shape[2] = {0, 5}, thin_shape[2] = {5, 0};
    const npk_array_in empty = {.name = "e", .dtype = "f8", .shape = empty_shape, .ndim = 2};
    const npk_array_in thin = {.name = "t", .dtype = "f8", .shape = thin_shape, .ndim = 2};
    CHECK_EQ(npk_save(p.store, &scalar, 1), 0);
    CHECK_EQ(npk_save(p.store, &empty, 1), 0);
    CHECK_EQ(npk_save(p.store, &thin, 1), 0);
    NEED(npk_array_open(p.store, "s", &a) == 0);
    CHECK_EQ(npk_read_all(a, &value), 0);
    CHECK(value == pi);
    CHECK_EQ(npk_read_range(a, 0, 0, &value), -ENOTSUP);
    CHECK_HAS(npk_error(), "no dimension");
    npk_array_close(&a);
    NEED(npk_array_open(p.store, "e", &a) == 0);
    const void *data = &value;
    uint64_t bytes = 1;
    CHECK_EQ(npk_array_map(a, &data, &bytes), 0);
    CHECK(data == NULL && bytes == 0);
    CHECK_EQ(npk_read_all(a, NULL), 0);
    npk_array_close(&a);
    NEED(npk_array_open(p.store, "t", &a) == 0);
    CHECK_EQ(npk_read_range(a, 1, 3, &value), 0);
    npk_array_close(&a);
    CHECK_EQ(npk_append(p.store, "s", &pi, 1, NULL), -ENOTSUP);
    CHECK_EQ(npk_append(p.store, "t", &pi, 1, NULL), -ENOTSUP);
    place_end(&p);
}

int main(void)
{
    RUN(test_open);
    RUN(test_read_only);
    RUN(test_locate);
    RUN(test_list);
    RUN(test_list_deep_and_wide);
    RUN(test_exists_and_stat);
    RUN(test_rename);
    RUN(test_remove);
    RUN(test_reset);
    RUN(test_open_for_reading);
    RUN(test_read_rows);
    RUN(test_gather_sizes);
    RUN(test_stream);
    RUN(test_cut_file);
    RUN(test_other_kinds);
    return UNIT_RESULT();
}
