# SPDX-License-Identifier: Apache-2.0
"""What a store has to show, kept in memory with numpy alone."""

import copy
import itertools

import numpy as np

_ids = itertools.count(1)

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
          "complex64", "complex128", ">i4", "S5", "<U3", "<M8[s]"]
ROW_SHAPES = [(), (1,), (3,), (2, 2), (7,), (16,), (130,)]


def values(rng, dtype, shape):
    """Random bytes of the dtype, so that NaNs, negative zeros and everything else comes by."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    raw = rng.integers(0, 256, count * dtype.itemsize, dtype=np.uint8)
    if dtype.kind == "b":
        raw &= 1
    if dtype.kind == "U":
        raw = np.frombuffer((raw.view("<u4") % 90 + 33).astype("<u4").tobytes(), np.uint8)
    return np.frombuffer(raw.tobytes(), dtype).reshape(shape)


class Array:
    """One array: the rows of its file, which of them are shown, names, and bytes behind the last whole row."""

    def __init__(self, rows):
        self.id = next(_ids)
        self.phys = np.array(rows)
        self.live = np.ones(len(self.phys), bool)
        self.names = {}
        self.tail = b""
        self.version = 0
        self.unsure = 0  # changes that may or may not have moved what a commit compares

    def copy(self):
        return copy.deepcopy(self)

    def touched(self):
        self.version += 1

    @property
    def dtype(self):
        return self.phys.dtype

    @property
    def row_shape(self):
        return self.phys.shape[1:]

    @property
    def row_bytes(self):
        return self.dtype.itemsize * int(np.prod(self.row_shape, dtype=np.int64))

    @property
    def shown(self):
        return self.phys[self.live]

    @property
    def rows(self):
        return int(self.live.sum())

    @property
    def shape(self):
        return (self.rows,) + self.row_shape

    def physical(self, row):
        """Row of the file that is shown as this one; behind the last row: the file's end."""
        at = np.flatnonzero(self.live)
        return int(at[row]) if row < len(at) else len(self.phys)

    def shown_names(self):
        rank = np.concatenate([[0], np.cumsum(self.live)])
        return {n: (int(rank[a]), int(rank[b])) for n, (a, b) in self.names.items()}

    def deleted_ranges(self):
        edges = np.diff(np.concatenate([[0], (~self.live).astype(np.int8), [0]]))
        return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist()))

    # -- changes ---------------------------------------------------------------------------------------------------

    def grow(self, rows):
        more = np.asarray(rows, self.dtype).reshape((len(rows),) + self.row_shape)
        self.phys = np.concatenate([self.phys, more]).astype(self.dtype)  # numpy turns big-endian into its own
        self.live = np.concatenate([self.live, np.ones(len(rows), bool)])

    def append(self, rows):
        if len(rows):
            self.grow(rows)
            self.touched()

    def append_bytes(self, data):
        data = self.tail + data
        whole = len(data) // self.row_bytes
        self.grow(np.frombuffer(data[:whole * self.row_bytes], self.dtype).reshape((whole,) + self.row_shape))
        self.tail = data[whole * self.row_bytes:]
        self.touched()

    def replace(self, indices, rows):
        at = np.flatnonzero(self.live)
        for i, r in zip(indices, rows):
            self.phys[at[i]] = r
        if len(indices):
            self.touched()

    def drop(self, indices):
        at = np.flatnonzero(self.live)
        if len(indices):
            self.live[at[np.asarray(indices, np.int64)]] = False
        self.unsure += 1

    def restore(self, ranges):
        for a, b in ranges:
            self.live[a:b] = True
        self.unsure += 1

    def compact(self):
        if self.live.all():
            return
        keep = np.concatenate([[0], np.cumsum(self.live)])
        self.names = {n: (int(keep[a]), int(keep[b])) for n, (a, b) in self.names.items()}
        self.phys = self.shown
        self.live = np.ones(len(self.phys), bool)
        self.touched()

    def clip_names(self):
        n = len(self.phys)
        self.names = {k: (min(a, n), min(b, n)) for k, (a, b) in self.names.items() if not (a >= n and b > n)}

    def truncate(self, rows, part=0):
        """Keep so many shown rows, and `part` bytes of what the file has behind them."""
        if rows >= self.rows:
            cut = len(self.phys)
            data = self.tail
        else:
            cut = self.physical(rows)
            data = self.phys[cut:cut + 1].tobytes()
        self.phys, self.live, self.tail = self.phys[:cut], self.live[:cut], data[:part]
        self.clip_names()
        self.touched()

    def extend(self, rows):
        more = rows - self.rows
        if more > 0:
            self.grow(np.zeros((more,) + self.row_shape, self.dtype))
            self.touched()

    def reshape(self, shape):
        self.phys = self.shown.reshape(shape)
        self.live = np.ones(len(self.phys), bool)
        self.touched()

    def name(self, range_name, start, stop):
        first = self.physical(start)
        self.names[range_name] = (first, self.physical(stop - 1) + 1 if stop > start else first)


class Batch:
    """A batch: what it has changed, and what the store's arrays were when it touched them."""

    def __init__(self, id, kept, by):
        self.id, self.kept, self.by = id, kept, by
        self.seen = {}     # name -> (array's id or None, version, unsure)
        self.changed = {}  # name -> Array or None

    def touch(self, store, name):
        if name not in self.seen:
            a = store.get(name)
            self.seen[name] = (a.id, a.version, a.unsure) if a else (None, 0, 0)

    def get(self, store, name):
        return self.changed[name] if name in self.changed else store.get(name)

    def mine(self, store, name):
        """The batch's own copy of an array. One with deleted rows is copied without them."""
        self.touch(store, name)
        if name not in self.changed:
            a = store[name].copy()
            self.changed[name] = a
        return self.changed[name]

    def conflict(self, store):
        """"yes", "no", or "maybe"."""
        worst = "no"
        for name, (id, version, unsure) in self.seen.items():
            a = store.get(name)
            if (a.id if a else None) != id or (a and a.version != version):
                return "yes"
            if a and a.unsure != unsure:
                worst = "maybe"
        return worst
