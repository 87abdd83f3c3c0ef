/* SPDX-License-Identifier: Apache-2.0 */
/* The controls of arrays and of the mount on a real store, without a mount: what they say, and what writing `shape` does. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "control_table.h"
#include "unit.h"

static char dir[] = "/tmp/npkfs-unit.XXXXXX";
static fs_state fs;

/* An array of zeros. */
static void save(const char *name, const char *dtype, uint32_t ndim, const uint64_t *shape)
{
    npk_array_in in = {.name = name, .dtype = dtype, .shape = shape, .ndim = ndim};
    unit_note("%s", name);
    CHECK_EQ(npk_save(fs.store, &in, 1), 0);
}

static const char *show(fs_control_scope scope, const char *path, const char *control)
{
    static char text[8192];
    fs_text t = {0};
    const fs_control *c = fs_control_find(scope, control);
    int err = c ? c->render(&fs, path, &t) : -ENOENT;
    snprintf(text, sizeof text, "%s", err ? strerror(-err) : t.data ? t.data : "");
    fs_text_clear(&t);
    return text;
}

static int set_shape(const char *path, const char *line)
{
    fs_control_write *w = fs_control_write_open(&fs, fs_control_find(FS_CONTROL_ARRAY, "shape"), path);
    int n = fs_control_write_data(w, line, strlen(line), 1);
    int err = n < 0 ? n : fs_control_write_flush(w, 1);
    fs_control_write_close(w);
    return err;
}

static void test_properties(void)
{
    static const struct { const char *control, *text; } expected[] = {
        {"shape", "1050,128\n"}, {"dtype", "float32\n"}, {"order", "C\n"},       {"rows", "1050\n"},
        {"live", "1050\n"},      {"deleted", "0\n"},     {"nbytes", "537600\n"}, {"last_error", ""},
    };
    save("train/x", "float32", 2, (uint64_t[]){1050, 128});
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        unit_note("%s", expected[i].control);
        CHECK_STR(show(FS_CONTROL_ARRAY, "train/x.npy", expected[i].control), expected[i].text);
    }
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "%s/train/x.npy", dir);
    CHECK_EQ(stat(path, &st), 0);
    int64_t mtime_us = st.st_mtim.tv_sec * 1000000ll + st.st_mtim.tv_nsec / 1000;
    CHECK_EQ(atoll(show(FS_CONTROL_ARRAY, "train/x.npy", "mtime")), mtime_us);
    save("scalar", ">f8", 0, NULL);
    CHECK_STR(show(FS_CONTROL_ARRAY, "scalar.npy", "shape"), "\n");
    CHECK_STR(show(FS_CONTROL_ARRAY, "none.npy", "shape"), strerror(ENOENT));
}

/* Each line against an array of shape 6,4: errno, the shape afterwards, and a part of the sentence. */
static void test_shape(void)
{
    static const struct { const char *line; int err; const char *after, *sentence; } cases[] = {
        {"6,4", 0, "6,4\n", ""},
        {"2,4\n", 0, "2,4\n", ""},
        {"0,4\n", 0, "0,4\n", ""},
        {"9,4", 0, "9,4\n", ""},
        {"4,6", 0, "4,6\n", ""},
        {"24", 0, "24\n", ""},
        {"24,", 0, "24\n", ""},
        {" ( 2 , 3,\t4 , )\r\n", 0, "2,3,4\n", ""},
        {"-1", 0, "24\n", ""},
        {"3,-1,2", 0, "3,4,2\n", ""},
        {"-1,4", 0, "6,4\n", ""},
        {"-1,5", -EINVAL, "6,4\n", "5 elements and the array has 24"},
        {"-1,0", -EINVAL, "6,4\n", "24"},
        {"-1,-1", -EINVAL, "6,4\n", "twice"},
        {"6,5", -EINVAL, "6,4\n", "30, but the array has 24 in the shape 6,4"},
        {"7,5,1", -EINVAL, "6,4\n", "\"7,5,1\""},
        {"\n", -EINVAL, "6,4\n", "24"},
        {"()", -EINVAL, "6,4\n", "24"},
        {"6 4", -EINVAL, "6,4\n", "not a shape"},
        {"6,,4", -EINVAL, "6,4\n", "not a shape"},
        {",", -EINVAL, "6,4\n", "not a shape"},
        {"(6,4", -EINVAL, "6,4\n", "not a shape"},
        {"6,4)", -EINVAL, "6,4\n", "not a shape"},
        {"-2,4", -EINVAL, "6,4\n", "not a shape"},
        {"-12", -EINVAL, "6,4\n", "not a shape"},
        {"6,4x", -EINVAL, "6,4\n", "not a shape"},
        {"1e1,4", -EINVAL, "6,4\n", "not a shape"},
        {"9223372036854775808,4", -ERANGE, "6,4\n", "2^63-1"},
        {"4611686018427387904,4", -ERANGE, "6,4\n", "2^63-1"},
        {"1152921504606846976,4", -ERANGE, "6,4\n", "2^63-1"},
        {"9223372036854775807,9223372036854775807", -ERANGE, "6,4\n", "2^63-1"},
        {"1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
         "1,1,1,1,1,1,1,1,24", -EINVAL, "6,4\n", "64"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32], path[40];
        snprintf(name, sizeof name, "s%zu", i);
        snprintf(path, sizeof path, "s%zu.npy", i);
        save(name, "int32", 2, (uint64_t[]){6, 4});
        unit_note("\"%s\"", cases[i].line);
        CHECK_EQ(set_shape(path, cases[i].line), cases[i].err);
        CHECK_STR(show(FS_CONTROL_ARRAY, path, "shape"), cases[i].after);
        CHECK_HAS(show(FS_CONTROL_ARRAY, path, "last_error"), cases[i].sentence);
    }
    save("one", "int32", 2, (uint64_t[]){1, 1});
    CHECK_EQ(set_shape("one.npy", "()\n"), 0);
    CHECK_STR(show(FS_CONTROL_ARRAY, "one.npy", "shape"), "\n");
    CHECK_EQ(set_shape("one.npy", "1"), 0);
    CHECK_EQ(set_shape("one.npy", "\n"), 0);
    CHECK_STR(show(FS_CONTROL_ARRAY, "one.npy", "shape"), "\n");
}

