#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""npk cast against numpy's astype of the same array, saved, synced and renamed over it. Interleaved; medians; ratio ours / numpy.
TSV: from, to, ours_s, numpy_s, ratio.

Usage: cast_bench.py [MIB] [REPEATS]      Environment: NPK_BIN, NPK_TEST_DIR"""
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

NPK = os.environ.get("NPK_BIN", "npk")
PAIRS = (("float32", "float16"), ("float32", "float64"), ("float64", "float32"), ("int64", "int32"), ("float32", "uint8"))


def seconds(work, *args):
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def ours(path, to):
    subprocess.run([NPK, "cast", path, to], check=True)


def numpys(path, out, to):
    a = np.load(path, mmap_mode="r")
    with open(out, "wb") as f:
        np.save(f, a.astype(to))
        f.flush()
        os.fsync(f.fileno())
    os.replace(out, path)


def main():
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 512
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print("from\tto\tours_s\tnumpy_s\tratio")
    with tempfile.TemporaryDirectory(prefix="npk-cast.", dir=os.environ.get("NPK_TEST_DIR")) as d:
        source, copy, out = (os.path.join(d, n) for n in ("source.npy", "copy.npy", "out.npy"))
        for dtype, to in PAIRS:
            columns = 512 // np.dtype(dtype).itemsize
            a = (np.random.default_rng(1).random((1 << 11, columns)) * 200).astype(dtype)
            np.save(source, np.tile(a, (mib, 1)))
            times = []
            for _ in range(repeats):
                shutil.copy(source, copy)
                first = seconds(ours, copy, to)
                shutil.copy(source, copy)
                times.append((first, seconds(numpys, copy, out, to)))
            x, y = (statistics.median(t) for t in zip(*times))
            print("%s\t%s\t%.4f\t%.4f\t%.2f" % (dtype, to, x, y, x / y), flush=True)


if __name__ == "__main__":
    main()
