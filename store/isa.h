/* SPDX-License-Identifier: Apache-2.0 */
/* isa.h - the instruction set that kernels are called with: what the processor has, capped by $NPK_CPU. */
#ifndef NPK_ISA_H
#define NPK_ISA_H

#include "cpu.h"

/* cap: a name (kn_isa_name); NULL: $NPK_CPU, where it is set. -EINVAL with a sentence: no such name. Any thread. */
int npk__isa_choose(const char *cap, kn_isa *out);

#endif
