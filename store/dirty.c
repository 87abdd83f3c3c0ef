/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "dirty.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "lock.h"
#include "path.h"

/* ---- the file's layout, little-endian -------------------------------------------------------------------------- */

#define TABLE_FILE       "dirty"
#define PAGE             4096u
#define SLOT             512u
#define SLOTS_PER_BUCKET (PAGE / SLOT)
#define LEVELS           7 /* 8^0 + ... + 8^6 buckets: more than 2 million slots */
#define VERSION          1u
#define SLOT_MAGIC       0x454b504eu /* "NPKE" */

enum { FLAG_USED = 1, FLAG_MAY_ADOPT = 2 };

static const char table_magic[8] = {'N', 'P', 'K', 'D', 'I', 'R', 'T', 'Y'};

struct table_header {
    char magic[8];
    uint32_t version;
    uint32_t slot_bytes;
    uint8_t zero[48];
};

struct mark { /* bytes 384 to 512 of a slot */
    uint32_t set;
    uint32_t head_bytes;
    uint64_t size;
    uint64_t bytes;
    uint8_t head[NPK__MARK_HEAD];
    uint8_t zero[32];
    uint64_t sum; /* of the bytes before it, seeded with the entry's identity */
};

struct slot {
    uint32_t magic; /* 0: never used, so nothing was ever put into a deeper level for the want of it */
    uint32_t flags;
    uint64_t inode;
    uint64_t birth_ns;
    uint64_t rows_known;
    uint64_t data_offset;
    uint64_t row_bytes;
    uint32_t name_bytes;
    uint32_t zero;
    char name[256];
    uint64_t zero2;
    uint64_t sum; /* of the 320 bytes before it */
    uint8_t zero3[56];
    struct mark mark;
};

_Static_assert(sizeof(struct table_header) == 64, "FORMAT");
_Static_assert(sizeof(struct mark) == 128, "FORMAT");
_Static_assert(sizeof(struct slot) == SLOT && offsetof(struct slot, sum) == 320 && offsetof(struct slot, mark) == 384,
               "FORMAT");

