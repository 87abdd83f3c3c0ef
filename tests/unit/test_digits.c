/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rewriting shape[0] in place (P3): every mixture of bytes that a reader could see parses and counts no row too many;
 * where text must move, a read cut anywhere is refused or right.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "digits.h"
#include "npk.h"
#include "npy.h"

#define MAX_BYTES 4096

typedef struct header {
    uint8_t b[MAX_BYTES];
    size_t bytes;
    npk_header h;
} header;

static bool reparse(header *x)
{
    return npk_header_parse(x->b, x->bytes, &x->h, NULL, 0) == 0;
}

/* A version 1 header from a text and blanks behind it, with a final newline. */
static bool make(header *x, const char *text, size_t blanks)
{
    size_t n = strlen(text), total = n + blanks + 1;
    memcpy(x->b, "\x93NUMPY\x01\x00", 8);
    x->b[8] = (uint8_t)total;
    x->b[9] = (uint8_t)(total >> 8);
    memcpy(x->b + 10, text, n);
    memset(x->b + 10 + n, ' ', blanks);
    x->b[10 + n + blanks] = '\n';
    x->bytes = total + 10;
    return reparse(x);
}

/* The same with a field of the given width, right-aligned. */
static bool make_field(header *x, uint64_t rows, int width, const char *rest)
{
    char text[256];
    (void)snprintf(text, sizeof(text), "{'descr': '<f4', 'fortran_order': False, 'shape': (%*" PRIu64 "%s", width, rows,
                   rest);
    return make(x, text, 0);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Same shape but for the rows, same everything else. */
static bool same_but_rows(const npk_header *a, const npk_header *b)
{
    return a->ndim == b->ndim && memcmp(a->shape + 1, b->shape + 1, (a->ndim - 1) * sizeof(*a->shape)) == 0 &&
           a->data_offset == b->data_offset && a->dtype.itemsize == b->dtype.itemsize && a->fortran == b->fortran;
}

/* Every subset of a step's bytes: each must parse and count at most `most` rows. */
static void check_mixtures(const header *before, const npk__digits_step *step, uint64_t most)
{
    header mixed;
    if (!CHECK(step->bytes <= 20))
        return;
    for (uint32_t mask = 0; mask < 1u << step->bytes; mask++) {
        mixed = *before;
        for (uint32_t i = 0; i < step->bytes; i++)
            if (mask & 1u << i)
                mixed.b[step->offset + i] = step->data[i];
        bool parses = reparse(&mixed);
        if (!parses || mixed.h.shape[0] > most || !same_but_rows(&mixed.h, &before->h)) {
            unit_note("mixture %.70s", (char *)mixed.b + 10);
            CHECK(parses);
            CHECK(mixed.h.shape[0] <= most);
            CHECK(same_but_rows(&mixed.h, &before->h));
            return;
        }
    }
    CHECK_EQ(mixed.h.data_offset, before->h.data_offset);
}

/* A read that is cut once between old and new bytes: refused, or the rows of one of both. */
static void check_cuts(const header *before, const npk__digits_step *step)
{
    header after = *before, mixed;
    memcpy(after.b + step->offset, step->data, step->bytes);
    CHECK(reparse(&after));
    for (uint32_t cut = 0; cut <= step->bytes; cut++)
        for (int new_first = 0; new_first < 2; new_first++) {
            mixed = new_first ? *before : after;
            const header *first = new_first ? &after : before;
            memcpy(mixed.b + step->offset, first->b + step->offset, cut);
            if (!reparse(&mixed))
                continue;
            unit_note("cut %" PRIu32 ": %.90s", cut, (char *)mixed.b + 10);
            CHECK(same_but_rows(&mixed.h, &before->h));
            CHECK(mixed.h.shape[0] == before->h.shape[0] || mixed.h.shape[0] == after.h.shape[0]);
        }
}

/* Plan, check every state on the way, and leave x changed. */
static int walk(header *x, uint64_t rows, bool mixtures)
{
    static npk__digits_plan_t plan;
    uint64_t most = larger(x->h.shape[0], rows), old = x->h.shape[0];
    int err = npk__digits_plan(x->b, x->bytes, &x->h, rows, &plan);
    if (err != 0)
        return err;
    header whole = *x;
    npk__digits_apply(&plan, plan.count, whole.b);
    for (uint32_t s = 0; s < plan.count; s++) {
        const npk__digits_step *step = &plan.steps[s];
        unit_note("%" PRIu64 " -> %" PRIu64 ", step %" PRIu32, old, rows, s);
        CHECK(step->bytes > 0 && step->offset >= 10 && step->offset + step->bytes < x->bytes);
        if (plan.moves)
            check_cuts(x, step);
        else if (mixtures)
            check_mixtures(x, step, most);
        memcpy(x->b + step->offset, step->data, step->bytes);
        /* The writer is killed here. */
        if (!CHECK(reparse(x)))
            return -EBADMSG;
        CHECK(x->h.shape[0] <= most);
    }
    CHECK_EQ(x->h.shape[0], rows);
    CHECK_EQ(x->h.digits_offset, plan.digits_offset);
    CHECK_EQ(x->h.digits_width, plan.digits_width);
    CHECK_EQ(x->b[x->bytes - 1], '\n');
    CHECK(memcmp(x->b, whole.b, x->bytes) == 0);
    return 0;
}

static void test_pairs(void)
{
    static const uint64_t pairs[][2] = {
        {0, 1},
        {1, 0},
        {9, 10},
        {10, 9},
        {99, 100},
        {100, 99},
        {999, 1000},
        {1000, 999},
        {1999999, 2000000},
        {2000000, 1999999},
        {0, 1000000},
        {1000000, 0},
        {5, 12345},
        {12345, 5},
        {123456, 123457},
        {123456, 123956},
        {999999, 123456},
        {123456, 999999},
        {1000, 1999},
        {1999, 1000},
        {100000, 99999},
        {7, 7},
        {1234567, 123},
        {123, 1234567},
        {90, 105},
        {109, 110},
        {1099, 1100},
        {999999999, 1000000000},
        {1, 10},
        {10, 1},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++)
        for (int width = 10; width <= 14; width += 4) {
            header x;
            unit_note("pair %zu", i);
            CHECK(make_field(&x, pairs[i][0], width, ", 4, 7), }"));
            CHECK_EQ(walk(&x, pairs[i][1], true), 0);
            CHECK_EQ(x.h.digits_width, width);
        }
}

/* All pairs of counts up to 130 in a field of three, and back from each state on the way. */
static void test_all_small(void)
{
    for (uint64_t from = 0; from <= 130; from++)
        for (uint64_t to = 0; to <= 130; to++) {
            header x;
            CHECK(make_field(&x, from, 3, ",)}"));
            CHECK_EQ(walk(&x, to, true), 0);
        }
}

/* A writer that was killed after any step is followed by one that goes on to the old, the new or another number. */
static void test_after_a_kill(void)
{
    static const uint64_t counts[] = {0, 7, 99, 100, 1234, 9999, 10000, 100001, 999999, 1000000};
    const size_t n = sizeof(counts) / sizeof(*counts);
    static npk__digits_plan_t plan;
    for (size_t a = 0; a < n; a++)
        for (size_t b = 0; b < n; b++) {
            header x;
            CHECK(make_field(&x, counts[a], 8, ", 3), }"));
            CHECK_EQ(npk__digits_plan(x.b, x.bytes, &x.h, counts[b], &plan), 0);
            for (uint32_t steps = 0; steps <= plan.count; steps++)
                for (size_t c = 0; c < n; c++) {
                    header y = x;
                    npk__digits_apply(&plan, steps, y.b);
                    unit_note("%" PRIu64 " -> %" PRIu64 ", killed after %" PRIu32 ", -> %" PRIu64, counts[a], counts[b],
                              steps, counts[c]);
                    CHECK(reparse(&y));
                    CHECK_EQ(walk(&y, counts[c], false), 0);
                }
        }
}

/* The largest numbers: 19 digits, from and to anything. */
static void test_large(void)
{
    static const uint64_t counts[] = {0, 1, 999999999999999999u, 1000000000000000000u, 2305843009213693000u};
    for (size_t a = 0; a < 5; a++)
        for (size_t b = 0; b < 5; b++) {
            header x;
            CHECK(make_field(&x, counts[a], 19, ",)}"));
            CHECK_EQ(walk(&x, counts[b], false), 0);
            CHECK(make_field(&x, counts[a], 60, ",)}"));
            CHECK_EQ(walk(&x, counts[b], false), 0);
        }
    header x;
    CHECK(make_field(&x, 5, 19, ",)}"));
    CHECK_EQ(walk(&x, 2305843009213693952u, false), -EOVERFLOW);
    CHECK_EQ(walk(&x, UINT64_MAX, false), -EOVERFLOW);
    CHECK_EQ(x.h.shape[0], 5);
    /* Too many rows are too many also where another dimension is 0. */
    CHECK(make_field(&x, 5, 19, ", 0, 1000)}"));
    CHECK_EQ(walk(&x, 2305843009213693u, false), 0);
    CHECK_EQ(walk(&x, 2305843009213694u, false), -EOVERFLOW);
}

/* numpy's header has no blank before the number and some behind the dict: the text moves, and makes room for good. */
static void test_moves(void)
{
    static const char *const tails[] = {",)}",           ",), }",     ", 4), }",   ", 4, 512), }",
                                        " , 44 , 5 ) }", ", 0, 3),}", "L, 4L), }", ", 10, 10, 10, 1), }",
                                        ",) ,      }"};
    for (size_t t = 0; t < sizeof(tails) / sizeof(*tails); t++)
        for (uint64_t rows = 10; rows <= 10000000000u; rows *= 10)
            for (size_t blanks = 0; blanks <= 40; blanks++)
                for (int lead = 0; lead < 2; lead++) {
                    char text[256];
                    header x;
                    (void)snprintf(text, sizeof(text), "{'descr': '|u1', 'fortran_order': False, 'shape': %s9%s",
                                   lead ? "( " : "(", tails[t]);
                    size_t digits = (size_t)snprintf(NULL, 0, "%" PRIu64, rows), have = lead ? 2 : 1;
                    unit_note("9%s with %zu blanks to %" PRIu64, tails[t], blanks, rows);
                    CHECK(make(&x, text, blanks));
                    int want = digits <= have || blanks + have >= digits + 2 ? 0 : -ENOSPC;
                    CHECK_EQ(walk(&x, rows, false), want);
                    if (want != 0) {
                        CHECK_EQ(x.h.shape[0], 9);
                        continue;
                    }
                    /* Twelve more digits if the blanks allow, and no further move then. */
                    if (digits > have && blanks >= digits + 14 && digits <= 7)
                        CHECK(x.h.digits_width >= digits + 12);
                    CHECK_EQ(walk(&x, 0, false), 0);
                    CHECK_EQ(walk(&x, rows, false), 0);
                }
}

/* What is not one plain tuple at the end of the dict is not moved. */
static void test_no_room(void)
{
    static const char *const texts[] = {
        "{'shape': (9,), 'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ((9, 4))}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9, # note\n 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9,\t4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9, 4)}\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9, 4)}# note",
    };
    static npk__digits_plan_t plan;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        header x;
        unit_note("%s", texts[i]);
        CHECK(make(&x, texts[i], 40));
        CHECK_EQ(npk__digits_plan(x.b, x.bytes, &x.h, 10, &plan), -ENOSPC);
        CHECK_EQ(walk(&x, 5, true), 0); /* within its digits it changes all the same */
        CHECK_EQ(walk(&x, 9, true), 0);
        header y;
        CHECK_EQ(npk__header_relayout(x.b, x.bytes, &x.h, 10, y.b, sizeof(y.b), &y.bytes), 0);
        CHECK(reparse(&y));
        CHECK_EQ(walk(&y, 1000000, false), 0);
    }
}

