"""Cancelling: a run, or a plan with its runs, is to end and is not to be started again.

An event records the wish. The process that advances the registry ends the workers; where none
does, this process does it, and starts nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillhouse.quiet import record_decision
from stillhouse.reasons import check_reason
from stillhouse.registry.planning.cancellation import Cancellation, cancellation_of
from stillhouse.registry.state.runs import Run, RunName, RunStatus
from stillhouse.schemas.digest import Digest

if TYPE_CHECKING:
    from stillhouse.phases.reactor.reactor import Reactor
    from stillhouse.schemas.event import Event
    from stillhouse.schemas.events import Payload
    from stillhouse.session import Session

PATIENCE = 30.0
"""Seconds to wait for a worker to end; it is asked first, and ended later."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class CancelledRun:
    """One run that was to end."""

    run: Digest
    slot: str
    status: RunStatus
    """`running`: it is recorded, but its worker was still there when patience was at its end."""


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """What became of a cancellation."""

    plan: Digest | None
    runs: tuple[CancelledRun, ...]
    spared: tuple[RunName, ...]
    """Runs of the plan that go on, because another plan needs them."""

    @property
    def ended(self) -> bool:
        """Whether no run goes on that was to end."""
        return all(run.status is not RunStatus.RUNNING for run in self.runs)


def cancel(session: Session, target: str, *, reason: str = "") -> Cancelled:
    """Record that a run, a slot's run or a plan is cancelled; wait until its workers have ended.

    Raises InputError when it has ended before or the reason is too long, ReferenceError_ when the
    target is unknown, BusyError.
    """
    check_reason(reason, code="cancel.long_reason", remedy="Shorten it.")
    reactor = session.reactor()
    asked = _recorded(session, reactor, target, reason)
    keys = [run.key for run in asked.runs]
    _await_end(reactor, keys)
    return Cancelled(
        plan=asked.plan,
        runs=tuple(_outcome(reactor.state.runs[key]) for key in keys),
        spared=tuple(run.name for run in asked.spared),
    )


def _recorded(session: Session, reactor: Reactor, target: str, reason: str) -> Cancellation:
    """Decide what is to end, and record it."""
    attempts = session.config.attempts

    def decide() -> tuple[Cancellation, Sequence[Payload], Callable[[Event], bool]]:
        reactor.refresh()
        asked = cancellation_of(reactor.state, target, reactor.view, attempts=attempts)
        return asked, asked.payloads(reactor.state, reason), asked.overtaken_by

    asked = record_decision(session, reactor.state, decide, command="still cancel")
    reactor.refresh()
    return asked


def _await_end(reactor: Reactor, keys: Iterable[Digest]) -> None:
    """Wait until none of the runs goes on, or patience is at its end.

    While no other process advances the registry, this one ends the workers.
    """
    until = time.monotonic() + PATIENCE
    while any(reactor.state.runs[key].going_on for key in keys):
        with reactor.advancing() as mine:
            moved = mine and reactor.tick(start=False)
        if not moved:
            reactor.refresh()
            time.sleep(_POLL_SECONDS)
        if time.monotonic() > until:
            return


def _outcome(run: Run) -> CancelledRun:
    status = RunStatus.RUNNING if run.going_on else RunStatus.CANCELLED
    return CancelledRun(run=run.key, slot=run.started.slot, status=status)
