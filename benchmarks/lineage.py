"""Closures: the adjacency index against recursive queries of SQLite and DuckDB, same arrows.

    python benchmarks/lineage.py [--quick]

A ledger of N artifacts (10^6; quick: 20,000) with three parents each is written and indexed. Part
of it is clusters of 100 artifacts, where a closure stays small; the rest is one long history, in
which an artifact has two recent parents and one of any age, like a data set or a teacher, so that
one near the end rests on about 4/10 of all artifacts. SQLite has both covering indexes, statistics
and a page cache that holds everything, once with integers for keys and once with digests; DuckDB
has integers and no index, for it would use none here. Every closure is counted by all of them and
must come out equal. Rounds are interleaved; medians.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from stillhouse.registry.lineage.graph import Lineage
from stillhouse.schemas.event import GENESIS

FULL, QUICK = 1_000_000, 20_000
CLUSTER = 100
NEAR = 2000
"""How far back parents are in the long history."""
PARENTS = 3
SMALL_ROUNDS, LARGE_ROUNDS, COLD_ROUNDS = 200, 5, 5

CTE = """
WITH RECURSIVE reached(node) AS (
    SELECT {}
    UNION
    SELECT edge.parent FROM reached JOIN edge ON edge.child = reached.node
)
SELECT count(*) FROM reached
"""

Closure = Callable[[int], int]


def main(total: int) -> None:
    """Print times and ratios."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        arrows = list(graph(total))
        write_ledger(folder / "events.log", total, arrows)
        print(
            f"{total:,} artifacts, {len(arrows):,} arrows, "
            f"events.log {(folder / 'events.log').stat().st_size / 1e6:.0f} MB"
        )
        lineage = build(folder)
        peers = {
            "SQLite": sqlite(folder, arrows, digests=False),
            "SQLite by digest": sqlite(folder, arrows, digests=True),
            "DuckDB": duck(folder, arrows),
        }
        del arrows
        nodes = [lineage.node(digest(n)) for n in (small(total), total - 1)]
        ours: Closure = lambda node: sum(map(len, lineage.levels(node, "up")))  # noqa: E731
        compare("small", small(total), nodes[0], ours, peers, SMALL_ROUNDS)
        compare("large", total - 1, nodes[1], ours, peers, LARGE_ROUNDS)
        cold(folder, small(total))


# -- the world ----------------------------------------------------------------------------------


def graph(total: int) -> Iterator[tuple[int, int]]:
    """(child, parent) of every artifact."""
    chance = random.Random(7)
    history = total - total * 43 // 100 // CLUSTER * CLUSTER
    for child in range(total):
        lowest = max(history, child - NEAR)
        if child < history:
            lowest = max(child - child % CLUSTER, child - PARENTS - 1)
        behind = range(lowest, child)
        parents = set(chance.sample(behind, min(PARENTS - (child >= history), len(behind))))
        if child > history:
            parents.add(chance.randrange(history, child))
        yield from ((child, parent) for parent in sorted(parents))


def small(total: int) -> int:
    """The last artifact of a cluster in the middle."""
    return total // 4 // CLUSTER * CLUSTER + CLUSTER - 1


def digest(number: int) -> str:
    """A made-up digest."""
    return hashlib.sha256(b"%d" % number).hexdigest()


def write_ledger(path: Path, total: int, arrows: list[tuple[int, int]]) -> None:
    """The ledger that publishes them, one event each; its form is what `Ledger.append` writes."""
    place, prev = 0, GENESIS
    with path.open("wb") as file:
        for child in range(total):
            parents = []
            while place < len(arrows) and arrows[place][0] == child:
                shown = digest(arrows[place][1])
                parents.append(f'{{"circumstance":false,"digest":"{shown}","role":"source"}}')
                place += 1
            body = (
                '{"actor":{"host":"h","user":"u"},"batch":"1/1","data":{"digest":"'
                f'{digest(child)}","facts":{{}},"files":[],"form":"blob","kind":"dataset",'
                f'"origin":"imported","parents":[{",".join(parents)}],"size":1}},"prev":"{prev}",'
                f'"seq":{child + 1},"ts":"2026-11-22T10:00:00.000000Z",'
                '"type":"artifact.published","v":1}'
            ).encode()
            prev = hashlib.sha256(body).hexdigest()
            file.write(prev.encode() + b"\t" + body + b"\n")


