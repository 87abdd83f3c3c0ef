# SPDX-License-Identifier: Apache-2.0
"""Arrays with deleted rows on the mount: what programs see, write and keep, and the controls that delete, restore,
compact.

Usage: rows.py passthrough|daemon [WORD...]"""

import io
import mmap
import os
import shutil
import subprocess
import sys

import numpy as np

import mountlib
from harness import err, expect, main_on_mounts, test
from mountlib import NPK, Mount, Skip

ROWS = np.arange(4000, dtype="i4").reshape(1000, 4)
TENTH = np.delete(ROWS, np.arange(0, 1000, 10), axis=0)


def npk(*words):
    done = subprocess.run([NPK, *words], capture_output=True, text=True)
    expect((done.returncode, done.stderr), (0, ""), " ".join(words))
    return done.stdout


def same(m, name, want, what=""):
    expect(np.load(m.path(name)).tolist() == want.tolist(), True, "%s shows the rows %s" % (name, what))


def view(m, name="x.npy"):
    """An array of which every tenth row is deleted."""
    np.save(m.path(name), ROWS)
    npk("drop", m.path(name), "::10")


def image(array):
    """The bytes of the file that shows these rows of ROWS: its header with another count in the same place."""
    f = io.BytesIO()
    np.save(f, ROWS)
    return f.getvalue()[:128].replace(b"(1000,", b"(%4d," % len(array)) + array.tobytes()


@test
def every_way_to_read(m):
    view(m)
    whole, path = image(TENTH), m.path("x.npy")
    same(m, "x.npy", TENTH)
    expect((np.load(path, mmap_mode="r") == TENTH).all(), True, "np.load(mmap_mode)")
    expect((np.memmap(path, "i4", "r", 128, (900, 4)) == TENTH).all(), True, "np.memmap")
    with open(path, "rb") as f:
        expect(f.read() == whole, True, "read")
        fd = f.fileno()
        for size, offset in ((1, 0), (1, 127), (2, 127), (4096, 100), (16, 128 + 16 * 899), (99, 128 + 16 * 899 + 3), (9, 1 << 20)):
            expect(os.pread(fd, size, offset), whole[offset:offset + size], "pread of %d at %d" % (size, offset))
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as shared:
            expect(shared[:] == whole, True, "a shared mapping")
        with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as private:
            expect(private[:] == whole, True, "a private mapping")
        out = os.open(m.path("sent"), os.O_CREAT | os.O_RDWR)
        expect(os.sendfile(out, fd, 0, len(whole)), len(whole))
        expect(os.pread(out, len(whole), 0) == whole, True, "sendfile")
        copied = os.open(m.path("copied"), os.O_CREAT | os.O_RDWR)
        expect(os.copy_file_range(fd, copied, len(whole), 0, 0), len(whole))
        expect(os.pread(copied, len(whole), 0) == whole, True, "copy_file_range")
        os.close(out)
        os.close(copied)
        expect((os.lseek(fd, 5, os.SEEK_DATA), os.lseek(fd, 5, os.SEEK_HOLE)), (5, len(whole)), "no holes")
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 16384) as aligned:
        got = os.readv(direct, [aligned])
        expect(aligned[:got] == whole[:got] and got > 0, True, "O_DIRECT")
    os.close(direct)
    shutil.copy(path, m.path("y.npy"))
    with open(m.below("y.npy"), "rb") as f:
        expect(f.read() == whole, True, "a copy is a plain array")


@test
def stat_and_listing_show_it(m):
    view(m)
    size = len(image(TENTH))
    expect(os.stat(m.path("x.npy")).st_size, size)
    expect([e.stat().st_size for e in os.scandir(m.mnt) if e.name == "x.npy"], [size])
    listed = subprocess.run(["ls", "-l", m.path("x.npy")], capture_output=True, text=True).stdout
    expect(listed.split()[4], str(size))
    with open(m.path("x.npy"), "rb") as f:
        expect(os.fstat(f.fileno()).st_size, size)
    expect(os.stat(m.below("x.npy")).st_size, len(image(ROWS)), "the file below has all rows")
    m.remount()
    expect(os.stat(m.path("x.npy")).st_size, size, "after a new mount")
    same(m, "x.npy", TENTH)


