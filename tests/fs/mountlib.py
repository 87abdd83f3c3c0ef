# SPDX-License-Identifier: Apache-2.0
"""Mounts for tests: a store of its own at a mount point of its own, in one of the modes, gone again at the end.

    with Mount("passthrough") as m:
        ... m.mnt, m.store ...

Environment: NPKFS_BIN and NPK_BIN (default: the tree's build/bin), NPK_TEST_DIR (where the temporary folders go).
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))
NPKFS = os.environ.get("NPKFS_BIN") or os.path.join(TREE, "build", "bin", "npkfs")
NPK = os.environ.get("NPK_BIN") or os.path.join(TREE, "build", "bin", "npk")
NOBODY = 65534

MODES = {"passthrough": [], "daemon": ["passthrough=off"], "user": [], "ro": ["ro"]}


class Skip(Exception):
    """The test cannot be made here; the text says why."""


class MountFailed(Exception):
    def __init__(self, status, said):
        super().__init__("npkfs ended with status %s: %s" % (status, said.strip()))
        self.status, self.said = status, said


def need_mounts():
    """Raise Skip unless this process can mount."""
    for path in (NPKFS, NPK):
        if not os.access(path, os.X_OK):
            raise Skip("%s is not built" % path)
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as e:
        raise Skip("/dev/fuse: %s" % e.strerror)


def temp_base():
    return os.environ.get("NPK_TEST_DIR") or tempfile.gettempdir()


def unescape(field):
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(code, char)
    return field


def mount_device(path):
    """(major, minor) of the topmost npkfs mounted exactly here, or None. Asks nobody but the kernel's own table."""
    want, found = os.fsencode(os.path.abspath(path)), None
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            left, _, right = line.partition(b" - ")
            fields = left.split()
            if unescape(fields[4]) == want and right.split()[0] == b"fuse.npkfs":
                found = tuple(int(n) for n in fields[2].split(b":"))
    return found


def abort_connection(path):
    """End a mount whose daemon does not answer any more: every waiting call fails."""
    device = mount_device(path)
    if device is None:
        return
    try:
        with open("/sys/fs/fuse/connections/%d/abort" % device[1], "w") as f:
            f.write("1")
    except OSError:
        pass  # the control filesystem is not mounted; the lazy unmount has to do


def detach(path):
    """Unmount lazily whatever npkfs is here."""
    while mount_device(path) is not None:
        if os.geteuid() == 0:
            done = subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL)
        else:
            done = subprocess.run(["fusermount3", "-uz", path], stderr=subprocess.DEVNULL)
        if done.returncode != 0:
            break


_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_CHILD_SUBREAPER = 36


def _adopt_daemons():
    """Daemons in the background become children of this process, so that it can wait for their end."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _children():
    """Pids whose parent this process is."""
    found, me = set(), os.getpid()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as f:
                    if int(f.read().rpartition(b")")[2].split()[1]) == me:
                        found.add(int(name))
            except (OSError, IndexError, ValueError):
                pass  # it ended while we looked
    return found


def wait_until(condition, seconds=10.0, what="it"):
    """Poll until condition() is true. For states that nothing announces; never for readiness of a mount."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("%s did not happen within %g s" % (what, seconds))
        time.sleep(0.005)


