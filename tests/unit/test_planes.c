/* SPDX-License-Identifier: Apache-2.0 */
/* Filters of packages: what the processor's own instructions give is the definition, and every step has its inverse. */
#include <stdlib.h>
#include <string.h>

#include "delta.h"
#include "planes.h"
#include "unit.h"

#define MOST 70000u

static uint8_t in[MOST], out[MOST + 64], plain[MOST + 64], back[MOST + 64];

static void fill(uint64_t seed)
{
    for (size_t i = 0; i < MOST; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        in[i] = (uint8_t)(seed >> 56);
    }
}

static const size_t counts[] = {0, 1, 7, 8, 31, 32, 33, 63, 64, 65, 100, 255, 1000, 1023, 4097};
#define COUNTS (sizeof(counts) / sizeof(*counts))

static void planes(void)
{
    fill(1);
    for (size_t item = 1; item <= 17; item++)
        for (size_t k = 0; k < COUNTS; k++) {
            size_t n = counts[k], bytes = n * item;
            memset(out, 0xee, sizeof(out));
            kn_planes_split(out, in, n, item);
            kn_planes_split_plain(plain, in, n, item);
            CHECK(memcmp(out, plain, bytes) == 0);
            CHECK_EQ(out[bytes], 0xee);
            memset(back, 0xee, sizeof(back));
            kn_planes_join(back, out, n, item);
            CHECK(memcmp(back, in, bytes) == 0);
            CHECK_EQ(back[bytes], 0xee);
            kn_planes_join_plain(back, out, n, item);
            CHECK(memcmp(back, in, bytes) == 0);
        }
    for (size_t i = 0; i < 5; i++) /* the definition itself */
        for (size_t p = 0; p < 3; p++) {
            kn_planes_split(out, in, 5, 3);
            CHECK_EQ(out[p * 5 + i], in[i * 3 + p]);
        }
}

static void bits(void)
{
    fill(2);
    for (size_t k = 0; k < COUNTS; k++) {
        size_t n = counts[k];
        memset(out, 0xee, sizeof(out));
        kn_bits_split(out, in, n);
        kn_bits_split_plain(plain, in, n);
        CHECK(memcmp(out, plain, n) == 0);
        CHECK_EQ(out[n], 0xee);
        memset(back, 0xee, sizeof(back));
        kn_bits_join(back, out, n);
        CHECK(memcmp(back, in, n) == 0);
        CHECK_EQ(back[n], 0xee);
        kn_bits_join_plain(back, out, n);
        CHECK(memcmp(back, in, n) == 0);
    }
    kn_bits_split(out, in, 40);
    for (size_t i = 0; i < 40; i++)
        for (size_t b = 0; b < 8; b++)
            CHECK_EQ(out[b * 5 + i / 8] >> (i % 8) & 1, in[i] >> b & 1);
}

static uint64_t item_at(const uint8_t *data, size_t i, size_t item)
{
    uint64_t x = 0;
    memcpy(&x, data + i * item, item);
    return x;
}

static void deltas(void)
{
    static const size_t distances[] = {1, 2, 3, 5, 64, 128, 1000, 5000};
    fill(3);
    for (size_t item = 1; item <= 8; item *= 2)
        for (size_t k = 0; k < COUNTS; k++)
            for (size_t d = 0; d < sizeof(distances) / sizeof(*distances); d++) {
                size_t n = counts[k], bytes = n * item, distance = distances[d];
                uint64_t mask = item == 8 ? UINT64_MAX : (UINT64_C(1) << (8 * item)) - 1;
                out[bytes] = 0xee;
                kn_delta(out, in, n, item, distance);
                CHECK_EQ(out[bytes], 0xee);
                size_t wrong = 0;
                for (size_t i = 0; i < n; i++) {
                    uint64_t before = i < distance ? 0 : item_at(in, i - distance, item);
                    wrong += item_at(out, i, item) != ((item_at(in, i, item) - before) & mask);
                }
                CHECK_EQ(wrong, 0);
                kn_undelta(out, n, item, distance);
                CHECK(memcmp(out, in, bytes) == 0);
            }
}

static void turns(void)
{
    fill(4);
    for (size_t item = 1; item <= 8; item *= 2)
        for (size_t k = 0; k < COUNTS; k++) {
            size_t n = counts[k], bytes = n * item, wrong = 0;
            uint64_t mask = item == 8 ? UINT64_MAX : (UINT64_C(1) << (8 * item)) - 1;
            kn_turn(out, in, n, item);
            for (size_t i = 0; i < n; i++) {
                uint64_t x = item_at(in, i, item);
                wrong += item_at(out, i, item) != ((x << 1 | x >> (8 * item - 1)) & mask);
            }
            CHECK_EQ(wrong, 0);
            kn_unturn(out, out, n, item);
            CHECK(memcmp(out, in, bytes) == 0);
        }
}

int main(void)
{
    RUN(planes);
    RUN(bits);
    RUN(deltas);
    RUN(turns);
    return UNIT_RESULT();
}
