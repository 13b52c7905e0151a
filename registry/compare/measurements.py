"""What was measured of things and judged over them, side by side, and through time. Pure.

Reports belong together when they come from the same slot, else when each side has one of the phase.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stillhouse.registry.compare.origins import Subject, maker_of, slots_of
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import Judged, Published, State
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.facts import ReportFacts
from stillhouse.schemas.report import Metric
from stillhouse.schemas.slot import SlotId


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One metric of two reports."""

    slot: str
    name: str
    before: Metric | None
    after: Metric | None

    @property
    def differs(self) -> bool:
        """Whether the two are not the same measurement."""
        return self.before != self.after

    @property
    def moved(self) -> bool:
        """Whether more differs than where the interval ends."""
        sides = (self.before, self.after)
        old, new = (m and m.model_copy(update={"low": None, "high": None}) for m in sides)
        return old != new

    @property
    def change(self) -> float | None:
        """After less before, where both are finite numbers."""
        old = self.before.value if self.before else None
        new = self.after.value if self.after else None
        return None if old is None or new is None else new - old


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """One gate over two things: verdicts, with `waived` where a waiver holds; empty: not judged."""

    gate: str
    slot: str
    before: str
    after: str

    @property
    def differs(self) -> bool:
        """Whether the two do not stand alike."""
        return self.before != self.after


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


# -- reports ------------------------------------------------------------------------------------


def reports_of(state: State, subject: Subject) -> dict[str, Digest]:
    """Slot -> the report on a thing: itself, one on it, or those of its plan. Later ones count."""
    if subject.run:
        return _report_of_run(subject.run)
    found = state.published(subject.digest)
    kind = found.fact.kind if found else None
    if kind is Kind.REPORT:
        run = maker_of(state, subject.digest)
        return {run.started.slot if run else "": subject.digest}
    plan = plan_of(state, subject)
    if plan:
        reports: dict[str, Digest] = {}
        for run in slots_of(state, plan).values():
            reports |= _report_of_run(run)
        return reports
    return dict(_reports_on(state, subject.digest))


def plan_of(state: State, subject: Subject) -> Digest | None:
    """The plan that a recipe is, or that a release was cut for."""
    if state.published(subject.digest, Kind.RECIPE):
        return subject.digest
    return next((plan for release, plan in state.releases if release == subject.digest), None)


def metrics_of(state: State, report: Digest) -> dict[str, Metric]:
    """What a report measured, by name."""
    found = state.from_run(report)
    metrics = found.facts(ReportFacts).metrics if found else ()
    return {metric.name: metric for metric in metrics}


def pair_metrics(state: State, before: Subject, after: Subject) -> tuple[Pair, ...]:
    """Every metric of the reports on two things, side by side."""
    sides = reports_of(state, before), reports_of(state, after)
    pairs = []
    for slot, one, other in _paired(*sides):
        old = metrics_of(state, one) if one else {}
        new = metrics_of(state, other) if other else {}
        pairs += [
            Pair(slot=slot, name=name, before=old.get(name), after=new.get(name))
            for name in dict.fromkeys((*old, *new))
        ]
    return tuple(pairs)


def _report_of_run(run: Run) -> dict[str, Digest]:
    report = run.outputs.get("report")
    return {run.started.slot: report} if report else {}


def _reports_on(state: State, subject: Digest) -> Iterator[tuple[str, Digest]]:
    for digest in state.artifacts:
        found = state.from_run(digest)
        if found and found.kind is Kind.REPORT and found.facts(ReportFacts).subject == subject:
            run = maker_of(state, digest)
            if run:
                yield run.started.slot, digest


def _paired(
    before: Mapping[str, Digest], after: Mapping[str, Digest]
) -> Iterator[tuple[str, Digest | None, Digest | None]]:
    """Reports of one slot, or of one phase where each side has just one more of it."""
    left = {slot: report for slot, report in before.items() if slot not in after}
    right = {slot: report for slot, report in after.items() if slot not in before}
    for slot in before:
        if slot in after:
            yield slot, before[slot], after[slot]
            continue
        others = [s for s in right if _phase(s) == _phase(slot)]
        if len(others) == 1 and sum(_phase(s) == _phase(slot) for s in left) == 1:
            yield f"{slot} · {others[0]}", before[slot], right.pop(others[0])
        else:
            yield slot, before[slot], None
    for slot, report in right.items():
        yield slot, None, report


def _phase(slot: str) -> str:
    return SlotId.parse(slot).phase


# -- gates --------------------------------------------------------------------------------------


def pair_verdicts(state: State, before: Subject, after: Subject, now: str) -> tuple[Verdicts, ...]:
    """Every gate over two things, side by side; waivers as they hold at `now` (RFC 3339 UTC)."""
    sides = _verdicts_over(state, before), _verdicts_over(state, after)
    pairs = []
    for key in dict.fromkeys((*sides[0], *sides[1])):
        old, new = (side.get(key) for side in sides)
        words = [_words(state, judged, now) if judged else "" for judged in (old, new)]
        slots = dict.fromkeys(_slot(state, judged) for judged in (old, new) if judged)
        slot = " · ".join(slots)
        pairs.append(Verdicts(gate=key[0], slot=slot, before=words[0], after=words[1]))
    return tuple(pairs)


def _verdicts_over(state: State, subject: Subject) -> dict[tuple[str, str], Judged]:
    """(gate, slot) -> its latest verdict; the slot is left empty unless a plan has several."""
    plan = None if subject.run else plan_of(state, subject)
    reports = set(reports_of(state, subject).values())
    policy = state.recipe(plan).policy if plan else None
    found: dict[tuple[str, str], Judged] = {}
    for judged in sorted(state.verdicts.values(), key=lambda j: j.seq):
        fact = judged.fact
        if policy is None and (fact.evidence in reports or fact.subject == subject.digest):
            found[fact.gate, ""] = judged
        elif fact.policy == policy and fact.evidence in reports:
            found[fact.gate, _slot(state, judged)] = judged
    return found


def _slot(state: State, judged: Judged) -> str:
    run = maker_of(state, judged.fact.evidence)
    return run.started.slot if run else ""


def _words(state: State, judged: Judged, now: str) -> str:
    waived = state.waiver(judged.fact.gate, judged.fact.subject, now)
    return f"{judged.fact.verdict}, waived" if waived else str(judged.fact.verdict)


# -- history ------------------------------------------------------------------------------------


def history(state: State, report: Digest, metric: str) -> tuple[Measurement, ...]:
    """How a metric of a report came about: its earlier values, oldest first, and its own last.

    Those of the same slot, in plans whose recipes have the same name. Raises KeyError when the
    report was made by no run or does not hold the metric.
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
