#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""npk(1) says what `npk help VERB` says, both ways; completion knows every verb; the manual's examples work.

Usage: manual.py NPK TOOLS
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile


def plain(text):
    """Source of a manual as words: no requests, fonts or escapes."""
    lines = []
    for line in text.splitlines():
        if line.startswith('.\\"'):
            continue
        if line.startswith("."):
            request, _, rest = line.partition(" ")
            line = rest if request in (".B", ".I", ".BI", ".BR", ".SS") else ""
        lines.append(line)
    text = " ".join(lines)
    for escape, character in (("\\&", ""), ("\\-", "-"), ("\\(aq", "'"), ("\\~", ""), ("\\e", "\\")):
        text = text.replace(escape, character)
    return " ".join(text.split())


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def sections_of(manual):
    """The text below each .SS, by the verb that its title begins with."""
    found = {}
    for part in re.split(r"^\.SS ", manual, flags=re.M)[1:]:
        part = re.split(r"^\.SH ", part, flags=re.M)[0]
        words = plain(".SS " + part)
        found[words.split()[1]] = words
    return found


def help_words(npk, verb):
    text = run(npk, "help", verb).split("\nEvery verb:\n")[0].replace("\nOptions:\n", "\n")
    return " ".join(text.split())


def common_options(npk):
    text = run(npk, "help", "ls").split("\nEvery verb:\n")[1]
    return " ".join(text.split())


def compare(npk, manual):
    sections = sections_of(manual)
    verbs = [line.split("\t")[0] for line in run(npk, "help", "--table").splitlines()]
    if len(verbs) < 10:
        yield f"npk help --table tells {len(verbs)} verbs"
    for verb in verbs:
        words = help_words(npk, verb)
        said = sections.pop(verb, None)
        if said is None:
            yield f"{verb}: not in npk(1)"
        elif said != words:
            at = next((i for i, (a, b) in enumerate(zip(said, words)) if a != b), min(len(said), len(words)))
            yield f"{verb}: npk(1) says ...{said[max(0, at - 30):at + 40]!r}, help ...{words[max(0, at - 30):at + 40]!r}"
    for verb in sections:
        yield f"{verb}: in npk(1), unknown to npk"
    output = plain(manual.split(".SH OUTPUT\n")[1].split(".SH ")[0])
    if common_options(npk) not in output:
        yield "the options of every verb differ between npk(1) and help"
    for verb in verbs:
        if not re.search(rf"^  {verb}\s+\S", run(npk, "help"), re.M):
            yield f"{verb}: not in npk help"


def examples(npk, manual):
    """Run the examples one after the other, as they stand."""
    block = manual.split(".SH EXAMPLES\n")[1].split(".EX\n")[1].split(".EE\n")[0]
    lines = [line.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\") for line in block.splitlines()]
    with tempfile.TemporaryDirectory(prefix="npk-manual.") as scratch:
        work, tools = pathlib.Path(scratch, "work"), pathlib.Path(scratch, "bin")
        work.mkdir()
        tools.mkdir()
        os.symlink(os.path.abspath(npk), tools / "npk")
        environment = dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}")
        for line in lines:
            done = subprocess.run(["sh", "-c", line], cwd=work, env=environment, capture_output=True, text=True, timeout=60)
            if done.returncode != 0:
                yield f"example {line!r}: exit status {done.returncode}: {done.stderr.strip()}"
    if len(lines) < 5:
        yield f"{len(lines)} examples"


def complete(npk, tools, *words):
    """What bash offers for the last of the words."""
    script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _npk 2>/dev/null; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    return run("bash", "-c", script, "bash", str(tools / "completions" / "npk.bash"), npk, *words).split()


def completion(npk, tools):
    if shutil.which("bash") is None:
        print("completion not tested: no bash")
        return
    if complete(npk, tools, "re") != ["replace", "reshape", "restore", "reset"]:
        yield f"completion of `npk re`: {complete(npk, tools, 're')}"
    if complete(npk, tools, "help", "mv") != ["mv"]:
        yield f"completion of `npk help mv`: {complete(npk, tools, 'help', 'mv')}"
    if complete(npk, tools, "get", "--n") != ["--npy"]:
        yield f"completion of `npk get --n`: {complete(npk, tools, 'get', '--n')}"
    if "--json" not in complete(npk, tools, "ls", "--"):
        yield f"completion of `npk ls --`: {complete(npk, tools, 'ls', '--')}"


def main():
    npk, tools = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2])
    manual = (tools / "man" / "npk.1").read_text()
    faults = [*compare(npk, manual), *examples(npk, manual), *completion(npk, tools)]
    # The comparison must notice: a manual with one option less, and one with a verb more.
    for change in (manual.replace(".B \\-\\-flat\n", ".B \\-\\-flatter\n"),
                   manual.replace(".SH OUTPUT", ".SS npk frobnicate\nDo.\n.SH OUTPUT")):
        if change == manual or not list(compare(npk, change)):
            faults.append("the comparison does not notice a changed manual")
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
