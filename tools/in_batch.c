/* SPDX-License-Identifier: Apache-2.0 */
/* in_batch.c - see in_batch.h. */
#include "in_batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "say.h"

int cli_in_batch_open(const cli_args *args, const char *path, cli_target *t, npk_batch **out)
{
    int status = cli_target_open_new(path, t);
    if (status != CLI_OK)
        return status;
    int err = t->mounted ? 0 : npk_batch_open(t->store, cli_args_value(args, "batch"), out);
    if (t->mounted)
        status = cli_fail(t->typed, "the store behind this mount is not for you; write below its .npk/batch/");
    else if (err != 0)
        status = cli_fail_engine(t->typed, err);
    if (status != CLI_OK)
        cli_target_close(t);
    return status;
}

int cli_in_batch_look(const cli_target *t, npk_batch *b, npk_info *info, cli_type **type)
{
    int err = npk_batch_stat(b, t->name, info);
    if (err != 0)
        return cli_fail_engine(t->typed, err);
    int status = cli_target_has_rows(t, info);
    if (status != CLI_OK)
        return status;
    const npk_header *h = &info->header;
    char *descr = malloc((size_t)h->descr_bytes + 1);
    ssize_t got = descr == NULL ? -ENOMEM : npk_batch_read_file(b, t->name, h->descr_offset, descr, h->descr_bytes);
    cli_why why;
    if (got < 0 || (size_t)got < h->descr_bytes)
        status = cli_fail(t->typed, "%s", strerror(got < 0 ? (int)-got : EIO));
    else if (cli_type_parse(descr, h->descr_bytes, type, &why) != 0)
        status = cli_fail(t->typed, "%s", why.text);
    free(descr);
    if (status != CLI_OK)
        npk_info_clear(info);
    return status;
}