@test
def programs_keep_what_they_had(m):
    np.save(m.path("x.npy"), ROWS)
    mapped, opened = np.load(m.path("x.npy"), mmap_mode="r"), open(m.path("x.npy"), "rb")
    npk("drop", m.path("x.npy"), "::10")
    same(m, "x.npy", TENTH)
    second, reader = np.load(m.path("x.npy"), mmap_mode="r"), open(m.path("x.npy"), "rb")
    npk("drop", m.path("x.npy"), ":100")
    same(m, "x.npy", TENTH[100:])
    expect((mapped == ROWS).all() and opened.read() == image(ROWS), True, "opened before the first drop")
    expect((second == TENTH).all() and reader.read() == image(TENTH), True, "opened between them")
    third = np.load(m.path("x.npy"), mmap_mode="r")
    npk("compact", m.path("x.npy"))
    same(m, "x.npy", TENTH[100:])
    expect((third == TENTH[100:]).all() and (second == TENTH).all() and (mapped == ROWS).all(), True, "after compact")
    expect(os.path.getsize(m.below("x.npy")), len(image(TENTH[100:])), "the space is given back")
    npk("drop", m.path("x.npy"), "0")
    npk("restore", m.path("x.npy"), "all")
    same(m, "x.npy", TENTH[100:])


def quiet_check(m):
    """npk check finds nothing but notes."""
    expect([line for line in npk("check", m.store).splitlines() if not line.startswith("note")], [])


def lose_a_row(m, name):
    np.save(m.below(name), ROWS[:30])
    npk("drop", m.below(name), "0")


@test
def a_new_array_has_nothing_of_who_had_its_name(m):
    """Deleted rows belong to the file: whoever takes its old name changes nothing of them."""
    for who, rename in (("mount", lambda a, b: os.rename(m.path(a), m.path(b))),
                        ("outside", lambda a, b: os.rename(m.below(a), m.below(b)))):
        lose_a_row(m, "a.npy")
        rename("a.npy", "b.npy")
        np.save(m.below("a.npy"), ROWS[:9])
        same(m, "a.npy", ROWS[:9], "of the new array, " + who)
        same(m, "b.npy", ROWS[1:30], "of the renamed one, " + who)
        quiet_check(m)
        npk("drop", m.below("a.npy"), "0:2")
        same(m, "a.npy", ROWS[2:9], "after a drop, " + who)
        same(m, "b.npy", ROWS[1:30], "of the renamed one after a drop from the other, " + who)
        npk("drop", m.below("b.npy"), "0")
        same(m, "b.npy", ROWS[2:30], who)
        npk("restore", m.below("b.npy"))
        npk("restore", m.below("b.npy"), "all")
        same(m, "b.npy", ROWS[:30], "after restore, " + who)
        same(m, "a.npy", ROWS[2:9], "of the other, " + who)
        quiet_check(m)
        npk("reset", m.store, "--yes")


@test
def arrays_that_change_names_keep_their_rows(m):
    lose_a_row(m, "a.npy")
    np.save(m.below("b.npy"), ROWS[100:120])
    npk("drop", m.below("b.npy"), "1:3")
    kept = np.delete(ROWS[100:120], [1, 2], axis=0)
    for a, b in (("a.npy", "t.npy"), ("b.npy", "a.npy"), ("t.npy", "b.npy")):
        os.rename(m.below(a), m.below(b))
    same(m, "a.npy", kept)
    same(m, "b.npy", ROWS[1:30])
    npk("drop", m.below("a.npy"), "-1")
    same(m, "a.npy", kept[:-1])
    same(m, "b.npy", ROWS[1:30])
    npk("drop", m.below("b.npy"), "-1")
    same(m, "a.npy", kept[:-1])
    same(m, "b.npy", ROWS[1:29])
    quiet_check(m)


@test
def a_rename_over_a_view(m):
    lose_a_row(m, "a.npy")
    os.mkdir(m.path("g"))
    for to in ("b.npy", "g/b.npy"):
        np.save(m.below(to), ROWS[100:130])
        npk("drop", m.below(to), "3")
        npk("names", m.below(to), "old=0:3")
        os.rename(m.path("a.npy"), m.path(to))
        same(m, to, ROWS[1:30], "after " + to)
        expect(npk("names", m.below(to)), "")
        quiet_check(m)
        m.remount()
        same(m, to, ROWS[1:30], "mounted again, after " + to)
        expect([n for n in os.listdir(os.path.join(os.path.dirname(m.below(to)), ".npkfs")) if n.endswith(".del")],
               [n for n in os.listdir(os.path.join(os.path.dirname(m.below(to)), ".npkfs")) if n.startswith("b.npy.")
                and n.endswith(".del")], "no log of the old one is left")
        os.rename(m.path(to), m.path("a.npy"))
        same(m, "a.npy", ROWS[1:30])
    quiet_check(m)


