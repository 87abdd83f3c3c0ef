# SPDX-License-Identifier: Apache-2.0
"""The operations: each chooses what it does from its own random numbers and what there is, does it by one of the actors,
and does the same to the model. A step is [operation, actor, array, seed], so a sequence stays one when steps are left
out."""

import os
import subprocess

import numpy as np

from actors import system, write_control
from memory import DTYPES, ROW_SHAPES, Array, Batch, values

NAMES = ["a", "b", "c", "g/a", "g/b", "h/i/c"]
RANGES = ["first", "train", "x y", "r-1"]
BATCHES = ["b1", "b2"]
STEPS = {}


def step(weight, by):
    """Register an operation: how often it is chosen, and by whom it can be done."""
    def keep(f):
        STEPS[f.__name__] = (f, weight, by.split())
        return f
    return keep


def shape_text(shape):
    return ",".join(str(n) for n in shape)


def some_rows(rng, a, most=None):
    n = int(rng.choice([1, 1, 2, 3, 5, 9, 40, 120 if a.row_bytes < 200 else 4]))
    return values(rng, a.dtype, (min(n, most) if most else n,) + a.row_shape)


def choose(rng, rows, most=200):
    """A choice of rows: (text as Python writes it, indices as given with negative ones, rows that they mean)."""
    how = rng.integers(0, 4)
    if how == 0:
        given = [int(rng.integers(-rows, rows))]
        text = str(given[0])
    elif how == 1:
        given = [int(i) for i in rng.integers(-rows, rows, int(rng.integers(1, min(most, 12) + 1)))]
        text = ",".join(map(str, given))
    else:
        step = int(rng.choice([1, 1, 1, 2, 3, -1, 10]))
        lo, hi = sorted(int(i) for i in rng.integers(0, rows + 1, 2))
        s = slice(lo, hi, step) if step > 0 else slice(hi - 1 if hi else None, lo - 1 if lo else None, step)
        given = list(range(rows))[s][:most]
        last = given[-1] if given else 0
        if given and len(given) == len(range(rows)[s]):
            text = "%s:%s:%d" % ("" if s.start is None else s.start, "" if s.stop is None else s.stop, step)
        elif given and step == 1:
            text = "%d:%d" % (given[0], last + 1)
        else:
            given = given[:20] or [0]
            text = ",".join(map(str, given))
    return text, given, [i + rows if i < 0 else i for i in given]


def indices(given):
    return np.asarray(given, "<i8").tobytes()


# ---- whole arrays ----------------------------------------------------------------------------------------------------


def put(run, name, rows):
    run.arrays[name] = Array(rows)


@step(8, "m1 m2 lib cli many")
def save(run, rng, by, name):
    dtype = DTYPES[int(rng.integers(0, len(DTYPES)))]
    row = ROW_SHAPES[int(rng.integers(0, len(ROW_SHAPES)))]
    rows = values(rng, dtype, (int(rng.choice([0, 1, 5, 9, 30, 99, 400])),) + row)
    there, w = name in run.arrays, run.world
    run.log("%s %s%s%s" % (name, rows.dtype.str, list(rows.shape), " over" if there else ""))
    if by in w.mounts:
        def work():
            os.makedirs(os.path.dirname(w.place(by, name)), exist_ok=True)
            with open(w.place(by, name), "wb") as f:
                np.save(f, rows)
        if run.act(lambda: system(work)):
            put(run, name, rows)
    elif by == "cli":
        path = w.scratch(rows)
        if run.act(lambda: w.cli("create", w.place("cli", name), "--from", path), fails={"EEXIST"} if there else None):
            put(run, name, rows)
    elif by == "many":
        names = list(dict.fromkeys([name] + [NAMES[int(i)] for i in rng.integers(0, len(NAMES), 2)]))
        words, data = [], b""
        for n in names:
            words += [n, rows.dtype.str, shape_text(rows.shape), rows.nbytes]
            data += rows.tobytes()
        if run.act(lambda: w.lib("save_many", *words, data=data)):
            for n in names:
                put(run, n, rows)
                run.look_at(n)
    else:
        create = bool(rng.integers(0, 2))
        words = ("save", name, rows.dtype.str, shape_text(rows.shape)) + (("create",) if create else ())
        if run.act(lambda: w.lib(*words, data=rows.tobytes()), fails={"EEXIST"} if there and create else None):
            put(run, name, rows)


