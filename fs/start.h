/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start.h - into the background, and back to the caller only when it is known how that went: the parent process exits 0
 * once the mount has answered it, or prints one sentence and exits 1.
 *
 *   parent                                daemon
 *   fork --------------------------------> setsid, chdir("/")
 *   waits on a pipe                        mounts
 *          <---------- ready -------------- start_ready: stdio is /dev/null from here on
 *   looks at MOUNTPOINT/.npk/version ----> serves it
 *   exits
 */
#ifndef FS_START_H
#define FS_START_H

#include <stdbool.h>

#include "options.h"

/* The line from the daemon to the process that started it. fd -1: there is none, the daemon is in the foreground. */
typedef struct start_line { int fd; } start_line;

/* First thing: descriptors 0, 1 and 2 become something, or the store's files would take their numbers and be printed
 * into; what else was inherited is noted, to be closed in the background. */
void start_fill_stdio(void);
/* As many open files as this process may have, and memory arenas for a few threads instead of one for each CPU. */
void start_raise_limits(void);

/* Fork. True in the daemon, which goes on. False in the parent, when all is over: *status is what to exit with. */
bool start_background(const fs_options *o, start_line *line, int *status);
/* In the daemon: mounted, and serving begins now. */
void start_ready(start_line *line);
/* In the daemon: it ends with this sentence, before or soon after it was ready. */
void start_failed(start_line *line, const char *sentence);

#endif
