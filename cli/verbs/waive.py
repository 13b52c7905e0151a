"""The verb `waive`: a gate may be passed over until a date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse import waive as act
from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.screen import answer, here
from stillhouse.schemas.digest import SHORT

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen


def waive(
    context: typer.Context,
    gate: Annotated[str, typer.Argument(metavar="GATE", help="The gate's name.")],
    ref: Ref,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why it may pass all the same.")],
    until: Annotated[
        str,
        typer.Option("--until", metavar="DATE", help="YYYY-MM-DD (to its end, UTC) or RFC 3339."),
    ],
    as_json: Json = False,
) -> None:
    """Waive a gate over REF until a date.

    Your name, the reason and the date are recorded, and shown in every manifest.
    """
    done = act.waive(session_of(context), gate, ref, reason=reason, until=until)
    if not done.judged:
        subject = done.fact.subject[:SHORT]
        here().note(f"Note: {gate} was never judged over {subject}; it is waived in advance.")
    answer(done, _show, as_json=as_json)


def _show(screen: Screen, done: act.Waiver) -> None:
    fact = done.fact
    screen.row("waived", fact.gate, screen.short(fact.subject), f"until {fact.until}")
    screen.next("`still run` the recipe again; the waiver is shown in its manifest.")
