/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "known.h"
#include "npk.h"
#include "path.h"
#include "pkg_store.h"
#include "store.h"
#include "walk.h"

struct listing {
    unsigned flags;
    npk_visit *visit;
    void *ctx;
    int stopped; /* what visit returned */
    int error;   /* the first thing that could not be looked at */
    char sentence[NPK__SENTENCE_BYTES];
};

/* One array that cannot be read must not hide the others: go on, and tell at the end. */
static int note(struct listing *l, int err)
{
    if (err == -EMFILE || err == -ENFILE || err == -ENOMEM)
        return err;
    if (!l->error) {
        l->error = err;
        memcpy(l->sentence, npk_error(), strlen(npk_error()) + 1);
    }
    return 0;
}

static int visit_file(void *ctx, int dir_fd, const char *path, const char *leaf, unsigned char type)
{
    struct listing *l = ctx;
    char name[NPK__PATH_BYTES];
    if (type != DT_REG || npk__path_to_name(path, name, sizeof(name)) != 0)
        return 0;
    npk_info info = {0};
    int err = -ESTALE;
    for (unsigned tries = 0; err == -ESTALE && tries < 100; tries++) { /* P6: another file may just take the name */
        int fd = npk__openat(dir_fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
        if (fd == -ENOENT || fd == -ELOOP)
            return 0; /* gone or replaced since its name was read */
        if (fd < 0)
            return note(l, npk__fail_errno(fd, path));
        err = npk__shown_facts(dir_fd, leaf, fd, &info, NULL);
        npk__close(&fd);
    }
    if (err)
        return note(l, err);
    if (!info.reason || (l->flags & NPK_LIST_PLAIN))
        l->stopped = l->visit(l->ctx, name, &info);
    npk_info_clear(&info);
    return l->stopped;
}

static int unreadable(void *ctx, const char *path, int err)
{
    return *path ? note(ctx, err) : err;
}

npk_err npk_list(npk_store *s, const char *group, unsigned flags, npk_visit *visit, void *ctx)
{
    static const npk_walk_ops ops = {.entry = visit_file, .failed = unreadable};
    if (flags & ~(unsigned)(NPK_LIST_PLAIN | NPK_LIST_FLAT))
        return npk__fail(-EINVAL, "list flags 0x%x: unknown; NPK_LIST_PLAIN and NPK_LIST_FLAT are known", flags);
    if (s->package)
        return npk__package_list(s->package, group ? group : "", flags, visit, ctx);
    struct listing l = {.flags = flags, .visit = visit, .ctx = ctx};
    int err = npk__walk(s->root_fd, group ? group : "", flags & NPK_LIST_FLAT, &ops, &l);
    if (err || l.stopped)
        return l.stopped ? l.stopped : err;
    return l.error ? npk__fail(l.error, "%s", l.sentence) : 0;
}
