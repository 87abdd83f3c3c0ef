/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "io_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool npk__recording;
static int record_fd = -1;

int npk__record_begin(const char *path)
{
    record_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    npk__recording = record_fd >= 0;
    return record_fd < 0 ? -errno : 0;
}

void npk__record_end(void)
{
    if (record_fd >= 0)
        close(record_fd);
    record_fd = -1;
    npk__recording = false;
}

/* A record with a gap would prove things that are not so. */
static void put(const void *bytes, size_t n)
{
    if (bytes && n > 0 && write(record_fd, bytes, n) != (ssize_t)n)
        abort();
}

static void put_entry(npk_record_entry *e, const char *name, const char *new_name, const void *data)
{
    e->name_bytes = name ? (uint32_t)strlen(name) : 0;
    e->new_name_bytes = new_name ? (uint32_t)strlen(new_name) : 0;
    put(e, sizeof(*e));
    put(name, e->name_bytes);
    put(new_name, e->new_name_bytes);
    put(data, e->data_bytes);
}

static void identify(int fd, const char *path, npk_record_entry *e)
{
    struct statx stx;
    if (statx(fd, path, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &stx) != 0)
        return;
    e->ino = stx.stx_ino;
    if (stx.stx_mask & STATX_BTIME)
        e->birth_ns = (uint64_t)stx.stx_btime.tv_sec * 1000000000u + stx.stx_btime.tv_nsec;
}

/* The directory that a path's last component is in; *leaf points into path. 0: none. */
static uint64_t dir_of(int dir, const char *path, const char **leaf)
{
    char above[4096];
    struct stat st;
    const char *slash = strrchr(path, '/');
    *leaf = slash ? slash + 1 : path;
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof(above))
        return 0;
    memcpy(above, path, n);
    above[n] = '\0';
    return fstatat(dir, above, &st, AT_EMPTY_PATH) == 0 ? st.st_ino : 0;
}

void npk__record_fd(uint32_t what, int fd, uint64_t offset, const void *data, size_t bytes)
{
    npk_record_entry e = {.what = what, .offset = offset, .data_bytes = bytes};
    identify(fd, "", &e);
    put_entry(&e, NULL, NULL, data);
}

void npk__record_copied(int fd, uint64_t offset, size_t bytes)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int from = open(path, O_RDONLY | O_CLOEXEC); /* fd may be for writing only */
    char *data = malloc(bytes + 1);
    if (from < 0 || !data || pread(from, data, bytes, (off_t)offset) != (ssize_t)bytes)
        abort();
    npk__record_fd(NPK_RECORDED_WRITE, fd, offset, data, bytes);
    free(data);
    close(from);
}

bool npk__record_exists(int dir, const char *path)
{
    struct stat st;
    return fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

void npk__record_name(uint32_t what, int dir, const char *path, const void *data, size_t bytes)
{
    npk_record_entry e = {.what = what, .data_bytes = bytes};
    const char *leaf;
    e.dir = dir_of(dir, path, &leaf);
    if (what != NPK_RECORDED_UNLINK)
        identify(dir, path, &e);
    put_entry(&e, leaf, NULL, data);
}

void npk__record_rename(int dir, const char *path, int new_dir, const char *new_path)
{
    npk_record_entry e = {.what = NPK_RECORDED_RENAME};
    const char *leaf, *new_leaf;
    e.dir = dir_of(dir, path, &leaf);
    e.new_dir = dir_of(new_dir, new_path, &new_leaf);
    identify(new_dir, new_path, &e);
    put_entry(&e, leaf, new_leaf, NULL);
}

void npk__record_note(void)
{
    npk_record_entry e = {.what = NPK_RECORDED_NOTE};
    if (npk__recording)
        put_entry(&e, NULL, NULL, NULL);
}

/* ---- identities ------------------------------------------------------------------------------------------------ */

static struct identity {
    uint64_t now, then, birth_ns, zero;
} * identities;
static size_t identity_count;

void npk__identity_forget(void)
{
    free(identities);
    identities = NULL;
    identity_count = 0;
}

int npk__identity_load(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    npk__identity_forget();
    if (fstat(fd, &st) == 0 && st.st_size > 0 && (identities = malloc((size_t)st.st_size)) != NULL &&
        read(fd, identities, (size_t)st.st_size) == (ssize_t)st.st_size)
        identity_count = (size_t)st.st_size / sizeof(*identities);
    close(fd);
    return identity_count ? 0 : -EINVAL;
}

static const struct identity *find(uint64_t ino)
{
    for (size_t i = 0; i < identity_count; i++)
        if (identities[i].now == ino)
            return &identities[i];
    return NULL;
}

void npk__identity_stat(struct stat *st)
{
    const struct identity *i = find(st->st_ino);
    if (i)
        st->st_ino = i->then;
}

void npk__identity_statx(struct statx *stx)
{
    const struct identity *i = find(stx->stx_ino);
    if (!i)
        return;
    stx->stx_ino = i->then;
    stx->stx_btime.tv_sec = (int64_t)(i->birth_ns / 1000000000u);
    stx->stx_btime.tv_nsec = (uint32_t)(i->birth_ns % 1000000000u);
}
