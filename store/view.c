/* SPDX-License-Identifier: Apache-2.0 */
/* The shown rows of an array. */
#define _GNU_SOURCE 1

#include <sys/stat.h>

#include "fail.h"
#include "io.h"
#include "npk.h"

npk_err npk_view_shows(npk_store *s, const char *path, int fd, uint64_t *bytes, uint64_t *generation)
{
    struct stat st;
    (void)s;
    int err = npk__fstat(fd, &st);
    if (err)
        return npk__fail_errno(err, path);
    *bytes = (uint64_t)st.st_size;
    *generation = 0;
    return 0;
}
