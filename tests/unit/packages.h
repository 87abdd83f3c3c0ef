/* SPDX-License-Identifier: Apache-2.0 */
/* packages.h - a store with one of everything, packed, and packages in memory that can be damaged. */
#ifndef PACKAGES_H
#define PACKAGES_H

#include "package.h"
#include "place.h"

typedef struct blob {
    uint8_t *data;
    size_t bytes;
} blob;

static inline blob blob_read(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    NEED(fd >= 0 && fstat(fd, &st) == 0);
    blob b = {malloc((size_t)st.st_size + 1), (size_t)st.st_size};
    NEED(b.data && read(fd, b.data, b.bytes) == (ssize_t)b.bytes);
    close(fd);
    return b;
}

static inline void blob_write(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    NEED(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
    close(fd);
}

static inline void packages_save(const place *p, const char *name, const char *dtype, uint64_t rows, uint64_t width,
                                 const void *data)
{
    const uint64_t shape[2] = {rows, width};
    const npk_array_in in = {.name = name, .dtype = dtype, .shape = shape, .ndim = 2, .data = data};
    NEED(npk_save(p->store, &in, 1) == 0);
}

/* Arrays that take every way through the format, in few bytes: with frames of 4 KiB some have several of them. */
static inline void packages_fill(const place *p)
{
    static float floats[4000];
    static int64_t sorted[3000];
    static uint8_t noise[70000];
    static int32_t gaps[8192];
    uint64_t x = 88172645463325252;
    for (size_t i = 0; i < sizeof(noise); i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        noise[i] = (uint8_t)(x >> 32);
    }
    for (size_t i = 0; i < 4000; i++)
        floats[i] = (float)(noise[i] * 256 + noise[i + 4000]) / 65536;
    for (size_t i = 0; i < 3000; i++)
        sorted[i] = (int64_t)i * 1000 + noise[i];
    for (size_t i = 0; i < 1024; i++) /* frames of zeros between others */
        gaps[i] = gaps[6000 + i] = noise[i];
    packages_save(p, "floats", "float32", 500, 8, floats);
    packages_save(p, "group/deep/sorted", "int64", 3000, 1, sorted);
    packages_save(p, "group/noise", "uint8", 700, 100, noise);
    packages_save(p, "group/gaps", "int32", 2048, 4, gaps);
    packages_save(p, "empty", "float64", 0, 3, NULL);
    packages_save(p, "zeros", "float64", 1000, 3, NULL);
    char path[512];
    snprintf(path, sizeof(path), "%s/README", p->path);
    blob_write(path, "some text, some text\n", 21);
    snprintf(path, sizeof(path), "%s/bad.npy", p->path);
    blob_write(path, "no array", 8);
    snprintf(path, sizeof(path), "%s/link", p->path);
    NEED(symlink("group/noise.npy", path) == 0);
    snprintf(path, sizeof(path), "%s/group/up", p->path);
    NEED(symlink("../floats.npy", path) == 0);
}

/* Every file of the package, read in odd pieces, in one buffer. Negative errno of the first failure. */
static inline int packages_contents(npk_package *p, blob *out)
{
    *out = (blob){0};
    for (uint64_t i = 0; i < npk_package_count(p); i++) {
        npk_entry e;
        npk_package_file *f = NULL;
        npk_package_entry(p, i, &e);
        if (e.kind != NPK_ENTRY_FILE)
            continue;
        int err = npk_package_file_open(p, i, &f);
        if (err)
            return err;
        if (e.bytes > (1u << 20)) {
            npk_package_file_close(&f);
            return -EFBIG; /* nothing here is: a damaged number that a checksum should have caught */
        }
        out->data = realloc(out->data, out->bytes + e.bytes + 1);
        NEED(out->data);
        for (uint64_t at = 0; at < e.bytes && !err;) {
            size_t n = 1 + (size_t)(at * 7 + 1234) % 9000;
            ssize_t got = npk_package_file_read(f, at, out->data + out->bytes + at, n < e.bytes - at ? n : e.bytes - at);
            err = got < 0 ? (int)got : 0;
            at += got > 0 ? (uint64_t)got : 0;
        }
        out->bytes += e.bytes;
        npk_package_file_close(&f);
        if (err)
            return err;
    }
    return 0;
}

/* Open bytes as a package and read all of it. */
static inline int packages_read(const void *data, size_t bytes, blob *out)
{
    npk_package *p = NULL;
    npk__source source = npk__source_memory(data, bytes);
    *out = (blob){0};
    int err = npk__package_open_source(&source, "test", &p);
    if (!err)
        err = packages_contents(p, out);
    npk_package_close(&p);
    return err;
}

static inline bool blob_same(const blob *a, const blob *b)
{
    return a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0;
}

#endif
