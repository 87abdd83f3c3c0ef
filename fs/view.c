/* SPDX-License-Identifier: Apache-2.0 */
/* view.c - see view.h. */
#include "view.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compacter.h"
#include "ops.h"
#include "sys.h"

struct fs_view {
    npk_view *view;
    uint64_t file_bytes; /* of the data file when the view was made: what is behind was appended since */
    _Atomic uint32_t users;
};

uint64_t view_look_fd(fs_state *fs, const char *path, int fd, struct statx *stx)
{
    uint64_t bytes, generation;
    int err = npk_view_shows(fs->store, path, fd, &bytes, &generation);
    if (err == -EUCLEAN) {
        fs_note_health(fs, path, npk_error());
        return VIEW_IN_DOUBT;
    }
    if (err || bytes == stx->stx_size)
        return 0;
    stx->stx_size = bytes;
    return generation;
}

static char *join(const char *dir, const char *name)
{
    size_t above = strlen(dir);
    char *path = malloc(above + strlen(name) + 2);
    if (path) {
        memcpy(path, dir, above);
        if (above)
            path[above++] = '/';
        strcpy(path + above, name);
    }
    return path;
}

uint64_t view_look(fs_state *fs, fs_node *dir, int dir_fd, const char *name, struct statx *stx)
{
    if (!S_ISREG(stx->stx_mode) || !npk_state_there(dir_fd, name, stx->stx_ino))
        return 0;
    char *above = node_path(fs, dir), *path = above ? join(above, name) : NULL;
    int fd = path ? sys_openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0) : -ENOMEM;
    uint64_t generation = 0;
    struct statx now;
    if (fd >= 0 && store_statx(fs, fd, "", &now) == 0 && now.stx_ino == stx->stx_ino) {
        *stx = now;
        generation = view_look_fd(fs, path, fd, stx);
    }
    if (fd >= 0)
        close(fd);
    free(path);
    free(above);
    return generation;
}

void view_return(fs_view *v)
{
    if (v && atomic_fetch_sub(&v->users, 1) == 1) {
        npk_view_close(&v->view);
        free(v);
    }
}

fs_view *view_borrow(fs_state *fs, fs_open *o)
{
    open_lock(fs, o);
    fs_view *v = o->view;
    if (v)
        atomic_fetch_add(&v->users, 1);
    pthread_mutex_unlock(&o->lock);
    return v;
}

/* The size shown of a data file of file_bytes bytes. */
static uint64_t shown_bytes(const fs_view *v, uint64_t file_bytes)
{
    uint64_t shown = npk_view_bytes(v->view), hidden = v->file_bytes - shown;
    return file_bytes > hidden ? file_bytes - hidden : 0;
}

static int take_view(fs_state *fs, fs_open *o, const char *path, bool any)
{
    struct statx stx;
    npk_view *view = NULL;
    int fd = o->rfd >= 0 ? o->rfd : o->wfd;
    int err = store_statx(fs, fd, "", &stx);
    if (!err)
        err = npk_view_open(fs->store, path, fd, &view);
    if (err == -EUCLEAN)
        fs_note_failure(fs, path, npk_error());
    if (!err && !any && (!view || npk_view_generation(view) != o->node->generation))
        err = -ESTALE;
    if (!err && !view) { /* no deleted row is left: the file itself */
        view_return(o->view);
        o->view = NULL;
        fs_changed(fs);
        return 0;
    }
    fs_view *v = err ? NULL : malloc(sizeof *v);
    if (!v) {
        npk_view_close(&view);
        return err ? err : -ENOMEM;
    }
    /* Rows that came between the look at the size and at the rows are in both: take the one that belongs to the view. */
    struct statx after;
    if (store_statx(fs, fd, "", &after) == 0 && after.stx_size != stx.stx_size) {
        npk_view_close(&view);
        free(v);
        return take_view(fs, o, path, any);
    }
    *v = (fs_view){.view = view, .file_bytes = stx.stx_size, .users = 1};
    view_return(o->view);
    o->view = v;
    fs_changed(fs);
    return 0;
}

int view_refresh(fs_state *fs, fs_open *o, const char *path)
{
    int err = take_view(fs, o, path, false);
    if (!err && o->view && !atomic_exchange(&o->node->considered, true))
        compacter_noticed(fs, path); /* another process, or an earlier mount, may have deleted what a policy waits for */
    return err;
}

