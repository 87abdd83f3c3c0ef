/* SPDX-License-Identifier: Apache-2.0 */
/* value.c - see value.h. */
#include "value.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whole numbers up to here are exact in every JSON reader. */
#define JSON_EXACT (1ull << 53)

/* Copy a number of up to 16 bytes into native (little-endian) order. */
static void native(void *out, const unsigned char *in, size_t bytes, bool big_endian)
{
    unsigned char *to = out;
    for (size_t i = 0; i < bytes; i++)
        to[i] = in[big_endian ? bytes - 1 - i : i];
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    for (size_t i = 0; i < bytes / 2; i++) {
        unsigned char swap = to[i];
        to[i] = to[bytes - 1 - i];
        to[bytes - 1 - i] = swap;
    }
#endif
}

/* ---- integers ------------------------------------------------------------------------------------------------- */

static void add_integer(cli_text *out, const cli_type *type, const unsigned char *element, cli_style style)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < type->itemsize; i++)
        bits = bits << 8 | element[type->big_endian ? i : type->itemsize - 1 - i];
    bool is_signed = type->kind == NPK_KIND_INT;
    unsigned unused = 64 - 8 * (unsigned)type->itemsize;
    int64_t value = (int64_t)(bits << unused) >> unused;
    uint64_t magnitude = is_signed && value < 0 ? 0 - (uint64_t)value : bits;
    const char *quote = style == CLI_VALUE_JSON && magnitude > JSON_EXACT ? "\"" : "";
    const char *sign = is_signed && value < 0 ? "-" : "";
    cli_text_addf(out, "%s%s%llu%s", quote, sign, (unsigned long long)magnitude, quote);
}

/* ---- floating point ------------------------------------------------------------------------------------------- */

/* The magnitude of a half with these bits; 0x7c00 (infinity) reads as 65536, what comes after the largest. */
static double half_magnitude(unsigned bits)
{
    unsigned exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
    return exponent == 0 ? ldexp(fraction, -24) : ldexp(fraction | 0x400, (int)exponent - 25);
}

typedef enum precision { HALF, SINGLE, DOUBLE, EXTENDED } precision;

/* Does this text read back as the number? */
static bool reads_back(const char *text, long double value, precision p)
{
    switch (p) {
    case SINGLE:
        return strtof(text, NULL) == (float)value;
    case DOUBLE:
        return strtod(text, NULL) == (double)value;
    case EXTENDED:
        return strtold(text, NULL) == value;
    default:
        break;
    }
    /* A half is what lies nearer to it than to its neighbours; on the middle the even one wins. */
    unsigned bits = 0;
    for (unsigned b = 0x4000; b != 0; b >>= 1)
        if (half_magnitude(bits | b) <= (double)value && (bits | b) <= 0x7bff)
            bits |= b;
    double read = strtod(text, NULL);
    double low = bits == 0 ? 0 : (half_magnitude(bits - 1) + half_magnitude(bits)) / 2;
    double high = (half_magnitude(bits) + half_magnitude(bits + 1)) / 2;
    if (read == low || read == high)
        return (bits & 1) == 0;
    return read > low && read < high;
}

