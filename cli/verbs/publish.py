"""The verb `publish`: a file or folder from outside becomes an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse import publish as act
from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import answer, here
from stillhouse.cli.views.progress import bar
from stillhouse.schemas.errors import InputError

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen


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
    session = session_of(context)
    wanted, facts = act.parse_kind(kind), _pairs(meta or ())
    with bar(here(), "reading") as meter:
        done = act.publish(
            session, path, wanted, name=name, meta=facts, tag=tag, rehash=rehash, meter=meter
        )
    answer(done, _show, as_json=as_json)


def _show(screen: Screen, done: act.Publication) -> None:
    if not screen.tty:
        screen.line(done.digest)
        return
    known = "" if done.new else ", which was published before"
    screen.line(f"{done.digest}  {done.kind}, {screen.size(done.size)}{known}")


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
