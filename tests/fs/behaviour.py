# SPDX-License-Identifier: Apache-2.0
"""What a filesystem does, asked of a plain directory and of a mount: results and errnos have to be the same.

Usage: behaviour.py native|passthrough|daemon|user [--big] [WORD...]      WORD: part of a test's name

Each test gets a fresh directory (t.d), checks what the manual pages promise, and returns what it saw; the runner makes it
on a directory of the filesystem below first, then through the mount, and compares the two. `native` makes the first alone.
"""

import array
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import select
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
import time

import mountlib
from harness import LIMIT_S, Report, chosen, err, expect, in_child, test
from mountlib import Mount, Skip

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = -100, 0x1000, 0x400
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE, FALLOC_ZERO, FALLOC_INSERT = 1, 2, 8, 16, 32
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38
USER, OTHER = 12345, 12346


class Place:
    """Where a test works: t.d is its directory, t.native says whether it is the filesystem below itself."""

    def __init__(self, d, other, native, mount, mode):
        self.d, self.other, self.native, self.mount, self.mode = d, other, native, mount, mode

    def p(self, *names):
        return os.path.join(self.d, *names)


# ---- small tools -----------------------------------------------------------------------------------------------------

def call(result):
    if result < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return result


def renameat2(a, b, flags):
    call(libc.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), ctypes.c_uint(flags)))


