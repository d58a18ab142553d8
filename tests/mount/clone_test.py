"""The contract of a clone (docs/clone.md), through the mount and the command."""
import errno
import mmap
import os
import threading
import unittest

import bed
from bed import caw, fill, manifest, ok, read, write


class Clones(bed.MountedTest):
    def clone(self, source, destination):
        ok("clone", self.path(source), self.path(destination))

    def test_equals_its_source(self):
        fill(self.path("s"))
        self.clone("s", "d")
        self.assertEqual(manifest(self.path("d")), manifest(self.path("s")))
        self.assertEqual(ok("same", self.path("s"), self.path("d")), "")

    def test_numbers_are_its_own(self):
        fill(self.path("s"), files=50)
        before = manifest(self.path("s"), numbers=True)
        self.clone("s", "d")
        self.clone("d", "e")
        numbers = [entry[-1] for tree in "sde"
                   for entry in manifest(self.path(tree), numbers=True).values()]
        self.assertEqual(len(numbers), len(set(numbers)))
        self.assertEqual(manifest(self.path("s"), numbers=True), before)
        devices = {os.lstat(self.path(tree)).st_dev for tree in ("s", "d", "e", "")}
        self.assertEqual(len(devices), 1)

    def test_both_sides_are_independent(self):
        fill(self.path("s"))
        before = manifest(self.path("s"))
        self.clone("s", "d")
        victim = os.path.join("d1", "e1", "file 1")
        write(self.path("d", victim), b"changed")
        os.unlink(self.path("d", "link"))
        os.rename(self.path("d", "d3"), self.path("d", "moved"))
        write(self.path("d", "new"), b"new")
        self.assertEqual(manifest(self.path("s")), before)

        changed = manifest(self.path("d"))
        with open(self.path("s", victim), "ab") as file:
            file.write(b"also changed")
        bed.run("rm", "-rf", self.path("s", "d2"))
        os.chmod(self.path("s", "d4"), 0o700)
        self.assertEqual(manifest(self.path("d")), changed)
        bed.run("rm", "-rf", self.path("s"))
        self.assertEqual(manifest(self.path("d")), changed)
        self.bed.remount()
        self.assertEqual(manifest(self.path("d")), changed)

    def test_clone_of_clone_of_clone(self):
        fill(self.path("0"), files=30)
        for level in range(20):
            self.clone(str(level), str(level + 1))
            write(self.path(str(level + 1), "level"), str(level))
        for level in range(1, 21):
            self.assertEqual(read(self.path(str(level), "level")), str(level - 1).encode())
        first, last = manifest(self.path("0")), manifest(self.path("20"))
        del last["level"], last["."], first["."]
        self.assertEqual(last, first)

    def test_into_itself(self):
        fill(self.path("a"), files=30)
        before = manifest(self.path("a"))
        self.clone("a", "a/b")
        self.clone("a", "a/c")
        inner = manifest(self.path("a", "b"))
        self.assertEqual(inner.keys(), before.keys())
        self.assertTrue(os.path.isdir(self.path("a", "c", "b")))
        self.assertFalse(os.path.exists(self.path("a", "c", "c")))

    def test_of_the_root(self):
        fill(self.path("a"), files=30)
        before = manifest(self.path("a"))
        self.clone("", "copy")
        self.assertEqual(os.listdir(self.path("copy")), ["a"])
        self.assertEqual(manifest(self.path("copy", "a")), before)

    def test_of_a_file(self):
        data = os.urandom(1_000_000)
        write(self.path("s"), data)
        os.chmod(self.path("s"), 0o640)
        self.clone("s", "d")
        self.assertEqual(bed.describe(self.path("d")), bed.describe(self.path("s")))
        with open(self.path("d"), "r+b") as file:
            file.write(b"changed")
        self.assertEqual(read(self.path("s")), data)
        self.assertEqual(read(self.path("d")), b"changed" + data[7:])

    def test_of_a_subdirectory_of_a_clone(self):
        fill(self.path("s"))
        self.clone("s", "d")
        write(self.path("d", "d1", "own"), b"own")
        self.clone("d/d1", "e")
        self.assertEqual(manifest(self.path("e")), manifest(self.path("d", "d1")))
        self.clone("e", "s/d5/deep")
        self.assertEqual(manifest(self.path("s", "d5", "deep")), manifest(self.path("e")))

    def test_rename_between_source_and_clone(self):
        fill(self.path("s"), files=40)
        self.clone("s", "d")
        before = manifest(self.path("d", "d1"))
        del before["."]   # its change time is that of the rename
        os.rename(self.path("d", "d1"), self.path("s", "from clone"))
        for _ in range(2):
            after = manifest(self.path("s", "from clone"))
            del after["."]
            self.assertEqual(after, before)
            self.bed.remount()
        self.assertFalse(os.path.exists(self.path("d", "d1")))

    def test_what_is_durable(self):
        fill(self.path("s"))
        before = manifest(self.path("s"))
        ok("clone", "--sync", self.path("s"), self.path("d"))
        self.bed.kill()
        self.bed.mount()
        self.assertEqual(manifest(self.path("d")), before)
        self.assertEqual(manifest(self.path("s")), before)


