"""One metric of a slot through time, and what differed in the run that changed it. Pure.

A history is that of the same slot in plans whose recipes have the same name, oldest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from stillhouse.schemas.report import Metric


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One metric as one run of a slot measured it."""

    metric: Metric
    report: Digest
    seq: int
    """Of the event that published the report."""
    ts: str
    run: Run
    plans: tuple[Digest, ...]
    """Those whose slot the run fills."""
    releases: tuple[Digest, ...]
    """Those cut for these plans."""


@dataclass(frozen=True, kw_only=True)
class History:
    """One metric of one slot."""

    slot: str
    measurements: tuple[Measurement, ...]
    """Oldest first; the last is the one that was asked about."""
    changed: Measurement | None
    """The last that has another value than the one before it."""
    cause: Change | None
    """The nearest thing that differed in its run."""


def histories(
    state: State, reference: str, metric: str, slot: str | None = None
) -> tuple[History, ...]:
    """The history of a metric in each report on what `reference` names; `slot`: only of that one.

    Raises InputError when no report holds it.
    """
    reports = _reports_with(state, reference, metric, slot)
    return tuple(_traced(state, of, history(state, report, metric)) for of, report in reports)


def history(state: State, report: Digest, metric: str) -> tuple[Measurement, ...]:
    """How a metric of a report came about: its earlier values, and its own last.

    Raises KeyError when the report was made by no run or does not hold the metric.
    """
    own, run = state.from_run(report), maker_of(state, report)
    if own is None or run is None or metric not in metrics_of(state, report):
        raise KeyError(metric)
    plans = _plans_by_run(state)
    names = _recipe_names(state, plans[run.key])
    found = [
        _measurement(state, published, other, metric, plans[other.key])
        for published, other in _reports_of_slot(state, run.started.slot)
        if published.seq <= own.seq
        and metric in metrics_of(state, published.fact.digest)
        and names & _recipe_names(state, plans[other.key])
    ]
    return tuple(sorted(found, key=lambda measurement: measurement.seq))


def last_change(measurements: Sequence[Measurement]) -> int | None:
    """Which measurement has another value than the one before it, the last of them; None: none."""
    for place in range(len(measurements) - 1, 0, -1):
        new, old = measurements[place].metric, measurements[place - 1].metric
        if (new.value, new.nonfinite) != (old.value, old.nonfinite):
            return place
    return None


def _traced(state: State, slot: str, found: tuple[Measurement, ...]) -> History:
    place = last_change(found)
    if place is None:
        return History(slot=slot, measurements=found, changed=None, cause=None)
    runs = (Subject(run=measurement.run) for measurement in found[place - 1 : place + 1])
    cause = next(iter(origins.walk(state, *runs).causes), None)
    return History(slot=slot, measurements=found, changed=found[place], cause=cause)


def _reports_with(
    state: State, reference: str, metric: str, slot: str | None
) -> list[tuple[str, Digest]]:
    """(slot, report) of each report that holds the metric."""
    reports = {
        of: report
        for of, report in reports_of(state, find_subject(state, reference)).items()
        if slot in (None, of) and maker_of(state, report)
    }
    if not reports:
        raise InputError(
            f"No report of a recorded run is about {reference}" + (f" in {slot}." if slot else "."),
            remedy="Name a report, what was measured, a recipe or a release; see `still ls`.",
            code="blame.no_report",
        )
    names = {of: metrics_of(state, report) for of, report in reports.items()}
    found = [(of, report) for of, report in reports.items() if metric in names[of]]
    if not found:
        known = ", ".join(sorted({name for metrics in names.values() for name in metrics}))
        raise InputError(
            f"{metric!r} was not measured there.",
            remedy=f"What was: {known or 'nothing'}.",
            code="blame.unknown_metric",
        )
    return found


def _measurement(
    state: State, published: Published, run: Run, metric: str, plans: tuple[Digest, ...]
) -> Measurement:
    return Measurement(
        metric=metrics_of(state, published.fact.digest)[metric],
        report=published.fact.digest,
        seq=published.seq,
        ts=published.ts,
        run=run,
        plans=plans,
        releases=tuple(release for release, plan in state.releases if plan in plans),
    )


def _reports_of_slot(state: State, slot: str) -> Iterator[tuple[Published, Run]]:
    for publications in state.artifacts.values():
        for published in publications:
            run = state.runs.get(published.fact.run or "")
            if published.fact.kind is Kind.REPORT and run and run.started.slot == slot:
                yield published, run


def _plans_by_run(state: State) -> dict[Digest, tuple[Digest, ...]]:
    """Run -> the plans that it was started for or fills a slot of."""
    found = {run.key: {run.started.plan: None} for run in state.runs.values()}
    for (plan, _), key in state.filled.items():
        found[key][plan] = None
    return {key: tuple(plans) for key, plans in found.items()}


def _recipe_names(state: State, plans: Iterable[Digest]) -> set[str | None]:
    found = (state.published(plan, Kind.RECIPE) for plan in plans)
    return {recipe.fact.name for recipe in found if recipe}
