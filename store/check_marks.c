/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of deleted rows: the rules D1 to D8 of FORMAT.md. */
#define _GNU_SOURCE 1

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check.h"
#include "fail.h"
#include "identity.h"
#include "io.h"
#include "lock.h"
#include "marks.h"
#include "path.h"
#include "walk.h"

/* The array whose state is examined. */
struct subject {
    const npk_checking *c;
    int dir_fd, fd;
    const char *path, *leaf;
    npk_info info;
    npk_stamp stamp;
};

/* ---- repairs --------------------------------------------------------------------------------------------------- */

typedef int repair(const struct subject *x);

/* With the array's lock, and a new look. */
static int with_lock(struct subject *x, repair *work)
{
    npk_lock lock = NPK_LOCK_NONE;
    npk_info_clear(&x->info);
    int err = npk__lock_array(x->dir_fd, x->leaf, NPK_LOCK_EXCLUSIVE, &lock);
    if (!err && (err = npk__fd_look(x->fd, &x->info, &x->stamp)) != 0)
        npk__fail_errno(err, x->path);
    if (!err)
        err = work(x);
    npk__unlock(&lock);
    return err;
}

static int set_state_aside(const struct subject *x)
{
    npk_states s = {.count = 0};
    char stem[NPK__STEM_BYTES], other[NPK__STEM_BYTES];
    npk__state_stem(x->leaf, stem);
    int there = npk__state_load(x->dir_fd, stem, &s);
    if (there == 0 && npk__state_stem_of(x->dir_fd, x->stamp.id.inode, other) > 0) {
        memcpy(stem, other, sizeof(stem));
        there = npk__state_load(x->dir_fd, stem, &s);
    }
    npk__known_forget(&x->stamp);
    int err = there == 0 ? 0 : npk__state_set_aside(x->dir_fd, stem, there > 0 ? &s : NULL, NULL);
    npk__states_clear(&s);
    return err;
}

static int keep_state(const struct subject *x)
{
    npk_states s;
    npk_marks m = {.dir_fd = x->dir_fd, .fd = x->fd, .leaf = x->leaf, .info = &x->info, .stamp = x->stamp};
    m.known.stated = true;
    npk__state_stem(x->leaf, m.known.stem);
    int err = npk__marks_states(&m, &s);
    if (err)
        return err;
    npk__known_forget(&x->stamp);
    err = npk__marks_save(&m, &s, true);
    npk__states_clear(&s);
    return err;
}

/* As any change begins: everything that is to be tidied up is. */
static int look_for_change(const struct subject *x)
{
    npk_marks m;
    npk_states s;
    int err = npk__marks_look(x->dir_fd, x->leaf, x->fd, &x->info, &x->stamp, &m);
    if (err)
        return err;
    err = npk__marks_cut(&m);
    if (!err && m.known.stated && (err = npk__marks_states(&m, &s)) == 0) {
        err = npk__marks_keep(&m, &s);
        npk__states_clear(&s);
    }
    npk__marks_release(&m);
    return err;
}

/* ---- rules ----------------------------------------------------------------------------------------------------- */

static const char *what_if(bool tried, int err, const char *done, const char *otherwise)
{
    return !tried ? otherwise : err ? "; not done: " : done;
}

static int rule_doubt(struct subject *x)
{
    bool keep = x->c->flags & NPK_CHECK_KEEP, aside = x->c->flags & NPK_CHECK_SET_ASIDE;
    int err = aside ? with_lock(x, set_state_aside) : keep ? with_lock(x, keep_state) : -EAGAIN;
    return npk__finding(x->c, NPK_DAMAGE, x->path, "D2", err == 0,
                        "\"%s\": was changed from outside, and which of its rows are deleted is in doubt%s%s", x->path,
                        what_if(keep || aside, err, aside ? "; all rows are shown" : "; the same rows stay deleted",
                                "; --keep leaves the same rows deleted, --set-aside shows all"),
                        (keep || aside) && err ? npk_error() : "");
}

static int rule_unreadable(struct subject *x, const char *rule, const char *sentence)
{
    char why[NPK__SENTENCE_BYTES];
    snprintf(why, sizeof(why), "%s", sentence);
    bool aside = x->c->flags & NPK_CHECK_SET_ASIDE;
    int err = aside ? with_lock(x, set_state_aside) : -EAGAIN;
    return npk__finding(x->c, NPK_DAMAGE, x->path, rule, err == 0, "%s%s%s", why,
                        what_if(aside, err, "; set aside, all rows are shown", ""), aside && err ? npk_error() : "");
}

static int rule_replaced(struct subject *x)
{
    bool fix = x->c->flags & (NPK_CHECK_REPAIR | NPK_CHECK_SET_ASIDE);
    int err = fix ? with_lock(x, look_for_change) : -EAGAIN;
    return npk__finding(
        x->c, NPK_WARNING, x->path, "D2", err == 0,
        "\"%s\": deletions or names are known of another array of this name; all rows are shown%s%s", x->path,
        what_if(fix, err, "; what was known is set aside", "; the next change or --repair sets it aside"),
        fix && err ? npk_error() : "");
}

