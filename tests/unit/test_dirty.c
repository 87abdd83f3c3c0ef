/* SPDX-License-Identifier: Apache-2.0 */
/* The dirty table: what was put in is found, and whatever happens to the file nothing else is. */
#define _GNU_SOURCE 1

#include "dirty.h"

#include "io.h"
#include "place.h"

static place p;

#define TABLE ".npkfs/dirty"

static npk_dirty entry(uint64_t inode, uint64_t birth)
{
    npk_dirty e = {.id = {.inode = inode, .birth_ns = birth},
                   .rows_known = inode * 3,
                   .data_offset = 128,
                   .row_bytes = inode + 1,
                   .may_adopt = inode % 2};
    snprintf(e.name, sizeof(e.name), "array-%llu.npy", (unsigned long long)inode);
    return e;
}

static bool same(const npk_dirty *a, const npk_dirty *b)
{
    return a->id.inode == b->id.inode && a->id.birth_ns == b->id.birth_ns && a->rows_known == b->rows_known &&
           a->data_offset == b->data_offset && a->row_bytes == b->row_bytes && a->may_adopt == b->may_adopt &&
           a->marked == b->marked && strcmp(a->name, b->name) == 0;
}

static int find(uint64_t inode, uint64_t birth, npk_dirty *out)
{
    return npk__dirty_find(p.dir, &(npk_file_id){.inode = inode, .birth_ns = birth}, out);
}

static void forget_all(void)
{
    npk__locks_drop_idle();
    unlinkat(p.dir, TABLE, 0);
}

static int count_one(void *ctx, const npk_dirty *e)
{
    (void)e;
    ++*(int *)ctx;
    return 0;
}

static int count_entries(void)
{
    int n = 0;
    return npk__dirty_each(p.dir, count_one, &n) == 0 ? n : -1;
}

/* ---- what it is for -------------------------------------------------------------------------------------------- */

static void test_absent_table(void)
{
    npk_dirty e;
    CHECK_EQ(find(1, 2, &e), 0);
    CHECK_EQ(npk__dirty_remove(p.dir, &(npk_file_id){.inode = 1}, true), 0);
    CHECK_EQ(npk__dirty_sync(p.dir), 0);
    CHECK_EQ(count_entries(), 0);
    CHECK(!place_exists(&p, ".npkfs"));
}

static void test_add_find_remove(void)
{
    npk_dirty e = entry(77, 5), got;
    CHECK_EQ(npk__dirty_add(p.dir, &e), 0);
    CHECK_EQ(find(77, 5, &got), 1);
    CHECK(same(&e, &got));
    CHECK_EQ(find(77, 6, &got), 0); /* the number again, born later: another file */
    CHECK_EQ(find(78, 5, &got), 0);
    e.rows_known = 1000000;
    CHECK_EQ(npk__dirty_add(p.dir, &e), 0); /* replaces */
    CHECK_EQ(find(77, 5, &got), 1);
    CHECK_EQ(got.rows_known, 1000000);
    CHECK_EQ(count_entries(), 1);
    got.may_adopt = !got.may_adopt;
    e = got;
    CHECK_EQ(npk__dirty_update(p.dir, &got), 0);
    CHECK_EQ(find(77, 5, &got), 1);
    CHECK(same(&e, &got));
    CHECK_EQ(npk__dirty_remove(p.dir, &e.id, true), 1);
    CHECK_EQ(npk__dirty_remove(p.dir, &e.id, false), 0);
    CHECK_EQ(find(77, 5, &got), 0);
    CHECK_EQ(count_entries(), 0);
}

static void test_reborn_inode_takes_the_slot(void)
{
    npk_dirty a = entry(500, 1), b = entry(500, 2), got;
    forget_all();
    CHECK_EQ(npk__dirty_add(p.dir, &a), 0);
    CHECK_EQ(npk__dirty_add(p.dir, &b), 0);
    CHECK_EQ(find(500, 1, &got), 0);
    CHECK_EQ(find(500, 2, &got), 1);
    CHECK_EQ(count_entries(), 1);
}

static void test_marks(void)
{
    forget_all();
    npk_dirty e = entry(9, 9), got;
    const char rows[100] = "the rows that are to be appended";
    CHECK_EQ(npk__dirty_add(p.dir, &e), 0);
    CHECK_EQ(find(9, 9, &e), 1);
    CHECK(!e.marked);
    CHECK_EQ(npk__dirty_mark(p.dir, &e, 4096, 100, rows), 0);
    CHECK(e.marked);
    CHECK_EQ(find(9, 9, &got), 1);
    CHECK(got.marked);
    CHECK_EQ(got.mark_size, 4096);
    CHECK_EQ(got.mark_bytes, 100);
    CHECK_EQ(got.mark_head_bytes, NPK__MARK_HEAD);
    CHECK(memcmp(got.mark_head, rows, NPK__MARK_HEAD) == 0);
    got.may_adopt = !got.may_adopt; /* an update leaves the mark alone */
    CHECK_EQ(npk__dirty_update(p.dir, &got), 0);
    CHECK_EQ(find(9, 9, &got), 1);
    CHECK(got.marked);
    CHECK_EQ(npk__dirty_unmark(p.dir, &e), 0);
    CHECK_EQ(find(9, 9, &got), 1);
    CHECK(!got.marked);
    CHECK_EQ(npk__dirty_mark(p.dir, &e, 1, 3, "abc"), 0);
    CHECK_EQ(find(9, 9, &got), 1);
    CHECK_EQ(got.mark_head_bytes, 3);
}