def fallocate(fd, mode, offset, length):
    call(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def linkat_fd(fd, path):
    call(libc.linkat(AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, os.fsencode(path), AT_SYMLINK_FOLLOW))


def utimensat(path, atime, mtime, flags=0):
    times = (ctypes.c_long * 4)(atime[0], atime[1], mtime[0], mtime[1])
    call(libc.utimensat(AT_FDCWD, os.fsencode(path), times, flags))


def put(path, data=b""):
    with open(path, "wb") as f:
        f.write(data)
    return path


def get(path):
    with open(path, "rb") as f:
        return f.read()


@contextlib.contextmanager
def opened(path, flags=os.O_RDONLY, mode=0o666):
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def perm(path):
    return oct(stat.S_IMODE(os.lstat(path).st_mode))


def as_user(work, uid=USER, gid=USER, groups=()):
    """work() as another user, in a child. What it returned, or the name of the errno it failed with."""
    if os.geteuid() != 0:
        raise Skip("only root can become other users")

    def inside():
        os.setgroups(list(groups))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        try:
            return work()
        except OSError as e:
            return errno.errorcode[e.errno]
    status, value = in_child(inside, 30)
    if status != "ok":
        raise AssertionError("as user %d: %s" % (uid, value))
    return value


def spawn(work):
    """work(say, hear) in a child: the other end of two pipes is (pid, hear, say) here. Lines of bytes go both ways."""
    down_r, down_w = os.pipe()
    up_r, up_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(down_w)
            os.close(up_r)
            work(lambda b: os.write(up_w, b), lambda: os.read(down_r, 100))
            status = 0
        except BaseException as e:
            sys.stderr.write("child: %r\n" % e)
        finally:
            os._exit(status)
    os.close(down_r)
    os.close(up_w)
    return pid, (lambda: os.read(up_r, 100)), (lambda b: os.write(down_w, b))


def end(pid):
    expect(os.waitpid(pid, 0)[1], 0, "status of the child")


def sha(data):
    return hashlib.sha256(data).hexdigest()[:16]


# ---- creating, reading, writing --------------------------------------------------------------------------------------

@test
def create_flags(t):
    p = t.p("f")
    out = [err(os.open, p, os.O_RDONLY), err(os.open, p, os.O_WRONLY)]
    with opened(p, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640) as fd:
        os.write(fd, b"hello")
        out.append(err(os.read, fd, 1))
    out.append(err(os.open, p, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    with opened(p, os.O_CREAT | os.O_WRONLY) as fd:
        os.write(fd, b"J")
    out.append(get(p))
    with opened(p) as fd:
        out.append(err(os.write, fd, b"x"))
    with opened(p, os.O_WRONLY | os.O_TRUNC):
        pass
    out += [get(p), perm(p), err(os.open, t.p("no", "f"), os.O_CREAT | os.O_WRONLY)]
    expect(out[:4], ["ENOENT", "ENOENT", "EBADF", "EEXIST"])
    return out


@test
def umask_applies(t):
    out = []
    for mask in (0o022, 0o077, 0o007, 0):
        old = os.umask(mask)
        try:
            os.close(os.open(t.p("f%o" % mask), os.O_CREAT | os.O_WRONLY, 0o666))
            os.mkdir(t.p("d%o" % mask), 0o777)
            os.mkfifo(t.p("p%o" % mask), 0o666)
        finally:
            os.umask(old)
        out += [perm(t.p("%s%o" % (k, mask))) for k in "fdp"]
    expect(out[:3], ["0o644", "0o755", "0o644"])
    return out


@test
def append_by_many_processes(t):
    """Every record of every writer is there, once and whole."""
    p, writers, each = put(t.p("log")), 6, 400

    def write(k):
        fd = os.open(p, os.O_WRONLY | os.O_APPEND)
        for i in range(each):
            record = (b"%03d:%06d;" % (k, i)).ljust(37, b".") + b"\n"
            expect(os.write(fd, record), len(record))
        os.close(fd)
    pids = []
    for k in range(writers):
        pid = os.fork()
        if pid == 0:
            try:
                write(k)
                os._exit(0)
            except BaseException:
                os._exit(1)
        pids.append(pid)
    for pid in pids:
        end(pid)
    lines = get(p).split(b"\n")
    expect(lines.pop(), b"")
    expect(len(lines), writers * each, "records")
    expect({len(x) for x in lines}, {37}, "lengths")
    expect(len(set(lines)), writers * each, "different records")
    for k in range(writers):
        mine = [x for x in lines if x.startswith(b"%03d:" % k)]
        expect(mine, sorted(mine), "order of writer %d" % k)
    return os.stat(p).st_size


@test
def append_interleaved(t):
    p = put(t.p("f"), b"0")
    a, b = os.open(p, os.O_WRONLY | os.O_APPEND), os.open(p, os.O_RDWR | os.O_APPEND)
    for i in range(20):
        os.write(a, b"a%d" % i)
        os.write(b, b"b%d" % i)
        expect(os.fstat(a).st_size, os.fstat(b).st_size)
    where = [os.lseek(a, 0, os.SEEK_CUR), os.lseek(b, 0, os.SEEK_CUR)]
    os.pwrite(b, b"p", 0)     # Linux: appends all the same
    os.lseek(b, 0, os.SEEK_SET)
    first = os.read(b, 5)
    os.write(b, b"!")
    os.close(a)
    os.close(b)
    data = get(p)
    expect(data[-2:], b"p!")
    return where, first, data


@test
def append_after_foreign_growth(t):
    """A second opener makes the file longer between two appends: nothing is overwritten."""
    p = put(t.p("f"), b"x" * 1000)
    with opened(p, os.O_WRONLY | os.O_APPEND) as a, opened(p, os.O_WRONLY) as b:
        os.write(a, b"A" * 10)
        os.pwrite(b, b"B" * 10, 1010)
        os.write(a, b"C" * 10)
        os.ftruncate(b, 5)
        os.write(a, b"D")
    data = get(p)
    expect(data, b"xxxxxD")
    return data


@test
def appends_from_below(t):
    """What is appended to the file below while it is open here is not overwritten by an append here."""
    p = put(t.p("f"), b"x" * 10)
    below = p if t.native else t.mount.below(os.path.relpath(p, t.mount.mnt))
    with opened(p, os.O_WRONLY | os.O_APPEND) as a:
        os.write(a, b"A")
        with opened(below, os.O_WRONLY | os.O_APPEND) as b:
            os.write(b, b"B" * 100)
        os.write(a, b"C")
    return expect(get(below), b"x" * 10 + b"A" + b"B" * 100 + b"C")


@test
def setfl_append(t):
    p = put(t.p("f"), b"0123456789")
    with opened(p, os.O_RDWR) as fd:
        os.write(fd, b"a")
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
        os.write(fd, b"END")
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_APPEND)
        os.pwrite(fd, b"b", 1)
    data = get(p)
    expect(data, b"ab23456789END")
    return data


@test
def read_edges(t):
    p = put(t.p("f"), bytes(range(256)) * 40)
    with opened(p) as fd:
        out = [os.pread(fd, 10, 10235), os.pread(fd, 10, 10240), os.pread(fd, 10, 1 << 40), os.pread(fd, 0, 0),
               sha(os.read(fd, 1 << 20)), os.read(fd, 5), err(os.pread, fd, 1, -1), os.lseek(fd, -6, os.SEEK_END),
               os.read(fd, 100), err(os.lseek, fd, -1, os.SEEK_SET)]
    expect(out[0], b"\xfb\xfc\xfd\xfe\xff")
    return out


@test
def vectored(t):
    p = put(t.p("f"))
    with opened(p, os.O_RDWR) as fd:
        out = [os.writev(fd, [b"abc", b"", b"defg"]), os.pwritev(fd, [b"X", b"YZ"], 2)]
        bufs = [bytearray(2), bytearray(3), bytearray(9)]
        out += [os.preadv(fd, bufs, 0), bytes(bufs[0]), bytes(bufs[1]), bytes(bufs[2])]
        out.append(os.pwritev(fd, [b"tail"], 0, os.RWF_APPEND))
        out.append(os.pread(fd, 100, 0))
    expect(out[-1], b"abXYZfgtail")
    return out


@test
def write_crossing_end(t):
    p = put(t.p("f"), b"a" * 5000)
    with opened(p, os.O_RDWR) as fd:
        expect(os.pwrite(fd, b"b" * 9000, 4000), 9000)
        sizes = [os.fstat(fd).st_size]
        os.pwrite(fd, b"c", 100000)
        sizes.append(os.fstat(fd).st_size)
        os.write(fd, b"")
    data = get(p)
    expect(sizes, [13000, 100001])
    expect(data, b"a" * 4000 + b"b" * 9000 + bytes(87000) + b"c")
    return sizes


@test
def big_write_and_read(t):
    block = os.urandom(1 << 20)
    with opened(t.p("f"), os.O_CREAT | os.O_RDWR) as fd:
        for i in range(24):
            expect(os.write(fd, block), len(block))
        expect(os.write(fd, block[:12345]), 12345)
        expect(os.fstat(fd).st_size, 24 * (1 << 20) + 12345)
        expect(os.pread(fd, 1 << 20, 7 << 20), block)
    data = get(t.p("f"))
    expect(data == block * 24 + block[:12345], True, "content")
    return len(data)


@test
def two_gigabytes_apart(t):
    with opened(t.p("f"), os.O_CREAT | os.O_RDWR) as fd:
        os.pwrite(fd, b"far", 5 << 30)
        out = [os.fstat(fd).st_size, os.pread(fd, 10, (5 << 30) - 3), os.fstat(fd).st_blocks < 1000]
    os.truncate(t.p("f"), 1)
    return out, os.stat(t.p("f")).st_size


@test
def file_size_limit(t):
    """RLIMIT_FSIZE: EFBIG and SIGXFSZ at the caller, a write across the limit is short."""
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
    with opened(t.p("f"), os.O_CREAT | os.O_RDWR) as fd:
        out = [os.pwrite(fd, b"x" * 5000, 8000), err(os.pwrite, fd, b"x", 10000), err(os.ftruncate, fd, 10001),
               os.fstat(fd).st_size]
    expect(out[1:3], ["EFBIG", "EFBIG"])
    return out


@test
def truncate_both_ways(t):
    p = put(t.p("f"), b"abcdefghij" * 1000)
    out = []
    os.truncate(p, 5)
    out.append(get(p))
    os.truncate(p, 9)
    out.append(get(p))
    with opened(p, os.O_RDWR) as fd:
        os.ftruncate(fd, 20000)
        out += [os.fstat(fd).st_size, os.pread(fd, 30, 0)]
        os.ftruncate(fd, 3)
        out += [os.fstat(fd).st_size, os.pread(fd, 30, 0)]
        os.ftruncate(fd, 4097)
        out.append(os.pread(fd, 30, 0))
        out.append(err(os.ftruncate, fd, -1))
    with opened(p) as fd:
        out.append(err(os.ftruncate, fd, 1))
    os.mkdir(t.p("d"))
    out += [err(os.truncate, t.p("d"), 0), err(os.truncate, t.p("none"), 0)]
    expect(out[0:2], [b"abcde", b"abcde\0\0\0\0"])
    expect(out[-4:], ["EINVAL", "EINVAL", "EISDIR", "ENOENT"])
    return out


@test
def truncated_under_open(t):
    p = put(t.p("f"), b"x" * 9000)
    with opened(p) as a:
        with opened(p, os.O_WRONLY | os.O_TRUNC) as b:
            out = [os.pread(a, 10, 0), os.fstat(a).st_size]
            os.write(b, b"new")
            out += [os.pread(a, 10, 0), os.fstat(a).st_size]
    expect(out, [b"", 0, b"new", 3])
    return out


@test
def sparse_seek(t):
    with opened(t.p("f"), os.O_CREAT | os.O_RDWR) as fd:
        os.pwrite(fd, b"a" * 4096, 0)
        os.pwrite(fd, b"b" * 4096, 1 << 20)
        os.ftruncate(fd, 3 << 20)
        os.fsync(fd)
        out = [os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE), os.lseek(fd, 4096, os.SEEK_DATA),
               os.lseek(fd, 1 << 20, os.SEEK_HOLE), err(os.lseek, fd, (1 << 20) + 4096, os.SEEK_DATA),
               os.lseek(fd, 2 << 20, os.SEEK_HOLE), err(os.lseek, fd, 3 << 20, os.SEEK_DATA),
               err(os.lseek, fd, 4 << 20, os.SEEK_HOLE), os.fstat(fd).st_blocks * 512 < 1 << 20]
        os.lseek(fd, 0, os.SEEK_SET)
        expect(os.read(fd, 3), b"aaa", "position after the seeks")
    expect(out[4], "ENXIO")
    return out


@test
def fallocate_modes(t):
    out = []
    with opened(t.p("f"), os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"x" * 65536)
        os.fsync(fd)
        for mode, at, length in ((0, 65536, 65536), (FALLOC_KEEP_SIZE, 1 << 20, 65536),
                                 (FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 4096, 8192), (FALLOC_PUNCH_HOLE, 0, 4096),
                                 (FALLOC_ZERO, 16384, 100), (FALLOC_ZERO | FALLOC_KEEP_SIZE, 1 << 21, 4096),
                                 (0, 0, 0), (0, -1, 10),
                                 (0x8000, 0, 10)):
            out.append((mode, err(fallocate, fd, mode, at, length), os.fstat(fd).st_size, sha(get(t.p("f")))))
        if not t.native:  # the kernel's FUSE code passes no other mode on
            expect([err(fallocate, fd, m, 4096, 4096) for m in (FALLOC_COLLAPSE, FALLOC_INSERT)], ["EOPNOTSUPP"] * 2)
    with opened(t.p("f")) as fd:
        out.append(err(fallocate, fd, 0, 0, 10))
    os.posix_fallocate(os.open(t.p("g"), os.O_CREAT | os.O_WRONLY), 0, 10000)
    out.append(os.stat(t.p("g")).st_size)
    expect([o[1] for o in out[:3]], [None, None, None])
    expect(out[-2], "EBADF")
    return out


@test
def copy_file_range(t):
    data = os.urandom(3 << 20)
    a, b = put(t.p("a"), data), t.p("b")
    out = []
    with opened(a) as i, opened(b, os.O_CREAT | os.O_RDWR) as o:
        left = len(data)
        while left:
            n = os.copy_file_range(i, o, left)
            expect(n > 0, True)
            left -= n
        out += [os.copy_file_range(i, o, 10), os.fstat(o).st_size, os.lseek(i, 0, os.SEEK_CUR), os.lseek(o, 0, os.SEEK_CUR)]
        out.append(os.copy_file_range(i, o, 1000, 5, len(data) - 500))
        expect(os.fstat(o).st_size, len(data) + 500)
        out.append(err(os.copy_file_range, o, i, 10, 0, 0))
    with opened(b, os.O_RDWR) as o:
        out.append(err(os.copy_file_range, o, o, 100, 0, 50))
        out.append(os.copy_file_range(o, o, 100, 0, 100000))
    with opened(a) as i, opened(b, os.O_WRONLY | os.O_APPEND) as o:
        out.append(err(os.copy_file_range, i, o, 10))
    got = get(b)
    want = bytearray(data[:len(data) - 500] + data[5:1005])
    want[100000:100100] = want[0:100]
    expect(bytes(want) == got, True, "content")
    expect(out[5:7] + out[8:9], ["EBADF", "EINVAL", "EBADF"])
    return out


@test
def copy_to_other_filesystem(t):
    data = os.urandom(300000)
    with tempfile.NamedTemporaryFile(dir=t.other) as f:
        subprocess.run(["cp", put(t.p("a"), data), f.name], check=True)
        expect(get(f.name) == data, True)
        subprocess.run(["cp", f.name, t.p("b")], check=True)
    subprocess.run(["cp", "--sparse=always", t.p("b"), t.p("c")], check=True)
    subprocess.run(["cp", "--reflink=auto", "-p", t.p("c"), t.p("e")], check=True)
    expect([get(t.p(n)) == data for n in "bce"], [True] * 3)


@test
def sendfile_and_splice(t):
    data = os.urandom(200000)
    p = put(t.p("a"), data)
    with opened(p) as i, opened(t.p("b"), os.O_CREAT | os.O_RDWR) as o:
        sent = 0
        while sent < len(data):
            sent += os.sendfile(o, i, sent, len(data) - sent)
    expect(get(t.p("b")) == data, True)
    r, w = os.pipe()
    with opened(p) as i, opened(t.p("c"), os.O_CREAT | os.O_RDWR) as o:
        moved = 0
        while moved < len(data):
            n = os.splice(i, w, 30000, offset_src=moved)
            while n:
                n -= (m := os.splice(r, o, n, offset_dst=moved))
                moved += m
    expect(get(t.p("c")) == data, True)
    a, b = socket.socketpair()
    with opened(p) as i:
        n = os.sendfile(a.fileno(), i, 5, 1000)
    expect(b.recv(2000), data[5:5 + n])


@test
def direct_io(t):
    p = put(t.p("f"), bytes(range(256)) * 64)
    flags = os.O_RDWR | os.O_DIRECT
    refused = err(lambda: os.close(os.open(p, flags)))
    if refused:
        return refused
    buf = mmap.mmap(-1, 8192)
    with opened(p, flags) as fd:
        out = [os.preadv(fd, [buf], 4096), sha(buf[:]), os.preadv(fd, [buf], 12288), err(os.preadv, fd, [buf], 16384)]
        buf[:] = b"d" * 8192
        out.append(os.pwritev(fd, [buf], 8192))
    out.append(sha(get(p)))
    with opened(p, os.O_WRONLY | os.O_APPEND | os.O_DIRECT) as fd:
        out.append(os.writev(fd, [buf]))
    out += [os.stat(p).st_size, sha(get(p))]
    return out


# ---- mapping -----------------------------------------------------------------------------------------------------------

@test
def map_shared(t):
    p = put(t.p("f"), b"0" * 20000)
    with opened(p, os.O_RDWR) as fd:
        m = mmap.mmap(fd, 20000)
        m[5000:5005] = b"HELLO"
        m.flush()
        out = [os.pread(fd, 7, 4999), get(p)[4999:5006]]
        os.pwrite(fd, b"WORLD", 6000)
        out.append(m[5999:6006])
        with opened(p, os.O_WRONLY) as other:
            os.pwrite(other, b"again", 7000)
        out.append(m[6999:7006])
    m[0:3] = b"abc"      # the descriptor is closed
    m.flush()
    m.close()
    out.append(get(p)[:5])
    expect(out, [b"0HELLO0", b"0HELLO0", b"0WORLD0", b"0again0", b"abc00"])
    return out


@test
def map_private(t):
    p = put(t.p("f"), b"0" * 9000)
    with opened(p) as fd:
        m = mmap.mmap(fd, 9000, access=mmap.ACCESS_COPY)
    m[100:103] = b"abc"
    out = [m[99:104], get(p)[99:104]]
    m.close()
    with opened(p) as fd:
        out.append(err(mmap.mmap, fd, 9000, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))
    with opened(p, os.O_WRONLY) as fd:
        out.append(err(mmap.mmap, fd, 9000, mmap.MAP_SHARED, mmap.PROT_READ))
    expect(out, [b"0abc0", b"00000", "EACCES", "EACCES"])
    return out


@test
def map_seen_by_other_process(t):
    p = put(t.p("f"), bytes(8192))
    with opened(p, os.O_RDWR) as fd:
        m = mmap.mmap(fd, 8192)

    def child(say, hear):
        with opened(p, os.O_RDWR) as other:
            n = mmap.mmap(other, 8192)
        hear()
        say(n[10:13])
        hear()
        n[4100:4103] = b"xyz"
        say(b"done")
        hear()
    pid, hear, say = spawn(child)
    m[10:13] = b"abc"
    say(b"go")
    expect(hear(), b"abc")
    say(b"on")
    if hear() != b"done":
        raise AssertionError("no answer")
    expect(m[4100:4103], b"xyz")
    say(b"end")
    end(pid)
    m.flush()
    expect(get(p)[4100:4103], b"xyz")


@test
def map_beyond_end(t):
    """SIGBUS beyond the last page, zeros within it."""
    p = put(t.p("f"), b"a" * 100)

    def touch(at):
        with opened(p) as fd:
            m = mmap.mmap(fd, 8192, mmap.MAP_SHARED, mmap.PROT_READ) if False else None
            size = 8192
            libc.mmap.restype = ctypes.c_void_p
            where = libc.mmap(None, size, 1, 1, fd, ctypes.c_long(0))
        return ctypes.string_at(where + at, 1), m
    expect(touch(200)[0], b"\0")
    pid = os.fork()
    if pid == 0:
        touch(5000)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    expect(os.WIFSIGNALED(status) and os.WTERMSIG(status), signal.SIGBUS)


@test
def map_after_unlink(t):
    p = put(t.p("f"), b"q" * 10000)
    with opened(p, os.O_RDWR) as fd:
        m = mmap.mmap(fd, 10000)
    os.unlink(p)
    put(p, b"new")
    m[0:1] = b"Q"
    m.flush()
    out = [m[0:3], m[9990:10000], get(p)]
    expect(out, [b"Qqq", b"q" * 10, b"new"])
    return out


@test
def map_grows_with_file(t):
    p = put(t.p("f"), b"a" * 4096)
    with opened(p, os.O_RDWR) as fd:
        os.ftruncate(fd, 8192)
        m = mmap.mmap(fd, 8192)
        m[8000:8003] = b"end"
        m.flush()
        os.ftruncate(fd, 10000)
        m.resize(10000)
        m[9990:9993] = b"END"
        m.flush()
        out = [os.pread(fd, 3, 8000), os.pread(fd, 3, 9990), os.fstat(fd).st_size]
    expect(out, [b"end", b"END", 10000])
    return out


# ---- names -------------------------------------------------------------------------------------------------------------

@test
def rename_over(t):
    a, b = put(t.p("a"), b"new"), put(t.p("b"), b"old")
    with opened(b) as fd:
        ino = os.stat(a).st_ino
        os.rename(a, b)
        out = [os.pread(fd, 10, 0), os.fstat(fd).st_nlink, get(b), err(os.stat, a)]
        expect(os.stat(b).st_ino, ino)
    expect(out, [b"old", 0, b"new", "ENOENT"])
    return out


@test
def rename_errors(t):
    os.makedirs(t.p("d/e/f"))
    os.mkdir(t.p("full"))
    put(t.p("full/x"))
    os.mkdir(t.p("empty"))
    put(t.p("file"))
    out = [err(os.rename, t.p("d"), t.p("d/e/g")), err(os.rename, t.p("d"), t.p("full")),
           err(os.rename, t.p("d"), t.p("file")), err(os.rename, t.p("file"), t.p("d")),
           err(os.rename, t.p("none"), t.p("x")), err(os.rename, t.p("file"), t.p("no/x")),
           err(os.rename, t.p("file/x"), t.p("y")), err(os.rename, t.p("d"), t.p("empty")),
           err(os.rename, t.p("file"), t.p("file")), err(os.rename, t.p("empty/."), t.p("z"))]
    expect(out, ["EINVAL", "ENOTEMPTY", "ENOTDIR", "EISDIR", "ENOENT", "ENOENT", "ENOTDIR", None, None, "EBUSY"])
    return out, sorted(os.listdir(t.d)), os.listdir(t.p("empty/e"))


@test
def rename_flags(t):
    a, b = put(t.p("a"), b"A"), put(t.p("b"), b"B")
    os.mkdir(t.p("d"))
    put(t.p("d/x"), b"X")
    out = [err(renameat2, a, b, RENAME_NOREPLACE), get(a), get(b), err(renameat2, a, t.p("c"), RENAME_NOREPLACE), get(t.p("c")),
           err(renameat2, t.p("c"), b, RENAME_EXCHANGE), get(t.p("c")), get(b),
           err(renameat2, b, t.p("d"), RENAME_EXCHANGE), os.listdir(b), get(t.p("d")),
           err(renameat2, b, t.p("none"), RENAME_EXCHANGE), err(renameat2, b, t.p("x"), RENAME_NOREPLACE | RENAME_EXCHANGE),
           err(renameat2, b, t.p("x"), 1 << 10), sorted(os.listdir(t.d))]
    expect(out, ["EEXIST", b"A", b"B", None, b"A", None, b"B", b"A", None, ["x"], b"A", "ENOENT", "EINVAL", "EINVAL",
                 ["b", "c", "d"]])
    return out


@test
def rename_directory_with_open_files(t):
    os.makedirs(t.p("d/e"))
    put(t.p("d/e/f"), b"data")
    here = os.getcwd()
    os.chdir(t.p("d/e"))
    try:
        with opened("f", os.O_RDWR) as fd:
            os.rename(t.p("d"), t.p("moved"))
            os.pwrite(fd, b"D", 0)
            out = [os.getcwd() == os.path.realpath(t.p("moved/e")), get("f"), get(t.p("moved/e/f")), err(os.stat, t.p("d")),
                   os.readlink("/proc/self/fd/%d" % fd) == os.path.realpath(t.p("moved/e/f"))]
            put("g", b"relative")
        os.mkdir(t.p("d"))
        out += [os.listdir(t.p("d")), sorted(os.listdir(t.p("moved/e"))), get("../e/g")]
    finally:
        os.chdir(here)
    expect(out, [True, b"Data", b"Data", "ENOENT", True, [], ["f", "g"], b"relative"])
    return out


@test
def unlink_open(t):
    p = put(t.p("f"), b"content")
    with opened(p, os.O_RDWR) as fd:
        os.unlink(p)
        st = os.fstat(fd)
        out = [st.st_nlink, st.st_size, os.pread(fd, 99, 0), os.pwrite(fd, b"C", 0), os.pwrite(fd, b"more", 7)]
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, 9)
        out += [oct(os.fstat(fd).st_mode), os.fstat(fd).st_size, os.pread(fd, 99, 0), err(os.stat, p)]
        os.utime(fd, (5, 6))
        out += [os.fstat(fd).st_mtime, err(os.fsync, fd)]
        put(p, b"other")
        out += [os.pread(fd, 99, 0), get(p)]
        with opened("/proc/self/fd/%d" % fd) as again:
            out.append(os.read(again, 99))
    expect(out[:4], [0, 7, b"content", 1])
    expect(out[-1], b"Contentmo")
    return out


