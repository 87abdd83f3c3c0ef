/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_distance.c - every fast kernel of every instruction set of this machine against the exact scores, within the
 * bounds that distance.h states: all lengths from 0 to 255, every alignment, choices of rows, memory that ends (and
 * begins) at a page that must not be touched, denormals, extremes, NaN and infinities.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "distance.h"
#include "exact.h"
#include "unit.h"

#define MOST_DIM 256
#define ROWS     21
#define QUERIES  64
#define GUARDED  (1u << 20)

static uint64_t state = 0x2545f4914f6cdd1d;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x9e3779b97f4a7c15u >> 11;
}

static double uniform(void)
{
    return (double)draw() / 0x1p52 - 1;
}

/* Memory between two pages that cannot be touched. */
struct guarded {
    uint8_t *begin, *end;
};

static struct guarded guarded_new(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *at = mmap(NULL, GUARDED + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || mprotect(at, page, PROT_NONE) != 0 || mprotect(at + page + GUARDED, page, PROT_NONE) != 0)
        exit(2);
    return (struct guarded){at + page, at + page + GUARDED};
}

static struct guarded row_memory, query_memory;

/* Every how many lengths are taken: all, or what the command line says, where an emulator makes them dear. */
static size_t step = 1;

static const kn_distance *tables[KN_ISA_COUNT];
static size_t table_count;

static void find_tables(void)
{
    kn_cpu cpu = kn_cpu_detect();
    printf("instruction sets:");
    for (int i = 0; i < KN_ISA_COUNT; i++)
        if (cpu.can[i]) {
            printf(" %s", kn_isa_name((kn_isa)i));
            tables[table_count++] = kn_distance_of((kn_isa)i);
        }
    printf("\n");
}

/* What the rows hold. */
enum content { NORMAL, DENORMAL, LARGE, WIDE, CONTENTS };

static double element(enum content c)
{
    switch (c) {
    case DENORMAL:
        return uniform() * 0x1p-130;
    case LARGE:
        return uniform() * 0x1p55;
    case WIDE:
        return ldexp(uniform(), (int)(draw() % 60) - 30);
    default:
        return uniform();
    }
}

struct shape {
    size_t dim, item;
    bool at_end; /* the rows end at the guard; else they begin behind the other */
    uint32_t which[ROWS];
    const uint32_t *use; /* which, or NULL */
    size_t count;
};

/* Rows and queries of `dim` items each, filled byte by byte by put(). */
static uint8_t *place(struct guarded g, size_t bytes, bool at_end)
{
    return at_end ? g.end - bytes : g.begin;
}

static struct shape draw_shape(size_t dim, size_t item, unsigned turn)
{
    struct shape s = {.dim = dim, .item = item, .at_end = turn % 2 == 0};
    s.count = 0;
    for (uint32_t i = 0; i < ROWS; i++)
        if (turn % 3 != 1 || draw() % 3 != 0)
            s.which[s.count++] = i;
    s.use = NULL;
    return s;
}

static size_t row_number(const struct shape *s, size_t i)
{
    return s->count < ROWS ? s->which[i] : i;
}

static kn_block block_of(const struct shape *s, const uint8_t *rows)
{
    return (kn_block){.rows = rows,
                      .row_bytes = s->dim * s->item,
                      .which = s->count < ROWS ? s->which : NULL,
                      .count = s->count,
                      .dim = s->dim,
                      .next = rows,
                      .next_bytes = s->dim * s->item * ROWS};
}

static double relative(double out, double true_value, double scale, double floor)
{
    double off = fabs(out - true_value);
    return off <= floor ? 0 : off / scale;
}

/* ---- float and double -------------------------------------------------------------------------------------------- */

static void put_values(uint8_t *at, size_t count, size_t item, enum content c)
{
    for (size_t i = 0; i < count; i++) {
        double d = element(c);
        float f = (float)d;
        memcpy(at + i * item, item == 4 ? (void *)&f : (void *)&d, item);
    }
}

struct truth {
    double dot, l2sq, qq, xx;
};

