"""The verb `ls`: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import answer
from stillhouse.listing import ArtifactRow, list_artifacts
from stillhouse.schemas.artifact import Kind

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen


def ls(
    context: typer.Context,
    *,
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only this kind.")] = None,
    as_json: Json = False,
) -> None:
    """List artifacts, oldest first; those whose bytes are absent or condemned say so."""
    answer(list_artifacts(session_of(context), kind), _show, as_json=as_json)


def _show(screen: Screen, found: tuple[ArtifactRow, ...]) -> None:
    screen.table(
        ("digest", "kind", "size", "origin", "published", "name", "tags", "bytes"),
        (
            (
                screen.short(row.digest),
                row.kind,
                screen.size(row.size),
                row.origin,
                screen.moment(row.published),
                row.name or "",
                " ".join(row.tags),
                row.bytes,
            )
            for row in found
        ),
    )
