# SPDX-License-Identifier: Apache-2.0
"""What the mount adds to a directory: headers that follow appends, old rows for whoever reads them, controls.

Usage: arrays.py passthrough|daemon [WORD...]"""

import ctypes
import io
import mmap
import os
import subprocess
import sys
import tempfile

import numpy as np

import mountlib
from harness import err, expect, main_on_mounts, test
from mountlib import NPK, Mount, Skip

ROWS = np.arange(36, dtype="f4").reshape(9, 4)


def save(m, name, array):
    np.save(m.path(name), array)


def append(m, name, data):
    with open(m.path(name), "ab", buffering=0) as f:
        f.write(data)


def shape(m, name):
    with open(m.control(name, "shape")) as f:
        return f.read()


def shell(command, cwd, shell_name="sh"):
    return subprocess.run([shell_name, "-c", command], cwd=cwd, capture_output=True, text=True)


@test
def header_follows_every_append(m):
    save(m, "x.npy", ROWS)
    for rows in range(10, 121):  # 9 -> 10 and 99 -> 100 on the way
        append(m, "x.npy", ROWS[:1].tobytes())
        expect(np.load(m.path("x.npy")).shape, (rows, 4))
    expect(shape(m, "x.npy"), "120,4\n")
    expect(np.load(m.below("x.npy")).shape, (120, 4), "the file below")


@test
def every_way_to_append(m):
    save(m, "x.npy", ROWS)
    with open(m.path("row"), "wb") as f:
        f.write(ROWS[:1].tobytes())
    expect(shell("cat row >> x.npy", m.mnt).stderr, "")
    expect(shell("dd if=row of=x.npy oflag=append conv=notrunc status=none", m.mnt).stderr, "")
    with open(m.path("x.npy"), "ab") as f:
        ROWS[:3].tofile(f)
    expect(subprocess.run([NPK, "append", m.path("x.npy"), m.path("row")], capture_output=True).returncode, 0)
    expect(np.load(m.path("x.npy")).shape, (15, 4))


@test
def an_open_sees_what_others_wrote(m):
    """The kernel has the old size of a file that was opened a moment ago; nobody's read or mapping is cut by it."""
    save(m, "x.npy", ROWS)
    for rows in range(10, 60):
        expect(np.load(m.path("x.npy")).shape, (rows - 1, 4))
        with open(m.below("x.npy"), "r+b") as f:
            np.save(f, np.zeros((rows, 4), "f4"))
        with open(m.path("x.npy"), "rb") as f:
            expect(len(f.read()), 128 + 16 * rows)
            expect(os.fstat(f.fileno()).st_size, 128 + 16 * rows)
        expect(np.load(m.path("x.npy"), mmap_mode="r" if rows % 2 else None).shape, (rows, 4))


@test
def appends_to_what_was_saved_over_by_another_mount(m):
    """The session of the old array, begun by somebody else, is not that of the new one."""
    other = "daemon" if m.mode == "passthrough" else "passthrough"
    with Mount(other, store=m.store, mnt=os.path.join(m.own, "second"), base=m.own) as second:
        row = os.path.join(m.own, "row")
        with open(row, "wb") as f:
            f.write(ROWS[:1].tobytes())
        save(m, "x.npy", ROWS)
        np.load(second.path("x.npy"))
        done = subprocess.run([NPK, "append", m.below("x.npy"), row], capture_output=True, text=True)
        expect((done.returncode, done.stderr), (0, ""))
        save(second, "x.npy", np.arange(99, dtype="i4"))
        m.kill()
        m.restart()
        append(m, "x.npy", b"1234567")
        expect(np.load(m.path("x.npy")).shape, (100,))
        expect(np.load(m.below("x.npy")).shape, (100,))


