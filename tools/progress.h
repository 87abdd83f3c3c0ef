/* SPDX-License-Identifier: Apache-2.0 */
/* progress.h - a bar on stderr for work that takes longer than a second; only where stderr is a terminal. */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include <stdint.h>

typedef struct cli_progress cli_progress;

/* Begin. total: bytes to come, 0 when nobody knows. watch_fd: a file whose growth from now on is the progress (borrowed
 * until the end), -1 when cli_progress_add tells it. NULL when there is nobody to show it to, or no memory: every
 * function takes NULL. */
cli_progress *cli_progress_start(const char *what, uint64_t total, int watch_fd);
void cli_progress_add(cli_progress *p, uint64_t bytes);
/* Take the bar away. */
void cli_progress_end(cli_progress *p);

/* What a function of the engine tells its progress to (npk_progress, with the meter as its ctx). Begin with .what alone,
 * end with cli_meter_end. */
typedef struct cli_meter {
    const char *what;
    cli_progress *progress;
    uint64_t done;
} cli_meter;
int cli_meter_advance(void *meter, uint64_t done_bytes, uint64_t all_bytes);
void cli_meter_end(cli_meter *m);

#endif
