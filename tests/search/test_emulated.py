#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same answers on an emulated older processor, where an instruction that it does not have would end the program.
Needs qemu-x86_64 (package qemu-user).
"""
import os
import platform
import shutil
import subprocess
import sys

import numpy as np

import npk
from test_topk import data

QEMU, NPK = shutil.which("qemu-x86_64"), os.environ["NPK_BIN"]
# What each has: nothing of ours; AVX2, FMA and F16C.
CPUS = {"Nehalem": "scalar", "Haswell": "avx2"}
CASES = [("f4", "dot"), ("f4", "l2"), ("f4", "js"), ("f2", "cosine"), ("i1", "l2sq"), ("u1", "jaccard"), ("f8", "dot")]


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=200).stdout


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


if __name__ == "__main__":
    if not QEMU or platform.machine() != "x86_64":
        print("skipped: no qemu-x86_64 (package qemu-user), or another machine than x86_64")
        sys.exit(77)
    npk.main([test_older_processors])
