#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A package made writable (`-o upper=DIR`): everything that changes is in the upper, nothing in the package, and what is
shown is what a store of the same data would show after the same changes.

Usage: upper.py passthrough|daemon [WORD...]"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

import mountlib
from harness import Report, chosen, err, expect, in_child, test
from mountlib import NPK, NPKFS, Mount, MountFailed, Skip

MODE = "passthrough"


def fill(store):
    r = np.random.default_rng(5)
    os.makedirs(store + "/g/deep")
    os.makedirs(store + "/empty")
    np.save(store + "/x.npy", r.standard_normal((5000, 16), dtype="f4"))
    np.save(store + "/g/ids.npy", np.cumsum(r.integers(0, 9, 30000)))
    np.save(store + "/g/deep/u8.npy", r.integers(0, 255, (3000, 40), dtype="u1"))
    np.save(store + "/small.npy", np.arange(10))
    np.save(store + "/fortran.npy", np.asfortranarray(r.random((300, 200))))
    np.save(store + "/struct.npy", np.zeros(3000, [("a", "i4"), ("b", "S3")]))
    with open(store + "/tail.npy", "wb") as f:  # bytes behind the rows: such a file is copied, whatever its size
        np.save(f, np.arange(4000))
        np.save(f, np.arange(3))
    with open(store + "/log.txt", "w") as f:
        f.write("a line of text\n" * 3000)
    with open(store + "/note", "w") as f:
        f.write("short")
    os.symlink("g/ids.npy", store + "/link")
    os.chmod(store + "/log.txt", 0o640)


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def npk(*args, status=0, **kw):
    done = subprocess.run([NPK, *args], capture_output=True, text=True, **kw)
    expect(done.returncode, status, "npk %s: %s" % (" ".join(args), done.stderr))
    return done


class Upper:
    """A package, an upper, and the mount of both; again() mounts it anew."""

    def __init__(self, *pack_options, options=()):
        self.own = tempfile.mkdtemp(prefix="npkfs.", dir=mountlib.temp_base())
        self.package, self.dir = self.own + "/x.npkg", self.own + "/up"
        self.options, self.mount = list(options), None
        try:
            fill(self.own + "/store")
            npk("pack", self.own + "/store", self.package, *pack_options)
            self.sum = digest(self.package)
            self.again()
        except BaseException:
            shutil.rmtree(self.own)
            raise

    def again(self, *options):
        if self.mount:
            self.mount.stop()
        self.mount = None
        self.mount = Mount(MODE, options=["upper=" + self.dir, *self.options, *options], store=self.package)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.mount:
            self.mount.stop()
        if kind is None:
            expect(digest(self.package), self.sum, "the package was touched")
        shutil.rmtree(self.own)

    def path(self, name):
        return self.mount.path(name)

    def control(self, array, name, text=None):
        path = self.mount.control(array, name)
        if text is None:
            with open(path) as f:
                return f.read()
        with open(path, "w") as f:
            f.write(text + "\n")
        return None

    def blocks(self, name):
        return os.stat(self.dir + "/" + name).st_blocks


def contents(root, npkfs=False):
    """What a tree holds: kinds, modes, times of files, bytes."""
    out = {}
    for folder, dirs, names in os.walk(root):
        dirs[:] = [d for d in dirs if d != ".npkfs"]
        for name in names + dirs:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            rel = os.path.relpath(path, root)
            if os.path.islink(path):
                out[rel] = ("link", os.readlink(path))
            elif os.path.isdir(path):
                out[rel] = ("dir", st.st_mode)
            else:
                out[rel] = ("file", st.st_mode, st.st_size, digest(path))
    return out


def times(root):
    return {os.path.relpath(os.path.join(f, n), root): os.lstat(os.path.join(f, n)).st_mtime_ns
            for f, dirs, names in os.walk(root) for n in names if "/.npkfs" not in f}


@test
def the_same_tree_and_little_on_disk():
    with Upper() as u:
        expect(contents(u.mount.mnt), contents(u.own + "/store"))
        expect(times(u.mount.mnt), times(u.own + "/store"))
        expect(u.blocks("x.npy") <= 8 and u.blocks("log.txt") <= 8, True, "placeholders take a page")
        expect(u.blocks("tail.npy") > 16, True, "what has bytes behind its rows is whole")
        expect(subprocess.run(["cp", "-a", u.mount.mnt, u.own + "/out"]).returncode, 0)
        expect(contents(u.own + "/out"), contents(u.own + "/store"), "cp -a out")
        expect(u.blocks("x.npy") <= 8, True, "reading copies nothing")
        expect([w for w in npk("check", u.dir).stdout.splitlines() if "F6" not in w], [])


