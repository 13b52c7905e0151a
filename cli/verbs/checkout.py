"""The verb `checkout`: copy an artifact out of the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.screen import answer, here
from stillhouse.cli.views.progress import bar
from stillhouse.content import Checkout, check_out

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen


def checkout(
    context: typer.Context,
    ref: Ref,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="A path that does not exist yet.")],
    *,
    link: Annotated[
        bool,
        typer.Option("--link", help="Hand out the stored files themselves: no copy; do not edit."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy an artifact out of the store.

    DEST becomes an ordinary, writable file or folder; it must not exist yet. Files are clones where
    the file system can, else copies.
    """
    session = session_of(context)
    with bar(here(), "writing") as meter:
        done = check_out(session, ref, dest, link=link, meter=meter)
    answer(done, _show, as_json=as_json)


def _show(screen: Screen, done: Checkout) -> None:
    for name in done.swept:
        screen.note(f"  Removed {name}, which a checkout that was killed had left.")
    screen.line(str(done.path))
    if screen.tty:
        how = [f"{count} by {mode}" for mode, count in done.files.items()]
        screen.note(f"  Files: {', '.join(how) or 'none'}.")
    if "link" in done.files:
        screen.note(
            "  These are the stored files: an edit, which root can make whatever their mode is,"
            " damages the store. `still fsck` finds it."
        )