class KernelCaches(bed.MountedTest):
    """What the kernel remembers must not hide a clone, nor show what is gone."""

    def test_name_seen_absent_before(self):
        os.mkdir(self.path("s"))
        write(self.path("s", "file"), b"x")
        for _ in range(3):
            self.assertFalse(os.path.exists(self.path("d")))
            self.assertEqual(os.listdir(self.path()), ["s"])
            before = os.stat(self.path()).st_mtime_ns
            ok("clone", self.path("s"), self.path("d"))
            self.assertEqual(read(self.path("d", "file")), b"x")
            self.assertEqual(sorted(os.listdir(self.path())), ["d", "s"])
            self.assertGreater(os.stat(self.path()).st_mtime_ns, before)
            ok("rm", self.path("d"))
            self.assertFalse(os.path.exists(self.path("d")))
            self.assertFalse(os.path.exists(self.path("d", "file")))
            self.assertEqual(os.listdir(self.path()), ["s"])

    def test_removed_and_made_again(self):
        os.mkdir(self.path("s"))
        for round_ in range(5):
            write(self.path("s", "file"), str(round_))
            ok("clone", self.path("s"), self.path("d"))
            self.assertEqual(read(self.path("d", "file")), str(round_).encode())
            ok("rm", self.path("d"))

    def test_open_files_stay_with_the_source(self):
        write(self.path("f"), b"0123456789")
        os.mkdir(self.path("s"))
        os.rename(self.path("f"), self.path("s", "f"))
        with open(self.path("s", "f"), "r+b") as file:
            ok("clone", self.path("s"), self.path("d"))
            file.seek(2)
            file.write(b"after")
            file.flush()
            self.assertEqual(read(self.path("s", "f")), b"01after789")
            self.assertEqual(read(self.path("d", "f")), b"0123456789")
            ok("rm", self.path("s"))
            file.seek(0)
            self.assertEqual(file.read(), b"01after789")
        self.assertEqual(read(self.path("d", "f")), b"0123456789")

    def test_stores_through_mmap_are_in(self):
        os.mkdir(self.path("s"))
        write(self.path("s", "f"), bytes(1 << 20))
        with open(self.path("s", "f"), "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            for round_ in range(10):
                text = f"round {round_}".encode()
                memory[round_ * 5000:round_ * 5000 + len(text)] = text
                ok("clone", self.path("s"), self.path(f"d{round_}"))
                memory[round_ * 5000:round_ * 5000 + len(text)] = b"x" * len(text)
            for round_ in range(10):
                text = f"round {round_}".encode()
                found = read(self.path(f"d{round_}", "f"))
                self.assertEqual(found[round_ * 5000:][:len(text)], text)
        self.assertGreaterEqual(self.bed.info()["flushed_writers"], 10)

    def test_closed_files_cost_nothing(self):
        fill(self.path("s"), files=50)
        ok("clone", self.path("s"), self.path("d"))
        self.assertEqual(self.bed.info()["flushed_writers"], 0)

    def test_clones_while_others_write(self):
        """No clone is torn: in each, `second` never runs ahead of `first`."""
        os.mkdir(self.path("s"))
        for name in ("first", "second"):
            write(self.path("s", name), b"00000000")
        stop = threading.Event()

        def writer():
            first = os.open(self.path("s", "first"), os.O_WRONLY)
            second = os.open(self.path("s", "second"), os.O_WRONLY)
            number = 0
            while not stop.is_set():
                number += 1
                os.pwrite(first, b"%08d" % number, 0)
                os.pwrite(second, b"%08d" % number, 0)
            os.close(first)
            os.close(second)

        thread = threading.Thread(target=writer)
        thread.start()
        try:
            for index in range(60):
                ok("clone", self.path("s"), self.path(f"d{index}"))
        finally:
            stop.set()
            thread.join()
        last = -1
        for index in range(60):
            first = int(read(self.path(f"d{index}", "first")))
            second = int(read(self.path(f"d{index}", "second")))
            self.assertIn(first - second, (0, 1))
            self.assertGreaterEqual(first, last)
            last = first

    def test_many_clones_at_once(self):
        fill(self.path("s"), files=30)
        wrong = []

        def cloner(index):
            for round_ in range(5):
                done = caw("clone", self.path("s"), self.path(f"d{index}.{round_}"))
                if done.returncode != 0:
                    wrong.append(done.stderr)

        with open(self.path("s", "sparse"), "r+b") as file, \
                mmap.mmap(file.fileno(), 1 << 20) as memory:
            threads = [threading.Thread(target=cloner, args=(index,)) for index in range(8)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                memory[4096:4104] = os.urandom(8)
            for thread in threads:
                thread.join()
        self.assertEqual(wrong, [])
        self.assertEqual(len(os.listdir(self.path())), 41)


class Removal(bed.MountedTest):
    def test_trees_files_and_links(self):
        fill(self.path("s"))
        ok("clone", self.path("s"), self.path("d"))
        before = manifest(self.path("s"))
        write(self.path("file"), b"x")
        os.symlink("s", self.path("link"))
        ok("rm", self.path("d"), self.path("file"), self.path("link"))
        self.assertEqual(os.listdir(self.path()), ["s"])
        self.assertEqual(manifest(self.path("s")), before)
        ok("rm", self.path("s", "d1") + "/")
        self.assertFalse(os.path.exists(self.path("s", "d1")))
        self.bed.remount()
        self.assertFalse(os.path.exists(self.path("s", "d1")))
        self.assertEqual(os.listdir(self.path()), ["s"])

    def test_space_comes_back(self):
        os.mkdir(self.path("s"))
        free = os.statvfs(self.path()).f_bavail
        for index in range(20):
            write(self.path("s", str(index)), os.urandom(4 << 20))
        bed.ok("sync", self.path())
        self.assertLess(os.statvfs(self.path()).f_bavail, free - (70 << 20) // 4096)
        ok("rm", self.path("s"))
        for _ in range(100):
            bed.ok("sync", self.path())
            if os.statvfs(self.path()).f_bavail > free - (8 << 20) // 4096:
                return
            bed.time.sleep(0.1)
        self.fail(f"free before {free}, after {os.statvfs(self.path()).f_bavail} blocks")

    def test_refusals(self):
        done = caw("rm", self.path("absent"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("no such file or directory", done.stderr)
        for path in (self.path("."), self.path(".."), "/"):
            self.assertEqual(caw("rm", path).returncode, 1, path)
        self.assertEqual(caw("rm", self.bed.dir).returncode, 1)
        self.assertIn("not on a mounted cawfs volume", caw("rm", self.bed.image).stderr)
        self.assertTrue(os.path.exists(self.bed.image))


class Refusals(bed.MountedTest):
    def refuses(self, source, destination, words):
        done = caw("clone", source, destination)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("caw clone: "), done.stderr)
        self.assertIn(words, done.stderr)

    def test_one_sentence_for_each(self):
        os.mkdir(self.path("s"))
        os.mkdir(self.path("d"))
        os.mkfifo(self.path("fifo"))
        write(self.path("file"), b"")
        outside = self.bed.folder
        self.refuses(self.path("s"), self.path("d"), "exists already")
        self.refuses(self.path("s"), self.path(), "exists already")
        self.refuses(self.path("absent"), self.path("x"), "no such file")
        self.refuses(self.path("s"), self.path("absent", "x"), "there is no directory")
        self.refuses(self.path("s"), self.path("file", "x"), "is not a directory")
        self.refuses(self.path("s"), self.path("n" * 256), "longer than 255")
        self.refuses(self.path("s"), os.path.join(outside, "x"), "not on a mounted cawfs volume")
        self.refuses(outside, self.path("x"), "not on a mounted cawfs volume")
        self.refuses(self.path("fifo"), self.path("x"), "neither a directory nor a regular file")
        self.assertEqual(sorted(os.listdir(self.path())), ["d", "fifo", "file", "s"])

    def test_other_volume(self):
        other = bed.Bed("64M")
        self.addCleanup(other.destroy)
        other.mount()
        os.mkdir(self.path("s"))
        self.refuses(self.path("s"), other.path("d"), "not on the same volume")
        self.assertEqual(os.listdir(other.dir), [])

    def test_read_only(self):
        os.mkdir(self.path("s"))
        self.bed.umount()
        self.bed.mount("-o", "ro")
        self.refuses(self.path("s"), self.path("d"), "read-only")
        self.refused(errno.EROFS, os.mkdir, self.path("x"))

    def test_of_others_files(self):
        os.mkdir(self.path("s"))
        os.mkdir(self.path("open"))
        os.chmod(self.path("open"), 0o777)
        self.bed.umount()
        os.chmod(self.bed.folder, 0o755)
        self.bed.mount("-o", "allow_other")
        as_user = ("import os,sys\nos.setgroups([]);os.setgid(99);os.setuid(99)\n"
                   "os.execv(sys.argv[1], sys.argv[1:])")
        done = bed.run("python3", "-c", as_user, bed.CAW, "clone", self.path("s"),
                       self.path("open", "d"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("you do not own it", done.stderr)
        os.mkdir(self.path("open", "theirs"))
        os.chown(self.path("open", "theirs"), 99, 99)
        done = bed.run("python3", "-c", as_user, bed.CAW, "clone", self.path("open", "theirs"),
                       self.path("d"))
        self.assertIn("permission denied", done.stderr)
        done = bed.run("python3", "-c", as_user, bed.CAW, "clone", self.path("open", "theirs"),
                       self.path("open", "d"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_usage(self):
        for arguments in (["clone"], ["clone", "a"], ["clone", "a", "b", "c"],
                          ["clone", "--frobnicate", "a", "b"], ["rm"], ["sync"], ["same", "a"],
                          ["umount"], ["frobnicate"], []):
            done = caw(*arguments)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertNotEqual(done.stderr, "")
        for command in ("mkfs", "mount", "umount", "clone", "rm", "sync", "same", "info"):
            done = caw(command, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("caw " + command, done.stdout)


if __name__ == "__main__":
    bed.main()
