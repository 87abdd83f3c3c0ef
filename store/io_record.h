/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_record.h - what changed on the disk, in order, with its data: the plan `record:/path` of io.h. A test replays it
 * up to any point, with or without what was not synced by then, as a loss of power would leave it.
 *
 * The file is a sequence of entries: the header below, then name, new_name and data. Files are told by inode number and
 * birth time as they were then. Not for several threads.
 */
#ifndef NPK_IO_RECORD_H
#define NPK_IO_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

enum npk_recorded {
    NPK_RECORDED_WRITE = 1, /* of ino at offset: data */
    NPK_RECORDED_SIZE,      /* of ino: offset */
    NPK_RECORDED_FILE,      /* ino was made as (dir, name) */
    NPK_RECORDED_DIR,
    NPK_RECORDED_SYMLINK, /* data: where it leads to */
    NPK_RECORDED_LINK,    /* ino got another name */
    NPK_RECORDED_UNLINK,
    NPK_RECORDED_RENAME, /* (dir, name) to (new_dir, new_name) */
    NPK_RECORDED_SYNC,   /* ino, file or directory */
    NPK_RECORDED_SYNC_ALL,
    NPK_RECORDED_NOTE, /* the test's own: what it was told so far is durable */
};

typedef struct npk_record_entry {
    uint32_t what, name_bytes, new_name_bytes, zero;
    uint64_t ino, birth_ns, dir, new_dir, offset, data_bytes;
} npk_record_entry;

extern bool npk__recording;

int npk__record_begin(const char *path);
void npk__record_end(void);
void npk__record_fd(uint32_t what, int fd, uint64_t offset, const void *data, size_t bytes);
/* bytes are read back from fd (copy_file_range). */
void npk__record_copied(int fd, uint64_t offset, size_t bytes);
void npk__record_name(uint32_t what, int dir, const char *path, const void *data, size_t bytes);
/* Before the call: does the name exist? It tells a creating open from another. */
bool npk__record_exists(int dir, const char *path);
void npk__record_rename(int dir, const char *path, int new_dir, const char *new_path);
void npk__record_note(void);

/* The other way: `identity:/path` makes the files of a replayed store look like those recorded. The file has 32 bytes
 * per file: inode number now, inode number then, birth time then, 0. */
int npk__identity_load(const char *path);
void npk__identity_forget(void);
void npk__identity_stat(struct stat *st);
struct statx;
void npk__identity_statx(struct statx *stx);

#endif
