#!/usr/bin/env python3
"""Bad inputs: one clear sentence, the right exit code, nothing harmed.  And a flipped bit in any
block: EIO on what it touches, never wrong data, everything else as before.
"""

import argparse
import errno
import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench"))
from benchlib import mounts, report, trees  # noqa: E402

BLOCK = 4096


def digest(path):
    check = hashlib.blake2b()
    for data in trees.read_all(path):
        check.update(data)
    return check.hexdigest()


class Cases:
    def __init__(self, args, result):
        self.caw = os.path.abspath(args.caw)
        self.work = os.path.join(os.path.abspath(args.dir), "bad")
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(os.path.join(self.work, "mnt"))
        self.mnt = os.path.join(self.work, "mnt")
        self.result = result

    def path(self, name):
        return os.path.join(self.work, name)

    def caw_run(self, *words, prefix=()):
        return subprocess.run([*prefix, self.caw, *words], capture_output=True, text=True,
                              timeout=60, check=False, stdin=subprocess.DEVNULL)

    def refused(self, name, words, code=1, prefix=(), unharmed=None):
        """The command fails with `code` and one sentence; the file `unharmed` keeps its bytes."""
        before = digest(unharmed) if unharmed else None
        done = self.caw_run(*words, prefix=prefix)
        lines = [l for l in done.stderr.strip().split("\n") if l]
        sentence = bool(lines) and lines[0].startswith("caw") and ":" in lines[0]
        few = len(lines) == 1
        ok = done.returncode == code and sentence and few
        if os.path.ismount(self.mnt):
            self.caw_run("umount", self.mnt)
            ok = False
        self.result.point(f"{name}: refused with one sentence, exit {code}", ok, equals=True)
        self.result.note((lines or ["(no message)"])[0].replace(self.work + "/", "") +
                         ("" if ok else f" [exit {done.returncode}, {len(lines)} lines]"))
        if unharmed:
            self.result.point(f"{name}: nothing harmed", digest(unharmed) == before, equals=True)

    def mkfs(self, name, size):
        image = self.path(name)
        if os.path.exists(image):
            os.unlink(image)
        mounts.run([self.caw, "mkfs", "--size", size, image])
        return image

    def mount(self, image, options=""):
        mounts.run([self.caw, "mount", *(["-o", options] if options else []), image, self.mnt])

    def umount(self):
        mounts.run([self.caw, "umount", self.mnt])


def not_a_volume(cases):
    path = cases.path("text")
    with open(path, "w") as file:
        file.write("just some text\n" * 100_000)
    cases.refused("a text file", ["mount", path, cases.mnt], unharmed=path)
    path = cases.path("empty")
    with open(path, "wb"):
        pass
    cases.refused("an empty file", ["mount", path, cases.mnt], unharmed=path)
    path = cases.path("zeros")
    with open(path, "wb") as file:
        file.truncate(64 << 20)
    cases.refused("a file of zeros", ["mount", path, cases.mnt], unharmed=path)
    cases.refused("a missing file", ["mount", cases.path("absent"), cases.mnt])
    cases.refused("a directory", ["mount", cases.work, cases.mnt])


