/* SPDX-License-Identifier: Apache-2.0 */
/* type.c - see type.h. */
#include "type.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Where the parser stands in the Python text. */
typedef struct scan {
    const char *at, *end;
    cli_why *why;
} scan;

static int bad(scan *s, const char *what)
{
    int left = s->end - s->at > 20 ? 20 : (int)(s->end - s->at);
    return cli_why_set(s->why, -EINVAL, "the dtype of the header makes no sense at \"%.*s\": %s", left, s->at, what);
}

static void skip_blanks(scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

static bool take(scan *s, char c)
{
    skip_blanks(s);
    if (s->at >= s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static int scan_u64(scan *s, uint64_t *out)
{
    skip_blanks(s);
    if (s->at >= s->end || *s->at < '0' || *s->at > '9')
        return bad(s, "a number is missing");
    uint64_t value = 0;
    for (; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++) {
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*s->at - '0'), &value) || value > INT64_MAX)
            return cli_why_set(s->why, -EOVERFLOW, "the dtype of the header is too large");
    }
    *out = value;
    return 0;
}

/* One escape behind a backslash, as Python has them. */
static int scan_escape(scan *s, cli_text *out)
{
    if (s->at >= s->end)
        return bad(s, "a string does not end");
    char c = *s->at++;
    static const char names[] = "abfnrtv", codes[] = "\a\b\f\n\r\t\v";
    const char *simple = memchr(names, c, sizeof names - 1);
    if (simple != NULL) {
        cli_text_addc(out, codes[simple - names]);
        return 0;
    }
    int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
        if (c != '\\' && c != '\'' && c != '"')
            cli_text_addc(out, '\\');
        cli_text_addc(out, c);
        return 0;
    }
    uint32_t value = 0;
    for (int i = 0; i < digits; i++, s->at++) {
        if (s->at >= s->end)
            return bad(s, "a string does not end");
        char d = *s->at;
        int digit = d >= '0' && d <= '9' ? d - '0' : (d | 32) >= 'a' && (d | 32) <= 'f' ? (d | 32) - 'a' + 10 : -1;
        if (digit < 0)
            return bad(s, "an escape is cut short");
        value = value << 4 | (uint32_t)digit;
    }
    cli_text_add_code_point(out, value);
    return 0;
}

/* A Python string in either quote. */
static int scan_string(scan *s, cli_text *out)
{
    char quote = take(s, '\'') ? '\'' : take(s, '"') ? '"' : 0;
    if (quote == 0)
        return bad(s, "a string is missing");
    while (s->at < s->end && *s->at != quote) {
        char c = *s->at++;
        if (c != '\\') {
            cli_text_addc(out, c);
            continue;
        }
        int err = scan_escape(s, out);
        if (err != 0)
            return err;
    }
    if (s->at >= s->end)
        return bad(s, "a string does not end");
    s->at++;
    return out->failed ? -ENOMEM : 0;
}

/* The "[25ns]" of a datetime; absent means no unit. */
static int parse_unit(scan *s, cli_type *type)
{
    type->multiple = 1;
    if (s->at == s->end)
        return 0;
    if (!take(s, '['))
        return bad(s, "a unit is missing");
    if (s->at < s->end && *s->at >= '0' && *s->at <= '9') {
        int err = scan_u64(s, &type->multiple);
        if (err != 0)
            return err;
    }
    static const char *const units[] = {"Y",  "M",  "W",  "D",  "h",  "m",  "s",
                                        "ms", "us", "ns", "ps", "fs", "as", "generic"};
    const char *name = s->at;
    while (s->at < s->end && *s->at != ']')
        s->at++;
    size_t length = (size_t)(s->at - name);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strlen(units[i]) != length || memcmp(units[i], name, length) != 0)
            continue;
        if (type->multiple == 0 || type->multiple > INT32_MAX)
            break;
        if (i + 1 < sizeof units / sizeof *units)
            memcpy(type->unit, name, length);
        if (take(s, ']') && s->at == s->end)
            return 0;
    }
    return bad(s, "no unit of time");
}

