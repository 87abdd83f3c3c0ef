#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""npk cast makes of an array what numpy's astype makes of it: the 14 dtypes among each other, in both byte orders, with
the values that each pair of types holds, and some that no integer does where numpy says what becomes of them.

Usage: cast.py NPK [SEED]"""
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("skipped: no numpy")
    sys.exit(77)

DTYPES = [np.dtype(c) for c in "bool i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16".split()]
COUNT = 1500


def source(dtype, random):
    """Values of a dtype: every size, its extremes, and for floats the edges of the others."""
    if dtype.kind == "b":
        return random.random(COUNT) < 0.5
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        shift = random.integers(0, dtype.itemsize * 8, COUNT)
        a = (np.frombuffer(random.bytes(COUNT * dtype.itemsize), dtype) >> shift.astype(dtype)).copy()
        a[:4] = info.min, info.max, 0, 1
        return a
    if dtype.kind == "c":
        part = np.dtype("f%d" % (dtype.itemsize // 2))
        a = np.empty(COUNT, dtype)
        a.real, a.imag = source(part, random), source(part, random)
        return a
    a = random.standard_normal(COUNT) * 10.0 ** random.integers(-9, 19, COUNT)
    a[:300] = np.ldexp(2048.0 + random.integers(0, 2048, 300), random.integers(-36, 4, 300))  # halves and their ties
    a[100:200] *= 1 + 2.0 ** -50
    a[200:300] *= 1 - 2.0 ** -50
    a[300:312] = 0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.99999, 65520, 2.0 ** -25, 2.0 ** -24, 1e-310, 3.4028235677973366e38
    return a.astype(dtype)


def fitting(a, to):
    """Without what numpy leaves to the processor."""
    if to.kind not in "iu" or a.dtype.kind not in "fc":
        return a
    info = np.iinfo(to)
    real = a.real.astype("f8")
    return a[np.isfinite(real) & (np.trunc(real) >= info.min) & (np.trunc(real) < float(info.max) + (info.max < 2 ** 53))]


def same(a, b):
    """Equal to the bit, but for what is in a NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "c":
        return same(a.real.copy(), b.real.copy()) and same(a.imag.copy(), b.imag.copy())
    if a.dtype.kind == "f":
        a, b = (np.where(np.isnan(x), x.dtype.type(1), x) + np.isnan(x) * x.dtype.type(0) for x in (a, b))
    return a.tobytes() == b.tobytes()


def main():
    np.seterr(all="ignore")
    import warnings
    warnings.simplefilter("ignore")
    npk, random = os.path.abspath(sys.argv[1]), np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 11)
    failed = compared = 0
    # A cast needs that a lease tells who writes, which not every filesystem allows (an overlay in a container).
    base = os.environ.get("NPK_TEST_DIR") or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    with tempfile.TemporaryDirectory(prefix="npk-cast.", dir=base) as d:
        path = pathlib.Path(d, "x.npy")
        for number, (a, to) in enumerate((a, to) for a in DTYPES for to in DTYPES):
            values = fitting(source(a, random), to)
            values = values[:len(values) // 3 * 3].reshape(-1, 3)
            given = values.astype(a.newbyteorder(">")) if number % 3 == 0 else values
            given = np.asfortranarray(given) if number % 5 == 0 else given
            np.save(path, given)
            done = subprocess.run([npk, "cast", path, to.name], capture_output=True, text=True)
            got, want = np.load(path), values.astype(to)
            good = done.returncode == 0 and same(got, want) and got.flags.f_contiguous == given.flags.f_contiguous
            compared += 1
            if not good:
                failed += 1
                print("%s to %s: %s" % (given.dtype, to, done.stderr.strip() or got.dtype))
                if got.shape == want.shape:
                    for x, y, z in list(zip(values[got != want], got[got != want], want[got != want]))[:4]:
                        print("    %r became %r, numpy %r" % (x, y, z))
    print("%d pairs, %d differ" % (compared, failed))
    sys.exit(1 if failed or compared != len(DTYPES) ** 2 else 0)


if __name__ == "__main__":
    main()
