#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the mount against the directory below it: every row is the same work on both sides, turn by turn in one run,
medians of the repeats, and the ratio ours/native. Losing rows stay in the table.

    tests/bench/fs_bench.py [--dir DIR ...] [--size MIB] [--repeats N] [--quick] [--tsv FILE] [--only TEXT]

DIR is where stores are made (default: /dev/shm and /var/tmp, a tmpfs and a disk on most machines)."""
import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
NPKFS = os.environ.get("NPKFS_BIN", os.path.join(HERE, "../../build/bin/npkfs"))


class Mount:
    """A store in `base`, mounted with `options`; `native` is a directory beside it on the same filesystem."""

    def __init__(self, base, options=""):
        self.top = tempfile.mkdtemp(prefix="npkfs-bench.", dir=base)
        self.store, self.mnt, self.native = (os.path.join(self.top, d) for d in ("store", "mnt", "native"))
        for d in (self.store, self.mnt, self.native):
            os.mkdir(d)
        self.options = options

    def __enter__(self):
        argv = [NPKFS, self.store, self.mnt] + (["-o", self.options] if self.options else [])
        begin = time.perf_counter()
        subprocess.run(argv, check=True)
        self.mount_ms = (time.perf_counter() - begin) * 1e3
        return self

    def __exit__(self, *_):
        for _ in range(100):
            if subprocess.run(["umount", self.mnt], stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.05)
        shutil.rmtree(self.top, ignore_errors=True)

    def fact(self, name, key):
        with open(f"{self.mnt}/.npk/{name}") as f:
            return dict(line.rstrip("\n").split("\t", 1) for line in f)[key]

    def daemon_pid(self):
        return int(self.fact("store", "fd").split("/")[2])


def timed(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class Table:
    def __init__(self, args):
        self.args, self.rows = args, []

    def pair(self, name, where, bar, work, repeats=None, prepare=None, unit=None, per=1):
        """work(directory) on the native side and on ours, in turn; prepare(directory) before each, untimed."""
        if self.args.only and self.args.only not in name:
            return
        native, ours = [], []
        for i in range((repeats or self.args.repeats) + 1):
            for side, times in ((where.native, native), (where.mnt, ours)):
                if prepare:
                    prepare(side)
                t = timed(lambda: work(side))
                if i:  # the first turn warms both sides
                    times.append(t)
        n, o = statistics.median(native), statistics.median(ours)
        us = f"{o / per * 1e6:.1f} us each" if unit == "us" else f"{o:.4f} s"
        us_native = f"{n / per * 1e6:.1f} us" if unit == "us" else f"{n:.4f} s"
        self.add(name, where, us, us_native, f"{o / n:.2f}", bar)

    def add(self, name, where, ours, native, ratio, bar):
        row = (where.label, name, ours, native, ratio, bar)
        self.rows.append(row)
        print("{:<22} {:<44} {:>14} {:>12} {:>6}  {}".format(*row), flush=True)

    def write(self, path):
        with open(path, "w") as f:
            f.write("where\twork\tours\tnative\tratio\tbar\n")
            for row in self.rows:
                f.write("\t".join(row) + "\n")


def data_rows(table, m, mib, served):
    """Whole arrays: load, map, save, copy, append."""
    big = np.arange(mib * 2**18, dtype="f4").reshape(-1, 128)
    for d in (m.native, m.mnt):
        np.save(f"{d}/x.npy", big)
    order = np.random.default_rng(1).integers(0, len(big), 10000)
    scratch = os.path.join(m.top, "out")
    load_bar = "<= 1.5" if served else "<= 1.05"
    save_bar = ("<= 1.5" if m.is_tmpfs else "<= 2") if served else "<= 1.05"

    def random_rows(d):
        x = np.load(f"{d}/x.npy", mmap_mode="r")
        x[order].sum()

    def dd_append(d):
        subprocess.run(["dd", f"if={m.native}/raw", f"of={d}/app.npy", "bs=1M", "oflag=append", "conv=notrunc",
                        "status=none"], check=True)

    def fresh_array(d):
        np.save(f"{d}/app.npy", big[:1])

    table.pair(f"np.load {mib} MiB", m, load_bar, lambda d: np.load(f"{d}/x.npy"))
    table.pair(f"mmap + sum {mib} MiB", m, "-" if served else "<= 1.05", lambda d: np.load(f"{d}/x.npy", mmap_mode="r").sum())
    table.pair("10 000 random rows by memmap", m, "-" if served else "<= 1.05", random_rows)
    table.pair(f"np.save {mib} MiB", m, save_bar, lambda d: np.save(f"{d}/s.npy", big),
               prepare=lambda d: os.path.exists(f"{d}/s.npy") and os.remove(f"{d}/s.npy"))
    with open(f"{m.native}/raw", "wb") as f:
        f.write(big.tobytes())
    table.pair(f"dd bs=1M append {mib} MiB", m, "-" if served else "<= 1.15", dd_append, prepare=fresh_array)
    for d in (m.native, m.mnt):
        os.remove(f"{d}/app.npy")
    table.pair(f"cp in {mib} MiB", m, "-" if served else "<= 1.15",
               lambda d: subprocess.run(["cp", f"{m.native}/raw", f"{d}/c.raw"], check=True),
               prepare=lambda d: os.path.exists(f"{d}/c.raw") and os.remove(f"{d}/c.raw"))
    table.pair(f"cp out {mib} MiB", m, "-" if served else "<= 1.15",
               lambda d: subprocess.run(["cp", f"{d}/x.npy", scratch], check=True),
               prepare=lambda d: os.path.exists(scratch) and os.remove(scratch))


def call_rows(table, m, served):
    """Single calls, in loops long enough to time."""
    n = 2000
    small = np.zeros((1000000 if not table.args.quick else 10000, 10), "f4")
    rows = small[:100].tobytes()
    for d in (m.native, m.mnt):
        np.save(f"{d}/r.npy", small)
        np.save(f"{d}/a.npy", small)

    def open_read(d):
        p = f"{d}/r.npy"
        for _ in range(n):
            f = os.open(p, os.O_RDONLY)
            os.read(f, 4096)
            os.close(f)

    def append(d):
        p = f"{d}/a.npy"
        for _ in range(n):
            f = os.open(p, os.O_WRONLY | os.O_APPEND)
            os.write(f, rows)
            os.close(f)

    def stat(d):
        p = f"{d}/r.npy"
        for _ in range(n):
            os.stat(p)

    def lazy(d):
        p = f"{d}/r.npy"
        for _ in range(200):
            np.load(p, mmap_mode="r")

    table.pair("np.load(mmap_mode='r')", m, "-" if served else "<= 1.6", lazy, unit="us", per=200)
    table.pair("open + read 4K + close", m, "-" if served else "<= 8 us", open_read, unit="us", per=n)
    table.pair("open + append 100 rows + close", m, "-" if served else "<= 15 us", append, unit="us", per=n)
    table.pair("stat, name cached", m, "<= 1.3", stat, unit="us", per=n)


def many_rows(table, m, count):
    """Many small files: create them, list them."""
    def make(d):
        os.mkdir(f"{d}/many")
        for i in range(count):
            f = os.open(f"{d}/many/{i:06d}.npy", os.O_CREAT | os.O_WRONLY, 0o644)
            os.write(f, b"x" * 4096)
            os.close(f)

    def remake(d):
        shutil.rmtree(f"{d}/many", ignore_errors=True)

    table.pair(f"create + write 4 KB + close, {count} files", m, "<= 5 (disk)", make, prepare=remake, repeats=3, unit="us",
               per=count)
    table.pair(f"ls -l of {count} arrays", m, "<= 1.6",
               lambda d: subprocess.run(["ls", "-l", f"{d}/many"], stdout=subprocess.DEVNULL, check=True))


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def big_store(table, base, label, count):
    """Mount a store of many arrays; the daemon's memory after a walk over all, and after the kernel forgot them."""
    m = Mount(base)
    m.label, m.is_tmpfs = label, True
    for i in range(count):
        os.close(os.open(f"{m.store}/{i:06d}.npy", os.O_CREAT | os.O_WRONLY))
    with m:
        table.add(f"mount a store of {count} arrays", m, f"{m.mount_ms:.0f} ms", "-", "-", "<= 50 ms")
        pid = m.daemon_pid()
        subprocess.run(["find", m.mnt, "-size", "+1k"], stdout=subprocess.DEVNULL, check=True)
        table.add("daemon resident after find over all", m, f"{memory_kib(pid) / 1024:.1f} MiB", "-", "-", "<= 64 MiB")
        try:
            with open("/proc/sys/vm/drop_caches", "w") as f:
                f.write("2\n")
        except OSError as e:
            print(f"skipped: what is left after the kernel forgot the names ({e.strerror})")
            return
        for _ in range(60):
            if int(m.fact("stats", "nodes_known")) < 100 and memory_kib(pid) < 16 * 1024:
                break
            time.sleep(0.1)
        table.add("... and after the kernel forgot them", m, f"{memory_kib(pid) / 1024:.1f} MiB", "-", "-", "<= 16 MiB")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--dir", action="append")
    ap.add_argument("--size", type=int, default=1024, help="MiB of the large array (1024)")
    ap.add_argument("--repeats", type=int, default=5)
    ap.add_argument("--quick", action="store_true", help="small sizes: for trying the benchmark itself")
    ap.add_argument("--tsv")
    ap.add_argument("--only", help="rows whose name contains this")
    args = ap.parse_args()
    if args.quick:
        args.size, args.repeats = 64, 3
    with open("/proc/cpuinfo") as f:
        cpu = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())
    print(f"machine: {cpu}, {os.cpu_count()} cores, Linux {platform.release()}, numpy {np.__version__}; medians of {args.repeats}")
    table = Table(args)
    for base in args.dir or ["/dev/shm", "/var/tmp"]:
        kind = subprocess.run(["stat", "-f", "-c", "%T", base], capture_output=True, text=True).stdout.strip()
        for options, served in (("", False), ("passthrough=off", True)):
            with Mount(base, options) as m:
                mode = m.fact("health", "mode")
                m.label, m.is_tmpfs = f"{kind} {mode}", kind == "tmpfs"
                if not served and mode != "passthrough":
                    print(f"skipped: passthrough on {base} ({m.fact('health', 'mode_reason')})")
                    continue
                data_rows(table, m, args.size, served)
                call_rows(table, m, served)
                many_rows(table, m, 1000 if args.quick else 10000)
        big_store(table, base, kind, 2000 if args.quick else 100000)
    if args.tsv:
        table.write(args.tsv)


if __name__ == "__main__":
    sys.exit(main())
