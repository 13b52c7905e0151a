"""The verb `blame`: which event changed a metric, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from stillhouse import compare
from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.screen import answer
from stillhouse.cli.views.comparison import show_blame


def blame(
    context: typer.Context,
    ref: Ref,
    metric: Annotated[str, typer.Argument(help="The metric's name, as in `still show REPORT`.")],
    *,
    slot: Annotated[
        str | None, typer.Option("--slot", help="Only the report of this slot.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which event changed a metric, and what differed in its run.

    REF is a report, or a thing that was measured, or a recipe or release: then all its reports. The
    history is that of the same slot in plans whose recipes have the same name.
    """
    answer(compare.blame(session_of(context), ref, metric, slot), show_blame, as_json=as_json)
