#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run cases of the command line and compare their transcripts.

Usage: run.py [--update] NPK [CASE...]
"""
import difflib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def transcript_of(npk, case):
    """The case's output in a directory of its own, and its exit status."""
    with tempfile.TemporaryDirectory(prefix="npk-cli.") as scratch:
        work = pathlib.Path(scratch, "work")
        tools = pathlib.Path(scratch, "bin")
        work.mkdir()
        tools.mkdir()
        os.symlink(npk, tools / "npk")
        environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": scratch,
            "TMPDIR": scratch,
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "COLUMNS": "80",
            "CLI": str(HERE),
            "PYTHON": sys.executable,
        }
        environment.update({k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS")})
        done = subprocess.run(["sh", "-eu", "-c", '. "$CLI/prelude.sh"; . "$CLI/cases/$1.sh"', "sh", case], cwd=work,
                              env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=100)
        output = done.stdout.replace(os.fsencode(work), b"WORK")
        left = sorted(p.name for p in pathlib.Path(scratch).iterdir() if p.name not in ("work", "bin"))
        if left:
            output += f"left behind: {left}\n".encode()
        return output, done.returncode


def run_case(npk, case, update):
    expected_path = HERE / "cases" / f"{case}.out"
    output, status = transcript_of(npk, case)
    if status == 77:
        sys.stdout.write(output.decode(errors="backslashreplace"))
        return 77
    if update and status == 0:
        expected_path.write_bytes(output)
        return 0
    expected = expected_path.read_bytes() if expected_path.exists() else b""
    if output == expected and status == 0 and output:
        return 0
    print(f"{case}: exit status {status}, transcript differs from {expected_path.name}:")
    lines = [t.decode(errors="backslashreplace").splitlines() for t in (expected, output)]
    print("\n".join(difflib.unified_diff(*lines, "expected", "found", lineterm="", n=3)))
    return 1


def main():
    words = sys.argv[1:]
    update = "--update" in words
    words = [w for w in words if w != "--update"]
    npk = shutil.which(words[0]) or sys.exit(f"{words[0]}: no program")
    cases = words[1:] or sorted(p.stem for p in (HERE / "cases").glob("*.sh"))
    if not cases:
        sys.exit("no case")
    results = {case: run_case(os.path.abspath(npk), case, update) for case in cases}
    for case, result in results.items():
        print(f"{'ok' if result == 0 else 'skipped' if result == 77 else 'FAILED'} {case}")
    sys.exit(1 if 1 in results.values() else 77 if set(results.values()) == {77} else 0)


if __name__ == "__main__":
    main()
