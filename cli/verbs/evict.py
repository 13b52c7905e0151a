"""The verb `evict`: drop the bytes of an artifact that its recorded run can make again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse import evict as act
from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.screen import answer
from stillhouse.cli.views.rewind import note_changes

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen


def evict(
    context: typer.Context,
    ref: Ref,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be freed; change nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also reports, and what a release was made from.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Drop an artifact's bytes; keep its recipe.

    Only what a recorded run made, and can make again with `still rewind`.
    """
    found = act.evict(session_of(context), ref, dry_run=dry_run, force=force)
    answer(found, _show, as_json=as_json)


def _show(screen: Screen, found: act.Evicted) -> None:
    what, size = ("would free", found.bytes) if found.dry_run else ("evicted", found.freed)
    screen.row(what, screen.short(found.digest), screen.size(size))
    for step in found.steps:
        seconds = f"{step.seconds:.0f} s" if step.seconds is not None else ""
        screen.row("made by", step.slot, f"run {screen.short(step.run)}", seconds)
    note_changes(screen, found.tools)
    if found.dry_run:
        screen.note("  Nothing was changed.")
    elif found.freed < found.bytes:
        screen.note(
            f"  {screen.size(found.bytes - found.freed)} bytes wait: somebody at work may have "
            "seen them. The next `still gc` frees them."
        )
