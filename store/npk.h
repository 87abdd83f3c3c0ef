/* SPDX-License-Identifier: Apache-2.0 */
/*
 * npk.h - the npkfs storage engine: a directory of real .npy files as a store of arrays.
 *
 * Conventions
 *   Results   every fallible function returns `npk_err`: 0, or a negative errno. Values leave through out-parameters,
 *             which are untouched on failure. npk_error() then has one sentence that quotes the input and says what
 *             would be accepted. The library never prints.
 *   Names     an array's name is its path in the store without ".npy" ("train/x"). A *path* is relative to the store
 *             and keeps its suffix ("train/x.npy"). Both are resolved beneath the store; "..", absolute paths and
 *             symlinks that leave it are refused. No component may be ".npk" or ".npkfs".
 *   Rows      one index along axis 0 of a C-order array with ndim >= 1. `row_bytes` = itemsize * prod(shape[1:]).
 *             Row indices are int64_t where negative values count from the end, uint64_t where they do not.
 *   Threads   any number of threads may use one handle at once, unless a function says otherwise.
 *   Processes any number of processes may use one store at once: each operation takes the locks that it needs
 *             (PROTOCOLS P11, P12) and reads the file's truth inside them. A handle that crosses fork() works in the
 *             child; it shares no lock with the parent.
 *   Durability  what returned survives a crash of any process. It survives power loss after npk_sync() (or after the
 *             functions that say so).
 *
 * Errors that every function may return besides its own: -ENOMEM, -EIO (a real I/O error), -EROFS (the store was
 * opened read-only or lies on a read-only filesystem), -EACCES, -ENOSPC, -EDQUOT, -EMFILE.
 */
#ifndef NPK_H
#define NPK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NPK_VERSION "0.1.0"

/* 0 or a negative errno. */
typedef int npk_err;

/* The sentence for the last failure of an npk_ function on the calling thread; "" before the first. Valid until this
 * thread's next npk_ call. */
const char *npk_error(void);

/* ---- dtypes and headers -------------------------------------------------------------------------------------- */

#define NPK_MAX_DIMS 64          /* numpy 2 allows 64 */
#define NPK_MAX_HEADER (1u << 20) /* headers longer than this make a plain file (numpy refuses 10 000 by default) */

typedef enum npk_kind {
    NPK_KIND_BOOL,
    NPK_KIND_INT,
    NPK_KIND_UINT,
    NPK_KIND_FLOAT,
    NPK_KIND_COMPLEX,
    NPK_KIND_DATETIME,  /* M8, m8 */
    NPK_KIND_BYTES,     /* S, a */
    NPK_KIND_UNICODE,   /* U */
    NPK_KIND_VOID,      /* V */
    NPK_KIND_STRUCT,    /* a list of fields */
    NPK_KIND_OBJECT,    /* O, alone or in a field: pickled, never decoded */
} npk_kind;

typedef struct npk_dtype {
    npk_kind kind;
    bool big_endian;     /* '>' and itemsize > 1 */
    bool native14;       /* one of the 14 dtypes that work everywhere (DESIGN section 2) */
    uint64_t itemsize;   /* bytes; 0 for object */
    char name[32];       /* numpy's name where it has one ("float32"), else the descr, cut with "..." when long */
} npk_dtype;

/* What a .npy header says; the result of a pure parse of its bytes. */
typedef struct npk_header {
    uint8_t major, minor;   /* format version: 1.0, 2.0 or 3.0 */
    bool fortran;
    npk_dtype dtype;
    uint32_t ndim;
    uint64_t shape[NPK_MAX_DIMS];
    uint64_t data_offset;   /* bytes: where the data begins */
    uint64_t row_bytes;     /* itemsize * prod(shape[1:]); 0 for ndim 0 or object */
    uint64_t data_bytes;    /* itemsize * prod(shape); 0 for object */
    uint32_t digits_offset; /* bytes from the file's start: first character of shape[0] (or of blanks before it) */
    uint32_t digits_width;  /* characters there: blanks before the number + its digits; 0 for ndim 0 */
    uint32_t descr_offset, descr_bytes; /* the descr's Python text inside the header */
} npk_header;

/* Parse the header in bytes[0..size) of a file whose length is file_bytes (UINT64_MAX: unknown).
 * Pure: no I/O, no allocation, any thread. `why` (may be NULL, why_bytes its capacity) receives the reason.
 * -EINVAL: not a .npy header; -EAGAIN: `size` is too short and more bytes would decide (out->data_offset then says how
 * many are needed); -EOVERFLOW: sizes beyond 2^63; -E2BIG: longer than NPK_MAX_HEADER.
 * Source of the format: numpy/lib/format.py, NEP 1. */
npk_err npk_header_parse(const void *bytes, size_t size, npk_header *out, char *why, size_t why_bytes);

/* Is it an array in the engine's sense (DESIGN section 2): fixed item size. Row operations need more: row_array. */
bool npk_header_is_array(const npk_header *h);
/* C order (or ndim 1), ndim >= 1, fixed item size, row_bytes > 0. */
bool npk_header_is_row_array(const npk_header *h);

/* Parse a dtype as people write it: numpy's names ("float32", "f4", "<f4", ">i8", "U10", "datetime64[ns]").
 * descr (>= 64 bytes) receives the header's descr text with quotes. -EINVAL: unknown; the sentence lists the names. */
npk_err npk_dtype_parse(const char *text, npk_dtype *out, char descr[64]);

/* Write a version 1 (or 2 if long) header for `descr` (Python text of the descr, e.g. "'<f4'") into out[0..capacity):
 * numpy's own layout (64-byte aligned, room for 21 digits of shape[0]). *bytes receives its length. -E2BIG. */
npk_err npk_header_format(const char *descr, bool fortran, const uint64_t *shape, uint32_t ndim, void *out,
                          size_t capacity, size_t *bytes);

/* ---- the store ----------------------------------------------------------------------------------------------- */

typedef struct npk_store npk_store; /* a handle; any number per store */

enum npk_open_flags {
    NPK_READ_ONLY = 1,  /* never writes, never waits for a lock */
    NPK_CREATE = 2,     /* make the directory if it is absent */
    NPK_NO_REDIRECT = 4, /* take the path as it is, even inside a live npkfs mount */
};

/* Open the store at `path` (a directory). O(1) in the number of arrays. A path inside a live npkfs mount leads to the
 * store behind it (P19); the handle is then rooted at the directory that corresponds to `path`.
 * -ENOENT, -ENOTDIR, -EINVAL (unknown flag), -EBUSY (inside a mount whose store cannot be reached). */
npk_err npk_store_open(const char *path, unsigned flags, npk_store **out);
/* The same for an open directory descriptor (any mode, O_PATH will do), which is duplicated. */
npk_err npk_store_open_fd(int dir_fd, unsigned flags, npk_store **out);
/* Frees the handle, sets *s to NULL; NULL is fine. Arrays and maps opened through it must be closed before. */
void npk_store_close(npk_store **s);
bool npk_store_read_only(const npk_store *s);
/* Duplicate-free access for front ends: the O_PATH descriptor of the store's root; owned by the handle. */
int npk_store_fd(const npk_store *s);

