"""Hard links through the mount: POSIX, programs that use them, clones (docs/clone.md, 6)."""
import errno
import os
import shutil
import stat
import unittest

import bed
from bed import caw, fill, manifest, ok, read, write


def nlink(path):
    return os.lstat(path).st_nlink


def ino(path):
    return os.lstat(path).st_ino


def groups(root):
    """Which names below `root` are one file, and how many links it has."""
    names = {}
    for folder, _, files in os.walk(root, onerror=bed.fail_to_read):
        for name in files:
            path = os.path.join(folder, name)
            names.setdefault(ino(path), set()).add(os.path.relpath(path, root))
    return sorted((sorted(group), nlink(os.path.join(root, min(group))))
                  for group in names.values() if len(group) > 1)


def fill_linked(root, files=60):
    """A tree with groups of links within and across its directories."""
    fill(root, files)
    paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(root)
                   for name in names if name.startswith("file "))
    for index, path in enumerate(paths[:30]):
        for copy in range(index % 3):
            os.link(path, os.path.join(root, f"d{(index + copy) % 7}", f"link {index}.{copy}"))


class Links(bed.MountedTest):
    def remounted(self):
        self.bed.umount()
        self.bed.check()
        self.bed.mount()

    def clone(self, source, destination):
        ok("clone", self.path(source), self.path(destination))

    def test_one_file_under_two_names(self):
        write(self.path("a"), "one")
        before = ino(self.path("a"))
        os.mkdir(self.path("d"))
        parent = os.stat(self.path("d"))
        ctime = os.stat(self.path("a")).st_ctime_ns
        os.link(self.path("a"), self.path("d", "b"))
        self.assertEqual((nlink(self.path("a")), nlink(self.path("d", "b"))), (2, 2))
        self.assertEqual(ino(self.path("d", "b")), before)
        self.assertGreater(os.stat(self.path("a")).st_ctime_ns, ctime)
        self.assertGreater(os.stat(self.path("d")).st_mtime_ns, parent.st_mtime_ns)
        with open(self.path("d", "b"), "ab") as file:
            file.write(b" two")
        os.chmod(self.path("a"), 0o640)
        self.remounted()
        self.assertEqual(read(self.path("a")), b"one two")
        self.assertEqual(stat.S_IMODE(os.stat(self.path("d", "b")).st_mode), 0o640)
        self.assertEqual(ino(self.path("d", "b")), before)
        with os.scandir(self.path("d")) as entries:
            self.assertEqual([entry.inode() for entry in entries], [before])
        os.unlink(self.path("a"))
        self.assertEqual(nlink(self.path("d", "b")), 1)
        self.assertEqual(read(self.path("d", "b")), b"one two")
        self.assertEqual(ino(self.path("d", "b")), before)

    def test_what_cannot_be_linked(self):
        write(self.path("a"), "")
        os.mkdir(self.path("d"))
        self.refused(errno.EEXIST, os.link, self.path("a"), self.path("d"))
        self.refused(errno.EPERM, os.link, self.path("d"), self.path("e"))
        self.refused(errno.ENOENT, os.link, self.path("none"), self.path("e"))
        self.refused(errno.ENAMETOOLONG, os.link, self.path("a"), self.path("n" * 256))
        self.assertEqual(nlink(self.path("a")), 1)
        with open(self.path("a"), "rb") as file:
            os.unlink(self.path("a"))
            folder = os.open(self.bed.dir, os.O_RDONLY)
            self.addCleanup(os.close, folder)
            self.refused(errno.ENOENT, lambda: os.link(f"/proc/self/fd/{file.fileno()}", "e",
                                                       src_dir_fd=folder, dst_dir_fd=folder))

    def test_every_kind_of_file(self):
        os.symlink("target", self.path("symlink"))
        os.mkfifo(self.path("fifo"))
        os.mknod(self.path("device"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(self.path("socket"), 0o600 | stat.S_IFSOCK)
        for name in ("symlink", "fifo", "device", "socket"):
            os.link(self.path(name), self.path(f"{name}2"), follow_symlinks=False)
            self.assertEqual(os.lstat(self.path(f"{name}2")), os.lstat(self.path(name)))
            self.assertEqual(nlink(self.path(name)), 2)
        self.remounted()
        self.assertEqual(os.readlink(self.path("symlink2")), "target")

    def test_rename(self):
        write(self.path("a"), "1")
        os.link(self.path("a"), self.path("b"))
        os.rename(self.path("a"), self.path("b"))  # of one file: nothing happens
        self.assertEqual(sorted(os.listdir(self.bed.dir)), ["a", "b"])
        os.mkdir(self.path("d"))
        os.rename(self.path("a"), self.path("d", "c"))
        self.assertEqual(ino(self.path("d", "c")), ino(self.path("b")))
        write(self.path("other"), "2")
        os.rename(self.path("other"), self.path("b"))
        self.assertEqual((nlink(self.path("d", "c")), read(self.path("d", "c"))), (1, b"1"))

    def test_unlinked_while_open(self):
        write(self.path("a"), "kept")
        os.link(self.path("a"), self.path("b"))
        with open(self.path("a"), "r+b") as file:
            os.unlink(self.path("a"))
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 1)
            os.unlink(self.path("b"))
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 0)
            file.write(b"more")
            file.seek(0)
            self.assertEqual(file.read(), b"more")
        self.remounted()
        self.assertEqual(os.listdir(self.bed.dir), [])

    def test_clone_of_a_whole_tree(self):
        fill_linked(self.path("s"))
        before = groups(self.path("s"))
        self.assertTrue(before)
        self.clone("s", "d")
        self.clone("d", "e")
        for tree in "sde":
            self.assertEqual(groups(self.path(tree)), before, tree)
        self.assertEqual(manifest(self.path("d")), manifest(self.path("s")))
        numbers = [{ino(self.path(tree, name)) for group, _ in before for name in group}
                   for tree in "sde"]
        self.assertEqual(len(set.union(*numbers)), sum(map(len, numbers)))
        ok("same", self.path("s"), self.path("d"))
        first = before[0][0]
        write(self.path("d", first[0]), "only in d")
        self.assertEqual(read(self.path("d", first[1])), b"only in d")
        self.assertNotEqual(read(self.path("s", first[0])), b"only in d")
        self.assertNotEqual(caw("same", self.path("s"), self.path("d")).returncode, 0)
        ok("rm", self.path("s"))
        self.remounted()
        for tree in "de":
            self.assertEqual(groups(self.path(tree)), before, tree)

    def test_clone_across_the_border_of_groups(self):
        os.mkdir(self.path("in"))
        os.mkdir(self.path("out"))
        for index in range(10):
            write(self.path("in", f"a{index}"), f"file {index}")
            os.link(self.path("in", f"a{index}"), self.path("out", f"b{index}"))
            if index % 2:
                os.link(self.path("in", f"a{index}"), self.path("in", f"c{index}"))
        self.clone("in", "d")
        self.clone("d", "e")
        for tree in ("d", "e"):
            for index in range(10):
                self.assertEqual(nlink(self.path(tree, f"a{index}")), 1 + index % 2)
                self.assertEqual(read(self.path(tree, f"a{index}")), f"file {index}".encode())
            self.assertEqual(ino(self.path(tree, "a1")), ino(self.path(tree, "c1")))
        self.assertEqual(nlink(self.path("in", "a1")), 3)
        self.assertEqual(ino(self.path("in", "a1")), ino(self.path("out", "b1")))
        ok("rm", self.path("in"))
        self.assertEqual([nlink(self.path("out", f"b{i}")) for i in range(10)], [1] * 10)
        self.remounted()
        self.assertEqual([nlink(self.path("out", f"b{i}")) for i in range(10)], [1] * 10)
        self.assertEqual(nlink(self.path("e", "c1")), 2)

    def test_links_between_clones(self):
        fill_linked(self.path("s"), files=20)
        self.clone("s", "d")
        inner = groups(self.path("s"))[0][0]
        os.link(self.path("s", inner[0]), self.path("d", "from s"))
        count = nlink(self.path("s", inner[0]))
        self.assertEqual(count, len(inner) + 1)
        self.assertEqual(ino(self.path("d", "from s")), ino(self.path("s", inner[1])))
        self.clone("d", "e")
        self.assertEqual(nlink(self.path("e", "from s")), 1)
        self.assertEqual(nlink(self.path("s", inner[0])), count)
        os.rename(self.path("s", inner[1]), self.path("d", "moved"))
        self.assertEqual(ino(self.path("d", "moved")), ino(self.path("s", inner[0])))
        folder = os.path.dirname(inner[0])
        os.rename(self.path("s", folder), self.path("d", "folder"))
        self.remounted()
        self.assertEqual(nlink(self.path("d", "from s")), count)
        ok("rm", self.path("d"))
        self.remounted()
        left = sum(1 for name in inner[2:] if not name.startswith(folder + "/"))
        for name in inner[2:]:
            if not name.startswith(folder + "/"):
                self.assertEqual(nlink(self.path("s", name)), left)

    def test_removal_tells_the_kernel(self):
        os.makedirs(self.path("a", "b"))
        write(self.path("kept"), "x")
        os.link(self.path("kept"), self.path("a", "b", "c"))
        write(self.path("a", "open"), "y")
        os.link(self.path("a", "open"), self.path("a", "b", "open"))
        self.assertEqual(nlink(self.path("kept")), 2)
        with open(self.path("a", "open"), "rb") as file:
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 2)
            ok("rm", self.path("a"))
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 0)
            self.assertEqual(file.read(), b"y")
        self.assertEqual(nlink(self.path("kept")), 1)

    def test_a_cloned_file_is_a_file_of_its_own(self):
        write(self.path("a"), b"z" * 300_000)
        os.link(self.path("a"), self.path("b"))
        self.clone("a", "c")
        self.assertEqual((nlink(self.path("c")), nlink(self.path("a"))), (1, 2))
        self.assertEqual(read(self.path("c")), read(self.path("b")))

    def test_many(self):
        os.makedirs(self.path("s", "in"))
        for index in range(3000):
            write(self.path("s", "in", str(index)), str(index))
        done = bed.run("cp", "-al", self.path("s", "in"), self.path("s", "out"))
        self.assertEqual(done.stderr, "")
        self.clone("s", "whole")
        self.clone("s/in", "part")
        self.remounted()
        self.assertEqual({nlink(self.path("whole", "out", str(i))) for i in range(3000)}, {2})
        self.assertEqual({nlink(self.path("part", str(i))) for i in range(3000)}, {1})
        ok("rm", self.path("s", "out"))
        self.assertEqual({nlink(self.path("s", "in", str(i))) for i in range(3000)}, {1})
        self.assertEqual({nlink(self.path("whole", "in", str(i))) for i in range(3000)}, {2})


