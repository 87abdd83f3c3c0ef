/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of a file, when whoever serves it moves or removes its name. The functions are in npk.h. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>

#include "fail.h"
#include "io.h"
#include "lock.h"
#include "marks.h"
#include "npk.h"
#include "path.h"
#include "settle.h"
#include "store.h"

struct place {
    npk_dir dir;
    npk_lock lock;
    const char *leaf;
};

/* Resolve a path, and lock it if anything is known of the file: 1; else 0, or an error. */
static int open_place(npk_store *s, const char *path, int fd, npk_stamp *stamp, struct place *out)
{
    *out = (struct place){.dir = {.fd = -1, .opened = -1}, .lock = NPK_LOCK_NONE};
    int err = npk__path_check(path);
    if (!err)
        err = npk__store_writable(s, path);
    if (!err)
        err = npk__dir_of(s->root_fd, path, &out->dir, &out->leaf);
    if (err)
        return err;
    err = npk__fd_stamp(fd, stamp);
    if (err)
        return npk__fail_errno(err, path);
    if (!npk__state_there(out->dir.fd, out->leaf, stamp->id.inode))
        return 0;
    err = npk__lock_array(out->dir.fd, out->leaf, NPK_LOCK_EXCLUSIVE, &out->lock);
    return err ? err : 1;
}

static void close_place(struct place *p)
{
    npk__unlock(&p->lock);
    npk__dir_release(&p->dir);
}

npk_err npk_sidecar_leave(npk_store *s, const char *path, int fd)
{
    struct place p;
    npk_stamp stamp;
    int there = open_place(s, path, fd, &stamp, &p);
    if (there > 0)
        there = npk__marks_leave(p.dir.fd, p.leaf, fd);
    close_place(&p);
    return there < 0 ? there : 0;
}

npk_err npk_sidecar_copy(npk_store *s, const char *from, const char *to, int fd)
{
    struct place p;
    npk_dir dir;
    npk_stamp stamp;
    const char *leaf;
    int err = npk__path_check(to);
    if (err)
        return err;
    int there = open_place(s, from, fd, &stamp, &p);
    if (there > 0 && (there = npk__dir_of(s->root_fd, to, &dir, &leaf)) == 0) {
        there = npk__marks_copy(p.dir.fd, p.leaf, fd, dir.fd, leaf);
        npk__dir_release(&dir);
    }
    close_place(&p);
    return there < 0 ? there : 0;
}

npk_err npk_sidecar_drop(npk_store *s, const char *path, int fd)
{
    struct place p;
    npk_stamp stamp;
    int there = open_place(s, path, fd, &stamp, &p);
    if (there > 0)
        npk__marks_drop_at(p.dir.fd, p.leaf, &stamp);
    close_place(&p);
    return there < 0 ? there : 0;
}