static void test_refused(void)
{
    static npk__digits_plan_t plan;
    header x, y;
    uint8_t out[256];
    size_t bytes;
    CHECK(make(&x, "{'descr': '<f4', 'fortran_order': False, 'shape': ()}", 10));
    CHECK_EQ(npk__digits_plan(x.b, x.bytes, &x.h, 10, &plan), -EINVAL);
    CHECK_EQ(npk__header_relayout(x.b, x.bytes, &x.h, 10, out, sizeof(out), &bytes), -EINVAL);
    CHECK(make_field(&x, 5, 5, ",)}"));
    CHECK(make_field(&y, 5, 6, ",)}"));
    CHECK_EQ(npk__digits_plan(x.b, x.bytes, &y.h, 10, &plan), -EINVAL);     /* another header's parse */
    CHECK_EQ(npk__digits_plan(x.b, x.bytes - 1, &x.h, 10, &plan), -EINVAL); /* not all of it */
    y = x;
    y.b[y.h.digits_offset + 4] = '6'; /* somebody changed the rows since it was parsed */
    CHECK_EQ(npk__digits_plan(y.b, y.bytes, &x.h, 10, &plan), -EINVAL);
    CHECK_EQ(npk__header_relayout(y.b, y.bytes, &x.h, 10, out, sizeof(out), &bytes), -EINVAL);
    x.b[12] ^= 1;
    CHECK_EQ(npk__digits_plan(x.b, x.bytes, &x.h, 10, &plan), -EINVAL); /* not a header any more */
    CHECK_EQ(plan.count, 0);
}