/* Two lines in one write: a bad second one keeps the first from acting. */
static void test_shape_lines(void)
{
    save("two", "int32", 2, (uint64_t[]){6, 4});
    CHECK_EQ(set_shape("two.npy", "3,4\n6,5\n"), -EINVAL);
    CHECK_STR(show(FS_CONTROL_ARRAY, "two.npy", "shape"), "6,4\n");
    CHECK_EQ(set_shape("two.npy", "3,4\n5,4"), 0);
    CHECK_STR(show(FS_CONTROL_ARRAY, "two.npy", "shape"), "5,4\n");
}

/* Rows that a stranger appended are counted when they are asked for by number, and not before. */
static void test_shape_takes_tail(void)
{
    char path[64], rows[2 * 16];
    save("tail", "int32", 2, (uint64_t[]){6, 4});
    snprintf(path, sizeof path, "%s/tail.npy", dir);
    int fd = open(path, O_WRONLY | O_APPEND);
    memset(rows, 7, sizeof rows);
    CHECK_EQ(write(fd, rows, sizeof rows), sizeof rows);
    close(fd);
    CHECK_STR(show(FS_CONTROL_ARRAY, "tail.npy", "shape"), "6,4\n");
    CHECK_EQ(set_shape("tail.npy", "9,4\n"), 0);
    CHECK_STR(show(FS_CONTROL_ARRAY, "tail.npy", "shape"), "9,4\n");
    npk_array *a;
    int32_t got[9 * 4];
    CHECK_EQ(npk_array_open(fs.store, "tail", &a), 0);
    CHECK_EQ(npk_read_all(a, got), 0);
    CHECK_EQ(got[6 * 4], 0x07070707);
    CHECK_EQ(got[8 * 4], 0);
    npk_array_close(&a);
}

static void test_busy(void)
{
    char path[64];
    save("busy", "int32", 2, (uint64_t[]){6, 4});
    snprintf(path, sizeof path, "%s/busy.npy", dir);
    int fd = open(path, O_RDWR);
    int err = set_shape("busy.npy", "2,4\n");
    if (fs.leases_prove) {
        CHECK_EQ(err, -EBUSY);
        CHECK_STR(show(FS_CONTROL_ARRAY, "busy.npy", "shape"), "6,4\n");
        CHECK_HAS(show(FS_CONTROL_ARRAY, "busy.npy", "last_error"), "shape: \"2,4\": ");
    }
    close(fd);
    CHECK_EQ(set_shape("busy.npy", "2,4\n"), 0);
}

static void test_xattr(void)
{
    fs_text t = {0};
    save("attr", "int32", 2, (uint64_t[]){6, 4});
    CHECK_EQ(fs_control_xattr_get(&fs, "attr.npy", "shape", &t), 0);
    CHECK_STR(t.data, "6,4");
    CHECK_EQ(t.bytes, 3);
    fs_text_clear(&t);
    CHECK_EQ(fs_control_xattr_get(&fs, "attr.npy", "last_error", &t), 0);
    CHECK_EQ(t.bytes, 0);
    CHECK_EQ(fs_control_xattr_get(&fs, "attr.npy", "bogus", &t), -ENODATA);
    CHECK_EQ(fs_control_xattr_get(&fs, "attr.npy", "version", &t), -ENODATA);
    CHECK_EQ(fs_control_xattr_set(&fs, "attr.npy", "shape", "3,8", 3), 0);
    CHECK_EQ(fs_control_xattr_set(&fs, "attr.npy", "shape", "3,8\n", 5), 0); /* with the string's end */
    CHECK_EQ(fs_control_xattr_set(&fs, "attr.npy", "shape", "3,9", 3), -EINVAL);
    CHECK_EQ(fs_control_xattr_set(&fs, "attr.npy", "shape", "", 0), -EINVAL);
    CHECK_EQ(fs_control_xattr_set(&fs, "attr.npy", "rows", "3", 1), -EACCES);
    CHECK_EQ(fs_control_xattr_set(&fs, "attr.npy", "bogus", "3", 1), -ENODATA);
    CHECK_STR(show(FS_CONTROL_ARRAY, "attr.npy", "shape"), "3,8\n");
    char path[64];
    snprintf(path, sizeof path, "%s/plain.npy", dir);
    FILE *f = fopen(path, "w");
    fputs("no array\n", f);
    fclose(f);
    CHECK_EQ(fs_control_xattr_get(&fs, "plain.npy", "shape", &t), -ENODATA);
    fs_text_clear(&t);
}