@test
def numpy_refuses_a_placeholder():
    """Outside the mount nobody takes the holes for zeros."""
    with Upper() as u:
        for mode in (None, "r"):
            try:
                np.load(u.dir + "/x.npy", mmap_mode=mode)
            except ValueError:
                continue
            raise AssertionError("a placeholder was loaded")


@test
def the_command_line_on_the_upper():
    """npk finds the package by itself, mounted or not."""
    with Upper() as u:
        want = np.load(u.own + "/store/g/ids.npy")
        for place in (u.dir, u.mount.mnt):
            expect(npk("get", place + "/g/ids.npy", "-1").stdout.strip(), str(want[-1]))
            expect(npk("info", place + "/x.npy", "--json").stdout.count("5000") > 0, True)
        u.mount.stop()
        u.mount = None
        expect(npk("get", u.dir + "/g/ids.npy", "7").stdout.strip(), str(want[7]))
        os.rename(u.package, u.own + "/y.npkg")
        said = npk("get", u.dir + "/g/ids.npy", "7", status=1).stderr
        expect("upper=" in said, True, said)
        expect("L1" in npk("check", u.dir, status=1).stdout, True)
        u.package = u.own + "/y.npkg"
        u.again()  # tells where it is now
        expect(npk("get", u.dir + "/g/ids.npy", "7").stdout.strip(), str(want[7]))


def change_everything(u, root):
    """The same changes by plain calls on any tree."""
    def path(name):
        return root + "/" + name
    with open(path("x.npy"), "ab") as f:
        f.write(np.full((3, 16), 7, "f4").tobytes())
    m = np.load(path("g/ids.npy"), mmap_mode="r+")
    m[5], m[-1] = -5, -1
    m.flush()
    del m
    with open(path("log.txt"), "r+b") as f:
        f.seek(40000)
        f.write(b"changed")
    os.truncate(path("g/deep/u8.npy"), 128 + 1000 * 40)
    os.rename(path("log.txt"), path("g/moved.txt"))
    os.rename(path("g"), path("h"))
    os.rename(path("struct.npy"), path("h/deep/struct.npy"))
    os.unlink(path("small.npy"))
    os.rmdir(path("empty"))
    os.mkdir(path("new"))
    np.save(path("new/y.npy"), np.arange(3000.0))
    np.save(path("fortran.npy"), np.arange(6).reshape(2, 3))
    os.chmod(path("note"), 0o600)
    os.utime(path("note"), ns=(10**18, 10**18))
    os.unlink(path("link"))
    os.symlink("new/y.npy", path("link"))
    os.link(path("h/deep/struct.npy"), path("second"))


@test
def changes_are_those_of_a_store():
    with Upper() as u:
        shutil.copytree(u.own + "/store", u.own + "/mirror", symlinks=True)
        with Mount(MODE, store=u.own + "/mirror") as m:
            change_everything(u, u.mount.mnt)
            change_everything(u, m.mnt)
            want = contents(m.mnt)
            expect(contents(u.mount.mnt), want)
            expect(os.stat(u.path("note")).st_mtime_ns, 10**18)
        u.again()
        expect(contents(u.mount.mnt), want, "mounted again")
        expect(os.stat(u.path("second")).st_nlink, 2)
        expect(npk("check", "--repair", u.dir).stdout.count("damage"), 0)


@test
def metadata_needs_no_data():
    with Upper() as u:
        os.chmod(u.path("x.npy"), 0o600)
        os.utime(u.path("x.npy"), ns=(2 * 10**18, 3 * 10**17))
        os.setxattr(u.path("x.npy"), "user.colour", b"blue")
        os.rename(u.path("x.npy"), u.path("g/z.npy"))
        u.again()
        st = os.stat(u.path("g/z.npy"))
        expect((st.st_mode & 0o777, st.st_mtime_ns, os.getxattr(u.path("g/z.npy"), "user.colour")),
               (0o600, 3 * 10**17, b"blue"))
        expect(os.path.exists(u.path("x.npy")), False)
        expect(u.blocks("g/z.npy") <= 16, True, "still in the package")
        expect(np.load(u.path("g/z.npy")).tobytes() == np.load(u.own + "/store/x.npy").tobytes(), True)
        with open(u.path("g/z.npy"), "r+b"):  # opened for writing: the data comes, everything else stays
            pass
        st = os.stat(u.path("g/z.npy"))
        expect((st.st_mode & 0o777, st.st_mtime_ns, os.getxattr(u.path("g/z.npy"), "user.colour")),
               (0o600, 3 * 10**17, b"blue"))
        expect(u.blocks("g/z.npy") > 16, True)
        with open(u.dir + "/g/z.npy", "rb") as f, open(u.own + "/store/x.npy", "rb") as g:
            expect(f.read() == g.read(), True, "a plain file, to the byte")


