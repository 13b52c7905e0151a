"""Runs as they are listed: what goes on, and what went before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillhouse.phases.workers.job import read_progress
from stillhouse.registry.ledger.ledger import events_at
from stillhouse.registry.state.references import resolve_reference
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.moment import parse
from stillhouse.session import clock
from stillhouse.store.disk.locks import held

if TYPE_CHECKING:
    from stillhouse.registry.state.runs import Run, RunStatus
    from stillhouse.registry.state.state import State
    from stillhouse.schemas.event import Event
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run, with its latest attempt."""

    run: Digest
    phase: str
    slot: str
    status: RunStatus
    attempt: int
    started: str
    """RFC 3339 UTC."""
    ended: str | None
    seconds: float
    """What the latest attempt took, or takes so far."""
    progress: Mapping[str, Any] | None
    """The worker's latest note, while it goes on."""
    plan: Digest
    name: str
    """What the recipe calls itself; empty for a plan that was never published here."""
    code: str | None
    """Of its failure."""
    reason: str
    """Why it stands as it stands, where its status does not say it all."""


@dataclass(frozen=True, kw_only=True)
class RunList:
    """The newest runs, in the order of their starts."""

    rows: tuple[RunRow, ...]
    older: int
    """Runs that were left out."""

    def to_json(self) -> tuple[RunRow, ...]:
        """Only the rows."""
        return self.rows


def list_runs(
    session: Session,
    *,
    status: RunStatus | None = None,
    phase: str | None = None,
    plan: str | None = None,
    limit: int = 20,
) -> RunList:
    """The newest `limit` runs that all filters let through; `plan` is a reference.

    Raises InputError for a phase or plan that is not known.
    """
    state = session.state()
    found = list(_chosen(state, status, phase, plan))
    shown = found[-limit:]
    wishes = _wishes(session, shown)
    return RunList(
        rows=tuple(_row(session, state, run, wishes.get(run.key)) for run in shown),
        older=len(found) - len(shown),
    )


def _chosen(
    state: State, status: RunStatus | None, phase: str | None, plan: str | None
) -> Iterator[Run]:
    wanted = resolve_reference(state, plan, kind=Kind.RECIPE) if plan else None
    filled = {run for (of, _), run in state.filled.items() if of == wanted}
    if phase is not None:
        _require_phase(state, phase)
    for run in sorted(state.runs.values(), key=lambda run: run.started_seq):
        if (
            status in (None, run.status)
            and phase in (None, run.started.phase)
            and (wanted is None or run.started.plan == wanted or run.key in filled)
        ):
            yield run


def _require_phase(state: State, phase: str) -> None:
    from stillhouse.phases.catalog import CATALOG

    known = dict.fromkeys(spec.name for spec in CATALOG)
    known |= dict.fromkeys(run.started.phase for run in state.runs.values())
    if phase not in known:
        raise InputError(
            f"There is no phase named {phase!r}.",
            remedy="Phases are: " + ", ".join(known) + ".",
            code="phase.unknown",
        )


def _wishes(session: Session, shown: Iterable[Run]) -> Mapping[Digest, Event]:
    """Of each run that someone wished to end, that wish; only the ledger knows whose it was."""
    wished = {run.wished_seq: run.key for run in shown if run.wished_seq}
    return {wished[seq]: event for seq, event in events_at(session.home.log, wished).items()}


def _row(session: Session, state: State, run: Run, wish: Event | None) -> RunRow:
    plan = run.started.plan
    return RunRow(
        run=run.key,
        phase=run.started.phase,
        slot=run.started.slot,
        status=run.status,
        attempt=run.attempts,
        started=run.ts,
        ended=run.ended_ts or None,
        seconds=_seconds(run),
        progress=read_progress(session.home.run(run.key)) if run.going_on else None,
        plan=plan,
        name=state.recipe_name(plan),
        code=run.error.code if run.last == "failed" and run.error else None,
        reason=_reason(session, run, wish),
    )


def _seconds(run: Run) -> float:
    if run.seconds is not None and not run.going_on:
        return run.seconds
    end = parse(run.ended_ts) if run.ended_ts else clock()
    return round(max(0.0, (end - parse(run.ts)).total_seconds()), 3)


def _reason(session: Session, run: Run, wish: Event | None) -> str:
    wished = ""
    if wish is not None:
        why = f": {wish.data['reason']}" if wish.data.get("reason") else ""
        wished = f"cancelled by {wish.actor.user}{why}"
    if run.going_on and not held(session.home.run_lock(run.key)):
        return "its worker is gone; whoever advances the registry next records how it ended"
    if run.going_on:
        return wished
    own = run.error.message if run.last == "failed" and run.error else run.reason
    again = "a retry was asked for" if run.retried_seq else ""
    notes = ", ".join(filter(None, (wished, again)))
    return notes if run.heeded else f"{own} ({notes})" if notes else own
