/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fail.h - the sentence that explains the calling thread's last failure.
 *
 * A sentence quotes its object, says what is wrong and then what would be accepted:
 *     "train/x": no such array; npk ls shows the names
 */
#ifndef NPK_FAIL_H
#define NPK_FAIL_H

#define NPK__SENTENCE_BYTES 1024

/* Set the thread's sentence and return err, a negative errno. A sentence that is too long is cut with "...". The
 * arguments may point into the previous sentence. */
int npk__fail(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

/* For a syscall that failed with err: "what": <text of the errno>. */
int npk__fail_errno(int err, const char *what) __attribute__((cold));

#endif
