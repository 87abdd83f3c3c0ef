/* SPDX-License-Identifier: Apache-2.0 */
/* The bitmap of shown rows against a plain array of bools. */
#include <errno.h>
#include <stdlib.h>

#include "live.h"
#include "unit.h"

#define ROWS 300000u

static uint64_t seed = 0x9E3779B97F4A7C15u;

static uint64_t random_below(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % n;
}

static uint8_t dead[ROWS]; /* the model */

static uint64_t model_mark(uint64_t start, uint64_t count, bool deleted)
{
    uint64_t changed = 0;
    for (uint64_t i = start; i < start + count; i++) {
        changed += dead[i] != deleted;
        dead[i] = deleted;
    }
    return changed;
}

/* Everything that can be asked, for every row: sets of ranges, rank, select, words. */
static bool lists_agree(const npk_live *l)
{
    static int64_t logical[ROWS + 300000], physical[ROWS + 300000];
    static uint64_t ascending[ROWS + 300000];
    size_t n = 0, wrong = 0;
    for (uint64_t i = 0; i < ROWS + 300000; i++)
        if (i >= ROWS || !dead[i]) {
            ascending[n] = n;
            logical[n] = (int64_t)n;
            physical[n++] = (int64_t)i;
        }
    static int64_t found[ROWS + 300000];
    npk_live_index *x = npk__live_index_make(l);
    npk__live_select_many(x, logical, n, 0, NULL, 0, found);
    npk__live_select_ascending(l, ascending, n, 1);
    for (size_t i = 0; i < n; i++)
        wrong += found[i] != physical[i] || ascending[i] != (uint64_t)physical[i];
    npk__live_index_free(x);
    return wrong == 0;
}

static bool agrees(const npk_live *l)
{
    uint64_t live = 0, deleted = 0, end = 0, wrong = 0;
    for (uint64_t i = 0; i < ROWS; i++) {
        wrong += npk__live_is_deleted(l, i) != dead[i];
        wrong += npk__live_rank(l, i) != live;
        if (dead[i]) {
            deleted++;
            end = i + 1;
        } else {
            wrong += npk__live_select(l, live) != i;
            live++;
        }
    }
    wrong += npk__live_deleted(l) != deleted;
    wrong += npk__live_end(l) != end;
    wrong += npk__live_select(l, live + 12345678) != ROWS + 12345678;
    wrong += npk__live_rank(l, UINT64_C(1) << 40) != (UINT64_C(1) << 40) - deleted;
    uint64_t at = 0, start, stop;
    while (npk__live_next_deleted(l, at, &start, &stop)) {
        for (; at < start; at++)
            wrong += dead[at];
        for (; at < stop; at++)
            wrong += !dead[at];
        wrong += stop <= start;
        if (wrong)
            break;
    }
    for (; at < ROWS; at++)
        wrong += dead[at];
    for (uint64_t row = 0, rows; row < ROWS; row += rows) {
        const uint64_t *words = npk__live_words(l, row, &rows);
        for (uint64_t i = row; i < row + rows && i < ROWS; i++)
            wrong += (words[(i - row) / 64] >> (i - row) % 64 & 1) == dead[i];
    }
    return wrong == 0 && lists_agree(l);
}

static void test_nothing_is_deleted(void)
{
    npk_live *l = npk__live_new();
    uint64_t start, stop;
    memset(dead, 0, sizeof(dead));
    CHECK(agrees(l));
    CHECK(!npk__live_next_deleted(l, 0, &start, &stop));
    CHECK_EQ(npk__live_mark(l, 5, 0, true, NULL), 0);
    CHECK_EQ(npk__live_mark(l, 5, 1000000, false, NULL), 0);
    CHECK_EQ(npk__live_cut(l, 0), 0);
    CHECK_EQ(npk__live_mark(l, UINT64_MAX - 5, 3, true, NULL), -ERANGE);
    CHECK_EQ(npk__live_mark(l, 5, UINT64_MAX, true, NULL), -ERANGE);
    CHECK(agrees(l));
    npk__live_unref(&l);
    CHECK(l == NULL);
    npk__live_unref(&l);
}

static void test_edges(void)
{
    static const uint64_t at[] = {0,     1,     63,    64,     65,     511,    512,    513,
                                  65535, 65536, 65537, 131071, 131072, 262143, 262144, ROWS - 1};
    const size_t n = sizeof(at) / sizeof(at[0]);
    for (size_t i = 0; i < n; i++)
        for (size_t j = i; j < n; j++) {
            npk_live *l = npk__live_new();
            uint64_t changed = 0, start = 0, stop = 0;
            unit_note("%" PRIu64 " to %" PRIu64, at[i], at[j]);
            CHECK_EQ(npk__live_mark(l, at[i], at[j] - at[i] + 1, true, &changed), 0);
            CHECK_EQ(changed, at[j] - at[i] + 1);
            CHECK(npk__live_next_deleted(l, 0, &start, &stop));
            CHECK_EQ(start, at[i]);
            CHECK_EQ(stop, at[j] + 1);
            CHECK_EQ(npk__live_end(l), at[j] + 1);
            CHECK_EQ(npk__live_rank(l, at[j] + 1), at[i]);
            CHECK_EQ(npk__live_select(l, at[i]), at[j] + 1);
            npk__live_unref(&l);
        }
}