def build(folder: Path) -> Lineage:
    """Index the ledger, and open what was kept."""
    log, index = folder / "events.log", folder / "lineage.idx"
    begun = time.perf_counter()
    Lineage(log, index)
    seconds = time.perf_counter() - begun
    print(f"index build {seconds:.2f} s   lineage.idx {index.stat().st_size / 1e6:.0f} MB")
    return Lineage(log, index)


# -- the peers ----------------------------------------------------------------------------------


def sqlite(folder: Path, arrows: list[tuple[int, int]], *, digests: bool) -> Closure:
    """A table with a covering index for each direction."""

    def key(number: int) -> int | bytes:
        return bytes.fromhex(digest(number)) if digests else number

    database = sqlite3.connect(folder / f"peer-{digests}.sqlite")
    database.execute("PRAGMA cache_size = -1000000")  # KiB
    database.execute("CREATE TABLE edge(child, parent)")
    begun = time.perf_counter()
    rows = ((key(child), key(parent)) for child, parent in arrows)
    database.executemany("INSERT INTO edge VALUES (?, ?)", rows)
    database.execute("CREATE INDEX up ON edge(child, parent)")
    database.execute("CREATE INDEX down ON edge(parent, child)")
    database.commit()
    database.execute("ANALYZE")
    print(
        f"SQLite load {time.perf_counter() - begun:.2f} s ({'digests' if digests else 'integers'})"
    )
    return lambda node: database.execute(CTE.format("?"), (key(node),)).fetchone()[0]


def duck(folder: Path, arrows: list[tuple[int, int]]) -> Closure:
    """A table without indexes."""
    import duckdb

    path = folder / "arrows.csv"
    with path.open("w", encoding="ascii") as file:
        file.writelines(f"{child},{parent}\n" for child, parent in arrows)
    database = duckdb.connect(folder / "peer.duckdb")
    database.execute(
        "CREATE TABLE edge AS SELECT * FROM read_csv(?, header = false, "
        "columns = {'child': 'INTEGER', 'parent': 'INTEGER'})",
        [str(path)],
    )
    return lambda node: (database.execute(CTE.format("?::INTEGER"), [node]).fetchone() or (0,))[0]


# -- rounds -------------------------------------------------------------------------------------


def compare(  # noqa: PLR0917  # one line a measurement
    what: str, number: int, node: int, ours: Closure, peers: dict[str, Closure], rounds: int
) -> None:
    """Ask all the same, in turns; DuckDB less often, for it only stands beside."""
    count = ours(node)
    times: dict[str, list[float]] = {"index": [], **{name: [] for name in peers}}
    for turn in range(rounds):
        times["index"].append(timed(ours, node, count))
        for name, peer in peers.items():
            if name != "DuckDB" or turn % 20 == 0:
                times[name].append(timed(peer, number, count))
    medians = {name: 1000 * statistics.median(taken) for name, taken in times.items()}
    told = "   ".join(f"{name} {ms:.3f} ms" for name, ms in medians.items())
    ratios = ", ".join(f"{medians['index'] / medians[name]:.3f} of {name}" for name in peers)
    print(f"{what} closure, {count:,} artifacts: {told}\n  index takes {ratios} ({rounds} rounds)")


def timed(closure: Closure, node: int, count: int) -> float:
    """Seconds; raises when the count is another."""
    begun = time.perf_counter()
    found = closure(node)
    seconds = time.perf_counter() - begun
    if found != count:
        raise SystemExit(f"counted {found}, not {count}")
    return seconds


def cold(folder: Path, number: int) -> None:
    """Open the index anew, check what is used of it, find the node and its closure."""
    taken = []
    for _ in range(COLD_ROUNDS):
        begun = time.perf_counter()
        lineage = Lineage(folder / "events.log", folder / "lineage.idx")
        lineage.levels(lineage.node(digest(number)), "up")
        taken.append(time.perf_counter() - begun)
    print(f"open, check and first small closure {1000 * statistics.median(taken):.1f} ms")


if __name__ == "__main__":
    main(QUICK if "--quick" in sys.argv[1:] else FULL)
