/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_search.c - searches through npk.h: every metric against a plain sort of all scores, read and mapped, on one to
 * eight threads, over one and several arrays, with rows left out and deleted; the reservoir by itself.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "place.h"
#include "search.h"

#define ROWS 1500
#define DIM  13
#define K    17

static uint64_t state = 0x9e3779b97f4a7c15;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static place where;

static npk_array *make(const char *name, const char *dtype, const void *data, uint64_t rows)
{
    const uint64_t shape[2] = {rows, DIM};
    const npk_array_in in = {.name = name, .dtype = dtype, .shape = shape, .ndim = 2, .data = data};
    npk_array *a = NULL;
    NEED(npk_save(where.store, &in, 1) == 0);
    NEED(npk_array_open(where.store, name, &a) == 0);
    return a;
}

/* ---- the reservoir -------------------------------------------------------------------------------------------------
 */

static int64_t keys[4096];

static int64_t exact_key(void *ctx, uint64_t row)
{
    ++*(unsigned *)ctx;
    return keys[row & ~NPK__EXACT];
}

static int by_key(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return keys[*x] != keys[*y] ? (keys[*x] < keys[*y] ? 1 : -1) : (*x > *y) - (*x < *y);
}

static void test_best(void)
{
    static npk__candidate room[8192];
    static uint64_t order[4096];
    for (unsigned turn = 0; turn < 400; turn++) {
        size_t n = 1 + draw() % 4096, k = 1 + draw() % (turn % 2 ? 20 : 2000);
        npk__best b = {.at = room, .k = k, .capacity = npk__best_capacity(k, 100), .threshold = NPK__WORST};
        unsigned asked = 0;
        int64_t spread = turn % 3 == 0 ? 5 : 1000000;
        for (size_t i = 0; i < n; i++) {
            keys[i] = turn % 5 == 1 ? (int64_t)i : turn % 5 == 2 ? -(int64_t)i : (int64_t)(draw() % (uint64_t)spread);
            order[i] = i;
        }
        for (size_t i = 0; i < n; i++) {
            int64_t slack = (int64_t)(draw() % 40) * (turn % 4 != 0);
            npk__best_add(&b, keys[i] - slack, keys[i] + slack, i, exact_key, &asked);
            NEED(b.count <= b.capacity);
        }
        npk__best_settle(&b, exact_key, &asked);
        size_t found = npk__best_sort(b.at, b.count, k);
        qsort(order, n, sizeof(*order), by_key);
        unit_note("turn %u: %zu of %zu", turn, k, n);
        CHECK_EQ(found, n < k ? n : k);
        for (size_t i = 0; i < found; i++)
            CHECK_EQ(b.at[i].row & ~NPK__EXACT, order[i]);
    }
}

static void test_key_order(void)
{
    const double values[] = {-INFINITY, -1e300, -1, -1e-310, 0, 1e-310, 1, 1e300, INFINITY};
    for (size_t i = 0; i + 1 < sizeof(values) / sizeof(*values); i++)
        CHECK(npk__key_order(values[i]) < npk__key_order(values[i + 1]));
    CHECK_EQ(npk__key_order(-0.0), npk__key_order(0.0));
    CHECK(npk__key_order(NAN) == NPK__WORST && npk__key_order(-INFINITY) > NPK__WORST);
    CHECK(npk__key_value(npk__key_order(-2.5)) == -2.5 && isnan(npk__key_value(NPK__WORST)));
}

/* ---- searches -------------------------------------------------------------------------------------------------------
 */

static double *all_scores;
static bool descending;

static int by_score(const void *a, const void *b)
{
    uint64_t i = *(const uint64_t *)a, j = *(const uint64_t *)b;
    double x = all_scores[i], y = all_scores[j];
    if (isnan(x) != isnan(y))
        return isnan(x) ? 1 : -1;
    if (!isnan(x) && x != y)
        return (x < y) == descending ? 1 : -1;
    return (i > j) - (i < j);
}

static void compare(npk_array *a, const npk_queries *q, npk_metric metric, uint64_t rows)
{
    npk_part part = {.array = a, .count = UINT64_MAX};
    npk_search_options o = {.metric = metric, .k = K};
    double *scores = calloc(q->count * rows, sizeof(*scores));
    npk_hit hits[8 * K];
    uint64_t order[ROWS], found = 0;
    NEED(scores && q->count <= 8);
    CHECK_EQ(npk_pairs(&part, 1, q, &o, scores), 0);
    descending = npk_metric_is_similarity(metric);
    for (unsigned turn = 0; turn < 16; turn++) {
        o.threads = 1 + turn % 8;
        o.flags = turn % 2 ? NPK_SEARCH_MAP : NPK_SEARCH_READ;
        o.task_bytes = turn % 3 * 5000;
        o.cpu = turn % 5 == 4 ? "scalar" : NULL;
        memset(hits, 0xff, sizeof(hits));
        unit_note("%s, turn %u", npk_metric_name(metric), turn);
        CHECK_EQ(npk_search(&part, 1, q, &o, hits, &found), 0);
        CHECK_EQ(found, K < rows ? K : rows);
        for (uint64_t j = 0; j < q->count; j++) {
            all_scores = scores + j * rows;
            for (uint64_t i = 0; i < rows; i++)
                order[i] = i;
            qsort(order, rows, sizeof(*order), by_score);
            for (uint64_t i = 0; i < found; i++) {
                const npk_hit *h = &hits[j * found + i];
                CHECK_EQ(h->row, order[i]);
                CHECK(memcmp(&h->score, &all_scores[order[i]], 8) == 0);
            }
        }
    }
    free(scores);
}

