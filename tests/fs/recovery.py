# SPDX-License-Identifier: Apache-2.0
"""What a killed process left, met by a mount: renames and removals finish it first, and what may not be written says so.

Usage: recovery.py passthrough|daemon [WORD...]"""

import os
import subprocess
import sys

import numpy as np

from harness import err, expect, main_on_mounts, test
from mountlib import NPK, Mount, Skip

OLD = np.zeros((3000, 4), "f4")
NEW = np.ones((2000, 4), "f4")
N_MAX = 60


def make(store, name):
    np.save(os.path.join(store, name), OLD)


def rows_file(own):
    path = os.path.join(own, "rows.npy")
    np.save(path, NEW)
    return path


def replace_killed(store, own, n):
    """npk replace of most rows, killed at its n-th changing call. True: it was."""
    done = subprocess.run([NPK, "replace", os.path.join(store, "x.npy"), "500:2500", rows_file(own)],
                          env=dict(os.environ, NPK_IO_PLAN="kill:%d" % n), capture_output=True)
    return done.returncode < 0


def check(store, rule=None):
    found = subprocess.run([NPK, "check", store], capture_output=True, text=True).stdout
    return [line for line in found.split("\n") if line.startswith(("damage", "warning")) and (not rule or rule in line)]


def half_replaced(store, own):
    """A store in which the rows of x are to be written again."""
    for n in range(1, N_MAX):
        make(store, "x.npy")
        if not replace_killed(store, own, n):
            break
        if check(store, "J1"):
            return
        os.system("rm -rf '%s'" % os.path.join(store, ".npkfs"))
    raise AssertionError("no call leaves rows to be written again")


def old_or_new(x):
    values = {float(v) for v in np.unique(x[500:2500])}
    expect((x.shape, len(values), float(x[:500].max()), float(x[2500:].max())), (OLD.shape, 1, 0.0, 0.0), "rows %s" % values)


@test
def names_that_move_after_a_killed_replace(m):
    killed = 0
    for n in range(1, N_MAX):
        make(m.below(), "x.npy")
        if not replace_killed(m.below(), m.own, n):
            break
        killed += 1
        how = n % 4
        if how == 0:
            os.rename(m.path("x.npy"), m.path("y.npy"))
            old_or_new(np.load(m.path("y.npy")))
            os.unlink(m.path("y.npy"))
        elif how == 1:
            os.mkdir(m.path("g"))
            os.rename(m.path("x.npy"), m.path("g", "x.npy"))
            old_or_new(np.load(m.path("g", "x.npy")))
            os.unlink(m.path("g", "x.npy"))
            os.rmdir(m.path("g"))
        elif how == 2:
            os.unlink(m.path("x.npy"))
        else:
            np.save(m.path("z.npy"), OLD + 5)
            os.replace(m.path("z.npy"), m.path("x.npy"))
            expect(float(np.load(m.path("x.npy")).min()), 5.0)
        np.save(m.path("x.npy"), OLD + 7)  # nothing of it is written to the next array of the name
        expect(float(np.load(m.path("x.npy")).min()), 7.0)
        subprocess.run([NPK, "append", m.path("x.npy"), rows_file(m.own)], check=True, stdout=subprocess.DEVNULL)
        expect(float(np.load(m.path("x.npy"))[:3000].min()), 7.0)
        expect(check(m.below()), [], "after call %d" % n)
        side = m.below(".npkfs")
        expect([f for f in (os.listdir(side) if os.path.isdir(side) else []) if f.startswith("aside")], [], "call %d" % n)
        os.unlink(m.path("x.npy"))
    expect(killed >= 4, True, killed)


@test
def every_state_in_turn(m):
    """The same name moves in each way after each call that can be the last one."""
    for way in ("rename", "unlink", "covered"):
        half_replaced(m.below(), m.own)
        if way == "rename":
            os.rename(m.path("x.npy"), m.path("y.npy"))
            old_or_new(np.load(m.path("y.npy")))
            expect(float(np.load(m.path("y.npy"))[500:2500].min()), 1.0, "the record was whole")
            os.unlink(m.path("y.npy"))
        elif way == "unlink":
            os.unlink(m.path("x.npy"))
        else:
            np.save(m.path("z.npy"), OLD + 5)
            os.replace(m.path("z.npy"), m.path("x.npy"))
            expect(float(np.load(m.path("x.npy")).min()), 5.0)
        expect(check(m.below()), [], way)


