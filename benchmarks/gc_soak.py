"""Publishers and garbage collection on one store, as real processes, until the time is up.

A few contents are put, recorded and dropped again and again, with no grace period, so that every
race is met as often as can be. The ledger is a plain file here: appended to under a lock, read
whole. After each round nothing that it refers to may be missing or wrong. Also measured: how many
puts the publishers get done while the collector runs, against without it, in turns.
"""

from __future__ import annotations

import argparse
import fcntl
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

from store.blobs import BlobStore

CONTENTS = 12
PUBLISHERS = 3
SLOW = 0.3
"""The share of puts that wait before they are recorded: whole rounds of the collector pass."""
KEPT = 3
"""What a publisher refers to at most."""
DROPS = 0.5
"""The chance that it drops one of these."""
STRETCH = 1.0
"""Seconds with the collector, then as long without it."""


def content(number: int) -> bytes:
    """One of the contents."""
    return number.to_bytes(2, "big") * 5_000


class Notes:
    """The ledger: `+ WHO DIGEST` and `- WHO DIGEST`, one a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, sign: str, who: int, digest: str) -> None:
        """Add one line, under the lock."""
        with self.path.open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f"{sign} {who} {digest}\n".encode())

    def referred(self) -> set[str]:
        """The digests that somebody refers to now."""
        holders: set[tuple[str, str]] = set()
        for line in self.path.read_text(encoding="utf-8").splitlines():
            sign, who, digest = line.split(" ")
            (holders.add if sign == "+" else holders.discard)((who, digest))
        return {digest for _, digest in holders}


def publish(objects: Path, log: Path, who: int, until: float, puts: object) -> None:
    """Put, record, check what is ours, drop some of it; again."""
    store, notes, chance = BlobStore(objects), Notes(log), random.Random(who)
    ours: list[str] = []
    while time.monotonic() < until:
        with store.lease():
            digest = store.put_bytes(content(chance.randrange(CONTENTS))).digest
            if chance.random() < SLOW:
                time.sleep(chance.random() * 0.02)
            notes.append("+", who, digest)
        puts.value += 1  # type: ignore[attr-defined]  # a shared number
        ours.append(digest)
        for mine in ours:
            store.verify(mine)
        while len(ours) > KEPT or (ours and chance.random() < DROPS):
            dropped = ours.pop(chance.randrange(len(ours)))
            if dropped not in ours:
                notes.append("-", who, dropped)


def collect(objects: Path, log: Path, until: float) -> None:
    """Condemn what nobody refers to; sweep by the rule of docs/design.md, without grace."""
    store, notes = BlobStore(objects), Notes(log)
    while time.monotonic() < until:
        marked = notes.referred()
        store.condemn([digest for digest in store.digests() if digest not in marked])
        candidates = list(store.condemned())
        oldest = store.oldest_lease()
        referred = notes.referred()
        for digest, _, at_ns in candidates:
            if digest in referred:
                store.restore(digest)
            elif oldest is None or at_ns < oldest:
                store.sweep([digest])


def stretch(folder: Path, turn: int, seconds: float, *, collecting: bool) -> tuple[int, int]:
    """Run all for a while: puts done, and how many things were lost."""
    objects, log = folder / "objects", folder / "log"
    until = time.monotonic() + seconds
    puts = [multiprocessing.Value("q", 0) for _ in range(PUBLISHERS)]
    crew = [
        multiprocessing.Process(
            target=publish, args=(objects, log, turn * PUBLISHERS + n, until, puts[n])
        )
        for n in range(PUBLISHERS)
    ]
    if collecting:
        crew.append(multiprocessing.Process(target=collect, args=(objects, log, until)))
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    store = BlobStore(objects)
    lost = sum(one.exitcode != 0 for one in crew)
    lost += sum(not store.has(digest) for digest in Notes(log).referred())
    return sum(number.value for number in puts), lost


def main(seconds: float, where: Path | None) -> int:
    """Take turns until the time is up; 1 when anything was lost."""
    with tempfile.TemporaryDirectory(dir=where) as name:
        folder = Path(name)
        BlobStore.create(folder / "objects")
        (folder / "log").touch()
        with_it, without, lost = [], [], 0
        begun, turn = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            for collecting, counts in ((True, with_it), (False, without)):
                puts, missing = stretch(folder, turn, STRETCH, collecting=collecting)
                counts.append(puts)
                lost += missing
                turn += 1
        ratio = statistics.median(with_it) / max(1, statistics.median(without))
    print(f"lost {lost}   puts a stretch with the collector {statistics.median(with_it):.0f},")
    print(f"without {statistics.median(without):.0f}: ratio {ratio:.2f}   ({turn} stretches)")
    return int(lost > 0)


if __name__ == "__main__":
    os.umask(0o022)
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=600)
    arguments.add_argument("--in", dest="where", type=Path, default=None)
    given = arguments.parse_args()
    raise SystemExit(main(given.seconds, given.where))
