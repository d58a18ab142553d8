"""Kills the server again and again, under a mixed load with clones, and while it recovers.

    CAW=… python3 kill_test.py [--rounds N] [--seed N] [--seconds N]

After each kill the volume is checked, mounted and compared with what its callers had been told
(killing.py).  The first failure ends it; what it says names the round.
"""
import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import bed
import killing

WORKERS = 4
SHAPES = ((), ("--leaf-bytes", "4096", "--fanout", "4", "--buffer-bytes", "8192", "--run-bytes",
               "4096", "--floor-bytes", "512"))


class Campaign:
    def __init__(self, seed):
        self.choice = random.Random(seed)
        self.seed = seed
        self.bed = bed.Bed("512M", SHAPES[seed % len(SHAPES)])
        self.bed.mount()
        self.changes = 0
        self.clones = 0
        self.recoveries_killed = 0
        self.kept = {}  # what the rounds before left: path -> digest

    def round(self, number):
        root = self.bed.path(f"r{number}")
        os.mkdir(root)
        workers = [killing.Worker(root, f"w{at}", f"{self.seed} {number}")
                   for at in range(WORKERS)]
        cloner = killing.Cloner(root, workers, f"{self.seed} {number}")
        pid = self.bed.info()["pid"]
        for thread in workers + [cloner]:
            thread.start()
        time.sleep(self.choice.choice((0.1, 0.3, 0.6, 1.2)) * (0.5 + self.choice.random()))
        os.kill(pid, signal.SIGKILL)
        bed.wait_for_end(pid)
        killing.join(workers + [cloner])
        bed.run("umount", "-l", self.bed.dir)
        self.bed.check()
        self.kill_recovery()
        self.bed.mount("-o", f"cache={self.choice.choice((32, 64, 256))}M")
        wrong = killing.judge(root, workers, cloner)
        wrong += [f"{path} has changed since the round that made it"
                  for path, digest in self.kept.items() if killing.digest_of(path) != digest]
        self.changes += sum(len(worker.history.ended) for worker in workers)
        self.clones += len(cloner.made)
        self.keep(root)
        return wrong

    def kill_recovery(self):
        """Some recoveries do not come to their end."""
        while self.choice.random() < 0.3:
            server = subprocess.Popen([bed.CAW, "mount", "--foreground", self.bed.image,
                                       self.bed.dir], stdin=subprocess.DEVNULL)
            time.sleep(self.choice.random() * 0.08)
            server.kill()
            server.wait()
            bed.run("umount", "-l", self.bed.dir)
            self.recoveries_killed += 1

    def keep(self, root):
        """This round's folder stays for three more rounds, then it is removed at once."""
        self.kept[root] = killing.digest_of(root)
        if len(self.kept) > 3:
            oldest = next(iter(self.kept))
            bed.ok("rm", oldest)
            del self.kept[oldest]

    def end(self):
        self.bed.umount()
        self.bed.check()
        self.bed.destroy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    args = parser.parse_args()
    if not bed.can_mount():
        print("skipped: mounting needs /dev/fuse and root")
        sys.exit(bed.SKIPPED)
    end = time.monotonic() + args.seconds
    campaign = Campaign(args.seed)
    done = 0
    while done < args.rounds and time.monotonic() < end:
        wrong = campaign.round(done)
        if wrong:
            image = shutil.copy(campaign.bed.image, "/var/tmp/caw-kill-test.caw")
            print("\n".join(wrong[:20]))
            print(f"seed {args.seed}, round {done}; the volume is in {image}")
            sys.exit(1)
        done += 1
        if done % 50 == 0:
            print(f"{done} rounds", flush=True)
    campaign.end()
    print(f"{done} kills, {campaign.recoveries_killed} more during recovery, {campaign.changes} "
          f"changes answered, {campaign.clones} clones of busy folders: nothing lost")


if __name__ == "__main__":
    main()
