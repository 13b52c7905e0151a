"""The verb `publish`: a file or folder from outside becomes an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.views import render
from stillhouse.cli.views.progress import bar
from stillhouse.publish import parse_kind
from stillhouse.publish import publish as take_in
from stillhouse.schemas.errors import InputError


def publish(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, or a folder.")],
    *,
    kind: Annotated[str, typer.Option("--kind", "-k", help="What it is: dataset, checkpoint, …")],
    name: Annotated[
        str | None, typer.Option("--name", help="What people call it. Default: the file's name.")
    ] = None,
    meta: Annotated[
        list[str] | None, typer.Option("--meta", metavar="K=V", help="A fact; may be repeated.")
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="A tag that shall name it.")] = None,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read every file, also those that did not change.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Publish PATH; print its digest. A folder becomes a tree."""
    from stillhouse.cli.verbs.tag import move_tag
    from stillhouse.registry.state.references import check_tag_name

    session = session_of(context)
    wanted = parse_kind(kind)
    facts = _pairs(meta or ())
    if tag is not None:
        check_tag_name(tag)  # before anything is stored
    with bar("reading") as drawn:
        published = take_in(
            session, path, wanted, name=name, meta=facts, renew=True, rehash=rehash, bar=drawn
        )
    if tag is not None:
        move_tag(session, tag, published.digest)
    if as_json:
        render.json_document(
            {
                "digest": published.digest,
                "kind": str(published.kind),
                "size": published.size,
                "new": published.new,
                "tag": tag,
            }
        )
    elif render.at_terminal():
        known = "" if published.new else ", which was published before"
        render.line(f"{published.digest}  {published.kind}, {render.size(published.size)}{known}")
    else:
        render.line(published.digest)


def _pairs(given: Sequence[str]) -> dict[str, str]:
    """`k=v` arguments as a mapping. Raises InputError."""
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(
                f"--meta {text!r} is not of the form K=V.",
                remedy="Write it as --meta licence=MIT.",
                code="publish.bad_meta",
            )
        found[key] = value
    return found
