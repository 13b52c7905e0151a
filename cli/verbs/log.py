"""The verb `log`: what happened, in the order in which it was recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import here
from stillhouse.cli.views.events import describe
from stillhouse.history import history

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.schemas.event import Event


def log(
    context: typer.Context,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is recorded later.")
    ] = False,
    since: Annotated[
        int, typer.Option("--since", metavar="SEQ", min=0, help="Only events after this one.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Show what happened, oldest first.

    With --json: one event a line, as the ledger holds it.
    """
    screen, show = here(), _show_json if as_json else _show
    for events in history(session_of(context), after=since, follow=follow):
        show(screen, events)


def _show_json(screen: Screen, events: Iterable[Event]) -> None:
    for event in events:
        screen.json_line(event)


def _show(screen: Screen, events: Iterable[Event]) -> None:
    for event in events:
        when, what = screen.moment(event.ts), describe(screen, event)
        if screen.tty:
            screen.line(f"{event.seq:>6}  {when}  {event.type:<18}  {what}")
        else:
            screen.line(f"{event.seq}\t{when}\t{event.type}\t{what}")
    screen.flush()
