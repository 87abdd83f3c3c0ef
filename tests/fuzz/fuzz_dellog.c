/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as records of a deletion log. With "sealed" input (first byte odd) each record's sum is made to fit, so
 * that what is behind the sum is reached: forged records are refused or mean rows that a file can have, never more.
 */
#include "fuzz.h"

#include <endian.h>
#include <string.h>

#include "dellog.h"
#include "sum.h"

#define EPOCH 42u

static uint64_t get64(const uint8_t *at)
{
    uint64_t n;
    memcpy(&n, at, 8);
    return le64toh(n);
}

/* Give every record its sum, as far as their lengths lead. Row counts are kept small: time, not truth. */
static void seal(uint8_t *bytes, size_t size)
{
    for (size_t at = 0; at + 40 <= size;) {
        uint64_t payload = get64(bytes + at + 8), rows = get64(bytes + at + 16) & 0xffffff;
        if (payload > size - at - 40)
            return;
        size_t padded = ((size_t)payload + 7) & ~(size_t)7;
        if (padded > size - at - 40)
            return;
        memcpy(bytes + at, "NPKR", 4);
        rows = htole64(rows);
        memcpy(bytes + at + 16, &rows, 8);
        uint64_t sum = npk__sum(bytes + at, 32 + padded, EPOCH * UINT64_C(0x9E3779B97F4A7C15) ^ (128 + at));
        sum = htole64(sum);
        memcpy(bytes + at + 32 + padded, &sum, 8);
        at += 40 + padded;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    npk_dellog_head head;
    (void)npk__dellog_header_parse(data, size, &head);
    if (size < 1 || size > 1 << 16)
        return 0;
    uint8_t *bytes = malloc(size);
    npk_dellog_replay r = {.live = npk__live_new(), .end = NPK__DELLOG_HEADER};
    MUST(bytes && r.live);
    memcpy(bytes, data + 1, size - 1);
    if (data[0] & 1)
        seal(bytes, size - 1);
    MUST(npk__dellog_replay_bytes(bytes, size - 1, EPOCH, &r) == 0);
    MUST(r.end >= NPK__DELLOG_HEADER && r.end <= NPK__DELLOG_HEADER + size - 1 && r.end % 8 == 0);
    uint64_t end = npk__live_end(r.live), deleted = npk__live_deleted(r.live);
    MUST(end <= NPK__LIVE_ROWS && deleted <= end);
    MUST(npk__live_rank(r.live, end) == end - deleted);
    /* What was read can be written as one record, and says the same. */
    uint8_t *record;
    size_t n;
    npk_dellog_replay again = {.live = npk__live_new(), .end = NPK__DELLOG_HEADER};
    MUST(again.live && npk__dellog_bitmap_make(r.live, end, EPOCH, NPK__DELLOG_HEADER, &record, &n) == 0);
    MUST(npk__dellog_replay_bytes(record, n, EPOCH, &again) == 0 && again.end == NPK__DELLOG_HEADER + n);
    MUST(npk__live_deleted(again.live) == deleted && npk__live_end(again.live) == end);
    free(record);
    npk__live_unref(&again.live);
    npk__live_unref(&r.live);
    free(bytes);
    return 0;
}
