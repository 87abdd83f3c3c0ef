/* SPDX-License-Identifier: Apache-2.0 */
/* test_exact.c - the scores that are told: against long double, at the edges of the numbers, to the bit. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exact.h"
#include "unit.h"

#define MOST_DIM 300

static uint64_t state = 88172645463325252u;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static double uniform(void)
{
    return (double)(draw() >> 11) / 0x1p52 - 1;
}

static double exact(kn_metric m, kn_type type, const double *q, const void *same, const void *x, size_t dim,
                    double epsilon)
{
    static double scratch[MOST_DIM];
    kn_exact_query query = {.values = q, .same = same, .norm = q ? kn_exact_norm(q, dim) : 0, .epsilon = epsilon};
    return kn_exact(m, type, &query, x, dim, scratch);
}

static void test_floats(void)
{
    static double q[MOST_DIM], x[MOST_DIM];
    for (size_t dim = 0; dim < MOST_DIM; dim++) {
        long double dot = 0, l2sq = 0, qq = 0, xx = 0, size = 0, kl = 0, js = 0;
        for (size_t k = 0; k < dim; k++) {
            q[k] = fabs(uniform());
            x[k] = fabs(uniform());
            long double a = q[k], b = x[k], m = (a + b) / 2;
            dot += a * b;
            size += fabsl(a * b);
            l2sq += (a - b) * (a - b);
            qq += a * a;
            xx += b * b;
            kl += a > 0 ? a * logl(a / b) : 0;
            js += (a > 0 ? a * logl(a / m) : 0) + (b > 0 ? b * logl(b / m) : 0);
        }
        unit_note("dim %zu", dim);
        double e = ((double)dim + 8) * 0x1p-52;
        CHECK(fabs(exact(KN_DOT, KN_F64, q, NULL, x, dim, 0) - (double)dot) <= e * (double)size);
        CHECK(fabs(exact(KN_L2SQ, KN_F64, q, NULL, x, dim, 0) - (double)l2sq) <= e * (double)l2sq);
        CHECK(exact(KN_L2, KN_F64, q, NULL, x, dim, 0) == sqrt(exact(KN_L2SQ, KN_F64, q, NULL, x, dim, 0)));
        double cosine = dim ? (double)(dot / sqrtl(qq * xx)) : 0;
        CHECK(fabs(exact(KN_COSINE, KN_F64, q, NULL, x, dim, 0) - cosine) <= 2 * e);
        CHECK(fabs(exact(KN_KL, KN_F64, q, NULL, x, dim, 0) - (double)kl) <= 1e-13 * (double)(dim + 1));
        CHECK(fabs(pow(exact(KN_JS, KN_F64, q, NULL, x, dim, 0), 2) - (double)(js / 2)) <= 1e-13 * (double)(dim + 1));
    }
}

static void test_log(void)
{
    CHECK(kn_exact_log(0) == -INFINITY && kn_exact_log(INFINITY) == INFINITY && isnan(kn_exact_log(-1)));
    CHECK(isnan(kn_exact_log(NAN)) && kn_exact_log(1) == 0);
    double worst = 0;
    for (int i = 0; i < 300000; i++) {
        double x = i % 3 == 0 ? 1 + uniform() * 0x1p-6 : ldexp(fabs(uniform()) + 0x1p-60, (int)(draw() % 2140) - 1074);
        if (!(x > 0) || isinf(x))
            continue;
        long double want = logl((long double)x);
        double unit = fabs((double)want) * 0x1p-52, off = (double)fabsl(kn_exact_log(x) - want);
        if (want != 0 && off / unit > worst)
            worst = off / unit;
    }
    unit_note("worst: %g units", worst);
    CHECK(worst <= 3);
}

static void test_edges(void)
{
    const double zero[4] = {0}, one[4] = {1, 0, 0, 0}, large[4] = {1e300, 1e300, 0, 0}, small[4] = {1e-310, 0, 0, 0};
    const double bad[4] = {NAN, 0, 0, 0}, infinite[4] = {INFINITY, 0, 0, 0}, negative[4] = {-1, 2, 0, 0};
    CHECK(exact(KN_COSINE, KN_F64, zero, NULL, one, 4, 0) == 0);
    CHECK(exact(KN_COSINE, KN_F64, one, NULL, zero, 4, 0) == 0);
    CHECK(exact(KN_COSINE, KN_F64, zero, NULL, zero, 4, 0) == 0);
    CHECK(isnan(exact(KN_COSINE, KN_F64, zero, NULL, bad, 4, 0)));
    CHECK(exact(KN_COSINE, KN_F64, one, NULL, one, 4, 0) == 1);
    CHECK(fabs(exact(KN_COSINE, KN_F64, one, NULL, large, 4, 0) - sqrt(0.5)) < 1e-15);
    CHECK(fabs(exact(KN_COSINE, KN_F64, large, NULL, large, 4, 0) - 1) < 1e-15);
    CHECK(fabs(exact(KN_COSINE, KN_F64, small, NULL, one, 4, 0) - 1) < 1e-15);
    CHECK(fabs(exact(KN_COSINE, KN_F64, small, NULL, large, 4, 0) - sqrt(0.5)) < 1e-15);
    CHECK(isnan(exact(KN_COSINE, KN_F64, one, NULL, infinite, 4, 0)));
    CHECK(exact(KN_DOT, KN_F64, one, NULL, infinite, 4, 0) == INFINITY);
    double not_a_number = exact(KN_DOT, KN_F64, zero, NULL, infinite, 4, 0), plain = (double)NAN;
    CHECK(memcmp(&not_a_number, &plain, 8) == 0);
    /* Distributions: what is 0 in the row where the query is not. */
    const double half[4] = {0.5, 0.5, 0, 0}, other[4] = {0, 0, 0.5, 0.5};
    CHECK(exact(KN_KL, KN_F64, half, NULL, one, 4, 0) == INFINITY);
    CHECK(exact(KN_KL, KN_F64, one, NULL, half, 4, 0) == kn_exact_log(2));
    CHECK(fabs(exact(KN_KL, KN_F64, half, NULL, one, 4, 1e-7) - (0.5 * log(0.5) + 0.5 * log(0.5 / 1e-7))) < 1e-6);
    CHECK(fabs(exact(KN_JS, KN_F64, half, NULL, other, 4, 0) - sqrt(log(2))) < 1e-15);
    CHECK(exact(KN_JS, KN_F64, half, NULL, half, 4, 0) == 0);
    CHECK(isnan(exact(KN_KL, KN_F64, negative, NULL, half, 4, 0)) &&
          isnan(exact(KN_JS, KN_F64, half, NULL, negative, 4, 0)));
    CHECK(exact(KN_ELEMENTS, KN_F64, bad, NULL, bad, 4, 0) == 1 &&
          exact(KN_ELEMENTS, KN_F64, one, NULL, zero, 4, 0) == 1);
}

