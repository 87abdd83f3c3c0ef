/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crash.h - an operation that is stopped at each of its changing system calls in turn.
 *
 * setup() makes a store's first state; run() changes it in steps and calls ack() after each step that returned; check()
 * says whether the store is what it may be after `acked` steps: all that returned is there, and the step that was under
 * way happened wholly or not at all.
 */
#ifndef CRASH_H
#define CRASH_H

#include <stdbool.h>

#include "npk.h"

typedef void crash_ack(void);

typedef struct crash_op {
    const char *name;
    void (*setup)(npk_store *s);
    int (*run)(npk_store *s, crash_ack *ack); /* 0, or the error that ended it */
    /* NULL: the state fits; else what does not. power: only what was durable before counts as returned, and a step that
     * promises nothing without a sync may be there in part. */
    const char *(*check)(npk_store *s, unsigned acked, bool power);
} crash_op;

extern const crash_op crash_ops[];
extern const crash_op crash_steps[]; /* steps.c */

/* What is wrong with the store at `path`, before and after a repair, or NULL. */
const char *crash_examine(const crash_op *op, const char *path, unsigned acked, bool power);
/* power.c: the exit status. */
int crash_power(const crash_op *op);

#endif
