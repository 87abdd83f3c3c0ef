/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_cast.c - every type of number turned into every other, on every instruction set of this machine: against the
 * definition in cast.h written out in long double, all lengths up to a few vectors, every alignment, memory that ends
 * at a page that must not be touched, ties, extremes, denormals, NaN and infinities.
 */
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cast.h"
#include "unit.h"

#define COUNT 4096

static uint64_t state = 0x2545f4914f6cdd1d;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x9e3779b97f4a7c15u;
}

/* What an element is: enough of a number for each of the types, its parts exact. */
struct value {
    long double real, imaginary;
};

static bool is_integer(kn_number n)
{
    return n >= KN_NUMBER_I8 && n <= KN_NUMBER_U64;
}

static struct value value_of(kn_number n, const void *at)
{
    struct value v = {0, 0};
    float f[2];
    double d[2];
    uint64_t u = 0;
    memcpy(&u, at, kn_number_bytes(n) > 8 ? 8 : kn_number_bytes(n));
    memcpy(f, at, kn_number_bytes(n) < 8 ? kn_number_bytes(n) : 8);
    memcpy(d, at, kn_number_bytes(n));
    switch (n) {
    case KN_NUMBER_BOOL:
        v.real = u != 0;
        break;
    case KN_NUMBER_I8:
        v.real = (int8_t)u;
        break;
    case KN_NUMBER_I16:
        v.real = (int16_t)u;
        break;
    case KN_NUMBER_I32:
        v.real = (int32_t)u;
        break;
    case KN_NUMBER_I64:
        v.real = (int64_t)u;
        break;
    case KN_NUMBER_F16: { /* from its definition, not by the function that is tested */
        unsigned exponent = (u >> 10) & 31, fraction = u & 1023;
        v.real = exponent == 31 ? (fraction ? (long double)NAN : (long double)INFINITY)
                 : exponent     ? ldexpl(1024 + fraction, (int)exponent - 25)
                                : ldexpl(fraction, -24);
        v.real = u & 0x8000 ? -v.real : v.real;
        break;
    }
    case KN_NUMBER_F32:
        v.real = f[0];
        break;
    case KN_NUMBER_F64:
        v.real = d[0];
        break;
    case KN_NUMBER_C64:
        v = (struct value){f[0], f[1]};
        break;
    case KN_NUMBER_C128:
        v = (struct value){d[0], d[1]};
        break;
    default:
        v.real = u;
    }
    return v;
}

/* The nearest number with `digits` binary digits, no step below 2^least, none above `greatest`. */
static long double nearest(long double v, int digits, int least, long double greatest)
{
    if (v == 0 || !isfinite(v))
        return v;
    int step = ilogbl(v) - digits + 1;
    step = step < least ? least : step;
    long double scaled = ldexpl(fabsl(v), -step), whole = floorl(scaled), rest = scaled - whole;
    if (rest > 0.5L || (rest == 0.5L && fmodl(whole, 2) != 0))
        whole += 1;
    long double found = ldexpl(whole, step);
    return copysignl(found > greatest ? INFINITY : found, v);
}

/* bits, least and greatest of an integer type. */
static long double fit_integer(kn_number to, long double v, bool from_float)
{
    unsigned bits = (unsigned)kn_number_bytes(to) * 8;
    bool is_signed = to <= KN_NUMBER_I64;
    long double span = ldexpl(1, (int)bits), least = is_signed ? -span / 2 : 0, most = least + span - 1;
    if (from_float) {
        v = isnan(v) ? 0 : truncl(v);
        return v < least ? least : v > most ? most : v;
    }
    v = fmodl(v, span);
    return v < least ? v + span : v > most ? v - span : v;
}

static struct value expected(kn_number from, kn_number to, struct value v)
{
    bool both = to == KN_NUMBER_C64 || to == KN_NUMBER_C128;
    if (to == KN_NUMBER_BOOL)
        return (struct value){v.real != 0 || v.imaginary != 0, 0};
    if (is_integer(to))
        return (struct value){fit_integer(to, v.real, from >= KN_NUMBER_F16), 0};
    int digits = to == KN_NUMBER_F16 ? 11 : to == KN_NUMBER_F32 || to == KN_NUMBER_C64 ? 24 : 53;
    int least = digits == 11 ? -24 : digits == 24 ? -149 : -1074;
    long double greatest = digits == 11   ? 65504
                           : digits == 24 ? (long double)0x1.fffffep127f
                                          : (long double)0x1.fffffffffffffp1023;
    return (struct value){nearest(v.real, digits, least, greatest),
                          both ? nearest(v.imaginary, digits, least, greatest) : 0};
}

