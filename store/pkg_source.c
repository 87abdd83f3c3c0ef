/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "pkg_source.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "io.h"

static int read_file(const npk__source *s, void *out, size_t bytes, uint64_t offset)
{
    ssize_t n = npk__pread_full(s->fd, out, bytes, offset);
    return n < 0 ? (int)n : (size_t)n < bytes ? -EIO : 0;
}

static void close_file(npk__source *s)
{
    npk__close(&s->fd);
}

int npk__source_file(int fd, const char *what, npk__source *out)
{
    struct stat st;
    int err = npk__fstat(fd, &st);
    if (err || !S_ISREG(st.st_mode)) {
        npk__close(&fd);
        return err ? npk__fail_errno(err, what)
                   : npk__fail(-EINVAL, "\"%s\": not a regular file, which a package is", what);
    }
    *out = (npk__source){.read = read_file, .close = close_file, .bytes = (uint64_t)st.st_size, .fd = fd};
    return 0;
}

static int read_memory(const npk__source *s, void *out, size_t bytes, uint64_t offset)
{
    if (offset > s->bytes || bytes > s->bytes - offset)
        return -EIO;
    memcpy(out, s->map + offset, bytes);
    return 0;
}

npk__source npk__source_memory(const void *data, size_t bytes)
{
    return (npk__source){.read = read_memory, .bytes = bytes, .fd = -1, .map = data};
}
