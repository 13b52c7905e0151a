"""The verb `verify`: a release folder, which needs no registry, or an artifact hashed again."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from stillhouse import verify as verifying
from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import answer, here
from stillhouse.cli.views.release import note_expired, show_check


def verify(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="DIR|REF", help="A deployable folder, or an artifact.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """Re-hash a release folder or artifact.

    A folder needs no registry; every missing, added or changed file is named.
    """
    found = verifying.verify(target, partial(session_of, context))
    answer(found, show_check, as_json=as_json)
    note_expired(here(), found.expired_waivers)
    if not found.ok:
        raise typer.Exit(1)
