/* SPDX-License-Identifier: Apache-2.0 */
#include "dtype.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fail.h"

/* Lists inside lists: numpy writes as many levels as the dtype has; more than this is nobody's data. */
#define MAX_DEPTH 16
/* Field names that are compared with each other. Names beyond are not checked for doubles, so that a header of a
 * million fields costs no more than its length. */
#define MAX_NAMES 1024

/* ---- type strings and names ---------------------------------------------------------------------------------- */

typedef struct alias {
    const char *name;
    char kind; /* as in a type string */
    uint8_t bytes;
} alias;

/* What numpy.dtype() takes by name, on a platform where long and a pointer have 64 bits. The first spelling of a type
 * is the name that it is shown by. */
static const alias aliases[] = {
    {"bool", 'b', 1},      {"int8", 'i', 1},         {"int16", 'i', 2},       {"int32", 'i', 4},
    {"int64", 'i', 8},     {"uint8", 'u', 1},        {"uint16", 'u', 2},      {"uint32", 'u', 4},
    {"uint64", 'u', 8},    {"float16", 'f', 2},      {"float32", 'f', 4},     {"float64", 'f', 8},
    {"float128", 'f', 16}, {"complex64", 'c', 8},    {"complex128", 'c', 16}, {"complex256", 'c', 32},
    {"object", 'O', 0},    {"bool_", 'b', 1},        {"byte", 'i', 1},        {"ubyte", 'u', 1},
    {"short", 'i', 2},     {"ushort", 'u', 2},       {"intc", 'i', 4},        {"uintc", 'u', 4},
    {"int", 'i', 8},       {"int_", 'i', 8},         {"uint", 'u', 8},        {"intp", 'i', 8},
    {"uintp", 'u', 8},     {"long", 'i', 8},         {"ulong", 'u', 8},       {"longlong", 'i', 8},
    {"ulonglong", 'u', 8}, {"half", 'f', 2},         {"single", 'f', 4},      {"double", 'f', 8},
    {"float", 'f', 8},     {"longdouble", 'f', 16},  {"csingle", 'c', 8},     {"cdouble", 'c', 16},
    {"complex", 'c', 16},  {"clongdouble", 'c', 32}, {"object_", 'O', 0},     {"str", 'U', 0},
    {"str_", 'U', 0},      {"unicode", 'U', 0},      {"bytes", 'S', 0},       {"bytes_", 'S', 0},
    {"void", 'V', 0},      {"datetime64", 'M', 8},   {"timedelta64", 'm', 8},
};

/* One-letter codes; these may follow a byte order. */
static const alias letters[] = {
    {"?", 'b', 1},  {"b", 'i', 1}, {"B", 'u', 1},  {"h", 'i', 2},  {"H", 'u', 2}, {"i", 'i', 4},
    {"I", 'u', 4},  {"l", 'i', 8}, {"L", 'u', 8},  {"q", 'i', 8},  {"Q", 'u', 8}, {"p", 'i', 8},
    {"P", 'u', 8},  {"n", 'i', 8}, {"N", 'u', 8},  {"e", 'f', 2},  {"f", 'f', 4}, {"d", 'f', 8},
    {"g", 'f', 16}, {"F", 'c', 8}, {"D", 'c', 16}, {"G", 'c', 32}, {"O", 'O', 0}, {"S", 'S', 0},
    {"a", 'S', 0},  {"U", 'U', 0}, {"V", 'V', 0},  {"M", 'M', 8},  {"m", 'm', 8}, {"c", 'S', 1},
};

static const alias *find_alias(const alias *table, size_t count, const char *text, size_t bytes)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(table[i].name) == bytes && memcmp(table[i].name, text, bytes) == 0)
            return &table[i];
    return NULL;
}

#define FIND(table, text, bytes) find_alias(table, sizeof(table) / sizeof(*(table)), text, bytes)

/* Decimal digits up to the item size's limit; false if there is anything else or nothing. */
static bool parse_size(const char *text, size_t bytes, uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
        if (value > NPK__MAX_ITEM_BYTES)
            return false;
    }
    *out = value;
    return bytes > 0;
}

/* Kind and size, and a datetime's unit. */
typedef struct parsed {
    char kind;
    char order; /* 0: none was given */
    uint64_t bytes;
    const char *unit; /* NULL: none was given, or "generic" */
    uint64_t multiple;
} parsed;

