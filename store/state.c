/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "state.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dellog.h"
#include "fail.h"
#include "io.h"
#include "path.h"
#include "swap.h"

#define VERSION 1

/* ---- memory ---------------------------------------------------------------------------------------------------- */

void npk__state_clear(npk_state *s)
{
    for (size_t i = 0; i < s->name_count; i++)
        free(s->names[i].name);
    free(s->names);
    free(s->blocks);
    memset(s, 0, sizeof(*s));
}

void npk__states_clear(npk_states *s)
{
    for (unsigned i = 0; i < 2; i++)
        npk__state_clear(&s->state[i]);
    memset(s, 0, sizeof(*s));
}

int npk__state_copy(const npk_state *from, npk_state *to)
{
    npk_state c = *from;
    c.name_count = 0;
    c.names = from->name_count ? calloc(from->name_count, sizeof(*c.names)) : NULL;
    c.blocks = from->block_count ? malloc(from->block_count * sizeof(*c.blocks)) : NULL;
    bool fine = (c.names || !from->name_count) && (c.blocks || !from->block_count);
    for (size_t i = 0; fine && i < from->name_count; i++) {
        c.names[i] = from->names[i];
        c.names[i].name = strdup(from->names[i].name);
        fine = c.names[i].name != NULL;
        c.name_count += fine;
    }
    if (fine && from->block_count)
        memcpy(c.blocks, from->blocks, from->block_count * sizeof(*c.blocks));
    if (!fine) {
        npk__state_clear(&c);
        return -ENOMEM;
    }
    *to = c;
    return 0;
}

bool npk__states_vacuous(const npk_states *s)
{
    for (unsigned i = 0; i < s->count; i++)
        if (s->state[i].epoch || s->state[i].name_count)
            return false;
    return s->policy == 0;
}

/* ---- parsing --------------------------------------------------------------------------------------------------- */

/* Numbers beyond 2^53 are strings, since JSON's readers take numbers for doubles. */
#define EXACT (UINT64_C(1) << 53)

static bool get_u64(const cJSON *in, const char *key, uint64_t *out)
{
    const cJSON *v = key ? cJSON_GetObjectItemCaseSensitive(in, key) : in;
    if (cJSON_IsNumber(v)) {
        if (!(v->valuedouble >= 0 && v->valuedouble <= (double)EXACT) || v->valuedouble != floor(v->valuedouble))
            return false;
        *out = (uint64_t)v->valuedouble;
        return true;
    }
    if (!cJSON_IsString(v) || v->valuestring[0] < '0' || v->valuestring[0] > '9')
        return false;
    char *end;
    errno = 0;
    *out = strtoull(v->valuestring, &end, 10);
    return errno == 0 && *end == '\0';
}

static bool get_text(const cJSON *in, const char *key, char *out, size_t cap)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(in, key);
    if (!cJSON_IsString(v) || strlen(v->valuestring) >= cap)
        return false;
    strcpy(out, v->valuestring);
    return true;
}

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Eight hexadecimal digits a block. */
static int parse_blocks(const cJSON *v, npk_state *s)
{
    size_t n = cJSON_IsString(v) ? strlen(v->valuestring) : 1;
    if (n % 8 != 0 || n / 8 > NPK__BLOCKS)
        return -EINVAL;
    if (n == 0)
        return 0;
    s->blocks = malloc(n / 8 * sizeof(*s->blocks));
    if (!s->blocks)
        return -ENOMEM;
    s->block_count = n / 8;
    for (size_t i = 0; i < n; i++) {
        int d = digit_of(v->valuestring[i]);
        if (d < 0)
            return -EINVAL;
        s->blocks[i / 8] = i % 8 ? s->blocks[i / 8] << 4 | (uint32_t)d : (uint32_t)d;
    }
    return 0;
}

static int parse_names(const cJSON *list, npk_state *s)
{
    int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : -1;
    if (n < 0 || (unsigned)n > NPK__STATE_NAMES)
        return -EINVAL;
    if (n == 0)
        return 0;
    s->names = calloc((size_t)n, sizeof(*s->names));
    if (!s->names)
        return -ENOMEM;
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        const cJSON *name = cJSON_IsArray(item) ? item->child : NULL;
        npk_named *at = &s->names[s->name_count];
        if (!name || !cJSON_IsString(name) || !name->next || !get_u64(name->next, NULL, &at->start) ||
            !name->next->next || !get_u64(name->next->next, NULL, &at->stop) || name->next->next->next ||
            at->start > at->stop || name->valuestring[0] == '\0' || strlen(name->valuestring) > NPK__NAME_BYTES ||
            (s->name_count && strcmp(at[-1].name, name->valuestring) >= 0))
            return -EINVAL;
        at->name = strdup(name->valuestring);
        if (!at->name)
            return -ENOMEM;
        s->name_count++;
    }
    return 0;
}

