# SPDX-License-Identifier: Apache-2.0
"""Arrays with deleted rows, as programs see them that know nothing of it.

Usage: views.py passthrough|daemon [WORD...]

Rows are dropped by `npk` on the store behind the mount, as another process would."""

import mmap
import os
import subprocess
import sys

import numpy as np

import mountlib
from harness import err, expect, main_on_mounts, test
from mountlib import NPK

X = np.arange(1000 * 128, dtype="f4").reshape(1000, 128)
ROW = 512
DATA = 128


def npk(m, verb, name, *args):
    p = subprocess.run([NPK, verb, m.below(name), *args], capture_output=True, text=True)
    expect((p.returncode, p.stderr), (0, ""), "npk %s %s %s" % (verb, name, " ".join(args)))


def load(m, name="x.npy", **how):
    return np.load(m.path(name), **how)


def same(got, wanted, what=""):
    expect(got.shape, wanted.shape, what)
    expect(bool((got == wanted).all()), True, "rows of " + what)


def dropped(m, rows="5,7,-1", array=X, name="x.npy"):
    """Save an array, drop rows of it; returns what is left."""
    np.save(m.path(name), array)
    npk(m, "drop", name, rows)
    index = [int(r) for r in rows.split(",")]
    return np.delete(array, index, 0)


@test
def every_way_to_read(m):
    left = dropped(m)
    same(load(m), left, "np.load")
    same(load(m, mmap_mode="r"), left, "a mapping")
    size = os.stat(m.path("x.npy")).st_size
    expect(size, DATA + len(left) * ROW)
    whole = open(m.path("x.npy"), "rb").read()
    expect(len(whole), size)
    expect(whole[DATA:] == left.tobytes(), True, "read")
    fd = os.open(m.path("x.npy"), os.O_RDONLY)
    for offset, count in ((0, 5), (120, 16), (DATA + 4 * ROW + 500, 40), (DATA + 5 * ROW - 1, 3000), (size - 7, 100), (size, 10)):
        expect(os.pread(fd, count, offset), whole[offset:offset + count], "pread at %d" % offset)
    out = os.open(m.path("out"), os.O_RDWR | os.O_CREAT)
    expect(os.sendfile(out, fd, 0, size), size, "sendfile")
    expect(os.pread(out, size, 0) == whole, True, "what sendfile sent")
    os.ftruncate(out, 0)
    at = 0
    while at < size:
        at += os.copy_file_range(fd, out, size - at, at, at)
    expect(os.pread(out, size, 0) == whole, True, "copy_file_range")
    expect(os.lseek(fd, 10, os.SEEK_DATA), 10)
    expect(os.lseek(fd, 10, os.SEEK_HOLE), size)
    direct = os.open(m.path("x.npy"), os.O_RDONLY | os.O_DIRECT)
    page = mmap.mmap(-1, (size + 8191) & ~4095)
    expect(os.readv(direct, [page]), size, "O_DIRECT")
    expect(page[:size] == whole, True, "rows by O_DIRECT")
    subprocess.run(["cp", m.path("x.npy"), m.path("c.npy")], check=True)
    same(np.load(m.below("c.npy")), left, "a copy")


@test
def patterns_of_deletion(m):
    rng = np.random.default_rng(1)
    for dtype, rows, row in (("u1", 5000, 1), ("f4", 3000, 10), ("c16", 700, 3), ("f8", 40, 9000)):
        a = (rng.random((rows, row)) * 100).astype(dtype)
        for share in (0.02, 0.5, 0.98):
            gone = np.flatnonzero(rng.random(rows) < share)
            np.save(m.path("p.npy"), a)
            np.save(m.below("gone.npy"), gone)
            npk(m, "drop", "p.npy", m.below("gone.npy"))
            same(load(m, "p.npy"), np.delete(a, gone, 0), "%s %g" % (dtype, share))
    np.save(m.path("p.npy"), X)
    npk(m, "drop", "p.npy", ":")
    expect(load(m, "p.npy").shape, (0, 128), "all rows dropped")