/* The kind of a type string's letter. */
static int kind_of(char letter, npk_kind *kind)
{
    static const char letters[] = "biufcMmSaUVO?";
    static const npk_kind kinds[] = {NPK_KIND_BOOL,    NPK_KIND_INT,      NPK_KIND_UINT,     NPK_KIND_FLOAT,
                                     NPK_KIND_COMPLEX, NPK_KIND_DATETIME, NPK_KIND_DATETIME, NPK_KIND_BYTES,
                                     NPK_KIND_BYTES,   NPK_KIND_UNICODE,  NPK_KIND_VOID,     NPK_KIND_OBJECT,
                                     NPK_KIND_BOOL};
    const char *found = letter != '\0' ? memchr(letters, letter, sizeof letters - 1) : NULL;
    if (found == NULL)
        return -EINVAL;
    *kind = kinds[found - letters];
    return 0;
}

/* Is there such a number of bytes for this kind? */
static bool size_fits(const cli_type *t)
{
    uint64_t n = t->itemsize;
    switch (t->kind) {
    case NPK_KIND_BOOL:
        return n == 1;
    case NPK_KIND_INT:
    case NPK_KIND_UINT:
        return n == 1 || n == 2 || n == 4 || n == 8;
    case NPK_KIND_FLOAT:
        return n == 2 || n == 4 || n == 8 || n == 12 || n == 16;
    case NPK_KIND_COMPLEX:
        return n == 8 || n == 16 || n == 24 || n == 32;
    case NPK_KIND_DATETIME:
        return n == 8;
    default:
        return true;
    }
}

/* "<f4", "|S10", "<M8[ns]". */
static int parse_code(const char *code, size_t bytes, cli_type *type, cli_why *why)
{
    scan s = {.at = code, .end = code + bytes, .why = why};
    char order = '|';
    if (s.at < s.end && memchr("<>|=", *s.at, 4) != NULL)
        order = *s.at++;
    char letter = s.at < s.end ? *s.at++ : '\0';
    if (kind_of(letter, &type->kind) != 0)
        return cli_why_set(why, -EINVAL, "\"%.40s\" is no dtype", code);
    if (type->kind == NPK_KIND_OBJECT)
        return cli_why_set(why, -ENOTSUP, "its elements are pickled Python objects, which are never decoded");
    int err = letter == '?' ? 0 : scan_u64(&s, &type->itemsize);
    if (err != 0)
        return err;
    if (letter == '?')
        type->itemsize = 1;
    if (type->kind == NPK_KIND_UNICODE && __builtin_mul_overflow(type->itemsize, (uint64_t)4, &type->itemsize))
        return cli_why_set(why, -EOVERFLOW, "the dtype of the header is too large");
    type->big_endian = order == '>' && type->itemsize > 1;
    type->timedelta = letter == 'm';
    if (type->kind == NPK_KIND_DATETIME)
        err = parse_unit(&s, type);
    if (err != 0)
        return err;
    if (s.at != s.end || !size_fits(type))
        return cli_why_set(why, -EINVAL, "\"%.40s\" is no dtype", code);
    return 0;
}

static int parse_type(scan *s, cli_type *type, int depth);

/* "(2, 3)", "(2,)" or "2". */
static int parse_field_shape(scan *s, cli_field *field)
{
    if (!take(s, '(')) {
        field->ndim = 1;
        return scan_u64(s, &field->shape[0]);
    }
    while (!take(s, ')')) {
        if (field->ndim == NPK_MAX_DIMS)
            return bad(s, "too many dimensions");
        int err = scan_u64(s, &field->shape[field->ndim++]);
        if (err != 0)
            return err;
        if (!take(s, ','))
            return take(s, ')') ? 0 : bad(s, "a shape does not end");
    }
    return 0;
}

