"""What was measured of two things and judged over them, side by side. Pure.

Reports belong together when they come from the same slot, else when each side has one of the phase.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stillhouse.registry.compare.subjects import Subject, maker_of, plan_of, slots_of
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import Judged, State
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.facts import ReportFacts
from stillhouse.schemas.report import Metric
from stillhouse.schemas.slot import SlotId


@dataclass(frozen=True, kw_only=True)
class MetricPair:
    """One metric of two reports."""

    slot: str
    name: str
    before: Metric | None
    after: Metric | None
    change: float | None
    """After less before, where both are finite numbers."""
    differs: bool
    """Whether the two are not the same measurement."""
    moved: bool
    """Whether more differs than where the interval ends."""


@dataclass(frozen=True, kw_only=True)
class VerdictPair:
    """One gate over two things: verdicts, with `waived` where a waiver holds; empty: not judged."""

    gate: str
    slot: str
    before: str
    after: str
    differs: bool


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


def metrics_of(state: State, report: Digest) -> dict[str, Metric]:
    """What a report measured, by name."""
    found = state.from_run(report)
    metrics = found.facts(ReportFacts).metrics if found else ()
    return {metric.name: metric for metric in metrics}


def pair_metrics(state: State, before: Subject, after: Subject) -> tuple[MetricPair, ...]:
    """Every metric of the reports on two things, side by side."""
    sides = reports_of(state, before), reports_of(state, after)
    pairs = []
    for slot, one, other in _paired(*sides):
        old = metrics_of(state, one) if one else {}
        new = metrics_of(state, other) if other else {}
        pairs += [
            _metric_pair(slot, name, old.get(name), new.get(name))
            for name in dict.fromkeys((*old, *new))
        ]
    return tuple(pairs)


def _metric_pair(slot: str, name: str, before: Metric | None, after: Metric | None) -> MetricPair:
    ends = [m and m.model_copy(update={"low": None, "high": None}) for m in (before, after)]
    old, new = (m.value if m else None for m in (before, after))
    return MetricPair(
        slot=slot,
        name=name,
        before=before,
        after=after,
        change=None if old is None or new is None else new - old,
        differs=before != after,
        moved=ends[0] != ends[1],
    )


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


def pair_verdicts(
    state: State, before: Subject, after: Subject, now: str
) -> tuple[VerdictPair, ...]:
    """Every gate over two things, side by side; waivers as they hold at `now` (RFC 3339 UTC)."""
    sides = _verdicts_over(state, before), _verdicts_over(state, after)
    pairs = []
    for key in dict.fromkeys((*sides[0], *sides[1])):
        old, new = (side.get(key) for side in sides)
        was, now_is = (_words(state, judged, now) if judged else "" for judged in (old, new))
        slots = dict.fromkeys(_slot(state, judged) for judged in (old, new) if judged)
        pairs.append(
            VerdictPair(
                gate=key[0],
                slot=" · ".join(slots),
                before=was,
                after=now_is,
                differs=was != now_is,
            )
        )
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
