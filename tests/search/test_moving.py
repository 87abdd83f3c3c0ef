#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Searches while other processes change the array: each answer is right for a state that existed during the call, or an
error; never a crash, never a wrong row.
"""
import errno
import multiprocessing
import os
import threading
import time

import numpy as np

import npk
from test_topk import brute, order

ROWS, DIM = 20000, 16


def rows(first, count):
    """Row r is r everywhere but for its last element: which row it is shows."""
    x = np.random.default_rng(7).standard_normal((max(ROWS * 2, first + count), DIM)).astype("f4")
    return x[first:first + count]


def cutter(path, ready, stop):
    """Cut the file and write it again, over and over."""
    whole = path.read_bytes()
    ready.set()
    with open(path, "r+b", buffering=0) as file:
        while not stop.is_set():
            os.ftruncate(file.fileno(), len(whole) // 3)
            file.seek(len(whole) // 3)
            file.write(whole[len(whole) // 3:])
            time.sleep(0.004)  # whole for a while, so that some searches see all of it


def test_cut():
    """A file that is cut under a search: its answer, or that it was cut; the process lives."""
    context = multiprocessing.get_context("fork")
    with npk.Place() as place:
        x = rows(0, ROWS)
        path = place.save(x)
        q = x[[5, ROWS - 5]]
        best = [order(s, "l2")[:5] for s in brute(x, q, "l2")]
        ready, stop = context.Event(), context.Event()
        arrays = [npk.Array(path) for _ in range(2)]
        child = context.Process(target=cutter, args=(path, ready, stop))
        child.start()
        ready.wait()
        answers = failures = 0
        try:
            turn, until = 0, time.monotonic() + 120
            while turn < 400 or (failures == 0 or answers == 0) and time.monotonic() < until:
                turn += 1
                flags, array = 1 + turn % 2, arrays[turn % 2]
                try:
                    hits = npk.search(array, q, "l2", 5, flags=flags, threads=1 + turn % 3, task_bytes=65536)
                except npk.Error as error:
                    assert error.code == errno.EIO, error
                    failures += 1
                    continue
                answers += 1
                # Cut and written again between two looks: rows may have been zeros, never others' bytes.
                for mine in hits:
                    assert len(set(mine["row"].tolist())) == 5 and mine["row"].max() < ROWS
        finally:
            stop.set()
            child.join()
        assert child.exitcode == 0 and answers + failures == turn and failures > 0 and answers > 0, (answers, failures)
        for flags, array in enumerate(arrays, 1):
            hits = npk.search(array, q, "l2", 5, flags=flags)
            assert all(np.array_equal(mine["row"], b) for mine, b in zip(hits, best))
            array.close()
        print(f"     {answers} answers, {failures} times cut")


def cut_behind_the_search(parts_of, flags, mapped_first):
    """A search that has rows of a part in hand which is cut before it scores them: an error, and the process lives."""
    with npk.Place() as place:
        x = np.ones((ROWS, DIM), "f4")  # no bound can tell equal rows apart, so many wait to be scored
        path = place.save(x)
        other = place.open(x[:ROWS // 2], "other")
        with npk.Array(path) as array, other:
            if mapped_first:
                npk.search(array, x[:1], "l2", 5)
            calls = []

            def progress(_, done, __):
                calls.append(done)
                if done >= ROWS // 2 * DIM * 4:
                    os.truncate(path, 128 + ROWS // 2 * DIM * 4)
                return 0
            try:
                npk.search(parts_of(array, other), x[:1] * 3, "l2", 5, flags=flags, threads=1, task_bytes=65536, progress=progress)
                raise AssertionError("an answer from rows that are gone")
            except npk.Error as error:
                assert error.code == errno.EIO, error


def test_cut_of_what_was_seen():
    context = multiprocessing.get_context("fork")
    half = ROWS // 2
    for flags, parts_of in ((2, lambda a, b: [(a, half, half), (a, 0, half)]), (0, lambda a, b: [(a, half, half), b]),
                            (1, lambda a, b: [(a, half, half), (a, 0, half)])):
        child = context.Process(target=cut_behind_the_search, args=(parts_of, flags, flags == 0))
        child.start()
        child.join()
        assert child.exitcode == 0, (flags, child.exitcode)


def appender(directory, stop):
    store = npk.ctypes.c_void_p()
    npk.check(npk.lib.npk_store_open(os.fsencode(directory), 0, npk.ctypes.byref(store)))
    at = ROWS
    while not stop.is_set() and at + 10 <= ROWS * 2:
        more = np.ascontiguousarray(rows(at, 10))
        npk.check(npk.lib.npk_append(store, b"x", npk.ctypes.c_void_p(more.ctypes.data), npk.ctypes.c_uint64(10), None))
        at += 10
    npk.lib.npk_store_close(npk.ctypes.byref(store))


def shown(array):
    """Rows that an open array has, told by the library: k beyond all gives all."""
    return npk.search(array, rows(0, 1), "dot", 10**9).shape[1]


def test_append():
    """Rows that come meanwhile are none of an open array's."""
    context = multiprocessing.get_context("fork")
    with npk.Place() as place:
        path = place.save(rows(0, ROWS))
        everything, q = rows(0, ROWS * 2), rows(ROWS - 3, 2)
        scores = brute(everything, q, "dot")
        stop = context.Event()
        child = context.Process(target=appender, args=(place.path, stop))
        child.start()
        try:
            seen = set()
            for turn in range(60):
                with npk.Array(path) as array:
                    for flags in (1, 2):
                        hits = npk.search(array, q, "dot", 7, flags=flags, threads=2, task_bytes=65536)
                        n = shown(array)
                        seen.add(n)
                        for mine, all_scores in zip(hits, scores):
                            assert np.array_equal(mine["row"], order(all_scores[:n], "dot")[:7]), (turn, n)
        finally:
            stop.set()
            child.join()
        assert child.exitcode == 0 and min(seen) >= ROWS and (len(seen) > 1 or max(seen) == ROWS * 2), seen


