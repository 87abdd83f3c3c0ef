/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "io_record.h"
#include "npk.h"

/* ---- the fault plan -------------------------------------------------------------------------------------------- */

static struct {
    bool on;
    atomic_uint_least64_t calls;
    bool by_sector;
    uint64_t kill_at, torn_at, short_at, fail_at; /* 0: never */
    bool fail_on;                                 /* fail_at and all after it */
    int fail_errno;
    char delayed[32];
    long delay_ms;
    int count_fd;
    uint64_t boot;   /* makes another boot id */
    bool identities; /* files pass for others */
} plan = {.count_fd = -1};

#define SECTOR 512u /* what a disk writes whole */

/* Set by a torn call for the thread that makes it: die once half of the bytes are written. */
static _Thread_local bool torn;

static const struct {
    const char *name;
    int number;
} plan_errnos[] = {
    {"ENOSPC", ENOSPC}, {"EIO", EIO},       {"EDQUOT", EDQUOT}, {"EACCES", EACCES},         {"EPERM", EPERM},
    {"EROFS", EROFS},   {"EMFILE", EMFILE}, {"ENOMEM", ENOMEM}, {"EOPNOTSUPP", EOPNOTSUPP}, {"EINVAL", EINVAL},
    {"EBUSY", EBUSY},   {"ENOENT", ENOENT}, {"EXDEV", EXDEV},   {"ENOSYS", ENOSYS},         {"EFBIG", EFBIG},
};

static int plan_errno(const char *name)
{
    for (size_t i = 0; i < sizeof(plan_errnos) / sizeof(plan_errnos[0]); i++)
        if (strcmp(plan_errnos[i].name, name) == 0)
            return plan_errnos[i].number;
    return 0;
}

/* "17" into *out, or "17+" where plus is not NULL; the text must end there. */
static bool plan_number(char *text, uint64_t *out, bool *plus)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    if (plus && *end == '+') {
        *plus = true;
        end++;
    }
    return errno == 0 && *text >= '0' && *text <= '9' && *end == '\0' && *out > 0; /* strtoull takes "-1" */
}

static int plan_item(char *item)
{
    char *rest = NULL, *what = strtok_r(item, ":", &rest), *arg = strtok_r(NULL, ":", &rest);
    uint64_t n;
    if (!what || !arg)
        return -EINVAL;
    if (strcmp(what, "record") == 0)
        return npk__record_begin(arg);
    if (strcmp(what, "identity") == 0) {
        plan.identities = true;
        return npk__identity_load(arg);
    }
    if (strcmp(what, "count") == 0) {
        plan.count_fd = open(arg, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        return plan.count_fd < 0 ? -errno : 0;
    }
    if (strcmp(what, "delay") == 0) {
        char *ms = strtok_r(NULL, ":", &rest);
        if (!ms || strlen(arg) >= sizeof(plan.delayed) || !plan_number(ms, &n, NULL) || n > 60000)
            return -EINVAL;
        memcpy(plan.delayed, arg, strlen(arg) + 1);
        plan.delay_ms = (long)n;
        return 0;
    }
    if (!plan_number(arg, &n, strcmp(what, "fail") == 0 ? &plan.fail_on : NULL))
        return -EINVAL;
    if (strcmp(what, "boot") == 0) {
        plan.boot = n;
    } else if (strcmp(what, "kill") == 0) {
        plan.kill_at = n;
    } else if (strcmp(what, "kill-torn") == 0 || strcmp(what, "kill-sector") == 0) {
        plan.torn_at = n;
        plan.by_sector = what[5] == 's';
    } else if (strcmp(what, "short") == 0) {
        plan.short_at = n;
    } else if (strcmp(what, "fail") == 0) {
        char *name = strtok_r(NULL, ":", &rest);
        plan.fail_errno = name ? plan_errno(name) : EIO;
        plan.fail_at = n;
        return plan.fail_errno ? 0 : -EINVAL;
    } else {
        return -EINVAL;
    }
    return 0;
}

int npk__io_plan_set(const char *text)
{
    if (plan.count_fd >= 0)
        close(plan.count_fd);
    npk__record_end();
    npk__identity_forget();
    memset(&plan, 0, sizeof(plan));
    plan.count_fd = -1;
    if (!text)
        return 0;
    char copy[512], *rest = NULL;
    if (strlen(text) >= sizeof(copy))
        return -EINVAL;
    strcpy(copy, text);
    for (char *item = strtok_r(copy, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        int err = plan_item(item);
        if (err) {
            npk__io_plan_set(NULL);
            return err;
        }
    }
    plan.on = true;
    return 0;
}

uint64_t npk__io_plan_count(void)
{
    return atomic_load(&plan.calls);
}

bool npk__io_planned(void)
{
    return __builtin_expect(plan.on, 0);
}

static uint8_t boot_id[16];

static void boot_id_read(void)
{
    char text[40] = "";
    unsigned digits = 0;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    for (ssize_t i = 0; i < n && digits < 32; i++) {
        const char *hex = "0123456789abcdef", *at = text[i] ? strchr(hex, text[i]) : NULL;
        if (!at)
            continue;
        boot_id[digits / 2] = (uint8_t)(boot_id[digits / 2] << 4 | (at - hex));
        digits++;
    }
}

void npk__boot_id(uint8_t out[16])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, boot_id_read);
    memcpy(out, boot_id, sizeof(boot_id));
    if (npk__io_planned())
        out[0] = (uint8_t)(out[0] ^ plan.boot);
}

