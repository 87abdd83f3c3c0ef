/* SPDX-License-Identifier: Apache-2.0 */
/* package.c - see package.h. */
#include "package.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "output.h"
#include "say.h"
#include "typed_path.h"

bool cli_is_package(const char *path)
{
    unsigned char first[16];
    struct stat st;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    bool is = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && read(fd, first, sizeof first) == sizeof first &&
              npk_package_magic(first, sizeof first);
    if (fd >= 0)
        close(fd);
    return is;
}

static const cli_column columns[] = {
    {"path", "PATH", false},    {"dtype", "DTYPE", false},   {"shape", "SHAPE", false}, {"filter", "FILTER", false},
    {"frames", "FRAMES", true}, {"bytes", "SIZE", true},     {"packed", "PACKED", true}, {"ratio", "RATIO", true},
};

/* dtype and shape of an array, nothing of a plain file. */
static int add_type(cli_table *table, npk_package *p, uint64_t i, const char *path)
{
    npk_package_file *f = NULL;
    npk_info info;
    int err = 0;
    bool array = cli_is_npy_path(path);
    if (array) {
        err = npk_package_file_open(p, i, &f);
        if (err == 0)
            err = npk_package_file_stat(f, &info);
        npk_package_file_close(&f);
        if (err != 0)
            return err;
        array = info.reason == NULL;
    }
    if (array) {
        char word[64];
        cli_dtype_text(&info.header.dtype, word, sizeof word);
        cli_table_string(table, word);
        cli_table_shape(table, info.header.shape, info.header.ndim);
    } else {
        cli_table_none(table);
        cli_table_none(table);
    }
    if (cli_is_npy_path(path))
        npk_info_clear(&info);
    return 0;
}

static int add_entry(cli_table *table, npk_package *p, uint64_t i, const npk_entry *e)
{
    char *path = strndup(e->path, e->path_bytes);
    if (path == NULL)
        return -ENOMEM;
    cli_table_string(table, path);
    int err = add_type(table, p, i, path);
    free(path);
    if (err != 0)
        return err;
    cli_table_string(table, e->filter);
    cli_table_count(table, e->frames);
    cli_table_bytes(table, e->bytes);
    cli_table_bytes(table, e->stored_bytes);
    if (e->bytes > 0)
        cli_table_number(table, (double)e->stored_bytes / (double)e->bytes, 3);
    else
        cli_table_none(table);
    return 0;
}

int cli_package_info(const cli_args *args, npk_package *p)
{
    cli_table *table = cli_table_new(args, columns, sizeof columns / sizeof *columns);
    int err = 0;
    for (uint64_t i = 0; i < npk_package_count(p) && err == 0; i++) {
        npk_entry e;
        npk_package_entry(p, i, &e);
        if (e.kind == NPK_ENTRY_FILE)
            err = add_entry(table, p, i, &e);
    }
    int status = cli_table_end(table);
    return err != 0 ? cli_fail_engine(NULL, err) : status;
}
