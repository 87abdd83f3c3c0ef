/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "lower.h"

#include <cjson/cJSON.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "fail.h"
#include "io.h"
#include "lock.h"
#include "marks.h"
#include "package.h"
#include "path.h"
#include "settle.h"
#include "store.h"
#include "swap.h"

#define MAGIC        "\x93NPKLOW\n"
#define MAGIC_BYTES  8
#define VERSION      1
#define HEAD_AT      128
#define SUM_AT       (NPK__PLACEHOLDER_BYTES - 8)
#define NOTE_VERSION 1
#define NOTE_MOST    (64u << 10)

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

static void put64(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof(v));
}

uint64_t npk__package_sum(const npk_package *p)
{
    uint8_t footer[NPK__PKG_FOOTER_BYTES];
    npk__pkg_footer_put(footer, &p->footer);
    return XXH64(footer, sizeof(footer), npk_package_bytes(p));
}

/* ---- placeholders ------------------------------------------------------------------------------------------------ */

int npk__placeholder_parse(const uint8_t *page, size_t bytes, uint64_t file_bytes, npk__placeholder *out)
{
    if (bytes < NPK__PLACEHOLDER_BYTES || memcmp(page, MAGIC, MAGIC_BYTES) != 0)
        return 0;
    if (get64(page + SUM_AT) != XXH64(page, SUM_AT, 0) || get64(page + 8) != VERSION || get64(page + 48) != file_bytes)
        return -EIO;
    *out = (npk__placeholder){.package_bytes = get64(page + 16),
                              .package_sum = get64(page + 24),
                              .entry = get64(page + 32),
                              .record_sum = get64(page + 40),
                              .head = page + HEAD_AT};
    return 1;
}

/* Can the header be told from the bytes that the page repeats, and does the file end with its data? */
static bool is_plain_enough(const uint8_t *head, uint64_t file_bytes)
{
    npk_header h;
    int err = npk_header_parse(head, NPK__PLACEHOLDER_HEAD, &h, NULL, 0);
    return err != -EAGAIN && (err || !npk_header_is_array(&h) || h.data_offset + h.data_bytes == file_bytes);
}

int npk__placeholder_write(int fd, npk_package_file *f)
{
    uint8_t page[NPK__PLACEHOLDER_BYTES] = MAGIC;
    uint64_t bytes = f->record.head + f->record.data;
    if (bytes <= 2 * NPK__PLACEHOLDER_BYTES)
        return 0;
    ssize_t n = npk_package_file_read(f, 0, page + HEAD_AT, NPK__PLACEHOLDER_HEAD);
    if (n < 0)
        return (int)n;
    if (n < NPK__PLACEHOLDER_HEAD || !is_plain_enough(page + HEAD_AT, bytes))
        return 0;
    put64(page + 8, VERSION);
    put64(page + 16, npk_package_bytes(f->package));
    put64(page + 24, npk__package_sum(f->package));
    put64(page + 32, f->entry);
    put64(page + 40, f->record.hash);
    put64(page + 48, bytes);
    put64(page + SUM_AT, XXH64(page, SUM_AT, 0));
    int err = npk__pwrite_full(fd, page, sizeof(page), 0);
    return err ? npk__fail_errno(err, "a placeholder") : 1;
}

bool npk_is_placeholder(int fd)
{
    char magic[MAGIC_BYTES];
    return npk__pread_full(fd, magic, sizeof(magic), 0) == MAGIC_BYTES && memcmp(magic, MAGIC, MAGIC_BYTES) == 0;
}

/* ---- which package ----------------------------------------------------------------------------------------------- */

static int note_of(const npk_package *p, char **out)
{
    char path[64], sum[24], *real = NULL;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", npk_package_fd(p));
    snprintf(sum, sizeof(sum), "%016" PRIx64, npk__package_sum(p));
    cJSON *root = cJSON_CreateObject();
    real = realpath(path, NULL);
    bool made = root && real && cJSON_AddNumberToObject(root, "version", NOTE_VERSION) &&
                cJSON_AddStringToObject(root, "package", real) &&
                cJSON_AddNumberToObject(root, "bytes", (double)npk_package_bytes(p)) &&
                cJSON_AddStringToObject(root, "sum", sum);
    *out = made ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    free(real);
    return *out ? 0 : npk__fail(-ENOMEM, "out of memory");
}

