/* SPDX-License-Identifier: Apache-2.0 */
#include "digits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "npy.h"

/* The longest text from the shape to the end of the dict that is moved; 64 long dimensions fit. */
#define MAX_MOVED 1600

/* Write `bytes` of text at the file's offset as the plan's next step. */
static int add_step(npk__digits_plan_t *p, uint32_t offset, const uint8_t *data, size_t bytes)
{
    if (p->count == NPK__DIGITS_STEPS || bytes > sizeof(p->pool) - p->pool_used)
        return -ENOSPC;
    uint8_t *copy = p->pool + p->pool_used;
    memcpy(copy, data, bytes);
    p->pool_used += (uint32_t)bytes;
    p->steps[p->count++] = (npk__digits_step){.offset = offset, .bytes = (uint32_t)bytes, .data = copy};
    return 0;
}

/* ---- within the field ------------------------------------------------------------------------------------------ */

/* The field of the number: blanks and digits, at most 20 of them, and the plan that its changes go to. */
typedef struct field {
    npk__digits_plan_t *plan;
    uint32_t offset; /* of text[0] in the file */
    uint32_t width;
    uint8_t text[NPK__DIGITS_MAX];
} field;

/* Set text[from..from + bytes) in one step that writes nothing but what differs. */
static int change(field *f, uint32_t from, const uint8_t *data, uint32_t bytes)
{
    while (bytes > 0 && f->text[from] == *data) {
        from++;
        data++;
        bytes--;
    }
    while (bytes > 0 && f->text[from + bytes - 1] == data[bytes - 1])
        bytes--;
    if (bytes == 0)
        return 0;
    memcpy(f->text + from, data, bytes);
    return add_step(f->plan, f->offset + from, data, bytes);
}

static int change_byte(field *f, uint32_t at, uint8_t c)
{
    return change(f, at, &c, 1);
}

static int zeros(field *f, uint32_t from)
{
    uint8_t text[NPK__DIGITS_MAX];
    memset(text, '0', sizeof(text));
    return change(f, from, text, f->width - from);
}

/*
 * Bring the field to `goal`, which has the same width. Any byte may be read old or new while a step is written:
 *   - zeros instead of low digits make no number larger than the one there;
 *   - one byte alone has no mixtures: the first digit, and each digit that comes or goes, which is a 0 among zeros,
 *     since a leading zero is no number but zeros alone are;
 *   - digits instead of zeros make no number larger than the one that is written.
 */
static int rewrite(field *f, const uint8_t *goal)
{
    uint32_t old_first = 0, new_first = 0;
    while (f->text[old_first] == ' ')
        old_first++;
    while (goal[new_first] == ' ')
        new_first++;
    uint32_t differs = new_first;
    int err = 0;
    if (old_first == new_first) {
        while (differs < f->width && f->text[differs] == goal[differs])
            differs++;
        if (differs == f->width)
            return 0;
        err = zeros(f, differs + 1);
    } else {
        err = zeros(f, old_first + 1);
        if (err == 0 && old_first > new_first)
            err = change_byte(f, old_first, '0');
        for (uint32_t i = old_first; err == 0 && i > new_first + 1; i--)
            err = change_byte(f, i - 1, '0');
        for (uint32_t i = old_first; err == 0 && i < new_first; i++)
            err = change_byte(f, i, ' ');
    }
    if (err == 0)
        err = change_byte(f, differs, goal[differs]);
    if (err == 0)
        err = change(f, differs, goal + differs, f->width - differs);
    return err;
}

/* ---- text moved right ------------------------------------------------------------------------------------------ */

/* May the text from the shape to the end of the dict be moved: is it nothing but one tuple, commas and blanks? Then a
 * mixture of old and new text with unbalanced parentheses has no strings to hide them in. */
static bool movable(const uint8_t *header, const npk__npy_layout *lay)
{
    if (lay->shape_offset != lay->tuple_offset || lay->dict_end - lay->shape_offset > MAX_MOVED)
        return false;
    for (uint32_t i = lay->shape_offset; i < lay->dict_end; i++)
        if (header[i] == '\0' || strchr("0123456789 ,()L}", header[i]) == NULL)
            return false;
    return true;
}

/* Blanks behind the dict that text can move into. */
static uint32_t blanks_after(const uint8_t *header, size_t bytes, uint32_t at)
{
    uint32_t n = 0;
    while (at + n < bytes && header[at + n] == ' ')
        n++;
    return n;
}