int view_whole(fs_state *fs, fs_open *o, const char *path)
{
    npk_view *view = NULL;
    int fd = o->rfd >= 0 ? o->rfd : o->wfd, err = o->view ? 0 : npk_view_open_whole(fs->store, fd, &view);
    if (err)
        fs_note_failure(fs, path, npk_error());
    if (err || !view)
        return err;
    fs_view *v = malloc(sizeof *v);
    if (!v) {
        npk_view_close(&view);
        return -ENOMEM;
    }
    *v = (fs_view){.view = view, .file_bytes = npk_view_bytes(view), .users = 1};
    o->view = v;
    return 0;
}

void view_size(fs_state *fs, fs_node *n, struct statx *stx)
{
    if (!n->generation || n->generation == VIEW_IN_DOUBT)
        return;
    fs_open *o = open_borrow(fs, n);
    fs_view *v = o ? view_borrow(fs, o) : NULL;
    if (v)
        stx->stx_size = shown_bytes(v, stx->stx_size);
    bool emptied = o && !v && (o->rfd >= 0 || o->wfd >= 0); /* no view is left of it: the file itself */
    view_return(v);
    if (o)
        open_release(fs, o);
    if (v || emptied)
        return;
    char *path = node_path(fs, n);
    int fd = path ? node_fd(fs, n, O_RDONLY | O_NONBLOCK) : -1;
    struct statx now = *stx;
    if (fd >= 0 && view_look_fd(fs, path, fd, &now) == n->generation)
        stx->stx_size = now.stx_size;
    else
        stx->stx_size = n->shown_size; /* a numbering that nobody holds open and no name leads to any more */
    if (fd >= 0)
        close(fd);
    free(path);
}

uint64_t view_shown(const fs_view *v)
{
    return npk_view_bytes(v->view);
}

/* Behind its rows a view and its file go on in step. */
static uint64_t file_offset(const fs_view *v, uint64_t offset)
{
    return v->file_bytes - npk_view_bytes(v->view) + offset;
}

ssize_t view_read(const fs_view *v, int fd, uint64_t offset, void *out, size_t bytes)
{
    size_t done = 0;
    if (offset < npk_view_bytes(v->view)) {
        ssize_t n = npk_view_read(v->view, fd, offset, out, bytes);
        if (n < 0)
            return n;
        done = (size_t)n;
    }
    while (done < bytes && offset + done >= npk_view_bytes(v->view)) { /* appended since */
        ssize_t n = pread(fd, (char *)out + done, bytes - done, (off_t)file_offset(v, offset + done));
        if (n < 0)
            return done ? (ssize_t)done : -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

size_t view_extents(const fs_view *v, uint64_t offset, size_t bytes, npk_view_piece *out, size_t most)
{
    size_t covered, count = npk_view_extents(v->view, offset, bytes, out, most, &covered);
    return covered == bytes ? count : 0;
}

ssize_t view_write(const fs_view *v, int fd, uint64_t offset, const void *bytes, size_t count)
{
    ssize_t done = npk_view_write(v->view, fd, offset, bytes, count);
    while (done >= 0 && (size_t)done < count) { /* a part-row at the end, and what is new */
        ssize_t n = sys_pwrite(fd, (const char *)bytes + done, count - (size_t)done,
                               (off_t)file_offset(v, offset + (size_t)done));
        if (n <= 0)
            return done ? done : n;
        done += n;
    }
    return done;
}

int view_write_back(const fs_view *v, int fd, uint64_t offset, const void *bytes, size_t count)
{
    ssize_t done = npk_view_write(v->view, fd, offset, bytes, count);
    struct stat st;
    if (done < 0 || (size_t)done == count || fstat(fd, &st) < 0)
        return done < 0 ? (int)done : 0;
    uint64_t at = file_offset(v, offset + (size_t)done), left = count - (size_t)done;
    if (at >= (uint64_t)st.st_size)
        return 0;
    if (left > (uint64_t)st.st_size - at)
        left = (uint64_t)st.st_size - at;
    ssize_t n = sys_pwrite(fd, (const char *)bytes + done, left, (off_t)at);
    return n < 0 ? (int)n : 0;
}

int view_resize(fs_state *fs, fs_open *o, const char *path, int fd, uint64_t bytes)
{
    npk_view *view = NULL;
    int err = npk_view_open(fs->store, path, fd, &view);
    if (!err && (!view || npk_view_generation(view) != o->node->generation))
        err = -ESTALE; /* rows were deleted meanwhile: a size of this numbering means nothing now */
    if (!err)
        err = npk_view_set_size(fs->store, path, fd, view, bytes);
    npk_view_close(&view);
    if (!err && bytes == 0) { /* it is written anew: no row of it is deleted */
        npk_sidecar_drop(fs->store, path, fd);
        view_return(o->view);
        o->view = NULL;
        fs_changed(fs);
        return 0;
    }
    if (!err && o->view)
        err = take_view(fs, o, path, true); /* the cut itself may have moved the generation */
    return err;
}
