"""The verb `gc`: bytes that nothing keeps are condemned, and after a grace they are swept."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import answer
from stillhouse.cli.views.collection import show_collection
from stillhouse.collect import collect
from stillhouse.config import duration
from stillhouse.schemas.errors import InputError


def gc(
    context: typer.Context,
    *,
    grace: Annotated[
        str | None,
        typer.Option("--grace", metavar="14d", help="Instead of `grace` in config.toml."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="List also what is kept, and every orphan.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Free the bytes that nothing keeps.

    They are condemned first, can be read and kept for a grace period, and are swept by a later gc.
    Kept is what a tag, a release, a plan or a run needs, what is young, and all that shaped it. Old
    folders of runs that no plan would take up again are removed.
    """
    session = session_of(context)
    found = collect(session, _grace(grace), dry_run=dry_run, everything=everything)
    answer(found, show_collection, as_json=as_json)


def _grace(given: str | None) -> timedelta | None:
    """The grace that was given, if any. Raises InputError."""
    if given is None:
        return None
    try:
        return duration(given)
    except ValueError as error:
        raise InputError(
            f"--grace: {error}.", remedy="Write it as --grace 14d.", code="gc.bad_grace"
        ) from error
