"""Comparing: where two things begin to differ, and which event changed a metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillhouse.registry.compare.comparison import Comparison, compare
from stillhouse.registry.compare.history import histories
from stillhouse.registry.ledger.ledger import events_at
from stillhouse.schemas import moment
from stillhouse.schemas.digest import Digest
from stillhouse.session import clock

if TYPE_CHECKING:
    from stillhouse.registry.compare.history import History, Measurement
    from stillhouse.registry.compare.origins import Change
    from stillhouse.schemas.event import Actor, Event
    from stillhouse.schemas.report import Metric
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class RecordedMetric:
    """One metric as one run measured it, and who recorded that."""

    metric: Metric
    event: int
    """The one that published the report."""
    ts: str
    """RFC 3339 UTC."""
    actor: Actor
    report: Digest
    run: Digest
    plans: tuple[Digest, ...]
    """Those whose slot the run fills."""
    releases: tuple[Digest, ...]
    """Those cut for these plans."""


@dataclass(frozen=True, kw_only=True)
class Blame:
    """One metric of one slot through time."""

    slot: str
    changed_by: int | None
    """The last event since which it has another value; None: it has its first value."""
    because: Change | None
    """The nearest thing that differed in the run of that event."""
    history: tuple[RecordedMetric, ...]
    """Oldest first; the last is the one that was asked about."""


@dataclass(frozen=True, kw_only=True)
class BlameList:
    """One metric in every slot that measured it."""

    series: tuple[Blame, ...]

    def to_json(self) -> tuple[Blame, ...]:
        """Only the series."""
        return self.series


def diff(session: Session, a: str, b: str) -> Comparison:
    """Compare what two references name, as of now. Raises InputError."""
    return compare(session.state(), a, b, moment.spell(clock()))


def blame(session: Session, reference: str, metric: str, slot: str | None = None) -> BlameList:
    """Which event changed a metric of what `reference` names. Raises InputError."""
    found = histories(session.state(), reference, metric, slot)
    wanted = {measured.seq for series in found for measured in series.measurements}
    events = events_at(session.home.log, wanted)
    return BlameList(series=tuple(_blame(series, events) for series in found))


def _blame(series: History, events: Mapping[int, Event]) -> Blame:
    return Blame(
        slot=series.slot,
        changed_by=series.changed.seq if series.changed else None,
        because=series.cause,
        history=tuple(_recorded(one, events[one.seq].actor) for one in series.measurements),
    )


def _recorded(measured: Measurement, actor: Actor) -> RecordedMetric:
    return RecordedMetric(
        metric=measured.metric,
        event=measured.seq,
        ts=measured.ts,
        actor=actor,
        report=measured.report,
        run=measured.run.key,
        plans=measured.plans,
        releases=measured.releases,
    )
