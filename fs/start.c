/* SPDX-License-Identifier: Apache-2.0 */
/* start.c - see start.h. */
#include "start.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"

/* What goes through the pipe: READY, or FAILED with a sentence up to the end. */
#define READY 'R'
#define FAILED 'F'

#define ANSWER_WAIT_MS 5000 /* for the daemon's sentence after its mount did not answer */

/* Descriptors that were open when the program began, 3 and up. In the background they are closed: the far end of a pipe
 * that the caller forgot to close would wait for us for as long as the mount lives. */
#define INHERITED_MAX 256
static int inherited[INHERITED_MAX];
static size_t inherited_count;

static void note_inherited(void)
{
    DIR *d = opendir("/proc/self/fd");
    for (struct dirent *e; d && (e = readdir(d)) && inherited_count < INHERITED_MAX;) {
        int fd = atoi(e->d_name);
        if (fd > STDERR_FILENO && fd != dirfd(d))
            inherited[inherited_count++] = fd;
    }
    if (d)
        closedir(d);
}

static void close_inherited(void)
{
    while (inherited_count > 0)
        close(inherited[--inherited_count]);
}

void start_fill_stdio(void)
{
    int fd;
    note_inherited();
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

/* The most that root may set, which is more than the hard limit that it was given. */
static rlim_t open_files_max(void)
{
    unsigned long most = 0;
    FILE *f = fopen("/proc/sys/fs/nr_open", "re");
    if (f) {
        if (fscanf(f, "%lu", &most) != 1)
            most = 0;
        fclose(f);
    }
    return most;
}

void start_raise_limits(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        rlim_t most = open_files_max();
        struct rlimit raised = {.rlim_cur = most, .rlim_max = most};
        if (most <= limit.rlim_max || setrlimit(RLIMIT_NOFILE, &raised) < 0) {
            limit.rlim_cur = limit.rlim_max;
            setrlimit(RLIMIT_NOFILE, &limit);
        }
    }
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 2);
#endif
}

/* ---- the parent ------------------------------------------------------------------------------------------------ */

static int say(const char *sentence)
{
    fprintf(stderr, "npkfs: %s\n", sentence);
    return EXIT_FAILURE;
}

static ssize_t read_some(int fd, char *out, size_t bytes)
{
    ssize_t n;
    do
        n = read(fd, out, bytes);
    while (n < 0 && errno == EINTR);
    return n;
}

/* The sentence that follows FAILED; exit status. */
static int pass_on_sentence(int fd)
{
    char text[2048];
    size_t bytes = 0;
    for (ssize_t n; bytes < sizeof text - 1 && (n = read_some(fd, text + bytes, sizeof text - 1 - bytes)) > 0;)
        bytes += (size_t)n;
    text[bytes] = '\0';
    return say(text);
}

static int say_how_it_died(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    char text[160];
    if (WIFSIGNALED(status))
        snprintf(text, sizeof text, "the daemon was killed while it started: %s", strsignal(WTERMSIG(status)));
    else
        snprintf(text, sizeof text, "the daemon ended while it started, with status %d", WEXITSTATUS(status));
    return say(text);
}

/* Ask the mount for something that only the daemon knows. 0: it answered. */
static int ask(const char *mountpoint)
{
    char path[PATH_MAX + 32];
    struct stat st;
    snprintf(path, sizeof path, "%s/.npk/version", mountpoint);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        char c;
        int err = read_some(fd, &c, 1) == 1 ? 0 : -EIO;
        close(fd);
        return err;
    }
    if (errno != EACCES)
        return -errno;
    /* The store's mode keeps its own mounter out; that the mount says so is an answer. */
    return stat(mountpoint, &st) == 0 ? 0 : -errno;
}

/* The daemon is ready; is the mount? */
static int check_answer(const fs_options *o, int fd, pid_t child)
{
    int err = ask(o->mountpoint);
    if (!err)
        return EXIT_SUCCESS;
    /* It may be about to say why. */
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char c;
    if (poll(&p, 1, ANSWER_WAIT_MS) > 0) {
        if (read_some(fd, &c, 1) == 1 && c == FAILED)
            return pass_on_sentence(fd);
        return say_how_it_died(child);
    }
    kill(child, SIGTERM);
    char text[PATH_MAX + 128];
    snprintf(text, sizeof text, "\"%s\": mounted, but it does not answer (%s); the daemon was told to end", o->mountpoint,
             strerror(-err));
    return say(text);
}

static int wait_until_ready(const fs_options *o, int fd, pid_t child)
{
    char c;
    if (read_some(fd, &c, 1) != 1)
        return say_how_it_died(child);
    return c == READY ? check_answer(o, fd, child) : pass_on_sentence(fd);
}

bool start_background(const fs_options *o, start_line *line, int *status)
{
    int ends[2];
    fflush(NULL); /* or both processes print what waits in the buffers */
    pid_t child = pipe2(ends, O_CLOEXEC) < 0 ? -1 : fork();
    if (child < 0) {
        *status = say(strerror(errno));
        return false;
    }
    if (child > 0) {
        close(ends[1]);
        *status = wait_until_ready(o, ends[0], child);
        return false;
    }
    close(ends[0]);
    line->fd = ends[1];
    close_inherited();
    setsid();
    if (chdir("/") < 0)
        fs_log(FS_LOG_WARNING, "\"/\": %s; the current directory stays in use", strerror(errno));
    return true;
}

/* ---- the daemon ------------------------------------------------------------------------------------------------ */

static bool write_all(int fd, const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(fd, text, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        text += n;
        bytes -= (size_t)n;
    }
    return true;
}

void start_ready(start_line *line)
{
    if (line->fd < 0)
        return;
    /* Whoever reads the output of the command that mounted (a pipe, a terminal that closes) must not wait for us. */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    if (null > STDERR_FILENO)
        close(null);
    write_all(line->fd, &(char){READY}, 1);
}

void start_failed(start_line *line, const char *sentence)
{
    fs_log(FS_LOG_ERROR, "%s", sentence);
    if (line->fd < 0)
        return;
    /* A parent that had its answer is gone, and then nobody reads this. */
    if (write_all(line->fd, &(char){FAILED}, 1))
        write_all(line->fd, sentence, strlen(sentence));
    close(line->fd);
    line->fd = -1;
}