class Mount:
    """One live mount. The daemon is in the background (readiness = its parent's exit) and known by its pid."""

    def __init__(self, mode="passthrough", options=(), store=None, mnt=None, env=None, base=None, prepare=None):
        if mode not in MODES:
            raise ValueError(mode)
        self.mode = mode
        self.options = MODES[mode] + list(options)
        self.env = env or {}
        self.own = tempfile.mkdtemp(prefix="npkfs.", dir=base or temp_base())
        os.chmod(self.own, 0o755)
        self.store = store or os.path.join(self.own, "store")
        self.mnt = mnt or os.path.join(self.own, "mnt")
        self.pid = None
        self.said = ""
        try:
            if not os.path.isfile(self.store):  # a package
                os.makedirs(self.store, exist_ok=True)
            os.makedirs(self.mnt, exist_ok=True)
            if prepare:
                prepare(self.store)
            self.start()
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def path(self, *names):
        return os.path.join(self.mnt, *names)

    def below(self, *names):
        return os.path.join(self.store, *names)

    def control(self, array, name):
        """Path of a control of an array (a path with suffix, relative to the mount)."""
        group, leaf = os.path.split(array)
        return os.path.join(self.mnt, group, ".npk", leaf, name)

    def fact(self, name, key=None):
        """A fact of the mount, or one value of a keyed list."""
        with open(os.path.join(self.mnt, ".npk", name), encoding="utf-8", errors="surrogateescape") as f:
            text = f.read()
        if key is None:
            return text
        for line in text.split("\n"):
            if line.startswith(key + "\t"):
                return line[len(key) + 1:]
        raise AssertionError("%s has no key %r:\n%s" % (name, key, text))

    def start(self, env=None, options=None, seconds=60):
        """Mount (again). Raises MountFailed with status and sentence."""
        _adopt_daemons()
        before = _children()
        command = [NPKFS, self.store, self.mnt]
        chosen = self.options if options is None else MODES[self.mode] + list(options)
        if chosen:
            command += ["-o", ",".join(chosen)]
        whole_env = dict(os.environ, **self.env, **(env or {}))
        with tempfile.TemporaryFile() as out:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=whole_env,
                                  timeout=seconds)
            out.seek(0)
            self.said = out.read().decode(errors="replace")
        new = _children() - before
        if done.returncode != 0:
            for pid in new:
                _reap(pid, 5)
            raise MountFailed(done.returncode, self.said)
        if len(new) != 1:
            raise AssertionError("npkfs left %d processes, expected the daemon alone" % len(new))
        self.pid = new.pop()
        return self

    def alive(self):
        if self.pid is None:
            return False
        if _reap(self.pid, 0) is None:
            return True
        self.pid = None
        return False

    def kill(self):
        """kill -9 of the daemon; the dead mount stays until restart() or stop()."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait_dead()

    def wait_dead(self, seconds=30):
        """Wait for the daemon to end by itself. Its wait status."""
        status = _reap(self.pid, seconds)
        if status is None:
            raise AssertionError("the daemon did not end within %g s" % seconds)
        self.pid = None
        return status

    def terminate(self, sig=signal.SIGTERM, seconds=30):
        os.kill(self.pid, sig)
        return self.wait_dead(seconds)

    def restart(self, **how):
        """After kill(): mount again at the same place (which detaches the dead mount)."""
        return self.start(**how)

    def remount(self, **how):
        """A clean end and a new beginning."""
        self.terminate()
        return self.start(**how)

    def fd_count(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))

    def resident_kib(self):
        with open("/proc/%d/status" % self.pid) as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def stop(self):
        """Unmount, end the daemon, remove the folders. Never raises."""
        try:
            if self.pid is not None and _reap(self.pid, 0) is None:
                os.kill(self.pid, signal.SIGTERM)
                if _reap(self.pid, 10) is None:
                    abort_connection(self.mnt)
                    detach(self.mnt)
                    os.kill(self.pid, signal.SIGKILL)
                    _reap(self.pid, 10)
            self.pid = None
            detach(self.mnt)
        except OSError as e:
            print("# while unmounting %s: %s" % (self.mnt, e), file=sys.stderr)
        if mount_device(self.mnt) is None:
            shutil.rmtree(self.own, ignore_errors=True)
        else:
            print("# still mounted, left as it is: %s" % self.mnt, file=sys.stderr)


def _reap(pid, seconds):
    """Wait status of a process (0 if it is no child of ours), or None if it still runs after so many seconds."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        if not poller.poll(seconds * 1000):
            return None
    finally:
        os.close(fd)
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0


def mounts_below(folder):
    """Mount points of npkfs at or below a folder, the last mounted first."""
    folder, found = os.fsencode(os.path.abspath(folder)), []
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            left, _, right = line.partition(b" - ")
            place = unescape(left.split()[4])
            if right.split()[0] == b"fuse.npkfs" and (place == folder or place.startswith(folder + b"/")):
                found.insert(0, place)
    return found


def clean_below(folder):
    """End every npkfs below a folder by force and remove the folder."""
    for place in mounts_below(folder):
        abort_connection(os.fsdecode(place))
        detach(os.fsdecode(place))
    if not mounts_below(folder):
        shutil.rmtree(folder, ignore_errors=True)


def bring_programs(base):
    """Copy these tests and the programs to where an ordinary user gets at them: a checkout below /root is out of reach."""
    shutil.copytree(HERE, os.path.join(base, "fs"), ignore=shutil.ignore_patterns("__pycache__"))
    for name, path in (("NPKFS_BIN", NPKFS), ("NPK_BIN", NPK)):
        os.environ[name] = shutil.copy(path, base)


def become_user_with_fuse(argv):
    """Run this program again as an ordinary user, who may open /dev/fuse: in a mount namespace of its own, where root has
    put a device node for everybody there. Does not return, or raises Skip. Called before any thread or mount."""
    if os.geteuid() != 0:
        need_mounts()
        return
    need = [tool for tool in ("unshare", "setpriv", "fusermount3") if not shutil.which(tool)]
    if need:
        raise Skip("no %s" % ", ".join(need))
    if not os.path.exists("/dev/fuse"):
        raise Skip("/dev/fuse: there is none")
    python = None
    for candidate in (sys.executable, "/usr/bin/python3"):
        probe = subprocess.run(["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", candidate, "-c", ""],
                               stderr=subprocess.DEVNULL, cwd="/")
        if probe.returncode == 0:
            python = candidate
            break
    if python is None:
        raise Skip("no python3 that an ordinary user can run")
    base = tempfile.mkdtemp(prefix="npkfs.user.", dir=temp_base())
    os.chown(base, NOBODY, NOBODY)
    bring_programs(base)
    argv = [os.path.join(base, "fs", os.path.relpath(argv[0], HERE))] + list(argv[1:])
    script = '''
set -eu
mount --make-rprivate /
mknod "$1/fuse" c 10 229
chmod 666 "$1/fuse"
mount --bind "$1/fuse" /dev/fuse || { echo "skipped: no device node can be put at /dev/fuse"; exit 77; }
if [ ! -e /etc/mtab ]; then # fusermount3 reads it before it unmounts for a user
    mkdir "$1/etc" "$1/work"
    mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" overlay /etc &&
        ln -s /proc/self/mounts /etc/mtab || { echo "skipped: no /etc/mtab, and none can be made"; exit 77; }
fi
base=$1
shift
export NPK_TEST_DIR="$base" TMPDIR="$base" HOME="$base" PYTHONDONTWRITEBYTECODE=1
cd "$base"
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
'''
    try:
        done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", base, python] + argv)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    sys.exit(done.returncode)
