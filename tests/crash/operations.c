/* SPDX-License-Identifier: Apache-2.0 */
/* The operations that crash.c stops. Rows are four float32, all of the value `generation * 1000 + row`. */
#include "crash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io.h"
#include "place.h"

#define ROWS   2000u
#define FLOATS 4u

static char why[256];

static void fill(float *rows, uint64_t first, uint64_t count, unsigned generation)
{
    for (uint64_t i = 0; i < count * FLOATS; i++)
        rows[i] = (float)(generation * 1000000u + (unsigned)(first + i / FLOATS));
}

static void make(npk_store *s, const char *name, uint64_t rows)
{
    static float data[ROWS * FLOATS];
    const uint64_t shape[2] = {rows, FLOATS};
    const npk_array_in in = {.name = name, .dtype = "float32", .shape = shape, .ndim = 2, .data = data};
    fill(data, 0, rows, 0);
    NEED(npk_save(s, &in, 1) == 0 && npk_sync(s, NULL) == 0);
}

/* The array's rows, or NULL and why. free() them. */
static float *load(npk_store *s, const char *name, uint64_t *rows)
{
    npk_array *a = NULL;
    float *data = NULL;
    if (npk_array_open(s, name, &a) != 0) {
        snprintf(why, sizeof(why), "%s", npk_error());
        return NULL;
    }
    *rows = npk_array_info(a)->rows;
    data = malloc(*rows * FLOATS * sizeof(float) + 1);
    NEED(data != NULL);
    if (npk_array_info(a)->header.row_bytes != FLOATS * sizeof(float) || npk_read_all(a, data) != 0) {
        snprintf(why, sizeof(why), "%s: other rows than it had", name);
        free(data);
        data = NULL;
    }
    npk_array_close(&a);
    return data;
}

/* The generation that the row bears all through, or -1. */
static int generation_of(const float *data, uint64_t row)
{
    float one[FLOATS];
    for (unsigned g = 0; g < 4; g++) {
        fill(one, row, 1, g);
        if (memcmp(one, data + row * FLOATS, sizeof(one)) == 0)
            return (int)g;
    }
    return -1;
}

/* ---- replace --------------------------------------------------------------------------------------------------- */

#define PICKED 300u

static int64_t picked(unsigned i)
{
    return (int64_t)(i * 7 % ROWS) - (i % 2 ? (int64_t)ROWS : 0);
}

static void setup_one(npk_store *s)
{
    make(s, "x", ROWS);
}

static int run_replace_rows(npk_store *s, crash_ack *ack)
{
    static float rows[PICKED * FLOATS];
    int64_t indices[PICKED];
    for (unsigned g = 1; g <= 2; g++) {
        for (unsigned i = 0; i < PICKED; i++) {
            indices[i] = picked(i);
            fill(rows + i * FLOATS, (uint64_t)(indices[i] < 0 ? indices[i] + ROWS : indices[i]), 1, g);
        }
        int err = npk_replace_rows(s, "x", indices, PICKED, rows);
        if (err)
            return err;
        ack();
    }
    return 0;
}

/* All rows of the choice bear one generation, acked or the next; the others none. */
static const char *check_choice(npk_store *s, unsigned acked, bool power, bool (*is_chosen)(uint64_t row))
{
    uint64_t rows;
    float *data = load(s, "x", &rows);
    int seen = -1;
    *why = '\0';
    if (!data || power)
        return data ? NULL : why;
    if (rows != ROWS)
        snprintf(why, sizeof(why), "%lu rows", (unsigned long)rows);
    for (uint64_t i = 0; i < rows && !*why; i++) {
        int g = generation_of(data, i);
        if (!is_chosen(i)) {
            if (g != 0)
                snprintf(why, sizeof(why), "row %lu was changed", (unsigned long)i);
        } else if (g < 0 || (seen >= 0 && g != seen) || (unsigned)g < acked || (unsigned)g > acked + 1) {
            snprintf(why, sizeof(why), "row %lu is of generation %d, others of %d", (unsigned long)i, g, seen);
        } else {
            seen = g;
        }
    }
    free(data);
    return *why ? why : NULL;
}

static bool is_picked(uint64_t row)
{
    for (unsigned i = 0; i < PICKED; i++)
        if ((uint64_t)(picked(i) < 0 ? picked(i) + ROWS : picked(i)) == row)
            return true;
    return false;
}

static const char *check_replace_rows(npk_store *s, unsigned acked, bool power)
{
    return check_choice(s, acked, power, is_picked);
}

