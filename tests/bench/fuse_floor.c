/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuse_floor.c - what FUSE itself costs on this machine: the cheapest server of one flat directory that there can be.
 *
 *     fuse_floor DIR MOUNTPOINT
 *
 * It speaks the protocol on /dev/fuse without a library, keeps no state but names, hands every open file to the kernel
 * (passthrough), answers the rest at once, takes no locks and never sleeps. A daemon that does anything for its users
 * cannot be faster, so benchmarks show it beside ours. It stays in the foreground; unmounting ends it. Root only.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fuse.h>

/* linux/fuse.h of older distributions ends before passthrough (protocol 7.40). */
#define FLOOR_PASSTHROUGH (UINT64_C(1) << 37)
#define FLOOR_OPEN_PASSTHROUGH (1u << 7)
#define FLOOR_OPEN_NOFLUSH (1u << 5)
struct floor_backing { int32_t fd; uint32_t flags; uint64_t padding; };
#define FLOOR_BACKING_OPEN _IOW(229, 1, struct floor_backing)
#define FLOOR_BACKING_CLOSE _IOW(229, 2, uint32_t)

#define MAX_WRITE (1u << 20)
#define MAX_NODES 65536

static int device, dir;
static char *names[MAX_NODES]; /* of node i + 2 */
static uint32_t node_count;
static int ids[MAX_NODES];     /* backing ids while open */
static uint32_t opens[MAX_NODES];

static void reply(uint64_t unique, int err, const void *body, size_t bytes)
{
    struct { struct fuse_out_header h; char body[256]; } out = {.h = {.len = (uint32_t)(sizeof out.h + bytes), .error = err, .unique = unique}};
    if (bytes)
        memcpy(out.body, body, bytes);
    if (write(device, &out, out.h.len) < 0 && errno != ENOENT)
        perror("fuse_floor: reply");
}

static struct fuse_attr attributes(const struct stat *st, uint64_t node)
{
    return (struct fuse_attr){.ino = node, .size = (uint64_t)st->st_size, .blocks = (uint64_t)st->st_blocks,
                              .mtime = (uint64_t)st->st_mtime, .mode = st->st_mode, .nlink = (uint32_t)st->st_nlink,
                              .uid = st->st_uid, .gid = st->st_gid, .blksize = 4096};
}

static uint64_t node_named(const char *name)
{
    for (uint32_t i = node_count; i-- > 0 && i + 16 > node_count;) /* a file that was just made is looked up next */
        if (strcmp(names[i], name) == 0)
            return i + 2;
    if (node_count == MAX_NODES) { /* a run of many creations: numbers start again */
        for (uint32_t i = 0; i < node_count; i++)
            free(names[i]);
        node_count = 0;
    }
    names[node_count] = strdup(name);
    return node_count++ + 2;
}

static int backing_of(uint64_t node, int fd)
{
    if (!opens[node - 2]++) {
        struct floor_backing map = {.fd = fd};
        ids[node - 2] = ioctl(device, FLOOR_BACKING_OPEN, &map);
    }
    return ids[node - 2];
}

static void on_init(const struct fuse_in_header *in)
{
    const struct fuse_init_in *asked = (const void *)(in + 1);
    uint64_t flags = FUSE_INIT_EXT | FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_PARALLEL_DIROPS | FLOOR_PASSTHROUGH;
    struct fuse_init_out out = {.major = 7, .minor = 40, .max_readahead = asked->max_readahead, .max_background = 64,
                                .congestion_threshold = 48, .max_write = MAX_WRITE, .time_gran = 1, .max_pages = 256,
                                .flags = (uint32_t)flags, .flags2 = (uint32_t)(flags >> 32)};
    uint32_t depth = 1; /* max_stack_depth follows flags2 */
    memcpy((char *)&out.flags2 + sizeof out.flags2, &depth, sizeof depth);
    reply(in->unique, 0, &out, sizeof out);
}

static void on_lookup(const struct fuse_in_header *in, const char *name)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        reply(in->unique, -errno, NULL, 0);
        return;
    }
    uint64_t node = node_named(name);
    struct fuse_entry_out out = {.nodeid = node, .generation = 1, .entry_valid = 1, .attr_valid = 1, .attr = attributes(&st, node)};
    reply(in->unique, 0, &out, sizeof out);
}

