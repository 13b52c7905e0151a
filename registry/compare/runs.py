"""What differs between two runs, part by part of their keys; and the run to compare one with. Pure.

Rules: parameters go by their dotted names, one difference each. Verdicts, which a sealing run has
among its parameters, go by the gate and the slot that they are about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stillhouse.registry.planning.views import SlotView
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import RunStarted

ABSENT = "absent"
_VERDICTS = "verdicts"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One part of the run key that was not the same."""

    what: str
    """`phase`, `input`, `parameter`, `gate` or `tool`."""
    name: str
    before: str
    after: str


def prospect(plan: Digest, slot: SlotView) -> Run:
    """The run that a slot of this plan would be, as if it had just been started."""
    assert slot.key is not None  # noqa: S101  # asked only of what has a key
    started = RunStarted(
        run=slot.key,
        phase=slot.spec.name,
        phase_version=slot.spec.version,
        plan=plan,
        slot=slot.slot.id,
        attempt=slot.attempt,
        inputs=slot.inputs,
        params=dict(slot.params),
        tools=dict(slot.tools),
    )
    return Run(key=slot.key, started=started, attempts=slot.attempt, seq=0, started_seq=0, ts="")


def nearest_earlier(state: State, run: Run) -> Run | None:
    """Of the runs of the same phase and slot that were first started earlier, the most alike one.

    Of equally alike ones the latest.
    """
    nearest: tuple[int, Run] | None = None
    for other in state.runs.values():  # in the order in which their keys first appeared
        if other.key == run.key:
            break
        if (other.started.phase, other.started.slot) == (run.started.phase, run.started.slot):
            distance = len(differences(other, run))
            if nearest is None or distance <= nearest[0]:
                nearest = distance, other
    return nearest[1] if nearest else None


def differences(earlier: Run, run: Run) -> tuple[Difference, ...]:
    """Every part of the key that differs: phase version, inputs, parameters, verdicts, tools.

    Empty only for two runs of one key.
    """
    before, after = earlier.started, run.started
    parts: tuple[tuple[str, Mapping[str, Any], Mapping[str, Any]], ...] = (
        ("phase", {"version": before.phase_version}, {"version": after.phase_version}),
        ("input", _inputs(earlier), _inputs(run)),
        ("parameter", _parameters(earlier), _parameters(run)),
        ("gate", _verdicts(earlier), _verdicts(run)),
        ("tool", before.tools, after.tools),
    )
    found = tuple(d for what, old, new in parts for d in compared(what, old, new))
    if found or earlier.key == run.key:
        return found
    judged = [before.params.get(_VERDICTS, ABSENT), after.params.get(_VERDICTS, ABSENT)]
    return tuple(compared("gate", {_VERDICTS: judged[0]}, {_VERDICTS: judged[1]}))


def compared(
    what: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Difference]:
    """What two sets of named values do not have in common."""
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name, ABSENT), after.get(name, ABSENT)
        if old != new:
            yield Difference(what=what, name=name, before=_text(old), after=_text(new))


def flattened(value: object, name: str = "") -> dict[str, Any]:
    """Nested values by their dotted names; an empty list or object is a value itself."""
    if isinstance(value, Mapping) and value:
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)) and value:
        items = [(str(place), item) for place, item in enumerate(value)]
    else:
        return {name: value}
    found: dict[str, Any] = {}
    for key, item in items:
        found |= flattened(item, f"{name}.{key}" if name else key)
    return found


def _inputs(run: Run) -> dict[str, str]:
    """Role -> digests, of what is in the key."""
    found: dict[str, str] = {}
    for parent in run.started.inputs:
        if not parent.circumstance:
            before = found.get(parent.role)
            found[parent.role] = f"{before} {parent.digest}" if before else parent.digest
    return found


def _parameters(run: Run) -> dict[str, Any]:
    params = {name: value for name, value in run.started.params.items() if name != _VERDICTS}
    return flattened(params) if params else {}


def _verdicts(run: Run) -> dict[str, str]:
    """Gate and slot -> what was said; not in which event, nor over which of its own inputs."""
    return {
        f"{row['gate']} {row['slot']}": f"{row['verdict']}, waived"
        if row["waiver_seq"]
        else str(row["verdict"])
        for row in run.started.params.get(_VERDICTS, ())
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)