static bool is_in_range(uint64_t row)
{
    return row >= 100 && row < 1700;
}

static int run_replace_range(npk_store *s, crash_ack *ack)
{
    static float rows[1600 * FLOATS];
    for (unsigned g = 1; g <= 2; g++) {
        fill(rows, 100, 1600, g);
        int err = npk_replace_range(s, "x", 100, 1600, rows);
        if (err)
            return err;
        ack();
    }
    return 0;
}

static const char *check_replace_range(npk_store *s, unsigned acked, bool power)
{
    return check_choice(s, acked, power, is_in_range);
}

/* ---- append to several arrays ---------------------------------------------------------------------------------- */

#define MORE 300u

static void setup_three(npk_store *s)
{
    make(s, "x", 9);
    make(s, "y", 950);
    make(s, "group/z", 0);
}

static const char *const three[3] = {"x", "y", "group/z"};
static const uint64_t three_rows[3] = {9, 950, 0};

static int run_append_many(npk_store *s, crash_ack *ack)
{
    static float rows[3][MORE * FLOATS];
    for (unsigned g = 0; g < 2; g++) {
        npk_rows_in in[3];
        for (unsigned i = 0; i < 3; i++) {
            fill(rows[i], three_rows[i] + g * MORE, MORE, 0);
            in[i] = (npk_rows_in){three[i], rows[i], MORE};
        }
        int err = npk_append_many(s, in, 3);
        if (err)
            return err;
        ack();
    }
    return 0;
}

static const char *check_append_many(npk_store *s, unsigned acked, bool power)
{
    uint64_t steps = 0;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t rows;
        float *data = load(s, three[i], &rows);
        if (!data)
            return why;
        *why = '\0';
        uint64_t more = rows - three_rows[i];
        if (!power && (rows < three_rows[i] || more % MORE != 0 || more / MORE < acked || more / MORE > acked + 1))
            snprintf(why, sizeof(why), "%s has %lu rows after %u steps", three[i], (unsigned long)rows, acked);
        else if (!power && i > 0 && more / MORE != steps)
            snprintf(why, sizeof(why), "%s has got the rows of %lu steps, %s of %lu", three[i],
                     (unsigned long)(more / MORE), three[0], (unsigned long)steps);
        for (uint64_t r = 0; r < rows && !*why; r++)
            if (generation_of(data, r) != 0)
                snprintf(why, sizeof(why), "%s: row %lu is another", three[i], (unsigned long)r);
        steps = more / MORE;
        free(data);
        if (*why)
            return why;
    }
    return NULL;
}

/* ---- batches --------------------------------------------------------------------------------------------------- */

/* After step g: the picked rows of x and all of z are of generation g, y has g * 40 rows more, n<g> exists, and gone is
 * gone. */
static void setup_batch(npk_store *s)
{
    make(s, "x", ROWS);
    make(s, "y", 990);
    make(s, "group/z", 500);
    make(s, "gone", 3);
}

static int change_in_batch(npk_batch *b, unsigned g)
{
    static float rows[ROWS * FLOATS];
    int64_t indices[PICKED];
    char name[32];
    const uint64_t shape[2] = {500, FLOATS};
    for (unsigned i = 0; i < PICKED; i++) {
        indices[i] = picked(i);
        fill(rows + i * FLOATS, (uint64_t)(indices[i] < 0 ? indices[i] + ROWS : indices[i]), 1, g);
    }
    int err = npk_batch_replace_rows(b, "x", indices, PICKED, rows);
    if (err)
        return err;
    fill(rows, 990 + (g - 1) * 40, 40, 0);
    err = npk_batch_append(b, "y", rows, 40, NULL);
    if (err)
        return err;
    fill(rows, 0, 500, g);
    snprintf(name, sizeof(name), "new/n%u", g);
    const npk_array_in in[2] = {{"group/z", "float32", shape, 2, rows}, {name, "float32", shape, 2, rows}};
    err = npk_batch_save(b, in, 2);
    return err || g > 1 ? err : npk_batch_remove(b, "gone");
}

static int run_batch(npk_store *s, crash_ack *ack)
{
    for (unsigned g = 1; g <= 2; g++) {
        npk_batch *b = NULL;
        int err = npk_batch_begin(s, NULL, 0, &b);
        if (!err)
            err = change_in_batch(b, g);
        if (!err)
            err = npk_batch_commit(&b);
        npk_batch_close(&b);
        if (err)
            return err;
        ack();
    }
    return 0;
}

