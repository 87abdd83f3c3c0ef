/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of FORMAT.md about what is to be redone: J1 and J2, records of replaced rows; J3 and J4, the journal; J5
 * and J6, batches. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check.h"
#include "io.h"
#include "journal.h"
#include "lock.h"
#include "path.h"
#include "redo.h"
#include "store.h"
#include "walk.h"

/* ---- replaced rows --------------------------------------------------------------------------------------------- */

int npk__check_redo(const npk_checking *c, int dir_fd, const char *path, const char *leaf)
{
    char file[64];
    npk_lock lock = NPK_LOCK_NONE;
    npk__redo_file(leaf, file);
    int side = npk__sidecar_open(dir_fd, false);
    bool whole = side >= 0 && npk__redo_is_whole(side, file);
    npk__close(&side);
    if (!whole)
        return 0;
    bool repair = c->flags & NPK_CHECK_REPAIR;
    int err = npk__lock_array(dir_fd, leaf, NPK_LOCK_TRY | (repair ? NPK_LOCK_EXCLUSIVE : 0), &lock);
    if (err == -EAGAIN)
        return 0; /* its owner lives */
    if (!err && repair)
        err = npk__redo_finish(dir_fd, leaf);
    npk__unlock(&lock);
    return npk__finding(c, NPK_WARNING, path, "J1", repair && !err,
                        "\"%s\": a replace of rows was interrupted by the death of its process%s%s", path,
                        !repair ? "; the next open for writing or --repair completes it"
                        : err   ? "; not completed: "
                                : "; completed",
                        repair && err ? npk_error() : "");
}

static int stop_at_owner(void *ctx, const char *name, unsigned char type)
{
    char file[64];
    (void)type;
    npk__redo_file(name, file);
    return strcmp(file, ctx) == 0;
}

int npk__check_redo_file(const npk_checking *c, int dir_fd, int side_fd, const char *file, const char *path)
{
    char wanted[64];
    if (!npk__redo_is_whole(side_fd, file))
        return 0; /* cleared, torn or of another boot: free space for the next replace */
    snprintf(wanted, sizeof(wanted), "%.63s", file);
    int found = npk__each_name(dir_fd, stop_at_owner, wanted);
    if (found != 0)
        return found < 0 ? found : 0; /* told with the array */
    return npk__finding(c, NPK_WARNING, path, "J2", false,
                        "\"%s\": replaced rows of an array that is not here; put the array back, or remove the record",
                        path);
}

/* ---- the journal ----------------------------------------------------------------------------------------------- */

int npk__check_group_journal(const npk_checking *c, int side_fd, const char *path)
{
    struct stat st;
    if (strcmp(path, NPK__SIDECAR "/" NPK__JOURNAL_FILE) == 0 || npk__fstatat(side_fd, NPK__JOURNAL_FILE, &st) != 0 ||
        st.st_size == 0)
        return 0;
    return npk__finding(c, NPK_WARNING, path, "J4", false,
                        "\"%s\": the journal of a group that was changed as a store of its own; check that directory",
                        path);
}

int npk__check_journal(const npk_checking *c)
{
    const char *path = NPK__SIDECAR "/" NPK__JOURNAL_FILE;
    struct stat st;
    int err = npk__fstatat(c->s->root_fd, path, &st);
    if (err || (S_ISREG(st.st_mode) && st.st_size == 0))
        return 0;
    if (!S_ISREG(st.st_mode))
        return npk__finding(c, NPK_DAMAGE, path, "F11", false, "\"%s\": not a regular file; remove it", path);
    int waiting = npk__journal_wait(c->s, NULL, NPK_JOURNAL_TRY | NPK_JOURNAL_LOOK);
    if (waiting == -EAGAIN)
        return 0; /* its owner lives */
    if (waiting == 0 && !(c->flags & NPK_CHECK_REPAIR))
        return npk__finding(c, NPK_NOTE, path, "J4", false,
                            "\"%s\": %" PRId64
                            " bytes that say nothing (torn before anything was done); the next change of "
                            "several arrays clears it",
                            path, (int64_t)st.st_size);
    bool repair = c->flags & NPK_CHECK_REPAIR;
    err = repair ? npk__journal_finish(c->s) : 0;
    if (waiting == 0)
        return err ? err : 0;
    return npk__finding(c, NPK_WARNING, path, "J3", repair && !err,
                        "\"%s\": a change of several arrays was interrupted by the death of its process%s%s", path,
                        !repair ? "; the next open for writing or --repair finishes it"
                        : err   ? "; not finished: "
                                : "; finished",
                        repair && err ? npk_error() : "");
}

/* ---- batches --------------------------------------------------------------------------------------------------- */

static int check_batch(void *ctx, const npk_batch_info *info)
{
    const npk_checking *c = ctx;
    char path[200];
    snprintf(path, sizeof(path), NPK__SIDECAR "/" NPK__BATCH_DIR "/%s", info->id);
    if (info->damaged)
        return npk__finding(c, NPK_WARNING, path, "J6", false,
                            "\"%s\": a batch whose log cannot be read; npk batch abort removes it", path);
    if (!info->expired)
        return 0;
    return npk__finding(c, NPK_NOTE, path, "J5", false,
                        "\"%s\": a batch with changes of %" PRIu64
                        " arrays whose process has died before it was committed; the next batch removes it",
                        path, info->arrays);
}

int npk__check_batches(const npk_checking *c)
{
    return npk_batch_list(c->s, check_batch, (void *)(uintptr_t)c);
}