/* Split "what a user typed" into a store directory and a name: "DIR/train/x.npy" -> store DIR/train, name "x"; for a
 * directory, name is "". Both malloc()ed, owned by the caller. -ENOENT (neither the file nor its directory exists). */
npk_err npk_locate(const char *path, char **store_dir, char **name);

typedef struct npk_info {
    npk_header header;
    uint64_t rows;        /* as shown: those that are not deleted; also header.shape[0] */
    uint64_t live, deleted; /* live = rows; deleted: marked, still in the file */
    uint64_t physical_rows; /* rows of the data file: live + deleted; also what its header counts */
    uint64_t file_bytes;  /* st_size */
    uint64_t tail_bytes;  /* bytes beyond the rows counted: a part-row, or what was not adopted */
    int64_t mtime_us;     /* microseconds since the epoch */
    uint64_t inode;
    bool packed;          /* its data is in the package beneath the store, until it is first written (npk_overlay_open) */
    char *reason;         /* NULL for an array; for a plain file named .npy: why it is none. free() with npk_info_clear */
} npk_info;
void npk_info_clear(npk_info *i);

/* Visit every array of the store (every directory below, any order; .npk and .npkfs left out). `visit` returns 0 to go
 * on, anything else ends the walk and is returned. With NPK_LIST_PLAIN also .npy files that are no arrays (info->reason
 * set). Runs on the calling thread; memory does not grow with the number of arrays. */
enum npk_list_flags { NPK_LIST_PLAIN = 1, NPK_LIST_FLAT = 2 /* this directory only */ };
typedef int npk_visit(void *ctx, const char *name, const npk_info *info);
npk_err npk_list(npk_store *s, const char *group, unsigned flags, npk_visit *visit, void *ctx);

/* *out: is there an array of this name. Plain files are none. */
npk_err npk_exists(npk_store *s, const char *name, bool *out);
/* Facts of one array. A plain file gives 0 with out->reason set. -ENOENT. */
npk_err npk_stat(npk_store *s, const char *name, npk_info *out);

/* ---- whole arrays -------------------------------------------------------------------------------------------- */

/* One array to be saved: C-order data of prod(shape) * itemsize bytes, borrowed for the call. */
typedef struct npk_array_in {
    const char *name;
    const char *dtype;      /* as npk_dtype_parse takes it */
    const uint64_t *shape;
    uint32_t ndim;
    const void *data;       /* NULL: zeros (sparse where the filesystem can) */
} npk_array_in;

/* Save count arrays, in parallel. All are checked before the first byte is written. Each one is atomic: written beside
 * and renamed over, so a failure or a crash leaves the old array. Existing arrays are replaced, their owner, mode and
 * xattrs kept; missing groups are made. -EINVAL, -EISDIR, -EBUSY (a writer holds it). */
npk_err npk_save(npk_store *s, const npk_array_in *arrays, size_t count);
/* As npk_save for one array that must not exist: -EEXIST. */
npk_err npk_create(npk_store *s, const npk_array_in *array);

/* An array opened for reading: the state of its file at this moment. Later appends are not seen, nor are rows lost when
 * it is replaced. One descriptor each. Not for several threads at once while being closed. */
typedef struct npk_array npk_array;
npk_err npk_array_open(npk_store *s, const char *name, npk_array **out);
void npk_array_close(npk_array **a);
const npk_info *npk_array_info(const npk_array *a);
/* Map the data (read-only, shared), lazily. Owned by the array. A file cut by somebody else raises SIGBUS on access,
 * as any mapping does: use npk_read_* where that may happen. *data is NULL for an array of 0 bytes. Of an array with
 * deleted rows this is a copy of the shown rows in memory, made on the first call: npk_array_runs needs none. */
npk_err npk_array_map(npk_array *a, const void **data, uint64_t *bytes);
/* Rows [start, start + count) into out (count * row_bytes). -ERANGE: outside; -EIO: the file was cut meanwhile. */
npk_err npk_read_range(npk_array *a, uint64_t start, uint64_t count, void *out);
/* Rows by index list; negative counts from the end; duplicates allowed. -ERANGE names the index, nothing is written. */
npk_err npk_read_rows(npk_array *a, const int64_t *indices, size_t count, void *out);
/* The whole of the array's data into out (info.header.data_bytes), any order or ndim. */
npk_err npk_read_all(npk_array *a, void *out);
/* Batches of at most batch_rows rows in order; the buffer is the engine's, valid inside the call. visit's non-zero
 * result ends the stream and is returned. -EINVAL: batch_rows 0. */
typedef int npk_batch_visit(void *ctx, uint64_t first_row, uint64_t row_count, const void *rows);
npk_err npk_stream(npk_array *a, uint64_t batch_rows, npk_batch_visit *visit, void *ctx);

/* Shown rows as runs over the mapped data, without a copy: visit(ctx, first logical row, how many, where they are), at
 * most max_rows_per_visit (0: any number) at once. A cut of the file raises SIGBUS as in npk_array_map. */
typedef int npk_run_visit(void *ctx, uint64_t first_row, uint64_t row_count, const void *rows);
npk_err npk_array_runs(npk_array *a, uint64_t first, uint64_t count, uint64_t max_rows_per_visit, npk_run_visit *visit,
                       void *ctx);
/* The mapped data file's rows from physical row 0 on, deleted ones among them: for kernels that skip by the words
 * below. *rows: how many. Owned by the array. */
npk_err npk_array_physical_map(npk_array *a, const void **data, uint64_t *rows);
/* One bit per physical row from first_physical (a multiple of 64) on, 1 = live, lowest bit first; *rows_covered tells
 * how many rows the words at the result speak of (the last word's spare bits are 0). NULL when the array is clean, or
 * behind the last row (*rows_covered is 0 then). Owned by the array. */
const uint64_t *npk_array_live_words(npk_array *a, uint64_t first_physical, uint64_t *rows_covered);
/* Between the two numberings; UINT64_MAX for a row that is deleted or outside. */
uint64_t npk_array_logical(npk_array *a, uint64_t physical);
uint64_t npk_array_physical(npk_array *a, uint64_t logical);

/* ---- changes -------------------------------------------------------------------------------------------------- */

/* Append `count` rows (count * row_bytes bytes). Whole or not at all, also under kill -9 and a full disk (a part that
 * was written is cut off again). Placed by the kernel (P2), so writers through a mount may append at the same time.
 * *first (may be NULL): the index of the first new row. -ENOTSUP (not a row array), -EINVAL, -EBUSY (a part-row at the
 * tail belongs to a writer that lives, or a tail that was never adopted). O(new bytes). */
npk_err npk_append(npk_store *s, const char *name, const void *rows, uint64_t count, uint64_t *first);
/* One of several appends that are all checked before any is made, and happen all or none, also under kill -9 (not under
 * power loss before npk_sync). */
