#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The mount of a package: the same tree and bytes as the store that was packed, read-only, damage confined.

Usage: package.py [WORD...]"""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

import mountlib
from harness import Report, chosen, err, expect, in_child, test
from mountlib import NPK, Mount, Skip

DTYPES = "? i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16 >i4 S5 U3 M8[s]".split()


def fill(store):
    """One of everything; some arrays have many frames."""
    r = np.random.default_rng(3)
    os.makedirs(store + "/train/deep")
    os.makedirs(store + "/empty")
    for i, dtype in enumerate(DTYPES):
        x = np.abs(r.standard_normal((200, 3)) * 40).astype("i8").astype(dtype)
        np.save("%s/dtype%d.npy" % (store, i), x)
    np.save(store + "/train/x.npy", r.standard_normal((20000, 64), dtype="f4"))
    np.save(store + "/train/deep/noise.npy", r.integers(0, 255, (3000, 1000), dtype="u1"))
    np.save(store + "/train/ids.npy", np.cumsum(r.integers(0, 9, 300000)))
    np.save(store + "/five.npy", r.random((3, 4, 5, 6, 7)))
    np.save(store + "/fortran.npy", np.asfortranarray(r.random((300, 200))))
    np.save(store + "/struct.npy", np.zeros(500, [("a", "i4"), ("b", "S3")]))
    np.save(store + "/no_rows.npy", np.zeros((0, 5)))
    np.save(store + "/scalar.npy", np.float32(2.5))
    for name, text in (("notes.txt", "text\n" * 2000), ("bad.npy", "no array"), ("nothing", "")):
        with open(store + "/" + name, "w") as f:
            f.write(text)
    os.symlink("train/x.npy", store + "/link")
    os.symlink("../notes.txt", store + "/train/up")
    os.chmod(store + "/notes.txt", 0o640)


class Packed:
    """A store, its package, and the package mounted."""

    def __init__(self, *pack_options, options=(), damage=None, prepare=None):
        self.own = tempfile.mkdtemp(prefix="npkfs.", dir=mountlib.temp_base())
        self.store, self.package = self.own + "/store", self.own + "/x.npkg"
        try:
            fill(self.store)
            if prepare:
                prepare(self.store)
            subprocess.run([NPK, "pack", self.store, self.package, *pack_options], check=True)
            if damage:
                damage(self.package)
            self.mount = Mount("daemon", options=options, store=self.package)
        except BaseException:
            shutil.rmtree(self.own)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.mount.stop()
        shutil.rmtree(self.own)

    def path(self, name):
        return self.mount.path(name)


def tree(root):
    out = subprocess.run(["find", ".", "-printf", "%p %y %m %s %T@ %l\n"], cwd=root, check=True, capture_output=True,
                         text=True).stdout
    # A directory's size is its filesystem's business.
    return sorted(line if " d " not in line else " ".join(w for i, w in enumerate(line.split()) if i != 3)
                  for line in out.splitlines())


def arrays_of(store):
    for folder, _, names in os.walk(store):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), store)
            if name.endswith(".npy") and name != "bad.npy":
                yield path


@test
def the_same_tree():
    with Packed() as p:
        expect(subprocess.run(["diff", "-r", "--no-dereference", p.store, p.mount.mnt]).returncode, 0)
        expect(tree(p.mount.mnt), tree(p.store))
        shutil.rmtree(p.own + "/out", ignore_errors=True)
        subprocess.run(["cp", "-a", p.mount.mnt, p.own + "/out"], check=True)
        expect(tree(p.own + "/out"), tree(p.store), "after cp -a")
        expect(os.readlink(p.path("train/up")), "../notes.txt")
        with open(p.path("link"), "rb") as f:
            expect(f.read(6), b"\x93NUMPY", "through a link")


@test
def numpy_reads_every_array():
    for options in ((), ("--raw", "*"), ("--frame", "4K"), ("--frame", "1M", "--level", "9")):
        with Packed(*options) as p:
            count = 0
            for path in arrays_of(p.store):
                want, got = np.load(p.store + "/" + path), np.load(p.path(path))
                expect((got.dtype, got.shape, got.flags.f_contiguous), (want.dtype, want.shape, want.flags.f_contiguous))
                expect(got.tobytes() == want.tobytes(), True, path)
                if want.size and want.ndim:
                    mapped = np.load(p.path(path), mmap_mode="r")
                    expect(np.asarray(mapped).tobytes() == want.tobytes(), True, path + " mapped")
                count += 1
            expect(count > 20, True, "arrays")


@test
def random_rows_and_odd_reads():
    with Packed("--frame", "8K") as p:
        want = np.load(p.store + "/train/x.npy")
        mapped = np.load(p.path("train/x.npy"), mmap_mode="r")
        rows = np.random.default_rng(1).integers(0, len(want), 500)
        expect((mapped[rows] == want[rows]).all(), True)
        with open(p.store + "/train/x.npy", "rb") as f:
            data = f.read()
        fd = os.open(p.path("train/x.npy"), os.O_RDONLY)
        for offset in (0, 1, 127, 128, 129, 8191, 8320, 99999, len(data) - 5, len(data), len(data) + 10):
            for n in (1, 7, 4096, 65536, 300000, 3 << 20):
                expect(os.pread(fd, n, offset) == data[offset:offset + n], True, "%d bytes at %d" % (n, offset))
        os.close(fd)


@test
def nothing_can_be_changed():
    with Packed() as p:
        x = p.path("train/x.npy")
        expect(err(open, x, "r+b"), "EROFS")
        expect(err(open, p.path("new"), "w"), "EROFS")
        expect(err(os.unlink, x), "EROFS")
        expect(err(os.rename, x, x + "2"), "EROFS")
        expect(err(os.mkdir, p.path("d")), "EROFS")
        expect(err(os.truncate, x, 0), "EROFS")
        expect(err(os.utime, x), "EROFS")
        expect(err(open, p.mount.control("train/x.npy", "shape"), "w"), "EROFS")
        expect(err(os.symlink, "x", p.path("l")), "EROFS")
        expect(err(os.link, x, p.path("l")), "EROFS")
        expect(err(os.mknod, p.path("fifo"), 0o10644), "EROFS")
        expect(err(os.rmdir, p.path("empty")), "EROFS")
        expect(err(os.chmod, x, 0o600), "EROFS")
        expect(err(os.setxattr, x, "user.a", b"b"), "EROFS")
        expect(err(os.removexattr, x, "user.npk.shape"), "EROFS")
        expect(err(os.open, p.path("."), os.O_TMPFILE | os.O_RDWR), "EROFS")
    with Packed(options=["ro"]) as p:
        expect(err(open, p.path("new"), "w"), "EROFS")
        expect(err(open, p.path("train/.npk/x.npy/search/q.npy"), "w"), "EROFS")


@test
def locks_and_holes():
    with Packed() as p:
        with open(p.path("five.npy"), "rb") as a, open(p.path("five.npy"), "rb") as b:
            fcntl.flock(a, fcntl.LOCK_SH)
            fcntl.flock(b, fcntl.LOCK_SH)
            expect(err(fcntl.flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB), "EAGAIN")
            fcntl.lockf(a, fcntl.LOCK_SH)
            expect(a.seek(0, os.SEEK_DATA), 0)
            expect(a.seek(0, os.SEEK_HOLE), os.path.getsize(p.path("five.npy")))


@test
def controls():
    with Packed() as p:
        def value(array, name):
            with open(p.mount.control(array, name)) as f:
                return f.read()
        expect(value("train/x.npy", "shape"), "20000,64\n")
        expect(value("train/x.npy", "dtype"), "float32\n")
        expect(value("train/x.npy", "rows"), "20000\n")
        expect(value("train/x.npy", "deleted"), "0\n")
        expect(value("struct.npy", "dtype"), "[('a', '<i4'), ('b', '|S3')]\n")
        expect(value("fortran.npy", "order"), "F\n")
        expect(os.getxattr(p.path("five.npy"), "user.npk.shape"), b"3,4,5,6,7")
        expect(err(os.stat, p.mount.control("bad.npy", "shape")), "ENOENT")
        expect(".npk" in os.listdir(p.mount.mnt), False)
        expect(sorted(os.listdir(p.path("train/.npk"))), ["ids.npy", "x.npy"])
        expect({"version", "health", "five.npy"} <= set(os.listdir(p.path(".npk"))), True)
        expect(p.mount.fact("health", "read_only"), "yes")
        expect(p.mount.fact("health", "note_count"), "0")
    with Packed(options=["controls=visible"]) as p:
        expect(".npk" in os.listdir(p.mount.mnt) and ".npk" in os.listdir(p.path("train")), True)


def name_rows(store):
    subprocess.run([NPK, "names", store + "/train/x.npy", "few=5:15", "all=0:20000"], check=True)


def read(path):
    """The bytes of a file, or the errno."""
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError as e:
        return e.errno


@test
def the_same_controls_as_a_store():
    """Every control of every array, rows as files, summaries and searches: as a mount of the store shows them."""
    with Packed(prepare=name_rows) as p, Mount("daemon", store=p.store) as s:
        for array in arrays_of(p.store):
            folder = os.path.dirname(p.mount.control(array, "x"))[len(p.mount.mnt):]
            expect(sorted(os.listdir(p.mount.mnt + folder)), sorted(os.listdir(s.mnt + folder)), array)
            for name in os.listdir(s.mnt + folder):
                ours, theirs = p.mount.mnt + folder + "/" + name, s.mnt + folder + "/" + name
                if os.path.isdir(theirs):
                    expect(sorted(os.listdir(ours)), sorted(os.listdir(theirs)), array + " " + name)
                elif name == "compact" and isinstance(read(theirs), bytes):  # its generation counts changes
                    expect(read(ours).split(b"\n")[:4], read(theirs).split(b"\n")[:4])
                elif name == "summary" and isinstance(read(theirs), bytes):  # the last digits are the order of adding
                    pairs = [(a.split(), b.split()) for a, b in zip(read(ours).splitlines(), read(theirs).splitlines())]
                    expect(all(a[0] == b[0] and np.isclose(float(a[1]), float(b[1]), 1e-9, 1e-9, True) for a, b in pairs)
                           and len(pairs) == 7, True, array + " summary")
                elif name != "last_error":
                    expect(read(ours), read(theirs), array + " " + name)
            for rows in ("0:3", "::50", "-2:", "3,1,-1", "no such", "1:99999999", "99999999"):
                path = folder + "/slices/%s.npy" % rows
                expect(read(p.mount.mnt + path), read(s.mnt + path), array + " " + rows)
        expect(sorted(os.listdir(p.path("train/.npk/x.npy/slices"))), ["all.npy", "few.npy"])
        expect(read(p.path("train/.npk/x.npy/names")), b"all\t0\t20000\nfew\t5\t15\n")
        few = np.load(p.path("train/.npk/x.npy/slices/few.npy"))
        expect((few == np.load(p.store + "/train/x.npy")[5:15]).all(), True)
        expect(os.path.getsize(p.path("train/.npk/x.npy/slices/few.npy")), 128 + few.nbytes)


@test
def the_same_searches_as_a_store():
    with Packed() as p, Mount("daemon", store=p.store) as s:
        want = np.load(p.store + "/train/x.npy")
        for mnt in (p.mount.mnt, s.mnt):
            folder = mnt + "/train/.npk/x.npy/search"
            np.save(folder + "/one.npy", want[77] + np.float32(0.01))
            np.save(folder + "/many.npy", want[5:9])
        for name in ("one.l2.5.npy", "one.cosine.3.tsv", "many.dot.4.npy", "many.l2sq.2.rows.npy", "one.wrong.3.npy",
                     "two.l2.3.npy"):
            ours, theirs = (read(m + "/train/.npk/x.npy/search/" + name) for m in (p.mount.mnt, s.mnt))
            expect(ours == theirs, True, "%s: %s, %s" % (name, ours, theirs))
        expect(int(np.load(p.path("train/.npk/x.npy/search/one.l2.5.npy"))["index"].ravel()[0]), 77)
        folder = p.path("train/.npk/x.npy/search")
        expect("one.npy" in os.listdir(folder) and "one.l2.5.npy" in os.listdir(folder), True)
        os.unlink(folder + "/one.npy")
        expect(err(open, folder + "/one.l2.5.npy"), "ENOENT")
        expect(sorted(n for n in os.listdir(folder) if n.startswith("one")), [])
        np.save(folder + "/wrong.npy", np.zeros(3, "f4"))
        expect(err(open, folder + "/wrong.l2.3.npy"), "EINVAL")
        expect("wrong.l2.3.npy" in read(p.mount.control("train/x.npy", "last_error")).decode(), True)
        expect(err(open, p.path("train/.npk/x.npy/slices/new.npy"), "wb"), "EROFS")
        expect(err(open, p.path("train/.npk/x.npy/new"), "wb"), "EROFS")


@test
def many_questions():
    """Nodes of files in folders come and go with what the kernel knows."""
    with Packed() as p:
        for i in range(3000):
            with open(p.path("train/.npk/x.npy/slices/%d.npy" % i), "rb") as f:
                f.read(16)
        expect((np.load(p.path("train/.npk/x.npy/slices/7.npy")) == np.load(p.store + "/train/x.npy")[7:8]).all(), True)
        if not os.environ.get("NPK_TEST_SANITIZER"): # AddressSanitizer keeps what was freed
            expect(p.mount.resident_kib() < 64 * 1024, True, "KiB resident: %d" % p.mount.resident_kib())
        expect(err(open, p.path("train/.npk/x.npy/slices/%s.npy" % ("1" * 300))), "ENAMETOOLONG")


def damage_middle_of_x(package):
    """One byte in a frame in the middle of train/x.npy."""
    out = subprocess.run([NPK, "check", package], capture_output=True, text=True).stdout
    expect(out, "", "an undamaged package")
    with open(package, "r+b") as f:
        data = f.read()
        end = data.index(b"NPKE")
        at = data.rindex(b"train/x.npy", 0, end) # its record, not a link to it
        at = at + (end - at) // 2
        f.seek(at)
        f.write(bytes([data[at] ^ 0x40]))


@test
def a_damaged_frame_costs_its_rows():
    with Packed(damage=damage_middle_of_x) as p:
        want = np.load(p.store + "/train/x.npy")
        x = p.path("train/x.npy")
        fd = os.open(x, os.O_RDONLY)
        lost = [row for row in range(0, 20000, 100) if err(os.pread, fd, 256, 128 + row * 256) == "EIO"]
        expect(1 <= len(lost) <= 8, True, "rows of one frame are lost: %s" % lost)
        for row in range(0, 20000, 100):
            if row not in lost:
                expect(os.pread(fd, 256, 128 + row * 256) == want[row].tobytes(), True, "row %d" % row)
        os.close(fd)
        expect("train/x.npy" in p.mount.fact("health", "note") and "damaged" in p.mount.fact("health", "note"), True)
        expect("damaged" in p.mount.fact("last_error"), True)
        found = subprocess.run([NPK, "check", p.package], capture_output=True, text=True)
        expect((found.returncode, found.stdout.split("\t")[:3]), (1, ["damage", "K8", "train/x.npy"]))
        expect((np.load(p.path("train/ids.npy")) == np.load(p.store + "/train/ids.npy")).all(), True)


@test
def a_damaged_stored_array_costs_its_rows():
    """The same of an array that is stored as it is, read by calls and through a mapping."""
    with Packed("--raw", "*", damage=damage_middle_of_x) as p:
        want = np.load(p.store + "/train/x.npy")
        fd = os.open(p.path("train/x.npy"), os.O_RDONLY)
        # The kernel asks for whole pages around what is wanted, so rows of the same pages may be lost with these.
        lost = [row for row in range(0, 20000, 50) if err(os.pread, fd, 256, 128 + row * 256) == "EIO"]
        os.close(fd)
        expect(1 <= len(lost) <= 16, True, "rows of one frame are lost: %s" % lost)
        mapped = np.load(p.path("train/x.npy"), mmap_mode="r")
        fine = [row for row in range(0, 20000, 50) if row < lost[0] - 1000 or row > lost[-1] + 1000]
        expect(len(fine) > 300 and (mapped[fine] == want[fine]).all(), True)
        note = p.mount.fact("health", "note")
        expect("train/x.npy" in note and "damaged" in note, True, note)
        del mapped


@test
def many_readers_at_once():
    with Packed("--frame", "16K", options=["cache=1M"]) as p:
        want = {n: np.load("%s/%s" % (p.store, n)) for n in ("train/x.npy", "train/ids.npy", "train/deep/noise.npy")}
        wrong = []

        def read(seed):
            r = np.random.default_rng(seed)
            for _ in range(12):
                name = list(want)[r.integers(len(want))]
                mapped = np.load(p.path(name), mmap_mode="r" if r.integers(2) else None)
                rows = r.integers(0, len(mapped), 200)
                if not (mapped[rows] == want[name][rows]).all():
                    wrong.append(name)
        threads = [threading.Thread(target=read, args=(i,)) for i in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        expect(wrong, [])


@test
def a_package_that_is_cut_while_mounted():
    """What is gone gives EIO, what is there reads right, and the daemon lives."""
    for options in ((), ("--raw", "*")):
        with Packed(*options) as p:
            want = {path: np.load(p.store + "/" + path) for path in arrays_of(p.store)}
            last = os.open(p.path("train/x.npy"), os.O_RDONLY)
            os.truncate(p.package, os.path.getsize(p.package) // 2)
            expect(err(os.pread, last, 4096, 4 << 20), "EIO", "of a file that was open")
            os.close(last)
            lost = 0
            for path, data in want.items():
                try:
                    expect(np.load(p.path(path)).tobytes() == data.tobytes(), True, path)
                except OSError as e:
                    expect(e.errno, errno.EIO, path)
                    lost += 1
            expect(0 < lost < len(want), True, "%d of %d arrays lost" % (lost, len(want)))
            expect(p.mount.fact("health", "status"), "notes")


@test
def the_cache_keeps_its_cap():
    """Eight readers that want much more than the cap: what is kept stays below it, and so does the daemon's memory."""
    with Packed("--frame", "64K", options=["cache=2M"]) as p:
        want = {n: np.load("%s/%s" % (p.store, n)) for n in ("train/x.npy", "train/ids.npy", "train/deep/noise.npy")}
        wrong, most, memory = [], [], []
        np.load(p.path("train/x.npy"))
        before = p.mount.resident_kib()

        def read(seed):
            r = np.random.default_rng(seed)
            for i in range(10):
                name = list(want)[(seed + i) % len(want)]
                if i % 2:
                    same = (np.load(p.path(name)) == want[name]).all()
                else:
                    rows = r.integers(0, len(want[name]), 200)
                    same = (np.load(p.path(name), mmap_mode="r")[rows] == want[name][rows]).all()
                if not same:
                    wrong.append(name)
                most.append(int(p.mount.fact("stats", "frame_bytes_kept")))
                memory.append(p.mount.resident_kib())
        threads = [threading.Thread(target=read, args=(i,)) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        expect((wrong, len(most)), ([], 80))
        # Beyond the cap there is what is being used at one moment: 17 frames of 64K for each of 16 threads at the most.
        expect(max(most) <= (2 << 20) + 16 * 17 * 65536, True, "%d bytes of frames" % max(most))
        with open("/proc/%d/status" % p.mount.pid) as f:
            sanitized = int(f.read().split("VmSize:")[1].split()[0]) > 1 << 30 # AddressSanitizer keeps what is freed
        expect(sanitized or max(memory) - before < 48 << 10, True, "KiB more resident: %d" % (max(memory) - before))
        expect(int(p.mount.fact("stats", "frame_bytes_kept")) <= 2 << 20, True, "when nobody reads")
        expect(int(p.mount.fact("stats", "frames_decoded")) > 100, True, "frames decoded")


@test
def the_command_line_inside():
    with Packed() as p:
        out = subprocess.run([NPK, "ls", p.mount.mnt], capture_output=True, text=True)
        same = subprocess.run([NPK, "ls", p.package], capture_output=True, text=True)
        expect(out.returncode, 0, out.stderr)
        expect(out.stdout, same.stdout)
        out = subprocess.run([NPK, "get", p.path("train/ids.npy"), "5"], capture_output=True, text=True)
        expect(int(out.stdout), int(np.load(p.store + "/train/ids.npy")[5]))


@test
def what_is_no_package():
    d = tempfile.mkdtemp(prefix="npkfs.", dir=mountlib.temp_base())
    try:
        os.mkdir(d + "/m")
        for content in (b"", b"NPKG" + b"\0" * 100, b"\x93NPKPKG\n" + b"\0" * 100):
            with open(d + "/x.npkg", "wb") as f:
                f.write(content)
            done = subprocess.run([mountlib.NPKFS, d + "/x.npkg", d + "/m"], capture_output=True, text=True)
            expect(done.returncode, 1)
            expect("x.npkg" in done.stderr, True, done.stderr)
    finally:
        shutil.rmtree(d)


@test
def many_arrays():
    """Memory and descriptors stay small whatever is listed."""
    d = tempfile.mkdtemp(prefix="npkfs.", dir="/dev/shm")
    try:
        os.makedirs(d + "/s/group")
        header = np.lib.format.magic(1, 0)
        np.save(d + "/one.npy", np.arange(4, dtype="f4"))
        with open(d + "/one.npy", "rb") as f:
            one = f.read()
        expect(one[:8], header)
        for i in range(20000):
            with open("%s/s/group/%06d.npy" % (d, i), "wb") as f:
                f.write(one)
        subprocess.run([NPK, "pack", d + "/s", d + "/x.npkg"], check=True)
        with Mount("daemon", store=d + "/x.npkg") as m:
            expect(len(os.listdir(m.path("group"))), 20000)
            expect(np.load(m.path("group/012345.npy")).tolist(), [0, 1, 2, 3])
            expect(m.resident_kib() < 64 * 1024, True, "KiB resident: %d" % m.resident_kib())
            expect(m.fd_count() < 30, True, "descriptors")
    finally:
        shutil.rmtree(d)


def main():
    try:
        mountlib.need_mounts()
    except Skip as e:
        print("skipped: %s" % e)
        return 77
    report = Report("package")
    for fn in chosen(sys.argv[1:]):
        start = time.monotonic()
        report.add(fn.__name__, in_child(fn), time.monotonic() - start)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
