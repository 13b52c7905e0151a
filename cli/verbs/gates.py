"""The verb `gates`: verdicts with their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stillhouse.cli.arguments import Json, MaybeRef, session_of
from stillhouse.cli.screen import answer
from stillhouse.cli.views.plan import CHECK_COLUMNS, check_cells, show_gates, waiver_text
from stillhouse.gates import GateList, gates_of

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.gates import Verdicts


def gates(context: typer.Context, ref: MaybeRef = None, *, as_json: Json = False) -> None:
    """Show verdicts with their numbers.

    Of the latest plan, of the plan REF, or over the artifact REF. Waivers are shown with who gave
    them, why and until when, the expired ones too.
    """
    answer(gates_of(session_of(context), ref), _show, as_json=as_json)


def _show(screen: Screen, found: GateList | Verdicts) -> None:
    if isinstance(found, GateList):
        show_gates(screen, found.gates)
        return
    screen.table(
        ("gate", "verdict", *CHECK_COLUMNS, "policy", "event", "waived"),
        (
            (
                fact.gate,
                fact.verdict,
                *check_cells(check),
                screen.short(fact.policy),
                recorded.seq,
                "; ".join(waiver_text(screen, waiver) for waiver in recorded.waivers),
            )
            for recorded in found.verdicts
            for fact in (recorded.fact,)
            for check in fact.checks
        ),
    )
