# SPDX-License-Identifier: Apache-2.0
"""Every verb of npk that changes something, on a path inside a live mount and on the same array in the store below it: the
mount shows the result at the next open, whoever has the array open keeps what he had. And what every control says to bad input.

Usage: verbs.py passthrough|daemon [WORD...]"""

import io
import os
import subprocess
import sys

import numpy as np

from harness import err, expect, main_on_mounts, test
from mountlib import NPK

X = np.arange(400, dtype="f4").reshape(100, 4)
ROWS = -np.arange(40, dtype="f4").reshape(10, 4)


def image(array):
    whole = io.BytesIO()
    np.save(whole, array)
    return whole.getvalue()


def npk(*words, stdin=None):
    done = subprocess.run([NPK, *words], capture_output=True, text=True, input=stdin)
    expect((done.returncode, done.stderr), (0, ""), " ".join(words))
    return done.stdout


def same(m, name, want, what):
    got = np.load(m.path(name))
    expect((got.dtype, got.shape), (want.dtype, want.shape), what)
    expect(bool((got == want).all()), True, what + ": other rows")
    expect(os.stat(m.path(name)).st_size, len(image(want)), what)


def control(m, name, control_name):
    with open(m.control(name, control_name)) as f:
        return f.read()


def every_verb(m, place):
    """place(name) is where the array is called by the CLI."""
    rows = os.path.join(m.own, "rows.npy")
    np.save(rows, ROWS)
    np.save(m.path("x.npy"), X)
    x = place("x.npy")
    held = np.load(m.path("x.npy"), mmap_mode="r")
    np.load(m.path("x.npy"))  # the kernel knows it by now
    want = np.delete(X, [0, 1, 2, 50, 99], axis=0)
    npk("drop", x, "0,1,2,50,-1")
    same(m, "x.npy", want, "drop")
    npk("restore", x, "0:2")
    want = np.delete(X, [2, 50, 99], axis=0)
    same(m, "x.npy", want, "restore")
    npk("names", x, "some=10:20")
    expect(control(m, "x.npy", "names"), "some\t10\t20\n", "names")
    npk("compact", x)
    same(m, "x.npy", want, "compact")
    expect(control(m, "x.npy", "deleted"), "0\n", "compact")
    npk("replace", x, "5:15", rows)
    want[5:15] = ROWS
    same(m, "x.npy", want, "replace")
    npk("append", x, rows)
    want = np.concatenate([want, ROWS])
    same(m, "x.npy", want, "append")
    npk("clone", x, place("copy.npy"))
    same(m, "copy.npy", want, "clone")
    npk("cast", x, "float64")
    same(m, "x.npy", want.astype("f8"), "cast")
    npk("cast", x, "float32")
    same(m, "x.npy", want, "cast back")
    npk("reshape", place("copy.npy"), "%d,2" % (len(want) * 2))
    same(m, "copy.npy", want.reshape(-1, 2), "reshape")
    npk("mv", place("copy.npy"), place("moved.npy"))
    expect(err(open, m.path("copy.npy")), "ENOENT", "mv")
    same(m, "moved.npy", want.reshape(-1, 2), "mv")
    npk("create", place("zeros.npy"), "--shape", "3,4", "--dtype", "int16")
    same(m, "zeros.npy", np.zeros((3, 4), "i2"), "create")
    npk("drop", place("zeros.npy"))
    expect(err(open, m.path("zeros.npy")), "ENOENT", "drop of an array")
    npk("batch", "begin", place(""), "k")
    npk("append", x, rows, "--batch", "k")
    same(m, "x.npy", want, "inside a batch")
    npk("batch", "commit", place(""), "k")
    want = np.concatenate([want, ROWS])
    same(m, "x.npy", want, "commit")
    npk("batch", "begin", place(""), "k")
    npk("drop", x, "0", "--batch", "k")
    npk("batch", "abort", place(""), "k")
    same(m, "x.npy", want, "abort")
    expect(bool((held == X).all() or (held[5:15] == ROWS).all()), True, "a mapping from before")
    os.mkdir(m.path("g"))
    np.save(m.path("g", "y.npy"), X)
    with open(m.path("notes.txt"), "w") as f:
        f.write("stays")
    npk("reset", place(""), "--yes") if "--yes" in npk("reset", "--help") else npk("reset", place(""))
    expect((err(open, m.path("x.npy")), err(open, m.path("g", "y.npy")), sorted(os.listdir(m.path()))),
           ("ENOENT", "ENOENT", ["notes.txt"]), "reset")
    np.save(m.path("x.npy"), X)
    same(m, "x.npy", X, "after the reset")
    found = subprocess.run([NPK, "check", m.store], capture_output=True, text=True).stdout
    expect([line for line in found.split("\n") if line.startswith(("damage", "warning"))], [], found)