static struct truth truth_of(size_t item, const uint8_t *q, const uint8_t *x, size_t dim)
{
    static double a[MOST_DIM], scratch[MOST_DIM], b[MOST_DIM];
    kn_type type = item == 4 ? KN_F32 : KN_F64;
    kn_to_f64(type, q, dim, a);
    kn_to_f64(type, x, dim, b);
    kn_exact_query query = {.values = a, .norm = kn_exact_norm(a, dim)};
    kn_exact_query row = {.values = b, .norm = kn_exact_norm(b, dim)};
    return (struct truth){kn_exact(KN_DOT, type, &query, x, dim, scratch),
                          kn_exact(KN_L2SQ, type, &query, x, dim, scratch), query.norm, row.norm};
}

static void compare_floats(const struct shape *s, const uint8_t *rows, const uint8_t *queries, const float *dot,
                           const float *l2sq, size_t row_step, size_t query_step, unsigned nq)
{
    double e = (s->item == 4 ? (double)s->dim + 16 : 16) * 0x1p-24, floor = (double)(s->dim + 1) * 0x1p-148;
    for (size_t i = 0; i < s->count; i++)
        for (unsigned j = 0; j < nq; j++) {
            const uint8_t *q = queries + j * s->dim * s->item, *x = rows + row_number(s, i) * s->dim * s->item;
            struct truth t = truth_of(s->item, q, x, s->dim);
            double scale = t.qq * t.xx;
            CHECK(relative(dot[i * row_step + j * query_step], t.dot, scale > 0 ? scale : 1, floor) <= e);
            CHECK(relative(l2sq[i * row_step + j * query_step], t.l2sq, t.l2sq > 0 ? t.l2sq : 1, floor) <= e);
        }
}

static float scores[KN_BLOCK_ROWS * KN_PANEL_MOST], others[KN_BLOCK_ROWS * KN_PANEL_MOST];
static double panel[MOST_DIM * KN_PANEL_MOST + 64];

static void check_squares(const kn_distance *k, const struct shape *s, const kn_block *b, const uint8_t *rows)
{
    double e = (s->item == 4 ? (double)s->dim + 16 : 16) * 0x1p-24;
    (s->item == 4 ? k->squares_f32 : k->squares_f64)(b, scores);
    for (size_t i = 0; i < s->count; i++) {
        const uint8_t *x = rows + row_number(s, i) * s->dim * s->item;
        struct truth t = truth_of(s->item, x, x, s->dim);
        CHECK(relative(scores[i], t.dot, t.dot > 0 ? t.dot : 1, (double)(s->dim + 1) * 0x1p-148) <= e);
    }
}

static void check_float_shape(const kn_distance *k, size_t dim, size_t item, enum content c, unsigned turn)
{
    struct shape s = draw_shape(dim, item, turn);
    unsigned lanes = item == 4 ? k->lanes_f32 : k->lanes_f64;
    uint8_t *rows = place(row_memory, ROWS * dim * item, s.at_end);
    uint8_t *queries = place(query_memory, QUERIES * dim * item, s.at_end);
    put_values(rows, ROWS * dim, item, c);
    put_values(queries, QUERIES * dim, item, c);
    if (dim > 0)
        memcpy(rows, queries, dim * item); /* one row is near to nothing from its query */
    kn_block b = block_of(&s, rows);
    for (unsigned nq = 1; nq <= KN_FEW; nq++) {
        uint8_t *few = queries + (s.at_end ? (QUERIES - nq) * dim * item : 0);
        (item == 4 ? k->few_dot_f32 : k->few_dot_f64)(&b, few, nq, scores);
        (item == 4 ? k->few_l2sq_f32 : k->few_l2sq_f64)(&b, few, nq, others);
        compare_floats(&s, rows, few, scores, others, 1, KN_BLOCK_ROWS, nq);
    }
    for (unsigned width = lanes; width <= 2 * lanes; width += lanes) {
        unsigned count = width - (unsigned)(draw() % 3);
        if (item == 4)
            kn_pack_f32(queries, count, dim, width, (float *)(void *)panel);
        else
            kn_pack_f64(queries, count, dim, width, panel);
        (item == 4 ? k->panel_dot_f32 : k->panel_dot_f64)(&b, panel, width, scores);
        (item == 4 ? k->panel_l2sq_f32 : k->panel_l2sq_f64)(&b, panel, width, others);
        compare_floats(&s, rows, queries, scores, others, width, 1, count);
    }
    check_squares(k, &s, &b, rows);
    uint8_t *one = queries + (s.at_end ? (QUERIES - 1) * dim * item : 0);
    (item == 4 ? k->dot_squares_f32 : k->dot_squares_f64)(&b, one, scores, others);
    (item == 4 ? k->squares_f32 : k->squares_f64)(&b, scores + KN_BLOCK_ROWS);
    for (size_t i = 0; i < s.count; i++) {
        struct truth t = truth_of(item, one, rows + row_number(&s, i) * dim * item, dim);
        double e = 2 * (item == 4 ? (double)dim + 16 : 16) * 0x1p-24, floor = (double)(dim + 1) * 0x1p-147;
        double scale = t.qq * t.xx, square = t.xx * t.xx;
        CHECK(relative(scores[i], t.dot, scale > 0 ? scale : 1, floor) <= e);
        CHECK(relative(others[i], scores[KN_BLOCK_ROWS + i], square > 0 ? square : 1, floor) <= e);
    }
}

