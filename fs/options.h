/* SPDX-License-Identifier: Apache-2.0 */
/* options.h - what the command line of npkfs asks for. */
#ifndef FS_OPTIONS_H
#define FS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum fs_passthrough_choice {
    FS_PASSTHROUGH_AUTO, /* hand files to the kernel where it may be done */
    FS_PASSTHROUGH_OFF,  /* serve every byte from the daemon */
    FS_PASSTHROUGH_ON,   /* refuse to start where it cannot be done */
} fs_passthrough_choice;

typedef struct fs_options {
    char *source;              /* as typed */
    char *mountpoint;          /* absolute */
    bool foreground;           /* -f */
    bool debug;                /* -d: foreground, every request on stderr */
    bool fake;                 /* -f of mount(8), when called as its helper: check everything, mount nothing */
    bool help, version;
    bool read_only;            /* -o ro */
    bool allow_other;          /* default: true for root */
    bool controls_visible;     /* -o controls=visible: readdir lists .npk */
    fs_passthrough_choice passthrough; /* -o passthrough=auto|off|on */
    double attr_timeout_s;     /* -o attr_timeout=S: how long the kernel may believe attributes and names (1.0) */
    unsigned threads_max;      /* -o threads=N: requests served at once (16) */
    char *upper;               /* -o upper=DIR: where changes of a package go; NULL: it is read-only */
    uint64_t cache_bytes;      /* -o cache=BYTES: decoded frames of a package that are kept (64 MiB) */
    bool atomic_save;          /* -o atomic_save: a save over an array is seen when it is closed and complete */
    bool inotify;              /* -o inotify=on|off */
    char *kernel_options;      /* what mount(8) understands itself (nosuid, nodev, noexec, noatime, ...), comma separated, or NULL */
} fs_options;

/* Parse argv. 0; or -EINVAL after one sentence on stderr that names the unknown option or value and says what is accepted. */
int fs_options_parse(int argc, char **argv, fs_options *out);
void fs_options_clear(fs_options *o);
void fs_options_help(void);   /* to stdout */

#endif