int npk__lower_note(int dir_fd, npk_package *p)
{
    char *text = NULL, tmp[32];
    int err = note_of(p, &text), side = -1, fd = -1;
    if (!err)
        err = (side = npk__sidecar_open(dir_fd, true)) < 0 ? side : 0;
    if (!err)
        err = (fd = npk__tmp_make(side, 0644, tmp)) < 0 ? npk__fail_errno(fd, NPK__LOWER_FILE) : 0;
    if (!err) {
        err = npk__pwrite_full(fd, text, strlen(text), 0);
        if (!err)
            err = npk__fsync(fd);
        if (!err)
            err = npk__renameat2(side, tmp, side, NPK__LOWER_FILE, 0);
        if (!err)
            err = npk__fsync(side);
        if (err) {
            (void)npk__unlinkat(side, tmp, 0);
            npk__fail_errno(err, NPK__LOWER_FILE);
        }
    }
    npk__close(&fd);
    npk__close(&side);
    free(text);
    return err;
}

static int parse_note(const char *text, char **path, uint64_t *bytes, uint64_t *sum)
{
    char *end = NULL;
    cJSON *root = cJSON_Parse(text);
    const cJSON *version = cJSON_GetObjectItemCaseSensitive(root, "version"),
                *package = cJSON_GetObjectItemCaseSensitive(root, "package"),
                *size = cJSON_GetObjectItemCaseSensitive(root, "bytes"),
                *hash = cJSON_GetObjectItemCaseSensitive(root, "sum");
    int err = cJSON_IsNumber(version) && version->valuedouble != NOTE_VERSION ? -ENOTSUP : 0;
    if (!err && (!cJSON_IsNumber(version) || !cJSON_IsString(package) || !cJSON_IsNumber(size) || !cJSON_IsString(hash) ||
                 size->valuedouble < 0 || size->valuedouble > 9e15 || package->valuestring[0] != '/'))
        err = -EINVAL;
    if (!err) {
        *bytes = (uint64_t)size->valuedouble;
        *sum = strtoull(hash->valuestring, &end, 16);
        err = strlen(hash->valuestring) != 16 || *end ? -EINVAL : (*path = strdup(package->valuestring)) ? 0 : -ENOMEM;
    }
    cJSON_Delete(root);
    return err;
}

int npk__lower_noted(int dir_fd, char **path, uint64_t *bytes, uint64_t *sum)
{
    int fd = npk__sidecar_file(dir_fd, NPK__LOWER_FILE, O_RDONLY);
    if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP) /* what is no sidecar folder is another rule's business */
        return 0;
    if (fd < 0)
        return fd;
    char *text = malloc(NOTE_MOST + 1);
    ssize_t n = text ? npk__pread_full(fd, text, NOTE_MOST, 0) : -ENOMEM;
    npk__close(&fd);
    int err = n < 0 ? (int)n : 0;
    if (!err) {
        text[n] = '\0';
        err = parse_note(text, path, bytes, sum);
    }
    free(text);
    if (err == -EINVAL || err == -ENOTSUP)
        return npk__fail(err, "\".npkfs/" NPK__LOWER_FILE "\": does not name a package in a way that this version knows; "
                              "npk check tells more");
    return err ? npk__fail_errno(err, ".npkfs/" NPK__LOWER_FILE) : 1;
}

/* Open the package that the store was made over, where it was when last mounted. */
static int open_noted(npk_store *s, npk_package **out)
{
    char *path = NULL;
    uint64_t bytes = 0, sum = 0;
    int there = npk__lower_noted(s->root_fd, &path, &bytes, &sum);
    for (unsigned i = 0; there == 0 && i < s->above_count; i++)
        there = npk__lower_noted(s->above[i].fd, &path, &bytes, &sum);
    if (there < 0)
        return there;
    if (there == 0)
        return npk__fail(-EREMOTE, "its data is in a package that this store does not name");
    npk_package *p = NULL;
    int err = npk_package_open(path, &p);
    if (err) {
        char *why = strdup(npk_error());
        err = npk__fail(-EREMOTE, "its data is in a package that cannot be opened (%s); npkfs -o upper=DIR PACKAGE MNT "
                                  "tells where it is now", why ? why : strerror(-err));
        free(why);
    } else if (npk_package_bytes(p) != bytes || npk__package_sum(p) != sum) {
        npk_package_close(&p);
        err = npk__fail(-EREMOTE, "its data is in a package of %" PRIu64 " bytes, and \"%s\" is another one by now", bytes, path);
    }
    free(path);
    if (!err)
        *out = p;
    return err;
}

