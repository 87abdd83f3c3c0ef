/* SPDX-License-Identifier: Apache-2.0 */
/* mountpoint.c - see mountpoint.h. */
#include "mountpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define FUSE_DEVICE "/dev/fuse"
#define MOUNT_TYPE "fuse.npkfs"
#define STACKED_MAX 16 /* dead mounts on top of each other that are detached in one go */

static int fail(char *why, unsigned why_bytes, int err, const char *path, const char *what)
{
    snprintf(why, why_bytes, "\"%s\": %s", path, what);
    return err;
}

/* ---- what is mounted there ------------------------------------------------------------------------------------ */

/* Blanks, tabs, newlines and backslashes stand as \040, \011, \012 and \134 in mountinfo. In place. */
static void decode_octal(char *text)
{
    char *to = text;
    for (const char *from = text; *from; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' && from[3] >= '0' &&
            from[3] <= '7') {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

void mountpoint_find(char *mountinfo, const char *path, char *type, unsigned type_bytes, char *device, unsigned device_bytes)
{
    type[0] = device[0] = '\0';
    char *rest = mountinfo;
    for (char *line; (line = strsep(&rest, "\n"));) {
        /* id parent major:minor root MOUNTPOINT options [tags...] - TYPE source super-options; later lines lie on top. */
        char *fields = line, *number = NULL, *place = NULL, *field;
        for (unsigned i = 0; i < 5 && (place = strsep(&fields, " ")); i++)
            if (i == 2)
                number = place;
        while (place && (field = strsep(&fields, " ")))
            if (strcmp(field, "-") == 0)
                break;
        char *found = place && fields ? strsep(&fields, " ") : NULL;
        if (!found)
            continue;
        decode_octal(place);
        if (strcmp(place, path) != 0)
            continue;
        snprintf(type, type_bytes, "%s", found);
        snprintf(device, device_bytes, "%s", number);
    }
}

/* A file of /proc as a string. */
static char *read_proc(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    size_t bytes = 0, capacity = 16 << 10;
    char *text = malloc(capacity);
    for (ssize_t n = 1; text && n > 0;) {
        if (capacity - bytes < 4096) {
            char *more = realloc(text, capacity *= 2);
            if (!more)
                free(text);
            text = more;
        }
        n = text ? read(fd, text + bytes, capacity - bytes - 1) : 0;
        if (n > 0)
            bytes += (size_t)n;
    }
    close(fd);
    if (text)
        text[bytes] = '\0';
    return text;
}

static bool find_npkfs(const char *path, char *device, unsigned device_bytes)
{
    char type[64] = "";
    char *mountinfo = read_proc("/proc/self/mountinfo");
    if (mountinfo)
        mountpoint_find(mountinfo, path, type, sizeof type, device, device_bytes);
    free(mountinfo);
    return strcmp(type, MOUNT_TYPE) == 0;
}

static bool is_npkfs_mount(const char *path)
{
    char device[24];
    return find_npkfs(path, device, sizeof device);
}

void mountpoint_raise_readahead(const char *path, unsigned kib)
{
    char device[24], file[80], text[24];
    if (!find_npkfs(path, device, sizeof device))
        return;
    snprintf(file, sizeof file, "/sys/class/bdi/%s/read_ahead_kb", device);
    int fd = open(file, O_RDWR | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n > 0) {
        text[n] = '\0';
        if (strtoul(text, NULL, 10) < kib)
            (void)!pwrite(fd, text, (size_t)snprintf(text, sizeof text, "%u", kib), 0);
    }
    if (fd >= 0)
        close(fd);
}

/* ---- dead mounts ---------------------------------------------------------------------------------------------- */

/* Users may not call umount2; fusermount3 does it for the mounts that they made. */
static int detach_by_helper(const char *path)
{
    pid_t child = fork();
    if (child == 0) {
        execlp("fusermount3", "fusermount3", "-u", "-z", "--", path, (char *)NULL);
        execlp("fusermount", "fusermount", "-u", "-z", "--", path, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

static bool is_dead(int err)
{
    return err == ENOTCONN || err == ECONNABORTED;
}

/* statfs is asked of the server each time, where stat may be answered from attributes that outlive it for a while. */
static bool is_dead_place(const char *path)
{
    struct statfs sf;
    return statfs(path, &sf) < 0 && is_dead(errno);
}

/* Detach what died at this canonical path. 0: something that lives is there now. */
static int detach_dead(const char *path, char *why, unsigned why_bytes)
{
    for (unsigned i = 0; is_dead_place(path); i++) {
        if (!is_npkfs_mount(path))
            return fail(why, why_bytes, -ENOTCONN, path,
                        "a filesystem whose server died is mounted here or above, and it is no npkfs; unmount it first");
        if (i == STACKED_MAX ||
            (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && detach_by_helper(path) < 0))
            return fail(why, why_bytes, -ENOTCONN, path,
                        "a dead npkfs is mounted here and cannot be detached; fusermount3 -uz (or umount -l as root) "
                        "does it");
        fprintf(stderr, "npkfs: \"%s\": the npkfs that was mounted here had died; it was detached\n", path);
    }
    return 0;
}

/* The path without symlinks. The last component may be a dead mount, which realpath cannot look into. */
static char *canonical(const char *path)
{
    char *whole = realpath(path, NULL);
    if (whole || !is_dead(errno))
        return whole;
    char *copy = strdup(path);
    if (!copy)
        return NULL;
    size_t n = strlen(copy);
    while (n > 1 && (copy[n - 1] == '/' || (copy[n - 1] == '.' && copy[n - 2] == '/')))
        copy[--n] = '\0';
    char *leaf = strrchr(copy, '/') + 1; /* the path is absolute */
    char *out = NULL;
    char *above = leaf - copy > 1 ? strndup(copy, (size_t)(leaf - copy)) : strdup("/");
    char *parent = above && strcmp(leaf, "..") != 0 ? realpath(above, NULL) : NULL;
    int err = errno;
    if (parent && asprintf(&out, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, leaf) < 0)
        out = NULL;
    free(parent);
    free(above);
    free(copy);
    errno = err;
    return out;
}

/* ---- fitness --------------------------------------------------------------------------------------------------- */

static const char *phrase_for(int err)
{
    switch (err) {
    case ENOENT:
        return "there is no such directory to mount on; make it first";
    case ENOTDIR:
        return "not a directory; a mount point is one";
    case EACCES:
        return "may not be looked at by you; a mount point has to be a directory of yours";
    case ELOOP:
        return "too many symbolic links; give the directory itself";
    case ENAMETOOLONG:
        return "too long for a path";
    case ENOTCONN:
    case ECONNABORTED:
        return "lies in a filesystem whose server died; unmount that first";
    default:
        return strerror(err);
    }
}

int mountpoint_prepare(char **mountpoint, char *why, unsigned why_bytes)
{
    const char *given = *mountpoint;
    char *path = canonical(given);
    if (!path)
        return fail(why, why_bytes, -errno, given, phrase_for(errno));
    int err = detach_dead(path, why, why_bytes);
    struct stat st;
    if (!err && stat(path, &st) < 0)
        err = fail(why, why_bytes, -errno, path, phrase_for(errno));
    if (!err && !S_ISDIR(st.st_mode))
        err = fail(why, why_bytes, -ENOTDIR, path, phrase_for(ENOTDIR));
    if (!err && is_npkfs_mount(path))
        err = fail(why, why_bytes, -EBUSY, path, "npkfs is mounted here already; umount or fusermount3 -u ends it");
    if (!err && geteuid() != 0 && faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) < 0)
        err = fail(why, why_bytes, -EACCES, path,
                   "may not be written to by you; users mount on directories that they may write to");
    if (err) {
        free(path);
        return err;
    }
    free(*mountpoint);
    *mountpoint = path;
    return 0;
}

static bool is_in_path(const char *program)
{
    const char *path = getenv("PATH");
    char file[PATH_MAX];
    for (path = path ? path : "/bin:/usr/bin"; *path;) {
        size_t n = strcspn(path, ":");
        if (snprintf(file, sizeof file, "%.*s/%s", (int)n, path, program) < (int)sizeof file && access(file, X_OK) == 0)
            return true;
        path += n + (path[n] == ':');
    }
    return false;
}

int mountpoint_check_fuse(char *why, unsigned why_bytes)
{
    int fd = open(FUSE_DEVICE, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        int err = errno;
        const char *what =
            err == ENOENT ? "there is none; load the kernel module (modprobe fuse), or give the container the device"
            : err == ENODEV || err == ENXIO
                ? "the kernel has no FUSE; load its module (modprobe fuse)"
            : err == EACCES || err == EPERM
                ? "may not be opened by you; it takes read and write permission (and, in a container, the device itself)"
                : strerror(err);
        return fail(why, why_bytes, -err, FUSE_DEVICE, what);
    }
    close(fd);
    if (geteuid() != 0 && !is_in_path("fusermount3") && access("/usr/bin/fusermount3", X_OK) < 0)
        return fail(why, why_bytes, -ENOENT, "fusermount3",
                    "not found; it mounts for users that are not root (package fuse3)");
    return 0;
}
