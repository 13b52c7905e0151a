"""Why one gate is open or closed, in words: the check that decided, in numbers. Pure."""

from __future__ import annotations

from stillhouse.registry.planning.views import ENVIRONMENT, GateView, PlanView, Status
from stillhouse.registry.state.state import Waived
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.policy import Policy, Verdict, phase_of
from stillhouse.schemas.slot import SlotId


def gate_reason(view: PlanView, gate: GateView) -> str:
    """Why a gate is open or closed: the check that decided, or what there is to judge."""
    if not gate.judged:
        return _unjudged(view, gate)
    if gate.verdict is Verdict.PASS:
        return f"it passed: {'; '.join(check.counted for check in gate.checks)}"
    found = f"{gate.verdict}: {_deciding_check(gate)}"
    if gate.waiver:
        given = _given(gate.waiver, "active")
        return f"{found}; it lets through all the same, a waiver is {given}"
    if gate.lapsed:
        return f"{found}; its waiver is {_given(gate.lapsed[-1], 'expired')}"
    return found


def unfed_reason(policy: Policy, view: PlanView, gate: str) -> str:
    """Why no slot of a plan feeds a gate that its policy has."""
    phase = phase_of(gate)
    slots = [slot for slot in view.slots if slot.spec.name == phase]
    if not slots:
        return f"no slot of this plan feeds it: its recipe has no [{phase}]"
    judged = [s for s in slots if gate in policy.gates_over(SlotId.parse(s.slot.id))]
    if not judged:
        pattern = policy.gates[gate].slots
        return f"no slot of this plan feeds it: none is named like {pattern!r}"
    skipped = ", ".join(slot.slot.id for slot in judged)
    return f"there is nothing to judge: {skipped} was skipped"


def _given(waiver: Waived, state: str) -> str:
    fact = waiver.fact
    return f"{state}: by {fact.author} until {fact.until}: {fact.reason}"


def _deciding_check(gate: GateView) -> str:
    """The first check that came to the gate's own verdict, in numbers."""
    for check in gate.checks:
        if check.verdict is gate.verdict:
            holds = " does not hold" if check.value is not None and not check.reason else ""
            return f"{check.counted}{holds}"
    return "; ".join(check.counted for check in gate.checks)


def _unjudged(view: PlanView, gate: GateView) -> str:
    if gate.slot == ENVIRONMENT and gate.subject is not None:
        return f"the environment {_short(gate.subject)} is not judged yet"
    if gate.subject is not None:
        return f"the report {_short(gate.evidence)} over {_short(gate.subject)} is not judged yet"
    feeding = [slot for slot in view.slots if slot.slot.id == gate.slot]
    if not feeding:
        where = "the environment" if gate.slot == ENVIRONMENT else "a slot of this plan"
        return f"nothing was judged: {where} has no report for it"
    slot = feeding[0]
    if slot.status is Status.FILLED:
        return f"nothing was judged: {slot.slot.id} made no report"
    return f"nothing was judged yet: {slot.slot.id}, which feeds it, is {slot.status}"


def _short(digest: Digest | None) -> str:
    return digest[:SHORT] if digest else ""