@test
def unlink_errors(t):
    os.mkdir(t.p("d"))
    put(t.p("f"))
    out = [err(os.unlink, t.p("d")), err(os.rmdir, t.p("f")), err(os.unlink, t.p("none")), err(os.rmdir, t.p("none")),
           err(os.unlink, t.p("f/x")), err(os.rmdir, t.p("d/.")), err(os.rmdir, t.p("d/..")), err(os.mkdir, t.p("d")),
           err(os.mkdir, t.p("f")), err(os.mkdir, t.p("no/d"))]
    put(t.p("d/x"))
    out.append(err(os.rmdir, t.p("d")))
    os.unlink(t.p("d/x"))
    out.append(err(os.rmdir, t.p("d")))
    expect(out, ["EISDIR", "ENOTDIR", "ENOENT", "ENOENT", "ENOTDIR", "EINVAL", "ENOTEMPTY", "EEXIST", "EEXIST", "ENOENT",
                 "ENOTEMPTY", None])
    return out


@test
def removed_directory(t):
    os.mkdir(t.p("d"))
    with opened(t.p("d"), os.O_DIRECTORY) as fd:
        os.rmdir(t.p("d"))
        out = [err(os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=fd), os.fstat(fd).st_nlink, os.listdir(fd),
               err(os.mkdir, "y", dir_fd=fd)]
    expect(out, ["ENOENT", 0, [], "ENOENT"])
    return out


