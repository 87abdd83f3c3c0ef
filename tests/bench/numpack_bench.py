#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rows of 1M x 10 float32 through libnpk (by ctypes, which costs it 1 to 2 us a call) against NumPack in the same process:
turn by turn, medians, ratio ours/NumPack (below 1: ours is faster). Both have the store open; ours takes the array's lock
and opens its file in every call that changes it, so that others may do the same.

    NPK_LIB=build/lib/libnpk.so NPKFS_BIN=build/bin/npkfs tests/bench/numpack_bench.py [--dir DIR ...] [--repeats N] [WORD ...]

WORD: gather, replace, append, drop, more, open, map. NumPack comes from PyPI (pip install numpack); from 0.5 on its wheels take
glibc 2.38, so on Debian 12 it is numpack==0.4.5. Without it the script ends with 77."""
import argparse
import contextlib
import ctypes
import io
import os
import pathlib
import platform
import shutil
import sys
import tempfile

import numpy as np

from batch_bench import check, compare, lib, pointer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "fs"))
from mountlib import Mount  # noqa: E402

try:
    import numpack
except ImportError as e:
    print("skipped: NumPack cannot be loaded here (%s)" % e)
    sys.exit(77)

ROWS, COLUMNS = 1_000_000, 10
U64, SIZE = ctypes.c_uint64, ctypes.c_size_t
ANY = U64(2**64 - 1)
lib.npk_array_close.restype = lib.npk_rows_clear.restype = lib.npk_info_clear.restype = None
random = np.random.default_rng(5)


class Rows(ctypes.Structure):
    _fields_ = [("runs", ctypes.c_void_p), ("run_count", SIZE), ("run_capacity", SIZE), ("row_count", U64)]


class Pair:
    """The same array in a store of each."""

    def __init__(self, where):
        self.base = tempfile.mkdtemp(prefix="numpack-bench.", dir=where)
        self.ours = os.path.join(self.base, "ours")
        os.mkdir(self.ours)
        data = random.random((ROWS, COLUMNS), "f4")
        np.save(os.path.join(self.ours, "x.npy"), data)
        self.store = ctypes.c_void_p()
        check(lib.npk_store_open(self.ours.encode(), 0, ctypes.byref(self.store)))
        self.theirs = numpack.NumPack(os.path.join(self.base, "theirs"), drop_if_exists=True)
        self.theirs.open()
        self.theirs.save({"x": data})
        self.left = ROWS

    def __enter__(self):
        return self

    def __exit__(self, *_):
        lib.npk_store_close(ctypes.byref(self.store))
        self.theirs.close()
        shutil.rmtree(self.base)


def gather(p, repeats, table):
    a = ctypes.c_void_p()
    check(lib.npk_array_open(p.store, b"x", ctypes.byref(a)))
    mapped = np.load(os.path.join(p.ours, "x.npy"), mmap_mode="r")
    lib.npk_read_rows.argtypes = [ctypes.c_void_p, ctypes.c_void_p, SIZE, ctypes.c_void_p]
    for count in (100, 10_000):
        index, out = random.integers(0, ROWS, count), np.empty((count, COLUMNS), "f4")

        def ours():
            check(lib.npk_read_rows(a, index.ctypes.data, count, out.ctypes.data))

        for other, work in (("NumPack", lambda: p.theirs.getitem("x", index)), ("numpy memmap", lambda: mapped[index])):
            table.append((f"gather {count} rows / {other}", *compare(ours, work, repeats * 5)))
    lib.npk_array_close(ctypes.byref(a))


def replace(p, repeats, table):
    for count in (1, 100):
        new, at = random.random((count, COLUMNS), "f4"), ROWS // 2

        def ours():
            check(lib.npk_replace_range(p.store, b"x", U64(at), U64(count), pointer(new)))

        table.append((f"replace {count} contiguous / NumPack",
                      *compare(ours, lambda: p.theirs.replace({"x": new}, slice(at, at + count)), repeats * 5)))


def append(p, repeats, table):
    for count in (1, 100, 1000):
        new = random.random((count, COLUMNS), "f4")

        def ours():
            check(lib.npk_append(p.store, b"x", pointer(new), U64(count), None))

        table.append((f"append {count} / NumPack", *compare(ours, lambda: p.theirs.append({"x": new}), repeats * 5)))


def drop(p, repeats, table):
    """Of an array that nothing was deleted from before: it is made anew for each turn."""
    data = np.load(os.path.join(p.ours, "x.npy"))
    for count in (1, 100, 10_000):
        chosen = [None]

        def renew(side):
            chosen[0] = random.choice(ROWS, count, replace=False)
            if side == 0:
                check(lib.npk_remove(p.store, b"x"))
                np.save(os.path.join(p.ours, "x.npy"), data)
            else:
                p.theirs.drop("x")
                p.theirs.save({"x": data})

        def ours():
            check_drop(p, chosen[0])

        table.append((f"drop {count} of 1M / NumPack",
                      *compare(ours, lambda: p.theirs.drop("x", chosen[0]), repeats, renew)))


def drop_more(p, repeats, table):
    """Of an array that lost rows before."""
    check_drop(p, [5])
    p.theirs.drop("x", [5])
    left = [ROWS - 1, ROWS - 1]
    for count in (1, 100):
        def work(side):
            index = np.arange(count) * 1000 + 7
            if side == 0:
                check_drop(p, index, left[0])
            else:
                p.theirs.drop("x", index)
            left[side] -= count

        table.append((f"drop {count} more of 1M / NumPack", *compare(lambda: work(0), lambda: work(1), repeats)))


def check_drop(p, index, left=ROWS):
    index, rows = np.asarray(index, "i8"), Rows()
    check(lib.npk_rows_from_indices(pointer(index), SIZE(len(index)), U64(left), ctypes.byref(rows)))
    check(lib.npk_drop_rows(p.store, b"x", ctypes.byref(rows), ANY, None))
    lib.npk_rows_clear(ctypes.byref(rows))


def open_lazily(p, repeats, table):
    """Store, array and shape, in a store of 10 000."""
    many = os.path.join(p.base, "many")
    os.mkdir(many)
    other = numpack.NumPack(os.path.join(p.base, "many.npk"), drop_if_exists=True)
    other.open()
    small = np.zeros((4, 4), "f4")
    for first in range(0, 10_000, 1000):
        other.save({"a%d" % i: small for i in range(first, first + 1000)})
    for i in range(10_000):
        np.save(os.path.join(many, "a%d.npy" % i), small)
    other.close()

    def ours():
        store, a = ctypes.c_void_p(), ctypes.c_void_p()
        check(lib.npk_store_open(many.encode(), 0, ctypes.byref(store)))
        check(lib.npk_array_open(store, b"a7777", ctypes.byref(a)))
        lib.npk_array_close(ctypes.byref(a))
        lib.npk_store_close(ctypes.byref(store))

    def theirs():
        with numpack.NumPack(os.path.join(p.base, "many.npk")) as n:
            return n.load("a7777", lazy=True).shape

    def theirs_open(n=[]):
        if not n:
            n.append(numpack.NumPack(os.path.join(p.base, "many.npk")))
            n[0].open()
        return n[0].load("a7777", lazy=True).shape

    table.append(("open a store of 10 000, one array lazily / NumPack", *compare(ours, theirs, repeats)))
    store = ctypes.c_void_p()
    check(lib.npk_store_open(many.encode(), 0, ctypes.byref(store)))

    def ours_open():
        a = ctypes.c_void_p()
        check(lib.npk_array_open(store, b"a7777", ctypes.byref(a)))
        lib.npk_array_close(ctypes.byref(a))

    table.append(("one array lazily, the store is open / NumPack", *compare(ours_open, theirs_open, repeats * 5)))
    lib.npk_store_close(ctypes.byref(store))


def edit_mapped(p, repeats, table):
    """100 times: load, add to 10 rows, store. Ours are numpy's shared mappings of the file on the mount."""
    with Mount("passthrough", store=p.ours) as m:
        def by_mount(load_each):
            for i in range(100):
                if load_each or i == 0:
                    mapped = np.load(m.path("x.npy"), mmap_mode="r+")
                    a = mapped.view(np.ndarray)  # NumPack gives a plain one, too
                a[i * 10:i * 10 + 10] += 1
            mapped.flush()

        def theirs():
            with p.theirs.writable_batch_mode() as w:
                for i in range(100):
                    a = w.load("x")
                    a[i * 10:i * 10 + 10] += 1
                    w.save({"x": a})

        table.append(("100 x edit 10 rows of one mapping on the mount / NumPack writable_batch_mode",
                      *compare(lambda: by_mount(False), theirs, repeats)))
        table.append(("100 x (np.load mmap r+, edit 10 rows) on the mount / NumPack writable_batch_mode",
                      *compare(lambda: by_mount(True), theirs, repeats)))


WORK = {"gather": gather, "replace": replace, "append": append, "drop": drop, "more": drop_more, "open": open_lazily, "map": edit_mapped}


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--dir", nargs="*", default=["/dev/shm", "/var/tmp"])
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("word", nargs="*")
    args = options.parse_args()
    print(f"# {platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, numpy {np.__version__}, NumPack "
          f"{numpack.__version__}, {args.repeats} repeats", file=sys.stderr)
    print("directory\twork / against\tours_us\tother_us\tratio")
    for where in args.dir:
        for word in args.word or WORK:
            table = []
            with Pair(where) as p, contextlib.redirect_stdout(io.StringIO()):
                WORK[word](p, args.repeats, table)
            for name, a, b in table:
                print(f"{where}\t{name}\t{a:.1f}\t{b:.1f}\t{a / b:.3f}", flush=True)


if __name__ == "__main__":
    main()
