"""What a damaged event speaks of, and which releases rest on that.

Pure, over copies of events: the events of the log that can still be read, and what the projection
kept. Either copy may have been edited. So nothing here is proof: it shows where to look.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from stillhouse.schemas.digest import Digest
from stillhouse.schemas.event import Event

_SPOKEN_OF = ("digest", "subject", "evidence", "release", "plan")
"""Fields of a payload that name the artifact it is about."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One copy of an event."""

    where: str
    """The file that it is in."""
    event: Event


@dataclass(frozen=True, kw_only=True)
class TouchedArtifact:
    """One artifact that an event speaks of."""

    digest: Digest
    kind: str


@dataclass(frozen=True, kw_only=True)
class Touched:
    """What hangs on one event."""

    copies: tuple[Copy, ...]
    """Those that can be read, and differ."""
    artifacts: tuple[TouchedArtifact, ...]
    """Those that it speaks of, or that the run it speaks of made."""
    runs: tuple[Digest, ...]
    gates: tuple[str, ...]
    releases: tuple[Digest, ...]
    """Releases that rest on one of the artifacts."""


@dataclass
class _Story:
    """What rests on what, as far as any copy tells."""

    kinds: dict[Digest, str] = field(default_factory=dict)
    below: dict[Digest, set[Digest]] = field(default_factory=dict)
    made: dict[Digest, set[Digest]] = field(default_factory=dict)
    """Run -> what it made."""
    releases: set[Digest] = field(default_factory=set)

    def add(self, event: Event) -> None:
        data = event.data
        if event.type == "release.cut" and isinstance(data.get("release"), str):
            self.releases.add(data["release"])
        if event.type == "artifact.published" and isinstance(data.get("digest"), str):
            digest = data["digest"]
            self.kinds.setdefault(digest, str(data.get("kind", "")))
            if isinstance(data.get("run"), str):
                self.made.setdefault(data["run"], set()).add(digest)
            for parent in _parents(event):
                self.below.setdefault(parent, set()).add(digest)

    def resting_on(self, digests: Iterable[Digest]) -> set[Digest]:
        seen = set(digests)
        frontier = list(seen)
        while frontier:
            fresh = self.below.get(frontier.pop(), set()) - seen
            seen |= fresh
            frontier += fresh
        return seen & self.releases


def readable(log: Path, *, holding: bytes = b"") -> Iterator[Event]:
    """Every line of the log that is an event and holds some bytes, whether or not it verifies."""
    if log.exists():
        with log.open("rb") as lines:
            yield from parsed(
                line[line.find(b"\t") + 1 :].rstrip(b"\n") for line in lines if holding in line
            )


def parsed(bodies: Iterable[bytes | str]) -> Iterator[Event]:
    """Those of some JSON texts that are events."""
    for body in bodies:
        try:
            yield Event.model_validate_json(body)
        except ValidationError:
            continue


def touched(seq: int, copies: Iterable[tuple[str, Iterable[Event]]]) -> Touched:
    """What hangs on event `seq`. copies: files, and the events that can be read in each."""
    story = _Story()
    found: list[Copy] = []
    for source, events in copies:
        for event in events:
            story.add(event)
            if event.seq == seq and all(event != other.event for other in found):
                found.append(Copy(where=source, event=event))
    said = [copy.event for copy in found]
    runs = {e.data["run"] for e in said if isinstance(e.data.get("run"), str)}
    named = {e.data[name] for e in said for name in _SPOKEN_OF if isinstance(e.data.get(name), str)}
    for event in said:
        if event.type.startswith("run."):
            named |= story.made.get(event.data.get("run", ""), set())
    return Touched(
        copies=tuple(found),
        artifacts=tuple(
            TouchedArtifact(digest=digest, kind=story.kinds[digest])
            for digest in sorted(named & story.kinds.keys())
        ),
        runs=tuple(sorted(runs)),
        gates=tuple(sorted({str(e.data["gate"]) for e in said if "gate" in e.data})),
        releases=tuple(sorted(story.resting_on(named))),
    )


def _parents(event: Event) -> Iterator[Digest]:
    parents = event.data.get("parents", ())
    for parent in parents if isinstance(parents, list) else ():
        if isinstance(parent, dict) and isinstance(parent.get("digest"), str):
            yield parent["digest"]
