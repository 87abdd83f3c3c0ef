/* SPDX-License-Identifier: Apache-2.0 */
#include "npy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "dtype.h"
#include "fail.h"
#include "literal.h"

/* Parentheses around the shape's own; "((3, 4))" is the same shape to Python. */
#define MAX_PARENTHESES 8

/* ---- the prefix: magic, version, length ----------------------------------------------------------------------- */

static int need_more(npk__literal *l, uint64_t needed, npk_header *out)
{
    out->data_offset = needed;
    return npk__literal_fail(l, -EAGAIN, "its header ends early: %" PRIu64 " bytes are needed", needed);
}

/* Read the prefix and leave the reader at the header's text. */
static int parse_prefix(npk__literal *l, size_t size, npk_header *h)
{
    const uint8_t *b = l->base;
    size_t known = size < NPK__NPY_MAGIC_BYTES ? size : NPK__NPY_MAGIC_BYTES;
    if (memcmp(b, NPK__NPY_MAGIC, known) != 0)
        return npk__literal_fail(l, -EINVAL, "it begins with \"%s\" instead of the npy magic \"\\x93NUMPY\"",
                                 npk__span_shown((npk__span){b, known}).text);
    if (size < NPK__NPY_MIN_BYTES)
        return need_more(l, NPK__NPY_MIN_BYTES, h);
    h->major = b[6];
    h->minor = b[7];
    if (h->major < 1 || h->major > 3 || h->minor != 0)
        return npk__literal_fail(l, -EINVAL, "its format version is %u.%u; 1.0, 2.0 and 3.0 are known", h->major,
                                 h->minor);
    uint64_t prefix = h->major == 1 ? 10 : 12;
    if (size < prefix)
        return need_more(l, prefix, h);
    uint64_t text = (uint64_t)b[8] | (uint64_t)b[9] << 8;
    if (h->major > 1)
        text |= (uint64_t)b[10] << 16 | (uint64_t)b[11] << 24;
    uint64_t total = prefix + text;
    if (total > NPK_MAX_HEADER)
        return npk__literal_fail(l, -E2BIG, "its header has %" PRIu64 " bytes; at most %u are read", total,
                                 NPK_MAX_HEADER);
    if (size < total)
        return need_more(l, total, h);
    h->data_offset = total;
    l->at = b + prefix;
    l->end = b + total;
    l->long_suffix = h->major < 3;
    return 0;
}

/* Version 3 is UTF-8; Python refuses a header that is not. The first bad byte, or end. */
static const uint8_t *utf8_check(const uint8_t *at, const uint8_t *end)
{
    while (at < end) {
        uint8_t c = *at;
        size_t more = c < 0x80 ? 0 : c < 0xc2 ? 9 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : c < 0xf5 ? 3 : 9;
        if (more > 3 || (size_t)(end - at) <= more)
            return at;
        for (size_t i = 1; i <= more; i++)
            if ((at[i] & 0xc0) != 0x80)
                return at;
        /* Overlong forms, surrogates and what is beyond U+10FFFF show in the second byte. */
        if ((c == 0xe0 && at[1] < 0xa0) || (c == 0xed && at[1] > 0x9f) || (c == 0xf0 && at[1] < 0x90) ||
            (c == 0xf4 && at[1] > 0x8f))
            return at;
        at += more + 1;
    }
    return end;
}

/* What Python would refuse before it reads the first token. */
static int check_text(const npk__literal *l, uint8_t major)
{
    const uint8_t *bad = memchr(l->at, 0, (size_t)(l->end - l->at));
    if (bad != NULL)
        return npk__literal_fail(l, -EINVAL, "its header has a zero byte at %zu", (size_t)(bad - l->base));
    if (major == 3) {
        bad = utf8_check(l->at, l->end);
        if (bad < l->end)
            return npk__literal_fail(l, -EINVAL, "byte %zu of its header, \"%s\", is not UTF-8",
                                     (size_t)(bad - l->base), npk__span_shown((npk__span){bad, 1}).text);
    }
    return 0;
}

/* ---- the dict -------------------------------------------------------------------------------------------------- */

