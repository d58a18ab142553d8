"""What every file system does, through the mount."""
import errno
import mmap
import os
import stat
import unittest

import bed
from bed import read, write


class Files(bed.MountedTest):
    def test_write_read_append_truncate(self):
        path = self.path("file")
        data = os.urandom(3_000_001)
        write(path, data)
        self.assertEqual(read(path), data)
        with open(path, "ab") as file:
            file.write(b"tail")
        self.assertEqual(read(path), data + b"tail")
        os.truncate(path, 70_000)
        self.assertEqual(read(path), data[:70_000])
        os.truncate(path, 200_000)
        self.assertEqual(read(path), data[:70_000] + bytes(130_000))
        write(path, b"short")
        self.assertEqual(read(path), b"short")
        self.assertEqual(os.stat(path).st_size, 5)

    def test_overwrite_in_place(self):
        path = self.path("file")
        model = bytearray(os.urandom(1_000_000))
        write(path, bytes(model))
        with open(path, "r+b") as file:
            for offset, length in [(0, 1), (131_071, 2), (500_000, 4096), (999_990, 100)]:
                piece = os.urandom(length)
                file.seek(offset)
                file.write(piece)
                model[offset:offset + length] = piece
        self.bed.remount()
        self.assertEqual(read(path), bytes(model))

    def test_sparse(self):
        path = self.path("sparse")
        with open(path, "wb") as file:
            file.truncate(1 << 34)
            file.seek(1 << 33)
            file.write(b"island")
        self.assertEqual(os.stat(path).st_size, 1 << 34)
        self.assertLess(os.stat(path).st_blocks * 512, 1 << 20)
        fd = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        self.assertEqual(os.pread(fd, 8, (1 << 33) - 1), b"\0island\0")
        self.assertEqual(os.pread(fd, 4096, 1 << 20), bytes(4096))
        found = os.lseek(fd, 0, os.SEEK_DATA)
        self.assertLessEqual(found, 1 << 33)
        self.assertGreater(found, (1 << 33) - (1 << 20))

    def test_unlink_while_open(self):
        path = self.path("file")
        write(path, b"still here")
        with open(path, "r+b") as file:
            os.unlink(path)
            self.assertFalse(os.path.exists(path))
            self.assertEqual(file.read(), b"still here")
            file.seek(0)
            file.write(b"STILL")
            file.flush()
            file.seek(0)
            self.assertEqual(file.read(), b"STILL here")
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 0)

    def test_rename_over_open_file(self):
        write(self.path("old"), b"old")
        write(self.path("new"), b"new")
        with open(self.path("old"), "rb") as file:
            os.rename(self.path("new"), self.path("old"))
            self.assertEqual(file.read(), b"old")
        self.assertEqual(read(self.path("old")), b"new")
        self.assertFalse(os.path.exists(self.path("new")))

    def test_mmap(self):
        path = self.path("file")
        write(path, bytes(100_000))
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[50_000:50_006] = b"stored"
            memory.flush()
            self.assertEqual(os.pread(file.fileno(), 6, 50_000), b"stored")
        self.bed.remount()
        self.assertEqual(read(path)[50_000:50_006], b"stored")

    def test_exclusive_create(self):
        path = self.path("file")
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        self.refused(errno.EEXIST, os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)

    def test_fallocate_and_fsync(self):
        fd = os.open(self.path("file"), os.O_CREAT | os.O_RDWR)
        self.addCleanup(os.close, fd)
        os.write(fd, b"abc")
        os.fsync(fd)
        os.fdatasync(fd)
        os.posix_fallocate(fd, 0, 100_000)
        self.assertEqual(os.fstat(fd).st_size, 100_000)
        self.assertEqual(os.pread(fd, 5, 0), b"abc\0\0")


class Attributes(bed.MountedTest):
    def test_times_in_nanoseconds(self):
        path = self.path("file")
        write(path, b"x")
        times = (1_234_567_890_123_456_789, 987_654_321_000_000_001)
        os.utime(path, ns=times)
        for _ in range(2):
            status = os.stat(path)
            self.assertEqual((status.st_atime_ns, status.st_mtime_ns), times)
            self.bed.remount()
        os.utime(path, ns=(-1_500_000_000, 4_300_000_000_000_000_000))
        self.assertEqual(os.stat(path).st_atime_ns, -1_500_000_000)
        self.assertEqual(os.stat(path).st_mtime_ns, 4_300_000_000_000_000_000)

    def test_modes_and_owners(self):
        path = self.path("file")
        write(path, b"x")
        os.chmod(path, 0o4751)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o4751)
        os.chown(path, 1000, 2000)
        status = os.stat(path)
        self.assertEqual((status.st_uid, status.st_gid), (1000, 2000))
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o751)   # chown takes set-user-id away

    def test_changes_show_in_times(self):
        os.mkdir(self.path("dir"))
        os.utime(self.path("dir"), ns=(0, 0))
        write(self.path("dir", "file"), b"")
        self.assertGreater(os.stat(self.path("dir")).st_mtime_ns, 0)
        os.utime(self.path("dir", "file"), ns=(0, 0))
        write(self.path("dir", "file"), b"more")
        self.assertGreater(os.stat(self.path("dir", "file")).st_mtime_ns, 0)

    def test_permissions_are_checked(self):
        write(self.path("file"), b"x")
        os.chmod(self.path("file"), 0o000)
        code = ("import os,sys\nos.setgid(99);os.setuid(99)\n"
                "try: open(sys.argv[1])\nexcept PermissionError: sys.exit(0)\nsys.exit(1)")
        self.bed.umount()
        self.bed.mount("-o", "allow_other")
        os.chmod(self.bed.folder, 0o755)
        self.assertEqual(bed.run("python3", "-c", code, self.path("file")).returncode, 0)

    def test_statfs(self):
        before = os.statvfs(self.bed.dir)
        self.assertEqual(before.f_namemax, 255)
        total = before.f_blocks * before.f_frsize
        self.assertTrue(400 << 20 < total <= 512 << 20, total)
        write(self.path("file"), os.urandom(64 << 20))
        bed.ok("sync", self.bed.dir)
        after = os.statvfs(self.bed.dir)
        used = (before.f_bavail - after.f_bavail) * before.f_frsize
        self.assertTrue(60 << 20 < used < 80 << 20, used)


    def test_reads_ahead(self):
        number = os.stat(self.bed.dir).st_dev
        path = f"/sys/class/bdi/{os.major(number)}:{os.minor(number)}/read_ahead_kb"
        for _ in range(100):
            if read(path) == b"1024\n":
                return
            bed.time.sleep(0.02)
        self.fail(read(path))