def dropper(path, stop, count):
    for i in range(count):
        if stop.is_set():
            break
        npk.drop(path, [0, 1, 2])


def test_drop_and_compact():
    """Searches of arrays opened while rows are deleted and the file is compacted see one state each."""
    context = multiprocessing.get_context("fork")
    with npk.Place() as place:
        x = rows(0, ROWS)
        path = place.save(x)
        q = x[[ROWS // 2]]
        scores = brute(x, q, "l2")[0]
        stop = context.Event()
        child = context.Process(target=dropper, args=(path, stop, 150))
        child.start()
        try:
            for turn in range(60):
                if turn % 20 == 10:
                    store = npk.ctypes.c_void_p()
                    npk.check(npk.lib.npk_store_open(os.fsencode(place.path), 0, npk.ctypes.byref(store)))
                    code = npk.lib.npk_compact(store, b"x", 1, None, None)
                    assert code in (0, -errno.EBUSY), code
                    npk.lib.npk_store_close(npk.ctypes.byref(store))
                with npk.Array(path) as array:
                    gone = ROWS - shown(array)
                    assert gone % 3 == 0
                    hits = npk.search(array, q, "l2", 9, flags=1 + turn % 2, threads=2)[0]
                    assert np.array_equal(hits["row"] + gone, order(scores[gone:], "l2")[:9] + gone), (turn, gone)
        finally:
            stop.set()
            child.join()
        assert child.exitcode == 0


def test_threads_on_one_array():
    """Many searches at once over one open array."""
    with npk.Place() as place, place.open(rows(0, ROWS)) as array:
        q = rows(10, 8)
        want = npk.search(array, q, "cosine", 12).tobytes()
        wrong = []

        def work(flags):
            for _ in range(10):
                if npk.search(array, q, "cosine", 12, flags=flags, threads=2).tobytes() != want:
                    wrong.append(flags)

        threads = [threading.Thread(target=work, args=(1 + i % 2,)) for i in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong


if __name__ == "__main__":
    npk.main([value for name, value in list(globals().items()) if name.startswith("test_")])
