/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "pkg_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fail.h"
#include "io.h"
#include "lower.h"
#include "package.h"
#include "path.h"
#include "store.h"
#include "target.h"

#define RUN_BYTES (UINT64_C(4) << 20)

int npk__package_store(int fd, const char *label, unsigned flags, npk_store **out)
{
    npk__source source;
    npk_package *p = NULL;
    npk_store *s = calloc(1, sizeof(*s));
    char *copy = strdup(label);
    int err = npk__source_file(fd, label, &source);
    if (!err && (!s || !copy)) {
        source.close(&source);
        err = npk__fail(-ENOMEM, "out of memory");
    }
    if (!err)
        err = npk__package_open_source(&source, label, &p);
    if (err) {
        free(s);
        free(copy);
        return err;
    }
    s->root_fd = -1;
    s->flags = flags | NPK_READ_ONLY;
    s->label = copy;
    s->package = p;
    *out = s;
    return 0;
}

npk_package *npk_store_package(npk_store *s)
{
    return s->package;
}

/* ---- facts ------------------------------------------------------------------------------------------------------- */

static int no_array(npk_info *info, const char *why)
{
    memset(&info->header, 0, sizeof(info->header));
    info->reason = strdup(why);
    return info->reason ? 0 : npk__fail(-ENOMEM, "out of memory");
}

npk_err npk_package_file_stat(npk_package_file *f, npk_info *out)
{
    const npk__pkg_record *r = &f->record;
    npk_info info = {.file_bytes = r->head + r->data,
                     .inode = f->entry + 2,
                     .mtime_us = r->mtime_ns / 1000 - (r->mtime_ns % 1000 < 0)};
    char why[256] = "";
    size_t n = r->head > 0 ? r->head : info.file_bytes < 4096 ? (size_t)info.file_bytes : 4096;
    uint8_t *head = malloc(n + 1);
    if (!head)
        return npk__fail(-ENOMEM, "out of memory");
    ssize_t got = npk_package_file_read(f, 0, head, n);
    int err = got < 0 ? (int)got : 0;
    int parsed = err ? 0 : npk_header_parse(head, n, &info.header, why, sizeof(why));
    free(head);
    if (!err && parsed) {
        err = no_array(&info, *why ? why : parsed == -EAGAIN ? "the header is cut short" : "no npy header");
    } else if (!err) {
        uint64_t end = info.header.data_offset + info.header.data_bytes;
        info.rows = info.live = info.physical_rows = info.header.ndim > 0 ? info.header.shape[0] : 0;
        if (npk_header_is_array(&info.header) && info.file_bytes > end)
            info.tail_bytes = info.file_bytes - end;
    }
    if (!err)
        *out = info;
    return err;
}

static int no_such_array(const npk_package *p, const char *name)
{
    return npk__fail(-ENOENT, "\"%s\": no such array in \"%s\"; npk ls shows the names", name, p->label);
}

static int find_array(npk_package *p, const char *name, npk_package_file **out)
{
    char path[NPK__PATH_BYTES];
    uint64_t i;
    int err = npk__name_to_path(name, path, sizeof(path));
    if (err)
        return err;
    if (npk_package_find(p, path, strlen(path), &i) != 0)
        return no_such_array(p, name);
    return npk_package_file_open(p, i, out);
}

int npk__package_stat(npk_package *p, const char *name, npk_info *out)
{
    npk_package_file *f = NULL;
    int err = find_array(p, name, &f);
    if (!err)
        err = npk_package_file_stat(f, out);
    npk_package_file_close(&f);
    return err;
}

int npk__package_open_array(npk_package *p, const char *name, npk_package_file **file, npk_info *info)
{
    int err = find_array(p, name, file);
    if (err)
        return err;
    err = npk_package_file_stat(*file, info);
    if (err)
        npk_package_file_close(file);
    return err;
}

