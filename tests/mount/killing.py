"""Work that several threads do on a mounted volume, remembered so that what a crash leaves can be
judged: each thread's folder must show a state that its thread went through, not older than the last
sync that returned, and the threads' states must fit together in time.
"""
import errno
import hashlib
import os
import random
import sys
import threading
import time

import bed

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "bench"))
from benchlib import ioctl  # pylint: disable=wrong-import-position

PAGE = 4096
LARGEST = 40_000  # so that a file is one chunk, and a write one change


def server_is_gone(root):
    """Then calls fail in several ways: ENOTCONN, ECONNABORTED, EIO for some that were under way."""
    try:
        os.statvfs(root)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def number_of(path, value):
    """What one object adds to the digest of the tree that it is in."""
    return int.from_bytes(hashlib.blake2b(repr((path, value)).encode(), digest_size=8).digest())


class Tree:
    """A model of a directory: path -> None (a directory) or the bytes of a file."""

    ABSENT = "absent"

    def __init__(self):
        self.objects = {}
        self.digest = 0
        self.trail = []  # every put and drop, for nearest()

    @staticmethod
    def seen(value):
        return "directory" if value is None else (len(value), hashlib.sha1(value).hexdigest())

    def put(self, path, value):
        self.drop(path)
        self.objects[path] = value
        self.digest += number_of(path, self.seen(value))
        self.trail.append((path, self.seen(value), self.digest))

    def drop(self, path):
        if path in self.objects:
            self.digest -= number_of(path, self.seen(self.objects.pop(path)))
            self.trail.append((path, self.ABSENT, self.digest))

    def nearest(self, found):
        """How `found` (path -> what is seen) differs from the state that is most like it."""
        state = {}
        best = None
        differing = set(found)
        for path, seen, digest in self.trail:
            state[path] = seen
            if found.get(path, self.ABSENT) == seen:
                differing.discard(path)
            else:
                differing.add(path)
            if best is None or len(differing) < len(best[0]):
                best = ({at: (found.get(at, self.ABSENT), state.get(at, self.ABSENT))
                         for at in differing}, digest)
        return best

    def below(self, path):
        return [other for other in self.objects if other == path or other.startswith(path + "/")]

    def remove(self, path):
        for other in self.below(path):
            self.drop(other)

    def copy(self, path, to):
        for other in self.below(path):
            self.put(to + other[len(path):], self.objects[other])

    def move(self, path, to):
        moved = [(to + other[len(path):], self.objects[other]) for other in self.below(path)]
        self.remove(path)
        self.remove(to)
        for other, value in moved:
            self.put(other, value)

    def some(self, choice, directories):
        found = [path for path, value in self.objects.items() if (value is None) == directories]
        return choice.choice(found) if found else None


def objects_of(root):
    """What is seen of each object of a tree on the volume."""
    out = {}
    for folder, folders, files in os.walk(root, onerror=bed.fail_to_read):
        for name in folders:
            out[os.path.relpath(os.path.join(folder, name), root)] = Tree.seen(None)
        for name in files:
            path = os.path.join(folder, name)
            out[os.path.relpath(path, root)] = Tree.seen(bed.read(path))
    return out


def digest_of(root):
    """The digest of a tree on the volume, comparable with Tree.digest."""
    return sum(number_of(path, seen) for path, seen in objects_of(root).items())


class History:
    """digests[i]: after i changes; began[i] and ended[i]: when change i + 1 was asked for and
    answered."""

    def __init__(self, digest):
        self.digests = [digest]
        self.began = []
        self.ended = []
        self.synced = 0

    def begin(self):
        self.began.append(time.monotonic())

    def end(self, digest):
        self.digests.append(digest)
        self.ended.append(time.monotonic())

    def answered_by(self, moment):
        return sum(1 for end in self.ended if end < moment)

    def begun_by(self, moment):
        return sum(1 for begin in self.began if begin <= moment)