/* Far more than level 0 has slots for, with removals in between. */
static void test_many(void)
{
    enum { N = 3000 };
    static npk_dirty all[N];
    npk_dirty got;
    forget_all();
    for (int i = 0; i < N; i++)
        all[i] = entry((uint64_t)i * 12 + 100, 7);
    CHECK_EQ(npk__dirty_add_many(p.dir, all, N), 0);
    CHECK_EQ(count_entries(), N);
    int found = 0;
    for (int i = 0; i < N; i++)
        found += find(all[i].id.inode, 7, &got) == 1 && same(&all[i], &got);
    CHECK_EQ(found, N);
    for (int i = 0; i < N; i += 3)
        CHECK_EQ(npk__dirty_remove(p.dir, &all[i].id, false), 1);
    found = 0;
    for (int i = 0; i < N; i++)
        found += find(all[i].id.inode, 7, &got) == (i % 3 != 0); /* those behind a freed slot are still found */
    CHECK_EQ(found, N);
    for (int i = 0; i < 200; i++)
        all[i] = entry((uint64_t)i + 1000000, 8);
    CHECK_EQ(npk__dirty_add_many(p.dir, all, 200), 0);
    CHECK_EQ(count_entries(), N - N / 3 + 200);
}

static void test_moves_with_its_array(void)
{
    forget_all();
    NEED(mkdirat(p.dir, "group", 0755) == 0);
    int group = openat(p.dir, "group", O_PATH | O_DIRECTORY), fd = place_array(&p, "m.npy", 1, 1, 8);
    npk_file_id id;
    npk_dirty got;
    CHECK_EQ(npk__file_id(fd, &id), 0);
    CHECK_EQ(npk__dirty_copy(p.dir, group, fd, "n.npy"), 0);
    CHECK(!place_exists(&p, "group/.npkfs")); /* no entry, nothing made */
    npk_dirty e = {.id = id, .row_bytes = 16, .data_offset = 128, .may_adopt = true, .name = "m.npy"};
    CHECK_EQ(npk__dirty_add(p.dir, &e), 0);
    CHECK_EQ(npk__dirty_copy(p.dir, group, fd, "n.npy"), 0);
    CHECK_EQ(npk__dirty_find(group, &id, &got), 1);
    CHECK_STR(got.name, "n.npy");
    close(group);
    close(fd);
}

/* ---- what may happen to it ------------------------------------------------------------------------------------- */

static char good[64 * 1024];
static size_t good_bytes;

static void save_table(void)
{
    int fd = openat(p.dir, TABLE, O_RDONLY);
    ssize_t n = read(fd, good, sizeof(good));
    NEED(fd >= 0 && n > 0);
    good_bytes = (size_t)n;
    close(fd);
}

static void write_table(const char *bytes, size_t n)
{
    int fd = openat(p.dir, TABLE, O_WRONLY | O_CREAT, 0644);
    NEED(fd >= 0 && pwrite(fd, bytes, n, 0) == (ssize_t)n && ftruncate(fd, (off_t)n) == 0);
    close(fd);
}

/* Every answer must be one of the entries that were put in, or none. */
static int sane(void)
{
    npk_dirty got;
    int found = 0;
    for (uint64_t i = 1; i <= 12; i++) {
        npk_dirty e = entry(i, 4);
        int there = find(i, 4, &got);
        if (there < 0 || (there > 0 && !same(&e, &got)))
            return -1;
        found += there;
    }
    int n = count_entries();
    return n < 0 || n > 12 ? -1 : found;
}

static void put_twelve(void)
{
    npk_dirty e[12];
    forget_all();
    for (uint64_t i = 1; i <= 12; i++)
        e[i - 1] = entry(i, 4);
    CHECK_EQ(npk__dirty_add_many(p.dir, e, 12), 0);
    save_table();
    CHECK_EQ(sane(), 12);
}

