/* SPDX-License-Identifier: Apache-2.0 */
/* The deletion log: every record comes back, and nothing that was cut or changed anywhere is taken for one. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "dellog.h"
#include "place.h"
#include "unit.h"

#define ROWS  5000u
#define EPOCH UINT64_C(1234567890123456)

static uint64_t seed = 0x9E3779B97F4A7C15u;

static uint64_t random_below(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % n;
}

static size_t random_ranges(npk_range *out, size_t most, uint64_t rows)
{
    size_t n = 0;
    uint64_t at = random_below(rows / 2 + 1), longest = random_below(2) ? 2 : 60;
    while (n < most && at < rows) {
        uint64_t stop = at + 1 + random_below(longest);
        out[n].start = at;
        out[n].stop = stop < rows ? stop : rows;
        at = out[n++].stop + 1 + random_below(100);
    }
    return n;
}

static bool same_rows(const npk_live *live, const bool *deleted, uint64_t rows)
{
    for (uint64_t i = 0; i < rows; i++)
        if (npk__live_is_deleted(live, i) != deleted[i])
            return false;
    return true;
}

static uint8_t text[1 << 20]; /* a log in memory, from its header's end on */
static size_t text_bytes;
static bool model[ROWS];

static void add_record(npk_delrec kind, const npk_range *ranges, size_t count, uint64_t rows)
{
    uint8_t *record;
    size_t bytes;
    NEED(npk__dellog_record_make(kind, ranges, count, rows, EPOCH, NPK__DELLOG_HEADER + text_bytes, &record, &bytes) ==
         0);
    NEED(text_bytes + bytes <= sizeof(text) && bytes % 8 == 0);
    memcpy(text + text_bytes, record, bytes);
    text_bytes += bytes;
    free(record);
    if (kind == NPK_DELREC_BITMAP)
        memset(model, 0, sizeof(model));
    for (uint64_t i = rows; kind == NPK_DELREC_CUT && i < ROWS; i++)
        model[i] = false;
    for (size_t i = 0; i < count; i++)
        for (uint64_t row = ranges[i].start; row < ranges[i].stop; row++)
            model[row] = kind != NPK_DELREC_RESTORE;
}

static npk_dellog_replay replay_begin(void)
{
    npk_dellog_replay r = {.live = npk__live_new(), .end = NPK__DELLOG_HEADER};
    NEED(r.live != NULL);
    return r;
}

static void make_random_log(unsigned records)
{
    npk_range ranges[300];
    text_bytes = 0;
    memset(model, 0, sizeof(model));
    for (unsigned i = 0; i < records; i++) {
        npk_delrec kind = (npk_delrec)(1 + random_below(12));
        if (kind > NPK_DELREC_BITMAP)
            kind = NPK_DELREC_DROP;
        uint64_t rows = kind == NPK_DELREC_CUT ? random_below(ROWS) : ROWS;
        size_t n = kind == NPK_DELREC_CUT ? 0 : random_ranges(ranges, 1 + (size_t)random_below(300), rows);
        add_record(kind, ranges, n, rows);
    }
}

/* All at once, and in pieces as a follower reads it. */
static void test_replay(void)
{
    for (unsigned round = 0; round < 60; round++) {
        unit_note("round %u", round);
        make_random_log(1 + (unsigned)random_below(40));
        npk_dellog_replay r = replay_begin(), f = replay_begin();
        CHECK_EQ(npk__dellog_replay_bytes(text, text_bytes, EPOCH, &r), 0);
        CHECK_EQ(r.end, NPK__DELLOG_HEADER + text_bytes);
        CHECK(same_rows(r.live, model, ROWS));
        size_t known = 0;
        while (known < text_bytes) {
            known += 1 + (size_t)random_below(3000);
            known = known < text_bytes ? known : text_bytes;
            size_t at = (size_t)f.end - NPK__DELLOG_HEADER;
            CHECK_EQ(npk__dellog_replay_bytes(text + at, known - at, EPOCH, &f), 0);
        }
        CHECK_EQ(f.end, r.end);
        CHECK_EQ(f.changes, r.changes);
        CHECK(same_rows(f.live, model, ROWS));
        npk__live_unref(&r.live);
        npk__live_unref(&f.live);
    }
}

