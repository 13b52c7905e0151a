"""Verbs that compare: `diff` (where two things begin to differ), `blame` (what changed a metric).

Rules: the nearest cause first, then what follows from it; both are questions, so what they find is
never an exit code; values are old, then new.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.views import render
from stillhouse.registry.compare import measurements as measured
from stillhouse.registry.compare import origins
from stillhouse.registry.compare.measurements import Measurement, Pair, Verdicts
from stillhouse.registry.compare.origins import Change, Subject, Walk
from stillhouse.registry.state.references import resolve_reference, resolve_run
from stillhouse.schemas import moment
from stillhouse.schemas.digest import is_digest
from stillhouse.schemas.errors import InputError

if TYPE_CHECKING:
    from stillhouse.registry.state.state import State
    from stillhouse.schemas.event import Event
    from stillhouse.schemas.report import Metric
    from stillhouse.session import Session

_Thing = Annotated[
    str,
    typer.Argument(help="A digest prefix, a tag, kind@latest, or the prefix of a run's key."),
]


# -- diff ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two things, and all that is not the same of them."""

    before: Subject
    after: Subject
    walk: Walk
    metrics: tuple[Pair, ...]
    gates: tuple[Verdicts, ...]


def diff(context: typer.Context, a: _Thing, b: _Thing, *, as_json: Json = False) -> None:
    """Show where two artifacts, runs, plans or releases begin to differ.

    Nearest cause first: phase versions, inputs, parameters, tools; then what was recorded beside
    them, what follows, metrics and gates. A recipe stands for its plan.
    """
    from stillhouse.session import clock

    state = session_of(context).state()
    before, after = _subject(state, a), _subject(state, b)
    if bool(before.run) != bool(after.run):
        raise InputError(
            f"{a} and {b} can not be compared: one is a run, the other an artifact.",
            remedy="Name two runs, or two artifacts; `still show` a run for what it made.",
            code="diff.unlike",
        )
    found = Comparison(
        before=before,
        after=after,
        walk=origins.walk(state, before, after),
        metrics=measured.pair_metrics(state, before, after),
        gates=measured.pair_verdicts(state, before, after, moment.spell(clock())),
    )
    if as_json:
        render.json_document(_as_json(state, found))
    elif before.name == after.name:
        render.line("identical")
    else:
        _show(state, found)


def _subject(state: State, ref: str) -> Subject:
    """What REF names; a run only if no artifact is named so. Raises ReferenceError_."""
    run = resolve_run(state, ref)
    if run is not None and ref not in state.tags and not _begins(state.artifacts, ref):
        return Subject(run=state.runs[run])
    return Subject(digest=resolve_reference(state, ref))


def _begins(digests: Collection[str], prefix: str) -> bool:
    return any(digest.startswith(prefix) for digest in digests)


def _as_json(state: State, found: Comparison) -> dict[str, Any]:
    before, after = found.before, found.after
    return {
        "a": {"kind": _kind(state, before), "digest": before.name},
        "b": {"kind": _kind(state, after), "digest": after.name},
        "identical": before.name == after.name,
        "causes": [vars(change) for change in found.walk.causes],
        "circumstances": [vars(change) for change in found.walk.circumstances],
        "consequences": [vars(change) for change in found.walk.consequences],
        "metrics": [_metric_values(pair) for pair in found.metrics],
        "gates": [vars(gate) | {"differs": gate.differs} for gate in found.gates],
    }


def _metric_values(pair: Pair) -> dict[str, Any]:
    return {
        "slot": pair.slot,
        "name": pair.name,
        "before": pair.before.to_json() if pair.before else None,
        "after": pair.after.to_json() if pair.after else None,
        "change": pair.change,
        "differs": pair.differs,
        "moved": pair.moved,
    }


def _kind(state: State, subject: Subject) -> str:
    if subject.run:
        return f"run of {subject.run.started.slot}"
    return str(state.artifacts[subject.digest][0].fact.kind)


def _show(state: State, found: Comparison) -> None:
    sides = [f"{_kind(state, s)} {render.short(s.name)}" for s in (found.before, found.after)]
    render.row("compared", *sides)
    for change in found.walk.causes:
        _show_change("cause", change)
    for change in found.walk.circumstances:
        _show_change("beside", change)
    for change in found.walk.consequences:
        _show_change("follows", change)
    differing = [pair for pair in found.metrics if pair.differs]
    for pair in differing:
        if pair.moved:
            _show_metric(pair)
    if unmoved := sum(not pair.moved for pair in differing):
        render.row("metric", "", f"{unmoved} more", "whose interval alone moved: see --json")
    for gate in found.gates:
        if gate.differs:
            words = _was(gate.before or "not judged", gate.after or "not judged")
            render.row("gate", gate.slot, gate.gate, words)


def _show_change(word: str, change: Change) -> None:
    name = f"{change.what} {change.name}".rstrip()
    values = _was(_shown(change.before), _shown(change.after))
    render.row(word, str(change.distance), " < ".join(change.path), name, values)