/* ---- the mount -------------------------------------------------------------------------------------------------------- */

static void test_mount_facts(void)
{
    char expected[160];
    CHECK_STR(show(FS_CONTROL_MOUNT, "", "version"), NPK_VERSION "\n");
    snprintf(expected, sizeof expected, "path\t%s\nfd\t/proc/%d/fd/%d\n", dir, getpid(), fs.root_fd);
    CHECK_STR(show(FS_CONTROL_MOUNT, "", "store"), expected);
    CHECK_HAS(show(FS_CONTROL_MOUNT, "", "health"), "status\tok\nmode\tdaemon\nmode_reason\ta \\012 test\nread_only\tno\n");
    fs_note_health(&fs, "bad\xff.npy", "a \"tail\" of 3 rows");
    CHECK_HAS(show(FS_CONTROL_MOUNT, "", "health"), "status\tnotes\n");
    CHECK_HAS(show(FS_CONTROL_MOUNT, "", "health"), "Z bad\xff.npy: a \"tail\" of 3 rows\n");
    fs.stats.reads = 7;
    CHECK_HAS(show(FS_CONTROL_MOUNT, "", "stats"), "\nreads\t7\n");
}

static void test_json(void)
{
    fs.stats.written_bytes = UINT64_C(9007199254740992);
    fs.stats.read_bytes = UINT64_C(9007199254740993);
    cJSON *stats = cJSON_Parse(show(FS_CONTROL_MOUNT, "", "stats.json"));
    CHECK_HAS(show(FS_CONTROL_MOUNT, "", "stats.json"), ":\t9007199254740992,");
    CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(stats, "read_bytes")), "9007199254740993");
    CHECK_EQ(cJSON_GetNumberValue(cJSON_GetObjectItem(stats, "reads")), 7);
    cJSON_Delete(stats);

    cJSON *health = cJSON_Parse(show(FS_CONTROL_MOUNT, "", "health.json"));
    CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(health, "status")), "notes");
    CHECK(cJSON_IsFalse(cJSON_GetObjectItem(health, "read_only")));
    CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(health, "mode_reason")), "a \n test");
    cJSON *note = cJSON_GetArrayItem(cJSON_GetObjectItem(health, "notes"), 0);
    CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(note, "path")), "bad\xef\xbf\xbd.npy");
    CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(note, "sentence")), "a \"tail\" of 3 rows");
    cJSON_Delete(health);
}

static void test_tables(void)
{
    for (int scope = FS_CONTROL_ARRAY; scope <= FS_CONTROL_MOUNT; scope++) {
        const fs_control *c;
        size_t i = 0;
        for (; (c = fs_control_at((fs_control_scope)scope, i)); i++) {
            unit_note("%s", c->name);
            CHECK(fs_control_find((fs_control_scope)scope, c->name) == c);
            CHECK(c->render != NULL);
            CHECK(!c->check == (!c->apply || c->numbered));
            CHECK_EQ(c->help[strlen(c->help) - 1], '.');
        }
        CHECK(i > 5);
    }
    CHECK(fs_control_find(FS_CONTROL_MOUNT, "shape") == NULL);
}

int main(void)
{
    if (!mkdtemp(dir) || npk_store_open(dir, 0, &fs.store) != 0 || fs_controls_new(&fs) != 0)
        return 1;
    fs.root_fd = npk_store_fd(fs.store);
    fs.source_path = dir;
    fs.mode = FS_MODE_DAEMON;
    strcpy(fs.mode_reason, "a \n test");
    fs.leases_prove = npk_leases_prove(fs.store, &fs.lease_reason);
    RUN(test_properties);
    RUN(test_shape);
    RUN(test_shape_lines);
    RUN(test_shape_takes_tail);
    RUN(test_busy);
    RUN(test_xattr);
    RUN(test_mount_facts);
    RUN(test_json);
    RUN(test_tables);
    npk_reset(fs.store);
    npk_store_close(&fs.store);
    fs_controls_free(&fs);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return UNIT_RESULT() | (system(command) != 0);
}
