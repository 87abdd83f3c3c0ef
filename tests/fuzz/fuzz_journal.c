/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a journal, as the body of one whose sums are right, as a record of replaced rows and as the log of a
 * batch: each is refused, or does what it says inside the store and nothing outside. What a store must not lose lies
 * beside it.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "journal.h"
#include "npk.h"
#include "path.h"
#include "redo.h"

static char base[64], store_path[96];
static npk_store *store;

static void write_file(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    MUST(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
}

static void in_base(char out[200], const char *name)
{
    snprintf(out, 200, "%s/%s", base, name);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void end(void)
{
    npk_store_close(&store);
    nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void begin(void)
{
    const uint64_t shape[2] = {4, 2};
    const npk_array_in in = {.name = "x", .dtype = "float32", .shape = shape, .ndim = 2, .data = NULL};
    char path[200];
    if (store)
        return;
    snprintf(base, sizeof(base), "%s/npk-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    MUST(mkdtemp(base) != NULL && atexit(end) == 0);
    snprintf(store_path, sizeof(store_path), "%s/store", base);
    MUST(npk_store_open(store_path, NPK_CREATE, &store) == 0 && npk_save(store, &in, 1) == 0);
    in_base(path, "outside.npy");
    write_file(path, "precious", 8);
}

static void must_be_whole(void)
{
    char path[200], bytes[16];
    npk_info info;
    in_base(path, "outside.npy");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    MUST(fd >= 0 && read(fd, bytes, sizeof(bytes)) == 8 && memcmp(bytes, "precious", 8) == 0);
    close(fd);
    MUST(npk_stat(store, "x", &info) == 0 && info.rows == 4);
    npk_info_clear(&info);
}

static int look_at_step(void *ctx, const npk_step *step)
{
    (void)ctx;
    MUST(step->path[0] != '/' && strstr(step->path, "..") == NULL && strlen(step->path) < NPK__PATH_BYTES);
    MUST(step->type >= NPK_STEP_CUT && step->type <= NPK_STEP_WRITE);
    for (uint64_t i = 0; i < step->piece_count; i++)
        MUST(step->pieces[i].offset >= step->data_offset &&
             step->pieces[i].offset + step->pieces[i].bytes <= step->size_after);
    return 0;
}

/* With sums that fit, so that what is behind them is reached. */
static void as_body(const uint8_t *data, size_t size)
{
    npk_journal j;
    npk_journal_kind kind = size > 0 && data[0] & 1 ? NPK_JOURNAL_FORTH : NPK_JOURNAL_BACK;
    MUST(npk__journal_begin(store, kind, kind == NPK_JOURNAL_FORTH ? "b" : NULL, &j) == 0);
    j.body = malloc(size + 1);
    MUST(j.body != NULL);
    memcpy(j.body, data, size);
    j.bytes = size;
    j.steps = size > 1 ? 1 + data[1] % 3 : 0;
    (void)npk__journal_each(&j, look_at_step, NULL);
    MUST(npk__journal_write(&j, false) == 0);
    npk__journal_end(&j);
    (void)npk__journal_finish(store);
}

static void as_redo(const uint8_t *data, size_t size)
{
    char name[64], path[200];
    npk_array *a = NULL;
    npk__redo_file("x.npy", name);
    snprintf(path, sizeof(path), "%s/.npkfs/%s", store_path, name);
    write_file(path, data, size);
    MUST(npk_array_open(store, "x", &a) == 0);
    npk_array_close(&a);
    unlink(path);
}

static void as_log(const uint8_t *data, size_t size)
{
    npk_batch *b = NULL;
    npk_info info;
    char path[200];
    MUST(npk_batch_begin(store, "f", NPK_BATCH_KEEP, &b) == 0);
    npk_batch_close(&b);
    snprintf(path, sizeof(path), "%s/.npkfs/batch/f/log", store_path);
    write_file(path, data, size);
    if (npk_batch_open(store, "f", &b) == 0) {
        if (npk_batch_stat(b, "x", &info) == 0)
            npk_info_clear(&info);
        if (npk_batch_abort(&b) == 0)
            return;
        npk_batch_close(&b);
    }
    unlink(path);
    snprintf(path, sizeof(path), "%s/.npkfs/batch/f/data", store_path);
    unlink(path);
    snprintf(path, sizeof(path), "%s/.npkfs/batch/f", store_path);
    rmdir(path);
}

static void as_journal(const uint8_t *data, size_t size)
{
    char path[200];
    int err = npk__journal_decode(data, size, NULL, NULL, look_at_step, NULL);
    MUST(err == 0 || err == -EINVAL);
    snprintf(path, sizeof(path), "%s/.npkfs/journal", store_path);
    write_file(path, data, size);
    (void)npk__journal_finish(store);
    write_file(path, "", 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    begin();
    as_journal(data, size);
    as_body(data, size);
    as_redo(data, size);
    as_log(data, size);
    must_be_whole();
    return 0;
}
