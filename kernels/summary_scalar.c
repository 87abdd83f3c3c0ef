/* SPDX-License-Identifier: Apache-2.0 */
/* summary_scalar.c - the reference: for any processor. */
#include "summary.h"

#define SUMMARY_TABLE kn_summary_scalar
#define EACH          for (unsigned k = 0; k < 16; k++)

typedef struct f16x {
    float at[16];
} f16x;
typedef struct d16x {
    double at[16];
} d16x;

static inline f16x f16x_load(const void *from)
{
    f16x v;
    memcpy(&v, from, sizeof(v));
    return v;
}

static inline f16x f16x_half(const void *from)
{
    uint16_t halves[16];
    f16x v;
    memcpy(halves, from, sizeof(halves));
    EACH v.at[k] = kn_float_of_half(halves[k]);
    return v;
}

static inline d16x d16x_load(const void *from)
{
    d16x v;
    memcpy(&v, from, sizeof(v));
    return v;
}

static inline d16x d16x_i32(const void *from)
{
    int32_t integers[16];
    d16x v;
    memcpy(integers, from, sizeof(integers));
    EACH v.at[k] = integers[k];
    return v;
}

static inline d16x d16x_u32(const void *from)
{
    uint32_t integers[16];
    d16x v;
    memcpy(integers, from, sizeof(integers));
    EACH v.at[k] = integers[k];
    return v;
}

static inline d16x d16x_of(f16x v)
{
    d16x r;
    EACH r.at[k] = (double)v.at[k];
    return r;
}

static inline void d16x_store(double *to, d16x v)
{
    memcpy(to, &v, sizeof(v));
}

#define LANEWISE(V, T)                                                                                                 \
    static inline V V##_set(T value)                                                                                   \
    {                                                                                                                  \
        V v;                                                                                                           \
        EACH v.at[k] = value;                                                                                          \
        return v;                                                                                                      \
    }                                                                                                                  \
    static inline unsigned V##_nans(V v)                                                                               \
    {                                                                                                                  \
        unsigned bits = 0;                                                                                             \
        EACH bits |= (unsigned)(v.at[k] != v.at[k]) << k;                                                              \
        return bits;                                                                                                   \
    }                                                                                                                  \
    static inline unsigned V##_zeros(V v)                                                                              \
    {                                                                                                                  \
        unsigned bits = 0;                                                                                             \
        EACH bits |= (unsigned)(v.at[k] == 0) << k;                                                                    \
        return bits;                                                                                                   \
    }                                                                                                                  \
    static inline V V##_or_else(V v, V other)                                                                          \
    {                                                                                                                  \
        EACH v.at[k] = v.at[k] != v.at[k] ? other.at[k] : v.at[k];                                                     \
        return v;                                                                                                      \
    }                                                                                                                  \
    static inline V V##_min(V v, V found)                                                                              \
    {                                                                                                                  \
        EACH found.at[k] = v.at[k] < found.at[k] ? v.at[k] : found.at[k];                                              \
        return found;                                                                                                  \
    }                                                                                                                  \
    static inline V V##_max(V v, V found)                                                                              \
    {                                                                                                                  \
        EACH found.at[k] = v.at[k] > found.at[k] ? v.at[k] : found.at[k];                                              \
        return found;                                                                                                  \
    }
LANEWISE(f16x, float)
LANEWISE(d16x, double)

static inline d16x d16x_sub(d16x a, d16x b)
{
    EACH a.at[k] -= b.at[k];
    return a;
}

static inline d16x d16x_add(d16x a, d16x b)
{
    EACH a.at[k] += b.at[k];
    return a;
}

static inline d16x d16x_mul(d16x a, d16x b)
{
    EACH a.at[k] *= b.at[k];
    return a;
}

#include "summary_body.h"
