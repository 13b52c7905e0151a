"""The verb `runs`: what goes on and what went before."""

from __future__ import annotations

from typing import Annotated

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import answer
from stillhouse.cli.views.runs import show_runs
from stillhouse.registry.state.runs import RunStatus
from stillhouse.runs import list_runs


def runs(
    context: typer.Context,
    *,
    status: Annotated[RunStatus | None, typer.Option("--status", help="Only these.")] = None,
    phase: Annotated[
        str | None, typer.Option("--phase", metavar="PHASE", help="Only of this phase.")
    ] = None,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="REF", help="Only what this plan ran or reuses.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="The newest N.")] = 20,
    as_json: Json = False,
) -> None:
    """Show runs, the newest last.

    Each with its latest attempt; those that go on with how far they are.
    """
    found = list_runs(session_of(context), status=status, phase=phase, plan=plan, limit=limit)
    answer(found, show_runs, as_json=as_json)
