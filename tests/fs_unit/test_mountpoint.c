/* SPDX-License-Identifier: Apache-2.0 */
/* Which filesystem lies at a path, by what /proc/self/mountinfo says; and what makes a directory unfit. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mountpoint.h"
#include "unit.h"

static char device[24];

static const char *type_of(const char *mountinfo, const char *path)
{
    static char type[64];
    char *copy = strdup(mountinfo);
    mountpoint_find(copy, path, type, sizeof type, device, sizeof device);
    free(copy);
    return type;
}

static const char lines[] =
    "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "36 21 0:31 / /mnt/a\\040b\\134c\\012d rw,nosuid shared:2 master:1 - fuse.npkfs /data rw,user_id=0\n"
    "37 21 0:32 / /mnt/over rw - fuse.npkfs /one rw\n"
    "38 37 0:33 / /mnt/over rw - tmpfs none rw\n"
    "39 21 0:34 / /mnt/under rw - tmpfs none rw\n"
    "40 39 0:35 / /mnt/under rw - fuse.npkfs /two\\040x rw\n"
    "41 21 0:36 /- /mnt/dash rw - fuse.sshfs - rw\n"
    "short line\n"
    "\n"
    "42 21 0:37 / /mnt/last rw - fuse.npkfs /three rw";

static void test_mountinfo(void)
{
    CHECK_STR(type_of(lines, "/"), "ext4");
    CHECK_STR(type_of(lines, "/mnt/a b\\c\nd"), "fuse.npkfs");
    CHECK_STR(type_of(lines, "/mnt/a\\040b"), "");
    CHECK_STR(type_of(lines, "/mnt/over"), "tmpfs"); /* the later line lies on top */
    CHECK_STR(device, "0:33");
    CHECK_STR(type_of(lines, "/mnt/under"), "fuse.npkfs");
    CHECK_STR(type_of(lines, "/mnt/dash"), "fuse.sshfs");
    CHECK_STR(type_of(lines, "/mnt/last"), "fuse.npkfs");
    CHECK_STR(type_of(lines, "/mnt/las"), "");
    CHECK_STR(type_of(lines, "/mnt"), "");
    CHECK_STR(type_of("", "/"), "");
    CHECK_STR(device, "");
    CHECK_STR(type_of("1 2 3 4 / rw", "/"), ""); /* cut off */
}

static void test_fitness(void)
{
    char dir[] = "/tmp/npkfs-unit.XXXXXX", path[128], link[128], why[512] = "";
    if (!CHECK(mkdtemp(dir) != NULL))
        return;
    snprintf(path, sizeof path, "%s/file", dir);
    snprintf(link, sizeof link, "%s/link", dir);
    FILE *f = fopen(path, "w");
    fclose(f);
    CHECK_EQ(symlink(dir, link), 0);

    char *given = strdup(path);
    CHECK_EQ(mountpoint_prepare(&given, why, sizeof why), -ENOTDIR);
    CHECK_HAS(why, path);
    CHECK_STR(given, path);
    free(given);

    strcat(path, "s");
    given = strdup(path);
    CHECK_EQ(mountpoint_prepare(&given, why, sizeof why), -ENOENT);
    CHECK_HAS(why, path);
    free(given);

    given = strdup(link); /* made canonical */
    CHECK_EQ(mountpoint_prepare(&given, why, sizeof why), 0);
    CHECK_STR(given, dir);
    free(given);

    path[strlen(path) - 1] = '\0';
    unlink(path);
    unlink(link);
    rmdir(dir);
}

int main(void)
{
    RUN(test_mountinfo);
    RUN(test_fitness);
    return UNIT_RESULT();
}
