#!/usr/bin/env python3
"""A volume much bigger than its cache: 1,000,000 files and 8 GiB with cache=64M, the server in a
memory cgroup of 512 MiB.  Filled, cloned, edited, scanned, verified; resident memory sampled; every
operation timed.
"""

import argparse
import os
import random
import sys
import threading
import time

from benchlib import mounts, report, trees

MIB = 1 << 20


class MemoryGroup:
    """A memory cgroup, of version 1 or 2, whichever has the controller."""

    def __init__(self, limit_bytes):
        self.directory = None
        name = f"cawbench-{os.getpid()}"
        for top, limit in (("/sys/fs/cgroup", "memory.max"),
                           ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
            directory = os.path.join(top, name)
            try:
                os.mkdir(directory)
            except OSError:
                continue
            try:
                with open(os.path.join(directory, limit), "r+") as file:   # must exist already
                    file.write(str(limit_bytes))
                self.directory = directory
                return
            except OSError:
                os.rmdir(directory)

    def wrapper(self):
        """Words to put before a command, to run it in the group."""
        if not self.directory:
            return []
        return ["sh", "-c", f'echo $$ > {self.directory}/cgroup.procs && exec "$@"', "sh"]

    def figure(self, *names):
        for name in names:
            try:
                with open(os.path.join(self.directory or "", name)) as file:
                    return int(file.read())
            except (OSError, ValueError):
                pass
        return 0

    def peak_bytes(self):
        return self.figure("memory.peak", "memory.max_usage_in_bytes")

    def close(self):
        if self.directory:
            try:
                os.rmdir(self.directory)
            except OSError:
                pass


def kernel_inodes():
    """FUSE inodes the kernel holds; 0 where it does not tell."""
    try:
        with open("/proc/slabinfo") as lines:
            return sum(int(l.split()[1]) for l in lines if l.startswith("fuse_inode"))
    except OSError:
        return 0


class Sampler(threading.Thread):
    """Resident memory of the server twice a second, with the inodes the kernel then holds."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid = pid
        self.samples = []
        self.done = threading.Event()

    def run(self):
        while not self.done.wait(0.5):
            try:
                with open(f"/proc/{self.pid}/status") as lines:
                    rss = next(int(l.split()[1]) * 1024 for l in lines if l.startswith("VmRSS"))
            except (OSError, StopIteration):
                return
            self.samples.append((round(time.monotonic(), 1), rss, kernel_inodes()))


class Timed:
    """Times operations by kind."""

    def __init__(self):
        self.worst = {}
        self.late = {}
        self.count = 0

    def __call__(self, kind, function, *args):
        start = time.perf_counter_ns()
        value = function(*args)
        elapsed = time.perf_counter_ns() - start
        self.count += 1
        if elapsed > self.worst.get(kind, 0):
            self.worst[kind] = elapsed
        if elapsed > 100_000_000:
            self.late[kind] = self.late.get(kind, 0) + 1
        return value


def sizes(mean):
    """Many small files, some big ones: mean size about `mean`."""
    def size_of(number):
        kind = number % 16
        if kind == 0:
            return min(MIB, mean * 8 + number % 997)
        if kind < 4:
            return mean * 5 // 4 + number % 97
        return mean * 17 // 48 + number % 31
    return size_of


def fill(fs, top, count, size_of, timed):
    made = set()
    for number in range(count):
        path = os.path.join(top, trees.file_path(number))
        parent = os.path.dirname(path)
        if parent not in made:
            timed("mkdir", lambda p=parent: os.makedirs(p, exist_ok=True))
            made.add(parent)
        fd = timed("create", os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        timed("write", os.write, fd, trees.content(number, size_of(number)))
        timed("close", os.close, fd)


def edit(fs, top, count, size_of, edits, timed):
    """Overwrites 16 bytes in `edits` random files; returns number -> (offset, bytes)."""
    rng = random.Random(11)
    done = {}
    for number in rng.sample(range(count), edits):
        offset, data = rng.randrange(max(1, size_of(number) - 16)), rng.randbytes(16)
        fd = timed("open", os.open, os.path.join(top, trees.file_path(number)), os.O_WRONLY)
        timed("overwrite", os.pwrite, fd, data, offset)
        timed("close", os.close, fd)
        done[number] = (offset, data)
    return done


def check(top, numbers, size_of, edits, timed):
    wrong = 0
    for number in numbers:
        expected = trees.content(number, size_of(number))
        if number in edits:
            offset, data = edits[number]
            changed = bytearray(expected)
            changed[offset:offset + 16] = data
            expected = bytes(changed)
        try:
            fd = timed("open", os.open, os.path.join(top, trees.file_path(number)), os.O_RDONLY)
            wrong += timed("read", os.read, fd, len(expected) + 1) != expected
            timed("close", os.close, fd)
        except OSError:
            wrong += 1
    return wrong


def memory_points(result, sampler, group, cache):
    worst_over = max((rss - (cache + 150 * MIB) - 200 * inodes
                      for _, rss, inodes in sampler.samples), default=0)
    result.point("resident memory, worst", max((s[1] for s in sampler.samples), default=0) / MIB,
                 "MiB")
    result.point("inodes held by the kernel, most", max((s[2] for s in sampler.samples), default=0))
    result.point("resident memory over cache + 150 MiB + 200 B/inode", worst_over / MIB, "MiB",
                 at_most=0)
    result.point("cgroup peak", group.peak_bytes() / MIB, "MiB", at_most=512)
    result.series["rss"] = sampler.samples[::max(1, len(sampler.samples) // 500)]


def workload(fs, result, count, size_of, timed):
    start = time.monotonic()
    top = fs.path("tree")
    os.mkdir(top)
    fill(fs, top, count, size_of, timed)
    result.point("fill", time.monotonic() - start, "s", timed=True)
    total = sum(size_of(n) for n in range(count))
    result.point("files", count)
    result.point("bytes", total / (1 << 30), "GiB")

    clone = fs.path("clone")
    result.point("clone", fs.clone(top, clone) / 1000, "us", timed=True)
    start = time.monotonic()
    edits = edit(fs, clone, count, size_of, max(1, count // 50), timed)
    result.point("edit 2 % of the files of the clone", time.monotonic() - start, "s", timed=True)
    fs.sync()

    start = time.monotonic()
    files, read, _ = trees.scan_tree(clone)
    seconds = time.monotonic() - start
    result.point("scan of the clone", seconds, "s", timed=True)
    result.point("scan: files seen", files, "files", equals=count)
    result.point("scan: bytes seen", read, "bytes", equals=total)

    start = time.monotonic()
    wrong = check(top, range(count), size_of, {}, timed)
    result.point("verify every file of the source", time.monotonic() - start, "s", timed=True)
    result.point("files of the source that differ", wrong, "files", equals=0)
    numbers = sorted(set(edits) | set(random.Random(5).sample(range(count), max(1, count // 20))))
    result.point("files of the clone that differ", check(clone, numbers, size_of, edits, timed),
                 "files", equals=0)
    result.point("removal of the clone", fs.remove(clone) / 1000, "us", timed=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    mounts.add_arguments(parser)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--gib", type=float, default=8)
    parser.add_argument("--cache-mib", type=int, default=64)
    parser.add_argument("--limit-mib", type=int, default=512)
    args = parser.parse_args()
    count = mounts.scaled(args.files, args.scale, 200)
    size_of = sizes(int(args.gib * args.scale * (1 << 30) / count))
    result = report.Report("bigger_than_memory", args)
    group = MemoryGroup(args.limit_mib * MIB)
    if not group.directory:
        result.note("no memory cgroup to be had here: only resident memory is watched")
    timed = Timed()
    options = dict(mount_options=f"cache={args.cache_mib}M", wrapper=group.wrapper())
    try:
        with mounts.subject(args, **(options if args.caw else {})) as fs:
            sampler = Sampler(fs.pid() if args.caw else os.getpid())
            sampler.start()
            workload(fs, result, count, size_of, timed)
            sampler.done.set()
            sampler.join()
            if args.caw:
                result.series["counters"] = fs.counters()
                result.point("caw fsck finds", fs.check() or "nothing", equals="nothing")
                memory_points(result, sampler, group, args.cache_mib * MIB)
        for kind, worst in sorted(timed.worst.items()):
            result.point(f"worst {kind}", worst / 1e6, "ms", at_most=100, timed=True)
        result.point("operations timed", timed.count)
        result.point("operations over 100 ms", sum(timed.late.values()), "", equals=0, timed=True)
    finally:
        group.close()
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