/* secure_getenv: a privileged program's caller may not plan its faults. A plan that is none must not be taken for
 * "no plan": a crash test would then pass without a crash. */
__attribute__((constructor)) static void plan_from_environment(void)
{
    const char *text = secure_getenv("NPK_IO_PLAN");
    if (text && *text && npk__io_plan_set(text) != 0) {
        static const char message[] = "NPK_IO_PLAN: not a plan; see store/io.h\n";
        if (write(STDERR_FILENO, message, sizeof(message) - 1) < 0) {
            /* there is nobody left to tell */
        }
        _exit(125);
    }
}

static __attribute__((noreturn)) void die(void)
{
    for (;;) {
        kill(getpid(), SIGKILL);
        pause();
    }
}

static void plan_delay(const char *call)
{
    if (plan.delay_ms == 0 || strcmp(call, plan.delayed) != 0)
        return;
    struct timespec t = {.tv_sec = plan.delay_ms / 1000, .tv_nsec = plan.delay_ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}

/* What the plan says of the next mutating call: 0 to make it (*bytes may have become less), else its errno. */
static __attribute__((cold, noinline)) int plan_next(const char *call, size_t *bytes)
{
    uint64_t n = atomic_fetch_add(&plan.calls, 1) + 1;
    if (plan.count_fd >= 0)
        dprintf(plan.count_fd, "%llu %s %zu\n", (unsigned long long)n, call, bytes ? *bytes : 0);
    plan_delay(call);
    if (n == plan.kill_at)
        die();
    if (n == plan.torn_at) {
        if (!bytes || *bytes < 2)
            die();
        *bytes /= 2;
        torn = true;
    }
    if (plan.fail_at && (n == plan.fail_at || (plan.fail_on && n > plan.fail_at)))
        return -plan.fail_errno;
    if (n == plan.short_at && bytes && *bytes > 1)
        *bytes /= 2;
    return 0;
}

static inline int seam(const char *call, size_t *bytes)
{
    return __builtin_expect(plan.on, 0) ? plan_next(call, bytes) : 0;
}

int npk_io_gate(const char *call, uint64_t bytes)
{
    size_t n = (size_t)bytes;
    int err = seam(call, &n);
    if (torn)
        die(); /* the caller cannot be made to write half */
    return err;
}

static inline void seam_read(const char *call)
{
    if (__builtin_expect(plan.on, 0))
        plan_delay(call);
}

static inline void seam_done(void)
{
    if (__builtin_expect(plan.on, 0) && torn)
        die();
}

/* The value of a call that is made again after EINTR, or the negative errno. */
#define CALL(type, expression)                                                                                         \
    ({                                                                                                                 \
        type call_value_;                                                                                              \
        do                                                                                                             \
            call_value_ = (expression);                                                                                \
        while (call_value_ < 0 && errno == EINTR);                                                                     \
        call_value_ < 0 ? (type)-errno : call_value_;                                                                  \
    })

/* ---- opening --------------------------------------------------------------------------------------------------- */

static bool creates(int flags)
{
    return (flags & (O_CREAT | O_TRUNC)) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
}

static inline bool recording(void)
{
    return __builtin_expect(npk__recording, 0);
}

static void record_open(int fd, int dir_fd, const char *path, int flags, bool made)
{
    if (!recording() || fd < 0)
        return;
    if (made)
        npk__record_name(NPK_RECORDED_FILE, dir_fd, path, NULL, 0);
    else if (flags & O_TRUNC)
        npk__record_fd(NPK_RECORDED_SIZE, fd, 0, NULL, 0);
}

int npk__openat(int dir_fd, const char *path, int flags, mode_t mode)
{
    int err = creates(flags) ? seam("openat", NULL) : 0;
    if (err)
        return err;
    bool made = recording() && creates(flags) && !npk__record_exists(dir_fd, path);
    int fd = CALL(int, openat(dir_fd, path, flags | O_CLOEXEC, mode));
    record_open(fd, dir_fd, path, flags, made);
    return fd;
}

int npk__openat2(int dir_fd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
    int err = creates(flags) ? seam("openat2", NULL) : 0;
    if (err)
        return err;
    struct open_how how = {.flags = (uint64_t)(unsigned)flags | O_CLOEXEC, .resolve = resolve};
    if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE)
        how.mode = mode & 07777; /* the call refuses a mode that would not be used */
    bool made = recording() && creates(flags) && !npk__record_exists(dir_fd, path);
    int fd = CALL(int, (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof(how)));
    record_open(fd, dir_fd, path, flags, made);
    return fd;
}

