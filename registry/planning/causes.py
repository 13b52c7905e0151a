"""Why a slot has not run: from the one that was asked about down to the one that is the cause.

Pure. `assess` says of each slot the first thing that holds it; this follows such things to their
end, and says of a run that is ready what keeps it from starting: its plan, its limits, or that
nobody advances the registry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from stillhouse.registry.planning.admission import Admission
from stillhouse.registry.planning.views import GateView, PlanView, Reason, SlotView, Status
from stillhouse.registry.state.state import State
from stillhouse.schemas.digest import SHORT, Digest


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What has to change first."""

    chain: tuple[SlotView, ...]
    """From the slot that was asked about to the one that is the cause; at least one."""
    reason: Reason
    detail: str

    @property
    def slot(self) -> SlotView:
        """The slot that is the cause."""
        return self.chain[-1]

    @property
    def gate(self) -> GateView | None:
        """The gate that holds it, if one does."""
        return self.slot.gate


def find_cause(
    state: State,
    view: PlanView,
    slot: str,
    *,
    admissions: Iterable[Admission],
    advanced: bool,
    deserted: Collection[Digest] = (),
) -> Cause:
    """The cause of how a slot stands. Raises KeyError for a slot that the plan does not have.

    admissions: what becomes of every start that is ready, of all plans. advanced: whether a process
    advances this registry. deserted: runs that are recorded as going on and whose worker is gone.
    """
    chain = trace(view, slot)
    last = chain[-1]
    if last.status is Status.RUNNING and not advanced and last.key in deserted:
        reason, detail = Reason.NOT_ADVANCED, f"{last.detail}; its worker is gone"
    else:
        reason, detail = _first_trouble(state, view, last, admissions, advanced=advanced)
    return Cause(chain=chain, reason=reason, detail=detail)


def trace(view: PlanView, slot: str) -> tuple[SlotView, ...]:
    """The slots from this one to the one whose standing is its own. Raises KeyError."""
    chain = [view.slot(slot)]
    # A gate that only the sealing slot itself would feed leads back to it.
    while (source := _source(view, chain[-1])) is not None and source not in chain:
        chain.append(source)
    return tuple(chain)


def _source(view: PlanView, slot: SlotView) -> SlotView | None:
    """The slot that this one waits for, or lacks."""
    if slot.source is not None:
        return view.slot(slot.source)
    if slot.gate is None or slot.gate.subject is not None:
        return None
    # The gate has nothing to judge: whoever should have fed it is the cause.
    feeding = [s for s in view.slots if s.slot.id == slot.gate.slot]
    return next((s for s in feeding if s.status is not Status.FILLED), None)


def _first_trouble(
    state: State,
    view: PlanView,
    slot: SlotView,
    admissions: Iterable[Admission],
    *,
    advanced: bool,
) -> tuple[Reason, str]:
    ready = slot.status is Status.READY
    admission = next((a for a in admissions if ready and a.start.view.key == slot.key), None)
    wanted = state.wants(view.plan) or admission is not None
    if slot.status in (Status.READY, Status.WAITING) and not wanted:
        return Reason.NOT_ASKED_FOR, _unwanted(state, view)
    if (ready or slot.reason is Reason.GATE_PENDING) and not advanced:
        return Reason.NOT_ADVANCED, slot.detail
    if admission is not None and admission.held is not None:
        return admission.held, admission.detail
    return slot.reason, slot.detail


def _unwanted(state: State, view: PlanView) -> str:
    plan = f"plan {view.plan[:SHORT]} ({view.recipe.name})"
    dropped = state.dropped.get(view.plan)
    return f"{plan} was cancelled by event {dropped}" if dropped else f"{plan} never was"
