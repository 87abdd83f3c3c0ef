# SPDX-License-Identifier: Apache-2.0
"""The folder search/ of an array: queries written as files, answers read as files.

Usage: search.py passthrough|daemon [WORD...]"""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np

import mountlib
from harness import err, expect, main_on_mounts, test
from mountlib import NPK

RNG = np.random.default_rng(9)
X = RNG.standard_normal((2000, 16)).astype("f4")


def made(m, array=X, name="x.npy"):
    os.makedirs(os.path.dirname(m.path(name)), exist_ok=True)
    np.save(m.path(name), array)
    return m.control(name, "search")


def best(x, q, k):
    """Rows by cosine, as numpy has them."""
    scores = (x.astype("f8") @ q.astype("f8")) / np.linalg.norm(x.astype("f8"), axis=1) / np.linalg.norm(q.astype("f8"))
    return np.lexsort((np.arange(len(x)), -scores))[:k]


def read(path):
    with open(path) as f:
        return f.read()


def by_cli(m, q, k, metric="cosine", name="x.npy"):
    np.save(m.path("cli-query.npy"), q)
    out = subprocess.run([NPK, "search", m.path(name), m.path("cli-query.npy"), "-m", metric, "-k", str(k)], check=True,
                         capture_output=True, text=True).stdout
    os.unlink(m.path("cli-query.npy"))
    return out


@test
def one_query(m):
    folder = made(m)
    q = RNG.standard_normal(16).astype("f4")
    np.save(folder + "/q.npy", q)
    expect(np.array_equal(np.load(folder + "/q.npy"), q), True)
    hits = np.load(folder + "/q.cosine.10.npy")
    expect(hits.dtype.names, ("index", "score"))
    expect(hits.shape, (10,))
    expect(hits["index"].tolist(), best(X, q, 10).tolist())
    expect(read(folder + "/q.cosine.10.tsv"), by_cli(m, q, 10))
    expect(np.array_equal(np.load(folder + "/q.cosine.10.rows.npy"), X[best(X, q, 10)]), True)
    expect(np.load(folder + "/q.l2.3.npy")["index"].tolist(), np.argsort(((X - q) ** 2).sum(1))[:3].tolist())


@test
def many_queries(m):
    folder = made(m, X, "deep/er/x.npy")
    q = RNG.standard_normal((7, 16))
    np.save(folder + "/many.npy", q)
    hits = np.load(folder + "/many.cosine.5.npy")
    expect(hits.shape, (7, 5))
    expect(hits["index"].tolist(), [best(X, one, 5).tolist() for one in q])
    expect(np.load(folder + "/many.cosine.5.rows.npy").shape, (7, 5, 16))
    expect(read(folder + "/many.cosine.5.tsv"), by_cli(m, q, 5, name="deep/er/x.npy"))
    lines = read(folder + "/many.cosine.5.tsv").splitlines()
    expect(lines[5].split("\t")[:2], ["1", str(hits[1, 0]["index"])])


@test
def shell_tools_alone(m):
    folder = made(m)
    np.save(m.path("question.npy"), X[77])
    done = subprocess.run(["sh", "-c", f"cp question.npy {folder}/q.npy && cut -f 1 {folder}/q.cosine.1.tsv && ls {folder} && "
                           f"cat {folder}/q.cosine.1.tsv {folder}/q.cosine.1.tsv | wc -l"], cwd=m.mnt, capture_output=True, text=True)
    expect(done.stderr, "")
    expect(done.stdout.split()[0], "77")
    expect(sorted(done.stdout.split()[1:-1]), ["q.cosine.1.tsv", "q.npy"])
    expect(done.stdout.split()[-1], "2")


@test
def answers_follow_query_and_array(m):
    folder = made(m)
    np.save(folder + "/q.npy", X[5])
    expect(np.load(folder + "/q.l2.1.npy")["index"].tolist(), [5])
    np.save(folder + "/q.npy", X[6])
    expect(np.load(folder + "/q.l2.1.npy")["index"].tolist(), [6])
    with open(m.path("x.npy"), "ab") as f:
        f.write((X[6:7] * 0.5).tobytes() + X[6:7].tobytes())
    expect(np.load(folder + "/q.l2.2.npy")["index"].tolist(), [6, 2001])
    expect(np.load(folder + "/q.cosine.3.npy")["index"].tolist()[:1], [6])
    subprocess.run([NPK, "replace", m.path("x.npy"), "100", "-"], check=True, input=X[6:7].tobytes())
    expect(np.load(folder + "/q.l2.3.npy")["index"].tolist(), [6, 100, 2001])


@test
def removed_and_forgotten(m):
    folder = made(m)
    np.save(folder + "/q.npy", X[5])
    np.save(folder + "/r.npy", X[6])
    np.load(folder + "/q.l2.1.npy")
    np.load(folder + "/r.l2.1.npy")
    os.unlink(folder + "/q.npy")
    expect(sorted(os.listdir(folder)), ["r.l2.1.npy", "r.npy"])
    expect(err(open, folder + "/q.l2.1.npy"), "ENOENT")
    expect(err(os.stat, folder + "/q.npy"), "ENOENT")
    os.unlink(folder + "/r.l2.1.npy")
    expect(os.listdir(folder), ["r.npy"])
    expect(np.load(folder + "/r.l2.1.npy")["index"].tolist(), [6])
    m.remount()
    expect(os.listdir(folder), [])
    expect(sorted(os.listdir(m.mnt)), ["x.npy"])


