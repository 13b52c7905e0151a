"""Publishers and a collector on one store, as real processes that never pause.

A few contents are put, recorded and dropped again and again, with no grace period, so that every
race is met as often as can be. The ledger is a plain file here: appended to under a lock, read
whole. Nothing that it refers to may ever be missing or wrong.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import random
import time
from pathlib import Path

from stillhouse.store.objects.local import BlobStore

CONTENTS = 12
PUBLISHERS = 3
SLOW = 0.3
"""The share of puts that wait before they are recorded: whole rounds of the collector pass."""
KEPT = 3
"""What a publisher refers to at most."""
DROPS = 0.5
"""The chance that it drops one of these."""


def _content(number: int) -> bytes:
    """One of the contents."""
    return number.to_bytes(2, "big") * 5_000


class _Notes:
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


def _publish(objects: Path, log: Path, who: int, until: float) -> None:
    """Put, record, check what is ours, drop some of it; again."""
    store, notes, chance = BlobStore(objects), _Notes(log), random.Random(who)
    ours: list[str] = []
    while time.monotonic() < until:
        with store.lease():
            digest = store.put_bytes(_content(chance.randrange(CONTENTS))).digest
            if chance.random() < SLOW:
                time.sleep(chance.random() * 0.02)
            notes.append("+", who, digest)
        ours.append(digest)
        for mine in ours:
            store.verify(mine)
        while len(ours) > KEPT or (ours and chance.random() < DROPS):
            dropped = ours.pop(chance.randrange(len(ours)))
            if dropped not in ours:
                notes.append("-", who, dropped)


def _collect(objects: Path, log: Path, until: float) -> None:
    """Condemn what nobody refers to; sweep by the rule of docs/store.md, without grace."""
    store, notes = BlobStore(objects), _Notes(log)
    while time.monotonic() < until:
        marked = notes.referred()
        store.condemn([digest for digest in store.digests() if digest not in marked])
        candidates = list(store.condemned())
        oldest = min((lease.began_ns for lease in store.leases()), default=None)
        referred = notes.referred()
        for digest, _, at_ns in candidates:
            if digest in referred:
                store.restore(digest)
            elif oldest is None or at_ns < oldest:
                store.sweep([digest])


def race(folder: Path, seconds: float) -> list[str]:
    """Run all for a while in an empty folder; what was lost, in words."""
    objects, log = folder / "objects", folder / "log"
    BlobStore.create(objects)
    log.touch()
    until = time.monotonic() + seconds
    crew = [
        multiprocessing.Process(target=_publish, args=(objects, log, who, until))
        for who in range(PUBLISHERS)
    ]
    crew.append(multiprocessing.Process(target=_collect, args=(objects, log, until)))
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    lost = [
        f"process {place} ended with {p.exitcode}" for place, p in enumerate(crew) if p.exitcode
    ]
    store = BlobStore(objects)
    lost += [f"{digest} is gone" for digest in _Notes(log).referred() if not store.has(digest)]
    return lost
