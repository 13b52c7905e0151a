"""Retries: runs that failed or were cancelled may be tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillhouse.registry.state.references import find_run
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.events import RunRetried

if TYPE_CHECKING:
    from stillhouse.registry.state.runs import Run, RunName
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class Retries:
    """Runs that may be tried again."""

    runs: tuple[RunName, ...]
    dropped: tuple[Digest, ...]
    """Plans of these that are not asked for, and so take nothing up."""

    def to_json(self) -> tuple[RunName, ...]:
        """Only the runs."""
        return self.runs


def retry(session: Session, reference: str | None = None) -> Retries:
    """Let one run be tried again, by default all that ended badly and wait for a person.

    Raises ReferenceError_ when there is no such run, InputError when it did not end badly.
    """
    state = session.state()
    attempts = session.config.attempts
    chosen = (
        [run for run in state.runs.values() if run.unsuccessful and not run.tried_again(attempts)]
        if reference is None
        else [_unsuccessful(find_run(state, reference))]
    )
    if chosen:
        session.ledger.append([RunRetried(run=run.key) for run in chosen])
    plans = dict.fromkeys(run.started.plan for run in chosen)
    return Retries(
        runs=tuple(run.name for run in chosen),
        dropped=tuple(plan for plan in plans if not state.wants(plan)),
    )


def _unsuccessful(run: Run) -> Run:
    """The run, of which something can be tried again, if only earlier than by itself."""
    if run.unsuccessful:
        return run
    raise InputError(
        f"There is nothing to retry: {run.short_name} has not failed, {run.ending}.",
        remedy="Only failed and cancelled runs can be retried; see `still runs`.",
        code="retry.not_failed",
    )
