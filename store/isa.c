/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "isa.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "fail.h"
#include "npk.h"

static kn_cpu cpu;
static pthread_once_t cpu_once = PTHREAD_ONCE_INIT;

static void detect(void)
{
    cpu = kn_cpu_detect();
}

int npk__isa_choose(const char *cap_text, kn_isa *out)
{
    kn_isa cap;
    pthread_once(&cpu_once, detect);
    if (!cap_text)
        cap_text = getenv("NPK_CPU");
    if (!cap_text || !*cap_text) {
        *out = kn_cpu_best(&cpu, NULL);
        return 0;
    }
    if (!kn_isa_find(cap_text, &cap))
        return npk__fail(-EINVAL, "NPK_CPU=\"%s\": no instruction set; scalar, neon, sve, avx2, avx512 and avx512vnni are",
                         cap_text);
    *out = kn_cpu_best(&cpu, &cap);
    return 0;
}

const char *npk_cpu(unsigned index, bool *can, bool *should, bool *used)
{
    kn_isa chosen = KN_SCALAR;
    if (index >= KN_ISA_COUNT)
        return NULL;
    (void)npk__isa_choose(NULL, &chosen);
    *can = cpu.can[index];
    *should = cpu.should[index];
    *used = chosen == (kn_isa)index;
    return kn_isa_name((kn_isa)index);
}
