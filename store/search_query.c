/* SPDX-License-Identifier: Apache-2.0 */
/* search_query.c - metrics by name, which dtypes they take, and queries made ready for the kernels. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "search.h"

/* So few queries are faster one by one along the rows than in a panel whose other lanes are empty. */
#define FEW_MOST 4
/* Longer rows go through double precision: the bound of single precision would let too many rows pass. */
#define F32_DIM (1u << 20)
/* Bits of a row that a float still counts. */
#define BITS_DIM (1u << 20)

static const char *const names[NPK_METRIC_COUNT] = {"dot", "cosine",          "l2", "l2sq", "hamming", "jaccard", "kl",
                                                    "js",  "hamming_elements"};

static const struct alias {
    const char *name;
    npk_metric metric;
} aliases[] = {
    {"inner", NPK_DOT},       {"inner_product", NPK_DOT},        {"dot_product", NPK_DOT},  {"dotproduct", NPK_DOT},
    {"cos", NPK_COSINE},      {"cosine_similarity", NPK_COSINE}, {"euclidean", NPK_L2},     {"l2_distance", NPK_L2},
    {"l2_squared", NPK_L2SQ}, {"squared_euclidean", NPK_L2SQ},   {"kl_divergence", NPK_KL}, {"js_divergence", NPK_JS},
};

npk_err npk_metric_parse(const char *text, npk_metric *out)
{
    for (int i = 0; i < NPK_METRIC_COUNT; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (npk_metric)i;
            return 0;
        }
    for (size_t i = 0; i < sizeof(aliases) / sizeof(*aliases); i++)
        if (strcmp(text, aliases[i].name) == 0) {
            *out = aliases[i].metric;
            return 0;
        }
    return npk__fail(
        -EINVAL, "\"%s\" is no metric; dot, cosine, l2, l2sq, hamming, jaccard, kl, js and hamming_elements are", text);
}

const char *npk_metric_name(npk_metric metric)
{
    return (unsigned)metric < NPK_METRIC_COUNT ? names[metric] : "unknown";
}

bool npk_metric_is_similarity(npk_metric metric)
{
    return metric == NPK_DOT || metric == NPK_COSINE;
}

kn_metric npk__metric_exact(npk_metric metric)
{
    static const kn_metric exact[] = {KN_DOT,     KN_COSINE, KN_L2, KN_L2SQ,    KN_HAMMING,
                                      KN_JACCARD, KN_KL,     KN_JS, KN_ELEMENTS};
    return exact[metric];
}

/* ---- dtypes ---------------------------------------------------------------------------------------------------- */

static bool type_of(const npk_dtype *d, kn_type *out)
{
    int size = d->itemsize == 1 ? 0 : d->itemsize == 2 ? 1 : d->itemsize == 4 ? 2 : d->itemsize == 8 ? 3 : -1;
    static const kn_type ints[] = {KN_I8, KN_I16, KN_I32, KN_I64}, uints[] = {KN_U8, KN_U16, KN_U32, KN_U64};
    static const kn_type floats[] = {KN_F16, KN_F16, KN_F32, KN_F64};
    if (size < 0)
        return false;
    if (d->kind == NPK_KIND_INT)
        *out = ints[size];
    else if (d->kind == NPK_KIND_UINT)
        *out = uints[size];
    else if (d->kind == NPK_KIND_FLOAT && size > 0)
        *out = floats[size];
    else
        return false;
    return true;
}

static int check_dtype(const npk__search *s, const npk_dtype *d, const char *what, kn_type *out)
{
    bool bits = s->metric == NPK_HAMMING || s->metric == NPK_JACCARD;
    if (!type_of(d, out))
        return npk__fail(-ENOTSUP, "\"%s\": dtype %s has no %s; %s", what, d->name, npk_metric_name(s->metric),
                         bits ? "uint8 (packed bits) has"
                              : "float16, float32, float64 and integers of 8 to 64 bits have");
    if (bits && *out != KN_U8)
        return npk__fail(-ENOTSUP, "\"%s\": %s is of packed bits, which dtype %s does not hold; uint8 does%s", what,
                         npk_metric_name(s->metric), d->name,
                         s->metric == NPK_HAMMING ? " (hamming_elements compares elements of any dtype)" : "");
    return 0;
}