typedef struct npk_rows_in { const char *name; const void *rows; uint64_t count; } npk_rows_in;
npk_err npk_append_many(npk_store *s, const npk_rows_in *appends, size_t count);
/* Overwrite rows [start, start + count), all or none under kill -9 (P5), as for an index list. -ERANGE. O(count). */
npk_err npk_replace_range(npk_store *s, const char *name, uint64_t start, uint64_t count, const void *rows);
/* Overwrite the rows of an index list (negative allowed, the last of duplicates wins). -ERANGE: nothing is written. */
npk_err npk_replace_rows(npk_store *s, const char *name, const int64_t *indices, size_t count, const void *rows);
/* Keep the first `rows` rows. -EBUSY while a writer has it open or mapped, -ERANGE: more rows than there are. */
npk_err npk_truncate(npk_store *s, const char *name, uint64_t rows);
/* Grow to `rows` rows, new ones zero (sparse). -ERANGE: fewer rows than there are. */
npk_err npk_extend(npk_store *s, const char *name, uint64_t rows);
/* Another shape for the same elements, or fewer/more rows (truncate/extend) when the dimensions after the first are the
 * same. One dimension may be -1. A header without room for it is replaced atomically by a longer one (-EBUSY while a
 * writer lives). -EINVAL: counts differ. */
npk_err npk_reshape(npk_store *s, const char *name, const int64_t *shape, uint32_t ndim);
/* -EEXIST: the new name is there. Groups are made. */
npk_err npk_rename(npk_store *s, const char *from, const char *to);
npk_err npk_remove(npk_store *s, const char *name);
/* Remove every array of the store and its sidecars; plain files and directories that hold some stay. */
npk_err npk_reset(npk_store *s);
/* All that returned before is durable afterwards: data, headers, sidecars and directories. name NULL: the whole store. */
npk_err npk_sync(npk_store *s, const char *name);

/* ---- batches --------------------------------------------------------------------------------------------------- */

/* Changes of several arrays that nobody else sees until they are committed, and then happen, and are durable, all or
 * none. Inside, arrays are as the batch has made them; indices mean that state. Nothing is kept in memory: any number of processes
 * may work in one batch, one operation at a time.
 * First commit wins: if an array that the batch has read or changed is another one by then (or a program has it open
 * for writing), the commit fails with -ESTALE, changes nothing, and the sentence names the array.
 * Names inside a batch are those of the store handle that it was opened by. */
typedef struct npk_batch npk_batch;
enum npk_batch_flags {
    NPK_BATCH_KEEP = 1, /* it stays until it is committed or aborted; else it goes with its handle or its process */
};
/* Begin one; id NULL: a name is made up. Batches whose process has died are removed. -EEXIST, -EINVAL. */
npk_err npk_batch_begin(npk_store *s, const char *id, unsigned flags, npk_batch **out);
/* One that exists, in the store or in one that holds the store as a group. -ENOENT. */
npk_err npk_batch_open(npk_store *s, const char *id, npk_batch **out);
const char *npk_batch_id(const npk_batch *b);
/* Frees the handle; that of npk_batch_begin without NPK_BATCH_KEEP aborts the batch. NULL is fine. */
void npk_batch_close(npk_batch **b);

/* As the functions of the store, inside the batch; the functions that change something change nothing outside it.
 * Rows that are replaced or appended cost what they have in bytes, except the first time in an array from which rows are
 * deleted, or whose header has no room: the batch takes a copy then. */
npk_err npk_batch_save(npk_batch *b, const npk_array_in *arrays, size_t count);
npk_err npk_batch_append(npk_batch *b, const char *name, const void *rows, uint64_t count, uint64_t *first);
npk_err npk_batch_replace_range(npk_batch *b, const char *name, uint64_t start, uint64_t count, const void *rows);
npk_err npk_batch_replace_rows(npk_batch *b, const char *name, const int64_t *indices, size_t count, const void *rows);
struct npk_rows; /* below, under "which rows" */
/* O(array): the batch takes a copy of the rows that stay. */
npk_err npk_batch_drop_rows(npk_batch *b, const char *name, const struct npk_rows *rows, uint64_t *dropped);
npk_err npk_batch_remove(npk_batch *b, const char *name);
/* Asking for facts alone is no reading: the batch need not find the array as it was. */
npk_err npk_batch_stat(npk_batch *b, const char *name, npk_info *out);
npk_err npk_batch_read_range(npk_batch *b, const char *name, uint64_t start, uint64_t count, void *out);
npk_err npk_batch_read_rows(npk_batch *b, const char *name, const int64_t *indices, size_t count, void *out);
/* Bytes of the array's file as the batch has it; short at its end. */
ssize_t npk_batch_read_file(npk_batch *b, const char *name, uint64_t offset, void *out, size_t bytes);
/* Overwrite bytes of the array's file as the batch has it, and append: whole rows at its end. Bytes of the header are
 * left as they are. -EINVAL: what is beyond the end does not begin there, or is no whole rows. */
ssize_t npk_batch_write_file(npk_batch *b, const char *name, uint64_t offset, const void *bytes, size_t count);
/* A new empty file for the array: *fd (O_RDWR) is the caller's to write and close. A commit refuses one that is no
 * finished array by then. */
npk_err npk_batch_create_file(npk_batch *b, const char *name, int *fd);
/* The array's own file in the batch, O_RDWR, if it has one; *fd is -1 if it is the store's with changes over it. */
npk_err npk_batch_open_file(npk_batch *b, const char *name, int *fd);
/* What the batch has touched. name is without the suffix, from the root of the store that has the batch. */
typedef enum npk_batch_change { NPK_BATCH_READ, NPK_BATCH_SAVED, NPK_BATCH_ROWS, NPK_BATCH_REMOVED } npk_batch_change;
typedef int npk_batch_each_visit(void *ctx, const char *name, npk_batch_change change);
npk_err npk_batch_each(npk_batch *b, npk_batch_each_visit *visit, void *ctx);

/* What was staged is synced, then everything happens. Frees the handle when it returns 0; else the batch is there as
 * before, to be committed again or aborted; but after -EIO, -ENOSPC and the like in the middle of it the next change of
 * the store goes on with the commit. -ESTALE, -EINVAL (an array in it is unfinished), -EMLINK. */
npk_err npk_batch_commit(npk_batch **b);
/* Everything in it goes. Frees the handle when it returns 0. */
npk_err npk_batch_abort(npk_batch **b);

typedef struct npk_batch_info {
    const char *id;
    uint64_t arrays; /* changed in it */
    int64_t created_us;
    bool kept;    /* begun with NPK_BATCH_KEEP */
    bool expired; /* its process has died: the next npk_batch_begin removes it */
    bool damaged; /* can only be aborted */
} npk_batch_info;
typedef int npk_batch_list_visit(void *ctx, const npk_batch_info *info);
npk_err npk_batch_list(npk_store *s, npk_batch_list_visit *visit, void *ctx);
/* Remove the batches that have expired. removed may be NULL. */
npk_err npk_batch_sweep(npk_store *s, unsigned *removed);

/* ---- which rows ------------------------------------------------------------------------------------------------- */

/* A choice of rows of an array, in order; duplicates are possible. Rows are logical (as shown), all of them inside the
 * array that the choice was made for. Zero-initialised is empty. Pure: no I/O, nothing global; one thread at a time. */