@test
def temporary_files(t):
    try:
        fd = os.open(t.d, os.O_TMPFILE | os.O_RDWR, 0o640)
    except OSError as e:
        return errno.errorcode[e.errno]
    os.write(fd, b"unnamed")
    out = [os.fstat(fd).st_nlink, oct(os.fstat(fd).st_mode), os.listdir(t.d)]
    linkat_fd(fd, t.p("named"))
    out += [os.fstat(fd).st_nlink, get(t.p("named")), os.stat(t.p("named")).st_ino == os.fstat(fd).st_ino]
    os.write(fd, b"!")
    out.append(get(t.p("named")))
    out.append(err(linkat_fd, fd, t.p("named")))
    os.close(fd)
    fd = os.open(t.d, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    out.append(err(linkat_fd, fd, t.p("never")))
    os.close(fd)
    with tempfile.TemporaryFile(dir=t.d) as f:
        f.write(b"x" * 100000)
        f.seek(0)
        expect(len(f.read()), 100000)
    out.append(os.listdir(t.d))
    expect(out[-3:], ["EEXIST", "ENOENT", ["named"]])
    return out


@test
def hard_links(t):
    a, b = put(t.p("a"), b"one"), t.p("b")
    os.mkdir(t.p("d"))
    os.link(a, b)
    os.link(a, t.p("d/c"))
    out = [os.stat(n).st_nlink for n in (a, b, t.p("d/c"))]
    expect(len({os.stat(n).st_ino for n in (a, b, t.p("d/c"))}), 1, "inode numbers")
    with opened(a, os.O_RDWR) as fa, opened(b) as fb:
        os.pwrite(fa, b"1", 0)
        out += [os.pread(fb, 9, 0), get(t.p("d/c"))]
        os.pwrite(fa, b"longer", 3)
        out += [os.fstat(fb).st_size, os.stat(t.p("d/c")).st_size]
    os.chmod(b, 0o600)
    out += [perm(a), perm(t.p("d/c"))]
    os.unlink(a)
    out += [os.stat(b).st_nlink, get(b), err(os.link, t.p("d"), t.p("e")), err(os.link, b, t.p("d/c")), err(os.link, a, t.p("x"))]
    os.rename(b, t.p("d/c"))     # two names of one file: nothing happens
    out += [sorted(os.listdir(t.d)), os.stat(b).st_nlink]
    expect(out, [3, 3, 3, b"1ne", b"1ne", 9, 9, "0o600", "0o600", 2, b"1nelonger", "EPERM", "EEXIST", "ENOENT", ["b", "d"], 2])
    return out


@test
def directory_link_counts(t):
    os.makedirs(t.p("d/a"))
    os.mkdir(t.p("d/b"))
    put(t.p("d/f"))
    out = [os.stat(t.p("d")).st_nlink]
    os.rename(t.p("d/b"), t.p("d/a/b"))
    out += [os.stat(t.p("d")).st_nlink, os.stat(t.p("d/a")).st_nlink]
    os.rmdir(t.p("d/a/b"))
    out.append(os.stat(t.p("d/a")).st_nlink)
    return out


@test
def symlinks(t):
    put(t.p("target"), b"data")
    os.mkdir(t.p("dir"))
    os.symlink("target", t.p("rel"))
    os.symlink(t.p("target"), t.p("abs"))
    os.symlink("nowhere", t.p("dangling"))
    os.symlink("loop2", t.p("loop1"))
    os.symlink("loop1", t.p("loop2"))
    os.symlink("dir", t.p("dirlink"))
    os.symlink("/", t.p("root"))
    put(t.p("dir/inside"), b"in")
    out = [os.readlink(t.p("rel")), os.readlink(t.p("abs")) == t.p("target"), get(t.p("rel")), get(t.p("abs")),
           err(os.stat, t.p("dangling")), os.lstat(t.p("dangling")).st_size, oct(os.lstat(t.p("dangling")).st_mode),
           err(os.stat, t.p("loop1")), err(os.open, t.p("rel"), os.O_RDONLY | os.O_NOFOLLOW),
           get(t.p("dirlink/inside")), os.path.exists(t.p("root/proc")), err(os.symlink, "x", t.p("rel")),
           err(os.readlink, t.p("target")), err(os.symlink, "", t.p("empty")), err(os.symlink, "x" * 4096, t.p("long")),
           err(os.rmdir, t.p("dirlink")), err(os.open, t.p("dirlink"), os.O_DIRECTORY | os.O_NOFOLLOW)]
    with opened(t.p("dangling"), os.O_CREAT | os.O_WRONLY) as fd:
        os.write(fd, b"made")
    out += [get(t.p("nowhere")), err(os.open, t.p("dangling"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)]
    os.symlink("y" * 4095, t.p("max"))
    out.append(len(os.readlink(t.p("max"))))
    os.link(t.p("rel"), t.p("hard"), follow_symlinks=False)
    out += [os.readlink(t.p("hard")), os.lstat(t.p("rel")).st_nlink]
    os.unlink(t.p("rel"))
    out += [get(t.p("target")), sorted(os.listdir(t.d))]
    expect(out[4], "ENOENT")
    expect(out[7:9], ["ELOOP", "ELOOP"])
    return out


@test
def fifos_and_sockets(t):
    os.mkfifo(t.p("pipe"), 0o640)
    out = [oct(os.stat(t.p("pipe")).st_mode), err(os.open, t.p("pipe"), os.O_WRONLY | os.O_NONBLOCK), err(os.mkfifo, t.p("pipe"))]

    def child(say, hear):
        with open(t.p("pipe"), "wb", buffering=0) as f:
            f.write(b"through the pipe")
    pid, _, _ = spawn(child)
    out.append(get(t.p("pipe")))
    end(pid)
    here = os.getcwd()
    os.chdir(t.d)
    try:
        s = socket.socket(socket.AF_UNIX)
        s.bind("sock")
        s.listen()
        c = socket.socket(socket.AF_UNIX)
        c.connect("sock")
        a = s.accept()[0]
        c.send(b"hi")
        out += [a.recv(10), stat.S_ISSOCK(os.stat("sock").st_mode)]
        out.append(err(os.open, "sock", os.O_RDONLY))
        for x in (s, c, a):
            x.close()
        c = socket.socket(socket.AF_UNIX)
        out.append(err(c.connect, "sock"))
        c.close()
    finally:
        os.chdir(here)
    expect(out[1:], ["ENXIO", "EEXIST", b"through the pipe", b"hi", True, "ENXIO", "ECONNREFUSED"])
    return out


@test
def mknod_kinds(t):
    os.mknod(t.p("file"), stat.S_IFREG | 0o600)
    out = [perm(t.p("file")), os.stat(t.p("file")).st_size, err(os.mknod, t.p("file"), stat.S_IFREG | 0o600)]
    out.append(err(os.mknod, t.p("dev"), stat.S_IFCHR | 0o600, os.makedev(1, 3)))
    if out[-1] is None:
        st = os.stat(t.p("dev"))
        out += [stat.S_ISCHR(st.st_mode), st.st_rdev]
        os.mknod(t.p("blk"), stat.S_IFBLK | 0o600, os.makedev(259, 70000))
        out.append(os.stat(t.p("blk")).st_rdev)
    os.mknod(t.p("sock"), stat.S_IFSOCK | 0o600)
    out.append(stat.S_ISSOCK(os.stat(t.p("sock")).st_mode))
    return out


@test
def long_names(t):
    n255, n256 = "n" * 255, "n" * 256
    put(t.p(n255), b"long")
    out = [get(t.p(n255)), err(put, t.p(n256)), err(os.mkdir, t.p(n256)), err(os.stat, t.p(n256)), err(os.rename, t.p(n255), t.p(n256)),
           err(os.symlink, "x", t.p(n256)), err(os.link, t.p(n255), t.p(n256)), err(os.unlink, t.p(n256)), len(os.listdir(t.d)[0])]
    os.rename(t.p(n255), t.p("m" * 255))
    os.mkdir(t.p(n255))
    utf = "é" * 127 + "x"
    put(t.p(utf), b"utf")
    npy = "a" * 251 + ".npy"
    put(t.p(npy), b"\x93NUMPY")
    out += [sorted(len(os.fsencode(x)) for x in os.listdir(t.d)), get(t.p(npy))]
    expect(out[1:8], ["ENAMETOOLONG"] * 7)
    return out


ODD = [b"new\nline", b"tab\there", b'quo"te', b"apo'strophe", b"back\\slash", b"comma,name.npy", b"\xff\xfe\x80", b" ", b"  two ",
       b"-rf", b"*", b"~", b"%s%n", b"\x01\x7f", b"caf\xc3\xa9", b"cafe\xcc\x81", b"a:b;c|d&e", b"...", b".hidden", b"$(id)", b"x.npy\n"]


@test
def odd_names(t):
    d = os.fsencode(t.d)
    for i, name in enumerate(ODD):
        put(os.path.join(d, name), b"%d" % i)
    expect(sorted(os.listdir(d)), sorted(ODD))
    expect([get(os.path.join(d, n)) for n in ODD], [b"%d" % i for i in range(len(ODD))])
    for name in ODD:
        sub = os.path.join(d, b"dir " + name)
        os.mkdir(sub)
        os.rename(os.path.join(d, name), os.path.join(sub, name))
        os.symlink(name, os.path.join(sub, b"link"))
        expect(os.readlink(os.path.join(sub, b"link")), name)
    expect(sorted(os.listdir(d)), sorted(b"dir " + n for n in ODD))
    return [get(os.path.join(d, b"dir " + n, n)) for n in ODD]


@test
def names_like_arrays(t):
    """Files that are called .npy and are none."""
    out = []
    for i, data in enumerate((b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"not at all" * 100)):
        p = put(t.p("f%d.npy" % i), data)
        with open(p, "ab") as f:
            f.write(b"tail")
        os.truncate(p, 3)
        out += [get(p), os.stat(p).st_size]
    os.mkdir(t.p("dir.npy"))
    os.symlink("f0.npy", t.p("link.npy"))
    os.mkfifo(t.p("pipe.npy"))
    out += [get(t.p("link.npy")), sorted(os.listdir(t.d))]
    return out


@test
def deep_tree(t):
    here, depth = os.getcwd(), 200
    os.chdir(t.d)
    try:
        for i in range(depth):
            os.mkdir("level%03d" % i)
            os.chdir("level%03d" % i)
        put("leaf", b"deep")
        with opened("leaf") as fd:
            os.chdir(t.d)
            expect(os.pread(fd, 9, 0), b"deep")
        path = "/".join("level%03d" % i for i in range(depth)) + "/leaf"
        expect(get(path), b"deep")
        expect(sum(len(f) for _, _, f in os.walk(t.d)), 1)
        os.rename("level000", "renamed")
        expect(get(path.replace("level000", "renamed")), b"deep")
        subprocess.run(["rm", "-r", "renamed"], check=True)
    finally:
        os.chdir(here)
    return os.listdir(t.d)


@test
def path_errors(t):
    put(t.p("f"))
    os.mkdir(t.p("d"))
    out = [err(os.open, t.p("f/x"), os.O_RDONLY), err(os.open, t.p("f/x"), os.O_CREAT | os.O_WRONLY), err(os.open, t.p("d"), os.O_WRONLY),
           err(os.open, t.p("d"), os.O_CREAT | os.O_RDONLY), err(os.open, t.p("f"), os.O_DIRECTORY), err(os.listdir, t.p("f")),
           err(os.stat, t.p("f/")), err(os.chdir, t.p("f")), err(os.stat, t.p("d/../f")), err(os.open, t.p("d") + "/" * 3000 + "x" * 2000, os.O_RDONLY),
           err(os.mkdir, t.p("d/")), err(os.open, t.p("new/"), os.O_CREAT | os.O_WRONLY)]
    with opened(t.p("d"), os.O_DIRECTORY) as fd:
        out += [err(os.read, fd, 1), err(os.pread, fd, 1, 0)]
    expect(out, ["ENOTDIR", "ENOTDIR", "EISDIR", "EISDIR", "ENOTDIR", "ENOTDIR", "ENOTDIR", "ENOTDIR", None, "ENAMETOOLONG", "EEXIST",
                 "EISDIR", "EISDIR", "EISDIR"])
    return out


@test
def path_descriptors(t):
    put(t.p("f"), b"data")
    os.mkdir(t.p("d"))
    with opened(t.p("f"), os.O_PATH) as fd:
        out = [err(os.read, fd, 1), os.fstat(fd).st_size]
        with opened("/proc/self/fd/%d" % fd, os.O_RDWR) as real:
            out.append(os.read(real, 9))
            os.write(real, b"+")
        os.unlink(t.p("f"))
        out += [os.fstat(fd).st_nlink, os.fstat(fd).st_size]
    with opened(t.p("d"), os.O_PATH | os.O_DIRECTORY) as fd:
        out.append(os.mkdir("sub", dir_fd=fd))
        with opened("x", os.O_CREAT | os.O_WRONLY) if False else opened("/proc/self/fd/%d/x" % fd, os.O_CREAT | os.O_WRONLY) as f:
            os.write(f, b"at")
        out += [get("/proc/self/fd/%d/x" % fd), sorted(os.listdir("/proc/self/fd/%d" % fd)), os.stat("x", dir_fd=fd).st_size]
    os.symlink("d", t.p("l"))
    with opened(t.p("l"), os.O_PATH | os.O_NOFOLLOW) as fd:
        out.append(os.readlink("", dir_fd=fd))
    expect(out[0], "EBADF")
    return out


@test
def reopen_read_only_for_writing(t):
    p = put(t.p("f"), b"data")
    with opened(p) as fd:
        with opened("/proc/self/fd/%d" % fd, os.O_RDWR | os.O_APPEND) as again:
            os.write(again, b"+more")
        out = os.pread(fd, 99, 0)
        with opened("/dev/fd/%d" % fd, os.O_RDWR | os.O_TRUNC):
            pass
        out2 = os.pread(fd, 99, 0)
    expect([out, out2], [b"data+more", b""])
    return out, out2


@test
def stdin_again(t):
    p = put(t.p("f"), b"one\ntwo\n")
    with open(p, "rb") as f:
        got = subprocess.run(["cat", "/dev/stdin"], stdin=f, stdout=subprocess.PIPE, check=True).stdout
    return expect(got, b"one\ntwo\n")


# ---- attributes --------------------------------------------------------------------------------------------------------

@test
def chmod(t):
    p = put(t.p("f"))
    os.mkdir(t.p("d"))
    out = []
    for mode in (0, 0o444, 0o600, 0o755, 0o4755, 0o2755, 0o1644, 0o7777):
        os.chmod(p, mode)
        out.append(perm(p))
    os.chmod(t.p("d"), 0o3775)
    out.append(perm(t.p("d")))
    with opened(t.p("d"), os.O_DIRECTORY) as fd:
        os.fchmod(fd, 0o700)
    out += [perm(t.p("d")), err(os.chmod, t.p("none"), 0o600)]
    st = os.stat(p)
    time.sleep(0.002)
    os.chmod(p, 0o600)
    expect(os.stat(p).st_ctime_ns > st.st_ctime_ns, True, "ctime moved")
    expect(os.stat(p).st_mtime_ns, st.st_mtime_ns, "mtime")
    with opened(t.p("f"), os.O_PATH) as fd:
        out.append(err(os.fchmod, fd, 0o600))
    return out


@test(root=True)
def chown(t):
    p = put(t.p("f"))
    os.chmod(p, 0o6755)
    os.chown(p, USER, OTHER)
    out = [os.stat(p).st_uid, os.stat(p).st_gid, perm(p)]
    os.chown(p, -1, 7)
    os.chown(p, 8, -1)
    out += [os.stat(p).st_uid, os.stat(p).st_gid]
    os.symlink("f", t.p("l"))
    os.lchown(t.p("l"), 5, 6)
    out += [os.lstat(t.p("l")).st_uid, os.lstat(t.p("l")).st_gid, os.stat(p).st_uid]
    with opened(p, os.O_RDWR) as fd:
        os.fchown(fd, 0, 0)
    out.append(os.stat(p).st_uid)
    os.chown(p, USER, USER)
    os.chmod(t.d, 0o777)
    out += [as_user(lambda: os.chown(p, OTHER, -1)), as_user(lambda: os.chown(p, -1, OTHER)),
            as_user(lambda: os.chown(p, -1, OTHER), groups=[OTHER]), os.stat(p).st_gid, as_user(lambda: os.chown(p, USER, -1), uid=OTHER)]
    expect(out, [USER, OTHER, "0o755", 8, 7, 5, 6, 8, 0, "EPERM", "EPERM", None, OTHER, "EPERM"])
    return out


@test(root=True)
def owner_of_new_files(t):
    os.chmod(t.d, 0o777)
    os.mkdir(t.p("setgid"))
    os.chown(t.p("setgid"), 0, 777)
    os.chmod(t.p("setgid"), 0o2777)

    def make():
        os.umask(0o022)
        for d in (t.d, t.p("setgid")):
            put(os.path.join(d, "f"), b"mine")
            os.mkdir(os.path.join(d, "d"))
            os.symlink("f", os.path.join(d, "l"))
            os.mkfifo(os.path.join(d, "p"))
            os.mknod(os.path.join(d, "n"), stat.S_IFREG | 0o600)
            with tempfile.TemporaryFile(dir=d) as f:
                st = os.fstat(f.fileno())
                got.append((st.st_uid, st.st_gid))
        return got
    got = []
    out = [as_user(make, groups=[42])]
    for d in (t.d, t.p("setgid")):
        for n in "fdlpn":
            st = os.lstat(os.path.join(d, n))
            out.append((st.st_uid, st.st_gid, oct(st.st_mode)))
    expect(out[0], [(USER, USER), (USER, 777)])
    expect({o[0] for o in out[1:]}, {USER})
    expect([o[1] for o in out[1:]], [USER] * 5 + [777] * 5)
    return out


@test(root=True)
def supplementary_groups(t):
    """A directory and files open to a group that the caller is in only by its supplementary groups."""
    os.mkdir(t.p("team"))
    os.chown(t.p("team"), 0, 4242)
    os.chmod(t.p("team"), 0o770)
    put(t.p("team/f"), b"ours")
    os.chown(t.p("team/f"), 0, 4242)
    os.chmod(t.p("team/f"), 0o660)
    os.chmod(t.d, 0o755)

    def use():
        with open(t.p("team/f"), "ab") as f:
            f.write(b"+")
        put(t.p("team/g"), b"new")
        os.chown(t.p("team/g"), -1, 4242)
        os.rename(t.p("team/g"), t.p("team/h"))
        os.truncate(t.p("team/f"), 3)
        return sorted(os.listdir(t.p("team"))), get(t.p("team/f"))
    out = [as_user(use), as_user(use, groups=[4242]), as_user(use, groups=list(range(5000, 5060)) + [4242]), as_user(use, gid=4242)]
    expect(out[0], "EACCES")
    expect(out[1], (["f", "h"], b"our"))
    return out


@test(root=True)
def refusals(t):
    os.chmod(t.d, 0o755)
    p = put(t.p("f"), b"x")
    os.chmod(p, 0o640)
    os.mkdir(t.p("locked"), 0o700)
    put(t.p("locked/f"))
    os.mkdir(t.p("list"), 0o744)
    put(t.p("list/f"))
    os.mkdir(t.p("pass"), 0o711)
    put(t.p("pass/f"), b"known")
    ro = put(t.p("ro"), b"read me")
    os.chmod(ro, 0o644)
    out = [as_user(w) for w in (
        lambda: get(p), lambda: put(p, b"y"), lambda: put(t.p("new")), lambda: os.unlink(p), lambda: os.mkdir(t.p("m")),
        lambda: os.rename(p, t.p("g")), lambda: os.stat(t.p("locked/f")).st_size, lambda: os.listdir(t.p("list")),
        lambda: os.stat(t.p("list/f")).st_size, lambda: os.listdir(t.p("pass")), lambda: get(t.p("pass/f")), lambda: get(ro),
        lambda: os.truncate(ro, 0), lambda: os.chmod(ro, 0o777), lambda: os.utime(ro), lambda: os.utime(ro, (1, 1)),
        lambda: os.setxattr(ro, "user.x", b"1"), lambda: os.link(p, t.p("l")), lambda: os.symlink("x", t.p("s")),
        lambda: os.mkfifo(t.p("p")), lambda: os.access(ro, os.W_OK), lambda: os.access(ro, os.R_OK), lambda: os.access(p, os.R_OK),
        lambda: os.open(ro, os.O_RDONLY | os.O_TRUNC), lambda: os.close(os.open(t.p("ro"), os.O_CREAT | os.O_RDONLY)))]
    expect(out[:6], ["EACCES"] * 6)
    expect(out[13:16], ["EPERM", "EACCES", "EPERM"])
    return out


@test(root=True)
def permissions_change_at_once(t):
    """A mode that was just changed counts for the next open, also of somebody else."""
    os.chmod(t.d, 0o755)
    p = put(t.p("f"), b"x")
    out = []
    for mode in (0o600, 0o644, 0o600, 0o604, 0o000):
        os.chmod(p, mode)
        out.append(as_user(lambda: get(p)))
    os.chown(p, USER, USER)
    os.chmod(p, 0o400)
    out += [as_user(lambda: get(p)), as_user(lambda: put(p))]
    expect(out, ["EACCES", b"x", "EACCES", b"x", "EACCES", b"x", "EACCES"])
    return out


@test(root=True)
def descriptors_outlive_permissions(t):
    """What is open stays open: a file without any permission, written through the descriptor that made it."""
    os.chmod(t.d, 0o777)

    def use():
        fd = os.open(t.p("f"), os.O_CREAT | os.O_RDWR, 0o000)
        os.write(fd, b"through")
        os.fchmod(fd, 0o000)
        os.ftruncate(fd, 5)
        got = os.pread(fd, 9, 0)
        os.fsync(fd)
        os.close(fd)
        fd = os.open(t.p("g"), os.O_CREAT | os.O_WRONLY, 0o200)
        os.write(fd, b"blind")
        os.close(fd)
        with open(t.p("g"), "ab") as f:
            f.write(b"!")
        return got, err(os.open, t.p("f"), os.O_RDONLY), err(os.open, t.p("g"), os.O_RDONLY), os.stat(t.p("g")).st_size
    out = as_user(use)
    expect(out, (b"throu", "EACCES", "EACCES", 6))
    return out


@test(root=True)
def sticky_directory(t):
    os.mkdir(t.p("tmp"))
    os.chmod(t.d, 0o755)
    os.chmod(t.p("tmp"), 0o1777)
    as_user(lambda: put(t.p("tmp/mine"), b"x"))
    as_user(lambda: os.mkdir(t.p("tmp/dir")))
    out = [as_user(lambda: os.unlink(t.p("tmp/mine")), uid=OTHER), as_user(lambda: os.rename(t.p("tmp/mine"), t.p("tmp/x")), uid=OTHER),
           as_user(lambda: os.rmdir(t.p("tmp/dir")), uid=OTHER), as_user(lambda: put(t.p("tmp/theirs")) and None, uid=OTHER),
           as_user(lambda: os.rename(t.p("tmp/theirs"), t.p("tmp/mine")), uid=OTHER), as_user(lambda: os.unlink(t.p("tmp/mine"))),
           sorted(os.listdir(t.p("tmp")))]
    expect(out[:3], ["EPERM"] * 3)
    expect(out[4:6], ["EPERM", None])
    return out


@test(root=True)
def set_id_bits_go_on_write(t):
    os.chmod(t.d, 0o755)
    out = []
    for how in ("write", "append", "truncate", "trunc-open", "map", "chown", "fallocate"):
        for mode in (0o6777, 0o6767):
            p = put(t.p("f-%s-%o" % (how, mode)), b"x" * 5000)
            os.chmod(p, mode)

            def use():
                if how == "write":
                    with opened(p, os.O_WRONLY) as fd:
                        os.write(fd, b"y")
                elif how == "append":
                    with opened(p, os.O_WRONLY | os.O_APPEND) as fd:
                        os.write(fd, b"y")
                elif how == "truncate":
                    os.truncate(p, 10)
                elif how == "trunc-open":
                    os.close(os.open(p, os.O_WRONLY | os.O_TRUNC))
                elif how == "fallocate":
                    with opened(p, os.O_WRONLY) as fd:
                        fallocate(fd, 0, 0, 10000)
                elif how == "map":
                    with opened(p, os.O_RDWR) as fd:
                        m = mmap.mmap(fd, 5000)
                        m[0:1] = b"z"
                        m.flush()
            if how == "chown":
                os.chown(p, USER, -1)
            else:
                expect(as_user(use), None)
            out.append((how, oct(mode), perm(p)))
    expect(out[0][2], "0o777", "after a write")
    root = put(t.p("root"), b"x")
    os.chmod(root, 0o4755)
    with open(root, "ab") as f:
        f.write(b"y")
    out.append(perm(root))
    return out


@test
def access_call(t):
    p = put(t.p("f"))
    os.mkdir(t.p("d"))
    out = []
    for mode in (0o000, 0o111, 0o444, 0o666, 0o755):
        os.chmod(p, mode)
        os.chmod(t.p("d"), mode)
        out += [os.access(x, how) for x in (p, t.p("d")) for how in (os.F_OK, os.R_OK, os.W_OK, os.X_OK)]
    os.chmod(t.p("d"), 0o755)
    out += [os.access(t.p("none"), os.F_OK), os.access(t.p("f/x"), os.F_OK)]
    return out


@test
def times(t):
    p = put(t.p("f"), b"x")
    os.utime(p, ns=(1_000_000_000_123_456_789, 1_100_000_000_987_654_321))
    st = os.stat(p)
    out = [st.st_atime_ns, st.st_mtime_ns]
    utimensat(p, (0, UTIME_OMIT), (5, 7))
    st = os.stat(p)
    out += [st.st_atime_ns, st.st_mtime_ns]
    utimensat(p, (9, 9), (0, UTIME_OMIT))
    st = os.stat(p)
    out += [st.st_atime_ns, st.st_mtime_ns]
    before = time.time()
    utimensat(p, (0, UTIME_OMIT), (0, UTIME_NOW))
    st = os.stat(p)
    out += [st.st_atime_ns, before - 1 < st.st_mtime < time.time() + 1]
    os.symlink("f", t.p("l"))
    os.utime(t.p("l"), ns=(3, 4), follow_symlinks=False)
    out += [os.lstat(t.p("l")).st_mtime_ns, os.stat(p).st_mtime_ns != 4]
    os.utime(p, (-10, -10))
    out.append(os.stat(p).st_mtime)
    with opened(p, os.O_RDWR) as fd:
        os.utime(fd, (100, 200))
        out.append(os.fstat(fd).st_mtime)
        os.write(fd, b"y")
        out.append(os.fstat(fd).st_mtime > 1000)
    os.mkdir(t.p("d"))
    os.utime(t.p("d"), (1, 2))
    put(t.p("d/x"))
    out.append(os.stat(t.p("d")).st_mtime > 1000)
    os.utime(t.p("d"), (1, 2))
    os.unlink(t.p("d/x"))
    out += [os.stat(t.p("d")).st_mtime > 1000, err(utimensat, t.p("none"), (0, UTIME_OMIT), (0, UTIME_OMIT))]
    expect(out[:2], [1_000_000_000_123_456_789, 1_100_000_000_987_654_321])
    expect(out[2:6], [1_000_000_000_123_456_789, 5_000_000_007, 9_000_000_009, 5_000_000_007])
    return out


@test
def stat_follows_writes(t):
    """fstat and stat by name agree with each write, at once."""
    p = put(t.p("f"))
    seen = []
    with opened(p, os.O_WRONLY) as fd:
        for i in range(30):
            os.write(fd, b"x" * 100)
            seen.append((os.fstat(fd).st_size, os.stat(p).st_size))
        os.utime(p, (1, 1))
        os.write(fd, b"x")
        moved = os.stat(p).st_mtime > 1000
    expect(seen, [(100 * i, 100 * i) for i in range(1, 31)])
    expect(moved, True, "mtime after a write")
    return seen[-1]


@test
def statx_birth_time(t):
    p = put(t.p("f"))
    st = os.stat(p)
    return st.st_blksize, st.st_blocks, st.st_nlink, oct(st.st_mode)


@test
def xattrs(t):
    p = put(t.p("f"), b"x")
    os.mkdir(t.p("d"))
    os.symlink("f", t.p("l"))
    out = [os.listxattr(p), err(os.getxattr, p, "user.none"), err(os.setxattr, p, "user.a", b"1"), os.getxattr(p, "user.a"),
           err(os.setxattr, p, "user.a", b"2", os.XATTR_CREATE), err(os.setxattr, p, "user.b", b"2", os.XATTR_REPLACE),
           err(os.setxattr, p, "user.a", b"\0bin\xff", os.XATTR_REPLACE), os.getxattr(p, "user.a"),
           err(os.setxattr, p, "user.empty", b""), os.getxattr(p, "user.empty"), sorted(os.listxattr(p)),
           err(os.removexattr, p, "user.empty"), err(os.removexattr, p, "user.empty"), os.listxattr(p),
           err(os.setxattr, t.p("d"), "user.dir", b"d"), os.listxattr(t.p("d")), err(os.setxattr, t.p("none"), "user.a", b""),
           err(os.setxattr, p, "user." + "n" * 300, b""), err(os.setxattr, p, "nonsense.x", b""),
           err(os.setxattr, t.p("l"), "user.x", b"", 0, follow_symlinks=False), err(os.setxattr, p, "user.big", b"x" * 70000),
           err(os.setxattr, p, "user.1k", b"v" * 1000), len(os.getxattr(p, "user.1k"))]
    with opened(p, os.O_RDWR) as fd:
        out += [err(os.setxattr, fd, "user.fd", b"f"), os.getxattr(fd, "user.fd"), sorted(os.listxattr(fd))]
        os.unlink(p)
        out += [os.getxattr(fd, "user.fd"), err(os.setxattr, fd, "user.gone", b"g"), sorted(os.listxattr(fd))]
    small = ctypes.create_string_buffer(1)
    put(p)
    os.setxattr(p, "user.a", b"long")
    out += [err(lambda: call(libc.getxattr(os.fsencode(p), b"user.a", small, 1))),
            libc.getxattr(os.fsencode(p), b"user.a", None, 0), err(lambda: call(libc.listxattr(os.fsencode(p), small, 1)))]
    expect(out[1], "ENODATA")
    expect(out[-3:], ["ERANGE", 4, "ERANGE"])
    return out


@test
def posix_acl_is_refused(t):
    p = put(t.p("f"))
    os.mkdir(t.p("d"))
    if t.native:
        return
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 6, 0xffffffff) for tag in (1, 4, 0x20))
    for name in ("system.posix_acl_access", "system.posix_acl_default"):
        for target in (p, t.p("d"))[name.endswith("default"):]:  # natively too a file has no default one
            expect(err(os.setxattr, target, name, acl), "EOPNOTSUPP", "set " + name)
            expect(err(os.getxattr, target, name), "EOPNOTSUPP", "get " + name)
    expect([n for n in os.listxattr(p) if n.startswith("system.")], [])


