"""Events in words: one line for each fact, for `still log` and for whoever watches a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stillhouse.cli.views import render
from stillhouse.schemas.event import Event
from stillhouse.schemas.policy import CheckResult

_Data = dict[str, Any]


def describe(event: Event) -> str:
    """What the event says, in one line; empty for a type that is not known here."""
    tell = _TELL.get(event.type)
    return render.clean(tell(event.data)) if tell else ""


def _published(data: _Data) -> str:
    name = f" {data['name']}" if data.get("name") else ""
    return f"{data['kind']}{name} {render.short(data['digest'])}, {data['origin']}"


def _requested(data: _Data) -> str:
    priority = f", priority {data['priority']}" if data.get("priority") else ""
    return f"plan {render.short(data['plan'])}{priority}"


def _plan_cancelled(data: _Data) -> str:
    return f"plan {render.short(data['plan'])}{_because(data)}"


def _run_cancelled(data: _Data) -> str:
    return f"run {render.short(data['run'])}, attempt {data['attempt']}{_because(data)}"


def _because(data: _Data) -> str:
    return f": {data['reason']}" if data.get("reason") else ""


def _started(data: _Data) -> str:
    attempt = f", attempt {data['attempt']}" if data["attempt"] > 1 else ""
    return f"{data['slot']}{attempt}, run {render.short(data['run'])}"


def _succeeded(data: _Data) -> str:
    return f"{data['slot']} in {data['seconds']:.1f} s, run {render.short(data['run'])}"


def _failed(data: _Data) -> str:
    run = f"run {render.short(data['run'])}" + (", tried again" if data.get("transient") else "")
    return f"{data['slot']}: {data['message']} {data['remedy']} ({run})"


def _abandoned(data: _Data) -> str:
    return f"{data['slot']}, attempt {data['attempt']}: {data['reason']}"


def _reused(data: _Data) -> str:
    return f"{data['slot']} by run {render.short(data['run'])}"


def _retried(data: _Data) -> str:
    return f"run {render.short(data['run'])}"


def _evaluated(data: _Data) -> str:
    checks = "; ".join(CheckResult.model_validate(check).text for check in data["checks"])
    return f"{data['gate']} over {render.short(data['subject'])}: {data['verdict']} ({checks})"


def _waived(data: _Data) -> str:
    over = f"{data['gate']} over {render.short(data['subject'])}"
    return f"{over} until {data['until']} by {data['author']}: {data['reason']}"


def _moved(data: _Data) -> str:
    return f"{data['name']} is {render.short(data['digest'])}"


def _cut(data: _Data) -> str:
    return f"release {render.short(data['release'])} of {data['tier']}"


def _condemned(data: _Data) -> str:
    return f"{_bytes(data)}, to be swept after {render.moment(data['until'])}"


def _bytes(data: _Data) -> str:
    """What is said of bytes: objects, how large they are, and whose they are."""
    size = f" of {render.size(data['size'])}" if "size" in data else ""
    return f"{data['objects']} objects{size}, {len(data['artifacts'])} artifacts"


def _evicted(data: _Data) -> str:
    freed = render.size(data["size"])
    return f"{render.short(data['digest'])}, {freed}; run {render.short(data['run'])} can make it"


def _restored(data: _Data) -> str:
    return f"{render.short(data['digest'])} from a {data['how']}"


def _differed(data: _Data) -> str:
    made, expected = render.short(data["made"]), render.short(data["expected"])
    return f"run {render.short(data['run'])} made {made} as {data['role']}, and before {expected}"


_TELL: dict[str, Callable[[_Data], str]] = {
    "artifact.published": _published,
    "plan.requested": _requested,
    "plan.cancelled": _plan_cancelled,
    "run.started": _started,
    "run.succeeded": _succeeded,
    "run.failed": _failed,
    "run.abandoned": _abandoned,
    "run.cancelled": _run_cancelled,
    "run.reused": _reused,
    "run.retried": _retried,
    "gate.evaluated": _evaluated,
    "gate.waived": _waived,
    "tag.moved": _moved,
    "release.cut": _cut,
    "bytes.condemned": _condemned,
    "bytes.reprieved": _bytes,
    "bytes.swept": _bytes,
    "artifact.evicted": _evicted,
    "artifact.restored": _restored,
    "run.differed": _differed,
}