typedef struct npk_run {
    uint64_t start, count; /* rows start, start + step, ...; count of them */
    int64_t step;          /* not 0; may be negative */
} npk_run;
typedef struct npk_rows {
    npk_run *runs; /* owned */
    size_t run_count, run_capacity;
    uint64_t row_count; /* rows meant, over all runs */
} npk_rows;

/* Add what text[0..bytes) means for an array of `rows` rows, as Python does: "5", "-1", "0,3,-1", "100:200", "::10".
 * -EINVAL: no such expression; -ERANGE: a single index outside (slices are clamped). *out then is what it was. */
npk_err npk_rows_parse(const char *text, size_t bytes, uint64_t rows, npk_rows *out);
/* The same for the bytes of a .npy file: integers of any size, or a bool mask with one element per row. */
npk_err npk_rows_parse_npy(const void *file, size_t bytes, uint64_t rows, npk_rows *out);
/* The same for a list; negative indices count from the end. */
npk_err npk_rows_from_indices(const int64_t *indices, size_t count, uint64_t rows, npk_rows *out);
void npk_rows_clear(npk_rows *r);

/* Where a walk over a choice stands; zero-initialised is its begin. */
typedef struct npk_rows_cursor {
    size_t run;
    uint64_t done; /* of that run */
} npk_rows_cursor;
/* The next rows of the walk, at most max of them. Returns how many; 0 at the end. */
size_t npk_rows_take(const npk_rows *r, npk_rows_cursor *cursor, int64_t *out, size_t max);
/* The next rows of the walk that follow each other without a gap, at most max: their first row and how many; 0 at the
 * end. A run of another step is given row by row. */
uint64_t npk_rows_take_range(const npk_rows *r, npk_rows_cursor *cursor, uint64_t max, uint64_t *first);

/* ---- deleted rows ----------------------------------------------------------------------------------------------- */

#define NPK_ANY_GENERATION UINT64_MAX

/* Mark rows as deleted: they are no longer shown, and stay in the file until npk_compact. Duplicates are harmless.
 * Whole or not at all, also under kill -9. O(rows given). `generation`: NPK_ANY_GENERATION, or what npk_view_shows
 * told when the rows were numbered. *dropped (may be NULL): how many were shown before. -ERANGE (a row outside;
 * nothing is applied), -ESTALE (the generation has moved), -EMLINK (several hard links), -ENOTSUP (no row array),
 * -EUCLEAN (which rows are deleted is in doubt: npk check --keep or --set-aside). */
npk_err npk_drop_rows(npk_store *s, const char *name, const npk_rows *rows, uint64_t generation, uint64_t *dropped);
/* The same for rows as somebody saw them some time ago: numbered as in the view `seen` (NULL: nothing was deleted) of the
 * data file with this inode. Rows that were deleted meanwhile are no error. -ESTALE: another file has the name by now. */
typedef struct npk_view npk_view;
npk_err npk_drop_seen_rows(npk_store *s, const char *name, const npk_rows *rows, const npk_view *seen, uint64_t inode,
                           uint64_t *dropped);
typedef struct npk_range {
    uint64_t start, stop; /* start <= row < stop */
} npk_range;
/* Show deleted rows again. `physical`: rows of the data file, as npk_deleted_ranges gives them; NULL: all. Rows that
 * are not deleted are left as they are. *restored (may be NULL): how many came back. -ERANGE and the rest as above. */
npk_err npk_restore_rows(npk_store *s, const char *name, const npk_range *physical, size_t count, uint64_t generation,
                         uint64_t *restored);
/* The deleted rows as ascending ranges of the data file's rows. visit's non-zero result ends it and is returned. */
typedef int npk_range_visit(void *ctx, uint64_t start, uint64_t stop);
npk_err npk_deleted_ranges(npk_store *s, const char *name, npk_range_visit *visit, void *ctx);

/* Called now and then by what takes long; non-zero cancels (-ECANCELED, nothing done). */
typedef int npk_progress(void *ctx, uint64_t done_bytes, uint64_t all_bytes);
enum npk_compact_flags {
    NPK_COMPACT_FORCE = 1, /* where leases prove nothing: the caller knows that nobody writes */
};
/* Write the shown rows to a new file, which takes the name; deleted rows are gone then. Durable when it returns. An
 * array without deleted rows is left alone. progress may be NULL. -EBUSY: somebody has it open or mapped for
 * writing; -EMLINK. */
npk_err npk_compact(npk_store *s, const char *name, unsigned flags, npk_progress *progress, void *ctx);
/* Share of deleted rows in percent at which whoever watches the store (the mount) compacts the array; 0: never. */
npk_err npk_compact_policy(npk_store *s, const char *name, unsigned *percent);
npk_err npk_compact_policy_set(npk_store *s, const char *name, unsigned percent);

/* A new array with the shown rows of another, as they were at one moment; data shared where the filesystem can. Names do
 * not come along, groups are made. Memory does not grow with the array. Whole or absent, also under power loss; durable
 * after npk_sync(). Other changes of the source by the library wait meanwhile; what a program writes that has it open is
 * found by a lease, or by reading everything once more.
 * -EEXIST: the new name is there; -ENOTSUP: not an array, or one of objects; -EINVAL: unfinished; -EBUSY: programs write
 * to it all the time. */
npk_err npk_clone(npk_store *s, const char *from, const char *to);
enum npk_cast_flags {
    NPK_CAST_FORCE = 1, /* where leases prove nothing: the caller knows that nobody writes */
    NPK_CAST_CHECK = 2, /* only say what would be refused in any case; nothing is locked, nothing changes */
};
/* Another dtype for the shown values; a new file with them takes the name, and deleted rows are gone then. Named ranges
 * go along. Durable when it returns. Only among the 14 dtypes; the array's own may be in the other byte order. An array
 * of that dtype is left alone. Values become what numpy's astype makes of them: integers modulo 2^bits, floats rounded
 * once, to the nearest, floats to integers without their fraction. Where numpy leaves it to the processor, a float that does not fit
 * becomes the least or the greatest integer, and NaN 0. progress (may be NULL) counts new bytes.
 * -EINVAL: no such dtype; -ENOTSUP: not one of the 14; -EBUSY: somebody has it open or mapped for writing, or a part of
 * a row is at its end; -EMLINK; -ECANCELED. */
npk_err npk_cast(npk_store *s, const char *name, const char *dtype, unsigned flags, npk_progress *progress, void *ctx);

/* The values of an array's shown rows, in one pass. */
typedef struct npk_summary {
    npk_dtype dtype;
    uint64_t count, nans, zeros; /* elements; NaNs are counted, and left out of the rest */
    bool exact;                  /* an integer or bool dtype: its min and max are in the members of its kind, too */
    int64_t min_int, max_int;
    uint64_t min_uint, max_uint;
    double min, max, mean, std;  /* NaN where there is no element, or the dtype has no order (complex: min, max) */
} npk_summary;
/* -ENOTSUP: not one of the 14 dtypes. */
npk_err npk_summarize(npk_store *s, const char *name, npk_summary *out, npk_progress *progress, void *ctx);

/* Named ranges of rows: kept as rows of the data file, shown as logical ones, so that they mean the same rows after
 * rows were deleted, restored or compacted (P18). A name has 1 to 255 bytes, no '/', control character or leading
 * '.', and is no index expression. */