static int parse_state(const cJSON *in, npk_state *s)
{
    uint64_t mtime = 0;
    const cJSON *strict = cJSON_GetObjectItemCaseSensitive(in, "strict");
    if (!cJSON_IsObject(in) || !get_u64(in, "generation", &s->generation) || !get_u64(in, "epoch", &s->epoch) ||
        !get_u64(in, "inode", &s->id.inode) || !get_u64(in, "birth", &s->id.birth_ns) ||
        !get_u64(in, "size", &s->size) || !get_u64(in, "mtime", &mtime) || !get_u64(in, "rows", &s->rows) ||
        !get_u64(in, "row_bytes", &s->row_bytes) || !get_u64(in, "data_offset", &s->data_offset) ||
        !get_u64(in, "stride", &s->stride) || !get_text(in, "dtype", s->dtype, sizeof(s->dtype)) ||
        (strict && !cJSON_IsBool(strict)))
        return -EINVAL;
    s->mtime_ns = (int64_t)mtime;
    s->strict = strict && cJSON_IsTrue(strict);
    if (s->row_bytes == 0 || s->stride == 0 || s->stride > INT64_MAX / NPK__BLOCKS || s->data_offset > INT64_MAX / 2)
        return -EINVAL;
    int err = parse_blocks(cJSON_GetObjectItemCaseSensitive(in, "blocks"), s);
    return err ? err : parse_names(cJSON_GetObjectItemCaseSensitive(in, "names"), s);
}

static int parse_root(const cJSON *root, npk_states *out, char why[128])
{
    uint64_t version = 0, policy = 0;
    if (!cJSON_IsObject(root) || !get_u64(root, "version", &version)) {
        snprintf(why, 128, "no state of an array");
        return -EINVAL;
    }
    if (version != VERSION) {
        snprintf(why, 128, "version %" PRIu64 "; this program knows %d", version, VERSION);
        return -ENOTSUP;
    }
    const cJSON *states = cJSON_GetObjectItemCaseSensitive(root, "states");
    int count = cJSON_IsArray(states) ? cJSON_GetArraySize(states) : 0;
    if (!get_text(root, "array", out->leaf, sizeof(out->leaf)) || out->leaf[0] == '\0' || strchr(out->leaf, '/') ||
        !get_u64(root, "policy", &policy) || policy > 100 || count < 1 || count > 2) {
        snprintf(why, 128, "a member is missing or out of its range");
        return -EINVAL;
    }
    out->policy = (unsigned)policy;
    for (int i = 0; i < count; i++) {
        int err = parse_state(cJSON_GetArrayItem(states, i), &out->state[i]);
        if (err) {
            snprintf(why, 128, "a member of state %d is missing or out of its range", i);
            return err;
        }
        out->count++;
    }
    return 0;
}

int npk__states_parse(const char *text, size_t n, npk_states *out, char why[128])
{
    npk_states s = {.count = 0};
    cJSON *root = n <= NPK__STATE_MAX ? cJSON_ParseWithLength(text, n) : NULL;
    if (!root) {
        snprintf(why, 128, "not JSON, cut short, or too long");
        return -EINVAL;
    }
    int err = parse_root(root, &s, why);
    cJSON_Delete(root);
    if (err)
        npk__states_clear(&s);
    else
        *out = s;
    return err;
}

/* ---- printing -------------------------------------------------------------------------------------------------- */

static cJSON *number(uint64_t n)
{
    char text[24];
    if (n <= EXACT)
        return cJSON_CreateNumber((double)n);
    snprintf(text, sizeof(text), "%" PRIu64, n);
    return cJSON_CreateString(text);
}

/* Adds an item that may be NULL for want of memory. */
static bool put(cJSON *to, const char *key, cJSON *item)
{
    if (item && (key ? cJSON_AddItemToObject(to, key, item) : cJSON_AddItemToArray(to, item)))
        return true;
    cJSON_Delete(item);
    return false;
}