/* The "[25s]" of a datetime, brackets included. */
static bool parse_unit(const char *text, size_t bytes, parsed *out)
{
    static const char *const units[] = {"Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"};
    if (bytes < 3 || text[0] != '[' || text[bytes - 1] != ']')
        return false;
    text++;
    bytes -= 2;
    if (bytes == 7 && memcmp(text, "generic", 7) == 0)
        return true;
    size_t digits = 0;
    while (digits < bytes && text[digits] >= '0' && text[digits] <= '9')
        digits++;
    out->multiple = 1;
    if (digits > 0 && !parse_size(text, digits, &out->multiple))
        return false;
    text += digits;
    bytes -= digits;
    if (bytes == 3 && memcmp(text, "\xce\xbcs", 3) == 0) { /* a Greek letter, which numpy spells with a u */
        out->unit = "us";
        return true;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
        if (strlen(units[i]) == bytes && memcmp(text, units[i], bytes) == 0)
            out->unit = units[i];
    return out->unit != NULL;
}

static bool size_allowed(char kind, uint64_t bytes)
{
    switch (kind) {
    case 'b':
        return bytes == 1;
    case 'i':
    case 'u':
        return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
    case 'f':
        return bytes == 2 || bytes == 4 || bytes == 8 || bytes == 16;
    case 'c':
        return bytes == 8 || bytes == 16 || bytes == 32;
    case 'M':
    case 'm':
        return bytes == 8;
    case 'O':
        return bytes == 4 || bytes == 8;
    case 'S':
    case 'V':
        return true;
    case 'U':
        return bytes <= NPK__MAX_ITEM_BYTES / 4;
    default:
        return false;
    }
}

static bool from_alias(const alias *a, parsed *out)
{
    out->kind = a->kind;
    out->bytes = a->bytes;
    return true;
}

static bool parse_parts(const char *text, size_t bytes, parsed *out)
{
    memset(out, 0, sizeof(*out));
    if (bytes > 0 && strchr("<>=|", text[0]) != NULL && text[0] != '\0') {
        out->order = text[0];
        text++;
        bytes--;
    }
    if (bytes == 0)
        return false;
    const alias *a = FIND(letters, text, bytes);
    if (a != NULL)
        return from_alias(a, out);
    size_t base = 0;
    while (base < bytes && text[base] != '[')
        base++;
    a = out->order == 0 ? FIND(aliases, text, base) : NULL;
    if (a != NULL) {
        (void)from_alias(a, out);
    } else {
        out->kind = text[0] == 'a' ? 'S' : text[0];
        if (base == 1 && (out->kind == 'M' || out->kind == 'm'))
            out->bytes = 8;
        else if (base < 2 || !parse_size(text + 1, base - 1, &out->bytes) || !size_allowed(out->kind, out->bytes))
            return false;
    }
    if (base == bytes)
        return true;
    /* Of a code, numpy takes a unit behind "M8" and "m8" only. */
    return (out->kind == 'M' || out->kind == 'm') && (a != NULL || base == 2) &&
           parse_unit(text + base, bytes - base, out);
}

/* numpy's own spelling: "<M8[25s]", "|S10". str has 32 bytes: a unit has at most 10 digits and 3 letters. */
static void spell(const parsed *p, bool big, uint64_t itemsize, char *str)
{
    bool ordered = p->kind != 'S' && p->kind != 'V' && p->kind != 'O' && (itemsize > 1 || p->kind == 'U');
    char order = !ordered ? '|' : big ? '>' : '<';
    if (p->kind == 'O') {
        (void)snprintf(str, 32, "|O");
        return;
    }
    int n = snprintf(str, 32, "%c%c%u", order, p->kind, (unsigned)p->bytes);
    if (p->unit != NULL && p->multiple == 1)
        (void)snprintf(str + n, 32 - (size_t)n, "[%s]", p->unit);
    else if (p->unit != NULL)
        (void)snprintf(str + n, 32 - (size_t)n, "[%u%s]", (unsigned)p->multiple, p->unit);
}

static npk_kind kind_of(char kind)
{
    switch (kind) {
    case 'b':
        return NPK_KIND_BOOL;
    case 'i':
        return NPK_KIND_INT;
    case 'u':
        return NPK_KIND_UINT;
    case 'f':
        return NPK_KIND_FLOAT;
    case 'c':
        return NPK_KIND_COMPLEX;
    case 'M':
    case 'm':
        return NPK_KIND_DATETIME;
    case 'S':
        return NPK_KIND_BYTES;
    case 'U':
        return NPK_KIND_UNICODE;
    case 'V':
        return NPK_KIND_VOID;
    default:
        return NPK_KIND_OBJECT;
    }
}

/* The name that people see: numpy's for what has one and is little-endian, else the type string. */
static void name_it(npk_dtype *t, const parsed *p, const char *str)
{
    const char *plain = NULL;
    for (size_t i = 0; i < sizeof(aliases) / sizeof(*aliases) && plain == NULL; i++)
        if (aliases[i].kind == p->kind && aliases[i].bytes == p->bytes && !t->big_endian)
            plain = aliases[i].name;
    switch (t->kind) {
    case NPK_KIND_OBJECT:
        plain = "object";
        break;
    case NPK_KIND_DATETIME: /* "datetime64" and the unit, which begins behind "<M8" and has at most 15 characters */
        if (t->big_endian)
            break;
        (void)snprintf(t->name, sizeof(t->name), "%s%.15s", plain, str + 3);
        return;
    case NPK_KIND_BYTES:
    case NPK_KIND_VOID:
        plain = str + 1;
        break;
    case NPK_KIND_UNICODE:
        plain = t->big_endian ? str : str + 1;
        break;
    default:
        break;
    }
    (void)snprintf(t->name, sizeof(t->name), "%s", plain != NULL ? plain : str);
}

int npk__typestr_parse(const char *text, size_t bytes, npk_dtype *out, char *str)
{
    parsed p;
    if (!parse_parts(text, bytes, &p))
        return -EINVAL;
    npk_dtype t;
    memset(&t, 0, sizeof(t));
    t.kind = kind_of(p.kind);
    t.itemsize = p.kind == 'O' ? 0 : p.kind == 'U' ? p.bytes * 4 : p.bytes;
    bool ordered = t.kind != NPK_KIND_BYTES && t.kind != NPK_KIND_VOID && t.kind != NPK_KIND_OBJECT;
    t.big_endian = ordered && p.order == '>' && t.itemsize > 1;
    t.native14 = !t.big_endian && t.itemsize <= 16 && p.bytes * (p.kind == 'f' ? 2 : 1) <= 16 &&
                 (t.kind == NPK_KIND_BOOL || t.kind == NPK_KIND_INT || t.kind == NPK_KIND_UINT ||
                  t.kind == NPK_KIND_FLOAT || t.kind == NPK_KIND_COMPLEX);
    char spelled[32];
    spell(&p, p.order == '>', t.itemsize, spelled);
    name_it(&t, &p, spelled);
    *out = t;
    if (str != NULL)
        memcpy(str, spelled, sizeof(spelled));
    return 0;
}

npk_err npk_dtype_parse(const char *text, npk_dtype *out, char descr[64])
{
    static const char accepted[] = "bool, int8 to int64, uint8 to uint64, float16, float32, float64, complex64, "
                                   "complex128, and numpy's codes such as f4, <f4, >i8, S10, U10, V8, datetime64[ns]";
    npk_dtype t;
    char str[32];
    npk__shown shown = npk__span_shown((npk__span){(const uint8_t *)text, strlen(text)});
    if (npk__typestr_parse(text, strlen(text), &t, str) != 0)
        return npk__fail(-EINVAL, "\"%s\": no such dtype; known are %s", shown.text, accepted);
    if (t.kind == NPK_KIND_OBJECT)
        return npk__fail(-EINVAL, "\"%s\": objects have no fixed size; known are %s", shown.text, accepted);
    if (t.itemsize == 0)
        return npk__fail(-EINVAL, "\"%s\": the dtype has no length; give it one, as in S10, U10 or V8", shown.text);
    *out = t;
    (void)snprintf(descr, 64, "'%s'", str);
    return 0;
}

/* ---- descr values --------------------------------------------------------------------------------------------- */

/* A value of a descr, or of a field in it. */
typedef struct item {
    npk_dtype dtype;
    bool pad;    /* as a field without a name it is padding: V, or any subarray */
    bool object; /* there is an object in it */
} item;

/* Names of the lists that are being read, the innermost list's last. */
typedef struct names {
    uint64_t hash[MAX_NAMES];
    uint32_t used;
} names;

static int parse_value(npk__literal *l, names *seen, unsigned depth, item *out);

/* Note a name; false if its list (which began at `from`) has it already. */
static bool note_name(names *seen, uint32_t from, npk__span name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < name.bytes; i++)
        hash = (hash ^ name.text[i]) * 0x100000001b3u;
    for (uint32_t i = from; i < seen->used; i++)
        if (seen->hash[i] == hash)
            return false;
    if (seen->used < MAX_NAMES)
        seen->hash[seen->used++] = hash;
    return true;
}

