"""The verb `audit`: whether the ledger is what it was, and all that was made from it agrees."""

from __future__ import annotations

from typing import Annotated

import typer

from stillhouse import audit as act
from stillhouse.cli.arguments import Json, unchecked_session_of
from stillhouse.cli.screen import answer
from stillhouse.cli.views.audit import show_audit


def audit(
    context: typer.Context,
    *,
    head: Annotated[
        list[str] | None,
        typer.Option(
            "--head",
            metavar="SEQ:HASH",
            help="An event's hash that you kept elsewhere; may be given more than once.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove that no event was changed, lost or forged.

    The chain of events.log, then everything that remembers it. Tells the first event that is not
    what it was, and which releases rest on it. Ends with 1 when something does not agree.
    """
    found = act.audit(unchecked_session_of(context), head or ())
    answer(found, show_audit, as_json=as_json)
    if not found.ok:
        raise typer.Exit(1)
