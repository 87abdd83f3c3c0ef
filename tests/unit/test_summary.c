/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_summary.c - summaries of blocks: every instruction set of this machine gives the reference's bytes, which are
 * right by a computation in long double; NaN, infinities, denormals, extremes, every length up to a few vectors, memory
 * that ends at a page that must not be touched. And of arrays: the same bits for each set, with deleted rows and
 * without.
 */
#include <float.h>
#include <math.h>
#include <sys/mman.h>

#include "arrays.h"
#include "summary.h"

static uint64_t state = 0x2545f4914f6cdd1d;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x9e3779b97f4a7c15u;
}

enum flavour { PLAIN, FAR, BITS, SPECIAL, FLAVOURS };

/* One real number of a flavour, for float types. */
static double real_of(enum flavour f)
{
    static const double special[] = {0,        -0.0,      1,       -1,    NAN,     INFINITY, -INFINITY,
                                     0x1p-149, 0x1p-1074, 0x1p-24, 65504, FLT_MAX, -FLT_MAX};
    double unit = (double)(int64_t)draw() * 0x1p-63;
    return f == PLAIN ? (draw() % 7 ? unit : 0) : f == FAR ? 1000 + unit : special[draw() % (f == SPECIAL ? 13 : 5)];
}

static void fill(kn_number type, enum flavour f, void *out, size_t count)
{
    size_t bytes = kn_number_bytes(type);
    for (size_t i = 0; i < count; i++) {
        char *at = (char *)out + i * bytes;
        double v[2] = {real_of(f), real_of(f)};
        float small[2] = {(float)v[0], (float)v[1]};
        uint16_t half = kn_half_of_float(small[0]);
        uint64_t raw[2] = {draw() >> (draw() % 64), draw()};
        bool integer = type <= KN_NUMBER_U64;
        if (integer && f == FAR)
            raw[0] = 100 + draw() % 20;
        memcpy(at,
               integer || f == BITS                             ? (void *)raw
               : type == KN_NUMBER_F16                          ? (void *)&half
               : type == KN_NUMBER_F32 || type == KN_NUMBER_C64 ? (void *)small
                                                                : (void *)v,
               bytes);
    }
}

static bool same_double(double a, double b)
{
    return memcmp(&a, &b, sizeof(a)) == 0 || (a != a && b != b);
}

static bool same(const kn_summary *a, const kn_summary *b)
{
    return a->count == b->count && a->nans == b->nans && a->zeros == b->zeros && a->min_int == b->min_int &&
           a->max_int == b->max_int && a->min_uint == b->min_uint && a->max_uint == b->max_uint &&
           same_double(a->min, b->min) && same_double(a->max, b->max) && same_double(a->mean, b->mean) &&
           same_double(a->squares, b->squares);
}

static void test_instruction_sets(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = KN_SUMMARY_BLOCK * 16 + page;
    room -= room % page;
    char *memory = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    kn_cpu cpu = kn_cpu_detect();
    NEED(memory != MAP_FAILED && mprotect(memory + room, page, PROT_NONE) == 0);
    for (kn_number type = 0; type < KN_NUMBER_COUNT; type++) {
        for (int f = 0; f < FLAVOURS; f++) {
            for (size_t count = 0; count < 2 * KN_SUMMARY_BLOCK; count = count < 50     ? count + 1
                                                                         : count < 1000 ? count * 3 + 1
                                                                                        : count * 16) {
                for (size_t off = 0; off < (count < 20 ? 2 : 1); off++) {
                    size_t n = count > KN_SUMMARY_BLOCK ? KN_SUMMARY_BLOCK : count;
                    char *data = memory + room - off - n * kn_number_bytes(type);
                    fill(type, (enum flavour)f, data, n);
                    kn_summary want = kn_summary_of(KN_SCALAR, type)(data, n, f == FAR ? 1000 : 0);
                    for (int isa = KN_SCALAR + 1; isa < KN_ISA_COUNT; isa++) {
                        if (!cpu.can[isa])
                            continue;
                        kn_summary is = kn_summary_of((kn_isa)isa, type)(data, n, f == FAR ? 1000 : 0);
                        unit_note("%s, type %d, flavour %d, %zu elements", kn_isa_name((kn_isa)isa), type, f, n);
                        CHECK(same(&is, &want));
                    }
                }
            }
        }
    }
    munmap(memory, room + page);
}

