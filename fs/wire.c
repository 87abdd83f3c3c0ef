/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire.c - see wire.h.
 *
 * libfuse before 3.17 knows neither FUSE_PASSTHROUGH nor FUSE_DIRECT_IO_ALLOW_MMAP, so the INIT exchange is watched
 * through fuse_session_custom_io: the kernel's offer is read off the request, and the accepted flags are added to the
 * library's reply. From 3.17 on the library does both. Flags and structures are the kernel's (linux/fuse.h).
 */
#include "wire.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ops.h"

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
#define WIRE_LIBRARY_KNOWS_PASSTHROUGH 1
#else
#define WIRE_LIBRARY_KNOWS_PASSTHROUGH 0
#endif

/* Older kernel headers lack these; the values are the protocol's. */
#define WIRE_INIT_EXT (1u << 30)
#define WIRE_KILLPRIV_V2 (1u << 28)
#define WIRE_KILLPRIV (1u << 19)
#define WIRE2_DIRECT_IO_ALLOW_MMAP (1u << 4)
#define WIRE2_PASSTHROUGH (1u << 5)
#define WIRE_OPEN_PASSTHROUGH (1u << 7)

struct wire_backing_map {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};
#define WIRE_BACKING_OPEN _IOW(229, 1, struct wire_backing_map)
#define WIRE_BACKING_CLOSE _IOW(229, 2, uint32_t)

/* What the kernel offered and what was taken; written during INIT, which nothing runs beside. */
static struct {
    bool offered_passthrough, offered_mmap;
    bool took_passthrough, took_mmap;
} wire;

#if !WIRE_LIBRARY_KNOWS_PASSTHROUGH

/* struct fuse_init_in and fuse_init_out as of protocol 7.36; old headers end them earlier. */
struct wire_init_in {
    uint32_t major, minor, max_readahead, flags, flags2, unused[11];
};
struct wire_init_out {
    uint32_t major, minor, max_readahead, flags;
    uint16_t max_background, congestion_threshold;
    uint32_t max_write, time_gran;
    uint16_t max_pages, map_alignment;
    uint32_t flags2, max_stack_depth, unused[6];
};
_Static_assert(sizeof(struct wire_init_out) == 64, "the INIT reply has 64 bytes");

static struct {
    fs_state *fs;
    uint64_t unique; /* of the INIT request; 0 none seen */
    uint32_t flags, flags2;
} wire_handshake;

static ssize_t wire_read(int fd, void *buf, size_t size, void *userdata)
{
    (void)userdata;
    ssize_t n = read(fd, buf, size);
    const struct fuse_in_header *in = buf;
    if (n >= (ssize_t)sizeof *in && in->opcode == FUSE_INIT) {
        size_t have = (size_t)n - sizeof *in;
        struct wire_init_in init = {0};
        memcpy(&init, in + 1, have < sizeof init ? have : sizeof init);
        wire_handshake.unique = in->unique;
        wire_handshake.flags = init.flags;
        wire_handshake.flags2 = init.flags & WIRE_INIT_EXT ? init.flags2 : 0;
        wire.offered_passthrough = wire_handshake.flags2 & WIRE2_PASSTHROUGH;
        wire.offered_mmap = wire_handshake.flags2 & WIRE2_DIRECT_IO_ALLOW_MMAP;
    }
    return n;
}

static void wire_amend_init(struct wire_init_out *out)
{
    fs_state *fs = wire_handshake.fs;
    if (wire_handshake.flags & WIRE_KILLPRIV_V2)
        out->flags = (out->flags & ~WIRE_KILLPRIV) | WIRE_KILLPRIV_V2;
    if (!(wire_handshake.flags & WIRE_INIT_EXT))
        return;
    out->flags |= WIRE_INIT_EXT;
    if (wire.offered_mmap) {
        out->flags2 |= WIRE2_DIRECT_IO_ALLOW_MMAP;
        wire.took_mmap = true;
    }
    if (wire.offered_passthrough && fs->options->passthrough != FS_PASSTHROUGH_OFF) {
        out->flags2 |= WIRE2_PASSTHROUGH;
        out->max_stack_depth = fs->stack_depth;
        wire.took_passthrough = true;
    }
}

static ssize_t wire_writev(int fd, struct iovec *iov, int count, void *userdata)
{
    (void)userdata;
    const struct fuse_out_header *out = iov[0].iov_base;
    if (wire_handshake.unique && out->unique == wire_handshake.unique && out->error == 0) {
        wire_handshake.unique = 0;
        if (count >= 2 && iov[1].iov_len >= sizeof(struct wire_init_out))
            wire_amend_init(iov[1].iov_base);
    }
    return writev(fd, iov, count);
}