/* Make "d.ddde-xx" the next larger decimal of as many digits. */
static void next_decimal(char *text)
{
    char *e = strchr(text, 'e'), *at = e - 1;
    while (at >= text && (*at == '9' || *at == '.')) {
        if (*at == '9')
            *at = '0';
        at--;
    }
    if (at >= text) {
        *at += 1;
        return;
    }
    text[0] = '1'; /* 9.99 became 0.00: the digits are those of ten times 1.00 */
    int exponent = atoi(e + 1) + 1;
    sprintf(e, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
}

/* The shortest digits of a finite positive number: d.ddd x 10^exponent, without the point; returns how many. */
static int shortest_digits(long double value, precision p, char digits[48], int *exponent)
{
    static const struct {
        int safe, enough;
        long double normal;
    } limits[] = {[HALF] = {3, 5, 6.103515625e-05L},
                  [SINGLE] = {FLT_DIG, FLT_DECIMAL_DIG, FLT_MIN},
                  [DOUBLE] = {DBL_DIG, DBL_DECIMAL_DIG, DBL_MIN},
                  [EXTENDED] = {LDBL_DIG, LDBL_DECIMAL_DIG, LDBL_MIN}};
    /* Any decimal of `safe` digits survives the way through a normal number, so shorter ones show up as zeros at the
     * end; among subnormals they do not. */
    char text[64];
    for (int count = value < limits[p].normal ? 1 : limits[p].safe;; count++) {
        snprintf(text, sizeof text, "%.*Le", count - 1, value);
        if (count >= limits[p].enough || reads_back(text, value, p))
            break;
        /* Below a power of two the next number is half as far as above it, so the decimal on the far side may read
         * back where the nearest one does not. */
        next_decimal(text);
        if (reads_back(text, value, p))
            break;
    }
    int count = 0;
    const char *at = text;
    for (; *at != 'e'; at++)
        if (*at != '.')
            digits[count++] = *at;
    while (count > 1 && digits[count - 1] == '0')
        count--;
    *exponent = atoi(at + 1);
    return count;
}

/* As Python: positional from 1e-4 to 1e16. `whole` is what a whole number ends with (".0" or "" inside complex). */
static void add_finite(cli_text *out, long double value, precision p, const char *whole)
{
    if (value == 0) {
        cli_text_addf(out, "0%s", whole);
        return;
    }
    char digits[48];
    int exponent, count = shortest_digits(value, p, digits, &exponent);
    if (exponent < -4 || exponent >= 16) {
        cli_text_addc(out, digits[0]);
        if (count > 1)
            cli_text_addf(out, ".%.*s", count - 1, digits + 1);
        cli_text_addf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    } else if (exponent < 0) {
        cli_text_addf(out, "0.%.*s%.*s", -exponent - 1, "0000", count, digits);
    } else if (count <= exponent + 1) {
        cli_text_addf(out, "%.*s%.*s%s", count, digits, exponent + 1 - count, "0000000000000000", whole);
    } else {
        cli_text_addf(out, "%.*s.%.*s", exponent + 1, digits, count - exponent - 1, digits + exponent + 1);
    }
}

static void add_float(cli_text *out, long double value, precision p, const char *whole, cli_style style)
{
    bool json = style == CLI_VALUE_JSON, negative = signbit(value) != 0;
    if (isnan(value)) {
        cli_text_adds(out, json ? "\"NaN\"" : "nan");
    } else if (isinf(value)) {
        cli_text_adds(out, json ? (negative ? "\"-Infinity\"" : "\"Infinity\"") : negative ? "-inf" : "inf");
    } else {
        if (negative)
            cli_text_addc(out, '-');
        add_finite(out, negative ? -value : value, p, whole);
    }
}

/* Read one real number. false: this machine has no such type. */
static bool read_float(const unsigned char *in, uint64_t bytes, bool big_endian, long double *value, precision *p)
{
    if (bytes == 2) {
        uint16_t bits;
        native(&bits, in, 2, big_endian);
        double magnitude =
            (bits & 0x7c00) == 0x7c00 ? ((bits & 0x3ff) != 0 ? NAN : INFINITY) : half_magnitude(bits & 0x7fff);
        *value = (bits & 0x8000) != 0 ? -magnitude : magnitude;
        *p = HALF;
    } else if (bytes == 4) {
        float number;
        native(&number, in, 4, big_endian);
        *value = number;
        *p = SINGLE;
    } else if (bytes == 8) {
        double number;
        native(&number, in, 8, big_endian);
        *value = number;
        *p = DOUBLE;
    } else if (bytes == sizeof(long double) && !big_endian) {
        memcpy(value, in, sizeof *value);
        *p = EXTENDED;
    } else {
        return false;
    }
    return true;
}

static bool add_complex(cli_text *out, const cli_type *type, const unsigned char *element, cli_style style)
{
    uint64_t half = type->itemsize / 2;
    long double re, im;
    precision p;
    if (!read_float(element, half, type->big_endian, &re, &p))
        return false;
    if (!read_float(element + half, half, type->big_endian, &im, &p))
        return false;
    if (style == CLI_VALUE_JSON) {
        cli_text_addc(out, '[');
        add_float(out, re, p, ".0", style);
        cli_text_addc(out, ',');
        add_float(out, im, p, ".0", style);
        cli_text_addc(out, ']');
        return true;
    }
    /* Python leaves out a real part of +0. */
    bool imaginary_only = re == 0 && !signbit(re);
    if (!imaginary_only) {
        cli_text_addc(out, '(');
        add_float(out, re, p, "", style);
        if (isnan(im) || !signbit(im))
            cli_text_addc(out, '+');
    }
    add_float(out, im, p, "", style);
    cli_text_adds(out, imaginary_only ? "j" : "j)");
    return true;
}

/* ---- time ----------------------------------------------------------------------------------------------------- */

/* Units by length; per: how many of this unit one of the unit before has; digits: decimals of a second. */
static const struct unit {
    const char *name, *word;
    int64_t per_day; /* 0: longer than a day; beyond a second: per second, see digits */
    int digits;
} units[] = {
    {"Y", "years", 0, -1},
    {"M", "months", 0, -1},
    {"W", "weeks", 0, -1},
    {"D", "days", 1, -1},
    {"h", "hours", 24, -1},
    {"m", "minutes", 1440, -1},
    {"s", "seconds", 86400, 0},
    {"ms", "milliseconds", 86400, 3},
    {"us", "microseconds", 86400, 6},
    {"ns", "nanoseconds", 86400, 9},
    {"ps", "picoseconds", 86400, 12},
    {"fs", "femtoseconds", 86400, 15},
    {"as", "attoseconds", 86400, 18},
};

typedef __int128 wide;

static wide floor_div(wide a, wide b, wide *rest)
{
    wide q = a / b, r = a % b;
    if (r < 0) {
        q--;
        r += b;
    }
    *rest = r;
    return q;
}

/* The civil date of a day counted from 1970-01-01, after the usual count in eras of 400 years that begin in March. */
static void add_date(cli_text *out, wide day)
{
    wide day_of_era, era = floor_div(day + 719468, 146097, &day_of_era);
    int64_t doe = (int64_t)day_of_era;
    int64_t year_of_era = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t day_of_year = doe - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted_month = (5 * day_of_year + 2) / 153;
    int64_t day_of_month = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    int64_t month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
    wide year = era * 400 + year_of_era + (month <= 2 ? 1 : 0);
    cli_text_addf(out, "%04lld-%02d-%02d", (long long)year, (int)month, (int)day_of_month);
}

static void add_wide(cli_text *out, wide value)
{
    char digits[48];
    size_t at = sizeof digits;
    unsigned __int128 rest = value < 0 ? -(unsigned __int128)value : (unsigned __int128)value;
    do
        digits[--at] = (char)('0' + (int)(rest % 10));
    while ((rest /= 10) != 0);
    if (value < 0)
        digits[--at] = '-';
    cli_text_add(out, digits + at, sizeof digits - at);
}

/* The time of day, `count` units of which per_day * 10^digits make a day. */
static void add_clock(cli_text *out, const struct unit *unit, wide count)
{
    wide scale = 1, fraction;
    for (int i = 0; i < unit->digits; i++)
        scale *= 10;
    int64_t whole = (int64_t)floor_div(count, scale, &fraction);
    int64_t seconds = whole * (86400 / unit->per_day);
    cli_text_addf(out, "T%02d", (int)(seconds / 3600));
    if (unit->per_day >= 1440)
        cli_text_addf(out, ":%02d", (int)(seconds / 60 % 60));
    if (unit->per_day >= 86400)
        cli_text_addf(out, ":%02d", (int)(seconds % 60));
    if (unit->digits > 0)
        cli_text_addf(out, ".%0*lld", unit->digits, (long long)fraction);
}

static void add_instant(cli_text *out, const struct unit *unit, wide count)
{
    wide rest;
    if (strcmp(unit->name, "Y") == 0) {
        cli_text_addf(out, "%04lld", (long long)(count + 1970));
    } else if (strcmp(unit->name, "M") == 0) {
        wide year = floor_div(count, 12, &rest) + 1970;
        cli_text_addf(out, "%04lld-%02d", (long long)year, (int)rest + 1);
    } else if (strcmp(unit->name, "W") == 0) {
        add_date(out, count * 7);
    } else {
        wide per_day = unit->per_day;
        for (int i = 0; i < unit->digits; i++)
            per_day *= 10;
        wide day = floor_div(count, per_day, &rest);
        add_date(out, day);
        if (per_day > 1)
            add_clock(out, unit, rest);
    }
}

static void add_datetime(cli_text *out, const cli_type *type, const unsigned char *element, cli_style style)
{
    int64_t value;
    native(&value, element, 8, type->big_endian);
    if (value == INT64_MIN) {
        cli_text_adds(out, style == CLI_VALUE_JSON ? "null" : "NaT");
        return;
    }
    const struct unit *unit = NULL;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(units[i].name, type->unit) == 0)
            unit = &units[i];
    wide count = (wide)value * (wide)type->multiple;
    const char *quote = style == CLI_VALUE_JSON ? "\"" : style == CLI_QUOTED ? "'" : "";
    cli_text_adds(out, quote);
    if (unit == NULL) {
        add_wide(out, count);
    } else if (type->timedelta) {
        add_wide(out, count);
        cli_text_addf(out, " %s", unit->word);
    } else {
        add_instant(out, unit, count);
    }
    cli_text_adds(out, quote);
}

