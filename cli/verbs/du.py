"""The verb `du`: who holds the bytes of the store, for its own and together with others."""

from __future__ import annotations

from typing import Annotated

import typer

from stillhouse.cli.arguments import Json, MaybeRef, session_of
from stillhouse.cli.screen import answer
from stillhouse.cli.views.usage import show_usage
from stillhouse.registry.keeping.usage import By
from stillhouse.usage import usage_of


def du(
    context: typer.Context,
    ref: MaybeRef = None,
    *,
    by: Annotated[By, typer.Option("--by", help="Whose bytes to tell.")] = By.KIND,
    top: Annotated[int, typer.Option("--top", min=1, help="At most so many rows.")] = 20,
    as_json: Json = False,
) -> None:
    """Say who holds the bytes: all, those that only it holds, and those it shares.

    Unique bytes would be free if it went. With REF: of that artifact, beside all others.
    """
    answer(usage_of(session_of(context), ref, by=by, top=top), show_usage, as_json=as_json)
