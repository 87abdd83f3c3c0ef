/* SPDX-License-Identifier: Apache-2.0 */
/* Deleted rows, everywhere that rows are: long random sequences against an array of numbers in memory. */
#include <inttypes.h>
#include <stdlib.h>
#include <sys/xattr.h>

#include "known.h"
#include "npk.h"
#include "place.h"
#include "unit.h"

#define MOST    6000u
#define COLUMNS 5u /* 20 bytes a row: no power of two */
#define ROW     (COLUMNS * 4u)

static uint64_t seed = 0x9E3779B97F4A7C15u;

static uint64_t random_below(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return n ? seed % n : 0;
}

/* The model: every physical row's number and whether it is deleted. */
static struct {
    uint32_t value[MOST];
    bool deleted[MOST];
    uint32_t rows, next;
} model;

/* Named ranges of physical rows. */
#define NAMES 6
static struct {
    bool there;
    uint32_t start, stop;
} names[NAMES];

static uint32_t shown[MOST], shown_at[MOST], shown_rows; /* the live rows, and where they are */

static void look_at_model(void)
{
    shown_rows = 0;
    for (uint32_t i = 0; i < model.rows; i++)
        if (!model.deleted[i]) {
            shown[shown_rows] = model.value[i];
            shown_at[shown_rows++] = i;
        }
}

static void fill_row(uint32_t *row, uint32_t value)
{
    for (uint32_t c = 0; c < COLUMNS; c++)
        row[c] = value * COLUMNS + c;
}

static bool is_row(const uint32_t *row, uint32_t value)
{
    for (uint32_t c = 0; c < COLUMNS; c++)
        if (row[c] != value * COLUMNS + c)
            return false;
    return true;
}

static uint32_t buffer[MOST * COLUMNS];

static void make(place *p, uint32_t rows)
{
    model.rows = rows;
    for (uint32_t i = 0; i < rows; i++) {
        model.value[i] = ++model.next;
        model.deleted[i] = false;
        fill_row(buffer + i * COLUMNS, model.value[i]);
    }
    uint64_t shape[2] = {rows, COLUMNS};
    npk_array_in in = {.name = "x", .dtype = "uint32", .shape = shape, .ndim = 2, .data = buffer};
    NEED(npk_save(p->store, &in, 1) == 0);
    look_at_model();
}

/* ---- what is read ---------------------------------------------------------------------------------------------- */

static uint64_t runs_wrong, runs_at;

static int visit_run(void *ctx, uint64_t first, uint64_t count, const void *rows)
{
    (void)ctx;
    runs_wrong += first != runs_at;
    for (uint64_t i = 0; i < count; i++)
        runs_wrong += !is_row((const uint32_t *)rows + i * COLUMNS, shown[first + i]);
    runs_at = first + count;
    return 0;
}

static int stop_visit(void *ctx, uint64_t first, uint64_t count, const void *rows)
{
    (void)ctx;
    (void)first;
    (void)count;
    (void)rows;
    return 77;
}