static int rule_log(struct subject *x)
{
    npk_known k;
    int err = npk__known(x->dir_fd, x->leaf, x->fd, &x->info, &x->stamp, &k), result = 0;
    if (err)
        return rule_unreadable(x, "D3", npk_error());
    bool fix = x->c->flags & NPK_CHECK_REPAIR;
    if (k.epoch && k.log_size > k.log_end)
        result =
            npk__finding(x->c, NPK_NOTE, x->path, "D4", false,
                         "\"%s\": the last record of its deletion log was cut short, so it does not count; the next "
                         "one takes its place",
                         x->path);
    if (!result && (k.beyond || k.names_beyond)) {
        err = fix ? with_lock(x, look_for_change) : -EAGAIN;
        result = npk__finding(x->c, NPK_NOTE, x->path, "D5", err == 0,
                              "\"%s\": rows behind its last one are marked or named%s%s", x->path,
                              what_if(fix, err, "; no longer", "; they are forgotten before rows are appended"),
                              fix && err ? npk_error() : "");
    }
    npk__known_release(&k);
    return result;
}

static int rule_links(const struct subject *x, const npk_states *s)
{
    if (x->stamp.links <= 1 || npk__states_vacuous(s))
        return 0;
    return npk__finding(x->c, NPK_WARNING, x->path, "D6", false,
                        "\"%s\": the file has %u names (hard links), and its deleted rows are shown under the others; "
                        "remove these",
                        x->path, x->stamp.links);
}

/* An array of the directory was renamed, and this one has got the name that its state is under. */
static bool is_anothers(const struct subject *x, const npk_states *s)
{
    char owner[256];
    return npk__marks_owner(x->dir_fd, s, owner) && strcmp(owner, x->leaf) != 0;
}

static int check_state(struct subject *x)
{
    npk_states s = {.count = 0};
    char stem[NPK__STEM_BYTES];
    unsigned at = 0;
    int how = 0, err = 0;
    int there = npk__state_find(x->dir_fd, x->leaf, x->fd, &x->info, &x->stamp, &s, stem, &at, &how);
    bool two = s.count == 2, telling = s.count > 0 && !npk__states_vacuous(&s);
    if (there < 0)
        err = there == -ESTALE ? 0 : rule_unreadable(x, "D1", npk_error());
    else if (there == 0)
        err = telling && !s.state[0].strict && !is_anothers(x, &s) ? rule_replaced(x) : 0;
    else if (how == NPK_ID_DOUBT && telling)
        err = rule_doubt(x);
    else
        err = rule_links(x, &s);
    npk__states_clear(&s);
    if (!err && there > 0 && how != NPK_ID_DOUBT)
        err = rule_log(x);
    if (err || there <= 0 || !two)
        return err;
    bool fix = x->c->flags & NPK_CHECK_REPAIR;
    npk_lock lock = NPK_LOCK_NONE;
    if (npk__lock_array(x->dir_fd, x->leaf, NPK_LOCK_TRY, &lock) != 0)
        return 0; /* a file is taking the name just now */
    npk__unlock(&lock);
    int fixed = fix ? with_lock(x, look_for_change) : -EAGAIN;
    return npk__finding(x->c, NPK_NOTE, x->path, "D7", fixed == 0,
                        "\"%s\": a new file was to take its name, and its maker died%s%s", x->path,
                        what_if(fix, fixed, "; tidied up", "; the next change or --repair tidies up"),
                        fix && fixed ? npk_error() : "");
}

