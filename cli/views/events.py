"""Events in words: one line for each fact, for `still log` and for the watcher of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stillhouse.cli.screen import Screen, clean
from stillhouse.schemas.event import Event
from stillhouse.schemas.policy import CheckResult

_Data = dict[str, Any]


def describe(screen: Screen, event: Event) -> str:
    """What the event says, in one line; empty for a type that is not known here."""
    tell = _TELL.get(event.type)
    return clean(tell(screen, event.data)) if tell else ""


def _published(screen: Screen, data: _Data) -> str:
    name = f" {data['name']}" if data.get("name") else ""
    return f"{data['kind']}{name} {screen.short(data['digest'])}, {data['origin']}"


def _requested(screen: Screen, data: _Data) -> str:
    priority = f", priority {data['priority']}" if data.get("priority") else ""
    return f"plan {screen.short(data['plan'])}{priority}"


def _plan_cancelled(screen: Screen, data: _Data) -> str:
    return f"plan {screen.short(data['plan'])}{_because(data)}"


def _run_cancelled(screen: Screen, data: _Data) -> str:
    return f"run {screen.short(data['run'])}, attempt {data['attempt']}{_because(data)}"


def _because(data: _Data) -> str:
    return f": {data['reason']}" if data.get("reason") else ""


def _started(screen: Screen, data: _Data) -> str:
    attempt = f", attempt {data['attempt']}" if data["attempt"] > 1 else ""
    return f"{data['slot']}{attempt}, run {screen.short(data['run'])}"


def _succeeded(screen: Screen, data: _Data) -> str:
    return f"{data['slot']} in {data['seconds']:.1f} s, run {screen.short(data['run'])}"


def _failed(screen: Screen, data: _Data) -> str:
    run = f"run {screen.short(data['run'])}" + (", tried again" if data.get("transient") else "")
    return f"{data['slot']}: {data['message']} {data['remedy']} ({run})"


def _abandoned(_screen: Screen, data: _Data) -> str:
    return f"{data['slot']}, attempt {data['attempt']}: {data['reason']}"


def _reused(screen: Screen, data: _Data) -> str:
    return f"{data['slot']} by run {screen.short(data['run'])}"


def _retried(screen: Screen, data: _Data) -> str:
    return f"run {screen.short(data['run'])}"


def _evaluated(screen: Screen, data: _Data) -> str:
    checks = "; ".join(CheckResult.model_validate(check).text for check in data["checks"])
    return f"{data['gate']} over {screen.short(data['subject'])}: {data['verdict']} ({checks})"


def _waived(screen: Screen, data: _Data) -> str:
    over = f"{data['gate']} over {screen.short(data['subject'])}"
    return f"{over} until {data['until']} by {data['author']}: {data['reason']}"


def _moved(screen: Screen, data: _Data) -> str:
    return f"{data['name']} is {screen.short(data['digest'])}"


def _cut(screen: Screen, data: _Data) -> str:
    return f"release {screen.short(data['release'])} of {data['tier']}"


def _condemned(screen: Screen, data: _Data) -> str:
    return f"{_bytes(screen, data)}, to be swept after {screen.moment(data['until'])}"


def _bytes(screen: Screen, data: _Data) -> str:
    """What is said of bytes: objects, how large they are, and whose they are."""
    size = f" of {screen.size(data['size'])}" if "size" in data else ""
    return f"{data['objects']} objects{size}, {len(data['artifacts'])} artifacts"


def _evicted(screen: Screen, data: _Data) -> str:
    freed = screen.size(data["size"])
    return f"{screen.short(data['digest'])}, {freed}; run {screen.short(data['run'])} can make it"


def _restored(screen: Screen, data: _Data) -> str:
    return f"{screen.short(data['digest'])} from a {data['how']}"


def _differed(screen: Screen, data: _Data) -> str:
    made, expected = screen.short(data["made"]), screen.short(data["expected"])
    return f"run {screen.short(data['run'])} made {made} as {data['role']}, and before {expected}"


_TELL: dict[str, Callable[[Screen, _Data], str]] = {
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
