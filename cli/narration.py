"""Events in words: one line for each fact, for `still log` and for whoever watches a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli import render
from schemas.event import Event

_Data = dict[str, Any]


def describe(event: Event) -> str:
    """What the event says, in one line; empty for a type that is not known here."""
    tell = _TELL.get(event.type)
    return render.clean(tell(event.data)) if tell else ""


def _published(data: _Data) -> str:
    name = f" {data['name']}" if data.get("name") else ""
    return f"{data['kind']}{name} {render.short(data['digest'])}, {data['origin']}"


def _requested(data: _Data) -> str:
    return f"plan {render.short(data['plan'])}"


def _started(data: _Data) -> str:
    attempt = f", attempt {data['attempt']}" if data["attempt"] > 1 else ""
    return f"{data['slot']}{attempt}, run {render.short(data['run'])}"


def _succeeded(data: _Data) -> str:
    return f"{data['slot']} in {data['seconds']:.1f} s, run {render.short(data['run'])}"


def _failed(data: _Data) -> str:
    return f"{data['slot']}: {data['message']} {data['remedy']} (run {render.short(data['run'])})"


def _abandoned(data: _Data) -> str:
    return f"{data['slot']}, attempt {data['attempt']}: {data['reason']}"


def _reused(data: _Data) -> str:
    return f"{data['slot']} by run {render.short(data['run'])}"


def _retried(data: _Data) -> str:
    return f"run {render.short(data['run'])}"


def _evaluated(data: _Data) -> str:
    checks = "; ".join(check_text(check) for check in data["checks"])
    return f"{data['gate']} over {render.short(data['subject'])}: {data['verdict']} ({checks})"


def _waived(data: _Data) -> str:
    over = f"{data['gate']} over {render.short(data['subject'])}"
    return f"{over} until {data['until']} by {data['author']}: {data['reason']}"


def _moved(data: _Data) -> str:
    return f"{data['name']} is {render.short(data['digest'])}"


def _cut(data: _Data) -> str:
    return f"release {render.short(data['release'])} of {data['tier']}"


def check_text(check: _Data) -> str:
    """One check as it was judged: `trained.kl 0.61 <= 0.8`."""
    if check.get("threshold") is None or check.get("value") is None:
        return str(check.get("reason") or check["metric"])
    value, threshold = render.number(check["value"]), render.number(check["threshold"])
    why = f", {check['reason']}" if check.get("reason") else ""
    return f"{check['metric']} {value} {check['op']} {threshold}{why}"


_TELL: dict[str, Callable[[_Data], str]] = {
    "artifact.published": _published,
    "plan.requested": _requested,
    "run.started": _started,
    "run.succeeded": _succeeded,
    "run.failed": _failed,
    "run.abandoned": _abandoned,
    "run.reused": _reused,
    "run.retried": _retried,
    "gate.evaluated": _evaluated,
    "gate.waived": _waived,
    "tag.moved": _moved,
    "release.cut": _cut,
}