@test
def part_row_is_kept_and_completed(m):
    save(m, "x.npy", ROWS)
    append(m, "x.npy", b"12345")
    expect(np.load(m.path("x.npy")).shape, (9, 4))
    expect(os.path.getsize(m.path("x.npy")), 128 + 144 + 5)
    append(m, "x.npy", b"67890123456")
    x = np.load(m.path("x.npy"))
    expect((x.shape, x[9].tobytes()), ((10, 4), b"1234567890123456"))


@test
def several_saves_in_one_file_stay(m):
    with open(m.path("two.npy"), "wb") as f:
        np.save(f, ROWS)
        np.save(f, ROWS + 1)
    with open(m.path("two.npy"), "rb") as f:
        expect([np.load(f).sum(), np.load(f).sum()], [ROWS.sum(), (ROWS + 1).sum()])
    append(m, "two.npy", ROWS.tobytes())
    expect(np.load(m.path("two.npy")).shape, (9, 4))


@test
def readers_keep_their_rows(m):
    save(m, "x.npy", ROWS)
    mapped = np.load(m.path("x.npy"), mmap_mode="r")
    with open(m.path("x.npy"), "rb") as f:
        alone = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)  # its descriptor is closed, only the mapping lives
    save(m, "x.npy", np.zeros((2, 2)))
    expect(np.load(m.path("x.npy")).shape, (2, 2))
    expect((mapped == ROWS).all() and bytes(alone[128:]) == ROWS.tobytes(), True, "the old rows")
    os.replace(m.path("x.npy"), m.path("y.npy"))
    os.unlink(m.path("y.npy"))
    expect((mapped == ROWS).all(), True, "the old rows after unlink")


@test
def growth_behind_the_mount_is_not_counted(m):
    save(m, "x.npy", ROWS)
    with open(m.below("x.npy"), "ab") as f:
        f.write(ROWS.tobytes())
    expect(np.load(m.path("x.npy")).shape, (9, 4))
    append(m, "x.npy", ROWS[:1].tobytes())
    expect(np.load(m.path("x.npy")).shape, (9, 4))
    found = subprocess.run([NPK, "check", m.mnt], capture_output=True, text=True).stdout
    expect("x.npy" in found and "10 whole rows" in found, True, found)
    subprocess.run([NPK, "check", "--adopt", m.mnt], capture_output=True)
    expect(np.load(m.path("x.npy")).shape, (19, 4))


@test
def changes_behind_are_seen_at_the_next_open(m):
    save(m, "x.npy", ROWS)
    np.load(m.path("x.npy"))
    np.save(m.below("new"), ROWS + 1)
    os.replace(m.below("new.npy"), m.below("x.npy"))
    expect((np.load(m.path("x.npy")) == ROWS + 1).all(), True, "a file renamed over it")
    with open(m.below("x.npy"), "r+b") as f:
        f.seek(128)
        f.write(np.float32(77).tobytes())
    expect(np.load(m.path("x.npy"))[0, 0], np.float32(77), "a row changed in place")


@test
def cuts(m):
    save(m, "x.npy", ROWS)
    os.truncate(m.path("x.npy"), 128 + 16 * 5)
    expect((np.load(m.path("x.npy")) == ROWS[:5]).all(), True)
    with open(m.path("x.npy"), "r+b") as f:
        f.truncate(128 + 16 * 7)
    expect(np.load(m.path("x.npy")).shape, (7, 4))


@test
def memmap_modes(m):
    save(m, "x.npy", ROWS)
    x = np.load(m.path("x.npy"), mmap_mode="r+")
    x[3] = 9
    x.flush()
    expect(np.load(m.path("x.npy"))[3].tolist(), [9] * 4)
    c = np.load(m.path("x.npy"), mmap_mode="c")
    c[0] = 5
    expect(np.load(m.path("x.npy"))[0].tolist(), ROWS[0].tolist())
    w = np.lib.format.open_memmap(m.path("w.npy"), "w+", dtype="i4", shape=(100, 3))
    w[:] = 4
    w.flush()
    del w
    expect(np.load(m.path("w.npy")).sum(), 1200)