static void swap_bytes(uint8_t *at, size_t count, size_t item)
{
    for (size_t i = 0; i < count; i++, at += item)
        for (size_t j = 0; j < item / 2; j++) {
            uint8_t t = at[j];
            at[j] = at[item - 1 - j];
            at[item - 1 - j] = t;
        }
}

/* ---- queries in the rows' type ----------------------------------------------------------------------------------- */

/* Is every value one of the type's? Then out has them. Integers of both sides are compared as integers. */
static bool as_type(kn_type to, kn_type from, const uint8_t *data, const double *values, size_t count, uint8_t *out)
{
    size_t item = kn_type_bytes(to);
    if (to == from) {
        memcpy(out, data, count * item);
        return true;
    }
    bool from_wide = from == KN_I64 || from == KN_U64;
    for (size_t i = 0; i < count; i++, out += item) {
        double v = values[i], back;
        if (from_wide && fabs(v) >= 0x1p53)
            return false;
#define PUT(TYPE)                                                                                                      \
    {                                                                                                                  \
        TYPE e = (TYPE)v;                                                                                              \
        memcpy(out, &e, sizeof(e));                                                                                    \
        back = (double)e;                                                                                              \
    }                                                                                                                  \
    break
#define PUT_INTEGER(TYPE, LOW, HIGH)                                                                                   \
    {                                                                                                                  \
        if (!(v >= (LOW) && v <= (HIGH)))                                                                              \
            return false;                                                                                              \
        TYPE e = (TYPE)v;                                                                                              \
        memcpy(out, &e, sizeof(e));                                                                                    \
        back = (double)e;                                                                                              \
    }                                                                                                                  \
    break
        switch (to) {
        case KN_F32:
            PUT(float);
        case KN_F64:
            PUT(double);
        case KN_I8:
            PUT_INTEGER(int8_t, -0x1p7, 0x1p7 - 1);
        case KN_U8:
            PUT_INTEGER(uint8_t, 0, 0x1p8 - 1);
        case KN_I16:
            PUT_INTEGER(int16_t, -0x1p15, 0x1p15 - 1);
        case KN_U16:
            PUT_INTEGER(uint16_t, 0, 0x1p16 - 1);
        case KN_I32:
            PUT_INTEGER(int32_t, -0x1p31, 0x1p31 - 1);
        case KN_U32:
            PUT_INTEGER(uint32_t, 0, 0x1p32 - 1);
        case KN_I64:
            PUT_INTEGER(int64_t, -0x1p63, 0x1p63 - 1024);
        case KN_U64:
            PUT_INTEGER(uint64_t, 0, 0x1p64 - 2048);
        default:
            return false; /* float16 rows need no query of their type */
        }
        if (back != v)
            return false;
    }
    return true;
}

static bool fit_float(const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (values[i] == values[i] && (double)(float)values[i] != values[i])
            return false;
    return true;
}

/* ---- which kernels ----------------------------------------------------------------------------------------------- */

static bool fits_float(kn_type t)
{
    return t == KN_F32 || t == KN_F16 || t == KN_I8 || t == KN_U8 || t == KN_I16 || t == KN_U16;
}

static npk__class class_of(const npk__search *s, bool query_is_float)
{
    if (s->dim == 0 || s->metric == NPK_HAMMING_ELEMENTS)
        return NPK__NONE;
    if (s->metric == NPK_HAMMING || s->metric == NPK_JACCARD)
        return s->dim < BITS_DIM ? NPK__BITS : NPK__NONE;
    if (s->metric == NPK_KL || s->metric == NPK_JS)
        return s->dim < F32_DIM ? NPK__F32 : NPK__NONE;
    if (s->type == KN_I8 && s->same != NULL && s->dim <= KN_I8_DIM / 4)
        return NPK__I8;
    return fits_float(s->type) && query_is_float && s->dim < F32_DIM ? NPK__F32 : NPK__F64;
}

