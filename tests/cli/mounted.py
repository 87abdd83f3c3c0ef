#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""npk inside a mount: the store behind it where that may be opened, else the mount's own files and controls.

Usage: mounted.py NPK NPKFS
"""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
NOBODY = 65534
faults = []


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def check(what, found, wanted):
    if found != wanted:
        faults.append(what)
        print(f"{what}: {found!r}, not {wanted!r}")


def npy(path, shape, *values):
    subprocess.run([sys.executable, HERE / "npy.py", path, "<i4", shape, *map(str, values)], check=True, timeout=60)


def numbers(path):
    """The data of an int32 array as the store's own file has it."""
    content = pathlib.Path(path).read_bytes()
    begin = 10 + struct.unpack_from("<H", content, 8)[0]
    return list(struct.unpack(f"<{(len(content) - begin) // 4}i", content[begin:]))


class Mount:
    def __init__(self, npkfs, store, at):
        self.at = at
        subprocess.run([npkfs, store, at], check=True, timeout=60, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not (at / ".npk" / "version").exists():
            if time.monotonic() > deadline:
                sys.exit("the mount does not come up")
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", self.at], check=False, timeout=60)


class Caller:
    """Runs npk as some user; what it says goes through check()."""

    def __init__(self, npk, user):
        self.npk, self.user = npk, user

    def __call__(self, *words, status=0, stdin=b""):
        identity = {"user": self.user, "group": self.user, "extra_groups": []} if self.user else {}
        done = subprocess.run([self.npk, *words], input=stdin, capture_output=True, timeout=60, **identity)
        text = (done.stdout + done.stderr).decode()
        if done.returncode != status:
            faults.append(" ".join(map(str, words)))
            print(f"npk {' '.join(map(str, words))}: exit status {done.returncode}: {text.strip()}")
        return text


def behind_the_mount(npk, npkfs, base):
    """Who may open the store gets it, also where it is mounted over itself."""
    store = base / "open"
    (store / "g").mkdir(parents=True)
    npy(store / "x.npy", "2,2", 1, 2, 3, 4)
    run = Caller(npk, 0)
    for at in (base / "mnt", store):
        at.mkdir(exist_ok=True)
        with Mount(npkfs, store, at):
            check(f"{at.name}: through_mount", json.loads(run("info", at, "--json"))["through_mount"], False)
            run("append", at / "x.npy", at / "x.npy")
            run("mv", at / "x.npy", at / "g" / "y.npy")
            run("mv", at / "g" / "y.npy", at / "x.npy")
            run("check", at)
            check(f"{at.name}: get", run("get", at / "x.npy", "-1"), "3\t4\n")
    check("rows of both appends", numbers(store / "x.npy"), [1, 2, 3, 4] * 4)


def prepare_hidden(base):
    hidden = base / "hidden"
    hidden.mkdir(mode=0o700)
    store = hidden / "store"
    store.mkdir()
    npy(store / "x.npy", "3,2", 0)
    npy(base / "rows.npy", "2,2", 1, 2, 3, 4)
    npy(base / "floats.npy", "1,3", 0)
    for path in (store, store / "x.npy"):
        os.chown(path, NOBODY, NOBODY)
    return store


def through_the_mount(npk, npkfs, base):
    """Who may not goes through the files and controls of the mount."""
    store, at, rows = prepare_hidden(base), base / "mnt2", base / "rows.npy"
    at.mkdir()
    run = Caller(npk, NOBODY)
    with Mount(npkfs, store, at):
        check("through_mount", json.loads(run("info", at, "--json"))["through_mount"], True)
        check("ls", run("ls", at).split("\t")[:3], ["x", "int32", "3,2"])
        check("append", run("append", at / "x.npy", rows), f"{rows}\t\t2\n")
        check("rows appended", numbers(store / "x.npy"), [0] * 6 + [1, 2, 3, 4])
        check("get", run("get", at / "x.npy", "3:"), "1\t2\n3\t4\n")
        check("append refused", "has the shape (1, 3)" in run("append", at / "x.npy", base / "floats.npy", status=1), True)
        run("replace", at / "x.npy", "0,-1", rows)
        check("rows replaced", numbers(store / "x.npy"), [1, 2, 0, 0, 0, 0, 1, 2, 3, 4])
        run("reshape", at / "x.npy", "2,5")
        check("reshaped", run("get", at / "x.npy", "0"), "1\t2\t0\t0\t0\n")
        refused = run("reshape", at / "x.npy", "3,4", status=1)
        check("the mount's own sentence", refused.startswith("npk reshape: ") and "3,4" in refused, True)
        run("create", at / "new" / "y.npy", "--from", rows)
        check("created", numbers(store / "new" / "y.npy"), [1, 2, 3, 4])
        check("create refused", "exists already" in run("create", at / "x.npy", "--from", rows, status=1), True)
        run("create", at / "z.npy", "--shape", "2,2", "--dtype", "int32")
        check("zeros", numbers(store / "z.npy"), [0] * 4)
        run("mv", at / "z.npy", at / "new" / "z.npy")
        check("moved", sorted(p.name for p in (store / "new").glob("*.npy")), ["y.npy", "z.npy"])
        check("mv refused", "exists already" in run("mv", at / "new" / "z.npy", at / "new" / "y.npy", status=1), True)
        run("sync", at)
        run("sync", at / "x.npy")
        check("check refused", "not yours to open" in run("check", at, status=1), True)
        check("bench refused", "not yours to open" in run("bench", at, status=1), True)
        run("reset", at, "--yes")
        check("reset", sorted(p.name for p in store.rglob("*.npy*")), [])


def main():
    if os.geteuid() != 0:
        skip("needs root, to be two users")
    if not os.path.exists("/dev/fuse"):
        skip("no /dev/fuse")
    npk, npkfs = (os.path.abspath(p) for p in sys.argv[1:3])
    with tempfile.TemporaryDirectory(prefix="npk-mounted.") as scratch:
        base = pathlib.Path(scratch)
        base.chmod(0o755)
        # The other user must reach the program, wherever the build is.
        own = base / "npk"
        shutil.copy(npk, own)
        probe = base / "probe"
        probe.mkdir()
        (base / "probe.store").mkdir()
        if subprocess.run([npkfs, base / "probe.store", probe], capture_output=True, timeout=60).returncode != 0:
            skip("this machine mounts no FUSE filesystem")
        subprocess.run(["umount", probe], check=False, timeout=60)
        behind_the_mount(own, npkfs, base)
        through_the_mount(own, npkfs, base)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
