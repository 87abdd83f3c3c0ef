/* SPDX-License-Identifier: Apache-2.0 */
/*
 * identity.h - is a data file still the one that a state was made for (P10)?
 *
 * A file is told by its inode, birth time, size and time of change, and by a fingerprint: a sum of 256 bytes of data in
 * every 64 KiB, of 64 places at least (as far as the data goes) and 4 096 at most. While the file has an entry in the
 * dirty table it is being written through the engine or a mount: its inode alone tells it then, as long as no row that
 * the state knew is missing.
 */
#ifndef NPK_IDENTITY_H
#define NPK_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "npk.h"
#include "settle.h"
#include "state.h"

#define NPK__BLOCK_BYTES  256u
#define NPK__BLOCK_STRIDE 65536u

typedef enum npk_identity {
    NPK_ID_EXACT,    /* the very file, unchanged */
    NPK_ID_SAME,     /* the same rows: changed in a session, edited in place, or an exact copy */
    NPK_ID_REPLACED, /* another array: the state says nothing of it */
    NPK_ID_DOUBT,    /* nobody can tell */
} npk_identity;

/* Bind a state to an open file: everything but generation, epoch, names. The old fingerprint is freed. -ENOMEM, -EIO.
 */
int npk__identity_bind(int fd, const npk_info *info, const npk_stamp *stamp, npk_state *out);
/* The same for a file whose data is what is shown of another, open as from: its fingerprint is read there. */
struct npk__shown;
int npk__identity_bind_copy(const struct npk__shown *shown, int from, const npk_info *info, const npk_stamp *stamp,
                            npk_state *out);
/* 0 and *out, or a negative errno. entered: the file has an entry in the dirty table. */
int npk__identity_judge(int fd, const npk_info *info, const npk_stamp *stamp, const npk_state *s, bool entered,
                        npk_identity *out);

#endif