static void choose(npk__search *s, bool query_is_float)
{
    double unit = 0x1p-24, products = (double)s->dim * 16384;
    s->class = class_of(s, query_is_float);
    s->converted =
        (s->class == NPK__F32 && s->type != KN_F32) || (s->class == NPK__F64 && s->type != KN_F64) || s->swap;
    /* The kernels' bound, the packed query's rounding, and that of value = acc * scale + slack * add. */
    s->error = s->class == NPK__F32 ? ((double)s->dim + 32) * unit * 1.02 + 8 * unit : 16 * unit;
    bool l2 = s->metric == NPK_L2 || s->metric == NPK_L2SQ;
    s->integral = s->class == NPK__BITS ||
                  (s->class == NPK__I8 && s->metric != NPK_COSINE && (l2 ? 3 * products : products) < 0x1p24);
}

/* ---- packing ----------------------------------------------------------------------------------------------------- */

static kn_panel *panel_of(const npk__search *s, unsigned *lanes)
{
    const kn_distance *k = s->kernel;
    *lanes = s->class == NPK__F32   ? k->lanes_f32
             : s->class == NPK__F64 ? k->lanes_f64
             : s->class == NPK__I8  ? k->lanes_i8
                                    : k->lanes_bits;
    if (s->class == NPK__NONE || s->metric == NPK_JS)
        return NULL;
    return s->class == NPK__F32   ? k->panel_dot_f32
           : s->class == NPK__F64 ? k->panel_dot_f64
           : s->class == NPK__I8  ? k->panel_dot_i8
                                  : k->panel_xor_bits;
}

static size_t panel_bytes(const npk__search *s, unsigned width)
{
    switch (s->class) {
    case NPK__F32:
        return s->dim * width * sizeof(float);
    case NPK__F64:
        return s->dim * width * sizeof(double);
    case NPK__I8:
        return 4 * width * (1 + (s->dim + 3) / 4);
    default:
        return (s->dim + 7) / 8 * width * 8;
    }
}

static size_t packed_item(const npk__search *s)
{
    return s->class == NPK__F32 ? 4 : s->class == NPK__F64 ? 8 : 1;
}

static int add_group(npk__search *s, size_t first, unsigned count, unsigned width)
{
    npk__group *g = &s->groups[s->group_count++];
    const uint8_t *from = (const uint8_t *)s->packed_few + first * s->dim * packed_item(s);
    *g = (npk__group){.first = first, .count = count, .width = width};
    if (width == 0) {
        g->packed = (void *)from;
        return 0;
    }
    g->packed = aligned_alloc(64, (panel_bytes(s, width) + 127) & ~(size_t)63);
    if (!g->packed)
        return -ENOMEM;
    if (s->class == NPK__F32)
        kn_pack_f32(from, count, s->dim, width, g->packed);
    else if (s->class == NPK__F64)
        kn_pack_f64(from, count, s->dim, width, g->packed);
    else if (s->class == NPK__I8)
        kn_pack_i8(from, count, s->dim, width, g->packed);
    else
        kn_pack_bits(from, count, s->dim, width, g->packed);
    return 0;
}

static int make_groups(npk__search *s)
{
    unsigned lanes;
    bool panels = panel_of(s, &lanes) != NULL;
    s->groups = calloc(s->query_count / 4 + 4, sizeof(*s->groups));
    if (!s->groups)
        return -ENOMEM;
    int err = 0;
    for (size_t first = 0; first < s->query_count && !err;) {
        size_t left = s->query_count - first;
        unsigned width = !panels || left <= FEW_MOST                    ? 0
                         : left >= 2 * lanes || left > lanes + FEW_MOST ? 2 * lanes
                                                                        : lanes;
        size_t most = width != 0 ? width : KN_FEW;
        unsigned count = (unsigned)(left < most ? left : most);
        err = add_group(s, first, count, width);
        first += count;
    }
    return err;
}