@test
def refused(m):
    folder = made(m)
    last = m.control("x.npy", "last_error")
    np.save(folder + "/q.npy", X[5])
    for name in ("q.nearest.5.npy", "q.cosine.npy", "q.cosine.x.npy", "p.cosine.5.npy", "q.cosine.5", "cosine.5.npy"):
        expect(err(os.stat, f"{folder}/{name}"), "ENOENT", name)
    expect(err(open, folder + "/q.cosine.5.npy", "wb"), "EACCES")
    expect(err(open, folder + "/p.cosine.5.npy", "wb"), "EACCES")
    expect(err(open, folder + "/notes.txt", "wb"), "EACCES")
    expect(err(os.mkdir, folder + "/d"), "EPERM")
    expect(err(os.rename, folder + "/q.npy", folder + "/r.npy"), "EPERM")
    np.save(folder + "/q.npy", np.zeros(17, "f4"))
    expect(err(open, folder + "/q.cosine.5.npy"), "EINVAL")
    expect(read(last), "search/q.cosine.5.npy: \"q.npy\": queries of 17 elements; the array's rows have 16\n")
    with open(folder + "/q.npy", "wb") as f:
        f.write(b"what is near?")
    expect(err(open, folder + "/q.cosine.5.tsv"), "EINVAL")
    np.save(folder + "/q.npy", X[5])
    expect(err(open, folder + "/q.hamming.5.tsv"), "EOPNOTSUPP")
    expect("packed bits" in read(last), True, read(last))
    expect(np.load(folder + "/q.cosine.0.npy").shape, (0,))
    expect(np.load(folder + "/q.cosine.99999.npy").shape, (2000,))


@test
def deleted_rows_are_no_answers(m):
    folder = made(m)
    q = X[50]
    np.save(folder + "/q.npy", q)
    first = np.load(folder + "/q.cosine.5.npy")["index"]
    expect(first[0], 50)
    expect(subprocess.run([NPK, "drop", m.below("x.npy"), "50"]).returncode, 0)
    live = np.delete(X, 50, axis=0)
    expect(np.load(folder + "/q.cosine.5.npy")["index"].tolist(), best(live, q, 5).tolist())


def states(m):
    """What the daemon's threads do, R: they compute."""
    pid = m.pid
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            found.append(open(f"/proc/{pid}/task/{task}/stat").read().rsplit(")", 1)[1].split()[0])
        except OSError:
            pass
    return found


@test
def given_up(m):
    """A reader that is killed ends the search; others are served."""
    folder = made(m, RNG.standard_normal((300000, 64)).astype("f4"))
    np.save(folder + "/many.npy", RNG.standard_normal((3000, 64)).astype("f4"))
    np.save(folder + "/one.npy", RNG.standard_normal(64).astype("f4"))
    child = subprocess.Popen(["cat", folder + "/many.l2.10.tsv"], stdout=subprocess.DEVNULL)
    mountlib.wait_until(lambda: sum(t.startswith("R") for t in states(m)) > 0, what="a search under way")
    expect(read(m.control("x.npy", "shape")), "300000,64\n")
    child.send_signal(signal.SIGKILL)
    child.wait()
    begin = time.monotonic()
    expect(np.load(folder + "/one.l2.3.npy").shape, (3,))
    expect(time.monotonic() - begin < 5, True, "the search went on after its reader was gone")


@test
def many_readers_at_once(m):
    folder = made(m)
    for i in range(8):
        np.save(f"{folder}/q{i}.npy", X[i])
    wrong = []

    def work(i):
        for turn in range(5):
            hits = np.load(f"{folder}/q{(i + turn) % 8}.l2.4.npy")
            if hits["index"][0] != (i + turn) % 8:
                wrong.append(i)
            if i == 0:
                np.save(f"{folder}/other.npy", X[turn])
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    expect(wrong, [])


@test
def memory_is_bounded(m):
    folder = made(m)
    expect(err(lambda: open(folder + "/big.npy", "wb").truncate(100 << 20)), "EFBIG")
    taken = 0
    for i in range(8):
        with open(f"{folder}/b{i}.npy", "wb", buffering=0) as f:
            try:
                for _ in range(60):
                    f.write(b"x" * (1 << 20))
                    taken += 1
            except OSError as e:
                expect(e.errno, errno.ENOSPC)
                break
    expect(taken, 256)
    for name in os.listdir(folder):
        os.unlink(f"{folder}/{name}")
    np.save(folder + "/q.npy", X[5])
    expect(np.load(folder + "/q.l2.1.npy")["index"].tolist(), [5])


def main():
    return main_on_mounts("search")


if __name__ == "__main__":
    sys.exit(main())