/* Widen the field and write the number, in two steps: "(9,), }" to "((   10,)), }" to "(    10,), }". */
static int move_text(const uint8_t *header, const npk_header *h, const npk__npy_layout *lay, const char *number,
                     npk__digits_plan_t *p)
{
    uint32_t digits = (uint32_t)strlen(number), old_width = h->digits_width;
    uint32_t room = blanks_after(header, h->data_offset, lay->dict_end);
    if (!movable(header, lay) || old_width + room < digits + 2)
        return -ENOSPC;
    /* The parentheses take two blanks, and one of them back as a blank before the number. */
    uint32_t width = old_width + room - 2, wanted = digits + NPK__DIGITS_SPARE;
    if (wanted > NPK__DIGITS_MAX - 1)
        wanted = NPK__DIGITS_MAX - 1;
    if (wanted < digits)
        wanted = digits;
    if (width > wanted)
        width = wanted;
    const uint8_t *rest = header + lay->number_offset + lay->number_bytes; /* behind the number */
    size_t inside = lay->shape_end - (lay->number_offset + lay->number_bytes), tail = lay->dict_end - lay->shape_end;
    uint8_t text[MAX_MOVED + NPK__DIGITS_MAX + 4];
    size_t n = 0;
    text[n++] = '(';
    memset(text + n, ' ', width - digits);
    memcpy(text + n + width - digits, number, digits);
    n += width;
    memcpy(text + n, rest, inside);
    n += inside;
    size_t shape_end = n;
    text[n++] = ')';
    memcpy(text + n, rest + inside, tail);
    n += tail;
    uint32_t offset = lay->shape_offset + 1;
    int err = add_step(p, offset, text, n);
    if (err != 0)
        return err;
    text[0] = ' ';
    memmove(text + shape_end, text + shape_end + 1, tail);
    text[n - 1] = ' ';
    p->moves = true;
    p->digits_offset = offset;
    p->digits_width = width + 1;
    return add_step(p, offset, text, n);
}

/* ---- plans ----------------------------------------------------------------------------------------------------- */

/* Parse the header again, for the places of its parts, and check that h and the number of rows belong to it. */
static int examine(const uint8_t *header, size_t header_bytes, const npk_header *h, uint64_t new_rows,
                   npk__npy_layout *lay)
{
    npk_header now;
    if (header_bytes < h->data_offset || npk__header_layout(header, header_bytes, &now, lay, NULL, 0) != 0)
        return -EINVAL;
    if (now.ndim == 0 || now.ndim != h->ndim || now.data_offset != h->data_offset ||
        now.digits_offset != h->digits_offset || now.digits_width != h->digits_width || now.shape[0] != h->shape[0])
        return -EINVAL;
    /* As the parse measures: a dimension of 0 does not hide the others. That product fits, since the header parsed. */
    uint64_t unit = h->dtype.itemsize > 0 ? h->dtype.itemsize : 1;
    for (uint32_t i = 1; i < h->ndim; i++)
        unit *= h->shape[i] > 0 ? h->shape[i] : 1;
    return new_rows > ((uint64_t)INT64_MAX - h->data_offset) / unit ? -EOVERFLOW : 0;
}

int npk__digits_plan(const uint8_t *header, size_t header_bytes, const npk_header *h, uint64_t new_rows,
                     npk__digits_plan_t *out)
{
    npk__npy_layout lay;
    char number[24];
    out->count = 0;
    out->pool_used = 0;
    out->moves = false;
    int err = examine(header, header_bytes, h, new_rows, &lay);
    if (err != 0)
        return err;
    out->digits_offset = h->digits_offset;
    out->digits_width = h->digits_width;
    if (new_rows == h->shape[0])
        return 0;
    uint32_t digits = (uint32_t)snprintf(number, sizeof(number), "%" PRIu64, new_rows);
    if (digits > h->digits_width)
        return move_text(header, h, &lay, number, out);
    /* Of a very wide field, its last characters are enough. */
    field f = {.plan = out, .width = h->digits_width};
    if (f.width > NPK__DIGITS_MAX) {
        if (lay.number_bytes > NPK__DIGITS_MAX)
            return -ENOSPC;
        f.width = NPK__DIGITS_MAX;
    }
    f.offset = h->digits_offset + h->digits_width - f.width;
    memcpy(f.text, header + f.offset, f.width);
    uint8_t goal[NPK__DIGITS_MAX];
    memset(goal, ' ', sizeof(goal));
    memcpy(goal + f.width - digits, number, digits);
    return rewrite(&f, goal);
}

void npk__digits_apply(const npk__digits_plan_t *plan, uint32_t steps, uint8_t *header)
{
    for (uint32_t i = 0; i < steps && i < plan->count; i++)
        memcpy(header + plan->steps[i].offset, plan->steps[i].data, plan->steps[i].bytes);
}

int npk__header_relayout(const uint8_t *header, size_t header_bytes, const npk_header *h, uint64_t new_rows,
                         uint8_t *out, size_t capacity, size_t *bytes)
{
    npk__npy_layout lay;
    char number[NPK__DIGITS_MAX + 4];
    int err = examine(header, header_bytes, h, new_rows, &lay);
    if (err != 0)
        return err;
    int digits = snprintf(number, sizeof(number), "%*" PRIu64, NPK__DIGITS_MAX, new_rows);
    const uint8_t *behind = header + h->digits_offset + h->digits_width;
    size_t before = h->digits_offset - lay.text_offset, after = lay.dict_end - (size_t)(behind - header);
    size_t text_bytes = before + (size_t)digits + after;
    size_t prefix = npk__prefix_bytes(h->major, text_bytes);
    if (prefix + text_bytes > capacity)
        return -E2BIG;
    err = npk__header_seal(out, capacity, h->major, text_bytes, bytes);
    if (err != 0)
        return err;
    memcpy(out + prefix, header + lay.text_offset, before);
    memcpy(out + prefix + before, number, (size_t)digits);
    memcpy(out + prefix + before + (size_t)digits, behind, after);
    return 0;
}