@test
def verbs_on_the_mount(m):
    every_verb(m, lambda name: m.path(name) if name else m.mnt)


@test
def verbs_on_the_store_below(m):
    every_verb(m, lambda name: m.below(name) if name else m.store)


@test
def verbs_of_a_writer_that_is_refused(m):
    """What moves rows waits for no program that writes: the errno, the sentence, and nothing has changed, on either path."""
    np.save(m.path("x.npy"), X)
    with open(m.path("x.npy"), "r+b"):
        npk("drop", m.path("x.npy"), "0")
        for x in (m.path("x.npy"), m.below("x.npy")):
            for words in (("compact", x), ("cast", x, "int32")):
                done = subprocess.run([NPK, *words], capture_output=True, text=True)
                expect((done.returncode, "writ" in done.stderr), (1, True), "%s: %s" % (words, done.stderr))
    same(m, "x.npy", X[1:], "after refusals")
    npk("compact", m.below("x.npy"))
    same(m, "x.npy", X[1:], "after the compaction")


# control, what is written, errno, words of the sentence
BAD = (
    ("drop", "x", "EINVAL", ('"x"', "accepted")), ("drop", "100", "ERANGE", ('"100"', "-100 to 99")),
    ("drop", "-101", "ERANGE", ('"-101"', "-100 to 99")), ("drop", "0,1,y", "EINVAL", ('"0,1,y"', "accepted")),
    ("drop", "1:2:0", "EINVAL", ("step 0", "accepted")), ("drop", "gen=9 5", "ESTALE", ("generation 9",)),
    ("restore", "x", "EINVAL", ('"x"', "accepted")), ("restore", "gen=9 all", "ESTALE", ("generation 9",)),
    ("compact", "2", "EINVAL", ('"2"', "auto:20%")), ("compact", "auto:101%", "EINVAL", ('"auto:101%"', "accepted")),
    ("compact", "auto:", "EINVAL", ('"auto:"', "accepted")),
    ("names", "a\t0\t5000", "ERANGE", ("0 to 100",)), ("names", "a\t5\t2", "ERANGE", ("0 to 100",)),
    ("names", "a\t0", "EINVAL", ("tabs", "accepted")), ("names", "none", "ENOENT", ('"none"',)),
    ("names", "a/b\t0\t1", "EINVAL", ('"a/b"',)), ("names", "5\t0\t1", "EINVAL", ('"5"',)),
    ("clone", "x", "EEXIST", ('"x"', "a new name")), ("clone", "../y", "EINVAL", ('"../y"',)),
    ("clone", "a//b", "EINVAL", ('"a//b"',)), ("clone", ".npkfs/x", "EINVAL", ('".npkfs/x"',)),
    ("shape", "x", "EINVAL", ('"x"', "accepted")), ("shape", "7,7", "EINVAL", ('"7,7"', "400", "accepted")),
    ("shape", "-5,4", "EINVAL", ('"-5,4"', "accepted")), ("shape", "4,-1,-1", "EINVAL", ('"4,-1,-1"',)),
    ("dtype", "float99", "EINVAL", ('"float99"', "accepted")), ("dtype", "U5", "EOPNOTSUPP", ('"U5"', "accepted")),
    ("dtype", "object", "EINVAL", ('"object"', "accepted")),
)
SAID = {"EINVAL": "Invalid argument", "ERANGE": "Numerical result out of range", "ESTALE": "Stale file handle",
        "ENOENT": "No such file or directory", "EEXIST": "File exists", "EOPNOTSUPP": "Operation not supported"}


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def nothing_changed(m, what):
    same(m, "x.npy", X, what)
    expect((control(m, "x.npy", "deleted"), control(m, "x.npy", "names"), sorted(os.listdir(m.path()))),
           ("0\n", "", ["x.npy"]), what)


