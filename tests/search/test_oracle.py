#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same answers as other libraries give, where their semantics are sound: FAISS, NumPack, and scikit-learn on its
digits. Needs one of them.
"""
import sys

import numpy as np

import npk


def load(name):
    try:
        module = __import__(name)
        for part in name.split(".")[1:]:
            module = getattr(module, part)
        return module
    except Exception as error:
        print(f"     without {name}: {str(error).splitlines()[0][:80] if str(error) else error!r}")
        return None


FAISS, NUMPACK, DIGITS = load("faiss"), load("numpack.vector_engine"), load("sklearn.datasets")
X = np.random.default_rng(3).standard_normal((5000, 48)).astype("f4")
Q = np.random.default_rng(4).standard_normal((25, 48)).astype("f4")


def agree(hits, rows, scores, tolerance=1e-4):
    """Rows may change places only where their scores are as near as single precision can tell."""
    assert hits.shape == rows.shape
    assert np.allclose(hits["score"], scores, rtol=tolerance, atol=tolerance)
    same = hits["row"] == rows
    assert same.mean() > 0.98, same.mean()


def test_faiss():
    with npk.Place() as place, place.open(X) as array:
        for metric, index in (("dot", FAISS.IndexFlatIP(48)), ("l2sq", FAISS.IndexFlatL2(48))):
            index.add(X)
            scores, rows = index.search(Q, 10)
            agree(npk.search(array, Q, metric, 10), rows, scores)
    bits = np.random.default_rng(5).integers(0, 256, (4000, 16)).astype("u1")
    index = FAISS.IndexBinaryFlat(128)
    index.add(bits)
    scores, rows = index.search(bits[:20], 10)
    with npk.Place() as place, place.open(bits) as array:
        hits = npk.search(array, bits[:20], "hamming", 10)
        assert np.array_equal(hits["score"], scores.astype("f8"))


def test_numpack():
    engine = NUMPACK.VectorEngine()
    with npk.Place() as place, place.open(X) as array:
        for metric in ("dot", "cosine", "l2", "l2sq"):
            hits = npk.search(array, Q[:1], metric, 10)[0]
            rows, scores = engine.top_k_search(Q[0], X, metric, 10)
            agree(hits[None], np.asarray(rows)[None], np.asarray(scores)[None])


def test_digits():
    """Real data: the nearest of each digit is nearly always a digit of the same value."""
    from sklearn.neighbors import NearestNeighbors
    data, labels = DIGITS.load_digits(return_X_y=True)
    rows, queries = data[100:].astype("f4"), data[:100].astype("f4")
    distances, near = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(rows).kneighbors(queries)
    with npk.Place() as place, place.open(rows) as array:
        hits = npk.search(array, queries, "l2", 5)
        assert np.allclose(hits["score"], distances, atol=1e-4)
        assert (hits["row"] == near).mean() > 0.98
        assert (labels[100:][hits["row"][:, 0].astype(int)] == labels[:100]).mean() > 0.9


if __name__ == "__main__":
    tests = [t for t, library in ((test_faiss, FAISS), (test_numpack, NUMPACK), (test_digits, DIGITS)) if library]
    if not tests:
        print("skipped: none of faiss-cpu, numpack and scikit-learn can be imported")
        sys.exit(77)
    npk.main(tests)