/* The element as a number; *zero: is it 0, which for complex numbers is more. */
static double number_at(kn_number type, const void *data, size_t i, bool *zero)
{
    const char *at = (const char *)data + i * kn_number_bytes(type);
    uint64_t u = 0;
    float f[2] = {0, 0};
    double d[2] = {0, 0};
    memcpy(&u, at, kn_number_bytes(type) < 8 ? kn_number_bytes(type) : 8);
    if (type == KN_NUMBER_F32 || type == KN_NUMBER_C64)
        memcpy(f, at, kn_number_bytes(type));
    if (type == KN_NUMBER_F64 || type == KN_NUMBER_C128)
        memcpy(d, at, kn_number_bytes(type));
    double v = type == KN_NUMBER_F16 ? (double)kn_float_of_half((uint16_t)u)
               : type >= KN_NUMBER_F32
                   ? (double)f[0] + d[0] + ((double)f[1] + d[1] == INFINITY ? 0 : ((double)f[1] + d[1]) * 0)
               : type == KN_NUMBER_BOOL ? (double)(u != 0)
               : type <= KN_NUMBER_I64
                   ? (double)((int64_t)(u << (64 - 8 * kn_number_bytes(type))) >> (64 - 8 * kn_number_bytes(type)))
                   : (double)u;
    *zero = v == 0 && f[1] == 0 && d[1] == 0;
    return v;
}

/* Blocks added, against two passes in long double. */
static void test_values(void)
{
    enum { COUNT = 3 * KN_SUMMARY_BLOCK + 1234 };
    char *data = malloc(COUNT * 16);
    NEED(data != NULL);
    for (kn_number type = 0; type < KN_NUMBER_COUNT; type++) {
        for (int f = PLAIN; f <= FAR; f++) {
            kn_summary all = kn_summary_none();
            long double sum = 0, squares = 0;
            double min = INFINITY, max = -INFINITY;
            uint64_t zeros = 0;
            bool zero;
            fill(type, (enum flavour)f, data, COUNT);
            double base = kn_summary_base(type, data, KN_SUMMARY_BLOCK);
            for (size_t i = 0; i < COUNT; i += KN_SUMMARY_BLOCK) {
                size_t n = COUNT - i < KN_SUMMARY_BLOCK ? COUNT - i : KN_SUMMARY_BLOCK;
                kn_summary one = kn_summary_of(KN_SCALAR, type)(data + i * kn_number_bytes(type), n, base);
                kn_summary_add(&all, &one);
            }
            for (size_t i = 0; i < COUNT; i++) {
                double v = number_at(type, data, i, &zero);
                zeros += zero;
                sum += v;
                min = v < min ? v : min;
                max = v > max ? v : max;
            }
            long double mean = sum / COUNT;
            for (size_t i = 0; i < COUNT; i++) {
                long double off = number_at(type, data, i, &zero) - mean;
                squares += off * off;
            }
            double std = (double)sqrtl(squares / COUNT);
            unit_note("type %d, flavour %d", type, f);
            CHECK_EQ(all.count, COUNT);
            CHECK_EQ(all.nans, 0);
            CHECK_EQ(all.zeros, zeros);
            CHECK(fabs(kn_summary_mean(&all, base) - (double)mean) <= 1e-13 * std + 1e-15 * fabs((double)mean));
            CHECK(fabs(kn_summary_std(&all) - std) <= 1e-12 * std);
            bool is_signed = type >= KN_NUMBER_I8 && type <= KN_NUMBER_I64, is_float = type >= KN_NUMBER_F16;
            CHECK((is_float ? all.min : is_signed ? (double)all.min_int : (double)all.min_uint) == min);
            CHECK((is_float ? all.max : is_signed ? (double)all.max_int : (double)all.max_uint) == max);
        }
    }
    free(data);
}

static kn_summary of_doubles(const double *values, size_t count, double base)
{
    return kn_summary_of(KN_SCALAR, KN_NUMBER_F64)(values, count, base);
}

