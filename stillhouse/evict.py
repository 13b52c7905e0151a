"""Evicting: an artifact's bytes are dropped, because its recorded run can make them again.

1. look (stillhouse/stock.py), and refuse what could not be made again or is in use;
2. record `artifact.evicted`, if nobody recorded anything since the look: from now on it is known
   that the bytes may be gone;
3. condemn the objects that nothing else which is there needs;
4. look again, leases first; sweep those that nobody may rely on. What a publisher or worker that
   began earlier may have seen stays readable, until a later gc or evict.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from stillhouse.quiet import record_decision
from stillhouse.registry.keeping.eviction import Eviction, decide_eviction
from stillhouse.registry.keeping.marking import Stock, mark, sweep_order
from stillhouse.registry.keeping.recovery import Step, ToolChange, steps_of
from stillhouse.registry.state.references import resolve_reference
from stillhouse.rewind import tools_changed_since
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import ArtifactEvicted
from stillhouse.session import clock
from stillhouse.stock import Stocktaker, alone

if TYPE_CHECKING:
    from stillhouse.schemas.event import Event
    from stillhouse.schemas.events import Payload
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class Evicted:
    """What evicting one artifact came to, or would."""

    digest: Digest
    dry_run: bool
    steps: tuple[Step, ...]
    """What makes it again; the last one made it."""
    bytes: int
    """Of the objects that nothing else needs."""
    freed: int
    """Of these, bytes that are free now; the rest waits for whoever may have seen them."""
    tools: tuple[ToolChange, ...]

    def to_json(self) -> dict[str, object]:
        """Steps as the keys of their runs."""
        runs = [step.run for step in self.steps]
        return {
            "digest": self.digest,
            "dry_run": self.dry_run,
            "run": runs[-1],
            "steps": runs,
            "bytes": self.bytes,
            "freed": self.freed,
            "tools": self.tools,
        }


def evict(
    session: Session, reference: str, *, dry_run: bool = False, force: bool = False
) -> Evicted:
    """Drop the bytes of what a recorded run can make again; `dry_run`: say what would be freed.

    force: also reports, and what a release was made from. Raises InputError and BusyError as
    `decide_eviction`, BusyError when others record all the time or take objects away, StorageError.
    """
    digest = resolve_reference(session.state(), reference)
    taker = Stocktaker(session)
    if dry_run:
        found, freed = _decided(taker, taker.look(), digest, force=force), 0
    else:
        with alone(session.home):
            found = _recorded(session, taker, digest, force=force)
            freed = _dropped(session, taker, found.objects)
    return Evicted(
        digest=digest,
        dry_run=dry_run,
        steps=steps_of(found.runs),
        bytes=found.size,
        freed=freed,
        tools=tools_changed_since(found.runs),
    )


def _recorded(session: Session, taker: Stocktaker, digest: Digest, *, force: bool) -> Eviction:
    """Decide and record. Raises InputError, BusyError."""

    def decide() -> tuple[Eviction, Sequence[Payload], Callable[[Event], bool]]:
        found = _decided(taker, taker.read_on(), digest, force=force)
        if digest in taker.state.absent:  # recorded before; its objects were still in use then
            return found, (), lambda _: True
        fact = ArtifactEvicted(digest=digest, run=found.runs[-1].key, size=found.size)
        return found, (fact,), lambda _: True

    return record_decision(session, taker.state, decide, command="still evict")


def _decided(taker: Stocktaker, stock: Stock, digest: Digest, *, force: bool) -> Eviction:
    members = stock.needs.get(digest) or taker.remnants(digest)
    return decide_eviction(taker.state, stock, digest, members, force=force)


def _dropped(session: Session, taker: Stocktaker, objects: Collection[Digest]) -> int:
    """Condemn the objects, and sweep what nobody may rely on; returns the bytes freed."""
    session.store.condemn(sorted(objects))
    stock = taker.look()
    # Whatever is there is kept here: only what was given up may go.
    marks = mark(stock, stock.needs.keys(), {}, at=clock(), grace=timedelta(0))
    return session.store.sweep(sweep_order(marks.due.intersection(objects), taker.state.artifacts))
