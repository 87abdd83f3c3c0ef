/* SPDX-License-Identifier: Apache-2.0 */
/* typed_path.c - see typed_path.h. */
#include "typed_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "package.h"
#include "say.h"

bool cli_is_npy_path(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *leaf = slash != NULL ? slash + 1 : path;
    size_t length = strlen(leaf);
    return length > 4 && strcmp(leaf + length - 4, ".npy") == 0;
}

/* Open the store in t->dir. */
static int open_store(cli_target *t, unsigned flags)
{
    int err = npk_store_open(t->dir, (flags & CLI_TARGET_WRITE) != 0 ? 0 : NPK_READ_ONLY, &t->store);
    if (err == -EBUSY) {
        t->mounted = true;
        err = npk_store_open(t->dir, NPK_READ_ONLY | NPK_NO_REDIRECT, &t->store);
    }
    return err != 0 ? cli_fail_engine(t->dir, err) : CLI_OK;
}

static int no_memory(cli_target *t)
{
    cli_target_close(t);
    return cli_fail(NULL, "%s", strerror(ENOMEM));
}

/* Is there anything at the path? An array may be named without its suffix. */
static bool exists(const char *path)
{
    struct stat st;
    char *file;
    if (stat(path, &st) == 0 || errno != ENOENT)
        return true;
    if (asprintf(&file, "%s.npy", path) < 0)
        return false;
    bool found = stat(file, &st) == 0;
    free(file);
    return found;
}

/* What is in a sidecar folder is the engine's, whatever it looks like. */
static bool in_sidecar(const char *dir)
{
    char *real = realpath(dir, NULL);
    bool found = false;
    for (const char *at = real; at != NULL && !found; at = strchr(at, '/')) {
        at += *at == '/';
        size_t length = strcspn(at, "/");
        found = (length == 6 && memcmp(at, ".npkfs", 6) == 0) || (length == 4 && memcmp(at, ".npk", 4) == 0);
    }
    free(real);
    return found;
}

static int refuse_sidecar(const cli_target *t)
{
    if (!in_sidecar(t->dir))
        return CLI_OK;
    return cli_fail(t->typed, "is in a folder of the engine's own (.npkfs, .npk); arrays beside it are accepted");
}

int cli_refuse_package(const char *path)
{
    int status = CLI_OK;
    for (size_t n = strcspn(path + (*path == '/'), "/") + (*path == '/');; n += 1 + strcspn(path + n + 1, "/")) {
        char *part = strndup(path, n);
        if (part != NULL && cli_is_package(part))
            status = cli_fail(path, "\"%s\" is a package, which is read-only; npk unpack it, or mount it with npkfs -o "
                                    "upper=DIR, to change it", part);
        free(part);
        if (path[n] == '\0' || status != CLI_OK)
            return status;
    }
}

int cli_target_open(const char *path, unsigned flags, cli_target *out)
{
    *out = (cli_target){.typed = strdup(path)};
    if (out->typed == NULL)
        return no_memory(out);
    if (!exists(path)) {
        cli_target_close(out);
        return cli_fail(path, "no such array or directory; an array's .npy file or a store's directory is accepted");
    }
    int err = npk_locate(path, &out->dir, &out->name);
    int status = err != 0 ? cli_fail_engine(path, err) : refuse_sidecar(out);
    if (status == CLI_OK && (flags & CLI_TARGET_WRITE) != 0 && cli_is_package(out->dir))
        status = cli_refuse_package(path);
    if (status == CLI_OK && (flags & CLI_TARGET_ARRAY) != 0 && out->name[0] == '\0')
        status = cli_fail(path, "is a directory; an array's .npy file is accepted");
    if (status == CLI_OK && (flags & CLI_TARGET_DIRECTORY) != 0 && out->name[0] != '\0')
        status = cli_fail(path, "is no directory; a store's directory is accepted");
    if (status == CLI_OK)
        status = open_store(out, flags);
    if (status != CLI_OK)
        cli_target_close(out);
    return status;
}

