/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sum.h - the checksums of deletion logs, redo records, journals and batches (FORMAT.md, "Sums").
 *
 * They tell a torn or foreign record from a whole one. They are no defence against somebody who wants to fool them.
 */
#ifndef NPK_SUM_H
#define NPK_SUM_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t npk__sum_step(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0xff51afd7ed558ccdu;
    return h ^ h >> 32;
}

/* Of 8-byte words; what is left at the end counts as a word padded with zeros. */
static inline uint64_t npk__sum(const void *bytes, size_t n, uint64_t seed)
{
    uint64_t h = seed ^ 0x9E3779B97F4A7C15u, word = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, (const char *)bytes + i, 8);
        h = npk__sum_step(h, le64toh(word));
    }
    if (i < n) {
        word = 0;
        memcpy(&word, (const char *)bytes + i, n - i);
        h = npk__sum_step(h, le64toh(word));
    }
    return h;
}

/* Much data: four chains side by side, since each step of one waits for the step before it. */
static inline uint64_t npk__sum_long(const void *bytes, size_t n)
{
    uint64_t h[4] = {1, 2, 3, 4}, word[4];
    size_t whole = n - n % 32;
    for (size_t i = 0; i < whole; i += 32) {
        memcpy(word, (const char *)bytes + i, 32);
        for (int k = 0; k < 4; k++)
            h[k] = npk__sum_step(h[k], le64toh(word[k]));
    }
    uint64_t all = npk__sum((const char *)bytes + whole, n - whole, n);
    for (int k = 0; k < 4; k++)
        all = npk__sum_step(all, h[k]);
    return all;
}

#endif
