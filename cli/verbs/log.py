"""The verb `log`: what happened, in the order in which it was recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import here
from stillhouse.cli.views import render
from stillhouse.cli.views.events import describe
from stillhouse.schemas.event import Event

_POLL_SECONDS = 0.2


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
    from stillhouse.registry.ledger.ledger import LedgerReader

    reader = LedgerReader(session_of(context).ledger.path)
    write = _write_json if as_json else _write_rows
    write([event for event in reader.new_events() if event.seq > since])
    while follow:
        time.sleep(_POLL_SECONDS)
        write([event for event in reader.new_events() if event.seq > since])


_Writer = Callable[[list[Event]], None]


def _write_json(events: list[Event]) -> None:
    for event in events:
        render.json_line(event.to_json())


def _write_rows(events: list[Event]) -> None:
    for event in events:
        texts = (str(event.seq), render.moment(event.ts), event.type, describe(here(), event))
        if render.at_terminal():
            render.line(f"{texts[0]:>6}  {texts[1]}  {texts[2]:<18}  {texts[3]}")
        else:
            render.line("\t".join(texts))
    render.flush()