static void test_floats(void)
{
    for (size_t t = 0; t < table_count; t++)
        for (size_t dim = 0; dim < MOST_DIM; dim += step)
            for (size_t item = 4; item <= 8; item += 4) {
                enum content c = (enum content)(dim % CONTENTS);
                unit_note("%s, dim %zu, %zu bytes, content %d", kn_isa_name(tables[t]->isa), dim, item, (int)c);
                check_float_shape(tables[t], dim, item, c, (unsigned)dim);
            }
}

/* Whatever is not finite in a row shows in its scores, and in no other row's. */
static void test_not_finite(void)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t t = 0; t < table_count; t++)
        for (size_t dim = 1; dim < 70; dim++) {
            const kn_distance *k = tables[t];
            struct shape s = draw_shape(dim, 4, 0);
            float *rows = (float *)(void *)place(row_memory, ROWS * dim * 4, true);
            float *queries = (float *)(void *)place(query_memory, QUERIES * dim * 4, true);
            put_values((uint8_t *)rows, ROWS * dim, 4, NORMAL);
            put_values((uint8_t *)queries, QUERIES * dim, 4, NORMAL);
            for (size_t i = 0; i < dim; i++)
                queries[i] += 2; /* an infinity times 0 would be NaN: fine, but not what is meant here */
            rows[3 * dim + draw() % dim] = bad[dim % 3];
            kn_block b = block_of(&s, (uint8_t *)rows);
            unit_note("%s, dim %zu", kn_isa_name(k->isa), dim);
            k->few_dot_f32(&b, queries, 1, scores);
            k->squares_f32(&b, others);
            kn_pack_f32(queries, 1, dim, k->lanes_f32, (float *)(void *)panel);
            for (size_t i = 0; i < ROWS; i++)
                CHECK(isfinite(scores[i]) == (i != 3) && isfinite(others[i]) == (i != 3));
            k->panel_dot_f32(&b, panel, k->lanes_f32, scores);
            k->panel_l2sq_f32(&b, panel, k->lanes_f32, others);
            for (size_t i = 0; i < ROWS; i++)
                CHECK(isfinite(scores[i * k->lanes_f32]) == (i != 3) && isfinite(others[i * k->lanes_f32]) == (i != 3));
        }
}

/* ---- integers ---------------------------------------------------------------------------------------------------- */

