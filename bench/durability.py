#!/usr/bin/env python3
"""What durability costs: fsync of a 4 KiB append, by one thread and by eight, beside ext4 on an
image file of the same disk and beside the directory that holds both; and how long a volume takes to
be mounted again after its server was killed under load.

The file systems take turns within a round, so that what else the machine does hits all alike.
"""

import argparse
import contextlib
import os
import random
import shutil
import sys
import threading
import time

from benchlib import mounts, report

BLOCK = os.urandom(4096)


class HostDirectory(mounts.PlainDirectory):
    name = "host"


def append_and_sync(path, count):
    """Nanoseconds that each fsync took."""
    taken = []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for _ in range(count):
            os.write(fd, BLOCK)
            start = time.perf_counter_ns()
            os.fsync(fd)
            taken.append(time.perf_counter_ns() - start)
    finally:
        os.close(fd)
    return taken


def rate_of(fs, threads, count):
    """Durable appends a second by so many threads, each to a file of its own."""
    workers = [threading.Thread(target=append_and_sync, args=(fs.path(f"t{number}"), count))
               for number in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return threads * count / (time.perf_counter() - start)


def measure_fsync(subjects, result, rounds, count, threads):
    single = {fs.name: [] for fs in subjects}
    alone = {fs.name: [] for fs in subjects}
    together = {fs.name: [] for fs in subjects}
    for fs in subjects:
        append_and_sync(fs.path("warm"), 20)
    for turn in range(rounds):
        for fs in subjects:
            single[fs.name] += append_and_sync(fs.path(f"f{turn}"), count)
        for fs in subjects:
            alone[fs.name].append(rate_of(fs, 1, count))
            together[fs.name].append(rate_of(fs, threads, count))
    medians = {name: report.median(taken) / 1000 for name, taken in single.items()}
    for name, taken in single.items():
        result.point(f"{name}: fsync of a 4 KiB append, median", medians[name], "us", timed=True)
        result.point(f"{name}: 99th percentile", report.percentile(taken, 0.99) / 1000, "us",
                     timed=True)
    if "ext4" in medians:
        result.point("cawfs / ext4, median", medians["cawfs"] / medians["ext4"], "", at_most=1.5,
                     timed=True)
    result.point("cawfs / host, median", medians["cawfs"] / medians["host"], "", timed=True)
    for name in medians:
        gain = report.median(together[name]) / report.median(alone[name])
        result.point(f"{name}: {threads} threads, durable appends a second",
                     report.median(together[name]), "1/s", timed=True)
        bound = {"at_least": 1.0} if name == "cawfs" else {}
        result.point(f"{name}: as many times those of one thread", gain, "", timed=True, **bound)


def make_small_files(root, stop, made):
    """Creates, writes, renames: many small records for the log."""
    number = 0
    try:
        while not stop.is_set():
            folder = os.path.join(root, str(number // 1000))
            if number % 1000 == 0:
                os.mkdir(folder)
            path = os.path.join(folder, str(number))
            with open(path, "wb") as file:
                file.write(BLOCK[:200])
            os.rename(path, path + ".done")
            number += 1
    except OSError:
        pass
    made.append(number)


def timed_mount(caw):
    start = time.perf_counter()
    caw.mount()
    return time.perf_counter() - start


def measure_recovery(caw, result, kills, choice):
    """Kills at any time of the cycle from checkpoint to checkpoint."""
    empty, taken = [], []
    for kill in range(kills):
        stop, made = threading.Event(), []
        root = caw.path(f"k{kill}")
        os.mkdir(root)
        worker = threading.Thread(target=make_small_files, args=(root, stop, made))
        worker.start()
        time.sleep(5 + 20 * choice.random())
        caw.kill()
        stop.set()
        worker.join()
        taken.append(timed_mount(caw))
        caw.stop()
        empty.append(timed_mount(caw))
    result.point("recovery after a kill under load, slowest", max(taken), "s", at_most=2,
                 timed=True)
    result.point("recovery after a kill under load, median", report.median(taken), "s", timed=True)
    result.point("mount after an orderly end, median", report.median(empty), "s", timed=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    mounts.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--count", type=int, default=50, help="appends a round and thread")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    result = report.Report("durability", args)
    with mounts.subject(args) as caw:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(HostDirectory(args.dir))]
            if shutil.which("mkfs.ext4"):
                peers.append(stack.enter_context(mounts.Ext4Mount(args.dir, "4G")))
            measure_fsync([caw, *peers], result, mounts.scaled(args.rounds, args.scale, 2),
                          args.count, args.threads)
        measure_recovery(caw, result, mounts.scaled(args.kills, args.scale, 2),
                         random.Random(args.seed))
        caw.check()
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