@test
def appenders_and_readers(m):
    """Rows are never lost, and a reader never sees a header ahead of the data."""
    save(m, "x.npy", np.zeros((0, 4), "i8"))
    pids = []
    for writer in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                for i in range(100):
                    append(m, "x.npy", np.array([[writer, i, 0, 0]], "i8").tobytes())
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    last, seen = 0, 0
    while seen < 400:
        try:
            x = np.load(m.path("x.npy"))
        except ValueError as e:  # the one write that moves the header's text may be read torn; it is refused, never wrong
            if "eader" not in str(e) and "shape" not in str(e):
                raise
            continue
        expect(x.shape[1:], (4,))
        seen = len(x)
        if seen == last and all(os.waitpid(p, os.WNOHANG)[0] for p in pids[:1]):
            pids = pids[1:]
            if not pids:
                break
        last = seen
    for pid in pids:
        os.waitpid(pid, 0)
    x = np.load(m.path("x.npy"))
    expect(sorted(map(tuple, x[:, :2].tolist())), [(w, i) for w in range(4) for i in range(100)])


@test
def controls_read_right_by_any_tool(m):
    save(m, "x.npy", ROWS)
    want = {"shape": "9,4", "dtype": "float32", "order": "C", "rows": "9", "live": "9", "deleted": "0", "nbytes": "144"}
    for name, value in want.items():
        path = m.control("x.npy", name)
        expect(open(path).read(), value + "\n")
        expect(os.stat(path).st_size, len(value) + 1, "size of " + name)
        expect(shell("cat %s; cp %s %s/c; cat %s/c; wc -c < %s" % (path, path, m.own, m.own, path), m.own).stdout,
               "%s\n%s\n%d\n" % (value, value, len(value) + 1))
        expect(os.getxattr(m.path("x.npy"), "user.npk." + name).decode().strip(), value)
    expect(".npk" in os.listdir(m.mnt), False, ".npk is listed")
    expect(sorted(n for n in os.listdir(m.path(".npk")) if n.endswith(".npy")), ["x.npy"])


@test
def writing_shape(m):
    save(m, "x.npy", ROWS)
    path = m.control("x.npy", "shape")
    for command, want in (("echo 12,4 > %s", (12, 4)), ("printf 6,4 > %s", (6, 4)), ("echo 3,8 | tee %s", (3, 8)),
                          ("printf '4,6\\n' | dd of=%s bs=1 status=none", (4, 6)), ("echo 24 > in; cp in %s", (24,))):
        for sh in ("bash", "dash"):
            done = shell(command % path, m.own, sh)
            expect((done.returncode, np.load(m.path("x.npy")).shape), (0, want), command)
    for bad in ("5,5", "x", "-3,4", "1,2,,3", "", "99999999999999999999,4"):
        try:
            fd = os.open(path, os.O_WRONLY)
            os.write(fd, (bad + "\n").encode())
            os.close(fd)
            said = None
        except OSError as e:
            said = e.errno
        expect(said is not None, True, "writing %r" % bad)
        expect(np.load(m.path("x.npy")).shape, (24,))
        expect(len(open(m.control("x.npy", "last_error")).read()) > 10, True, "last_error after %r" % bad)


@test
def reserved_names(m):
    for name in (".npk", ".npkfs"):
        expect(err(os.mkdir, m.path(name)) in ("EPERM", "EEXIST"), True)
        expect(err(os.open, m.path(name), os.O_CREAT | os.O_WRONLY) is not None, True)
        save(m, "x.npy", ROWS)
        expect(err(os.rename, m.path("x.npy"), m.path(name)) is not None, True)
    expect(os.path.exists(m.path(".npkfs")), False)


