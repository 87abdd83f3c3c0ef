# SPDX-License-Identifier: Apache-2.0
"""A small runner: functions marked @test, each in a process of its own with a time limit, one line of output each.

Exit status: 0 all passed, 1 something failed, 77 everything was skipped.
"""

import errno
import os
import pickle
import select
import signal
import sys
import time
import traceback

import mountlib
from mountlib import Mount, Skip

TESTS = []
LIMIT_S = float(os.environ.get("NPK_TEST_LIMIT_S", "60"))


def test(fn=None, **marks):
    """Register a test. Marks are for the suite (root=True, limit=seconds, ...)."""
    def keep(f):
        f.marks = marks
        TESTS.append(f)
        return f
    return keep(fn) if fn else keep


def err(call, *args, **kw):
    """The name of the errno that a call fails with, or None if it succeeds."""
    try:
        call(*args, **kw)
    except OSError as e:
        # Two names for one number each: the same one always.
        return {errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EDEADLK: "EDEADLK"}.get(e.errno) or \
            errno.errorcode.get(e.errno, str(e.errno))
    return None


def expect(got, want, what=""):
    if got != want:
        raise AssertionError("%s%s instead of %s" % (what + ": " if what else "", short(got), short(want)))


def short(value):
    text = repr(value)
    return text if len(text) < 600 else text[:300] + " ... " + text[-250:]


def in_child(work, seconds=LIMIT_S, before_kill=None):
    """Run work() in a forked child. (status, value): "ok", "skip" (why), "fail" (text) or "hang" (text)."""
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        os.setpgid(0, 0)
        try:
            result = ("ok", work())
        except Skip as e:
            result = ("skip", str(e))
        except BaseException as e:
            frames = traceback.extract_tb(e.__traceback__)
            where = " < ".join("%s:%d" % (f.name, f.lineno) for f in reversed(frames[-4:]))
            result = ("fail", "%s: %s [%s]" % (type(e).__name__, e, where))
        try:
            with os.fdopen(write_end, "wb") as f:
                pickle.dump(result, f)
            sys.stdout.flush()
        finally:
            os._exit(0)
    os.close(write_end)
    data, end = b"", time.monotonic() + seconds
    result = None
    while result is None:
        left = end - time.monotonic()
        ready = left > 0 and select.select([read_end], [], [], left)[0]
        if not ready:
            result = ("hang", "no end after %g s" % seconds)
            break
        piece = os.read(read_end, 1 << 16)
        data += piece
        if not piece:
            result = pickle.loads(data) if data else ("fail", "the test's process died")
    os.close(read_end)
    if result[0] == "hang":
        result = ("hang", result[1] + waits_where(pid))
        try:
            os.killpg(pid, signal.SIGKILL)
        except OSError:
            os.kill(pid, signal.SIGKILL)
        if before_kill:
            before_kill()
    for _ in range(500):
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                break
        except ChildProcessError:
            break
        time.sleep(0.01)
    return result


def waits_where(pid):
    """What a hanging process waits for, as far as the kernel tells."""
    try:
        with open("/proc/%d/syscall" % pid) as f:
            call = f.read().split()[0]
        with open("/proc/%d/wchan" % pid) as f:
            return "; in system call %s, %s" % (call, f.read().strip())
    except (OSError, IndexError):
        return ""


class Report:
    def __init__(self, suite):
        self.suite, self.passed, self.failed, self.skipped = suite, 0, [], {}
        self.started = time.monotonic()

    def add(self, name, result, seconds):
        status, value = result
        if status == "ok":
            self.passed += 1
            line = "ok    %-40s %6.0f ms" % (name, seconds * 1000)
        elif status == "skip":
            self.skipped.setdefault(value, []).append(name)
            line = "skip  %-40s %s" % (name, value)
        else:
            self.failed.append(name)
            line = "FAIL  %-40s %s" % (name, value)
        print(line, flush=True)

    def end(self):
        print("%s: %d passed, %d failed, %d skipped, %.1f s" % (
            self.suite, self.passed, len(self.failed), sum(map(len, self.skipped.values())),
            time.monotonic() - self.started))
        if self.failed:
            print("failed: " + " ".join(self.failed))
            return 1
        return 0 if self.passed else 77


def chosen(names):
    """The tests whose name contains one of the words; all without words."""
    picked = [t for t in TESTS if not names or any(n in t.__name__ for n in names)]
    if not picked:
        print("no test is called like " + " or ".join(names))
        sys.exit(2)
    return picked


def need_mode(mode):
    """Raises Skip with the reason where arrays cannot be served in this mode."""
    mountlib.need_mounts()
    with Mount(mode) as m:
        if m.fact("health", "mode") != mode:
            raise Skip(m.fact("health", "mode_reason"))


def main_on_mounts(suite, options=()):
    """The main program of a suite `NAME.py MODE [WORD...]`: each test gets a mount of its own, with these options. The exit status."""
    mode, words = sys.argv[1], sys.argv[2:]
    try:
        need_mode(mode)
    except Skip as e:
        print("skipped: %s" % e)
        return 77
    report = Report("%s %s" % (suite, mode))
    for fn in chosen(words):
        start = time.monotonic()

        def one(fn=fn):
            with Mount(mode, options) as m:
                fn(m)
        report.add(fn.__name__, in_child(one), time.monotonic() - start)
    return report.end()
