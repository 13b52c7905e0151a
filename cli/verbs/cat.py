"""The verb `cat`: the bytes of a file, or what a folder holds."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from stillhouse.cli.arguments import session_of
from stillhouse.cli.screen import here
from stillhouse.content import open_content


def cat(
    context: typer.Context,
    ref: Annotated[
        str, typer.Argument(metavar="REF[:PATH]", help="An artifact, or a file in a folder.")
    ],
) -> None:
    """Write a file's bytes to stdout.

    Of a folder: the list of its files, or with REF:PATH the bytes of one.
    """
    name, _, path = ref.partition(":")
    found = open_content(session_of(context), name, path)
    screen = here()
    if isinstance(found, tuple):
        rows = ((each.path, screen.size(each.size), screen.short(each.digest)) for each in found)
        screen.table(("path", "size", "digest"), rows)
        return
    screen.flush()
    with found:
        shutil.copyfileobj(found, screen.out.buffer)