@step(2, "m1 m2 lib cli")
def remove(run, rng, by, name):
    w, there = run.world, name in run.arrays
    run.log(name)
    fails = None if there else {"ENOENT"}
    if by in w.mounts:
        done = run.act(lambda: system(os.unlink, w.place(by, name)), fails=fails)
    elif by == "cli":
        done = run.act(lambda: w.cli("drop", w.place("cli", name)), fails=fails)
    else:
        done = run.act(lambda: w.lib("remove", name), fails=fails)
    if done:
        del run.arrays[name]


@step(4, "m1 m2 lib cli")
def rename(run, rng, by, name):
    w, to = run.world, NAMES[int(rng.integers(0, len(NAMES)))]
    a = run.need(name)
    over = to in run.arrays
    run.log("%s to %s%s" % (name, to, " over it" if over else ""))
    run.look_at(to)
    if a is None or to == name:
        return
    if by in w.mounts:
        def work():
            os.makedirs(os.path.dirname(w.place(by, to)), exist_ok=True)
            os.rename(w.place(by, name), w.place(by, to))
        done = run.act(lambda: system(work))
    elif by == "cli":
        done = run.act(lambda: w.cli("mv", w.place("cli", name), w.place("cli", to), "--store", w.store),
                       fails={"EEXIST"} if over else None)
    else:
        done = run.act(lambda: w.lib("rename", name, to), fails={"EEXIST"} if over else None)
    if done:
        run.arrays[to] = run.arrays.pop(name)


@step(3, "m1 m2 lib cli")
def clone(run, rng, by, name):
    w, to = run.world, NAMES[int(rng.integers(0, len(NAMES)))]
    a = run.need(name)
    fails = {"EEXIST"} if to in run.arrays else None
    run.log("%s to %s" % (name, to))
    run.look_at(to)
    if a is None or a.tail or to == name:
        return
    if by in w.mounts:
        done = run.act(lambda: write_control(w.control(by, name, "clone"), to + "\n"), fails=fails)
    elif by == "cli":
        done = run.act(lambda: w.cli("clone", w.place("cli", name), w.place("cli", to), "--store", w.store), fails=fails)
    else:
        done = run.act(lambda: w.lib("clone", name, to), fails=fails)
    if done:
        put(run, to, a.shown)


@step(2, "m1 m2")
def copy(run, rng, by, name):
    w, to = run.world, NAMES[int(rng.integers(0, len(NAMES)))]
    a = run.need(name)
    run.log("%s to %s" % (name, to))
    run.look_at(to)
    if a is None or a.tail or to == name:
        return
    os.makedirs(os.path.dirname(w.place(by, to)), exist_ok=True)
    for _ in range(10):
        done = subprocess.run(["cp", w.place(by, name), w.place(by, to)], capture_output=True, text=True)
        if "replaced while being copied" not in done.stderr:
            break  # a new file took the name behind the mount a moment ago, and cp has looked before it has opened
    if done.returncode:
        raise AssertionError("cp: " + done.stderr)
    put(run, to, a.shown)


@step(0.15, "lib cli")
def reset(run, rng, by, name):
    w = run.world
    run.log("")
    if run.act((lambda: w.lib("reset")) if by == "lib" else (lambda: w.cli("reset", w.store, "--yes"))):
        for name in list(run.arrays):
            del run.arrays[name]
            run.look_at(name)


# ---- rows ------------------------------------------------------------------------------------------------------------


def append_raw(run, rng, by, name, a, data):
    """Bytes at the end through a mount, in one of the ways that programs have."""
    path, how = run.world.place(by, name), rng.integers(0, 4)

    def pieces():
        cut = [int(c) for c in sorted(rng.integers(0, len(data) + 1, 2))] if how == 1 else []
        with open(path, "ab", buffering=0) as f:
            for lo, hi in zip([0] + cut, cut + [len(data)]):
                if hi > lo:
                    f.write(data[lo:hi])

    def behind():
        with open(path, "r+b", buffering=0) as f:
            f.seek(0, os.SEEK_END)
            f.write(data)

    if how == 2:
        source = run.world.scratch(data)
        done = subprocess.run(["dd", "if=" + source, "of=" + path, "oflag=append", "conv=notrunc", "bs=777", "status=none"],
                              capture_output=True, text=True)
        if done.returncode:
            raise AssertionError("dd: " + done.stderr)
        return True
    return run.act(lambda: system(behind if how == 3 else pieces))