@test
def deleted_rows_need_no_data():
    with Upper() as u:
        want = np.load(u.own + "/store/x.npy")
        u.control("x.npy", "drop", "10:20")
        u.control("x.npy", "drop", "-1")
        live = np.delete(want, list(range(10, 20)) + [4999], axis=0)
        expect((np.load(u.path("x.npy")) == live).all(), True)
        expect((np.load(u.path("x.npy"), mmap_mode="r")[::7] == live[::7]).all(), True)
        expect(u.control("x.npy", "deleted"), "11\n")
        expect(u.blocks("x.npy") <= 8, True, "still in the package")
        u.control("x.npy", "names", "few\t5\t15")
        u.again()
        expect((np.load(u.path("x.npy")) == live).all(), True, "mounted again")
        expect((np.load(u.path(".npk/x.npy/slices/few.npy")) == live[5:15]).all(), True)
        expect((np.load(u.path(".npk/x.npy/slices/::100.npy")) == live[::100]).all(), True)
        np.save(u.path(".npk/x.npy/search/q.npy"), live[33])
        expect(int(np.load(u.path(".npk/x.npy/search/q.l2.1.npy"))["index"].ravel()[0]), 33)
        expect("count\t%d\n" % live.size in u.control("x.npy", "summary"), True)
        u.control("x.npy", "restore", "4999:5000")
        live = np.delete(want, range(10, 20), axis=0)
        expect((np.load(u.path("x.npy")) == live).all(), True, "restored")
        # The first write into a view: the rows come, and what is deleted stays so.
        with open(u.path("x.npy"), "r+b") as f:
            f.seek(128 + 12 * 64)
            f.write(np.full(16, 3, "f4").tobytes())
        live[12] = 3
        expect((np.load(u.path("x.npy")) == live).all(), True, "written")
        expect(u.control("x.npy", "deleted"), "10\n")
        expect(u.control("x.npy", "names"), "few\t5\t15\n")
        u.again()
        expect((np.load(u.path("x.npy")) == live).all(), True, "mounted again")


@test
def controls_that_need_data():
    with Upper() as u:
        want = np.load(u.own + "/store/x.npy")
        u.control("x.npy", "clone", "copy")
        expect(np.load(u.path("copy.npy")).tobytes() == want.tobytes(), True)
        expect(u.blocks("x.npy") <= 8, True)
        u.control("x.npy", "drop", "::2")
        u.control("x.npy", "compact", "1")
        expect((np.load(u.path("x.npy")) == want[1::2]).all(), True, "compacted")
        expect(os.path.getsize(u.dir + "/x.npy"), 128 + 2500 * 64)
        with open(u.dir + "/x.npy", "rb") as f:
            expect(f.read(6), b"\x93NUMPY")
        u.control("fortran.npy", "dtype", "float32")
        expect((np.load(u.path("fortran.npy")) == np.load(u.own + "/store/fortran.npy").astype("f4")).all(), True, "cast")
        u.control("g/ids.npy", "shape", "100,300")
        expect(np.load(u.path("g/ids.npy")).shape, (100, 300))
        u.control("g/deep/u8.npy", "shape", "10,40")
        expect((np.load(u.path("g/deep/u8.npy")) == np.load(u.own + "/store/g/deep/u8.npy")[:10]).all(), True)
        u.control("copy.npy", "drop", "0")
        expect(np.load(u.path("copy.npy")).shape, (4999, 16))


@test
def clones_of_what_is_deleted_from():
    with Upper() as u:
        want = np.load(u.own + "/store/x.npy")
        u.control("x.npy", "drop", "1:4000")
        u.control("x.npy", "clone", "h/copy")
        expect((np.load(u.path("h/copy.npy")) == np.delete(want, range(1, 4000), axis=0)).all(), True)
        npk("pack", u.dir, u.own + "/again.npkg")
        with Mount(MODE, store=u.own + "/again.npkg") as m:
            now, then = contents(m.mnt), contents(u.mount.mnt)
            expect(now, then, "a package of the upper")


