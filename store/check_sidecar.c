/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "dirty.h"
#include "fail.h"
#include "io.h"
#include "journal.h"
#include "lock.h"
#include "lower.h"
#include "path.h"
#include "redo.h"
#include "store.h"
#include "swap.h"
#include "walk.h"

/* The table's layout as FORMAT.md gives it. dirty.c takes what does not fit for free space; here it is told. */
#define PAGE          4096u
#define SLOT          512u
#define TABLE_VERSION 1u
#define SLOT_MAGIC    0x454b504eu
#define SLOT_USED     1u

struct folder {
    const npk_checking *c;
    int dir_fd, side_fd;
    char path[NPK__PATH_BYTES + 16]; /* of the sidecar folder */
    npk_dirty *stale;                /* entries whose file has not the name of the entry */
    size_t stale_count, stale_capacity;
    uint64_t *whole; /* offsets of the slots that are entries, ascending */
    size_t whole_count, whole_capacity;
};

static bool repairs(const struct folder *f)
{
    return f->c->flags & NPK_CHECK_REPAIR;
}

static void path_in(const struct folder *f, const char *name, char out[NPK__PATH_BYTES + 300])
{
    snprintf(out, NPK__PATH_BYTES + 300, "%s/%s", f->path, name);
}

/* ---- files in the folder --------------------------------------------------------------------------------------- */

