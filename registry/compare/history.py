"""One metric of a slot through time, and what differed in the run that changed it. Pure.

A history is that of the same slot in plans whose recipes have the same name, oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stillhouse.registry.compare import origins
from stillhouse.registry.compare.measurements import metrics_of, reports_of
from stillhouse.registry.compare.origins import Change
from stillhouse.registry.compare.subjects import Subject, find_subject, maker_of
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import Published, State
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.event import Actor, Event
from stillhouse.schemas.report import Metric

Events = Callable[[Collection[int]], Mapping[int, Event]]
"""Events by their numbers: the state does not hold who recorded what."""

_Plans = Mapping[Digest, tuple[Digest, ...]]
_Trace = Sequence[tuple[Published, Run]]
"""Reports, oldest first, and the runs that made them."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One metric as one run of a slot measured it."""

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
    history: tuple[Measurement, ...]
    """Oldest first; the last is the one that was asked about."""


def blames(
    state: State, reference: str, metric: str, slot: str | None, events: Events
) -> tuple[Blame, ...]:
    """What changed a metric in each report on what `reference` names; `slot`: only of that one.

    Raises InputError when no report holds it.
    """
    plans = _plans_by_run(state)
    traces = {
        of: _trace(state, report, run, metric, plans)
        for of, report, run in _reports_with(state, reference, metric, slot)
    }
    recorded = events({published.seq for trace in traces.values() for published, _ in trace})
    found = []
    for of, trace in traces.items():
        history = tuple(
            _measurement(
                state, published, run, metric, plans=plans, actor=recorded[published.seq].actor
            )
            for published, run in trace
        )
        found.append(_blame(state, of, trace, history))
    return tuple(found)


def last_change(metrics: Sequence[Metric]) -> int | None:
    """Which measurement has another value than the one before it, the last of them; None: none."""
    for place in range(len(metrics) - 1, 0, -1):
        new, old = metrics[place], metrics[place - 1]
        if (new.value, new.nonfinite) != (old.value, old.nonfinite):
            return place
    return None


def _blame(state: State, slot: str, trace: _Trace, history: tuple[Measurement, ...]) -> Blame:
    place = last_change([measurement.metric for measurement in history])
    if place is None:
        return Blame(slot=slot, changed_by=None, because=None, history=history)
    before, after = (Subject(run=run) for _, run in trace[place - 1 : place + 1])
    cause = next(iter(origins.walk(state, before, after).causes), None)
    return Blame(slot=slot, changed_by=history[place].event, because=cause, history=history)


def _reports_with(
    state: State, reference: str, metric: str, slot: str | None
) -> Iterator[tuple[str, Digest, Run]]:
    """(slot, report, the run that made it) of each report that holds the metric."""
    reports = {
        of: (report, run)
        for of, report in reports_of(state, find_subject(state, reference)).items()
        if slot in (None, of) and (run := maker_of(state, report))
    }
    if not reports:
        raise InputError(
            f"No report of a recorded run is about {reference}" + (f" in {slot}." if slot else "."),
            remedy="Name a report, what was measured, a recipe or a release; see `still ls`.",
            code="blame.no_report",
        )
    names = {of: metrics_of(state, report) for of, (report, _) in reports.items()}
    known = {name for metrics in names.values() for name in metrics}
    if metric not in known:
        raise InputError(
            f"{metric!r} was not measured there.",
            remedy=f"What was: {', '.join(sorted(known)) or 'nothing'}.",
            code="blame.unknown_metric",
        )
    return ((of, *made) for of, made in reports.items() if metric in names[of])


def _trace(state: State, report: Digest, run: Run, metric: str, plans: _Plans) -> _Trace:
    """How a metric of a report came about: its earlier reports, and itself."""
    own = min(p.seq for p in state.artifacts[report] if p.run == run.key)
    names = _recipe_names(state, plans[run.key])
    found = [
        (published, other)
        for published, other in _reports_of_slot(state, run.started.slot)
        if published.seq <= own
        and metric in metrics_of(state, published.fact.digest)
        and names & _recipe_names(state, plans[other.key])
    ]
    return sorted(found, key=lambda step: step[0].seq)


def _measurement(
    state: State, published: Published, run: Run, metric: str, *, plans: _Plans, actor: Actor
) -> Measurement:
    report, filled = published.fact.digest, plans[run.key]
    return Measurement(
        metric=metrics_of(state, report)[metric],
        event=published.seq,
        ts=published.ts,
        actor=actor,
        report=report,
        run=run.key,
        plans=filled,
        releases=tuple(release for release, plan in state.releases if plan in filled),
    )


def _reports_of_slot(state: State, slot: str) -> Iterator[tuple[Published, Run]]:
    for publications in state.artifacts.values():
        for published in publications:
            run = state.runs.get(published.run or "")
            if published.kind is Kind.REPORT and run and run.started.slot == slot:
                yield published, run


def _plans_by_run(state: State) -> _Plans:
    """Run -> the plans that it was started for or fills a slot of."""
    found = {run.key: {run.started.plan: None} for run in state.runs.values()}
    for (plan, _), key in state.filled.items():
        found[key][plan] = None
    return {key: tuple(plans) for key, plans in found.items()}


def _recipe_names(state: State, plans: Iterable[Digest]) -> set[str | None]:
    found = (state.published(plan, Kind.RECIPE) for plan in plans)
    return {recipe.fact.name for recipe in found if recipe}
