/* SPDX-License-Identifier: Apache-2.0 */
/*
 * value.h - one element of an array as text: numbers with the fewest digits that give the same number back, laid out as
 * Python's repr() does; times and structures as numpy's str().
 */
#ifndef TOOLS_VALUE_H
#define TOOLS_VALUE_H

#include "cli_text.h"
#include "type.h"

typedef enum cli_style {
    CLI_PLAIN,      /* as str(): text without quotes, escaped for a cell */
    CLI_QUOTED,     /* as repr(): text in quotes; used inside structures */
    CLI_VALUE_JSON, /* NaN, infinities and integers beyond 2^53 as strings, complex as [re, im], structures as objects
                     */
} cli_style;

/* Add one element, whose type->itemsize bytes begin at `element` (any alignment). Pure; any bytes will do. */
void cli_value_add(cli_text *out, const cli_type *type, const void *element, cli_style style);

#endif
