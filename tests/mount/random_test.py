"""Random operations on a mounted volume and on a plain directory beside it: never a difference.

A clone is `cp -a` in the plain directory, `caw rm` is `rm -rf`.  A failure prints the seed; run
`CAW=… python3 random_test.py SEED` to see it again.
"""
import os
import random
import shutil
import stat
import subprocess
import sys
import unittest

import bed

SEEDS = [int(argument) for argument in sys.argv[1:] if argument.isdigit()] or [1, 2]
OPERATIONS = 400
SMALL = ("--leaf-bytes", "4096", "--fanout", "4", "--buffer-bytes", "8192", "--run-bytes", "4096",
         "--floor-bytes", "512")


def snapshot(root):
    """path -> what must be the same on both sides."""
    out = {}
    for folder, folders, files in os.walk(root, onerror=bed.fail_to_read):
        for name in folders + files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            fields = [stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)]
            if stat.S_ISREG(status.st_mode):
                fields += [status.st_size, bed.read(path), status.st_nlink]
            elif stat.S_ISLNK(status.st_mode):
                fields.append(os.readlink(path))
            out[os.path.relpath(path, root)] = tuple(fields)
    return out


class Twin:
    """Does each operation on both sides, with the same outcome."""

    def __init__(self, volume, plain, choice):
        self.sides = (volume, plain)
        self.choice = choice
        self.caw_side = volume

    def both(self, call, *arguments):
        outcomes = []
        for side in self.sides:
            try:
                call(side, *arguments)
                outcomes.append(0)
            except OSError as error:
                outcomes.append(error.errno)
        if outcomes[0] != outcomes[1]:
            raise AssertionError(f"{call.__name__}{arguments}: errno {outcomes[0]}, "
                                 f"a plain directory has {outcomes[1]}")

    def paths(self, wanted):
        found = ["."] if wanted == "directory" else []
        for folder, folders, files in os.walk(self.sides[1]):
            for name in sorted(folders if wanted == "directory" else files):
                path = os.path.join(folder, name)
                if wanted == "directory" or not os.path.islink(path):
                    found.append(os.path.relpath(path, self.sides[1]))
        return sorted(found)

    def some(self, wanted):
        found = self.paths(wanted)
        return self.choice.choice(found) if found else None

    def new_name(self):
        return os.path.join(self.some("directory"), f"n{self.choice.randrange(12)}")


def op_write(twin):
    path = twin.some("file") if twin.choice.random() < 0.6 else None
    path = path or twin.new_name()
    offset = twin.choice.choice([0, 0, 100, 4096, 131_072 - 3, 300_000])
    data = twin.choice.randbytes(twin.choice.choice([1, 50, 4096, 20_000, 200_000]))

    def write(side):
        fd = os.open(os.path.join(side, path), os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(fd, data, offset)
        finally:
            os.close(fd)
    twin.both(write)


def op_truncate(twin):
    path = twin.some("file")
    size = twin.choice.choice([0, 1, 5000, 131_072, 250_000])
    if path:
        twin.both(lambda side: os.truncate(os.path.join(side, path), size))


def op_mkdir(twin):
    path = twin.new_name()
    twin.both(lambda side: os.mkdir(os.path.join(side, path)))


def op_symlink(twin):
    path = twin.new_name()
    twin.both(lambda side: os.symlink(f"to/{path}", os.path.join(side, path)))


def op_link(twin):
    source = twin.some("file")
    target = twin.new_name()
    if source:
        twin.both(lambda side: os.link(os.path.join(side, source), os.path.join(side, target)))


def op_unlink(twin):
    path = twin.some("file")
    if path:
        twin.both(lambda side: os.unlink(os.path.join(side, path)))


def op_rmdir(twin):
    path = twin.some("directory")
    if path != ".":
        twin.both(lambda side: os.rmdir(os.path.join(side, path)))


def op_rename(twin):
    source = twin.some(twin.choice.choice(["file", "directory"]))
    target = twin.new_name()
    if source and source != ".":
        twin.both(lambda side: os.rename(os.path.join(side, source), os.path.join(side, target)))


def op_chmod(twin):
    path = twin.some(twin.choice.choice(["file", "directory"]))
    mode = 0o700 | twin.choice.randrange(0o100)
    if path:
        twin.both(lambda side: os.chmod(os.path.join(side, path), mode))


def op_clone(twin):
    source = twin.some("directory" if twin.choice.random() < 0.8 else "file")
    target = twin.new_name()
    volume, plain = twin.sides
    if source is None or os.path.lexists(os.path.join(plain, target)):
        return
    if len(twin.paths("file")) > 400:
        return
    bed.ok("clone", os.path.join(volume, source), os.path.join(volume, target))
    aside = plain + ".aside"   # cp refuses to copy a directory into itself
    subprocess.run(["cp", "-a", os.path.join(plain, source), aside], check=True)
    os.rename(aside, os.path.join(plain, target))


def op_remove_tree(twin):
    path = twin.some("directory")
    if path != "." and twin.choice.random() < 0.5:
        bed.ok("rm", os.path.join(twin.sides[0], path))
        shutil.rmtree(os.path.join(twin.sides[1], path))


WEIGHTS = {op_write: 30, op_truncate: 5, op_mkdir: 12, op_symlink: 3, op_link: 8, op_unlink: 6,
           op_rmdir: 4, op_rename: 10, op_chmod: 4, op_clone: 10, op_remove_tree: 5}


class RandomOperations(unittest.TestCase):
    def run_seed(self, seed, mkfs):
        choice = random.Random(seed)
        volume = bed.Bed("1G", mkfs)
        self.addCleanup(volume.destroy)
        volume.mount()
        plain = os.path.join(volume.folder, "plain")
        os.mkdir(plain)
        twin = Twin(volume.dir, plain, choice)
        for step in range(OPERATIONS):
            operation = choice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            operation(twin)
            if step % 50 == 49:
                self.compare(volume, plain, seed, step)
            if step % 130 == 129:
                volume.umount()
                volume.check()
                volume.mount()
                self.compare(volume, plain, seed, step)
            if step % 170 == 169:
                bed.ok("sync", volume.dir)
                volume.kill()
                volume.mount()
                self.compare(volume, plain, seed, step)
        volume.umount()
        volume.check()

    def compare(self, volume, plain, seed, step):
        found, wanted = snapshot(volume.dir), snapshot(plain)
        if found == wanted:
            return
        different = [path for path in sorted(found.keys() | wanted.keys())
                     if found.get(path) != wanted.get(path)]
        self.fail(f"seed {seed}, step {step}: different: {different[:10]}")

    def test_seeds(self):
        for seed in SEEDS:
            for shape, mkfs in (("usual", ()), ("small", SMALL)):
                with self.subTest(seed=seed, shape=shape):
                    self.run_seed(seed, mkfs)


if __name__ == "__main__":
    sys.argv[1:] = [argument for argument in sys.argv[1:] if not argument.isdigit()]
    bed.main()
