"""Programs with promises of their own, killed with the server under them: SQLite and git.

CAW_KILLS sets how often each is killed (default 3).
"""
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
import unittest

import bed
from bed import ok

KILLS = int(os.environ.get("CAW_KILLS", "3"))

# Adds rows and keeps their count and sum in a second table; prints each row that is committed.
SQLITE_CLIENT = """
import random, sqlite3, sys
path, mode, seed = sys.argv[1:]
choice = random.Random(int(seed))
database = sqlite3.connect(path, isolation_level=None)
database.execute(f"PRAGMA journal_mode={mode}")
# Less would not sync the removal of the journal, which is the commit.
database.execute("PRAGMA synchronous=EXTRA")
database.execute("PRAGMA wal_autocheckpoint=50")
database.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, number INT, data BLOB)")
database.execute("CREATE TABLE IF NOT EXISTS sums (id INTEGER PRIMARY KEY, count INT, sum INT)")
database.execute("INSERT OR IGNORE INTO sums VALUES (1, 0, 0)")
while True:
    number = choice.randrange(1 << 30)
    database.execute("BEGIN")
    row = database.execute("INSERT INTO rows (number, data) VALUES (?, ?)",
                           (number, choice.randbytes(choice.choice((10, 3000, 30000))))).lastrowid
    database.execute("UPDATE sums SET count = count + 1, sum = sum + ?", (number,))
    if row % 7 == 0:
        database.execute("UPDATE rows SET data = ? WHERE id = ?", (b"again", row // 2))
    database.execute("COMMIT")
    print(row, flush=True)
"""

# Changes some files, commits, prints the commit.
GIT_CLIENT = """
import os, random, subprocess, sys
root, seed = sys.argv[1:]
choice = random.Random(int(seed))
os.chdir(root)
def git(*arguments):
    return subprocess.run(("git", *arguments), check=True, capture_output=True, text=True).stdout
while True:
    for _ in range(5):
        path = f"d{choice.randrange(4)}/f{choice.randrange(20)}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(str(choice.random()) * choice.randrange(1, 2000))
    git("add", "-A")
    git("commit", "-qm", "change")
    print(git("rev-parse", "HEAD").strip(), flush=True)
    if choice.random() < 0.05:
        git("repack", "-adq")
"""


class Killed(bed.MountedTest):
    """Runs a client until it has said something, kills the server, mounts again."""

    def kill_under(self, program, *arguments):
        """The lines that the client had printed when the server was killed."""
        with subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
            try:
                lines = [client.stdout.readline()]
                time.sleep(random.random())
                self.bed.kill()
            finally:
                client.kill()
            lines += client.stdout.readlines()
        self.bed.check()
        self.bed.mount()
        return [line.strip() for line in lines if line.endswith("\n")]


class Sqlite(Killed):
    def judge(self, path, committed):
        """The database is whole and holds the rows that were committed."""
        database = sqlite3.connect(path)
        self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        count, total, last = database.execute(
            "SELECT count(*), coalesce(sum(number), 0), coalesce(max(id), 0) FROM rows").fetchone()
        self.assertEqual(database.execute("SELECT count, sum FROM sums").fetchone(), (count, total))
        self.assertEqual(count, last)
        self.assertGreaterEqual(last, committed)
        database.close()
        return last

    def kill_loop(self, mode):
        os.mkdir(self.path("db"))
        path = self.path("db", "rows.sqlite")
        for kill in range(KILLS):
            committed = self.kill_under(SQLITE_CLIENT, path, mode, kill)
            self.judge(path, int(committed[-1]))

    def test_rollback_journal(self):
        self.kill_loop("DELETE")

    def test_truncated_journal(self):
        self.kill_loop("TRUNCATE")

    def test_write_ahead_log(self):
        self.kill_loop("WAL")

    def test_clone_of_a_running_database(self):
        """A clone is one moment: the database in it recovers like one after a power cut."""
        for mode in ("DELETE", "WAL"):
            folder = self.path(mode)
            os.mkdir(folder)
            with subprocess.Popen(
                    [sys.executable, "-c", SQLITE_CLIENT, os.path.join(folder, "rows.sqlite"), mode,
                     "1"], stdout=subprocess.PIPE, text=True) as client:
                try:
                    for number in range(3 * KILLS):
                        committed = int(client.stdout.readline())
                        clone = f"{folder}.{number}"
                        ok("clone", folder, clone)
                        self.judge(os.path.join(clone, "rows.sqlite"), committed)
                finally:
                    client.kill()


class Git(Killed):
    mount = ("-o", "commit=1")

    def git(self, *arguments):
        done = bed.run("git", "-C", self.path("repo"), *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def kill_loop(self, fsync):
        if shutil.which("git") is None:
            self.skipTest("git is not installed")
        os.mkdir(self.path("repo"))
        self.git("init", "-q")
        for setting in (("user.name", "n"), ("user.email", "e"), ("gc.auto", "0"),
                        ("core.fsync", fsync), ("core.fsyncMethod", "fsync")):
            self.git("config", *setting)
        self.git("commit", "-q", "--allow-empty", "-m", "first")
        ok("sync", self.path())
        for kill in range(KILLS):
            commits = self.kill_under(GIT_CLIENT, self.path("repo"), kill)
            self.remove_locks()
            self.git("fsck", "--full", "--strict")
            reached = self.git("rev-list", "HEAD").split()
            if fsync == "all" and len(commits) > 1:
                # A commit ends with a rename that git does not sync; the next one syncs it, too.
                self.assertIn(commits[-2], reached)
            self.git("reset", "-q", "--hard")
            ok("clone", self.path("repo"), self.path(f"clone{kill}"))
            done = bed.run("git", "-C", self.path(f"clone{kill}"), "status", "--porcelain",
                           "--untracked-files=no")
            self.assertEqual((done.returncode, done.stdout), (0, ""))

    def remove_locks(self):
        """What git was holding when it was killed, as a user would."""
        for folder, _, files in os.walk(self.path("repo", ".git")):
            for name in files:
                if name.endswith(".lock"):
                    os.unlink(os.path.join(folder, name))

    def test_that_syncs(self):
        self.kill_loop("all")

    def test_that_does_not(self):
        """Changes become durable in their order, so even then nothing is torn."""
        self.kill_loop("none")


if __name__ == "__main__":
    bed.main()
