/* SPDX-License-Identifier: Apache-2.0 */
/*
 * search_form.c - what a metric is to the kernels.
 *
 * A kernel gives a score `acc` per row and query; the selecting kernel forms value = acc * scale[row] + slack[query] *
 * add[row] and lets it pass unless value < threshold[query]. Here scale, slack, add and threshold are chosen so that
 * value bounds the (squared) key from above by the kernel's stated error, and a value that passed is turned into bounds
 * of the key. u = 2^-24.
 *
 *   dot      acc = q.x; |error| <= E |q| |x|: scale 1, slack E |q|, add |x|
 *   cosine   q scaled to length 1, scale 1 / |x|, slack E, add 1; rows whose squares leave the range of float: NaN
 *   l2       acc is the square within a factor 1 +- E: scale -(1 - E), slack for what vanishes below the denormals
 *   int8     acc exact: dot 1; cosine 1 / |x|; l2 = 2 q.x - x.x - q.q: scale 2, slack -1, add x.x, shift -q.q
 *   hamming  acc exact: scale -1
 *   jaccard  similarity >= t is both >= t (bits(q) + bits(x) - both): slack -t / (1 + t), add bits(x)
 *   kl       sum q ln q - q . ln x: a dot with the rows' logarithms
 *   js       2 js^2 = sum q ln q + sum x ln x - acc, acc = sum (q + x) ln((q + x) / 2)
 *
 * Norms of rows are made with each search and not kept, although P20 would allow it while a lease proves that nobody
 * writes. For one query they come in the pass that reads the rows, which is as long as reading them takes; for more
 * the rows are in the cache, and it is one product beside those of all queries. What could be saved is below a tenth
 * from ten queries on, against four bytes per row to hold, to give up when a writer comes, and to be wrong with.
 */
#include <math.h>
#include <string.h>

#include "search.h"

#define U        0x1p-24
#define TWICE    2.1 /* from the upper bound to the lower one, with room for rounding */
#define OUTWARD  0x1p-50
#define EXACT_24 0x1p24 /* integers below it are floats */

/* How far the sums of an int8 kernel may be off once they are floats: `most` is the largest that can be. */
static double rounding_of(double most)
{
    return most < EXACT_24 ? 0 : most * 0x1p-22;
}

static double i8_error(const npk__search *s)
{
    double products = (double)s->dim * 16384;
    bool l2 = s->metric == NPK_L2 || s->metric == NPK_L2SQ;
    return rounding_of(l2 ? 3 * products : products);
}

static double sum_of(const double *values, size_t dim)
{
    double sum = 0;
    for (size_t k = 0; k < dim; k++)
        sum += fabs(values[k]);
    return sum;
}

/* Distributions: the sum of q ln(q + epsilon). False: something in it is negative or not finite. */
static bool entropy_of(const npk__query *q, size_t dim, double *entropy, double *absolute)
{
    *entropy = *absolute = 0;
    for (size_t k = 0; k < dim; k++) {
        double a = q->exact.values[k];
        if (!(a >= 0 && a < 0x1p100))
            return false;
        double term = a == 0 ? 0 : a * kn_exact_log(a + q->exact.epsilon);
        *entropy += term;
        *absolute += fabs(term);
    }
    return true;
}

static void form_float(const npk__search *s, npk__query *q)
{
    double norm = q->exact.norm, e = s->error;
    if (!(norm < 0x1p60)) {
        q->slack = NAN;
        return;
    }
    if (s->metric == NPK_COSINE) {
        q->slack = norm > 0x1p-60 ? (float)(2 * e) : NAN;
        q->err = TWICE * 2 * e;
    } else if (s->metric == NPK_DOT) {
        q->slack = (float)(e * norm);
        q->shift = (double)s->dim * 0x1p-147;
        q->err = TWICE * q->shift;
        q->err_by_row = TWICE * q->slack;
    } else {
        q->slack = (float)((double)s->dim * 0x1p-146);
    }
}

static void form_i8(const npk__search *s, npk__query *q)
{
    double error = i8_error(s);
    q->squares = q->exact.norm * q->exact.norm;
    q->squares = rint(q->squares);
    if (s->metric == NPK_COSINE) {
        q->unit = q->exact.norm;
        q->slack = q->exact.norm > 0 ? (float)(q->exact.norm * 0x1p-20) : NAN;
        q->err = TWICE * 0x1p-20;
    } else if (s->metric == NPK_DOT) {
        q->slack = (float)error;
        q->err = TWICE * error;
    } else {
        q->slack = -1;
        q->shift = error - q->squares;
        q->err = TWICE * error;
    }
}