static uint64_t wrong_in_array(npk_array *a)
{
    const npk_info *info = npk_array_info(a);
    uint64_t wrong = 0, covered;
    wrong += info->rows != shown_rows || info->live != shown_rows || info->physical_rows != model.rows;
    wrong += info->deleted != model.rows - shown_rows || info->header.shape[0] != shown_rows;
    wrong += info->header.data_bytes != (uint64_t)shown_rows * ROW;
    if (wrong)
        return wrong;
    wrong += npk_read_all(a, buffer) != 0;
    for (uint32_t i = 0; i < shown_rows; i++)
        wrong += !is_row(buffer + i * COLUMNS, shown[i]);
    const void *map = NULL;
    uint64_t bytes = 0;
    wrong += npk_array_map(a, &map, &bytes) != 0 || bytes != (uint64_t)shown_rows * ROW;
    wrong += shown_rows && memcmp(map, buffer, bytes) != 0;
    for (unsigned n = 0; n < 5; n++) {
        uint64_t start = random_below(shown_rows + 1), count = random_below(shown_rows - start + 1);
        wrong += npk_read_range(a, start, count, buffer) != 0;
        for (uint64_t i = 0; i < count; i++)
            wrong += !is_row(buffer + i * COLUMNS, shown[start + i]);
        runs_at = start;
        wrong += npk_array_runs(a, start, count, random_below(50), visit_run, NULL) != 0;
        wrong += runs_wrong + (runs_at != start + count);
    }
    wrong += npk_array_runs(a, 0, shown_rows + 1, 0, visit_run, NULL) != -ERANGE;
    if (shown_rows)
        wrong += npk_array_runs(a, 0, shown_rows, 0, stop_visit, NULL) != 77;
    int64_t indices[2000];
    for (unsigned n = 0; n < 3 && shown_rows; n++) {
        size_t count = n == 0 ? 3 : 1 + (size_t)random_below(2000);
        for (size_t i = 0; i < count; i++)
            indices[i] = (int64_t)random_below(2 * (uint64_t)shown_rows) - (int64_t)shown_rows;
        wrong += npk_read_rows(a, indices, count, buffer) != 0;
        for (size_t i = 0; i < count; i++)
            wrong +=
                !is_row(buffer + i * COLUMNS, shown[indices[i] < 0 ? indices[i] + (int64_t)shown_rows : indices[i]]);
    }
    indices[0] = shown_rows;
    wrong += npk_read_rows(a, indices, 1, buffer) != -ERANGE;
    const uint64_t *words = npk_array_live_words(a, 0, &covered);
    wrong += (words == NULL) != (shown_rows == model.rows) || (words && covered != model.rows);
    for (uint32_t i = 0; words && i < (model.rows + 63) / 64 * 64; i++)
        wrong += (words[i / 64] >> i % 64 & 1) != (i < model.rows && !model.deleted[i]);
    for (uint32_t i = 0; i < shown_rows; i++)
        wrong += npk_array_physical(a, i) != shown_at[i] || npk_array_logical(a, shown_at[i]) != i;
    wrong += npk_array_physical(a, shown_rows) != UINT64_MAX || npk_array_logical(a, model.rows) != UINT64_MAX;
    return wrong;
}

/* The file as a program sees it, header and rows, read in pieces of any size. */
static uint64_t wrong_in_view(place *p, npk_view *v, int fd)
{
    static uint8_t file[MOST * ROW + 4096], piece[70000];
    uint64_t total = npk_view_bytes(v), wrong = 0;
    NEED(total <= sizeof(file));
    wrong += npk_view_read(v, fd, 0, file, sizeof(file)) != (ssize_t)total;
    wrong += npk_view_read(v, fd, total, piece, 10) != 0 || npk_view_read(v, fd, total + 99, piece, 10) != 0;
    npk_header h;
    if (npk_header_parse(file, total, &h, NULL, 0) != 0 || h.shape[0] != shown_rows ||
        total != h.data_offset + (uint64_t)shown_rows * ROW || npk_view_rows(v) != shown_rows)
        return wrong + 1;
    for (uint32_t i = 0; i < shown_rows; i++)
        wrong += !is_row((const uint32_t *)(file + h.data_offset) + i * COLUMNS, shown[i]);
    for (unsigned n = 0; n < 20; n++) {
        uint64_t at = random_below(total);
        size_t bytes = (size_t)random_below(n % 4 ? 300 : sizeof(piece));
        ssize_t got = npk_view_read(v, fd, at, piece, bytes);
        uint64_t want = bytes < total - at ? bytes : total - at;
        wrong += got != (ssize_t)want || memcmp(piece, file + at, want) != 0;
    }
    uint64_t bytes = 0, generation = 0;
    wrong += npk_view_shows(p->store, "x.npy", fd, &bytes, &generation) != 0 || bytes != total ||
             generation != npk_view_generation(v);
    return wrong;
}

struct deleted_walk {
    uint32_t at;
    uint64_t wrong;
};

static int visit_deleted(void *ctx, uint64_t start, uint64_t stop)
{
    struct deleted_walk *w = ctx;
    w->wrong += start >= stop || stop > model.rows || start < w->at;
    for (; w->at < start && !w->wrong; w->at++)
        w->wrong += model.deleted[w->at];
    for (; w->at < stop && !w->wrong; w->at++)
        w->wrong += !model.deleted[w->at];
    return 0;
}