/* The range of entries in a group. */
static int group_range(const npk_package *p, const char *group, uint64_t *begin, uint64_t *end, size_t *above)
{
    *begin = 0;
    *end = p->count;
    *above = 0;
    if (*group == '\0' || strcmp(group, ".") == 0)
        return 0;
    int err = npk__path_check(group);
    if (err)
        return err;
    uint64_t i;
    if (npk_package_find(p, group, strlen(group), &i) != 0)
        return npk__fail(-ENOENT, "\"%s\": no such group in \"%s\"", group, p->label);
    if (npk__package_record(p, i).kind != NPK__PKG_DIRECTORY)
        return npk__fail(-ENOTDIR, "\"%s\": not a group of \"%s\"", group, p->label);
    *begin = i + 1;
    *end = npk_package_next(p, i);
    *above = strlen(group) + 1;
    return 0;
}

/* What visit returned, or an error. */
static int visit_file(npk_package *p, uint64_t i, const npk__pkg_record *r, unsigned flags, npk_visit *visit, void *ctx)
{
    char path[NPK__PATH_BYTES], name[NPK__PATH_BYTES];
    npk_package_file *f = NULL;
    npk_info info = {0};
    memcpy(path, r->path, r->path_bytes);
    path[r->path_bytes] = '\0';
    if (npk__path_to_name(path, name, sizeof(name)) != 0)
        return 0;
    int err = npk_package_file_open(p, i, &f);
    if (!err)
        err = npk_package_file_stat(f, &info);
    if (!err && (!info.reason || (flags & NPK_LIST_PLAIN)))
        err = visit(ctx, name, &info);
    npk_info_clear(&info);
    npk_package_file_close(&f);
    return err;
}

int npk__package_list(npk_package *p, const char *group, unsigned flags, npk_visit *visit, void *ctx)
{
    uint64_t i, end;
    size_t above;
    int err = group_range(p, group, &i, &end, &above);
    while (!err && i < end) {
        npk__pkg_record r = npk__package_record(p, i);
        if (r.kind == NPK__PKG_FILE)
            err = visit_file(p, i, &r, flags, visit, ctx);
        i = (flags & NPK_LIST_FLAT) ? npk_package_next(p, i) : i + 1;
    }
    return err;
}

int npk__package_each_name(const char *names, size_t bytes, npk_name_visit *visit, void *ctx)
{
    int err = 0;
    for (size_t at = 0, n; at < bytes && !err; at += n + 1) {
        const char *end = memchr(names + at, '\n', bytes - at);
        char line[512], name[256] = "", rest;
        unsigned long long start = 0, stop = 0;
        n = end ? (size_t)(end - names) - at : bytes - at;
        if (n < sizeof(line)) {
            memcpy(line, names + at, n);
            line[n] = '\0';
        }
        if (!end || n >= sizeof(line) || sscanf(line, "%255[^\t]\t%llu\t%llu%c", name, &start, &stop, &rest) != 3)
            return npk__fail(-EINVAL, "a name of rows in the package is no such line; npk check tells more");
        err = visit(ctx, name, start, stop);
    }
    return err;
}

int npk__package_names(npk_package *p, const char *name, npk_name_visit *visit, void *ctx)
{
    npk_package_file *f = NULL;
    npk_info info = {0};
    int err = find_array(p, name, &f);
    if (!err)
        err = npk_package_file_stat(f, &info);
    if (!err)
        err = npk__rows_possible(name, &info);
    npk_info_clear(&info);
    if (!err)
        err = npk__package_each_name(f->record.names, f->record.names_bytes, visit, ctx);
    npk_package_file_close(&f);
    return err;
}

/* ---- data -------------------------------------------------------------------------------------------------------- */

int npk__package_read_at(npk_package_file *f, uint64_t offset, uint64_t bytes, void *out)
{
    ssize_t n = npk_package_file_read(f, offset, out, bytes);
    return n < 0 ? (int)n : (uint64_t)n < bytes ? npk__fail(-EIO, "the package's array ends early") : 0;
}