int npk__lower_package(npk_store *s, npk_package **out)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    int err = 0;
    pthread_mutex_lock(&mutex);
    if (!s->lower)
        err = open_noted(s, &s->lower);
    *out = s->lower;
    pthread_mutex_unlock(&mutex);
    return err;
}

int npk__placeholder_open(npk_store *s, int fd, npk_package_file **out)
{
    uint8_t page[NPK__PLACEHOLDER_BYTES];
    struct stat st;
    npk__placeholder h;
    *out = NULL;
    if (!npk_is_placeholder(fd))
        return 0;
    int err = npk__fstat(fd, &st);
    ssize_t n = err ? err : npk__pread_full(fd, page, sizeof(page), 0);
    if (n < 0)
        return npk__fail_errno((int)n, "a placeholder");
    int is = npk__placeholder_parse(page, (size_t)n, (uint64_t)st.st_size, &h);
    if (is < 0)
        return npk__fail(is, "the placeholder of a file in a package is damaged; remove it, or take it from a copy");
    if (is == 0)
        return 0;
    npk_package *p = NULL;
    err = npk__lower_package(s, &p);
    if (err)
        return err;
    if (npk_package_bytes(p) != h.package_bytes || npk__package_sum(p) != h.package_sum || h.entry >= p->count ||
        npk__package_record(p, h.entry).hash != h.record_sum)
        return npk__fail(-EREMOTE, "its data is in another package than the one that this store was made over");
    return npk_package_file_open(p, h.entry, out);
}

/* ---- copying up -------------------------------------------------------------------------------------------------- */

/* All of the new file is there: it takes the name, and what is known of its rows is known of it. */
static int take_name(npk_swap *w, int dir_fd, const char *leaf, int ro_fd)
{
    npk_info info = {0};
    npk_stamp stamp;
    npk_marks m;
    npk_marks_swap both;
    int err = npk__fsync(w->fd);
    err = err ? npk__fail_errno(err, leaf) : npk__fd_look(ro_fd, &info, &stamp);
    if (err)
        return err;
    if (info.reason || !npk_header_is_row_array(&info.header)) {
        npk_info_clear(&info);
        return npk__swap_commit(w, NPK_SWAP_SYNC);
    }
    err = npk__marks_look(dir_fd, leaf, ro_fd, &info, &stamp, &m);
    if (!err) {
        err = npk__marks_swap_begin(&m, w->fd, 0, &both);
        if (!err) {
            err = npk__swap_commit(w, NPK_SWAP_SYNC | NPK_SWAP_STATE);
            int ended = npk__marks_swap_end(&m, &both);
            err = err ? err : ended;
        }
        npk__marks_release(&m);
    }
    npk_info_clear(&info);
    return err;
}

