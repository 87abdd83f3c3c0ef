# SPDX-License-Identifier: Apache-2.0
"""Several processes do mixed work on one store, and every row is accounted for.

Usage: accounting.py passthrough|daemon [--seconds S] [--seed N] [--processes N]

Each row says who wrote it, its number there, which version of it this is, and repeats that in its last column. Each process
keeps a book of what it has been told is done: rows that it has appended, replaced, deleted. In the end every row of every
book is there once, in the version that was acknowledged last, unless it was deleted; no other row is; none is torn.
Reads in between must find whole rows, none twice, and all of their own. NPK_PROCESSES_SECONDS: how long it works.
"""

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "model"))

import actors  # noqa: F401 (finds mountlib)
import mountlib
from actors import LIBRARY, Library, errno_name, write_control
from mountlib import NPK, Mount, Skip

COLUMNS = 6  # writer, number, version, 2 of noise, sum
ARRAYS = ["x", "y", "g/z"]
# What somebody else at the same array, or a change that came first, answers.
LATER = {"EBUSY", "ESTALE", "EAGAIN"}


def rows_of(writer, numbers, version):
    r = np.empty((len(numbers), COLUMNS), "<i8")
    r[:, 0], r[:, 1], r[:, 2] = writer, numbers, version
    r[:, 3], r[:, 4] = r[:, 1] * 7, r[:, 2] * 11
    r[:, 5] = r[:, :5].sum(axis=1)
    return r


def torn(rows):
    return (rows[:, 5] != rows[:, :5].sum(axis=1)) | (rows[:, 3] != rows[:, 1] * 7) | (rows[:, 4] != rows[:, 2] * 11)


