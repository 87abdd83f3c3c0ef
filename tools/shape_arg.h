/* SPDX-License-Identifier: Apache-2.0 */
/* shape_arg.h - a shape as people type it. */
#ifndef TOOLS_SHAPE_ARG_H
#define TOOLS_SHAPE_ARG_H

#include <stdint.h>

#include "npk.h"
#include "say.h"

/* Read "1050,128", "(1050, 128)", "[1050]", "()" or, where one dimension may be open, "-1,128". -EINVAL. Pure. */
int cli_shape_parse(const char *text, int64_t shape[NPK_MAX_DIMS], uint32_t *ndim, cli_why *why);
/* Replace the -1, if there is one, so that the shape has `elements`. -EINVAL: it does not come out even, or there is no
 * -1 and the count differs; -EOVERFLOW. elements UINT64_MAX: not known, -1 is then refused. */
int cli_shape_resolve(const int64_t *shape, uint32_t ndim, uint64_t elements, uint64_t out[NPK_MAX_DIMS], cli_why *why);

#endif