/* Blocks of two values each; what numpy says of all of them. */
static void edges(const double v[4], double mean, double std)
{
    double base = kn_summary_base(KN_NUMBER_F64, v, 4);
    kn_summary a = of_doubles(v, 2, base), b = of_doubles(v + 2, 2, base);
    kn_summary_add(&a, &b);
    unit_note("%g %g %g %g: mean %g, std %g", v[0], v[1], v[2], v[3], kn_summary_mean(&a, base), kn_summary_std(&a));
    CHECK(same_double(kn_summary_mean(&a, base), mean));
    CHECK(same_double(kn_summary_std(&a), std));
}

static void test_edges(void)
{
    edges((double[]){1, 2, 3, 6}, 3, sqrt(3.5));
    edges((double[]){NAN, NAN, NAN, NAN}, NAN, NAN);
    edges((double[]){NAN, 2, 4, NAN}, 3, 1);
    edges((double[]){NAN, NAN, 4, 4}, 4, 0);
    edges((double[]){1, INFINITY, 4, 4}, INFINITY, NAN);
    edges((double[]){1, 2, -INFINITY, NAN}, -INFINITY, NAN);
    edges((double[]){INFINITY, 2, -INFINITY, 3}, NAN, NAN);
    edges((double[]){1e308, -1e308, 1e308, -1e308}, 0, INFINITY);
    edges((double[]){0x1p-1074, 0x1p-1074, 0x1p-1074, 0x1p-1074}, 0x1p-1074, 0);
    kn_summary none = of_doubles(NULL, 0, 0);
    CHECK_EQ(none.count, 0);
    CHECK(isnan(kn_summary_mean(&none, 0)) && isnan(kn_summary_std(&none)));
}

static bool same_summaries(const npk_summary *a, const npk_summary *b)
{
    return a->count == b->count && a->zeros == b->zeros && same_double(a->min, b->min) && same_double(a->max, b->max) &&
           same_double(a->mean, b->mean) && same_double(a->std, b->std);
}

static void test_arrays(void)
{
    static const char *const caps[] = {"scalar", "avx2", "avx512", "neon"};
    place p = place_begin();
    uint64_t rows = 150001, shape[2] = {rows, 7}; /* more than one chunk, and rows across the blocks */
    float *data = malloc(rows * 7 * sizeof(*data));
    npk_summary want, is;
    npk_rows third = {0};
    NEED(data != NULL);
    fill(KN_NUMBER_F32, FAR, data, rows * 7);
    const npk_array_in in = {.name = "x", .dtype = "float32", .shape = shape, .ndim = 2, .data = data};
    NEED(npk_save(p.store, &in, 1) == 0);
    for (int dropped = 0; dropped < 2; dropped++) {
        CHECK_EQ(npk_summarize(p.store, "x", &want, NULL, NULL), 0);
        CHECK_EQ(want.count, (dropped ? rows - (rows + 2) / 3 : rows) * 7);
        for (unsigned i = 0; i < 4; i++) {
            setenv("NPK_CPU", caps[i], 1);
            unit_note("%s, dropped %d", caps[i], dropped);
            CHECK_EQ(npk_summarize(p.store, "x", &is, NULL, NULL), 0);
            CHECK(same_summaries(&is, &want));
            unsetenv("NPK_CPU");
        }
        if (dropped)
            break;
        NEED(npk_rows_parse("::3", 3, rows, &third) == 0 &&
             npk_drop_rows(p.store, "x", &third, NPK_ANY_GENERATION, NULL) == 0);
        npk_rows_clear(&third);
    }
    CHECK_EQ(npk_clone(p.store, "x", "y"), 0);
    CHECK_EQ(npk_summarize(p.store, "y", &is, NULL, NULL), 0);
    CHECK(same_summaries(&is, &want));
    setenv("NPK_CPU", "none", 1);
    CHECK_EQ(npk_summarize(p.store, "x", &is, NULL, NULL), -EINVAL);
    unsetenv("NPK_CPU");
    free(data);
    place_end(&p);
}

int main(void)
{
    RUN(test_instruction_sets);
    RUN(test_values);
    RUN(test_edges);
    RUN(test_arrays);
    return UNIT_RESULT();
}
