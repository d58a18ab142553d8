#!/usr/bin/env python3
"""Many clones: a star of clones of one tree, and a chain of clones of clones with one small edit each.

First against last latency, space per clone, sampled clones read back after a remount, latency of
removal, time until the space is back; the same with the server killed while it reclaims.
"""

import argparse
import os
import random
import sys
import time

from benchlib import mounts, report, trees


def settled_used(fs):
    """Used bytes once nothing is left to reclaim (at most 30 s)."""
    deadline = time.monotonic() + 30
    while True:
        fs.sync()
        figures = fs.counters()
        if figures.get("dead_nodes", 0) == 0 and figures.get("reclaiming_bytes", 0) == 0:
            break
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return fs.used_bytes()


def space_limit(baseline):
    """1 % more; on the small volumes of quick runs 1 % would be less than a block."""
    return max(baseline * 1.01, baseline + 65536)


def wait_for_space(fs, baseline, limit=60):
    """Seconds until used space is within the limit, and the used bytes then."""
    start = time.monotonic()
    while True:
        used = fs.used_bytes()
        elapsed = time.monotonic() - start
        if used <= space_limit(baseline) or elapsed > limit:
            return elapsed, used
        time.sleep(0.1)


def first_and_last(result, label, latencies, ratio=1.5):
    part = max(1, len(latencies) // 20)
    first, last = report.median(latencies[:part]), report.median(latencies[-part:])
    figures = report.summary_us(latencies)
    result.series[f"{label}/latency"] = figures
    result.point(f"{label}: clone, median", figures["median_us"], "us", timed=True)
    result.point(f"{label}: clone, worst", figures["worst_us"], "us", timed=True)
    result.point(f"{label}: last {part} / first {part}", last / first, "", at_most=ratio, timed=True)


def verify(fs, root, count, edits, numbers=None):
    """Files of a clone that are not what they should be; `edits`: number -> 16 bytes at offset 8."""
    wrong = trees.verify_tree(root, count, numbers=numbers, edited=edits)
    for number, data in edits.items():
        expected = bytearray(trees.content(number, 64))
        expected[8:24] = data
        try:
            with open(os.path.join(root, trees.file_path(number)), "rb") as file:
                wrong += file.read() != bytes(expected)
        except OSError:
            wrong += 1
    return wrong


def make_star(fs, source, out, count):
    return [fs.clone(source, os.path.join(out, str(i))) for i in range(count)]


def make_chain(fs, source, out, count, files, rng):
    """Latencies and, for each clone, the edits made in it and its ancestors."""
    latencies, edits = [], []
    current, so_far = source, {}
    for index in range(count):
        target = os.path.join(out, str(index))
        latencies.append(fs.clone(current, target))
        number, data = rng.randrange(files), rng.randbytes(16)
        with open(os.path.join(target, trees.file_path(number)), "rb+", buffering=0) as file:
            file.seek(8)
            file.write(data)
        so_far = so_far | {number: data}
        edits.append(so_far)
        current = target
    return latencies, edits


def remove_all(fs, result, label, out, count, baseline, kill):
    order = list(range(count))
    random.Random(3).shuffle(order)
    latencies = [fs.remove(os.path.join(out, str(i))) for i in order[:count // 2]]
    if kill:
        fs.sync()       # so that reclaim of some is under way, and removal of others not durable
    latencies += [fs.remove(os.path.join(out, str(i))) for i in order[count // 2:]]
    figures = report.summary_us(latencies)
    result.series[f"{label}/removal"] = figures
    result.point(f"{label}: removal, median", figures["median_us"], "us", at_most=1000, timed=True)
    result.point(f"{label}: removal, worst", figures["worst_us"], "us", timed=True)
    if kill:
        fs.kill()
        fs.mount()
        left = os.listdir(out)
        gone = {str(i) for i in order[:count // 2]}
        result.point(f"{label}: removals that were durable and came back", len(gone & set(left)),
                     "", equals=0)
        for name in left:
            fs.remove(os.path.join(out, name))
    seconds, used = wait_for_space(fs, baseline)
    result.point(f"{label}: space back after", seconds, "s", at_most=30)
    result.point(f"{label}: used afterwards / before", used / max(1, baseline), "",
                 at_most=space_limit(baseline) / max(1, baseline))


def shape(fs, result, label, source, files, count, chain, kill, sampled):
    rng = random.Random(files + count)
    out = fs.path(f"out-{label}")
    os.mkdir(out)
    before = settled_used(fs)
    if chain:
        latencies, edits = make_chain(fs, source, out, count, files, rng)
    else:
        latencies, edits = make_star(fs, source, out, count), [{}] * count
    after = settled_used(fs)
    first_and_last(result, label, latencies)
    per_clone = (after - before) / count
    # A few clones also pay for what a thousand pay once: the merge of what was pending before.
    bound = 8 if count >= 500 else 8 + 256 / count
    result.point(f"{label}: space per clone", per_clone / 1024, "KiB",
                 **({} if chain else {"at_most": bound}))
    if kill:
        remove_all(fs, result, label, out, count, before, True)
        os.rmdir(out)
        return
    fs.remount()
    wrong = 0
    for index in sorted(rng.sample(range(count), min(sampled, count))):
        numbers = None if index == count - 1 else rng.sample(range(files), min(300, files))
        wrong += verify(fs, os.path.join(out, str(index)), files, edits[index], numbers)
    wrong += verify(fs, os.path.join(out, str(count - 1)), files, edits[-1])
    result.point(f"{label}: files of sampled clones that differ", wrong, "files", equals=0)
    numbers = [d.st_ino for d in (os.stat(os.path.join(out, str(i), trees.file_path(0)))
                                  for i in range(count))]
    result.point(f"{label}: inode numbers that repeat", len(numbers) - len(set(numbers)), "",
                 equals=0)
    remove_all(fs, result, label, out, count, before, False)
    os.rmdir(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    mounts.add_arguments(parser)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--clones", type=int, default=1000)
    parser.add_argument("--sampled", type=int, default=10)
    args = parser.parse_args()
    files = mounts.scaled(args.files, args.scale, 100)
    clones = mounts.scaled(args.clones, args.scale, 20)
    result = report.Report("many", args)
    with mounts.subject(args) as fs:
        source = fs.path("source")
        os.mkdir(source)
        trees.make_tree(source, files)
        fs.sync()
        for label, chain, kill in (("star", False, False), ("chain", True, False),
                                   ("star, killed", False, True), ("chain, killed", True, True)):
            shape(fs, result, label, source, files, clones, chain, kill, args.sampled)
        result.point("caw fsck finds", fs.check() or "nothing", equals="nothing")
        result.point("files of the source that differ", trees.verify_tree(source, files), "files",
                     equals=0)
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
