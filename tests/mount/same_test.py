"""POSIX by system call, on cawfs and on ext4 side by side: what ext4 does is what is expected.

Each case is a function that gets an empty directory and returns what it saw; the two must be
equal.  Where ext4 cannot be mounted (no loop device, no mkfs.ext4), the cases run on cawfs alone,
and only what they assert themselves counts.
"""
import ctypes
import errno
import mmap
import os
import shutil
import stat
import struct
import subprocess
import tempfile
import threading
import unittest

import bed

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
KEEP_SIZE, PUNCH, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
USER = 1000


def result_of(call, *arguments):
    """What it returns, or the name of the error."""
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]


def checked(value):
    if value < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return value


def fallocate(fd, mode, offset, length):
    return checked(LIBC.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def rename(old, new, flags):
    return checked(LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def as_user(call, uid=USER, groups=(USER,)):
    """Runs `call` in a child as another user; its text result or error name."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups[1:])
            os.setresgid(groups[0], groups[0], groups[0])
            os.setresuid(uid, uid, uid)
            os.write(writer, str(result_of(call)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        out = file.read().decode()
    os.waitpid(child, 0)
    return out


def mode_of(path):
    return oct(stat.S_IMODE(os.lstat(path).st_mode))


def make(path, data=b"", mode=0o644):
    bed.write(path, data)
    os.chmod(path, mode)
    return path


def acl(*entries):
    """ACL as the kernel takes it: (tag, permissions, id) ..."""
    tags = {"u:": 1, "u": 2, "g:": 4, "g": 8, "m": 16, "o": 32}
    out = struct.pack("<I", 2)
    for tag, bits, *who in entries:
        out += struct.pack("<HHI", tags[tag], bits, who[0] if who else 0xffffffff)
    return out


ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
NAMED = acl(("u:", 7), ("u", 6, USER), ("g:", 0), ("m", 7), ("o", 0))


# ---- extended attributes

def xattr_basics(top):
    path = make(f"{top}/f")
    out = [result_of(os.getxattr, path, "user.a"), os.listxattr(path)]
    for flags in (os.XATTR_REPLACE, os.XATTR_CREATE, os.XATTR_CREATE, os.XATTR_REPLACE, 0):
        out.append(result_of(os.setxattr, path, "user.a", b"value", flags))
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.\xc3\xa4 \x01", b"odd name")
    os.setxattr(path, "trusted.t", b"root's")
    os.setxattr(path, "security.s", b"\0\1\2")
    out += [sorted(os.listxattr(path)), os.getxattr(path, "user.empty")]
    out += [os.getxattr(path, name) for name in ("user.a", "trusted.t", "security.s")]
    out.append(result_of(os.removexattr, path, "user.absent"))
    os.removexattr(path, "user.a")
    out += [result_of(os.getxattr, path, "user.a"), sorted(os.listxattr(path))]
    for name in ("nonsense", "user.", "other.x", "system.x", "user." + "n" * 251):
        out.append((name[:8], result_of(os.setxattr, path, name, b"x")))
    out.append(result_of(os.setxattr, path, "user." + "n" * 250, b"x"))
    return out


def xattr_sizes(top):
    path = make(f"{top}/f")
    os.setxattr(path, "user.x", b"12345")
    size = LIBC.getxattr(os.fsencode(path), b"user.x", None, 0)
    buffer = ctypes.create_string_buffer(64)
    small = LIBC.getxattr(os.fsencode(path), b"user.x", buffer, 2)
    number = ctypes.get_errno()
    listed = LIBC.listxattr(os.fsencode(path), None, 0)
    tiny = LIBC.listxattr(os.fsencode(path), buffer, 3)
    too_large = result_of(os.setxattr, path, "user.big", bytes(65537))
    return [size, small, number, listed, tiny, too_large]


def xattr_kinds(top):
    os.symlink("nowhere", f"{top}/link")
    os.mkfifo(f"{top}/fifo")
    os.mknod(f"{top}/device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mkdir(f"{top}/dir")
    out = []
    for name in ("link", "fifo", "device", "dir"):
        for attribute in ("user.a", "trusted.a", "security.a"):
            path = f"{top}/{name}"
            done = result_of(lambda: os.setxattr(path, attribute, b"v", follow_symlinks=False))
            out.append((name, attribute, done,
                        sorted(os.listxattr(path, follow_symlinks=False))))
    return out


def xattr_permissions(top):
    os.chmod(top, 0o777)
    path = make(f"{top}/f", mode=0o644)
    os.setxattr(path, "trusted.t", b"hidden")
    os.setxattr(path, "user.u", b"shown")
    mine = make(f"{top}/mine")
    os.chown(mine, USER, USER)
    out = [as_user(lambda: os.setxattr(path, "user.x", b"")),
           as_user(lambda: os.getxattr(path, "user.u")),
           as_user(lambda: os.listxattr(path)),
           as_user(lambda: os.getxattr(path, "trusted.t")),
           as_user(lambda: os.setxattr(mine, "user.x", b"")),
           as_user(lambda: os.setxattr(mine, "trusted.x", b"")),
           as_user(lambda: os.setxattr(mine, "security.x", b""))]
    os.chmod(path, 0o600)
    return out + [as_user(lambda: os.getxattr(path, "user.u"))]


def xattr_times_and_moves(top):
    path = make(f"{top}/f")
    before = os.stat(path)
    os.setxattr(path, "user.a", b"v" * 3000)
    after = os.stat(path)
    out = [after.st_ctime_ns > before.st_ctime_ns, after.st_mtime_ns == before.st_mtime_ns]
    os.mkdir(f"{top}/d")
    os.setxattr(f"{top}/d", "user.of", b"d")
    os.mkdir(f"{top}/other")
    os.rename(path, f"{top}/d/g")
    os.rename(f"{top}/d", f"{top}/other/d")
    out += [os.getxattr(f"{top}/other/d/g", "user.a"), os.getxattr(f"{top}/other/d", "user.of")]
    with open(f"{top}/other/d/g", "rb") as file:
        os.unlink(file.name)
        out.append(os.getxattr(file.fileno(), "user.a"))
        os.setxattr(file.fileno(), "user.b", b"unlinked")
        out.append(sorted(os.listxattr(file.fileno())))
    make(f"{top}/other/d/g")
    return out + [os.listxattr(f"{top}/other/d/g")]


# ---- ACLs

def acl_and_mode(top):
    path = make(f"{top}/f", mode=0o640)
    out = [result_of(os.getxattr, path, ACCESS)]
    os.setxattr(path, ACCESS, NAMED)
    out += [mode_of(path), os.getxattr(path, ACCESS), os.listxattr(path)]
    os.chmod(path, 0o620)
    out += [mode_of(path), os.getxattr(path, ACCESS)]
    os.setxattr(path, ACCESS, acl(("u:", 6), ("g:", 5), ("o", 1)))
    out += [mode_of(path), result_of(os.getxattr, path, ACCESS), os.listxattr(path)]
    os.setxattr(path, ACCESS, NAMED)
    os.removexattr(path, ACCESS)
    out += [mode_of(path), os.listxattr(path), result_of(os.removexattr, path, ACCESS)]
    for bad in (b"", b"\2\0\0\0", acl(("u:", 7)), acl(("u:", 7), ("u", 7, 1), ("g:", 7), ("o", 7)),
                NAMED[:-1]):
        out.append(result_of(os.setxattr, path, ACCESS, bad))
    out.append(result_of(os.setxattr, path, DEFAULT, NAMED))
    os.symlink("f", f"{top}/link")
    out.append(result_of(lambda: os.setxattr(f"{top}/link", ACCESS, NAMED, follow_symlinks=False)))
    return out


def acl_is_enforced(top):
    os.chmod(top, 0o755)
    path = make(f"{top}/f", b"secret", 0o600)
    read = lambda: bed.read(path)
    write = lambda: bed.write(path, b"x")
    out = [as_user(read)]
    os.setxattr(path, ACCESS, acl(("u:", 6), ("u", 4, USER), ("g:", 0), ("m", 4), ("o", 0)))
    out += [as_user(read), as_user(write)]
    os.chmod(path, 0o600)
    out.append(as_user(read))
    os.setxattr(path, ACCESS, acl(("u:", 6), ("g:", 0), ("g", 6, 77), ("m", 6), ("o", 0)))
    out += [as_user(read), as_user(read, groups=(USER, 77)), as_user(write, groups=(77,))]
    os.removexattr(path, ACCESS)
    return out + [as_user(read, groups=(77,))]


def acl_is_inherited(top):
    out = []
    os.setxattr(top, DEFAULT, acl(("u:", 7), ("u", 7, USER), ("g:", 5), ("m", 7), ("o", 5)))
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        names = [f"{top}/{kind}{mask}" for kind in ("file", "dir", "fifo", "dev", "link")]
        os.close(os.open(names[0], os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(names[1], 0o770)
        os.mkfifo(names[2], 0o640)
        os.mknod(names[3], stat.S_IFCHR | 0o604, os.makedev(1, 3))
        os.symlink("x", names[4])
        unnamed = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o666)
        out.append((oct(os.fstat(unnamed).st_mode), sorted(os.listxattr(unnamed))))
        os.close(unnamed)
        os.umask(before)
        for name in names:
            out.append((mode_of(name), [(key, os.getxattr(name, key, follow_symlinks=False))
                        for key in sorted(os.listxattr(name, follow_symlinks=False))]))
    os.removexattr(top, DEFAULT)
    before = os.umask(0o027)
    os.mkdir(f"{top}/plain")
    os.umask(before)
    return out + [mode_of(f"{top}/plain"), os.listxattr(f"{top}/plain")]


def acl_and_set_group_id(top):
    os.chmod(top, 0o777)
    path = make(f"{top}/f", mode=0o644)
    os.chown(path, USER, 77)
    os.chmod(path, 0o2755)
    set_acl = lambda: os.setxattr(path, ACCESS, NAMED)
    out = [as_user(set_acl, groups=(USER, 77)), mode_of(path)]
    return out + [as_user(set_acl), mode_of(path)]


def acl_programs(top):
    """setfacl, getfacl, cp -a, tar --acls --xattrs."""
    def text(*command):
        done = bed.run(*command)
        return done.returncode, done.stdout.replace(top, "")
    os.makedirs(f"{top}/a/sub")
    make(f"{top}/a/f", b"x")
    out = [text("setfacl", "-R", "-m", "u:1000:rwX,d:u:1000:rwX,d:g:77:r", f"{top}/a")]
    os.setxattr(f"{top}/a/f", "user.kept", b"yes")
    make(f"{top}/a/sub/new")
    os.mkdir(f"{top}/b")
    out.append(text("cp", "-a", f"{top}/a", f"{top}/copy"))
    tar = ("tar", "--acls", "--xattrs", "--xattrs-include=user.*")
    out.append(text(*tar, "-C", f"{top}/a", "-cf", f"{top}/t", "."))
    out.append(text(*tar, "-C", f"{top}/b", "-xf", f"{top}/t"))
    for name in ("a", "copy", "b"):
        shown = text("getfacl", "-pR", f"{top}/{name}")[1].replace(f"/{name}", "")
        out.append(sorted(shown.split("\n\n")))
        out.append(os.getxattr(f"{top}/{name}/f", "user.kept"))
    assert out[4] == out[6] == out[8], out
    return out + [text("setfacl", "-b", "-k", f"{top}/a"), text("getfacl", "-pc", f"{top}/a")]


# ---- set-user-id and times

def set_user_id_is_dropped(top):
    os.chmod(top, 0o777)
    out = []

    def start(mode=0o6777):
        path = make(f"{top}/f", b"data" * 2000)
        os.chown(path, 5, 5)
        os.chmod(path, mode)
        return path

    def write(path, flags=0):
        fd = os.open(path, os.O_WRONLY | flags)
        os.write(fd, b"x")
        os.close(fd)

    def store(path):
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[0:1] = b"y"

    def allocate(path, mode=0):
        fd = os.open(path, os.O_RDWR)
        fallocate(fd, mode, 0, 9000)
        os.close(fd)

    def copy(path):
        source, fd = os.open(path, os.O_RDONLY), os.open(path, os.O_RDWR)
        os.copy_file_range(source, fd, 100, 0, 4000)
        os.close(source)
        os.close(fd)

    changes = {"write": write, "append": lambda path: write(path, os.O_APPEND),
               "open": lambda path: write(path, os.O_TRUNC), "map": store,
               "truncate": lambda path: os.truncate(path, 3),
               "allocate": allocate, "punch": lambda path: allocate(path, PUNCH | KEEP_SIZE),
               "copy": copy, "read": bed.read, "chmod": lambda path: os.chmod(path, 0o6755),
               "times": os.utime}
    for name, change in changes.items():
        for mode in (0o6777, 0o4666):
            path = start(mode)
            failed = as_user(lambda: change(path))
            shown = mode_of(path)
            change(start(mode))
            out.append((name, failed[:6], shown, "root", mode_of(path)))
    for owner in ((6, 6), (-1, 6), (6, -1), (-1, -1)):
        for mode in (0o6777, 0o6767, 0o2755):
            os.chown(start(mode), *owner)
            out.append((owner, oct(mode), mode_of(path)))
    os.mkdir(f"{top}/dir")
    os.chmod(f"{top}/dir", 0o6755)
    os.chown(f"{top}/dir", 6, 6)
    path = start()
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1, 0, 0, 0))
    write(path)
    return out + [mode_of(f"{top}/dir"), os.listxattr(path)]


def group_is_inherited(top):
    os.chown(top, 0, 77)
    os.chmod(top, 0o2777)
    os.mkdir(f"{top}/dir")
    make(f"{top}/file")
    def create():
        os.close(os.open(f"{top}/theirs", os.O_CREAT | os.O_WRONLY, 0o2775))
    as_user(create)
    return [(os.stat(f"{top}/{name}").st_gid, mode_of(f"{top}/{name}"))
            for name in ("dir", "file", "theirs")]


def times(top):
    """Which of a file's times each call changes."""
    out = []
    os.mkdir(f"{top}/d")
    path = make(f"{top}/d/f", b"data")
    fd = os.open(path, os.O_RDWR)
    calls = {"write": lambda: os.pwrite(fd, b"x", 0),
             "write nothing": lambda: os.pwrite(fd, b"", 0),
             "truncate same": lambda: os.ftruncate(fd, 4), "truncate": lambda: os.ftruncate(fd, 9),
             "open, truncated": lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
             "open, truncated empty": lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
             "chmod": lambda: os.chmod(path, 0o600), "chown": lambda: os.chown(path, 3, 3),
             "rename": lambda: (os.rename(path, path + "2"), os.rename(path + "2", path)),
             "allocate": lambda: fallocate(fd, 0, 0, 70000),
             "zero": lambda: fallocate(fd, ZERO, 0, 70000),
             "xattr": lambda: os.setxattr(path, "user.a", b""),
             "stat": lambda: os.stat(path)}
    for name, call in calls.items():
        os.utime(path, ns=(10**18, 10**18))
        os.utime(f"{top}/d", ns=(10**18, 10**18))
        ctime = os.stat(path).st_ctime_ns
        subprocess.run(["sleep", "0.01"], check=True)
        call()
        after, above = os.stat(path), os.stat(f"{top}/d")
        out.append((name, after.st_mtime_ns != 10**18, after.st_ctime_ns != ctime,
                    above.st_mtime_ns != 10**18))
    os.close(fd)
    return out


def far_times(top):
    path = make(f"{top}/f")
    out = []
    for seconds in (5 - 2**31, -1, 0, 2**31, 2**32, 15_000_000_000):
        os.utime(path, ns=(seconds * 10**9 + 7, seconds * 10**9 + 999_999_999))
        shown = os.stat(path)
        out.append((shown.st_atime_ns, shown.st_mtime_ns))
    return out


def birth_time(top):
    path = make(f"{top}/f")
    first = bed.run("stat", "-c", "%W", path).stdout
    os.utime(path, (5, 5))
    return [int(first) > 10**9, bed.run("stat", "-c", "%W", path).stdout == first]


# ---- data

def allocation(top):
    fd = os.open(f"{top}/f", os.O_CREAT | os.O_RDWR)
    data = bytes(range(1, 251)) * 4000
    out = []

    def show(name, done):
        size = os.fstat(fd).st_size
        out.append((name, done, size, hash(os.pread(fd, size, 0))))

    os.write(fd, data)
    for name, mode, offset, length in (
            ("punch", PUNCH | KEEP_SIZE, 5000, 300_000), ("punch alone", PUNCH, 0, 10),
            ("punch past the end", PUNCH | KEEP_SIZE, 900_000, 10**6),
            ("zero", ZERO, 400_000, 5000), ("zero and keep", ZERO | KEEP_SIZE, 990_000, 50_000),
            ("zero and grow", ZERO, 995_000, 50_000), ("keep", KEEP_SIZE, 0, 2_000_000),
            ("grow", 0, 1_000_000, 200_001), ("nothing", 0, 0, 0), ("before", 0, -1, 10),
            ("unknown", 1 << 12, 0, 10), ("both", PUNCH | ZERO | KEEP_SIZE, 0, 10)):
        show(name, result_of(fallocate, fd, mode, offset, length))
    os.close(fd)
    return out


def holes(top):
    """Data and holes of a file made of blocks of 1 MiB: where they begin and end."""
    fd = os.open(f"{top}/f", os.O_CREAT | os.O_RDWR)
    unit = 1 << 20
    for block in (1, 2, 5):
        os.pwrite(fd, b"d" * unit, block * unit)
    os.ftruncate(fd, 8 * unit)
    fallocate(fd, PUNCH | KEEP_SIZE, 2 * unit, unit)
    out = []
    for offset in (0, unit, unit + 5, 2 * unit, 5 * unit, 6 * unit, 8 * unit - 1, 8 * unit, -1):
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            out.append((offset, result_of(os.lseek, fd, offset, whence)))
    os.close(fd)
    return out


def copies(top):
    data = os.urandom(1 << 16) * 50
    source = os.open(make(f"{top}/source", data), os.O_RDWR)
    target = os.open(f"{top}/target", os.O_CREAT | os.O_RDWR)
    model = bytearray()
    out = []
    for from_, to, length in ((0, 0, 1 << 20), (131072, 262144, 300_000), (5, 70_001, 500_000),
                              (1 << 21, 1 << 21, 1 << 23), (10**9, 0, 5), (0, 8 << 20, 100)):
        done = os.copy_file_range(source, target, length, from_, to)
        piece = data[from_:from_ + done]
        model += bytes(max(0, to + done - len(model))) if done else b""
        model[to:to + done] = piece
        out.append(done)
    assert bytes(model) == os.pread(target, 1 << 24, 0)
    os.pwrite(source, b"later", 0)
    assert bytes(model) == os.pread(target, 1 << 24, 0)
    out += [result_of(os.copy_file_range, source, source, 100, 0, 50),
            os.copy_file_range(source, source, 131072, 0, 1 << 22), os.fstat(source).st_size]
    os.fsync(target)
    os.close(source)
    os.close(target)
    return out


def appenders(top):
    """Two writers that append never overwrite each other."""
    path = make(f"{top}/log")

    def append(letter):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        for _ in range(300):
            os.write(fd, letter * 50 + b"\n")
        os.close(fd)

    threads = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = bed.read(path).split(b"\n")
    return [len(lines), sorted({bytes(line) for line in lines})]


# ---- names

def whiteout(top):
    os.mkdir(f"{top}/d")
    out = []
    for old, new in ((f"{top}/f", f"{top}/g"), (f"{top}/g", f"{top}/d/h")):
        if not os.path.exists(old):
            make(old, b"x")
        out.append(result_of(rename, old, new, 4))
        left = os.lstat(old)
        out += [oct(left.st_mode), left.st_rdev, bed.read(new), sorted(os.listdir(top))]
        os.unlink(old)
        make(old, b"x")
    return out + [result_of(rename, f"{top}/f", f"{top}/d/h", 5),
                  result_of(rename, f"{top}/f", f"{top}/d/h", 6)]


def unnamed_files(top):
    fd = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b"contents")
    out = [oct(os.fstat(fd).st_mode), os.fstat(fd).st_nlink, os.pread(fd, 99, 0), os.listdir(top)]
    os.setxattr(fd, "user.a", b"v")
    os.ftruncate(fd, 3)
    out += [os.getxattr(fd, "user.a"), os.fstat(fd).st_size]
    os.close(fd)
    return out + [result_of(os.open, top, os.O_TMPFILE | os.O_RDONLY)]


def names(top):
    """Any bytes but slash and NUL; 255 of them."""
    top = os.fsencode(top)
    every = bytes(byte for byte in range(1, 256) if byte != ord("/"))
    made = [every[:200], every[200:], b"\xff" * 255, b"\xc3\x28", b" ", b"-rf", b"a\nb", b"..."]
    for name in made:
        os.close(os.open(top + b"/" + name, os.O_CREAT | os.O_WRONLY))
    out = [sorted(os.listdir(top)) == sorted(made)]
    for name in (b"n" * 256, b"", b"x" * 4096):
        out.append(result_of(os.mkdir, top + b"/" + name))
    os.symlink(b"t" * 4095, top + b"/link")
    out += [result_of(os.symlink, target, top + b"/l2") for target in (b"t" * 4096, b"")]
    return out + [len(os.readlink(top + b"/link"))]


def sticky(top):
    os.mkdir(f"{top}/shared")
    os.chmod(f"{top}/shared", 0o1777)
    os.chmod(top, 0o755)
    theirs = make(f"{top}/shared/theirs")
    os.chown(theirs, 5, 5)
    return [as_user(lambda: os.unlink(theirs)),
            as_user(lambda: os.rename(theirs, f"{top}/shared/mine")),
            as_user(lambda: os.utime(theirs)), as_user(lambda: os.chmod(theirs, 0)),
            as_user(lambda: os.chown(theirs, USER, USER)),
            as_user(lambda: os.mkdir(f"{top}/not here"))]


CASES = [xattr_basics, xattr_sizes, xattr_kinds, xattr_permissions, xattr_times_and_moves,
         acl_and_mode, acl_is_enforced, acl_is_inherited, acl_and_set_group_id, acl_programs,
         set_user_id_is_dropped, group_is_inherited, times, far_times, birth_time, allocation,
         holes, copies, appenders, whiteout, unnamed_files, names, sticky]


class Ext4:
    """Mounted from an image, if it can be."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="caw-ext4-")
        self.dir = os.path.join(self.folder, "mnt")
        os.mkdir(self.dir)
        image = os.path.join(self.folder, "image")
        with open(image, "wb") as file:
            file.truncate(256 << 20)
        os.chmod(self.folder, 0o755)
        self.is_there = shutil.which("mkfs.ext4") is not None and all(
            bed.run(*command).returncode == 0
            for command in (("mkfs.ext4", "-qF", "-b", "4096", "-I", "256", image),
                            ("mount", "-o", "loop", image, self.dir)))

    def destroy(self):
        bed.run("umount", "-l", self.dir)
        shutil.rmtree(self.folder, ignore_errors=True)


class SameAsExt4(bed.MountedTest):
    mount = ("-o", "allow_other,suid,dev")

    def test_all(self):
        ext4 = Ext4()
        self.addCleanup(ext4.destroy)
        os.chmod(self.bed.folder, 0o755)
        tops = [self.bed.dir] + ([ext4.dir] if ext4.is_there else [])
        for case in CASES:
            with self.subTest(case.__name__):
                seen = []
                for top in tops:
                    folder = os.path.join(top, case.__name__)
                    os.mkdir(folder)
                    seen.append(case(folder))
                if len(seen) == 2:
                    self.compare(*seen)
        if not ext4.is_there:
            print("ext4 cannot be mounted: nothing to compare with")

    def compare(self, here, there):
        for mine, ext4 in zip(here, there):
            if mine != ext4:
                self.fail(f"cawfs: {mine!r}, ext4: {ext4!r}")
        self.assertEqual(len(here), len(there))


if __name__ == "__main__":
    bed.main()
