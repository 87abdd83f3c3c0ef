#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every function that npk.h declares is in the shared library, and every npk_ name there is declared.

Usage: header_names.py npk.h libnpk.so
"""
import re
import subprocess
import sys


def main():
    text = re.sub(r"/\*.*?\*/", "", open(sys.argv[1], encoding="utf-8").read(), flags=re.S)
    declared = set(re.findall(r"\b(npk_[a-z0-9_]+)\s*\([^;{]*\)\s*;", text))
    declared -= set(re.findall(r"typedef\s+\w+\s+(npk_\w+)\s*\(", text))
    out = subprocess.run(["nm", "-D", "--defined-only", sys.argv[2]], check=True, capture_output=True, text=True).stdout
    defined = {line.split()[2].split("@")[0] for line in out.splitlines() if len(line.split()) >= 3}
    defined = {name for name in defined if name.startswith("npk_")}
    for name in sorted(declared - defined):
        print(f"{name}: declared in npk.h, missing from the library")
    for name in sorted(defined - declared):
        print(f"{name}: exported by the library, not declared in npk.h")
    if declared == defined:
        print(f"{len(declared)} functions declared and defined")
    return 0 if declared and declared == defined else 1


if __name__ == "__main__":
    sys.exit(main())