/* "('name', TYPE)", "('name', TYPE, SHAPE)" or "(('title', 'name'), TYPE)". */
static int parse_field(scan *s, cli_field *field, int depth)
{
    if (!take(s, '('))
        return bad(s, "a field is missing");
    cli_text name = {0};
    bool titled = take(s, '(');
    int err = scan_string(s, &name);
    if (err == 0 && titled) {
        cli_text_reset(&name);
        err = !take(s, ',') ? bad(s, "a comma is missing") : scan_string(s, &name);
        if (err == 0 && !take(s, ')'))
            err = bad(s, "a title does not end");
    }
    field->name = err == 0 ? strdup(cli_text_string(&name)) : NULL;
    cli_text_clear(&name);
    if (err != 0)
        return err;
    if (field->name == NULL)
        return -ENOMEM;
    if (!take(s, ','))
        return bad(s, "a comma is missing");
    err = parse_type(s, &field->type, depth + 1);
    if (err != 0)
        return err;
    if (take(s, ',') && s->at < s->end && (skip_blanks(s), *s->at != ')')) {
        err = parse_field_shape(s, field);
        if (err != 0)
            return err;
        take(s, ',');
    }
    return take(s, ')') ? 0 : bad(s, "a field does not end");
}

/* Lay the field out behind what is there. */
static int place_field(scan *s, cli_type *type, cli_field *field)
{
    field->offset = type->itemsize;
    field->element_count = 1;
    uint64_t bytes;
    bool over = false;
    for (uint32_t i = 0; i < field->ndim; i++)
        over |= __builtin_mul_overflow(field->element_count, field->shape[i], &field->element_count);
    over |= __builtin_mul_overflow(field->element_count, field->type.itemsize, &bytes);
    over |= __builtin_add_overflow(type->itemsize, bytes, &type->itemsize);
    if (over || type->itemsize > INT64_MAX)
        return cli_why_set(s->why, -EOVERFLOW, "the dtype of the header is too large");
    /* Arrays of nothing cost no bytes, so nothing would bound the work of showing them. */
    if (field->type.itemsize == 0 && field->element_count > 1)
        return cli_why_set(s->why, -ENOTSUP, "its field \"%.40s\" is an array of elements without bytes", field->name);
    return 0;
}

static int parse_fields(scan *s, cli_type *type, int depth)
{
    type->kind = NPK_KIND_STRUCT;
    size_t capacity = 0;
    while (!take(s, ']')) {
        if (type->field_count == CLI_MAX_FIELDS)
            return bad(s, "too many fields");
        if (type->field_count == capacity) {
            capacity = capacity == 0 ? 4 : capacity * 2;
            cli_field *fields = reallocarray(type->fields, capacity, sizeof *fields);
            if (fields == NULL)
                return -ENOMEM;
            type->fields = fields;
        }
        cli_field *field = &type->fields[type->field_count++];
        memset(field, 0, sizeof *field);
        int err = parse_field(s, field, depth);
        if (err == 0)
            err = place_field(s, type, field);
        if (err != 0)
            return err;
        if (!take(s, ','))
            return take(s, ']') ? 0 : bad(s, "a list of fields does not end");
    }
    return 0;
}

static int parse_type(scan *s, cli_type *type, int depth)
{
    if (depth > CLI_MAX_NESTING)
        return bad(s, "structures are nested too deeply");
    if (take(s, '['))
        return parse_fields(s, type, depth);
    cli_text code = {0};
    int err = scan_string(s, &code);
    if (err == 0)
        err = parse_code(cli_text_string(&code), code.bytes, type, s->why);
    cli_text_clear(&code);
    return err;
}

static void clear_type(cli_type *type)
{
    for (size_t i = 0; i < type->field_count; i++) {
        free(type->fields[i].name);
        clear_type(&type->fields[i].type);
    }
    free(type->fields);
}

void cli_type_free(cli_type *type)
{
    if (type == NULL)
        return;
    clear_type(type);
    free(type);
}

int cli_type_parse(const char *descr, size_t bytes, cli_type **out, cli_why *why)
{
    scan s = {.at = descr, .end = descr + bytes, .why = why};
    why->text[0] = '\0';
    cli_type *type = calloc(1, sizeof *type);
    int err = type == NULL ? -ENOMEM : parse_type(&s, type, 0);
    if (err == 0) {
        skip_blanks(&s);
        if (s.at != s.end)
            err = bad(&s, "something follows");
    }
    if (err != 0) {
        cli_type_free(type);
        return why->text[0] != '\0' ? err : cli_why_set(why, err, "%s", strerror(-err));
    }
    *out = type;
    return 0;
}

static bool field_equal(const cli_field *a, const cli_field *b)
{
    return strcmp(a->name, b->name) == 0 && a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, a->ndim * sizeof a->shape[0]) == 0 && cli_type_equal(&a->type, &b->type);
}

