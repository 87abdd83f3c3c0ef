/* SPDX-License-Identifier: Apache-2.0 */
#include "delta.h"

#include <string.h>

/* The loops are plain, so that the compiler makes vectors of them; on x86-64 once more for wider ones. */
#if defined(__x86_64__)
#define WIDE __attribute__((target("avx2"), optimize("O3")))
#if defined(__clang__)
#undef WIDE
#define WIDE __attribute__((target("avx2")))
#endif
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packages are read and written on little-endian machines"
#endif

#define ALWAYS static inline __attribute__((always_inline))

#define DEFINE(TYPE)                                                                                                   \
    ALWAYS TYPE get_##TYPE(const uint8_t *at)                                                                          \
    {                                                                                                                  \
        TYPE x;                                                                                                        \
        memcpy(&x, at, sizeof(x));                                                                                     \
        return x;                                                                                                      \
    }                                                                                                                  \
    ALWAYS void put_##TYPE(uint8_t *at, TYPE x)                                                                        \
    {                                                                                                                  \
        memcpy(at, &x, sizeof(x));                                                                                     \
    }                                                                                                                  \
    ALWAYS void delta_##TYPE(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t distance)         \
    {                                                                                                                  \
        const size_t w = sizeof(TYPE);                                                                                 \
        for (size_t i = distance; i < items; i++)                                                                      \
            put_##TYPE(out + i * w, (TYPE)(get_##TYPE(in + i * w) - get_##TYPE(in + (i - distance) * w)));             \
    }                                                                                                                  \
    ALWAYS void undelta_##TYPE(uint8_t *data, size_t items, size_t distance)                                           \
    {                                                                                                                  \
        const size_t w = sizeof(TYPE);                                                                                 \
        if (distance == 1 && items > 0) {                                                                              \
            TYPE sum = get_##TYPE(data);                                                                               \
            for (size_t i = 1; i < items; i++) {                                                                       \
                sum = (TYPE)(sum + get_##TYPE(data + i * w));                                                          \
                put_##TYPE(data + i * w, sum);                                                                         \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        for (size_t begin = distance; begin < items; begin += distance) {                                              \
            size_t count = items - begin < distance ? items - begin : distance;                                        \
            uint8_t *restrict to = data + begin * w;                                                                   \
            const uint8_t *restrict from = data + (begin - distance) * w;                                              \
            for (size_t i = 0; i < count; i++)                                                                         \
                put_##TYPE(to + i * w, (TYPE)(get_##TYPE(to + i * w) + get_##TYPE(from + i * w)));                     \
        }                                                                                                              \
    }                                                                                                                  \
    ALWAYS void turn_##TYPE(uint8_t *out, const uint8_t *in, size_t items, unsigned left)                              \
    {                                                                                                                  \
        const size_t w = sizeof(TYPE);                                                                                 \
        const unsigned bits = 8 * sizeof(TYPE);                                                                        \
        for (size_t i = 0; i < items; i++) {                                                                           \
            TYPE x = get_##TYPE(in + i * w);                                                                           \
            put_##TYPE(out + i * w, (TYPE)((TYPE)(x << left) | (TYPE)(x >> (bits - left))));                           \
        }                                                                                                              \
    }

DEFINE(uint8_t)
DEFINE(uint16_t)
DEFINE(uint32_t)
DEFINE(uint64_t)

#define BY_SIZE(CALL)                                                                                                  \
    switch (item_bytes) {                                                                                              \
    case 1:                                                                                                            \
        CALL(uint8_t);                                                                                                 \
        break;                                                                                                         \
    case 2:                                                                                                            \
        CALL(uint16_t);                                                                                                \
        break;                                                                                                         \
    case 4:                                                                                                            \
        CALL(uint32_t);                                                                                                \
        break;                                                                                                         \
    default:                                                                                                           \
        CALL(uint64_t);                                                                                                \
        break;                                                                                                         \
    }

#define DELTA(TYPE)   delta_##TYPE(out, in, items, distance)
#define UNDELTA(TYPE) undelta_##TYPE(data, items, distance)
#define TURN(TYPE)    turn_##TYPE(out, in, items, 1)
#define UNTURN(TYPE)  turn_##TYPE(out, in, items, 8 * sizeof(TYPE) - 1)

ALWAYS void delta(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t item_bytes, size_t distance)
{
    size_t kept = items < distance ? items : distance;
    memcpy(out, in, kept * item_bytes);
    BY_SIZE(DELTA)
}

ALWAYS void undelta(uint8_t *data, size_t items, size_t item_bytes, size_t distance)
{
    BY_SIZE(UNDELTA)
}

ALWAYS void turn(uint8_t *out, const uint8_t *in, size_t items, size_t item_bytes)
{
    BY_SIZE(TURN)
}

ALWAYS void unturn(uint8_t *out, const uint8_t *in, size_t items, size_t item_bytes)
{
    BY_SIZE(UNTURN)
}

#if defined(__x86_64__)
static WIDE void delta_wide(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t item_bytes,
                            size_t distance)
{
    delta(out, in, items, item_bytes, distance);
}

static WIDE void undelta_wide(uint8_t *data, size_t items, size_t item_bytes, size_t distance)
{
    undelta(data, items, item_bytes, distance);
}

static WIDE void turn_wide(uint8_t *out, const uint8_t *in, size_t items, size_t item_bytes)
{
    turn(out, in, items, item_bytes);
}

static WIDE void unturn_wide(uint8_t *out, const uint8_t *in, size_t items, size_t item_bytes)
{
    unturn(out, in, items, item_bytes);
}
#define CHOOSE(WIDER, PLAIN)                                                                                           \
    do {                                                                                                               \
        if (__builtin_cpu_supports("avx2"))                                                                            \
            WIDER;                                                                                                     \
        else                                                                                                           \
            PLAIN;                                                                                                     \
    } while (0)
#else
#define CHOOSE(WIDER, PLAIN) PLAIN
#endif

void kn_delta(uint8_t *restrict out, const uint8_t *restrict in, size_t items, size_t item_bytes, size_t distance)
{
    CHOOSE(delta_wide(out, in, items, item_bytes, distance), delta(out, in, items, item_bytes, distance));
}

void kn_undelta(uint8_t *data, size_t items, size_t item_bytes, size_t distance)
{
    CHOOSE(undelta_wide(data, items, item_bytes, distance), undelta(data, items, item_bytes, distance));
}

void kn_turn(uint8_t *out, const uint8_t *in, size_t items, size_t item_bytes)
{
    CHOOSE(turn_wide(out, in, items, item_bytes), turn(out, in, items, item_bytes));
}

void kn_unturn(uint8_t *out, const uint8_t *in, size_t items, size_t item_bytes)
{
    CHOOSE(unturn_wide(out, in, items, item_bytes), unturn(out, in, items, item_bytes));
}