@test
def statfs(t):
    v = os.statvfs(t.d)
    with opened(put(t.p("f"))) as fd:
        w = os.fstatvfs(fd)
    expect((w.f_bsize, w.f_blocks), (v.f_bsize, v.f_blocks))
    return v.f_bsize, v.f_frsize, v.f_blocks, v.f_files, v.f_namemax


@test
def sync_calls(t):
    p = put(t.p("f"), b"x")
    out = []
    with opened(p, os.O_RDWR) as fd:
        os.write(fd, b"y")
        out += [err(os.fsync, fd), err(os.fdatasync, fd)]
    with opened(p) as fd:
        out += [err(os.fsync, fd), err(os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_WILLNEED), err(os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_DONTNEED),
                os.pread(fd, 2, 0)]
    with opened(t.d, os.O_DIRECTORY) as fd:
        out += [err(os.fsync, fd), err(os.fdatasync, fd), err(lambda: call(libc.syncfs(fd)))]
    for flag in (os.O_SYNC, os.O_DSYNC):
        with opened(p, os.O_WRONLY | flag) as fd:
            out.append(os.write(fd, b"z"))
    with opened(p, os.O_RDWR) as fd:
        out.append(err(lambda: call(libc.sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(0), 7))))
    expect([o for o in out if isinstance(o, str)], [])
    return out