bool cli_type_equal(const cli_type *a, const cli_type *b)
{
    if (a->kind != b->kind || a->big_endian != b->big_endian || a->itemsize != b->itemsize)
        return false;
    if (a->kind == NPK_KIND_DATETIME)
        return a->timedelta == b->timedelta && a->multiple == b->multiple && strcmp(a->unit, b->unit) == 0;
    if (a->field_count != b->field_count)
        return false;
    for (size_t i = 0; i < a->field_count; i++)
        if (!field_equal(&a->fields[i], &b->fields[i]))
            return false;
    return true;
}

/* The letter and size of a type string: "f4", "U10", "M8[ns]". */
static void add_code(const cli_type *t, cli_text *out)
{
    static const char letters[] = {[NPK_KIND_BOOL] = 'b',    [NPK_KIND_INT] = 'i',     [NPK_KIND_UINT] = 'u',
                                   [NPK_KIND_FLOAT] = 'f',   [NPK_KIND_COMPLEX] = 'c', [NPK_KIND_BYTES] = 'S',
                                   [NPK_KIND_UNICODE] = 'U', [NPK_KIND_VOID] = 'V',    [NPK_KIND_DATETIME] = 'M'};
    char letter = t->timedelta ? 'm' : letters[t->kind];
    uint64_t size = t->kind == NPK_KIND_UNICODE ? t->itemsize / 4 : t->itemsize;
    cli_text_addf(out, "%c%llu", letter, (unsigned long long)size);
    if (t->kind != NPK_KIND_DATETIME || t->unit[0] == '\0')
        return;
    if (t->multiple != 1)
        cli_text_addf(out, "[%llu%s]", (unsigned long long)t->multiple, t->unit);
    else
        cli_text_addf(out, "[%s]", t->unit);
}

static void add_field(const cli_field *f, cli_text *out)
{
    cli_text_addf(out, "('%s', ", f->name);
    if (f->type.kind == NPK_KIND_STRUCT) {
        cli_type_name(&f->type, out);
    } else {
        bool ordered = f->type.itemsize > 1 && f->type.kind != NPK_KIND_BYTES && f->type.kind != NPK_KIND_VOID;
        cli_text_addf(out, "'%s", !ordered ? "|" : f->type.big_endian ? ">" : "<");
        add_code(&f->type, out);
        cli_text_addc(out, '\'');
    }
    if (f->ndim > 0) {
        cli_text_adds(out, ", (");
        for (uint32_t i = 0; i < f->ndim; i++)
            cli_text_addf(out, "%s%llu", i > 0 ? ", " : "", (unsigned long long)f->shape[i]);
        cli_text_adds(out, f->ndim == 1 ? ",)" : ")");
    }
    cli_text_addc(out, ')');
}

void cli_type_name(const cli_type *type, cli_text *out)
{
    static const char *const names[] = {
        [NPK_KIND_INT] = "int", [NPK_KIND_UINT] = "uint", [NPK_KIND_FLOAT] = "float", [NPK_KIND_COMPLEX] = "complex"};
    if (type->kind == NPK_KIND_STRUCT) {
        cli_text_addc(out, '[');
        for (size_t i = 0; i < type->field_count; i++) {
            if (i > 0)
                cli_text_adds(out, ", ");
            add_field(&type->fields[i], out);
        }
        cli_text_addc(out, ']');
    } else if (type->kind == NPK_KIND_BOOL) {
        cli_text_adds(out, "bool");
    } else if (type->kind == NPK_KIND_DATETIME && !type->big_endian) {
        cli_text_adds(out, type->timedelta ? "timedelta64" : "datetime64");
        if (type->unit[0] == '\0')
            return;
        if (type->multiple != 1)
            cli_text_addf(out, "[%llu%s]", (unsigned long long)type->multiple, type->unit);
        else
            cli_text_addf(out, "[%s]", type->unit);
    } else if (type->kind <= NPK_KIND_COMPLEX && !type->big_endian) {
        cli_text_addf(out, "%s%llu", names[type->kind], (unsigned long long)type->itemsize * 8);
    } else {
        if (type->big_endian)
            cli_text_addc(out, '>');
        add_code(type, out);
    }
}