int npk__check_marks(const npk_checking *c, int dir_fd, const char *path, const char *leaf)
{
    struct subject x = {.c = c, .dir_fd = dir_fd, .path = path, .leaf = leaf};
    /* By its name again: a repair may have made another file of it, or set it aside. */
    x.fd = npk__openat(dir_fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (x.fd < 0)
        return 0;
    int err = npk__fd_look(x.fd, &x.info, &x.stamp);
    if (!err && npk__state_there(dir_fd, leaf, x.stamp.id.inode))
        err = check_state(&x);
    else
        err = 0;
    npk_info_clear(&x.info);
    npk__close(&x.fd);
    return err;
}

/* ---- files of the folder --------------------------------------------------------------------------------------- */

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

struct search { /* for the inode of a state among the files of a directory */
    int dir_fd;
    const npk_states *s;
    bool found;
};

static int find_inode(void *ctx, const char *name, unsigned char type)
{
    struct search *w = ctx;
    struct stat st;
    if (type == DT_DIR || npk__fstatat(w->dir_fd, name, &st) != 0)
        return 0;
    for (unsigned i = 0; i < w->s->count; i++)
        w->found |= w->s->state[i].id.inode == st.st_ino;
    return w->found;
}

/* The array of a state is in the directory, under the state's name or another. */
static bool has_array(int dir_fd, const npk_states *s)
{
    struct stat st;
    if (npk__fstatat(dir_fd, s->leaf, &st) == 0)
        return true;
    struct search w = {.dir_fd = dir_fd, .s = s};
    return npk__each_name(dir_fd, find_inode, &w) < 0 || w.found;
}

static int check_state_file(const npk_checking *c, int dir_fd, const char *name, const char *path)
{
    char stem[NPK__STEM_BYTES], aside[256];
    npk_states s = {.count = 0};
    size_t n = strlen(name) - strlen(".json");
    if (n >= sizeof(stem))
        return 0;
    memcpy(stem, name, n);
    stem[n] = '\0';
    int there = npk__state_load(dir_fd, stem, &s);
    bool orphan = there > 0 && !has_array(dir_fd, &s), fix = c->flags & NPK_CHECK_REPAIR;
    int err = -EAGAIN, result = 0;
    if (orphan) {
        if (fix)
            err = s.state[0].strict || npk__states_vacuous(&s) ? npk__state_remove(dir_fd, stem, &s)
                                                               : npk__state_set_aside(dir_fd, stem, &s, aside);
        result = npk__finding(c, NPK_NOTE, path, "D8", err == 0,
                              "\"%s\": what is known of \"%s\", which is not here any more%s", path, s.leaf,
                              err == 0 ? "; set aside"
                              : fix    ? "; could not be set aside"
                                       : "; --repair sets it aside");
    }
    npk__states_clear(&s);
    return result;
}

/* "<stem>.<epoch>.del": is it the log of the stem's state? */
static int check_log_file(const npk_checking *c, int dir_fd, int side_fd, const char *name, const char *path)
{
    char stem[256], log[NPK__DELLOG_NAME], aside[300];
    npk_states s = {.count = 0};
    npk_lock lock = NPK_LOCK_NONE;
    snprintf(stem, sizeof(stem), "%.*s", (int)(strlen(name) - strlen(".del")), name);
    char *dot = strrchr(stem, '.');
    if (!dot)
        return 0;
    *dot = '\0';
    bool used = strlen(stem) >= NPK__STEM_BYTES;
    int there = used ? 0 : npk__state_load(dir_fd, stem, &s);
    for (unsigned i = 0; there > 0 && i < s.count; i++) {
        npk__dellog_name(stem, s.state[i].epoch, log);
        used |= strcmp(log, name) == 0;
    }
    npk__states_clear(&s);
    /* A log is made before the state speaks of it, under the lock of the array, which has the stem's name mostly. */
    if (used || there < 0 || npk__lock_array(dir_fd, stem, NPK_LOCK_TRY | NPK_LOCK_EXISTING, &lock) != 0)
        return 0;
    npk__unlock(&lock);
    bool fix = c->flags & NPK_CHECK_REPAIR;
    snprintf(aside, sizeof(aside), "aside.%.240s", name);
    int err = fix ? npk__renameat2(side_fd, name, side_fd, aside, 0) : -EAGAIN;
    return npk__finding(c, NPK_NOTE, path, "D8", err == 0, "\"%s\": a deletion log that no array speaks of%s", path,
                        err == 0 ? "; set aside"
                        : fix    ? "; could not be set aside"
                                 : "; --repair sets it aside");
}

static int check_link(const npk_checking *c, int dir_fd, int side_fd, const char *name, const char *path)
{
    char stem[NPK__STEM_BYTES];
    npk_states s = {.count = 0};
    uint64_t inode = strtoull(name + 2, NULL, 10);
    int there = npk__state_stem_of(dir_fd, inode, stem) > 0 ? npk__state_load(dir_fd, stem, &s) : 0;
    bool fits = there < 0;
    for (unsigned i = 0; there > 0 && i < s.count; i++)
        fits |= s.state[i].id.inode == inode;
    npk__states_clear(&s);
    if (fits)
        return 0;
    bool fix = c->flags & NPK_CHECK_REPAIR;
    int err = fix ? npk__unlinkat(side_fd, name, 0) : -EAGAIN;
    return npk__finding(c, NPK_NOTE, path, "D8", err == 0, "\"%s\": leads to nothing that is known of this inode%s",
                        path,
                        err == 0 ? "; removed"
                        : fix    ? "; could not be removed"
                                 : "; --repair removes it");
}

int npk__check_marks_file(const npk_checking *c, int dir_fd, int side_fd, const char *name, const char *path)
{
    if (strncmp(name, "aside.", 6) == 0)
        return 1;
    if (ends_with(name, ".json") && strcmp(name, "store.json") != 0)
        return check_state_file(c, dir_fd, name, path);
    if (ends_with(name, ".del"))
        return check_log_file(c, dir_fd, side_fd, name, path);
    if (strncmp(name, "i.", 2) == 0 && name[2] && strspn(name + 2, "0123456789") == strlen(name + 2))
        return check_link(c, dir_fd, side_fd, name, path);
    return 1;
}