static void form_log(const npk__search *s, npk__query *q)
{
    double entropy, absolute, weight = sum_of(q->exact.values, s->dim);
    if (!entropy_of(q, s->dim, &entropy, &absolute)) {
        q->slack = NAN;
        return;
    }
    if (s->metric == NPK_KL) {
        double off = 8 * U * weight + (double)s->dim * 0x1p-140;
        q->slack = (float)((s->error + 8 * U) * q->exact.norm);
        q->shift = off - entropy;
        q->err = TWICE * off;
        q->err_by_row = TWICE * q->slack;
        return;
    }
    /* Leaving epsilon out changes each logarithm's product by epsilon at most, and there are four of them. */
    double off = s->error * (2 * absolute + weight) + 8 * q->exact.epsilon * (double)s->dim + (double)s->dim * 0x1p-120;
    if (q->exact.epsilon > 0)
        (void)entropy_of(&(npk__query){.exact = {.values = q->exact.values}}, s->dim, &entropy, &absolute);
    q->slack = 1;
    q->shift = off - entropy;
    q->err = TWICE * off;
    q->err_by_row = TWICE * s->error;
}

void npk__form_query(const npk__search *s, npk__query *q)
{
    q->unit = 1;
    q->shift = q->err = q->err_by_row = 0;
    q->slack = 0;
    if (s->class == NPK__NONE)
        q->slack = NAN;
    else if (s->metric == NPK_KL || s->metric == NPK_JS)
        form_log(s, q);
    else if (s->class == NPK__I8)
        form_i8(s, q);
    else if (s->class == NPK__BITS)
        for (size_t k = 0; k < s->dim; k++)
            q->squares += __builtin_popcount(((const uint8_t *)q->exact.same)[k]);
    else
        form_float(s, q);
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static void fill(float *at, size_t count, float value)
{
    for (size_t i = 0; i < count; i++)
        at[i] = value;
}

bool npk__form_scores_too(const npk__search *s)
{
    bool product = s->metric == NPK_DOT || s->metric == NPK_COSINE;
    if (s->query_count != 1)
        return false;
    if (s->class == NPK__I8)
        return s->metric != NPK_DOT && s->kernel->dot_squares_i8 != NULL;
    if (s->class == NPK__BITS)
        return s->metric == NPK_JACCARD && s->kernel->and_count_bits != NULL;
    return product && (s->class == NPK__F32 || s->class == NPK__F64);
}

bool npk__form_takes_half(const npk__search *s)
{
    return npk__form_scores_too(s) && s->class == NPK__F32 && s->type == KN_F16 && s->kernel->dot_squares_f16 != NULL;
}

static void rows_float(const npk__search *s, const kn_block *b, npk__terms *t, float *scores)
{
    float up = (float)(1 + s->error);
    if (s->metric == NPK_L2 || s->metric == NPK_L2SQ) {
        fill(t->scale, b->count, (float)(s->error - 1));
        return;
    }
    float *squares = t->squares;
    if (scores && npk__form_takes_half(s))
        s->kernel->dot_squares_f16(b, s->packed_few, scores, squares);
    else if (scores)
        (s->class == NPK__F64 ? s->kernel->dot_squares_f64 : s->kernel->dot_squares_f32)(b, s->packed_few, scores,
                                                                                         squares);
    else
        (s->class == NPK__F64 ? s->kernel->squares_f64 : s->kernel->squares_f32)(b, squares);
    if (s->metric == NPK_COSINE) {
        for (size_t i = 0; i < b->count; i++)
            t->scale[i] = squares[i] > 0x1p-100f && squares[i] < 0x1p120f ? 1 / sqrtf(squares[i]) : NAN;
        return;
    }
    for (size_t i = 0; i < b->count; i++)
        t->add[i] = t->row_err[i] = sqrtf(squares[i]) * up + 0x1p-60f;
}

static void rows_i8(const npk__search *s, const kn_block *b, npk__terms *t, float *scores)
{
    float squares[KN_BLOCK_ROWS];
    if (s->metric == NPK_DOT)
        return;
    if (scores)
        s->kernel->dot_squares_i8(b, s->packed_few, scores, squares);
    else
        s->kernel->squares_i8(b, squares);
    if (s->metric == NPK_COSINE) {
        for (size_t i = 0; i < b->count; i++)
            t->scale[i] = squares[i] > 0 ? 1 / sqrtf(squares[i]) : 0;
        return;
    }
    fill(t->scale, b->count, 2);
    memcpy(t->add, squares, b->count * sizeof(float));
}

void npk__form_rows(const npk__search *s, const kn_block *b, npk__terms *t, float *scores)
{
    fill(t->scale, b->count, 1);
    fill(t->add, b->count, 1);
    fill(t->row_err, b->count, 0);
    if (s->class == NPK__I8)
        rows_i8(s, b, t, scores);
    else if (s->metric == NPK_HAMMING)
        fill(t->scale, b->count, -1);
    else if (s->metric == NPK_JACCARD && scores)
        s->kernel->and_count_bits(b, s->packed_few, scores, t->add);
    else if (s->metric == NPK_JACCARD)
        s->kernel->count_bits(b, t->add);
    else if (s->metric == NPK_JS) {
        s->kernel->entropy(b, t->add, t->row_err);
        for (size_t i = 0; i < b->count; i++)
            t->add[i] = (float)s->error * t->row_err[i] - t->add[i];
    } else if (s->metric != NPK_KL && s->class != NPK__NONE)
        rows_float(s, b, t, scores);
}

/* ---- thresholds and bounds -------------------------------------------------------------------------------------- */

static bool squared(const npk__search *s)
{
    return s->metric == NPK_L2 || s->metric == NPK_JS;
}

static float below(double x)
{
    float f = (float)x;
    f -= fabsf(f) * 0x1p-22f;
    return nextafterf(f, -INFINITY);
}

static void threshold_jaccard(const npk__search *s, const npk__query *q, double key, float *slack, float *threshold)
{
    double t = 1 + key;
    *slack = (float)(-t / (1 + t));
    *threshold = below(t * q->squares / (1 + t) - (double)s->dim * 8 * 0x1p-21);
}

void npk__form_threshold(const npk__search *s, const npk__query *q, const npk__best *best, float *slack,
                         float *threshold)
{
    *slack = q->slack;
    *threshold = -INFINITY;
    if (best->threshold == NPK__WORST)
        return;
    double key = npk__key_value(best->threshold);
    if (s->metric == NPK_JACCARD && s->class == NPK__BITS) {
        threshold_jaccard(s, q, key, slack, threshold);
        return;
    }
    if (squared(s))
        key = -key * key * (1 + OUTWARD) * (s->metric == NPK_JS ? 2 : 1);
    double value = (key - q->shift) * q->unit;
    if (!s->integral)
        *threshold = below(value);
    else if (squared(s))
        *threshold = (float)(rint(value) - 0.5);
    else
        *threshold = best->strict ? nextafterf((float)value, INFINITY) : (float)value;
}

static double root_key(const npk__search *s, double key)
{
    if (!squared(s))
        return key;
    if (s->metric == NPK_JS)
        key /= 2;
    return key < 0 ? -sqrt(-key) : 0;
}

static int64_t exact_order(const npk__search *s, const npk__query *q, double value, double slack, double row_bits)
{
    if (s->metric != NPK_JACCARD)
        return npk__key_order(root_key(s, value + q->shift));
    double both = rint(value - slack * row_bits), either = q->squares + row_bits - both;
    return npk__key_order(either == 0 ? 0 : -((either - both) / either));
}

void npk__form_bounds(const npk__search *s, const npk__query *q, const npk__terms *t, const kn_hit *hit, float slack,
                      int64_t *low, int64_t *high)
{
    double value = hit->value;
    if (s->integral) {
        *low = *high = exact_order(s, q, value, slack, t->add[hit->row]);
        return;
    }
    double most = value / q->unit + q->shift, least;
    if (s->class != NPK__I8 && (s->metric == NPK_L2 || s->metric == NPK_L2SQ))
        least = value < 0 ? value * (1 + 2.2 * s->error) - 3 * (double)slack : -3 * (double)slack - value;
    else
        least = most - q->err - q->err_by_row * t->row_err[hit->row];
    most += fabs(most) * 0x1p-22;
    least -= fabs(least) * 0x1p-22;
    *high = npk__key_order(root_key(s, most) * (most < 0 ? 1 - OUTWARD : 1 + OUTWARD));
    *low = npk__key_order(root_key(s, least) * (least < 0 ? 1 + OUTWARD : 1 - OUTWARD));
    if (*low == NPK__WORST)
        *low = NPK__WORST + 1;
    if (*low == *high)
        *low -= 1; /* equal means exact */
}