@test
def a_rename_into_another_directory_after_every_row_was_replaced(m):
    np.save(m.path("a.npy"), ROWS[:30])
    npk("names", m.path("a.npy"), "first=0:3")
    npk("replace", m.path("a.npy"), ":", npy_of(m, ROWS[500:530]))
    os.mkdir(m.path("g"))
    os.rename(m.path("a.npy"), m.path("g", "a.npy"))
    same(m, "g/a.npy", ROWS[500:530])
    expect(npk("names", m.path("g", "a.npy")), "first\t0\t3\n")
    quiet_check(m)


@test
def a_save_over_named_rows(m):
    for reader in (False, True):
        np.save(m.path("a.npy"), ROWS[:30])
        npk("names", m.path("a.npy"), "first=0:3")
        mapped = np.load(m.path("a.npy"), mmap_mode="r") if reader else None
        np.save(m.path("a.npy"), ROWS[100:130])
        same(m, "a.npy", ROWS[100:130])
        expect(npk("names", m.path("a.npy")), "")
        expect(mapped is None or (mapped == ROWS[:30]).all(), True)
        quiet_check(m)


@test
def a_truncation_to_no_row_keeps_what_is_deleted_before(m):
    lose_a_row(m, "a.npy")
    os.truncate(m.path("a.npy"), 128)
    expect(np.load(m.path("a.npy")).shape, (0, 4))
    npk("restore", m.path("a.npy"), "all")
    same(m, "a.npy", ROWS[:1])


@test
def writes_reach_their_rows(m):
    view(m)
    want = TENTH.copy()
    with open(m.path("x.npy"), "r+b") as f:
        f.seek(128 + 16 * 10)
        f.write(np.full(12, 7, "i4").tobytes())
        want[10:13] = 7
    same(m, "x.npy", want, "after write")
    w = np.load(m.path("x.npy"), mmap_mode="r+")
    w[[0, 500, 899]] = 8
    want[[0, 500, 899]] = 8
    w.flush()
    del w
    same(m, "x.npy", want, "after msync")
    npk("replace", m.path("x.npy"), "3", npy_of(m, np.full((1, 4), 9, "i4")))
    want[3] = 9
    same(m, "x.npy", want, "after npk replace")
    physical = ROWS.copy()
    physical[np.delete(np.arange(1000), np.arange(0, 1000, 10))] = want
    expect((np.load(m.below("x.npy")) == physical).all(), True, "deleted rows are as they were")


def npy_of(m, array):
    path = os.path.join(m.own, "rows.npy")
    np.save(path, array)
    return path


@test
def a_writer_keeps_its_numbering(m):
    view(m)
    with open(m.path("x.npy"), "r+b", buffering=0) as f:
        mapped = np.load(m.path("x.npy"), mmap_mode="r+")
        npk("drop", m.path("x.npy"), ":100")
        f.seek(128 + 16 * 200)
        f.write(np.full(4, 7, "i4").tobytes())
        mapped[300] = 8
        mapped.flush()
    want = TENTH.copy()
    want[200], want[300] = 7, 8
    same(m, "x.npy", want[100:])


@test
def appends_and_part_rows(m):
    view(m)
    with open(m.path("x.npy"), "ab", buffering=0) as f:
        f.write(ROWS[:3].tobytes())
    want = np.concatenate([TENTH, ROWS[:3]])
    same(m, "x.npy", want, "after an append")
    with open(m.path("x.npy"), "ab", buffering=0) as f:
        f.write(b"12345")
    same(m, "x.npy", want, "with a part-row")
    expect(os.path.getsize(m.path("x.npy")), len(image(want)) + 5)
    with open(m.path("x.npy"), "rb") as f:
        expect(f.read()[-5:], b"12345")
    with open(m.path("x.npy"), "ab", buffering=0) as f:
        f.write(b"67890123456")
    want = np.concatenate([want, np.frombuffer(b"1234567890123456", "i4").reshape(1, 4)])
    same(m, "x.npy", want, "after it was completed")
    with open(m.path("x.npy"), "r+b") as f:
        f.seek(0, os.SEEK_END)
        f.write(ROWS[5:7].tobytes())
    want = np.concatenate([want, ROWS[5:7]])
    same(m, "x.npy", want, "written behind the end")
    npk("drop", m.path("x.npy"), "-2:")
    same(m, "x.npy", want[:-2], "deleted from what was appended")
    npk("append", m.path("x.npy"), npy_of(m, ROWS[9:10]))
    same(m, "x.npy", np.concatenate([want[:-2], ROWS[9:10]]), "after npk append")


