"""How a plan stands, as tables: its slots, its gates, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stillhouse.cli.screen import number

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.registry.planning.summary import (
        GateSummary,
        PlanSummary,
        SlotSummary,
        WaiverSummary,
    )
    from stillhouse.schemas.policy import CheckResult


def show_slots(screen: Screen, slots: Sequence[SlotSummary]) -> None:
    """One row a slot."""
    screen.table(
        ("slot", "status", "seconds", "run", "reason"),
        (
            (
                slot.slot,
                slot.status,
                "" if slot.seconds is None else f"{slot.seconds:.1f}",
                screen.short(slot.run),
                slot.why,
            )
            for slot in slots
        ),
    )


def show_gates(screen: Screen, gates: Sequence[GateSummary]) -> None:
    """One row a check."""
    screen.table(
        ("gate", "slot", "verdict", *CHECK_COLUMNS, "required", "waived"),
        (row for gate in gates for row in _gate_rows(screen, gate)),
    )


def show_missing(screen: Screen, plan: PlanSummary) -> None:
    """Why the plan is not done; a slot that failed and what to do about it come last."""
    causes = [item for item in plan.missing if item.first][::-1]
    for item in causes:
        screen.row("missing", item.what, item.why)
    if plan.following:
        screen.row("and", plan.following)
    for item in causes:
        screen.next(item.remedy)


CHECK_COLUMNS = ("metric", "value", "", "threshold", "n")


def check_cells(check: CheckResult) -> tuple[object, ...]:
    """What was measured, and what it had to be."""
    n = "" if check.n is None else check.n
    return check.metric, number(check.value), check.op, number(check.threshold), n


def waiver_text(screen: Screen, waiver: WaiverSummary) -> str:
    """One waiver in words."""
    until = screen.moment(waiver.until)
    return f"{waiver.state}: by {waiver.author} until {until}: {waiver.reason}"


def _gate_rows(screen: Screen, gate: GateSummary) -> list[tuple[object, ...]]:
    waived = "; ".join(waiver_text(screen, waiver) for waiver in gate.waivers)
    required = "yes" if gate.required else "no"
    if not gate.checks:
        return [(gate.gate, gate.slot, gate.verdict, "", "", "", "", "", required, waived)]
    return [
        (
            gate.gate,
            gate.slot,
            gate.verdict,
            *check_cells(check),
            required,
            waived,
        )
        for check in gate.checks
    ]
