# SPDX-License-Identifier: Apache-2.0
"""Batches on the mount: directories below .npk/batch in which arrays are changed together.

Usage: batch.py passthrough|daemon [WORD...]"""

import os
import subprocess
import sys
import tempfile

import numpy as np

import mountlib
from harness import err, expect, main_on_mounts, test
from mountlib import NPK, Mount, MountFailed

ROWS = np.arange(36, dtype="f4").reshape(9, 4)


def begin(m, name):
    path = m.path(".npk", "batch", name)
    os.mkdir(path)
    return path


def end(batch, word):
    with open(os.path.join(batch, ".npk", "state"), "wb", buffering=0) as f:
        f.write(word.encode() + b"\n")


def state(batch):
    with open(os.path.join(batch, ".npk", "state")) as f:
        return f.read().splitlines()


def load(*path):
    return np.load(os.path.join(*path))


def save(path, array):
    with open(path, "wb") as f:
        np.save(f, array)


def append(path, data):
    with open(path, "ab", buffering=0) as f:
        f.write(data)


@test
def nobody_sees_it_before_the_commit(m):
    np.save(m.path("x.npy"), ROWS)
    os.mkdir(m.path("train"))
    np.save(m.path("train", "y.npy"), ROWS)
    np.save(m.path("gone.npy"), ROWS)
    b = begin(m, "one")
    expect(sorted(os.listdir(b)), ["gone.npy", "train", "x.npy"])
    save(os.path.join(b, "x.npy"), ROWS + 1)
    append(os.path.join(b, "train", "y.npy"), ROWS[:2].tobytes())
    os.mkdir(os.path.join(b, "new"))
    save(os.path.join(b, "new", "z.npy"), ROWS[:3])
    os.unlink(os.path.join(b, "gone.npy"))

    expect((load(b, "x.npy") == ROWS + 1).all(), True, "saved, inside")
    expect(load(b, "train", "y.npy").shape, (11, 4))
    expect((load(b, "train", "y.npy")[9:] == ROWS[:2]).all(), True, "appended, inside")
    expect(sorted(os.listdir(b)), ["new", "train", "x.npy"])
    expect(os.listdir(os.path.join(b, "new")), ["z.npy"])
    expect((load(m.mnt, "x.npy") == ROWS).all(), True, "outside")
    expect(load(m.mnt, "train", "y.npy").shape, (9, 4))
    expect(sorted(os.listdir(m.mnt)), ["gone.npy", "train", "x.npy"])
    expect(state(b)[0], "open")
    expect(sorted(state(b)[1:]), ["removed\tgone", "rows\ttrain/y", "saved\tnew/z", "saved\tx"])

    end(b, "commit")
    expect((load(m.mnt, "x.npy") == ROWS + 1).all(), True, "committed")
    expect((load(m.mnt, "train", "y.npy")[9:] == ROWS[:2]).all(), True, "committed")
    expect((load(m.mnt, "new", "z.npy") == ROWS[:3]).all(), True, "committed")
    expect(sorted(os.listdir(m.mnt)), ["new", "train", "x.npy"])
    expect((load(m.below("x.npy")) == ROWS + 1).all(), True, "below")
    expect(os.path.exists(b), False, "the batch is over")
    expect(os.listdir(m.path(".npk", "batch")), [])


@test
def abort_leaves_nothing(m):
    np.save(m.path("x.npy"), ROWS)
    for how in ("abort", "rmdir"):
        b = begin(m, how)
        save(os.path.join(b, "x.npy"), ROWS + 1)
        save(os.path.join(b, "n.npy"), ROWS)
        if how == "abort":
            end(b, "abort")
        else:
            os.rmdir(b)
        expect(os.path.exists(b), False, how)
        expect((load(m.mnt, "x.npy") == ROWS).all(), True, how)
        expect(os.path.exists(m.path("n.npy")), False, how)
    expect(os.path.exists(m.below(".npkfs", "batch")), False, "its folder")