class Worker:
    def __init__(self, me, seed, store, mounts, end):
        self.me, self.rng, self.store, self.mounts, self.end = me, random.Random(seed), store, mounts, end
        self.book = {a: {} for a in ARRAYS}      # number -> version
        self.unsure = {a: {} for a in ARRAYS}    # number -> versions that it may have as well; None: it may be gone
        self.next = 0
        self.origin, self.steps, self.last = {}, 0, []
        self.lib = Library(store)
        self.done = {}

    def path(self, name):
        return os.path.join(self.rng.choice(self.mounts), name + ".npy")

    def fresh(self, most=20):
        n = self.rng.randrange(1, most)
        self.next += n
        return list(range(self.next - n, self.next))

    def said(self, what, error, sentence=""):
        """True: done; False: not done, nothing has happened."""
        if error is None:
            self.done[what] = self.done.get(what, 0) + 1
            return True
        if error not in LATER:
            raise AssertionError("%s: %s %s" % (what, error, sentence))
        return False

    def appended(self, name, numbers):
        self.book[name].update((n, 0) for n in numbers)
        for n in numbers:
            self.origin[n] = (self.last[-1], self.steps)

    # -- work ---------------------------------------------------------------------------------------------------------

    def append_mount(self, name):
        numbers = self.fresh()
        try:
            with open(self.path(name), "ab", buffering=0) as f:
                f.write(rows_of(self.me, numbers, 0).tobytes())
        except OSError as e:
            self.said("append_mount", errno_name(e.errno), str(e))
            return
        self.done["append_mount"] = self.done.get("append_mount", 0) + 1
        self.appended(name, numbers)

    def append_lib(self, name):
        numbers = self.fresh()
        error, _, why = self.lib("append", name, len(numbers), data=rows_of(self.me, numbers, 0).tobytes())
        if self.said("append_lib", error, why):
            self.appended(name, numbers)

    def append_cli(self, name):
        numbers = self.fresh()
        done = subprocess.run([NPK, "append", os.path.join(self.store, name + ".npy"), "-", "--raw"],
                              input=rows_of(self.me, numbers, 0).tobytes(), capture_output=True)
        if done.returncode == 0:
            self.done["append_cli"] = self.done.get("append_cli", 0) + 1
            self.appended(name, numbers)

    def append_many(self, _):
        numbers = {a: self.fresh() for a in ARRAYS}
        words, data = [], b""
        for a in ARRAYS:
            r = rows_of(self.me, numbers[a], 0).tobytes()
            words += [a, len(numbers[a]), len(r)]
            data += r
        error, _, why = self.lib("append_many", *words, data=data)
        if self.said("append_many", error, why):
            for a in ARRAYS:
                self.appended(a, numbers[a])

    def read(self, name):
        if self.rng.random() < 0.5:
            error, data, why = self.lib("read", name, "all")
            if not self.said("read_lib", error, why):
                return None
            rows = np.frombuffer(data, "<i8").reshape(-1, COLUMNS)
        else:
            try:
                rows = np.load(self.path(name))
            except OSError as e:
                self.said("read_mount", errno_name(e.errno), str(e))
                return None
            self.done["read_mount"] = self.done.get("read_mount", 0) + 1
        return rows

    def verify(self, name):
        rows = self.read(name)
        if rows is None:
            return
        try:
            verify(rows, self.me, self.book[name], self.unsure[name], name)
        except AssertionError as e:
            last = dict(self.done)
            time.sleep(1.5)
            rows = self.read(name)
            try:
                verify(rows, self.me, self.book[name], self.unsure[name], name)
                raise AssertionError("LATER RIGHT %s %s %s" % (e, self.last, last))
            except AssertionError as e2:
                have = set(rows[rows[:, 0] == self.me][:, 1].tolist())
                lost = [n for n in self.book[name] if n not in have]
                raise AssertionError("AGAIN %s %s now %d origins %s" % (e2, self.last, self.steps,
                                                                      [(n, self.origin[n]) for n in lost[:40]]))

    def drop_mine(self, name):
        """By a batch: what it has read must not have changed when it commits, so the numbering is still the one it read."""
        self.in_batch(name, "drop")

    def replace_mine(self, name):
        self.in_batch(name, "replace")

    def in_batch(self, name, what):
        id = "p%d" % self.me
        error, _, why = self.lib("batch_begin", id, "")
        if not self.said("batch", error, why):
            return
        error, data, why = self.lib("batch_read", id, name)
        if error == "ERANGE":
            error = "EAGAIN"  # npk-library asks for as many rows as there were a moment before
        if error is None:
            rows = np.frombuffer(data, "<i8").reshape(-1, COLUMNS)
            if torn(rows).any():
                raise AssertionError("torn rows in a batch")
            mine = [int(i) for i in np.flatnonzero(rows[:, 0] == self.me)]
            chosen = self.rng.sample(mine, min(len(mine), self.rng.randrange(1, 8)))
            numbers = [int(rows[i, 1]) for i in chosen]
            raw = np.asarray(chosen, "<i8").tobytes()
            if chosen and what == "drop":
                error, _, why = self.lib("batch_drop", id, name, len(rows), len(chosen), data=raw)
            elif chosen:
                new = np.concatenate([rows_of(self.me, [n], self.book[name][n] + 1) for n in numbers])
                error, _, why = self.lib("batch_replace", id, name, len(chosen), data=raw + new.tobytes())
            if chosen and error is None:
                error, _, why = self.lib("batch_commit", id)
                if self.said(what, error, why):
                    for n in numbers:
                        if what == "drop":
                            del self.book[name][n]
                        else:
                            self.book[name][n] += 1
                    return
        self.said("batch", error, why)
        self.lib("batch_abort", id)

    def replace_in_place(self, name):
        """Rows of this process at the end of the array, where nobody else's deletions move them: through a named range."""
        numbers = self.fresh(6)
        tag = "n%d" % self.me
        error, _, why = self.lib("name_remove", name, tag)
        if error not in (None, "ENOENT") and not self.said("name_remove", error, why):
            return
        error, _, why = self.lib("append_named", name, tag, len(numbers), data=rows_of(self.me, numbers, 0).tobytes())
        if self.said("append_named", error, why):
            self.appended(name, numbers)

    def compact(self, name):
        if self.rng.random() < 0.5:
            error, _, why = self.lib("compact", name)
        else:
            m = self.rng.choice(self.mounts)
            group, leaf = os.path.split(name)
            error, _, why = write_control(os.path.join(m, group, ".npk", leaf + ".npy", "compact"), "1\n")
        self.said("compact", error, why)

    def stat(self, name):
        os.stat(self.path(name))
        os.listdir(self.rng.choice(self.mounts))

    def work(self, books):
        actions = [self.append_mount, self.append_lib, self.append_cli, self.append_many, self.verify, self.drop_mine,
                   self.replace_mine, self.replace_in_place, self.compact, self.stat]
        weights = [6, 6, 1, 2, 4, 4, 4, 1, 1, 1]
        steps = 0
        while time.monotonic() < self.end:
            name = self.rng.choice(ARRAYS)
            action = self.rng.choices(actions, weights)[0]
            self.last = (self.last + [(action.__name__, name)])[-8:]
            self.steps += 1
            action(name)
            steps += 1
        self.lib.stop()
        books.put((self.me, self.book, self.unsure, self.done, steps))