static bool agrees(place *p)
{
    npk_array *a = NULL;
    npk_view *v = NULL;
    look_at_model();
    runs_wrong = 0;
    if (!CHECK_EQ(npk_array_open(p->store, "x", &a), 0))
        return false;
    bool fine = CHECK_EQ(wrong_in_array(a), 0);
    npk_array_close(&a);
    int fd = openat(p->dir, "x.npy", O_RDONLY | O_CLOEXEC);
    fine &= CHECK_EQ(npk_view_open(p->store, "x.npy", fd, &v), 0);
    fine &= CHECK_EQ(v != NULL, shown_rows < model.rows);
    if (v && fine)
        fine &= CHECK_EQ(wrong_in_view(p, v, fd), 0);
    npk_view_close(&v);
    close(fd);
    struct deleted_walk w = {0};
    fine &= CHECK_EQ(npk_deleted_ranges(p->store, "x", visit_deleted, &w), 0);
    for (; w.at < model.rows; w.at++)
        w.wrong += model.deleted[w.at];
    return fine && CHECK_EQ(w.wrong, 0);
}

/* ---- what is changed ------------------------------------------------------------------------------------------- */

static void drop_some(place *p)
{
    npk_run runs[40];
    npk_rows rows = {.runs = runs};
    uint64_t want = 0, dropped = 0;
    uint64_t most = random_below(3) ? 30 : 1 + shown_rows / 3;
    size_t n = 1 + (size_t)random_below(40);
    for (size_t i = 0; i < n && shown_rows; i++) {
        npk_run r = {.start = random_below(shown_rows), .count = 1, .step = 1};
        if (random_below(3) == 0) {
            r.step = (int64_t)random_below(9) - 4;
            if (r.step == 0)
                r.step = 1;
            uint64_t room = r.step > 0 ? (shown_rows - 1 - r.start) / (uint64_t)r.step : r.start / (uint64_t)-r.step;
            r.count = 1 + random_below(room < most ? room + 1 : most);
        }
        rows.runs[rows.run_count++] = r;
        rows.row_count += r.count;
        for (uint64_t j = 0, row = r.start; j < r.count; j++, row += (uint64_t)r.step) {
            want += !model.deleted[shown_at[row]];
            model.deleted[shown_at[row]] = true;
        }
    }
    CHECK_EQ(npk_drop_rows(p->store, "x", &rows, NPK_ANY_GENERATION, &dropped), 0);
    CHECK_EQ(dropped, want);
}

static void restore_some(place *p)
{
    npk_range ranges[10];
    uint64_t want = 0, restored = 0;
    size_t n = 1 + (size_t)random_below(10);
    bool all = random_below(8) == 0;
    for (size_t i = 0; i < n; i++) {
        ranges[i].start = all ? 0 : random_below(model.rows + 1);
        ranges[i].stop = all ? model.rows : ranges[i].start + random_below((model.rows - ranges[i].start) / 2 + 1);
        for (uint64_t row = ranges[i].start; row < ranges[i].stop; row++) {
            want += model.deleted[row];
            model.deleted[row] = false;
        }
    }
    CHECK_EQ(npk_restore_rows(p->store, "x", all ? NULL : ranges, n, NPK_ANY_GENERATION, &restored), 0);
    CHECK_EQ(restored, want);
}

static void append_some(place *p)
{
    uint64_t first = 0, count = 1 + random_below(200);
    if (model.rows + count > MOST)
        return;
    for (uint64_t i = 0; i < count; i++) {
        model.value[model.rows + i] = ++model.next;
        model.deleted[model.rows + i] = false;
        fill_row(buffer + i * COLUMNS, model.next);
    }
    CHECK_EQ(npk_append(p->store, "x", buffer, count, &first), 0);
    CHECK_EQ(first, shown_rows);
    model.rows += (uint32_t)count;
}

static void replace_some(place *p)
{
    int64_t indices[100];
    if (shown_rows == 0)
        return;
    if (random_below(2)) {
        uint64_t start = random_below(shown_rows), count = 1 + random_below(shown_rows - start);
        for (uint64_t i = 0; i < count; i++) {
            model.value[shown_at[start + i]] = ++model.next;
            fill_row(buffer + i * COLUMNS, model.next);
        }
        CHECK_EQ(npk_replace_range(p->store, "x", start, count, buffer), 0);
        return;
    }
    size_t count = 1 + (size_t)random_below(100);
    for (size_t i = 0; i < count; i++) {
        indices[i] = (int64_t)random_below(2 * (uint64_t)shown_rows) - (int64_t)shown_rows;
        fill_row(buffer + i * COLUMNS, ++model.next);
        model.value[shown_at[indices[i] < 0 ? indices[i] + (int64_t)shown_rows : indices[i]]] = model.next;
    }
    CHECK_EQ(npk_replace_rows(p->store, "x", indices, count, buffer), 0);
}

