"""What became of a run, for a slot that wants it: filled, running, failed, or to be tried again.

Pure. A run that was lost (its process died, or the cause lay outside it) is tried again after a
pause, up to a limit; whatever else went wrong waits for a person.
"""

from __future__ import annotations

from datetime import timedelta

from stillhouse.registry.planning.views import Reason, Status
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas import moment
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.limits import Limits

Standing = tuple[Status, Reason, str, str | None]
"""The status, why, the detail for people, and when it goes on by itself (RFC 3339 UTC)."""


def standing(  # noqa: PLR0911  # one line a case
    state: State, run: Run | None, wanted_by: tuple[Digest, str], limits: Limits, now: str
) -> Standing:
    """How a run stands at `now` for the slot (plan, slot id) that wants it; None: never started."""
    if run is None:
        return Status.READY, Reason.NEW, "", None
    name = f"run {run.key[:SHORT]}"
    if run.last == "succeeded":
        own = (run.started.plan, run.started.slot) == wanted_by
        return Status.FILLED, Reason.SUCCEEDED if own else Reason.REUSED, name, None
    if run.going_on:
        return Status.RUNNING, Reason.RUNS, f"{name}, attempt {run.attempts}", None
    if state.reopened(run, wanted_by[0]):
        return Status.READY, Reason.RETRY, name, None
    if run.cancelled_seq:
        return Status.FAILED, Reason.RUN_CANCELLED, name, None
    if run.retried_seq:
        return Status.READY, Reason.RETRY, f"{name}: a retry was asked for", None
    failed = run.last == "failed"
    told = f"{name}: {run.error.message if failed and run.error else run.reason}"
    if not run.goes_on_by_itself:
        return Status.FAILED, Reason.RUN_FAILED, told, None
    if run.failures >= limits.attempts:
        return Status.FAILED, Reason.RUN_FAILED if failed else Reason.RUN_DIED, told, None
    due = _due(run, limits)
    # Before its own end the clock was set back; nobody waits for it to come round again.
    if run.ended_ts <= now < due:
        return Status.WAITING, Reason.BACKING_OFF, f"until {due}; {told}", due
    return Status.READY, Reason.RETRY, told, None


def _due(run: Run, limits: Limits) -> str:
    """When a run that was lost is tried again (RFC 3339 UTC)."""
    if not run.failures:
        return ""
    pause = timedelta(seconds=limits.pause(run.failures))
    return moment.spell(moment.parse(run.ended_ts) + pause)
