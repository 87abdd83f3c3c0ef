/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - npkfs SOURCE MOUNTPOINT: options, the store, the mount, and signals. Exit status: 0, 1 (failed, after a
 * sentence), 2 (the command line makes no sense).
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "log.h"
#include "mountpoint.h"
#include "start.h"
#include "state.h"
#include "upper.h"

#define USAGE_STATUS 2

/* ---- signals --------------------------------------------------------------------------------------------------- */

/* The mount that a signal ends; NULL before and after. */
static fs_state *_Atomic serving;
static atomic_bool stop_asked;

static void on_stop(int signo)
{
    (void)signo;
    int err = errno;
    atomic_store(&stop_asked, true);
    fs_state *fs = atomic_load(&serving);
    if (fs)
        fs_session_stop(fs);
    errno = err;
}

static void handle_signals(void)
{
    struct sigaction stop = {.sa_handler = on_stop}, ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&stop.sa_mask);
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGHUP, &stop, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

/* ---- one mount ------------------------------------------------------------------------------------------------- */

/* Mount, serve, end. Exit status. */
static int serve(const fs_options *o, npk_store *store, start_line *line)
{
    char why[1024] = "";
    fs_state *fs = NULL;
    handle_signals();
    int err = fs_session_mount(o, store, &fs, why, sizeof why);
    if (err) {
        start_failed(line, *why ? why : strerror(-err));
        return EXIT_FAILURE;
    }
    atomic_store(&serving, fs);
    if (atomic_load(&stop_asked)) /* it came before there was anything to stop */
        fs_session_stop(fs);
    start_ready(line);
    err = fs_session_run(fs);
    if (err && o->passthrough == FS_PASSTHROUGH_ON && fs->mode != FS_MODE_PASSTHROUGH)
        snprintf(why, sizeof why, "option \"passthrough=on\": cannot be done here: %s; auto and off are accepted",
                 fs->mode_reason);
    else if (err)
        snprintf(why, sizeof why, "\"%s\": serving the mount failed: %s", o->mountpoint, strerror(-err));
    atomic_store(&serving, NULL);
    fs_session_end(fs);
    if (err)
        start_failed(line, why);
    return err ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int open_store(const fs_options *o, npk_store **out)
{
    if (o->upper) {
        char why[1024] = "";
        int failed = upper_open(o, out, why, sizeof why);
        if (failed)
            fprintf(stderr, "npkfs: %s\n", why);
        return failed;
    }
    int err = npk_store_open(o->source, o->read_only ? NPK_READ_ONLY : 0, out);
    if (err == -EROFS) /* a store on read-only media is mounted as what it is */
        err = npk_store_open(o->source, NPK_READ_ONLY, out);
    if (err)
        fprintf(stderr, "npkfs: %s\n", *npk_error() ? npk_error() : strerror(-err));
    return err;
}

/* What has to be right before anything is mounted. A dead mount at the mount point goes first, since the source may be
 * the same path; the store is opened before the mount covers it. */
static int prepare(fs_options *o, npk_store **store)
{
    char why[1024] = "";
    int err = 0;
    if (!o->fake) {
        err = mountpoint_check_fuse(why, sizeof why);
        if (!err)
            err = mountpoint_prepare(&o->mountpoint, why, sizeof why);
        if (err)
            fprintf(stderr, "npkfs: %s\n", why);
    }
    return err ? err : open_store(o, store);
}

static int mount_and_serve(fs_options *o)
{
    npk_store *store = NULL;
    start_line line = {.fd = -1};
    int status = EXIT_FAILURE;
    umask(0); /* modes are the callers' to choose; the kernel has taken their umask off already */
    start_raise_limits();
    if (prepare(o, &store))
        return EXIT_FAILURE;
    if (o->fake) {
        status = EXIT_SUCCESS;
    } else if (o->foreground) {
        fs_log_open(false, o->debug);
        status = serve(o, store, &line);
    } else if (start_background(o, &line, &status)) {
        fs_log_open(true, false);
        status = serve(o, store, &line);
    }
    npk_store_close(&store);
    return status;
}

int main(int argc, char **argv)
{
    fs_options o;
    start_fill_stdio();
    if (fs_options_parse(argc, argv, &o))
        return USAGE_STATUS;
    int status = EXIT_SUCCESS;
    if (o.help)
        fs_options_help();
    else if (o.version)
        printf("npkfs %s (libfuse %s)\n", NPK_VERSION, fuse_pkgversion());
    else
        status = mount_and_serve(&o);
    fs_options_clear(&o);
    if (fflush(stdout) != 0 && status == EXIT_SUCCESS) {
        fprintf(stderr, "npkfs: stdout: %s\n", strerror(errno));
        status = EXIT_FAILURE;
    }
    return status;
}
