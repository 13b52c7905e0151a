"""How a plan stands, as plain values: its slots, its gates, its release, and what is missing.

The same values are printed by `run`, `gates`, `why` and `manifest`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillhouse.cli.views import render
from stillhouse.registry.planning.views import GateView, PlanView, SlotView, Status
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import Waived
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.events import RunStarted


def release_of(view: PlanView) -> Digest | None:
    """The release that the plan came to, if it did."""
    for slot in view.slots:
        if slot.spec.seals and slot.status is Status.FILLED:
            return slot.outputs.get("release")
    return None


def slot_values(slot: SlotView) -> dict[str, Any]:
    """One slot, for JSON."""
    return {
        "slot": slot.slot.id,
        "status": str(slot.status),
        "optional": slot.slot.optional,
        "reason": slot.reason.code,
        "text": str(slot.reason),
        "detail": slot.detail,
        "until": slot.until,
        "run": slot.key,
        "seconds": slot.run.seconds if slot.run else None,
        "outputs": dict(slot.outputs),
    }


def gate_values(gate: GateView) -> dict[str, Any]:
    """One gate, for JSON."""
    waiver = gate.waiver
    told = [waiver_values(one, active=False) for one in gate.lapsed]
    if waiver:
        told.append(waiver_values(waiver, active=True))
    return {
        "gate": gate.gate,
        "slot": gate.slot,
        "verdict": str(gate.verdict),
        "required": gate.required,
        "blocking": gate.blocking,
        "subject": gate.subject,
        "evidence": gate.evidence,
        "policy": gate.policy,
        "checks": [check.to_json() for check in gate.checks],
        "waiver": waiver.fact.to_json() if waiver else None,
        "waivers": told,
    }


def waiver_values(waiver: Waived, *, active: bool) -> dict[str, Any]:
    """One waiver, for JSON."""
    fact = waiver.fact
    return {
        "state": "active" if active else "expired",
        "author": fact.author,
        "reason": fact.reason,
        "until": fact.until,
        "seq": waiver.seq,
    }


def waiver_text(told: Mapping[str, Any]) -> str:
    """One waiver in words, from its JSON."""
    until = render.moment(told["until"])
    return f"{told['state']}: by {told['author']} until {until}: {told['reason']}"


def prospect(view: PlanView, slot: SlotView) -> Run:
    """The run that the slot would be, as if it had just been started."""
    assert slot.key is not None  # noqa: S101  # asked only of what has a key
    started = RunStarted(
        run=slot.key,
        phase=slot.spec.name,
        phase_version=slot.spec.version,
        plan=view.plan,
        slot=slot.slot.id,
        attempt=slot.attempt,
        inputs=slot.inputs,
        params=dict(slot.params),
        tools=dict(slot.tools),
    )
    return Run(
        key=slot.key,
        started=started,
        attempts=slot.attempt,
        seq=0,
        started_seq=0,
        ts="",
    )


def missing(view: PlanView) -> list[dict[str, str]]:
    """Why the plan is not done, each with what to do about it: first causes, then what follows."""
    follow = [_missing_gate(gate) for gate in view.closed_gates if _gate_follows(view, gate)]
    return first_causes(view) + follow


def first_causes(view: PlanView) -> list[dict[str, str]]:
    """What is missing and waits for nothing else that is: slots that failed come first."""
    slots = [slot for slot in _unfilled(view) if not _slot_follows(slot)]
    slots.sort(key=lambda slot: slot.status is not Status.FAILED)
    gates = [gate for gate in view.closed_gates if not _gate_follows(view, gate)]
    return [_missing_slot(slot) for slot in slots] + [_missing_gate(gate) for gate in gates]


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


def show_missing(view: PlanView) -> None:
    """Print why the plan is not done; a slot that failed and what to do about it come last."""
    causes = first_causes(view)[::-1]
    for item in causes:
        render.row("missing", item["what"], item["why"])
    if waiting := following(view):
        render.row("and", waiting)
    render.flush()  # what to do comes last, wherever the two streams go
    for item in causes:
        if item["remedy"]:
            render.note(f"  Next: {render.clean(item['remedy'])}")


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


def _missing_slot(slot: SlotView) -> dict[str, str]:
    remedy = ""
    if slot.status is Status.FAILED:
        run = slot.run.key[:SHORT] if slot.run else ""
        remedy = f"Read `still logs {run}`, mend the cause, then `still retry {run}`."
    detail = f": {slot.detail}" if slot.detail else ""
    return {
        "what": slot.slot.id,
        "why": f"{slot.status}, {slot.reason}{detail}",
        "remedy": remedy,
    }


def _missing_gate(gate: GateView) -> dict[str, str]:
    over = f" over {gate.subject[:SHORT]}" if gate.subject else ""
    checks = "; ".join(check_words(gate)) or "nothing was measured for it yet"
    return {
        "what": gate.gate,
        "why": f"{gate.verdict} ({gate.slot}{over}): {checks}",
        "remedy": gate_remedy(gate),
    }


def gate_remedy(gate: GateView) -> str:
    """What can be done about a gate that was judged and is closed; empty for another."""
    if gate.open or not gate.judged or not gate.subject:
        return ""
    return (
        "Improve what it measures, change the policy, or take responsibility: "
        f"`still waive {gate.gate} {gate.subject[:SHORT]} --reason … --until DATE`."
    )


def check_words(gate: GateView) -> list[str]:
    """Each check of a gate in words: `trained.kl 0.61 <= 0.8 (n = 400)`."""
    from stillhouse.cli.views.events import check_text

    return [
        check_text(check.to_json()) + (f" (n = {check.n})" if check.n is not None else "")
        for check in gate.checks
    ]


def show_slots(view: PlanView) -> None:
    """Print the slots."""
    render.table(
        ("slot", "status", "seconds", "run", "reason"),
        (
            (
                slot.slot.id,
                slot.status,
                "" if slot.run is None or slot.run.seconds is None else f"{slot.run.seconds:.1f}",
                render.short(slot.key),
                f"{slot.reason}: {slot.detail}" if slot.detail else slot.reason,
            )
            for slot in view.slots
        ),
    )


def show_gates(gates: tuple[GateView, ...]) -> None:
    """Print the gates: one row for each check."""
    render.table(
        ("gate", "slot", "verdict", "metric", "value", "", "threshold", "n", "required", "waived"),
        (row for gate in gates for row in _gate_rows(gate)),
    )


def _gate_rows(gate: GateView) -> list[tuple[object, ...]]:
    waived = "; ".join(waiver_text(told) for told in gate_values(gate)["waivers"])
    required = "yes" if gate.required else "no"
    if not gate.checks:
        return [(gate.gate, gate.slot, gate.verdict, "", "", "", "", "", required, waived)]
    return [
        (
            gate.gate,
            gate.slot,
            gate.verdict,
            check.metric,
            render.number(check.value),
            check.op,
            render.number(check.threshold),
            "" if check.n is None else check.n,
            required,
            waived,
        )
        for check in gate.checks
    ]
