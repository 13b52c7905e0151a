"""One durable append: our ledger against SQLite, interleaved, the same encoded bytes.

SQLite holds its handle (WAL, synchronous=FULL) and commits each insert. The ledger opens its file
for every append, as `Ledger.append` does.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from registry.ledger import Ledger
from schemas.event import Actor
from schemas.events import TagMoved

ROUNDS = 500
DIGEST = "ab" * 32


def main(rounds: int) -> None:
    """Print the median milliseconds of both, and their ratio."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        actor = Actor(user="u", host="h")
        ledger = Ledger(folder / "events.log", lambda: datetime.now(UTC), actor)
        database = sqlite3.connect(folder / "peer.sqlite")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE event(seq INTEGER PRIMARY KEY, line BLOB)")
        ours, theirs = [], []
        for place in range(rounds):
            begun = time.perf_counter()
            ledger.append([TagMoved(name=f"t{place}", digest=DIGEST)])
            ours.append(time.perf_counter() - begun)
            line = (folder / "events.log").read_bytes().rsplit(b"\n", 2)[-2]
            begun = time.perf_counter()
            database.execute("INSERT INTO event VALUES (?, ?)", (place, line))
            database.commit()
            theirs.append(time.perf_counter() - begun)
        database.close()
    mine, peer = (1000 * statistics.median(times) for times in (ours, theirs))
    print(f"ledger append  p50 {mine:.2f} ms   SQLite insert  p50 {peer:.2f} ms")
    print(f"ratio {mine / peer:.2f}   ({rounds} interleaved rounds)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
