# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the daemon at each of its changing system calls in turn: what had returned is there after a new mount.

Usage: crash.py passthrough|daemon

The daemon is started with NPK_IO_PLAN=kill:N (store/io.h) for N = 1, 2, ... until the workload ends without being killed,
so every call is met once. A run in which nothing was ever acknowledged fails."""

import io
import os
import subprocess
import sys
import tempfile

import numpy as np

import mountlib
from harness import need_mode
from mountlib import NPK, Mount, MountFailed, Skip

ROWS = np.arange(9 * 4, dtype="f4").reshape(9, 4)
N_MAX = 400


class Done:
    """What the workload was told, step by step."""

    def __init__(self):
        self.rows, self.saved, self.moved, self.cut, self.last = len(ROWS), False, False, False, "start"


def npy_bytes(array):
    whole = io.BytesIO()
    np.save(whole, array)
    return whole.getvalue()


def workload(m, done):
    for i in range(3):  # 9 -> 10 needs another digit
        done.last = "append"
        with open(m.path("x.npy"), "ab") as f:
            f.write(ROWS[:1].tobytes())
            f.flush()
            done.rows += 1
    done.last = "save"
    with open(m.path("n.npy"), "wb", buffering=0) as f:
        f.write(npy_bytes(ROWS))  # numpy's own tofile() does not tell when its last write fails
        done.saved = True
    done.last = "move"
    os.mkdir(m.path("d"))
    os.rename(m.path("n.npy"), m.path("d", "n.npy"))
    done.moved = True
    done.last = "save over"
    np.save(m.path("over.npy"), ROWS + 1)
    done.last = "shape"
    with open(m.control("big.npy", "shape"), "wb", buffering=0) as f:
        f.write(b"20,4\n")
        done.cut = True
    done.last = "truncate"
    os.truncate(m.path("big.npy"), 128 + 16 * 10)
    done.last = "attributes"
    os.chmod(m.path("x.npy"), 0o600)
    os.utime(m.path("x.npy"), (1, 1))
    os.symlink("x.npy", m.path("link"))
    os.link(m.path("d", "n.npy"), m.path("hard"))
    done.last = "remove"
    os.unlink(m.path("hard"))
    os.unlink(m.path("link"))
    done.last = "end"


def check_state(m, done):
    x = np.load(m.path("x.npy"))
    if len(x) < done.rows or len(x) > len(ROWS) + 3:
        raise AssertionError("%d rows, %d were acknowledged" % (len(x), done.rows))
    if not (x[:9] == ROWS).all() or not all((row == ROWS[0]).all() for row in x[9:]):
        raise AssertionError("x.npy has other rows")
    big = np.load(m.path("big.npy"))
    if len(big) not in ((20, 10) if done.cut else (50, 20)):
        raise AssertionError("big.npy has %d rows" % len(big))
    if done.saved:
        there = [p for p in ("n.npy", "d/n.npy") if os.path.exists(m.path(p))]
        if len(there) < 1 or (done.moved and there != ["d/n.npy"]):
            raise AssertionError("the saved array is at %r" % there)
        if not (np.load(m.path(there[0])) == ROWS).all():
            raise AssertionError("%s is not what was saved" % there[0])


def npk_check(store):
    done = subprocess.run([NPK, "check", store], capture_output=True, text=True)
    # A save over an array that was cut short stays as it is, as on any filesystem: check names it.
    damage = [line for line in done.stdout.split("\n") if line.startswith("damage") and "\tover.npy\t" not in line]
    if damage or done.returncode not in (0, 1):
        raise AssertionError("npk check: %d, %s %s" % (done.returncode, damage, done.stderr))


def prepare(store):
    np.save(os.path.join(store, "x.npy"), ROWS)
    np.save(os.path.join(store, "over.npy"), ROWS)
    np.save(os.path.join(store, "big.npy"), np.zeros((50, 4), "f4"))


def killed_at(mode, n, plan="kill"):
    """One run. (killed, steps acknowledged)."""
    done, m = Done(), None
    with tempfile.TemporaryDirectory(prefix="npkfs-crash.", dir=mountlib.temp_base()) as own:
        store, mnt = os.path.join(own, "store"), os.path.join(own, "mnt")
        os.mkdir(store)
        os.mkdir(mnt)
        prepare(store)
        try:
            m = Mount(mode, store=store, mnt=mnt, env={"NPK_IO_PLAN": "%s:%d" % (plan, n)})
            workload(m, done)
        except (OSError, MountFailed, ValueError):
            pass
        killed = m is None or not m.alive()
        if m is not None:
            m.stop()
            killed = killed or done.last != "end"
        with Mount(mode, store=store, mnt=mnt) as again:
            check_state(again, done)
        npk_check(store)
    return killed, done.rows - len(ROWS) + done.saved + done.moved + done.cut


def main():
    mode = sys.argv[1]
    try:
        need_mode(mode)
    except Skip as e:
        print("skipped: %s" % e)
        return 77
    failed, acknowledged, n = 0, 0, 0
    for n in range(1, N_MAX):
        try:
            killed, steps = killed_at(mode, n)
            acknowledged += steps
        except (AssertionError, OSError, ValueError, MountFailed) as e:
            print("FAIL  killed at changing call %d: %s" % (n, e))
            failed, killed = failed + 1, True
        if not killed:
            break
    print("crash %s: killed at %d calls, %d failed, %d steps were acknowledged" % (mode, n - 1, failed, acknowledged))
    if n < 10 or n == N_MAX - 1 or acknowledged == 0:
        print("FAIL  the run proves nothing")
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
