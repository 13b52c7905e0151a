"""The verb `why`: the first reason for which something stands as it stands, with digests.

Of a run it names what of its key was new beside the nearest earlier run of its slot. Every reason
has a stable code for scripts (`registry/plans.Reason`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.verbs.why_not import (
    Asked,
    PlanOption,
    cause_values,
    is_gate,
    print_slot,
    slots_named,
    tell_gates,
    view_of,
)
from stillhouse.cli.views import render
from stillhouse.outlook import Outlook
from stillhouse.registry.compare.runs import Difference, differences, nearest_earlier, prospect
from stillhouse.registry.keeping.presence import presence
from stillhouse.registry.planning.summary import summary_of_slot
from stillhouse.registry.planning.views import PlanView, Reason, SlotView, Status
from stillhouse.registry.planning.words import gate_reason
from stillhouse.registry.state.references import resolve_reference, resolve_run
from stillhouse.registry.state.runs import Run
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError, ReferenceError_
from stillhouse.schemas.plain import plain

if TYPE_CHECKING:
    from stillhouse.registry.planning.causes import Cause
    from stillhouse.registry.state.state import State
    from stillhouse.session import Session


def why(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="PHASE|SLOT|GATE|REF", help="A phase, a slot, a gate, an artifact or a run."
        ),
    ],
    *,
    plan: PlanOption = None,
    as_json: Json = False,
) -> None:
    """Say why something ran or did not.

    Why it ran, was not run again, waits or is blocked, or why a gate is open or closed: the first
    reason, with digests. Of an artifact also why its bytes are kept.
    """
    session = session_of(context)
    outlook = Outlook(session)
    view = view_of(outlook, plan)
    if view is not None:
        asked = Asked(outlook, view)
        if slots := slots_named(view, target):
            _tell_slots(asked, slots, as_json=as_json)
            return
        if is_gate(asked, target):
            tell_gates(asked, target, as_json=as_json)
            return
    key = resolve_run(outlook.state, target)
    if key is not None:
        _tell_run(outlook.state, outlook.state.runs[key], as_json=as_json)
        return
    _tell_artifact(session, outlook, _artifact(outlook.state, target, view), as_json=as_json)


def _artifact(state: State, target: str, view: PlanView | None) -> Digest:
    """The artifact that TARGET names. Raises InputError."""
    try:
        return resolve_reference(state, target)
    except ReferenceError_ as error:
        if error.code in ("ref.ambiguous", "ref.too_short"):
            raise
        known = ", ".join(slot.slot.id for slot in view.slots) if view else "none yet"
        raise InputError(
            f"{target!r} is no phase, slot or gate of this plan, no run and no artifact.",
            remedy=f"Slots are: {known}.",
            code="why.unknown",
        ) from error


def _tell_artifact(session: Session, outlook: Outlook, digest: Digest, *, as_json: bool) -> None:
    """Why the run that made it ran, if one did, and why its bytes are here, or not."""
    state = outlook.state
    bytes_ = presence(state, digest, outlook.now, session.config.grace)
    made = state.from_run(digest)
    run = state.runs[made.fact.run] if made is not None and made.fact.run is not None else None
    if as_json:
        explained = _explained(state, run) | {"status": str(run.status)} if run else {}
        render.json_document(explained | {"digest": digest, "retention": vars(bytes_)})
        return
    if run is not None:
        _tell_run(state, run, as_json=False)
    else:
        render.row("published", state.artifacts[digest][0].origin, render.short(digest))
    render.row(bytes_.word, bytes_.reason, bytes_.detail)
    if bytes_.remedy:
        render.note(f"  Next: {bytes_.remedy}.")


# -- slots and runs: why ------------------------------------------------------------------------


def _tell_slots(asked: Asked, slots: list[SlotView], *, as_json: bool) -> None:
    told = [(slot, _ran(asked, slot), _reused_from(asked.state, slot)) for slot in slots]
    causes = {s.slot.id: asked.cause(s.slot.id) for s in slots if s.status is not Status.FILLED}
    if as_json:
        render.json_document(
            [
                plain(summary_of_slot(slot))
                | {"ran": ran, "from": origin}
                | {"cause": _cause(asked, causes.get(slot.slot.id))}
                for slot, ran, origin in told
            ]
        )
        return
    for slot, ran, origin in told:
        print_slot(slot)
        for parent in slot.inputs:
            render.row("", "input", parent.role, render.short(parent.digest))
        if slot.gate is not None:
            render.row("", "gate", slot.gate.gate, gate_reason(asked.view, slot.gate))
        if origin:
            where = f"{origin['slot']} of plan {origin['name']} {render.short(origin['plan'])}"
            render.row("", "from", f"run {render.short(origin['run'])}", where, origin["ended"])
        _print_explained(ran, "ran" if slot.run else "is to run")
        if cause := causes.get(slot.slot.id):
            _print_cause(asked, cause)


def _cause(asked: Asked, cause: Cause | None) -> dict[str, Any] | None:
    return cause_values(asked, cause) if cause else None


def _print_cause(asked: Asked, cause: Cause) -> None:
    """What has to change first, where that is not the slot itself, and what can be done."""
    if cause.chain[1:]:
        detail = f": {cause.detail}" if cause.detail else ""
        render.row("", "cause", cause.slot.slot.id, cause.slot.status, f"{cause.reason}{detail}")
    if remedy := asked.remedy(cause):
        render.note(f"  Next: {render.clean(remedy)}")


def _ran(asked: Asked, slot: SlotView) -> dict[str, Any]:
    """Why the slot's run ran, or is to run; empty when its inputs are not known yet."""
    if slot.run is not None:
        return _explained(asked.state, slot.run)
    return _explained(asked.state, prospect(asked.view.plan, slot)) if slot.key else {}


def _reused_from(state: State, slot: SlotView) -> dict[str, Any] | None:
    """Which plan's run fills a slot that did not run itself."""
    if slot.reason is not Reason.REUSED or slot.run is None:
        return None
    started = slot.run.started
    known = state.published(started.plan, Kind.RECIPE) is not None
    return {
        "run": slot.run.key,
        "plan": started.plan,
        "name": state.recipe(started.plan).name if known else "",
        "slot": started.slot,
        "ended": slot.run.ended_ts,
    }


def _tell_run(state: State, run: Run, *, as_json: bool) -> None:
    explained = _explained(state, run)
    if as_json:
        render.json_document(explained | {"status": str(run.status)})
        return
    render.row(run.started.slot, run.status, f"run {render.short(run.key)}", run.ending)
    _print_explained(explained, "ran")


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


def _print_explained(explained: dict[str, Any], verb: str) -> None:
    if not explained:
        return
    render.row("", f"{verb} because", explained["because"])
    if explained["nearest_earlier"]:
        render.row("", "compared with", f"run {render.short(explained['nearest_earlier'])}")
    for item in explained["differs"][1:]:
        was = f"was {item['before']}, then {item['after']}"
        render.row("", "also", f"{item['what']} {item['name']}", was)
