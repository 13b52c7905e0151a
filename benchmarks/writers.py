"""Eight processes that append to one ledger, against eight that do the same to one SQLite table.

Both sides chain: under the lock each writer reads the last hash and number, builds and encodes its
event with our own encoder, and writes the line. SQLite holds its handle (WAL, synchronous=FULL,
BEGIN IMMEDIATE, which is what a chain needs) and waits for the lock as long as it takes. Rounds are
interleaved, each on a new file.
"""

from __future__ import annotations

import multiprocessing
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, MutableSequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.registry.ledger.format import encode_line
from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.schemas import moment
from stillhouse.schemas.event import GENESIS, Actor, Event
from stillhouse.schemas.events import TagMoved

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

WRITERS = 8
ROUNDS = 5
SECONDS = 4.0
ACTOR = Actor(user="u", host="h")
DIGEST = "ab" * 32

Append = Callable[[int], None]
Open = Callable[[], Append]


def open_ledger(folder: Path) -> Append:
    """Give what appends one event to the ledger."""
    ledger = Ledger(folder / "events.log", lambda: datetime.now(UTC), ACTOR)
    return lambda number: _appended(ledger, number)


def _appended(ledger: Ledger, number: int) -> None:
    ledger.append([TagMoved(name=f"t{number}", digest=DIGEST)])


def open_peer(folder: Path) -> Append:
    """Give what appends one event to the SQLite table."""
    database = sqlite3.connect(folder / "peer.sqlite", timeout=600, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS event(seq INTEGER PRIMARY KEY, hash, line BLOB)")
    return lambda number: _inserted(database, number)


def _inserted(database: sqlite3.Connection, number: int) -> None:
    payload = TagMoved(name=f"t{number}", digest=DIGEST)
    database.execute("BEGIN IMMEDIATE")
    last = database.execute("SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1").fetchone()
    seq, prev = last or (0, GENESIS)
    event = Event(
        seq=seq + 1,
        prev=prev,
        ts=moment.spell(datetime.now(UTC)),
        type=payload.TYPE,
        v=payload.VERSION,
        actor=ACTOR,
        batch="1/1",
        data=payload.to_json(),
    )
    line, digest = encode_line(event)
    database.execute("INSERT INTO event VALUES (?, ?, ?)", (seq + 1, digest, line))
    database.execute("COMMIT")


def writer(
    opened: Open, start: Barrier, seconds: float, counts: MutableSequence[int], place: int
) -> None:
    """Append until the time is over; leave how many in `counts`."""
    append = opened()
    start.wait()
    number, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        append(number)
        number += 1
    counts[place] = number


def one_round(opened: Open, seconds: float) -> list[int]:
    """Events that each of the writers appended."""
    opened()(0)  # whoever comes first makes the file
    context = multiprocessing.get_context("fork")
    start = context.Barrier(WRITERS)
    counts = context.Array("q", WRITERS)
    processes = [
        context.Process(target=writer, args=(opened, start, seconds, counts, place))
        for place in range(WRITERS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return counts[:]


def main(rounds: int, seconds: float) -> None:
    """Print the medians of both, their ratio, and how evenly the turns fell."""
    opens = {"ledger": open_ledger, "SQLite": open_peer}
    rates: dict[str, list[float]] = {name: [] for name in opens}
    spreads: dict[str, list[float]] = {name: [] for name in opens}
    for _ in range(rounds):
        for name, opened in opens.items():
            with tempfile.TemporaryDirectory(dir=".") as folder:
                counts = one_round(partial(opened, Path(folder)), seconds)
            rates[name].append(sum(counts) / seconds)
            spreads[name].append(max(counts) / max(1, min(counts)))
    for name in opens:
        rate, spread = (statistics.median(of[name]) for of in (rates, spreads))
        print(f"{name:8} {rate:7.0f} events/s   busiest/least busy {spread:.2f}")
    ratio = statistics.median(rates["ledger"]) / statistics.median(rates["SQLite"])
    print(f"ratio {ratio:.2f}   ({WRITERS} writers, {rounds} rounds of {seconds:g} s each)")


if __name__ == "__main__":
    main(*((1, 1.0) if "--quick" in sys.argv else (ROUNDS, SECONDS)))
