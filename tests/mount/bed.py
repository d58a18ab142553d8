"""A cawfs volume of its own for each mounted test: made, mounted, taken away again, whatever fails.

The program under test is $CAW.  Where volumes cannot be mounted (no /dev/fuse, not root), the tests
end with exit code 77, which CTest shows as skipped.
"""
import hashlib
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest

CAW = os.environ.get("CAW", "caw")
SKIPPED = 77


def run(*command, timeout=120):
    """Runs a program to its end; returns it with returncode, stdout, stderr."""
    return subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=timeout, check=False)


def caw(*arguments, **options):
    return run(CAW, *arguments, **options)


def ok(*arguments):
    """A caw command that must succeed, without a word on stderr."""
    done = caw(*arguments)
    if done.returncode != 0 or done.stderr:
        raise AssertionError(f"caw {arguments}: exit {done.returncode}: {done.stderr}")
    return done.stdout


class Bed:
    """One image in a folder of its own, and where it is mounted."""

    def __init__(self, size="512M", mkfs=()):
        self.folder = tempfile.mkdtemp(prefix="caw-mount-")
        self.image = os.path.join(self.folder, "volume.caw")
        self.dir = os.path.join(self.folder, "mnt")
        os.mkdir(self.dir)
        ok("mkfs", "--size", size, *mkfs, self.image)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def mount(self, *options):
        ok("mount", *options, self.image, self.dir)

    def umount(self):
        ok("umount", self.dir)

    def remount(self):
        self.umount()
        self.mount()

    def info(self, path=None):
        return json.loads(ok("info", "--json", path or self.dir))

    def check(self):
        """The volume, which must not be mounted, has nothing wrong with it."""
        done = caw("fsck", "--json", self.image)
        if done.returncode == 0:
            if json.loads(done.stdout)["reference_cycles"] > 0:
                raise AssertionError("caw fsck: references form a cycle: it would never be freed")
            return
        report = json.loads(done.stdout) if done.returncode == 4 else {"findings": []}
        bad = [finding["text"] for finding in report["findings"]]
        raise AssertionError(f"caw fsck: exit {done.returncode}: {bad}{done.stderr}")

    def kill(self):
        """The server ends at once, as in a crash, and its mount is taken away."""
        pid = self.info()["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        run("umount", "-l", self.dir)

    def destroy(self):
        for _ in range(10):
            if not is_mounted(self.dir):
                break
            if caw("umount", self.dir).returncode != 0:
                run("umount", "-l", self.dir)
        shutil.rmtree(self.folder, ignore_errors=True)


def bed_is_alive(bed):
    try:
        return is_mounted(bed.dir) and os.stat(bed.dir) is not None
    except OSError:
        return False


def has_ended(pid):
    """The process with all its threads: only then are its files closed."""
    try:
        return is_zombie(pid) and len(os.listdir(f"/proc/{pid}/task")) < 2
    except OSError:
        return True


def wait_for_end(pid, seconds=60):
    end = time.monotonic() + seconds
    while not has_ended(pid):
        if time.monotonic() > end:
            raise AssertionError(f"process {pid} does not end")
        time.sleep(0.002)


def is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def is_mounted(directory):
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split()[4] == directory for line in table)


class MountedTest(unittest.TestCase):
    """Has self.bed, mounted, for the length of one test."""
    mkfs = ()
    mount = ()
    size = "512M"

    def setUp(self):
        self.bed = Bed(self.size, self.mkfs)
        self.addCleanup(self.bed.destroy)
        self.addCleanup(self.check_at_the_end)
        self.bed.mount(*self.mount)

    def check_at_the_end(self):
        if bed_is_alive(self.bed):
            self.bed.umount()
            self.bed.check()

    def path(self, *parts):
        return self.bed.path(*parts)

    def refused(self, errno_, call, *arguments):
        with self.assertRaises(OSError) as caught:
            call(*arguments)
        self.assertEqual(os.strerror(caught.exception.errno), os.strerror(errno_))


def write(path, data):
    with open(path, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def read(path):
    with open(path, "rb") as file:
        return file.read()


# u::rwx, u:1000:rw-, g::---, m::rwx, o::---
NAMED_ACL = struct.pack("<I" + 5 * "HHI", 2, 1, 7, 0xffffffff, 2, 6, 1000, 4, 0, 0xffffffff,
                        16, 7, 0xffffffff, 32, 0, 0xffffffff)


def fill(root, files=200, seed=1):
    """A tree with what trees have: depths, links, empty and larger files, modes, odd names."""
    os.makedirs(root, exist_ok=True)
    for index in range(files):
        folder = os.path.join(root, f"d{index % 7}", f"e{index % 3}")
        os.makedirs(folder, exist_ok=True)
        block = hashlib.sha256(f"{seed}.{index}".encode()).digest()
        length = (index * index * 37) % 90000 if index % 5 else 0
        path = os.path.join(folder, f"file {index}")
        write(path, (block * (length // 32 + 1))[:length])
        os.chmod(path, 0o600 + index % 0o177)
        os.utime(path, ns=(10**18 + index, 10**18 + 7 * index))
        if index % 10 == 3:
            os.setxattr(path, f"user.{index}", block * (index % 7 * 50))
    os.setxattr(os.path.join(root, "d0"), "user.of a directory", b"kept")
    os.setxattr(root, "trusted.of the top", b"kept")
    os.setxattr(os.path.join(root, "d0", "e0"), "system.posix_acl_default", NAMED_ACL)
    os.setxattr(os.path.join(root, "d0"), "system.posix_acl_access", NAMED_ACL)
    os.symlink("d0/e0", os.path.join(root, "link"))
    os.symlink("nowhere", os.path.join(root, "d1", "dangling"))
    os.mkfifo(os.path.join(root, "d2", "fifo"))
    os.mkdir(os.path.join(root, "empty"))
    os.chown(os.path.join(root, "empty"), 1234, 5678)
    write(os.path.join(root, "n" * 255), "longest name")
    with open(os.path.join(root, "sparse"), "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"island")


def describe(path, numbers=False):
    """One object of a tree as a tuple: type, mode, owner, size, times, links, contents."""
    status = os.lstat(path)
    fields = [stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_uid,
              status.st_gid, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink]
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        fields.append((name, os.getxattr(path, name, follow_symlinks=False)))
    if stat.S_ISREG(status.st_mode):
        fields += [status.st_size, hashlib.sha256(read(path)).hexdigest()]
    elif stat.S_ISLNK(status.st_mode):
        fields.append(os.readlink(path))
    if numbers:
        fields.append(status.st_ino)
    return tuple(fields)


def fail_to_read(error):
    raise error


def manifest(root, numbers=False):
    """path -> describe() of everything at and below `root`."""
    out = {".": describe(root, numbers)}
    for folder, folders, files in os.walk(root, onerror=fail_to_read):
        for name in folders + files:
            path = os.path.join(folder, name)
            out[os.path.relpath(path, root)] = describe(path, numbers)
    return out


def can_mount():
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return os.geteuid() == 0


def main():
    if not can_mount():
        print("skipped: mounting needs /dev/fuse and root")
        sys.exit(SKIPPED)
    unittest.main(verbosity=2)