static void test_integers(void)
{
    const int64_t a[3] = {INT64_MIN, INT64_MAX, 3}, b[3] = {INT64_MIN, INT64_MIN, 5};
    const uint64_t u[3] = {UINT64_MAX, UINT64_MAX, 1}, v[3] = {UINT64_MAX, 0, 2};
    double q[3];
    kn_to_f64(KN_I64, a, 3, q);
    /* 2^126 - (2^63 - 1) 2^63 + 15 = 2^63 + 15: lost in doubles. */
    CHECK(exact(KN_DOT, KN_I64, q, a, b, 3, 0) == 0x1p63);
    CHECK(exact(KN_L2SQ, KN_I64, q, a, b, 3, 0) == 0x1p128);
    kn_to_f64(KN_U64, u, 3, q);
    CHECK(exact(KN_DOT, KN_U64, q, u, v, 3, 0) == 0x1p128);
    CHECK(exact(KN_L2SQ, KN_U64, q, u, v, 3, 0) == 0x1p128);
    CHECK(exact(KN_ELEMENTS, KN_U64, q, u, v, 3, 0) == 2);
    const int64_t c[2] = {(INT64_C(1) << 53) + 1, 1}, d[2] = {1, -(INT64_C(1) << 53)};
    kn_to_f64(KN_I64, c, 2, q);
    CHECK(exact(KN_DOT, KN_I64, q, c, d, 2, 0) == 1);
    /* Halves round to even: 2^54 + 2 is a tie between 2^54 and 2^54 + 4. */
    const int64_t e[2] = {INT64_C(1) << 54, 1}, f[2] = {1, 2}, g[2] = {1, 3};
    kn_to_f64(KN_I64, e, 2, q);
    CHECK(exact(KN_DOT, KN_I64, q, e, f, 2, 0) == 0x1p54);
    CHECK(exact(KN_DOT, KN_I64, q, e, g, 2, 0) == 0x1p54 + 4);
    int32_t i32[2] = {INT32_MIN, INT32_MAX};
    kn_to_f64(KN_I32, i32, 2, q);
    CHECK(exact(KN_DOT, KN_I32, q, i32, i32, 2, 0) == 0x1p63 - 0x1p32);
    CHECK(exact(KN_L2SQ, KN_I32, q, i32, i32, 2, 0) == 0);
    const int8_t s8[3] = {-128, 127, -128};
    kn_to_f64(KN_I8, s8, 3, q);
    CHECK(exact(KN_DOT, KN_I8, q, s8, s8, 3, 0) == 2 * 16384 + 16129);
}

static void test_bits(void)
{
    static uint8_t q[40], x[40];
    for (size_t dim = 0; dim <= 40; dim++) {
        uint64_t differ = 0, either = 0;
        for (size_t k = 0; k < dim; k++) {
            q[k] = (uint8_t)draw();
            x[k] = (uint8_t)draw();
            differ += (uint64_t)__builtin_popcount(q[k] ^ x[k]);
            either += (uint64_t)__builtin_popcount(q[k] | x[k]);
        }
        CHECK(exact(KN_HAMMING, KN_U8, NULL, q, x, dim, 0) == (double)differ);
        CHECK(exact(KN_JACCARD, KN_U8, NULL, q, x, dim, 0) == (either ? (double)differ / (double)either : 0));
    }
}

/* The order of the sums is a promise: these bits are the same on every processor. */
static void test_fixed(void)
{
    static float q[100], x[100];
    static double wide[100];
    uint64_t seed = 1, all = 0;
    for (int k = 0; k < 100; k++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        q[k] = (float)((double)(seed >> 40) / 0x1p24);
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        x[k] = (float)((double)(seed >> 40) / 0x1p24);
    }
    kn_to_f64(KN_F32, q, 100, wide);
    const kn_metric metrics[] = {KN_DOT, KN_COSINE, KN_L2, KN_L2SQ, KN_KL, KN_JS};
    for (int i = 0; i < 6; i++) {
        double score = exact(metrics[i], KN_F32, wide, NULL, x, 100, 0);
        uint64_t bits;
        memcpy(&bits, &score, sizeof(bits));
        all = (all ^ bits) * UINT64_C(0x100000001b3);
    }
    unit_note("%016" PRIx64, all);
    CHECK(all == UINT64_C(0x610b76de712115d9));
}

int main(void)
{
    RUN(test_log);
    RUN(test_floats);
    RUN(test_edges);
    RUN(test_integers);
    RUN(test_bits);
    RUN(test_fixed);
    return UNIT_RESULT();
}
