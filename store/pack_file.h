/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack_file.h - a file on its way into a package: opened, looked at, its filter chosen, its frames encoded.
 */
#ifndef NPK_PACK_FILE_H
#define NPK_PACK_FILE_H

#include <pthread.h>
#include <stdbool.h>

#include "npk.h"
#include "pack_scan.h"
#include "pkg_format.h"
#include "pkg_frame.h"

typedef struct npk__packing_file {
    const npk__found *found;
    int fd;
    npk_view *view; /* of an array with deleted rows */
    uint64_t shown, generation;
    bool is_array;
    npk_header header;
    char *names;   /* of its rows, as a record has them */
    uint8_t *head; /* and, behind its end, nothing else; a link's target */
    npk__pkg_record record; /* completed when the filter is chosen; not read before by others */
    uint64_t frame;         /* record.frame, fixed when it is opened */
    int level;
    bool forced_raw;
    enum { NPK__UNCHOSEN, NPK__CHOOSING, NPK__CHOSEN } choice;
    uint64_t frames;
} npk__packing_file;

/* Open and look. *out is to be closed in any case. -ESTALE: it is not what was found any more. */
int npk__packing_open(npk_store *s, const npk__found *found, uint64_t frame_target, const npk_pack_options *o,
                      npk__packing_file *out);
void npk__packing_close(npk__packing_file *f);
/* Choose the filter by a sample, and complete the record. By one thread. */
int npk__packing_choose(npk__packing_file *f, npk__codec *c);
/* Exactly `bytes` bytes of the data behind the head. -ESTALE: the file was cut. */
int npk__packing_read(const npk__packing_file *f, uint64_t offset, uint8_t *out, size_t bytes);
/* -ESTALE with a sentence unless the file is still what was opened. */
int npk__packing_same(npk_store *s, const npk__packing_file *f);

#endif