int npk__reopen(int fd, int flags)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return npk__openat(AT_FDCWD, path, flags, 0);
}

int npk__dup(int fd)
{
    return CALL(int, fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

void npk__close(int *fd)
{
    if (*fd < 0)
        return;
    int saved = errno;
    close(*fd);
    *fd = -1;
    errno = saved;
}

/* ---- data ------------------------------------------------------------------------------------------------------ */

ssize_t npk__pread(int fd, void *buf, size_t bytes, uint64_t offset)
{
    seam_read("pread");
    return CALL(ssize_t, pread(fd, buf, bytes, (off_t)offset));
}

ssize_t npk__pread_full(int fd, void *buf, size_t bytes, uint64_t offset)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = npk__pread(fd, (char *)buf + done, bytes - done, offset + done);
        if (n < 0)
            return n;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

ssize_t npk__pwrite(int fd, const void *buf, size_t bytes, uint64_t offset)
{
    int err = seam("pwrite", &bytes);
    if (err)
        return err;
    if (__builtin_expect(torn && plan.by_sector, 0)) {
        size_t over = (size_t)((offset + bytes) % SECTOR);
        if (over >= bytes)
            die();
        bytes -= over;
    }
    ssize_t n = CALL(ssize_t, pwrite(fd, buf, bytes, (off_t)offset));
    if (recording() && n > 0)
        npk__record_fd(NPK_RECORDED_WRITE, fd, offset, buf, (size_t)n);
    seam_done();
    return n;
}

int npk__pwrite_full(int fd, const void *buf, size_t bytes, uint64_t offset)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = npk__pwrite(fd, (const char *)buf + done, bytes - done, offset + done);
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        done += (size_t)n;
    }
    return 0;
}

ssize_t npk__write(int fd, const void *buf, size_t bytes)
{
    int err = seam("write", &bytes);
    if (err)
        return err;
    ssize_t n = CALL(ssize_t, write(fd, buf, bytes));
    if (recording() && n > 0)
        npk__record_fd(NPK_RECORDED_WRITE, fd, (uint64_t)(lseek(fd, 0, SEEK_CUR) - n), buf, (size_t)n);
    seam_done();
    return n;
}

int npk__write_full(int fd, const void *buf, size_t bytes, size_t *done)
{
    size_t written = 0;
    int err = 0;
    while (written < bytes) {
        ssize_t n = npk__write(fd, (const char *)buf + written, bytes - written);
        if (n <= 0) {
            err = n < 0 ? (int)n : -EIO;
            break;
        }
        written += (size_t)n;
    }
    if (done)
        *done = written;
    return err;
}