static void test_cut_at_every_byte(void)
{
    put_twelve();
    int bad = 0, most = 0;
    size_t step = 1; /* every byte of the used part; the holes behind it say nothing new */
    for (size_t n = 0; n < good_bytes; n += n < 9000 ? step : 512) {
        write_table(good, n);
        int found = sane();
        bad += found < 0;
        most = found > most ? found : most;
    }
    CHECK_EQ(bad, 0);
    CHECK(most >= 8 && most < 12); /* or the cuts have cut nothing, or all */
}

static void test_every_byte_flipped(void)
{
    put_twelve();
    int bad = 0, lost = 0;
    for (size_t at = 0; at < good_bytes; at++) {
        if (at > 8192 && good[at] == 0 && at % 61 != 0)
            continue;
        char was = good[at];
        good[at] ^= (char)(1 << at % 8);
        write_table(good, good_bytes);
        int found = sane();
        bad += found < 0;
        lost += found < 12;
        good[at] = was;
    }
    CHECK_EQ(bad, 0);
    CHECK(lost > 2500); /* a flipped bit in an entry costs it, and no more */
}

static void test_garbage(void)
{
    static char noise[20000];
    unsigned seed = 1;
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < sizeof(noise); i++)
            noise[i] = (char)rand_r(&seed);
        if (round % 2)
            memcpy(noise, good, 16); /* a good header before it */
        write_table(noise, (size_t)rand_r(&seed) % sizeof(noise));
        npk__locks_drop_idle();
        CHECK(sane() >= 0);
    }
}

/* What is no table is kept under another name; the new one works. */
static void test_foreign_file_is_set_aside(void)
{
    npk_dirty e = entry(5, 5), got;
    forget_all();
    write_table("somebody's notes", 16);
    CHECK_EQ(find(5, 5, &got), 0);
    CHECK_EQ(npk__dirty_add(p.dir, &e), 0);
    CHECK_EQ(find(5, 5, &got), 1);
    int fd = openat(p.dir, ".npkfs/dirty.aside.0", O_RDONLY);
    char text[20] = "";
    CHECK_EQ(read(fd, text, sizeof(text)), 16);
    CHECK_STR(text, "somebody's notes");
    close(fd);
    forget_all();
    char newer[4096];
    memcpy(newer, good, sizeof(newer));
    newer[8] = 2; /* a later version */
    write_table(newer, sizeof(newer));
    CHECK_EQ(npk__dirty_add(p.dir, &e), 0);
    CHECK(place_exists(&p, ".npkfs/dirty.aside.1"));
}

static void test_removed_while_kept(void)
{
    npk_dirty e = entry(31, 1), got;
    forget_all();
    CHECK_EQ(npk__dirty_add(p.dir, &e), 0);
    CHECK_EQ(find(31, 1, &got), 1);
    NEED(unlinkat(p.dir, TABLE, 0) == 0); /* its description is still kept */
    e = entry(32, 1);
    CHECK_EQ(npk__dirty_add(p.dir, &e), 0);
    CHECK_EQ(find(32, 1, &got), 1);
    CHECK_EQ(find(32, 1, &got), 1);
}

/* ---- durability ------------------------------------------------------------------------------------------------ */

static bool log_has(const char *path, const char *first, const char *then)
{
    char line[128];
    FILE *f = fopen(path, "r");
    bool seen = false, both = false;
    while (f && fgets(line, sizeof(line), f)) {
        both |= seen && strstr(line, then);
        seen |= strstr(line, first) != NULL;
    }
    if (f)
        fclose(f);
    return both;
}

static void test_entry_is_synced_before_it_is_promised(void)
{
    char path[300], plan[320];
    snprintf(path, sizeof(path), "%s/calls", p.path);
    snprintf(plan, sizeof(plan), "count:%s", path);
    forget_all();
    npk_dirty e = entry(3, 3);
    NEED(npk__io_plan_set(plan) == 0);
    CHECK_EQ(npk__dirty_add(p.dir, &e), 0);
    npk__io_plan_set(NULL);
    CHECK(log_has(path, "pwrite 512", "fdatasync"));
    CHECK(log_has(path, "fdatasync", "fsync")); /* a new table's name, too */
    NEED(npk__io_plan_set("fail:2:EIO") == 0);
    e = entry(4, 3);
    CHECK_EQ(npk__dirty_add(p.dir, &e), -EIO); /* no sync, no promise */
    npk__io_plan_set(NULL);
}

int main(void)
{
    p = place_begin();
    RUN(test_absent_table);
    RUN(test_add_find_remove);
    RUN(test_reborn_inode_takes_the_slot);
    RUN(test_marks);
    RUN(test_many);
    RUN(test_moves_with_its_array);
    RUN(test_cut_at_every_byte);
    RUN(test_every_byte_flipped);
    RUN(test_garbage);
    RUN(test_foreign_file_is_set_aside);
    RUN(test_removed_while_kept);
    RUN(test_entry_is_synced_before_it_is_promised);
    place_end(&p);
    return UNIT_RESULT();
}