static int exists(npk_store *s, const char *name)
{
    bool there = false;
    return npk_exists(s, name, &there) == 0 ? there : -1;
}

static const char *check_batch(npk_store *s, unsigned acked, bool power)
{
    uint64_t rows, y_rows;
    (void)power; /* a commit that returned is durable, and one that did not is all or nothing */
    float *z = load(s, "group/z", &rows);
    if (!z)
        return why;
    int g = rows == 500 ? generation_of(z, 0) : -1;
    for (uint64_t i = 0; i < rows; i++)
        g = generation_of(z, i) == g ? g : -1;
    free(z);
    if (g < (int)acked || g > (int)acked + 1) {
        snprintf(why, sizeof(why), "z is of generation %d after %u commits", g, acked);
        return why;
    }
    float *x = load(s, "x", &rows);
    if (!x)
        return why;
    *why = '\0';
    for (uint64_t i = 0; i < ROWS && !*why; i++)
        if (generation_of(x, i) != (is_picked(i) ? g : 0))
            snprintf(why, sizeof(why), "row %lu of x is of generation %d, z of %d", (unsigned long)i,
                     generation_of(x, i), g);
    free(x);
    float *y = *why ? NULL : load(s, "y", &y_rows);
    if (!y)
        return why;
    if (y_rows != 990 + 40 * (uint64_t)g)
        snprintf(why, sizeof(why), "y has %lu rows, z is of generation %d", (unsigned long)y_rows, g);
    for (uint64_t i = 0; i < y_rows && !*why; i++)
        if (generation_of(y, i) != 0)
            snprintf(why, sizeof(why), "row %lu of y is another", (unsigned long)i);
    free(y);
    if (!*why && (exists(s, "gone") != (g == 0) || exists(s, "new/n1") != (g >= 1) || exists(s, "new/n2") != (g >= 2)))
        snprintf(why, sizeof(why), "names do not fit generation %d", g);
    return *why ? why : NULL;
}

/* ---- what is synced -------------------------------------------------------------------------------------------- */

/* Step g appends 50 rows, replaces row 3 by generation g, saves z anew, and syncs. */
static int run_synced(npk_store *s, crash_ack *ack)
{
    static float rows[500 * FLOATS];
    const uint64_t shape[2] = {500, FLOATS};
    for (unsigned g = 1; g <= 3; g++) {
        fill(rows, ROWS + (g - 1) * 50, 50, 0);
        int err = npk_append(s, "x", rows, 50, NULL);
        if (!err) {
            fill(rows, 3, 1, g);
            err = npk_replace_range(s, "x", 3, 1, rows);
        }
        fill(rows, 0, 500, g);
        const npk_array_in in = {"z", "float32", shape, 2, rows};
        if (!err)
            err = npk_save(s, &in, 1);
        if (!err)
            err = npk_sync(s, NULL);
        if (err)
            return err;
        ack();
    }
    return 0;
}

static void setup_synced(npk_store *s)
{
    make(s, "x", ROWS);
    make(s, "z", 500);
}

static const char *check_synced(npk_store *s, unsigned acked, bool power)
{
    uint64_t rows;
    (void)power;
    float *z = load(s, "z", &rows);
    if (!z)
        return why;
    int g = rows == 500 ? generation_of(z, 0) : -1;
    for (uint64_t i = 0; i < rows; i++)
        g = generation_of(z, i) == g ? g : -1;
    free(z);
    float *x = load(s, "x", &rows);
    if (!x)
        return why;
    *why = '\0';
    if (g < (int)acked || g > (int)acked + 1)
        snprintf(why, sizeof(why), "z is of generation %d after %u steps", g, acked);
    else if (rows < ROWS + acked * 50)
        snprintf(why, sizeof(why), "x has %lu rows after %u steps", (unsigned long)rows, acked);
    else if (generation_of(x, 3) < (int)acked)
        snprintf(why, sizeof(why), "row 3 of x is of generation %d after %u steps", generation_of(x, 3), acked);
    for (uint64_t i = 0; i < ROWS + acked * 50 && !*why; i++)
        if (i != 3 && generation_of(x, i) != 0)
            snprintf(why, sizeof(why), "row %lu of x is another", (unsigned long)i);
    free(x);
    return *why ? why : NULL;
}

/* ---- cast ------------------------------------------------------------------------------------------------------ */

/* Numbers that every one of the types below holds. Every third row is deleted, the rows shown as 5 to 8 have a name. */
static const char *const cast_types[] = {"float32", "int16", "float64"};

