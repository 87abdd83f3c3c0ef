/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_array.c - what `.npk/ARRAY.npy/` holds: the properties of an array, one value each, and `shape`, which may be
 * written to; the table of all controls.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "control_table.h"
#include "pkg.h"

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* Rows may have been appended that no close or fsync has made the header count yet. */
static bool is_out_of_step(const npk_info *info)
{
    const npk_header *h = &info->header;
    return npk_header_is_row_array(h) && info->tail_bytes >= h->row_bytes;
}

static int open_packed(fs_state *fs, const char *path, npk_info *info)
{
    npk_package *p = npk_store_package(fs->store);
    npk_package_file *f = NULL;
    uint64_t i;
    int err = npk_package_find(p, path, strlen(path), &i);
    if (!err)
        err = npk_package_file_open(p, i, &f);
    if (!err)
        err = npk_package_file_stat(f, info);
    if (!err && info->reason) {
        npk_info_clear(info);
        err = -ENOTSUP;
    }
    /* Whoever asks for more than facts asks the engine, by the name. */
    int fd = err ? err : memfd_create("package", MFD_CLOEXEC);
    if (!err && fd < 0) {
        fd = -errno;
        npk_info_clear(info);
    }
    npk_package_file_close(&f);
    return fd;
}

int fs_array_open(fs_state *fs, const char *path, npk_info *info)
{
    if (fs->pkg)
        return open_packed(fs, path, info);
    int fd = npk_open_beneath(fs->store, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    int err = npk_fd_stat(fd, info);
    if (!err && info->reason) {
        npk_info_clear(info);
        err = -ENOTSUP;
    }
    npk_info settled;
    npk_settle_state state;
    if (!err && !fs->read_only && is_out_of_step(info) &&
        npk_settle(fs->store, path, fd, NPK_SETTLE_TRY, &state, &settled) == 0) {
        npk_info_clear(info);
        *info = settled;
    }
    if (!err && npk_header_is_row_array(&info->header)) { /* as it is shown: without deleted rows */
        npk_info shown;
        err = npk_shown_stat(fs->store, path, fd, &shown);
        npk_info_clear(info);
        if (!err)
            *info = shown;
    }
    if (!err)
        return fd;
    close(fd);
    return err;
}

typedef void put_value(fs_text *out, const npk_info *info, int fd);

static int render_with(fs_state *fs, const char *path, fs_text *out, put_value *put)
{
    npk_info info;
    int fd = fs_array_open(fs, path, &info);
    if (fd < 0)
        return fd;
    put(out, &info, fd);
    fs_text_addf(out, "\n");
    npk_info_clear(&info);
    close(fd);
    return 0;
}

static void add_shape(fs_text *out, const npk_header *h)
{
    for (uint32_t i = 0; i < h->ndim; i++)
        fs_text_addf(out, "%s%" PRIu64, i ? "," : "", h->shape[i]);
}

static void put_shape(fs_text *out, const npk_info *info, int fd)
{
    (void)fd;
    add_shape(out, &info->header);
}

static void put_order(fs_text *out, const npk_info *info, int fd)
{
    (void)fd;
    fs_text_addf(out, "%c", info->header.fortran ? 'F' : 'C');
}

static void put_rows(fs_text *out, const npk_info *info, int fd)
{
    (void)fd;
    fs_text_addf(out, "%" PRIu64, info->rows);
}

static void put_live(fs_text *out, const npk_info *info, int fd)
{
    (void)fd;
    fs_text_addf(out, "%" PRIu64, info->live);
}

static void put_deleted(fs_text *out, const npk_info *info, int fd)
{
    (void)fd;
    fs_text_addf(out, "%" PRIu64, info->deleted);
}

/* As numpy counts: what the array that is shown takes in memory. */
static void put_nbytes(fs_text *out, const npk_info *info, int fd)
{
    (void)fd;
    fs_text_addf(out, "%" PRIu64, info->header.data_bytes);
}

static void put_mtime(fs_text *out, const npk_info *info, int fd)
{
    (void)fd;
    fs_text_addf(out, "%" PRId64, info->mtime_us);
}

#define RENDER(name)                                                          \
    static int render_##name(fs_state *fs, const char *path, fs_text *out)    \
    {                                                                         \
        return render_with(fs, path, out, put_##name);                        \
    }
RENDER(shape)
RENDER(order)
RENDER(rows)
RENDER(live)
RENDER(deleted)
RENDER(nbytes)
RENDER(mtime)

static int render_last_error(fs_state *fs, const char *path, fs_text *out)
{
    fs_last_error(fs, path, out);
    return 0;
}

/* ---- a shape as people write it ------------------------------------------------------------------------------------ */

typedef struct shape_in {
    uint32_t ndim;
    int64_t shape[NPK_MAX_DIMS]; /* -1: whatever is left */
    bool open;                   /* one is -1 */
} shape_in;

#define QUOTED_MAX 60

/* `"input": ` at the beginning of a sentence; a long input is cut. */
static void quote(fs_text *why, const char *line, size_t len)
{
    fs_text_addf(why, "\"%.*s%s\": ", (int)(len < QUOTED_MAX ? len : QUOTED_MAX), line, len > QUOTED_MAX ? "..." : "");
}

#define refuse(err, why, line, len, ...) (quote(why, line, len), fs_text_addf(why, __VA_ARGS__), (err))

static const char *skip_blanks(const char *at)
{
    while (*at == ' ' || *at == '\t' || *at == '\r')
        at++;
    return at;
}

/* One dimension: digits, or -1. NULL: it is none. *huge: it is one, beyond what any array has. */
static const char *parse_dim(const char *at, int64_t *out, bool *huge)
{
    if (at[0] == '-' && at[1] == '1' && !(at[2] >= '0' && at[2] <= '9')) {
        *out = -1;
        return at + 2;
    }
    if (*at < '0' || *at > '9')
        return NULL;
    int64_t value = 0;
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *at - '0', &value)) {
            *huge = true;
            value = 0;
        }
    *out = value;
    return at;
}

