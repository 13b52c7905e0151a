"""The verb `logs`: what a run printed, or prints.

In a pipe the bytes come as they were printed; at a terminal whatever could steer it is escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import session_of
from stillhouse.cli.screen import clean, here
from stillhouse.logs import find_log

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen


def logs(
    context: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|SLOT", help="A prefix of a run's key, or a slot of the latest plan."
        ),
    ],
    *,
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="N", min=1, help="Default: the latest.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run ends; 1 if it failed.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", metavar="N", min=0, help="Only the last N lines.")
    ] = None,
) -> None:
    """Show what a run printed.

    Of an attempt that ended, or so far.
    """
    log = find_log(session_of(context), run, attempt=attempt)
    screen = here()
    for text in log.read(tail=tail, follow=follow):
        _write(screen, text)
    if follow and (why := log.why_unsuccessful()):
        screen.note(clean(why))
        raise typer.Exit(1)


def _write(screen: Screen, text: bytes) -> None:
    if screen.tty:
        for line in text.decode("utf-8", errors="replace").splitlines():
            screen.line(clean(line.expandtabs()))
    elif text:
        screen.flush()
        screen.out.buffer.write(text)
    screen.flush()