/* "3" or "(2, 3)": makes a subarray of the item. */
static int parse_subarray(npk__literal *l, item *io)
{
    uint64_t bytes = io->dtype.itemsize, dim;
    uint32_t dims = 0;
    bool tuple = npk__literal_take(l, '('), plain = false, zero = false;
    if (bytes == 0 && io->dtype.kind != NPK_KIND_STRUCT)
        return npk__literal_fail(l, -EINVAL, "a subarray of items that have no size, at byte %zu",
                                 (size_t)(l->at - l->base));
    while (!tuple || !npk__literal_take(l, ')')) {
        int err = npk__literal_whole(l, &dim, NULL);
        if (err != 0)
            return err == -EOVERFLOW ? -EINVAL : err;
        zero = zero || dim == 0;
        if (dim > NPK__MAX_ITEM_BYTES || (dim > 0 && bytes > NPK__MAX_ITEM_BYTES / dim))
            return npk__literal_fail(l, -EINVAL, "a subarray of %llu x %llu bytes is beyond numpy's limit of %llu",
                                     (unsigned long long)bytes, (unsigned long long)dim,
                                     (unsigned long long)NPK__MAX_ITEM_BYTES);
        bytes *= dim > 0 ? dim : 1;
        if (++dims > NPK_MAX_DIMS)
            return npk__literal_fail(l, -EINVAL, "a subarray has more than %d dimensions", NPK_MAX_DIMS);
        if (!tuple) {
            plain = dim == 1; /* numpy takes ('x', '<f4', 1) for a plain field */
            break;
        }
        if (npk__literal_peek(l) != ')' && !npk__literal_take(l, ','))
            return npk__literal_expected(l, "\",\" or \")\"");
    }
    if (dims > 0 && !plain) {
        io->pad = true;
        io->dtype.kind = NPK_KIND_VOID;
        io->dtype.native14 = false;
        io->dtype.big_endian = false;
    }
    io->dtype.itemsize = zero ? 0 : bytes;
    return 0;
}