@test
def broken_headers_are_plain_files(m):
    good = io.BytesIO()
    np.save(good, ROWS)
    for i, bad in enumerate((b"", b"\x93NUMPY", good.getvalue()[:40], good.getvalue().replace(b"NUMPY", b"NUMPX"),
                             good.getvalue().replace(b"(9, 4)", b"(-9, 4)"), b"\x93NUMPY\x01\x00\xff\xff{",
                             good.getvalue().replace(b"<f4", b"<z4"), b"\x93NUMPY\x01\x00v\x00" + b"(" * 118)):
        name = "bad%d.npy" % i
        with open(m.path(name), "wb") as f:
            f.write(bad)
        append(m, name, b"tail")
        expect(open(m.path(name), "rb").read(), bad + b"tail")
        expect(os.path.exists(m.control(name, "shape")), False, name)


@test
def kill_and_remount(m):
    save(m, "x.npy", ROWS)
    fd = os.open(m.path("x.npy"), os.O_WRONLY | os.O_APPEND)
    os.write(fd, ROWS[:2].tobytes())
    m.kill()
    os.close(fd) if err(os.fstat, fd) is None else err(os.close, fd)
    m.restart()
    expect(np.load(m.path("x.npy")).shape, (11, 4))
    damage = [line for line in subprocess.run([NPK, "check", m.mnt], capture_output=True, text=True).stdout.split("\n")
              if line.startswith("damage")]
    expect(damage, [])


@test
def mounted_over_itself(m):
    with tempfile.TemporaryDirectory(prefix="npkfs-self.", dir=mountlib.temp_base()) as d:
        np.save(d + "/x.npy", ROWS)
        with Mount(m.mode, store=d, mnt=d) as over:
            append(over, "x.npy", ROWS[:1].tobytes())
            expect(shape(over, "x.npy"), "10,4\n")
            expect(subprocess.run([NPK, "append", d + "/x.npy", "-"], input=ROWS[:1].tobytes(), capture_output=True).returncode, 0)
            expect(shape(over, "x.npy"), "11,4\n")
        expect(np.load(d + "/x.npy").shape, (11, 4))
        expect(os.listdir(d), ["x.npy"], "what is left of the mount")


@test
def two_mounts_of_one_store(m):
    save(m, "x.npy", ROWS)
    with Mount(m.mode, store=m.store) as other:
        for i in range(20):
            append(m if i % 2 else other, "x.npy", ROWS[:1].tobytes())
        expect([np.load(w.path("x.npy")).shape for w in (m, other)], [(29, 4)] * 2)


@test
def read_only_mount(m):
    save(m, "x.npy", ROWS)
    with Mount("ro", store=m.store) as ro:
        expect(np.load(ro.path("x.npy")).shape, (9, 4))
        expect([err(os.mkdir, ro.path("d")), err(os.unlink, ro.path("x.npy")), err(os.truncate, ro.path("x.npy"), 0),
                err(open, ro.control("x.npy", "shape"), "w")], ["EROFS"] * 4)


@test
def start_up_errors(m):
    free = os.path.join(m.own, "free")
    os.mkdir(free)
    for argv, status, word in ((["/nonexistent", free], 1, "/nonexistent"), ([m.store, free + "/no"], 1, "/no"), ([m.store, m.mnt], 1, "already"),
                               ([m.store, free, "-o", "bogus=1"], 2, "bogus"), ([], 2, "SOURCE")):
        done = subprocess.run([mountlib.NPKFS] + argv, capture_output=True, text=True)
        expect((done.returncode, word in done.stderr), (status, True), done.stderr)


@test
def full_disk(m):
    if os.geteuid() != 0:
        raise Skip("needs root for a small tmpfs")
    with tempfile.TemporaryDirectory(prefix="npkfs-full.", dir=mountlib.temp_base()) as d:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", d], check=True)
        try:
            with Mount(m.mode, store=d) as small:
                save(small, "x.npy", ROWS)
                expect(err(append, small, "x.npy", bytes(16) * 200000) in ("ENOSPC", None), True)
                x = np.load(small.path("x.npy"))
                expect((x[:9] == ROWS).all(), True, "the rows before")
                expect(err(np.save, small.path("y.npy"), np.zeros(1 << 20)) is not None, True, "a save that cannot fit")
                expect((np.load(small.path("x.npy"))[:9] == ROWS).all(), True)
        finally:
            subprocess.run(["umount", "-l", d])