@test
def truncation(m):
    view(m)
    os.truncate(m.path("x.npy"), 128 + 16 * 500)
    same(m, "x.npy", TENTH[:500], "after truncate")
    with open(m.path("x.npy"), "r+b") as f:
        f.truncate(128 + 16 * 100)
        expect(os.fstat(f.fileno()).st_size, 128 + 16 * 100)
    same(m, "x.npy", TENTH[:100], "after ftruncate")
    np.save(m.path("x.npy"), ROWS)
    same(m, "x.npy", ROWS, "after a new save")
    view(m, "y.npy")
    with open(m.path("y.npy"), "r+b") as f:
        f.truncate(0)
        f.write(image(ROWS))
    same(m, "y.npy", ROWS, "written anew after ftruncate(0)")
    expect(npk("check", m.mnt, "--tsv"), "", "the check finds nothing")


@test
def saving_over_a_view(m):
    view(m)
    held = np.load(m.path("x.npy"), mmap_mode="r")
    np.save(m.path("x.npy"), ROWS[:7])
    same(m, "x.npy", ROWS[:7])
    expect((held == TENTH).all(), True, "the rows that a program had mapped")
    view(m, "y.npy")
    with open(m.path("y.npy"), "r+b"):  # a writer: truncated in place
        np.save(m.path("y.npy"), ROWS)
    same(m, "y.npy", ROWS)
    m.remount()
    same(m, "x.npy", ROWS[:7])
    same(m, "y.npy", ROWS)


@test
def names_take_their_deletions_along(m):
    view(m)
    os.mkdir(m.path("group"))
    for to in ("y.npy", "group/z.npy", "z.npy.bak", "x.npy"):
        at = next(n for n in ("x.npy", "y.npy", "group/z.npy", "z.npy.bak") if os.path.exists(m.path(n)))
        os.rename(m.path(at), m.path(to))
        with open(m.path(to), "rb") as f:
            expect(f.read() == image(TENTH), True, "as %s" % to)
    np.save(m.path("y.npy"), ROWS)
    os.rename(m.path("x.npy"), m.path("y.npy"))
    same(m, "y.npy", TENTH, "over another array")
    np.save(m.path("w.npy"), ROWS)
    os.rename(m.path("w.npy"), m.path("y.npy"))
    same(m, "y.npy", ROWS, "another array over a view")
    view(m, "x.npy")
    os.unlink(m.path("x.npy"))
    np.save(m.path("x.npy"), ROWS)
    same(m, "x.npy", ROWS, "after unlink")
    view(m, "v.npy")
    expect(err(os.link, m.path("v.npy"), m.path("second.npy")), "EPERM")
    m.remount()
    same(m, "y.npy", ROWS)
    same(m, "v.npy", TENTH)


@test
def plain_tools(m):
    view(m)
    for command in ("cp x.npy copy", "cat x.npy > cat", "dd if=x.npy of=dd bs=777 status=none", "tar cf t x.npy && tar xOf t > tar"):
        done = subprocess.run(["sh", "-c", command], cwd=m.mnt, capture_output=True, text=True)
        expect((done.returncode, done.stderr), (0, ""), command)
    for name in ("copy", "cat", "dd", "tar"):
        with open(m.path(name), "rb") as f:
            expect(f.read() == image(TENTH), True, name)


def shell(m, command):
    done = subprocess.run(["sh", "-c", command], cwd=m.mnt, capture_output=True, text=True)
    return done.returncode, done.stderr.strip()


def read(m, control, name="x.npy"):
    with open(m.control(name, control)) as f:
        return f.read()


def write(m, control, text, name="x.npy"):
    with open(m.control(name, control), "w") as f:
        f.write(text)


def save_into(m, array):
    with open(m.control("x.npy", "drop"), "wb") as f:
        np.save(f, array)


@test
def every_way_to_drop(m):
    np.save(m.path("x.npy"), ROWS)
    want = ROWS
    for command, rows in (("echo 5 > .npk/x.npy/drop", [5]), ("printf 5 > .npk/x.npy/drop", [5]),
                          ("printf '0,3,-1\\n10:20\\n' > .npk/x.npy/drop", [0, 3, -1, *range(10, 20)]),
                          ("seq 0 7 900 > .npk/x.npy/drop", range(0, 901, 7)),
                          ("echo ::2 | tee .npk/x.npy/drop > /dev/null", None),
                          ("seq 0 3 300 | dd of=.npk/x.npy/drop bs=5 status=none", range(0, 301, 3))):
        expect(shell(m, command), (0, ""), command)
        want = want[1::2] if rows is None else np.delete(want, [r % len(want) for r in rows], axis=0)
        same(m, "x.npy", want, "after " + command)
    expect(read(m, "drop"), "%d\n" % (1000 - len(want)))
    save_into(m, np.array([0, 2, -1]))
    want = np.delete(want, [0, 2, len(want) - 1], axis=0)
    same(m, "x.npy", want, "after np.save of indices")
    mask = np.arange(len(want)) % 3 == 0
    save_into(m, mask)
    want = want[~mask]
    same(m, "x.npy", want, "after np.save of a mask")
    expect((read(m, "rows"), read(m, "live"), read(m, "deleted")), tuple("%d\n" % n for n in (len(want), len(want), 1000 - len(want))))