/* ---- text and bytes ------------------------------------------------------------------------------------------- */

/* One byte of a Python literal in single quotes. */
static void add_literal_byte(cli_text *out, unsigned char c)
{
    if (c == '\\' || c == '\'')
        cli_text_addf(out, "\\%c", c);
    else if (c == '\t')
        cli_text_adds(out, "\\t");
    else if (c == '\n')
        cli_text_adds(out, "\\n");
    else if (c == '\r')
        cli_text_adds(out, "\\r");
    else if (c < 0x20 || c >= 0x7f)
        cli_text_addf(out, "\\x%02x", c);
    else
        cli_text_addc(out, (char)c);
}

static void add_bytes(cli_text *out, const unsigned char *element, size_t bytes, cli_style style)
{
    while (bytes > 0 && element[bytes - 1] == 0)
        bytes--; /* numpy pads with NUL and shows none at the end */
    if (style == CLI_VALUE_JSON) {
        cli_text_add_json(out, element, bytes);
    } else if (style == CLI_PLAIN) {
        cli_text_add_cell(out, element, bytes);
    } else {
        cli_text_adds(out, "b'");
        for (size_t i = 0; i < bytes; i++)
            add_literal_byte(out, element[i]);
        cli_text_addc(out, '\'');
    }
}

static uint32_t code_point_at(const cli_type *type, const unsigned char *element, size_t i)
{
    uint32_t c;
    native(&c, element + 4 * i, 4, type->big_endian);
    return c;
}

