/* SPDX-License-Identifier: Apache-2.0 */
/* cast.c - which loops make one type of another. */
#include "cast.h"

#include "cast_parts.h"

#define CHUNK 1024 /* elements: what is between two steps stays in the nearest cache */

static const kn_cast_loops *loops_of(kn_isa isa)
{
#if defined(__x86_64__)
    if (isa >= KN_AVX512)
        return &kn_cast_avx512;
    if (isa == KN_AVX2)
        return &kn_cast_avx2;
#endif
    (void)isa;
    return &kn_cast_scalar;
}

static unsigned plain_index(kn_number n)
{
    return n < KN_NUMBER_F16 ? (unsigned)n : n == KN_NUMBER_F32 ? 9 : 10;
}

static bool is_complex(kn_number n)
{
    return n == KN_NUMBER_C64 || n == KN_NUMBER_C128;
}

static void add(kn_casting *c, kn_cast_loop *step)
{
    if (step)
        c->steps[c->step_count++] = step;
}

/* A step that leaves a plain type, which is the result. */
static kn_number begin(kn_casting *c, const kn_cast_loops *l, kn_number from)
{
    switch (from) {
    case KN_NUMBER_F16:
        add(c, l->half_to_float);
        return KN_NUMBER_F32;
    case KN_NUMBER_C64:
        add(c, l->real_c64);
        return KN_NUMBER_F32;
    case KN_NUMBER_C128:
        add(c, l->real_c128);
        return KN_NUMBER_F64;
    default:
        return from;
    }
}

kn_casting kn_casting_of(kn_isa isa, kn_number from, kn_number to)
{
    const kn_cast_loops *l = loops_of(isa);
    kn_casting c = {.per_element = 1, .from_bytes = kn_number_bytes(from), .to_bytes = kn_number_bytes(to)};
    if (from == to)
        return c;
    if (is_complex(from) && is_complex(to)) {
        c.per_element = 2;
        add(&c, l->plain[from == KN_NUMBER_C64 ? 9 : 10][to == KN_NUMBER_C64 ? 9 : 10]);
        return c;
    }
    if (is_complex(from) && to == KN_NUMBER_BOOL) {
        add(&c, from == KN_NUMBER_C64 ? l->bool_of_c64 : l->bool_of_c128);
        return c;
    }
    kn_number have = begin(&c, l, from);
    kn_number want = to == KN_NUMBER_F16 || to == KN_NUMBER_C64 ? KN_NUMBER_F32 : to == KN_NUMBER_C128 ? KN_NUMBER_F64 : to;
    if (to == KN_NUMBER_F16 && have == KN_NUMBER_F64)
        add(&c, l->double_to_odd);
    else
        add(&c, l->plain[plain_index(have)][plain_index(want)]);
    if (to == KN_NUMBER_F16)
        add(&c, l->float_to_half);
    else if (is_complex(to))
        add(&c, to == KN_NUMBER_C64 ? l->complex_of_float : l->complex_of_double);
    return c;
}

void kn_cast(const kn_casting *c, void *out, const void *in, size_t count)
{
    uint64_t between[2][CHUNK];
    if (c->step_count == 0) {
        memcpy(out, in, count * c->from_bytes);
        return;
    }
    if (c->step_count == 1) {
        c->steps[0](out, in, count * c->per_element);
        return;
    }
    for (size_t done = 0, n; done < count; done += n) {
        n = count - done < CHUNK ? count - done : CHUNK;
        const void *from = (const char *)in + done * c->from_bytes;
        for (unsigned i = 0; i < c->step_count; i++) {
            void *to = i + 1 < c->step_count ? (void *)between[i] : (char *)out + done * c->to_bytes;
            c->steps[i](to, from, n);
            from = to;
        }
    }
}

typedef uint16_t __attribute__((aligned(1), may_alias)) any16;
typedef uint32_t __attribute__((aligned(1), may_alias)) any32;
typedef uint64_t __attribute__((aligned(1), may_alias)) any64;

void kn_swap_bytes(void *items, size_t item_bytes, size_t count)
{
    any16 *two = items;
    any32 *four = items;
    any64 *eight = items;
    for (size_t i = 0; item_bytes == 2 && i < count; i++)
        two[i] = __builtin_bswap16(two[i]);
    for (size_t i = 0; item_bytes == 4 && i < count; i++)
        four[i] = __builtin_bswap32(four[i]);
    for (size_t i = 0; item_bytes == 8 && i < count; i++)
        eight[i] = __builtin_bswap64(eight[i]);
}