@test
def one_open_means_one_numbering(m):
    np.save(m.path("x.npy"), ROWS)
    with open(m.control("x.npy", "drop"), "w", buffering=1) as f:
        f.write("0\n")
        same(m, "x.npy", ROWS[1:], "the first line acts at once")
        f.write("1\n")
        f.write("1:3\n-1\n")
    same(m, "x.npy", ROWS[3:-1])


@test
def drops_that_are_refused(m):
    np.save(m.path("x.npy"), ROWS)
    for text, errno, words in (("1000", "ERANGE", ("1000", "-1000 to 999")), ("0,5000", "ERANGE", ("5000",)), ("x", "EINVAL", ('"x"', "is no index")),
                               ("0\n1\nx\n", "EINVAL", ('"x"',)), ("gen=7 0", "ESTALE", ("gen", "7"))):
        expect(err(write, m, "drop", text), errno, text)
        expect([w for w in words if w not in read(m, "last_error")], [], read(m, "last_error"))
        expect("x.npy" in m.fact("last_error"), True)
    expect(err(save_into, m, np.ones(3, bool)), "EINVAL")
    expect(err(save_into, m, np.ones(3)), "EINVAL")
    expect(err(write, m, "drop", "0\n", "none.npy"), "ENOENT")
    np.save(m.path("scalar.npy"), np.float64(1))
    expect(err(write, m, "drop", "0\n", "scalar.npy") is not None, True)
    same(m, "x.npy", ROWS, "nothing was deleted")
    generation = dict(line.split("\t") for line in read(m, "compact").splitlines())["generation"]
    write(m, "drop", "gen=%s 0\n" % generation)
    same(m, "x.npy", ROWS[1:])
    expect(err(write, m, "drop", "gen=%s 0\n" % generation), "ESTALE", "the generation has moved")


@test
def restore_and_compact(m):
    np.save(m.path("x.npy"), ROWS)
    write(m, "drop", "10:20\n30:33\n")
    expect(read(m, "restore"), "10:20\n30:33\n")
    write(m, "restore", "15:31\n")
    expect(read(m, "restore"), "10:15\n31:33\n")
    expect((err(write, m, "restore", "1001\n"), err(write, m, "restore", "some\n")), ("ERANGE", "EINVAL"))
    held = np.load(m.path("x.npy"), mmap_mode="r")
    facts = dict(line.split("\t") for line in read(m, "compact").splitlines())
    expect((facts["state"], facts["rows"], facts["deleted"], facts["reclaimable"]), ("idle", "993", "7", "112"))
    writer = open(m.path("x.npy"), "r+b")
    expect(err(write, m, "compact", "1\n"), "EBUSY")
    expect("x.npy" in m.fact("last_error"), True)
    writer.close()
    write(m, "compact", "1\n")
    want = np.delete(ROWS, [*range(10, 15), 31, 32], axis=0)
    same(m, "x.npy", want)
    expect((held == want).all(), True)
    expect(os.path.getsize(m.below("x.npy")), 128 + 16 * 993)
    expect(dict(line.split("\t") for line in read(m, "compact").splitlines())["state"], "clean")
    write(m, "drop", "0\n")
    write(m, "restore", "all\n")
    same(m, "x.npy", want)
    expect((err(write, m, "compact", "2\n"), err(write, m, "compact", "auto:101%\n")), ("EINVAL", "EINVAL"))


@test
def compaction_by_policy(m):
    np.save(m.path("x.npy"), ROWS)
    write(m, "compact", "auto:20%\n")
    write(m, "drop", ":100\n")
    expect("auto\t20%" in read(m, "compact"), True)
    expect(os.path.getsize(m.below("x.npy")), 128 + 16 * 1000, "ten of a hundred are not due")
    write(m, "drop", ":100\n")
    mountlib.wait_until(lambda: os.path.getsize(m.below("x.npy")) == 128 + 16 * 800, what="the compaction")
    same(m, "x.npy", ROWS[200:])


def small(m, rows):
    mountlib.wait_until(lambda: os.path.getsize(m.below("x.npy")) == 128 + 16 * rows, what="the compaction")


