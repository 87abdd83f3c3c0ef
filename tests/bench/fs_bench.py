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


class Floor:
    """The cheapest FUSE server that there can be (fuse_floor.c), over a directory of its own in the mount's scratch: what
    FUSE costs on this machine. `mnt` is None where it cannot be had."""

    def __init__(self, m):
        self.dir, self.mnt, self.child = os.path.join(m.top, "floor"), None, None
        at, program = os.path.join(m.top, "floor-mnt"), os.path.join(m.top, "fuse_floor")
        os.mkdir(self.dir)
        os.mkdir(at)
        cc = shutil.which("cc") or shutil.which("gcc")
        if os.geteuid() or not cc or subprocess.run([cc, "-O2", os.path.join(HERE, "fuse_floor.c"), "-o", program]).returncode:
            print("skipped: the floor of FUSE (needs root and a C compiler)")
            return
        self.child = subprocess.Popen([program, self.dir, at])
        while not os.path.ismount(at):
            if self.child.poll() is not None:
                return
            time.sleep(0.01)
        self.mnt = at

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.mnt:
            subprocess.run(["umount", "-l", self.mnt])
            self.child.wait()


def timed(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class Table:
    def __init__(self, args):
        self.args, self.rows = args, []

    def pair(self, name, where, bar, work, repeats=None, prepare=None, unit=None, per=1, floor=None):
        """work(directory) on the native side and on ours (and on the floor), in turn; prepare(directory) before each,
        untimed."""
        if self.args.only and self.args.only not in name:
            return
        native, ours, least = [], [], []
        sides = [(where.native, native), (where.mnt, ours)] + ([(floor.mnt, least)] if floor and floor.mnt else [])
        for i in range((repeats or self.args.repeats) + 1):
            for side, times in sides:
                if prepare:
                    prepare(side)
                    os.sync()  # what the turn before left to be written falls on neither side
                t = timed(lambda: work(side))
                if i:  # the first turn warms both sides
                    times.append(t)
        n, o = statistics.median(native), statistics.median(ours)
        us = f"{o / per * 1e6:.1f} us each" if unit == "us" else f"{o:.4f} s"
        us_native = f"{n / per * 1e6:.1f} us" if unit == "us" else f"{n:.4f} s"
        low = statistics.median(least) if least else None
        self.add(name, where, us, us_native, f"{o / n:.2f}", bar,
                 "-" if low is None else f"{low / per * 1e6:.1f} us" if unit == "us" else f"{low:.4f} s")

    def add(self, name, where, ours, native, ratio, bar, floor="-"):
        row = (where.label, name, ours, native, ratio, bar, floor)
        self.rows.append(row)
        print("{:<22} {:<44} {:>14} {:>12} {:>6}  {:<12} {}".format(*row), flush=True)

    def write(self, path):
        with open(path, "w") as f:
            f.write("where\twork\tours\tnative\tratio\tbar\tfloor of FUSE\n")
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
        if os.path.exists(f"{d}/app.npy"):
            os.remove(f"{d}/app.npy")
    table.pair(f"cp in {mib} MiB", m, "-" if served else "<= 1.15",
               lambda d: subprocess.run(["cp", f"{m.native}/raw", f"{d}/c.raw"], check=True),
               prepare=lambda d: os.path.exists(f"{d}/c.raw") and os.remove(f"{d}/c.raw"))
    table.pair(f"cp out {mib} MiB", m, "-" if served else "<= 1.15",
               lambda d: subprocess.run(["cp", f"{d}/x.npy", scratch], check=True),
               prepare=lambda d: os.path.exists(scratch) and os.remove(scratch))


def call_rows(table, m, floor, served):
    """Single calls, in loops long enough to time."""
    n = 2000
    small = np.zeros((1000000 if not table.args.quick else 10000, 10), "f4")
    rows = small[:100].tobytes()
    for d in (m.native, m.mnt, floor.dir):
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

    table.pair("np.load(mmap_mode='r')", m, "-" if served else "<= 1.6", lazy, unit="us", per=200, floor=floor)
    table.pair("open + read 4K + close", m, "-" if served else "<= 8 us", open_read, unit="us", per=n, floor=floor)
    table.pair("open + append 100 rows + close", m, "-" if served else "<= 15 us", append, unit="us", per=n, floor=floor)
    table.pair("stat, name cached", m, "<= 1.3", stat, unit="us", per=n)


def many_rows(table, m, floor, count):
    """Many small files: create them, list them. Every turn takes new names: ext4 looks long for inodes that were not freed
    in the last seconds, so that files which were deleted between the turns would be the measurement."""
    turn = dict.fromkeys((m.native, m.mnt, floor.mnt), 0)

    def make(d):
        for i in range(count):
            f = os.open(f"{d}/m{turn[d]}-{i:06d}.npy", os.O_CREAT | os.O_WRONLY, 0o644)
            os.write(f, b"x" * 4096)
            os.close(f)
        turn[d] += 1

    table.pair(f"create + write 4 KB + close, {count} files", m, "<= 5 (disk)", make, unit="us", per=count, floor=floor)
    table.pair(f"ls -l of {count * turn[m.native]} arrays", m, "<= 1.6",
               lambda d: subprocess.run(["ls", "-l", d], stdout=subprocess.DEVNULL, check=True))


def view_rows(table, m, mib):
    """An array of 512-byte rows of which 10 % are deleted, against a native file of what is left."""
    n = mib * 2048
    rng = np.random.default_rng(2)
    gone = np.flatnonzero(rng.random(n) < 0.1)
    x = np.arange(n * 128, dtype="f4").reshape(n, 128)
    np.save(f"{m.mnt}/v.npy", x)
    np.save(f"{m.native}/v.npy", np.delete(x, gone, 0))
    np.save(f"{m.native}/gone.npy", gone)
    del x
    npk = os.path.join(os.path.dirname(NPKFS), "npk")
    subprocess.run([npk, "drop", f"{m.store}/v.npy", f"{m.native}/gone.npy"], check=True)
    buffer = bytearray(1 << 20)

    def read(d):
        f = os.open(f"{d}/v.npy", os.O_RDONLY)
        while os.readv(f, [buffer]):
            pass
        os.close(f)

    def renumber(d):  # a row less: nothing that was read before is of use
        if d == m.mnt:
            subprocess.run([npk, "drop", f"{m.store}/v.npy", "0"], check=True)

    def sum_mapped(d):
        np.load(f"{d}/v.npy", mmap_mode="r").sum()

    table.pair("view: read, first time", m, "<= 1.8", read, prepare=renumber)
    table.pair("view: read, again", m, "-", read)
    table.pair("view: np.load, first time", m, "<= 1.4", lambda d: np.load(f"{d}/v.npy"), prepare=renumber)
    table.pair("view: np.load, again", m, "-", lambda d: np.load(f"{d}/v.npy"))
    table.pair("view: mmap + sum, first time", m, "<= 3.5", sum_mapped, prepare=renumber)
    table.pair("view: mmap + sum, again (new mapping)", m, "-", sum_mapped)
    kept = {d: np.load(f"{d}/v.npy", mmap_mode="r") for d in (m.native, m.mnt)}
    table.pair("view: sum of the same mapping", m, "<= 1.5", lambda d: kept[d].sum())
    kept.clear()


def memory_kib(pid):
    """Resident memory, counted: VmRSS of newer kernels may lag by many MiB after a process gave memory back."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Rss:"))


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


def touch_memory():
    """A virtual machine gets its memory from the host at the first touch, which costs more than anything measured here:
    have free memory touched once, so that it falls on neither side."""
    with open("/proc/meminfo") as f:
        free = next(int(line.split()[1]) for line in f if line.startswith("MemFree"))
    zeros = np.zeros(64 << 20, "u1")
    with tempfile.TemporaryFile(dir="/dev/shm") as f:
        for _ in range(int(free * 0.8) >> 16):
            try:
                f.write(zeros)
            except OSError:
                return


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--dir", action="append")
    ap.add_argument("--size", type=int, default=1024, help="MiB of the large array (1024)")
    ap.add_argument("--repeats", type=int, default=5)
    ap.add_argument("--quick", action="store_true", help="small sizes: for trying the benchmark itself")
    ap.add_argument("--tsv")
    ap.add_argument("--only", help="rows whose name contains this")
    ap.add_argument("--parts", default="data,views,calls,many,big", help="which of data, views, calls, many, big (all)")
    args = ap.parse_args()
    if args.quick:
        args.size, args.repeats = 64, 3
    with open("/proc/cpuinfo") as f:
        cpu = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())
    print(f"machine: {cpu}, {os.cpu_count()} cores, Linux {platform.release()}, numpy {np.__version__}; medians of {args.repeats}")
    touch_memory()
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
                if "views" in args.parts and not served:
                    view_rows(table, m, args.size)
                if "data" in args.parts:
                    data_rows(table, m, args.size, served)
                with Floor(m) as floor:
                    if "calls" in args.parts:
                        call_rows(table, m, floor, served)
                    if "many" in args.parts:
                        many_rows(table, m, floor, 1000 if args.quick else 10000)
        if "big" in args.parts:
            big_store(table, base, kind, 2000 if args.quick else 100000)
    if args.tsv:
        table.write(args.tsv)


if __name__ == "__main__":
    sys.exit(main())