static bool put_blocks(cJSON *to, const npk_state *s)
{
    char *text = malloc(s->block_count * 8 + 1);
    if (!text)
        return false;
    text[0] = '\0';
    for (size_t i = 0; i < s->block_count; i++)
        snprintf(text + i * 8, 9, "%08" PRIx32, s->blocks[i]);
    bool fine = put(to, "blocks", cJSON_CreateString(text));
    free(text);
    return fine;
}

static bool put_names(cJSON *to, const npk_state *s)
{
    cJSON *list = cJSON_CreateArray();
    bool fine = put(to, "names", list);
    for (size_t i = 0; fine && i < s->name_count; i++) {
        cJSON *item = cJSON_CreateArray();
        fine = put(list, NULL, item) && put(item, NULL, cJSON_CreateString(s->names[i].name)) &&
               put(item, NULL, number(s->names[i].start)) && put(item, NULL, number(s->names[i].stop));
    }
    return fine;
}

static bool put_state(cJSON *to, const npk_state *s)
{
    cJSON *o = cJSON_CreateObject();
    return put(to, NULL, o) && put(o, "generation", number(s->generation)) && put(o, "epoch", number(s->epoch)) &&
           put(o, "inode", number(s->id.inode)) && put(o, "birth", number(s->id.birth_ns)) &&
           put(o, "size", number(s->size)) && put(o, "mtime", number((uint64_t)s->mtime_ns)) &&
           put(o, "rows", number(s->rows)) && put(o, "row_bytes", number(s->row_bytes)) &&
           put(o, "data_offset", number(s->data_offset)) && put(o, "dtype", cJSON_CreateString(s->dtype)) &&
           put(o, "stride", number(s->stride)) && (!s->strict || put(o, "strict", cJSON_CreateTrue())) &&
           put_names(o, s) && put_blocks(o, s);
}

int npk__states_print(const npk_states *s, char **out)
{
    cJSON *root = cJSON_CreateObject(), *list = cJSON_CreateArray();
    bool fine = root && put(root, "version", number(VERSION)) && put(root, "array", cJSON_CreateString(s->leaf)) &&
                put(root, "policy", number(s->policy));
    if (!fine)
        cJSON_Delete(list);
    else
        fine = put(root, "states", list);
    for (unsigned i = 0; fine && i < s->count; i++)
        fine = put_state(list, &s->state[i]);
    char *text = fine ? cJSON_PrintUnformatted(root) : NULL;
    cJSON_Delete(root);
    if (!text)
        return -ENOMEM;
    *out = text;
    return 0;
}

/* ---- file names ------------------------------------------------------------------------------------------------ */

/* 200 bytes of a name, and room for ".<epoch>.del" behind it. */
#define WHOLE_NAME 200

void npk__state_stem(const char *leaf, char out[NPK__STEM_BYTES])
{
    size_t n = strlen(leaf);
    if (n <= WHOLE_NAME) {
        memcpy(out, leaf, n + 1);
        return;
    }
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (const unsigned char *c = (const unsigned char *)leaf; *c; c++)
        h = (h ^ *c) * UINT64_C(0x100000001b3);
    snprintf(out, NPK__STEM_BYTES, "%.180s~%016" PRIx64, leaf, h);
}

void npk__state_file(const char *stem, char out[256])
{
    snprintf(out, 256, "%.240s.json", stem);
}