/* The queries as `few` takes them: float (cosine: of length 1), double, or bytes. */
static int pack(npk__search *s)
{
    size_t item = packed_item(s), total = s->query_count * s->dim;
    s->packed_few = malloc(total * item + 64);
    if (!s->packed_few)
        return -ENOMEM;
    if (item == 1) {
        memcpy(s->packed_few, s->same, total);
        return make_groups(s);
    }
    for (size_t j = 0; j < s->query_count; j++) {
        const npk__query *q = &s->queries[j];
        /* A query that no bound can be given for must not spoil the lanes beside it. */
        bool usable = q->slack == q->slack;
        double scale = !usable ? 0 : s->metric == NPK_COSINE ? 1 / q->exact.norm : 1;
        for (size_t k = 0; k < s->dim; k++) {
            double v = usable ? q->exact.values[k] * scale : 0;
            if (item == 4)
                ((float *)s->packed_few)[j * s->dim + k] = (float)v;
            else
                ((double *)s->packed_few)[j * s->dim + k] = v;
        }
    }
    return make_groups(s);
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static int take_values(npk__search *s, const npk_queries *q, kn_type from, uint8_t *data)
{
    size_t total = s->query_count * s->dim, item = kn_type_bytes(from);
    memcpy(data, q->data, total * item);
    if (q->dtype.big_endian)
        swap_bytes(data, total, item);
    s->values = malloc(total * sizeof(double) + 64);
    s->same = malloc(total * kn_type_bytes(s->type) + 64);
    s->queries = calloc(s->query_count, sizeof(*s->queries));
    if (!s->values || !s->same || !s->queries)
        return -ENOMEM;
    kn_to_f64(from, data, total, s->values);
    if (!as_type(s->type, from, data, s->values, total, s->same)) {
        free(s->same);
        s->same = NULL;
    }
    return 0;
}

static int prepare(npk__search *s, const npk_queries *q, kn_type from, double epsilon)
{
    size_t item;
    uint8_t *data = malloc(s->query_count * s->dim * kn_type_bytes(from) + 64);
    int err = data ? take_values(s, q, from, data) : -ENOMEM;
    free(data);
    if (err)
        return npk__fail(err, "out of memory for %zu queries of %zu elements", s->query_count, s->dim);
    item = kn_type_bytes(s->type);
    choose(s, fit_float(s->values, s->query_count * s->dim));
    for (size_t j = 0; j < s->query_count; j++) {
        npk__query *one = &s->queries[j];
        one->exact.values = s->values + j * s->dim;
        one->exact.same = s->same ? s->same + j * s->dim * item : NULL;
        one->exact.norm = kn_exact_norm(one->exact.values, s->dim);
        one->exact.epsilon = epsilon;
        npk__form_query(s, one);
    }
    if (s->class == NPK__NONE) {
        s->groups = calloc(1, sizeof(*s->groups));
        err = s->groups ? 0 : -ENOMEM;
    } else {
        err = pack(s);
    }
    return err ? npk__fail(err, "out of memory for %zu queries of %zu elements", s->query_count, s->dim) : 0;
}

int npk__query_prepare(npk__search *s, const npk_header *rows, const char *name, const npk_queries *q, double epsilon)
{
    kn_type from = KN_F64;
    int err = check_dtype(s, &rows->dtype, name, &s->type);
    if (!err)
        err = check_dtype(s, &q->dtype, "query", &from);
    if (err)
        return err;
    s->swap = rows->dtype.big_endian;
    s->descends = npk_metric_is_similarity(s->metric);
    s->exact_metric = npk__metric_exact(s->metric);
    return prepare(s, q, from, epsilon);
}

void npk__query_clear(npk__search *s)
{
    for (size_t i = 0; i < s->group_count; i++)
        if (s->groups[i].width != 0)
            free(s->groups[i].packed);
    free(s->groups);
    free(s->packed_few);
    free(s->queries);
    free(s->values);
    free(s->same);
}