ssize_t npk__copy_file_range(int in, uint64_t in_offset, int out, uint64_t out_offset, size_t bytes)
{
    int err = seam("copy_file_range", &bytes);
    if (err)
        return err;
    off_t from = (off_t)in_offset, to = (off_t)out_offset;
    ssize_t n = CALL(ssize_t, copy_file_range(in, &from, out, &to, bytes, 0));
    if (recording() && n > 0)
        npk__record_copied(out, out_offset, (size_t)n);
    seam_done();
    return n;
}

static int copy_by_buffer(int in, uint64_t in_offset, int out, uint64_t out_offset, uint64_t bytes)
{
    const size_t step = 256 * 1024;
    char *buf = malloc(step);
    if (!buf)
        return -ENOMEM;
    int err = 0;
    for (uint64_t done = 0; done < bytes && err == 0;) {
        ssize_t n = npk__pread(in, buf, bytes - done < step ? (size_t)(bytes - done) : step, in_offset + done);
        if (n <= 0) {
            err = n < 0 ? (int)n : -EIO;
        } else {
            err = npk__pwrite_full(out, buf, (size_t)n, out_offset + done);
            done += (size_t)n;
        }
    }
    free(buf);
    return err;
}

int npk__copy_full(int in, uint64_t in_offset, int out, uint64_t out_offset, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes;) {
        size_t step = bytes - done < (1u << 30) ? (size_t)(bytes - done) : 1u << 30;
        ssize_t n = npk__copy_file_range(in, in_offset + done, out, out_offset + done, step);
        if (n == -EXDEV || n == -EINVAL || n == -EOPNOTSUPP || n == -ENOSYS || n == -EPERM)
            return copy_by_buffer(in, in_offset + done, out, out_offset + done, bytes - done);
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        done += (size_t)n;
    }
    return 0;
}

int npk__ftruncate(int fd, uint64_t bytes)
{
    int err = seam("ftruncate", NULL);
    if (!err)
        err = CALL(int, ftruncate(fd, (off_t)bytes));
    if (recording() && !err)
        npk__record_fd(NPK_RECORDED_SIZE, fd, bytes, NULL, 0);
    return err;
}

int npk__fallocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    int err = seam("fallocate", NULL);
    return err ? err : CALL(int, fallocate(fd, mode, (off_t)offset, (off_t)bytes));
}

