"""What made a run's key new: the run beside the nearest earlier one of its slot. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.fold import Run, State

_ABSENT = "absent"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One part of the run key that was not the same."""

    what: str
    """`phase`, `input`, `parameter` or `tool`."""
    name: str
    before: str
    after: str


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
    """Every part of the key that differs: phase version, inputs, parameters, tools."""
    before, after = earlier.started, run.started
    parts: tuple[tuple[str, Mapping[str, Any], Mapping[str, Any]], ...] = (
        ("phase", {"version": before.phase_version}, {"version": after.phase_version}),
        ("input", _inputs(earlier), _inputs(run)),
        ("parameter", before.params, after.params),
        ("tool", before.tools, after.tools),
    )
    return tuple(
        Difference(
            what=what,
            name=name,
            before=_text(old.get(name, _ABSENT)),
            after=_text(new.get(name, _ABSENT)),
        )
        for what, old, new in parts
        for name in dict.fromkeys((*old, *new))
        if old.get(name, _ABSENT) != new.get(name, _ABSENT)
    )


def _inputs(run: Run) -> dict[str, str]:
    """Role -> digests, of what is in the key."""
    found: dict[str, str] = {}
    for parent in run.started.inputs:
        if not parent.circumstance:
            before = found.get(parent.role)
            found[parent.role] = f"{before} {parent.digest}" if before else parent.digest
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)
