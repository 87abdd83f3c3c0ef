/* SPDX-License-Identifier: Apache-2.0 */
/* exact.c - compiled without contraction (-ffp-contract=off): a fused product would differ between processors. */
#include "exact.h"

#include <math.h>
#include <string.h>

#define SUMS 16

size_t kn_type_bytes(kn_type type)
{
    static const uint8_t bytes[] = {2, 4, 8, 1, 1, 2, 2, 4, 4, 8, 8};
    return bytes[type];
}

/* ---- elements as numbers ---------------------------------------------------------------------------------------- */

static double half(uint16_t h)
{
    uint64_t sign = (uint64_t)(h & 0x8000) << 48, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    if (exponent == 0)
        return (sign != 0 ? -1.0 : 1.0) * (double)fraction * 0x1p-24;
    uint64_t bits = sign | (exponent == 31 ? UINT64_C(0x7ff) : exponent + 1008) << 52 | fraction << 42;
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

#define EACH(TYPE, TO, EXPRESSION)                                                                                     \
    do {                                                                                                               \
        for (size_t k = 0; k < dim; k++) {                                                                             \
            TYPE e;                                                                                                    \
            memcpy(&e, (const char *)from + k * sizeof(e), sizeof(e));                                                 \
            out[k] = (TO)(EXPRESSION);                                                                                 \
        }                                                                                                              \
    } while (0)

#define CONVERT(TO)                                                                                                    \
    switch (type) {                                                                                                    \
    case KN_F16:                                                                                                       \
        EACH(uint16_t, TO, half(e));                                                                                   \
        break;                                                                                                         \
    case KN_F32:                                                                                                       \
        EACH(float, TO, e);                                                                                            \
        break;                                                                                                         \
    case KN_F64:                                                                                                       \
        EACH(double, TO, e);                                                                                           \
        break;                                                                                                         \
    case KN_I8:                                                                                                        \
        EACH(int8_t, TO, e);                                                                                           \
        break;                                                                                                         \
    case KN_U8:                                                                                                        \
        EACH(uint8_t, TO, e);                                                                                          \
        break;                                                                                                         \
    case KN_I16:                                                                                                       \
        EACH(int16_t, TO, e);                                                                                          \
        break;                                                                                                         \
    case KN_U16:                                                                                                       \
        EACH(uint16_t, TO, e);                                                                                         \
        break;                                                                                                         \
    case KN_I32:                                                                                                       \
        EACH(int32_t, TO, e);                                                                                          \
        break;                                                                                                         \
    case KN_U32:                                                                                                       \
        EACH(uint32_t, TO, e);                                                                                         \
        break;                                                                                                         \
    case KN_I64:                                                                                                       \
        EACH(int64_t, TO, e);                                                                                          \
        break;                                                                                                         \
    case KN_U64:                                                                                                       \
        EACH(uint64_t, TO, e);                                                                                         \
        break;                                                                                                         \
    }

void kn_to_f64(kn_type type, const void *from, size_t dim, double *out)
{
    CONVERT(double)
}

void kn_to_f32(kn_type type, const void *from, size_t dim, float *out)
{
    CONVERT(float)
}

/* ---- sums ------------------------------------------------------------------------------------------------------ */

static double fold(double *sum)
{
    for (int n = SUMS / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            sum[i] += sum[i + n];
    return sum[0];
}

/* The sum of TERM over q[k] and x. Whole groups first, so that the compiler can keep the sums in registers. */
#define SUM(TERM)                                                                                                      \
    double sum[SUMS] = {0};                                                                                            \
    size_t k = 0;                                                                                                      \
    for (; k + SUMS <= dim; k += SUMS)                                                                                 \
        for (int i = 0; i < SUMS; i++) {                                                                               \
            double a = q[k + (size_t)i], b = x[k + (size_t)i];                                                         \
            sum[i] += (TERM);                                                                                          \
        }                                                                                                              \
    for (int i = 0; k < dim; k++, i++) {                                                                               \
        double a = q[k], b = x[k];                                                                                     \
        sum[i] += (TERM);                                                                                              \
    }                                                                                                                  \
    return fold(sum)

static double dot(const double *q, const double *x, size_t dim)
{
    SUM(a * b);
}

static double l2sq(const double *q, const double *x, size_t dim)
{
    SUM((a - b) * (a - b));
}

static double elements(const double *q, const double *x, size_t dim)
{
    SUM(a != b ? 1.0 : 0.0);
}

/* Squares of what is beyond 2^500 or below 2^-450 would not fit or lose bits. */
static bool squares_fit(double sum)
{
    return sum > 0x1p-900 && sum < 0x1p1000;
}

static double largest(const double *x, size_t dim)
{
    double most = 0;
    for (size_t k = 0; k < dim; k++) {
        double a = fabs(x[k]);
        if (!(a <= most))
            most = a; /* a NaN stays */
        if (most != most)
            break;
    }
    return most;
}

/* 2^-e of the largest element, so that it comes to lie in [1, 2). */
static double scale_of(double most)
{
    uint64_t bits;
    if (most < 0x1p-1022)
        return 0x1p1022;
    memcpy(&bits, &most, sizeof(bits));
    int e = (int)(bits >> 52 & 0x7ff) - 1023;
    if (e == 1023)
        return 0x1p-1022 / 2;
    bits = (uint64_t)(1023 - e) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof(scale));
    return scale;
}

double kn_exact_norm(const double *x, size_t dim)
{
    double sum = dot(x, x, dim);
    if (squares_fit(sum))
        return sqrt(sum);
    double most = largest(x, dim);
    if (!(most > 0) || isinf(most))
        return most;
    double scale = scale_of(most), scaled[SUMS] = {0};
    for (size_t k = 0; k < dim; k++) {
        double a = x[k] * scale;
        scaled[k % SUMS] += a * a;
    }
    return sqrt(fold(scaled)) / scale;
}

static double cosine(const kn_exact_query *query, const double *x, size_t dim)
{
    const double *q = query->values;
    double row = kn_exact_norm(x, dim), result;
    if (query->norm == 0 || row == 0)
        return row == row && query->norm == query->norm ? 0 : NAN;
    if (row > 0x1p-400 && row < 0x1p400 && query->norm > 0x1p-400 && query->norm < 0x1p400) {
        result = dot(q, x, dim) / (query->norm * row);
    } else {
        /* Both as unit vectors: their products cannot leave the range. */
        double sum[SUMS] = {0}, a = scale_of(largest(q, dim)), b = scale_of(largest(x, dim));
        for (size_t k = 0; k < dim; k++)
            sum[k % SUMS] += (q[k] * a) * (x[k] * b);
        result = fold(sum) / ((query->norm * a) * (row * b));
    }
    return result > 1 ? 1 : result < -1 ? -1 : result;
}

/* ---- integers of 32 and 64 bits ---------------------------------------------------------------------------------- */

/* An unsigned sum of products below 2^128, of any number of them. */
typedef struct wide {
    unsigned __int128 low;
    uint64_t high;
} wide;

static void wide_add(wide *w, unsigned __int128 product)
{
    w->low += product;
    w->high += w->low < product;
}

static bool wide_less(const wide *a, const wide *b)
{
    return a->high != b->high ? a->high < b->high : a->low < b->low;
}

/* To the nearest double: the upper 64 bits, and whether anything is left below them. */
static double wide_value(const wide *w)
{
    uint64_t limbs[3] = {(uint64_t)w->low, (uint64_t)(w->low >> 64), w->high};
    int top = limbs[2] != 0 ? 2 : limbs[1] != 0 ? 1 : 0;
    if (top == 0)
        return (double)limbs[0];
    int shift = __builtin_clzll(limbs[top]);
    uint64_t head = limbs[top] << shift, rest = 0;
    if (shift > 0) {
        head |= limbs[top - 1] >> (64 - shift);
        rest = limbs[top - 1] << shift;
    } else {
        rest = limbs[top - 1];
    }
    if (top == 2)
        rest |= limbs[0];
    return ldexp((double)(head | (rest != 0)), 64 * top - shift);
}

typedef struct integer {
    uint64_t magnitude;
    bool negative;
} integer;

static integer integer_at(kn_type type, const void *at, size_t k)
{
    int64_t s = 0;
    uint64_t u = 0;
    uint32_t u32;
    int32_t s32;
    switch (type) {
    case KN_I32:
        memcpy(&s32, (const char *)at + 4 * k, 4);
        s = s32;
        break;
    case KN_U32:
        memcpy(&u32, (const char *)at + 4 * k, 4);
        u = u32;
        break;
    case KN_I64:
        memcpy(&s, (const char *)at + 8 * k, 8);
        break;
    default:
        memcpy(&u, (const char *)at + 8 * k, 8);
        break;
    }
    if (type == KN_U32 || type == KN_U64)
        return (integer){u, false};
    return (integer){s < 0 ? -(uint64_t)s : (uint64_t)s, s < 0};
}

static bool is_wide(kn_type type)
{
    return type == KN_I32 || type == KN_U32 || type == KN_I64 || type == KN_U64;
}

static double wide_dot(kn_type type, const void *q, const void *x, size_t dim)
{
    wide sums[2] = {{0, 0}, {0, 0}};
    for (size_t k = 0; k < dim; k++) {
        integer a = integer_at(type, q, k), b = integer_at(type, x, k);
        wide_add(&sums[a.negative != b.negative], (unsigned __int128)a.magnitude * b.magnitude);
    }
    bool negative = wide_less(&sums[0], &sums[1]);
    wide *more = &sums[negative], *less = &sums[!negative];
    wide rest = {more->low - less->low, more->high - less->high - (more->low < less->low)};
    return negative ? -wide_value(&rest) : wide_value(&rest);
}

static double wide_l2sq(kn_type type, const void *q, const void *x, size_t dim)
{
    wide sum = {0, 0};
    for (size_t k = 0; k < dim; k++) {
        integer a = integer_at(type, q, k), b = integer_at(type, x, k);
        uint64_t d = a.negative != b.negative    ? a.magnitude + b.magnitude
                     : a.magnitude > b.magnitude ? a.magnitude - b.magnitude
                                                 : b.magnitude - a.magnitude;
        wide_add(&sum, (unsigned __int128)d * d);
    }
    return wide_value(&sum);
}

static double wide_elements(size_t item, const void *q, const void *x, size_t dim)
{
    size_t differ = 0;
    for (size_t k = 0; k < dim; k++)
        differ += memcmp((const char *)q + k * item, (const char *)x + k * item, item) != 0;
    return (double)differ;
}

/* ---- bits ------------------------------------------------------------------------------------------------------ */

static double bits(kn_metric metric, const uint8_t *q, const uint8_t *x, size_t dim)
{
    uint64_t either = 0, differ = 0;
    for (size_t k = 0; k < dim; k += 8) {
        uint64_t a = 0, b = 0;
        memcpy(&a, q + k, dim - k < 8 ? dim - k : 8);
        memcpy(&b, x + k, dim - k < 8 ? dim - k : 8);
        either += (uint64_t)__builtin_popcountll(a | b);
        differ += (uint64_t)__builtin_popcountll(a ^ b);
    }
    if (metric == KN_HAMMING)
        return (double)differ;
    return either == 0 ? 0 : (double)differ / (double)either;
}

/* ---- logarithms ------------------------------------------------------------------------------------------------ */

double kn_exact_log(double x)
{
    /* 1/3, 1/5, ... of the series of atanh. With |s| < 0.1716 what follows s^23 is below 2^-60 of the result. */
    static const double odd[] = {1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11, 1.0 / 13,
                                 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21, 1.0 / 23};
    const double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45; /* e * ln2_high is exact */
    if (!(x > 0))
        return x == 0 ? -INFINITY : NAN;
    if (isinf(x))
        return x;
    int64_t e = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54;
    }
    uint64_t bits_of;
    memcpy(&bits_of, &x, sizeof(bits_of));
    int64_t shift = (int64_t)(bits_of - 0x3fe6a09e667f3bcd) >> 52; /* sqrt(1/2) */
    e += shift;
    bits_of -= (uint64_t)shift << 52;
    double m;
    memcpy(&m, &bits_of, sizeof(m));
    double f = m - 1, s = f / (m + 1), z = s * s, p = odd[10];
    for (int i = 9; i >= 0; i--)
        p = p * z + odd[i];
    /* 2 atanh(s) = 2s + 2s z p, and 2s = f - s f: f is exact, and the rest is small. */
    double n = (double)e, small = s * (2 * z * p - f) + n * ln2_low;
    return n * ln2_high + (f + small);
}