typedef int npk_name_visit(void *ctx, const char *range_name, uint64_t start, uint64_t stop);
npk_err npk_names(npk_store *s, const char *name, npk_name_visit *visit, void *ctx);
/* Name rows start <= row < stop, logical at this moment; a name that is there is moved. -ERANGE, -EINVAL, -EMLINK. */
npk_err npk_name_set(npk_store *s, const char *name, const char *range_name, uint64_t start, uint64_t stop);
npk_err npk_name_remove(npk_store *s, const char *name, const char *range_name); /* -ENOENT */
/* npk_append and a name for the new rows, both or none. -EEXIST: the name is there. */
npk_err npk_append_named(npk_store *s, const char *name, const char *range_name, const void *rows, uint64_t count,
                         uint64_t *first);

/* ---- search ------------------------------------------------------------------------------------------------------ */

/* What "near" means. Similarities: the greatest score first; distances: the smallest first. Scores are float64.
 *   dot       sum q x                                      similarity
 *   cosine    q.x / (|q| |x|), 0 where either is zero      similarity
 *   l2, l2sq  sqrt(sum (q - x)^2), and without the root    distance
 *   hamming   bits that differ (uint8: packed bits)        distance
 *   jaccard   1 - bits in both / bits in either, 0 where there is none in either (uint8: packed bits)   distance
 *   kl        sum q ln((q + e) / (x + e)) of query and row, terms of q = 0 left out    distance
 *   js        sqrt((sum q ln((q + e) / (m + e)) + sum x ln((x + e) / (m + e))) / 2), m = (q + x) / 2    distance
 *   hamming_elements   elements that differ (any dtype)    distance
 * kl and js take what they are given as distributions, without normalising, natural logarithms; negative elements
 * make NaN. epsilon e is 0 by default, the mathematical definition (a row that is 0 where q is not: infinity). Dot, l2sq
 * and the counts of integers are exact up to 2^53 and correctly rounded beyond. */
typedef enum npk_metric {
    NPK_DOT,
    NPK_COSINE,
    NPK_L2,
    NPK_L2SQ,
    NPK_HAMMING,
    NPK_JACCARD,
    NPK_KL,
    NPK_JS,
    NPK_HAMMING_ELEMENTS,
    NPK_METRIC_COUNT,
} npk_metric;
/* The epsilon that NumPack uses in kl and js. */
#define NPK_EPSILON_NUMPACK 1e-7

/* By its name or an alias (inner, inner_product, dot_product, dotproduct, cos, cosine_similarity, euclidean,
 * l2_distance, l2_squared, squared_euclidean, kl_divergence, js_divergence). -EINVAL: the sentence lists the names. */
npk_err npk_metric_parse(const char *text, npk_metric *out);
const char *npk_metric_name(npk_metric metric);
/* Does a great score mean near (dot, cosine)? */
bool npk_metric_is_similarity(npk_metric metric);

/* Rows of one array: logical rows [first, first + count); count UINT64_MAX: up to the last. `exclude` (may be NULL): one bit
 * per logical row of the array, lowest bit first in words of 64, 1 = leave out. Rows of any shape are flattened;
 * those of a 1-D array are single elements. */
typedef struct npk_part {
    npk_array *array;
    uint64_t first, count;
    const uint64_t *exclude;
} npk_part;

/* `count` queries in C order, each of as many elements as a row has. Any integer or float dtype: where all values are
 * values of the rows' dtype they are taken as that, else both sides as float64. */
typedef struct npk_queries {
    const void *data;
    uint64_t count;
    npk_dtype dtype;
} npk_queries;

enum npk_search_flags {
    NPK_SEARCH_READ = 1, /* read the files by system calls, in bounded memory */
    NPK_SEARCH_MAP = 2,  /* map them: faster from the second search on */
};

/* Zero-initialised: dot, nothing wanted, as many threads as there are cores. */
typedef struct npk_search_options {
    npk_metric metric;
    unsigned flags;  /* neither: the first search over an open array reads it, later ones map it */
    uint64_t k;      /* hits wanted per query */
    double epsilon;  /* kl, js: >= 0 */
    unsigned threads;      /* at most 256; 0: the cores of the machine */
    uint64_t task_bytes;   /* rows that a thread takes at once; 0: chosen. The answer does not depend on it */
    const char *cpu;       /* instruction sets up to "scalar", "neon", "sve", "avx2", "avx512", "avx512vnni"; NULL: $NPK_CPU, else the best */
    npk_progress *progress; /* called by the calling thread, between tasks */
    void *progress_ctx;
} npk_search_options;

typedef struct npk_hit {
    double score;
    uint64_t row;  /* logical, in its array */
    uint32_t part; /* position among the parts */
} npk_hit;

/* The k nearest rows of all parts for each query: hits[query * o->k + rank], nearest first; *found (the same for every
 * query) = min(k, rows). Exact: the order is by score, then (part, row), NaN behind everything; the same bits for any
 * number of threads, block size, instruction set. Deleted rows do not appear. The rows are those that the arrays had
 * when they were opened. Memory: about 48 k bytes per query and thread, in passes when that is more than 256 MiB, and a
 * few MiB. One array may be searched by several threads at once.
 * -EINVAL: elements per row, an unknown metric, epsilon; -ENOTSUP: a dtype that the metric has no meaning for (the
 * sentence lists those it has); -ERANGE: rows outside; -EIO: a file was cut meanwhile; -ECANCELED. */
npk_err npk_search(const npk_part *parts, size_t part_count, const npk_queries *queries, const npk_search_options *o,
                   npk_hit *hits, uint64_t *found);
/* All scores: scores[query * rows + i], i over the rows of all parts in order (deleted ones are no rows; `exclude` must be
 * NULL); k is not looked at. The same scores as npk_search gives. */
npk_err npk_pairs(const npk_part *parts, size_t part_count, const npk_queries *queries, const npk_search_options *o,
                  double *scores);

/* What npk_search chooses from: "scalar", "avx2", ... in ascending order; *can: this processor has it, *should: and it
 * is fast, *used: what NPK_CPU and these leave. NULL behind the last. */
const char *npk_cpu(unsigned index, bool *can, bool *should, bool *used);

/* ---- check ---------------------------------------------------------------------------------------------------- */

typedef enum npk_severity { NPK_NOTE, NPK_WARNING, NPK_DAMAGE } npk_severity;
typedef struct npk_finding {
    npk_severity severity;
    const char *path;      /* relative to the store */
    const char *rule;      /* the rule's number in store/FORMAT.md, e.g. "F3" */
    const char *sentence;
    bool repaired;
} npk_finding;
enum npk_check_flags {
    NPK_CHECK_REPAIR = 1, /* finish what a dead writer left; what is beyond repair is set aside by name, never deleted */
    NPK_CHECK_ADOPT = 2,  /* count whole rows beyond the header that nobody saw being appended */
    NPK_CHECK_KEEP = 4,   /* which rows are deleted is in doubt (-EUCLEAN): the same ones as before */
    NPK_CHECK_SET_ASIDE = 8, /* the same: none; what is in doubt, or damaged, is set aside by name */
};
typedef int npk_check_visit(void *ctx, const npk_finding *f);
/* Prove every rule of FORMAT.md on the store (name NULL) or one array. Returns 0 whatever was found; findings are
 * visited. name of an unknown array: -ENOENT. */
