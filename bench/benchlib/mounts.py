"""File systems under test: cawfs and its peers, each on an image file, behind one interface."""

import ctypes
import fcntl
import os
import shutil
import subprocess
import sys
import time

from . import ioctl

SKIPPED = 77   # exit code that ctest reads as "skipped"
claimed = set()


def run(command, **options):
    """Runs a command quietly; its output is in the exception if it fails."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            **options)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {result.returncode}: "
                           f"{result.stdout.strip()}")
    return result.stdout


def timed_process(command):
    """Nanoseconds from start to end of a process; posix_spawn, so our own size does not matter."""
    path = shutil.which(command[0]) or command[0]
    start = time.perf_counter_ns()
    pid = os.posix_spawn(path, command, os.environ)
    status = os.waitpid(pid, 0)[1]
    elapsed = time.perf_counter_ns() - start
    if status != 0:
        raise RuntimeError(f"{' '.join(command)}: status {status}")
    return elapsed


def syncfs(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(fd)


def drop_file_cache(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


class MountedFileSystem:
    """Base: `work` is a directory for the image and the mount point."""

    name = ""

    def __init__(self, work, size="16G"):
        self.work = os.path.abspath(work)
        self.size = size
        self.image = os.path.join(self.work, f"{self.name}.img")
        self.root = os.path.join(self.work, f"{self.name}.mnt")

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def clear_away(self):
        """What an earlier run that failed may have left."""
        while os.path.ismount(self.root):
            run(["umount", "-l", self.root])
        if os.path.exists(self.image):
            os.unlink(self.image)

    def make_image(self):
        self.clear_away()
        os.makedirs(self.root, exist_ok=True)
        with open(self.image, "wb"):
            pass
        run(["truncate", "-s", self.size, self.image])

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, value, trace):
        try:
            self.stop()
        finally:
            if kind is None and os.path.exists(self.image):
                os.unlink(self.image)

    def stop(self):
        run(["umount", self.root])

    def remount(self):
        """Everything durable, no cache of ours left."""
        self.stop()
        drop_file_cache(self.image)
        self.mount()

    def start(self):
        self.make_image()
        self.format()
        self.mount()

    def sync(self):
        syncfs(self.root)

    def used_bytes(self):
        figures = os.statvfs(self.root)
        return (figures.f_blocks - figures.f_bfree) * figures.f_frsize

    def counters(self):
        return {}

    def check(self):
        """Stops, has the volume checked, mounts again.  What is wrong, or nothing."""
        return ""

    def make_source(self, path):
        """An empty directory that can be a source of clones."""
        os.mkdir(path)

    def clone(self, source, target):
        """Nanoseconds of the clone operation itself."""
        return timed_process(["cp", "-a", "--reflink=always", source, target])

    clone_process = clone

    def remove(self, path):
        return timed_process(["rm", "-rf", path])


class CawMount(MountedFileSystem):
    name = "cawfs"

    def __init__(self, work, caw, size="64G", mkfs_options=(), mount_options="", wrapper=()):
        super().__init__(work, size)
        self.caw = os.path.abspath(caw)
        self.mkfs_options = list(mkfs_options)
        self.mount_options = mount_options
        self.wrapper = list(wrapper)
        self.fd = -1
        self.parents = {}

    def start(self):
        self.clear_away()
        os.makedirs(self.root, exist_ok=True)
        run([self.caw, "mkfs", "--size", self.size, *self.mkfs_options, self.image])
        self.mount()

    def mount(self):
        options = ["-o", self.mount_options] if self.mount_options else []
        run([*self.wrapper, self.caw, "mount", *options, self.image, self.root])
        self.fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)

    def close_descriptors(self):
        for fd in self.parents.values():
            os.close(fd)
        self.parents = {}
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def stop(self):
        self.close_descriptors()
        run([self.caw, "umount", self.root])

    def pid(self):
        return ioctl.info(self.fd)["pid"]

    def kill(self):
        """kill -9 the server and take the dead mount away."""
        pid = self.pid()
        self.close_descriptors()
        os.kill(pid, 9)
        while not self._ended(pid):
            time.sleep(0.005)
        subprocess.run(["umount", "-l", self.root], stderr=subprocess.DEVNULL, check=False)
        drop_file_cache(self.image)

    def check(self):
        self.stop()
        done = subprocess.run([self.caw, "fsck", self.image], capture_output=True, text=True,
                              check=False)
        self.mount()
        text = (done.stdout + done.stderr).strip()
        return text[:500] if done.returncode != 0 else ""

    @staticmethod
    def _ended(pid):
        """All threads are gone, and so its lock on the image; it may still wait to be reaped."""
        try:
            with open(f"/proc/{pid}/stat") as stat:
                state = stat.read().rsplit(")", 1)[1].split()[0]
            return state == "Z" and len(os.listdir(f"/proc/{pid}/task")) <= 1
        except OSError:
            return True

    def sync(self):
        ioctl.sync(self.fd)

    def counters(self):
        return ioctl.info(self.fd)

    def used_bytes(self):
        ioctl.checkpoint(self.fd)  # what is only in the log takes no place yet
        return self.counters()["used_bytes"]

    def _parent(self, path):
        parent = os.path.dirname(path)
        if parent not in self.parents:
            self.parents[parent] = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
        return self.parents[parent]

    def clone(self, source, target):
        """The clone ioctl alone; the token is taken before."""
        parent = self._parent(target)
        fd = os.open(source, os.O_RDONLY)
        try:
            request = ioctl.clone_request(ioctl.token(fd), os.path.basename(target))
        finally:
            os.close(fd)
        start = time.perf_counter_ns()
        ioctl.clone(parent, request)
        return time.perf_counter_ns() - start

    def clone_process(self, source, target):
        return timed_process([self.caw, "clone", source, target])

    def remove(self, path):
        parent = self._parent(path)
        request = ioctl.remove_request(os.path.basename(path))
        if path in self.parents:
            os.close(self.parents.pop(path))
        start = time.perf_counter_ns()
        ioctl.remove(parent, request)
        return time.perf_counter_ns() - start

    def remove_process(self, path):
        return timed_process([self.caw, "rm", path])


class LoopMount(MountedFileSystem):
    format_command = ()
    mount_options = "loop"

    def format(self):
        run([*self.format_command, self.image])

    def mount(self):
        run(["mount", "-o", self.mount_options, self.image, self.root])


class XfsMount(LoopMount):
    name = "xfs"
    format_command = ("mkfs.xfs", "-q", "-f", "-m", "reflink=1")


class Ext4Mount(LoopMount):
    name = "ext4"
    format_command = ("mkfs.ext4", "-q", "-F")

    def clone(self, source, target):
        return timed_process(["cp", "-a", "--reflink=never", source, target])

    clone_process = clone


class BtrfsMount(LoopMount):
    """A clone is a snapshot of a subvolume, its best case."""
    name = "btrfs"
    format_command = ("mkfs.btrfs", "-q", "-f")

    def make_source(self, path):
        run(["btrfs", "subvolume", "create", path])

    def clone(self, source, target):
        return timed_process(["btrfs", "-q", "subvolume", "snapshot", source, target])

    clone_process = clone

    def remove(self, path):
        return timed_process(["btrfs", "-q", "subvolume", "delete", path])


class OverlayMount(Ext4Mount):
    """A clone is an overlay mount whose lower layers are the source's; the layers are on ext4."""
    name = "overlay"

    def __init__(self, work, size="16G"):
        super().__init__(work, size)
        self.layers = {}
        self.mounted = []

    def clone(self, source, target):
        lower = self.layers.get(source, source)
        if source in self.layers:
            lower = self.layers[source]
        upper = f"{target}.upper"
        for directory in (target, upper, f"{target}.work"):
            os.mkdir(directory)
        options = f"lowerdir={lower},upperdir={upper},workdir={target}.work"
        elapsed = timed_process(["mount", "-t", "overlay", "overlay", "-o", options, target])
        self.layers[target] = f"{upper}:{lower}"
        self.mounted.append(target)
        return elapsed

    clone_process = clone

    def remove(self, path):
        start = time.perf_counter_ns()
        run(["umount", path])
        self.mounted.remove(path)
        for directory in (path, f"{path}.upper", f"{path}.work"):
            shutil.rmtree(directory)
        return time.perf_counter_ns() - start

    def stop(self):
        for path in reversed(self.mounted):
            run(["umount", path])
        self.mounted = []
        super().stop()