@test
def policy_outlives_the_mount(m):
    np.save(m.path("x.npy"), ROWS)
    write(m, "compact", "auto:20%\n")
    m.remount()
    expect("auto\t20%" in read(m, "compact"), True)
    write(m, "drop", ":300\n")
    small(m, 700)
    same(m, "x.npy", ROWS[300:])
    npk("drop", m.path("x.npy"), ":300")  # by another process: seen when somebody opens it
    same(m, "x.npy", ROWS[600:])
    small(m, 400)
    m.terminate()
    npk("drop", m.below("x.npy"), ":300")  # while nothing was mounted
    m.start()
    same(m, "x.npy", ROWS[900:])
    small(m, 100)
    same(m, "x.npy", ROWS[900:])
    with open(m.path("x.npy"), "r+b") as f:  # a writer keeps it from it, until he is gone
        write(m, "drop", ":50\n")
        f.seek(128)
        expect(os.path.getsize(m.below("x.npy")), 128 + 1600)
    small(m, 50)
    write(m, "compact", "auto:0%\n")
    write(m, "drop", ":40\n")
    expect(os.path.getsize(m.below("x.npy")), 128 + 800)


@test
def space_comes_back_with_the_last_reader(m):
    if os.geteuid() != 0:
        raise Skip("a small filesystem takes root")
    place = os.path.join(m.own, "small")
    os.mkdir(place)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], check=True)
    try:
        with Mount(m.mode, store=os.path.join(place, "store")) as one:
            def used():
                sv = os.statvfs(one.mnt)
                return (sv.f_blocks - sv.f_bfree) * sv.f_frsize / 2**20
            before = used()
            expect(os.statvfs(one.mnt).f_blocks, os.statvfs(place).f_blocks, "df of the mount and of what is below")
            np.save(one.path("x.npy"), np.zeros((1 << 14, 128), "f4"))
            clean = open(one.path("x.npy"), "rb")  # the file itself
            write(one, "drop", "::2\n")
            view = np.load(one.path("x.npy"), mmap_mode="r")  # what was left of it
            expect((float(view[5000, 5]), len(clean.read(100))), (0.0, 100))
            write(one, "compact", "1\n")
            expect(11.5 < used() - before < 13, True, "both are there: %g MiB" % (used() - before))
            clean.close()
            del view
            mountlib.wait_until(lambda: used() - before < 4.5, what="the space of the old file")
            expect(np.load(one.path("x.npy")).shape, (1 << 13, 128))
            os.unlink(one.path("x.npy"))
            mountlib.wait_until(lambda: used() - before < 0.5, what="the space of the last file")
    finally:
        subprocess.run(["umount", place], check=False)


@test
def cast_by_dtype(m):
    view(m)
    write(m, "names", "some\t10\t20\n")
    held = np.load(m.path("x.npy"), mmap_mode="r")
    with open(m.path("x.npy"), "r+b"):
        expect(err(write, m, "dtype", "float64\n"), "EBUSY")
        expect("x" in m.fact("last_error"), True)
    write(m, "dtype", "float64\n")
    same(m, "x.npy", TENTH.astype("f8"))
    expect((np.load(m.path("x.npy")).dtype, read(m, "dtype"), read(m, "deleted")), (np.dtype("f8"), "float64\n", "0\n"))
    expect((read(m, "names"), (held == TENTH).all()), ("some\t10\t20\n", True), "names go along, readers keep what they had")
    expect(np.load(m.below("x.npy")).dtype, np.dtype("f8"), "on the disk")
    write(m, "dtype", " float16 ")
    same(m, "x.npy", TENTH.astype("f2"))
    write(m, "dtype", "float16\n\n")
    with open(m.path("x.npy"), "ab") as f:
        f.write(TENTH[:3].astype("f2").tobytes())
    same(m, "x.npy", np.concatenate([TENTH, TENTH[:3]]).astype("f2"), "with rows that were appended after")
    for line, want in (("floaty", "EINVAL"), ("float32 4", "EINVAL"), ("S4", "EOPNOTSUPP"), (">f4", "EOPNOTSUPP")):
        expect(err(write, m, "dtype", line), want, line)
    expect("complex128 are accepted" in m.fact("last_error"), True)
    np.save(m.path("s.npy"), np.zeros(3, "S4"))
    expect(err(write, m, "dtype", "int8", "s.npy"), "EOPNOTSUPP")
    np.save(m.path("f.npy"), np.asfortranarray(ROWS))
    write(m, "dtype", "uint8", "f.npy")
    expect((np.load(m.path("f.npy")) == ROWS.astype("u1")).all(), True, "Fortran order")
    os.setxattr(m.path("f.npy"), "user.npk.dtype", b"int64")
    expect(np.load(m.path("f.npy")).dtype, np.dtype("i8"), "by its attribute")
    npk("cast", m.path("x.npy"), "int32")
    same(m, "x.npy", np.concatenate([TENTH, TENTH[:3]]).astype("f2").astype("i4"), "cast by the command line")


