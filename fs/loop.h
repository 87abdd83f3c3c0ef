/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - the threads that take requests from the kernel.
 *
 * One thread leads: it reads requests and answers quick ones itself, which on few CPUs has the least latency. A handler
 * that may take long (a lock, a sync, much data) first calls loop_yield(): another thread takes the lead, and the caller
 * goes on as a worker, free to wait and to notify the kernel. So the request loop never waits (PROTOCOLS P13, P27).
 */
#ifndef FS_LOOP_H
#define FS_LOOP_H

#include "state.h"

int loop_new(fs_state *fs);
/* Serve until the mount goes away or loop_stop; called once, by the main thread. 0 or -errno. */
int loop_run(fs_state *fs);
/* Async-signal-safe. */
void loop_stop(fs_state *fs);
void loop_free(fs_state *fs);
/* Give the lead away; does nothing on a thread that does not lead. */
void loop_yield(fs_state *fs);
/* The same only if another request is waiting: for work that is long but never blocks, where handing over costs more than
 * it gains when nobody else asks. */
void loop_yield_if_asked(fs_state *fs);
/* The next request will not come at once, and others have a use for the processor: do not look out for it in a loop. */
void loop_rest(void);

#endif
