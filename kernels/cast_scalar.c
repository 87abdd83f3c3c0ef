/* SPDX-License-Identifier: Apache-2.0 */
/* cast_scalar.c - the reference: for any processor of the architecture. */
#define CAST_LOOPS kn_cast_scalar
#include "cast_body.h"
