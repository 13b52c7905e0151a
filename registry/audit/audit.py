"""Whether the ledger is what it was: its chain first, then every witness of what it said.

A chain proves no more than that it is one. A log that was cut at a batch, or rewritten and hashed
again, is still a chain. So the audit compares the log with witnesses that saw it earlier. The
projection is one, event by event. The others are heads (a seq and its hash) noted beside the
projection, in the index, in the manifests of releases, and by people.

A witness may be wrong itself. The projection's copy of an event is only believed when it has the
hash that it is filed under.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from stillhouse.registry.audit.witnesses import Testimony, Verdict, Witness
from stillhouse.registry.home import LEDGER, PROJECTION
from stillhouse.registry.ledger.format import BrokenError, Line
from stillhouse.registry.ledger.ledger import Audit, audit
from stillhouse.registry.projection.borrow import HeldError, Instance
from stillhouse.registry.projection.queries import named
from stillhouse.registry.projection.sandbox import Params, Rows, fetch
from stillhouse.schemas.digest import Digest, Sha256
from stillhouse.schemas.event import GENESIS

PATIENCE = 2.0
"""Seconds to wait for a foreign shell that holds the projection."""


class Row(NamedTuple):
    """What the projection remembers of one event."""

    seq: int
    hash: Sha256
    prev: Sha256
    whole: bool
    """True: its copy of the event has that hash, and its columns are those of the copy."""


@dataclass(frozen=True, kw_only=True)
class Projected:
    """The projection as a witness."""

    state: Literal["read", "absent", "held", "unreadable"]
    rows: tuple[Row, ...] = ()
    """In order of seq."""
    releases: tuple[Digest, ...] = ()
    """Those that it knows, by whose manifests the ledger can be held as well."""
    detail: str = ""
    """Who holds it, or why it cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Where the ledger, or what remembers it, is not what it was."""

    event: int
    """The first one that is not …"""
    after: int
    """… or, where only heads tell, one after this one; else `event - 1`."""
    where: str
    """The file that is wrong."""
    what: str


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What an audit found."""

    audit: Audit
    projected: Projected
    compared: int
    """Events of the projection that equal those of the log, from the first on."""
    offset: int
    """Bytes of the log up to the last of them."""
    heads: tuple[Testimony, ...]
    findings: tuple[Finding, ...]
    """In order of events; none: everything is what it was."""


def read_projection(path: Path, patience: float = PATIENCE) -> Projected:
    """Read the projection as it is; unlike a query, this neither catches up nor rebuilds."""
    import duckdb

    if not path.exists():
        return Projected(state="absent")
    try:
        rows = _ask(path, "audit_rows", (), patience).rows
        releases = _ask(path, "audit_releases", (), patience).rows
    except HeldError as error:
        holder = f"{error.program} (PID {error.pid})" if error.pid else error.program
        return Projected(state="held", detail=holder)
    except duckdb.Error as error:
        return Projected(state="unreadable", detail=str(error).strip())
    return Projected(
        state="read",
        rows=tuple(Row(*row) for row in rows),
        releases=tuple(release for (release,) in releases),
    )


def read_copies(path: Path, seq: int, patience: float = PATIENCE) -> tuple[str, ...]:
    """The projection's copies of event `seq` and of all that say what rests on what.

    The JSON of each; none when the projection cannot be read.
    """
    import duckdb

    if not path.exists():
        return ()
    try:
        return tuple(body for (body,) in _ask(path, "audit_copies", {"seq": seq}, patience).rows)
    except (HeldError, duckdb.Error):
        return ()


def _ask(path: Path, question: str, params: Params, patience: float) -> Rows:
    deadline = time.monotonic() + patience
    with Instance().borrowed(path, read_only=True, deadline=deadline, discard=True) as connection:
        return fetch(connection, named(question), params)


def examine(log: Path, projected: Projected, witnesses: Sequence[Witness]) -> Examination:
    """Read every byte of the log, and hold it against what others remember of it."""
    hashes: list[Sha256] = []
    ends = array("Q", [0])

    def remember(line: Line) -> None:
        hashes.append(line.hash)
        ends.append(line.end)

    found = audit(log, remember)
    broken = found.fault is not None
    compared, told = _compare(hashes, projected.rows, broken=broken)
    heads = tuple(_asked(witness, hashes, broken=broken) for witness in witnesses)
    agreed = max([compared, *(head.seq for head in heads if head.verdict == "agrees")])
    findings = [*_of_chain(found), *told, *_of_heads(heads, len(hashes), agreed)]
    return Examination(
        audit=found,
        projected=projected,
        compared=compared,
        offset=ends[compared],
        heads=heads,
        findings=tuple(sorted(findings, key=lambda finding: finding.event)),
    )


def _of_chain(found: Audit) -> Iterator[Finding]:
    if found.fault is not None:
        seq = found.fault.seq if isinstance(found.fault, BrokenError) else found.events + 1
        yield _finding(seq, LEDGER, found.fault.message)


def _compare(
    hashes: Sequence[Sha256], rows: Sequence[Row], *, broken: bool
) -> tuple[int, list[Finding]]:
    """How many events the projection has as the log has them, and the first that it has not."""
    prev = GENESIS
    for place, row in enumerate(rows, start=1):
        whole = row.whole and row.seq == place and row.prev == prev
        if place > len(hashes):
            lost = f"It ends at event {len(hashes)}; {PROJECTION} holds event {place}."
            return place - 1, [] if broken else [_finding(place, LEDGER, lost)]
        if row.seq != place:
            gone = f"It has no event {place}, or has it twice."
            return place - 1, [_finding(place, PROJECTION, gone)]
        if not whole:
            edited = f"Its row of event {place} is not what was projected from the ledger."
            return place - 1, [_finding(place, PROJECTION, edited)]
        if row.hash != hashes[place - 1]:
            rewritten = f"Event {place} is not the one that was projected: its hash was another."
            return place - 1, [_finding(place, LEDGER, rewritten)]
        prev = row.hash
    return len(rows), []


def _asked(witness: Witness, hashes: Sequence[Sha256], *, broken: bool) -> Testimony:
    verdict: Verdict
    if witness.seq > len(hashes):
        verdict = "unknown" if broken else "beyond"
    else:
        verdict = "agrees" if hashes[witness.seq - 1] == witness.hash else "differs"
    return Testimony(source=witness.source, seq=witness.seq, hash=witness.hash, verdict=verdict)


def _of_heads(heads: Sequence[Testimony], events: int, agreed: int) -> Iterator[Finding]:
    for head in heads:
        if head.verdict == "beyond":
            what = f"It ends at event {events}; {head.source} knows event {head.seq}."
            yield _finding(events + 1, LEDGER, what)
        elif head.verdict == "differs":
            what = f"Event {head.seq} is not the one that {head.source} knows."
            after = min(agreed, head.seq - 1)
            yield Finding(event=head.seq, after=after, where=LEDGER, what=what)


def _finding(event: int, where: str, what: str) -> Finding:
    return Finding(event=event, after=event - 1, where=where, what=what)
