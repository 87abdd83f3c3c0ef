/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "dellog.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "io.h"
#include "sum.h"

#define VERSION       1u
#define HEADER_SUMMED 56u
#define SYNC_AT       64u         /* two copies of a synced length, 16 bytes each */
#define RECORD_MAGIC  0x524b504eu /* "NPKR" */
#define RECORD_HEAD   32u
#define RECORD_TAIL   8u

enum form { FORM_RANGES = 1, FORM_ROWS = 2, FORM_WORDS = 3 };

static const char magic[8] = {'N', 'P', 'K', 'D', 'E', 'L', 'E', 'T'};

/* ---- numbers --------------------------------------------------------------------------------------------------- */

static void put32(uint8_t *to, uint32_t n)
{
    n = htole32(n);
    memcpy(to, &n, 4);
}

static void put64(uint8_t *to, uint64_t n)
{
    n = htole64(n);
    memcpy(to, &n, 8);
}

static uint32_t get32(const uint8_t *from)
{
    uint32_t n;
    memcpy(&n, from, 4);
    return le32toh(n);
}

static uint64_t get64(const uint8_t *from)
{
    uint64_t n;
    memcpy(&n, from, 8);
    return le64toh(n);
}

static unsigned varint_bytes(uint64_t n)
{
    return n ? (unsigned)(63 - __builtin_clzll(n)) / 7 + 1 : 1;
}

static uint8_t *put_varint(uint8_t *to, uint64_t n)
{
    for (; n >= 0x80; n >>= 7)
        *to++ = (uint8_t)(n | 0x80);
    *to++ = (uint8_t)n;
    return to;
}

/* NULL: it does not end, or is no number of 63 bits. */
static const uint8_t *get_varint(const uint8_t *at, const uint8_t *end, uint64_t *out)
{
    uint64_t n = 0;
    for (unsigned shift = 0; at < end && shift < 63; shift += 7) {
        n |= (uint64_t)(*at & 0x7f) << shift;
        if (!(*at++ & 0x80)) {
            *out = n;
            return at;
        }
    }
    return NULL;
}

/* ---- the header ------------------------------------------------------------------------------------------------ */

static void sync_slot_make(uint64_t synced, uint64_t epoch, uint8_t out[16])
{
    put64(out, synced);
    put64(out + 8, npk__sum(out, 8, epoch));
}

void npk__dellog_header_make(const npk_dellog_head *h, uint8_t out[NPK__DELLOG_HEADER])
{
    memset(out, 0, NPK__DELLOG_HEADER);
    memcpy(out, magic, sizeof(magic));
    put32(out + 8, VERSION);
    put32(out + 12, NPK__DELLOG_HEADER);
    put64(out + 16, h->epoch);
    put64(out + 24, h->row_bytes);
    put64(out + HEADER_SUMMED, npk__sum(out, HEADER_SUMMED, 0));
    sync_slot_make(h->synced, h->epoch, out + SYNC_AT);
}

int npk__dellog_header_parse(const uint8_t *bytes, size_t n, npk_dellog_head *out)
{
    if (n < NPK__DELLOG_HEADER || memcmp(bytes, magic, sizeof(magic)) != 0)
        return -EINVAL;
    if (get32(bytes + 8) != VERSION)
        return -ENOTSUP;
    if (get32(bytes + 12) != NPK__DELLOG_HEADER || get64(bytes + HEADER_SUMMED) != npk__sum(bytes, HEADER_SUMMED, 0))
        return -EINVAL;
    *out = (npk_dellog_head){.epoch = get64(bytes + 16), .row_bytes = get64(bytes + 24)};
    /* Only one of the two is ever being written, and both are lower bounds. */
    for (unsigned i = 0; i < 2; i++) {
        const uint8_t *slot = bytes + SYNC_AT + i * 16;
        uint64_t synced = get64(slot);
        if (get64(slot + 8) == npk__sum(slot, 8, out->epoch) && synced > out->synced)
            out->synced = synced;
    }
    return 0;
}

/* ---- making records -------------------------------------------------------------------------------------------- */

