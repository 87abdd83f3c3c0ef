#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times replacing rows and committing batches through libnpk against the same work by numpy and by system calls: turn by
turn in one run, medians of the repeats, ratio ours/other (below 1: ours is faster).

    NPK_LIB=build/lib/libnpk.so tests/bench/batch_bench.py [--dir DIR ...] [--repeats N] [--rows N] [--tsv FILE]

"kept mapping" is a numpy memmap that stays open over all repeats; "own mapping" is opened, assigned to and closed in each
one, as ours opens and closes the array in each call. A batch is 10 arrays of 1 MB each that replace existing ones; the native
side writes, fsyncs and renames 10 files and syncs their directory."""
import argparse
import ctypes
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time

import numpy as np

lib = ctypes.CDLL(os.environ["NPK_LIB"])
lib.npk_error.restype = ctypes.c_char_p
lib.npk_batch_close.restype = lib.npk_store_close.restype = None


class ArrayIn(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("dtype", ctypes.c_char_p), ("shape", ctypes.c_void_p),
                ("ndim", ctypes.c_uint32), ("data", ctypes.c_void_p)]


def check(code):
    if code != 0:
        sys.exit(f"libnpk: {lib.npk_error().decode()}")


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def timed(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def compare(ours, other, repeats, before=None):
    """Medians in microseconds; the first turn of each warms up. before(side) is not timed."""
    times = [[], []]
    for turn in range(repeats + 1):
        for side in ((0, 1) if turn % 2 else (1, 0)):
            if before:
                before(side)
            t = timed((ours, other)[side])
            if turn:
                times[side].append(t * 1e6)
    return [statistics.median(t) for t in times]


def replace_rows(base, store, rows, repeats, table):
    path = os.path.join(base, "x.npy")
    np.save(path, np.zeros((rows, 10), "f4"))
    native = os.path.join(base, "n.npy")
    np.save(native, np.zeros((rows, 10), "f4"))  # made by the same calls: how a page cache is laid out decides much
    random = np.random.default_rng(1)
    kept = np.load(native, mmap_mode="r+")
    for count, how in ((1, "contiguous"), (100, "contiguous"), (100, "scattered"), (10_000, "scattered")):
        new = random.random((count, 10), "f4")
        index = (np.arange(count, dtype="i8") + rows // 2) if how == "contiguous" else random.integers(0, rows, count)

        def ours():
            if how == "contiguous":
                check(lib.npk_replace_range(store, b"x", ctypes.c_uint64(rows // 2), ctypes.c_uint64(count), pointer(new)))
            else:
                check(lib.npk_replace_rows(store, b"x", pointer(index), ctypes.c_size_t(count), pointer(new)))

        def to_kept():
            kept[index] = new

        def to_own():
            m = np.load(native, mmap_mode="r+")
            m[index] = new
            del m

        for name, other in (("kept mapping", to_kept), ("own mapping", to_own)):
            table.append((f"replace {count} {how} / numpy, {name}", *compare(ours, other, repeats)))


def commit_batch(base, store, repeats, table):
    data = np.random.default_rng(2).random((1000, 250), "f4")  # 1 MB
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000, 250), }".ljust(117) + b"\n"
    shape = (ctypes.c_uint64 * 2)(1000, 250)
    arrays = (ArrayIn * 10)(*[ArrayIn(b"b%d" % i, b"float32", ctypes.cast(shape, ctypes.c_void_p), 2, data.ctypes.data)
                              for i in range(10)])
    native = os.path.join(base, "native")
    os.mkdir(native)

    def ours():
        batch = ctypes.c_void_p()
        check(lib.npk_batch_begin(store, None, 0, ctypes.byref(batch)))
        check(lib.npk_batch_save(batch, arrays, ctypes.c_size_t(10)))
        check(lib.npk_batch_commit(ctypes.byref(batch)))

    def other():
        for i in range(10):
            path = os.path.join(native, f"b{i}.npy")
            fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.write(fd, header)
            os.write(fd, data)
            os.fsync(fd)
            os.close(fd)
            os.rename(path + ".new", path)

    table.append(("batch of 10 x 1 MB, committed / 10 x write, fsync, rename", *compare(ours, other, repeats)))


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--dir", nargs="*", default=["/dev/shm", "/var/tmp"])
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--tsv")
    args = options.parse_args()
    lines = ["directory\twork / against\tours_us\tother_us\tratio"]
    for where in args.dir:
        base = tempfile.mkdtemp(prefix="npk-bench.", dir=where)
        store = ctypes.c_void_p()
        check(lib.npk_store_open(base.encode(), 0, ctypes.byref(store)))
        table = []
        try:
            replace_rows(base, store, args.rows, args.repeats, table)
            commit_batch(base, store, args.repeats, table)
        finally:
            lib.npk_store_close(ctypes.byref(store))
            shutil.rmtree(base)
        lines += [f"{where}\t{name}\t{a:.1f}\t{b:.1f}\t{a / b:.2f}" for name, a, b in table]
    print(f"# {platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, numpy {np.__version__}, "
          f"{args.repeats} repeats", file=sys.stderr)
    print("\n".join(lines))
    if args.tsv:
        with open(args.tsv, "w") as f:
            f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