/* Split off the deepest directory that exists: "D/new/x.npy" becomes "D" and "new/x". */
static int split_new(const char *path, char **dir, char **name)
{
    char *work = strdup(path);
    if (work == NULL)
        return -ENOMEM;
    size_t cut = strlen(work);
    struct stat st;
    int err;
    do {
        while (cut > 0 && work[cut - 1] != '/')
            cut--;
        while (cut > 0 && work[cut - 1] == '/')
            cut--;
        bool root = cut == 0 && path[0] == '/';
        work[cut] = '\0';
        err = stat(root ? "/" : cut == 0 ? "." : work, &st) == 0 ? 0 : -errno;
        if (err == 0) {
            const char *rest = path + cut;
            while (*rest == '/')
                rest++;
            *dir = strdup(root ? "/" : cut == 0 ? "." : work);
            *name = strndup(rest, strlen(rest) - strlen(".npy"));
        }
    } while (err == -ENOENT && cut > 0);
    free(work);
    if (err == 0 && !S_ISDIR(st.st_mode))
        err = -ENOTDIR;
    return err;
}

int cli_target_open_new(const char *path, cli_target *out)
{
    *out = (cli_target){.typed = strdup(path)};
    if (out->typed == NULL)
        return no_memory(out);
    if (!cli_is_npy_path(path)) {
        cli_target_close(out);
        return cli_fail(path, "is no name of an array; NAME.npy is accepted");
    }
    if (cli_refuse_package(path) != CLI_OK) {
        cli_target_close(out);
        return 1;
    }
    int err = split_new(path, &out->dir, &out->name);
    if (err == 0 && (out->dir == NULL || out->name == NULL))
        return no_memory(out);
    int status = err != 0 ? cli_fail(path, "%s", strerror(-err)) : refuse_sidecar(out);
    if (status == CLI_OK)
        status = open_store(out, CLI_TARGET_WRITE);
    if (status != CLI_OK)
        cli_target_close(out);
    return status;
}

void cli_target_close(cli_target *t)
{
    npk_store_close(&t->store);
    free(t->typed);
    free(t->dir);
    free(t->name);
    *t = (cli_target){0};
}

int cli_target_has_rows(const cli_target *t, npk_info *info)
{
    int status = CLI_OK;
    const npk_header *h = &info->header;
    if (info->reason != NULL)
        status = cli_fail(t->typed, "is no array: %s", info->reason);
    else if (h->ndim == 0)
        status = cli_fail(t->typed, "has no rows: it is one element without dimensions");
    else if (h->fortran && h->ndim > 1)
        status =
            cli_fail(t->typed, "is in Fortran order, so its rows do not lie together; an array in C order is accepted");
    else if (h->row_bytes == 0)
        status = cli_fail(t->typed, "has rows of 0 bytes; rows with bytes are accepted");
    if (status != CLI_OK)
        npk_info_clear(info);
    return status;
}

int cli_target_stat(const cli_target *t, bool rows, npk_info *out)
{
    int err = npk_stat(t->store, t->name, out);
    if (err != 0)
        return cli_fail_engine(t->typed, err);
    if (rows)
        return cli_target_has_rows(t, out);
    if (out->reason == NULL)
        return CLI_OK;
    int status = cli_fail(t->typed, "is no array: %s", out->reason);
    npk_info_clear(out);
    return status;
}

char *cli_target_file(const cli_target *t)
{
    char *path;
    return asprintf(&path, "%s/%s.npy", t->dir, t->name) < 0 ? NULL : path;
}

int cli_target_descr(const cli_target *t, const npk_header *header, cli_text *out)
{
    char *descr = NULL;
    int err = npk_descr(t->store, t->name, header, &descr);
    if (err == 0)
        cli_text_adds(out, descr);
    free(descr);
    return err != 0 ? cli_fail_engine(t->typed, err) : CLI_OK;
}

int cli_target_type(const cli_target *t, const npk_header *header, cli_type **out)
{
    cli_text descr = {0};
    int status = cli_target_descr(t, header, &descr);
    cli_why why;
    if (status == CLI_OK && cli_type_parse(cli_text_string(&descr), descr.bytes, out, &why) != 0)
        status = cli_fail(t->typed, "%s", why.text);
    cli_text_clear(&descr);
    return status;
}

void cli_dtype_text(const npk_dtype *dtype, char *out, size_t capacity)
{
    static const char letters[] = {
        [NPK_KIND_INT] = 'i', [NPK_KIND_UINT] = 'u', [NPK_KIND_FLOAT] = 'f', [NPK_KIND_COMPLEX] = 'c'};
    bool number = dtype->kind >= NPK_KIND_INT && dtype->kind <= NPK_KIND_COMPLEX;
    if (dtype->big_endian && number)
        snprintf(out, capacity, ">%c%llu", letters[dtype->kind], (unsigned long long)dtype->itemsize);
    else
        snprintf(out, capacity, "%s", dtype->name);
}
