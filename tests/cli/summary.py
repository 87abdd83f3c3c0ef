#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""npk summary tells what numpy computes, for each of the 14 dtypes, with deleted rows too.

Usage: summary.py NPK"""
import json
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("skipped: no numpy")
    sys.exit(77)

DTYPES = ("bool i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16").split()


def number(value):
    return float("nan") if value is None else float(value)


def wrong(told, a):
    """What of it is not as numpy says."""
    flat = a.reshape(-1)
    good = flat[~np.isnan(flat)] if a.dtype.kind in "fc" else flat
    want = {"count": flat.size, "nans": flat.size - good.size, "zeros": int((flat == 0).sum())}
    found = [k for k in want if int(told[k]) != want[k]]
    real = good.real.astype(np.longdouble)
    for key, value in (("mean", real.mean()), ("std", real.std())):
        if not np.isclose(number(told[key]), float(value), rtol=1e-11, atol=1e-12):
            found.append("%s %s, numpy %s" % (key, told[key], value))
    if a.dtype.kind in "iub":
        found += [k for k, v in (("min", int(good.min())), ("max", int(good.max()))) if int(told[k]) != v]
    elif a.dtype.kind == "f":
        found += [k for k, v in (("min", good.min()), ("max", good.max())) if a.dtype.type(told[k]) != v]
    return found


def special():
    """Arrays whose numbers are hard to add up."""
    random = np.random.default_rng(3)
    yield 1e9 + random.normal(size=100003) * 1e-3  # digits far behind those of the mean
    yield (random.normal(size=70000) * 1e-42).astype("f4")  # denormal
    yield np.full(50001, 2.0 ** 990)
    yield (2 ** 62 + random.integers(0, 10 ** 15, 40000)).astype("i8")
    yield random.integers(2 ** 63, 2 ** 64, 33333, "u8")
    yield np.arange(-200000, 200000, dtype="i4") * 10000


def main():
    npk, failed, compared = os.path.abspath(sys.argv[1]), 0, 0
    random = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as d:
        for a in special():
            path = os.path.join(d, "s.npy")
            np.save(path, a)
            out = subprocess.run([npk, "summary", path, "--json"], capture_output=True, text=True)
            faults = [out.stderr] if out.returncode else wrong(json.loads(out.stdout), a)
            compared += 1
            if faults:
                failed += 1
                print("special %s of %d: %s" % (a.dtype, a.size, "; ".join(faults)))
        for code in DTYPES:
            for shape in ((1,), (17,), (4099, 3), (300, 1001)):
                dtype = np.dtype(code)
                a = random.normal(1000 if dtype.kind in "fc" else 40, 30, shape).astype(dtype)
                if dtype.kind == "c":
                    a.imag = random.normal(size=shape)
                if dtype.kind in "fc" and a.size > 1:
                    a.reshape(-1)[::5] = np.nan
                    a.reshape(-1)[1::7] = 0
                path = os.path.join(d, "x.npy")
                np.save(path, a)
                for _ in range(2):
                    out = subprocess.run([npk, "summary", path, "--json"], capture_output=True, text=True)
                    faults = [out.stderr] if out.returncode else wrong(json.loads(out.stdout), a)
                    compared += 1
                    if faults:
                        failed += 1
                        print("%s %s: %s" % (code, shape, "; ".join(faults)))
                    if len(a) < 3:
                        break
                    subprocess.run([npk, "drop", path, "::3"], check=True)
                    a = np.delete(a, np.arange(0, len(a), 3), axis=0)
                subprocess.run([npk, "drop", path], check=True)
    print("%d summaries compared, %d wrong" % (compared, failed))
    return 1 if failed or compared < 80 else 0


if __name__ == "__main__":
    sys.exit(main())
