/* SPDX-License-Identifier: Apache-2.0 */
/*
 * path.h - names and paths of a store, resolved beneath its root.
 *
 * A path is relative, has no empty, "." or ".." component, and none that is called ".npk" or ".npkfs". Symbolic links
 * to directories are followed while they stay beneath the root; one in the place of a file is refused (-ELOOP), since
 * two names of one file would have two locks. Mounts below the root are not crossed (-EXDEV).
 */
#ifndef NPK_PATH_H
#define NPK_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define NPK__SIDECAR    ".npkfs"
#define NPK__CONTROLS   ".npk"
#define NPK__SUFFIX     ".npy"
#define NPK__PATH_BYTES 4096 /* PATH_MAX, with the NUL */

/* 0, or -EINVAL / -ENAMETOOLONG with a sentence. "" and "." (the root) are refused. */
int npk__path_check(const char *path);
/* The same rules for the path of a directory, where "" and "." mean the root. */
int npk__dir_path_check(const char *path);
/* "train/x" -> "train/x.npy", checked. */
int npk__name_to_path(const char *name, char *out, size_t cap);
/* "train/x.npy" -> "train/x"; -EINVAL (no sentence) if the path does not end in ".npy" or the name would be empty. */
int npk__path_to_name(const char *path, char *out, size_t cap);

/* Open a checked path beneath root_fd; O_NOFOLLOW and O_CLOEXEC are added. A descriptor or a negative errno with a
 * sentence (-ENOENT too). */
int npk__open_beneath(int root_fd, const char *path, int flags, mode_t mode);
/* O_PATH | O_DIRECTORY descriptor of the directory that holds `path`; *leaf points to the last component in path. */
int npk__open_dir_of(int root_fd, const char *path, const char **leaf);
/* Make the missing directories above `path` (mode 0777 less the umask); 0 also when all are there. */
int npk__make_parents(int root_fd, const char *path);

/* A directory borrowed where it is the root (no system call), opened elsewhere. */
typedef struct npk_dir {
    int fd;     /* use this */
    int opened; /* -1 when borrowed */
} npk_dir;
int npk__dir_of(int root_fd, const char *path, npk_dir *out, const char **leaf);
void npk__dir_release(npk_dir *d);

/* Descriptor (O_RDONLY | O_DIRECTORY) of the directory's ".npkfs". -ENOENT when it is absent and !create. Created with
 * the directory's mode (and owner, as root); -EACCES, -EPERM, -EROFS with a sentence where it cannot be made. */
int npk__sidecar_open(int dir_fd, bool create);
/* Open a file of the sidecar by name, never through a symbolic link: -ENOENT without a sentence when absent. With
 * O_CREAT both the folder and the file are made: the file with mode 0666 & the directory's. */
int npk__sidecar_file(int dir_fd, const char *file, int flags);
/* The same for the directory of a checked path beneath root_fd, never made: one system call, no sentence. */
int npk__sidecar_file_of(int root_fd, const char *path, const char *file, int flags);

#endif
