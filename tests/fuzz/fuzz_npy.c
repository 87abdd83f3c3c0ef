/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the beginning of a .npy file: the parse never reads beyond them and, where it succeeds, tells the truth;
 * its digits can be rewritten, each state on the way is a header too, and a longer header says the same.
 */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "digits.h"
#include "dtype.h"
#include "npk.h"
#include "npy.h"

static uint64_t rows_from(const uint8_t *data, size_t size, size_t at)
{
    uint64_t rows = 0;
    for (size_t i = 0; i < 8; i++)
        rows = rows << 8 | data[(at + i) % size];
    /* Small and large numbers alike. */
    return rows >> (rows % 64);
}

/* What every good parse promises. */
static void check_parse(const uint8_t *data, size_t size, const npk_header *h)
{
    MUST(h->major >= 1 && h->major <= 3 && h->minor == 0);
    MUST(h->data_offset <= size && h->data_offset <= NPK_MAX_HEADER);
    MUST(h->ndim <= NPK_MAX_DIMS);
    MUST(h->data_bytes <= INT64_MAX - h->data_offset);
    MUST(h->descr_bytes > 0 && (uint64_t)h->descr_offset + h->descr_bytes < h->data_offset);
    MUST(strlen(h->dtype.name) > 0 && strlen(h->dtype.name) < sizeof(h->dtype.name));
    MUST(h->dtype.itemsize <= NPK__MAX_ITEM_BYTES);
    MUST(h->dtype.kind != NPK_KIND_OBJECT || h->dtype.itemsize == 0);
    MUST((h->ndim == 0) == (h->digits_width == 0));
    unsigned __int128 row = h->dtype.itemsize;
    for (uint32_t i = 1; i < h->ndim; i++)
        row *= h->shape[i];
    MUST(h->ndim == 0 || h->row_bytes == row);
    MUST(h->data_bytes == (h->ndim > 0 ? row * h->shape[0] : row));
    if (h->ndim > 0) {
        uint64_t number = 0;
        uint32_t i = h->digits_offset, end = i + h->digits_width;
        while (i < end && data[i] == ' ')
            i++;
        MUST(i < end);
        for (; i < end; i++) {
            MUST(data[i] >= '0' && data[i] <= '9');
            number = number * 10 + (uint64_t)(data[i] - '0');
        }
        MUST(number == h->shape[0]);
        MUST(data[h->digits_offset - 1] != ' ');
    }
}

static bool same_dtype(const npk_dtype *a, const npk_dtype *b)
{
    return a->kind == b->kind && a->big_endian == b->big_endian && a->native14 == b->native14 &&
           a->itemsize == b->itemsize && strcmp(a->name, b->name) == 0;
}

static void same_but_rows(const npk_header *a, const npk_header *b)
{
    MUST(a->ndim == b->ndim && a->fortran == b->fortran && a->row_bytes == b->row_bytes);
    MUST(memcmp(a->shape + 1, b->shape + 1, sizeof(a->shape) - sizeof(*a->shape)) == 0);
    MUST(same_dtype(&a->dtype, &b->dtype));
}

static void check_digits(const uint8_t *data, const npk_header *h, uint64_t rows)
{
    static npk__digits_plan_t plan;
    size_t bytes = h->data_offset;
    npk_header now;
    int err = npk__digits_plan(data, bytes, h, rows, &plan);
    if (err != 0) {
        MUST(err == -ENOSPC || err == -EOVERFLOW || (err == -EINVAL && h->ndim == 0));
        return;
    }
    uint8_t *copy = malloc(bytes);
    MUST(copy != NULL);
    memcpy(copy, data, bytes);
    for (uint32_t s = 0; s < plan.count; s++) {
        MUST((uint64_t)plan.steps[s].offset + plan.steps[s].bytes <= bytes && plan.steps[s].bytes > 0);
        memcpy(copy + plan.steps[s].offset, plan.steps[s].data, plan.steps[s].bytes);
        MUST(npk_header_parse(copy, bytes, &now, NULL, 0) == 0);
        MUST(now.shape[0] <= (rows > h->shape[0] ? rows : h->shape[0]) && now.data_offset == bytes);
        same_but_rows(&now, h);
    }
    if (plan.count > 0) {
        MUST(now.shape[0] == rows);
        MUST(now.digits_offset == plan.digits_offset && now.digits_width == plan.digits_width);
    }
    free(copy);
}

static void check_relayout(const uint8_t *data, const npk_header *h, uint64_t rows)
{
    size_t capacity = h->data_offset + 192, bytes;
    uint8_t *out = malloc(capacity);
    npk_header now;
    MUST(out != NULL);
    int err = npk__header_relayout(data, h->data_offset, h, rows, out, capacity, &bytes);
    if (err == 0) {
        MUST(npk_header_parse(out, bytes, &now, NULL, 0) == 0);
        MUST(now.shape[0] == rows && now.data_offset == bytes && bytes % 64 == 0);
        same_but_rows(&now, h);
        check_digits(out, &now, rows / 3);
    } else {
        MUST(err == -EOVERFLOW || err == -E2BIG || (err == -EINVAL && h->ndim == 0));
    }
    free(out);
}

/* The descr's text makes the same dtype in a header of ours, unless its letters mean something else in UTF-8. */
static void check_format(const uint8_t *data, const npk_header *h)
{
    size_t capacity = (size_t)h->descr_bytes + 2048, bytes;
    char *descr = malloc((size_t)h->descr_bytes + 1);
    uint8_t *out = malloc(capacity);
    npk_header now;
    bool ascii = true;
    MUST(descr != NULL && out != NULL);
    memcpy(descr, data + h->descr_offset, h->descr_bytes);
    descr[h->descr_bytes] = '\0';
    for (uint32_t i = 0; i < h->descr_bytes; i++)
        ascii = ascii && (unsigned char)descr[i] < 0x80;
    int err = npk_header_format(descr, h->fortran, h->shape, h->ndim, out, capacity, &bytes);
    if (err == 0) {
        MUST(npk_header_parse(out, bytes, &now, NULL, 0) == 0);
        MUST(now.ndim == 0 || now.shape[0] == h->shape[0]);
        same_but_rows(&now, h);
    } else if (ascii) {
        /* Its own header is longer by up to 64 bytes, which may be what is too much. */
        MUST(err == -EOVERFLOW || err == -E2BIG);
    }
    free(descr);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    npk_header h;
    char why[200] = "";
    memset(&h, 0, sizeof(h));
    int err = npk_header_parse(data, size, &h, why, sizeof(why));
    MUST(err == 0 || err == -EINVAL || err == -EAGAIN || err == -EOVERFLOW || err == -E2BIG);
    MUST((err == 0) == (why[0] == '\0'));
    if (err == -EAGAIN)
        MUST(h.data_offset > size && h.data_offset <= NPK_MAX_HEADER);
    if (err == 0) {
        check_parse(data, size, &h);
        for (size_t i = 0; i < 3; i++)
            check_digits(data, &h, rows_from(data, size, size / 3 * i));
        check_digits(data, &h, h.ndim > 0 ? h.shape[0] + 1 : 1);
        check_relayout(data, &h, rows_from(data, size, 0));
        check_format(data, &h);
    }
    /* The same bytes as a name of a dtype. */
    npk_dtype t;
    char str[64];
    if (size < 64 && npk__typestr_parse((const char *)data, size, &t, str) == 0) {
        npk_dtype again;
        MUST(npk__typestr_parse(str, strlen(str), &again, NULL) == 0);
        MUST(same_dtype(&t, &again));
    }
    return 0;
}