@test
def a_mount_that_may_not_write(m):
    half_replaced(m.below(), m.own)
    np.save(m.below("other.npy"), OLD + 3)
    with Mount(m.mode, ["ro"], store=m.below(), mnt=os.path.join(m.own, "ro")) as ro:
        expect(err(open, ro.path("x.npy"), "rb"), "EUCLEAN")
        with open(ro.control("x.npy", "last_error")) as f:
            said = f.read()
        expect(('"x.npy"' in said, "npk check --repair" in said), (True, True), said)
        expect(float(np.load(ro.path("other.npy")).min()), 3.0)
        expect(err(open, ro.path("other.npy"), "ab"), "EROFS")
    expect(len(check(m.below(), "J1")), 1, "nothing was written")
    old_or_new(np.load(m.path("x.npy")))
    expect(check(m.below()), [])


@test
def a_filesystem_that_may_not_be_written(m):
    if os.geteuid() != 0:
        raise Skip("a mount that is read-only takes root")
    half_replaced(m.below(), m.own)
    place = os.path.join(m.own, "readonly")
    os.mkdir(place)
    subprocess.run(["mount", "--bind", m.below(), place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        for words in (["get", "x.npy", "600"], ["get", "x.npy", ":"], ["summary", "x.npy"]):
            words[1] = os.path.join(place, words[1])
            done = subprocess.run([NPK] + words, capture_output=True, text=True)
            expect((done.returncode, '"x.npy"' in done.stderr or "x" in done.stderr, "npk check --repair" in done.stderr),
                   (1, True, True), "%s: %s %s" % (words, done.stdout[:80], done.stderr))
        for words in (["ls", place], ["info", os.path.join(place, "x.npy")], ["check", place]):
            done = subprocess.run([NPK] + words, capture_output=True, text=True)
            expect("3000" in done.stdout or "J1" in done.stdout or "npk check --repair" in done.stderr, True,
                   "%s: %d %s %s" % (words, done.returncode, done.stdout, done.stderr))
        done = subprocess.run([NPK, "drop", os.path.join(place, "x.npy"), "5"], capture_output=True, text=True)
        expect(done.returncode, 1, done.stderr)
        with Mount(m.mode, store=place, mnt=os.path.join(m.own, "mnt2")) as ro:
            expect(err(open, ro.path("x.npy"), "rb"), "EUCLEAN")
    finally:
        subprocess.run(["umount", place], check=False)
    expect(len(check(m.below(), "J1")), 1, "nothing was written")


@test
def a_commit_that_was_killed(m):
    """A read-only mount shows what has not been touched, and refuses the arrays of the commit."""
    found = 0
    for n in range(1, 200):
        for name in ("a.npy", "b.npy", "c.npy"):
            make(m.below(), name)
        os.system("rm -rf '%s'" % m.below(".npkfs"))
        subprocess.run([NPK, "batch", "begin", m.below(), "k"], check=True, capture_output=True)
        for name in ("a.npy", "b.npy"):
            subprocess.run([NPK, "replace", m.below(name), "500:2500", rows_file(m.own), "--batch", "k"], check=True,
                           capture_output=True)
        done = subprocess.run([NPK, "batch", "commit", m.below(), "k"], capture_output=True, text=True,
                              env=dict(os.environ, NPK_IO_PLAN="kill:%d" % n))
        if done.returncode >= 0:
            expect(done.returncode, 0, done.stderr)
            break
        if not check(m.below(), "J3"):
            continue
        found += 1
        with Mount(m.mode, ["ro"], store=m.below(), mnt=os.path.join(m.own, "ro")) as ro:
            expect((err(open, ro.path("a.npy"), "rb"), err(open, ro.path("b.npy"), "rb")), ("EUCLEAN", "EUCLEAN"), n)
            with open(ro.control("a.npy", "last_error")) as f:
                said = f.read()
            expect("npk check --repair" in said or "for writing" in said, True, said)
            expect(float(np.load(ro.path("c.npy")).max()), 0.0)
        if found == 3:
            break
    expect(found > 0, True, "no call leaves a commit to be finished")
    os.rename(m.path("a.npy"), m.path("moved.npy"))
    a, b = np.load(m.path("moved.npy")), np.load(m.path("b.npy"))
    expect((float(a[500:2500].min()), float(b[500:2500].min())), (1.0, 1.0), "finished before the name moved")
    expect(check(m.below()), [])


def main():
    return main_on_mounts("recovery")


if __name__ == "__main__":
    sys.exit(main())
