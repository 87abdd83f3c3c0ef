#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a ctest run came to. Usage: summary.py REPORT.xml NAME

First line: passed failed skipped. Then each skipped test with the reason that it gave, and each failed one.
"""
import sys
import xml.etree.ElementTree as ElementTree


def reason_of(case):
    lines = [line.strip() for line in (case.findtext("system-out") or "").splitlines() if line.strip()]
    said = [line for line in lines if "skip" in line.lower()]
    return (said or lines or ["it gave no reason"])[-1][:160]


def main():
    passed, failed, skipped = 0, [], []
    for case in ElementTree.parse(sys.argv[1]).getroot().iter("testcase"):
        if case.get("status") == "run":
            passed += 1
        elif case.get("status") == "fail":
            failed.append(case.get("name"))
        elif case.get("status") == "disabled":
            skipped.append((case.get("name"), "disabled"))
        elif case.find("skipped") is not None and "SKIP" in case.find("skipped").get("message", "").upper():
            skipped.append((case.get("name"), reason_of(case)))
        else:
            failed.append(case.get("name") + " (could not be run)")
    print(passed, len(failed), len(skipped))
    for name, reason in skipped:
        print(f"skipped in {sys.argv[2]}: {name}: {reason}")
    for name in failed:
        print(f"FAILED in {sys.argv[2]}: {name}")


if __name__ == "__main__":
    main()