/* The numbers of the shape's tuple, whose '(' is taken, up to and with its ')'. */
static int parse_tuple(npk__literal *l, npk_header *h, npk__npy_layout *lay)
{
    bool comma = true;
    while (!npk__literal_take(l, ')')) {
        npk__span digits;
        uint64_t dim;
        if (!comma)
            return npk__literal_expected(l, "\",\" or \")\" behind a number of the shape");
        if (npk__literal_peek(l) == '-')
            return npk__literal_fail(l, -EINVAL, "the shape has a negative number at byte %zu",
                                     (size_t)(l->at - l->base));
        int err = npk__literal_whole(l, &dim, &digits);
        if (err != 0)
            return err;
        if (h->ndim == NPK_MAX_DIMS)
            return npk__literal_fail(l, -EINVAL, "the shape has more than %d dimensions", NPK_MAX_DIMS);
        if (h->ndim == 0) {
            uint32_t number = (uint32_t)(digits.text - l->base), field = number;
            while (l->base[field - 1] == ' ')
                field--;
            h->digits_offset = field;
            h->digits_width = number - field + (uint32_t)digits.bytes;
            lay->number_offset = number;
            lay->number_bytes = (uint32_t)digits.bytes;
        }
        h->shape[h->ndim++] = dim;
        comma = npk__literal_take(l, ',');
        if (h->ndim == 1 && !comma && npk__literal_peek(l) == ')')
            return npk__literal_fail(
                l, -EINVAL, "the shape is the number %" PRIu64 " instead of the tuple (%" PRIu64 ",)", dim, dim);
    }
    return 0;
}

static int parse_shape(npk__literal *l, npk_header *h, npk__npy_layout *lay)
{
    unsigned depth = 0;
    while (npk__literal_peek(l) == '(') {
        uint32_t offset = (uint32_t)(l->at - l->base);
        if (depth == 0)
            lay->shape_offset = offset;
        lay->tuple_offset = offset;
        if (++depth > MAX_PARENTHESES)
            return npk__literal_fail(l, -EINVAL, "more than %d parentheses around the shape", MAX_PARENTHESES);
        l->at++;
    }
    if (depth == 0)
        return npk__literal_expected(l, "a tuple of numbers as 'shape'");
    int err = parse_tuple(l, h, lay);
    if (err != 0)
        return err;
    while (--depth > 0)
        if (!npk__literal_take(l, ')'))
            return npk__literal_expected(l, "\")\" behind the shape");
    lay->shape_end = (uint32_t)(l->at - l->base);
    return 0;
}

enum { KEY_DESCR = 1, KEY_FORTRAN = 2, KEY_SHAPE = 4, KEY_ALL = 7 };

static unsigned key_of(npk__span name)
{
    return npk__span_is(name, "descr")           ? KEY_DESCR
           : npk__span_is(name, "fortran_order") ? KEY_FORTRAN
           : npk__span_is(name, "shape")         ? KEY_SHAPE
                                                 : 0;
}

static int parse_entry(npk__literal *l, unsigned *seen, npk_header *h, npk__npy_layout *lay)
{
    npk__span name;
    int err = npk__literal_string(l, &name);
    if (err != 0)
        return err;
    unsigned key = key_of(name);
    if (key == 0)
        return npk__literal_fail(l, -EINVAL, "its header has the unknown key '%s'", npk__span_shown(name).text);
    if (*seen & key)
        return npk__literal_fail(l, -EINVAL, "its header has the key '%s' twice", npk__span_shown(name).text);
    *seen |= key;
    if (!npk__literal_take(l, ':'))
        return npk__literal_expected(l, "\":\" behind a key");
    switch (key) {
    case KEY_DESCR:
        npk__literal_blank(l);
        h->descr_offset = (uint32_t)(l->at - l->base);
        err = npk__descr_parse(l, &h->dtype);
        h->descr_bytes = (uint32_t)(l->at - l->base) - h->descr_offset;
        return err;
    case KEY_FORTRAN:
        h->fortran = npk__literal_word(l, "True");
        if (!h->fortran && !npk__literal_word(l, "False"))
            return npk__literal_expected(l, "True or False as 'fortran_order'");
        return 0;
    default:
        return parse_shape(l, h, lay);
    }
}