npk_err npk_check(npk_store *s, const char *name, unsigned flags, npk_check_visit *visit, void *ctx);

/* ---- packages --------------------------------------------------------------------------------------------------- */

/* A package is one file that holds a store, compressed, with random access (FORMAT.md, "Packages"). npk_store_open() on
 * one gives a handle for reading: npk_list, npk_stat, npk_array_open and what reads work on it, what changes something
 * is -EROFS. */

typedef struct npk_pack_options {
    int level;            /* of zstd, -7 to 19; 0: chosen for each array */
    uint64_t frame_bytes; /* what a frame is to have at most, 4 KiB to 64 MiB; 0: 128 KiB */
    unsigned threads;     /* 0: as many as there are cores */
    bool replace;         /* take the place of a file that has the name */
    const char *const *raw;     /* patterns, ended by NULL: files whose bytes lie in the package as they are; may be NULL */
    const char *const *exclude; /* patterns of what is left out, directories with all below; may be NULL */
    npk_progress *progress;     /* bytes read; may be NULL; called on the calling thread */
    void *ctx;
} npk_pack_options;
/* Pack the store into a new file at `path`. Rows that are deleted, sidecars and extended attributes are left out;
 * names, groups, plain files, modes, times and links come along. The same input and the same zstd give the same bytes,
 * whatever the threads. The file appears when it is complete and durable; a failure leaves nothing. Patterns are those
 * of fnmatch(3), for a path of the store or for its last component. Memory: some frames a thread. options may be NULL.
 * -EEXIST; -ESTALE: a file changed while it was read; -ENOTSUP: a socket, device or FIFO; -EINVAL: an option, or a link
 * that leads outside; -ECANCELED. */
npk_err npk_pack(npk_store *s, const char *path, const npk_pack_options *options);
/* The same to an open descriptor, from its position on; a pipe will do. */
npk_err npk_pack_fd(npk_store *s, int fd, const npk_pack_options *options);

typedef struct npk_unpack_options {
    unsigned threads;         /* 0: as many as there are cores */
    const char *const *names; /* ended by NULL: arrays by name, files and groups by path; NULL: all */
    const char *rows;         /* an expression such as "0:100": only these rows of the arrays in names; may be NULL */
    npk_progress *progress;   /* bytes written; may be NULL; called on any one thread at a time */
    void *ctx;
} npk_unpack_options;
/* Unpack the package at `path` into the directory `dir`, which must not exist or be empty. It takes the name when it is
 * complete and durable; a failure leaves nothing. Nothing is ever written outside. -EEXIST, -EINVAL (no package, a
 * damaged index), -EIO (a damaged frame), -ENOENT (a name that the package does not have), -ECANCELED. */
npk_err npk_unpack(const char *path, const char *dir, const npk_unpack_options *options);
/* The same from a descriptor that need not seek, in one pass. names and rows must be NULL. */
npk_err npk_unpack_fd(int fd, const char *dir, const npk_unpack_options *options);

typedef struct npk_package npk_package;           /* an open package; any number of threads */
typedef struct npk_package_file npk_package_file; /* one of its files, open; any number of threads */

/* Is this the beginning of a file that is a package (16 bytes are enough to tell)? */
bool npk_package_magic(const void *bytes, size_t count);
npk_err npk_package_open(const char *path, npk_package **out);
npk_err npk_package_open_fd(int fd, npk_package **out); /* duplicates the descriptor */
void npk_package_close(npk_package **p);                /* its files must be closed */
/* The package behind a handle of npk_store_open(), owned by it; NULL for a directory. */
npk_package *npk_store_package(npk_store *s);

typedef enum npk_entry_kind { NPK_ENTRY_DIRECTORY = 1, NPK_ENTRY_FILE = 2, NPK_ENTRY_LINK = 3 } npk_entry_kind;
/* One entry. Entries are sorted so that all that is in a directory follows it. path and target are not terminated and
 * live as long as the package. */
typedef struct npk_entry {
    npk_entry_kind kind;
    uint32_t mode;         /* permission bits */
    int64_t mtime_ns;      /* since the epoch */
    const char *path;
    uint32_t path_bytes;
    const char *target;    /* of a link */
    uint32_t target_bytes;
    const char *names;     /* named ranges of rows, lines of NAME, a tab, START, a tab, STOP; not terminated */
    uint32_t names_bytes;
    uint64_t bytes;        /* of the file */
    uint64_t stored_bytes; /* that it takes in the package, with all that belongs to it */
    uint64_t frame_bytes;  /* of a frame, 0 for an empty file */
    uint64_t frames;
    const char *filter;    /* how it is stored: "none", "bytes", "bits", "delta", "delta+bytes", ..., "raw" */
    bool contiguous;       /* its bytes lie in the package as they are, from contiguous_at on, a multiple of 4096 */
    uint64_t contiguous_at;
} npk_entry;
uint64_t npk_package_count(const npk_package *p);
/* Of the root: mode and time; no path. */
void npk_package_root(const npk_package *p, npk_entry *out);
void npk_package_entry(const npk_package *p, uint64_t i, npk_entry *out); /* i < count */
/* The entry at this path (path_bytes bytes). -ENOENT, without a sentence. */
npk_err npk_package_find(const npk_package *p, const char *path, size_t path_bytes, uint64_t *i);
/* The entry behind i and all that is below it: the next name in the directory that holds i. */
uint64_t npk_package_next(const npk_package *p, uint64_t i);
/* Bytes of the package itself, and the version of zstd that made it (10504: 1.5.4). */
uint64_t npk_package_bytes(const npk_package *p);
unsigned npk_package_zstd(const npk_package *p);
/* Its descriptor, for reading; owned by the package. -1: it is no file. */
int npk_package_fd(const npk_package *p);
/* How many bytes of decoded frames are kept (64 MiB at first); what is kept now, hits and misses. */
void npk_package_set_cache(npk_package *p, uint64_t bytes);
void npk_package_cache(npk_package *p, uint64_t *bytes, uint64_t *hits, uint64_t *misses);

/* -EISDIR, -ELOOP (a link), -EIO (its table is damaged). */
npk_err npk_package_file_open(npk_package *p, uint64_t i, npk_package_file **out);
void npk_package_file_close(npk_package_file **f);
/* Bytes of the file from `offset` on; short at its end only. -EIO: the frame that has them is damaged. */
ssize_t npk_package_file_read(npk_package_file *f, uint64_t offset, void *out, size_t bytes);
/* Decode the frame that has the byte at `offset` into the cache, unless it is there. */
npk_err npk_package_file_prefetch(npk_package_file *f, uint64_t offset);
/* A hint for what is held below: frames that are decoded from now on lie in memory so that the byte at `offset` of the
 * file begins a page (of 4096 bytes). A kernel that copies them to pages which begin there copies whole pages. */
