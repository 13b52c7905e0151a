"""Admission: which of the runs that are ready may start now, and what holds each of the others.

Pure. Limits are circumstances: they say when a run starts, never what it makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stillhouse.registry.planning.decide import Start
from stillhouse.registry.planning.views import Reason
from stillhouse.registry.state.runs import Run
from stillhouse.schemas.limits import Limits


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What becomes of one start."""

    start: Start
    held: Reason | None = None
    """Why it has to wait; None: it may start."""
    detail: str = ""


def admissions(
    starts: Iterable[Start], running: Sequence[Run], limits: Limits
) -> Iterator[Admission]:
    """Each start in the given order, admitted while there is room for it.

    One that waits for memory holds those behind it, so that small runs never starve a large one;
    one that waits for its phase does not. Once WORKERS_BUSY was said, all that follow are held.
    """
    phases = Counter(run.started.phase for run in running)
    memory = sum(limits.of(run.started.phase).memory or 0 for run in running)
    behind: str | None = None
    for start in starts:
        phase = start.view.spec.name
        own = limits.of(phase)
        if phases.total() >= limits.workers:
            detail = f"{phases.total()} of {limits.workers} go on"
            yield Admission(start=start, held=Reason.WORKERS_BUSY, detail=detail)
        elif own.workers is not None and phases[phase] >= own.workers:
            detail = f"{phases[phase]} of {own.workers} of {phase} go on"
            yield Admission(start=start, held=Reason.PHASE_BUSY, detail=detail)
        elif behind or _too_much(memory, own.memory, limits.memory):
            behind = behind or f"{memory} of {limits.memory} bytes are set aside"
            yield Admission(start=start, held=Reason.MEMORY_TAKEN, detail=behind)
        else:
            phases[phase] += 1
            memory += own.memory or 0
            yield Admission(start=start)


def _too_much(taken: int, wanted: int | None, limit: int | None) -> bool:
    """Whether `wanted` bytes more are too many. What fits nowhere runs alone."""
    return limit is not None and bool(taken) and taken + (wanted or 0) > limit
