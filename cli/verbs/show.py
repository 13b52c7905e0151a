"""The verb `show`: everything that is recorded of one artifact or one run."""

from __future__ import annotations

import typer

from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.screen import answer, here
from stillhouse.cli.views.details import show_details
from stillhouse.details import RunDetails, details_of
from stillhouse.logs import log_end

_LOG_LINES = 40
"""The end of a run's log that is shown."""


def show(context: typer.Context, ref: Ref, *, as_json: Json = False) -> None:
    """Show one artifact or run.

    A run is named by a prefix of its key; the end of its log is shown too.
    """
    session = session_of(context)
    found = details_of(session, ref)
    answer(found, show_details, as_json=as_json)
    if isinstance(found, RunDetails) and not as_json:
        screen = here()
        for text in log_end(session, found.run, _LOG_LINES):  # last: a lost log hides nothing else
            screen.row("log", text)