static void step_at_random(npk_live *l)
{
    uint64_t start = random_below(ROWS), most, count, changed = 0;
    switch (random_below(4)) {
    case 0:
        most = 1;
        break;
    case 1:
        most = 100;
        break;
    case 2:
        most = 5000;
        break;
    default:
        most = 150000;
        break;
    }
    count = 1 + random_below(most);
    if (count > ROWS - start)
        count = ROWS - start;
    if (random_below(25) == 0) {
        memset(dead + start, 0, ROWS - start);
        CHECK_EQ(npk__live_cut(l, start), 0);
        return;
    }
    bool deleted = random_below(5) != 0;
    CHECK_EQ(npk__live_mark(l, start, count, deleted, &changed), 0);
    CHECK_EQ(changed, model_mark(start, count, deleted));
}

static void test_random_steps(void)
{
    for (unsigned round = 0; round < 4; round++) {
        npk_live *l = npk__live_new();
        memset(dead, 0, sizeof(dead));
        for (unsigned i = 0; i < 400; i++) {
            unit_note("round %u step %u", round, i);
            step_at_random(l);
            if (i % 20 == 0 && !CHECK(agrees(l)))
                return;
        }
        npk__live_unref(&l);
    }
}

/* A copy keeps what it was while the original goes on, and the other way round. */
static void test_copies_are_apart(void)
{
    npk_live *l = npk__live_new(), *copies[8] = {NULL};
    static uint8_t was[8][ROWS];
    memset(dead, 0, sizeof(dead));
    for (unsigned i = 0; i < 400; i++) {
        unsigned slot = i / 10 % 8;
        if (i % 10 == 0) {
            npk__live_unref(&copies[slot]);
            copies[slot] = npk__live_ref(l);
            memcpy(was[slot], dead, sizeof(dead));
        }
        CHECK_EQ(npk__live_own(&l), 0);
        step_at_random(l);
    }
    CHECK(agrees(l));
    for (unsigned slot = 0; slot < 8; slot++) {
        unit_note("copy %u", slot);
        memcpy(dead, was[slot], sizeof(dead));
        CHECK(agrees(copies[slot]));
        npk__live_unref(&copies[slot]);
    }
    npk__live_unref(&l);
}

static void test_own_keeps_a_single_reference(void)
{
    npk_live *l = npk__live_new(), *same = l;
    CHECK_EQ(npk__live_own(&l), 0);
    CHECK(l == same);
    npk_live *other = npk__live_ref(l);
    CHECK_EQ(npk__live_own(&l), 0);
    CHECK(l != other);
    npk__live_unref(&other);
    npk__live_unref(&l);
}

/* Rows far apart cost what they cost, not what lies between them; the index stays below an eighth of the bits. */
static void test_memory(void)
{
    npk_live *l = npk__live_new();
    size_t bits, index;
    for (unsigned i = 0; i < 100; i++)
        CHECK_EQ(npk__live_mark(l, random_below(UINT64_C(1) << 32), 1, true, NULL), 0);
    npk__live_memory(l, &bits, &index);
    CHECK(bits <= 100 * 8192);
    npk__live_unref(&l);
    l = npk__live_new();
    for (unsigned i = 0; i < 100000; i++)
        CHECK_EQ(npk__live_mark(l, random_below(10000000), 1, true, NULL), 0);
    npk__live_memory(l, &bits, &index);
    CHECK(bits >= 1250000);
    CHECK(index * 8 < bits);
    for (unsigned i = 0; i < 10000; i++) {
        uint64_t logical = random_below(9900000), physical = npk__live_select(l, logical);
        if (npk__live_is_deleted(l, physical) || npk__live_rank(l, physical) != logical)
            CHECK_EQ(npk__live_rank(l, physical), logical);
    }
    npk__live_unref(&l);
}

static void test_many_at_once(void)
{
    npk_live *l = npk__live_new();
    int64_t logical[1000], physical[1000];
    for (unsigned i = 0; i < 30000; i++)
        CHECK_EQ(npk__live_mark(l, random_below(ROWS), 1, true, NULL), 0);
    uint64_t shown = npk__live_rank(l, ROWS);
    for (unsigned i = 0; i < 1000; i++) {
        logical[i] = (int64_t)random_below(shown);
        if (i % 3 == 0)
            logical[i] -= (int64_t)shown;
    }
    npk_live_index *x = npk__live_index_make(l);
    CHECK(x != NULL);
    npk__live_select_many(x, logical, 1000, shown, NULL, 0, physical);
    for (unsigned i = 0; i < 1000; i++)
        CHECK_EQ(physical[i], npk__live_select(l, (uint64_t)logical[i] + (logical[i] < 0 ? shown : 0)));
    npk__live_index_free(x);
    npk__live_unref(&l);
}

int main(void)
{
    RUN(test_nothing_is_deleted);
    RUN(test_edges);
    RUN(test_random_steps);
    RUN(test_copies_are_apart);
    RUN(test_own_keeps_a_single_reference);
    RUN(test_memory);
    RUN(test_many_at_once);
    return UNIT_RESULT();
}
