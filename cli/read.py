"""Verbs that read artifacts: list them, look at one, take its bytes out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import render
from cli.arguments import Json, Ref, session_of
from registry.references import resolve_reference, resolve_run
from schemas.artifact import Kind
from schemas.digest import SHORT, Digest
from schemas.errors import InputError

if TYPE_CHECKING:
    from cli.wiring import Session
    from registry.fold import Published, Run, State

_LOG_LINES = 40
"""The end of a run's log that `still show` prints."""


def ls(
    context: typer.Context,
    *,
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only this kind.")] = None,
    as_json: Json = False,
) -> None:
    """List artifacts, oldest first."""
    state = session_of(context).state()
    rows = [row for row in _listed(state) if kind in (None, row["kind"])]
    if as_json:
        render.json_document(rows)
        return
    render.table(
        ("digest", "kind", "size", "origin", "published", "name", "tags"),
        (
            (
                render.short(row["digest"]),
                row["kind"],
                render.size(row["size"]),
                row["origin"],
                render.moment(row["published"]),
                row["name"] or "",
                " ".join(row["tags"]),
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
            "tags": _tags(state, digest),
        }
        for (digest, kind), publication in found.items()
    ]


def show(context: typer.Context, ref: Ref, *, as_json: Json = False) -> None:
    """Show one artifact or run.

    A run is named by a prefix of its key; the end of its log is shown too.
    """
    session = session_of(context)
    state = session.state()
    run = resolve_run(state, ref)
    if run is not None and not _names_artifact(state, ref):
        _show_run(session, state.runs[run], as_json=as_json)
        return
    _show_artifact(state, resolve_reference(state, ref), as_json=as_json)


def _names_artifact(state: State, ref: str) -> bool:
    return ref in state.tags or any(digest.startswith(ref) for digest in state.artifacts)


def _show_artifact(state: State, digest: Digest, *, as_json: bool) -> None:
    publications = state.artifacts[digest]
    fact = publications[-1].fact
    verdicts = [
        j.fact for j in state.verdicts.values() if digest in (j.fact.subject, j.fact.evidence)
    ]
    if as_json:
        render.json_document(
            {
                "digest": digest,
                "tags": _tags(state, digest),
                "publications": [
                    {"seq": p.seq, "ts": p.ts, **p.fact.to_json()} for p in publications
                ],
                "children": _children(state, digest),
                "gates": [v.to_json() for v in verdicts],
            }
        )
        return
    render.facts(
        {
            "digest": digest,
            "kind": fact.kind,
            "name": fact.name,
            "size": f"{render.size(fact.size)} ({fact.form})",
            "origin": fact.origin,
            "run": fact.run,
            "tags": " ".join(_tags(state, digest)),
            "published": ", ".join(f"{render.moment(p.ts)} (event {p.seq})" for p in publications),
            "children": len(_children(state, digest)),
        }
    )
    for parent in fact.parents:
        render.line(f"parent\t{parent.role}\t{render.short(parent.digest)}")
    for verdict in verdicts:
        render.line(f"gate\t{verdict.gate}\t{verdict.verdict}")
    _show_facts(fact.facts)


def _show_facts(facts: dict[str, Any], prefix: str = "") -> None:
    """Facts as `name value`; metrics one a line, deeper things as JSON."""
    import json

    for name, value in facts.items():
        if name == "metrics":
            for metric in value:
                n = f" (n = {metric['n']})" if metric.get("n") is not None else ""
                shown = render.number(metric.get("value")) or metric.get("nonfinite", "")
                render.line(f"metric\t{render.clean(metric['name'])}\t{shown}{n}")
        elif value not in ({}, [], None, ""):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            render.line(f"fact\t{prefix}{render.clean(name)}\t{render.clean(text)}")


def _children(state: State, digest: Digest) -> list[Digest]:
    return [
        child
        for child, publications in state.artifacts.items()
        if any(parent.digest == digest for p in publications for parent in p.fact.parents)
    ]


def _tags(state: State, digest: Digest) -> list[str]:
    return sorted(name for name, tagged in state.tags.items() if tagged == digest)


def _show_run(session: Session, run: Run, *, as_json: bool) -> None:
    started = run.started
    error = run.error if run.status == "failed" else None
    if as_json:
        render.json_document(
            {
                "run": run.key,
                "status": run.status,
                "attempts": run.attempts,
                "started": run.ts,
                "seconds": run.seconds,
                **started.model_dump(
                    mode="json", include={"phase", "phase_version", "plan", "slot"}
                ),
                "inputs": [parent.to_json() for parent in started.inputs],
                "params": started.params,
                "tools": started.tools,
                "outputs": run.outputs,
                "error": error.to_json() if error else None,
                "reason": run.reason,
                "log": run.log,
            }
        )
        return
    render.facts(
        {
            "run": run.key,
            "slot": started.slot,
            "phase": f"{started.phase} version {started.phase_version}",
            "status": run.status,
            "attempts": run.attempts,
            "started": render.moment(run.ts),
            "seconds": run.seconds,
            "plan": render.short(started.plan),
            "error": f"{error.message} {error.remedy}" if error else run.reason,
        }
    )
    for parent in started.inputs:
        word = "circumstance" if parent.circumstance else "input"
        render.line(f"{word}\t{parent.role}\t{render.short(parent.digest)}")
    for name, value in (*started.params.items(), *started.tools.items()):
        word = "param" if name in started.params else "tool"
        render.line(f"{word}\t{render.clean(name)}\t{render.clean(value)}")
    for role, digest in run.outputs.items():
        render.line(f"output\t{role}\t{render.short(digest)}")
    for text in _log_end(session, run):
        render.line(f"log\t{render.clean(text)}")


def _log_end(session: Session, run: Run) -> list[str]:
    """The last lines of the run's log: the recorded one, else that of the live attempt."""
    if run.log is not None:
        data = session.store.read(run.log)
    else:
        path = session.home.run(run.key) / f"log.{run.attempts}"
        data = path.read_bytes() if path.is_file() else b""
    return data.decode("utf-8", errors="replace").splitlines()[-_LOG_LINES:]


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
    if state.artifacts[digest][0].fact.form == "tree":
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
    from store.trees import read_tree

    entries = read_tree(session.store, digest)
    render.table(
        ("path", "size", "digest"),
        ((entry.path, render.size(entry.size), render.short(entry.digest)) for entry in entries),
    )


def _member(session: Session, digest: Digest, path: str) -> Digest:
    import difflib

    from store.trees import read_tree

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
    as_json: Json = False,
) -> None:
    """Copy an artifact out of the store.

    DEST becomes an ordinary, writable file or folder; it must not exist yet.
    """
    from store.checkout import checkout as write

    session = session_of(context)
    state = session.state()
    digest = resolve_reference(state, ref)
    write(session.store, digest, state.artifacts[digest][0].fact.form, dest)
    if as_json:
        render.json_document({"digest": digest, "path": str(dest)})
    else:
        render.line(str(dest))
