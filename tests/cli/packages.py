#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`npk pack` and `npk unpack` there and back: every dtype and shape, arrays with deleted rows, plain files, many small arrays,
a large sparse one; two packs are the same bytes, whatever the threads.

Usage: packages.py NPK. NPK_TEST_LONG=1: 100 000 arrays and 8 GiB instead of 4 000 and 512 MiB."""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("skipped: numpy is not installed")
    sys.exit(77)

NPK = os.path.abspath(sys.argv[1])
LONG = bool(os.environ.get("NPK_TEST_LONG"))
DTYPES = "? i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16 >i2 >f8 S7 U3 V5 M8[us] m8[D]".split()
SHAPES = ((), (0,), (0, 4), (4, 0), (1,), (1, 3), (7,), (1000, 5), (2, 3, 4, 5, 6), (40000,))


def npk(*args):
    done = subprocess.run([NPK, *args], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError("npk %s: status %d, %s" % (" ".join(args), done.returncode, done.stderr))
    return done.stdout


def require(ok, what):
    if not ok:
        raise AssertionError(what)


def same_tree(a, b):
    done = subprocess.run(["diff", "-r", "--no-dereference", "-x", ".npkfs", a, b], capture_output=True, text=True)
    require(done.returncode == 0, "%s and %s differ: %s" % (a, b, done.stdout[:1000]))


def facts(root):
    """Kinds, modes, sizes, times and targets."""
    out = subprocess.run(["find", ".", "-name", ".npkfs", "-prune", "-o", "-printf", "%p %y %m %T@ %l\n"], cwd=root, check=True,
                         capture_output=True, text=True).stdout
    return sorted(out.splitlines())


def value(dtype, shape, r):
    bits = r.integers(0, 100, shape if shape else 1)
    x = bits.astype("S3").astype(dtype) if dtype[0] == "V" else bits.astype(dtype)
    return x.reshape(shape)


def fill(store):
    r = np.random.default_rng(11)
    for d, dtype in enumerate(DTYPES):
        os.makedirs("%s/type%d" % (store, d))
        for s, shape in enumerate(SHAPES):
            x = value(dtype, shape, r)
            np.save("%s/type%d/shape%d.npy" % (store, d, s), x)
            if x.ndim > 1:
                np.save("%s/type%d/fortran%d.npy" % (store, d, s), np.asfortranarray(x))
    np.save(store + "/struct.npy", np.zeros(3000, [("a", "<i4"), ("b", "S3"), ("c", ">f8", (2, 2))]))
    np.save(store + "/objects.npy", np.array([1, "two", None], dtype=object), allow_pickle=True)
    for major, shape in ((2, (100, 3)), (3, (5,))):
        with open("%s/version%d.npy" % (store, major), "wb") as f:
            np.lib.format.write_array(f, np.ones(shape), version=(major, 0))
    with open(store + "/several.npy", "wb") as f:
        np.save(f, np.arange(5))
        np.save(f, np.arange(9))
    for name, data in (("cut.npy", open(store + "/struct.npy", "rb").read()[:5000]), ("no.npy", b"no array"), ("empty", b""),
                       ("text", b"a line of text\n" * 30000), (" odd\nname", b"x"), ("noise", r.bytes(300000))):
        with open(store + "/" + name, "wb") as f:
            f.write(data)
    os.makedirs(store + "/a/deep/er/group")
    os.symlink("../text", store + "/a/link")
    os.chmod(store + "/text", 0o444)
    os.utime(store + "/a/deep", ns=(0, -1500000000))


def every_kind(place):
    store = place + "/every"
    os.mkdir(store)
    fill(store)
    for options in ([], ["--raw", "*"], ["--frame", "4K", "--level", "1"], ["--frame", "1M", "--raw", "type1*", "--raw", "text"]):
        for threads in ("1", "2"):
            npk("pack", store, "%s/%s.npkg" % (place, threads), "--threads", threads, "--force", *options)
        require(filecmp.cmp(place + "/1.npkg", place + "/2.npkg", False), "%s: 1 and 2 threads differ" % options)
        require(npk("check", place + "/1.npkg") == "", "the check found something")
        npk("unpack", place + "/2.npkg", place + "/out")
        same_tree(store, place + "/out")
        require(facts(store) == facts(place + "/out"), "%s: facts differ" % options)
        shutil.rmtree(place + "/out")
        with open(place + "/1.npkg", "rb") as f:
            subprocess.run([NPK, "unpack", "-", place + "/out"], stdin=f, check=True)
        same_tree(store, place + "/out")
        for path in ("type3/shape7", "type12/shape8", "struct", "type17/shape9"):
            require(npk("get", "%s/1.npkg/%s.npy" % (place, path), "::3") == npk("get", "%s/%s.npy" % (store, path), "::3"), path)
        shutil.rmtree(place + "/out")


def views(place):
    store = place + "/views"
    os.makedirs(store + "/g")
    want = {}
    for name, x in (("x", np.arange(30000.0).reshape(-1, 3)), ("g/y", np.arange(777, dtype="u1")), ("all", np.arange(9))):
        np.save("%s/%s.npy" % (store, name), x)
        want[name] = x
    for name, index in (("x", "::7"), ("x", "100:5000"), ("g/y", "-1"), ("all", ":")):
        npk("drop", "%s/%s.npy" % (store, name), index)
        want[name] = np.delete(want[name], np.r_[eval("np.s_[%s]" % index)] if index == "-1" else eval("np.s_[%s]" % index), axis=0)
    npk("pack", store, place + "/v.npkg", "--threads", "1")
    npk("pack", store, place + "/w.npkg", "--threads", "2")
    require(filecmp.cmp(place + "/v.npkg", place + "/w.npkg", False), "views: 1 and 2 threads differ")
    npk("unpack", place + "/v.npkg", place + "/live")
    for name, x in want.items():
        got = np.load("%s/live/%s.npy" % (place, name))
        require(got.dtype == x.dtype and got.shape == x.shape and (got == x).all(), name)
        npk("get", "%s/v.npkg/%s.npy" % (place, name), "--npy", place + "/got.npy")
        require((np.load(place + "/got.npy") == x).all(), name + " from the package")
    for name in want:
        npk("compact", "%s/%s.npy" % (store, name))
    npk("pack", place + "/live", place + "/l.npkg")
    require(npk("ls", place + "/l.npkg").count("\n") == 3, "arrays")


def many(place):
    count = 100000 if LONG else 4000
    os.makedirs(place + "/many/group")
    np.save(place + "/one.npy", np.arange(8, dtype="f4"))
    with open(place + "/one.npy", "rb") as f:
        one = bytearray(f.read())
    for i in range(count):
        one[-4:] = i.to_bytes(4, "little")
        with open("%s/many/group/%06d.npy" % (place, i), "wb") as f:
            f.write(one)
    npk("pack", place + "/many", place + "/m.npkg")
    require(npk("ls", place + "/m.npkg").count("\n") == count, "arrays in the package")
    require(npk("get", "%s/m.npkg/group/%06d.npy" % (place, count - 1), "0").strip() == "0.0", "the last one")
    npk("unpack", place + "/m.npkg", place + "/many2")
    same_tree(place + "/many", place + "/many2")
    shutil.rmtree(place + "/many")
    shutil.rmtree(place + "/many2")


def sparse(place):
    rows = (8 << 30) // 512 if LONG else (512 << 20) // 512
    os.makedirs(place + "/sparse")
    x = np.lib.format.open_memmap(place + "/sparse/x.npy", "w+", "f4", (rows, 128))
    x[rows // 2] = 7
    x[-1] = 9
    x.flush()
    del x
    npk("pack", place + "/sparse", place + "/s.npkg")
    require(os.path.getsize(place + "/s.npkg") < 200000, "%d bytes of zeros" % os.path.getsize(place + "/s.npkg"))
    npk("unpack", place + "/s.npkg", place + "/sparse2")
    st = os.stat(place + "/sparse2/x.npy")
    require(st.st_size == 128 + rows * 512 and st.st_blocks * 512 < 4 << 20, "%d bytes, %d blocks" % (st.st_size, st.st_blocks))
    x = np.load(place + "/sparse2/x.npy", mmap_mode="r")
    require((x[rows // 2] == 7).all() and (x[-1] == 9).all() and not x[::9973].sum(dtype="f8") - 9 * 128 * ((rows - 1) % 9973 == 0)
            - 7 * 128 * (rows // 2 % 9973 == 0), "its values")
    require(npk("get", place + "/s.npkg/x.npy", "-1").split() == ["9.0"] * 128, "its last row")


def main():
    # In memory: a sync would wait for what the whole machine has written.
    place = tempfile.mkdtemp(prefix="npk.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    try:
        for test in (every_kind, views, many, sparse):
            test(place)
            print("ok %s" % test.__name__)
    finally:
        shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
