/* SPDX-License-Identifier: Apache-2.0 */
/* Packages: round trips, the same bytes for any number of threads, reading through a store's handle, damage. */
#include <dirent.h>

#include "packages.h"

static char package[300], target[300];
static const npk_pack_options small = {.frame_bytes = 4096, .threads = 2};

static place begin(void)
{
    place p = place_begin();
    packages_fill(&p);
    snprintf(package, sizeof(package), "%s.npkg", p.path);
    snprintf(target, sizeof(target), "%s.out", p.path);
    unlink(package);
    return p;
}

static void end(place *p)
{
    unlink(package);
    nftw(target, place_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    place_end(p);
}

/* Do two directories hold the same names, kinds, modes, times and bytes? */
static int same_tree(const char *a, const char *b)
{
    char *command;
    NEED(asprintf(&command,
             "diff -r --no-dereference -x .npkfs '%s' '%s' && "
             "f() { cd \"$1\" && find . -name .npkfs -prune -o -printf '%%p %%y %%m %%T@ %%l\\n' | sort; } && "
             "(f '%s') >'%s.a' && (f '%s') >'%s.b' && cmp '%s.a' '%s.b'; r=$?; rm -f '%s.a' '%s.b'; exit $r", a, b, a, b,
             b, b, b, b, b, b) > 0);
    int status = system(command);
    free(command);
    return status;
}

static void round_trip(void)
{
    place p = begin();
    CHECK_EQ(npk_pack(p.store, package, &small), 0);
    CHECK_EQ(npk_unpack(package, target, NULL), 0);
    CHECK_EQ(same_tree(p.path, target), 0);
    CHECK_EQ(npk_unpack(package, target, NULL), -EEXIST);
    CHECK_EQ(npk_pack(p.store, package, &small), -EEXIST);
    nftw(target, place_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    /* From a pipe. */
    int fd = open(package, O_RDONLY | O_CLOEXEC);
    CHECK_EQ(npk_unpack_fd(fd, target, NULL), 0);
    close(fd);
    CHECK_EQ(same_tree(p.path, target), 0);
    end(&p);
}

static void same_bytes(void)
{
    place p = begin();
    blob first = {0};
    for (unsigned threads = 1; threads <= 5; threads++) {
        npk_pack_options o = small;
        o.threads = threads;
        o.replace = true;
        CHECK_EQ(npk_pack(p.store, package, &o), 0);
        blob b = blob_read(package);
        if (threads == 1)
            first = b;
        else
            CHECK(blob_same(&first, &b));
        if (threads > 1)
            free(b.data);
    }
    free(first.data);
    end(&p);
}

static int count_names(void *ctx, const char *name, const npk_info *info)
{
    (void)info;
    CHECK(strcmp(name, "bad") != 0);
    ++*(int *)ctx;
    return 0;
}

static int add_rows(void *ctx, uint64_t first, uint64_t count, const void *rows)
{
    (void)rows;
    uint64_t *next = ctx;
    CHECK_EQ(first, *next);
    *next += count;
    return 0;
}

static void as_a_store(void)
{
    place p = begin();
    npk_store *s = NULL;
    npk_array *mine = NULL, *theirs = NULL;
    npk_info info;
    int names = 0;
    NEED(npk_pack(p.store, package, &small) == 0);
    CHECK_EQ(npk_store_open(package, 0, &s), 0);
    CHECK(npk_store_read_only(s));
    CHECK_EQ(npk_list(s, "", 0, count_names, &names), 0);
    CHECK_EQ(names, 6);
    names = 0;
    CHECK_EQ(npk_list(s, "group", NPK_LIST_FLAT, count_names, &names), 0);
    CHECK_EQ(names, 2);
    CHECK_EQ(npk_list(s, "none", 0, count_names, &names), -ENOENT);
    CHECK_EQ(npk_stat(s, "group/noise", &info), 0);
    CHECK_EQ(info.rows, 700);
    CHECK_EQ(npk_stat(s, "bad", &info), 0);
    CHECK(info.reason != NULL);
    npk_info_clear(&info);
    CHECK_EQ(npk_stat(s, "none", &info), -ENOENT);
    NEED(npk_array_open(s, "group/noise", &mine) == 0 && npk_array_open(p.store, "group/noise", &theirs) == 0);
    static uint8_t a[70000], b[70000];
    CHECK_EQ(npk_read_all(mine, a), 0);
    CHECK_EQ(npk_read_all(theirs, b), 0);
    CHECK(memcmp(a, b, sizeof(a)) == 0);
    const int64_t rows[] = {699, -1, 0, 350, 350, 12};
    CHECK_EQ(npk_read_rows(mine, rows, 6, a), 0);
    CHECK_EQ(npk_read_rows(theirs, rows, 6, b), 0);
    CHECK(memcmp(a, b, 600) == 0);
    CHECK_EQ(npk_read_range(mine, 37, 111, a), 0);
    CHECK_EQ(npk_read_range(theirs, 37, 111, b), 0);
    CHECK(memcmp(a, b, 11100) == 0);
    CHECK_EQ(npk_read_range(mine, 690, 11, a), -ERANGE);
    const void *map;
    uint64_t bytes, next = 3;
    CHECK_EQ(npk_array_map(mine, &map, &bytes), 0);
    CHECK_EQ(bytes, 70000);
    CHECK_EQ(npk_read_all(theirs, b), 0);
    CHECK(memcmp(map, b, bytes) == 0);
    CHECK_EQ(npk_array_runs(mine, 3, 600, 41, add_rows, &next), 0);
    CHECK_EQ(next, 603);
    npk_array_close(&mine);
    npk_array_close(&theirs);
    CHECK_EQ(npk_remove(s, "floats"), -EROFS);
    CHECK_EQ(npk_append(s, "floats", a, 1, NULL), -EROFS);
    CHECK_HAS(npk_error(), "package");
    npk_store_close(&s);
    end(&p);
}

/* Chosen entries, chosen rows. */
static void parts(void)
{
    place p = begin();
    char path[600];
    NEED(npk_pack(p.store, package, &small) == 0);
    const char *const names[] = {"group/deep", "floats", NULL}, *const none[] = {"nothing", NULL};
    npk_unpack_options o = {.names = names};
    CHECK_EQ(npk_unpack(package, target, &o), 0);
    snprintf(path, sizeof(path), "%s/group/deep/sorted.npy", target);
    CHECK_EQ(access(path, F_OK), 0);
    snprintf(path, sizeof(path), "%s/group/noise.npy", target);
    CHECK_EQ(access(path, F_OK), -1);
    nftw(target, place_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    o.names = none;
    CHECK_EQ(npk_unpack(package, target, &o), -ENOENT);
    CHECK_EQ(access(target, F_OK), -1);
    end(&p);
}

static void left_out(void)
{
    place p = begin();
    npk_package *pkg = NULL;
    uint64_t i;
    npk_entry e;
    const char *const exclude[] = {"deep", "*.md", "README", NULL}, *const raw[] = {"gaps.npy", NULL};
    npk_pack_options o = small;
    o.exclude = exclude;
    o.raw = raw;
    CHECK_EQ(npk_pack(p.store, package, &o), 0);
    CHECK_EQ(npk_package_open(package, &pkg), 0);
    CHECK_EQ(npk_package_find(pkg, "README", 6, &i), -ENOENT);
    CHECK_EQ(npk_package_find(pkg, "group/deep", 10, &i), -ENOENT);
    CHECK_EQ(npk_package_find(pkg, "group/deep/sorted.npy", 21, &i), -ENOENT);
    CHECK_EQ(npk_package_find(pkg, "group/gaps.npy", 14, &i), 0);
    npk_package_entry(pkg, i, &e);
    CHECK(e.contiguous);
    CHECK_EQ(e.contiguous_at % 4096, 0);
    CHECK_STR(e.filter, "raw");
    npk_package_close(&pkg);
    end(&p);
}

/* Links that lead outside, and what is no file, are refused, and nothing is left of the package. */
static void refused(void)
{
    place p = begin();
    char path[600];
    snprintf(path, sizeof(path), "%s/out", p.path);
    NEED(symlink("../../etc/passwd", path) == 0);
    CHECK_EQ(npk_pack(p.store, package, NULL), -EINVAL);
    CHECK_HAS(npk_error(), "outside");
    CHECK_EQ(access(package, F_OK), -1);
    unlink(path);
    NEED(mkfifo(path, 0600) == 0);
    CHECK_EQ(npk_pack(p.store, package, NULL), -ENOTSUP);
    CHECK_EQ(access(package, F_OK), -1);
    end(&p);
}

static int cancel(void *ctx, uint64_t done, uint64_t all)
{
    (void)done;
    (void)all;
    return ++*(int *)ctx > 2;
}

static int hidden_names(const char *of)
{
    char dir[300];
    snprintf(dir, sizeof(dir), "%s", of);
    char *slash = strrchr(dir, '/');
    *slash = '\0';
    int found = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        found += strncmp(e->d_name + 1, slash + 1, strlen(slash + 1)) == 0 && e->d_name[0] == '.';
    closedir(d);
    return found;
}

static void cancelled(void)
{
    place p = begin();
    int calls = 0;
    npk_pack_options o = small;
    o.progress = cancel;
    o.ctx = &calls;
    CHECK_EQ(npk_pack(p.store, package, &o), -ECANCELED);
    CHECK_EQ(access(package, F_OK), -1);
    NEED(npk_pack(p.store, package, &small) == 0);
    calls = 0;
    npk_unpack_options u = {.progress = cancel, .ctx = &calls};
    CHECK_EQ(npk_unpack(package, target, &u), -ECANCELED);
    CHECK_EQ(access(target, F_OK), -1);
    CHECK_EQ(hidden_names(target), 0);
    end(&p);
}

/* A file that changes between the listing and its turn. */
static int touch(void *ctx, uint64_t done, uint64_t all)
{
    (void)done;
    (void)all;
    char path[600];
    snprintf(path, sizeof(path), "%s/README", ((place *)ctx)->path);
    blob_write(path, "another text\n", 13);
    return 0;
}

static void changed_meanwhile(void)
{
    place p = begin();
    npk_pack_options o = small;
    o.progress = touch;
    o.ctx = &p;
    CHECK_EQ(npk_pack(p.store, package, &o), -ESTALE);
    CHECK_HAS(npk_error(), "README");
    CHECK_EQ(access(package, F_OK), -1);
    end(&p);
}

static int one_name(void *ctx, const char *name, uint64_t start, uint64_t stop)
{
    CHECK(strcmp(name, "first") == 0 || strcmp(name, "last ten") == 0);
    *(uint64_t *)ctx += strcmp(name, "first") == 0 ? start * 1000 + stop : stop - start;
    return 0;
}

/* Deleted rows are not in the package; named ones keep their names. */
static void deleted_rows(void)
{
    place p = begin();
    NEED(npk_name_set(p.store, "floats", "first", 5, 40) == 0 && npk_name_set(p.store, "floats", "last ten", 490, 500) == 0);
    npk_rows drop = {0};
    npk_run run = {10, 20, 1};
    drop = (npk_rows){&run, 1, 1, 20};
    NEED(npk_drop_rows(p.store, "floats", &drop, NPK_ANY_GENERATION, NULL) == 0);
    CHECK_EQ(npk_pack(p.store, package, &small), 0);
    CHECK_EQ(npk_unpack(package, target, NULL), 0);
    npk_store *s = NULL;
    npk_array *mine = NULL, *theirs = NULL;
    static float a[4000], b[4000];
    NEED(npk_store_open(target, NPK_READ_ONLY, &s) == 0 && npk_array_open(s, "floats", &mine) == 0);
    NEED(npk_array_open(p.store, "floats", &theirs) == 0);
    CHECK_EQ(npk_array_info(mine)->rows, 480);
    CHECK_EQ(npk_array_info(mine)->deleted, 0);
    uint64_t sum = 0;
    CHECK_EQ(npk_names(s, "floats", one_name, &sum), 0);
    CHECK_EQ(sum, 5000 + 20 + 10); /* rows 5 to 40 less the 20 that are gone */
    npk_store *packed = NULL;
    sum = 0;
    NEED(npk_store_open(package, 0, &packed) == 0);
    CHECK_EQ(npk_names(packed, "floats", one_name, &sum), 0);
    CHECK_EQ(sum, 5000 + 20 + 10);
    npk_store_close(&packed);
    CHECK_EQ(npk_read_all(mine, a), 0);
    CHECK_EQ(npk_read_all(theirs, b), 0);
    CHECK(memcmp(a, b, 480 * 8 * 4) == 0);
    npk_array_close(&mine);
    npk_array_close(&theirs);
    npk_store_close(&s);
    end(&p);
}

/* A file of 12 MiB, read in sequence by requests of 40 KiB. Returns bytes that are kept when it is read. */
static uint64_t stream(bool passed, const uint8_t *want, uint64_t bytes)
{
    npk_package *k = NULL;
    npk_package_file *f = NULL;
    npk_held pieces[64];
    uint64_t i, kept, hits, misses;
    NEED(npk_package_open(package, &k) == 0);
    NEED(npk_package_find(k, "long.npy", 8, &i) == 0 && npk_package_file_open(k, i, &f) == 0);
    npk_package_file_page(f, 100);
    for (uint64_t at = 128; at < 128 + bytes;) {
        size_t count, wrong = 0, astray = 0;
        CHECK_EQ(npk_package_file_prefetch(f, at + 50000), 0);
        CHECK_EQ(npk_package_file_hold(f, at, 40960, pieces, 64, &count), 0);
        NEED(count > 0);
        for (size_t n = 0; n < count; n++) {
            wrong += memcmp(pieces[n].data, want + at - 128, pieces[n].bytes) != 0;
            astray += ((uintptr_t)pieces[n].data - (at - 100)) % 4096 != 0;
            at += pieces[n].bytes;
        }
        CHECK_EQ(wrong, 0);
        CHECK_EQ(astray, 0);
        npk_package_release(k, pieces, count, passed);
    }
    npk_package_cache(k, &kept, &hits, &misses);
    CHECK_EQ(misses, (bytes + 4095) / 4096); /* nothing was decoded twice */
    npk_package_file_close(&f);
    npk_package_close(&k);
    return kept;
}

/* Frames lie in memory as was asked for, and those that a reader has passed make room for those before it. */
static void in_sequence(void)
{
    place p = begin();
    uint64_t bytes = 12u << 20;
    uint8_t *data = malloc(bytes);
    NEED(data);
    for (uint64_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)((i * 2654435761u >> 20) & 63);
    packages_save(&p, "long", "uint8", bytes / 64, 64, data);
    NEED(npk_pack(p.store, package, &small) == 0);
    CHECK_EQ(stream(false, data, bytes), bytes);
    CHECK(stream(true, data, bytes) <= (5u << 20));
    free(data);
    end(&p);
}

/* A package that is cut while its stored arrays are read: an error for what is gone, no SIGBUS, and the rest reads right. */
static void cut_meanwhile(void)
{
    place p = begin();
    npk_package *k = NULL;
    npk_package_file *f = NULL;
    npk_held pieces[4];
    uint64_t i, bytes = 1u << 20;
    uint8_t *data = calloc(1, bytes);
    const char *const all[] = {"*", NULL};
    const npk_pack_options raw = {.frame_bytes = 65536, .raw = all};
    NEED(data);
    for (uint64_t at = 0; at < bytes; at++)
        data[at] = (uint8_t)(at >> 8);
    packages_save(&p, "stored", "uint8", bytes / 64, 64, data);
    NEED(npk_pack(p.store, package, &raw) == 0);
    NEED(npk_package_open(package, &k) == 0);
    NEED(npk_package_find(k, "stored.npy", 10, &i) == 0 && npk_package_file_open(k, i, &f) == 0);
    npk_entry e;
    npk_package_entry(k, i, &e);
    CHECK(e.contiguous);
    CHECK_EQ(npk_package_file_prefetch(f, 70000), 0);
    NEED(truncate(package, (off_t)(e.contiguous_at + bytes / 2)) == 0);
    CHECK_EQ(npk_package_file_prefetch(f, bytes - 1), -EIO);
    CHECK_HAS(npk_error(), "stored.npy");
    size_t count = 0;
    CHECK_EQ(npk_package_file_hold(f, bytes - 100000, 65536, pieces, 4, &count), -EIO);
    CHECK_EQ(npk_package_file_read(f, bytes - 100000, data, 64), -EIO);
    CHECK_EQ(npk_package_file_hold(f, 128 + 200000, 65536, pieces, 4, &count), 0);
    CHECK(count == 1 && memcmp(pieces[0].data, data + 200000, pieces[0].bytes) == 0);
    npk_package_release(k, pieces, count, false);
    npk_package_file_close(&f);
    npk_package_close(&k);
    free(data);
    end(&p);
}

int main(void)
{
    umask(022);
    RUN(round_trip);
    RUN(same_bytes);
    RUN(as_a_store);
    RUN(parts);
    RUN(left_out);
    RUN(refused);
    RUN(cancelled);
    RUN(changed_meanwhile);
    RUN(deleted_rows);
    RUN(in_sequence);
    RUN(cut_meanwhile);
    return UNIT_RESULT();
}
