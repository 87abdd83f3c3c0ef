/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "pack_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "fail.h"
#include "io.h"
#include "walk.h"

#define BUFFER (size_t)(256u << 10)

static int flush(npk__pack_out *o)
{
    int err = o->buffered > 0 ? npk__write_full(o->fd, o->buffer, o->buffered, NULL) : 0;
    o->buffered = 0;
    return err ? npk__fail_errno(err, o->label) : 0;
}

static int put(npk__pack_out *o, const void *data, size_t bytes)
{
    int err = 0;
    if (o->buffered + bytes > BUFFER)
        err = flush(o);
    if (!err && bytes >= BUFFER) {
        err = npk__write_full(o->fd, data, bytes, NULL);
        if (err)
            err = npk__fail_errno(err, o->label);
    } else if (!err && bytes > 0) {
        memcpy(o->buffer + o->buffered, data, bytes);
        o->buffered += bytes;
    }
    o->at += bytes;
    return err;
}

static int reserve(uint8_t **at, size_t *capacity, size_t bytes)
{
    if (bytes <= *capacity)
        return 0;
    size_t larger = bytes + bytes / 2 + 256;
    uint8_t *now = realloc(*at, larger);
    if (!now)
        return npk__fail(-ENOMEM, "out of memory");
    *at = now;
    *capacity = larger;
    return 0;
}

int npk__pack_out_open(npk__pack_out *o, int fd, const char *label, const npk__pkg_header *h)
{
    uint8_t bytes[NPK__PKG_HEADER_BYTES];
    *o = (npk__pack_out){.fd = fd, .label = label, .buffer = malloc(BUFFER), .codec = npk__codec_new()};
    if (!o->buffer || !o->codec)
        return npk__fail(-ENOMEM, "out of memory");
    npk__pkg_header_put(bytes, h);
    return put(o, bytes, sizeof(bytes));
}

