/* SPDX-License-Identifier: Apache-2.0 */
/* type.h - dtypes down to their fields, read from the `descr` of a .npy header: a Python string or a list of fields. */
#ifndef TOOLS_TYPE_H
#define TOOLS_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli_text.h"
#include "npk.h"
#include "say.h"

#define CLI_MAX_FIELDS  65536 /* of one structure */
#define CLI_MAX_NESTING 32    /* structures in structures */

typedef struct cli_field cli_field;

typedef struct cli_type {
    npk_kind kind;
    bool big_endian;
    uint64_t itemsize; /* of one element; a field's array has element_count of them */
    /* NPK_KIND_DATETIME */
    bool timedelta;
    char unit[8];      /* "ns"; "" where none is given */
    uint64_t multiple; /* 25 in [25s] */
    /* NPK_KIND_STRUCT */
    cli_field *fields;
    size_t field_count;
} cli_type;

struct cli_field {
    char *name; /* UTF-8; "" is padding */
    cli_type type;
    uint64_t offset;
    uint32_t ndim;
    uint64_t shape[NPK_MAX_DIMS];
    uint64_t element_count;
};

/* Read a descr. *out is malloc()ed: cli_type_free. -EINVAL (no descr), -ENOTSUP (object), -ENOMEM, -EOVERFLOW. Pure. */
int cli_type_parse(const char *descr, size_t bytes, cli_type **out, cli_why *why);
void cli_type_free(cli_type *type);
bool cli_type_equal(const cli_type *a, const cli_type *b);
/* As people write it: "float32", ">i8", "S10", "datetime64[ns]", "[('a', '<f4'), ('b', '<i4', (2,))]". */
void cli_type_name(const cli_type *type, cli_text *out);

#endif
