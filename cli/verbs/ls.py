"""Verbs that read artifacts: list them, take their bytes out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.views import render
from stillhouse.cli.views.progress import bar
from stillhouse.registry.keeping.presence import require_present, word_for
from stillhouse.registry.state.references import form_of, resolve_reference
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError

if TYPE_CHECKING:
    from stillhouse.registry.state.state import Published, State
    from stillhouse.session import Session


def ls(
    context: typer.Context,
    *,
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only this kind.")] = None,
    as_json: Json = False,
) -> None:
    """List artifacts, oldest first; those whose bytes are absent or condemned say so."""
    state = session_of(context).state()
    rows = [row for row in _listed(state) if kind in (None, row["kind"])]
    if as_json:
        render.json_document(rows)
        return
    render.table(
        ("digest", "kind", "size", "origin", "published", "name", "tags", "bytes"),
        (
            (
                render.short(row["digest"]),
                row["kind"],
                render.size(row["size"]),
                row["origin"],
                render.moment(row["published"]),
                row["name"] or "",
                " ".join(row["tags"]),
                row["bytes"],
            )
            for row in rows
        ),
    )


def _listed(state: State) -> list[dict[str, Any]]:
    """The latest publication of each artifact, in the order in which they first appeared."""
    found: dict[tuple[Digest, Kind], Published] = {}
    for digest, publications in state.artifacts.items():
        for publication in publications:
            found[digest, publication.fact.kind] = publication
    return [
        {
            "digest": digest,
            "kind": str(kind),
            "form": publication.fact.form,
            "size": publication.fact.size,
            "origin": publication.fact.origin,
            "published": publication.ts,
            "seq": publication.seq,
            "name": publication.fact.name,
            "tags": list(state.tags_of(digest)),
            "bytes": word_for(state, digest),
        }
        for (digest, kind), publication in found.items()
    ]


def cat(
    context: typer.Context,
    ref: Annotated[
        str, typer.Argument(metavar="REF[:PATH]", help="An artifact, or a file in a folder.")
    ],
) -> None:
    """Write a file's bytes to stdout.

    Of a folder: the list of its files, or with REF:PATH the bytes of one.
    """
    session = session_of(context)
    name, _, path = ref.partition(":")
    state = session.state()
    digest = resolve_reference(state, name)
    require_present(state, digest)
    if form_of(state, digest) == "tree":
        if not path:
            _list_tree(session, digest)
            return
        digest = _member(session, digest, path)
    elif path:
        raise InputError(
            f"{name} is one file, not a folder, so there is no {path!r} in it.",
            remedy=f"Use `still cat {name}`.",
            code="cat.not_a_tree",
        )
    _pour(session, digest)


def _list_tree(session: Session, digest: Digest) -> None:
    from stillhouse.store.trees.trees import read_tree

    entries = read_tree(session.store, digest)
    render.table(
        ("path", "size", "digest"),
        ((entry.path, render.size(entry.size), render.short(entry.digest)) for entry in entries),
    )


def _member(session: Session, digest: Digest, path: str) -> Digest:
    import difflib

    from stillhouse.store.trees.trees import read_tree

    members = {entry.path: entry.digest for entry in read_tree(session.store, digest)}
    if path not in members:
        near = difflib.get_close_matches(path, members, n=3, cutoff=0.4)
        raise InputError(
            f"The folder {digest[:SHORT]} holds no file {path!r}.",
            remedy=f"Near: {', '.join(near)}." if near else f"See `still cat {digest[:SHORT]}`.",
            code="cat.no_such_file",
        )
    return members[path]


def _pour(session: Session, digest: Digest) -> None:
    """Write an object's verified bytes. Hashed first, so a corrupt one gives no output at all."""
    import shutil

    session.store.verify(digest)
    sys.stdout.flush()
    with session.store.open(digest) as source:
        shutil.copyfileobj(source, sys.stdout.buffer)


def checkout(
    context: typer.Context,
    ref: Ref,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="A path that does not exist yet.")],
    *,
    link: Annotated[
        bool,
        typer.Option("--link", help="Hand out the stored files themselves: no copy; do not edit."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy an artifact out of the store.

    DEST becomes an ordinary, writable file or folder; it must not exist yet. Files are clones where
    the file system can, else copies.
    """
    from stillhouse.store.trees.checkout import checkout as write

    session = session_of(context)
    state = session.state()
    digest = resolve_reference(state, ref)
    require_present(state, digest)
    form = form_of(state, digest)
    with bar("writing") as drawn:
        drawn.of = next(p.fact.size for p in state.artifacts[digest])
        taken = write(session.store, digest, form, dest, link=link, tell=drawn.add)
    for name in taken.swept:
        render.note(f"  Removed {name}, which a checkout that was killed had left.")
    if as_json:
        told = {"files": taken.files, "bytes": taken.bytes}
        render.json_document({"digest": digest, "path": str(dest), **told})
        return
    render.line(str(dest))
    if render.at_terminal():
        how = [f"{count} by {mode}" for mode, count in taken.files.items()]
        render.note(f"  Files: {', '.join(how) or 'none'}.")
    if "link" in taken.files:
        render.note(
            "  These are the stored files: an edit, which root can make whatever their mode is,"
            " damages the store. `still fsck` finds it."
        )