static void check_bytes(const kn_distance *k, size_t dim, unsigned turn)
{
    static double scratch[MOST_DIM], values[MOST_DIM];
    static uint8_t flipped[ROWS * MOST_DIM];
    struct shape s = draw_shape(dim, 1, turn);
    uint8_t *rows = place(row_memory, ROWS * dim, s.at_end), *queries = place(query_memory, QUERIES * dim, s.at_end);
    for (size_t i = 0; i < ROWS * dim; i++)
        flipped[i] = (rows[i] = turn % 4 == 3 ? 0x80 : (uint8_t)draw()) ^ 0x80;
    for (size_t i = 0; i < QUERIES * dim; i++)
        queries[i] = turn % 8 == 3 ? 0x80 : turn % 8 == 7 ? 0x7f : (uint8_t)draw();
    kn_block b = block_of(&s, rows), f = block_of(&s, flipped);
    uint8_t *few = queries + (s.at_end ? (QUERIES - KN_FEW) * dim : 0);
    const struct kernel {
        kn_few *few;
        kn_panel *panel;
        unsigned lanes;
        kn_metric metric;
        kn_type type;
    } kernels[] = {
        {k->few_dot_i8, k->panel_dot_i8, k->lanes_i8, KN_DOT, KN_I8},
        {k->few_xor_bits, k->panel_xor_bits, k->lanes_bits, KN_HAMMING, KN_U8},
    };
    for (int m = 0; m < 2; m++)
        for (int pass = 0; pass < 3; pass++) {
            unsigned width = pass * kernels[m].lanes, nq = pass == 0 ? KN_FEW : width;
            const uint8_t *from = pass == 0 ? few : queries;
            if (pass > 0 && !kernels[m].panel)
                continue;
            if (pass == 0) {
                kernels[m].few(&b, from, nq, scores);
            } else {
                if (m == 0)
                    kn_pack_i8(from, width, dim, width, panel);
                else
                    kn_pack_bits(from, width, dim, width, (uint64_t *)(void *)panel);
                kernels[m].panel(m == 0 ? &f : &b, panel, width, scores);
            }
            for (size_t i = 0; i < s.count; i++)
                for (unsigned j = 0; j < nq; j++) {
                    const uint8_t *q = from + j * dim;
                    kn_to_f64(kernels[m].type, q, dim, values);
                    kn_exact_query query = {.values = values, .same = q};
                    double want = kn_exact(kernels[m].metric, kernels[m].type, &query, rows + row_number(&s, i) * dim,
                                           dim, scratch);
                    float got = pass == 0 ? scores[j * KN_BLOCK_ROWS + i] : scores[i * width + j];
                    CHECK(got == (float)want);
                }
        }
    /* and = (bits + bits - xor) / 2; squares = dot with itself. */
    k->few_and_bits(&b, few, KN_FEW, scores);
    k->few_xor_bits(&b, few, KN_FEW, others);
    static float counts[KN_BLOCK_ROWS], squares[KN_BLOCK_ROWS];
    k->count_bits(&b, counts);
    k->squares_i8(&b, squares);
    for (size_t i = 0; i < s.count; i++) {
        const uint8_t *x = rows + row_number(&s, i) * dim;
        kn_to_f64(KN_I8, x, dim, values);
        kn_exact_query query = {.values = values, .same = x};
        CHECK(squares[i] == (float)kn_exact(KN_DOT, KN_I8, &query, x, dim, scratch));
        for (unsigned j = 0; j < KN_FEW; j++) {
            float query_bits = 0;
            for (size_t n = 0; n < dim; n++)
                query_bits += (float)__builtin_popcount(few[j * dim + n]);
            CHECK(2 * scores[j * KN_BLOCK_ROWS + i] == counts[i] + query_bits - others[j * KN_BLOCK_ROWS + i]);
        }
    }
    static float dots[KN_BLOCK_ROWS], more[KN_BLOCK_ROWS];
    uint8_t *one = queries + (s.at_end ? (QUERIES - 1) * dim : 0);
    if (k->dot_squares_i8) {
        k->dot_squares_i8(&b, one, dots, more);
        k->few_dot_i8(&b, one, 1, others);
        for (size_t i = 0; i < s.count; i++)
            CHECK(dots[i] == others[i] && more[i] == squares[i]);
    }
    if (k->and_count_bits) {
        k->and_count_bits(&b, one, dots, more);
        k->few_and_bits(&b, one, 1, others);
        for (size_t i = 0; i < s.count; i++)
            CHECK(dots[i] == others[i] && more[i] == counts[i]);
    }
    for (unsigned nq = 1; nq < KN_FEW; nq++) {
        static float want[KN_FEW * KN_BLOCK_ROWS];
        kn_distance_of(KN_SCALAR)->few_dot_i8(&b, few, nq, want);
        k->few_dot_i8(&b, few, nq, others);
        for (size_t i = 0; i < s.count; i++)
            for (unsigned j = 0; j < nq; j++)
                CHECK(others[j * KN_BLOCK_ROWS + i] == want[j * KN_BLOCK_ROWS + i]);
        kn_distance_of(KN_SCALAR)->few_xor_bits(&b, few, nq, want);
        k->few_xor_bits(&b, few, nq, others);
        for (size_t i = 0; i < s.count; i++)
            for (unsigned j = 0; j < nq; j++)
                CHECK(others[j * KN_BLOCK_ROWS + i] == want[j * KN_BLOCK_ROWS + i]);
    }
    if (k->panel_and_bits) {
        kn_pack_bits(few, KN_FEW, dim, k->lanes_bits, (uint64_t *)(void *)panel);
        k->panel_and_bits(&b, panel, k->lanes_bits, others);
        for (size_t i = 0; i < s.count; i++)
            for (unsigned j = 0; j < KN_FEW; j++)
                CHECK(others[i * k->lanes_bits + j] == scores[j * KN_BLOCK_ROWS + i]);
    }
}

