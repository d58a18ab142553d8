"""What a volume holds after it was unmounted, or lost its server."""
import os
import signal as signal_module
import subprocess
import sys
import threading
import time
import unittest

import bed
from bed import fill, manifest, ok, read, write


def all_stopped(pid):
    """Every thread of a process that was sent SIGSTOP."""
    states = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/stat", encoding="ascii") as file:
            states.add(file.read().rsplit(")", 1)[1].split()[0])
    return states == {"T"}


class Remounting(bed.MountedTest):
    def test_everything_is_there_again(self):
        fill(self.path("tree"), files=400)
        ok("clone", self.path("tree"), self.path("clone"))
        fill(self.path("clone", "more"), files=50, seed=2)
        before = manifest(self.path(), numbers=True)
        for _ in range(3):
            self.bed.remount()
            self.assertEqual(manifest(self.path(), numbers=True), before)

    def test_read_only_changes_nothing(self):
        fill(self.path("tree"), files=50)
        before = manifest(self.path(), numbers=True)
        self.bed.umount()
        with open(self.bed.image, "rb") as file:
            image = file.read(64 << 20)
        self.bed.mount("-o", "ro")
        self.assertEqual(manifest(self.path(), numbers=True), before)
        self.bed.umount()
        with open(self.bed.image, "rb") as file:
            self.assertEqual(file.read(64 << 20), image)

    def test_image_is_free_after_umount(self):
        for round_ in range(5):
            write(self.path(str(round_)), b"x")
            self.bed.umount()
            self.assertTrue(self.bed.info(self.bed.image)["unmounted_in_order"])
            self.bed.mount()

    def test_umount_says_what_it_waits_for(self):
        pid = self.bed.info()["pid"]
        told = os.path.ismount("/sys/fs/fuse/connections")
        os.kill(pid, signal_module.SIGSTOP)
        try:
            while not all_stopped(pid):
                time.sleep(0.01)
            umount = subprocess.Popen([bed.CAW, "umount", self.bed.dir], stderr=subprocess.PIPE,
                                      text=True)
            with self.assertRaises(subprocess.TimeoutExpired):
                umount.wait(10)
        finally:
            os.kill(pid, signal_module.SIGCONT)
        said = umount.communicate(timeout=60)[1]
        self.assertEqual(umount.returncode, 0, said)
        self.assertIn("still waiting for an answer of the server", said)
        if told:
            self.assertIn("requests not answered yet: 1", said)
        self.assertEqual(len(said.splitlines()), 1)
        self.bed.check()

    def test_ends_on_a_signal(self):
        write(self.path("file"), b"x")
        pid = self.bed.info()["pid"]
        os.kill(pid, 15)
        bed.wait_for_end(pid)
        self.assertFalse(bed.is_mounted(self.bed.dir))
        self.assertTrue(self.bed.info(self.bed.image)["unmounted_in_order"])
        self.bed.mount()
        self.assertEqual(read(self.path("file")), b"x")

    def test_small_trees(self):
        """The same with a shape that makes small trees deep."""
        bed_ = bed.Bed(mkfs=("--leaf-bytes", "4096", "--fanout", "4", "--buffer-bytes", "8192",
                             "--run-bytes", "4096", "--floor-bytes", "512"))
        self.addCleanup(bed_.destroy)
        bed_.mount()
        fill(bed_.path("tree"), files=300)
        before = manifest(bed_.path("tree"))
        ok("clone", bed_.path("tree"), bed_.path("clone"))
        fill(bed_.path("clone", "more"), files=100, seed=3)
        after = manifest(bed_.path("clone"))
        bed_.remount()
        self.assertEqual(manifest(bed_.path("tree")), before)
        self.assertEqual(manifest(bed_.path("clone")), after)


