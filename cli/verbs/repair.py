"""The verb `repair`: good bytes in the place of missing or damaged ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse import repair as act
from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.screen import answer, here
from stillhouse.cli.views.rewind import watching

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen


def repair(
    context: typer.Context,
    ref: Ref,
    *,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PATH", help="A copy: a file, a folder, or another registry."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Get the bytes of an artifact back.

    Those that are missing or damaged come from a copy, or are made again by the run that made them.
    """
    session = session_of(context)
    with watching(here(), steps=False) as watcher:
        found = act.repair(session, ref, source, watcher=watcher)
    answer(found, _show, as_json=as_json)


def _show(screen: Screen, found: act.Repair) -> None:
    digest = screen.short(found.digest)
    if found.how is None:
        screen.row("intact", digest, "every byte is what was recorded")
        return
    for word, objects in (("missing", found.missing), ("corrupt", found.corrupt)):
        for needed in objects:
            screen.row(word, screen.short(needed), "is good again")
    screen.row("restored", digest, f"from a {found.how}, and proved by its digest")