@step(14, "m1 m2 lib cli raw named slice")
def append(run, rng, by, name):
    w, a = run.world, run.need(name)
    if a is None:
        return
    rows = some_rows(rng, a)
    run.log("%s %d rows" % (name, len(rows)))
    if by in w.mounts:
        if append_raw(run, rng, by, name, a, rows.tobytes()):
            a.append_bytes(rows.tobytes())
        return
    range_name = RANGES[int(rng.integers(0, len(RANGES)))]
    fails = {"EBUSY"} if a.tail else None
    if by in ("named", "slice") and range_name in a.names:
        fails = {"EEXIST", "EBUSY", "EACCES"}  # the file of a name that is there cannot be written
    forced = not a.tail
    if by == "lib":
        done = run.act(lambda: w.lib("append", name, len(rows), data=rows.tobytes()), fails=fails, forced=forced)
    elif by == "named":
        done = run.act(lambda: w.lib("append_named", name, range_name, len(rows), data=rows.tobytes()), fails=fails,
                       forced=forced or fails and "EEXIST" in fails)
    elif by == "slice":
        def work():
            with open(w.control("m1", name, "slices/%s.npy" % range_name), "wb", buffering=0) as f:
                f.write(open(w.scratch(rows), "rb").read())
        done = run.act(lambda: system(work), fails=fails, forced=forced or fails and "EEXIST" in fails)
    elif by == "raw":
        done = run.act(lambda: w.cli("append", w.place("cli", name), "-", "--raw", data=rows.tobytes()), fails=fails,
                       forced=forced)
    else:
        path = w.scratch(rows)
        done = run.act(lambda: w.cli("append", w.place("cli", name), path), fails=fails, forced=forced)
    if done:
        run.set_aside(name, a)
        at = len(a.phys)
        a.append(rows)
        if by in ("named", "slice"):
            a.names[range_name] = (at, at + len(rows))


@step(2, "lib")
def append_many(run, rng, by, name):
    """To several arrays, some of them named twice: all or none."""
    names = [NAMES[int(i)] for i in rng.integers(0, len(NAMES), int(rng.integers(1, 4)))]
    missing = [n for n in names if n not in run.arrays]
    words, data, given = [], b"", []
    for n in names:
        a = run.arrays.get(n)
        rows = some_rows(rng, a) if a is not None else np.zeros(1, "u1")
        given.append(rows)
        words += [n, len(rows), rows.nbytes]
        data += rows.tobytes()
        run.look_at(n)
    run.log(" ".join(names))
    tails = any(n in run.arrays and run.arrays[n].tail for n in names)
    fails = {"ENOENT", "EBUSY"} if missing else {"EBUSY"} if tails else None
    if run.act(lambda: run.world.lib("append_many", *words, data=data), fails=fails, forced=bool(missing) or not tails):
        for n, rows in zip(names, given):
            run.set_aside(n, run.arrays[n])
            run.arrays[n].append(rows)
    elif tails:
        for n in names:
            if n in run.arrays:
                run.arrays[n].unsure += 1
                run.tail_may_have_gone(n)


@step(3, "m1 m2")
def part_row(run, rng, by, name):
    a = run.need(name)
    if a is None or a.row_bytes < 2:
        return
    data = bytes(rng.integers(1, 100, int(rng.integers(1, a.row_bytes * 2)), dtype=np.uint8))
    run.log("%s %d bytes of rows of %d" % (name, len(data), a.row_bytes))
    if append_raw(run, rng, by, name, a, data):
        a.append_bytes(data)