/* a ln(b / c), from the quotient where it is good, since the logarithms of near numbers cancel. */
static double log_term(double a, double b, double c)
{
    double ratio = b / c;
    if (ratio > 0x1p-1000 && ratio < 0x1p1000)
        return a * kn_exact_log(ratio);
    return a * (kn_exact_log(b) - kn_exact_log(c));
}

static double kl(const double *q, const double *x, size_t dim, double epsilon)
{
    SUM(!(a >= 0 && b >= 0) ? NAN : a == 0 ? 0 : log_term(a, a + epsilon, b + epsilon));
}

static double js_term(double a, double b, double epsilon)
{
    if (!(a >= 0 && b >= 0))
        return NAN;
    double m = (a + b) / 2;
    return (a == 0 ? 0 : log_term(a, a + epsilon, m + epsilon)) + (b == 0 ? 0 : log_term(b, b + epsilon, m + epsilon));
}

static double js(const double *q, const double *x, size_t dim, double epsilon)
{
    SUM(js_term(a, b, epsilon));
}

/* ---- all of them ----------------------------------------------------------------------------------------------- */

static double score(kn_metric metric, kn_type type, const kn_exact_query *query, const void *row, size_t dim, double *x)
{
    if (metric == KN_HAMMING || metric == KN_JACCARD)
        return bits(metric, query->same, row, dim);
    if (query->same != NULL && is_wide(type)) {
        if (metric == KN_DOT)
            return wide_dot(type, query->same, row, dim);
        if (metric == KN_L2SQ)
            return wide_l2sq(type, query->same, row, dim);
        if (metric == KN_L2)
            return sqrt(wide_l2sq(type, query->same, row, dim));
        if (metric == KN_ELEMENTS)
            return wide_elements(kn_type_bytes(type), query->same, row, dim);
    }
    kn_to_f64(type, row, dim, x);
    switch (metric) {
    case KN_DOT:
        return dot(query->values, x, dim);
    case KN_COSINE:
        return cosine(query, x, dim);
    case KN_L2:
        return sqrt(l2sq(query->values, x, dim));
    case KN_L2SQ:
        return l2sq(query->values, x, dim);
    case KN_KL:
        return kl(query->values, x, dim, query->epsilon);
    case KN_JS: {
        double sum = js(query->values, x, dim, query->epsilon) / 2;
        return sum <= 0 ? 0 : sqrt(sum);
    }
    default:
        return elements(query->values, x, dim);
    }
}

double kn_exact(kn_metric metric, kn_type type, const kn_exact_query *query, const void *row, size_t dim,
                double *scratch)
{
    double value = score(metric, type, query, row, dim, scratch);
    return value == value ? value : (double)NAN;
}
