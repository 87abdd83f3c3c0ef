# SPDX-License-Identifier: Apache-2.0
"""Many processes on several directories at once: create, append, read, stat, list, rename, link, truncate, unlink. Run on
the sanitizer builds: what they find ends the daemon, and that fails the test.

Usage: load.py passthrough|daemon"""

import errno
import io
import multiprocessing
import os
import random
import sys

import numpy as np

import mountlib
from mountlib import Mount, Skip

PROCESSES, STEPS = 6, 400
# What a name that another process has just taken away or made answers.
RACES = {errno.ENOENT, errno.EEXIST, errno.ESTALE, errno.ENOTEMPTY}


def array_bytes(rows):
    whole = io.BytesIO()
    np.save(whole, np.zeros((rows, 16), "f4"))
    return whole.getvalue()


def step(rng, mnt):
    d = "%s/d%d" % (mnt, rng.randrange(4))
    f = "%s/f%d.npy" % (d, rng.randrange(20))
    os.makedirs(d, exist_ok=True)
    what = rng.randrange(9)
    if what == 0:
        with open(f, "wb") as out:
            out.write(array_bytes(rng.randrange(3000)))
    elif what == 1:
        with open(f, "ab") as out:
            out.write(bytes(64) * rng.randrange(1, 20))
    elif what == 2:
        with open(f, "rb") as data:
            data.read()
    elif what == 3:
        os.stat(f)
    elif what == 4:
        os.rename(f, "%s/d%d/f%d.npy" % (mnt, rng.randrange(4), rng.randrange(20)))
    elif what == 5:
        os.unlink(f)
    elif what == 6:
        for entry in os.scandir(d):
            entry.stat()
    elif what == 7:
        os.link(f, "%s.%d" % (f, rng.randrange(5)))
    else:
        os.truncate(f, rng.randrange(1000))


def work(seed, mnt):
    rng, done = random.Random(seed), 0
    for _ in range(STEPS):
        try:
            step(rng, mnt)
            done += 1
        except OSError as e:
            if e.errno not in RACES:
                raise
    if done < STEPS // 10:
        raise AssertionError("only %d steps did anything" % done)


def main():
    mode = sys.argv[1]
    try:
        mountlib.need_mounts()
        m = Mount(mode)
    except Skip as e:
        print("skipped: %s" % e)
        return 77
    with m:
        if m.fact("health", "mode") != mode:
            print("skipped: %s" % m.fact("health", "mode_reason"))
            return 77
        processes = [multiprocessing.Process(target=work, args=(seed, m.mnt)) for seed in range(PROCESSES)]
        for p in processes:
            p.start()
        for p in processes:
            p.join()
        failed = [p.exitcode for p in processes if p.exitcode != 0]
        status = m.terminate() if m.alive() else "died"
        print("load %s: processes that failed %s, the daemon's end %s" % (mode, failed, status))
        return 1 if failed or status != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
