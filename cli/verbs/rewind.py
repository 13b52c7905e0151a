"""The verb `rewind`: make an artifact again whose bytes were given up, and prove it is the same."""

from __future__ import annotations

from typing import Annotated

import typer

from stillhouse import rewind as act
from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.screen import answer, here
from stillhouse.cli.views.rewind import show_rewind, watching


def rewind(
    context: typer.Context,
    ref: Ref,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which runs would be repeated; do nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make an artifact again by repeating its runs.

    Ends with 1 if a run makes something else than recorded, and names it. What was interrupted
    goes on when it is asked for again.
    """
    session = session_of(context)
    with watching(here(), steps=not as_json) as watcher:
        found = act.rewind(session, ref, dry_run=dry_run, watcher=watcher)
    answer(found, show_rewind, as_json=as_json)
    if found.differed:
        raise typer.Exit(1)