/* `A,B,...` with blanks anywhere between, parentheses around, a comma at the end; nothing or () is the shape of a single
 * element without dimensions. */
static int parse_shape(const char *line, size_t len, shape_in *out, fs_text *why)
{
    *out = (shape_in){0};
    const char *at = skip_blanks(line);
    bool parens = *at == '(', huge = false;
    at = skip_blanks(at + parens);
    while (at && *at && *at != ')') {
        if (out->ndim == NPK_MAX_DIMS)
            return refuse(-EINVAL, why, line, len, "more dimensions than the %d that an array may have", NPK_MAX_DIMS);
        int64_t *dim = &out->shape[out->ndim++];
        at = parse_dim(at, dim, &huge);
        if (!at)
            break;
        if (*dim == -1 && out->open)
            return refuse(-EINVAL, why, line, len, "-1 stands there twice; one dimension may be left open");
        out->open |= *dim == -1;
        at = skip_blanks(at);
        if (*at == ',')
            at = skip_blanks(at + 1);
        else if (*at && *at != ')')
            at = NULL;
    }
    if (at && parens)
        at = *at == ')' ? skip_blanks(at + 1) : NULL;
    if (!at || *at)
        return refuse(-EINVAL, why, line, len,
                      "not a shape; accepted are whole numbers with commas between them, such as 1050,128, of which one "
                      "may be -1");
    if (huge)
        return refuse(-ERANGE, why, line, len, "a dimension is beyond 2^63-1, the most that an array may have");
    return 0;
}

/* Product of the dimensions but an open one. False: beyond 2^63-1. */
static bool count_elements(const int64_t *shape, uint32_t ndim, uint64_t *out)
{
    int64_t count = 1;
    bool fits = true, zero = false;
    for (uint32_t i = 0; i < ndim; i++) {
        zero |= shape[i] == 0;
        if (shape[i] != -1 && __builtin_mul_overflow(count, shape[i], &count)) {
            fits = false;
            count = 1;
        }
    }
    *out = zero ? 0 : (uint64_t)count;
    return fits || zero;
}

/* ---- what a new shape means ------------------------------------------------------------------------------------------ */

typedef enum shape_change { SHAPE_SAME, SHAPE_CUT, SHAPE_GROW, SHAPE_OTHER } shape_change;

typedef struct shape_plan {
    shape_change change;
    shape_in to;
    uint64_t rows; /* to.shape[0], for SHAPE_CUT and SHAPE_GROW */
} shape_plan;

static bool same_rows_kind(const npk_header *h, const shape_in *to)
{
    bool same = h->ndim == to->ndim && h->ndim > 0;
    for (uint32_t i = 1; same && i < h->ndim; i++)
        same = (uint64_t)to->shape[i] == h->shape[i];
    return same;
}

