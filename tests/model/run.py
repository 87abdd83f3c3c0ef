# SPDX-License-Identifier: Apache-2.0
"""Random sequences of operations by several programs at once, against arrays of numpy in memory.

Usage: run.py passthrough|daemon [--seed N] [--steps N] [--seconds S] [--case FILE...] [--keep FOLDER]

A sequence that fails is made as short as it goes on failing, and printed as a case: tests/model/cases has those that were
found, and ctest plays them again. NPK_MODEL_SECONDS: how long new seeds are tried.
"""

import argparse
import glob
import json
import os
import signal
import sys
import time
import traceback

import numpy as np

import actors
import memory
from actors import World
from steps import NAMES, STEPS

import mountlib

FULL_EVERY = 12
COUNTS = {}


class Stuck(Exception):
    pass


def on_alarm(*_):
    raise Stuck("a step did not end within 60 s")


class Run:
    """One sequence on one store."""

    def __init__(self, mode):
        self.world = World(mode, mountlib.temp_base())
        self.arrays, self.batches, self.held = {}, {}, []
        self.trace, self.looks = [], []
        self.number = 0

    # -- what operations use -----------------------------------------------------------------------------------------

    def log(self, text):
        self.trace[-1] += " " + text

    def need(self, name):
        return self.arrays.get(name)

    def look_at(self, name):
        if name not in self.looks:
            self.looks.append(name)

    def act(self, what, fails=None, forced=True):
        """Do it. fails: errnos one of which it must fail with (forced), or may fail with."""
        end = time.monotonic() + 5
        while True:
            error, _, sentence = what()
            # RELEASE comes after close(2) has returned, so a writer may seem to live for a moment.
            if error is None or (fails and "EBUSY" in fails) or time.monotonic() > end or \
                    not (error == "EBUSY" or "for writing" in sentence):
                break
            time.sleep(0.002)
        self.trace[-1] += " -> %s" % (error or "ok")
        if error is None:
            if fails and forced:
                raise AssertionError("it succeeded; expected %s" % "/".join(sorted(fails)))
            return True
        if fails and (error in fails or error == "failed"):
            return False
        raise AssertionError("%s: %s%s" % (error, sentence, "; expected " + "/".join(sorted(fails)) if fails else ""))

    def with_tail(self, a):
        """A part of a row at the end: it is set aside where somebody saw it being written, else EBUSY."""
        return {"fails": {"EBUSY"}, "forced": False} if a.tail else {}

    def set_aside(self, name, a):
        """Rows were put where a part of a row had been: it has to be in a file of its own."""
        if not a.tail:
            return
        folder, leaf = os.path.split(os.path.join(self.world.store, name + ".npy"))
        for path in glob.glob(glob.escape(os.path.join(folder, leaf + ".tail")) + "*"):
            with open(path, "rb") as f:
                if f.read() == a.tail:
                    a.tail = b""
                    a.unsure += 1
                    return
        raise AssertionError("%d bytes of a part of a row are gone" % len(a.tail))

    def tail_may_have_gone(self, name):
        """The operation may have set a part of a row aside, or have left it."""
        a = self.arrays[name]
        if a.tail and self.world.lib("stat", name)[1].split(b"\t")[-1] == b"0":
            self.set_aside(name, a)

    def committed(self, name, a):
        if a is None:
            self.arrays.pop(name, None)  # it may have been made and removed in the batch
            return
        old = self.arrays.get(name)
        if old is not None and a.id != old.id:
            a.names = {}
        self.arrays[name] = a
        a.id = next(memory._ids)
        names = self.read_names("lib", name)
        if not names and a.names:  # a file that takes the name takes no names along
            a.names = {}

    def batches_gone(self, by):
        for id in [i for i, b in self.batches.items() if b.by == by and not b.kept]:
            del self.batches[id]
            self.world.lib("batch_close", id)

    def anything_may_have_moved(self):
        for a in self.arrays.values():
            a.unsure += 1

    # -- comparing ---------------------------------------------------------------------------------------------------

    def same(self, got, want, what):
        if got.dtype != want.dtype or got.shape != want.shape or got.tobytes() != want.tobytes():
            raise AssertionError("%s: %s%s instead of %s%s%s" % (what, got.dtype, got.shape, want.dtype, want.shape,
                                                               differences(got, want)))

    def same_bytes(self, got, want, what):
        if got != want:
            raise AssertionError("%s: %.200r instead of %.200r" % (what, got, want))

    def read_names(self, by, name):
        w = self.world
        if by in w.mounts:
            with open(w.control(by, name, "names")) as f:
                text = f.read()
        else:
            error, data, sentence = w.lib("names", name)
            if error:
                raise AssertionError("names: " + sentence)
            text = data.decode()
        return {n: (int(a), int(b)) for n, a, b in (line.split("\t") for line in text.splitlines())}

    def compare_through_mount(self, by, name, a):
        with open(self.world.place(by, name), "rb") as f:
            whole = f.read()
            f.seek(0)
            got = np.load(f)
            data = f.tell() - got.nbytes
            size = os.fstat(f.fileno()).st_size
        what = "%s through %s" % (name, by)
        self.same(got, a.shown, what)
        self.same_bytes(whole[data + got.nbytes:], a.tail, what + ": bytes behind the rows")
        self.same_bytes(size, len(whole), what + ": size")

    def compare(self, name, by):
        a, w = self.arrays.get(name), self.world
        if a is None:
            if by in w.mounts:
                mountlib.wait_until(lambda: not os.path.exists(w.place(by, name)), 5, "%s gone through %s" % (name, by))
            else:
                self.same_bytes(w.lib("stat", name)[0], "ENOENT", name)
            return
        if by in w.mounts:
            self.compare_through_mount(by, name, a)
        else:
            error, data, sentence = w.lib("read", name, ("all", "map")[self.number % 2])
            self.same_bytes(error or data, a.shown.tobytes(), "%s through the library %s" % (name, sentence))
            error, data, sentence = w.lib("stat", name)
            words = data.decode().split("\t")
            want = [",".join(map(str, a.shape)), str(a.rows), str(len(a.phys) - a.rows), str(len(a.phys)), str(len(a.tail))]
            self.same_bytes(words[1:], want, "%s: shape, rows, deleted, physical, tail" % name)
            error, data, sentence = w.lib("deleted", name)
            got = [tuple(map(int, line.split(b"\t"))) for line in data.splitlines()]
            self.same_bytes(error or got, a.deleted_ranges(), name + ": deleted rows " + sentence)
        self.same_bytes(self.read_names(by, name), a.shown_names(), "%s: names through %s" % (name, by))

    def compare_batch(self, b):
        for name in NAMES:
            if name not in b.changed or b.conflict(self.arrays) != "no":
                continue  # reading one would touch it
            a = b.changed[name]
            error, data, sentence = self.world.lib("batch_stat", b.id, name)
            if a is None:
                self.same_bytes(error, "ENOENT", "%s in the batch %s" % (name, b.id))
                continue
            self.same_bytes(error or data.split(b"\t")[1].decode(), ",".join(map(str, a.shape)),
                            "%s in the batch %s: shape %s" % (name, b.id, sentence))
            error, data, sentence = self.world.lib("batch_read", b.id, name)
            self.same_bytes(error or data, a.shown.tobytes(), "%s in the batch %s: rows %s" % (name, b.id, sentence))

    def compare_held(self):
        kept = []
        for name, a, rows, mapped in self.held:
            # Whoever replaces or cuts rows in place changes what others have mapped, as on any filesystem.
            if self.arrays.get(name) is a and a.version == 0:
                self.same(np.asarray(mapped), rows, "%s as it was mapped" % name)
                kept.append((name, a, rows, mapped))
        self.held = kept

    def compare_all(self):
        for by in ("m1", "m2", "lib"):
            for name in NAMES:
                self.compare(name, by)
        listed = sorted(self.world.lib("list")[1].decode().split())
        self.same_bytes(listed, sorted(self.arrays), "list")
        for m in self.world.mounts.values():
            def seen():
                return sorted(os.path.relpath(os.path.join(d, f), m.mnt)[:-4] for d, _, files in os.walk(m.mnt)
                              for f in files if f.endswith(".npy")) == sorted(self.arrays)
            mountlib.wait_until(seen, 5, "the listing of " + m.mnt)
        for b in self.batches.values():
            self.compare_batch(b)
        self.check()

    def check(self):
        error, data, sentence = self.world.lib("check", 0)
        if error:
            raise AssertionError("check: " + sentence)
        for line in data.decode(errors="replace").splitlines():
            severity, rule, path, text = line.split("\t", 3)
            a = self.arrays.get(path[:-4])
            if severity != "note" and not (rule == "F7" and a is not None and a.tail):
                raise AssertionError("npk check: " + line)

    # -- one step ----------------------------------------------------------------------------------------------------

    def step(self, s):
        what, by, name, seed = s
        self.number += 1
        self.trace.append("%4d %s by %s:" % (self.number, what, by))
        self.looks = [name]
        signal.alarm(60)
        STEPS[what][0](self, np.random.default_rng(seed), by, name)
        COUNTS[what] = COUNTS.get(what, 0) + 1
        for looked in self.looks:
            self.compare(looked, ("lib", "m1", "m2")[seed % 3])
        self.compare_held()
        if self.number % FULL_EVERY == 0:
            self.compare_all()
        signal.alarm(0)

    def close(self):
        signal.alarm(0)
        self.held.clear()
        self.world.close()