void npk_package_file_page(npk_package_file *f, uint64_t offset);
/* The same bytes as npk_package_file_read gives, where they are, without a copy where that is possible: pieces one after
 * the other, at most `max` of them, so that fewer bytes than asked for may be held. They stay until npk_package_release.
 * A package that is cut meanwhile raises SIGBUS, or EFAULT from a system call, for pieces of contiguous files. */
typedef struct npk_held {
    const void *data;
    size_t bytes;
    void *frame, *memory; /* the engine's */
    bool ends_frame;
} npk_held;
npk_err npk_package_file_hold(npk_package_file *f, uint64_t offset, size_t bytes, npk_held *out, size_t max,
                              size_t *count);
/* The file may be closed by then. passed: whoever reads in sequence is behind these bytes, so that the memory of frames
 * that end here is the first to be used again. */
void npk_package_release(npk_package *p, npk_held *pieces, size_t count, bool passed);
/* Facts as npk_fd_stat gives them for a file. */
npk_err npk_package_file_stat(npk_package_file *f, npk_info *out);

/* A package that can be written to: the store in the directory `dir` (the upper) shows all that is in the package, and
 * keeps what is changed; the package itself never is. An absent or empty directory is made an upper of the package: it gets
 * a file for each file of it, large ones as placeholders whose data stays in the package until it is first written. The
 * handle is an ordinary one; any other handle of the directory finds the package where it was at the last call of this
 * function. Removing, renaming, deleting rows and changing attributes need no data. flags as for npk_store_open, without
 * NPK_CREATE. -EEXIST (neither empty nor an upper), -EINVAL (an upper of another package). */
npk_err npk_overlay_open(const char *package, const char *dir, unsigned flags, npk_store **out);
/* Does the store, or one that holds it as a group, lie over a package? */
bool npk_store_is_upper(npk_store *s);
/* That package, owned by the handle, opened if need be. -EREMOTE: it is not where it was, or the store has none. */
npk_err npk_store_lower(npk_store *s, npk_package **out);
/* Give the file at `path` (with its suffix) its data, if it is a placeholder: whole and durable, or not at all. Everything
 * in the engine that writes rows does so itself; this is for whoever serves the files. Mode, times, attributes, deleted
 * rows and names stay, the inode is another one. -ENOSPC, -EIO (a damaged frame), -EMLINK; -EREMOTE: without its package. */
npk_err npk_copy_up(npk_store *s, const char *path);
/* Is this open file a placeholder? One read. */
bool npk_is_placeholder(int fd);

/* Prove the rules of FORMAT.md on the package at `path`: every checksum, and that every frame can be decoded. Returns 0
 * whatever was found in it; findings are visited, from the calling thread. progress may be NULL. */
npk_err npk_package_check(const char *path, unsigned threads, npk_check_visit *visit, void *ctx,
                          npk_progress *progress, void *progress_ctx);

/* The Python text of an array's descr, as its header has it; malloc()ed. h: what npk_stat told. */
npk_err npk_descr(npk_store *s, const char *name, const npk_header *h, char **out);

/* ---- for whoever serves the data files themselves (the mount) -------------------------------------------------- */
/* These take paths with their suffix, so that any file may be asked about, and descriptors of the caller's.        */

/* The header and facts of an open file (any readable descriptor). 0 with out->reason set for a plain file. Never
 * waits, never writes. */
npk_err npk_fd_stat(int fd, npk_info *out);

/* P4: make the entry of an existing array durable before it is first opened for writing in a session. Cheap and without
 * a sync when the entry is there. Files that are no finished row array get none (0 is returned, *entered = false):
 * their growth is never adopted. May sync and wait for locks: not for a request loop. */
npk_err npk_session_begin(npk_store *s, const char *path, int fd, bool *entered);
/* Has this file (an inode of the directory of `path`) an entry? No wait; one open of the table at most. */
npk_err npk_session_find(npk_store *s, const char *path, int fd, bool *entered);
/* As npk_session_find, for a caller about to let a program write: *ready is false also when the entry still bears the mark
 * of an append by a library user. If that one is dead, npk_session_begin finishes it, so that no new rows are taken for its. */
npk_err npk_session_ready(npk_store *s, const char *path, int fd, bool *ready);
/* Forget the entry, durably if it was there: before the file is rewritten from its start (O_TRUNC, a cut below the data). */
npk_err npk_session_forget(npk_store *s, const char *path, int fd);
/* End the session: if a lease (or, where leases prove nothing, the caller's word) says that nobody writes, sync the data
 * and drop the entry. -EBUSY: a writer lives. May take long. */
npk_err npk_session_end(npk_store *s, const char *path, int fd);
/* A program that writes to one array of a directory after the other gets the entries of the next ones made ahead, in one
 * sync. End those sessions that were begun so at least quiet_ms ago and that nobody uses. How many are left. May take long. */
size_t npk_sessions_end_ahead(npk_store *s, int64_t quiet_ms);

typedef enum npk_settle_state {
    NPK_SETTLED,      /* header and data agree */
    NPK_PART_ROW,     /* they agree but for a part-row at the tail, kept and not counted */
    NPK_TAIL,         /* whole rows or foreign bytes beyond the header that may not be adopted */
    NPK_UNFINISHED,   /* the header promises more than there is (a save under way or cut short) */
    NPK_NO_ROOM,      /* more rows than the header has room for: npk_make_room when no writer is left */
    NPK_PLAIN,        /* no row array */
} npk_settle_state;
enum npk_settle_flags {
    NPK_SETTLE_TRY = 1, /* -EAGAIN instead of waiting for the array's lock */
    NPK_SETTLE_CUT = 2, /* recovery: with an entry and no writer, cut the header to the whole rows present */
};
/* Make the header agree with the data: adopt whole rows that were appended in a session (an entry exists and allows it),
 * by the digits' safe order (P3). fd: any descriptor of the file; it is reopened for writing only when digits change. */
npk_err npk_settle(npk_store *s, const char *path, int fd, unsigned flags, npk_settle_state *state, npk_info *info);
/* Before the file at `path` is opened: wait for a change of several arrays that names it (P17), and finish what a killed
 * process left of one, or of a replace of its rows. NPK_SETTLE_TRY: -EAGAIN instead of waiting. -EUCLEAN: something is to
 * be finished, and the store cannot be written. Three system calls where there is nothing. */
npk_err npk_await(npk_store *s, const char *path, unsigned flags);
/* The size change of truncate/ftruncate, digits before data when it shrinks. Exactly native otherwise. fd as above. */
npk_err npk_set_size(npk_store *s, const char *path, int fd, uint64_t size);
/* A new file with a longer header takes the name (swap). -EBUSY: a writer lives, nothing done. */
npk_err npk_make_room(npk_store *s, const char *path);
/* P29: is anybody else reading (open or mapped) or writing this file? fd must be the only descriptor that this process
 * holds, read-only. -ENOTSUP where leases prove nothing or are not ours to take. */
typedef enum npk_users { NPK_USERS_NONE, NPK_USERS_READERS, NPK_USERS_WRITERS } npk_users;
npk_err npk_users_of(int fd, npk_users *out);
/* P29: a new empty file with the same owner, mode and xattrs takes the name of the one that fd is; -ENOTSUP if something
 * of it cannot be carried over, -ESTALE if the name is another file by now. */
