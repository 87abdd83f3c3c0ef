/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save.h - what is known of an array before its first byte is written, and writing it into an empty file.
 */
#ifndef NPK_SAVE_H
#define NPK_SAVE_H

#include "npk.h"

typedef struct npk_save_plan {
    char descr[64];
    uint64_t bytes; /* of the data */
} npk_save_plan;

/* Check dtype and shape: -EINVAL, -EOVERFLOW with a sentence. */
int npk__save_plan(const npk_array_in *in, npk_save_plan *out);
/* Header and data into an empty file. No sentence. */
int npk__save_write(const npk_array_in *in, const npk_save_plan *plan, int fd);

#endif
