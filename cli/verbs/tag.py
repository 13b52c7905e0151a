"""The verb `tag`: names that people give to artifacts, and move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse import tags
from stillhouse.cli.arguments import Json, MaybeRef, session_of
from stillhouse.cli.screen import answer

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
    session = session_of(context)
    if name is None or ref is None:
        found = tags.list_tags(session, name)
    else:
        found = tags.tag(session, name, ref)
    answer(found, _show, as_json=as_json)


def _show(screen: Screen, found: tags.Tags) -> None:
    rows = ((tag.name, screen.short(tag.digest), tag.kind) for tag in found.tags)
    screen.table(("tag", "digest", "kind"), rows)