static void test_bytes(void)
{
    for (size_t t = 0; t < table_count; t++)
        for (size_t dim = 0; dim < MOST_DIM; dim += step) {
            unit_note("%s, dim %zu", kn_isa_name(tables[t]->isa), dim);
            check_bytes(tables[t], dim, (unsigned)dim);
        }
}

/* ---- selection, half precision, logarithms -------------------------------------------------------------------------
 */

static void test_select(void)
{
    static kn_hit hits[KN_BLOCK_ROWS * KN_PANEL_MOST], want[KN_BLOCK_ROWS * KN_PANEL_MOST];
    static float scale[KN_BLOCK_ROWS], add[KN_BLOCK_ROWS];
    for (size_t t = 0; t < table_count; t++)
        for (unsigned turn = 0; turn < 300; turn++) {
            const kn_distance *k = tables[t];
            unsigned width = turn % 3 == 0 ? k->lanes_f64 : turn % 3 == 1 ? k->lanes_f32 : 2 * k->lanes_f32;
            size_t count = draw() % 100;
            /* At the end of memory: nothing behind them may be read. */
            float *slack = (float *)(void *)query_memory.end - width,
                  *threshold = (float *)(void *)row_memory.end - width;
            for (size_t i = 0; i < count * width; i++)
                scores[i] = draw() % 50 == 0 ? NAN : (float)(int)(draw() % 16);
            for (size_t i = 0; i < count; i++) {
                scale[i] = (float)(draw() % 4);
                add[i] = (float)(draw() % 8);
            }
            for (unsigned j = 0; j < width; j++) {
                slack[j] = (float)(draw() % 2);
                threshold[j] = draw() % 8 == 0 ? -INFINITY : draw() % 8 == 0 ? INFINITY : (float)(draw() % 60);
            }
            unit_note("%s, turn %u", kn_isa_name(k->isa), turn);
            size_t n =
                kn_distance_of(KN_SCALAR)->select_panel(scores, count, width, scale, add, slack, threshold, want);
            CHECK_EQ(k->select_panel(scores, count, width, scale, add, slack, threshold, hits), n);
            for (size_t i = 0; i < n; i++)
                CHECK(hits[i].row == want[i].row && hits[i].lane == want[i].lane &&
                      (hits[i].value == want[i].value ||
                       (hits[i].value != hits[i].value && want[i].value != want[i].value)));
            n = kn_distance_of(KN_SCALAR)->select_rows(scores, count, scale, add, slack[0], threshold[0], want);
            CHECK_EQ(k->select_rows(scores, count, scale, add, slack[0], threshold[0], hits), n);
            for (size_t i = 0; i < n; i++)
                CHECK(hits[i].row == want[i].row);
        }
}

