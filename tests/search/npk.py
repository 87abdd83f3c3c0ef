# SPDX-License-Identifier: Apache-2.0
"""libnpk's search for the tests and the benchmark: opens arrays by path, takes queries as numpy arrays.

The library is $NPK_LIB (libnpk.so).
"""
import ctypes
import os
import pathlib
import sys

try:
    import numpy as np
except ImportError:
    print("skipped: no numpy")
    sys.exit(77)

if os.environ.get("NPK_SANITIZE"):
    # The library of a sanitizer must be loaded before everything else, which Python is not built for.
    print(f"skipped: a build with the {os.environ['NPK_SANITIZE']} sanitizer (the unit tests of the kernels run there)")
    sys.exit(77)

METRICS = ["dot", "cosine", "l2", "l2sq", "hamming", "jaccard", "kl", "js", "hamming_elements"]
SIMILARITIES = {"dot", "cosine"}
HIT = np.dtype({"names": ["score", "row", "part"], "formats": ["<f8", "<u8", "<u4"], "itemsize": 24})
PROGRESS = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)


class Dtype(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("big_endian", ctypes.c_bool), ("native14", ctypes.c_bool),
                ("itemsize", ctypes.c_uint64), ("name", ctypes.c_char * 32)]


class Part(ctypes.Structure):
    _fields_ = [("array", ctypes.c_void_p), ("first", ctypes.c_uint64), ("count", ctypes.c_uint64),
                ("exclude", ctypes.c_void_p)]


class Queries(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("count", ctypes.c_uint64), ("dtype", Dtype)]


class Options(ctypes.Structure):
    _fields_ = [("metric", ctypes.c_int), ("flags", ctypes.c_uint), ("k", ctypes.c_uint64),
                ("epsilon", ctypes.c_double), ("threads", ctypes.c_uint), ("task_bytes", ctypes.c_uint64),
                ("cpu", ctypes.c_char_p), ("progress", PROGRESS), ("progress_ctx", ctypes.c_void_p)]


class Run(ctypes.Structure):
    _fields_ = [("start", ctypes.c_uint64), ("count", ctypes.c_uint64), ("step", ctypes.c_int64)]


class Rows(ctypes.Structure):
    _fields_ = [("runs", ctypes.POINTER(Run)), ("run_count", ctypes.c_size_t), ("run_capacity", ctypes.c_size_t),
                ("row_count", ctypes.c_uint64)]


lib = ctypes.CDLL(os.environ["NPK_LIB"])
lib.npk_error.restype = ctypes.c_char_p
lib.npk_cpu.restype = ctypes.c_char_p
for name in ("npk_array_open", "npk_array_close", "npk_store_open", "npk_store_close"):
    getattr(lib, name).restype = ctypes.c_int
lib.npk_array_close.restype = lib.npk_store_close.restype = None


class Error(Exception):
    def __init__(self, code):
        super().__init__(f"{os.strerror(-code)}: {lib.npk_error().decode()}")
        self.code = -code


def check(code):
    if code != 0:
        raise Error(code)


def cpus(what="can"):
    """Names of the instruction sets that this machine can use."""
    found, flags = [], [ctypes.c_bool() for _ in range(3)]
    for i in range(100):
        text = lib.npk_cpu(i, *map(ctypes.byref, flags))
        if text is None:
            return found
        if flags[("can", "should", "used").index(what)]:
            found.append(text.decode())
    return found


class Array:
    """An open array of a store."""

    def __init__(self, path):
        path = pathlib.Path(path)
        self.store, self.handle = ctypes.c_void_p(), ctypes.c_void_p()
        check(lib.npk_store_open(os.fsencode(path.parent), 0, ctypes.byref(self.store)))
        check(lib.npk_array_open(self.store, os.fsencode(path.stem), ctypes.byref(self.handle)))

    def close(self):
        lib.npk_array_close(ctypes.byref(self.handle))
        lib.npk_store_close(ctypes.byref(self.store))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def map(self):
        data, size = ctypes.c_void_p(), ctypes.c_uint64()
        check(lib.npk_array_map(self.handle, ctypes.byref(data), ctypes.byref(size)))