@test
def clone_and_summary(m):
    view(m)
    os.mkdir(m.path("group"))
    write(m, "clone", "y.npy\n")
    write(m, "clone", "group/z")
    same(m, "y.npy", TENTH)
    same(m, "group/z.npy", TENTH)
    expect((err(write, m, "clone", "y\n"), err(write, m, "clone", "../q\n") is not None), ("EEXIST", True))
    told = dict(line.split("\t") for line in read(m, "summary").splitlines())
    expect(np.isclose([float(told.pop("mean")), float(told.pop("std"))], [TENTH.mean(), TENTH.std()], rtol=1e-12).all(), True)
    expect(told, {"count": "3600", "min": "4", "max": "3999", "nans": "0", "zeros": "0"})


@test
def rows_as_files(m):
    view(m)
    folder = m.control("x.npy", "slices")
    expect(os.listdir(folder), [])
    for name, want in (("0:100", TENTH[:100]), ("::10", TENTH[::10]), ("-100:", TENTH[-100:]), ("5,9,-1,5", TENTH[[5, 9, -1, 5]]),
                       ("::-1", TENTH[::-1]), ("7", TENTH[7:8]), ("5:5", TENTH[:0])):
        path = os.path.join(folder, name + ".npy")
        expect((np.load(path).shape, np.load(path).tolist()), (want.shape, want.tolist()), name)
        expect(os.path.getsize(path), 128 + want.nbytes, name)
        if len(want):
            expect((np.load(path, mmap_mode="r") == want).all(), True, "mapped " + name)
    with open(os.path.join(folder, "::3.npy"), "rb") as f:
        whole = f.read()
        for size, offset in ((1, 0), (3, 127), (100, 125), (17, 128 + 16 * 50 + 5), (9999, 300)):
            expect(os.pread(f.fileno(), size, offset) == whole[offset:offset + size], True, "pread of %d at %d" % (size, offset))
    for name in ("900.npy", "none.npy", "5", "-1000.npy"):
        expect(err(os.stat, os.path.join(folder, name)), "ENOENT", name)
    expect(err(np.save, os.path.join(folder, "3.npy"), TENTH[:1]) is not None, True, "rows are not replaced here")


@test
def rows_by_name(m):
    view(m)
    folder = m.control("x.npy", "slices")
    np.save(os.path.join(folder, "more.npy"), ROWS[:30])
    want = np.concatenate([TENTH, ROWS[:30]])
    same(m, "x.npy", want)
    expect((os.listdir(folder), read(m, "names")), (["more.npy"], "more\t900\t930\n"))
    write(m, "drop", "0:10\n905\n")
    more = np.delete(ROWS[:30], 5, axis=0)
    expect(np.load(os.path.join(folder, "more.npy")).tolist(), more.tolist())
    write(m, "compact", "1\n")
    expect(np.load(os.path.join(folder, "more.npy")).tolist(), more.tolist())
    for name, array in (("wide", np.zeros((2, 5), "i4")), ("real", np.zeros((2, 4), "f4")), ("more", ROWS[:1]), ("1:2", ROWS[:1])):
        def save(name=name, array=array):
            with open(os.path.join(folder, name + ".npy"), "xb" if name != "more" else "r+b", buffering=0) as f:
                f.write(npy(array))
        expect(err(save) is not None, True, name)
    os.unlink(os.path.join(folder, "more.npy"))
    expect((os.listdir(folder), len(np.load(m.path("x.npy")))), ([], 919))


