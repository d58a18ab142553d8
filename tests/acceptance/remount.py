#!/usr/bin/env python3
"""After a clean unmount and mount the manifests of all trees are equal to those before: path, type,
mode, owner, size, mtime, link count, checksum and inode number.
"""

import argparse
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench"))
from benchlib import mounts, report, trees  # noqa: E402


def populate(top, files, rng):
    """Files of many sizes with all the attributes a manifest shows; every kind of file."""
    os.makedirs(top)
    for number in range(files):
        path = os.path.join(top, trees.file_path(number, 20))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        size = rng.choice((0, 1, 100, 4095, 4096, 16384, 16385, 70_000, 131_072, 131_073, 500_000))
        with open(path, "wb") as file:
            file.write(trees.content(number, size))
        os.chmod(path, rng.choice((0o600, 0o644, 0o755, 0o4755, 0o000)))
        if os.geteuid() == 0:
            os.chown(path, rng.randrange(70_000), rng.randrange(70_000))
        os.utime(path, ns=(rng.randrange(2**60), rng.randrange(2**60)))
    os.symlink("some/where", os.path.join(top, "link"))
    os.symlink("x" * 4000, os.path.join(top, "long link"))
    os.mkfifo(os.path.join(top, "fifo"))
    os.mkdir(os.path.join(top, "empty"), 0o700)
    with open(os.path.join(top, "n" * 255), "wb") as file:
        file.write(b"long name")
    with open(os.path.join(top, os.fsdecode(bytes(range(1, 47)) + b"0\xff\xfe")), "wb") as file:
        file.write(b"odd name")
    with open(os.path.join(top, "sparse"), "wb") as file:
        file.seek(10_000_000)
        file.write(b"end")
        file.truncate(20_000_000)


def change(fs, rng, count):
    """Clones, edits on both sides, renames, removals."""
    names = ["t0"]
    for number in range(1, count):
        source, name = rng.choice(names), f"t{number}"
        fs.clone(fs.path(source), fs.path(name))
        names.append(name)
        for name in (source, name):
            top = fs.path(name)
            directory = os.path.join(top, rng.choice(sorted(os.listdir(top))))
            if not os.path.isdir(directory) or os.path.islink(directory):
                continue
            with open(os.path.join(directory, f"new{number}"), "wb") as file:
                file.write(trees.content(number, 3000))
            moved = os.path.join(top, f"moved{number}")
            if rng.random() < 0.5 and not os.path.exists(moved):
                os.rename(directory, moved)
    inner = fs.path("t0", "a clone inside")
    fs.clone(fs.path("t1"), inner)
    fs.clone(fs.path("t0"), fs.path("outer"))
    fs.remove(fs.path("t2"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    mounts.add_arguments(parser)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--clones", type=int, default=12)
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    rng = random.Random(2)
    result = report.Report("remount", args)
    with mounts.subject(args) as fs:
        populate(fs.path("t0"), mounts.scaled(args.files, args.scale, 60), rng)
        change(fs, rng, args.clones)
        before = trees.manifest(fs.root)
        result.point("paths", len(before), at_least=100)
        numbers = [entry[-1] for entry in before.values()]
        result.point("inode numbers that repeat", len(numbers) - len(set(numbers)), equals=0)
        for turn in range(args.times):
            fs.remount()
            after = trees.manifest(fs.root)
            count, some = trees.differences(before, after)
            result.point(f"differences after remount {turn + 1}", count, equals=0)
            for line in some:
                result.note(line)
            with open(fs.path(f"extra{turn}"), "wb") as file:
                file.write(b"more")
            before = trees.manifest(fs.root)
        result.point("caw fsck finds", fs.check() or "nothing", equals="nothing")
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