@test
def appends_to_what_was_saved_in_it(m):
    b = begin(m, "both")
    save(os.path.join(b, "x.npy"), ROWS)
    append(os.path.join(b, "x.npy"), ROWS[:2].tobytes())
    x = np.load(os.path.join(b, "x.npy"), mmap_mode="r+")
    x[0] = 7
    x.flush()
    del x
    want = np.concatenate([ROWS, ROWS[:2]])
    want[0] = 7
    expect((load(b, "x.npy") == want).all(), True, "inside")
    done = subprocess.run([NPK, "batch", "commit", m.store, "both"], capture_output=True, text=True)
    expect((done.returncode, done.stderr), (0, ""), "committed by another program")
    expect((load(m.mnt, "x.npy") == want).all(), True, "committed")


@test
def a_name_that_was_used_before(m):
    """A batch that ended elsewhere has nothing to do with the next one of its name."""
    for end_it in ("commit", "abort"):
        begin(m, "one")
        for words in ((end_it,), ("begin",)):
            done = subprocess.run([NPK, "batch", *words, m.store, "one"], capture_output=True, text=True)
            expect((done.returncode, done.stderr), (0, ""), " ".join(words))
        row = os.path.join(m.own, "x.npy")
        np.save(row, ROWS)
        name = end_it + ".npy"
        done = subprocess.run([NPK, "create", m.below(name), "--from", row, "--batch", "one"], capture_output=True, text=True)
        expect((done.returncode, done.stderr), (0, ""))
        b = m.path(".npk", "batch", "one")
        expect((load(b, name) == ROWS).all(), True, "inside")
        end(b, "commit")
        expect((load(m.mnt, name) == ROWS).all(), True, "committed")


@test
def the_name_of_one_whose_mount_died(m):
    np.save(m.path("x.npy"), ROWS)
    for looked in (False, True):
        with Mount(m.mode, store=m.store, mnt=os.path.join(m.own, "second"), base=m.own) as second:
            append(os.path.join(begin(second, "one"), "x.npy"), ROWS[:1].tobytes())
            if looked:
                expect(load(m.path(".npk", "batch", "one"), "x.npy").shape, (10, 4))
            second.kill()
        b = begin(m, "one")
        expect(load(b, "x.npy").shape, (9, 4), "nothing is in it")
        end(b, "abort")


@test
def rows_through_a_mapping(m):
    np.save(m.path("x.npy"), np.zeros((1000, 50), "f8"))
    b = begin(m, "map")
    x = np.load(os.path.join(b, "x.npy"), mmap_mode="r+")
    x[3] = 7
    x[999, 49] = 9
    x.flush()
    del x
    inside = load(b, "x.npy")
    expect((inside[3] == 7).all() and inside[999, 49] == 9 and inside.sum() == 350 + 9, True, "inside")
    expect(load(m.mnt, "x.npy").sum(), 0.0)
    expect(os.path.getsize(m.below("x.npy")), 128 + 400000)
    end(b, "commit")
    expect(load(m.mnt, "x.npy").sum(), 359.0)
    expect(load(m.below("x.npy")).sum(), 359.0)


@test
def open_memmap_and_copies(m):
    np.save(m.path("x.npy"), ROWS)
    b = begin(m, "tools")
    n = np.lib.format.open_memmap(os.path.join(b, "n.npy"), mode="w+", dtype="i4", shape=(5, 3))
    n[:] = 4
    n.flush()
    del n
    done = subprocess.run(["cp", m.path("x.npy"), os.path.join(b, "copy.npy")], capture_output=True, text=True)
    expect(done.stderr, "")
    done = subprocess.run(["sh", "-c", "cat row >> '%s'" % os.path.join(b, "x.npy")], cwd=m.mnt, capture_output=True)
    expect(done.returncode != 0, True, "there is no such row")
    end(b, "commit")
    expect(load(m.mnt, "n.npy").sum(), 60)
    expect((load(m.mnt, "copy.npy") == ROWS).all(), True, "the copy")


