#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Includes point one way: kernels <- store <- fs, tools. Usage: includes_one_way.py TREE

A folder sees its own headers and those named below; fs and tools see one header of the store, npk.h.
"""
import pathlib
import re
import sys

INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
SEES = {
    "kernels": {"kernels": None},
    "store": {"store": None, "kernels": None},
    "fs": {"fs": None, "store": {"npk.h"}},
    "tools": {"tools": None, "store": {"npk.h"}},
}
# Kernels are pure: what they take from libc has no I/O, no allocation and no errno.
KERNEL_SYSTEM = {"assert.h", "float.h", "limits.h", "math.h", "stdalign.h", "stdatomic.h", "stdbool.h", "stddef.h",
                 "stdint.h", "string.h", "cpuid.h", "immintrin.h", "arm_neon.h", "arm_sve.h", "sys/auxv.h"}


def faults_of(tree):
    headers = {folder: {p.name for p in (tree / folder).rglob("*.h")} for folder in SEES}
    sources = 0
    for folder, sees in SEES.items():
        allowed = set()
        for other, names in sees.items():
            allowed |= headers[other] if names is None else names
        for path in sorted((tree / folder).rglob("*.[ch]")):
            sources += 1
            text = path.read_bytes()
            for match in INCLUDE.finditer(text):
                name = match[2].decode()
                where = f"{path.relative_to(tree)}:{text.count(10, 0, match.start()) + 1}"
                if match[1] == b'"':
                    if "/" in name:
                        yield f'{where}: "{name}" leads through folders; name the header alone'
                    elif name not in allowed:
                        owners = [f for f, names in headers.items() if name in names] or ["no folder of the house"]
                        yield f'{where}: {folder}/ may not include "{name}" of {", ".join(owners)}'
                elif "fuse" in name and folder != "fs":
                    yield f"{where}: only fs/ may include <{name}>"
                elif folder == "kernels" and name not in KERNEL_SYSTEM:
                    yield f"{where}: kernels/ is pure and may not include <{name}>"
    if sources == 0:
        yield f"{tree}: no sources found"


def main():
    faults = list(faults_of(pathlib.Path(sys.argv[1])))
    print("\n".join(faults) if faults else "includes point one way")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
