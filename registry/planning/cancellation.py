"""What a cancellation ends: one run, or a plan with its runs; and what is recorded of it. Pure.

Rules: what has ended is refused; of a plan, runs that another wanted plan needs are spared; what
was cancelled before is not recorded again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stillhouse.registry.planning.views import PlanView, SlotView, Status
from stillhouse.registry.state.references import latest_plan, resolve_reference, resolve_run
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError, ReferenceError_
from stillhouse.schemas.event import Event
from stillhouse.schemas.events import Payload, PlanCancelled, RunCancelled, RunStarted


@dataclass(frozen=True, kw_only=True)
class Cancellation:
    """What is to end."""

    plan: Digest | None = None
    runs: tuple[Run, ...] = ()
    spared: tuple[Run, ...] = ()
    """Runs of the plan that go on, because another plan needs them."""

    def payloads(self, state: State, reason: str) -> tuple[Payload, ...]:
        """What is to be recorded; nothing where all of it was cancelled before."""
        wanted = (self.plan,) if self.plan is not None and state.wants(self.plan) else ()
        runs = (
            RunCancelled(run=run.key, attempt=run.attempts, reason=reason)
            for run in self.runs
            if not run.cancelled_seq
        )
        return (*(PlanCancelled(plan=plan, reason=reason) for plan in wanted), *runs)

    def overtaken_by(self, event: Event) -> bool:
        """Whether one of its runs moved on, or one of its plan started."""
        starts = event.type == RunStarted.TYPE and event.data["plan"] == self.plan
        return starts or event.data.get("run") in {run.key for run in self.runs}


def cancellation_of(
    state: State, target: str, view: Callable[[Digest], PlanView], *, attempts: int
) -> Cancellation:
    """The cancellation of a run (by a prefix of its key), a slot of the latest plan, or a plan.

    `view` tells how a plan stands; `attempts`: how many in a row may go wrong. Raises InputError
    when the target has ended, ReferenceError_ when it is unknown.
    """
    key = resolve_run(state, target)
    if key is not None:
        return Cancellation(runs=(_unended(state.runs[key], attempts),))
    latest = view(latest_plan(state)) if state.requested else None
    for slot in latest.slots if latest else ():
        if slot.slot.id == target:
            return Cancellation(runs=(_unended(_run_of(slot), attempts),))
    return _of_plan(state, _plan(state, target), view)


def _run_of(slot: SlotView) -> Run:
    if slot.run is None:
        detail = f": {slot.detail}" if slot.detail else ""
        raise InputError(
            f"{slot.slot.id} has no run to cancel: it is {slot.status}, {slot.reason}{detail}.",
            remedy="To keep it from starting, cancel its plan: `still cancel PLAN`.",
            code="cancel.not_started",
        )
    return slot.run


def _unended(run: Run, attempts: int) -> Run:
    """The run, which goes on or would go on by itself. Raises InputError when it has ended."""
    if run.going_on or run.tried_again(attempts):
        return run
    raise InputError(
        f"There is nothing to cancel: {run.short_name} has ended; {run.ending}.",
        remedy="It is not started again by itself.",
        code="cancel.ended",
    )


def _plan(state: State, target: str) -> Digest:
    try:
        return resolve_reference(state, target, kind=Kind.RECIPE)
    except ReferenceError_ as error:
        if error.code != "ref.unknown":  # what is wrong with it is told best as it is
            raise
        raise ReferenceError_(
            f"{target!r} is no run, no slot of the latest plan and no recipe.",
            remedy="See what goes on with `still runs --status running`.",
            code="cancel.unknown",
        ) from error


def _of_plan(state: State, plan: Digest, view: Callable[[Digest], PlanView]) -> Cancellation:
    found = view(plan)
    running = _running(found)
    if not state.wants(plan) and not running:
        raise _not_asked_for(state, found)
    if found.done and found.settled:
        raise InputError(
            f"There is nothing to cancel: {_name(found)} has ended; every slot is filled, "
            "every gate open.",
            remedy="See what it came to with `still manifest`.",
            code="cancel.ended",
        )
    needed = {run.key for other in state.wanted() if other != plan for run in _running(view(other))}
    return Cancellation(
        plan=plan,
        runs=tuple(run for run in running if run.key not in needed),
        spared=tuple(run for run in running if run.key in needed),
    )


def _running(view: PlanView) -> list[Run]:
    return [s.run for s in view.slots if s.status is Status.RUNNING and s.run is not None]


def _not_asked_for(state: State, view: PlanView) -> InputError:
    how = "it was cancelled before" if view.plan in state.requested else "it was never asked for"
    return InputError(
        f"There is nothing to cancel: {how}, {_name(view)}.",
        remedy="Plans that are asked for are advanced by `still run` and `still watch`.",
        code="cancel.not_asked_for",
    )


def _name(view: PlanView) -> str:
    return f"plan {view.plan[:SHORT]} ({view.recipe.name})"
