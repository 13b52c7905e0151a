"""The verb `runs`: what goes on and what went before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.cli.alive import held
from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.views import render
from stillhouse.registry.state.references import resolve_reference
from stillhouse.registry.state.runs import RunStatus
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError

if TYPE_CHECKING:
    from stillhouse.registry.state.runs import Run
    from stillhouse.registry.state.state import State
    from stillhouse.schemas.event import Event
    from stillhouse.session import Session

_MINUTE, _HOUR = 60, 3600
_COLUMNS: tuple[str, ...] = (
    "slot",
    "status",
    "#",
    "started",
    "took",
    "progress",
    "run",
    "plan",
    "why",
)


def runs(  # one option a filter
    context: typer.Context,
    *,
    status: Annotated[RunStatus | None, typer.Option("--status", help="Only these.")] = None,
    phase: Annotated[
        str | None, typer.Option("--phase", metavar="PHASE", help="Only of this phase.")
    ] = None,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="REF", help="Only what this plan ran or reuses.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="The newest N.")] = 20,
    as_json: Json = False,
) -> None:
    """Show runs, the newest last.

    Each with its latest attempt; those that go on with how far they are.
    """
    session = session_of(context)
    state = session.state()
    found = list(_chosen(state, status, phase, plan))
    shown = found[-limit:]
    wishes = _wishes(session, shown)
    told = [_values(session, state, run, wishes.get(run.key)) for run in shown]
    if as_json:
        render.json_document(told)
        return
    _show(told)
    if len(found) > len(shown):
        render.note(f"{len(found) - len(shown)} older ones are not shown; see --limit.")


def _wishes(session: Session, shown: Iterable[Run]) -> Mapping[Digest, Event]:
    """Of each run that someone wished to end, that wish; only the ledger knows whose it was."""
    from stillhouse.registry.ledger.ledger import LedgerReader

    wished = {run.wished_seq: run.key for run in shown if run.wished_seq}
    if not wished:
        return {}
    reader = LedgerReader(session.ledger.path)
    lines = (line for chunk in reader.chunks() for line in chunk)
    return {wished[line.seq]: line.event() for line in lines if line.seq in wished}


def _chosen(
    state: State, status: RunStatus | None, phase: str | None, plan: str | None
) -> Iterator[Run]:
    """The runs that all filters let through, in the order of their starts."""
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


def _values(session: Session, state: State, run: Run, wish: Event | None) -> dict[str, Any]:
    """One run, for JSON."""
    return {
        "run": run.key,
        "phase": run.started.phase,
        "slot": run.started.slot,
        "status": str(run.status),
        "attempt": run.attempts,
        "started": run.ts,
        "ended": run.ended_ts or None,
        "seconds": _seconds(run),
        "progress": _progress(session, run) if run.going_on else None,
        "plan": run.started.plan,
        "name": _plan_name(state, run.started.plan),
        "code": run.error.code if run.last == "failed" and run.error else None,
        "reason": _reason(session, run, wish),
    }


def _seconds(run: Run) -> float:
    """What the latest attempt took, or takes so far."""
    from stillhouse.session import clock

    if run.seconds is not None and not run.going_on:
        return run.seconds
    end = datetime.fromisoformat(run.ended_ts) if run.ended_ts else clock()
    return round(max(0.0, (end - datetime.fromisoformat(run.ts)).total_seconds()), 3)


def _progress(session: Session, run: Run) -> Mapping[str, Any] | None:
    from stillhouse.phases.workers.job import read_progress

    return read_progress(session.home.run(run.key))


def _plan_name(state: State, plan: Digest) -> str:
    """What the recipe calls itself; a plan of a run may never have been published here."""
    return state.recipe(plan).name if state.published(plan, Kind.RECIPE) else ""


def _reason(session: Session, run: Run, wish: Event | None) -> str:
    """Why it stands as it stands, where its status does not say it all."""
    wished = ""
    if wish is not None:
        why = f": {wish.data['reason']}" if wish.data.get("reason") else ""
        wished = f"cancelled by {wish.actor.user}{why}"
    if run.going_on and not held(session.home.run_lock(run.key)):
        return "its worker is gone; whoever advances the registry next records how it ended"
    if run.going_on or run.heeded:
        return wished
    own = run.error.message if run.last == "failed" and run.error else run.reason
    return f"{own} ({wished})" if wished else own


def _show(told: list[dict[str, Any]]) -> None:
    columns = _COLUMNS
    rows = [_row(one) for one in told]
    if render.at_terminal():  # room is short there: what is empty in every row is left out
        kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
        columns = tuple(columns[place] for place in kept)
        rows = [tuple(row[place] for place in kept) for row in rows]
    render.table(columns, rows)


def _row(one: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        one["slot"],
        one["status"],
        one["attempt"],
        _when(one["started"]),
        duration(one["seconds"]),
        progress_text(one["progress"]),
        render.short(one["run"]),
        one["name"] or render.short(one["plan"]),
        f"{one['code']}: {one['reason']}" if one["code"] else one["reason"],
    )


def _when(ts: str) -> str:
    """A time: in a pipe as it is recorded, at a terminal the time of today, else the day."""
    from stillhouse.session import clock

    if not render.at_terminal():
        return ts
    day, _, time = ts[:19].partition("T")
    return time if day == clock().date().isoformat() else day


def duration(seconds: float) -> str:
    """A length of time: for people at a terminal, else plain seconds."""
    if not render.at_terminal():
        return f"{seconds:.1f}"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    if seconds < _HOUR:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // _MINUTE} h {minutes % _MINUTE:02} min"


def progress_text(note: Mapping[str, Any] | None) -> str:
    """How far a run is, from its progress.json; empty when it says nothing."""
    if not note:
        return ""
    figures = note.get("figures") or {}
    said = "".join(f", {name} {value:.4g}" for name, value in figures.items())
    return f"{note.get('label', '')} {note.get('done', '?')}/{note.get('total', '?')}{said}"
