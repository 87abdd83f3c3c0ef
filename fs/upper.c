/* SPDX-License-Identifier: Apache-2.0 */
/* upper.c - see upper.h. */
#include "upper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loop.h"
#include "notice.h"
#include "ops.h"

/* The canonical path of a directory that may not exist yet. malloc()ed, or NULL. */
static char *place_of(const char *dir)
{
    char *whole = realpath(dir, NULL), *copy = NULL, *out = NULL;
    if (whole || errno != ENOENT || !(copy = strdup(dir)))
        return whole;
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = '\0';
    char *slash = strrchr(copy, '/');
    const char *leaf = slash ? slash + 1 : copy;
    char *above = slash == copy ? strdup("/") : slash ? strndup(copy, (size_t)(slash - copy)) : strdup(".");
    char *parent = above ? realpath(above, NULL) : NULL;
    if (parent && asprintf(&out, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, leaf) < 0)
        out = NULL;
    free(parent);
    free(above);
    free(copy);
    return out;
}

int upper_open(const fs_options *o, npk_store **out, char *why, unsigned why_bytes)
{
    char *place = place_of(o->upper);
    size_t n = strlen(o->mountpoint);
    bool inside = place && strncmp(place, o->mountpoint, n) == 0 && place[n] == '/';
    free(place);
    if (inside) {
        snprintf(why, why_bytes, "option \"upper=%s\": lies in the mount point \"%s\", which will cover it; a directory "
                                 "elsewhere is accepted, or the mount point itself", o->upper, o->mountpoint);
        return -EINVAL;
    }
    int err = npk_overlay_open(o->source, o->upper, o->read_only ? NPK_READ_ONLY : 0, out);
    if (err)
        snprintf(why, why_bytes, "option \"upper=%s\": %s", o->upper, *npk_error() ? npk_error() : strerror(-err));
    return err;
}

bool upper_is_placeholder(fs_state *fs, const fs_open *o)
{
    int fd = o->rfd >= 0 ? o->rfd : o->wfd;
    return fs->upper && fd >= 0 && npk_is_placeholder(fd);
}

int upper_copy_up(fuse_req_t req, fs_open *o, const char *path)
{
    fs_state *fs = fs_of(req);
    fs_node *parent;
    char leaf[256];
    int err = path ? node_place(fs, o->node, &parent, leaf) : -ENOENT;
    if (err)
        return err;
    loop_yield(fs);
    if (o->wfd >= 0 && o->rfd >= 0 && !o->writers) { /* opened for this very request */
        close(o->wfd);
        o->wfd = -1;
    }
    err = npk_copy_up(fs->store, path);
    if (err) {
        fs_note_failure(fs, path, npk_error());
    } else {
        o->swapped = true;
        atomic_fetch_add_explicit(&fs->stats.swaps, 1, memory_order_relaxed);
        node_unname(fs, parent, leaf);
        node_may_tell_stale(fs, o->node, fuse_req_ctx(req)->pid);
        notice_entry_now(fs, parent, leaf);
        err = -ESTALE;
    }
    node_unpin(fs, parent);
    return err;
}

int upper_copy_up_node(fuse_req_t req, fs_node *n)
{
    fs_state *fs = fs_of(req);
    if (!fs->upper || n->kind != NODE_STORE || n->type != S_IFREG)
        return 0;
    int fd = node_fd(fs, n, O_RDONLY | O_NONBLOCK), err = 0;
    if (fd < 0)
        return fd;
    bool is = npk_is_placeholder(fd);
    close(fd);
    fs_open *o = is ? open_acquire(fs, n) : NULL;
    if (is && !o)
        err = -ENOMEM;
    if (o) {
        char *path = node_path(fs, n);
        open_lock(fs, o);
        err = upper_copy_up(req, o, path);
        pthread_mutex_unlock(&o->lock);
        open_release(fs, o);
        free(path);
    }
    return err;
}