/* 'name' or ('title', 'name'); a title counts as a name of its list. *empty: the name is ''. */
static int parse_name(npk__literal *l, names *seen, uint32_t from, npk__span *out)
{
    if (!npk__literal_take(l, '('))
        return npk__literal_string(l, out);
    npk__span title = {NULL, 0};
    uint64_t ignored;
    char c = npk__literal_peek(l);
    int err = 0;
    if (c >= '0' && c <= '9')
        err = npk__literal_whole(l, &ignored, NULL);
    else if (!npk__literal_word(l, "None"))
        err = npk__literal_string(l, &title);
    if (err != 0)
        return err == -EOVERFLOW ? -EINVAL : err;
    if (!npk__literal_take(l, ','))
        return npk__literal_expected(l, "\",\" between a field's title and its name");
    err = npk__literal_string(l, out);
    if (err != 0)
        return err;
    (void)npk__literal_take(l, ',');
    if (!npk__literal_take(l, ')'))
        return npk__literal_expected(l, "\")\" behind a field's title and name");
    if (title.text != NULL && !note_name(seen, from, title))
        return npk__literal_fail(l, -EINVAL, "the title '%s' is used twice", npk__span_shown(title).text);
    return 0;
}

/* ('name', descr) or ('name', descr, shape). */
static int parse_field(npk__literal *l, names *seen, uint32_t from, unsigned depth, item *out)
{
    npk__span name;
    if (!npk__literal_take(l, '('))
        return npk__literal_expected(l, "a field such as ('x', '<f4')");
    bool titled = npk__literal_peek(l) == '(';
    int err = parse_name(l, seen, from, &name);
    if (err != 0)
        return err;
    if (!npk__literal_take(l, ','))
        return npk__literal_expected(l, "\",\" behind a field's name");
    err = parse_value(l, seen, depth, out);
    if (err != 0)
        return err;
    if (npk__literal_take(l, ',') && npk__literal_peek(l) != ')') {
        err = parse_subarray(l, out);
        if (err != 0)
            return err;
        (void)npk__literal_take(l, ',');
    }
    if (!npk__literal_take(l, ')'))
        return npk__literal_expected(l, "\")\" at the end of a field");
    bool padding = name.bytes == 0 && out->pad && !titled;
    if (!padding && !note_name(seen, from, name))
        return npk__literal_fail(l, -EINVAL, "the field name '%s' is used twice", npk__span_shown(name).text);
    return 0;
}

