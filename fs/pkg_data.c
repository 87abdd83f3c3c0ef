/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pkg_data.c - opening and reading what a package's mount shows. See pkg.h.
 *
 * The first open of a large compressed array has direct I/O where the kernel can map such files: a read of any size
 * arrives as requests of up to 1 MiB, which are answered from decoded frames without a copy, while other threads decode
 * what comes next. Everything else goes through the page cache, which is kept: the content never changes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "loop.h"
#include "pkg.h"

#define PIECES      64               /* of one reply */
#define LARGE_READ  (32u << 10)      /* what the kernel reads ahead by itself, and more */
#define NEAR        (1u << 20)       /* so far apart may large reads be that follow each other: threads serve them at once */
#define WHOLE_READ  (512u << 10)     /* a read of this size at the begin is one of the whole file */
#define STREAK      2                /* so many reads that follow each other are a sequence */
#define COUNT_ADD(counter, n) atomic_fetch_add_explicit(&fs->stats.counter, n, memory_order_relaxed)

typedef struct pkg_handle {
    npk_package_file *file; /* NULL: a control */
    fs_text text;
    uint64_t entry, frame_bytes, bytes;
    bool contiguous; /* stored as it is */
    _Atomic uint64_t next;   /* where the last read ended */
    _Atomic unsigned streak; /* reads that followed the one before them */
    _Atomic uint64_t asked; /* up to where frames were asked for ahead */
} pkg_handle;

static pkg_handle *handle_of_fi(const struct fuse_file_info *fi)
{
    return (pkg_handle *)(uintptr_t)fi->fh;
}

/* ---- open -------------------------------------------------------------------------------------------------------- */

static int open_control(fs_state *fs, const pkg_node *n, pkg_handle *h)
{
    char *path = pkg_path(fs, n);
    if (!path)
        return -ENOMEM;
    COUNT_ADD(control_reads, 1);
    int err = n->control->render(fs, n->kind == PKG_FACT ? "" : path, &h->text);
    free(path);
    return !err && h->text.failed ? -ENOMEM : err;
}

static int open_file(fs_state *fs, const pkg_node *n, pkg_handle *h)
{
    npk_entry e;
    pkg_entry(fs, n, &e);
    if (n->entry == 0 || e.kind != NPK_ENTRY_FILE)
        return n->entry == 0 || e.kind == NPK_ENTRY_DIRECTORY ? -EISDIR : -ELOOP;
    h->entry = n->entry - 1;
    h->frame_bytes = e.frame_bytes;
    h->contiguous = e.contiguous;
    h->bytes = e.bytes;
    COUNT_ADD(opens, 1);
    int err = npk_package_file_open(fs->pkg->package, h->entry, &h->file);
    if (err == -EIO) {
        char *path = pkg_path(fs, n);
        fs_note_health(fs, path ? path : "", npk_error());
        fs_note_failure(fs, path ? path : "", npk_error());
        free(path);
    }
    return err;
}

/* Direct I/O is the fastest way to read an array once, and its mappings forget the page cache of others; so the first
 * open of a large compressed array has it, and those after it share the cache. */
static bool wants_direct_io(fs_state *fs, const pkg_handle *h)
{
    if (!fs->direct_mmap || h->contiguous || h->bytes < LARGE_READ)
        return false;
    uint64_t bit = UINT64_C(1) << (h->entry % 64);
    return !(atomic_fetch_or_explicit(&fs->pkg->opened[h->entry / 64], bit, memory_order_relaxed) & bit);
}

void pkg_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_node n;
    int err = pkg_node_of(fs, ino, &n) ? 0 : -ENOENT;
    if (!err && n.kind == PKG_FOLDER_FILE) {
        pkg_folder_open(req, &n, fi);
        return;
    }
    if (!err && ((fi->flags & O_ACCMODE) != O_RDONLY || fi->flags & O_TRUNC))
        err = -EROFS;
    pkg_handle *h = err ? NULL : calloc(1, sizeof *h);
    if (!err && !h)
        err = -ENOMEM;
    if (!err) {
        loop_yield_if_asked(fs);
        err = n.control ? open_control(fs, &n, h) : n.kind == PKG_ENTRY ? open_file(fs, &n, h) : -EISDIR;
    }
    if (err) {
        if (h)
            fs_text_clear(&h->text);
        free(h);
        fuse_reply_err(req, -err);
        return;
    }
    fi->fh = (uint64_t)(uintptr_t)h;
    fi->keep_cache = 1;
    fi->direct_io = h->file == NULL || wants_direct_io(fs, h);
    if (fuse_reply_open(req, fi) != 0) {
        npk_package_file_close(&h->file);
        fs_text_clear(&h->text);
        free(h);
    }
}

