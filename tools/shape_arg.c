/* SPDX-License-Identifier: Apache-2.0 */
/* shape_arg.c - see shape_arg.h. */
#include "shape_arg.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char *skip_blanks(const char *at)
{
    while (*at == ' ' || *at == '\t')
        at++;
    return at;
}

static int no_shape(const char *text, cli_why *why)
{
    return cli_why_set(why, -EINVAL,
                       "\"%.100s\" is no shape; numbers such as 1000,128 are accepted, one of them may be -1", text);
}

int cli_shape_parse(const char *text, int64_t shape[NPK_MAX_DIMS], uint32_t *ndim, cli_why *why)
{
    const char *at = skip_blanks(text);
    char closing = *at == '(' ? ')' : *at == '[' ? ']' : '\0';
    bool comma = false, open = false;
    if (closing != '\0')
        at = skip_blanks(at + 1);
    *ndim = 0;
    while (*at != closing) {
        if (*ndim > 0 && !comma)
            return no_shape(text, why);
        if (*ndim == NPK_MAX_DIMS)
            return cli_why_set(why, -EINVAL, "more than %d dimensions", NPK_MAX_DIMS);
        bool any = at[0] == '-' && at[1] == '1' && !(at[2] >= '0' && at[2] <= '9');
        if ((*at < '0' || *at > '9') && (!any || open))
            return no_shape(text, why);
        open |= any;
        char *end;
        errno = 0;
        long long value = strtoll(at, &end, 10);
        if (errno != 0)
            return no_shape(text, why);
        shape[(*ndim)++] = value;
        at = skip_blanks(end);
        comma = *at == ',';
        if (comma)
            at = skip_blanks(at + 1);
    }
    if (closing != '\0')
        at = skip_blanks(at + 1);
    if (*at != '\0' || (closing == '\0' && (*ndim == 0 || (comma && *ndim > 1))))
        return no_shape(text, why);
    return 0;
}

int cli_shape_resolve(const int64_t *shape, uint32_t ndim, uint64_t elements, uint64_t out[NPK_MAX_DIMS], cli_why *why)
{
    uint64_t product = 1;
    int open = -1;
    for (uint32_t i = 0; i < ndim; i++) {
        out[i] = (uint64_t)shape[i];
        if (shape[i] < 0)
            open = (int)i;
        else if (__builtin_mul_overflow(product, out[i], &product) || product > INT64_MAX)
            return cli_why_set(why, -EOVERFLOW, "the shape has more than 2^63 elements");
    }
    if (elements == UINT64_MAX)
        return open < 0 ? 0 : cli_why_set(why, -EINVAL, "-1 needs data to count; numbers are accepted without --from");
    if (open < 0 && product != elements)
        return cli_why_set(why, -EINVAL, "the shape has %llu elements and the data %llu; as many are accepted",
                           (unsigned long long)product, (unsigned long long)elements);
    if (open < 0)
        return 0;
    if (product == 0 ? elements != 0 : elements % product != 0)
        return cli_why_set(why, -EINVAL, "%llu elements do not come out even in rows of %llu",
                           (unsigned long long)elements, (unsigned long long)product);
    out[open] = product == 0 ? 0 : elements / product;
    return 0;
}