/* Growing by one row from nothing, as an endless append does, never needs more room once it moved. */
static void test_counting(void)
{
    uint8_t out[256];
    header x;
    uint64_t shape[] = {0, 16};
    unsigned moved = 0;
    CHECK_EQ(npk_header_format("'<f4'", false, shape, 2, x.b, sizeof(x.b), &x.bytes), 0);
    CHECK(reparse(&x));
    memcpy(out, x.b, x.bytes);
    for (uint64_t rows = 1; rows <= 1200; rows++) {
        uint32_t before = x.h.digits_width;
        CHECK_EQ(walk(&x, rows, true), 0);
        moved += x.h.digits_width != before;
    }
    CHECK_EQ(moved, 1);
    CHECK(x.h.digits_width >= 14);
    CHECK_EQ(x.bytes, 128);
}

static void test_relayout(void)
{
    static const char *const texts[] = {
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }",
        "{\"shape\":(9,4),\"descr\":[('a','<f4'),(('t','b'),'>i2',(2,))],\"fortran_order\":False}",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (  9L, 4L), }  # note",
        "\n{'descr': '<f4',\n 'fortran_order': False, 'shape': (( 9, 4, 5))}\n\n",
    };
    static const uint64_t rows[] = {0, 9, 10, 123456789, 100000000000000000u};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        for (size_t r = 0; r < 5; r++)
            for (size_t blanks = 0; blanks < 70; blanks += 3) {
                header x, y;
                unit_note("%s to %" PRIu64, texts[i], rows[r]);
                CHECK(make(&x, texts[i], blanks));
                CHECK_EQ(npk__header_relayout(x.b, x.bytes, &x.h, rows[r], y.b, x.bytes + 192, &y.bytes), 0);
                if (!CHECK(reparse(&y)))
                    continue;
                CHECK_EQ(y.h.shape[0], rows[r]);
                CHECK_EQ(y.h.ndim, x.h.ndim);
                CHECK_EQ(memcmp(y.h.shape + 1, x.h.shape + 1, sizeof(x.h.shape) - sizeof(*x.h.shape)), 0);
                CHECK_EQ(y.h.fortran, x.h.fortran);
                CHECK_EQ(y.h.major, 1);
                CHECK_EQ(y.h.data_offset % 64, 0);
                CHECK_EQ(y.h.data_offset, y.bytes);
                CHECK_EQ(y.h.row_bytes, x.h.row_bytes);
                CHECK_EQ(y.h.descr_bytes, x.h.descr_bytes);
                CHECK(memcmp(y.b + y.h.descr_offset, x.b + x.h.descr_offset, x.h.descr_bytes) == 0);
                CHECK_EQ(y.h.digits_width, 20);
                CHECK_EQ(npk__header_relayout(x.b, x.bytes, &x.h, rows[r], y.b, y.bytes, &y.bytes), 0);
                CHECK_EQ(npk__header_relayout(x.b, x.bytes, &x.h, rows[r], y.b, y.bytes - 1, &y.bytes), -E2BIG);
            }
    header x, y;
    CHECK(make(&x, texts[0], 5));
    CHECK_EQ(npk__header_relayout(x.b, x.bytes, &x.h, UINT64_MAX / 4, y.b, sizeof(y.b), &y.bytes), -EOVERFLOW);
}