def verify(rows, me, book, unsure, name):
    """The rows of one writer are those of its book."""
    bad = torn(rows)
    if bad.any():
        raise AssertionError("%s: %d torn rows, the first is %s" % (name, bad.sum(), rows[bad][0]))
    mine = rows[rows[:, 0] == me]
    found = dict(zip(mine[:, 1].tolist(), mine[:, 2].tolist()))
    if len(found) != len(mine):
        raise AssertionError("%s: %d rows of writer %d are there twice" % (name, len(mine) - len(found), me))
    lost = [n for n in book if n not in found]
    alien = [n for n in found if n not in book]
    other = [n for n in book if n in found and found[n] != book[n]]
    if lost or alien or other:
        raise AssertionError("%s, writer %d: %d rows lost %s, %d that were deleted or never written are there %s, %d in "
                             "another version %s" % (name, me, len(lost), lost[:5], len(alien), alien[:5], len(other),
                                                     [(n, found[n], book[n]) for n in other[:5]]))


def child(me, seed, store, mounts, end, books, errors):
    try:
        signal.alarm(int(end - time.monotonic()) + 90)
        Worker(me, seed, store, mounts, end).work(books)
    except BaseException as e:
        errors.put("process %d: %s: %s" % (me, type(e).__name__, e))
        raise SystemExit(1)


def account(m, second, args):
    for a in ARRAYS:
        os.makedirs(os.path.dirname(m.path(a + ".npy")), exist_ok=True)
        np.save(m.path(a + ".npy"), np.zeros((0, COLUMNS), "<i8"))
    books, errors = multiprocessing.Queue(), multiprocessing.Queue()
    end = time.monotonic() + args.seconds
    processes = [multiprocessing.Process(target=child, args=(i + 1, args.seed * 1000 + i, m.store, [m.mnt, second.mnt], end,
                                                             books, errors)) for i in range(args.processes)]
    for p in processes:
        p.start()
    told, failed = [], []
    limit = end + 100
    while len(told) < len(processes) and not failed and time.monotonic() < limit:
        while not errors.empty():
            failed.append(errors.get())
        try:
            told.append(books.get(timeout=0.5))
        except Exception:
            if all(not p.is_alive() for p in processes) and books.empty():
                break
    for p in processes:
        p.join(5)
        if p.is_alive():
            failed.append("a process hangs" + str(p.pid))
            p.kill()
    while not errors.empty():
        failed.append(errors.get())
    if failed or len(told) < len(processes):
        print("\n".join(failed) or "a process died")
        return 1
    return compare(m, second, told)


def compare(m, second, told):
    wrong, counts, steps, total = [], {}, 0, 0
    for a in ARRAYS:
        for top in (m.mnt, second.mnt, None):
            if top is None:
                error, data, why = Library(m.store)("read", a, "all")
                rows = np.frombuffer(data, "<i8").reshape(-1, COLUMNS)
            else:
                rows = np.load(os.path.join(top, a + ".npy"))
            try:
                for me, book, unsure, _, _ in told:
                    verify(rows, me, book[a], unsure[a], a)
                if len(rows) != sum(len(book[a]) for _, book, _, _, _ in told):
                    raise AssertionError("%s: rows of nobody" % a)
            except AssertionError as e:
                wrong.append("%s (%s)" % (e, top or "library"))
        total += len(rows)
    for _, _, _, done, n in told:
        steps += n
        for what, times in done.items():
            counts[what] = counts.get(what, 0) + times
    check = subprocess.run([NPK, "check", m.store], capture_output=True, text=True)
    wrong += [line for line in check.stdout.splitlines() if not line.startswith("note")]
    print("%d processes, %d steps, %d rows in the end: %s" % (len(told), steps, total,
                                                             " ".join("%s %d" % c for c in sorted(counts.items()))))
    print("\n".join(wrong[:20]) or "every row is accounted for")
    if not all(counts.get(w) for w in ("append_mount", "append_lib", "drop", "replace")):
        wrong.append("nothing was proved")
    return 1 if wrong else 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("mode", choices=["passthrough", "daemon"])
    p.add_argument("--seconds", type=float, default=float(os.environ.get("NPK_PROCESSES_SECONDS", "6")))
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--processes", type=int, default=8)
    args = p.parse_args()
    try:
        mountlib.need_mounts()
        if not os.access(LIBRARY, os.X_OK):
            raise Skip("%s is not built" % LIBRARY)
        with Mount(args.mode) as m:
            if m.fact("health", "mode") != args.mode:
                raise Skip(m.fact("health", "mode_reason"))
            other = "daemon" if args.mode == "passthrough" else "passthrough"
            with Mount(other, store=m.store, mnt=os.path.join(m.own, "second"), base=m.own) as second:
                return account(m, second, args)
    except Skip as e:
        print("skipped: %s" % e)
        return 77


if __name__ == "__main__":
    sys.exit(main())
