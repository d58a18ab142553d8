"""caw fsck --repair and caw scrub, as people call them."""
import json
import os
import random
import signal
import subprocess
import threading
import time
import unittest

import bed
from bed import caw, ok, read, write

BLOCK = 4096


def find_data(image, data):
    """Offset in the image of the block that begins with `data`."""
    with open(image, "rb") as file:
        while block := file.read(BLOCK):
            if block.startswith(data):
                return file.tell() - len(block)
    raise AssertionError("the data are not in the image")


def flip(image, offset):
    with open(image, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 4]))


class Damaged(unittest.TestCase):
    def setUp(self):
        self.bed = bed.Bed("64M", ("--compress", "none"))
        self.addCleanup(self.bed.destroy)
        self.data = random.Random(1).randbytes(400_000)
        self.bed.mount()
        os.mkdir(self.bed.path("dir"))
        write(self.bed.path("dir", "big"), self.data)
        write(self.bed.path("small"), b"small")
        ok("clone", self.bed.path("dir"), self.bed.path("clone"))
        ok("sync", "--checkpoint", self.bed.dir)

    def damage(self):
        flip(self.bed.image, find_data(self.bed.image, self.data[131072:131104]) + 100)

    def fsck(self, *flags, code):
        done = caw("fsck", *flags, self.bed.image)
        self.assertEqual(done.returncode, code, (flags, done.stdout, done.stderr))
        return done.stdout


class Repair(Damaged):
    def test_sound_volume_is_left_alone(self):
        self.bed.umount()
        before = read(self.bed.image)
        for flag in ("--repair", "-n", "-y", "-p", "-a"):
            self.assertIn("sound", self.fsck(flag, code=0))
        self.assertEqual(read(self.bed.image), before)

    def test_damaged_data(self):
        self.bed.umount()
        self.damage()
        before = read(self.bed.image)
        self.fsck(code=4)
        self.assertIn("would repair: /dir/big: bytes 131072 to 262144", self.fsck("-n", code=4))
        self.assertEqual(read(self.bed.image), before, "-n changed the image")
        self.assertIn("repaired: /dir/big: bytes 131072 to 262144", self.fsck("--repair", code=1))
        self.assertIn("sound", self.fsck("--repair", code=0))
        self.bed.mount()
        for top in ("dir", "clone"):
            with open(self.bed.path(top, "big"), "rb", buffering=0) as file:
                self.assertEqual(os.pread(file.fileno(), 131072, 0), self.data[:131072])
                self.assertRaises(OSError, os.pread, file.fileno(), 4096, 135168)
                self.assertEqual(os.pread(file.fileno(), 1000, 262144), self.data[262144:263144])
        write(self.bed.path("dir", "big"), self.data)
        self.assertEqual(read(self.bed.path("dir", "big")), self.data)
        self.bed.umount()
        self.bed.check()

    def test_json(self):
        self.bed.umount()
        self.damage()
        report = json.loads(self.fsck("--repair", "--json", code=1))
        self.assertFalse(report["sound"])
        self.assertTrue(report["repair"]["sound"])
        self.assertEqual(report["repair"]["count"], len(report["repair"]["done"]))

    def test_mounted_volume_is_refused(self):
        done = caw("fsck", "--repair", self.bed.image)
        self.assertEqual(done.returncode, 8)
        self.assertIn("in use", done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)

    def test_both_superblocks_gone(self):
        self.bed.umount()
        for block in (0, 1):
            flip(self.bed.image, block * BLOCK + 300)
        done = caw("fsck", "--repair", self.bed.image)
        self.assertEqual(done.returncode, 8)
        self.assertEqual(done.stderr.count("\n"), 1)


class Scrub(Damaged):
    def test_sound(self):
        out = ok("scrub", self.bed.path("dir"))
        self.assertIn("sound", out)
        for number in range(300):
            write(self.bed.path(f"more{number}"), b"x" * 1000)
        ok("sync", "--checkpoint", self.bed.dir)
        self.assertIn("sound", ok("scrub", "--fast", self.bed.dir))

    def test_damage_is_found_while_mounted(self):
        self.damage()
        done = caw("scrub", self.bed.dir)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn("file data at block", done.stdout)
        self.assertIn("damaged in 1 places", done.stdout)

    def test_while_others_write_and_remove(self):
        stop = threading.Event()

        def work():
            number = 0
            while not stop.is_set():
                number += 1
                write(self.bed.path("busy"), os.urandom(200_000))
                ok("clone", self.bed.path("dir"), self.bed.path(f"c{number}"))
                ok("rm", self.bed.path(f"c{number}"))
                ok("sync", "--checkpoint", self.bed.dir)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            for _ in range(20):
                self.assertIn("sound", ok("scrub", "--fast", self.bed.dir))
        finally:
            stop.set()
            worker.join()

    def test_ends_when_asked(self):
        write(self.bed.path("large"), random.Random(2).randbytes(24 << 20))
        ok("sync", "--checkpoint", self.bed.dir)
        scrub = subprocess.Popen([bed.CAW, "scrub", self.bed.dir], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True)
        time.sleep(0.02)
        scrub.send_signal(signal.SIGINT)
        out, _ = scrub.communicate(timeout=60)
        self.assertIn(scrub.returncode, (0, 1, -signal.SIGINT))
        if scrub.returncode == 1:
            self.assertIn("stopped", out)

    def test_elsewhere(self):
        done = caw("scrub", self.bed.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("not on a mounted cawfs volume", done.stderr)


if __name__ == "__main__":
    bed.main()
