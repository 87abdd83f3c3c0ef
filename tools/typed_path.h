/* SPDX-License-Identifier: Apache-2.0 */
/*
 * typed_path.h - from what was typed to a store and a name in it.
 *
 * A path inside a live mount leads to the store behind it. Where that store is not for the caller to open (it needs the
 * rights of ptrace over the daemon), the target is `mounted`: reading goes through the mount's files, and verbs that
 * change something use mounted.h.
 */
#ifndef TOOLS_TYPED_PATH_H
#define TOOLS_TYPED_PATH_H

#include <stdbool.h>

#include "npk.h"
#include "type.h"

typedef struct cli_target {
    npk_store *store;
    char *typed; /* the path, as typed */
    char *dir;   /* the store's directory */
    char *name;  /* the array's name in it, "" for the directory itself */
    bool mounted;
} cli_target;

enum cli_target_flags {
    CLI_TARGET_WRITE = 1,     /* will be changed */
    CLI_TARGET_ARRAY = 2,     /* must be an array */
    CLI_TARGET_DIRECTORY = 4, /* must be a directory */
};

/* 1 after a sentence if the path is in a package, or one, and so nothing at it can be changed; else CLI_OK. */
int cli_refuse_package(const char *path);
/* Open what `path` means. CLI_OK, or another exit status after a sentence. */
int cli_target_open(const char *path, unsigned flags, cli_target *out);
/* The same for an array that need not exist; nor need its groups: the store is the deepest directory that does. */
int cli_target_open_new(const char *path, cli_target *out);
void cli_target_close(cli_target *t);

/* Facts of the array; a plain file or a kind that has no rows (when rows are wanted) is refused with a sentence. */
int cli_target_stat(const cli_target *t, bool rows, npk_info *out);
/* The part of it that looks at rows: a kind that has none is refused with a sentence, and info cleared. */
int cli_target_has_rows(const cli_target *t, npk_info *info);
/* The Python text of the array's dtype, as its header has it, added to out. */
int cli_target_descr(const cli_target *t, const npk_header *header, cli_text *out);
/* The dtype of the array down to its fields. cli_type_free. */
int cli_target_type(const cli_target *t, const npk_header *header, cli_type **out);
/* "DIR/NAME.npy"; malloc()ed. NULL without memory. */
char *cli_target_file(const cli_target *t);
/* A dtype in one word: "float32", ">f4", "S10". */
void cli_dtype_text(const npk_dtype *dtype, char *out, size_t capacity);
/* Does the path end in ".npy", with something before it? */
bool cli_is_npy_path(const char *path);

#endif
