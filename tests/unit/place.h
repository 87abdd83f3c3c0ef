/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place.h - a store in a temporary directory of its own, for the unit tests that need real files.
 *
 * NPK_TEST_DIR chooses the filesystem, else TMPDIR, else /tmp. The directory goes with place_end().
 */
#ifndef PLACE_H
#define PLACE_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "npk.h"
#include "unit.h"

typedef struct place {
    char path[256];
    int dir; /* O_PATH */
    npk_store *store;
} place;

/* A test that cannot even begin tells nothing: end the program. */
static inline void need(bool fine, const char *what)
{
    if (fine)
        return;
    fprintf(stderr, "cannot set the test up: %s (%s; %s)\n", what, strerror(errno), npk_error());
    exit(2);
}
#define NEED(condition) need((condition), #condition)

static inline place place_begin(void)
{
    place p = {.dir = -1};
    const char *base = getenv("NPK_TEST_DIR");
    if (!base)
        base = getenv("TMPDIR");
    snprintf(p.path, sizeof(p.path), "%.200s/npk-unit-XXXXXX", base ? base : "/tmp");
    NEED(mkdtemp(p.path) != NULL);
    p.dir = open(p.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    NEED(p.dir >= 0);
    NEED(npk_store_open(p.path, 0, &p.store) == 0);
    return p;
}

static inline int place_remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static inline void place_end(place *p)
{
    npk_store_close(&p->store);
    close(p->dir);
    nftw(p->path, place_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A header whose number has no blank before it and `pad` blanks behind the dict; 16-byte rows ('<f4', shape (rows, 4)).
 * Returns its bytes: npy does not ask for alignment, so that any amount of room can be tested. */
static inline size_t place_header(char *out, uint64_t rows, unsigned pad)
{
    char text[256];
    int n = snprintf(text, sizeof(text), "{'descr': '<f4', 'fortran_order': False, 'shape': (%llu, 4), }%*s\n",
                     (unsigned long long)rows, (int)pad, "");
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = (char)(n & 255);
    out[9] = (char)(n >> 8);
    memcpy(out + 10, text, (size_t)n);
    return 10 + (size_t)n;
}

#define PLACE_ROW 16u

/* Rows whose first byte is their number mod 256, at the end of fd. */
static inline void place_rows(int fd, uint64_t first, uint64_t count)
{
    for (uint64_t i = first; i < first + count; i++) {
        unsigned char row[PLACE_ROW] = {(unsigned char)i, 1, 2, 3};
        NEED(write(fd, row, sizeof(row)) == (ssize_t)sizeof(row));
    }
}

/* Make a new file, an array that says header_rows and has data_rows. Returns a read-only descriptor. */
static inline int place_array(const place *p, const char *leaf, uint64_t header_rows, uint64_t data_rows, unsigned pad)
{
    char head[512];
    size_t n = place_header(head, header_rows, pad);
    unlinkat(p->dir, leaf, 0);
    int fd = openat(p->dir, leaf, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    NEED(fd >= 0 && write(fd, head, n) == (ssize_t)n);
    place_rows(fd, 0, data_rows);
    close(fd);
    fd = openat(p->dir, leaf, O_RDONLY | O_CLOEXEC);
    NEED(fd >= 0);
    return fd;
}

static inline void place_append(const place *p, const char *leaf, const void *bytes, size_t n)
{
    int fd = openat(p->dir, leaf, O_WRONLY | O_APPEND | O_CLOEXEC);
    NEED(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
}

static inline void place_append_rows(const place *p, const char *leaf, uint64_t first, uint64_t count)
{
    int fd = openat(p->dir, leaf, O_WRONLY | O_APPEND | O_CLOEXEC);
    NEED(fd >= 0);
    place_rows(fd, first, count);
    close(fd);
}

/* Rows that the file's header says now; UINT64_MAX if it is no array. */
static inline uint64_t place_rows_of(const place *p, const char *leaf)
{
    npk_info info;
    int fd = openat(p->dir, leaf, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || npk_fd_stat(fd, &info) != 0)
        return UINT64_MAX;
    close(fd);
    uint64_t rows = info.reason ? UINT64_MAX : info.rows;
    npk_info_clear(&info);
    return rows;
}

static inline bool place_exists(const place *p, const char *path)
{
    struct stat st;
    return fstatat(p->dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* How a child ended: its exit status, or minus the signal. */
static inline int place_wait(pid_t child)
{
    int status;
    NEED(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

#endif
