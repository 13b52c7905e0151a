"""What must hold after any number of kills: nothing lost, nothing doubled, everything sound.

Everything is first let come to rest by a plain `still watch --once`; then plans that were given up
are asked for again, and all that can be done must be done.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any

from finished import STILL, environment

from stillhouse import recipes
from stillhouse.registry.home import Home
from stillhouse.registry.projection.projection import Projection
from stillhouse.registry.state.state import State
from stillhouse.schemas.event import Event
from stillhouse.schemas.recipe import Recipe
from stillhouse.session import open_registry
from stillhouse.store.disk.hashing import hash_file

_ENDS = ("run.succeeded", "run.failed", "run.abandoned")
_TABLES = ("event", "artifact", "edge", "gate", "cursor")


class Aftermath:
    """The checks of one registry. `notes`: what was acknowledged to each process, a file each."""

    def __init__(self, registry: Path, notes: Path, must_fail: Callable[[Recipe], bool]) -> None:
        self._registry, self._notes, self._must_fail = registry, notes, must_fail
        self._session = open_registry(Home(registry))

    def problems(self) -> list[str]:
        """Bring everything to rest; every promise that was not kept, in words."""
        found = [*self._settled()]
        events = tuple(self._session.ledger.read())
        found += self._lost()
        found += _doubled(events)
        found += _torn_runs(events)
        found += self._sound()
        found += self._projected()
        noted = sum(1 for _ in self._acknowledged())
        print(f"{len(events)} events, of which {noted} were acknowledged to who noted it:", end=" ")
        kinds = Counter(event.type for event in events)
        print(", ".join(f"{count} {name}" for name, count in kinds.most_common()))
        return found

    # -- coming to rest ------------------------------------------------------------------------

    def _settled(self) -> Iterator[str]:
        yield from self._still("watch", "--once", codes=(0, 1))
        for run in self._session.state().running():
            yield f"{run.started.slot} {run.key[:12]} is left started after a plain run"
        state = self._session.state()
        for plan in state.requested:
            if not self._done(state, plan):
                recipes.request(self._session, plan)
        yield from self._still("watch", "--once", codes=(0, 1))
        state = self._session.state()
        for plan in state.requested:
            if self._done(state, plan) == self._must_fail(state.recipe(plan)):
                yield f"plan {plan[:12]} of {state.recipe(plan).name} did not end as it must"

    def _done(self, state: State, plan: str) -> bool:
        end = "deployment" if state.recipe(plan).deployment else "dataset"
        return (plan, end) in state.filled

    def _still(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> Iterator[str]:
        done = subprocess.run(
            [*STILL, "--registry", str(self._registry), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
            check=False,
        )
        if done.returncode not in codes:
            yield f"still {' '.join(arguments)} ended with {done.returncode}: {done.stdout[-2000:]}"

    # -- the ledger ----------------------------------------------------------------------------

    def _acknowledged(self) -> Iterator[tuple[int, str, str]]:
        """(seq, hash, who was told)."""
        for path in sorted(self._notes.glob("*.acks")):
            for line in path.read_text(encoding="utf-8").splitlines():
                seq, _, digest = line.partition("\t")
                yield int(seq), digest, path.stem

    def _lost(self) -> Iterator[str]:
        audit = self._session.ledger.audit()
        if audit.fault:
            yield f"the chain is broken: {audit.fault}"
        lines = (self._registry / "events.log").read_text(encoding="utf-8").splitlines()
        hashes = [line.partition("\t")[0] for line in lines]
        for seq, digest, who in self._acknowledged():
            if seq > len(hashes) or hashes[seq - 1] != digest:
                yield f"event {seq}, acknowledged to {who}, is not in the ledger"
        published = set(self._session.state().artifacts)
        for path in (self._registry / "inbox" / "source").glob("*.txt"):
            if hash_file(path).digest not in published:
                yield f"{path.name} lies in the inbox and was not published"

    # -- the store and the projection ----------------------------------------------------------

    def _sound(self) -> Iterator[str]:
        yield from self._still("fsck")

    def _projected(self) -> Iterator[str]:
        """The projection, caught up, is row for row one that is built from the ledger now."""
        log = self._registry / "events.log"
        fresh = Projection(self._registry / "fresh.duckdb", log)
        for table in _TABLES:
            question = f"SELECT * FROM {table} ORDER BY ALL"  # noqa: S608  # names of our own
            kept, made = (p.query(question).rows for p in (self._session.projection, fresh))
            if kept != made:
                yield f"table {table} of the projection is not what the ledger says"


# -- doubled effects ----------------------------------------------------------------------------


def _doubled(events: Iterable[Event]) -> Iterator[str]:
    """Whatever was recorded twice and must be there once."""
    seen: Counter[Hashable] = Counter()
    for event in events:
        seen.update(_once(event))
    for what, count in seen.items():
        if count > 1:
            yield f"recorded {count} times: {what}"


def _once(event: Event) -> Iterator[Hashable]:
    """What this event says that no other may say."""
    data: dict[str, Any] = event.data
    kind = event.type
    if kind == "run.started" or kind in _ENDS:
        yield ("started" if kind == "run.started" else "ended", data["run"], data["attempt"])
    if kind == "run.succeeded":
        yield (kind, data["run"])
    elif kind == "run.reused":
        yield (kind, data["plan"], data["slot"], data["run"])
    elif kind == "artifact.published":
        by = data.get("run") or data.get("name")
        yield (kind, data["kind"], data["digest"], data["origin"], by, data.get("role"))
    elif kind == "gate.evaluated":
        yield (kind, data["gate"], data["subject"], data["evidence"], data["policy"])
    elif kind == "release.cut":
        yield (kind, data["release"], data["plan"])


def _torn_runs(events: Iterable[Event]) -> Iterator[str]:
    """A run is started once before it ends once, and ends before it is started again."""
    going: set[str] = set()
    for event in events:
        run = str(event.data.get("run"))
        if event.type == "run.started":
            if run in going:
                yield f"event {event.seq}: {run} is started while it goes on"
            going.add(run)
        elif event.type in _ENDS:
            if run not in going:
                yield f"event {event.seq}: {run} ends without having been started"
            going.discard(run)
