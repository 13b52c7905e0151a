"""Garbage collection: what one look at the store and the ledger asks for. Pure.

 1. what is condemned and is kept again comes back (`bytes.reprieved`);
 2. what was condemned longer than the grace ago goes for good (`bytes.swept`);
 3. what nothing keeps any longer is condemned (`bytes.condemned`).

A decision holds as long as no event overtakes it. The rules that keep this safe are in
docs/store.md, "Condemning".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from stillhouse.registry.keeping.marking import Marks, Stock, mark
from stillhouse.registry.keeping.retention import Kept, kept_logs, retention
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Form
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.event import Event
from stillhouse.schemas.events import (
    ArtifactPublished,
    BytesCondemned,
    BytesReprieved,
    BytesSwept,
    Payload,
    TagMoved,
)
from stillhouse.schemas.moment import spell

_MOST = 800
"""Digests in one event, which holds at most 64 KiB."""

Touches = Callable[[Digest, Form, Collection[Digest]], bool]
"""Whether an artifact has any of these objects, or may have."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one garbage collection is to do."""

    state: State
    """As it was read last; it may go on following the ledger while the decision is carried out."""
    earlier: Mapping[Digest, str]
    """Artifact that was condemned before -> not to be swept before (RFC 3339 UTC)."""
    stock: Stock
    kept: Mapping[Digest, Kept]
    marks: Marks
    now: str
    since: str
    """What is older than this is older than the grace."""
    until: str
    """When what is condemned now may be swept."""

    @cached_property
    def condemned(self) -> tuple[Digest, ...]:
        """Artifacts that lose bytes and whose loss is unrecorded, or recorded with a later end."""
        losing = self.stock.holding(self.marks.doomed | self.marks.waiting)
        told = self.earlier
        return tuple(a for a in losing if a not in self.kept and told.get(a, "~") > self.until)

    @cached_property
    def reprieved(self) -> tuple[Digest, ...]:
        """Condemned artifacts that are kept again, or of which everything is."""
        losing = set(self.stock.holding(self.marks.doomed | self.marks.waiting | self.marks.due))
        return tuple(a for a in self.earlier if a in self.kept or a not in losing)

    @cached_property
    def gone(self) -> frozenset[Digest]:
        """Objects that will be nowhere in the store."""
        return self.marks.due - self.stock.placed.keys()

    @cached_property
    def swept(self) -> tuple[Digest, ...]:
        """Artifacts whose bytes go now, all or some."""
        return self.stock.holding(self.gone)

    def orphans(self, objects: Collection[Digest]) -> tuple[Digest, ...]:
        """Those of the objects that belong to no artifact."""
        known = self.stock.remnants.union(*self.stock.needs.values())
        return tuple(sorted(set(objects) - known))

    def payloads(self) -> tuple[Payload, ...]:
        """What is to be recorded."""
        return (*self._reprieved(), *self._swept(), *self._condemned())

    def overtaken_by(self, event: Event, touches: Touches) -> bool:
        """Whether an event may take away the ground for it, so that it is to be made again.

        Not when it only publishes something else, made from what is kept, or tags what is kept:
        these come by the dozen each second, and a decision that waited for a pause would wait for
        ever.
        """
        if event.type == TagMoved.TYPE:
            return not self._spares(event.data["digest"])
        if event.type == ArtifactPublished.TYPE:
            fact = ArtifactPublished.model_validate(event.data)
            named = (fact.digest, *(parent.digest for parent in fact.parents))
            losing = self.marks.due | self.marks.doomed  # these go, or lose their place
            return touches(fact.digest, fact.form, losing) or not all(map(self._spares, named))
        return True

    def _spares(self, digest: Digest) -> bool:
        return digest in self.kept or digest not in self.state.artifacts  # what is new

    def _reprieved(self) -> Iterator[Payload]:
        for place, (artifacts, _) in enumerate(_in_events(self.reprieved, ())):
            yield BytesReprieved(
                artifacts=artifacts, objects=0 if place else len(self.marks.restored)
            )

    def _swept(self) -> Iterator[Payload]:
        size = self.stock.size(self.gone)
        chunks = _in_events(self.swept, self.orphans(self.gone))
        for place, (artifacts, orphans) in enumerate(chunks):
            yield BytesSwept(
                artifacts=artifacts,
                orphans=orphans,
                objects=0 if place else len(self.gone),
                size=0 if place else size,
            )

    def _condemned(self) -> Iterator[Payload]:
        size = self.stock.size(self.marks.doomed)
        chunks = _in_events(self.condemned, self.orphans(self.marks.doomed))
        for place, (artifacts, orphans) in enumerate(chunks):
            yield BytesCondemned(
                artifacts=artifacts,
                orphans=orphans,
                objects=0 if place else len(self.marks.doomed),
                size=0 if place else size,
                until=self.until,
            )


def decide(
    state: State,
    stock: Stock,
    unreadable: Mapping[Digest, IntegrityError],
    *,
    at: datetime,
    grace: timedelta,
) -> Decision:
    """What is to go. unreadable: the trees whose list of files can not be read.

    Raises IntegrityError when one of them is kept: nobody knows what it needs.
    """
    now, since = spell(at), spell(at - grace)
    kept = retention(state, now, grace)
    for digest, error in unreadable.items():
        if digest in kept:
            raise _unknown_needs(digest, error)
    stock = replace(stock, held=stock.held | kept_logs(state, kept, since))
    return Decision(
        state=state,
        earlier=dict(state.condemned),
        stock=stock,
        kept=kept,
        marks=mark(stock, kept, state.condemned, at=at, grace=grace),
        now=now,
        since=since,
        until=spell(at + grace),
    )


def _in_events(
    artifacts: Sequence[Digest], orphans: Sequence[Digest]
) -> Iterator[tuple[tuple[Digest, ...], tuple[Digest, ...]]]:
    """(artifacts, orphans) for each event; the totals stand in the first of several."""
    both = [*artifacts, *orphans]
    for start in range(0, len(both), _MOST):
        chunk, split = both[start : start + _MOST], max(0, len(artifacts) - start)
        yield tuple(chunk[:split]), tuple(chunk[split:])


def _unknown_needs(digest: Digest, error: IntegrityError) -> IntegrityError:
    return IntegrityError(
        f"The folder {digest[:SHORT]} is kept, and its list of files can not be read, so nobody "
        f"knows which objects it needs: {error.message}",
        remedy=f"Mend it first with `still repair {digest[:SHORT]}`; nothing was changed.",
        code="gc.unreadable_tree",
    )
