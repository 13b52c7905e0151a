"""Why something stands as it stands, one row a reason, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.registry.compare.reasons import RunReason, SlotCause, SlotReason
from stillhouse.registry.planning.explanation import Needs
from stillhouse.why import Explanations, GivenArtifact, MadeArtifact

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.registry.compare.reasons import RecordedRun
    from stillhouse.registry.planning.explanation import ExplainedGate, Step


def show_why(screen: Screen, found: Explanations | Needs | RecordedRun | GivenArtifact) -> None:
    """Slots or gates, what a tier needs, a run, or an artifact."""
    if isinstance(found, Explanations):
        for row in found.rows:
            _show_row(screen, row)
    elif isinstance(found, Needs):
        _show_needs(screen, found)
    else:
        _show_made(screen, found)


def _show_row(screen: Screen, row: SlotReason | SlotCause | ExplainedGate) -> None:
    if isinstance(row, SlotReason):
        _show_slot(screen, row)
    elif isinstance(row, SlotCause):
        _show_cause(screen, row)
    else:
        _show_gate(screen, row)


def _show_needs(screen: Screen, found: Needs) -> None:
    if found.lacks is None:
        screen.row(found.asked, "nothing is in its way", f"{len(found.needs)} gates are open")
    else:
        screen.row(found.asked, "needs", found.lacks.gate)
        _show_gate(screen, found.lacks)


def _show_made(screen: Screen, found: RecordedRun | GivenArtifact) -> None:
    """A run, or an artifact with why its bytes are kept."""
    if isinstance(found, GivenArtifact):
        screen.row("published", found.origin, screen.short(found.digest))
    else:
        screen.row(found.slot, found.status, f"run {screen.short(found.run)}", found.ending)
        _show_reason(screen, found, "ran")
    if isinstance(found, (MadeArtifact, GivenArtifact)):
        kept = found.retention
        screen.row(kept.word, kept.reason, kept.detail)
        screen.next(f"{kept.remedy}." if kept.remedy else "")


def _show_slot(screen: Screen, slot: SlotReason) -> None:
    screen.row(slot.slot, slot.status, slot.why)
    for parent in slot.inputs:
        screen.row("", "input", parent.role, screen.short(parent.digest))
    if slot.cause:
        _show_held(screen, slot.cause.steps[0])
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
    _show_held(screen, cause.steps[-1])
    if slot.again:
        screen.row("", "again", slot.again)
    screen.next(cause.remedy)


def _show_held(screen: Screen, step: Step) -> None:
    """The gate that holds a slot, if one does."""
    if step.gate:
        screen.row("", "gate", step.gate, step.gate_why)


def _show_gate(screen: Screen, gate: ExplainedGate) -> None:
    screen.row(gate.gate, gate.slot, gate.verdict, gate.why)
    if cause := gate.cause:
        screen.row("", cause.slot, cause.status, cause.why)
    screen.next(gate.remedy)
