"""The verb `retry`: failed and cancelled runs may be tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse import retry as act
from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import answer
from stillhouse.schemas.digest import SHORT

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen


def retry(
    context: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|SLOT]",
            help="A prefix of a run's key, or a slot of the latest plan. "
            "Default: all that failed or were cancelled.",
        ),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Let failed and cancelled runs be tried again.

    By the next `still run`, or at once by a running `still watch`.
    """
    answer(act.retry(session_of(context), run), _show, as_json=as_json)


def _show(screen: Screen, found: act.Retries) -> None:
    for run in found.runs:
        screen.row("retry", run.slot, screen.short(run.run))
    if not found.runs:
        screen.note("No run has failed or was cancelled; there is nothing to retry.")
        return
    screen.next("`still run` the recipe; a running `still watch` takes them up by itself.")
    for plan in found.dropped:
        screen.note(f"  Plan {plan[:SHORT]} is not asked for: `still run {plan[:SHORT]}`.")