def drop(path, rows):
    """Delete shown rows of an array."""
    path, store, dropped = pathlib.Path(path), ctypes.c_void_p(), ctypes.c_uint64()
    runs = (Run * max(1, len(rows)))(*[Run(int(r), 1, 1) for r in rows])
    choice = Rows(runs, len(rows), len(rows), len(rows))
    check(lib.npk_store_open(os.fsencode(path.parent), 0, ctypes.byref(store)))
    try:
        check(lib.npk_drop_rows(store, os.fsencode(path.stem), ctypes.byref(choice), ctypes.c_uint64(2**64 - 1),
                                ctypes.byref(dropped)))
    finally:
        lib.npk_store_close(ctypes.byref(store))
    return dropped.value


def dtype_of(array):
    kinds = {"b": 0, "i": 1, "u": 2, "f": 3, "c": 4, "M": 5, "m": 5, "S": 6, "U": 7, "V": 8}
    big = array.dtype.byteorder == ">" and array.dtype.itemsize > 1
    return Dtype(kinds[array.dtype.kind], big, True, array.dtype.itemsize, str(array.dtype).encode()[:31])


def arguments(parts, queries, metric, k=0, threads=0, task_bytes=0, cpu=None, epsilon=0.0, flags=0, progress=None):
    """parts: Array, or (Array, first, count[, exclude words])."""
    parts = [p if isinstance(p, tuple) else (p, 0, 2**64 - 1) for p in (parts if isinstance(parts, list) else [parts])]
    keep = [np.ascontiguousarray(p[3], "<u8") if len(p) > 3 and p[3] is not None else None for p in parts]
    c_parts = (Part * max(1, len(parts)))()
    for i, p in enumerate(parts):
        c_parts[i] = Part(p[0].handle, p[1], p[2], keep[i].ctypes.data if keep[i] is not None else None)
    queries = np.ascontiguousarray(queries)
    count = queries.shape[0] if queries.ndim > 1 else 1
    c_queries = Queries(queries.ctypes.data, count, dtype_of(queries))
    number = METRICS.index(metric) if metric in METRICS else metric
    options = Options(number, flags, k, epsilon, threads, task_bytes, cpu.encode() if cpu else None,
                      PROGRESS(progress) if progress else PROGRESS(), None)
    return c_parts, len(parts), c_queries, options, count, (keep, queries)


def search(parts, queries, metric, k, **options):
    """Hits as an array (queries, found) of HIT."""
    c_parts, n, c_queries, o, count, keep = arguments(parts, queries, metric, k, **options)
    rows = sum(2**20 if p.count == 2**64 - 1 else p.count for p in c_parts)
    hits = np.zeros(count * min(k, rows) + 1, HIT)
    found = ctypes.c_uint64()
    check(lib.npk_search(c_parts, ctypes.c_size_t(n), ctypes.byref(c_queries), ctypes.byref(o),
                         ctypes.c_void_p(hits.ctypes.data), ctypes.byref(found)))
    del keep
    return hits[:count * found.value].reshape(count, found.value)


def pairs(parts, queries, metric, rows, **options):
    c_parts, n, c_queries, o, count, keep = arguments(parts, queries, metric, **options)
    scores = np.zeros((count, rows))
    check(lib.npk_pairs(c_parts, ctypes.c_size_t(n), ctypes.byref(c_queries), ctypes.byref(o),
                        ctypes.c_void_p(scores.ctypes.data)))
    del keep
    return scores


class Place:
    """A store in a directory of its own; memory, where that is writable."""

    def __enter__(self):
        import tempfile
        base = os.environ.get("NPK_TEST_DIR") or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.dir = tempfile.TemporaryDirectory(prefix="npk-search.", dir=base)
        self.path = pathlib.Path(self.dir.name)
        return self

    def __exit__(self, *_):
        self.dir.cleanup()

    def save(self, array, name="x"):
        np.save(self.path / f"{name}.npy", array)
        return self.path / f"{name}.npy"

    def open(self, array, name="x"):
        return Array(self.save(array, name))


def main(tests):
    """Run functions; exit 1 when one failed."""
    failed = 0
    for test in tests:
        try:
            test()
            print(f"ok   {test.__name__}", flush=True)
        except Exception:
            import traceback
            traceback.print_exc()
            print(f"FAIL {test.__name__}", flush=True)
            failed += 1
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