static void cut_model(uint32_t rows)
{
    for (unsigned i = 0; i < NAMES; i++) {
        if (names[i].stop > rows && names[i].start >= rows)
            names[i].there = false;
        names[i].stop = names[i].stop > rows ? rows : names[i].stop;
    }
    for (uint32_t i = rows; i < model.rows; i++)
        model.deleted[i] = false;
    model.rows = rows;
}

static void truncate_some(place *p)
{
    uint32_t keep = (uint32_t)random_below(shown_rows + 1);
    if (random_below(2)) {
        CHECK_EQ(npk_truncate(p->store, "x", keep), 0);
    } else {
        npk_view *v = NULL;
        int fd = openat(p->dir, "x.npy", O_RDONLY | O_CLOEXEC);
        CHECK_EQ(npk_view_open(p->store, "x.npy", fd, &v), 0);
        if (v)
            CHECK_EQ(npk_view_set_size(p->store, "x.npy", fd, v, npk_view_bytes(v) - (shown_rows - keep) * ROW), 0);
        else
            CHECK_EQ(npk_truncate(p->store, "x", keep), 0);
        npk_view_close(&v);
        close(fd);
    }
    if (keep < shown_rows)
        cut_model(shown_at[keep]);
}

static void write_through_view(place *p)
{
    npk_view *v = NULL;
    int fd = openat(p->dir, "x.npy", O_RDWR | O_CLOEXEC);
    CHECK_EQ(npk_view_open(p->store, "x.npy", fd, &v), 0);
    if (v && shown_rows) {
        uint64_t start = random_below(shown_rows), count = 1 + random_below(shown_rows - start);
        uint64_t offset = npk_view_bytes(v) - (shown_rows - start) * (uint64_t)ROW;
        for (uint64_t i = 0; i < count; i++) {
            model.value[shown_at[start + i]] = ++model.next;
            fill_row(buffer + i * COLUMNS, model.next);
        }
        CHECK_EQ(npk_view_write(v, fd, offset, buffer, count * ROW), count * ROW);
        /* A header that comes back from a mapping changes nothing, and rows behind the last one are not written. */
        CHECK_EQ(npk_view_write(v, fd, 0, "xxxxxxxxxxxxxxxx", 16), 16);
        CHECK_EQ(npk_view_write(v, fd, npk_view_bytes(v), "xxxx", 4), 0);
    }
    npk_view_close(&v);
    close(fd);
}

static void extend_some(place *p)
{
    uint32_t more = (uint32_t)random_below(50);
    if (model.rows + more > MOST)
        return;
    /* New rows are zeros, which the model's rows are not: write over them at once. */
    CHECK_EQ(npk_extend(p->store, "x", shown_rows + more), 0);
    for (uint32_t i = 0; i < more; i++) {
        model.value[model.rows + i] = ++model.next;
        model.deleted[model.rows + i] = false;
        fill_row(buffer + i * COLUMNS, model.next);
    }
    CHECK_EQ(npk_replace_range(p->store, "x", shown_rows, more, buffer), 0);
    model.rows += more;
}

static uint32_t shown_before(uint32_t physical)
{
    uint32_t n = 0;
    while (n < shown_rows && shown_at[n] < physical)
        n++;
    return n;
}

static void compact_all(place *p)
{
    for (unsigned i = 0; i < NAMES; i++) {
        names[i].start = shown_before(names[i].start);
        names[i].stop = shown_before(names[i].stop);
    }
    CHECK_EQ(npk_compact(p->store, "x", 0, NULL, NULL), 0);
    for (uint32_t i = 0; i < shown_rows; i++) {
        model.value[i] = shown[i];
        model.deleted[i] = false;
    }
    model.rows = shown_rows;
}

static int count_names(void *ctx, const char *name, uint64_t start, uint64_t stop)
{
    unsigned at = (unsigned)(name[0] - 'a'), *seen = ctx;
    bool fine = at < NAMES && names[at].there && name[1] == '\0' && start == shown_before(names[at].start) &&
                stop == shown_before(names[at].stop);
    *seen += fine ? 1 : 1000;
    return 0;
}

static bool names_agree(place *p)
{
    unsigned seen = 0, want = 0;
    for (unsigned i = 0; i < NAMES; i++)
        want += names[i].there;
    bool fine = CHECK_EQ(npk_names(p->store, "x", count_names, &seen), 0);
    return CHECK_EQ(seen, want) && fine;
}