class Worker(threading.Thread):
    """Random changes in a folder of its own, until the server is gone."""

    def __init__(self, root, name, seed):
        super().__init__(name=name)
        self.root = os.path.join(root, name)
        self.choice = random.Random(f"{seed} {name}")
        self.tree = Tree()
        self.pending = None
        os.mkdir(self.root)
        self.history = History(0)
        self.fd = os.open(self.root, os.O_RDONLY)
        self.failure = None

    def path(self, inner):
        return os.path.join(self.root, inner)

    def run(self):
        try:
            while True:
                self.step()
        except OSError as end:
            if not server_is_gone(self.root):
                self.failure = end
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure
        # The change that was not answered may have happened.
        if len(self.history.began) > len(self.history.ended):
            self.pending()
            self.history.digests.append(self.tree.digest)

    def change(self, call, apply):
        """One change: a call to the system and what it does to the model."""
        self.pending = apply
        self.history.begin()
        call()
        apply()
        self.history.end(self.tree.digest)

    def step(self):
        steps = (self.make_directory, self.make_file, self.make_file, self.write, self.write,
                 self.write, self.truncate, self.unlink, self.rename, self.rename, self.clone,
                 self.clone, self.remove, self.sync)
        if len(self.tree.objects) > 200:
            self.remove()
        else:
            self.choice.choice(steps)()

    def new_path(self):
        folder = self.tree.some(self.choice, directories=True)
        name = f"n{self.choice.randrange(30)}"
        if folder is None or self.choice.random() < 0.2 or folder.count("/") > 5:
            return name
        return f"{folder}/{name}"

    def make_directory(self):
        path = self.new_path()
        if path not in self.tree.objects:
            self.change(lambda: os.mkdir(self.path(path)), lambda: self.tree.put(path, None))

    def make_file(self):
        path = self.new_path()
        if path in self.tree.objects:
            return
        held = []
        self.change(lambda: held.append(os.open(self.path(path), os.O_CREAT | os.O_WRONLY)),
                    lambda: self.tree.put(path, b""))
        try:
            self.write_to(held[0], path)
        finally:
            os.close(held[0])

    def write(self):
        path = self.tree.some(self.choice, directories=False)
        if path is None:
            return
        fd = os.open(self.path(path), os.O_WRONLY)
        try:
            self.write_to(fd, path)
            if self.choice.random() < 0.1:
                self.sync(fd)
        finally:
            os.close(fd)

    def write_to(self, fd, path):
        old = self.tree.objects[path]
        offset = self.choice.randrange(min(len(old), LARGEST) + 1)
        if self.choice.random() < 0.5:
            offset -= offset % PAGE
        # The kernel cuts a write that begins within a page where that page ends: two changes.
        longest = 20_000 if offset % PAGE == 0 else PAGE - offset % PAGE
        data = self.choice.randbytes(min(self.choice.choice((1, 40, 300, PAGE, 20_000)), longest))
        new = old[:offset] + data + old[offset + len(data):]
        self.change(lambda: os.pwrite(fd, data, offset), lambda: self.tree.put(path, new))

    def truncate(self):
        path = self.tree.some(self.choice, directories=False)
        if path is None:
            return
        size = self.choice.randrange(LARGEST)
        new = self.tree.objects[path][:size].ljust(size, b"\0")
        self.change(lambda: os.truncate(self.path(path), size), lambda: self.tree.put(path, new))

    def unlink(self):
        path = self.tree.some(self.choice, directories=False)
        if path is not None:
            self.change(lambda: os.unlink(self.path(path)), lambda: self.tree.drop(path))

    def rename(self):
        path = self.tree.some(self.choice, self.choice.random() < 0.4)
        to = self.new_path()
        if path is None or to == path or to.startswith(path + "/") or path.startswith(to + "/"):
            return
        value = self.tree.objects[path]
        over = self.tree.objects.get(to, value)
        if (value is None) != (over is None) or (to in self.tree.objects and value is None):
            return
        self.change(lambda: os.rename(self.path(path), self.path(to)),
                    lambda: self.tree.move(path, to))

    def clone(self):
        path = self.tree.some(self.choice, self.choice.random() < 0.7)
        to = self.new_path()
        if path is None or to in self.tree.objects or to.startswith(path + "/"):
            return
        if len(self.tree.below(path)) > 100:
            return
        request = ioctl.clone_request(self.token(path), os.path.basename(to))
        parent = os.open(os.path.dirname(self.path(to)), os.O_RDONLY)
        try:
            self.change(lambda: ioctl.clone(parent, request), lambda: self.tree.copy(path, to))
        finally:
            os.close(parent)

    def token(self, path):
        fd = os.open(self.path(path), os.O_RDONLY)
        try:
            return ioctl.token(fd)
        finally:
            os.close(fd)

    def remove(self):
        path = self.tree.some(self.choice, directories=True)
        if path is None:
            return
        request = ioctl.remove_request(os.path.basename(path))
        parent = os.open(os.path.dirname(self.path(path)), os.O_RDONLY)
        try:
            self.change(lambda: ioctl.remove(parent, request), lambda: self.tree.remove(path))
        finally:
            os.close(parent)

    def sync(self, fd=None):
        done = len(self.history.ended)
        if fd is not None:
            os.fsync(fd)
        elif self.choice.random() < 0.3:
            ioctl.sync(self.fd)
        elif self.choice.random() < 0.3:
            ioctl.checkpoint(self.fd)
        else:
            os.fsync(self.fd)
        self.history.synced = done