@test
def a_batch():
    with Upper() as u:
        x = np.load(u.own + "/store/x.npy")
        os.mkdir(u.path(".npk/batch/b"))
        with open(u.path(".npk/batch/b/x.npy"), "ab") as f:
            f.write(np.full((2, 16), 9, "f4").tobytes())
        np.save(u.path(".npk/batch/b/g/ids.npy"), np.arange(7))
        expect(len(np.load(u.path("x.npy"))), 5000)
        with open(u.path(".npk/batch/b/.npk/state"), "w") as f:
            f.write("commit\n")
        got = np.load(u.path("x.npy"))
        expect((got.shape, (got[:5000] == x).all(), (got[5000:] == 9).all()), ((5002, 16), True, True))
        expect(np.load(u.path("g/ids.npy")).tolist(), list(range(7)))


@test
def who_reads_keeps_what_there_was():
    with Upper() as u:
        want = np.load(u.own + "/store/x.npy")
        mapped = np.load(u.path("x.npy"), mmap_mode="r")
        with open(u.path("x.npy"), "rb") as f:
            with open(u.path("x.npy"), "r+b") as g:
                g.seek(128)
                g.write(b"\0" * 64)
            expect(f.read()[128:] == want.tobytes(), True, "an open file")
        expect((mapped == want).all(), True, "a mapping")
        expect((np.load(u.path("x.npy"))[0] == 0).all(), True)


@test
def holes_are_no_zeros():
    """What the daemon says of holes and copies must be of the data, not of the placeholder."""
    with Upper() as u:
        fd = os.open(u.path("x.npy"), os.O_RDONLY)
        size = os.fstat(fd).st_size
        expect(os.lseek(fd, 5000, os.SEEK_DATA), 5000)
        expect(os.lseek(fd, 0, os.SEEK_HOLE), size)
        out = os.open(u.path("copied"), os.O_RDWR | os.O_CREAT)
        done = 0
        while done < size:
            try:
                n = os.copy_file_range(fd, out, size - done, done, done)
            except OSError:
                n = 0
            if n == 0:
                n = os.pwrite(out, os.pread(fd, 1 << 20, done), done)
            done += n
        os.close(out)
        os.close(fd)
        expect(digest(u.path("copied")), digest(u.own + "/store/x.npy"))
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", u.path("log.txt"), u.path("log2.txt")], check=True)
        expect(digest(u.path("log2.txt")), digest(u.own + "/store/log.txt"))


@test
def replaced_without_a_copy():
    with Upper() as u:
        with open(u.path("x.npy"), "rb") as f:
            np.save(u.path("x.npy"), np.arange(5))
            expect(f.read(6), b"\x93NUMPY", "a reader of the old one")
            expect(len(f.read()), 128 + 5000 * 64 - 6)
        expect(np.load(u.path("x.npy")).tolist(), [0, 1, 2, 3, 4])
        with open(u.path("log.txt"), "w") as f:
            f.write("new")
        u.again()
        expect(np.load(u.path("x.npy")).tolist(), [0, 1, 2, 3, 4])
        expect(open(u.path("log.txt")).read(), "new")


@test
def mounted_like_any_store():
    """The upper itself, or a group of it, without a word of the package."""
    with Upper() as u:
        x, ids = (np.load(u.own + "/store/" + n) for n in ("x.npy", "g/ids.npy"))
        u.mount.stop()
        u.mount = None
        with Mount(MODE, store=u.dir) as m:
            expect((np.load(m.path("x.npy")) == x).all(), True)
            with open(m.path("x.npy"), "ab") as f:
                f.write(x[:2].tobytes())
            expect(np.load(m.path("x.npy")).shape, (5002, 16))
        with Mount(MODE, store=u.dir + "/g") as m:
            expect((np.load(m.path("ids.npy")) == ids).all(), True)
            w = np.load(m.path("ids.npy"), mmap_mode="r+")
            w[3] = -3
            w.flush()
            del w
        ids[3] = -3
        os.rename(u.package, u.own + "/away")
        with Mount(MODE, store=u.dir) as m:
            expect((np.load(m.path("g/ids.npy")) == ids).all(), True)
            expect(err(open, m.path("g/deep/u8.npy"), "rb"), "EREMOTE")
            expect(err(open, m.path("g/deep/u8.npy"), "ab"), "EREMOTE")
            expect("upper=" in m.fact("last_error"), True)
        os.rename(u.own + "/away", u.package)
        u.again()
        expect((np.load(u.path("g/ids.npy")) == ids).all(), True)


