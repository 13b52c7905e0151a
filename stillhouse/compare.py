"""Comparing: where two things begin to differ, and which event changed a metric."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from stillhouse.registry.compare.comparison import Comparison, compare
from stillhouse.registry.compare.history import Blame, blames
from stillhouse.registry.ledger.ledger import events_at
from stillhouse.schemas import moment
from stillhouse.session import clock

if TYPE_CHECKING:
    from stillhouse.session import Session


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
    events = partial(events_at, session.home.log)
    return BlameList(series=blames(session.state(), reference, metric, slot, events))
