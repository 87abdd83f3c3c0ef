/* SPDX-License-Identifier: Apache-2.0 */
#include "gather.h"

#include <string.h>

/* Rows that are far apart cost a cache miss each. Asking for them this many rows ahead keeps as many misses in flight
 * as the line fill buffers of today's cores hold (10 to 16), with some to spare for rows of two lines. */
#define AHEAD 24
#define LINE  64
/* From this size on the hardware's own stream prefetch does the work. */
#define LARGE 2048

static inline uint64_t position(int64_t index, uint64_t rows)
{
    return (uint64_t)index + ((uint64_t)(index >> 63) & rows);
}

size_t kn_first_outside(const int64_t *indices, size_t count, uint64_t rows)
{
    const size_t step = 1024;
    size_t i = 0;
    /* Blocks without an early exit, so that the compiler can use vector instructions. */
    for (; i + step <= count; i += step) {
        unsigned outside = 0;
        for (size_t j = 0; j < step; j++)
            outside |= position(indices[i + j], rows) >= rows;
        if (outside)
            break;
    }
    for (; i < count; i++)
        if (position(indices[i], rows) >= rows)
            break;
    return i;
}

/* Both ends of a row by two possibly overlapping copies of a constant size: no branch on the length inside the loop. */
static inline void copy_ends(uint8_t *to, const uint8_t *from, size_t bytes, size_t half)
{
    memcpy(to, from, half);
    memcpy(to + bytes - half, from + bytes - half, half);
}

static inline void prefetch_row(const uint8_t *at, size_t row_bytes)
{
    __builtin_prefetch(at, 0, 3);
    /* The row may end on another line. */
    __builtin_prefetch(at + row_bytes - 1, 0, 3);
    for (size_t i = LINE; i + 1 < row_bytes; i += LINE)
        __builtin_prefetch(at + i, 0, 3);
}

/* Inlined with a constant kind and, for powers of two, a constant size. */
static inline __attribute__((always_inline)) void gather(uint8_t *restrict out, const uint8_t *restrict base,
                                                         size_t row_bytes, uint64_t rows,
                                                         const int64_t *restrict indices, size_t count, size_t half)
{
    size_t ahead = count > AHEAD ? count - AHEAD : 0;
    for (size_t i = 0; i < count; i++, out += row_bytes) {
        if (i < ahead)
            prefetch_row(base + position(indices[i + AHEAD], rows) * row_bytes, row_bytes);
        const uint8_t *from = base + position(indices[i], rows) * row_bytes;
        if (half == 0)
            memcpy(out, from, row_bytes);
        else
            copy_ends(out, from, row_bytes, half);
    }
}

void kn_gather_rows(void *restrict out, const void *restrict base, size_t row_bytes, uint64_t rows,
                    const int64_t *restrict indices, size_t count)
{
    uint8_t *to = out;
    const uint8_t *from = base;
    switch (row_bytes) {
    case 0:
        return;
    case 1:
        gather(to, from, 1, rows, indices, count, 0);
        return;
    case 2:
        gather(to, from, 2, rows, indices, count, 0);
        return;
    case 4:
        gather(to, from, 4, rows, indices, count, 0);
        return;
    case 8:
        gather(to, from, 8, rows, indices, count, 0);
        return;
    case 16:
        gather(to, from, 16, rows, indices, count, 0);
        return;
    case 32:
        gather(to, from, 32, rows, indices, count, 0);
        return;
    case 64:
        gather(to, from, 64, rows, indices, count, 0);
        return;
    default:
        break;
    }
    if (row_bytes < 4)
        gather(to, from, row_bytes, rows, indices, count, 2);
    else if (row_bytes < 8)
        gather(to, from, row_bytes, rows, indices, count, 4);
    else if (row_bytes < 16)
        gather(to, from, row_bytes, rows, indices, count, 8);
    else if (row_bytes < 32)
        gather(to, from, row_bytes, rows, indices, count, 16);
    else if (row_bytes < 64)
        gather(to, from, row_bytes, rows, indices, count, 32);
    else if (row_bytes < LARGE)
        gather(to, from, row_bytes, rows, indices, count, 0);
    else
        for (size_t i = 0; i < count; i++, to += row_bytes)
            memcpy(to, from + position(indices[i], rows) * row_bytes, row_bytes);
}