/* -1 becomes what it stands for. */
static int close_shape(shape_in *to, uint64_t have, const char *line, size_t len, fs_text *why)
{
    uint64_t rest;
    bool fits = count_elements(to->shape, to->ndim, &rest);
    if (!fits)
        return refuse(-ERANGE, why, line, len, "more elements than 2^63-1; the array has %" PRIu64, have);
    if (!to->open)
        return 0;
    if (rest == 0 || have % rest != 0)
        return refuse(-EINVAL, why, line, len,
                      "-1 cannot be found, for the other dimensions make %" PRIu64 " elements and the array has %" PRIu64,
                      rest, have);
    for (uint32_t i = 0; i < to->ndim; i++)
        if (to->shape[i] == -1)
            to->shape[i] = (int64_t)(have / rest);
    to->open = false;
    return 0;
}

/* More or fewer rows. */
static int plan_rows(const npk_info *info, shape_plan *plan, const char *line, size_t len, fs_text *why)
{
    const npk_header *h = &info->header;
    uint64_t rows = (uint64_t)plan->to.shape[0];
    int64_t bytes;
    plan->rows = rows;
    plan->change = rows == info->rows ? SHAPE_SAME : rows < info->rows ? SHAPE_CUT : SHAPE_GROW;
    if (plan->change == SHAPE_SAME)
        return 0;
    if (!npk_header_is_row_array(h) && h->fortran)
        return refuse(-ENOTSUP, why, line, len,
                      "the array is in Fortran order, where rows can be neither added nor cut; a shape of the same "
                      "%" PRIu64 " elements is accepted",
                      h->dtype.itemsize ? h->data_bytes / h->dtype.itemsize : 0);
    if (plan->change != SHAPE_GROW)
        return 0;
    if (__builtin_mul_overflow(rows, h->row_bytes, &bytes) ||
        __builtin_add_overflow(bytes, h->data_offset, &bytes))
        return refuse(-ERANGE, why, line, len, "rows of %" PRIu64 " bytes would make a file beyond 2^63-1 bytes",
                      h->row_bytes);
    return 0;
}

/* Everything that can be said about the line before anything is changed. */
static int plan_shape(fs_state *fs, const char *path, const char *line, size_t len, shape_plan *plan, fs_text *why)
{
    *plan = (shape_plan){.change = SHAPE_OTHER};
    int err = parse_shape(line, len, &plan->to, why);
    if (err)
        return err;
    npk_info info;
    int fd = fs_array_open(fs, path, &info);
    if (fd < 0)
        return refuse(fd, why, line, len, "the array cannot be opened: %s", strerror(-fd));
    close(fd);
    const npk_header *h = &info.header;
    uint64_t have = h->dtype.itemsize ? h->data_bytes / h->dtype.itemsize : 0, want = 0;
    bool open = plan->to.open;
    err = close_shape(&plan->to, have, line, len, why);
    if (!err && !open && same_rows_kind(h, &plan->to)) {
        err = plan_rows(&info, plan, line, len, why);
    } else if (!err) {
        count_elements(plan->to.shape, plan->to.ndim, &want);
        if (want != have) {
            quote(why, line, len);
            fs_text_addf(why, "element count %" PRIu64 ", but the array has %" PRIu64 " in the shape ", want, have);
            add_shape(why, h);
            fs_text_addf(why, "; accepted are shapes of the same count");
            if (npk_header_is_row_array(h))
                fs_text_addf(why, ", or another number of rows with the same dimensions after it");
            err = -EINVAL;
        } else if (same_rows_kind(h, &plan->to) && (uint64_t)plan->to.shape[0] == h->shape[0]) {
            plan->change = SHAPE_SAME;
        }
    }
    npk_info_clear(&info);
    return err;
}

static int check_shape(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    shape_plan plan;
    return plan_shape(fs, path, line, len, &plan, why);
}

/* ---- doing it ---------------------------------------------------------------------------------------------------------- */

/* The engine's names have no suffix. */
char *fs_array_name(const char *path)
{
    size_t len = strlen(path);
    return len > 4 && strcmp(path + len - 4, ".npy") == 0 ? strndup(path, len - 4) : strdup(path);
}

static int apply_shape(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    shape_plan plan;
    int err = plan_shape(fs, path, line, len, &plan, why);
    if (err)
        return err;
    char *name = fs_array_name(path);
    if (!name)
        return -ENOMEM;
    switch (plan.change) {
    case SHAPE_SAME:
        break;
    case SHAPE_CUT:
        err = npk_truncate(fs->store, name, plan.rows);
        break;
    case SHAPE_GROW: /* whole rows beyond the header are taken first, since rows were asked for by number (P4) */
        err = npk_extend(fs->store, name, plan.rows);
        break;
    case SHAPE_OTHER:
        err = npk_reshape(fs->store, name, plan.to.shape, plan.to.ndim);
        break;
    }
    free(name);
    if (!err)
        return 0;
    return refuse(err, why, line, len, "%s", *npk_error() ? npk_error() : strerror(-err));
}

