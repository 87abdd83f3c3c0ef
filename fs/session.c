/* SPDX-License-Identifier: Apache-2.0 */
/* session.c - see session.h. */
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "batch.h"
#include "control.h"
#include "folder.h"
#include "compacter.h"
#include "keeper.h"
#include "log.h"
#include "loop.h"
#include "mountpoint.h"
#include "node_table.h"
#include "notice.h"
#include "ops.h"
#include "pkg.h"
#include "save.h"
#include "view_ahead.h"
#include "watch.h"
#include "wire.h"

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    wire_init(userdata, conn);
}

static const struct fuse_lowlevel_ops operations = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .symlink = op_symlink,
    .link = op_link,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .rename = op_rename,
    .open = op_open,
    .create = op_create,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .release = op_release,
    .fsync = op_fsync,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .statfs = op_statfs,
    .getxattr = op_getxattr,
    .setxattr = op_setxattr,
    .listxattr = op_listxattr,
    .removexattr = op_removexattr,
    .getlk = op_getlk,
    .setlk = op_setlk,
    .flock = op_flock,
    .fallocate = op_fallocate,
    .lseek = op_lseek,
    .copy_file_range = op_copy_file_range,
};

/* How deep a backing file's own filesystem may be stacked. 2 would keep npkfs from lying under an overlay itself, so it
 * is offered only where the source needs it: on overlayfs, and on filesystems that use passthrough themselves. */
static unsigned stack_depth_for(int root_fd)
{
    struct statfs sf;
    if (fstatfs(root_fd, &sf) < 0)
        return 1;
    const long overlay = 0x794c7630, fuse = 0x65735546;
    return sf.f_type == overlay || sf.f_type == fuse ? 2 : 1;
}

/* Commas and backslashes end an option or escape in a mount option. */
static void add_escaped(char *out, size_t room, const char *text)
{
    size_t n = strlen(out);
    for (; *text && n + 3 < room; text++) {
        if (*text == ',' || *text == '\\')
            out[n++] = '\\';
        out[n++] = *text;
    }
    out[n] = '\0';
}

static int mount_arguments(fs_state *fs, struct fuse_args *args)
{
    const fs_options *o = fs->options;
    char opts[PATH_MAX * 2 + 256] = "subtype=npkfs,default_permissions,fsname=";
    add_escaped(opts, sizeof opts - 128, fs->source_path);
    if (o->allow_other)
        strcat(opts, ",allow_other");
    if (fs->read_only && (o->read_only || !fs->pkg)) /* a package refuses changes itself, and takes questions */
        strcat(opts, ",ro");
    if (o->kernel_options && *o->kernel_options && strlen(opts) + strlen(o->kernel_options) + 2 < sizeof opts) {
        strcat(opts, ",");
        strcat(opts, o->kernel_options);
    }
    int err = fuse_opt_add_arg(args, "npkfs") || fuse_opt_add_arg(args, "-o") || fuse_opt_add_arg(args, opts);
    if (!err && o->debug)
        err = fuse_opt_add_arg(args, "-d");
    return err ? -ENOMEM : 0;
}

static char *descriptor_path(int fd)
{
    char link[48], path[PATH_MAX + 1];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX);
    if (n < 0)
        return NULL;
    path[n] = '\0';
    return strdup(path);
}

static fs_state *state_new(const fs_options *o, npk_store *store)
{
    fs_state *fs = calloc(1, sizeof *fs);
    if (!fs)
        return NULL;
    fs->options = o;
    fs->store = store;
    fs->root_fd = npk_store_fd(store);
    fs->read_only = o->read_only || npk_store_read_only(store);
    fs->mounted_at = time(NULL);
    fs->mountpoint = strdup(o->mountpoint);
    if (npk_store_package(store)) {
        fs->stack_depth = 1;
        fs->lease_reason = "a package never changes";
        fs->source_path = descriptor_path(npk_package_fd(npk_store_package(store)));
        return fs;
    }
    npk_package *lower;
    fs->upper = npk_store_is_upper(store);
    if (fs->upper && npk_store_lower(store, &lower) == 0)
        npk_package_set_cache(lower, o->cache_bytes);
    fs->stack_depth = stack_depth_for(fs->root_fd);
    fs->leases_prove = npk_leases_prove(store, &fs->lease_reason);
    fs->source_path = descriptor_path(fs->root_fd);
    return fs;
}