static int parse_dict(npk__literal *l, npk_header *h, npk__npy_layout *lay)
{
    const uint8_t *start = l->at;
    unsigned seen = 0;
    if (!npk__literal_take(l, '{'))
        return npk__literal_expected(l, "a dict, \"{\",");
    /* Python takes blanks before the dict on the first line only, any further one would be indented. */
    const uint8_t *line = l->at - 1;
    while (line > start && line[-1] != '\n' && line[-1] != '\r')
        line--;
    if (line > start && line < l->at - 1)
        return npk__literal_fail(l, -EINVAL, "the header's dict is indented at byte %zu", (size_t)(line - l->base));
    while (!npk__literal_take(l, '}')) {
        int err = parse_entry(l, &seen, h, lay);
        if (err != 0)
            return err;
        if (npk__literal_peek(l) != '}' && !npk__literal_take(l, ','))
            return npk__literal_expected(l, "\",\" or \"}\" behind a value");
    }
    lay->dict_end = (uint32_t)(l->at - l->base);
    if (seen != KEY_ALL)
        return npk__literal_fail(l, -EINVAL, "its header has no key '%s'",
                                 !(seen & KEY_DESCR)   ? "descr"
                                 : !(seen & KEY_SHAPE) ? "shape"
                                                       : "fortran_order");
    npk__literal_blank(l);
    return l->at == l->end ? 0 : npk__literal_expected(l, "nothing more behind the dict");
}

/* ---- sizes ----------------------------------------------------------------------------------------------------- */

/* Dimensions of 0 do not hide others that no array could have; numpy counts so too. */
static int measure(npk__literal *l, npk_header *h)
{
    uint64_t total = h->dtype.itemsize > 0 ? h->dtype.itemsize : 1, row = h->dtype.itemsize, data = row;
    for (uint32_t i = 0; i < h->ndim; i++) {
        uint64_t dim = h->shape[i];
        if (dim > 0 && total > (uint64_t)INT64_MAX / dim)
            return npk__literal_fail(l, -EOVERFLOW,
                                     "a shape with %" PRIu64 " along axis %" PRIu32 " makes more than 2^63 - 1 bytes",
                                     dim, i);
        total *= dim > 0 ? dim : 1;
        row *= i > 0 ? dim : 1;
        data *= dim;
    }
    if (h->data_offset > (uint64_t)INT64_MAX - total)
        return npk__literal_fail(l, -EOVERFLOW, "header and data are more than 2^63 - 1 bytes");
    h->row_bytes = h->ndim > 0 ? row : 0;
    h->data_bytes = data;
    return 0;
}

int npk__header_layout(const void *bytes, size_t size, npk_header *out, npk__npy_layout *layout, char *why,
                       size_t why_bytes)
{
    npk_header h;
    npk__npy_layout lay;
    npk__literal l = {.base = bytes, .at = bytes, .end = bytes, .why = why, .why_bytes = why_bytes};
    memset(&h, 0, sizeof(h));
    memset(&lay, 0, sizeof(lay));
    int err = parse_prefix(&l, size, &h);
    if (err == -EAGAIN)
        out->data_offset = h.data_offset;
    lay.text_offset = (uint32_t)(l.at - l.base);
    if (err == 0)
        err = check_text(&l, h.major);
    if (err == 0)
        err = parse_dict(&l, &h, &lay);
    if (err == 0)
        err = measure(&l, &h);
    if (err != 0)
        return err;
    *out = h;
    if (layout != NULL)
        *layout = lay;
    return 0;
}

npk_err npk_header_parse(const void *bytes, size_t size, npk_header *out, char *why, size_t why_bytes)
{
    return npk__header_layout(bytes, size, out, NULL, why, why_bytes);
}

bool npk_header_is_array(const npk_header *h)
{
    return h->dtype.kind != NPK_KIND_OBJECT;
}