static void add_unicode(cli_text *out, const cli_type *type, const unsigned char *element, cli_style style)
{
    size_t count = (size_t)(type->itemsize / 4);
    while (count > 0 && code_point_at(type, element, count - 1) == 0)
        count--;
    const char *quote = style == CLI_VALUE_JSON ? "\"" : style == CLI_QUOTED ? "'" : "";
    cli_text_adds(out, quote);
    for (size_t i = 0; i < count; i++) {
        uint32_t c = code_point_at(type, element, i);
        bool scalar = c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff);
        cli_text one = {0};
        if (!scalar && style == CLI_VALUE_JSON && c > 0x10ffff)
            cli_text_add_code_point(out, 0xfffd);
        else if (!scalar)
            cli_text_add_code_point(out, c);
        else if (style == CLI_QUOTED && c < 0x80)
            add_literal_byte(out, (unsigned char)c);
        else {
            cli_text_add_code_point(&one, c);
            if (style == CLI_VALUE_JSON) {
                cli_text json = {0};
                cli_text_add_json(&json, cli_text_string(&one), one.bytes);
                if (json.bytes >= 2)
                    cli_text_add(out, json.data + 1, json.bytes - 2);
                out->failed |= json.failed;
                cli_text_clear(&json);
            } else {
                cli_text_add_cell(out, cli_text_string(&one), one.bytes);
            }
        }
        out->failed |= one.failed;
        cli_text_clear(&one);
    }
    cli_text_adds(out, quote);
}

