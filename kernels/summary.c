/* SPDX-License-Identifier: Apache-2.0 */
/* summary.c - see summary.h: which function, and what is done once for a block or less often. */
#include "summary.h"

#include <math.h>

#include "summary_parts.h"

kn_summary kn_summary_none(void)
{
    return (kn_summary){.min_int = INT64_MAX,
                        .max_int = INT64_MIN,
                        .min_uint = UINT64_MAX,
                        .min = HUGE_VAL,
                        .max = -HUGE_VAL};
}

kn_summary_block *kn_summary_of(kn_isa isa, kn_number type)
{
#if defined(__x86_64__)
    if (isa >= KN_AVX512)
        return kn_summary_avx512[type];
    if (isa == KN_AVX2)
        return kn_summary_avx2[type];
#endif
    (void)isa;
    return kn_summary_scalar[type];
}

void kn_summary_reduce(kn_summary *s, const kn_summary_lanes *lanes, double origin, double base)
{
    double sum = 0, squares = 0, n = (double)(s->count - s->nans);
    for (unsigned k = 0; k < KN_SUMMARY_LANES; k++) {
        sum += lanes->sum[k];
        squares += lanes->squares[k];
        s->min = lanes->min[k] < s->min ? lanes->min[k] : s->min;
        s->max = lanes->max[k] > s->max ? lanes->max[k] : s->max;
    }
    if (n == 0)
        return;
    double off = sum / n, part = sum * off;
    s->mean = origin - base + off;
    s->squares = squares - part < 0 ? 0 : squares - part; /* NaN stays */
}

void kn_summary_exact(kn_summary *s, int64_t sum, uint64_t squares, double base)
{
    if (s->count == 0)
        return;
    /* n * squares - sum^2 has less than 80 bits. */
    __int128 n = (__int128)s->count, scaled = n * (__int128)squares - (__int128)sum * sum;
    s->mean = (double)(sum - (int64_t)s->count * (int64_t)base) / (double)s->count;
    s->squares = (double)scaled / (double)s->count;
}

/* The deviation of two parts from their common mean (Chan, Golub, LeVeque). */
static void add_moments(kn_summary *a, const kn_summary *b, double na, double nb)
{
    double n = na + nb, apart = b->mean - a->mean;
    if (isfinite(apart)) {
        a->mean += apart * (nb / n);
        double between = apart * apart * (na * (nb / n));
        a->squares += b->squares;
        a->squares += between;
    } else { /* infinities, or means at both ends of the range */
        double mine = a->mean * (na / n), theirs = b->mean * (nb / n);
        a->mean = mine + theirs;
        a->squares = HUGE_VAL;
    }
}

void kn_summary_add(kn_summary *a, const kn_summary *b)
{
    uint64_t na = a->count - a->nans, nb = b->count - b->nans;
    if (na == 0) {
        a->mean = b->mean;
        a->squares = b->squares;
    } else if (nb > 0) {
        add_moments(a, b, (double)na, (double)nb);
    }
    a->count += b->count;
    a->nans += b->nans;
    a->zeros += b->zeros;
    a->min_int = b->min_int < a->min_int ? b->min_int : a->min_int;
    a->max_int = b->max_int > a->max_int ? b->max_int : a->max_int;
    a->min_uint = b->min_uint < a->min_uint ? b->min_uint : a->min_uint;
    a->max_uint = b->max_uint > a->max_uint ? b->max_uint : a->max_uint;
    a->min = b->min < a->min ? b->min : a->min;
    a->max = b->max > a->max ? b->max : a->max;
}

double kn_summary_base(kn_number type, const void *data, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        kn_summary one = kn_summary_scalar[type]((const char *)data + i * kn_number_bytes(type), 1, 0);
        if (one.nans == 0 && KN_SUMMARY_IS_ORIGIN(one.mean))
            return one.mean;
    }
    return 0;
}

double kn_summary_mean(const kn_summary *s, double base)
{
    if (s->count == s->nans)
        return NAN;
    bool low = s->min == -HUGE_VAL, high = s->max == HUGE_VAL; /* neither for integers, which leave them turned round */
    if (s->min <= s->max && (low || high))
        return low && high ? NAN : low ? -HUGE_VAL : HUGE_VAL;
    return base + s->mean;
}

double kn_summary_std(const kn_summary *s)
{
    if (s->count == s->nans || (s->min <= s->max && (s->min == -HUGE_VAL || s->max == HUGE_VAL)))
        return NAN;
    return sqrt(s->squares / (double)(s->count - s->nans));
}
