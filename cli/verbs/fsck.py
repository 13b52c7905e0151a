"""The verb `fsck`: check every event and every stored byte, on a damaged registry too."""

from __future__ import annotations

from typing import Annotated

import typer

from stillhouse.cli.arguments import Json, unchecked_session_of
from stillhouse.cli.screen import answer, here
from stillhouse.cli.views.health import show_health
from stillhouse.cli.views.progress import bar
from stillhouse.health import check_registry
from stillhouse.schemas.errors import InputError

_ALL = 100.0
"""Percent."""


def fsck(
    context: typer.Context,
    *,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="Look at names, sizes and modes only: seconds.")
    ] = False,
    sample: Annotated[
        str | None,
        typer.Option("--sample", metavar="P%", help="Read this share of the bytes, at random."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted check stopped.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every event and every stored byte."""
    share = _share(metadata=metadata, sample=sample, resume=resume)
    session = unchecked_session_of(context)
    with bar(here(), "checking") as meter:
        found = check_registry(session, share=share, resume=resume, meter=meter)
    answer(found, show_health, as_json=as_json)
    if not found.ok:
        raise typer.Exit(1)


def _share(*, metadata: bool, sample: str | None, resume: bool) -> float:
    """The share of all bytes that shall be read, 0 to 1. Raises InputError."""
    if metadata + (sample is not None) + resume > 1:
        raise InputError(
            "--metadata, --sample and --resume exclude each other.",
            remedy="Give one of them: --resume goes on with a full check.",
            code="fsck.conflict",
        )
    if metadata:
        return 0.0
    if sample is None:
        return 1.0
    try:
        percent = float(sample.removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not 0 < percent < _ALL:
        raise InputError(
            f"--sample {sample!r} is not a share of the bytes.",
            remedy="Write it as --sample 5%: more than 0, less than 100.",
            code="fsck.bad_sample",
        )
    return percent / _ALL