bool npk_header_is_row_array(const npk_header *h)
{
    return npk_header_is_array(h) && h->ndim >= 1 && (!h->fortran || h->ndim == 1) && h->row_bytes > 0;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* Magic, version, length, text and newline, as long as alignment makes it. */
static size_t sealed_bytes(uint8_t major, size_t text_bytes)
{
    size_t bytes = (major == 1 ? 10 : 12) + text_bytes + 1;
    /* numpy pads by 1 to 64 blanks, never by none. */
    return bytes + NPK__NPY_ALIGN - bytes % NPK__NPY_ALIGN;
}

static uint8_t version_for(uint8_t min_major, size_t text_bytes)
{
    bool fits = sealed_bytes(1, text_bytes) - 10 <= UINT16_MAX;
    return min_major <= 1 && !fits ? 2 : min_major < 1 ? 1 : min_major;
}

size_t npk__prefix_bytes(uint8_t min_major, size_t text_bytes)
{
    return version_for(min_major, text_bytes) == 1 ? 10 : 12;
}

int npk__header_seal(uint8_t *out, size_t capacity, uint8_t min_major, size_t text_bytes, size_t *bytes)
{
    uint8_t major = version_for(min_major, text_bytes);
    size_t prefix = major == 1 ? 10 : 12, total = sealed_bytes(major, text_bytes), length = total - prefix;
    if (total > capacity || total > NPK_MAX_HEADER)
        return -E2BIG;
    memcpy(out, NPK__NPY_MAGIC, NPK__NPY_MAGIC_BYTES);
    out[6] = major;
    out[7] = 0;
    for (size_t i = 8; i < prefix; i++)
        out[i] = (uint8_t)(length >> (8 * (i - 8)));
    memset(out + prefix + text_bytes, ' ', total - prefix - text_bytes - 1);
    out[total - 1] = '\n';
    *bytes = total;
    return 0;
}

/* The tuple of a shape in Python's spelling: "()", "(3,)", "(3, 4)". Its length, whatever fits into out. */
static size_t spell_shape(const uint64_t *shape, uint32_t ndim, char *out, size_t capacity)
{
    size_t n = (size_t)snprintf(out, capacity, "(");
    for (uint32_t i = 0; i < ndim; i++)
        n += (size_t)snprintf(out + n, capacity - n, i > 0 ? ", %" PRIu64 : "%" PRIu64, shape[i]);
    return n + (size_t)snprintf(out + n, capacity - n, ndim == 1 ? ",)" : ")");
}

npk_err npk_header_format(const char *descr, bool fortran, const uint64_t *shape, uint32_t ndim, void *out,
                          size_t capacity, size_t *bytes)
{
    char tuple[NPK_MAX_DIMS * 22 + 4], why[160];
    if (ndim > NPK_MAX_DIMS)
        return npk__fail(-EINVAL, "a shape of %" PRIu32 " dimensions; at most %d are possible", ndim, NPK_MAX_DIMS);
    size_t tuple_bytes = spell_shape(shape, ndim, tuple, sizeof(tuple)), descr_bytes = strlen(descr);
    const char *order = fortran ? ", 'fortran_order': True, 'shape': " : ", 'fortran_order': False, 'shape': ";
    const char *const parts[] = {"{'descr': ", descr, order, tuple, ", }"};
    const size_t lengths[] = {10, descr_bytes, strlen(order), tuple_bytes, 3};
    uint8_t major = 1;
    for (size_t i = 0; i < descr_bytes; i++)
        if ((unsigned char)descr[i] >= 0x80)
            major = 3;
    size_t text_bytes = 0;
    for (size_t i = 0; i < 5; i++)
        text_bytes += lengths[i];
    /* Room to write any number of rows in place: numpy grows along the last axis in Fortran order. */
    size_t digits = ndim > 0 ? (size_t)snprintf(NULL, 0, "%" PRIu64, shape[fortran ? ndim - 1 : 0]) : 21;
    size_t padded = text_bytes + 21 - digits;
    size_t prefix = npk__prefix_bytes(major, padded);
    if (prefix + padded > capacity || npk__header_seal(out, capacity, major, padded, bytes) != 0)
        return npk__fail(-E2BIG, "a header of about %zu bytes; there is room for %zu of at most %u", prefix + padded,
                         capacity, NPK_MAX_HEADER);
    uint8_t *at = (uint8_t *)out + prefix;
    for (size_t i = 0; i < 5; i++) {
        memcpy(at, parts[i], lengths[i]);
        at += lengths[i];
    }
    memset(at, ' ', padded - text_bytes);
    npk_header check;
    int err = npk_header_parse(out, *bytes, &check, why, sizeof(why));
    return err == 0 ? 0 : npk__fail(err, "\"%.64s\" makes no header: %s", descr, why);
}
