#!/usr/bin/env python3
"""Latency of a clone by size of the source: the ioctl alone and the whole `caw clone` process, warm
and cold, with dirty data elsewhere, and with four writers in the source.

Trees take turns, so that a drift of the machine meets all of them alike.
"""

import argparse
import mmap
import os
import random
import sys
import time

from benchlib import mounts, report, trees

SIZES = (10, 1_000, 10_000, 100_000, 1_000_000)


def series(fs, names, rounds, label, process=False):
    """Clones each tree `rounds` times; name -> nanoseconds.  The clones are removed afterwards."""
    operation = fs.clone_process if process else fs.clone
    out = fs.path(f"out-{label}")
    os.mkdir(out)
    operation(fs.path(names[0]), os.path.join(out, "warm-up"))
    result = {name: [] for name in names}
    for turn in range(rounds):
        for name in names:
            result[name].append(operation(fs.path(name), os.path.join(out, f"{name}-{turn}")))
    for entry in os.listdir(out):
        fs.remove(os.path.join(out, entry))
    os.rmdir(out)
    return result


def add_points(result, label, latencies, first=None, ratio=None, worst=True):
    for name, values in latencies.items():
        figures = report.summary_us(values)
        result.series[f"{label}/{name}"] = figures
        result.point(f"{label}: {name} files, median", figures["median_us"], "us",
                     at_most=first, timed=True)
        if worst:
            result.point(f"{label}: {name} files, worst", figures["worst_us"], "us", timed=True)
    if ratio:
        medians = [report.median(v) for v in latencies.values()]
        result.point(f"{label}: largest tree / smallest", medians[-1] / medians[0], "",
                     at_most=ratio, timed=True)


def cold(fs, names, rounds, result):
    """First clone after a mount: latency and node reads of each."""
    reads = {name: [] for name in names}
    latencies = {name: [] for name in names}
    out = fs.path("out-cold")
    os.mkdir(out)
    for turn in range(rounds):
        for name in names:
            fs.remount()
            before = fs.counters()
            latencies[name].append(fs.clone(fs.path(name), os.path.join(out, f"{name}-{turn}")))
            after = fs.counters()
            reads[name].append(after.get("node_reads", 0) - before.get("node_reads", 0))
    for entry in os.listdir(out):
        fs.remove(os.path.join(out, entry))
    os.rmdir(out)
    add_points(result, "cold ioctl", latencies)
    result.series["cold/node_reads"] = reads
    for name in names:
        result.point(f"cold: {name} files, node reads, median", report.median(reads[name]), "nodes")
    # A node more on the way down has its skeleton, a leaf, and up to 24 runs that hold names.
    result.point("cold: node reads, largest tree - smallest",
                 report.median(reads[names[-1]]) - report.median(reads[names[0]]), "nodes",
                 at_most=32)


def with_dirty(fs, names, rounds, mebibytes, result):
    path = fs.path("dirty")
    with open(path, "wb+") as file:
        for block in range(mebibytes):
            file.write(trees.content(block, 1 << 20))
        file.flush()
        add_points(result, f"{mebibytes} MiB written elsewhere",
                   series(fs, names, rounds, "written"), first=100, ratio=1.5)
        with mmap.mmap(file.fileno(), mebibytes << 20) as view:
            for offset in range(0, mebibytes << 20, 4096):
                view[offset] = (view[offset] + 1) & 255
            add_points(result, f"{mebibytes} MiB mmap-dirty elsewhere",
                       series(fs, names, rounds, "mmapped"), first=100, ratio=1.5)
    os.unlink(path)


def writer(root, seed):
    """Creates, overwrites, renames and removes files in the tree until killed."""
    rng = random.Random(seed)
    mine = os.path.join(root, f"writer{seed}")
    os.makedirs(mine, exist_ok=True)
    number = 0
    while True:
        number += 1
        path = os.path.join(mine, str(number % 500))
        with open(path, "wb", buffering=0) as file:
            file.write(trees.content(number, rng.randrange(1, 20_000)))
        if number % 3 == 0:
            os.rename(path, path + ".new")
        if number % 7 == 0:
            os.unlink(path + ".new" if number % 3 == 0 else path)


def with_writers(fs, name, rounds, result):
    children = []
    latencies = []
    ended = 0
    out = fs.path("out-writers")
    os.mkdir(out)
    try:
        for seed in range(4):
            child = os.fork()
            if child == 0:
                try:
                    writer(fs.path(name), seed)
                except OSError as error:
                    print(f"writer: {error}", file=sys.stderr)
                os._exit(1)
            children.append(child)
        time.sleep(1)
        for turn in range(rounds):
            latencies.append(fs.clone(fs.path(name), os.path.join(out, str(turn))))
            time.sleep(0.01)
    finally:
        for child in children:
            if os.waitpid(child, os.WNOHANG)[0] != 0:
                ended += 1
            else:
                os.kill(child, 9)
                os.waitpid(child, 0)
    result.point("writers that failed", ended, "", equals=0)
    add_points(result, "four writers in the source", {name: latencies}, first=1000)
    for entry in os.listdir(out):
        fs.remove(os.path.join(out, entry))
    os.rmdir(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    mounts.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--cold-rounds", type=int, default=5)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    args = parser.parse_args()
    sizes = [mounts.scaled(int(s), args.scale, 10) for s in args.sizes.split(",")]
    sizes = sorted(set(sizes))
    rounds = mounts.scaled(args.rounds, args.scale, 10)
    result = report.Report("clone_latency", args)
    with mounts.subject(args) as fs:
        names = [str(size) for size in sizes]
        for size in sizes:
            start = time.monotonic()
            os.mkdir(fs.path(str(size)))
            trees.make_tree(fs.path(str(size)), size)
            result.point(f"made {size} files", time.monotonic() - start, "s", timed=True)
        fs.sync()
        time.sleep(1)
        add_points(result, "warm ioctl", series(fs, names, rounds, "warm"), first=100, ratio=1.5)
        add_points(result, "warm process", series(fs, names, rounds, "process", process=True))
        cold(fs, names, mounts.scaled(args.cold_rounds, args.scale, 2), result)
        with_dirty(fs, names, rounds, mounts.scaled(256, args.scale, 4), result)
        with_writers(fs, names[min(3, len(names) - 1)], rounds, result)
        result.point("caw fsck finds", fs.check() or "nothing", equals="nothing")
        wrong = trees.verify_tree(fs.path(names[-1]), sizes[-1],
                                  numbers=random.Random(1).sample(range(sizes[-1]),
                                                                  min(200, sizes[-1])))
        result.point("sampled files of the largest tree that differ", wrong, "files", equals=0)
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
