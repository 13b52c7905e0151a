"""What keeps a plan from being done, and what can be done about it. Pure.

Rules: what waits for nothing else that is missing is a first cause; what only waits is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from stillhouse.registry.planning.views import GateView, PlanView, SlotView, Status
from stillhouse.schemas.digest import SHORT


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A slot or gate that keeps a plan from being done."""

    what: str
    why: str
    remedy: str
    """Empty when there is nothing to do about it but wait."""
    first: bool = True
    """Whether it waits for nothing else that is missing."""


def missing(view: PlanView) -> tuple[Missing, ...]:
    """Why the plan is not done: first causes, then what follows from them."""
    follow = (_missing_gate(gate) for gate in view.closed_gates if _gate_follows(view, gate))
    return (*first_causes(view), *(replace(gate, first=False) for gate in follow))


def first_causes(view: PlanView) -> tuple[Missing, ...]:
    """What is missing and waits for nothing else that is: slots that failed come first."""
    slots = [slot for slot in _unfilled(view) if not _slot_follows(slot)]
    slots.sort(key=lambda slot: slot.status is not Status.FAILED)
    gates = [gate for gate in view.closed_gates if not _gate_follows(view, gate)]
    return (*map(_missing_slot, slots), *map(_missing_gate, gates))


def following(view: PlanView) -> str:
    """How many gates and slots wait for the first causes, in words; empty when none does."""
    slots = sum(_slot_follows(slot) for slot in _unfilled(view))
    gates = sum(_gate_follows(view, gate) for gate in view.closed_gates)
    count = slots + gates
    if not count:
        return ""
    kinds = [word for word, many in (("gate", gates), ("slot", slots)) if many]
    named = " and ".join(f"{kind}s" for kind in kinds) if count > 1 else kinds[0]
    cause = "it" if len(first_causes(view)) == 1 else "them"
    return f"{count} {named} that {'wait' if count > 1 else 'waits'} for {cause}"


def gate_remedy(gate: GateView) -> str:
    """What can be done about a gate that was judged and is closed; empty for another."""
    if gate.open or not gate.judged or not gate.subject:
        return ""
    return (
        "Improve what it measures, change the policy, or take responsibility: "
        f"`still waive {gate.gate} {gate.subject[:SHORT]} --reason … --until DATE`."
    )


def _unfilled(view: PlanView) -> list[SlotView]:
    return [s for s in view.slots if s.status is not Status.FILLED and not s.slot.optional]


def _slot_follows(slot: SlotView) -> bool:
    """Whether this slot only waits for another slot, or for a gate."""
    return slot.source is not None or slot.gate is not None


def _gate_follows(view: PlanView, gate: GateView) -> bool:
    """Whether a gate has nothing to judge because the slot that feeds it is not filled."""
    if gate.judged or gate.subject is not None:
        return False
    return any(s.slot.id == gate.slot and s.status is not Status.FILLED for s in view.slots)


def _missing_slot(slot: SlotView) -> Missing:
    remedy = ""
    if slot.status is Status.FAILED:
        run = slot.run.key[:SHORT] if slot.run else ""
        remedy = f"Read `still logs {run}`, mend the cause, then `still retry {run}`."
    return Missing(what=slot.slot.id, why=f"{slot.status}, {slot.why}", remedy=remedy)


def _missing_gate(gate: GateView) -> Missing:
    over = f" over {gate.subject[:SHORT]}" if gate.subject else ""
    checks = "; ".join(check.counted for check in gate.checks)
    return Missing(
        what=gate.gate,
        why=f"{gate.verdict} ({gate.slot}{over}): {checks or 'nothing was measured for it yet'}",
        remedy=gate_remedy(gate),
    )