static void test_half(void)
{
    static uint16_t halves[65536];
    static float got[65536];
    static double want[65536];
    for (size_t i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    kn_to_f64(KN_F16, halves, 65536, want);
    CHECK(want[0x3c00] == 1 && want[0xc000] == -2 && want[1] == 0x1p-24 && isinf(want[0x7c00]) &&
          want[0x7bff] == 65504);
    for (size_t t = 0; t < table_count; t++)
        for (size_t dim = 65536; dim > 65500; dim -= 7 * step) {
            kn_block b = {.rows = halves, .row_bytes = 2 * dim, .count = 1, .dim = dim};
            unit_note("%s, dim %zu", kn_isa_name(tables[t]->isa), dim);
            tables[t]->widen_f16(&b, got);
            for (size_t i = 0; i < dim; i++)
                CHECK(got[i] == (float)want[i] || (isnan(want[i]) && isnan(got[i])));
        }
}

static void test_half_rows(void)
{
    static uint16_t halves[ROWS * MOST_DIM];
    static float wide[ROWS * MOST_DIM], squares[2][KN_BLOCK_ROWS];
    for (size_t t = 0; t < table_count; t++)
        for (size_t dim = 0; dim < MOST_DIM && tables[t]->dot_squares_f16; dim += step) {
            struct shape s = draw_shape(dim, 2, (unsigned)dim);
            uint8_t *rows = place(row_memory, ROWS * dim * 2, s.at_end);
            float *query = (float *)(void *)place(query_memory, dim * 4, true);
            for (size_t i = 0; i < ROWS * dim; i++)
                halves[i] = (uint16_t)(draw() & 0xbfff); /* finite: below 2 */
            memcpy(rows, halves, ROWS * dim * 2);
            put_values((uint8_t *)query, dim, 4, NORMAL);
            kn_block b = block_of(&s, rows);
            tables[t]->widen_f16(&b, wide);
            kn_block w = {.rows = wide, .row_bytes = dim * 4, .count = s.count, .dim = dim};
            unit_note("%s, dim %zu", kn_isa_name(tables[t]->isa), dim);
            tables[t]->dot_squares_f16(&b, query, scores, squares[0]);
            tables[t]->dot_squares_f32(&w, query, others, squares[1]);
            for (size_t i = 0; i < s.count; i++) {
                double size = 0;
                for (size_t k = 0; k < dim; k++)
                    size += fabs((double)wide[i * dim + k] * query[k]);
                CHECK(fabs((double)scores[i] - others[i]) <= 2 * ((double)dim + 16) * 0x1p-24 * size);
                CHECK(fabs((double)squares[0][i] - squares[1][i]) <= 2 * ((double)dim + 16) * 0x1p-24 * squares[1][i]);
            }
        }
}

static void check_logs(const kn_distance *k, size_t dim, float epsilon)
{
    static float logs[ROWS * MOST_DIM], norm[KN_BLOCK_ROWS], tiny[KN_BLOCK_ROWS], sum[KN_BLOCK_ROWS],
        weight[KN_BLOCK_ROWS];
    struct shape s = draw_shape(dim, 4, (unsigned)dim);
    float *rows = (float *)(void *)place(row_memory, ROWS * dim * 4, s.at_end);
    float *queries = (float *)(void *)place(query_memory, QUERIES * dim * 4, true) + (QUERIES - KN_FEW) * dim;
    for (size_t i = 0; i < ROWS * dim; i++)
        rows[i] = draw() % 20 == 0 ? 0 : (float)fabs(element(i % 2 ? WIDE : NORMAL));
    for (size_t i = 0; i < KN_FEW * dim; i++)
        queries[i] = draw() % 20 == 0 ? 0 : (float)fabs(element(NORMAL));
    kn_block b = block_of(&s, (uint8_t *)rows);
    k->log_rows(&b, epsilon, logs, norm, tiny);
    k->entropy(&b, sum, weight);
    k->few_mean_log_f32(&b, queries, KN_FEW, scores);
    double e = ((double)dim + 16) * 0x1p-24 + 0x1p-21;
    for (size_t i = 0; i < s.count; i++) {
        double squares = 0, xlogx = 0, heavy = 0;
        bool small = false;
        for (size_t n = 0; n < dim; n++) {
            float x = rows[row_number(&s, i) * dim + n], moved = x + epsilon;
            double want = kn_exact_log(moved < 0x1p-126f ? 0x1p-126 : moved);
            CHECK(fabs(logs[i * dim + n] - want) <= 0x1p-22 * fabs(want) + 0x1p-22);
            squares += want * want;
            small |= moved < 0x1p-126f;
            xlogx += x > 0 ? x * kn_exact_log(x) : 0;
            heavy += x > 0 ? 2 * fabs(x * kn_exact_log(x)) + x : 0;
        }
        CHECK(fabs(norm[i] - sqrt(squares)) <= 2 * e * sqrt(squares) + 1e-6);
        CHECK_EQ(tiny[i] != 0, small);
        CHECK(fabs(sum[i] - xlogx) <= e * heavy + 1e-30);
        CHECK(fabs(weight[i] - heavy) <= 2 * e * heavy + 1e-30);
        for (unsigned j = 0; j < KN_FEW; j++) {
            double mean = 0, size = 0;
            for (size_t n = 0; n < dim; n++) {
                double two = (double)rows[row_number(&s, i) * dim + n] + queries[j * dim + n];
                mean += two > 0 ? two * kn_exact_log(two / 2) : 0;
                size += two > 0 ? fabs(two * kn_exact_log(two / 2)) + two : 0;
            }
            CHECK(fabs(scores[j * KN_BLOCK_ROWS + i] - mean) <= e * size + 1e-30);
        }
    }
}

static void test_logs(void)
{
    for (size_t t = 0; t < table_count; t++)
        for (size_t dim = 0; dim < MOST_DIM; dim += step) {
            unit_note("%s, dim %zu", kn_isa_name(tables[t]->isa), dim);
            check_logs(tables[t], dim, dim % 2 ? 0 : 1e-7f);
        }
}

static void test_live_rows(void)
{
    uint64_t words[8];
    uint32_t which[512];
    for (unsigned turn = 0; turn < 2000; turn++) {
        for (int i = 0; i < 8; i++)
            words[i] = draw() % 3 == 0 ? ~UINT64_C(0) : draw() % 3 == 0 ? 0 : draw() << 13 ^ draw();
        uint64_t first = draw() % 200;
        size_t count = draw() % (512 - first), n = 0;
        size_t found = kn_live_rows(words, first, count, which);
        for (size_t i = 0; i < count; i++)
            if (words[(first + i) / 64] >> ((first + i) % 64) & 1) {
                CHECK(n < found && which[n] == i);
                n++;
            }
        CHECK_EQ(found, n);
    }
}

static void test_cpu(void)
{
    kn_cpu cpu = kn_cpu_detect();
    kn_isa isa;
    CHECK(cpu.can[KN_SCALAR]);
    CHECK(kn_isa_find("avx2", &isa) && isa == KN_AVX2);
    CHECK(!kn_isa_find("sse9", &isa));
    for (int i = 0; i < KN_ISA_COUNT; i++) {
        kn_isa cap = (kn_isa)i;
        CHECK(kn_cpu_best(&cpu, &cap) <= cap);
        CHECK(cpu.can[kn_cpu_best(&cpu, &cap)]);
        CHECK(!cpu.should[i] || cpu.can[i]);
    }
    CHECK(cpu.should[kn_cpu_best(&cpu, NULL)]);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        step = strtoul(argv[1], NULL, 10);
    row_memory = guarded_new();
    query_memory = guarded_new();
    find_tables();
    RUN(test_cpu);
    RUN(test_live_rows);
    RUN(test_floats);
    RUN(test_not_finite);
    RUN(test_bytes);
    RUN(test_select);
    RUN(test_half);
    RUN(test_half_rows);
    RUN(test_logs);
    return UNIT_RESULT();
}