static void on_getattr(const struct fuse_in_header *in)
{
    struct stat st;
    int err = in->nodeid == 1 ? fstat(dir, &st) : fstatat(dir, names[in->nodeid - 2], &st, 0);
    struct fuse_attr_out out = {.attr_valid = 1};
    if (!err)
        out.attr = attributes(&st, in->nodeid);
    reply(in->unique, err ? -errno : 0, &out, err ? 0 : sizeof out);
}

static void set_open(struct fuse_open_out *out, uint64_t node, int fd, bool writer)
{
    int id = backing_of(node, fd);
    out->open_flags = (writer ? 0 : FLOOR_OPEN_NOFLUSH) | (id > 0 ? FLOOR_OPEN_PASSTHROUGH : 0);
    memcpy((char *)out + offsetof(struct fuse_open_out, open_flags) + 4, &id, sizeof id);
}

static void on_open(const struct fuse_in_header *in)
{
    const struct fuse_open_in *asked = (const void *)(in + 1);
    int fd = opens[in->nodeid - 2] ? -1 : openat(dir, names[in->nodeid - 2], O_RDONLY | O_CLOEXEC);
    struct fuse_open_out out = {.fh = 1};
    set_open(&out, in->nodeid, fd, (asked->flags & O_ACCMODE) != O_RDONLY);
    reply(in->unique, 0, &out, sizeof out);
    if (fd >= 0)
        close(fd);
}

static void on_create(const struct fuse_in_header *in)
{
    const struct fuse_create_in *asked = (const void *)(in + 1);
    const char *name = (const char *)(asked + 1);
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC, asked->mode);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        reply(in->unique, -errno, NULL, 0);
        return;
    }
    uint64_t node = node_named(name);
    struct { struct fuse_entry_out e; struct fuse_open_out o; } out = {
        .e = {.nodeid = node, .generation = 1, .entry_valid = 1, .attr_valid = 1, .attr = attributes(&st, node)}, .o = {.fh = 1}};
    set_open(&out.o, node, fd, true);
    reply(in->unique, 0, &out, sizeof out);
    close(fd);
}

static void on_release(const struct fuse_in_header *in)
{
    uint64_t i = in->nodeid - 2;
    if (opens[i] && --opens[i] == 0 && ids[i] > 0) {
        uint32_t id = (uint32_t)ids[i];
        ioctl(device, FLOOR_BACKING_CLOSE, &id);
    }
    reply(in->unique, 0, NULL, 0);
}

static void answer(const struct fuse_in_header *in)
{
    switch (in->opcode) {
    case FUSE_INIT: on_init(in); break;
    case FUSE_LOOKUP: on_lookup(in, (const char *)(in + 1)); break;
    case FUSE_GETATTR: on_getattr(in); break;
    case FUSE_OPEN: on_open(in); break;
    case FUSE_CREATE: on_create(in); break;
    case FUSE_RELEASE: on_release(in); break;
    case FUSE_FLUSH: reply(in->unique, 0, NULL, 0); break;
    case FUSE_IOCTL: reply(in->unique, -ENOTTY, NULL, 0); break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT: break;
    default: reply(in->unique, -ENOSYS, NULL, 0);
    }
}

int main(int argc, char **argv)
{
    static _Alignas(8) char buf[MAX_WRITE + 65536];
    if (argc != 3) {
        fprintf(stderr, "usage: fuse_floor DIR MOUNTPOINT\n");
        return 2;
    }
    dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    char options[128];
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
    if (dir < 0 || device < 0 || mount("fuse_floor", argv[2], "fuse", MS_NOSUID | MS_NODEV, options) != 0) {
        perror("fuse_floor");
        return 1;
    }
    for (;;) {
        ssize_t n = read(device, buf, sizeof buf);
        if (n > 0)
            answer((const struct fuse_in_header *)buf);
        else if (n < 0 && errno == EAGAIN)
            sched_yield();
        else if (n < 0 && errno != EINTR && errno != ENOENT)
            return errno == ENODEV ? 0 : 1;
    }
}