class Directories(bed.MountedTest):
    def test_many_entries(self):
        folder = self.path("many")
        os.mkdir(folder)
        names = {f"entry {index:05}" for index in range(5000)}
        for name in names:
            write(os.path.join(folder, name), b"")
        self.assertEqual(set(os.listdir(folder)), names)
        with os.scandir(folder) as entries:
            self.assertTrue(all(entry.is_file() for entry in entries))
        self.bed.remount()
        found = os.listdir(folder)
        self.assertEqual(len(found), 5000)
        self.assertEqual(set(found), names)
        for name in sorted(names)[::2]:
            os.unlink(os.path.join(folder, name))
        self.assertEqual(set(os.listdir(folder)), set(sorted(names)[1::2]))

    def test_reading_while_removing(self):
        folder = self.path("many")
        os.mkdir(folder)
        for index in range(1000):
            write(os.path.join(folder, str(index)), b"")
        with os.scandir(folder) as entries:
            for entry in entries:
                os.unlink(entry.path)
        self.assertEqual(os.listdir(folder), [])
        os.rmdir(folder)

    def test_links_and_dots(self):
        os.makedirs(self.path("a", "b"))
        self.assertEqual(os.stat(self.path("a", "b", "..")).st_ino, os.stat(self.path("a")).st_ino)
        self.assertEqual(os.stat(self.path("a", ".")).st_ino, os.stat(self.path("a")).st_ino)
        os.symlink("b/../file", self.path("a", "link"))
        write(self.path("a", "file"), b"x")
        self.assertEqual(os.readlink(self.path("a", "link")), "b/../file")
        self.assertEqual(read(self.path("a", "link")), b"x")

    def test_rename(self):
        os.makedirs(self.path("a", "b"))
        os.mkdir(self.path("c"))
        write(self.path("a", "b", "file"), b"x")
        number = os.stat(self.path("a", "b")).st_ino
        os.rename(self.path("a", "b"), self.path("c", "moved"))
        self.assertEqual(os.stat(self.path("c", "moved")).st_ino, number)
        self.assertEqual(read(self.path("c", "moved", "file")), b"x")
        self.refused(errno.EINVAL, os.rename, self.path("c"), self.path("c", "moved", "c"))
        os.mkdir(self.path("full"))
        write(self.path("full", "x"), b"")
        self.refused(errno.ENOTEMPTY, os.rename, self.path("c"), self.path("full"))
        os.rename(self.path("c"), self.path("a"))
        self.assertEqual(os.listdir(self.path("a")), ["moved"])

    def test_errors(self):
        os.mkdir(self.path("dir"))
        write(self.path("file"), b"")
        self.refused(errno.ENOENT, os.stat, self.path("absent"))
        self.refused(errno.ENOTDIR, os.stat, self.path("file", "x"))
        self.refused(errno.EISDIR, os.open, self.path("dir"), os.O_WRONLY)
        self.refused(errno.EEXIST, os.mkdir, self.path("dir"))
        self.refused(errno.ENOTDIR, os.rmdir, self.path("file"))
        self.refused(errno.EISDIR, os.unlink, self.path("dir"))
        write(self.path("dir", "x"), b"")
        self.refused(errno.ENOTEMPTY, os.rmdir, self.path("dir"))
        for call in (os.mkdir, os.stat, os.unlink):
            self.refused(errno.ENAMETOOLONG, call, self.path("n" * 256))
        os.mkdir(self.path("n" * 255))

    def test_special_files(self):
        os.mkfifo(self.path("fifo"), 0o640)
        os.mknod(self.path("device"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
        self.bed.remount()
        self.assertTrue(stat.S_ISFIFO(os.stat(self.path("fifo")).st_mode))
        status = os.stat(self.path("device"))
        self.assertTrue(stat.S_ISCHR(status.st_mode))
        self.assertEqual(status.st_rdev, os.makedev(1, 3))


if __name__ == "__main__":
    bed.main()
