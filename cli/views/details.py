"""Everything that is recorded of one artifact or one run, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stillhouse.cli.screen import number
from stillhouse.details import ArtifactDetails, RunDetails

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.registry.state.state import Published

_CELL = 200
"""Characters of a value that are shown at a terminal."""


def show_details(screen: Screen, found: ArtifactDetails | RunDetails) -> None:
    """Facts first, then one row for each thing that there may be several of."""
    if isinstance(found, RunDetails):
        _show_run(screen, found)
    else:
        _show_artifact(screen, found)


def _show_artifact(screen: Screen, found: ArtifactDetails) -> None:
    fact = found.publications[0].fact
    screen.facts(
        {
            "digest": found.digest,
            "kind": fact.kind,
            "size": f"{screen.size(fact.size)} ({fact.form})",
            "tags": " ".join(found.tags),
            "bytes": _bytes(screen, found),
            "children": len(found.children),
        }
    )
    for publication in found.publications:
        _show_publication(screen, publication)
    for gate in found.gates:
        checks = "; ".join(check.text for check in gate.checks)
        screen.row("gate", gate.gate, gate.verdict, checks)


def _bytes(screen: Screen, found: ArtifactDetails) -> str:
    """Whether they are here, where that is not a matter of course."""
    if found.absent_since is not None:
        return f"absent since event {found.absent_since}; back with {found.remedy}"
    until = found.swept_after
    return f"condemned; swept after {screen.moment(until)}" if until else ""


def _show_publication(screen: Screen, publication: Published) -> None:
    fact = publication.fact
    when = f"event {publication.seq}", screen.moment(publication.ts)
    screen.row("published", *when, fact.origin, fact.kind, fact.name or "")
    if fact.run:
        screen.row("run", fact.role or "", screen.short(fact.run))
    for parent in fact.parents:
        word = "circumstance" if parent.circumstance else "parent"
        screen.row(word, parent.role, screen.short(parent.digest))
    for name, value in fact.facts.items():
        if name == "metrics":
            for metric in value:
                _show_metric(screen, metric)
        elif value not in ({}, [], None, ""):
            screen.row("fact", name, _text(screen, value))


def _show_metric(screen: Screen, metric: Mapping[str, Any]) -> None:
    value = number(metric.get("value")) or metric.get("nonfinite", "")
    n = "" if metric.get("n") is None else f"n = {metric['n']}"
    screen.row("metric", metric["name"], value, metric.get("unit", ""), n)


def _text(screen: Screen, value: object) -> str:
    """A value in one cell; at a terminal cut where it would fill the screen."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= _CELL or not screen.tty:
        return text
    return f"{text[:_CELL]}… ({len(text)} characters; --json shows all)"


def _show_run(screen: Screen, run: RunDetails) -> None:
    error = run.error
    screen.facts(
        {
            "run": run.run,
            "slot": run.slot,
            "phase": f"{run.phase} version {run.phase_version}",
            "status": run.status,
            "attempts": run.attempts,
            "started": screen.moment(run.started),
            "seconds": run.seconds,
            "plan": screen.short(run.plan),
            "error": f"{error.message} {error.remedy}" if error else run.reason,
        }
    )
    for parent in run.inputs:
        word = "circumstance" if parent.circumstance else "input"
        screen.row(word, parent.role, screen.short(parent.digest))
    for word, values in (("parameter", run.params), ("tool", run.tools)):
        for name, value in values.items():
            screen.row(word, name, _text(screen, value))
    for role, digest in run.outputs.items():
        screen.row("output", role, screen.short(digest))
