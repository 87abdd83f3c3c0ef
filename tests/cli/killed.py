#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`npk pack` and `npk unpack` that are killed at each of their changing calls: the result is there whole or not at all, and
the next run leaves nothing of the dead one.

Usage: killed.py NPK"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile

NPK = os.path.abspath(sys.argv[1])
failures = []


def check(ok, what):
    if not ok:
        failures.append(what)
        print("FAIL %s" % what)


def npk(*args, kill=None):
    env = dict(os.environ)
    if kill:
        env["NPK_IO_PLAN"] = "kill:%d" % kill
    return subprocess.run([NPK, *args], env=env, capture_output=True, text=True)


def npy(path, rows):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }" % rows
    header += b" " * (118 - len(header) - 1) + b"\n"
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        f.write(bytes(i * i % 251 for i in range(rows)))


def fill(store):
    os.makedirs(store + "/group/deep")
    npy(store + "/x.npy", 400000)
    npy(store + "/group/y.npy", 3)
    with open(store + "/group/note.txt", "w") as f:
        f.write("a note\n" * 4000)
    os.symlink("group/y.npy", store + "/link")
    subprocess.run([NPK, "names", store + "/x.npy", "few=1:4"], check=True)


def same(a, b):
    return subprocess.run(["diff", "-r", "--no-dereference", "-x", ".npkfs", a, b], capture_output=True).returncode == 0


def numbers(run):
    """Run with kill:1, kill:2, ... until one is not killed; how many were."""
    killed = 0
    for n in range(1, 2000):
        done = run(n)
        if done.returncode != -signal.SIGKILL:
            check(done.returncode == 0, "call %d: status %d, %s" % (n, done.returncode, done.stderr))
            return killed
        killed += 1
    check(False, "it never ends")
    return killed


def pack(place, force):
    out = place + "/out/p.npkg"
    if force:
        with open(out, "w") as f:
            f.write("what was there")

    def run(n):
        done = npk("pack", place + "/s", out, *(["--force"] if force else []), kill=n)
        if done.returncode == -signal.SIGKILL:
            if os.path.exists(out):
                old = force and open(out, "rb").read() == b"what was there"
                check(old or npk("check", out).returncode == 0, "pack killed at %d: half a package" % n)
                if not old:
                    os.unlink(out)
                    if force:
                        with open(out, "w") as f:
                            f.write("what was there")
            left = [name for name in os.listdir(place + "/out") if name != "p.npkg"]
            check(len(left) <= (1 if force else 0), "pack killed at %d left %s" % (n, left))
        return done
    killed = numbers(run)
    check(killed >= 3, "pack was killed %d times only" % killed)
    check(os.listdir(place + "/out") == ["p.npkg"], "after pack: %s" % os.listdir(place + "/out"))
    check(npk("check", out).returncode == 0, "the package is right")


def unpack(place, piped):
    package, out = place + "/out/p.npkg", place + "/dir"
    os.makedirs(place + "/un", exist_ok=True)
    out = place + "/un/s"

    def run(n):
        if piped:
            with open(package, "rb") as f:
                env = dict(os.environ, NPK_IO_PLAN="kill:%d" % n)
                done = subprocess.run([NPK, "unpack", "-", out], env=env, stdin=f, capture_output=True, text=True)
        else:
            done = npk("unpack", package, out, "--threads", "1", kill=n)
        if done.returncode == -signal.SIGKILL:
            if os.path.exists(out):
                check(same(place + "/s", out), "unpack killed at %d: half a store" % n)
                shutil.rmtree(out)
            left = [name for name in os.listdir(place + "/un") if name.startswith(".s.unpack.")]
            check(len(left) <= 1, "unpack killed at %d: %s, what died before was not removed" % (n, left))
        return done
    killed = numbers(run)
    check(killed >= 10, "unpack was killed %d times only" % killed)
    check(os.listdir(place + "/un") == ["s"], "after unpack: %s" % os.listdir(place + "/un"))
    check(same(place + "/s", out), "the store is right")
    check(npk("names", out + "/x.npy").stdout == "few\t1\t4\n", "names of rows came along")
    shutil.rmtree(place + "/un")


def interrupted(place):
    """A signal that can be heeded: nothing is left at all."""
    for args in (["pack", place + "/s", place + "/out/q.npkg"], ["unpack", "-", place + "/never"]):
        with open(place + "/out/p.npkg", "rb") as f:
            data = f.read()
        feed = subprocess.PIPE if "-" in args else None
        p = subprocess.Popen([NPK, *args], env=dict(os.environ, NPK_IO_PLAN="delay:write:300,delay:pwrite:300,delay:mkdirat:300"),
                             stdin=feed, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if feed:
            p.stdin.write(data[:len(data) // 2])
            p.stdin.flush()
            while not any(n.startswith(".never.unpack.") for n in os.listdir(place)) and p.poll() is None:
                pass
        p.send_signal(signal.SIGTERM)
        if feed:
            p.stdin.close()
        p.wait()
        if p.returncode == 0 and not feed:  # it was done before the signal came
            os.unlink(place + "/out/q.npkg")
        check(p.returncode != 0 or not feed, "%s was interrupted: status %d" % (args[0], p.returncode))
        left = [n for n in os.listdir(place) + os.listdir(place + "/out") if "tmp" in n or "unpack" in n or n in ("never", "q.npkg")]
        check(left == [], "%s that was interrupted left %s" % (args[0], left))


def main():
    place = tempfile.mkdtemp(prefix="npk.")
    try:
        fill(place + "/s")
        os.mkdir(place + "/out")
        pack(place, False)
        pack(place, True)
        unpack(place, False)
        unpack(place, True)
        interrupted(place)
    finally:
        shutil.rmtree(place)
    print("%d failures" % len(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
