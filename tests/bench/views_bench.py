#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An array of 512-byte rows with 10 % of them deleted, against a native file of the rows that are left; npk summary against
reading the same bytes. Interleaved; ratios of medians (ours / native). TSV: what, ours_s, native_s, ratio.

Usage: views_bench.py [MIB] [REPEATS]      Environment: NPKFS_BIN, NPK_BIN, NPK_TEST_DIR"""
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


def seconds(work, *args):
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def report(what, ours, native):
    a, b = statistics.median(ours), statistics.median(native)
    print("%s\t%.4f\t%.4f\t%.2f" % (what, a, b, a / b), flush=True)


def main():
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    rows = mib << 11
    random = np.random.default_rng(1)
    print("what\tours_s\tnative_s\tratio")
    with Mount("passthrough") as m:
        array, live = random.random((rows, 128), dtype="f4"), random.random(rows) >= 0.1
        native = os.path.join(m.own, "native.npy")
        np.save(m.below("x.npy"), array)
        np.save(native, array[live])
        np.save(os.path.join(m.own, "dead.npy"), np.flatnonzero(~live))
        del array
        view = m.path("x.npy")
        subprocess.run([NPK, "drop", view, os.path.join(m.own, "dead.npy")], check=True)
        read_all(m.below("x.npy"))
        read_all(native)
        report("read_first", [seconds(read_all, view)], [seconds(read_all, native)])
        for what, work in (("read_again", read_all), ("np.load", np.load)):
            pairs = [(seconds(work, view), seconds(work, native)) for _ in range(repeats)]
            report(what, *zip(*pairs))

        def summary(path):
            subprocess.run([NPK, "summary", path], check=True, stdout=subprocess.DEVNULL)
        for what, path in (("summary", native), ("summary_view", m.below("x.npy"))):
            pairs = [(seconds(summary, path), seconds(read_all, native)) for _ in range(repeats)]
            report(what, *zip(*pairs))


if __name__ == "__main__":
    main()