/* P8: a log cut at any byte says what its whole records say. */
static void test_cut_at_every_byte(void)
{
    npk_range a[] = {{3, 9}, {20, 21}}, b[] = {{100, 300}}, c[] = {{5, 6}};
    size_t ends[4] = {0};
    text_bytes = 0;
    memset(model, 0, sizeof(model));
    add_record(NPK_DELREC_DROP, a, 2, ROWS);
    ends[1] = text_bytes;
    add_record(NPK_DELREC_DROP, b, 1, ROWS);
    ends[2] = text_bytes;
    add_record(NPK_DELREC_RESTORE, c, 1, ROWS);
    ends[3] = text_bytes;
    for (size_t cut = 0; cut <= text_bytes; cut++) {
        unsigned whole = cut >= ends[3] ? 3 : cut >= ends[2] ? 2 : cut >= ends[1] ? 1 : 0;
        npk_dellog_replay r = replay_begin();
        unit_note("cut at %zu", cut);
        CHECK_EQ(npk__dellog_replay_bytes(text, cut, EPOCH, &r), 0);
        CHECK_EQ(r.changes, whole);
        CHECK_EQ(r.end, NPK__DELLOG_HEADER + ends[whole]);
        CHECK_EQ(npk__live_deleted(r.live), whole == 0 ? 0 : whole == 1 ? 7 : whole == 2 ? 207 : 206);
        npk__live_unref(&r.live);
    }
}

/* Any bit that flips ends the log before its record. */
static void test_every_bit(void)
{
    npk_range a[] = {{3, 9}, {20, 21}}, b[] = {{7, 8}};
    text_bytes = 0;
    add_record(NPK_DELREC_DROP, a, 2, ROWS);
    size_t first = text_bytes;
    add_record(NPK_DELREC_DROP, b, 1, ROWS);
    for (size_t bit = 0; bit < text_bytes * 8; bit++) {
        npk_dellog_replay r = replay_begin();
        text[bit / 8] ^= (uint8_t)(1 << bit % 8);
        unit_note("bit %zu", bit);
        CHECK_EQ(npk__dellog_replay_bytes(text, text_bytes, EPOCH, &r), 0);
        CHECK_EQ(r.end, NPK__DELLOG_HEADER + (bit / 8 < first ? 0 : first));
        text[bit / 8] ^= (uint8_t)(1 << bit % 8);
        npk__live_unref(&r.live);
    }
}

/* A record of another log, or from another place in this one, is none. */
static void test_records_stay_where_they_are(void)
{
    npk_range a[] = {{3, 9}};
    text_bytes = 0;
    add_record(NPK_DELREC_DROP, a, 1, ROWS);
    size_t one = text_bytes;
    npk_dellog_replay r = replay_begin();
    CHECK_EQ(npk__dellog_replay_bytes(text, one, EPOCH + 1, &r), 0);
    CHECK_EQ(r.end, NPK__DELLOG_HEADER);
    memcpy(text + one, text, one);
    CHECK_EQ(npk__dellog_replay_bytes(text, 2 * one, EPOCH, &r), 0);
    CHECK_EQ(r.end, NPK__DELLOG_HEADER + one);
    npk__live_unref(&r.live);
}

static void test_bitmap_record(void)
{
    for (unsigned round = 0; round < 40; round++) {
        uint8_t *record;
        size_t bytes;
        npk_live *live = npk__live_new();
        npk_dellog_replay r = replay_begin();
        unit_note("round %u", round);
        memset(model, 0, sizeof(model));
        /* From a few to nearly all, so that each form is the shortest once; some of them beyond the rows that count. */
        uint64_t rows = round % 3 ? ROWS : ROWS - 700, marks = random_below(round % 4 == 0 ? 20 : 6000);
        for (uint64_t i = 0; i < marks; i++) {
            uint64_t at = random_below(ROWS);
            NEED(npk__live_mark(live, at, 1, true, NULL) == 0);
            model[at] = at < rows;
        }
        NEED(npk__dellog_bitmap_make(live, rows, EPOCH, NPK__DELLOG_HEADER, &record, &bytes) == 0);
        CHECK(bytes <= ROWS / 8 + 64);
        CHECK_EQ(npk__dellog_replay_bytes(record, bytes, EPOCH, &r), 0);
        CHECK_EQ(r.end, NPK__DELLOG_HEADER + bytes);
        CHECK_EQ(r.changes, 0);
        CHECK(same_rows(r.live, model, ROWS));
        free(record);
        npk__live_unref(&live);
        npk__live_unref(&r.live);
    }
}