@test
def appends_in_pieces(m):
    np.save(m.path("x.npy"), ROWS)
    b = begin(m, "pieces")
    data = np.arange(4 * 100, dtype="f4").reshape(100, 4)
    with open(os.path.join(b, "x.npy"), "ab", buffering=0) as f:
        raw = data.tobytes()
        for at in range(0, len(raw), 23):  # rows have 16 bytes
            f.write(raw[at : at + 23])
    expect((load(b, "x.npy")[9:] == data).all(), True, "inside")
    f = os.open(os.path.join(b, "x.npy"), os.O_WRONLY | os.O_APPEND)
    os.write(f, b"half a row")
    expect(err(os.close, f), "EINVAL", "half a row is refused at close")
    end(b, "commit")
    expect((load(m.mnt, "x.npy")[9:] == data).all(), True, "committed")


@test
def the_first_commit_wins(m):
    np.save(m.path("x.npy"), ROWS)
    np.save(m.path("y.npy"), ROWS)
    late = begin(m, "late")
    save(os.path.join(late, "x.npy"), ROWS + 5)
    append(os.path.join(late, "y.npy"), ROWS[:1].tobytes())
    first = begin(m, "first")
    append(os.path.join(first, "y.npy"), ROWS[:2].tobytes())
    end(first, "commit")
    expect(err(end, late, "commit"), "ESTALE")
    with open(m.path(".npk", "last_error")) as f:
        expect('"y.npy"' in f.read(), True, "the sentence names the array")
    expect((load(m.mnt, "x.npy") == ROWS).all(), True, "nothing was changed")
    expect(load(m.mnt, "y.npy").shape, (11, 4))
    end(late, "abort")


@test
def writers_stand_in_the_way(m):
    np.save(m.path("x.npy"), ROWS)
    b = begin(m, "b")
    append(os.path.join(b, "x.npy"), ROWS[:1].tobytes())
    inside = open(os.path.join(b, "n.npy"), "wb")
    expect(err(end, b, "commit"), "EBUSY", "a file of the batch is being written")
    inside.close()
    os.unlink(os.path.join(b, "n.npy"))
    with open(m.path("x.npy"), "r+b"):
        expect(err(end, b, "commit"), "ESTALE", "a program has the array open for writing")
    expect(load(m.mnt, "x.npy").shape, (9, 4))
    end(b, "abort")


@test
def unfinished_files_are_not_committed(m):
    b = begin(m, "b")
    with open(os.path.join(b, "n.npy"), "wb") as f:
        f.write(b"\x93NUMPY\x01\x00")
    expect(err(end, b, "commit"), "EINVAL")
    save(os.path.join(b, "n.npy"), ROWS)
    end(b, "commit")
    expect((load(m.mnt, "n.npy") == ROWS).all(), True, "saved again")


@test
def what_is_refused(m):
    np.save(m.path("x.npy"), ROWS)
    expect(err(os.mkdir, m.path(".npk", "batch", "a b")), "EINVAL")
    b = begin(m, "b")
    expect(err(os.mkdir, b), "EEXIST")
    expect(err(open, os.path.join(b, "notes.txt"), "w"), "EPERM")
    expect(err(os.rename, os.path.join(b, "x.npy"), os.path.join(b, "y.npy")), "EXDEV")
    expect(err(os.mkdir, os.path.join(b, ".npkfs")), "EPERM")
    expect(err(open, os.path.join(b, "none.npy"), "rb"), "ENOENT")
    expect(err(end, b, "frob"), "EINVAL")
    expect(err(os.truncate, os.path.join(b, "x.npy"), 130), "EOPNOTSUPP")
    expect(err(os.listdir, m.path(".npk", "batch", "none")), "ENOENT")
    expect((load(b, "x.npy") == ROWS).all(), True, "as before")
    end(b, "abort")
    expect(err(end, b, "commit"), "ENOENT")


