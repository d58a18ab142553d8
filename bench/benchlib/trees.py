"""Trees of files with contents that can be computed again, and manifests of them."""

import hashlib
import os
import random
import stat
import zlib

POOL_BYTES = 1 << 20
_pool = None


def pool():
    """1 MiB of incompressible bytes, the same in every run."""
    global _pool
    if _pool is None:
        _pool = random.Random(20040101).randbytes(POOL_BYTES) * 2
    return _pool


def content(number, size):
    """`size` bytes that belong to file `number`; size <= 1 MiB."""
    head = number.to_bytes(8, "little")
    start = number * 7919 % POOL_BYTES
    return (head + pool()[start:start + size])[:size]


def file_path(number, per_directory=100, fan=100):
    directory = number // per_directory
    if directory < fan:
        return f"d{directory:02d}/f{number}"
    return f"s{directory // fan:04d}/d{directory % fan:02d}/f{number}"


def make_tree(root, count, size=64, per_directory=100, size_of=None):
    """`count` files below the existing directory `root`."""
    made = set()
    for number in range(count):
        path = os.path.join(root, file_path(number, per_directory))
        parent = os.path.dirname(path)
        if parent not in made:
            os.makedirs(parent, exist_ok=True)
            made.add(parent)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(fd, content(number, size_of(number) if size_of else size))
        finally:
            os.close(fd)


def _walk(top):
    stack = [top]
    while stack:
        directory = stack.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)


def read_all(path, block=1 << 20):
    with open(path, "rb", buffering=0) as source:
        while True:
            data = source.read(block)
            if not data:
                return
            yield data


def manifest(top, inodes=True, times=True):
    """relative path -> (type and mode, owner, size, mtime, links, checksum, inode number)."""
    result = {}
    for entry in _walk(top):
        info = entry.stat(follow_symlinks=False)
        check = ""
        if stat.S_ISREG(info.st_mode):
            digest = hashlib.blake2b(digest_size=12)
            for data in read_all(entry.path):
                digest.update(data)
            check = digest.hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            check = os.readlink(entry.path)
        size = info.st_size if not stat.S_ISDIR(info.st_mode) else 0
        result[os.path.relpath(entry.path, top)] = (
            info.st_mode, info.st_uid, info.st_gid, size, info.st_mtime_ns if times else 0,
            info.st_nlink, info.st_rdev, check, info.st_ino if inodes else 0)
    return result


def differences(a, b, limit=5):
    """Number of paths that differ, and some of them."""
    names = [n for n in sorted(a.keys() | b.keys()) if a.get(n) != b.get(n)]
    return len(names), [f"{n}: {a.get(n)} != {b.get(n)}" for n in names[:limit]]


def verify_tree(root, count, size=64, per_directory=100, size_of=None, numbers=None, edited=()):
    """Files whose content is not what make_tree wrote; `edited` are left out."""
    wrong = 0
    for number in numbers if numbers is not None else range(count):
        if number in edited:
            continue
        try:
            with open(os.path.join(root, file_path(number, per_directory)), "rb") as source:
                if source.read() != content(number, size_of(number) if size_of else size):
                    wrong += 1
        except OSError:
            wrong += 1
    return wrong


def scan_tree(top):
    """Reads every byte below `top`; (files, bytes, checksum)."""
    files = total = check = 0
    for entry in _walk(top):
        if entry.is_file(follow_symlinks=False):
            files += 1
            for data in read_all(entry.path):
                total += len(data)
                check = zlib.crc32(data, check)
    return files, total, check