/* Has a living process this temporary file? */
static bool is_held(const struct folder *f, const char *name)
{
    int fd = npk__openat(f->side_fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return fd == -ENOENT; /* gone: there is nothing to tell */
    int err = npk__ofd_lock(fd, F_WRLCK, 0, 0);
    if (!err)
        (void)npk__ofd_lock(fd, F_UNLCK, 0, 0);
    npk__close(&fd);
    return err == -EAGAIN;
}

static int check_temporary(struct folder *f, const char *name, const char *path)
{
    struct stat st;
    if (is_held(f, name) || npk__fstatat(f->side_fd, name, &st) != 0)
        return 0;
    if (repairs(f)) {
        (void)npk__swap_sweep(f->side_fd);
        struct stat again;
        bool gone = npk__fstatat(f->side_fd, name, &again) == -ENOENT;
        return npk__finding(f->c, NPK_NOTE, path, "F15", gone, "\"%s\": %" PRId64 " bytes that a dead process left%s",
                            path, (int64_t)st.st_size, gone ? "; removed" : "; could not be removed");
    }
    return npk__finding(f->c, NPK_NOTE, path, "F15", false,
                        "\"%s\": %" PRId64 " bytes that a dead process left; --repair removes them", path,
                        (int64_t)st.st_size);
}

static int check_name(void *ctx, const char *name, unsigned char type)
{
    struct folder *f = ctx;
    struct stat st;
    char path[NPK__PATH_BYTES + 300];
    (void)type;
    path_in(f, name, path);
    if (strncmp(name, NPK__TMP_PREFIX, strlen(NPK__TMP_PREFIX)) == 0)
        return check_temporary(f, name, path);
    if (strncmp(name, NPK__REDO_PREFIX, strlen(NPK__REDO_PREFIX)) == 0)
        return npk__check_redo_file(f->c, f->dir_fd, f->side_fd, name, path);
    if (strcmp(name, NPK__JOURNAL_FILE) == 0)
        return npk__check_group_journal(f->c, f->side_fd, path);
    if (strcmp(name, NPK__BATCH_DIR) == 0)
        return 0; /* npk__check_batches */
    if (strcmp(name, NPK__LOWER_FILE) == 0 && strchr(f->path, '/') == NULL)
        return 0; /* npk__check_lower */
    if (strcmp(name, "lock") == 0 || strcmp(name, "dirty") == 0) {
        if (npk__fstatat(f->side_fd, name, &st) == 0 && !S_ISREG(st.st_mode))
            return npk__finding(f->c, NPK_DAMAGE, path, "F11", false, "\"%s\": not a regular file; remove it", path);
        return 0;
    }
    int known = npk__check_marks_file(f->c, f->dir_fd, f->side_fd, name, path);
    if (known <= 0)
        return known;
    bool aside = strncmp(name, "aside.", 6) == 0 || strncmp(name, "dirty.aside.", 12) == 0;
    return npk__finding(f->c, NPK_NOTE, path, "F16", false,
                        aside ? "\"%s\": set aside earlier; look at it and remove it"
                              : "\"%s\": nothing that this version of the engine knows; left as it is",
                        path);
}

/* ---- the dirty table ------------------------------------------------------------------------------------------- */

static int keep_stale(struct folder *f, const npk_dirty *e)
{
    if (f->stale_count == f->stale_capacity) {
        size_t capacity = f->stale_capacity ? 2 * f->stale_capacity : 16;
        npk_dirty *stale = realloc(f->stale, capacity * sizeof(*stale));
        if (!stale)
            return npk__fail(-ENOMEM, "out of memory");
        f->stale = stale;
        f->stale_capacity = capacity;
    }
    f->stale[f->stale_count++] = *e;
    return 0;
}

static int keep_offset(struct folder *f, uint64_t offset)
{
    if (f->whole_count == f->whole_capacity) {
        size_t capacity = f->whole_capacity ? 2 * f->whole_capacity : 64;
        uint64_t *whole = realloc(f->whole, capacity * sizeof(*whole));
        if (!whole)
            return npk__fail(-ENOMEM, "out of memory");
        f->whole = whole;
        f->whole_capacity = capacity;
    }
    f->whole[f->whole_count++] = offset;
    return 0;
}

static int visit_entry(void *ctx, const npk_dirty *e)
{
    struct folder *f = ctx;
    struct stat st;
    int err = keep_offset(f, e->slot_offset);
    if (err)
        return err;
    if (*e->name && npk__fstatat(f->dir_fd, e->name, &st) == 0 && st.st_ino == e->id.inode)
        return 0;
    return keep_stale(f, e);
}

/* An entry's file that has been renamed outside is still here under another name. */
static int strike_named(void *ctx, const char *name, unsigned char type)
{
    struct folder *f = ctx;
    struct stat st;
    if (type == DT_DIR || npk__fstatat(f->dir_fd, name, &st) != 0)
        return 0;
    for (size_t i = 0; i < f->stale_count; i++)
        if (f->stale[i].id.inode == st.st_ino)
            f->stale[i] = f->stale[--f->stale_count];
    return 0;
}

static int check_stale(struct folder *f)
{
    char path[NPK__PATH_BYTES + 300];
    int err = f->stale_count ? npk__each_name(f->dir_fd, strike_named, f) : 0;
    path_in(f, "dirty", path);
    for (size_t i = 0; i < f->stale_count && !err; i++) {
        const npk_dirty *e = &f->stale[i];
        bool gone = repairs(f) && npk__dirty_remove(f->dir_fd, &e->id, false) >= 0;
        err =
            npk__finding(f->c, NPK_NOTE, path, "F14", gone, "\"%s\": the entry of \"%s\", which is not here any more%s",
                         path, e->name, gone ? "; removed" : "; --repair removes it");
    }
    return err;
}

static int compare_offsets(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* A slot that says it is used, or holds something else than a slot, and is no entry. */
static bool is_damaged(const struct folder *f, const uint8_t *slot, uint64_t offset)
{
    uint32_t magic, flags;
    memcpy(&magic, slot, 4);
    memcpy(&flags, slot + 4, 4);
    if (magic == 0 || (le32toh(magic) == SLOT_MAGIC && !(le32toh(flags) & SLOT_USED)))
        return false;
    return !f->whole_count || !bsearch(&offset, f->whole, f->whole_count, sizeof(offset), compare_offsets);
}

/* Free slots keep their magic, so that a search does not end at them. */
static int free_slot(int fd, uint64_t offset)
{
    uint8_t slot[SLOT] = {0};
    const uint32_t magic = htole32(SLOT_MAGIC);
    memcpy(slot, &magic, sizeof(magic));
    return npk__pwrite_full(fd, slot, sizeof(slot), offset);
}

static int find_damaged(const struct folder *f, int fd, size_t *damaged, size_t *freed)
{
    uint8_t page[PAGE];
    *damaged = *freed = 0;
    for (off_t at = PAGE;; at += PAGE) {
        off_t data = lseek(fd, at, SEEK_DATA); /* a big table is mostly holes */
        if (data > at)
            at = data - data % PAGE;
        ssize_t n = npk__pread_full(fd, page, sizeof(page), (uint64_t)at);
        if (n <= 0)
            return (int)n;
        memset(page + n, 0, sizeof(page) - (size_t)n);
        for (size_t i = 0; i < PAGE; i += SLOT) {
            if (!is_damaged(f, page + i, (uint64_t)at + i))
                continue;
            ++*damaged;
            *freed += repairs(f) && free_slot(fd, (uint64_t)at + i) == 0;
        }
    }
}

static bool header_fits(int fd)
{
    struct {
        char magic[8];
        uint32_t version, slot_bytes;
    } h = {0};
    return npk__pread_full(fd, &h, sizeof(h), 0) == sizeof(h) && memcmp(h.magic, "NPKDIRTY", 8) == 0 &&
           le32toh(h.version) == TABLE_VERSION && le32toh(h.slot_bytes) == SLOT;
}

/* Made, and lost by a loss of power before its first sync: nothing in it was ever relied upon. */
static bool header_is_blank(int fd)
{
    static const char zeros[64];
    char h[64] = {0};
    return npk__pread_full(fd, h, sizeof(h), 0) >= 0 && memcmp(h, zeros, sizeof(h)) == 0;
}

static int check_slots(struct folder *f, int fd, const char *path)
{
    size_t damaged = 0, freed = 0;
    struct stat st;
    int err = npk__fstat(fd, &st);
    if (err || st.st_size == 0)
        return err; /* made, and nothing written yet */
    if (header_is_blank(fd))
        return npk__finding(f->c, NPK_NOTE, path, "F12", false,
                            "\"%s\": a table that was being made when the power went; the next change sets it aside", path);
    if (!header_fits(fd))
        return npk__finding(
            f->c, NPK_DAMAGE, path, "F12", false,
            "\"%s\": not a table of version %u; what was being written when it was damaged is not recovered, "
            "and the next change sets it aside",
            path, TABLE_VERSION);
    err = npk__dirty_each(f->dir_fd, visit_entry, f);
    if (!err && f->whole_count)
        qsort(f->whole, f->whole_count, sizeof(*f->whole), compare_offsets);
    if (!err)
        err = find_damaged(f, fd, &damaged, &freed);
    if (err || damaged == 0)
        return err;
    return npk__finding(f->c, NPK_DAMAGE, path, "F13", freed == damaged,
                        "\"%s\": %zu of its slots are damaged%s; what they said is lost", path, damaged,
                        freed == damaged ? " and were freed" : ", --repair frees them");
}

static int check_table(struct folder *f)
{
    char path[NPK__PATH_BYTES + 300];
    path_in(f, "dirty", path);
    int fd = npk__sidecar_file(f->dir_fd, "dirty", repairs(f) ? O_RDWR : O_RDONLY);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return npk__finding(f->c, NPK_DAMAGE, path, "F11", false, "\"%s\": cannot be opened (%s)", path,
                            strerrorname_np(-fd));
    /* Without others changing it meanwhile, or a slot being written would look damaged. */
    npk_lock lock = NPK_LOCK_NONE;
    int err = npk__lock_slot(f->dir_fd, NPK_SLOT_DIRTY, repairs(f) ? NPK_LOCK_EXCLUSIVE : 0, &lock);
    if (!err)
        err = check_slots(f, fd, path);
    npk__unlock(&lock);
    npk__close(&fd);
    return err ? err : check_stale(f);
}

/* ---- the folder ------------------------------------------------------------------------------------------------ */

static int check_reserved(const npk_checking *c, int dir_fd, const char *dir)
{
    struct stat st;
    char path[NPK__PATH_BYTES + 16];
    if (npk__fstatat(dir_fd, NPK__CONTROLS, &st) != 0)
        return 0;
    snprintf(path, sizeof(path), "%s%s" NPK__CONTROLS, dir, *dir ? "/" : "");
    return npk__finding(c, NPK_WARNING, path, "F17", false,
                        "\"%s\": the name is reserved, so a mount hides it and arrays below it have no name; rename it",
                        path);
}

int npk__check_sidecar(const npk_checking *c, int dir_fd, const char *dir)
{
    struct folder f = {.c = c, .dir_fd = dir_fd, .side_fd = -1};
    struct stat st;
    snprintf(f.path, sizeof(f.path), "%s%s" NPK__SIDECAR, dir, *dir ? "/" : "");
    int err = check_reserved(c, dir_fd, dir);
    if (err || npk__fstatat(dir_fd, NPK__SIDECAR, &st) == -ENOENT)
        return err;
    if (!S_ISDIR(st.st_mode))
        return npk__finding(c, NPK_DAMAGE, f.path, "F11", false,
                            "\"%s\": not a directory, so no array beside it can be changed; rename it", f.path);
    f.side_fd = npk__sidecar_open(dir_fd, false);
    if (f.side_fd < 0)
        return npk__finding(c, NPK_DAMAGE, f.path, "F11", false, "\"%s\": cannot be opened (%s)", f.path,
                            strerrorname_np(-f.side_fd));
    err = npk__each_name(f.side_fd, check_name, &f);
    if (!err)
        err = check_table(&f);
    npk__close(&f.side_fd);
    free(f.stale);
    free(f.whole);
    return err;
}
