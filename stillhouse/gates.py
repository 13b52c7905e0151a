"""Verdicts: of a plan's gates as they stand, or those recorded over one artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillhouse.outlook import Outlook
from stillhouse.registry.planning.summary import (
    GateSummary,
    WaiverSummary,
    summary_of_gate,
    summary_of_waiver,
)
from stillhouse.registry.state.references import latest_plan, resolve_reference
from stillhouse.schemas.artifact import Kind

if TYPE_CHECKING:
    from stillhouse.registry.state.state import Judged, State
    from stillhouse.schemas.canonical import Json
    from stillhouse.schemas.events import GateEvaluated
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class GateList:
    """A plan's gates."""

    gates: tuple[GateSummary, ...]

    def to_json(self) -> tuple[GateSummary, ...]:
        """Only the gates."""
        return self.gates


@dataclass(frozen=True, kw_only=True)
class RecordedVerdict:
    """One verdict as it was recorded, and what waives it now."""

    seq: int
    fact: GateEvaluated
    waivers: tuple[WaiverSummary, ...]

    def to_json(self) -> Json:
        """The fact's own keys between the two others."""
        return {"seq": self.seq, **self.fact.to_json(), "waivers": self.waivers}


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Verdicts over one artifact, or on its evidence."""

    verdicts: tuple[RecordedVerdict, ...]

    def to_json(self) -> tuple[RecordedVerdict, ...]:
        """Only the verdicts."""
        return self.verdicts


def gates_of(session: Session, reference: str | None = None) -> GateList | Verdicts:
    """The gates of the plan that a reference names, by default of the latest.

    Of an artifact that is no plan: the verdicts that were recorded over it. Raises InputError when
    there is no such plan or artifact.
    """
    outlook = Outlook(session)
    state = outlook.state
    digest = resolve_reference(state, reference) if reference else latest_plan(state)
    if state.published(digest, Kind.RECIPE):
        return GateList(gates=tuple(map(summary_of_gate, outlook.view(digest).gates)))
    return Verdicts(
        verdicts=tuple(
            RecordedVerdict(
                seq=judged.seq, fact=judged.fact, waivers=_waivers(state, judged, outlook.now)
            )
            for judged in state.verdicts_over(digest)
        )
    )


def _waivers(state: State, judged: Judged, now: str) -> tuple[WaiverSummary, ...]:
    """The waivers over what was judged: expired ones, and the one in force."""
    recorded = state.waivers.get((judged.fact.gate, judged.fact.subject), [])
    told = [summary_of_waiver(w, active=False) for w in recorded if w.fact.until <= now]
    found = state.waiver(judged.fact.gate, judged.fact.subject, now)
    return (*told, *((summary_of_waiver(found, active=True),) if found else ()))