def differences(got, want):
    if got.dtype != want.dtype or got.shape != want.shape:
        return ""
    unlike = [i for i in range(len(got)) if got[i].tobytes() != want[i].tobytes()]
    return "; %d rows differ, from %d to %d" % (len(unlike), unlike[0], unlike[-1]) if unlike else ""


def generate(seed, count):
    rng = np.random.default_rng(seed)
    names, weights = list(STEPS), np.array([s[1] for s in STEPS.values()])
    chosen = rng.choice(len(names), count, p=weights / weights.sum())
    few = NAMES[:int(rng.integers(1, len(NAMES) + 1))]  # some sequences stay on one array
    out = []
    for i in chosen:
        what = names[int(i)]
        by = STEPS[what][2]
        out.append([what, by[int(rng.integers(0, len(by)))], few[int(rng.integers(0, len(few)))],
                    int(rng.integers(0, 1 << 31))])
    return [["save", "lib", n, i] for i, n in enumerate(few)] + out


def play(mode, steps, full_at_end=True):
    """None, or (number of the step that failed, what, trace)."""
    run = Run(mode)
    at = 0
    try:
        for at, s in enumerate(steps):
            run.step(s)
        at = len(steps)
        if full_at_end:
            signal.alarm(60)
            run.trace.append("at the end:")
            run.compare_all()
        return None
    except Exception as e:
        where = traceback.extract_tb(e.__traceback__)[-1]
        return at, "%s: %s [%s:%d]" % (type(e).__name__, e, os.path.basename(where.filename), where.lineno), run.trace
    finally:
        run.close()


