"""The verb `cancel`: one run, or a whole plan, is to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse import cancel as act
from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import answer

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen


def cancel(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|SLOT|PLAN",
            help="A prefix of a run's key, a slot of the latest plan, or a REF of a recipe.",
        ),
    ],
    *,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why.")] = "",
    as_json: Json = False,
) -> None:
    """End a run, or a plan with its runs.

    It is not started again until `still retry` or `still run` asks for it. Ends with 1 if a worker
    is still there after 30 s.
    """
    done = act.cancel(session_of(context), target, reason=reason)
    answer(done, _show, as_json=as_json)
    if not done.ended:
        raise typer.Exit(1)


def _show(screen: Screen, done: act.Cancelled) -> None:
    if done.plan is not None:
        screen.row("cancelled", "plan", screen.short(done.plan))
    for run in done.runs:
        screen.row(run.status, run.slot, screen.short(run.run))
    for spared in done.spared:
        screen.row("spared", spared.slot, screen.short(spared.run), "another plan needs it")
    if not done.ended:
        screen.note(
            f"  It is recorded, but after {act.PATIENCE:.0f} s a worker is still there; whoever "
            "advances the registry goes on ending it."
        )
