#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same answers on emulated processors, where an instruction that they do not have would end the program: older ones
of this family, and the kernels for 64-bit ARM, compiled for it, with registers of several widths.
Needs qemu-x86_64 and qemu-aarch64 (package qemu-user), the latter with gcc-aarch64-linux-gnu and
libc6-dev-arm64-cross.
"""
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

import numpy as np

import npk
from test_topk import data

QEMU, QEMU_ARM, NPK = shutil.which("qemu-x86_64"), shutil.which("qemu-aarch64"), os.environ["NPK_BIN"]
ARM_CC = shutil.which("aarch64-linux-gnu-gcc")
TREE = pathlib.Path(__file__).resolve().parent.parent.parent
# What each has: nothing of ours; AVX2, FMA and F16C.
CPUS = {"Nehalem": "scalar", "Haswell": "avx2"}
CASES = [("f4", "dot"), ("f4", "l2"), ("f4", "js"), ("f2", "cosine"), ("i1", "l2sq"), ("u1", "jaccard"), ("f8", "dot")]


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=280).stdout


def test_older_processors():
    for cpu, best in CPUS.items():
        used = [line.split("\t")[0] for line in run(QEMU, "-cpu", cpu, NPK, "info", "--cpu").splitlines()
                if line.endswith("yes")]
        assert used == [best] or (cpu == "Haswell" and used == ["scalar"]), (cpu, used)
        for dtype, metric in CASES:
            for queries in (1, 21):
                x = data(dtype, (300, 37), metric == "js")
                with npk.Place() as place:
                    path, q = str(place.save(x)), str(place.save(x[:queries], "q"))
                    words = ("search", path, q, "-m", metric, "-k", "20")
                    assert run(NPK, *words) == run(QEMU, "-cpu", cpu, NPK, *words), (cpu, dtype, metric, queries)
        print(f"     {cpu}: {used[0]}")


# The processor, and the sets that must be found on it: its vector registers have 128, 128, 256, 512 and 2048 bits.
ARM_CPUS = [("cortex-a72", "scalar neon"), ("max,sve128=on,sve256=off", "scalar neon sve"),
            ("max,sve256=on,sve384=off,sve512=off", "scalar neon sve"), ("max,sve512=on,sve640=off,sve1024=off", "scalar neon sve"),
            ("max,sve2048=on", "scalar neon sve")]
# Lengths of rows that are tried: each 9th, which meets every remainder; all with NPK_TEST_LONG.
STEP = "1" if os.environ.get("NPK_TEST_LONG") else "9"


def compile_for_arm(folder):
    """The unit tests of the kernels, without the engine; each file with the options that kernels/CMakeLists.txt has."""
    objects = []
    for name, options in (("cpu", []), ("distance", []), ("distance_scalar", []), ("exact", ["-ffp-contract=off"]),
                          ("distance_neon", ["-ffp-contract=fast"]),
                          ("distance_sve", ["-march=armv8.2-a+sve", "-ffp-contract=fast"])):
        objects.append(f"{folder}/{name}.o")
        subprocess.run([ARM_CC, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", *options, "-c", TREE / "kernels" / f"{name}.c",
                        "-o", objects[-1]], check=True)
    programs = []
    for name in ("distance", "exact"):
        programs.append(f"{folder}/{name}")
        subprocess.run([ARM_CC, "-std=gnu11", "-O2", "-D_GNU_SOURCE", "-static", f"-I{TREE}/kernels", TREE / "tests" / "unit" / f"test_{name}.c",
                        *objects, "-o", programs[-1], "-lm"], check=True)
    return programs


def test_arm():
    with tempfile.TemporaryDirectory(prefix="npk-arm.") as folder:
        distance, exact = compile_for_arm(folder)
        for cpu, sets in ARM_CPUS:
            out = run(QEMU_ARM, "-cpu", cpu, distance, STEP)
            found = next(line.split(":")[1].strip() for line in out.splitlines() if line.startswith("instruction sets:"))
            assert found == sets, (cpu, found)
            print(f"     {cpu}: {found}; {out.splitlines()[-1]}")
        run(QEMU_ARM, "-cpu", "cortex-a72", exact)


if __name__ == "__main__":
    tests = []
    if QEMU and platform.machine() == "x86_64":
        tests.append(test_older_processors)
    else:
        print("     without older processors: no qemu-x86_64 (package qemu-user), or another machine than x86_64")
    if QEMU_ARM and ARM_CC:
        tests.append(test_arm)
    else:
        print("     without ARM: no qemu-aarch64 (package qemu-user) or no aarch64-linux-gnu-gcc (gcc-aarch64-linux-gnu)")
    if not tests:
        print("skipped: nothing to emulate with (packages qemu-user, gcc-aarch64-linux-gnu)")
        sys.exit(77)
    npk.main(tests)
