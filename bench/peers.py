#!/usr/bin/env python3
"""cawfs beside btrfs (snapshot of a subvolume), XFS (cp --reflink), ext4 (cp) and overlay mounts,
all on image files of the same disk: clone of a tree, removal of the clone, and the dirt test.

The whole process is timed for everybody (`caw clone`, `cp -a --reflink=always`, `btrfs subvolume
snapshot`, `mount -t overlay`), and the durable end of it by a sync afterwards.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time

import dirt
from benchlib import mounts, report, trees

PACKAGES = {"mkfs.btrfs": "btrfs-progs", "mkfs.xfs": "xfsprogs", "mkfs.ext4": "e2fsprogs"}


def install_missing():
    missing = [package for tool, package in PACKAGES.items() if not shutil.which(tool)]
    if missing and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", *missing], check=False,
                       stdout=subprocess.DEVNULL)


def tree_rows(fs, result, files, rounds):
    source = fs.path("source")
    fs.make_source(source)
    trees.make_tree(source, files, size=1024)
    fs.sync()
    clones, syncs, removals = [], [], []
    before = fs.used_bytes()
    for turn in range(rounds):
        clones.append(fs.clone_process(source, fs.path(f"c{turn}")))
        start = time.perf_counter_ns()
        fs.sync()
        syncs.append(time.perf_counter_ns() - start)
    used = (fs.used_bytes() - before) / rounds / 1024
    for turn in range(rounds):
        operation = getattr(fs, "remove_process", fs.remove)
        removals.append(operation(fs.path(f"c{turn}")))
    for name, values in (("clone", clones), ("sync after the clone", syncs),
                         ("removal of the clone", removals)):
        result.point(f"{fs.name}: {files} files, {name}, median",
                     report.median(values) / 1e6, "ms", timed=True)
    result.point(f"{fs.name}: {files} files, space per clone", used, "KiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    mounts.add_arguments(parser)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--clones", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default="cawfs,btrfs,xfs,ext4,overlay")
    parser.add_argument("--probe-every", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    install_missing()
    result = report.Report("peers", args)
    files = mounts.scaled(args.files, args.scale, 100)
    rounds = mounts.scaled(args.rounds, args.scale, 3)
    for name in args.only.split(","):
        def make(name=name):
            if name == "cawfs":
                return mounts.subject(args)
            return mounts.PEERS[name](args.dir)
        os.makedirs(args.dir, exist_ok=True)
        try:
            with make() as fs:
                tree_rows(fs, result, files, args.clones)
            if name != "overlay":       # its layers below layers end at some dozens
                with make() as fs:
                    dirt.chain(fs, result, args, mounts.scaled(4 << 20, args.scale, 65536), rounds,
                               0, f"{name}: dirt")
        except (RuntimeError, OSError) as error:
            result.note(f"{name}: {error}")
    # The bounds of the dirt test are for cawfs; peers are there for comparison only.
    for point in result.points:
        if not point["name"].startswith("cawfs"):
            point["ok"], point["bound"] = True, ""
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
