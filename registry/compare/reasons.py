"""Why runs and slots ran, and what would make them run again: what of their keys is new. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from stillhouse.registry.compare.runs import Difference, differences, nearest_earlier, prospect
from stillhouse.registry.planning.causes import trace
from stillhouse.registry.planning.explanation import CauseSummary, Explainer
from stillhouse.registry.planning.summary import SlotSummary, summary_of_slot
from stillhouse.registry.planning.views import PlanView, Reason, SlotView, Status
from stillhouse.registry.state.runs import Run, RunStatus
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Parent
from stillhouse.schemas.digest import Digest


@dataclass(frozen=True, kw_only=True)
class RunReason:
    """Why a run ran, or is to run."""

    run: Digest
    slot: str
    plan: Digest
    nearest_earlier: Digest | None
    """The run that it is compared with; None: it was the first of its slot."""
    differs: tuple[Difference, ...]
    because: str
    """The first difference, in words."""


@dataclass(frozen=True, kw_only=True)
class NotKeyed:
    """Of a run whose inputs are not known yet there is nothing to say."""


@dataclass(frozen=True, kw_only=True)
class RecordedRun(RunReason):
    """Why a run ran, and how it stands."""

    status: RunStatus
    ending: str
    """The same as the end of a sentence."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The run of another slot that fills a slot."""

    run: Digest
    plan: Digest
    name: str
    """What that plan's recipe calls itself; empty when it was never published here."""
    slot: str
    ended: str
    """RFC 3339 UTC."""


@dataclass(frozen=True, kw_only=True)
class SlotReason(SlotSummary):
    """One slot, and why it ran, is to run, or does not."""

    ran: RunReason | NotKeyed
    origin: Origin | None = field(metadata={"key": "from"})
    """None: its own run fills it, or none does."""
    cause: CauseSummary | None
    """What has to change first; None: it is filled."""
    inputs: tuple[Parent, ...]
    started: bool
    """Whether the run of its key was ever started."""


@dataclass(frozen=True, kw_only=True)
class SlotCause(SlotSummary):
    """One slot, and what has to change first for it."""

    cause: CauseSummary
    again: str
    """What would make it run again if its plan were asked for now; empty: nothing."""


def reason_of_run(state: State, run: Run) -> RunReason:
    """What of a run's key was new beside the nearest earlier run of its slot."""
    earlier = nearest_earlier(state, run)
    found = differences(earlier, run) if earlier else ()
    return RunReason(
        run=run.key,
        slot=run.started.slot,
        plan=run.started.plan,
        nearest_earlier=earlier.key if earlier else None,
        differs=found,
        because=f"{found[0].what} {found[0].name} was {found[0].before}, then {found[0].after}"
        if found
        else "it was the first run of its slot",
    )


def recorded_run(state: State, run: Run) -> RecordedRun:
    """Why a run ran, and how it stands."""
    return RecordedRun(**vars(reason_of_run(state, run)), status=run.status, ending=run.ending)


def reason_of_slot(explainer: Explainer, slot: SlotView) -> SlotReason:
    """Why a slot ran, is to run, or does not."""
    filled = slot.status is Status.FILLED
    run = slot.run or (prospect(explainer.view.plan, slot) if slot.key else None)
    return SlotReason(
        **vars(summary_of_slot(slot)),
        ran=reason_of_run(explainer.state, run) if run else NotKeyed(),
        origin=_origin(explainer.state, slot),
        cause=None if filled else explainer.cause(slot.slot.id),
        inputs=slot.inputs,
        started=slot.run is not None,
    )


def cause_of_slot(explainer: Explainer, slot: SlotView, fresh: PlanView) -> SlotCause:
    """What has to change first for a slot. `fresh`: its plan as if it were asked for now."""
    filled = slot.status is Status.FILLED
    return SlotCause(
        **vars(summary_of_slot(slot)),
        cause=explainer.cause(slot.slot.id),
        again=_again(explainer.view, fresh, slot.slot.id) if filled else "",
    )


def _origin(state: State, slot: SlotView) -> Origin | None:
    if slot.reason is not Reason.REUSED or slot.run is None:
        return None
    started = slot.run.started
    return Origin(
        run=slot.run.key,
        plan=started.plan,
        name=state.recipe_name(started.plan),
        slot=started.slot,
        ended=slot.run.ended_ts,
    )


def _again(view: PlanView, fresh: PlanView, slot: str) -> str:
    first = trace(fresh, slot)[-1]
    if first.status is Status.FILLED or first.key is None or first.run is not None:
        return ""
    before = next((s.run for s in view.slots if s.slot.id == first.slot.id), None)
    found = differences(before, prospect(fresh.plan, first)) if before else ()
    if not found:
        return ""
    what = f"{found[0].what} {found[0].name} was {found[0].before}, now it is {found[0].after}"
    return f"asked for now, {first.slot.id} would run anew: {what}"