npk_err npk_replace_empty(npk_store *s, const char *path, int fd);
/* P30: a save that nobody sees before it is complete. A new empty file with the owner, mode and xattrs of the array that fd
 * is; whoever writes to it does so through the descriptor below, or others of the same file. -EMLINK, -ENOTSUP: something
 * of the old file cannot be carried over. A file whose process dies goes with the next npk_save, check or unmount. One
 * thread at a time. */
typedef struct npk_save_file npk_save_file;
npk_err npk_save_file_begin(npk_store *s, const char *path, int fd, npk_save_file **out);
int npk_save_file_fd(const npk_save_file *f); /* O_RDWR; the handle's */
typedef enum npk_save_state {
    NPK_SAVE_EMPTY,  /* not a byte was written */
    NPK_SAVE_PART,   /* no array, or not all of one */
    NPK_SAVE_HEADER, /* exactly a header, whose data is to come */
    NPK_SAVE_WHOLE,  /* all that the header promises is there */
} npk_save_state;
npk_save_state npk_save_file_state(const npk_save_file *f);
enum npk_save_flags {
    NPK_SAVE_DURABLE = 1, /* the name is on the disk, too, when it returns; the data always is before it has the name */
};
/* It takes the name of whatever file has it now (none is fine), and readers of that keep it. path: the place that
 * npk_save_file_begin was told, as it is called by now. Frees *f when it returns 0; else nothing has changed. -EBUSY: a
 * program has the old array open or mapped for writing; -EMLINK, -EISDIR. */
npk_err npk_save_file_publish(npk_store *s, npk_save_file **f, const char *path, unsigned flags);
/* It is kept as NAME.npy.unfinished (or .unfinished.1, ...), whose last component goes to `aside`: "" if it was empty, and
 * is removed. Frees *f in any case. */
npk_err npk_save_file_set_aside(npk_save_file **f, char aside[256]);
/* P32: remove the sidecar folder of a directory that holds nothing else, so that it can be removed. -ENOTEMPTY. */
npk_err npk_dir_clear(npk_store *s, const char *dir_path);
/* Tidy up at the end of a mount: remove sidecar folders that hold nothing. Best effort. */
void npk_dir_tidy(npk_store *s, const char *dir_path);

/* An open view: the numbering of an array with deleted rows as it was when opened (P22), for whoever serves its bytes.
 * Immutable; any number of threads. */
/* The view of this open file (P6). *out = NULL: a clean array or a plain file, show the file itself. -EUCLEAN: in doubt
 * (P10). -ESTALE: another file has taken the name since it was opened; open it by its name again. Never waits, never
 * writes. */
npk_err npk_view_open(npk_store *s, const char *path, int fd, npk_view **out);
/* The same for a placeholder of which nothing is deleted: all of its bytes, to be read alone; no rows. NULL for any other
 * file. -EREMOTE, -EIO. */
npk_err npk_view_open_whole(npk_store *s, int fd, npk_view **out);
void npk_view_close(npk_view **v);
uint64_t npk_view_bytes(const npk_view *v);      /* size of the file as shown: header + live rows + part-row */
uint64_t npk_view_generation(const npk_view *v); /* moves with every drop, restore and compaction */
uint64_t npk_view_rows(const npk_view *v);
/* Is there anything beside the file `leaf` of the directory dir_fd that may speak of deleted or named rows of it? If not,
 * it is no view. Two calls that fail for a clean array; no lock. */
bool npk_state_there(int dir_fd, const char *leaf, uint64_t inode);
/* The same facts for stat: cheap, kept by log size and inode. A file that is no view: its own size and generation 0. */
npk_err npk_view_shows(npk_store *s, const char *path, int fd, uint64_t *bytes, uint64_t *generation);
/* Facts of an open array as npk_stat tells them: rows and sizes as shown. Never waits, never writes. -EUCLEAN, -ESTALE as
 * for npk_view_open. */
npk_err npk_shown_stat(npk_store *s, const char *path, int fd, npk_info *out);
/* Bytes [offset, offset + bytes) of the file as shown; fd is the data file. Short at the end. Negative errno. */
ssize_t npk_view_read(const npk_view *v, int fd, uint64_t offset, void *out, size_t bytes);
/* Where shown bytes lie in the data file: extents for a caller that has it mapped. Covers [offset, offset + bytes) as far as
 * `most` extents go, and the rows only: *covered is 0 in the header and behind the last row. Returns how many, ascending. */
typedef struct npk_view_piece {
    uint64_t offset, bytes;
} npk_view_piece;
size_t npk_view_extents(const npk_view *v, uint64_t offset, size_t bytes, npk_view_piece *out, size_t most, size_t *covered);
/* Overwrite shown bytes at the physical rows behind them; header bytes are skipped, not changed (P22). Returns how many
 * bytes are done, short at the end of the last row. `fd` may write. */
ssize_t npk_view_write(const npk_view *v, int fd, uint64_t offset, const void *bytes, size_t count);
/* Truncate a view to shown_bytes: rows behind the new end are cut or marked so that exactly the first rows stay; more
 * bytes than shown extend the file by zeros. fd as in npk_settle. Appends go to the end of the data file (O_APPEND) and
 * need no view. */
npk_err npk_view_set_size(npk_store *s, const char *path, int fd, const npk_view *v, uint64_t shown_bytes);

/* What is known of deleted rows and names of a file goes with it when its name does (P26; renames within a directory are
 * found by the inode in any case). All of them return 0 where there is nothing to do: two calls for a clean array. */
/* Before the name is removed or taken by another file: from now on the state speaks of this inode alone, so that no
 * later file is taken for it. `fd` reads. -EUCLEAN is none: what is in doubt is left for the check. */
npk_err npk_sidecar_leave(npk_store *s, const char *path, int fd);
/* Before a rename from one path to another: the state is made under the new name, too. -EUCLEAN, -EXDEV. */
npk_err npk_sidecar_copy(npk_store *s, const char *from, const char *to, int fd);
/* After: remove what `path`'s sidecar holds of this very inode (any descriptor): the old name after a rename, the new one
 * if it failed, the name after it was removed. */
npk_err npk_sidecar_drop(npk_store *s, const char *path, int fd);

/* Open what is at `path` beneath the store: openat2 with RESOLVE_BENEATH | NO_MAGICLINKS | NO_SYMLINKS | NO_XDEV.
 * Returns a descriptor or a negative errno. "" and "." are the root. */
int npk_open_beneath(npk_store *s, const char *path, int flags, mode_t mode);
/* The seam for callers that make system calls on store files themselves: ask before each call that changes one, by the
 * call's name and the bytes it writes (else 0). 0: go on; a negative errno: fail with it, as an injected fault asks.
 * Costs one predictable branch when no plan is set (io.h says what a plan can do). Any thread. */
npk_err npk_io_gate(const char *call, uint64_t bytes);
/* Is leases' word proof on the filesystem of this store (P1)? Probed once per handle; `why` gets a phrase. */
bool npk_leases_prove(npk_store *s, const char **why);

#ifdef __cplusplus
}
#endif
#endif
