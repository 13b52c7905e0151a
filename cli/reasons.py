"""Verbs that explain: `gates` (what was judged, on which numbers) and `why` (the first reason)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import render, standing
from cli.arguments import Json, MaybeRef, session_of
from cli.differences import Difference, differences, nearest_earlier
from registry.references import resolve_reference, resolve_run
from schemas.artifact import Kind
from schemas.digest import SHORT, Digest
from schemas.errors import InputError, ReferenceError_

if TYPE_CHECKING:
    from registry.fold import Judged, Run, State
    from registry.plans import PlanView, SlotView


def gates(context: typer.Context, ref: MaybeRef = None, *, as_json: Json = False) -> None:
    """Show verdicts with their numbers.

    Of the latest plan, of the plan REF, or over the artifact REF.
    """
    reactor = session_of(context).reactor()
    state = reactor.state
    digest = resolve_reference(state, ref) if ref else standing.latest_plan(state)
    if state.published(digest, Kind.RECIPE):
        view = reactor.view(digest)
        if as_json:
            render.json_document([standing.gate_values(gate) for gate in view.gates])
        else:
            standing.show_gates(view.gates)
        return
    judged = [j for j in state.verdicts.values() if digest in (j.fact.subject, j.fact.evidence)]
    if as_json:
        render.json_document([{"seq": j.seq, **j.fact.to_json()} for j in judged])
    else:
        _show_verdicts(judged)


def _show_verdicts(judged: list[Judged]) -> None:
    render.table(
        ("gate", "verdict", "metric", "value", "", "threshold", "n", "policy", "event"),
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
            )
            for j in judged
            for check in j.fact.checks
        ),
    )


def why(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="PHASE|SLOT|REF", help="A phase, a slot, an artifact or a run.")
    ],
    *,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="REF", help="Default: the latest plan.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say why something ran or did not.

    Why it ran, was not run again, waits or is blocked: the first reason, with digests.
    """
    reactor = session_of(context).reactor()
    state = reactor.state
    view = reactor.view(_plan(state, plan)) if plan or state.requested else None
    slots = [s for s in view.slots if target in (s.slot.id, s.spec.name)] if view else []
    if slots:
        _tell_slots(state, slots, as_json=as_json)
    else:
        _tell_run(state, _run_behind(state, target, view), as_json=as_json)


def _plan(state: State, ref: str | None) -> Digest:
    return resolve_reference(state, ref, kind=Kind.RECIPE) if ref else standing.latest_plan(state)


def _run_behind(state: State, target: str, view: PlanView | None) -> Run:
    """The run that TARGET is, or that made the artifact TARGET. Raises InputError."""
    key = resolve_run(state, target)
    if key is not None:
        return state.runs[key]
    try:
        digest = resolve_reference(state, target)
    except ReferenceError_ as error:
        if error.code == "ref.ambiguous":
            raise
        known = ", ".join(slot.slot.id for slot in view.slots) if view else "none yet"
        raise InputError(
            f"{target!r} is no phase or slot of this plan, no run and no artifact.",
            remedy=f"Slots are: {known}.",
            code="why.unknown",
        ) from error
    found = state.from_run(digest)
    if found is None or found.fact.run is None:
        raise InputError(
            f"No run made {digest[:SHORT]}: it was {state.artifacts[digest][0].fact.origin}.",
            remedy=f"See `still show {digest[:SHORT]}`.",
            code="why.not_made_here",
        )
    return state.runs[found.fact.run]


def _tell_slots(state: State, slots: list[SlotView], *, as_json: bool) -> None:
    told = [(slot, _explained(state, slot.run) if slot.run else {}) for slot in slots]
    if as_json:
        render.json_document([standing.slot_values(slot) | {"ran": ran} for slot, ran in told])
        return
    for slot, ran in told:
        detail = f": {slot.detail}" if slot.detail else ""
        render.row(slot.slot.id, slot.status, f"{slot.reason}{detail}")
        for parent in slot.inputs:
            render.row("", "input", parent.role, render.short(parent.digest))
        _print_explained(ran)


def _tell_run(state: State, run: Run, *, as_json: bool) -> None:
    explained = _explained(state, run)
    if as_json:
        render.json_document(explained)
        return
    render.row(run.started.slot, run.status, f"run {render.short(run.key)}")
    _print_explained(explained)


def _explained(state: State, run: Run) -> dict[str, Any]:
    """Why a run ran: what of its key was new beside the nearest earlier run of its slot."""
    earlier = nearest_earlier(state, run)
    found = differences(earlier, run) if earlier else ()
    return {
        "run": run.key,
        "slot": run.started.slot,
        "plan": run.started.plan,
        "nearest_earlier": earlier.key if earlier else None,
        "differs": [vars(difference) for difference in found],
        "because": _because(earlier, found),
    }


def _because(earlier: Run | None, found: tuple[Difference, ...]) -> str:
    if earlier is None:
        return "it was the first run of its slot"
    first = found[0]
    return f"{first.what} {first.name} was {first.before}, then {first.after}"


def _print_explained(explained: dict[str, Any]) -> None:
    if not explained:
        return
    render.row("", "ran because", explained["because"])
    if explained["nearest_earlier"]:
        render.row("", "compared with", f"run {render.short(explained['nearest_earlier'])}")
    for item in explained["differs"][1:]:
        was = f"was {item['before']}, then {item['after']}"
        render.row("", "also", f"{item['what']} {item['name']}", was)
