"""The projection: catching up, rebuilding, and recording while somebody holds it.

Rounds are interleaved. What is rebuilt is compared, table by table and row by row, with what was
caught up in steps. Times are of whole calls: `catch_up` looks, locks, attaches, verifies, loads,
commits, checkpoints and detaches.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from world import World, write

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.projection.projection import Projection
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import ArtifactPublished, TagMoved

EVENTS = 100_000
QUICK = 10_000
ROUNDS = 20
APPENDS = 300
PER_EVENT = 2.98
"""Events of the synthesised registry per artifact, about."""

_SHELL = """
import duckdb, sys
shell = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def main(events: int, rounds: int, folder: Path) -> None:
    """Print each figure beside its goal."""
    log, path = folder / "events.log", folder / "registry.duckdb"
    world = World()
    there = write(log, world.batches(int(events / PER_EVENT)))
    ledger = Ledger(log, lambda: datetime.now(UTC), Actor(user="u", host="h"))
    projection = Projection(path, log)
    begun = time.perf_counter()
    projection.catch_up()
    print(f"first build: {there / (time.perf_counter() - begun):.0f} events/s ({there} events)")
    catching_up(ledger, projection, rounds)
    appending(ledger, path, APPENDS)
    projection.catch_up(10)
    rebuilding(projection, path)


def catching_up(ledger: Ledger, projection: Projection, rounds: int) -> None:
    """Of 1 and of 100 events, and when there is nothing."""
    times: dict[int, list[float]] = {0: [], 1: [], 100: []}
    number = 0
    for _ in range(rounds):
        for size, found in times.items():
            number += size
            if size:
                ledger.append([_published(number - place) for place in range(size)])
            begun = time.perf_counter()
            projection.catch_up()
            found.append(1000 * (time.perf_counter() - begun))
    for size, found in times.items():
        median, worst = statistics.median(found), max(found)
        print(f"catch-up of {size:3} events: p50 {median:.1f} ms, max {worst:.1f} ms (goal: 30)")


def appending(ledger: Ledger, path: Path, appends: int) -> None:
    """With and without a foreign shell that holds the projection, in turns."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(6):
        held = turn % 2 == 1
        command = [sys.executable, "-c", _SHELL, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
            assert shell.stdin  # noqa: S101  # it was asked for
            assert shell.stdout  # noqa: S101
            shell.stdout.readline()
            if not held:
                shell.stdin.close()
                shell.wait()
            for number in range(appends // 3):
                begun = time.perf_counter()
                ledger.append([TagMoved(name=f"t{number}", digest="ab" * 32)])
                times[held].append(1000 * (time.perf_counter() - begun))
            if held:
                shell.stdin.close()
    free, busy = (statistics.median(times[held]) for held in (False, True))
    print(f"append: p50 {free:.2f} ms; while a shell holds the projection {busy:.2f} ms;", end="")
    print(f" ratio {busy / free:.2f} (goal: 2)")


def rebuilding(projection: Projection, path: Path) -> None:
    """The rate, and whether the same rows come out."""
    stepwise = dump(path)
    begun, worked = time.perf_counter(), time.process_time()
    events = projection.rebuild()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - worked
    print(f"rebuild: {events / seconds:.0f} events/s, {events / cpu:.0f} a CPU second", end="")
    print(f" (goal: 30000; {events} events)")
    rebuilt = dump(path)
    same = "equal" if rebuilt == stepwise else "NOT EQUAL"
    print(f"ordered dumps of {len(rebuilt)} tables, rebuilt and caught up: {same}")


def dump(path: Path) -> dict[str, str]:
    """Each table as a digest of all its rows, in order."""
    with duckdb.connect(str(path), read_only=True) as shell:
        tables = [
            name for (name,) in shell.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        ]
        return {name: _digest(shell, name) for name in tables}


def _digest(shell: duckdb.DuckDBPyConnection, table: str) -> str:
    rows: Iterable[object] = shell.execute(f"FROM {table} ORDER BY ALL").fetchall()
    found = hashlib.sha256()
    for row in rows:
        found.update(repr(row).encode())
    return found.hexdigest()


def _published(number: int) -> ArtifactPublished:
    return ArtifactPublished(
        digest=hashlib.sha256(b"%d" % number).hexdigest(),
        kind=Kind.DATASET,
        form="blob",
        size=number,
        origin="imported",
        parents=(Parent(role="dataset", digest=hashlib.sha256(b"%d" % (number - 1)).hexdigest()),),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10^4 events instead of 10^5")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory(dir=".") as name:
        main(QUICK if quick else EVENTS, 5 if quick else ROUNDS, Path(name))