def _show_metric(pair: Pair) -> None:
    change = "" if pair.change is None else f"{pair.change:+.6g}"
    render.row(
        "metric", pair.slot, pair.name, _was(_number(pair.before), _number(pair.after)), change
    )


def _number(metric: Metric | None) -> str:
    """A value with its interval and its n, as far as there are any."""
    if metric is None:
        return "not measured"
    value = render.number(metric.value) or str(metric.nonfinite)
    if metric.low is not None and metric.high is not None:
        value += f" [{render.number(metric.low)}, {render.number(metric.high)}]"
    return value if metric.n is None else f"{value} (n = {metric.n})"


def _shown(text: str) -> str:
    return render.short(text) if is_digest(text) else text


def _was(before: str, after: str) -> str:
    return f"was {before}, then {after}"


# -- blame --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Blame:
    """One metric of one slot through time."""

    slot: str
    measurements: tuple[Measurement, ...]
    """Oldest first; the last is the one that was asked about."""
    changed: int | None
    """The place of the last that has another value than the one before it."""
    cause: Change | None
    """The nearest thing that differed in its run."""


def blame(
    context: typer.Context,
    ref: Ref,
    metric: Annotated[str, typer.Argument(help="The metric's name, as in `still show REPORT`.")],
    *,
    slot: Annotated[
        str | None, typer.Option("--slot", help="Only the report of this slot.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which event changed a metric, and what differed in its run.

    REF is a report, or a thing that was measured, or a recipe or release: then all its reports. The
    history is that of the same slot in plans whose recipes have the same name.
    """
    session = session_of(context)
    state = session.state()
    told = [
        _blamed(state, of, measured.history(state, report, metric))
        for of, report in _reports(state, ref, metric, slot)
    ]
    events = _events(session, {m.seq for series in told for m in series.measurements})
    if as_json:
        render.json_document([_blame_values(series, events) for series in told])
        return
    for series in told:
        _show_blame(series, metric, events)


def _reports(state: State, ref: str, metric: str, slot: str | None) -> list[tuple[str, str]]:
    """(slot, report) for each report on REF that holds the metric. Raises InputError."""
    subject = _subject(state, ref)
    reports = {
        of: report
        for of, report in measured.reports_of(state, subject).items()
        if slot in (None, of) and origins.maker_of(state, report)
    }
    if not reports:
        raise InputError(
            f"No report of a recorded run is about {ref}" + (f" in {slot}." if slot else "."),
            remedy="Name a report, what was measured, a recipe or a release; see `still ls`.",
            code="blame.no_report",
        )
    names = {of: measured.metrics_of(state, report) for of, report in reports.items()}
    found = [(of, report) for of, report in reports.items() if metric in names[of]]
    if not found:
        known = ", ".join(sorted({name for metrics in names.values() for name in metrics}))
        raise InputError(
            f"{metric!r} was not measured there.",
            remedy=f"What was: {known or 'nothing'}.",
            code="blame.unknown_metric",
        )
    return found


def _blamed(state: State, slot: str, found: tuple[Measurement, ...]) -> Blame:
    place = measured.last_change(found)
    cause = None
    if place is not None:
        runs = (Subject(run=found[place - 1].run), Subject(run=found[place].run))
        cause = next(iter(origins.walk(state, *runs).causes), None)
    return Blame(slot=slot, measurements=found, changed=place, cause=cause)


def _events(session: Session, wanted: Collection[int]) -> dict[int, Event]:
    """Events by their numbers: who recorded them is in the ledger only."""
    from stillhouse.registry.ledger.ledger import LedgerReader

    lines = (line for chunk in LedgerReader(session.home.log).chunks() for line in chunk)
    return {line.seq: line.event() for line in lines if line.seq in wanted}


def _blame_values(series: Blame, events: dict[int, Event]) -> dict[str, Any]:
    changed = None if series.changed is None else series.measurements[series.changed].seq
    return {
        "slot": series.slot,
        "changed_by": changed,
        "because": vars(series.cause) if series.cause else None,
        "history": [
            {
                "metric": m.metric.to_json(),
                "event": m.seq,
                "ts": m.ts,
                "actor": events[m.seq].actor.to_json(),
                "report": m.report,
                "run": m.run.key,
                "plans": list(m.plans),
                "releases": list(m.releases),
            }
            for m in series.measurements
        ],
    }


def _show_blame(series: Blame, metric: str, events: dict[int, Event]) -> None:
    for place, m in enumerate(series.measurements):
        actor = events[m.seq].actor
        render.row(
            "changed" if place == series.changed else "",
            series.slot,
            _number(m.metric),
            f"event {m.seq}",
            render.moment(m.ts),
            f"{actor.user}@{actor.host}",
            f"run {render.short(m.run.key)}",
            *(f"plan {render.short(plan)}" for plan in m.plans[:1]),
            *(f"release {render.short(release)}" for release in m.releases[:1]),
        )
    if series.changed is None:
        first = series.measurements[0]
        render.row("unchanged", series.slot, f"{metric} since event {first.seq}, its first value")
    elif series.cause:
        _show_change("because", series.cause)
