#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Search against the limits of the machine and against other libraries, in one interleaved run.

Usage: NPK_LIB=.../libnpk.so search_bench.py [--rows N] [--repeats N] [--dir DIR] [--disk DIR] [SECTION...]

Each line of the TSV is a ratio of times, ours over the other's (below 1: ours is faster), medians of repeats taken in
turn; for rows "of peak" it is the share of the peak that we reach. `bar` is what is aimed at; a row that misses it
stays in the table. Both sides use two threads; FAISS also one, and its BLAS path for few queries. Peers are those of
requirements.txt that can be imported.
"""
import argparse
import ctypes
import mmap
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "search"))
THREADS = 2
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(THREADS)
# Threads of a pool that wait by spinning would take the core from whoever is measured next.
os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0", KMP_BLOCKTIME="0")

import numpy as np  # noqa: E402

import npk  # noqa: E402

MAP, READ = 2, 1


def attempt(name):
    try:
        return __import__(name)
    except Exception as error:  # a peer that cannot be loaded is left out, whatever the reason
        print(f"# without {name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
        return None


def clock(work):
    time.sleep(0.02)
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def interleaved(contenders, repeats):
    """Median seconds of each; one that is far behind after its first turn is not asked again."""
    times = {name: [] for name in contenders}
    for name in list(contenders):
        try:
            contenders[name]()
            times[name].append(clock(contenders[name]))
        except Exception as error:
            print(f"# {name}: {str(error).splitlines()[0][:100]}")
            del contenders[name], times[name]
    best = min(t[0] for t in times.values())
    for _ in range(repeats - 1):
        for name, work in contenders.items():
            if times[name][0] <= 4 * best or name in ("npk", "limit"):
                times[name].append(clock(work))
    return {name: statistics.median(t) for name, t in times.items()}


class Limits:
    def __init__(self, folder):
        library = pathlib.Path(folder, "limits.so")
        subprocess.run([os.environ.get("CC", "cc"), "-O3", "-march=native", "-shared", "-fPIC", "-pthread", "-o", library,
                        HERE / "search_limits.c"], check=True)
        self.lib = ctypes.CDLL(str(library))
        for name in ("limit_read", "limit_pread", "limit_fma", "limit_vnni"):
            getattr(self.lib, name).restype = ctypes.c_double
        self.buffers = np.zeros(THREADS << 20, "u1")

    def read(self, address, size):
        self.lib.limit_read(ctypes.c_void_p(address), ctypes.c_size_t(size), THREADS)

    def pread(self, fd, size):
        self.lib.limit_pread(fd, ctypes.c_size_t(size), ctypes.c_void_p(self.buffers.ctypes.data), THREADS)

    def fma(self):
        return max(self.lib.limit_fma(ctypes.c_double(2e7), THREADS) for _ in range(3))

    def vnni(self):
        return max(self.lib.limit_vnni(ctypes.c_double(2e7), THREADS) for _ in range(3))


class Bench:
    def __init__(self, options, folder):
        self.rows, self.repeats = options.rows, options.repeats
        self.folder, self.disk = pathlib.Path(folder), options.disk
        self.rng = np.random.default_rng(1)
        self.limits = Limits(folder)
        self.fma_peak = self.limits.fma()
        self.vnni_peak = self.limits.vnni()
        self.simsimd = attempt("simsimd")  # once usearch is loaded it refuses all arrays
        self.faiss, self.torch, self.sklearn = attempt("faiss"), attempt("torch"), attempt("sklearn.neighbors")
        self.usearch, self.numpack = attempt("usearch.index"), attempt("numpack")
        if self.torch:
            self.torch.set_num_threads(THREADS)
        if self.faiss:
            self.faiss.omp_set_num_threads(THREADS)
        print(f"# fma {self.fma_peak / 1e9:.0f} GFLOP/s, int8 {self.vnni_peak / 1e9:.0f} GOP/s, {THREADS} threads")

    def line(self, work, against, ours, other, ratio, bar, share=False):
        met = ratio >= bar if share else ratio <= bar
        print(f"{work}\t{against}\t{ours * 1e3:.2f}\t{other * 1e3:.2f}\t{ratio:.3f}\t{'>=' if share else '<='}{bar}\t"
              f"{'met' if met else 'MISSED'}", flush=True)

    def save(self, name, make):
        path = self.folder / f"{name}.npy"
        if not path.exists():
            np.save(path, make())
        return path

    # ---- peers: name -> work ---------------------------------------------------------------------------------------

    def faiss_flat(self, x, q, metric, k):
        faiss = self.faiss
        if metric == "cosine":
            x, q = x / np.linalg.norm(x, axis=1, keepdims=True), q / np.linalg.norm(q, axis=1, keepdims=True)
        index = faiss.IndexFlatL2(x.shape[1]) if metric == "l2" else faiss.IndexFlatIP(x.shape[1])
        index.add(x)

        def work(threads, blas):
            faiss.omp_set_num_threads(threads)
            faiss.cvar.distance_compute_blas_threshold = blas
            index.search(q, k)

        default = faiss.cvar.distance_compute_blas_threshold
        return {"faiss": lambda: work(THREADS, default), "faiss 1 thread": lambda: work(1, default),
                "faiss blas": lambda: work(THREADS, 1)}

    def torch_topk(self, x, q, metric, k):
        torch = self.torch
        tx, tq = torch.from_numpy(x), torch.from_numpy(q)
        squares = (tx * tx).sum(1)
        norms = squares.sqrt()

        def work():
            scores = tq @ tx.T
            if metric == "l2":
                scores = scores * 2 - squares
            elif metric == "cosine":
                scores = scores / norms
            scores.topk(k)

        return {"torch": work}

    def peers_f32(self, x, q, metric, k):
        found = {}
        if self.faiss:
            found.update(self.faiss_flat(x, q, metric, k))
        if self.torch and len(q) <= 100:
            found.update(self.torch_topk(x, q, metric, k))
        if self.sklearn and metric == "l2":
            near = self.sklearn.neighbors.NearestNeighbors(n_neighbors=k, algorithm="brute", n_jobs=THREADS).fit(x)
            found["scikit-learn"] = lambda: near.kneighbors(q)
        if self.usearch and len(q) <= 10:
            from usearch.index import MetricKind, search
            kind = {"dot": MetricKind.IP, "l2": MetricKind.L2sq, "cosine": MetricKind.Cos}[metric]
            found["usearch"] = lambda: search(x, q, k, kind, exact=True, threads=THREADS)
        if self.simsimd and len(q) == 1:
            name = {"dot": "inner", "l2": "sqeuclidean", "cosine": "cosine"}[metric]
            found["simsimd"] = lambda: np.argpartition(np.asarray(self.simsimd.cdist(q, x, metric=name, threads=THREADS))[0], k)
        if self.numpack and len(q) == 1:
            engine = self.numpack.VectorEngine()
            found["numpack"] = lambda: engine.top_k_search(q[0], x, metric, k)
        return found

    # ---- one comparison --------------------------------------------------------------------------------------------

    def compare(self, work, path, q, metric, peers=None, bar_peer=None, bar_read=None, peak=None, bar_peak=None, k=10, item=1):
        """Our search over the mapped file, the limit and the peers, in turn."""
        x = np.load(path, mmap_mode="r")
        contenders = dict(peers or {})
        with npk.Array(path) as array:
            contenders["npk"] = lambda: npk.search(array, q, metric, k, flags=MAP, threads=THREADS)
            if bar_read:
                contenders["limit"] = lambda: self.limits.read(x.ctypes.data, x.nbytes)
            times = interleaved(contenders, self.repeats)
        ours = times.pop("npk")
        if bar_read:
            limit = times.pop("limit")
            self.line(work, "reading the bytes", ours, limit, ours / limit, bar_read)
        if bar_peer and times:
            best = min(times, key=times.get)
            self.line(work, f"best peer: {best}", ours, times[best], ours / times[best], bar_peer)
        if bar_peak:
            operations = 2 * x.size * len(q)
            self.line(work, "of peak", ours, operations / peak, operations / peak / ours, bar_peak, share=True)
        return ours

    def random_f32(self, dim=128, rows=None):
        rows = rows or self.rows
        return self.save(f"f32_{dim}", lambda: self.rng.standard_normal((rows, dim), dtype="f4"))

    def queries(self, count, dim=128):
        return np.random.default_rng(2).standard_normal((count, dim), dtype="f4")

    # ---- sections --------------------------------------------------------------------------------------------------

    def one(self):
        path = self.random_f32()
        x = np.load(path)
        for metric in ("dot", "l2", "cosine"):
            q = self.queries(1)
            self.compare(f"f32 1 query {metric}", path, q, metric, self.peers_f32(x, q, metric, 10), 0.95, 1.10)

    def ten(self):
        path = self.random_f32()
        x = np.load(path)
        for metric in ("dot", "l2"):
            q = self.queries(10)
            self.compare(f"f32 10 queries {metric}", path, q, metric, self.peers_f32(x, q, metric, 10), 0.4)

    def hundred(self):
        path = self.random_f32()
        x = np.load(path)
        for metric, share in (("dot", 0.80), ("l2", 0.70)):
            q = self.queries(100)
            self.compare(f"f32 100 queries {metric}", path, q, metric, self.peers_f32(x, q, metric, 10), 0.65, None,
                         self.fma_peak, share)

    def thousand(self):
        path = self.random_f32()
        x = np.load(path)
        for metric, share in (("dot", 0.88), ("l2", 0.80)):
            q = self.queries(1000)
            self.compare(f"f32 1000 queries {metric}", path, q, metric, self.peers_f32(x, q, metric, 10), 0.65, None,
                         self.fma_peak, share)

    def wide(self):
        for dim, rows in ((768, self.rows // 5), (1536, self.rows // 10)):
            path = self.random_f32(dim, rows)
            x = np.load(path)
            for metric in ("dot", "l2"):
                q = self.queries(100, dim)
                self.compare(f"f32 {dim} 100 queries {metric}", path, q, metric, self.peers_f32(x, q, metric, 10), 0.7)

    def half(self):
        path = self.save("f16", lambda: self.rng.standard_normal((self.rows, 128), dtype="f4").astype("f2"))
        for count, bar, read in ((1, 1.0, 1.15), (100, 0.35, None)):
            q, peers = self.queries(count).astype("f2"), {}
            if self.faiss:
                index = self.faiss.IndexScalarQuantizer(128, self.faiss.ScalarQuantizer.QT_fp16, self.faiss.METRIC_INNER_PRODUCT)
                index.train(np.zeros((1, 128), "f4"))
                index.add(np.load(path).astype("f4"))
                peers["faiss"] = lambda: (self.faiss.omp_set_num_threads(THREADS), index.search(q.astype("f4"), 10))
                peers["faiss 1 thread"] = lambda: (self.faiss.omp_set_num_threads(1), index.search(q.astype("f4"), 10))
            self.compare(f"f16 {count} queries dot", path, q, "dot", peers, bar, read)

    def int8(self):
        path = self.save("i8", lambda: self.rng.integers(-127, 128, (self.rows, 128)).astype("i1"))
        x = np.load(path)
        for count, bar, read, share in ((1, 1.0, 1.2, None), (100, 0.3, None, None), (1000, 0.3, None, 0.85)):
            q, peers = np.random.default_rng(3).integers(-127, 128, (count, 128)).astype("i1"), {}
            if self.faiss and count <= 100:
                index = self.faiss.IndexScalarQuantizer(128, self.faiss.ScalarQuantizer.QT_8bit_direct_signed,
                                                        self.faiss.METRIC_INNER_PRODUCT)
                index.add(x.astype("f4"))
                peers["faiss"] = lambda: (self.faiss.omp_set_num_threads(THREADS), index.search(q.astype("f4"), 10))
                peers["faiss 1 thread"] = lambda: (self.faiss.omp_set_num_threads(1), index.search(q.astype("f4"), 10))
            if self.simsimd and count == 1:
                peers["simsimd"] = lambda: self.simsimd.cdist(q, x, metric="cosine", threads=THREADS)
            self.compare(f"i8 {count} queries dot", path, q, "dot", peers, bar, read, self.vnni_peak, share)

    def bits(self):
        path = self.save("bits", lambda: self.rng.integers(0, 256, (self.rows, 128)).astype("u1"))
        x = np.load(path)
        for metric in ("hamming", "jaccard"):
            for count, bar, read in ((1, 1.0, 1.2), (100, 0.4, None)):
                q, peers = np.random.default_rng(4).integers(0, 256, (count, 128)).astype("u1"), {}
                if self.faiss and metric == "hamming":
                    index = self.faiss.IndexBinaryFlat(1024)
                    index.add(x)
                    peers["faiss"] = lambda: (self.faiss.omp_set_num_threads(THREADS), index.search(q, 10))
                    peers["faiss 1 thread"] = lambda: (self.faiss.omp_set_num_threads(1), index.search(q, 10))
                if self.simsimd:
                    peers["simsimd"] = lambda: self.simsimd.cdist(q, x, metric=metric, dtype="bin8", threads=THREADS)
                self.compare(f"{metric} 1024 bit {count} queries", path, q, metric, peers, bar, read)

    def distributions(self):
        rows = self.rows // 5
        path = self.save("kl", lambda: self.rng.dirichlet(np.ones(128), rows).astype("f4"))
        x = np.load(path)
        for metric in ("kl", "js"):
            for count, bar in ((1, 1.0), (10, 0.4)):
                q, peers = np.random.default_rng(5).dirichlet(np.ones(128), count).astype("f4"), {}
                if self.simsimd:
                    name = {"kl": "kullbackleibler", "js": "jensenshannon"}[metric]
                    peers["simsimd"] = lambda: np.argpartition(
                        np.asarray(self.simsimd.cdist(q, x, metric=name, threads=THREADS)), 10, axis=1)
                self.compare(f"{metric} 200k x 128 {count} queries", path, q, metric, peers, bar)

    def orders(self):
        path, q = self.random_f32(), self.queries(1)
        ascending = self.save("ascending", lambda: np.load(path)[np.argsort(np.load(path) @ q[0])])
        with npk.Array(path) as array, npk.Array(ascending) as sorted_array:
            def run(a, k):
                return lambda: npk.search(a, q, "dot", k, flags=MAP, threads=THREADS)
            times = interleaved({"npk": run(array, 10), "k=1000": run(array, 1000), "ascending": run(sorted_array, 10),
                                 "ascending k=1000": run(sorted_array, 1000)}, self.repeats)
        for name in ("k=1000", "ascending", "ascending k=1000"):
            self.line(f"f32 1 query {name}", "our k=10, random order", times[name], times["npk"], times[name] / times["npk"], 1.5)

    def deleted(self):
        path, q = self.random_f32(), self.queries(1)
        gone = {"scattered": np.flatnonzero(self.rng.random(self.rows) < 0.1),
                "in runs": np.flatnonzero((np.arange(self.rows) // 1000) % 10 == 3)}
        arrays = {"npk": npk.Array(path)}
        for name, rows in gone.items():
            copy = self.folder / f"deleted_{name.replace(' ', '_')}.npy"
            copy.write_bytes(path.read_bytes())
            npk.drop(copy, rows)
            arrays[name] = npk.Array(copy)
        work = {n: (lambda a=a: npk.search(a, q, "dot", 10, flags=MAP, threads=THREADS)) for n, a in arrays.items()}
        times = interleaved(work, self.repeats)
        for name, bar in (("scattered", 1.15), ("in runs", 1.0)):
            self.line(f"10 % deleted {name}", "clean", times[name], times["npk"], times[name] / times["npk"], bar)
        for array in arrays.values():
            array.close()

    def file(self):
        """4 GiB in the page cache: the first search reads, later ones are mapped."""
        rows = self.rows * 8
        path = self.folder / "large.npy"
        out = np.lib.format.open_memmap(path, "w+", "f4", (rows, 128))
        block = self.rng.standard_normal((rows // 8, 128), dtype="f4")
        for i in range(8):
            out[i * len(block):(i + 1) * len(block)] = block
        out.flush()
        size = out.nbytes
        del out
        q, fd = self.queries(1), os.open(path, os.O_RDONLY)
        view = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        address = np.frombuffer(view, "u1").ctypes.data
        kept = npk.Array(path)

        def first():
            with npk.Array(path) as array:
                npk.search(array, q, "dot", 10, threads=THREADS)

        times = interleaved({"first": first, "read()": lambda: self.limits.pread(fd, size),
                             "kept": lambda: npk.search(kept, q, "dot", 10, flags=MAP, threads=THREADS),
                             "read": lambda: self.limits.read(address, size)}, max(3, self.repeats // 2))
        self.line("4 GiB file first call", "read()", times["first"], times["read()"], times["first"] / times["read()"], 1.1)
        self.line("4 GiB file mapping kept", "reading the bytes", times["kept"], times["read"], times["kept"] / times["read"], 1.15)
        kept.close()
        os.close(fd)
        path.unlink()


    def mount(self):
        """A query written to a mount and its answer read there, against the call that the mount makes: open and search."""
        daemon = os.environ.get("NPKFS_BIN", str(pathlib.Path(os.environ["NPK_LIB"]).parent.parent / "bin" / "npkfs"))
        path, q = self.random_f32(), self.queries(64)
        point = tempfile.mkdtemp(prefix="npk-bench.mnt.")
        if subprocess.run([daemon, str(self.folder), point], check=False).returncode != 0:
            print("# no mount here: the row of cat is left out")
            return
        turn = iter(range(10 ** 6))

        def cat():
            with open(f"{point}/.npk/{path.name}/search/q.cosine.10.tsv", encoding="ascii") as file:
                file.read()

        def library():
            with npk.Array(path) as array:
                npk.search(array, q[next(turn) % 64], "cosine", 10)

        def fresh_query():
            np.save(f"{point}/.npk/{path.name}/search/q.npy", q[next(turn) % 64])

        times = {"cat": [], "library": []}
        try:
            for _ in range(self.repeats + 1):
                fresh_query()
                times["cat"].append(clock(cat))
                times["library"].append(clock(library))
        finally:
            subprocess.run(["umount", point], check=False)
            os.rmdir(point)
        ours, other = (statistics.median(times[n][1:]) for n in ("cat", "library"))
        print(f"cat q.cosine.10.tsv in the mount\topen and search\t{ours * 1e3:.2f}\t{other * 1e3:.2f}\t{ours / other:.3f}\t"
              f"<=+3ms\t{'met' if ours - other <= 0.003 else 'MISSED'}", flush=True)

    def limited(self):
        """A file of twice the memory that the process may use, on a disk."""
        half = 256 << 20
        group = memory_group(half)
        if group is None:
            print("# no memory cgroup can be made here: the row of the limited file is left out")
            return
        with tempfile.NamedTemporaryFile(prefix="npk-bench.", suffix=".npy", dir=self.disk) as file:
            np.save(file, self.rng.standard_normal((2 * half // 512, 128), dtype="f4"))
            file.flush()
            os.fsync(file.fileno())
            times, peak = {"ours": [], "read": []}, 0
            for _ in range(3):
                for what in times:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    out = subprocess.run([sys.executable, __file__, "--one-pass", what, file.name, "--group", str(group)],
                                         check=True, capture_output=True, text=True).stdout.split()
                    times[what].append(float(out[-2]))
                    peak = max(peak, int(out[-1])) if what == "ours" else peak
        group.rmdir()
        ours, read = (statistics.median(t) for t in times.values())
        self.line(f"file of twice the memory limit (resident {peak >> 10} MiB)", "read() of the file", ours, read, ours / read, 1.1)


def memory_group(limit):
    """A cgroup with so many bytes, version 2 or 1; None where none can be made."""
    for base, name in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        group = pathlib.Path(base, f"npk-bench-{os.getpid()}")
        if not pathlib.Path(base, "cgroup.procs").exists():
            continue
        try:
            group.mkdir()
            (group / name).write_text(str(limit), encoding="ascii")
            return group
        except OSError:
            if group.is_dir():
                group.rmdir()
    return None


def one_pass(what, path, group):
    """In a process of its own: read or search the file once; seconds, and the most KiB that were resident."""
    pathlib.Path(group, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    begin = time.perf_counter()
    if what == "read":
        with open(path, "rb", buffering=0) as file:
            buffer = bytearray(1 << 20)
            while file.readinto(buffer):
                pass
    else:
        with npk.Array(path) as array:
            npk.search(array, np.ones((1, 128), "f4"), "dot", 10, threads=THREADS)
    seconds = time.perf_counter() - begin
    status = dict(line.split(":", 1) for line in open("/proc/self/status", encoding="ascii"))
    print(seconds, int(status["RssAnon"].split()[0]))


SECTIONS = ["one", "ten", "hundred", "thousand", "wide", "half", "int8", "bits", "distributions", "orders", "deleted", "file",
            "mount", "limited"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dir", default="/dev/shm")
    parser.add_argument("--disk", default="/var/tmp", help="where files go that are to be read from a disk")
    parser.add_argument("--one-pass", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=" ".join(SECTIONS))
    options = parser.parse_args()
    if options.one_pass:
        one_pass(*options.one_pass, options.group)
        return
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="ascii") if "model name" in line), "?")
    print(f"# {model}, {os.cpu_count()} cores, kernels: {npk.cpus('used')[0]}; rows {options.rows}")
    with tempfile.TemporaryDirectory(prefix="npk-bench.", dir=options.dir) as folder:
        bench = Bench(options, folder)
        print("work\tagainst\tours_ms\tother_ms\tratio\tbar\tverdict")
        for section in options.sections or SECTIONS:
            if section not in SECTIONS:
                sys.exit(f'"{section}" is no section; {", ".join(SECTIONS)} are')
            getattr(bench, section)()


if __name__ == "__main__":
    main()
