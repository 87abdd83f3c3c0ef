/* SPDX-License-Identifier: Apache-2.0 */
/* mounted.c - see mounted.h. */
#include "mounted.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "say.h"

static int no_memory(void)
{
    return cli_fail(NULL, "%s", strerror(ENOMEM));
}

/* Write all at the descriptor's own place (offset < 0) or at an offset; *done says how far it got. */
static int write_all(int fd, const void *data, uint64_t bytes, off_t offset, uint64_t *done)
{
    const char *from = data;
    for (*done = 0; *done < bytes;) {
        size_t left = bytes - *done > (1u << 30) ? 1u << 30 : (size_t)(bytes - *done);
        ssize_t n = offset < 0 ? write(fd, from + *done, left) : pwrite(fd, from + *done, left, offset + (off_t)*done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        *done += (uint64_t)n;
    }
    return 0;
}

static int close_checked(int fd, int err)
{
    if (close(fd) != 0 && err == 0)
        err = -errno;
    return err;
}

int cli_mounted_append(const cli_target *t, const char *label, const void *data, uint64_t bytes)
{
    char *path = cli_target_file(t);
    if (path == NULL)
        return no_memory();
    uint64_t done = 0;
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    int err = fd < 0 ? -errno : write_all(fd, data, bytes, -1, &done);
    if (fd >= 0)
        err = close_checked(fd, err);
    free(path);
    if (err == 0)
        return CLI_OK;
    return cli_fail(label, "%s after %llu of %llu bytes", strerror(-err), (unsigned long long)done,
                    (unsigned long long)bytes);
}

int cli_mounted_replace(const cli_target *t, const npk_header *header, const npk_rows *index, const void *rows)
{
    char *path = cli_target_file(t);
    if (path == NULL)
        return no_memory();
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int err = fd < 0 ? -errno : 0;
    const char *from = rows;
    npk_rows_cursor cursor = {0};
    uint64_t first, count, done;
    while (err == 0 && (count = npk_rows_take_range(index, &cursor, UINT64_MAX, &first)) > 0) {
        err = write_all(fd, from, count * header->row_bytes, (off_t)(header->data_offset + first * header->row_bytes),
                        &done);
        from += count * header->row_bytes;
    }
    if (fd >= 0)
        err = close_checked(fd, err);
    free(path);
    return err != 0 ? cli_fail(t->typed, "%s", strerror(-err)) : CLI_OK;
}

/* "DIR/GROUP/.npk/LEAF.npy/CONTROL" */
static char *control_path(const cli_target *t, const char *control)
{
    const char *slash = strrchr(t->name, '/');
    int group_bytes = slash != NULL ? (int)(slash - t->name) + 1 : 0;
    char *path;
    return asprintf(&path, "%s/%.*s.npk/%s.npy/%s", t->dir, group_bytes, t->name, t->name + group_bytes, control) < 0
               ? NULL
               : path;
}

/* What the mount said about the last failure, without its newline; "" when it cannot be read. */
static void last_error(const cli_target *t, char *out, size_t capacity)
{
    out[0] = '\0';
    char *path = control_path(t, "last_error");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    free(path);
    if (fd < 0)
        return;
    ssize_t got = read(fd, out, capacity - 1);
    close(fd);
    out[got > 0 ? got : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

int cli_mounted_control(const cli_target *t, const char *control, const char *line)
{
    char *path = control_path(t, control);
    char *text;
    if (path == NULL || asprintf(&text, "%s\n", line) < 0) {
        free(path);
        return no_memory();
    }
    uint64_t done;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int err = fd < 0 ? -errno : write_all(fd, text, strlen(text), -1, &done);
    if (fd >= 0)
        err = close_checked(fd, err);
    free(path);
    free(text);
    if (err == 0)
        return CLI_OK;
    char sentence[512];
    last_error(t, sentence, sizeof sentence);
    if (fd >= 0 && sentence[0] != '\0')
        return cli_fail(NULL, "%s", sentence);
    return cli_fail(t->typed, "%s", strerror(-err));
}

void cli_mounted_refresh(const cli_target *t)
{
    /* An open asks the mount what the name shows now; what the kernel kept of it is outdated then. */
    int fd = open(t->typed, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0)
        close(fd);
}

/* Make the directories above a path. */
static int make_groups(const char *path)
{
    char *work = strdup(path);
    if (work == NULL)
        return -ENOMEM;
    int err = 0;
    for (char *slash = strchr(work + 1, '/'); err == 0 && slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(work, 0777) != 0 && errno != EEXIST)
            err = -errno;
        *slash = '/';
    }
    free(work);
    return err;
}

static int fill_new(int fd, const char *descr, const uint64_t *shape, uint32_t ndim, const void *data, uint64_t bytes)
{
    char header[4096];
    size_t header_bytes;
    int err = npk_header_format(descr, false, shape, ndim, header, sizeof header, &header_bytes);
    if (err != 0)
        return err;
    uint64_t done;
    err = write_all(fd, header, header_bytes, -1, &done);
    if (err == 0 && data != NULL)
        err = write_all(fd, data, bytes, -1, &done);
    if (err == 0 && data == NULL && ftruncate(fd, (off_t)(header_bytes + bytes)) != 0)
        err = -errno;
    return err;
}

int cli_mounted_create(const cli_target *t, const char *descr, const uint64_t *shape, uint32_t ndim, const void *data,
                       uint64_t bytes)
{
    char *path = cli_target_file(t), *hidden = NULL;
    if (path == NULL || asprintf(&hidden, "%s.XXXXXX", path) < 0) {
        free(path);
        return no_memory();
    }
    int err = make_groups(path);
    int fd = err == 0 ? mkostemp(hidden, O_CLOEXEC) : -1;
    if (err == 0 && fd < 0)
        err = -errno;
    if (fd >= 0) {
        mode_t mask = umask(0);
        umask(mask);
        fchmod(fd, 0666 & ~mask);
        err = close_checked(fd, fill_new(fd, descr, shape, ndim, data, bytes));
        if (err == 0 && renameat2(AT_FDCWD, hidden, AT_FDCWD, path, RENAME_NOREPLACE) != 0)
            err = -errno;
        if (err != 0)
            unlink(hidden);
    }
    free(path);
    free(hidden);
    if (err == -EEXIST)
        return cli_fail(t->typed, "exists already; a new name is accepted");
    return err != 0 ? cli_fail(t->typed, "%s", strerror(-err)) : CLI_OK;
}

int cli_mounted_rename(const char *from, const char *to)
{
    int err = make_groups(to);
    if (err == 0 && renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) != 0)
        err = -errno;
    if (err == -EEXIST)
        return cli_fail(to, "exists already; a new name is accepted");
    return err != 0 ? cli_fail(from, "%s", strerror(-err)) : CLI_OK;
}

/* ---- every array of a directory ------------------------------------------------------------------------------- */

typedef struct walk {
    const cli_target *t;
    int (*act)(const char *path);
    int status;
} walk;

static int visit(void *ctx, const char *name, const npk_info *info)
{
    walk *w = ctx;
    (void)info;
    char *path;
    if (asprintf(&path, "%s/%s.npy", w->t->dir, name) < 0)
        return -ENOMEM;
    int err = w->act(path);
    if (err != 0)
        w->status = cli_fail(path, "%s", strerror(-err));
    free(path);
    return 0;
}

static int each_array(const cli_target *t, int (*act)(const char *path))
{
    walk w = {.t = t, .act = act, .status = CLI_OK};
    int err = npk_list(t->store, "", 0, visit, &w);
    return err != 0 ? cli_fail_engine(t->typed, err) : w.status;
}

static int sync_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int err = fsync(fd) != 0 ? -errno : 0;
    close(fd);
    return err;
}

static int unlink_file(const char *path)
{
    return unlink(path) != 0 ? -errno : 0;
}

int cli_mounted_sync(const cli_target *t)
{
    if (t->name[0] == '\0') {
        int status = each_array(t, sync_file);
        int err = sync_file(t->dir);
        return status == CLI_OK && err != 0 ? cli_fail(t->typed, "%s", strerror(-err)) : status;
    }
    char *path = cli_target_file(t);
    if (path == NULL)
        return no_memory();
    int err = sync_file(path);
    free(path);
    return err != 0 ? cli_fail(t->typed, "%s", strerror(-err)) : CLI_OK;
}

int cli_mounted_reset(const cli_target *t)
{
    return each_array(t, unlink_file);
}