@step(10, "m1 m2 map lib range cli")
def replace(run, rng, by, name):
    w, a = run.world, run.need(name)
    if a is None or a.rows == 0:
        return
    text, given, meant = choose(rng, a.rows)
    rows = values(rng, a.dtype, (len(given),) + a.row_shape)
    run.log("%s rows %s" % (name, text))
    if by in w.mounts or by == "range":
        lo = meant[0]
        rows = values(rng, a.dtype, (int(rng.integers(1, min(a.rows - lo, 50) + 1)),) + a.row_shape)
        meant = list(range(lo, lo + len(rows)))
    if by in w.mounts:
        def work():
            with open(w.place(by, name), "r+b", buffering=0) as f:
                os.pwrite(f.fileno(), rows.tobytes(), data_offset(f) + meant[0] * a.row_bytes)
        done = run.act(lambda: system(work))
    elif by == "map":
        if a.dtype.kind == "M" or a.row_shape == ():  # numpy cannot map what it must convert
            meant, rows = meant[:1], rows[:1]
        def work():
            x = np.load(w.place("m1" if meant[0] % 2 else "m2", name), mmap_mode="r+")
            for i, r in zip(meant, rows):
                x[i] = r
            x.flush()
            del x
        done = run.act(lambda: system(work))
    elif by == "range":
        done = run.act(lambda: w.lib("replace_range", name, meant[0], len(rows), data=rows.tobytes()),
                       **run.with_tail(a))
    elif by == "lib":
        done = run.act(lambda: w.lib("replace_rows", name, len(given), data=indices(given) + rows.tobytes()),
                       **run.with_tail(a))
    else:
        path = w.scratch(rows)
        done = run.act(lambda: w.cli("replace", w.place("cli", name), text, path), **run.with_tail(a))
    if done:
        if by not in w.mounts and by != "map":
            run.tail_may_have_gone(name)
        a.replace(meant, rows)


def data_offset(f):
    head = os.pread(f.fileno(), 12, 0)
    return 10 + int.from_bytes(head[8:10], "little") if head[6] == 1 else 12 + int.from_bytes(head[8:12], "little")


@step(9, "m1 m2 npy lib cli mask")
def drop(run, rng, by, name):
    w, a = run.world, run.need(name)
    if a is None or a.rows == 0:
        return
    text, given, meant = choose(rng, a.rows, 400)
    run.log("%s rows %s" % (name, text))
    if by in w.mounts:
        if rng.integers(0, 2) and "," in text:
            text = text.replace(",", "\n")
        end = "\n" if rng.integers(0, 2) else ""
        done = run.act(lambda: write_control(w.control(by, name, "drop"), text + end))
    elif by == "npy":
        raw = open(w.scratch(np.array(given)), "rb").read()
        done = run.act(lambda: write_control(w.control("m1", name, "drop"), raw))
    elif by == "mask":
        mask = np.zeros(a.rows, bool)
        mask[meant] = True
        path = w.scratch(mask, ".npy")
        done = run.act(lambda: w.cli("drop", w.place("cli", name), path))
    elif by == "lib":
        done = run.act(lambda: w.lib("drop", name, a.rows, len(given), data=indices(given)))
    else:
        done = run.act(lambda: w.cli("drop", w.place("cli", name), text))
    if done:
        a.drop(meant)


@step(3, "m1 m2 lib cli")
def restore(run, rng, by, name):
    w, a = run.world, run.need(name)
    if a is None:
        return
    ranges = a.deleted_ranges()
    n = len(a.phys)
    if rng.integers(0, 2) or n == 0:
        text, chosen = "all", ranges
    else:
        picked = [ranges[int(rng.integers(0, len(ranges)))]] if ranges else []
        lo = int(rng.integers(0, n))
        picked.append((lo, int(rng.integers(lo + 1, n + 1))))
        chosen = picked
        text = ",".join("%d:%d" % r for r in picked)
    run.log("%s %s" % (name, text))
    if by in w.mounts:
        done = run.act(lambda: write_control(w.control(by, name, "restore"), text + "\n"))
    elif by == "cli":
        done = run.act(lambda: w.cli("restore", w.place("cli", name), text))
    elif text == "all":
        done = run.act(lambda: w.lib("restore", name))
    else:
        done = run.act(lambda: w.lib("restore", name, len(chosen), data=np.asarray(chosen, "<u8").tobytes()))
    if done:
        a.restore(chosen)