static ssize_t wire_splice_receive(int in, off_t *in_off, int out, off_t *out_off, size_t len, unsigned flags,
                                   void *userdata)
{
    (void)userdata;
    return splice(in, in_off, out, out_off, len, flags);
}

static ssize_t wire_splice_send(int in, off_t *in_off, int out, off_t *out_off, size_t len, unsigned flags,
                                void *userdata)
{
    (void)userdata;
    return splice(in, in_off, out, out_off, len, flags);
}

int wire_attach(fs_state *fs)
{
    static const struct fuse_custom_io io = {
        .read = wire_read,
        .writev = wire_writev,
        .splice_receive = wire_splice_receive,
        .splice_send = wire_splice_send,
    };
    wire_handshake.fs = fs;
    return fuse_session_custom_io(fs->session, &io, fuse_session_fd(fs->session));
}

static void wire_ask(fs_state *fs, struct fuse_conn_info *conn)
{
    (void)fs;
    (void)conn;
}

#else

int wire_attach(fs_state *fs)
{
    (void)fs;
    return 0;
}

static void wire_ask(fs_state *fs, struct fuse_conn_info *conn)
{
    wire.offered_passthrough = fuse_get_feature_flag(conn, FUSE_CAP_PASSTHROUGH);
    wire.offered_mmap = fuse_get_feature_flag(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
    fuse_unset_feature_flag(conn, FUSE_CAP_HANDLE_KILLPRIV);
    fuse_set_feature_flag(conn, FUSE_CAP_HANDLE_KILLPRIV_V2);
    wire.took_mmap = fuse_set_feature_flag(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
    if (fs->options->passthrough != FS_PASSTHROUGH_OFF) {
        wire.took_passthrough = fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH);
        conn->max_backing_stack_depth = fs->stack_depth - 1; /* the library adds one */
    }
}

#endif

void wire_init(fs_state *fs, struct fuse_conn_info *conn)
{
    /* Splicing was measured slower than plain reads and replies from memory, and the loop wants the request's bytes. */
    conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
    conn->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE; /* excludes passthrough */
    unsigned wanted = FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                      FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_DIO | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS;
    conn->want |= conn->capable & wanted;
    conn->max_write = 1u << 20;
    conn->max_readahead = 1u << 20;
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    conn->time_gran = 1;
    wire_ask(fs, conn);
}

void wire_decide_mode(fs_state *fs)
{
    fs->direct_mmap = wire.took_mmap;
    fs->mode = FS_MODE_DAEMON;
    const char *reason;
    int id = -ENOSYS;
    if (fs->pkg) {
        reason = "the files of a package are decoded by the daemon";
    } else if (fs->options->passthrough == FS_PASSTHROUGH_OFF) {
        reason = "passthrough=off was asked for";
    } else if (!wire.took_passthrough) {
        reason = "the kernel does not offer FUSE passthrough (Linux 6.9 and later do)";
    } else {
        /* Only the attempt tells whether this process may hand files over. Directories cannot be, but the answer to one
         * comes after the privilege check: EPERM without CAP_SYS_ADMIN, EOPNOTSUPP or EINVAL with it. */
        int fd = fuse_session_fd(fs->session);
        struct wire_backing_map map = {.fd = fs->root_fd};
        id = ioctl(fd, WIRE_BACKING_OPEN, &map) < 0 ? -errno : 0;
        if (id == -EPERM) {
            reason = geteuid() == 0
                         ? "the kernel refuses passthrough to this root (a container without CAP_SYS_ADMIN, or a store "
                           "stacked too deep)"
                         : "this process lacks CAP_SYS_ADMIN, which handing files to the kernel takes";
        } else {
            fs->mode = FS_MODE_PASSTHROUGH;
            reason = "the kernel reads and writes the files themselves";
        }
    }
    snprintf(fs->mode_reason, sizeof fs->mode_reason, "%s", reason);
}

int wire_backing_open(fs_state *fs, int fd)
{
    struct wire_backing_map map = {.fd = fd};
    int id = ioctl(fuse_session_fd(fs->session), WIRE_BACKING_OPEN, &map);
    if (id < 0)
        return -errno;
    atomic_fetch_add_explicit(&fs->stats.backing_ids, 1, memory_order_relaxed);
    return id;
}

void wire_backing_close(fs_state *fs, int id)
{
    uint32_t value = (uint32_t)id;
    ioctl(fuse_session_fd(fs->session), WIRE_BACKING_CLOSE, &value);
    atomic_fetch_sub_explicit(&fs->stats.backing_ids, 1, memory_order_relaxed);
}

/* struct fuse_open_out with the backing id in what older headers call padding. */
struct wire_open_out {
    uint64_t fh;
    uint32_t open_flags;
    int32_t backing_id;
};
_Static_assert(sizeof(struct wire_open_out) == 16, "the OPEN reply has 16 bytes");

static struct wire_open_out wire_open_out(const struct fuse_file_info *fi, unsigned open_flags, int backing_id)
{
    if (backing_id)
        open_flags |= WIRE_OPEN_PASSTHROUGH;
    return (struct wire_open_out){.fh = fi->fh, .open_flags = open_flags, .backing_id = backing_id};
}

int wire_reply_open(fuse_req_t req, struct fuse_file_info *fi, unsigned open_flags, int backing_id)
{
    struct wire_open_out out = wire_open_out(fi, open_flags, backing_id);
    return fuse_reply_buf(req, (const char *)&out, sizeof out);
}

static void wire_attr(struct fuse_attr *to, const struct stat *st)
{
    *to = (struct fuse_attr){
        .ino = st->st_ino,
        .size = (uint64_t)st->st_size,
        .blocks = (uint64_t)st->st_blocks,
        .atime = (uint64_t)st->st_atim.tv_sec,
        .mtime = (uint64_t)st->st_mtim.tv_sec,
        .ctime = (uint64_t)st->st_ctim.tv_sec,
        .atimensec = (uint32_t)st->st_atim.tv_nsec,
        .mtimensec = (uint32_t)st->st_mtim.tv_nsec,
        .ctimensec = (uint32_t)st->st_ctim.tv_nsec,
        .mode = st->st_mode,
        .nlink = (uint32_t)st->st_nlink,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .rdev = (uint32_t)st->st_rdev,
        .blksize = (uint32_t)st->st_blksize,
    };
}

static void wire_timeout(double s, uint64_t *sec, uint32_t *nsec)
{
    *sec = (uint64_t)s;
    *nsec = (uint32_t)((s - (double)*sec) * 1e9);
}

static void wire_entry(struct fuse_entry_out *out, const struct fuse_entry_param *e)
{
    out->nodeid = e->ino;
    out->generation = e->generation;
    wire_timeout(e->entry_timeout, &out->entry_valid, &out->entry_valid_nsec);
    wire_timeout(e->attr_timeout, &out->attr_valid, &out->attr_valid_nsec);
    wire_attr(&out->attr, &e->attr);
}

int wire_reply_create(fuse_req_t req, const struct fuse_entry_param *e, struct fuse_file_info *fi, unsigned open_flags,
                      int backing_id)
{
    struct {
        struct fuse_entry_out entry;
        struct wire_open_out open;
    } out = {.open = wire_open_out(fi, open_flags, backing_id)};
    wire_entry(&out.entry, e);
    return fuse_reply_buf(req, (const char *)&out, sizeof out);
}

/* ---- O_TMPFILE ---- */

#define WIRE_TMPFILE 51

static void wire_reply_raw(fs_state *fs, uint64_t unique, int err, const void *payload, size_t bytes)
{
    struct fuse_out_header out = {.len = (uint32_t)(sizeof out + (err ? 0 : bytes)), .error = err, .unique = unique};
    struct iovec iov[2] = {{&out, sizeof out}, {(void *)payload, bytes}};
    (void)!writev(fuse_session_fd(fs->session), iov, err ? 1 : 2);
}

static void wire_tmpfile(fs_state *fs, const struct fuse_in_header *in, const struct fuse_create_in *create)
{
    struct {
        struct fuse_entry_out entry;
        struct wire_open_out open;
    } out = {0};
    struct fuse_entry_param e;
    struct fuse_file_info fi = {.flags = (int)create->flags};
    unsigned open_flags;
    int id;
    int err = file_make_unnamed(fs, in->nodeid, create->mode & ~create->umask, in->uid, in->gid, &fi, &e, &open_flags, &id);
    if (!err) {
        wire_entry(&out.entry, &e);
        out.open = wire_open_out(&fi, open_flags, id);
    }
    wire_reply_raw(fs, in->unique, err, &out, sizeof out);
}

bool wire_intercept(fs_state *fs, const struct fuse_buf *buf)
{
    const struct fuse_in_header *in = buf->mem;
    if (buf->size < sizeof *in + sizeof(struct fuse_create_in) || in->opcode != WIRE_TMPFILE)
        return false;
    wire_tmpfile(fs, in, (const struct fuse_create_in *)(in + 1));
    return true;
}
