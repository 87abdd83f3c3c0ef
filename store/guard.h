/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard.h - reading a mapping of a file that somebody else may cut (P14).
 *
 * Touching a page beyond the end of a mapped file raises SIGBUS, which ends the process. Inside npk__guarded() the
 * calling thread gets -EIO instead. The handler is installed once, on first use; a SIGBUS that is not ours goes to the
 * handler that was there before.
 */
#ifndef NPK_GUARD_H
#define NPK_GUARD_H

/* work(ctx) with SIGBUS inside [at, at + bytes) turned into -EIO; else what it returned. It must be plain computation
 * on memory: it may be left at any instruction, so it must take no lock and own nothing. Not nested.
 * -ENOSYS: another handler was installed over ours, so there is no protection: read by system calls instead. */
int npk__guarded(const void *at, unsigned long bytes, int (*work)(void *ctx), void *ctx);

#endif