# ---- locks -------------------------------------------------------------------------------------------------------------

def try_flock(fd, how):
    return err(fcntl.flock, fd, how | fcntl.LOCK_NB)


def in_process(work):
    status, value = in_child(work, 20)
    if status != "ok":
        raise AssertionError(value)
    return value


@test
def flock_locks(t):
    p = put(t.p("f"))
    with opened(p, os.O_RDWR) as a, opened(p, os.O_RDONLY) as b:
        out = [try_flock(a, fcntl.LOCK_EX), try_flock(b, fcntl.LOCK_EX), try_flock(b, fcntl.LOCK_SH)]
        other = lambda: try_flock(os.open(p, os.O_RDWR), fcntl.LOCK_SH)
        out.append(in_process(other))
        out += [try_flock(a, fcntl.LOCK_SH), try_flock(b, fcntl.LOCK_SH), in_process(other), try_flock(a, fcntl.LOCK_EX)]
        fcntl.flock(b, fcntl.LOCK_UN)
        out.append(try_flock(a, fcntl.LOCK_EX))
        dup = os.dup(a)
    out.append(in_process(other))     # the duplicate still holds it
    os.close(dup)
    out.append(in_process(other))
    expect(out, [None, "EAGAIN", "EAGAIN", "EAGAIN", None, None, None, "EAGAIN", None, "EAGAIN", None])
    return out


@test
def flock_goes_with_its_holder(t):
    p = put(t.p("f"))

    def holder(say, hear):
        fd = os.open(p, os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        say(b"held")
        hear()
        os.kill(os.getpid(), signal.SIGKILL)
    pid, hear, say = spawn(holder)
    expect(hear(), b"held")
    with opened(p, os.O_RDWR) as fd:
        expect(try_flock(fd, fcntl.LOCK_EX), "EAGAIN")
        say(b"die")
        os.waitpid(pid, 0)
        # The release reaches a served filesystem a moment after the process is gone: wait as lockers do.
        signal.alarm(10)
        fcntl.flock(fd, fcntl.LOCK_EX)
        signal.alarm(0)


@test
def flock_waits_for_its_turn(t):
    p = put(t.p("f"))
    with opened(p, os.O_RDWR) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)

        def waiter(say, hear):
            own = os.open(p, os.O_RDWR)
            say(b"trying")
            fcntl.flock(own, fcntl.LOCK_EX)
            say(b"got it")
            os.close(own)
        pid, hear, _ = spawn(waiter)
        expect(hear(), b"trying")
        put(t.p("still"), b"served")        # the filesystem goes on meanwhile
        expect(get(t.p("still")), b"served")
        fcntl.flock(fd, fcntl.LOCK_UN)
        expect(hear(), b"got it")
        end(pid)


def interrupted(t, block):
    """A process that waits for a lock ends at once when it is killed, and goes on with EINTR at a caught signal."""
    ready_r, ready_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        class Stop(Exception):
            pass

        def stop(*_):
            raise Stop
        signal.signal(signal.SIGUSR1, stop)
        try:
            os.write(ready_w, b"r")
            block()
            os._exit(3)
        except Stop:
            os._exit(0)
        except BaseException:
            os._exit(4)
    os.read(ready_r, 1)
    mountlib.wait_until(lambda: b"(sleeping)" in get("/proc/%d/status" % pid), what="sleep")
    time.sleep(0.02)        # from the pipe's write to the lock call; nothing announces it
    start = time.monotonic()
    os.kill(pid, signal.SIGUSR1)
    status = mountlib._reap(pid, 10)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        raise AssertionError("the wait was not interrupted")
    expect(os.WEXITSTATUS(status), 0, "status")
    pid = os.fork()
    if pid == 0:
        block()
        os._exit(3)
    time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    status = mountlib._reap(pid, 10)
    expect(status is not None and os.WIFSIGNALED(status), True, "killed while it waited")
    put(t.p("after"), b"x")
    expect(get(t.p("after")), b"x")
    return time.monotonic() - start < 10


@test
def flock_interrupted(t):
    p = put(t.p("f"))
    with opened(p, os.O_RDWR) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return interrupted(t, lambda: fcntl.flock(os.open(p, os.O_RDWR), fcntl.LOCK_EX))


