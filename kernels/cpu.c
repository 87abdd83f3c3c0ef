/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

static const char *const names[KN_ISA_COUNT] = {"scalar", "neon", "sve", "avx2", "avx512", "avx512vnni"};

const char *kn_isa_name(kn_isa isa)
{
    return (unsigned)isa < KN_ISA_COUNT ? names[isa] : "unknown";
}

bool kn_isa_find(const char *name, kn_isa *out)
{
    for (int i = 0; i < KN_ISA_COUNT; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (kn_isa)i;
            return true;
        }
    return false;
}

kn_isa kn_cpu_best(const kn_cpu *cpu, const kn_isa *cap)
{
    kn_isa best = KN_SCALAR;
    for (int i = 0; i < KN_ISA_COUNT; i++)
        if (cap != NULL ? cpu->can[i] && i <= (int)*cap : cpu->should[i])
            best = (kn_isa)i;
    return best;
}

#if defined(__x86_64__)

/* The parts of the register file that the operating system saves: it must be asked beside cpuid. */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Intel's first AVX-512 servers (Skylake, Cascade Lake, Cooper Lake: all model 85) lower the clock of a core for
 * milliseconds after 512-bit arithmetic, also for the rest of the program that we are a library in. */
static bool zmm_slows_down(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(0, &a, &b, &c, &d) || b != 0x756e6547u) /* "Genu" of "GenuineIntel" */
        return false;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return false;
    uint32_t family = a >> 8 & 15, model = (a >> 4 & 15) | (a >> 12 & 0xf0);
    return family == 6 && model == 85;
}

kn_cpu kn_cpu_detect(void)
{
    kn_cpu cpu = {.can = {[KN_SCALAR] = true}, .should = {[KN_SCALAR] = true}};
    uint32_t a, b, c, d, b7, c7;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return cpu;
    uint64_t saved = saved_state();
    bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6;
    bool fma = (c & bit_FMA) && (c & bit_F16C) && (c & bit_AVX) && (c & bit_POPCNT);
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d))
        return cpu;
    const uint32_t wide = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    cpu.can[KN_AVX2] = ymm && fma && (b7 & bit_AVX2);
    cpu.can[KN_AVX512] = cpu.can[KN_AVX2] && zmm && (b7 & wide) == wide;
    cpu.can[KN_AVX512VNNI] = cpu.can[KN_AVX512] && (c7 & bit_AVX512VNNI) && (c7 & bit_AVX512VPOPCNTDQ);
    memcpy(cpu.should, cpu.can, sizeof(cpu.can));
    if (zmm_slows_down())
        cpu.should[KN_AVX512] = cpu.should[KN_AVX512VNNI] = false;
    return cpu;
}

#elif defined(__aarch64__)

kn_cpu kn_cpu_detect(void)
{
    /* Every 64-bit ARM has NEON with double precision and fused multiply-add. */
    kn_cpu cpu = {.can = {[KN_SCALAR] = true, [KN_NEON] = true}};
    cpu.can[KN_SVE] = (getauxval(AT_HWCAP) & HWCAP_SVE) != 0;
    memcpy(cpu.should, cpu.can, sizeof(cpu.can));
    return cpu;
}

#else

kn_cpu kn_cpu_detect(void)
{
    return (kn_cpu){.can = {[KN_SCALAR] = true}, .should = {[KN_SCALAR] = true}};
}

#endif