/* Tells a torn or foreign slot from a whole one; it is no defence against somebody who wants to fool it. */
static uint64_t checksum(const void *bytes, size_t n, uint64_t seed)
{
    uint64_t h = seed ^ 0x9E3779B97F4A7C15u, word;
    for (size_t i = 0; i + 8 <= n; i += 8) {
        memcpy(&word, (const char *)bytes + i, 8);
        h = (h ^ le64toh(word)) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h;
}

static uint64_t mark_seed(const npk_file_id *id)
{
    return id->inode * 0x9E3779B97F4A7C15u ^ id->birth_ns;
}

static void mark_encode(const npk_dirty *e, struct mark *out)
{
    memset(out, 0, sizeof(*out));
    if (!e->marked)
        return;
    out->set = htole32(1);
    out->head_bytes = htole32(e->mark_head_bytes);
    out->size = htole64(e->mark_size);
    out->bytes = htole64(e->mark_bytes);
    memcpy(out->head, e->mark_head, sizeof(out->head));
    out->sum = htole64(checksum(out, offsetof(struct mark, sum), mark_seed(&e->id)));
}

static void slot_encode(const npk_dirty *e, struct slot *out)
{
    size_t name = strnlen(e->name, sizeof(e->name) - 1);
    memset(out, 0, sizeof(*out));
    out->magic = htole32(SLOT_MAGIC);
    out->flags = htole32(FLAG_USED | (e->may_adopt ? FLAG_MAY_ADOPT : 0));
    out->inode = htole64(e->id.inode);
    out->birth_ns = htole64(e->id.birth_ns);
    out->rows_known = htole64(e->rows_known);
    out->data_offset = htole64(e->data_offset);
    out->row_bytes = htole64(e->row_bytes);
    out->name_bytes = htole32((uint32_t)name);
    memcpy(out->name, e->name, name);
    out->sum = htole64(checksum(out, offsetof(struct slot, sum), 0));
    mark_encode(e, &out->mark);
}

/* Is it an entry? Fills *out then. */
static bool slot_decode(const struct slot *s, uint64_t offset, npk_dirty *out)
{
    uint32_t flags = le32toh(s->flags), name = le32toh(s->name_bytes);
    if (le32toh(s->magic) != SLOT_MAGIC || !(flags & FLAG_USED) || name >= sizeof(s->name) ||
        le64toh(s->sum) != checksum(s, offsetof(struct slot, sum), 0))
        return false;
    if (memchr(s->name, '\0', name) || memchr(s->name, '/', name) || s->row_bytes == 0)
        return false;
    memset(out, 0, sizeof(*out));
    out->id = (npk_file_id){.inode = le64toh(s->inode), .birth_ns = le64toh(s->birth_ns)};
    out->rows_known = le64toh(s->rows_known);
    out->data_offset = le64toh(s->data_offset);
    out->row_bytes = le64toh(s->row_bytes);
    out->may_adopt = flags & FLAG_MAY_ADOPT;
    memcpy(out->name, s->name, name);
    out->slot_offset = offset;
    const struct mark *m = &s->mark;
    if (le32toh(m->set) == 1 && le32toh(m->head_bytes) <= NPK__MARK_HEAD &&
        le64toh(m->sum) == checksum(m, offsetof(struct mark, sum), mark_seed(&out->id))) {
        out->marked = true;
        out->mark_size = le64toh(m->size);
        out->mark_bytes = le64toh(m->bytes);
        out->mark_head_bytes = le32toh(m->head_bytes);
        memcpy(out->mark_head, m->head, sizeof(m->head));
    }
    return true;
}

/* ---- looking for a slot ---------------------------------------------------------------------------------------- */

static uint64_t bucket_offset(const npk_file_id *id, unsigned level)
{
    uint64_t h = id->inode * 0x9E3779B97F4A7C15u;
    h = (h ^ h >> 29) * 0xbf58476d1ce4e5b9u; /* the low bits must mix: each level uses three more of them */
    h ^= h >> 32;
    uint64_t buckets = UINT64_C(1) << 3 * level;
    return PAGE * (1 + (buckets - 1) / 7 + (h & (buckets - 1)));
}

struct search {
    bool readable; /* the header is one of ours */
    bool empty;    /* the file has no byte */
    bool found;
    npk_dirty entry;      /* if found */
    uint64_t free_offset; /* a slot to put it into; 0: none */
};

/* Look into one bucket. Returns true if deeper levels cannot have the inode. */
static bool search_bucket(const struct slot *slots, uint64_t offset, const npk_file_id *id, struct search *out)
{
    bool last = false;
    for (unsigned i = 0; i < SLOTS_PER_BUCKET; i++) {
        const struct slot *s = &slots[i];
        uint64_t at = offset + i * SLOT;
        bool in_use = s->magic == htole32(SLOT_MAGIC) && (s->flags & htole32(FLAG_USED));
        last |= s->magic == 0;
        if (in_use && le64toh(s->inode) == id->inode) {
            out->found = slot_decode(s, at, &out->entry) && out->entry.id.birth_ns == id->birth_ns;
            if (out->found)
                return true;
            in_use = false; /* torn, or the same number with another birth: that file is gone */
        }
        if (!in_use && out->free_offset == 0)
            out->free_offset = at;
    }
    return last;
}

/* The file may be shorter than it was or hold anything: what cannot be read counts as never used. known: the header has
 * been found good on this descriptor before, and is not read again. */
static int table_search(int fd, const npk_file_id *id, bool known, struct search *out)
{
    union {
        struct {
            struct table_header header;
            uint8_t rest[PAGE - sizeof(struct table_header)];
            struct slot slots[SLOTS_PER_BUCKET];
        };
        uint8_t bytes[2 * PAGE];
    } page;
    out->found = false;
    out->readable = known;
    out->empty = false;
    out->free_offset = 0;
    for (unsigned level = 0; level < LEVELS; level++) {
        bool with_header = level == 0 && !known; /* it comes with level 0 by one read */
        uint64_t offset = bucket_offset(id, level);
        uint8_t *into = with_header ? page.bytes : page.bytes + PAGE;
        size_t bytes = with_header ? 2 * PAGE : PAGE;
        ssize_t n = npk__pread_full(fd, into, bytes, with_header ? 0 : offset);
        if (n < 0)
            return (int)n;
        memset(into + n, 0, bytes - (size_t)n);
        if (with_header) {
            out->empty = n == 0;
            out->readable = memcmp(page.header.magic, table_magic, sizeof(table_magic)) == 0 &&
                            le32toh(page.header.version) == VERSION && le32toh(page.header.slot_bytes) == SLOT;
            if (!out->readable)
                return 0;
        }
        if (search_bucket(page.slots, offset, id, out))
            return 0;
    }
    return 0;
}

static int not_found(int err)
{
    if (err == -ENOENT || err == -EACCES || err == -ENOTDIR || err == -ELOOP)
        return 0;
    return npk__fail_errno(err, NPK__SIDECAR "/" TABLE_FILE);
}

/* Search a table that was opened by name. Closes fd, or leaves it to be kept. */
static int find_in(int fd, const npk_file_id *id, npk_kept *kept, npk_dirty *out)
{
    struct search found;
    int err = table_search(fd, id, false, &found);
    if (err || !kept || !found.readable || !npk__kept_give(kept, fd))
        npk__close(&fd);
    if (err)
        return not_found(err);
    if (found.found)
        *out = found.entry;
    return found.found;
}

/* 1 and 0 as npk__dirty_find; -ESTALE: what is kept is no use, look by name. */
static int find_kept(npk_kept *kept, const npk_file_id *id, npk_dirty *out)
{
    struct search found;
    struct stat st;
    int err = table_search(kept->fd, id, true, &found);
    if (!err && found.found) {
        *out = found.entry;
        return 1;
    }
    if (!err && npk__fstat(kept->fd, &st) == 0 && st.st_nlink > 0)
        return 0;
    npk__kept_disown(kept); /* somebody removed the table; there may be another */
    return -ESTALE;
}

static int find_with(npk_kept *kept, int dir_fd, const npk_file_id *id, npk_dirty *out)
{
    int there = kept->fd >= 0 ? find_kept(kept, id, out) : -ESTALE;
    if (there != -ESTALE)
        return there;
    bool keep = kept->file && kept->fd < 0;
    int fd = npk__sidecar_file(dir_fd, TABLE_FILE, keep ? O_RDWR : O_RDONLY);
    if (keep && (fd == -EACCES || fd == -EROFS || fd == -EPERM)) {
        keep = false;
        fd = npk__sidecar_file(dir_fd, TABLE_FILE, O_RDONLY);
    }
    return fd < 0 ? not_found(fd) : find_in(fd, id, keep ? kept : NULL, out);
}

npk_file_id npk__file_id_of(const struct statx *st)
{
    uint64_t birth =
        st->stx_mask & STATX_BTIME ? (uint64_t)st->stx_btime.tv_sec * 1000000000u + st->stx_btime.tv_nsec : 0;
    return (npk_file_id){.inode = st->stx_ino, .birth_ns = birth};
}

int npk__file_id(int fd, npk_file_id *out)
{
    struct statx st;
    int err = npk__statx_fd(fd, &st);
    if (!err)
        *out = npk__file_id_of(&st);
    return err;
}

int npk__dirty_find(int dir_fd, const npk_file_id *id, npk_dirty *out)
{
    npk_kept kept;
    npk__kept_borrow(dir_fd, &kept);
    int there = find_with(&kept, dir_fd, id, out);
    npk__kept_return(&kept);
    return there;
}

int npk__dirty_find_locked(const npk_lock *l, int dir_fd, const npk_file_id *id, npk_dirty *out)
{
    npk_kept kept = npk__kept_of(l);
    return find_with(&kept, dir_fd, id, out);
}

int npk__dirty_find_at(int root_fd, const char *path, const npk_file_id *id, npk_dirty *out)
{
    if (!strchr(path, '/'))
        return npk__dirty_find(root_fd, id, out);
    int fd = npk__sidecar_file_of(root_fd, path, TABLE_FILE, O_RDONLY);
    return fd < 0 ? not_found(fd) : find_in(fd, id, NULL, out);
}

/* ---- changes --------------------------------------------------------------------------------------------------- */

/* What is there is no table of this version: keep it under another name and begin a new one. */
static int set_aside(int dir_fd)
{
    int side = npk__sidecar_open(dir_fd, false);
    if (side < 0)
        return side;
    int err = -EEXIST;
    for (unsigned i = 0; err == -EEXIST && i < 1000; i++) {
        char name[40];
        snprintf(name, sizeof(name), TABLE_FILE ".aside.%u", i);
        struct stat st;
        if (npk__fstatat(side, name, &st) == -ENOENT)
            err = npk__renameat2(side, TABLE_FILE, side, name, 0);
    }
    npk__close(&side);
    return err;
}

static int sync_names(int dir_fd)
{
    int side = npk__sidecar_open(dir_fd, false);
    if (side < 0)
        return side;
    int err = npk__fsync(side);
    npk__close(&side);
    int dir = npk__openat(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0)
        return err ? err : dir == -EACCES ? 0 : dir; /* a directory without r: nothing to sync it by */
    int err2 = npk__fsync(dir);
    npk__close(&dir);
    return err ? err : err2;
}

static int put_entry(int fd, const npk_dirty *e)
{
    struct search found;
    int err = table_search(fd, &e->id, true, &found);
    if (err)
        return err;
    uint64_t at = found.found ? found.entry.slot_offset : found.free_offset;
    if (at == 0)
        return -ENOSPC;
    struct slot slot;
    slot_encode(e, &slot);
    return npk__pwrite_full(fd, &slot, sizeof(slot), at);
}

/* The open table, made if need be. The table's lock is held. */
static int table_open(int dir_fd, bool *made)
{
    static const npk_file_id any = {0};
    *made = false;
    for (unsigned tries = 0; tries < 2; tries++) {
        int fd = npk__sidecar_file(dir_fd, TABLE_FILE, O_RDWR | O_CREAT);
        if (fd < 0)
            return fd;
        struct search found;
        int err = table_search(fd, &any, false, &found);
        if (!err && found.readable)
            return fd;
        if (!err && found.empty) {
            struct table_header h = {.version = htole32(VERSION), .slot_bytes = htole32(SLOT)};
            memcpy(h.magic, table_magic, sizeof(table_magic));
            *made = true;
            err = npk__pwrite_full(fd, &h, sizeof(h), 0);
            if (!err)
                err = npk__ftruncate(fd, 2 * PAGE); /* level 0 whole, so that one read gets it */
            if (!err)
                return fd;
        }
        close(fd);
        if (!err)
            err = set_aside(dir_fd);
        if (err)
            return err;
    }
    return -EIO;
}

int npk__dirty_add_many(int dir_fd, const npk_dirty *entries, size_t count)
{
    npk_lock lock;
    int err = npk__lock_slot(dir_fd, NPK_SLOT_DIRTY, NPK_LOCK_EXCLUSIVE, &lock);
    if (err)
        return err;
    bool made;
    int fd = table_open(dir_fd, &made);
    err = fd < 0 ? fd : 0;
    for (size_t i = 0; i < count && !err; i++)
        err = put_entry(fd, &entries[i]);
    if (!err)
        err = npk__fdatasync(fd);
    if (!err && made)
        err = sync_names(dir_fd);
    npk__close(&fd);
    npk__unlock(&lock);
    return err ? npk__fail_errno(err, NPK__SIDECAR "/" TABLE_FILE) : 0;
}

int npk__dirty_add(int dir_fd, const npk_dirty *e)
{
    return npk__dirty_add_many(dir_fd, e, 1);
}

/* Write bytes of an entry's slot in place. */
static int rewrite(int dir_fd, const npk_dirty *e, const void *bytes, size_t n, size_t within)
{
    npk_kept kept;
    npk__kept_borrow(dir_fd, &kept);
    int own = kept.fd >= 0 ? -1 : npk__sidecar_file(dir_fd, TABLE_FILE, O_WRONLY);
    int fd = kept.fd >= 0 ? kept.fd : own;
    int err = fd < 0 ? fd : npk__pwrite_full(fd, bytes, n, e->slot_offset + within);
    npk__close(&own);
    npk__kept_return(&kept);
    return err ? npk__fail_errno(err, NPK__SIDECAR "/" TABLE_FILE) : 0;
}

int npk__dirty_update(int dir_fd, const npk_dirty *e)
{
    struct slot slot;
    slot_encode(e, &slot);
    return rewrite(dir_fd, e, &slot, offsetof(struct slot, mark), 0);
}

int npk__dirty_remove(int dir_fd, const npk_file_id *id, bool durable)
{
    npk_dirty e;
    int there = npk__dirty_find(dir_fd, id, &e);
    if (there <= 0)
        return there;
    npk_lock lock;
    int err = npk__lock_slot(dir_fd, NPK_SLOT_DIRTY, NPK_LOCK_EXCLUSIVE, &lock);
    if (err)
        return err;
    struct search found = {0};
    int fd = npk__sidecar_file(dir_fd, TABLE_FILE, O_RDWR);
    err = fd < 0 ? fd : table_search(fd, id, false, &found);
    if (!err && found.found) {
        const struct slot freed = {.magic = htole32(SLOT_MAGIC)};
        err = npk__pwrite_full(fd, &freed, sizeof(freed), found.entry.slot_offset);
        if (!err && durable)
            err = npk__fdatasync(fd);
    }
    npk__close(&fd);
    npk__unlock(&lock);
    if (err == -ENOENT)
        return 0;
    return err ? npk__fail_errno(err, NPK__SIDECAR "/" TABLE_FILE) : found.found;
}

int npk__dirty_mark(int dir_fd, npk_dirty *e, uint64_t size, uint64_t bytes, const void *head)
{
    npk_dirty marked = *e;
    marked.marked = true;
    marked.mark_size = size;
    marked.mark_bytes = bytes;
    marked.mark_head_bytes = bytes < NPK__MARK_HEAD ? (uint32_t)bytes : NPK__MARK_HEAD;
    memset(marked.mark_head, 0, sizeof(marked.mark_head));
    memcpy(marked.mark_head, head, marked.mark_head_bytes);
    struct mark m;
    mark_encode(&marked, &m);
    int err = rewrite(dir_fd, e, &m, sizeof(m), offsetof(struct slot, mark));
    if (!err)
        *e = marked;
    return err;
}

int npk__dirty_unmark(int dir_fd, npk_dirty *e)
{
    const struct mark none = {0};
    int err = rewrite(dir_fd, e, &none, sizeof(none), offsetof(struct slot, mark));
    if (!err)
        e->marked = false;
    return err;
}

/* ---- the rest -------------------------------------------------------------------------------------------------- */

static int each_in(int fd, npk_dirty_visit *visit, void *ctx)
{
    struct search header;
    static const npk_file_id any = {0};
    int err = table_search(fd, &any, false, &header);
    if (err || !header.readable)
        return err;
    union {
        struct slot slots[SLOTS_PER_BUCKET];
        uint8_t bytes[PAGE];
    } page;
    for (off_t at = PAGE;; at += PAGE) {
        off_t data = lseek(fd, at, SEEK_DATA); /* a big table is mostly holes */
        if (data < 0 && errno == ENXIO)
            return 0;
        if (data > at)
            at = data - data % (off_t)PAGE;
        ssize_t n = npk__pread_full(fd, page.bytes, PAGE, (uint64_t)at);
        if (n <= 0)
            return (int)n;
        memset(page.bytes + n, 0, PAGE - (size_t)n);
        for (unsigned i = 0; i < SLOTS_PER_BUCKET; i++) {
            npk_dirty e;
            if (page.slots[i].magic == 0 || !slot_decode(&page.slots[i], (uint64_t)at + i * SLOT, &e))
                continue;
            int stop = visit(ctx, &e);
            if (stop)
                return stop;
        }
    }
}

int npk__dirty_each(int dir_fd, npk_dirty_visit *visit, void *ctx)
{
    int fd = npk__sidecar_file(dir_fd, TABLE_FILE, O_RDONLY);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    int err = each_in(fd, visit, ctx);
    close(fd);
    return err;
}

int npk__dirty_copy(int from_dir, int to_dir, int fd, const char *new_leaf)
{
    npk_file_id id;
    npk_dirty e;
    int err = npk__file_id(fd, &id);
    if (err)
        return npk__fail_errno(err, new_leaf);
    int there = npk__dirty_find(from_dir, &id, &e);
    if (there <= 0)
        return there;
    size_t n = strnlen(new_leaf, sizeof(e.name) - 1);
    memset(e.name, 0, sizeof(e.name));
    memcpy(e.name, new_leaf, n);
    return npk__dirty_add(to_dir, &e);
}

int npk__dirty_sync(int dir_fd)
{
    int fd = npk__sidecar_file(dir_fd, TABLE_FILE, O_RDWR);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    int err = npk__fdatasync(fd);
    close(fd);
    return err ? npk__fail_errno(err, NPK__SIDECAR "/" TABLE_FILE) : 0;
}
