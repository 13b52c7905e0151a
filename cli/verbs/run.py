"""The verb `run`: one recipe, advanced until nothing more happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.advance import advance, find_plan
from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import here
from stillhouse.cli.views.follow import watcher
from stillhouse.cli.views.plan import show_gates, show_missing, show_slots
from stillhouse.schemas.digest import SHORT

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.registry.planning.summary import PlanSummary


def run(
    context: typer.Context,
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe file, or a REF of a published one.")
    ],
    *,
    priority: Annotated[
        int | None,
        typer.Option("--priority", min=-100, max=100, help="Higher goes first; 0 by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Advance a recipe until quiet.

    Publishes it with every file it names. Ends with 0 only if every required gate passed. Beside a
    daemon it asks for the plan, and follows what the daemon does.

    With --json: one object a line for each event and progress note, then one `summary`.
    """
    session, screen = session_of(context), here()
    plan = find_plan(session, recipe)
    try:
        with watcher(screen, as_json=as_json, after=session.ledger.head().seq) as watching:
            done = advance(session, plan, watching, priority=priority)
    except KeyboardInterrupt:
        screen.note("Stopped. The same `still run` goes on from what is recorded.")
        raise
    if as_json:
        screen.json_line(done)
    else:
        _show(screen, done.summary)
    if not done.summary.done:
        raise typer.Exit(1)


def _show(screen: Screen, found: PlanSummary) -> None:
    show_slots(screen, found.slots)
    screen.line()
    show_gates(screen, found.gates)
    screen.line()
    if found.release:
        screen.row("release", found.release)
        screen.next(f"write it out with `still manifest {found.release[:SHORT]} --out DIR`.")
    elif found.done:
        screen.row("done", f"plan {screen.short(found.plan)}")
    show_missing(screen, found)
