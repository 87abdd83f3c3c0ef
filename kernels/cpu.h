/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu.h - which instruction sets this processor has, and which of them are worth using.
 *
 * "can" is what the processor and the operating system allow (cpuid and xgetbv); "should" leaves out what a processor
 * has but runs slowly. Detection takes microseconds and has no state: callers keep its result. Any thread.
 */
#ifndef KN_CPU_H
#define KN_CPU_H

#include <stdbool.h>
#include <stddef.h>

/* In ascending order within a family: a higher one includes what is below it there. */
typedef enum kn_isa {
    KN_SCALAR,
    KN_NEON,
    KN_SVE,        /* registers of any width: Neoverse V1 (2020), N2 and later, A64FX */
    KN_AVX2,       /* with FMA and F16C: Haswell (2013), Zen and later */
    KN_AVX512,     /* F, BW, DQ and VL: Skylake-SP and later, Zen 4 and later */
    KN_AVX512VNNI, /* with VNNI and VPOPCNTDQ: Ice Lake and later, Zen 4 and later */
    KN_ISA_COUNT,
} kn_isa;

typedef struct kn_cpu {
    bool can[KN_ISA_COUNT];
    bool should[KN_ISA_COUNT];
} kn_cpu;

kn_cpu kn_cpu_detect(void);

/* "scalar", "neon", "sve", "avx2", "avx512", "avx512vnni"; a static string. */
const char *kn_isa_name(kn_isa isa);
/* The set of this name; false: there is none. */
bool kn_isa_find(const char *name, kn_isa *out);
/* The highest one that should be used. With cap, one named by somebody who knows what he wants: the highest that can be
 * used and is not above it, slow or not. */
kn_isa kn_cpu_best(const kn_cpu *cpu, const kn_isa *cap);

#endif
