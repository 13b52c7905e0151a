"""Why something stands as it stands, one row a reason, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.registry.compare.reasons import RecordedRun, RunReason
from stillhouse.registry.planning.explanation import Needs
from stillhouse.why import GateReasons, GivenArtifact, MadeArtifact, SlotCauses, SlotReasons

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.registry.compare.reasons import SlotCause, SlotReason
    from stillhouse.registry.planning.explanation import CauseSummary, ExplainedGate


def show_why(
    screen: Screen, found: SlotReasons | GateReasons | RecordedRun | GivenArtifact
) -> None:
    """Slots, gates, a run or an artifact, with the first reason of each."""
    if isinstance(found, SlotReasons):
        for slot in found.slots:
            _show_slot(screen, slot)
        return
    if isinstance(found, GateReasons):
        _show_gates(screen, found)
        return
    if isinstance(found, GivenArtifact):
        screen.row("published", found.origin, screen.short(found.digest))
    else:
        screen.row(found.slot, found.status, f"run {screen.short(found.run)}", found.ending)
        _show_reason(screen, found, "ran")
    if isinstance(found, (MadeArtifact, GivenArtifact)):
        kept = found.retention
        screen.row(kept.word, kept.reason, kept.detail)
        screen.next(f"{kept.remedy}." if kept.remedy else "")


def show_why_not(screen: Screen, found: SlotCauses | GateReasons | Needs) -> None:
    """Each way from what was asked about down to its cause."""
    if isinstance(found, SlotCauses):
        for slot in found.slots:
            _show_cause(screen, slot)
    elif isinstance(found, GateReasons):
        _show_gates(screen, found)
    elif found.lacks is None:
        screen.row(found.asked, "nothing is in its way", f"{len(found.needs)} gates are open")
    else:
        screen.row(found.asked, "needs", found.lacks.gate)
        _show_gate(screen, found.lacks)


def _show_slot(screen: Screen, slot: SlotReason) -> None:
    screen.row(slot.slot, slot.status, slot.why)
    for parent in slot.inputs:
        screen.row("", "input", parent.role, screen.short(parent.digest))
    if slot.cause:
        _show_verdict(screen, slot.cause, step=0)
    if origin := slot.origin:
        where = f"{origin.slot} of plan {origin.name} {screen.short(origin.plan)}"
        screen.row("", "from", f"run {screen.short(origin.run)}", where, origin.ended)
    if isinstance(slot.ran, RunReason):
        _show_reason(screen, slot.ran, "ran" if slot.started else "is to run")
    if slot.cause:
        if slot.cause.through:
            screen.row("", "cause", slot.cause.slot, slot.cause.status, slot.cause.why)
        screen.next(slot.cause.remedy)


def _show_reason(screen: Screen, reason: RunReason, verb: str) -> None:
    screen.row("", f"{verb} because", reason.because)
    if reason.nearest_earlier:
        screen.row("", "compared with", f"run {screen.short(reason.nearest_earlier)}")
    for other in reason.differs[1:]:
        was = f"was {other.before}, then {other.after}"
        screen.row("", "also", f"{other.what} {other.name}", was)


def _show_cause(screen: Screen, slot: SlotCause) -> None:
    cause = slot.cause
    for step in cause.steps[:-1]:
        screen.row(step.slot, step.status, step.why)
    screen.row(cause.slot, cause.status, cause.why)
    _show_verdict(screen, cause, step=-1)
    if slot.again:
        screen.row("", "again", slot.again)
    screen.next(cause.remedy)


def _show_verdict(screen: Screen, cause: CauseSummary, *, step: int) -> None:
    """The gate that holds one slot on the way to a cause, if one does."""
    if gate := cause.steps[step].gate:
        screen.row("", "gate", gate, cause.steps[step].verdict)


def _show_gates(screen: Screen, found: GateReasons) -> None:
    for gate in found.gates:
        _show_gate(screen, gate)


def _show_gate(screen: Screen, gate: ExplainedGate) -> None:
    screen.row(gate.gate, gate.slot, gate.verdict, gate.why)
    if cause := gate.cause:
        screen.row("", cause.slot, cause.status, cause.why)
    screen.next(gate.remedy)
