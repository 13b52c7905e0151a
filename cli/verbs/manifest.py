"""The verb `manifest`: what a release claims, or its deployable folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stillhouse.cli.arguments import Json, MaybeRef, session_of
from stillhouse.cli.screen import answer, here
from stillhouse.cli.views.release import (
    note_expired,
    show_manifest,
    show_unreleased,
    show_written,
)
from stillhouse.release import Unreleased, find_release, write_release
from stillhouse.schemas.policy import Tier


def manifest(
    context: typer.Context,
    ref: MaybeRef = None,
    *,
    tier: Annotated[Tier | None, typer.Option("--tier", help="Refuse any other tier.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write the deployable folder here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print or write out a release.

    Its manifest, or with --out the deployable folder. REF: a release, or a recipe whose release
    is meant; default: the latest release.
    """
    session, screen = session_of(context), here()
    found = find_release(session, ref, tier=tier, note=screen.note)
    if isinstance(found, Unreleased):
        answer(found, show_unreleased, as_json=as_json)
        raise typer.Exit(1)
    note_expired(screen, found.expired_waivers)
    if out is None:
        show_manifest(screen, found, as_json=as_json)
    else:
        answer(write_release(session, found, out), show_written, as_json=as_json)
