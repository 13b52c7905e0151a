"""The verb `why-not`: from what has not run or passed down to the slot or gate that is the cause.

Rules: every step follows the first reason; the cause is said with its own reason, in numbers, and
with what can be done about it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.views import render
from stillhouse.outlook import Outlook
from stillhouse.registry.compare.runs import differences, prospect
from stillhouse.registry.planning.missing import gate_remedy
from stillhouse.registry.planning.remedies import remedy_for
from stillhouse.registry.planning.summary import summary_of_gate, summary_of_slot
from stillhouse.registry.planning.views import GateView, PlanView, SlotView, Status
from stillhouse.registry.planning.words import gate_reason, unfed_reason
from stillhouse.registry.state.references import latest_plan, resolve_reference
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.plain import plain
from stillhouse.schemas.policy import Policy, Verdict
from stillhouse.store.disk.locks import held

if TYPE_CHECKING:
    from stillhouse.registry.planning.admission import Admission
    from stillhouse.registry.planning.causes import Cause

RELEASE = "release"
"""What people call the slot that seals."""

PlanOption = Annotated[
    str | None, typer.Option("--plan", metavar="REF", help="Default: the latest plan.")
]


def why_not(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="PHASE|SLOT|GATE|release",
            help="A phase, a slot, a gate, a tier, or a capability of the policy.",
        ),
    ],
    *,
    plan: PlanOption = None,
    as_json: Json = False,
) -> None:
    """Say why something has not run or passed.

    Down to the slot or gate that is the cause, and what can be done about it.
    """
    outlook = Outlook(session_of(context))
    view = view_of(outlook, plan) or outlook.view(latest_plan(outlook.state))
    asked = Asked(outlook, view)
    if slots := slots_named(view, target):
        _tell_causes(asked, slots, as_json=as_json)
    elif is_gate(asked, target):
        tell_gates(asked, target, as_json=as_json)
    elif (needed := _needed(asked.policy, target)) is not None:
        _tell_needed(asked, target, needed, as_json=as_json)
    else:
        raise _unknown(asked, target)


# -- what is asked about ------------------------------------------------------------------------


class Asked:
    """A plan, and what holds its runs now."""

    def __init__(self, outlook: Outlook, view: PlanView) -> None:
        self.outlook, self.view = outlook, view
        self.state = outlook.state
        self.policy = outlook.state.policy(view.recipe.policy)

    @cached_property
    def admissions(self) -> tuple[Admission, ...]:
        """What becomes of every start that is ready, of all plans that are wanted."""
        from stillhouse.phases.catalog import CATALOG
        from stillhouse.registry.planning.admission import admissions
        from stillhouse.registry.planning.agenda import Agenda

        agenda = Agenda(self.state, CATALOG, self.outlook.site)
        agenda.facts(self.outlook.now)
        limits = self.outlook.site.limits
        return tuple(admissions(agenda.starts(), self.state.running(), limits))

    def cause(self, slot: str) -> Cause:
        """What has to change first for a slot."""
        from stillhouse.registry.planning.causes import find_cause

        home = self.outlook.home
        live = [run.key for run in self.state.running()]
        return find_cause(
            self.state,
            self.view,
            slot,
            admissions=self.admissions,
            advanced=held(home.reactor_lock),
            deserted=[key for key in live if not held(home.run_lock(key))],
        )

    def remedy(self, cause: Cause) -> str:
        """What can be done about a cause."""
        wanted = self.state.wants(self.view.plan)
        return remedy_for(cause.reason, cause.slot, plan=self.view.plan, wanted=wanted)


def view_of(outlook: Outlook, plan: str | None) -> PlanView | None:
    """The plan that is meant; None when there is none at all."""
    if plan is not None:
        return outlook.view(resolve_reference(outlook.state, plan, kind=Kind.RECIPE))
    return outlook.view(latest_plan(outlook.state)) if outlook.state.requested else None


def slots_named(view: PlanView, target: str) -> list[SlotView]:
    """The slots that TARGET means: one by its id, those of a phase, or the one that seals."""
    return [
        slot
        for slot in view.slots
        if target in (slot.slot.id, slot.spec.name) or (target == RELEASE and slot.spec.seals)
    ]


def is_gate(asked: Asked, target: str) -> bool:
    """Whether the policy has a gate of that name, or judges what is named so: environment."""
    judged = any(target in (gate.gate, gate.slot) for gate in asked.view.gates)
    return target in asked.policy.gates or judged


def _unknown(asked: Asked, target: str) -> InputError:
    if target == RELEASE:
        return InputError(
            "This plan asks for no release: its recipe has no [deployment].",
            remedy="Add the section, then `still run` the recipe.",
            code="why.no_release",
        )
    slots = ", ".join(slot.slot.id for slot in asked.view.slots)
    claims = ", ".join([*asked.policy.tiers, *asked.policy.capabilities])
    return InputError(
        f"{target!r} is no phase, slot, gate, tier or capability of this plan.",
        remedy=f"Slots are: {slots}. Gates are: {', '.join(asked.policy.gates)}. "
        f"Tiers and capabilities are: {claims}.",
        code="why.unknown",
    )


# -- slots: why not -----------------------------------------------------------------------------


def print_slot(slot: SlotView) -> None:
    """Print how a slot stands, with the first reason."""
    detail = f": {slot.detail}" if slot.detail else ""
    render.row(slot.slot.id, slot.status, f"{slot.reason}{detail}")


def _tell_causes(asked: Asked, slots: list[SlotView], *, as_json: bool) -> None:
    told = [(slot, asked.cause(slot.slot.id)) for slot in slots]
    again = {slot.slot.id: _again(asked, slot) for slot in slots}
    if as_json:
        render.json_document(
            [
                plain(summary_of_slot(slot))
                | {"cause": cause_values(asked, cause), "again": again[slot.slot.id]}
                for slot, cause in told
            ]
        )
        return
    for slot, cause in told:
        for passed in cause.chain[:-1]:
            print_slot(passed)
        detail = f": {cause.detail}" if cause.detail else ""
        render.row(cause.slot.slot.id, cause.slot.status, f"{cause.reason}{detail}")
        if cause.gate is not None:
            render.row("", "gate", cause.gate.gate, gate_reason(asked.view, cause.gate))
        if again[slot.slot.id]:
            render.row("", "again", again[slot.slot.id])
        if remedy := asked.remedy(cause):
            render.note(f"  Next: {render.clean(remedy)}")


def cause_values(asked: Asked, cause: Cause) -> dict[str, Any]:
    """What has to change first, for JSON."""
    gate = cause.gate
    return {
        "slot": cause.slot.slot.id,
        "status": str(cause.slot.status),
        "reason": cause.reason.code,
        "text": str(cause.reason),
        "detail": cause.detail,
        "until": cause.slot.until,
        "run": cause.slot.key,
        "gate": _gate_values(asked, gate) if gate else None,
        "through": [slot.slot.id for slot in cause.chain[:-1]],
        "remedy": asked.remedy(cause),
    }


def _again(asked: Asked, slot: SlotView) -> str:
    """What would make a filled slot run again if its plan were asked for now; empty: nothing."""
    if slot.status is not Status.FILLED:
        return ""
    from stillhouse.registry.planning.causes import trace

    fresh = asked.outlook.view(asked.view.plan, fresh=True)
    first = trace(fresh, slot.slot.id)[-1]
    if first.status is Status.FILLED or first.key is None or first.run is not None:
        return ""
    before = next((s.run for s in asked.view.slots if s.slot.id == first.slot.id), None)
    found = differences(before, prospect(fresh.plan, first)) if before else ()
    if not found:
        return ""
    what = f"{found[0].what} {found[0].name} was {found[0].before}, now it is {found[0].after}"
    return f"asked for now, {first.slot.id} would run anew: {what}"


# -- gates --------------------------------------------------------------------------------------


def tell_gates(asked: Asked, name: str, *, as_json: bool) -> None:
    """Say of each slot that a gate judges why it is open or closed."""
    told = [_gate_values(asked, g) for g in asked.view.gates if name in (g.gate, g.slot)]
    told = told or [_unfed_values(asked, name)]
    if as_json:
        render.json_document(told)
        return
    for one in told:
        _print_gate(one)


def _print_gate(one: dict[str, Any]) -> None:
    render.row(one["gate"], one["slot"], one["verdict"], one["why"])
    if cause := one["cause"]:
        detail = f": {cause['detail']}" if cause["detail"] else ""
        render.row("", cause["slot"], cause["status"], f"{cause['text']}{detail}")
    if one["remedy"]:
        render.note(f"  Next: {render.clean(one['remedy'])}")


def _gate_values(asked: Asked, gate: GateView) -> dict[str, Any]:
    """One gate, with why it stands as it stands, and what its slot waits for if it was not fed."""
    empty = not gate.judged and gate.subject is None
    fed = any(slot.slot.id == gate.slot for slot in asked.view.slots)
    cause = asked.cause(gate.slot) if empty and fed else None
    told: dict[str, Any] = plain(summary_of_gate(gate))
    return told | {
        "open": gate.open,
        "why": (
            unfed_reason(asked.policy, asked.view, gate.gate)
            if empty and not fed and gate.gate in asked.policy.gates
            else gate_reason(asked.view, gate)
        ),
        "cause": cause_values(asked, cause) if cause else None,
        "remedy": asked.remedy(cause) if cause else gate_remedy(gate),
    }


def _unfed_values(asked: Asked, name: str) -> dict[str, Any]:
    """A gate of the policy that judges nothing in this plan."""
    return {
        "gate": name,
        "slot": "",
        "verdict": "not_run",
        "open": False,
        "why": unfed_reason(asked.policy, asked.view, name),
        "cause": None,
        "remedy": "",
    }


# -- tiers and capabilities ---------------------------------------------------------------------


def _needed(policy: Policy, target: str) -> tuple[str, ...] | None:
    """The gates that a tier or a capability of the policy needs; None when TARGET is neither."""
    tiers = {str(tier): gates for tier, gates in policy.tiers.items()}
    return tiers.get(target, policy.capabilities.get(target))


def _tell_needed(asked: Asked, target: str, needed: tuple[str, ...], *, as_json: bool) -> None:
    """Say which is the first of these gates that keeps a tier or a capability away, and why."""
    waivable = target in asked.policy.tiers  # a waiver does not grant a capability
    found = (_first_lacking(asked, name, waivable=waivable) for name in needed)
    lacking = next((one for one in found if one), None)
    if as_json:
        render.json_document({"asked": target, "needs": list(needed), "lacks": lacking})
    elif lacking is None:
        render.row(target, "nothing is in its way", f"{len(needed)} gates are open")
    else:
        render.row(target, "needs", lacking["gate"])
        _print_gate(lacking)


def _first_lacking(asked: Asked, name: str, *, waivable: bool) -> dict[str, Any] | None:
    """The first closed gate of a name, or that nothing feeds it; None when all are open."""
    gates = [gate for gate in asked.view.gates if gate.gate == name]
    for gate in gates:
        holds = gate.open if waivable else gate.verdict is Verdict.PASS
        if gate.blocking and not holds:
            return _gate_values(asked, gate)
    return None if gates else _unfed_values(asked, name)
