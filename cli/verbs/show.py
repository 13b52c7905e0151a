"""The verb `show`: everything that is recorded of one artifact or one run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.views import render
from stillhouse.registry.keeping.presence import way_back, word_for
from stillhouse.registry.state.references import resolve_reference, resolve_run
from stillhouse.schemas.digest import Digest

if TYPE_CHECKING:
    from stillhouse.registry.state.runs import Run
    from stillhouse.registry.state.state import Published, State
    from stillhouse.session import Session

_LOG_LINES = 40
"""The end of a run's log that is shown."""
_CELL = 200
"""Characters of a value that are shown at a terminal."""


def show(context: typer.Context, ref: Ref, *, as_json: Json = False) -> None:
    """Show one artifact or run.

    A run is named by a prefix of its key; the end of its log is shown too.
    """
    session = session_of(context)
    state = session.state()
    run = resolve_run(state, ref)
    if run is not None and not _names_artifact(state, ref):
        shown = _show_run_json if as_json else _show_run
        shown(session, state.runs[run])
        return
    digest = resolve_reference(state, ref)
    if as_json:
        _show_artifact_json(state, digest)
    else:
        _show_artifact(state, digest)


def _names_artifact(state: State, ref: str) -> bool:
    return ref in state.tags or any(digest.startswith(ref) for digest in state.artifacts)


# -- artifacts ----------------------------------------------------------------------------------


def _show_artifact_json(state: State, digest: Digest) -> None:
    publications = state.artifacts[digest]
    render.json_document(
        {
            "digest": digest,
            "tags": list(state.tags_of(digest)),
            "bytes": word_for(state, digest),
            "publications": [{"seq": p.seq, "ts": p.ts, **p.fact.to_json()} for p in publications],
            "children": _children(state, digest),
            "gates": [
                judged.fact.to_json()
                for judged in state.verdicts.values()
                if digest in (judged.fact.subject, judged.fact.evidence)
            ],
        }
    )


def _show_artifact(state: State, digest: Digest) -> None:
    publications = state.artifacts[digest]
    fact = publications[0].fact
    render.facts(
        {
            "digest": digest,
            "kind": fact.kind,
            "size": f"{render.size(fact.size)} ({fact.form})",
            "tags": " ".join(state.tags_of(digest)),
            "bytes": _bytes(state, digest),
            "children": len(_children(state, digest)),
        }
    )
    for publication in publications:
        _show_publication(publication)
    for judged in state.verdicts.values():
        if digest in (judged.fact.subject, judged.fact.evidence):
            checks = "; ".join(check.text for check in judged.fact.checks)
            render.row("gate", judged.fact.gate, judged.fact.verdict, checks)


def _bytes(state: State, digest: Digest) -> str:
    """Whether they are here, where that is not a matter of course."""
    if digest in state.absent:
        return f"absent since event {state.absent[digest]}; back with {way_back(state, digest)}"
    until = state.condemned.get(digest)
    return f"condemned; swept after {render.moment(until)}" if until else ""


def _show_publication(publication: Published) -> None:
    fact = publication.fact
    when = f"event {publication.seq}", render.moment(publication.ts)
    render.row("published", *when, fact.origin, fact.kind, fact.name or "")
    if fact.run:
        render.row("run", fact.role or "", render.short(fact.run))
    for parent in fact.parents:
        word = "circumstance" if parent.circumstance else "parent"
        render.row(word, parent.role, render.short(parent.digest))
    for name, value in fact.facts.items():
        if name == "metrics":
            for metric in value:
                _show_metric(metric)
        elif value not in ({}, [], None, ""):
            render.row("fact", name, _text(value))


def _show_metric(metric: dict[str, Any]) -> None:
    value = render.number(metric.get("value")) or metric.get("nonfinite", "")
    n = "" if metric.get("n") is None else f"n = {metric['n']}"
    render.row("metric", metric["name"], value, metric.get("unit", ""), n)


def _text(value: object) -> str:
    """A value in one cell; at a terminal cut where it would fill the screen."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= _CELL or not render.at_terminal():
        return text
    return f"{text[:_CELL]}… ({len(text)} characters; --json shows all)"


def _children(state: State, digest: Digest) -> list[Digest]:
    return [
        child
        for child, publications in state.artifacts.items()
        if any(parent.digest == digest for p in publications for parent in p.fact.parents)
    ]


# -- runs ---------------------------------------------------------------------------------------


def _show_run_json(_session: Session, run: Run) -> None:
    started = run.started
    render.json_document(
        {
            "run": run.key,
            "phase": started.phase,
            "phase_version": started.phase_version,
            "plan": started.plan,
            "slot": started.slot,
            "status": run.status,
            "attempts": run.attempts,
            "started": run.ts,
            "seconds": run.seconds,
            "inputs": [parent.to_json() for parent in started.inputs],
            "params": started.params,
            "tools": started.tools,
            "outputs": run.outputs,
            "error": run.error.to_json() if run.error else None,
            "reason": run.reason,
            "log": run.log,
        }
    )


def _show_run(session: Session, run: Run) -> None:
    started, error = run.started, run.error
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
        render.row(word, parent.role, render.short(parent.digest))
    for word, values in (("parameter", started.params), ("tool", started.tools)):
        for name, value in values.items():
            render.row(word, name, _text(value))
    for role, digest in run.outputs.items():
        render.row("output", role, render.short(digest))
    for text in _log_end(session, run):
        render.row("log", text)


def _log_end(session: Session, run: Run) -> list[str]:
    """The last lines of the run's log: the recorded one, else that of the live attempt."""
    if run.log is not None:
        data = session.store.read(run.log)
    else:
        path = session.home.run(run.key) / f"log.{run.attempts}"
        data = path.read_bytes() if path.is_file() else b""
    return data.decode("utf-8", errors="replace").splitlines()[-_LOG_LINES:]
