"""Collecting garbage: bytes that nothing keeps are condemned, and after a grace they are swept.

One call does all that is decided (registry/keeping/collection.py) from one look at the store
(stillhouse/stock.py). What a run left that ended without success goes too
(phases/reactor/folders.py). It goes once it is older than the grace and no plan would take the run
up again. Unfinished copies of dead processes go as well.

The decision is recorded in one batch *before* a single object moves. It is recorded only if no
event since the look may change it; else it is made again, over the same look. So everything that
may be gone is known as gone or condemned. A kill at any point leaves only work for the next call:
objects still to be moved or removed. No answer lists these as present.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from stillhouse.quiet import record_decision
from stillhouse.registry.keeping.collection import Decision, decide
from stillhouse.registry.keeping.marking import sweep_order
from stillhouse.registry.keeping.summary import (
    ArtifactFate,
    KeptArtifact,
    Orphan,
    Total,
    fates,
    kept_artifacts,
    orphans,
    totals,
)
from stillhouse.session import clock
from stillhouse.stock import Stocktaker, alone
from stillhouse.store.objects.staging import sweep

if TYPE_CHECKING:
    from stillhouse.phases.reactor.folders import RunFolder
    from stillhouse.schemas.event import Event
    from stillhouse.schemas.events import Payload
    from stillhouse.session import Session
    from stillhouse.store.objects.leases import Lease


@dataclass(frozen=True, kw_only=True)
class Orphans:
    """Objects that belong to no artifact, and go."""

    swept: tuple[Orphan, ...]
    condemned: tuple[Orphan, ...]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes that go, or wait."""

    swept: int
    condemned: int
    waiting: int
    """Of what was condemned before, and is not swept yet."""
    leased: int
    """Of these, what only somebody at work keeps."""
    run_folders: int


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Objects that wait."""

    waiting: int
    leased: int


@dataclass(frozen=True, kw_only=True)
class GarbageCollection:
    """What one garbage collection did, or would do."""

    dry_run: bool
    grace_seconds: float
    until: str
    """When what is condemned now may be swept (RFC 3339 UTC)."""
    artifacts: tuple[ArtifactFate, ...]
    orphans: Orphans
    bytes: Sizes
    objects: Counts
    leases: tuple[Lease, ...]
    """Who is at work, the oldest first: what was condemned since that began is not swept."""
    run_folders: tuple[RunFolder, ...]
    """Of runs; they are no objects, and no event tells of them."""
    totals: tuple[Total, ...]
    kept: tuple[KeptArtifact, ...] | None
    """Where everything was asked for."""

    def to_json(self) -> dict[str, object]:
        """Without `kept` where it was not asked for."""
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.kept is None:
            del told["kept"]
        return told


def collect(
    session: Session,
    grace: timedelta | None = None,
    *,
    dry_run: bool = False,
    everything: bool = False,
) -> GarbageCollection:
    """Free the bytes that nothing keeps; by default after the grace of config.toml.

    dry_run: say what would happen, change nothing. everything: tell also what is kept. Raises
    BusyError when another is at work, or others record so fast that no decision stays true;
    IntegrityError when it can not be known what something that is kept needs; StorageError.
    """
    grace = session.config.grace if grace is None else grace
    taker = Stocktaker(session)
    if dry_run:
        found = decide(taker.state, taker.look(), taker.unreadable, at=clock(), grace=grace)
        folders = taker.run_folders.look(found.now, found.since)
    else:
        with alone(session.home):
            found = _recorded(session, taker, grace)
            _carry_out(session, found)
            folders = _without_old(taker, found)
    return GarbageCollection(
        dry_run=dry_run,
        grace_seconds=grace.total_seconds(),
        until=found.until,
        artifacts=tuple(fates(found)),
        orphans=Orphans(
            swept=orphans(found, found.gone), condemned=orphans(found, found.marks.doomed)
        ),
        bytes=Sizes(
            swept=found.stock.size(found.gone),
            condemned=found.stock.size(found.marks.doomed),
            waiting=found.stock.size(found.marks.waiting),
            leased=found.stock.size(found.marks.leased),
            run_folders=sum(folder.bytes for folder in folders if folder.over),
        ),
        objects=Counts(waiting=len(found.marks.waiting), leased=len(found.marks.leased)),
        leases=taker.leases,
        run_folders=tuple(folder for folder in folders if folder.over or everything),
        totals=tuple(totals(found)),
        kept=tuple(kept_artifacts(found)) if everything else None,
    )


def _recorded(session: Session, taker: Stocktaker, grace: timedelta) -> Decision:
    """Decide and record; the caller is alone. Raises BusyError, IntegrityError, StorageError."""

    def decided() -> tuple[Decision, Sequence[Payload], Callable[[Event], bool]]:
        found = decide(taker.state, taker.read_on(), taker.unreadable, at=clock(), grace=grace)
        return found, found.payloads(), partial(found.overtaken_by, touches=taker.touches)

    return record_decision(session, taker.state, decided, command="still gc")


def _carry_out(session: Session, found: Decision) -> None:
    store = session.store
    for digest in sorted(found.marks.restored):
        store.restore(digest)
    store.sweep(sweep_order(found.marks.due, found.state.artifacts))
    store.condemn(sorted(found.marks.doomed))
    sweep(store.root)


def _without_old(taker: Stocktaker, found: Decision) -> tuple[RunFolder, ...]:
    """Remove the folders of runs that may go; what became of each."""
    folders = taker.run_folders
    present = folders.look(found.now, found.since)
    return tuple(
        folder
        if not folder.over or folders.remove(folder, found.now, found.since, refresh=taker.follow)
        else replace(folder, fate="keep", why="somebody took it up meanwhile")
        for folder in present
    )
