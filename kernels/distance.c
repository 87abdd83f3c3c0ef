/* SPDX-License-Identifier: Apache-2.0 */
/* distance.c - which table, and how queries are packed. */
#include "distance.h"

#include <string.h>

#include "distance_parts.h"

const kn_distance *kn_distance_of(kn_isa isa)
{
#if defined(__x86_64__)
    if (isa == KN_AVX512VNNI)
        return &kn_distance_avx512vnni;
    if (isa == KN_AVX512)
        return &kn_distance_avx512;
    if (isa == KN_AVX2)
        return &kn_distance_avx2;
#elif defined(__aarch64__)
    if (isa == KN_SVE)
        return &kn_distance_sve;
    if (isa == KN_NEON)
        return &kn_distance_neon;
#endif
    (void)isa;
    return &kn_distance_scalar;
}

void kn_pack_f32(const void *from, size_t count, size_t dim, unsigned width, float *panel)
{
    memset(panel, 0, dim * width * sizeof(float));
    for (size_t j = 0; j < count; j++)
        for (size_t k = 0; k < dim; k++)
            memcpy(&panel[k * width + j], (const char *)from + (j * dim + k) * sizeof(float), sizeof(float));
}

void kn_pack_f64(const void *from, size_t count, size_t dim, unsigned width, double *panel)
{
    memset(panel, 0, dim * width * sizeof(double));
    for (size_t j = 0; j < count; j++)
        for (size_t k = 0; k < dim; k++)
            memcpy(&panel[k * width + j], (const char *)from + (j * dim + k) * sizeof(double), sizeof(double));
}

void kn_pack_i8(const void *from, size_t count, size_t dim, unsigned width, void *panel)
{
    const int8_t *query = from;
    int32_t *start = panel;
    int8_t *element = (int8_t *)(start + width);
    memset(panel, 0, 4 * width * (1 + (dim + 3) / 4));
    for (size_t j = 0; j < count; j++, query += dim) {
        int32_t sum = 0;
        for (size_t k = 0; k < dim; k++) {
            element[(k / 4 * width + j) * 4 + k % 4] = query[k];
            sum += query[k];
        }
        /* Rows come with 128 added to every element, which adds 128 times the query's sum. */
        start[j] = -128 * sum;
    }
}

void kn_pack_bits(const void *from, size_t count, size_t dim, unsigned width, uint64_t *panel)
{
    const uint8_t *query = from;
    memset(panel, 0, (dim + 7) / 8 * width * sizeof(uint64_t));
    for (size_t j = 0; j < count; j++, query += dim)
        for (size_t k = 0; k < dim; k += 8)
            memcpy(&panel[k / 8 * width + j], query + k, dim - k < 8 ? dim - k : 8);
}

size_t kn_live_rows(const uint64_t *words, uint64_t first, size_t count, uint32_t *which)
{
    size_t found = 0;
    for (size_t i = 0; i < count;) {
        uint64_t bit = (first + i) % 64, word = words[(first + i) / 64] >> bit;
        size_t here = 64 - bit < count - i ? 64 - bit : count - i;
        if (here < 64)
            word &= (UINT64_C(1) << here) - 1;
        if (word == ~UINT64_C(0)) {
            for (size_t j = 0; j < 64; j++)
                which[found + j] = (uint32_t)(i + j);
            found += 64;
        } else {
            for (; word != 0; word &= word - 1)
                which[found++] = (uint32_t)(i + (size_t)__builtin_ctzll(word));
        }
        i += here;
    }
    return found;
}
