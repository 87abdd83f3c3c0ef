#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every option of npkfs stands in its --help, in its manual and in the README; every verb of npk in help and manual.

Usage: docs.py TREE NPKFS NPK
"""
import pathlib
import re
import subprocess
import sys

# What mount(8) understands for every filesystem is described in one sentence and not option by option.
GENERIC = {"dev", "nodev", "suid", "nosuid", "exec", "noexec", "atime", "noatime", "relatime", "norelatime", "rw",
           "defaults", "auto", "noauto", "user", "nouser", "users", "nofail", "_netdev", "sync", "async", "dirsync",
           "diratime", "nodiratime", "strictatime", "lazytime", "fsname", "subtype"}


def plain(text):
    """A manual's source as text: escapes and font changes gone."""
    text = re.sub(r"\\f[A-Z]|\\f\[[A-Z]*\]|\\&|\\/", "", text)
    return text.replace("\\-", "-").replace("\\_", "_").replace("\\(en", "-").replace("\\(aq", "'")


def options_of(help_text):
    """The options that a help text begins its lines with: -x, --long, and -o names."""
    found = set()
    for line in help_text.splitlines():
        match = re.match(r"\s+(-\S.*?|[a-z_]+(=\S+)?)(\s{2,}|$)", line)
        if not match:
            continue
        head = match[1]
        for option in re.findall(r"(?:^|[ ,])(--?[a-zA-Z][a-z-]*)(?![a-z])", head):
            if option != "-o":
                found.add(option)
        names = re.match(r"-o\s+(\S+)", head)
        bare = names[1] if names else (head if not head.startswith("-") else "")
        if bare:
            name = re.split(r"[=\[]", bare)[0].strip(",")
            if re.fullmatch(r"[a-z_]+", name) and name not in GENERIC:
                found.add(name)
    return found


def holds(text, option):
    return re.search(r"(?<![\w-])" + re.escape(option) + r"(?![\w-])", text) is not None


def faults_of(help_text, manual, readme):
    options = options_of(help_text)
    if not options:
        yield "npkfs --help names no option"
    for option in sorted(options):
        if not holds(plain(manual), option):
            yield f"{option}: in npkfs --help, missing from npkfs(8)"
        if not holds(readme, option):
            yield f"{option}: in npkfs --help, missing from README.md"
    # The other way: what the texts say with "-o NAME=" or "-o NAME" has to exist.
    for where, text in (("npkfs(8)", plain(manual)), ("README.md", readme)):
        for names in re.findall(r"-o\s+([a-z_]+(?:=[\w.|]+)?(?:,[a-z_]+(?:=[\w.|]+)?)*)", text):
            for name in (part.split("=")[0] for part in names.split(",")):
                if name not in options | GENERIC:
                    yield f"{name}: in {where} as -o {name}, missing from npkfs --help"


def verb_faults(help_text, manual):
    verbs = set(re.findall(r"^\s{2,}([a-z]+)\s{2,}\S", help_text, re.M)) | set(re.findall(r"^\s+npk ([a-z]+)\b", help_text, re.M))
    if not verbs:
        yield "npk --help names no verb"
    for verb in sorted(verbs):
        if not holds(plain(manual), verb):
            yield f"{verb}: in npk --help, missing from npk(1)"


def self_test(fault):
    help_text = "usage: npkfs DIR MNT\n  -f, --foreground   stay\n  -o ro              read only\n  -o threads=N       many\n"
    manual = ".B \\-f \\-\\-foreground\n.B ro\n.B threads\n"
    readme = "`-f`, `--foreground`, `ro`, `threads=N`\n"
    if fault == "readme":
        readme = readme.replace("threads", "cores")
    elif fault == "man":
        manual = manual.replace("threads", "cores")
    elif fault == "help":
        help_text = "usage\n"
    elif fault == "stale":
        readme += "and -o ro,gone=1\n"
    return list(faults_of(help_text, manual, readme))


def text_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def main():
    if sys.argv[1] == "--self-test":
        faults = self_test(sys.argv[2])
    else:
        tree, npkfs, npk = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
        manuals = tree / "tools" / "man"
        faults = list(faults_of(text_of(npkfs, "--help"), (manuals / "npkfs.8").read_text(encoding="utf-8"),
                                (tree / "README.md").read_text(encoding="utf-8")))
        faults += verb_faults(text_of(npk, "--help"), (manuals / "npk.1").read_text(encoding="utf-8"))
    print("\n".join(faults) if faults else "help, manuals and README agree")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