@test
def readers_in_sequence(m):
    """Large reads that follow each other are gathered ahead: never with bytes that a write has changed since."""
    rows = np.random.default_rng(3).integers(0, 1 << 30, (24 << 11, 128), dtype="i4")
    np.save(m.path("big.npy"), rows)
    npk(m, "drop", "big.npy", "::7")
    left = np.delete(rows, np.s_[::7], 0)
    whole = open(m.path("big.npy"), "rb").read()
    expect(whole[DATA:] == left.tobytes(), True, "all of it")
    for step in (1 << 20, 256 << 10, 128 << 10, 300_001):
        fd = os.open(m.path("big.npy"), os.O_RDONLY)
        parts = []
        while part := os.read(fd, step):
            parts.append(part)
        os.close(fd)
        expect(b"".join(parts) == whole, True, "reads of %d bytes" % step)
    fd = os.open(m.path("big.npy"), os.O_RDONLY)
    for at in (0, 1 << 20, 2 << 20, 9 << 20, 10 << 20, 1 << 20, 2 << 20, 3 << 20, (3 << 20) + 77, len(whole) - (1 << 20), len(whole) - 5):
        expect(os.pread(fd, 1 << 20, at) == whole[at:at + (1 << 20)], True, "after a jump to %d" % at)
    many = [os.open(m.path("big.npy"), os.O_RDONLY) for _ in range(24)]
    for at in range(0, 6 << 20, 1 << 20):
        for each in many:
            expect(os.read(each, 1 << 20) == whole[at:at + (1 << 20)], True, "one of many readers")
    writer = os.open(m.path("big.npy"), os.O_RDWR)
    wanted, step = bytearray(whole), 1 << 20
    for at in range(0, len(whole) - 2 * step, step):
        expect(os.pread(fd, step, at) == wanted[at:at + step], True, "what was written is read at %d" % at)
        os.pread(writer, 4 * step, 0)  # as long as it takes to gather what follows
        for to in (at + step, at + 2 * step - ROW):
            wanted[to:to + ROW] = b"%512d" % to
            os.pwrite(writer, b"%512d" % to, to)
    for each in [fd, writer] + many:
        os.close(each)
    same(np.load(m.path("big.npy"), mmap_mode="r"), np.frombuffer(wanted[DATA:], "i4").reshape(left.shape), "a mapping after")
    for _ in range(3):  # opens that look at the header alone decide how the next one is served
        same(load(m, "big.npy", mmap_mode="r")[::100], np.frombuffer(wanted[DATA:], "i4").reshape(left.shape)[::100])
        same(load(m, "big.npy"), np.frombuffer(wanted[DATA:], "i4").reshape(left.shape))


@test
def who_has_it_open_keeps_its_rows(m):
    np.save(m.path("x.npy"), X)
    clean, reader = load(m, mmap_mode="r"), open(m.path("x.npy"), "rb")
    npk(m, "drop", "x.npy", "0:10")
    view = load(m, mmap_mode="r")
    npk(m, "drop", "x.npy", "0:10")
    same(load(m), X[20:], "after two drops")
    same(clean, X, "the mapping from before")
    same(view, X[10:], "the mapping between")
    expect(reader.read()[DATA:] == X.tobytes(), True, "a descriptor from before")
    npk(m, "restore", "x.npy", "all")
    same(load(m), X, "after restore")
    same(view, X[10:], "the mapping between, after restore")


@test
def appends_and_part_rows(m):
    left = dropped(m)
    with open(m.path("x.npy"), "ab", buffering=0) as f:
        f.write(X[:10].tobytes())
        f.write(b"abc")
    same(load(m), np.concatenate([left, X[:10]]), "after an append")
    expect(os.stat(m.path("x.npy")).st_size, DATA + (len(left) + 10) * ROW + 3)
    with open(m.path("x.npy"), "ab", buffering=0) as f:
        f.write(bytes(ROW - 3))
    expect(load(m).shape, (len(left) + 11, 128), "the row was completed")
    expect(load(m)[-1].tobytes()[:3], b"abc")
    with open(m.control("x.npy", "shape")) as f:
        expect(f.read(), "%d,128\n" % (len(left) + 11))
    with open(m.control("x.npy", "deleted")) as f:
        expect(f.read(), "3\n")


