#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An array of 512-byte rows with 10 % of them deleted, against a native file of the rows that are left; npk summary against
reading the same bytes. Interleaved; ratios of medians (ours / native). TSV: what, ours_s, native_s, ratio.

Usage: views_bench.py [--mib MIB] [--repeats N] [--mode passthrough|daemon] [--row BYTES] [--deleted PERCENT] [WORD ...]
WORD: read, load, map, summary; all of them without. Environment: NPKFS_BIN, NPK_BIN, NPK_TEST_DIR

"first": the mount is new, so nothing of the view is in the kernel's page cache (the store's files are); "again": a second
time on the same mount, "same mapping": a second time through the same np.memmap."""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "fs"))
from mountlib import NPK, Mount  # noqa: E402


def read_all(path):
    fd, buffer = os.open(path, os.O_RDONLY), bytearray(1 << 20)
    while os.readv(fd, [buffer]):
        pass
    os.close(fd)


def map_and_sum(path):
    np.load(path, mmap_mode="r").sum(dtype="f4")


def seconds(work, *args):
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def report(what, pairs):
    a, b = (statistics.median(side) for side in zip(*pairs))
    print("%s\t%.4f\t%.4f\t%.2f" % (what, a, b, a / b), flush=True)


def make(m, mib, row, percent):
    rows, columns = (mib << 20) // row, row // 4
    random = np.random.default_rng(1)
    live = random.random(rows) >= percent / 100
    native = os.path.join(m.own, "native.npy")
    data = random.random((min(rows, (64 << 20) // row), columns), dtype="f4")
    # Both by write(): page caches of files that were made through mappings are laid out in smaller pages.
    with open(m.below("x.npy"), "wb") as whole, open(native, "wb") as left:
        for f, count in ((whole, rows), (left, int(live.sum()))):
            np.lib.format.write_array_header_1_0(f, {"descr": "<f4", "fortran_order": False, "shape": (count, columns)})
        for at in range(0, rows, len(data)):
            part = data[:rows - at]
            whole.write(part)
            left.write(part[live[at:at + len(part)]])
    np.save(os.path.join(m.own, "dead.npy"), np.flatnonzero(~live))
    subprocess.run([NPK, "drop", m.below("x.npy"), os.path.join(m.own, "dead.npy")], check=True)
    read_all(m.below("x.npy"))
    read_all(native)
    return native


def first_and_again(m, what, work, native, repeats):
    first, again = [], []
    for _ in range(repeats):
        m.remount()
        for pairs in (first, again):
            pairs.append((seconds(work, m.path("x.npy")), seconds(work, native)))
    report(what + ", first", first)
    report(what + ", again", again)


def same_mapping(m, native, repeats):
    pairs = []
    for _ in range(repeats):
        m.remount()
        maps = [np.load(path, mmap_mode="r") for path in (m.path("x.npy"), native)]
        for each in maps:
            each.sum(dtype="f4")
        pairs.append([seconds(each.sum, None, "f4") for each in maps])
        del maps, each
    report("map and sum, same mapping", pairs)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--mib", type=int, default=1024)
    options.add_argument("--row", type=int, default=512)
    options.add_argument("--deleted", type=float, default=10)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--mode", default="passthrough")
    options.add_argument("word", nargs="*")
    args = options.parse_args()
    words = args.word or ["read", "load", "map", "summary"]
    print("what\tours_s\tnative_s\tratio")
    with Mount(args.mode) as m:
        native = make(m, args.mib, args.row, args.deleted)
        for word, what, work in (("read", "read()", read_all), ("load", "np.load", np.load), ("map", "map and sum", map_and_sum)):
            if word in words:
                first_and_again(m, what, work, native, args.repeats)
        if "map" in words:
            same_mapping(m, native, args.repeats)

        def summary(path):
            subprocess.run([NPK, "summary", path], check=True, stdout=subprocess.DEVNULL)
        for what, path in (("summary", native), ("summary of the view", m.below("x.npy"))):
            if "summary" in words:
                report(what, [(seconds(summary, path), seconds(read_all, native)) for _ in range(args.repeats)])


if __name__ == "__main__":
    main()
