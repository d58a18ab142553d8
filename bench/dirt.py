#!/usr/bin/env python3
"""The dirt test: 64 files of 4 MiB in 8 directories; in each round clone the last clone, write to
every file of the new one, make it durable.  Latency and space per round; now and then cold
sequential reads of the newest and the first clone against a fresh copy of the same data.

--rewrite 0 writes 16 bytes per file and round; --rewrite P writes P percent of the bytes of every
file, in aligned 4 KiB pieces at random places.  --sweep runs several values of alpha.
"""

import argparse
import os
import random
import shutil
import sys
import time

from benchlib import mounts, report, trees

FILES, DIRECTORIES = 64, 8


def file_names():
    return [f"d{number % DIRECTORIES}/f{number:02d}" for number in range(FILES)]


def make_source(fs, top, file_bytes, seed):
    rng = random.Random(seed)
    fs.make_source(top)
    for directory in range(DIRECTORIES):
        os.mkdir(os.path.join(top, f"d{directory}"))
    for name in file_names():
        with open(os.path.join(top, name), "wb") as file:
            file.write(rng.randbytes(file_bytes))


def dirty(top, rng, file_bytes, percent, model):
    """One round of writes; `model` (name -> bytearray) follows, if given."""
    pieces = 1 if percent == 0 else max(1, file_bytes * percent // 100 // 4096)
    for name in file_names():
        fd = os.open(os.path.join(top, name), os.O_WRONLY)
        try:
            places = ([rng.randrange(file_bytes - 16)] if percent == 0 else
                      [p * 4096 for p in rng.sample(range(file_bytes // 4096), pieces)])
            for place in places:
                data = rng.randbytes(16 if percent == 0 else 4096)
                os.pwrite(fd, data, place)
                if model is not None:
                    model[name][place:place + len(data)] = data
            os.fsync(fd)
        finally:
            os.close(fd)


def copy_tree(source, target):
    """A fresh copy, sharing nothing: plain reads and writes."""
    os.mkdir(target)
    for directory in range(DIRECTORIES):
        os.mkdir(os.path.join(target, f"d{directory}"))
    for name in file_names():
        with open(os.path.join(target, name), "wb") as out:
            for data in trees.read_all(os.path.join(source, name)):
                out.write(data)


def cold_read(fs, top):
    """Seconds of a sequential read of all files, nothing cached; and what the store read for it."""
    fs.remount()
    before = fs.counters()
    start = time.perf_counter()
    for name in file_names():
        for _ in trees.read_all(os.path.join(top, name)):
            pass
    elapsed = time.perf_counter() - start
    after = fs.counters()
    read = sum(after.get(k, 0) - before.get(k, 0) for k in ("node_read_bytes", "blob_read_bytes"))
    return elapsed, read


def probe(fs, first, newest, repeats):
    """Cold reads of first, newest and a fresh copy of newest; the copy is removed again."""
    fresh = fs.path("fresh")
    copy_tree(newest, fresh)
    fs.sync()
    result = {}
    for _ in range(repeats):
        for key, top in (("fresh", fresh), ("newest", newest), ("first", first)):
            seconds, read = cold_read(fs, top)
            old = result.get(key, (seconds, read))
            result[key] = (min(seconds, old[0]), min(read, old[1]))
    if isinstance(fs, mounts.CawMount):
        fs.remove(fresh)
    else:
        shutil.rmtree(fresh)
    fs.sync()
    return result


def verify(top, model):
    wrong = 0
    for name, data in model.items():
        with open(os.path.join(top, name), "rb") as file:
            wrong += file.read() != bytes(data)
    return wrong


def chain(fs, result, args, file_bytes, rounds, percent, label):
    """One run; returns rows (round, clone us, KiB added, newest/fresh, first/fresh, by bytes)."""
    rng = random.Random(percent + 1)
    source = fs.path("0")
    make_source(fs, source, file_bytes, 7)
    model = {}
    for name in file_names():
        with open(os.path.join(source, name), "rb") as file:
            model[name] = bytearray(file.read())
    original = {name: bytes(data) for name, data in model.items()}
    fs.sync()
    rows, probes = [], []
    used_first = used = fs.used_bytes()
    for turn in range(1, rounds + 1):
        newest = fs.path(str(turn))
        nanoseconds = fs.clone(fs.path(str(turn - 1)), newest)
        dirty(newest, rng, file_bytes, percent, model)
        fs.sync()
        now = fs.used_bytes()
        row = [turn, nanoseconds / 1000, (now - used) / 1024, "", "", "", ""]
        used = now
        if turn == 1 or turn == rounds or turn % args.probe_every == 0:
            figures = probe(fs, source, newest, args.repeats)
            row[3:5] = [figures[k][0] / figures["fresh"][0] for k in ("newest", "first")]
            if figures["fresh"][1]:
                row[5:7] = [figures[k][1] / figures["fresh"][1] for k in ("newest", "first")]
            probes.append(row)
            settle(fs, used)
            used = fs.used_bytes()
        rows.append(row)
    points(fs, result, args, label, rows, probes, percent, file_bytes,
           (used - used_first) / 1024 / rounds)
    if isinstance(fs, mounts.CawMount):
        result.point(f"{label}: caw fsck finds", fs.check() or "nothing", equals="nothing")
    result.point(f"{label}: files of the newest clone that differ",
                 verify(fs.path(str(rounds)), model), "files", equals=0)
    result.point(f"{label}: files of the source that differ", verify(source, original), "files",
                 equals=0)
    return rows


def settle(fs, target):
    """Waits (at most 10 s) for the space of a removed copy."""
    deadline = time.monotonic() + 10
    while fs.used_bytes() > target + (1 << 20) and time.monotonic() < deadline:
        time.sleep(0.1)
        fs.sync()


def points(fs, result, args, label, rows, probes, percent, file_bytes, settled):
    latencies = [row[1] for row in rows]
    part = max(1, len(rows) // 10)
    result.series[label] = rows
    result.point(f"{label}: clone, median", report.median(latencies), "us", timed=True)
    result.point(f"{label}: clone, worst", max(latencies), "us", timed=True)
    result.point(f"{label}: clone, last {part} / first {part} rounds",
                 report.median(latencies[-part:]) / report.median(latencies[:part]), "",
                 at_most=1.5, timed=True)
    bound = 64 if percent == 0 else None
    result.point(f"{label}: space per round, settled", settled, "KiB", at_most=bound)
    if percent:
        written = FILES * file_bytes * percent / 100 / 1024
        result.point(f"{label}: space added / bytes written", settled / written, "")
    for column, name in ((3, "newest"), (4, "first")):
        values = [row[column] for row in probes]
        result.point(f"{label}: cold read {name} / fresh, median", report.median(values), "",
                     at_most=1.2, timed=True)
        result.point(f"{label}: cold read {name} / fresh, worst", max(values), "", timed=True)
        counted = [row[column + 2] for row in probes if row[column + 2] != ""]
        if counted:
            result.point(f"{label}: bytes read {name} / fresh, worst", max(counted), "",
                         at_most=1.2)


def curves(path, results):
    """Space and read curves; `results`: label -> rows."""
    space = {l: [(r[0], max(0.0, r[2])) for r in rows] for l, rows in results.items()}
    total = {}
    for label, rows in results.items():
        sum_kib, line = 0, []
        for row in rows:
            sum_kib += row[2]
            line.append((row[0], max(0.0, sum_kib / 1024)))
        total[label] = line
    newest = {l: [(r[0], r[3]) for r in rows if r[3] != ""] for l, rows in results.items()}
    first = {l: [(r[0], r[4]) for r in rows if r[4] != ""] for l, rows in results.items()}
    report.write_svg(path, "dirt test", "round",
                     [("KiB added in the round", space), ("MiB added in all", total),
                      ("cold read: newest / fresh copy", newest),
                      ("cold read: first / fresh copy", first)])


def shape_options(numerator, denominator):
    """mkfs's options for this alpha, with the buffer that F * alpha * s <= B then asks for."""
    buffer = 32 * 128 * 1024 * numerator // denominator
    return ["--alpha-num", str(numerator), "--alpha-den", str(denominator),
            "--buffer-bytes", str(buffer)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    mounts.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--file-mib", type=float, default=4)
    parser.add_argument("--rewrite", default="0", help="percentages, comma-separated")
    parser.add_argument("--probe-every", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=2,
                        help="cold reads per probe; the best counts")
    parser.add_argument("--sweep", default="", help="values of alpha, e.g. 1/16,1/8,1/6,1/4")
    parser.add_argument("--curves", help="write curves to this SVG and the rows beside it as CSV")
    args = parser.parse_args()
    file_bytes = mounts.scaled(int(args.file_mib * (1 << 20)), args.scale, 64 * 1024)
    rounds = mounts.scaled(args.rounds, args.scale, 3)
    result = report.Report("dirt", args)
    results = {}
    for alpha in args.sweep.split(",") if args.sweep else [""]:
        numerator, _, denominator = alpha.partition("/")
        options = {"mkfs_options": shape_options(int(numerator), int(denominator))} if alpha else {}
        for percent in [int(p) for p in args.rewrite.split(",")]:
            label = "16 bytes" if percent == 0 else f"{percent} %"
            if alpha:
                label = f"alpha {alpha}, {label}"
            with mounts.subject(args, **options) as fs:
                results[label] = chain(fs, result, args, file_bytes, rounds, percent, label)
    if args.curves:
        curves(args.curves, results)
        report.write_csv(os.path.splitext(args.curves)[0] + ".csv",
                         ["run", "round", "clone_us", "kib_added", "read_newest_to_fresh",
                          "read_first_to_fresh", "bytes_newest_to_fresh", "bytes_first_to_fresh"],
                         [[label, *row] for label, rows in results.items() for row in rows])
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