class PlainDirectory(MountedFileSystem):
    """A directory of the host, clones by cp -a: to try out the scripts themselves."""
    name = "plain"

    def start(self):
        shutil.rmtree(self.root, ignore_errors=True)
        os.makedirs(self.root)

    def mount(self):
        pass

    def stop(self):
        shutil.rmtree(self.root)

    def remount(self):
        self.sync()

    def kill(self):
        pass

    def clone(self, source, target):
        start = time.perf_counter_ns()
        subprocess.run(["cp", "-a", source, target], stderr=subprocess.DEVNULL, check=False)
        return time.perf_counter_ns() - start

    clone_process = clone

    def remove_process(self, path):
        return self.remove(path)


PEERS = {c.name: c for c in (BtrfsMount, XfsMount, Ext4Mount, OverlayMount)}


def add_arguments(parser):
    parser.add_argument("--caw", help="the caw program; without it a plain directory is used")
    parser.add_argument("--dir", default="/var/tmp/cawbench", help="where images and mounts go")
    parser.add_argument("--output", help="write the result to this JSON file")
    parser.add_argument("--commit", default="", help="that caw was built from, if not HEAD")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply sizes and counts")
    parser.add_argument("--enforce-times", action="store_true",
                        help="fail on missed time bounds, too")
    parser.add_argument("--size", default="64G", help="size of the volume")


def scaled(number, scale, least=1):
    return max(least, int(number * scale))


def claim(directory):
    """Keeps other runs out of `directory` until this process ends: each begins by taking away the
    mounts and images it finds there."""
    fd = os.open(os.path.join(directory, ".claimed"), os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another run uses {directory}; choose another with --dir")


def subject(args, size=None, **options):
    """The file system the arguments name."""
    os.makedirs(args.dir, exist_ok=True)
    if args.dir not in claimed:
        claim(args.dir)
        claimed.add(args.dir)
    if not args.caw:
        return PlainDirectory(args.dir)
    if not os.path.exists("/dev/fuse") or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        print("skipped: /dev/fuse is not usable here", file=sys.stderr)
        sys.exit(SKIPPED)
    return CawMount(args.dir, args.caw, size=size or args.size, **options)
