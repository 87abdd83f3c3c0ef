/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dirty.h"
#include "fail.h"
#include "io.h"
#include "lease.h"
#include "lower.h"
#include "path.h"
#include "settle.h"
#include "store.h"
#include "swap.h"
#include "target.h"
#include "walk.h"

int npk__finding(const npk_checking *c, npk_severity severity, const char *path, const char *rule, bool repaired,
                 const char *fmt, ...)
{
    char sentence[NPK__SENTENCE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(sentence, sizeof(sentence), fmt, args);
    va_end(args);
    npk_finding f = {.severity = severity, .path = path, .rule = rule, .sentence = sentence, .repaired = repaired};
    return c->visit(c->ctx, &f);
}

/* One array under examination. */
struct subject {
    const npk_checking *c;
    int dir_fd, fd;
    const char *path;
    char name[NPK__PATH_BYTES];
    const char *leaf;
    npk_info info;
    npk_settle_state state;
    bool entered;
    npk_dirty entry;
    int writer; /* of npk__lease_probe: 0 nobody writes, -EBUSY somebody does, else nobody knows */
};

static bool repairs(const struct subject *x)
{
    return x->c->flags & NPK_CHECK_REPAIR;
}

/* A repair that was tried and failed is told in the finding, not as the result of the check. */
static const char *outcome(int err)
{
    return err ? npk_error() : "";
}

/* ---- repairs --------------------------------------------------------------------------------------------------- */

/* Open the array as any change does: takes a dead append back, counts rows of a session, voids marks. */
static int repair_by_opening(const struct subject *x)
{
    npk_target t;
    int err = npk__target_lock(x->c->s, x->name, &t);
    if (!err)
        err = npk__target_open(&t, NPK_TARGET_TAIL);
    npk__target_release(&t);
    return err;
}

static int repair_part_row(const struct subject *x, char aside[256])
{
    npk_target t;
    int err = npk__target_lock(x->c->s, x->name, &t);
    if (!err)
        err = npk__target_open(&t, NPK_TARGET_TAIL | NPK_TARGET_ALONE);
    if (!err && t.state == NPK_PART_ROW)
        err = npk__set_tail_aside(t.dir.fd, t.leaf, t.fd, t.info.file_bytes - t.info.tail_bytes, aside);
    npk__target_release(&t);
    return err;
}

/* Beyond repair: it keeps its bytes under a name that nobody takes for an array. */
static int set_file_aside(const struct subject *x, char aside[256])
{
    npk_target t;
    if (x->writer == -EBUSY)
        return npk__fail(-EBUSY, "\"%s\": a program is writing it", x->path);
    int err = npk__target_lock(x->c->s, x->name, &t);
    if (!err)
        err = -EEXIST;
    for (unsigned i = 0; err == -EEXIST && i < 1000; i++) {
        struct stat st;
        npk__unfinished_name(x->leaf, i, aside);
        if (npk__fstatat(t.dir.fd, aside, &st) == -ENOENT)
            err = npk__renameat2(t.dir.fd, t.leaf, t.dir.fd, aside, 0);
    }
    if (err)
        npk__fail_errno(err, x->path);
    npk__target_release(&t);
    return err;
}

/* ---- rules ----------------------------------------------------------------------------------------------------- */

static int rule_unfinished(struct subject *x)
{
    const npk_header *h = &x->info.header;
    uint64_t promised = h->data_offset + h->data_bytes, there = x->info.file_bytes;
    if (promised <= there)
        return 0;
    if (x->entered &&
        x->state == NPK_UNFINISHED) { /* after power loss: the data of the last rows was not on the disk */
        uint64_t rows = (there - h->data_offset) / h->row_bytes;
        npk_info after = {0};
        int err = -EAGAIN;
        if (repairs(x)) {
            err = npk_settle(x->c->s, x->path, x->fd, NPK_SETTLE_CUT, NULL, &after);
            if (!err && after.rows != rows)
                err = npk__fail(-EBUSY, "a program has it open for writing");
            npk_info_clear(&after);
        }
        return npk__finding(x->c, NPK_DAMAGE, x->path, "F3", err == 0,
                            "\"%s\": the header counts %" PRIu64 " rows and %" PRIu64 " are whole%s%s", x->path,
                            x->info.rows, rows,
                            err == 0     ? "; it counts these now"
                            : repairs(x) ? "; not repaired: "
                                         : "; --repair counts these",
                            err && repairs(x) ? npk_error() : "");
    }
    char aside[256];
    int err = repairs(x) ? set_file_aside(x, aside) : -EAGAIN;
    return npk__finding(x->c, NPK_DAMAGE, x->path, "F3", err == 0,
                        "\"%s\": unfinished, the header promises %" PRIu64 " bytes and the file has %" PRIu64 "%s%s",
                        x->path, promised, there,
                        err == 0     ? "; set aside as "
                        : repairs(x) ? "; not set aside: "
                                     : "; save it again, or --repair sets it aside",
                        err == 0     ? aside
                        : repairs(x) ? outcome(err)
                                     : "");
}

/* Rows of a session that are not counted, because their writer or the daemon was killed. */
static int rule_uncounted(struct subject *x)
{
    uint64_t rows = x->info.tail_bytes / x->info.header.row_bytes;
    int err = repairs(x) ? repair_by_opening(x) : -EAGAIN;
    npk_info after = {0};
    if (!err)
        err = npk__fd_facts(x->fd, &after, NULL);
    bool counted = !err && after.rows >= x->info.rows + rows, cut = !err && after.file_bytes < x->info.file_bytes;
    npk_info_clear(&after);
    if (!err && !counted && !cut) {
        err = npk_make_room(x->c->s, x->path);
        counted = !err;
    }
    return npk__finding(x->c, NPK_WARNING, x->path, "F4", counted || cut,
                        "\"%s\": %" PRIu64 " whole rows that were appended are not counted yet%s%s", x->path, rows,
                        cut          ? "; they were part of an append that had not returned, and were taken back"
                        : counted    ? "; they are now"
                        : repairs(x) ? "; not repaired: "
                                     : "; the next append, open through a mount or --repair counts them",
                        !counted && !cut && repairs(x) ? outcome(err) : "");
}

static int rule_foreign_tail(struct subject *x)
{
    uint64_t row_bytes = x->info.header.row_bytes, rows = row_bytes ? x->info.tail_bytes / row_bytes : 0;
    if (npk__tail_is_npy(x->fd, &x->info))
        return npk__finding(x->c, NPK_NOTE, x->path, "F6", false,
                            "\"%s\": %" PRIu64 " bytes behind its data that begin like another array; left as they are",
                            x->path, x->info.tail_bytes);
    bool adopt = (x->c->flags & NPK_CHECK_ADOPT) && rows > 0;
    int err = adopt ? npk_extend(x->c->s, x->name, x->info.rows + rows) : -EAGAIN;
    return npk__finding(x->c, NPK_WARNING, x->path, "F5", err == 0,
                        "\"%s\": %" PRIu64 " bytes beyond its data (%" PRIu64
                        " whole rows) that nobody saw being appended%s%s",
                        x->path, x->info.tail_bytes, rows,
                        err == 0   ? "; they count now"
                        : adopt    ? "; not adopted: "
                        : rows > 0 ? "; --adopt counts the rows"
                                   : "",
                        adopt ? outcome(err) : "");
}

static int rule_part_row(struct subject *x)
{
    char aside[256] = "";
    if (x->writer == -EBUSY)
        return npk__finding(x->c, NPK_NOTE, x->path, "F7", false,
                            "\"%s\": %" PRIu64 " bytes of a row that a program is writing", x->path,
                            x->info.tail_bytes);
    int err = repairs(x) ? repair_part_row(x, aside) : -EAGAIN;
    bool gone = err == 0 && !*aside; /* the append that it was a part of was taken back */
    return npk__finding(x->c, NPK_WARNING, x->path, "F7", err == 0,
                        "\"%s\": %" PRIu64 " bytes of an unfinished row at its end%s%s", x->path, x->info.tail_bytes,
                        gone         ? "; they were part of an append that had not returned, and were taken back"
                        : err == 0   ? "; set aside as "
                        : repairs(x) ? "; not repaired: "
                                     : "; --repair sets them aside",
                        err == 0     ? aside
                        : repairs(x) ? outcome(err)
                                     : "");
}

static int rule_tail(struct subject *x)
{
    if (x->info.tail_bytes == 0)
        return 0;
    bool in_session = x->entered && x->entry.may_adopt && !npk__tail_is_npy(x->fd, &x->info);
    if (x->state == NPK_TAIL && in_session)
        return rule_uncounted(x);
    if (x->state == NPK_PART_ROW && !npk__tail_is_npy(x->fd, &x->info))
        return rule_part_row(x);
    return rule_foreign_tail(x);
}

/* The lock is free and the mark is set: the append is dead. While it lives the mark is as it should be. */
static int rule_mark(struct subject *x)
{
    npk_lock lock = NPK_LOCK_NONE;
    if (!x->entered || !x->entry.marked || x->state != NPK_SETTLED)
        return 0;
    if (npk__lock_array(x->dir_fd, x->leaf, NPK_LOCK_TRY, &lock) != 0)
        return 0;
    npk__unlock(&lock);
    int err = repairs(x) ? repair_by_opening(x) : -EAGAIN;
    return npk__finding(x->c, NPK_NOTE, x->path, "F9", err == 0,
                        "\"%s\": marked for an append whose process has died%s%s", x->path,
                        err == 0     ? "; the mark is gone"
                        : repairs(x) ? "; not repaired: "
                                     : "; the next append or --repair removes the mark",
                        repairs(x) ? outcome(err) : "");
}

/* Nobody writes, so the session can end. One that only a repair has begun ends without a word. */
static int rule_session(struct subject *x)
{
    npk_file_id id;
    npk_dirty e;
    if ((!x->entered && !x->c->flags) || x->writer == -EBUSY)
        return 0;
    /* By its name again: a repair may have made another file of it, or set it aside. */
    int fd = npk__openat(x->dir_fd, x->leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0 || npk__file_id(fd, &id) != 0 || npk__dirty_find(x->dir_fd, &id, &e) <= 0) {
        npk__close(&fd);
        return 0;
    }
    bool end = repairs(x) || !x->entered;
    int err = end ? npk_session_end(x->c->s, x->path, fd) : -EAGAIN;
    bool ended = err == 0 && npk__dirty_find(x->dir_fd, &id, &e) == 0;
    npk__close(&fd);
    if (!x->entered)
        return 0;
    return npk__finding(x->c, NPK_NOTE, x->path, "F10", ended, "\"%s\": its session of writing was not ended%s%s",
                        x->path,
                        ended ? "; synced and ended"
                        : end ? "; not ended: "
                              : "; npk sync or --repair ends it",
                        !ended && end ? outcome(err) : "");
}

static int check_open_file(struct subject *x)
{
    npk_file_id id;
    int err = npk__fd_facts(x->fd, &x->info, &id);
    if (err)
        return npk__finding(x->c, NPK_DAMAGE, x->path, "F1", false, "\"%s\": cannot be read (%s)", x->path,
                            strerrorname_np(-err));
    if (x->info.reason)
        return npk__finding(x->c, NPK_WARNING, x->path, "F2", false, "\"%s\": not an array: %s", x->path,
                            x->info.reason);
    if (!npk_header_is_array(&x->info.header))
        return npk__finding(x->c, NPK_NOTE, x->path, "F2", false,
                            "\"%s\": dtype %s has no fixed item size, so it is a plain file to the engine", x->path,
                            x->info.header.dtype.name);
    x->state = npk__settle_state(&x->info);
    x->writer = npk__lease_probe(x->fd);
    int there = npk__dirty_find(x->dir_fd, &id, &x->entry);
    x->entered = there > 0;
    err = rule_unfinished(x);
    if (!err)
        err = rule_tail(x);
    if (!err)
        err = rule_mark(x);
    if (!err)
        err = npk__check_marks(x->c, x->dir_fd, x->path, x->leaf);
    return err ? err : rule_session(x);
}

/* A placeholder leads to a file of the package. */
static int rule_placeholder(const npk_checking *c, int dir_fd, const char *path, const char *leaf)
{
    npk_package_file *f = NULL;
    int fd = npk__openat(dir_fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    int err = fd < 0 ? 0 : npk__placeholder_open(c->s, fd, &f);
    npk_package_file_close(&f);
    npk__close(&fd);
    return err ? npk__finding(c, NPK_DAMAGE, path, "L2", false, "\"%s\": %s", path, npk_error()) : 0;
}

/* The package beneath the store, if there is one, is where it is said to be. */
static int check_lower(npk_checking *c)
{
    npk_package *p;
    char *path = NULL;
    uint64_t bytes, sum;
    int there = npk__lower_noted(c->s->root_fd, &path, &bytes, &sum);
    free(path);
    int err = there > 0 ? npk__lower_package(c->s, &p) : there;
    c->upper = there > 0 && !err;
    return err ? npk__finding(c, NPK_DAMAGE, ".npkfs/" NPK__LOWER_FILE, "L1", false, "\".npkfs/" NPK__LOWER_FILE "\": %s",
                              npk_error()) : 0;
}

static int check_file(void *ctx, int dir_fd, const char *path, const char *leaf, unsigned char type)
{
    struct subject x = {.c = ctx, .dir_fd = dir_fd, .path = path, .leaf = leaf};
    int placed = x.c->upper && type == DT_REG ? rule_placeholder(x.c, dir_fd, path, leaf) : 0;
    if (placed || npk__path_to_name(path, x.name, sizeof(x.name)) != 0)
        return placed;
    if (type != DT_REG)
        return npk__finding(x.c, NPK_NOTE, path, "F1", false,
                            type == DT_LNK ? "\"%s\": a symbolic link; the file that it leads to is the array"
                                           : "\"%s\": not a regular file, so not an array",
                            path);
    x.fd = npk__openat(dir_fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (x.fd == -ENOENT)
        return 0; /* gone since its name was read */
    if (x.fd < 0)
        return npk__finding(x.c, NPK_DAMAGE, path, "F1", false, "\"%s\": cannot be opened (%s)", path,
                            strerrorname_np(-x.fd));
    int err = npk__check_redo(x.c, dir_fd, path, leaf);
    if (!err)
        err = check_open_file(&x);
    npk_info_clear(&x.info);
    npk__close(&x.fd);
    return err;
}

/* ---- the check ------------------------------------------------------------------------------------------------- */

static int check_dir(void *ctx, int dir_fd, const char *path)
{
    return npk__check_sidecar(ctx, dir_fd, path);
}

static int unreadable(void *ctx, const char *path, int err)
{
    if (*path == '\0')
        return err;
    return npk__finding(ctx, NPK_DAMAGE, path, "F1", false, "\"%s\": the directory cannot be read (%s)", path,
                        strerrorname_np(-err));
}

static int check_one(npk_checking *c, const char *name)
{
    char path[NPK__PATH_BYTES];
    npk_info info;
    npk_dir dir;
    const char *leaf;
    int err = npk__stat_file(c->s, name, &info);
    if (err)
        return err;
    npk_info_clear(&info);
    err = npk__name_to_path(name, path, sizeof(path));
    if (!err)
        err = npk__dir_of(c->s->root_fd, path, &dir, &leaf);
    if (err)
        return err;
    err = check_file(c, dir.fd, path, leaf, DT_REG);
    npk__dir_release(&dir);
    return err;
}

npk_err npk_check(npk_store *s, const char *name, unsigned flags, npk_check_visit *visit, void *ctx)
{
    static const npk_walk_ops ops = {.entry = check_file, .leave = check_dir, .failed = unreadable};
    npk_checking c = {.s = s, .flags = flags, .visit = visit, .ctx = ctx};
    if (flags & ~(unsigned)(NPK_CHECK_REPAIR | NPK_CHECK_ADOPT | NPK_CHECK_KEEP | NPK_CHECK_SET_ASIDE))
        return npk__fail(-EINVAL,
                         "check flags 0x%x: unknown; NPK_CHECK_REPAIR, NPK_CHECK_ADOPT, NPK_CHECK_KEEP and "
                         "NPK_CHECK_SET_ASIDE are known",
                         flags);
    if ((flags & NPK_CHECK_KEEP) && (flags & NPK_CHECK_SET_ASIDE))
        return npk__fail(-EINVAL, "check flags 0x%x: NPK_CHECK_KEEP or NPK_CHECK_SET_ASIDE, not both", flags);
    int err = flags ? npk__store_writable(s, name ? name : s->label) : 0;
    if (err)
        return err;
    err = check_lower(&c);
    if (!err)
        err = npk__check_journal(&c);
    if (!err && !name)
        err = npk__check_batches(&c);
    if (err)
        return err;
    return name ? check_one(&c, name) : npk__walk(s->root_fd, "", false, &ops, &c);
}