static void setup_cast(npk_store *s)
{
    static float data[ROWS * FLOATS];
    const uint64_t shape[2] = {ROWS, FLOATS};
    const npk_array_in in = {"x", "float32", shape, 2, data};
    npk_rows third = {0};
    for (unsigned i = 0; i < ROWS * FLOATS; i++)
        data[i] = (float)i - 4000;
    NEED(npk_save(s, &in, 1) == 0 && npk_rows_parse("::3", 3, ROWS, &third) == 0);
    NEED(npk_drop_rows(s, "x", &third, NPK_ANY_GENERATION, NULL) == 0 && npk_name_set(s, "x", "some", 5, 9) == 0);
    NEED(npk_sync(s, NULL) == 0);
    npk_rows_clear(&third);
}

static int run_cast(npk_store *s, crash_ack *ack)
{
    for (unsigned i = 1; i < 3; i++) {
        int err = npk_cast(s, "x", cast_types[i], 0, NULL, NULL);
        if (err)
            return err;
        ack();
    }
    return 0;
}

static int see_name(void *ctx, const char *name, uint64_t start, uint64_t stop)
{
    *(bool *)ctx = strcmp(name, "some") == 0 && start == 5 && stop == 9;
    return 0;
}

static const char *check_cast(npk_store *s, unsigned acked, bool power)
{
    npk_array *a = NULL;
    bool named = false;
    (void)power; /* a cast that returned is durable */
    if (npk_array_open(s, "x", &a) != 0) {
        snprintf(why, sizeof(why), "%s", npk_error());
        return why;
    }
    const npk_info *info = npk_array_info(a);
    const char *dtype = info->header.dtype.name;
    uint64_t rows = info->rows;
    double *row = malloc(info->header.row_bytes + 1);
    NEED(row != NULL);
    *why = '\0';
    if (rows != ROWS - (ROWS + 2) / 3)
        snprintf(why, sizeof(why), "%lu rows", (unsigned long)rows);
    else if (strcmp(dtype, cast_types[acked]) != 0 && (acked == 2 || strcmp(dtype, cast_types[acked + 1]) != 0))
        snprintf(why, sizeof(why), "%s after %u casts", dtype, acked);
    for (uint64_t i = 0; i < rows && !*why; i++) {
        double want = (double)((i / 2 * 3 + 1 + i % 2) * FLOATS + 3) - 4000; /* of the row's last number */
        NEED(npk_read_range(a, i, 1, row) == 0);
        double is = *dtype == 'i' ? ((int16_t *)row)[3] : strcmp(dtype, "float64") == 0 ? row[3] : (double)((float *)row)[3];
        if (is != want)
            snprintf(why, sizeof(why), "row %lu of %s ends with %g, not %g", (unsigned long)i, dtype, is, want);
    }
    free(row);
    npk_array_close(&a);
    if (!*why && (npk_names(s, "x", see_name, &named) != 0 || !named))
        snprintf(why, sizeof(why), "the name of rows is gone");
    return *why ? why : NULL;
}

/* ---- clone ----------------------------------------------------------------------------------------------------- */

/* y1 and y2 are whole copies of the shown rows of x. */
static int run_clone(npk_store *s, crash_ack *ack)
{
    static const char *const names[] = {"y1", "group/y2"};
    for (unsigned i = 0; i < 2; i++) {
        int err = npk_clone(s, "x", names[i]);
        if (!err)
            err = npk_sync(s, names[i]);
        if (err)
            return err;
        ack();
    }
    return 0;
}

static const char *check_clone(npk_store *s, unsigned acked, bool power)
{
    (void)power; /* one that was not synced is whole or absent */
    static const char *const names[] = {"x", "y1", "group/y2"};
    for (unsigned i = 0; i < 3; i++) {
        uint64_t rows;
        if (i > 0 && exists(s, names[i]) != 1) {
            snprintf(why, sizeof(why), "%s is not there after %u steps", names[i], acked);
            if (i <= acked)
                return why;
            continue;
        }
        float *data = load(s, names[i], &rows);
        if (!data)
            return why;
        *why = '\0';
        if (rows != ROWS - (ROWS + 2) / 3)
            snprintf(why, sizeof(why), "%s has %lu rows", names[i], (unsigned long)rows);
        for (uint64_t r = 0; r < rows && !*why; r++)
            if (data[r * FLOATS + 3] != (float)((r / 2 * 3 + 1 + r % 2) * FLOATS + 3) - 4000)
                snprintf(why, sizeof(why), "%s: row %lu is another", names[i], (unsigned long)r);
        free(data);
        if (*why)
            return why;
    }
    return NULL;
}

