"""The verb `gates`, and why one gate is open or closed: the check that decided, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from stillhouse.cli.arguments import Json, MaybeRef, session_of
from stillhouse.cli.outlook import Outlook
from stillhouse.cli.views import plan as standing
from stillhouse.cli.views import render
from stillhouse.registry.planning.views import ENVIRONMENT, GateView, PlanView, Status
from stillhouse.registry.state.references import latest_plan, resolve_reference
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.policy import Policy, Verdict, applies, phase_of

if TYPE_CHECKING:
    from stillhouse.registry.state.state import Judged, State


def gates(context: typer.Context, ref: MaybeRef = None, *, as_json: Json = False) -> None:
    """Show verdicts with their numbers.

    Of the latest plan, of the plan REF, or over the artifact REF. Waivers are shown with who gave
    them, why and until when, the expired ones too.
    """
    outlook = Outlook(session_of(context))
    state = outlook.state
    digest = resolve_reference(state, ref) if ref else latest_plan(state)
    if state.published(digest, Kind.RECIPE):
        view = outlook.view(digest)
        if as_json:
            render.json_document([standing.gate_values(gate) for gate in view.gates])
        else:
            standing.show_gates(view.gates)
        return
    judged = [j for j in state.verdicts.values() if digest in (j.fact.subject, j.fact.evidence)]
    now = outlook.now
    if as_json:
        render.json_document(
            [{"seq": j.seq, **j.fact.to_json(), "waivers": _waivers(state, j, now)} for j in judged]
        )
    else:
        _show_verdicts(state, judged, now)


def _waivers(state: State, judged: Judged, now: str) -> list[dict[str, Any]]:
    """The waivers over what was judged: expired ones, and the one in force."""
    recorded = state.waivers.get((judged.fact.gate, judged.fact.subject), [])
    told = [standing.waiver_values(w, active=False) for w in recorded if w.fact.until <= now]
    found = state.waiver(judged.fact.gate, judged.fact.subject, now)
    return told + ([standing.waiver_values(found, active=True)] if found else [])


def _show_verdicts(state: State, judged: list[Judged], now: str) -> None:
    render.table(
        ("gate", "verdict", "metric", "value", "", "threshold", "n", "policy", "event", "waived"),
        (
            (
                j.fact.gate,
                j.fact.verdict,
                check.metric,
                render.number(check.value),
                check.op,
                render.number(check.threshold),
                "" if check.n is None else check.n,
                render.short(j.fact.policy),
                j.seq,
                "; ".join(standing.waiver_text(told) for told in _waivers(state, j, now)),
            )
            for j in judged
            for check in j.fact.checks
        ),
    )


# -- why one gate stands as it stands -----------------------------------------------------------


def gate_reason(view: PlanView, gate: GateView) -> str:
    """Why a gate is open or closed: the check that decided, or what there is to judge."""
    if not gate.judged:
        return _unjudged(view, gate)
    if gate.verdict is Verdict.PASS:
        return f"it passed: {'; '.join(standing.check_words(gate))}"
    found = f"{gate.verdict}: {_deciding_check(gate)}"
    if gate.waiver:
        given = standing.waiver_text(standing.waiver_values(gate.waiver, active=True))
        return f"{found}; it lets through all the same, a waiver is {given}"
    if gate.lapsed:
        given = standing.waiver_text(standing.waiver_values(gate.lapsed[-1], active=False))
        return f"{found}; its waiver is {given}"
    return found


def unfed_reason(policy: Policy, view: PlanView, gate: str) -> str:
    """Why no slot of a plan feeds a gate that its policy has."""
    phase = phase_of(gate)
    slots = [slot for slot in view.slots if slot.spec.name == phase]
    if not slots:
        return f"no slot of this plan feeds it: its recipe has no [{phase}]"
    judged = [slot for slot in slots if applies(gate, policy.gates[gate], slot.slot.id)]
    if not judged:
        pattern = policy.gates[gate].slots
        return f"no slot of this plan feeds it: none is named like {pattern!r}"
    skipped = ", ".join(slot.slot.id for slot in judged)
    return f"there is nothing to judge: {skipped} was skipped"


def _deciding_check(gate: GateView) -> str:
    """The first check that came to the gate's own verdict, in numbers."""
    words = standing.check_words(gate)
    for check, text in zip(gate.checks, words, strict=True):
        if check.verdict is gate.verdict:
            holds = " does not hold" if check.value is not None and not check.reason else ""
            return f"{text}{holds}"
    return "; ".join(words)


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