@test
def record_lock_interrupted(t):
    p = put(t.p("f"))
    with opened(p, os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        return interrupted(t, lambda: fcntl.lockf(os.open(p, os.O_RDWR), fcntl.LOCK_EX))


@test
def many_wait_and_the_rest_goes_on(t):
    """More waiters than the daemon has threads to spare."""
    p = put(t.p("f"))
    with opened(p, os.O_RDWR) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        pids = []
        for i in range(40):
            def waiter(say, hear, i=i):
                os.close(fd)  # or the inherited description would keep the lock that is waited for
                own = os.open(p, os.O_RDWR)
                say(b"t")
                (fcntl.flock if i % 2 else fcntl.lockf)(own, fcntl.LOCK_EX)
                os.close(own)
            pid, hear, _ = spawn(waiter)
            expect(hear(), b"t")
            pids.append(pid)
        for i in range(100):
            put(t.p("g%d" % i), b"x")
            expect(get(t.p("g%d" % i)), b"x")
    for pid in pids:
        status = mountlib._reap(pid, 20)
        expect(status, 0, "status of a waiter")


def lock_struct(kind, start, length):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


@test
def record_locks(t):
    p = put(t.p("f"), b"x" * 1000)
    with opened(p, os.O_RDWR) as a:
        fcntl.lockf(a, fcntl.LOCK_EX, 100, 50)

        def other():
            with opened(p, os.O_RDWR) as b:
                got = struct.unpack("hhqqi4x", fcntl.fcntl(b, fcntl.F_GETLK, lock_struct(fcntl.F_WRLCK, 0, 0)))
                return [err(fcntl.lockf, b, fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 50), err(fcntl.lockf, b, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 145),
                        err(fcntl.lockf, b, fcntl.LOCK_EX | fcntl.LOCK_NB, 50, 0), err(fcntl.lockf, b, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 150),
                        got[:4], got[4] == parent]
        parent = os.getpid()
        out = [in_process(other), err(fcntl.lockf, a, fcntl.LOCK_SH | fcntl.LOCK_NB, 100, 50)]
        fcntl.lockf(a, fcntl.LOCK_UN, 20, 70)
        out.append(in_process(other))
        with opened(p):
            pass             # POSIX: closing any descriptor of the file drops the process's locks
        out.append(in_process(other)[:4])
        out.append(err(fcntl.lockf, os.open(p, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB))
    expect(out[0][:4], ["EAGAIN", "EAGAIN", None, None])
    expect(out[-1], "EBADF")
    return out


@test
def record_lock_handed_over(t):
    """F_SETLKW gets the lock when the holder unlocks, and when the holder dies."""
    p = put(t.p("f"), b"x")

    def holder(say, hear):
        fd = os.open(p, os.O_RDWR)
        fcntl.lockf(fd, fcntl.LOCK_EX)
        say(b"held")
        hear()
        fcntl.lockf(fd, fcntl.LOCK_UN)
        hear()
        fcntl.lockf(fd, fcntl.LOCK_EX)
        say(b"again")
        hear()
        os.kill(os.getpid(), signal.SIGKILL)
    pid, hear, say = spawn(holder)
    expect(hear(), b"held")
    with opened(p, os.O_RDWR) as fd:
        expect(err(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB), "EAGAIN")
        say(b"go")
        signal.alarm(20)
        fcntl.lockf(fd, fcntl.LOCK_EX)
        say(b"go")
        fcntl.lockf(fd, fcntl.LOCK_UN)
        expect(hear(), b"again")
        expect(err(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB), "EAGAIN")
        say(b"die")
        fcntl.lockf(fd, fcntl.LOCK_EX)
        signal.alarm(0)
    os.waitpid(pid, 0)


@test
def ofd_locks(t):
    """FUSE tells a filesystem the same owner for both kinds of record locks; two opens of one process still exclude."""
    p = put(t.p("f"), b"x" * 100)
    ofd = lambda fd, kind, start, n: err(fcntl.fcntl, fd, F_OFD_SETLK, lock_struct(kind, start, n))
    with opened(p, os.O_RDWR) as a, opened(p, os.O_RDWR) as b:
        out = [ofd(a, fcntl.F_WRLCK, 0, 10), ofd(b, fcntl.F_WRLCK, 5, 10), ofd(b, fcntl.F_WRLCK, 10, 10), ofd(a, fcntl.F_RDLCK, 0, 10),
               ofd(b, fcntl.F_RDLCK, 5, 5), ofd(a, fcntl.F_UNLCK, 0, 0), ofd(b, fcntl.F_WRLCK, 0, 20)]
        other = lambda: ofd(os.open(p, os.O_RDWR), fcntl.F_RDLCK, 0, 0)
        out.append(in_process(other))
    out.append(in_process(other))
    expect(out, [None, "EAGAIN", None, None, None, None, None, "EAGAIN", None])
    return out


@test
def locks_and_children(t):
    """flock is shared with a forked child; record locks are not inherited."""
    p = put(t.p("f"), b"x")
    fd = os.open(p, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)

    def child(say, hear):
        say(b"%s" % str(err(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)).encode())
        hear()
    pid, hear, say = spawn(child)
    out = [hear()]
    os.close(fd)
    with opened(p, os.O_RDWR) as other:
        out.append(try_flock(other, fcntl.LOCK_EX))        # the child has it
        say(b"end")
        end(pid)
        signal.alarm(10)
        fcntl.flock(other, fcntl.LOCK_EX)
        signal.alarm(0)
        fcntl.lockf(other, fcntl.LOCK_EX)
        out.append(in_process(lambda: err(fcntl.lockf, other, fcntl.LOCK_EX | fcntl.LOCK_NB)))
    expect(out, [b"None", "EAGAIN", "EAGAIN"])
    return out


@test
def deadlock_is_told_or_broken(t):
    """Two processes that wait for each other's record lock: one gets EDEADLK (or, where that is not told, a signal frees it)."""
    p = put(t.p("f"), b"x" * 10)
    fd = os.open(p, os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)

    def child(say, hear):
        own = os.open(p, os.O_RDWR)
        fcntl.lockf(own, fcntl.LOCK_EX, 1, 1)
        say(b"held")
        if err(fcntl.lockf, own, fcntl.LOCK_EX, 1, 0) not in (None, "EDEADLK"):
            raise AssertionError("neither the lock nor EDEADLK")
    pid, hear, _ = spawn(child)
    expect(hear(), b"held")

    class Alarm(Exception):
        pass

    def on_alarm(*_):
        raise Alarm
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 3)
    try:
        # Either of the two is told; the other then gets its lock.
        expect(err(fcntl.lockf, fd, fcntl.LOCK_EX, 1, 1) in ("EDEADLK", None), True)
    except Alarm:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.close(fd)
    end(pid)


@test
def leases(t):
    if t.native:
        return
    p = put(t.p("f"))
    with opened(p) as fd:
        code = err(fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    expect(code in (None, "EINVAL", "EAGAIN", "ENOTSUP"), True, "F_SETLEASE: %s" % code)


# ---- directories -------------------------------------------------------------------------------------------------------

def raw_entries(fd, size=32768):
    """getdents64: [(inode, offset, type, name)] of one call."""
    buf = ctypes.create_string_buffer(size)
    n = call(libc.syscall(217 if os.uname().machine == "x86_64" else 61, fd, buf, size))
    out, at = [], 0
    while at < n:
        ino, off, length, kind = struct.unpack_from("QqHB", buf, at)
        out.append((ino, off, kind, buf.raw[at + 19:at + length].split(b"\0", 1)[0]))
        at += length
    return out


def all_entries(fd, size=32768):
    out = []
    while True:
        some = raw_entries(fd, size)
        if not some:
            return out
        out += some


@test
def directory_entries(t):
    """d_ino and d_type are those of stat; . and .. are there once."""
    put(t.p("f"))
    os.mkdir(t.p("d"))
    os.symlink("f", t.p("l"))
    os.mkfifo(t.p("p"))
    os.link(t.p("f"), t.p("h"))
    kinds = {stat.S_IFREG: 8, stat.S_IFDIR: 4, stat.S_IFLNK: 10, stat.S_IFIFO: 1}
    with opened(t.d, os.O_DIRECTORY) as fd:
        entries = all_entries(fd)
    expect(sorted(e[3] for e in entries), [b".", b"..", b"d", b"f", b"h", b"l", b"p"])
    for ino, _, kind, name in entries:
        if name != b"..":
            st = os.lstat(os.path.join(os.fsencode(t.d), name))
            expect(ino, st.st_ino, "d_ino of %r" % name)
            expect(kind in (0, kinds[stat.S_IFMT(st.st_mode)]), True, "d_type of %r" % name)
    return sorted(e[2] for e in entries)


@test(limit=120)
def large_directory(t):
    names = {"entry-%05d" % i for i in range(5000)}
    for n in names:
        os.close(os.open(t.p(n), os.O_CREAT | os.O_WRONLY))
    expect(set(os.listdir(t.d)), names)
    with opened(t.d, os.O_DIRECTORY) as fd:
        entries = all_entries(fd, 1024)
        expect(len(entries), 5002, "entries by small pieces")
        expect(len({e[3] for e in entries}), 5002, "different ones")
    expect(sum(1 for e in os.scandir(t.d) if e.is_file() and e.stat().st_size == 0), 5000)
    for n in names:
        os.unlink(t.p(n))
    return os.listdir(t.d)


@test
def seek_in_directory(t):
    """Each offset that readdir gave leads to the entry after it, in any order, also after others were removed."""
    for i in range(300):
        os.close(os.open(t.p("e%03d" % i), os.O_CREAT | os.O_WRONLY))
    with opened(t.d, os.O_DIRECTORY) as fd:
        entries = all_entries(fd, 512)
        names = [e[3] for e in entries]
        for k in list(range(0, len(entries) - 1, 17)) + [0, len(entries) - 2, 5, 150]:
            os.lseek(fd, entries[k][1], os.SEEK_SET)
            expect(raw_entries(fd)[0][3], names[k + 1], "after entry %d" % k)
        os.lseek(fd, 0, os.SEEK_SET)
        expect([e[3] for e in all_entries(fd)], names, "rewound")
        k = 150
        gone = names[k + 1:k + 20]
        for n in gone:
            if n not in (b".", b".."):
                os.unlink(os.path.join(os.fsencode(t.d), n))
        os.lseek(fd, entries[k][1], os.SEEK_SET)
        rest = [e[3] for e in all_entries(fd)]
        expect(set(names[k + 20:]) <= set(rest), True, "all after the removed ones")
        expect(set(rest) & set(names[:k + 1]), set(), "none from before")


@test
def directory_changes_under_reader(t):
    """Entries that are there all the time are seen exactly once, whatever comes and goes."""
    stay = {"stay%04d" % i for i in range(800)}
    for n in stay:
        os.close(os.open(t.p(n), os.O_CREAT | os.O_WRONLY))

    def churn(say, hear):
        say(b"on")
        i = 0
        while not select.select([0], [], [], 0)[0] if False else not stop_r_ready():
            n = t.p("churn%d" % (i % 50))
            os.close(os.open(n, os.O_CREAT | os.O_WRONLY))
            os.rename(n, t.p("moved%d" % (i % 50)))
            os.unlink(t.p("moved%d" % (i % 50)))
            i += 1
    stop_r, stop_w = os.pipe()

    def stop_r_ready():
        return bool(select.select([stop_r], [], [], 0)[0])
    pid, hear, _ = spawn(churn)
    expect(hear(), b"on")
    for size in (512, 4096, 32768) * 3:
        with opened(t.d, os.O_DIRECTORY) as fd:
            seen = [e[3].decode() for e in all_entries(fd, size)]
        kept = [n for n in seen if n in stay]
        expect(len(kept), len(set(kept)), "an entry came twice")
        expect(set(kept), stay, "missing entries")
    os.write(stop_w, b"x")
    end(pid)


@test
def remove_while_reading(t):
    """rm -r's way: unlink each entry as readdir gives it."""
    for i in range(2500):
        os.close(os.open(t.p("f%04d" % i), os.O_CREAT | os.O_WRONLY))
    for e in os.scandir(t.d):
        os.unlink(e.path)
    expect(os.listdir(t.d), [])


@test
def two_readers_of_one_directory(t):
    for i in range(200):
        os.close(os.open(t.p("f%03d" % i), os.O_CREAT | os.O_WRONLY))
    with opened(t.d, os.O_DIRECTORY) as a, opened(t.d, os.O_DIRECTORY) as b:
        first = raw_entries(a, 1024)
        put(t.p("later"))
        whole = all_entries(b)
        rest = all_entries(a, 1024)
    expect("later" in os.listdir(t.d), True)
    expect({e[3] for e in whole} - {b"later"}, {e[3] for e in first + rest} - {b"later"})


@test
def listing_sees_changes_at_once(t):
    out = []
    for i in range(20):
        put(t.p("f%d" % i))
        out.append(len(os.listdir(t.d)))
        os.rename(t.p("f%d" % i), t.p("g%d" % i))
        out.append(err(os.stat, t.p("f%d" % i)))
        expect(os.path.exists(t.p("g%d" % i)), True)
    os.unlink(t.p("g3"))
    out.append(len(os.listdir(t.d)))
    expect(out[::2], list(range(1, 21)) + [19])
    return out


# ---- programs ----------------------------------------------------------------------------------------------------------

@test
def run_a_script(t):
    p = put(t.p("script.sh"), b"#!/bin/sh\necho ran \"$@\"\n")
    out = [err(subprocess.run, [p])]
    os.chmod(p, 0o755)
    out.append(subprocess.run([p, "a b"], stdout=subprocess.PIPE, check=True).stdout)
    subprocess.run(["cp", "/bin/true", t.p("true")], check=True)
    out.append(subprocess.run([t.p("true")]).returncode)
    sleeper = t.p("sleep")
    subprocess.run(["cp", "/bin/sleep", sleeper], check=True)
    child = subprocess.Popen([sleeper, "60"])
    mountlib.wait_until(lambda: os.readlink("/proc/%d/exe" % child.pid).endswith("/sleep"), what="exec")
    busy = err(os.open, sleeper, os.O_WRONLY)
    child.kill()
    child.wait()
    expect(out, ["EACCES", b"ran a b\n", 0])
    expect(busy in ("ETXTBSY", None), True, busy)
    return out


@test
def sqlite_wal(t):
    p = t.p("data.db")
    db = sqlite3.connect(p)
    expect(db.execute("pragma journal_mode=wal").fetchone()[0], "wal")
    db.execute("create table r (k integer primary key, v blob)")
    for i in range(200):
        db.execute("insert into r values (?, ?)", (i, bytes(500)))
    db.commit()

    def reader():
        other = sqlite3.connect(p, timeout=20)
        n = other.execute("select count(*) from r").fetchone()[0]
        other.execute("insert into r values (1000, 'x')")
        other.commit()
        return n
    expect(in_process(reader), 200)
    expect(db.execute("select count(*) from r").fetchone()[0], 201)
    db.execute("pragma wal_checkpoint(truncate)")
    expect(db.execute("pragma integrity_check").fetchone()[0], "ok")
    db.close()
    return sorted(os.listdir(t.d))


@test
def sqlite_writers_exclude(t):
    p = t.p("data.db")
    db = sqlite3.connect(p)
    db.execute("create table r (k integer)")
    db.commit()
    db.execute("insert into r values (1)")

    def other():
        try:
            o = sqlite3.connect(p, timeout=0.05)
            o.execute("insert into r values (2)")
            return "wrote"
        except sqlite3.OperationalError as e:
            return str(e)
    expect(in_process(other), "database is locked")
    db.commit()
    db.close()
    return sorted(os.listdir(t.d))


@test
def fork_while_open(t):
    """A child writes through an inherited descriptor: the position is shared, closing it twice is fine."""
    fd = os.open(t.p("f"), os.O_CREAT | os.O_RDWR)
    os.write(fd, b"parent ")
    pid = os.fork()
    if pid == 0:
        os.write(fd, b"child ")
        os.close(fd)
        os._exit(0)
    end(pid)
    os.write(fd, b"parent")
    os.close(fd)
    return expect(get(t.p("f")), b"parent child parent")


@test
def close_range(t):
    low = [os.open(t.p("f%d" % i), os.O_CREAT | os.O_RDWR) for i in range(50)]
    fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 300) for fd in low]  # a range that nothing else has a descriptor in
    for fd in low:
        os.close(fd)
    for fd in fds:
        os.write(fd, b"x")
    os.closerange(fds[0], fds[-1] + 1)
    expect(err(os.fstat, fds[10]), "EBADF")
    return [os.stat(t.p("f%d" % i)).st_size for i in range(50)]