class Programs(bed.MountedTest):
    def test_cp_with_links(self):
        fill(self.path("s"))
        done = bed.run("cp", "-al", self.path("s"), self.path("copy"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(manifest(self.path("copy"), numbers=False).keys(),
                         manifest(self.path("s")).keys())
        for group, links in groups(self.bed.dir):
            self.assertEqual((len(group), links), (2, 2))
        ok("clone", self.bed.dir, self.path("both"))
        for group, links in groups(self.path("both")):
            self.assertEqual((len(group), links), (2, 2))
        bed.run("rm", "-rf", self.path("s"))
        self.assertEqual(groups(self.path("copy")), [])

    @unittest.skipUnless(shutil.which("rsync"), "no rsync here")
    def test_rsync_both_ways(self):
        fill_linked(self.path("s"))
        outside = os.path.join(self.bed.folder, "outside")
        for source, target in ((self.path("s"), outside), (outside, self.path("back"))):
            done = bed.run("rsync", "-aH", source + "/", target)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(groups(outside), groups(self.path("s")))
        self.assertEqual(groups(self.path("back")), groups(self.path("s")))
        done = bed.run("rsync", "-aHn", "--itemize-changes", "--delete", outside + "/",
                       self.path("s"))
        self.assertEqual(done.stdout, "")
        previous = self.path("back")
        done = bed.run("rsync", "-aH", f"--link-dest={previous}", outside + "/", self.path("next"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        ok("clone", self.path("next"), self.path("kept"))
        self.assertEqual(groups(self.path("kept")), groups(outside))

    def test_git_clone_local(self):
        repository = self.path("repository")
        git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", repository)
        os.mkdir(repository)
        self.assertEqual(bed.run(*git, "init", "-q").returncode, 0)
        for index in range(20):
            write(self.path("repository", str(index)), f"{index}\n" * 100)
        self.assertEqual(bed.run(*git, "add", ".").returncode, 0)
        self.assertEqual(bed.run(*git, "commit", "-qm", "all").returncode, 0)
        done = bed.run("git", "clone", "-q", "--local", repository, self.path("local"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(groups(self.bed.dir))
        ok("clone", self.path("local"), self.path("forked"))
        ok("rm", self.path("local"))
        for tree in ("repository", "forked"):
            self.assertEqual(bed.run("git", "-C", self.path(tree), "fsck").returncode, 0)
            self.assertEqual(groups(self.path(tree)), [])


if __name__ == "__main__":
    bed.main()
