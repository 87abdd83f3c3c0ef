/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pkg_store.h - a package behind the handle of a store: what npk_stat, npk_list and npk_array_open do there.
 *
 * The rest of the engine asks `s->package` in these few places; what changes something never gets here, since such a
 * handle is read-only.
 */
#ifndef NPK_PKG_STORE_H
#define NPK_PKG_STORE_H

#include "npk.h"

/* A handle for the package that fd is, which is taken, also on failure. */
int npk__package_store(int fd, const char *label, unsigned flags, npk_store **out);
int npk__package_stat(npk_package *p, const char *name, npk_info *out);
int npk__package_list(npk_package *p, const char *group, unsigned flags, npk_visit *visit, void *ctx);
/* Open the file of an array and look at it. */
int npk__package_open_array(npk_package *p, const char *name, npk_package_file **file, npk_info *info);

/* npk_names of an array. */
int npk__package_names(npk_package *p, const char *name, npk_name_visit *visit, void *ctx);
/* The lines of names, as a record has them, one after the other. -EINVAL with a sentence: they are none. */
int npk__package_each_name(const char *names, size_t bytes, npk_name_visit *visit, void *ctx);

/* Bytes [offset, offset + bytes) of the file; -EIO with a sentence. */
int npk__package_read_at(npk_package_file *f, uint64_t offset, uint64_t bytes, void *out);
/* The file from its start as private memory for munmap(): decoded whole. */
int npk__package_map(npk_package_file *f, uint64_t bytes, void **out);
/* Rows by index list, frame by frame where many are in one; every index is inside. */
int npk__package_gather(npk_package_file *f, const npk_info *info, const int64_t *indices, size_t count, void *out);
/* npk_array_runs. */
int npk__package_runs(npk_package_file *f, const npk_info *info, uint64_t first, uint64_t count, uint64_t most,
                      npk_run_visit *visit, void *ctx);

#endif