class Cloner(threading.Thread):
    """Clones the folders of workers, whatever they are doing."""

    def __init__(self, root, workers, seed):
        super().__init__(name="cloner")
        self.root = os.path.join(root, "clones")
        self.workers = workers
        self.choice = random.Random(f"{seed} cloner")
        self.made = []  # (worker, when it was asked for, when it was answered)
        self.failure = None
        os.mkdir(self.root)
        self.fd = os.open(self.root, os.O_RDONLY)

    def run(self):
        try:
            while True:
                worker = self.choice.choice(self.workers)
                request = ioctl.clone_request(ioctl.token(worker.fd), str(len(self.made)))
                self.made.append([worker, time.monotonic(), None])
                ioctl.clone(self.fd, request)
                self.made[-1][2] = time.monotonic()
                time.sleep(self.choice.random() * 0.02)
        except OSError as end:
            if not server_is_gone(self.root):
                self.failure = end


def join(threads):
    """Waits for workers and cloners; only then may their descriptors go."""
    for thread in threads:
        thread.join()
    for thread in threads:
        try:
            os.close(thread.fd)
        except OSError:
            pass  # what a file system says that has no server any more


def nearest(worker, root):
    found, digest = worker.tree.nearest(objects_of(root))
    states = worker.history.digests
    at = [number for number, state in enumerate(states) if state == digest]
    return f"it differs from {at} in {found}"


def fitting(history, digest):
    """The numbers of changes after which a history showed `digest`."""
    found = [at for at, state in enumerate(history.digests) if state == digest]
    return [at for at in found if at >= history.synced]


def judge(root, workers, cloner):
    """What is wrong with what a crash left, as a list of sentences."""
    wrong = []
    seen = {}
    for thread in workers + [cloner]:
        if thread.failure:
            wrong.append(f"{thread.name} failed: {thread.failure!r}")
    for worker in workers:
        found = fitting(worker.history, digest_of(worker.root))
        if not found:
            wrong.append(f"{worker.name} shows none of its states from {worker.history.synced} "
                         f"on; {nearest(worker, worker.root)}")
        else:
            seen[worker] = found
    wrong += judge_order(seen)
    return wrong + judge_clones(os.path.join(root, "clones"), seen, cloner)


def judge_order(seen):
    """Where one thread's change survived, all changes answered before it was asked for did."""
    wrong = []
    for late, found in seen.items():
        if found[0] == 0:
            continue
        moment = late.history.began[found[0] - 1]
        for early, others in seen.items():
            least = early.history.answered_by(moment)
            if others[-1] < least:
                wrong.append(f"{late.name} shows change {found[0]}, {early.name} lacks its change "
                             f"{least}, answered before")
    return wrong


def judge_clones(folder, seen, cloner):
    """Each clone is its source at one moment of the call; a later one implies those before it."""
    wrong = []
    names = sorted(int(name) for name in os.listdir(folder))
    if names != list(range(len(names))):
        wrong.append(f"of the clones are there: {names}")
    for name in names:
        worker, begin, end = cloner.made[name]
        history = worker.history
        digest = digest_of(os.path.join(folder, str(name)))
        first = history.answered_by(begin)
        last = history.begun_by(end or time.monotonic())
        if digest not in history.digests[first:last + 1]:
            wrong.append(f"clone {name} of {worker.name} is none of the states {first} to {last}; "
                         f"{nearest(worker, os.path.join(folder, str(name)))}")
        if worker in seen and seen[worker][-1] < first:
            wrong.append(f"clone {name} is there, {worker.name} lacks changes made before it")
    return wrong