static void inode_link(uint64_t inode, char out[32])
{
    snprintf(out, 32, "i.%" PRIu64, inode);
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static npk_state_print print_of(const struct stat *st)
{
    return (npk_state_print){.inode = st->st_ino,
                             .size = (uint64_t)st->st_size,
                             .mtime_ns = npk__mtime_ns(st),
                             .ctime_ns = st->st_ctim.tv_sec * INT64_C(1000000000) + st->st_ctim.tv_nsec};
}

npk_state_print npk__state_print_now(int dir_fd, const char *stem)
{
    char file[256], path[300];
    struct stat st;
    npk__state_file(stem, file);
    snprintf(path, sizeof(path), NPK__SIDECAR "/%s", file);
    return npk__fstatat(dir_fd, path, &st) == 0 ? print_of(&st) : (npk_state_print){.inode = 0};
}

static int read_file(int fd, const char *name, char **out, size_t *bytes, npk_state_print *print)
{
    struct stat st;
    int err = npk__fstat(fd, &st);
    if (!err && (!S_ISREG(st.st_mode) || st.st_size > NPK__STATE_MAX))
        return npk__fail(-EINVAL, "\"%s\": damaged, no file of at most %u bytes", name, NPK__STATE_MAX);
    char *text = err ? NULL : malloc((size_t)st.st_size + 1);
    if (!text)
        return npk__fail_errno(err ? err : -ENOMEM, name);
    ssize_t n = npk__pread_full(fd, text, (size_t)st.st_size, 0);
    if (n < 0) {
        free(text);
        return npk__fail_errno((int)n, name);
    }
    *out = text;
    *bytes = (size_t)n;
    *print = print_of(&st);
    return 0;
}

int npk__state_load(int dir_fd, const char *stem, npk_states *out)
{
    char name[256], why[128], *text = NULL;
    size_t bytes = 0;
    npk_state_print print = {.inode = 0};
    npk__state_file(stem, name);
    int fd = npk__sidecar_file(dir_fd, name, O_RDONLY);
    if (fd < 0)
        return fd == -ENOENT || fd == -ENOTDIR ? 0 : fd;
    int err = read_file(fd, name, &text, &bytes, &print);
    npk__close(&fd);
    if (err)
        return err;
    err = npk__states_parse(text, bytes, out, why);
    free(text);
    if (err == -ENOMEM)
        return npk__fail(err, "out of memory");
    if (err)
        return npk__fail(-EUCLEAN,
                         "\"%s\": what is known of deleted rows cannot be read (%s); npk check --set-aside shows all "
                         "rows, deleted ones among them",
                         stem, why);
    out->print = print;
    return 1;
}

int npk__state_stem_of(int dir_fd, uint64_t inode, char stem[NPK__STEM_BYTES])
{
    char link[32], path[64], target[256];
    inode_link(inode, link);
    snprintf(path, sizeof(path), NPK__SIDECAR "/%s", link);
    ssize_t n = npk__readlinkat(dir_fd, path, target, sizeof(target) - 1);
    if (n < 0)
        return n == -ENOENT || n == -EINVAL || n == -ENOTDIR || n == -ELOOP ? 0 : (int)n;
    target[n] = '\0';
    size_t suffix = strlen(".json");
    if ((size_t)n <= suffix || (size_t)n - suffix >= NPK__STEM_BYTES || strchr(target, '/') ||
        strcmp(target + n - suffix, ".json") != 0)
        return 0; /* somebody else's, or forged */
    memcpy(stem, target, (size_t)n - suffix);
    stem[(size_t)n - suffix] = '\0';
    return 1;
}

int npk__sidecar_sync(int dir_fd)
{
    int side = npk__sidecar_open(dir_fd, false);
    int err = side < 0 ? side : npk__fsync(side);
    npk__close(&side);
    return err;
}

/* Links by which the file is found when its array has another name. Each is replaced in one step, so that no moment is
 * without it. The link is a help, never the truth: where links cannot be made, or one is lost, an array that somebody else
 * renamed is shown whole until it gets its name back. */
static void link_inodes(int side, const npk_states *s, const char *file)
{
    for (unsigned i = 0; i < s->count; i++) {
        char link[32], made[40], target[256];
        inode_link(s->state[i].id.inode, link);
        ssize_t n = npk__readlinkat(side, link, target, sizeof(target));
        if (n == (ssize_t)strlen(file) && memcmp(target, file, (size_t)n) == 0)
            continue;
        if (n == -ENOENT) {
            (void)npk__symlinkat(file, side, link);
            continue;
        }
        snprintf(made, sizeof(made), "%s.new", link);
        (void)npk__unlinkat(side, made, 0);
        if (npk__symlinkat(file, side, made) == 0 && npk__renameat2(side, made, side, link, 0) != 0)
            (void)npk__unlinkat(side, made, 0);
    }
}

static int write_file(int side, const char *file, const char *text)
{
    char tmp[32];
    struct stat dir;
    int err = npk__fstat(side, &dir);
    int fd = err ? err : npk__tmp_make(side, (dir.st_mode & 0666) | 0600, tmp);
    if (fd < 0)
        return fd;
    if (geteuid() == 0 && dir.st_uid != 0) /* the user whose directory it is goes on with it */
        (void)npk__fchown(fd, dir.st_uid, dir.st_gid);
    err = npk__pwrite_full(fd, text, strlen(text), 0);
    if (!err)
        err = npk__fsync(fd);
    if (!err)
        err = npk__renameat2(side, tmp, side, file, 0);
    if (err)
        (void)npk__unlinkat(side, tmp, 0);
    (void)npk__ofd_lock(fd, F_UNLCK, 0, 0);
    npk__close(&fd);
    return err;
}

int npk__state_save(int dir_fd, const npk_states *s, bool sync_dir)
{
    char stem[NPK__STEM_BYTES], file[256], *text;
    npk__state_stem(s->leaf, stem);
    npk__state_file(stem, file);
    int err = npk__states_print(s, &text);
    if (err)
        return npk__fail(err, "out of memory");
    int side = npk__sidecar_open(dir_fd, true);
    if (side < 0) {
        free(text);
        return side;
    }
    err = write_file(side, file, text);
    if (!err) /* not before: whoever is found by a link alone must not lose what is known of it meanwhile */
        link_inodes(side, s, file);
    if (!err && sync_dir)
        err = npk__fsync(side);
    npk__close(&side);
    free(text);
    return err ? npk__fail_errno(err, file) : 0;
}

void npk__state_unlink_inode(int dir_fd, uint64_t inode, const char *stem)
{
    char link[32], path[64], linked[NPK__STEM_BYTES];
    if (npk__state_stem_of(dir_fd, inode, linked) <= 0 || strcmp(linked, stem) != 0)
        return;
    inode_link(inode, link);
    snprintf(path, sizeof(path), NPK__SIDECAR "/%s", link);
    (void)npk__unlinkat(dir_fd, path, 0);
}

int npk__state_remove(int dir_fd, const char *stem, const npk_states *s)
{
    char file[256];
    npk__state_file(stem, file);
    int side = npk__sidecar_open(dir_fd, false);
    if (side < 0)
        return side == -ENOENT ? 0 : side;
    int err = npk__unlinkat(side, file, 0);
    for (unsigned i = 0; i < s->count && (!err || err == -ENOENT); i++) {
        npk__dellog_name(stem, s->state[i].epoch, file);
        if (s->state[i].epoch)
            (void)npk__unlinkat(side, file, 0);
        npk__state_unlink_inode(dir_fd, s->state[i].id.inode, stem);
    }
    npk__close(&side);
    return err && err != -ENOENT ? npk__fail_errno(err, stem) : 0;
}

/* Give a file of the folder a second name. */
static int second_name(int side, const char *from, const char *to)
{
    int err = npk__linkat(side, from, side, to, 0);
    if (err == -EEXIST) { /* of an earlier try */
        (void)npk__unlinkat(side, to, 0);
        err = npk__linkat(side, from, side, to, 0);
    }
    return err;
}

int npk__state_make_way(int dir_fd, const char *stem, const npk_states *s)
{
    char moved[NPK__STEM_BYTES], from[256], to[256];
    int err = 0, side = npk__sidecar_open(dir_fd, false);
    if (side < 0)
        return side;
    snprintf(moved, sizeof(moved), "moved.%" PRIu64, s->state[s->count - 1].id.inode);
    for (unsigned i = 0; i < s->count && !err; i++) {
        npk__dellog_name(stem, s->state[i].epoch, from);
        npk__dellog_name(moved, s->state[i].epoch, to);
        err = s->state[i].epoch ? second_name(side, from, to) : 0;
    }
    npk__state_file(stem, from);
    npk__state_file(moved, to);
    if (!err)
        err = second_name(side, from, to);
    if (!err) {
        link_inodes(side, s, to);
        err = npk__fsync(side);
    }
    npk__close(&side);
    if (err)
        return npk__fail_errno(err, stem);
    return npk__state_remove(dir_fd, stem, s); /* the links lead elsewhere and stay */
}

static int rename_aside(int side, const char *file, char out[256])
{
    for (unsigned i = 0; i < 10000; i++) {
        struct stat st;
        snprintf(out, 256, "aside.%.230s.%u", file, i);
        if (npk__fstatat(side, out, &st) == -ENOENT)
            return npk__renameat2(side, file, side, out, 0);
    }
    return -EEXIST;
}

int npk__state_set_aside(int dir_fd, const char *stem, const npk_states *s, char out[256])
{
    char file[256], aside[256];
    int side = npk__sidecar_open(dir_fd, false);
    if (side < 0)
        return side;
    npk__state_file(stem, file);
    int err = rename_aside(side, file, aside);
    if (!err && out)
        memcpy(out, aside, sizeof(aside));
    for (unsigned i = 0; s && i < s->count && !err; i++) {
        npk__dellog_name(stem, s->state[i].epoch, file);
        if (s->state[i].epoch && (err = rename_aside(side, file, aside)) == -ENOENT)
            err = 0;
        npk__state_unlink_inode(dir_fd, s->state[i].id.inode, stem);
    }
    npk__close(&side);
    return err ? npk__fail_errno(err, stem) : 0;
}