void npk__writeback(int fd)
{
    (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

int npk__fsync(int fd)
{
    int err = seam("fsync", NULL);
    if (!err)
        err = CALL(int, fsync(fd));
    if (recording() && !err)
        npk__record_fd(NPK_RECORDED_SYNC, fd, 0, NULL, 0);
    return err;
}

int npk__fdatasync(int fd)
{
    int err = seam("fdatasync", NULL);
    if (!err)
        err = CALL(int, fdatasync(fd));
    if (recording() && !err)
        npk__record_fd(NPK_RECORDED_SYNC, fd, 0, NULL, 0);
    return err;
}

int npk__syncfs(int fd)
{
    int err = seam("syncfs", NULL);
    if (!err)
        err = CALL(int, syncfs(fd));
    if (recording() && !err)
        npk__record_fd(NPK_RECORDED_SYNC_ALL, fd, 0, NULL, 0);
    return err;
}

int npk__msync(void *at, size_t bytes, int flags)
{
    int err = seam("msync", NULL);
    return err ? err : CALL(int, msync(at, bytes, flags));
}

int npk__mmap(void **out, size_t bytes, int prot, int flags, int fd, uint64_t offset)
{
    void *at = mmap(NULL, bytes, prot, flags, fd, (off_t)offset);
    if (at == MAP_FAILED)
        return -errno;
    *out = at;
    return 0;
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

int npk__fstat(int fd, struct stat *out)
{
    if (fstat(fd, out) != 0)
        return -errno;
    if (__builtin_expect(plan.identities, 0))
        npk__identity_stat(out);
    return 0;
}

int npk__fstatat(int dir_fd, const char *path, struct stat *out)
{
    int err = CALL(int, fstatat(dir_fd, path, out, AT_SYMLINK_NOFOLLOW));
    if (__builtin_expect(plan.identities, 0) && !err)
        npk__identity_stat(out);
    return err;
}

int npk__statx_fd(int fd, struct statx *out)
{
    int err = CALL(int, statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, out));
    if (__builtin_expect(plan.identities, 0) && !err)
        npk__identity_statx(out);
    return err;
}

int npk__mkdirat(int dir_fd, const char *path, mode_t mode)
{
    int err = seam("mkdirat", NULL);
    if (!err)
        err = CALL(int, mkdirat(dir_fd, path, mode));
    if (recording() && !err)
        npk__record_name(NPK_RECORDED_DIR, dir_fd, path, NULL, 0);
    return err;
}

int npk__unlinkat(int dir_fd, const char *path, int flags)
{
    int err = seam("unlinkat", NULL);
    if (!err)
        err = CALL(int, unlinkat(dir_fd, path, flags));
    if (recording() && !err)
        npk__record_name(NPK_RECORDED_UNLINK, dir_fd, path, NULL, 0);
    return err;
}

int npk__renameat2(int old_dir, const char *old_path, int new_dir, const char *new_path, unsigned flags)
{
    int err = seam("renameat2", NULL);
    if (!err)
        err = CALL(int, renameat2(old_dir, old_path, new_dir, new_path, flags));
    if (recording() && !err)
        npk__record_rename(old_dir, old_path, new_dir, new_path);
    return err;
}

int npk__symlinkat(const char *target, int dir_fd, const char *path)
{
    int err = seam("symlinkat", NULL);
    if (!err)
        err = CALL(int, symlinkat(target, dir_fd, path));
    if (recording() && !err)
        npk__record_name(NPK_RECORDED_SYMLINK, dir_fd, path, target, strlen(target));
    return err;
}

ssize_t npk__readlinkat(int dir_fd, const char *path, char *out, size_t bytes)
{
    return CALL(ssize_t, readlinkat(dir_fd, path, out, bytes));
}

int npk__linkat(int old_dir, const char *old_path, int new_dir, const char *new_path, int flags)
{
    int err = seam("linkat", NULL);
    if (!err)
        err = CALL(int, linkat(old_dir, old_path, new_dir, new_path, flags));
    if (recording() && !err)
        npk__record_name(NPK_RECORDED_LINK, new_dir, new_path, NULL, 0);
    return err;
}

/* ---- attributes ------------------------------------------------------------------------------------------------ */

int npk__fchmod(int fd, mode_t mode)
{
    int err = seam("fchmod", NULL);
    return err ? err : CALL(int, fchmod(fd, mode));
}

int npk__fchown(int fd, uid_t uid, gid_t gid)
{
    int err = seam("fchown", NULL);
    return err ? err : CALL(int, fchown(fd, uid, gid));
}

int npk__futimens(int fd, const struct timespec times[2])
{
    int err = seam("futimens", NULL);
    return err ? err : CALL(int, futimens(fd, times));
}

ssize_t npk__flistxattr(int fd, char *list, size_t bytes)
{
    return CALL(ssize_t, flistxattr(fd, list, bytes));
}

ssize_t npk__fgetxattr(int fd, const char *name, void *value, size_t bytes)
{
    return CALL(ssize_t, fgetxattr(fd, name, value, bytes));
}

int npk__fsetxattr(int fd, const char *name, const void *value, size_t bytes)
{
    int err = seam("fsetxattr", NULL);
    return err ? err : CALL(int, fsetxattr(fd, name, value, bytes, 0));
}

int npk__ioctl(int fd, unsigned long request, void *arg, bool changes)
{
    int err = changes ? seam("ioctl", NULL) : 0;
    return err ? err : CALL(int, ioctl(fd, request, arg));
}

/* ---- locks ----------------------------------------------------------------------------------------------------- */

int npk__ofd_lock(int fd, int type, uint64_t start, uint64_t bytes)
{
    struct flock l = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = (off_t)bytes};
    int err = CALL(int, fcntl(fd, F_OFD_SETLK, &l));
    return err == -EACCES ? -EAGAIN : err; /* POSIX allows both for "held" */
}
