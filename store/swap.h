/* SPDX-License-Identifier: Apache-2.0 */
/*
 * swap.h - a new file takes the name of an old one, atomically.
 *
 * The new file is `.npkfs/tmp.<random>` until then. Its maker holds an open file description lock on it: a temporary
 * file that nobody has locked is left over from a dead process and may be removed by anybody.
 */
#ifndef NPK_SWAP_H
#define NPK_SWAP_H

#include <stdbool.h>
#include <sys/types.h>

#define NPK__TMP_PREFIX "tmp."

typedef struct npk_swap {
    int fd;         /* the new file, O_RDWR; the caller writes it before the commit */
    int dir_fd;     /* borrowed */
    int sidecar_fd; /* owned */
    int old_fd;     /* borrowed; -1: there is no old file */
    char leaf[256];
    char tmp[32];
} npk_swap;

#define NPK_SWAP_NONE ((npk_swap){.fd = -1, .dir_fd = -1, .sidecar_fd = -1, .old_fd = -1})

enum npk_swap_flags {
    NPK_SWAP_NOREPLACE = 1, /* -EEXIST if the name is taken */
    NPK_SWAP_LEASE = 2,     /* a lease is held on old_fd: -EBUSY if it is being broken */
    NPK_SWAP_SYNC = 4,      /* fsync the file before and the directory after */
    NPK_SWAP_STATE = 8,     /* the caller sees to what is known of deleted rows; else it ends with the old file */
};

/* Make the temporary file. With an old file (old_fd >= 0, any descriptor but O_PATH): -EMLINK if it has several names
 * (P24), and the new one gets its owner, mode, xattrs and inode flags; -ENOTSUP with a sentence if one of them cannot
 * be carried over. Without (-1): owner and mode as for any new file of the process. */
int npk__swap_begin(int dir_fd, const char *leaf, int old_fd, npk_swap *out);
/* Rename over the name. -ESTALE: the name is not old_fd's file any more. With old_fd -1 and without NOREPLACE whatever
 * has the name is replaced, as rename does. On failure the old file has its name and the swap is still to be aborted;
 * on success everything of it is closed. */
int npk__swap_commit(npk_swap *w, unsigned flags);
void npk__swap_abort(npk_swap *w); /* fine after a commit and on NPK_SWAP_NONE */

/* A new file in the sidecar folder, O_RDWR, locked by us. Its descriptor or a negative errno. */
int npk__tmp_make(int sidecar_fd, mode_t mode, char name[32]);
/* Give a new file the owner, mode, xattrs and inode flags of an old one: as for npk__swap_begin. */
int npk__carry_over(int from, int to, const char *leaf);

/* The i-th name for a file `leaf` that is set aside whole; one of the greatest length is cut. */
void npk__unfinished_name(const char *leaf, unsigned i, char out[256]);

/* Remove temporary files in the directory's sidecar that nobody holds. The number removed, or a negative errno. */
int npk__swap_sweep(int sidecar_fd);

#endif
