/* SPDX-License-Identifier: Apache-2.0 */
/* npk.h needs nothing before it and may be included twice; compiled as C11 and as C++11 with warnings as errors. */
#include "npk.h"
#include "npk.h"

int main(void);

int main(void)
{
    npk_store *store = 0;
    npk_store_close(&store);
    return sizeof(npk_header) + sizeof(npk_info) + sizeof(npk_array_in) + sizeof(npk_finding) == 0;
}