@test
def what_is_removed_stays_away():
    with Upper() as u:
        shutil.rmtree(u.path("g"))
        os.unlink(u.path("x.npy"))
        os.mkdir(u.path("g"))
        np.save(u.path("g/new.npy"), np.arange(3))
        u.again()
        expect(sorted(os.listdir(u.path("g"))), ["new.npy"])
        expect("x.npy" in os.listdir(u.mount.mnt), False)
        np.save(u.path("x.npy"), np.arange(2))
        u.again()
        expect(np.load(u.path("x.npy")).tolist(), [0, 1])


@test
def refused():
    with Upper() as u:
        def said(*options, package=u.package, mnt=None):
            try:
                with Mount(MODE, options=list(options), store=package):
                    pass
            except MountFailed as e:
                return e.said
            raise AssertionError("mounted with %s" % (options,))
        other = u.own + "/other.npkg"
        os.mkdir(u.own + "/s2")
        np.save(u.own + "/s2/only.npy", np.arange(9000))
        npk("pack", u.own + "/s2", other)
        expect("another package" in said("upper=" + u.dir, package=other), True)
        expect("neither empty nor an upper" in said("upper=" + u.own + "/s2"), True)
        expect("no such" in said("upper=" + u.own + "/a/b").lower(), True)
        expect("an upper is a directory" in said("upper=" + other), True)
        expect("package" in said("upper=" + u.own + "/fresh", package=u.own + "/s2"), True, "a directory as the source")
        expect("without ro" in said("upper=" + u.own + "/fresh", "ro"), True)
        expect(sorted(n for n in os.listdir(u.own) if "unpack" in n or n == "fresh"), [], "left behind")
        os.mkdir(u.own + "/mnt")
        done = subprocess.run([NPKFS, "-o", "upper=%s/mnt/up" % u.own, u.package, u.own + "/mnt"], capture_output=True,
                              text=True)
        expect((done.returncode, "mount point" in done.stderr), (1, True), done.stderr)
        with open(u.dir + "/.npkfs/lower", "w") as f:
            f.write("{")
        u.mount.stop()
        u.mount = None
        expect("lower" in said("upper=" + u.dir), True)


@test
def read_only_and_a_damaged_placeholder():
    with Upper() as u:
        u.again("ro")
        expect(err(open, u.path("x.npy"), "r+b"), "EROFS")
        expect(digest(u.path("x.npy")), digest(u.own + "/store/x.npy"))
        u.mount.stop()
        u.mount = None
        with open(u.dir + "/x.npy", "r+b") as f:
            f.seek(300)
            f.write(b"!")
        found = npk("check", u.dir, status=1).stdout
        expect(("L2" in found, "x.npy" in found), (True, True), found)
        u.again()
        expect(err(open, u.path("x.npy"), "rb"), "EIO")
        expect(err(open, u.path("x.npy"), "r+b"), "EIO")
        expect(digest(u.path("g/ids.npy")), digest(u.own + "/store/g/ids.npy"))


@test(root=True)
def a_full_disk():
    if os.geteuid() != 0:
        raise Skip("a small filesystem takes root")
    with Upper() as u:
        u.mount.stop()
        u.mount = None
        small = u.own + "/small"
        os.mkdir(small)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "none", small], check=True)
        try:
            u.dir = small + "/up"
            u.again()
            fd = os.open(small + "/filler", os.O_WRONLY | os.O_CREAT)
            while err(os.write, fd, b"x" * 4096) is None:
                pass
            os.close(fd)
            expect(err(open, u.path("x.npy"), "r+b"), "ENOSPC")
            expect(err(os.truncate, u.path("g/ids.npy"), 1000), "ENOSPC")
            expect(digest(u.path("x.npy")), digest(u.own + "/store/x.npy"))
            os.unlink(small + "/filler")
            with open(u.path("x.npy"), "ab") as f:
                f.write(b"\1" * 64)
            expect(len(np.load(u.path("x.npy"))), 5001)
            u.mount.stop()
            u.mount = None
            shutil.rmtree(u.dir)
            fd = os.open(small + "/filler", os.O_WRONLY | os.O_CREAT)
            os.write(fd, b"x" * (860 << 10))
            os.close(fd)
            try:
                u.again()
                raise AssertionError("made on a full disk")
            except MountFailed as e:
                expect("No space" in e.said, True, e.said)
            expect([n for n in os.listdir(small) if n != "filler"], [], "left behind")
        finally:
            if u.mount:
                u.mount.stop()
                u.mount = None
            subprocess.run(["umount", small], check=True)