int npk__lower_copy_up(npk_store *s, int dir_fd, const char *leaf)
{
    npk_package_file *f = NULL;
    npk_swap w;
    struct stat st;
    int fd = npk__openat(dir_fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    int err = fd < 0 ? npk__fail_errno(fd, leaf) : npk__placeholder_open(s, fd, &f);
    if (err || !f) {
        npk__close(&fd);
        return err;
    }
    err = npk__fstat(fd, &st);
    err = err ? npk__fail_errno(err, leaf) : npk__swap_begin(dir_fd, leaf, fd, &w);
    if (!err) {
        const struct timespec times[2] = {st.st_atim, st.st_mtim};
        err = npk__ftruncate(w.fd, (uint64_t)st.st_size);
        err = err ? npk__fail_errno(err, leaf) : npk__unpack_fill(f, w.fd);
        if (!err && (err = npk__futimens(w.fd, times)) != 0)
            npk__fail_errno(err, leaf);
        if (!err)
            err = take_name(&w, dir_fd, leaf, fd);
        npk__swap_abort(&w);
    }
    npk_package_file_close(&f);
    npk__close(&fd);
    return err;
}

/* Without a lock, so that nothing is made where there is nothing to do. */
static int is_placeholder(int dir_fd, const char *leaf)
{
    int fd = npk__openat(dir_fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    int is = fd < 0 ? npk__fail_errno(fd, leaf) : npk_is_placeholder(fd);
    npk__close(&fd);
    return is;
}

npk_err npk_copy_up(npk_store *s, const char *path)
{
    npk_dir dir;
    npk_lock lock;
    const char *leaf;
    int err = npk__path_check(path);
    if (!err)
        err = npk__dir_of(s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    err = is_placeholder(dir.fd, leaf);
    int writable = err > 0 ? npk__store_writable(s, path) : 0;
    if (writable)
        err = writable;
    else if (err > 0 && (err = npk__lock_array(dir.fd, leaf, NPK_LOCK_EXCLUSIVE, &lock)) == 0) {
        err = npk__lower_copy_up(s, dir.fd, leaf);
        npk__unlock(&lock);
    }
    npk__dir_release(&dir);
    return err;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

npk_err npk_store_lower(npk_store *s, npk_package **out)
{
    return npk__lower_package(s, out);
}

bool npk_store_is_upper(npk_store *s)
{
    char *path = NULL;
    uint64_t bytes, sum;
    if (s->package)
        return false;
    int there = npk__lower_noted(s->root_fd, &path, &bytes, &sum);
    for (unsigned i = 0; there == 0 && i < s->above_count; i++)
        there = npk__lower_noted(s->above[i].fd, &path, &bytes, &sum);
    free(path);
    return there != 0; /* also when it cannot be read: its placeholders are no plain files */
}

/* Is the directory an upper of this package, or can it be made one? */
static int prepare(npk_package *p, const char *package, const char *dir, unsigned flags)
{
    char *path = NULL;
    uint64_t bytes = 0, sum = 0;
    int fd = npk__openat(AT_FDCWD, dir, O_PATH | O_DIRECTORY, 0);
    if (fd < 0 && fd != -ENOENT)
        return npk__fail(fd, "\"%s\": %s; an upper is a directory", dir, strerror(-fd));
    int there = fd < 0 ? 0 : npk__lower_noted(fd, &path, &bytes, &sum);
    npk__close(&fd);
    int err = there < 0 ? there : 0;
    if (there > 0 && (bytes != npk_package_bytes(p) || sum != npk__package_sum(p)))
        err = npk__fail(-EINVAL, "\"%s\": holds changes of another package (\"%s\", %" PRIu64 " bytes), not of \"%s\"; each "
                                 "package has an upper of its own", dir, path, bytes, package);
    free(path);
    if (err || there > 0)
        return err;
    if (flags & NPK_READ_ONLY)
        return npk__fail(-EROFS, "\"%s\": no upper yet, and nothing is to be written; mount it once without ro", dir);
    err = npk__unpack_lower(package, dir);
    if (err == -EEXIST)
        return npk__fail(err, "\"%s\": neither empty nor an upper; a new directory, or one that was an upper of this package "
                              "before, is accepted", dir);
    return err;
}

npk_err npk_overlay_open(const char *package, const char *dir, unsigned flags, npk_store **out)
{
    npk_package *p = NULL;
    npk_store *s = NULL;
    char *real = realpath(package, NULL), *noted = NULL;
    uint64_t bytes, sum;
    int err = npk_package_open(package, &p);
    if (!err)
        err = prepare(p, package, dir, flags);
    if (!err)
        err = npk_store_open(dir, flags, &s);
    if (!err && !(flags & NPK_READ_ONLY) && real) { /* the package may have moved */
        err = npk__lower_noted(s->root_fd, &noted, &bytes, &sum);
        err = err > 0 && strcmp(noted, real) != 0 ? npk__lower_note(s->root_fd, p) : err > 0 ? 0 : err;
    }
    free(noted);
    free(real);
    if (err) {
        npk_store_close(&s);
        npk_package_close(&p);
        return err;
    }
    s->lower = p;
    *out = s;
    return 0;
}