static float rows_f32[ROWS * DIM];
static uint8_t rows_u8[ROWS * DIM];

static void fill(void)
{
    for (size_t i = 0; i < ROWS * DIM; i++) {
        rows_f32[i] = (float)(draw() % 2000) / 1000 - (i % 7 == 0);
        rows_u8[i] = (uint8_t)(draw() % 8);
    }
    rows_f32[40] = NAN;
    rows_f32[400] = INFINITY;
}

static npk_queries queries_of(const char *dtype, const void *data, uint64_t count)
{
    npk_queries q = {.data = data, .count = count};
    char descr[64];
    NEED(npk_dtype_parse(dtype, &q.dtype, descr) == 0);
    return q;
}

static void test_metrics(void)
{
    npk_array *f32 = make("f", "float32", rows_f32, ROWS), *u8 = make("u", "uint8", rows_u8, ROWS);
    npk_array *i8 = make("i", "int8", rows_u8, ROWS), *big = make("b", ">i4", rows_f32, ROWS);
    npk_queries qf = queries_of("float32", rows_f32 + 100 * DIM, 7), qu = queries_of("uint8", rows_u8 + 100 * DIM, 7);
    npk_queries qi = queries_of("int8", rows_u8 + 100 * DIM, 7), qb = queries_of(">i4", rows_f32 + 100 * DIM, 3);
    const npk_metric floats[] = {NPK_DOT, NPK_COSINE, NPK_L2, NPK_L2SQ, NPK_KL, NPK_JS, NPK_HAMMING_ELEMENTS};
    for (size_t i = 0; i < sizeof(floats) / sizeof(*floats); i++)
        compare(f32, &qf, floats[i], ROWS);
    for (npk_metric m = NPK_DOT; m <= NPK_JACCARD; m++)
        compare(u8, &qu, m, ROWS);
    for (npk_metric m = NPK_DOT; m <= NPK_L2SQ; m++) {
        compare(i8, &qi, m, ROWS);
        compare(big, &qb, m, ROWS);
    }
    npk_array_close(&f32);
    npk_array_close(&u8);
    npk_array_close(&i8);
    npk_array_close(&big);
}

static void test_deleted(void)
{
    npk_array *a = make("d", "float32", rows_f32, ROWS);
    npk_array_close(&a);
    npk_run runs[] = {{.start = 0, .count = 200, .step = 3}, {.start = 900, .count = 300, .step = 1}};
    npk_rows gone = {.runs = runs, .run_count = 2, .run_capacity = 2, .row_count = 500};
    uint64_t dropped = 0;
    CHECK_EQ(npk_drop_rows(where.store, "d", &gone, NPK_ANY_GENERATION, &dropped), 0);
    CHECK_EQ(dropped, 500);
    NEED(npk_array_open(where.store, "d", &a) == 0);
    npk_queries q = queries_of("float32", rows_f32 + 100 * DIM, 5);
    compare(a, &q, NPK_L2, ROWS - 500);
    compare(a, &q, NPK_DOT, ROWS - 500);
    npk_array_close(&a);
}

static void *search_many(void *ctx)
{
    npk_part part = {.array = ctx, .count = UINT64_MAX};
    npk_queries q = queries_of("float32", rows_f32 + 7 * DIM, 2);
    npk_hit first[2 * K], hits[2 * K];
    uint64_t found = 0;
    for (unsigned i = 0; i < 20; i++) {
        npk_search_options o = {.metric = NPK_COSINE, .k = K, .threads = 1 + i % 3, .task_bytes = 4096};
        npk_hit *to = i == 0 ? first : hits;
        memset(to, 0, sizeof(first));
        if (npk_search(&part, 1, &q, &o, to, &found) != 0 || found != K ||
            (i > 0 && memcmp(first, hits, sizeof(hits)) != 0))
            return (void *)"differs";
    }
    return NULL;
}

/* Many searches over one open array, whose first ones read it and whose later ones map it. */
static void test_threads(void)
{
    npk_array *a = make("t", "float32", rows_f32, ROWS);
    pthread_t ids[6];
    void *result;
    for (int i = 0; i < 6; i++)
        NEED(pthread_create(&ids[i], NULL, search_many, a) == 0);
    for (int i = 0; i < 6; i++) {
        NEED(pthread_join(ids[i], &result) == 0);
        CHECK(result == NULL);
    }
    npk_array_close(&a);
}

int main(void)
{
    where = place_begin();
    fill();
    RUN(test_key_order);
    RUN(test_best);
    RUN(test_metrics);
    RUN(test_deleted);
    RUN(test_threads);
    place_end(&where);
    return UNIT_RESULT();
}