int fs_session_mount(const fs_options *o, npk_store *store, fs_state **out, char *why, unsigned why_bytes)
{
    fs_state *fs = state_new(o, store);
    if (!fs || !fs->source_path || !fs->mountpoint) {
        snprintf(why, why_bytes, "out of memory");
        return -ENOMEM;
    }
    bool packed = npk_store_package(store) != NULL;
    int err = packed ? pkg_new(fs) : nodes_new(fs);
    if (!err)
        err = fs_controls_new(fs);
    if (!err)
        err = fs_searches_new(fs);
    if (!err && !packed)
        err = saves_new(fs);
    if (!err)
        err = loop_new(fs);
    if (!err)
        err = view_ahead_start(fs);
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    if (!err)
        err = mount_arguments(fs, &args);
    if (err) {
        snprintf(why, why_bytes, "%s", strerror(-err));
        return err;
    }
    struct fuse_lowlevel_ops routed = operations;
    fs_batch_route(&routed);
    fs->session = fuse_session_new(&args, packed ? &pkg_operations : &routed, sizeof operations, fs);
    fuse_opt_free_args(&args);
    if (!fs->session) {
        snprintf(why, why_bytes, "the FUSE library refused the session; its own message is above");
        return -EINVAL;
    }
    if (fuse_session_mount(fs->session, o->mountpoint) != 0) {
        snprintf(why, why_bytes, "%s: cannot be mounted on (fusermount3's message is above); it must be a directory of "
                                 "yours, and /dev/fuse must be accessible", o->mountpoint);
        return -EPERM;
    }
    err = wire_attach(fs);
    if (err) {
        snprintf(why, why_bytes, "the FUSE session refused its input: %s", strerror(-err));
        fuse_session_unmount(fs->session);
        return err;
    }
    *out = fs;
    return 0;
}

/* Of a page cache that the daemon fills: fewer and larger requests. */
#define READAHEAD_KIB 1024

int fs_session_run(fs_state *fs)
{
    if (fs->pkg) { /* nothing to lock, to watch or to settle */
        int started = pkg_ahead_start(fs);
        return started ? started : loop_run(fs);
    }
    mountpoint_raise_readahead(fs->mountpoint, READAHEAD_KIB);
    int err = notices_start(fs);
    if (!err)
        err = locks_start(fs);
    if (!err)
        err = keeper_start(fs);
    if (!err)
        err = watch_start(fs);
    return err ? err : loop_run(fs);
}

void fs_session_stop(fs_state *fs)
{
    loop_stop(fs);
}

static void free_common(fs_state *fs)
{
    fuse_session_destroy(fs->session);
    loop_free(fs);
    view_ahead_free(fs);
    fs_searches_free(fs);
    fs_controls_free(fs);
    free(fs->source_path);
    free(fs->mountpoint);
    free(fs);
}

void fs_session_end(fs_state *fs)
{
    if (fs->pkg) {
        fuse_session_unmount(fs->session);
        pkg_ahead_stop(fs);
        pkg_free(fs);
        free_common(fs);
        return;
    }
    /* Unmount first: then no request is under way that the ending threads would be missed by. */
    watch_stop(fs);
    fuse_session_unmount(fs->session);
    locks_stop(fs);
    compacter_stop();
    view_ahead_stop(fs);
    keeper_stop(fs);
    saves_free(fs);
    notices_stop(fs);
    fs_batches_free(fs);
    if (!fs->read_only)
        npk_dir_tidy(fs->store, "");
    open_free_all(fs);
    nodes_free(fs);
    free_common(fs);
}
