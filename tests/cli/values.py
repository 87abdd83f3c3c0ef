#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every dtype is printed with the digits of numpy, and JSON gives the same numbers back.

Usage: values.py NPK [SEED]    (a run without a seed is the same every time)
"""
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
from decimal import Decimal

try:
    import numpy as np
except ImportError:
    print("skipped: no numpy")
    sys.exit(77)

COUNT = 2000


def bits(kind, size, rng):
    """Random bytes, with the edges that random bytes rarely meet."""
    data = np.frombuffer(rng.randbytes(COUNT * size), dtype=f"u{size}" if size <= 8 else "u8").copy()
    if kind == "f":
        # What a short float cannot hold becomes an infinity, which is an edge as well.
        edges = np.array([0, 1, -1, 0.1, 1e16, 1e-5, np.inf, -np.inf, np.nan, 65504, 123456.789, 3e-6, 1e15], dtype=f"f{size}")
        smallest = np.frombuffer(np.arange(1, 9, dtype=f"u{size}").tobytes(), dtype=f"f{size}")
        whole = np.array([rng.randrange(-10**6, 10**6) / 10**rng.randrange(0, 7) for _ in range(200)], dtype=f"f{size}")
        # At a power of two the spacing changes, and with it which decimals read back.
        powers = np.ldexp(np.ones(2200), np.arange(-1100, 1100)).astype(f"f{size}")
        return np.concatenate([data.view(f"f{size}"), edges, smallest, whole, powers])
    return data


def arrays(rng):
    yield "bool", np.array([True, False, True])
    for size in (1, 2, 4, 8):
        yield f"u{size}", bits("u", size, rng)
        yield f"i{size}", bits("i", size, rng).view(f"i{size}")
    yield "every f2", np.arange(2**16, dtype="u2").view("f2")
    for size in (2, 4, 8):
        values = bits("f", size, rng)
        yield f"f{size}", values
        yield f">f{size}", values.astype(f">f{size}")
    yield "c8", bits("f", 4, rng)[: COUNT // 2 * 2].view("c8")
    yield "c16", bits("f", 8, rng)[: COUNT // 2 * 2].view("c16")
    for unit, span in (("Y", 3000), ("M", 40000), ("W", 10**5), ("D", 10**6), ("h", 10**7), ("m", 10**9), ("s", 10**11),
                       ("ms", 10**14), ("us", 10**17), ("ns", 2**62), ("ps", 2**62), ("fs", 2**62), ("as", 2**62)):
        # numpy writes years before 0 and after 9999 in ways of its own; nobody has rows from there.
        low = -1900 if unit == "Y" else -min(span, 10**4 if unit == "M" else span)
        counts = np.array([rng.randrange(low, span) for _ in range(300)] + [-(2**63)], dtype="i8")
        yield f"M8[{unit}]", counts.view(f"M8[{unit}]")
        yield f"m8[{unit}]", counts.view(f"m8[{unit}]")
    yield "M8[25s]", np.arange(-50, 50).view("M8[25s]")


def digits_of(text):
    """A number's digits, wherever its point or exponent is; the sign of zero counts."""
    return (text.startswith("-"), Decimal(text)) if text.lstrip("-") not in ("nan", "inf") else text


def split_complex(text):
    """The parts of "(1-2e-05j)", of which Python leaves out a real part of +0."""
    parts = re.fullmatch(r"\(?(?:([+-]?(?:[\d.]+(?:e[+-]\d+)?|nan|inf)))??([+-]?(?:[\d.]+(?:e[+-]\d+)?|nan|inf))j\)?", text)
    return parts[1] or "0", parts[2].lstrip("+")


def same_text(text, value):
    """numpy's releases differ in when they write exponents for short floats; digits are what counts for those."""
    if value.dtype == np.dtype("f8"):
        return text == repr(float(value))
    if value.dtype.kind == "f":
        return digits_of(text) == digits_of(str(value))
    if value.dtype.kind == "c":
        ours, theirs = split_complex(text), split_complex(str(value))
        return all(digits_of(a) == digits_of(b) for a, b in zip(ours, theirs))
    return text == str(value)


def same_number(text, value):
    if isinstance(text, str):
        text = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}.get(text, text)
    if value.dtype.kind == "c":
        return same_number(text[0], value.real) and same_number(text[1], value.imag)
    if value.dtype.kind == "f":
        with np.errstate(over="ignore"):
            read = value.dtype.type(text)
        return bool(read == value or (np.isnan(read) and np.isnan(value)))
    if value.dtype.kind in "Mm":
        return text is None if np.isnat(value) else text == str(value)
    return int(text) == int(value)


def main():
    np.seterr(all="ignore")
    npk = sys.argv[1]
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 20260101
    print(f"seed {seed}")
    rng = random.Random(seed)
    checked = failed = 0
    with tempfile.TemporaryDirectory(prefix="npk-values.") as scratch:
        path = pathlib.Path(scratch, "x.npy")
        for name, array in arrays(rng):
            np.save(path, array)
            lines = subprocess.run([npk, "get", path], check=True, capture_output=True, text=True, timeout=60).stdout
            values = json.loads(subprocess.run([npk, "get", path, "--json"], check=True, capture_output=True, text=True,
                                               timeout=60).stdout)
            lines = lines.splitlines()
            if len(lines) != len(array) or len(values) != len(array):
                print(f"{name}: {len(lines)} lines and {len(values)} values of {len(array)}")
                failed += 1
                continue
            for line, value, read in zip(lines, array, values):
                checked += 1
                if not same_text(line, value) or not same_number(read, value):
                    failed += 1
                    if failed < 20:
                        print(f"{name}: {line!r}, JSON {read!r}, numpy {str(value)!r}")
    print(f"{checked} elements, {failed} differ")
    sys.exit(1 if failed or checked < 10000 else 0)


if __name__ == "__main__":
    main()
