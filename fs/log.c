/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - see log.h. */
#define FUSE_USE_VERSION 312
#include "log.h"

#include <fuse_log.h>
#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

/* Set once, before the first thread starts. */
static int log_to_syslog, log_debug;

static void log_line(int priority, const char *fmt, va_list args)
{
    if (log_to_syslog) {
        vsyslog(priority, fmt, args);
        return;
    }
    /* One write each, so that lines of several threads do not mix. */
    char line[1024];
    int head = snprintf(line, sizeof line, "npkfs: ");
    int n = vsnprintf(line + head, sizeof line - (size_t)head - 1, fmt, args);
    if (n < 0)
        return;
    size_t bytes = (size_t)(head + n) < sizeof line - 2 ? (size_t)(head + n) : sizeof line - 2;
    if (line[bytes - 1] != '\n')
        line[bytes++] = '\n';
    fwrite(line, 1, bytes, stderr);
}

/* What the FUSE library says goes the same way; its levels are those of syslog. */
static void log_library(enum fuse_log_level level, const char *fmt, va_list args)
{
    if (level != FUSE_LOG_DEBUG || log_debug)
        log_line((int)level, fmt, args);
}

void fs_log_open(int background, int debug)
{
    log_to_syslog = background;
    log_debug = debug;
    if (!background)
        return; /* on a terminal the library's own way is right: -d prints requests in pieces */
    openlog("npkfs", LOG_PID, LOG_DAEMON);
    fuse_set_log_func(log_library);
}

void fs_log(fs_log_level level, const char *fmt, ...)
{
    static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_DEBUG};
    if (level == FS_LOG_DEBUG && !log_debug)
        return;
    va_list args;
    va_start(args, fmt);
    log_line(priorities[level], fmt, args);
    va_end(args);
}
