"""The verb `tag`: names that people give to artifacts, and move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json, MaybeRef, session_of
from stillhouse.cli.screen import answer
from stillhouse.tags import Tags, list_tags, move_tag

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen


def tag(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The tag.")] = None,
    ref: MaybeRef = None,
    *,
    as_json: Json = False,
) -> None:
    """Let NAME mean REF; list tags.

    Without REF: what NAME means; without both: every tag.
    """
    from stillhouse.registry.state.references import resolve_reference

    session = session_of(context)
    if name is not None and ref is not None:
        move_tag(session, name, resolve_reference(session.state(), ref))
    answer(list_tags(session, name), _show, as_json=as_json)


def _show(screen: Screen, found: Tags) -> None:
    rows = ((tag.name, screen.short(tag.digest), tag.kind) for tag in found.tags)
    screen.table(("tag", "digest", "kind"), rows)