@test
def rows_by_name_and_their_changes(m):
    np.save(m.path("x.npy"), ROWS[:100])
    folder = m.control("x.npy", "slices")
    want = {}
    for i, name in enumerate(("a", "b", "c")):
        rows = ROWS[100 * i + 7:100 * i + 37]
        if i == 1:
            with open(os.path.join(folder, name + ".npy"), "xb", buffering=0) as f:
                for at in range(0, len(npy(rows)), 100):
                    f.write(npy(rows)[at:at + 100])
        else:
            np.save(os.path.join(folder, name + ".npy"), rows)
        want[name] = rows

    def look(when):
        expect(sorted(os.listdir(folder)), sorted(n + ".npy" for n in want), when)
        for name, rows in want.items():
            expect(np.load(os.path.join(folder, name + ".npy")).tolist(), rows.tolist(), "%s %s" % (name, when))

    look("saved")
    write(m, "drop", "0:50\n105:110\n")  # of a: 5 rows
    want["a"] = np.delete(want["a"], range(5, 10), axis=0)
    look("dropped")
    write(m, "compact", "1\n")
    look("compacted")
    write(m, "drop", "::3\n")
    at, total = {}, 190 - 55
    start = 50
    for name in ("a", "b", "c"):
        at[name] = start
        start += len(want[name])
    expect(start, total)
    for name in want:
        want[name] = np.array([r for i, r in enumerate(want[name]) if (at[name] + i) % 3], "f4").reshape(-1, 4)
    look("every third dropped")
    m.remount()
    look("mounted again")
    left = len(np.load(m.path("x.npy")))
    os.truncate(m.path("x.npy"), 128 + 16 * (left - len(want["c"]) + 4))  # into c
    want["c"] = want["c"][:4]
    look("truncated into the last")
    write(m, "compact", "1\n")
    look("and compacted")
    left = len(np.load(m.path("x.npy")))
    write(m, "shape", "%d,4\n" % (left - 4 - len(want["b"]) + 3))  # all of c, and into b
    del want["c"]
    want["b"] = want["b"][:3]
    named = dict((line.split("\t")[0], line.split("\t")[1:]) for line in read(m, "names").splitlines())
    if "c" in named:  # a range whose rows are gone is empty, or is gone
        expect(named.pop("c")[0] == str(left), False, named)
    look("cut below the last")
    np.save(os.path.join(folder, "d.npy"), ROWS[:5])
    want["d"] = ROWS[:5]
    look("appended again")


def npy(array):
    f = io.BytesIO()
    np.save(f, array)
    return f.getvalue()


@test
def names_follow_their_rows(m):
    np.save(m.path("x.npy"), ROWS)
    write(m, "names", "head\t0\t10\ntail\t990\t1000\n")
    write(m, "drop", "5:7\n100:200\n")
    expect(read(m, "names"), "head\t0\t8\ntail\t888\t898\n")
    write(m, "compact", "1\n")
    expect(read(m, "names"), "head\t0\t8\ntail\t888\t898\n")
    write(m, "names", "head\n")
    expect(read(m, "names"), "tail\t888\t898\n")
    expect((err(write, m, "names", "a\t0\t5000\n"), err(write, m, "names", "a\t0\n"), err(write, m, "names", "none\n")),
           ("ERANGE", "EINVAL", "ENOENT"))


@test(root=True)
def compact_by_force(m):
    """On overlayfs leases prove nothing: what moves rows is refused until somebody vouches, and never under our own writers."""
    over = {name: os.path.join(m.own, "overlay", name) for name in ("lower", "upper", "work", "store")}
    for folder in over.values():
        os.makedirs(folder)
    if os.geteuid() != 0:
        raise Skip("only root mounts an overlay")
    made = subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                           "lowerdir=%(lower)s,upperdir=%(upper)s,workdir=%(work)s" % over, over["store"]],
                          capture_output=True, text=True)
    if made.returncode != 0:
        raise Skip("no overlay here: " + made.stderr.strip())
    try:
        with Mount(m.mode, store=over["store"]) as top:
            expect(top.fact("health", "leases"), "no")
            view(top)
            expect(err(write, top, "compact", "1\n"), "EBUSY")
            expect("force" in read(top, "last_error"), True, read(top, "last_error"))
            with open(top.path("x.npy"), "r+b"):
                expect(err(write, top, "compact", "force\n"), "EBUSY")
            write(top, "compact", "auto:5%\n")
            expect("write force" in read_fact(top, "health"), True)
            same(top, "x.npy", TENTH)
            write(top, "compact", "force\n")
            expect(os.path.getsize(top.below("x.npy")), 128 + TENTH.nbytes)
            same(top, "x.npy", TENTH)
    finally:
        subprocess.run(["umount", "-l", over["store"]], check=True)


@test
def passthrough_again_after_compact(m):
    view(m)
    npk("compact", m.path("x.npy"))
    reads = int(m.fact("stats", "reads"))
    same(m, "x.npy", TENTH)
    if m.mode == "passthrough":
        expect(int(m.fact("stats", "reads")), reads, "no read asked the daemon")


def read_fact(m, name):
    with open(m.path(".npk", name)) as f:
        return f.read()


def main():
    return main_on_mounts("rows")


if __name__ == "__main__":
    sys.exit(main())