/* ---- a save through a descriptor ------------------------------------------------------------------------------- */

/* The bytes of the array with the header of the one that it replaces, in three writes. */
static int write_save(const npk_save_file *f, unsigned g, uint64_t rows)
{
    static uint8_t file[128 + ROWS * FLOATS * sizeof(float)];
    const uint64_t shape[2] = {ROWS, FLOATS};
    size_t header = 0;
    NEED(npk_header_format("'<f4'", false, shape, 2, file, sizeof(file), &header) == 0 && header == 128);
    fill((float *)(void *)(file + header), 0, ROWS, g);
    size_t bytes = header + rows * FLOATS * sizeof(float), half = bytes / 2;
    int fd = npk_save_file_fd(f), err = npk__pwrite_full(fd, file, header, 0);
    if (!err)
        err = npk__pwrite_full(fd, file + header, half - header, header);
    return err ? err : npk__pwrite_full(fd, file + half, bytes - half, half);
}

/* Steps 1 and 2 save over what is there, the third one ends with half of the rows and is set aside, the fourth is as the
 * first. */
static int run_save_file(npk_store *s, crash_ack *ack)
{
    for (unsigned g = 1; g <= 4; g++) {
        npk_save_file *f = NULL;
        char aside[256];
        int fd = npk_open_beneath(s, "x.npy", 0 /* O_RDONLY */, 0);
        int err = fd < 0 ? fd : npk_save_file_begin(s, "x.npy", fd, &f);
        if (!err)
            err = write_save(f, g == 4 ? 3 : g, g == 3 ? ROWS / 2 : ROWS);
        if (fd >= 0)
            (void)npk__close(&fd);
        if (err && f)
            (void)npk_save_file_set_aside(&f, aside);
        if (err)
            return err;
        if (npk_save_file_state(f) == NPK_SAVE_WHOLE) {
            err = npk_save_file_publish(s, &f, "x.npy", NPK_SAVE_DURABLE);
            if (err)
                (void)npk_save_file_set_aside(&f, aside);
        } else {
            err = npk_save_file_set_aside(&f, aside);
        }
        if (err)
            return err;
        ack();
    }
    return 0;
}

static void setup_save_file(npk_store *s)
{
    npk_rows rows = {0};
    make(s, "x", ROWS);
    NEED(npk_rows_parse("0:100", 5, ROWS, &rows) == 0);
    NEED(npk_drop_rows(s, "x", &rows, NPK_ANY_GENERATION, NULL) == 0 && npk_sync(s, NULL) == 0);
    npk_rows_clear(&rows);
}

static const char *check_save_file(npk_store *s, unsigned acked, bool power)
{
    static const unsigned after[] = {0, 1, 2, 2, 3, 3};
    uint64_t rows;
    (void)power;
    float *x = load(s, "x", &rows);
    if (!x)
        return why;
    *why = '\0';
    if (rows != ROWS && rows != ROWS - 100) {
        snprintf(why, sizeof(why), "%lu rows", (unsigned long)rows);
    } else {
        int g = generation_of(x, ROWS - 101) < 0 ? generation_of(x, 0) : generation_of(x, ROWS - 101);
        uint64_t first = rows == ROWS ? 0 : 100;
        if (rows != ROWS) /* the dropped rows of the first array: its row i is row i + 100 */
            g = 0;
        for (uint64_t i = 0; i < rows && !*why; i++) {
            float one[FLOATS];
            fill(one, i + first, 1, (unsigned)g);
            if (memcmp(one, x + i * FLOATS, sizeof(one)) != 0)
                snprintf(why, sizeof(why), "row %lu is not of generation %d", (unsigned long)i, g);
        }
        if (!*why && (g < (int)after[acked] || g > (int)after[acked + 1]))
            snprintf(why, sizeof(why), "of generation %d after %u steps", g, acked);
    }
    free(x);
    return *why ? why : NULL;
}

const crash_op crash_ops[] = {
    {"save_file", setup_save_file, run_save_file, check_save_file},
    {"clone", setup_cast, run_clone, check_clone},
    {"cast", setup_cast, run_cast, check_cast},
    {"synced", setup_synced, run_synced, check_synced},
    {"batch", setup_batch, run_batch, check_batch},
    {"replace_rows", setup_one, run_replace_rows, check_replace_rows},
    {"replace_range", setup_one, run_replace_range, check_replace_range},
    {"append_many", setup_three, run_append_many, check_append_many},
    {NULL, NULL, NULL, NULL},
};