@step(4, "m1 m2 lib cli")
def compact(run, rng, by, name):
    w, a = run.world, run.need(name)
    if a is None:
        return
    run.log(name)
    how = run.with_tail(a) if not a.live.all() else {}
    if by in w.mounts:
        done = run.act(lambda: write_control(w.control(by, name, "compact"), "1\n"), **how)
    elif by == "cli":
        done = run.act(lambda: w.cli("compact", w.place("cli", name)), **how)
    else:
        done = run.act(lambda: w.lib("compact", name), **how)
    if done:
        run.tail_may_have_gone(name)
        a.compact()


@step(4, "m1 m2 lib cli")
def rows(run, rng, by, name):
    """Another number of rows."""
    w, a = run.world, run.need(name)
    if a is None:
        return
    n = int(rng.choice([0, max(0, a.rows - 1), a.rows // 2, a.rows, a.rows + 1, a.rows + 7, 9 if a.rows < 9 else a.rows + 100]))
    shape = shape_text((n,) + a.row_shape)
    run.log("%s %d to %d rows" % (name, a.rows, n))
    if by in w.mounts:
        done = run.act(lambda: write_control(w.control(by, name, "shape"), shape + "\n"))
    elif by == "cli":
        done = run.act(lambda: w.cli("reshape", w.place("cli", name), shape))
    else:
        done = run.act(lambda: w.lib("truncate" if n < a.rows else "extend", name, n))
    if done and n < a.rows:
        a.truncate(n)
    elif done and n > a.rows:
        run.set_aside(name, a)
        a.extend(n)
    elif done:
        a.unsure += 1


@step(3, "m1 m2")
def truncate(run, rng, by, name):
    """As the system call does it: to any size."""
    w, a = run.world, run.need(name)
    if a is None:
        return
    size = int(rng.integers(0, a.rows * a.row_bytes + len(a.tail) + 1))
    if rng.integers(0, 3):
        size -= size % a.row_bytes
    path = w.place(by, name)
    run.log("%s to %d bytes of data, rows have %d" % (name, size, a.row_bytes))

    def work():
        with open(path, "rb") as f:
            offset = data_offset(f)
        if rng.integers(0, 2):
            os.truncate(path, offset + size)
        else:
            with open(path, "r+b") as f:
                f.truncate(offset + size)
    if run.act(lambda: system(work)):
        if size == a.rows * a.row_bytes + len(a.tail):
            a.unsure += 1
        else:
            a.truncate(size // a.row_bytes, size % a.row_bytes)


@step(2, "m1 m2 lib cli")
def reshape(run, rng, by, name):
    w, a = run.world, run.need(name)
    if a is None or a.shown.size == 0:
        return
    size = a.shown.size
    k = int(rng.choice([d for d in (1, 2, 3, 4, 5, 6, 7, 16) if size % d == 0]))
    shape = (size // k, k) if rng.integers(0, 2) else (size,)
    if len(shape) == 1 + len(a.row_shape) and shape[1:] == a.row_shape:
        return
    text = shape_text(shape) if rng.integers(0, 2) else shape_text((-1,) + shape[1:])
    run.log("%s %s to %s" % (name, a.shape, text))
    how = {"fails": {"ENOTSUP"}} if a.names else run.with_tail(a)
    if a.names and a.tail:
        how = {"fails": {"ENOTSUP", "EBUSY"}}
    if by in w.mounts:
        done = run.act(lambda: write_control(w.control(by, name, "shape"), text + "\n"), **how)
    elif by == "cli":
        done = run.act(lambda: w.cli("reshape", w.place("cli", name), text), **how)
    else:
        done = run.act(lambda: w.lib("reshape", name, text), **how)
    if done:
        run.tail_may_have_gone(name)
        a.reshape(shape)


@step(2, "m1 m2 lib cli")
def cast(run, rng, by, name):
    """To a dtype that holds every value, so that no rule of rounding is in play (tests of npk_cast know those)."""
    w, a = run.world, run.need(name)
    wider = {"b": ["uint8", "int16", "float32"], "i": ["int64"], "u": ["uint64"], "f": ["float64"], "c": ["complex128"]}
    if a is None or a.dtype.kind not in wider or a.dtype.str[0] == ">" or a.dtype == np.float16:  # bits of NaNs differ
        return
    to = np.dtype(str(rng.choice(wider[a.dtype.kind])))
    run.log("%s %s to %s" % (name, a.dtype, to))
    if by in w.mounts:
        done = run.act(lambda: write_control(w.control(by, name, "dtype"), to.name + "\n"), **run.with_tail(a))
    elif by == "cli":
        done = run.act(lambda: w.cli("cast", w.place("cli", name), to.name), **run.with_tail(a))
    else:
        done = run.act(lambda: w.lib("cast", name, to.name), **run.with_tail(a))
    if done and to != a.dtype:
        run.tail_may_have_gone(name)
        a.compact()
        a.phys = a.phys.astype(to)
        a.touched()


@step(5, "m1 m2 lib cli")
def name_rows(run, rng, by, name):
    w, a = run.world, run.need(name)
    if a is None:
        return
    range_name = RANGES[int(rng.integers(0, len(RANGES)))]
    if rng.integers(0, 4) == 0:
        fails = None if range_name in a.names else {"ENOENT"}
        run.log("%s: not %s any more" % (name, range_name))
        if by in w.mounts:
            done = run.act(lambda: write_control(w.control(by, name, "names"), range_name + "\n"), fails=fails)
        elif by == "cli":
            done = run.act(lambda: w.cli("names", w.place("cli", name), range_name + "="), fails=fails)
        else:
            done = run.act(lambda: w.lib("name_remove", name, range_name), fails=fails)
        if done:
            del a.names[range_name]
            a.unsure += 1
        return
    lo, hi = sorted(int(i) for i in rng.integers(0, a.rows + 1, 2))
    by = "lib" if by == "cli" and lo == hi else by  # npk takes no range without a row
    run.log("%s: %s is %d:%d" % (name, range_name, lo, hi))
    if by in w.mounts:
        done = run.act(lambda: write_control(w.control(by, name, "names"), "%s\t%d\t%d\n" % (range_name, lo, hi)))
    elif by == "cli":
        done = run.act(lambda: w.cli("names", w.place("cli", name), "%s=%d:%d" % (range_name, lo, hi)))
    else:
        done = run.act(lambda: w.lib("name_set", name, range_name, lo, hi))
    if done:
        a.name(range_name, lo, hi)
        a.unsure += 1  # the first thing that is known of an array gives it a generation


@step(1, "lib cli")
def sync(run, rng, by, name):
    run.log("")
    run.act((lambda: run.world.lib("sync")) if by == "lib" else (lambda: run.world.cli("sync", run.world.store)))


# ---- reading ---------------------------------------------------------------------------------------------------------


@step(8, "m1 m2 map lib range stream cli summary")
def read(run, rng, by, name):
    w, a = run.world, run.need(name)
    if a is None or a.rows == 0:
        return
    text, given, meant = choose(rng, a.rows)
    run.log("%s rows %s" % (name, text))
    want = a.shown[meant]
    if by in w.mounts:
        got = np.load(w.control(by, name, "slices/%s.npy" % text))
        run.same(got, want, "slices/%s" % text)
    elif by == "map":
        x = np.load(w.place("m1" if len(meant) % 2 else "m2", name), mmap_mode="r")
        run.same(np.asarray(x[meant]), want, "rows of a mapping")
    elif by == "lib":
        result, data, why = w.lib("read", name, "rows", len(given), data=indices(given))
        run.same_bytes(result or data, want.tobytes(), "npk_read_rows " + why)
    elif by == "range":
        lo, count = meant[0], int(rng.integers(0, a.rows - meant[0] + 1))
        result, data, why = w.lib("read", name, "range", lo, count)
        run.same_bytes(result or data, a.shown[lo:lo + count].tobytes(), "npk_read_range %d %d %s" % (lo, count, why))
    elif by == "stream":
        how = ("stream", "runs")[int(rng.integers(0, 2))]
        result, data, why = w.lib("read", name, how, int(rng.integers(1, 50)))
        run.same_bytes(result or data, a.shown.tobytes(), "npk_" + how + why)
    elif by == "summary":
        if a.dtype.str[0] == ">" or a.dtype.kind in "SUM":
            return
        result, data, why = w.lib("summary", name)
        if result:
            raise AssertionError("summary: " + why)
        count, nans, zeros = data.split(b"\t")[:3]
        x = a.shown
        nan = np.isnan(x).sum() if x.dtype.kind in "fc" else 0
        run.same_bytes((int(count), int(nans), int(zeros)), (x.size, int(nan), int((x == 0).sum())), "summary")
    else:
        result, data, why = w.cli("get", w.place("cli", name), text, "--raw")
        run.same_bytes(result or data, want.tobytes(), "npk get " + why)


@step(2, "m1 m2")
def hold(run, rng, by, name):
    """Map an array and look again later: who has it mapped keeps what he saw."""
    a = run.need(name)
    if a is None or a.rows == 0:
        return
    run.log(name)
    run.held.append((name, a, a.shown.copy(), np.load(run.world.place(by, name), mmap_mode="r")))
    if len(run.held) > 4:
        run.held.pop(0)


# ---- batches ---------------------------------------------------------------------------------------------------------


@step(3, "m1 m2 lib keep cli")
def begin(run, rng, by, name):
    w = run.world
    id = BATCHES[int(rng.integers(0, len(BATCHES)))]
    there = id in run.batches
    run.log(id)
    fails = {"EEXIST"} if there else None
    if by in w.mounts:
        done = run.act(lambda: system(os.mkdir, os.path.join(w.mounts[by].mnt, ".npk/batch", id)), fails=fails)
    elif by == "cli":
        done = run.act(lambda: w.cli("batch", "begin", w.store, id), fails=fails)
    else:
        done = run.act(lambda: w.lib("batch_begin", id, "keep" if by == "keep" else ""), fails=fails)
    if done:
        run.batches[id] = Batch(id, by in ("cli", "keep"), by)


def some_batch(run, rng):
    ids = sorted(run.batches)
    return run.batches[ids[int(rng.integers(0, len(ids)))]] if ids else None


@step(5, "m1 m2 lib cli")
def batch_save(run, rng, by, name):
    w, b = run.world, some_batch(run, rng)
    dtype = DTYPES[int(rng.integers(0, len(DTYPES)))]
    row = ROW_SHAPES[int(rng.integers(0, len(ROW_SHAPES)))]
    rows = values(rng, dtype, (int(rng.choice([0, 1, 9, 30])),) + row)
    if b is None:
        return
    run.log("%s %s %s%s" % (b.id, name, rows.dtype.str, list(rows.shape)))
    how = {"fails": {"ESTALE"}, "forced": False} if b.conflict(run.arrays) != "no" else {}
    if by in w.mounts:
        def work():
            path = os.path.join(w.mounts[by].mnt, ".npk/batch", b.id, name + ".npy")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as f:
                np.save(f, rows)
        done = run.act(lambda: system(work), **how)
    elif by == "cli":
        path = w.scratch(rows)
        if b.get(run.arrays, name) is not None:
            how = {"fails": {"EEXIST", "ESTALE"}}
        done = run.act(lambda: w.cli("create", w.place("cli", name), "--from", path, "--batch", b.id), **how)
    else:
        done = run.act(lambda: w.lib("batch_save", b.id, name, rows.dtype.str, shape_text(rows.shape), data=rows.tobytes()),
                       **how)
    if done:
        b.touch(run.arrays, name)
        b.changed[name] = Array(rows)


@step(8, "m1 m2 lib cli")
def batch_rows(run, rng, by, name):
    """Append, replace, delete or remove in a batch."""
    w, b = run.world, some_batch(run, rng)
    a = b.get(run.arrays, name) if b else None
    if a is None or a.tail:
        return
    what = ("append", "replace", "drop", "remove")[int(rng.integers(0, 4))]
    rows = some_rows(rng, a)
    if what in ("replace", "drop") and a.rows == 0:
        return
    text, given, meant = choose(rng, a.rows) if a.rows else ("", [], [])
    if what == "replace":
        rows = values(rng, a.dtype, (len(given),) + a.row_shape)
    run.log("%s %s %s %s" % (b.id, what, name, text if what != "append" else len(rows)))
    how = {"fails": {"ESTALE"}, "forced": False} if b.conflict(run.arrays) != "no" else {}
    path = os.path.join(w.mounts[by].mnt, ".npk/batch", b.id, name + ".npy") if by in w.mounts else w.place("cli", name)
    if by in w.mounts and what == "drop":
        by = "lib"
    if what == "append":
        def work():
            with open(path, "ab", buffering=0) as f:
                f.write(rows.tobytes())
        done = run.act((lambda: system(work)) if by in w.mounts else
                       (lambda: w.cli("append", path, w.scratch(rows), "--batch", b.id)) if by == "cli" else
                       (lambda: w.lib("batch_append", b.id, name, len(rows), data=rows.tobytes())), **how)
    elif what == "replace":
        def work():
            x = np.load(path, mmap_mode="r+")
            for i, r in zip(meant, rows):
                x[i] = r
            x.flush()
        done = run.act((lambda: system(work)) if by in w.mounts else
                       (lambda: w.cli("replace", path, text, w.scratch(rows), "--batch", b.id)) if by == "cli" else
                       (lambda: w.lib("batch_replace", b.id, name, len(given), data=indices(given) + rows.tobytes())), **how)
    elif what == "drop":
        done = run.act((lambda: w.cli("drop", path, text, "--batch", b.id)) if by == "cli" else
                       (lambda: w.lib("batch_drop", b.id, name, a.rows, len(given), data=indices(given))), **how)
    else:
        done = run.act((lambda: system(os.unlink, path)) if by in w.mounts else
                       (lambda: w.cli("drop", path, "--batch", b.id)) if by == "cli" else
                       (lambda: w.lib("batch_remove", b.id, name)), **how)
    if done:
        apply_in_batch(run, b, name, what, rows, meant)


def apply_in_batch(run, b, name, what, rows, meant):
    b.touch(run.arrays, name)
    if what == "remove":
        b.changed[name] = None
        return
    mine = b.mine(run.arrays, name)
    if what == "append":
        mine.append(rows)
    elif what == "replace":
        mine.replace(meant, rows)
    else:
        mine.drop(meant)
        mine.compact()
    if not mine.live.all():
        mine.compact()


@step(3, "m1 m2 lib cli")
def commit(run, rng, by, name):
    end_batch(run, rng, by, "commit")


@step(0.7, "m1 m2 lib cli")
def abort(run, rng, by, name):
    end_batch(run, rng, by, "abort")


def end_batch(run, rng, by, word):
    w, b = run.world, some_batch(run, rng)
    if b is None:
        return
    conflict = b.conflict(run.arrays) if word == "commit" else "no"
    fails = {"ESTALE"} if conflict != "no" else None
    run.log("%s %s%s" % (word, b.id, " in vain" if conflict == "yes" else ""))
    state = os.path.join(w.mounts["m1" if by != "m2" else by].mnt, ".npk/batch", b.id, ".npk/state")
    if by in w.mounts:
        act = lambda: write_control(state, word + "\n")
    elif by == "cli":
        act = lambda: w.cli("batch", word, w.store, b.id)
    else:
        act = lambda: w.lib("batch_" + word, b.id)
    done = run.act(act, fails=fails, forced=conflict != "maybe")
    if done and by != "lib":
        w.lib("batch_close", b.id)  # a handle of one that is gone
    if not done:  # it is there as before
        run.act(lambda: w.lib("batch_abort", b.id))
    elif word == "commit":
        for changed, a in b.changed.items():
            run.committed(changed, a)
    for touched in b.seen:
        run.look_at(touched)
    del run.batches[b.id]


# ---- ends and beginnings ---------------------------------------------------------------------------------------------


@step(0.5, "m1 m2")
def remount(run, rng, by, name):
    run.log("")
    run.held.clear()
    run.batches_gone(by)
    run.world.mounts[by].remount()
    run.anything_may_have_moved()


@step(0.7, "m1 m2")
def kill(run, rng, by, name):
    run.log("")
    run.held.clear()
    run.batches_gone(by)
    run.world.mounts[by].kill()
    run.world.mounts[by].restart()
    run.anything_may_have_moved()


@step(0.5, "lib")
def kill_library(run, rng, by, name):
    run.log("")
    run.world.lib.stop(kill=True)
    run.batches_gone("lib")