@test
def bad_input_of_every_control(m):
    np.save(m.path("x.npy"), X)
    text_file = os.path.join(m.own, "text")
    for name, text, errno, words in BAD:
        path = m.control("x.npy", name)
        write(text_file, text + "\n")
        ways = {"echo": ["bash", "-c", 'printf "%s\\n" "$1" > "$2"', "bash", text, path],
                "printf": ["bash", "-c", 'printf "%s" "$1" > "$2"', "bash", text, path],
                "dd": ["dd", "if=" + text_file, "of=" + path, "bs=1", "status=none"],
                "tee": ["bash", "-c", 'tee "$1" < "$2" > /dev/null', "bash", path, text_file],
                "cp": ["cp", "--no-preserve=all", text_file, path]}
        expect(err(write, path, text + "\n"), errno, "%s %r" % (name, text))
        said = control(m, "x.npy", "last_error")
        expect([w for w in words if w not in said], [], said)
        expect(said.startswith(name + ":") and said in m.fact("last_error") or "x.npy" in m.fact("last_error"), True, said)
        for way, command in ways.items():
            write(m.control("x.npy", "compact"), "auto:0%\n")
            done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, LC_ALL="C"))
            if way != "printf":  # a shell does not look at what close says
                expect((done.returncode != 0, SAID[errno] in done.stderr), (True, True),
                       "%s %r by %s: %d %s" % (name, text, way, done.returncode, done.stderr))
            expect(control(m, "x.npy", "last_error"), said, "%s %r by %s" % (name, text, way))
        nothing_changed(m, "%s %r" % (name, text))


@test
def what_is_only_read(m):
    np.save(m.path("x.npy"), X)
    for name in ("summary", "rows", "live", "deleted", "nbytes", "mtime", "order", "last_error"):
        got = err(os.open, m.control("x.npy", name), os.O_WRONLY)
        expect(got in ("EACCES", "EPERM", "EROFS"), True, "%s: %s" % (name, got))
        expect(err(os.truncate, m.control("x.npy", name), 0) is not None, True, name)
    for name in ("version", "store", "stats", "health", "last_error", "stats.json", "health.json"):
        expect(err(os.open, m.path(".npk", name), os.O_WRONLY) is not None, True, name)
    nothing_changed(m, "after writes to facts")


@test
def bad_input_of_batches_and_search(m):
    np.save(m.path("x.npy"), X)
    batch = m.path(".npk", "batch", "k")
    for name in ("..bad", "a b", "x" * 80):
        expect(err(os.mkdir, m.path(".npk", "batch", name)), "EINVAL", name)
        expect(('"%s"' % name in m.fact("last_error"), "letters" in m.fact("last_error")), (True, True), m.fact("last_error"))
    os.mkdir(batch)
    state = os.path.join(batch, ".npk", "state")
    for text in ("x", "commit now", "abort x"):
        expect(err(write, state, text + "\n"), "EINVAL", text)
        expect(('"%s"' % text in m.fact("last_error"), "commit and abort" in m.fact("last_error")), (True, True))
        done = subprocess.run(["bash", "-c", 'echo "$1" > "$2"', "bash", text, state], capture_output=True, text=True)
        expect(done.returncode, 1, text)
    write(state, "abort\n")
    search = m.control("x.npy", "search")
    with open(os.path.join(search, "q.npy"), "wb") as f:
        f.write(image(X[3]))
    for name in ("q.cosine.10", "q.none.10.npy", "other.cosine.10.npy", "q.cosine.x.npy", "q.cosine.-1.npy"):
        expect(err(open, os.path.join(search, name), "rb"), "ENOENT", name)
    expect(len(np.load(os.path.join(search, "q.l2.3.npy"))), 3)
    nothing_changed(m, "after batches and searches")


@test
def a_mount_that_is_only_read(m):
    np.save(m.path("x.npy"), X)
    m.terminate()
    m.start(options=["ro"])
    for name, text in (("drop", "5"), ("restore", "all"), ("compact", "1"), ("names", "a\t0\t1"), ("clone", "y"), ("shape", "50,4"),
                       ("dtype", "int8")):
        expect(err(write, m.control("x.npy", name), text + "\n") in ("EROFS", "EACCES"), True, name)
    expect(err(os.mkdir, m.path(".npk", "batch", "k")) in ("EROFS", "EACCES"), True, "batch")
    nothing_changed(m, "after writes to a mount that is only read")


def main():
    return main_on_mounts("verbs")


if __name__ == "__main__":
    sys.exit(main())