static void test_header(void)
{
    uint8_t bytes[NPK__DELLOG_HEADER];
    npk_dellog_head h = {.epoch = EPOCH, .row_bytes = 40, .synced = 777}, out;
    npk__dellog_header_make(&h, bytes);
    CHECK_EQ(npk__dellog_header_parse(bytes, sizeof(bytes), &out), 0);
    CHECK_EQ(out.epoch, EPOCH);
    CHECK_EQ(out.row_bytes, 40);
    CHECK_EQ(out.synced, 777);
    for (size_t n = 0; n < sizeof(bytes); n++)
        CHECK_EQ(npk__dellog_header_parse(bytes, n, &out), -EINVAL);
    for (size_t bit = 0; bit < 96 * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int err = npk__dellog_header_parse(bytes, sizeof(bytes), &out);
        unit_note("bit %zu", bit);
        if (bit / 8 < 64)
            CHECK(err == -EINVAL || (err == -ENOTSUP && bit / 8 >= 8 && bit / 8 < 12));
        else
            CHECK(err == 0 && (out.synced == 777 || out.synced == 0)); /* a length that does not fit is none */
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

/* P8 on a file: behind the synced length a torn record is ignored and written over; before it that is damage. */
static void test_torn_and_damaged(void)
{
    place p = place_begin();
    npk_dellog_replay made, r = replay_begin();
    uint8_t *record;
    size_t bytes;
    uint64_t size;
    npk_range a[] = {{3, 9}}, b[] = {{50, 60}};
    int dir = openat(p.dir, ".", O_RDONLY | O_DIRECTORY);
    NEED(dir >= 0 && npk__dellog_create(dir, "x.del", EPOCH, 40, NULL, ROWS, &made) == 0);
    int fd = openat(p.dir, "x.del", O_RDWR);
    CHECK_EQ(npk__dellog_read(fd, "x.del", EPOCH, &r, &size), 0);
    NEED(npk__dellog_record_make(NPK_DELREC_DROP, a, 1, ROWS, EPOCH, r.end, &record, &bytes) == 0);
    CHECK_EQ(npk__dellog_append(fd, size, &r, record, bytes), 0);
    free(record);
    CHECK_EQ(npk__dellog_read(fd, "x.del", EPOCH, &r, &size), 0);
    CHECK_EQ(npk__live_deleted(r.live), 6);
    CHECK_EQ(npk__dellog_sync(fd, r.end), 0);
    /* An acknowledged drop behind a torn record must not be lost. */
    NEED(pwrite(fd, "NPKR torn", 9, (off_t)size) == 9);
    CHECK_EQ(npk__dellog_read(fd, "x.del", EPOCH, &r, &size), 0);
    CHECK(size > r.end);
    NEED(npk__dellog_record_make(NPK_DELREC_DROP, b, 1, ROWS, EPOCH, r.end, &record, &bytes) == 0);
    CHECK_EQ(npk__dellog_append(fd, size, &r, record, bytes), 0);
    free(record);
    npk_dellog_replay again = replay_begin();
    CHECK_EQ(npk__dellog_read(fd, "x.del", EPOCH, &again, &size), 0);
    CHECK_EQ(npk__live_deleted(again.live), 16);
    CHECK_EQ(again.end, size);
    npk__live_unref(&again.live);
    again = replay_begin();
    CHECK_EQ(npk__dellog_read(fd, "x.del", EPOCH + 1, &again, &size), -EINVAL);
    NEED(pwrite(fd, "x", 1, NPK__DELLOG_HEADER + 20) == 1);
    CHECK_EQ(npk__dellog_read(fd, "x.del", EPOCH, &again, &size), -EIO);
    CHECK_HAS(npk_error(), "damaged");
    NEED(ftruncate(fd, NPK__DELLOG_HEADER) == 0);
    npk__live_unref(&again.live);
    again = replay_begin();
    CHECK_EQ(npk__dellog_read(fd, "x.del", EPOCH, &again, &size), -EIO);
    npk__live_unref(&again.live);
    npk__live_unref(&r.live);
    close(fd);
    close(dir);
    place_end(&p);
}

int main(void)
{
    RUN(test_header);
    RUN(test_replay);
    RUN(test_cut_at_every_byte);
    RUN(test_every_bit);
    RUN(test_records_stay_where_they_are);
    RUN(test_bitmap_record);
    RUN(test_torn_and_damaged);
    return UNIT_RESULT();
}
