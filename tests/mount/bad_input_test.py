"""Wrong images, wrong places, wrong words: one sentence, the right exit code, nothing harmed."""
import errno
import json
import os
import random
import shutil
import unittest

import bed
from bed import caw, fill, manifest, ok, read, write


class Sentences(unittest.TestCase):
    def setUp(self):
        self.bed = bed.Bed("64M")
        self.addCleanup(self.bed.destroy)
        self.image = self.bed.image
        self.other = os.path.join(self.bed.folder, "other")

    def refuses(self, words, *arguments, code=1):
        done = caw(*arguments)
        self.assertEqual(done.returncode, code, (arguments, done.stderr))
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith(f"caw {arguments[0]}: "), done.stderr)
        self.assertIn(words, done.stderr)
        self.assertFalse(bed.is_mounted(self.bed.dir))


class Mounting(Sentences):
    def mount_refuses(self, words, image):
        self.refuses(words, "mount", image, self.bed.dir)

    def test_no_volume(self):
        self.mount_refuses("No such file", self.other)
        write(self.other, b"")
        self.mount_refuses("too small", self.other)
        write(self.other, os.urandom(100_000))
        self.mount_refuses("", self.other)
        write(self.other, bytes(32 << 20))
        self.mount_refuses("not a cawfs volume", self.other)
        self.assertEqual(read(self.other), bytes(32 << 20))
        self.mount_refuses("neither a regular file nor a block device", "/dev/null")
        self.mount_refuses("neither a regular file nor a block device", self.bed.folder)

    def test_without_fuse(self):
        before = read(self.image)
        done = bed.run("unshare", "-m", "sh", "-c",
                       "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && "
                       'exec "$@"', "sh", bed.CAW, "mount", self.image, self.bed.dir)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("/dev/fuse", done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertEqual(read(self.image), before)

    def test_truncated(self):
        os.truncate(self.image, 32 << 20)
        self.mount_refuses("shorter than its volume", self.image)
        os.truncate(self.image, 5000)
        self.mount_refuses("", self.image)

    def test_both_superblocks_damaged(self):
        with open(self.image, "r+b") as file:
            for block in (0, 4096):
                file.seek(block + 64)
                byte = file.read(1)
                file.seek(block + 64)
                file.write(bytes([byte[0] ^ 1]))
        self.mount_refuses("superblocks are damaged", self.image)
        self.refuses("superblocks are damaged", "info", self.image)

    def test_one_superblock_damaged(self):
        self.bed.mount()
        write(self.bed.path("file"), b"x")
        self.bed.umount()
        with open(self.image, "r+b") as file:
            file.write(bytes(4096))
        caw("mount", self.image, self.bed.dir)
        if bed.is_mounted(self.bed.dir):
            self.assertLessEqual(set(os.listdir(self.bed.dir)), {"file"})

    def test_flipped_bits_are_reported_or_harmless(self):
        self.bed.mount()
        fill(self.bed.path("tree"), files=60)
        before = manifest(self.bed.path("tree"))
        self.bed.umount()
        good = read(self.image)
        places = [at for at in range(8192, len(good)) if good[at]]
        choice = random.Random(7)
        for _ in range(25):
            bad = bytearray(good)
            bad[choice.choice(places)] ^= 1 << choice.randrange(8)
            write(self.image, bytes(bad))
            done = caw("mount", self.image, self.bed.dir)
            if done.returncode != 0:
                self.assertEqual(done.returncode, 1)
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                continue
            try:
                self.assertEqual(manifest(self.bed.path("tree")), before)
            except OSError as error:
                self.assertIn(error.errno, (5, 117), error)   # EIO, EUCLEAN
            self.bed.umount()

    def test_second_mount(self):
        self.bed.mount()
        write(self.bed.path("file"), b"x")
        second = os.path.join(self.bed.folder, "second")
        os.mkdir(second)
        done = caw("mount", self.image, second)
        self.assertEqual(done.returncode, 1)
        self.assertIn("in use by another mount; unmount it there first", done.stderr)
        done = caw("mkfs", "--force", self.image)
        self.assertEqual(done.returncode, 1)
        self.assertIn("in use", done.stderr)
        self.assertEqual(read(self.bed.path("file")), b"x")
        self.bed.remount()
        self.assertEqual(read(self.bed.path("file")), b"x")

    def test_places(self):
        self.refuses("make the directory first", "mount", self.image, self.bed.dir + "/absent")
        self.refuses("not a directory", "mount", self.image, self.image)

    def test_options(self):
        for option in ("frobnicate", "cache=1", "commit=x", "ro,compress=zstd"):
            self.refuses("option ", "mount", "-o", option, self.image, self.bed.dir, code=2)
        self.refuses("", "mount", "--frobnicate", self.image, self.bed.dir, code=2)
        self.refuses("", "mount", self.image, code=2)
        self.bed.mount("-o", "noatime,nodev,nosuid", "-o", "commit=60,cache=64M")

    def test_umount_of_what_is_not_mounted(self):
        self.refuses("no cawfs volume is mounted there", "umount", self.bed.dir)
        self.refuses("no cawfs volume is mounted there", "umount", "/proc")
        self.refuses("no cawfs volume is mounted there", "umount", self.other)

    def test_umount_while_in_use(self):
        self.bed.mount()
        with open(self.bed.path("file"), "wb"):
            done = caw("umount", self.bed.dir)
        self.assertEqual(done.returncode, 1)
        self.assertIn("in use; close what is open there", done.stderr)
        self.assertTrue(bed.is_mounted(self.bed.dir))

    def test_through_other_names(self):
        links = os.path.join(self.bed.folder, "sbin")
        os.mkdir(links)
        for name in ("mkfs.cawfs", "mount.cawfs", "cawfs"):
            os.symlink(shutil.which(bed.CAW) or bed.CAW, os.path.join(links, name))
        done = bed.run(os.path.join(links, "mkfs.cawfs"), "--force", self.image)
        self.assertEqual(done.returncode, 0, done.stderr)
        done = bed.run(os.path.join(links, "mount.cawfs"), self.image, self.bed.dir, "-s", "-o",
                       "rw,noatime,user")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.bed.umount()
        done = bed.run(os.path.join(links, "cawfs"), self.image, self.bed.dir, "-o", "rw")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.bed.umount()


class Making(Sentences):
    def test_never_overwrites_unasked(self):
        self.bed.mount()
        write(self.bed.path("file"), b"x")
        self.bed.umount()
        self.refuses("holds a cawfs volume already", "mkfs", self.image)
        self.refuses("holds a cawfs volume already", "mkfs", "--size", "1G", self.image)
        self.assertEqual(os.path.getsize(self.image), 64 << 20)
        write(self.other, b"letters to grandmother")
        self.refuses("is not empty", "mkfs", "--size", "64M", self.other)
        self.assertEqual(read(self.other), b"letters to grandmother")
        self.bed.mount()
        self.assertEqual(read(self.bed.path("file")), b"x")
        self.bed.umount()
        ok("mkfs", "--force", "--size", "128M", self.image)
        self.assertEqual(os.path.getsize(self.image), 128 << 20)
        self.bed.mount()
        self.assertEqual(os.listdir(self.bed.dir), [])

    def test_sizes_and_words(self):
        self.refuses("does not exist; give the volume's size", "mkfs", self.other)
        self.refuses("a volume needs 16M at least", "mkfs", "--size", "1M", self.other)
        self.refuses("not a size", "mkfs", "--size", "lots", self.other, code=2)
        self.refuses("none of zstd, lz4, none", "mkfs", "--size", "64M", "--compress", "rar",
                     self.other, code=2)
        self.refuses("64 bytes", "mkfs", "--size", "64M", "--label", "x" * 65, self.other, code=2)
        self.refuses("", "mkfs", "--size", "64M", os.path.join(self.other, "x", "y"))
        self.assertFalse(os.path.exists(self.other))
        ok("mkfs", "--size", "64G", "--label", "big", "--compress", "zstd", self.other)
        self.assertLess(os.stat(self.other).st_blocks * 512, 64 << 20)
        info = json.loads(ok("info", "--json", self.other))
        self.assertEqual((info["label"], info["compression"]), ("big", "zstd"))
        self.assertEqual(info["total_bytes"], 64 << 30)

    def test_sparse_file_is_empty(self):
        with open(self.other, "wb") as file:
            file.truncate(64 << 20)
        ok("mkfs", self.other)


class FullDisks(bed.MountedTest):
    size = "64M"

    def test_full_volume(self):
        """ENOSPC, nothing lost, and removing works."""
        block = os.urandom(1 << 20)
        kept = []
        try:
            for index in range(200):
                write(self.path(str(index)), block)
                kept.append(index)
        except OSError as error:
            self.assertEqual(error.errno, 28)
        self.assertTrue(20 < len(kept) < 64, len(kept))
        for index in kept:
            self.assertEqual(read(self.path(str(index))), block)
        os.unlink(self.path("0"))
        ok("rm", self.path("1"))
        for index in kept[2:20]:
            os.unlink(self.path(str(index)))
        for _ in range(100):
            ok("sync", self.path())
            try:
                write(self.path("again"), block)
                break
            except OSError:
                bed.time.sleep(0.1)
        self.assertEqual(read(self.path("again")), block)
        self.bed.remount()
        self.assertEqual(read(self.path("again")), block)
        self.assertEqual(read(self.path(str(kept[-1]))), block)

    def test_full_host(self):
        host = os.path.join(self.bed.folder, "host")
        os.mkdir(host)
        done = bed.run("mount", "-t", "tmpfs", "-o", "size=64M", "tmpfs", host)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(bed.run, "umount", "-l", host)
        small = bed.Bed("64M")
        self.addCleanup(small.destroy)
        small.image = os.path.join(host, "volume.caw")
        ok("mkfs", "--size", "1G", small.image)
        small.mount()
        block = os.urandom(1 << 20)
        kept = []
        try:
            for index in range(200):
                write(small.path(str(index)), block)
                kept.append(index)
        except OSError as error:
            self.assertEqual(error.errno, 28)
        self.assertGreater(len(kept), 10)
        ok("sync", small.dir)
        small.remount()
        for index in kept:
            self.assertEqual(read(small.path(str(index))), block)
        small.umount()


class FailingDevice(bed.MountedTest):
    """The image lies on a volume whose server is killed: from then on its every read and write
    fails."""

    def setUp(self):
        super().setUp()
        self.inner = bed.Bed("64M")
        self.addCleanup(self.inner.destroy)
        self.inner.image = self.path("image")
        ok("mkfs", "--size", "256M", self.inner.image)
        self.inner.mount()

    def write_until_it_fails(self):
        """Returns the files that were synced, and the errno."""
        synced = {}
        for number in range(200):
            data = os.urandom(1 << 20)
            if number == 20:
                self.bed.kill()
            try:
                write(self.inner.path(str(number)), data)
                fd = os.open(self.inner.path(str(number)), os.O_WRONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                return synced, error.errno
            synced[number] = data
        raise AssertionError("no write fails")

    def compare(self, synced):
        for number, data in synced.items():
            self.assertEqual(read(self.inner.path(str(number))), data)

    def test_read_only_with_a_reason(self):
        synced, failure = self.write_until_it_fails()
        self.assertIn(failure, (errno.EIO, errno.EROFS))
        self.assertEqual(len(synced), 20)
        info = self.inner.info()
        self.assertTrue(info["read_only"])
        self.assertIn("the device failed to write", info["failure"])
        sync = caw("sync", self.inner.dir)
        self.assertEqual(sync.returncode, 1)
        self.assertIn("could not be written", sync.stderr)
        self.refused(errno.EROFS, os.mkdir, self.inner.path("more"))
        self.refused(errno.EROFS, os.unlink, self.inner.path("0"))
        caw("umount", self.inner.dir)
        # With its host back it holds what was synced.
        self.bed.mount()
        self.inner.check()
        self.inner.mount()
        self.compare(synced)
        os.mkdir(self.inner.path("more"))
        self.inner.umount()
        self.inner.check()


if __name__ == "__main__":
    bed.main()