static int parse_list(npk__literal *l, names *seen, unsigned depth, item *out)
{
    uint64_t bytes = 0;
    bool object = false;
    uint32_t from = seen->used;
    while (!npk__literal_take(l, ']')) {
        item field;
        int err = parse_field(l, seen, from, depth, &field);
        if (err != 0)
            return err;
        object = object || field.object;
        bytes += field.dtype.itemsize;
        if (bytes > NPK__MAX_ITEM_BYTES)
            return npk__literal_fail(l, -EINVAL, "an item of more than %llu bytes, numpy's limit",
                                     (unsigned long long)NPK__MAX_ITEM_BYTES);
        if (npk__literal_peek(l) != ']' && !npk__literal_take(l, ','))
            return npk__literal_expected(l, "\",\" or \"]\" behind a field");
    }
    seen->used = from;
    memset(out, 0, sizeof(*out));
    out->dtype.kind = NPK_KIND_STRUCT;
    out->dtype.itemsize = bytes;
    out->object = object;
    return 0;
}

/* A descr inside a field: a type string, a list, or a tuple (descr, shape). */
static int parse_value(npk__literal *l, names *seen, unsigned depth, item *out)
{
    char c = npk__literal_peek(l);
    if ((c == '[' || c == '(') && depth >= MAX_DEPTH)
        return npk__literal_fail(l, -EINVAL, "the descr is nested more than %d deep", MAX_DEPTH);
    if (npk__literal_take(l, '['))
        return parse_list(l, seen, depth + 1, out);
    if (npk__literal_take(l, '(')) {
        int err = parse_value(l, seen, depth + 1, out);
        if (err != 0)
            return err;
        if (!npk__literal_take(l, ','))
            return npk__literal_expected(l, "\",\" and a subarray's shape");
        err = parse_subarray(l, out);
        if (err != 0)
            return err;
        (void)npk__literal_take(l, ',');
        return npk__literal_take(l, ')') ? 0 : npk__literal_expected(l, "\")\" behind a subarray's shape");
    }
    npk__span text;
    int err = npk__literal_string(l, &text);
    if (err != 0)
        return err;
    memset(out, 0, sizeof(*out));
    if (npk__typestr_parse((const char *)text.text, text.bytes, &out->dtype, NULL) != 0)
        return npk__literal_fail(l, -EINVAL, "'%s' is no dtype of numpy's", npk__span_shown(text).text);
    out->object = out->dtype.kind == NPK_KIND_OBJECT;
    /* numpy lays a pickled object out as a pointer; inside a structure it only matters that there is one. */
    if (out->object)
        out->dtype.itemsize = 8;
    out->pad = out->dtype.kind == NPK_KIND_VOID;
    return 0;
}

int npk__descr_parse(npk__literal *l, npk_dtype *out)
{
    if (npk__literal_peek(l) == '(')
        return npk__literal_expected(l, "a descr, a string or a list of fields,");
    const uint8_t *start = l->at;
    names seen;
    seen.used = 0;
    item value;
    int err = parse_value(l, &seen, 0, &value);
    if (err != 0)
        return err;
    if (value.dtype.kind == NPK_KIND_STRUCT) {
        size_t bytes = (size_t)(l->at - start), n = 0;
        size_t limit = sizeof(value.dtype.name) - 1;
        for (; n < bytes && n < limit; n++)
            value.dtype.name[n] = start[n] >= 0x20 && start[n] < 0x7f ? (char)start[n] : '?';
        value.dtype.name[n] = '\0';
        if (bytes > limit)
            memcpy(value.dtype.name + limit - 3, "...", 3);
    }
    if (value.object) {
        value.dtype.kind = NPK_KIND_OBJECT;
        value.dtype.itemsize = 0;
    }
    *out = value.dtype;
    return 0;
}