@test
def descriptors_and_memory(m):
    os.mkdir(m.path("many"))
    for i in range(3000):
        os.close(os.open(m.path("many", "%04d.npy" % i), os.O_CREAT | os.O_WRONLY))
    subprocess.run(["ls", "-lR", m.mnt], stdout=subprocess.DEVNULL)
    mountlib.wait_until(lambda: m.fd_count() < 64, what="fewer than 64 descriptors")


@test
def arrays_written_in_a_row_share_syncs(m):
    """The first arrays of a loop are entered one by one, the rest in groups; nothing of it stays."""
    for i in range(400):
        np.save(m.below("a%03d.npy" % i), ROWS)
    counted = os.path.join(os.path.dirname(m.mnt), "calls")
    m.remount(env={"NPK_IO_PLAN": "count:" + counted})
    for i in range(400):
        append(m, "a%03d.npy" % i, ROWS[:1].tobytes())
    with open(counted) as f:
        syncs = sum(" fdatasync" in line or " fsync" in line for line in f)
    expect(syncs < 20, True, "%d syncs for 400 arrays" % syncs)
    for i in (0, 5, 399):
        expect(np.load(m.below("a%03d.npy" % i)).shape, (10, 4))

    def left():
        return subprocess.run([NPK, "check", m.store], capture_output=True, text=True).stdout

    mountlib.wait_until(lambda: "F10" not in left(), what="the end of all sessions")
    expect(left(), "", "findings")


@test
def copied_whole_after_an_append_elsewhere(m):
    """What a program learns after its open is what the kernel copies by: the size of the file as another mount left it."""
    with Mount("passthrough" if m.mode == "daemon" else "daemon", store=m.store) as other:
        np.save(other.path("x.npy"), ROWS[:1])
        for n in range(2, 500):
            append(other, "x.npy", ROWS[1:2].tobytes())
            os.stat(m.path("x.npy"))
            subprocess.run(["cp", m.path("x.npy"), m.path("y.npy")], check=True)
            expect(os.path.getsize(m.below("y.npy")), 128 + n * ROWS[0].nbytes, "copy %d" % n)


@test
def a_name_that_came_back(m):
    """Moved away and back behind the mount, with nobody telling of it: the name that was looked at last is the true one."""
    m.options += ["inotify=off", "attr_timeout=60"]
    m.remount()
    os.mkdir(m.below("g"))
    np.save(m.below("x.npy"), ROWS)
    os.stat(m.path("x.npy"))
    libc, found = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(256)
    for _ in range(3): # 0x2000: the kernel asks, whatever it believes
        os.rename(m.below("x.npy"), m.below("g/y.npy"))
        expect(os.stat(m.path("g/y.npy")).st_size, 128 + ROWS.nbytes)
        os.rename(m.below("g/y.npy"), m.below("x.npy"))
        expect(libc.statx(-100, os.fsencode(m.path("x.npy")), 0x2000, 0xfff, found), 0)
        os.rename(m.below("x.npy"), m.below("g/y.npy"))
        expect(np.load(m.path("g/y.npy")).shape, ROWS.shape)
        os.rename(m.below("g/y.npy"), m.below("x.npy"))
        with open(m.path("x.npy"), "r+b") as f:
            expect(f.read(6), b"\x93NUMPY")
        expect(np.load(m.path("x.npy")).shape, ROWS.shape)


def main():
    return main_on_mounts("arrays")


if __name__ == "__main__":
    sys.exit(main())