static void add_void(cli_text *out, const unsigned char *element, size_t bytes, cli_style style)
{
    bool json = style == CLI_VALUE_JSON;
    cli_text_adds(out, json ? "\"" : "b'");
    for (size_t i = 0; i < bytes; i++)
        cli_text_addf(out, json ? "%02x" : "\\x%02x", element[i]);
    cli_text_adds(out, json ? "\"" : "'");
}

/* ---- structures ----------------------------------------------------------------------------------------------- */

/* A field's array as a nested list; returns the bytes that it walked over. */
static uint64_t add_field_array(cli_text *out, const cli_field *f, uint32_t dim, const unsigned char *at,
                                cli_style style)
{
    if (dim == f->ndim) {
        cli_value_add(out, &f->type, at, style);
        return f->type.itemsize;
    }
    uint64_t walked = 0;
    cli_text_addc(out, '[');
    for (uint64_t i = 0; f->element_count > 0 && i < f->shape[dim]; i++) {
        if (i > 0)
            cli_text_adds(out, style == CLI_VALUE_JSON ? "," : ", ");
        walked += add_field_array(out, f, dim + 1, at + walked, style);
    }
    cli_text_addc(out, ']');
    return walked;
}

static void add_struct(cli_text *out, const cli_type *type, const unsigned char *element, cli_style style)
{
    bool json = style == CLI_VALUE_JSON;
    size_t shown = 0;
    cli_text_addc(out, json ? '{' : '(');
    for (size_t i = 0; i < type->field_count; i++) {
        const cli_field *f = &type->fields[i];
        if (f->name[0] == '\0')
            continue; /* padding */
        if (shown++ > 0)
            cli_text_adds(out, json ? "," : ", ");
        if (json) {
            cli_text_add_json(out, f->name, strlen(f->name));
            cli_text_addc(out, ':');
        }
        add_field_array(out, f, 0, element + f->offset, json ? style : CLI_QUOTED);
    }
    cli_text_adds(out, json ? "}" : shown == 1 ? ",)" : ")");
}

/* As repr(), then escaped as a cell where that is the style. */
static void add_as_cell(cli_text *out, const cli_type *type, const unsigned char *element, cli_style style)
{
    cli_text literal = {0};
    cli_text *to = style == CLI_PLAIN ? &literal : out;
    if (type->kind == NPK_KIND_STRUCT)
        add_struct(to, type, element, style);
    else
        add_void(to, element, (size_t)type->itemsize, style);
    if (style != CLI_PLAIN)
        return;
    cli_text_add_cell(out, cli_text_string(&literal), literal.bytes);
    out->failed |= literal.failed;
    cli_text_clear(&literal);
}

void cli_value_add(cli_text *out, const cli_type *type, const void *element, cli_style style)
{
    const unsigned char *bytes = element;
    long double value;
    precision p;
    switch (type->kind) {
    case NPK_KIND_BOOL:
        if (style == CLI_VALUE_JSON)
            cli_text_adds(out, bytes[0] != 0 ? "true" : "false");
        else
            cli_text_adds(out, bytes[0] != 0 ? "True" : "False");
        return;
    case NPK_KIND_INT:
    case NPK_KIND_UINT:
        add_integer(out, type, bytes, style);
        return;
    case NPK_KIND_FLOAT:
        if (!read_float(bytes, type->itemsize, type->big_endian, &value, &p))
            break;
        add_float(out, value, p, ".0", style);
        return;
    case NPK_KIND_COMPLEX:
        if (!add_complex(out, type, bytes, style))
            break;
        return;
    case NPK_KIND_DATETIME:
        add_datetime(out, type, bytes, style);
        return;
    case NPK_KIND_BYTES:
        add_bytes(out, bytes, (size_t)type->itemsize, style);
        return;
    case NPK_KIND_UNICODE:
        add_unicode(out, type, bytes, style);
        return;
    default:
        break;
    }
    add_as_cell(out, type, bytes, style);
}