/* A version 1 header that is too long for its two bytes of length becomes version 2. */
static void test_relayout_version(void)
{
    size_t capacity = 70000, n = 10, bytes = 0;
    uint8_t *b = malloc(capacity), *out = malloc(capacity);
    memcpy(b, "\x93NUMPY\x01\x00\xff\xff", 10);
    n += (size_t)snprintf((char *)b + n, capacity - n, "{'fortran_order': False, 'shape': (9,), 'descr': [");
    for (int i = 0; n < 65510; i++)
        n += (size_t)snprintf((char *)b + n, capacity - n, "('f%d', '<f4'), ", i);
    b[n++] = ']';
    b[n++] = '}';
    memset(b + n, ' ', 65545 - n);
    npk_header h, after;
    CHECK_EQ(npk_header_parse(b, 65545, &h, NULL, 0), 0);
    CHECK_EQ(npk__header_relayout(b, 65545, &h, 10, out, capacity, &bytes), 0);
    CHECK_EQ(npk_header_parse(out, bytes, &after, NULL, 0), 0);
    CHECK_EQ(after.major, 2);
    CHECK_EQ(after.shape[0], 10);
    CHECK_EQ(after.dtype.itemsize, h.dtype.itemsize);
    free(b);
    free(out);
}

/* A header keeps its version, which says how its letters are read. */
static void test_relayout_keeps_version(void)
{
    static const char text[] = "{'descr': [('\xc3\xa9', '<f4')], 'fortran_order': False, 'shape': (9,), }";
    for (uint8_t major = 1; major <= 3; major++) {
        header x, y;
        CHECK(make(&x, text, 0));
        if (major > 1) {
            memmove(x.b + 12, x.b + 10, x.bytes - 10);
            x.b[6] = major;
            x.b[10] = x.b[11] = 0;
            x.bytes += 2;
        }
        unit_note("version %d", major);
        CHECK(reparse(&x));
        CHECK_EQ(walk(&x, 7, true), 0);
        CHECK_EQ(npk__digits_plan(x.b, x.bytes, &x.h, 10, &(npk__digits_plan_t){0}), -ENOSPC);
        CHECK_EQ(npk__header_relayout(x.b, x.bytes, &x.h, 10, y.b, sizeof(y.b), &y.bytes), 0);
        CHECK(reparse(&y));
        CHECK_EQ(y.h.major, major);
        CHECK_EQ(y.h.data_offset % 64, 0);
        CHECK_EQ(y.h.shape[0], 10);
        CHECK(memcmp(y.b + y.h.descr_offset, x.b + x.h.descr_offset, x.h.descr_bytes) == 0);
    }
}

int main(void)
{
    RUN(test_pairs);
    RUN(test_all_small);
    RUN(test_after_a_kill);
    RUN(test_large);
    RUN(test_moves);
    RUN(test_no_room);
    RUN(test_refused);
    RUN(test_counting);
    RUN(test_relayout);
    RUN(test_relayout_version);
    RUN(test_relayout_keeps_version);
    return UNIT_RESULT();
}