static void name_some(place *p)
{
    unsigned at = (unsigned)random_below(NAMES);
    char name[2] = {(char)('a' + at), 0};
    if (random_below(3) == 0) {
        CHECK_EQ(npk_name_remove(p->store, "x", name), names[at].there ? 0 : -ENOENT);
        names[at].there = false;
        return;
    }
    if (random_below(3) == 0 && !names[at].there && model.rows + 20 <= MOST) {
        uint64_t first = 0, count = random_below(20);
        for (uint64_t i = 0; i < count; i++) {
            model.value[model.rows + i] = ++model.next;
            model.deleted[model.rows + i] = false;
            fill_row(buffer + i * COLUMNS, model.next);
        }
        CHECK_EQ(npk_append_named(p->store, "x", name, buffer, count, &first), 0);
        CHECK_EQ(first, shown_rows);
        names[at].there = true;
        names[at].start = model.rows;
        names[at].stop = model.rows += (uint32_t)count;
        CHECK_EQ(npk_append_named(p->store, "x", name, buffer, 1, NULL), -EEXIST);
        return;
    }
    uint64_t start = random_below(shown_rows + 1), stop = start + random_below(shown_rows - start + 1);
    CHECK_EQ(npk_name_set(p->store, "x", name, start, stop), 0);
    names[at].there = true;
    names[at].start = start < shown_rows ? shown_at[start] : model.rows;
    names[at].stop = stop > start ? shown_at[stop - 1] + 1 : names[at].start;
}

static void move_about(place *p)
{
    switch (random_below(4)) {
    case 0: /* by the engine, to another group and back */
        CHECK_EQ(npk_rename(p->store, "x", "group/y"), 0);
        CHECK_EQ(npk_rename(p->store, "group/y", "x"), 0);
        break;
    case 1: /* by somebody who knows nothing of it */
        CHECK_EQ(renameat(p->dir, "x.npy", p->dir, "z.npy"), 0);
        if (random_below(2))
            CHECK_EQ(npk_append(p->store, "z", NULL, 0, NULL), 0);
        CHECK_EQ(renameat(p->dir, "z.npy", p->dir, "x.npy"), 0);
        break;
    case 2:
        CHECK_EQ(npk_sync(p->store, "x"), 0);
        break;
    default: {
        int64_t shape[3] = {shown_rows, COLUMNS, 1};
        for (unsigned i = 0; i < NAMES; i++)
            if (names[i].there) {
                CHECK_EQ(npk_reshape(p->store, "x", shape, 3), -ENOTSUP);
                return;
            }
        if (shown_rows == 0)
            return;
        CHECK_EQ(npk_reshape(p->store, "x", shape, 3), 0);
        CHECK_EQ(npk_reshape(p->store, "x", shape, 2), 0);
        compact_all(p);
        break;
    }
    }
}

static void step(place *p)
{
    switch (random_below(16)) {
    case 12:
        compact_all(p);
        break;
    case 13:
    case 14:
        name_some(p);
        break;
    case 15:
        move_about(p);
        break;
    case 0:
        restore_some(p);
        break;
    case 1:
    case 2:
    case 3:
        append_some(p);
        break;
    case 4:
        replace_some(p);
        break;
    case 5:
        truncate_some(p);
        break;
    case 6:
        write_through_view(p);
        break;
    case 7:
        extend_some(p);
        break;
    case 8:
        npk__known_drop_all();
        break;
    case 9:
        npk_store_close(&p->store);
        NEED(npk_store_open(p->path, 0, &p->store) == 0);
        break;
    default:
        drop_some(p);
    }
}

static void test_random_steps(void)
{
    for (unsigned round = 0; round < 12; round++) {
        place p = place_begin();
        seed = UINT64_C(0x9E3779B97F4A7C15) * (round + 1);
        model.next = 0;
        memset(names, 0, sizeof(names));
        make(&p, 1 + (uint32_t)random_below(1500));
        for (unsigned i = 0; i < 120; i++) {
            unit_note("round %u step %u, %" PRIu32 " of %" PRIu32 " rows: %s", round, i, shown_rows, model.rows,
                      npk_error());
            step(&p);
            if (!agrees(&p) || !names_agree(&p))
                return;
        }
        place_end(&p);
    }
}

int main(void)
{
    RUN(test_random_steps);
    return UNIT_RESULT();
}
