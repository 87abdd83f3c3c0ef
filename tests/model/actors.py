# SPDX-License-Identifier: Apache-2.0
"""Who works on the store: two mounts of it, the command line, the library in a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fs"))

import mountlib
from mountlib import NPK, Mount

LIBRARY = os.environ.get("NPK_LIBRARY_BIN") or os.path.join(mountlib.TREE, "build", "bin", "npk-library")


class Library:
    """npk-library: each call gives (errno's name or None, bytes, sentence)."""

    def __init__(self, store):
        self.store, self.process = store, None
        self.batches = set()  # that go with the process

    def start(self):
        self.process = subprocess.Popen([LIBRARY, self.store], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def stop(self, kill=False):
        if self.process is None:
            return
        if kill:
            self.process.send_signal(signal.SIGKILL)
            self.process.stdin.close()
        else:
            self.process.stdin.close()
        status = self.process.wait(60)
        self.process.stdout.close()
        self.process = None
        if not kill and status != 0:
            raise AssertionError("npk-library ended with %d" % status)

    def __call__(self, *words, data=b""):
        if self.process is None:
            self.start()
        line = "\t".join(str(w) for w in words) + "\t%d\n" % len(data)
        try:
            self.process.stdin.write(line.encode() + data)
            self.process.stdin.flush()
            head = self.process.stdout.readline()
        except BrokenPipeError:
            head = b""
        if not head:
            raise AssertionError("npk-library died (%s) in %r" % (self.process.wait(), words))
        result, size, sentence = head.decode(errors="surrogateescape").rstrip("\n").split("\t", 2)
        data = self.process.stdout.read(int(size))
        if int(result) and not sentence:
            raise AssertionError("%r failed without a sentence" % (words,))
        return errno_name(-int(result)), data, sentence


def errno_name(number):
    import errno
    if number == 0:
        return None
    return "ENOTSUP" if number in (errno.ENOTSUP, errno.EOPNOTSUPP) else errno.errorcode.get(number, str(number))


class World:
    """The store and everybody on it."""

    def __init__(self, mode, base):
        self.own = tempfile.mkdtemp(prefix="npk.model.", dir=base)
        self.store = os.path.join(self.own, "store")
        os.mkdir(self.store)
        other = "daemon" if mode == "passthrough" else "passthrough"
        self.mounts = {}
        try:
            for who, how in (("m1", mode), ("m2", other)):
                self.mounts[who] = Mount(how, store=self.store, mnt=os.path.join(self.own, who), base=self.own)
        except BaseException:
            self.close()
            raise
        self.lib = Library(self.store)
        self.scratch_count = 0

    def close(self):
        if hasattr(self, "lib"):
            self.lib.stop(kill=True)
        for m in self.mounts.values():
            m.stop()
        mountlib.clean_below(self.own)

    def scratch(self, data, suffix=""):
        """A file of these bytes, or of this array with its header."""
        path = os.path.join(self.own, "scratch%d%s" % (self.scratch_count % 8, suffix))
        self.scratch_count += 1
        with open(path, "wb") as f:
            if isinstance(data, np.ndarray):
                np.save(f, data)
            else:
                f.write(data)
        return path

    def place(self, by, name):
        """Path of the array as this actor names it."""
        top = self.mounts[by].mnt if by in self.mounts else self.store
        return os.path.join(top, name + ".npy")

    def control(self, by, name, leaf):
        group, base = os.path.split(name)
        return os.path.join(self.mounts[by].mnt, group, ".npk", base + ".npy", leaf)

    def cli(self, *words, data=None, env=None):
        """(errno's name or None, output, sentence)."""
        done = subprocess.run([NPK, *words], input=data, capture_output=True, cwd=self.own,
                              env=dict(os.environ, **env) if env else None)
        if done.returncode == 0:
            return None, done.stdout, ""
        sentence = done.stderr.decode(errors="replace").strip()
        if done.returncode != 1 or not sentence:
            raise AssertionError("npk %s: exit status %d: %s" % (" ".join(words), done.returncode, sentence))
        return "failed", done.stdout, sentence


def system(call, *args, **kw):
    """(errno's name or None, value, sentence) of a function of the system."""
    try:
        return None, call(*args, **kw), ""
    except OSError as e:
        return errno_name(e.errno) if e.errno else str(e), None, str(e)


def write_control(path, text):
    """Write to a control at once; the errno is that of write or of close."""
    def work():
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(fd, text if isinstance(text, bytes) else text.encode())
        except BaseException:
            try:
                os.close(fd)
            except OSError:
                pass
            raise
        os.close(fd)
    return system(work)