int npk__package_map(npk_package_file *f, uint64_t bytes, void **out)
{
    void *at;
    int err = npk__mmap(&at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (err)
        return npk__fail(err, "%llu bytes of memory: %s", (unsigned long long)bytes, strerror(-err));
    err = npk__package_read_at(f, 0, bytes, at);
    if (err) {
        munmap(at, bytes);
        return err;
    }
    (void)mprotect(at, bytes, PROT_READ);
    *out = at;
    return 0;
}

int npk__package_gather(npk_package_file *f, const npk_info *info, const int64_t *indices, size_t count, void *out)
{
    const npk_header *h = &info->header;
    uint8_t *to = out;
    int err = 0;
    for (size_t i = 0; i < count && !err; i++, to += h->row_bytes) {
        uint64_t row = (uint64_t)indices[i] + (indices[i] < 0 ? info->rows : 0);
        err = npk__package_read_at(f, h->data_offset + row * h->row_bytes, h->row_bytes, to);
    }
    return err;
}

int npk__package_runs(npk_package_file *f, const npk_info *info, uint64_t first, uint64_t count, uint64_t most,
                      npk_run_visit *visit, void *ctx)
{
    const npk_header *h = &info->header;
    /* Whole frames, so that none is decoded twice. */
    uint64_t frame_rows = h->row_bytes > 0 && f->record.frame > h->row_bytes ? f->record.frame / h->row_bytes : 1;
    uint64_t rows = h->row_bytes > 0 && RUN_BYTES / h->row_bytes > frame_rows
                        ? RUN_BYTES / h->row_bytes / frame_rows * frame_rows
                        : frame_rows;
    uint8_t *buffer = malloc(rows * h->row_bytes + 1);
    int err = buffer ? 0 : npk__fail(-ENOMEM, "out of memory");
    for (uint64_t done = 0, n; done < count && !err; done += n) {
        uint64_t at = first + done;
        n = rows - at % frame_rows;
        n = count - done < n ? count - done : n;
        err = npk__package_read_at(f, h->data_offset + at * h->row_bytes, n * h->row_bytes, buffer);
        for (uint64_t part = 0, m; part < n && !err; part += m) {
            m = most && n - part > most ? most : n - part;
            err = visit(ctx, at + part, m, buffer + part * h->row_bytes);
        }
    }
    free(buffer);
    return err;
}

/* ---- the descr of any array -------------------------------------------------------------------------------------- */

npk_err npk_descr(npk_store *s, const char *name, const npk_header *h, char **out)
{
    char path[NPK__PATH_BYTES];
    npk_package_file *f = NULL;
    int fd = -1;
    char *text = malloc((size_t)h->descr_bytes + 1);
    int err = text ? npk__name_to_path(name, path, sizeof(path)) : npk__fail(-ENOMEM, "out of memory");
    if (!err && s->package) {
        err = find_array(s->package, name, &f);
        if (!err)
            err = npk__package_read_at(f, h->descr_offset, h->descr_bytes, text);
        npk_package_file_close(&f);
    } else if (!err) {
        fd = npk__open_beneath(s->root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
        err = fd < 0 ? fd : npk__placeholder_open(s, fd, &f);
        ssize_t n = err ? 0
                    : f ? npk_package_file_read(f, h->descr_offset, text, h->descr_bytes)
                        : npk__pread_full(fd, text, h->descr_bytes, h->descr_offset);
        if (!err && n != (ssize_t)h->descr_bytes)
            err = n < 0 ? npk__fail_errno((int)n, name) : npk__fail(-EIO, "\"%s\": was cut meanwhile", name);
        npk_package_file_close(&f);
        npk__close(&fd);
    }
    if (err) {
        free(text);
        return err;
    }
    text[h->descr_bytes] = '\0';
    *out = text;
    return 0;
}