class Crashes(bed.MountedTest):
    def test_what_was_synced_is_there(self):
        fill(self.path("tree"))
        before = manifest(self.path("tree"), numbers=True)
        ok("sync", self.path())
        fill(self.path("later"), files=100, seed=2)
        self.bed.kill()
        self.bed.mount()
        self.assertEqual(manifest(self.path("tree"), numbers=True), before)
        manifest(self.path())

    def test_fsync_takes_all_before_it(self):
        write(self.path("one"), b"1")
        os.mkdir(self.path("dir"))
        write(self.path("dir", "two"), b"2")
        fd = os.open(self.path("dir"), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        self.bed.kill()
        self.bed.mount()
        self.assertEqual(read(self.path("one")), b"1")
        self.assertEqual(read(self.path("dir", "two")), b"2")

    def test_commit_interval(self):
        self.bed.umount()
        self.bed.mount("-o", "commit=1")
        write(self.path("file"), b"x")
        time.sleep(4)
        self.bed.kill()
        self.bed.mount()
        self.assertEqual(read(self.path("file")), b"x")

    def test_ends_in_the_middle_of_flushing(self):
        """Clones that wait for pages dirtied through mmap do not keep a server from ending: more
        of them than threads of the loop may wait, so that the worker has some, too."""
        client = ("import mmap,os,subprocess,sys,threading\n"
                  "caw, root = sys.argv[1:]\n"
                  "def clone(number):\n"
                  "    for turn in range(1000):\n"
                  "        subprocess.run([caw, 'clone', root + '/s', f'{root}/{number}.{turn}'],\n"
                  "                       stderr=subprocess.DEVNULL, check=True)\n"
                  "for number in range(12):\n"
                  "    threading.Thread(target=clone, args=(number,), daemon=True).start()\n"
                  "with open(root + '/s/f', 'r+b') as file:\n"
                  "    memory = mmap.mmap(file.fileno(), 0)\n"
                  "    while True:\n"
                  "        for page in range(0, len(memory), 4096):\n"
                  "            memory[page] = memory[page] % 200 + 1\n")
        for signal in (signal_module.SIGTERM, signal_module.SIGKILL) * 2:
            if not os.path.exists(self.path("s")):
                os.mkdir(self.path("s"))
            write(self.path("s", "f"), bytes(8 << 20))
            pid = self.bed.info()["pid"]
            busy = subprocess.Popen([sys.executable, "-c", client, bed.CAW, self.bed.dir],
                                    stderr=subprocess.DEVNULL)
            time.sleep(1)
            os.kill(pid, signal)
            try:
                bed.wait_for_end(pid, 10)
            finally:
                busy.kill()
            busy.wait(10)
            bed.run("umount", "-l", self.bed.dir)
            self.bed.check()
            self.bed.mount()

    def test_killed_while_busy(self):
        """In order: a file is never there without all files made before it."""
        for round_ in range(4):
            folder = self.path(f"r{round_}")
            os.mkdir(folder)
            synced = [0]

            def work(folder=folder, synced=synced):
                try:
                    for number in range(100_000):
                        write(os.path.join(folder, str(number)), str(number) * 100)
                        if number % 50 == 49:
                            if number % 100 == 99:
                                bed.caw("clone", folder, f"{folder}.{number}")
                            if bed.caw("sync", folder).returncode == 0:
                                synced[0] = number + 1
                except OSError:
                    pass

            thread = threading.Thread(target=work)
            thread.start()
            time.sleep(1.0 + 0.3 * round_)
            self.bed.kill()
            thread.join()
            self.bed.mount()
            found = sorted(int(name) for name in os.listdir(folder))
            self.assertEqual(found, list(range(len(found))))
            self.assertGreaterEqual(len(found), synced[0])
            for number in found[:-1]:
                self.assertEqual(read(os.path.join(folder, str(number))),
                                 (str(number) * 100).encode())
            for name in os.listdir(self.path()):
                if name.startswith(f"r{round_}."):
                    count = int(name.split(".")[1]) + 1
                    self.assertEqual(len(os.listdir(self.path(name))), count)


if __name__ == "__main__":
    bed.main()