static bool same(long double a, long double b)
{
    return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

/* Elements of a type: edges of all types first, then random bits, then random sizes. */
static void fill_floats(double *out, size_t count)
{
    static const double edges[] = {
        0, -0.0, 0.5, -0.5, 1, -1, 1.5, 2.5, 127, 127.9, 128, -128, -128.9, -129, 255, 255.5, 256, 32767.5, 32768,
        -32768.5, 65504, 65519.999, 65520, 65535.5, 65536, 2147483647, 2147483648.0, -2147483648.0, -2147483649.0,
        4294967295.0, 4294967296.0, 0x1p63, -0x1p63, 0x1.fffffffffffffp62, 0x1p64, 0x1.fffffffffffffp63, -0x1p64, 1e300,
        -1e300, INFINITY, -INFINITY, NAN, 0x1p-24, 0x1p-25, 0x1.000001p-25, 0x1.8p-24, 0x1p-14, 0x1.ffcp-15,
        0x1.ffep-15, 0x1p-149, 0x1p-150, 0x1.0000001p-150, 0x1p-126, 0x1p-1074, 0x1p-1022, 3.4028235677973366e38,
        3.4028234e38,
        /* one below, on and above a tie of halves; rounded to float first, all are the tie */
        2049.0, 2049.0000000001, 2048.9999999999, 2051.0, 2051.0000000001, 2050.9999999999, 0x1.002p0,
        0x1.00200000001p0, 0x1.001ffffffffp0, 0x1.006p0, 0x1.00600000001p0, 0x1.005ffffffffp0};
    for (size_t i = 0; i < count; i++) {
        uint64_t bits = draw();
        memcpy(&out[i], &bits, 8);
        if (i < sizeof(edges) / sizeof(*edges))
            out[i] = edges[i];
        else if (i % 3)
            out[i] = ldexp((double)(int64_t)draw(), (int)(draw() % 100) - 90);
        else if (i % 9 == 0) /* halves and their ties, and a little beside these */
            out[i] = ldexp((double)(2048 + draw() % 2048), (int)(draw() % 40) - 36) *
                     (1 + ((int)(draw() % 3) - 1) * 0x1p-50);
    }
}

static void fill(kn_number n, void *out, size_t count)
{
    double *d = malloc(count * 2 * sizeof(*d));
    if (!d)
        exit(2);
    fill_floats(d, count * 2);
    for (size_t i = 0; i < count; i++) {
        char *at = (char *)out + i * kn_number_bytes(n);
        uint64_t u = draw() >> (i % 2 ? draw() % 64 : 0);
        u = i < 3   ? i
            : i < 6 ? ~(uint64_t)0 - i
            : i < 9 ? (UINT64_C(1) << (kn_number_bytes(n) * 8 % 65 - 1)) + i - 7
                    : u;
        float f[2] = {(float)d[2 * i], (float)d[2 * i + 1]};
        if (n == KN_NUMBER_BOOL)
            *(uint8_t *)at = i % 5 == 0 ? (uint8_t)u : i % 2;
        else if (is_integer(n))
            memcpy(at, &u, kn_number_bytes(n));
        else if (n == KN_NUMBER_F16)
            memcpy(at, &(uint16_t){(uint16_t)i * 16 + (i & 15)}, 2);
        else if (n == KN_NUMBER_F32)
            memcpy(at, f, 4);
        else if (n == KN_NUMBER_F64)
            memcpy(at, &d[i], 8);
        else
            memcpy(at, n == KN_NUMBER_C64 ? (void *)f : (void *)&d[2 * i], kn_number_bytes(n));
    }
    free(d);
}

static void test_values(void)
{
    static uint64_t in[COUNT * 2], out[COUNT * 2];
    for (kn_number from = 0; from < KN_NUMBER_COUNT; from++) {
        fill(from, in, COUNT);
        for (kn_number to = 0; to < KN_NUMBER_COUNT; to++) {
            kn_casting c = kn_casting_of(KN_SCALAR, from, to);
            unsigned wrong = 0;
            unit_note("%d to %d", from, to);
            CHECK_EQ(c.from_bytes, kn_number_bytes(from));
            CHECK_EQ(c.to_bytes, kn_number_bytes(to));
            kn_cast(&c, out, in, COUNT);
            for (size_t i = 0; i < COUNT; i++) {
                struct value v = value_of(from, (char *)in + i * c.from_bytes), want = expected(from, to, v);
                struct value is = value_of(to, (char *)out + i * c.to_bytes);
                if (is_integer(to) && want.real == 0)
                    want.real = 0; /* integers have no -0 */
                if ((!same(is.real, want.real) || !same(is.imaginary, want.imaginary)) && wrong++ < 3)
                    fprintf(stderr, "%d to %d: %La+%Laj became %La+%Laj, not %La+%Laj\n", from, to, v.real, v.imaginary,
                            is.real, is.imaginary, want.real, want.imaginary);
            }
            CHECK_EQ(wrong, 0);
        }
    }
}

/* All halves, there and back. */
static void test_halves(void)
{
    kn_casting up = kn_casting_of(KN_SCALAR, KN_NUMBER_F16, KN_NUMBER_F32);
    kn_casting down = kn_casting_of(KN_SCALAR, KN_NUMBER_F32, KN_NUMBER_F16);
    unsigned wrong = 0;
    for (unsigned h = 0; h < 65536; h++) {
        uint16_t half = (uint16_t)h, back;
        float f;
        kn_cast(&up, &f, &half, 1);
        kn_cast(&down, &back, &f, 1);
        bool nan = (half & 0x7fff) > 0x7c00;
        wrong += nan ? !isnan(f) || (back & 0x7fff) <= 0x7c00
                     : back != half || (long double)f != value_of(KN_NUMBER_F16, &half).real;
    }
    CHECK_EQ(wrong, 0);
}

/* Every set gives the bytes that the reference gives, and touches nothing beside. */
static void test_instruction_sets(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = 16 * page;
    char *in = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *out = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static char want[COUNT * 16];
    kn_cpu cpu = kn_cpu_detect();
    CHECK(in != MAP_FAILED && out != MAP_FAILED);
    CHECK_EQ(mprotect(in + room, page, PROT_NONE) | mprotect(out + room, page, PROT_NONE), 0);
    for (int isa = KN_SCALAR; isa < KN_ISA_COUNT; isa++) {
        if (!cpu.can[isa])
            continue;
        for (unsigned pair = 0; pair < KN_NUMBER_COUNT * KN_NUMBER_COUNT; pair++) {
            kn_number from = pair / KN_NUMBER_COUNT, to = pair % KN_NUMBER_COUNT;
            kn_casting reference = kn_casting_of(KN_SCALAR, from, to), c = kn_casting_of((kn_isa)isa, from, to);
            unsigned wrong = 0;
            for (size_t count = 0; count < 4000; count = count < 70 ? count + 1 : count * 3) {
                for (size_t off = 0; off < (count < 20 ? 3 : 1); off++) { /* bytes before the forbidden page */
                    char *a = in + room - off - count * c.from_bytes, *b = out + room - off - count * c.to_bytes;
                    fill(from, a, count);
                    kn_cast(&reference, want, a, count);
                    memset(out, 0xa5, room);
                    kn_cast(&c, b, a, count);
                    wrong += memcmp(b, want, count * c.to_bytes) != 0 || b[-1] != (char)0xa5;
                    for (size_t i = 0; i < off; i++)
                        wrong += out[room - 1 - i] != (char)0xa5;
                }
            }
            unit_note("%s: %d to %d", kn_isa_name((kn_isa)isa), from, to);
            CHECK_EQ(wrong, 0);
        }
    }
    munmap(in, room + page);
    munmap(out, room + page);
}

static void test_swapped(void)
{
    for (size_t bytes = 1; bytes <= 8; bytes *= 2) {
        unsigned char is[8 * 37 + 1], was[8 * 37 + 1];
        unsigned wrong = 0;
        for (size_t i = 0; i < sizeof(is); i++)
            is[i] = was[i] = (unsigned char)draw();
        kn_swap_bytes(is + 1, bytes, 37);
        for (size_t i = 0; i < bytes * 37; i++)
            wrong += is[1 + i] != was[1 + i / bytes * bytes + (bytes - 1 - i % bytes)];
        unit_note("%zu bytes", bytes);
        CHECK_EQ(wrong, 0);
    }
}

int main(void)
{
    RUN(test_values);
    RUN(test_halves);
    RUN(test_instruction_sets);
    RUN(test_swapped);
    return UNIT_RESULT();
}
