/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - one sentence for the operator: stderr in the foreground, syslog in the background. */
#ifndef FS_LOG_H
#define FS_LOG_H

typedef enum fs_log_level { FS_LOG_ERROR, FS_LOG_WARNING, FS_LOG_NOTICE, FS_LOG_DEBUG } fs_log_level;

void fs_log_open(int background, int debug);
/* Any thread. */
void fs_log(fs_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
