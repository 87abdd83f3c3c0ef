#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""npk pack and npk unpack against tar + zstd -3 -T0, NumPack and blosc2 (zstd 5, shuffle), on eight kinds of data.

Usage: pack_bench.py NPK DIRECTORY [REPEATS]

TSV: data, measure, ours, other, ratio, name of the other, bar. Sizes are shares of the raw bytes; times are medians of
interleaved repeats in seconds; ratios are ours / other, below 1 is better. NumPack (its wheels need glibc 2.38; with zstandard)
and blosc2 are left out where they cannot be imported. Both work in this process; ours and tar are processes of their own.
"""
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np

try:
    import blosc2
except ImportError:
    blosc2 = None
try:
    import numpack
    import zstandard  # without it NumPack compresses by zlib
    assert zstandard
except ImportError:
    numpack = None


def datasets():
    r = np.random.default_rng(7)
    yield "f32_normal", r.standard_normal((100_000, 128), dtype=np.float32)
    unit = r.standard_normal((200_000, 128), dtype=np.float32)
    yield "f16_unit", (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float16)
    del unit
    zipf = r.zipf(1.2, 20_000_000)
    yield "i32_tokens", zipf[zipf < 50_000][:12_000_000].astype(np.int32)
    yield "i64_sorted", np.cumsum(r.integers(900, 1100, 6_000_000)) + 1_700_000_000_000
    t = np.arange(2_000_000)[:, None]
    waves = np.sin(t / np.array([500, 900, 1300, 70])) * np.array([10, 5, 3, 20]) + 20
    yield "f32_sensor", np.round(waves + r.normal(0, 0.05, waves.shape), 1).astype(np.float32)
    y, x = np.mgrid[0:1024, 0:1024]
    yield "u8_images", np.stack([np.clip(128 + 60 * np.sin(x / (40 + i)) + 50 * np.cos(y / (60 + i)) +
                                         r.normal(0, 8, x.shape), 0, 255).astype(np.uint8) for i in range(48)])
    yield "bool_mask", r.random(48_000_000) < 0.1
    yield "zeros", np.zeros((100_000, 128), np.float32)


def shell(command):
    subprocess.run(["bash", "-c", "set -o pipefail; " + command], check=True)


def clock(action):
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def measure(npk, root, name, array, repeats):
    src, ours, theirs, out = root / "src", root / "x.npkg", root / "x.tar.zst", root / "out"
    frame, rival = root / "x.b2nd", root / "rival"
    shutil.rmtree(src, ignore_errors=True)
    src.mkdir()
    np.save(src / "x.npy", array)
    times = {}

    def note(key, action):
        times.setdefault(key, []).append(clock(action))

    for _ in range(repeats):
        ours.unlink(missing_ok=True)
        note("pack", lambda: subprocess.run([npk, "pack", src, ours], check=True))
        note("tar", lambda: shell(f"tar -C {src} -c . | zstd -q -f -T0 -3 -o {theirs}"))
        for key, action in (("unpack", lambda: subprocess.run([npk, "unpack", ours, out], check=True)),
                            ("untar", lambda: shell(f"mkdir {out} && zstd -q -d -c {theirs} | tar -C {out} -x"))):
            shutil.rmtree(out, ignore_errors=True)
            note(key, action)
        if blosc2:
            frame.unlink(missing_ok=True)
            cores = os.cpu_count()
            note("blosc", lambda: blosc2.asarray(array, urlpath=str(frame), mode="w", cparams={
                "codec": blosc2.Codec.ZSTD, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE], "nthreads": cores}))
            note("unblosc", lambda: np.save(root / "y.npy", blosc2.open(str(frame), mode="r", dparams={"nthreads": cores})[:]))
        if numpack:
            for path in (rival, root / "rival.npkg", root / "rival.out"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            with numpack.NumPack(rival) as store:
                store.save({"x": array})
            note("numpack", lambda: numpack.pack(rival, root / "rival.npkg"))
            note("unnumpack", lambda: numpack.unpack(root / "rival.npkg", root / "rival.out"))
    medians = {key: statistics.median(values) for key, values in times.items()}
    size = ours.stat().st_size / array.nbytes
    sizes = {"tar+zstd": theirs.stat().st_size / array.nbytes}
    times = [("tar+zstd", "tar", "untar", 1.0, 1.0)]
    if numpack:
        sizes["NumPack " + numpack.__version__] = (root / "rival.npkg").stat().st_size / array.nbytes
        times.append(("NumPack " + numpack.__version__, "numpack", "unnumpack", 0.5, 0.35))
    if blosc2:
        sizes["blosc2"] = frame.stat().st_size / array.nbytes
        times.append(("blosc2", "blosc", "unblosc", "", ""))
    for who, other in sizes.items():
        print_row(name, "size", size, other, who, 1.02)
    for who, pack, unpack, pack_bar, unpack_bar in times:
        print_row(name, "pack", medians["pack"], medians[pack], who, pack_bar)
        print_row(name, "unpack", medians["unpack"], medians[unpack], who, unpack_bar)


def print_row(name, what, ours, other, who, bar):
    print(f"{name}\t{what}\t{ours:.6f}\t{other:.6f}\t{ours / other:.3f}\t{who}\t{bar}", flush=True)


def main():
    npk, root = sys.argv[1], pathlib.Path(sys.argv[2]) / "npk-pack-bench"
    repeats = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    root.mkdir()
    print("data\tmeasure\tours\tother\tratio\tname\tbar", flush=True)
    try:
        for name, array in datasets():
            measure(npk, root, name, array, repeats)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
