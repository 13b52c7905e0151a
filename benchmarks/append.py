"""One durable append: our ledger against SQLite, interleaved, the same encoded bytes.

Both hold their handle; SQLite (WAL, synchronous=FULL) commits each insert. `Ledger.append` builds
and encodes its event itself, so the fair peer does so too, with our encoder, and both times count
it. The other peer is handed the finished line: its ratio counts our encoding against us alone.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from stillhouse.registry.ledger.format import encode_line
from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.schemas import moment
from stillhouse.schemas.event import Actor, Event
from stillhouse.schemas.events import TagMoved

ROUNDS = 2000
QUICK = 200
ACTOR = Actor(user="u", host="h")
DIGEST = "ab" * 32


class Peer:
    """A SQLite table of lines."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("CREATE TABLE event(seq INTEGER PRIMARY KEY, line BLOB)")

    def insert(self, line: bytes) -> None:
        """Insert a line and commit."""
        self._database.execute("INSERT INTO event(line) VALUES (?)", (line,))

    def encode_and_insert(self, payload: TagMoved, like: Event) -> None:
        """The same for an event that is made here, next to one that the ledger made."""
        event = Event(
            seq=like.seq,
            prev=like.prev,
            ts=moment.spell(datetime.now(UTC)),
            type=payload.TYPE,
            v=payload.VERSION,
            actor=ACTOR,
            batch="1/1",
            data=payload.to_json(),
        )
        self.insert(encode_line(event)[0])

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


def milliseconds(work: Callable[..., object], *given: object) -> float:
    """How long `work` takes."""
    begun = time.perf_counter()
    work(*given)
    return 1000 * (time.perf_counter() - begun)


def main(rounds: int) -> None:
    """Print the medians in milliseconds, and the ratios."""
    ours, fair, handed = [], [], []
    with tempfile.TemporaryDirectory(dir=".") as name:
        ledger = Ledger(Path(name) / "events.log", lambda: datetime.now(UTC), ACTOR)
        peer, other = Peer(Path(name) / "fair.sqlite"), Peer(Path(name) / "handed.sqlite")
        (event,) = ledger.append([TagMoved(name="first", digest=DIGEST)])
        for place in range(rounds):
            payload = TagMoved(name=f"t{place}", digest=DIGEST)
            line, _ = encode_line(event)
            ours.append(milliseconds(ledger.append, [payload]))
            fair.append(milliseconds(peer.encode_and_insert, payload, event))
            handed.append(milliseconds(other.insert, line))
        peer.close()
        other.close()
    mine, *peers = (statistics.median(times) for times in (ours, fair, handed))
    print(f"ledger append                p50 {mine:.3f} ms   ({rounds} interleaved rounds)")
    for what, peer_time in zip(
        ("encode + SQLite insert", "SQLite insert alone"), peers, strict=True
    ):
        print(f"{what:28} p50 {peer_time:.3f} ms   ratio {mine / peer_time:.2f}")


if __name__ == "__main__":
    main(QUICK if "--quick" in sys.argv else ROUNDS)
