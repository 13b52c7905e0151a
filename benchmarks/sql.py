"""Every query of docs/sql.md over a synthesised registry: median of 5, against one second.

The whole of what `Projection.query` does is timed: nothing to catch up, attaching, sealing, and
taking the complete answer; a new DuckDB instance each time, as for every `still sql`.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from world import World, write

from stillhouse.registry.projection.projection import Projection

ARTIFACTS = 1_000_000
QUICK = 10_000
ROUNDS = 5
GOAL = 1.0
"""Seconds that each may take."""

_DOCUMENT = Path(__file__).parents[1] / "docs" / "sql.md"
_BLOCK = re.compile(r"([^\n]+)\n\n```sql\n(.*?)```", re.DOTALL)
_PARAMETER = re.compile(r"\$(\w+)")


def blocks() -> Iterator[tuple[str, str]]:
    """What each query of the document is said to tell, and its SQL."""
    for sentence, sql in _BLOCK.findall(_DOCUMENT.read_text(encoding="utf-8")):
        yield re.split(r"[:.,]", sentence)[0], sql


def parameters(known: dict[str, str]) -> dict[str, str]:
    """A value for every name that the document uses."""
    return {
        "artifact": known["release"],
        "dataset": known["dataset"],
        "teacher": known["teacher"],
        "package": "torch",
        "version": "2.12.0",
        "gate": "training.kl",
        "slot": "training",
        "tag": "production",
        "day": "2026-02-01",
        "old": known["other_release"],
        "new": known["release"],
    }


def main(artifacts: int, folder: Path) -> None:
    """Synthesise, project, and print a row for each query."""
    world = World()
    begun = time.perf_counter()
    events = write(folder / "events.log", world.batches(artifacts))
    print(f"{events} events, {world.artifacts} artifacts, {world.edges} edges", end="")
    print(f" written in {time.perf_counter() - begun:.0f} s")
    projection = Projection(folder / "registry.duckdb", folder / "events.log")
    begun = time.perf_counter()
    projection.catch_up()
    seconds = time.perf_counter() - begun
    print(f"projected in {seconds:.0f} s ({events / seconds:.0f} events/s)")
    report(projection, parameters(world.known))


def report(projection: Projection, values: dict[str, str]) -> None:
    """Print the median seconds of each query, and whether that is within the goal."""
    missed = 0
    for title, sql in blocks():
        params = {name: values[name] for name in _PARAMETER.findall(sql)}
        times = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            rows = projection.query(sql, params).rows
            times.append(time.perf_counter() - begun)
        median = statistics.median(times)
        missed += median > GOAL
        word = "over" if median > GOAL else "ok"
        print(f"{word:5}{median:7.3f} s {len(rows):8} rows   {title}", flush=True)
    print(f"{missed} over {GOAL:g} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10^4 artifacts instead of 10^6")
    with tempfile.TemporaryDirectory(dir=".") as name:
        main(QUICK if parser.parse_args().quick else ARTIFACTS, Path(name))