@test
def writes_reach_the_rows_shown(m):
    left = dropped(m)
    w = load(m, mmap_mode="r+")
    w[5], w[996] = -1, -2
    w.flush()
    del w
    with open(m.path("x.npy"), "r+b", buffering=0) as f:
        f.seek(DATA + 6 * ROW)
        f.write(X[0].tobytes())
        f.seek(DATA + len(left) * ROW)
        f.write(X[1].tobytes())  # beyond the last row: a row more
    left = np.concatenate([left, X[1:2]])
    left[5], left[996], left[6] = -1, -2, X[0]
    same(load(m), left, "the view")
    below = np.load(m.below("x.npy"))
    for physical, value in ((6, -1), (998, -2)):
        expect(bool((below[physical] == value).all()), True, "row %d of the file" % physical)
    for physical in (5, 7, 999):
        expect(bool((below[physical] == X[physical]).all()), True, "deleted row %d" % physical)


@test
def sizes(m):
    left = dropped(m)
    os.truncate(m.path("x.npy"), DATA + 100 * ROW)
    same(load(m), left[:100], "truncated")
    with open(m.path("x.npy"), "r+b") as f:
        os.ftruncate(f.fileno(), DATA + 120 * ROW)
    expect(load(m).shape, (120, 128), "extended")
    same(load(m)[:100], left[:100], "extended")
    expect(bool((load(m)[100:] == 0).all()), True, "new rows are zero")


@test
def names_follow(m):
    left = dropped(m)
    os.rename(m.path("x.npy"), m.path("x.npy.bak"))
    same(load(m, "x.npy.bak"), left, "under another suffix")
    os.mkdir(m.path("g"))
    os.rename(m.path("x.npy.bak"), m.path("g/y.npy"))
    same(load(m, "g/y.npy"), left, "in another directory")
    expect(err(os.link, m.path("g/y.npy"), m.path("l.npy")), "EPERM", "a hard link")
    np.save(m.path("x.npy"), X[:7])
    same(load(m), X[:7], "a new array of the old name")
    os.rename(m.path("x.npy"), m.path("g/y.npy"))
    same(load(m, "g/y.npy"), X[:7], "another array that took the name")
    npk(m, "drop", "g/y.npy", "0")
    os.remove(m.path("g/y.npy"))
    np.save(m.path("g/y.npy"), X[:9])
    same(load(m, "g/y.npy"), X[:9], "after removal")


@test
def saves_over_a_view(m):
    left = dropped(m)
    old = load(m, mmap_mode="r")
    np.save(m.path("x.npy"), X[:50])
    same(load(m), X[:50], "the new array")
    same(old, left, "the mapping of the old one")
    npk(m, "drop", "x.npy", "3")
    with open(m.path("x.npy"), "wb") as f:
        np.save(f, X[:60])
    same(load(m), X[:60], "written again")


@test
def compaction(m):
    left = dropped(m, ",".join(str(r) for r in range(0, 1000, 3)))
    view = load(m, mmap_mode="r")
    before = os.stat(m.below("x.npy")).st_size
    npk(m, "compact", "x.npy")
    expect(os.stat(m.below("x.npy")).st_size < before, True, "the file is smaller")
    same(load(m), left, "after compaction")
    same(view, left, "a mapping from before")
    same(np.load(m.below("x.npy")), left, "the file below")
    opens = int(m.fact("stats", "reads"))
    load(m)
    if m.fact("health", "mode") == "passthrough":
        expect(int(m.fact("stats", "reads")), opens, "reads that the daemon served")


@test
def compaction_waits_for_writers(m):
    dropped(m)
    with open(m.path("x.npy"), "r+b"):
        p = subprocess.run([NPK, "compact", m.below("x.npy")], capture_output=True, text=True)
        expect(p.returncode, 1, "compaction under a writer")
        expect("x.npy" in p.stderr or '"x"' in p.stderr, True, p.stderr)
    compact = [NPK, "compact", m.below("x.npy")]  # the daemon hears of the close a moment later
    mountlib.wait_until(lambda: subprocess.run(compact, capture_output=True).returncode == 0, what="compaction")


@test
def another_mount_of_the_state(m):
    left = dropped(m)
    m.remount()
    same(load(m), left, "after a new mount")
    expect([n for n in os.listdir(m.mnt)], ["x.npy"])


def main():
    return main_on_mounts("views")


if __name__ == "__main__":
    sys.exit(main())