void pkg_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    pkg_handle *h = handle_of_fi(fi);
    pkg_node n;
    if (pkg_node_of(fuse_req_userdata(req), ino, &n) && n.kind == PKG_FOLDER_FILE) {
        pkg_folder_release(req, &n, fi);
        return;
    }
    npk_package_file_close(&h->file);
    fs_text_clear(&h->text);
    free(h);
    fuse_reply_err(req, 0);
}

/* ---- read -------------------------------------------------------------------------------------------------------- */

/* Does this read follow others? Small ones must do so exactly, or random ones would often seem to. */
static bool is_sequential(pkg_handle *h, uint64_t offset, size_t size)
{
    uint64_t next = atomic_exchange_explicit(&h->next, offset + size, memory_order_relaxed);
    unsigned streak = atomic_load_explicit(&h->streak, memory_order_relaxed);
    if (offset == next || (size >= LARGE_READ && offset + NEAR >= next && offset <= next + NEAR))
        streak++;
    else
        streak = 0;
    if (size >= WHOLE_READ && offset < NEAR)
        streak = STREAK;
    atomic_store_explicit(&h->streak, streak, memory_order_relaxed);
    return streak >= STREAK;
}

/* Ask for the frames of this request but its first, which the caller decodes, and in a sequence for those behind it. */
static void look_ahead(fs_state *fs, pkg_handle *h, uint64_t offset, size_t size, bool sequential)
{
    uint64_t asked = atomic_load_explicit(&h->asked, memory_order_relaxed), most = fs->pkg->ahead_bytes;
    uint64_t from = offset + h->frame_bytes, to = offset + size + (sequential ? most : 0);
    if (to > h->bytes)
        to = h->bytes;
    if (asked > from && asked <= to + most && sequential)
        from = asked;
    /* Few at a time would wake threads for little. */
    if (to <= from || (sequential && to < h->bytes && to - from < most / 4 && asked >= offset + size))
        return;
    atomic_store_explicit(&h->asked, to, memory_order_relaxed);
    pkg_ahead_ask(fs, h->entry, h->frame_bytes, from, to - from);
}

static void note_damage(fs_state *fs, pkg_handle *h)
{
    pkg_node n = {.kind = PKG_ENTRY, .entry = h->entry + 1};
    char *path = pkg_path(fs, &n);
    fs_note_health(fs, path ? path : "", npk_error());
    fs_note_failure(fs, path ? path : "", npk_error());
    free(path);
}

void pkg_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    fs_state *fs = fuse_req_userdata(req);
    pkg_handle *h = handle_of_fi(fi);
    uint64_t at = (uint64_t)offset;
    pkg_node n;
    if (pkg_node_of(fs, ino, &n) && n.kind == PKG_FOLDER_FILE) {
        pkg_folder_read(req, &n, size, offset, fi);
        return;
    }
    if (!h->file) {
        size_t left = at < h->text.bytes ? h->text.bytes - (size_t)at : 0;
        fuse_reply_buf(req, left ? h->text.data + at : NULL, size < left ? size : left);
        return;
    }
    COUNT_ADD(reads, 1);
    COUNT_ADD(read_bytes, size);
    loop_yield_if_asked(fs);
    if (size >= LARGE_READ && at + size < h->bytes) /* it ends where a page of the reader's does */
        npk_package_file_page(h->file, at + size);
    bool sequential = is_sequential(h, at, size);
    if (h->frame_bytes > 0)
        look_ahead(fs, h, at, size, sequential);
    /* Small files stay, for whoever reads them next. */
    bool passed = sequential && h->bytes > fs->options->cache_bytes / 4;
    if (sequential)
        loop_rest();
    npk_held pieces[PIECES];
    struct iovec iov[PIECES];
    size_t count = 0, held = 0;
    int err = npk_package_file_hold(h->file, at, size, pieces, PIECES, &count);
    for (size_t i = 0; i < count; i++) {
        iov[i] = (struct iovec){(void *)(uintptr_t)pieces[i].data, pieces[i].bytes};
        held += pieces[i].bytes;
    }
    uint64_t want = at >= h->bytes ? 0 : h->bytes - at < size ? h->bytes - at : size;
    if (!err && held < want) { /* more pieces than a reply takes: frames are small then, and a copy is cheap */
        npk_package_release(fs->pkg->package, pieces, count, false);
        count = 0;
        char *copy = malloc(want);
        ssize_t got = copy ? npk_package_file_read(h->file, at, copy, want) : -ENOMEM;
        if (got >= 0)
            fuse_reply_buf(req, copy, (size_t)got);
        err = got < 0 ? (int)got : 0;
        free(copy);
    } else if (!err) {
        fuse_reply_iov(req, iov, (int)count);
    }
    if (err == -EIO)
        note_damage(fs, h);
    if (err)
        fuse_reply_err(req, -err);
    /* The handle may be closed as soon as the reply is there. */
    npk_package_release(fs->pkg->package, pieces, count, passed);
}
