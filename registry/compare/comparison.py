"""Two things side by side: where they begin to differ, and how what was measured differs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from stillhouse.registry.compare.measurements import (
    MetricPair,
    VerdictPair,
    pair_metrics,
    pair_verdicts,
)
from stillhouse.registry.compare.origins import Change, walk
from stillhouse.registry.compare.subjects import Subject, find_subject
from stillhouse.registry.state.state import State
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two."""

    kind: str
    """An artifact's kind, or `run of SLOT`."""
    digest: Digest
    """Of the artifact, or the run's key."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two things, and all that is not the same of them; nearest first. Values: before, after."""

    a: Side
    b: Side
    identical: bool
    causes: tuple[Change, ...]
    circumstances: tuple[Change, ...]
    """What was recorded beside the two and shaped no result."""
    consequences: tuple[Change, ...]
    metrics: tuple[MetricPair, ...]
    gates: tuple[VerdictPair, ...]


def compare(state: State, a: str, b: str, now: str) -> Comparison:
    """Compare what two references name; waivers as they hold at `now` (RFC 3339 UTC).

    Raises ReferenceError_, and InputError for a run and an artifact.
    """
    before, after = find_subject(state, a), find_subject(state, b)
    if bool(before.run) != bool(after.run):
        raise InputError(
            f"{a} and {b} can not be compared: one is a run, the other an artifact.",
            remedy="Name two runs, or two artifacts; `still show` a run for what it made.",
            code="diff.unlike",
        )
    found = walk(state, before, after)
    return Comparison(
        a=_side(state, before),
        b=_side(state, after),
        identical=before.name == after.name,
        causes=tuple(found.causes),
        circumstances=tuple(found.circumstances),
        consequences=tuple(found.consequences),
        metrics=pair_metrics(state, before, after),
        gates=pair_verdicts(state, before, after, now),
    )


def _side(state: State, subject: Subject) -> Side:
    if subject.run:
        return Side(kind=f"run of {subject.run.started.slot}", digest=subject.name)
    return Side(kind=str(state.artifacts[subject.digest][0].fact.kind), digest=subject.digest)