static size_t padded(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

/* Room for a record with this much payload, its header filled in; the payload is at out + RECORD_HEAD. */
static uint8_t *record_begin(npk_delrec kind, enum form form, size_t payload, uint64_t rows, uint64_t items)
{
    uint8_t *out = malloc(RECORD_HEAD + padded(payload) + RECORD_TAIL);
    if (!out)
        return NULL;
    put32(out, RECORD_MAGIC);
    out[4] = (uint8_t)kind;
    out[5] = (uint8_t)form;
    out[6] = out[7] = 0;
    put64(out + 8, payload);
    put64(out + 16, rows);
    put64(out + 24, items);
    memset(out + RECORD_HEAD + payload, 0, padded(payload) - payload);
    return out;
}

/* A record that stands elsewhere, or in another log, does not fit. */
static uint64_t record_sum(const uint8_t *record, size_t payload, uint64_t epoch, uint64_t at)
{
    return npk__sum(record, RECORD_HEAD + padded(payload), epoch * UINT64_C(0x9E3779B97F4A7C15) ^ at);
}

static void record_seal(uint8_t *out, size_t payload, uint64_t epoch, uint64_t at, size_t *bytes)
{
    put64(out + RECORD_HEAD + padded(payload), record_sum(out, payload, epoch, at));
    *bytes = RECORD_HEAD + padded(payload) + RECORD_TAIL;
}

/* Payload sizes of a set of rows in both forms. */
struct sizes {
    uint64_t rows, as_ranges, as_rows, last;
};

static void size_range(struct sizes *s, uint64_t start, uint64_t stop)
{
    uint64_t gap = start - s->last, length = stop - start;
    s->as_ranges += varint_bytes(gap) + varint_bytes(length - 1);
    s->as_rows += varint_bytes(gap) + (length - 1);
    s->rows += length;
    s->last = stop;
}

static uint8_t *put_range(uint8_t *to, enum form form, uint64_t *last, uint64_t start, uint64_t stop)
{
    to = put_varint(to, start - *last);
    *last = stop;
    if (form == FORM_RANGES)
        return put_varint(to, stop - start - 1);
    memset(to, 0, (size_t)(stop - start - 1)); /* each next row follows at once */
    return to + (stop - start - 1);
}

int npk__dellog_record_make(npk_delrec kind, const npk_range *ranges, size_t count, uint64_t rows, uint64_t epoch,
                            uint64_t at, uint8_t **out, size_t *bytes)
{
    struct sizes s = {0};
    for (size_t i = 0; i < count; i++)
        size_range(&s, ranges[i].start, ranges[i].stop);
    enum form form = s.as_rows < s.as_ranges ? FORM_ROWS : FORM_RANGES;
    size_t payload = (size_t)(form == FORM_ROWS ? s.as_rows : s.as_ranges);
    uint8_t *record = record_begin(kind, form, payload, rows, s.rows), *to = record + RECORD_HEAD;
    if (!record)
        return -ENOMEM;
    uint64_t last = 0;
    for (size_t i = 0; i < count; i++)
        to = put_range(to, form, &last, ranges[i].start, ranges[i].stop);
    record_seal(record, payload, epoch, at, bytes);
    *out = record;
    return 0;
}

/* Deleted rows below `rows` from `from` on. */
static bool next_below(const npk_live *live, uint64_t rows, uint64_t from, uint64_t *start, uint64_t *stop)
{
    if (!npk__live_next_deleted(live, from, start, stop) || *start >= rows)
        return false;
    if (*stop > rows)
        *stop = rows;
    return true;
}

static void put_words(const npk_live *live, uint64_t rows, uint64_t first, uint64_t end, uint8_t *to)
{
    put64(to, first / 64);
    to += 8;
    for (uint64_t row = first, covered; row < end;) {
        const uint64_t *words = npk__live_words(live, row, &covered);
        for (uint64_t i = 0; i < covered / 64 && row < end; i++, row += 64, to += 8) {
            uint64_t deleted = ~words[i];
            if (rows - row < 64)
                deleted &= (UINT64_C(1) << (rows - row)) - 1;
            put64(to, deleted);
        }
    }
}

int npk__dellog_bitmap_make(const npk_live *live, uint64_t rows, uint64_t epoch, uint64_t at, uint8_t **out,
                            size_t *bytes)
{
    struct sizes s = {0};
    uint64_t start, stop = 0, first = 0;
    while (next_below(live, rows, stop, &start, &stop)) {
        if (s.rows == 0)
            first = start & ~UINT64_C(63);
        size_range(&s, start, stop);
    }
    uint64_t end = (s.last + 63) & ~UINT64_C(63), as_words = 8 + (end - first) / 8;
    enum form form = s.as_rows < s.as_ranges ? FORM_ROWS : FORM_RANGES;
    uint64_t payload = form == FORM_ROWS ? s.as_rows : s.as_ranges;
    if (as_words < payload) {
        form = FORM_WORDS;
        payload = as_words;
    }
    uint8_t *record = record_begin(NPK_DELREC_BITMAP, form, (size_t)payload, rows, s.rows);
    if (!record)
        return -ENOMEM;
    if (form == FORM_WORDS) {
        put_words(live, rows, first, end, record + RECORD_HEAD);
    } else {
        uint8_t *to = record + RECORD_HEAD;
        uint64_t last = stop = 0;
        while (next_below(live, rows, stop, &start, &stop))
            to = put_range(to, form, &last, start, stop);
    }
    record_seal(record, (size_t)payload, epoch, at, bytes);
    *out = record;
    return 0;
}

/* ---- reading records ------------------------------------------------------------------------------------------- */

struct record {
    npk_delrec kind;
    enum form form;
    uint64_t rows, items;
    const uint8_t *payload;
    size_t payload_bytes, bytes;
};

/* The record at bytes[0..n), which stands at `at`; false: none that fits. */
static bool record_parse(const uint8_t *bytes, size_t n, uint64_t epoch, uint64_t at, struct record *out)
{
    if (n < RECORD_HEAD + RECORD_TAIL || get32(bytes) != RECORD_MAGIC)
        return false;
    uint64_t payload = get64(bytes + 8);
    if (payload > n - RECORD_HEAD - RECORD_TAIL || padded((size_t)payload) > n - RECORD_HEAD - RECORD_TAIL)
        return false;
    size_t whole = RECORD_HEAD + padded((size_t)payload);
    if (get64(bytes + whole) != record_sum(bytes, (size_t)payload, epoch, at))
        return false;
    *out = (struct record){.kind = (npk_delrec)bytes[4],
                           .form = (enum form)bytes[5],
                           .rows = get64(bytes + 16),
                           .items = get64(bytes + 24),
                           .payload = bytes + RECORD_HEAD,
                           .payload_bytes = (size_t)payload,
                           .bytes = whole + RECORD_TAIL};
    return out->kind >= NPK_DELREC_DROP && out->kind <= NPK_DELREC_BITMAP && out->form >= FORM_RANGES &&
           out->form <= FORM_WORDS && out->rows <= NPK__LIVE_ROWS && (bytes[6] | bytes[7]) == 0;
}

typedef int range_visit(void *ctx, uint64_t start, uint64_t stop);

static int each_listed(const struct record *r, range_visit *visit, void *ctx)
{
    const uint8_t *at = r->payload, *end = at + r->payload_bytes;
    uint64_t row = 0, items = 0;
    while (at < end) {
        uint64_t gap, more = 0;
        at = get_varint(at, end, &gap);
        if (at && r->form == FORM_RANGES)
            at = get_varint(at, end, &more);
        if (!at || gap > r->rows - row || more >= r->rows - row - gap)
            return -EINVAL;
        row += gap;
        int err = visit(ctx, row, row + more + 1);
        if (err)
            return err;
        row += more + 1;
        items += more + 1;
    }
    return items == r->items ? 0 : -EINVAL;
}

static int each_in_words(const struct record *r, range_visit *visit, void *ctx)
{
    if (r->payload_bytes < 8 || r->payload_bytes % 8 != 0)
        return -EINVAL;
    uint64_t row = get64(r->payload), items = 0;
    if (row > NPK__LIVE_ROWS / 64)
        return -EINVAL;
    row *= 64;
    for (size_t i = 8; i < r->payload_bytes; i += 8, row += 64) {
        uint64_t word = get64(r->payload + i);
        while (word) {
            unsigned from = (unsigned)__builtin_ctzll(word);
            uint64_t rest = ~(word >> from);
            unsigned length = rest ? (unsigned)__builtin_ctzll(rest) : 64;
            if (length > 64 - from)
                length = 64 - from;
            if (row + from + length > r->rows)
                return -EINVAL;
            int err = visit(ctx, row + from, row + from + length);
            if (err)
                return err;
            items += length;
            word &= from + length == 64 ? 0 : UINT64_MAX << (from + length);
        }
    }
    return items == r->items ? 0 : -EINVAL;
}

static int each_range(const struct record *r, range_visit *visit, void *ctx)
{
    return r->form == FORM_WORDS ? each_in_words(r, visit, ctx) : each_listed(r, visit, ctx);
}

static int nothing(void *ctx, uint64_t start, uint64_t stop)
{
    (void)ctx;
    (void)start;
    (void)stop;
    return 0;
}

static int delete_range(void *ctx, uint64_t start, uint64_t stop)
{
    return npk__live_mark(ctx, start, stop - start, true, NULL);
}

static int revive_range(void *ctx, uint64_t start, uint64_t stop)
{
    return npk__live_mark(ctx, start, stop - start, false, NULL);
}

/* 1: the record means nothing; the bitmap is as it was. */
static int record_apply(const struct record *r, npk_live *live)
{
    if (each_range(r, nothing, NULL) != 0) /* the sum fits, so nobody but a forger comes here */
        return 1;
    switch (r->kind) {
    case NPK_DELREC_DROP:
        return each_range(r, delete_range, live);
    case NPK_DELREC_RESTORE:
        return each_range(r, revive_range, live);
    case NPK_DELREC_CUT:
        return npk__live_cut(live, r->rows);
    default:
        return npk__live_cut(live, 0) ? -ENOMEM : each_range(r, delete_range, live);
    }
}

int npk__dellog_replay_bytes(const uint8_t *bytes, size_t n, uint64_t epoch, npk_dellog_replay *r)
{
    struct record record;
    size_t at = 0;
    while (record_parse(bytes + at, n - at, epoch, r->end, &record)) {
        int err = record_apply(&record, r->live);
        if (err)
            return err < 0 ? err : 0;
        at += record.bytes;
        r->end += record.bytes;
        r->changes += record.kind != NPK_DELREC_BITMAP;
    }
    return 0;
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

void npk__dellog_name(const char *stem, uint64_t epoch, char out[NPK__DELLOG_NAME])
{
    snprintf(out, NPK__DELLOG_NAME, "%.220s.%" PRIu64 ".del", stem, epoch);
}

static int read_head(int fd, const char *name, uint64_t epoch, npk_dellog_head *head)
{
    uint8_t bytes[NPK__DELLOG_HEADER];
    ssize_t n = npk__pread_full(fd, bytes, sizeof(bytes), 0);
    if (n < 0)
        return npk__fail_errno((int)n, name);
    int err = npk__dellog_header_parse(bytes, (size_t)n, head);
    if (!err && head->epoch != epoch)
        err = -EINVAL;
    if (err == -ENOTSUP)
        return npk__fail(err, "\"%s\": a deletion log of a version that this program does not know; a newer one may",
                         name);
    if (err)
        return npk__fail(err,
                         "\"%s\": damaged, not the deletion log that it should be; npk check --set-aside shows all "
                         "rows, deleted ones among them",
                         name);
    return 0;
}

static int read_records(int fd, const char *name, uint64_t epoch, uint64_t bytes, npk_dellog_replay *r)
{
    uint8_t *buffer = malloc((size_t)bytes + 1);
    if (!buffer)
        return npk__fail(-ENOMEM, "out of memory");
    ssize_t n = npk__pread_full(fd, buffer, (size_t)bytes, r->end);
    int err = n < 0 ? (int)n : npk__dellog_replay_bytes(buffer, (size_t)n, epoch, r);
    free(buffer);
    return err ? npk__fail_errno(err, name) : 0;
}

int npk__dellog_read(int fd, const char *name, uint64_t epoch, npk_dellog_replay *r, uint64_t *size)
{
    npk_dellog_head head = {0};
    struct stat st;
    bool first = r->end == NPK__DELLOG_HEADER;
    int err = first ? read_head(fd, name, epoch, &head) : 0;
    if (err)
        return err;
    err = npk__fstat(fd, &st);
    if (err)
        return npk__fail_errno(err, name);
    if ((uint64_t)st.st_size > r->end)
        err = read_records(fd, name, epoch, (uint64_t)st.st_size - r->end, r);
    *size = (uint64_t)st.st_size;
    if (err || r->end >= *size)
        return err ? err
                   : (r->end < head.synced
                          ? npk__fail(-EIO, "\"%s\": damaged, shorter than what was synced of it", name)
                          : 0);
    if (!first)
        err = read_head(fd, name, epoch, &head);
    if (!err && r->end < head.synced)
        err =
            npk__fail(-EIO, "\"%s\": damaged at byte %" PRIu64 " of %" PRIu64 " that were synced; npk check tells more",
                      name, r->end, head.synced);
    return err;
}

int npk__dellog_append(int fd, uint64_t size, const npk_dellog_replay *r, const uint8_t *record, size_t bytes)
{
    /* An acknowledged record behind a torn one would be lost with it. */
    int err = size > r->end ? npk__ftruncate(fd, r->end) : 0;
    if (!err)
        err = npk__pwrite_full(fd, record, bytes, r->end);
    if (err)
        (void)npk__ftruncate(fd, r->end); /* what remains of it does not fit, and is cut off by the next one */
    return err;
}

int npk__dellog_sync(int fd, uint64_t end)
{
    uint8_t bytes[NPK__DELLOG_HEADER], slot[16];
    int err = npk__fdatasync(fd);
    if (err)
        return err;
    ssize_t n = npk__pread_full(fd, bytes, sizeof(bytes), 0);
    if (n != (ssize_t)sizeof(bytes))
        return n < 0 ? (int)n : -EIO;
    uint64_t a = get64(bytes + SYNC_AT), b = get64(bytes + SYNC_AT + 16), epoch = get64(bytes + 16);
    if (a == end || b == end)
        return 0;
    sync_slot_make(end, epoch, slot);
    return npk__pwrite_full(fd, slot, sizeof(slot), SYNC_AT + (a <= b ? 0 : 16));
}

static int fill(int fd, uint64_t epoch, uint64_t row_bytes, const npk_live *live, uint64_t rows, uint64_t *end)
{
    uint8_t *record = NULL;
    size_t bytes = 0;
    int err = 0;
    if (live && npk__live_rank(live, rows) < rows)
        err = npk__dellog_bitmap_make(live, rows, epoch, NPK__DELLOG_HEADER, &record, &bytes);
    uint8_t *whole = err ? NULL : malloc(NPK__DELLOG_HEADER + bytes);
    if (!whole) {
        free(record);
        return -ENOMEM;
    }
    npk_dellog_head h = {.epoch = epoch, .row_bytes = row_bytes, .synced = NPK__DELLOG_HEADER + bytes};
    npk__dellog_header_make(&h, whole);
    if (record)
        memcpy(whole + NPK__DELLOG_HEADER, record, bytes);
    free(record);
    err = npk__pwrite_full(fd, whole, NPK__DELLOG_HEADER + bytes, 0);
    free(whole);
    *end = h.synced;
    return err ? err : npk__fsync(fd);
}

int npk__dellog_create(int side_fd, const char *name, uint64_t epoch, uint64_t row_bytes, const npk_live *live,
                       uint64_t rows, npk_dellog_replay *r)
{
    struct stat dir;
    uint64_t end = 0;
    int err = npk__fstat(side_fd, &dir);
    int fd = err ? err
                 : npk__openat(side_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
                               (dir.st_mode & 0666) | 0600);
    if (fd < 0)
        return npk__fail_errno(fd, name);
    err = fill(fd, epoch, row_bytes, live, rows, &end);
    npk__close(&fd);
    if (err) {
        (void)npk__unlinkat(side_fd, name, 0);
        return npk__fail_errno(err, name);
    }
    if (r)
        *r = (npk_dellog_replay){.end = end};
    return 0;
}