def damaged_superblocks(cases):
    image = cases.mkfs("volume", "64M")
    size = os.path.getsize(image)
    os.truncate(image, size // 2 // BLOCK * BLOCK)
    cases.refused("a truncated volume", ["mount", image, cases.mnt], unharmed=image)
    os.truncate(image, 5000)
    cases.refused("a volume of 5000 bytes", ["mount", image, cases.mnt], unharmed=image)
    image = cases.mkfs("volume", "64M")
    for block in (0, 1):
        flip(image, block * BLOCK + 100)
    cases.refused("both superblocks damaged", ["mount", image, cases.mnt], unharmed=image)


def mounted_twice(cases):
    image = cases.mkfs("volume", "64M")
    cases.mount(image)
    with open(os.path.join(cases.mnt, "file"), "w") as file:
        file.write("hello")
    other = cases.path("other")
    os.makedirs(other, exist_ok=True)
    done = cases.caw_run("mount", image, other)
    one_line = len([l for l in done.stderr.strip().split("\n") if l]) == 1
    cases.result.point("a second mount: refused with one sentence, exit 1",
                       done.returncode == 1 and one_line and not os.path.ismount(other),
                       equals=True)
    cases.result.note(done.stderr.strip().replace(cases.work + "/", ""))
    done = cases.caw_run("mkfs", "--size", "64M", "--force", image)
    cases.result.point("mkfs of a mounted image: refused", done.returncode, equals=1)
    with open(os.path.join(cases.mnt, "file")) as file:
        cases.result.point("a second mount: the first goes on", file.read(), equals="hello")
    cases.umount()
    cases.refused("mkfs over a volume without --force", ["mkfs", "--size", "64M", image],
                  unharmed=image)


def full_disk(cases):
    """A full volume says ENOSPC, keeps what it has, and can be cleaned up."""
    image = cases.mkfs("full", "64M")
    cases.mount(image)
    kept = os.path.join(cases.mnt, "kept")
    with open(kept, "wb") as file:
        file.write(trees.content(1, 300_000))
    written, failure = 0, None
    os.mkdir(os.path.join(cases.mnt, "fill"))
    try:
        for number in range(10_000):
            with open(os.path.join(cases.mnt, "fill", str(number)), "wb", buffering=0) as file:
                written += file.write(trees.content(number, 100_000))
                os.fsync(file.fileno())
    except OSError as error:
        failure = errno.errorcode[error.errno]
    cases.result.point("a full volume says", failure, equals="ENOSPC")
    cases.result.point("a full volume: taken before that", written / (1 << 20), "MiB", at_least=32)
    with open(kept, "rb") as file:
        cases.result.point("a full volume: old data", file.read() == trees.content(1, 300_000),
                           equals=True)
    done = cases.caw_run("rm", os.path.join(cases.mnt, "fill"))
    cases.result.point("a full volume: caw rm", done.returncode, equals=0)
    for _ in range(20):
        cases.caw_run("sync", cases.mnt)
        if os.statvfs(cases.mnt).f_bavail * os.statvfs(cases.mnt).f_frsize > 30 << 20:
            break
        time.sleep(0.5)
    with open(os.path.join(cases.mnt, "again"), "wb") as file:
        file.write(trees.content(2, 1_000_000))
    cases.umount()
    cases.mount(image)
    with open(os.path.join(cases.mnt, "again"), "rb") as file:
        cases.result.point("a full volume: usable after removal",
                           file.read() == trees.content(2, 1_000_000), equals=True)
    cases.umount()


def full_host(cases):
    """A sparse image on a full host disk."""
    if os.geteuid() != 0:
        cases.result.note("not root: full host disk not tried")
        return
    host = cases.path("host")
    os.makedirs(host, exist_ok=True)
    mounts.run(["mount", "-t", "tmpfs", "-o", "size=96M", "tmpfs", host])
    try:
        image = os.path.join(host, "image")
        mounts.run([cases.caw, "mkfs", "--size", "1G", image])
        cases.mount(image)
        failure, number = None, 0
        try:
            for number in range(4000):
                path = os.path.join(cases.mnt, str(number))
                with open(path, "wb", buffering=0) as file:
                    file.write(trees.content(number, 100_000))
                    os.fsync(file.fileno())
        except OSError as error:
            failure = errno.errorcode[error.errno]
        cases.result.point("a full host disk says", failure, equals="ENOSPC")
        wrong = 0
        for done in range(number):
            with open(os.path.join(cases.mnt, str(done)), "rb") as file:
                wrong += file.read() != trees.content(done, 100_000)
        cases.result.point("a full host disk: synced files that differ", wrong, equals=0)
        removed = 0
        for done in range(number):
            os.unlink(os.path.join(cases.mnt, str(done)))
            removed += 1
        cases.result.point("a full host disk: files removed", removed, equals=number)
        cases.umount()
    finally:
        if os.path.ismount(cases.mnt):
            cases.caw_run("umount", cases.mnt)
        mounts.run(["umount", host])


def unwritable(cases):
    image = cases.mkfs("volume", "64M")
    if os.geteuid() != 0:
        os.chmod(image, 0o400)
        cases.refused("an unwritable image", ["mount", image, cases.mnt], unharmed=image)
        return
    # Root may write to any file; an immutable one stops root, too, where the host has the flag.
    if subprocess.run(["chattr", "+i", image], capture_output=True, check=False).returncode != 0:
        cases.result.note("no immutable files here: unwritable image not tried")
        return
    try:
        cases.refused("an unwritable image", ["mount", image, cases.mnt], unharmed=image)
        done = cases.caw_run("mount", "-o", "ro", image, cases.mnt)
        cases.result.point("an unwritable image, ro", done.returncode, equals=0)
        if done.returncode == 0:
            try:
                os.mkdir(os.path.join(cases.mnt, "x"))
                code = "none"
            except OSError as error:
                code = errno.errorcode[error.errno]
            cases.result.point("mounted ro: mkdir says", code, equals="EROFS")
            cases.umount()
    finally:
        subprocess.run(["chattr", "-i", image], check=False)


def surroundings(cases):
    image = cases.mkfs("volume", "64M")
    if os.geteuid() == 0:
        cases.refused("no /dev/fuse", ["mount", image, cases.mnt],
                      prefix=["unshare", "-m", "sh", "-c",
                              'mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && '
                              'exec "$@"', "sh"], unharmed=image)
    cases.refused("a mount point that is a file", ["mount", image, image], unharmed=image)
    cases.refused("a missing mount point", ["mount", image, cases.path("nowhere")], unharmed=image)
    done = cases.caw_run()
    cases.result.point("no command: usage on stderr, exit 2",
                       done.returncode == 2 and done.stderr.lower().startswith("usage"),
                       equals=True)
    for name, words in (("an unknown command", ["frobnicate"]),
                        ("mount without arguments", ["mount"]),
                        ("an unknown option", ["mount", "--frobnicate", image, cases.mnt]),
                        ("an unknown mount option", ["mount", "-o", "frob=1", image, cases.mnt]),
                        ("a size that is none", ["mkfs", "--size", "many", cases.path("x")]),
                        ("clone without target", ["clone", "x"])):
        cases.refused(name, words, code=2)
    cases.refused("umount of what is not mounted", ["umount", cases.work])
    cases.refused("clone outside a volume", ["clone", cases.work, cases.path("y")])


def flip(image, offset, bit=0):
    with open(image, "rb+") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def read_state(top):
    """path -> content or errno name, walking as far as it goes."""
    state = {}
    stack = [top]
    while stack:
        directory = stack.pop()
        name = os.path.relpath(directory, top)
        try:
            names = sorted(os.listdir(directory))
        except OSError as error:
            state[name] = errno.errorcode[error.errno]
            continue
        state[name] = tuple(names)
        for entry in names:
            path = os.path.join(directory, entry)
            try:
                info = os.lstat(path)
                if stat.S_ISDIR(info.st_mode):
                    stack.append(path)
                elif stat.S_ISREG(info.st_mode):
                    state[os.path.relpath(path, top)] = (info.st_size, info.st_mode, digest(path))
                else:
                    state[os.path.relpath(path, top)] = os.readlink(path)
            except OSError as error:
                state[os.path.relpath(path, top)] = errno.errorcode[error.errno]
    return state


def compare(good, bad):
    """(paths that give EIO or are below one that does, wrong ones)."""
    errors, wrong = 0, []
    broken = {name for name, value in bad.items() if value == "EIO"}
    for name, value in good.items():
        seen = bad.get(name)
        if seen == value:
            continue
        parents = [name]
        while os.path.dirname(parents[-1]):
            parents.append(os.path.dirname(parents[-1]))
        if seen == "EIO" or (seen is None and (broken & set(parents) or "." in broken)):
            errors += 1
        else:
            wrong.append(f"{name}: {value} became {seen}")
    wrong += [f"{name} appeared" for name in bad if name not in good]
    return errors, wrong


def bit_flips(cases, args):
    """Flips one bit in each of the sampled blocks in use, in turn, and reads everything."""
    image = cases.mkfs("flips", "64M")
    cases.mount(image)
    trees.make_tree(cases.mnt, mounts.scaled(600, args.scale, 60), size_of=lambda n: n * 37 % 9000)
    with open(os.path.join(cases.mnt, "big"), "wb") as file:
        file.write(trees.pool()[:1_000_000])
    mounts.run([cases.caw, "clone", os.path.join(cases.mnt, "d00"),
                os.path.join(cases.mnt, "clone")])
    with open(os.path.join(cases.mnt, "clone", "f3"), "r+b") as file:
        file.write(b"edited")
    cases.umount()
    cases.mount(image, "ro")
    good = read_state(cases.mnt)
    cases.umount()
    with open(image, "rb") as file:
        used = [block for block in range(os.path.getsize(image) // BLOCK)
                if any(file.read(BLOCK))]
    rng = random.Random(args.seed)
    sample = used if args.flips == 0 else sorted(rng.sample(used, min(args.flips, len(used))))
    sample = sorted(set(sample) | {0, 1, 2})
    wrong, refused, unheard, hurt, worst = [], 0, 0, 0, 0
    for block in sample:
        copy = cases.path("flipped")
        mounts.run(["cp", "--sparse=always", image, copy])
        offset, bit = block * BLOCK + rng.randrange(BLOCK), rng.randrange(8)
        flip(copy, offset, bit)
        done = cases.caw_run("mount", "-o", "ro", copy, cases.mnt)
        if done.returncode != 0:
            refused += 1
            if done.returncode != 1 or len(done.stderr.strip().split("\n")) != 1:
                wrong.append(f"block {block}: mount exit {done.returncode}: {done.stderr.strip()}")
            continue
        errors, bad = compare(good, read_state(cases.mnt))
        cases.umount()
        hurt, unheard, worst = hurt + (errors > 0), unheard + (errors == 0), max(worst, errors)
        wrong += [f"block {block} byte {offset % BLOCK} bit {bit}: {text}" for text in bad]
    cases.result.point("bit flips tried", len(sample), "blocks")
    cases.result.point("bit flips: mount refused", refused, "blocks")
    cases.result.point("bit flips: EIO on some paths", hurt, "blocks")
    cases.result.point("bit flips: nothing to see (unused, spare or older copy)", unheard, "blocks")
    cases.result.point("bit flips: most paths lost by one", worst, f"of {len(good)}")
    for text in wrong[:10]:
        cases.result.note(text)
    cases.result.point("bit flips: wrong data, names or attributes", len(wrong), equals=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    mounts.add_arguments(parser)
    parser.add_argument("--flips", type=int, default=200, help="blocks to try; 0: all in use")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="names of cases, comma-separated")
    args = parser.parse_args()
    if not args.caw:
        parser.error("--caw is needed")
    mounts.subject(args)            # skips where there is no /dev/fuse
    result = report.Report("bad_inputs", args)
    cases = Cases(args, result)
    functions = {f.__name__: f for f in (not_a_volume, damaged_superblocks, mounted_twice,
                                         full_disk, full_host, unwritable, surroundings)}
    for name, function in functions.items():
        if args.only and name not in args.only.split(","):
            continue
        function(cases)
    if not args.only or "bit_flips" in args.only:
        bit_flips(cases, args)
    shutil.rmtree(cases.work, ignore_errors=True)
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
