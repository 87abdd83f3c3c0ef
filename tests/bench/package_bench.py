#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reading through the mount of a package, against decoding the same frames in memory and against the native file.

    tests/bench/package_bench.py [--dir DIR] [--size MIB] [--repeats N] [--only TEXT]

NPKFS_BIN, NPK_BIN and NPK_LIB name the programs and libnpk.so (default: the tree's build). TSV: array, work, ours, other,
ratio, bar, what the other is; times are medians of interleaved repeats in milliseconds, so that a ratio below 1 means faster.
The mount is a new one in each repeat; `decoding` is the library on as many threads as there are cores, into new memory
as np.load's is, from the package in the page cache."""
import argparse
import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(HERE, "../../build")
NPKFS = os.environ.get("NPKFS_BIN", BUILD + "/bin/npkfs")
NPK = os.environ.get("NPK_BIN", BUILD + "/bin/npk")
LIB = os.environ.get("NPK_LIB", BUILD + "/lib/libnpk.so")
BLOCK = 1 << 20
CORES = len(os.sched_getaffinity(0))


def arrays(mib):
    """Name, array and whether it is stored as it is."""
    r = np.random.default_rng(5)
    rows = mib * 2048
    yield "f32_normal", r.standard_normal((rows, 128), dtype=np.float32), False
    zipf = r.zipf(1.2, rows * 220)
    yield "i32_tokens", zipf[zipf < 50_000][:rows * 128].astype(np.int32).reshape(-1, 128), False
    y, x = np.mgrid[0:1024, 0:1024]
    image = 128 + 60 * np.sin(x / 40) + 50 * np.cos(y / 60)
    noise = r.normal(0, 8, (16, 1024, 1024))
    yield "u8_images", np.stack([np.clip(image + noise[i % 16] + i % 7, 0, 255).astype(np.uint8) for i in range(mib)]), False
    yield "raw", r.standard_normal((rows, 128), dtype=np.float32), True


class Library:
    """As much of npk.h as decodes an array."""

    def __init__(self, package, path):
        self.lib = ctypes.CDLL(LIB)
        self.lib.npk_package_file_read.restype = ctypes.c_ssize_t
        self.lib.npk_package_file_read.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t]
        self.package, self.file = ctypes.c_void_p(), ctypes.c_void_p()
        entry = ctypes.c_uint64()
        self.check(self.lib.npk_package_open(package.encode(), ctypes.byref(self.package)))
        self.check(self.lib.npk_package_find(self.package, path.encode(), ctypes.c_size_t(len(path)), ctypes.byref(entry)))
        self.check(self.lib.npk_package_file_open(self.package, entry, ctypes.byref(self.file)))

    def check(self, err):
        if err:
            raise OSError(-err, os.strerror(-err))

    def close(self):
        self.lib.npk_package_file_close(ctypes.byref(self.file))
        self.lib.npk_package_close(ctypes.byref(self.package))

    def read(self, offset, address, count):
        if self.lib.npk_package_file_read(self.file, offset, address, count) != count:
            raise OSError("short read")

    def decode(self, head, out):
        """The data behind the head into out, block after block, on all cores."""
        blocks = iter(range(0, out.nbytes, BLOCK))
        lock = threading.Lock()

        def work():
            while True:
                with lock:
                    at = next(blocks, None)
                if at is None:
                    return
                self.read(head + at, out.ctypes.data + at, min(BLOCK, out.nbytes - at))
        threads = [threading.Thread(target=work) for _ in range(CORES)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()


class Times:
    def __init__(self):
        self.ms = {}

    def __call__(self, key, action):
        begin = time.perf_counter()
        result = action()
        self.ms.setdefault(key, []).append((time.perf_counter() - begin) * 1e3)
        return result

    def median(self, key):
        return statistics.median(self.ms[key])


class Mount:
    def __init__(self, package, at):
        self.at = at
        subprocess.run([NPKFS, package, at], check=True)

    def __enter__(self):
        return self.at

    def __exit__(self, *_):
        for _ in range(200):
            if subprocess.run(["umount", self.at], stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.02)


def print_row(name, work, t, ours, other, bar, what):
    a, b = t.median(ours), t.median(other)
    print("%s\t%s\t%.3f\t%.3f\t%.3f\t%s\t%s" % (name, work, a, b, a / b, bar, what), flush=True)


def random_rows(t, key, path, array, count):
    rows = np.random.default_rng(count).integers(0, len(array), count)
    mapped = np.load(path, mmap_mode="r")
    if (t(key, lambda: mapped[rows]) != array[rows]).any():
        sys.exit("wrong rows")


def pread_rows(t, key, fd, head, array, rows):
    """Rows one by one, by whoever calls pread; the time of one."""
    width = array[0].nbytes

    def work():
        for row in rows:
            os.pread(fd, width, head + row * width)
    t(key, work)
    t.ms[key][-1] /= len(rows)


def compare(name, array, raw, top, repeats):
    store, package, mnt = top + "/store", top + "/x.npkg", top + "/mnt"
    for d in (store, mnt):
        os.makedirs(d, exist_ok=True)
    native = store + "/x.npy"
    np.save(native, array)
    if os.path.exists(package):
        os.unlink(package)
    subprocess.run([NPK, "pack", store, package] + (["--raw", "*"] if raw else []), check=True)
    head = os.path.getsize(native) - array.nbytes
    t, path = Times(), mnt + "/x.npy"
    lone = np.random.default_rng(9).choice(len(array), min(200, len(array)), replace=False).tolist()
    for _ in range(repeats):
        np.load(native)
        t("native load", lambda: np.load(native))
        lib = Library(package, "x.npy")
        t("decode", lambda: lib.decode(head, np.empty_like(array)))
        lib.close()
        with Mount(package, mnt):
            got = t("load 1", lambda: np.load(path))
            if (got[::97] != array[::97]).any():
                sys.exit("wrong data")
            del got
            for again in ("load 2", "load 3"):
                t(again, lambda: np.load(path))
        with Mount(package, mnt):
            mapped = np.load(path, mmap_mode="r")
            flat = mapped.reshape(-1).view(np.uint8)[:mapped.nbytes // 8 * 8].view(np.uint64)
            t("map 1", flat.sum)
            t("map 2", flat.sum)
            del flat, mapped
        there = np.load(native, mmap_mode="r").reshape(-1).view(np.uint8)[:array.nbytes // 8 * 8].view(np.uint64)
        there.sum()
        t("native map", there.sum)
        del there
        with Mount(package, mnt):
            fd = os.open(path, os.O_RDONLY)
            pread_rows(t, "row", fd, head, array, lone)
            os.close(fd)
        lib = Library(package, "x.npy")
        frame = np.empty(BLOCK, np.uint8)
        width = array[0].nbytes

        def one_by_one():
            for row in lone:
                lib.read(head + row * width, frame.ctypes.data, width)
        t("library row", one_by_one)
        t.ms["library row"][-1] /= len(lone)
        lib.close()
        with Mount(package, mnt):
            random_rows(t, "rows", path, array, 10_000)
        random_rows(t, "native rows", native, array, 10_000)
    if not raw:
        print_row(name, "np.load, first", t, "load 1", "decode", "1.11", "decoding")
        print_row(name, "map + sum, first", t, "map 1", "decode", "", "decoding")
        print_row(name, "one random row, cold", t, "row", "library row", "1.3", "decoding its frame")
    print_row(name, "np.load, first", t, "load 1", "native load", "1.5" if raw else "", "native")
    print_row(name, "np.load, second", t, "load 2", "native load", "1.5" if raw else "", "native")
    print_row(name, "np.load, third", t, "load 3", "native load", "1.5" if raw else "", "native")
    print_row(name, "map + sum, first", t, "map 1", "native map", "", "native")
    print_row(name, "map + sum, again", t, "map 2", "native map", "1.5", "native")
    print_row(name, "10 000 random rows, memmap", t, "rows", "native rows", "", "native")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--dir", default="/dev/shm")
    p.add_argument("--size", type=int, default=256)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--only", default="")
    a = p.parse_args()
    print("array\twork\tours\tother\tratio\tbar\twhat", flush=True)
    for name, array, raw in arrays(a.size):
        if a.only in name:
            top = tempfile.mkdtemp(prefix="npkfs-bench.", dir=a.dir)
            try:
                compare(name, array, raw, top, a.repeats)
            finally:
                shutil.rmtree(top)


if __name__ == "__main__":
    main()