void npk__pack_out_close(npk__pack_out *o)
{
    npk__codec_free(o->codec);
    free(o->buffer);
    free(o->table);
    free(o->index);
    *o = (npk__pack_out){.fd = -1};
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

int npk__pack_out_begin(npk__pack_out *o, const npk__pkg_record *r, const uint8_t *head, uint64_t frames)
{
    static const uint8_t zeros[NPK__PKG_ALIGN];
    size_t bytes = npk__pkg_record_size(r), at = o->index_bytes + 8;
    int err = reserve(&o->index, &o->index_capacity, at + bytes);
    if (err)
        return err;
    /* The index has the record but for its magic, with the bytes that it takes before it (at its end). */
    uint8_t *record = malloc(bytes);
    if (!record)
        return npk__fail(-ENOMEM, "out of memory");
    o->record = *r;
    npk__pkg_record_put(record, &o->record);
    memcpy(o->index + at, record + 4, bytes - 4);
    o->begin = o->at;
    o->zeros = 0;
    o->frames = frames;
    o->table_bytes = 0;
    err = put(o, record, bytes);
    free(record);
    if (!err && r->layout == NPK__PKG_CONTIGUOUS) {
        err = put(o, zeros, (NPK__PKG_ALIGN - o->at % NPK__PKG_ALIGN) % NPK__PKG_ALIGN);
        if (!err)
            err = put(o, head, r->head);
    }
    return err;
}

static int note(npk__pack_out *o, const void *number, size_t bytes)
{
    int err = reserve(&o->table, &o->table_capacity, o->table_bytes + bytes);
    if (err)
        return err;
    memcpy(o->table + o->table_bytes, number, bytes);
    o->table_bytes += bytes;
    return 0;
}

static int put_zeros(npk__pack_out *o)
{
    uint32_t run = NPK__PKG_ZEROS | o->zeros;
    bool any = o->zeros > 0;
    o->zeros = 0;
    return any ? put(o, &run, sizeof(run)) : 0;
}

int npk__pack_out_frame(npk__pack_out *o, const uint8_t *data, size_t bytes)
{
    uint32_t n = bytes > 0 ? (uint32_t)(bytes - NPK__PKG_FRAME_BYTES) : 0;
    int err = note(o, &n, sizeof(n));
    if (err)
        return err;
    if (n == 0) {
        o->zeros++;
        return 0;
    }
    err = put_zeros(o);
    return err ? err : put(o, data, bytes);
}

int npk__pack_out_bytes(npk__pack_out *o, const uint8_t *data, size_t bytes, const uint64_t *sums, uint64_t count)
{
    int err = note(o, sums, count * sizeof(*sums));
    return err ? err : put(o, data, bytes);
}

static int put_table(npk__pack_out *o)
{
    uint8_t *packed = malloc(o->table_bytes + 1), tail[NPK__PKG_TABLE_BYTES - 4] = {0};
    size_t stored = 0;
    if (!packed)
        return npk__fail(-ENOMEM, "out of memory");
    int err = npk__block_encode(o->codec, o->table, o->table_bytes, packed, &stored);
    uint64_t hash = XXH64(packed, stored, o->record.hash);
    uint32_t n = (uint32_t)stored;
    memcpy(tail, &hash, 8);
    memcpy(tail + 8, &n, 4);
    if (err)
        err = npk__fail(err, "package: a table cannot be compressed");
    if (!err)
        err = put(o, &n, sizeof(n));
    if (!err)
        err = put(o, packed, stored);
    if (!err)
        err = put(o, tail, sizeof(tail));
    free(packed);
    return err;
}

int npk__pack_out_end(npk__pack_out *o)
{
    const npk__pkg_record *r = &o->record;
    int err = put_zeros(o);
    if (!err && (r->layout == NPK__PKG_CONTIGUOUS || (r->layout == NPK__PKG_FRAMES && o->frames > 1)))
        err = put_table(o);
    uint64_t stored = o->at - o->begin;
    memcpy(o->index + o->index_bytes, &stored, 8);
    o->index_bytes += 8 + r->bytes - 4;
    o->count++;
    o->chain = npk__pkg_chain(o->chain, r->hash);
    return err;
}

int npk__pack_out_finish(npk__pack_out *o)
{
    uint8_t end[NPK__PKG_END_BYTES], footer[NPK__PKG_FOOTER_BYTES], *packed = malloc(o->index_bytes + 1);
    size_t stored = 0;
    if (!packed)
        return npk__fail(-ENOMEM, "out of memory");
    npk__pkg_end_put(end, o->chain);
    int err = put(o, end, sizeof(end));
    if (!err && o->index_bytes > NPK__PKG_MAX_INDEX)
        err = npk__fail(-EFBIG, "package: its index would have %zu bytes, at most %llu; pack fewer files",
                        o->index_bytes, (unsigned long long)NPK__PKG_MAX_INDEX);
    if (!err && npk__block_encode(o->codec, o->index, o->index_bytes, packed, &stored) != 0)
        err = npk__fail(-ENOMEM, "out of memory");
    npk__pkg_footer f = {o->at, stored, o->index_bytes, o->count, XXH64(packed, stored, 0)};
    if (!err)
        err = put(o, packed, stored);
    npk__pkg_footer_put(footer, &f);
    if (!err)
        err = put(o, footer, sizeof(footer));
    free(packed);
    return err ? err : flush(o);
}

/* ---- a new file -------------------------------------------------------------------------------------------------- */

#define TMP_PREFIX ".npkg.tmp."

static int random_name(char out[64])
{
    uint64_t random = 0;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return -EIO;
    snprintf(out, 64, TMP_PREFIX "%016llx", (unsigned long long)random);
    return 0;
}

/* A file that was to become a package, and that nobody has locked: its maker is dead. */
static int sweep_entry(void *ctx, const char *name, unsigned char type)
{
    int dir_fd = *(const int *)ctx;
    (void)type;
    if (strncmp(name, TMP_PREFIX, strlen(TMP_PREFIX)) != 0)
        return 0;
    int fd = npk__openat(dir_fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        (void)npk__unlinkat(dir_fd, name, 0);
    npk__close(&fd);
    return 0;
}

/* Ours until it is closed, and not one that somebody else has just swept away. */
static int hold(int fd)
{
    struct stat st;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return -EAGAIN;
    return npk__fstat(fd, &st) == 0 && st.st_nlink > 0 ? 0 : -EAGAIN;
}

static int make_named(npk__newfile *f)
{
    int fd = -EAGAIN;
    for (unsigned tries = 0; fd == -EAGAIN && tries < 100; tries++) {
        int err = random_name(f->tmp);
        fd = err ? err : npk__openat(f->dir_fd, f->tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
        if (fd >= 0 && hold(fd) != 0) {
            npk__close(&fd);
            fd = -EAGAIN;
        }
    }
    return fd;
}

int npk__newfile_open(const char *path, bool replace, npk__newfile *out)
{
    *out = (npk__newfile){.fd = -1, .dir_fd = -1, .replace = replace};
    const char *slash = strrchr(path, '/');
    char *dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    struct stat st;
    if (!dir)
        return npk__fail(-ENOMEM, "out of memory");
    out->leaf = slash ? slash + 1 : path;
    out->dir_fd = npk__openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0);
    free(dir);
    int err = out->dir_fd < 0 ? npk__fail_errno(out->dir_fd, path) : 0;
    if (!err && *out->leaf == '\0')
        err = npk__fail(-EISDIR, "\"%s\": a directory; the name of a file is accepted", path);
    int there = err ? -ENOENT : npk__fstatat(out->dir_fd, out->leaf, &st);
    if (!err && there == 0 && S_ISDIR(st.st_mode))
        err = npk__fail(-EISDIR, "\"%s\": a directory; the name of a file is accepted", path);
    else if (!err && there == 0 && !replace)
        err = npk__fail(-EEXIST, "\"%s\": exists; remove it, choose another name or ask for it to be replaced", path);
    if (!err) {
        (void)npk__each_name(out->dir_fd, sweep_entry, &out->dir_fd);
        /* Without a name nothing is left of it, however the process ends. */
        out->fd = npk__openat(out->dir_fd, ".", O_TMPFILE | O_RDWR, 0666);
        if (out->fd >= 0)
            (void)flock(out->fd, LOCK_EX | LOCK_NB); /* it may get a name for the moment before a rename */
        if (out->fd == -EOPNOTSUPP || out->fd == -EISDIR || out->fd == -EINVAL || out->fd == -ENOENT)
            out->fd = make_named(out);
        err = out->fd < 0 ? npk__fail_errno(out->fd, path) : 0;
    }
    if (err)
        npk__newfile_close(out);
    return err;
}

int npk__newfile_publish(npk__newfile *f, const char *path)
{
    char link[40], name[64];
    int err = npk__fsync(f->fd);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", f->fd);
    if (!err && f->tmp[0] == '\0' && !f->replace) {
        err = npk__linkat(AT_FDCWD, link, f->dir_fd, f->leaf, AT_SYMLINK_FOLLOW);
    } else if (!err) {
        if (f->tmp[0] == '\0') {
            err = random_name(name);
            if (!err)
                err = npk__linkat(AT_FDCWD, link, f->dir_fd, name, AT_SYMLINK_FOLLOW);
            if (!err)
                memcpy(f->tmp, name, sizeof(name));
        }
        if (!err)
            err = npk__renameat2(f->dir_fd, f->tmp, f->dir_fd, f->leaf, f->replace ? 0 : RENAME_NOREPLACE);
        if (!err)
            f->tmp[0] = '\0';
    }
    if (!err)
        err = npk__fsync(f->dir_fd);
    if (err == -EEXIST)
        return npk__fail(err, "\"%s\": exists; remove it, choose another name or ask for it to be replaced", path);
    return err ? npk__fail_errno(err, path) : 0;
}

void npk__newfile_close(npk__newfile *f)
{
    if (f->tmp[0] != '\0' && f->dir_fd >= 0)
        (void)npk__unlinkat(f->dir_fd, f->tmp, 0);
    npk__close(&f->fd);
    npk__close(&f->dir_fd);
    f->tmp[0] = '\0';
}