def plan(n):
    return dict(os.environ, NPK_IO_PLAN="kill:%d" % n)


@test(limit=120)
def killed_while_copying():
    """At each call that changes something: the array is as it was, or as it is to be."""
    with Upper() as u:
        u.control("x.npy", "drop", "3")
        u.mount.stop()
        u.mount = None
        shutil.copytree(u.dir, u.own + "/kept")
        want = np.delete(np.load(u.own + "/store/x.npy"), 3, axis=0)
        rows = u.own + "/rows.npy"
        np.save(rows, np.full((1, 16), 5, "f4"))
        outcomes = set()
        for n in range(1, 200):
            done = subprocess.run([NPK, "append", u.dir + "/x.npy", rows], env=plan(n), capture_output=True)
            found = npk("check", "--repair", u.dir).stdout if subprocess.run(
                [NPK, "check", u.dir], capture_output=True).returncode in (0, 1) else None
            expect("damage" in found, False, "killed at %d: %s" % (n, found))
            out = u.own + "/out.npy"
            if os.path.exists(out):
                os.unlink(out)
            npk("get", u.dir + "/x.npy", ":", "--npy", out)
            got = np.load(out)
            expect(len(got) in (4999, 5000), True, "killed at %d: %d rows" % (n, len(got)))
            expect((got[:4999] == want).all(), True, "killed at %d" % n)
            outcomes.add((len(got), os.stat(u.dir + "/x.npy").st_blocks > 16))
            if done.returncode == 0:
                break
            expect(done.returncode, -signal.SIGKILL, "append %d: %s" % (n, done.stderr))
            shutil.rmtree(u.dir)
            shutil.copytree(u.own + "/kept", u.dir, symlinks=True)
        expect(done.returncode, 0)
        expect({(4999, False), (4999, True), (5000, True)} <= outcomes, True, "outcomes: %s" % outcomes)


@test(limit=120)
def killed_while_it_is_made():
    with Upper() as u:
        u.mount.stop()
        u.mount = None
        shutil.rmtree(u.dir)
        os.mkdir(u.own + "/mnt")
        made = False
        for n in list(range(1, 30)) + list(range(30, 400, 7)):
            # -f as mount(8) means it: everything but the mount itself.
            done = subprocess.run(["mount.npkfs", "-f", "-o", "upper=" + u.dir, u.package, u.own + "/mnt"],
                                  executable=os.path.join(os.path.dirname(NPKFS), "mount.npkfs"), env=plan(n),
                                  capture_output=True)
            if done.returncode == 0:
                made = True
                break
            expect(done.returncode, -signal.SIGKILL, done.stderr)
            expect(os.path.exists(u.dir) and not os.path.exists(u.dir + "/.npkfs/lower"), False, "half of an upper")
            if os.path.exists(u.dir):
                shutil.rmtree(u.dir)
        expect(made, True)
        u.again()
        expect(contents(u.mount.mnt), contents(u.own + "/store"))
        expect([n for n in os.listdir(u.own) if "unpack" in n], [], "the next one removes what the dead ones left")


@test
def many_at_once():
    """Readers, and programs that write the same arrays for the first time."""
    with Upper("--frame", "4K") as u:
        want = np.load(u.own + "/store/x.npy")
        wrong = []

        def work(seed):
            r = np.random.default_rng(seed)
            for _ in range(20):
                if r.integers(4) == 0:
                    with open(u.path("x.npy"), "r+b") as f:
                        f.seek(128 + 64 * seed)
                        f.write(want[seed].tobytes())
                elif not (np.load(u.path("x.npy")) == want).all():
                    wrong.append(seed)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        expect(wrong, [])


def main():
    global MODE
    try:
        mountlib.need_mounts()
    except Skip as e:
        print("skipped: %s" % e)
        return 77
    MODE = sys.argv[1] if len(sys.argv) > 1 else "passthrough"
    if MODE == "passthrough" and os.geteuid() != 0:
        print("skipped: passthrough takes root")
        return 77
    report = Report("upper." + MODE)
    for fn in chosen(sys.argv[2:]):
        start = time.monotonic()
        report.add(fn.__name__, in_child(fn, fn.marks.get("limit", 60)), time.monotonic() - start)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
