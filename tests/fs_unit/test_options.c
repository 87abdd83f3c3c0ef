/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of npkfs: what each word sets, and that nothing unknown is swallowed. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "options.h"
#include "unit.h"

#define WORDS_MAX 16

static char said[8192]; /* what the last parse wrote to stderr */

/* Split at blanks (none of the words here has one) and parse. */
static int parse(const char *line, fs_options *o)
{
    char *copy = strdup(line), *words[WORDS_MAX + 1] = {NULL}, *save = NULL;
    int count = 0;
    for (char *w = strtok_r(copy, " ", &save); w && count < WORDS_MAX; w = strtok_r(NULL, " ", &save))
        words[count++] = strcmp(w, "''") == 0 ? w + 2 : w;

    FILE *capture = tmpfile();
    int old = dup(STDERR_FILENO);
    fflush(stderr);
    dup2(fileno(capture), STDERR_FILENO);
    int err = fs_options_parse(count, words, o);
    fflush(stderr);
    dup2(old, STDERR_FILENO);
    close(old);
    rewind(capture);
    said[fread(said, 1, sizeof said - 1, capture)] = '\0';
    fclose(capture);
    free(copy);
    return err;
}

static unsigned count_lines(const char *text)
{
    unsigned n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static void test_defaults(void)
{
    fs_options o;
    CHECK_EQ(parse("npkfs dir /mnt/x", &o), 0);
    CHECK_STR(said, "");
    CHECK_STR(o.source, "dir");
    CHECK_STR(o.mountpoint, "/mnt/x");
    CHECK(!o.foreground && !o.debug && !o.help && !o.version && !o.read_only && !o.controls_visible && !o.fake);
    CHECK_EQ(o.allow_other, geteuid() == 0);
    CHECK_EQ(o.passthrough, FS_PASSTHROUGH_AUTO);
    CHECK_EQ(o.attr_timeout_s * 1000, 1000);
    CHECK_EQ(o.threads_max, 16);
    CHECK_EQ(o.cache_bytes, 64 << 20);
    CHECK(o.inotify && !o.atomic_save);
    CHECK(o.kernel_options == NULL);
    fs_options_clear(&o);
    CHECK(o.source == NULL && o.mountpoint == NULL);
}

static void test_places(void)
{
    fs_options o;
    char *here = getcwd(NULL, 0), expected[4096];
    snprintf(expected, sizeof expected, "%s/mnt", here);
    CHECK_EQ(parse("npkfs -o ro dir -f mnt", &o), 0); /* flags stand anywhere */
    CHECK_STR(o.source, "dir");
    CHECK_STR(o.mountpoint, expected);
    CHECK(o.foreground && o.read_only);
    fs_options_clear(&o);
    CHECK_EQ(parse("npkfs -- -dir /-mnt", &o), 0);
    CHECK_STR(o.source, "-dir");
    CHECK_STR(o.mountpoint, "/-mnt");
    fs_options_clear(&o);
    free(here);
}

static void test_every_option(void)
{
    fs_options o;
    CHECK_EQ(parse("npkfs d /m -o ro,allow_other,controls=visible,passthrough=off,attr_timeout=0.25,threads=256,inotify=off,"
                   "atomic_save", &o), 0);
    CHECK(o.atomic_save && o.read_only && o.allow_other && o.controls_visible && !o.inotify);
    CHECK_EQ(o.passthrough, FS_PASSTHROUGH_OFF);
    CHECK_EQ(o.attr_timeout_s * 100, 25);
    CHECK_EQ(o.threads_max, 256);
    fs_options_clear(&o);

    CHECK_EQ(parse("npkfs p.npkg /m -o upper=/a\\,b,ro -o upper=up", &o), 0);
    CHECK_STR(o.upper, "up");
    CHECK(o.read_only);
    fs_options_clear(&o);
    CHECK_EQ(parse("npkfs p.npkg /m -o upper=/a\\,b,ro", &o), 0);
    CHECK_STR(o.upper, "/a,b");
    fs_options_clear(&o);
    CHECK_EQ(parse("npkfs p.npkg /m -o upper=", &o), -EINVAL);

    /* The last one counts, in one list and over several. */
    CHECK_EQ(parse("npkfs d /m -o ro,passthrough=off -oinotify=off,threads=1 -o rw,inotify=on,passthrough=on,noallow_other,"
                   "controls=visible,controls=hidden,attr_timeout=86400", &o), 0);
    CHECK(!o.read_only && !o.allow_other && !o.controls_visible && o.inotify);
    CHECK_EQ(o.passthrough, FS_PASSTHROUGH_ON);
    CHECK_EQ(o.threads_max, 1);
    CHECK_EQ(o.attr_timeout_s, 86400);
    fs_options_clear(&o);
    CHECK_EQ(parse("npkfs d /m -o attr_timeout=0,attr_timeout=.5,attr_timeout=0", &o), 0);
    CHECK_EQ(o.attr_timeout_s * 1000, 0);
    fs_options_clear(&o);
}

static void test_generic(void)
{
    fs_options o;
    CHECK_EQ(parse("npkfs d /m -o rw,nosuid,nodev,noexec,noatime,sync,dirsync", &o), 0);
    CHECK_STR(o.kernel_options, "nosuid,nodev,noexec,noatime,sync,dirsync");
    fs_options_clear(&o);
    CHECK_EQ(parse("npkfs d /m -o suid,dev,exec,async", &o), 0);
    CHECK_STR(o.kernel_options, "suid,dev,exec,async");
    fs_options_clear(&o);
    /* For mount(8) and fstab alone. A comma in quotes or behind a backslash ends no option. */
    CHECK_EQ(parse("npkfs d /m -o defaults,auto,noauto,user,users,nouser,owner,group,nofail,_netdev,relatime,lazytime,"
                   "x-systemd.automount,x-a=\"1,bogus\",X-b=1\\,bogus,,ro,", &o), 0);
    CHECK_STR(said, "");
    CHECK(o.kernel_options == NULL);
    CHECK(o.read_only);
    fs_options_clear(&o);
}

static void test_flags(void)
{
    fs_options o;
    CHECK_EQ(parse("npkfs -fd d /m", &o), 0);
    CHECK(o.foreground && o.debug);
    fs_options_clear(&o);
    CHECK_EQ(parse("npkfs --debug d /m", &o), 0);
    CHECK(o.foreground && o.debug);
    fs_options_clear(&o);
    CHECK_EQ(parse("npkfs --foreground d /m -for", &o), -EINVAL); /* -f -o r */
    CHECK_HAS(said, "\"r\"");
    const char *helps[] = {"npkfs -h", "npkfs --help", "npkfs --help only"};
    for (size_t i = 0; i < 3; i++) {
        CHECK_EQ(parse(helps[i], &o), 0);
        CHECK(o.help);
        fs_options_clear(&o);
    }
    CHECK_EQ(parse("npkfs -V", &o), 0);
    CHECK(o.version);
    fs_options_clear(&o);
    CHECK_EQ(parse("npkfs --version", &o), 0);
    CHECK(o.version);
    fs_options_clear(&o);
}

/* mount(8) calls its helpers as NAME SOURCE PLACE [-fnsv] [-o LIST] [-t TYPE]. */
static void test_helper(void)
{
    fs_options o;
    CHECK_EQ(parse("/sbin/mount.npkfs d /m -n -v -t npkfs -o ro,nodev", &o), 0);
    CHECK(o.read_only && !o.foreground && !o.fake);
    fs_options_clear(&o);
    CHECK_EQ(parse("/sbin/mount.fuse.npkfs d /m -nvf -o ro -t fuse.npkfs", &o), 0);
    CHECK(o.fake && !o.foreground);
    fs_options_clear(&o);
    CHECK_EQ(parse("mount.npkfs d /m -o bogus,ro -s", &o), 0); /* sloppy: unknown options are let go */
    CHECK(o.read_only);
    fs_options_clear(&o);
    CHECK_EQ(parse("mount.npkfs d /m -o bogus", &o), -EINVAL);
    CHECK_EQ(parse("mount.npkfs d /m -s -o threads=0", &o), -EINVAL); /* a bad value is not unknown */
    CHECK_EQ(parse("npkfs -n d /m", &o), -EINVAL);
    CHECK_HAS(said, "\"-n\"");
    CHECK_EQ(parse("/usr/mount.d/npkfs -s d /m", &o), -EINVAL); /* the program's name counts, not its folder's */
}

static void test_refused(void)
{
    static const struct { const char *line, *quoted, *accepted; } cases[] = {
        {"npkfs", "SOURCE and MOUNTPOINT", "usage"},
        {"npkfs d", "MOUNTPOINT", "usage"},
        {"npkfs '' /m", "SOURCE is empty", "usage"},
        {"npkfs d ''", "MOUNTPOINT is empty", "usage"},
        {"npkfs d /m more", "\"more\"", "usage"},
        {"npkfs d /m -q", "\"-q\"", "usage"},
        {"npkfs d /m --quick", "\"--quick\"", "usage"},
        {"npkfs d /m -o", "-o", "usage"},
        {"npkfs d /m -o passthru=on", "\"passthru=on\"", "passthrough=auto|off|on"},
        {"npkfs d /m -o ro,bogus,rw", "\"bogus\"", "controls=hidden|visible"},
        {"npkfs d /m -o bogus", "\"bogus\"", "nosuid"},
        {"npkfs d /m -o r", "\"r\"", "ro, rw"},
        {"npkfs d /m -o roo", "\"roo\"", "ro, rw"},
        {"npkfs d /m -o x-", "\"x-\"", "x-NAME"},
        {"npkfs d /m -o remount,rw", "\"remount\"", "ro, rw"},
        {"npkfs d /m -o ro=1", "\"ro=1\"", "no value"},
        {"npkfs d /m -o nosuid=", "\"nosuid=\"", "no value"},
        {"npkfs d /m -o controls", "\"controls\"", "hidden|visible"},
        {"npkfs d /m -o controls=", "\"controls=\"", "hidden|visible"},
        {"npkfs d /m -o controls=Visible", "\"controls=Visible\"", "hidden|visible"},
        {"npkfs d /m -o passthrough=auto|off", "\"passthrough=auto|off\"", "auto|off|on"},
        {"npkfs d /m -o cache=0", "\"cache=0\"", "1M to 1T"},
        {"npkfs d /m -o cache=1023K", "\"cache=1023K\"", "1M to 1T"},
        {"npkfs d /m -o cache=2T", "\"cache=2T\"", "1M to 1T"},
        {"npkfs d /m -o cache=99999999999999999999", "\"cache=99999999999999999999\"", "1M to 1T"},
        {"npkfs d /m -o cache=M", "\"cache=M\"", "1M to 1T"},
        {"npkfs d /m -o threads=0", "\"threads=0\"", "1 to 256"},
        {"npkfs d /m -o threads=257", "\"threads=257\"", "1 to 256"},
        {"npkfs d /m -o threads=4294967297", "\"threads=4294967297\"", "1 to 256"},
        {"npkfs d /m -o threads=-1", "\"threads=-1\"", "1 to 256"},
        {"npkfs d /m -o threads=2x", "\"threads=2x\"", "1 to 256"},
        {"npkfs d /m -o threads=", "\"threads=\"", "1 to 256"},
        {"npkfs d /m -o attr_timeout=", "\"attr_timeout=\"", "0 to 86400"},
        {"npkfs d /m -o attr_timeout=.", "\"attr_timeout=.\"", "0 to 86400"},
        {"npkfs d /m -o attr_timeout=1e3", "\"attr_timeout=1e3\"", "0 to 86400"},
        {"npkfs d /m -o attr_timeout=nan", "\"attr_timeout=nan\"", "0 to 86400"},
        {"npkfs d /m -o attr_timeout=1.2.3", "\"attr_timeout=1.2.3\"", "0 to 86400"},
        {"npkfs d /m -o attr_timeout=86400.5", "\"attr_timeout=86400.5\"", "0 to 86400"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fs_options o;
        unit_note("%s", cases[i].line);
        CHECK_EQ(parse(cases[i].line, &o), -EINVAL);
        CHECK_EQ(count_lines(said), 1);
        CHECK_HAS(said, "npkfs: ");
        CHECK_HAS(said, cases[i].quoted);
        CHECK_HAS(said, cases[i].accepted);
        CHECK(o.source == NULL && o.mountpoint == NULL && o.kernel_options == NULL);
    }
}

int main(void)
{
    RUN(test_defaults);
    RUN(test_places);
    RUN(test_every_option);
    RUN(test_generic);
    RUN(test_flags);
    RUN(test_helper);
    RUN(test_refused);
    return UNIT_RESULT();
}
