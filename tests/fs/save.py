# SPDX-License-Identifier: Apache-2.0
"""-o atomic_save: a save over an array is seen when it is closed, and only if it is complete.

Usage: save.py passthrough|daemon [WORD...]"""

import io
import mmap
import os
import subprocess
import sys
import tempfile

import numpy as np

import mountlib
from harness import err, expect, main_on_mounts, test
from mountlib import NPK, Mount, MountFailed, Skip, wait_until

OLD = np.arange(4000, dtype="f4").reshape(1000, 4)
NEW = -np.arange(6000, dtype="f4").reshape(1500, 4)
HEADER = 128


def image(array):
    whole = io.BytesIO()
    np.save(whole, array)
    return whole.getvalue()


def same(m, want, name="x.npy"):
    got = np.load(m.path(name))
    expect((got.shape, got.dtype), (want.shape, want.dtype), name)
    expect(bool((got == want).all()), True, name + " has other rows")
    expect(os.path.getsize(m.path(name)), len(image(want)), name)


def old(m, name="x.npy"):
    np.save(m.path(name), OLD)


def writer(code, *args):
    """A process that runs code and then waits for a line on its stdin; it has said "ready" by the time this returns."""
    program = "import os, sys, numpy as np\n" + code + "\nprint('ready', flush=True)\nsys.stdin.readline()\n"
    p = subprocess.Popen([sys.executable, "-c", program, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    expect(p.stdout.readline(), "ready\n")
    return p


def end(p):
    p.stdin.close()
    p.wait()


def kill(p):
    p.kill()
    p.wait()
    p.stdin.close()


def names(m, *where):
    return sorted(os.listdir(m.path(*where)))


def left_over(m):
    """Temporary files in the sidecar folder."""
    side = m.below(".npkfs")
    return [n for n in os.listdir(side) if n.startswith("tmp.")] if os.path.isdir(side) else []


def gone(m):
    """A RELEASE is not waited for by who closes."""
    wait_until(lambda: not left_over(m), what="the end of the save")


@test
def seen_at_close(m):
    old(m)
    new = image(NEW)
    f = open(m.path("x.npy"), "wb", buffering=0)
    same(m, OLD)
    for part in (new[:100], new[100:HEADER], new[HEADER:9000], new[9000:]):
        f.write(part)
        same(m, OLD)
        expect(os.stat(m.path("x.npy")).st_size, HEADER + OLD.nbytes)
    expect(os.fstat(f.fileno()).st_size, len(new), "its writer sees what he writes")
    expect(names(m), ["x.npy"])
    f.close()
    same(m, NEW)
    expect((np.load(m.below("x.npy")) == NEW).all(), True, "the file below")
    expect(names(m), ["x.npy"])
    gone(m)
    same(m, NEW)


@test
def every_way_to_save(m):
    with open(m.path("new"), "wb") as f:
        f.write(image(NEW))
    with tempfile.NamedTemporaryFile() as outside:
        outside.write(image(NEW))
        outside.flush()
        for way in ("cp %s x.npy" % outside.name, "cp new x.npy", "cp --reflink=never --sparse=always new x.npy",
                    "cat new > x.npy", "dd if=new of=x.npy bs=700 status=none", "tee x.npy < new > /dev/null",
                    "dd if=new of=x.npy bs=1M conv=fsync status=none"):
            old(m)
            reader = open(m.path("x.npy"), "rb")
            done = subprocess.run(["sh", "-c", way], cwd=m.mnt, capture_output=True, text=True)
            expect((done.returncode, done.stderr), (0, ""), way)
            same(m, NEW)
            expect(reader.read(), image(OLD), "a reader of the old array")
            reader.close()
    old(m)
    np.save(m.path("x.npy"), NEW)
    same(m, NEW)
    NEW.astype("f8").tofile(m.path("raw"))
    old(m)
    a = np.lib.format.open_memmap(m.path("x.npy"), mode="w+", dtype="f4", shape=NEW.shape)
    a[:] = NEW
    a.flush()
    del a
    same(m, NEW)
    old(m)  # all of it through a mapping that outlives its descriptor
    fd = os.open(m.path("x.npy"), os.O_RDWR | os.O_TRUNC)
    os.ftruncate(fd, len(image(NEW)))
    whole = mmap.mmap(fd, len(image(NEW)))
    os.close(fd)
    same(m, OLD)
    whole[:] = image(NEW)
    whole.close()
    wait_until(lambda: len(np.load(m.path("x.npy"))) == len(NEW), what="the save through a mapping")
    same(m, NEW)
    old(m)
    objects = np.array([{"a": 1}, None, "text"], dtype=object)
    np.save(m.path("x.npy"), objects, allow_pickle=True)
    expect(np.load(m.path("x.npy"), allow_pickle=True).tolist(), objects.tolist())
    gone(m)
    expect([n for n in names(m) if "unfinished" in n], [])


@test
def readers_keep_the_old_array(m):
    old(m)
    mapped = np.load(m.path("x.npy"), mmap_mode="r")
    f = open(m.path("x.npy"), "rb", buffering=0)
    with open(m.path("x.npy"), "wb") as g:
        g.write(image(NEW)[:3000])
        late = np.load(m.path("x.npy"), mmap_mode="r")
        g.write(image(NEW)[3000:])
    same(m, NEW)
    expect(bool((mapped == OLD).all() and (late == OLD).all()), True, "mappings")
    expect(f.read(), image(OLD))
    f.close()
    np.save(m.path("x.npy"), OLD + 1)
    same(m, OLD + 1)


@test
def unfinished_is_set_aside(m):
    old(m)
    new = image(NEW)
    for i, (cut, how) in enumerate(((HEADER + 1000, kill), (HEADER, kill), (HEADER + 10, end), (50, end), (len(new) - 1, end))):
        p = writer("f = open(sys.argv[1], 'wb', buffering=0)\nf.write(open(sys.argv[2], 'rb').read(%d))" % cut,
                   m.path("x.npy"), write_file(m, new))
        how(p)
        aside = "x.npy.unfinished" + (".%d" % i if i else "")
        wait_until(lambda: os.path.exists(m.path(aside)), what=aside)
        with open(m.path(aside), "rb") as f:
            expect(f.read(), new[:cut], aside)
        same(m, OLD)
        with open(m.control("x.npy", "last_error")) as f:
            said = f.read()
        expect(('"x.npy"' in said, '"%s"' % aside in said), (True, True), said)
    expect('"x.npy.unfinished.4"' in m.fact("health"), True, m.fact("health"))
    with open(m.path("x.npy"), "wb") as f:  # what is no array at all is kept, too
        f.write(b"hello")
    wait_until(lambda: os.path.exists(m.path("x.npy.unfinished.5")), what="x.npy.unfinished.5")
    before = names(m)
    subprocess.run(["sh", "-c", ": > x.npy"], cwd=m.mnt, check=True)
    gone(m)
    same(m, OLD)
    expect(names(m), before, "nothing was written, so nothing is kept")
    same(m, OLD)


def write_file(m, data):
    path = os.path.join(m.own, "data")
    with open(path, "wb") as f:
        f.write(data)
    return path


@test
def last_close_counts(m):
    old(m)
    new = image(NEW)
    f = open(m.path("x.npy"), "wb", buffering=0)
    twin = os.dup(f.fileno())
    f.write(new[:HEADER])
    child = os.fork()
    if child == 0:
        os.close(f.fileno())
        os._exit(0)
    os.waitpid(child, 0)
    same(m, OLD)
    f.write(new[HEADER:2000])
    f.close()
    same(m, OLD)
    os.write(twin, new[2000:-1])
    same(m, OLD)
    os.write(twin, new[-1:])
    os.close(twin)
    same(m, NEW)
    with open(m.path("x.npy"), "wb", buffering=0) as f:  # through /proc, as /dev/stdout is
        again = os.open("/proc/self/fd/%d" % f.fileno(), os.O_WRONLY)
        os.write(again, image(OLD)[:500])
        os.close(again)
        f.seek(500)
        f.write(image(OLD)[500:])
        same(m, NEW)
    same(m, OLD)
    gone(m)
    expect(names(m), ["x.npy"])


@test
def several_saves_at_once(m):
    old(m)
    first, second = (open(m.path("x.npy"), "wb", buffering=0) for _ in range(2))
    for part in range(0, HEADER + NEW.nbytes, 5000):
        first.write(image(NEW)[part:part + 5000])
        second.write(image(NEW + 1)[part:part + 5000])
    same(m, OLD)
    second.close()
    same(m, NEW + 1)
    first.close()
    same(m, NEW)
    code = "for i in range(40):\n    np.save(sys.argv[1], np.full((int(sys.argv[2]) * 100, 4), i, 'f4'))"
    savers = [subprocess.Popen([sys.executable, "-c", "import sys, numpy as np\n" + code, m.path("x.npy"), str(k)],
                               stderr=subprocess.PIPE, text=True) for k in (1, 2, 3)]
    looks = 0
    while any(p.poll() is None for p in savers):
        x = np.load(m.path("x.npy"))
        expect((len(x) in (100, 200, 300, 1500), len(np.unique(x)) == 1 or len(x) == 1500), (True, True),
               "%d rows, %s" % (len(x), np.unique(x)[:5]))
        looks += 1
    expect([p.communicate()[1] for p in savers], [""] * 3)
    expect(looks > 10, True, looks)
    gone(m)
    expect([n for n in names(m) if n != "x.npy"], [])


@test
def names_that_move_meanwhile(m):
    def begin(name="x.npy"):
        f = open(m.path(name), "wb", buffering=0)
        f.write(image(NEW)[:1000])
        return f

    def finish(f):
        f.write(image(NEW)[1000:])
        f.close()

    old(m)
    f = begin()
    os.rename(m.path("x.npy"), m.path("y.npy"))
    expect(names(m), ["y.npy"])
    finish(f)
    same(m, NEW)
    same(m, OLD, "y.npy")
    f = begin("y.npy")
    os.unlink(m.path("y.npy"))
    finish(f)
    same(m, NEW, "y.npy")
    f = begin()
    np.save(m.path("other.npy"), OLD + 2)
    os.replace(m.path("other.npy"), m.path("x.npy"))
    same(m, OLD + 2)
    finish(f)
    same(m, NEW)
    os.mkdir(m.path("g"))
    old(m, "g/x.npy")
    f = begin("g/x.npy")
    os.rename(m.path("g"), m.path("h"))
    finish(f)
    same(m, NEW, "h/x.npy")
    f = begin("h/x.npy")
    os.unlink(m.path("h/x.npy"))
    os.mkdir(m.path("h/x.npy"))
    f.write(image(NEW)[1000:])
    expect(err(f.close), "EISDIR")
    wait_until(lambda: os.path.exists(m.path("h/x.npy.unfinished")), what="h/x.npy.unfinished")
    with open(m.path("h/x.npy.unfinished"), "rb") as f:
        expect(f.read(), image(NEW))
    np.save(m.below("behind"), OLD + 3)  # and behind the mount
    f = begin()
    os.replace(m.below("behind.npy"), m.below("x.npy"))
    finish(f)
    same(m, NEW)


@test
def a_writer_of_the_old_array(m):
    old(m)
    with open(m.path("x.npy"), "ab", buffering=0) as other:
        f = open(m.path("x.npy"), "wb", buffering=0)
        f.write(image(NEW))
        expect(err(f.close), "EBUSY")
        with open(m.control("x.npy", "last_error")) as e:
            said = e.read()
        expect("open or mapped for writing" in said or "x.npy.unfinished" in said, True, said)
        other.write(OLD[:1].tobytes())
    wait_until(lambda: os.path.exists(m.path("x.npy.unfinished")), what="x.npy.unfinished")
    same(m, np.concatenate([OLD, OLD[:1]]))
    with open(m.path("x.npy.unfinished"), "rb") as f:
        expect(f.read(), image(NEW))
    np.save(m.path("x.npy"), NEW)
    same(m, NEW)


@test
def what_is_not_a_save_is_as_ever(m):
    old(m)
    ino = os.stat(m.path("x.npy")).st_ino
    with open(m.path("x.npy"), "ab", buffering=0) as f:
        f.write(OLD[:1].tobytes())
        expect(os.path.getsize(m.path("x.npy")), HEADER + OLD.nbytes + 16)
    with open(m.path("x.npy"), "r+b", buffering=0) as f:
        f.seek(HEADER)
        f.write(np.full(4, 7, "f4").tobytes())
        expect(np.load(m.path("x.npy"))[0].tolist(), [7.0] * 4)
    os.truncate(m.path("x.npy"), HEADER + 16 * 5)
    expect(np.load(m.path("x.npy")).shape, (5, 4))
    expect(os.stat(m.path("x.npy")).st_ino, ino)
    for name, data in (("plain.txt", b"hello"), ("new.npy", image(NEW)[:300]), ("none.npy", b"no array")):
        with open(m.path(name), "wb", buffering=0) as f:
            f.write(data)
            with open(m.path(name), "rb") as g:
                expect(g.read(), data, name)
        with open(m.path(name), "wb", buffering=0) as f:
            f.write(b"x")
            expect(os.path.getsize(m.path(name)), 1 if name != "new.npy" else 300, name)
    old(m)
    os.link(m.path("x.npy"), m.path("z.npy"))
    expect(err(open, m.path("x.npy"), "wb"), "EMLINK")
    with open(m.control("x.npy", "last_error")) as e:
        expect("hard links" in e.read(), True)
    same(m, OLD, "z.npy")


@test
def owner_mode_and_attributes_stay(m):
    old(m)
    os.chmod(m.path("x.npy"), 0o640)
    os.setxattr(m.path("x.npy"), "user.note", b"kept")
    if os.geteuid() == 0:
        os.chown(m.path("x.npy"), 1234, 4321)
    before = os.stat(m.path("x.npy"))
    np.save(m.path("x.npy"), NEW)
    after = os.stat(m.path("x.npy"))
    expect((after.st_mode, after.st_uid, after.st_gid), (before.st_mode, before.st_uid, before.st_gid))
    expect(os.getxattr(m.path("x.npy"), "user.note"), b"kept")
    source = write_file(m, image(OLD))
    os.utime(source, (1000, 2000))
    os.chmod(source, 0o600)
    subprocess.run(["cp", "-p", source, m.path("x.npy")], check=True)
    expect((os.stat(m.path("x.npy")).st_mtime, os.stat(m.path("x.npy")).st_mode & 0o777), (2000, 0o600))
    same(m, OLD)


@test
def over_a_view(m):
    old(m)
    with open(m.control("x.npy", "names"), "w") as f:
        f.write("head\t0\t10\n")
    with open(m.control("x.npy", "drop"), "w") as f:
        f.write("0:100\n")
    left = np.delete(OLD, range(100), 0)
    held = np.load(m.path("x.npy"), mmap_mode="r")
    p = writer("f = open(sys.argv[1], 'wb', buffering=0)\nf.write(b'half')", m.path("x.npy"))
    same(m, left)
    kill(p)
    wait_until(lambda: os.path.exists(m.path("x.npy.unfinished")), what="x.npy.unfinished")
    same(m, left)
    np.save(m.path("x.npy"), NEW)
    same(m, NEW)
    expect(bool((held == left).all()), True, "a mapping of the view")
    with open(m.control("x.npy", "deleted")) as f:
        expect(f.read(), "0\n")
    m.remount()
    same(m, NEW)


@test
def after_other_changes(m):
    """A session, a journal and a redo record of the old file do not outlive it."""
    old(m)
    for i in range(3):
        with open(m.path("x.npy"), "ab") as f:
            f.write(OLD[:1].tobytes())
        subprocess.run([NPK, "replace", m.path("x.npy"), "0:500", write_file(m, image(NEW[:500]))], check=True)
        np.save(m.path("x.npy"), NEW)
        same(m, NEW)
        with open(m.path("x.npy"), "ab") as f:
            f.write(NEW[:1].tobytes())
        same(m, np.concatenate([NEW, NEW[:1]]))
        np.save(m.path("x.npy"), OLD)
        same(m, OLD)
    m.remount()
    same(m, OLD)
    found = subprocess.run([NPK, "check", m.store], capture_output=True, text=True)
    expect([line for line in found.stdout.split("\n") if line.startswith(("damage", "warning"))], [], found.stdout)


@test
def daemon_killed(m):
    old(m)
    f = open(m.path("x.npy"), "wb", buffering=0)
    f.write(image(NEW)[:5000])
    m.kill()
    err(f.close)
    m.restart()
    same(m, OLD)
    np.save(m.path("x.npy"), NEW)
    m.kill()
    m.restart()
    same(m, NEW)
    m.remount()
    expect(left_over(m), [], "what the dead daemon left")


@test
def daemon_killed_at_each_call(m):
    """All saves that were told to be done are there, and the one under way is old or new."""
    acknowledged, n = 0, 0
    for n in range(1, 200):
        done = -1
        with tempfile.TemporaryDirectory(prefix="npkfs-save.", dir=mountlib.temp_base()) as own:
            store, mnt = os.path.join(own, "store"), os.path.join(own, "mnt")
            os.mkdir(store)
            np.save(os.path.join(store, "x.npy"), np.full((300, 4), -1, "f4"))
            one = None
            try:
                one = Mount(m.mode, ["atomic_save"], store=store, mnt=mnt, env={"NPK_IO_PLAN": "kill:%d" % n})
                for i in range(3):
                    with open(one.path("x.npy"), "wb", buffering=0) as f:
                        f.write(image(np.full((300 + i, 4), i, "f4")))
                    done = i
            except (OSError, MountFailed):
                pass
            killed = done < 2 or not one.alive()
            if one is not None:
                one.stop()
            x = np.load(os.path.join(store, "x.npy"))
            value = int(x[0, 0])
            expect((x == value).all() and len(x) == 300 + max(value, 0), True, "a whole array, killed at call %d" % n)
            expect(value in (done, done + 1), True, "killed at call %d: %d, %d was acknowledged" % (n, value, done))
            acknowledged += done + 1
            found = subprocess.run([NPK, "check", store], capture_output=True, text=True).stdout
            expect([line for line in found.split("\n") if line.startswith(("damage", "warning"))], [], found)
        if not killed:
            break
    expect((n > 8, n < 199, acknowledged > 3), (True, True, True), "%d calls, %d acknowledged" % (n, acknowledged))


@test
def disk_full(m):
    if os.geteuid() != 0:
        raise Skip("a small filesystem takes root")
    small = os.path.join(m.own, "small")
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], check=True)
    try:
        with Mount(m.mode, ["atomic_save"], store=os.path.join(small, "store")) as one:
            held = np.arange(1 << 18, dtype="f4")
            np.save(one.path("x.npy"), held)

            def save():
                with open(one.path("x.npy"), "wb", buffering=0) as f:
                    data = memoryview(image(np.zeros(1 << 20, "f4")))
                    while data:
                        data = data[f.write(data):]
            expect(err(save), "ENOSPC")
            wait_until(lambda: os.path.exists(one.path("x.npy.unfinished")), what="x.npy.unfinished")
            same(one, held)
            os.unlink(one.path("x.npy.unfinished"))
            np.save(one.path("x.npy"), held + 1)
            same(one, held + 1)
    finally:
        subprocess.run(["umount", small], check=False)


def main():
    return main_on_mounts("save", ["atomic_save"])


if __name__ == "__main__":
    sys.exit(main())
