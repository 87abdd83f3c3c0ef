#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The answers of a search: all scores against numpy in float64, the best k against a stable sort of all scores, and the
same bytes from every instruction set, number of threads and block size.
"""
import errno
import itertools
import os

import numpy as np

import npk

RNG = np.random.default_rng(20260711)
FLOATS, INTS = ["f4", "f8", "f2"], ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


def data(dtype, shape, distribution=False):
    dtype = np.dtype(dtype)
    if distribution:
        values = RNG.random(shape) * (RNG.random(shape) > 0.1)
        values[..., 0] += 0.01
        return (values / values.sum(-1, keepdims=True)).astype(dtype)
    if dtype.kind == "f":
        return RNG.standard_normal(shape).astype(dtype)
    low, high = (-100, 100) if dtype.kind == "i" else (0, 200)
    return RNG.integers(low, high, shape).astype(dtype)


def brute(x, q, metric, epsilon=0.0):
    """All scores in float64."""
    if metric == "hamming":
        return np.unpackbits(q[:, None] ^ x[None], axis=-1).sum(-1).astype("f8")
    if metric == "jaccard":
        either = np.unpackbits(q[:, None] | x[None], axis=-1).sum(-1)
        return np.where(either == 0, 0.0, brute(x, q, "hamming") / np.maximum(either, 1))
    if metric == "hamming_elements":
        return (q[:, None] != x[None]).sum(-1).astype("f8")
    x, q = x.astype("f8"), q.astype("f8")
    if metric == "dot":
        return q @ x.T
    if metric == "cosine":
        norms = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x, axis=1)[None]
        return np.divide(q @ x.T, norms, out=np.zeros(norms.shape), where=norms > 0)
    if metric in ("l2", "l2sq"):
        squares = ((q[:, None] - x[None]) ** 2).sum(-1)
        return np.sqrt(squares) if metric == "l2" else squares

    def terms(a, b):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(a == 0, 0.0, a * np.log((a + epsilon) / (b + epsilon)))

    q, x = np.broadcast_arrays(q[:, None], x[None])
    if metric == "kl":
        return terms(q, x).sum(-1)
    middle = (q + x) / 2
    return np.sqrt(np.maximum(0, (terms(q, middle) + terms(x, middle)).sum(-1) / 2))


def order(scores, metric):
    """Positions by score, then position; NaN last."""
    key = -scores if metric in npk.SIMILARITIES else scores
    return np.lexsort((np.arange(key.shape[-1]), np.where(np.isnan(key), 0, key), np.isnan(key)))


def same_bits(a, b):
    return a.tobytes() == b.tobytes()


def check_best(hits, scores, metric, k):
    """hits must be the first k of all scores, to the bit."""
    assert hits.shape == (len(scores), min(k, scores.shape[1])), hits.shape
    for mine, all_scores in zip(hits, scores):
        best = order(all_scores, metric)[:k]
        assert np.array_equal(mine["row"], best), (metric, mine["row"][:10], best[:10], mine["score"][:10], all_scores[best][:10])
        assert same_bits(mine["score"].copy(), all_scores[best]), (metric, mine["score"][:5], all_scores[best][:5])


def metrics_of(dtype):
    found = ["dot", "cosine", "l2", "l2sq", "hamming_elements"]
    if np.dtype(dtype).kind == "f":
        found += ["kl", "js"]
    return found + (["hamming", "jaccard"] if dtype == "u1" else [])


def compare(x, q, metric, k=10, epsilon=0.0, exact=None):
    """Everything that must agree, on one array."""
    with npk.Place() as place, place.open(x) as array:
        scores = npk.pairs(array, q, metric, len(x), epsilon=epsilon)
        if exact is not None:
            with np.errstate(invalid="ignore"):
                close = np.isclose(scores, exact, rtol=1e-11, atol=1e-11 * max(1, x.shape[-1])) | (scores == exact)
            assert (close | (np.isnan(scores) & np.isnan(exact))).all(), (x.dtype, metric, scores[~close], exact[~close])
        first = None
        for cpu in npk.cpus():
            for flags, threads, task in ((1, 1, 0), (2, 2, 4096), (2, 5, 0), (1, 3, 100)):
                hits = npk.search(array, q, metric, k, cpu=cpu, flags=flags, threads=threads, task_bytes=task, epsilon=epsilon)
                if first is None:
                    check_best(hits, scores, metric, k)
                    first = hits
                assert same_bits(hits, first), (x.dtype, metric, cpu, flags, threads, task)
            assert same_bits(npk.pairs(array, q, metric, len(x), epsilon=epsilon, cpu=cpu, threads=2), scores)


def test_every_dtype_and_metric():
    for dtype in FLOATS + INTS + [">f4", ">i2", ">f8", ">u8"]:
        for metric in metrics_of(dtype):
            for dim, queries in ((17, 1), (64, 5), (100, 21)):
                distribution = metric in ("kl", "js")
                x, q = data(dtype, (500, dim), distribution), data(dtype, (queries, dim), distribution)
                compare(x, q, metric, exact=brute(x, q, metric))


def test_every_tail():
    for dim in list(range(1, 70)) + [127, 128, 129, 255]:
        for dtype, metric in (("f4", "dot"), ("f4", "l2"), ("i1", "l2sq"), ("u1", "jaccard"), ("f4", "js"), ("f2", "cosine")):
            x = data(dtype, (90, dim), metric == "js")
            compare(x, x[:3], metric, k=90, exact=brute(x, x[:3], metric))


def test_queries_of_another_dtype():
    x = data("f4", (500, 24))
    for q in (data("f8", (3, 24)), data("i4", (3, 24)), data("f2", (3, 24)), data("u1", (20, 24)), data(">f8", (2, 24))):
        for metric in ("dot", "cosine", "l2", "kl"):
            if metric != "kl" or q.min() >= 0:
                compare(x, q, metric, exact=brute(x, q, metric))
    bytes_ = data("i1", (500, 24))
    for metric in ("dot", "l2"):
        compare(bytes_, data("f4", (3, 24)), metric)
        compare(bytes_, np.full((1, 24), 3.0), metric)


def test_integers_are_exact():
    big = np.array([[2**62, 1], [2**62, 2], [2**62, 3], [-2**63, 2**63 - 1]], "i8")
    with npk.Place() as place, place.open(big) as array:
        q = np.array([[1, 2**53]], "i8")
        want = [int(a) + int(b) * 2**53 for a, b in big.tolist()]
        assert npk.pairs(array, q, "dot", 4)[0].tolist() == [float(w) for w in want]
        want = [(1 - a) ** 2 + (2**53 - b) ** 2 for a, b in big.tolist()]
        assert npk.pairs(array, q, "l2sq", 4)[0].tolist() == [float(w) for w in want]
    full = np.full((3, 300000), 127, "i1")
    full[1] = -128
    with npk.Place() as place, place.open(full) as array:
        hits = npk.search(array, full[1:2], "dot", 3)
        assert hits["score"][0].tolist() == [128 * 128 * 300000.0] + [-127 * 128 * 300000.0] * 2


def test_ties():
    """Equal scores come by row, whatever sees them first."""
    for dtype, metric in itertools.product(("f4", "i1", "f8"), ("dot", "cosine", "l2")):
        x = np.repeat(data(dtype, (7, 20)), 400, axis=0)[RNG.permutation(2800)]
        for k in (1, 10, 399, 401, 2800):
            compare(x, x[:2], metric, k=k)
    bits = RNG.integers(0, 4, (5000, 1)).astype("u1")
    for metric in ("hamming", "jaccard"):
        compare(bits, bits[:3], metric, k=500, exact=brute(bits, bits[:3], metric))
    compare(np.zeros((3000, 8), "f4"), np.zeros((20, 8), "f4"), "cosine", k=5)


def test_near_ties():
    """Rows that single precision cannot tell apart."""
    base = np.ones(64)
    x = (base + RNG.integers(-3, 4, (4000, 64)) * 2.0**-23).astype("f4")
    for metric in ("dot", "cosine", "l2", "l2sq", "js"):
        compare(x, x[:4], metric, k=20, exact=brute(x, x[:4], metric) if metric != "js" else None)
    offset = (data("f4", (3000, 32)) * 0.01 + 1000).astype("f4")
    for metric in ("l2", "cosine"):
        compare(offset, offset[:20], metric)


def test_not_finite():
    x = data("f4", (600, 40))
    for row, value in zip(RNG.permutation(600)[:120], itertools.cycle([np.nan, np.inf, -np.inf])):
        x[row, RNG.integers(40)] = value
    queries = data("f4", (6, 40))
    queries[1, 3], queries[2, 3], queries[3] = np.nan, np.inf, 0
    for metric in ("dot", "cosine", "l2", "l2sq", "kl", "js", "hamming_elements"):
        for k in (10, 590, 600):
            compare(x, queries, metric, k=k)
            compare(x, np.repeat(queries, 4, axis=0), metric, k=k)


def test_extremes():
    for scale in (1e-42, 1e-30, 1e-20, 1e18, 1e25, 1e37):
        x = (data("f4", (400, 33)) * np.float32(scale)).astype("f4")
        for metric in ("dot", "cosine", "l2", "l2sq"):
            compare(x, x[:3], metric, exact=brute(x, x[:3], metric) if metric != "cosine" else None)
    mixed = (data("f8", (400, 33)) * 10.0 ** RNG.integers(-300, 300, (400, 1))).astype("f8")
    for metric in ("dot", "cosine", "l2"):
        compare(mixed, mixed[:4], metric)
    zeros = data("f4", (300, 16))
    zeros[::3] = 0
    for metric in ("dot", "cosine", "l2", "js"):
        compare(np.abs(zeros), np.abs(zeros[:4]), metric, exact=brute(np.abs(zeros), np.abs(zeros[:4]), metric))


def test_distributions():
    x = data("f4", (800, 50), True)
    for epsilon in (0.0, 1e-7, 0.5):
        for metric in ("kl", "js"):
            compare(x, x[:5], metric, epsilon=epsilon, exact=brute(x, x[:5], metric, epsilon))


def test_order_of_rows():
    """Rows in ascending and descending order of score, small and large k."""
    line = np.sort(RNG.standard_normal(20000)).astype("f4")[:, None]
    for x in (line, line[::-1].copy()):
        for metric in ("dot", "l2"):
            for k in (1, 10, 1000):
                compare(x, np.ones((1, 1), "f4"), metric, k=k)


def test_first_look():
    """Large mapped arrays, where some rows are looked at before all: rows in any order, equal ones, hardly any number,
    deleted and excluded rows."""
    n = 40000
    noise = RNG.standard_normal((n, 6)).astype("f4")
    line = np.sort(noise, axis=0)
    gaps = np.where(np.arange(n)[:, None] % 977 == 5, noise, np.float32(np.nan))
    near = (1 + RNG.integers(-2, 3, (n, 6)) * 2.0**-23).astype("f4")
    bytes_ = RNG.integers(-3, 4, (n, 6)).astype("i1")
    for x, metrics in ((noise, ["dot", "cosine"]), (line, ["dot", "l2"]), (line[::-1].copy(), ["dot"]), (gaps, ["l2sq"]),
                       (np.ones((n, 6), "f4"), ["l2"]), (near, ["dot", "js"]), (bytes_, ["dot", "l2", "cosine"]),
                       (bytes_.astype("u1"), ["hamming", "jaccard"]), (line.astype(">f8"), ["dot"]), (noise.astype("f2"), ["l2"])):
        for metric, k, queries in itertools.product(metrics, (10, 129), (1, 21)):
            q = np.abs(x[7:7 + queries]) if metric == "js" else x[7:7 + queries]
            with npk.Place() as place, place.open(x) as array:
                scores = npk.pairs(array, q, metric, n)
                check_best(npk.search(array, q, metric, k, flags=2, threads=3), scores, metric, k)
    gone, out = RNG.random(n) < 0.1, RNG.random(n) < 0.15
    with npk.Place() as place:
        path = place.save(line)
        npk.drop(path, np.flatnonzero(gone))
        live = line[~gone]
        out = out[:len(live)]
        words = np.packbits(np.pad(out, (0, -len(out) % 64)), bitorder="little").view("<u8")
        kept = np.flatnonzero(~out)
        with npk.Array(path) as array:
            scores = npk.pairs(array, line[-3:], "dot", len(live))
            check_best(npk.search(array, line[-3:], "dot", 20, flags=2), scores, "dot", 20)
            for mine, row in zip(npk.search((array, 0, len(live), words), line[-3:], "dot", 20, flags=2), scores):
                assert np.array_equal(mine["row"], kept[order(row[kept], "dot")[:20]])


def test_first_look_at_what_changes():
    """Rows that were good when they were looked at first and are bad when their turn comes: the answer is of the latter."""
    x = RNG.standard_normal((40000, 6)).astype("f4")
    for kept in (0, 4):
        with npk.Place() as place:
            path = place.save(x)
            worse = np.lib.format.open_memmap(path, "r+")

            def progress(*_):
                worse[kept:] = -np.abs(x[kept:]) - 100
                return 0
            with npk.Array(path) as array:
                hits = npk.search(array, np.ones((2, 6), "f4"), "dot", 10, flags=2, threads=2, progress=progress)
                check_best(hits, npk.pairs(array, np.ones((2, 6), "f4"), "dot", len(x)), "dot", 10)


def test_k():
    x = data("f4", (50, 8))
    with npk.Place() as place, place.open(x) as array:
        assert npk.search(array, x[:2], "dot", 0).shape == (2, 0)
        assert npk.search(array, x[:2], "dot", 10**9).shape == (2, 50)
        assert npk.search((array, 7, 0), x[:2], "dot", 5).shape == (2, 0)
    for shape in ((0, 8), (0,)):
        with npk.Place() as place, place.open(np.zeros(shape, "f4")) as array:
            assert npk.search(array, np.zeros((1, 8), "f4")[:, :8 if len(shape) > 1 else 1], "dot", 5).shape == (1, 0)


def test_shapes():
    for dim in (1, 100000):
        x = data("f4", (40, dim))
        compare(x, x[:2], "l2", exact=brute(x, x[:2], "l2") if dim == 1 else None)
    flat = data("i4", (1000,))
    with npk.Place() as place, place.open(flat) as array:
        hits = npk.search(array, flat[:1].reshape(1, 1), "l2", 5)
        check_best(hits, brute(flat[:, None], flat[:1, None], "l2"), "l2", 5)
    cube = data("f4", (300, 4, 5))
    with npk.Place() as place, place.open(cube) as array:
        hits = npk.search(array, cube[:2].reshape(2, 20), "cosine", 5)
        assert hits["row"][:, 0].tolist() == [0, 1]
    empty = np.zeros((5, 0), "f4")
    with npk.Place() as place, place.open(empty) as array:
        hits = npk.search(array, np.zeros((1, 0), "f4"), "dot", 3)
        assert hits["row"][0].tolist() == [0, 1, 2] and hits["score"][0].tolist() == [0, 0, 0]


def test_unaligned_data():
    x, q = data("f4", (500, 31)), data("f4", (20, 31))
    with npk.Place() as place:
        place.save(x)
        good = (place.path / "x.npy").read_bytes()
        header, body = good[10:128], good[128:]
        for pad in (1, 2, 3, 5):
            (place.path / "x.npy").write_bytes(
                good[:8] + (118 + pad).to_bytes(2, "little") + header[:-1] + b" " * pad + b"\n" + body)
            with npk.Array(place.path / "x.npy") as array:
                for cpu in npk.cpus():
                    check_best(npk.search(array, q, "l2", 5, cpu=cpu, flags=2), npk.pairs(array, q, "l2", 500), "l2", 5)


def test_parts():
    """Several arrays and ranges as one corpus, and rows left out."""
    a, b, q = data("f4", (300, 16)), data("f4", (500, 16)), data("f4", (19, 16))
    with npk.Place() as place, place.open(a, "a") as one, place.open(b, "b") as two:
        for flags in (1, 2):
            parts = [(one, 10, 200), (two, 0, 500), (one, 100, 200), (two, 499, 1), (two, 70, 0)]
            whole = np.concatenate([a[10:210], b, a[100:300], b[499:]])
            where = [(0, r) for r in range(10, 210)] + [(1, r) for r in range(500)] + [(2, r) for r in range(100, 300)] + [(3, 499)]
            scores = npk.pairs(parts, q, "dot", len(whole), flags=flags)
            assert np.allclose(scores, brute(whole, q, "dot"))
            for task in (0, 64):
                hits = npk.search(parts, q, "dot", 25, flags=flags, task_bytes=task)
                for mine, all_scores in zip(hits, scores):
                    best = order(all_scores, "dot")[:25]
                    assert [(int(h["part"]), int(h["row"])) for h in mine] == [where[i] for i in best]
    for share in (0, 0.01, 0.5, 0.99, 1):
        out = RNG.random(500) < share
        words = np.packbits(np.pad(out, (0, 12)), bitorder="little").view("<u8")
        with npk.Place() as place, place.open(b) as array:
            kept = np.flatnonzero(~out[5:450]) + 5
            hits = npk.search((array, 5, 445, words), q, "l2", 30, task_bytes=100, flags=2)
            assert hits.shape == (19, min(30, len(kept))), hits.shape
            for mine, all_scores in zip(hits, brute(b[kept], q, "l2")):
                assert np.array_equal(mine["row"], kept[order(all_scores, "l2")[:30]])


def deletions(n):
    """Patterns of deleted rows."""
    yield "one", np.arange(n) == 7
    yield "scattered", RNG.random(n) < 0.1
    yield "most", RNG.random(n) < 0.97
    yield "runs", RNG.random(n // 50).repeat(50) < 0.3
    yield "words", (np.arange(n) // 64) % 2 == 1
    yield "first", np.arange(n) < n // 2
    yield "last", np.arange(n) >= n - 65
    yield "all but one", np.arange(n) != n - 1
    yield "all", np.ones(n, bool)


def test_deleted_rows():
    n = 3000
    for dtype, metric in (("f4", "dot"), ("f4", "l2"), ("i1", "cosine"), ("u1", "jaccard"), ("f2", "dot"), ("f8", "kl"),
                          ("i4", "hamming_elements")):
        x = data(dtype, (n, 24), metric == "kl")
        q = np.concatenate([x[7:9], x[-20:]])
        for name, gone in deletions(n):
            with npk.Place() as place:
                path = place.save(x)
                assert npk.drop(path, np.flatnonzero(gone)) == gone.sum()
                live = x[~gone]
                want = brute(live, q, metric)
                with npk.Array(path) as array:
                    scores = npk.pairs(array, q, metric, len(live))
                    assert np.allclose(scores, want, rtol=1e-9, atol=1e-9), (dtype, metric, name)
                    for cpu in npk.cpus():
                        for flags, threads, task in ((1, 1, 0), (2, 2, 3000), (2, 1, 0)):
                            hits = npk.search(array, q, metric, 15, cpu=cpu, flags=flags, threads=threads, task_bytes=task)
                            check_best(hits, scores, metric, 15)
                    if len(live) > 100:
                        out = RNG.random(len(live)) < 0.3
                        words = np.packbits(np.pad(out, (0, -len(out) % 64)), bitorder="little").view("<u8")
                        hits = npk.search((array, 11, 80, words), q, metric, 15, task_bytes=500)
                        kept = np.flatnonzero(~out[11:91]) + 11
                        for mine, row in zip(hits, scores):
                            assert np.array_equal(mine["row"], kept[order(row[kept], metric)[:15]])


def test_cancel_and_progress():
    x = data("f4", (20000, 64))
    with npk.Place() as place, place.open(x) as array:
        told = []
        npk.search(array, x[:1], "dot", 3, task_bytes=65536, threads=1, progress=lambda _, done, all_: told.append((done, all_)) or 0)
        assert told[-1] == (x.nbytes, x.nbytes) and [d for d, _ in told] == sorted(d for d, _ in told) and len(told) > 10
        for threads in (1, 3):
            try:
                npk.search(array, x[:1], "dot", 3, task_bytes=65536, threads=threads, progress=lambda *_: 1)
                raise AssertionError("a cancelled search returned")
            except npk.Error as error:
                assert error.code == errno.ECANCELED


def refused(code, words, *call, **options):
    try:
        npk.search(*call, **options)
    except npk.Error as error:
        assert error.code == code, error
        assert all(word in str(error) for word in words), error
        return
    raise AssertionError(f"accepted: {call[2:]} {options}")


def test_bad_input():
    x = data("f4", (50, 8))
    with npk.Place() as place, place.open(x) as array:
        refused(errno.EINVAL, ["metric"], array, x[:1], 99, 5)
        refused(errno.EINVAL, ["epsilon"], array, x[:1], "kl", 5, epsilon=-1.0)
        refused(errno.EINVAL, ["epsilon"], array, x[:1], "kl", 5, epsilon=float("nan"))
        refused(errno.EINVAL, ["threads"], array, x[:1], "dot", 5, threads=10000)
        refused(errno.EINVAL, ["sse9", "avx512"], array, x[:1], "dot", 5, cpu="sse9")
        refused(errno.EINVAL, ["flags"], array, x[:1], "dot", 5, flags=64)
        refused(errno.EINVAL, ["parts"], [], x[:1], "dot", 5)
        refused(errno.ERANGE, ["50 rows"], (array, 51, 0), x[:1], "dot", 5)
        refused(errno.ERANGE, ["50 rows"], (array, 3, 48), x[:1], "dot", 5)
        refused(errno.ENOTSUP, ["float32", "uint8"], array, x[:1], "hamming", 5)
        refused(errno.ENOTSUP, ["complex64"], array, x[:1].astype("c8"), "dot", 5)
        for dtype in ("c8", "c16", "?", "S3", "M8[s]"):
            with place.open(np.zeros((4, 8), dtype), "odd") as odd:
                refused(errno.ENOTSUP, ["float32"], odd, x[:1], "dot", 5)
        with place.open(np.asfortranarray(x), "f") as fortran:
            refused(errno.ENOTSUP, ["Fortran"], fortran, x[:1], "dot", 5)
        with place.open(data("f4", (50, 9)), "y") as other, place.open(data("f8", (50, 8)), "z") as wider:
            refused(errno.EINVAL, ["9 elements"], [array, other], x[:1], "dot", 5)
            refused(errno.EINVAL, ["float64"], [array, wider], x[:1], "dot", 5)


def test_cap_of_the_environment():
    x = data("f4", (500, 20))
    with npk.Place() as place, place.open(x) as array:
        first = npk.search(array, x[:2], "dot", 5)
        for cpu in npk.cpus():
            os.environ["NPK_CPU"] = cpu
            assert npk.cpus("used") == [cpu]
            assert same_bits(npk.search(array, x[:2], "dot", 5), first)
        del os.environ["NPK_CPU"]


if __name__ == "__main__":
    npk.main([value for name, value in list(globals().items()) if name.startswith("test_")])