@test
def descriptor_passed_to_other_process(t):
    p = put(t.p("f"), b"passed")
    a, b = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        fd = os.open(p, os.O_RDWR)
        socket.send_fds(a, [b"f"], [fd])
        os._exit(0)
    end(pid)
    _, fds, _, _ = socket.recv_fds(b, 10, 1)
    os.unlink(p)
    os.pwrite(fds[0], b"P", 0)
    return expect(os.pread(fds[0], 9, 0), b"Passed")


@test
def many_open_files(t):
    fds = []
    for i in range(800):
        fd = os.open(t.p("f%d" % i), os.O_CREAT | os.O_RDWR)
        os.write(fd, b"%d" % i)
        fds.append(fd)
    for i, fd in enumerate(fds):
        expect(os.pread(fd, 9, 0), b"%d" % i)
        os.close(fd)


@test
def same_file_opened_often(t):
    p = put(t.p("f"), b"0" * 100)
    fds = [os.open(p, flags) for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_APPEND) * 50]
    os.write(fds[1], b"1")
    os.write(fds[3], b"2")
    os.pwrite(fds[2], b"3", 50)
    out = {os.pread(fd, 200, 0) for i, fd in enumerate(fds) if i % 4 != 2}
    for fd in fds:
        os.close(fd)
    return expect(out, {b"1" + b"0" * 49 + b"3" + b"0" * 49 + b"2"})


@test
def parallel_work(t):
    """Several processes create, write, read, rename and remove in the same directories."""
    for d in range(3):
        os.mkdir(t.p("d%d" % d))

    def work(k):
        for i in range(60):
            a, b = t.p("d%d/w%d-%d" % (i % 3, k, i)), t.p("d%d/r%d-%d" % ((i + 1) % 3, k, i))
            put(a, b"%d/%d" % (k, i) * 50)
            os.rename(a, b)
            expect(get(b), b"%d/%d" % (k, i) * 50)
            os.listdir(t.p("d%d" % (i % 3)))
            if i % 2:
                os.unlink(b)
    pids = []
    for k in range(6):
        pid = os.fork()
        if pid == 0:
            try:
                work(k)
                os._exit(0)
            except BaseException as e:
                sys.stderr.write("worker %d: %r\n" % (k, e))
                os._exit(1)
        pids.append(pid)
    for pid in pids:
        end(pid)
    return sorted(sum((os.listdir(t.p("d%d" % d)) for d in range(3)), []))


@test
def inotify_in_the_mount(t):
    """inotify reports what programs do on the same mount."""
    libc.inotify_init1.restype = ctypes.c_int
    fd = call(libc.inotify_init1(os.O_NONBLOCK))
    call(libc.inotify_add_watch(fd, os.fsencode(t.d), 0x100 | 0x8 | 0x200))
    put(t.p("f"), b"x")
    os.unlink(t.p("f"))
    data = os.read(fd, 4096)
    masks, at = [], 0
    while at < len(data):
        _, mask, _, n = struct.unpack_from("iIII", data, at)
        masks.append(mask)
        at += 16 + n
    return expect(masks, [0x100, 0x8, 0x200])


@test
def ioctls(t):
    """Terminals' and unknown requests: ENOTTY, as numpy and tools expect of a file."""
    import termios
    p = put(t.p("f"), b"abc")
    with opened(p) as fd:
        out = [err(termios.tcgetattr, fd) if False else tty(fd), os.isatty(fd)]
        buf = array.array("i", [0])
        fcntl.ioctl(fd, termios.FIONREAD, buf)
        out.append(buf[0])
    expect(out, ["ENOTTY", False, 3])
    return out


def tty(fd):
    import termios
    try:
        termios.tcgetattr(fd)
    except termios.error as e:
        return errno.errorcode[e.args[0]]
    return None


# ---- only with a mount --------------------------------------------------------------------------------------------------

def need_mount(t):
    if t.native:
        raise Skip("has a meaning only on a mount")


@test(mount=True)
def inode_numbers_survive_remount(t):
    with Mount(t.mode) as m:
        for n in ("a", "b.npy"):
            put(m.path(n), b"x")
        os.makedirs(m.path("d/e"))
        put(m.path("d/e/f"))
        os.symlink("a", m.path("l"))
        names = ["a", "b.npy", "d", "d/e", "d/e/f", "l"]
        before = [os.lstat(m.path(n)).st_ino for n in names]
        expect(len(set(before)), len(names), "different numbers")
        m.remount()
        expect([os.lstat(m.path(n)).st_ino for n in reversed(names)][::-1], before)


@test(mount=True)
def two_mounts_exclude_each_other(t):
    """flock and record locks taken through one mount of a store are seen through another."""
    with Mount(t.mode) as m, Mount(t.mode, store=m.store) as n:
        for name in ("plain", "array.npy"):
            put(m.path(name), b"x" * 10)
            with opened(m.path(name), os.O_RDWR) as a, opened(n.path(name), os.O_RDWR) as b:
                fcntl.flock(a, fcntl.LOCK_EX)
                expect(try_flock(b, fcntl.LOCK_EX), "EAGAIN", "flock of " + name)
                expect(in_process(lambda: try_flock(os.open(n.path(name), os.O_RDWR), fcntl.LOCK_SH)), "EAGAIN")
                fcntl.flock(a, fcntl.LOCK_UN)
                expect(try_flock(b, fcntl.LOCK_EX), None)
                fcntl.flock(b, fcntl.LOCK_UN)
                fcntl.lockf(a, fcntl.LOCK_EX, 5, 0)
                probe = lambda start: in_process(lambda: err(fcntl.lockf, os.open(n.path(name), os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB, 2, start))
                expect([probe(0), probe(5)], ["EAGAIN", None], "record lock of " + name)
                fcntl.lockf(a, fcntl.LOCK_UN, 5, 0)
                expect(probe(0), None)


@test(mount=True)
def changes_of_one_mount_seen_in_the_other(t):
    with Mount(t.mode) as m, Mount(t.mode, store=m.store) as n:
        put(m.path("f"), b"one")
        expect(get(n.path("f")), b"one")
        put(m.path("f"), b"two two")
        expect(get(n.path("f")), b"two two")
        put(m.path("t"), b"other")
        os.rename(m.path("t"), m.path("f"))
        expect(get(n.path("f")), b"other")
        os.unlink(m.path("f"))
        mountlib.wait_until(lambda: not os.path.exists(n.path("f")), 3, "removal in the other mount")
        put(n.path("f"), b"back")
        mountlib.wait_until(lambda: os.path.exists(m.path("f")), 3, "creation in the other mount")


@test(mount=True, limit=900, big=True)
def hundred_thousand_entries(t):
    def fill(store):
        for i in range(100000):
            os.close(os.open(os.path.join(store, "a%06d.npy" % i), os.O_CREAT | os.O_WRONLY))
    with Mount(t.mode, prepare=fill) as m:
        names = os.listdir(m.mnt)
        expect(len(names), 100000)
        expect(len(set(names)), 100000)
        expect(sum(1 for e in os.scandir(m.mnt) if e.stat().st_size == 0), 100000)
        expect(err(os.stat, m.path("a099999.npy")), None)
        with opened(m.mnt, os.O_DIRECTORY) as fd:
            expect(len(all_entries(fd, 2048)), 100002)
        for i in range(0, 100000, 2):
            os.unlink(m.path("a%06d.npy" % i))
        expect(len(os.listdir(m.mnt)), 50000)


# ---- the runner ----------------------------------------------------------------------------------------------------------

def run_native(fn, base, limit):
    d = tempfile.mkdtemp(prefix="n.", dir=base)
    os.chmod(d, 0o755)
    try:
        return in_child(lambda: fn(Place(d, "/dev/shm", True, None, "native")), limit)
    finally:
        subprocess.run(["rm", "-rf", d])


def run_mounted(fn, m, mode, base, limit):
    d = os.path.join(m.mnt, fn.__name__)
    os.mkdir(d)
    os.chmod(d, 0o755)
    own = tempfile.mkdtemp(prefix="m.", dir=base)
    os.environ["NPK_TEST_DIR"] = own

    def give_up():
        mountlib.abort_connection(m.mnt)
    try:
        result = in_child(lambda: fn(Place(d, "/dev/shm", False, m, mode)), limit, give_up)
    finally:
        mountlib.clean_below(own)
        os.environ["NPK_TEST_DIR"] = base
    if result[0] != "hang":
        left = subprocess.run(["rm", "-rf", d], stderr=subprocess.PIPE)
        if result[0] == "ok" and left.returncode != 0:
            return "fail", "what it left cannot be removed: " + left.stderr.decode(errors="replace")[:300]
        below = m.below(fn.__name__)
        if result[0] == "ok" and os.path.lexists(below):
            return "fail", "removed here, still there below: %s" % os.listdir(below)
    return result


def run_one(fn, m, mode, base, big):
    limit = fn.marks.get("limit", LIMIT_S)
    if fn.marks.get("root") and os.geteuid() != 0:
        return "skip", "needs root"
    if fn.marks.get("big") and not big:
        return "skip", "only with --big"
    if fn.marks.get("mount"):
        if mode == "native":
            return "skip", "has a meaning only on a mount"
        return run_mounted(fn, m, mode, base, limit)
    native = run_native(fn, base, limit)
    if native[0] != "ok":
        return (native[0], "on the filesystem below itself: " + native[1]) if native[0] != "skip" else native
    if mode == "native":
        return native
    got = run_mounted(fn, m, mode, base, limit)
    if got[0] == "ok" and got[1] != native[1]:
        return "fail", "differs: " + difference(got[1], native[1])
    return got


def difference(got, want):
    if isinstance(got, (list, tuple)) and isinstance(want, (list, tuple)) and len(got) == len(want):
        return "; ".join("[%d] %s, natively %s" % (i, repr(a)[:200], repr(b)[:200])
                         for i, (a, b) in enumerate(zip(got, want)) if a != b)
    return "%s, natively %s" % (repr(got)[:300], repr(want)[:300])


def main():
    words = sys.argv[1:]
    big = "--big" in words
    words = [w for w in words if w != "--big"]
    if not words or words[0] not in ("native", "passthrough", "daemon", "user"):
        print(__doc__)
        return 2
    mode, words = words[0], words[1:]
    base = None
    m = None
    try:
        if mode == "user":
            mountlib.become_user_with_fuse([os.path.abspath(__file__)] + sys.argv[1:])
        base = tempfile.mkdtemp(prefix="behaviour.", dir=mountlib.temp_base())
        os.chmod(base, 0o755)
        os.environ["NPK_TEST_DIR"] = base
        if mode != "native":
            mountlib.need_mounts()
            m = Mount(mode)
            want = "passthrough" if mode == "passthrough" else "daemon"
            if m.fact("health", "mode") != want:
                reason = m.fact("health", "mode_reason")
                if mode == "passthrough":
                    raise Skip("no passthrough here: " + reason)
                raise AssertionError("mode is not %s" % want)
        report = Report("behaviour " + mode)
        for fn in chosen(words):
            start = time.monotonic()
            report.add(fn.__name__, run_one(fn, m, mode, base, big), time.monotonic() - start)
            if m is not None and not m.alive():
                print("# the daemon ended; a new one is started")
                m.stop()
                m = Mount(mode)
        if m is not None:
            status = m.terminate()
            if status != 0:
                report.add("end of the daemon", ("fail", "wait status %d" % status), 0)
        return report.end()
    except Skip as e:
        print("skipped: %s" % e)
        return 77
    finally:
        if m is not None:
            m.stop()
        if base:
            mountlib.clean_below(base)


if __name__ == "__main__":
    sys.exit(main())