def shrink(mode, steps, failed_at, seconds):
    """Leave out what can be left out (delta debugging); whatever fails counts as the failure."""
    steps, end = steps[:failed_at + 1], time.monotonic() + seconds
    best = play(mode, steps)
    if best is None:
        return steps, None
    size = max(1, len(steps) // 2)
    while size and time.monotonic() < end:
        at, shorter = 0, False
        while at < len(steps) and time.monotonic() < end:
            fewer = steps[:at] + steps[at + size:]
            again = play(mode, fewer) if fewer else None
            if again:
                steps, best, shorter = fewer[:again[0] + 1], again, True
            else:
                at += size
        if size == 1 and not shorter:
            break
        size = max(1, size // 2)
    return steps, best


def report(mode, seed, steps, failed, shrink_seconds, keep):
    print("FAIL  %s seed %s, step %d of %d: %s" % (mode, seed, failed[0] + 1, len(steps), failed[1]))
    print("\n".join(failed[2][-8:]), flush=True)
    fewer, again = shrink(mode, steps, failed[0], shrink_seconds)
    if again is None:
        print("The same steps did not fail again. All of them:")
        print("\n".join(failed[2]))
    else:
        print("%d steps are enough: %s" % (len(fewer), again[1]))
        print("\n".join(again[2]))
    case = json.dumps({"mode": mode, "steps": fewer})
    print("case: %s" % case, flush=True)
    if keep:
        os.makedirs(keep, exist_ok=True)
        with open(os.path.join(keep, "%s-%s.json" % (mode, seed)), "w") as f:
            f.write(case + "\n")
        with open(os.path.join(keep, "%s-%s.txt" % (mode, seed)), "w") as f:
            f.write("%s\n%s\n\n%s\n%s\n" % (failed[1], "\n".join(failed[2]), again and again[1],
                                            "\n".join(again[2]) if again else ""))


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("mode", choices=["passthrough", "daemon"])
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--seeds", type=int, default=1)
    p.add_argument("--steps", type=int, default=250)
    p.add_argument("--seconds", type=float, default=float(os.environ.get("NPK_MODEL_SECONDS", "0")))
    p.add_argument("--shrink", type=float, default=60)
    p.add_argument("--case", nargs="*")
    p.add_argument("--keep")
    return p.parse_args()


def main():
    args = arguments()
    try:
        mountlib.need_mounts()
        if not os.access(actors.LIBRARY, os.X_OK):
            raise mountlib.Skip("%s is not built" % actors.LIBRARY)
        with mountlib.Mount(args.mode) as m:
            if m.fact("health", "mode") != args.mode:
                raise mountlib.Skip(m.fact("health", "mode_reason"))
    except mountlib.Skip as e:
        print("skipped: %s" % e)
        return 77
    signal.signal(signal.SIGALRM, on_alarm)
    np.seterr(all="ignore")
    failures, begun, sequences = 0, time.monotonic(), 0
    if args.case is not None:
        for path in args.case:
            with open(path) as f:
                case = json.load(f)
            failed = play(args.mode, case["steps"])
            print("%s  %s" % ("FAIL" if failed else "ok  ", os.path.basename(path)))
            if failed:
                print(failed[1] + "\n" + "\n".join(failed[2]))
            failures += bool(failed)
            sequences += 1
    else:
        seed = args.seed
        while sequences < args.seeds or time.monotonic() - begun < args.seconds:
            steps = generate(seed, args.steps)
            failed = play(args.mode, steps)
            sequences += 1
            if failed:
                failures += 1
                report(args.mode, seed, steps, failed, args.shrink, args.keep)
            seed += 1
        print("seeds %d to %d of %s" % (args.seed, seed - 1, args.mode))
    print("%d operations in %d sequences, %.1f s, %d failures: %s" % (
        sum(COUNTS.values()), sequences, time.monotonic() - begun, failures,
        " ".join("%s %d" % c for c in sorted(COUNTS.items()))))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