/* Never called: what is written to a numbered control goes to its own functions. It says that it may be written to. */
static int apply_rows(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    (void)fs, (void)path, (void)line, (void)len, (void)why;
    return -ENOTSUP;
}

/* ---- dtype ----------------------------------------------------------------------------------------------------------- */

/* numpy's name; a structure has none, and is shown as the header spells it. */
static int render_dtype(fs_state *fs, const char *path, fs_text *out)
{
    npk_info info;
    int fd = fs_array_open(fs, path, &info);
    if (fd < 0)
        return fd;
    char *name = fs_array_name(path), *descr = NULL;
    int err = name ? 0 : -ENOMEM;
    if (!err && info.header.dtype.kind == NPK_KIND_STRUCT)
        err = npk_descr(fs->store, name, &info.header, &descr);
    for (char *at = descr; at && *at; at++)
        if ((unsigned char)*at < ' ')
            *at = ' '; /* one value is one line */
    if (!err)
        fs_text_addf(out, "%s\n", descr ? descr : info.header.dtype.name);
    free(descr);
    free(name);
    npk_info_clear(&info);
    close(fd);
    return err;
}

/* ---- the table ------------------------------------------------------------------------------------------------------- */

const fs_control fs_array_controls[] = {
    {"shape",
     "The dimensions with commas between; written to, it cuts or adds rows (zeros), or gives the same elements another "
     "shape, in which one dimension may be -1.",
     true, true, render_shape, check_shape, apply_shape, NULL},
    {"dtype",
     "The type of the elements by numpy's name, or as the header spells a structure; written to, the values are converted to "
     "another of the 14 types of numbers, as astype does it.",
     true, true, render_dtype, fs_check_cast, fs_apply_cast, NULL},
    {"order", "C or F: which index changes fastest in the file, the last or the first.", true, true, render_order,
     NULL, NULL, NULL},
    {"rows", "The number of rows: the first dimension.", true, true, render_rows, NULL, NULL, NULL},
    {"live", "The rows that are shown: those that are not deleted.", true, true, render_live, NULL, NULL, NULL},
    {"deleted", "The rows that are deleted and still take space.", true, true, render_deleted, NULL, NULL, NULL},
    {"nbytes", "The bytes that the elements take, header not counted.", true, true, render_nbytes, NULL, NULL, NULL},
    {"mtime", "When the array was last changed, in microseconds since 1970.", true, true, render_mtime, NULL, NULL, NULL},
    {"drop",
     "The number of deleted rows; written to, it deletes rows by their numbers: 5, 0,3,-1, 100:200, ::10, one or several to "
     "a line, or a .npy file of indices or of a mask. All that one open writes means the rows as they were when it was opened.",
     true, false, render_deleted, NULL, apply_rows, &fs_drop_rows},
    {"restore",
     "The deleted rows, as ranges of the file's rows; written to, it shows such ranges again, or all.",
     false, false, fs_render_restore, fs_check_restore, fs_apply_restore, NULL},
    {"compact",
     "What compacting would give back, and how far one has come; 1 compacts now, force also where nothing proves that no program "
     "writes, auto:20% as soon as so many rows are deleted, auto:0 never.",
     false, false, fs_render_compact, fs_check_compact, fs_apply_compact, NULL},
    {"names",
     "Named ranges of rows, each with its first row and the row behind its last, with tabs between; written to, such lines name "
     "ranges, and a name alone is removed.",
     false, false, fs_render_names, fs_check_names, fs_apply_names, NULL},
    {"clone",
     "Empty; written to, the shown rows are copied to a new array of that name: a path in the store, with the suffix or without.",
     true, false, fs_render_clone, fs_check_clone, fs_apply_clone, NULL},
    {"summary",
     "Count, min, max, mean, std, NaNs and zeros of the values that are shown, each on a line, computed when it is opened.",
     false, false, fs_render_summary, NULL, NULL, NULL},
    {"last_error", "One sentence about the last thing that failed on this array; empty before the first.", true, true,
     render_last_error, NULL, NULL, NULL},
};
const size_t fs_array_control_count = sizeof fs_array_controls / sizeof *fs_array_controls;
