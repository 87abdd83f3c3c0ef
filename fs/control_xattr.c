/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_xattr.c - the properties of an array as extended attributes user.npk.NAME of its file: the same texts as in the
 * files under `.npk`, without the newline at the end.
 */
#include <errno.h>
#include <string.h>

#include "control.h"

static const fs_control *find_property(const char *name)
{
    const fs_control *c = fs_control_find(FS_CONTROL_ARRAY, name);
    return c && c->xattr ? c : NULL;
}

int fs_control_xattr_get(fs_state *fs, const char *path, const char *name, fs_text *out)
{
    const fs_control *c = find_property(name);
    if (!c)
        return -ENODATA;
    int err = c->render(fs, path, out);
    if (err == -EINVAL || err == -ENOTSUP)
        return -ENODATA; /* a plain file has no properties */
    if (!err && !out->failed && out->bytes > 0 && out->data[out->bytes - 1] == '\n')
        out->data[--out->bytes] = '\0';
    return err;
}

/* The whole value is there at once, so unlike a file it needs no newline and nothing waits for more. */
int fs_control_xattr_set(fs_state *fs, const char *path, const char *name, const char *value, size_t bytes)
{
    const fs_control *c = find_property(name);
    if (!c)
        return -ENODATA;
    if (!c->apply)
        return -EACCES;
    fs_control_write *w = fs_control_write_open(fs, c, path);
    if (!w)
        return -ENOMEM;
    if (bytes > 0 && value[bytes - 1] == '\0')
        bytes--; /* some programs count the string's end */
    int n = fs_control_write_data(w, bytes ? value : "\n", bytes ? bytes : 1, 0);
    int err = n < 0 ? n : fs_control_write_flush(w, 0);
    fs_control_write_close(w);
    return err;
}