@test
def command_line_and_mount_work_in_one_batch(m):
    np.save(m.path("x.npy"), ROWS)
    np.save(m.path("row.npy"), ROWS[:1])
    done = subprocess.run([NPK, "batch", "begin", m.store, "both"], capture_output=True, text=True)
    expect((done.stdout, done.stderr), ("both\n", ""))
    b = m.path(".npk", "batch", "both")
    append(os.path.join(b, "x.npy"), ROWS[:2].tobytes())
    done = subprocess.run([NPK, "append", m.below("x.npy"), m.below("row.npy"), "--batch", "both"], capture_output=True,
                          text=True)
    expect((done.stdout.split("\t")[1:], done.stderr), (["11", "1\n"], ""))
    expect(load(b, "x.npy").shape, (12, 4))
    done = subprocess.run([NPK, "batch", "commit", m.store, "both"], capture_output=True, text=True)
    expect(done.stderr, "")
    expect(os.path.exists(b), False, "over")
    expect(load(m.mnt, "x.npy").shape, (12, 4))


@test
def readers_keep_what_they_have(m):
    np.save(m.path("x.npy"), ROWS)
    mapped = np.load(m.path("x.npy"), mmap_mode="r")
    b = begin(m, "b")
    save(os.path.join(b, "x.npy"), ROWS[:2] + 1)
    end(b, "commit")
    expect((mapped == ROWS).all(), True, "the old rows")
    expect((load(m.mnt, "x.npy") == ROWS[:2] + 1).all(), True, "the new ones")


@test
def a_killed_daemon_leaves_all_or_none(m):
    np.save(m.path("x.npy"), ROWS)
    b = begin(m, "b")
    save(os.path.join(b, "x.npy"), ROWS + 1)
    m.kill()
    m.restart()
    expect((load(m.mnt, "x.npy") == ROWS).all(), True, "not committed")
    b = begin(m, "b2")  # what its daemon left expired, and goes
    expect(os.listdir(m.below(".npkfs", "batch")), ["b2"])
    end(b, "abort")


def crash_at_every_call(mode):
    """kill -9 of the daemon at each changing call of a commit: all or none. The number of calls, and of commits told."""
    failed, told, n = 0, 0, 0
    for n in range(1, 200):
        acknowledged, m = False, None
        with tempfile.TemporaryDirectory(prefix="npkfs-crash.", dir=mountlib.temp_base()) as own:
            store, mnt = os.path.join(own, "store"), os.path.join(own, "mnt")
            os.mkdir(store)
            os.mkdir(mnt)
            for name in ("x", "y"):
                np.save(os.path.join(store, name), ROWS)
            try:
                m = Mount(mode, store=store, mnt=mnt, env={"NPK_IO_PLAN": "kill:%d" % n})
                b = begin(m, "b")
                save(os.path.join(b, "x.npy"), ROWS + 1)
                append(os.path.join(b, "y.npy"), ROWS[:1].tobytes())
                end(b, "commit")
                acknowledged = True
            except (OSError, MountFailed):
                pass
            killed = m is None or not m.alive() or not acknowledged
            if m is not None:
                m.stop()
            with Mount(mode, store=store, mnt=mnt) as again:
                new = (load(mnt, "x.npy") == ROWS + 1).all(), len(load(mnt, "y.npy")) == 10
                if new not in ((True, True), (False, False)) or (acknowledged and not new[0]):
                    print("FAIL  killed at changing call %d: x new %s, y new %s, told %s" % (n, *new, acknowledged))
                    failed += 1
                again.stop()
            told += acknowledged
        if not killed:
            break
    print("batch %s: killed at %d calls, %d failed, %d commits were told" % (mode, n - 1, failed, told))
    return failed or n < 10 or told == 0


def main():
    status = main_on_mounts("batch")
    if status != 77 and len(sys.argv) == 2 and crash_at_every_call(sys.argv[1]):
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
